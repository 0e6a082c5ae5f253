"""Widths of stars, and the seeing over an image, against simulated truth."""

import numpy as np
import pytest
from starfields import SIDE, flux_of, gaussians, lattice, observe, run

from nightsift.image.seeing import centroids, seeing, star_width, widths


@pytest.mark.parametrize("fwhm", [2.0, 2.5, 3.0, 4.0, 6.0, 8.0])
@pytest.mark.parametrize("guess", [0.8, 1.0, 1.25])
def test_widths_of_gaussians(fwhm, guess):
    shape = (400, 400)
    x, y = lattice(np.random.default_rng(40), shape, 50, margin=40)
    measured = widths(gaussians(shape, x, y, 1e4, fwhm), x, y, guess * fwhm)
    # The pixel widens the star: its variance is 1/12.
    assert measured == pytest.approx(np.hypot(fwhm, 2.3548 / np.sqrt(12)), rel=0.03)
    if fwhm >= 3:
        assert np.median(measured) == pytest.approx(fwhm, rel=0.03)


@pytest.mark.parametrize("fwhm", [1.0, 1.2, 1.5, 1.8])
@pytest.mark.parametrize("guess", [1.2, 3.0])
def test_widths_of_undersampled_stars(fwhm, guess):
    shape = (300, 300)
    x, y = lattice(np.random.default_rng(44), shape, 15)
    light = gaussians(shape, x, y, 1e4, fwhm)
    found = np.array(centroids(light, np.rint(x), np.rint(y), guess))
    assert np.std(found - (x, y)) < 0.04
    measured = widths(light, *found, guess)
    truth = np.hypot(fwhm, 2.3548 / np.sqrt(12))
    assert np.median(measured) == pytest.approx(truth, rel=0.03)
    assert np.percentile(measured, [5, 95]) == pytest.approx(truth, rel=0.15)


def test_a_single_pixel_has_no_width():
    image = np.random.default_rng(45).normal(0, 1, (60, 60)).astype(np.float32)
    image[30, 25], image[20, 40] = 1e5, 1e3
    assert np.isnan(widths(image, np.array([25.0, 40.0]), np.array([30.0, 20.0]), 3.0)).all()


def test_widths_of_noise_are_no_numbers_or_small():
    image = -np.ones((60, 60), np.float32)
    image[:, 30:] = np.nan
    assert np.isnan(widths(image, np.array([45.0]), np.array([30.0]), 3.0)).all()


def test_widths_at_the_border_and_beside_masked_pixels():
    image = gaussians((80, 80), [2.0, 40.0], [40.0, 40.0], 1e4, 4.0)
    bad = np.zeros(image.shape, bool)
    bad[38, 40], image[38, 40] = True, 1e6
    measured = widths(image, np.array([2.0, 40.0]), np.array([40.0, 40.0]), 4.0, bad)
    assert measured == pytest.approx(4.06, rel=0.08)


def test_fwhm_map_is_recovered():
    shape, rng = (700, 700), np.random.default_rng(41)
    x, y = lattice(rng, shape, 32)
    u, v = 2 * x / 699 - 1, 2 * y / 699 - 1
    fwhm = 3.5 * (1 + 0.06 * u - 0.02 * v + 0.04 * (u**2 + v**2))
    snr = 10 ** rng.uniform(1, 2.7, len(x))
    result = run(observe(gaussians(shape, x, y, flux_of(snr, fwhm), fwhm), 42))
    assert result.seeing.order == 2
    truth = np.hypot(fwhm, 2.3548 / np.sqrt(12))
    assert np.abs(result.seeing.at(x, y) / truth - 1).max() < 0.015
    assert np.ptp(truth) / 3.5 > 0.1
    assert result.seeing.fwhm == pytest.approx(np.median(truth), rel=0.02)


def test_seeing_leaves_out_what_is_no_star():
    rng = np.random.default_rng(43)
    x, y = rng.uniform(0, 500, (2, 200))
    fwhm = rng.normal(3.0, 0.05, 200)
    fwhm[:40], fwhm[40:60], fwhm[60] = rng.uniform(3.6, 9, 40), rng.uniform(0.6, 2, 20), np.nan
    result = seeing(x, y, fwhm, np.ones(200, bool), (500, 500))
    assert result.fwhm == pytest.approx(3.0, abs=0.02)
    assert not result.stars[:61].any()
    assert result.n_stars == result.stars.sum() >= 130
    assert result.at(x, y) == pytest.approx(3.0, abs=0.06)


def test_seeing_of_few_and_of_none():
    few = seeing(np.array([5.0]), np.array([5.0]), np.array([3.3]), np.array([False]), (10, 10))
    assert (few.fwhm, few.order, few.n_stars) == (3.3, 0, 1)
    assert few.at([1, 9], [0, 4]) == pytest.approx(3.3)
    none = seeing(np.array([5.0]), np.array([5.0]), np.array([np.nan]), np.array([True]), (10, 10))
    assert np.isnan(none.fwhm)
    assert none.n_stars == 0


def test_few_stars_are_warned_of():
    result = run(observe(gaussians((SIDE, SIDE), [60, 180], [70, 170], [5e4, 3e4], 3.0), 44))
    assert result.warnings == (f"FWHM from {result.seeing.n_stars} stars only",)


@pytest.mark.parametrize("fwhm", [1.6, 3.0])
def test_hot_pixels_do_not_pass_for_stars(fwhm):
    shape, rng = (400, 400), np.random.default_rng(62)
    x, y = lattice(rng, shape, 60)
    data = observe(gaussians(shape, x, y, flux_of(rng.uniform(30, 300, len(x)), fwhm), fwhm), 63)
    spotless = run(data).seeing.fwhm
    # Single pixels, and pairs of which the second half is fainter, twice as many as stars.
    row, column = rng.integers(5, 395, (2, 2 * len(x)))
    height = 10 ** rng.uniform(2, 4, len(row))
    data[row, column] += height
    data[row[::3], column[::3] + 1] += 0.5 * height[::3]
    assert run(data).seeing.fwhm == pytest.approx(spotless, rel=0.02)


def test_star_width_is_that_of_the_narrowest_crowd():
    rng = np.random.default_rng(61)
    stars, galaxies = rng.normal(3.0, 0.1, 12), rng.uniform(4.5, 12.0, 120)
    assert star_width(np.concatenate([stars, galaxies])) == pytest.approx(3.0, abs=0.08)
    hits = np.array([1.2, 1.7])
    assert star_width(np.concatenate([hits, stars, galaxies])) == pytest.approx(3.0, abs=0.08)
    crowd = rng.normal(3.0, 0.15, 500)
    assert star_width(np.concatenate([rng.normal(2.0, 0.05, 40), crowd])) == pytest.approx(3.0, abs=0.05)
    assert star_width(np.array([4.0])) == 4.0
