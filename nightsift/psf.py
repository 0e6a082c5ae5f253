"""The point spread function as a smooth function of offset and position, and photometry with it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from astropy.io import fits
from photutils.aperture import CircularAperture

from nightsift.errors import Rejected
from nightsift.polynomial import design
from nightsift.stamps import spread, stamps

WIDTHS = ((0.6, 2), (1.0, 4), (2.0, 2))  # Gaussian widths in units of the star's sigma, degree of the polynomial
MOFFAT_BETAS = (2.0, 3.5)
FLOOR = 0.01  # relative error of the model that the weights allow for, so that the brightest stars do not decide alone
LIKENESS = (
    0.08  # relative error of the model that chi2 allows for: of a bright source only its shape can speak against it
)
MIN_SHARE = 0.1  # of the PSF's light that has to fall on good pixels


@dataclass(frozen=True)
class Psf:
    """Effective PSF (pixel response included): a linear combination of smooth functions, varying as a polynomial.

    Attributes
    ----------
    coefficients : (terms, functions) array
        Of the polynomial terms in position and of the functions in offset.
    fwhm : float
        Width that scales the functions, pixels.
    shape : tuple of int
        Rows and columns of the image.
    order : int
        Order of the polynomial in position.
    aperture : float
        Radius (pixels) within which the PSF sums to 1: fluxes fitted with it are aperture fluxes.
    n_stars : int
        Stars that it was fitted to.
    chi2 : float
        Median reduced chi2 of these stars.
    correction : float
        What the PSF sums to within the aperture, which ties its fluxes to those of the calibration.
    """

    coefficients: np.ndarray
    fwhm: float
    shape: tuple[int, int]
    order: int
    aperture: float
    n_stars: int = 0
    chi2: float = np.nan
    correction: float = 1.0

    def at(self, u: np.ndarray, v: np.ndarray, x, y) -> np.ndarray:
        """Return the PSF at positions `x`, `y` (n) for the offsets `u`, `v` (n, pixels): an (n, pixels) array."""
        weights = self._weights(x, y)
        return np.einsum("fnp,nf->np", functions(u, v, self.fwhm), weights, optimize=True)

    def stamp(self, x: float, y: float, half: int) -> np.ndarray:
        """Return the PSF at a position, centred on the central pixel: a (2 half + 1, 2 half + 1) array."""
        v, u = (line.ravel()[None] for line in np.mgrid[-half : half + 1, -half : half + 1].astype(float))
        return self.at(u, v, np.atleast_1d(x), np.atleast_1d(y)).reshape(2 * half + 1, 2 * half + 1)

    def _weights(self, x, y) -> np.ndarray:
        raw = design(x, y, self.shape, self.order) @ self.coefficients
        return raw * (self.correction / (raw @ self._aperture_sums))[:, None]

    @cached_property
    def _aperture_sums(self) -> np.ndarray:
        """Sum of each function within the aperture, averaged over the positions of the centre within a pixel."""
        half = int(np.ceil(self.aperture)) + 2
        v, u = (line.ravel() for line in np.mgrid[-half : half + 1, -half : half + 1].astype(float))
        steps = (np.arange(4) + 0.5) / 4 - 0.5
        total = 0.0
        for phase_x in steps:
            for phase_y in steps:
                circle = CircularAperture((half + phase_x, half + phase_y), self.aperture).to_mask(method="exact")
                overlap = circle.to_image((2 * half + 1, 2 * half + 1)).ravel()
                total = total + functions(u - phase_x, v - phase_y, self.fwhm) @ overlap
        return total / 16

    def to_images(self) -> tuple[dict[str, np.ndarray], fits.Header]:
        """Return the PSF as an array and a header, for a file."""
        header = fits.Header()
        header["PSFFWHM"] = (self.fwhm, "scale of the functions, pixels")
        header["PSFORDER"] = (self.order, "order of the polynomial in position")
        header["PSFAPER"] = (self.aperture, "aperture in which the PSF sums to 1, pixels")
        header["PSFNX"], header["PSFNY"] = self.shape[1], self.shape[0]
        header["PSFCORR"] = (self.correction, "sum within the aperture")
        header["PSFSTARS"] = (self.n_stars, "stars used")
        header["PSFCHI2"] = (self.chi2, "median reduced chi2 of the stars")
        return {"PSF": self.coefficients}, header

    @classmethod
    def from_images(cls, images: dict[str, np.ndarray], header: fits.Header) -> Psf:
        """Return the PSF that `to_images` described."""
        return cls(
            coefficients=next(iter(images.values())),
            fwhm=header["PSFFWHM"],
            shape=(header["PSFNY"], header["PSFNX"]),
            order=header["PSFORDER"],
            aperture=header["PSFAPER"],
            n_stars=header["PSFSTARS"],
            chi2=header["PSFCHI2"],
            correction=header["PSFCORR"],
        )


def functions(u: np.ndarray, v: np.ndarray, fwhm: float) -> np.ndarray:
    """Return the smooth functions of offset that make up a PSF of about that FWHM: (functions,) + shape of `u`."""
    sigma = fwhm / 2.3548
    square = u**2 + v**2
    result = []
    for scale, degree in WIDTHS:
        s = scale * sigma
        bell = np.exp(-square / (2 * s**2)) / s**2
        p, q = u / s, v / s
        column = bell
        for i in range(degree + 1):
            term = column
            for _ in range(degree + 1 - i):
                result.append(term)
                term = term * q
            column = column * p
    for beta in MOFFAT_BETAS:
        core = (fwhm / 2) ** 2 / (2 ** (1 / beta) - 1)
        result.append((1 + square / core) ** -beta / core)
    return np.stack(result)


@dataclass(frozen=True)
class _Stars:
    """Stamps of stars and what is known of them."""

    x: np.ndarray
    y: np.ndarray
    flux: np.ndarray
    column: np.ndarray
    row: np.ndarray
    value: np.ndarray
    variance: np.ndarray
    usable: np.ndarray
    u: np.ndarray
    v: np.ndarray

    def offsets(self):
        """Offsets of the pixels from the stars' centres, (n, pixels) each."""
        return self.u + (self.column - self.x)[:, None], self.v + (self.row - self.y)[:, None]

    def __getitem__(self, chosen) -> _Stars:
        values = {key: value if key in "uv" else value[chosen] for key, value in vars(self).items()}
        return _Stars(**values)


def fit_psf(image, noise, bad, stars, fwhm: float, aperture: float, most: int = 120) -> Psf:
    """Fit the PSF of an image to its stars.

    Parameters
    ----------
    image, noise : 2-D float32 arrays
        Background-subtracted image and standard deviation of a pixel without the stars' own photons, ADU.
    bad : 2-D bool array
        Pixels to leave out.
    stars : Table
        ``x, y, flux, snr, background`` of clean stars.
    fwhm, aperture : float
        Typical FWHM and radius of the calibration aperture, pixels.
    most : int
        Stars used at most, evenly over the image.

    Raises
    ------
    Rejected
        If fewer than 3 stars are left.
    """
    half = int(np.ceil(max(2.0 * fwhm, aperture + 1)))
    chosen = spread(stars["x"], stars["y"], -np.asarray(stars["snr"]), image.shape, most)
    sample = _cut(image, noise, bad, stars[chosen], half)
    sample = sample[sample.usable.mean(axis=1) > 0.9]
    if len(sample.x) < 3:
        raise Rejected(f"the PSF needs 3 clean stars; there are {len(sample.x)}")
    for attempt in range(4):
        order = 0 if len(sample.x) < 15 else 1 if len(sample.x) < 50 else 2
        psf = _solve(sample, fwhm, image.shape, order, aperture)
        sample, chi2 = _recentre(sample, psf)
        spread_chi2 = 1.4826 * np.median(np.abs(chi2 - np.median(chi2)))
        kept = chi2 < np.median(chi2) + 4 * max(spread_chi2, 0.1 * np.median(chi2))
        if attempt > 1 and kept.all():
            break
        if kept.sum() >= 3:
            sample, chi2 = sample[kept], chi2[kept]
    return replace(psf, n_stars=len(sample.x), chi2=float(np.median(chi2)))


def _cut(image, noise, bad, stars, half) -> _Stars:
    x, y = np.array(stars["x"], float), np.array(stars["y"], float)
    column, row = np.rint(x).astype(int), np.rint(y).astype(int)
    v, u = (line.ravel().astype(float) for line in np.mgrid[-half : half + 1, -half : half + 1])
    flat = (len(x), -1)
    local = np.array(stars["background"], float)[:, None] if "background" in stars.colnames else 0.0
    return _Stars(
        x=x,
        y=y,
        flux=np.array(stars["flux"], float),
        column=column,
        row=row,
        value=stamps(image, column, row, half).reshape(flat).astype(float) - local,
        variance=stamps(noise, column, row, half, 1.0).reshape(flat).astype(float) ** 2,
        usable=~stamps(bad, column, row, half, True).reshape(flat),
        u=u,
        v=v,
    )


def _solve(sample: _Stars, fwhm, shape, order, aperture) -> Psf:
    """Solve the weighted normal equations of all stars together."""
    basis = np.ascontiguousarray(np.moveaxis(functions(*sample.offsets(), fwhm), 0, -1))
    weight = sample.usable / (sample.variance + (FLOOR * np.maximum(sample.value, 0)) ** 2)
    scaled = basis * (weight * sample.flux[:, None])[..., None]
    gram = np.matmul(np.swapaxes(scaled * sample.flux[:, None, None], 1, 2), basis)
    right = np.einsum("spn,sp->sn", scaled, sample.value)
    terms = design(sample.x, sample.y, shape, order)
    n = terms.shape[1] * basis.shape[2]
    matrix = np.einsum("sa,sb,snm->anbm", terms, terms, gram, optimize=True).reshape(n, n)
    vector = np.einsum("sa,sn->an", terms, right).ravel()
    scale = np.sqrt(np.maximum(np.diag(matrix), 1e-30))
    matrix = matrix / scale / scale[:, None] + 1e-7 * np.eye(n)
    solution = np.linalg.solve(matrix, vector / scale) / scale
    return Psf(solution.reshape(terms.shape[1], -1), fwhm, tuple(shape), order, aperture)


def _recentre(sample: _Stars, psf: Psf) -> tuple[_Stars, np.ndarray]:
    """Fit flux, position and background of each star; return the stars and their reduced chi2."""
    fitted = _fit(sample, psf, with_background=True)
    moved = replace(
        sample,
        x=sample.x + np.clip(fitted.dx, -0.5, 0.5),
        y=sample.y + np.clip(fitted.dy, -0.5, 0.5),
        flux=np.where(fitted.flux > 0, fitted.flux, sample.flux),
        value=sample.value - fitted.level[:, None],
    )
    return moved, fitted.chi2


@dataclass(frozen=True)
class PsfFit:
    """Result of PSF photometry, one value a position; chi2 is reduced."""

    flux: np.ndarray
    fluxerr: np.ndarray
    dx: np.ndarray
    dy: np.ndarray
    level: np.ndarray
    chi2: np.ndarray


def _fit(sample: _Stars, psf: Psf, with_background=False, with_position=True, tolerance=FLOOR) -> PsfFit:
    """Linearised least squares of flux, shift and level for every stamp at once."""
    u, v = sample.offsets()
    model = psf.at(u, v, sample.x, sample.y)
    columns = [model]
    if with_position:
        step = 0.05
        columns.append((psf.at(u - step, v, sample.x, sample.y) - psf.at(u + step, v, sample.x, sample.y)) / (2 * step))
        columns.append((psf.at(u, v - step, sample.x, sample.y) - psf.at(u, v + step, sample.x, sample.y)) / (2 * step))
    if with_background:
        columns.append(np.ones_like(model))
    matrix = np.stack(columns, axis=-1)
    floor = FLOOR * np.abs(sample.flux[:, None] * model)
    weight = sample.usable / (sample.variance + floor**2)
    normal = np.matmul(np.swapaxes(matrix * weight[..., None], 1, 2), matrix)
    diagonal = np.maximum(np.einsum("sii->si", normal), 1e-30)
    normal = normal + np.eye(normal.shape[1]) * (1e-12 * diagonal)[:, None, :] + 1e-30 * np.eye(normal.shape[1])
    covariance = np.linalg.inv(normal)
    right = np.einsum("spn,sp->sn", matrix * weight[..., None], sample.value)
    solution = np.einsum("snm,sm->sn", covariance, right)
    residual = sample.value - np.einsum("spn,sn->sp", matrix, solution)
    freedom = np.maximum(sample.usable.sum(axis=1) - matrix.shape[2], 1)
    flux = solution[:, 0]
    own = model * weight
    error = np.sqrt(np.sum(own**2 * sample.variance, axis=1)) / np.maximum(np.sum(own * model, axis=1), 1e-30)
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
    first = _fit(sample, psf, with_position=False)
    again = replace(sample, flux=np.nan_to_num(first.flux))
    return _without_hidden(_fit(again, psf, with_position=False, tolerance=LIKENESS), sample, psf)


def fitted(image, sigma, bad, psf: Psf, x, y, half: int | None = None) -> tuple[PsfFit, np.ndarray, np.ndarray]:
    """PSF photometry with the position fitted too, from starting positions; returns the fit and the positions.

    Parameters as in `forced`. Positions move by at most one FWHM.
    """
    start_x, start_y = np.array(x, float), np.array(y, float)
    now_x, now_y = start_x.copy(), start_y.copy()
    for _ in range(3):
        sample = _difference_stamps(image, sigma, bad, psf, now_x, now_y, half)
        result = _fit(sample, psf)
        limit = 0.5
        now_x = np.clip(now_x + np.clip(result.dx, -limit, limit), start_x - psf.fwhm, start_x + psf.fwhm)
        now_y = np.clip(now_y + np.clip(result.dy, -limit, limit), start_y - psf.fwhm, start_y + psf.fwhm)
    final = forced(image, sigma, bad, psf, now_x, now_y, half)
    return final, now_x, now_y


def _difference_stamps(image, sigma, bad, psf, x, y, half) -> _Stars:
    x, y = np.atleast_1d(np.asarray(x, float)), np.atleast_1d(np.asarray(y, float))
    half = int(np.ceil(1.5 * psf.fwhm)) if half is None else half
    column, row = np.rint(x).astype(int), np.rint(y).astype(int)
    v, u = (line.ravel().astype(float) for line in np.mgrid[-half : half + 1, -half : half + 1])
    flat = (len(x), -1)
    return _Stars(
        x=x,
        y=y,
        flux=np.zeros(len(x)),
        column=column,
        row=row,
        value=stamps(image, column, row, half).reshape(flat).astype(float),
        variance=np.maximum(stamps(sigma, column, row, half, 1.0).reshape(flat).astype(float) ** 2, 1e-30),
        usable=~stamps(bad, column, row, half, True).reshape(flat),
        u=u,
        v=v,
    )


def _without_hidden(result: PsfFit, sample: _Stars, psf: Psf) -> PsfFit:
    model = np.abs(psf.at(*sample.offsets(), sample.x, sample.y))
    share = np.sum(model * sample.usable, axis=1) / np.maximum(model.sum(axis=1), 1e-30)
    hidden = share < MIN_SHARE
    return replace(
        result,
        flux=np.where(hidden, np.nan, result.flux),
        fluxerr=np.where(hidden, np.nan, result.fluxerr),
        chi2=np.where(hidden, np.nan, result.chi2),
    )
