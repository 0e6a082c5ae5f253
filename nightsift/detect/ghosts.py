"""Recognise double exposures: every star has a companion at the same offset, with the same fraction of its flux."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from nightsift.image.stamps import stamps
from nightsift.statistics import FWHM_PER_SIGMA

BRIGHT = 300  # stars whose companions are looked for
NEAREST, FURTHEST = 1.5, 40.0  # FWHM between a star and its companion
FAINTEST, EQUAL = 0.03, 1.2  # flux of the companion, relative to the star's
PLACE, LIGHT = 0.4, 0.12  # FWHM and dex by which companions of a kind differ
SEEN = 8.0  # S/N that a companion must have for its absence to count
FEWEST = 6  # pairs
CHAINED = 0.4  # of stars with a companion that are companions themselves: a regular pattern, as simulations have
CONSTANT = 0.6  # least fraction of what is found at the offset that has the right brightness
ACROSS = 1.3  # width of both across the line that joins them over that along it: pieces of a ring, stars out of focus
MEDIAN_OF = 12  # stars that a median must have, for a companion that merges with its star
LOPSIDED, REMAINING = 0.25, 0.55  # difference of a star from itself upside down, and the fraction of it that may remain
FLUXES = np.array([0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7])  # of a companion that are tried
DIP, PLAIN = 0.88, 0.97  # light between two equal copies over that of the fainter, and least across the line of both
PEAK = 10.0  # sigma of a star's peak, in `peaks`


@dataclass(frozen=True)
class Doubled:
    """Stars that come in pairs.

    Attributes
    ----------
    dx, dy : float
        From star to companion, pixels.
    ratio : float
        Flux of the companion, relative to the star's.
    fraction : float
        Of the stars that are one of such a pair, among those bright enough.
    number : int
        Pairs.
    """

    dx: float
    dy: float
    ratio: float
    fraction: float
    number: int

    def __str__(self) -> str:
        return (
            f"{self.fraction:.0%} of the stars come in pairs, with a companion of {self.ratio:.2f} of their flux"
            f" at ({self.dx:+.1f}, {self.dy:+.1f}) pixels"
        )


def doubled(x, y, flux, snr, fwhm: float, shape=None) -> Doubled | None:
    """Return the offset at which most stars of an image have a companion; None where there are too few such pairs.

    Parameters
    ----------
    x, y, flux, snr : 1-D arrays
        Positions (pixels), fluxes and their S/N of all objects.
    fwhm : float
        Pixels.
    shape : (3, n) array, optional
        Semi-axes a and b of the objects (pixels) and the angle of a from x towards y (radians). By them, pieces of
        stars that are out of focus are told from companions.
    """
    good = np.isfinite(x) & np.isfinite(y) & (np.nan_to_num(flux) > 0)
    place = np.column_stack([x, y]).astype(float)[good] / fwhm
    flux, snr = np.asarray(flux, float)[good], np.asarray(snr, float)[good]
    brightest = np.argsort(-flux)[:BRIGHT]
    near = cKDTree(place[brightest]).query_ball_tree(cKDTree(place), FURTHEST) if len(brightest) else []
    star = np.repeat(brightest, [len(found) for found in near]).astype(int)
    other = np.concatenate([np.zeros(0, int), *map(np.asarray, near)]).astype(int)
    offset, ratio = place[other] - place[star], flux[other] / flux[star]
    kept = (np.hypot(*offset.T) > NEAREST) & (ratio > FAINTEST) & (ratio < EQUAL)
    star, offset, ratio = star[kept], offset[kept], ratio[kept]
    if len(star) < FEWEST:
        return None
    kinds = cKDTree(np.column_stack([offset / PLACE, np.log10(ratio) / LIGHT]))
    densest = max(kinds.query_ball_point(kinds.data, 1.0), key=len)
    number = len(np.unique(star[densest]))
    if number < FEWEST:
        return None
    dx, dy = np.median(offset[densest], axis=0)
    if shape is not None and _arcs(np.asarray(shape, float)[:, good][:, star[densest]], np.arctan2(dy, dx)):
        return None
    typical = float(np.median(ratio[densest]))
    tree = cKDTree(place)

    def partnered(rows, way):
        """Tell which stars have anything at the offset (way 1) or opposite to it (-1), and which what belongs there."""
        there = tree.query_ball_point(place[rows] + way * np.array([dx, dy]), PLACE)
        off = [np.abs(np.log10(flux[found] / flux[one] / typical**way)) for one, found in zip(rows, there, strict=True)]
        found = np.array([len(each) > 0 for each in off], bool)
        return found, np.array([np.any(each < 1.5 * LIGHT) for each in off], bool)

    # Bright enough that its companion, if it is a star, and its star, if it is a companion, would be seen.
    counted = brightest[snr[brightest] * typical > SEEN]
    (anything, has), (_, is_one) = partnered(counted, 1), partnered(counted, -1)
    if np.sum(has & is_one) > CHAINED * has.sum() or has.sum() < CONSTANT * anything.sum():
        return None
    fraction = float(np.mean(has | is_one)) if len(counted) else 0.0
    return Doubled(float(dx * fwhm), float(dy * fwhm), typical, fraction, number)


def near(image: np.ndarray, x, y, fwhm: float) -> Doubled | None:
    """Return the offset of a companion that merges with its star, in the median of stars; None without one.

    Only what a second copy of the PSF explains is one: once it is taken out, what is left must look the same from
    both sides, much more than before. So coma, doughnuts and trails have none.

    Parameters
    ----------
    image : 2-D float32 array
        Without its background.
    x, y : 1-D arrays
        Of bright unsaturated stars, pixels.
    fwhm : float
        Pixels.
    """
    if len(x) < MEDIAN_OF:
        return None
    reach, half = int(np.ceil(fwhm)), int(np.ceil(3 * fwhm))
    column, row = np.rint(x).astype(int), np.rint(y).astype(int)
    if (even := _even(image, column, row, fwhm)) is not None:
        return even
    # Of the two the star itself is the brighter.
    highest = stamps(image, column, row, reach).reshape(len(column), -1).argmax(axis=1)
    cut = stamps(image, column + highest % (2 * reach + 1) - reach, row + highest // (2 * reach + 1) - reach, half)
    cut = cut / np.maximum(cut[:, half, half], 1e-30)[:, None, None]
    whole = np.median(cut, axis=0).astype(float)
    best, before = None, _lopsided(whole)
    if before < LOPSIDED:
        return None
    for away in np.arange(0.8, 2.4, 0.15) * fwhm:
        for angle in np.linspace(0, 2 * np.pi, int(np.ceil(2 * np.pi * away)), endpoint=False):
            dx, dy = away * np.cos(angle), away * np.sin(angle)
            there = whole[half + round(dy), half + round(dx)]
            for light in FLUXES[1.1 * there > FLUXES]:
                single = _without_copy(whole, dx, dy, light)
                left = _lopsided(single)
                if best is None or left < best[0]:
                    best = left, dx, dy, light, single
    if best is None or best[0] > REMAINING * before:
        return None
    _, dx, dy, light, single = best
    width = 2 * np.sqrt(np.sum(single > single.max() / 2) / np.pi)
    if np.hypot(dx, dy) < width:
        return None
    ahead, behind = (cut[:, half + round(way * dy), half + round(way * dx)] for way in (1, -1))
    fraction = np.mean(ahead - behind > light / 2)
    return Doubled(float(dx), float(dy), float(light), float(fraction), len(x))


def _even(image, column, row, fwhm: float) -> Doubled | None:
    """Return the offset of a companion about as bright as its star: between both, and only on that line, is less light.

    By the middle of both, as either may be the brighter one.
    """
    half = int(np.ceil(1.5 * fwhm))
    v, u = np.mgrid[-half : half + 1, -half : half + 1]
    inside = np.hypot(u, v) <= 1.2 * fwhm
    for _ in range(3):
        cut = np.maximum(stamps(image, column, row, half), 0) * inside
        light = np.maximum(cut.sum(axis=(1, 2)), 1e-30)
        column = column + np.rint(np.sum(cut * u, axis=(1, 2)) / light).astype(int)
        row = row + np.rint(np.sum(cut * v, axis=(1, 2)) / light).astype(int)
    cut = stamps(image, column, row, half) / light[:, None, None]
    whole = np.median(cut, axis=0).astype(float)
    weight = np.maximum(whole, 0) * inside
    angle = 0.5 * np.arctan2(2 * np.sum(weight * u * v), np.sum(weight * (u**2 - v**2)))
    away = np.arange(-1.1 * fwhm, 1.1 * fwhm + 0.1, 0.25)
    along, across = (
        ndimage.map_coordinates(whole, half + np.outer([np.sin(turn), np.cos(turn)], away), order=1)
        for turn in (angle, angle + np.pi / 2)
    )
    left, right = np.argmax(np.where(away < 0, along, -np.inf)), np.argmax(np.where(away > 0, along, -np.inf))
    fainter, brighter = sorted((along[left], along[right]))
    middle = np.interp(0, away, across)
    if along[left : right + 1].min() > DIP * fainter or middle < PLAIN * across.max():
        return None
    dx, dy = (away[right] - away[left]) * np.array([np.cos(angle), np.sin(angle)])
    ends = [
        cut[:, half + round(away[end] * np.sin(angle)), half + round(away[end] * np.cos(angle))]
        for end in (left, right)
    ]
    fraction = np.mean(np.minimum(*ends) > cut[:, half, half])
    return Doubled(float(dx), float(dy), float(fainter / brighter), float(fraction), len(cut))


def _lopsided(stamp: np.ndarray) -> float:
    """Return how much a stamp differs from itself turned by half a turn, relative to its light."""
    return float(np.abs(stamp - stamp[::-1, ::-1]).sum() / np.abs(stamp).sum())


def _without_copy(stamp: np.ndarray, dx: float, dy: float, light: float) -> np.ndarray:
    """Take a fainter copy at an offset out of a stamp: of 1 / (1 + copy), the first terms of the series."""
    result, term, weight = stamp.copy(), stamp, 1.0
    while weight > 0.02:
        term, weight = -light * ndimage.shift(term, (dy, dx), order=1), weight * light
        result += term
    return result


def _arcs(shape: np.ndarray, angle: float) -> bool:
    """Tell whether objects are wider across a direction than along it."""
    a, b, theta = shape
    turn = theta - angle
    along = np.hypot(a * np.cos(turn), b * np.sin(turn))
    across = np.hypot(a * np.sin(turn), b * np.cos(turn))
    return bool(np.median(across / np.maximum(along, 1e-6)) > ACROSS)


def peaks(image: np.ndarray, noise: np.ndarray, bad: np.ndarray, fwhm: float):
    """Return ``x, y, height, snr`` of the peaks of a smoothed image: enough to recognise pairs by."""
    smooth = ndimage.gaussian_filter(np.where(bad, 0, image / np.maximum(noise, 1e-30)), fwhm / FWHM_PER_SIGMA)
    # White noise of 1 is that much lower behind the filter.
    snr = smooth * (2 * np.sqrt(np.pi) * fwhm / FWHM_PER_SIGMA)
    row, column = np.nonzero((snr > PEAK) & (snr == ndimage.maximum_filter(snr, 3)))
    height = snr[row, column] * noise[row, column]
    return column.astype(float), row.astype(float), height, snr[row, column]
