"""The convolution kernel that turns one image's PSF and flux scale into another's (Alard & Lupton 1998; Alard 2000)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nightsift.image.polynomial import design
from nightsift.statistics import FWHM_PER_SIGMA, SIGMA_PER_MAD

DEGREES = (4, 3, 2, 0)
WIDTH_RATIOS = (0.5, 1.0, 2.0)
WING = 0.8  # width of the broadest Gaussian in FWHM: stars have wings, and so has the kernel between them
MIN_WIDTH = 0.7
TOLERATED = 0.05  # misfit of a stamp, relative to its light, that is no reason to leave it out
TINY = 1e-12  # what is less only makes single precision slow
CLEARLY = 2.0  # standard errors by which a higher order has to predict held-out stamps better
BLOCK = 16  # stamps at a time: more need memory and are out of the cache


@dataclass(frozen=True)
class Basis:
    """Gaussians times polynomials, and a delta function.

    Attributes
    ----------
    widths : tuple of float
        Standard deviations, pixels.
    half : int
        The kernel has 2 half + 1 pixels a side.
    penalty, strengths
        Matrix of a penalty on the coefficients, or None, and how strong it may be (relative to the data): see
        `nightsift.subtract.delta.DeltaBasis`.
    """

    widths: tuple[float, ...]
    half: int

    penalty = None
    strengths = (0.0,)

    @cached_property
    def lines(self) -> list[np.ndarray]:
        """One-dimensional functions for each width: (2 half + 1, degree + 1) arrays."""
        t = np.arange(-self.half, self.half + 1)
        result = []
        for width, degree in zip(self.widths, DEGREES, strict=True):
            line = np.stack([(t / width) ** i * np.exp(-(t**2) / (2 * width**2)) for i in range(degree + 1)], axis=1)
            line = line / np.sqrt(np.sum(line**2, axis=0))
            result.append(np.where(np.abs(line) > TINY, line, 0))
        return result

    @cached_property
    def kernels(self) -> np.ndarray:
        """All functions as (functions, 2 half + 1, 2 half + 1) kernels."""
        delta = np.zeros((2 * self.half + 1, 2 * self.half + 1))
        delta[self.half, self.half] = 1
        pairs = [np.outer(line[:, j], line[:, i]) for line in self.lines for i, j in _pairs(line.shape[1])]
        return np.stack([delta, *pairs])

    def convolve(self, stamps: np.ndarray) -> np.ndarray:
        """Convolve (n, h, w) stamps with every function: (n, functions, h - 2 half, w - 2 half), the valid part."""
        inner = stamps[:, self.half : -self.half, self.half : -self.half]
        result = np.empty((len(stamps), len(self.kernels), *inner.shape[1:]), stamps.dtype)
        result[:, 0] = inner
        first = 1
        for line in self.lines:
            along_x, along_y = (_bands(line.astype(stamps.dtype), side) for side in stamps.shape[:0:-1])
            flat = np.ascontiguousarray(stamps).reshape(-1, stamps.shape[2])
            for i in range(line.shape[1]):
                rows = np.matmul(flat, along_x[i].T).reshape(*stamps.shape[:2], -1)
                for j in range(line.shape[1] - i):
                    np.matmul(along_y[j], rows, out=result[:, first])
                    first += 1
        return result


def _bands(line: np.ndarray, side: int) -> np.ndarray:
    """Return the matrices that convolve a line of `side` pixels with each function: (functions, valid pixels, side)."""
    length = len(line)
    result = np.zeros((line.shape[1], side - length + 1, side), line.dtype)
    for start in range(side - length + 1):
        result[:, start, start : start + length] = line[::-1].T
    return result


def _pairs(number: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(number) for j in range(number - i)]


def basis_for(fwhm_from: float, fwhm_to: float) -> Basis:
    """Return a basis scaled to the width of the kernel between two Gaussians (Becker et al. 2012, section 2)."""
    difference = np.sqrt(max(fwhm_to**2 - fwhm_from**2, 0.0)) / FWHM_PER_SIGMA
    width = max(difference, MIN_WIDTH)
    widths = tuple(max(ratio * width, MIN_WIDTH * ratio**0.5) for ratio in WIDTH_RATIOS)
    half = int(np.clip(np.ceil(max(2.2 * widths[-1], 2.2 * fwhm_to)), 4, 20))
    return Basis((*widths, max(WING * fwhm_to, 1.5 * widths[-1])), half)


@dataclass(frozen=True)
class Kernel:
    """A kernel that varies over the image as a polynomial.

    Attributes
    ----------
    basis : Basis
    coefficients : (terms, functions) array
    order : int
    shape : tuple of int
        Rows and columns of the image.
    """

    basis: Basis
    coefficients: np.ndarray
    order: int
    shape: tuple[int, int]

    @property
    def half(self) -> int:
        """Half side of the kernel, pixels."""
        return self.basis.half

    def at(self, x: float, y: float) -> np.ndarray:
        """Return the kernel at a position."""
        weights = design(np.atleast_1d(x), np.atleast_1d(y), self.shape, self.order) @ self.coefficients
        return np.tensordot(weights[0], self.basis.kernels, axes=1)

    def terms(self) -> np.ndarray:
        """Return one kernel for each polynomial term: (terms, 2 half + 1, 2 half + 1)."""
        return np.tensordot(self.coefficients, self.basis.kernels, axes=1)

    def sums(self, x, y) -> np.ndarray:
        """Return the sum of the kernel, which is the ratio of the flux scales, at positions."""
        return design(x, y, self.shape, self.order) @ (self.coefficients @ self.basis.kernels.sum(axis=(1, 2)))


@dataclass(frozen=True)
class KernelFit:
    """A kernel and how well it fits.

    Attributes
    ----------
    kernel : Kernel
    used : 1-D bool array
        Stamps that the last fit used.
    chi2 : 1-D array
        Of each stamp, reduced.
    condition : float
        Condition number of the normal matrix (which what is added to its diagonal limits to some 1e10).
    spatial_condition : float
        That of its spatial part alone: large if the stamps lie on a line or in a corner.
    scores : dict
        Cross-validated chi2 by spatial order.
    strength : float
        Of the penalty on the coefficients.
    """

    kernel: Kernel
    used: np.ndarray
    chi2: np.ndarray
    condition: float
    spatial_condition: float
    scores: dict[int, float]
    strength: float


@dataclass(frozen=True)
class _Equations:
    """Normal equations of each stamp, the local background projected out, and the penalty as strong as the data."""

    gram: np.ndarray
    right: np.ndarray
    square: np.ndarray
    pixels: np.ndarray
    penalty: np.ndarray | None
    x: np.ndarray
    y: np.ndarray
    shape: tuple[int, int]


@dataclass(frozen=True)
class KernelStamps:
    """The same stars in both images.

    Attributes
    ----------
    source : (n, side + 2 basis.half, side + 2 basis.half) array
        Of the image to be convolved.
    target, weight : (n, side, side) arrays
        Of the other image, and inverse variances (0 for bad pixels).
    x, y : 1-D arrays
        Centres.
    shape : tuple of int
        Rows and columns of the image.
    """

    source: np.ndarray
    target: np.ndarray
    weight: np.ndarray
    x: np.ndarray
    y: np.ndarray
    shape: tuple[int, int]


def fit_kernel(stamps: KernelStamps, basis: Basis, max_order: int, clip: float) -> KernelFit:
    """Find the kernel that turns stamps of one image into those of the other.

    Parameters
    ----------
    stamps : Stamps
    basis : Basis
    max_order : int
        Highest spatial order; that is taken which predicts stamps best that are left out of the fit, a fifth at a time.
    clip : float
        Stamps further out than this many robust sigma in log chi2 are left out.

    Notes
    -----
    Alard & Lupton (1998) eq. 3 with the spatial variation of Alard (2000) eq. 8. The background of each stamp is a free
    parameter that is eliminated first, so a background mismatch does not leak into the kernel.
    """
    equations = _equations(stamps, basis)
    middle = basis.strengths[len(basis.strengths) // 2]
    used = _clipped(equations, np.ones(len(stamps.x), bool), 0, middle, clip)
    strength = min(basis.strengths, key=lambda one: np.median(_held_out(equations, used, 0, one))) if middle else middle
    order, scores = _best_order(equations, used, max_order, strength)
    first = _solve(equations, used, order, strength)
    used = _clipped(equations, used | (_chi2(equations, first, order) < 2), order, strength, clip)
    coefficients = _solve(equations, used, order, strength)
    kernel = Kernel(basis, coefficients, order, equations.shape)
    terms = design(equations.x[used], equations.y[used], equations.shape, order)
    return KernelFit(
        kernel=kernel,
        used=used,
        chi2=_chi2(equations, coefficients, order),
        condition=float(np.linalg.cond(_normal(equations, used, order, strength)[0], 1)),
        spatial_condition=float(np.linalg.cond(terms.T @ terms)),
        scores=scores,
        strength=strength,
    )


def _equations(stamps: KernelStamps, basis) -> _Equations:
    number, functions = len(stamps.x), len(basis.kernels)
    gram, right, square = np.empty((number, functions, functions)), np.empty((number, functions)), np.empty(number)
    for start in range(0, number, BLOCK):
        block = slice(start, start + BLOCK)
        convolved = basis.convolve(stamps.source[block])
        convolved = convolved.reshape(*convolved.shape[:2], -1).astype(np.float64)
        inverse = np.asarray(stamps.weight[block], np.float64).reshape(len(convolved), 1, -1)
        convolved -= _mean(convolved, inverse)
        value = np.asarray(stamps.target[block], np.float64).reshape(inverse.shape)
        value = value - _mean(value, inverse)
        gram[block] = np.matmul(convolved * inverse, np.swapaxes(convolved, 1, 2))
        right[block] = np.matmul(convolved, np.swapaxes(value * inverse, 1, 2))[..., 0]
        square[block] = np.sum(inverse * value**2, axis=(1, 2))
    pixels = np.maximum((np.asarray(stamps.weight) > 0).sum(axis=(1, 2)) - 1, 1)
    typical = np.trace(gram.mean(axis=0))
    penalty = None if basis.penalty is None else basis.penalty * (typical / np.trace(basis.penalty))
    x, y = np.asarray(stamps.x, float), np.asarray(stamps.y, float)
    return _Equations(gram, right, square, pixels, penalty, x, y, tuple(stamps.shape))


def _mean(values, weight) -> np.ndarray:
    """Weighted mean over the last axis, which is kept."""
    total = np.maximum(weight.sum(axis=2, keepdims=True), 1e-30)
    return np.matmul(values, np.swapaxes(weight, 1, 2)) / total


def _normal(equations: _Equations, used, order: int, strength: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the normal matrix with a unit diagonal, the right side, and what both were divided by."""
    # Zeros instead of a choice of stamps: their matrices would be copied.
    terms = design(equations.x, equations.y, equations.shape, order) * used[:, None]
    functions = equations.right.shape[1]
    n = terms.shape[1] * functions
    pairs = (terms[:, :, None] * terms[:, None, :]).reshape(len(terms), -1)
    matrix = pairs.T @ equations.gram.reshape(len(terms), -1)
    if equations.penalty is not None:
        matrix += strength * pairs.sum(axis=0)[:, None] * equations.penalty.ravel()
    matrix = matrix.reshape(terms.shape[1], terms.shape[1], functions, functions).swapaxes(1, 2).reshape(n, n)
    vector = (terms.T @ equations.right).ravel()
    scale = np.sqrt(np.maximum(np.diag(matrix), 1e-30))
    matrix = matrix / scale / scale[:, None]
    matrix += 1e-8 * np.eye(n)
    return matrix, vector / scale, scale


def _solve(equations: _Equations, used, order: int, strength: float) -> np.ndarray:
    matrix, vector, scale = _normal(equations, used, order, strength)
    return (np.linalg.solve(matrix, vector) / scale).reshape(-1, equations.right.shape[1])


def _chi2(equations: _Equations, coefficients, order: int) -> np.ndarray:
    local = design(equations.x, equations.y, equations.shape, order) @ coefficients
    model = np.einsum("sn,snm,sm->s", local, equations.gram, local, optimize=True)
    total = equations.square - 2 * np.sum(local * equations.right, axis=1) + model
    return np.maximum(total, 0) / equations.pixels


def _clipped(equations: _Equations, used, order: int, strength: float, clip: float) -> np.ndarray:
    bright = equations.square >= np.median(equations.square)
    for _ in range(8):
        coefficients = _solve(equations, used, order, strength)
        chi2 = _chi2(equations, coefficients, order)
        logarithm = np.log(chi2 + 1e-3)
        middle = np.median(logarithm[used])
        sigma = SIGMA_PER_MAD * np.median(np.abs(logarithm[used] - middle))
        kept = logarithm < middle + clip * max(sigma, 0.1)
        # Among many faint stamps, all of which fit, the bright ones would be the first to go.
        misfit = np.sqrt(np.maximum(chi2 - 1, 0) * equations.pixels / np.maximum(equations.square, 1e-30))
        kept |= misfit <= max(TOLERATED, np.median(misfit[bright]))
        if kept.sum() < 3 or (kept == used).all():
            break
        used = kept
    return used


def _best_order(equations: _Equations, used, max_order: int, strength: float) -> tuple[int, dict[int, float]]:
    """Choose the order that predicts held-out stamps best; a higher one has to do so clearly.

    Each stamp counts by the logarithm of its chi2: a few bright ones tell of a variation that is within the noise of
    the many, and none decides alone.
    """
    best, least, scores = 0, None, {}
    for order in range(max_order + 1):
        terms = (order + 1) * (order + 2) // 2
        if order and used.sum() < 10 * terms:
            break
        chi2 = _held_out(equations, used, order, strength)
        scores[order] = float(np.median(chi2))
        loss = np.log(chi2 + 1e-3)
        gain = np.zeros(1) if least is None else least - loss
        if least is None or gain.mean() > CLEARLY * gain.std() / np.sqrt(len(gain)):
            best, least = order, loss
    return best, scores


def _held_out(equations: _Equations, used, order: int, strength: float) -> np.ndarray:
    """Chi2 of stamps in fits to the other four fifths."""
    index = np.flatnonzero(used)
    found = []
    for fold in range(5):
        test = index[fold::5]
        chosen = used.copy()
        chosen[test] = False
        if len(test) and chosen.any():
            found.append(_chi2(equations, _solve(equations, chosen, order, strength), order)[test])
    return np.concatenate(found) if found else np.full(1, np.inf)
