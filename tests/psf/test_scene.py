"""PSF photometry of whole scenes against rendered stars, pairs and galaxies."""

from dataclasses import replace

import numpy as np
import pytest
from astropy.table import Table
from photutils.aperture import CircularAperture
from points import GAIN, GOOD, NOISE, SIZE, area, field, fit, lattice, light_at, moffat

from nightsift.psf.forced import forced
from nightsift.psf.scene import Layers, photometer, render
from nightsift.simulate.pixels import render_galaxies, render_points

SIGMA = np.full((SIZE, SIZE), NOISE, np.float32)


@pytest.fixture(scope="module")
def psfs():
    """PSFs of stars without noise, and the truth, by FWHM."""
    truths = {fwhm: moffat(fwhm) for fwhm in (2.0, 3.5, 5.0)}
    return {fwhm: (truth, fit(truth, *field(truth, 1, snr=(300, 300), noise=0))) for fwhm, truth in truths.items()}


def expose(rng, light, gain=GAIN):
    noisy = rng.poisson(np.maximum(light, 0) * gain) / gain if gain else light
    return (noisy + rng.normal(0, NOISE, light.shape)).astype(np.float32)


def rows(x, y, flux):
    zero = np.zeros(len(x))
    return Table({"x": x, "y": y, "flux": flux, "background": zero, "level_err": zero})


def stars(truth, psf, x, y, flux):
    """Light of stars that have such fluxes in the aperture."""
    light = np.zeros((SIZE, SIZE), np.float32)
    render_points(light, x, y, flux / light_at(truth, x, y, psf.aperture), truth, 0.001)
    return light


def measured(image, psf, objects, bad=GOOD, gain=GAIN):
    return photometer(Layers(image, SIGMA, bad, gain), psf, objects)


@pytest.mark.parametrize("fwhm", [2.0, 3.5, 5.0])
@pytest.mark.parametrize("snr", [5, 30, 500])
def test_fluxes_of_single_stars_are_unbiased_and_their_errors_honest(psfs, fwhm, snr):
    truth, psf = psfs[fwhm]
    pulls, ratios, spreads = [], [], []
    for seed in range(6):
        rng = np.random.default_rng([seed, snr])
        x, y = lattice(rng, 14 if fwhm < 5 else 10, 0.1)
        flux = np.full(x.size, snr * NOISE * np.sqrt(area(fwhm)))
        image = expose(rng, stars(truth, psf, x, y, flux))
        off = rng.normal(0, 0.3 * fwhm / snr, (2, x.size))
        found = measured(image, psf, rows(x + off[0], y + off[1], 1.1 * flux))
        pulls.append((found.flux - flux) / found.fluxerr)
        ratios.append(found.flux / flux)
        spreads.append(found.spread / found.spread_err)
    pulls, ratios, spreads = (np.concatenate(part) for part in (pulls, ratios, spreads))
    assert abs(pulls.mean()) < 0.1
    assert 0.95 < pulls.std() < 1.1
    assert abs(ratios.mean() - 1) < 0.005 + (0.01 if snr == 5 else 0)  # of which 0.008 is the mean's own error
    assert abs(spreads.mean()) < 0.3
    assert 0.9 < spreads.std() < 1.1


@pytest.mark.parametrize("ratio", [1.0, 0.3])
def test_pairs_are_taken_apart(psfs, ratio):
    truth, psf = psfs[3.5]
    rng = np.random.default_rng(3)
    x, y = lattice(rng, 10, 0.1)
    angle = rng.uniform(0, 2 * np.pi, x.size)
    x, y = np.append(x, x + 1.5 * 3.5 * np.cos(angle)), np.append(y, y + 1.5 * 3.5 * np.sin(angle))
    flux = np.repeat([1.0, ratio], 100) * 1000 * NOISE * np.sqrt(area(3.5))
    image = expose(rng, stars(truth, psf, x, y, flux))
    found = measured(image, psf, rows(x + rng.normal(0, 0.1, x.size), y + rng.normal(0, 0.1, x.size), 1.2 * flux))
    error = found.flux / flux - 1
    assert np.quantile(np.abs(error), 0.98) < 0.02
    assert abs(np.mean(error[:100])) < 0.005
    assert abs(np.mean(error[100:])) < 0.005
    assert np.std(error * flux / found.fluxerr) == pytest.approx(1.05, abs=0.2)
    assert np.hypot(found.x - x, found.y - y).max() < 0.1
    alone = forced(image, SIGMA, GOOD, psf, x, y).flux / flux - 1
    assert np.median(alone[100:]) > 0.04


def test_a_chain_of_stars_closer_than_their_width_is_taken_apart(psfs):
    truth, psf = psfs[3.5]
    rng = np.random.default_rng(4)
    x, y = lattice(rng, 7, 0.1)
    x, y = np.concatenate([x + k * 3.3 for k in range(-2, 3)]), np.tile(y, 5)
    flux = rng.uniform(0.5, 2, x.size) * 60 * NOISE * np.sqrt(area(3.5))
    image = expose(rng, stars(truth, psf, x, y, flux))
    found = measured(image, psf, rows(x + rng.normal(0, 0.1, x.size), y + rng.normal(0, 0.1, x.size), flux))
    pull = (found.flux - flux) / found.fluxerr
    assert abs(pull.mean()) < 0.25
    assert 0.9 < pull.std() < 1.4
    assert np.std(found.flux / flux) < 0.06


def test_a_psf_that_varies_by_a_tenth_gives_aperture_fluxes_everywhere():
    truth = moffat(3.0, 3.0)
    image, known = field(truth, 5, side=12, snr=(200, 600))
    psf = fit(truth, image, known)
    rng = np.random.default_rng(6)
    x, y = lattice(rng, 12)
    light = np.zeros((SIZE, SIZE), np.float32)
    render_points(light, x, y, np.full(x.size, 1e5), truth, 0.001)
    found = measured(light, psf, rows(x, y, np.full(x.size, 1e5)))
    ratio = found.flux / (1e5 * light_at(truth, x, y, psf.aperture))
    for half in (x < SIZE / 2, x > SIZE / 2, y < SIZE / 2, y > SIZE / 2):
        assert np.median(ratio[half]) == pytest.approx(1, abs=0.005)
    still = fit(truth, image, known[:6])
    assert still.order == 0
    wrong = measured(light, still, rows(x, y, np.full(x.size, 1e5))).flux / (1e5 * light_at(truth, x, y, psf.aperture))
    assert np.std(ratio) < 0.5 * np.std(wrong)


def test_galaxies_are_spread_and_hot_pixels_are_not(psfs):
    truth, psf = psfs[3.5]
    rng = np.random.default_rng(7)
    x, y = lattice(rng, 10, 0.1)
    flux = np.full(100, 60 * NOISE * np.sqrt(area(3.5)))
    light = np.zeros((SIZE, SIZE), np.float32)
    galaxies = Table({"r50": np.full(100, 2.0), "q": rng.uniform(0.4, 1, 100)})
    galaxies["nu"], galaxies["pa"] = 0.5, 0.0
    render_galaxies(light, x, y, flux, galaxies, truth, np.eye(2))
    light[np.rint(y[:10]).astype(int), np.rint(x[:10]).astype(int)] += 30 * NOISE
    hot = rng.integers(20, SIZE - 20, (2, 5)).astype(float)
    light[hot[1].astype(int), hot[0].astype(int)] += 60 * NOISE
    found = measured(expose(rng, light), psf, rows(*np.hstack([[x, y], hot]), np.append(flux, [50 * NOISE] * 5)))
    pull = found.spread / found.spread_err
    assert np.min(pull[10:100]) > 3
    assert np.median(found.spread[10:100]) > 0.005
    assert np.max(pull[100:]) < -3


def test_masked_pixels_and_borders(psfs):
    truth, psf = psfs[3.5]
    rng = np.random.default_rng(8)
    x, y = lattice(rng, 10, 0.1)
    x[::10] = 0.3
    flux = np.full(100, 200 * NOISE * np.sqrt(area(3.5)))
    image = expose(rng, stars(truth, psf, x, y, flux))
    bad = GOOD.copy()
    column, row = np.rint(x).astype(int), np.rint(y).astype(int)
    bad[row + 1, column] = True
    bad[row[5] - 9 : row[5] + 10, column[5] - 9 : column[5] + 10] = True
    image[bad] = np.nan
    found = measured(image, psf, rows(x, y, flux), bad)
    assert list(np.flatnonzero(np.isnan(found.flux))) == [5]
    for name in ("fluxerr", "chi2", "spread", "spread_err"):
        assert np.isnan(getattr(found, name)[5])
    pull = np.delete((found.flux - flux) / found.fluxerr, 5)
    assert pull.std() == pytest.approx(1, abs=0.25)
    assert np.std(np.delete(found.flux / flux, 5)[::10]) < 0.03


def test_the_background_beneath_and_its_error(psfs):
    truth, psf = psfs[3.5]
    rng = np.random.default_rng(9)
    x, y = lattice(rng, 10, 0.1)
    flux = np.full(100, 50 * NOISE * np.sqrt(area(3.5)))
    image = expose(rng, stars(truth, psf, x, y, flux))
    plain = measured(image, psf, rows(x, y, flux))
    objects = rows(x, y, flux)
    objects["background"], objects["level_err"] = 3.0, 1.0
    raised = measured(image + np.float32(3), psf, objects)
    np.testing.assert_allclose(raised.flux, plain.flux, rtol=1e-3)
    extra = np.sqrt(raised.fluxerr**2 - plain.fluxerr**2)
    circle = area(3.5)  # of a Gaussian; Moffat's wings make it larger, the aperture's missing light a little
    assert np.median(extra) == pytest.approx(1.3 * circle, rel=0.2)


def test_without_gain_photons_do_not_count(psfs):
    truth, psf = psfs[3.5]
    x, y = lattice(np.random.default_rng(10), 10, 0.1)
    flux = np.full(100, 1000 * NOISE * np.sqrt(area(3.5)))
    image = stars(truth, psf, x, y, flux)
    silent, loud = (measured(image, psf, rows(x, y, flux), gain=gain) for gain in (None, GAIN))
    noise = np.median(np.sqrt(loud.fluxerr**2 - silent.fluxerr**2))
    assert noise == pytest.approx(np.sqrt(flux[0] / GAIN), rel=0.25)


def test_light_is_rendered_as_it_was_measured(psfs):
    psf = psfs[3.5][1]
    x, y = lattice(np.random.default_rng(11), 8, 0.1)
    x[0], y[0] = 0.4, SIZE - 0.7
    light = render(replace(psf, correction=1.0), x, y, np.full(64, 1e4), (SIZE, SIZE))
    assert light.shape == (SIZE, SIZE)
    circles = CircularAperture(np.column_stack([x, y])[1:], psf.aperture)
    np.testing.assert_allclose(circles.do_photometry(light)[0], 1e4, rtol=0.02)


def test_positions_beyond_the_border_are_rendered_as_far_as_they_reach_in(psfs):
    _, psf = psfs[3.5]
    inside = render(psf, np.array([38.6]), np.array([50.0]), np.array([1e4]), (SIZE, SIZE))
    beyond = render(psf, np.array([-1.4]), np.array([50.0]), np.array([1e4]), (SIZE, SIZE))
    # The same star, 40 pixels further left: what is left of column 40 lies beyond the border.
    np.testing.assert_allclose(beyond[:, :6], inside[:, 40:46], atol=0.02 * inside.max())
    far = render(psf, np.array([SIZE + 1.3, -1.8]), np.array([SIZE + 1.7, -1.8]), np.full(2, 1e4), (SIZE, SIZE))
    assert np.isfinite(far).all()
    assert far[-1, -1] > 0
    assert far[0, 0] > 0
