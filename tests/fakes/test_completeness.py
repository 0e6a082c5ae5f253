"""Efficiency curves against draws from known ones."""

import json

import numpy as np
import pytest
from scipy.special import erf, erfinv

from nightsift.fakes.completeness import FEWEST, completeness

EDGES = (3, 4, 5, 6, 8, 20)


def drawn(seed, top=1.0, middle=5.5, width=1.0, number=400, low=3.0, high=12.0):
    rng = np.random.default_rng(seed)
    value = rng.uniform(low, high, number)
    return value, rng.random(number) < top * (1 + erf((value - middle) / (width * np.sqrt(2)))) / 2


def level(share, top=1.0, middle=5.5, width=1.0):
    return middle + width * np.sqrt(2) * erfinv(2 * share / top - 1)


@pytest.fixture(scope="module")
def many():
    """Curves of 100 draws."""
    return [completeness(*drawn(seed), EDGES) for seed in range(100)]


def test_half_and_ninety_per_cent_are_where_they_are(many):
    half = np.array([(curve.half - level(0.5)) / curve.half_err for curve in many])
    assert 0.8 < half.std() < 1.25
    assert abs(half.mean()) < 0.35
    ninety = np.array([(curve.ninety - level(0.9)) / curve.ninety_err for curve in many])
    ninety = ninety[np.isfinite(ninety)]
    assert len(ninety) > 90
    assert abs(np.median(ninety)) < 0.5
    assert 0.7 < 1.4826 * np.median(np.abs(ninety - np.median(ninety))) < 1.4


def test_middle_and_width_are_what_they_are(many):
    assert np.mean([curve.middle for curve in many]) == pytest.approx(5.5, abs=0.06)
    assert np.mean([curve.width for curve in many]) == pytest.approx(1.0, abs=0.1)
    assert np.mean([curve.top for curve in many]) > 0.97
    assert all(0 < curve.top <= 1 for curve in many)


def test_a_plateau_below_one_is_seen():
    curves = [completeness(*drawn(seed, top=0.8, number=600, high=20), EDGES) for seed in range(20)]
    assert np.mean([curve.top for curve in curves]) == pytest.approx(0.8, abs=0.02)
    assert np.mean([curve.half for curve in curves]) == pytest.approx(level(0.5, 0.8), abs=0.08)
    assert np.isnan([curve.ninety for curve in curves]).all()
    assert np.isnan([curve.ninety_err for curve in curves]).all()


def test_a_curve_that_never_reaches_half_has_no_half():
    curve = completeness(*drawn(3, top=0.3, number=600, high=20), EDGES)
    assert curve.top == pytest.approx(0.3, abs=0.08)
    assert np.isnan([curve.half, curve.half_err, curve.ninety, curve.ninety_err]).all()


def test_magnitudes_are_fitted_as_their_negatives():
    """Limits of 20.0 and 19.487 mag."""
    rng = np.random.default_rng(4)
    halves = []
    for _ in range(20):
        mag = rng.uniform(18, 22, 400)
        found = rng.random(400) < (1 + erf((20.0 - mag) / (0.4 * np.sqrt(2)))) / 2
        curve = completeness(-mag, found, ())
        halves.append((-curve.half, -curve.ninety))
        assert curve.bins == ()
    assert np.mean(halves, axis=0) == pytest.approx([20.0, 20.0 - 0.4 * 1.2816], abs=0.05)


def test_too_little_has_no_curve():
    value, found = drawn(5)
    few = np.arange(FEWEST - 1)
    assert completeness(value[few], found[few], EDGES) is None
    assert completeness(value, np.ones(400, bool), EDGES) is None
    assert completeness(value, np.zeros(400, bool), EDGES) is None
    assert completeness([], [], EDGES) is None
    assert completeness(np.full(400, np.nan), found, EDGES) is None


def test_what_has_no_value_does_not_count():
    value, found = drawn(6)
    more = completeness(np.append(value, [np.nan] * 9), np.append(found, [True] * 9), EDGES)
    assert more == completeness(value, found, EDGES)


def test_bins_count():
    value, found = drawn(7)
    curve = completeness(value, found, EDGES)
    assert (curve.number, curve.found) == (400, found.sum())
    assert [edges[:2] for edges in curve.bins] == [(3, 4), (4, 5), (5, 6), (6, 8), (8, 20)]
    assert sum(part[2] for part in curve.bins) == 400
    assert sum(part[3] for part in curve.bins) == found.sum()


def test_a_sharp_step_is_found():
    value, _ = drawn(8)
    curve = completeness(value, value > 6.2, EDGES)
    assert curve.half == pytest.approx(6.2, abs=0.1)
    assert curve.ninety == pytest.approx(6.2, abs=0.2)
    assert np.isfinite(curve.half_err)


def test_what_is_found_does_not_depend_on_the_order():
    value, found = drawn(9)
    order = np.random.default_rng(10).permutation(400)
    one, other = completeness(value, found, EDGES), completeness(value[order], found[order], EDGES)
    assert one.half == pytest.approx(other.half, abs=1e-3)


def test_it_is_plain():
    curve = completeness(*drawn(11), EDGES)
    assert json.loads(json.dumps(curve.to_dict()))["half"] == curve.half


def test_one_bright_miss_does_not_widen_the_fall():
    value = np.geomspace(3, 300, 27)
    found = value > 6.5
    found[np.argmin(np.abs(value - 25))] = False
    curve = completeness(value, found, EDGES)
    assert curve.top == pytest.approx(0.93, abs=0.05)
    assert curve.half == pytest.approx(6.5, abs=0.7)
    assert curve.width < 2


@pytest.mark.parametrize("number", [30, 60])
@pytest.mark.parametrize("magnitudes", [False, True])
def test_errors_are_true_where_all_above_a_gap_are_found_and_none_below(number, magnitudes):
    """A fall narrower than the distance of the fakes has no curvature that an error could be read from."""
    pulls = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        value = np.exp(np.concatenate([rng.uniform(1.1, 2.2, number * 6 // 10), rng.uniform(2.2, 6, number * 4 // 10)]))
        found, edge = value > 5.2, 5.2
        if magnitudes:
            value, edge = 2.5 * np.log10(value), 2.5 * np.log10(edge)
        curve = completeness(value, found, EDGES)
        below, above = value[~found].max(), value[found].min()
        assert 0 < curve.half_err < 0.6 * (above - below) + 0.15 * np.ptp(value[value < np.median(value)])
        pulls.append((curve.half - edge) / curve.half_err)
    assert abs(np.mean(pulls)) < 0.4
    assert 0.5 < np.std(pulls) < 1.2


def test_a_limit_that_the_fakes_do_not_bound_is_none():
    """Beyond the faintest that were put in, or the brightest, nothing is known of the search."""
    value = np.linspace(3, 12, 40)
    for found in (np.arange(40) > 0, np.arange(40) == 39):
        curve = completeness(value, found, EDGES)
        assert np.isnan([curve.half, curve.half_err]).all()
        assert np.isfinite([curve.top, curve.middle, curve.width]).all()


def test_few_bright_fakes_do_not_tell_where_nine_in_ten_are_found():
    value = np.linspace(3, 7, 16)
    curve = completeness(value, value > 5.8, EDGES)
    assert curve.half == pytest.approx(5.8, abs=0.4)
    assert np.isnan([curve.ninety, curve.ninety_err]).all()


def test_errors_never_exceed_the_range_of_the_fakes():
    for seed in range(60):
        value, found = drawn(seed, number=20, width=(0.01, 0.3, 3.0)[seed % 3])
        curve = completeness(value, found, EDGES)
        for limit, error in ((curve.half, curve.half_err), (curve.ninety, curve.ninety_err)):
            assert np.isnan([limit, error]).all() or (value.min() < limit < value.max() and error < np.ptp(value) / 2)
