"""Stage `transients`: find point sources in a difference, measure them, and say which are real."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy.table import Table, vstack
from scipy import ndimage
from scipy.optimize import brentq
from scipy.spatial import cKDTree

from nightsift import parameters
from nightsift.flags import Flag, Mask
from nightsift.image.stamps import stamps
from nightsift.image.unit_noise import fluxes
from nightsift.psf.fit import forced
from nightsift.transients.beneath import shown
from nightsift.transients.doubles import covered, pairs, without
from nightsift.transients.holes import pits
from nightsift.transients.lines import lit, strung
from nightsift.transients.measure import Search, measure, without_fit_bias
from nightsift.transients.realbogus import Model, features

BESIDE = 0.02  # of the light of a saturated star: what its wings and spikes may leave around it
BESIDE_ANY = 0.005  # of the light of any star: the same
SATURATED_SNR = 20.0  # below it, what remains around a saturated core is no proof of new light
UNTRIED = 0.5  # score of what the model has never seen
GROWN = 0.3  # of its light in the template: what a saturated core must have gained, measured as it is by its wings
WORST_CHI2 = 15.0  # of a PSF fit that allows for an error of 8 per cent of the PSF: no point source, however bright
WINGS_CHI2 = 10.0  # of the wings of such a core, beyond which they are no star's
ALIKE = 0.4  # of its light that a piece of a trail finds further along the line
SIDED = 0.5  # strongest opposite extreme beside such a core that speaks for a bad subtraction
SHIFTED = 0.7  # share of what the PSF explains that a shift of the template explains as well, if it is one
UNQUIET = 1.5  # rms of the S/N around a candidate where a saturated star has left something
GUESSED = 0.3  # of a star's light, where all of its PSF is masked or beyond the border
REMAINS = 0.1  # of the S/N of a trail: what may be left of it
EXTENDED = 1.4  # FWHM of the PSF: what is wider and flatter than that, beyond the noise, is no point source
LEAST = 0.01  # of a change: fainter light in the template makes no variable of it, however deep that is
STRETCHED = 5.0  # S/N of what stretching the PSF explains, from which on two sources are tried
SHAPELESS = ("", "extended", "unlike the PSF", "unlike the PSF, extended")  # facts that two sources in one may cause
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
    """

    candidates: Table
    threshold: float


def transients(search: Search, objects: Table, model: Model, params: parameters.Transients) -> Transients:
    """Find, measure, score and vet.

    Parameters
    ----------
    search : Search
    objects : Table
        Objects of the image (schema ``objects``), for their flags and the brightness of neighbours.
    model : Model
        Tells real from bogus.
    params : parameters.Transients
    """
    threshold = params.threshold or noise_threshold(search.psf.fwhm, params.false_alarms)
    table = find(search, objects, threshold, params)
    score = model.score(features(table, search.psf.fwhm))
    burnt = np.asarray(table["burnt"], bool)
    table["score"] = np.where(burnt, UNTRIED, score)
    table.remove_column("burnt")
    vetted(table, search.psf.fwhm, params.min_score)
    order = np.lexsort((-np.abs(table["snr"]), ~np.asarray(table["is_real"], bool)))
    # Only now: up to here what counts is how far the maximum stands out.
    table["flux"] = without_fit_bias(table["flux"], table["fluxerr"])
    table["snr"] = table["flux"] / table["fluxerr"]
    return Transients(table[order], threshold)


def noise_threshold(fwhm: float, false_alarms: float) -> float:
    """Return the S/N above which noise makes so many peaks a megapixel, of one sign.

    Maxima of a Gaussian field of correlation length sigma sqrt(2) (a matched filter's), at high S/N: the density is
    gamma^2 S exp(-S^2/2) / (2 pi)^(3/2) with gamma^2 = 1 / (2 sigma^2) (Bardeen et al. 1986, ApJ 304, 15, in two
    dimensions; Adler 1981). Not below 4.
    """
    gamma = 2.3548**2 / (2 * max(fwhm, 1.0) ** 2)

    def excess(s):
        return np.log(1e6 * gamma * s / (2 * np.pi) ** 1.5 / false_alarms) - s**2 / 2

    return max(4.0, brentq(excess, 1.0, 12.0)) if excess(1.0) > 0 else 4.0


def find(search: Search, objects: Table, threshold: float, params: parameters.Transients, depth: float = 1.0) -> Table:
    """Find and measure everything above a threshold, and say what is known to be wrong with each.

    Parameters
    ----------
    search : Search
    objects : Table
    threshold : float
        S/N.
    params : parameters.Transients
    depth : float
        What lies between this share of the threshold and the threshold is kept, too, as "faint".

    Returns
    -------
    Table
        Measures of `nightsift.transients.measure.measure`, `nightsift.flags.Flag` bits, ``facts`` (reasons to set it aside
        whatever it looks like, comma separated), ``burnt`` (its core saturates), ``label``.
    """
    size = search.unit
    return fluxes(_found(search.per(size), fluxes(objects, size), threshold, params, depth), 1 / size)


def _found(search: Search, objects: Table, threshold: float, params: parameters.Transients, depth: float) -> Table:
    x, y, sign = peaks(search.snr, PEAK_LOSS * depth * threshold, search.psf.fwhm)
    if not params.negative:
        x, y, sign = x[sign > 0], y[sign > 0], sign[sign > 0]
    burnt_x, burnt_y, taken = burnt_cores(search, x, y)
    bad = search.mask != 0
    # The margin of a saturated core is good enough to tell how bright the source must be.
    core = bad & ~((search.mask == int(Mask.SATURATED)) & ~search.saturated)
    burnt = objects[(np.asarray(objects["flags"]) & int(Flag.SATURATED)) != 0] if len(objects) else None
    parts = [measure(search, x[~taken], y[~taken], bad, burnt), measure(search, burnt_x, burnt_y, core, burnt)]
    table = vstack(parts)
    table["burnt"] = np.arange(len(table)) >= len(parts[0])
    if len(table):
        column, row = _pixel(table, search.mask.shape)
        highest = np.abs(stamps(search.snr, column, row, 1)).max(axis=(1, 2))
        significance = np.abs(np.nan_to_num(table["flux"] / table["bgerr"], nan=0.0))
        # On light, of which some may be left, only the map knows the noise.
        significance[np.asarray(table["expected"]) > np.asarray(table["bgerr"])] = 0
        table = table[(np.maximum(highest, significance) >= depth * threshold) | table["burnt"]]
        table = _without_twins(table, search.psf.fwhm)
    table = _judged(table, objects, search, threshold, params)
    both = _doubles(table, search, bad, burnt, threshold)
    return table if both is None else _judged(both, objects, search, threshold, params)


def _judged(table: Table, objects: Table, search: Search, threshold: float, params: parameters.Transients) -> Table:
    table["flags"] |= _flags(table, objects, search)
    table["label"] = _labels(table, search)
    table["facts"] = _facts(table, search, threshold, params)
    return table


def _doubles(table: Table, search: Search, bad, burnt: Table | None, threshold: float) -> Table | None:
    """Return the table with what are two sources in place of one, each measured without the other; None if none is."""
    fwhm = search.psf.fwhm
    significance = np.abs(np.asarray(table["flux"] / table["bgerr"]))
    odd = (_hints(table, fwhm) != "") | (np.sqrt(np.asarray(table["elongation"])) * significance > STRETCHED)
    odd &= np.isin(table["facts"], SHAPELESS) & ~np.asarray(table["burnt"], bool) & (significance > threshold)
    x, y, flux = (np.asarray(table[name], float) for name in ("x", "y", "flux"))
    found = pairs(search, x, y, flux, odd, threshold)
    if not found:
        return None
    parts = [table[~covered(x, y, found, fwhm)]]
    for one, other in ((0, 1), (1, 0)):
        mine, theirs = (
            np.array([(pair.x[k], pair.y[k], pair.flux[k], pair.growth[k]) for pair in found]).T for k in (one, other)
        )
        bgerr = forced(search.difference, search.sigma, bad, search.psf, *theirs[:2]).fluxerr * search.noise
        part = measure(without(search, *theirs[:3], bgerr), *mine[:2], bad, burnt)
        for name in ("fluxerr", "bgerr"):
            part[name] *= mine[3]
        part["snr"] = part["flux"] / part["fluxerr"]
        part["flags"] |= int(Flag.DEBLENDED)
        part["burnt"] = False
        parts.append(part)
    return vstack(parts, join_type="inner")


def _pixel(table: Table, shape):
    column = np.clip(np.rint(table["x"]).astype(int), 0, shape[1] - 1)
    return column, np.clip(np.rint(table["y"]).astype(int), 0, shape[0] - 1)


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


def _facts(table: Table, search: Search, threshold: float, params: parameters.Transients):
    """Return for each candidate what speaks against it whatever it looks like."""
    if not len(table):
        return np.zeros(0, "U1")
    column, row = _pixel(table, search.mask.shape)
    significance = np.abs(np.asarray(table["flux"] / table["bgerr"]))
    centre = search.mask[row, column]
    # Light that saturates here and did not in the template has grown: its wings are measured, its core is not.
    table["burnt"] = (centre == int(Mask.SATURATED)) & (significance > SATURATED_SNR)
    burnt = np.asarray(table["burnt"])
    star, flux = np.asarray(table["template_flux"]), np.asarray(table["flux"])
    crossed = np.zeros(len(table), bool)
    for trail in search.trails:
        near = trail.distance(table["x"], table["y"]) < trail.width + 0.5 * search.psf.fwhm
        piece = (significance < REMAINS * trail.height) | (np.asarray(table["trail"]) > ALIKE)
        crossed |= near & (np.sign(flux) == trail.sign) & piece
    doubtful = (flux < GROWN * np.abs(star)) | ~(np.asarray(table["chi2"]) < WINGS_CHI2)
    beside = np.abs(flux) < BESIDE * np.asarray(table["beside"])
    # A star that only the template has saturated is known by its light.
    beside |= np.abs(flux) < BESIDE_ANY * np.asarray(table["neighbour"])
    # What is new, the image itself must show.
    pit = _pits(table, search) > params.max_hole
    # No example is as wide as that, and what a model has not seen, it calls what it likes.
    flat = np.asarray(table["sharpness"] + 2 * table["sharpness_err"]) < 0.75
    wide = np.asarray(table["fwhm"]) > (EXTENDED + 3 / np.maximum(significance, 1.0)) * search.psf.fwhm
    tests = {
        "faint": ~(significance >= threshold),
        "unlike the PSF": ~(np.asarray(table["chi2"]) < WORST_CHI2) & ~burnt,
        "masked centre": (centre != 0) & (centre != int(Mask.SATURATED)),
        "masked": (np.asarray(table["masked"]) > params.max_masked) & ~burnt,
        "on a trail": crossed,
        "on a line": _on_lines(table, search, significance, threshold, params),
        "extended": flat & wide & ~burnt,
        "nothing there to fade": (flux < 0) & ~(star > -0.5 * flux),
        "hole in the template": (flux > 0) & (pit | (star < -params.max_hole * flux)),
        "hole in the image": (flux < 0) & pit,
        "residual of a star": np.abs(flux) < (params.residual + GUESSED * np.asarray(table["masked"])) * np.abs(star),
        "beside a bright star": beside & (np.asarray(table["around"]) > UNQUIET) & ~burnt,
        "saturated": burnt & (doubtful | (np.asarray(table["dipole"]) > SIDED)),
        "shift of the template": np.asarray(table["shifted"]) > SHIFTED,
    }
    return _joined(tests, len(table))


def _on_lines(table: Table, search: Search, significance, threshold: float, params: parameters.Transients):
    x, y = np.asarray(table["x"]), np.asarray(table["y"])
    result = lit(search.snr, x, y, np.nan_to_num(significance), search.psf.fwhm) > params.max_line
    # What is no more than noise is a bead of no string.
    plain = significance >= threshold
    result[plain] |= strung(x[plain], y[plain], significance[plain], search.psf.fwhm)
    return result


def _pits(table: Table, search: Search) -> np.ndarray:
    """Share of each change that a hole in the other image explains."""
    x, y, flux = (np.asarray(table[name], float) for name in ("x", "y", "flux"))
    result, faded = np.zeros(len(table)), flux < 0
    result[~faded] = pits(search.model, x[~faded], y[~faded], flux[~faded], search.psf)
    if faded.any():
        image = search.model + search.difference
        result[faded] = pits(image, x[faded], y[faded], flux[faded], search.psf)
    return result


def _joined(tests: dict[str, np.ndarray], number: int) -> np.ndarray:
    texts = [", ".join(name for name, hit in tests.items() if hit[i]) for i in range(number)]
    return np.array(texts if texts else [], dtype=str) if texts else np.zeros(0, "U1")


def vetted(table: Table, fwhm: float, min_score: float) -> None:
    """Set ``is_real`` and ``reasons`` of a table with ``facts`` and ``score``, in place; ``facts`` goes.

    The score decides, and what stands out among the measures explains a low one.
    """
    facts = np.asarray(table["facts"], str)
    low = ~(np.asarray(table["score"]) >= min_score)
    hints = _hints(table, fwhm)
    table["is_real"] = (facts == "") & ~low
    why = np.where(hints == "", "unlike a point source", hints)
    both = [
        ", ".join(filter(None, (fact, text if bad else ""))) for fact, text, bad in zip(facts, why, low, strict=True)
    ]
    table["reasons"] = np.array(both, str) if both else np.zeros(0, "U1")
    table.remove_column("facts")


def _hints(table: Table, fwhm: float) -> np.ndarray:
    snr = np.maximum(np.abs(np.nan_to_num(table["snr"], nan=1.0)), 1.0)
    value = {name: np.asarray(table[name], float) for name in table.colnames if table[name].dtype.kind == "f"}
    tests = {
        "unlike the PSF": (value["chi2"] > 3) & (value["chi2"] < WORST_CHI2),
        "too sharp": (value["sharpness"] > 1.25 + 2 * value["sharpness_err"]) | (value["cosmic"] > 1.7),
        "square": value["block"] > 1 + 3 / snr,
        "too flat": value["sharpness"] < 0.75 - 2 * value["sharpness_err"],
        "elongated": (value["trail"] > 0.4) | (value["elongation"] > 0.03 + (4 / snr) ** 2),
        "on a slope": value["pedestal"] > 0.3,
        "dipole": (value["dipole"] > 0.4 + 1 / snr) | (value["negative"] > 0.35),
        "shifted": value["shifted"] > 0.5,
        "noisy surroundings": value["around"] > 1.6,
        "too wide": value["fwhm"] > (1.4 + 3 / snr) * fwhm,
        "too narrow": value["fwhm"] < (0.7 - 1 / snr) * fwhm,
    }
    return _joined(tests, len(table))


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


def _labels(table: Table, search: Search) -> np.ndarray:
    """Name what it is: new light, a change of something the template shows, or light that has gone."""
    known = np.nan_to_num(table["template_distance"], nan=np.inf) < 0.5 * np.nan_to_num(table["fwhm"], nan=3.0)
    there = shown(search.model, np.asarray(table["x"]), np.asarray(table["y"]), search.psf.fwhm)
    known |= there & (np.asarray(table["template_flux"]) > LEAST * np.abs(table["flux"]))
    brighter = np.asarray(table["flux"]) > 0
    return np.where(~brighter, np.where(known, "faded", "negative"), np.where(known, "variable", "new")).astype("U8")


def cutouts(layers: list[np.ndarray], x, y, side: int) -> np.ndarray:
    """Return (n, layers, side, side) cutouts around positions; NaN beyond the images."""
    column, row = np.rint(np.asarray(x)).astype(int), np.rint(np.asarray(y)).astype(int)
    if not len(column):
        return np.zeros((0, len(layers), side, side), np.float32)
    return np.stack([stamps(layer.astype(np.float32), column, row, side // 2, np.nan) for layer in layers], axis=1)
