"""Take the stars of an image's field from the archives: from the cache, and from a service what is not in it yet."""

from nightsift.archive import catalogs
from nightsift.archive.library import Library
from nightsift.catalog.catalog import cone
from nightsift.errors import Rejected
from nightsift.header.header import described
from nightsift.tables import empty
from nightsift.workflow.exposures import read_exposure
from nightsift.workflow.stage import Stage

STAGE = Stage(
    "fetch_catalog",
    __doc__,
    inputs={"exposure": "the FITS image"},
    outputs={"stars": "table:fetched", "gaia": "table:fetched"},
    section="catalog",
)


def where(job):
    """Return the cone and the band of an image; None where its header does not tell, which later stages will say."""
    try:
        exposure = read_exposure(job.inputs["exposure"], job.extra)
        shape = exposure.image.data.shape
        known = described(exposure.image.header, shape, exposure.overrides, []) | {"shape": shape}
        return cone(known | exposure.hints, job.params.margin), known["filter"]
    except Rejected:
        return None


def work(job):
    place = where(job)
    stars = gaia = empty("fetched")
    if place:
        field, band = place
        faintest = job.params.faintest or catalogs.faintest(field[2])
        choices = (job.params.source,)
        if job.params.source == "auto":
            choices = catalogs.suitable(band, field[1], faintest)
        library = Library.from_environment()
        for name in choices:
            stars, cells = library.stars(name, field, faintest)
            if len(stars):
                break
        if job.params.gaia and len(stars) and not catalogs.SURVEYS[name].motion:
            gaia, more = library.stars("gaiaedr3", field, faintest)
            cells |= more
        job.facts |= {"survey": name, "title": catalogs.SURVEYS[name].title, "faintest": faintest, "cells": cells}
        job.facts |= {"n_stars": len(stars), "n_gaia": len(gaia)}
    job.write_table("stars", stars, "fetched")
    job.write_table("gaia", gaia, "fetched")


def main(arguments=None):
    return STAGE.run(work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
