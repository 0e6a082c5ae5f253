"""How much of a star's light its calibration aperture misses: the growth of stars, and the aperture correction."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from astropy.table import Table
from photutils.aperture import CircularAperture

from nightsift.statistics import MAG, SIGMA_PER_MAD

RADII = (1.25, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0)  # bounds of the rings, FWHM; the last holds all light
MIN_SNR = 30.0
MOST = 1000  # objects, the brightest
MIN_STARS = 3
MAX_MASKED = 0.5  # of a ring
MAX_ERROR = 0.1  # mag
OUTLIER = 2.0  # standard deviations


@dataclass(frozen=True)
class _Light:
    """Light within a radius of each star, its variance, the good pixels and the whole area."""

    light: np.ndarray
    variance: np.ndarray
    good: np.ndarray
    area: float

    @classmethod
    def within(cls, radius: float, image, noise, bad, stars: Table) -> _Light:
        circle = CircularAperture(np.column_stack([stars["x"], stars["y"]]), radius)
        light, error = circle.do_photometry(image, error=noise, mask=bad)
        good, _ = circle.do_photometry((~bad).astype(np.float32))
        return cls(light - np.asarray(stars["background"]) * good, error**2, good, circle.area)


def candidates(objects: Table, excluded: int) -> np.ndarray:
    """Return the rows of the objects bright enough, and without any of the flags `excluded`."""
    snr = np.asarray(objects["snr"], float)
    rows = np.flatnonzero((snr > MIN_SNR) & ((np.asarray(objects["flags"]) & excluded) == 0))
    return rows[np.argsort(-snr[rows], kind="stable")[:MOST]]


def growth(image, noise, bad, stars: Table, fwhm: float, aperture: float) -> tuple[np.ndarray, np.ndarray]:
    """Measure by how much the light within 4 FWHM of stars exceeds that in the calibration aperture.

    Parameters
    ----------
    image, noise : 2-D float32 arrays
        Background-subtracted image without the light of other objects, standard deviation of its sky pixels [ADU].
    bad : 2-D bool array
        Pixels to leave out.
    stars : Table
        ``x y background level_err`` of clean stars; the last two are the background beneath each that is left in
        `image` and its standard deviation [ADU a pixel].
    fwhm, aperture : float
        Typical FWHM and radius of the calibration aperture [px].

    Returns
    -------
    growth, error : ndarray
        [mag]; NaN where too many pixels are bad.

    Notes
    -----
    Summed ring by ring, so that bad pixels count as much as the good ones of their ring do on average. A ring unlike
    those of the other stars holds the light of a neighbour: it counts as theirs do in the median. Light further out
    (0.3 per cent of a Moffat profile of beta 3) does not count as a star's: it could not be told from the background,
    which is measured from 5 FWHM on.
    """
    bounds = [aperture, *(radius * fwhm for radius in RADII if radius * fwhm > aperture)]
    within = [_Light.within(radius, image, noise, bad, stars) for radius in bounds]
    star = np.where(within[0].light > 0, within[0].light, np.nan)
    fraction, variance, area = np.zeros(len(stars)), np.zeros(len(stars)), within[-1].area - within[0].area
    for inner, outer in pairwise(within):
        whole, good = outer.area - inner.area, outer.good - inner.good
        full = np.where(good >= (1 - MAX_MASKED) * whole, whole / np.maximum(good, 1), np.nan)
        noise2 = np.maximum(outer.variance - inner.variance, 0) * full**2
        fraction += _like_others((outer.light - inner.light) * full / star, np.sqrt(noise2) / star)
        variance += noise2
    error = np.sqrt(variance + (np.asarray(stars["level_err"], float) * area) ** 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        return 2.5 * np.log10(1 + fraction), MAG * error / star


def _like_others(fraction, error) -> np.ndarray:
    """Return the fractions with the median in place of those that are outliers."""
    precise = error < MAX_ERROR
    if precise.sum() < MIN_STARS:
        return fraction
    middle = np.nanmedian(fraction[precise])
    scatter = SIGMA_PER_MAD * np.nanmedian(np.abs(fraction[precise] - middle))
    outliers = np.abs(fraction - middle) > OUTLIER * np.hypot(scatter, error)
    return np.where(outliers, middle, fraction)
