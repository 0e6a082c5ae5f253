"""The flags of detected objects: what spoils them, and neighbours told apart."""

import numpy as np
import pytest
from scipy.spatial import cKDTree
from starfields import INSIDE, SIDE, flux_of, gaussians, in_aperture, lattice, nearest, observe, run, the_one

from nightsift.flags import Flag, Mask
from nightsift.image.moffat import MoffatPsf
from nightsift.simulate.pixels import render_points


def bright_and_faint(mask=None, extra=(), **options):
    """Stars for the seeing, a bright one at (80, 80) and a faint one at (180, 80)."""
    x, y = (part.ravel() for part in np.meshgrid(np.arange(30.3, 250, 50), np.arange(130.4, 250, 50)))
    stars = [(a, b, 2e4) for a, b in zip(x, y, strict=True)] + [(80.0, 80.0, 1e5), (180.0, 80.0, 1300.0), *extra]
    light = gaussians((SIDE, SIDE), *np.transpose(stars), 3.0)
    return run(observe(light, 20), mask, **options)


def masked(bit, rows, columns):
    mask = np.zeros((SIDE, SIDE), np.uint16)
    mask[rows, columns] = int(bit)
    return mask


def test_untouched_stars_have_no_flag():
    assert (np.asarray(bright_and_faint().objects["flags"]) == 0).all()


def test_saturated():
    mask = masked(Mask.SATURATED, slice(79, 82), slice(79, 82))
    star = the_one(bright_and_faint(mask), 80, 80)
    assert star["flags"] == Flag.SATURATED | Flag.APERTURE_MASKED | Flag.FOOTPRINT_MASKED
    # Saturated pixels are measured all the same.
    assert star["flux"] == pytest.approx(1e5 * INSIDE, rel=0.03)


@pytest.mark.parametrize("bit", [Mask.COSMIC, Mask.BADLINE, Mask.USER, Mask.NONFINITE, Mask.OUTSIDE])
def test_masked_pixel_in_the_aperture_alone(bit):
    # Above 6 sigma the footprint is smaller than the aperture.
    star = the_one(bright_and_faint(masked(bit, 80, 183), threshold=6.0), 180, 80)
    assert star["flags"] == Flag.APERTURE_MASKED


@pytest.mark.parametrize("bit", [Mask.COSMIC, Mask.SATURATED])
def test_masked_pixel_in_the_footprint_alone(bit):
    star = the_one(bright_and_faint(masked(bit, 80, 84)), 80, 80)
    assert star["flags"] == Flag.FOOTPRINT_MASKED


def test_masked_pixel_in_the_annulus_matters_not():
    star = the_one(bright_and_faint(masked(Mask.COSMIC, 80, slice(96, 99))), 80, 80)
    assert star["flags"] == 0


def test_annulus_without_pixels():
    v, u = np.indices((SIDE, SIDE))
    mask = np.where(np.abs(np.hypot(u - 80, v - 80) - 18) < 6, int(Mask.USER), 0).astype(np.uint16)
    result = bright_and_faint(mask)
    star = the_one(result, 80, 80)
    assert star["flags"] == Flag.ANNULUS_BAD
    assert star["background"] == 0
    truth = in_aperture(gaussians((SIDE, SIDE), 80, 80, 1e5, 3.0), [80], [80], result.aperture)[0]
    assert star["flux"] == pytest.approx(truth, rel=0.01)


def test_border():
    half, near, inside = (60.0, 0.4, 2e4), (120.0, 2.9, 2000.0), (160.0, 12.0, 2e4)
    result = bright_and_faint(extra=[half, near, inside])
    # What is left of a star whose centre lies at the edge is centred further in.
    assert the_one(result, 60, 1.2)["flags"] == Flag.TRUNCATED | Flag.APERTURE_INCOMPLETE
    assert the_one(result, 120, 2.9)["flags"] == Flag.TRUNCATED
    assert the_one(result, 160, 12)["flags"] == 0


def test_aperture_beyond_the_image():
    # Above 7 sigma the footprint is smaller than the aperture.
    result = bright_and_faint(extra=[(120.0, 2.2, 900.0), (256.8, 20.0, 900.0), (20.0, 2.8, 900.0)], threshold=7.0)
    assert the_one(result, 120, 2.2)["flags"] == Flag.APERTURE_INCOMPLETE
    assert the_one(result, 256.8, 20)["flags"] == Flag.APERTURE_INCOMPLETE
    assert the_one(result, 20, 2.8)["flags"] == 0


def test_crowded_and_deblended():
    near, apart = [(30.0, 60.0, 2e4), (35.9, 60.0, 2e4)], [(230.0, 60.0, 2e4), (237.4, 60.0, 2e4)]
    unequal = [(130.0, 30.0, 4e4), (138.0, 30.0, 3000.0)]
    result = bright_and_faint(extra=near + apart)
    for x, y, _ in near:
        assert the_one(result, x, y)["flags"] == Flag.CROWDED | Flag.DEBLENDED
    for x, y, _ in apart:
        assert the_one(result, x, y)["flags"] == Flag.DEBLENDED
    # Twice this aperture reaches the neighbour, which matters to the faint one alone.
    result = bright_and_faint(extra=unequal, aperture=1.8)
    assert the_one(result, 130, 30)["flags"] == Flag.DEBLENDED
    assert the_one(result, 138, 30)["flags"] == Flag.CROWDED | Flag.DEBLENDED


@pytest.mark.parametrize("snr", [15, 50, 300])
def test_neighbours_are_told_apart(snr):
    shape, fwhm, rng = (420, 420), 3.0, np.random.default_rng(64)
    x, y = lattice(rng, shape, 30)
    single, angle = np.arange(len(x)) % 2 == 0, rng.uniform(0, np.pi, len(x))
    for distance, least in ((1.4, 0.6), (1.7, 0.97), (2.0, 0.97)):
        u, v = ((c + distance * fwhm * f(angle))[~single] for c, f in ((x, np.cos), (y, np.sin)))
        light = gaussians(shape, np.append(x, u), np.append(y, v), flux_of(snr, fwhm), fwhm)
        objects = run(observe(light, 65)).objects
        (one, near_one), (other, near_other) = nearest(objects, x[~single], y[~single]), nearest(objects, u, v)
        apart = (one != other) & (near_one < 1.2) & (near_other < 1.2)
        assert apart.mean() > least
        # From the depth of the valley on that the threshold cuts, they are two objects of their own.
        joined = np.asarray(objects["flags"])[one[apart]] & int(Flag.CROWDED | Flag.DEBLENDED)
        assert (joined != 0).all() or distance == 2.0
        alone, _ = nearest(objects, x[single], y[single])
        assert np.mean(np.asarray(objects["flags"])[alone] != 0) < 0.15


def test_a_crowded_field_is_taken_apart():
    # One star on 8 square FWHM.
    shape, rng = (400, 400), np.random.default_rng(66)
    count = shape[0] * shape[1] // 70
    x, y = rng.uniform(0, 400, (2, count))
    snr = 5 * (1 - rng.random(count)) ** -0.8
    objects = run(observe(gaussians(shape, x, y, flux_of(np.minimum(snr, 2000), 3.0), 3.0), 67)).objects
    taken = np.zeros(count, bool)
    for star in objects:
        close = np.flatnonzero((np.hypot(x - star["x"], y - star["y"]) < 1.5) & ~taken)
        if len(close):
            taken[close[np.argmax(snr[close])]] = True
    assert taken[snr > 20].mean() > 0.85
    assert taken[snr > 100].mean() > 0.93
    assert taken.sum() > 0.97 * len(objects)


@pytest.mark.parametrize(("distance", "ratio"), [(3.0, 30), (3.5, 60), (4.0, 100)])
def test_faint_neighbours_of_bright_stars_are_told_apart(distance, ratio):
    shape, fwhm, rng = (400, 400), 3.0, np.random.default_rng(68)
    x, y = lattice(rng, shape, 45, 30)
    angle = rng.uniform(0, 2 * np.pi, len(x))
    u, v = x + distance * fwhm * np.cos(angle), y + distance * fwhm * np.sin(angle)
    flux = np.repeat([3e5, 3e5 / ratio], len(x))
    light = np.zeros(shape, np.float32)
    render_points(
        light, np.append(x, u), np.append(y, v), flux, MoffatPsf(fwhm, 3.0, 0.0, 0.0, (0, 0, 0), (0, 0)), 0.05
    )
    objects = run(observe(light, 69)).objects
    assert np.mean(nearest(objects, u, v)[1] < fwhm / 2) >= 0.95
    # The wings of the bright ones do not fall to pieces.
    assert len(objects) <= 2 * len(x)


def test_no_two_objects_are_at_one_place():
    shape, fwhm, rng = (600, 600), 6.5, np.random.default_rng(70)
    x, y = rng.uniform(0, 600, (2, 900))
    flux = flux_of(5 * (1 - rng.random(900)) ** -0.8, fwhm)
    objects = run(observe(gaussians(shape, x, y, flux, fwhm), 71)).objects
    assert len(objects) > 300
    assert len(cKDTree(np.column_stack([objects["x"], objects["y"]])).query_pairs(0.25 * fwhm)) == 0
