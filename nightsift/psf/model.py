"""The point spread function as a smooth function of offset and position."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from astropy.io import fits
from photutils.aperture import CircularAperture

from nightsift.image.polynomial import design
from nightsift.statistics import FWHM_PER_SIGMA

WIDTHS = ((0.6, 2), (1.0, 4), (2.0, 2))  # Gaussian widths in units of the star's sigma, degree of the polynomial
MOFFAT_BETAS = (2.0, 3.5)  # multiples of a half, see _moffat
# Each function but Moffat's is a factor in u times a factor in v: which of `_factors` these are.
_STARTS = np.cumsum([0, *(degree + 1 for _, degree in WIDTHS)])
_PAIRS = np.array(
    [
        (start + i, start + j)
        for start, (_, degree) in zip(_STARTS, WIDTHS, strict=False)
        for i in range(degree + 1)
        for j in range(degree + 1 - i)
    ]
)
# The functions that vary over an image: enough for width, shape and wings, and a half of the coefficients.
VARYING = np.array([_STARTS[1] <= i and (i - s) + (j - s) <= 2 for i, j in _PAIRS for s in [_STARTS[_STARTS <= i][-1]]])
VARYING = np.append(VARYING, [True] * len(MOFFAT_BETAS))
_CHUNK = 100_000  # pixels evaluated at once: what fits into a processor's cache


@dataclass(frozen=True)
class Psf:
    """Effective PSF (pixel response included): a linear combination of smooth functions, varying as a polynomial.

    Attributes
    ----------
    coefficients : (terms, functions) array
        Of the polynomial terms in position and of the functions in offset.
    fwhm : float
        Width that scales the functions, pixels.
    shape : tuple of int
        Rows and columns of the image.
    order : int
        Order of the polynomial in position.
    aperture : float
        Radius (pixels) within which the PSF sums to 1: fluxes fitted with it are aperture fluxes.
    n_stars : int
        Stars that it was fitted to.
    chi2 : float
        Median reduced chi2 of these stars.
    correction : float
        What the PSF sums to within the aperture, which ties its fluxes to those of the calibration.
    """

    coefficients: np.ndarray
    fwhm: float
    shape: tuple[int, int]
    order: int
    aperture: float
    n_stars: int = 0
    chi2: float = np.nan
    correction: float = 1.0

    def at(self, u: np.ndarray, v: np.ndarray, x, y) -> np.ndarray:
        """Return the PSF at positions `x`, `y` (n) for the offsets `u`, `v` (n, pixels): an (n, pixels) array."""
        weights = self._weights(x, y)
        result = np.empty(np.shape(u))
        for part in _chunks(*result.shape):
            result[part] = _combined(u[part], v[part], self.fwhm, weights[part])
        return result

    def grid(self, u: np.ndarray, v: np.ndarray, x, y, derivatives: int = 0) -> list[np.ndarray]:
        """Return the PSF and its derivatives on stamps.

        Parameters
        ----------
        u, v : (n, side) arrays
            Offsets from the positions of each stamp's columns and rows, pixels.
        x, y : (n,) arrays
            Positions, pixels.
        derivatives : int
            0: the PSF; 1: and its slopes along u and v; 2: and its Laplacian.

        Returns
        -------
        list of (n, side of v, side of u) float32 arrays
            The PSF, dPSF/du, dPSF/dv, Laplacian.
        """
        weights = self._weights(x, y)
        total = (len(weights), np.shape(v)[1], np.shape(u)[1])
        result = [np.empty(total, np.float32) for _ in range((1, 3, 4)[derivatives])]
        for part in _chunks(total[0], total[1] * total[2]):
            for whole, values in zip(result, self._stamps(u[part], v[part], weights[part], derivatives), strict=True):
                whole[part] = values
        return result

    def _stamps(self, u, v, weights, derivatives):
        """Yield what `grid` returns: small matrix products of factors in u and v, and Moffat's functions."""
        matrix = _matrix(weights).astype(np.float32)
        along = [part.astype(np.float32) for part in _factors(u, self.fwhm, derivatives)]
        across = [part.astype(np.float32) for part in _factors(v, self.fwhm, derivatives)]
        mixed = [np.matmul(part, matrix) for part in across]
        turned = [np.swapaxes(part, 1, 2) for part in along]
        u, v = u.astype(np.float32)[:, None, :], v.astype(np.float32)[:, :, None]
        square = u**2 + v**2
        tails = [0.0] * (derivatives + 1)
        for beta, weight in zip(MOFFAT_BETAS, weights[:, len(_PAIRS) :].T.astype(np.float32), strict=True):
            values = _moffat(square, self.fwhm, beta, derivatives)
            tails = [tail + weight[:, None, None] * value for tail, value in zip(tails, values, strict=True)]
        yield np.matmul(mixed[0], turned[0]) + tails[0]
        if derivatives > 0:
            yield np.matmul(mixed[0], turned[1]) + 2 * u * tails[1]
            yield np.matmul(mixed[1], turned[0]) + 2 * v * tails[1]
        if derivatives > 1:
            bells = np.matmul(mixed[0], turned[2]) + np.matmul(mixed[2], turned[0])
            yield bells + 4 * (tails[1] + square * tails[2])

    def stamp(self, x: float, y: float, half: int) -> np.ndarray:
        """Return the PSF at a position, centred on the central pixel: a (2 half + 1, 2 half + 1) array."""
        v, u = (line.ravel()[None] for line in np.mgrid[-half : half + 1, -half : half + 1].astype(float))
        return self.at(u, v, np.atleast_1d(x), np.atleast_1d(y)).reshape(2 * half + 1, 2 * half + 1)

    def _weights(self, x, y) -> np.ndarray:
        raw = design(x, y, self.shape, self.order) @ self.coefficients
        return raw * (self.correction / (raw @ _aperture_sums(self.fwhm, self.aperture)))[:, None]

    def to_images(self) -> tuple[dict[str, np.ndarray], fits.Header]:
        """Return the PSF as an array and a header, for a file."""
        header = fits.Header()
        header["PSFFWHM"] = (self.fwhm, "scale of the functions, pixels")
        header["PSFORDER"] = (self.order, "order of the polynomial in position")
        header["PSFAPER"] = (self.aperture, "aperture in which the PSF sums to 1, pixels")
        header["PSFNX"], header["PSFNY"] = self.shape[1], self.shape[0]
        header["PSFCORR"] = (self.correction, "sum within the aperture")
        header["PSFSTARS"] = (self.n_stars, "stars used")
        header["PSFCHI2"] = (self.chi2, "median reduced chi2 of the stars")
        return {"PSF": self.coefficients}, header

    @classmethod
    def from_images(cls, images: dict[str, np.ndarray], header: fits.Header) -> Psf:
        """Return the PSF that `to_images` described."""
        return cls(
            coefficients=next(iter(images.values())),
            fwhm=header["PSFFWHM"],
            shape=(header["PSFNY"], header["PSFNX"]),
            order=header["PSFORDER"],
            aperture=header["PSFAPER"],
            n_stars=header["PSFSTARS"],
            chi2=header["PSFCHI2"],
            correction=header["PSFCORR"],
        )


@lru_cache(maxsize=8)
def _aperture_sums(fwhm: float, aperture: float) -> np.ndarray:
    """Sum of each function within the aperture, averaged over the positions of the centre within a pixel."""
    half = int(np.ceil(aperture)) + 2
    line = np.arange(-half, half + 1.0)
    steps = (np.arange(4) + 0.5) / 4 - 0.5
    total = 0.0
    for phase_x in steps:
        for phase_y in steps:
            circle = CircularAperture((half + phase_x, half + phase_y), aperture).to_mask(method="exact")
            overlap = circle.to_image((2 * half + 1, 2 * half + 1))
            values = functions(line[None, :] - phase_x, line[:, None] - phase_y, fwhm)
            total = total + np.tensordot(values, overlap)
    return total / 16


def functions(u: np.ndarray, v: np.ndarray, fwhm: float) -> np.ndarray:
    """Return the smooth functions of offset that make up a PSF of about that FWHM.

    Parameters
    ----------
    u, v : arrays
        Offsets, pixels; of one shape, or a row and a column that make a stamp.
    fwhm : float

    Returns
    -------
    array
        The functions along the first axis.
    """
    along, across = _factors(u, fwhm)[0], _factors(v, fwhm)[0]
    bells = along[..., _PAIRS[:, 0]] * across[..., _PAIRS[:, 1]]
    square = u**2 + v**2
    tails = [_moffat(square, fwhm, beta)[0] for beta in MOFFAT_BETAS]
    return np.moveaxis(np.concatenate([bells, np.stack(tails, axis=-1)], axis=-1), -1, 0)


def _combined(u, v, fwhm, weights) -> np.ndarray:
    """Functions at any offsets (n, pixels) summed with their weights (n, functions), polynomials by Horner's scheme."""
    square = u**2 + v**2
    bells, tails = _matrix(weights)[..., None], weights[:, len(_PAIRS) :].T
    result = sum(w[:, None] * _moffat(square, fwhm, beta)[0] for beta, w in zip(MOFFAT_BETAS, tails, strict=True))
    for start, (scale, degree) in zip(_STARTS, WIDTHS, strict=False):
        s = scale * fwhm / FWHM_PER_SIGMA
        p, q, total = u / s, v / s, 0.0
        for i in reversed(range(degree + 1)):
            column = 0.0
            for j in reversed(range(degree + 1 - i)):
                column = column * q + bells[:, start + j, start + i]
            total = total * p + column
        result += total * np.exp(square / (-2 * s**2)) / s**2
    return result


def _matrix(weights: np.ndarray) -> np.ndarray:
    """Weights of the Gaussians (n, functions) as matrices between the factors in v and those in u."""
    result = np.zeros((len(weights), _STARTS[-1], _STARTS[-1]))
    result[:, _PAIRS[:, 1], _PAIRS[:, 0]] = weights[:, : len(_PAIRS)]
    return result


def _factors(offset: np.ndarray, fwhm: float, derivatives: int = 0) -> list[np.ndarray]:
    """Factors p^i exp(-p^2 / 2) / s, p = offset / s, of all Gaussians along the last axis, and their derivatives."""
    result = [[] for _ in range(derivatives + 1)]
    for scale, degree in WIDTHS:
        s = scale * fwhm / FWHM_PER_SIGMA
        p = offset / s
        terms = [np.exp(-(p**2) / 2) / s]
        for _ in range(degree + derivatives):
            terms.append(terms[-1] * p)
        for i in range(degree + 1):
            result[0].append(terms[i])
            if derivatives > 0:
                result[1].append(((i * terms[i - 1] if i else 0) - terms[i + 1]) / s)
            if derivatives > 1:
                below = i * (i - 1) * terms[i - 2] if i > 1 else 0
                result[2].append((below - (2 * i + 1) * terms[i] + terms[i + 2]) / s**2)
    return [np.stack(part, axis=-1) for part in result]


def _moffat(square: np.ndarray, fwhm: float, beta: float, derivatives: int = 0) -> list[np.ndarray]:
    """Moffat's function of that FWHM, and its derivatives by the square of the offset."""
    core = (fwhm / 2) ** 2 / (2 ** (1 / beta) - 1)
    root = 1 / np.sqrt(1 + square / core)
    inverse = root * root
    value = inverse / core
    # Of products only: a power of an array costs as much as all else.
    for _ in range(int(beta) - 1):
        value = value * inverse
    result = [value * root if beta % 1 else value]
    for n in range(derivatives):
        result.append(result[-1] * inverse * (-(beta + n) / core))
    return result


def _chunks(count: int, pixels: int):
    step = max(1, _CHUNK // max(pixels, 1))
    for start in range(0, count, step):
        yield slice(start, start + step)
