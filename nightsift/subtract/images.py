"""What the methods of the stage `subtract` start from and return."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from nightsift.image.convolve import Bank
from nightsift.image.correlation import WHITE
from nightsift.image.padding import PAD, unpad
from nightsift.image.polynomial import Surface
from nightsift.image.tiles import largest, tiles

LEAK = 0.05  # fraction of the kernel's weight on bad pixels that makes a pixel of the difference bad


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
class RawDifference:
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


@dataclass(frozen=True)
class Convolved:
    """The sharper of two images with the other's PSF and flux scale.

    Attributes
    ----------
    data : 2-D float32 array
        Of the image proper, ADU of the other.
    kernel : (side, side) array
        At the image's centre.
    sums : Surface
        Sum of the kernel.
    used : 1-D bool array
        Stars that the kernel rests on.
    facts : dict
        What the method has to say of itself.
    """

    data: np.ndarray
    kernel: np.ndarray
    sums: Surface
    used: np.ndarray
    facts: dict


def sharper(image: Layer, template: Layer) -> bool:
    """Tell whether it is the template that has to be convolved."""
    return template.fwhm <= image.fwhm


def subtracted(image: Layer, template: Layer, convolved: Convolved) -> RawDifference:
    """Return the difference of the sharper one, `convolved`, whose array becomes part of it, and of the other."""
    forward = sharper(image, template)
    source, target = (template, image) if forward else (image, template)
    data, kernel = convolved.data, convolved.kernel
    result = RawDifference(
        data=data,
        model=np.empty_like(data),
        bad=leaks(source.bad, kernel, LEAK * np.abs(kernel).sum()) | unpad(target.bad),
        unseen=source.bad,
        white=unpad(target.noise),
        smoothed=unpad(source.noise),
        scale=() if forward else (convolved.sums,),
        kernel=kernel,
        forward=forward,
        fwhm=target.fwhm,
        used=convolved.used,
        facts={"convolved": "template" if forward else "image"} | convolved.facts,
        white_correlation=target.correlation,
        smoothed_correlation=source.correlation,
    )
    for tile in tiles(data.shape):
        own, factor = tile.own, result.factor(*tile.own)
        other = unpad(target.data)[own]
        result.model[own] = data[own] if forward else other * factor
        data[own] = other - data[own] if forward else (data[own] - other) * factor
    return result


def leaks(bad: np.ndarray, kernel: np.ndarray, limit: float) -> np.ndarray:
    """Tell into which pixels of the image proper a kernel smears more than `limit` of what the framed image holds."""
    bank = Bank([np.abs(kernel)], largest(tuple(side - 2 * PAD for side in bad.shape), PAD))
    result = np.zeros([side - 2 * PAD for side in bad.shape], bool)
    for tile in tiles(result.shape):
        piece = bad[tuple(slice(part.start, part.stop + 2 * PAD) for part in tile.own)]
        if piece.any():
            result[tile.own] = unpad(next(bank(piece))) > limit
    return result
