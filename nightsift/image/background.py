"""The smooth background of an image and its noise."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
import sep

from nightsift.image.unit_noise import in_units, pixel_unit
from nightsift.statistics import SIGMA_PER_MAD

STEEP = 1.1  # scatter in a cell, in units of the noise, from which on it hides stars from the clipping
FINEST = 16  # pixels, side of the smallest cell: smaller ones would follow the stars
# Of the variance beyond that of single pixels, the fraction that cells of half the side leave at most where the
# background has structure within the larger ones; of the light of stars and galaxies they leave more than 0.75.
FINER = 0.6
CROWDED, LEAST_NOISE = 0.75, 0.5  # noise of single pixels over their scatter: of a crowd, and what is believed of it
ENOUGH = 250_000  # pixels, of whole rows, for the scatter of single ones
FLAT = 0.5  # change of the level from cell to cell, in its noise, that adds a hundredth to the scatter in a cell


class Background:
    """Background level and noise (standard deviation of a pixel), both float32 images in ADU made when asked for."""

    def __init__(self, level: np.ndarray, rest: sep.Background, unit: float, steep: bool):
        self._level, self._rest, self._unit, self._steep = level, rest, unit, steep

    @property
    def typical_noise(self) -> float:
        """Median of the noise over the cells."""
        return float(self._rest.globalrms) * self._unit

    @cached_property
    def level(self) -> np.ndarray:
        """Background level."""
        # Elsewhere the second look would only follow the stars more closely.
        level = self._level + self._rest.back(dtype=np.float32) if self._steep else self._level
        return in_units(level, 1 / self._unit)

    @cached_property
    def noise(self) -> np.ndarray:
        """Standard deviation of a pixel."""
        result = self._rest.rms(dtype=np.float32)
        # A cell that is masked throughout has no noise of its own.
        result[~(result > 0)] = self._rest.globalrms
        return in_units(result, 1 / self._unit)


def background(data: np.ndarray, bad: np.ndarray, mesh: int) -> Background:
    """Measure the background on a mesh, stars clipped away, and its noise from what is left without it.

    Nebulae and clouds that change within a cell are followed with smaller cells. Stars and galaxies, which these would
    not explain, do not make cells small.

    Parameters
    ----------
    data : 2-D float32 array
        Image, ADU.
    bad : 2-D bool array
        Pixels to leave out, whatever their values.
    mesh : int
        Side of a cell, pixels; smaller images are one cell.

    Returns
    -------
    Background
        SExtractor's estimator (Bertin & Arnouts 1996, section 3) in its SEP form. The noise, and the level where it
        changes much within a cell, are those of a second look at what the first leaves.
    """
    mesh = int(min(mesh, *data.shape))
    bad = np.ascontiguousarray(bad)
    unit = pixel_unit(data, bad)
    data = np.ascontiguousarray(in_units(np.asarray(data, np.float32), unit))
    found = _measured(data, bad, mesh, unit)
    single = pixel_noise(data, bad) * unit
    excess = found.typical_noise**2 - single**2
    while mesh >= 2 * FINEST and found.typical_noise > STEEP * single:
        mesh //= 2
        finer = _measured(data, bad, mesh, unit)
        left = finer.typical_noise**2 - single**2
        if left > FINER * excess:
            break
        found, excess = finer, left
    return found


def _measured(data, bad, mesh: int, unit: float) -> Background:
    """Measure, of an image in a unit, the level, and on what is left without it, level and noise.

    Where the level changes within a cell, that is no noise. Where it hardly does, anywhere, one look tells all.
    """
    # Cells of one size: a narrow last one would stand for a place beyond the border.
    height, width = (math.ceil(side / max(1, round(side / mesh))) for side in data.shape)
    options = {"mask": bad, "bw": width, "bh": height, "fw": 3, "fh": 3}
    first = sep.Background(data, **options)
    level = first.back(dtype=np.float32)
    cells = level[height // 2 :: height, width // 2 :: width]
    changes = [np.abs(np.diff(cells, axis=axis)).max(initial=0) for axis in (0, 1)]
    if math.hypot(*changes) < FLAT * first.globalrms:
        return Background(level, first, unit, False)
    rest = sep.Background(data - level, **options)
    return Background(level, rest, unit, first.globalrms > STEEP * rest.globalrms)


def pixel_noise(data, bad) -> float:
    """Return the sigma of single pixels from the differences of neighbours in a row, over the darker half of the image.

    Unlike the scatter about the background it holds hardly any of the light of unresolved stars, and none of what
    varies smoothly. NaN without enough good pixels; too small where the noise of neighbours is correlated.
    """
    few = slice(None, None, max(1, data.size // ENOUGH))
    data, bad = data[few], bad[few]
    good = ~(bad[:, :-2] | bad[:, 1:-1] | bad[:, 2:])
    step = (data[:, :-2] - 2.0 * data[:, 1:-1] + data[:, 2:])[good]
    level = (data[:, :-2] + data[:, 2:])[good]
    dark = step[level <= np.median(level)] if level.size else step
    return float(SIGMA_PER_MAD * np.median(np.abs(dark)) / math.sqrt(6.0)) if dark.size else math.nan


def without_crowd(noise: np.ndarray, data: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """Return a map of the noise less what stars that nobody can tell apart make of it, where these are everywhere.

    Parameters
    ----------
    noise : 2-D array
        Scatter of the pixels about the background.
    data : 2-D array
        Image whose noise is not correlated.
    bad : 2-D bool array
        Pixels to leave out.

    Notes
    -----
    By the differences of neighbouring pixels, to half of the scatter at most: neighbours that share some of their noise
    are not told from stars in a crowd.
    """
    few = slice(None, None, max(1, data.size // ENOUGH))
    typical = float(np.median(noise[few][~bad[few]])) if not bad[few].all() else math.nan
    fraction = pixel_noise(data, bad) / typical
    return noise * np.float32(max(fraction, LEAST_NOISE)) if fraction < CROWDED else noise
