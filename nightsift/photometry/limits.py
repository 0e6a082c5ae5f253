"""How faint an image goes: the S/N model of its objects, and the noise in an aperture."""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls

from nightsift.statistics import SIGMA_PER_MAD

_HUBER = 1.5
_FEWEST = 10
_CELLS, _A_CELL = 8, 10


def inverse_gain(flux, fluxerr, bgerr) -> float:
    """Return 1/gain [ADU/e-] from what the objects' own light adds to their flux errors; 0 if it adds nothing.

    Parameters
    ----------
    flux, fluxerr, bgerr : array, shape (n,)
        Flux, its error, and the part of the error that is there without the object [ADU].
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        # only where the object's own noise is a visible part of the error is the difference more than rounding
        good = (flux > 0) & (fluxerr**2 > 1.02 * bgerr**2) & np.isfinite(flux) & np.isfinite(fluxerr)
    if not good.any():
        return 0.0
    return float(np.median((fluxerr[good] ** 2 - bgerr[good] ** 2) / flux[good]))


def flux_limit(bgerr, inv_gain: float, snr: float) -> np.ndarray:
    """Return the flux [ADU] at which ``flux / sqrt(flux * inv_gain + bgerr**2)`` is `snr`."""
    return snr / 2 * (snr * inv_gain + np.sqrt((snr * inv_gain) ** 2 + 4 * np.square(bgerr)))


def snr_model(mag, snr) -> np.ndarray | None:
    """Fit ``1 / snr**2 = p0 * 10**(0.8 mag) + p1 * 10**(0.4 mag) + p2``: background, photon noise, floor.

    Parameters
    ----------
    mag, snr : array, shape (n,)
        Calibrated magnitudes and flux/fluxerr of the objects.

    Returns
    -------
    ndarray, shape (3,), or None
        Coefficients, none of them negative; None with fewer than 10 objects.

    Notes
    -----
    The model is that of STDPipe (Karpov 2024, arXiv:2411.16470) with a floor; here the fit is of relative residuals
    under a Huber loss, and non-negative.
    """
    good = np.isfinite(mag) & np.isfinite(snr) & (snr > 1)
    if good.sum() < _FEWEST:
        return None
    mag, target = np.asarray(mag, float)[good], 1 / np.asarray(snr, float)[good] ** 2
    middle = np.median(mag)
    power = 10 ** (0.4 * (mag - middle))
    design = np.stack([power**2, power, np.ones_like(power)], axis=1)
    weight = 1 / target
    for _ in range(8):
        scaled = design * weight[:, None]
        norm = np.linalg.norm(scaled, axis=0)
        coefficients = nnls(scaled / norm, target * weight)[0] / norm
        model = design @ coefficients
        # relative to the model, not to the noisy value, or low values would draw the fit
        ratio = target / model - 1
        scale = max(SIGMA_PER_MAD * np.median(np.abs(ratio)), 1e-6)
        weight = np.sqrt(np.minimum(1, _HUBER * scale / np.maximum(np.abs(ratio), 1e-12))) / model
    return coefficients * np.array([10 ** (-0.8 * middle), 10 ** (-0.4 * middle), 1.0])


def limiting_magnitude(coefficients, snr: float) -> float:
    """Return the magnitude at which the S/N model reaches `snr`; NaN if it never does."""
    p0, p1, p2 = coefficients
    rest = 1 / snr**2 - p2
    if rest <= 0 or (p0 <= 0 and p1 <= 0):
        return np.nan
    # the form of the root that stays exact when p0 is tiny
    power = 2 * rest / (p1 + np.sqrt(p1**2 + 4 * p0 * rest))
    return float(2.5 * np.log10(power))


def limit_map(x, y, limit, shape: tuple[int, int]) -> np.ndarray:
    """Return how a limit varies over the image: medians of the objects' own in cells of equal size.

    Parameters
    ----------
    x, y, limit : array, shape (n,)
        Positions [px] and limiting magnitudes there.
    shape : (ny, nx)

    Returns
    -------
    ndarray, shape (cells, cells)
        Rows along y; up to 8 cells a side, such that there are 10 objects in each on average; NaN without objects.
    """
    cells = int(np.clip(np.sqrt(len(limit) / _A_CELL), 1, _CELLS))
    column, row = (
        np.clip((np.asarray(p) + 0.5) / side * cells, 0, cells - 1).astype(int)
        for p, side in zip((x, y), shape[::-1], strict=True)
    )
    result = np.full((cells, cells), np.nan)
    for i, j in np.ndindex(cells, cells):
        here = np.asarray(limit)[(row == i) & (column == j)]
        if len(here):
            result[i, j] = np.median(here)
    return result
