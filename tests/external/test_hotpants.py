"""The program HOTPANTS: its differences against truth where it is installed, and every way in which it may fail."""

from dataclasses import replace

import numpy as np
import pytest

from nightsift.errors import CampaignError, Rejected
from nightsift.external.hotpants import PROGRAM, hotpants_available, run_hotpants
from nightsift.image.moffat import MoffatPsf, psf_stamps
from nightsift.simulate.pixels import render_points
from nightsift.subtract.images import Layer

SHAPE = (300, 340)
SIGMA, GAIN, TEMPLATE_SIGMA, TEMPLATE_GAIN, RATIO = 10.0, 4.0, 6.0, 17.0, 1.7
SECONDS = 100.0
FLUX, PLACE = 8e3, (170, 142)
installed = pytest.mark.skipif(not hotpants_available(), reason="the program hotpants is not installed")


def side(x, y, flux, fwhm, sigma, gain, rng):
    data = np.zeros(SHAPE, np.float32)
    render_points(data, x, y, flux, MoffatPsf(fwhm, 3.0, 0.03, 0.02, (0, 0, 0), (0, 0)), 0.01)
    noise = np.sqrt(data / gain + sigma**2)
    data = rng.poisson(data * gain) / gain + rng.normal(0, sigma, SHAPE)
    return Layer(data, noise, np.zeros(SHAPE, bool), fwhm, gain)


def scene(new=FLUX):
    """Image, template, and their stars; at `PLACE` something new."""
    rng = np.random.default_rng(1)
    x, y = rng.uniform(12, 328, 60), rng.uniform(12, 288, 60)
    far = np.hypot(x - PLACE[0], y - PLACE[1]) > 20
    x, y = x[far], y[far]
    flux = np.exp(rng.uniform(np.log(5e3), np.log(1e5), x.size))
    everything = [np.append(*pair) for pair in ((x, PLACE[0]), (y, PLACE[1]), (flux, new))]
    image = side(*everything, 3.5, SIGMA, GAIN, rng)
    return image, side(x, y, RATIO * flux, 2.4, TEMPLATE_SIGMA, TEMPLATE_GAIN, rng), x, y


def inner(plane):
    return plane[30:-30, 30:-30]


@installed
def test_stars_vanish_and_what_is_new_keeps_its_flux():
    image, template, x, y = scene()
    result = run_hotpants(image, template, x, y, 0, SECONDS)
    assert not inner(result.bad).any()
    assert result.bad[:5].all()
    assert result.kernel_sum == pytest.approx(1 / RATIO, rel=0.02)
    psf = psf_stamps(MoffatPsf(3.5, 3.0, 0.03, 0.02, (0, 0, 0), (0, 0)), np.zeros(1), np.zeros(1), SHAPE, 10)[0][0]
    around = np.s_[PLACE[1] - 10 : PLACE[1] + 11, PLACE[0] - 10 : PLACE[0] + 11]
    assert np.sum(psf * result.difference[around]) / np.sum(psf**2) == pytest.approx(FLUX, rel=0.03)
    pull = result.difference / np.where(result.bad, 1, result.noise)
    pull[around] = 0
    assert inner(pull).std() == pytest.approx(1, abs=0.05)
    assert np.abs(inner(pull)).max() < 7
    assert result.difference.dtype == result.noise.dtype == np.float32


@installed
def test_what_is_not_finite_or_masked_is_bad_and_nothing_else_suffers():
    image, template, x, y = scene()
    whole = run_hotpants(image, template, x, y, 0, SECONDS)
    image.data[100:103, 60:64], image.data[105, 70] = np.nan, np.inf
    image.noise[110, 80], image.noise[111, 80] = np.nan, 0
    template.data[200, 100:104] = -np.inf
    masked = replace(image, bad=image.bad.copy())
    masked.bad[150:160, 250:260] = True
    result = run_hotpants(masked, template, x, y, 0, SECONDS)
    for part in (np.s_[100:103, 60:64], (105, 70), (110, 80), (111, 80), np.s_[150:160, 250:260], np.s_[200, 100:104]):
        assert np.all(result.bad[part])
    assert np.isfinite(result.difference).all()
    assert np.isfinite(result.noise).all()
    assert inner(result.bad).mean() < 0.02
    both = ~result.bad & ~whole.bad
    assert np.median(np.abs(result.difference - whole.difference)[both]) < 0.5


@installed
def test_without_stars_in_the_images_the_program_says_so():
    rng = np.random.default_rng(2)
    nothing = np.zeros(0)
    image, template = (side(nothing, nothing, nothing, fwhm, 10.0, 4.0, rng) for fwhm in (3.5, 2.4))
    with pytest.raises(Rejected, match=r"hotpants .*stamps"):
        run_hotpants(image, template, [100.0, 200.0], [100.0, 150.0], 0, SECONDS)


def test_there_must_be_stars_and_good_pixels(fake):
    fake(PROGRAM, "exit 0")
    image, template, x, y = scene()
    with pytest.raises(Rejected, match="no star"):
        run_hotpants(image, template, [], [], 0, SECONDS)
    with pytest.raises(Rejected, match="the image has no good pixel"):
        run_hotpants(replace(image, data=np.full(SHAPE, np.nan)), template, x, y, 0, SECONDS)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("exec sleep 60", "did not end within 0.5 s"),
        ("echo first; echo 'cannot do it' >&2; exit 1", "failed with status 1: cannot do it"),
        ("exit 3", "failed with status 3: without a word"),
        ("kill -SEGV $$", "failed with signal 11"),
        ("echo all well; echo SUCCESS", "no readable difference .*it said: all well"),
        ("echo rubbish > difference.fits", "no readable difference"),
        ("cp image.fits difference.fits; head -c 5000 image.fits > noise.fits", "no readable noise"),
        (
            "for i in difference noise mask; do cp image.fits $i.fits; done; echo 0 stamps",
            "no kernel; it said: 0 stamps",
        ),
    ],
)
def test_every_failure_of_the_program_is_a_rejection_with_its_reason(fake, lines, message):
    fake(PROGRAM, lines)
    seconds = 0.5 if "sleep" in lines else 30
    with pytest.raises(Rejected, match=message):
        run_hotpants(*scene(), 0, seconds)


def test_a_difference_of_another_size_is_refused(fake, tmp_path):
    from astropy.io import fits

    small = tmp_path / "small.fits"
    fits.writeto(small, np.zeros((5, 5), np.float32))
    fake(PROGRAM, f"for i in difference noise mask; do cp {small} $i.fits; done")
    with pytest.raises(Rejected, match="another size"):
        run_hotpants(*scene(), 0, SECONDS)


def test_the_program_gets_finite_images_and_the_stars_counted_from_1(fake, tmp_path):
    from astropy.io import fits

    fake(PROGRAM, f'cp * {tmp_path}; echo "$@" > {tmp_path}/arguments; exit 1')
    image, template, _, _ = scene()
    image.data[5, 7] = np.nan
    with pytest.raises(Rejected):
        run_hotpants(image, template, [10.0], [20.25], 2, SECONDS)
    for name in ("image", "image_noise", "template", "template_noise"):
        assert np.isfinite(fits.getdata(tmp_path / f"{name}.fits")).all()
    assert fits.getdata(tmp_path / "image_mask.fits").sum() == 1
    assert fits.getdata(tmp_path / "image_mask.fits")[5, 7] == 1
    np.testing.assert_allclose(np.loadtxt(tmp_path / "stars.xy"), [11, 21.25])
    arguments = (tmp_path / "arguments").read_text()
    assert "-n i -c t -ko 2 -bgo 2 -r 11 -rss 14" in arguments


def test_no_program_is_an_error_of_the_configuration(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not hotpants_available()
    with pytest.raises(CampaignError, match="'hotpants' is not on the PATH"):
        run_hotpants(*scene(), 0, SECONDS)
    program = tmp_path / "hotpants"
    program.write_bytes(b"\x00\x01\x02")
    program.chmod(0o755)
    assert hotpants_available()
    with pytest.raises(CampaignError, match="cannot be run"):
        run_hotpants(*scene(), 0, SECONDS)
