"""Pixels of simulated images: profiles of stars and galaxies, and what a detector adds to them."""

from __future__ import annotations

import numpy as np
from astropy.table import Table
from scipy.special import gamma, kv

from nightsift.image.moffat import MoffatPsf, psf_stamps


def _add_stamps(image, stamps, ix, iy):
    half = stamps.shape[1] // 2
    height, width = image.shape
    for stamp, cx, cy in zip(stamps, ix, iy, strict=True):
        x0, x1 = max(cx - half, 0), min(cx + half + 1, width)
        y0, y1 = max(cy - half, 0), min(cy + half + 1, height)
        if x0 < x1 and y0 < y1:
            image[y0:y1, x0:x1] += stamp[y0 - cy + half : y1 - cy + half, x0 - cx + half : x1 - cx + half]


def render_points(image, x, y, flux, psf: MoffatPsf, faintest: float):
    """Add point sources to an image in place, each out to where its wing falls below `faintest` ADU.

    The radius is at least 4 FWHM, so that the sources lose the same part of their light, 0.3 per cent or less.
    """
    alpha = psf.fwhm / (2 * np.sqrt(2 ** (1 / psf.beta) - 1))
    central = np.abs(flux) * (psf.beta - 1) / (np.pi * alpha**2)
    reach = alpha * np.sqrt(np.maximum((central / faintest) ** (1 / psf.beta) - 1, 0))
    reach = np.maximum(reach, 4 * psf.fwhm)
    step = np.ceil(4 * psf.fwhm)
    half = (np.ceil(reach / step) * step).astype(int)
    near = (x > -half) & (x < image.shape[1] + half) & (y > -half) & (y < image.shape[0] + half) & (flux != 0)
    for size in np.unique(half[near]):
        chosen = np.flatnonzero(near & (half == size))
        for part in np.array_split(chosen, 1 + chosen.size * (2 * size + 1) ** 2 // 1_000_000):
            stamps, ix, iy = psf_stamps(psf, x[part], y[part], image.shape, int(size))
            _add_stamps(image, stamps * flux[part, None, None].astype(np.float32), ix, iy)


def spergel_scale(nu: float) -> float:
    """Return the half-light radius of a Spergel profile in units of its scale (Spergel 2010, ApJS 191, 58, eq. 7)."""
    # Here, for the stage detect needs nothing of galaxies.
    from scipy.optimize import brentq

    def excess(u):
        return 2 * (1 + nu) * (u / 2) ** (nu + 1) * kv(nu + 1, u) / gamma(nu + 2) - 0.5

    return brentq(excess, 1e-3, 10)


def render_galaxies(image, x, y, flux, galaxies: Table, psf: MoffatPsf, jacobian):
    """Add galaxies to an image in place, convolved with the PSF where they stand.

    `galaxies` has the half-light radius ``r50`` and `jacobian` (2 x 2, from x, y to east, north) the same angular unit;
    ``nu`` is the profile's index, ``q`` the axis ratio, ``pa`` the position angle in degrees.

    Spergel profiles have the shape of Sersic's (nu = 0.5 is the exponential disc, -0.6 about de Vaucouleurs') and an
    analytic Fourier transform, (1 + k^2 c^2)^-(1 + nu) (Spergel 2010, ApJS 191, 58, eq. 2). So has Moffat's profile,
    and the product holds PSF, subpixel position and pixel integration exactly.
    """
    order = psf.beta - 1
    knots = np.concatenate([[1e-6], np.linspace(0.01, 40, 4000)])
    moffat = 2 / gamma(order) * (knots / 2) ** order * kv(order, knots)
    scales = {nu: spergel_scale(nu) for nu in np.unique(galaxies["nu"])}
    widths = psf.covariance(x, y, image.shape)
    for i in np.flatnonzero(flux > 0):
        reach = 9 * galaxies["r50"][i] / np.sqrt(abs(np.linalg.det(jacobian))) + 6 * psf.fwhm
        side = 64 if reach < 32 else 128 if reach < 64 else 256
        if not (-side / 2 < x[i] < image.shape[1] + side / 2 and -side / 2 < y[i] < image.shape[0] + side / 2):
            continue
        kx, ky = 2 * np.pi * np.fft.rfftfreq(side)[None, :], 2 * np.pi * np.fft.fftfreq(side)[:, None]
        blur = np.interp(
            np.sqrt(np.maximum(widths[0][i] * kx**2 + 2 * widths[1][i] * kx * ky + widths[2][i] * ky**2, 0)),
            knots,
            moffat,
        )
        to_sky = np.linalg.inv(jacobian).T
        k_east, k_north = to_sky[0, 0] * kx + to_sky[0, 1] * ky, to_sky[1, 0] * kx + to_sky[1, 1] * ky
        angle, ratio = np.radians(galaxies["pa"][i]), np.sqrt(galaxies["q"][i])
        along = (k_east * np.sin(angle) + k_north * np.cos(angle)) / ratio
        across = (k_east * np.cos(angle) - k_north * np.sin(angle)) * ratio
        size = galaxies["r50"][i] / scales[galaxies["nu"][i]]
        profile = blur * (1 + (along**2 + across**2) * size**2) ** (-1 - galaxies["nu"][i])
        profile = profile * np.sinc(kx / (2 * np.pi)) * np.sinc(ky / (2 * np.pi))
        cx, cy = int(np.rint(x[i])), int(np.rint(y[i]))
        shift = np.exp(-1j * (kx * (x[i] - cx + side // 2) + ky * (y[i] - cy + side // 2)))
        stamp = np.fft.irfft2(profile * shift, s=(side, side))[1:, 1:]
        _add_stamps(image, flux[i] * stamp[None], [cx], [cy])


def bleed(image, full: float):
    """Let what exceeds the full well run along the columns, in place, and return what is at the full well (bool)."""
    height = image.shape[0]
    for column in np.flatnonzero((image > full).any(axis=0)):
        values = image[:, column]
        over = np.flatnonzero(values > full)
        for run in np.split(over, np.flatnonzero(np.diff(over) > 1) + 1):
            excess = (values[run] - full).sum()
            values[run] = full
            low, high, up = run[0] - 1, run[-1] + 1, True
            while excess > 0 and (low >= 0 or high < height):
                up = high < height and (up or low < 0)
                row = high if up else low
                taken = min(excess, max(full - values[row], 0))
                values[row] += taken
                excess -= taken
                high, low, up = high + up, low - (not up), not up
    return image >= full


def cosmic_rays(rng, shape, count: int):
    """Return the charge (electrons, float32 image) of cosmic rays: tracks of one to some tens of pixels."""
    charge = np.zeros(shape, np.float32)
    for _ in range(rng.poisson(count * shape[0] * shape[1] / 2**20)):
        length, angle = rng.exponential(7), rng.uniform(0, 2 * np.pi)
        steps = np.arange(0, min(length, 40), 0.1)
        x = np.rint(rng.uniform(0, shape[1]) + steps * np.cos(angle)).astype(int)
        y = np.rint(rng.uniform(0, shape[0]) + steps * np.sin(angle)).astype(int)
        inside = (x >= 0) & (x < shape[1]) & (y >= 0) & (y < shape[0])
        deposit = 10 ** rng.uniform(2.7, 4) * 0.1 * rng.uniform(0.5, 1.5, steps.size)
        np.add.at(charge, (y[inside], x[inside]), deposit[inside])
    return charge


def trail(rng, shape, width: float):
    """Return the profile, 1 on its ridge, of a satellite's trail across an image; `width` is its FWHM in pixels."""
    angle, offset = rng.uniform(0.2, 1.3), rng.uniform(-0.3, 0.3, 2) * np.array(shape)
    y, x = np.indices(shape, dtype=np.float32)
    distance = (x - shape[1] / 2 - offset[1]) * np.sin(angle) - (y - shape[0] / 2 - offset[0]) * np.cos(angle)
    return np.exp(-4 * np.log(2) * (distance / width) ** 2).astype(np.float32)


def bad_columns(rng, shape):
    """Return for some half and whole columns the slice that is bad, and whether it is hot (else dead)."""
    out = []
    for column in rng.choice(shape[1], 4, replace=False):
        start = int(rng.integers(0, shape[0] // 2)) if rng.random() < 0.5 else 0
        out.append((slice(start, None), int(column), bool(rng.random() < 0.5)))
    return out
