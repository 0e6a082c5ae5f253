"""Images from the hierarchical surveys of CDS by its service hips2fits (Boch et al. 2020, ASPC 527, 121).

They come in cells of HEALPix, each projected around its centre, so that all images of a field share them. Their flux
scale is not that of the survey: it is left to the kernel, and the noise to what the pixels show.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlencode

import numpy as np
from astropy.wcs import WCS

from nightsift.archive.cells import Cell, containing

SERVICE = "hips"
SERVERS = ("https://alasky.cds.unistra.fr", "https://alaskybis.cds.unistra.fr")
_PATH = f"{SERVERS[0]}/hips-image-services/hips2fits"
_WIDTH = 1500.0  # pixels that a cell is wide, about
_MARGIN = 32  # pixels around it
_CONTROL = 16  # pixels
_CELL = np.rad2deg(np.sqrt(np.pi / 3))  # width of a cell of order 0 [deg]


@dataclass(frozen=True)
class Hips:
    """One survey.

    Attributes
    ----------
    title : str
    names : dict
        Identifier by band.
    scale : float
        Its pixels [arcsec].
    declinations : pair of float
        Where it has observed at all [deg].
    control : pair of float
        Where it has pixels for certain [deg].
    asinh : tuple of str
        Bands whose pixels are asinh magnitudes.
    """

    title: str
    names: dict[str, str]
    scale: float
    declinations: tuple[float, float] = (-90.0, 90.0)
    control: tuple[float, float] = (150.0, 30.0)
    asinh: tuple[str, ...] = ()


def _named(pattern: str, bands: str, change=str) -> dict[str, str]:
    return {band: pattern.format(change(band)) for band in bands.split()}


SURVEYS = {
    "skymapper": Hips(
        "SkyMapper", _named("CDS/P/skymapper-{}", "u g r i z", str.upper), 0.5, (-90.0, 12.0), (60.0, -50.0)
    ),
    "des": Hips("Dark Energy Survey DR2", _named("CDS/P/DES-DR2/{}", "g r i z"), 0.263, (-70.0, 10.0), (52.5, -28.0)),
    "decaps": Hips("DECaPS DR2", _named("CDS/P/DECaPS/DR2/{}", "g r i z"), 0.262, (-85.0, 10.0), (255.0, -45.0)),
    "ztf": Hips("ZTF DR7", _named("CDS/P/ZTF/DR7/{}", "g r i"), 1.01, (-32.0, 90.0)),
    "2mass": Hips("2MASS", {"J": "CDS/P/2MASS/J", "H": "CDS/P/2MASS/H", "Ks": "CDS/P/2MASS/K"}, 1.0),
    "ps1": Hips(
        "Pan-STARRS DR1",
        _named("CDS/P/PanSTARRS/DR1/{}", "g r i z y"),
        0.25,
        (-32.0, 90.0),
        # All but g keep the scaling of the skycells; the constants of each are lost.
        asinh=("r", "i", "z", "y"),
    ),
}


def doublings(wanted: float, survey: Hips, band: str) -> int:
    """Return how often to double the survey's pixels so that they do not come out larger than `wanted` [arcsec]."""
    # The mean of what is not linear in flux means nothing.
    return 0 if band in survey.asinh else max(int(np.floor(np.log2(wanted / survey.scale) + 1e-9)), 0)


def find(ra, dec, scale: float) -> np.ndarray:
    """Return the names (``order.number``) of the cells of positions [deg] for pixels of `scale` [arcsec]."""
    order = int(np.clip(np.ceil(np.log2(_CELL * 3600 / (_WIDTH * scale))), 0, 12))
    return np.array([f"{order}.{number}" for number in np.atleast_1d(containing(ra, dec, order))])


def geometry(name: str, scale: float) -> tuple[WCS, tuple[int, int]]:
    """Return the solution and the shape (ny, nx) in which a cell is asked for."""
    order, number = (int(part) for part in name.split("."))
    ra, dec, radius = Cell(order, number).cone()
    side = 2 * (int(np.ceil(radius * 3600 / scale)) + _MARGIN)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix = (ra, dec), (side / 2, side / 2)
    wcs.wcs.cd = np.diag([-scale, scale]) / 3600
    wcs.wcs.set()
    return wcs, (side, side)


def files(name: str, identifier: str, scale: float) -> list[dict[str, str]]:
    """Return where the image of a cell is; the only place there is."""
    wcs, (side, _) = geometry(name, scale)
    return [{"image": _cut(identifier, *wcs.wcs.crval, side, scale)}]


def control(survey: Hips, band: str) -> str:
    """Return where a few pixels are that a survey has for certain, unless the service has lost its images."""
    return _cut(survey.names[band], *survey.control, _CONTROL, survey.scale)


def _cut(identifier: str, ra: float, dec: float, side: int, scale: float) -> str:
    question = {"hips": identifier, "width": side, "height": side, "projection": "TAN", "coordsys": "icrs"}
    question |= {"ra": f"{ra:.8f}", "dec": f"{dec:.8f}", "fov": f"{side * scale / 3600:.10f}", "format": "fits"}
    return f"{_PATH}?{urlencode(question)}"
