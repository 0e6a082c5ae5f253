"""What cannot be true in a catalogue is left out and told; what can be stays."""

import numpy as np
import pytest
from astropy.table import Table
from calibrations import PARAMS, SEEING, ZP, simulate

from nightsift import parameters
from nightsift.catalog.catalog import catalog
from nightsift.catalog.plausible import magnitudes, motions
from nightsift.photometry.photometry import photometry

CATALOG = parameters.CatalogConfig(path="stars.csv")
MJD = 60310.0


def field(n, seed=1, spread=5.0):
    rng = np.random.default_rng(seed)
    table = Table({"ra": rng.uniform(149.9, 150.1, n), "dec": rng.uniform(-0.1, 0.1, n)})
    table["pmRA"], table["pmDE"] = rng.normal(0, spread, (2, n))
    table["rmag"] = rng.uniform(13, 18, n)
    return table


@pytest.mark.parametrize("factor", [1000.0, -1000.0, 300.0])
def test_proper_motions_in_another_unit_move_no_star(factor):
    stars = field(200)
    wrong = stars.copy()
    for name in ("pmRA", "pmDE"):
        # as files are read: what is too fast for a number is missing
        wrong[name] = np.where(np.abs(factor * stars[name]) < 2e4, factor * stars[name], np.nan)
    true, found = (catalog(one, 150.0, 0.0, 1.0, MJD, CATALOG) for one in (stars, wrong))
    assert np.hypot(true.table["ra"] - found.table["ra"], true.table["dec"] - found.table["dec"]).max() < 0.6 / 3600
    assert any("Is their unit mas/yr?" in note for note in found.warnings)
    assert not any("unit" in note for note in true.warnings)


def test_fast_stars_are_believed():
    for spread, n in ((5.0, 300), (100.0, 300)):
        stars = field(n, spread=spread)
        stars["pmRA"][:3] = 10300.0, -3000.0, 1500.0
        kept, notes = motions(stars)
        assert notes == ()
        np.testing.assert_array_equal(kept["pmRA"], stars["pmRA"])
    alone = field(1)
    alone["pmDE"] = 10300.0
    assert motions(alone)[1] == ()


@pytest.mark.parametrize(
    ("value", "share"), [(0.0, 0.6), (0.0, 0.02), (30.0, 0.3), (-1.0, 0.1), (15.0, 0.4), (20.0, 0.05)]
)
def test_a_number_that_stands_for_missing_magnitudes(value, share):
    stars = field(300)
    lost = np.random.default_rng(2).random(len(stars)) < share
    stars["rmag"][lost] = value
    kept, notes = magnitudes(stars)
    np.testing.assert_array_equal(np.isnan(kept["rmag"]), lost)
    assert len(notes) == 1
    assert f"rmag is exactly {value:g} for {lost.sum()} of 300" in notes[0]
    assert np.isfinite(stars["rmag"]).all()


def test_real_magnitudes_are_believed():
    rng = np.random.default_rng(3)
    mag = np.log10(rng.uniform(10**3.0, 10**6.0, 5000)) / 0.3
    for digits in (0, 1, 2, 3, 8):
        rounded = Table({"rmag": np.round(mag, digits), "e_rmag": np.full(len(mag), 0.02)})
        assert magnitudes(rounded)[1] == ()
    # a bright star, or two, and one magnitude for all
    assert magnitudes(Table({"Vmag": [0.0, 0.0, *rng.uniform(9, 12, 50)]}))[1] == ()
    assert magnitudes(Table({"Vmag": np.full(50, 11.0)}))[1] == ()


def test_missing_magnitudes_calibrate_nothing():
    for seed in range(4):
        objects, stars = simulate(seed, 200)
        stars["rmag"][np.random.default_rng(seed).random(len(stars)) < 0.6] = 0.0
        kept = catalog(stars, 150.0, 0.0, 1.0, MJD, CATALOG).table
        result = photometry(objects, kept, SEEING, "r", PARAMS)
        assert result.doubts == ()
        assert abs(result.model.zp_aperture - ZP) < 4 * result.model.zp_aperture_err < 0.05
