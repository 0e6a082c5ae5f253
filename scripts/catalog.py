"""Take the stars of an image's field from the catalogue, at the epoch of the image."""

import dataclasses

from astropy.io import fits

from nightsift.catalog.catalog import catalog, cone, with_gaia
from nightsift.catalog.conversions import converted
from nightsift.io.catalogs import read_catalog
from nightsift.workflow.stage import Stage

STAGE = Stage(
    "catalog",
    __doc__,
    inputs={
        "inspect": "facts of inspect",
        "stars": "the catalogue, or what was fetched of one",
        "fetched": "facts of fetch_catalog",
        "gaia": "stars of Gaia that were fetched besides",
    },
    outputs={"catalog": "table:catalog"},
    optional=("fetched", "gaia"),
)


def read_stars(job):
    """Return the stars, and where they are from."""
    if not job.inputs["fetched"]:
        return read_catalog(job.inputs["stars"]), job.params.source
    facts = job.facts_of("fetched")
    stars = converted(job.read_table("stars"), facts["survey"])
    return with_gaia(stars, job.read_table("gaia")), facts["title"]


def work(job):
    facts = job.facts_of("inspect")
    header = fits.Header.fromstring(facts["wcs"], sep="\n") if facts["wcs"] else None
    field = cone(facts | {"wcs_header": header}, job.params.margin)
    stars, source = read_stars(job)
    result = job.call(catalog, stars, *field, facts["mjd"], dataclasses.replace(job.params, source=source))
    job.write_table("catalog", result.table, "catalog")
    job.facts |= {"n_stars": result.n, "center": field[:2], "radius": field[2]}


def main(arguments=None):
    return STAGE.run(work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
