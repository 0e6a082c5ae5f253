"""Converted magnitudes against published ones, their ranges and their errors; Gaia's positions in other catalogues."""

import numpy as np
import pytest
from astropy.table import Table

from nightsift import parameters
from nightsift.archive.catalogs import SURVEYS, suitable
from nightsift.catalog import conversions
from nightsift.catalog.catalog import catalog, with_gaia
from nightsift.catalog.conversions import converted

# Absolute magnitudes of the Sun: Willmer 2018, ApJS 236, 47, table 3; Gaia: Casagrande & VandenBerg 2018,
# MNRAS 479, L102.
SUN = {
    "sdss": {"u": 6.39, "g": 5.11, "r": 4.65, "i": 4.53, "z": 4.50},
    "ps1": {"g": 5.03, "r": 4.64, "i": 4.52, "z": 4.51, "y": 4.50},
    "johnson": {"B": 5.44, "V": 4.81, "R": 4.43, "I": 4.10},
    "gaiaedr3": {"G": 4.67, "BP": 4.99, "RP": 4.17},
}
# BD+17 4708, which defines the system of SDSS: Fukugita et al. 1996, AJ 111, 1748; Landolt & Uomoto 2007, AJ 133, 768.
BD17 = {
    "sdss": {"u": 10.56, "g": 9.64, "r": 9.35, "i": 9.25, "z": 9.23},
    "johnson": {"V": 9.464, "R": 9.166, "I": 8.846},
}


# Standards of both systems: r', g'-r', r'-i', i'-z' (Smith et al. 2002, AJ 123, 2121, table 8) and V, B-V, V-R, R-I
# (Landolt 1992, AJ 104, 340).
STANDARDS = {
    "SA92-282": (12.936, 0.136, 0.021, -0.009, 12.969, 0.318, 0.201, 0.221),
    "SA95-193": (13.844, 1.097, 0.407, 0.214, 14.338, 1.211, 0.748, 0.616),
    "SA100-280": (11.689, 0.308, 0.084, 0.003, 11.799, 0.494, 0.295, 0.291),
    "SA101-316": (11.438, 0.309, 0.073, 0.007, 11.552, 0.493, 0.293, 0.291),
    "PG1323-086D": (11.928, 0.397, 0.132, 0.032, 12.080, 0.587, 0.346, 0.335),
    "PG1047+003A": (13.303, 0.519, 0.212, 0.087, 13.512, 0.688, 0.422, 0.418),
    "SA104-428": (12.330, 0.763, 0.279, 0.147, 12.630, 0.985, 0.534, 0.497),
    "PG0918+029D": (11.937, 0.817, 0.324, 0.166, 12.272, 1.044, 0.575, 0.535),
    "SA114-656": (12.326, 0.756, 0.293, 0.156, 12.644, 0.965, 0.547, 0.506),
    "PG2336+004B": (12.312, 0.336, 0.100, 0.014, 12.431, 0.507, 0.313, 0.312),
    "SA110-232": (12.287, 0.552, 0.237, 0.094, 12.516, 0.729, 0.439, 0.450),
    "SA109-381": (11.514, 0.547, 0.223, 0.094, 11.730, 0.704, 0.428, 0.435),
    "PG1528+062B": (11.828, 0.419, 0.143, 0.036, 11.989, 0.593, 0.364, 0.344),
}


def standards():
    """Return the standards in SDSS's own system, as SDSS has them, and in Johnson-Cousins.

    From the primed system of the standards: Tucker et al. 2006, AN 327, 821, eq. 1-5.
    """
    r, gr, ri, iz, v, bv, vr, ri_jc = np.array(list(STANDARDS.values())).T
    sdss = {"g": r + gr + 0.060 * (gr - 0.53), "r": r + 0.035 * (ri - 0.21), "i": r - ri + 0.041 * (ri - 0.21)}
    sdss["z"] = r - ri - iz - 0.030 * (iz - 0.09)
    result = Table({"ra": np.zeros(len(r))})
    for band, mag in sdss.items():
        result[f"{band}mag"], result[f"e_{band}mag"] = mag, np.full(len(r), 0.005)
    return result, {"B": v + bv, "V": v, "R": v - vr, "I": v - vr - ri_jc}


def test_standards_by_way_of_sdss():
    stars, truth = standards()
    for conversion in conversions.SDSS:
        residual = conversions.apply(stars, conversion)[0] - truth[conversion.band]
        # the standards' own errors and those of their system's are some 0.01 each
        assert abs(residual.mean()) < 0.015, conversion.band
        assert residual.std() < 2 * conversion.scatter + 0.01, conversion.band


def test_standards_by_way_of_pan_starrs():
    stars, truth = standards()
    ps1 = converted(stars, "gaiadr3syn")  # has g, r, i and z of SDSS, too
    for conversion in conversions.PS1:
        mag, error = conversions.apply(ps1, conversion)
        residual = mag - truth[conversion.band]
        assert abs(residual.mean()) < 0.02, conversion.band
        assert residual.std() < 1.2 * conversion.scatter, conversion.band
        assert np.all(np.abs(residual) < 3.5 * error), conversion.band


def table(magnitudes, error=0.0):
    result = Table({"ra": [10.0], "dec": [0.0], "epoch": [2000.0]})
    for band, mag in magnitudes.items():
        result[f"{band}mag"], result[f"e_{band}mag"] = [mag], [error]
    return result


def raw(star, survey):
    """Return a star as a survey has it, whose zero points are not quite AB."""
    shifts = conversions.SDSS_TO_AB if survey == "sdss" else {}
    return table({band: mag - shifts.get(band, 0.0) for band, mag in star[survey].items()})


@pytest.mark.parametrize("survey", ["ps1", "sdss", "gaiaedr3"])
def test_the_sun_in_johnson_cousins(survey):
    result = converted(raw(SUN, survey), survey)
    for band, mag in SUN["johnson"].items():
        if f"{band}mag" in result.colnames:
            # the Sun's own magnitudes are known to 0.02 or so
            assert abs(result[f"{band}mag"][0] - mag) < 2 * result[f"e_{band}mag"][0] + 0.03, band


def test_the_sun_from_sdss_to_pan_starrs():
    result = converted(raw(SUN, "sdss"), "sdss")
    for band in "griz":
        assert abs(result[f"{band}mag"][0] - SUN["ps1"][band]) < 0.02, band
    assert result["umag"][0] == pytest.approx(SUN["sdss"]["u"])


def test_the_standard_of_sdss_in_johnson_cousins():
    result = converted(raw(BD17, "sdss"), "sdss")
    for band, mag in BD17["johnson"].items():
        # a subdwarf, which the relation is not made for
        assert abs(result[f"{band}mag"][0] - mag) < 0.04, band


@pytest.mark.parametrize("color", [-0.2, 0.3, 0.8, 1.3])
def test_pan_starrs_to_sdss_and_back(color):
    ps1 = {"g": 15 + color, "r": 15.0, "i": 15 - 0.3 * color, "z": 15 - 0.4 * color}
    sdss = {band: ps1[band] + np.polynomial.Polynomial(conversions.FROM_PS1_TO_SDSS[band][0])(color) for band in "griz"}
    back = converted(table(sdss), "gaiadr3syn")
    for band in "griz":
        assert back[f"{band}mag"][0] == pytest.approx(ps1[band], abs=1e-9)


@pytest.mark.parametrize("name", conversions.OF_SURVEY)
def test_outside_its_range_there_is_nothing(name):
    for conversion in conversions.OF_SURVEY[name]:
        bands = {conversion.base} | {band for term in conversion.terms for band in term.color.split("-")}
        for extreme, known in ((0.5, True), (9.0, False), (-9.0, False)):
            magnitudes = {}
            for term in conversion.terms:
                first, second = term.color.split("-")
                middle = (term.low + term.high) / 2
                magnitudes.setdefault(first, 15.0)
                magnitudes[second] = magnitudes[first] - (middle if known else extreme)
            magnitudes |= {band: 15.0 for band in bands - set(magnitudes)}
            mag, error = conversions.apply(table(magnitudes, 0.01), conversion)
            assert np.isfinite(mag[0]) == np.isfinite(error[0]) == known
            if known:
                assert error[0] >= np.hypot(conversion.scatter, 0.002)
        assert conversion.reference


@pytest.mark.parametrize("color", [0.1, 0.3, 0.5, 0.6])
def test_two_ways_from_skymapper_agree(color):
    # the direct one, and that by Pan-STARRS, which others have fitted to other stars
    red = 0.35 * color - 0.02
    star = table({"g": 15 + color, "r": 15.0, "i": 15 - red, "z": 15 - 1.5 * red, "u": 16 + color}, 0.01)
    direct = converted(star, "skymapper")
    around = converted(direct, "ps1")
    for band in "BVRI":
        assert abs(direct[f"{band}mag"][0] - around[f"{band}mag"][0]) < 0.05, band


def test_errors_are_those_of_a_simulation():
    rng = np.random.default_rng(1)
    n, noise = 20000, 0.02
    truth = table({"g": 15.6, "r": 15.0, "i": 14.8}, noise)
    many = Table({name: np.repeat(np.asarray(truth[name]), n) for name in truth.colnames})
    for band in "gri":
        many[f"{band}mag"] += rng.normal(0, noise, n)
    for conversion in conversions.PS1:
        mag, error = conversions.apply(many, conversion)
        measured = np.hypot(np.std(mag), conversion.scatter)
        assert np.median(error) == pytest.approx(measured, rel=0.03)


def test_a_missing_color_makes_a_missing_magnitude():
    result = converted(table({"g": np.nan, "r": 15.0, "i": 14.8, "z": 14.7, "y": 14.6}, 0.01), "ps1")
    assert result["rmag"][0] == 15.0
    assert np.isnan([result[f"{band}mag"][0] for band in "BVRI"]).all()


@pytest.mark.parametrize("name", SURVEYS)
def test_every_survey_gives_magnitudes_of_known_bands(name):
    bands = SURVEYS[name].magnitudes
    result = converted(table({band: 15.0 for band in bands}, 0.01), name)
    found = {name[:-3] for name in result.colnames if name.endswith("mag") and not name.startswith("e_")}
    assert found <= set(parameters.BANDS)
    assert set(bands) <= found


def test_vista_is_brought_to_2mass():
    result = converted(table({"J": 14.0, "H": 13.5, "Ks": 13.3}), "vhs")
    assert result["Jmag"][0] == pytest.approx(14.0 + 0.070 * 0.5)
    assert result["Ksmag"][0] == pytest.approx(13.3 - 0.011 * 0.7)
    without = converted(table({"J": 14.0, "H": np.nan, "Ks": 13.3}), "vhs")
    assert without["Jmag"][0] == 14.0
    assert without["e_Jmag"][0] == 0.05
    assert np.isnan(without["Hmag"][0])


@pytest.mark.parametrize(
    ("band", "dec", "faintest", "first"),
    [
        ("V", 10, 20, "gaiadr3syn"),
        ("G", 10, 20, "gaiaedr3"),
        ("r", 10, 20, "ps1"),
        ("r", -40, 20, "skymapper"),
        (None, 10, 20, "ps1"),
        (None, 10, 14, "atlas"),
        ("u", 10, 20, "gaiadr3syn"),
        ("J", 10, 20, "2mass"),
        ("J", -10, 20, "vhs"),
    ],
)
def test_the_survey_suits_filter_and_place(band, dec, faintest, first):
    names = suitable(band, dec, faintest)
    assert names[0] == first
    assert set(names) <= set(SURVEYS) == set(parameters.ARCHIVES)


def gaia(ra, dec, motion=(0.0, 0.0)):
    n = len(ra)
    columns = {"ra": ra, "dec": dec, "epoch": np.full(n, 2016.0), "pmRA": np.full(n, motion[0])}
    return Table(columns | {"pmDE": np.full(n, motion[1]), "Gmag": np.full(n, 15.0), "e_Gmag": np.full(n, 0.001)})


def test_positions_of_gaia_at_the_epoch_of_the_image():
    # 300 mas/yr to the north, seen by the survey in 2012, by Gaia in 2016, by us in 2024
    speed = 300.0
    at = {year: 20.0 + (year - 2016) * speed / 3.6e6 for year in (2012, 2016, 2024)}
    stars = Table({"ra": [10.0, 10.1], "dec": [at[2012] + 5e-5, 20.1], "epoch": [2012.0, 2012.0]})
    stars["rmag"] = [16.0, 17.0]
    joined = with_gaia(stars, gaia(np.array([10.0, 10.2]), np.array([at[2016], 20.2]), (0.0, speed)))
    assert len(joined) == 3
    mjd = 51544.5 + 24 * 365.25
    result = catalog(joined, 10.1, 20.1, 1.0, mjd, parameters.CatalogConfig()).table
    assert result["dec"][0] == pytest.approx(at[2024], abs=1e-9)
    assert result["rmag"][0] == 16.0
    assert result["Gmag"][0] == 15.0
    assert result["dec"][1] == pytest.approx(20.1, abs=1e-9), "unknown to Gaia: as catalogued"
    assert np.isnan(result["Gmag"][1])
    assert np.isnan(result["rmag"][2]), "known to Gaia alone"


def test_nothing_from_gaia_changes_nothing():
    stars = Table({"ra": [10.0], "dec": [20.0], "epoch": [2012.0], "rmag": [16.0]})
    assert with_gaia(stars, gaia(np.zeros(0), np.zeros(0))) is stars
    assert len(with_gaia(stars[:0], gaia(np.array([1.0]), np.array([2.0])))) == 1
