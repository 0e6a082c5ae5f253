"""What is left of the background in a difference, where it has structure that a coarse mesh cannot follow."""

from __future__ import annotations

import numpy as np
from scipy.interpolate import RectBivariateSpline

from nightsift.image.tiles import tiles
from nightsift.statistics import SIGMA_PER_MAD

CELL = 8.0  # FWHM, side of a cell: what it takes of a point source's own light, and its noise, do not matter
SMALLEST = 24  # pixels
CLIP = 3.0  # scatters of a cell beyond which a pixel is no background
FILLED = 0.3  # fraction of a cell's pixels that have to count
PLAIN = 2.0  # variance of the cells in units of what noise makes of it, below which nothing is taken for structure
FEWEST = 16  # cells


def take_level(difference: np.ndarray, usable: np.ndarray, fwhm: float) -> bool:
    """Take the level that is left in a difference out of it, in place, where there is one; return whether there is.

    Parameters
    ----------
    difference : 2-D float32 array
        Less its background on a coarse mesh, ADU.
    usable : 2-D bool array
        Pixels that count.
    fwhm : float
        Of the PSF, pixels.

    Notes
    -----
    Medians of cells, drawn to 0 by the share of noise in their variance (a Wiener filter), and a spline through them.
    The noise is told by the four quarters of each cell, whatever correlates its pixels. Where the cells scatter by not
    much more than noise makes them, as in most images, nothing is taken.
    """
    side = int(max(SMALLEST, np.ceil(CELL * fwhm))) // 2 * 2
    shape = tuple(int(np.ceil(length / side)) for length in difference.shape)
    if min(shape) < 4 or shape[0] * shape[1] < FEWEST:
        return False
    quarters = np.array([_medians(difference, usable, top, side // 2) for top in range(0, shape[0] * side, side // 2)])
    cells = quarters.reshape(shape[0], 2, shape[1], 2).swapaxes(1, 2).reshape(-1, 4)
    whole = np.isfinite(cells).all(axis=1)
    if whole.sum() < FEWEST:
        return False
    level = np.where(whole, cells.sum(axis=1) / 4, 0.0)
    noise = np.median(np.var(cells[whole], axis=1, ddof=1)) / 0.789 / 4  # median of chi2 of 3 degrees, over 3
    middle = np.median(level[whole])
    total = np.square(SIGMA_PER_MAD * np.median(np.abs(level[whole] - middle)))
    if not total > PLAIN * noise:
        return False
    grid = (1 - PLAIN * noise / total) * np.where(whole, level, middle).reshape(shape)
    places = [(np.arange(number) + 0.5) * side - 0.5 for number in shape]
    spline = RectBivariateSpline(*places, grid)
    for tile in tiles(difference.shape):
        rows, columns = (np.arange(part.start, part.stop) for part in tile.own)
        difference[tile.own] -= spline(rows, columns).astype(np.float32)
    return True


def _medians(difference: np.ndarray, usable: np.ndarray, top: int, side: int) -> np.ndarray:
    """Clipped medians of the square cells of one row, to an even number of them; NaN where too few pixels count."""
    value = np.where(usable[top : top + side], difference[top : top + side], np.nan)
    number = 2 * int(np.ceil(difference.shape[1] / (2 * side)))
    frame = (0, side - value.shape[0]), (0, number * side - value.shape[1])
    flat = np.pad(value, frame, constant_values=np.nan).reshape(side, number, side).swapaxes(0, 1).reshape(number, -1)
    flat = np.sort(flat, axis=1)  # what does not count comes last
    count = np.isfinite(flat).sum(axis=1)
    result = np.full(number, np.nan)
    for i in np.flatnonzero(count > FILLED * side**2):
        cell = flat[i, : count[i]]
        low, middle, high = (_at(cell, share) for share in (0.15865, 0.5, 0.84135))
        reach = CLIP * (high - low) / 2
        first, last = np.searchsorted(cell, middle - reach), np.searchsorted(cell, middle + reach, "right")
        result[i] = _at(cell[first:last], 0.5)
    return result


def _at(ordered: np.ndarray, share: float) -> float:
    """Return the value below which a share of the ordered values lies, between two of them in proportion."""
    place = share * (len(ordered) - 1)
    low = int(place)
    return float(ordered[low] + (place - low) * (ordered[min(low + 1, len(ordered) - 1)] - ordered[low]))
