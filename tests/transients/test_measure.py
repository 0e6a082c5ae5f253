"""Measures of point sources against simulated truth."""

from dataclasses import replace

import numpy as np
import pytest
from astropy.table import Table
from differences import FWHM, NOISE, SIZE, lattice, noise, psf_of, rendered, search_of, unit_of

from nightsift.psf.forced import forced, photon_noise
from nightsift.tables import SCHEMAS
from nightsift.transients.measure import measure, without_fit_bias

GAIN = 1.5


@pytest.fixture(scope="module")
def psf():
    return psf_of(FWHM)


@pytest.fixture(scope="module")
def unit(psf):
    return unit_of(psf)


def measured(difference, psf, x, y, **layers):
    search = search_of(difference, psf, **layers)
    return measure(search, x, y, search.mask != 0)


def inside(psf):
    """Share of the light of a source within the aperture that ties the PSF's fluxes."""
    v, u = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    light = rendered(SIZE // 2, SIZE // 2, 1e6)
    return light[np.hypot(u, v) < psf.aperture].sum() / 1e6


def with_photons(light, seed):
    return (np.random.default_rng(seed).poisson(np.maximum(light, 0) * GAIN) / GAIN).astype(np.float32)


@pytest.mark.parametrize("snr", [2.0, 60.0, 3000.0])
def test_photon_noise_is_what_a_simulation_scatters_by(psf, unit, snr):
    """Fluxes with the weights of a sky, of sources whose only noise is their photons."""
    x, y = lattice(2)
    light, sigma = rendered(x, y, snr * unit), np.full((SIZE, SIZE), NOISE, np.float32)
    bad = np.zeros(light.shape, bool)
    fluxes = np.array([forced(with_photons(light, seed), sigma, bad, psf, x, y).flux for seed in range(40)])
    scatter = np.sqrt(np.mean(fluxes.var(axis=0, ddof=1)))
    assert photon_noise(psf, snr * unit, GAIN, NOISE) == pytest.approx(scatter, rel=0.05)


def test_photon_noise_is_none_without_gain_or_light(psf):
    np.testing.assert_array_equal(photon_noise(psf, [100.0, 1e5], None, NOISE), 0)
    np.testing.assert_array_equal(photon_noise(psf, [-100.0, np.nan, 0.0], GAIN, NOISE), 0)
    assert photon_noise(psf, 40.0, GAIN, NOISE) == pytest.approx(2 * photon_noise(psf, 10.0, GAIN, NOISE), rel=1e-3)


@pytest.mark.parametrize("snr", [5, 50, 500])
def test_flux_errors_are_those_of_sky_and_source(psf, unit, snr):
    pulls = []
    truth = inside(psf) * snr * unit
    for seed in range(20):
        x, y = lattice(10 + seed)
        light = rendered(x, y, snr * unit)
        table = measured(noise(50 + seed) + with_photons(light, seed), psf, np.rint(x), np.rint(y), gain=GAIN)
        assert np.all(table["bgerr"] <= table["fluxerr"])
        pulls.append(
            (np.array([table["flux"], without_fit_bias(table["flux"], table["fluxerr"])]) - truth) / table["fluxerr"]
        )
    pulls, unbiased = np.concatenate(pulls, axis=1)
    assert len(pulls) == 720
    assert 0.95 - 0.03 < pulls.std() < 1.1
    # The position follows the noise: with two of them fitted, the flux gains 1 / (S/N) sigma.
    assert abs(pulls.mean() - 1 / snr) < 4 / np.sqrt(720)
    assert abs(unbiased.mean()) < 3 / np.sqrt(720)


def test_the_sky_part_of_the_error_does_not_know_of_the_source(psf, unit):
    x, y = lattice(3)
    light = rendered(x, y, 300 * unit)
    table = measured(noise(4) + light, psf, np.rint(x), np.rint(y), gain=GAIN)
    np.testing.assert_allclose(table["bgerr"], unit, rtol=0.05)
    own = photon_noise(psf, table["flux"], GAIN, NOISE)
    np.testing.assert_allclose(table["fluxerr"], np.hypot(table["bgerr"], own))


@pytest.mark.parametrize("ratio", [1.0, 0.6])
def test_a_dipole_is_measured(psf, unit, ratio):
    """Two opposite sources that are so far apart that neither moves the other's extreme by much."""
    x, y = lattice(5)
    angle = np.random.default_rng(6).uniform(-np.pi, np.pi, len(x))
    apart = 1.8 * FWHM
    off_x, off_y = x + apart * np.cos(angle), y + apart * np.sin(angle)
    image = noise(7) + rendered(x, y, 150 * unit) - rendered(off_x, off_y, 150 * ratio * unit)
    table = measured(image, psf, np.rint(x), np.rint(y))
    # The extreme of the map stands on a pixel.
    np.testing.assert_allclose(table["dipole_separation"], apart, atol=1.2)
    assert np.median(table["dipole_separation"]) == pytest.approx(apart, abs=0.4)
    turned = np.angle(np.exp(1j * (np.radians(table["dipole_angle"]) - angle)), deg=True)
    assert np.abs(turned).max() < 12
    assert abs(np.median(turned)) < 2
    assert np.median(table["dipole_ratio"]) == pytest.approx(ratio, rel=0.12)
    assert np.median(table["dipole"]) == pytest.approx(ratio, rel=0.12)


def test_a_lone_source_is_no_dipole(psf, unit):
    x, y = lattice(8)
    table = measured(noise(9) + rendered(x, y, 100 * unit), psf, np.rint(x), np.rint(y))
    assert table["dipole"].max() < 0.06
    assert np.abs(table["dipole_ratio"]).max() < 0.06
    assert table["negative"].max() < 0.12


@pytest.mark.parametrize("shift", [0.1, 0.3])
def test_shifted_tells_a_shifted_star_from_a_transient_in_a_galaxy(psf, unit, shift):
    x, y = lattice(11)
    angle = np.random.default_rng(12).uniform(0, 2 * np.pi, len(x))
    star = rendered(x, y, 1000 * unit)
    move_x, move_y = shift * np.cos(angle), shift * np.sin(angle)
    dipole = noise(13) + rendered(x + move_x, y + move_y, 1000 * unit) - star
    # The peak of the brighter side lies about two fifths of a FWHM from the star.
    at_x, at_y = x + 0.45 * FWHM * np.cos(angle), y + 0.45 * FWHM * np.sin(angle)
    table = measured(dipole, psf, np.rint(at_x), np.rint(at_y), model=star, mismatch=0.0)
    assert np.median(table["shifted"]) > 0.8
    v, u = np.mgrid[:SIZE, :SIZE]
    galaxy = sum(
        20 * NOISE * np.exp(-4 * np.log(2) * ((u - i) ** 2 + (v - j) ** 2) / 10.0**2) for i, j in zip(x, y, strict=True)
    ).astype(np.float32)
    new = noise(14) + rendered(x + 2, y - 1.5, 60 * unit)
    table = measured(new, psf, np.rint(x + 2), np.rint(y - 1.5), model=galaxy, mismatch=0.0)
    assert np.median(table["shifted"]) < 0.3
    assert np.percentile(table["shifted"], 90) < 0.5


def test_without_a_template_nothing_is_shifted(psf, unit):
    x, y = lattice(11)
    table = measured(noise(14) + rendered(x, y, 60 * unit), psf, np.rint(x), np.rint(y))
    np.testing.assert_allclose(table["shifted"], 0, atol=1e-6)
    np.testing.assert_array_equal(table["template_flux"], 0)
    assert np.isnan(table["template_distance"]).all()


@pytest.mark.parametrize("fwhm", [2.0, 2.5, 3.5, 5.0])
def test_cosmic_tells_a_hit_from_a_star(fwhm):
    psf = psf_of(fwhm)
    x, y = lattice(15)
    stars = measured(noise(16) + rendered(x, y, 60 * unit_of(psf), fwhm), psf, np.rint(x), np.rint(y))
    assert np.median(stars["cosmic"]) == pytest.approx(1, abs=0.15)
    # Where the sky is as bright as the star's core, its noise makes one of nine pixels the brightest.
    assert np.percentile(stars["cosmic"], 95) < 1.5
    column, row = np.rint(x).astype(int), np.rint(y).astype(int)
    image = noise(17)
    image[row, column] += 60 * NOISE
    hits = measured(image, psf, column, row)
    assert np.percentile(hits["cosmic"], 5) > 1.5
    assert np.percentile(hits["cosmic"], 5) > 1.2 * np.percentile(stars["cosmic"], 95)


@pytest.mark.parametrize("fwhm", [2.0, 3.0, 5.0])
def test_block_tells_a_defect_from_a_star(fwhm):
    psf = psf_of(fwhm)
    x, y = lattice(15)
    stars = measured(noise(16) + rendered(x, y, 30 * unit_of(psf), fwhm), psf, np.rint(x), np.rint(y))
    assert stars["block"].max() < 0.95
    column, row = np.rint(x).astype(int), np.rint(y).astype(int)
    for height, width in ((2, 2), (3, 3), (1, 6), (6, 1)):
        image = noise(17)
        for i, j in zip(column, row, strict=True):
            image[j - height // 2 : j - height // 2 + height, i - width // 2 : i - width // 2 + width] += 20 * NOISE
        assert np.percentile(measured(image, psf, column, row)["block"], 5) > 1


@pytest.mark.parametrize("fwhm", [2.0, 3.0, 5.0])
@pytest.mark.parametrize("angle", [0.0, 0.4, np.pi / 4, np.pi / 2, 2.5])
def test_elongation_tells_a_streak_from_a_star_in_all_directions(fwhm, angle):
    psf = psf_of(fwhm)
    x, y = lattice(15)
    flux = 30 * unit_of(psf)
    stars = measured(noise(16) + rendered(x, y, flux, fwhm), psf, np.rint(x), np.rint(y))
    steps = np.linspace(-0.75, 0.75, 9) * fwhm
    light = sum(rendered(x + step * np.cos(angle), y + step * np.sin(angle), flux / 9, fwhm) for step in steps)
    streaks = measured(noise(17) + light, psf, np.rint(x), np.rint(y))
    assert np.median(stars["elongation"]) < 0.005
    assert np.median(streaks["elongation"]) > 0.03
    assert np.percentile(streaks["elongation"], 10) > np.percentile(stars["elongation"], 95)
    # In units of the noise it is what noise alone stretches.
    pull = stars["elongation"] * (stars["flux"] / stars["bgerr"]) ** 2
    assert np.mean(pull) == pytest.approx(2, abs=1)


def test_measures_count_in_the_sense_of_the_source(psf, unit):
    """What has faded has the measures of what has brightened, but for the sign of its flux."""
    x, y = lattice(18)
    image = noise(19) + rendered(x, y, 40 * unit)
    plus = measured(image, psf, np.rint(x), np.rint(y), gain=GAIN)
    minus = measured(-image, psf, np.rint(x), np.rint(y), gain=GAIN)
    np.testing.assert_allclose(minus["flux"], -plus["flux"])
    for name in set(plus.colnames) - {"flux", "snr", "fluxerr"}:
        np.testing.assert_allclose(minus[name], plus[name], rtol=1e-4, atol=1e-6, err_msg=name)
    # Light that has gone has no photons.
    np.testing.assert_array_equal(minus["fluxerr"], minus["bgerr"])


def test_a_pedestal_and_noisy_surroundings_show(psf, unit):
    x, y = lattice(20)
    light = rendered(x, y, 20 * unit)
    good = measured(noise(21) + light, psf, np.rint(x), np.rint(y))
    raised = measured(noise(21) + light + np.float32(0.3 * NOISE), psf, np.rint(x), np.rint(y))
    assert np.median(good["pedestal"]) < 0.05
    profile = psf.stamp(200, 200, int(np.ceil(1.5 * FWHM)))
    expected = 0.3 * NOISE * profile.sum() / np.sum(profile**2) / (20 * unit)
    assert np.median(raised["pedestal"]) == pytest.approx(expected, rel=0.3)
    loud = measured(2 * noise(21) + light, psf, np.rint(x), np.rint(y))
    assert np.median(good["around"]) == pytest.approx(1, abs=0.15)
    assert np.median(loud["around"]) == pytest.approx(2, abs=0.3)


def test_masked_is_the_share_of_the_psf(psf, unit):
    x, y = np.array([100.0, 200.0, 300.0]), np.array([100.0, 200.0, 300.0])
    mask = np.zeros((SIZE, SIZE), np.uint16)
    mask[:, 201:] = 1
    mask[290:, :] = 0
    table = measured(rendered(x, y, 50 * unit) + noise(22), psf, x, y, mask=mask)
    assert table["masked"][0] == 0
    assert table["masked"][1] == pytest.approx(0.38, abs=0.1)
    assert table["masked"][2] == 0
    assert table["flux"][1] == pytest.approx(50 * unit, rel=0.15)


def test_saturated_neighbours_count_within_five_fwhm(psf, unit):
    x, y = np.array([100.0, 300.0]), np.array([100.0, 300.0])
    saturated = Table({"x": [110.0, 100.0, 330.0], "y": [100.0, 92.0, 300.0], "flux": [5e5, 8e5, 9e5]})
    search = search_of(noise(23) + rendered(x, y, 50 * unit), psf)
    table = measure(search, x, y, search.mask != 0, saturated)
    np.testing.assert_array_equal(table["beside"], [8e5, 0])


def test_nothing_to_measure_has_the_columns_of_something(psf):
    search = search_of(noise(24), psf)
    nothing, something = (measure(search, np.array(x), np.array(x), search.mask != 0) for x in ([], [50.0]))
    assert len(nothing) == 0
    assert set(nothing.colnames) == set(something.colnames)
    later = {"ra", "dec", "mag_calib", "mag_calib_err", "image", "mjd", "filter", "maglim"}
    later |= {"score", "label", "is_real", "reasons"}
    assert set(SCHEMAS["candidates"]) - later <= set(nothing.colnames)


def test_everything_masked_is_measured_as_nothing(psf):
    mask = np.ones((SIZE, SIZE), np.uint16)
    table = measured(noise(25), psf, np.array([50.0, 0.0]), np.array([60.0, 399.0]), mask=mask)
    assert not np.isfinite(table["flux"]).any() or np.all(table["masked"] == 1)


def test_correlated_noise_widens_the_sky_part(psf):
    search = search_of(noise(26), psf)
    x = np.array([50.0, 150.0])
    plain, wide = (
        measure(replace(search, quality=replace(search.quality, noise_correlation=factor)), x, x, search.mask != 0)
        for factor in (1.0, 1.4)
    )
    np.testing.assert_allclose(wide["bgerr"], 1.4 * plain["bgerr"])
