"""Magnitudes of one photometric system from those of another: published polynomials in colours, where they hold.

What a catalogue has of its own is never replaced by what is converted, but for g, r, i and z of the systems of SDSS and
SkyMapper, which are brought to that of Pan-STARRS, so that these bands mean the same whatever the catalogue.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy import units as u
from astropy.table import Table

from nightsift.tables import column

TONRY = "Tonry et al. 2012, ApJ 750, 99, table 6"
LUPTON = "Lupton 2005, www.sdss.org/dr12/algorithms/sdssUBVRITransform"
RIELLO = "Riello et al. 2021, A&A 649, A3, table C.2"
SOTO = "Soto et al. 2013, A&A 552, A101"
STDPIPE = "STDPipe (Karpov 2025, arXiv:2411.16470), fitted to the standards of Pancino et al. 2022, A&A 664, A109"


@dataclass(frozen=True)
class Term:
    """A polynomial in a colour, coefficients of rising powers, and between which colours it was fitted."""

    color: str
    coefficients: tuple[float, ...]
    low: float
    high: float


@dataclass(frozen=True)
class Conversion:
    """The magnitude in `band` is that in `base` plus the terms, good to `scatter` for single stars.

    Without a colour there is none, unless `uncorrected` says how far off that in `base` is then.
    """

    band: str
    base: str
    terms: tuple[Term, ...]
    scatter: float
    reference: str
    uncorrected: float | None = None


# Many parameters: a line of the table below.
def _one(band, base, color, coefficients, limits, scatter, reference, uncorrected=None) -> Conversion:
    return Conversion(band, base, (Term(color, coefficients, *limits),), scatter, reference, uncorrected)


# The colours of stars of types O to early M; beyond, g-r no longer tells the temperature.
_GR, _RI = (-0.4, 1.4), (-0.3, 1.2)
PS1 = (
    _one("B", "g", "g-r", (0.212, 0.556, 0.034), _GR, 0.032, TONRY),
    _one("V", "r", "g-r", (0.005, 0.462, 0.013), _GR, 0.012, TONRY),
    _one("R", "r", "g-r", (-0.137, -0.108, -0.029), _GR, 0.015, TONRY),
    _one("I", "i", "g-r", (-0.366, -0.136, -0.018), _GR, 0.017, TONRY),
)
GAIA = (
    _one("V", "G", "BP-RP", (0.02704, -0.01424, 0.2156, -0.01426), (-0.5, 5.0), 0.030, RIELLO),
    _one("R", "G", "BP-RP", (0.02275, -0.3961, 0.1243, 0.01396, -0.003775), (0.0, 4.0), 0.032, RIELLO),
    _one("I", "G", "BP-RP", (-0.01753, -0.76, 0.0991), (-0.5, 4.5), 0.038, RIELLO),
)
SDSS = (
    _one("B", "g", "g-r", (0.2271, 0.3130), _GR, 0.011, LUPTON),
    _one("V", "g", "g-r", (-0.0038, -0.5784), _GR, 0.005, LUPTON),
    _one("R", "r", "r-i", (-0.1439, -0.2936), _RI, 0.007, LUPTON),
    _one("I", "r", "r-i", (-0.3820, -1.2444), _RI, 0.008, LUPTON),
)
# Half of the VISTA Hemisphere Survey has no H.
VISTA = (
    _one("J", "J", "J-H", (0.0, 0.070), (-0.2, 1.2), 0.01, SOTO, 0.05),
    _one("H", "H", "H-Ks", (0.0, -0.035), (-0.2, 0.8), 0.01, SOTO, 0.02),
    _one("Ks", "Ks", "J-Ks", (0.0, -0.011), (-0.2, 1.8), 0.01, SOTO, 0.01),
)


def _two(band: str, base: str, gr: tuple[float, ...], ri: tuple[float, ...]) -> Conversion:
    # g-r of SkyMapper is smaller than that of Pan-STARRS for red stars.
    return Conversion(band, base, (Term("g-r", gr, -0.3, 1.1), Term("r-i", ri, *_RI)), 0.03, STDPIPE)


SKYMAPPER = (
    _two("g", "g", (0.0139629, 0.0406938, 0.2694597, -0.0771532), (0.0139629, 0.1336475, -0.1404096, 0.0260970)),
    _two("r", "r", (-0.0081256, 0.1890698, -0.2325770, 0.0877928), (-0.0081256, -0.2334049, 0.2190932, -0.0627383)),
    _two("i", "i", (0.0009749, -0.0281597, -0.0211742, 0.0355338), (0.0009749, 0.1403095, -0.0362287, 0.0091192)),
    _two("z", "z", (-0.0020460, -0.0739440, -0.0516930, 0.0807126), (-0.0020460, 0.3791828, -0.3206364, 0.0972072)),
    _two("y", "z", (0.0069805, 0.0823540, -0.1104019, 0.0387810), (0.0069805, -0.2823328, 0.2053210, -0.0649740)),
    _two("B", "g", (0.1076264, 1.0021365, 0.1818125, -0.2277392), (0.1076264, -0.0753545, 0.0821459, -0.0040349)),
    _two("V", "g", (-0.0029387, -0.3307420, 0.0325643, -0.0254573), (-0.0029387, -0.1434933, 0.0825506, -0.0073421)),
    _two("R", "r", (-0.0854774, 0.1537526, -0.1943703, 0.0729670), (-0.0854774, -0.4072095, 0.1846292, -0.0737813)),
    _two("I", "i", (-0.1932170, -0.0688922, 0.0462240, -0.0092539), (-0.1932170, -0.0523148, -0.0443701, 0.0118787)),
)
# SDSS less Pan-STARRS, in g-r of Pan-STARRS: coefficients and scatter (Tonry et al. 2012, table 6).
FROM_PS1_TO_SDSS = {
    "g": ((0.013, 0.145, 0.019), 0.008),
    "r": ((-0.001, 0.004, 0.007), 0.004),
    "i": ((-0.005, 0.011, 0.010), 0.004),
    "z": ((0.013, -0.039, -0.012), 0.010),
}
# Zero points of SDSS against AB: www.sdss.org/dr16/algorithms/fluxcal
SDSS_TO_AB = {"u": -0.04, "z": 0.02}
OF_SURVEY = {"ps1": PS1, "atlas": PS1, "gaiaedr3": GAIA, "sdss": SDSS, "skymapper": SKYMAPPER, "vhs": VISTA}


def converted(stars: Table, survey: str) -> Table:
    """Return a survey's stars with all magnitudes that follow from its own.

    Parameters
    ----------
    stars : Table
        With ``<band>mag`` and ``e_<band>mag`` of the survey's own system [mag].
    survey : str
        Of `nightsift.archive.catalogs.SURVEYS`.

    Returns
    -------
    Table
        With g, r, i, z and y of Pan-STARRS (AB; those of DES stay its own), UBVRI of Johnson and Cousins (Vega) and J,
        H, Ks of 2MASS (Vega), as far as they follow; NaN where a colour lies outside the range of the conversion or is
        not known. Errors hold those of all magnitudes that take part and the scatter of the conversion.
    """
    result = stars.copy()
    if survey == "sdss":
        for band, shift in SDSS_TO_AB.items():
            result[f"{band}mag"] = column(stars, f"{band}mag") + shift
    # All from the survey's own, before any of them is replaced.
    own = result.copy()
    for conversion in OF_SURVEY.get(survey, ()):
        _put(result, conversion.band, *apply(own, conversion))
    if survey in ("sdss", "gaiadr3syn"):
        for band, values in _ps1_from_sdss(own).items():
            _put(result, band, *values)
    return result


def _put(table: Table, band: str, mag: np.ndarray, error: np.ndarray) -> None:
    table[f"{band}mag"], table[f"e_{band}mag"] = mag * u.mag, error * u.mag


def apply(stars: Table, conversion: Conversion) -> tuple[np.ndarray, np.ndarray]:
    """Return magnitude and error of a conversion [mag]."""
    mag = column(stars, f"{conversion.base}mag").copy()
    # How the result changes with each of the magnitudes it is made from.
    slopes = {conversion.base: np.ones(len(stars))}
    for term in conversion.terms:
        first, second = term.color.split("-")
        color = column(stars, f"{first}mag") - column(stars, f"{second}mag")
        polynomial = np.polynomial.Polynomial(term.coefficients)
        mag += np.where((color >= term.low) & (color <= term.high), polynomial(color), np.nan)
        slope = polynomial.deriv()(color)
        slopes[first] = slopes.get(first, 0.0) + slope
        slopes[second] = slopes.get(second, 0.0) - slope
    if conversion.uncorrected is not None:
        own = column(stars, f"{conversion.base}mag")
        unknown, noise = np.isnan(color), column(stars, f"e_{conversion.base}mag")
        mag = np.where(unknown, own, mag)
        return mag, np.where(unknown, np.hypot(noise, conversion.uncorrected), _error(stars, conversion, slopes, mag))
    return mag, _error(stars, conversion, slopes, mag)


def _error(stars: Table, conversion: Conversion, slopes: dict, mag: np.ndarray) -> np.ndarray:
    variance = sum((slope * column(stars, f"e_{band}mag")) ** 2 for band, slope in slopes.items())
    return np.where(np.isfinite(mag), np.sqrt(variance + conversion.scatter**2), np.nan)


def _ps1_from_sdss(stars: Table) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return magnitudes and errors of Pan-STARRS by band: the inverse of Tonry's quadratics."""
    g, r = column(stars, "gmag"), column(stars, "rmag")
    constant, linear, square = np.subtract(FROM_PS1_TO_SDSS["g"][0], FROM_PS1_TO_SDSS["r"][0])
    with np.errstate(invalid="ignore"):
        root = np.sqrt((1 + linear) ** 2 - 4 * square * (constant - (g - r)))
    color = 2 * ((g - r) - constant) / (1 + linear + root)
    color = np.where((color >= _GR[0]) & (color <= _GR[1]), color, np.nan)
    noise = np.hypot(column(stars, "e_gmag"), column(stars, "e_rmag"))
    result = {}
    for band, (coefficients, scatter) in FROM_PS1_TO_SDSS.items():
        polynomial = np.polynomial.Polynomial(coefficients)
        mag = column(stars, f"{band}mag") - polynomial(color)
        error = np.sqrt(column(stars, f"e_{band}mag") ** 2 + (polynomial.deriv()(color) * noise) ** 2 + scatter**2)
        result[band] = mag, np.where(np.isfinite(mag), error, np.nan)
    return result
