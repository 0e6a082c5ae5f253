"""Apertures and the annuli around them: the local background and its error."""

import numpy as np
import pytest
from starfields import GAIN, INSIDE, SIGMA, SKY, gaussians, lattice, observe

from nightsift.detect.aperture import Aperture, _clipped_mean, annulus, measure


def clipped(values):
    """The same without vectors: three rounds of 3 sigma about the median, sigma from the central 68 per cent."""
    values = np.sort(values)
    for _ in range(3):
        if not len(values):
            break
        last = len(values) - 1
        middle = values[round(last / 2)]
        spread = (values[round(0.8413 * last)] - values[round(0.1587 * last)]) / 2
        values = values[np.abs(values - middle) <= 3 * spread]
    return values


def test_clipped_mean_agrees_with_a_plain_one():
    rng = np.random.default_rng(50)
    values = rng.normal(10, 2, (60, 200))
    values[:30, ::9] += rng.exponential(60, values[:30, ::9].shape)
    usable = rng.random(values.shape) > np.linspace(0, 0.95, 60)[:, None]
    level, error, count = _clipped_mean(values, usable)
    for i in range(len(values)):
        kept = clipped(values[i, usable[i]])
        assert count[i] == len(kept)
        assert level[i] == pytest.approx(kept.mean())
        assert error[i] == pytest.approx(kept.std() / np.sqrt(len(kept)))
    outliers = np.abs(level[:30] - 10) / error[:30]
    assert np.median(outliers) < 3


def test_clipped_mean_of_nothing():
    level, error, count = _clipped_mean(np.full((1, 5), 7.0), np.zeros((1, 5), bool))
    assert (level[0], error[0], count[0]) == (0, 0, 0)


def test_annulus_takes_the_right_pixels():
    v, u = np.indices((70, 80)).astype(float)
    image, aperture = 2 * u - v, Aperture(3.0, 5.0, 7.0)
    unusable = np.zeros(image.shape, bool)
    unusable[30:, :] = True
    x, y = np.array([40.0, 2.0, 40.0]), np.array([20.0, 20.0, 60.0])
    level, error, count = annulus(image, unusable, x, y, aperture)
    for i in (0, 1):
        distance = np.hypot(u - x[i], v - y[i])
        values = clipped(image[(distance >= 5) & (distance <= 7) & ~unusable])
        assert level[i] == pytest.approx(values.mean())
        assert (count[i], error[i]) == (len(values), pytest.approx(values.std() / np.sqrt(len(values))))
    assert count[2] == 0


def test_large_annuli_are_sampled_evenly():
    image = np.random.default_rng(51).normal(20, 5, (200, 200)).astype(np.float32)
    image += 0.02 * (np.arange(200) - 100)
    x, y = lattice(np.random.default_rng(52), image.shape, 12, margin=50)
    level, error, count = annulus(image, np.zeros(image.shape, bool), x, y, Aperture(6.0, 25.0, 35.0))
    assert (count <= 400).all()
    assert (count > 380).all()
    pull = (level - 20 - 0.02 * (x - 100)) / error
    assert abs(pull.mean()) < 0.6
    assert 0.7 < pull.std() < 1.3


def test_objects_do_not_lift_the_background_of_others():
    shape = (120, 120)
    light = gaussians(shape, [60, 79, 60, 41], [60, 60, 79, 60], [1e4, 2e5, 2e5, 2e5], 3.0)
    data = observe(light, 53)
    image = (data - SKY).astype(np.float32)
    noise = np.full(shape, SIGMA, np.float32)
    lit = light - light.min() > 1
    arguments = (image, noise, np.zeros(shape, np.uint16), np.array([60.0]), np.array([60.0]), GAIN)
    with_map = measure(*arguments, Aperture(3.0, 15.0, 21.0), lit)
    assert with_map["flux"][0] == pytest.approx(1e4 * INSIDE, abs=4 * with_map["fluxerr"][0])
    assert with_map["background"][0] == pytest.approx(0, abs=5 * SIGMA / 20)


def test_background_of_the_annulus_is_subtracted():
    light = gaussians((120, 120), [60.0], [60.0], 1e4, 3.0)
    noise, mask, place = np.ones(light.shape, np.float32), np.zeros(light.shape, np.uint16), np.array([60.0])
    plain, lifted = (
        measure((light + level).astype(np.float32), noise, mask, place, place, GAIN, Aperture(3.0, 15.0, 21.0))
        for level in (0, 50)
    )
    assert lifted["background"][0] == pytest.approx(50, abs=1e-3)
    assert lifted["flux"][0] == pytest.approx(plain["flux"][0], rel=1e-4)
