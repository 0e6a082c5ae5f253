"""Resampled templates against truth: flux, position, noise, holes and the mapping itself."""

import numpy as np
import pytest
from astropy.io import fits
from boxes import SCALE, boxes, moffat, own, solution
from scipy import ndimage

from nightsift import parameters
from nightsift.errors import NotAsked, Rejected
from nightsift.flags import Mask
from nightsift.image.padding import PAD
from nightsift.simulate.pixels import render_points
from nightsift.template import preparation
from nightsift.template.alignment import Target, TemplateImage, align, crop
from nightsift.template.preparation import RawTemplate, compare_filters, prepare
from nightsift.template.resample import mapping
from nightsift.template.template import template

PARAMS = parameters.TemplateConfig()
SHAPE = (240, 260)


def resampled(data, wcs, image_wcs, mask=None, shape=SHAPE, gain=None, **options):
    mask = np.zeros(data.shape, np.uint16) if mask is None else mask
    source = TemplateImage(data.astype(np.float32), mask, wcs, gain=gain)
    return align(source, Target(image_wcs, shape), parameters.TemplateConfig(**options))


def lattice(step, seed=1):
    rng = np.random.default_rng(seed)
    x, y = np.meshgrid(np.arange(25, SHAPE[1] - 24, step), np.arange(25, SHAPE[0] - 24, step))
    return (part.ravel() + rng.uniform(-0.5, 0.5, part.size) for part in (x, y))


# Pixel of the template in pixels of the image, rotation in degrees, distortions of template and image in pixels.
GEOMETRIES = [
    pytest.param(0.33, 0, None, None, id="third"),
    pytest.param(0.5, 30, None, None, id="half, rotated"),
    pytest.param(0.5, 0, None, None, id="half"),
    pytest.param(1.0, 0, None, None, id="equal"),
    pytest.param(1.0, 30, None, None, id="equal, rotated"),
    pytest.param(1.0, 195, 2.0, -1.0, id="equal, rotated, distorted"),
    pytest.param(1.5, 30, None, -1.0, id="coarser, rotated, distorted"),
    pytest.param(1.5, 0, None, None, id="coarser"),
]


def frames(scale, rotation, sip, image_sip):
    """Return the template's solution and shape, which hold the image of 240 x 260 pixels, and the image's solution."""
    side = int(430 / scale)
    wcs = solution(scale=scale * SCALE, rotation=rotation, center=(side / 2 + 0.3, side / 2 - 0.2), sip=sip)
    return wcs, (side, side), solution(sip=image_sip)


@pytest.fixture(scope="module")
def starry():
    """For each geometry: stars of 1e5 ADU on the image's positions in a template, resampled, and these positions."""

    def make(scale, rotation, sip, image_sip):
        wcs, shape, image_wcs = frames(scale, rotation, sip, image_sip)
        x, y = lattice(48)
        places = wcs.all_world2pix(image_wcs.all_pix2world(np.column_stack([x, y]), 0), 0)
        data = np.zeros(shape)
        render_points(data, *places.T, np.full(len(x), 1e5), moffat(max(2.4 / scale, 2.2)), faintest=1e-3)
        rng = np.random.default_rng(2)
        result = resampled(data + rng.normal(100, 0.5, shape), wcs, image_wcs)
        return result, x, y

    cache = {}
    return lambda *key: cache.setdefault(key, make(*key) if key not in cache else None)


@pytest.mark.parametrize(("scale", "rotation", "sip", "image_sip"), GEOMETRIES)
def test_stars_keep_flux_and_position(starry, scale, rotation, sip, image_sip):
    result, x, y = starry(scale, rotation, sip, image_sip)
    total, at_x, at_y = boxes(own(result.data), x, y)
    assert np.mean(total) / 1e5 == pytest.approx(1, abs=0.003)
    assert np.abs(total / 1e5 - 1).max() < 0.006
    assert np.abs(at_x - x).max() < 0.02
    assert np.abs(at_y - y).max() < 0.02
    assert abs(np.mean(at_x - x)) < 0.004
    assert abs(np.mean(at_y - y)) < 0.004
    assert result.area == pytest.approx(1 / scale**2, rel=0.01)
    assert result.coverage == 1
    assert not result.mask.any()


@pytest.mark.parametrize(("scale", "rotation", "sip", "image_sip"), GEOMETRIES)
def test_noise_holds_on_the_scale_of_a_psf(scale, rotation, sip, image_sip):
    wcs, shape, image_wcs = frames(scale, rotation, sip, image_sip)
    measured = []
    for seed in range(4):
        rng = np.random.default_rng([3, seed])
        result = resampled(rng.normal(1000, 20, shape), wcs, image_wcs)
        # The PSF of an image that is well sampled, on image and template alike
        sums = ndimage.gaussian_filter(result.data.astype(float), 1.5 * max(scale, 1), truncate=5)
        unit = np.zeros((61, 61))
        unit[30, 30] = 1
        weight = ndimage.gaussian_filter(unit, 1.5 * max(scale, 1), truncate=5)
        expected = np.sqrt(ndimage.convolve(result.noise.astype(float) ** 2, weight**2))
        measured.append(np.mean((own(sums) / own(expected)) ** 2))
    # The templates are smoothed where they are finer: this is as close as white noise comes.
    assert np.mean(measured) == pytest.approx(1, abs=0.06)
    assert np.median(result.noise) == pytest.approx(20 / scale, rel=0.03)


def test_photons_of_the_stars_are_in_the_noise():
    wcs, shape, image_wcs = frames(1.0, 0, None, None)
    data = np.zeros(shape)
    place = wcs.all_world2pix(image_wcs.all_pix2world([[120.0, 110.0]], 0), 0)[0]
    render_points(data, *place[:, None], np.array([4e5]), moffat(5.0), faintest=1e-3)
    data += np.random.default_rng(4).normal(100, 3, shape)
    known, unknown = (resampled(data, wcs, image_wcs, gain=gain) for gain in (2.0, None))
    assert own(unknown.noise)[110, 120] == pytest.approx(3, rel=0.1)
    photons = ndimage.uniform_filter(own(known.data), 3)[110, 120] / 2.0
    assert own(known.noise)[110, 120] ** 2 == pytest.approx(9 + photons, rel=0.1)
    assert known.warnings == ()
    assert len(unknown.warnings) == 1


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.5])
def test_holes_and_bad_pixels_stay_where_they_are(scale):
    wcs, shape, image_wcs = frames(scale, 30, None, None)
    data = np.random.default_rng(5).normal(100, 2, shape)
    mask = np.zeros(shape, np.uint16)
    side = shape[0]
    hole = np.s_[side // 2 : side // 2 + 30, side // 2 - 40 : side // 2 - 10]
    bad = np.s_[side // 2 - 40 : side // 2 - 20, side // 2 + 20 : side // 2 + 40]
    data[hole], mask[hole] = np.nan, int(Mask.NONFINITE)
    data[bad], mask[bad] = 60000, int(Mask.SATURATED)
    result = resampled(data, wcs, image_wcs, mask)
    rows, columns = np.indices(SHAPE)
    sky = image_wcs.all_pix2world(np.column_stack([columns.ravel(), rows.ravel()]), 0)
    x, y = (part.reshape(SHAPE) for part in wcs.all_world2pix(sky, 0).T)

    def within(part, margin):
        inside = (y > part[0].start - margin) & (y < part[0].stop - 1 + margin)
        return inside & (x > part[1].start - margin) & (x < part[1].stop - 1 + margin)

    absent = own(result.mask) == int(Mask.NO_TEMPLATE)
    doubtful = own(result.mask) == int(Mask.TEMPLATE_BAD)
    assert absent[within(hole, 0.4)].all()
    assert not absent[~within(hole, 0.6)].any()
    assert doubtful[within(bad, 1.4)].all()
    assert not doubtful[~(within(bad, 1.6) | within(hole, 1.6))].any()
    assert (own(result.data)[absent] == 0).all()
    assert np.isfinite(result.data).all()
    assert np.isfinite(result.noise).all()
    # What the spline carries over a sharp edge of 60000 ADU falls threefold with every pixel of the template.
    spill = np.abs(np.where(own(result.mask) == 0, own(result.data), 0)) * scale**2 / 60000
    for margin, share in ((1, 0.15), (2, 0.06), (3, 0.02), (4, 0.008), (6, 0.001)):
        assert spill[~within(bad, margin)].max() < share


def test_partial_overlap():
    wcs, image_wcs = solution(center=(129.5 - 150, 119.5)), solution()
    data = np.random.default_rng(6).normal(100, 2, SHAPE)
    result = resampled(data, wcs, image_wcs)
    assert result.coverage == pytest.approx(110 / 260, abs=0.005)
    absent = own(result.mask) == int(Mask.NO_TEMPLATE)
    assert not absent[:, 151:].any()
    assert absent[:, :150].all()
    with pytest.raises(Rejected, match="42"):
        resampled(data, wcs, image_wcs, min_coverage=0.5)


def test_no_overlap_and_no_template():
    far = solution(dec=21.0)
    data = np.random.default_rng(7).normal(100, 2, SHAPE)
    with pytest.raises(Rejected, match="overlap"):
        resampled(data, far, solution())
    with pytest.raises(Rejected, match="overlap"):
        crop(far, solution(), SHAPE, SHAPE)
    antipode = solution(ra=330.0, dec=-20.0)
    with pytest.raises(Rejected, match="overlap"):
        crop(antipode, solution(), SHAPE, SHAPE)
    with pytest.raises(Rejected):
        resampled(np.full(SHAPE, np.nan), solution(), solution(), np.full(SHAPE, int(Mask.NONFINITE), np.uint16))
    with pytest.raises(NotAsked):
        template(RawTemplate(data, fits.Header()), Target(solution(), SHAPE), parameters.TemplateConfig(source="none"))


def test_the_same_grid_gives_the_same_pixels():
    data = np.random.default_rng(8).normal(100, 5, SHAPE)
    data[100, 120] += 5000
    result = resampled(data, solution(), solution())
    level = np.median(data - own(result.data))
    assert level == pytest.approx(100, abs=1)
    residual = data - own(result.data)
    assert np.abs(ndimage.laplace(residual)).max() < 0.2
    beyond = np.ones(result.mask.shape, bool)
    beyond[PAD:-PAD, PAD:-PAD] = False
    assert (result.mask[beyond] == int(Mask.NO_TEMPLATE)).all()
    assert not own(result.mask).any()


def test_the_frame_around_the_image_is_filled():
    wcs, shape, image_wcs = frames(1.0, 0, None, None)
    data = np.random.default_rng(9).normal(100, 5, shape)
    place = wcs.all_world2pix(image_wcs.all_pix2world([[-12.0, -9.0]], 0), 0)[0]
    light = np.zeros(shape)
    render_points(light, *place[:, None], np.array([1e5]), moffat(2.5), faintest=1e-2)
    result = resampled(data + light, wcs, image_wcs)
    assert result.data.shape == result.noise.shape == result.mask.shape == (SHAPE[0] + 2 * PAD, SHAPE[1] + 2 * PAD)
    assert np.unravel_index(np.argmax(result.data), result.data.shape) == (PAD - 9, PAD - 12)
    assert result.data[:PAD].std() > 4
    assert (result.data.dtype, result.noise.dtype, result.mask.dtype) == (np.float32, np.float32, np.uint16)


@pytest.mark.parametrize(("rotation", "scale"), [(0, 1.0), (30, 0.5), (120, 1.5)])
def test_a_crop_gives_what_the_whole_gives(rotation, scale):
    side = int(900 / scale)
    wcs = solution(scale=scale * SCALE, rotation=rotation, center=(side / 2 - 60 / scale, side / 2 + 50 / scale))
    rng = np.random.default_rng(10)
    data = rng.normal(100, 5, (side, side))
    light = np.zeros(data.shape)
    render_points(light, *rng.uniform(0, side, (2, 400)), 10 ** rng.uniform(2.5, 4.5, 400), moffat(3.0), faintest=1)
    data += light
    mask = np.zeros(data.shape, np.uint16)
    mask[rng.random(data.shape) < 0.001] = int(Mask.SATURATED)
    image_wcs = solution()
    part = crop(wcs, image_wcs, SHAPE, data.shape)
    assert data[part].size < 0.9 * data.size
    whole = resampled(data, wcs, image_wcs, mask)
    cut = resampled(data[part], wcs[part], image_wcs, mask[part])
    np.testing.assert_array_equal(cut.mask, whole.mask)
    # The mesh of the background starts elsewhere: the level differs smoothly, and by little.
    difference = own(cut.data - whole.data) * scale**2
    assert np.abs(difference).max() < 1.5
    # Beyond that, positions of single precision make 1e-4 of the slope of the brightest stars.
    assert np.abs(ndimage.laplace(difference)).max() < 0.3
    np.testing.assert_allclose(cut.noise, whole.noise, rtol=0.15)


def test_crop_keeps_within_the_template():
    rows, columns = crop(solution(), solution(), SHAPE, SHAPE)
    assert (rows, columns) == (slice(0, SHAPE[0]), slice(0, SHAPE[1]))


@pytest.mark.parametrize("dec", [-45.0, 0.0, 88.0])
def test_right_ascension_zero(dec):
    """What is done around RA 0 is what is done elsewhere."""
    results = []
    data = np.random.default_rng(11).normal(100, 5, (430, 430))
    for ra in (0.0, 150.0):
        wcs = solution(ra=ra, dec=dec, rotation=20, center=(215, 214))
        results.append(resampled(data, wcs, solution(ra=(ra + 359.999) % 360, dec=dec)))
    assert results[0].coverage == 1
    np.testing.assert_array_equal(results[0].mask, results[1].mask)
    np.testing.assert_allclose(results[0].data, results[1].data, atol=0.01)


def wide(sip, ra=327.0, rotation=0.0, center=(511.5, 511.5)):
    """A field of nine degrees, 31.7 arcsec a pixel."""
    return solution(ra=ra, dec=12.0, scale=31.7, rotation=rotation, center=center, sip=sip)


def test_mapping_is_exact_in_a_wide_distorted_field():
    # 1.5 pixels at 250 are 12 in the corners.
    wcs, image_wcs, shape = wide(1.0), wide(1.5, ra=328.5, rotation=7.0), (1024, 1024)
    x, y, area = mapping(wcs, image_wcs, shape, shape)
    rng = np.random.default_rng(12)
    rows, columns = rng.integers(0, 1024, (2, 3000))
    sky = image_wcs.all_pix2world(np.column_stack([columns, rows]), 0)
    exact = wcs.all_world2pix(sky, 0)
    inside = ((exact > -20) & (exact < 1044)).all(axis=1)
    assert inside.mean() > 0.6
    assert np.abs(x[rows, columns] - exact[:, 0])[inside].max() < 1e-3
    assert np.abs(y[rows, columns] - exact[:, 1])[inside].max() < 1e-3

    def at(dx, dy):
        return wcs.all_world2pix(image_wcs.all_pix2world(np.column_stack([columns + dx, rows + dy]), 0), 0)

    along_x, along_y = at(0.5, 0) - at(-0.5, 0), at(0, 0.5) - at(0, -0.5)
    truth = np.abs(along_x[:, 0] * along_y[:, 1] - along_x[:, 1] * along_y[:, 0])
    assert area[rows, columns][inside] == pytest.approx(truth[inside], rel=2e-4)
    assert np.ptp(truth[inside]) > 0.05


def test_mapping_pads_on_all_sides():
    plain, padded = (mapping(wide(1.0), wide(None), (300, 200), (1024, 1024), pad) for pad in (0, 10))
    for one, other in zip(plain, padded, strict=True):
        assert other.shape == (320, 220)
        np.testing.assert_allclose(other[10:-10, 10:-10], one, atol=1e-3)


def test_no_more_of_a_large_template_is_looked_at_than_an_image_needs(monkeypatch):
    seen, warnings = [], []
    large, image_wcs = (1500, 1700), solution(scale=1.2, rotation=10)
    wcs = solution(center=(1100.0, 420.0), sip=1.0)
    rng = np.random.default_rng(3)
    data = rng.normal(100, 5, large).astype(np.float32)
    bad = rng.random(large) < 0.001

    def inspect(pixels, *arguments):
        seen.append(pixels.shape)
        return inspected(pixels, *arguments)

    inspected, target = preparation.inspect, Target(image_wcs, SHAPE)
    monkeypatch.setattr(preparation, "inspect", inspect)
    source = prepare(RawTemplate(data, wcs.to_header(relax=True), bad), target, PARAMS, warnings).image
    assert np.prod(seen[0]) < 0.3 * np.prod(large)
    assert source.data.shape == source.mask.shape == seen[0]
    whole = TemplateImage(data, np.where(bad, int(Mask.USER), 0), wcs)
    ours, theirs = (align(one, target, PARAMS) for one in (source, whole))
    assert ours.coverage == theirs.coverage == 1
    np.testing.assert_array_equal(own(ours.mask), own(theirs.mask))
    # the background has other meshes
    np.testing.assert_allclose(own(ours.data), own(theirs.data), atol=2)
    assert np.std(own(ours.data) - own(theirs.data)) < 0.5


@pytest.mark.parametrize(
    ("ours", "theirs", "warned"),
    [
        (("r", "SDSS r"), "rp", False),
        (("r", "SDSS r"), "g'", True),
        (("r", "r"), "Cousins R", True),
        ((None, "58"), "58", False),
        ((None, "58"), "41", True),
        ((None, "clear"), "r", True),
        ((None, "clear"), "Luminance", False),
        ((None, ""), "r", False),
        (("r", "r"), None, False),
    ],
)
def test_a_template_in_another_filter_is_named(ours, theirs, warned):
    warnings, header = [], fits.Header()
    if theirs is not None:
        header["FILTER"] = theirs
    target = Target(solution(), SHAPE, None, *ours)
    compare_filters("deep.fits", header, target, warnings)
    assert len(warnings) == warned
    if warned:
        assert all(word in warnings[0] for word in ("deep.fits", repr(theirs), repr(ours[1])))
