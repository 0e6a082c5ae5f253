"""What looks like a transient and is none."""

from __future__ import annotations

import numpy as np
from differences import NOISE, SIZE, rendered
from scipy import ndimage


def artefacts(x, y, psf, kind, size, snr, fwhm):
    """Streaks (their length in FWHM) or blocks (pixels) of an S/N in the map at places, in random directions."""
    rng = np.random.default_rng(21)
    image = np.zeros((SIZE, SIZE), np.float32)
    profile = psf.stamp(SIZE / 2, SIZE / 2, int(np.ceil(1.5 * psf.fwhm)))
    for i, j in zip(x, y, strict=True):
        one = np.zeros((41, 41), np.float32)
        if kind == "streak":
            angle, steps = rng.uniform(0, np.pi), np.linspace(-size / 2, size / 2, 9) * fwhm
            for step in steps:
                one += rendered(20 + step * np.cos(angle), 20 + step * np.sin(angle), 1.0, fwhm, 41)
        else:
            height, width = rng.permutation(size)
            one[20 - height // 2 : 20 - height // 2 + height, 20 - width // 2 : 20 - width // 2 + width] = 1
        response = ndimage.correlate(one, profile.astype(np.float32), mode="constant").max()
        column, row = round(i), round(j)
        scale = snr * NOISE * np.sqrt(np.sum(profile**2)) / response
        image[row - 20 : row + 21, column - 20 : column + 21] += scale * one
    return image
