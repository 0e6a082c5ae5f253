"""Fit the PSF of an image to its stars, and all objects with it."""

import numpy as np
import sklearn.ensemble  # noqa: F401  a warm process then imports it once for all images

from nightsift.image.seeing import Seeing
from nightsift.image.trails import Trail
from nightsift.io.fits import read_image
from nightsift.psf.psf import psf
from nightsift.workflow.stage import Stage

STAGE = Stage(
    "psf",
    __doc__,
    inputs={
        "exposure": "the FITS image",
        "mask": "mask of inspect",
        "inspect": "facts of inspect",
        "detect": "facts of detect",
        "detections": "detections of detect",
    },
    outputs={"psf": "images", "photometry": "table:psf_photometry"},
)


def work(job):
    inspected, detected = job.facts_of("inspect"), job.facts_of("detect")
    data = read_image(job.inputs["exposure"], inspected["hdu"]).data
    mask = job.read_images("mask")[0]["PRIMARY"]
    width = tuple(detected["fwhm_coefficients"])
    seeing = Seeing(detected["fwhm"], width, order(len(width)), data.shape, 0, np.zeros(0, bool))
    objects = job.read_table("detections")
    trails = tuple(Trail(**trail) for trail in detected["trails"])
    about = detected["aperture"], job.params, trails, np.array(detected["noise_autocorrelation"])
    about += (detected["background_size"],)
    result = job.call(psf, data, mask, inspected["gain"], objects, seeing, *about)
    job.write_images("psf", *(result.psf.to_images() if result.psf else ({}, None)))
    job.write_table("photometry", result.table, "psf_photometry")
    job.facts |= result.facts


def order(count):
    """Return the order of the polynomial in two variables that has so many terms."""
    return int(np.sqrt(2 * count)) - 1


def main(arguments=None):
    return STAGE.run(work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
