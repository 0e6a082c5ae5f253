"""Small cutouts around many positions at once."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))


def stamps(image: np.ndarray, column, row, half: int, fill=0.0) -> np.ndarray:
    """Return the (n, 2 half + 1, 2 half + 1) cutouts centred on whole pixels; `fill` beyond the image."""
    column, row = np.asarray(column, int), np.asarray(row, int)
    offset = np.arange(-half, half + 1)
    columns, rows = column[:, None] + offset, row[:, None] + offset
    inside_x, inside_y = (columns >= 0) & (columns < image.shape[1]), (rows >= 0) & (rows < image.shape[0])
    result = image[np.where(inside_y, rows, 0)[:, :, None], np.where(inside_x, columns, 0)[:, None, :]]
    if inside_x.all() and inside_y.all():
        return result
    return np.where(inside_y[:, :, None] & inside_x[:, None, :], result, np.asarray(fill, result.dtype))


def on_clean_pixel(x, y, mask) -> np.ndarray:
    """Tell which positions fall on pixels without a mask bit."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    inside = (x > -0.5) & (y > -0.5) & (x < mask.shape[1] - 0.5) & (y < mask.shape[0] - 0.5)
    column, row = (np.where(inside, np.rint(np.where(inside, values, 0)), 0).astype(int) for values in (x, y))
    return inside & (mask[row, column] == 0)


def pair_ratios(signal, y, x) -> np.ndarray:
    """Return the means of the four pairs of opposite neighbours over the pixel itself: horizontal, vertical, diagonal.

    For a symmetric PSF the mean of a pair, relative to the pixel between, is smallest when the star is centred there,
    so that its value for a centred star bounds the ratio for every pixel of every star.
    """
    ny, nx = signal.shape
    centre = signal[y, x]
    pairs = [
        0.5
        * (
            signal[np.clip(y + dy, 0, ny - 1), np.clip(x + dx, 0, nx - 1)]
            + signal[np.clip(y - dy, 0, ny - 1), np.clip(x - dx, 0, nx - 1)]
        )
        for dy, dx in NEIGHBOURS
    ]
    return np.array(pairs) / np.where(centre > 0, centre, np.inf)


def spread(x, y, rank, shape: tuple[int, int], most: int) -> np.ndarray:
    """Choose at most `most` positions evenly over the image: from each cell of a grid the first in the order of `rank`.

    Returns
    -------
    1-D integer array
        Indices, the first of every cell before the second of any.
    """
    cells = max(1, int(np.sqrt(most / 4)))
    cell = np.minimum((np.asarray(y) * cells / shape[0]).astype(int), cells - 1) * cells
    cell = cell + np.minimum((np.asarray(x) * cells / shape[1]).astype(int), cells - 1)
    order = np.lexsort((rank, cell))
    ordered = cell[order]
    first = np.searchsorted(ordered, ordered)
    turn = np.arange(len(order)) - first
    return order[np.lexsort((np.asarray(rank)[order], turn))][:most]


def crowded(x, y, flux, radius: float, fraction: float) -> np.ndarray:
    """Tell which objects have another within `radius` (pixels) of more than `fraction` of their flux."""
    result = np.zeros(len(x), bool)
    flux = np.asarray(flux)
    pairs = cKDTree(np.column_stack([x, y])).query_pairs(radius, output_type="ndarray")
    for one, other in (pairs.T, pairs.T[::-1]) if len(pairs) else ():
        result[one[flux[other] > fraction * flux[one]]] = True
    return result
