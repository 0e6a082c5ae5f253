"""Pan-STARRS: the skycells of its stacked images, where they are, and what their files say.

The tessellation RINGS.V3 (T. Budavari; "PS1 Sky tessellation patterns", outerspace.stsci.edu) cuts the sky into zones
of declination, each zone into projection cells, and each of these into 10 x 10 skycells that overlap by 480 pixels.
"""

from __future__ import annotations

import numpy as np
from astropy.wcs import WCS

from nightsift.archive.http import BadReply, Session
from nightsift.flags import Mask
from nightsift.sky.sphere import unit_vectors

SERVICE = "ps1"
SERVERS = ("https://ps1images.stsci.edu",)
SCALE = 0.25  # arcsec
OVERLAP = 480  # pixels
_ROOT = f"{SERVERS[0]}/rings.v3.skycell"
_NAMES = f"{SERVERS[0]}/cgi-bin/ps1filenames.py"
# First projection cell, cells, declination of their centres, lower declination, size of a skycell and its reference
# pixel, as in the table rings.fits of that page.
RINGS = np.array(
    [
        (487, 72, -38.0, -39.98569922229713, 6305, 6279, 239.5, 238.0),
        (559, 76, -34.0, -35.98748871852416, 6265, 6274, 237.5, 237.5),
        (635, 79, -30.0, -31.988947843740302, 6274, 6269, 239.5, 241.5),
        (714, 82, -26.0, -27.990585819085737, 6255, 6265, 241.5, 240.5),
        (796, 84, -22.0, -23.991856317278298, 6279, 6261, 241.0, 242.0),
        (880, 86, -18.0, -19.99333106003115, 6274, 6258, 241.5, 238.0),
        (966, 88, -14.0, -15.994464100667857, 6242, 6254, 240.5, 239.5),
        (1054, 89, -10.0, -11.995671545879146, 6248, 6250, 240.0, 242.0),
        (1143, 89, -6.0, -7.997014822849273, 6291, 6247, 237.5, 240.0),
        (1232, 90, -2.0, -3.998086931795508, 6240, 6243, 240.0, 242.0),
        (1322, 90, 2.0, 0.0, 6240, 6243, 240.0, 242.0),
        (1412, 89, 6.0, 3.998086931795508, 6291, 6247, 237.5, 240.0),
        (1501, 89, 10.0, 7.997014822849273, 6248, 6250, 240.0, 242.0),
        (1590, 88, 14.0, 11.995671545879146, 6242, 6254, 240.5, 239.5),
        (1678, 86, 18.0, 15.994464100667857, 6274, 6258, 241.5, 238.0),
        (1764, 84, 22.0, 19.99333106003115, 6279, 6261, 241.0, 242.0),
        (1848, 82, 26.0, 23.991856317278298, 6255, 6265, 241.5, 240.5),
        (1930, 79, 30.0, 27.990585819085737, 6274, 6269, 239.5, 241.5),
        (2009, 76, 34.0, 31.988947843740302, 6265, 6274, 237.5, 237.5),
        (2085, 72, 38.0, 35.98748871852416, 6305, 6279, 239.5, 238.0),
        (2157, 68, 42.0, 39.98569922229713, 6320, 6284, 239.5, 240.0),
        (2225, 64, 46.0, 43.98384988850235, 6307, 6289, 238.0, 242.0),
        (2289, 60, 50.0, 47.98179099058205, 6261, 6295, 241.0, 239.5),
        (2349, 55, 54.0, 51.97972846465295, 6283, 6302, 239.0, 242.0),
        (2404, 50, 58.0, 55.97676677254534, 6278, 6311, 238.5, 237.5),
        (2454, 45, 62.0, 59.97411834356914, 6240, 6319, 240.0, 241.0),
        (2499, 39, 66.0, 63.97005521318337, 6307, 6333, 239.5, 240.0),
        (2538, 33, 70.0, 67.96475284198297, 6365, 6350, 238.5, 240.0),
        (2571, 27, 74.0, 71.95817764373305, 6413, 6371, 240.5, 242.0),
        (2598, 21, 78.0, 75.94974140116577, 6452, 6398, 240.0, 242.0),
        (2619, 15, 82.0, 79.93968190571101, 6481, 6429, 241.0, 242.0),
        (2634, 9, 86.0, 83.93610604798963, 6501, 6419, 239.0, 239.5),
        (2643, 1, 90.0, 87.96940975734594, 6240, 6240, 239.5, 240.0),
    ],
    dtype=[(name, float) for name in ("first", "count", "dec", "low", "nx", "ny", "crpix1", "crpix2")],
)
_POLE = len(RINGS) - 1
# "PS1 Pixel flags in Image Table Data", outerspace.stsci.edu. Suspect and poor pixels (0x0080, 0x4000) are good enough
# for a template, and the undocumented 0x8000 marks good ones.
_NO_DATA = 0x0008
_SATURATED = 0x0020 | 0x1000
_BAD = 0x0001 | 0x0002 | 0x0004 | 0x0010 | 0x0040 | 0x0100 | 0x2000
_ARTEFACTS = 0x0200 | 0x0400 | 0x0800


def find(ra, dec) -> np.ndarray:
    """Return the names (``projection.skycell``) of the skycells in which positions [deg] lie deepest; '' for none."""
    ra, dec = np.atleast_1d(np.asarray(ra, float)) % 360, np.atleast_1d(np.asarray(dec, float))
    ring = np.searchsorted(RINGS["low"], dec, side="right") - 1
    outside, ring = ring < 0, np.clip(ring, 0, _POLE)
    # Around the pole, squares and rings overlap at no fixed declination.
    near = ring >= _POLE - 1
    ring = np.where(near, _POLE - 1, ring)
    polar = np.full(ra.shape, _POLE)
    inner = near & (_depth(ra, dec, polar) > _depth(ra, dec, ring))
    ring = np.where(inner, _POLE, ring)
    rows, (number, x, y) = RINGS[ring], _offsets(ra, dec, ring)
    column = np.clip(np.rint(4.5 + x / (rows["nx"] - OVERLAP)), 0, 9).astype(int)
    row = np.clip(np.rint(4.5 + y / (rows["ny"] - OVERLAP)), 0, 9).astype(int)
    projection = (rows["first"] + number).astype(int)
    cells = zip(projection, 10 * row + column, outside, strict=True)
    return np.array(["" if out else f"{one:04d}.{other:03d}" for one, other, out in cells])


def _offsets(ra, dec, ring):
    """Return the number of the projection cell in its ring, and the pixels from its centre."""
    rows = RINGS[ring]
    number = np.rint(ra * rows["count"] / 360) % rows["count"]
    center_ra = np.deg2rad(number * 360 / rows["count"])
    there = unit_vectors(ra, dec)
    east = np.stack([-np.sin(center_ra), np.cos(center_ra), np.zeros_like(center_ra)], axis=-1)
    middle = unit_vectors(np.rad2deg(center_ra), rows["dec"])
    north = np.cross(middle, east)
    depth = np.sum(there * middle, axis=-1)
    pixel = np.deg2rad(SCALE / 3600)
    with np.errstate(divide="ignore", invalid="ignore"):
        x, y = (np.sum(there * axis, axis=-1) / depth / pixel for axis in (-east, north))
    behind = depth <= 0
    return number, np.where(behind, 1e9, x), np.where(behind, 1e9, y)


def _depth(ra, dec, ring):
    """Return how many pixels positions lie within the border of their projection cell."""
    rows, (_, x, y) = RINGS[ring], _offsets(ra, dec, ring)
    half_x, half_y = (5 * (rows[name] - OVERLAP) + OVERLAP / 2 for name in ("nx", "ny"))
    return np.minimum(half_x - np.abs(x), half_y - np.abs(y))


def geometry(name: str) -> tuple[WCS, tuple[int, int]]:
    """Return the solution and the shape (ny, nx) of a skycell."""
    projection, cell = (int(part) for part in name.split("."))
    rows = RINGS[np.searchsorted(RINGS["first"], projection, side="right") - 1]
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = (projection - rows["first"]) * 360 / rows["count"], rows["dec"]
    step_x, step_y = rows["nx"] - OVERLAP, rows["ny"] - OVERLAP
    wcs.wcs.crpix = rows["crpix1"] + step_x * (5 - cell % 10), rows["crpix2"] + step_y * (5 - cell // 10)
    wcs.wcs.cd = np.diag([-SCALE, SCALE]) / 3600
    wcs.wcs.lonpole = 180  # at the pole, too, where the default is another
    wcs.wcs.set()
    return wcs, (int(rows["ny"]), int(rows["nx"]))


def files(name: str, band: str) -> list[dict[str, str]]:
    """Return where image, mask and weight of a skycell are, by role; the only place there is."""
    projection, cell = name.split(".")
    stem = f"{_ROOT}/{projection}/{cell}/rings.v3.skycell.{name}.stk.{band}.unconv"
    return [{"image": f"{stem}.fits", "mask": f"{stem}.mask.fits", "weight": f"{stem}.wt.fits"}]


def exists(session: Session, name: str, band: str, url: str) -> bool:
    """Return whether the archive's list of files has a skycell.

    Raises
    ------
    BadReply
        What comes is no such list.
    """
    del url
    wcs, (ny, nx) = geometry(name)
    ra, dec = (float(value) for value in wcs.all_pix2world((nx - 1) / 2, (ny - 1) / 2, 0))
    reply = session.get(_NAMES, params={"ra": f"{ra:.6f}", "dec": f"{dec:.6f}", "filters": band})
    lines = reply.content.decode(errors="replace").splitlines()
    columns = lines[0].split() if lines else []
    if not {"projcell", "subcell", "filter", "filename"} <= set(columns):
        raise BadReply("the list of Pan-STARRS files cannot be read")
    return any(f"skycell.{name}.stk.{band}." in line for line in lines[1:])


def meaning(bits: np.ndarray, band: str) -> np.ndarray:
    """Return the planes of `nightsift.flags.Mask` that the bits of a mask image stand for."""
    del band
    bits = bits.astype(np.int32)
    planes = np.where((bits & (_BAD | _ARTEFACTS)) != 0, int(Mask.USER), 0)
    planes |= np.where((bits & _SATURATED) != 0, int(Mask.SATURATED), 0)
    planes |= np.where((bits & _NO_DATA) != 0, int(Mask.NONFINITE), 0)
    return planes.astype(np.uint8)
