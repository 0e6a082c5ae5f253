"""Bring the template onto the image's pixels."""

from astropy.wcs import WCS

from nightsift import parameters
from nightsift.errors import NotAsked, Rejected
from nightsift.headers import read_exptime, read_gain
from nightsift.inspect import Overrides, inspect
from nightsift.io.fits import read_image, read_mask
from nightsift.io.products import read_wcs
from nightsift.io.stage import Stage
from nightsift.template import PAD, crop, template

STAGE = Stage(
    "template",
    __doc__,
    inputs={
        "wcs": "solution of astrometry",
        "inspect": "facts of inspect",
        "detections": "detections of detect",
        "source": "the template",
        "usermask": "FITS mask of the template, not 0 = bad",
    },
    outputs={"template": "images"},
    optional=("source", "usermask"),
)
# No part of a template is too small.
AS_TEMPLATE = parameters.Inspect(max_masked=1.0, min_size=16)


def work(job):
    if job.inputs["source"] is None:
        raise NotAsked("no template is configured")
    wcs = read_wcs(job.inputs["wcs"])
    shape = tuple(job.facts_of("inspect")["shape"])
    image = read_image(job.inputs["source"])
    known = Overrides(gain=job.params.gain, saturation=job.params.saturation)
    user_mask = read_mask(job.inputs["usermask"], image.data.shape) if job.inputs["usermask"] else None
    about = job.call(inspect, image.data, image.header, AS_TEMPLATE, known, user_mask)
    if about.wcs_header is None:
        raise Rejected("the template has no usable WCS")
    place = WCS(about.wcs_header)
    part = job.call(crop, place, wcs, shape, image.data.shape)
    # Of a stack, a gain guessed from the sky means nothing.
    gain = about.gain if job.params.gain or read_gain(image.header, read_exptime(image.header)[0])[0] else None
    objects = job.read_table("detections")
    result = job.call(template, image.data[part], about.mask[part], place[part], wcs, shape, gain, job.params, objects)
    frame = wcs.to_header(relax=True)
    frame["CRPIX1"] += PAD
    frame["CRPIX2"] += PAD
    frame["NSPAD"] = (PAD, "pixels around the image's own")
    job.write_images("template", {"TEMPLATE": result.data, "NOISE": result.noise, "MASK": result.mask}, frame)
    job.facts |= {"coverage": result.coverage, "area": result.area, "gain": gain, "saturation": about.saturation}
    names = ("n_stars", "order", "rms_before", "rms", "shift")
    job.facts["registration"] = {name: getattr(result.registration, name) for name in names}


def main(arguments=None):
    return STAGE.run(work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
