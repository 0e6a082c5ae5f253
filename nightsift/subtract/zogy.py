"""The method `zogy` of the stage `subtract`: PSFs, flux ratio and registration for a proper subtraction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy.table import Table

from nightsift import parameters
from nightsift.errors import Rejected
from nightsift.image.convolve import convolve
from nightsift.image.correlation import WHITE, carried
from nightsift.image.padding import PAD, unpad
from nightsift.image.polynomial import Surface, design
from nightsift.image.seeing import star_width, widths
from nightsift.image.stamps import spread
from nightsift.psf.fit import fit_psf
from nightsift.psf.forced import fitted
from nightsift.psf.model import Psf
from nightsift.statistics import SIGMA_PER_MAD
from nightsift.subtract import proper_subtraction
from nightsift.subtract.images import LEAK, Layer, RawDifference, leaks
from nightsift.subtract.stars import MIN_STAMPS, isolated

APERTURE = 1.5  # radius, FWHM of the broader image, in which both PSFs sum to 1
ENOUGH = 30  # stars from which on the displacement may change over the image
BRIGHT = 5.0  # times the noise, from which on what stands in for bad pixels may be seen elsewhere
DOUBT = 0.2  # by how much of itself it may be wrong
FLOOR = 0.02  # pixels that the positions of the brightest stars scatter at least


@dataclass(frozen=True)
class _Placed:
    """A PSF for a padded image whose stars stand off their positions, as `proper_subtraction.ProperLayer` wants it."""

    psf: Psf
    shift: tuple[Surface, Surface] | None = None

    def stamp(self, x: float, y: float, half: int) -> np.ndarray:
        """Return the PSF at a position on the framed image: a (2 half + 1, 2 half + 1) array."""
        rows, columns = self.psf.shape
        # No polynomial knows what is beyond the image.
        place = np.clip([x - PAD], 0, columns - 1), np.clip([y - PAD], 0, rows - 1)
        line = np.arange(-half, half + 1.0)[None]
        dx, dy = (surface.at(*place)[0] for surface in self.shift) if self.shift else (0.0, 0.0)
        return self.psf.grid(line - dx, line - dy, *place)[0][0]


@dataclass(frozen=True)
class _Compared:
    """The template's stars against the image's: flux ratio, displacement, its scatter per axis; the stars used."""

    ratio: float
    shift: tuple[Surface, Surface]
    scatter: float
    used: np.ndarray


def proper(image: Layer, template: Layer, stars: Table, params: parameters.SubtractConfig) -> RawDifference:
    """Subtract by the method of Zackay, Ofek & Gal-Yam (2016); see `nightsift.subtract.proper_subtraction.zogy`.

    Where one of the two shows nothing, in the frame around the image say, the other stands in for it, lest its stars
    be taken for changes. Parameters as for `nightsift.subtract.alard_lupton.alard_lupton`.

    Raises
    ------
    Rejected
        If one of the PSFs has fewer than 3 clean stars, or too few stars are measured in both images.
    """
    radius = APERTURE * max(image.fwhm, template.fwhm)
    psfs = [_psf(layer, stars, radius) for layer in (image, template)]
    found = _compared(image, template, psfs, stars, params)
    here, there = _completed(image, template, found.ratio)
    result = proper_subtraction.zogy(
        proper_subtraction.ProperLayer(here, image.noise, image.bad, _Placed(psfs[0])),
        proper_subtraction.ProperLayer(there, template.noise, template.bad, _Placed(psfs[1], found.shift)),
        found.ratio,
    )
    bad = _spoilt(here, image.bad, result.kernels, result.variance)
    bad |= _spoilt(there, template.bad, result.reference_kernels / found.ratio, result.variance)
    x, y = (np.asarray(stars[axis], float)[found.used] + PAD for axis in "xy")
    wide = widths(result.filtered_new, x, y, image.fwhm, image.bad)
    wide = wide[np.isfinite(wide) & (wide > 0.5)]
    shape = bad.shape
    new, reference, white = unpad(result.filtered_new), unpad(result.filtered_reference), unpad(result.variance)
    new -= reference
    return RawDifference(
        data=new,
        model=reference,
        bad=bad,
        unseen=np.broadcast_to(False, shape),
        white=np.sqrt(white, out=white),
        smoothed=np.broadcast_to(np.float32(0), shape),
        scale=(),
        kernel=np.ones((1, 1)),
        forward=True,
        fwhm=star_width(wide) if len(wide) else image.fwhm,
        used=found.used,
        white_correlation=_correlation(image, template, result, found.ratio),
        facts={
            "convolved": "both",
            "stamps": int(found.used.sum()),
            "kernel_sum": 1 / found.ratio,
            "shift": float(np.hypot(*(surface.coefficients[0] for surface in found.shift))),
            "shift_scatter": found.scatter,
            "image_psf_chi2": psfs[0].chi2,
            "image_psf_stars": psfs[0].n_stars,
        },
    )


def _psf(layer: Layer, stars: Table, radius: float) -> Psf:
    sample = isolated(stars, unpad(layer.data).shape)["x", "y", "flux", "snr"]
    return fit_psf(unpad(layer.data), unpad(layer.noise), unpad(layer.bad), sample, layer.fwhm, radius)


def _compared(image: Layer, template: Layer, psfs, stars: Table, params: parameters.SubtractConfig) -> _Compared:
    """Measure stars in both images, each with its PSF."""
    shape = unpad(image.data).shape
    chosen = np.sort(spread(stars["x"], stars["y"], -np.asarray(stars["snr"]), shape, params.max_stamps))
    x, y = (np.asarray(stars[axis], float)[chosen] for axis in "xy")
    (light, here_x, here_y), (other, there_x, there_y) = (
        fitted(unpad(layer.data), unpad(layer.noise), unpad(layer.bad), psf, x, y)
        for layer, psf in zip((image, template), psfs, strict=True)
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.log(other.flux / light.flux)
        error = np.hypot(light.fluxerr / light.flux, other.fluxerr / other.flux)
    offset = np.stack([there_x - here_x, there_y - here_y], axis=-1)
    sigma = np.hypot(FLOOR, 0.6 * max(image.fwhm, template.fwhm) * error)
    good = np.isfinite(ratio) & np.isfinite(offset).all(axis=1) & np.asarray(stars["alone"])[chosen]
    good &= np.hypot(*offset.T) < max(image.fwhm, template.fwhm) / 2
    order = int(good.sum() >= ENOUGH)
    terms = design(x, y, shape, order)
    for _ in range(4):
        if good.sum() < MIN_STAMPS:
            raise Rejected(f"only {good.sum()} of {len(good)} stars have a flux and a place in image and template")
        weight = 1 / sigma[good, None]
        solution = np.linalg.lstsq(terms[good] * weight, offset[good] * weight, rcond=None)[0]
        off = offset - terms @ solution
        away, scale = np.abs(ratio - np.median(ratio[good])), np.hypot(error, 0.03)
        spread_away = max(SIGMA_PER_MAD * np.median((away / scale)[good]), 1.0)
        spread_off = max(SIGMA_PER_MAD * np.median(np.abs(off / sigma[:, None])[good]), 1.0)
        good = good & (away < 4 * spread_away * scale) & (np.hypot(*off.T) < 5 * spread_off * sigma)
    used = np.zeros(len(stars), bool)
    used[chosen[good]] = True
    shift = tuple(Surface(column, order, shape) for column in solution.T)
    scatter = SIGMA_PER_MAD * float(np.median(np.abs(off[good])))
    return _Compared(float(np.exp(np.median(ratio[good]))), shift, scatter, used)


def _completed(image: Layer, template: Layer, ratio: float) -> list[np.ndarray]:
    """Return the data of both, each with the other's where it has none itself; the image's are changed in place."""
    none_here = (image.data == 0) & image.bad & ~template.bad
    none_there = (template.data == 0) & template.bad & ~image.bad
    image.data[none_here] = template.data[none_here] / np.float32(ratio)
    if not none_there.any():
        return [image.data, template.data]
    completed = template.data.copy()
    completed[none_there] = image.data[none_there] * np.float32(ratio)
    return [image.data, completed]


def _correlation(image: Layer, template: Layer, result: proper_subtraction.Proper, ratio: float) -> np.ndarray:
    """Autocorrelation of the noise of the difference, in units of what it would be of white noise in both."""
    if image.correlation.size == template.correlation.size == 1:
        return WHITE
    covariance, white = 0.0, 0.0
    parts = (image, result.kernels, 1.0), (template, result.reference_kernels, ratio)
    for layer, kernels, scale in parts:
        kernel = kernels[tuple(side // 2 for side in kernels.shape[:2])].astype(float)
        variance = float(np.median(layer.noise[::8, ::8]) / scale) ** 2
        reach = kernel.shape[0] // 2
        whole = convolve(np.pad(kernel, reach), kernel[::-1, ::-1])
        part = carried(whole, layer.correlation)
        covariance = covariance + variance * part[reach:-reach, reach:-reach]
        white += variance * np.sum(kernel**2)
    return covariance / white


def _spoilt(data: np.ndarray, bad: np.ndarray, kernels: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Tell which pixels of the difference have a share of bad ones, or an amount that may be seen."""
    kernel = kernels[tuple(side // 2 for side in kernels.shape[:2])]
    # Squared, for these kernels have far wings, and a bad pixel is hardly ever wholly wrong.
    result = leaks(bad, kernel**2, LEAK * np.sum(kernel**2))
    noise = float(np.sqrt(np.median(variance[::8, ::8])))
    wrong = np.zeros(bad.shape, np.float16)
    wrong[bad] = np.minimum(np.abs(data[bad]) / noise, 6e4)
    wrong[wrong < BRIGHT / np.abs(kernel).max()] = 0
    return result | leaks(wrong, kernel, 1 / DOUBT)
