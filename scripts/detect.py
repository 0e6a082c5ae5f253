"""Find and measure the objects of an image."""

from dataclasses import asdict

import numpy as np

from nightsift.detect.detect import detect
from nightsift.external.sextractor import run_sextractor
from nightsift.io.fits import read_image
from nightsift.workflow.stage import Stage

STAGE = Stage(
    "detect",
    __doc__,
    inputs={"exposure": "the FITS image", "mask": "mask of inspect", "inspect": "facts of inspect"},
    outputs={"detections": "table:detections"},
)


def work(job):
    facts = job.facts_of("inspect")
    image = read_image(job.inputs["exposure"], facts["hdu"])
    mask = job.read_images("mask")[0]["PRIMARY"]
    find = run_sextractor if job.params.method == "sextractor" else None
    result = job.call(detect, image.data, mask, facts["gain"], job.params, find)
    job.write_table("detections", result.objects, "detections")
    job.facts |= {
        "fwhm": result.seeing.fwhm,
        "fwhm_coefficients": result.seeing.coefficients,
        "aperture": result.aperture,
        "background_size": job.params.background_size,
        "background": result.background_level,
        "noise": result.noise,
        "noise_autocorrelation": np.round(result.correlation, 4).tolist(),
        "n_objects": len(result.objects),
        "trails": [asdict(trail) for trail in result.trails],
    }


def main(arguments=None):
    return STAGE.run(work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
