"""The celestial solution of a header, in the one spelling that astropy reads, or why there is none."""

from __future__ import annotations

import math
import re
import warnings as python_warnings

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS, NoConvergence
from astropy.wcs.wcs import WcsError

from nightsift.header.cards import get, look, look_number, number
from nightsift.header.keywords import PROJECTIONS, REFUSED_PROJECTIONS
from nightsift.sky.axes import LONGITUDES, REFUSED_AXES, frame_of, turned
from nightsift.sky.wcs import jacobian

_WCS_NUMBER = re.compile(r"^(CRVAL|CRPIX|CDELT|CROTA)[12]$|^(CD|PC)[12]_[12]$|^PV[12]_\d+$|^(LONPOLE|LATPOLE)$")
_SIP = re.compile(r"^(A|B|AP|BP)_(ORDER|\d_\d)$")
_UNITS = {"deg": 1.0, "degree": 1.0, "degrees": 1.0, "arcsec": 1 / 3600.0, "arcmin": 1 / 60.0, "rad": 180.0 / math.pi}
_SCALE_LIMITS = (0.001, 200.0)


def _wcs_cards(header: fits.Header, warnings: list[str]) -> dict:
    """Collect the numeric cards of the solution as floats, old spellings turned into the standard's."""
    cards: dict[str, float] = {}
    for key in list(dict.fromkeys(header.keys())):
        name = re.sub(r"^(PC|CD)00([12])00([12])$", r"\1\2_\3", key)
        if not (_WCS_NUMBER.match(name) or _SIP.match(name)):
            continue
        notes: list[str] = []
        value = look_number(header, key, notes)
        warnings += [f"WCS: {note}" for note in notes]
        if value is not None:
            cards.setdefault(name, value)
            if isinstance(get(header, key), str):
                warnings.append(f"WCS: {key} is text, read as a number")
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
    if not delta.all():
        return np.zeros((2, 2))
    angle = math.radians(cards.get("CROTA2", cards.get("CROTA1", 0.0)))
    cos, sin = math.cos(angle), math.sin(angle)
    # Greisen & Calabretta 2002, eq. 189
    return np.array([[delta[0] * cos, -delta[1] * sin], [delta[0] * sin, delta[1] * cos]])


def _plate(header: fits.Header, shape, warnings: list[str]) -> fits.Header:
    """Return the header of a digitised Schmidt plate with its solution spelt as the standard's, any other as it is.

    wcslib reads the plate's polynomial, of which the linear part at the centre of the image is left.
    """
    kind = str(get(header, "CTYPE1") or "DSS").upper()
    if get(header, "AMDX1") is None or get(header, "PLTRAH") is None or "DSS" not in kind:
        return header
    result, centre = header.copy(), [(size - 1) / 2.0 for size in shape[::-1]]
    for key in [key for key in result if key and (_WCS_NUMBER.match(key) or key[:5] in ("CTYPE", "CUNIT"))]:
        result.remove(key, ignore_missing=True, remove_all=True)
    try:
        with python_warnings.catch_warnings():
            python_warnings.simplefilter("ignore")
            wcs = WCS(result)
            place, matrix = wcs.all_pix2world(*centre, 0), jacobian(wcs, shape)
    except Exception:  # astropy and wcslib have many ways to refuse a header
        return header
    if not (np.isfinite(place).all() and np.isfinite(matrix).all()):
        return header
    for axis, kind in enumerate(("RA---TAN", "DEC--TAN"), 1):
        result[f"CTYPE{axis}"], result[f"CRVAL{axis}"] = kind, float(place[axis - 1])
        result[f"CRPIX{axis}"] = centre[axis - 1] + 1.0
        result[f"CD{axis}_1"], result[f"CD{axis}_2"] = map(float, matrix[axis - 1])
    warnings.append("WCS: of the plate's polynomial (AMDX, AMDY) the linear part at the image's centre is taken")
    return result


def _axes(header: fits.Header, warnings: list[str]) -> tuple[list[str], str] | None:
    """Return the two axes' coordinates and the projection, or None with a warning."""
    names, codes = [], []
    for key in ("CTYPE1", "CTYPE2"):
        text = str(look(header, key, warnings) or "").upper()
        match = re.match(r"^([A-Z]+)-+([A-Z]{3})(-SIP)?$", text)
        if match is None and (text in LONGITUDES or text in LONGITUDES.values()):
            warnings.append(f"WCS: {key} = {text!r} names no projection")
            return None
        if not match:
            warnings.append(f"WCS: no celestial axes ({key} = {text!r})" if text else "no WCS in the header")
            return None
        names.append(match[1])
        codes.append(match[2])
    if not any({*names} == {longitude, latitude} for longitude, latitude in LONGITUDES.items()):
        why = next((REFUSED_AXES[name] for name in names if name in REFUSED_AXES), "")
        said = f"WCS: axes {' and '.join(names)} cannot be turned into right ascension and declination"
        warnings.append(said + (why and f": {why}"))
        return None
    if codes[0] != codes[1] or codes[0] not in PROJECTIONS:
        why = REFUSED_PROJECTIONS.get(codes[0], "")
        warnings.append(f"WCS: projection {'/'.join(dict.fromkeys(codes))} is not supported" + (why and f": {why}"))
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


def _frame(header: fits.Header, names, warnings: list[str]):
    """Return the frame of the axes, None for ICRS, and cards that say so; None, with a warning, for an unknown one."""
    system = str(get(header, "RADESYS") or get(header, "RADECSYS") or "").upper().strip()
    equinox = get(header, "EQUINOX") if get(header, "EQUINOX") is not None else get(header, "EPOCH")
    year = number(re.sub(r"^[JB]", "", equinox.upper()) if isinstance(equinox, str) else equinox)
    if equinox is not None and year is None:
        warnings.append(f"WCS: equinox {equinox!r} is no year: J2000 is taken")
    frame = frame_of(next(name for name in names if name in LONGITUDES), system, year)
    if isinstance(frame, str):
        warnings.append(f"WCS: {frame}")
        return None
    if frame is not None:
        return frame, {}
    if system not in ("", "ICRS", "FK5", "FK5 J2000", "J2000"):
        warnings.append(f"WCS: reference system {system} is not known: ICRS is taken")
    said = {"RADESYS": system} if system in ("ICRS", "FK5") else {}
    return None, said | ({} if year is None else {"EQUINOX": 2000.0})


def _longitude_first(names, cards: dict, matrix: np.ndarray):
    """Return axes, cards and matrix with the axis of longitude first; those of pixels stay."""
    if names[0] in LONGITUDES:
        return names, cards, matrix
    other = {"1": "2", "2": "1"}
    changed = {re.sub(r"^(CRVAL|PV)([12])", lambda m: m[1] + other[m[2]], key): value for key, value in cards.items()}
    return names[::-1], changed, matrix[::-1].copy()


def _in_degrees(header: fits.Header, cards: dict, matrix: np.ndarray, names, warnings: list[str]) -> bool:
    """Turn `cards` and `matrix` to degrees; return False, with a warning, where they cannot be such."""
    for axis in (1, 2):
        unit = str(get(header, f"CUNIT{axis}") or "deg").lower()
        if unit not in _UNITS:
            warnings.append(f"WCS: CUNIT{axis} = {unit!r} is no angle")
            return False
        matrix[axis - 1] *= _UNITS[unit]
        cards[f"CRVAL{axis}"] *= _UNITS[unit]
        value, low, high = cards[f"CRVAL{axis}"], *((-360.0, 720.0) if names[axis - 1] in LONGITUDES else (-90.0, 90.0))
        if not low <= value <= high:
            warnings.append(f"WCS: CRVAL{axis} = {value:g} is no {names[axis - 1]} in degrees")
            return False
    return True


def _check_size(header: fits.Header, shape, warnings: list[str]) -> None:
    """Tell when the solution, or the header, is of an image of another size."""
    for pair in (("IMAGEW", "IMAGEH"), ("NAXIS1", "NAXIS2")):
        size = [number(get(header, key)) for key in pair]
        if None not in size and tuple(size) != (shape[1], shape[0]):
            what = "WCS: " if pair[0] == "IMAGEW" else ""
            warnings.append(
                f"{what}{pair[0]} x {pair[1]} are {size[0]:g} x {size[1]:g}, the image is {shape[1]} x {shape[0]}:"
                " cut or binned afterwards?"
            )


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
    header = _plate(header, shape, warnings)
    axes = _axes(header, warnings)
    if axes is None:
        return None, warnings
    (names, code), cards = axes, _wcs_cards(header, warnings)
    matrix, frame = _matrix(cards), _frame(header, names, warnings)
    if frame is None:
        return None, warnings
    if matrix is None or any(f"{stem}{axis}" not in cards for stem in ("CRVAL", "CRPIX") for axis in (1, 2)):
        warnings.append("WCS: reference point or scale is missing")
        return None, warnings
    if not _in_degrees(header, cards, matrix, names, warnings):
        return None, warnings
    _check_size(header, shape, warnings)
    names, cards, matrix = _longitude_first(names, cards, matrix)
    scale = math.sqrt(abs(float(np.linalg.det(matrix)))) * 3600.0
    lengths = np.sqrt((matrix**2).sum(axis=0)) * 3600.0
    if not _SCALE_LIMITS[0] < scale < _SCALE_LIMITS[1] or lengths.max() > 20.0 * scale:
        warnings.append(f"WCS: pixel scale {scale:.3g} arcsec (matrix {matrix.ravel().tolist()}) is not possible")
        return None, warnings
    if code == "ZPN" and not any(key.startswith("PV2_") for key in cards):
        warnings.append("WCS: projection ZPN has no PV2 polynomial")
        return None, warnings
    code, distortion = _distortion(cards, code, warnings)
    suffix = "-SIP" if "A_ORDER" in distortion else ""
    if suffix and not str(get(header, "CTYPE1")).upper().endswith("-SIP"):
        warnings.append("WCS: SIP distortion without -SIP in CTYPE")
    base: list[tuple[str, int | float | str]] = [("WCSAXES", 2)]
    for axis, name in enumerate(names, 1):
        base.append((f"CTYPE{axis}", f"{name:-<4}-{code}"))
        base += [(f"CUNIT{axis}", "deg"), (f"CRVAL{axis}", cards[f"CRVAL{axis}"])]
        base += [(f"CRPIX{axis}", cards[f"CRPIX{axis}"])]
        base += [(f"CD{axis}_{column}", float(matrix[axis - 1, column - 1])) for column in (1, 2)]
    base += [(key, cards[key]) for key in ("LONPOLE", "LATPOLE") if key in cards]
    frame, said = frame
    found = _first_that_works(base + list(said.items()), distortion, suffix, shape, warnings)
    if found is not None and frame is not None:
        what = f"equinox {frame.equinox.value:g}" if names[0] == "RA" else f"axes {names[0]} and {names[1]}"
        found = turned(found, frame, shape)
        warnings.append(f"WCS: {what} {'turned into' if found is not None else 'cannot be turned into'} ICRS")
    return found, warnings


def _first_that_works(base, distortion: dict, suffix: str, shape, warnings: list[str]) -> fits.Header | None:
    """Return the solution with its distortion, or else without it, or None, with a warning."""
    cards = [(key, value + suffix if key.startswith("CTYPE") else value) for key, value in base]
    extra = [(key, int(value) if key.endswith("ORDER") else value) for key, value in distortion.items()]
    full = fits.Header(cards + extra)
    problem = wcs_problem(full, shape)
    if problem is None:
        return full
    if distortion and "TPV" not in dict(base)["CTYPE1"] and wcs_problem(fits.Header(base), shape) is None:
        warnings.append(f"WCS: distortion left out, as with it {problem}")
        return fits.Header(base)
    warnings.append(f"WCS: not used, as {problem}")
    return None


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
    if not np.isfinite(back).all():
        return "pixels do not come back from the sky"
    return None if (back < tolerance).all() else f"pixels come back {back.max():.3g} px off"
