"""Steps of the gain between an image and its template, wherever they run: each part of the template is scaled."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from nightsift.image import amplifiers
from nightsift.image.tiles import tiles
from nightsift.photometry import gainsteps, zeropoint

_SCATTER = 0.05  # mag that passbands and flat fields make between fluxes of a star
_SMALLEST = 0.1  # mag; smaller steps the flux scale's surface may follow
_AGREE = 0.9  # share of the stars that agree on one ratio from which on no step is looked for
_FEWEST = 24  # stars
_ANGLES = 3.0  # degrees between the directions that are tried at first
_FAR = 3.0  # standard deviations
_AXIS = 0.98  # of what the best direction promises that makes the axes as good


@dataclass(frozen=True)
class RatioSteps:
    """What a template has to be multiplied by, in parts.

    Attributes
    ----------
    angle : float
        Of the first axis of the parts from x towards y, degrees.
    edges : amplifiers.Edges
    levels : array
        Magnitudes of each part above the mean.
    shape : (ny, nx)
        Of the image.
    """

    angle: float
    edges: amplifiers.Edges
    levels: np.ndarray
    shape: tuple[int, int]

    def factor(self, x, y) -> np.ndarray:
        """Return the factor at positions on the image."""
        number = amplifiers.cells(self.edges, *_turned(x, y, self.shape, self.angle))
        return 10 ** (-0.4 * self.levels)[number]

    def sentence(self) -> str:
        """Tell of the steps."""
        if self.angle:
            where = f"along a line at {(self.angle + 90) % 180 if self.edges[0] else self.angle:.0f} degrees"
        else:
            where = f"at {amplifiers.places(self.edges, self.shape)}"
        return (
            f"the stars' flux in the image over that in the template steps by {np.ptp(self.levels):.2f} mag {where}, as"
            " between amplifiers of different gain: the template is scaled part by part, and what lies across an edge"
            " is not to be trusted"
        )


def _turned(x, y, shape, angle: float):
    """Return positions scaled to -1..1 over the image, or turned by an angle and scaled to its half diagonal."""
    u, v = zeropoint.scaled(x, y, shape)
    if angle == 0:
        return u, v
    turn, (high, wide) = np.radians(angle), np.array(shape) / np.hypot(*shape)
    return np.cos(turn) * u * wide + np.sin(turn) * v * high, np.cos(turn) * v * high - np.sin(turn) * u * wide


def find(x, y, ratio, error, shape) -> RatioSteps | None:
    """Find steps in the flux ratios of stars.

    Parameters
    ----------
    x, y : array, shape (n,)
        Positions on the image, pixels.
    ratio, error : array, shape (n,)
        Natural logarithm of the flux in the image over that in the template, and its standard deviation.
    shape : (ny, nx)
        Of the image.

    Returns
    -------
    RatioSteps or None

    Notes
    -----
    The template's own columns and rows may run in any direction on the image.
    """
    if len(ratio) < _FEWEST:
        return None
    value, var = -1.0857 * np.asarray(ratio), (1.0857 * np.asarray(error)) ** 2
    plain = zeropoint.CalibrationStars(*_turned(x, y, shape, 0.0), value, var)
    level = zeropoint.fit(plain, 0, False, _SCATTER)
    pull = (level.residual - np.median(level.residual)) / np.hypot(np.sqrt(var), _SCATTER)
    if np.mean(np.abs(pull) < _FAR) > _AGREE:
        return None

    def promise(angle):
        return gainsteps.hint(_at(plain, x, y, shape, angle), pull)

    coarse = max(np.arange(0.0, 90.0, _ANGLES), key=promise)
    best = max(np.arange(coarse - _ANGLES + 1, coarse + _ANGLES), key=promise) % 90
    best = 0.0 if promise(0.0) >= _AXIS * promise(best) else best
    for angle in dict.fromkeys((float(best), 0.0)):
        stars = _at(plain, x, y, shape, angle)
        edges = gainsteps.find(stars, level)
        if edges == amplifiers.WHOLE:
            continue
        fit = zeropoint.fit(replace(stars, edges=edges), 0, False, _SCATTER)
        levels = amplifiers.steps(edges, fit.coefficients[1 : fit.surface])
        if np.ptp(levels) > _SMALLEST:
            return RatioSteps(angle, edges, levels - np.mean(levels), tuple(shape))
    return None


def _at(stars, x, y, shape, angle):
    u, v = _turned(x, y, shape, angle)
    return replace(stars, u=u, v=v)


def scaled(data: np.ndarray, steps: RatioSteps, margin: int) -> np.ndarray:
    """Return a plane of the template, which reaches `margin` pixels beyond the image, times the factor."""
    result = np.empty_like(data)
    for tile in tiles(data.shape):
        rows, columns = tile.own
        y, x = np.mgrid[rows, columns]
        result[tile.own] = data[tile.own] * steps.factor(x - margin, y - margin).astype(data.dtype)
    return result
