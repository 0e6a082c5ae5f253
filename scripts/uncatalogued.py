"""Find the objects that the catalogue does not have, or has much fainter."""

import numpy as np

from nightsift.errors import NotAsked
from nightsift.photometry.solution import ApertureSeeing, ZeroPointModel
from nightsift.uncatalogued.uncatalogued import Frame, uncatalogued
from nightsift.workflow.candidates import write_found
from nightsift.workflow.stage import Stage

STAGE = Stage(
    "uncatalogued",
    __doc__,
    inputs={
        "inspect": "facts of inspect",
        "detect": "facts of detect",
        "astrometry": "facts of astrometry",
        "photometry": "facts of photometry",
        "mask": "mask of inspect",
        "objects": "objects of photometry",
        "catalog": "stars of catalog",
    },
    outputs={"candidates": "table:uncatalogued", "everything": "table:uncatalogued"},
)


def work(job):
    if not job.params.search:
        raise NotAsked("uncatalogued objects are not asked for")
    names = ("inspect", "detect", "astrometry", "photometry")
    inspected, detected, placed, calibrated = (job.facts_of(name) for name in names)
    seeing = ApertureSeeing(detected["fwhm"], calibrated["pixscale"], detected["aperture"], tuple(inspected["shape"]))
    rms = [np.nan if value is None else value for value in placed["rms"]]
    mask = job.read_images("mask")[0]["PRIMARY"]
    frame = Frame(seeing, ZeroPointModel.from_dict(calibrated), float(np.sqrt(np.mean(np.square(rms)))), mask)
    result = job.call(uncatalogued, job.read_table("objects"), job.read_table("catalog"), frame, job.params)
    found = write_found(job, result.table, "is_candidate", "uncatalogued")
    job.facts |= {
        "n_uncatalogued": len(found),
        "n_set_aside": len(result.table) - len(found),
        "n_catalogued": result.n_catalogued,
        "depth": result.depth,
    }


def main(arguments=None):
    return STAGE.run(work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
