"""A kernel of free pixels, kept smooth (Becker et al. 2012)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from astropy.table import Table
from numpy.lib.stride_tricks import sliding_window_view

from nightsift import parameters
from nightsift.subtract.alard_lupton import by_kernel
from nightsift.subtract.images import Layer, RawDifference

MAX_ORDER = 1  # there are some 200 pixels, each with the spatial terms
REACH = 1.7  # half side of the kernel in FWHM of what it leads to
MAX_HALF = 7  # pixels: the time goes with the 4th power


@dataclass(frozen=True)
class DeltaBasis:
    """One function for each pixel of the kernel; the same interface as `nightsift.subtract.kernel.Basis`.

    Attributes
    ----------
    half : int
        The kernel has 2 half + 1 pixels a side.
    """

    half: int

    strengths = (1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)

    @cached_property
    def kernels(self) -> np.ndarray:
        """All functions as (functions, 2 half + 1, 2 half + 1) kernels."""
        side = 2 * self.half + 1
        return np.eye(side**2).reshape(-1, side, side)

    @cached_property
    def penalty(self) -> np.ndarray:
        """Matrix of the sum of the kernel's squared second differences, 0 around it: Becker et al. (2012), eq. 12."""
        side = 2 * self.half + 1
        second = np.eye(side, k=1) - 2 * np.eye(side) + np.eye(side, k=-1)
        square, one = second.T @ second, np.eye(side)
        return np.kron(square, one) + np.kron(one, square)

    def convolve(self, stamps: np.ndarray) -> np.ndarray:
        """Convolve (n, h, w) stamps with every function: (n, functions, h - 2 half, w - 2 half), the valid part."""
        valid = tuple(side - 2 * self.half for side in stamps.shape[1:])
        shifted = sliding_window_view(stamps, valid, axis=(1, 2))[:, ::-1, ::-1]
        return shifted.reshape(len(stamps), -1, *valid)


def delta(image: Layer, template: Layer, stars: Table, params: parameters.SubtractConfig) -> RawDifference:
    """Subtract after a convolution with a kernel of free pixels, regularised by its second differences.

    Becker et al. (2012, MNRAS 425, 1341), section 3; the strength of the regularisation is the one that is best for
    stars that are left out of the fit. Parameters as for `nightsift.subtract.alard_lupton.alard_lupton`.
    """
    half = int(np.clip(np.ceil(REACH * max(image.fwhm, template.fwhm)), 3, MAX_HALF))
    return by_kernel(image, template, stars, params, DeltaBasis(half), min(params.kernel_order, MAX_ORDER))
