"""PSF photometry of all objects of an image together: neighbours are fitted with each other."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from astropy.table import Table
from scipy.sparse import csr_array
from scipy.spatial import cKDTree

from nightsift.image.correlation import WHITE, factor
from nightsift.psf.forced import FLOOR, LIKENESS, MIN_FRACTION
from nightsift.psf.model import Psf
from nightsift.statistics import FWHM_PER_SIGMA

REACH = 2.0  # half side of the stamps that the sources' light is followed over, FWHM
CORE = 1.25  # half side of those that are fitted, FWHM: further out, neighbours not seen count for more than the source
MAX_SHIFT = 0.5  # FWHM
POSITION_PRIOR = 0.25  # standard deviation of the positions that the fit starts with, FWHM: what keeps blends apart
DISC = 1 / 16  # scale length of the exponential disc that `spread` looks for, FWHM
CONVERGED = 0.03  # largest change still to come, in standard deviations of an isolated star's flux
MAX_ITERATIONS = 30
CHUNK = 500_000  # pixels of stamps measured at once


@dataclass(frozen=True)
class Layers:
    """What is fitted.

    Background-subtracted image, noise of a sky pixel [ADU], pixels to leave out, e-/ADU or None, and the noise's
    autocorrelation (`nightsift.image.correlation`).
    """

    image: np.ndarray
    noise: np.ndarray
    bad: np.ndarray
    gain: float | None
    correlation: np.ndarray = field(default_factory=lambda: WHITE)


@dataclass(frozen=True)
class Scene:
    """Point sources fitted to an image, one value an object.

    Attributes
    ----------
    x, y : arrays
        Fitted positions, pixels.
    free : bool array
        Whose position could be fitted; the others have that they came with.
    flux, fluxerr : arrays
        ADU, on the scale of the PSF's aperture; NaN where less than a tenth of the PSF is on good pixels.
    chi2 : array
        Reduced; allows for an error of the PSF of 8 per cent.
    spread, spread_err : arrays
        See `photometer`.
    """

    x: np.ndarray
    y: np.ndarray
    free: np.ndarray
    flux: np.ndarray
    fluxerr: np.ndarray
    chi2: np.ndarray
    spread: np.ndarray
    spread_err: np.ndarray


class _Stamps:
    """The pixels of all stamps: where they lie in the flattened image with a frame around."""

    def __init__(self, shape, x, y, half: int, frame: int):
        # A fitted position may lie beyond the border; its stamp must not, for nothing checks the places of its pixels.
        self.column = np.clip(np.rint(x), 0, shape[1] - 1).astype(np.int32)
        self.row = np.clip(np.rint(y), 0, shape[0] - 1).astype(np.int32)
        self.line = np.arange(-half, half + 1, dtype=np.int32)
        self.shape = (shape[0] + 2 * frame, shape[1] + 2 * frame)
        rows = (self.row[:, None] + frame + self.line) * np.int32(self.shape[1])
        columns = self.column[:, None] + frame + self.line
        self.index = (rows[:, :, None] + columns[:, None, :]).reshape(len(self.column), self.line.size**2)

    def grid(self, psf: Psf, x, y, derivatives: int, part=slice(None)) -> list[np.ndarray]:
        """Return `Psf.grid` for the stamps, their pixels in one row."""
        u = self.line + (self.column[part] - x[part])[:, None]
        v = self.line + (self.row[part] - y[part])[:, None]
        return [values.reshape(len(u), self.line.size**2) for values in psf.grid(u, v, x[part], y[part], derivatives)]

    def scatter(self, values) -> np.ndarray:
        """Return the sum of stamps (n, pixels) in the flattened image."""
        starts = np.arange(len(values) + 1, dtype=np.int32) * np.int32(values.shape[1])
        size = (len(values), self.shape[0] * self.shape[1])
        return csr_array((values.ravel(), self.index.ravel(), starts), shape=size).T @ np.ones(len(values), np.float32)

    def light(self, psf: Psf, x, y, flux) -> np.ndarray:
        """Return the light of point sources in the flattened image."""
        values = self.grid(psf, x, y, 0)[0]
        values *= flux[:, None].astype(np.float32)
        return self.scatter(values)

    def chunks(self):
        """Yield slices of the objects, so that little memory is needed at once."""
        step = max(1, CHUNK // self.line.size**2)
        return [slice(start, start + step) for start in range(0, len(self.column), step)]


def render(psf: Psf, x, y, flux, shape) -> np.ndarray:
    """Return the light of point sources as a float32 image, each out to 2 FWHM."""
    frame = _pixels(REACH, psf)
    stamps = _Stamps(shape, x, y, frame, frame)
    return stamps.light(psf, x, y, flux).reshape(stamps.shape)[frame:-frame, frame:-frame]


def _pixels(size: float, psf: Psf) -> int:
    return int(np.ceil(size * psf.fwhm))


def photometer(layers: Layers, psf: Psf, objects: Table) -> Scene:
    """Fit fluxes and positions of all objects at once.

    Parameters
    ----------
    layers : Layers
    psf : Psf
    objects : Table
        ``x, y`` [px, within the image], ``flux`` to start with, ``background`` [ADU a pixel; left beneath each] and
        ``level_err``, its standard deviation.

    Returns
    -------
    Scene

    Notes
    -----
    Least squares with the inverse variance of sky, photons of the model and an error of the PSF of 1 per cent as
    weights, never of the noisy data. The normal equations of all objects, linear in flux and shift, are solved by
    conjugate gradients, twice with positions and once for the fluxes alone. Each is fitted within 1.25 FWHM, with the
    light of the others up to 2 FWHM from these. The flux at a position that follows the
    noise is too high by sigma^2 / flux on average: the two free coordinates let chi2 fall by 2; this is taken off.

    `spread` is SPREAD_MODEL (Desai et al. 2012, ApJ 757, 83, eq. 1, with weights): whether the PSF convolved with an
    exponential disc of FWHM / 16, here to first order PSF + 1.5 (FWHM / 16)^2 Laplacian, matches better than the PSF.
    """
    x, y = np.array(objects["x"], float), np.array(objects["y"], float)
    flux, level = np.array(objects["flux"], float), np.array(objects["background"], float)
    fit = _Fit(layers, psf, x, y, level)
    start, free, limit = (x, y), np.ones(len(x), bool), MAX_SHIFT * psf.fwhm
    for _ in range(2):
        flux, dx, dy, significant = fit.step(x, y, flux, free)
        x, y = x + np.clip(dx, -limit, limit), y + np.clip(dy, -limit, limit)
        free &= significant & (np.hypot(x - start[0], y - start[1]) < limit)
        x, y = np.where(free, x, start[0]), np.where(free, y, start[1])
    flux, *_ = fit.step(x, y, flux, None)
    return _measured(fit, x, y, flux, free, np.array(objects["level_err"], float))


class _Fit:
    """The equations of a scene."""

    def __init__(self, layers: Layers, psf: Psf, x, y, level):
        frame = _pixels(REACH, psf)
        self.wide = _Stamps(layers.image.shape, x, y, frame, frame)
        self.core = _Stamps(layers.image.shape, x, y, _pixels(CORE, psf), frame)
        self.psf, self.level, self.gain = psf, level, layers.gain
        self.data = np.pad(np.where(layers.bad, 0, layers.image), frame).astype(np.float32).ravel()
        self.good = np.pad(~layers.bad, frame).astype(np.float32).ravel()
        # Photons are counted before any resampling, so that only the sky's noise is more than its pixels show.
        more = factor(psf.stamp(psf.shape[1] / 2, psf.shape[0] / 2, _pixels(CORE, psf)), layers.correlation) ** 2
        self.sky = np.pad(layers.noise, frame, constant_values=1).astype(np.float32).ravel() ** 2 * np.float32(more)
        self.beyond = np.float32(1 - 1 / more)

    def weigh(self, model):
        """Return the pixels' variance, and weights that allow for errors of the model too."""
        variance = self.sky
        if self.gain:
            variance = np.maximum(model, 0)
            variance /= self.gain
            variance += self.sky
        weight = model * model
        weight *= FLOOR**2
        weight += variance
        return variance, np.divide(self.good, weight, out=weight)

    def step(self, x, y, flux, free):
        """Return better fluxes, shifts along x and y, and whose S/N allows these; no shifts where `free` is None."""
        parts = self.core.grid(self.psf, x, y, 0 if free is None else 1)
        for slope in parts[1:]:
            np.negative(slope, out=slope)
            slope[~free] = 0
        model = self.wide.light(self.psf, x, y, flux)
        _, weight = self.weigh(model)
        pixels = self.core.index
        weight = weight[pixels]
        diagonal = [_dot(part, part, weight) for part in parts]
        left = weight * ((self.data - model)[pixels] - self.level[:, None].astype(np.float32))
        right = [_dot(part, left) for part in parts]
        prior = np.zeros((len(parts), len(flux)))
        error = 1 / np.sqrt(np.maximum(diagonal[0], 1e-30))
        prior[1:] = 1 / (np.maximum(np.abs(flux), error) * POSITION_PRIOR * self.psf.fwhm) ** 2

        def apply(values):
            light = sum(part * v[:, None] for part, v in zip(parts, values.astype(np.float32), strict=True))
            light = weight * self.core.scatter(light)[pixels]
            return np.array([_dot(part, light) for part in parts]) + prior * values

        change = _conjugate_gradients(apply, np.array(right), np.array(diagonal) + prior)
        new = flux + change[0]
        if free is None:
            return (new,)
        significant = new > 3 * error
        safe = np.where(significant, new, np.inf)
        return new, change[1] / safe, change[2] / safe, significant


def _dot(*factors) -> np.ndarray:
    """Sums over the pixels of each stamp."""
    return np.einsum(",".join(["np"] * len(factors)) + "->n", *factors)


def _conjugate_gradients(apply, right, diagonal):
    """Solve equations with a positive matrix whose diagonal preconditions them."""
    scale = 1 / np.sqrt(np.maximum(diagonal, 1e-30))
    solution, residual = np.zeros_like(right), right * scale
    direction, square = residual.copy(), np.sum(residual**2)
    for _ in range(MAX_ITERATIONS):
        if np.max(np.abs(residual), initial=0) < CONVERGED:
            break
        image = scale * apply(scale * direction)
        length = square / np.sum(direction * image)
        solution += length * direction
        residual -= length * image
        last, square = square, np.sum(residual**2)
        direction = residual + square / last * direction
    return solution * scale


def _measured(fit: _Fit, x, y, flux, free, level_err) -> Scene:
    """Errors, chi2 and spread, chunk by chunk."""
    psf, stamps = fit.psf, fit.core
    model = fit.wide.light(psf, x, y, flux)
    variance, weight = fit.weigh(model)
    left = fit.data - model
    names = ("sky_error", "level_fraction", "fraction", "chi2", "spread", "spread_err")
    result = {name: np.empty(len(x)) for name in names}
    for part in stamps.chunks():
        pixels = stamps.index[part]
        shape, _, _, laplacian = stamps.grid(psf, x, y, 2, part)
        own = flux[part, None].astype(np.float32) * shape
        value = left[pixels] + own - fit.level[part, None].astype(np.float32)
        single = variance[pixels] - fit.beyond * fit.sky[pixels]
        values = _statistics(value, own, shape, laplacian, variance[pixels], single, weight[pixels])
        for name, numbers in zip(names, values, strict=True):
            result[name][part] = numbers
    scale = 1.5 * (DISC * psf.fwhm) ** 2
    fluxerr = np.hypot(result["sky_error"] * _blending(x, y, psf.fwhm), level_err * result["level_fraction"])
    with np.errstate(invalid="ignore", divide="ignore"):
        snr = np.abs(flux) / fluxerr
        flux = np.where(free, flux * (1 - 1 / (snr**2 + 2)), flux)
    hidden = ~(result["fraction"] >= MIN_FRACTION)
    columns = {
        "flux": flux,
        "fluxerr": fluxerr,
        "chi2": result["chi2"],
        "spread": scale * result["spread"],
        "spread_err": scale * result["spread_err"],
    }
    return Scene(x=x, y=y, free=free & ~hidden, **{name: np.where(hidden, np.nan, v) for name, v in columns.items()})


# Many parameters: stamps of one fit, cut by the caller.
def _statistics(value, own, shape, laplacian, variance, single, weight):
    """Per stamp: error of the flux, its change with the level, good fraction, chi2, spread and its error (unscaled).

    `single` is the variance of a pixel by itself, `variance` what it adds to that of a sum.
    """
    weighted = weight * shape
    square = np.maximum(_dot(weighted, shape), 1e-30)
    sky_error = np.sqrt(_dot(weighted, weighted, variance)) / square
    good = (weight > 0).astype(np.float32)
    fraction = _dot(np.abs(shape), good) / np.maximum(_dot(np.abs(shape)), 1e-30)
    tolerant = good / (single + np.float32(LIKENESS**2) * own**2)
    chi2 = _dot(tolerant, (value - own) ** 2) / np.maximum(_dot(good) - 3, 1)
    # What of the Laplacian the PSF itself does not hold.
    beyond = (laplacian - (_dot(weighted, laplacian) / square)[:, None] * shape) * weight
    light = _dot(weighted, value)
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = np.where(light > 0, _dot(beyond, value) / light, np.nan)
        spread_err = np.where(light > 0, np.sqrt(_dot(beyond, beyond, variance)) / light, np.nan)
    return sky_error, _dot(weighted) / square, fraction, chi2, spread, spread_err


def _blending(x, y, fwhm) -> np.ndarray:
    """Factor by which neighbours enlarge the error of a flux, as if all were Gaussians fitted together two by two."""
    shared = np.zeros(len(x))
    pairs = cKDTree(np.column_stack([x, y])).query_pairs(3 * fwhm, output_type="ndarray")
    if len(pairs):
        one, other = pairs.T
        lost = _lost(np.hypot(x[one] - x[other], y[one] - y[other]) / (fwhm / FWHM_PER_SIGMA))
        shared += np.bincount(one, lost, len(x)) + np.bincount(other, lost, len(x))
    return 1 / np.sqrt(1 - np.minimum(shared, 0.99))


def _lost(distance) -> np.ndarray:
    """Fraction of the information on a flux that a neighbour takes, its flux and both shifts being fitted too.

    From the products of two Gaussians and their slopes at that distance, in standard deviations.
    """
    overlap = np.exp(-(distance**2) / 4)
    matrix = np.zeros((len(overlap), 4, 4))
    matrix[:, [0, 1, 2, 3], [0, 1, 2, 3]] = 1, 0.5, 1, 0.5
    matrix[:, 0, 2] = matrix[:, 2, 0] = overlap
    matrix[:, 0, 3] = matrix[:, 3, 0] = -overlap * distance / 2
    matrix[:, 1, 2] = matrix[:, 2, 1] = overlap * distance / 2
    matrix[:, 1, 3] = matrix[:, 3, 1] = overlap * (0.5 - distance**2 / 4)
    return np.maximum(1 - 1 / np.linalg.inv(matrix + 1e-3 * np.eye(4))[:, 0, 0], 0)
