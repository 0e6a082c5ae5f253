"""From what a user or an archive gives as a template to the part of it that an image needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from nightsift import parameters
from nightsift.astrometry.astrometry import Astrometry
from nightsift.detect.detect import detect
from nightsift.errors import Rejected
from nightsift.flags import Mask
from nightsift.header import filters
from nightsift.header.header import described
from nightsift.header.readers import read_exptime, read_filter, read_gain
from nightsift.inspect.inspect import Inspection, Overrides, inspect
from nightsift.template import coadd
from nightsift.template.alignment import Target, TemplateImage, crop
from nightsift.template.mosaic import grid, mosaic
from nightsift.template.placing import place

# No part of a template is too small.
AS_TEMPLATE = parameters.InspectConfig(max_masked=1.0, min_size=16)


@dataclass(frozen=True)
class RawTemplate:
    """A template of which only its pixels and header are known.

    Attributes
    ----------
    data : 2-D array
        ADU, NaN where there is no value.
    header : astropy.io.fits.Header
    user_mask : 2-D bool array or None
        Pixels not to be used.
    name : str or None
        Of its file; None where it is made for the image, so that its filter is known to be right.
    """

    data: np.ndarray
    header: fits.Header
    user_mask: np.ndarray | None = None
    name: str | None = None


@dataclass(frozen=True)
class TemplateFile:
    """One of many files that a template may be made of: its name, and what reads header and shape, and all of it."""

    name: str
    read_header: Callable[[], tuple[fits.Header, tuple[int, int]]]
    read: Callable[[], RawTemplate]


Source = TemplateImage | RawTemplate | Sequence[TemplateFile]


@dataclass(frozen=True)
class Prepared:
    """The part of a template that an image needs, and how it was made.

    Attributes
    ----------
    image : TemplateImage
    files : tuple of str
        Names of those of several files that were chosen.
    factors : dict or None
        By name of a file, what its pixels were multiplied by to join them with others.
    placed : Astrometry or None
        The solution of a template without a WCS.
    """

    image: TemplateImage
    files: tuple[str, ...] = ()
    factors: dict[str, float] | None = None
    placed: Astrometry | None = None


def from_planes(planes: dict[str, np.ndarray], header: fits.Header) -> TemplateImage | RawTemplate:
    """Return what may become a template of the planes TEMPLATE, MASK and perhaps NOISE of a survey's mosaic."""
    data, mask = planes["TEMPLATE"], planes["MASK"].astype(np.uint16)
    if "NOISE" in planes:
        return TemplateImage(data, mask, WCS(header), planes["NOISE"])
    absent = (mask & int(Mask.NONFINITE)) != 0
    return RawTemplate(np.where(absent, np.float32(np.nan), data), header, (mask != 0) & ~absent)


def prepare(source: Source, target: Target, params: parameters.TemplateConfig, warnings: list[str]) -> Prepared:
    """Return the part of a template that an image needs.

    Parameters
    ----------
    source : TemplateImage, RawTemplate or sequence of TemplateFile
    target : Target
    params : parameters.TemplateConfig
    warnings : list of str
        Gets what a user should know, also where an exception is raised.

    Raises
    ------
    Rejected
        If it does not overlap the image, or cannot be used.
    """
    if isinstance(source, TemplateImage):
        return Prepared(_needed(source, target))
    if isinstance(source, RawTemplate):
        return _inspected(source, target, params, warnings)
    return _joined(source, target, params, warnings)


def _needed(source: TemplateImage, target: Target) -> TemplateImage:
    return source.cut(crop(source.wcs, target.wcs, target.shape, source.data.shape))


def _inspected(raw: RawTemplate, target: Target, params, warnings: list[str]) -> Prepared:
    """Return the part that an image needs of a template of which nothing is known but its header and pixels."""
    if raw.name is not None:
        compare_filters(raw.name, raw.header, target, warnings)
    cards = described(raw.header, raw.data.shape, Overrides(), [])["wcs_header"]
    if cards is None:
        return _placed(raw, target, params, warnings)
    part = crop(WCS(cards), target.wcs, target.shape, raw.data.shape)
    data, user_mask = raw.data[part], None if raw.user_mask is None else raw.user_mask[part]
    about, gain = _looked_at(data, raw.header, user_mask, params, warnings)
    return Prepared(TemplateImage(data, about.mask, WCS(cards)[part], None, gain, about.saturation))


def _looked_at(data, header, user_mask, params, warnings: list[str]) -> tuple[Inspection, float | None]:
    """Return what `inspect` finds in a template, and its gain where that is known."""
    known = Overrides(gain=params.gain, saturation=params.saturation)
    about = inspect(data, header, AS_TEMPLATE, known, user_mask)
    warnings += about.warnings
    # Of a stack, a gain guessed from the sky means nothing.
    known = params.gain or read_gain(header, read_exptime(header)[0])[0]
    return about, about.gain if known else None


def _placed(raw: RawTemplate, target: Target, params, warnings: list[str]) -> Prepared:
    """Return the part that an image needs of a template without a WCS: the image's stars tell its position."""
    about, gain = _looked_at(raw.data, raw.header, raw.user_mask, params, warnings)
    image = TemplateImage(raw.data, about.mask, None, None, gain, about.saturation)
    solved = place(image, raw.header, target)
    warnings.append(
        f"it has no usable WCS: {solved.n_matches} stars of the image told its place, to"
        f" {max(solved.rms):.2g} arcsec a star"
    )
    return Prepared(_needed(replace(image, wcs=solved.wcs), target), placed=solved)


def compare_filters(name: str, header: fits.Header, target: Target, warnings: list[str]) -> None:
    """Warn of a template in another filter than the image's."""
    band, title, _ = read_filter(header)
    if filters.differ(target.band, target.filter_name, band, title):
        warnings.append(
            f"{name} is in another filter than the image ({_titled(band, title)},"
            f" {_titled(target.band, target.filter_name)}): stars of unusual colour look variable. Give a template in"
            " the same filter or, where the headers are wrong, the image's filter in the sample sheet"
        )


def _titled(band, name) -> str:
    """Return a filter as a person reads it."""
    return f"{name!r} (band {band})" if band and band != name else repr(name)


def _joined(files: Sequence[TemplateFile], target: Target, params, warnings: list[str]) -> Prepared:
    """Return the template made of those of several files that an image needs."""
    usable, outlines = [], []
    for file in files:
        outline = _outline(file, warnings)
        if outline is not None:
            usable.append(file)
            outlines.append(outline)
    if not usable:
        raise Rejected("no image of the template's folder can be used")
    numbers = coadd.choose(outlines, target.wcs, target.shape, target.band, params.max_pieces)
    chosen = [usable[k] for k in numbers]
    names = tuple(file.name for file in chosen)
    if len(chosen) == 1:
        return Prepared(_inspected(chosen[0].read(), target, params, warnings).image, names)
    pieces, factors, first = [], {}, None
    for file in chosen:
        try:
            part = _inspected(file.read(), target, params, warnings).image
        except Rejected as reason:
            warnings.append(f"{file.name}: {reason}: not used")
            continue
        ratio = _flux_ratio(part, target)
        if ratio is None:
            warnings.append(f"too few stars tell the flux scale of {file.name}: not used")
            continue
        first = first or (ratio, coadd.flat(part.wcs))
        factors[file.name] = first[0] / ratio
        pieces.append(coadd.piece(part, factors[file.name]))
    if first is None:
        raise Rejected("the images of the template's folder share too few stars with the image to be joined")
    joined = mosaic(pieces, *grid(first[1], *coadd.around(target.wcs, target.shape)))
    image = TemplateImage(joined.data, joined.mask.astype(np.uint16), joined.wcs, joined.noise)
    return Prepared(_needed(image, target), names, factors)


def _outline(file: TemplateFile, warnings: list[str]) -> coadd.Outline | None:
    """Return what a file's header says of it; None, and a warning, if it cannot be used."""
    try:
        header, shape = file.read_header()
        known = described(header, shape, Overrides(), [])
    except Rejected as reason:
        warnings.append(str(reason))
        return None
    if known["wcs_header"] is None:
        warnings.append(f"{file.name} has no usable WCS")
        return None
    return coadd.Outline(WCS(known["wcs_header"]), shape, known["filter"], known["exptime"])


def _flux_ratio(part: TemplateImage, target: Target) -> float | None:
    """Return the flux that stars have in a template, relative to the image; None if too few tell."""
    try:
        found = detect(part.data, part.mask, part.gain, parameters.DetectConfig()).objects
    except Rejected:
        return None
    return coadd.flux_ratio(found, part.wcs, target.objects, target.wcs)
