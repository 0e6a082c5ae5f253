"""Full width at half maximum of the stars, as a function of position."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nightsift.polynomial import design

PEAK = 0.1  # half width, in log width, of the window that objects of one width fall into


@dataclass(frozen=True)
class Seeing:
    """FWHM over the image.

    Attributes
    ----------
    fwhm : float
        Median over the stars, pixels.
    coefficients : tuple of float
        Of the polynomial of `order` in x and y, both scaled to -1 .. 1 over the image: 1, x, y, x2, xy, y2.
    order : int
        Order of the polynomial.
    shape : tuple of int
        Rows and columns of the image.
    n_stars : int
        Stars that it was fitted to.
    stars : 1-D bool array
        Which of the objects these are.
    """

    fwhm: float
    coefficients: tuple[float, ...]
    order: int
    shape: tuple[int, int]
    n_stars: int
    stars: np.ndarray

    def at(self, x, y) -> np.ndarray:
        """Return the FWHM at pixel positions."""
        return design(x, y, self.shape, self.order) @ np.array(self.coefficients)


def seeing(x, y, fwhm, good, shape: tuple[int, int]) -> Seeing:
    """Fit the FWHM of the stars; galaxies, blends and cosmic rays stand off the ridge of the stars and are left out.

    Parameters
    ----------
    x, y, fwhm : 1-D arrays
        Positions and widths of the objects, pixels.
    good : 1-D bool array
        Objects that may be stars: unflagged and of high S/N.
    shape : tuple of int
        Rows and columns of the image.
    """
    good = np.asarray(good) & np.isfinite(fwhm) & (fwhm > 0.5)
    if not good.any():
        good = np.isfinite(fwhm) & (fwhm > 0.5)
    if not good.any():
        return Seeing(np.nan, (np.nan,), 0, shape, 0, good)
    ridge = star_width(fwhm[good])
    stars = good & (np.abs(fwhm - ridge) < 0.25 * ridge)
    order = 0 if stars.sum() < 20 else 1 if stars.sum() < 60 else 2
    for _ in range(5):
        terms = design(x, y, shape, order)
        solution = np.linalg.lstsq(terms[stars], fwhm[stars], rcond=None)[0]
        residual = fwhm - terms @ solution
        spread = 1.4826 * np.median(np.abs(residual[stars])) + 1e-6
        kept = good & (np.abs(residual) < max(3 * spread, 0.02 * ridge))
        if kept.sum() < 3 or (kept == stars).all():
            break
        stars = kept
    return Seeing(float(np.median(fwhm[stars])), tuple(map(float, solution)), order, shape, int(stars.sum()), stars)


def widths(image: np.ndarray, x, y, guess: float, bad: np.ndarray | None = None) -> np.ndarray:
    """Measure the FWHM of objects by adaptive Gaussian-weighted moments.

    The weight is the Gaussian that the object itself would have: with weight and object of the same width the weighted
    second moment is half the true one (Bernstein & Jarvis 2002, section 3.1), which is iterated. Wings and neighbours
    hardly count.

    Parameters
    ----------
    image : 2-D array
        Background-subtracted image.
    x, y : 1-D arrays
        Centroids, pixels.
    guess : float
        Typical FWHM, pixels.
    bad : 2-D bool array, optional
        Pixels without weight.

    Returns
    -------
    1-D array
        FWHM, pixels; NaN where the moments do not converge.
    """
    half = int(np.ceil(1.5 * guess)) + 1
    v, u = (line.ravel() for line in np.mgrid[-half : half + 1, -half : half + 1])
    column, row = np.rint(x).astype(int), np.rint(y).astype(int)
    columns, rows = column[:, None] + u, row[:, None] + v
    usable = (columns >= 0) & (rows >= 0) & (columns < image.shape[1]) & (rows < image.shape[0])
    columns, rows = np.where(usable, columns, 0), np.where(usable, rows, 0)
    if bad is not None:
        usable &= ~bad[rows, columns]
    value = np.where(usable, image[rows, columns], 0.0)
    square = (columns - np.asarray(x)[:, None]) ** 2 + (rows - np.asarray(y)[:, None]) ** 2
    variance = np.full(len(value), (guess / 2.3548) ** 2)
    with np.errstate(all="ignore"):
        for _ in range(15):
            weighted = value * np.exp(-square / (2 * variance[:, None]))
            moment = np.sum(weighted * square, axis=1) / np.sum(weighted, axis=1)
            variance = np.clip(np.where(moment > 0, moment, np.nan), 0.05, half**2 / 2)
    return 2.3548 * np.sqrt(variance)


def star_width(fwhm: np.ndarray) -> float:
    """Return the width of the stars among objects of many widths.

    Stars share one width and nothing real is narrower: theirs is the narrowest peak in the distribution of log width
    that is worth the name, even where galaxies are many. A peak counts from 3 objects and 0.2 of the highest one on.

    Parameters
    ----------
    fwhm : 1-D array
        Widths, pixels; not empty.
    """
    logarithm = np.sort(np.log(fwhm))
    grid = np.arange(logarithm[0] - PEAK, logarithm[-1] + PEAK, PEAK / 8)
    count = np.searchsorted(logarithm, grid + PEAK) - np.searchsorted(logarithm, grid - PEAK)
    reach = 12
    around = np.lib.stride_tricks.sliding_window_view(np.pad(count, reach), 2 * reach + 1).max(axis=1)
    peaks = np.flatnonzero((count == around) & (count >= max(3, 0.2 * count.max())))
    if not len(peaks):
        return float(np.median(fwhm))
    inside = np.abs(logarithm - grid[peaks[0]]) <= PEAK
    return float(np.exp(np.median(logarithm[inside])))
