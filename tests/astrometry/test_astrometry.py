"""The astrometry stage against simulated skies of known solution, and on real frames."""

from pathlib import Path

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

from nightsift import parameters, statistics
from nightsift.astrometry import asterism, plate_solution, sip
from nightsift.astrometry.astrometry import Hint, astrometry, brightness_column, residual_map
from nightsift.errors import Rejected
from nightsift.header.wcs_cards import repair_wcs
from nightsift.sky import tangent
from nightsift.sky.pixels import grid

PARAMS = parameters.AstrometryConfig()
SHARED = Path(__file__).parents[3] / "shared"
SQUARE = (1024, 1024)


def make_wcs(scale, shape=SQUARE, ra=150.0, dec=20.0, distortion=3e-3, mirror=1, angle=33.0):
    """A TAN-SIP solution whose cubic distortion is `distortion` half-diagonals at the corners."""
    unit = 0.5 * np.hypot(*shape)
    turn = np.radians(angle)
    cd = scale / 3600 * np.array([[-mirror * np.cos(turn), np.sin(turn)], [mirror * np.sin(turn), np.cos(turn)]])
    bent = {(3, 0): (1, 0), (1, 2): (1, 0), (2, 1): (0, 1), (0, 3): (0, 1), (2, 0): (0.2, -0.1), (1, 1): (-0.1, 0.1)}
    terms = {(1, 0): cd[:, 0], (0, 1): cd[:, 1]} | {ij: cd @ value * distortion for ij, value in bent.items()}
    coefficients = np.array([terms.get(ij, np.zeros(2)) * unit for ij in sip.powers(3)])
    center = (shape[1] - 1) / 2 + 0.5j * (shape[0] - 1)
    order = 3 if distortion else 1
    coefficients = coefficients[: len(sip.powers(order))]
    return WCS(sip.header(coefficients, order, unit, center, (ra, dec), shape))


def lens_wcs():
    """A lens of 32 arcsec a pixel, 9 degrees, with distortion of the fifth order: 14 pixels at the corners."""
    shape, unit = SQUARE, 0.5 * np.hypot(*SQUARE)
    cd = 32 / 3600 * np.array([[-0.8, 0.6], [0.6, 0.8]])
    bent = {(3, 0): (1, 0), (1, 2): (1, 0), (2, 1): (0, 1), (0, 3): (0, 1), (2, 0): (0.2, -0.1), (2, 2): (0, 0.1)}
    fifth = {(5, 0): (-1, 0), (3, 2): (-2, 0), (1, 4): (-1, 0), (4, 1): (0, -1), (2, 3): (0, -2), (0, 5): (0, -1)}
    bent |= {ij: np.array(value) / 4 for ij, value in fifth.items()}
    terms = {(1, 0): cd[:, 0], (0, 1): cd[:, 1]} | {ij: 0.02 * cd @ value for ij, value in bent.items()}
    coefficients = np.array([terms.get(ij, np.zeros(2)) * unit for ij in sip.powers(5)])
    return WCS(sip.header(coefficients, 5, unit, (shape[1] - 1) / 2 + 0.5j * (shape[0] - 1), (200.0, 80.0), shape))


def spoil(wcs, arcmin=5.0, degrees=5.0, scale=1.03, distortion=False):
    """The same solution shifted, rotated and scaled, with or without its distortion."""
    origin, offset = wcs.wcs.crval, arcmin / 60 * np.exp(1.1j)
    center = tangent.deproject(offset, *origin)
    north = tangent.deproject(offset + 1e-4j, *origin)
    turn = np.radians(degrees) + np.angle(tangent.project(*north, *center) / 1j)
    result = WCS(naxis=2)
    kept = distortion and wcs.sip is not None
    result.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"] if kept else ["RA---TAN", "DEC--TAN"]
    result.wcs.crpix, result.wcs.crval = wcs.wcs.crpix, center
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    result.wcs.cd = scale * rotation @ wcs.pixel_scale_matrix
    result.sip = wcs.sip if kept else None
    result.wcs.set()
    return result


def make_stars(rng, wcs, shape=SQUARE, number=400, margin=1.0, missing=0.25, spurious=0.25, absent=0.15):
    """Objects and catalogue of a random sky; returns them and the index of each object's star, -1 for none."""
    height, width = shape
    scale = np.sqrt(abs(np.linalg.det(wcs.pixel_scale_matrix)))
    reach = (margin + 0.5) * np.hypot(height, width)
    total = int(number * np.pi * reach**2 / (height * width))
    plane = reach * scale * np.sqrt(rng.random(total)) * np.exp(2j * np.pi * rng.random(total))
    ra, dec = tangent.deproject(plane, *wcs.wcs.crval)
    mag = 20 + np.log10(rng.random(total)) / 0.4
    near = np.flatnonzero(np.abs(plane) < 0.55 * np.hypot(height, width) * scale)
    x, y = wcs.all_world2pix(ra[near], dec[near], 0, tolerance=1e-6, maxiter=50, quiet=True)
    seen = (x > 0) & (x < width - 1) & (y > 0) & (y < height - 1) & (rng.random(len(near)) > missing)
    star = near[seen]
    flux = 10 ** (-0.4 * (mag[star] + rng.normal(0, 0.3, len(star)) - 25))
    snr = 5 * (flux / flux.min()) ** 0.7
    error = np.hypot(0.03, 0.6 * 3 / snr)
    count = int(spurious * len(star))
    objects = Table(
        {
            "x": np.append(x[seen] + rng.normal(0, error), rng.uniform(0, width - 1, count)),
            "y": np.append(y[seen] + rng.normal(0, error), rng.uniform(0, height - 1, count)),
            "flux": np.append(flux, rng.choice(flux, count)),
            "snr": np.append(snr, rng.choice(snr, count)),
            "fwhm": np.full(len(star) + count, 3.0),
            "flags": np.zeros(len(star) + count, int),
        }
    )
    order = rng.permutation(len(objects))
    kept = rng.random(total) > absent
    number_of = np.where(kept, np.cumsum(kept) - 1, -1)
    catalog = Table({"ra": ra[kept], "dec": dec[kept], "rmag": mag[kept]})
    return objects[order], catalog, np.append(number_of[star], np.full(count, -1))[order]


def grid_error(found, true, shape=SQUARE):
    """Rms per axis, in pixels, of a solution over the whole frame."""
    pixels = grid(shape, 21, 0.0)
    offset = tangent.project(
        *found.all_pix2world(pixels.real, pixels.imag, 0), *true.all_pix2world(pixels.real, pixels.imag, 0)
    )
    return np.sqrt(np.mean(np.abs(offset) ** 2) / 2 / abs(np.linalg.det(true.pixel_scale_matrix)))


CASES = {
    "0.4 arcsec": (dict(scale=0.4, distortion=1e-3), SQUARE, 1.0),
    "2 arcsec, oblong": (dict(scale=2.0, shape=(1500, 1000)), (1500, 1000), 5.0),
    "32 arcsec, 9 degrees": (dict(scale=32.0, distortion=1e-2), SQUARE, 20.0),
    "across RA 0": (dict(scale=1.0, ra=0.01), SQUARE, 3.0),
    "dec 89.9": (dict(scale=1.0, ra=10.0, dec=89.9), SQUARE, 3.0),
    "pole in a wide field": (dict(scale=32.0, ra=120.0, dec=-89.0, distortion=1e-2), SQUARE, 20.0),
}


@pytest.mark.parametrize("case", CASES)
def test_spoiled_header_is_recovered(case):
    options, shape, shift = CASES[case]
    true = make_wcs(**options)
    objects, catalog, star = make_stars(np.random.default_rng(2), true, shape)
    result = astrometry(objects, catalog, Hint(wcs=spoil(true, shift)), shape, PARAMS)
    assert grid_error(result.wcs, true, shape) < 0.05
    assert result.order == 3
    assert not result.kept_input
    assert result.shift == pytest.approx(60 * shift, abs=10 * options["scale"])
    assert result.rotation == pytest.approx(5.0, abs=0.1)
    assert result.scale == pytest.approx(1 / 1.03, rel=0.02)
    right = star[result.object_index] == result.catalog_index
    assert right.mean() > 0.98
    assert right.sum() > 0.95 * (star >= 0).sum()


def test_header_carries_the_solution_both_ways():
    true = make_wcs(32.0, distortion=2e-2)
    objects, catalog, _ = make_stars(np.random.default_rng(3), true)
    result = astrometry(objects, catalog, Hint(wcs=spoil(true)), SQUARE, PARAMS)
    again = WCS(fits.Header.fromstring(result.header.tostring()))
    pixels = grid(SQUARE, 21, 0.0)
    sky = again.all_pix2world(pixels.real, pixels.imag, 0)
    assert np.allclose(sky, result.wcs.all_pix2world(pixels.real, pixels.imag, 0), rtol=0, atol=1e-12)
    # the inverse by AP, BP alone, without iteration
    center = (again.wcs.crpix - 1) @ [1, 1j]
    focal = again.wcs_world2pix(np.transpose(sky), 0) @ [1, 1j] - center
    assert np.abs(focal + center - pixels).max() > 10
    powers = focal.real[:, None, None] ** np.arange(again.sip.ap_order + 1)[:, None]
    powers = powers * focal.imag[:, None, None] ** np.arange(again.sip.ap_order + 1)
    back = focal + center + (powers * (again.sip.ap + 1j * again.sip.bp)).sum(axis=(1, 2))
    assert np.abs(back - pixels).max() < 0.01
    assert result.header["RADESYS"] == "ICRS"
    assert not [name for name in result.header if name.startswith("NAXIS")]


def test_rms_and_residuals_measure_what_was_put_in():
    true = make_wcs(1.0)
    objects, catalog, star = make_stars(np.random.default_rng(4), true, number=1500, spurious=0.0)
    x, y = true.all_world2pix(catalog["ra"], catalog["dec"], 0, quiet=True)
    objects["x"] = np.where(star >= 0, x[star] + np.random.default_rng(1).normal(0, 0.20, len(star)), objects["x"])
    objects["y"] = np.where(star >= 0, y[star] + np.random.default_rng(2).normal(0, 0.10, len(star)), objects["y"])
    result = astrometry(objects, catalog, Hint(wcs=true), SQUARE, PARAMS)
    turn = np.radians(33.0)
    along = [np.hypot(0.2 * np.cos(turn), 0.1 * np.sin(turn)), np.hypot(0.2 * np.sin(turn), 0.1 * np.cos(turn))]
    assert result.rms == pytest.approx(along, rel=0.1)
    assert statistics.robust_sigma(result.residual_x) == pytest.approx(0.2, rel=0.1)
    assert statistics.robust_sigma(result.residual_y) == pytest.approx(0.1, rel=0.1)


@pytest.mark.parametrize("distortion", [0.0, 5e-3])
def test_good_input_is_kept(distortion):
    true = make_wcs(1.0, distortion=distortion)
    objects, catalog, _ = make_stars(np.random.default_rng(5), true)
    result = astrometry(objects, catalog, Hint(wcs=true), SQUARE, PARAMS)
    assert result.kept_input
    assert grid_error(result.wcs, true) < 1e-6
    assert (result.shift, result.rotation, result.scale) == pytest.approx((0.0, 0.0, 1.0), abs=1e-6)


def test_few_stars_keep_the_distortion_of_the_input():
    true = make_wcs(2.0, distortion=2e-2)
    objects, catalog, _ = make_stars(np.random.default_rng(7), true, number=40, missing=0.1)
    start = spoil(true, 1.0, 0.5, 1.002, distortion=True)
    result = astrometry(objects, catalog, Hint(wcs=start), SQUARE, PARAMS)
    assert not result.kept_input
    assert result.order >= 3
    assert grid_error(result.wcs, true) < 0.1
    assert grid_error(start, true) > 10


TELESCOPES = {
    "0.4 arcsec": (make_wcs(0.4, (2048, 2048), 10.0, 41.0, 1e-3), (2048, 2048)),
    "2 arcsec": (make_wcs(2.0, (1500, 2200), 359.99, -60.0, 3e-3), (1500, 2200)),
    "32 arcsec": (lens_wcs(), SQUARE),
}


@pytest.mark.parametrize("telescope", TELESCOPES)
@pytest.mark.parametrize(
    ("number", "distorted", "axis", "corner"),
    [(20, True, 0.1, 0.4), (100, True, 0.05, 0.2), (5000, True, 0.01, 0.02), (1000, False, 0.03, 0.25)],
)
def test_error_over_the_frame(telescope, number, distorted, axis, corner):
    """Rms per axis and largest error anywhere, in pixels, where the header has the distortion and where it does not."""
    true, shape = TELESCOPES[telescope]
    sparse = number < 100
    options = {"missing": 0.05, "spurious": 0.1, "absent": 0.05} if sparse else {}
    objects, catalog, _ = make_stars(np.random.default_rng(5), true, shape, number, margin=0.3, **options)
    scale = np.sqrt(abs(np.linalg.det(true.pixel_scale_matrix))) * 3600
    start = spoil(true, 2 * scale, 1.0, 1.005, distortion=distorted)
    result = astrometry(objects, catalog, Hint(wcs=start), shape, PARAMS)
    pixels = grid(shape, 41, 0.0)
    found, truth = (wcs.all_pix2world(pixels.real, pixels.imag, 0) for wcs in (result.wcs, true))
    error = np.abs(tangent.project(*found, *truth)) * 3600 / scale
    assert np.sqrt(np.mean(error**2) / 2) < axis
    assert error.max() < corner
    bright = objects["snr"][result.object_index] > 50
    if bright.sum() > 10:
        residual = np.append(result.residual_x[bright], result.residual_y[bright])
        assert np.sqrt(np.mean(residual**2)) < 0.05


def test_few_stars_show_a_radial_distortion():
    true, shape = TELESCOPES["32 arcsec"]
    rms = []
    for seed in range(6):
        objects, catalog, _ = make_stars(np.random.default_rng(seed), true, shape, 60, margin=0.3, missing=0.1)
        result = astrometry(objects, catalog, Hint(wcs=spoil(true, 10.0, 1.0, 1.005)), shape, PARAMS)
        rms.append(grid_error(result.wcs, true, shape))
    assert np.median(rms) < 0.3


def test_forms_are_what_their_names_say():
    rng = np.random.default_rng(1)
    points = rng.uniform(-1, 1, 50) + 1j * rng.uniform(-1, 1, 50)
    u, v, square = points.real, points.imag, np.abs(points) ** 2
    columns = [np.ones(50), u, v, u * square, v * square, u * square**2, v * square**2]
    np.testing.assert_allclose(plate_solution.Form(5, 1).design(points), np.column_stack(columns))
    columns = [np.ones(50), u, v, u * u, u * v, v * v, u * square, v * square]
    np.testing.assert_allclose(plate_solution.Form(3, 2).design(points), np.column_stack(columns))
    bent = plate_solution.Form(5, 3).design(points)
    np.testing.assert_allclose(bent[:, :10], sip.monomials(points, 3))
    np.testing.assert_allclose(bent[:, 10:], np.column_stack([u * square**2, v * square**2]))
    np.testing.assert_allclose(plate_solution.Form(2, 2).design(points), sip.monomials(points, 2))
    assert [form.terms for form in plate_solution.FORMS] == [
        form.design(points).shape[1] for form in plate_solution.FORMS
    ]
    assert sorted(form.terms for form in plate_solution.FORMS) == [form.terms for form in plate_solution.FORMS]


def test_the_map_shows_what_is_left():
    rng = np.random.default_rng(1)
    pixels = rng.uniform(0, 599, 4000) + 1j * rng.uniform(0, 299, 4000)
    residual = np.array([0.1 * (pixels.real > 299.5), -0.2 * (pixels.imag > 149.5)]) + rng.normal(0, 0.02, (2, 4000))
    shown = {name: np.array(values) for name, values in residual_map(pixels, residual, (300, 600)).items()}
    assert shown["n"].sum() == 4000
    assert shown["x"][:2] == pytest.approx([49.5, 149.5])
    assert shown["y"][[0, 6]] == pytest.approx([24.5, 74.5])
    assert shown["dx"] == pytest.approx(0.1 * (shown["x"] > 299.5), abs=0.01)
    assert shown["dy"] == pytest.approx(-0.2 * (shown["y"] > 149.5), abs=0.01)
    few = residual_map(pixels[:10], residual[:, :10], (300, 600))
    assert np.isnan(few["dx"]).sum() >= 34


def test_a_range_of_pixel_scales():
    true = make_wcs(1.0, angle=140.0)
    objects, catalog, _ = make_stars(np.random.default_rng(9), true)
    hint = Hint(ra=150.05, dec=20.03, radius=0.15, pixscale=1.4, pixscale_range=(0.7, 2.8))
    assert grid_error(astrometry(objects, catalog, hint, SQUARE, PARAMS).wcs, true) < 0.05
    with pytest.raises(Rejected, match="does not match"):
        astrometry(objects, catalog, Hint(ra=150.05, dec=20.03, radius=0.15, pixscale=1.4), SQUARE, PARAMS)


@pytest.mark.parametrize("kind", ["another field", "shuffled", "mirrored sky"])
def test_nothing_wrong_is_accepted(kind, monkeypatch):
    """The stage on what cannot be matched, and once more with a matcher that takes whatever it finds."""
    wcs = make_wcs(1.0)
    hints = Hint(wcs=wcs), Hint(ra=150.05, dec=20.03, radius=0.1, pixscale=1.0)
    for seed in range(24):
        rng = np.random.default_rng(seed)
        number = (15, 30, 60)[seed % 3]
        objects, catalog, _ = make_stars(rng, wcs, number=number, margin=0.3, missing=0.1)
        if kind == "another field":
            _, catalog, _ = make_stars(np.random.default_rng(seed + 100), wcs, number=number, margin=0.3)
        elif kind == "shuffled":
            catalog["dec"] = rng.permutation(catalog["dec"])
        else:
            catalog["ra"] = 300.0 - catalog["ra"]
        # a mirrored image is as good as any where nothing but its place is known
        hint = hints[0] if kind == "mirrored sky" else hints[seed // 3 % 2]
        monkeypatch.setattr(asterism, "OVERWHELMING", 25.0 if seed < 12 else -10.0)
        with pytest.raises(Rejected):
            astrometry(objects, catalog, hint, SQUARE, PARAMS)


def test_too_low_odds_are_a_rejection_that_names_them():
    true = make_wcs(1.0)
    objects, catalog, _ = make_stars(np.random.default_rng(3), true, number=60)
    good = astrometry(objects, catalog, Hint(wcs=true), SQUARE, PARAMS)
    assert good.log_odds > 100
    with pytest.raises(
        Rejected, match=rf"not to be trusted: ln of its odds on held-out stars is {good.log_odds:.1f}, "
    ):
        astrometry(objects, catalog, Hint(wcs=true), SQUARE, parameters.AstrometryConfig(min_log_odds=1e6))


def test_twelve_stars():
    true = make_wcs(1.0, distortion=0.0)
    objects, catalog, _ = make_stars(np.random.default_rng(7), true, number=12, missing=0.0, spurious=0.0, absent=0.0)
    assert 10 <= len(objects) <= 14
    result = astrometry(objects, catalog, Hint(wcs=spoil(true, 2.0)), SQUARE, PARAMS)
    assert result.order == 1
    assert result.n_used >= len(objects) - 2
    assert grid_error(result.wcs, true) < 0.2
    assert any("carry the astrometric solution" in warning for warning in result.warnings)


@pytest.mark.parametrize("seed", [5010, 5014, 5022, 5046, 5070])
def test_the_whole_frame_is_reached_from_a_part(seed):
    true = make_wcs(1.0)
    rng = np.random.default_rng(seed)
    objects, catalog, star = make_stars(rng, true, number=100, margin=1.0, missing=0.15)
    start = spoil(true, rng.uniform(0, 5), rng.uniform(-10, 10), rng.uniform(0.95, 1.05))
    result = astrometry(objects, catalog, Hint(wcs=start), SQUARE, PARAMS)
    assert grid_error(result.wcs, true) < 0.3
    assert result.n_matches > 0.9 * (star >= 0).sum()


@pytest.mark.parametrize("mirror", [1, -1])
@pytest.mark.parametrize("pixscale", [1.02, None])
def test_position_hint_alone(mirror, pixscale):
    true = make_wcs(1.0, mirror=mirror, angle=140.0)
    objects, catalog, _ = make_stars(np.random.default_rng(9), true)
    hint = Hint(ra=150.05, dec=20.03, radius=0.15, pixscale=pixscale)
    result = astrometry(objects, catalog, hint, SQUARE, PARAMS)
    assert grid_error(result.wcs, true) < 0.05
    assert np.sign(np.linalg.det(result.wcs.pixel_scale_matrix)) == -mirror
    assert np.isnan(result.rotation)
    assert np.isnan(result.scale) == (pixscale is None)


def test_catalog_without_the_bright_and_far_too_deep():
    true = make_wcs(1.0)
    objects, catalog, _ = make_stars(np.random.default_rng(10), true, number=3000, margin=0.8)
    objects = objects[np.argsort(-objects["flux"])[:300]]
    catalog = catalog[catalog["rmag"] > np.sort(catalog["rmag"])[80]]
    result = astrometry(objects, catalog, Hint(wcs=spoil(true, 3.0, 3.0, 1.02)), SQUARE, PARAMS)
    assert grid_error(result.wcs, true) < 0.05


def test_flagged_objects_do_not_bend_the_fit():
    true = make_wcs(1.0)
    objects, catalog, _ = make_stars(np.random.default_rng(11), true)
    flagged = objects["flux"] > np.quantile(objects["flux"], 0.6)
    objects["flags"][flagged] = 4
    objects["x"][flagged] += 0.6
    result = astrometry(objects, catalog, Hint(wcs=spoil(true)), SQUARE, PARAMS)
    assert grid_error(result.wcs, true) < 0.1


@pytest.mark.parametrize(("number", "seed"), [(12, 1), (100, 2), (400, 3), (2000, 4)])
def test_another_field_is_rejected(number, seed):
    wcs = make_wcs(1.0)
    objects, _, _ = make_stars(np.random.default_rng(seed), wcs, number=number, missing=0.0, margin=0.2)
    _, catalog, _ = make_stars(np.random.default_rng(seed + 100), wcs, number=number)
    with pytest.raises(Rejected, match="does not match the catalogue"):
        astrometry(objects, catalog, Hint(wcs=wcs), SQUARE, PARAMS)


def test_nothing_known_is_rejected():
    objects, catalog, _ = make_stars(np.random.default_rng(1), make_wcs(1.0))
    with pytest.raises(Rejected, match="no WCS in the header and no position hint"):
        astrometry(objects, catalog, Hint(), SQUARE, PARAMS)
    with pytest.raises(Rejected, match="no WCS in the header and no position hint"):
        astrometry(objects, catalog, Hint(wcs=WCS(naxis=2)), SQUARE, PARAMS)


@pytest.mark.parametrize(("n_objects", "n_catalog"), [(0, 400), (5, 400), (300, 0), (300, 5)])
def test_too_few_are_rejected(n_objects, n_catalog):
    true = make_wcs(1.0)
    objects, catalog, _ = make_stars(np.random.default_rng(1), true)
    with pytest.raises(Rejected, match=r"only \d"):
        astrometry(objects[:n_objects], catalog[:n_catalog], Hint(wcs=true), SQUARE, PARAMS)


def test_order_of_rows_does_not_matter():
    true = make_wcs(1.0)
    objects, catalog, _ = make_stars(np.random.default_rng(12), true)
    other = np.random.default_rng(0).permutation(len(catalog))
    first = astrometry(objects, catalog, Hint(wcs=spoil(true)), SQUARE, PARAMS)
    second = astrometry(objects[::-1], catalog[other], Hint(wcs=spoil(true)), SQUARE, PARAMS)
    assert grid_error(first.wcs, second.wcs) < 1e-6
    pairs = {(len(objects) - 1 - i, other[j]) for i, j in zip(second.object_index, second.catalog_index, strict=True)}
    assert pairs == set(zip(first.object_index, first.catalog_index, strict=True))


def test_quads_do_not_change_under_a_similarity():
    rng = np.random.default_rng(1)
    points = rng.random(30) + 1j * rng.random(30)
    index, code = asterism.quads(points, 6)
    moved_index, moved_code = asterism.quads(points * 3 * np.exp(2j) + 5 - 1j, 6)
    assert len(index) > 100
    assert np.array_equal(index, moved_index)
    assert np.allclose(code, moved_code)


def test_projection_closes_everywhere():
    rng = np.random.default_rng(1)
    plane = rng.normal(0, 5, 100) + 1j * rng.normal(0, 5, 100)
    for center in ((0.0, 0.0), (359.99, 45.0), (12.0, 90.0), (200.0, -89.9)):
        assert np.allclose(tangent.project(*tangent.deproject(plane, *center), *center), plane, atol=1e-10)
    assert np.isnan(tangent.project(180.0, 0.0, 0.0, 0.0))


def test_brightness_column():
    table = Table(
        {"ra": [1.0, 2.0], "gmag": [1.0, 2.0], "rmag": [np.nan, 2.0], "e_gmag": [0.1, 0.1], "VTmag": [3, 4.0]}
    )
    assert brightness_column(table) == "VTmag"
    assert brightness_column(table, "g") == "gmag"
    assert brightness_column(table["ra", "e_gmag"]) is None


def extract(image, saturation=np.inf):
    """A quick object list."""
    sep = pytest.importorskip("sep")
    data = np.ascontiguousarray(image, dtype=np.float32)
    bad = ~np.isfinite(data)
    data = np.where(bad, 0, data)
    background = sep.Background(data, mask=bad)
    data = data - background.back()
    found = sep.extract(data, 3, err=background.rms(), mask=bad, minarea=4)
    flux, error, _ = sep.sum_circle(data, found["x"], found["y"], 3.0, err=background.rms())
    x, y, _ = sep.winpos(data, found["x"], found["y"], 1.2)
    flags = np.where(found["peak"] + background.globalback > saturation, 4, 0)
    table = Table({"x": x, "y": y, "flux": flux, "snr": flux / error, "fwhm": np.full(len(x), 2.6), "flags": flags})
    return table[table["snr"] > 5]


def read_catalog(name):
    catalog = Table.read(SHARED / "data" / name / "catalog.csv")
    catalog.rename_columns(["RAJ2000", "DEJ2000"], ["ra", "dec"])
    return catalog


@pytest.mark.skipif(not (SHARED / "data" / "agpeg").exists(), reason="needs shared/data/agpeg")
@pytest.mark.filterwarnings("ignore::astropy.wcs.FITSFixedWarning")
@pytest.mark.filterwarnings("ignore::astropy.utils.exceptions.AstropyWarning")
def test_agpeg_frames():
    catalog = read_catalog("agpeg")
    paths = sorted((SHARED / "data" / "agpeg" / "images").glob("*.fits"))
    assert len(paths) == 12
    for path in paths:
        image, header = fits.getdata(path, header=True)
        objects, start = extract(image, 36000), WCS(header)
        result = astrometry(objects, catalog, Hint(wcs=start), image.shape, PARAMS)
        assert max(result.rms) < 0.1 * 31.7, path.name
        assert result.n_used > 900, path.name
        ra, dec = start.all_pix2world(511.5, 511.5, 0)
        hint = Hint(ra=float(ra) + 1.5, dec=float(dec) - 1.5, radius=3.0, pixscale=28.0, pixscale_range=(20.0, 40.0))
        again = astrometry(objects, catalog, hint, image.shape, PARAMS)
        pixels = grid(image.shape, 9, 0.0)
        places = (wcs.all_pix2world(pixels.real, pixels.imag, 0) for wcs in (again.wcs, result.wcs))
        assert np.abs(tangent.project(*next(places), *next(places))).max() < 0.1 * 31.7 / 3600, path.name
        assert again.log_odds > 1000


def half_solutions(objects, catalog, hint, shape, seed):
    """Return the solutions of the two halves of the catalogue's stars."""
    order = np.random.default_rng(seed).permutation(len(catalog))
    return [astrometry(objects, catalog[rows], hint, shape, PARAMS).wcs for rows in np.array_split(order, 2)]


@pytest.mark.skipif(not (SHARED / "data" / "sdss_field").exists(), reason="needs shared/data/sdss_field")
@pytest.mark.filterwarnings("ignore::astropy.wcs.FITSFixedWarning")
@pytest.mark.filterwarnings("ignore::astropy.utils.exceptions.AstropyWarning")
def test_sdss_field_is_not_worsened():
    with fits.open(SHARED / "data" / "sdss_field" / "sdss_r.fits.fz") as hdus:
        image, start = hdus[1].data, WCS(hdus[1].header)
    objects, catalog = extract(image), read_catalog("sdss_field")
    result = astrometry(objects, catalog, Hint(wcs=start), image.shape, PARAMS)
    pixels = np.array([objects["x"], objects["y"]])[:, result.object_index]
    stars = catalog[result.catalog_index]
    old, new = (
        statistics.robust_sigma(
            np.abs(tangent.project(*wcs.all_pix2world(*pixels, 0), stars["ra"], stars["dec"])) * 3600
        )
        for wcs in (start, result.wcs)
    )
    assert new <= old
    # A mosaic of pieces put on its pixels by the nearest neighbour: that alone is 0.11 arcsec rms along each axis. The
    # catalogue has no proper motions for the years between; stars of S/N 500 stray as far as those of S/N 50.
    assert max(result.rms) < 0.25
    halves = [half_solutions(objects, catalog, Hint(wcs=start), image.shape, seed) for seed in range(9)]
    # of halves, the difference is twice the error of the whole
    assert np.median([grid_error(*pair, image.shape) for pair in halves]) / 2 * 0.396 < 0.1
    assert grid_error(start, result.wcs, image.shape) * 0.396 < 0.2
    again = astrometry(objects, catalog, Hint(wcs=spoil(start, 2.0)), image.shape, PARAMS)
    assert grid_error(again.wcs, result.wcs, image.shape) < 0.1


@pytest.mark.parametrize("code", ["TAN", "CAR"])
def test_a_header_in_galactic_axes_is_solved(code):
    true = make_wcs(2.0)
    objects, catalog, _ = make_stars(np.random.default_rng(5), true)
    center = SkyCoord(*true.wcs.crval, unit="deg").galactic
    north = SkyCoord(true.wcs.crval[0], true.wcs.crval[1] + 0.01, unit="deg").galactic
    turn = -np.radians(33.0) - center.position_angle(north).rad
    cd = 2.0 / 3600 * np.array([[-np.cos(turn), -np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    header = fits.Header()
    for axis, name, value in ((1, "GLON", center.l.deg), (2, "GLAT", center.b.deg)):
        header[f"CTYPE{axis}"], header[f"CRVAL{axis}"] = f"{name}-{code}", value
        header[f"CRPIX{axis}"] = true.wcs.crpix[axis - 1] + 3.0
        header[f"CD{axis}_1"], header[f"CD{axis}_2"] = cd[axis - 1]
    found, _ = repair_wcs(header, SQUARE)
    result = astrometry(objects, catalog, Hint(wcs=WCS(found)), SQUARE, PARAMS)
    assert grid_error(result.wcs, true) < 0.05
    assert abs(result.rotation) < 1.0
    assert all(kind.startswith(("RA---TAN", "DEC--TAN")) for kind in result.wcs.wcs.ctype)


def test_a_catalogue_whose_stars_are_elsewhere_is_doubted():
    for seed in range(3):
        rng, wcs = np.random.default_rng(seed), make_wcs(1.0)
        objects, catalog, _ = make_stars(rng, wcs)
        healthy = astrometry(objects, catalog, Hint(wcs=wcs), SQUARE, PARAMS)
        assert healthy.seen > 0.55  # a quarter of the stars has no object here
        assert healthy.doubts == ()
        # wrong proper motions: few stars keep their places
        moved = catalog.copy()
        far = rng.random(len(catalog)) < 0.8
        for name in ("ra", "dec"):
            moved[name] = moved[name] + far * rng.normal(0, 6.0 / 3600, len(catalog))
        result = astrometry(objects, moved, Hint(wcs=wcs), SQUARE, PARAMS)
        assert result.seen < 0.35
        assert "wrong proper motions" in result.doubts[0]
        strict = astrometry(objects, catalog, Hint(wcs=wcs), SQUARE, parameters.AstrometryConfig(min_seen=0.95))
        assert strict.doubts
