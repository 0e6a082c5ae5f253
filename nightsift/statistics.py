"""Robust statistics: constants, fits that leave outliers out, and errors that make pulls those of a Gaussian."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

#: standard deviation of a Gaussian over its median absolute deviation
SIGMA_PER_MAD = 1.4826
#: full width at half maximum of a Gaussian over its standard deviation
FWHM_PER_SIGMA = 2.3548
#: change of a magnitude with the relative change of a flux: 2.5 / ln 10 [mag]
MAG = 2.5 / np.log(10)

MEDIAN = 0.4549  # of the square of a standard Gaussian


def balanced(squared: Callable[[float], np.ndarray], high: float) -> float:
    """Return the value between 0 and `high` for which the median of the squared pulls is that of a Gaussian.

    Parameters
    ----------
    squared : callable
        Returns the squares of the pulls, which fall as the value rises.
    high : float
    """
    low = 0.0
    for _ in range(40):
        middle = (low + high) / 2
        if np.median(squared(middle)) > MEDIAN:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def robust_sigma(values):
    """Return the standard deviation about zero of a normal distribution of the same median absolute value."""
    return float(SIGMA_PER_MAD * np.median(np.abs(values))) if np.size(values) else np.nan


def solve(design, target, weight=None):
    """Return the least-squares coefficients; `weight` is 1 / variance."""
    if weight is None or len(design) < 200:
        root = np.ones(len(design)) if weight is None else np.sqrt(weight)
        return np.linalg.lstsq(design * root[:, None], target * root[:, None], rcond=None)[0]
    # normal equations are many times faster on tall matrices; one step of refinement restores the digits they cost
    weighted = (design * (weight / weight.mean())[:, None]).T
    gram = weighted @ design
    solution = np.linalg.lstsq(gram, weighted @ target, rcond=None)[0]
    return solution + np.linalg.lstsq(gram, weighted @ (target - design @ solution), rcond=None)[0]


def clipped_fit(design, target, sigma=None, clip=3.5, iterations=8):
    """Fit by least squares, leaving out what deviates by more than `clip` robust sigma.

    Parameters
    ----------
    design : (n, k) array
        Design matrix.
    target : (n, 2) array
        Values.
    sigma : (n,) array, optional
        Relative errors of the values.
    clip : float
    iterations : int
        How often at the most.

    Returns
    -------
    coefficients : (k, 2) array
        The solution.
    used : (n,) bool array
        What was not left out; never fewer than half.
    """
    sigma = np.ones(len(design)) if sigma is None else sigma
    used = np.ones(len(design), bool)
    for _ in range(iterations):
        solution = solve(design[used], target[used], 1 / sigma[used] ** 2)
        deviation = np.hypot(*(design @ solution - target).T) / sigma
        # the median of a Rayleigh distribution lies at 1.1774 sigma; a fit leaves n - k of n
        freedom = max(len(design[used]) - design.shape[1], 1) / used.sum()
        scale = np.median(deviation[used]) / 1.1774 / np.sqrt(freedom)
        limit = max(clip * scale, np.median(deviation))
        now = deviation <= limit
        if now.sum() < design.shape[1] + 1 or np.array_equal(now, used):
            break
        used = now
    return solution, used


def held_out(design, target, weight, folds=10):
    """Return predicted minus true of every star, from the fit to the other folds; `weight` is 1 / variance."""
    fold = np.random.default_rng(1).permutation(len(design)) % min(folds, len(design))
    grams = [(design[fold == k].T * weight[fold == k]) @ design[fold == k] for k in range(fold.max() + 1)]
    rights = [(design[fold == k].T * weight[fold == k]) @ target[fold == k] for k in range(fold.max() + 1)]
    gram, right = sum(grams), sum(rights)
    residual = np.empty_like(target)
    for k in range(fold.max() + 1):
        solution = np.linalg.lstsq(gram - grams[k], right - rights[k], rcond=None)[0]
        residual[fold == k] = design[fold == k] @ solution - target[fold == k]
    return residual


def leverage(design, elsewhere, weight=None):
    """Return the variance of a fit's prediction at each row of `elsewhere`, in units of a datum's of unit weight."""
    gram = (design.T * (1.0 if weight is None else weight)) @ design
    if np.linalg.matrix_rank(gram) < len(gram):
        return np.full(len(elsewhere), np.inf)
    return np.einsum("ij,ji->i", elsewhere, np.linalg.solve(gram, elsewhere.T))
