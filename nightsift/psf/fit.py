"""The PSF fitted to the stars of an image, and photometry with it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from nightsift.errors import Rejected
from nightsift.image.polynomial import design, powers
from nightsift.image.stamps import spread
from nightsift.psf.forced import FLOOR, PsfFit, StarStamps, fitted, forced, solve, stars_at
from nightsift.psf.model import VARYING, WIDTHS, Psf, functions
from nightsift.statistics import SIGMA_PER_MAD

__all__ = ["WIDTHS", "Psf", "PsfFit", "PsfStars", "fit_psf", "fit_psf_stars", "fitted", "forced", "functions"]

MAX_ORDER = 2
STARS_PER_TERM = 3  # stars for each term of the polynomial in position
# Relative changes of the PSF that a term of that polynomial may be expected to make: few stars let it vary little.
CHANGES = (0.001, 0.003, 0.01, 0.03)
FOLDS = 5


# Many parameters: the image is three arrays: data, noise, bad pixels.
def fit_psf(image, noise, bad, stars, fwhm: float, aperture: float, most: int = 120) -> Psf:
    """Fit the PSF of an image to its stars.

    Parameters
    ----------
    image, noise : 2-D float32 arrays
        Background-subtracted image and standard deviation of a pixel without the stars' own photons, ADU.
    bad : 2-D bool array
        Pixels to leave out.
    stars : Table
        ``x, y, flux, snr, background`` of clean stars.
    fwhm, aperture : float
        Typical FWHM and radius of the calibration aperture, pixels.
    most : int
        Stars used at most, evenly over the image.

    Raises
    ------
    Rejected
        If fewer than 3 stars are left.
    """
    return fit_psf_stars(image, noise, bad, stars, fwhm, aperture, most).psf


@dataclass(frozen=True)
class PsfStars:
    """A PSF and its stars.

    Attributes
    ----------
    psf : Psf
    rows : 1-D integer array
        Rows of the stars that it rests on.
    flux, fluxerr : 1-D arrays
        Of each of them with the PSF of the other four fifths, ADU; the error is that of the noise alone.
    """

    psf: Psf
    rows: np.ndarray
    flux: np.ndarray
    fluxerr: np.ndarray


# Many parameters: the image is three arrays: data, noise, bad pixels.
def fit_psf_stars(image, noise, bad, stars, fwhm, aperture, most=120, max_order=MAX_ORDER) -> PsfStars:
    """Return the PSF that `fit_psf` does, and what its stars say of it.

    It varies as a polynomial in position of the order `max_order`, or a lower one where the stars are too few.
    """
    half = int(np.ceil(max(2.0 * fwhm, aperture + 1)))
    chosen = spread(stars["x"], stars["y"], -np.asarray(stars["snr"]), image.shape, most)
    sample = _cut(image, noise, bad, stars[chosen], half)
    whole = sample.usable.mean(axis=1) > 0.9
    sample, chosen = sample[whole], chosen[whole]
    if len(sample.x) < 3:
        raise Rejected(f"the PSF needs 3 clean stars; there are {len(sample.x)}")
    first, change = sample, CHANGES[0]
    for attempt in range(4):
        equations = _equations(sample, fwhm, image.shape, max_order)
        # Outliers would spoil the choice; the first round has found them.
        change = _change(equations) if attempt < 2 else change
        psf = Psf(equations.solution(change), fwhm, tuple(image.shape), equations.order, aperture)
        sample, chi2 = _recentre(sample, psf)
        spread_chi2 = SIGMA_PER_MAD * np.median(np.abs(chi2 - np.median(chi2)))
        kept = chi2 < np.median(chi2) + 4 * max(spread_chi2, 0.1 * np.median(chi2))
        if (attempt > 1 and kept.all()) or kept.sum() < 3:
            break
        sample, first, chi2, chosen = sample[kept], first[kept], chi2[kept], chosen[kept]
    psf = replace(psf, n_stars=len(sample.x), chi2=float(np.median(chi2)))
    return PsfStars(psf, chosen, *_held_out(sample, first.value, psf, max_order, change))


def _held_out(sample: StarStamps, value, psf: Psf, max_order: int, change: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the fluxes of stars, as they were cut out first, by the PSF of the others; and their errors."""
    equations = _equations(sample, psf.fwhm, psf.shape, max_order)
    flux, error = np.empty((2, len(sample.x)))
    for fold in range(len(equations.matrix)):
        out = equations.fold == fold
        other = replace(psf, coefficients=equations.solution(change, without=fold), order=equations.order)
        found = solve(replace(sample, value=value)[out], other)
        flux[out], error[out] = found.flux, found.fluxerr
    return flux, error


def _cut(image, noise, bad, stars, half) -> StarStamps:
    x, y = np.array(stars["x"], float), np.array(stars["y"], float)
    local = np.array(stars["background"], float)[:, None] if "background" in stars.colnames else 0.0
    sample = stars_at(image, noise, bad, x, y, half)
    return replace(sample, flux=np.array(stars["flux"], float), value=sample.value - local)


@dataclass(frozen=True)
class _Equations:
    """Weighted normal equations of the stars, and of the PSF's coefficients summed over each `fold` of the stars.

    ``gram`` (stars, functions, functions) and ``right`` (stars, functions) are those of each star, ``terms`` the
    polynomial at their places, up to `order`; ``matrix`` (folds, terms, functions, terms, functions) and ``vector``
    (folds, terms, functions) what follows for the coefficients; `stiffness` (functions, functions) is the matrix of a
    change in the norm in which a mean star's pixels weigh it, relative to the PSF.
    """

    gram: np.ndarray
    right: np.ndarray
    terms: np.ndarray
    fold: np.ndarray
    matrix: np.ndarray
    vector: np.ndarray
    stiffness: np.ndarray
    order: int

    def solution(self, change: float, without: int | None = None) -> np.ndarray:
        """Return the coefficients (terms, functions), without the stars of one fold.

        Those of the terms that vary have a Gaussian prior of the width `change`.
        """
        folds = [i for i in range(len(self.matrix)) if i != without]
        matrix, vector = self.matrix[folds].sum(axis=0), self.vector[folds].sum(axis=0)
        for term in range(1, len(vector)):
            matrix[term, :, term] += self.stiffness / change**2
        solution = np.zeros(vector.shape)
        solved = np.ones(vector.shape, bool)
        solved[1:] = VARYING
        kept = np.flatnonzero(solved)
        matrix = matrix.reshape(vector.size, vector.size)[np.ix_(kept, kept)]
        scale = np.sqrt(np.maximum(np.diag(matrix), 1e-30))
        matrix = matrix / scale / scale[:, None] + 1e-7 * np.eye(len(kept))
        solution[solved] = np.linalg.solve(matrix, vector[solved] / scale) / scale
        return solution

    def gain(self, change: float) -> np.ndarray:
        """Return by how much chi2 of each star falls when the fit without its fold describes it, in free strength."""
        gain = np.zeros(len(self.terms))
        for fold in range(len(self.matrix)):
            out = self.fold == fold
            weights = self.terms[out] @ self.solution(change, without=fold)
            light = np.einsum("sf,sf->s", weights, self.right[out])
            square = np.einsum("sf,sfg,sg->s", weights, self.gram[out], weights, optimize=True)
            gain[out] = light**2 / np.maximum(square, 1e-30)
        return gain


def _equations(sample: StarStamps, fwhm, shape, max_order) -> _Equations:
    u, v = sample.offsets()
    basis = np.moveaxis(functions(u[:, None, :], v[:, :, None], fwhm), 0, -1).reshape(*sample.value.shape, -1)
    weight = sample.usable / (sample.variance + (FLOOR * np.maximum(sample.value, 0)) ** 2)
    scaled = basis * (weight * sample.flux[:, None])[..., None]
    gram = np.matmul(np.swapaxes(scaled * sample.flux[:, None, None], 1, 2), basis)
    right = np.matmul(sample.value[:, None, :], scaled)[:, 0]
    enough = [n for n in range(max_order + 1) if len(sample.x) >= STARS_PER_TERM * len(powers(n))]
    order = max(enough, default=0)
    terms = design(sample.x, sample.y, shape, order)
    # The stars come cell by cell, so that every fold has some of all the image.
    folds = min(FOLDS, len(terms))
    fold = np.arange(len(terms)) % folds
    size, count = terms.shape[1], basis.shape[2]
    matrix, vector = np.zeros((folds, size, count, size, count)), np.zeros((folds, size, count))
    for i in range(folds):
        own = fold == i
        products = (terms[own, :, None] * terms[own, None, :]).reshape(own.sum(), -1)
        total = (products.T @ gram[own].reshape(own.sum(), -1)).reshape(size, size, count, count)
        matrix[i], vector[i] = total.transpose(0, 2, 1, 3), terms[own].T @ right[own]
    mean = gram.mean(axis=0)
    constant = np.linalg.solve(mean + 1e-7 * np.diag(np.diag(mean)), right.mean(axis=0))
    stiffness = mean / max(constant @ mean @ constant, 1e-30)
    return _Equations(gram, right, terms, fold, matrix, vector, stiffness, order)


def _change(equations: _Equations) -> float:
    """Return how much the PSF may vary: as much as predicts stars best that are left out of the fit."""
    best, gain = CHANGES[0], equations.gain(CHANGES[0]) if equations.order else None
    for change in CHANGES[1:] if equations.order else ():
        looser = equations.gain(change)
        better = looser - gain
        limit = 5 * np.median(np.abs(better))
        if np.clip(better, -limit, limit).mean() > 0:
            best, gain = change, looser
    return best


def _recentre(sample: StarStamps, psf: Psf) -> tuple[StarStamps, np.ndarray]:
    """Fit flux, position and background of each star; return the stars and their reduced chi2."""
    fitted = solve(sample, psf, with_background=True)
    moved = replace(
        sample,
        x=sample.x + np.clip(fitted.dx, -0.5, 0.5),
        y=sample.y + np.clip(fitted.dy, -0.5, 0.5),
        flux=np.where(fitted.flux > 0, fitted.flux, sample.flux),
        value=sample.value - fitted.level[:, None],
    )
    return moved, fitted.chi2
