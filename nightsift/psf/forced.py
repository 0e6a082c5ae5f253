"""Photometry with a PSF at given positions, of sources that stand alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from nightsift.image.stamps import stamps
from nightsift.psf.model import Psf

FLOOR = 0.01  # relative error of the model that the weights allow for, so that the brightest stars do not decide alone
# Relative error of the model that chi2 allows for: of a bright source only its shape can speak against it.
LIKENESS = 0.08
TINY = 1e-200  # what divides by nothing: less than the square of any flux or noise, whatever their unit
MIN_FRACTION = 0.1  # of the PSF's light that has to fall on good pixels
STEPS, ARRIVED = 12, 0.02  # that a position is improved at most; pixels, a step after which it is not


@dataclass(frozen=True)
class StarStamps:
    """Stamps of stars and what is known of them."""

    x: np.ndarray
    y: np.ndarray
    flux: np.ndarray
    column: np.ndarray
    row: np.ndarray
    value: np.ndarray
    variance: np.ndarray
    usable: np.ndarray

    def offsets(self):
        """Offsets of the stamps' columns and rows from the stars' centres, (n, side) each."""
        half = int(np.sqrt(self.value.shape[1])) // 2
        line = np.arange(-half, half + 1)
        return line + (self.column - self.x)[:, None], line + (self.row - self.y)[:, None]

    def model(self, psf: Psf, derivatives: int = 0) -> list[np.ndarray]:
        """Return `Psf.grid` for the stamps, their pixels in one row."""
        parts = psf.grid(*self.offsets(), self.x, self.y, derivatives)
        return [part.reshape(self.value.shape) for part in parts]

    def __getitem__(self, chosen) -> StarStamps:
        return StarStamps(**{key: value[chosen] for key, value in vars(self).items()})


def stars_at(image, noise, bad, x, y, half) -> StarStamps:
    column, row = np.rint(x).astype(int), np.rint(y).astype(int)
    flat = (len(x), (2 * half + 1) ** 2)
    return StarStamps(
        x=x,
        y=y,
        flux=np.zeros(len(x)),
        column=column,
        row=row,
        value=stamps(image, column, row, half).reshape(flat).astype(float),
        variance=np.maximum(stamps(noise, column, row, half, 1.0).reshape(flat).astype(float) ** 2, TINY),
        usable=~stamps(bad, column, row, half, True).reshape(flat),
    )


@dataclass(frozen=True)
class PsfFit:
    """Result of PSF photometry, one value a position; chi2 is reduced."""

    flux: np.ndarray
    fluxerr: np.ndarray
    dx: np.ndarray
    dy: np.ndarray
    level: np.ndarray
    chi2: np.ndarray


def solve(sample: StarStamps, psf: Psf, with_background=False, with_position=True, tolerance=FLOOR) -> PsfFit:
    """Linearised least squares of flux, shift and level for every stamp at once."""
    model, *slopes = sample.model(psf, int(with_position))
    columns = [model, *(-slope for slope in slopes)]
    if with_background:
        columns.append(np.ones_like(model))
    matrix = np.stack(columns, axis=-1, dtype=float)
    model = matrix[..., 0]
    floor = FLOOR * np.abs(sample.flux[:, None] * model)
    weight = sample.usable / (sample.variance + floor**2)
    normal = np.matmul(np.swapaxes(matrix * weight[..., None], 1, 2), matrix)
    diagonal = np.maximum(np.einsum("sii->si", normal), TINY)
    normal = normal + np.eye(normal.shape[1]) * (1e-12 * diagonal)[:, None, :] + TINY * np.eye(normal.shape[1])
    covariance = np.linalg.inv(normal)
    right = np.einsum("spn,sp->sn", matrix * weight[..., None], sample.value)
    solution = np.einsum("snm,sm->sn", covariance, right)
    residual = sample.value - np.einsum("spn,sn->sp", matrix, solution)
    freedom = np.maximum(sample.usable.sum(axis=1) - matrix.shape[2], 1)
    flux = solution[:, 0]
    own = model * weight
    error = np.sqrt(np.sum(own**2 * sample.variance, axis=1)) / np.maximum(np.sum(own * model, axis=1), TINY)
    tolerant = sample.usable / (sample.variance + (tolerance * flux[:, None] * model) ** 2)
    safe = np.where(flux != 0, flux, np.inf)
    nothing = np.zeros_like(flux)
    return PsfFit(
        flux=flux,
        fluxerr=error,
        dx=solution[:, 1] / safe if with_position else nothing,
        dy=solution[:, 2] / safe if with_position else nothing,
        level=solution[:, -1] if with_background else nothing,
        chi2=np.sum(tolerant * residual**2, axis=1) / freedom,
    )


# Many parameters: the image is three arrays: data, noise, bad pixels.
def forced(image, sigma, bad, psf: Psf, x, y, half: int | None = None) -> PsfFit:
    """PSF photometry at given positions.

    Parameters
    ----------
    image, sigma : 2-D arrays
        Difference (or background-subtracted image) and standard deviation of its pixels, ADU.
    bad : 2-D bool array
        Pixels without weight.
    psf : Psf
    x, y : 1-D arrays
        Positions, pixels.
    half : int, optional
        Half side of the fitted square; by default 1.5 FWHM.

    Returns
    -------
    PsfFit
        Optimal (inverse-variance weighted) flux (Naylor 1998, eq. 10) on the scale of the calibration aperture; NaN
        where less than a tenth of the PSF is on good pixels. chi2 allows for an error of the PSF of 8 per cent.
    """
    sample = _difference_stamps(image, sigma, bad, psf, x, y, half)
    first = solve(sample, psf, with_position=False)
    again = replace(sample, flux=np.nan_to_num(first.flux))
    return _without_hidden(solve(again, psf, with_position=False, tolerance=LIKENESS), sample, psf)


# Many parameters: the image is three arrays: data, noise, bad pixels.
def fitted(image, sigma, bad, psf: Psf, x, y, half: int | None = None) -> tuple[PsfFit, np.ndarray, np.ndarray]:
    """PSF photometry with the position fitted too, from starting positions; returns the fit and the positions.

    Parameters as in `forced`. Positions move by at most one FWHM.
    """
    start = np.array([x, y], float)
    now, moving = start.copy(), np.ones(start.shape[1], bool)
    for _ in range(STEPS):
        result = solve(_difference_stamps(image, sigma, bad, psf, *now[:, moving], half), psf)
        # Further out the PSF is no longer linear in its position.
        step = np.clip([result.dx, result.dy], -0.5, 0.5)
        now[:, moving] = np.clip(now[:, moving] + step, start[:, moving] - psf.fwhm, start[:, moving] + psf.fwhm)
        moving[moving] = np.abs(step).max(axis=0) > ARRIVED
        if not moving.any():
            break
    now_x, now_y = now
    final = forced(image, sigma, bad, psf, now_x, now_y, half)
    return final, now_x, now_y


# Many parameters: those of `forced`.
def _difference_stamps(image, sigma, bad, psf, x, y, half) -> StarStamps:
    x, y = np.atleast_1d(np.asarray(x, float)), np.atleast_1d(np.asarray(y, float))
    return stars_at(image, sigma, bad, x, y, int(np.ceil(1.5 * psf.fwhm)) if half is None else half)


def _without_hidden(result: PsfFit, sample: StarStamps, psf: Psf) -> PsfFit:
    model = np.abs(sample.model(psf)[0])
    fraction = np.sum(model * sample.usable, axis=1) / np.maximum(model.sum(axis=1), 1e-30)
    hidden = fraction < MIN_FRACTION
    return replace(
        result,
        flux=np.where(hidden, np.nan, result.flux),
        fluxerr=np.where(hidden, np.nan, result.fluxerr),
        chi2=np.where(hidden, np.nan, result.chi2),
    )


# Many parameters: the terms of the error, by name.
def flux_error(psf: Psf, flux, bgerr, sigma, gain: float | None, scale_err: float, left) -> np.ndarray:
    """Return the error of PSF fluxes (ADU), by adding its parts in quadrature.

    Parameters
    ----------
    psf : Psf
    flux, bgerr, sigma : arrays
        Fluxes, their error where there is no source, standard deviation of a pixel there; ADU.
    gain : float or None
        e-/ADU, for the source's own photons: see `photon_noise`.
    scale_err : float
        Relative error of the flux scale (`nightsift.subtract.fluxscale`); much the same for sources near each other.
    left : array
        What the subtraction may leave of the light beneath, ADU.
    """
    scaled = scale_err * np.nan_to_num(flux)
    return np.sqrt(bgerr**2 + photon_noise(psf, flux, gain, sigma) ** 2 + scaled**2 + np.nan_to_num(left) ** 2)


def photon_noise(psf: Psf, flux, gain: float | None, sigma) -> np.ndarray:
    """Return the part of a PSF flux's error that the source's own photons make (ADU); 0 where no gain is known.

    For a PSF P and weights w, the variance is flux/gain sum(w^2 P^3) / sum(w P^2)^2 (propagation of Naylor 1998,
    eq. 10). The weights are those of `forced` where the pixels have a standard deviation `sigma` (ADU):
    of a bright source they allow for an error of the PSF.
    """
    flux = np.maximum(np.nan_to_num(np.asarray(flux, float)), 0)
    if not gain:
        return np.zeros_like(flux)
    profile = np.maximum(psf.stamp(psf.shape[1] / 2, psf.shape[0] / 2, int(np.ceil(1.5 * psf.fwhm))).ravel(), 0)
    # Only what the model's error is relative to sigma shapes the weights.
    relative = FLOOR * flux / np.maximum(np.asarray(sigma, float), TINY)
    weight = 1 / (1 + np.multiply.outer(relative, profile) ** 2)
    fraction = (weight**2 @ profile**3) / (weight @ profile**2) ** 2
    return np.sqrt(flux / gain * fraction)
