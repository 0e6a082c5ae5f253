"""What is subtracted, on the flux scale of the stars: as a function of position and of colour."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy.table import Table

from nightsift.errors import Rejected
from nightsift.image.convolve import convolve
from nightsift.image.correlation import carried, factor
from nightsift.image.polynomial import Surface, design
from nightsift.image.stamps import spread
from nightsift.image.tiles import tiles
from nightsift.psf.forced import forced
from nightsift.psf.model import Psf
from nightsift.subtract.fluxscale import scatter_beyond
from nightsift.subtract.images import RawDifference
from nightsift.subtract.stars import MIN_STAMPS, isolated

MOST = 400  # stars that the flux scale rests on
MIN_SCATTER = 0.003  # no two images agree better on a star's flux
MIN_COLORS = 15  # stars of known colour that tell how what is left goes with it
REDDEST = 2.0  # mag from the mean, beyond which the slope of colours near it tells nothing
SIGNIFICANT = 2.0  # standard deviations of the slope below which it counts as 0
NEEDED = ("x", "y", "flux", "fwhm", "color")
REACH = 3.0  # FWHM of an object that its light reaches
WIDEST = 6.0  # times as wide as a star


@dataclass(frozen=True)
class Ratio:
    """Flux of the stars in the difference over that in what was subtracted.

    Attributes
    ----------
    median, scatter : float
        The scatter is that beyond the noise, after position and colour.
    color_slope, color_slope_err : float
        Change with the colour, per mag: 0 and NaN where it is not known.
    color : float
        At which nothing is left.
    """

    median: float
    scatter: float
    color_slope: float = 0.0
    color_slope_err: float = np.nan
    color: float = 0.0


def rescaled(raw: RawDifference, stars: Table, psf: Psf, gain: float | None) -> tuple[RawDifference, Ratio]:
    """Scale what is subtracted so that stars vanish in the mean, as a function of position.

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
    with its colour: that part is fitted, for `recolored`.
    """
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
    return raw, Ratio(float(np.median(ratio[used])), max(scatter, MIN_SCATTER), slope, slope_err, color_mean)


def _color(stars: Table, good) -> tuple[np.ndarray, float]:
    """Return the stars' colours less the median of the good ones, and that; 0 where unknown, or too few are known."""
    color = np.asarray(stars["color"], float) if "color" in stars.colnames else np.full(len(stars), np.nan)
    known = np.isfinite(color)
    if np.count_nonzero(known & good) < MIN_COLORS:
        return np.zeros(len(stars)), 0.0
    mean = float(np.median(color[known & good]))
    return np.where(known, np.clip(color - mean, -REDDEST, REDDEST), 0.0), mean


def recolored(raw: RawDifference, objects: Table, ratio: Ratio) -> None:
    """Take out of a difference, in place, what the colours of stars and galaxies have left.

    Parameters
    ----------
    raw : Raw
    objects : Table
        ``x, y, flux, fwhm`` and ``color`` (mag, NaN where it is not known).
    ratio : Ratio

    Notes
    -----
    Each pixel of what was subtracted has the mean colour of the objects about it, by the light that circular profiles
    of their widths have there.
    """
    if not ratio.color_slope:
        return
    shape = raw.data.shape
    x, y, flux, fwhm, color = (np.ma.filled(objects[name], np.nan).astype(float) for name in NEEDED)
    off = np.nan_to_num(np.clip(color - ratio.color, -REDDEST, REDDEST))
    good = np.isfinite(x + y + flux) & (flux > 0)
    # What has been measured with its neighbours in one is not as wide as that.
    fwhm = np.clip(np.where(np.isfinite(fwhm), fwhm, raw.fwhm), raw.fwhm / 2, WIDEST * raw.fwhm)
    light, red = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for i in np.flatnonzero(good):
        half = int(np.ceil(REACH * fwhm[i]))
        rows, columns = (_within(at, half, side) for at, side in ((y[i], shape[0]), (x[i], shape[1])))
        square = (np.arange(rows.start, rows.stop) - y[i])[:, None] ** 2
        square = square + (np.arange(columns.start, columns.stop) - x[i]) ** 2
        # Moffat's profile of exponent 3.
        profile = flux[i] / fwhm[i] ** 2 * (1 + square * (4 * (2 ** (1 / 3) - 1) / fwhm[i] ** 2)) ** -3
        light[rows, columns] += profile
        red[rows, columns] += off[i] * profile
    np.divide(red, light, out=red, where=light > 0)
    red *= ratio.color_slope
    red *= raw.model
    raw.data[:] -= red
    raw.model[:] += red


def _within(at: float, half: int, side: int) -> slice:
    return slice(max(int(np.rint(at)) - half, 0), max(min(int(np.rint(at)) + half + 1, side), 0))


def _of_both(raw: RawDifference, psf: Psf) -> float:
    """Return by what the error of a PSF's flux exceeds that by the noise of the image that was not convolved."""
    stamp = psf.stamp(psf.shape[1] / 2, psf.shape[0] / 2, int(np.ceil(1.5 * psf.fwhm)))
    smeared = convolve(np.pad(raw.kernel, stamp.shape[0] // 2), stamp)
    few = (slice(None, None, 8),) * 2
    share = np.median(raw.smoothed[few]) / np.median(raw.white[few])
    later = np.sum(smeared * carried(smeared, raw.smoothed_correlation)) / np.sum(stamp**2)
    return float(np.sqrt(factor(stamp, raw.white_correlation) ** 2 + share**2 * later))


def _scaled(raw: RawDifference, factor: Surface) -> RawDifference:
    """Multiply what is subtracted by a factor, in place."""
    for tile in tiles(raw.data.shape):
        model, grown = raw.model[tile.own], factor.on(*tile.own)
        raw.data[tile.own] -= (grown - 1) * model
        model *= grown
    return raw
