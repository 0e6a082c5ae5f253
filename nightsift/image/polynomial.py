"""Polynomials in the position on an image, which PSFs, kernels and flux scales vary as."""

from __future__ import annotations

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
