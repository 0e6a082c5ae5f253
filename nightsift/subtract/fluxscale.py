"""How well the flux scale of an image's PSF is known, by the stars themselves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

GUESS = 0.01  # relative scatter that a few stars, which cannot tell, are taken to have
FLOOR = 0.002  # where within a pixel a source stands alone makes as much
OUTLIERS, FAR = 0.05, 0.1  # share of the stars that have neighbours or have been mistaken, and their scatter
NEIGHBOURS = 0.01  # what light of neighbours in the apertures may make of the mean


@dataclass(frozen=True)
class FluxScale:
    """Fluxes with a PSF relative to those in the aperture: their mean, and their scatter about it, noise apart."""

    ratio: float
    error: float


def flux_scale(ratio, error, free: bool) -> FluxScale:
    """Compare the PSF fluxes of stars with their aperture fluxes.

    Parameters
    ----------
    ratio, error : 1-D arrays
        PSF flux over aperture flux of each star, and its standard deviation by noise.
    free : bool
        The ratio may be anything. Otherwise it is 1 but for errors of the PSF: one near 1 (by `NEIGHBOURS`) is held
        for light of neighbours in the apertures, which the PSF does not have, and the mean is drawn to 1.

    Returns
    -------
    FluxScale
        The scatter is the root of the posterior mean of its square, at least `FLOOR`. The likelihood is that of
        Gaussian errors with a share of outliers, the prior 1 / (1 + (s / GUESS)^2): an image with a few faint stars has
        the error that is usual.
    """
    ratio, error = (np.asarray(values, float) for values in (ratio, error))
    good = np.isfinite(ratio) & np.isfinite(error) & (ratio > 0)
    ratio, error = ratio[good], np.maximum(error[good], 1e-4)
    if not len(ratio):
        return FluxScale(1.0, float(np.hypot(GUESS, FLOOR)))
    center, scatter = float(np.median(ratio)), GUESS
    for _ in range(4):
        width = np.hypot(error, scatter)
        weight = (np.abs(ratio - center) < 3 * width) / width**2
        if weight.any():
            center = float(np.sum(weight * ratio) / weight.sum())
        scatter = scatter_beyond(ratio / center - 1, error / center)
    if not free:
        off = center - 1
        center = 1 + off * off**2 / (off**2 + NEIGHBOURS**2)
        scatter = scatter_beyond(ratio / center - 1, error / center)
    return FluxScale(center, float(np.hypot(scatter, FLOOR)))


def scatter_beyond(off, error) -> float:
    """Return the scatter of relative fluxes beyond their errors: the root of the posterior mean of `FluxScale`."""
    grid = np.geomspace(3e-4, 0.3, 120)
    inner, outer = error[:, None] ** 2 + grid**2, error[:, None] ** 2 + FAR**2
    square = off[:, None] ** 2
    share = (1 - OUTLIERS) * np.exp(-square / (2 * inner)) / np.sqrt(inner)
    share += OUTLIERS * np.exp(-square / (2 * outer)) / np.sqrt(outer)
    logarithm = np.log(np.maximum(share, 1e-300)).sum(axis=0) - np.log1p((grid / GUESS) ** 2)
    # The grid's steps grow with it.
    density = np.exp(logarithm - logarithm.max()) * grid
    return float(np.sqrt(np.sum(density * grid**2) / density.sum()))
