"""Put fakes into the image and let them go through masking, subtraction and search."""

import zlib

import numpy as np

from nightsift import parameters
from nightsift.errors import Rejected
from nightsift.external.hotpants import run_hotpants
from nightsift.fakes.fakes import examples, plan
from nightsift.flags import Mask
from nightsift.image.background import background
from nightsift.image.cosmics import find_cosmics
from nightsift.io.fits import read_image
from nightsift.psf.model import Psf
from nightsift.subtract.difference import Exposure, Reference, Search
from nightsift.subtract.subtract import subtract
from nightsift.tables import empty
from nightsift.transients.transients import find, noise_threshold
from nightsift.workflow.differences import read_search, saturated
from nightsift.workflow.stage import Stage

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
MESH = 64  # pixels of the background under cosmic rays, as in inspect
DEPTH = 0.8  # of the threshold: what is fainter teaches, too, what noise looks like


def work(job):
    if not job.params.density:
        job.write_table("fakes", empty("fakes"), "fakes")
        return
    inspected = job.facts_of("inspect")
    image = read_image(job.inputs["exposure"], inspected["hdu"]).data
    search, objects = read_search(job, image), job.read_table("objects")
    mask, (layers, about_template) = job.read_images("mask")[0]["PRIMARY"], job.read_images("template")
    planes = (layers[name] for name in ("TEMPLATE", "NOISE", "MASK", "CORRELATION"))
    reference = Reference(*planes, photons=about_template["NSPHOTON"])
    names = "fwhm", "aperture", "noise_autocorrelation", "background_size"
    about = inspected | {name: job.facts_of("detect")[name] for name in names}
    seed = job.params.seed + zlib.crc32(job.image.encode())
    planned = job.call(plan, image, search, objects, image_psf(job, search), seed, job.params)
    try:
        found, fwhm = job.call(searched, planned, mask, reference, about, job.extra)
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


def searched(planned, mask, reference, about, extra):
    """Mask, subtract and search an image as the stages inspect, subtract and transients do.

    `about` is what inspect and detect found out about the image, `extra` the configuration of the three stages.
    """
    sections = {name: parameters.STAGES[name](**values) for name, values in extra.items()}
    data, mask, gain = planned.data, mask.copy(), about["gain"]
    burnt = saturated(data, about["saturation"])
    mask |= np.where(burnt, int(Mask.SATURATED), 0).astype(mask.dtype)
    if sections["inspect"].cosmics:
        sky, bad = background(data, mask != 0, MESH), mask != 0
        limits = sections["inspect"].cosmic_sigma, sections["inspect"].cosmic_fwhm
        hit = find_cosmics(data, sky.level, sky.noise, gain, bad, *limits).mask
        mask |= np.where(hit, int(Mask.COSMIC), 0).astype(mask.dtype)
    correlation = np.array(about["noise_autocorrelation"])
    exposure = Exposure(data, mask, gain, about["fwhm"], about["aperture"], correlation, about["background_size"])
    result = subtract(exposure, reference, planned.objects, sections["subtract"], run_hotpants)
    after = sections["transients"]
    threshold = after.threshold or noise_threshold(result.psf.fwhm, after.false_alarms)
    search = Search.of(result, burnt, gain)
    return find(search, planned.objects, threshold, after, DEPTH), result.psf.fwhm


def main(arguments=None):
    return STAGE.run(work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
