"""The DESI Legacy Imaging Surveys: their bricks, where the files are, and what they say (Dey et al. 2019, AJ 157, 168).

A row of bricks is 0.25 degrees high, and has an even number of them, none wider than that ("survey-bricks.fits" in
www.legacysurvey.org/dr10/files). South of +32.4 degrees and of the Galactic plane the images are of DECam (DR10), else
of BASS and MzLS (DR9).
"""

from __future__ import annotations

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS

from nightsift.archive.http import BadReply, Session
from nightsift.flags import Mask

SERVICE = "legacy"
SERVERS = ("https://portal.nersc.gov",)
SCALE = 0.262  # arcsec
SIDE = 3600  # pixels
_ROOT = f"{SERVERS[0]}/cfs/cosmo/data/legacysurvey"
_SIZE = 0.25
_BORDER = 32.375
_SHARED = 30.0  # declination from which on a brick may be of either
# Proof that a release is there at all, by the folder of its bricks.
_LISTS = {"dr10/south": "survey-bricks-dr10-south.fits.gz", "dr9/north": "survey-bricks-dr9-north.fits.gz"}
_NORTHERN = ("g", "r", "z")
# www.legacysurvey.org/dr10/bitmasks: saturated in any exposure, bad in all of them. That a pixel lies outside a brick's
# own area, near a bright star or in a blob that was not fitted is no defect of the image.
_SATURATED = {"g": 1 << 2, "r": 1 << 3, "z": 1 << 4, "i": 1 << 14}
_BAD = {"g": 1 << 5, "r": 1 << 6, "z": 1 << 7, "i": 1 << 15}


def find(ra, dec) -> np.ndarray:
    """Return the names of the bricks of positions [deg]."""
    row, column, _ = _place(np.atleast_1d(np.asarray(ra, float)), np.atleast_1d(np.asarray(dec, float)))
    return np.array([_name(*pair) for pair in zip(row, column, strict=True)])


def _bricks_in(row):
    """Return the number of bricks in rows, which count from the south pole."""
    nearest = np.maximum(np.abs(row * _SIZE - 90) - _SIZE / 2, 0)
    # The wall has whole bricks at the equator: rounding must not add one.
    count = (2 * np.ceil(180 / _SIZE * np.cos(np.deg2rad(nearest)) - 1e-9)).astype(int)
    # A circle around either pole
    return np.where(np.abs(row * _SIZE - 90) == 90, 1, count)


def _place(ra, dec):
    row = np.clip(np.rint((dec + 90) / _SIZE), 0, 180 / _SIZE).astype(int)
    count = _bricks_in(row)
    return row, np.floor((ra % 360) * count / 360).astype(int) % count, count


def _center(row: int, column: int) -> tuple[float, float]:
    return (column + 0.5) * 360 / float(_bricks_in(row)), row * _SIZE - 90


def _name(row: int, column: int) -> str:
    ra, dec = _center(row, column)
    # A thousandth of a degree against 0.1 that comes out as 0.09999.
    return f"{int(10 * ra + 1e-9):04d}{'m' if dec < 0 else 'p'}{int(10 * abs(dec) + 1e-9):03d}"


def center(name: str) -> tuple[float, float]:
    """Return the centre of a brick [deg]."""
    # The name has its position cut off after the first digit; centres are 0.25 degrees apart.
    dec = (1 if name[4] == "p" else -1) * (int(name[5:]) / 10)
    row = int(np.rint((dec + np.copysign(0.02, dec) + 90) / _SIZE))
    count = int(_bricks_in(row))
    column = int(np.ceil(int(name[:4]) / 10 * count / 360 - 0.5 - 1e-6))
    return _center(row, min(column, count - 1))


def geometry(name: str) -> tuple[WCS, tuple[int, int]]:
    """Return the solution and the shape (ny, nx) of a brick's images."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = center(name)
    wcs.wcs.crpix = (SIDE + 1) / 2, (SIDE + 1) / 2
    wcs.wcs.cd = np.diag([-SCALE, SCALE]) / 3600
    wcs.wcs.set()
    return wcs, (SIDE, SIDE)


def files(name: str, band: str) -> list[dict[str, str]]:
    """Return where image, mask and weight of a brick may be, by role; the likelier place first."""
    ra, dec = center(name)
    north = dec >= _BORDER and SkyCoord(ra * u.deg, dec * u.deg).galactic.b.deg > 0
    folders = ["dr9/north", "dr10/south"] if north else ["dr10/south", "dr9/north"]
    if dec < _SHARED or band not in _NORTHERN:
        folders.remove("dr9/north")
    stems = [f"{_ROOT}/{folder}/coadd/{name[:3]}/{name}/legacysurvey-{name}" for folder in folders]
    return [
        {
            "image": f"{stem}-image-{band}.fits.fz",
            "mask": f"{stem}-maskbits.fits.fz",
            "weight": f"{stem}-invvar-{band}.fits.fz",
        }
        for stem in stems
    ]


def exists(session: Session, name: str, band: str, url: str) -> bool:
    """Return False for a brick whose file is not there, if the release it would be of is.

    Raises
    ------
    BadReply
        The list of all bricks is not there either.
    """
    del name, band
    folder = next(folder for folder in _LISTS if f"/{folder}/" in url)
    try:
        session.head(f"{_ROOT}/{folder}/{_LISTS[folder]}")
    except BadReply as error:
        raise BadReply(f"nothing of the Legacy Surveys is where it should be ({error})") from error
    return False


def meaning(bits: np.ndarray, band: str) -> np.ndarray:
    """Return the planes of `nightsift.flags.Mask` that the bits of a mask image stand for."""
    bits = bits.astype(np.int32)
    planes = np.where((bits & _BAD[band]) != 0, int(Mask.USER), 0)
    planes |= np.where((bits & _SATURATED[band]) != 0, int(Mask.SATURATED), 0)
    return planes.astype(np.uint8)
