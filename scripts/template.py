"""Bring the template onto the image's pixels."""

import numpy as np
from astropy.wcs import WCS

from nightsift import parameters
from nightsift.errors import NotAsked, Rejected
from nightsift.headers import read_exptime, read_gain
from nightsift.inspect import Overrides, inspect
from nightsift.io.fits import read_image, read_mask
from nightsift.io.products import read_wcs
from nightsift.io.stage import Stage
from nightsift.planes import Mask
from nightsift.template import PAD, Source, crop, template

STAGE = Stage(
    "template",
    __doc__,
    inputs={
        "wcs": "solution of astrometry",
        "inspect": "facts of inspect",
        "detections": "detections of detect",
        "source": "the template",
        "mosaic": "what fetch_template made, in place of it",
        "usermask": "FITS mask of the template, not 0 = bad",
    },
    outputs={"template": "images"},
    optional=("source", "mosaic", "usermask"),
)
# No part of a template is too small.
AS_TEMPLATE = parameters.Inspect(max_masked=1.0, min_size=16)


def from_file(job):
    """Return the template of a FITS file."""
    image = read_image(job.inputs["source"])
    user_mask = read_mask(job.inputs["usermask"], image.data.shape) if job.inputs["usermask"] else None
    return inspected(job, image.data, image.header, user_mask)


def from_mosaic(job):
    """Return the template that fetch_template has made."""
    planes, header = job.read_images("mosaic")
    data, mask = planes["TEMPLATE"], planes["MASK"].astype(np.uint16)
    if "NOISE" in planes:
        return Source(data, mask, WCS(header), planes["NOISE"])
    absent = (mask & int(Mask.NONFINITE)) != 0
    return inspected(job, np.where(absent, np.float32(np.nan), data), header, (mask != 0) & ~absent)


def inspected(job, data, header, user_mask):
    """Return a template of which nothing is known but its header and pixels."""
    known = Overrides(gain=job.params.gain, saturation=job.params.saturation)
    about = job.call(inspect, data, header, AS_TEMPLATE, known, user_mask)
    if about.wcs_header is None:
        raise Rejected("the template has no usable WCS")
    # Of a stack, a gain guessed from the sky means nothing.
    gain = about.gain if job.params.gain or read_gain(header, read_exptime(header)[0])[0] else None
    return Source(data, about.mask, WCS(about.wcs_header), None, gain, about.saturation)


def work(job):
    if job.inputs["source"] is None and job.inputs["mosaic"] is None:
        raise NotAsked("no template is configured")
    wcs = read_wcs(job.inputs["wcs"])
    shape = tuple(job.facts_of("inspect")["shape"])
    source = from_mosaic(job) if job.inputs["mosaic"] else from_file(job)
    part = job.call(crop, source.wcs, wcs, shape, source.data.shape)
    result = job.call(template, source.cut(part), wcs, shape, job.params, job.read_table("detections"))
    frame = wcs.to_header(relax=True)
    frame["CRPIX1"] += PAD
    frame["CRPIX2"] += PAD
    frame["NSPAD"] = (PAD, "pixels around the image's own")
    job.write_images("template", {"TEMPLATE": result.data, "NOISE": result.noise, "MASK": result.mask}, frame)
    job.facts |= {
        "coverage": result.coverage,
        "area": result.area,
        "gain": source.gain,
        "saturation": source.saturation,
    }
    names = ("n_stars", "order", "rms_before", "rms", "shift")
    job.facts["registration"] = {name: getattr(result.registration, name) for name in names}


def main(arguments=None):
    return STAGE.run(work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
