"""Simulated campaigns are what their truth says, and scores count right."""

from dataclasses import replace

import numpy as np
import pytest
from astropy.stats import mad_std
from astropy.table import Table
from astropy.time import Time
from astropy.wcs import WCS
from workflows import script

from nightsift.image.moffat import MoffatPsf, psf_stamps
from nightsift.simulate.cameras import SimulatedCampaign, camera, hole, template_camera
from nightsift.simulate.pixels import bleed, render_galaxies, render_points
from nightsift.simulate.simulate import at_epoch, catalog, image, signal_to_noise, template
from nightsift.simulate.sources import STARS, sky
from nightsift.simulate.truth import combine, score

SMALL = SimulatedCampaign(size=384, n_stars=200, n_galaxies=25, n_transients=20, n_variables=6, n_fast=3)
PSF = MoffatPsf(fwhm=2.6, beta=3.0, e1=0.08, e2=-0.05, scale=(0.03, -0.02, 0.01), twist=(0.02, 0.01))


@pytest.fixture(scope="module")
def field():
    return sky(SMALL)


@pytest.fixture(scope="module")
def exposures(field):
    return [image(field, k, SMALL) for k in range(SMALL.n_images)]


@pytest.fixture(scope="module")
def reference(field):
    return template(field, SMALL)


# ------------------------------------------------------------------------------------------------------ rendering


def test_pixel_integration_agrees_with_fine_sampling():
    shape, x, y = (40, 40), np.array([17.3]), np.array([20.45])
    stamp, ix, iy = psf_stamps(PSF, x, y, shape, 8)
    xx, xy, yy = (value[0] for value in PSF.covariance(x, y, shape))
    steps = (np.arange(17 * 41) + 0.5) / 41 - 8.5
    dx, dy = (steps - (x - ix))[None, :], (steps - (y - iy))[:, None]
    det = xx * yy - xy**2
    fine = (1 + (yy * dx**2 - 2 * xy * dx * dy + xx * dy**2) / det) ** -PSF.beta
    fine *= (PSF.beta - 1) / (np.pi * np.sqrt(det)) / 41**2
    exact = fine.reshape(17, 41, 17, 41).sum(axis=(1, 3))
    assert np.abs(stamp[0] - exact).max() < 2e-4 * exact.max()


def test_stars_keep_their_flux_whatever_their_brightness():
    grid = np.arange(40, 400, 64) + np.random.default_rng(0).uniform(-0.5, 0.5, 6)
    x, y = (axis.ravel() for axis in np.meshgrid(grid, grid))
    flux = np.geomspace(300, 3e5, x.size)
    plane = np.zeros((400, 400))
    render_points(plane, x, y, flux, PSF, faintest=0.5)
    cells = [plane[int(b) - 25 : int(b) + 26, int(a) - 25 : int(a) + 26].sum() for a, b in zip(x, y, strict=True)]
    assert cells / flux == pytest.approx(1, abs=0.005)


@pytest.mark.parametrize("nu", [0.5, 0.0, -0.4])
def test_galaxies_have_their_flux_and_half_light_radius(nu):
    galaxy = Table({"r50": [9.0], "nu": [nu], "q": [1.0], "pa": [0.0]})
    plane = np.zeros((256, 256))
    sharp = MoffatPsf(fwhm=1.5, beta=4.0, e1=0.0, e2=0.0, scale=(0, 0, 0), twist=(0, 0))
    place = np.array([127.3]), np.array([128.4])
    render_galaxies(plane, *place, np.array([1e5]), galaxy, sharp, np.diag([-1.0, 1.0]))
    y, x = np.indices(plane.shape)
    radius = np.hypot(x - place[0], y - place[1])
    assert plane.sum() == pytest.approx(1e5, rel=5e-3)
    assert plane[radius < 9].sum() == pytest.approx(0.5e5, rel=0.03)
    assert (plane * (x - place[0])).sum() / 1e5 == pytest.approx(0, abs=0.05)


def test_galaxy_is_elongated_along_its_position_angle():
    galaxy = Table({"r50": [6.0], "nu": [0.5], "q": [0.4], "pa": [90.0]})
    plane = np.zeros((200, 200))
    render_galaxies(plane, np.array([100.0]), np.array([100.0]), np.array([1.0]), galaxy, PSF, np.diag([-1.0, 1.0]))
    y, x = np.indices(plane.shape) - 100
    assert (plane * x**2).sum() > 3 * (plane * y**2).sum()


def test_bleeding_keeps_the_charge_and_runs_along_columns():
    plane = np.full((60, 20), 10.0)
    plane[30, 7], plane[0, 3] = 1500.0, 350.0
    before = plane.sum(axis=0)
    full = bleed(plane, 100.0)
    assert plane.sum(axis=0) == pytest.approx(before)
    assert plane.max() == 100
    assert full[:, 7].sum() in (15, 16)
    assert full[0:3, 3].all()


# ---------------------------------------------------------------------------------------------- one simulated image


def test_model_holds_the_flux_of_the_truth(exposures):
    ratios = []
    for exposure in exposures:
        truth, cam = exposure.truth, exposure.camera
        stars = truth[(truth["kind"] == "star") & (truth["snr"] > 30)]
        crowd = np.hypot(*(truth[axis].data - stars[axis].data[:, None] for axis in "xy")) < 25
        light = (crowd * truth["flux"].data).sum(axis=1) - stars["flux"]
        edge = np.min([stars["x"], stars["y"], cam.shape[1] - stars["x"], cam.shape[0] - stars["y"]], axis=0)
        y, x = np.indices(cam.shape)
        for star in stars[(edge > 25) & (light < 0.03 * stars["flux"])]:
            radius = np.hypot(x - star["x"], y - star["y"])
            level = np.median(exposure.model[(radius > 18) & (radius < 24)])
            total = (exposure.model - level)[radius < 2.5 * cam.psf.fwhm].sum()
            inside = 1 - (1 + 25 * (2 ** (1 / cam.psf.beta) - 1)) ** (1 - cam.psf.beta)
            ratios.append(total / (inside * star["flux"]))
    assert len(ratios) >= 5
    assert np.median(ratios) == pytest.approx(1, abs=0.01)
    assert np.ptp(ratios) < 0.05


def test_noise_is_poisson_and_readout(exposures):
    for exposure in exposures:
        cam, good = exposure.camera, ~exposure.bad
        sigma = np.sqrt(exposure.model / cam.gain + (cam.readnoise / cam.gain) ** 2)
        pulls = ((exposure.data - exposure.model) / sigma)[good]
        assert pulls.std() == pytest.approx(1, abs=0.01)
        assert pulls.mean() == pytest.approx(0, abs=0.015)


def test_snr_is_that_of_the_matched_filter():
    cam, rng = camera(0, SMALL), np.random.default_rng(5)
    half = int(np.ceil(4 * cam.psf.fwhm))
    side = 2 * half + 1
    x, y, flux = np.array([100.3]), np.array([120.6]), np.array([2500.0])
    model = np.full(cam.shape, cam.sky, np.float32)
    model[:, 101:] += 150
    render_points(model, x, y, flux, cam.psf, 0.01)
    expected = signal_to_noise(model, x, y, flux, cam)[0]
    stamps, ix, iy = psf_stamps(cam.psf, x, y, cam.shape, half)
    cut = np.s_[iy[0] - half : iy[0] + half + 1, ix[0] - half : ix[0] + half + 1]
    variance = model[cut] / cam.gain + (cam.readnoise / cam.gain) ** 2
    draws = rng.poisson(model[cut] * cam.gain, (4000, side, side)) + rng.normal(0, cam.readnoise, (4000, side, side))
    weight = stamps[0] / variance
    estimate = ((draws / cam.gain - model[cut]) * weight).sum(axis=(1, 2)) / (stamps[0] * weight).sum() + flux[0]
    assert estimate.mean() / estimate.std() == pytest.approx(expected, rel=0.04)
    assert expected > 15


def test_header_wcs_is_as_wrong_as_promised(exposures):
    seen = set()
    for exposure in exposures:
        cam, truth = exposure.camera, exposure.truth[exposure.truth["kind"] == "star"]
        header = exposure.header.copy()
        for key in ("DATE-OBS", "MJD-OBS"):
            header.remove(key, ignore_missing=True)
        x, y = WCS(header).all_world2pix(truth["ra"], truth["dec"], 0)
        design = np.column_stack([np.ones(len(x)), truth["x"], truth["y"]])
        (shift, *turn), residuals, *_ = np.linalg.lstsq(design, np.column_stack([x, y]), rcond=None)
        matrix = np.array(turn).T
        angle = np.degrees(np.arctan2(matrix[1, 0] - matrix[0, 1], matrix[0, 0] + matrix[1, 1]))
        center = np.array(cam.shape[::-1]) / 2
        error = matrix @ center + shift - center
        assert np.hypot(*error) < 61 / SMALL.pixscale + 1
        assert abs(angle) < 0.35
        assert np.sqrt(np.linalg.det(matrix)) == pytest.approx(1, abs=0.006)
        assert 0.02 < np.sqrt(residuals.sum() / len(x)) < 1.5
        seen |= {key for key in ("CD1_1", "CROTA2", "PC1_1") if key in header}
    assert seen == {"CD1_1", "CROTA2", "PC1_1"}
    assert exposures[3].primary is not None


def test_headers_tell_the_time_and_gain_in_their_own_words(exposures):
    first, second, third, fourth = exposures
    starts = (
        Time(first.header["DATE-OBS"]),
        Time(f"{second.header['DATE-OBS']}T{second.header['UT']}"),
        Time(third.header["MJD-OBS"], format="mjd"),
        Time(fourth.primary["DATE-OBS"]),
    )
    for start, exposure in zip(starts, exposures, strict=True):
        assert (exposure.camera.mjd - start.mjd) * 86400 == pytest.approx(exposure.camera.exptime / 2, abs=0.02)
    gains = first.header["EGAIN"], second.header["GAIN"], third.header["CCDGAIN"], fourth.header["GAIN"]
    assert gains == tuple(exposure.camera.gain for exposure in exposures)


def test_detector_leaves_its_marks(exposures):
    for exposure in exposures:
        assert exposure.data.dtype == np.float32
        assert exposure.data[exposure.bad].size > 1000
        assert not exposure.truth["usable"].all()
        usable = exposure.truth[exposure.truth["usable"]]
        assert not exposure.bad[np.rint(usable["y"]).astype(int), np.rint(usable["x"]).astype(int)].any()


# ------------------------------------------------------------------------------------------------- sky and campaign


def test_transients_are_spread_in_snr_and_on_hosts(exposures):
    truth = exposures[0].truth
    found = truth[truth["kind"] == "transient"]
    assert len(found) >= 0.8 * SMALL.n_transients
    assert 0.3 < found["on_host"].mean() < 0.7
    assert found["snr"].min() < 12
    assert found["snr"].max() > 30
    assert found["delta_flux"].data == pytest.approx(found["flux"].data)


def test_light_curves_rise_and_fall_at_constant_places(exposures):
    tables = [e.truth[e.truth["kind"] == "transient"] for e in exposures]
    rows = [{row["id"]: row for row in table} for table in tables]
    common = set.intersection(*(set(row) for row in rows))
    assert len(common) > 10
    for key in common:
        assert np.ptp([row[key]["ra"] for row in rows]) == 0
    mags = np.array([[row[key]["mag_instr"] for row in rows] for key in common])
    assert np.median(np.ptp(mags, axis=1)) > 0.2


def test_variables_change_by_what_the_truth_says(field, exposures):
    *_, before = at_epoch(field, template_camera(SMALL).mjd)
    for exposure in exposures:
        truth = exposure.truth[exposure.truth["kind"] == "variable"]
        *_, now = at_epoch(field, exposure.camera.mjd)
        expected = 1 - 10 ** (0.4 * (now - before)[truth["id"]])
        assert truth["delta_flux"] / truth["flux"] == pytest.approx(expected, abs=1e-4)
        assert len(truth) >= 2


def test_template_has_none_of_what_is_new(field, exposures, reference):
    *_, change = at_epoch(field, reference.camera.mjd)
    assert np.isnan(change[np.isin(field.sources["kind"], ["transient", "mover"])]).all()
    truth = exposures[0].truth
    lonely = truth[(truth["kind"] == "transient") & ~truth["on_host"] & (truth["snr"] > 20) & truth["usable"]]
    cam = reference.camera
    x, y = cam.wcs.all_world2pix(lonely["ra"], lonely["dec"], 0)
    level = reference.model[np.rint(y).astype(int), np.rint(x).astype(int)]
    assert np.median(level) < cam.sky + 3 * cam.sigma
    assert np.isnan(reference.data[hole(cam.shape)]).all()


def test_template_is_deep_sharp_and_covers_all_images(reference):
    cam = template_camera(SMALL)
    for k in range(SMALL.n_images):
        one = camera(k, SMALL)
        x, y = cam.wcs.all_world2pix(one.wcs.calc_footprint(axes=one.shape[::-1]), 0).T
        assert x.min() > 20
        assert y.min() > 20
        assert x.max() < cam.shape[1] - 20
        assert y.max() < cam.shape[0] - 20
        # Electrons collected from a source of the same magnitude.
        assert cam.gain * 10 ** (0.4 * (cam.zp - one.zp)) > 6 * one.gain
        assert 0.8 * cam.psf.fwhm < 0.7 * one.psf.fwhm


def test_cameras_differ_as_they_should():
    cameras = [camera(k, SMALL) for k in range(8)]
    turned = [abs(one.wcs.wcs.cd[0, 0] - one.wcs.wcs.cd[1, 1]) for one in cameras]
    upright = [-one.wcs.wcs.cd[0, 0] / np.sqrt(abs(np.linalg.det(one.wcs.wcs.cd))) for one in cameras]
    assert max(turned) > 0
    assert min(upright) < 0.2
    assert max(abs(one.color) for one in cameras) <= 0.08
    assert 2.6 <= min(one.psf.fwhm for one in cameras) < max(one.psf.fwhm for one in cameras) <= 4.5


@pytest.mark.parametrize(("kinds", "position", "rel"), [(STARS, 30, 0.15), (("galaxy",), 60, 0.3)])
def test_catalogue_errors_are_those_quoted(field, kinds, position, rel):
    listed = catalog(field, SMALL, kinds)
    sources = field.sources
    true = sources[np.isin(sources["kind"], kinds) & (sources["rmag"] < field.catalog_limit)]
    for band in "gri":
        pulls = (listed[f"{band}mag"] - true[f"{band}mag"]) / listed[f"e_{band}mag"]
        assert pulls.std() == pytest.approx(1, abs=4 / np.sqrt(2 * len(listed)))
    assert (listed["DEJ2000"] - true["dec"]).std() * 3.6e6 == pytest.approx(position, rel=rel)
    assert listed["rmag"].max() < field.catalog_limit + 0.3


@pytest.mark.parametrize("snr", [3, 10])
def test_the_catalogue_has_stars_and_galaxies_to_the_depth_asked_for(snr):
    params = replace(SMALL, catalog_snr=snr)
    field = sky(params)
    assert field.catalog_limit == pytest.approx(sky(replace(SMALL, catalog_snr=2 * snr)).catalog_limit + 0.9, abs=0.2)
    known = field.sources[np.isin(field.sources["kind"], (*STARS, "galaxy"))]
    listed = catalog(field, params)
    assert len(listed) == np.sum(known["rmag"] < field.catalog_limit)
    assert set(listed.colnames).isdisjoint({"kind", "id", "r50"})


def test_star_numbers_follow_the_luminosity_function(field):
    rmag = field.sources["rmag"][np.isin(field.sources["kind"], ["star", "variable", "hpm"])]
    bright, faint = np.count_nonzero(rmag < 17.5), np.count_nonzero(rmag < 19.5)
    assert faint / bright == pytest.approx(10**0.6, rel=0.3)


def test_field_may_lie_across_the_zero_of_right_ascension():
    params = SimulatedCampaign(size=256, ra=0.0, dec=-40, n_stars=60, n_galaxies=6, n_transients=6, n_images=1)
    truth = image(sky(params), 0, params).truth
    assert truth["ra"].min() < 1
    assert truth["ra"].max() > 359
    assert np.ptp(truth["x"]) > 150


def test_same_seed_same_campaign_and_another_seed_another(field, exposures):
    again = image(sky(SMALL), 1, SMALL)
    assert np.array_equal(again.data, exposures[1].data, equal_nan=True)
    assert again.header.tostring() == exposures[1].header.tostring()
    assert len(again.truth) == len(exposures[1].truth)
    assert np.array_equal(again.truth["flux"], exposures[1].truth["flux"])
    assert sky(SimulatedCampaign(**{**vars(SMALL), "seed": 2})).sources["ra"][0] != field.sources["ra"][0]


@pytest.mark.parametrize("fwhm", [2.0, 5.0])
def test_telescopes_differ_in_sampling(fwhm):
    asked = replace(SMALL, fwhm=fwhm, psf_change=0.06)
    cameras, deep = [camera(k, asked) for k in range(8)], template_camera(asked)
    assert np.median([one.psf.fwhm for one in cameras]) == pytest.approx(fwhm, rel=0.1)
    assert 0.04 < max(abs(part) for one in cameras for part in one.psf.scale) <= 0.06
    # The template stays well sampled, and as deep.
    assert deep.psf.fwhm > 2
    pixel = abs(np.linalg.det(deep.wcs.wcs.cd)) * (3600 / SMALL.pixscale) ** 2
    usual = template_camera(SMALL)
    assert deep.sigma**2 / pixel == pytest.approx(usual.sigma**2 / 0.64, rel=0.01)


def test_script_writes_the_same_bytes_twice(tmp_path, capsys):
    for name in ("a", "b"):
        script("simulate").main([str(tmp_path / name), "--images", "4", "--size", "200", "--seed", "3"])
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(files) == 12
    for path in files:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes()
    sheet = (tmp_path / "a" / "images.tsv").read_text().splitlines()
    assert sheet[0] == "image\tpath"
    assert all((tmp_path / "a" / line.split("\t")[1]).exists() for line in sheet[1:])
    assert script("demo_truth").main([str(tmp_path / "a")]) == 1
    assert "NOT MET" in capsys.readouterr().out


# --------------------------------------------------------------------------------------------------------- the score


def _constructed():
    """A truth table of 60 stars on a grid with four transients, and what a perfect run finds of it."""
    x, y = (axis.ravel() + 50.0 for axis in np.meshgrid(np.arange(8) * 100, np.arange(8) * 100))
    kind = np.array(["transient"] * 4 + ["star"] * 60)
    truth = Table({"id": np.arange(64), "kind": kind, "on_host": np.arange(64) < 2, "x": x, "y": y})
    scale, angle = 1 / 3600, np.radians(30)
    dx, dy = x - 400, y - 400
    truth["ra"] = (scale * (dx * np.cos(angle) + 2 * dy * np.sin(angle)) / np.cos(np.radians(20))) % 360
    truth["dec"] = 20 + scale * (-dx * np.sin(angle) + 2 * dy * np.cos(angle))
    truth["flux"], truth["mag_instr"], truth["snr"] = 1e4, 17.0, np.r_[6.0, 12.0, 30.0, 80.0, np.full(60, 50.0)]
    truth["delta_flux"], truth["delta_snr"], truth["usable"] = truth["flux"], truth["snr"], True
    truth.meta["image"] = "one"
    objects = truth["x", "y", "ra", "dec", "snr"]
    objects["mag_calib"], objects["mag_calib_err"], objects["flags"] = truth["mag_instr"], 0.02, 0
    return truth, truth["x", "y", "snr"][:4], objects


def test_score_counts_what_was_found_and_what_is_false():
    truth, candidates, objects = _constructed()
    candidates = candidates[[0, 1, 2]]
    candidates["x"] += 2.0
    candidates.add_row((truth["x"][20] + 4, truth["y"][20], 9.0))
    result = score(truth, candidates, objects, 0.5)
    assert result.counts("transient", 5, 7) == (1, 1)
    assert result.counts("transient", 10, on_host=True) == (1, 1)
    assert result.counts("transient", 50) == (0, 1)
    assert result.completeness == pytest.approx(2 / 3)
    assert result.false_rate == 2
    assert result.false["nearest"][0] == "star"
    assert result.false["distance"][0] == pytest.approx(4)
    assert len(result.failures()) == 2
    both = combine([result, score(truth, truth["x", "y"][:4], objects, 0.5)])
    assert both.counts("transient", 10) == (5, 6)
    assert both.false_rate == 1


def test_score_measures_bias_scatter_and_positions():
    truth, candidates, objects = _constructed()
    rng = np.random.default_rng(7)
    objects["mag_calib"] = objects["mag_calib"] + 0.011 + rng.normal(0, 0.02, 64)
    # 0.3 arcsec along dec is 0.15 and 0.26 arcsec along the axes of an image turned by 30 degrees; y has 2 arcsec/px.
    objects["dec"] += 0.3 / 3600
    objects["flags"][10], objects["mag_calib"][10] = 4, 3.0
    result = score(truth, candidates, objects, 1.0)
    assert len(result.stars) == 59
    assert result.bias[0] == pytest.approx(0.011, abs=4 * result.bias[1])
    assert result.bias[1] == pytest.approx(0.02 * np.sqrt(np.pi / 2 / 59), rel=0.3)
    assert result.pull_width == pytest.approx(1, abs=0.3)
    assert result.astrometric_rms == pytest.approx((0.15, 0.13), abs=0.002)
    assert mad_std(result.offsets["dx"].data) < 1e-3


def test_match_must_be_within_one_fwhm():
    truth, candidates, objects = _constructed()
    candidates["x"] += 4.0
    result = score(truth, candidates, objects, 1.0)
    assert result.completeness == 0
    assert list(result.false["nearest"]) == ["transient"] * 4
    truth.meta["fwhm"] = 4.5
    result = score(truth, candidates, objects, 1.0)
    assert result.completeness == 1
    assert len(result.false) == 0


def test_stars_with_bright_neighbours_do_not_count():
    truth, candidates, objects = _constructed()
    truth["x"][30], truth["y"][30] = truth["x"][31] - 6, truth["y"][31]
    objects["x"][30], objects["y"][30] = truth["x"][30], truth["y"][30]
    assert len(score(truth, candidates, objects, 1.0).stars) == 58


def test_variables_count_by_their_change_and_unusable_sources_not_at_all():
    truth, candidates, objects = _constructed()
    truth["kind"] = truth["kind"].astype("U9")
    truth["kind"][3], truth["delta_snr"][3] = "variable", -15.0
    truth["usable"][2] = False
    result = score(truth, candidates, objects, 1.0)
    assert result.counts("variable", 10, 20) == (1, 1)
    assert result.counts("transient", 5) == (2, 2)
    assert len(result.false) == 0


def test_perfect_run_meets_the_bars_and_an_empty_one_does_not():
    truth, candidates, objects = _constructed()
    assert score(truth, candidates, objects, 1.0).failures() == []
    nothing = score(truth, Table(), Table(), 1.0)
    assert nothing.completeness == 0
    assert len(nothing.failures()) == 3
    assert len(combine([nothing, nothing]).wanted) == 8


# ---------------------------------------------------------------------------------------- hosts of known brightness


@pytest.fixture(scope="module")
def on_hosts():
    params = replace(SMALL, n_images=1, n_stars=20, n_transients=40, host_levels=(3.0, 30.0))
    field = sky(params)
    rest = replace(field, sources=field.sources[field.sources["kind"] != "transient"])
    return image(field, 0, params), image(rest, 0, params)


def test_hosts_are_as_bright_as_asked_for(on_hosts):
    with_them, without = on_hosts
    new = with_them.truth[with_them.truth["kind"] == "transient"]
    assert len(new) > 25
    assert new["on_host"].all()
    cam = with_them.camera
    column, row = np.rint(new["x"]).astype(int), np.rint(new["y"]).astype(int)
    beneath = (without.model[row, column] - cam.sky) / cam.sigma
    # The slope of the sky counts in neither.
    slope = np.abs(cam.gradient).sum() * cam.sky / cam.sigma
    assert new["light"] == pytest.approx(beneath, abs=0.05 * beneath.max() + slope)
    low, high = (np.median(new["light"][part]) for part in (new["light"] < 10, new["light"] > 10))
    assert 2 < low < 5
    assert 20 < high < 50


def test_the_significance_on_a_difference_is_that_of_its_noise(on_hosts):
    exposure, without = on_hosts
    new = exposure.truth[exposure.truth["kind"] == "transient"]
    cam, other = exposure.camera, template_camera(replace(SMALL, n_images=1))
    half = int(np.ceil(4 * cam.psf.fwhm))
    stamps, ix, iy = psf_stamps(cam.psf, new["x"].data, new["y"].data, cam.shape, half)
    scale = 10 ** (0.4 * (cam.zp - other.zp))
    area = np.linalg.det(cam.wcs.wcs.cd) / np.linalg.det(other.wcs.wcs.cd)
    # Poisson's variance of what image and template hold of a pixel of the image, on the scale of the image
    of_template = (without.model - cam.sky) * scale / other.gain + area * (scale * other.sigma) ** 2
    variance = without.model / cam.gain + (cam.readnoise / cam.gain) ** 2 + of_template
    inside = (ix > half) & (ix < cam.shape[1] - half) & (iy > half) & (iy < cam.shape[0] - half)
    for k in np.flatnonzero(inside):
        box = np.s_[iy[k] - half : iy[k] + half + 1, ix[k] - half : ix[k] + half + 1]
        expected = new["flux"][k] * np.sqrt(np.sum(stamps[k].astype(float) ** 2 / variance[box]))
        assert new["snr_difference"][k] == pytest.approx(expected, rel=0.03)
        assert new["snr_difference"][k] > 0.95 * new["snr"][k]
