"""How much of what is there an image's search finds: the efficiency of fakes as a function of S/N or magnitude."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise

import numpy as np
from scipy.optimize import minimize
from scipy.special import betaincinv, erf, erfinv

STARTS = (0.003, 0.03, 0.1, 0.3)  # widths of the fall that the fit begins with, relative to the range of the fakes
PRECISE = {"xatol": 1e-5, "fatol": 1e-7, "maxiter": 2000}
FEWEST = 12  # fakes that a curve needs


@dataclass(frozen=True)
class Curve:
    """Efficiency top x (1 + erf((s - middle) / (width sqrt 2))) / 2.

    Attributes
    ----------
    top, middle, width : float
        Plateau, place and width of the rise.
    half, half_err, ninety, ninety_err : float
        Where the efficiency is 50 and 90 per cent, with standard deviations; NaN where it never is.
    number, found : int
        Fakes, and how many of them were found.
    bins : tuple
        (lower edge, upper edge, fakes, found) of each bin.
    """

    top: float
    middle: float
    width: float
    half: float
    half_err: float
    ninety: float
    ninety_err: float
    number: int
    found: int
    bins: tuple

    def to_dict(self) -> dict:
        """Return it as plain types."""
        return asdict(self)


def completeness(value, found, edges) -> Curve | None:
    """Fit the efficiency curve by maximum likelihood.

    Parameters
    ----------
    value : 1-D array
        S/N of each fake; for magnitudes, their negatives, so that larger is brighter.
    found : 1-D bool array
    edges : sequence of float
        Edges of the bins that are counted beside the fit.

    Returns
    -------
    Curve or None
        None with fewer than `FEWEST` fakes, or if none or all were found.
    """
    value, found = np.asarray(value, float), np.asarray(found, bool)
    good = np.isfinite(value)
    value, found = value[good], found[good]
    if len(value) < FEWEST or found.all() or not found.any():
        return None
    best = None
    # Far brighter fakes that were missed make a second minimum, with a fall as wide as all of them.
    for share in STARTS:
        start = _start(value, found, share)
        scale = np.array([1.0, np.exp(start[2]), 1.0])
        result = minimize(_cost, start / scale, (value, found, scale), method="Nelder-Mead", options=PRECISE)
        if best is None or result.fun < best[0].fun:
            best = result, scale
    result, scale = best
    covariance = _covariance(lambda at: _cost(at, value, found, scale), result.x) * np.outer(scale, scale)
    raw = result.x * scale
    half, half_err = _limit(raw, covariance, 0.5)
    ninety, ninety_err = _limit(raw, covariance, 0.9)
    top, middle, width = _natural(raw)
    bins = []
    for low, high in pairwise(edges):
        inside = (value >= low) & (value < high)
        bins.append((float(low), float(high), int(inside.sum()), int(found[inside].sum())))
    return Curve(
        float(top),
        float(middle),
        float(width),
        half,
        half_err,
        ninety,
        ninety_err,
        len(value),
        int(found.sum()),
        tuple(bins),
    )


def interval(found, number) -> tuple[np.ndarray, np.ndarray]:
    """Return the central 68.3 per cent interval of an efficiency from counts (Cameron 2011, PASA 28, 128, eq. 3).

    It is stretched to the observed share where that lies beyond: none or all found.
    """
    found, number = np.asarray(found, float), np.asarray(number, float)
    low, high = (betaincinv(found + 1, number - found + 1, share) for share in (0.1587, 0.8413))
    observed = found / np.maximum(number, 1)
    return np.minimum(low, observed), np.maximum(high, observed)


def _cost(parameters, value, found, scale) -> float:
    natural = _natural(parameters * scale)
    share = np.clip(efficiency(value, *natural), 1e-6, 1 - 1e-6)
    # A weak prior for a full plateau keeps it there where no bright fake says otherwise.
    prior = np.square((natural[0] - 1) / 0.3) / 2
    return prior - np.sum(np.log(np.where(found, share, 1 - share)))


def _start(value, found, share):
    """Begin where as many are missed above as are found below, with a width of a share of the range."""
    order = np.argsort(value)
    missed = np.cumsum((~found[order])[::-1])[::-1]
    gained = np.cumsum(found[order])
    middle = value[order][np.argmin(np.abs(missed - gained))]
    return np.array([3.0, middle, np.log(max(share * np.ptp(value), 1e-3))])


def _natural(raw):
    return 1 / (1 + np.exp(-raw[0])), raw[1], np.exp(np.clip(raw[2], -6, 6))


def efficiency(value, top, middle, width):
    """Return the share of sources found at `value`: the function of `Curve`."""
    return top * (1 + erf((value - middle) / (width * np.sqrt(2)))) / 2


def _limit(raw, covariance, level):
    def place(parameters):
        top, middle, width = _natural(parameters)
        return middle + width * np.sqrt(2) * erfinv(2 * level / top - 1) if top > level else np.nan

    value = place(raw)
    step = np.array([1e-3, 1e-3, 1e-3])
    gradient = np.array([(place(raw + d) - place(raw - d)) / (2e-3) for d in np.diag(step)])
    error = np.sqrt(max(gradient @ covariance @ gradient, 0)) if np.isfinite(gradient).all() else np.nan
    return float(value), float(error)


def _covariance(cost, best):
    """Inverse of the Hessian of the negative logarithm of the likelihood, by differences."""
    size, step = len(best), 1e-2
    hessian = np.zeros((size, size))
    unit = np.eye(size) * step
    for i in range(size):
        for j in range(i, size):
            total = cost(best + unit[i] + unit[j]) - cost(best + unit[i] - unit[j])
            total += cost(best - unit[i] - unit[j]) - cost(best - unit[i] + unit[j])
            hessian[i, j] = hessian[j, i] = total / (4 * step**2)
    return np.linalg.pinv(hessian + 1e-9 * np.eye(size))
