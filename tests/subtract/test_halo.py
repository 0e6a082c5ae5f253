"""Halos of bright stars against known ones."""

import numpy as np
import pytest

from nightsift.subtract.halo import OUTER, remove_halos

SIZE, PAD, NOISE, FWHM = 500, 40, 10.0, 3.0
REACH = int(np.ceil(OUTER * FWHM))
USABLE = np.ones((SIZE, SIZE), bool)
CORE = np.arange(REACH + 1) < 1.5 * FWHM


def profile(r):
    """Residual light at a distance relative to the star's peak: a ring that fades."""
    r = np.asarray(r, float)
    return 0.01 * np.exp(-0.5 * ((r - 7) / 2.5) ** 2)


def noise(seed, size=SIZE):
    return np.random.default_rng(seed).normal(0, NOISE, (size, size)).astype(np.float32)


def stars(seed, number=40):
    """Places, some beyond the border, and peaks."""
    rng = np.random.default_rng(seed)
    x, y = rng.integers(-15, SIZE + 15, (2, 5 * number))
    kept = []
    for i in range(len(x)):
        if all(np.hypot(x[i] - x[j], y[i] - y[j]) > 2 * REACH for j in kept):
            kept.append(i)
    kept = kept[:number]
    return x[kept], y[kept], np.exp(rng.uniform(np.log(3e3), np.log(3e4), len(kept)))


def painted(x, y, light, shape):
    """An image of a function of distance times each star's light."""
    image = np.zeros((SIZE + 2 * PAD, SIZE + 2 * PAD))
    v, u = np.mgrid[: image.shape[0], : image.shape[1]] - PAD
    for i, j, value in zip(x, y, light, strict=True):
        near = (slice(max(j + PAD - 40, 0), j + PAD + 41), slice(max(i + PAD - 40, 0), i + PAD + 41))
        image[near] += value * shape(np.hypot(u[near] - i, v[near] - j))
    return image.astype(np.float32)


def inner(framed):
    return framed[PAD:-PAD, PAD:-PAD]


def gaussian(r):
    return np.exp(-4 * np.log(2) * (r / FWHM) ** 2)


def rings(difference, x, y, light, usable=USABLE):
    """Mean residual of the stars at each distance, relative to their light."""
    v, u = np.mgrid[:SIZE, :SIZE]
    total, weight = np.zeros(REACH + 1), np.zeros(REACH + 1)
    for i, j, value in zip(x, y, light, strict=True):
        distance = np.rint(np.hypot(u - i, v - j)).astype(int)
        near = (distance <= REACH) & usable
        total += np.bincount(distance[near], difference[near] * value, REACH + 1)
        weight += np.bincount(distance[near], minlength=REACH + 1) * value**2
    return total / np.maximum(weight, 1e-30)


def scene(seed, scale=1.0):
    """What the stage `subtract` has: the template with its border, what is subtracted, the difference."""
    x, y, light = stars(seed)
    framed = painted(x, y, light / scale, gaussian)
    halos = inner(painted(x, y, light, profile))
    return x, y, light, framed, inner(framed) * np.float32(scale), halos


# The last fifth of the profile fades, and the level far out counts as sky.
BODY = (np.arange(REACH + 1) >= 1.5 * FWHM) & (np.arange(REACH + 1) < 0.7 * REACH)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("scale", [1.0, 0.2])
def test_a_halo_is_removed(sign, scale):
    x, y, light, framed, model, halos = scene(1, scale)
    difference = noise(2) + sign * halos
    before = rings(difference, x, y, light)[BODY]
    halo = remove_halos(difference, model, framed, NOISE, USABLE, FWHM)
    after = rings(difference, x, y, light)[BODY]
    assert np.abs(before).mean() > 0.003
    assert np.abs(after).mean() < 0.1 * np.abs(before).mean()
    np.testing.assert_allclose(halo.profile[BODY], sign * profile(np.arange(REACH + 1))[BODY], atol=8e-4)
    inside = (x >= 0) & (y >= 0) & (x < SIZE) & (y < SIZE)
    corrected = set(zip(halo.x, halo.y, strict=True))
    assert set(zip(x[inside], y[inside], strict=True)) <= corrected <= set(zip(x, y, strict=True))
    assert np.all(halo.profile[CORE] == 0)


def test_the_halo_of_a_star_beyond_the_border_is_removed():
    x, y, light, framed, model, halos = scene(3)
    outside = (x < 0) | (y < 0) | (x >= SIZE) | (y >= SIZE)
    assert outside.sum() >= 3
    difference = noise(4) + halos
    before = rings(difference, x[outside], y[outside], light[outside])[BODY]
    remove_halos(difference, model, framed, NOISE, USABLE, FWHM)
    after = rings(difference, x[outside], y[outside], light[outside])[BODY]
    assert np.abs(after).mean() < 0.3 * np.abs(before).mean()


def test_where_nothing_is_left_nothing_is_done():
    x, y, light, framed, model, _ = scene(5)
    difference = noise(6)
    before = difference.copy()
    remove_halos(difference, model, framed, NOISE, USABLE, FWHM)
    assert np.abs(difference - before).max() < 0.3 * NOISE
    assert np.sqrt(np.mean((difference - before) ** 2)) < 0.02 * NOISE
    assert np.abs(rings(difference, x, y, light)[BODY]).max() < 0.0008


@pytest.mark.parametrize("faintness", [1e-6, 0.01])
def test_without_bright_stars_nothing_is_done(faintness):
    *_, framed, model, halos = scene(7)
    difference = noise(8) + halos
    before = difference.copy()
    halo = remove_halos(difference, faintness * model, faintness * framed, NOISE, USABLE, FWHM)
    np.testing.assert_array_equal(difference, before)
    assert len(halo.x) == 0
    assert not halo.left(slice(0, SIZE), slice(0, SIZE)).any()


def test_a_handful_of_stars_tells_nothing():
    x, y, light = (part[:4] for part in stars(9))
    framed = painted(x, y, light, gaussian)
    difference = noise(10) + inner(painted(x, y, light, profile))
    before = difference.copy()
    assert len(remove_halos(difference, inner(framed), framed, NOISE, USABLE, FWHM).x) == 0
    np.testing.assert_array_equal(difference, before)


def test_a_saturated_star_has_the_halo_of_its_true_light():
    """Its peak in the template is clipped and its core masked; the rings tell how bright it is."""
    x, y, light, framed, model, halos = scene(11)
    inside = (x > REACH) & (y > REACH) & (x < SIZE - REACH) & (y < SIZE - REACH)
    burnt = np.flatnonzero(inside)[:3]
    usable = USABLE.copy()
    for k in burnt:
        usable[y[k] - 4 : y[k] + 5, x[k] - 4 : x[k] + 5] = False
    more = 2.5
    halos = halos + inner(painted(x[burnt], y[burnt], (more - 1) * light[burnt], profile))
    difference = noise(12) + halos
    true = more * light[burnt]
    before = rings(difference, x[burnt], y[burnt], true, usable)[BODY]
    halo = remove_halos(difference, model, framed, NOISE, usable, FWHM)
    after = rings(difference, x[burnt], y[burnt], true, usable)[BODY]
    assert np.abs(after).mean() < 0.15 * np.abs(before).mean()
    for k in burnt:
        own = np.hypot(halo.x - x[k], halo.y - y[k]).argmin()
        assert halo.light[own] == pytest.approx(more * light[k], rel=0.15)


def test_stars_that_differ_leave_something():
    x, y, light, framed, model, _ = scene(13)
    strength = np.random.default_rng(14).normal(1, 0.5, len(x))
    difference = noise(15) + inner(painted(x, y, light * strength, profile))
    halo = remove_halos(difference, model, framed, NOISE, USABLE, FWHM)
    assert halo.scatter[7] == pytest.approx(0.5 * profile(7), rel=0.4)
    left = halo.left(slice(0, SIZE), slice(0, SIZE))
    assert left.shape == (SIZE, SIZE)
    part = halo.left(slice(100, 250), slice(30, 90))
    np.testing.assert_allclose(part, left[100:250, 30:90], rtol=1e-5, atol=1e-5)
    k = np.argmax(halo.light * ((halo.x > 30) & (halo.x < SIZE - 30) & (halo.y > 30) & (halo.y < SIZE - 30)))
    place = halo.y[k], halo.x[k] + 7
    assert left[place] == pytest.approx(halo.light[k] * halo.scatter[7], rel=0.3)


def test_equal_stars_leave_little():
    *_, framed, model, halos = scene(16)
    difference = noise(17) + halos
    halo = remove_halos(difference, model, framed, NOISE, USABLE, FWHM)
    assert halo.scatter.max() < 0.1 * profile(7)


def test_everything_masked_is_no_reason_to_fail():
    *_, framed, model, halos = scene(18)
    difference = noise(19) + halos
    before = difference.copy()
    remove_halos(difference, model, framed, NOISE, ~USABLE, FWHM)
    np.testing.assert_array_equal(difference, before)
