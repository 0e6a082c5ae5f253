"""Check where the WCS of a template places the stars of an image, and find the displacement that corrects it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import sep
from astropy.table import Table
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_scales
from scipy import ndimage

from nightsift import statistics
from nightsift.astrometry import asterism
from nightsift.errors import Rejected
from nightsift.flags import UNUSABLE, Flag
from nightsift.image.cosmics import find_stars
from nightsift.image.polynomial import design, powers
from nightsift.image.seeing import star_width, widths
from nightsift.image.stamps import crowded
from nightsift.statistics import FWHM_PER_SIGMA

# Neighbours shift centroids and add to fluxes; masked pixels beyond the aperture do neither.
UNSURE = UNUSABLE & ~(Flag.FOOTPRINT_MASKED | Flag.ANNULUS_BAD) | Flag.CROWDED
REACH = 20.0  # pixels of the image that the template is looked for around its place by default
TURN, STRETCH = 3.0, 0.03  # largest error of rotation (degrees) and scale
MOST = 1500  # stars of either list, the brightest
ENOUGH = 20  # stars on both sides from which on they must agree
FEW = 4  # stars below which the WCS is trusted
PER_TERM = 4  # stars that a term of the polynomial takes
MAX_ORDER = 3
CLEARLY = 2.0  # standard errors by which more freedom must predict held-out stars better
WORST = 18.0  # loss of a star at which it counts as an outlier: 3 sigma on both axes
FLOOR = 0.02  # pixels that the centroids of the brightest stars scatter at least
NOTABLE = 0.5  # pixels: a larger error of the WCS is worth a warning


@dataclass(frozen=True)
class Registration:
    """Where a template lies on an image, against what the WCS of both say.

    Attributes
    ----------
    n_stars : int
        Stars that it rests on.
    order : int or None
        Order of the displacement's polynomial in x and y; None where the WCS is left alone.
    coefficients : (terms, 2) array
        Of the terms of `nightsift.image.polynomial.design`, for x and y: pixels of the image.
    shape : tuple of int
        Rows and columns of the image.
    rms_before, rms : tuple of float
        Of these stars in x and y before and after, pixels of the image.
    shift : float
        Largest displacement that is applied to a covered pixel.
    warnings : tuple of str
    """

    n_stars: int
    order: int | None
    coefficients: np.ndarray
    shape: tuple[int, int]
    rms_before: tuple[float, float]
    rms: tuple[float, float]
    shift: float
    warnings: tuple[str, ...] = ()

    def displaced(self, x, y) -> tuple[np.ndarray, np.ndarray]:
        """Return the pixel positions that, carried by the two WCS, fall on what the image shows at (x, y)."""
        if self.order is None:
            return x, y
        offset = design(x, y, self.shape, self.order) @ self.coefficients
        return x + offset[..., 0], y + offset[..., 1]


@dataclass(frozen=True)
class _Stars:
    """Stars on the image's pixels, the brightest first: positions from its centre, errors, which to measure by."""

    points: np.ndarray
    sigma: np.ndarray
    clean: np.ndarray

    def part(self, kept) -> _Stars:
        return _Stars(self.points[kept], self.sigma[kept], self.clean[kept])


def carry(source: WCS, target: WCS, x, y, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return where pixels of one WCS lie on another, which is `size` pixels large; -1e6 far outside."""
    sky = source.all_pix2world(np.column_stack([np.ravel(x), np.ravel(y)]), 0)
    exact = target.wcs_world2pix(sky, 0)
    # The iterative inverse of the distortion diverges far outside the image that it was fitted to.
    near = np.all(np.isfinite(exact) & (np.abs(exact - size / 2) < 1.5 * size), axis=1)
    if near.any():
        exact[near] = target.all_world2pix(sky[near], 0, quiet=True)
    exact[~np.isfinite(exact).all(axis=1)] = -1e6
    return exact[:, 0].reshape(np.shape(x)), exact[:, 1].reshape(np.shape(x))


def register(
    objects: Table,
    data: np.ndarray,
    noise: float,
    bad: np.ndarray,
    wcs: WCS,
    image_wcs: WCS,
    shape: tuple[int, int],
    max_shift: float | None = None,
) -> Registration:
    """Find the displacement between an image and a template that its WCS does not know of.

    The brightest stars of both are matched as patterns, the template's carried to the image by the WCS. Of an offset
    and polynomials up to the third order that is taken which predicts held-out stars best, and none unless it does so
    clearly better than the WCS alone.

    Parameters
    ----------
    objects : Table
        Detections of the image: ``x, y, flux, snr, fwhm, flags``.
    data : 2-D float32 array
        Template, background subtracted.
    noise : float
        Standard deviation of its sky.
    bad : 2-D bool array
        Its masked pixels.
    wcs, image_wcs : WCS
        Of template and image.
    shape : tuple of int
        Rows and columns of the image.
    max_shift : float, optional
        Largest error of the WCS that is looked for, arcsec; by default 20 pixels of the image, and 0 trusts the WCS.

    Raises
    ------
    Rejected
        If both show many stars in the part that they share and these do not agree.
    """
    if max_shift == 0:
        return _unchanged(shape)
    pixel = 3600 * float(np.mean(proj_plane_pixel_scales(image_wcs.celestial)))
    reach = max_shift / pixel if max_shift else REACH
    ratio = pixel / 3600 / float(np.mean(proj_plane_pixel_scales(wcs.celestial)))
    inside = _covered(ndimage.binary_dilation(bad, iterations=2), wcs, image_wcs)
    covered = np.array([part.ravel() for part in np.meshgrid(*(np.linspace(0, side - 1, 24) for side in shape[::-1]))])
    covered = covered[:, inside(*covered)]
    image, fwhm = _image_stars(objects, shape)
    image = image.part(np.flatnonzero(inside(*_pixels(image.points, shape)))[:MOST])
    template = _template_stars(data, noise, bad, fwhm * ratio)
    template = _on_image(template, wcs, image_wcs, shape, reach, ratio)
    if min(len(image.points), len(template.points)) < FEW or not covered.size:
        return _unchanged(shape, "too few stars to check the template's WCS")
    pairs = _matched(image.points, template.points, covered.shape[1] / 24**2 * shape[0] * shape[1], reach, fwhm)
    if pairs is None:
        if min(len(image.points), len(template.points)) < ENOUGH:
            return _unchanged(shape, "the template's stars are too few to check its WCS")
        within = f"within {reach * pixel:.3g} arcsec"
        raise Rejected(f"the template does not show the image's stars where its WCS says, {within}")
    first, second = _tightened(image.points, template.points, *pairs, shape, covered)
    clean = image.clean[first] & template.clean[second]
    if clean.sum() >= min(ENOUGH, 0.5 * len(first)):
        first, second = first[clean], second[clean]
    if len(first) < FEW:
        return _unchanged(shape, "too few stars to check the template's WCS")
    offset = template.points[second] - image.points[first]
    sigma = np.hypot(image.sigma[first], template.sigma[second])
    return _fitted(*_pixels(image.points[first], shape), _columns(offset), sigma, covered, shape)


def _unchanged(shape, *warnings) -> Registration:
    unknown = (np.nan, np.nan)
    return Registration(0, None, np.zeros((0, 2)), tuple(shape), unknown, unknown, 0.0, warnings)


def _columns(values) -> np.ndarray:
    return np.column_stack([values.real, values.imag])


def _pixels(points, shape):
    """Return x and y of points that are complex and relative to the image's centre."""
    return points.real + (shape[1] - 1) / 2, points.imag + (shape[0] - 1) / 2


def _covered(bad, wcs, image_wcs):
    """Return a function that tells which positions on the image lie on unmasked pixels of the template."""

    def inside(x, y):
        column, row = (np.rint(part) for part in carry(image_wcs, wcs, x, y, max(bad.shape)))
        within = (column >= 0) & (row >= 0) & (column < bad.shape[1]) & (row < bad.shape[0])
        column, row = np.where(within, column, 0).astype(int), np.where(within, row, 0).astype(int)
        return within & ~bad[row, column]

    return inside


def _image_stars(objects, shape) -> tuple[_Stars, float]:
    """Return the objects of the image and the width of its stars."""
    names = ("x", "y", "flux", "snr", "fwhm")
    x, y, flux, snr, width = (np.ma.filled(np.ma.asarray(objects[name], float), np.nan) for name in names)
    unsure = (np.asarray(objects["flags"]) & int(UNSURE)) != 0
    usual = width[~unsure & (width > 0.5)]
    fwhm = star_width(usual) if len(usual) else 3.0
    clean = ~unsure & (snr > 10) & (np.abs(width - fwhm) < 0.3 * fwhm)
    # The centroid's error of a Gaussian star in the noise of the background: King 1983, PASP 95, 163.
    sigma = 0.6 * fwhm / np.where(snr > 0, snr, 5.0)
    order = np.argsort(-np.nan_to_num(flux, nan=-np.inf), kind="stable")
    points = x - (shape[1] - 1) / 2 + 1j * (y - (shape[0] - 1) / 2)
    return _Stars(points, sigma, clean).part(order[np.isfinite(points[order])]), fwhm


def _binned(image, side: int) -> np.ndarray:
    """Return the sums over squares of `side` pixels; what does not fill one at the far borders is left out."""
    rows, columns = (length // side for length in image.shape)
    return image[: rows * side, : columns * side].reshape(rows, side, columns, side).sum(axis=(1, 3))


def _template_stars(data, noise, bad, guess) -> _Stars:
    """Find the stars of the template on its own pixels, with Gaussian-windowed centroids.

    Wide stars are looked for on squares of pixels, where noise splits none into several peaks and faint ones stand out.
    """
    side = max(1, int(guess / 2.5))
    if side > 1:
        data, bad, noise = _binned(np.where(bad, 0, data), side), _binned(bad, side) > 0, noise * side
    row, column = find_stars(data, noise, bad, threshold=10.0)
    peak = data[row, column].astype(float)
    fwhm = float(np.clip(guess / side, 1.2, 5.0))
    for _ in range(2 if len(row) else 0):
        width = widths(data, column[:100], row[:100], fwhm, bad)
        width = width[np.isfinite(width)]
        fwhm = float(np.clip(star_width(width), 1.2, 20)) if len(width) else fwhm
    x, y, flag = sep.winpos(data, column, row, np.full(len(row), fwhm / FWHM_PER_SIGMA), mask=bad)
    stays = (np.hypot(x - column, y - row) < max(1.0, 0.5 * fwhm)) & np.isfinite(x + y)
    stays &= ~crowded(np.where(stays, x, column), np.where(stays, y, row), peak, 0.7 * fwhm, 1.0)
    x, y, peak, flag = x[stays], y[stays], peak[stays], flag[stays]
    clean = ((flag & sep.APER_HASMASKED) == 0) & ~crowded(x, y, peak, 2 * fwhm, 0.1)
    # The error as above: the S/N of a Gaussian star is 1.5 times its FWHM in pixels and the S/N of its peak.
    return _Stars((x + 1j * y + (0.5 + 0.5j)) * side - (0.5 + 0.5j), 0.4 * side * noise / peak, clean)


def _on_image(stars, wcs, image_wcs, shape, reach, ratio) -> _Stars:
    """Carry the template's stars to the image, and leave those out that fall far outside."""
    x, y = carry(wcs, image_wcs, stars.points.real, stars.points.imag, max(shape))
    near = (x > -reach) & (y > -reach) & (x < shape[1] + reach) & (y < shape[0] + reach)
    points = x - (shape[1] - 1) / 2 + 1j * (y - (shape[0] - 1) / 2)
    return _Stars(points, stars.sigma / ratio, stars.clean).part(np.flatnonzero(near)[:MOST])


def _matched(points, reference, area, reach, fwhm):
    """Return pairs of indices that no chance explains; where patterns do not match, those of stars in place."""
    limits = asterism.Limits(reach, TURN, (1 - STRETCH, 1 + STRETCH))
    found = asterism.match(points, reference, area, limits, 2 * FEW)
    if found is not None:
        return found.first, found.second
    radius = min(max(1.0, fwhm), reach, _sparse(points, reference, area))
    first, second, _, _ = asterism.mutual(points, reference, radius)
    return (first, second) if len(first) >= max(FEW, 0.3 * min(len(points), len(reference))) else None


def _sparse(points, reference, area):
    """Return the radius within which a match by chance is unlikely."""
    return asterism.SPARSE * np.sqrt(area / max(len(points), len(reference)))


def _tightened(points, reference, first, second, shape, covered):
    """Match all stars anew about the displacement that the pairs tell, as closely as their scatter allows."""
    x, y = _pixels(points, shape)
    limit = _sparse(points, reference, shape[0] * shape[1] * covered.shape[1] / 24**2)
    for _ in range(3):
        order = _highest_order(x[first], y[first], covered, shape)
        terms = design(x, y, shape, order)
        offset = _columns(reference[second] - points[first])
        solution, used = statistics.clipped_fit(terms[first], offset, clip=3.0)
        scatter = statistics.robust_sigma((offset - terms[first] @ solution)[used])
        moved = points + terms @ solution @ np.array([1, 1j])
        first, second, _, _ = asterism.mutual(moved, reference, max(min(6 * scatter, limit), 0.3))
        if len(first) < FEW:
            break
    return first, second


def _highest_order(x, y, covered, shape) -> int:
    """Return the highest order that the stars' number and spread support all over the covered part."""
    for order in range(MAX_ORDER, 0, -1):
        if len(x) >= PER_TERM * len(powers(order)):
            everywhere = design(*covered, shape, order)
            if statistics.leverage(design(x, y, shape, order), everywhere).max() <= 4.0:
                return order
    return 0


def _fitted(x, y, offset, sigma, covered, shape) -> Registration:
    """Fit the displacement, in the order that predicts held-out stars best, the simplest of equals."""
    highest = _highest_order(x, y, covered, shape)
    terms = design(x, y, shape, highest)
    solution, used = statistics.clipped_fit(terms, offset, np.hypot(sigma, FLOOR), clip=3.0)
    rest = (offset - terms @ solution)[used]
    freedom = max(used.sum() - terms.shape[1], 1) / used.sum()
    excess = statistics.robust_sigma(rest) ** 2 / freedom - np.median(sigma[used]) ** 2
    sigma = np.sqrt(max(excess, FLOOR**2) + sigma[used] ** 2)
    x, y, offset = x[used], y[used], offset[used]
    best, order = np.minimum((offset**2).sum(axis=1) / sigma**2, WORST), None
    for contender in range(highest + 1):
        residual = statistics.held_out(design(x, y, shape, contender), offset, 1 / sigma**2)
        loss = np.minimum((residual**2).sum(axis=1) / sigma**2, WORST)
        gain = best - loss
        if gain.mean() > max(CLEARLY * gain.std() / np.sqrt(len(gain)), 0.01):
            best, order = loss, contender
    before = after = tuple(np.sqrt(np.mean(offset**2, axis=0)).tolist())
    solution, shift, warnings = np.zeros((0, 2)), 0.0, []
    if order is not None:
        terms = design(x, y, shape, order)
        solution = statistics.solve(terms, offset, 1 / sigma**2)
        after = tuple(np.sqrt(np.mean((offset - terms @ solution) ** 2, axis=0)).tolist())
        shift = float(np.hypot(*(design(*covered, shape, order) @ solution).T).max())
    if shift > NOTABLE:
        warnings.append(f"the template's WCS was off by up to {shift:.1f} pixels: corrected by {len(x)} stars")
    if max(after) > NOTABLE:
        warnings.append(f"the template's stars stand {max(after):.1f} pixels from those of the image")
    return Registration(len(x), order, solution, tuple(shape), before, after, shift, tuple(warnings))
