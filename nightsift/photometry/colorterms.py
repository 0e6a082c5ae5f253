"""Which band of a catalogue an image is calibrated to, and with which colour."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy.table import Table

from nightsift.errors import Rejected
from nightsift.passbands import CATALOG_PASSBANDS, Passband
from nightsift.photometry import zeropoint
from nightsift.statistics import SIGMA_PER_MAD
from nightsift.tables import column

_UNKNOWN = Passband("", 0, ("BT-VT", "BP-RP", "g-r", "B-V"))
_ERROR_FLOOR = 0.003
_COLOR_SHARE = 0.7
_FEWEST, _MOST = 8, 400
_LARGEST = 1.0
_WHITE = 640.0  # nm, mean wavelength of a silicon detector without filter; that of Gaia's G
_ANOTHER = 0.5  # colour term from which on an image is of another band; between those of V or i and of g, against r


@dataclass(frozen=True)
class ColorTerm:
    """What the image's passband is like, seen from one band of the catalogue.

    Attributes
    ----------
    band, color : str
        The image's magnitudes are ``band + constant - term * color``.
    term, error : float
    scatter : float
        Robust rms of the residuals of the brighter stars [mag].
    spread : float
        Robust rms of the stars' colours: `term` times this is what the colours change [mag].
    n : int
        Stars.
    """

    band: str
    color: str
    term: float
    error: float
    scatter: float
    spread: float
    n: int


def passband(name: str) -> Passband:
    """Return what is known of a catalogue's band; a band of wavelength 0 for any other name."""
    return CATALOG_PASSBANDS.get(name, _UNKNOWN)


def catalog_bands(catalog: Table) -> list[str]:
    """Return the bands in which a catalogue has magnitudes."""
    names = [name[:-3] for name in catalog.colnames if name.endswith("mag") and not name.startswith("e_")]
    return [name for name in names if np.isfinite(column(catalog, f"{name}mag")).any()]


def catalog_error(catalog: Table, band: str) -> np.ndarray:
    """Return the errors of `band`; where none is given their median, and never less than a floor."""
    error = column(catalog, f"e_{band}mag")
    given = np.isfinite(error) & (error > 0)
    usual = np.median(error[given]) if given.any() else 0.0
    return np.maximum(np.where(given, error, usual), _ERROR_FLOOR)


def catalog_color(catalog: Table, color: str | None) -> np.ndarray:
    """Return the colours of the stars, such as g-r; NaN where unknown, and where no colour is named."""
    first, _, second = (color or "").partition("-")
    return column(catalog, f"{first}mag") - column(catalog, f"{second}mag")


def color_errors(catalog: Table, band: str, color: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the variance of a colour, and its covariance with the magnitude in `band`."""
    first, _, second = color.partition("-")
    one, two = (catalog_error(catalog, name) ** 2 for name in (first, second))
    return one + two, (band == first) * one - (band == second) * two


def choose_color(catalog: Table, band: str, params, stars) -> tuple[str | None, list[str]]:
    """Return the first suitable colour that most of the stars (rows) have."""
    if params.color == "none":
        return None, []
    options = (params.color,) if params.color else passband(band).colors
    for option in options:
        if len(stars) and np.isfinite(catalog_color(catalog, option)[stars]).mean() >= _COLOR_SHARE:
            return option, []
    if params.color:
        return None, [f"Too few stars have the colour {params.color}: no colour term."]
    return None, []


def diagnose(catalog: Table, params, stars, instrumental, variance) -> tuple[ColorTerm, ...]:
    """Fit a constant and a colour term against every band of a catalogue.

    Parameters
    ----------
    catalog : Table
    params : parameters.PhotometryConfig
    stars : int array, shape (n,)
        Rows of the catalogue.
    instrumental, variance : array, shape (n,)
        Instrumental magnitudes of these, and their variance [mag].

    Returns
    -------
    tuple of ColorTerm
        Without the bands in which fewer than 8 stars have magnitude and colour.
    """
    found = []
    for band in catalog_bands(catalog):
        color, _ = choose_color(catalog, band, params, stars)
        if color is None:
            continue
        value = column(catalog, f"{band}mag")[stars] - instrumental
        blue = catalog_color(catalog, color)[stars]
        known = np.flatnonzero(np.isfinite(value + blue))
        known = known[np.argsort(instrumental[known], kind="stable")[:_MOST]]
        if len(known) < _FEWEST:
            continue
        errors = [part[stars] for part in color_errors(catalog, band, color)]
        var = variance + catalog_error(catalog, band)[stars] ** 2
        nowhere = np.zeros(len(stars))
        fit = zeropoint.fit(
            zeropoint.CalibrationStars(nowhere, nowhere, value, var, blue, *errors).take(known), 0, True, _LARGEST
        )
        error = float(np.sqrt(fit.covariance[-1, -1]))
        term, count = float(fit.coefficients[-1]), int(fit.used.sum())
        found.append(ColorTerm(band, color, term, error, _rms(fit.residual[fit.used]), _rms(blue[known]), count))
    return tuple(found)


def _rms(values) -> float:
    return float(SIGMA_PER_MAD * np.median(np.abs(values - np.median(values))))


def choose_band(catalog: Table, band: str | None, params, known: tuple[ColorTerm, ...]):
    """Return the band to calibrate against, and what is to be said of it.

    Parameters
    ----------
    catalog : Table
    band : str or None
        Canonical name of the image's filter, None = unknown.
    params : parameters.PhotometryConfig
    known : tuple of ColorTerm
        As from `diagnose`.

    Returns
    -------
    band : str
        The one asked for, the image's own, or its nearest in wavelength. Of an image without a known band that nearest
        to a detector without filter, which noise does not change from image to image; but for one that is plainly of
        another band, as its colour term tells.
    notes : list of str

    Raises
    ------
    Rejected
        The catalogue lacks the band asked for, or has none.
    """
    bands = catalog_bands(catalog)
    if not bands:
        raise Rejected("The catalogue has no magnitude for any star of the field.")
    if params.band is not None:
        if params.band not in bands:
            raise Rejected(
                f"The catalogue has no {params.band}mag in this field, which photometry.band asks for;"
                f" it has {', '.join(bands)}."
            )
        return params.band, []
    if band in bands:
        return band, []
    near = [name for name in passband(band).catalog_bands if name in bands] if band in CATALOG_PASSBANDS else []
    if near:
        return near[0], [f"The catalogue has no {band}: calibrated to {near[0]}, its nearest band in wavelength."]
    what = f"is {band}, which has no band of its own" if band else "is unknown"
    if len(bands) == 1:
        return bands[0], [f"The image's filter {what}: calibrated to {bands[0]}, the catalogue's only band."]
    usual = _unfiltered(catalog, bands)
    terms = {item.band: item for item in known}
    own = terms.get(usual)
    if own is not None and abs(own.term) - 3 * own.error > _ANOTHER:
        best = min(known, key=lambda item: np.hypot(item.term, item.error) * item.spread)
        if best.band != usual:
            return best.band, [
                f"The image's filter {what}: calibrated to {best.band}, for against {usual} the colour term is"
                f" {own.term:+.2f} in {own.color}. Name the filter in the sample sheet, or the band in photometry.band."
            ]
    term = f", with a colour term of {own.term:+.2f} in {own.color}" if own is not None else ""
    return usual, [
        f"The image's filter {what}: calibrated to {usual}, of the catalogue's bands the nearest to a detector without"
        f" filter{term}."
    ]


def _unfiltered(catalog: Table, bands: list[str]) -> str:
    """Return the band nearest to a detector without filter, of those that half as many stars have as any."""
    counts = {name: np.isfinite(column(catalog, f"{name}mag")).sum() for name in bands}
    enough = [name for name in bands if counts[name] >= 0.5 * max(counts.values())]
    return min(enough, key=lambda name: (abs(passband(name).wavelength - _WHITE), name))
