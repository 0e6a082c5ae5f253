"""The error of the flux scale against stars whose scatter is known."""

import numpy as np
import pytest

from nightsift.subtract.fluxscale import FLOOR, flux_scale


def stars(seed, number, scatter, faintest=20.0, center=1.0):
    rng = np.random.default_rng(seed)
    snr = faintest * rng.uniform(0.003, 1, number) ** -0.75
    return center * (1 + rng.normal(0, scatter, number) + rng.normal(0, 1, number) / snr), center / snr


@pytest.mark.parametrize(("scatter", "number"), [(0.004, 200), (0.01, 30), (0.01, 100), (0.03, 30)])
def test_the_scatter_beyond_the_noise_is_found(scatter, number):
    found = [flux_scale(*stars(seed, number, scatter), free=False).error for seed in range(30)]
    assert np.sqrt(np.mean(np.square(found))) == pytest.approx(np.hypot(scatter, FLOOR), rel=0.25)


def test_where_stars_cannot_tell_it_is_what_is_usual():
    found = [flux_scale(*stars(seed, 4, 0.0), free=False).error for seed in range(30)]
    assert 0.005 < np.median(found) < 0.03
    assert 0.01 < flux_scale([], [], free=True).error < 0.012
    assert flux_scale([np.nan], [np.nan], free=False).ratio == 1


def test_neighbours_and_mistakes_do_not_count():
    ratio, error = stars(1, 100, 0.005)
    ratio[::20] *= 0.85
    assert flux_scale(ratio, error, free=False).error == pytest.approx(0.0055, rel=0.5)


@pytest.mark.parametrize(("center", "expected"), [(0.997, 1.0), (0.93, 0.93)])
def test_a_small_offset_is_held_for_neighbours(center, expected):
    ratio, error = stars(2, 300, 0.003, center=center)
    assert flux_scale(ratio, error, free=True).ratio == pytest.approx(center, abs=0.002)
    held = flux_scale(ratio, error, free=False)
    assert held.ratio == pytest.approx(expected, abs=0.003)
    # What is not taken out is in the error.
    assert held.error > 0.9 * abs(held.ratio - center)
