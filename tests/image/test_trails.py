"""Straight trails against injected ones, and against what is no trail."""

import numpy as np
import pytest
from scipy import ndimage

from nightsift.image.trails import Trail, find_trails, trail_light

SIZE, FWHM = 600, 3.0
SIGMA = FWHM / 2.3548
UNIT = np.sqrt(4 * np.pi) * SIGMA  # noise of a matched filter, per noise of a pixel
EVERYWHERE = np.ones((SIZE, SIZE), bool)


def filtered(image):
    """S/N map of an image whose pixels have noise 1."""
    return (ndimage.gaussian_filter(image, SIGMA) * UNIT).astype(np.float32)


def noise(seed, size=SIZE):
    return np.random.default_rng(seed).normal(0, 1, (size, size))


def trail(angle, offset, snr, size=SIZE):
    """A line as wide as the PSF, whose ridge in the S/N map has that height."""
    v, u = np.mgrid[:size, :size]
    distance = np.cos(angle) * u + np.sin(angle) * v - offset
    line = np.exp(-(distance**2) / (2 * SIGMA**2))
    return snr * line / (UNIT / np.sqrt(2))


def through(angle, x, y):
    return np.cos(angle) * x + np.sin(angle) * y


def stars(seed, number, snr):
    rng = np.random.default_rng(seed)
    image = np.zeros((SIZE, SIZE))
    x, y = rng.integers(0, SIZE, (2, number))
    np.add.at(image, (y, x), snr)
    return ndimage.gaussian_filter(image, SIGMA) * UNIT


def turned(one, other):
    """Degrees between two lines."""
    return np.degrees(np.abs((one - other + np.pi / 2) % np.pi - np.pi / 2))


def closure(found, angle, x, y):
    """Degrees, and pixels along the normal at the middle of the trail, by which a line is off."""
    return turned(found.angle, angle), found.distance(x, y)


def check_found(trails, angle, x, y, sign=1):
    assert len(trails) == 1
    assert trails[0].sign == sign
    off_angle, off_place = closure(trails[0], angle, x, y)
    assert off_angle < 0.3
    assert off_place < 1


@pytest.mark.parametrize("degrees", [0.0, 90.0, 45.0, 135.0, 30.5, 88.3, 178.7])
@pytest.mark.parametrize("snr", [3.0, 20.0])
def test_a_trail_is_found_where_it_is(degrees, snr):
    angle = np.radians(degrees)
    x, y = 310.3, 280.6
    trails = find_trails(filtered(noise(1) + trail(angle, through(angle, x, y), snr)), EVERYWHERE, FWHM)
    check_found(trails, angle, x, y)
    assert trails[0].height == pytest.approx(snr, rel=0.15)


@pytest.mark.parametrize(("snr", "size", "least"), [(2.0, SIZE, 6), (1.7, 1600, 4)])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_faint_trail_is_found(snr, size, least, sign):
    """No pixel of it is a detection; the fainter it is, the longer it has to be."""
    found = 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        angle = rng.uniform(0, np.pi)
        x, y = rng.uniform(0.3 * size, 0.7 * size, 2)
        image = filtered(noise(10 + seed, size) + sign * trail(angle, through(angle, x, y), snr, size))
        trails = find_trails(image, np.ones(image.shape, bool), FWHM)
        found += len(trails) == 1
        if trails:
            check_found(trails, angle, x, y, sign)
    assert found >= least


def test_two_trails_are_two():
    image = noise(2) + trail(0.4, through(0.4, 300, 300), 6) + trail(2.0, through(2.0, 200, 350), 10)
    trails = find_trails(filtered(image), EVERYWHERE, FWHM)
    assert len(trails) == 2
    assert sorted(round(one.angle, 1) % 3.1 for one in trails) == [0.4, 2.0]


def test_a_trail_is_found_across_stars():
    image = noise(3) + stars(4, 100, 30) + trail(1.1, through(1.1, 250, 330), 5)
    check_found(find_trails(filtered(image), EVERYWHERE, FWHM), 1.1, 250, 330)


def test_a_wide_trail_is_wide():
    angle, offset = 0.9, through(0.9, 300, 300)
    v, u = np.mgrid[:SIZE, :SIZE]
    band = np.abs(np.cos(angle) * u + np.sin(angle) * v - offset) < 8
    trails = find_trails(filtered(noise(5) + 3.0 * band), EVERYWHERE, FWHM)
    assert trails
    near = min(trails, key=lambda one: one.distance(300, 300))
    assert turned(near.angle, angle) < 0.5
    assert 6 <= near.width <= 16


def test_a_trail_is_found_where_parts_are_masked():
    angle = 0.6
    usable = EVERYWHERE.copy()
    usable[:, 250:330] = False
    image = filtered(noise(6) + trail(angle, through(angle, 300, 300), 5))
    check_found(find_trails(np.where(usable, image, 0), usable, FWHM), angle, 300, 300)


def test_random_stars_make_no_trail():
    for seed in range(4):
        assert not find_trails(
            filtered(noise(20 + seed)) + stars(30 + seed, 300, 40).astype(np.float32) * UNIT, EVERYWHERE, FWHM
        )


@pytest.mark.parametrize("degrees", [0.0, 45.0, 73.0])
def test_a_row_of_stars_is_no_trail(degrees):
    angle = np.radians(degrees)
    image = np.zeros((SIZE, SIZE))
    for along in (-160, -85, 5, 70, 150):
        x, y = 300 - np.sin(angle) * along, 300 + np.cos(angle) * along
        image[round(y), round(x)] += 200
    both = filtered(noise(40) + 3 * UNIT * image)
    assert not find_trails(both, EVERYWHERE, FWHM)


def test_noise_makes_no_trail():
    for seed in range(8):
        assert not find_trails(filtered(noise(60 + seed)), EVERYWHERE, FWHM)


@pytest.mark.parametrize("shape", [(30, 40), (5, 500), (3, 3)])
def test_little_to_look_at_makes_no_trail(shape):
    rng = np.random.default_rng(7)
    assert not find_trails(rng.normal(0, 1, shape).astype(np.float32), np.ones(shape, bool), FWHM)
    assert not find_trails(np.zeros(shape, np.float32), np.ones(shape, bool), FWHM)
    assert not find_trails(rng.normal(0, 1, shape).astype(np.float32), np.zeros(shape, bool), FWHM)


def taken_out(angle, snr, seed, extra=0.0, gain=None, wiggle=0.0):
    """Difference, its errors and its pulls after the light of an injected trail was taken out of it."""
    along = np.arange(SIZE)[:, None] * np.ones(SIZE)
    line = trail(angle, through(angle, 310, 280), snr) * (1 + wiggle * np.sin(along / 150))
    light = line + extra
    image = (light + noise(seed) * (np.sqrt(1 + np.maximum(light, 0) / gain) if gain else 1)).astype(np.float32)
    found = find_trails(filtered(image), EVERYWHERE, FWHM)
    assert len(found) == 1
    part = trail_light(image, np.ones_like(image), EVERYWHERE, found[0], FWHM)
    at, sigma = (part.row, part.column), np.ones_like(image)
    image[at] -= part.light
    sigma[at] = np.hypot(1, part.noise)
    return image, sigma, np.abs(line) > 0.3


@pytest.mark.parametrize("angle", [0.0, 0.7, np.pi / 2, 2.3])
@pytest.mark.parametrize(("snr", "wiggle"), [(5.0, 0.0), (40.0, 0.0), (40.0, 0.5)])
def test_nothing_is_left_of_a_trail(angle, snr, wiggle):
    image, _, on = taken_out(angle, snr, 71, wiggle=wiggle)
    assert np.mean(image[on]) == pytest.approx(0, abs=0.03)
    assert np.std(image[on]) == pytest.approx(1, abs=0.06)
    assert np.abs(filtered(image)[on]).max() < 5


def test_the_photons_of_a_trail_become_noise():
    image, sigma, on = taken_out(0.7, 60.0, 72, gain=2.0)
    assert np.std(image[on]) > 1.5
    assert np.std(image[on] / sigma[on]) == pytest.approx(1, abs=0.08)


def test_what_lies_on_a_trail_stays():
    places = [(310 - np.sin(0.7) * s, 280 + np.cos(0.7) * s) for s in (-150, -60, 40, 120, 200)]
    v, u = np.mgrid[:SIZE, :SIZE]
    for snr in (12.0, 60.0):
        peak = snr / UNIT * 2  # of a Gaussian whose matched filter has that S/N
        sources = sum(peak * np.exp(-((u - x) ** 2 + (v - y) ** 2) / (2 * SIGMA**2)) for x, y in places)
        image, _, _ = taken_out(0.7, 30.0, 73, extra=sources)
        values = [filtered(image)[round(y), round(x)] for x, y in places]
        wanted = [filtered(sources)[round(y), round(x)] for x, y in places]
        assert np.mean(values) == pytest.approx(np.mean(wanted), abs=0.06 * snr + 0.5)


def test_a_trail_without_usable_pixels_has_no_light():
    part = trail_light(noise(74), np.ones((SIZE, SIZE)), ~EVERYWHERE, Trail(0.7, 400.0, 4.0, 1), FWHM)
    assert not part.light.any()
    assert not part.noise.any()


def test_a_trail_across_a_hole_is_fitted_beside_it():
    """Pixels of a hole are no numbers."""
    image, usable = noise(75) + trail(0.7, 400.0, 20.0), EVERYWHERE.copy()
    row, column = (np.rint(400 * part).astype(int) for part in (np.sin(0.7), np.cos(0.7)))
    usable[row - 15 : row + 15, column - 15 : column + 15] = False
    whole = trail_light(image, np.ones_like(image), usable, Trail(0.7, 400.0, 4.0, 1), FWHM)
    image[~usable] = np.nan
    part = trail_light(image, np.ones_like(image), usable, Trail(0.7, 400.0, 4.0, 1), FWHM)
    np.testing.assert_array_equal(part.light, whole.light)
    np.testing.assert_array_equal(part.noise, whole.noise)
