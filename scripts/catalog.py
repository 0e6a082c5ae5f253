"""Take the stars of an image's field from the catalogue, at the epoch of the image."""

import math

from astropy.io import fits
from astropy.wcs import WCS

from nightsift.catalog import catalog, field
from nightsift.errors import Rejected
from nightsift.io.catalogs import read_catalog
from nightsift.io.stage import Stage
from nightsift.locate import RADIUS

STAGE = Stage(
    "catalog",
    __doc__,
    inputs={"inspect": "facts of inspect", "stars": "the catalogue"},
    outputs={"catalog": "table:catalog"},
)


def work(job):
    facts = job.facts_of("inspect")
    if facts["wcs"]:
        wcs = WCS(fits.Header.fromstring(facts["wcs"], sep="\n"))
        cone = field(wcs, tuple(facts["shape"]), job.params.margin)
    elif facts["ra"] is not None and facts["dec"] is not None:
        scale = facts["pixscale_range"][1] if facts["pixscale_range"] else facts["pixscale"] or 0
        reach = 0.5 * math.hypot(*facts["shape"]) * scale / 3600 * (1 + 2 * job.params.margin)
        cone = facts["ra"], facts["dec"], (facts["radius"] or RADIUS) + reach
    else:
        raise Rejected("no WCS in the header and no position hint")
    result = job.call(catalog, read_catalog(job.inputs["stars"]), *cone, facts["mjd"], job.params)
    job.write_table("catalog", result.table, "catalog")
    job.facts |= {"n_stars": result.n, "center": cone[:2], "radius": cone[2]}


def main(arguments=None):
    return STAGE.run(work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
