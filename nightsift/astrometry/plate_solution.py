"""Plate solutions: fitted to matches, and chosen by how well they predict stars that they were not fitted to."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb
from typing import NamedTuple

import numpy as np
from astropy.io import fits
from astropy.wcs.utils import wcs_to_celestial_frame

from nightsift import statistics
from nightsift.astrometry import asterism, sip
from nightsift.errors import Rejected
from nightsift.sky import tangent, wcs
from nightsift.sky.pixels import grid

STARS_PER_TERM = 3
#: a solution of more freedom must predict held-out stars better by this many standard errors: than the input, the rest
CLEARLY = {True: 2.0, False: 0.5}
#: variance of a fit, anywhere in the image, in units of a star's
WILDEST = 16.0
#: the solutions that go back to the input
KNOWN = ("input", "adjusted")
#: loss of a star at which it counts as an outlier: 3 sigma on both axes
WORST = 18.0


class Form(NamedTuple):
    """The polynomials of a plate: all terms up to degree `full`, above it the position times even powers of the radius.

    Optics distort along the radius above all: that takes a part of the terms and far fewer stars.
    """

    order: int
    full: int

    @property
    def terms(self) -> int:
        return len(sip.powers(self.full)) + 2 * len(self._radial)

    @property
    def _radial(self) -> range:
        """Half the powers of the radius."""
        return range(self.full // 2 + self.full % 2, self.order // 2 + 1) if self.full < self.order else range(0)

    def basis(self) -> np.ndarray:
        """Return the (monomials, terms) matrix from this form's coefficients to those of `sip.monomials`."""
        place = {power: row for row, power in enumerate(sip.powers(self.order))}
        count = len(sip.powers(self.full))
        basis = np.eye(len(place), self.terms)
        basis[count:] = 0
        for number, half in enumerate(self._radial):
            for k in range(half + 1):
                i, j = 2 * (half - k), 2 * k
                along_x, along_y = count + 2 * number, count + 2 * number + 1
                basis[place[i + 1, j], along_x] = basis[place[i, j + 1], along_y] = comb(half, k)
        return basis

    def design(self, points) -> np.ndarray:
        full = sip.monomials(points, self.order)
        return full if self.full == self.order else full @ self.basis()


#: by rising number of terms
FORMS = tuple(Form(*both) for both in ((1, 1), (3, 1), (2, 2), (5, 1), (3, 2), (3, 3), (5, 2), (5, 3), (4, 4), (5, 5)))


@dataclass(frozen=True)
class Lists:
    """Objects (`pixels` about the centre, brightest first) and catalogue (brightest first) in plain arrays."""

    pixels: np.ndarray
    photon: np.ndarray
    good: np.ndarray
    index: np.ndarray
    ra: np.ndarray
    dec: np.ndarray
    index_ref: np.ndarray
    shape: tuple[int, int]

    @property
    def center(self) -> complex:
        return (self.shape[1] - 1) / 2 + 0.5j * (self.shape[0] - 1)

    @property
    def unit(self) -> float:
        return 0.5 * float(np.hypot(*self.shape))


@dataclass(frozen=True)
class Plate:
    """``xi, eta`` about `crval`, in degrees, as polynomials of pixels from the image's centre."""

    coefficients: np.ndarray
    order: int
    unit: float
    crval: tuple[float, float]
    used: np.ndarray

    def plane(self, pixels):
        fitted = sip.monomials(pixels / self.unit, self.order) @ self.coefficients
        return fitted[:, 0] + 1j * fitted[:, 1]

    @property
    def scale(self):
        return float(np.sqrt(abs(np.linalg.det(self.coefficients[1:3])))) / self.unit


def fit_plate(image, first, second, sigma, form: Form, crval) -> Plate:
    """Fit the polynomial plate, moving the tangent point until it is at the image's centre."""
    design = form.design(image.pixels[first] / image.unit)
    for _ in range(5):
        plane = tangent.project(image.ra[second], image.dec[second], *crval)
        solution, used = statistics.clipped_fit(design, np.column_stack([plane.real, plane.imag]), sigma)
        offset = complex(*solution[0])
        if abs(offset) < 1e-10:
            break
        crval = tuple(float(value) for value in tangent.deproject(offset, *crval))
    return Plate(form.basis() @ solution, form.order, image.unit, crval, used)


def tighten(image, first, second, crval, params):
    """Match all stars with a radius that shrinks to what the scatter asks for; return plate and matches."""
    sigma = np.hypot(0.1, image.photon)
    for step in range(8):
        forms = [form for form in FORMS if form.order <= min(params.max_order, 2 + step)]
        form = next(form for form in reversed(forms) if supported(image, form, first))
        plate = fit_plate(image, first, second, sigma[first], form, crval)
        crval = plate.crval
        reference = tangent.project(image.ra, image.dec, *crval) / plate.scale
        points = plate.plane(image.pixels) / plate.scale
        scatter = statistics.robust_sigma(parts((points[first] - reference[second])[plate.used]))
        near = np.flatnonzero(np.abs(reference) < 1.5 * image.unit)
        density = max(len(near), len(points)) / np.prod(image.shape)
        sparse = asterism.SPARSE / np.sqrt(density)
        # wide at first, or a fit that suits a part of the image never reaches the rest
        radius = min(sparse, 10.0) if step < 3 else min(6.0 * scatter, sparse)
        radius = max(radius, 3.0 * scatter, 0.5)
        matched, nearest, _, _ = asterism.mutual(points, reference[near], radius)
        if len(matched) < params.min_matches:
            raise Rejected(f"only {len(matched)} objects match the catalogue, {params.min_matches} needed")
        same = np.array_equal(matched, first) and np.array_equal(near[nearest], second)
        first, second = matched, near[nearest]
        if same and step > 2:
            break
    return plate, first, second


def parts(values):
    return np.concatenate([values.real, values.imag])


def supported(image, form: Form, first, sigma=None):
    """Tell whether matches are enough for a form, and so spread that its fit is nowhere wild."""
    if form.order == 1:
        return True
    if len(first) < STARS_PER_TERM * form.terms:
        return False
    weight = np.ones(len(first)) if sigma is None else (np.median(sigma) / sigma) ** 2
    everywhere = form.design((grid(image.shape, 15, 0.0) - image.center) / image.unit)
    return statistics.leverage(form.design(image.pixels[first] / image.unit), everywhere, weight).max() <= WILDEST


def jitter(offset, photon) -> float:
    """Return what the bright stars scatter beyond their photon noise, per axis, in the unit of `offset`."""
    bright = photon <= np.median(photon)
    excess = statistics.robust_sigma(parts(offset[bright])) ** 2 - np.median(photon[bright]) ** 2
    return float(np.sqrt(max(excess, 0.02**2)))


def errors(image, plate, first, second):
    """Return the error in pixels of each match: photon noise and what the bright stars scatter beyond it."""
    offset = (plate.plane(image.pixels[first]) - tangent.project(image.ra[second], image.dec[second], *plate.crval)) / (
        plate.scale
    )
    return np.hypot(jitter(offset, image.photon[first]), image.photon[first])


def trusted(image, first, params):
    """Return which matches to fit: clean ones, or all where these are few."""
    clean = image.good[first]
    return clean if clean.sum() >= max(3 * params.min_matches, 20) else np.ones(len(first), bool)


def choose(image, first, second, sigma, crval, start, params):
    """Return ``(name, header)`` of the simplest solution that none predicts held-out stars clearly better than.

    The candidates, by rising freedom: the input as it is, the input's distortion with a new linear part, and of `FORMS`
    those that the matches support. Each predicts every star from a fit to the other folds.
    """
    plane = tangent.project(image.ra[second], image.dec[second], *crval)
    target = np.column_stack([plane.real, plane.imag])
    pixels = image.pixels[first]
    scale = fit_plate(image, first, second, sigma, FORMS[0], crval).scale
    weight = 1 / sigma**2
    contenders = []
    if start is not None:
        known = tangent.project(*wcs.sky(start, pixels + image.center), *wcs.center_sky(start, image.shape))
        if wcs.is_icrs(wcs_to_celestial_frame(start)):
            direct = tangent.project(*wcs.sky(start, pixels + image.center), *crval)
            contenders.append(("input", np.column_stack([direct.real, direct.imag]) - target))
        if not start.wcs.ctype[0].endswith("TAN"):
            design = sip.monomials(known / scale / image.unit, 1)
            contenders.append(("adjusted", statistics.held_out(design, target, weight)))
    for form in FORMS:
        if form.order <= params.max_order and supported(image, form, first, sigma):
            contenders.append((form, statistics.held_out(form.design(pixels / image.unit), target, weight)))
    name, best = None, None
    for contender, residual in contenders:
        loss = np.minimum((np.nan_to_num(residual, nan=1e3) ** 2).sum(axis=1) / (scale * sigma) ** 2, WORST)
        gain = 0 if best is None else best - loss
        better = best is None or gain.mean() > max(CLEARLY[name in KNOWN] * gain.std() / np.sqrt(len(gain)), 0.01)
        header = _header(image, contender, first, second, sigma, crval, start) if better else None
        if header is not None:
            name, best, chosen = contender, loss, header
    return name, chosen


def _header(image, name, first, second, sigma, crval, start) -> fits.Header | None:
    """Return the header of a contender fitted to all matches, None where TAN-SIP cannot express it."""
    if name == "input":
        return _input_header(start)
    if name == "adjusted":
        return _adjusted_header(image, first, second, sigma, crval, start)
    plate = fit_plate(image, first, second, sigma, name, crval)
    return sip.header(plate.coefficients, name.order, image.unit, image.center, plate.crval, image.shape)


def _input_header(start) -> fits.Header:
    """Return the celestial cards of the input."""
    cards = start.to_header(relax=True)
    for name in ("DATE-OBS", "MJD-OBS", "MJDREF", "MJDREFI", "MJDREFF", "EQUINOX", "TIMESYS"):
        cards.remove(name, ignore_missing=True)
    cards["RADESYS"] = "ICRS"
    return cards


def _adjusted_header(image, first, second, sigma, crval, start, good=0.01) -> fits.Header | None:
    """Return the input's distortion with a new linear part as TAN-SIP."""
    origin = wcs.center_sky(start, image.shape)
    known = tangent.project(*wcs.sky(start, image.pixels[first] + image.center), *origin)
    pixels = grid(image.shape)
    sampled = tangent.project(*wcs.sky(start, pixels), *origin)
    unit = image.unit * wcs.pixel_scale(start, image.shape)
    design = sip.monomials(known / unit, 1)
    for _ in range(5):
        plane = tangent.project(image.ra[second], image.dec[second], *crval)
        solution, _ = statistics.clipped_fit(design, np.column_stack([plane.real, plane.imag]), sigma)
        middle = sip.monomials(np.array([0j]), 1) @ solution
        crval = tuple(float(value) for value in tangent.deproject(complex(*middle[0]), *crval))
    moved = sip.monomials(sampled / unit, 1) @ solution
    moved = moved[:, 0] + 1j * moved[:, 1] - complex(*middle[0])
    for order in range(1, 8):
        fitted = sip.fit_pixels(pixels - image.center, moved, None, order, image.unit)
        rest = sip.monomials((pixels - image.center) / image.unit, order) @ fitted
        if np.abs(rest[:, 0] + 1j * rest[:, 1] - moved).max() < good * wcs.pixel_scale(start, image.shape):
            return sip.header(fitted, order, image.unit, image.center, crval, image.shape)
    return None
