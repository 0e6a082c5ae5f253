"""Read an image's header, check it against the pixels, and mask what is bad."""

if __name__ == "inspect":
    # Python looks first in the folder of the script that it runs, so every script beside this file that (through numpy,
    # say) imports the standard library's `inspect` finds this one: give it the real one.
    import importlib.util
    import sys
    import sysconfig

    _specification = importlib.util.spec_from_file_location("inspect", sysconfig.get_path("stdlib") + "/inspect.py")
    sys.modules["inspect"] = importlib.util.module_from_spec(_specification)
    _specification.loader.exec_module(sys.modules["inspect"])
else:
    from astropy.wcs import WCS

    from nightsift.errors import Rejected
    from nightsift.external.solve_field import SOLVERS, FieldSearch
    from nightsift.inspect import blind
    from nightsift.inspect.inspect import inspect
    from nightsift.io.fits import read_mask
    from nightsift.sky import sphere
    from nightsift.sky.wcs import center_sky, pixel_scale
    from nightsift.workflow.exposures import read_exposure
    from nightsift.workflow.stage import Stage

    STAGE = Stage(
        "inspect",
        __doc__,
        inputs={"exposure": "the FITS image", "usermask": "FITS mask, not 0 = bad"},
        outputs={"mask": "images"},
        optional=("usermask",),
    )


def work(job):
    exposure = read_exposure(job.inputs["exposure"], job.extra)
    job.warnings += [f"inspect: {note}" for note in exposure.warnings]
    image, hints = exposure.image, exposure.hints
    user_mask = read_mask(job.inputs["usermask"], image.data.shape) if job.inputs["usermask"] else None
    result = job.call(inspect, image.data, image.header, job.params, exposure.overrides, user_mask)
    facts = {key: value for key, value in vars(result).items() if key not in ("mask", "wcs_header", "warnings")}
    header, found = place(job, image.data, result, facts | hints, hints)
    job.write_images("mask", {"MASK": result.mask}, header)
    text = header.tostring(sep="\n") if header is not None else None
    shape = list(image.data.shape)
    job.facts |= {**facts, **found, "hinted": sorted(hints), "shape": shape, "hdu": image.hdu, "wcs": text}


def place(job, data, result, known, hints):
    """Return the solution to start from, and what is known of the place: by the header, the hints, or a search."""
    header, shape = result.wcs_header, data.shape
    if header is not None and {"ra", "dec"} <= set(hints):
        problem = blind.contradiction(header, shape, hints["ra"], hints["dec"], hints.get("radius"))
        job.warnings += [f"inspect: {problem}"] if problem else []
        header = None if problem else header
    scales = blind.scale_range(known["pixscale"])
    position = None if None in (known["ra"], known["dec"]) else (known["ra"], known["dec"])
    found = {key: known.get(key) for key in ("ra", "dec", "radius")}
    found |= {"pixscale": known["pixscale"], "pixscale_range": None}
    if isinstance(known["pixscale"], list):
        found |= {"pixscale": (scales[0] * scales[1]) ** 0.5, "pixscale_range": scales}
    if header is not None or (position and scales) or not job.params.solve_time:
        return header, found
    cone = position and (*position, known.get("radius") or sphere.FAR)
    search = FieldSearch(job.params.solve_time, scales, cone, job.params.indexes)
    try:
        header = SOLVERS[job.params.solver](*blind.brightest(data, result.mask), shape, search)
    except Rejected as reason:
        job.warnings.append(f"inspect: the place of the image is not known: {reason}")
        return None, found
    wcs = WCS(header)
    ra, dec = center_sky(wcs, shape)
    place = f"{job.params.solver} places the image at {ra:.4f} {dec:+.4f}"
    job.warnings.append(f"inspect: the header has no usable WCS: {place}")
    return header, found | {"ra": ra, "dec": dec, "pixscale": 3600 * pixel_scale(wcs, shape)}


def main(arguments=None):
    return STAGE.run(work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
