"""Images of point sources whose fluxes are known."""

from __future__ import annotations

import numpy as np
from astropy.table import Table
from photutils.aperture import CircularAperture

from nightsift.image.moffat import MoffatPsf as Truth
from nightsift.image.moffat import psf_stamps
from nightsift.image.polynomial import design
from nightsift.psf.fit import fit_psf
from nightsift.simulate.pixels import render_points

SIZE, NOISE, GAIN = 400, 10.0, 2.0
GOOD = np.zeros((SIZE, SIZE), bool)


def moffat(fwhm, vary=1.0):
    """An elliptical profile that changes by 7 per cent in width from corner to corner, and twists."""
    scale = tuple(vary * part for part in (0.02, 0.015, 0.01))
    return Truth(fwhm, 3.0, 0.06, -0.04, scale, (0.03 * vary, 0.03 * vary))


def area(fwhm):
    """Pixels over which the noise counts for a PSF flux."""
    return 4 * np.pi * (fwhm / 2.3548) ** 2


def lattice(rng, side, jitter=0.3):
    cell = (np.arange(side) + 0.5) * SIZE / side
    x, y = (part.ravel() + rng.uniform(-jitter, jitter, side**2) * SIZE / side for part in np.meshgrid(cell, cell))
    return x, y


def field(truth, seed, side=10, snr=(60, 600), noise=NOISE):
    """Return an image, a function of noise, and its stars with positions known to 0.02 pixel, fluxes to 3 per cent."""
    rng = np.random.default_rng(seed)
    x, y = lattice(rng, side)
    flux = np.exp(rng.uniform(*np.log(snr), side**2)) * NOISE * np.sqrt(area(truth.fwhm))
    image = np.zeros((SIZE, SIZE), np.float32)
    render_points(image, x, y, flux, truth, 0.01)
    if noise:
        image = rng.poisson(image * GAIN) / GAIN + rng.normal(0, noise, image.shape)
    stars = Table({"x": x + rng.normal(0, 0.02, x.size), "y": y + rng.normal(0, 0.02, x.size)})
    stars["flux"] = flux * rng.normal(1, 0.03, flux.size)
    stars["snr"] = flux / (NOISE * np.sqrt(area(truth.fwhm)))
    stars["background"] = 0.0
    return image.astype(np.float32), stars


def fit(truth, image, stars, aperture=None, **options):
    sigma = np.full(image.shape, NOISE, np.float32)
    return fit_psf(image, sigma, GOOD, stars, truth.fwhm, aperture or truth.fwhm, **options)


def light_in_aperture(truth, x, y, radius):
    """Mean over the positions of the centre in a pixel of the light that falls into the aperture, at a place."""
    steps = (np.arange(4) + 0.5) / 4 - 0.5
    phase_x, phase_y = (part.ravel() for part in np.meshgrid(steps, steps))
    stamps, _, _ = psf_stamps(truth, np.rint(x) + phase_x, np.rint(y) + phase_y, (SIZE, SIZE), 20)
    circles = CircularAperture(np.column_stack([phase_x + 20, phase_y + 20]), radius)
    pairs = zip(stamps, circles, strict=True)
    return np.mean([circle.do_photometry(stamp)[0][0] for stamp, circle in pairs])


def light_at(truth, x, y, radius):
    """The same at many places, from a grid."""
    grid = [part.ravel() for part in np.meshgrid(np.linspace(0, SIZE - 1, 5), np.linspace(0, SIZE - 1, 5))]
    light = [light_in_aperture(truth, *place, radius) for place in zip(*grid, strict=True)]
    solution = np.linalg.lstsq(design(*grid, (SIZE, SIZE), 3), light, rcond=None)[0]
    return design(x, y, (SIZE, SIZE), 3) @ solution
