"""Differences with known sources and white noise, as the stage `subtract` would hand them on."""

from functools import cache

import numpy as np
from astropy.table import Table
from scipy import ndimage

from nightsift.image.moffat import MoffatPsf as Truth
from nightsift.psf.fit import fit_psf
from nightsift.simulate.pixels import render_points
from nightsift.subtract.difference import DifferenceQuality, Search
from nightsift.subtract.matched_filter import MatchedFilter, Noise
from nightsift.tables import empty

SIZE, NOISE, FWHM = 400, 10.0, 3.0
NO_OBJECTS = empty("objects")


def truth(fwhm=FWHM):
    return Truth(fwhm, 3.0, 0.05, 0.03, (0.0, 0.0, 0.0), (0.0, 0.0))


def lattice(seed, side=6, size=SIZE):
    """Places that keep a distance, with random parts of pixels."""
    rng = np.random.default_rng(seed)
    cell = (np.arange(side) + 0.5) * size / side
    return tuple(part.ravel() + rng.uniform(-8, 8, side**2) for part in np.meshgrid(cell, cell))


def rendered(x, y, flux, fwhm=FWHM, size=SIZE):
    image = np.zeros((size, size), np.float32)
    x, y = np.atleast_1d(x).astype(float), np.atleast_1d(y).astype(float)
    flux = np.broadcast_to(np.asarray(flux, float), x.shape)
    for sign in (1, -1):
        chosen = np.sign(flux) == sign
        part = np.zeros_like(image)
        render_points(part, x[chosen], y[chosen], np.abs(flux[chosen]), truth(fwhm), 0.1)
        image += sign * part
    return image


@cache
def psf_of(fwhm=FWHM):
    """The PSF of noiseless stars, with all their light as their flux."""
    x, y = lattice(1)
    stars = Table({"x": x, "y": y, "flux": np.full(x.size, 1e5), "snr": np.full(x.size, 300.0)})
    image = rendered(x, y, 1e5, fwhm)
    nothing = np.zeros(image.shape, bool)
    return fit_psf(image, np.full(image.shape, NOISE, np.float32), nothing, stars, fwhm, 4 * fwhm)


def unit_of(psf):
    """Flux of a source of S/N 1 without its own photons."""
    return NOISE / np.sqrt(np.sum(psf.stamp(SIZE / 2, SIZE / 2, int(np.ceil(1.5 * psf.fwhm))) ** 2))


def noise(seed, size=SIZE):
    return np.random.default_rng(seed).normal(0, NOISE, (size, size)).astype(np.float32)


def matched_filter(difference, usable, variance, noise, psf):
    return MatchedFilter(psf, noise.kernel, difference.shape)(difference, usable, variance, noise)


def search_of(difference, psf, model=None, mask=None, saturated=None, mismatch=0.01, gain=None):
    mask = np.zeros(difference.shape, np.uint16) if mask is None else mask
    model = np.zeros_like(difference) if model is None else model
    variance = np.full(difference.shape, NOISE**2, np.float32)
    nothing = np.zeros_like(variance)
    delta = np.zeros((5, 5))
    delta[2, 2] = 1
    about = Noise(variance, nothing, delta, (mismatch * ndimage.maximum_filter(model, 3),))
    stamp = psf.stamp(psf.shape[1] / 2, psf.shape[0] / 2, int(np.ceil(1.5 * psf.fwhm)))
    found = matched_filter(difference, mask == 0, variance, about, stamp)
    return Search(
        difference=difference,
        sigma=np.sqrt(variance),
        snr=found.snr,
        mask=mask,
        model=model,
        saturated=np.zeros(mask.shape, bool) if saturated is None else saturated,
        psf=psf,
        quality=DifferenceQuality(1.0, mismatch, mismatch),
        gain=gain,
    )


def nearest(table, x, y):
    """Index of the row nearest to each position, and its distance; infinite without rows."""
    if not len(table):
        return np.zeros(len(x), int), np.full(len(x), np.inf)
    across, up = np.asarray(table["x"]) - np.asarray(x)[:, None], np.asarray(table["y"]) - np.asarray(y)[:, None]
    distance = np.hypot(across, up)
    return distance.argmin(axis=1), distance.min(axis=1)
