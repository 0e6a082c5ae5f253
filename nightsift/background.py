"""The smooth background of an image and its noise."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import sep


class Background:
    """Background level and noise (standard deviation of a pixel), both float32 images in ADU made when asked for."""

    def __init__(self, mesh: sep.Background):
        self._mesh = mesh

    @cached_property
    def level(self) -> np.ndarray:
        """Background level."""
        return self._mesh.back(dtype=np.float32)

    @cached_property
    def noise(self) -> np.ndarray:
        """Standard deviation of a pixel."""
        result = self._mesh.rms(dtype=np.float32)
        # A cell that is masked throughout has no noise of its own.
        result[~(result > 0)] = self._mesh.globalrms
        return result


def background(data: np.ndarray, bad: np.ndarray, mesh: int) -> Background:
    """Measure the background on a mesh, stars clipped away.

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
        SExtractor's estimator (Bertin & Arnouts 1996, section 3) in its SEP form.
    """
    mesh = int(min(mesh, *data.shape))
    data = np.ascontiguousarray(data, dtype=np.float32)
    return Background(sep.Background(data, mask=np.ascontiguousarray(bad), bw=mesh, bh=mesh, fw=3, fh=3))
