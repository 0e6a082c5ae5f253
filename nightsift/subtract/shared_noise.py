"""How much of an image's own noise its template holds: a stack that the image went into hides what is new in it."""

from __future__ import annotations

import numpy as np

from nightsift.image.correlation import ENOUGH, empty
from nightsift.image.padding import unpad
from nightsift.subtract.images import Layer

FEWEST = 20  # rows
LEAST_EMPTY = 0.4  # share of the pixels that has to be empty sky in both
FINEST = 1.8  # pixels, FWHM below which the light of faint stars looks like noise
SURE = 5.0  # standard deviations


def shared_noise(image: Layer, template: Layer, ratio: float) -> float:
    """Return the share of the image's light that is in the template a second time, told by the noise of empty sky.

    Parameters
    ----------
    image, template : Layer
        On the same pixels.
    ratio : float
        Flux of a star in the image over that in the template.

    Returns
    -------
    float
        0 where the two are independent, 1 / N for a mean of N images with this one among them; NaN where it cannot be
        told: under stars everywhere, or stars as narrow as pixels.

    Notes
    -----
    Sources too faint to be seen are in both, too. Over some pixels their light is alike as the two PSF are; what the
    product of the same and the next pixels has beyond that is noise.
    """
    if min(image.fwhm, template.fwhm) < FINEST:
        return np.nan
    step = max(1, int(unpad(image.data).size / ENOUGH))
    rows = slice(None, max(unpad(image.data).shape[0] // step, FEWEST))
    planes = [[unpad(part)[rows] for part in (one.data, one.bad)] for one in (image, template)]
    values, good = [], np.ones(planes[0][0].shape, bool)
    for (data, bad), fwhm in zip(planes, (image.fwhm, template.fwhm), strict=True):
        low, high = np.percentile(data[~bad][::3], [15.865, 50]) if not bad.all() else (0.0, 1.0)
        sigma = np.full((1, 1), max(high - low, 1e-30), np.float32)
        value, dark = empty(data, sigma, bad, fwhm)
        values.append((value, float(sigma[0, 0])))
        good &= dark
    if good.mean() < LEAST_EMPTY:
        return np.nan
    (ours, sigma), (theirs, other) = values
    return _excess(ours, theirs, good, np.hypot(image.fwhm, template.fwhm)) * ratio * other / sigma


def _excess(ours, theirs, good, width: float) -> float:
    """Return the covariance of the same pixels that light as wide as `width` does not explain, over our variance."""
    ours, theirs = (np.where(good, one - one[good].mean(), 0) for one in (ours, theirs))
    same = _covariance(ours, theirs, good, 0, 0)
    first, second = (
        np.mean([_covariance(ours, theirs, good, *at) for at in ((0, lag), (lag, 0), (0, -lag), (-lag, 0))])
        for lag in (1, 2)
    )
    # From the lags around, by a Gaussian and by a parabola: no crowd may pass for noise.
    light = max(first * np.exp(4 * np.log(2) / width**2), (4 * first - second) / 3)
    excess, variance = float(same - light), float(np.mean(ours[good] ** 2))
    scatter = np.sqrt(1.5 * variance * np.mean(theirs[good] ** 2) / good.sum())
    return excess / variance if excess > SURE * scatter else 0.0


def _covariance(ours, theirs, good, dy: int, dx: int) -> float:
    here, there = (
        np.s_[max(-way * dy, 0) : len(good) + min(-way * dy, 0), max(-way * dx, 0) : good.shape[1] + min(-way * dx, 0)]
        for way in (1, -1)
    )
    pairs = np.count_nonzero(good[here] & good[there])
    return float(np.vdot(ours[here], theirs[there])) / max(pairs, 1)
