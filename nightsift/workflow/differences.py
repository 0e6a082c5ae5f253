"""Read back what the stage `subtract` left, for the stages that search it."""

from __future__ import annotations

import numpy as np

from nightsift.psf.model import Psf
from nightsift.subtract.difference import DifferenceQuality, Search


def read_search(job, image: np.ndarray) -> Search:
    """Return what a job with the inputs ``difference, psf, subtract, inspect`` searches; `image` is the exposure."""
    layers, subtracted = job.read_images("difference")[0], job.facts_of("subtract")
    inspected = job.facts_of("inspect")
    return Search(
        difference=layers["DIFFERENCE"],
        sigma=layers["SIGMA"],
        snr=layers["SNR"],
        mask=layers["MASK"],
        model=layers["MODEL"],
        saturated=saturated(image, inspected["saturation"]),
        psf=Psf.from_images(*job.read_images("psf")),
        quality=DifferenceQuality.from_dict(subtracted),
        gain=inspected["gain"],
    )


def saturated(image: np.ndarray, level: float | None) -> np.ndarray:
    """Return which pixels are at or above the saturation level."""
    return image >= level if level else np.zeros(image.shape, bool)
