"""What has to be added to errors for the pulls of a sample to be those of a Gaussian."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

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
