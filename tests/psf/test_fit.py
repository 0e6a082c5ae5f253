"""The PSF and its photometry against rendered profiles."""

import numpy as np
import pytest
from astropy.table import vstack
from photutils.aperture import CircularAperture
from points import GOOD, NOISE, SIZE, area, field, fit, lattice, light_at, light_in_aperture, moffat

from nightsift.errors import Rejected
from nightsift.image.moffat import psf_stamps
from nightsift.psf.fit import fit_psf_stars
from nightsift.psf.forced import fitted, forced
from nightsift.simulate.pixels import render_points


def worst(truth, psf, seed=9):
    """Largest error of a pixel relative to the peak, of any sub-pixel position, between the stars of the fit."""
    x, y = np.random.default_rng(seed).uniform(0.1 * SIZE, 0.9 * SIZE, (2, 30))
    half = 8
    stamps, column, row = psf_stamps(truth, x, y, (SIZE, SIZE), half)
    v, u = (line.ravel().astype(float) for line in np.mgrid[-half : half + 1, -half : half + 1])
    model = psf.at(u + (column - x)[:, None], v + (row - y)[:, None], x, y).reshape(stamps.shape)
    light = np.array([light_in_aperture(truth, *place, psf.aperture) for place in zip(x, y, strict=True)])
    expected = stamps / light[:, None, None]
    return np.max(np.abs(model - expected), axis=(1, 2)) / expected.max(axis=(1, 2))


@pytest.fixture(scope="module")
def exact():
    """The PSF of stars without noise, and the truth."""
    truth = moffat(3.0)
    return truth, fit(truth, *field(truth, 1, snr=(300, 300), noise=0))


@pytest.mark.parametrize(("fwhm", "limit"), [(2.2, 0.015), (3.0, 0.01), (4.5, 0.01)])
def test_a_psf_that_varies_over_the_field_is_recovered(fwhm, limit):
    truth = moffat(fwhm)
    psf = fit(truth, *field(truth, 1, snr=(300, 300), noise=0))
    assert psf.order == 2
    assert worst(truth, psf).max() < limit
    still = fit(truth, *field(truth, 1, side=2, noise=0))  # too few stars to vary
    assert still.order == 0
    assert worst(truth, still).max() > 0.025


@pytest.mark.parametrize("fwhm", [2.2, 3.0, 4.5])
def test_noise_harms_it_little(fwhm):
    truth = moffat(fwhm)
    psf = fit(truth, *field(truth, 1))
    error = worst(truth, psf)
    assert psf.n_stars > 90
    assert psf.chi2 == pytest.approx(1.15, abs=0.15)
    assert np.median(error) < 0.015
    assert error.max() < 0.05


def test_an_undersampled_psf_is_recovered():
    truth = moffat(1.5)
    assert worst(truth, fit(truth, *field(truth, 2, snr=(300, 300), noise=0))).max() < 0.02


def test_blends_and_cosmic_hits_among_the_stars_do_not_harm():
    truth = moffat(3.0)
    image, stars = field(truth, 3)
    clean = worst(truth, fit(truth, image, stars)).max()
    rng = np.random.default_rng(4)
    spoilt = rng.choice(len(stars), 10, replace=False)
    for i in spoilt[:5]:
        angle = rng.uniform(0, 2 * np.pi)
        beside = np.array([[stars["x"][i] + 4 * np.cos(angle)], [stars["y"][i] + 4 * np.sin(angle)]])
        render_points(image, *beside, np.array([0.4 * stars["flux"][i]]), truth, 0.01)
    for i in spoilt[5:]:
        row, column = int(stars["y"][i]) + rng.integers(-3, 4), int(stars["x"][i]) + rng.integers(-3, 4)
        image[row, column : column + 2] += 0.05 * stars["flux"][i]
    psf = fit(truth, image, stars)
    assert psf.n_stars <= len(stars) - 8
    assert worst(truth, psf).max() < 2.5 * clean < 0.035


@pytest.mark.parametrize("aperture", [3.0, 5.5])
def test_it_sums_to_its_correction_in_the_aperture(aperture):
    truth = moffat(3.0)
    psf = fit(truth, *field(truth, 1, noise=0), aperture=aperture)
    rng = np.random.default_rng(5)
    half = 12
    v, u = (line.ravel().astype(float) for line in np.mgrid[-half : half + 1, -half : half + 1])
    for x, y in rng.uniform(50, 350, (5, 2)):
        sums = []
        for dx, dy in rng.uniform(-0.5, 0.5, (40, 2)):
            stamp = psf.at(u[None] - dx, v[None] - dy, np.array([x]), np.array([y])).reshape(2 * half + 1, -1)
            sums.append(CircularAperture((half + dx, half + dy), aperture).do_photometry(stamp)[0][0])
        assert np.mean(sums) == pytest.approx(psf.correction, abs=0.003)


def test_its_fluxes_are_the_aperture_fluxes_of_rendered_stars(exact):
    truth, psf = exact
    rng = np.random.default_rng(6)
    x, y = lattice(rng, 9)
    image = np.zeros((SIZE, SIZE), np.float32)
    render_points(image, x, y, np.full(81, 1e5), truth, 0.001)
    aperture, _ = CircularAperture(np.column_stack([x, y]), psf.aperture).do_photometry(image)
    flux = forced(image, np.full(image.shape, NOISE), GOOD, psf, x, y).flux
    assert np.mean(flux / aperture) == pytest.approx(1, abs=0.002)
    assert np.std(flux / aperture) < 0.01  # the aperture depends on where in the pixel the star is


def test_a_file_gives_it_back(exact):
    psf = exact[1]
    again = type(psf).from_images(*psf.to_images())
    offsets = np.random.default_rng(7).uniform(-4, 4, (2, 3, 50))
    x, y = np.array([10.0, 200.0, 390.0]), np.array([390.0, 200.0, 10.0])
    np.testing.assert_array_equal(again.at(*offsets, x, y), psf.at(*offsets, x, y))
    for name in ("fwhm", "shape", "order", "aperture", "n_stars", "chi2", "correction"):
        assert getattr(again, name) == getattr(psf, name)


def test_stamps_are_the_same_function_with_its_derivatives(exact):
    psf = exact[1]
    rng = np.random.default_rng(12)
    x, y = rng.uniform(0, SIZE, (2, 20))
    u, v = np.arange(-5, 6) + rng.uniform(-0.5, 0.5, (2, 20, 1))

    def at(du=0.0, dv=0.0):
        columns, rows = np.broadcast_arrays(u[:, None, :] + du, v[:, :, None] + dv)
        return psf.at(columns.reshape(20, -1), rows.reshape(20, -1), x, y).reshape(20, 11, 11)

    value, along, across, laplacian = psf.grid(u, v, x, y, 2)
    step, peak = 1e-3, value.max()
    np.testing.assert_allclose(value, at(), atol=1e-6 * peak)
    np.testing.assert_allclose(along, (at(step) - at(-step)) / (2 * step), atol=1e-5 * peak)
    np.testing.assert_allclose(across, (at(0, step) - at(0, -step)) / (2 * step), atol=1e-5 * peak)
    around = at(step) + at(-step) + at(0, step) + at(0, -step)
    np.testing.assert_allclose(laplacian, (around - 4 * at()) / step**2, atol=1e-5 * peak)
    np.testing.assert_array_equal(psf.grid(u, v, x, y)[0], value)


@pytest.mark.parametrize(("side", "snr", "limit"), [(10, (60, 600), 0.02), (6, (30, 300), 0.04), (5, (30, 60), 0.08)])
def test_what_does_not_vary_is_not_made_to(side, snr, limit):
    """The fewer and fainter the stars, the less of their noise goes into a variation."""
    truth = moffat(3.0, 0.0)
    for seed in range(3):
        psf = fit(truth, *field(truth, seed, side, snr))
        assert psf.order == (2 if side > 4 else 1)
        assert np.median(worst(truth, psf)) < limit


def test_a_few_stars_tell_how_it_varies():
    truth = moffat(3.0, 3.0)
    for seed in range(3):
        image, stars = field(truth, seed, side=5)
        rigid = fit_psf_stars(image, np.full(image.shape, NOISE), GOOD, stars, 3.0, 3.0, max_order=0).psf
        assert np.median(worst(truth, fit(truth, image, stars))) < 0.6 * np.median(worst(truth, rigid))


def test_stars_are_measured_with_the_psf_of_the_others():
    """A star that is bright enough to make the PSF its own is seen to be unlike the others."""
    truth, wide = moffat(3.0), moffat(3.4)
    image, stars = field(truth, 1, side=4, snr=(20, 30))
    x, y, flux = np.array([150.0]), np.array([150.0]), np.array([4e5])
    render_points(image, x, y, flux, wide, 0.01)
    light = light_in_aperture(wide, 150, 150, 3.0) * flux[0]
    stars.insert_row(0, [150.0, 150.0, light, 1500.0, 0.0])
    found = fit_psf_stars(image, np.full(image.shape, NOISE), GOOD, stars, 3.0, 3.0)
    own = forced(image, np.full(image.shape, NOISE), GOOD, found.psf, x, y).flux[0]
    held = found.flux[found.rows == 0][0]
    assert own == pytest.approx(light, rel=0.02)
    assert abs(held / light - 1) > 2 * abs(own / light - 1) + 0.02


def scene(exact, seed, snr):
    """Return noise with stars of one S/N, their positions, and their aperture fluxes."""
    truth, psf = exact
    rng = np.random.default_rng(seed)
    x, y = lattice(rng, 18, 0.2)
    flux = snr * NOISE * np.sqrt(area(truth.fwhm))
    image = np.zeros((SIZE, SIZE), np.float32)
    render_points(image, x, y, flux / light_at(truth, x, y, psf.aperture), truth, 0.01)
    return image + rng.normal(0, NOISE, image.shape).astype(np.float32), x, y, flux


@pytest.mark.parametrize("snr", [0, 5, 20, 200])
def test_forced_fluxes_are_unbiased_and_their_errors_honest(exact, snr):
    image, x, y, flux = scene(exact, 10 + snr, snr)
    found = forced(image, np.full(image.shape, NOISE), GOOD, exact[1], x, y)
    pull = (found.flux - flux) / found.fluxerr
    scatter = 1 / np.sqrt(len(x))
    if snr >= 20:
        assert np.mean(found.flux) == pytest.approx(flux, rel=0.005)
    assert abs(pull.mean()) < 3 * scatter
    assert pull.std() == pytest.approx(1, abs=3 * scatter / np.sqrt(2))
    # chi2 allows for an error of the PSF, which there is not.
    assert 0.9 - snr / 1000 < np.median(found.chi2) < 1.05


@pytest.mark.parametrize(("snr", "limit"), [(10, 0.25), (50, 0.05), (200, 0.013)])
def test_positions_are_fitted(exact, snr, limit):
    image, x, y, flux = scene(exact, 30 + snr, snr)
    rng = np.random.default_rng(8)
    start = x + rng.uniform(-0.8, 0.8, x.size), y + rng.uniform(-0.8, 0.8, x.size)
    found, px, py = fitted(image, np.full(image.shape, NOISE), GOOD, exact[1], *start)
    for off in (px - x, py - y):
        assert abs(off.mean()) < limit / 4
        assert off.std() < limit
    # A position that follows the noise gains flux from it, by about 1 / S/N^2.
    assert np.mean(found.flux) / flux == pytest.approx(1, abs=0.005 + 2 / snr**2 + 0.15 / snr)


def test_positions_are_found_from_nearly_a_fwhm_away(exact):
    image, x, y, flux = scene(exact, 33, 50)
    reach = 0.9 * exact[1].fwhm
    angle = np.random.default_rng(9).uniform(0, 2 * np.pi, x.size)
    start = x + reach * np.cos(angle), y + reach * np.sin(angle)
    found, px, py = fitted(image, np.full(image.shape, NOISE), GOOD, exact[1], *start)
    assert np.hypot(px - x, py - y).max() < 0.25
    assert np.mean(found.flux) / flux == pytest.approx(1, abs=0.02)


def test_masked_pixels_do_not_count(exact):
    image, x, y, flux = scene(exact, 40, 100)
    bad = GOOD.copy()
    column, row = np.rint(x).astype(int), np.rint(y).astype(int)
    bad[row + 1, column] = bad[row, column - 1] = True
    image[bad] = 1e6
    found = forced(image, np.full(image.shape, NOISE), bad, exact[1], x, y)
    pull = (found.flux - flux) / found.fluxerr
    assert abs(pull.mean()) < 0.2
    assert pull.std() == pytest.approx(1, abs=0.15)


def test_there_is_no_flux_where_there_are_no_pixels(exact):
    image, x, y, _ = scene(exact, 41, 50)
    bad = GOOD.copy()
    bad[int(y[0]) - 6 : int(y[0]) + 7, int(x[0]) - 6 : int(x[0]) + 7] = True
    places = np.array([x[0], -30.0, SIZE + 20.0, x[5]]), np.array([y[0], 50.0, SIZE + 20.0, y[5]])
    found = forced(image, np.full(image.shape, NOISE), bad, exact[1], *places)
    for name in ("flux", "fluxerr", "chi2"):
        assert list(np.isfinite(getattr(found, name))) == [False, False, False, True]


def test_the_flux_at_the_border_is_unbiased(exact):
    truth, psf = exact
    y = np.linspace(20, 380, 15)
    x = np.full(15, 0.4)
    image = np.zeros((SIZE, SIZE), np.float32)
    render_points(image, x, y, np.full(15, 1e4), truth, 0.01)
    light = light_in_aperture(truth, 0, 200, psf.aperture)
    flux = forced(image, np.full(image.shape, NOISE), GOOD, psf, x, y).flux
    np.testing.assert_allclose(flux, 1e4 * light, rtol=0.03)


def test_three_stars_are_the_fewest():
    truth = moffat(3.0)
    image, stars = field(truth, 1)
    assert fit(truth, image, stars[[44, 45, 46]]).n_stars == 3
    with pytest.raises(Rejected, match="there are 2"):
        fit(truth, image, stars[[44, 45]])
    off = stars[[44, 45]].copy()
    off["x"] = [-20.0, 500.0]
    with pytest.raises(Rejected, match="there are 2"):
        fit(truth, image, vstack([stars[[44, 45]], off]))
