"""What speaks for and against each candidate: flags, labels, reasons to set it aside."""

from __future__ import annotations

import numpy as np
from astropy.table import Table
from scipy.spatial import cKDTree

from nightsift import parameters
from nightsift.flags import Flag, Mask
from nightsift.image.stamps import stamps
from nightsift.subtract.difference import Search
from nightsift.transients.beneath import shown
from nightsift.transients.holes import pits
from nightsift.transients.lines import lit, strung

BESIDE = 0.02  # of the flux of a saturated star: what its wings and spikes may leave around it
BESIDE_ANY = 0.005  # of the flux of any star: the same
SATURATED_SNR = 20.0  # below it, what remains around a saturated core is no proof of new flux
GROWN = 0.3  # of its flux in the template: what a saturated core must have gained, measured as it is by its wings
WORST_CHI2 = 15.0  # of a PSF fit that allows for an error of 8 per cent of the PSF: no point source, however bright
WINGS_CHI2 = 10.0  # of the wings of such a core, beyond which they are no star's
ALIKE = 0.4  # of its flux that a piece of a trail finds further along the line
SIDED = 0.5  # strongest opposite extreme beside such a core that speaks for a bad subtraction
SHIFTED = 0.7  # fraction of what the PSF explains that a shift of the template explains as well, if it is one
UNQUIET = 1.5  # rms of the S/N around a candidate where a saturated star has left something
GUESSED = 0.3  # of a star's flux, where all of its PSF is masked or beyond the border
REMAINS = 0.1  # of the S/N of a trail: what may be left of it
EXTENDED = 1.4  # FWHM of the PSF: what is wider and flatter than that, beyond the noise, is no point source
LEAST = 0.01  # of a change: fainter flux in the template makes no variable of it, however deep that is


def pixel(table: Table, shape):
    column = np.clip(np.rint(table["x"]).astype(int), 0, shape[1] - 1)
    return column, np.clip(np.rint(table["y"]).astype(int), 0, shape[0] - 1)


def rejections(table: Table, search: Search, threshold: float, params: parameters.TransientsConfig):
    """Return for each candidate what speaks against it whatever it looks like."""
    if not len(table):
        return np.zeros(0, "U1")
    column, row = pixel(table, search.mask.shape)
    significance = np.abs(np.asarray(table["flux"] / table["bgerr"]))
    centre = search.mask[row, column]
    # What saturates here and did not in the template has grown: its wings are measured, its core is not.
    table["saturated"] = (centre == int(Mask.SATURATED)) & (significance > SATURATED_SNR)
    saturated = np.asarray(table["saturated"])
    star, flux = np.asarray(table["template_flux"]), np.asarray(table["flux"])
    crossed = np.zeros(len(table), bool)
    for trail in search.quality.trails:
        near = trail.distance(table["x"], table["y"]) < trail.width + 0.5 * search.psf.fwhm
        piece = (significance < REMAINS * trail.height) | (np.asarray(table["trail"]) > ALIKE)
        crossed |= near & (np.sign(flux) == trail.sign) & piece
    doubtful = (flux < GROWN * np.abs(star)) | ~(np.asarray(table["chi2"]) < WINGS_CHI2)
    beside = np.abs(flux) < BESIDE * np.asarray(table["beside"])
    # A star that only the template has saturated is known by its flux.
    beside |= np.abs(flux) < BESIDE_ANY * np.asarray(table["neighbour"])
    # What is new, the image itself must show.
    pit = _pits(table, search) > params.max_hole
    # No example is as wide as that, and what a model has not seen, it calls what it likes.
    flat = np.asarray(table["sharpness"] + 2 * table["sharpness_err"]) < 0.75
    wide = np.asarray(table["fwhm"]) > (EXTENDED + 3 / np.maximum(significance, 1.0)) * search.psf.fwhm
    tests = {
        "faint": ~(significance >= threshold),
        "poor PSF fit": ~(np.asarray(table["chi2"]) < WORST_CHI2) & ~saturated,
        "masked centre": (centre != 0) & (centre != int(Mask.SATURATED)),
        "masked": (np.asarray(table["masked"]) > params.max_masked) & ~saturated,
        "on a trail": crossed,
        "on a line": _on_lines(table, search, significance, threshold, params),
        "extended": flat & wide & ~saturated,
        "negative without template source": (flux < 0) & ~(star > -0.5 * flux),
        "hole in the template": (flux > 0) & (pit | (star < -params.max_hole * flux)),
        "hole in the image": (flux < 0) & pit,
        "residual of a star": np.abs(flux) < (params.residual + GUESSED * np.asarray(table["masked"])) * np.abs(star),
        "beside a bright star": beside & (np.asarray(table["around"]) > UNQUIET) & ~saturated,
        "saturated": saturated & (doubtful | (np.asarray(table["dipole"]) > SIDED)),
        "shift of the template": np.asarray(table["shifted"]) > SHIFTED,
    }
    return _joined(tests, len(table))


def _on_lines(table: Table, search: Search, significance, threshold: float, params: parameters.TransientsConfig):
    x, y = np.asarray(table["x"]), np.asarray(table["y"])
    result = lit(search.snr, x, y, np.nan_to_num(significance), search.psf.fwhm) > params.max_line
    # What is no more than noise is a bead of no string.
    plain = significance >= threshold
    result[plain] |= strung(x[plain], y[plain], significance[plain], search.psf.fwhm)
    return result


def _pits(table: Table, search: Search) -> np.ndarray:
    """Fraction of each change that a hole in the other image explains."""
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
    """Set ``is_real`` and ``reasons`` of a table with ``rejections`` and ``score``, in place; ``rejections`` goes.

    The score decides, and what stands out among the measures explains a low one.
    """
    rejected = np.asarray(table["rejections"], str)
    low = ~(np.asarray(table["score"]) >= min_score)
    hints = shape_doubts(table, fwhm)
    table["is_real"] = (rejected == "") & ~low
    why = np.where(hints == "", "unlike a point source", hints)
    both = [
        ", ".join(filter(None, (reason, text if bad else "")))
        for reason, text, bad in zip(rejected, why, low, strict=True)
    ]
    table["reasons"] = np.array(both, str) if both else np.zeros(0, "U1")
    table.remove_column("rejections")


def shape_doubts(table: Table, fwhm: float) -> np.ndarray:
    snr = np.maximum(np.abs(np.nan_to_num(table["snr"], nan=1.0)), 1.0)
    value = {name: np.asarray(table[name], float) for name in table.colnames if table[name].dtype.kind == "f"}
    tests = {
        "poor PSF fit": (value["chi2"] > 3) & (value["chi2"] < WORST_CHI2),
        "too sharp": (value["sharpness"] > 1.25 + 2 * value["sharpness_err"]) | (value["cosmic"] > 1.7),
        "square": value["block"] > 1 + 3 / snr,
        "broader than PSF": value["sharpness"] < 0.75 - 2 * value["sharpness_err"],
        "elongated": (value["trail"] > 0.4) | (value["elongation"] > 0.03 + (4 / snr) ** 2),
        "background gradient": value["pedestal"] > 0.3,
        "dipole": (value["dipole"] > 0.4 + 1 / snr) | (value["negative"] > 0.35),
        "shifted": value["shifted"] > 0.5,
        "noisy surroundings": value["around"] > 1.6,
        "too wide": value["fwhm"] > (1.4 + 3 / snr) * fwhm,
        "too narrow": value["fwhm"] < (0.7 - 1 / snr) * fwhm,
    }
    return _joined(tests, len(table))


def candidate_flags(table: Table, objects: Table, search: Search):
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


def candidate_labels(table: Table, search: Search) -> np.ndarray:
    """Name what it is: a new source, a change of one that the template shows, or one that has faded."""
    known = np.nan_to_num(table["template_distance"], nan=np.inf) < 0.5 * np.nan_to_num(table["fwhm"], nan=3.0)
    there = shown(search.model, np.asarray(table["x"]), np.asarray(table["y"]), search.psf.fwhm)
    known |= there & (np.asarray(table["template_flux"]) > LEAST * np.abs(table["flux"]))
    brighter = np.asarray(table["flux"]) > 0
    return np.where(~brighter, np.where(known, "faded", "negative"), np.where(known, "variable", "new")).astype("U8")
