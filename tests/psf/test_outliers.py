"""The isolation forest on shapes: hot pixels and trails stand out, stars do not."""

import numpy as np
import pytest

from nightsift import parameters
from nightsift.detect.detect import detect
from nightsift.image.moffat import MoffatPsf
from nightsift.psf.outliers import outlier_score
from nightsift.simulate.pixels import render_points

SHAPE, SKY, GAIN = (600, 600), 300.0, 1.5


@pytest.fixture(scope="module")
def spoilt():
    """Detection in an image with stars, hot pixels and short streaks, and where these are."""
    rng = np.random.default_rng(1)
    light = np.zeros(SHAPE)
    x, y = rng.uniform(10, 590, (2, 400))
    render_points(light, x, y, 10 ** rng.uniform(3.2, 5, 400), MoffatPsf(3.0, 3.0, 0.03, 0.02, (0, 0, 0), (0, 0)), 0.01)
    row, column = rng.integers(20, 570, (2, 40))
    light[row[:20], column[:20]] += 10 ** rng.uniform(3, 4, 20)
    for start in range(20):
        light[row[20:] + start, column[20:]] += 300
    data = (rng.poisson((light + SKY) * GAIN) / GAIN).astype(np.float32)
    found = detect(data, np.zeros(SHAPE, np.uint16), GAIN, parameters.DetectConfig())
    return found, (x, y), (column[:20], row[:20]), (column[20:], row[20:] + 9.5)


def near(objects, places, radius):
    x, y = places
    return (np.hypot(objects["x"][:, None] - x, objects["y"][:, None] - y) < radius).any(axis=1)


def test_hot_pixels_and_streaks_stand_out_and_stars_do_not(spoilt):
    found, stars, hot, streaks = spoilt
    score = outlier_score(found.objects, found.seeing)
    hot, streak = near(found.objects, hot, 1), near(found.objects, streaks, 2)
    star = near(found.objects, stars, 1) & ~hot & ~streak & (np.asarray(found.objects["flags"]) == 0)
    assert min(hot.sum(), streak.sum()) >= 10
    assert (score[hot | streak] > 0.6).mean() > 0.9
    assert (score[star] > 0.6).mean() < 0.08
    assert np.all((score > 0) & (score < 1))


def test_the_same_again(spoilt):
    found = spoilt[0]
    np.testing.assert_array_equal(*(outlier_score(found.objects, found.seeing) for _ in range(2)))


def test_few_objects_tell_nothing(spoilt):
    found = spoilt[0]
    assert np.isnan(outlier_score(found.objects[:20], found.seeing)).all()
    assert outlier_score(found.objects[:0], found.seeing).shape == (0,)
