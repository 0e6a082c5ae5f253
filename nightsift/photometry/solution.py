"""What ties the magnitudes of an image to a catalogue: zero point, limits, and the stars that it rests on."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Self

import numpy as np

from nightsift.image import amplifiers
from nightsift.image.polynomial import powers
from nightsift.photometry import zeropoint


@dataclass(frozen=True)
class ApertureSeeing:
    """What photometry must know of the image: `fwhm` and `aperture` (radius) [px], `pixscale` [arcsec], (ny, nx).

    `growth` is by how much the flux of the PSF within 4 FWHM exceeds that in the aperture [mag], NaN = not known.
    """

    fwhm: float
    pixscale: float
    aperture: float
    shape: tuple[int, int]
    growth: float = np.nan


@dataclass(frozen=True)
class _Facts:
    """A part of ``photometry.json``, whose keys are the names of its fields; other keys are other parts'."""

    def to_dict(self) -> dict:
        """Return plain lists, numbers and strings for JSON; NaN becomes None."""
        return {item.name: _plain(getattr(self, item.name)) for item in fields(self)}

    @classmethod
    def from_dict(cls, entries: dict) -> Self:
        """Return what `to_dict` was made from; a missing key without default is a TypeError."""
        values = {item.name: entries[item.name] for item in fields(cls) if item.name in entries}
        for item in fields(cls):
            if item.name in values and str(item.type).startswith("np.ndarray") and values[item.name] is not None:
                values[item.name] = np.array(values[item.name], dtype=item.metadata.get("dtype", float))
            elif item.name in values and str(item.type).startswith("tuple"):
                values[item.name] = tuple(values[item.name])
            elif item.type == "float" and values.get(item.name, 0.0) is None:
                values[item.name] = np.nan
        return cls(**values)


@dataclass(frozen=True)
class ZeroPointModel(_Facts):
    """The zero point over the image, with the colour term.

    Attributes
    ----------
    band, color : str, str or None
        Catalogue band, and the colour of the colour term where one is fitted.
    zp, zp_err : float
        Mean over the image of the total zero point at colour 0, and its error [mag]; NaN where there is no aperture
        correction.
    zp_aperture, zp_aperture_err : float
        The same of the flux in the aperture [mag].
    aperture_correction, aperture_correction_err : float
        What is added to magnitudes of the aperture taken for total ones: the mean over the image of minus the growth
        [mag]; NaN where neither stars nor the PSF determine it.
    n_correction : int
        Stars that it rests on; 0 where it is the PSF's.
    color_term, color_term_err : float or None
        None when not fitted.
    order, edges : int, pair of tuples of float
        Order of the zero point's polynomial, and where it steps between amplifiers (see `amplifiers.Edges`).
    intrinsic, scatter, chi2 : float
        Fitted scatter beyond the errors [mag]; robust rms of the residuals of the used stars' brighter half [mag];
        reduced chi-square of the used stars.
    parameters : tuple of str
    coefficients, covariance : ndarray
        In the order of `parameters`, of the aperture's zero point: ``zp_aperture``, ``x``, ``y``, ``x2`` ... (positions
        scaled to -1..1 over the image, mean over the image removed), ``amplifier1`` ... (what the parts after the first
        have more than it, likewise), ``nonlinearity`` (a magnitude), ``background``
        (flux in all apertures, in units of the flux at `reference`), ``color``.
    shape : (ny, nx)
    reference : float
        Instrumental magnitude at which the nonlinearity is 0.
    correction_coefficients, correction_covariance : ndarray or None
        Of the aperture correction over the image, in terms like the zero point's; the covariance is that of what the
        growth adds to these.
    color_terms : tuple of dict
        `colorterms.ColorTerm` of every band of the catalogue.
    color_tried : str or None
        The colour that the model could have had.

    The errors hold what the stars' scatter shows; an error of the catalogue's own zero point they cannot show.
    """

    band: str
    color: str | None
    zp: float
    zp_err: float
    color_term: float | None
    color_term_err: float | None
    order: int
    intrinsic: float
    scatter: float
    chi2: float
    parameters: tuple[str, ...]
    coefficients: np.ndarray
    covariance: np.ndarray
    shape: tuple[int, int]
    edges: amplifiers.Edges = amplifiers.WHOLE
    zp_aperture: float = np.nan
    zp_aperture_err: float = np.nan
    aperture_correction: float = np.nan
    aperture_correction_err: float = np.nan
    n_correction: int = 0
    correction_coefficients: np.ndarray | None = None
    correction_covariance: np.ndarray | None = None
    reference: float = np.nan
    color_terms: tuple[dict, ...] = ()
    color_tried: str | None = None

    def _terms(self, x, y) -> np.ndarray:
        return zeropoint.surface(self.order, self.edges, *zeropoint.scaled(x, y, self.shape))

    def zero_point(self, x, y) -> np.ndarray:
        """Return the zero point of the aperture [mag] at pixel positions, without the colour part."""
        design = self._terms(x, y)
        return design @ self.coefficients[: design.shape[-1]]

    def zero_point_error(self, x, y) -> np.ndarray:
        """Return the error [mag] of `zero_point`, common to what lies at that position."""
        design = self._terms(x, y)
        count = design.shape[-1]
        return np.sqrt(np.einsum("...i,ij,...j->...", design, self.covariance[:count, :count], design))

    def total_zero_point(self, x, y) -> np.ndarray:
        """Return the total zero point [mag] at pixel positions, NaN where there is no aperture correction."""
        if self.correction_coefficients is None:
            return np.full(np.shape(x), np.nan)
        order = next(n for n in range(9) if len(powers(n)) == len(self.correction_coefficients))
        surface = zeropoint.terms(order, *zeropoint.scaled(x, y, self.shape)) @ self.correction_coefficients
        return self.zero_point(x, y) - surface

    def term(self, name: str) -> float:
        """Return one of the coefficients; 0 for what the model does not have."""
        return float(self.coefficients[self.parameters.index(name)]) if name in self.parameters else 0.0


@dataclass(frozen=True)
class DepthLimits(_Facts):
    """How faint the image goes.

    Attributes
    ----------
    limit_snr, maglim, maglim_snr, maglim_noise : float
        S/N and magnitude of the limit; as the S/N model has it (NaN: none), and as the median noise has it. `maglim`
        is the first where there is one.
    maglim_model : ndarray, shape (3,), or None
        See `limits.snr_model`.
    maglim_map : ndarray, shape (rows, columns), or None
        See `limits.limit_map`.
    """

    limit_snr: float
    maglim: float = np.nan
    maglim_snr: float = np.nan
    maglim_noise: float = np.nan
    maglim_model: np.ndarray | None = None
    maglim_map: np.ndarray | None = None


@dataclass(frozen=True)
class MatchedStars(_Facts):
    """The stars that the zero point rests on.

    Attributes
    ----------
    n_matched, n_good, n_used : int
        Matches, the bright and clean of them, and those of these that agree and make the fit.
    match_object, match_catalog : ndarray of int, shape (n_matched,)
        Rows of the tables.
    used, residual, contamination : ndarray, shape (n_matched,)
        In the fit or not; catalogue minus model [mag]; flux of neighbours in the aperture relative to the star's.
    """

    n_matched: int
    n_good: int
    n_used: int
    match_object: np.ndarray = field(metadata={"dtype": int})
    match_catalog: np.ndarray = field(metadata={"dtype": int})
    used: np.ndarray = field(metadata={"dtype": bool})
    residual: np.ndarray
    contamination: np.ndarray


@dataclass(frozen=True)
class Photometry:
    """The photometric solution of an image.

    Attributes
    ----------
    model : ZeroPointModel
    limits : DepthLimits
    stars : MatchedStars
    warnings, doubts : tuple of str
        What a person should know, and why the magnitudes mean little, as `verdict.doubts` has it.
    """

    model: ZeroPointModel
    limits: DepthLimits
    stars: MatchedStars
    warnings: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()

    def to_dict(self) -> dict:
        """Return the facts of all parts, for JSON."""
        return self.model.to_dict() | self.limits.to_dict() | self.stars.to_dict()

    @classmethod
    def from_dict(cls, entries: dict) -> Photometry:
        """Return what `to_dict` was made from."""
        return cls(ZeroPointModel.from_dict(entries), DepthLimits.from_dict(entries), MatchedStars.from_dict(entries))


def _plain(value):
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value
