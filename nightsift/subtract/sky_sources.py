"""What a point-source measurement finds where there is nothing: the test of a difference's errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nightsift.psf.forced import forced
from nightsift.psf.model import Psf

BLOCK = 100  # places at a time: more need memory


@dataclass(frozen=True)
class SkySources:
    """S/N of PSF fluxes at empty places: median and robust sigma, 0 and 1 for honest errors; number of places."""

    median: float
    sigma: float
    number: int


def sky_sources(difference, sigma, bad, psf: Psf, correlation: float, empty, number: int = 400) -> SkySources:
    """Measure empty places of a difference as any candidate is measured.

    Parameters
    ----------
    difference, sigma : 2-D arrays
        Difference and standard deviation of its pixels, ADU.
    bad : 2-D bool array
        Pixels without weight.
    psf : Psf
        Of the difference.
    correlation : float
        Factor from the error of a PSF flux in white noise to the true one.
    empty : 2-D bool array
        Where there is nothing.
    number : int
        Places, chosen at random with a fixed seed.

    Returns
    -------
    SkySources
        NaN where fewer than 20 places can be measured.
    """
    until = np.cumsum(empty.sum(axis=1))
    if until[-1] < 20:
        return SkySources(np.nan, np.nan, 0)
    rng = np.random.default_rng(0)
    chosen = rng.choice(until[-1], min(number, until[-1]), replace=False)
    rows = np.searchsorted(until, chosen, side="right")
    # Counted from the end of a row; the places of all empty pixels would need more memory than the image.
    columns = np.array([np.flatnonzero(empty[row])[rank] for row, rank in zip(rows, chosen - until[rows], strict=True)])
    shift = rng.uniform(-0.5, 0.5, (2, len(chosen)))
    places = np.array_split(np.stack([columns, rows]) + shift, max(1, len(chosen) // BLOCK), axis=1)
    fits = [forced(difference, sigma, bad, psf, *part) for part in places]
    snr = np.concatenate([fit.flux / (fit.fluxerr * correlation) for fit in fits])
    snr = snr[np.isfinite(snr)]
    if len(snr) < 20:
        return SkySources(np.nan, np.nan, len(snr))
    low, middle, high = np.percentile(snr, [15.865, 50, 84.135])
    return SkySources(float(middle), float(high - low) / 2, len(snr))
