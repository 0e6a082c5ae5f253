"""What is subtracted, what from, and what the subtraction returns."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from nightsift import parameters
from nightsift.image.correlation import WHITE
from nightsift.image.trails import Trail
from nightsift.image.unit_noise import in_units, unit
from nightsift.psf.model import Psf

if TYPE_CHECKING:
    from nightsift.subtract.difference import Difference


@dataclass(frozen=True)
class Exposure:
    """A science image and what is known of it.

    Attributes
    ----------
    data : 2-D float32 array
        Image, ADU.
    mask : 2-D integer array
        `nightsift.flags.Mask` bits.
    gain : float or None
        e-/ADU.
    fwhm, aperture : float
        FWHM and radius of the calibration aperture, pixels.
    correlation : 2-D array
        Autocorrelation of the noise: see `nightsift.image.correlation`.
    background_size : int
        Mesh of the background map, pixels.
    """

    data: np.ndarray
    mask: np.ndarray
    gain: float | None
    fwhm: float
    aperture: float
    correlation: np.ndarray = field(default_factory=lambda: WHITE)
    background_size: int = parameters.DetectConfig.background_size


@dataclass(frozen=True)
class Reference:
    """A template on the image's pixels and `PAD` more on each side: see `nightsift.template.template.Template`."""

    data: np.ndarray
    noise: np.ndarray
    mask: np.ndarray
    correlation: np.ndarray = field(default_factory=lambda: WHITE)
    photons: bool = True


@dataclass(frozen=True)
class Difference:
    """A difference image on the flux scale of the science image.

    Attributes
    ----------
    data, sigma, snr : 2-D float32 arrays
        Difference and standard deviation of its pixels (ADU), S/N of a point source at each pixel.
    mask : 2-D uint16 array
        `nightsift.flags.Mask` bits.
    model : 2-D float32 array
        What was subtracted, on the flux scale of the image.
    psf : Psf
        Of the difference.
    facts : dict
        Quality: direction, stamps, orders, chi2, kernel sum, residual of the stars, noise factors, and each
        `nightsift.image.trails.Trail` whose light was fitted and taken out, as plain types.
    warnings : tuple of str
    """

    data: np.ndarray
    sigma: np.ndarray
    snr: np.ndarray
    mask: np.ndarray
    model: np.ndarray
    psf: Psf
    facts: dict
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Search:
    """A difference, and what is known of it.

    Attributes
    ----------
    difference, sigma, snr : 2-D float32 arrays
        Difference, standard deviation of its pixels (ADU), S/N map.
    mask : 2-D integer array
        `nightsift.flags.Mask` bits.
    model : 2-D float32 array
        The template as it was subtracted, ADU of the image.
    saturated : 2-D bool array
        Pixels of the image at or above saturation, without the margin that the mask keeps around them.
    psf : Psf
        Of the difference.
    noise : float
        Factor from the error of a PSF fit with white noise to the true one.
    residual, mismatch : float
        What the subtraction leaves of a star relative to its light: in all, and pixel by pixel in the core.
    gain : float or None
        e-/ADU of the image.
    trails : tuple of Trail
        Whose light was taken out of the difference.
    flux_scale_err : float
        Relative error of fluxes by what is not known of the PSF.
    """

    difference: np.ndarray
    sigma: np.ndarray
    snr: np.ndarray
    mask: np.ndarray
    model: np.ndarray
    saturated: np.ndarray
    psf: Psf
    noise: float
    residual: float
    mismatch: float
    gain: float | None = None
    trails: tuple[Trail, ...] = ()
    flux_scale_err: float = 0.0

    def per(self, unit: float) -> Search:
        """Return it in a unit, ADU."""
        planes = {name: in_units(getattr(self, name), unit) for name in ("difference", "sigma", "model")}
        return replace(self, **planes, gain=self.gain and self.gain * unit)

    @property
    def unit(self) -> float:
        """The unit in which its pixels have a noise of about 1, ADU."""
        return unit(float(np.median(self.sigma[::4, ::4])))

    @classmethod
    def of(cls, difference: Difference, saturated: np.ndarray, gain: float | None = None) -> Search:
        """Return what is searched of a `nightsift.subtract.difference.Difference`."""
        return cls(
            difference=difference.data,
            sigma=difference.sigma,
            snr=difference.snr,
            mask=difference.mask,
            model=difference.model,
            saturated=saturated,
            psf=difference.psf,
            noise=difference.facts["noise_correlation"],
            residual=difference.facts["residual"],
            mismatch=difference.facts["mismatch"],
            gain=gain,
            trails=tuple(Trail(**trail) for trail in difference.facts["trails"]),
            flux_scale_err=difference.facts["flux_scale_err"],
        )
