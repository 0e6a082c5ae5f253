"""The aperture correction of an image, from the growth of its stars."""

from __future__ import annotations

import numpy as np

from nightsift.photometry import zeropoint
from nightsift.psf.growth import MAX_ERROR, MIN_STARS

MAX_SCATTER = 0.3  # largest scatter beyond the errors that is fitted, mag
_FLOOR = 0.002  # error that the brightest stars have, mag


# Many parameters: four columns of stars and their positions.
def aperture_correction(
    x, y, flux, value, error, shape: tuple[int, int], max_order: int
) -> zeropoint.ZeroPointFit | None:
    """Fit the growth of stars as a polynomial in position, of the order that they support.

    Parameters
    ----------
    x, y : array, shape (n,)
        Positions [px].
    flux : array, shape (n,)
        In the aperture [ADU].
    value, error : array, shape (n,)
        As from `growth` [mag].
    shape : (ny, nx)
    max_order : int

    Returns
    -------
    zeropoint.Fit or None
        None with fewer than 3 stars whose growth is known to 0.1 mag.

    Notes
    -----
    In crowded fields the light of what is too faint to be seen adds to that of every star: a term in 1 / flux takes it
    off where it is there. Such light also scatters, most in the growth of faint stars: then `zeropoint.choose` scales
    the errors. Where it is the PSF that changes, in the steps of a mosaic, it adds a scatter alike for all.
    """
    usable = np.isfinite(value) & (error < MAX_ERROR)
    if usable.sum() < MIN_STARS:
        return None
    inverse = (np.median(flux[usable]) / flux)[:, None]
    stars = zeropoint.CalibrationStars(
        *zeropoint.scaled(x, y, shape), value, error**2 + _FLOOR**2, extra=inverse, names=("background",)
    ).take(usable)
    return zeropoint.choose(stars, max_order, MAX_SCATTER)
