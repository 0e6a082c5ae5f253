"""Candidates that a column, a row or a line of any direction makes are none; sources that share a column are."""

import numpy as np
import pytest
from differences import FWHM, NO_OBJECTS, NOISE, SIZE, nearest, noise, psf_of, rendered, search_of, unit_of

from nightsift import parameters
from nightsift.transients.lines import lit, strung
from nightsift.transients.transients import transients

PARAMS = parameters.TransientsConfig()
ANGLES = (0.0, 90.0, 37.0)  # degrees: a row, a column, a row of a template that is turned


@pytest.fixture(scope="module")
def psf():
    return psf_of(FWHM)


def found_in(image, psf):
    return transients(search_of(image, psf), NO_OBJECTS, PARAMS).candidates


def beads(angle, spacing, snr, unit, seed):
    """Places and fluxes of sources along a line through the centre, of either sign in turn."""
    rng = np.random.default_rng(seed)
    along = np.arange(-120, 120, spacing * FWHM)
    x = SIZE / 2 + along * np.cos(np.radians(angle)) + rng.normal(0, 0.2, len(along))
    y = SIZE / 2 + along * np.sin(np.radians(angle)) + rng.normal(0, 0.2, len(along))
    return x, y, np.where(np.arange(len(along)) % 2, -1, 1) * snr * unit * rng.uniform(0.6, 1.4, len(along))


@pytest.mark.parametrize("angle", ANGLES)
@pytest.mark.parametrize(("spacing", "snr"), [(2.5, 12), (3.5, 12), (3.5, 40)])
def test_alternating_beads_on_a_line_are_set_aside(psf, angle, spacing, snr):
    x, y, flux = beads(angle, spacing, snr, unit_of(psf), 61)
    table = found_in(noise(62) + rendered(x, y, flux), psf)
    index, distance = nearest(table, x, y)
    assert (distance < 2).mean() > 0.9
    bright = index[(distance < 2) & (flux > 0)]
    assert not np.asarray(table["is_real"], bool)[bright].any()
    assert np.mean(["on a line" in reason for reason in table["reasons"][bright]]) > 0.9


@pytest.mark.parametrize("angle", [0.0, 90.0])
def test_a_string_of_candidates_far_from_each_other_is_set_aside(psf, angle):
    x, y, flux = beads(angle, 9.0, 20, unit_of(psf), 63)
    table = found_in(noise(64) + rendered(x, y, np.abs(flux)), psf)
    index, distance = nearest(table, x, y)
    assert distance.max() < 1
    assert not np.asarray(table["is_real"], bool)[index].any()


@pytest.mark.parametrize("angle", ANGLES)
@pytest.mark.parametrize("level", [1.0, 3.0])
def test_the_knots_of_a_faint_line_are_set_aside(psf, angle, level):
    """A streak along a row of the template: a line with knots in it."""
    v, u = np.mgrid[:SIZE, :SIZE] - SIZE / 2
    across = v * np.cos(np.radians(angle)) - u * np.sin(np.radians(angle))
    line = (level * NOISE * np.exp(-4 * np.log(2) * (across / FWHM) ** 2)).astype(np.float32)
    x, y, flux = beads(angle, 15.0, 6, unit_of(psf), 65)
    table = found_in(noise(66) + line + rendered(x, y, np.abs(flux)), psf)
    assert len(table) > 5
    assert not np.asarray(table["is_real"], bool).any()


@pytest.mark.parametrize("angle", ANGLES)
@pytest.mark.parametrize("apart", [3.0, 5.0, 9.0])
@pytest.mark.parametrize("snr", [(15, 15), (15, 300)])
def test_two_sources_on_one_line_are_kept(psf, angle, apart, snr):
    step = apart * FWHM * np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
    x, y = np.array([200.2, 200.2 + step[0]]), np.array([199.6, 199.6 + step[1]])
    table = found_in(noise(67) + rendered(x, y, np.array(snr) * unit_of(psf)), psf)
    index, distance = nearest(table, x, y)
    assert distance[1] < 1
    found = index[distance < 1]  # in the wings of the bright one the other may be lost
    assert len(found) == 2 or max(snr) > 100
    assert not any("on a line" in reason for reason in table["reasons"][found])
    assert np.asarray(table["is_real"], bool)[index[1]]
    assert np.asarray(table["is_real"], bool)[found].all() or apart < 9


def test_an_outburst_on_a_column_that_bleeds_is_kept(psf):
    """What is much fainter than a source did not make it."""
    x, y, flux = beads(90.0, 3.5, 12, unit_of(psf), 68)
    table = found_in(noise(69) + rendered(x, y, flux) + rendered([x[12]], [y[12] + 5], 150 * unit_of(psf)), psf)
    index, _ = nearest(table, [x[12]], [y[12] + 5])
    assert "on a line" not in table["reasons"][index[0]]


def test_noise_has_no_lines(psf):
    snr = search_of(noise(70, 1000), psf).snr
    rng = np.random.default_rng(71)
    share = lit(snr, rng.uniform(0, 999, 2000), rng.uniform(0, 999, 2000), np.full(2000, 5.0), FWHM)
    assert np.mean(share > PARAMS.max_line) < 0.003
    assert len(lit(snr, [], [], [], FWHM)) == 0


def test_sources_at_random_places_are_not_strung():
    rng = np.random.default_rng(72)
    share = [strung(*rng.uniform(0, 1000, (2, 100)), np.full(100, 10.0), 3.0).mean() for _ in range(20)]
    assert np.mean(share) < 0.002
    assert not strung([1.0, 2.0], [1.0, 2.0], [9.0, 9.0], 3.0).any()
