"""Celestial axes that are not those of ICRS: which they are, and the same solution turned to ICRS."""

from __future__ import annotations

import warnings as python_warnings

import numpy as np
from astropy.coordinates import (
    FK4,
    FK5,
    BarycentricMeanEcliptic,
    FK4NoETerms,
    Galactic,
    SkyCoord,
    Supergalactic,
)
from astropy.io import fits
from astropy.time import Time
from astropy.wcs import WCS

LONGITUDES = {"RA": "DEC", "GLON": "GLAT", "ELON": "ELAT", "SLON": "SLAT"}
REFUSED_AXES = {
    "HLON": "they are counted from the Sun",
    "TLON": "they turn with the Earth",
    "HPLN": "they are on the Sun",
}
# FITS standard, section 8.3: without a reference system, equinoxes before this year are Besselian.
_JULIAN_FROM = 1984.0
# Equinoxes that catalogues have; others, without a reference system, may as well be when the image was taken.
_OF_CATALOGUES = (1855.0, 1875.0, 1900.0, 1950.0, 1975.0)
_FIRST_YEAR, _LAST_YEAR = 1800.0, 2200.0
_CYLINDRICAL = ("CAR", "MER", "CEA", "AIT", "SFL", "MOL")
_TOLERANCE = 0.01  # pixels


def frame_of(longitude: str, system: str, year: float | None):
    """Return the frame of celestial axes, None where they are those of ICRS, or why they cannot be told.

    Parameters
    ----------
    longitude : str
        Name of the axis of longitude, one of `LONGITUDES`.
    system : str
        RADESYS in capitals; empty without one.
    year : float or None
        EQUINOX.

    Returns
    -------
    astropy frame, str or None
        A sentence that begins with "equinox" where there is none.
    """
    if longitude == "GLON":
        return Galactic()
    if longitude == "SLON":
        return Supergalactic()
    if system.startswith("GAPPT"):
        return "equinox apparent is not J2000"
    besselian = system.startswith("FK4") or (system == "" and year is not None and year < _JULIAN_FROM)
    year = (1950.0 if besselian else 2000.0) if year is None else year
    if not _FIRST_YEAR <= year <= _LAST_YEAR:
        return f"equinox {year:g} is not J2000, nor a year"
    equinox = Time(year, format="byear" if besselian else "jyear")
    if longitude == "ELON":
        return BarycentricMeanEcliptic(equinox=equinox)
    if system == "ICRS" or (not besselian and abs(year - 2000.0) <= 0.1):
        return None
    if system.startswith("FK4"):
        return FK4NoETerms(equinox=equinox) if "NO" in system else FK4(equinox=equinox)
    if system.startswith("FK5"):
        return FK5(equinox=equinox)
    if min(abs(year - other) for other in _OF_CATALOGUES) < 0.01:
        return FK4(equinox=equinox) if besselian else FK5(equinox=equinox)
    return f"equinox {year:g} is not J2000, and may be when the image was taken"


def turned(cards: fits.Header, frame, shape) -> fits.Header | None:
    """Return a solution in another frame as one in ICRS, with the same projection and distortion.

    Parameters
    ----------
    cards : astropy.io.fits.Header
        As `nightsift.header.wcs_cards.repair_wcs` makes them, with the axes of `frame`, longitude first.
    frame : astropy frame
    shape : tuple of int
        (ny, nx) of the image.

    Returns
    -------
    astropy.io.fits.Header or None
        None where the two are more than a hundredth of a pixel apart.

    Notes
    -----
    One frame is another one turned, but for the aberration in FK4, which hardly changes over an image: the rotation is
    that of the image's own directions. The projection then has its reference point and its pole elsewhere on the sky;
    LONPOLE and LATPOLE are the native longitude and latitude of ICRS's pole (Calabretta & Greisen 2002, section 2.2).
    """
    x, y = (part.ravel() for part in np.meshgrid(*(np.linspace(0.0, size - 1.0, 5) for size in shape[::-1])))
    old = WCS(cards)
    theirs = old.all_pix2world(x, y, 0)
    icrs = SkyCoord(*theirs, unit="deg", frame=frame).icrs
    rotation = _rotation(_vectors(*theirs), _vectors(icrs.ra.deg, icrs.dec.deg))
    result = cards.copy()
    phi, theta = _in_native(cards, _angles(rotation.T @ np.array([0.0, 0.0, 1.0])))
    place = _angles(rotation @ _vectors(cards["CRVAL1"], cards["CRVAL2"]))
    for axis, name, value in ((1, "RA", place[0] % 360.0), (2, "DEC", place[1])):
        result[f"CTYPE{axis}"] = f"{name:-<4}{cards[f'CTYPE{axis}'][4:]}"
        result[f"CRVAL{axis}"] = value
    result["LONPOLE"], result["LATPOLE"], result["RADESYS"] = phi, theta, "ICRS"
    return result if _apart(result, icrs, x, y) < _TOLERANCE else None


def _vectors(lon, lat) -> np.ndarray:
    lon, lat = np.radians(lon), np.radians(lat)
    return np.array([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])


def _angles(vector) -> tuple[float, float]:
    lat = np.arctan2(vector[2], np.hypot(vector[0], vector[1]))
    return float(np.degrees(np.arctan2(vector[1], vector[0]))), float(np.degrees(lat))


def _rotation(before, after) -> np.ndarray:
    """Return the rotation that turns unit vectors (3, n) into others best (Kabsch 1976)."""
    left, _, right = np.linalg.svd(after @ before.T)
    sign = np.diag([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
    return left @ sign @ right


def _in_native(cards: fits.Header, place) -> tuple[float, float]:
    """Return the native longitude and latitude of a place on the sky."""
    # A projection of the same kind that shows the whole sky.
    code = "CAR" if cards["CTYPE1"][5:8] in _CYLINDRICAL else "ZEA"
    stand_in = WCS(naxis=2)
    stand_in.wcs.ctype = [f"RA---{code}", f"DEC--{code}"]
    stand_in.wcs.crval = [cards["CRVAL1"], cards["CRVAL2"]]
    for key in ("LONPOLE", "LATPOLE"):
        if key in cards:
            setattr(stand_in.wcs, key.lower(), cards[key])
    with python_warnings.catch_warnings():
        python_warnings.simplefilter("ignore")
        found = stand_in.wcs.s2p([place], 0)
    return float(found["phi"][0]), float(found["theta"][0])


def _apart(cards: fits.Header, icrs, x, y) -> float:
    """Return the largest distance, in pixels, of pixels from where the sky says that they are."""
    try:
        back = WCS(cards).all_world2pix(icrs.ra.deg, icrs.dec.deg, 0, quiet=True)
    except Exception:  # wcslib has many ways to refuse a header
        return np.inf
    distance = np.hypot(back[0] - x, back[1] - y)
    return float(distance.max()) if np.isfinite(distance).all() else np.inf
