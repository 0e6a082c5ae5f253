"""Pairs of an image and a template of which everything is known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
from astropy.table import Table
from photutils.aperture import CircularAperture
from scipy import ndimage
from scipy.spatial import cKDTree

from nightsift import parameters
from nightsift.detect.detect import detect
from nightsift.external.hotpants import hotpants_available, run_hotpants
from nightsift.image.moffat import MoffatPsf as Truth
from nightsift.image.moffat import psf_stamps
from nightsift.image.padding import PAD
from nightsift.simulate.pixels import render_points
from nightsift.subtract.difference import Difference, Exposure, Reference
from nightsift.subtract.subtract import subtract

SIZE, SKY, GAIN = 384, 400.0, 4.0
NOISE = np.sqrt(SKY / GAIN)
FRAME = SIZE + 2 * PAD
PARAMS = parameters.SubtractConfig()


@dataclass(frozen=True)
class Pair:
    """An image, its template, its objects, and the transients in it: total fluxes and those in the aperture."""

    exposure: Exposure
    reference: Reference
    objects: Table
    x: np.ndarray
    y: np.ndarray
    flux: np.ndarray


def moffat(fwhm, turn=1.0):
    """A profile, on the framed image, that changes by some per cent over it."""
    return Truth(fwhm, 3.0, 0.05 * turn, 0.03, (0.015, 0.01, 0.005), (0.02 * turn, 0.01))


def light(fwhm, radius):
    """Share of the light in an aperture, averaged over the positions in a pixel."""
    steps = (np.arange(4) + 0.5) / 4 - 0.5
    x, y = (FRAME // 2 + part.ravel() for part in np.meshgrid(steps, steps))
    stamps, column, row = psf_stamps(moffat(fwhm), x, y, (FRAME, FRAME), 20)
    circles = CircularAperture(np.column_stack([x - column + 20, y - row + 20]), radius)
    return np.mean([circle.do_photometry(stamp)[0][0] for stamp, circle in zip(stamps, circles, strict=True)])


def stars(rng, number):
    """Positions on the frame and fluxes of stars: a few bright ones, many faint ones."""
    x, y = rng.uniform(0, FRAME, (2, number))
    return x, y, 700 * rng.uniform(0.003, 1, number) ** -1.0


def between(rng, x, y, number):
    """Positions within the image, away from the stars and from one another."""
    found = np.zeros((0, 2))
    while len(found) < number:
        place = rng.uniform(15, SIZE - 15, 2)
        near = np.hypot(*(np.array([x, y]).T - PAD - place).T) < 10
        if not near.any() and not (np.hypot(*(found - place).T) < 16).any():
            found = np.vstack([found, place])
    return found.T


def significant(fwhm, snr, template_noise):
    """Total flux of a star of that S/N in the difference, roughly."""
    return snr * NOISE * np.hypot(1, template_noise) * np.sqrt(4 * np.pi) * fwhm / 2.3548 * 1.25


@cache
def pair(fwhm, template_fwhm, seed=1, template_noise=0.4, scale=1.7, snr=(10, 100), number=50, places=None, share=0.05):
    """Simulate a pair; the template's pixels count `scale` of the image's flux, its noise is relative to the image's.

    Half of the transients have faded. `places` are positions of transients instead of random ones. There are more of
    them than on any sky: among the objects, which the kernel is fitted to, new ones are left as a `share` alone.
    """
    rng = np.random.default_rng(seed)
    x, y, flux = stars(rng, 160)
    if places is None:
        tx, ty = between(rng, x, y, number)
    else:
        tx, ty = np.array(places, float).T
    size = np.exp(rng.uniform(*np.log(snr), tx.size))
    size = significant(fwhm, size, template_noise * max(1, fwhm / 6)) * np.where(np.arange(tx.size) % 2, -1, 1)
    image, template = np.zeros((2, FRAME, FRAME), np.float32)
    render_points(image, x, y, flux, moffat(fwhm), 0.1)
    render_points(template, x, y, scale * flux, moffat(template_fwhm, -1), 0.1)
    new = size > 0
    render_points(image, tx[new] + PAD, ty[new] + PAD, size[new], moffat(fwhm), 0.1)
    render_points(template, tx[~new] + PAD, ty[~new] + PAD, -scale * size[~new], moffat(template_fwhm, -1), 0.1)
    image = rng.poisson((image[PAD:-PAD, PAD:-PAD] + SKY) * GAIN) / GAIN
    # As many photons as make the noise wanted: the template is deeper.
    variance = (scale * template_noise * NOISE) ** 2
    sigma = np.sqrt(variance + template * scale * template_noise**2 / GAIN)
    template = template + rng.normal(size=template.shape) * sigma
    mask = np.zeros(image.shape, np.uint16)
    found = detect(image.astype(np.float32), mask, GAIN, parameters.DetectConfig())
    exposure = Exposure(image.astype(np.float32), mask, GAIN, found.seeing.fwhm, found.aperture)
    clear = np.zeros(template.shape, np.uint16)
    reference = Reference(template.astype(np.float32), sigma.astype(np.float32), clear)
    distance, _ = cKDTree(np.column_stack([tx[new], ty[new]])).query(
        np.column_stack([found.objects["x"], found.objects["y"]])
    )
    transient = distance < 2
    kept = ~transient | (np.cumsum(transient) <= share * len(transient))
    return Pair(exposure, reference, found.objects[kept], tx, ty, size * light(fwhm, found.aperture))


@cache
def difference(*arguments, method="alard-lupton", **options) -> Difference:
    return differenced(pair(*arguments, **options), method)


def quiet(found):
    """S/N of the pixels where nothing but sky is; smoothed, for the model itself holds the template's noise."""
    return found.snr[(found.mask == 0) & (ndimage.gaussian_filter(found.model, 3) < 0.5 * found.sigma)]


CASES = {"template sharper": (3.6, 2.6), "template broader": (2.6, 3.6), "about equal": (3.0, 3.05)}


def differenced(made, method="alard-lupton", **options):
    """Subtract by a method; skip the test if its program is not installed."""
    if method == "hotpants" and not hotpants_available():
        pytest.skip("the program hotpants is not installed")
    params = replace(PARAMS, method=method, **options)
    return subtract(made.exposure, made.reference, made.objects, params, run_hotpants)
