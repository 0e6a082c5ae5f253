"""Double exposures are recognised; crowds, doughnuts and trailed stars are no double exposures."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
from astropy.io import fits
from scipy import ndimage
from starfields import flux_of, gaussians, observe, run
from workflows import ROOT

from nightsift.detect.ghosts import doubled, peaks
from nightsift.errors import Rejected
from nightsift.template.template import refuse_doubled

SIDE = 400
REAL = ROOT.parent / "shared" / "data" / "real"


def stars(number, seed, fwhm=3.0):
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(0, SIDE, (2, number))
    return gaussians((SIDE, SIDE), x, y, flux_of(10 ** rng.uniform(0.8, 3, number), fwhm), fwhm)


def twice(light, dx, dy, share):
    return light + share * ndimage.shift(light, (dy, dx), order=1)


def smeared(kernel, seed):
    """Stars of an odd PSF."""
    rng, image = np.random.default_rng(seed), np.zeros((SIDE, SIDE))
    x, y = rng.integers(20, SIDE - 20, (2, 90))
    image[y, x] = flux_of(10 ** rng.uniform(1.5, 3, 90), 8.0)
    return ndimage.convolve(image, kernel / kernel.sum())


def doughnut(inner, outer, vanes):
    v, u = np.mgrid[-16:17, -16:17]
    ring = (np.hypot(u, v) > inner) & (np.hypot(u, v) < outer)
    for vane in range(vanes):
        angle = np.pi * vane / vanes
        ring &= np.abs(u * np.sin(angle) - v * np.cos(angle)) > 1.5
    return ndimage.gaussian_filter(ring.astype(float), 1)


def trail(length, angle):
    line = np.zeros((41, 41))
    line[20, 20 - length // 2 : 21 + length // 2] = 1
    return ndimage.gaussian_filter(np.maximum(ndimage.rotate(line, angle, reshape=False), 0), 1.3)


def coma(length):
    v, u = np.mgrid[-16:17, -16:17].astype(float)
    fan = [(t, 1.3 + 0.25 * t) for t in np.linspace(0, length, 20)]
    return sum(np.exp(-((u - t) ** 2 + v**2) / (2 * s**2) - 2 * t / length) / s**2 for t, s in fan)


@pytest.mark.parametrize("number", [60, 300])
@pytest.mark.parametrize(("dx", "dy", "share"), [(3.5, 1, 0.4), (4, 2, 0.4), (-3, 3, 0.25), (0, -4.5, 0.4)])
def test_a_companion_that_merges_with_its_star_is_recognised(number, dx, dy, share):
    test_a_double_exposure_is_refused_and_named(number, dx, dy, share)


@pytest.mark.parametrize("number", [60, 300])
@pytest.mark.parametrize(("dx", "dy", "share"), [(4.4, 0.6, 1.0), (1.2, 4.6, 0.85), (-3.6, 3.4, 0.95), (0, -4.4, 0.75)])
def test_two_copies_alike_that_merge_are_recognised(number, dx, dy, share):
    test_a_double_exposure_is_refused_and_named(number, dx, dy, share)


@pytest.mark.parametrize("number", [30, 150, 600])
@pytest.mark.parametrize(
    ("dx", "dy", "share"), [(20, 3, 0.4), (6, 0, 0.4), (-4, -5, 0.4), (0, 12, 1.0), (30, -40, 0.15)]
)
def test_a_double_exposure_is_refused_and_named(number, dx, dy, share):
    with pytest.raises(Rejected, match="double exposure") as refusal:
        run(observe(twice(stars(number, 11), dx, dy, share), 12))
    away, light = re.search(r"of (0\.\d+|1\.\d+) of their flux at \((.*)\) pixels", str(refusal.value)).groups()[::-1]
    found = np.array(away.split(", "), float)
    assert min(np.hypot(*(found - way * np.array([dx, dy]))) for way in (1, -1)) < 0.7
    assert float(light) == pytest.approx(share, rel=0.25)


def test_offset_and_ratio_of_the_companions_are_right():
    objects = run(observe(twice(stars(200, 13), 14, -9, 0.3), 14), max_doubled=1.0).objects
    found = doubled(*(objects[name] for name in ("x", "y", "flux", "snr")), 3.0)
    assert (found.dx, found.dy) == (pytest.approx(14, abs=0.2), pytest.approx(-9, abs=0.2))
    assert found.ratio == pytest.approx(0.3, abs=0.03)
    assert found.fraction > 0.85


@pytest.mark.parametrize("number", [0, 5, 150, 1500])
def test_a_plain_field_has_no_pairs(number):
    rng = np.random.default_rng(15)
    x, y = rng.uniform(0, 500, (2, number))
    flux = 10 ** rng.uniform(2, 5, number)
    found = doubled(x, y, flux, flux / 20, 3.0)
    assert found is None or found.fraction < 0.1


def test_a_lattice_is_no_double_exposure():
    x, y = (axis.ravel() for axis in np.mgrid[20:400:30, 20:400:30].astype(float))
    assert doubled(x, y, np.full(len(x), 1e4), np.full(len(x), 200.0), 3.0) is None


@pytest.mark.parametrize(
    "kernel",
    [
        coma(4),
        coma(8),
        doughnut(2, 6, 0),
        doughnut(4, 9, 0),
        doughnut(5, 12, 1),
        doughnut(5, 13, 2),
        trail(6, 0),
        trail(9, 110),
        trail(12, 30),
        trail(25, 75),
    ],
)
def test_doughnuts_and_trailed_stars_are_kept(kernel):
    assert len(run(observe(smeared(kernel, 16), 17)).objects) > 60


@pytest.mark.skipif(not REAL.is_dir(), reason="the real frames ../shared/data/real are not here")
@pytest.mark.parametrize("path", ["crowded/frame001.fits", "crowded/template.fits", "small_telescope/frame1.fits"])
def test_real_fields_are_kept_and_refused_when_taken_twice(path):
    data = np.asarray(fits.getdata(REAL / path), float)
    assert len(run(data.astype(np.float32)).objects) > 50
    sky = np.median(data)
    with pytest.raises(Rejected, match="double exposure"):
        run((sky + twice(data - sky, 18, -7, 0.4)).astype(np.float32))


def test_a_double_exposure_as_template_is_refused():
    light = stars(150, 18)
    objects = run(observe(light, 19)).objects
    for image, sound in ((light, True), (twice(light, 15, 5, 0.5), False), (twice(light, 4, 2, 0.4), False)):
        data = np.pad(observe(image, 20) - 300, 24).astype(np.float32)
        noise, mask = np.full(data.shape, 15.0, np.float32), np.zeros(data.shape, np.uint16)
        result = SimpleNamespace(data=data, noise=noise, mask=mask)
        if sound:
            refuse_doubled(result, objects, 0.5)
        else:
            with pytest.raises(Rejected, match="template is a double exposure"):
                refuse_doubled(result, objects, 0.5)


def test_peaks_are_those_of_the_stars():
    light = gaussians((80, 90), [20.0, 60.0], [30.0, 50.0], [4000.0, 8000.0], 3.0)
    x, y, height, snr = peaks(observe(light, 21) - 300, np.full(light.shape, 15.0), np.zeros(light.shape, bool), 3.0)
    assert sorted(zip(x, y, strict=True)) == [(20, 30), (60, 50)]
    assert height.max() / height.min() == pytest.approx(2, rel=0.15)
    assert (snr > 10).all()
