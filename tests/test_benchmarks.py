"""What the benchmarks conclude from counts."""

import importlib

import numpy as np
import pytest
from conftest import ROOT


@pytest.fixture
def detection(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("detection")


@pytest.mark.parametrize("plateau", [1.0, 0.9])
def test_half_completeness_is_recovered_within_its_error(detection, plateau):
    middle, slope, pulls = 5.5, 12.0, []
    half = middle * np.exp(-np.log(2 * plateau - 1) / slope)
    for seed in range(40):
        rng = np.random.default_rng(seed)
        snr = np.exp(rng.uniform(np.log(3), np.log(60), 800))
        share = plateau / (1 + (snr / middle) ** -slope)
        value, error = detection.half_complete(snr, rng.random(800) < share)
        assert 0.02 < error < 0.3
        pulls.append((value - half) / error)
    assert abs(np.mean(pulls)) < 0.5
    assert 0.6 < np.std(pulls) < 1.5


def test_half_completeness_of_too_little_is_unknown(detection):
    snr = np.linspace(4, 30, 40)
    assert np.isnan(detection.half_complete(snr, np.zeros(40, bool))).all()
    assert np.isnan(detection.half_complete(snr, np.ones(40, bool))).all()
    assert np.isnan(detection.half_complete(snr[:5], snr[:5] > 5)).all()


def test_robust_width_ignores_outliers_and_gaps(detection):
    values = np.random.default_rng(1).normal(2, 3, 20_000)
    values[:100] = np.nan
    values[100:300] = 1e9
    middle, width = detection.robust(values)
    assert middle == pytest.approx(2, abs=0.1)
    assert width == pytest.approx(3, rel=0.05)
    assert np.isnan(detection.robust([np.nan])).all()
