"""What is left of the background in a difference is taken out where it is there, and nothing else."""

import numpy as np
import pytest
from scipy import ndimage

from nightsift.image.background import without_crowd
from nightsift.subtract.leveling import take_level

SHAPE = (500, 620)
FWHM = 4.0


def noise(seed, smooth=0.0):
    image = np.random.default_rng(seed).normal(0, 1, SHAPE)
    if smooth:
        image = ndimage.gaussian_filter(image, smooth)
    return (image / image.std()).astype(np.float32)


def left_level(image, usable, fwhm):
    """Return what is taken out; None for nothing."""
    data = image.copy()
    return image - data if take_level(data, usable, fwhm) else None


def waves(height, length):
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return (height * np.sin(2 * np.pi * x / length) * np.cos(2 * np.pi * y / length)).astype(np.float32)


@pytest.mark.parametrize("smooth", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_noise_has_no_level(seed, smooth):
    assert left_level(noise(seed, smooth), np.ones(SHAPE, bool), FWHM) is None


@pytest.mark.parametrize("smooth", [0.0, 1.0])
@pytest.mark.parametrize("sign", [1, -1])
def test_structure_is_taken_out(sign, smooth):
    truth, usable = waves(0.5 * sign, 160), np.ones(SHAPE, bool)
    usable[:, 200:230] = False
    data = noise(4, smooth) + truth
    data[~usable] = 1e4
    found = left_level(data, usable, FWHM)
    inner = (slice(40, -40), slice(40, -40))
    assert np.std((found - truth)[inner][usable[inner]]) < (0.7 if smooth else 0.4) * np.std(truth)
    assert found.dtype == np.float32


def test_sources_are_no_level():
    """A bright source in every other cell moves the level by less than a quarter of a pixel's noise."""
    data, truth = noise(5), waves(0.5, 160)
    rng = np.random.default_rng(6)
    for x, y in zip(rng.uniform(20, 600, 150), rng.uniform(20, 480, 150), strict=True):
        rows, columns = np.mgrid[int(y) - 8 : int(y) + 9, int(x) - 8 : int(x) + 9]
        data[rows, columns] += 30 * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * 1.7**2)).astype(np.float32)
    plain = left_level(noise(5) + truth, np.ones(SHAPE, bool), FWHM)
    assert np.abs(left_level(data + truth, np.ones(SHAPE, bool), FWHM) - plain).max() < 0.25


def test_a_small_or_hidden_difference_has_none():
    assert left_level(noise(1)[:60, :60], np.ones((60, 60), bool), FWHM) is None
    assert left_level(noise(1), np.zeros(SHAPE, bool), FWHM) is None


def test_the_light_of_a_crowd_is_no_noise():
    image, rng, free = noise(7), np.random.default_rng(8), np.zeros(SHAPE, bool)
    flat = np.ones(SHAPE, np.float32)
    assert without_crowd(flat, image, free) is flat
    crowd = np.zeros(SHAPE)
    np.add.at(crowd, (rng.integers(0, SHAPE[0], 40_000), rng.integers(0, SHAPE[1], 40_000)), 60.0)
    crowd = ndimage.gaussian_filter(crowd, 1.7)
    scatter = float(np.std(crowd + image))
    assert scatter > 1.5
    found = without_crowd(np.full(SHAPE, scatter, np.float32), (crowd + image).astype(np.float32), free)
    assert found[0, 0] == pytest.approx(max(1, 0.5 * scatter), rel=0.1)
