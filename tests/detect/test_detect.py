"""Detection and its fluxes, errors and positions against simulated truth."""

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from starfields import GAIN, SIDE, SIGMA, SKY, flux_of, gaussians, in_aperture, lattice, nearest, observe, run, the_one

from nightsift import parameters
from nightsift.detect.detect import detect, gaussian_kernel
from nightsift.errors import Rejected
from nightsift.flags import Flag, Mask
from nightsift.image.moffat import MoffatPsf
from nightsift.inspect.inspect import inspect
from nightsift.io.fits import read_image
from nightsift.simulate.pixels import render_points

REAL = Path(__file__).parents[3] / "shared" / "data" / "real" / "surveys"


@pytest.fixture(scope="module")
def field():
    """Isolated stars of S/N 5 to 600: truth and what is found."""
    rng = np.random.default_rng(11)
    shape, fwhm = (760, 700), 3.2
    x, y = lattice(rng, shape, 22)
    snr = 10 ** rng.uniform(np.log10(5), np.log10(600), len(x))
    light = gaussians(shape, x, y, flux_of(snr, fwhm), fwhm)
    result = run(observe(light, 12))
    index, distance = nearest(result.objects, x, y)
    flux = in_aperture(light, x, y, result.aperture)
    return {"x": x, "y": y, "snr": snr, "flux": flux, "result": result, "index": index, "distance": distance}


def test_isolated_stars_are_found(field):
    found = field["distance"] < 2
    assert found[field["snr"] > 20].all()
    assert found[field["snr"] >= 8].mean() >= 0.98
    # A peak of the noise beside a faint star does not draw its position off.
    assert found[(field["snr"] > 10) & (field["snr"] < 20)].mean() >= 0.98
    strangers = np.delete(np.arange(len(field["result"].objects)), field["index"][found])
    assert len(strangers) <= 2


def test_noise_gives_few_objects():
    shape = (600, 600)
    x, y = lattice(np.random.default_rng(1), shape, 180, margin=60)
    result = run(observe(gaussians(shape, x, y, 8000.0, 3.0), 2))
    _, distance = nearest(result.objects, x, y)
    assert (distance < 0.5).all()
    assert len(result.objects) - len(x) <= 3
    assert result.background_level == pytest.approx(SKY, abs=0.03 * SIGMA)
    assert result.noise == pytest.approx(SIGMA, rel=0.02)


def test_fluxes_close_and_errors_are_honest(field):
    objects = field["result"].objects[field["index"]]
    good = (field["distance"] < 2) & (np.asarray(objects["flags"]) == 0)
    truth = field["flux"]
    bright = good & (field["snr"] > 200)
    assert np.average(objects["flux"][bright] / truth[bright]) == pytest.approx(1, abs=0.003)
    for low, high in ((10, 30), (30, 100), (100, 500), (10, 500)):
        part = good & (field["snr"] > low) & (field["snr"] < high)
        pull = (objects["flux"][part] - truth[part]) / objects["fluxerr"][part]
        slack = 3 / np.sqrt(2 * part.sum())
        assert 0.95 - slack < np.std(pull) < 1.08 + slack
        # The footprints left out of the annuli hold more of the noise's peaks than of its dips.
        assert abs(np.mean(pull)) < 0.15 + 3 / np.sqrt(part.sum())
    assert np.asarray(objects["snr"]) == pytest.approx(np.asarray(objects["flux"] / objects["fluxerr"]))
    assert (np.diff(field["result"].objects["flux"]) <= 0).all()


def test_centroids(field):
    objects = field["result"].objects[field["index"]]
    dx, dy = objects["x"] - field["x"], objects["y"] - field["y"]
    good = (field["distance"] < 2) & (np.asarray(objects["flags"]) == 0)
    near50 = good & (field["snr"] > 40) & (field["snr"] < 65)
    assert near50.sum() > 50
    for offset in (dx, dy):
        assert np.std(offset[near50]) < 0.05
        bright = good & (field["snr"] > 100)
        assert abs(np.mean(offset[bright])) < 4 * np.std(offset[bright]) / np.sqrt(bright.sum())
        assert abs(np.mean(offset[bright])) < 0.003


def test_centroids_do_not_follow_the_pixel_phase():
    shape = (420, 420)
    x, y = lattice(np.random.default_rng(3), shape, 26)
    result = run(observe(gaussians(shape, x, y, flux_of(800, 2.2), 2.2), 4))
    index, _ = nearest(result.objects, x, y)
    for axis, truth in (("x", x), ("y", y)):
        offset = result.objects[axis][index] - truth
        phase = 2 * np.pi * (truth - np.rint(truth))
        slope = np.linalg.lstsq(np.stack([np.sin(phase), np.cos(phase), np.ones(len(phase))], -1), offset, rcond=None)
        assert np.abs(slope[0]).max() < 0.004


def test_fluxes_of_stars_with_wings_close():
    shape, psf = (400, 400), MoffatPsf(fwhm=3.0, beta=3.0, e1=0.0, e2=0.0, scale=(0.0, 0.0, 0.0), twist=(0.0, 0.0))
    x, y = lattice(np.random.default_rng(5), shape, 45, margin=30)
    light = np.zeros(shape)
    render_points(light, x, y, np.full(len(x), 3e5), psf, faintest=0.01)
    result = run(observe(light, 6))
    index, distance = nearest(result.objects, x, y)
    assert (distance < 0.2).all()
    truth = in_aperture(light, x, y, result.aperture)
    assert np.median(result.objects["flux"][index] / truth) == pytest.approx(1, abs=0.003)


def test_without_a_gain_only_the_sky_makes_the_error(field):
    shape = (SIDE, SIDE)
    data = observe(gaussians(shape, [60, 180], [70, 170], [5e4, 800], 3.0), 8)
    known, unknown = run(data), run(data, gain=None)
    np.testing.assert_array_equal(unknown.objects["flux"], known.objects["flux"])
    np.testing.assert_array_equal(unknown.objects["fluxerr"], unknown.objects["bgerr"])
    star = known.objects[0]
    assert star["fluxerr"] ** 2 - star["bgerr"] ** 2 == pytest.approx(star["flux"] / GAIN)
    # 400 pixels of the annulus make the local background
    area = np.pi * known.aperture**2
    assert star["bgerr"] == pytest.approx(SIGMA * np.sqrt(area + area**2 / 400), rel=0.05)


def test_the_same_again(field):
    data = observe(gaussians((SIDE, SIDE), [60, 180], [70, 170], [5e4, 800], 3.0), 8)
    one, other = run(data), run(data.copy())
    for name in one.objects.colnames:
        np.testing.assert_array_equal(one.objects[name], other.objects[name])
    assert one.seeing.coefficients == other.seeing.coefficients


def test_no_object():
    with pytest.raises(Rejected):
        run(observe(np.zeros((200, 200)), 30), threshold=4.0)
    with pytest.raises(Rejected, match="S/N 50"):
        run(observe(gaussians((200, 200), [50, 150], [60, 140], 900.0, 3.0), 31), min_snr=50.0)


@pytest.mark.parametrize("value", [0.0, 100.0])
def test_constant_image(value):
    with pytest.raises(Rejected):
        run(np.full((200, 200), value, np.float32))


def test_image_masked_throughout():
    data = observe(np.zeros((200, 200)), 32)
    with pytest.raises(Rejected):
        run(data, np.full(data.shape, int(Mask.USER), np.uint16))


def test_nan_pixels_change_nothing_elsewhere():
    light = gaussians((SIDE, SIDE), [60, 180, 100], [70, 170, 200], [5e4, 3e4, 2e4], 3.0)
    data = observe(light, 33)
    holed, mask = data.copy(), np.zeros(data.shape, np.uint16)
    for part in (np.s_[120:140, 100:140], np.s_[70, 61], np.s_[:, 0:3]):
        holed[part], mask[part] = np.nan, int(Mask.NONFINITE)
    result = run(holed, mask)
    for name in result.objects.colnames:
        assert np.isfinite(result.objects[name]).all()
    assert np.isfinite([result.background_level, result.noise, result.seeing.fwhm]).all()
    before, after = the_one(run(data), 180, 170), the_one(result, 180, 170)
    assert after["flux"] == pytest.approx(before["flux"], rel=0.005)
    assert the_one(result, 60, 70)["flags"] & Flag.APERTURE_MASKED


def test_bright_galaxy_is_one_object_and_no_star():
    shape = (400, 400)
    x, y = lattice(np.random.default_rng(34), shape, 40)
    far = np.hypot(x - 200, y - 200) > 75
    v, u = np.indices(shape)
    radius = np.hypot(u - 200, (v - 200) / 0.6)
    stars = gaussians(shape, x[far], y[far], 1e4, 3.0)
    result = run(observe(stars + 3000 * np.exp(-radius / 9), 35))
    galaxy = the_one(result, 200, 200)
    assert galaxy["fwhm"] > 1.3 * result.seeing.fwhm
    assert result.seeing.fwhm == pytest.approx(np.sqrt(9 + 0.46), rel=0.01)
    index, distance = nearest(result.objects, x[far], y[far])
    assert (distance < 0.3).all()
    truth = in_aperture(stars, x[far], y[far], result.aperture)
    assert np.median(result.objects["flux"][index] / truth) == pytest.approx(1, rel=0.01)
    # What is neither star nor the galaxy's centre is a handful of the galaxy's pieces.
    assert len(result.objects) - far.sum() <= 5


def test_sky_gradient():
    shape = (400, 400)
    x, y = lattice(np.random.default_rng(36), shape, 30)
    v, u = np.indices(shape)
    sky = SKY * (1 + 0.5 * u / 400 + 0.3 * v / 400)
    stars = gaussians(shape, x, y, 2e4, 3.0)
    result = run(observe(stars + sky - SKY, 37))
    index, distance = nearest(result.objects, x, y)
    assert (distance < 0.3).all()
    assert len(result.objects) - len(x) <= 3
    ratio = np.asarray(result.objects["flux"][index]) / in_aperture(stars, x, y, result.aperture)
    assert ratio.mean() == pytest.approx(1, abs=0.003)
    # Neither side of the gradient is favoured.
    assert ratio[x > 200].mean() == pytest.approx(ratio[x < 200].mean(), abs=0.006)


def test_kernel_has_unit_sum_and_its_width():
    kernel = gaussian_kernel(4.0)
    middle = len(kernel) // 2
    assert kernel.sum() == pytest.approx(1)
    assert kernel[middle, middle + 2] / kernel[middle, middle] == pytest.approx(0.5)


def line(shape, angle, x, y, fwhm, height):
    """A trail through (x, y): angle of its normal, height of the ridge in ADU."""
    v, u = np.mgrid[: shape[0], : shape[1]]
    off = np.cos(angle) * (u - x) + np.sin(angle) * (v - y)
    return height * np.exp(-4 * np.log(2) * (off / (1.3 * fwhm)) ** 2)


def test_stars_on_a_trail_are_found_and_measured():
    shape, fwhm, rng, angle = (500, 520), 3.0, np.random.default_rng(72), 2.7
    along = np.linspace(-230, 230, 14)
    x, y = 260 - np.sin(angle) * along, 240 + np.cos(angle) * along
    stars = gaussians(shape, x, y, flux_of(10 ** rng.uniform(np.log10(15), 2, 14), fwhm), fwhm)
    others = gaussians(shape, *rng.uniform(20, 480, (2, 60)), flux_of(60, fwhm), fwhm)
    result = run(observe(stars + others + line(shape, angle, 260, 240, fwhm, 60.0), 73))
    (trail,) = result.trails
    assert trail.distance(260, 240) < 1
    index, distance = nearest(result.objects, x, y)
    assert (distance < 2).all()
    found = result.objects[index]
    pulls = (found["flux"] - in_aperture(stars + others, x, y, result.aperture)) / found["fluxerr"]
    assert np.abs(np.median(pulls)) < 1
    assert np.abs(pulls).max() < 5
    assert len(result.objects) <= 14 + 60 + 2


@pytest.mark.parametrize("seed", [74, 174, 274])
def test_a_long_galaxy_is_no_trail(seed):
    shape = (500, 500)
    v, u = np.mgrid[:500, :500]
    galaxy = 150 * np.exp(-np.abs(u - 250) / 35 - np.abs(v - 250) / 3)
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(20, 480, (2, 60))
    result = run(observe(galaxy + gaussians(shape, x, y, flux_of(80, 3.0), 3.0), seed + 1))
    assert result.trails == ()
    assert nearest(result.objects, 250, 250)[1] < 3


@pytest.mark.skipif(not REAL.is_dir(), reason="the real frames are not here")
@pytest.mark.parametrize(("name", "fwhm"), [("undersampled_crowded_j", (0.9, 1.4)), ("galactic_wcs", (1.8, 2.3))])
def test_widths_in_real_surveys_are_those_of_their_stars(name, fwhm):
    image = read_image(REAL / f"{name}.fits")
    found = inspect(image.data, image.header, parameters.InspectConfig())
    result = detect(image.data, found.mask, found.gain, parameters.DetectConfig())
    assert fwhm[0] < result.seeing.fwhm < fwhm[1]
    assert len(result.objects) > 500
    assert np.sum(result.objects["flags"] == 0) > 100
    # A clip is no width.
    width = np.round(np.asarray(result.objects["fwhm"]), 4)
    assert np.unique(width[width < fwhm[1]], return_counts=True)[1].max() < 5


@pytest.mark.parametrize("fwhm", [1.0, 1.2, 1.5, 2.0])
def test_undersampled_stars_are_found_and_measured(fwhm):
    shape, rng = (300, 300), np.random.default_rng(62)
    x, y = lattice(rng, shape, 15)
    snr = 10 ** rng.uniform(1.0, 2.3, len(x))
    light = gaussians(shape, x, y, flux_of(snr, fwhm), fwhm)
    data = observe(light, 63)
    # What has the width of a pixel is no star, however often it comes.
    hot = rng.integers(10, 290, (2, 60))
    free = ndimage.maximum_filter(light, 9)[tuple(hot)] < 0.1 * SIGMA
    data[tuple(hot[:, free])] += rng.uniform(500, 5000, free.sum()).astype(np.float32)
    result = run(data)
    assert result.seeing.fwhm == pytest.approx(np.hypot(fwhm, 2.3548 / np.sqrt(12)), rel=0.06)
    index, distance = nearest(result.objects, x, y)
    good = (snr > 15) & (distance < 0.5)
    assert good.sum() >= 0.99 * np.sum(snr > 15)
    objects = result.objects[index[good]]
    assert np.mean(objects["flags"] == 0) > 0.95
    ratio = objects["flux"] / flux_of(snr[good], fwhm)
    middle = np.median(ratio[snr[good] > 50])
    assert 0.8 < middle < 1
    pulls = (ratio - middle) * flux_of(snr[good], fwhm) / objects["fluxerr"]
    assert 0.8 < 1.4826 * np.median(np.abs(pulls)) < 1.25
