"""Tell what a template shows at a place by its own noise, which may be far below that of the difference."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from nightsift.image.stamps import stamps
from nightsift.statistics import FWHM_PER_SIGMA

PLAIN = 5.0  # S/N of a source of the template
NEAR = 0.5  # FWHM from the place
HALF = 8.0  # FWHM: half side of the surroundings that the noise is measured in


def shown(model: np.ndarray, x, y, fwhm: float) -> np.ndarray:
    """Tell where a template has a source that stands out of its own noise.

    Parameters
    ----------
    model : 2-D float32 array
        The template as it was subtracted.
    x, y : 1-D arrays
        Pixels.
    fwhm : float
        Of the PSF, pixels.

    Notes
    -----
    A peak of the smoothed template near the place, 5 times as high as the half of the distribution below its median is
    wide, which has hardly any stars.
    """
    column, row = np.rint(np.asarray(x)).astype(int), np.rint(np.asarray(y)).astype(int)
    if not len(column):
        return np.zeros(0, bool)
    half, sigma, reach = int(np.ceil(HALF * fwhm)), fwhm / FWHM_PER_SIGMA, int(np.ceil(NEAR * fwhm))
    result = np.zeros(len(column), bool)
    v, u = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    inner = slice(half - reach, half + reach + 1)
    for i in range(len(column)):
        # Where the template ends, it says nothing.
        cut = stamps(model, column[i : i + 1], row[i : i + 1], half, np.nan)[0].astype(float)
        inside = np.isfinite(cut) & (cut != 0)
        smooth = ndimage.gaussian_filter(np.where(inside, cut, 0), sigma)
        low, middle = np.percentile(smooth[inside], [15.865, 50]) if inside.any() else (0.0, 0.0)
        top = (smooth == ndimage.maximum_filter(smooth, 3))[inner, inner]
        top &= np.hypot(u + column[i] - x[i], v + row[i] - y[i]) <= NEAR * fwhm
        result[i] = middle > low and np.any(smooth[inner, inner][top] - middle > PLAIN * (middle - low))
    return result
