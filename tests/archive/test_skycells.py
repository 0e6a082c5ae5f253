"""Where the pieces of surveys are, against the surveys' own tables; and what their pixels and masks mean."""

import numpy as np
import pytest
from astropy.io import fits

from nightsift.archive import bricks, hips, skycells
from nightsift.flags import Mask
from nightsift.header.readers import linearised
from nightsift.parameters import HIPS
from nightsift.sky.sphere import unit_vectors

RNG = np.random.default_rng(5)
# The examples of "PS1 Image Cutout Service" (outerspace.stsci.edu): the ring nebula and the Crab.
DOCUMENTED = [(283.3962, 33.0292, "2069.026"), (83.63321, 22.01446, "1784.059")]
# Centres in the list of all skycells.
LISTED = [
    (146.05737, -30.60296, "0667.034"),
    (349.29589, -11.79850, "1140.001"),
    (1.39879, 0.60007, "1322.011"),
    (37.83010, 10.59826, "1510.061"),
    (270.71845, 32.99207, "2066.023"),
    (140.92400, 47.00711, "2250.074"),
    (239.58652, 60.98389, "2484.025"),
    (90.90082, 75.41521, "2578.086"),
    (29.52135, 83.40956, "2620.083"),
    (135.51286, 86.05779, "2637.052"),
    (0.20427, 7.00176, "1412.074"),
    (359.79669, 9.39937, "1501.035"),
]
# Rows of survey-bricks.fits: name, centre.
BRICKS = [
    ("2045m892", 204.5454545, -89.25),
    ("0994m607", 99.4067797, -60.75),
    ("0673m292", 67.3926868, -29.25),
    ("0533m002", 53.3750000, -0.25),
    ("3013p000", 301.3750000, 0.00),
    ("3168p002", 316.8750000, 0.25),
    ("0083p202", 8.3751846, 20.25),
    ("1176p335", 117.6578073, 33.50),
    ("1838p607", 183.8135593, 60.75),
    ("1680p847", 168.0882353, 84.75),
    ("0002m572", 0.2301790, -57.25),
    ("3598m460", 359.8207171, -46.00),
]


@pytest.mark.parametrize(("ra", "dec", "name"), DOCUMENTED + LISTED)
def test_skycells_of_the_survey(ra, dec, name):
    assert skycells.find(ra, dec)[0] == name
    wcs, (ny, nx) = skycells.geometry(name)
    x, y = wcs.all_world2pix(ra, dec, 0)
    assert -0.5 < x < nx - 0.5
    assert -0.5 < y < ny - 0.5


@pytest.mark.parametrize(("ra", "dec", "name"), LISTED)
def test_skycells_lie_where_the_list_has_them(ra, dec, name):
    wcs, (ny, nx) = skycells.geometry(name)
    x, y = wcs.all_world2pix(ra, dec, 0)
    # The list takes all skycells for 6240 x 6240, and is good to 3 arcsec.
    assert abs(x - (nx - 1) / 2) <= (nx - 6240) / 2 + 12
    assert abs(y - (ny - 1) / 2) <= (ny - 6240) / 2 + 12


@pytest.mark.parametrize(("name", "ra", "dec"), BRICKS)
def test_bricks_of_the_survey(name, ra, dec):
    assert bricks.find(ra, dec)[0] == name
    np.testing.assert_allclose(bricks.center(name), (ra, dec), atol=1e-6)


def spread(count, low):
    """Return positions all over the sky north of a declination, and some at its awkward places."""
    ra, dec = RNG.uniform(0, 360, count), np.rad2deg(np.arcsin(RNG.uniform(np.sin(np.deg2rad(low)), 1, count)))
    awkward = [(0.0, 10.0), (359.99999, 10.0), (77.0, 90.0), (200.0, 89.9), (45.0, 87.96), (0.0, 0.0), (180.0, 83.94)]
    return np.append(ra, [a for a, _ in awkward]), np.append(dec, [d for _, d in awkward])


FINDERS = {
    "skycells": (skycells.find, skycells.geometry, -39.9),
    "bricks": (bricks.find, bricks.geometry, -90),
    "hips": (lambda ra, dec: hips.find(ra, dec, 0.5), lambda name: hips.geometry(name, 0.5), -90),
}


@pytest.mark.parametrize("kind", FINDERS)
def test_every_position_lies_well_in_its_piece(kind):
    find, geometry, low = FINDERS[kind]
    ra, dec = spread(1500, low)
    for name, one, other in zip(find(ra, dec), ra, dec, strict=True):
        wcs, (ny, nx) = geometry(name)
        x, y = wcs.all_world2pix(one, other, 0)
        assert 20 < x < nx - 20
        assert 20 < y < ny - 20


@pytest.mark.parametrize("kind", FINDERS)
def test_right_ascension_goes_round(kind):
    find, _, low = FINDERS[kind]
    # But for those on a border
    ra, dec = (part[:300] for part in spread(300, low))
    np.testing.assert_array_equal(find(ra, dec), find(ra - 360, dec))
    if kind == "bricks":
        south = find(ra, np.full(ra.shape, -90.0))
        assert len(set(south)) == 1


def test_south_of_pan_starrs_there_is_nothing():
    assert skycells.find([10.0, 10.0], [-40.0, -89.0]).tolist() == ["", ""]


def test_skycells_of_one_projection_share_a_grid():
    """What is joined by whole pixels must be so."""
    (one, _), (other, _) = (skycells.geometry(name) for name in ("1784.059", "1784.048"))
    for pixel in RNG.uniform(0, 6000, (20, 2)):
        sky = one.all_pix2world(*pixel, 0)
        there = np.array(other.all_world2pix(*sky, 0))
        np.testing.assert_allclose(there - pixel, other.wcs.crpix - one.wcs.crpix, atol=1e-5)
    assert (other.wcs.crpix - one.wcs.crpix == [6279 - 480, 6261 - 480]).all()


def test_bricks_fill_the_sky():
    ra, dec = RNG.uniform(0, 360, 4000), np.rad2deg(np.arcsin(RNG.uniform(-1, 1, 4000)))
    centers = np.array([bricks.center(name) for name in bricks.find(ra, dec)])
    distance = np.linalg.norm(unit_vectors(ra, dec) - unit_vectors(*centers.T), axis=1)
    assert np.rad2deg(distance).max() < 0.18


def test_where_the_files_are():
    place = skycells.files("1784.059", "r")[0]
    root = "https://ps1images.stsci.edu/rings.v3.skycell/1784/059/rings.v3.skycell.1784.059.stk.r.unconv"
    assert place == {"image": f"{root}.fits", "mask": f"{root}.mask.fits", "weight": f"{root}.wt.fits"}
    root = "https://portal.nersc.gov/cfs/cosmo/data/legacysurvey/dr10/south/coadd/150/1500p252/legacysurvey-1500p252"
    assert bricks.files("1500p252", "i") == [
        {"image": f"{root}-image-i.fits.fz", "mask": f"{root}-maskbits.fits.fz", "weight": f"{root}-invvar-i.fits.fz"}
    ]
    # Both have observed around the border; only one has i.
    assert ["dr9/north" in place["image"] for place in bricks.files("2000p350", "r")] == [True, False]
    assert ["dr9/north" in place["image"] for place in bricks.files("2000p305", "r")] == [False, True]
    assert ["dr9/north" in place["image"] for place in bricks.files("2000p350", "i")] == [False]


def test_asinh_scaling_is_undone():
    # Waters et al. 2020: v = 2.5 log10(e) asinh((flux - BOFFSET) / (2 BSOFTEN))
    header = fits.Header({"BSOFTEN": 123.4, "BOFFSET": -5.6})
    flux = np.concatenate([-(10 ** np.linspace(4, -2, 400)), 10 ** np.linspace(-2, 7, 400)]).reshape(-1, 2)
    scaled = (2.5 * np.log10(np.e) * np.arcsinh((flux + 5.6) / (2 * 123.4))).astype(np.float32)
    np.testing.assert_allclose(linearised(scaled, header), flux, rtol=3e-6, atol=1e-4)
    # Bright pixels are magnitudes: 2.5 up is a factor of ten.
    bright = linearised(np.array([[20.0, 22.5]], np.float32), header) + 5.6
    assert bright[0, 1] / bright[0, 0] == pytest.approx(10, rel=1e-5)
    assert linearised(np.zeros((1, 1), np.float32), header)[0, 0] == np.float32(-5.6)


def test_bits_of_masks():
    def of(*bits):
        return skycells.meaning(np.array([bits]), "r")[0].tolist()

    nonfinite, saturated, user = (int(bit) for bit in (Mask.NONFINITE, Mask.SATURATED, Mask.USER))
    assert of(0, 0x8000, 0x4000, 0x0080) == [0, 0, 0, 0]
    assert of(0x0008, 0x0020, 0x1000) == [nonfinite, saturated, saturated]
    assert of(0x0001, 0x0002, 0x0100, 0x0200, 0x0400, 0x0800, 0x2000) == [user] * 7
    assert of(0x0021) == [saturated | user]
    bits = np.array([[0x1, 0x2, 0x4, 0x8, 0x20, 0x40, 0x400, 0x800]])
    assert bricks.meaning(bits, "g")[0].tolist() == [0, 0, saturated, 0, user, 0, 0, 0]
    assert bricks.meaning(bits, "r")[0].tolist() == [0, 0, 0, saturated, 0, user, 0, 0]
    assert bricks.meaning(np.array([[1 << 14, 1 << 15, 1 << 4]]), "i")[0].tolist() == [saturated, user, 0]


def test_surveys_of_hips_are_those_of_the_configuration():
    assert set(hips.SURVEYS) == set(HIPS)


def test_pixels_of_hips_are_no_larger_than_wanted():
    survey = hips.SURVEYS["ztf"]
    assert [hips.doublings(wanted, survey, "r") for wanted in (0.2, 1.0, 1.01, 2.1, 15.0)] == [-0, 0, 0, 1, 3]
    assert hips.doublings(10.0, hips.SURVEYS["ps1"], "r") == 0, "asinh magnitudes cannot be averaged"
    for scale in (0.25, 0.5, 1.01, 8.0, 32.0):
        _, (ny, nx) = hips.geometry(hips.find(150.0, 2.0, scale)[0], scale)
        assert nx == ny
        assert 800 < nx < 4000
