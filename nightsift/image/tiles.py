"""An image a tile at a time, so that what a computation needs on the way stays small and in the cache."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

SIDE = 320


@dataclass(frozen=True)
class Tile:
    """A part of an image, each attribute a pair of slices for rows and columns.

    Attributes
    ----------
    own : tuple of slice
        Of the image; the tiles share nothing and leave nothing out.
    around : tuple of slice
        The same and up to a margin more on every side, within the image.
    inside : tuple of slice
        Where `own` lies in an array of `around`.
    """

    own: tuple[slice, slice]
    around: tuple[slice, slice]
    inside: tuple[slice, slice]


def tiles(shape: tuple[int, int], margin: int = 0) -> list[Tile]:
    """Divide an image into tiles of about equal sides, at most `SIDE` pixels."""
    rows, columns = (_cuts(side, margin) for side in shape)
    return [Tile(*zip(row, column, strict=True)) for row in rows for column in columns]


def largest(shape: tuple[int, int], margin: int) -> tuple[int, int]:
    """Return the most rows and columns that a tile and what is around it has, where nothing is cut off."""
    return tuple(max(own.stop - own.start for own, *_ in _cuts(side, 0)) + 2 * margin for side in shape)


def _cuts(side: int, margin: int) -> list[tuple[slice, slice, slice]]:
    edges = np.linspace(0, side, -(-side // SIDE) + 1).astype(int).tolist()
    result = []
    for first, last in pairwise(edges):
        start = max(first - margin, 0)
        result.append((slice(first, last), slice(start, min(last + margin, side)), slice(first - start, last - start)))
    return result
