"""Bring the template onto the image's pixels."""

import numpy as np
from astropy.wcs import WCS

from nightsift import parameters
from nightsift.detect.detect import detect, plain
from nightsift.detect.ghosts import BRIGHT, doubled, near, peaks
from nightsift.errors import NotAsked, Rejected
from nightsift.flags import Mask
from nightsift.header import filters
from nightsift.header.header import described
from nightsift.header.readers import read_exptime, read_filter, read_gain
from nightsift.image.padding import PAD
from nightsift.inspect.inspect import Overrides, inspect
from nightsift.io.digests import digest
from nightsift.io.fits import fits_files, read_header, read_image, read_mask
from nightsift.io.products import read_wcs
from nightsift.sources import lightcurves
from nightsift.template import coadd
from nightsift.template.mosaic import grid, mosaic
from nightsift.template.placing import place
from nightsift.template.template import TemplateImage, crop, template
from nightsift.workflow.stage import Stage

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
# No part of a template is too small.
AS_TEMPLATE = parameters.InspectConfig(max_masked=1.0, min_size=16)


def from_file(job, path, wcs, shape):
    """Return the part of a FITS file that an image needs."""
    image = read_image(path)
    compare_filters(job, path, image.header)
    user_mask = read_mask(job.inputs["usermask"], image.data.shape) if job.inputs["usermask"] else None
    return inspected(job, image.data, image.header, user_mask, wcs, shape)


def compare_filters(job, path, header):
    """Warn of a template in another filter than the image's."""
    facts, (band, name, _) = job.facts_of("inspect"), read_filter(header)
    ours, theirs = facts["filter"], facts["filter_name"] or ""
    if filters.differ(ours, theirs, band, name):
        job.warnings.append(
            f"template: {path.name} is in another filter than the image ({titled(band, name)},"
            f" {titled(ours, theirs)}): stars of unusual colour look variable. Give a template in the same filter or,"
            " where the headers are wrong, the image's filter in the sample sheet"
        )


def titled(band, name):
    """Return a filter as a person reads it."""
    return f"{name!r} (band {band})" if band and band != name else repr(name)


def outlines(job, paths):
    """Yield files and what their headers say of them; what cannot be read is warned of."""
    for path in paths:
        try:
            header, shape = read_header(path)
            known = described(header, shape, Overrides(), [])
        except Rejected as reason:
            job.warnings.append(f"template: {reason}")
            continue
        if known["wcs_header"] is None:
            job.warnings.append(f"template: {path.name} has no usable WCS")
            continue
        yield path, coadd.Outline(WCS(known["wcs_header"]), shape, known["filter"], known["exptime"])


def from_folder(job, wcs, shape):
    """Return the template made of those images of a folder that an image needs."""
    usable = list(outlines(job, fits_files(job.inputs["source"])))
    if not usable:
        raise Rejected("no image of the template's folder can be used")
    paths, known = zip(*usable, strict=True)
    band = job.facts_of("inspect")["filter"]
    chosen = job.call(coadd.choose, known, wcs, shape, band, job.params.max_pieces)
    job.facts["files"] = {paths[k].name: digest(paths[k]) for k in chosen}
    if len(chosen) == 1:
        return from_file(job, paths[chosen[0]], wcs, shape)
    pieces, factors, objects, first = [], {}, job.read_table("detections"), None
    for path in (paths[k] for k in chosen):
        try:
            part = from_file(job, path, wcs, shape)
        except Rejected as reason:
            job.warnings.append(f"template: {path.name}: {reason}: not used")
            continue
        ratio = flux_ratio(part, objects, wcs)
        if ratio is None:
            job.warnings.append(f"template: too few stars tell the flux scale of {path.name}: not used")
            continue
        first = first or (ratio, coadd.flat(part.wcs))
        factors[path.name] = first[0] / ratio
        pieces.append(job.call(coadd.piece, part, factors[path.name]))
    if not pieces:
        raise Rejected("the images of the template's folder share too few stars with the image to be joined")
    job.facts["factors"] = factors
    joined = job.call(mosaic, pieces, *grid(first[1], *coadd.around(wcs, shape)))
    return needed(job, TemplateImage(joined.data, joined.mask.astype(np.uint16), joined.wcs, joined.noise), wcs, shape)


def flux_ratio(part, objects, wcs):
    """Return the flux that stars have in a template, relative to the image; None if too few tell."""
    try:
        found = detect(part.data, part.mask, part.gain, parameters.DetectConfig()).objects
    except Rejected:
        return None
    return coadd.flux_ratio(found, part.wcs, objects, wcs)


def from_mosaic(job, wcs, shape):
    """Return the part that an image needs of the template that fetch_template has made."""
    planes, header = job.read_images("mosaic")
    data, mask = planes["TEMPLATE"], planes["MASK"].astype(np.uint16)
    if "NOISE" in planes:
        return needed(job, TemplateImage(data, mask, WCS(header), planes["NOISE"]), wcs, shape)
    absent = (mask & int(Mask.NONFINITE)) != 0
    return inspected(job, np.where(absent, np.float32(np.nan), data), header, (mask != 0) & ~absent, wcs, shape)


def needed(job, source, image_wcs, shape):
    """Return the part of a template that an image needs."""
    return source.cut(job.call(crop, source.wcs, image_wcs, shape, source.data.shape))


def inspected(job, data, header, user_mask, image_wcs, shape):
    """Return the part that an image needs of a template of which nothing is known but its header and pixels."""
    cards = described(header, data.shape, Overrides(), [])["wcs_header"]
    if cards is None:
        return placed(job, data, header, user_mask, image_wcs, shape)
    part = job.call(crop, WCS(cards), image_wcs, shape, data.shape)
    data, user_mask = data[part], None if user_mask is None else user_mask[part]
    about, gain = looked_at(job, data, header, user_mask)
    return TemplateImage(data, about.mask, WCS(cards)[part], None, gain, about.saturation)


def looked_at(job, data, header, user_mask):
    """Return what `inspect` finds in a template, and its gain where that is known."""
    known = Overrides(gain=job.params.gain, saturation=job.params.saturation)
    about = job.call(inspect, data, header, AS_TEMPLATE, known, user_mask)
    # Of a stack, a gain guessed from the sky means nothing.
    known = job.params.gain or read_gain(header, read_exptime(header)[0])[0]
    return about, about.gain if known else None


def placed(job, data, header, user_mask, image_wcs, shape):
    """Return the part that an image needs of a template without a WCS: the image's stars tell its place."""
    about, gain = looked_at(job, data, header, user_mask)
    objects = job.read_table("detections")
    solved = place(data, about.mask, gain, header, objects, image_wcs, shape)
    job.facts["placed"] = {name: getattr(solved, name) for name in ("n_matches", "rms", "order")}
    job.warnings.append(
        f"template: it has no usable WCS: {solved.n_matches} stars of the image told its place, to"
        f" {max(solved.rms):.2g} arcsec a star"
    )
    return needed(job, TemplateImage(data, about.mask, solved.wcs, None, gain, about.saturation), image_wcs, shape)


def refuse_doubled(result, detections, most):
    """Refuse a template whose stars come in pairs."""
    fwhm = float(np.nanmedian(detections["fwhm"][:BRIGHT]))
    pairs = doubled(*peaks(result.data, result.noise, result.mask != 0, fwhm), fwhm)
    if pairs is None or pairs.share <= most:
        x, y = plain(detections, fwhm)
        seen = lightcurves.covered(x + PAD, y + PAD, result.mask)
        pairs = near(result.data, x[seen] + PAD, y[seen] + PAD, fwhm)
    if pairs is not None and pairs.share > most:
        raise Rejected(f"the template is a double exposure: {pairs}")


def work(job):
    if job.inputs["source"] is None and job.inputs["mosaic"] is None:
        raise NotAsked("no template is configured")
    wcs = read_wcs(job.inputs["wcs"])
    shape = tuple(job.facts_of("inspect")["shape"])
    if job.inputs["mosaic"]:
        source = from_mosaic(job, wcs, shape)
    elif job.inputs["source"].is_dir():
        source = from_folder(job, wcs, shape)
    else:
        source = from_file(job, job.inputs["source"], wcs, shape)
    detections = job.read_table("detections")
    result = job.call(template, source, wcs, shape, job.params, detections)
    refuse_doubled(result, detections, job.params.max_doubled)
    frame = wcs.to_header(relax=True)
    frame["CRPIX1"] += PAD
    frame["CRPIX2"] += PAD
    frame["NSPAD"] = (PAD, "pixels around the image's own")
    frame["NSPHOTON"] = (result.photons, "its noise holds the photons of its sources")
    layers = {"TEMPLATE": result.data, "NOISE": result.noise, "MASK": result.mask}
    job.write_images("template", layers | {"CORRELATION": result.correlation}, frame)
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
