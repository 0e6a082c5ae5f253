"""What FITS headers say, in their many spellings: time, exposure, gain, saturation, filter and pointing.

Every reader takes a header and returns the value, or None, and what is to be said about it. The tables at the top are
the place to teach it a new spelling.
"""

from __future__ import annotations

import math
import re
import warnings as python_warnings

import numpy as np
from astropy.io import fits
from astropy.time import Time
from astropy.wcs import WCS, NoConvergence
from astropy.wcs.wcs import WcsError

MID_KEYS = ("DATE-AVG", "DATE-MID", "DATEMID", "DATE_MID", "MJD-MID", "MJD_MID", "MJDMID", "MJD-AVG", "MJDAVG")
START_KEYS = ("DATE-OBS", "DATEOBS", "DATE_OBS", "DATE-BEG", "DATEBEG", "UTC-OBS", "UTSTART", "MJD-OBS", "MJD_OBS")
START_KEYS += ("MJDOBS", "MJD-BEG", "MJD", "JD-OBS", "JD_OBS", "JDOBS", "JD-BEG", "JD", "EXPSTART")
CLOCK_KEYS = ("TIME-OBS", "TIMEOBS", "TIME_OBS", "UTSTART", "UT-OBS", "UTC-OBS", "UTCOBS", "UT-START", "UT", "UTC")
CLOCK_KEYS += ("UTCSTART", "TIME-BEG", "UT_OBS", "UTIME", "TIME")
EXPTIME_KEYS = ("EXPTIME", "EXPOSURE", "EXP_TIME", "EXP-TIME", "EXPTM", "ITIME", "INTTIME", "INT_TIME", "ELAPTIME")
EXPTIME_KEYS += ("TOTEXP", "TEXPTIME", "XPOSURE", "EXPOSED", "ONTIME", "TELAPSE")
GAIN_KEYS = ("EGAIN", "GAINEFF", "GAIN_EFF", "EPERADU", "EPERDN", "E_PER_DN", "HIERARCH ESO DET OUT1 CONAD", "CONAD")
GAIN_KEYS += ("CCD_GAIN", "CCDGAIN", "ATODGAIN", "GAIN", "GAINA", "GAIN1", "DETGAIN")
SATURATION_KEYS = ("SATURATE", "SATURATION", "SATLEVEL", "SATUR_LEVEL", "SATURLEV", "SATURA", "SATCOUNT", "MAXLIN")
FILTER_KEYS = ("FILTER", "FILTERS", "FILTER1", "FILTER2", "FILTNAM", "FILTNAM1", "FILTNAME", "FILTERID", "CAMFILT")
FILTER_KEYS += ("INSFLNAM", "FILT", "FILTERNM", "FILTER3", "BAND", "HIERARCH ESO INS FILT1 NAME", "WFFBAND")
SCALE_KEYS = ("PIXSCALE", "SECPIX", "PIXSCAL1", "SECPIX1", "CCDSCALE", "SCALE", "PLTSCALE")
RA_KEYS = ("RA", "OBJCTRA", "CRVAL1", "RA_OBJ", "OBJRA", "TELRA", "RA_TEL", "CAT-RA", "RA-D", "RADEG")
DEC_KEYS = ("DEC", "OBJCTDEC", "CRVAL2", "DEC_OBJ", "OBJDEC", "TELDEC", "DEC_TEL", "CAT-DEC", "DEC-D", "DECDEG")

# Cameras whose GAIN is a setting of the amplifier, not e-/ADU.
_SETTING_CAMERAS = re.compile(r"\b(zwo|asi ?\d|qhy|touptek|player one|svbony|altair|moravian c\d)", re.IGNORECASE)

# One letter says the system by its case: r is Sloan's, R is Cousins'.
_PLAIN = {name: name for name in ("U", "B", "V", "R", "I", "u", "g", "r", "i", "z", "y", "BP", "RP", "J", "H", "Ks")}
_PLAIN |= {"G": "G", "K": "Ks", "Y": "y", "Z": "z", "Rc": "R", "Ic": "I", "RC": "R", "IC": "I", "Gbp": "BP"}
_PLAIN |= {"Grp": "RP", "bp": "BP", "gp": "g", "rp": "r", "ip": "i", "up": "u", "zp": "z", "zs": "z", "KS": "Ks"}
_PLAIN |= {"Bj": "B", "Vj": "V", "Uj": "U", "Rj": "R", "Ij": "I", "Kshort": "Ks", "K_s": "Ks", "ks": "Ks"}
_SLOAN = r"(?:sdss|sloan|sdsss|sg|ps1?|panstarrs|pan-starrs|pan|ztf|des|decam|skymapper|sm|atlas|lsst|megacam|gen2)"
_JOHNSON = r"(?:johnson|bessell?|cousins?|kron|kc|jc|harris|kpno|ubvri|bess|john|johnson-cousins|bessel_|cous)"
_INFRARED = r"(?:2mass|vhs|vista|ukidss|mko|ukirt)"
_FAMILIES = (
    (re.compile(rf"^{_SLOAN}[ _\-.]*([ugrizy])(?:[p'`]|prime|2|_prime)?$", re.IGNORECASE), str.lower, None),
    (re.compile(r"^([ugrizy])[ _\-.]*(?:'|`|prime|_prime|_?p|p1|(?i:_?" + _SLOAN + r"))[12]?$"), str.lower, None),
    (re.compile(rf"^{_JOHNSON}[ _\-.]*([ubvri])[cj]?$", re.IGNORECASE), str.upper, None),
    (re.compile(rf"^([UBVRI])[cj]?[ _\-.]*{_JOHNSON}$", re.IGNORECASE), str.upper, None),
    (re.compile(rf"^{_INFRARED}[ _\-.]*([jh]|ks?)$", re.IGNORECASE), str.upper, {"K": "Ks", "KS": "Ks"}),
    (re.compile(r"^gaia[ _\-.]*g?(g|bp|rp)$", re.IGNORECASE), str.upper, None),
    (re.compile(r"^[sS]([ugriz])$"), str.lower, None),
    (re.compile(r"^([UBVRI])[ _\-]?(?:filter|band)$"), str.upper, None),
    (re.compile(r"^([ugrizy])[ _\-]?(?:filter|band)$"), str.lower, None),
    (re.compile(r"^([ugrizy])\.(?:mp|ps1|00|dec)\d*$", re.IGNORECASE), str.lower, None),
    (re.compile(r"^([ugrizy]) decam .*$", re.IGNORECASE), str.lower, None),
)
_EMPTY = {"clear", "none", "open", "empty", "n/a", "na", "no", "nofilter", "no filter", "air", "null", "0", "unknown"}
_EMPTY |= {"white", "w", "c", "cl", "l", "lum", "luminance", "unfiltered", "cv", "cr", "blank", "undefined", "clr"}

MJD_UNIX = 40587.0
_LAST_MJD = 88069.0


def get(header: fits.Header, key: str):
    """Return the value of a card, or None when it is absent, empty or unreadable."""
    try:
        value = header.get(key)
    except (fits.VerifyError, ValueError, KeyError):
        return None
    if isinstance(value, str):
        value = value.strip().strip("'").strip()
    return None if value is None or value == "" or isinstance(value, fits.card.Undefined) else value


def number(value) -> float | None:
    """Return a finite number out of a card's value, also out of text such as ``'1.2 e/ADU'``; None without one."""
    if isinstance(value, str):
        match = re.match(r"^\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eEdD][+-]?\d+)?)(?:\s*[A-Za-z\"/%\[\]\-]*)?\s*$", value)
        value = float(re.sub("[dD]", "e", match[1])) if match else None
    if value is None or isinstance(value, bool | complex) or not isinstance(value, int | float | np.number):
        return None
    return float(value) if math.isfinite(value) else None


def first_number(header: fits.Header, keys) -> tuple[str | None, float | None]:
    """Return the first of `keys` that holds a number, and the number; ``(None, None)`` when none does."""
    for key in keys:
        value = number(get(header, key))
        if value is not None:
            return key, value
    return None, None


def _clock(value) -> float | None:
    """Return a time of day in days."""
    plain = number(value)
    if plain is not None:
        scale = 24.0 if plain < 24.0 else 86400.0
        return plain / scale if 0.0 <= plain < 86400.0 else None
    match = re.match(r"^(\d{1,2})[:\-h ](\d{1,2})[:\-m ](\d{1,2}(?:[.,]\d*)?)s?\s*(?:Z|UTC?)?$", str(value))
    if not match:
        match = re.match(r"^(\d{1,2})[:\-h](\d{1,2})()m?Z?$", str(value))
    if not match:
        return None
    hours, minutes, seconds = int(match[1]), int(match[2]), float((match[3] or "0").replace(",", "."))
    if hours > 24 or minutes > 59 or seconds >= 61.0:
        return None
    return (hours + (minutes + seconds / 60.0) / 60.0) / 24.0


def _calendar(text: str) -> float | None:
    """Return the MJD of midnight of a date in any of the usual orders."""
    match = re.match(r"^(\d{4})[-/:.](\d{1,2})[-/:.](\d{1,2})$", text) or re.match(r"^(\d{4})(\d\d)(\d\d)$", text)
    if match:
        year, month, day = (int(part) for part in match.groups())
    else:
        match = re.match(r"^(\d{1,2})[-/.](\d{1,2})[-/.](\d{2}|\d{4})$", text)
        if not match:
            return None
        day, month, year = (int(part) for part in match.groups())
        # The FITS standard has dd/mm/yy in the 1900s only, but writers went on with it after 1999.
        year += 0 if year > 99 else 1900 if year >= 50 else 2000
    try:
        return float((np.datetime64(f"{year:04d}-{month:02d}-{day:02d}") - np.datetime64("1858-11-17")).astype(int))
    except ValueError:
        return None


def parse_time(value) -> tuple[float | None, bool]:
    """Return the MJD of a moment, and whether it holds a time of day.

    Parameters
    ----------
    value : str or float
        ISO or dd/mm/yy date with or without time, MJD or JD (told apart by their size), also as text.

    Returns
    -------
    mjd : float or None
        None when it cannot be understood or lies outside 1880 to 2100.
    has_clock : bool
    """
    plain = number(value)
    if plain is not None and not re.match(r"^\d{8}$", str(value)):
        plain -= 2400000.5 if plain > 2.3e6 else 0.0
        return (plain, True) if 8000.0 < plain < _LAST_MJD and plain != MJD_UNIX else (None, True)
    parts = re.split(r"[T ]+", str(value).strip(), maxsplit=1)
    day = _calendar(parts[0])
    # A clock that was never set begins at the Unix epoch.
    if day is None or day == MJD_UNIX or not 8000.0 < day < _LAST_MJD:
        return None, False
    if len(parts) == 1:
        return day, False
    zone = re.match(r"^(.*?)([+-])(\d\d):?(\d\d)$", parts[1])
    # hh-mm-ss looks like a zone only to the hasty: a zone needs a full clock before it.
    if zone and _clock(zone[1]) is not None and ":" in zone[1]:
        offset = (int(zone[3]) + int(zone[4]) / 60.0) / 24.0 * (1 if zone[2] == "+" else -1)
        return day + _clock(zone[1]) - offset, True
    clock = _clock(parts[1])
    return (None, False) if clock is None else (day + clock, True)


def _to_utc(mjd: float, header: fits.Header, warnings: list[str]) -> float:
    scale = str(get(header, "TIMESYS") or "UTC").upper()
    if scale in ("TT", "TAI", "TDB", "TCB", "TCG", "UT1") and mjd > 41317.0:
        return float(Time(mjd, format="mjd", scale=scale.lower()).utc.mjd) if scale != "UT1" else mjd
    if scale not in ("UTC", "UT", "UT1", "GMT"):
        warnings.append(f"TIMESYS {scale} is not known: the time is taken for UTC")
    return mjd


def read_time(header: fits.Header, exptime: float | None) -> tuple[float | None, list[str]]:
    """Return the middle of the exposure.

    Parameters
    ----------
    header : astropy.io.fits.Header
    exptime : float or None
        Exposure in seconds; when None the start stands in for the middle, and a warning says so.

    Returns
    -------
    mjd : float or None
        UTC.
    warnings : list of str
    """
    warnings: list[str] = []
    for key in MID_KEYS:
        mjd, has_clock = parse_time(get(header, key))
        if mjd is not None and has_clock:
            return _to_utc(mjd, header, warnings), warnings
    starts = {}
    dated = None
    for key in START_KEYS:
        value = get(header, key)
        mjd, has_clock = parse_time(value)
        if mjd is not None and has_clock:
            starts[key] = mjd
        elif mjd is not None and dated is None:
            dated = (key, mjd)
            clock = next((c for c in (_clock(get(header, name)) for name in CLOCK_KEYS) if c is not None), None)
            if clock is not None:
                starts[key] = mjd + clock
        elif value is not None and key.startswith("DATE"):
            warnings.append(f"{key} = {value!r} is no time that can be understood")
    if not starts:
        if dated is not None:
            warnings.append(f"{dated[0]} holds a date without a time of day, and no other card gives it")
        warnings.append("no time of observation in the header" + _file_date(header))
        return None, warnings
    key, start = next(iter(starts.items()))
    for other, value in starts.items():
        if abs(value - start) * 86400.0 > max(60.0, exptime or 0.0):
            warnings.append(f"{key} and {other} differ by {abs(value - start) * 86400.0:.0f} s: {key} is taken")
            break
    if exptime is None:
        warnings.append("no exposure time: the start of the exposure is taken for its middle")
    return _to_utc(start, header, warnings) + (exptime or 0.0) / 172800.0, warnings


def _file_date(header: fits.Header) -> str:
    return "" if get(header, "DATE") is None else " (DATE is when the file was written, and is not taken)"


def read_exptime(header: fits.Header) -> tuple[float | None, list[str]]:
    """Return the exposure in seconds, or None, and warnings."""
    for key in EXPTIME_KEYS:
        value = number(get(header, key))
        if value is None:
            continue
        if value <= 0.0:
            return None, [f"{key} = {value:g} s is no exposure"]
        comment = header.comments[key].lower()
        if re.search(r"\b(ms|msec|milli-?seconds?)\b", comment):
            return value / 1000.0, [f"{key} is in milliseconds, as its comment says"]
        return value, []
    return None, ["no exposure time in the header"]


def read_gain(header: fits.Header) -> tuple[float | None, list[str]]:
    """Return the gain in e-/ADU as the header has it, not yet checked against the pixels, and warnings."""
    warnings: list[str] = []
    camera = " ".join(str(get(header, key) or "") for key in ("INSTRUME", "CAMERA", "DETECTOR", "DETNAME"))
    for key in GAIN_KEYS:
        value = number(get(header, key))
        if value is None:
            continue
        comment = header.comments[key].lower() if key in header else ""
        if key == "GAIN" and _SETTING_CAMERAS.search(camera):
            warnings.append(f"GAIN = {value:g} is a setting of the camera ({camera.strip()}), not e-/ADU: ignored")
        elif value <= 0.0 or value > 1000.0:
            warnings.append(f"{key} = {value:g} e-/ADU is not possible: ignored")
        elif re.search(r"(adu|dn|counts?)\s*(/|per)\s*(e|photo)", comment):
            warnings.append(f"{key} is in ADU/e-, as its comment says: its inverse is taken")
            return 1.0 / value, warnings
        else:
            return value, warnings
    return None, warnings


def canonical_filter(name: str) -> str | None:
    """Return the name in `nightsift.parameters.BANDS` of a filter, None when it is none of them.

    Upper and lower case tell the systems apart where nothing else does: ``R`` is Cousins', ``r`` Sloan's.
    """
    text = re.sub(r"\s+", " ", str(name)).strip().strip('"').strip()
    if text in _PLAIN:
        return _PLAIN[text]
    # A wheel's number behind the name, such as SDSS-R+1 or r 103.
    text = re.sub(r"[ _#+]\d{1,4}$", "", text)
    if text in _PLAIN:
        return _PLAIN[text]
    for pattern, case, special in _FAMILIES:
        match = pattern.match(text)
        if match:
            band = case(match[1])
            return (special or {}).get(band, band)
    return None


def is_empty_filter(name: str) -> bool:
    """Return whether a filter's name says that there is none."""
    return re.sub(r"[ _\-]*\d*$", "", str(name).strip().lower()) in _EMPTY or str(name).strip().lower() in _EMPTY


def read_filter(header: fits.Header) -> tuple[str | None, str, list[str]]:
    """Return the canonical filter (or None), its name as in the header, and warnings."""
    names = {}
    for key in FILTER_KEYS:
        value = get(header, key)
        if value is not None and not isinstance(value, bool):
            names[key] = str(value)
    if not names:
        return None, "", ["no filter in the header"]
    known = {key: canonical_filter(name) for key, name in names.items() if canonical_filter(name)}
    if known:
        key = next(iter(known))
        others = sorted({f"{other} = {names[other]}" for other, band in known.items() if band != known[key]})
        clash = [f"{key} = {names[key]} is taken for the filter, though {', '.join(others)}"] if others else []
        return known[key], names[key], clash
    full = [name for name in names.values() if not is_empty_filter(name)]
    if full:
        return None, full[0], [f"filter {full[0]!r} is not known"]
    name = next(iter(names.values()))
    return None, name, [f"unfiltered image (filter {name!r})"]


def _angle(value, comment: str, hours: bool) -> float | None:
    plain = number(value)
    if plain is not None:
        return plain * (15.0 if hours and re.search(r"\b(hours?|hrs?|h)\b", comment) else 1.0)
    match = re.match(r"^\s*([+-]?)\s*(\d+)[:hd° ]+\s*(\d+)[:m' ]+\s*(\d+\.?\d*)?[s\"]*\s*$", str(value))
    if not match:
        return None
    size = int(match[2]) + int(match[3]) / 60.0 + float(match[4] or 0.0) / 3600.0
    return (-size if match[1] == "-" else size) * (15.0 if hours else 1.0)


def read_pointing(header: fits.Header) -> tuple[float | None, float | None]:
    """Return the pointing (ra, dec) in degrees, or ``(None, None)``; text with three fields has ra in hours."""
    for ra_key, dec_key in zip(RA_KEYS, DEC_KEYS, strict=True):
        ra_value, dec_value = get(header, ra_key), get(header, dec_key)
        if ra_value is None or dec_value is None:
            continue
        ra = _angle(ra_value, header.comments[ra_key].lower(), hours=True)
        dec = _angle(dec_value, "", hours=False)
        if ra is not None and dec is not None and 0.0 <= ra <= 360.0 and abs(dec) <= 90.0 and (ra, dec) != (0.0, 0.0):
            return ra % 360.0, dec
    return None, None


def read_scale(header: fits.Header) -> float | None:
    """Return the pixel scale in arcsec that the header claims apart from its WCS, or None."""
    _, value = first_number(header, SCALE_KEYS)
    if value is None:
        pixel, focal = number(get(header, "XPIXSZ")), number(get(header, "FOCALLEN"))
        # micrometres over millimetres
        value = 206.265 * pixel / focal if pixel and focal and focal > 0 else None
    return value if value is not None and 0.005 < value < 400.0 else None


# --- The celestial solution -------------------------------------------------------------------------------------------

_WCS_NUMBER = re.compile(r"^(CRVAL|CRPIX|CDELT|CROTA)[12]$|^(CD|PC)[12]_[12]$|^PV[12]_\d+$|^(LONPOLE|LATPOLE)$")
_SIP = re.compile(r"^(A|B|AP|BP)_(ORDER|\d_\d)$")
_PROJECTIONS = {"TAN", "TPV", "SIN", "ARC", "STG", "ZEA", "ZPN", "NCP", "AIR", "CAR", "MER", "CEA", "AIT", "SFL", "MOL"}
_SCALE_LIMITS = (0.001, 200.0)


def _wcs_cards(header: fits.Header, warnings: list[str]) -> dict:
    """Collect the numeric cards of the solution as floats, old spellings turned into the standard's."""
    cards = {}
    for key in list(dict.fromkeys(header.keys())):
        name = re.sub(r"^(PC|CD)00([12])00([12])$", r"\1\2_\3", key)
        if not (_WCS_NUMBER.match(name) or _SIP.match(name)):
            continue
        value = number(get(header, key))
        if value is not None:
            cards.setdefault(name, value)
            if isinstance(get(header, key), str):
                warnings.append(f"WCS: {key} is text, read as a number")
        elif get(header, key) is not None:
            warnings.append(f"WCS: {key} = {get(header, key)!r} is no number")
    return cards


def _matrix(cards: dict) -> np.ndarray | None:
    """Return the CD matrix in degrees a pixel, whichever of CD, PC + CDELT and CROTA + CDELT the header has."""
    names = [(row, column) for row in (1, 2) for column in (1, 2)]
    if any(f"CD{row}_{column}" in cards for row, column in names):
        return np.array([cards.get(f"CD{row}_{column}", 0.0) for row, column in names]).reshape(2, 2)
    if "CDELT1" not in cards and "CDELT2" not in cards and not any(f"PC{i}_{j}" in cards for i, j in names):
        return None
    delta = np.array([cards.get("CDELT1", 1.0), cards.get("CDELT2", 1.0)])
    if any(f"PC{row}_{column}" in cards for row, column in names):
        unit = [cards.get(f"PC{row}_{column}", float(row == column)) for row, column in names]
        return delta[:, None] * np.array(unit).reshape(2, 2)
    angle = math.radians(cards.get("CROTA2", cards.get("CROTA1", 0.0)))
    # Greisen & Calabretta 2002, eq. 189
    rotation = np.array([[math.cos(angle), -math.sin(angle) * delta[1] / delta[0]], [0.0, math.cos(angle)]])
    rotation[1, 0] = math.sin(angle) * delta[0] / delta[1]
    return delta[:, None] * rotation if delta.all() else np.zeros((2, 2))


def _axes(header: fits.Header, warnings: list[str]) -> tuple[list[str], str] | None:
    """Return the two axes' coordinates and the projection, or None with a warning."""
    names, codes = [], []
    for key in ("CTYPE1", "CTYPE2"):
        text = str(get(header, key) or "").upper()
        match = re.match(r"^([A-Z]+)-+([A-Z]{3})(-SIP)?$", text)
        if not match:
            warnings.append(f"WCS: no celestial axes ({key} = {text!r})" if text else "no WCS in the header")
            return None
        names.append(match[1])
        codes.append(match[2])
    if sorted(names) != ["DEC", "RA"]:
        warnings.append(f"WCS: axes {' and '.join(names)} are not right ascension and declination")
        return None
    if codes[0] != codes[1] or codes[0] not in _PROJECTIONS:
        warnings.append(f"WCS: projection {'/'.join(dict.fromkeys(codes))} is not supported")
        return None
    return names, codes[0]


def _distortion(cards: dict, code: str, warnings: list[str]) -> tuple[str, dict]:
    """Return the projection, its PV cards included or left out, and the SIP cards."""
    pv = {key: value for key, value in cards.items() if key.startswith("PV")}
    sip = {key: value for key, value in cards.items() if _SIP.match(key)}
    if sip and not (sip.get("A_ORDER", 0) >= 1 and sip.get("B_ORDER", 0) >= 1):
        warnings.append("WCS: incomplete SIP distortion left out")
        sip = {}
    if "AP_ORDER" not in sip or "BP_ORDER" not in sip:
        sip = {key: value for key, value in sip.items() if not re.match("[AB]P_", key)}
    if code == "TAN" and pv:
        polynomial = any(key.startswith("PV2_") or int(key[4:]) > 4 for key in pv)
        linear = all(value == (1.0 if key.endswith("_1") else 0.0) for key, value in pv.items())
        if polynomial and not linear and not sip:
            warnings.append("WCS: TAN with PV polynomials is read as TPV")
            return "TPV", pv
        return code, {key: value for key, value in sip.items()}
    if code == "TPV":
        if sip:
            warnings.append("WCS: TPV with SIP cards: SIP left out")
        return code, pv
    return code, pv | sip if code != "TAN" else sip


def _frame(header: fits.Header, warnings: list[str]) -> tuple[str | None, float | None] | None:
    radesys = str(get(header, "RADESYS") or get(header, "RADECSYS") or "").upper()
    equinox = get(header, "EQUINOX") if get(header, "EQUINOX") is not None else get(header, "EPOCH")
    year = number(re.sub(r"^[JB]", "", equinox.upper()) if isinstance(equinox, str) else equinox)
    if radesys.startswith("FK4") or (year is not None and abs(year - 2000.0) > 0.1 and radesys != "ICRS"):
        warnings.append(f"WCS: equinox {year or 1950.0:g} is not J2000")
        return None
    return (radesys if radesys in ("ICRS", "FK5") else None), (2000.0 if year is not None else None)


def repair_wcs(header: fits.Header, shape) -> tuple[fits.Header | None, list[str]]:
    """Return the celestial cards in a form that `astropy.wcs.WCS` accepts.

    Parameters
    ----------
    header : astropy.io.fits.Header
    shape : tuple of int
        (ny, nx) of the image.

    Returns
    -------
    cards : astropy.io.fits.Header or None
        CD matrix in degrees, SIP or PV included; None when there is no solution that can be used.
    warnings : list of str
    """
    warnings: list[str] = []
    axes = _axes(header, warnings)
    if axes is None:
        return None, warnings
    (names, code), cards = axes, _wcs_cards(header, warnings)
    matrix, frame = _matrix(cards), _frame(header, warnings)
    if frame is None:
        return None, warnings
    if matrix is None or any(f"{stem}{axis}" not in cards for stem in ("CRVAL", "CRPIX") for axis in (1, 2)):
        warnings.append("WCS: reference point or scale is missing")
        return None, warnings
    for axis in (1, 2):
        unit = str(get(header, f"CUNIT{axis}") or "deg").lower()
        factor = {"arcsec": 1 / 3600.0, "arcmin": 1 / 60.0, "rad": 180.0 / math.pi}.get(unit, 1.0)
        matrix[axis - 1] *= factor
        cards[f"CRVAL{axis}"] *= factor
    scale = math.sqrt(abs(float(np.linalg.det(matrix)))) * 3600.0
    lengths = np.sqrt((matrix**2).sum(axis=0)) * 3600.0
    if not _SCALE_LIMITS[0] < scale < _SCALE_LIMITS[1] or lengths.max() > 20.0 * scale:
        warnings.append(f"WCS: pixel scale {scale:.3g} arcsec (matrix {matrix.ravel().tolist()}) is not possible")
        return None, warnings
    code, distortion = _distortion(cards, code, warnings)
    suffix = "-SIP" if "A_ORDER" in distortion else ""
    if suffix and not str(get(header, "CTYPE1")).upper().endswith("-SIP"):
        warnings.append("WCS: SIP distortion without -SIP in CTYPE")
    base = [("WCSAXES", 2)]
    for axis, name in enumerate(names, 1):
        base.append((f"CTYPE{axis}", f"{name:-<4}-{code}"))
        base += [(f"CUNIT{axis}", "deg"), (f"CRVAL{axis}", cards[f"CRVAL{axis}"])]
        base += [(f"CRPIX{axis}", cards[f"CRPIX{axis}"])]
        base += [(f"CD{axis}_{column}", float(matrix[axis - 1, column - 1])) for column in (1, 2)]
    base += [(key, cards[key]) for key in ("LONPOLE", "LATPOLE") if key in cards]
    base += [(key, value) for key, value in zip(("RADESYS", "EQUINOX"), frame, strict=True) if value is not None]
    return _first_that_works(base, distortion, suffix, shape, warnings)


def _first_that_works(base, distortion: dict, suffix: str, shape, warnings: list[str]):
    cards = [(key, value + suffix if key.startswith("CTYPE") else value) for key, value in base]
    extra = [(key, int(value) if key.endswith("ORDER") else value) for key, value in distortion.items()]
    full = fits.Header(cards + extra)
    problem = wcs_problem(full, shape)
    if problem is None:
        return full, warnings
    if distortion and "TPV" not in dict(base)["CTYPE1"] and wcs_problem(fits.Header(base), shape) is None:
        warnings.append(f"WCS: distortion left out, as with it {problem}")
        return fits.Header(base), warnings
    warnings.append(f"WCS: not used, as {problem}")
    return None, warnings


def wcs_problem(cards: fits.Header, shape, tolerance: float = 0.05) -> str | None:
    """Return why a solution fails from pixels to the sky and back at the centre and corners; None when it holds."""
    ny, nx = shape
    x = np.array([(nx - 1) / 2.0, 0.0, nx - 1.0, 0.0, nx - 1.0])
    y = np.array([(ny - 1) / 2.0, 0.0, 0.0, ny - 1.0, ny - 1.0])
    try:
        with np.errstate(all="ignore"), python_warnings.catch_warnings():
            python_warnings.simplefilter("ignore")
            wcs = WCS(cards)
            ra, dec = wcs.all_pix2world(x, y, 0)
            if not (np.isfinite(ra).all() and np.isfinite(dec).all()):
                return "parts of the image have no sky position"
            back = np.hypot(*(np.array(wcs.all_world2pix(ra, dec, 0, tolerance=1e-4, maxiter=40)) - (x, y)))
    except (ValueError, TypeError, KeyError, MemoryError, NoConvergence, WcsError) as error:
        text = str(error).strip().splitlines()
        return f"it fails ({text[0] if text else type(error).__name__})"
    return None if (back < tolerance).all() else f"pixels come back {np.nanmax(back):.3g} px off"
