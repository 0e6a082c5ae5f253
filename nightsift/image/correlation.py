"""How the noise of neighbouring pixels is correlated, and by how much that changes the errors of sums over them.

An autocorrelation is a small square array with the lag 0 in the middle; `WHITE`, a single 1, where there is none. It
counts in units of the variance that goes with it, so that its sum is the variance of a wide sum over white noise's.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.optimize import nnls

from nightsift.statistics import FWHM_PER_SIGMA

WHITE = np.ones((1, 1))
REACH = 6  # pixels: no resampling carries noise further
LEAST = 0.04  # excess of the nearest neighbours below which noise passes for white
SURE = 5.0  # standard deviations of that excess which have to be there, too
STEEPEST = 2.5  # fall of unresolved light from 1 to 2 pixels; sharper than that it could not be told from noise
SKY, OUTLYING = 3.5, 4.0  # standard deviations of smoothed and of single pixels beyond which they are no sky
EMPTY = 0.5  # fraction of the good pixels that has to be empty sky
FAR = 3.0  # FWHM, lag at which what is left of correlation is the background's
ENOUGH = 400_000  # pixels that tell it to 0.2 per cent
STRIPE = 64  # rows that are taken together
WIDTHS = (0.4, 0.55, 0.7, 0.9, 1.2, 1.6, 2.2)  # pixels, standard deviations of smoothing that noise may have undergone


class _Sky:
    """Sky pixels of an image in units of their noise, flattened, with a margin in which nothing counts."""

    def __init__(self, value: np.ndarray, usable: np.ndarray, margin: int):
        frame = ((0, margin), (0, margin))
        self.step = value.shape[1] + margin
        self.good = np.pad(usable, frame).astype(np.float32).ravel()
        mean = value[usable].mean() if usable.any() else 0.0
        self.value = np.pad(np.where(usable, value - mean, 0), frame).astype(np.float32).ravel()
        self.variance = float(self.value @ self.value) / max(float(self.good.sum(dtype=float)), 1.0)

    def at(self, dx: int, dy: int) -> tuple[float, float]:
        """Return the correlation of pixels that far apart, and the number of pairs."""
        lag = dy * self.step + dx
        end = len(self.value) - lag
        pairs = float(self.good[:end] @ self.good[lag:])
        if not pairs or not self.variance:
            return 0.0, 0.0
        return float(self.value[:end] @ self.value[lag:]) / pairs / self.variance, pairs


def noise_correlation(image, noise, bad, fwhm: float) -> np.ndarray:
    """Measure the autocorrelation of an image's noise on its empty sky.

    Parameters
    ----------
    image, noise : 2-D arrays
        Background-subtracted image and standard deviation of its sky pixels.
    bad : 2-D bool array
        Pixels to leave out.
    fwhm : float
        Of the stars, pixels.

    Returns
    -------
    2-D array
        `WHITE` unless neighbours are plainly alike.

    Notes
    -----
    The light of sources too faint to be seen is alike in neighbouring pixels, too, but falls with distance as the PSF
    correlated with itself does: what the nearest neighbours have beyond that is noise that was resampled or smoothed.
    That light is fitted beside smoothed noise and taken off, and so is what is alike at all distances.
    """
    step = max(1, int(image.size / ENOUGH))
    if step > 1:
        rows = np.concatenate(
            [np.arange(top, min(top + STRIPE, image.shape[0])) for top in range(0, image.shape[0], step * STRIPE)]
        )
        image, noise, bad = image[rows], noise[rows], bad[rows]
    if min(image.shape) < 4 * REACH:
        return WHITE
    value, usable = empty(image, noise, bad, fwhm)
    # Where light is everywhere, it is what is alike.
    if usable.mean() < EMPTY * np.mean(~bad):
        return WHITE
    sky = _Sky(value, usable, max(REACH, int(np.ceil(FAR * fwhm))))
    far = max(REACH + 1, int(np.ceil(FAR * fwhm)))
    around = ((far, 0), (0, far), (far, 1), (1, far), (far - 2, far - 2), (2 - far, far - 2), (far, 2), (2, far))
    level = float(np.mean([sky.at(*lag)[0] for lag in around]))
    nearest = [(sky.at(*lag), sky.at(2 * lag[0], 2 * lag[1])) for lag in ((1, 0), (0, 1))]
    if min(pair[0][1] for pair in nearest) < 1000:
        return WHITE
    fall = min(_light(1.0, fwhm) / _light(2.0, fwhm), STEEPEST)
    # What falls below 0 is what the background has taken of light too faint to be seen.
    excess = [one - level - fall * max(two - level, 0) for (one, _), (two, _) in nearest]
    lowest = min(one for (one, _), _ in nearest)
    limit = max(LEAST, SURE * np.sqrt((1 + fall**2) / nearest[0][0][1]))
    if max(excess) < limit and lowest > -limit:
        return WHITE
    return _measured(sky, level, fwhm)


def empty(image, noise, bad, fwhm: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the image in units of its noise, and which pixels are empty sky."""
    usable = ~bad & (noise > 0)
    value = np.divide(image, noise, out=np.zeros(image.shape, np.float32), where=usable)
    usable &= np.abs(value) < OUTLYING
    side = 2 * int(np.rint(fwhm / 2)) + 1
    smooth = ndimage.uniform_filter(np.clip(value, -OUTLYING, 3 * OUTLYING), side)
    low, middle = np.percentile(smooth[::2, ::2][usable[::2, ::2]], [15.865, 50]) if usable.any() else (0.0, 0.0)
    lit = smooth > middle + SKY * (middle - low)
    return value, usable & ~ndimage.maximum_filter(lit, 2 * side + 1)


def _light(distance, fwhm: float):
    """Return the correlation of a Gaussian PSF with itself."""
    return np.exp(-np.square(distance) / (4 * (fwhm / FWHM_PER_SIGMA) ** 2))


def _measured(sky: _Sky, level: float, fwhm: float) -> np.ndarray:
    side = 2 * REACH + 1
    result = np.zeros((side, side))
    for dy in range(REACH + 1):
        for dx in range(-REACH, REACH + 1):
            if dy or dx >= 0:
                result[REACH + dy, REACH + dx] = result[REACH - dy, REACH - dx] = sky.at(dx, dy)[0] - level
    lag = np.hypot(*np.mgrid[-REACH : REACH + 1, -REACH : REACH + 1])
    others = lag > 0
    light = _light(lag, fwhm)
    smoothed = [np.exp(-np.square(lag) / (4 * width**2)) for width in WIDTHS if FWHM_PER_SIGMA * width < 0.9 * fwhm]
    columns = np.stack([light[others], *(part[others] for part in smoothed)], axis=1)
    result -= nnls(columns, np.maximum(result[others], 0))[0][0] * light
    result[lag > REACH] = 0
    result[REACH, REACH] = 1.0
    return result


def factor(weights, correlation) -> float:
    """Return by what white noise underrates the error of a sum with weights (2-D array) over correlated pixels."""
    if np.size(correlation) == 1:
        return float(np.sqrt(np.ravel(correlation)[0]))
    weights = np.asarray(weights, float)
    return float(np.sqrt(max(np.sum(weights * carried(weights, correlation)), 0) / np.sum(weights**2)))


def carried(weights, correlation) -> np.ndarray:
    """Return weights convolved with an autocorrelation, on their own pixels."""
    if np.size(correlation) == 1:
        return np.asarray(weights) * np.ravel(correlation)[0]
    from scipy.signal import fftconvolve  # takes a quarter of a second, which white noise need not wait for

    return fftconvolve(weights, correlation, mode="same")


def summed(correlation) -> float:
    """Return the variance of a wide sum, over that of white noise; never less than a tenth."""
    return max(float(np.sum(correlation)), 0.1)


def disc(radius: float) -> np.ndarray:
    """Return a circular aperture, pixels on its rim by the fraction within."""
    half = int(np.ceil(radius)) + 1
    fine = (np.arange(5 * (2 * half + 1)) + 0.5) / 5 - half - 0.5
    inside = np.hypot(fine, fine[:, None]) < radius
    return inside.reshape(2 * half + 1, 5, 2 * half + 1, 5).mean(axis=(1, 3))


def moved(correlation, matrix) -> np.ndarray:
    """Return an autocorrelation on other pixels.

    Parameters
    ----------
    correlation : 2-D array
    matrix : (2, 2) array
        Turns lags (x, y) of the old pixels into those of the new ones.

    Returns
    -------
    2-D array
        With the same sum: each lag shared out among the four new ones that are nearest.
    """
    half = correlation.shape[0] // 2
    dy, dx = (line.ravel() for line in np.mgrid[-half : half + 1, -half : half + 1])
    x, y = np.asarray(matrix) @ np.stack([dx, dy])
    reach = int(np.ceil(max(np.abs(x).max(), np.abs(y).max()))) + 1
    result = np.zeros((2 * reach + 1, 2 * reach + 1))
    left, low = np.floor(x).astype(int), np.floor(y).astype(int)
    for column, across in ((left, left + 1 - x), (left + 1, x - left)):
        for row, up in ((low, low + 1 - y), (low + 1, y - low)):
            np.add.at(result, (row + reach, column + reach), across * up * correlation.ravel())
    return result
