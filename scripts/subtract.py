"""Match the template to the image and subtract it."""

from astropy.io import fits

from nightsift.external.hotpants import run_hotpants
from nightsift.io.fits import read_image
from nightsift.io.products import reading
from nightsift.subtract.subtract import subtract
from nightsift.workflow.differences import read_exposure, read_reference
from nightsift.workflow.stage import Stage

STAGE = Stage(
    "subtract",
    __doc__,
    inputs={
        "exposure": "the FITS image",
        "inspect": "facts of inspect",
        "detect": "facts of detect",
        "mask": "mask of inspect",
        "objects": "objects of photometry",
        "template": "template on the image's pixels",
        "wcs": "solution of astrometry",
    },
    outputs={"difference": "images", "psf": "images"},
)


def work(job):
    exposure = read_exposure(job, read_image(job.inputs["exposure"], job.facts_of("inspect")["hdu"]).data)
    reference = read_reference(job)
    result = job.call(subtract, exposure, reference, job.read_table("objects"), job.params, run_hotpants)
    with reading(job.inputs["wcs"]):
        header = fits.getheader(job.inputs["wcs"])
    for name in [key for key in header if key.startswith("NS")] + ["SIMPLE", "BITPIX", "NAXIS", "EXTEND"]:
        header.remove(name, ignore_missing=True)
    layers = {"DIFFERENCE": result.data, "SIGMA": result.sigma, "SNR": result.snr, "MASK": result.mask}
    job.write_images("difference", layers | {"MODEL": result.model}, header)
    images, about = result.psf.to_images()
    result.quality.to_header(about)
    job.write_images("psf", images, about)
    job.facts |= result.facts


def main(arguments=None):
    return STAGE.run(work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
