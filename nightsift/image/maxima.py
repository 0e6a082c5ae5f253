"""Maxima over square windows, in a time that hardly depends on their size."""

from __future__ import annotations

import numpy as np


def maxima(image: np.ndarray, side: int) -> np.ndarray:
    """Return the maximum over the square of odd side around each pixel, as far as it lies in the image.

    The same as `scipy.ndimage.maximum_filter`, several times as fast: windows are doubled until two of them, which may
    overlap, cover one of the wanted side.
    """
    for axis in (0, 1):
        image = _along(image, side, axis)
    return image


def _along(image: np.ndarray, side: int, axis: int) -> np.ndarray:
    half, length = side // 2, image.shape[axis]
    frame = [(0, 0), (0, 0)]
    frame[axis] = (half, half)
    wide = np.pad(image, frame, mode="edge")

    def part(start: int, stop: int):
        return wide[start:stop] if axis == 0 else wide[:, start:stop]

    reach = 1
    while 2 * reach <= side:
        wide = np.maximum(part(0, wide.shape[axis] - reach), part(reach, wide.shape[axis]))
        reach *= 2
    return np.maximum(part(0, length), part(side - reach, side - reach + length))
