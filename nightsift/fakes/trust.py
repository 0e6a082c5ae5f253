"""Whether a search can be trusted, by the fakes that went through it."""

from __future__ import annotations

import numpy as np
from astropy.table import Table

from nightsift import parameters
from nightsift.errors import Rejected
from nightsift.fakes.completeness import interval

BRIGHT = 20.0  # S/N of fakes that no search on empty sky may miss
FEWEST = 10  # such fakes that make a share


def trusted(fakes: Table, passed, deeper: float, params: parameters.TransientsConfig) -> None:
    """Refuse a search that misses what is plain, or claims to see what its image cannot show.

    Parameters
    ----------
    fakes : Table
        Schema ``fakes``.
    passed : 1-D bool array
        Which of them the search has found and calls real.
    deeper : float
        Magnitudes by which half of the fakes on empty sky are found beyond the image's own limit; NaN for unknown.
    params : parameters.Transients

    Raises
    ------
    Rejected
        If fewer bright fakes than ``params.min_recovered`` are found, beyond the error of counting, or if `deeper` is
        more than ``params.max_deeper``.
    """
    bright = (np.asarray(fakes["kind"], str) == "sky") & (np.asarray(fakes["true_snr"]) >= BRIGHT)
    number, found = int(bright.sum()), int(np.sum(np.asarray(passed, bool) & bright))
    if number >= FEWEST and interval(found, number)[1] < params.min_recovered:
        raise Rejected(
            f"of {number} fakes of S/N {BRIGHT:g} or more on empty sky {found} were found, less than"
            f" {params.min_recovered:.0%}: is the image subtracted from itself, or are its errors wrong?"
        )
    if deeper > params.max_deeper:
        raise Rejected(
            f"half of the fakes are found {deeper:.2f} mag beyond the image's own limit,"
            f" more than {params.max_deeper:g} mag: the noise is underrated, as where the template holds the image"
        )
