"""Tell flux that an image has gained from flux that its template lacks: pits in what is subtracted."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from nightsift.image.stamps import stamps
from nightsift.psf.model import Psf
from nightsift.statistics import FWHM_PER_SIGMA

RADIUS = 1.5  # FWHM of the ring that the centre is compared with: a wider one finds pits between stars
PAIRS = 8  # of opposite places on a ring


def pits(layer: np.ndarray, x, y, flux, psf: Psf) -> np.ndarray:
    """Return how much of a change a pit in one of the two images explains, relative to its flux.

    About 1 where the flux missing from `layer` is all there is to the change, whether it is missing from the
    sky or from a galaxy; 0 or less where there is none. Of a slope or the wings of a star no pit is made, as the
    centre must be darker than the mean of two opposite places in every direction.

    Parameters
    ----------
    layer : 2-D float32 array
        What was subtracted, for what has brightened, or the image, for what has faded; ADU.
    x, y : 1-D arrays
        Positions, pixels.
    flux : 1-D array
        Of the change, ADU.
    psf : Psf
    """
    x, y, size = np.asarray(x, float), np.asarray(y, float), np.abs(np.asarray(flux, float))
    if not len(x):
        return np.zeros(0)
    sigma, reach = psf.fwhm / FWHM_PER_SIGMA, int(np.ceil((RADIUS + 1) * psf.fwhm))
    column, row = np.rint(x).astype(int), np.rint(y).astype(int)
    cut = ndimage.gaussian_filter(stamps(layer, column, row, reach).astype(float), (0, sigma, sigma))
    point = ndimage.gaussian_filter(psf.stamp(psf.shape[1] / 2, psf.shape[0] / 2, reach), sigma)
    angle = np.arange(PAIRS) * (np.pi / PAIRS)
    du, dv = (np.rint(RADIUS * psf.fwhm * part).astype(int) for part in (np.cos(angle), np.sin(angle)))

    def depth(image):
        """How much lower the middle is than the lowest pair of opposite points around it."""
        pair = (image[..., reach + dv, reach + du] + image[..., reach - dv, reach - du]) / 2
        return (pair - image[..., reach, reach, None]).min(axis=-1)

    return depth(cut) / depth(-point) / np.maximum(size, 1e-30)
