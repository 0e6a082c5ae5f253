"""Full width at half maximum of the stars, as a function of position."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nightsift.image.polynomial import design
from nightsift.image.stamps import stamps
from nightsift.statistics import FWHM_PER_SIGMA, SIGMA_PER_MAD

PEAK = 0.1  # half width, in log width, of the window that objects of one width fall into; half as much for MANY
MANY = 100
NARROWING = (0.12, 0.1, 0.08, 0.06, 0.05, 0.04, 0.03)  # widths, relative, of the window around the stars, step by step
SAMPLED = np.float32(1.0)  # variance, square pixels, of the narrowest Gaussian weight that pixels sample well
PIXEL = np.float32(1 / 12)  # variance, square pixels, of a pixel itself: no star has less
CHUNK = 500_000  # pixels of stamps measured at once


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
    near = good & (np.abs(fwhm - ridge) < 0.25 * ridge)
    order = 0 if near.sum() < 20 else 1 if near.sum() < 60 else 2
    terms, width = design(x, y, shape, order), np.where(good, fwhm, ridge)
    model = np.full(len(width), ridge)
    for scale in NARROWING:
        off = (width - model) / ridge
        # Galaxies and blends are on one side only.
        weight = np.where(good, np.exp(-((off / np.where(off > 0, scale / 2, scale)) ** 2) / 4), 0)
        solution = np.linalg.lstsq(terms * weight[:, None], width * weight, rcond=None)[0]
        model = terms @ solution
    stars, spread = good, 0.02 * ridge
    for _ in range(5):
        kept = good & (np.abs(width - model) < max(3 * spread, 0.02 * ridge))
        if kept.sum() < 3 or (kept == stars).all():
            break
        stars = kept
        solution = np.linalg.lstsq(terms[stars], width[stars], rcond=None)[0]
        model = terms @ solution
        spread = SIGMA_PER_MAD * np.median(np.abs(width - model)[stars])
    return Seeing(float(np.median(fwhm[stars])), tuple(map(float, solution)), order, shape, int(stars.sum()), stars)


def widths(image: np.ndarray, x, y, guess: float, bad: np.ndarray | None = None) -> np.ndarray:
    """Measure the FWHM of objects by adaptive Gaussian-weighted moments.

    The weight is the Gaussian that the object itself would have: with weight and object of the same width the weighted
    second moment is half the true one (Bernstein & Jarvis 2002, section 3.1), which is iterated. Wings and neighbours
    hardly count. A weight of less than two pixels would be sampled too coarsely: it becomes no narrower than
    `SAMPLED`, and its fraction of the moment is known. Pixels are part of the width.

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
        FWHM, pixels; NaN where the moments do not converge, and for what is narrower than a pixel. What is wider than
        the stamps (1.7 times their half side of 1.5 `guess` and a pixel) has that width.
    """
    half = _half(guess)
    parts = [_widths(cut, half, guess) for cut in _cuts(image, x, y, half, bad)]
    return np.concatenate([np.empty(0), *parts])


def widest(guess: float) -> float:
    """Return the width that `widths` gives to everything wider, pixels: no measurement."""
    return float(FWHM_PER_SIGMA * _half(guess) / np.sqrt(2))


def _half(guess: float) -> int:
    return int(np.ceil(1.5 * guess)) + 1


def _widths(cut: _Cut, half: int, guess: float):
    square = (cut.u[:, None, :] ** 2 + cut.v[:, :, None] ** 2).reshape(len(cut.u), -1)
    value = cut.value.reshape(square.shape)
    variance = np.full(len(value), (guess / FWHM_PER_SIGMA) ** 2, np.float32)
    with np.errstate(all="ignore"):
        for _ in range(15):
            weight = np.maximum(variance, SAMPLED)
            weighted = np.exp(square / (-2 * weight[:, None]))
            weighted *= value
            moment = np.einsum("np,np->n", weighted, square) / weighted.sum(axis=1) / 2
            narrow = moment * SAMPLED / (SAMPLED - moment)
            variance = np.where(moment < SAMPLED / 2, narrow, 2 * moment)
            variance = np.clip(np.where(variance > 0, variance, np.float32(np.nan)), 0, half**2 / 2)
    variance[variance < PIXEL] = np.nan
    return FWHM_PER_SIGMA * np.sqrt(variance.astype(float))


def centroids(image: np.ndarray, x, y, fwhm: float, bad: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return Gaussian-windowed centroids, nearly as good as a PSF fit; NaN where they run off.

    Parameters as in `widths`; the window has the stars' FWHM, but a variance of at least `SAMPLED`. Each step goes
    twice as far as the windowed mean, as in SExtractor's XWIN_IMAGE (Bertin, SExtractor manual, "Windowed positional
    parameters").
    """
    fwhm = max(fwhm, FWHM_PER_SIGMA * float(np.sqrt(SAMPLED)))
    half = int(np.ceil(1.6 * fwhm)) + 1
    parts = [_centroids(cut, half, fwhm / FWHM_PER_SIGMA) for cut in _cuts(image, x, y, half, bad)]
    shift = np.concatenate([np.empty((2, 0)), *parts], axis=1)
    return x + shift[0], y + shift[1]


def _centroids(cut: _Cut, half: int, sigma: float):
    shift = np.zeros((2, len(cut.u)), np.float32)
    with np.errstate(all="ignore"):
        for _ in range(16):
            u, v = cut.u - shift[0][:, None], cut.v - shift[1][:, None]
            across, down = np.exp(u**2 / (-2 * sigma**2)), np.exp(v**2 / (-2 * sigma**2))
            lines = np.einsum("nyx,ny->nx", cut.value, down)
            total = np.sum(lines * across, axis=1)
            moved_x = np.sum(lines * across * u, axis=1) / total
            moved_y = np.einsum("nyx,ny,nx->n", cut.value, down * v, across, optimize=True) / total
            step = 2 * np.array([moved_x, moved_y])
            shift = np.where((total > 0) & (np.abs(shift + step).max(axis=0) < half), shift + step, np.float32(np.nan))
            if not np.nanmax(np.abs(step), initial=0) > 1e-4:
                break
    return shift.astype(float)


@dataclass(frozen=True)
class _Cut:
    """Stamps of objects, bad pixels 0, and the offsets of their columns and rows from the objects' centres."""

    value: np.ndarray
    u: np.ndarray
    v: np.ndarray


def _cuts(image, x, y, half, bad):
    """Yield stamps of the objects in turn, as many as fit into a little memory."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    line, step = np.arange(-half, half + 1), max(1, CHUNK // (2 * half + 1) ** 2)
    for first in range(0, len(x), step):
        column, row = (np.rint(part[first : first + step]).astype(int) for part in (x, y))
        value = stamps(image, column, row, half).astype(np.float32)
        if bad is not None:
            value[stamps(bad, column, row, half, True)] = 0
        offsets = column - x[first : first + step], row - y[first : first + step]
        yield _Cut(value, *((line + part[:, None]).astype(np.float32) for part in offsets))


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
    half = PEAK / 2 if len(fwhm) >= MANY else PEAK
    grid = np.arange(logarithm[0] - half, logarithm[-1] + half, half / 8)
    count = np.searchsorted(logarithm, grid + half) - np.searchsorted(logarithm, grid - half)
    reach = 12
    around = np.lib.stride_tricks.sliding_window_view(np.pad(count, reach), 2 * reach + 1).max(axis=1)
    peaks = np.flatnonzero((count == around) & (count >= max(3, 0.2 * count.max())))
    if not len(peaks):
        return float(np.median(fwhm))
    inside = np.abs(logarithm - grid[peaks[0]]) <= half
    return float(np.exp(np.median(logarithm[inside])))
