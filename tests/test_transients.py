"""Search and vetting against injected sources and artefacts."""

from dataclasses import replace

import numpy as np
import pytest
from astropy.table import Table
from scipy import ndimage

from nightsift import parameters
from nightsift.matchedfilter import Noise, matched_filter
from nightsift.planes import Flag, Mask
from nightsift.psf import fit_psf
from nightsift.simulate_pixels import Psf as Truth
from nightsift.simulate_pixels import render_points
from nightsift.tables import SCHEMAS, empty
from nightsift.transients import Search, cutouts, peaks, transients

SIZE, NOISE, FWHM, SATURATION = 400, 10.0, 3.0, 30000.0
TRUTH = Truth(FWHM, 3.0, 0.05, 0.03, (0.0, 0.0, 0.0), (0.0, 0.0))
PARAMS = parameters.Transients()
NO_OBJECTS = empty("objects")


def lattice(seed, side=6, size=SIZE):
    rng = np.random.default_rng(seed)
    cell = (np.arange(side) + 0.5) * size / side
    return tuple(part.ravel() + rng.uniform(-8, 8, side**2) for part in np.meshgrid(cell, cell))


def rendered(x, y, flux):
    image = np.zeros((SIZE, SIZE), np.float32)
    x, y = np.atleast_1d(x).astype(float), np.atleast_1d(y).astype(float)
    for sign in (1, -1):
        chosen = np.sign(np.broadcast_to(flux, x.shape)) == sign
        part = np.zeros_like(image)
        render_points(
            part, x[chosen], y[chosen], np.abs(np.broadcast_to(flux, x.shape)[chosen]).astype(float), TRUTH, 0.1
        )
        image += sign * part
    return image


@pytest.fixture(scope="module")
def psf():
    """The PSF of noiseless stars, with all their light as their flux."""
    x, y = lattice(1)
    stars = Table({"x": x, "y": y, "flux": np.full(x.size, 1e5), "snr": np.full(x.size, 300.0)})
    image = rendered(x, y, 1e5)
    return fit_psf(image, np.full(image.shape, NOISE, np.float32), np.zeros(image.shape, bool), stars, FWHM, 12.0)


@pytest.fixture(scope="module")
def unit(psf):
    """Flux of a source of S/N 1."""
    return NOISE / np.sqrt(np.sum(psf.stamp(200, 200, 5) ** 2))


def noise(seed):
    return np.random.default_rng(seed).normal(0, NOISE, (SIZE, SIZE)).astype(np.float32)


def search_of(difference, psf, model=None, mask=None, saturated=None, mismatch=0.01):
    """What the stage `subtract` would say of a difference whose noise is white."""
    mask = np.zeros(difference.shape, np.uint16) if mask is None else mask
    model = np.zeros_like(difference) if model is None else model
    variance = np.full(difference.shape, NOISE**2, np.float32)
    nothing = np.zeros_like(variance)
    delta = np.zeros((5, 5))
    delta[2, 2] = 1
    about = Noise(variance, nothing, delta, mismatch * ndimage.maximum_filter(model, 3))
    stamp = psf.stamp(SIZE / 2, SIZE / 2, int(np.ceil(1.5 * psf.fwhm)))
    found = matched_filter(difference, mask == 0, variance, about, stamp)
    return Search(
        difference=difference,
        sigma=np.sqrt(variance),
        snr=found.snr,
        mask=mask,
        model=model,
        saturated=np.zeros(mask.shape, bool) if saturated is None else saturated,
        psf=psf,
        noise=1.0,
        residual=mismatch,
        mismatch=mismatch,
    )


def found_in(difference, psf, objects=NO_OBJECTS, params=PARAMS, **layers):
    return transients(search_of(difference, psf, **layers), objects, params).candidates


def nearest(table, x, y):
    """Index of the candidate nearest to each position, and its distance; infinite without candidates."""
    if not len(table):
        return np.zeros(len(x), int), np.full(len(x), np.inf)
    distance = np.hypot(
        np.asarray(table["x"]) - np.asarray(x)[:, None], np.asarray(table["y"]) - np.asarray(y)[:, None]
    )
    return distance.argmin(axis=1), distance.min(axis=1)


def near(table, x, y, radius=8.0):
    return table[np.hypot(table["x"] - x, table["y"] - y) < radius]


@pytest.mark.parametrize(("snr", "limit"), [(7, 0.5), (20, 0.12), (100, 0.025)])
@pytest.mark.parametrize("sign", [1, -1])
def test_injected_sources_are_found_and_real(psf, unit, snr, limit, sign):
    x, y = lattice(2)
    flux = sign * snr * unit
    table = found_in(noise(3) + rendered(x, y, flux), psf)
    index, distance = nearest(table, x, y)
    strong = np.full(len(x), snr > 7) | (distance < 1.5)
    assert strong.mean() > 0.96  # at S/N 7 the noise takes one below 5 now and then
    assert len(np.unique(index[strong])) == strong.sum()
    mine = table[index[strong]]
    assert mine["is_real"].mean() > 0.94
    assert np.sqrt(np.mean(distance[strong] ** 2) / 2) < limit
    assert distance[strong].max() < 4.2 * limit
    pull = (mine["flux"] - flux) / mine["fluxerr"]
    assert np.std(pull) == pytest.approx(1, abs=0.35)
    assert abs(np.mean(pull)) < 0.6
    assert set(mine["label"]) == {"new" if sign > 0 else "negative"}
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
    assert (found_in(image, psf)["flux"] < 0).sum() >= 18
    positive = found_in(image, psf, params=replace(PARAMS, negative=False))
    assert len(positive) >= 18
    assert np.all(positive["flux"] > 0)


def test_labels_say_what_the_template_shows(psf, unit):
    x, y = np.array([100.0, 200.3, 299.6, 100.2]), np.array([100.0, 99.7, 200.4, 300.0])
    star = np.array([200, 200, 0, 0]) * unit
    change = np.array([60, -60, 60, -60]) * unit
    table = found_in(noise(6) + rendered(x, y, change), psf, model=rendered(x, y, np.maximum(star, 1e-3)))
    index, distance = nearest(table, x, y)
    assert distance.max() < 0.3
    assert list(table["label"][index]) == ["variable", "faded", "new", "negative"]
    assert np.asarray(table["is_real"][index]).all()
    np.testing.assert_allclose(table["template_flux"][index], star, atol=unit, rtol=0.02)
    assert list(np.isfinite(table["template_distance"][index])) == [True, True, False, False]


@pytest.mark.parametrize("shift", [0.05, 0.15, 0.4, 1.0])
def test_a_star_that_is_shifted_is_set_aside(psf, unit, shift):
    x, y = lattice(7)
    angle = np.random.default_rng(8).uniform(0, 2 * np.pi, len(x))
    star = rendered(x, y, 300 * unit)
    moved = rendered(x + shift * np.cos(angle), y + shift * np.sin(angle), 300 * unit)
    table = found_in(noise(9) + moved - star, psf, model=star)
    assert not np.asarray(table["is_real"], bool).any()
    # Without what the subtraction is known to leave of stars:
    table = found_in(noise(9) + moved - star, psf, model=star, mismatch=0.0)
    assert len(table) > (5 if shift < 0.1 else 60)
    assert not np.asarray(table["is_real"], bool).any()
    assert np.mean(["dipole" in reason for reason in table["reasons"]]) > 0.9


def test_a_subtraction_with_the_wrong_scale_leaves_residuals_that_are_set_aside(psf, unit):
    x, y = lattice(10)
    star = rendered(x, y, 500 * unit)
    table = found_in(noise(11) + 0.03 * star, psf, model=star, mismatch=0.0)
    assert len(table) > 30
    assert not np.asarray(table["is_real"], bool).any()
    assert all("residual of a star" in reason for reason in table["reasons"])


@pytest.mark.parametrize(("snr", "real"), [(20, 0.3), (30, 0.0), (50, 0.0), (200, 0.0)])
def test_a_hit_of_a_cosmic_ray_is_set_aside(psf, snr, real):
    """One pixel of that many sigma, which is 0.4 times as much in the map; the faintest look like stars."""
    x, y = (np.rint(part).astype(int) for part in lattice(12))
    image = noise(13)
    image[y, x] += snr * NOISE
    table = found_in(image, psf)
    index, distance = nearest(table, x, y)
    hit = table[index[distance < 2]]
    assert len(hit) >= 34
    assert np.mean(np.asarray(hit["is_real"], bool)) <= real
    if snr >= 50:
        assert all("too sharp" in reason or "unlike the PSF" in reason for reason in hit["reasons"])


@pytest.mark.parametrize("width", [2.0, 3.5])
@pytest.mark.parametrize("height", [3.0, 15.0])
def test_a_trail_is_set_aside(psf, width, height):
    v, u = np.mgrid[:SIZE, :SIZE]
    distance = (u - 200) * np.sin(0.7) - (v - 190) * np.cos(0.7)
    trail = height * NOISE * np.exp(-4 * np.log(2) * (distance / width) ** 2)
    table = found_in(noise(14) + trail.astype(np.float32), psf)
    assert len(table) > 20
    assert np.asarray(table["is_real"], bool).sum() <= 0.03 * len(table)
    assert np.mean(["on a trail" in reason for reason in table["reasons"]]) > 0.85


def test_a_galaxy_that_is_left_over_is_set_aside(psf):
    v, u = np.mgrid[:SIZE, :SIZE]
    blob = 5 * NOISE * np.exp(-4 * np.log(2) * ((u - 200) ** 2 + (v - 190) ** 2) / 9.0**2)
    table = found_in(noise(15) + blob.astype(np.float32), psf)
    assert len(near(table, 200, 190, 12))
    assert not np.asarray(near(table, 200, 190, 12)["is_real"], bool).any()


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
    assert sum(len(found_in(noise(30 + seed), psf)) for seed in range(5)) <= 1


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
