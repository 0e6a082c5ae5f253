"""Whether an object is broader than a point source."""

from __future__ import annotations

import numpy as np

EXTENDED = 3.0  # standard deviations of `spread` beyond which a star is none
LEAST_SPREAD = 0.0015  # that what is no star has in any case: of the brightest the PSF's errors are all that shows
WIDEST = 0.006  # `spread` and its error together: up to there an object is hardly a galaxy


def extended(spread, spread_err) -> np.ndarray:
    """Tell which objects are wider than the PSF, by arrays of their `spread` and its error: galaxies, or merged stars.

    Measured of pairs half a FWHM apart or more that were not told apart: of equal stars all from S/N 30 on, of 1 to 4
    all from S/N 100 on; of single stars 0.1 per cent.
    """
    with np.errstate(invalid="ignore"):
        return (spread > EXTENDED * spread_err) & (spread > LEAST_SPREAD)
