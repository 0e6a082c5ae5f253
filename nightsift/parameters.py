"""What can be configured: a frozen dataclass for each stage, the source of every default and of the JSON schema.

This module is read whenever the workflow starts, so it imports nothing but the standard library.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields

ARCHIVES = ("gaiadr3syn", "ps1", "skymapper", "atlas", "gaiaedr3", "sdss", "2mass", "vhs", "des")
HIPS = ("skymapper", "des", "decaps", "ztf", "2mass", "ps1")
# Services that know objects, and what kinds of objects: see nightsift/sources/known.py.
SERVICES = ("skybot", "gaia", "ps1", "skymapper", "des", "simbad", "vsx", "tns")
KINDS = ("asteroid", "star", "object", "variable", "transient")
BANDS = ("U", "B", "V", "R", "I", "u", "g", "r", "i", "z", "y", "G", "BP", "RP", "J", "H", "Ks")


def option(default, doc, **rule):
    """A field with one line of documentation and optional JSON-schema rules (``minimum``, ``enum`` ...)."""
    return field(default=default, metadata={"doc": doc, "rule": rule})


@dataclass(frozen=True, kw_only=True)
class InspectConfig:
    """Read the header, check it against the pixels, and mask what is bad."""

    gain: float | None = option(None, "e-/ADU for every image, over the header", exclusiveMinimum=0)
    saturation: float | None = option(None, "ADU above which pixels are saturated, over the header")
    cosmics: bool = option(True, "mask cosmic rays")
    cosmic_sigma: float = option(5.0, "S/N of the Laplacian above which a pixel is a cosmic ray", exclusiveMinimum=0)
    cosmic_fwhm: float = option(
        0.9, "FWHM of the stars, in pixels, below which they look like cosmic rays and none is masked", minimum=0
    )
    max_masked: float = option(0.95, "masked fraction above which an image is rejected", exclusiveMinimum=0, maximum=1)
    solve_time: float = option(
        30.0,
        "seconds that solve-field may search for the place of an image without WCS or hints; 0 for no search",
        minimum=0,
    )
    solver: str = option(
        "solve-field",
        "what searches: Astrometry.net's program, or the Python package astrometry, which needs indexes",
        enum=("solve-field", "astrometry"),
    )
    indexes: str | None = option(
        None, "folder of Astrometry.net's index files for that; by default what solve-field is configured for"
    )
    min_size: int = option(64, "images with a side shorter than this, in pixels, are rejected", minimum=16)


@dataclass(frozen=True, kw_only=True)
class DetectConfig:
    """Find and measure the objects of an image."""

    method: str = option(
        "sep", "what finds the objects: the library SEP, or the program SExtractor", enum=("sep", "sextractor")
    )
    threshold: float = option(1.5, "detection threshold on the filtered image, in sigma a pixel", exclusiveMinimum=0)
    min_area: int = option(4, "pixels above the threshold that make an object", minimum=1)
    min_snr: float = option(5.0, "objects with a lower aperture S/N are dropped", minimum=0)
    background_size: int = option(64, "mesh of the background map, in pixels", minimum=8)
    aperture: float = option(1.0, "radius of the photometric aperture, in FWHM", exclusiveMinimum=0)
    annulus_inner: float = option(5.0, "inner radius of the background annulus, in FWHM", exclusiveMinimum=0)
    annulus_outer: float = option(7.0, "outer radius of the background annulus, in FWHM", exclusiveMinimum=0)
    max_doubled: float = option(
        0.5,
        "share of stars with a companion at one offset above which an image is rejected: a double exposure",
        minimum=0,
        maximum=1,
    )
    time_limit: float = option(300.0, "seconds after which SExtractor is ended", exclusiveMinimum=0)


@dataclass(frozen=True, kw_only=True)
class PsfConfig:
    """Fit the PSF of an image to its stars, and all objects with it."""

    min_snr: float = option(20.0, "aperture S/N below which a star is not used", minimum=0)
    max_stars: int = option(150, "stars that the PSF is fitted to, at most", minimum=10)
    min_stars: int = option(5, "clean stars below which there is no PSF photometry", minimum=3)
    max_order: int = option(2, "highest order of the PSF's variation over the image", minimum=0, maximum=4)


@dataclass(frozen=True, kw_only=True)
class CatalogConfig:
    """Stars of known position and magnitude in the field of an image."""

    source: str = option(
        "local",
        "where the stars come from: a file, or an archive; auto chooses one by filter and declination",
        enum=("local", *ARCHIVES, "auto"),
    )
    path: str | None = option(None, "for local: FITS, CSV, ECSV, VOTable or Parquet")
    faintest: float | None = option(
        None,
        "for archives: faintest magnitude; by default 20, 17 or 14 by the size of the field",
        minimum=5,
        maximum=25,
    )
    gaia: bool = option(True, "for archives: positions and proper motions of Gaia eDR3 where the catalogue has none")
    margin: float = option(0.25, "margin around the image, in units of its diagonal", minimum=0)


@dataclass(frozen=True, kw_only=True)
class AstrometryConfig:
    """Match the objects with the catalogue and refine the image's WCS."""

    max_shift: float = option(
        0.25, "largest error of the header's centre that is looked for, in image diagonals", minimum=0
    )
    max_rotation: float = option(
        15.0, "largest error of the header's rotation that is looked for, in degrees", minimum=0
    )
    max_scale: float = option(0.1, "largest relative error of the header's pixel scale that is looked for", minimum=0)
    max_order: int = option(5, "highest SIP order that may be chosen", minimum=1, maximum=5)
    min_matches: int = option(8, "matched stars below which an image is rejected", minimum=4)
    min_log_odds: float = option(
        20.7, "ln of the odds for the solution, on held-out stars, below which an image is rejected", minimum=0
    )
    min_seen: float = option(
        0.4, "fraction of the brightest catalogue stars that are seen, below which an image is degraded", minimum=0
    )


@dataclass(frozen=True, kw_only=True)
class PhotometryConfig:
    """Tie the magnitudes of an image to the catalogue."""

    band: str | None = option(
        None,
        "catalogue band to calibrate against, such as r or VT; by default the image's filter, or that nearest to none",
    )
    color: str | None = option(
        None, "colour of the colour term, such as g-r; by default what suits the band, 'none' for no term"
    )
    max_spatial_order: int = option(2, "highest order of the zero point's polynomial in x and y", minimum=0, maximum=4)
    amplifiers: bool = option(True, "give parts of the image a zero point each where the stars show a gain step")
    max_intrinsic: float = option(0.05, "largest intrinsic scatter that is fitted, in mag", minimum=0)
    flux_terms: bool = option(
        False, "fit a nonlinearity and an additive flux too, where the stars support them; else a warning tells"
    )
    max_contamination: float = option(
        0.02, "catalogue stars with more light of neighbours in the aperture are left out", minimum=0
    )
    min_stars: int = option(5, "calibration stars below which an image is rejected", minimum=1)
    max_zp_err: float = option(
        0.1, "error of the zero point, in mag, above which an image is rejected", exclusiveMinimum=0
    )
    max_scatter: float = option(
        0.25, "scatter of bright stars about the zero point, in mag, above which an image is degraded", minimum=0
    )
    min_agreement: float = option(
        0.6, "fraction of the bright, unharmed stars that agree, below which it is degraded", minimum=0, maximum=1
    )
    max_chi2: float = option(30.0, "reduced chi-square of these above which it is degraded", exclusiveMinimum=0)
    max_color_term: float = option(0.7, "colour term, either sign, above which it is degraded", minimum=0)
    limit_snr: float = option(5.0, "S/N of the limiting magnitude", exclusiveMinimum=0)


@dataclass(frozen=True, kw_only=True)
class UncataloguedConfig:
    """Find the objects that the catalogue does not have, or has much fainter."""

    search: bool = option(True, "look for them")
    min_snr: float = option(8.5, "S/N of the fit with the PSF from which on an object is looked at", minimum=0)
    min_brightening: float = option(
        2.0, "magnitudes that an object must be brighter than all catalogue stars at its place together", minimum=0
    )
    false_alarms: float = option(
        0.05,
        "stars too faint for the catalogue that may pass for more in a megapixel, by its counts",
        exclusiveMinimum=0,
    )
    max_spread: float = option(
        1.5, "standard deviations from which on `spread` says that an object is no point", exclusiveMinimum=0
    )
    ra: float | None = option(None, "centre of a cone that candidates must lie in, in degrees; by default none")
    dec: float | None = option(None, "its declination, in degrees", minimum=-90, maximum=90)
    radius: float | None = option(None, "its radius, in degrees", exclusiveMinimum=0)


@dataclass(frozen=True, kw_only=True)
class TemplateConfig:
    """Bring the template onto the image's pixels."""

    source: str = option(
        "local",
        "where the template comes from: a file or folder, or an archive; auto chooses one by position and filter",
        enum=("local", "ps1", "legacy", "hips", "none", "auto"),
    )
    survey: str | None = option(
        None, "for hips: the survey; by default what suits filter and declination", enum=(*HIPS, None)
    )
    band: str | None = option(None, "for archives: the survey's band; by default the one closest to the image's filter")
    max_pieces: int = option(
        40,
        "pieces of sky that a template is made of, at most: an archive's (some 0.4 degrees), or images of a folder",
        minimum=1,
    )
    path: str | None = option(
        None, "for local: a FITS image, or a folder of such with a WCS, of which those are taken that an image needs"
    )
    mask: str | None = option(None, "for local: a FITS mask of the template, not 0 = bad")
    gain: float | None = option(None, "e-/ADU of the template, over its header", exclusiveMinimum=0)
    saturation: float | None = option(None, "ADU above which template pixels are saturated, over its header")
    max_shift: float | None = option(
        None,
        "largest error of its WCS that is looked for, in arcsec; by default 20 pixels of the image, 0 trusts it",
        minimum=0,
    )
    min_coverage: float = option(
        0.02, "covered fraction of the image below which it is not subtracted", minimum=0, maximum=1
    )
    max_doubled: float = option(
        0.5,
        "share of its stars with a companion at one offset above which it is not used: a double exposure",
        minimum=0,
        maximum=1,
    )


@dataclass(frozen=True, kw_only=True)
class SubtractConfig:
    """Match the template to the image and subtract it."""

    method: str = option(
        "alard-lupton",
        "by a kernel of Gaussians times polynomials or of free pixels, by the PSFs, or by the program HOTPANTS",
        enum=("alard-lupton", "delta", "zogy", "hotpants"),
    )
    kernel_order: int = option(2, "highest order of the kernel's variation over the image", minimum=0, maximum=4)
    max_stamps: int = option(150, "stars that the kernel is fitted to, at most", minimum=10)
    time_limit: float = option(300.0, "seconds after which HOTPANTS is ended", exclusiveMinimum=0)
    clip: float = option(
        3.0, "stamps whose residual lies further out, in sigma, are left out of the fit", exclusiveMinimum=0
    )
    max_condition: float = option(
        1e8,
        "condition number of the kernel's spatial terms above which an image is rejected: stars in a line, say",
        exclusiveMinimum=0,
    )
    max_residual: float = option(
        0.2, "scatter of what is left of the stars, relative to them, above which an image is rejected", minimum=0
    )
    min_coverage: float = option(
        0.02, "usable fraction of the difference below which an image is rejected", minimum=0, maximum=1
    )
    min_sky_sigma: float = option(
        0.8, "scatter of the S/N of fluxes at empty places below which an image is rejected", minimum=0
    )
    max_sky_sigma: float = option(1.3, "the same, above which an image is rejected", exclusiveMinimum=0)
    min_noise_scale: float = option(
        0.3,
        "noise of the difference, relative to what both images' noise makes of it, below which an image is rejected",
        minimum=0,
    )
    max_noise_scale: float = option(1.5, "the same, above which an image is rejected", exclusiveMinimum=0)
    max_shared: float = option(
        0.2,
        "share of the image's own noise in the template above which an image is rejected: a stack that it went into",
        minimum=0,
    )
    max_changed: float = option(
        0.75,
        "share of bright stars with something significant left in their cores above which an image is rejected",
        minimum=0,
        maximum=1,
    )


@dataclass(frozen=True, kw_only=True)
class FakesConfig:
    """Put fakes into the image and find them again: how complete it is, and what real and bogus look like in it."""

    density: float = option(150.0, "fakes a megapixel; 0 for none", minimum=0)
    most: int = option(600, "fakes in an image, at most", minimum=1)
    seed: int = option(0, "of all that is random here, together with the image's name", minimum=0)


@dataclass(frozen=True, kw_only=True)
class TransientsConfig:
    """Find and measure what the difference holds, and tell real from bogus."""

    threshold: float | None = option(
        None, "S/N from which on there are candidates; by default what false_alarms asks for", exclusiveMinimum=0
    )
    false_alarms: float = option(0.05, "peaks of one sign that noise alone may make per megapixel", exclusiveMinimum=0)
    min_score: float = option(0.5, "score from which on a candidate is real", minimum=0, maximum=1)
    negative: bool = option(True, "search for what has faded, too")
    max_masked: float = option(0.5, "largest masked fraction of a candidate's PSF", minimum=0, maximum=1)
    residual: float = option(
        0.03, "change of a template star, relative to it, that passes for a subtraction error", minimum=0
    )
    max_line: float = option(
        0.6,
        "fraction of a line on one side of a candidate that may be as bright or dark as parts of it",
        exclusiveMinimum=0,
        maximum=1,
    )
    max_hole: float = option(
        0.5,
        "fraction of a change that a hole in the other image may explain: in the template, of what has brightened",
        exclusiveMinimum=0,
    )
    min_recovered: float = option(
        0.7,
        "fraction of the fakes of S/N 20 or more on empty sky that has to be found, or an image is not searched",
        minimum=0,
        maximum=1,
    )
    max_deeper: float = option(
        1.0, "magnitudes beyond the image's own limit where half of the fakes may be found, or it is not searched"
    )
    cutout: int = option(41, "side of the cutouts, in pixels", minimum=11)


@dataclass(frozen=True, kw_only=True)
class KnownConfig:
    """Ask services what is known near each candidate; candidates are labelled with it."""

    services: tuple = option((), "which to ask; none by default", items={"enum": SERVICES}, uniqueItems=True)
    radius: float = option(2.0, "arcsec within which a candidate is a known object", exclusiveMinimum=0, maximum=5)
    asteroid_radius: float = option(
        10.0, "the same for asteroids, or the error of their ephemeris if that is larger", exclusiveMinimum=0
    )
    observatory: str | None = option(
        None,
        "for asteroids: IAU code, in quotes, where header and instruments have none; by default the Earth's centre",
        pattern="^[0-9A-Z][0-9]{2}$",
    )
    set_aside: tuple = option(
        (), "kinds of known objects that are set aside instead of labelled", items={"enum": KINDS}, uniqueItems=True
    )


@dataclass(frozen=True, kw_only=True)
class SourcesConfig:
    """Join the candidates of the campaign into sources with light curves."""

    radius: float | None = option(
        None, "association radius, in arcsec; by default half the median FWHM", exclusiveMinimum=0
    )
    min_detections: int = option(1, "sources with fewer detections are left out of the light curves", minimum=1)


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """The campaign's page."""

    max_candidates: int = option(500, "candidates shown on the page, the best first", minimum=1)


@dataclass(frozen=True, kw_only=True)
class ArchiveConfig:
    """Ask services for what is not in the cache yet; no result depends on it."""

    cache: str | None = option(
        None, "folder of what services have answered, for all campaigns; by default nightsift in the user's cache"
    )
    servers: Mapping | None = option(
        None,
        "servers by service, each a URL or a list of mirrors, to ask instead of the usual ones",
        additionalProperties={"type": ["string", "array"], "items": {"type": "string"}},
    )
    timeout: float = option(60.0, "seconds without a sign after which a request is given up", exclusiveMinimum=0)
    attempts: int = option(4, "times that a request is made before a service counts as down", minimum=1)
    wait: float = option(2.0, "seconds before the second attempt; doubled before each further one", minimum=0)
    parallel: int = option(2, "requests to one service at a time, of all runs on this machine together", minimum=1)
    max_size: float = option(300.0, "megabytes that a reply may have", exclusiveMinimum=0)
    tns_key: str | None = option(
        None, "key for the Transient Name Server; by default what the variable NIGHTSIFT_TNS_KEY holds"
    )
    tns_bot: str | None = option(None, "number and name of the bot that the key belongs to, such as '1234 mybot'")


@dataclass(frozen=True, kw_only=True)
class InstrumentConfig:
    """What holds for all images whose header matches, over the header and under the sample sheet."""

    match: Mapping = option(
        MISSING,
        "cards that the header must all have: number, or text with the wildcards * and ?",
        minProperties=1,
        additionalProperties={"type": ["string", "number", "boolean"]},
    )
    gain: float | None = option(None, "e-/ADU", exclusiveMinimum=0)
    readnoise: float | None = option(None, "read noise in electrons", exclusiveMinimum=0)
    saturation: float | None = option(None, "ADU above which pixels are saturated")
    filter: Mapping | None = option(
        None,
        "names of filters in the header, and the bands they are; `none` for no band",
        additionalProperties={"enum": (*BANDS, "none")},
    )
    time: str | None = option(None, "card of the header that holds the time of observation, UTC")
    time_is: str | None = option(None, "what that card tells of the exposure", enum=("start", "middle", "end", None))
    exptime: float | str | None = option(None, "exposure in seconds, or the card of the header that holds it")
    pixscale: float | None = option(None, "approximate pixel scale in arcsec", exclusiveMinimum=0)
    observatory: str | None = option(None, "IAU code of the observatory, in quotes", pattern="^[0-9A-Z][0-9]{2}$")
    hdu: int | None = option(None, "number of the HDU that holds the image, from 0", minimum=0)


STAGES = {
    "inspect": InspectConfig,
    "detect": DetectConfig,
    "psf": PsfConfig,
    "catalog": CatalogConfig,
    "astrometry": AstrometryConfig,
    "photometry": PhotometryConfig,
    "uncatalogued": UncataloguedConfig,
    "template": TemplateConfig,
    "subtract": SubtractConfig,
    "fakes": FakesConfig,
    "transients": TransientsConfig,
    "sources": SourcesConfig,
    "report": ReportConfig,
}
# Not stages, but sections of the configuration like theirs.
SECTIONS = {**STAGES, "known": KnownConfig, "archive": ArchiveConfig}


def _type_schema(annotation) -> dict:
    if isinstance(annotation, types.UnionType):
        return {"type": [_type_schema(part)["type"] for part in typing.get_args(annotation)]}
    names = {
        str: "string",
        float: "number",
        int: "integer",
        bool: "boolean",
        tuple: "array",
        Mapping: "object",
        type(None): "null",
    }
    return {"type": names[annotation]}


def section_schema(section) -> dict:
    """Return the JSON schema of one stage's section."""
    hints = typing.get_type_hints(section)
    properties = {}
    for item in fields(section):
        entry = _type_schema(hints[item.name]) | {"description": item.metadata["doc"]}
        rule = {key: _plain(value) for key, value in item.metadata["rule"].items()}
        if item.default is not MISSING:
            entry["default"] = _plain(item.default)
        properties[item.name] = entry | rule
    required = [item.name for item in fields(section) if item.default is MISSING]
    return {
        "type": "object",
        "description": section.__doc__.strip(),
        **({"required": required} if required else {}),
        "additionalProperties": False,
        "properties": properties,
    }


def _plain(value):
    """Return a rule as JSON has it."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return list(value) if isinstance(value, tuple) else value


def schema() -> dict:
    """Return the JSON schema of the whole configuration."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "nightsift configuration",
        "type": "object",
        "required": ["images"],
        "additionalProperties": False,
        "properties": {
            "images": {"type": "string", "description": "a sample sheet (.tsv), or a glob of FITS images"},
            "results": {"type": "string", "description": "the output folder", "default": "results"},
            "instruments": {
                "type": "array",
                "description": "a list of what holds for all images of an instrument, over their headers",
                "default": [],
                "items": section_schema(InstrumentConfig),
            },
            "offline": {
                "type": "boolean",
                "description": "ask no service: what is in the cache has to do",
                "default": False,
            },
            **{name: section_schema(section) for name, section in SECTIONS.items()},
        },
    }
