"""Noise that was resampled or smoothed: how it is correlated, and that every error knows of it."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from pairs import GAIN, PARAMS, SKY, moffat, pair, quiet
from scipy import ndimage
from scipy.signal import convolve2d
from scipy.spatial import cKDTree
from scipy.stats import poisson
from workflows import ROOT

from nightsift import parameters
from nightsift.detect.detect import detect
from nightsift.flags import Mask
from nightsift.image.background import background
from nightsift.image.correlation import WHITE, disc, factor, moved, noise_correlation
from nightsift.image.padding import PAD
from nightsift.psf.psf import psf
from nightsift.simulate.pixels import render_points
from nightsift.subtract.difference import Exposure, Reference
from nightsift.subtract.matched_filter import MatchedFilter, Noise
from nightsift.subtract.subtract import subtract
from nightsift.template.alignment import Target, TemplateImage, align
from nightsift.transients.transients import Search, peaks, transients

SIZE = 512


def delta(side=13):
    image = np.zeros((side, side))
    image[side // 2, side // 2] = 1
    return image


def shifted(image):
    """By half a pixel on both axes, between the nearest pixels."""
    return ndimage.shift(image, 0.5, order=1, mode="nearest")


def stretched(image):
    """By half a pixel along the rows alone."""
    return ndimage.shift(image, (0, 0.5), order=1, mode="nearest")


def smoothed(sigma):
    return lambda image: ndimage.gaussian_filter(image, sigma)


DONE = {
    "smoothed by 0.5": smoothed(0.5),
    "smoothed by 0.7": smoothed(0.7),
    "smoothed by 1.0": smoothed(1.0),
    "shifted": shifted,
    "along the rows": stretched,
}


def truth(done):
    """Autocorrelation of white noise after that."""
    kernel = done(delta())
    result = convolve2d(kernel, kernel[::-1, ::-1])
    return result / result.max()


@cache
def stars():
    """Places and fluxes of stars, none below 8 sigma or so."""
    rng = np.random.default_rng(1)
    side = np.arange(30, SIZE - 20, 36.0)
    x, y = (part.ravel() + rng.uniform(-5, 5, part.size) for part in np.meshgrid(side, side))
    return x, y, 60 * np.sqrt(SKY / GAIN) * rng.uniform(0.02, 1, x.size) ** -1


@cache
def light(fwhm):
    image = np.zeros((SIZE, SIZE), np.float32)
    x, y, flux = stars()
    render_points(image, x, y, flux, moffat(fwhm), 0.1)
    return image


def noisy(fwhm, seed):
    return np.random.default_rng(seed).poisson((light(fwhm) + SKY) * GAIN) / GAIN


def blocks(seed):
    """Drizzled without interpolation: four pixels for each."""
    half = light(3.0).reshape(SIZE // 2, 2, SIZE // 2, 2).mean(axis=(1, 3))
    few = np.random.default_rng(seed).poisson((half + SKY) * 4 * GAIN) / (4 * GAIN)
    return np.kron(few, np.ones((2, 2))), np.kron(half, np.ones((2, 2)))


def made(name, fwhm=3.0, seed=1):
    """Return an image and what it is without noise."""
    if name == "blocks":
        image, clean = blocks(seed)
    else:
        done = DONE.get(name, lambda image: image)
        image, clean = done(noisy(fwhm, seed)), done(light(fwhm).astype(float))
    return image.astype(np.float32), clean


def measured(image, fwhm=3.5):
    bad = np.zeros(image.shape, bool)
    sky = background(image.astype(np.float32), bad, 64)
    return noise_correlation(image - sky.level, sky.noise, bad, fwhm)


@pytest.mark.parametrize("fwhm", [2.0, 3.0, 5.0])
@pytest.mark.parametrize("name", DONE)
def test_the_correlation_is_that_of_what_was_done(name, fwhm):
    true = truth(DONE[name])
    wide = np.hypot(1.2 * fwhm, 2.3548 if name == "smoothed by 1.0" else 1.4)
    found = measured(made(name, fwhm)[0], wide)
    for radius in (wide, 3.0):
        assert factor(disc(radius), found) == pytest.approx(factor(disc(radius), true), rel=0.1)
    assert np.sqrt(found.sum()) == pytest.approx(np.sqrt(true.sum()), rel=0.13)


@pytest.mark.parametrize("fwhm", [1.5, 2.0, 3.0, 5.0])
def test_white_noise_stays_white(fwhm):
    for seed in range(3):
        assert measured(noisy(fwhm, seed), 1.15 * fwhm) is WHITE
    for size in (100, 200, 1500):
        assert measured(np.random.default_rng(size).normal(0, 3, (size, size)), fwhm) is WHITE


def test_unresolved_light_is_not_taken_for_smoothed_noise():
    """Stars too faint to be seen, as many as make a fifth of the pixels' variance."""
    rng = np.random.default_rng(4)
    image = np.zeros((SIZE, SIZE), np.float32)
    render_points(image, *rng.uniform(0, SIZE, (2, 20000)), rng.uniform(0, 190, 20000), moffat(3.0), 0.1)
    assert image.var() > 0.2 * SKY / GAIN
    noise = rng.normal(0, np.sqrt(SKY / GAIN), image.shape)
    assert measured(image + noise, 3.5) is WHITE
    # Smoothing takes much from the noise and little from the light: what counts is the noise in an aperture.
    true = factor(disc(3.5), truth(smoothed(0.6))) * ndimage.gaussian_filter(noise, 0.6).std()
    both = ndimage.gaussian_filter(image + noise, 0.6)
    assert factor(disc(3.5), measured(both, 3.8)) * both.std() == pytest.approx(true, rel=0.12)


REAL = ROOT.parent / "shared" / "data" / "real" / "crowded"


@pytest.mark.skipif(not REAL.is_dir(), reason="the real frames ../shared/data/real are not here")
@pytest.mark.parametrize("frame", ["frame001", "frame067", "frame118", "template"])
def test_a_crowded_field_says_nothing_of_its_noise(frame):
    """Stars not seen are alike in neighbours, too; the template's width is known from the image alone."""
    data = fits.getdata(REAL / f"{frame}.fits").astype(np.float32)
    for fwhm in (3.9, 6.4):
        assert measured(data, fwhm) is WHITE


def test_a_correlation_on_other_pixels_keeps_its_sum():
    true = truth(smoothed(1.0))
    turned = moved(true, [[0, -0.5], [0.5, 0]])
    assert turned.sum() == pytest.approx(true.sum())
    assert len(turned) < len(true)
    along = moved(truth(stretched), [[0, -1], [1, 0]])
    middle = len(along) // 2
    assert along[middle + 1, middle] == pytest.approx(0.5, abs=0.01)
    assert along[middle, middle + 1] == pytest.approx(0, abs=0.01)


NAMES = ["white", "smoothed by 0.5", "smoothed by 1.0", "shifted", "blocks"]


def half_width(values):
    low, high = np.percentile(values, [15.865, 84.135])
    return (high - low) / 2


def apertures(image, x, y, radius):
    """Sums within a circle less the local background, pixel by pixel."""
    v, u = np.indices(image.shape)
    result = []
    for column, row in zip(x, y, strict=True):
        near = np.hypot(u - column, v - row)
        inner, ring = near < radius, (near > 5 * radius) & (near < 7 * radius)
        result.append(image[inner].sum() - inner.sum() * image[ring].mean())
    return np.array(result)


@pytest.mark.parametrize("name", NAMES)
def test_aperture_fluxes_have_honest_errors(name):
    pull = []
    for seed in (1, 2, 3):
        image, clean = made(name, seed=seed)
        found = detect(image, np.zeros(image.shape, np.uint16), GAIN, parameters.DetectConfig())
        faint = found.objects[np.asarray(found.objects["snr"]) < 60]
        sums = apertures(image - SKY - clean, faint["x"], faint["y"], found.aperture)
        pull.append(sums / faint["fluxerr"])
    assert 0.9 < half_width(np.concatenate(pull)) < 1.1


@pytest.mark.parametrize("name", NAMES[:4])
def test_psf_fluxes_have_honest_errors(name):
    pull, chi2, true = [], [], stars()
    shift = {"shifted": 0.5}.get(name, 0.0)
    places = cKDTree(np.column_stack(true[:2]) + shift)
    for seed in (1, 2, 3, 4):
        image, _ = made(name, seed=seed)
        clear = np.zeros(image.shape, np.uint16)
        found = detect(image, clear, GAIN, parameters.DetectConfig())
        about = found.objects, found.seeing, found.aperture, parameters.PsfConfig(), ()
        table = psf(image, clear, GAIN, *about, *([] if name == "white" else [found.correlation])).table
        off, star = places.query(np.column_stack([found.objects["x"], found.objects["y"]]))
        snr, flux = np.asarray(found.objects["snr"]), true[2][star]
        scale = np.median((table["psf_flux"] / flux)[snr > 60])
        faint = (off < 2) & (snr < 40)
        pull.append(((table["psf_flux"] - scale * flux) / table["psf_fluxerr"])[faint])
        chi2.append(table["psf_chi2"][faint])
    assert 0.88 < half_width(np.concatenate(pull)) < 1.12
    # What is alike in neighbours is the more easily fitted.
    assert 0.65 < np.median(np.concatenate(chi2)) < 1.2


@pytest.mark.parametrize("name", NAMES)
def test_the_noise_is_not_taken_for_objects(name):
    """There are 169 stars, all of them plain."""
    image, _ = made(name)
    found = detect(image, np.zeros(image.shape, np.uint16), GAIN, parameters.DetectConfig())
    assert 160 < len(found.objects) < 173


def pairs(name, which, method="alard-lupton", seed=1):
    """A pair of which the image, the template or both were smoothed."""
    one, done = pair(3.2, 2.9, seed, template_noise=0.8, number=0), DONE[name]
    image = done(one.exposure.data.astype(float)) if which != "template" else one.exposure.data
    data = done(one.reference.data.astype(float)) if which != "image" else one.reference.data
    image, data = image.astype(np.float32), data.astype(np.float32)
    found = detect(image, one.exposure.mask, GAIN, parameters.DetectConfig())
    correlation = measured(data, 3.2)
    noise = one.reference.noise / np.sqrt(correlation.sum())
    exposure = Exposure(image, one.exposure.mask, GAIN, found.seeing.fwhm, found.aperture, found.correlation)
    reference = Reference(data, noise.astype(np.float32), one.reference.mask, correlation)
    return subtract(exposure, reference, found.objects, replace(PARAMS, method=method)), found.objects


CASES = [(name, which, "alard-lupton") for name in DONE for which in ("image", "template", "both")]
CASES += [("smoothed by 0.7", which, "zogy") for which in ("image", "template", "both")]


@pytest.mark.parametrize(("name", "which", "method"), CASES)
def test_differences_know_of_it(name, which, method):
    found, objects = pairs(name, which, method)
    assert 0.9 < found.facts["noise_scale"] < 1.1
    assert 0.95 < half_width(quiet(found)) < 1.05
    # of 400 places, good to 3.5 per cent; a smoothed template has errors that are up to a tenth too large
    assert 0.82 < found.facts["sky_sigma"] < 1.15
    search = Search.of(found, np.zeros(found.mask.shape, bool))
    assert len(peaks(np.where(found.mask == 0, found.snr, 0), 5.0, found.psf.fwhm)[0]) <= poisson.ppf(0.999, 0.05)
    table = transients(search, objects, parameters.TransientsConfig()).candidates
    # A proper subtraction knows less of stars that the border cuts.
    inner = (np.abs(table["x"] - 192) < 180) & (np.abs(table["y"] - 192) < 180)
    assert not np.any(table["is_real"][inner])


@pytest.mark.parametrize("name", DONE)
def test_the_matched_filter_knows_of_it(name):
    rng, true = np.random.default_rng(2), truth(DONE[name])
    psf = moffat_stamp()
    kernel = ndimage.gaussian_filter(delta(), 0.8)
    white, before = (DONE[name](rng.normal(0, 1, (600, 600))) for _ in range(2))
    unit = np.sqrt(1 / np.sum(DONE[name](delta()) ** 2))
    difference = (white + convolve2d(before, kernel, "same")) * unit
    ones = np.ones(difference.shape, np.float32)
    noise = Noise(ones, ones, kernel, ())
    filtered = MatchedFilter(psf, kernel, difference.shape, true, true)
    snr = filtered(difference, ones > 0, 2 * ones, noise).snr
    assert snr[30:-30, 30:-30].std() == pytest.approx(1, abs=0.03)


def moffat_stamp():
    image = np.zeros((15, 15), np.float32)
    render_points(image, np.array([7.0]), np.array([7.0]), np.array([1.0]), moffat(3.0), 0.1)
    return image.astype(float)


def tangential(scale, turn, size):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [30, 20], [size / 2, size / 2]
    cosine, sine = np.cos(turn) * scale / 3600, np.sin(turn) * scale / 3600
    wcs.wcs.cd = [[-cosine, sine], [sine, cosine]]
    return wcs


@pytest.mark.parametrize(("scale", "turn"), [(1.0, 0.0), (0.6, 0.5), (1.7, 2.0)])
@pytest.mark.parametrize("plane", [False, True])
def test_a_template_carries_it_onto_the_pixels_of_the_image(scale, turn, plane):
    """Of whatever scale, and whether its noise is its own or a plane's: that of wide sums is what it was."""
    rng = np.random.default_rng(3)
    size = int(760 / scale)
    data = shifted(rng.normal(0, 10, (size, size))).astype(np.float32)
    # As of a service that tells the noise of the pixels before they were resampled.
    noise = np.full(data.shape, 10, np.float32) if plane else None
    source = TemplateImage(data, np.zeros(data.shape, np.uint16), tangential(scale, turn, size), noise, 5.0)
    result = align(source, Target(tangential(1.0, 0.0, 400), (400, 400)), parameters.TemplateConfig())
    assert not (result.mask & int(Mask.NO_TEMPLATE)).any()
    wide = ndimage.gaussian_filter(result.data, 2.5)
    weights = ndimage.gaussian_filter(delta(41), 2.5)
    error = np.median(result.noise) * np.sqrt(np.sum(weights**2)) * factor(weights, result.correlation)
    assert half_width(wide[30:-30, 30:-30]) == pytest.approx(error, rel=0.1)


def test_objects_without_a_width_do_no_harm():
    rng, wcs = np.random.default_rng(3), tangential(1.0, 0.0, 300)
    source = TemplateImage(
        rng.normal(0, 10, (300, 300)).astype(np.float32), np.zeros((300, 300), np.uint16), wcs, None, 5.0
    )
    objects = Table({name: np.full(3, value) for name, value in (("fwhm", np.nan), ("x", 9.0), ("y", 9.0))})
    objects["flux"], objects["fluxerr"], objects["snr"], objects["flags"] = 1.0, 1.0, 1.0, 0
    assert align(source, Target(wcs, (250, 250), objects), parameters.TemplateConfig(max_shift=0)).correlation is WHITE


def test_the_photons_of_a_smoothed_template_are_counted_once():
    """Blobs, not stars: the noise at their tops is that of the light there."""
    rng, size = np.random.default_rng(3), 500
    tops = np.zeros((size, size))
    tops[70:-50:110, 70:-50:110] = 1
    profile = ndimage.gaussian_filter(tops, 8)
    expected = SKY + 3000 * profile / profile.max()
    data = shifted(rng.poisson(expected * GAIN) / GAIN).astype(np.float32)
    wcs = tangential(1.0, 0.0, size)
    source = TemplateImage(data, np.zeros(data.shape, np.uint16), wcs, None, GAIN)
    result = align(source, Target(wcs, (size, size)), parameters.TemplateConfig())
    row, column = np.nonzero(tops)
    found = result.noise[row + PAD, column + PAD]
    assert np.median(found) == pytest.approx(np.sqrt((SKY + 3000) / GAIN / 4), rel=0.1)
