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
    from nightsift.inspect import inspect
    from nightsift.io.exposures import read_exposure
    from nightsift.io.fits import read_mask
    from nightsift.io.stage import Stage

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
    job.write_images("mask", {"MASK": result.mask}, result.wcs_header)
    facts = {key: value for key, value in vars(result).items() if key not in ("mask", "wcs_header", "warnings")}
    header = result.wcs_header.tostring(sep="\n") if result.wcs_header is not None else None
    shape = list(image.data.shape)
    job.facts |= {**facts, **hints, "hinted": sorted(hints), "shape": shape, "hdu": image.hdu, "wcs": header}


def main(arguments=None):
    return STAGE.run(work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
