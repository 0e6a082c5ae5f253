"""An image a strip of rows at a time, so that what a computation needs on the way stays small and in the cache."""

from __future__ import annotations

from dataclasses import dataclass

ROWS = 256


@dataclass(frozen=True)
class Strip:
    """Some rows of an image, and those around that they depend on.

    Attributes
    ----------
    rows : slice
        Rows of the image.
    around : slice
        The same and up to a margin more on either side, within the image.
    inside : slice
        Where `rows` lie in an array of the rows `around`.
    """

    rows: slice
    around: slice
    inside: slice


def strips(height: int, margin: int = 0, step: int | None = None) -> list[Strip]:
    """Divide the rows of an image into strips of `step` (by default `ROWS`) rows."""
    result = []
    step = step or ROWS
    for first in range(0, height, step):
        last = min(first + step, height)
        start = max(first - margin, 0)
        around = slice(start, min(last + margin, height))
        result.append(Strip(slice(first, last), around, slice(first - start, last - start)))
    return result


def tallest(height: int, margin: int) -> int:
    """Return the most rows that a strip and what is around it has."""
    return max(strip.around.stop - strip.around.start for strip in strips(height, margin))
