"""Stage `transients`: find point sources in a difference, measure them, and say which are real."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from astropy.table import Table, vstack
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_scales
from scipy import ndimage
from scipy.optimize import brentq
from scipy.spatial import cKDTree

from nightsift import parameters
from nightsift.flags import Flag, Mask
from nightsift.image.stamps import stamps
from nightsift.image.unit_noise import fluxes
from nightsift.psf.forced import forced
from nightsift.statistics import FWHM_PER_SIGMA, MAG
from nightsift.subtract.difference import Search
from nightsift.tables import FAKES
from nightsift.transients import moving
from nightsift.transients.doubles import blends, covered, pairs, without
from nightsift.transients.measure import measure, without_fit_bias
from nightsift.transients.realbogus import Examples, Model, features, train
from nightsift.transients.vetting import candidate_flags, candidate_labels, pixel, rejections, shape_doubts, vetted

CELL = 128  # pixels: side of the squares whose fakes are held out together
UNTRIED = 0.5  # score of what the model has never seen
STRETCHED = 5.0  # S/N of what stretching the PSF explains, from which on two sources are tried
SHAPELESS = ("", "extended", "poor PSF fit", "poor PSF fit, extended")  # rejections that two sources in one cause
# doubts about the shape that two sources in one may cause
MERGED = {"poor PSF fit", "broader than PSF", "elongated", "too wide", "noisy surroundings"}
PEAK_LOSS = 0.85  # of a source's S/N at least stands in the pixel nearest to it


@dataclass(frozen=True)
class Transients:
    """Everything above the threshold, the most significant first.

    Attributes
    ----------
    candidates : Table
        Measurements by pixel position (schema ``candidates`` without the sky, magnitudes and image).
    threshold : float
        S/N from which on there are candidates.
    model : Model
        Tells real from bogus.
    passed : 1-D bool array
        Which of the fakes are found and called real.
    """

    candidates: Table
    threshold: float
    model: Model
    passed: np.ndarray


@dataclass(frozen=True)
class Calibration:
    """What gives candidates their magnitudes and places on the sky.

    Attributes
    ----------
    zero_point : callable
        Zero point (mag) at pixel positions x, y.
    wcs : WCS
    catalog : Table
        Stars of the field, some with proper motions (`nightsift.transients.moving`).
    """

    zero_point: Callable
    wcs: WCS
    catalog: Table


def transients(
    search: Search,
    objects: Table,
    params: parameters.TransientsConfig,
    fakes: Table | None = None,
    calibration: Calibration | None = None,
) -> Transients:
    """Find, measure, score and vet.

    Parameters
    ----------
    search : Search
    objects : Table
        Objects of the image (schema ``objects``), for their flags and the brightness of neighbours.
    params : parameters.TransientsConfig
    fakes : Table, optional
        What the search found of fakes (schema ``fakes``), to train the model on beside the package's examples.
    calibration : Calibration, optional
        Without it, candidates have no magnitudes and no places on the sky.
    """
    model, passed = _model(fakes, search.psf.fwhm, params.min_score)
    threshold = params.threshold or noise_threshold(search.psf.fwhm, params.false_alarms)
    table = find(search, objects, threshold, params)
    score = model.score(features(table, search.psf.fwhm))
    saturated = np.asarray(table["saturated"], bool)
    table["score"] = np.where(saturated, UNTRIED, score)
    table.remove_column("saturated")
    _keep_blends(table, search, params.min_score)
    vetted(table, search.psf.fwhm, params.min_score)
    order = np.lexsort((-np.abs(table["snr"]), ~np.asarray(table["is_real"], bool)))
    # Only now: up to here what counts is how far the maximum stands out.
    table["flux"] = without_fit_bias(table["flux"], table["fluxerr"])
    table["snr"] = table["flux"] / table["fluxerr"]
    table = table[order]
    if calibration is not None:
        _calibrate(table, calibration, search.psf.fwhm)
    return Transients(table, threshold, model, passed)


def _model(fakes: Table | None, fwhm: float, min_score: float) -> tuple[Model, np.ndarray]:
    """Train on the fakes of the image; return also which of them are found and called real by what did not see them."""
    if fakes is None:
        return train(), np.zeros(0, bool)
    seen = np.asarray(fakes["found"], bool)
    found = fakes[seen]
    # Places near each other are held out together.
    cell = (np.asarray(found["x"], float) // CELL + 7 * (np.asarray(found["y"], float) // CELL)).astype(int)
    model = train(Examples(features(found, fwhm), np.isin(np.asarray(found["kind"], str), FAKES), cell))
    passed = np.zeros(len(fakes), bool)
    passed[seen] = model.held_out >= min_score
    return model, passed & (np.asarray(fakes["rejections"], str) == "")


def _calibrate(table: Table, calibration: Calibration, fwhm: float) -> None:
    """Add magnitudes, limits and places on the sky to candidates, and label stars that have moved, in place."""
    zero = calibration.zero_point(np.asarray(table["x"]), np.asarray(table["y"]))
    flux, fluxerr = np.abs(np.asarray(table["flux"])), np.asarray(table["fluxerr"])
    with np.errstate(invalid="ignore", divide="ignore"):
        table["mag_calib"] = np.where(flux > 0, zero - 2.5 * np.log10(flux), np.nan)
        table["mag_calib_err"] = np.where(flux > 0, MAG * fluxerr / flux, np.nan)
        table["maglim"] = zero - 2.5 * np.log10(5 * np.asarray(table["bgerr"]))
    table["ra"], table["dec"] = calibration.wcs.all_pix2world(table["x"], table["y"], 0)
    pixel = 3600 * float(np.mean(proj_plane_pixel_scales(calibration.wcs.celestial)))
    moving.join(table, calibration.catalog, fwhm * pixel)


def noise_threshold(fwhm: float, false_alarms: float) -> float:
    """Return the S/N above which noise makes so many peaks of one sign per megapixel.

    Maxima of a Gaussian field of correlation length sigma sqrt(2) (a matched filter's), at high S/N: the density is
    gamma^2 S exp(-S^2/2) / (2 pi)^(3/2) with gamma^2 = 1 / (2 sigma^2) (Bardeen et al. 1986, ApJ 304, 15, in two
    dimensions; Adler 1981). Not below 4.
    """
    gamma = FWHM_PER_SIGMA**2 / (2 * max(fwhm, 1.0) ** 2)

    def excess(s):
        return np.log(1e6 * gamma * s / (2 * np.pi) ** 1.5 / false_alarms) - s**2 / 2

    return max(4.0, brentq(excess, 1.0, 12.0)) if excess(1.0) > 0 else 4.0


def find(
    search: Search, objects: Table, threshold: float, params: parameters.TransientsConfig, depth: float = 1.0
) -> Table:
    """Find and measure everything above a threshold, and say what is known to be wrong with each.

    Parameters
    ----------
    search : Search
    objects : Table
    threshold : float
        S/N.
    params : parameters.Transients
    depth : float
        What lies between this fraction of the threshold and the threshold is kept, too, as "faint".

    Returns
    -------
    Table
        Measures of `nightsift.transients.measure.measure`, `nightsift.flags.Flag` bits, ``rejections`` (reasons to set
        it aside whatever it looks like, comma separated), ``saturated`` (its core saturates), ``label``.
    """
    size = search.unit
    return fluxes(_found(search.per(size), fluxes(objects, size), threshold, params, depth), 1 / size)


def _found(
    search: Search, objects: Table, threshold: float, params: parameters.TransientsConfig, depth: float
) -> Table:
    x, y, sign = peaks(search.snr, PEAK_LOSS * depth * threshold, search.psf.fwhm)
    if not params.negative:
        x, y, sign = x[sign > 0], y[sign > 0], sign[sign > 0]
    core_x, core_y, taken = saturated_cores(search, x, y)
    bad = search.mask != 0
    # The margin of a saturated core is good enough to tell how bright the source must be.
    core = bad & ~((search.mask == int(Mask.SATURATED)) & ~search.saturated)
    saturated = objects[(np.asarray(objects["flags"]) & int(Flag.SATURATED)) != 0] if len(objects) else None
    parts = [measure(search, x[~taken], y[~taken], bad, saturated), measure(search, core_x, core_y, core, saturated)]
    table = vstack(parts)
    table["saturated"] = np.arange(len(table)) >= len(parts[0])
    if len(table):
        column, row = pixel(table, search.mask.shape)
        highest = np.abs(stamps(search.snr, column, row, 1)).max(axis=(1, 2))
        significance = np.abs(np.nan_to_num(table["flux"] / table["bgerr"], nan=0.0))
        # On template flux, of which some may be left, only the map knows the noise.
        significance[np.asarray(table["expected"]) > np.asarray(table["bgerr"])] = 0
        table = table[(np.maximum(highest, significance) >= depth * threshold) | table["saturated"]]
        table = _without_duplicates(table, search.psf.fwhm)
    table = _judged(table, objects, search, threshold, params)
    both = _doubles(table, search, bad, saturated, threshold)
    return table if both is None else _judged(both, objects, search, threshold, params)


def _judged(
    table: Table, objects: Table, search: Search, threshold: float, params: parameters.TransientsConfig
) -> Table:
    table["flags"] |= candidate_flags(table, objects, search)
    table["label"] = candidate_labels(table, search)
    table["rejections"] = rejections(table, search, threshold, params)
    return table


def _doubles(table: Table, search: Search, bad, saturated: Table | None, threshold: float) -> Table | None:
    """Return the table with what are two sources in place of one, each measured without the other; None if none is."""
    fwhm = search.psf.fwhm
    significance = np.abs(np.asarray(table["flux"] / table["bgerr"]))
    odd = (shape_doubts(table, fwhm) != "") | (np.sqrt(np.asarray(table["elongation"])) * significance > STRETCHED)
    odd &= np.isin(table["rejections"], SHAPELESS) & ~np.asarray(table["saturated"], bool) & (significance > threshold)
    x, y, flux = (np.asarray(table[name], float) for name in ("x", "y", "flux"))
    found = pairs(search, x, y, flux, odd, threshold)
    if not found:
        return None
    parts = [table[~covered(x, y, found, fwhm)]]
    for one, other in ((0, 1), (1, 0)):
        mine, theirs = (
            np.array([(pair.x[k], pair.y[k], pair.flux[k], pair.growth[k]) for pair in found]).T for k in (one, other)
        )
        bgerr = (
            forced(search.difference, search.sigma, bad, search.psf, *theirs[:2]).fluxerr
            * search.quality.noise_correlation
        )
        part = measure(without(search, *theirs[:3], bgerr), *mine[:2], bad, saturated)
        for name in ("fluxerr", "bgerr"):
            part[name] *= mine[3]
        part["snr"] = part["flux"] / part["fluxerr"]
        part["flags"] |= int(Flag.DEBLENDED)
        part["saturated"] = False
        parts.append(part)
    return vstack(parts, join_type="inner")


def _keep_blends(table: Table, search: Search, min_score: float) -> None:
    """Raise the score of what only its shape speaks against, and two sources that merge explain, in place."""
    score, rejected = np.asarray(table["score"]), np.asarray(table["rejections"], str)
    odd = np.isin(rejected, SHAPELESS) & (~(score >= min_score) | (rejected != ""))
    odd &= np.array(
        [set(filter(None, doubt.split(", "))) <= MERGED for doubt in shape_doubts(table, search.psf.fwhm)], bool
    )
    x, y, flux = (np.asarray(table[name], float) for name in ("x", "y", "flux"))
    blend = blends(search.per(search.unit), x, y, flux / search.unit, odd)
    table["flags"] |= np.where(blend, int(Flag.BLEND), 0)
    table["rejections"] = np.where(blend, "", rejected)
    table["score"] = np.where(blend, np.fmax(score, min_score), score)


def peaks(snr: np.ndarray, threshold: float, fwhm: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return positions and signs of the local extrema of an S/N map beyond a threshold.

    A lower peak of the same sign within one FWHM of a higher one is part of it.
    """
    found = []
    for sign in (1, -1):
        signed = snr * np.float32(sign)
        row, column = np.nonzero(signed > threshold)
        # Only a few pixels are that high: look at the neighbours of those alone.
        around = stamps(signed, column, row, 1, -np.inf)
        top = signed[row, column] >= around.reshape(len(row), 9).max(axis=1) if len(row) else np.zeros(0, bool)
        row, column = row[top], column[top]
        height = signed[row, column]
        keep = np.ones(len(row), bool)
        if len(row) > 1:
            order = np.lexsort((column, row, -height))
            neighbours = cKDTree(np.column_stack([column, row])).query_ball_point(
                np.column_stack([column, row]), max(1.5, fwhm)
            )
            for i in order:
                if keep[i]:
                    keep[[j for j in neighbours[i] if j != i]] = False
        found.append((column[keep], row[keep], np.full(keep.sum(), sign)))
    return tuple(np.concatenate(part) for part in zip(*found, strict=True))


def saturated_cores(search: Search, x, y) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the centres of cores that saturate in the image alone, and which of the peaks belong to them.

    The S/N map has its peaks around such a core, not on it.
    """
    labels, number = ndimage.label(search.mask == int(Mask.SATURATED), structure=np.ones((3, 3)))
    taken = np.zeros(len(x), bool)
    if not number or not len(x):
        return np.zeros(0), np.zeros(0), taken
    boxes = ndimage.find_objects(labels)
    reach = 1.5 * search.psf.fwhm
    centre_x, centre_y = [], []
    for label, box in enumerate(boxes, start=1):
        rows, columns = box
        if max(rows.stop - rows.start, columns.stop - columns.start) > 5 * search.psf.fwhm:
            continue  # a bad line or a long bleed: no core
        near = (x > columns.start - reach) & (x < columns.stop + reach)
        near &= (y > rows.start - reach) & (y < rows.stop + reach)
        if near.any():
            row, column = np.nonzero(labels[box] == label)
            centre_x.append(column.mean() + columns.start)
            centre_y.append(row.mean() + rows.start)
            taken |= near
    return np.array(centre_x), np.array(centre_y), taken


def _without_duplicates(table: Table, fwhm: float) -> Table:
    """Drop the fainter of two positions that the fit has moved together."""
    strength = np.abs(np.nan_to_num(table["snr"], nan=0.0))
    order = np.lexsort((table["x"], table["y"], -strength))
    sign = np.sign(table["flux"])
    neighbours = cKDTree(np.column_stack([table["x"], table["y"]])).query_ball_point(
        np.column_stack([table["x"], table["y"]]), max(1.0, 0.5 * fwhm)
    )
    keep = np.ones(len(table), bool)
    for i in order:
        if keep[i]:
            keep[[j for j in neighbours[i] if j != i and sign[j] == sign[i]]] = False
    return table[keep]


def cutouts(layers: list[np.ndarray], x, y, side: int) -> np.ndarray:
    """Return (n, layers, side, side) cutouts around positions; NaN beyond the images."""
    column, row = np.rint(np.asarray(x)).astype(int), np.rint(np.asarray(y)).astype(int)
    if not len(column):
        return np.zeros((0, len(layers), side, side), np.float32)
    return np.stack([stamps(layer.astype(np.float32), column, row, side // 2, np.nan) for layer in layers], axis=1)
