"""Gain steps between amplifiers: every part calibrated, none where there is none, and told."""

import numpy as np
import pytest
from calibrations import PARAMS, SEEING, SIZE, ZP, simulate

from nightsift import parameters
from nightsift.image import amplifiers
from nightsift.photometry import verdict
from nightsift.photometry.photometry import photometry

MIDDLE = SIZE / 2
PARTS = {
    "left": (lambda x, y: x < MIDDLE, ((0.0,), ())),
    "right": (lambda x, y: x >= MIDDLE, ((0.0,), ())),
    "bottom": (lambda x, y: y < MIDDLE, ((), (0.0,))),
    "quadrant": (lambda x, y: (x > MIDDLE) & (y > MIDDLE), ((0.0,), (0.0,))),
    "diagonal": (lambda x, y: (x > MIDDLE) != (y > MIDDLE), ((0.0,), (0.0,))),
    "third": (lambda x, y: x < SIZE / 3, ((-1 / 3,), ())),
}


def stepped(seed, part, gain=1.5, n=120, **sky):
    """Return objects of which those in a part have light times a gain, the catalogue, and the true magnitudes."""
    objects, stars = simulate(seed, n, intrinsic=0.01, **sky)
    truth = ZP - 2.5 * np.log10(np.asarray(objects["flux"]))
    higher = PARTS[part][0](np.asarray(objects["x"]), np.asarray(objects["y"]))
    for name in ("flux", "fluxerr", "bgerr"):
        objects[name] *= np.where(higher, gain, 1.0)
    return objects, stars, truth, higher


def error(result, objects, truth):
    """Return the errors of the bright stars' magnitudes."""
    mag = result.model.zero_point(objects["x"], objects["y"]) - 2.5 * np.log10(objects["flux"])
    return np.asarray(mag + 0.7 * (result.model.color_term or 0) - truth)[np.asarray(objects["snr"]) > 30]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("gain", [1.5, 0.8])
def test_every_amplifier_gets_its_zero_point(part, gain):
    for seed in (1, 2):
        objects, stars, truth, _ = stepped(seed, part, gain)
        result = photometry(objects, stars, SEEING, "r", PARAMS)
        assert result.model.edges == tuple(pytest.approx(axis) for axis in PARTS[part][1])
        assert result.stars.n_used > 0.95 * result.stars.n_good
        off = error(result, objects, truth)
        assert np.median(np.abs(off)) < 0.01
        assert np.mean(np.abs(off) > 0.05) < 0.03
        assert any("steps by up to" in note for note in result.warnings)
        assert result.model.color_term == pytest.approx(0, abs=4 * result.model.color_term_err)


def test_a_small_step_beside_a_slope_and_outliers_is_followed():
    objects, stars, truth, _ = stepped(3, "left", 1.1, n=200, slope=0.03, outliers=0.1)
    result = photometry(objects, stars, SEEING, "r", PARAMS)
    assert result.model.edges == ((0.0,), ())
    u, v = 2 * (objects["x"] + 0.5) / SIZE - 1, 2 * (objects["y"] + 0.5) / SIZE - 1
    mag = result.model.zero_point(objects["x"], objects["y"]) - 2.5 * np.log10(objects["flux"])
    assert np.median(np.abs(mag - truth - 0.03 * (u + 0.5 * v))) < 0.015


def test_what_is_smooth_has_no_steps():
    for seed in range(8):
        plain, stars = simulate(seed, 150, intrinsic=0.02, slope=0.05, outliers=0.1)
        radius = np.hypot(plain["x"] - MIDDLE, plain["y"] - MIDDLE) / MIDDLE
        shaded, cloudy = plain.copy(), plain.copy()
        shaded["flux"] *= 1 - 0.3 * radius**2 + 0.05 * radius**4
        cloudy["flux"] *= 1 - 0.5 / (1 + np.exp(-(plain["x"] - 400) / 60))
        for objects in (plain, shaded, cloudy):
            result = photometry(objects, stars, SEEING, "r", PARAMS)
            assert result.model.edges == amplifiers.WHOLE
        assert not photometry(plain, stars, SEEING, "r", PARAMS).warnings


def test_what_is_not_modelled_is_told():
    objects, stars, *_ = stepped(4, "left", n=200)
    result = photometry(objects, stars, SEEING, "r", parameters.PhotometryConfig(amplifiers=False, max_spatial_order=0))
    told = [note for note in result.warnings if "do not agree" in note or "stray together" in note]
    assert told
    objects, stars = simulate(5, 200, intrinsic=0.01)
    objects["flux"] *= 1 - 0.5 * np.exp(-((objects["x"] - 300) ** 2 + (objects["y"] - 600) ** 2) / 2 / 150**2)
    notes = photometry(objects, stars, SEEING, "r", PARAMS).warnings
    assert any("They stand together" in note for note in notes)


def test_cells_and_their_columns():
    edges = ((0.0,), (-0.5,))
    np.testing.assert_array_equal(amplifiers.cells(edges, [-1, 1, -1, 1], [-1, -1, 0, 0]), [0, 1, 2, 3])
    np.testing.assert_allclose(amplifiers.fractions(edges), [0.125, 0.125, 0.375, 0.375])
    u, v = (part.ravel() for part in np.meshgrid(np.linspace(-0.995, 0.995, 200), np.linspace(-0.995, 0.995, 200)))
    np.testing.assert_allclose(amplifiers.columns(edges, u, v).mean(axis=0), 0, atol=1e-12)
    levels = amplifiers.steps(edges, [1.0, 2.0, 3.0])
    np.testing.assert_allclose(np.diff(levels), 1)
    assert levels @ amplifiers.fractions(edges) == pytest.approx(0)
    assert amplifiers.places(edges, (100, 200)) == "x = 100 and y = 24"


def test_chance_does_not_cluster():
    rng = np.random.default_rng(1)
    high = 0
    for _ in range(100):
        x, y, kind = rng.random(100), rng.random(100), rng.random(100) < 0.15
        high += verdict.clustered(x, y, kind) > 3.5
    assert high <= 2
