"""The bits of masks and of object flags: the only place where a bit gets its meaning."""

from enum import IntFlag


class Mask(IntFlag):
    """Planes of an image mask; a pixel without any bit is good."""

    NONFINITE = 1 << 0
    SATURATED = 1 << 1
    COSMIC = 1 << 2
    OUTSIDE = 1 << 3
    USER = 1 << 4
    BADLINE = 1 << 5
    NO_TEMPLATE = 1 << 6
    TEMPLATE_BAD = 1 << 7
    EDGE = 1 << 8


class Flag(IntFlag):
    """Flags of an object or candidate; the first six mean what SExtractor's mean."""

    CROWDED = 0x001
    DEBLENDED = 0x002
    SATURATED = 0x004
    TRUNCATED = 0x008
    APERTURE_INCOMPLETE = 0x010
    ISOPHOTE_INCOMPLETE = 0x020
    FOOTPRINT_MASKED = 0x100
    APERTURE_MASKED = 0x200
    ANNULUS_BAD = 0x400
    OUTLIER = 0x800
    COSMIC = 0x1000
    PSF_FAILED = 0x2000
    EXTENDED = 0x4000
    BLEND = 0x8000


MASK_MEANING: dict[IntFlag, str] = {
    Mask.NONFINITE: "pixel value is not finite",
    Mask.SATURATED: "saturated, or bled into from a saturated pixel",
    Mask.COSMIC: "hit by a cosmic ray",
    Mask.OUTSIDE: "outside the data section",
    Mask.USER: "masked by the user",
    Mask.BADLINE: "bad column or row",
    Mask.NO_TEMPLATE: "not covered by the template",
    Mask.TEMPLATE_BAD: "template pixel masked or saturated",
    Mask.EDGE: "kernel reaches bad pixels or past the image",
}
#: pixels whose values mean nothing; those of saturated ones are at least bright
HIDDEN = Mask.NONFINITE | Mask.OUTSIDE | Mask.USER | Mask.BADLINE | Mask.COSMIC

#: flags of an object whose flux, position or shape may be wrong by more than its error; a stage that needs less of it
#: takes those away that do not matter there
UNUSABLE = (
    Flag.SATURATED
    | Flag.TRUNCATED
    | Flag.APERTURE_INCOMPLETE
    | Flag.FOOTPRINT_MASKED
    | Flag.APERTURE_MASKED
    | Flag.ANNULUS_BAD
    | Flag.OUTLIER
    | Flag.COSMIC
)

FLAG_MEANING: dict[IntFlag, str] = {
    Flag.CROWDED: "neighbours, seen or not, affect the aperture",
    Flag.DEBLENDED: "deblended from another object",
    Flag.SATURATED: "contains saturated pixels",
    Flag.TRUNCATED: "footprint cut by the image border",
    Flag.APERTURE_INCOMPLETE: "aperture reaches beyond the image",
    Flag.ISOPHOTE_INCOMPLETE: "isophotal data incomplete",
    Flag.FOOTPRINT_MASKED: "footprint contains masked pixels",
    Flag.APERTURE_MASKED: "aperture contains masked pixels",
    Flag.ANNULUS_BAD: "background annulus has too few good pixels",
    Flag.OUTLIER: "unlike the stars of the image in shape",
    Flag.COSMIC: "peak lies on a cosmic-ray hit",
    Flag.PSF_FAILED: "PSF fit failed",
    Flag.EXTENDED: "wider than the PSF: a galaxy, or stars merged",
    Flag.BLEND: "perhaps two sources that merge",
}


def header_cards(enum: type[IntFlag]) -> list[tuple[str, str, str]]:
    """Return FITS cards ``(keyword, "NAME = value", meaning)`` that name the bits of `enum`."""
    meaning, prefix = (MASK_MEANING, "MP") if enum is Mask else (FLAG_MEANING, "FL")
    return [(f"{prefix}{number:02d}", f"{bit.name} = {int(bit)}", meaning[bit]) for number, bit in enumerate(enum)]
