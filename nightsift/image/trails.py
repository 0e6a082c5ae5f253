"""Straight trails of satellites, aeroplanes and bleeding columns in an S/N map."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from nightsift.image.background import background
from nightsift.statistics import FWHM_PER_SIGMA, SIGMA_PER_MAD, balanced

BIN = 4  # pixels of the S/N map in one of the search, which looks for lines and not for their profile
STRIP = 32  # binned rows at a time
BRIGHT = 2.0  # of a binned pixel, in units of the map's own noise, to count
ANGLES = 180
FEWEST = 24  # binned pixels that a line must have
SIGNIFICANT = 8.0  # sigma above what chance puts on a line
LONGEST_GAP = 0.25  # of the length of a trail
BLOCK = 16  # pixels of a piece of the ridge
FAINTEST = 0.7  # median S/N of a piece that belongs to a trail
FILLED = 0.6  # fraction of such pieces
STEEPEST = 4.0  # upper quartile of the pieces' S/N, relative to their median
KNOT = 1 / 3  # FWHM between the knots of a trail's profile
LONG, SHORTEST = 20.0, 60.0  # FWHM, and pixels, over which the profile may change
TUKEY = 5.0  # sigma beyond which a pixel is no part of a trail
ROUNDS = 6
PARALLEL = np.radians(6.0)
FAINT = 0.01  # of its ridge, below which it is not told from noise


@dataclass(frozen=True)
class Trail:
    """A line cos(angle) x + sin(angle) y = offset in pixels: its half width, sign of light, and median S/N."""

    angle: float
    offset: float
    width: float
    sign: int
    height: float = 0.0

    def distance(self, x, y) -> np.ndarray:
        """Return the distance of positions from the ridge, pixels."""
        return np.abs(np.cos(self.angle) * np.asarray(x) + np.sin(self.angle) * np.asarray(y) - self.offset)


def beside_steps(trails: list[Trail], shape: tuple[int, int], reach: float) -> list[bool]:
    """Tell which trails are a side of a step: a background that follows it bends up on one side and down on the other.

    Parameters
    ----------
    trails : list of Trail
    shape : (ny, nx)
    reach : float
        How far from a step the background is wrong, pixels.
    """
    return [any(_opposite(one, other, shape, reach) for other in trails) for one in trails]


def _opposite(one: Trail, other: Trail, shape, reach: float) -> bool:
    """Tell whether two trails have other signs, run alike, and lie as near as the two sides of a step."""
    turn = abs((one.angle - other.angle + np.pi / 2) % np.pi - np.pi / 2)
    if one.sign == other.sign or turn > PARALLEL:
        return False
    # where the first is nearest to the middle of the image
    x, y = (shape[1] - 1) / 2, (shape[0] - 1) / 2
    away = np.cos(one.angle) * x + np.sin(one.angle) * y - one.offset
    return bool(other.distance(x - away * np.cos(one.angle), y - away * np.sin(one.angle)) < reach)


def find_trails(snr: np.ndarray, usable: np.ndarray, fwhm: float, most: int = 6) -> list[Trail]:
    """Find the lines along which an S/N map is bright.

    Parameters
    ----------
    snr : 2-D float32 array
        S/N of point sources.
    usable : 2-D bool array
        Pixels that count.
    fwhm : float
        Of a point source, pixels: the narrowest trail.
    most : int
        Lines that are looked for, the brightest first.

    Notes
    -----
    Hough transform of the bright pixels of the binned map (Duda & Hart 1972, Comm. ACM 15, 11); the number on a line
    is held against what chance gives a line of that length, and its pixels have to be spread along it.
    """
    binned = _binned(snr, usable)
    scale = SIGMA_PER_MAD * np.median(np.abs(binned[binned != 0])) if (binned != 0).any() else 0.0
    if not scale > 0:
        return []
    trails = []
    for sign in (1, -1):
        bright = sign * binned > BRIGHT * scale
        row, column = np.nonzero(bright)
        for _ in range(most):
            line = _best_line(column, row, bright.shape) if len(row) >= FEWEST else None
            if line is None:
                break
            trail = _refined(snr, usable, sign, *line, fwhm)
            filled, height = _ridge(snr, usable, trail)
            if filled > FILLED:
                trails.append(replace(trail, height=height))
            on = trail.distance(BIN * column + (BIN - 1) / 2, BIN * row + (BIN - 1) / 2) < trail.width + BIN
            line_x, line_y = BIN * column + (BIN - 1) / 2, BIN * row + (BIN - 1) / 2
            on |= np.abs(np.cos(line[0]) * line_x + np.sin(line[0]) * line_y - line[1]) < 1.5 * BIN
            row, column = row[~on], column[~on]
    return trails


def _ridge(snr, usable, trail: Trail) -> tuple[float, float]:
    """Return the fraction of the ridge that is bright, and its median S/N.

    Sources that happen to lie on a line leave dark pieces, and the light of a long galaxy falls off along it: both are
    none.
    """
    reach = int(np.hypot(*snr.shape)) + 1
    along = np.arange(-reach, reach)
    column = np.rint(np.cos(trail.angle) * trail.offset - np.sin(trail.angle) * along).astype(int)
    row = np.rint(np.sin(trail.angle) * trail.offset + np.cos(trail.angle) * along).astype(int)
    inside = (column >= 0) & (row >= 0) & (column < snr.shape[1]) & (row < snr.shape[0])
    column, row = column[inside], row[inside]
    value = np.where(usable[row, column], trail.sign * snr[row, column], np.nan)
    value = value[np.isfinite(value)]
    blocks = value[: len(value) // BLOCK * BLOCK].reshape(-1, BLOCK)
    if len(blocks) < 4:
        return 0.0, 0.0
    height = np.median(blocks, axis=1)
    if np.percentile(height, 75) > STEEPEST * max(np.median(height), FAINTEST):
        return 0.0, 0.0
    return float(np.mean(height > FAINTEST)), float(np.median(value))


def _binned(snr, usable):
    """Average bins of a map without its extremes, a strip at a time."""
    rows, columns = (side // BIN for side in snr.shape)
    result = np.zeros((rows, columns), np.float32)
    for first in range(0, rows, STRIP):
        own = np.s_[first * BIN : min(first + STRIP, rows) * BIN, : columns * BIN]
        strip = np.where(usable[own], np.clip(snr[own], -6, 6), 0)
        result[first : first + STRIP] = strip.reshape(-1, BIN, columns, BIN).mean(axis=(1, 3))
    return result


def _best_line(column, row, shape) -> tuple[float, float] | None:
    """Return angle and offset (pixels) of the most significant line, or None."""
    angle = np.arange(ANGLES) * (np.pi / ANGLES)
    x, y = column - (shape[1] - 1) / 2, row - (shape[0] - 1) / 2
    reach = int(np.ceil(np.hypot(*shape) / 2)) + 2

    def place(one):
        return np.rint(np.cos(one) * x + np.sin(one) * y).astype(int) + reach

    count = np.stack([np.bincount(place(one), minlength=2 * reach + 1) for one in angle]).astype(float)
    length = _lengths(angle, reach, shape)
    expected = len(column) / (shape[0] * shape[1]) * length
    score = np.where(length > FEWEST, (count - expected) / np.sqrt(np.maximum(expected, 4.0)), 0)
    best = np.unravel_index(np.argmax(score), score.shape)
    if score[best] < SIGNIFICANT or count[best] < FEWEST:
        return None
    on = np.abs(place(angle[best[0]]) - best[1]) <= 1
    along = np.sort(-np.sin(angle[best[0]]) * x[on] + np.cos(angle[best[0]]) * y[on])
    low, high = np.percentile(along, [5, 95])
    if high - low < FEWEST or np.diff(along).max() > max(LONGEST_GAP * length[best], FEWEST):
        return None
    # Members of a cluster fill a piece of the line; those of a trail fill most of its own length.
    if len(np.unique(np.rint(along))) < 0.4 * (high - low):
        return None
    centre = np.cos(angle[best[0]]) * (shape[1] - 1) / 2 + np.sin(angle[best[0]]) * (shape[0] - 1) / 2
    offset = (best[1] - reach + centre) * BIN
    middle = (BIN - 1) / 2 * (np.cos(angle[best[0]]) + np.sin(angle[best[0]]))
    return angle[best[0]], offset + middle


def _lengths(angle, reach, shape):
    """Length of the part of each line (angle, offset) that lies in the image, binned pixels."""
    offset = np.arange(-reach, reach + 1)
    half = (shape[1] - 1) / 2, (shape[0] - 1) / 2
    low, high = np.full((len(angle), len(offset)), -np.inf), np.full((len(angle), len(offset)), np.inf)
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    for start, step, limit in ((cos * offset, -sin, half[0]), (sin * offset, cos, half[1])):
        with np.errstate(divide="ignore", invalid="ignore"):
            one, other = (-limit - start) / step, (limit - start) / step
        level = np.abs(step) < 1e-9
        inside = np.abs(start) <= limit
        first = np.where(level, np.where(inside, -np.inf, np.inf), np.minimum(one, other))
        last = np.where(level, np.where(inside, np.inf, -np.inf), np.maximum(one, other))
        low, high = np.maximum(low, first), np.minimum(high, last)
    return np.maximum(high - low, 0)


def _refined(snr, usable, sign: int, angle: float, offset: float, fwhm: float) -> Trail:
    """Improve a line with the unbinned map: angle and offset by the brightest ridge, width by its profile."""
    row, column = np.nonzero(usable & (sign * snr > 1.5))
    near = np.abs(np.cos(angle) * column + np.sin(angle) * row - offset) < 3 * BIN + 2 * fwhm
    row, column = row[near], column[near]
    value = np.minimum(sign * snr[row, column], 6.0)
    for reach in (2 * BIN + fwhm, BIN + fwhm, fwhm, fwhm):
        off = np.cos(angle) * column + np.sin(angle) * row - offset
        along = -np.sin(angle) * column + np.cos(angle) * row
        weight = value * (np.abs(off) < reach)
        if weight.sum() <= 0:
            break
        middle = np.average(along, weights=weight)
        slope = np.sum(weight * off * (along - middle)) / np.maximum(np.sum(weight * (along - middle) ** 2), 1e-9)
        # A line whose distance grows along itself is turned by that slope about its own middle.
        shift = np.average(off, weights=weight)
        x = np.cos(angle) * (offset + shift) - np.sin(angle) * middle
        y = np.sin(angle) * (offset + shift) + np.cos(angle) * middle
        angle = angle - np.arctan(slope)
        offset = np.cos(angle) * x + np.sin(angle) * y
    off = np.abs(np.cos(angle) * column + np.sin(angle) * row - offset)
    bins = np.arange(0, 3 * BIN + 2 * fwhm, 1.0)
    profile, _ = np.histogram(off, bins, weights=value)
    floor = np.median(profile[-max(len(profile) // 3, 2) :])
    above = profile - floor > 0.1 * max(profile.max() - floor, 1e-9)
    width = float(np.argmin(above)) if not above.all() else float(len(above))
    return Trail(float(angle), float(offset), max(width, fwhm), sign)


@dataclass(frozen=True)
class TrailLight:
    """What a trail adds to an image, by pixel.

    Attributes
    ----------
    row, column : 1-D integer arrays
        Pixels near the ridge.
    light : 1-D float32 array
        Light of the trail there.
    noise : 1-D float32 array
        Standard deviation that it brings along: its photons, and what the model leaves.
    """

    row: np.ndarray
    column: np.ndarray
    light: np.ndarray
    noise: np.ndarray


def trail_light(image: np.ndarray, sigma: np.ndarray, usable: np.ndarray, trail: Trail, fwhm: float) -> TrailLight:
    """Fit the light of a trail, so that what lies on it can be seen.

    Parameters
    ----------
    image, sigma : 2-D arrays
        Difference and standard deviation of its pixels.
    usable : 2-D bool array
        Pixels that count.
    trail : Trail
    fwhm : float
        Of a point source, pixels.

    Notes
    -----
    Cubic B-splines across the trail times hats along it, far longer than a point source, whose pixels the weights of
    Tukey's biweight leave out. Pixels enter where they are, so no interpolation blurs the ridge.
    """
    reach, step = 1.5 * trail.width + 2 * fwhm, max(LONG * fwhm, SHORTEST)
    row, column = _near(trail, image.shape, reach)
    across = np.cos(trail.angle) * column + np.sin(trail.angle) * row - trail.offset
    along = np.cos(trail.angle) * row - np.sin(trail.angle) * column
    place, pieces = (across + reach) / (KNOT * fwhm), (along - along.min()) / step
    terms = _Terms.of(place, pieces)
    count, error = usable[row, column], sigma[row, column].astype(float)
    # Not a number times a weight of 0 is none either.
    value = np.where(count, image[row, column], 0).astype(float)
    weight = count / error**2
    for _ in range(ROUNDS):
        light = terms.solve(value, weight)
        off = (value - light) / error
        # The photons of the trail itself are not in the errors yet.
        scale = max(1.0, SIGMA_PER_MAD * float(np.median(np.abs(off[count])))) if count.any() else 1.0
        weight = count * np.maximum(1 - np.square(off / (TUKEY * scale)), 0) ** 2 / error**2
    faint = np.abs(light) < FAINT * np.abs(light).max()
    light = np.where(faint, 0, light)
    bright = count & (np.abs(light) > 0.5 * error)
    grain = _grain((value - light)[bright], error[bright], np.abs(light[bright]))
    return TrailLight(row, column, light.astype(np.float32), np.sqrt(grain * np.abs(light)).astype(np.float32))


def crossing(image: np.ndarray, noise: np.ndarray, usable: np.ndarray, fwhm: float) -> tuple[Trail, ...]:
    """Find the bright trails across an image that has its stars still.

    Parameters
    ----------
    image, noise : 2-D float32 arrays
        Background-subtracted image, 0 where hidden, and standard deviation of its sky pixels, ADU.
    usable : 2-D bool array
        Pixels that count.
    fwhm : float
        Of the stars, pixels.
    """
    sigma = fwhm / FWHM_PER_SIGMA
    snr = np.divide(image, noise, out=np.zeros(image.shape, np.float32), where=noise > 0)
    snr = ndimage.gaussian_filter(snr, sigma) * np.float32(np.sqrt(4 * np.pi) * sigma)
    return tuple(trail for trail in find_trails(snr, usable, fwhm) if trail.sign > 0)


def without_trails(data, bad, mesh: int, trails, fwhm: float) -> tuple[np.ndarray, np.ndarray]:
    """Take the light of trails out of an image.

    Parameters
    ----------
    data : 2-D float32 array
        Image with its background, ADU.
    bad : 2-D bool array
        Pixels to leave out.
    mesh : int
        Of the background, pixels.
    trails : sequence of Trail
    fwhm : float
        Of the stars, pixels.

    Returns
    -------
    data, noise : 2-D float32 arrays
        The image without it, and the standard deviation that it leaves behind, ADU.
    """
    sky = background(data, bad, mesh)
    data, noise = data.astype(np.float32), np.zeros(data.shape, np.float32)
    for trail in trails:
        light = trail_light(data - sky.level, sky.noise, ~bad, trail, fwhm)
        at = light.row, light.column
        data[at] -= light.light
        noise[at] = np.hypot(noise[at], light.noise)
    return data, noise


@dataclass(frozen=True)
class _Terms:
    """Splines across times hats along: what each of 8 terms is at each pixel, and which coefficient belongs to it."""

    value: np.ndarray
    index: np.ndarray
    number: int  # of splines across

    @classmethod
    def of(cls, place, pieces):
        first, part = np.floor(place).astype(int), place - np.floor(place)
        left = 1 - part
        cubic = np.stack([left**3, 4 - 6 * part**2 + 3 * part**3, 4 - 6 * left**2 + 3 * left**3, part**3]) / 6
        whole = np.floor(pieces).astype(int)
        hat = np.stack([1 - (pieces - whole), pieces - whole])
        number = int(first.max()) + 4
        index = (whole + np.arange(2)[:, None])[:, None] * number + (first + np.arange(4)[:, None])[None]
        return cls((hat[:, None] * cubic[None]).reshape(8, -1), index.reshape(8, -1), number)

    def solve(self, value, weight) -> np.ndarray:
        """Return the weighted least-squares model of the values."""
        from scipy.linalg import solveh_banded

        size = int(self.index.max()) + 1
        # The normal equations are banded: two terms' coefficients are equally far apart at every pixel.
        apart = (self.number * np.arange(2)[:, None] + np.arange(4)).ravel()
        banded, right = np.zeros((self.number + 4, size)), np.zeros(size)
        for j in range(8):
            weighted = weight * self.value[j]
            right += np.bincount(self.index[j], weighted * value, size)
            for i in range(8):
                if apart[i] >= apart[j]:
                    banded[apart[i] - apart[j]] += np.bincount(self.index[j], weighted * self.value[i], size)
        # Coefficients that no pixel tells of are 0.
        banded[0] += 1e-6 * banded[0].max() + 1e-300
        solved = solveh_banded(banded, right, lower=True)
        return sum(term * solved[index] for term, index in zip(self.value, self.index, strict=True))


def _near(trail: Trail, shape, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns of the pixels within a distance of the ridge."""
    rows, columns = [], []
    x = np.arange(shape[1])
    for first in range(0, shape[0], 256):
        y = np.arange(first, min(first + 256, shape[0]))
        row, column = np.nonzero(trail.distance(x, y[:, None]) <= reach)
        rows.append(row + first)
        columns.append(column)
    return np.concatenate(rows), np.concatenate(columns)


def _grain(off, error, light) -> float:
    """Variance per light for which the median of the squared pulls is that of a Gaussian."""
    if len(off) < FEWEST:
        return 0.0
    high = float(np.median(np.square(off) / light)) * 10 + 1e-12
    return balanced(lambda grain: np.square(off) / (np.square(error) + grain * light), high)
