"""What the stage is given of each image of a campaign."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from astropy.io.fits import Header
from astropy.table import Table

from nightsift import tables
from nightsift.errors import Unreadable
from nightsift.psf.forced import flux_error, forced
from nightsift.psf.model import Psf

if TYPE_CHECKING:
    from nightsift.photometry.solution import ZeroPointModel
    from nightsift.subtract.difference import DifferenceQuality


@dataclass(frozen=True)
class DifferencePixels:
    """The difference of an image, and what the errors of its fluxes depend on.

    Attributes
    ----------
    difference, sigma, model : 2-D float arrays
        Difference, standard deviation of its pixels, what was subtracted; ADU.
    mask : 2-D integer array
        `nightsift.flags.Mask` bits.
    psf : Psf
        Of the difference.
    quality : DifferenceQuality
    """

    difference: np.ndarray
    sigma: np.ndarray
    model: np.ndarray
    mask: np.ndarray
    psf: Psf
    quality: DifferenceQuality

    def measure(self, x, y, gain: float | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Fit the PSF at positions, as `nightsift.transients.measure.measure` does.

        Parameters
        ----------
        x, y : array, shape (n,)
            Pixels.
        gain : float or None
            e-/ADU of the image.

        Returns
        -------
        flux, fluxerr, bgerr : array, shape (n,)
            ADU; `bgerr` is the part of the error that is there without the source. NaN where too much is masked.
        """
        fit = forced(self.difference, self.sigma, self.mask != 0, self.psf, x, y)
        bgerr = fit.fluxerr * self.quality.noise_correlation
        sides = self.psf.shape[::-1]
        column, row = (np.clip(np.rint(v).astype(int), 0, side - 1) for v, side in zip((x, y), sides, strict=True))
        beneath = forced(self.model, self.sigma, np.zeros(self.psf.shape, bool), self.psf, x, y).flux
        left = self.quality.residual * np.abs(beneath)
        fluxerr = flux_error(
            self.psf, fit.flux, bgerr, self.sigma[row, column], gain, self.quality.flux_scale_err, left
        )
        return fit.flux, fluxerr, bgerr


@dataclass
class ImageRecord:
    """What is kept in memory of an image: its facts and its candidates, not its pixels.

    Attributes
    ----------
    name : str
    status, stage, reason, warnings
        How its processing ended, as in ``status.json``.
    filter, band : str
        Filter of the image, and the catalogue's band that its zero point is tied to.
    mjd : float
        Middle of the exposure, NaN where not known.
    shape : (ny, nx) or None
    gain : float or None
        e-/ADU.
    fwhm : float
        Pixels.
    pixscale, rms : float
        Pixel scale, astrometric rms along an axis [arcsec].
    n_objects : int
    numbers : dict
        Further columns of schema ``images``: zero point, limit, completeness.
    header : Header or None
        With the WCS.
    photometry : ZeroPointModel or None
        With the methods ``zero_point`` and ``zero_point_error`` of pixel positions.
    model : dict
        Card of the image's real-bogus model.
    candidates, uncatalogued : Table
        Of schemas ``candidates`` and ``uncatalogued``. The stage takes the candidates over, so that they are in
        memory once; `n_candidates` stays.
    pixels : callable
        Reads the difference, which is not kept; returns `DifferencePixels`, or None where there is none.
    problem : Unreadable or None
        The product that could not be read; the image is then in error.
    """

    name: str
    status: str
    stage: str = ""
    reason: str = ""
    warnings: list[str] = field(default_factory=list)
    filter: str = ""
    band: str = ""
    mjd: float = np.nan
    shape: tuple[int, int] | None = None
    gain: float | None = None
    fwhm: float = np.nan
    pixscale: float = np.nan
    rms: float = np.nan
    n_objects: int = 0
    numbers: dict[str, float] = field(default_factory=dict)
    header: Header | None = None
    photometry: ZeroPointModel | None = None
    model: dict = field(default_factory=dict)
    candidates: Table = field(default_factory=lambda: tables.empty("candidates"))
    uncatalogued: Table = field(default_factory=lambda: tables.empty("uncatalogued"))
    pixels: Callable[[], DifferencePixels | None] = lambda: None
    problem: Unreadable | None = None

    def __post_init__(self):
        self.n_candidates = len(self.candidates)
        self.subtracted = self.status != "error" and self.photometry is not None and self.header is not None

    def fail(self, problem: Unreadable) -> None:
        """Set the status to error, for a product that cannot be read."""
        self.status, self.stage, self.reason, self.problem = "error", "sources", str(problem), problem

    @property
    def passband(self) -> str:
        """That in which the image's zero point holds: its filter, and the band that it is tied to."""
        return f"{self.filter}/{self.band}"

    def zero_point(self, x, y) -> np.ndarray:
        """Return the zero point at pixel positions [mag], NaN where the image has none."""
        if self.photometry is None:
            return np.full(np.shape(x), np.nan)
        return self.photometry.zero_point(np.asarray(x, float), np.asarray(y, float))

    def zero_point_error(self, x, y) -> np.ndarray:
        """Return the error of `zero_point` [mag]."""
        if self.photometry is None:
            return np.full(np.shape(x), np.nan)
        return self.photometry.zero_point_error(np.asarray(x, float), np.asarray(y, float))

    def row(self) -> dict:
        """Return the image's row of schema ``images``."""
        return {
            "image": self.name,
            "status": self.status,
            "stage": self.stage,
            "reason": self.reason,
            "warnings": len(self.warnings),
            "filter": self.filter,
            "mjd": self.mjd,
            "fwhm": self.fwhm,
            "band": self.band,
            **self.numbers,
            "astrom_rms": self.rms,
            "n_objects": self.n_objects,
            "n_candidates": self.n_candidates,
            "n_uncatalogued": len(self.uncatalogued),
        }
