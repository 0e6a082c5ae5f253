"""Match the objects with the catalogue and refine the image's WCS."""

import numpy as np
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

from nightsift.astrometry.astrometry import Hint, astrometry
from nightsift.workflow.stage import Stage

STAGE = Stage(
    "astrometry",
    __doc__,
    inputs={
        "inspect": "facts of inspect",
        "detections": "detections of detect",
        "catalog": "stars of catalog",
    },
    outputs={"wcs": "images", "matches": "table:matches"},
)


def work(job):
    facts = job.facts_of("inspect")
    header = fits.Header.fromstring(facts["wcs"], sep="\n") if facts["wcs"] else None
    hint = Hint(
        wcs=WCS(header) if header else None,
        ra=facts["ra"],
        dec=facts["dec"],
        radius=facts["radius"],
        pixscale=facts["pixscale"],
        pixscale_range=facts["pixscale_range"],
    )
    objects, stars = job.read_table("detections"), job.read_table("catalog")
    shape = tuple(facts["shape"])
    result = job.call(astrometry, objects, stars, hint, shape, job.params, band_hint=facts["filter"])
    cards = result.header.copy()
    cards["IMAGEW"], cards["IMAGEH"] = (
        (shape[1], "width of the image, pixels"),
        (shape[0], "height of the image, pixels"),
    )
    job.write_images("wcs", {"WCS": None}, cards)
    job.write_table("matches", matches(objects, stars, result), "matches")
    names = ("order", "rms", "n_matches", "n_used", "log_odds", "shift", "rotation", "scale", "kept_input", "seen")
    job.doubt(result.doubts)
    job.facts |= {name: getattr(result, name) for name in (*names, "residual_map")}


def matches(objects, stars, result):
    rows, found = np.asarray(result.object_index), np.asarray(result.catalog_index)
    return Table(
        {
            "object": rows,
            "x": objects["x"][rows],
            "y": objects["y"][rows],
            "ra": stars["ra"][found],
            "dec": stars["dec"][found],
            "dx": result.residual_x,
            "dy": result.residual_y,
        }
    )


def main(arguments=None):
    return STAGE.run(work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
