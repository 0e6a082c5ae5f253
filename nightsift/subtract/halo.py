"""What the subtraction leaves around bright stars, as a function of distance: their wings beyond the kernel's reach."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nightsift.image.stamps import stamps
from nightsift.statistics import SIGMA_PER_MAD

BRIGHT = 80.0  # peak of a star in units of the noise of a pixel, from which on its wings can matter
MOST = 400  # stars
FEWEST = 5  # stars that tell the profile at a distance
INNER, OUTER = 1.5, 7.0  # FWHM: where the profile begins and ends
SIGNIFICANT = 2.0  # sigma below which the profile counts as 0
LARGEST = 4.0  # times its peak in the template a saturated star may be


@dataclass(frozen=True)
class Halo:
    """Residual light around stars.

    Attributes
    ----------
    profile, scatter : 1-D arrays
        Mean residual at each whole pixel of distance relative to the star's peak, and its spread from star to star.
    x, y, light : 1-D arrays
        Pixels of the stars that have been corrected, and their peaks, ADU.
    """

    profile: np.ndarray
    scatter: np.ndarray
    x: np.ndarray
    y: np.ndarray
    light: np.ndarray

    def left(self, rows: slice, columns: slice) -> np.ndarray:
        """Return what may be left of the halos on a part of the image: the spread times the stars' peaks, ADU."""
        shape = rows.stop - rows.start, columns.stop - columns.start
        result, reach = np.zeros(shape, np.float32), len(self.scatter) - 1
        x, y = self.x - columns.start, self.y - rows.start
        near = (x > -reach) & (y > -reach) & (x < shape[1] + reach) & (y < shape[0] + reach)
        spread = _painted(self.scatter)
        for i, j, light in zip(x[near], y[near], self.light[near], strict=True):
            here, there = _boxes(shape, i, j, reach)
            result[here] = np.hypot(result[here], light * spread[there])
        return result


def remove_halos(difference: np.ndarray, model: np.ndarray, framed: np.ndarray, noise: float, usable, fwhm) -> Halo:
    """Measure the mean residual profile of the bright stars, and take it out of the difference, in place.

    Parameters
    ----------
    difference, model : 2-D float32 arrays
        Difference, and what was subtracted, ADU.
    framed : 2-D float32 array
        The template before it was matched, with as many pixels more on every side: for stars beyond the border.
    noise : float
        Typical standard deviation of a pixel, ADU.
    usable : 2-D bool array
        Pixels that count.
    fwhm : float
        Of the PSF, pixels.
    """
    reach = int(np.ceil(OUTER * fwhm))
    x, y, peak = _stars(model, framed, BRIGHT * noise, fwhm)
    none = Halo(np.zeros(reach + 1), np.zeros(reach + 1), x[:0], y[:0], peak[:0])
    if len(x) < FEWEST:
        return none
    distance = _distances(reach)
    rings = np.array([_ring_medians(difference, usable, distance, i, j, reach) for i, j in zip(x, y, strict=True)])
    count = np.bincount(distance.ravel())[: reach + 1]
    relative = rings / peak[:, None]
    error = 1.25 * noise / np.sqrt(np.maximum(count, 1))[None, :] / peak[:, None]
    profile, scatter = _mean_profile(relative, error, fwhm)
    strength = np.where(_inside(x, y, usable), 1.0, _amplitudes(relative, error, profile))
    light = peak * strength
    matters = light * max(np.abs(profile).max(), scatter.max()) > 0.1 * noise
    x, y, light = x[matters], y[matters], light[matters]
    mean = _painted(profile)
    for i, j, value in zip(x, y, light, strict=True):
        here, there = _boxes(difference.shape, i, j, reach)
        difference[here] -= (value * mean[there]).astype(np.float32)
    return Halo(profile, scatter, x, y, light)


def _distances(reach: int) -> np.ndarray:
    v, u = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return np.rint(np.hypot(u, v)).astype(int)


def _painted(profile: np.ndarray) -> np.ndarray:
    """Return a radial profile as a square image, 0 beyond its end."""
    distance = _distances(len(profile) - 1)
    return np.append(profile, 0.0)[np.minimum(distance, len(profile))]


def _inside(x, y, usable) -> np.ndarray:
    """Tell which stars have a centre that counts."""
    inside = (x >= 0) & (y >= 0) & (x < usable.shape[1]) & (y < usable.shape[0])
    return inside & usable[np.where(inside, y, 0), np.where(inside, x, 0)]


def _stars(model, framed, lowest: float, fwhm: float):
    """Pixels of the brightest stars of the template, in the image and beyond it, and their peaks in the model."""
    pad, reach = (framed.shape[0] - model.shape[0]) // 2, int(np.ceil(OUTER * fwhm))
    bright = model > lowest
    if not bright.any():
        return np.zeros(0, int), np.zeros(0, int), np.zeros(0)
    inner = framed[pad : framed.shape[0] - pad, pad : framed.shape[1] - pad]
    # Not lower than any star that counts, whichever of the two has the broader PSF.
    scale = 0.5 * float(np.median(inner[bright] / model[bright]))
    x, y, height = _maxima(framed, scale * lowest, int(np.ceil(fwhm)))
    x, y = x - pad, y - pad
    inside = (x > 0) & (y > 0) & (x < model.shape[1] - 1) & (y < model.shape[0] - 1)
    if not inside.any():
        return x[:0], y[:0], height[:0]
    own = stamps(model, x[inside], y[inside], 1).max(axis=(1, 2)).astype(float)
    peak = height * np.median(own / height[inside])
    peak[inside] = own
    near = (peak > lowest) & (x > -reach) & (y > -reach)
    near &= (x < model.shape[1] + reach) & (y < model.shape[0] + reach)
    return x[near], y[near], peak[near]


def _maxima(image, lowest: float, radius: int):
    """Positions and heights of the brightest maxima, none within `radius` of a higher one."""
    row, column = np.nonzero(image > lowest)
    order = np.argsort(-image[row, column], kind="stable")
    taken = np.zeros(image.shape, bool)
    kept = []
    for k in order:
        i, j = column[k], row[k]
        if not taken[j, i]:
            kept.append(k)
            if len(kept) == MOST:
                break
        # What hangs together with a higher pixel is part of its star.
        taken[max(j - radius, 0) : j + radius + 1, max(i - radius, 0) : i + radius + 1] = True
    kept = np.array(kept, int)
    return column[kept], row[kept], image[row[kept], column[kept]].astype(float)


def _boxes(shape, i, j, reach):
    rows = slice(max(j - reach, 0), min(j + reach + 1, shape[0]))
    columns = slice(max(i - reach, 0), min(i + reach + 1, shape[1]))
    there = (
        slice(rows.start - j + reach, rows.stop - j + reach),
        slice(columns.start - i + reach, columns.stop - i + reach),
    )
    return (rows, columns), there


def _ring_medians(difference, usable, distance, i, j, reach):
    """Median of the difference at each distance less that at the largest ones; NaN where too few pixels count."""
    here, there = _boxes(difference.shape, i, j, reach)
    good = usable[here] & (distance[there] <= reach)
    value, ring = difference[here][good], distance[there][good]
    order = np.lexsort((value, ring))
    value, ring = value[order], ring[order]
    start = np.searchsorted(ring, np.arange(reach + 2))
    number = np.diff(start)
    middle = np.minimum((start[:-1] + start[1:]) // 2, max(len(value) - 1, 0))
    medians = np.where(number >= 6, value[middle] if len(value) else 0.0, np.nan)
    far = medians[-max(3, reach // 6) :]
    return medians - (np.nanmedian(far) if np.isfinite(far).any() else 0.0)


def _mean_profile(relative, error, fwhm):
    """Weighted clipped mean over the stars at each distance, its significant part; and the spread beyond the noise."""
    reach = relative.shape[1] - 1
    profile, scatter = np.zeros(reach + 1), np.zeros(reach + 1)
    for r in range(int(np.ceil(INNER * fwhm)), reach + 1):
        good = np.isfinite(relative[:, r])
        for _ in range(4):
            if good.sum() < FEWEST:
                break
            mean, spread, total = _weighted(relative[good, r], error[good, r])
            off = np.abs(relative[:, r] - mean) / error[:, r]
            kept = good & (off < 4 * max(1.0, SIGMA_PER_MAD * np.median(off[good])))
            if kept.sum() == good.sum():
                break
            good = kept
        if good.sum() >= FEWEST:
            scatter[r] = spread
            # By degrees: a hard limit would let a hundredth of the noise decide.
            profile[r] = mean * np.clip(2 * (abs(mean) / (SIGNIFICANT * total) - 1), 0, 1)
    fade = np.clip((reach - np.arange(reach + 1)) / max(0.2 * reach, 1), 0, 1)
    return profile * fade, scatter * fade


def _weighted(value, error):
    """Weighted mean, spread beyond the errors, and error of the mean."""
    weight = 1 / error**2
    # No star alone decides.
    weight = np.minimum(weight, 3 * np.sort(weight)[-FEWEST])
    weight = weight / weight.sum()
    mean = np.sum(weight * value)
    beyond = np.sum(weight * ((value - mean) ** 2 - error**2))
    # A handful of stars scatters more than expected half of the time.
    chance = np.sqrt(2 * np.sum(weight**2 * error**4))
    spread = np.sqrt(max(beyond - chance, 0))
    return mean, spread, np.hypot(np.sqrt(np.sum(weight**2 * error**2)), spread / np.sqrt(len(value)))


def _amplitudes(relative, error, profile):
    """Fit each star's rings with the profile: 1 for a star as bright as its peak in the template."""
    weight = np.where(np.isfinite(relative), 1 / error**2, 0)
    square = np.sum(weight * profile**2, axis=1)
    fitted = np.nansum(weight * np.nan_to_num(relative) * profile, axis=1) / np.maximum(square, 1e-30)
    return np.clip(np.where(square > 0, fitted, 0), 0, LARGEST)
