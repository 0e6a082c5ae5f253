"""Photometry in an aperture with a local background."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import sep

from nightsift.detect.pixelphase import phase_light
from nightsift.flags import HIDDEN, Flag, Mask
from nightsift.image.correlation import WHITE, disc, factor, summed

ANNULUS_PIXELS = 400  # of an annulus that are looked at: they tell its mean to 1/20 of the noise of a pixel
MIN_ANNULUS_PIXELS = 20  # of an annulus, below which it tells no background


@dataclass(frozen=True)
class Aperture:
    """Radii of the photometric aperture and its background annulus, and the stars' FWHM where it is known; pixels."""

    radius: float
    inner: float
    outer: float
    fwhm: float | None = None


def measure(image, noise, mask, x, y, gain, aperture: Aperture, lit=None, correlation=WHITE) -> dict[str, np.ndarray]:
    """Aperture photometry with a local background.

    Parameters
    ----------
    image, noise : 2-D float32 arrays
        Background-subtracted image and standard deviation of its sky pixels, ADU.
    mask : 2-D integer array
        `nightsift.flags.Mask` bits.
    x, y : 1-D arrays
        Positions, pixels.
    gain : float or None
        e-/ADU.
    aperture : Aperture
    lit : 2-D bool array, optional
        Pixels with the light of objects, left out of the annulus.
    correlation : 2-D array
        Autocorrelation of the noise: see `nightsift.image.correlation`.

    Returns
    -------
    dict
        ``flux, fluxerr, bgerr, background, flags``; the variance of the flux is that of the sky in the aperture, of the
        local background times the area, and of the object's own photons (flux / gain). Where the FWHM is known, the
        flux is corrected by `nightsift.detect.pixelphase.phase_light`.
    """
    hidden = (mask & int(HIDDEN)) != 0
    saturated = (mask & int(Mask.SATURATED)) != 0
    total, sky_error = circle_sums(
        np.where(hidden, np.float32(0), image), x, y, aperture.radius, np.where(hidden, 0, noise)
    )
    area = circle_sums(~hidden, x, y, aperture.radius)[0]
    unusable = hidden | saturated
    if lit is not None:
        unusable |= lit
    sky_error = sky_error * factor(disc(aperture.radius), correlation)
    level, level_error, count = annulus(image, unusable, x, y, aperture)
    # Of pixels far apart, a mean is as good as in white noise.
    fraction = np.minimum(count / (np.pi * (aperture.outer**2 - aperture.inner**2)), 1)
    level_error = level_error * np.sqrt(np.maximum(1 + fraction * (summed(correlation) - 1), 0.1))
    few = count < MIN_ANNULUS_PIXELS
    level, level_error = np.where(few, 0.0, level), np.where(few, 0.0, level_error)
    flux = total - level * area
    if aperture.fwhm and len(flux):
        flux = flux / phase_light(x, y, aperture.radius, aperture.fwhm)
    bgerr = np.hypot(sky_error, level_error * area)
    fluxerr = np.sqrt(bgerr**2 + (np.maximum(flux, 0) / gain if gain else 0.0))
    masked, overflow = (circle_sums(plane, x, y, aperture.radius)[0] for plane in (mask != 0, saturated))
    inside = (
        (x - aperture.radius > -0.5)
        & (y - aperture.radius > -0.5)
        & (x + aperture.radius < image.shape[1] - 0.5)
        & (y + aperture.radius < image.shape[0] - 0.5)
    )
    flags = np.zeros(len(flux), int)
    flags[few] |= int(Flag.ANNULUS_BAD)
    flags[masked > 0] |= int(Flag.APERTURE_MASKED)
    flags[overflow > 0] |= int(Flag.SATURATED)
    flags[~inside] |= int(Flag.APERTURE_INCOMPLETE)
    return {"flux": flux, "fluxerr": fluxerr, "bgerr": bgerr, "background": level, "flags": flags}


def circle_sums(plane, x, y, radius, error=None):
    """Return sums within circles, pixels on the rim by the fraction within, and their standard deviation."""
    return sep.sum_circle(plane, x, y, radius, err=error, subpix=0)[:2]


def annulus(image, unusable, x, y, aperture: Aperture):
    """Return the clipped mean of each annulus, its standard deviation, and the number of pixels it rests on.

    Of large annuli an even subset of the pixels is used. Pixels beyond 3 sigma of the median are clipped three times.
    """
    half = int(np.ceil(aperture.outer))
    dy, dx = np.mgrid[-half : half + 1, -half : half + 1]
    ring = (np.hypot(dx, dy) >= aperture.inner) & (np.hypot(dx, dy) <= aperture.outer)
    dx, dy = dx[ring], dy[ring]
    if len(dx) > ANNULUS_PIXELS:
        chosen = np.random.default_rng(0).permutation(len(dx))[:ANNULUS_PIXELS]
        dx, dy = dx[chosen], dy[chosen]
    level, error, count = (np.zeros(len(x)) for _ in range(3))
    for first in range(0, len(x), 4096):
        part = slice(first, first + 4096)
        column = np.rint(x[part]).astype(int)[:, None] + dx
        row = np.rint(y[part]).astype(int)[:, None] + dy
        usable = (column >= 0) & (row >= 0) & (column < image.shape[1]) & (row < image.shape[0])
        column, row = np.where(usable, column, 0), np.where(usable, row, 0)
        usable &= ~unusable[row, column]
        level[part], error[part], count[part] = _clipped_mean(image[row, column], usable)
    return level, error, count


def _clipped_mean(values, usable):
    ordered = np.sort(np.where(usable, values, np.inf), axis=1)
    number = usable.sum(axis=1)
    low = np.zeros(len(values), int)
    high = number.copy()
    rank = np.arange(ordered.shape[1])
    for _ in range(3):
        middle = _pick(ordered, (low + high - 1) / 2)
        spread = (_pick(ordered, low + 0.8413 * (high - low - 1)) - _pick(ordered, low + 0.1587 * (high - low - 1))) / 2
        with np.errstate(invalid="ignore"):
            inside = (np.abs(ordered - middle[:, None]) <= 3 * spread[:, None]) & (rank < number[:, None])
        low, high = np.where(inside.any(axis=1), inside.argmax(axis=1), 0), inside.sum(axis=1)
        high = low + high
    count = np.maximum(high - low, 1)
    inside = (rank >= low[:, None]) & (rank < high[:, None])
    mean = np.sum(ordered, axis=1, where=inside) / count
    deviation = np.sqrt(np.sum((ordered - mean[:, None]) ** 2, axis=1, where=inside) / count)
    return np.where(high > low, mean, 0.0), deviation / np.sqrt(count), high - low


def _pick(ordered, rank):
    """Return the value at a fractional rank of each sorted row; 0 for rows without values."""
    index = np.clip(np.rint(rank).astype(int), 0, ordered.shape[1] - 1)
    value = ordered[np.arange(len(ordered)), index]
    return np.where(np.isfinite(value), value, 0.0)
