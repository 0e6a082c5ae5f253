"""The stars that a subtraction is matched and checked by."""

from __future__ import annotations

import numpy as np
import sep
from astropy.table import Table

from nightsift.errors import Rejected
from nightsift.flags import UNUSABLE, Flag
from nightsift.image.padding import PAD, unpad
from nightsift.image.seeing import seeing, star_width, widths
from nightsift.image.stamps import crowded, spread, stamps
from nightsift.statistics import SIGMA_PER_MAD
from nightsift.subtract.difference import Exposure, Reference

# A masked pixel beyond the aperture has no weight in the fit of a kernel, and no part in a flux.
EXCLUDED = UNUSABLE & ~Flag.FOOTPRINT_MASKED
ENOUGH_STARS = 25  # stars, for which fainter ones are not needed
FAINT_SNR = 8.0  # of the stars that are taken where the bright ones are not enough
STAMP_SNR = 20.0
MIN_SEEN = 0.3  # share of the image's brightest stars that a template of the same field shows
AGREEING = 0.05  # relative fluxes of constant stars agree within that or better
UNSTEADY = 0.3  # scatter, natural logarithm, that passbands and flat fields may make of it
MOST = 400  # stars that the template's width, the flux scale and what counts as constant rest on

MIN_STAMPS = 5
BRIGHT, ENOUGH = 20.0, 10  # S/N of the stars of a PSF, and how many make fainter ones unnecessary
LIKE_STARS = 0.12  # relative difference of the width


def isolated(stars: Table, shape: tuple[int, int]) -> Table:
    """Return the stars that stand alone and are as wide as stars are there, for a PSF; all if they are too few.

    The bright ones alone if these are enough: a faint galaxy may be as narrow.
    """
    x, y, fwhm, snr = (np.asarray(stars[name], float) for name in ("x", "y", "fwhm", "snr"))
    alone, bright = np.asarray(stars["alone"]), snr > BRIGHT
    chosen = alone & (np.abs(fwhm / seeing(x, y, fwhm, alone & bright, shape).at(x, y) - 1) < LIKE_STARS)
    chosen = chosen & bright if (chosen & bright).sum() >= ENOUGH else chosen
    return stars[chosen] if chosen.sum() >= 3 else stars


def clean(objects: Table, exposure: Exposure) -> Table:
    """Objects that are not spoilt and not too faint, and whether they stand alone."""
    good = ((np.asarray(objects["flags"]) & int(EXCLUDED)) == 0) & (np.asarray(objects["snr"]) > FAINT_SNR)
    result = objects[good]
    result["alone"] = ~crowded(objects["x"], objects["y"], objects["flux"], 3 * exposure.fwhm, 0.05)[good]
    return result


def matched(objects: Table, exposure: Exposure, reference: Reference) -> Table:
    """Those of the unharmed objects that may serve as stamps: bright, unharmed in the template, too."""
    column = np.clip(np.rint(objects["x"]).astype(int), 0, exposure.mask.shape[1] - 1)
    row = np.clip(np.rint(objects["y"]).astype(int), 0, exposure.mask.shape[0] - 1)
    good = ~stamps(unpad(reference.mask), column, row, int(np.ceil(exposure.fwhm))).any(axis=(1, 2))
    bright = good & (np.asarray(objects["snr"]) > STAMP_SNR)
    stars = objects[bright if bright.sum() >= ENOUGH_STARS else good]
    if len(stars) < MIN_STAMPS:
        raise Rejected(f"only {len(stars)} unharmed stars of S/N > {FAINT_SNR:g}, fewer than {MIN_STAMPS}")
    seen, steady = _compared(stars, reference, exposure.fwhm)
    brightest = np.argsort(-np.asarray(stars["snr"]))[: max(2 * MIN_STAMPS, len(stars) // 2)]
    if seen.sum() < MIN_STAMPS or seen[brightest].mean() < MIN_SEEN:
        raise Rejected(
            f"the template shows {seen[brightest].sum()} of the image's {len(brightest)} brightest stars:"
            " is it of another field or passband, or much shallower?"
        )
    return stars[seen & steady]


def _compared(stars: Table, reference: Reference, fwhm: float) -> tuple[np.ndarray, np.ndarray]:
    """Tell which stars the template shows, too (above 5 sigma, and peaked), and which are about as bright in both."""
    x, y = np.asarray(stars["x"], float) + PAD, np.asarray(stars["y"], float) + PAD
    light, error, _ = sep.sum_circle(reference.data, x, y, fwhm, err=reference.noise)
    around, _, _ = sep.sum_circann(reference.data, x, y, 1.5 * fwhm, 2.5 * fwhm)
    seen = (light > 5 * error) & (light > around / 4)  # a flat sky has 4 times as much in the ring
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.log(np.asarray(stars["flux"]) / light)
        width = np.hypot(1 / np.asarray(stars["snr"]), error / light)
    if not seen.any():
        return seen, seen
    # In a sparse field most bright stars may be variable: the constant ones are those that agree.
    error = np.hypot(width, AGREEING)
    sample = np.flatnonzero(seen)
    sample = np.sort(sample[np.argsort(-np.asarray(stars["snr"])[sample])[:MOST]])
    agree = np.maximum(1 - np.square((ratio[sample] - ratio[sample][:, None]) / (3 * error[sample])), 0)
    off = np.abs(ratio - ratio[sample][np.argmax(agree.sum(axis=1))])
    steady = off < 3 * error
    for _ in range(6):
        scatter = SIGMA_PER_MAD * np.median(off[seen & steady])
        steady = off < 3 * np.hypot(width, np.clip(scatter, AGREEING, UNSTEADY))
    return seen, steady


def width_of(reference: Reference, stars: Table, guess: float) -> float:
    narrow = np.abs(np.asarray(stars["fwhm"]) / guess - 1) < 0.25
    points = stars[narrow] if narrow.sum() >= 3 else stars
    shape = tuple(side - 2 * PAD for side in reference.data.shape)
    points = points[spread(points["x"], points["y"], -np.asarray(points["snr"]), shape, MOST)]
    found = widths(reference.data, points["x"] + PAD, points["y"] + PAD, guess, reference.mask != 0)
    found = found[np.isfinite(found) & (found > 0.5)]
    if not len(found):
        raise Rejected("the template shows none of the image's stars: are its WCS and the image's right?")
    return star_width(found)
