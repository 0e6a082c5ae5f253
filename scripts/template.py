"""Bring the template onto the image's pixels."""

from nightsift.errors import NotAsked
from nightsift.image.padding import PAD
from nightsift.io.digests import digest
from nightsift.template.template import template
from nightsift.workflow.stage import Stage
from nightsift.workflow.templates import read_source, read_target

STAGE = Stage(
    "template",
    __doc__,
    inputs={
        "wcs": "solution of astrometry",
        "inspect": "facts of inspect",
        "detections": "detections of detect",
        "source": "the template, or a folder of images to make it of",
        "mosaic": "what fetch_template made, in place of it",
        "usermask": "FITS mask of the template, not 0 = bad",
    },
    outputs={"template": "images"},
    optional=("source", "mosaic", "usermask"),
)


def work(job):
    source = read_source(job)
    if source is None:
        raise NotAsked("no template is configured")
    target = read_target(job)
    result = job.call(template, source, target, job.params)
    header = target.wcs.to_header(relax=True)
    header["CRPIX1"] += PAD
    header["CRPIX2"] += PAD
    header["NSPAD"] = (PAD, "pixels around the image's own")
    header["NSPHOTON"] = (result.photons, "its noise holds the photons of its sources")
    planes = {"TEMPLATE": result.data, "NOISE": result.noise, "MASK": result.mask, "CORRELATION": result.correlation}
    job.write_images("template", planes, header)
    job.facts |= result.facts
    if result.files:
        job.facts["files"] = {name: digest(job.inputs["source"] / name) for name in result.files}


def main(arguments=None):
    return STAGE.run(work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
