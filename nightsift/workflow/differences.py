"""Read back what the stage `subtract` left, for the stages that search it."""

from __future__ import annotations

import numpy as np

from nightsift.image.trails import Trail
from nightsift.psf.model import Psf
from nightsift.subtract.difference import Search


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
        noise=subtracted["noise_correlation"],
        residual=subtracted["residual"],
        mismatch=subtracted["mismatch"],
        gain=inspected["gain"],
        trails=tuple(Trail(**trail) for trail in subtracted["trails"]),
        flux_scale_err=subtracted["flux_scale_err"],
    )


def saturated(image: np.ndarray, level: float | None) -> np.ndarray:
    """Return which pixels are at or above the saturation level."""
    return image >= level if level else np.zeros(image.shape, bool)
