"""Cutouts, and choices among positions."""

import numpy as np

from nightsift.image.stamps import crowded, spread, stamps


def test_stamps():
    image = np.arange(30.0, dtype=np.float32).reshape(5, 6)
    inside = stamps(image, [2, 3], [2, 2], 1)
    np.testing.assert_array_equal(inside[0], image[1:4, 1:4])
    np.testing.assert_array_equal(inside[1], image[1:4, 2:5])
    corner = stamps(image, [0, 5, -9], [0, 4, 2], 1, fill=-1)
    np.testing.assert_array_equal(corner[0], [[-1, -1, -1], [-1, 0, 1], [-1, 6, 7]])
    np.testing.assert_array_equal(corner[1], [[22, 23, -1], [28, 29, -1], [-1, -1, -1]])
    np.testing.assert_array_equal(corner[2], np.full((3, 3), -1))
    assert stamps(image > 3, [0], [0], 2, fill=True).dtype == bool
    assert stamps(image, [], [], 2).shape == (0, 5, 5)


def test_spread_is_even_and_takes_the_best_first():
    rng = np.random.default_rng(60)
    # nine of ten objects crowd into one corner
    x, y = rng.uniform(0, 100, (2, 3000))
    x[:2700], y[:2700] = x[:2700] * 0.25, y[:2700] * 0.25
    rank = rng.permutation(3000)
    chosen = spread(x, y, rank, (100, 100), 64)
    assert len(chosen) == len(set(chosen)) == 64
    cell = (x // 25).astype(int) * 4 + (y // 25).astype(int)
    assert np.bincount(cell[chosen], minlength=16).tolist() == [4] * 16
    for number in range(16):
        best = np.sort(rank[cell == number])[:4]
        assert np.sort(rank[chosen[cell[chosen] == number]]).tolist() == best.tolist()
    assert len(spread(x[:5], y[:5], rank[:5], (100, 100), 64)) == 5


def test_crowded():
    x, y = np.array([0.0, 3.0, 50.0, 53.0, 80.0]), np.zeros(5)
    flux = np.array([100.0, 9.0, 100.0, 60.0, 10.0])
    assert crowded(x, y, flux, 4.0, 0.1).tolist() == [False, True, True, True, False]
    assert crowded(x, y, flux, 2.0, 0.1).tolist() == [False] * 5
