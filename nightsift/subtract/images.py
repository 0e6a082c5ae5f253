"""What the methods of the stage `subtract` start from and return."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from nightsift.image.correlation import WHITE
from nightsift.image.polynomial import design, lines, powers
from nightsift.template.template import PAD


@dataclass(frozen=True)
class Layer:
    """One of two images, framed: `PAD` pixels more on each side.

    Attributes
    ----------
    data : 2-D float32 array
        Background-subtracted image, ADU; 0 where nothing is known.
    noise : 2-D float32 array
        Standard deviation of a pixel (ADU), positive.
    bad : 2-D bool array
        Pixels that do not count.
    fwhm : float
        Pixels.
    gain : float or None
        e-/ADU, if the photons of the sources are not in `noise` yet.
    correlation : 2-D array
        Autocorrelation of the noise: see `nightsift.image.correlation`.
    """

    data: np.ndarray
    noise: np.ndarray
    bad: np.ndarray
    fwhm: float
    gain: float | None = field(default=None)
    correlation: np.ndarray = field(default_factory=lambda: WHITE)


@dataclass(frozen=True)
class Surface:
    """A polynomial in the position on an image.

    Attributes
    ----------
    coefficients : 1-D array
        Of the terms of `nightsift.image.polynomial.powers`.
    order : int
    shape : tuple of int
        Rows and columns of the image.
    """

    coefficients: np.ndarray
    order: int
    shape: tuple[int, int]

    def at(self, x, y) -> np.ndarray:
        """Return the values at pixel positions."""
        return design(x, y, self.shape, self.order) @ self.coefficients

    def on(self, rows: slice, columns: slice) -> np.ndarray:
        """Return the values on a part of the image, float32; a (1, 1) array if they are all the same."""
        x, y = lines(self.shape)
        result = np.full((1, 1), self.coefficients[0], np.float32)
        for c, (i, j) in zip(self.coefficients[1:], powers(self.order)[1:], strict=True):
            result = result + np.float32(c) * x[columns] ** i * y[rows] ** j
        return result


@dataclass(frozen=True)
class Raw:
    """A difference before it is known how significant it is: what every method of subtraction returns.

    All arrays are of the image proper, and `data` and `model` are the stage's own, to be changed in place.

    Attributes
    ----------
    data, model : 2-D float32 arrays
        Difference, and what was subtracted, on the flux scale of the image.
    bad : 2-D bool array
        Pixels that do not count.
    unseen : 2-D bool array
        Pixels that do not count of what was convolved, with its frame.
    white, smoothed : 2-D float32 arrays
        Standard deviation of a pixel of what was not convolved, and of what was, before it was; ADU of the target.
    scale : tuple of Surface
        By whose product fluxes of the target have to be divided to be on the flux scale of the image; empty for 1.
    kernel : (side, side) array
        What was convolved with, at the image's centre.
    forward : bool
        The template was convolved; otherwise the image was, and the target is the template.
    fwhm : float
        Of the PSF of the difference, roughly, pixels.
    used : 1-D bool array
        Stars that the method rests on.
    facts : dict
        What the method has to say of itself.
    white_correlation, smoothed_correlation : 2-D arrays
        Autocorrelations of the noise that `white` and `smoothed` are of: see `nightsift.image.correlation`.
    """

    data: np.ndarray
    model: np.ndarray
    bad: np.ndarray
    unseen: np.ndarray
    white: np.ndarray
    smoothed: np.ndarray
    scale: tuple[Surface, ...]
    kernel: np.ndarray
    forward: bool
    fwhm: float
    used: np.ndarray
    facts: dict
    white_correlation: np.ndarray = field(default_factory=lambda: WHITE)
    smoothed_correlation: np.ndarray = field(default_factory=lambda: WHITE)

    def factor(self, rows: slice, columns: slice) -> np.ndarray:
        """Return the factor to the image's flux scale on a part: float32, (1, 1) if it is the same throughout."""
        factor = np.ones((1, 1), np.float32)
        for surface in self.scale:
            factor = factor / surface.on(rows, columns)
        return factor

    def sigma(self) -> np.ndarray:
        """Return the standard deviation of a pixel of what was not convolved, on the flux scale of the image."""
        return self.white * self.factor(slice(None), slice(None)) if self.scale else self.white

    def shown(self) -> np.ndarray:
        """Return the image whose stars show the PSF of the difference, on the flux scale of the image."""
        return self.data + self.model


def core(framed: np.ndarray) -> np.ndarray:
    """Return the image proper of a framed one, as a view."""
    return framed[PAD:-PAD, PAD:-PAD]
