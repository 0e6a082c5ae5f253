"""The noise of a difference on light is learnt from it: S/N of 1 sigma on sky and on every level of light."""

from dataclasses import replace

import numpy as np
import pytest
from pairs import CASES, FRAME, GAIN, NOISE, PARAMS, between, differenced, light, moffat, pair, significant
from scipy.spatial import cKDTree
from scipy.stats import theilslopes

from nightsift import parameters
from nightsift.detect.detect import detect
from nightsift.image.padding import PAD
from nightsift.psf.forced import forced
from nightsift.simulate.pixels import render_points
from nightsift.subtract.light_noise import LEVELS, Gains, LightNoise, Samples, light_noise
from nightsift.subtract.subtract import subtract


def samples(truth, seed=1, number=40_000, outliers=0.0):
    """Draw numerators of a matched filter, half of them on empty sky."""
    rng = np.random.default_rng(seed)
    level = np.where(np.arange(number) % 2, 0.0, np.exp(rng.uniform(0, np.log(300), number)))
    made = Samples(
        numerator=np.zeros(number),
        sky=rng.uniform(0.8, 1.2, number),
        photons=0.1 * level,
        flux=6 * level * rng.uniform(0.5, 1, number),
        shift=3 * level * rng.uniform(0, 1, number),
        left=np.zeros(number),
        level=level,
        snr=np.zeros(number),
        around=np.zeros(number),
        lit=level > 0,
    )
    numerator = rng.normal(size=number) * np.sqrt(made.variance(truth))
    changed = (rng.uniform(size=number) < outliers) & (level > 0)
    numerator[changed] += 15 * np.sqrt(made.variance(truth)[changed])
    snr = np.abs(numerator) / np.sqrt(made.sky + made.photons)
    return replace(made, numerator=numerator, snr=snr, around=snr)


def learnt(made, gains=Gains.BOTH, scatter=0.01):
    return light_noise(made, ~made.lit, 3.0, 9.0, gains, scatter)


def widths(made, noise):
    pull = made.numerator / np.sqrt(made.variance(noise))
    bins = zip((-1.0, *LEVELS[:4]), (*LEVELS[:4], 300.0), strict=True)
    parts = (pull[(made.level > low) & (made.level <= high)] for low, high in bins)
    return [float(np.diff(np.percentile(part, [15.865, 84.135]))[0] / 2) for part in parts]


@pytest.mark.parametrize("outliers", [0.0, 0.1])
@pytest.mark.parametrize(
    "truth",
    [
        LightNoise(sky=1.0, flux=0.01),
        LightNoise(sky=0.5, flux=0.003, shift=0.02),
        LightNoise(sky=1.3, flux=0.03, shift=0.1),
        LightNoise(sky=1.0, flux=0.01, levels=(2.0, 1.5, 1.0, 0.8, 0.7, 1.0, 1.0)),
    ],
)
def test_the_significance_has_a_width_of_one_on_every_level(truth, outliers):
    noise = learnt(samples(truth, outliers=outliers))
    # What varies is to be told apart from it.
    assert widths(samples(truth, seed=2), noise) == pytest.approx(np.ones(5), abs=0.08)
    assert noise.sky == pytest.approx(truth.sky, rel=0.03)


def test_changes_that_are_many_and_faint_are_none_of_the_noise():
    """A third of the light has something new of S/N 7 to 14 upon it, which shows as less beside its middle."""
    truth = LightNoise(sky=1.0, flux=0.004)
    made = samples(truth)
    rng = np.random.default_rng(3)
    new = made.lit & (rng.uniform(size=len(made.snr)) < 0.33)
    peak = np.where(new, rng.uniform(7, 14, len(made.snr)) * np.sqrt(made.variance(truth)), 0)
    numerator = made.numerator + peak * rng.uniform(0.1, 1, len(made.snr))
    plain = np.sqrt(made.sky + made.photons)
    made = replace(made, numerator=numerator, snr=np.abs(numerator) / plain, around=np.maximum(made.snr, peak / plain))
    assert widths(samples(truth, seed=2), learnt(made, scatter=0.004)) == pytest.approx(np.ones(5), abs=0.15)


def test_noise_far_beyond_what_clean_stars_tell_is_learnt_all_the_same():
    truth = LightNoise(sky=1.0, flux=0.03, shift=0.2)
    made = samples(truth)
    assert widths(samples(truth, seed=2), learnt(made, scatter=0.003)) == pytest.approx(np.ones(5), abs=0.1)


def test_photons_are_learnt_where_no_gain_is_known():
    truth = LightNoise(photons=6.0, flux=0.003)
    assert learnt(samples(truth), gains=Gains.NONE, scatter=0.003).photons == pytest.approx(6, rel=0.2)
    assert learnt(samples(replace(truth, photons=0.0)), gains=Gains.NONE, scatter=0.003).photons < 0.1


def test_photons_of_a_template_without_gain_come_on_top():
    made = samples(LightNoise(photons=3.0, flux=0.003))
    assert learnt(made, gains=Gains.IMAGE, scatter=0.003).photons == pytest.approx(3, rel=0.2)
    made = samples(LightNoise(photons=0.5, flux=0.003))
    assert learnt(made, gains=Gains.IMAGE, scatter=0.003).photons >= 1


def test_a_template_whose_photons_are_not_in_its_noise():
    """As that of a stack of which nobody tells the gain."""
    made = pair(3.6, 2.6, number=0, template_noise=1.5)
    flat = np.full_like(made.reference.noise, np.median(made.reference.noise))
    known, unknown = (
        subtract(made.exposure, replace(made.reference, noise=flat, photons=photons), made.objects, PARAMS)
        for photons in (True, False)
    )
    assert known.facts["noise_on_light"]["photons"] < 1.3
    assert unknown.facts["noise_on_light"]["photons"] > 1.5


def test_without_light_what_clean_stars_tell_holds():
    made = samples(LightNoise())
    noise = learnt(made[~made.lit], scatter=0.02)
    assert (noise.flux, noise.photons, noise.shift) == (0.02, 1.0, 0.0)


@pytest.mark.parametrize("case", CASES)
def test_the_significance_map_of_stars_is_that_of_noise(case):
    """Of stars that are brighter than the sky's noise by 1 to 100, transients apart."""
    snr, level = [], []
    for seed in (11, 12, 13):
        found = differenced(pair(*CASES[case], seed, number=0), "alard-lupton")
        use = found.mask == 0
        snr.append(found.snr[use])
        level.append(found.model[use] / np.median(found.sigma))
    snr, level = np.concatenate(snr), np.concatenate(level)
    for low, high in ((1, 3), (3, 10), (10, 30), (30, 100)):
        part = snr[(level >= low) & (level < high)]
        assert 0.78 < np.diff(np.percentile(part, [15.865, 84.135]))[0] / 2 < 1.15, low


def test_galaxies_among_the_stars_do_not_hide_transients():
    """A third of the objects are extended, and a quarter brighter or fainter: none of that is noise of clean stars."""
    made = pair(3.6, 2.6, number=0)
    objects, rng = made.objects.copy(), np.random.default_rng(5)
    odd = rng.uniform(size=len(objects)) < 0.3
    data = made.exposure.data.copy()
    y, x = np.mgrid[: data.shape[0], : data.shape[1]]
    for row in objects[odd]:
        sigma = 3.6 / 2.3548
        share = rng.normal(0, 0.15) * row["flux"] / (2 * np.pi * sigma**2)
        data += (share * np.exp(-((x - row["x"]) ** 2 + (y - row["y"]) ** 2) / (2 * sigma**2))).astype(np.float32)
    objects["fwhm"][odd] *= 1.5
    found = subtract(replace(made.exposure, data=data), made.reference, objects, replace(PARAMS, max_changed=1))
    assert found.facts["residual"] < 0.02


@pytest.mark.parametrize("slope", [0.06, -0.05])
@pytest.mark.parametrize("case", ["template sharper", "template broader"])
def test_what_goes_with_the_colour_of_stars_is_taken_out(case, slope):
    """The passbands of image and template differ: redder stars are brighter in one of them."""
    made = pair(*CASES[case], number=0)
    objects, data = made.objects.copy(), made.exposure.data.copy()
    color = np.random.default_rng(3).normal(0.8, 0.5, len(objects))
    fwhm = CASES[case][0]
    render_points(
        data, objects["x"], objects["y"], slope * (color - 0.8) * objects["flux"] / light(fwhm, made.exposure.aperture),
        moffat(fwhm), 0.1,
    )  # fmt: skip
    made = replace(made, exposure=replace(made.exposure, data=data))
    params = replace(PARAMS, max_changed=1)
    blind = subtract(made.exposure, made.reference, objects, params)
    objects["color"] = np.where(np.arange(len(objects)) % 10, color, np.nan)
    found = subtract(made.exposure, made.reference, objects, params)
    assert found.facts["color_slope"] == pytest.approx(slope, abs=0.01)
    assert np.isnan(blind.facts["color_slope_err"])
    assert found.facts["residual"] < 0.6 * blind.facts["residual"]
    bright = objects[(objects["snr"] > 30) & np.isfinite(objects["color"]) & (objects["flags"] == 0)]
    for result, expected in ((found, 0), (blind, slope)):
        left = forced(result.data, result.sigma, result.mask != 0, result.psf, bright["x"], bright["y"]).flux
        trend = theilslopes(left / bright["flux"], bright["color"])[0]
        assert trend == pytest.approx(expected, abs=0.015)


def added(data, x, y, flux):
    """The image with point sources more."""
    frame = np.zeros((FRAME, FRAME), np.float32)
    render_points(frame, np.asarray(x) + PAD, np.asarray(y) + PAD, np.asarray(flux), moffat(3.6), 0.1)
    return data + frame[PAD:-PAD, PAD:-PAD]


def with_galaxies(made, slope, number=12, points=80):
    """Add galaxies, of many point sources each. Redder ones, and redder stars, are brighter in the image."""
    rng = np.random.default_rng(8)
    data, template, objects = made.exposure.data, made.reference.data.copy(), made.objects
    x, y = between(rng, objects["x"] + PAD, objects["y"] + PAD, number)
    color, star_color = np.where(np.arange(number) % 2, 0.4, 1.2), rng.normal(0.8, 0.3, len(objects))
    part = 45 * NOISE * 2 * np.pi * 4.5**2 / points
    column, row = (at.repeat(points) + rng.normal(0, 4, number * points) for at in (x, y))
    data = added(data, column, row, np.repeat(part * (1 + slope * (color - 0.8)), points))
    render_points(template, column + PAD, row + PAD, np.full(len(row), 1.7 * part), moffat(2.6, -1), 0.1)
    redder = slope * (star_color - 0.8) * objects["flux"] / light(3.6, made.exposure.aperture)
    data = added(data, objects["x"], objects["y"], redder)
    found = detect(data, made.exposure.mask, GAIN, parameters.DetectConfig()).objects
    known = cKDTree(np.column_stack([np.append(objects["x"], x), np.append(objects["y"], y)]))
    distance, index = known.query(np.column_stack([found["x"], found["y"]]))
    found["color"] = np.where(distance < 3, np.append(star_color, color)[index], np.nan)
    exposure, reference = replace(made.exposure, data=data), replace(made.reference, data=template)
    return replace(made, exposure=exposure, reference=reference, objects=found, x=x, y=y)


@pytest.mark.parametrize("slope", [0.08, -0.08])
def test_what_goes_with_the_colour_of_galaxies_is_taken_out_over_all_of_their_light(slope):
    made = with_galaxies(pair(3.6, 2.6, number=0), slope)
    x, y, flux = made.x, made.y, 25 * significant(3.6, 1, 0.4)
    exposure = replace(made.exposure, data=added(made.exposure.data, x[:1], y[:1], [flux]))
    found = subtract(exposure, made.reference, made.objects, replace(PARAMS, max_changed=1))
    new = forced(found.data, found.sigma, found.mask != 0, found.psf, x[:1], y[:1])
    assert new.flux[0] == pytest.approx(flux * light(3.6, exposure.aperture), abs=4 * new.fluxerr[0])
    # Beside the middle, where a point source would not be enough.
    beside = (x[1:] + np.where(x[1:] < 192, 4, -4), y[1:])
    left = forced(found.data, found.sigma, found.mask != 0, found.psf, *beside)
    beneath = forced(found.model, found.sigma, found.mask != 0, found.psf, *beside).flux
    share, noise = left.flux / beneath, np.median(left.fluxerr / beneath)
    assert np.sqrt(np.mean(share**2)) < np.hypot(1.2 * noise, abs(slope) * 0.4 / 3)


def test_colours_that_tell_nothing_change_nothing():
    made = pair(3.6, 2.6, number=0)
    objects = made.objects.copy()
    objects["color"] = np.random.default_rng(3).normal(0.8, 0.5, len(objects))
    found = subtract(made.exposure, made.reference, objects, PARAMS)
    assert abs(found.facts["color_slope"]) < 0.003
