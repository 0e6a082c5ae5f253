"""Measurements at empty places against noise of known kind."""

import numpy as np
import pytest

from nightsift.psf.fit import functions
from nightsift.psf.model import Psf
from nightsift.subtract.sky_sources import sky_sources

SHAPE = (300, 300)


@pytest.fixture(scope="module")
def psf():
    number = functions(np.zeros(1), np.zeros(1), 3.0).shape[0]
    return Psf(np.eye(1, number), 3.0, SHAPE, 0, 3.0)


def measured(psf, noise, sigma, empty=None):
    bad = np.zeros(SHAPE, bool)
    return sky_sources(noise, np.full(SHAPE, sigma), bad, psf, 1.0, ~bad if empty is None else empty)


def test_honest_errors_give_a_unit_gaussian(psf):
    found = measured(psf, np.random.default_rng(1).normal(0, 5, SHAPE), 5.0)
    assert found.number > 350
    assert found.median == pytest.approx(0, abs=0.2)
    assert found.sigma == pytest.approx(1, abs=0.12)


@pytest.mark.parametrize("claimed", [2.5, 10.0])
def test_wrong_errors_show(psf, claimed):
    found = measured(psf, np.random.default_rng(2).normal(0, 5, SHAPE), claimed)
    assert found.sigma == pytest.approx(5 / claimed, rel=0.12)


def test_a_wrong_background_shows(psf):
    found = measured(psf, np.random.default_rng(3).normal(1, 5, SHAPE), 5.0)
    assert found.median > 0.5


def test_only_empty_places_count(psf):
    noise = np.random.default_rng(4).normal(0, 5, SHAPE)
    noise[:, 150:] += 1000
    empty = np.zeros(SHAPE, bool)
    empty[:, :140] = True
    assert abs(measured(psf, noise, 5.0, empty).median) < 0.3


def test_too_few_places_give_nothing(psf):
    empty = np.zeros(SHAPE, bool)
    empty[5, 5:15] = True
    found = measured(psf, np.zeros(SHAPE), 5.0, empty)
    assert found.number == 0
    assert np.isnan(found.sigma)
