"""What FITS headers say of exposure, gain, read noise, saturation, filter and pointing, in their many spellings.

Every reader takes a header and returns the value, or None, and what is to be said about it: nothing that is there and
cannot be used is passed over in silence. The spellings stand in `nightsift.header.keywords`; times are read by
`nightsift.header.times`, the celestial solution by `nightsift.header.wcs_cards`.
"""

from __future__ import annotations

import math
import re

import numpy as np
from astropy.io import fits

from nightsift.header import filters, keywords
from nightsift.header.cards import comment, get, look, look_number, number, text

_LONGEST = 1e6  # seconds
_IAU_CODE = re.compile(r"[0-9A-Z][0-9]{2}")
_ASINH = 2.5 / math.log(10.0)


def _numbers(header: fits.Header, table, warnings: list[str]) -> list[tuple[keywords.Spelling, float]]:
    """Return the rows of a table whose cards hold numbers, and these."""
    found = [(row, look_number(header, row.key, warnings)) for row in table]
    return [(row, value) for row, value in found if value is not None]


def _disagreement(found, factor: float, unit: str) -> list[str]:
    """Return what to say when cards for one thing differ by more than a factor."""
    row, value = found[0]
    for other, another in found[1:]:
        if not value / factor <= another <= value * factor:
            return [f"{row.key} = {value:g} and {other.key} = {another:g} {unit} differ: {row.key} is taken"]
    return []


# --- Exposure ---------------------------------------------------------------------------------------------------------


def _exposure_unit(value, words: str) -> str | None:
    """Return the unit that stands behind a number, or else the first that its comment names; None without one."""
    behind = re.search(r"\d[.]?\s*([a-zµ]+)[.\s\]]*$", str(value).lower()) if isinstance(value, str) else None
    named = behind and re.fullmatch(f"(?:{keywords.TIME_UNITS.pattern})", behind[1])
    named = named or keywords.TIME_UNITS.search(words)
    return next((unit for unit, part in named.groupdict().items() if part), None) if named else None


def read_exptime(header: fits.Header) -> tuple[float | None, list[str]]:
    """Return the exposure in seconds, or None, and warnings."""
    warnings: list[str] = []
    found = []
    for row, value in _numbers(header, keywords.EXPTIME, warnings):
        words = comment(header, row.key)
        if row.key == "EXP" and keywords.COUNTER.search(words):
            continue
        unit = _exposure_unit(get(header, row.key), words) or row.unit
        seconds = value * keywords.EXPOSURE_UNITS[unit]
        if not 0.0 < seconds <= _LONGEST:
            warnings.append(f"{row.key} = {value:g} {unit} is no exposure")
            continue
        found.append((row, seconds))
        if unit != row.unit:
            warnings.append(f"{row.key} is in {unit}, as it says itself")
    if not found:
        return None, [*warnings, "no exposure time in the header"]
    row, seconds = found[0]
    single = [item for item in found if item[0].meaning == row.meaning]
    if row.meaning == "total":
        warnings.append(f"{row.key} = {seconds:g} s may be the total of several exposures")
    return seconds, warnings + _disagreement(single, 1.02, "s")


def read_frames(header: fits.Header) -> tuple[str | None, int]:
    """Return the card that says how many exposures are combined in the image, and the number: 1 without such a card."""
    for row, value in _numbers(header, keywords.FRAMES, []):
        if value > 1.0 and value == int(value):
            return row.key, int(value)
    return None, 1


# --- Gain, read noise, saturation -------------------------------------------------------------------------------------


def _is_setting(header: fits.Header, value: float, words: str) -> str | None:
    """Return why the card GAIN is a setting of the camera and not e-/ADU; None when it may well be the latter."""
    camera = text(header, keywords.CAMERA_KEYS)
    writer = text(header, keywords.WRITER_KEYS)
    if keywords.SETTING_CAMERAS.search(camera):
        return f"a setting of the camera ({camera})"
    if keywords.SETTING_WRITERS.search(writer):
        return f"a setting of the camera (written by {writer})"
    if re.search(r"\bsetting\b|sensor gain|\bdb\b|gain index|camera gain", words):
        return "a setting of the camera, as its comment says"
    spoken = re.search(r"e-|electron|adu|photo", words) or read_frames(header)[1] > 1
    if value >= 20.0 and value == int(value) and not spoken:
        return "like the setting of a camera"
    return None


def _pixel_unit(header: fits.Header, exptime: float | None, warnings: list[str]) -> tuple[bool, float] | None:
    """Return whether pixels are in electrons, and e-/ADU per such; None for units that no gain goes with."""
    unit = str(get(header, "BUNIT") or "").lower().strip()
    rate = bool(re.search(r"(/|per) ?(s|sec|second)$|s\*\*-1$|s\^?-1$", unit))
    electrons = bool(re.match(r"e(-|lectrons?|l)?(?![a-z])|photo", unit))
    if re.search(r"jy|magg|erg|mag$", unit):
        warnings.append(f"BUNIT {unit} is no count: no gain of the header goes with it")
        return None
    if not rate:
        return electrons, 1.0
    if exptime is None:
        warnings.append(f"BUNIT {unit} is a rate, and the exposure is not known: no gain of the header goes with it")
        return None
    warnings.append(f"BUNIT {unit} is a rate: the gain is multiplied by the exposure")
    return electrons, exptime


def read_gain(header: fits.Header, exptime: float | None = None) -> tuple[float | None, list[str]]:
    """Return the gain in e-/ADU as the header has it, not yet checked against the pixels, and warnings.

    Parameters
    ----------
    header : astropy.io.fits.Header
    exptime : float, optional
        Seconds; for pixels in counts a second.
    """
    warnings: list[str] = []
    unit = _pixel_unit(header, exptime, warnings)
    if unit is None:
        return None, warnings
    electrons, factor = unit
    usable = _gains(header, warnings)
    if electrons:
        if usable and abs(usable[0][1] - 1.0) > 0.01:
            warnings.append(f"BUNIT is electrons: gain 1 is taken, not {usable[0][0].key} = {usable[0][1]:g}")
        return factor, warnings
    if not usable:
        return None, warnings
    row, value = usable[0]
    if row.meaning == "gain of one amplifier":
        same = [item for item in usable if item[0].meaning == row.meaning]
        value = float(np.mean([gain for _, gain in same]))
        if len(same) > 1:
            warnings.append(f"the mean of {', '.join(item.key for item, _ in same)} is taken, {value:.4g} e-/ADU")
    else:
        warnings += _disagreement([item for item in usable if "amplifier" not in item[0].meaning], 1.3, "e-/ADU")
    return value * factor, warnings


def _gains(header: fits.Header, warnings: list[str]) -> list[tuple[keywords.Spelling, float]]:
    usable: list[tuple[keywords.Spelling, float]] = []
    for row, value in _numbers(header, keywords.GAIN, warnings):
        words = comment(header, row.key)
        setting = _is_setting(header, value, words) if row.key == "GAIN" else None
        inverse = row.unit == "ADU/e-" or re.search(r"(adu|dn|counts?)\s*(/|per)\s*(e|photo)", words)
        if value <= 0.0 or value > 1000.0:
            warnings.append(f"{row.key} = {value:g} e-/ADU is not possible: ignored")
        elif setting:
            if not usable:
                warnings.append(f"GAIN = {value:g} is {setting}, not e-/ADU: ignored")
        elif inverse:
            if not usable:
                warnings.append(f"{row.key} is in ADU/e-, as its comment or writer says: its inverse is taken")
            usable.append((row, 1.0 / value))
        else:
            usable.append((row, value))
    return usable


def read_readnoise(header: fits.Header) -> tuple[float | None, list[str]]:
    """Return the read noise in electrons, or None, and warnings."""
    warnings: list[str] = []
    for row, value in _numbers(header, keywords.READNOISE, warnings):
        if 0.0 < value < 1000.0:
            return value, warnings
        warnings.append(f"{row.key} = {value:g} e- is no read noise: ignored")
    return None, warnings


def read_observatory(header: fits.Header) -> str | None:
    """Return the IAU code of the observatory, None where the header has none; other words in its cards are no error."""
    for row in keywords.OBSERVATORY:
        code = str(get(header, row.key) or "").strip().upper()
        code = code.zfill(3) if code.isdigit() else code
        if _IAU_CODE.fullmatch(code):
            return code
    return None


def read_saturation(header: fits.Header) -> tuple[str | None, float | None, list[str]]:
    """Return the card and the level in ADU from which on pixels are saturated, and warnings."""
    warnings: list[str] = []
    usable: list[tuple[keywords.Spelling, float]] = []
    for row, value in _numbers(header, keywords.SATURATION, warnings):
        words = comment(header, row.key)
        electrons = re.search(r"\[?\b(e-|electrons?)", words) and "adu" not in words
        if row.key == "DATAMAX" and not re.search(r"saturat|linear|good|valid", words):
            if not usable:
                warnings.append(f"DATAMAX = {value:g} is the largest pixel, not saturation: ignored")
        elif value <= 0.0:
            warnings.append(f"{row.key} = {value:g} ADU is no saturation level: ignored")
        elif electrons and not str(get(header, "BUNIT") or "").lower().startswith("e"):
            warnings.append(f"{row.key} = {value:g} is in electrons, as its comment says: ignored")
        else:
            usable.append((row, value))
    amplifiers = [item for item in usable if item[0].meaning.endswith("one amplifier")]
    if not usable:
        return None, None, warnings
    row, value = min(amplifiers, key=lambda item: item[1]) if usable[0] in amplifiers else usable[0]
    return row.key, value, warnings


# --- Filter -----------------------------------------------------------------------------------------------------------


def has_color_wheel(header: fits.Header) -> bool:
    """Return whether the header is that of a camera for pictures, whose filters R, G and B may be those of RGB."""
    observer = text(header, ("TELESCOP", *keywords.CAMERA_KEYS))
    writer = text(header, keywords.WRITER_KEYS)
    return bool(
        keywords.SETTING_CAMERAS.search(observer)
        or keywords.SETTING_WRITERS.search(writer)
        or re.search(r"\bgoto\b|goto-?\d", observer, re.IGNORECASE)
        or get(header, "BAYERPAT") is not None
    )


def read_filter(header: fits.Header) -> tuple[str | None, str, list[str]]:
    """Return the canonical filter (or None), its name as in the header, and warnings."""
    warnings: list[str] = []
    names = {}
    for row in keywords.FILTER:
        value = look(header, row.key, warnings)
        # The name of a survey may end in a filter, as SkyView has it, but mostly does not.
        if row.key == "SURVEY" and filters.identify(str(value)).band is None:
            continue
        if value is not None and not isinstance(value, bool):
            names[row.key] = str(value)
    if not names:
        return None, "", [*warnings, "no filter in the header"]
    wheel, observer = has_color_wheel(header), text(header, ("TELESCOP", "INSTRUME", "OBSERVAT", "SURVEY", "ORIGIN"))
    found = {key: filters.identify(name, wheel, observer) for key, name in names.items()}
    known = {key: item for key, item in found.items() if item.band}
    if known:
        key, item = next(iter(known.items()))
        others = sorted({f"{other} = {names[other]}" for other in known if known[other].band != item.band})
        others += [f"{other} = {names[other]}" for other in found if found[other].kind in ("narrow", "rgb", "other")]
        clash = [f"{key} = {names[key]} is taken for the filter, though {', '.join(others)}"] if others else []
        return item.band, names[key], warnings + clash + [item.note] * bool(item.note)
    # Of several wheels the one that says most.
    order = ("narrow", "rgb", "other", "unknown", "none")
    key = min(found, key=lambda name: order.index(found[name].kind))
    return None, names[key], [*warnings, found[key].note]


# --- Pointing ---------------------------------------------------------------------------------------------------------


def _angle(value, words: str, hours: bool) -> tuple[float | None, str]:
    """Return degrees, and whether the unit was ``said`` or ``assumed``; ``hours`` tells that it may be in hours."""
    plain = number(value)
    if plain is not None:
        in_hours = hours and re.search(r"\b(hours?|hrs?|h)\b", words) is not None
        said = "said" if in_hours or "deg" in words else "assumed"
        return plain * (15.0 if in_hours else 1.0), said
    match = re.match(r"^\s*([+-]?)\s*(\d+)[:hd° ]+\s*(\d+)[:m' ]+\s*(\d+\.?\d*)?[s\"]*\s*$", str(value))
    if not match or int(match[3]) > 59 or float(match[4] or 0.0) >= 60.001:
        return None, ""
    size = int(match[2]) + int(match[3]) / 60.0 + float(match[4] or 0.0) / 3600.0
    in_hours = hours and size < 24.0 and not re.search(r"\bdeg", words)
    return (-size if match[1] == "-" else size) * (15.0 if in_hours else 1.0), "said"


def read_pointing(header: fits.Header) -> tuple[float | None, float | None, list[str]]:
    """Return the pointing (ra, dec) in degrees, or ``(None, None)``, and warnings.

    Text with three fields has ra in hours, unless it is 24 or more or the comment says degrees.
    """
    warnings: list[str] = []
    found = []
    other_axes = re.match("(?!RA)[A-Z]", str(get(header, "CTYPE1") or "").upper())
    for ra_key, dec_key in keywords.POINTING:
        if ra_key == "CRVAL1" and other_axes:
            continue
        ra_value, dec_value = look(header, ra_key, warnings), look(header, dec_key, warnings)
        if ra_value is None or dec_value is None:
            continue
        ra, unit = _angle(ra_value, comment(header, ra_key), hours=True)
        dec, _ = _angle(dec_value, "", hours=False)
        if ra is None or dec is None or not (0.0 <= ra <= 360.0 and abs(dec) <= 90.0):
            warnings.append(f"{ra_key} = {ra_value!r}, {dec_key} = {dec_value!r} is no position: ignored")
        elif (ra, dec) == (0.0, 0.0):
            warnings.append(f"{ra_key} and {dec_key} are both 0, as if never set: ignored")
        else:
            found.append((ra_key, ra % 360.0, dec, unit))
    if not found:
        return None, None, warnings
    key, ra, dec, unit = found[0]
    for other, another, its_dec, its_unit in found[1:]:
        if (
            unit == "assumed"
            and its_unit == "said"
            and ra < 24.0
            and abs(15.0 * ra - another) < 1.0 < abs(ra - another)
        ):
            warnings.append(f"{key} = {ra:g} is in hours, as {other} shows")
            return 15.0 * ra, dec, warnings
        away = abs((ra - another + 180.0) % 360.0 - 180.0) * math.cos(math.radians(dec))
        if max(away, abs(dec - its_dec)) > 1.0 and other != "CRVAL1":
            warnings.append(f"{key} and {other} point {max(away, abs(dec - its_dec)):.1f} deg apart: {key} is taken")
            break
    return ra, dec, warnings


def _scale_unit(words: str, pixel: float | None) -> tuple[str, float | None]:
    """Return the unit of a pixel scale as its comment has it, and what turns it into arcsec; `pixel` is in um."""
    if re.search(r"(/|\bper) ?mm\b|millimet", words):
        return "arcsec/mm", pixel and pixel / 1000.0
    if re.search(r"arc-? ?min", words):
        return "arcmin", 60.0
    if re.search(r"\bdeg", words) and not re.search(r"arc-? ?sec", words):
        return "deg", 3600.0
    return "arcsec", 1.0


def read_scale(header: fits.Header) -> tuple[float | None, list[str]]:
    """Return the pixel scale in arcsec that the header claims apart from its WCS, or None, and warnings."""
    warnings: list[str] = []
    pixel = next((size for key in keywords.PIXEL_SIZE if (size := number(get(header, key)))), None)
    for row, value in _numbers(header, keywords.SCALE, warnings):
        unit, factor = _scale_unit(comment(header, row.key), pixel)
        if factor is None:
            warnings.append(f"{row.key} = {value:g} is in {unit}, and the size of a pixel is not known: ignored")
        elif 0.005 < abs(value) * factor < 400.0:
            return abs(value) * factor, warnings
        else:
            warnings.append(f"{row.key} = {value:g} {unit} is no pixel scale: ignored")
    focal = number(get(header, "FOCALLEN"))
    # micrometres over millimetres
    scale = 206.265 * pixel / focal if pixel and focal and focal > 0 else None
    return scale if scale is not None and 0.005 < scale < 400.0 else None, warnings


# --- Pixels that are not linear in flux -------------------------------------------------------------------------------


def linearised(data: np.ndarray, header: fits.Header) -> np.ndarray:
    """Return pixel values linear in flux, undoing the asinh scaling of Pan-STARRS skycells.

    Parameters
    ----------
    data : ndarray
        Pixel values, BSCALE and BZERO applied.
    header : astropy.io.fits.Header
        With BSOFTEN and BOFFSET for such an image; any other image is returned as it is.

    Notes
    -----
    flux = BOFFSET + 2 BSOFTEN sinh(v ln 10 / 2.5), Waters et al. 2020, ApJS 251, 4.
    """
    soften, offset = number(get(header, "BSOFTEN")), number(get(header, "BOFFSET"))
    if soften is None or offset is None or soften <= 0.0:
        return data
    result = np.empty(data.shape, np.float32)
    with np.errstate(over="ignore"):
        # Row by row in blocks: in double precision, a skycell as a whole takes a gigabyte.
        for start in range(0, len(data), 256):
            part = slice(start, start + 256)
            result[part] = offset + 2.0 * soften * np.sinh(data[part].astype(float) / _ASINH)
    return result
