"""Detection, seeing, backgrounds and stamps against simulated truth."""

import numpy as np
import pytest
from photutils.aperture import CircularAperture
from scipy.spatial import cKDTree
from scipy.special import erf

from nightsift import parameters
from nightsift.background import background
from nightsift.detect import Aperture, _clipped_mean, annulus, detect, gaussian_kernel, measure
from nightsift.errors import Rejected
from nightsift.planes import Flag, Mask
from nightsift.seeing import seeing, star_width, widths
from nightsift.simulate_pixels import Psf, render_points
from nightsift.stamps import crowded, spread, stamps

PARAMS = parameters.Detect()
SKY, GAIN, READNOISE = 300.0, 1.5, 6.0
SIGMA = np.sqrt(SKY / GAIN + (READNOISE / GAIN) ** 2)
# Light of a Gaussian within a radius of one FWHM, the default aperture.
INSIDE = 1 - 2.0**-4
SIDE = 260


def gaussians(shape, x, y, flux, fwhm):
    """Return the light of pixel-integrated round Gaussians."""
    light = np.zeros(shape)
    x, y, flux, fwhm = (np.ravel(part).astype(float) for part in np.broadcast_arrays(x, y, flux, fwhm))
    half = int(np.ceil(4 * fwhm.max())) if len(fwhm) else 0
    for column, row, total, width in zip(x, y, flux, fwhm, strict=True):
        sigma, parts = width / 2.354820045, []
        for centre, size in ((row, shape[0]), (column, shape[1])):
            low, high = max(round(centre) - half, 0), min(round(centre) + half + 1, size)
            edges = (np.arange(low, high + 1) - 0.5 - centre) / (sigma * np.sqrt(2))
            parts.append((slice(low, high), np.diff(erf(edges)) / 2))
        light[parts[0][0], parts[1][0]] += total * np.outer(parts[0][1], parts[1][1])
    return light


def observe(light, seed, sky=SKY):
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, READNOISE / GAIN, light.shape)
    return (rng.poisson((light + sky) * GAIN) / GAIN + noise).astype(np.float32)


def run(data, mask=None, gain=GAIN, **options):
    mask = np.zeros(data.shape, np.uint16) if mask is None else mask
    return detect(data, mask, gain, parameters.Detect(**options))


def flux_of(snr, fwhm, sigma=SIGMA, gain=GAIN):
    """Return the total flux of a star of an S/N within the aperture, sky and its own photons counted."""
    sky = np.pi * fwhm**2 * sigma**2
    snr = np.asarray(snr, float)
    return (snr**2 / gain + np.sqrt(snr**4 / gain**2 + 4 * snr**2 * sky)) / 2 / INSIDE


def in_aperture(light, x, y, radius):
    """Return what apertures hold of noiseless light: the light of the PSF within, pixels and all."""
    return CircularAperture(np.column_stack([x, y]), radius).do_photometry(light)[0]


def lattice(rng, shape, step, margin=20):
    """Return positions on a jittered lattice: isolated, at every phase of a pixel."""
    rows, columns = (np.arange(margin, size - margin, step) for size in shape)
    x, y = (part.ravel().astype(float) for part in np.meshgrid(columns, rows))
    return x + rng.uniform(-0.5, 0.5, len(x)), y + rng.uniform(-0.5, 0.5, len(y))


def nearest(objects, x, y):
    """Return the index of the object nearest to each position, and its distance."""
    distance = np.hypot(objects["x"] - np.reshape(x, (-1, 1)), objects["y"] - np.reshape(y, (-1, 1)))
    return np.argmin(distance, axis=1), np.min(distance, axis=1)


def the_one(result, x, y):
    """Return the only object within a pixel of a position."""
    near = np.hypot(result.objects["x"] - x, result.objects["y"] - y) < 1
    assert near.sum() == 1
    return result.objects[near][0]


# ------------------------------------------------------------------------------------------------- a field of stars


@pytest.fixture(scope="module")
def field():
    """Isolated stars of S/N 5 to 600: truth and what is found."""
    rng = np.random.default_rng(11)
    shape, fwhm = (760, 700), 3.2
    x, y = lattice(rng, shape, 22)
    snr = 10 ** rng.uniform(np.log10(5), np.log10(600), len(x))
    light = gaussians(shape, x, y, flux_of(snr, fwhm), fwhm)
    result = run(observe(light, 12))
    index, distance = nearest(result.objects, x, y)
    flux = in_aperture(light, x, y, result.aperture)
    return {"x": x, "y": y, "snr": snr, "flux": flux, "result": result, "index": index, "distance": distance}


def test_isolated_stars_are_found(field):
    found = field["distance"] < 2
    assert found[field["snr"] > 20].all()
    assert found[field["snr"] >= 8].mean() >= 0.98
    # A peak of the noise beside a faint star does not draw its position off.
    assert found[(field["snr"] > 10) & (field["snr"] < 20)].mean() >= 0.98
    strangers = np.delete(np.arange(len(field["result"].objects)), field["index"][found])
    assert len(strangers) <= 2


def test_noise_gives_few_objects():
    shape = (600, 600)
    x, y = lattice(np.random.default_rng(1), shape, 180, margin=60)
    result = run(observe(gaussians(shape, x, y, 8000.0, 3.0), 2))
    _, distance = nearest(result.objects, x, y)
    assert (distance < 0.5).all()
    assert len(result.objects) - len(x) <= 3
    assert result.background_level == pytest.approx(SKY, abs=0.03 * SIGMA)
    assert result.noise == pytest.approx(SIGMA, rel=0.02)


def test_fluxes_close_and_errors_are_honest(field):
    objects = field["result"].objects[field["index"]]
    good = (field["distance"] < 2) & (np.asarray(objects["flags"]) == 0)
    truth = field["flux"]
    bright = good & (field["snr"] > 200)
    assert np.average(objects["flux"][bright] / truth[bright]) == pytest.approx(1, abs=0.003)
    for low, high in ((10, 30), (30, 100), (100, 500), (10, 500)):
        part = good & (field["snr"] > low) & (field["snr"] < high)
        pull = (objects["flux"][part] - truth[part]) / objects["fluxerr"][part]
        slack = 3 / np.sqrt(2 * part.sum())
        assert 0.95 - slack < np.std(pull) < 1.08 + slack
        # The footprints left out of the annuli hold more of the noise's peaks than of its dips.
        assert abs(np.mean(pull)) < 0.15 + 3 / np.sqrt(part.sum())
    assert np.asarray(objects["snr"]) == pytest.approx(np.asarray(objects["flux"] / objects["fluxerr"]))
    assert (np.diff(field["result"].objects["flux"]) <= 0).all()


def test_centroids(field):
    objects = field["result"].objects[field["index"]]
    dx, dy = objects["x"] - field["x"], objects["y"] - field["y"]
    good = (field["distance"] < 2) & (np.asarray(objects["flags"]) == 0)
    near50 = good & (field["snr"] > 40) & (field["snr"] < 65)
    assert near50.sum() > 50
    for offset in (dx, dy):
        assert np.std(offset[near50]) < 0.05
        bright = good & (field["snr"] > 100)
        assert abs(np.mean(offset[bright])) < 4 * np.std(offset[bright]) / np.sqrt(bright.sum())
        assert abs(np.mean(offset[bright])) < 0.003


def test_centroids_do_not_follow_the_pixel_phase():
    shape = (420, 420)
    x, y = lattice(np.random.default_rng(3), shape, 26)
    result = run(observe(gaussians(shape, x, y, flux_of(800, 2.2), 2.2), 4))
    index, _ = nearest(result.objects, x, y)
    for axis, truth in (("x", x), ("y", y)):
        offset = result.objects[axis][index] - truth
        phase = 2 * np.pi * (truth - np.rint(truth))
        slope = np.linalg.lstsq(np.stack([np.sin(phase), np.cos(phase), np.ones(len(phase))], -1), offset, rcond=None)
        assert np.abs(slope[0]).max() < 0.004


def test_fluxes_of_stars_with_wings_close():
    shape, psf = (400, 400), Psf(fwhm=3.0, beta=3.0, e1=0.0, e2=0.0, scale=(0.0, 0.0, 0.0), twist=(0.0, 0.0))
    x, y = lattice(np.random.default_rng(5), shape, 45, margin=30)
    light = np.zeros(shape)
    render_points(light, x, y, np.full(len(x), 3e5), psf, faintest=0.01)
    result = run(observe(light, 6))
    index, distance = nearest(result.objects, x, y)
    assert (distance < 0.2).all()
    truth = in_aperture(light, x, y, result.aperture)
    assert np.median(result.objects["flux"][index] / truth) == pytest.approx(1, abs=0.003)


def test_without_a_gain_only_the_sky_makes_the_error(field):
    shape = (SIDE, SIDE)
    data = observe(gaussians(shape, [60, 180], [70, 170], [5e4, 800], 3.0), 8)
    known, unknown = run(data), run(data, gain=None)
    np.testing.assert_array_equal(unknown.objects["flux"], known.objects["flux"])
    np.testing.assert_array_equal(unknown.objects["fluxerr"], unknown.objects["bgerr"])
    star = known.objects[0]
    assert star["fluxerr"] ** 2 - star["bgerr"] ** 2 == pytest.approx(star["flux"] / GAIN)
    # 400 pixels of the annulus make the local background
    area = np.pi * known.aperture**2
    assert star["bgerr"] == pytest.approx(SIGMA * np.sqrt(area + area**2 / 400), rel=0.05)


def test_the_same_again(field):
    data = observe(gaussians((SIDE, SIDE), [60, 180], [70, 170], [5e4, 800], 3.0), 8)
    one, other = run(data), run(data.copy())
    for name in one.objects.colnames:
        np.testing.assert_array_equal(one.objects[name], other.objects[name])
    assert one.seeing.coefficients == other.seeing.coefficients


# ------------------------------------------------------------------------------------------------- flags


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
    render_points(light, np.append(x, u), np.append(y, v), flux, Psf(fwhm, 3.0, 0.0, 0.0, (0, 0, 0), (0, 0)), 0.05)
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


# ---------------------------------------------------------------------------------------------------------- trails


def line(shape, angle, x, y, fwhm, height):
    """A trail through (x, y): angle of its normal, height of the ridge in ADU."""
    v, u = np.mgrid[: shape[0], : shape[1]]
    off = np.cos(angle) * (u - x) + np.sin(angle) * (v - y)
    return height * np.exp(-4 * np.log(2) * (off / (1.3 * fwhm)) ** 2)


def test_stars_on_a_trail_are_found_and_measured():
    shape, fwhm, rng, angle = (500, 520), 3.0, np.random.default_rng(72), 2.7
    along = np.linspace(-230, 230, 14)
    x, y = 260 - np.sin(angle) * along, 240 + np.cos(angle) * along
    stars = gaussians(shape, x, y, flux_of(10 ** rng.uniform(np.log10(15), 2, 14), fwhm), fwhm)
    others = gaussians(shape, *rng.uniform(20, 480, (2, 60)), flux_of(60, fwhm), fwhm)
    result = run(observe(stars + others + line(shape, angle, 260, 240, fwhm, 60.0), 73))
    (trail,) = result.trails
    assert trail.distance(260, 240) < 1
    index, distance = nearest(result.objects, x, y)
    assert (distance < 2).all()
    found = result.objects[index]
    pulls = (found["flux"] - in_aperture(stars + others, x, y, result.aperture)) / found["fluxerr"]
    assert np.abs(np.median(pulls)) < 1
    assert np.abs(pulls).max() < 5
    assert len(result.objects) <= 14 + 60 + 2


def test_a_long_galaxy_is_no_trail():
    shape = (500, 500)
    v, u = np.mgrid[:500, :500]
    galaxy = 150 * np.exp(-np.abs(u - 250) / 35 - np.abs(v - 250) / 3)
    rng = np.random.default_rng(74)
    x, y = rng.uniform(20, 480, (2, 60))
    result = run(observe(galaxy + gaussians(shape, x, y, flux_of(80, 3.0), 3.0), 75))
    assert result.trails == ()
    assert nearest(result.objects, 250, 250)[1] < 3


# ------------------------------------------------------------------------------------------------- what else there is


def test_no_object():
    with pytest.raises(Rejected):
        run(observe(np.zeros((200, 200)), 30), threshold=4.0)
    with pytest.raises(Rejected, match="S/N 50"):
        run(observe(gaussians((200, 200), [50, 150], [60, 140], 900.0, 3.0), 31), min_snr=50.0)


@pytest.mark.parametrize("value", [0.0, 100.0])
def test_constant_image(value):
    with pytest.raises(Rejected):
        run(np.full((200, 200), value, np.float32))


def test_image_masked_throughout():
    data = observe(np.zeros((200, 200)), 32)
    with pytest.raises(Rejected):
        run(data, np.full(data.shape, int(Mask.USER), np.uint16))


def test_nan_pixels_change_nothing_elsewhere():
    light = gaussians((SIDE, SIDE), [60, 180, 100], [70, 170, 200], [5e4, 3e4, 2e4], 3.0)
    data = observe(light, 33)
    holed, mask = data.copy(), np.zeros(data.shape, np.uint16)
    for part in (np.s_[120:140, 100:140], np.s_[70, 61], np.s_[:, 0:3]):
        holed[part], mask[part] = np.nan, int(Mask.NONFINITE)
    result = run(holed, mask)
    for name in result.objects.colnames:
        assert np.isfinite(result.objects[name]).all()
    assert np.isfinite([result.background_level, result.noise, result.seeing.fwhm]).all()
    before, after = the_one(run(data), 180, 170), the_one(result, 180, 170)
    assert after["flux"] == pytest.approx(before["flux"], rel=0.005)
    assert the_one(result, 60, 70)["flags"] & Flag.APERTURE_MASKED


def test_bright_galaxy_is_one_object_and_no_star():
    shape = (400, 400)
    x, y = lattice(np.random.default_rng(34), shape, 40)
    far = np.hypot(x - 200, y - 200) > 75
    v, u = np.indices(shape)
    radius = np.hypot(u - 200, (v - 200) / 0.6)
    stars = gaussians(shape, x[far], y[far], 1e4, 3.0)
    result = run(observe(stars + 3000 * np.exp(-radius / 9), 35))
    galaxy = the_one(result, 200, 200)
    assert galaxy["fwhm"] > 1.3 * result.seeing.fwhm
    assert result.seeing.fwhm == pytest.approx(np.sqrt(9 + 0.46), rel=0.01)
    index, distance = nearest(result.objects, x[far], y[far])
    assert (distance < 0.3).all()
    truth = in_aperture(stars, x[far], y[far], result.aperture)
    assert np.median(result.objects["flux"][index] / truth) == pytest.approx(1, rel=0.01)
    # What is neither star nor the galaxy's centre is a handful of the galaxy's pieces.
    assert len(result.objects) - far.sum() <= 5


def test_sky_gradient():
    shape = (400, 400)
    x, y = lattice(np.random.default_rng(36), shape, 30)
    v, u = np.indices(shape)
    sky = SKY * (1 + 0.5 * u / 400 + 0.3 * v / 400)
    stars = gaussians(shape, x, y, 2e4, 3.0)
    result = run(observe(stars + sky - SKY, 37))
    index, distance = nearest(result.objects, x, y)
    assert (distance < 0.3).all()
    assert len(result.objects) - len(x) <= 3
    ratio = np.asarray(result.objects["flux"][index]) / in_aperture(stars, x, y, result.aperture)
    assert ratio.mean() == pytest.approx(1, abs=0.003)
    # Neither side of the gradient is favoured.
    assert ratio[x > 200].mean() == pytest.approx(ratio[x < 200].mean(), abs=0.006)


def test_background_map_follows_a_slope_and_the_noise():
    shape = (512, 512)
    v, u = np.indices(shape)
    truth = 300 + 0.05 * u
    sigma = np.where(v < 256, 5.0, 15.0)
    data = (truth + np.random.default_rng(38).normal(0, 1, shape) * sigma).astype(np.float32)
    bad = np.zeros(shape, bool)
    bad[70:110], data[70:110] = True, 1e6
    result = background(data, bad, 64)
    inner = np.s_[40:-40, 40:-40]
    assert np.abs(result.level - truth)[inner].max() < 2.5
    assert np.median(result.noise[40:160]) == pytest.approx(5, rel=0.05)
    assert np.median(result.noise[-160:-40]) == pytest.approx(15, rel=0.05)
    assert result.level.dtype == result.noise.dtype == np.float32


def test_background_of_an_image_smaller_than_a_cell():
    data = np.random.default_rng(39).normal(50, 4, (30, 90)).astype(np.float32)
    result = background(data, np.zeros(data.shape, bool), 64)
    assert result.level.mean() == pytest.approx(50, abs=0.5)
    assert result.noise.mean() == pytest.approx(4, rel=0.1)


# ------------------------------------------------------------------------------------------------- seeing


@pytest.mark.parametrize("fwhm", [2.0, 2.5, 3.0, 4.0, 6.0, 8.0])
@pytest.mark.parametrize("guess", [0.8, 1.0, 1.25])
def test_widths_of_gaussians(fwhm, guess):
    shape = (400, 400)
    x, y = lattice(np.random.default_rng(40), shape, 50, margin=40)
    measured = widths(gaussians(shape, x, y, 1e4, fwhm), x, y, guess * fwhm)
    # The pixel widens the star: its variance is 1/12.
    assert measured == pytest.approx(np.hypot(fwhm, 2.3548 / np.sqrt(12)), rel=0.03)
    if fwhm >= 3:
        assert np.median(measured) == pytest.approx(fwhm, rel=0.03)


def test_widths_of_noise_are_no_numbers_or_small():
    image = -np.ones((60, 60), np.float32)
    image[:, 30:] = np.nan
    assert np.isnan(widths(image, np.array([45.0]), np.array([30.0]), 3.0)).all()


def test_widths_at_the_border_and_beside_masked_pixels():
    image = gaussians((80, 80), [2.0, 40.0], [40.0, 40.0], 1e4, 4.0)
    bad = np.zeros(image.shape, bool)
    bad[38, 40], image[38, 40] = True, 1e6
    measured = widths(image, np.array([2.0, 40.0]), np.array([40.0, 40.0]), 4.0, bad)
    assert measured == pytest.approx(4.06, rel=0.08)


def test_fwhm_map_is_recovered():
    shape, rng = (700, 700), np.random.default_rng(41)
    x, y = lattice(rng, shape, 32)
    u, v = 2 * x / 699 - 1, 2 * y / 699 - 1
    fwhm = 3.5 * (1 + 0.06 * u - 0.02 * v + 0.04 * (u**2 + v**2))
    snr = 10 ** rng.uniform(1, 2.7, len(x))
    result = run(observe(gaussians(shape, x, y, flux_of(snr, fwhm), fwhm), 42))
    assert result.seeing.order == 2
    truth = np.hypot(fwhm, 2.3548 / np.sqrt(12))
    assert np.abs(result.seeing.at(x, y) / truth - 1).max() < 0.015
    assert np.ptp(truth) / 3.5 > 0.1
    assert result.seeing.fwhm == pytest.approx(np.median(truth), rel=0.02)


def test_seeing_leaves_out_what_is_no_star():
    rng = np.random.default_rng(43)
    x, y = rng.uniform(0, 500, (2, 200))
    fwhm = rng.normal(3.0, 0.05, 200)
    fwhm[:40], fwhm[40:60], fwhm[60] = rng.uniform(3.6, 9, 40), rng.uniform(0.6, 2, 20), np.nan
    result = seeing(x, y, fwhm, np.ones(200, bool), (500, 500))
    assert result.fwhm == pytest.approx(3.0, abs=0.02)
    assert not result.stars[:61].any()
    assert result.n_stars == result.stars.sum() >= 130
    assert result.at(x, y) == pytest.approx(3.0, abs=0.06)


def test_seeing_of_few_and_of_none():
    few = seeing(np.array([5.0]), np.array([5.0]), np.array([3.3]), np.array([False]), (10, 10))
    assert (few.fwhm, few.order, few.n_stars) == (3.3, 0, 1)
    assert few.at([1, 9], [0, 4]) == pytest.approx(3.3)
    none = seeing(np.array([5.0]), np.array([5.0]), np.array([np.nan]), np.array([True]), (10, 10))
    assert np.isnan(none.fwhm)
    assert none.n_stars == 0


def test_few_stars_are_warned_of():
    result = run(observe(gaussians((SIDE, SIDE), [60, 180], [70, 170], [5e4, 3e4], 3.0), 44))
    assert result.warnings == (f"FWHM from {result.seeing.n_stars} stars only",)


@pytest.mark.parametrize("fwhm", [1.6, 3.0])
def test_hot_pixels_do_not_pass_for_stars(fwhm):
    shape, rng = (400, 400), np.random.default_rng(62)
    x, y = lattice(rng, shape, 60)
    data = observe(gaussians(shape, x, y, flux_of(rng.uniform(30, 300, len(x)), fwhm), fwhm), 63)
    spotless = run(data).seeing.fwhm
    # Single pixels, and pairs of which the second half is fainter, twice as many as stars.
    row, column = rng.integers(5, 395, (2, 2 * len(x)))
    height = 10 ** rng.uniform(2, 4, len(row))
    data[row, column] += height
    data[row[::3], column[::3] + 1] += 0.5 * height[::3]
    assert run(data).seeing.fwhm == pytest.approx(spotless, rel=0.02)


def test_star_width_is_that_of_the_narrowest_crowd():
    rng = np.random.default_rng(61)
    stars, galaxies = rng.normal(3.0, 0.1, 12), rng.uniform(4.5, 12.0, 120)
    assert star_width(np.concatenate([stars, galaxies])) == pytest.approx(3.0, abs=0.08)
    hits = np.array([1.2, 1.7])
    assert star_width(np.concatenate([hits, stars, galaxies])) == pytest.approx(3.0, abs=0.08)
    crowd = rng.normal(3.0, 0.15, 500)
    assert star_width(np.concatenate([rng.normal(2.0, 0.05, 40), crowd])) == pytest.approx(3.0, abs=0.05)
    assert star_width(np.array([4.0])) == 4.0


# ------------------------------------------------------------------------------------------------- the annulus


def clipped(values):
    """The same without vectors: three rounds of 3 sigma about the median, sigma from the central 68 per cent."""
    values = np.sort(values)
    for _ in range(3):
        if not len(values):
            break
        last = len(values) - 1
        middle = values[round(last / 2)]
        spread = (values[round(0.8413 * last)] - values[round(0.1587 * last)]) / 2
        values = values[np.abs(values - middle) <= 3 * spread]
    return values


def test_clipped_mean_agrees_with_a_plain_one():
    rng = np.random.default_rng(50)
    values = rng.normal(10, 2, (60, 200))
    values[:30, ::9] += rng.exponential(60, values[:30, ::9].shape)
    usable = rng.random(values.shape) > np.linspace(0, 0.95, 60)[:, None]
    level, error, count = _clipped_mean(values, usable)
    for i in range(len(values)):
        kept = clipped(values[i, usable[i]])
        assert count[i] == len(kept)
        assert level[i] == pytest.approx(kept.mean())
        assert error[i] == pytest.approx(kept.std() / np.sqrt(len(kept)))
    outliers = np.abs(level[:30] - 10) / error[:30]
    assert np.median(outliers) < 3


def test_clipped_mean_of_nothing():
    level, error, count = _clipped_mean(np.full((1, 5), 7.0), np.zeros((1, 5), bool))
    assert (level[0], error[0], count[0]) == (0, 0, 0)


def test_annulus_takes_the_right_pixels():
    v, u = np.indices((70, 80)).astype(float)
    image, aperture = 2 * u - v, Aperture(3.0, 5.0, 7.0)
    unusable = np.zeros(image.shape, bool)
    unusable[30:, :] = True
    x, y = np.array([40.0, 2.0, 40.0]), np.array([20.0, 20.0, 60.0])
    level, error, count = annulus(image, unusable, x, y, aperture)
    for i in (0, 1):
        distance = np.hypot(u - x[i], v - y[i])
        values = clipped(image[(distance >= 5) & (distance <= 7) & ~unusable])
        assert level[i] == pytest.approx(values.mean())
        assert (count[i], error[i]) == (len(values), pytest.approx(values.std() / np.sqrt(len(values))))
    assert count[2] == 0


def test_large_annuli_are_sampled_evenly():
    image = np.random.default_rng(51).normal(20, 5, (200, 200)).astype(np.float32)
    image += 0.02 * (np.arange(200) - 100)
    x, y = lattice(np.random.default_rng(52), image.shape, 12, margin=50)
    level, error, count = annulus(image, np.zeros(image.shape, bool), x, y, Aperture(6.0, 25.0, 35.0))
    assert (count <= 400).all()
    assert (count > 380).all()
    pull = (level - 20 - 0.02 * (x - 100)) / error
    assert abs(pull.mean()) < 0.6
    assert 0.7 < pull.std() < 1.3


def test_objects_do_not_lift_the_background_of_others():
    shape = (120, 120)
    light = gaussians(shape, [60, 79, 60, 41], [60, 60, 79, 60], [1e4, 2e5, 2e5, 2e5], 3.0)
    data = observe(light, 53)
    image = (data - SKY).astype(np.float32)
    noise = np.full(shape, SIGMA, np.float32)
    lit = light - light.min() > 1
    arguments = (image, noise, np.zeros(shape, np.uint16), np.array([60.0]), np.array([60.0]), GAIN)
    with_map = measure(*arguments, Aperture(3.0, 15.0, 21.0), lit)
    assert with_map["flux"][0] == pytest.approx(1e4 * INSIDE, abs=4 * with_map["fluxerr"][0])
    assert with_map["background"][0] == pytest.approx(0, abs=5 * SIGMA / 20)


def test_background_of_the_annulus_is_subtracted():
    light = gaussians((120, 120), [60.0], [60.0], 1e4, 3.0)
    noise, mask, place = np.ones(light.shape, np.float32), np.zeros(light.shape, np.uint16), np.array([60.0])
    plain, lifted = (
        measure((light + level).astype(np.float32), noise, mask, place, place, GAIN, Aperture(3.0, 15.0, 21.0))
        for level in (0, 50)
    )
    assert lifted["background"][0] == pytest.approx(50, abs=1e-3)
    assert lifted["flux"][0] == pytest.approx(plain["flux"][0], rel=1e-4)


# ------------------------------------------------------------------------------------------------- small tools


def test_kernel_has_unit_sum_and_its_width():
    kernel = gaussian_kernel(4.0)
    middle = len(kernel) // 2
    assert kernel.sum() == pytest.approx(1)
    assert kernel[middle, middle + 2] / kernel[middle, middle] == pytest.approx(0.5)


def test_stamps():
    image = np.arange(30.0, dtype=np.float32).reshape(5, 6)
    inside = stamps(image, [2, 3], [2, 2], 1)
    np.testing.assert_array_equal(inside[0], image[1:4, 1:4])
    np.testing.assert_array_equal(inside[1], image[1:4, 2:5])
    corner = stamps(image, [0, 5, -9], [0, 4, 2], 1, fill=-1)
    np.testing.assert_array_equal(corner[0], [[-1, -1, -1], [-1, 0, 1], [-1, 6, 7]])
    np.testing.assert_array_equal(corner[1], [[22, 23, -1], [28, 29, -1], [-1, -1, -1]])
    np.testing.assert_array_equal(corner[2], np.full((3, 3), -1))
    assert stamps(image > 3, [0], [0], 2, fill=True).dtype == bool
    assert stamps(image, [], [], 2).shape == (0, 5, 5)


def test_spread_is_even_and_takes_the_best_first():
    rng = np.random.default_rng(60)
    # nine of ten objects crowd into one corner
    x, y = rng.uniform(0, 100, (2, 3000))
    x[:2700], y[:2700] = x[:2700] * 0.25, y[:2700] * 0.25
    rank = rng.permutation(3000)
    chosen = spread(x, y, rank, (100, 100), 64)
    assert len(chosen) == len(set(chosen)) == 64
    cell = (x // 25).astype(int) * 4 + (y // 25).astype(int)
    assert np.bincount(cell[chosen], minlength=16).tolist() == [4] * 16
    for number in range(16):
        best = np.sort(rank[cell == number])[:4]
        assert np.sort(rank[chosen[cell[chosen] == number]]).tolist() == best.tolist()
    assert len(spread(x[:5], y[:5], rank[:5], (100, 100), 64)) == 5


def test_crowded():
    x, y = np.array([0.0, 3.0, 50.0, 53.0, 80.0]), np.zeros(5)
    flux = np.array([100.0, 9.0, 100.0, 60.0, 10.0])
    assert crowded(x, y, flux, 4.0, 0.1).tolist() == [False, True, True, True, False]
    assert crowded(x, y, flux, 2.0, 0.1).tolist() == [False] * 5
