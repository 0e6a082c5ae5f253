"""Moffat profiles, integrated over pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class MoffatPsf:
    """An elliptical Moffat profile that changes over the image.

    ``scale`` holds the relative changes of the FWHM with u, v and u^2 + v^2, ``twist`` those of e1 with u and e2 with
    v, where u and v run from -1 to 1 over the image.
    """

    fwhm: float
    beta: float
    e1: float
    e2: float
    scale: tuple[float, float, float]
    twist: tuple[float, float]

    def covariance(self, x, y, shape):
        """Return the elements xx, xy, yy of the matrix M of the profile (1 + r M^-1 r)^-beta at positions."""
        u, v = 2 * x / (shape[1] - 1) - 1, 2 * y / (shape[0] - 1) - 1
        width = 1 + self.scale[0] * u + self.scale[1] * v + self.scale[2] * (u**2 + v**2)
        e1, e2 = self.e1 + self.twist[0] * u, self.e2 + self.twist[1] * v
        alpha = self.fwhm / (2 * np.sqrt(2 ** (1 / self.beta) - 1))
        norm = (alpha * width) ** 2 / np.sqrt(1 - e1**2 - e2**2)
        return norm * (1 + e1), norm * e2, norm * (1 - e1)


def psf_stamps(psf: MoffatPsf, x, y, shape, half: int):
    """Return the pixel-integrated unit-flux profiles of point sources.

    Parameters
    ----------
    psf : Psf
    x, y : (n,) arrays
        Pixel positions.
    shape : (int, int)
        Shape of the image.
    half : int
        The stamps' half size.

    Returns
    -------
    stamps : (n, 2 half + 1, 2 half + 1) float32 array
        Integrated over each pixel with 3 x 3 Gauss-Legendre nodes; their sum lacks what falls outside.
    ix, iy : (n,) int arrays
        Pixel of the stamps' centres.
    """
    ix, iy = np.rint(x).astype(int), np.rint(y).astype(int)
    xx, xy, yy = psf.covariance(x, y, shape)
    det = xx * yy - xy**2
    a, b, c = (np.asarray(term / det, np.float32)[:, None, None] for term in (yy, -2 * xy, xx))
    grid = np.arange(-half, half + 1)
    stamps = np.zeros((len(ix), grid.size, grid.size), np.float32)
    nodes = ((-np.sqrt(0.15), 5 / 18), (0.0, 8 / 18), (np.sqrt(0.15), 5 / 18))
    for sub_y, weight_y in nodes:
        dy = (grid + sub_y - (y - iy)[:, None]).astype(np.float32)[:, :, None]
        for sub_x, weight_x in nodes:
            dx = (grid + sub_x - (x - ix)[:, None]).astype(np.float32)[:, None, :]
            radius2 = a * dx**2 + b * dx * dy + c * dy**2
            stamps += np.float32(weight_x * weight_y) * np.exp(np.float32(-psf.beta) * np.log1p(radius2))
    return stamps * ((psf.beta - 1) / (np.pi * np.sqrt(det))).astype(np.float32)[:, None, None], ix, iy
