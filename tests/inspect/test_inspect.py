"""Reading images of every kind, and what inspection makes of their pixels."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from scipy import ndimage

from nightsift import parameters
from nightsift.errors import Rejected
from nightsift.flags import Mask
from nightsift.image import cosmics
from nightsift.image.moffat import MoffatPsf
from nightsift.inspect.inspect import Overrides, inspect, rough_fwhm
from nightsift.inspect.saturation import pile_up
from nightsift.io.fits import read_image, read_mask
from nightsift.simulate.pixels import render_points

AGPEG = Path(__file__).parents[3] / "shared" / "data" / "agpeg" / "images"
REAL = Path(__file__).parents[3] / "shared" / "data" / "real"
SKY, GAIN, READNOISE = 500.0, 1.0, 8.0


def star_field(fwhm, shape=(400, 400), count=250, seed=1, brightest=5.3):
    """Return the noiseless light of pixel-integrated Gaussian stars, and their positions (y, x)."""
    rng = np.random.default_rng(seed)
    light, half = np.zeros((shape[0] + 80, shape[1] + 80)), 24
    y, x = rng.uniform(8, shape[0] - 9, count), rng.uniform(8, shape[1] - 9, count)
    fine = (np.arange(5) - 2) / 5
    grid = (np.arange(-half, half + 1)[:, None] + fine).ravel()
    for row, column, flux in zip(y, x, 10 ** rng.uniform(2.8, brightest, count), strict=True):
        iy, ix = round(row), round(column)
        profile = [np.exp(-4 * np.log(2) * ((grid + i - c) / fwhm) ** 2) for i, c in ((iy, row), (ix, column))]
        profile = [part.reshape(-1, 5).mean(axis=1) for part in profile]
        stamp = np.outer(profile[0] / profile[0].sum(), profile[1] / profile[1].sum())
        light[iy - half + 40 : iy + half + 41, ix - half + 40 : ix + half + 41] += flux * stamp
    return light[40:-40, 40:-40], np.round(np.array([y, x])).astype(int)


def observe(light, seed=2, sky=SKY, gain=GAIN, saturation=np.inf):
    rng = np.random.default_rng(seed)
    data = rng.poisson((light + sky) * gain) / gain + rng.normal(0, READNOISE / gain, light.shape)
    return np.minimum(data, saturation).astype(np.float32)


def look(data, header=None, overrides=None, user_mask=None, **options):
    return inspect(data, fits.Header(header or {}), parameters.InspectConfig(**options), overrides, user_mask)


@pytest.fixture(scope="module")
def field():
    return star_field(3.0)


@pytest.fixture(scope="module")
def data(field):
    return observe(field[0])


# --- Reading ----------------------------------------------------------------------------------------------------------

PLANE = np.arange(100 * 80).reshape(100, 80)


def test_every_packing_gives_the_same_pixels(tmp_path):
    scaled = fits.PrimaryHDU(PLANE.astype(np.int16))
    scaled.header["BSCALE"], scaled.header["BZERO"] = 0.5, 10.0
    extension = fits.ImageHDU(PLANE.astype(np.float32), name="SCI")
    errors = fits.ImageHDU(-PLANE.astype(np.float32), name="ERR")
    primary = fits.PrimaryHDU(header=fits.Header({"EXPTIME": 7.0}))
    table = fits.BinTableHDU.from_columns([fits.Column("a", "E", array=np.arange(3.0))])
    kinds = {
        "uint16": fits.HDUList([fits.PrimaryHDU(PLANE.astype(np.uint16))]),
        "big": fits.HDUList([fits.PrimaryHDU(PLANE.astype(">f8"))]),
        "int32": fits.HDUList([fits.PrimaryHDU(PLANE.astype(np.int32))]),
        "cube1": fits.HDUList([fits.PrimaryHDU(PLANE[None].astype(np.float32))]),
        "multi": fits.HDUList([primary, errors, table, extension]),
        "compressed": fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(PLANE.astype(np.int16))]),
    }
    for name, hdus in kinds.items():
        hdus.writeto(tmp_path / f"{name}.fits")
        image = read_image(tmp_path / f"{name}.fits")
        assert image.data.dtype == np.dtype(np.float32), name
        assert image.data.dtype.isnative, name
        assert np.array_equal(image.data, PLANE), name
    assert read_image(tmp_path / "multi.fits").hdu == 3
    assert read_image(tmp_path / "multi.fits").header["EXPTIME"] == 7.0
    assert np.array_equal(read_image(tmp_path / "multi.fits", hdu=1).data, -PLANE)
    scaled = tmp_path / "scaled.fits"
    hdu = fits.PrimaryHDU((PLANE * 0.5 + 10.0).astype(np.float64))
    hdu.scale("int16", bscale=0.5, bzero=10.0)
    hdu.writeto(scaled)
    assert np.allclose(read_image(scaled).data, PLANE * 0.5 + 10.0)
    (tmp_path / "big.fits.gz").write_bytes(gzip.compress((tmp_path / "big.fits").read_bytes()))
    assert np.array_equal(read_image(tmp_path / "big.fits.gz").data, PLANE)


def test_blank_and_infinite_pixels_become_nan(tmp_path):
    hdu = fits.PrimaryHDU(np.array([[1, -99], [3, 4]], np.int16))
    hdu.header["BLANK"] = -99
    hdu.writeto(tmp_path / "blank.fits")
    assert np.array_equal(np.isnan(read_image(tmp_path / "blank.fits").data), [[False, True], [False, False]])
    fits.writeto(tmp_path / "inf.fits", np.array([[1, np.inf], [3, 4]], np.float32))
    assert np.isnan(read_image(tmp_path / "inf.fits").data[0, 1])


@pytest.mark.parametrize("keep", [0, 40, 1500, 2880, 5000, 30000])
@pytest.mark.parametrize("packing", ["plain", "extension", "gzip"])
def test_a_file_cut_short_is_rejected(tmp_path, keep, packing):
    path = tmp_path / "cut.fits"
    image = fits.ImageHDU(PLANE.astype(np.float32)) if packing == "extension" else None
    hdus = [fits.PrimaryHDU(), image] if image else [fits.PrimaryHDU(PLANE.astype(np.float32))]
    fits.HDUList(hdus).writeto(path)
    raw = path.read_bytes()
    raw = gzip.compress(raw, compresslevel=0) if packing == "gzip" else raw
    path.write_bytes(raw[:keep])
    with pytest.raises(Rejected):
        read_image(path)


def test_what_is_no_image_is_rejected(tmp_path):
    (tmp_path / "text.fits").write_text("not found\n" * 500)
    fits.BinTableHDU.from_columns([fits.Column("a", "E", array=np.arange(3.0))]).writeto(tmp_path / "table.fits")
    fits.writeto(tmp_path / "cube.fits", np.zeros((3, 10, 10), np.float32))
    fits.writeto(tmp_path / "line.fits", np.zeros(10, np.float32))
    for name, word in {"text": "SIMPLE", "table": "table", "cube": "3-D", "line": "1-D"}.items():
        with pytest.raises(Rejected, match=word):
            read_image(tmp_path / f"{name}.fits")
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "absent.fits")


def test_missing_padding_alone_is_no_truncation(tmp_path):
    path = tmp_path / "unpadded.fits"
    fits.writeto(path, PLANE.astype(np.float32))
    path.write_bytes(path.read_bytes()[: 2880 + PLANE.size * 4])
    assert np.array_equal(read_image(path).data, PLANE)


def test_mask_must_fit(tmp_path):
    fits.writeto(tmp_path / "mask.fits", (PLANE > 4000).astype(np.uint8))
    assert np.array_equal(read_mask(tmp_path / "mask.fits", PLANE.shape), PLANE > 4000)
    with pytest.raises(Rejected, match="80 x 100"):
        read_mask(tmp_path / "mask.fits", (10, 10))


# --- Pixels -----------------------------------------------------------------------------------------------------------


def test_images_that_hold_nothing_are_rejected(data):
    with pytest.raises(Rejected, match="finite"):
        look(np.full((100, 100), np.nan))
    with pytest.raises(Rejected, match="same value"):
        look(np.full((100, 100), 3.0))
    with pytest.raises(Rejected, match="shorter"):
        look(np.zeros((20, 100)))
    with pytest.raises(Rejected, match="masked"):
        look(data, user_mask=np.arange(data.size).reshape(data.shape) > 0.02 * data.size)


@pytest.mark.parametrize("gain", [0.5, 1.0, 4.0])
def test_gain_is_guessed_from_the_sky(field, gain):
    found = look(observe(field[0], sky=3000.0, gain=gain))
    assert found.gain == pytest.approx(gain, rel=0.15)
    assert any("guessed" in note for note in found.warnings)


@pytest.mark.parametrize(
    ("header", "scale", "offset", "word", "gain"),
    [
        ({"GAIN": GAIN}, 1.0, 0.0, None, GAIN),
        ({"GAIN": -2.0}, 1.0, 0.0, "not possible", None),
        ({"GAIN": 139}, 40.0, 0.0, "ignored", None),
        ({"GAIN": GAIN}, 0.02, 0.0, "stacked", GAIN),
        ({"GAIN": GAIN}, 1.0, -SKY, "subtracted", GAIN),
        ({}, 1.0, -SKY, "not known", None),
    ],
)
def test_gain_is_checked_against_the_pixels(data, header, scale, offset, word, gain):
    # Scaling by 0.02 leaves a sky of 10 with a noise of 0.47: a gain of 1 would make 3.2 of it.
    found = look(data * scale + offset, header)
    notes = " ".join(note for note in found.warnings if "gain" in note.lower() or "sky" in note)
    if word is None:
        assert not notes
    else:
        assert word in notes
    if gain is not None:
        assert found.gain == gain
    elif "GAIN" in header:
        assert found.gain != header["GAIN"]
    else:
        assert found.gain is None


@pytest.mark.parametrize("header", [{"GAIN": GAIN}, {"GAIN": 9 * GAIN}])
def test_gain_of_the_mean_of_frames(field, header):
    mean = np.mean([observe(field[0], seed=seed, sky=3000.0) for seed in range(9)], axis=0)
    found = look(mean, header | {"NCOMBINE": 9})
    assert found.gain == 9 * GAIN
    assert any("mean of 9 frames" in note for note in found.warnings) == (header["GAIN"] == GAIN)
    assert look(observe(field[0], sky=3000.0), {"GAIN": GAIN, "NCOMBINE": 9}).gain == GAIN


def test_readnoise_and_times_that_are_given(data):
    assert look(data, {"RDNOISE": 5.0}).readnoise == 5.0
    assert look(data, {"RDNOISE": 5.0}, Overrides(readnoise=4.0)).readnoise == 4.0
    for time_is, seconds in {"start": 10.0, "middle": 0.0, "end": -10.0}.items():
        given = Overrides(time="57000.25", time_is=time_is, exptime=20.0)
        assert look(data, {}, given).mjd == pytest.approx(57000.25 + seconds / 86400, abs=1e-8)
    late = look(data, {"DATE-OBS": "2030-01-01T00:00:00", "EXPTIME": 1.0}, Overrides(now=60000.0))
    assert any("in the future" in note for note in late.warnings)


def test_background_and_noise(data):
    found = look(data)
    assert found.background == pytest.approx(SKY, abs=5)
    assert found.noise == pytest.approx(np.hypot(np.sqrt(SKY), READNOISE), rel=0.15)


@pytest.mark.parametrize("fwhm", [2.0, 3.0, 6.0])
def test_rough_fwhm(fwhm):
    light, _ = star_field(fwhm, count=80)
    noisy = observe(light) - SKY
    assert rough_fwhm(noisy, 24.0, np.zeros(noisy.shape, bool)) == pytest.approx(fwhm, rel=0.15)


@pytest.mark.parametrize("spread", [0.0, 0.02])
def test_saturation_is_found_where_values_pile_up(spread):
    light, _ = star_field(3.0, brightest=6.5, count=300)
    clipped = observe(light, saturation=30000.0)
    uneven = clipped * np.random.default_rng(3).normal(1.0, spread, clipped.shape).astype(np.float32)
    level = pile_up(uneven, np.zeros(light.shape, bool), SKY, 24.0)
    assert 30000.0 * (1 - 4 * spread - 0.03) < level <= 30000.0
    found = look(uneven, {"SATURATE": 65535.0})
    assert found.saturation == pytest.approx(level, rel=0.03)
    assert any("pile up" in note for note in found.warnings)
    assert np.all(found.mask[light > 36000.0] & Mask.SATURATED)


@pytest.mark.parametrize("fwhm", [1.6, 3.0, 8.0])
@pytest.mark.parametrize("brightest", [4.5, 5.3, 6.0])
def test_a_bright_star_is_no_saturation(fwhm, brightest):
    light, _ = star_field(fwhm, brightest=brightest, seed=5)
    assert pile_up(observe(light), np.zeros(light.shape, bool), SKY, 24.0) is None
    one, _ = star_field(fwhm, brightest=7.0, count=1, seed=5)
    assert pile_up(observe(one), np.zeros(light.shape, bool), SKY, 24.0) is None


def test_saturation_of_the_header(data):
    assert look(data, {"SATURATE": 60000.0}).saturation == 60000.0
    ignored = look(data, {"SATURATE": 10.0, "BITPIX": -32})
    assert ignored.saturation is None
    assert any("below the sky" in note for note in ignored.warnings)
    assert look(data, {"SATURATE": 6e4}, Overrides(saturation=4e4)).saturation == 4e4
    assert look(data, {"BITPIX": 16, "BZERO": 32768}).saturation == 65535.0


def test_bleeding_is_masked_and_the_sky_beside_it_not(data):
    bled = data.copy()
    bled[100:300, 200:203] = 30000.0
    bled[300:330, 201] = 15000.0
    mask = look(bled, overrides=Overrides(saturation=29000.0)).mask & Mask.SATURATED
    assert np.mean(mask[99:330, 201] > 0) > 0.95
    assert not mask[:, 210:].any()


def test_outside_border_lines_and_user_planes(field, data):
    frame = data.copy()
    frame[:, :20] = 0.0
    frame[:, 150] += 200.0
    frame[220, :] = 7.0
    frame[5, 100] = np.nan
    user = np.zeros(frame.shape, bool)
    user[30:40, 60:70] = True
    found = look(frame, {"TRIMSEC": "[1:390,1:400]"}, user_mask=user)
    planes = {plane: (found.mask & int(plane)) != 0 for plane in Mask}
    assert planes[Mask.OUTSIDE][:, :20].mean() > 0.99
    assert planes[Mask.OUTSIDE][:, 390:].all()
    assert not planes[Mask.OUTSIDE][:, 25:385].any()
    assert planes[Mask.BADLINE][:, 150].all()
    assert planes[Mask.BADLINE][220].all()
    assert planes[Mask.BADLINE].sum() == frame.shape[0] + frame.shape[1] - 1
    assert np.argwhere(planes[Mask.NONFINITE]).tolist() == [[5, 100]]
    assert np.array_equal(planes[Mask.USER], user)
    assert any("border" in note for note in found.warnings)
    assert not look(data).mask.any()


def test_a_large_galaxy_makes_no_bad_lines(field):
    y, x = np.mgrid[:400, :400]
    galaxy = 3000.0 * np.exp(-np.hypot(y - 200, x - 180) / 40.0)
    assert not look(observe(field[0] + galaxy)).masked["BADLINE"]


def test_sections_that_do_not_fit_are_ignored(data):
    found = look(data, {"DATASEC": "[1:2048,1:2048]"})
    assert not found.masked["OUTSIDE"]
    assert any("untrimmed" in note for note in found.warnings)


# --- Cosmic rays ------------------------------------------------------------------------------------------------------


def hits(shape, count=90, seed=4):
    """Return the charge of cosmic rays: single pixels, short straight tracks and long winding ones."""
    rng = np.random.default_rng(seed)
    charge = np.zeros(shape)
    for number in range(count):
        energy, (y, x) = 10 ** rng.uniform(2.5, 4.5), rng.uniform(12, np.array(shape) - 12)
        if number % 3 == 0:
            charge[int(y), int(x)] += energy
            continue
        steps, turn = (rng.integers(20, 90), 0.0) if number % 3 == 1 else (rng.integers(80, 300), 0.12)
        angle = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, turn, steps))
        row, column = (np.rint(c + 0.1 * np.cumsum(f(angle))).astype(int) for c, f in ((y, np.sin), (x, np.cos)))
        inside = (row > 2) & (row < shape[0] - 3) & (column > 2) & (column < shape[1] - 3)
        np.add.at(charge, (row[inside], column[inside]), (energy / 10 * rng.uniform(0.5, 1.5, steps))[inside])
    return charge


@pytest.mark.parametrize("fwhm", [1.0, 1.2, 1.5, 2.0, 3.0, 4.0, 6.0])
def test_hits_are_masked_and_star_cores_are_not(fwhm):
    found, struck, lost, stars = 0, 0, 0, 0
    shape, psf = (600, 600), MoffatPsf(fwhm, 3.0, 0.05, 0.02, (0.03, 0.02, 0.03), (0.02, 0.0))
    for seed in (1, 2):
        rng = np.random.default_rng(seed)
        # Up to the full well, and so many that a good part of the hits lies on the light of stars.
        x, y = rng.uniform(8, 591, (2, 900))
        light = np.zeros(shape)
        render_points(light, x, y, 10 ** rng.uniform(3, np.log10(6e4 * (fwhm**2 + 0.5)), 900), psf, 0.5)
        charge = hits(shape, seed=seed)
        image = (observe(light, seed=seed) + charge).astype(np.float32)
        noise = np.hypot(np.sqrt(SKY), READNOISE)
        mask = cosmics.find_cosmics(image, np.float32(SKY), noise, GAIN, np.zeros(shape, bool)).mask
        hit = charge > 10 * np.sqrt(noise**2 + light)
        found, struck = found + mask[hit].sum(), struck + hit.sum()
        row, column = np.rint(y).astype(int), np.rint(x).astype(int)
        core = ndimage.maximum_filter(mask, 3)[row, column]
        free = (light[row, column] > 10 * noise) & ~ndimage.maximum_filter(charge > 0, 7)[row, column]
        lost, stars = lost + core[free].sum(), stars + free.sum()
    assert found >= 0.95 * struck
    assert lost <= 0.001 * stars


def test_many_more_hits_than_stars_do_not_pass_for_stars():
    # As in long exposures above the atmosphere.
    shape, noise, rng = (420, 420), np.hypot(np.sqrt(SKY), READNOISE), np.random.default_rng(3)
    x, y = rng.uniform(8, 411, (2, 70))
    light, psf = np.zeros(shape), MoffatPsf(1.6, 3.0, 0.0, 0.0, (0.0, 0.0, 0.0), (0.0, 0.0))
    render_points(light, x, y, 10 ** rng.uniform(3, 5.2, 70), psf, 0.5)
    charge = hits(shape, count=1500)
    image = (observe(light, seed=3) + charge).astype(np.float32)
    found = cosmics.find_cosmics(image, np.float32(SKY), noise, GAIN, np.zeros(shape, bool))
    assert not found.warnings
    assert found.mask[charge > 10 * np.sqrt(noise**2 + light)].mean() > 0.95
    row, column = np.rint(y).astype(int), np.rint(x).astype(int)
    free = (light[row, column] > 10 * noise) & ~ndimage.maximum_filter(charge > 0, 5)[row, column]
    assert free.sum() > 10
    assert not found.mask[row[free], column[free]].any()


@pytest.mark.parametrize("count", [800, 2000, 8000])
@pytest.mark.parametrize("fwhm", [0.8, 1.0, 1.3])
def test_no_undersampled_star_is_taken_for_a_hit(fwhm, count):
    # As in mosaics of surveys in the plane of the Galaxy; the noise is that about a background full of stars.
    light, (y, x) = star_field(fwhm, count=count, brightest=4.8)
    found = look(observe(light, gain=4.0, sky=150.0), {"GAIN": 4.0})
    bright = light[y, x] > 20 * found.noise
    core = ndimage.maximum_filter((found.mask & Mask.COSMIC) != 0, 3)[y, x]
    assert bright.sum() > 200
    assert core[bright].mean() < 0.002
    assert any("sharp as cosmic rays" in note for note in found.warnings) == (found.masked["COSMIC"] == 0 and fwhm < 1)


@pytest.mark.skipif(not REAL.is_dir(), reason="the real frames are not here")
def test_no_star_of_a_survey_is_taken_for_a_hit():
    image = read_image(REAL / "surveys" / "undersampled_crowded_j.fits")
    found = inspect(image.data, image.header, parameters.InspectConfig())
    assert found.masked["COSMIC"] == 0
    assert found.fwhm == pytest.approx(1.2, abs=0.3)


def test_hits_at_the_border_are_masked():
    noise = np.hypot(np.sqrt(SKY), READNOISE)
    image = np.random.default_rng(9).normal(SKY, noise, (200, 220)).astype(np.float32)
    struck = np.zeros(image.shape, bool)
    for where in (0, 1, 2, -1, -2):
        struck[where, 20 + 10 * where], struck[100 + 10 * where, where] = True, True
    image[struck] += 60 * noise
    mask = cosmics.find_cosmics(image, np.float32(SKY), noise, GAIN, np.zeros(image.shape, bool)).mask
    assert mask[struck].mean() >= 0.8
    assert (mask & ~ndimage.binary_dilation(struck, np.ones((3, 3)))).sum() == 0


@pytest.mark.parametrize("seed", range(6))
def test_hot_and_dead_pixels_at_the_border_are_hits_or_nothing(data, seed):
    rng, frame = np.random.default_rng(seed), data[:200, :220].copy()
    border = np.ones(frame.shape, bool)
    border[2:-2, 2:-2] = False
    where = rng.permutation(np.argwhere(border))[: border.sum() // 6]
    frame[where[:, 0], where[:, 1]] = rng.choice([5000.0, 30000.0, 0.0, -20000.0], len(where))
    found = look(frame, {"GAIN": GAIN, "SATURATE": 65000.0})
    cosmic = (found.mask & int(Mask.COSMIC)) != 0
    assert cosmic[border & (frame > 3000.0)].any()
    # What lies beyond one border is not marked at the other: nothing far from those pixels is.
    assert not cosmic[~ndimage.binary_dilation(frame != data[:200, :220], np.ones((9, 9)))].any()


# --- Overrides and real frames ----------------------------------------------------------------------------------------


def test_the_sample_sheet_goes_over_the_header(data):
    header = {"GAIN": 2.0, "EXPTIME": 10.0, "FILTER": "B", "DATE-OBS": "2015-06-09T00:00:00"}
    given = Overrides(gain=1.1, exptime=86.4, time="57000.25", filter="sdss_r")
    found = look(data, header, given)
    assert (found.gain, found.exptime, found.filter, found.filter_name) == (1.1, 86.4, "r", "sdss_r")
    assert found.mjd == pytest.approx(57000.2505)
    assert look(data, header).mjd == pytest.approx(57182.0 + 5.0 / 86400)


@pytest.mark.skipif(not AGPEG.is_dir(), reason="the AG Peg frames are not here")
@pytest.mark.parametrize("night", ["20150608_385", "20150701_281", "20150723_288", "20150825_225"])
def test_real_frames(night):
    image = read_image(AGPEG / f"t_e_{night}_1_1_1.fits")
    found = inspect(image.data, image.header, parameters.InspectConfig())
    # Stars of V_T 5.5 to 6.5 end at 30,000 to 32,000 ADU there, all alike; those of 7.5 are below 23,000.
    assert 25000 < found.saturation < 31000
    # The camera is the same in all of them, the sky from 550 to 10,000 ADU.
    assert 4.8 < found.gain < 5.4
    assert found.exptime == 10.0
    start = float(image.header["MJD"])
    assert found.mjd == pytest.approx(start + 5.0 / 86400, abs=1e-5)
    assert 31.5 < found.pixscale < 31.8
    assert found.masked["COSMIC"] < 2e-4
    assert found.wcs_header["CTYPE1"] == "RA---TAN-SIP"
    assert np.all(found.mask[image.data > 32000] & Mask.SATURATED)
