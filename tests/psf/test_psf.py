"""The stage from pixels to PSF fluxes, on rendered fields with detections of their own."""

import numpy as np
import pytest
from astropy.table import Table
from photutils.aperture import CircularAperture
from scipy.spatial import cKDTree

from nightsift import parameters
from nightsift.detect.detect import detect
from nightsift.flags import Mask
from nightsift.image.moffat import MoffatPsf as Truth
from nightsift.psf.extended import extended
from nightsift.psf.psf import psf
from nightsift.simulate.pixels import render_galaxies, render_points
from nightsift.tables import checked

SIZE, GAIN, SKY, READ = 500, 2.0, 400.0, 4.0
NOISE = np.hypot(np.sqrt(SKY / GAIN), READ)
PARAMS = parameters.PsfConfig()


def truth(vary=0.0):
    return Truth(3.2, 3.0, 0.06, -0.04, (vary, -0.5 * vary, 0.0), (vary, vary))


def picture(seed, count=250, vary=0.0, spoil=None):
    """Return an image, its mask, the detections, and what was put in."""
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(0, SIZE, (2, count))
    flux = 15 * NOISE * 7 * np.minimum((1 - rng.random(count)) ** -1.0, 100)
    light = np.zeros((SIZE, SIZE), np.float32)
    render_points(light, x, y, flux, truth(vary), 0.01)
    if spoil:
        spoil(rng, light, x, y, flux)
    image = rng.poisson((light + SKY) * GAIN) / GAIN + rng.normal(0, READ, light.shape)
    mask = np.zeros(light.shape, np.int32)
    mask[100:103, 200:260] = int(Mask.BADLINE)
    image = image.astype(np.float32)
    return image, mask, detect(image, mask, GAIN, parameters.DetectConfig()), (x, y, flux)


def stage(image, mask, found, gain=GAIN, params=PARAMS):
    return psf(image, mask, gain, found.objects, found.seeing, found.aperture, params)


def in_aperture(radius):
    """Return the share of a star's light within an aperture."""
    stamp = np.zeros((SIZE, SIZE), np.float32)
    render_points(stamp, np.array([250.2]), np.array([250.4]), np.array([1.0]), truth(), 1e-7)
    return CircularAperture((250.2, 250.4), radius).do_photometry(stamp)[0][0]


@pytest.fixture(scope="module")
def plain():
    made = picture(1)
    return *made, stage(*made[:3])


def test_stars_have_the_same_flux_in_the_psf_and_in_the_aperture(plain):
    objects, result = plain[2].objects, plain[4]
    quiet = (objects["flags"] == 0) & (objects["snr"] > 50)
    assert quiet.sum() > 20
    ratio = np.asarray(result.table["psf_flux"] / objects["flux"])[quiet]
    assert np.median(ratio) == pytest.approx(1, abs=0.002)
    assert result.facts["aperture_ratio"] == pytest.approx(1, abs=0.01)
    assert result.facts["aperture_scatter"] < 0.02
    faint = (objects["flags"] == 0) & (objects["snr"] < 20)
    assert np.median(result.table["psf_fluxerr"][faint] / objects["fluxerr"][faint]) < 0.9


def test_stars_on_a_trail_are_fitted_without_it():
    angle, fwhm = 2.3, 3.5
    along = np.linspace(-200, 200, 11)
    on_x, on_y = 250 - np.sin(angle) * along, 250 + np.cos(angle) * along

    def cross(rng, light, x, y, flux):
        render_points(light, on_x, on_y, np.full(11, 4000.0), truth(), 0.01)
        v, u = np.mgrid[:SIZE, :SIZE]
        off = np.cos(angle) * (u - 250) + np.sin(angle) * (v - 250)
        light += (80 * np.exp(-4 * np.log(2) * (off / (1.5 * fwhm)) ** 2)).astype(np.float32)

    image, mask, found, _ = picture(9, 60, spoil=cross)
    assert len(found.trails) == 1
    near = cKDTree(np.column_stack([found.objects["x"], found.objects["y"]])).query(np.column_stack([on_x, on_y]))
    rows = near[1][near[0] < 1]
    assert len(rows) >= 9
    result = psf(image, mask, GAIN, found.objects, found.seeing, found.aperture, PARAMS, found.trails)
    table = result.table[rows]
    assert np.median(table["psf_flux"]) == pytest.approx(4000 * in_aperture(result.psf.aperture), rel=0.05)
    assert np.median(table["psf_chi2"]) < 1.3
    assert np.median(np.abs(table["spread"] / table["spread_err"])) < 1.5


def test_the_background_has_the_mesh_that_is_asked_for(plain):
    about = *plain[:2], GAIN, plain[2].objects, plain[2].seeing, plain[2].aperture, PARAMS
    fluxes = [np.asarray(psf(*about, background_size=mesh).table["psf_flux"]) for mesh in (64, 32)]
    np.testing.assert_array_equal(fluxes[0], plain[4].table["psf_flux"])
    assert not np.array_equal(*fluxes, equal_nan=True)


def test_rows_are_those_of_the_detections(plain):
    objects, result = plain[2].objects, plain[4]
    assert len(checked(result.table, "psf_photometry")) == len(objects)
    assert np.nanmedian(np.abs(result.table["psf_flux"] / objects["flux"] - 1)) < 0.1
    assert np.isfinite(result.table["psf_flux"]).mean() > 0.98
    assert np.nanmedian(np.hypot(result.table["psf_dx"], result.table["psf_dy"])) < 0.1


def test_fluxes_of_detected_stars_have_honest_errors(plain):
    (x, y, flux), result, objects = plain[3], plain[4], plain[2].objects
    distance = np.hypot(objects["x"][:, None] - x, objects["y"][:, None] - y)
    star = distance.argmin(axis=1)
    alone = (np.sort(distance, axis=1)[:, 1] > 12) & (distance.min(axis=1) < 1) & (objects["flags"] == 0)
    pull = (np.asarray(result.table["psf_flux"]) - flux[star] * in_aperture(result.psf.aperture)) / np.asarray(
        result.table["psf_fluxerr"]
    )
    assert alone.sum() > 60
    assert abs(np.median(pull[alone])) < 0.4
    assert 1.4826 * np.median(np.abs(pull[alone] - np.median(pull[alone]))) == pytest.approx(1, abs=0.25)
    pull = np.asarray(result.table["spread"] / result.table["spread_err"])[alone]
    assert abs(np.median(pull)) < 0.4
    assert 1.4826 * np.median(np.abs(pull)) == pytest.approx(1, abs=0.3)


def test_facts_describe_the_psf(plain):
    facts, psf = plain[4].facts, plain[4].psf
    assert facts["order"] == psf.order == 2
    assert facts["n_stars"] == psf.n_stars > 25
    assert facts["n_rejected"] >= 0
    assert facts["chi2"] == pytest.approx(1, abs=0.2)
    assert facts["fwhm"] == pytest.approx(3.28, abs=0.06)  # with the pixel, which adds 0.08
    assert facts["ellipticity"] == pytest.approx(0.07, abs=0.02)
    assert facts["residual"] < 0.01
    assert 0.7 < facts["aperture_light"] < 0.9


def test_the_variation_follows_the_evidence():
    image, mask, found, _ = picture(2, vary=0.1)
    result = stage(image, mask, found)
    low, high = result.facts["fwhm_range"]
    assert high - low == pytest.approx(0.3 * 3.2, rel=0.25)
    objects = found.objects
    quiet = np.flatnonzero((objects["flags"] == 0) & (objects["snr"] > 40))
    ratio = np.asarray(result.table["psf_flux"] / objects["flux"])[quiet]
    left = np.asarray(objects["x"])[quiet] < SIZE / 2
    assert np.median(ratio[left]) == pytest.approx(np.median(ratio[~left]), abs=0.006)
    rigid = stage(image, mask, found, params=parameters.PsfConfig(max_order=0))
    assert rigid.psf.order == 0
    assert rigid.facts["aperture_scatter"] > 1.5 * result.facts["aperture_scatter"]
    ranges = [stage(*picture(seed)[:3]).facts["fwhm_range"] for seed in (3, 4, 5)]
    assert max(high - low for low, high in ranges) < 0.025 * 3.2


def test_blends_galaxies_and_hot_pixels_do_not_shape_it(plain):
    def spoil(rng, light, x, y, flux):
        wide = Truth(3.9, 3.0, 0.3, 0.1, (0.0, 0.0, 0.0), (0.0, 0.0))
        render_points(light, *rng.uniform(0, SIZE, (2, 60)), rng.uniform(5e3, 4e4, 60), wide, 0.01)
        bright = np.argsort(-flux)[:40:2]
        render_points(light, x[bright] + 3.0, y[bright] + 2.0, 0.4 * flux[bright], truth(), 0.01)
        column, row = rng.integers(20, SIZE - 20, (2, 8))
        light[row, column] += 5e3

    image, mask, found, _ = picture(6, spoil=spoil)
    result = stage(image, mask, found)
    clean = plain[4].facts
    assert result.facts["fwhm"] == pytest.approx(clean["fwhm"], rel=0.02)
    assert result.facts["ellipticity"] == pytest.approx(clean["ellipticity"], abs=0.03)
    assert result.facts["residual"] < 0.012


def test_spread_tells_galaxies_from_stars():
    places = {}

    def spoil(rng, light, x, y, flux):
        # Half-light radii from a sixth of the stars' FWHM on, discs and bulges.
        count = 150
        shapes = Table({"r50": rng.uniform(0.5, 2.5, count), "q": rng.uniform(0.3, 1, count)})
        shapes["nu"], shapes["pa"] = np.where(rng.random(count) < 0.5, 0.5, -0.6), rng.uniform(0, 180, count)
        places["x"], places["y"] = rng.uniform(10, SIZE - 10, (2, count))
        total = 15 * NOISE * 7 * np.minimum((1 - rng.random(count)) ** -1.0, 50)
        render_galaxies(light, places["x"], places["y"], total, shapes, truth(), np.eye(2))

    image, mask, found, (x, y, _) = picture(8, count=150, spoil=spoil)
    result, objects = stage(image, mask, found), found.objects
    near_star, near_galaxy = (
        (np.hypot(objects["x"][:, None] - u, objects["y"][:, None] - v) < 6).sum(axis=1)
        for u, v in ((x, y), (places["x"], places["y"]))
    )
    good = (np.asarray(objects["flags"]) == 0) & np.isfinite(result.table["spread"])
    spread, significance = result.table["spread"], result.table["spread"] / result.table["spread_err"]
    star, galaxy = good & (near_star == 1) & (near_galaxy == 0), good & (near_galaxy == 1) & (near_star == 0)
    assert min(star.sum(), galaxy.sum()) > 50
    for low, high, area in ((5, 15, 0.7), (15, 40, 0.93), (40, 1e9, 0.97)):
        part = (objects["snr"] > low) & (objects["snr"] < high)
        # The area under the ROC curve is the share of pairs in the right order.
        assert np.mean(spread[galaxy & part][:, None] > spread[star & part]) > area
    assert np.mean(significance[star] > 3) < 0.05
    assert np.std(np.clip(significance[star], -3, 3)) == pytest.approx(1, abs=0.2)


def test_merged_stars_are_wider_than_the_psf_and_single_ones_are_not():
    rng = np.random.default_rng(11)
    x, y = (part.ravel() + rng.uniform(-2, 2, 225) for part in np.meshgrid(*2 * [np.linspace(25, SIZE - 25, 15)]))
    flux, pair = NOISE * 7 * np.exp(rng.uniform(np.log(40), np.log(400), 225)), np.arange(225) % 3 == 0
    apart, angle = rng.uniform(0.3, 0.65, 225) * 3.2 * pair, rng.uniform(0, 2 * np.pi, 225)
    light = np.zeros((SIZE, SIZE), np.float32)
    for sign in (-1, 1):
        place = x + sign * apart * np.cos(angle), y + sign * apart * np.sin(angle)
        render_points(light, *place, flux / 2, truth(), 0.01)
    image = (rng.poisson((light + SKY) * GAIN) / GAIN + rng.normal(0, READ, light.shape)).astype(np.float32)
    mask = np.zeros(light.shape, np.int32)
    found = detect(image, mask, GAIN, parameters.DetectConfig())
    wide = extended(*(np.asarray(stage(image, mask, found).table[name]) for name in ("spread", "spread_err")))
    distance = np.hypot(found.objects["x"] - x[:, None], found.objects["y"] - y[:, None])
    merged, row = (distance < 3.2).sum(axis=1) == 1, distance.argmin(axis=1)
    assert (pair & merged).sum() > 60
    assert wide[row[pair & merged]].mean() > 0.95
    assert wide[row[~pair]].sum() <= 1


def test_too_few_stars_leave_the_image_in_peace(plain):
    image, mask, found, *_ = plain
    result = stage(image, mask, found, params=parameters.PsfConfig(min_snr=1e5))
    assert result.psf is None
    assert result.facts == {"n_stars": 0}
    assert "no PSF photometry: the PSF needs 3 clean stars; there are 0" in result.warnings[0]
    assert len(checked(result.table, "psf_photometry")) == len(found.objects)
    fitted = [name for name in result.table.colnames if not name.startswith("growth") and name != "outlier"]
    assert all(np.isnan(result.table[name]).all() for name in fitted)
    # light is summed without a PSF too
    assert np.isfinite(result.table["growth"]).sum() > 5
    many = stage(image, mask, found, params=parameters.PsfConfig(min_stars=1000))
    assert many.psf is None
    assert "fewer than 1000" in many.warnings[0]


def test_an_unknown_gain_is_no_obstacle(plain):
    image, mask, found, *_ = plain
    result = stage(image, mask, found, gain=None)
    ratio = result.table["psf_fluxerr"] / plain[4].table["psf_fluxerr"]
    assert np.nanpercentile(ratio, 95) < 1.05
    assert np.nanmin(ratio) < 0.9
