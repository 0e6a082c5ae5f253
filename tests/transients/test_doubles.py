"""Two transients that all but merge are two candidates; a streak is none."""

import numpy as np
import pytest
from bogus import artefacts
from differences import NO_OBJECTS, lattice, nearest, noise, psf_of, rendered, search_of, unit_of

from nightsift import parameters
from nightsift.flags import Flag
from nightsift.transients.doubles import pairs, without
from nightsift.transients.transients import transients

PARAMS = parameters.TransientsConfig()


def found_in(image, psf, model=None):
    return transients(search_of(image, psf, model), NO_OBJECTS, PARAMS).candidates


def two(fwhm, apart, first, second):
    """Places of two sources each, and an image of them (in units of S/N)."""
    x, y = lattice(81)
    angle = np.random.default_rng(82).uniform(0, 2 * np.pi, len(x))
    other = x + apart * fwhm * np.cos(angle), y + apart * fwhm * np.sin(angle)
    unit = unit_of(psf_of(fwhm))
    return (x, y), other, rendered(x, y, first * unit, fwhm) + rendered(*other, second * unit, fwhm)


@pytest.mark.parametrize("fwhm", [2.0, 3.0, 5.0])
@pytest.mark.parametrize(
    ("apart", "first", "second", "share"),
    [(1.0, 40, 40, 0.8), (1.0, 40, 20, 0.85), (1.25, 20, 20, 0.8), (1.5, 12, 12, 0.8), (2.0, 30, 15, 0.9)],
)
def test_two_sources_that_merge_are_two_candidates(fwhm, apart, first, second, share):
    psf = psf_of(fwhm)
    one, other, light = two(fwhm, apart, first, second)
    table = found_in(noise(83) + light, psf)
    table = table[np.asarray(table["is_real"], bool)]
    index, distance = nearest(table, *one)
    others, away = nearest(table, *other)
    good = (distance < 0.4 * fwhm) & (away < 0.4 * fwhm) & (index != others)
    assert good.mean() > share
    assert len(table) <= 2 * len(one[0]) + 1
    flux = np.asarray(table["flux"]) / unit_of(psf)
    assert np.median(flux[index[good]]) == pytest.approx(first, rel=0.1)
    assert np.median(flux[others[good]]) == pytest.approx(second, rel=0.1)
    if apart < 2:
        assert ((table["flags"][index[good]] & int(Flag.DEBLENDED)) != 0).mean() > 0.9
        pull = (table["flux"][index[good]] - first * unit_of(psf)) / table["fluxerr"][index[good]]
        assert np.std(pull) < 1.4


def test_two_stars_that_have_faded_are_two_candidates():
    psf = psf_of(3.0)
    one, _, light = two(3.0, 1.25, 30, 30)
    table = found_in(noise(84) - light, psf, model=light)
    table = table[np.asarray(table["is_real"], bool)]
    assert (nearest(table, *one)[1] < 1.2).mean() > 0.7
    assert (table["flux"] < 0).all()
    assert len(table) > 1.5 * len(one[0])


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("apart", "first", "second"), [(0.75, 20, 20), (1.0, 20, 10), (1.25, 8, 8), (0.5, 50, 50)])
def test_two_sources_that_cannot_be_told_apart_are_one_candidate_at_least(apart, first, second, sign):
    psf = psf_of(3.0)
    one, other, light = two(3.0, apart, first, second)
    table = found_in(noise(91) + sign * light, psf, model=1.5 * light if sign < 0 else None)
    table = table[np.asarray(table["is_real"], bool)]
    away = np.minimum(nearest(table, *one)[1], nearest(table, *other)[1])
    assert (away < 2.4).mean() > 0.88
    blend = (table["flags"] & int(Flag.BLEND)) != 0
    assert blend.any() or apart == 0.5  # of such, the model takes nearly all for one
    assert (table["score"][blend] >= PARAMS.min_score).all()


@pytest.mark.parametrize("fwhm", [2.0, 3.0, 5.0])
@pytest.mark.parametrize(
    ("kind", "size", "snr"), [("streak", 1.5, 30), ("streak", 2.0, 20), ("streak", 3.0, 60), ("block", (2, 6), 40)]
)
def test_a_streak_is_not_taken_for_two_sources(fwhm, kind, size, snr):
    psf, (x, y) = psf_of(fwhm), lattice(85)
    search = search_of(noise(86) + artefacts(x, y, psf, kind, size, snr, fwhm), psf)
    flux = np.full(len(x), snr * unit_of(psf))
    found = pairs(search, x, y, flux, np.ones(len(x), bool), 5.3)
    assert len(found) <= 0.12 * len(x)


@pytest.mark.parametrize("width", [1.4, 2.0])
def test_a_galaxy_is_not_taken_for_two_sources(width):
    psf, (x, y) = psf_of(3.0), lattice(87)
    light = rendered(x, y, 60 * unit_of(psf), 3.0 * width)
    found = pairs(search_of(noise(88) + light, psf), x, y, np.full(36, 60.0), np.ones(36, bool), 5.3)
    assert len(found) <= 2


def test_a_source_that_is_taken_out_leaves_noise():
    psf, (x, y) = psf_of(3.0), lattice(89)
    flux = np.full(len(x), 50 * unit_of(psf))
    search, empty = (search_of(noise(90) + light, psf) for light in (rendered(x, y, flux), 0))
    left = without(search, x, y, flux, np.full(len(x), unit_of(psf)))
    assert np.abs(left.snr - empty.snr).max() < 2
    assert np.std(left.difference - empty.difference) < 0.3
    assert search.snr.max() > 40
