"""Catalogue files, cones and proper motions against what they must give."""

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import MaskedColumn, Table
from astropy.time import Time
from astropy.wcs import WCS

from nightsift import parameters
from nightsift.catalog.catalog import catalog, field
from nightsift.errors import Rejected
from nightsift.io.catalogs import read_catalog
from nightsift.simulate import simulate
from nightsift.simulate.cameras import SimulatedCampaign
from nightsift.simulate.sources import sky

PARAMS = parameters.CatalogConfig(path="stars.csv")


def stars(ra, dec, **columns):
    return Table({"ra": np.atleast_1d(ra).astype(float), "dec": np.atleast_1d(dec).astype(float), **columns})


@pytest.mark.parametrize("name", ["c.fits", "c.csv", "c.ecsv", "c.vot", "c.csv.gz"])
def test_every_format_gives_the_same(tmp_path, name):
    raw = Table({"RAJ2000": [10.0, 370.0 - 360], "DEJ2000": [-5.0, 6.0], "pmRA": [1.0, 2.0], "pmDE": [3.0, 4.0]})
    raw["rmag"], raw["e_rmag"], raw["VTmag"] = [15.0, -999.0], [0.01, 99.0], [99.9, 12.0]
    path = tmp_path / name
    if name.endswith(".csv.gz"):
        raw.to_pandas().to_csv(path, index=False)
    else:
        kind = {"fits": "fits", "csv": "ascii.csv", "ecsv": "ascii.ecsv", "vot": "votable"}[name.split(".")[1]]
        raw.write(path, format=kind)
    table = read_catalog(path)
    np.testing.assert_allclose(table["ra"], [10.0, 10.0])
    np.testing.assert_allclose(table["pmDE"], [3.0, 4.0])
    np.testing.assert_allclose(table["epoch"], 2000.0)
    np.testing.assert_array_equal(table["rmag"], [15.0, np.nan])
    np.testing.assert_array_equal(table["e_rmag"], [0.01, np.nan])
    np.testing.assert_array_equal(table["VTmag"], [np.nan, 12.0])


def test_masked_values_units_case_and_epoch_of_the_header(tmp_path):
    raw = Table({"Ra": [1.0, 2.0] * u.deg, "DEC": [3.0, 4.0] * u.deg})
    raw["PMRA"], raw["pmdec"] = [0.001, 0.002] * u.arcsec / u.yr, [0.0, 0.0] * u.arcsec / u.yr
    raw["gmag"] = MaskedColumn([12.0, 13.0], mask=[False, True])
    raw.meta["EPOCH"] = 2016.0
    raw.write(tmp_path / "c.fits")
    table = read_catalog(tmp_path / "c.fits")
    np.testing.assert_allclose(table["pmRA"], [1.0, 2.0])
    np.testing.assert_array_equal(table["gmag"], [12.0, np.nan])
    np.testing.assert_allclose(table["epoch"], 2016.0)


GAIA = {"source_id": [4295806720, 38655544960], "ra": [10.0, 10.1], "dec": [5.0, 5.1]}
GAIA |= {"pmra": [100.0, -50.0], "pmdec": [-200.0, 0.0]}
ARCHIVE = GAIA | {"phot_g_mean_mag": [12.0, 13.0], "phot_bp_mean_mag": [12.5, 13.5], "phot_rp_mean_mag": [11.5, 12.5]}
VIZIER = {"RA_ICRS": GAIA["ra"], "DE_ICRS": GAIA["dec"], "Source": GAIA["source_id"], "pmRA": GAIA["pmra"]}
VIZIER |= {"pmDE": GAIA["pmdec"], "Gmag": [12.0, 13.0], "BPmag": [12.5, 13.5], "RPmag": [11.5, 12.5]}
PLAIN = {"ra": GAIA["ra"], "dec": GAIA["dec"], "pmRA": GAIA["pmra"], "pmDE": GAIA["pmdec"], "rmag": [12.0, 13.0]}


@pytest.mark.parametrize(
    ("name", "columns", "meta", "epoch", "word"),
    [
        ("stars.ecsv", ARCHIVE, {}, 2016.0, "Gaia DR3"),
        ("stars.csv", ARCHIVE, {}, 2016.0, "Gaia DR3"),
        ("gaia_dr2.csv", ARCHIVE, {}, 2015.5, "Gaia DR2"),
        ("stars.ecsv", ARCHIVE, {"description": "from gaiadr2.gaia_source"}, 2015.5, "Gaia DR2"),
        ("stars.csv", ARCHIVE | {"designation": ["Gaia DR2 1", "Gaia DR2 2"]}, {}, 2015.5, "Gaia DR2"),
        ("stars.csv", ARCHIVE | {"designation": ["Gaia EDR3 1", "Gaia EDR3 2"]}, {}, 2016.0, "Gaia EDR3"),
        ("stars.fits", ARCHIVE | {"teff_val": [5000.0, 6000.0]}, {}, 2015.5, "Gaia DR2"),
        ("stars.fits", ARCHIVE | {"ref_epoch": [2015.5, 2015.5]}, {}, 2015.5, None),
        ("stars.fits", ARCHIVE | {"ref_epoch": [2015.5, np.nan]}, {}, [2015.5, 2016.0], "Gaia DR3"),
        ("stars.fits", GAIA | {"rmag": [12.0, 13.0]}, {}, 2016.0, "Gaia DR3"),
        ("stars.fits", VIZIER, {}, 2016.0, "Gaia DR3"),
        ("stars.fits", VIZIER | {"DR2Name": ["Gaia DR2 1", "Gaia DR2 2"]}, {}, 2015.5, "Gaia DR2"),
        ("stars.fits", VIZIER | {"RAJ2000": GAIA["ra"], "DEJ2000": GAIA["dec"]}, {}, 2000.0, "2000.0"),
        ("stars.fits", PLAIN, {}, 2000.0, "2000.0"),
        ("stars.fits", GAIA | {"source_id": [1, 2], "rmag": [12.0, 13.0]}, {}, 2000.0, "2000.0"),
        ("stars.fits", PLAIN, {"EPOCH": 2010.5}, 2010.5, None),
        ("stars.fits", PLAIN, {"EPOCH": "unknown"}, 2000.0, "2000.0"),
        ("stars.fits", PLAIN | {"epoch": [51544.5 + 3652.5] * 2}, {}, 2010.0, None),
        ("stars.fits", {name: PLAIN[name] for name in ("ra", "dec", "rmag")}, {}, 2000.0, None),
    ],
)
def test_the_epoch_is_that_of_the_release_or_its_lack_is_told(tmp_path, name, columns, meta, epoch, word):
    kind = {"fits": "fits", "csv": "ascii.csv", "ecsv": "ascii.ecsv"}[name.split(".")[1]]
    Table(columns, meta=meta).write(tmp_path / name, format=kind)
    table = read_catalog(tmp_path / name)
    np.testing.assert_allclose(table["epoch"], epoch)
    cut = catalog(table, 10.05, 5.05, 1, 60310.0, PARAMS)
    told = [text for text in cut.warnings if name in text]
    assert len(told) == (word is not None)
    assert word is None or word in told[0]
    if columns is not PLAIN and "pmra" in columns:
        years = 2000 + (60310.0 - 51544.5) / 365.25 - np.broadcast_to(epoch, 2)
        np.testing.assert_allclose((cut.table["dec"] - GAIA["dec"]) * 3.6e6, years * GAIA["pmdec"], atol=1.0)


def test_magnitudes_of_gaia_have_the_names_of_its_bands(tmp_path):
    more = {"phot_g_mean_flux_over_error": [1000.0, 100.0]}
    Table(ARCHIVE | more).write(tmp_path / "c.fits")
    table = read_catalog(tmp_path / "c.fits")
    np.testing.assert_allclose(table["Gmag"], ARCHIVE["phot_g_mean_mag"])
    np.testing.assert_allclose(table["BPmag"], ARCHIVE["phot_bp_mean_mag"])
    np.testing.assert_allclose(table["RPmag"], ARCHIVE["phot_rp_mean_mag"])
    np.testing.assert_allclose(table["e_Gmag"], [0.0010857, 0.010857], rtol=1e-3)


def test_the_simulated_catalogue_tells_its_epoch(tmp_path):
    params = SimulatedCampaign(n_images=1, size=256, n_stars=30)
    simulate.catalog(sky(params), params).write(tmp_path / "c.fits")
    assert read_catalog(tmp_path / "c.fits").meta["warnings"] == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("alpha,dec,rmag\n1,2,3\n", ("c.csv", "RAJ2000", "alpha")),
        ("ra,dec,flux\n1,2,3\n", ("c.csv", "magnitudes", "flux")),
        ("ra,dec,rmag\nx,2,3\n", ("c.csv", "ra", "not a number")),
    ],
)
def test_what_is_missing_is_named(tmp_path, text, words):
    (tmp_path / "c.csv").write_text(text)
    with pytest.raises(ValueError, match="catalogue") as caught:
        read_catalog(tmp_path / "c.csv")
    assert all(word in str(caught.value) for word in words)


def test_a_broken_file_and_an_unknown_format_are_named(tmp_path):
    for name in ("c.fits", "c.vot", "c.txt", "c.parquet"):
        (tmp_path / name).write_text("nonsense")
        with pytest.raises(ValueError, match=name):
            read_catalog(tmp_path / name)


@pytest.mark.parametrize(("ra", "dec"), [(0.0, 0.0), (359.99, 45.0), (123.0, 89.95), (10.0, -90.0)])
def test_the_cone_is_that_of_astropy(ra, dec):
    rng = np.random.default_rng(3)
    center = SkyCoord(ra, dec, unit="deg")
    around = center.directional_offset_by(rng.uniform(0, 360, 400) * u.deg, rng.uniform(0.01, 1, 400) * u.deg)
    cut = catalog(stars(around.ra.deg, around.dec.deg, rmag=np.arange(400.0)), ra, dec, 0.5, 57000.0, PARAMS)
    inside = around.separation(center).deg <= 0.5
    assert cut.n == inside.sum() > 100
    np.testing.assert_array_equal(cut.table["rmag"], np.flatnonzero(inside))


@pytest.mark.parametrize("dec", [0.0, -60.0, 89.999])
def test_proper_motion_is_that_of_astropy(dec):
    table = stars(359.9999, dec, pmRA=[3000.0], pmDE=[-5000.0], epoch=[2016.0], rmag=[10.0])
    time = Time(60310.0, format="mjd")
    cut = catalog(table, 359.9999, dec, 0.2, time.mjd, PARAMS)
    truth = SkyCoord(
        359.9999 * u.deg,
        dec * u.deg,
        pm_ra_cosdec=3000 * u.mas / u.yr,
        pm_dec=-5000 * u.mas / u.yr,
        obstime=Time(2016.0, format="jyear"),
        distance=10 * u.pc,
        radial_velocity=0 * u.km / u.s,
    ).apply_space_motion(time)
    moved = SkyCoord(cut.table["ra"], cut.table["dec"])
    assert moved.separation(SkyCoord(truth.ra, truth.dec)).arcsec[0] < 1e-3
    assert moved.separation(SkyCoord(359.9999, dec, unit="deg")).arcsec[0] > 40
    np.testing.assert_allclose([cut.table["ra_ref"][0], cut.table["dec_ref"][0]], [359.9999, dec])


def test_without_a_time_nothing_moves_and_a_warning_says_so():
    cut = catalog(stars(10, 10, pmRA=[1e4], pmDE=[1e4], rmag=[10.0]), 10, 10, 0.1, None, PARAMS)
    np.testing.assert_allclose([cut.table["ra"][0], cut.table["dec"][0]], 10, atol=1e-12)
    assert "time" in cut.warnings[0]


def test_an_empty_field_is_rejected_with_the_count():
    with pytest.raises(Rejected, match=r"None of the 3 stars of the catalogue stars\.csv"):
        catalog(stars([1, 2, 3], [1, 2, 3], rmag=[1.0, 2.0, 3.0]), 200, 0, 1, 57000.0, PARAMS)


def test_a_star_listed_twice_counts_once():
    cut = catalog(stars([10, 10, 10.1], [5, 5, 5], rmag=[1.0, 1.0, 3.0]), 10, 5, 1, 57000.0, PARAMS)
    assert cut.n == 2


def test_the_field_holds_the_image():
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [0.01, 89.9], [300, 200]
    wcs.wcs.cdelt = [-0.001, 0.001]
    ra, dec, radius = field(wcs, (400, 600), 0.0)
    center = SkyCoord(ra, dec, unit="deg")
    corners = wcs.all_pix2world([-0.5, 599.5, -0.5, 599.5], [-0.5, -0.5, 399.5, 399.5], 0)
    apart = center.separation(SkyCoord(*corners, unit="deg")).deg
    assert apart.max() == pytest.approx(radius, rel=1e-6)
    assert field(wcs, (400, 600), 0.25)[2] == pytest.approx(1.5 * radius)
