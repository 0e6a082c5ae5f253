"""The step in which pixel values come: 1 where they are counted, more where the numbers were multiplied afterwards."""

from __future__ import annotations

import numpy as np

_SAMPLE = 200_000
_REACH = 10.0  # sigma about the median within which values are looked at
_COARSE = 0.02  # sigma, of steps that matter
_EXACT = 0.05  # of a step, that values may be off it


def quantum(values, noise: float) -> float:
    """Return the step that all pixel values of the sky are multiples of; 0 where they have none.

    Parameters
    ----------
    values : ndarray
        Good pixels, of any unit.
    noise : float
        Sigma of the sky in that unit.
    """
    sample = np.ravel(values)[:: max(1, np.size(values) // _SAMPLE)]
    sample = sample[np.isfinite(sample)]
    if not sample.size:
        return 0.0
    steps = np.diff(np.unique(sample[np.abs(sample - np.median(sample)) <= _REACH * noise]).astype(float))
    if not steps.size:
        return 0.0
    step, span = steps.min(), steps.sum()
    # From all of them together: single ones suffer from rounding where the numbers were multiplied.
    step = span / np.rint(span / step)
    return float(step) if np.abs(steps / step - np.rint(steps / step)).max() < _EXACT else 0.0


def dithered(values, step: float, noise: float) -> tuple[np.ndarray, float]:
    """Return values with the part of a step that counting took from them, by chance, and the variance that this adds.

    Their medians know no steps. Nothing is done to steps that drown in the noise.
    """
    if not step > _COARSE * noise:
        return values, 0.0
    chance = np.random.default_rng(0).random(values.shape, np.float32)
    return values + np.float32(step) * (chance - np.float32(0.5)), step**2 / 12.0
