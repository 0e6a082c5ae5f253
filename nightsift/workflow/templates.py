"""Read what the stage `template` needs: the image that the template is for, and what it is made of."""

from __future__ import annotations

from functools import partial

from nightsift.io.fits import fits_files, read_header, read_image, read_mask
from nightsift.io.products import read_wcs
from nightsift.template.alignment import Target
from nightsift.template.preparation import RawTemplate, Source, TemplateFile, from_planes


def read_target(job) -> Target:
    """Return the image of a job with the inputs ``wcs, inspect, detections``."""
    facts = job.facts_of("inspect")
    wcs, objects = read_wcs(job.inputs["wcs"]), job.read_table("detections")
    return Target(wcs, tuple(facts["shape"]), objects, facts["filter"], facts["filter_name"] or "")


def read_source(job) -> Source | None:
    """Return what a job with the inputs ``mosaic, source, usermask`` has a template of; None where there is nothing."""
    source, mask = job.inputs["source"], job.inputs["usermask"]
    if job.inputs["mosaic"]:
        return from_planes(*job.read_images("mosaic"))
    if source is None:
        return None
    if not source.is_dir():
        return _read_raw(source, mask)
    return [
        TemplateFile(path.name, partial(read_header, path), partial(_read_raw, path, mask))
        for path in fits_files(source)
    ]


def _read_raw(path, mask) -> RawTemplate:
    image = read_image(path)
    return RawTemplate(image.data, image.header, read_mask(mask, image.data.shape) if mask else None, path.name)
