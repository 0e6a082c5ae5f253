"""Zero points, colour terms and limits against simulated and real truth."""

import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table, hstack
from astropy.wcs import WCS
from calibrations import PARAMS, SCALE, SEEING, SIZE, ZP, simulate

from nightsift import parameters
from nightsift.catalog.catalog import catalog, field
from nightsift.detect.detect import detect
from nightsift.errors import Rejected
from nightsift.flags import Flag, Mask
from nightsift.io.catalogs import read_catalog
from nightsift.photometry import limits
from nightsift.photometry.blends import light_fraction
from nightsift.photometry.magnitudes import calibrate
from nightsift.photometry.photometry import photometry
from nightsift.photometry.solution import ApertureSeeing, Photometry
from nightsift.psf.psf import psf

SHARED = Path(__file__).parents[3] / "shared"


def offset(result, color, at=0.7):
    """Return the error of the zero point for a star of usual colour, and its formal error."""
    weight = np.zeros(len(result.model.coefficients))
    weight[0] = 1
    if result.model.color is not None:
        weight[-1] = at
    return weight @ result.model.coefficients - ZP - color * at, np.sqrt(weight @ result.model.covariance @ weight)


@pytest.mark.parametrize("share", [0.1, 0.7])
def test_galaxies_are_no_calibrators(share):
    """An aperture holds less of them, as much as they are wider; the faint ones do not look extended one by one."""
    errors = []
    for seed in range(10):
        objects, stars = simulate(seed, 200, mags=(15.5, 18.0))
        rng = np.random.default_rng(seed)
        galaxy = rng.random(len(objects)) < share
        spread = rng.uniform(0.005, 0.02, len(objects)) * galaxy
        objects["flux"] *= 10 ** (-0.4 * 30 * spread)
        objects["spread_err"] = 0.03 / objects["snr"]
        objects["spread"] = spread + rng.normal(0, objects["spread_err"])
        result = photometry(objects, stars, SEEING, "r", PARAMS)
        errors.append(offset(result, 0.0)[0])
        assert not any("look extended" in note for note in result.warnings)
    assert abs(np.mean(errors)) < 0.02


def test_where_no_star_looks_like_the_psf_all_are_calibrators():
    objects, stars = simulate(3, 60)
    objects["spread"], objects["spread_err"] = 0.01, 0.001
    assert photometry(objects, stars, SEEING, "r", PARAMS).stars.n_used > 50


@pytest.mark.parametrize(
    ("n", "runs", "intrinsic"), [(8, 120, 0.0), (8, 120, 0.02), (27, 60, 0.0), (27, 60, 0.02), (300, 50, 0.02)]
)
def test_the_zero_point_is_unbiased_and_its_error_honest(n, runs, intrinsic):
    pairs = [offset(photometry(*simulate(s, n, intrinsic=intrinsic), SEEING, "r", PARAMS), 0.0) for s in range(runs)]
    error, formal = np.transpose(pairs)
    pull = error / formal
    assert abs(error.mean()) < 3.5 * error.std() / np.sqrt(runs)
    assert 0.8 < pull.std() < 1.2


def test_the_color_term_is_unbiased_with_noisy_colors():
    results = [photometry(*simulate(s, 200, color=0.3, cat_err=0.05), SEEING, "r", PARAMS) for s in range(50)]
    assert all(result.model.color == "g-r" for result in results)
    pull = np.array([(result.model.color_term - 0.3) / result.model.color_term_err for result in results])
    assert abs(pull.mean()) < 0.5
    assert 0.7 < pull.std() < 1.3


def test_faint_stars_do_not_bias_the_zero_point():
    runs = [photometry(*simulate(s, 300, mags=(15.5, 19.5)), SEEING, "r", PARAMS) for s in range(50)]
    error, formal = np.transpose([offset(result, 0.0) for result in runs])
    assert abs(error.mean()) < 3.5 * error.std() / np.sqrt(50)
    assert error.std() / np.sqrt(50) < 0.0015
    assert 0.7 < np.std(error / formal) < 1.3


def test_the_surface_is_what_the_stars_support():
    flat = [photometry(*simulate(s, 27, intrinsic=0.01), SEEING, "r", PARAMS) for s in range(25)]
    corner = [(result.model.zero_point(SIZE - 0.5, SIZE - 0.5) - result.model.zp_aperture) for result in flat]
    assert np.std(corner) < 0.003
    terms = [result.model.color_term / result.model.color_term_err for result in flat]
    assert 0.5 < np.std(terms) < 1.2
    tilted = [photometry(*simulate(s, 100, slope=0.05), SEEING, "r", PARAMS) for s in range(15)]
    error = [result.model.zero_point(SIZE - 0.5, SIZE - 0.5) - ZP - 0.075 for result in tilted]
    formal = [result.model.zero_point_error(SIZE - 0.5, SIZE - 0.5) for result in tilted]
    assert np.std(error) < 0.01
    assert 0.5 < np.std(np.array(error) / formal) < 1.6
    assert photometry(*simulate(1, 8, slope=0.05), SEEING, "r", PARAMS).model.order == 0


def test_a_faint_surface_is_followed_as_far_as_the_stars_know_it():
    x, y = (part.ravel() for part in np.meshgrid(np.linspace(0, SIZE, 9), np.linspace(0, SIZE, 9)))
    u, v = 2 * (x + 0.5) / SIZE - 1, 2 * (y + 0.5) / SIZE - 1
    errors = []
    for seed in range(30):
        result = photometry(*simulate(seed, 80, slope=0.012, intrinsic=0.02), SEEING, "r", PARAMS)
        usual = result.model.zero_point(x, y) + (result.model.color_term or 0) * 0.7
        errors.append(usual - ZP - 0.012 * (u + 0.5 * v))
    # all or nothing is worse than nothing: 1.08
    assert np.sqrt(np.mean(np.square(errors))) < 0.95 * np.std(0.012 * (u + 0.5 * v))


def test_scatter_that_follows_the_noise_leaves_the_weight_with_the_bright_stars():
    pairs, scaled = [], 0
    for seed in range(40):
        objects, stars = simulate(seed, 150, mags=(13.0, 18.0), cat_err=0.003)
        for name in ("fluxerr", "bgerr"):
            objects[name] /= 2
        result = photometry(objects, stars, SEEING, "r", PARAMS)
        scaled += result.model.intrinsic <= 0.002
        pairs.append(offset(result, 0.0))
    error, formal = np.transpose(pairs)
    assert scaled > 30
    assert 0.7 < np.std(error / formal) < 1.3
    assert np.median(formal) < 0.002


def test_few_stars_make_no_surface():
    x, y = (part.ravel() for part in np.meshgrid(np.linspace(0, SIZE, 5), np.linspace(0, SIZE, 5)))
    for n in (20, 30):
        results = [photometry(*simulate(s, n, intrinsic=0.02), SEEING, "r", PARAMS) for s in range(30)]
        usual = [result.model.zero_point(x, y) + (result.model.color_term or 0) * 0.7 for result in results]
        error = np.sqrt(np.mean((np.array(usual) - ZP) ** 2, axis=1))
        assert sum(np.ptp(result.model.zero_point(x, y)) > 0.01 for result in results) <= 2
        assert max(error) < 0.025
        assert np.sqrt(np.mean(error**2)) < 0.009


def test_a_nonlinear_detector_and_a_pedestal_are_told_and_on_request_corrected():
    asked = parameters.PhotometryConfig(flux_terms=True)
    for seed, bend, pedestal, word in ((1, 0.02, 0.0, "nonlinear detector"), (2, 0.0, 120.0, "constant flux")):
        objects, stars = simulate(seed, 300, mags=(13.0, 18.0))
        truth = -2.5 * np.log10(objects["flux"])
        objects["flux"] = objects["flux"] * 10 ** (-0.4 * bend * (truth + 9)) + pedestal
        assert any(word in note for note in photometry(objects, stars, SEEING, "r", PARAMS).warnings)
        result = photometry(objects, stars, SEEING, "r", asked)
        assert not any(word in note for note in result.warnings)
        objects["psf_flux"], objects["psf_fluxerr"] = objects["flux"], objects["fluxerr"]
        stray = np.asarray(calibrate(objects, result)["mag_calib"]) - truth - ZP
        size = np.asarray(objects["snr"])
        ends = (size > 15) & (size < 50), size > 150
        assert [np.median(stray[end]) for end in ends] == pytest.approx([0, 0], abs=0.01)
        names = {"nonlinearity": bend, "background": pedestal}
        assert {name for name in names if name in result.model.parameters} == {name for name in names if names[name]}
        assert result.model.covariance.shape == (len(result.model.parameters),) * 2
    plain = [photometry(*simulate(s, 200, mags=(13.0, 18.0)), SEEING, "r", asked) for s in range(12)]
    assert sum(bool({"nonlinearity", "background"} & set(result.model.parameters)) for result in plain) <= 1


def test_the_color_terms_of_all_bands_are_known():
    objects, stars = simulate(11, 120, color=0.15)
    # what one band is to the image, half the colour makes of the next
    stars["imag"], stars["e_imag"] = 1.5 * stars["rmag"] - 0.5 * stars["gmag"], stars["e_rmag"]
    result = photometry(objects, stars, SEEING, None, PARAMS)
    assert result.model.band == "r"
    assert "nearest to a detector without filter, with a colour term of +0.1" in result.warnings[0]
    terms = {row["band"]: row for row in result.model.color_terms}
    assert set(terms) == {"g", "r", "i"}
    for band, truth in (("r", 0.15), ("g", 1.15), ("i", -0.35)):
        assert terms[band]["color"] == "g-r"
        assert terms[band]["term"] == pytest.approx(truth, abs=4 * terms[band]["error"])
        assert terms[band]["error"] < 0.02
        assert terms[band]["n"] >= 40


def test_images_of_a_camera_without_filter_get_one_band():
    bands = []
    for seed in range(30):
        # halfway between r and i, as red-sensitive detectors are: noise would choose
        objects, stars = simulate(seed, 40, color=-0.25, cat_err=0.03)
        stars["imag"], stars["e_imag"] = 1.5 * stars["rmag"] - 0.5 * stars["gmag"], stars["e_rmag"]
        result = photometry(objects, stars, SEEING, None, PARAMS)
        bands.append(result.model.band)
        assert result.model.color == "g-r"
    assert set(bands) == {"r"}
    stars["Gmag"], stars["e_Gmag"] = stars["rmag"], stars["e_rmag"]
    assert photometry(objects, stars, SEEING, None, PARAMS).model.band == "G"
    stars["Gmag"][len(stars) // 3 :] = np.nan
    assert photometry(objects, stars, SEEING, None, PARAMS).model.band == "r"


def test_an_image_plainly_of_another_band_gets_that():
    for seed in range(10):
        objects, stars = simulate(seed, 60, color=-1.0, cat_err=0.03)
        result = photometry(objects, stars, SEEING, None, PARAMS)
        assert result.model.band == "g"
        assert "against r the colour term is -1.0" in result.warnings[0] or "-0.9" in result.warnings[0]
        assert result.doubts == ()


def test_the_standard_magnitude_has_the_color_part():
    objects, stars = simulate(12, 150, color=0.2)
    objects["psf_flux"], objects["psf_fluxerr"] = objects["flux"], objects["fluxerr"]
    known = Table(stars[:100])
    result = photometry(objects, known, SEEING, "r", PARAMS)
    table = calibrate(objects, result, known)
    row, star = result.stars.match_object, result.stars.match_catalog
    difference = np.asarray(table["mag_std"])[row] - known["rmag"][star]
    assert np.median(difference) == pytest.approx(0, abs=0.005)
    assert np.std(difference) < 0.6 * np.std(np.asarray(table["mag_calib"])[row] - known["rmag"][star])
    assert np.isfinite(table["mag_std"]).sum() == len(row)
    assert (table["mag_std_err"][row] > table["mag_calib_err"][row]).all()
    bare = calibrate(objects, photometry(objects, known["ra", "dec", "rmag"], SEEING, "r", PARAMS), known)
    assert np.isnan(bare["mag_std"]).all()
    flat, reds = simulate(13, 150)
    flat["psf_flux"], flat["psf_fluxerr"] = flat["flux"], flat["fluxerr"]
    result = photometry(flat, reds, SEEING, "r", PARAMS)
    table = calibrate(flat, result, reds)
    assert abs(result.model.color_term) < 3 * result.model.color_term_err < 0.015
    difference = np.asarray(table["mag_std"] - table["mag_calib"])[result.stars.match_object]
    assert np.ptp(difference) < 0.01


def test_the_zero_point_is_that_of_all_light():
    objects, stars = simulate(14, 200, slope=0.03)
    rng = np.random.default_rng(14)
    u = 2 * (np.asarray(objects["x"]) + 0.5) / SIZE - 1
    objects["growth_err"] = 0.005
    objects["growth"] = np.where(objects["snr"] > 30, 0.2 + 0.03 * u + rng.normal(0, 0.005, len(objects)), np.nan)
    objects["growth"][:20] += 0.5
    result = photometry(objects, stars, SEEING, "r", PARAMS)
    assert result.model.aperture_correction == pytest.approx(-0.2, abs=4 * result.model.aperture_correction_err)
    assert result.model.aperture_correction_err < 0.003
    assert result.model.zp_aperture == pytest.approx(ZP, abs=4 * result.model.zp_aperture_err)
    assert result.model.zp == pytest.approx(result.model.zp_aperture - result.model.aperture_correction)
    assert result.model.zp_err == pytest.approx(
        np.hypot(result.model.zp_aperture_err, result.model.aperture_correction_err)
    )
    assert result.model.zero_point(SIZE / 2, SIZE / 2) == pytest.approx(result.model.zp_aperture, abs=0.003)
    side = result.model.total_zero_point(SIZE - 0.5, SIZE / 2) - result.model.total_zero_point(-0.5, SIZE / 2)
    assert side == pytest.approx(2 * 0.06, abs=0.012)
    del objects["growth"]
    assert photometry(objects, stars, SEEING, "r", PARAMS).model.zp_aperture == result.model.zp_aperture
    objects["growth"] = np.nan
    unknown = photometry(objects, stars, SEEING, "r", PARAMS)
    assert unknown.model.zp_aperture == result.model.zp_aperture
    assert np.isnan([unknown.model.zp, unknown.model.zp_err, unknown.model.aperture_correction]).all()
    assert "how much light" in unknown.warnings[0]
    modelled = photometry(objects, stars, replace(SEEING, growth=0.19), "r", PARAMS)
    assert modelled.model.zp == pytest.approx(result.model.zp, abs=modelled.model.zp_err)
    assert 0.02 < modelled.model.zp_err < 0.06
    assert "the PSF has it" in modelled.warnings[0]


def test_the_limit_is_mapped_where_the_noise_differs():
    objects, stars = simulate(15, 900)
    right = np.asarray(objects["x"]) > SIZE / 2
    objects["bgerr"][right] *= 2
    objects["fluxerr"] = np.sqrt(objects["bgerr"] ** 2 + objects["flux"] / 2)
    limits_map = photometry(objects, stars, SEEING, "r", PARAMS).limits.maglim_map
    assert limits_map.shape == (8, 8)
    np.testing.assert_allclose(limits_map[:, :4].mean() - limits_map[:, 4:].mean(), 2.5 * np.log10(2), atol=0.05)


def test_a_fifth_of_outliers_does_no_harm():
    for n, within in ((27, 0.02), (300, 0.006)):
        results = [photometry(*simulate(s, n, outliers=0.2, color=0.1), SEEING, "r", PARAMS) for s in range(20)]
        error, formal = np.transpose([offset(result, 0.1) for result in results])
        assert np.abs(error).max() < within
        assert np.std(error / formal) < 1.5


def test_blends_go_by_their_light():
    objects, stars = simulate(5, 60, mags=(13.0, 16.0))
    pairs = Table(stars[:2])
    pairs["ra"] += 4 * SCALE / 3600
    pairs["rmag"] = stars["rmag"][:2] + np.array([0.5, 7.0])
    flux = objects["flux"]
    flux[0] *= 1 + 10**-0.2 * light_fraction(np.array([4.0]), 3.0, 3.0)[0]
    result = photometry(objects, Table(np.concatenate([stars.as_array(), pairs.as_array()])), SEEING, "r", PARAMS)
    at = {star: row for row, star in enumerate(result.stars.match_catalog)}
    assert result.stars.contamination[at[0]] > 0.05
    assert not result.stars.used[at[0]]
    assert 0 < result.stars.contamination[at[1]] < 0.001
    assert result.stars.used[at[1]]


def test_an_object_that_the_catalogue_lacks_counts_as_a_neighbour():
    objects, stars = simulate(6, 40, mags=(13.0, 16.0))
    extra = Table(objects[:1])
    extra["ra"] += 4 * SCALE / 3600
    result = photometry(Table(np.concatenate([objects.as_array(), extra.as_array()])), stars, SEEING, "r", PARAMS)
    assert result.stars.contamination[result.stars.match_object == 0][0] > 0.1
    assert np.median(result.stars.contamination) < 1e-3


def test_light_fraction_is_a_moffat_profile():
    alpha = 3 / (2 * np.sqrt(2 ** (1 / 3) - 1))
    share = light_fraction(np.array([0.0, 2.5, 30.0]), 3.0, 3.0)
    assert share[0] == pytest.approx(1 - (1 + 9 / alpha**2) ** -2, rel=1e-3)
    axis = np.arange(-8, 8, 0.02) + 0.01
    x, y = np.meshgrid(axis, axis)
    moffat = 2 / (np.pi * alpha**2) * (1 + (x**2 + y**2) / alpha**2) ** -3
    assert share[1] == pytest.approx(moffat[np.hypot(x - 2.5, y) < 3].sum() * 0.02**2, rel=0.01)


def test_one_band_six_stars_and_an_unknown_filter():
    objects, stars = simulate(2, 6, mags=(13.0, 15.0))
    single = Table({"ra": stars["ra"], "dec": stars["dec"], "VTmag": stars["rmag"]})
    result = photometry(objects, single, SEEING, None, PARAMS)
    assert (result.model.band, result.model.color, result.model.order, result.stars.n_used) == ("VT", None, 0, 6)
    assert abs(result.model.zp_aperture - ZP) < 5 * result.model.zp_aperture_err < 0.06
    assert "VT" in result.warnings[0]
    assert np.isfinite(result.limits.maglim)


def test_the_band_follows_the_filter():
    objects, stars = simulate(3, 60, intrinsic=0.01)
    assert photometry(objects, stars, SEEING, None, PARAMS).model.band == "r"
    near = photometry(objects, stars, SEEING, "R", PARAMS)
    assert near.model.band == "r"
    assert "nearest" in near.warnings[0]
    asked = photometry(objects, stars, SEEING, "r", parameters.PhotometryConfig(band="g"))
    assert (asked.model.band, asked.model.color) == ("g", "g-r")
    # the same image seen from g: r = g - (g - r)
    assert asked.model.color_term == pytest.approx(1, abs=0.03)
    plain = photometry(objects, stars, SEEING, "r", parameters.PhotometryConfig(band="g", color="none"))
    assert plain.model.color is None
    with pytest.raises(Rejected, match="no zmag"):
        photometry(objects, stars, SEEING, "r", parameters.PhotometryConfig(band="z"))


def test_nothing_matched_and_too_few_are_rejected_with_the_counts():
    objects, stars = simulate(4, 30, mags=(13.0, 16.0))
    away = objects.copy()
    away["ra"] += 1
    with pytest.raises(Rejected, match="None of the 30 objects"):
        photometry(away, stars, SEEING, "r", PARAMS)
    objects["flags"][3:] = int(Flag.SATURATED)
    with pytest.raises(Rejected, match=r"Only 3 of 30 .*27 flagged"):
        photometry(objects, stars, SEEING, "r", PARAMS)


def test_a_nonlinear_bright_end_is_cut():
    objects, stars = simulate(7, 200, mags=(12.0, 17.0))
    bright = np.asarray(stars["rmag"]) < 12.8
    objects["flux"] *= np.where(bright[: len(objects)], 0.93, 1.0)
    result = photometry(objects, stars, SEEING, "r", PARAMS)
    assert any("nonlinear" in note for note in result.warnings)
    assert not result.stars.used[bright[result.stars.match_catalog]].any()
    assert abs(result.model.zp_aperture - ZP) < 4 * result.model.zp_aperture_err
    clean = [photometry(*simulate(s, 200, mags=(12.0, 17.0)), SEEING, "r", PARAMS) for s in range(10)]
    assert not any(result.warnings for result in clean)


def test_the_limit_is_where_the_signal_to_noise_says():
    objects, stars = simulate(8, 400, mags=(13.0, 18.5))
    flux = 5 / 2 * (5 / 2 + np.sqrt(25 / 4 + 4 * 100.0**2))
    truth = ZP - 2.5 * np.log10(flux)
    result = photometry(objects, stars, SEEING, "r", PARAMS)
    assert flux / np.sqrt(flux / 2 + 100**2) == pytest.approx(5)
    assert result.limits.maglim_snr == pytest.approx(truth, abs=0.01)
    assert result.limits.maglim_noise == pytest.approx(truth, abs=0.01)
    objects["psf_flux"], objects["psf_fluxerr"] = 1.01 * objects["flux"], 0.8 * objects["fluxerr"]
    objects["psf_flux"][:2] = np.nan, -5.0
    table = calibrate(objects, result)
    assert np.isnan(table["mag_psf"][:2]).all()
    assert np.isnan(table["mag_psf_err"][:2]).all()
    np.testing.assert_allclose((table["mag_psf"] - table["mag_calib"])[2:], -2.5 * np.log10(1.01), atol=1e-9)
    np.testing.assert_allclose((table["mag_psf_err"] / table["mag_calib_err"])[2:], 0.8 / 1.01, rtol=1e-9)
    np.testing.assert_allclose(table["maglim"], truth, atol=0.01)
    np.testing.assert_allclose(table["mag_calib_err"], 1.0857362 * objects["fluxerr"] / objects["flux"], rtol=1e-6)
    np.testing.assert_allclose(table["mag_calib"], ZP - 2.5 * np.log10(objects["flux"]), atol=0.01)


def test_the_model_of_the_limit_finds_its_coefficients():
    mag = np.linspace(14, 20, 200)
    truth = np.array([1e-18, 1e-9, 1e-5])
    snr = (truth[0] * 10 ** (0.8 * mag) + truth[1] * 10 ** (0.4 * mag) + truth[2]) ** -0.5
    snr[::10] /= 3
    model = limits.snr_model(mag, snr)
    np.testing.assert_allclose(model, truth, rtol=0.02)
    limit = limits.limiting_magnitude(model, 5.0)
    assert truth @ [10 ** (0.8 * limit), 10 ** (0.4 * limit), 1] == pytest.approx(1 / 25, rel=0.01)


def test_what_is_wider_than_the_psf_is_flagged():
    objects, stars = simulate(3, 60)
    objects["psf_flux"], objects["psf_fluxerr"] = objects["flux"], objects["fluxerr"]
    result = photometry(objects, stars, SEEING, "r", PARAMS)
    assert not np.any(calibrate(objects, result)["flags"])
    objects["flags"][1:3] = int(Flag.CROWDED)
    objects["spread"], objects["spread_err"] = 0.0, 0.001
    objects["spread"][:4] = 0.004, 0.004, -0.004, np.nan
    expected = [int(Flag.EXTENDED), int(Flag.EXTENDED | Flag.CROWDED), int(Flag.CROWDED), 0]
    assert list(calibrate(objects, result)["flags"][:4]) == expected


def test_the_result_survives_json():
    result = photometry(*simulate(9, 60, color=0.2, slope=0.05), SEEING, "r", PARAMS)
    again = Photometry.from_dict(json.loads(json.dumps(result.to_dict(), allow_nan=False)))
    assert again.model.parameters == result.model.parameters == ("zp_aperture", "x", "y", "x2", "xy", "y2", "color")
    assert again.model.zero_point(10.0, 20.0) == result.model.zero_point(10.0, 20.0)
    np.testing.assert_array_equal(again.model.covariance, result.model.covariance)
    assert again.model.color_terms == result.model.color_terms
    assert again.model.shape == result.model.shape
    np.testing.assert_array_equal(again.stars.used, result.stars.used)


@pytest.mark.skipif(not (SHARED / "data/sdss_field").exists(), reason="needs the data of sdss_field")
def test_the_sdss_field_has_the_zero_point_of_nanomaggies():
    folder = SHARED / "data/sdss_field"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with fits.open(folder / "sdss_r.fits.fz") as hdus:
            data, wcs = hdus[1].data.astype(np.float32), WCS(hdus[1].header)
    mask = np.where(np.isfinite(data), 0, int(Mask.NONFINITE)).astype(np.uint16)
    found = detect(data, mask, None, parameters.DetectConfig(threshold=5.0))
    fitted = psf(data, mask, None, found.objects, found.seeing, found.aperture, parameters.PsfConfig())
    objects = hstack([found.objects, fitted.table])
    objects["ra"], objects["dec"] = wcs.all_pix2world(objects["x"], objects["y"], 0)
    stars = catalog(
        read_catalog(folder / "catalog.csv"), *field(wcs, data.shape, 0.1), None, parameters.CatalogConfig()
    )
    seeing = ApertureSeeing(fwhm=found.seeing.fwhm, pixscale=0.396, aperture=found.aperture, shape=data.shape)
    result = photometry(objects, stars.table, seeing, "r", PARAMS)
    assert result.model.zp == pytest.approx(22.494, abs=0.02)
    assert result.model.zp_err < 0.02
    assert result.model.zp_aperture < 22.35
    assert abs(result.model.color_term) < 0.1
    assert result.stars.n_used > 40
    # The PSF of other runs, mosaicked in as strips, is up to twice as wide: their stars do not count, and that is told.
    assert result.model.scatter < 0.03
    assert np.ptp(result.model.total_zero_point(objects["x"], objects["y"])) < 0.05
    assert any("look extended" in note for note in result.warnings)
    assert abs(result.limits.maglim_snr - result.limits.maglim_noise) < 0.1
    terms = {row["band"]: row for row in result.model.color_terms}
    assert set(terms) == set("grizy")
    assert terms["r"]["color"] == "g-r"
    assert abs(terms["r"]["term"]) < 0.05 + 2 * terms["r"]["error"]
    assert photometry(objects, stars.table, seeing, None, PARAMS).model.band == "r"
