"""Raw and padded pixels: counted in coarse steps, multiplied, saturated in few places, mosaics of colour filters."""

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from starfields import gaussians, lattice

from nightsift import parameters
from nightsift.errors import Rejected
from nightsift.flags import Mask
from nightsift.image.background import background
from nightsift.inspect.bayer import refuse_mosaic
from nightsift.inspect.inspect import Overrides, inspect
from nightsift.inspect.quantum import dithered, quantum
from nightsift.io.fits import read_image

REAL = Path(__file__).parents[3] / "shared" / "data" / "real"
SHAPE = (420, 500)


def counted(sky=350.0, gain=2.0, readnoise=5.0, seed=81, brightest=4.5, fwhm=3.0, shape=SHAPE):
    """Return what a camera counts, in ADU and not yet rounded."""
    rng = np.random.default_rng(seed)
    x, y = lattice(rng, shape, 35)
    light = gaussians(shape, x, y, 10 ** rng.uniform(2.5, brightest, len(x)), fwhm)
    return (rng.poisson((light + sky) * gain) + rng.normal(0, readnoise, shape)) / gain


def look(data, header=None, **given):
    overrides = Overrides(**given) if given else None
    return inspect(np.asarray(data, np.float32), fits.Header(header or {}), parameters.InspectConfig(), overrides)


# --- Steps ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("step", "unit"), [(1, 1.0), (16, 1.0), (4, 1e-20), (1, 0.731), (1, 3e9), (0, 1.0)])
def test_the_step_of_pixel_values(step, unit):
    values = np.random.default_rng(82).normal(900, 12, SHAPE)
    values = (np.rint(values / step) * step if step else values) * unit
    assert quantum(values.astype(np.float32), 12 * unit) == pytest.approx(step * unit, abs=1e-3 * unit)


def test_medians_of_dithered_values_know_no_steps():
    # What comes out by rounding are whole numbers only.
    values = np.rint(np.random.default_rng(83).normal(0.3, 1.0, (4000, 100))).astype(np.float32)
    medians = np.median(dithered(values, 1.0, 1.0)[0], axis=0)
    assert np.median(medians) == pytest.approx(0.3, abs=0.02)
    assert medians.std() == pytest.approx(1.2533 * np.sqrt(1 + 1 / 6) / np.sqrt(4000), rel=0.25)
    for step, noise in ((0.0, 1.0), (1.0, 100.0)):
        assert dithered(values, step, noise)[0] is values


@pytest.mark.parametrize("noise", [0.6, 0.8, 1.0, 1.5, 3.0])
@pytest.mark.parametrize("unit", [1.0, 16.0, 2.5e-9])
def test_lines_of_coarse_counts_are_good(noise, unit):
    rng = np.random.default_rng(84)
    u = np.indices(SHAPE)[1]
    stars = counted(brightest=5.0) - 350
    # The sky goes through several steps, so that the median of a line is now this count, now that.
    data = rng.normal(350, noise, SHAPE) + 0.008 * u + np.where(stars > 60, stars, 0)
    data = np.rint(data)
    data[:, 200] += np.rint(8 * noise)
    data[:, 333] = data[0, 333]
    data[77] -= np.rint(6 * noise)
    found = look(data * unit)
    lines = (found.mask & int(Mask.BADLINE)) != 0
    assert lines[:, 200].all()
    assert lines[77].all()
    # A line of one value stands out only where few values are the same by nature.
    assert noise < 2 or lines[:, 333].all()
    lines[:, [200, 333]], lines[77] = False, False
    assert not lines.any()


@pytest.mark.skipif(not REAL.is_dir(), reason="the real frames ../shared/data/real are not here")
@pytest.mark.parametrize("frame", ["frame1", "frame2"])
def test_a_small_telescope_has_no_bad_lines(frame):
    image = read_image(REAL / "small_telescope" / f"{frame}.fits")
    found = inspect(image.data, image.header, parameters.InspectConfig())
    assert found.masked["BADLINE"] == 0
    assert np.mean(found.mask != 0) < 0.02


# --- Gain -------------------------------------------------------------------------------------------------------------


def about_the_gain(found):
    return [note for note in found.warnings if "gain" in note or "multiples" in note]


@pytest.mark.parametrize("times", [4, 16])
@pytest.mark.parametrize(("sky", "readnoise"), [(9000.0, 3.0), (350.0, 3.0), (60.0, 8.0)])
def test_the_gain_of_padded_values(times, sky, readnoise):
    padded = np.rint(counted(sky=sky, readnoise=readnoise)) * times
    before = look(padded, {"GAIN": 2.0, "RDNOISE": readnoise})
    assert before.gain == pytest.approx(2.0 / times)
    assert any(f"multiples of {times}" in note and "divided" in note for note in before.warnings)
    # A header that speaks of the values as they are is right, and so is the user.
    after = look(padded, {"GAIN": 2.0 / times, "RDNOISE": readnoise})
    assert after.gain == 2.0 / times
    assert not about_the_gain(after)
    assert look(padded, {"GAIN": 2.0}, gain=0.7).gain == 0.7
    # Counts as they are have no such factor.
    plain = look(np.rint(counted(sky=sky, readnoise=readnoise)), {"GAIN": 2.0, "RDNOISE": readnoise})
    assert plain.gain == 2.0
    assert not about_the_gain(plain)


def test_padded_values_without_sky_are_named():
    found = look((np.rint(counted(sky=2.0, readnoise=8.0)) - 2) * 16, {"GAIN": 2.0})
    assert found.gain == 2.0
    assert any("multiples of 16" in note and "too high" in note for note in found.warnings)


@pytest.mark.parametrize(("factor", "word"), [(1.0, None), (0.25, "predicts a sky noise"), (6.0, "predicts a noise")])
def test_a_gain_is_doubted_on_either_side(factor, word):
    data = counted(sky=2000.0)
    for given in ({"header": {"GAIN": 2.0 * factor, "RDNOISE": 5.0}}, {"gain": 2.0 * factor}):
        found = look(data, **given)
        notes = about_the_gain(found)
        assert found.gain == 2.0 * factor
        assert (word is None and not notes) or any(word in note for note in notes)


def test_read_noise_that_is_known_makes_no_doubt():
    noisy = counted(sky=100.0, readnoise=25.0)
    assert not about_the_gain(look(noisy, {"GAIN": 2.0, "RDNOISE": 25.0}))
    assert not about_the_gain(look(noisy, {"GAIN": 2.0}))
    assert any("with the read noise" in note for note in look(noisy, {"GAIN": 2.0, "RDNOISE": 5.0}).warnings)


# --- Saturation -------------------------------------------------------------------------------------------------------


def full_well(pixels, seed=85):
    """Return counts, and the level at which so many of the brightest star's pixels are cut off."""
    data = np.rint(counted(seed=seed, brightest=5.3))
    row, column = np.unravel_index(np.argmax(data), SHAPE)
    around = np.sort(data[row - 1 : row + 2, column - 1 : column + 2].ravel())
    return data, around[-pixels]


@pytest.mark.parametrize("pixels", [2, 3, 5])
@pytest.mark.parametrize("card", [{}, {"SATURATE": 65535.0}, {"BITPIX": 16, "BZERO": 32768}])
def test_few_saturated_pixels_are_saturation(pixels, card):
    data, level = full_well(pixels)
    found = look(np.minimum(data, level), {"GAIN": 2.0, **card})
    assert found.saturation == level
    assert np.all(found.mask[data >= level] & int(Mask.SATURATED))
    assert any("touching pixels share" in note for note in found.warnings)


@pytest.mark.parametrize("seed", range(85, 91))
def test_the_brightest_star_is_not_saturated_by_itself(seed):
    data, _ = full_well(1, seed)
    assert look(data, {"GAIN": 2.0}).saturation is None
    # Neither in an image enlarged by repeating its pixels.
    assert look(np.kron(data[:200, :200], np.ones((2, 2))), {"GAIN": 2.0}).saturation is None


# --- Mosaics ----------------------------------------------------------------------------------------------------------


def mosaic(pattern, sky, stars, seed=86):
    """Return a mosaic by the sky and the stars' light in R, G and B."""
    rng = np.random.default_rng(seed)
    x, y = lattice(rng, SHAPE, 35)
    light = gaussians(SHAPE, x, y, 10 ** rng.uniform(3, 4.7, len(x)), 3.5)
    level, share = (np.empty(SHAPE) for _ in range(2))
    for number, name in enumerate(pattern):
        own = np.s_[number // 2 :: 2, number % 2 :: 2]
        level[own], share[own] = sky["RGB".index(name)], stars["RGB".index(name)]
    return rng.poisson(level + share * light) + rng.normal(100, 6, SHAPE)


@pytest.mark.parametrize("pattern", ["RGGB", "GBRG"])
@pytest.mark.parametrize(
    ("header", "sky", "stars"),
    [
        ({"FILTER": "RGGB"}, (300, 400, 250), (0.6, 1.0, 0.7)),
        ({"BAYERPAT": "RGGB    "}, (300, 310, 320), (0.6, 1.0, 0.7)),
        ({"BAYERPAT": "GBRG"}, (20, 20, 20), (0.6, 1.0, 0.7)),
        ({}, (300, 400, 250), (0.6, 1.0, 0.7)),
        ({}, (200, 400, 400), (0.6, 1.0, 1.0)),
    ],
)
def test_a_mosaic_is_refused(pattern, header, sky, stars):
    with pytest.raises(Rejected, match="mosaic of colour filters"):
        look(mosaic(pattern, sky, stars), header)


@pytest.mark.parametrize("pattern", ["RGGB", "RRGG", "RGRG"])
def test_what_is_no_mosaic_is_not_refused(pattern):
    # Of one colour; or with rows or columns that alternate, as two amplifiers make them.
    sky = (400, 400, 400) if pattern == "RGGB" else (380, 420, 400)
    data = mosaic(pattern, sky, (1, 1, 1))
    assert not any("mosaic" in note for note in look(data, {"FILTER": "r"}).warnings)
    named = look(data, {"BAYERPAT": "RGGB"})
    assert any("not taken for a mosaic" in note for note in named.warnings)


@pytest.mark.skipif(not REAL.is_dir(), reason="the real frames ../shared/data/real are not here")
def test_real_frames_are_no_mosaics():
    paths = sorted(REAL.glob("*/*.fits"))
    assert paths
    for path in paths:
        data = read_image(path).data
        bad = ~np.isfinite(data)
        sky = background(np.where(bad, 0, data), bad, 64)
        refuse_mosaic(data - sky.level, fits.Header(), bad, sky.typical_noise, [])
