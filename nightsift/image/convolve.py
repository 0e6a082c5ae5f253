"""Convolution of images with kernels by fast Fourier transforms, in single precision."""

from __future__ import annotations

import numpy as np
from scipy import fft

from nightsift.image.polynomial import lines, powers
from nightsift.image.tiles import largest, tiles


class Bank:
    """Kernels, transformed once, that many images are convolved with.

    Beyond their borders the images count as 0.

    Parameters
    ----------
    kernels : sequence of (side, side) arrays
        Of odd sides.
    shape : tuple of int
        Most rows and columns that an image has.
    """

    def __init__(self, kernels, shape):
        self.halves = [kernel.shape[0] // 2 for kernel in kernels]
        # What wraps around falls on rows and columns that are cut off.
        self.padded = [fft.next_fast_len(side + max(self.halves), real=True) for side in shape]
        self.transforms = [fft.rfft2(np.asarray(kernel, np.float32), self.padded) for kernel in kernels]

    def __call__(self, image: np.ndarray, *chosen: int):
        """Yield the image convolved with the chosen kernels, by default with each."""
        transform = fft.rfft2(np.asarray(image, np.float32), self.padded)
        for index in chosen or range(len(self.transforms)):
            half = self.halves[index]
            full = fft.irfft2(transform * self.transforms[index], self.padded, overwrite_x=True)
            yield full[half : half + image.shape[0], half : half + image.shape[1]]


def convolve(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Convolve an image, 0 beyond its borders, with a kernel of odd side."""
    return next(Bank([kernel], image.shape)(image))


def convolve_varying(image: np.ndarray, kernels: np.ndarray, order: int, shape, frame: int = 0) -> np.ndarray:
    """Convolve with a kernel that varies as a polynomial in position.

    Parameters
    ----------
    image : 2-D array
        With `frame` pixels more on each side than the image proper.
    kernels : (terms, side, side) array
        Coefficients of the terms of `nightsift.image.polynomial.powers`.
    order : int
    shape : tuple of int
        Rows and columns of the image proper, which the polynomial counts from.
    frame : int

    Returns
    -------
    2-D float32 array
        The image proper, convolved.
    """
    x, y = lines(shape)
    half = kernels.shape[1] // 2
    bank = Bank(kernels, largest(shape, half))
    result = np.empty(shape, np.float32)
    for tile in tiles(shape):
        pieces, inside = zip(*(_reaching(part, frame, half) for part in tile.own), strict=True)
        rows, columns = tile.own
        for (i, j), part in zip(powers(order), bank(image[pieces]), strict=True):
            if i + j == 0:
                result[tile.own] = part[inside]
            else:
                result[tile.own] += part[inside] * (x[columns] ** i * y[rows] ** j)
    return result


def _reaching(part: slice, frame: int, half: int) -> tuple[slice, slice]:
    """Return what a kernel needs of a framed image for a part of the image proper, and where that part lies in it."""
    start = max(part.start + frame - half, 0)
    first = part.start + frame - start
    return slice(start, part.stop + frame + half), slice(first, first + part.stop - part.start)
