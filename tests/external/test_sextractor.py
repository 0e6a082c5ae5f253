"""The program SExtractor as detector: like SEP where it is installed, and every way in which it may fail."""

import numpy as np
import pytest

from nightsift import parameters
from nightsift.detect.detect import detect, extract
from nightsift.errors import CampaignError, Rejected
from nightsift.external.sextractor import PROGRAMS, run_sextractor, sextractor_available
from nightsift.flags import Flag, Mask
from nightsift.image.moffat import MoffatPsf
from nightsift.simulate.pixels import render_points

SHAPE, SKY, GAIN = (300, 320), 300.0, 1.5
PARAMS = parameters.DetectConfig(method="sextractor")
installed = pytest.mark.skipif(not sextractor_available(), reason="the program SExtractor is not installed")


@pytest.fixture(scope="module")
def picture():
    rng = np.random.default_rng(1)
    light = np.zeros(SHAPE)
    x, y, flux = rng.uniform(4, 315, 150), rng.uniform(4, 295, 150), 10 ** rng.uniform(2.8, 5, 150)
    render_points(light, x, y, flux, MoffatPsf(3.0, 3.0, 0.03, 0.02, (0, 0, 0), (0, 0)), 0.01)
    return (rng.poisson((light + SKY) * GAIN) / GAIN).astype(np.float32)


def flat(picture):
    return picture - np.float32(SKY), np.full(SHAPE, np.sqrt(SKY / GAIN), np.float32)


@installed
def test_it_finds_and_flags_what_sep_finds(picture):
    mask = np.zeros(SHAPE, np.uint16)
    mask[100:110, 120:130], mask[:, 200] = int(Mask.USER), int(Mask.BADLINE)
    spoilt = np.where(mask != 0, np.nan, picture)
    ours, theirs = (detect(spoilt, mask, GAIN, PARAMS, find).objects for find in (None, run_sextractor))
    assert ours.colnames == theirs.colnames
    distance = np.hypot(ours["x"][:, None] - theirs["x"], ours["y"][:, None] - theirs["y"])
    near = distance.argmin(axis=1)
    same = distance.min(axis=1) < 0.1
    assert abs(len(ours) - len(theirs)) <= 0.03 * len(ours)
    assert same.mean() > 0.95
    for name in ("flux", "fluxerr", "fwhm", "peak"):
        assert np.median(np.abs(theirs[name][near][same] / ours[name][same] - 1)) < 0.001
    for name in ("a", "b"):
        assert np.median(np.abs(theirs[name][near][same] / ours[name][same] - 1)) < 0.02
    shared = int(Flag.TRUNCATED | Flag.SATURATED | Flag.APERTURE_MASKED | Flag.FOOTPRINT_MASKED | Flag.DEBLENDED)
    assert np.mean((theirs["flags"][near][same] & shared) == (ours["flags"][same] & shared)) > 0.95


@installed
def test_its_objects_are_counted_from_pixel_0_and_in_sigma(picture):
    image, noise = flat(picture)
    (ours, segments), (theirs, footprints) = (
        extract(image, noise, 3.2, PARAMS),
        run_sextractor(image, noise, 3.2, PARAMS),
    )
    brightest = [found[np.argmax(found["flux"])] for found in (ours, theirs)]
    for name in ("x", "y", "theta", "flux", "peak", "cpeak", "xpeak", "ypeak"):
        assert brightest[1][name] == pytest.approx(brightest[0][name], rel=0.02, abs=0.05)
    row, column = theirs["ypeak"], theirs["xpeak"]
    assert (footprints[row, column] == np.arange(len(theirs)) + 1).mean() > 0.99
    assert (footprints > 0).mean() == pytest.approx((segments > 0).mean(), rel=0.02)


@installed
def test_an_empty_sky_has_no_objects():
    image = np.zeros(SHAPE, np.float32)
    found, segments = run_sextractor(image, np.ones_like(image), 3.0, PARAMS)
    assert len(found) == 0
    assert not segments.any()
    with pytest.raises(Rejected, match="no object rises"):
        detect(image, np.zeros(SHAPE, np.uint16), GAIN, PARAMS, run_sextractor)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("exec sleep 60", "did not end within 0.5 s"),
        ("echo 'cannot do it' >&2; exit 1", "failed with status 1: cannot do it"),
        ("kill -SEGV $$", "failed with signal 11"),
        ("echo all well", "no readable objects .*it said: all well"),
        ("echo rubbish > objects.fits", "no readable objects"),
        ("for i in objects segments filtered; do cp image.fits $i.fits; done", "no readable objects"),
    ],
)
def test_every_failure_of_the_program_is_a_rejection_with_its_reason(picture, fake, lines, message):
    fake(PROGRAMS[0], lines)
    seconds = 0.5 if "sleep" in lines else 30.0
    with pytest.raises(Rejected, match=message):
        run_sextractor(*flat(picture), 3.0, parameters.DetectConfig(time_limit=seconds))


def test_tables_and_segments_have_to_belong_together(picture, fake, tmp_path):
    from astropy.io import fits
    from astropy.table import Table

    Table({"X_IMAGE": [1.0]}).write(tmp_path / "one.fits")
    for shape, message in ((SHAPE, "do not belong"), ((5, 5), "another size")):
        fits.writeto(tmp_path / "plane.fits", np.zeros(shape, np.float32), overwrite=True)
        copies = (("one", "objects"), ("plane", "segments"), ("plane", "filtered"))
        fake(PROGRAMS[0], "\n".join(f"cp {tmp_path}/{source}.fits {name}.fits" for source, name in copies))
        with pytest.raises(Rejected, match=message):
            run_sextractor(*flat(picture), 3.0, PARAMS)


def test_no_program_is_an_error_of_the_configuration(picture, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not sextractor_available()
    with pytest.raises(CampaignError, match="is not on the PATH"):
        run_sextractor(*flat(picture), 3.0, PARAMS)
