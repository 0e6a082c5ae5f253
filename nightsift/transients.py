"""Stage `transients`: find point sources in a difference, measure them, and say what speaks against each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy.table import Table, vstack
from scipy import ndimage
from scipy.spatial import cKDTree

from nightsift import parameters
from nightsift.planes import Flag, Mask
from nightsift.psf import Psf, fitted, forced
from nightsift.stamps import stamps

BESIDE = 0.02  # of the light of a saturated star: what its wings and spikes may leave around it
SATURATED_SNR = 20.0  # below it, what remains around a saturated core is no proof of new light


@dataclass(frozen=True)
class Search:
    """What is searched.

    Attributes
    ----------
    difference, sigma, snr : 2-D float32 arrays
        Difference, standard deviation of its pixels (ADU), S/N map.
    mask : 2-D integer array
        `nightsift.planes.Mask` bits.
    model : 2-D float32 array
        The template as it was subtracted, ADU of the image.
    saturated : 2-D bool array
        Pixels of the image at or above saturation, without the margin that the mask keeps around them.
    psf : Psf
        Of the difference.
    noise : float
        Factor from the error of a PSF fit with white noise to the true one.
    residual, mismatch : float
        What the subtraction leaves of a star relative to its light: in all, and pixel by pixel in the core.
    """

    difference: np.ndarray
    sigma: np.ndarray
    snr: np.ndarray
    mask: np.ndarray
    model: np.ndarray
    saturated: np.ndarray
    psf: Psf
    noise: float
    residual: float
    mismatch: float


@dataclass(frozen=True)
class Transients:
    """Everything above the threshold, the most significant first.

    Attributes
    ----------
    candidates : Table
        Measurements by pixel position (schema ``candidates`` without the sky, magnitudes and image).
    warnings : tuple of str
    """

    candidates: Table
    warnings: tuple[str, ...] = ()


def transients(search: Search, objects: Table, params: parameters.Transients) -> Transients:
    """Find, measure and vet.

    Parameters
    ----------
    search : Search
    objects : Table
        Objects of the image (schema ``objects``), for their flags and the brightness of neighbours.
    params : parameters.Transients
    """
    x, y, sign = peaks(search.snr, params.threshold, search.psf.fwhm)
    if not params.negative:
        x, y, sign = x[sign > 0], y[sign > 0], sign[sign > 0]
    burnt_x, burnt_y, taken = burnt_cores(search, x, y)
    bad = search.mask != 0
    # The margin of a saturated core is good enough to tell how bright the source must be.
    core = bad & ~((search.mask == int(Mask.SATURATED)) & ~search.saturated)
    table = vstack([measure(search, x[~taken], y[~taken], bad), measure(search, burnt_x, burnt_y, core)])
    if len(table):
        table = _without_twins(table, search.psf.fwhm)
    reasons = vet(table, search, objects, params)
    table["flags"] |= _flags(table, objects, search)
    table["is_real"] = [not reason for reason in reasons]
    table["reasons"] = [", ".join(reason) for reason in reasons] if reasons else np.zeros(0, "U1")
    table["label"] = _labels(table)
    table["score"] = _score(table, params)
    order = np.lexsort((-np.abs(table["snr"]), ~np.asarray(table["is_real"], bool)))
    return Transients(table[order])


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


def burnt_cores(search: Search, x, y) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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


def measure(search: Search, x, y, bad: np.ndarray) -> Table:
    """Measure point sources at peaks of a difference, without its `bad` pixels (2-D bool array).

    Returns
    -------
    Table
        ``x, y, flux, fluxerr, snr, fwhm, flags, chi2, sharpness, negative, dipole, masked, template_flux,
        template_distance``.
    """
    psf = search.psf
    if not len(x):
        names = ("x", "y", "flux", "fluxerr", "snr", "fwhm", "chi2", "sharpness", "negative", "dipole", "masked")
        more = ("template_flux", "template_distance", "sharpness_err", "pedestal", "trail")
        table = Table({name: np.zeros(0) for name in (*names, *more)})
        table["flags"] = np.zeros(0, int)
        return table
    sigma = np.hypot(search.sigma, search.mismatch * np.maximum(search.model, 0))
    fit, px, py = fitted(search.difference, sigma, bad, psf, x, y)
    plain = forced(search.difference, search.sigma, bad, psf, px, py)
    template = forced(search.model, search.sigma, np.zeros_like(bad), psf, px, py)
    half = int(np.ceil(1.5 * psf.fwhm))
    column, row = np.rint(px).astype(int), np.rint(py).astype(int)
    values = stamps(search.difference, column, row, half)
    sigma = stamps(sigma, column, row, half, 1.0)
    hidden = stamps(bad, column, row, half, True)
    v, u = np.mgrid[-half : half + 1, -half : half + 1].astype(float)
    du, dv = u + (column - px)[:, None, None], v + (row - py)[:, None, None]
    flat = (len(px), -1)
    model = psf.at(du.reshape(flat), dv.reshape(flat), px, py).reshape(values.shape)
    fluxerr = plain.fluxerr * search.noise
    table = Table({"x": px, "y": py, "flux": plain.flux, "fluxerr": fluxerr, "snr": plain.flux / fluxerr})
    table["chi2"] = fit.chi2
    table["masked"] = np.sum(model * hidden, axis=(1, 2)) / np.sum(model, axis=(1, 2))
    signed = values * np.sign(fit.flux)[:, None, None]
    table["sharpness"], table["sharpness_err"] = _sharpness(signed, sigma, hidden, model, fit.flux)
    smooth = ndimage.gaussian_filter(np.where(search.mask != 0, 0, search.difference), psf.fwhm / 2.3548)
    table["trail"] = _trail(smooth, px, py, fit.flux, psf.fwhm, model.max(axis=(1, 2)))
    table["pedestal"] = _pedestal(search, px, py, fit.flux)
    table["negative"] = _negative(signed, sigma, hidden, np.hypot(du, dv) <= 1.5 * psf.fwhm)
    table["dipole"] = _dipole(search.snr, px, py, fit.flux, psf.fwhm)
    table["fwhm"] = _moment_width(signed, hidden, du, dv, psf.fwhm)
    table["template_flux"] = template.flux
    table["template_distance"] = _template_distance(search, px, py)
    table["flags"] = np.where(np.isfinite(fit.flux), 0, int(Flag.PSF_FAILED))
    return table


def _sharpness(signed, sigma, hidden, model, flux):
    """Light of the central 3 x 3 pixels above that of the ring around it, relative to the PSF's; and its error."""
    middle = signed.shape[1] // 2
    square = np.zeros(signed.shape[1:], bool)
    square[middle - 1 : middle + 2, middle - 1 : middle + 2] = True
    ring = np.zeros_like(square)
    ring[middle - 2 : middle + 3, middle - 2 : middle + 3] = True
    ring &= ~square

    def contrast(image):
        inner = np.sum(image * (square & ~hidden), axis=(1, 2)) / np.maximum(np.sum(square & ~hidden, axis=(1, 2)), 1)
        outer = np.sum(image * (ring & ~hidden), axis=(1, 2)) / np.maximum(np.sum(ring & ~hidden, axis=(1, 2)), 1)
        return inner - outer

    expected = contrast(model * np.abs(flux)[:, None, None])
    expected = np.where(np.abs(expected) > 0, expected, np.nan)
    error = sigma[:, middle, middle] * np.sqrt(1 / square.sum() + 1 / ring.sum())
    return contrast(signed) / expected, error / np.abs(expected)


def _pedestal(search: Search, x, y, flux):
    """Share of the flux that the level of the surroundings (2 to 4 FWHM) makes up: large on halos and ramps."""
    fwhm = search.psf.fwhm
    half = int(np.ceil(4 * fwhm))
    v, u = np.mgrid[-half : half + 1, -half : half + 1]
    ring = (np.hypot(u, v) >= 2 * fwhm) & (np.hypot(u, v) <= 4 * fwhm)
    column, row = np.rint(x).astype(int), np.rint(y).astype(int)
    value = stamps(search.difference, column, row, half)[:, ring]
    hidden = stamps(search.mask != 0, column, row, half, True)[:, ring]
    level = np.array([np.median(v[~h]) if (~h).sum() > 20 else 0.0 for v, h in zip(value, hidden, strict=True)])
    model = search.psf.stamp(search.psf.shape[1] / 2, search.psf.shape[0] / 2, int(np.ceil(1.5 * fwhm)))
    return np.abs(level) * model.sum() / np.sum(model**2) / np.maximum(np.abs(flux), 1e-30)


def _negative(signed, sigma, hidden, near):
    """Share of the significant light around the position that has the other sign."""
    counted = near & ~hidden & (np.abs(signed) > 1.5 * sigma)
    light = np.sum(np.abs(signed), axis=(1, 2), where=counted)
    other = np.sum(-signed, axis=(1, 2), where=counted & (signed < 0))
    return other / np.maximum(light, 1e-30)


def _dipole(snr, x, y, flux, fwhm):
    """Highest S/N of the other sign within 2 FWHM, relative to that of the source."""
    half = int(np.ceil(2 * fwhm))
    column, row = np.rint(x).astype(int), np.rint(y).astype(int)
    around = stamps(snr, column, row, half) * np.sign(flux)[:, None, None]
    v, u = np.mgrid[-half : half + 1, -half : half + 1]
    near = np.hypot(u, v) <= 2 * fwhm
    return np.maximum(-around[:, near].min(axis=1), 0) / np.maximum(around[:, near].max(axis=1), 1e-3)


def _trail(smooth, x, y, flux, fwhm, peak):
    """Light along the best straight line away from the source, relative to its own: 1 on a trail, 0 on the sky."""
    reach = np.array([1.75, 2.5, 3.25]) * fwhm
    angle = np.arange(32) * (2 * np.pi / 32)
    columns = np.rint(np.asarray(x)[:, None, None] + np.cos(angle)[:, None] * reach).astype(int)
    rows = np.rint(np.asarray(y)[:, None, None] + np.sin(angle)[:, None] * reach).astype(int)
    inside = (columns >= 0) & (rows >= 0) & (columns < smooth.shape[1]) & (rows < smooth.shape[0])
    value = smooth[np.where(inside, rows, 0), np.where(inside, columns, 0)] * np.sign(flux)[:, None, None]
    value = np.where(inside, value, -np.inf).min(axis=2)
    own = stamps(smooth, np.rint(x), np.rint(y), 1) * np.sign(flux)[:, None, None]
    # A masked core has no light of its own; its wings tell how much it is. Smoothing halves the peak.
    own = np.fmax(own.max(axis=(1, 2)), 0.5 * np.abs(flux) * peak)
    return np.maximum(value.max(axis=1), 0) / np.maximum(own, 1e-30)


def _moment_width(signed, hidden, du, dv, fwhm):
    """FWHM by the adaptive moments of `nightsift.seeing.widths`, on the difference."""
    square = du**2 + dv**2
    value = np.where(hidden, 0, signed)
    variance = np.full(len(signed), (fwhm / 2.3548) ** 2)
    with np.errstate(all="ignore"):
        for _ in range(10):
            weighted = value * np.exp(-square / (2 * variance[:, None, None]))
            moment = np.sum(weighted * square, axis=(1, 2)) / np.sum(weighted, axis=(1, 2))
            variance = np.clip(np.where(moment > 0, moment, np.nan), 0.05, fwhm**2 * 4)
    return 2.3548 * np.sqrt(variance)


def _template_distance(search: Search, x, y):
    """Distance to the nearest peak of the template that stands 5 sigma above its surroundings; NaN beyond 5 FWHM."""
    reach = int(np.ceil(5 * search.psf.fwhm))
    top = (search.model == ndimage.maximum_filter(search.model, 3)) & (search.model > 5 * search.sigma)
    row, column = np.nonzero(top)
    if not len(row):
        return np.full(len(x), np.nan)
    distance, _ = cKDTree(np.column_stack([column, row])).query(np.column_stack([x, y]), distance_upper_bound=reach)
    return np.where(np.isfinite(distance), distance, np.nan)


def _without_twins(table: Table, fwhm: float) -> Table:
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


def vet(table: Table, search: Search, objects: Table, params: parameters.Transients) -> list[list[str]]:
    """Return for each candidate what speaks against it."""
    if not len(table):
        return []
    column = np.clip(np.rint(table["x"]).astype(int), 0, search.mask.shape[1] - 1)
    row = np.clip(np.rint(table["y"]).astype(int), 0, search.mask.shape[0] - 1)
    snr = np.abs(np.asarray(table["snr"]))
    centre = search.mask[row, column]
    # Light that saturates here and did not in the template has grown: its wings are measured, its core is not.
    burnt = (centre == int(Mask.SATURATED)) & (snr > SATURATED_SNR)
    star = np.abs(np.asarray(table["template_flux"]))
    flux = np.abs(np.asarray(table["flux"]))
    tests = {
        "faint": ~(snr >= 0.8 * params.threshold),
        "masked centre": (centre != 0) & (centre != int(Mask.SATURATED)),
        "masked": (np.asarray(table["masked"]) > params.max_masked) & ~burnt,
        "unlike the PSF": ~(np.asarray(table["chi2"]) < params.max_chi2),
        "too sharp": np.asarray(table["sharpness"]) > 1.35 + 3 * np.asarray(table["sharpness_err"]),
        "too flat": np.asarray(table["sharpness"]) < 0.65 - 3 * np.asarray(table["sharpness_err"]),
        "on a trail": np.asarray(table["trail"]) > 0.4,
        "on a slope": np.asarray(table["pedestal"]) > 0.4,
        "dipole": (np.asarray(table["dipole"]) > 0.4) | (np.asarray(table["negative"]) > 0.35),
        "too wide": (np.asarray(table["fwhm"]) > (1.5 + 4.5 / snr) * search.psf.fwhm) & ~burnt,
        "too narrow": np.asarray(table["fwhm"]) < (0.6 - 1 / snr) * search.psf.fwhm,
        "residual of a star": flux < params.residual * star,
        "beside a saturated star": (flux < BESIDE * _saturated_light(table, objects, search)) & ~burnt,
    }
    return [[name for name, hit in tests.items() if hit[i]] for i in range(len(table))]


def _saturated_light(table: Table, objects: Table, search: Search) -> np.ndarray:
    """Flux of the brightest saturated object within 5 FWHM of each candidate; 0 where there is none."""
    result = np.zeros(len(table))
    bright = objects[(np.asarray(objects["flags"]) & int(Flag.SATURATED)) != 0]
    if len(bright):
        tree = cKDTree(np.column_stack([bright["x"], bright["y"]]))
        near = tree.query_ball_point(np.column_stack([table["x"], table["y"]]), 5 * search.psf.fwhm)
        flux = np.asarray(bright["flux"])
        result = np.array([flux[found].max() if found else 0.0 for found in near])
    return result


def _flags(table: Table, objects: Table, search: Search):
    flags = np.zeros(len(table), int)
    flags[np.asarray(table["masked"]) > 0] |= int(Flag.APERTURE_MASKED)
    half = int(np.ceil(search.psf.fwhm))
    column, row = np.rint(table["x"]).astype(int), np.rint(table["y"]).astype(int)
    if len(table):
        saturated = stamps((search.mask & int(Mask.SATURATED)) != 0, column, row, half, False)
        flags[saturated.any(axis=(1, 2))] |= int(Flag.SATURATED)
        cosmic = stamps((search.mask & int(Mask.COSMIC)) != 0, column, row, 1, False)
        flags[cosmic.any(axis=(1, 2))] |= int(Flag.COSMIC)
    if len(table) and len(objects):
        tree = cKDTree(np.column_stack([objects["x"], objects["y"]]))
        distance, nearest = tree.query(np.column_stack([table["x"], table["y"]]))
        shared = int(Flag.DEBLENDED | Flag.CROWDED)
        flags |= np.where(distance < search.psf.fwhm, np.asarray(objects["flags"])[nearest] & shared, 0)
    return flags


def _labels(table: Table) -> np.ndarray:
    """Name what it is: new light, a change of something the template shows, or light that has gone."""
    known = np.nan_to_num(table["template_distance"], nan=np.inf) < 0.5 * np.nan_to_num(table["fwhm"], nan=3.0)
    brighter = np.asarray(table["flux"]) > 0
    return np.where(~brighter, np.where(known, "faded", "negative"), np.where(known, "variable", "new")).astype("U8")


def _score(table: Table, params: parameters.Transients) -> np.ndarray:
    """Return a rule-based rank between 0 and 1: significance, and likeness to the PSF. It is no probability."""
    snr = np.abs(np.asarray(table["snr"], float))
    strength = 1 - np.exp(-((snr / params.threshold) ** 2) / 2)
    shape = np.exp(-np.maximum(np.asarray(table["chi2"]) - 1, 0) / 4)
    sharp = np.exp(-((np.asarray(table["sharpness"]) - 1) ** 2) / (2 * (0.3 + 2 / np.maximum(snr, 1)) ** 2))
    pair = 1 - np.clip(np.asarray(table["dipole"]), 0, 1) / 2
    score = strength * shape * sharp * pair * (1 - np.clip(np.asarray(table["masked"]), 0, 1))
    return np.nan_to_num(score, nan=0.0)


def cutouts(layers: list[np.ndarray], x, y, side: int) -> np.ndarray:
    """Return (n, layers, side, side) cutouts around positions; NaN beyond the images."""
    column, row = np.rint(np.asarray(x)).astype(int), np.rint(np.asarray(y)).astype(int)
    if not len(column):
        return np.zeros((0, len(layers), side, side), np.float32)
    return np.stack([stamps(layer.astype(np.float32), column, row, side // 2, np.nan) for layer in layers], axis=1)
