"""Find and measure what the difference holds, and tell real from bogus."""

import sklearn.calibration  # a warm process then imports both once for all images
import sklearn.ensemble  # noqa: F401

from nightsift.fakes.recovery import recovery
from nightsift.image.background import background
from nightsift.image.padding import PAD
from nightsift.io.fits import read_image
from nightsift.io.products import read_wcs
from nightsift.photometry.solution import ZeroPointModel
from nightsift.transients.transients import Calibration, cutouts, transients
from nightsift.workflow.candidates import write_found
from nightsift.workflow.differences import read_search
from nightsift.workflow.stage import Stage

STAGE = Stage(
    "transients",
    __doc__,
    inputs={
        "exposure": "the FITS image",
        "inspect": "facts of inspect",
        "photometry": "facts of photometry",
        "objects": "objects of photometry",
        "difference": "difference of subtract",
        "subtract": "facts of subtract",
        "psf": "PSF of subtract",
        "template": "template on the image's pixels",
        "wcs": "solution of astrometry",
        "fakes": "fakes of fakes",
        "catalog": "catalogue of the field",
    },
    outputs={"candidates": "table:candidates", "everything": "table:candidates", "cutouts": "images"},
)


def work(job):
    inspected, subtracted = job.facts_of("inspect"), job.facts_of("subtract")
    image = read_image(job.inputs["exposure"], inspected["hdu"]).data
    search, fakes = read_search(job, image), job.read_table("fakes")
    solution = ZeroPointModel.from_dict(job.facts_of("photometry"))
    calibration = Calibration(solution.zero_point, read_wcs(job.inputs["wcs"]), job.read_table("catalog"))
    result = job.call(transients, search, job.read_table("objects"), job.params, fakes, calibration)
    complete = recovery(fakes, result.passed, image, search, solution.zero_point, job.params)
    real = write_found(job, result.candidates, "is_real", "candidates")
    template = job.read_images("template")[0]["TEMPLATE"][PAD:-PAD, PAD:-PAD]
    stack = [image - background(image, search.mask != 0, 64).level, template, search.difference, search.snr]
    stamps = cutouts(stack, real["x"], real["y"], job.params.cutout)
    job.write_images("cutouts", {"CUTOUTS": stamps} if len(stamps) else {})
    job.facts |= {
        "n_candidates": len(real),
        "n_set_aside": len(result.candidates) - len(real),
        "coverage": subtracted["coverage"],
        "threshold": result.threshold,
        "model": result.model.card,
        "completeness": complete,
    }


def main(arguments=None):
    return STAGE.run(work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
