"""The map of the background and of its noise."""

import numpy as np
import pytest

from nightsift.background import background


def test_background_map_follows_a_slope_and_the_noise():
    shape = (512, 512)
    v, u = np.indices(shape)
    truth = 300 + 0.05 * u
    sigma = np.where(v < 256, 5.0, 15.0)
    data = (truth + np.random.default_rng(38).normal(0, 1, shape) * sigma).astype(np.float32)
    bad = np.zeros(shape, bool)
    bad[70:110], data[70:110] = True, 1e6
    result = background(data, bad, 64)
    inner = np.s_[40:-40, 40:-40]
    assert np.abs(result.level - truth)[inner].max() < 2.5
    assert np.median(result.noise[40:160]) == pytest.approx(5, rel=0.05)
    assert np.median(result.noise[-160:-40]) == pytest.approx(15, rel=0.05)
    assert result.level.dtype == result.noise.dtype == np.float32


def test_background_of_an_image_smaller_than_a_cell():
    data = np.random.default_rng(39).normal(50, 4, (30, 90)).astype(np.float32)
    result = background(data, np.zeros(data.shape, bool), 64)
    assert result.level.mean() == pytest.approx(50, abs=0.5)
    assert result.noise.mean() == pytest.approx(4, rel=0.1)
