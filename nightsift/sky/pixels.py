"""Positions of pixels that stand for a whole image."""

from __future__ import annotations

import numpy as np


def grid(shape, points=25, margin=0.02):
    """Return complex 0-based pixels of a regular grid over the image and a little beyond."""
    height, width = shape
    x = np.linspace(-margin * width, (1 + margin) * width - 1, points)
    y = np.linspace(-margin * height, (1 + margin) * height - 1, points)
    return (x[None, :] + 1j * y[:, None]).ravel()
