"""Convolution of images with kernels by fast Fourier transforms, in single precision."""

from __future__ import annotations

import numpy as np
from scipy import fft

from nightsift.polynomial import lines, powers


class Convolver:
    """An image, transformed once and convolved with as many kernels as wanted.

    Beyond its borders the image counts as 0.
    """

    def __init__(self, image: np.ndarray, half: int):
        self.shape = image.shape
        self.half = half
        self.padded = [fft.next_fast_len(side + 2 * half, real=True) for side in image.shape]
        self.transform = fft.rfft2(np.asarray(image, np.float32), self.padded)

    def __call__(self, kernel: np.ndarray) -> np.ndarray:
        """Convolve with a square kernel of odd side, at most 2 half + 1."""
        half = kernel.shape[0] // 2
        product = self.transform * fft.rfft2(np.asarray(kernel, np.float32), self.padded)
        full = fft.irfft2(product, self.padded)
        return full[half : half + self.shape[0], half : half + self.shape[1]]


def convolve_varying(image: np.ndarray, kernels: np.ndarray, order: int, shape, frame: int = 0) -> np.ndarray:
    """Convolve with a kernel that varies as a polynomial in position.

    Parameters
    ----------
    image : 2-D array
        With `frame` pixels more on each side than the image proper.
    kernels : (terms, side, side) array
        Coefficients of the terms of `nightsift.polynomial.powers`.
    order : int
    shape : tuple of int
        Rows and columns of the image proper, which the polynomial counts from.
    frame : int
    """
    convolver = Convolver(image, kernels.shape[1] // 2)
    x, y = lines(shape, frame)
    total = convolver(kernels[0])
    for (i, j), kernel in zip(powers(order)[1:], kernels[1:], strict=True):
        total = total + convolver(kernel) * (x**i * y**j)
    return total
