"""Bring a template onto the pixels of an image, with its noise and mask, conserving flux."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from astropy.table import Table
from astropy.wcs import WCS
from scipy import ndimage

from nightsift import parameters
from nightsift.errors import Rejected
from nightsift.flags import Mask
from nightsift.image.background import background
from nightsift.image.correlation import WHITE, moved, noise_correlation, summed
from nightsift.image.padding import PAD
from nightsift.image.unit_noise import in_units, pixel_unit
from nightsift.template.registration import Registration, register
from nightsift.template.resample import coarse_grid, interpolated, mapping, nearest_pixel

MESH = 128  # pixels of a template per cell of its background, and its margin around an image
USUAL = 3.0  # FWHM of stars, image pixels, where there are none
UNKNOWN_GAIN = "the template's gain is unknown: its stars' own noise is learnt from what is left of them"


@dataclass(frozen=True)
class TemplateImage:
    """A template on its own pixels, and what is known of it.

    Attributes
    ----------
    data : 2-D float32 array
        ADU.
    mask : 2-D integer array
        `nightsift.flags.Mask` bits.
    wcs : WCS or None
        None until it is placed.
    noise : 2-D float32 array or None
        Standard deviation of a pixel, in place of what the pixels and `gain` tell.
    gain, saturation : float or None
        e-/ADU; ADU.
    """

    data: np.ndarray
    mask: np.ndarray
    wcs: WCS | None
    noise: np.ndarray | None = None
    gain: float | None = None
    saturation: float | None = None

    def cut(self, part: tuple[slice, slice]) -> TemplateImage:
        """Return a part of it."""
        noise = None if self.noise is None else self.noise[part]
        return replace(self, data=self.data[part], mask=self.mask[part], wcs=self.wcs[part], noise=noise)

    def per(self, unit: float) -> TemplateImage:
        """Return it in a unit, ADU."""
        return replace(
            self,
            data=in_units(self.data, unit),
            noise=in_units(self.noise, unit),
            gain=self.gain and self.gain * unit,
            saturation=self.saturation and self.saturation / unit,
        )


@dataclass(frozen=True)
class Target:
    """The image that a template is for.

    Attributes
    ----------
    wcs : WCS
    shape : tuple of int
        Rows and columns.
    objects : Table or None
        Its detections, which the template's WCS is checked and corrected against; without them it is trusted.
    band, filter_name : str or None
        Its filter, by its band and as its header calls it.
    """

    wcs: WCS
    shape: tuple[int, int]
    objects: Table | None = None
    band: str | None = None
    filter_name: str = ""


@dataclass(frozen=True)
class Template:
    """A template on the pixels of an image, padded by `PAD` pixels on all sides.

    Attributes
    ----------
    data : 2-D float32 array
        Background-subtracted template, ADU of the template in an image pixel; 0 where it does not reach.
    noise : 2-D float32 array
        Standard deviation of a pixel for noise that is white on the scale of a PSF where it is on the template's own
        pixels.
    mask : 2-D uint16 array
        ``NO_TEMPLATE`` and ``TEMPLATE_BAD`` bits of `nightsift.flags.Mask`.
    coverage : float
        Fraction of the image's pixels that it covers.
    area : float
        Template pixels in an image pixel at the image's centre.
    registration : Registration or None
        What its WCS did not know.
    warnings : tuple of str
    correlation : 2-D array
        Autocorrelation of the noise on the image's pixels, in units of `noise` squared: see
        `nightsift.image.correlation`.
    photons : bool
        The noise holds that of the sources' photons.
    files : tuple of str
        Names of those of several files that it is made of.
    facts : dict
        What is known of its making: ``coverage, area, gain, saturation, registration, placed, factors``.
    """

    data: np.ndarray
    noise: np.ndarray
    mask: np.ndarray
    coverage: float
    area: float
    registration: Registration | None = None
    warnings: tuple[str, ...] = ()
    correlation: np.ndarray = field(default_factory=lambda: WHITE)
    photons: bool = True
    files: tuple[str, ...] = ()
    facts: dict = field(default_factory=dict)


def align(source: TemplateImage, target: Target, params: parameters.TemplateConfig) -> Template:
    """Bring a template onto the pixels of an image.

    Raises
    ------
    Rejected
        If it covers less than ``params.min_coverage`` of the image, or shows other stars.
    """
    size = pixel_unit(source.data, source.mask != 0)
    own = _aligned(source.per(size), target, params)
    return replace(own, data=in_units(own.data, 1 / size), noise=in_units(own.noise, 1 / size))


def _aligned(source: TemplateImage, target: Target, params: parameters.TemplateConfig) -> Template:
    data, mask, wcs, objects = source.data, source.mask, source.wcs, target.objects
    absent = (mask & int(Mask.NONFINITE | Mask.OUTSIDE)) != 0
    sky = background(data, mask != 0, MESH)
    # What interpolation and kernel may smear a little of must not be garbage; saturated cores are better than 0.
    garbage = (mask != 0) & (mask != int(Mask.SATURATED))
    clean = np.where(garbage, 0, data - sky.level).astype(np.float32)
    registration = None
    if objects is not None:
        level = float(np.median(sky.noise))
        registration = register(objects, clean, level, mask != 0, wcs, target.wcs, target.shape, params.max_shift)
    x, y, area = mapping(wcs, target.wcs, target.shape, data.shape, PAD, registration)
    covered = (x > -0.5) & (y > -0.5) & (x < data.shape[1] - 0.5) & (y < data.shape[0] - 0.5)
    if not covered.any():
        raise Rejected("the template does not overlap the image")
    stars = np.array([USUAL]) if objects is None else np.asarray(objects["fwhm"], float)
    width = np.median(stars[np.isfinite(stars)]) if np.isfinite(stars).any() else USUAL
    correlation = noise_correlation(clean, sky.noise, mask != 0, float(width * np.sqrt(np.median(area))))
    variance = _variance(clean, mask != 0, sky.noise, source, correlation)
    values = interpolated(clean, x, y, area)
    resampled_variance = ndimage.map_coordinates(variance, [y, x], order=1, mode="nearest")
    hidden = nearest_pixel(absent, x, y)
    # One pixel further, the interpolation still rests on bad ones.
    bad = nearest_pixel(ndimage.binary_dilation(mask != 0, structure=np.ones((3, 3))), x, y)
    planes = np.where(~covered | hidden, int(Mask.NO_TEMPLATE), 0)
    planes |= np.where(covered & ~hidden & bad, int(Mask.TEMPLATE_BAD), 0)
    coverage = float(np.mean((planes[PAD:-PAD, PAD:-PAD] & int(Mask.NO_TEMPLATE)) == 0))
    if coverage < params.min_coverage:
        raise Rejected(f"the template covers {100 * coverage:.1f} % of the image, less than {params.min_coverage:.0%}")
    unseen = (planes & int(Mask.NO_TEMPLATE)) != 0
    photons = bool(source.gain or source.noise is not None)
    return Template(
        data=np.where(unseen, 0, values * area).astype(np.float32),
        noise=np.sqrt(resampled_variance * area).astype(np.float32),
        mask=planes.astype(np.uint16),
        coverage=coverage,
        area=float(area[area.shape[0] // 2, area.shape[1] // 2]),
        registration=registration,
        warnings=(registration.warnings if registration else ()) + (() if photons else (UNKNOWN_GAIN,)),
        correlation=_carried(correlation, x, y, sky.noise, source),
        photons=photons,
    )


def _carried(correlation, x, y, sky_noise, source: TemplateImage) -> np.ndarray:
    """Bring the autocorrelation of the template's noise onto the image's pixels."""
    if correlation.size == 1:
        return WHITE
    row, column = (side // 2 for side in x.shape)
    here = np.s_[row : row + 2, column : column + 2]
    steps = np.array([[np.diff(plane[here], axis=axis).mean() for axis in (1, 0)] for plane in (x, y)])
    # What the pixels show is the truth, also where a plane of the noise has more, as for a sum, or less.
    known = 1.0 if source.noise is None else float(np.median(sky_noise) / np.median(source.noise[source.mask == 0]))
    return known**2 * moved(correlation, np.linalg.inv(steps))


def _variance(clean, bad, sky_noise, source: TemplateImage, correlation) -> np.ndarray:
    if source.noise is not None:
        # Bad pixels may have any noise; interpolation must not carry it to others.
        return np.where(bad, sky_noise, source.noise).astype(np.float32) ** 2
    electrons = source.gain and source.gain * summed(correlation)
    photons = ndimage.uniform_filter(np.maximum(clean, 0), 3) / electrons if electrons else 0.0
    return (sky_noise**2 + photons).astype(np.float32)


def crop(wcs: WCS, image_wcs: WCS, shape, template_shape) -> tuple[slice, slice]:
    """Return the rows and columns of a template that an image (and a margin) falls on.

    Raises
    ------
    Rejected
        If there are none.
    """
    x, y = coarse_grid(wcs, image_wcs, shape, template_shape, PAD)[2:]
    margin = MESH
    inside = (x > -margin) & (y > -margin) & (x < template_shape[1] + margin) & (y < template_shape[0] + margin)
    if not inside.any():
        raise Rejected("the template does not overlap the image")
    inside = ndimage.binary_dilation(inside, structure=np.ones((3, 3))) & (x > -1e5)
    slices = []
    for axis, side in ((y, template_shape[0]), (x, template_shape[1])):
        first = int(np.clip(np.floor(axis[inside].min()) - margin, 0, side))
        last = int(np.clip(np.ceil(axis[inside].max()) + margin, 0, side))
        slices.append(slice(first, last))
    if min(part.stop - part.start for part in slices) < 16:
        raise Rejected("the template does not overlap the image")
    return tuple(slices)
