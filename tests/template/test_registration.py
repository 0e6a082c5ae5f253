"""The registration of templates against truth: headers that are off, moved stars, few stars, other stars."""

import numpy as np
import pytest
from boxes import boxes, moffat, own, solution

from nightsift import parameters
from nightsift.detect.detect import detect
from nightsift.errors import Rejected
from nightsift.flags import Mask
from nightsift.simulate.pixels import render_points
from nightsift.template.alignment import Target, TemplateImage, align
from nightsift.template.registration import carry, register
from nightsift.template.resample import mapping

SHAPE = (600, 640)
CENTER = (319.5, 299.5)
NOISE = 5.0


def fluxes(number, rng, faintest=600.0, brightest=2e5):
    return np.minimum(faintest * rng.random(number) ** -1.2, brightest)


def exposed(x, y, flux, shape, fwhm, seed):
    """Return an image of stars in noise, background subtracted."""
    light = np.zeros(shape)
    render_points(light, x, y, flux, moffat(fwhm), faintest=0.1)
    noise = np.sqrt(NOISE**2 + light / 2)
    return (light + np.random.default_rng([seed, 1]).normal(0, 1, shape) * noise).astype(np.float32)


class Field:
    """A field of stars seen twice; the template's pixels are `scale` of the image's, its true solution `true`."""

    def __init__(self, number=450, scale=1.0, rotation=0.0, sip=None, moved=0.15, seed=1, side=None, depth=1.0):
        rng = np.random.default_rng(seed)
        self.image_wcs = solution(center=CENTER)
        side = side or int(780 / scale)
        self.scale, self.shape, self.rotation = scale, (side, side), rotation
        self.true = self.header(sip=sip)
        self.x, self.y = rng.uniform(-30, SHAPE[1] + 30, number), rng.uniform(-30, SHAPE[0] + 30, number)
        self.flux = fluxes(number, rng)
        image = exposed(self.x, self.y, self.flux, SHAPE, 2.8, seed)
        self.image = image
        self.objects = detect(image + 200, np.zeros(SHAPE, np.uint16), 2.0, parameters.DetectConfig()).objects
        x, y = carry(self.image_wcs, self.true, self.x, self.y, side)
        self.moved = rng.random(number) < moved
        x, y = (part + self.moved * rng.normal(0, 2, number) / scale for part in (x, y))
        flux = depth * self.flux * np.where(self.moved, rng.uniform(0.2, 3, number), 1)
        self.data = exposed(x, y, flux, self.shape, max(2.5 / scale, 2.2), seed + 100)

    def header(self, shift=(0.0, 0.0), turn=0.0, stretch=1.0, sip=None):
        """Return a solution of the template; `shift` in pixels of the image."""
        center = np.array(self.shape[::-1]) / 2 + [0.3, -0.2] + np.array(shift) / self.scale
        return solution(scale=self.scale * stretch, rotation=self.rotation + turn, center=center, sip=sip)

    def register(self, wcs, **options):
        bad = options.pop("bad", np.zeros(self.shape, bool))
        objects = options.pop("objects", self.objects)
        return register(objects, self.data, NOISE, bad, wcs, self.image_wcs, SHAPE, **options)

    def error(self, wcs, found):
        """Return how far the corrected mapping is off all over the image, in its pixels: rms an axis, and largest."""
        x, y = np.meshgrid(np.linspace(0, SHAPE[1] - 1, 21), np.linspace(0, SHAPE[0] - 1, 21))
        true = np.array(carry(self.image_wcs, self.true, x, y, self.shape[0]))
        corrected = np.array(carry(self.image_wcs, wcs, *found.displaced(x, y), self.shape[0]))
        off = (corrected - true) * self.scale
        return np.sqrt(np.mean(off**2)), np.abs(off).max()


@pytest.fixture(scope="module")
def field():
    return Field()


HEADERS = [
    pytest.param({"shift": (0.3, -0.2)}, 0, id="0.3 pixels"),
    pytest.param({"shift": (-2.0, 2.3)}, 0, id="3 pixels"),
    pytest.param({"shift": (11.0, -9.0)}, 0, id="14 pixels"),
    pytest.param({"turn": 0.6, "stretch": 1.009}, 1, id="rotation and scale"),
]


@pytest.mark.parametrize(("wrong", "order"), HEADERS)
def test_a_wrong_header_is_mended(field, wrong, order):
    wcs = field.header(**wrong)
    found = field.register(wcs)
    rms, largest = field.error(wcs, found)
    assert rms < 0.01
    assert largest < 0.03
    assert found.order == order
    assert found.n_stars > 100
    assert max(found.rms) < 0.08
    before = np.hypot(*wrong.get("shift", (3.2, 3.2)))
    assert 0.5 * before < np.hypot(*found.rms_before) < 2 * before
    assert bool(found.warnings) == (found.shift > 0.5)


@pytest.mark.parametrize(("scale", "rotation"), [(0.4, 0), (1.0, 195), (1.5, 30)])
def test_a_distortion_that_the_header_does_not_know(scale, rotation):
    # Two pixels of the image at 320 of them from the centre
    field = Field(scale=scale, rotation=rotation, sip=2 / scale * (scale * 250 / 320) ** 3)
    wcs = field.header()
    before = field.error(wcs, field.register(wcs, max_shift=0))
    found = field.register(wcs)
    rms, largest = field.error(wcs, found)
    assert before[1] > 3
    assert rms < 0.02 * max(scale, 1)
    assert largest < 0.15
    assert found.order == 3
    assert found.shift == pytest.approx(before[1], rel=0.5)


def test_a_good_header_is_left_alone(field):
    found = field.register(field.true)
    assert field.error(field.true, found)[1] < 0.01
    assert found.shift < 0.01
    assert not found.warnings


def test_truth_over_many_skies():
    """Where the header is right, what is applied all the same stays below a hundredth of a pixel."""
    errors = []
    for seed in range(5, 11):
        field = Field(number=150, seed=seed)
        errors.append(field.error(field.true, field.register(field.true))[0])
    assert np.median(errors) < 0.004
    assert max(errors) < 0.012


def test_five_stars_tell_an_offset_at_most():
    for seed in range(6):
        field = Field(number=5, moved=0.0, seed=seed)
        wcs = field.header(shift=(0.3, -0.2))
        found = field.register(wcs)
        assert found.order in (0, None)
        assert field.error(wcs, found)[1] <= 0.31


def test_no_stars_leave_the_header_alone(field):
    nothing = field.register(field.true, objects=field.objects[:0])
    assert nothing.order is None
    assert "too few" in nothing.warnings[0]
    field = Field(number=450, depth=1e-3)
    nothing = field.register(field.true)
    assert nothing.order is None
    assert "few" in nothing.warnings[0]


@pytest.mark.parametrize("depth", [0.1, 0.02, 0.005])
def test_a_shallow_template_is_no_wrong_template(depth):
    field = Field(depth=depth)
    wcs = field.header(shift=(1.0, 0.0))
    good, found = field.register(field.true), field.register(wcs)
    assert field.error(field.true, good)[1] < 0.05
    # Seven of its stars are hardly above the noise in the last.
    assert field.error(wcs, found)[1] < (0.05 if depth > 0.01 else 1.01)


@pytest.mark.parametrize("scatter", [1.0, 2.0])
@pytest.mark.parametrize("number", [60, 3000])
def test_stars_of_another_band(number, scatter):
    """Patterns match though the brightest of one are not the brightest of the other."""
    field = Field(number=number, seed=4)
    rng = np.random.default_rng(7)
    x, y = carry(field.image_wcs, field.true, field.x, field.y, field.shape[0])
    field.data = exposed(x, y, field.flux * 10 ** (0.4 * rng.normal(0, scatter, number)), field.shape, 2.5, 8)
    for wrong in ({"shift": (14.0, 0.0)}, {"shift": (6.0, 0.0), "turn": 0.5}):
        wcs = field.header(**wrong)
        assert field.error(wcs, field.register(wcs))[0] < 0.03


def test_a_template_whose_bright_stars_saturate():
    """What is left of a deep template are stars that the image does not show."""
    field = Field(number=900, depth=30.0)
    found = field.register(field.true, bad=field.data > 1500, objects=field.objects[:60])
    assert found.shift < 0.1


def test_another_sky_is_rejected(field):
    other = Field(seed=2)
    with pytest.raises(Rejected, match="20 arcsec"):
        other.register(field.true, objects=field.objects)
    with pytest.raises(Rejected, match="4 arcsec"):
        field.register(field.header(shift=(40, 0)), max_shift=4)
    assert field.register(field.header(shift=(40, 0)), max_shift=60).n_stars > 100
    assert field.register(field.header(shift=(40, 0)), max_shift=0).order is None


def test_half_a_template(field):
    bad = np.zeros(field.shape, bool)
    bad[:, :400] = True
    wcs = field.header(shift=(1.5, 0.5), turn=0.2)
    found = field.register(wcs, bad=bad)
    x, y = np.meshgrid(np.linspace(400, SHAPE[1] - 1, 11), np.linspace(0, SHAPE[0] - 1, 11))
    true, corrected = (
        np.array(carry(field.image_wcs, one, *where, 780))
        for one, where in ((field.true, (x, y)), (wcs, found.displaced(x, y)))
    )
    assert np.abs(corrected - true).max() < 0.05


def test_the_template_itself_is_mended_in_one_go(field):
    wcs = field.header(shift=(0.7, -1.8), turn=0.4, stretch=1.006)
    clear = np.zeros(field.shape, np.uint16)
    source = TemplateImage(field.data + 100, clear, wcs)
    result = align(source, Target(field.image_wcs, SHAPE, field.objects), parameters.TemplateConfig())
    alone = np.hypot(field.x[:, None] - field.x, field.y[:, None] - field.y)
    alone[alone == 0] = np.inf
    good = ~field.moved & (field.flux > 2e4) & (alone.min(axis=0) > 18)
    good &= (np.abs(field.x - CENTER[0]) < 290) & (np.abs(field.y - CENTER[1]) < 270)
    total, at_x, at_y = boxes(own(result.data), field.x[good], field.y[good], half=9)
    assert good.sum() > 5
    assert np.abs(np.median(at_x - field.x[good])) < 0.03
    assert np.abs(np.median(at_y - field.y[good])) < 0.03
    # The light is that of the template's true pixel, not of the header's, which is 1.2 per cent larger.
    _, _, area = mapping(wcs, field.image_wcs, SHAPE, field.shape, 0, result.registration)
    assert area.mean() == pytest.approx(1, abs=5e-4)
    assert np.median(total / field.flux[good]) == pytest.approx(1, abs=0.02)
    assert result.registration.order == 1
    assert any("was off by up to" in text for text in result.warnings)
    assert not (own(result.mask) & int(Mask.TEMPLATE_BAD)).any()
