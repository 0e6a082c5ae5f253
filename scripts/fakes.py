"""Put fakes into the image and let them go through masking, subtraction and search."""

import zlib

from nightsift import parameters
from nightsift.external.hotpants import run_hotpants
from nightsift.fakes.fakes import Searched, StageConfigs, fakes
from nightsift.io.fits import read_image
from nightsift.psf.model import Psf
from nightsift.tables import empty
from nightsift.workflow.differences import read_exposure, read_reference, read_search
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


def work(job):
    if not job.params.density:
        job.write_table("fakes", empty("fakes"), "fakes")
        return
    inspected = job.facts_of("inspect")
    data = read_image(job.inputs["exposure"], inspected["hdu"]).data
    search = read_search(job, data)
    images, header = job.read_images("image_psf")
    image = Searched(
        exposure=read_exposure(job, data),
        saturation=inspected["saturation"],
        reference=read_reference(job),
        search=search,
        objects=job.read_table("objects"),
        # Where there is none of the image, that of the difference is mostly the same.
        psf=Psf.from_images(images, header) if images else search.psf,
    )
    stages = StageConfigs(**{name: parameters.STAGES[name](**values) for name, values in job.extra.items()})
    seed = job.params.seed + zlib.crc32(job.image.encode())
    result = job.call(fakes, image, seed, job.params, stages, run_hotpants)
    job.write_table("fakes", result.table, "fakes")
    if result.number:
        job.facts |= {"n_fakes": result.number}


def main(arguments=None):
    return STAGE.run(work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
