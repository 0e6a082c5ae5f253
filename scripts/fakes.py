"""Put fakes into the image and let them go through masking, subtraction and search."""

import zlib

import numpy as np

from nightsift import parameters
from nightsift.background import background
from nightsift.cosmics import find_cosmics
from nightsift.errors import Rejected
from nightsift.fakes import examples, plan
from nightsift.io.differences import read_search, saturated
from nightsift.io.fits import read_image
from nightsift.io.hotpants import run_hotpants
from nightsift.io.stage import Stage
from nightsift.measure import Search
from nightsift.planes import Mask
from nightsift.psf import Psf
from nightsift.subtract import Exposure, Reference, subtract
from nightsift.tables import empty
from nightsift.transients import find, noise_threshold

STAGE = Stage(
    "fakes",
    __doc__,
    inputs={
        "exposure": "the FITS image",
        "inspect": "facts of inspect",
        "detect": "facts of detect",
        "mask": "mask of inspect",
        "objects": "objects of photometry",
        "template": "template on the image's pixels",
        "difference": "difference of subtract",
        "subtract": "facts of subtract",
        "psf": "PSF of subtract",
        "image_psf": "PSF of psf",
    },
    outputs={"fakes": "table:fakes"},
)
MESH = 64
DEPTH = 0.8  # of the threshold: what is fainter teaches, too, what noise looks like


def work(job):
    if not job.params.density:
        job.write_table("fakes", empty("fakes"), "fakes")
        return
    inspected = job.facts_of("inspect")
    image = read_image(job.inputs["exposure"], inspected["hdu"]).data
    search, objects = read_search(job, image), job.read_table("objects")
    seed = job.params.seed + zlib.crc32(job.image.encode())
    planned = job.call(plan, image, search, objects, image_psf(job, search), seed, job.params)
    try:
        found, fwhm = job.call(searched, job, planned.data, planned.objects, inspected)
    except Rejected as refusal:
        job.warnings.append(f"fakes: the image with fakes was refused: {refusal}")
        job.write_table("fakes", empty("fakes"), "fakes")
        return
    job.write_table("fakes", examples(planned, found, fwhm), "fakes")
    job.facts |= {"n_fakes": len(planned.fakes)}


def image_psf(job, search):
    """PSF of the image; where there is none, that of the difference, which is mostly the same."""
    images, header = job.read_images("image_psf")
    return Psf.from_images(images, header) if images else search.psf


def searched(job, data, objects, inspected):
    """Mask, subtract and search an image as the stages inspect, subtract and transients do."""
    before, after = (parameters.STAGES[name](**job.extra[name]) for name in ("inspect", "transients"))
    mask = job.read_images("mask")[0]["PRIMARY"]
    burnt = saturated(data, inspected["saturation"])
    mask |= np.where(burnt, int(Mask.SATURATED), 0).astype(mask.dtype)
    if before.cosmics:
        sky, bad = background(data, mask != 0, MESH), mask != 0
        hit = find_cosmics(data, sky.level, sky.noise, inspected["gain"], bad, before.cosmic_sigma)
        mask |= np.where(hit, int(Mask.COSMIC), 0).astype(mask.dtype)
    detected = job.facts_of("detect")
    exposure = Exposure(data, mask, inspected["gain"], detected["fwhm"], detected["aperture"])
    layers = job.read_images("template")[0]
    reference = Reference(layers["TEMPLATE"], layers["NOISE"], layers["MASK"])
    result = subtract(exposure, reference, objects, parameters.Subtract(**job.extra["subtract"]), run_hotpants)
    search = Search(
        difference=result.data,
        sigma=result.sigma,
        snr=result.snr,
        mask=result.mask,
        model=result.model,
        saturated=burnt,
        psf=result.psf,
        noise=result.facts["noise_correlation"],
        residual=result.facts["residual"],
        mismatch=result.facts["mismatch"],
        gain=inspected["gain"],
        flux_scale_err=result.facts["flux_scale_err"],
    )
    threshold = after.threshold or noise_threshold(result.psf.fwhm, after.false_alarms)
    return find(search, objects, threshold, after, DEPTH)[0], result.psf.fwhm


def main(arguments=None):
    return STAGE.run(work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
