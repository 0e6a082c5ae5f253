"""Gain steps in image or template: scaled part by part, never taken for trails."""

from dataclasses import replace

import numpy as np
import pytest
from pairs import differenced, pair

from nightsift.image.padding import PAD
from nightsift.image.trails import Trail, beside_steps
from nightsift.subtract import ratiosteps

SHAPE = (500, 700)


def ratios(seed, n=150):
    """Flux ratios of stars with some variables among them."""
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(0, SHAPE[1], n), rng.uniform(0, SHAPE[0], n)
    error = rng.uniform(0.005, 0.05, n)
    ratio = 0.3 + rng.normal(0, np.hypot(error, 0.03)) + rng.normal(0, 0.7, n) * (rng.random(n) < 0.1)
    return x, y, ratio, error


def beyond(x, y, angle, at=0.0):
    """Tell which positions lie on one side of a line through the middle, or `at` pixels from it."""
    turn = np.radians(angle)
    return np.cos(turn) * (x - SHAPE[1] / 2) + np.sin(turn) * (y - SHAPE[0] / 2) > at


@pytest.mark.parametrize("angle", [0.0, 90.0, 14.0, -14.0, 45.0, 103.0, 180.0])
@pytest.mark.parametrize("gain", [1.5, 0.75])
def test_a_step_in_any_direction_is_found(angle, gain):
    x, y, ratio, error = ratios(1)
    higher = beyond(x, y, angle)
    found = ratiosteps.find(x, y, ratio + np.log(gain) * higher, error, SHAPE)
    factor = found.factor(x, y)
    inner = ~(beyond(x, y, angle, -25) & ~beyond(x, y, angle, 25))
    assert np.median(factor[higher & inner]) / np.median(factor[~higher & inner]) == pytest.approx(gain, rel=0.03)
    for side in (higher & inner, ~higher & inner):
        assert np.mean(np.abs(factor[side] / np.median(factor[side]) - 1) > 0.01) < 0.03
    assert "steps by" in found.sentence()
    assert ("x = " in found.sentence()) == (angle in (0.0, 180.0))


def test_without_a_step_nothing_is_scaled():
    for seed in range(10):
        x, y, ratio, error = ratios(seed)
        slope = 0.15 * (x / SHAPE[1] - 0.5) + 0.1 * (y / SHAPE[0]) ** 2
        rough = np.random.default_rng(seed).normal(0, 0.2, len(x))
        for more in (0, slope, rough):
            assert ratiosteps.find(x, y, ratio + more, error, SHAPE) is None


@pytest.mark.parametrize("which", ["template", "image"])
def test_a_pair_with_a_gain_step_is_subtracted(which):
    made = pair(3.0, 3.05)
    before = differenced(made)
    if which == "template":
        rows, columns = np.mgrid[[slice(0, side) for side in made.reference.data.shape]]
        higher = columns + 0.2 * rows > 0.6 * made.reference.data.shape[1]
        gain = np.where(higher, 1.5, 1.0).astype(np.float32)
        reference = replace(made.reference, data=made.reference.data * gain, noise=made.reference.noise * gain)
        made, gain = replace(made, reference=reference), 1.0
        higher = higher[PAD:-PAD, PAD:-PAD]
    else:
        columns = np.arange(made.exposure.data.shape[1])
        higher = np.broadcast_to(columns >= made.exposure.data.shape[1] // 2, made.exposure.data.shape)
        data = np.where(higher, np.float32(1.5), np.float32(1)) * made.exposure.data
        objects = made.objects.copy()
        at = higher[np.rint(objects["y"]).astype(int), np.rint(objects["x"]).astype(int)]
        for name in ("flux", "fluxerr", "bgerr"):
            objects[name] *= np.where(at, 1.5, 1.0)
        made = replace(made, exposure=replace(made.exposure, data=data), objects=objects)
    found = differenced(made)
    assert any("steps by 0.4" in note for note in found.warnings)
    assert not any("trail" in note for note in found.warnings)
    edge = np.zeros(higher.shape, bool)
    edge[:, 1:] = higher[:, 1:] != higher[:, :-1]
    x, y = (np.rint(made.objects[axis]).astype(int) for axis in "xy")
    near = np.array([np.min(np.hypot(*(np.argwhere(edge) - place).T)) for place in zip(y, x, strict=True)])
    kept = (near > 70) & (np.asarray(made.objects["snr"]) > 20)
    changed, earlier = (np.abs(one.snr[y[kept], x[kept]]) > 6 for one in (found, before))
    assert changed.sum() <= earlier.sum() + 2


def test_the_two_sides_of_a_step_in_the_level_are_no_trails():
    made = pair(3.0, 3.05)
    columns = np.arange(made.exposure.data.shape[1])
    data = made.exposure.data + np.where(columns > 0.4 * len(columns), np.float32(30), np.float32(0))
    found = differenced(replace(made, exposure=replace(made.exposure, data=data)))
    assert not any("trail" in note for note in found.warnings)
    assert any("the level of the image or the template steps along a line at" in note for note in found.warnings)


def test_what_is_beside_a_step():
    up, down = Trail(0.02, 300.0, 10.0, 1), Trail(0.0, 330.0, 10.0, -1)
    turned, far, across = Trail(np.pi - 0.01, -340.0, 10.0, -1), Trail(0.0, 520.0, 9.0, -1), Trail(1.2, 300.0, 9.0, -1)
    assert beside_steps([up, down], SHAPE, 128) == [True, True]
    assert beside_steps([up, turned], SHAPE, 128) == [True, True]
    assert beside_steps([up, far, across], SHAPE, 128) == [False, False, False]
    assert beside_steps([up, replace(down, sign=1)], SHAPE, 128) == [False, False]


def transition(seed, x, y):
    """Return the extinction of a bank of clouds with a soft rim or of a band of cloud, somewhere, natural logarithm."""
    rng = np.random.default_rng(100 + seed)
    turn, width, depth = rng.uniform(0, 2 * np.pi), rng.choice([40, 60, 100]), rng.choice([0.3, 0.6, 1.0])
    away = np.cos(turn) * (x - SHAPE[1] / 2) + np.sin(turn) * (y - SHAPE[0] / 2) - rng.uniform(-150, 150)
    return -depth / (1 + np.exp(-away / width)) if seed % 2 else -depth * np.exp(-((away / width) ** 2) / 8)


def test_the_rim_of_a_cloud_is_no_step():
    taken, found = 0, 0
    for seed in range(17):
        x, y, ratio, error = ratios(seed, 100)
        taken += ratiosteps.find(x, y, ratio + transition(seed, x, y), error, SHAPE) is not None
        if seed % 3 == 0:
            step = np.log(1.4) * beyond(x, y, 0.0 if seed % 2 else 30.0)
            found += ratiosteps.find(x, y, ratio + step, error, SHAPE) is not None
    assert taken <= 1
    assert found >= 5
