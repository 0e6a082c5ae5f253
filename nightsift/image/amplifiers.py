"""The amplifiers of a detector: a grid of cells on an image, each with a zero point of its own."""

from __future__ import annotations

import numpy as np

#: where the cells end in x and in y, in positions scaled to -1..1 over the image
Edges = tuple[tuple[float, ...], tuple[float, ...]]
WHOLE: Edges = ((), ())


def cells(edges: Edges, u, v) -> np.ndarray:
    """Return the number of the cell that each position lies in: row by row, from the lower left."""
    column, row = (np.searchsorted(part, at, side="right") for part, at in zip(edges, (u, v), strict=True))
    return row * (len(edges[0]) + 1) + column


def fractions(edges: Edges) -> np.ndarray:
    """Return what fraction of the image each cell is."""
    wide, high = (np.diff([-1.0, *part, 1.0]) / 2 for part in edges)
    return np.outer(high, wide).ravel()


def columns(edges: Edges, u, v) -> np.ndarray:
    """Return the columns (n, cells - 1) of a model in which the cells differ; each has mean 0 over the image."""
    fraction = fractions(edges)
    own = cells(edges, u, v)[..., None] == np.arange(1, len(fraction))
    return own - fraction[1:]


def names(edges: Edges) -> tuple[str, ...]:
    """Return what the columns are called."""
    return tuple(f"amplifier{number}" for number in range(1, len(fractions(edges))))


def steps(edges: Edges, coefficients) -> np.ndarray:
    """Return what each cell has above the mean of the image, given the coefficients of the columns."""
    own = np.array([0.0, *coefficients])
    return own - fractions(edges) @ own


def places(edges: Edges, shape: tuple[int, int]) -> str:
    """Tell in words where the cells meet, in pixels."""
    found = []
    for axis, part, side in zip("xy", edges, shape[::-1], strict=True):
        found += [f"{axis} = {(edge + 1) * side / 2 - 0.5:.0f}" for edge in part]
    return " and ".join(found)
