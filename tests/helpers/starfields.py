"""Fields of simulated stars, and what detection makes of them."""

import numpy as np
from photutils.aperture import CircularAperture
from scipy.special import erf

from nightsift import parameters
from nightsift.detect.detect import detect

SKY, GAIN, READNOISE = 300.0, 1.5, 6.0
SIGMA = np.sqrt(SKY / GAIN + (READNOISE / GAIN) ** 2)
# Light of a Gaussian within a radius of one FWHM, the default aperture.
INSIDE = 1 - 2.0**-4
SIDE = 260


def gaussians(shape, x, y, flux, fwhm):
    """Return the light of pixel-integrated round Gaussians."""
    light = np.zeros(shape)
    x, y, flux, fwhm = (np.ravel(part).astype(float) for part in np.broadcast_arrays(x, y, flux, fwhm))
    half = int(np.ceil(4 * fwhm.max())) if len(fwhm) else 0
    for column, row, total, width in zip(x, y, flux, fwhm, strict=True):
        sigma, parts = width / 2.354820045, []
        for centre, size in ((row, shape[0]), (column, shape[1])):
            low, high = max(round(centre) - half, 0), min(round(centre) + half + 1, size)
            edges = (np.arange(low, high + 1) - 0.5 - centre) / (sigma * np.sqrt(2))
            parts.append((slice(low, high), np.diff(erf(edges)) / 2))
        light[parts[0][0], parts[1][0]] += total * np.outer(parts[0][1], parts[1][1])
    return light


def observe(light, seed, sky=SKY):
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, READNOISE / GAIN, light.shape)
    return (rng.poisson((light + sky) * GAIN) / GAIN + noise).astype(np.float32)


def run(data, mask=None, gain=GAIN, **options):
    mask = np.zeros(data.shape, np.uint16) if mask is None else mask
    return detect(data, mask, gain, parameters.DetectConfig(**options))


def flux_of(snr, fwhm, sigma=SIGMA, gain=GAIN):
    """Return the total flux of a star of an S/N within the aperture, sky and its own photons counted."""
    sky = np.pi * fwhm**2 * sigma**2
    snr = np.asarray(snr, float)
    return (snr**2 / gain + np.sqrt(snr**4 / gain**2 + 4 * snr**2 * sky)) / 2 / INSIDE


def in_aperture(light, x, y, radius):
    """Return what apertures hold of noiseless light: the light of the PSF within, pixels and all."""
    return CircularAperture(np.column_stack([x, y]), radius).do_photometry(light)[0]


def lattice(rng, shape, step, margin=20):
    """Return positions on a jittered lattice: isolated, at every phase of a pixel."""
    rows, columns = (np.arange(margin, size - margin, step) for size in shape)
    x, y = (part.ravel().astype(float) for part in np.meshgrid(columns, rows))
    return x + rng.uniform(-0.5, 0.5, len(x)), y + rng.uniform(-0.5, 0.5, len(y))


def nearest(objects, x, y):
    """Return the index of the object nearest to each position, and its distance."""
    distance = np.hypot(objects["x"] - np.reshape(x, (-1, 1)), objects["y"] - np.reshape(y, (-1, 1)))
    return np.argmin(distance, axis=1), np.min(distance, axis=1)


def the_one(result, x, y):
    """Return the only object within a pixel of a position."""
    near = np.hypot(result.objects["x"] - x, result.objects["y"] - y) < 1
    assert near.sum() == 1
    return result.objects[near][0]
