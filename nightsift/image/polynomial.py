"""Polynomials in the position on an image, which PSFs, kernels and flux scales vary as."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


def powers(order: int) -> list[tuple[int, int]]:
    """Return the exponents of x and y of each term up to an order: 1, x, y, x2, xy, y2 ..."""
    return [(n - j, j) for n in range(order + 1) for j in range(n + 1)]


def scaled(position, side: int) -> np.ndarray:
    """Return pixel positions along an axis of `side` pixels as -1 .. 1."""
    return 2 * np.asarray(position, float) / max(side - 1, 1) - 1


def design(x, y, shape: tuple[int, int], order: int) -> np.ndarray:
    """Return the terms at pixel positions, scaled to -1 .. 1 over the image: an (n, terms) array."""
    u, v = scaled(x, shape[1]), scaled(y, shape[0])
    return np.stack([u**i * v**j for i, j in powers(order)], axis=-1)


def lines(shape: tuple[int, int], frame: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return the scaled x of all columns, and y of all rows as a column vector, with `frame` pixels more around."""
    x = np.arange(-frame, shape[1] + frame)
    y = np.arange(-frame, shape[0] + frame)
    return scaled(x, shape[1]).astype(np.float32), scaled(y, shape[0]).astype(np.float32)[:, None]


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
