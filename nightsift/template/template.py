"""Stage `template`: a template on the pixels of an image, whatever it comes as."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from astropy.table import Table

from nightsift import parameters
from nightsift.detect.detect import plain
from nightsift.detect.ghosts import BRIGHT, doubled, near, peaks
from nightsift.errors import NotAsked, Rejected, Stopped
from nightsift.image.padding import PAD
from nightsift.image.stamps import on_clean_pixel
from nightsift.template.alignment import Target, Template, align
from nightsift.template.preparation import Source, prepare

REGISTRATION = ("n_stars", "order", "rms_before", "rms", "shift")
PLACED = ("n_matches", "rms", "order")


def template(source: Source, target: Target, params: parameters.TemplateConfig) -> Template:
    """Bring a template onto the pixels of an image.

    Parameters
    ----------
    source : TemplateImage, RawTemplate or sequence of TemplateFile
        The template, the pixels and header that may become one, or the files that it is to be made of.
    target : Target
        The image.
    params : parameters.TemplateConfig

    Returns
    -------
    Template
        Its ``facts`` say what it is made of and how it was placed.

    Raises
    ------
    NotAsked
        If the configuration wants no template.
    Rejected
        If the source cannot be used, covers less than ``params.min_coverage`` of the image, shows other stars or is a
        double exposure; the exception has the `warnings` until then.
    """
    if params.source == "none":
        raise NotAsked("no template is configured")
    warnings: list[str] = []
    try:
        prepared = prepare(source, target, params, warnings)
        result = align(prepared.image, target, params)
        warnings += result.warnings
        if target.objects is not None:
            refuse_doubled(result, target.objects, params.max_doubled)
    except Stopped as stop:
        stop.warnings = tuple(warnings)
        raise
    facts = {
        "coverage": result.coverage,
        "area": result.area,
        "gain": prepared.image.gain,
        "saturation": prepared.image.saturation,
        "registration": {name: getattr(result.registration, name, None) for name in REGISTRATION},
    }
    if prepared.placed is not None:
        facts["placed"] = {name: getattr(prepared.placed, name) for name in PLACED}
    facts |= {"factors": prepared.factors} if prepared.factors else {}
    return replace(result, warnings=tuple(warnings), files=prepared.files, facts=facts)


def refuse_doubled(result: Template, objects: Table, most: float) -> None:
    """Refuse a template of whose stars more than a fraction `most` come in pairs.

    Raises
    ------
    Rejected
    """
    fwhm = float(np.nanmedian(objects["fwhm"][:BRIGHT]))
    pairs = doubled(*peaks(result.data, result.noise, result.mask != 0, fwhm), fwhm)
    if pairs is None or pairs.fraction <= most:
        x, y = plain(objects, fwhm)
        seen = on_clean_pixel(x + PAD, y + PAD, result.mask)
        pairs = near(result.data, x[seen] + PAD, y[seen] + PAD, fwhm)
    if pairs is not None and pairs.fraction > most:
        raise Rejected(f"the template is a double exposure: {pairs}")
