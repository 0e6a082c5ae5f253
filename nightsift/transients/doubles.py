"""Two point sources so close to each other that each makes the other look like no point source."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage, optimize, signal

from nightsift.image.stamps import stamps
from nightsift.psf.model import Psf
from nightsift.statistics import FWHM_PER_SIGMA
from nightsift.subtract.difference import Search

CLOSEST, FURTHEST = 0.5, 3.5  # FWHM between the two: closer ones cannot be told from one, others do not matter
HALF = 2.5  # FWHM: half side of the fitted square
TOLERANCE = 0.03  # relative error of the PSF that is allowed for
BETTER = 6.0  # chi2 by which two points must explain more than any streak, blob or block does
WORSE = 1.0  # chi2 by which these may explain more of what is flagged BLEND: one standard deviation
WIDEST = 2.7  # FWHM between the two of a BLEND: further apart each has its own peak (tests/transients/test_doubles.py)
WORST_CHI2 = 2.0  # reduced, of what two points leave
MOST = 60  # candidates of an image that are tried, the brightest
WIDTHS = (1.0, 1.25, 1.6)  # of streaks, in that of the PSF
STEP, REACH = 0.1, 3.0  # FWHM along a streak: between its points, and as far as it may reach from the middle
BLOBS = (1.2, 1.5, 1.9, 2.4, 3.0)  # axes of galaxies, in the PSF's width


@dataclass(frozen=True)
class Pair:
    """Positions (pixels) and fluxes (ADU) of two sources, and how much the other one adds to their errors."""

    x: np.ndarray
    y: np.ndarray
    flux: np.ndarray
    growth: np.ndarray


@dataclass(frozen=True)
class _Place:
    """Pixels around a candidate, in the sense of its sign: value, weight, offsets from the central pixel."""

    value: np.ndarray
    weight: np.ndarray
    u: np.ndarray
    v: np.ndarray
    column: int
    row: int
    psf: Psf

    @classmethod
    def of(cls, search: Search, x: float, y: float, sign: float) -> _Place:
        half, column, row = int(np.ceil(HALF * search.psf.fwhm)), round(x), round(y)
        v, u = (axis.ravel().astype(float) for axis in np.mgrid[-half : half + 1, -half : half + 1])
        value, sigma, model = (
            stamps(layer, [column], [row], half)[0].ravel().astype(float)
            for layer in (search.difference, search.sigma, search.model)
        )
        bad = stamps(search.mask != 0, [column], [row], half, True)[0].ravel()
        value *= sign
        smooth = ndimage.gaussian_filter(value.reshape(2 * half + 1, -1), 0.5).ravel()
        variance = (
            sigma**2 + (search.quality.mismatch * np.maximum(model, 0)) ** 2 + (TOLERANCE * np.maximum(smooth, 0)) ** 2
        )
        weight = np.where(bad | (sigma <= 0), 0, 1 / np.maximum(variance, 1e-30))
        return cls(value, weight, u, v, column, row, search.psf)

    def point(self, x, y) -> np.ndarray:
        """Return the PSF at offsets from the central pixel, (n, pixels)."""
        x, y = np.atleast_1d(x).astype(float), np.atleast_1d(y).astype(float)
        at = np.full(len(x), float(self.column)), np.full(len(x), float(self.row))
        return self.psf.at(self.u - x[:, None], self.v - y[:, None], *at)

    def explained(self, models: np.ndarray) -> np.ndarray:
        """Return the chi2 that each of (n, pixels) models explains, scaled as fits best, of positive flux only."""
        flux = models @ (self.weight * self.value)
        return np.maximum(flux, 0) ** 2 / np.maximum(models**2 @ self.weight, 1e-30)


def pairs(search: Search, x, y, flux, chosen, threshold: float) -> list[Pair]:
    """Return which of the chosen candidates are two point sources, the brightest first, none of them twice.

    Two points must fit, must both be significant, and must explain the pixels better than any streak along the line
    through both, any elliptical blob and any block of pixels does: of what fits either, trails are far more common.

    Parameters
    ----------
    search : Search
    x, y, flux : 1-D arrays
        Of all candidates, pixels and ADU.
    chosen : 1-D bool array
    threshold : float
        S/N that both must have.
    """
    result, fwhm, taken = [], search.psf.fwhm, np.zeros(len(x), bool)
    place = np.column_stack([x, y]).astype(float)
    tried = np.flatnonzero(chosen)
    for i in tried[np.argsort(-np.abs(flux[tried]), kind="stable")][:MOST]:
        if taken[i]:
            continue
        here = _Place.of(search, *place[i], np.sign(flux[i]))
        away = np.hypot(*(place - place[i]).T)
        others = np.flatnonzero((away > 0) & (away < FURTHEST * fwhm) & (np.sign(flux) == np.sign(flux[i])) & ~taken)
        starts = [place[j] - place[i] for j in others[np.argsort(-np.abs(flux[others]))][:1]]
        found = _fitted(here, place[i], starts, search.quality.noise_correlation, threshold)
        if found is not None:
            result.append(replace(found, flux=found.flux * np.sign(flux[i])))
            taken[i] = True
            taken |= covered(place[:, 0], place[:, 1], [found], fwhm)
    return result


def covered(x, y, found: list[Pair], fwhm: float) -> np.ndarray:
    """Tell which positions are one of a pair's two, or between them."""
    result = np.zeros(len(x), bool)
    for pair in found:
        ends = np.column_stack([pair.x, pair.y])
        along = ends[1] - ends[0]
        offset = np.column_stack([x, y]) - ends[0]
        fraction = np.clip(offset @ along / (along @ along), 0, 1)
        result |= np.hypot(*(offset - fraction[:, None] * along).T) < CLOSEST * fwhm
    return result


@dataclass(frozen=True)
class _Fit:
    """Two points fitted to a place: offsets x, y of both, fluxes, columns of the fit, chi2 explained and left."""

    ends: np.ndarray
    flux: np.ndarray
    matrix: np.ndarray
    explained: float
    left: float

    @property
    def apart(self) -> float:
        return float(np.hypot(self.ends[2] - self.ends[0], self.ends[3] - self.ends[1]))


def _fit(here: _Place, place, starts) -> _Fit:
    fwhm, middle = here.psf.fwhm, place - np.array([here.column, here.row])
    if not starts:
        angle = np.arange(4) * np.pi / 4
        ends = 0.5 * fwhm * np.column_stack([np.cos(angle), np.sin(angle)])
        both = [here.point(*(middle + end)) + here.point(*(middle - end)) for end in ends]
        end = ends[int(np.argmax(here.explained(np.concatenate(both))))]
        first = np.concatenate([middle - end, middle + end])
    else:
        first = np.concatenate([middle, middle + starts[0]])
    root = np.sqrt(here.weight)

    def solved(ends):
        matrix = here.point(ends[[0, 2]], ends[[1, 3]]).T * root[:, None]
        flux = np.linalg.lstsq(matrix, here.value * root, rcond=None)[0]
        return flux, matrix

    def left(ends):
        flux, matrix = solved(ends)
        return matrix @ flux - here.value * root

    bounds = first - fwhm, first + fwhm
    ends = optimize.least_squares(left, first, bounds=bounds, max_nfev=8, x_scale=0.1 * fwhm, xtol=1e-3, ftol=1e-4).x
    rest = np.sum(left(ends) ** 2)
    return _Fit(ends, *solved(ends), np.sum(here.weight * here.value**2) - rest, rest)


def _fits(here: _Place, fit: _Fit) -> bool:
    return fit.left / max(np.count_nonzero(here.weight) - 6, 1) <= WORST_CHI2


def _fitted(here: _Place, place, starts, noise: float, threshold: float) -> Pair | None:
    fwhm, fit = here.psf.fwhm, _fit(here, place, starts)
    covariance = np.linalg.pinv(fit.matrix.T @ fit.matrix)
    error = noise * np.sqrt(np.diag(covariance))
    if not CLOSEST * fwhm < fit.apart < FURTHEST * fwhm or (fit.flux < threshold * error).any():
        return None
    if not _fits(here, fit) or fit.explained - _otherwise(here, fit.ends) < BETTER * noise**2:
        return None
    growth = np.sqrt(np.diag(covariance) * np.sum(fit.matrix**2, axis=0))
    return Pair(fit.ends[[0, 2]] + here.column, fit.ends[[1, 3]] + here.row, fit.flux, growth)


def blends(search: Search, x, y, flux, chosen) -> np.ndarray:
    """Tell which of the chosen candidates may well be two point sources, though nothing tells these apart.

    Two points must leave no more than noise, and nothing else may explain the pixels better by more than noise does.

    Parameters
    ----------
    search : Search
    x, y, flux : 1-D arrays
        Of all candidates, pixels and ADU.
    chosen : 1-D bool array
    """
    result, fwhm = np.zeros(len(x), bool), search.psf.fwhm
    tried = np.flatnonzero(chosen)
    for i in tried[np.argsort(-np.abs(flux[tried]), kind="stable")][:MOST]:
        place = np.array([x[i], y[i]], float)
        here = _Place.of(search, *place, np.sign(flux[i]))
        fit = _fit(here, place, [])
        if (fit.flux > 0).all() and fit.apart < WIDEST * fwhm and _fits(here, fit):
            result[i] = fit.explained - _otherwise(here, fit.ends) > -WORSE * search.quality.noise_correlation**2
    return result


def _otherwise(here: _Place, ends) -> float:
    """Return the most chi2 that something else explains: a streak, an elliptical blob, a block of equal pixels."""
    fwhm, middle = here.psf.fwhm, np.array([ends[0] + ends[2], ends[1] + ends[3]]) / 2
    angle = np.arctan2(ends[3] - ends[1], ends[2] - ends[0])
    along, across = here.u - middle[0], here.v - middle[1]
    along, across = (
        np.cos(angle) * along + np.sin(angle) * across,
        np.cos(angle) * across - np.sin(angle) * along,
    )
    best, steps = 0.0, np.arange(-REACH, REACH + STEP / 2, STEP) * fwhm
    at = np.full(len(steps), float(here.column)), np.full(len(steps), float(here.row))
    first, last = np.triu_indices(len(steps) + 1, 1)
    right, whole = here.weight * here.value, here.weight
    for width in WIDTHS:
        du, dv = (along - steps[:, None]) / width, np.broadcast_to(across / width, (len(steps), len(across)))
        turned = np.cos(angle) * du - np.sin(angle) * dv, np.sin(angle) * du + np.cos(angle) * dv
        points = here.psf.at(*turned, *at)
        # A streak is the sum of points side by side: all streaks are differences of running sums.
        flux = np.concatenate([[0], np.cumsum(points @ right)])
        power = (points * whole) @ points.T
        power = np.pad(power.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        square = power[last, last] - 2 * power[first, last] + power[first, first]
        best = max(best, np.max(np.maximum(flux[last] - flux[first], 0) ** 2 / np.maximum(square, 1e-30)))
    sigma = fwhm / FWHM_PER_SIGMA
    blobs = [np.exp(-((along / a) ** 2 + (across / b) ** 2) / (2 * sigma**2)) for a in BLOBS for b in BLOBS if a >= b]
    return float(max(best, here.explained(np.array(blobs)).max(), _block(here)))


def _block(here: _Place) -> float:
    """Return the chi2 that the best rectangle of equal pixels explains."""
    side = int(np.sqrt(len(here.value)))
    planes = (part.reshape(side, side) for part in (here.weight * here.value, here.weight))
    flux, whole = (np.pad(plane.cumsum(0).cumsum(1), ((1, 0), (1, 0))) for plane in planes)
    best = 0.0
    for height in range(1, min(side, 8)):
        for width in range(1, min(side, 8)):
            total, weight = (
                part[height:, width:] - part[:-height, width:] - part[height:, :-width] + part[:-height, :-width]
                for part in (flux, whole)
            )
            best = max(best, np.max(np.maximum(total, 0) ** 2 / np.maximum(weight, 1e-30)))
    return float(best)


def without(search: Search, x, y, flux, bgerr) -> Search:
    """Return a search from which point sources are taken: out of the difference and, with what they add, the S/N map.

    Parameters
    ----------
    search : Search
    x, y, flux, bgerr : 1-D arrays
        Positions (pixels), fluxes and their errors where there is no source (ADU).
    """
    difference, snr = search.difference.copy(), search.snr.copy()
    half = int(np.ceil(4 * search.psf.fwhm))
    inner = int(np.ceil(1.5 * search.psf.fwhm))
    v, u = (axis.ravel().astype(float) for axis in np.mgrid[-half : half + 1, -half : half + 1])
    for one_x, one_y, one_flux, error in zip(x, y, flux, bgerr, strict=True):
        column, row = round(one_x), round(one_y)
        at = np.array([one_x]), np.array([one_y])
        light = search.psf.at((u + column - one_x)[None], (v + row - one_y)[None], *at).reshape(2 * half + 1, -1)
        kernel = search.psf.stamp(one_x, one_y, inner)
        response = signal.fftconvolve(light, kernel[::-1, ::-1], mode="same") / np.sum(kernel**2)
        y0, y1 = max(row - half, 0), min(row + half + 1, snr.shape[0])
        x0, x1 = max(column - half, 0), min(column + half + 1, snr.shape[1])
        inside = slice(y0 - row + half, y1 - row + half), slice(x0 - column + half, x1 - column + half)
        difference[y0:y1, x0:x1] -= (one_flux * light[inside]).astype(np.float32)
        snr[y0:y1, x0:x1] -= (one_flux / error * response[inside]).astype(np.float32)
    return replace(search, difference=difference, snr=snr)
