"""The map of the background and of its noise."""

import numpy as np
import pytest
from astropy.io import fits
from scipy.spatial import cKDTree
from starfields import GAIN, SIGMA, gaussians, lattice, nearest, observe, run

from nightsift import parameters
from nightsift.image.background import background
from nightsift.inspect.blind import brightest
from nightsift.inspect.inspect import inspect


def test_background_map_follows_a_slope_and_the_noise():
    shape = (512, 512)
    v, u = np.indices(shape)
    truth = 300 + 0.05 * u
    sigma = np.where(v < 256, 5.0, 15.0)
    data = (truth + np.random.default_rng(38).normal(0, 1, shape) * sigma).astype(np.float32)
    bad = np.zeros(shape, bool)
    bad[70:110], data[70:110] = True, 1e6
    result = background(data, bad, 64)
    inner = np.s_[40:-40, 40:-40]
    assert np.abs(result.level - truth)[inner].max() < 2.5
    assert np.median(result.noise[40:160]) == pytest.approx(5, rel=0.05)
    assert np.median(result.noise[-160:-40]) == pytest.approx(15, rel=0.05)
    assert result.level.dtype == result.noise.dtype == np.float32


def test_background_of_an_image_smaller_than_a_cell():
    data = np.random.default_rng(39).normal(50, 4, (30, 90)).astype(np.float32)
    result = background(data, np.zeros(data.shape, bool), 64)
    assert result.level.mean() == pytest.approx(50, abs=0.5)
    assert result.noise.mean() == pytest.approx(4, rel=0.1)


SLOPES = [(0, 0), (1, 0), (2, 0), (4, 0), (-4, 0), (0, 4), (3, 3), (-2, 2)]


def sloping(across, down):
    """Return stars on a sky of slopes in ADU a pixel and a noise of 26 ADU, all but the slopes the same."""
    rng, shape = np.random.default_rng(61), (520, 500)
    x, y = lattice(rng, shape, 50)
    light = gaussians(shape, x, y, 10 ** rng.uniform(3.3, 4.8, len(x)), 3.0)
    v, u = np.indices(shape)
    truth = 600 + across * u + down * v + max(0, -across) * shape[1] + max(0, -down) * shape[0]
    return (truth + light + rng.normal(0, 26, shape)).astype(np.float32), truth


@pytest.mark.parametrize("slopes", SLOPES)
def test_a_slope_is_no_noise(slopes):
    data, truth = sloping(*slopes)
    result = background(data, np.zeros(data.shape, bool), 64)
    assert np.median(result.noise) == pytest.approx(26, rel=0.03)
    # The corners, where the map rests on the fewest cells, belong to it.
    assert result.noise.max() < 1.1 * 26
    assert np.abs(result.level - truth).max() < 13
    assert np.median(result.level - truth) == pytest.approx(0, abs=2)


@pytest.mark.parametrize("slopes", SLOPES)
def test_errors_are_the_same_on_a_slope(slopes):
    flat, steep = (run(sloping(*each)[0], gain=None).objects for each in ((0, 0), slopes))
    mate, distance = nearest(steep, flat["x"], flat["y"])
    bright = (flat["snr"] > 10) & (distance < 0.5)
    assert bright.sum() >= 0.98 * np.sum(flat["snr"] > 10)
    assert np.median(steep["fluxerr"][mate][bright] / flat["fluxerr"][bright]) == pytest.approx(1, abs=0.03)
    assert len(steep) >= 0.97 * len(flat)


def clouds(shape, seed, index=4.0, finest=8.0):
    """Return structure with a power law as its spectrum, and none finer than some pixels, between 0 and 1."""
    rng = np.random.default_rng(seed)
    k = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1]))
    k[0, 0] = np.inf
    field = np.fft.rfft2(rng.normal(size=shape)) * k ** (-index / 2)
    k[0, 0] = 0
    field = np.fft.irfft2(field * np.exp(-((np.pi * finest * k) ** 2) / 2), shape)
    return (field - field.min()) / np.ptp(field)


@pytest.mark.parametrize(("brightest", "step"), [(0, 40), (1000, 40), (10000, 40), (30000, 60)])
def test_stars_within_a_nebula_keep_their_width(brightest, step):
    rng, shape = np.random.default_rng(62), (600, 600)
    x, y = lattice(rng, shape, step)
    light = gaussians(shape, x, y, 10 ** rng.uniform(3.5, 5.3, len(x)), 3.2)
    found = run(observe(light + brightest * clouds(shape, 63), 64))
    assert found.seeing.fwhm == pytest.approx(3.3, rel=0.03)
    assert found.seeing.n_stars > 0.3 * len(x)
    looked = inspect(
        observe(light + brightest * clouds(shape, 63), 64), fits.Header({"GAIN": GAIN}), parameters.InspectConfig()
    )
    assert looked.fwhm == pytest.approx(3.2, rel=0.1)


def test_cells_shrink_for_clouds_only():
    rng, shape = np.random.default_rng(65), (512, 512)
    bad, sky = np.zeros(shape, bool), np.sqrt(1 + 1000 * clouds(shape, 66, finest=16) / SIGMA**2)
    cloudy = observe(1000 * clouds(shape, 66, finest=16), 67)
    assert np.median(background(cloudy, bad, 64).noise) == pytest.approx(SIGMA * np.median(sky), rel=0.3)
    # Stars everywhere scatter as much, and smaller cells would take their light for background.
    x, y = rng.uniform(0, 511, (2, 8000))
    crowd = observe(gaussians(shape, x, y, 10 ** rng.uniform(2, 4.5, 8000), 3.0), 68)
    first, second = (background(crowd, bad, mesh) for mesh in (64, 32))
    assert np.std(first.level) < 0.8 * np.std(second.level)


@pytest.mark.parametrize("slopes", [(4, 0), (3, 3)])
def test_stars_for_a_blind_search_are_the_same_on_a_slope(slopes):
    flat, steep = (
        np.transpose(brightest(data, np.zeros(data.shape, np.uint16)))
        for data in (sloping(0, 0)[0], sloping(*slopes)[0])
    )
    assert abs(len(flat) - len(steep)) <= 2
    assert cKDTree(steep[:, :2]).query(flat[:40, :2])[0].max() < 0.3
