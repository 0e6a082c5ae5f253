"""Tie the magnitudes of an image to the catalogue."""

import numpy as np
from astropy.table import Table
from astropy.wcs.utils import proj_plane_pixel_scales

from nightsift.io.products import read_wcs
from nightsift.photometry.colorterms import catalog_color
from nightsift.photometry.magnitudes import calibrate
from nightsift.photometry.photometry import photometry
from nightsift.photometry.solution import ApertureSeeing
from nightsift.psf.confusion import without_neighbours
from nightsift.tables import column
from nightsift.workflow.stage import Stage

STAGE = Stage(
    "photometry",
    __doc__,
    inputs={
        "inspect": "facts of inspect",
        "detect": "facts of detect",
        "detections": "detections of detect",
        "psf": "PSF photometry of psf",
        "shape": "facts of psf",
        "wcs": "solution of astrometry",
        "catalog": "stars of catalog",
    },
    outputs={"objects": "table:objects", "calibrators": "table:calibrators"},
)
PER_MATCH = ("match_object", "match_catalog", "used", "residual", "contamination")


def work(job):
    inspected, detected, shape = job.facts_of("inspect"), job.facts_of("detect"), job.facts_of("shape")
    wcs = read_wcs(job.inputs["wcs"])
    objects, stars = job.read_table("detections"), job.read_table("catalog")
    objects.add_columns(list(job.read_table("psf").columns.values()))
    objects = without_neighbours(objects)
    objects["ra"], objects["dec"] = wcs.all_pix2world(objects["x"], objects["y"], 0)
    scale = float(np.mean(proj_plane_pixel_scales(wcs))) * 3600
    growth = shape.get("growth")
    growth = np.nan if growth is None else growth
    seeing = ApertureSeeing(detected["fwhm"], scale, detected["aperture"], tuple(inspected["shape"]), growth)
    result = job.call(photometry, objects, stars, seeing, inspected["filter"], job.params)
    job.write_table("objects", calibrate(objects, result, stars), "objects")
    job.write_table("calibrators", calibrators(objects, stars, result), "calibrators")
    facts = result.to_dict() | dict.fromkeys(PER_MATCH, ())
    job.doubt(result.doubts)
    job.facts |= facts | {"pixscale": scale}


def calibrators(objects, stars, result):
    rows, found = result.stars.match_object, result.stars.match_catalog
    flux = np.asarray(objects["flux"], float)[rows]
    with np.errstate(invalid="ignore", divide="ignore"):
        instrumental = -2.5 * np.log10(flux)
    return Table(
        {
            "x": objects["x"][rows],
            "y": objects["y"][rows],
            "mag_cat": column(stars, f"{result.model.band}mag")[found],
            "mag_instr": instrumental,
            "error": 1.0857 * np.asarray(objects["fluxerr"], float)[rows] / flux,
            "color": catalog_color(stars, result.model.color)[found],
            "residual": result.stars.residual,
            "contamination": result.stars.contamination,
            "used": result.stars.used,
        }
    )


def main(arguments=None):
    return STAGE.run(work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
