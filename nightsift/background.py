"""The smooth background of an image and its noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import sep


@dataclass(frozen=True)
class Background:
    """Background level and noise (standard deviation of a pixel), both float32 images in ADU."""

    level: np.ndarray
    noise: np.ndarray


def background(data: np.ndarray, bad: np.ndarray, mesh: int) -> Background:
    """Measure the background on a mesh, stars clipped away.

    Parameters
    ----------
    data : 2-D float32 array
        Image, ADU.
    bad : 2-D bool array
        Pixels to leave out.
    mesh : int
        Side of a cell, pixels; smaller images are one cell.

    Returns
    -------
    Background
        SExtractor's estimator (Bertin & Arnouts 1996, section 3) in its SEP form.
    """
    mesh = int(min(mesh, *data.shape))
    filled = np.where(bad, 0, data).astype(np.float32)
    result = sep.Background(filled, mask=bad, bw=mesh, bh=mesh, fw=3, fh=3)
    noise = result.rms().astype(np.float32)
    # A cell that is masked throughout has no noise of its own.
    typical = float(result.globalrms)
    return Background(result.back().astype(np.float32), np.where(noise > 0, noise, typical).astype(np.float32))
