"""What is subtracted, on the flux scale of the stars: as a function of position and of colour."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy.table import Table

from nightsift.convolve import convolve
from nightsift.correlation import carried, factor
from nightsift.errors import Rejected
from nightsift.fluxscale import scatter_beyond
from nightsift.layers import Raw, Surface
from nightsift.matching import MIN_STAMPS, isolated
from nightsift.polynomial import design
from nightsift.psf import Psf, forced
from nightsift.stamps import spread
from nightsift.tiles import tiles

MOST = 400  # stars that the flux scale rests on
MIN_SCATTER = 0.003  # no two images agree better on a star's flux
MIN_COLORS = 15  # stars of known colour that tell how what is left goes with it
REDDEST = 2.0  # mag from the mean, beyond which the slope of colours near it tells nothing
SIGNIFICANT = 2.0  # standard deviations of the slope below which it counts as 0
REACH = 2.5  # FWHM: half side of the stamps that stars are taken out on
BLOCK = 256  # stars at a time


@dataclass(frozen=True)
class Ratio:
    """Flux of the stars in the difference over that in what was subtracted.

    Attributes
    ----------
    median, scatter : float
        The scatter is that beyond the noise, after position and colour.
    color_slope, color_slope_err : float
        Change with the colour, per mag: 0 and NaN where it is not known.
    """

    median: float
    scatter: float
    color_slope: float = 0.0
    color_slope_err: float = np.nan


def rescaled(raw: Raw, stars: Table, psf: Psf, gain: float | None) -> tuple[Raw, Ratio]:
    """Scale what is subtracted so that stars vanish in the mean, as a function of position and colour.

    Parameters
    ----------
    raw : Raw
        Its arrays are changed in place.
    stars : Table
        ``x, y, snr, fwhm, alone`` and, where it is known, ``color`` (mag) of stars common to both images.
    psf : Psf
        Of the difference.
    gain : float or None
        e-/ADU of the image.

    Raises
    ------
    Rejected
        If too few stars have about the same flux in both.

    Notes
    -----
    Least squares with noise (and interpolation errors) in what is convolved underrate the kernel's sum; the fluxes of
    the stars do not suffer from that. Where the passbands of image and template differ, what is left of a star goes
    with its colour: that part is fitted, and taken out of the difference at the stars whose colour is known.
    """
    every = stars
    stars = isolated(stars, raw.data.shape)
    chosen = spread(stars["x"], stars["y"], -np.asarray(stars["snr"]), raw.data.shape, MOST)
    x, y = np.asarray(stars["x"], float)[chosen], np.asarray(stars["y"], float)[chosen]
    sigma = raw.sigma()
    left = forced(raw.data, sigma, raw.bad, psf, x, y)
    whole = forced(raw.model, sigma, raw.bad, psf, x, y)
    photons = np.maximum(whole.flux, 0) / gain if gain else 0.0
    ratio = left.flux / whole.flux
    error = np.sqrt((left.fluxerr * _of_both(raw, psf)) ** 2 + photons) / np.abs(whole.flux)
    good = np.isfinite(ratio) & (whole.flux > 0) & (np.abs(ratio) < 0.5)
    if good.sum() < min(MIN_STAMPS, len(good)) or good.sum() < 0.3 * len(good):
        raise Rejected(f"only {good.sum()} stars have about the same flux in image and template")
    order = 0 if good.sum() < 30 else 1 if good.sum() < 100 else 2
    terms = design(x, y, raw.data.shape, order)
    color, color_mean = _color(stars[chosen], good)
    if np.any(color):
        terms = np.column_stack([terms, color])
    best = np.flatnonzero(good)[np.argsort(error[good])][: max(MIN_STAMPS, good.sum() // 2)]
    off, used, scatter = ratio - np.median(ratio[best]), good, MIN_SCATTER
    for _ in range(6):
        scatter = scatter_beyond(off[used], error[used])
        width = np.hypot(error, scatter)
        used = good & (np.abs(off) < 4 * width)
        if used.sum() < terms.shape[1] + 2:
            return raw, Ratio(float(np.median(ratio[good])), max(scatter, MIN_SCATTER))
        weight = 1 / width[used]
        solution = np.linalg.lstsq(terms[used] * weight[:, None], ratio[used] * weight, rcond=None)[0]
        off = ratio - terms @ solution
    slope, slope_err = 0.0, np.nan
    if np.any(color):
        slope = float(solution[-1])
        slope_err = float(
            np.sqrt(np.linalg.inv((terms[used] * weight[:, None]).T @ (terms[used] * weight[:, None]))[-1, -1])
        )
        solution = solution[:-1]
        # By degrees: noise is no colour.
        slope *= float(np.clip(abs(slope) / (SIGNIFICANT * slope_err) - 1, 0, 1))
    solution[0] += 1
    raw = _scaled(raw, Surface(solution, order, raw.data.shape))
    if slope:
        _recolored(raw, every, psf, slope, color_mean)
    return raw, Ratio(float(np.median(ratio[used])), max(scatter, MIN_SCATTER), slope, slope_err)


def _color(stars: Table, good) -> tuple[np.ndarray, float]:
    """Return the stars' colours less the median of the good ones, and that; 0 where unknown, or too few are known."""
    color = np.asarray(stars["color"], float) if "color" in stars.colnames else np.full(len(stars), np.nan)
    known = np.isfinite(color)
    if np.count_nonzero(known & good) < MIN_COLORS:
        return np.zeros(len(stars)), 0.0
    mean = float(np.median(color[known & good]))
    return np.where(known, np.clip(color - mean, -REDDEST, REDDEST), 0.0), mean


def _recolored(raw: Raw, stars: Table, psf: Psf, slope: float, mean: float) -> None:
    """Take out of a difference, in place, what the colours of stars have left."""
    off = np.clip(np.asarray(stars["color"], float) - mean, -REDDEST, REDDEST)
    stars, off = stars[np.isfinite(off)], off[np.isfinite(off)]
    x, y = np.asarray(stars["x"], float), np.asarray(stars["y"], float)
    flux = np.nan_to_num(forced(raw.model, raw.sigma(), raw.bad, psf, x, y).flux) * slope * off
    half = int(np.ceil(REACH * psf.fwhm))
    line = np.arange(-half, half + 1)
    column, row = np.rint(x).astype(int), np.rint(y).astype(int)
    for first in range(0, len(x), BLOCK):
        part = slice(first, first + BLOCK)
        u, v = (line + (near[part] - at[part])[:, None] for near, at in ((column, x), (row, y)))
        light = psf.grid(u, v, x[part], y[part])[0] * flux[part, None, None]
        rows = np.broadcast_to((row[part, None] + line)[:, :, None], light.shape)
        columns = np.broadcast_to((column[part, None] + line)[:, None, :], light.shape)
        inside = (rows >= 0) & (columns >= 0) & (rows < raw.data.shape[0]) & (columns < raw.data.shape[1])
        at = rows[inside], columns[inside]
        np.subtract.at(raw.data, at, light[inside].astype(np.float32))
        np.add.at(raw.model, at, light[inside].astype(np.float32))


def _of_both(raw: Raw, psf: Psf) -> float:
    """Return by what the error of a PSF's flux exceeds that by the noise of the image that was not convolved."""
    stamp = psf.stamp(psf.shape[1] / 2, psf.shape[0] / 2, int(np.ceil(1.5 * psf.fwhm)))
    smeared = convolve(np.pad(raw.kernel, stamp.shape[0] // 2), stamp)
    few = (slice(None, None, 8),) * 2
    share = np.median(raw.smoothed[few]) / np.median(raw.white[few])
    later = np.sum(smeared * carried(smeared, raw.smoothed_correlation)) / np.sum(stamp**2)
    return float(np.sqrt(factor(stamp, raw.white_correlation) ** 2 + share**2 * later))


def _scaled(raw: Raw, factor: Surface) -> Raw:
    """Multiply what is subtracted by a factor, in place."""
    for tile in tiles(raw.data.shape):
        model, grown = raw.model[tile.own], factor.on(*tile.own)
        raw.data[tile.own] -= (grown - 1) * model
        model *= grown
    return raw
