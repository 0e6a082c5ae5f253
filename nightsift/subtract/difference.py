"""What is subtracted, what from, and what the subtraction returns."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING

import numpy as np

from nightsift import parameters
from nightsift.image.correlation import WHITE
from nightsift.image.trails import Trail
from nightsift.image.unit_noise import in_units, unit
from nightsift.psf.model import Psf

if TYPE_CHECKING:
    from astropy.io.fits import Header


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
class DifferenceQuality:
    """What the errors of fluxes measured in a difference depend on, beside its pixels.

    Attributes
    ----------
    noise_correlation : float
        Factor from the error of a PSF fit with white noise to the true one.
    residual, mismatch : float
        What the subtraction leaves of a star relative to its flux: in all, and pixel by pixel in the core (NaN where
        that is not recorded).
    flux_scale_err : float
        Relative error of fluxes by what is not known of the PSF.
    trails : tuple of Trail
        Whose flux was taken out of the difference.
    """

    noise_correlation: float
    residual: float
    mismatch: float = np.nan
    flux_scale_err: float = 0.0
    trails: tuple[Trail, ...] = ()

    def to_dict(self) -> dict:
        """Return plain numbers and lists, for the facts of stage `subtract`."""
        return asdict(self) | {"trails": [asdict(trail) for trail in self.trails]}

    @classmethod
    def from_dict(cls, facts: dict) -> DifferenceQuality:
        """Return what `to_dict` was made from; other facts of the stage may stand beside."""
        values = {item.name: facts[item.name] for item in fields(cls)}
        return cls(**values | {"trails": tuple(Trail(**trail) for trail in values["trails"])})

    def to_header(self, header: Header) -> None:
        """Enter what forced photometry needs into the header of the difference's PSF."""
        for name, (key, comment) in CARDS.items():
            header[key] = (getattr(self, name), comment)

    @classmethod
    def from_header(cls, header: Header) -> DifferenceQuality:
        """Return what `to_header` entered."""
        return cls(**{name: header[key] for name, (key, _) in CARDS.items()})


#: FITS cards of the quality, by its attribute
CARDS = {
    "noise_correlation": ("NOISECOR", "true error of a PSF flux over white noise's"),
    "flux_scale_err": ("SCALEERR", "relative error of its fluxes beyond the noise"),
    "residual": ("RESIDUAL", "of subtracted light: what may be left"),
}


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
        Of the stage: direction, stamps, orders, chi2, kernel sum, noise factors, and all of `DifferenceQuality`, as
        plain types.
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

    @property
    def quality(self) -> DifferenceQuality:
        """What errors of fluxes depend on, of `facts`."""
        return DifferenceQuality.from_dict(self.facts)


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
    quality : DifferenceQuality
    gain : float or None
        e-/ADU of the image.
    """

    difference: np.ndarray
    sigma: np.ndarray
    snr: np.ndarray
    mask: np.ndarray
    model: np.ndarray
    saturated: np.ndarray
    psf: Psf
    quality: DifferenceQuality
    gain: float | None = None

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
            quality=difference.quality,
            gain=gain,
        )


def saturated(image: np.ndarray, level: float | None) -> np.ndarray:
    """Return which pixels are at or above the saturation level."""
    return image >= level if level else np.zeros(image.shape, bool)
