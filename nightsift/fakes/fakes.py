"""Stage `fakes`: sources put into an image, which go through subtraction and search as the image's own do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from astropy.table import Table, vstack
from scipy.spatial import cKDTree

from nightsift import parameters
from nightsift.errors import Rejected
from nightsift.fakes.injection import Plan, plan
from nightsift.flags import Mask
from nightsift.image.background import background
from nightsift.image.cosmics import find_cosmics
from nightsift.psf.model import Psf
from nightsift.subtract.difference import Exposure, Reference, Search, saturated
from nightsift.subtract.subtract import subtract
from nightsift.tables import empty
from nightsift.transients.transients import find, noise_threshold

MESH = 64  # pixels of the background under cosmic rays, as in inspect
DEPTH = 0.8  # of the threshold: what is fainter teaches, too, what noise looks like


@dataclass(frozen=True)
class Searched:
    """An image, and what its stages have made of it.

    Attributes
    ----------
    exposure : Exposure
    saturation : float or None
        Level from which on its pixels are saturated, ADU.
    reference : Reference
        Its template.
    search : Search
        Their difference.
    objects : Table
        Schema ``objects``.
    psf : Psf
        Of the image.
    """

    exposure: Exposure
    saturation: float | None
    reference: Reference
    search: Search
    objects: Table
    psf: Psf


@dataclass(frozen=True)
class StageConfigs:
    """The options of the stages that fakes go through as the image did."""

    inspect: parameters.InspectConfig
    subtract: parameters.SubtractConfig
    transients: parameters.TransientsConfig


@dataclass(frozen=True)
class Fakes:
    """What was put into an image, and what was found of it.

    Attributes
    ----------
    table : Table
        Schema ``fakes``.
    number : int
        Of the fakes; 0 where the image with them was refused.
    warnings : tuple of str
    """

    table: Table
    number: int
    warnings: tuple[str, ...] = ()


def fakes(
    image: Searched, seed: int, params: parameters.FakesConfig, stages: StageConfigs, run: Callable | None = None
) -> Fakes:
    """Put fakes into an image, and let it go through masking, subtraction and search once more.

    Parameters
    ----------
    image : Searched
    seed : int
        Of all that is random.
    params : parameters.FakesConfig
    stages : StageConfigs
    run : callable, optional
        What does the work of the method ``hotpants``, as for `nightsift.subtract.subtract.subtract`.
    """
    planned = plan(image.exposure.data, image.search, image.objects, image.psf, seed, params)
    try:
        found, fwhm = _found(image, planned, stages, run)
    except Rejected as refusal:
        return Fakes(empty("fakes"), 0, (f"the image with fakes was refused: {refusal}",))
    return Fakes(examples(planned, found, fwhm), len(planned.fakes))


def _found(image: Searched, planned: Plan, stages: StageConfigs, run: Callable | None) -> tuple[Table, float]:
    """Mask, subtract and search the image with fakes; return what is found, and the FWHM of the difference."""
    data, mask, gain = planned.data, image.exposure.mask.copy(), image.exposure.gain
    full = saturated(data, image.saturation)
    mask |= np.where(full, int(Mask.SATURATED), 0).astype(mask.dtype)
    if stages.inspect.cosmics:
        sky, bad = background(data, mask != 0, MESH), mask != 0
        limits = stages.inspect.cosmic_sigma, stages.inspect.cosmic_fwhm
        hit = find_cosmics(data, sky.level, sky.noise, gain, bad, *limits).mask
        mask |= np.where(hit, int(Mask.COSMIC), 0).astype(mask.dtype)
    exposure = replace(image.exposure, data=data, mask=mask)
    result = subtract(exposure, image.reference, planned.objects, stages.subtract, run)
    fwhm = result.psf.fwhm
    threshold = stages.transients.threshold or noise_threshold(fwhm, stages.transients.false_alarms)
    search = Search.of(result, full, gain)
    return find(search, planned.objects, threshold, stages.transients, DEPTH), fwhm


def examples(plan: Plan, found: Table, fwhm: float) -> Table:
    """Join what was put in with what was found: one row a fake, and one for each that is known to be bogus.

    Parameters
    ----------
    plan : Plan
    found : Table
        Of `nightsift.transients.transients.find` on the difference of ``plan.data``.
    fwhm : float
        Of the PSF of that difference.

    Returns
    -------
    Table
        Schema ``fakes``. Bogus is what comes from the plan's, and negative sources where there is nothing that can have
        faded ("negative").
    """
    place = np.column_stack([found["x"], found["y"]]).reshape(-1, 2)
    fakes = np.column_stack([plan.fakes["x"], plan.fakes["y"]]).reshape(-1, 2)
    away, row = _nearest(fakes, place)
    row[away > max(1.0, 0.6 * fwhm)] = len(found)
    # What a fake has done to its surroundings belongs to the fake.
    other = _nearest(place, fakes)[0] > 3 * fwhm
    away, which = _nearest(place, np.column_stack([plan.bogus["x"], plan.bogus["y"]]).reshape(-1, 2))
    reach, kinds = np.append(plan.bogus["reach"], 0.0)[which], np.append(plan.bogus["kind"], "")[which]
    # A transient of the image itself may happen to be near.
    of_plan = other & (away < reach) & (_nearest(place, plan.known)[0] > 2 * fwhm)
    flux, star = np.asarray(found["flux"], float), np.asarray(found["template_flux"], float)
    negative = other & (away > 3 * fwhm) & (flux < 0) & ~(star > -0.5 * flux)
    parts = [_rows(plan.fakes, found, row)]
    for kind in (*np.unique(plan.bogus["kind"]), "negative"):
        index = np.flatnonzero(negative if kind == "negative" else of_plan & (kinds == kind))
        what = Table({"x": np.asarray(found["x"])[index], "y": np.asarray(found["y"])[index]})
        what["flux"], what["snr"], what["kind"] = 0.0, 0.0, np.full(len(what), kind)
        parts.append(_rows(what, found, index))
    return vstack(parts, metadata_conflicts="silent")


def _nearest(place: np.ndarray, there: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distance of each place from the nearest one there, and which that is."""
    if not len(place) or not len(there):
        return np.full(len(place), np.inf), np.zeros(len(place), int)
    return cKDTree(there).query(place)


def _rows(what: Table, found: Table, row) -> Table:
    """Return the truth as ``true_*`` beside the measures of the rows of `found`; NaN where nothing was found."""
    result = Table({f"true_{name}": what[name] for name in ("x", "y", "flux", "snr")})
    result["kind"] = np.asarray(what["kind"], "U8")
    row = np.asarray(row, int)
    seen = row < len(found)
    result["found"] = seen
    for name in found.colnames:
        values = np.asarray(found[name])
        if values.dtype.kind == "f":
            result[name] = np.where(seen, np.append(values, np.nan)[np.where(seen, row, len(values))], np.nan)
    rejections = np.append(np.asarray(found["rejections"], "U80"), "")
    result["rejections"] = rejections[np.where(seen, row, len(found))]
    return result
