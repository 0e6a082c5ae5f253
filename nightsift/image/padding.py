"""Images with a margin of sky around them, and without it again."""

from __future__ import annotations

import numpy as np

PAD = 24  # pixels around the image that are filled too: kernels and filters at its border rest on them


def unpad(framed: np.ndarray) -> np.ndarray:
    """Return the image proper of a framed one, as a view."""
    return framed[PAD:-PAD, PAD:-PAD]
