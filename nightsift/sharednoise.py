"""How much of an image's own noise its template holds: a stack that the image went into hides what is new in it."""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls

from nightsift.correlation import ENOUGH, empty
from nightsift.layers import Layer, core

REACH = 5  # pixels, lags that are looked at
NEAR = 1.5  # pixels, lags on which interpolation leaves shared noise
LEAST_EMPTY = 0.2  # share of the pixels that has to be empty sky in both
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
    step = max(1, int(core(image.data).size / ENOUGH))
    rows = slice(None, max(core(image.data).shape[0] // step, 4 * REACH))
    planes = [[core(part)[rows] for part in (one.data, one.bad)] for one in (image, template)]
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
    """Return the covariance on nearby lags that light as wide as `width` does not explain, in units of our variance."""
    ours, theirs = (np.where(good, one - one[good].mean(), 0) for one in (ours, theirs))
    dy, dx = (line.ravel() for line in np.mgrid[-REACH : REACH + 1, -REACH : REACH + 1])
    lag = np.hypot(dy, dx)
    chosen = (lag <= NEAR) | (dy % 2 & dx % 2 == 1)
    lag = lag[chosen]
    found = np.array([_covariance(ours, theirs, good, *at) for at in zip(dy[chosen], dx[chosen], strict=True)])
    light = np.exp(-np.square(lag) * 4 * np.log(2) / width**2)
    near, far = lag <= NEAR, lag > NEAR
    columns = np.stack([light[far], np.ones(far.sum()), -np.ones(far.sum())], axis=1)
    amplitude, up, down = nnls(columns, found[far])[0]
    excess = float(np.sum((found - amplitude * light - up + down)[near]))
    variance = float(np.mean(ours[good] ** 2))
    scatter = np.sqrt(near.sum() * variance * np.mean(theirs[good] ** 2) / good.sum())
    return excess / variance if excess > SURE * scatter else 0.0


def _covariance(ours, theirs, good, dy: int, dx: int) -> float:
    here, there = (
        np.s_[max(-way * dy, 0) : len(good) + min(-way * dy, 0), max(-way * dx, 0) : good.shape[1] + min(-way * dx, 0)]
        for way in (1, -1)
    )
    pairs = np.count_nonzero(good[here] & good[there])
    return float(np.vdot(ours[here], theirs[there])) / max(pairs, 1)
