"""Objects that the catalogue does not explain: what is found on simulated fields, and what each reason sets aside."""

import numpy as np
import pytest
from astropy.table import Table, vstack
from catalogued import calibrated, simulated, tangent
from scipy import ndimage
from scipy.spatial import cKDTree
from scipy.special import ndtr

from nightsift.flags import Flag, Mask
from nightsift.image.moffat import MoffatPsf
from nightsift.parameters import UncataloguedConfig
from nightsift.photometry.solution import ApertureSeeing, ZeroPointModel
from nightsift.simulate.pixels import render_points
from nightsift.simulate.sources import STARS
from nightsift.tables import empty
from nightsift.uncatalogued.number_counts import CHANCE, Counts, depth, seen_counts, star_counts
from nightsift.uncatalogued.uncatalogued import Frame, match_radius, predicted, uncatalogued, wings

REAL = ("transient", "variable", "mover", "hpm")


def points(table):
    return np.column_stack([table["x"], table["y"]])


def candidates(result):
    return result.table[np.asarray(result.table["is_candidate"], bool)]


def wanted(image):
    """Hostless transients of S/N 10 or more with no star of a hundredth of their light within 2 FWHM, and detected."""
    truth, fwhm = image.truth, image.frame.seeing.fwhm
    chosen = truth[(truth["kind"] == "transient") & ~truth["on_host"] & truth["usable"] & (truth["snr"] >= 10)]
    stars = truth[np.isin(truth["kind"], STARS)]
    near = cKDTree(points(stars)).query_ball_point(points(chosen), 2 * fwhm)
    alone = [
        not any(stars["flux"][j] > 0.01 * row["flux"] for j in index) for row, index in zip(chosen, near, strict=True)
    ]
    there = cKDTree(points(image.objects)).query(points(chosen))[0] < fwhm
    return chosen[np.array(alone, bool) & there]


def split(image, result):
    """Return how many of the wanted were found, and the candidates that nothing real explains."""
    found, fwhm = candidates(result), image.frame.seeing.fwhm
    seen = cKDTree(points(found)).query(points(wanted(image)))[0] < fwhm
    real = image.truth[np.isin(image.truth["kind"], REAL)]
    false = cKDTree(points(real)).query(points(found))[0] > fwhm
    return seen, found[false]


# ----------------------------------------------------------------------------------------------- simulated telescopes


@pytest.fixture(scope="module")
def telescopes():
    numbers = {"n_stars": 600, "n_galaxies": 0, "n_transients": 80, "n_variables": 4, "n_fast": 3, "n_cosmics": 10}
    numbers["catalog_snr"] = 10
    return [simulated(seed=7, fwhm=fwhm, **numbers) for fwhm in (2.0, 3.2, 5.0)]


def test_transients_are_found_where_the_catalogue_can_tell(telescopes):
    seen = []
    for image in telescopes:
        result = image.search()
        found, false = split(image, result)
        bright = np.asarray(wanted(image)["mag_instr"]) < result.depth
        assert bright.sum() >= 20
        assert len(false) == 0
        seen.extend(found[bright])
    assert np.mean(seen) >= 0.95


def test_faint_ones_are_kept_with_the_reason(telescopes):
    result = telescopes[1].search()
    aside = result.table[~np.asarray(result.table["is_candidate"], bool)]
    faint = np.asarray(aside["mag_psf"]) > result.depth
    assert faint.sum() > 10
    assert all("fainter than the catalogue" in text for text in aside["reasons"][faint])
    assert len(result.table) + result.n_catalogued <= len(telescopes[1].objects)


@pytest.fixture(scope="module")
def survey():
    """An image whose catalogue goes deeper than it does, with galaxies that it lacks."""
    return simulated(STARS, seed=8, fwhm=3.2, n_stars=300, n_galaxies=60, n_transients=120, n_cosmics=10)


def test_a_deep_catalogue_leaves_transients_alone(survey):
    seen, false = split(survey, survey.search())
    assert len(seen) >= 30
    assert seen.mean() >= 0.95
    assert len(false) <= 1


def test_galaxies_are_set_aside_as_extended(survey):
    result = survey.search()
    galaxies = survey.truth[(survey.truth["kind"] == "galaxy") & (survey.truth["mag_instr"] < 18)]
    distance, row = cKDTree(points(result.table)).query(points(galaxies))
    hit = distance < 2
    assert hit.sum() >= 5
    assert np.mean(["extended" in text for text in result.table["reasons"][row[hit]]]) > 0.85


SPARSE = {"n_stars": 50, "n_galaxies": 70, "n_transients": 20, "n_cosmics": 5}


@pytest.mark.parametrize(("seed", "fwhm"), [(2, 2.2), (4, 2.2), (5, 3.2)])
def test_galaxies_that_end_before_the_stars_make_no_catalogue_shallow(seed, fwhm):
    """The catalogue has all that the image sees, but its counts fall where its galaxies end: at 19.8 mag, not 20.5."""
    image = simulated(seed=seed, fwhm=fwhm, **SPARSE)
    stars = image.truth[np.isin(image.truth["kind"], STARS)]
    near = np.abs(np.log(stars["snr"] / 10)) < 0.3
    limit = np.median(stars["mag_instr"][near] + 2.5 * np.log10(stars["snr"][near] / 10))
    assert image.search().depth > limit - 0.15


@pytest.mark.parametrize("snr", [10, 30])
def test_a_catalogue_is_no_deeper_than_it_is(snr):
    image = simulated(seed=2, fwhm=3.2, catalog_snr=snr, **SPARSE)
    end = np.nanmax(image.catalog["rmag"])
    assert end - 1 < image.search().depth < end - 0.05


# ----------------------------------------------------------------------------------------------- trails and saturation


def observed(seed, *, trail=0, saturation=np.inf, side=420):
    """Stars, all but the last six in the catalogue, with a trailed PSF and saturated cores if asked for."""
    rng = np.random.default_rng(seed)
    x, y = np.meshgrid(np.arange(25, side - 20, 38.0), np.arange(25, side - 20, 38.0))
    x, y = (part.ravel() + rng.uniform(-6, 6, part.size) for part in (x, y))
    order = rng.permutation(len(x))
    x, y = x[order], y[order]
    mag = np.append(rng.uniform(13, 19, len(x) - 6), np.full(6, 16.0))
    light = np.zeros((side, side), np.float32)
    render_points(light, x, y, 10 ** (0.4 * (26 - mag)), MoffatPsf(3.0, 3.0, 0.05, 0.03, (0, 0, 0), (0, 0)), 0.05)
    if trail:
        light = ndimage.uniform_filter1d(light, trail, axis=1)
    data = np.minimum(rng.poisson((light + 300) * 1.5) / 1.5 + rng.normal(0, 5, light.shape), saturation)
    mask = np.where(ndimage.binary_dilation(data >= saturation), int(Mask.SATURATED), 0).astype(np.uint16)
    wcs = tangent(side)
    ra, dec = wcs.all_pix2world(x, y, 0)
    stars = Table({"ra": ra, "dec": dec, "rmag": mag, "e_rmag": np.full(len(x), 0.01)})
    return calibrated(data.astype(np.float32), mask, 1.5, wcs, stars[:-6]), x[-6:], y[-6:]


@pytest.mark.parametrize("options", [{"trail": 8}, {"saturation": 12000.0}], ids=["trailed", "saturated"])
def test_pieces_of_spoilt_stars_are_no_candidates(options):
    image, x, y = observed(3, **options)
    found = candidates(image.search())
    distance, row = cKDTree(np.column_stack([x, y])).query(points(found))
    assert distance.max() < 4
    assert len(set(row)) == len(found) == 6


# ------------------------------------------------------------------------------------------------ one object at a time

SIDE, FWHM = 200, 3.0


def solution(color=None, term=None):
    values = dict.fromkeys(ZeroPointModel.__dataclass_fields__, None)
    values |= {"band": "r", "color": color, "color_term": term, "scatter": 0.01, "coefficients": np.array([25.0])}
    return ZeroPointModel(**values | {"order": 0, "shape": (SIDE, SIDE)})


def objects(rows):
    """Objects by x, y and mag and what differs from a clean star."""
    table = empty("objects")
    base = {"snr": 50.0, "fwhm": FWHM, "a": FWHM / 2.3548, "b": FWHM / 2.3548, "psf_chi2": 1.0, "spread_err": 0.001}
    full = [base | {"mag_calib": row["mag"], "mag_psf": row["mag"], "mag_psf_err": 0.02} | row for row in rows]
    table = Table({name: [row.get(name, 0) for row in full] for name in table.colnames})
    table["ra"], table["dec"] = tangent(SIDE).all_pix2world(table["x"], table["y"], 0)
    return table


def grid(seed=0, count=150, deepest=21.0):
    """A catalogue of stars far from the middle of the image, down to a magnitude."""
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(-100, 300, (2, 20 * count))
    far = np.hypot(x - SIDE / 2, y - SIDE / 2) > 20
    mag = deepest + np.log10(rng.random(count)) / 0.3
    return stars(x[far][:count], y[far][:count], mag)


def stars(x, y, mag):
    ra, dec = tangent(SIDE).all_pix2world(x, y, 0)
    return Table({"ra": ra, "dec": dec, "rmag": np.asarray(mag, float)})


def search(rows, near=(), mask=None, catalog=None, known=None, **options):
    """Search a list of objects; `near` are further stars (x, y, mag)."""
    catalog = grid() if catalog is None else catalog
    catalog = vstack([catalog, stars(*np.transpose(near))]) if len(near) else catalog
    mask = np.zeros((SIDE, SIDE), np.uint16) if mask is None else mask
    frame = Frame(ApertureSeeing(FWHM, 1.0, FWHM, (SIDE, SIDE)), solution(), 0.05, mask)
    result = uncatalogued(objects(rows), catalog, frame, UncataloguedConfig(**options), known)
    return result.table


NEW = {"x": 100.0, "y": 100.0, "mag": 16.0}


def test_a_new_star_is_a_candidate():
    (row,) = search([NEW])
    assert row["is_candidate"]
    assert row["label"] == "new"
    assert np.isnan(row["catalog_mag"])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"flags": int(Flag.SATURATED)}, "saturated"),
        ({"flags": int(Flag.TRUNCATED)}, "border"),
        ({"spread": 0.01}, "extended"),
        ({"spread": -0.01}, "too sharp"),
        ({"psf_chi2": 20.0}, "unlike the PSF"),
        ({"mag": 20.9, "mag_psf_err": 0.1}, "fainter than the catalogue"),
    ],
)
def test_each_reason(change, reason):
    (row,) = search([NEW | change])
    assert row["reasons"] == reason
    assert not row["is_candidate"]


def test_a_catalogue_without_galaxies_calls_for_more_doubt():
    doubtful = NEW | {"mag": 18.0, "mag_psf_err": 0.1, "spread": 0.0035, "spread_err": 0.003}
    galaxy = {"x": 150.0, "y": 60.0, "mag": 16.0, "spread": 0.02}

    def reasons(near):
        return {row["x"]: row["reasons"] for row in search([doubtful, galaxy], near=near)}

    assert reasons(()) == {100.0: "extended", 150.0: "extended"}
    assert reasons([(150.2, 60.0, 16.2)]) == {100.0: ""}


@pytest.mark.parametrize(("share", "expected"), [(0.4, 1), (0.7, 0)])
def test_the_wings_of_a_neighbour_explain_what_they_make_half_of(share, expected):
    star = {"x": 107.5, "y": 100.0, "mag": 12.0, "mag_psf_err": 0.002}
    light = 12.0 - 2.5 * np.log10(wings(np.array([7.5 / FWHM]), ApertureSeeing(FWHM, 1.0, FWHM, (SIDE, SIDE)))[0])
    new = NEW | {"mag": light + 2.5 * np.log10(share)}
    assert len(search([new, star], near=[(107.5, 100.0, 12.0)])) == expected


def test_a_masked_core_and_a_masked_neighbourhood():
    mask = np.zeros((SIDE, SIDE), np.uint16)
    mask[100, 100] = int(Mask.COSMIC)
    assert search([NEW], mask=mask)["reasons"][0] == "masked"
    mask[100, 100], mask[101, 101] = 0, int(Mask.COSMIC)
    assert search([NEW | {"flags": int(Flag.APERTURE_MASKED)}], mask=mask)["is_candidate"][0]


@pytest.mark.parametrize(("mag", "expected"), [(17.9, 0), (18.1, 1)])
def test_an_outburst_counts_from_the_brightening_asked_for(mag, expected):
    table = search([NEW], near=[(100.3, 100.0, mag)])
    assert len(table) == expected
    if expected:
        assert table["label"][0] == "brighter"
        assert table["brightening"][0] == pytest.approx(2.1, abs=0.01)
        assert table["catalog_distance"][0] == pytest.approx(0.3, abs=0.01)
    assert len(search([NEW], near=[(100.3, 100.0, mag)], min_brightening=1.5)) == 1


def test_a_saturated_outburst_is_one_all_the_same():
    outburst = NEW | {"flags": int(Flag.SATURATED), "psf_chi2": 30.0}
    assert search([outburst], near=[(100.3, 100.0, 18.5)])["is_candidate"][0]


def test_a_star_without_a_magnitude_explains_what_lies_on_it():
    assert len(search([NEW], near=[(100.3, 100.0, np.nan)])) == 0


def test_two_merged_stars_are_compared_as_one():
    # Each alone is 1.2 FWHM away, beyond the position's error, and 0.75 mag fainter.
    assert len(search([NEW], near=[(96.4, 100.0, 16.75), (103.6, 100.0, 16.75)])) == 0


def test_a_star_that_a_neighbour_accounts_for_explains_no_other():
    neighbour = {"x": 106.0, "y": 100.0, "mag": 16.5}
    table = search([NEW, neighbour], near=[(106.1, 100.0, 16.5)])
    assert len(table) == 1
    assert table["x"][0] == 100.0
    # Nothing stands for the star: what is found at 2 FWHM less a bit may be all there is of it.
    assert len(search([NEW], near=[(105.9, 100.0, 16.5)])) == 0


def test_pieces_of_an_object_are_not_new():
    parent = {"x": 108.0, "y": 100.0, "mag": 12.0, "flags": int(Flag.DEBLENDED | Flag.SATURATED)}
    piece = NEW | {"flags": int(Flag.DEBLENDED), "mag": 17.0, "psf_chi2": 4.0}
    assert set(search([parent, piece])["reasons"]) == {"saturated", "beside a brighter object"}
    assert set(search([parent, piece | {"x": 70.0}])["reasons"]) == {"saturated", ""}
    # What the PSF fits well is a star beside it, if there is light enough to tell.
    point = piece | {"psf_chi2": 1.0}
    assert set(search([parent, point])["reasons"]) == {"saturated", ""}
    assert set(search([parent, point | {"mag_psf_err": 0.1}])["reasons"]) == {"saturated", "beside a brighter object"}


def test_the_distance_to_a_long_object_counts_in_its_own_ellipse():
    parent = {"x": 100.0, "y": 112.0, "mag": 14.0, "flags": int(Flag.DEBLENDED), "psf_chi2": 30.0, "a": 6.0}
    piece = NEW | {"flags": int(Flag.DEBLENDED), "mag": 17.0, "psf_chi2": 4.0}

    def reasons(theta):
        table = search([parent | {"theta": theta}, piece])
        return table["reasons"][np.flatnonzero(table["mag_psf"] == 17.0)[0]]

    assert reasons(np.pi / 2) == "beside a brighter object"
    assert reasons(0.0) == ""


def test_a_hole_of_the_catalogue_hides_nothing_and_proves_nothing():
    full = grid(1, 600)
    half = full[np.asarray(tangent(SIDE).all_world2pix(full["ra"], full["dec"], 0)[0]) < 100]
    reasons = {row["x"]: row["reasons"] for row in search([NEW | {"x": 60.0}, NEW | {"x": 190.0}], catalog=half)}
    assert reasons == {60.0: "", 190.0: "outside the catalogue"}


def test_the_cone():
    ra, dec = (float(value) for value in tangent(SIDE).all_pix2world(100.0, 100.0, 0))
    rows = [NEW, NEW | {"x": 130.0}]
    table = search(rows, ra=ra, dec=dec, radius=20 / 3600)
    assert list(table["x"]) == [100.0, 130.0]
    assert list(table["reasons"]) == ["", "outside the cone"]


def test_known_objects_are_named_and_kept():
    known = stars([101.0, 20.0], [100.0, 20.0], [0, 0])
    known["name"], known["radius"] = ["(1) Ceres", "(2) Pallas"], [5.0, 5.0]
    table = search([NEW, NEW | {"x": 130.0}], known=known)
    assert {row["x"]: row["known"] for row in table} == {100.0: "(1) Ceres", 130.0: ""}
    assert table["is_candidate"].all()


def test_no_objects_beyond_the_catalogue():
    assert len(search([NEW], near=[(100.0, 100.0, 16.0)])) == 0


def test_too_small_a_catalogue_tells_no_depth():
    tiny = grid(0, 5)
    frame = Frame(ApertureSeeing(FWHM, 1.0, FWHM, (SIDE, SIDE)), solution(), 0.05, np.zeros((SIDE, SIDE), np.uint16))
    result = uncatalogued(objects([NEW]), tiny, frame, UncataloguedConfig())
    assert np.isnan(result.depth)
    assert result.warnings
    assert result.table["is_candidate"][0]


def test_magnitudes_are_predicted_with_the_colour_term():
    catalog = Table({"rmag": [15.0, 15.0, np.nan, np.nan], "gmag": [15.5, np.nan, 16.0, np.nan]})
    mag = predicted(catalog, solution("g-r", 0.2))
    # The second has the usual colour of 0.5, the third a magnitude by it, the fourth nothing.
    assert mag == pytest.approx([14.9, 14.9, 15.4, np.nan], nan_ok=True)


def test_the_match_radius_follows_the_errors():
    seeing = ApertureSeeing(FWHM, 1.0, FWHM, (SIDE, SIDE))
    assert match_radius(np.array([100.0]), seeing, 0.05)[0] == 0.5
    assert match_radius(np.array([5.0]), seeing, 0.05)[0] == pytest.approx(0.6, abs=0.01)
    assert match_radius(np.array([100.0]), seeing, 0.6)[0] == pytest.approx(1.0, abs=0.01)


# ------------------------------------------------------------------------------------------------------------- counts


@pytest.mark.parametrize(("slope", "width"), [(0.3, 0.01), (0.3, 0.3), (0.45, 0.15)])
def test_counts_tell_where_a_catalogue_ends(slope, width):
    rng = np.random.default_rng(5)
    mag = 21.0 + np.log10(1 - rng.random(20000)) / slope
    catalogued = mag[rng.random(mag.size) < ndtr((18.0 - mag) / width)]
    counts = star_counts(np.append(catalogued, np.nan), 1e6)
    assert counts.middle == pytest.approx(18.0, abs=0.15)
    assert counts.width == pytest.approx(width, abs=0.1)
    assert counts.slope == pytest.approx(slope, abs=0.06)
    beyond = np.array([18.5, 19.0])
    true = 20000 * slope * np.log(10) * 10 ** (slope * (beyond - 21.0)) * ndtr((beyond - 18.0) / width) / 1e6
    assert counts.missing(beyond) == pytest.approx(true, rel=0.4)


@pytest.mark.parametrize(("width", "new"), [(0.02, 0.0), (0.15, 0.15)])
def test_an_image_tells_where_a_catalogue_ends(width, new):
    """Counts that are wrong are put right, whatever share of the objects is new; the doubt makes it less deep."""
    rng = np.random.default_rng(8)
    mag = 20.0 + np.log10(1 - rng.random(1500)) / 0.3
    found = rng.random(1500) < CHANCE + (1 - CHANCE - new) * ndtr((18.5 - mag) / width)
    counts = seen_counts(Counts(1e-4, 0.3, 17.0, 0.5), mag, found)
    assert 18.3 < counts.middle < 18.5 + 0.05
    assert counts.width < width + 0.15
    assert counts.missing(22.0) == pytest.approx(1e-4 * 10 ** (0.3 * 5), rel=1e-3)


def test_an_image_that_sees_no_end_of_a_catalogue_ends_itself():
    rng = np.random.default_rng(9)
    mag = 20.0 + np.log10(1 - rng.random(200)) / 0.3
    counts = seen_counts(Counts(1e-4, 0.3, 17.0, 0.5), mag, rng.random(200) > 0.1)
    assert mag.max() - 0.25 < counts.middle <= mag.max() + 0.1


def test_depth_lets_as_many_pass_as_asked_for():
    """Stars that a catalogue lacks, with noise and mergers, look brighter than the depth as often as is allowed."""
    counts, noise, fwhm, allowed = Counts(1e-3, 0.3, 18.0, 0.1), 0.1, 4.0, 5.0

    def error(mag):
        return noise * 10 ** (0.4 * (np.asarray(mag) - 18.0))

    limit = depth(counts, error, fwhm, allowed)
    rng = np.random.default_rng(6)
    side, passed, trials = 1500, 0, 8
    for _ in range(trials):
        steps = np.arange(15.0, 22.0, 0.01)
        mag = np.repeat(steps, rng.poisson(counts.missing(steps) * 0.01 * side**2))
        place = rng.uniform(0, side, (len(mag), 2))
        flux = 10 ** (-0.4 * (mag - 18.0))
        pairs = cKDTree(place).query_pairs(0.7 * fwhm, output_type="ndarray")
        light = np.append(
            flux + rng.normal(0, noise, len(flux)), flux[pairs].sum(axis=1) + rng.normal(0, noise, len(pairs))
        )
        passed += np.sum(light > 10 ** (-0.4 * (limit - 18.0)))
    rate = passed / trials / (side**2 / 1e6)
    assert 0.4 * allowed < rate < 1.5 * allowed
    assert depth(counts, error, fwhm, 0.05) < limit < 18.0
