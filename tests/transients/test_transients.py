"""Search and vetting against injected sources and artefacts."""

from dataclasses import replace

import numpy as np
import pytest
from astropy.table import Table
from astropy.wcs import WCS
from bogus import artefacts
from differences import FWHM, NO_OBJECTS, NOISE, SIZE, lattice, nearest, noise, psf_of, rendered, search_of, unit_of
from scipy import ndimage

from nightsift import parameters
from nightsift.flags import Flag, Mask
from nightsift.image.trails import Trail
from nightsift.tables import SCHEMAS
from nightsift.transients.transients import Calibration, cutouts, find, noise_threshold, peaks, transients

SATURATION = 30000.0
PARAMS = parameters.TransientsConfig()


@pytest.fixture(scope="module")
def psf():
    return psf_of(FWHM)


@pytest.fixture(scope="module")
def unit(psf):
    return unit_of(psf)


def found_in(difference, psf, objects=NO_OBJECTS, params=PARAMS, **layers):
    return transients(search_of(difference, psf, **layers), objects, params).candidates


def near(table, x, y, radius=8.0):
    return table[np.hypot(table["x"] - x, table["y"] - y) < radius]


@pytest.mark.parametrize(("snr", "limit"), [(7, 0.5), (20, 0.12), (100, 0.025)])
@pytest.mark.parametrize("sign", [1, -1])
def test_injected_sources_are_found_and_real(psf, unit, snr, limit, sign):
    x, y = lattice(2)
    flux = sign * snr * unit
    star = rendered(x, y, max(1.5 * snr, 30) * unit) if sign < 0 else None
    table = found_in(noise(3) + rendered(x, y, flux), psf, model=star)
    index, distance = nearest(table, x, y)
    strong = np.full(len(x), snr > 7) | (distance < 1.5)
    assert strong.mean() > 0.88  # at S/N 7 the noise takes one of 20 below the threshold of 5.3
    assert len(np.unique(index[strong])) == strong.sum()
    mine = table[index[strong]]
    assert mine["is_real"].mean() > 0.94
    assert np.sqrt(np.mean(distance[strong] ** 2) / 2) < limit
    assert distance[strong].max() < 4.2 * limit
    # Nothing is left of what was subtracted here.
    pull = (mine["flux"] - flux) / np.sqrt(mine["fluxerr"] ** 2 - mine["expected"] ** 2)
    assert np.std(pull) == pytest.approx(1, abs=0.35)
    assert abs(np.mean(pull)) < 0.6
    assert np.mean(mine["label"] == ("new" if sign > 0 else "faded")) > (0.8 if snr == 7 else 0.99)
    assert np.all(np.sign(mine["flux"]) == sign)
    np.testing.assert_allclose(mine["snr"], mine["flux"] / mine["fluxerr"])
    real = np.asarray(table["is_real"], bool)
    assert real.sum() <= len(x) + 1
    assert np.median(mine["chi2"]) == pytest.approx(1, abs=0.25)
    assert np.median(mine["sharpness"]) == pytest.approx(1, abs=0.15)
    assert np.median(mine["fwhm"]) == pytest.approx(FWHM, rel=0.2)


def test_negative_sources_can_be_left_out(psf, unit):
    x, y = lattice(4)
    flux = np.where(np.arange(len(x)) % 2, -30, 30) * unit
    image = noise(5) + rendered(x, y, flux)
    both = found_in(image, psf)
    assert (both["flux"] < 0).sum() >= 18
    # Light that was not there cannot have gone.
    assert not np.asarray(both["is_real"])[both["flux"] < 0].any()
    assert all("negative without template source" in reason for reason in both["reasons"][both["flux"] < 0])
    positive = found_in(image, psf, params=replace(PARAMS, negative=False))
    assert len(positive) >= 18
    assert np.all(positive["flux"] > 0)


def test_candidates_get_magnitudes_and_places(psf, unit):
    x, y = lattice(4)
    flux = np.where(np.arange(len(x)) % 2, -30, 30) * unit
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cdelt = (
        ["RA---TAN", "DEC--TAN"],
        [10, 5],
        [1, 1],
        [-1e-4, 1e-4],
    )
    calibration = Calibration(lambda x, y: 25 + 0.001 * x, wcs, Table())
    image = search_of(noise(5) + rendered(x, y, flux), psf)
    table = transients(image, NO_OBJECTS, PARAMS, calibration=calibration).candidates
    expected = 25 + 0.001 * table["x"] - 2.5 * np.log10(np.abs(table["flux"]))
    np.testing.assert_allclose(table["mag_calib"], expected)
    np.testing.assert_allclose(table["mag_calib_err"], 1.0857 / np.abs(table["snr"]), rtol=1e-3)
    assert (table["maglim"] > table["mag_calib"]).all()
    np.testing.assert_allclose([table["ra"], table["dec"]], wcs.all_pix2world(table["x"], table["y"], 0))


def test_labels_say_what_the_template_shows(psf, unit):
    x, y = np.array([100.0, 200.3, 299.6, 100.2]), np.array([100.0, 99.7, 200.4, 300.0])
    star = np.array([200, 200, 0, 100]) * unit
    change = np.array([60, -60, 60, -60]) * unit
    # The last fades beside the peak of what the template shows.
    model = rendered(x + np.array([0, 0, 0, 2.3]), y, np.maximum(star, 1e-3))
    table = found_in(noise(6) + rendered(x, y, change), psf, model=model)
    index, distance = nearest(table, x, y)
    assert distance.max() < 0.3
    assert list(table["label"][index]) == ["variable", "faded", "new", "negative"]
    assert np.asarray(table["is_real"][index])[:3].all()
    np.testing.assert_allclose(table["template_flux"][index][:3], star[:3], atol=unit, rtol=0.02)
    assert list(np.isfinite(table["template_distance"][index])) == [True, True, False, True]


@pytest.mark.parametrize("sign", [1, -1])
def test_a_star_that_only_the_template_is_deep_enough_to_show_is_no_new_one(psf, unit, sign):
    """Its peak is 1.5 or 3.5 times the noise of a pixel of the difference, and ten times that of the template."""
    x, y = lattice(91)
    star = rendered(x, y, (1.5 if sign > 0 else 3.5) * NOISE / psf.stamp(200, 200, 1).max())
    grain = np.random.default_rng(92).normal(0, 0.1 * NOISE, star.shape).astype(np.float32)
    change = rendered(x, y, 12 * unit) if sign > 0 else -star
    search = replace(search_of(noise(93) + change, psf), model=star + grain)
    table = find(search, NO_OBJECTS, 5.0, PARAMS)
    index, distance = nearest(table, x, y)
    seen = distance < (1 if sign > 0 else 2)
    assert seen.sum() > (30 if sign > 0 else 10)
    assert np.mean(table["label"][index[seen]] == ("variable" if sign > 0 else "faded")) > 0.9
    # Beside the stars of such a template, and in its noise, what is new stays new.
    aside = rendered(x + 5, y, 12 * unit)
    table = find(
        replace(search, difference=search.difference - change + aside, snr=search_of(noise(93) + aside, psf).snr),
        NO_OBJECTS,
        5.0,
        PARAMS,
    )
    index, distance = nearest(table, x + 5, y)
    assert np.mean(table["label"][index[distance < 1]] == "new") > 0.9


@pytest.mark.parametrize("shift", [0.05, 0.15, 0.4, 1.0])
@pytest.mark.parametrize("mismatch", [0.01, 0.0])
def test_a_star_that_is_shifted_is_set_aside(psf, unit, shift, mismatch):
    """With and without what the subtraction is known to leave of stars."""
    x, y = lattice(7)
    angle = np.random.default_rng(8).uniform(0, 2 * np.pi, len(x))
    star = rendered(x, y, 300 * unit)
    moved = rendered(x + shift * np.cos(angle), y + shift * np.sin(angle), 300 * unit)
    table = found_in(noise(9) + moved - star, psf, model=star, mismatch=mismatch)
    if shift > 0.3 or not mismatch:
        assert len(table) > (5 if shift < 0.1 else 60)
    assert np.sum(table["is_real"]) <= 0.05 * len(table)
    if shift > 0.1 and len(table):
        explained = ["dipole" in reason or "shift" in reason for reason in table["reasons"]]
        assert np.mean(explained) > 0.9
    if shift == 0.4 and not mismatch:
        assert np.mean(["shift of the template" in reason for reason in table["reasons"]]) > 0.9


def test_a_subtraction_with_the_wrong_scale_leaves_residuals_that_are_set_aside(psf, unit):
    x, y = lattice(10)
    star = rendered(x, y, 500 * unit)
    table = found_in(noise(11) + 0.02 * star, psf, model=star, mismatch=0.0)
    assert len(table) > 30
    assert not np.asarray(table["is_real"], bool).any()
    assert all("residual of a star" in reason for reason in table["reasons"])


@pytest.mark.parametrize(("snr", "real"), [(15, 0.1), (20, 0.05), (50, 0.0), (200, 0.0)])
def test_a_hit_of_a_cosmic_ray_is_set_aside(psf, snr, real):
    """One pixel of that many sigma, which is 0.4 times as much in the map."""
    x, y = (np.rint(part).astype(int) for part in lattice(12))
    image = noise(13)
    image[y, x] += snr * NOISE
    table = found_in(image, psf)
    index, distance = nearest(table, x, y)
    hit = table[index[distance < 2]]
    assert len(hit) >= (34 if snr > 15 else 20)
    assert np.mean(np.asarray(hit["is_real"], bool)) <= real
    if snr >= 50:
        assert all("too sharp" in reason or "poor PSF fit" in reason for reason in hit["reasons"])


# As far as the noise lets them be told from point sources: a streak of 1.5 FWHM fits the PSF to 94 per cent.
@pytest.mark.parametrize("fwhm", [2.0, 3.0, 5.0])
@pytest.mark.parametrize(
    ("kind", "size", "snr", "real"),
    [
        ("block", (3, 3), 10, 0.15),
        ("block", (2, 2), 10, 0.15),
        ("block", (1, 6), 10, 0.1),
        ("block", (1, 12), 10, 0.1),
        ("block", (3, 3), 20, 0.03),
        ("block", (2, 3), 50, 0.03),
        ("block", (1, 5), 50, 0.03),
        ("streak", 2.5, 20, 0.1),
        ("streak", 3.0, 15, 0.1),
        ("streak", 3.0, 50, 0.03),
    ],
)
def test_blocks_of_hot_pixels_and_short_streaks_are_set_aside(fwhm, kind, size, snr, real):
    psf, (x, y) = psf_of(fwhm), lattice(22)
    table = found_in(noise(23) + artefacts(x, y, psf, kind, size, snr, fwhm), psf)
    index, distance = nearest(table, x, y)
    assert np.mean(distance < 4) > 0.9
    assert np.mean(np.asarray(table["is_real"], bool)[index]) <= real
    # Point sources of the same S/N pass.
    sources = found_in(noise(23) + rendered(x, y, snr * unit_of(psf), fwhm), psf)
    assert np.mean(np.asarray(sources["is_real"], bool)[nearest(sources, x, y)[0]]) > 0.94


@pytest.mark.parametrize("fwhm", [2.0, 3.0, 5.0])
@pytest.mark.parametrize(("size", "snr"), [(2.0, 20), (1.5, 30), (1.5, 50)])
def test_a_streak_of_at_most_two_fwhm_is_set_aside_or_flagged(fwhm, size, snr):
    """It may be two sources."""
    psf, (x, y) = psf_of(fwhm), lattice(22)
    table = found_in(noise(23) + artefacts(x, y, psf, "streak", size, snr, fwhm), psf)
    real = np.asarray(table["is_real"], bool)
    plain = real & ((np.asarray(table["flags"]) & int(Flag.BLEND | Flag.DEBLENDED)) == 0)
    assert plain.sum() <= 0.1 * len(x)
    assert real.sum() <= len(x) + 2
    assert (table["elongation"][real] > 0).all()


@pytest.mark.parametrize("height", [3.0, 15.0])
def test_what_is_left_of_a_trail_is_set_aside(psf, height):
    """A trail that flickers: its model has no such detail."""
    v, u = np.mgrid[:SIZE, :SIZE]
    across = (u - 200) * np.sin(0.7) - (v - 190) * np.cos(0.7)
    along = (u - 200) * np.cos(0.7) + (v - 190) * np.sin(0.7)
    light = height * NOISE * np.exp(-4 * np.log(2) * (across / 3) ** 2) * (0.15 + 0.1 * np.sin(along / 3))
    search = search_of(noise(14) + light.astype(np.float32), psf)
    whole = Trail(np.pi / 2 + 0.7, -200 * np.sin(0.7) + 190 * np.cos(0.7), 4.0, 1, 10 * height)
    table = transients(replace(search, quality=replace(search.quality, trails=(whole,))), NO_OBJECTS, PARAMS).candidates
    assert np.asarray(table["is_real"], bool).sum() <= 1


@pytest.mark.parametrize("width", [6.0, 9.0, 15.0])
@pytest.mark.parametrize("height", [5.0, 30.0])
def test_a_galaxy_that_is_left_over_is_set_aside(psf, width, height):
    x, y = lattice(15)
    v, u = np.mgrid[:SIZE, :SIZE]
    image = noise(15)
    for i, j in zip(x, y, strict=True):
        image += (height * NOISE * np.exp(-4 * np.log(2) * ((u - i) ** 2 + (v - j) ** 2) / width**2)).astype(np.float32)
    table = found_in(image, psf)
    index, distance = nearest(table, x, y)
    assert (distance < width / 2).mean() > 0.95
    assert np.asarray(table["is_real"][index]).mean() <= 0.05


def test_a_masked_centre_speaks_against(psf, unit):
    x, y = np.array([100.0, 200.0, 300.0]), np.array([100.0, 200.0, 300.0])
    mask = np.zeros((SIZE, SIZE), np.uint16)
    mask[100, 100] = int(Mask.COSMIC)
    mask[200:206, 200:206] = int(Mask.USER)
    mask[300, 303] = int(Mask.COSMIC)
    table = found_in(noise(16) + rendered(x, y, 60 * unit), psf, mask=mask)
    index, distance = nearest(table, x, y)
    assert distance.max() < 1
    one, two, three = table[index]
    assert not one["is_real"]
    assert "masked centre" in one["reasons"]
    assert one["flags"] & int(Flag.COSMIC)
    assert not two["is_real"]
    assert "masked" in two["reasons"]
    assert three["is_real"]
    assert 0 < three["masked"] < 0.05
    assert three["flags"] & int(Flag.APERTURE_MASKED)
    assert three["flux"] == pytest.approx(60 * unit, rel=0.08)


@pytest.mark.parametrize("over", [1.5, 4.0, 15.0])
def test_an_outburst_that_saturates_is_kept(psf, over):
    x, y = np.array([120.3, 250.7]), np.array([130.6, 280.1])
    flux = over * SATURATION / psf.stamp(200, 200, 3).max()
    clipped = np.minimum(noise(17) + rendered(x, y, flux), SATURATION)
    saturated = clipped >= SATURATION
    mask = np.where(ndimage.binary_dilation(saturated, iterations=2), int(Mask.SATURATED), 0).astype(np.uint16)
    table = found_in(clipped, psf, mask=mask, saturated=saturated)
    index, distance = nearest(table, x, y)
    assert distance.max() < 0.6
    for candidate in table[index]:
        assert candidate["is_real"], candidate["reasons"]
        assert candidate["flags"] & int(Flag.SATURATED)
        assert candidate["flux"] == pytest.approx(flux, rel=0.1)
    assert np.asarray(table["is_real"], bool).sum() == 2
    assert len(table) <= 4


def test_what_a_saturated_star_leaves_is_set_aside(psf, unit):
    """A star that saturates in both images: masked for the template too."""
    flux = 10 * SATURATION / psf.stamp(200, 200, 3).max()
    star = rendered([200.2], [200.4], flux)
    saturated = star >= SATURATION
    both = int(Mask.SATURATED | Mask.TEMPLATE_BAD)
    mask = np.where(ndimage.binary_dilation(saturated, iterations=2), both, 0).astype(np.uint16)
    objects = Table(NO_OBJECTS)
    objects.add_row({**dict.fromkeys(objects.colnames, 0), "x": 200.2, "y": 200.4, "flux": flux, "flags": 4})
    table = found_in(noise(18) + 0.01 * star, psf, objects, model=star, mask=mask, mismatch=0.0)
    assert len(table)
    assert not np.asarray(table["is_real"], bool).any()


def test_no_source_is_listed_twice(psf, unit):
    x, y = lattice(19)
    flux = np.exp(np.random.default_rng(20).uniform(np.log(8), np.log(2000), len(x))) * unit
    table = found_in(noise(21) + rendered(x, y, flux), psf)
    for place in zip(x, y, strict=True):
        assert len(near(table, *place, FWHM)) == 1


def test_two_sources_are_two_candidates(psf, unit):
    x, y = np.array([200.0, 206.5]), np.array([200.0, 200.0])
    table = found_in(noise(22) + rendered(x, y, 60 * unit), psf)
    index, distance = nearest(table, x, y)
    assert len(set(index)) == 2
    assert distance.max() < 0.4


def test_noise_makes_no_candidate(psf):
    """Of 5 x 0.16 Mpx and two signs, 0.08 peaks are expected."""
    assert sum(len(found_in(noise(30 + seed), psf)) for seed in range(5)) <= 1


@pytest.mark.parametrize(("fwhm", "false_alarms"), [(2.4, 20.0), (2.4, 3.0), (5.0, 6.0)])
def test_noise_is_above_the_threshold_no_more_often_than_is_asked_for(fwhm, false_alarms):
    threshold, psf = noise_threshold(fwhm, false_alarms), psf_of(fwhm)
    count, number, side = 0, 3, 2000
    for seed in range(number):
        search = search_of(noise(31 + seed, side), psf)
        table = find(search, NO_OBJECTS, threshold, PARAMS)
        count += np.sum(["faint" not in reason for reason in table["rejections"]])
    expected = 2 * false_alarms * number * side**2 / 1e6
    # Pixels do not sample the very top of every peak: there are less, never more.
    assert 0.75 * expected - 3 * np.sqrt(expected) < count < expected + 3 * np.sqrt(expected)


def test_the_threshold_grows_with_the_rarity_of_false_alarms_and_is_never_low():
    assert noise_threshold(3.0, 0.001) > noise_threshold(3.0, 0.05) > noise_threshold(3.0, 5.0) >= 4
    assert noise_threshold(6.0, 0.05) < noise_threshold(2.0, 0.05)
    assert noise_threshold(3.0, 1e9) == 4


def test_a_threshold_that_is_given_counts(psf, unit):
    x, y = lattice(2)
    image = noise(3) + rendered(x, y, 12 * unit)
    assert len(found_in(image, psf, params=replace(PARAMS, threshold=8.0))) == len(x)
    assert len(found_in(image, psf, params=replace(PARAMS, threshold=16.0))) == 0


def test_an_empty_difference_gives_an_empty_table_with_its_columns(psf, unit):
    nothing = found_in(np.zeros((SIZE, SIZE), np.float32), psf)
    something = found_in(noise(23) + rendered([200.0], [200.0], 50 * unit), psf)
    later = {"ra", "dec", "mag_calib", "mag_calib_err", "image", "mjd", "filter", "maglim"}
    assert len(nothing) == 0
    assert len(something) == 1
    for table in (nothing, something):
        assert set(SCHEMAS["candidates"]) - later <= set(table.colnames)
    assert set(nothing.colnames) == set(something.colnames)


def test_real_ones_come_first_and_the_strongest_of_them(psf, unit):
    x, y = lattice(24)
    flux = np.exp(np.random.default_rng(25).uniform(np.log(10), np.log(300), len(x))) * unit
    image = noise(26) + rendered(x, y, flux)
    columns, rows = (np.rint(part).astype(int) for part in lattice(27))
    image[rows[::4], columns[::4]] += 100 * NOISE
    table = found_in(image, psf)
    real = np.asarray(table["is_real"], bool)
    assert 20 < real.sum() < len(real) - 3
    assert np.all(np.diff(real.astype(int)) <= 0)
    for part in (table[real], table[~real]):
        assert np.all(np.diff(np.abs(part["snr"])) <= 0)
    assert np.all((table["score"] >= 0) & (table["score"] <= 1))
    assert np.median(table["score"][real]) > 2 * np.median(table["score"][~real])
    assert all(bool(reason) != good for reason, good in zip(table["reasons"], real, strict=True))


def test_a_source_at_the_border_is_found(psf, unit):
    x, y = np.array([2.0, 200.0, 397.0]), np.array([50.0, 397.5, 3.0])
    table = found_in(noise(28) + rendered(x, y, 40 * unit), psf)
    index, distance = nearest(table, x, y)
    assert distance.max() < 0.5
    assert np.asarray(table["is_real"][index], bool).all()
    np.testing.assert_allclose(table["flux"][index], 40 * unit, rtol=0.12)


def test_peaks_of_a_ridge_are_one():
    snr = np.zeros((50, 60), np.float32)
    snr[20, 30:33] = 8, 9, 9
    snr[40, 10] = -7
    snr[5, 5] = 4.9
    x, y, sign = peaks(snr, 5.0, 3.0)
    assert sorted(zip(x, y, sign, strict=True)) == [(10, 40, -1), (31, 20, 1)]


def test_cutouts_are_centred_and_nan_beyond_the_image():
    image = np.arange(30 * 40, dtype=float).reshape(30, 40)
    result = cutouts([image, -image], [10.4, 0.0], [12.0, 29.0], 11)
    assert result.shape == (2, 2, 11, 11)
    np.testing.assert_array_equal(result[0, 0], image[7:18, 5:16])
    assert result[1, 1, 5, 5] == -image[29, 0]
    assert np.isnan(result[1, 0, :, :5]).all()
    assert np.isnan(result[1, 0, 6:]).all()
    assert cutouts([image], [], [], 11).shape == (0, 1, 11, 11)
