"""Light that only one of the two images lacks is no transient."""

import numpy as np
import pytest
from differences import FWHM, NO_OBJECTS, NOISE, SIZE, lattice, nearest, noise, psf_of, rendered, search_of, unit_of

from nightsift import parameters
from nightsift.transients.holes import pits
from nightsift.transients.transients import transients

PARAMS = parameters.TransientsConfig()


@pytest.fixture(scope="module")
def psf():
    return psf_of(FWHM)


def searched(image, template, psf):
    """Search the difference of two images without noise in the template."""
    search = search_of(image + noise(51) - template, psf, model=template)
    return transients(search, NO_OBJECTS, PARAMS).candidates


def discs(x, y, height, width):
    """Galaxies of a Gaussian profile."""
    v, u = np.mgrid[:SIZE, :SIZE]
    image = np.zeros((SIZE, SIZE), np.float32)
    for i, j in zip(x, y, strict=True):
        image += (height * np.exp(-4 * np.log(2) * ((u - i) ** 2 + (v - j) ** 2) / width**2)).astype(np.float32)
    return image


def verdicts(table, x, y):
    index, distance = nearest(table, x, y)
    assert distance.max() < 2
    return np.asarray(table["is_real"], bool)[index], np.asarray(table["reasons"], str)[index]


@pytest.mark.parametrize("snr", [8, 20, 100])
def test_a_hole_in_the_template_is_set_aside(psf, snr):
    """As wide as a star, as a star that was cut out of the template leaves it."""
    x, y = lattice(52)
    table = searched(np.zeros((SIZE, SIZE), np.float32), -rendered(x, y, snr * unit_of(psf)), psf)
    index, distance = nearest(table, x, y)
    seen = distance < 2
    assert seen.mean() > 0.95
    assert not np.asarray(table["is_real"], bool)[index[seen]].any()
    assert all("hole in the template" in reason for reason in table["reasons"][index[seen]])
    # The same light in the image is new.
    real = searched(rendered(x, y, snr * unit_of(psf)), np.zeros((SIZE, SIZE), np.float32), psf)
    real = real[nearest(real, x, y)[0]]
    assert not any("hole" in reason for reason in real["reasons"])
    assert np.mean(np.asarray(real["is_real"], bool)) > 0.94


@pytest.mark.parametrize("wide", [3, 7, 15])
def test_a_square_of_dead_pixels_in_the_template_is_set_aside(psf, wide):
    x, y = (np.rint(part).astype(int) for part in lattice(53))
    template = np.zeros((SIZE, SIZE), np.float32)
    for i, j in zip(x, y, strict=True):
        template[j - wide // 2 : j + wide // 2 + 1, i - wide // 2 : i + wide // 2 + 1] = -8 * NOISE
    table = searched(np.zeros((SIZE, SIZE), np.float32), template, psf)
    assert len(table) >= len(x)
    assert not np.asarray(table["is_real"], bool).any()
    assert np.mean(["hole in the template" in reason for reason in table["reasons"]]) > 0.9


@pytest.mark.parametrize("sign", [1, -1])
def test_a_hole_on_a_galaxy_is_set_aside_and_a_transient_there_is_not(psf, sign):
    """Bright light beneath: what is missing there leaves light all the same."""
    x, y = lattice(54)
    galaxies = discs(x, y, 12 * NOISE, 20.0)
    place = x + 4.0, y - 2.0
    missing = galaxies - rendered(*place, 20 * unit_of(psf))
    more = galaxies + rendered(*place, 20 * unit_of(psf))
    assert (missing[np.rint(place[1]).astype(int), np.rint(place[0]).astype(int)] > NOISE).all()
    real, reasons = verdicts(searched(*((galaxies, missing) if sign > 0 else (missing, galaxies)), psf), *place)
    assert not real.any()
    where = "template" if sign > 0 else "image"
    assert all(f"hole in the {where}" in reason for reason in reasons)
    real, reasons = verdicts(searched(*((more, galaxies) if sign > 0 else (galaxies, more)), psf), *place)
    assert real.mean() > 0.9
    assert not any("hole" in reason for reason in reasons)


def test_a_transient_among_bright_stars_is_in_no_hole(psf):
    """Beside a star, between two, and in the middle of a ring of six."""
    x, y = lattice(55)
    unit, stars = unit_of(psf), np.zeros((SIZE, SIZE), np.float32)
    for k, (i, j) in enumerate(zip(x, y, strict=True)):
        angle = np.arange((1, 2, 6)[k % 3]) * (2 * np.pi / (1, 2, 6)[k % 3]) + k
        away = 2.2 * FWHM
        stars += rendered(i + away * np.cos(angle), j + away * np.sin(angle), (100, 60, 20)[k % 3] * unit)
    share = pits(stars, x, y, np.full(len(x), 20 * unit), psf)
    assert share[np.arange(len(x)) % 3 < 2].max() < 0.1
    assert share.max() < PARAMS.max_hole
    assert (pits(stars - rendered(x, y, 20 * unit), x, y, np.full(len(x), 20 * unit), psf) > 0.85).all()


def test_no_place_has_no_pit(psf):
    assert len(pits(np.zeros((20, 20), np.float32), [], [], [], psf)) == 0
