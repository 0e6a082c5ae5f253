"""Read what the stage `subtract` starts from, and what it left for the stages that search it."""

from __future__ import annotations

import numpy as np

from nightsift.psf.model import Psf
from nightsift.subtract.difference import DifferenceQuality, Exposure, Reference, Search, saturated


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


def read_exposure(job, image: np.ndarray) -> Exposure:
    """Return what a job with the inputs ``mask, inspect, detect`` subtracts from; `image` is the exposure."""
    inspected, detected = job.facts_of("inspect"), job.facts_of("detect")
    return Exposure(
        data=image,
        mask=job.read_images("mask")[0]["PRIMARY"],
        gain=inspected["gain"],
        fwhm=detected["fwhm"],
        aperture=detected["aperture"],
        correlation=np.array(detected["noise_autocorrelation"]),
        background_size=detected["background_size"],
    )


def read_reference(job) -> Reference:
    """Return what a job with the input ``template`` subtracts."""
    layers, about = job.read_images("template")
    planes = (layers[name] for name in ("TEMPLATE", "NOISE", "MASK", "CORRELATION"))
    return Reference(*planes, photons=about["NSPHOTON"])
