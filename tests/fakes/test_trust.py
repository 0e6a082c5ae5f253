"""Differences and searches that must not be trusted are refused, with a sentence that says why."""

from dataclasses import replace

import numpy as np
import pytest
from astropy.table import Table
from pairs import PARAMS, SKY, pair

from nightsift import parameters
from nightsift.detect.detect import detect
from nightsift.errors import Rejected
from nightsift.fakes.trust import BRIGHT, trusted
from nightsift.image.padding import PAD
from nightsift.subtract.subtract import subtract

SEARCH = parameters.TransientsConfig()


def refused(made, message, **options):
    with pytest.raises(Rejected, match=message):
        subtract(made.exposure, made.reference, made.objects, replace(PARAMS, **options))


@pytest.mark.parametrize("share", [1.0, 0.9])
def test_a_template_that_holds_the_image_is_refused(share):
    made = pair(3.6, 2.6)
    image = made.exposure.data - np.float32(SKY)
    data = made.reference.data.copy()
    data[PAD:-PAD, PAD:-PAD] = image
    other = pair(3.6, 2.6, 7).exposure.data - np.float32(SKY)
    data[PAD:-PAD, PAD:-PAD] = share * image + (1 - share) * other
    sigma = np.full(data.shape, np.std(np.sort(image.ravel())[: image.size // 2]) * 1.5, np.float32)
    made = replace(made, reference=replace(made.reference, data=data, noise=sigma))
    refused(made, r"noise of the difference.* is 0\.[012]\d*, less than 0.3: does the template hold the image itself\?")


def stacked(number, fwhm=3.6, others=2.6):
    """A template that is the mean of the image and `number` - 1 independent ones of the same sky."""
    made = pair(fwhm, others, number=0)
    data, sigma = made.reference.data.copy(), np.std(made.exposure.data[:40, :40])
    rng = np.random.default_rng(number)
    rest = data[PAD:-PAD, PAD:-PAD] / 1.7 + rng.normal(0, sigma / np.sqrt(number - 1), made.exposure.data.shape)
    data[PAD:-PAD, PAD:-PAD] = (made.exposure.data - np.float32(SKY) + (number - 1) * rest) / number
    noise = np.full(data.shape, sigma / np.sqrt(number), np.float32)
    return replace(made, reference=replace(made.reference, data=data, noise=noise))


@pytest.mark.parametrize(("fwhm", "others"), [(3.6, 3.6), (2.6, 3.6), (3.6, 2.4)])
def test_a_stack_that_the_image_went_into_is_refused_or_named(fwhm, others):
    for number in (2, 4):
        refused(stacked(number, fwhm, others), r"image's own noise that the template holds is 0\.\d*, more than 0.2")
    made = stacked(10, fwhm, others)
    told = subtract(made.exposure, made.reference, made.objects, PARAMS)
    assert told.facts["shared_noise"] == pytest.approx(0.1, abs=0.04)
    assert any("of the image's own noise, as a stack" in note for note in told.warnings)


@pytest.mark.parametrize("fwhm", [2.2, 3.6, 6.0])
def test_templates_of_other_images_share_no_noise(fwhm):
    for template in (0.8 * fwhm, fwhm, 1.4 * fwhm):
        made = pair(fwhm, template, 4)
        told = subtract(made.exposure, made.reference, made.objects, PARAMS)
        assert not abs(told.facts["shared_noise"]) > 0.03


def test_noise_that_nothing_explains_is_refused():
    """The template's noise is three times what its plane of the noise says."""
    made = pair(3.6, 2.6, template_noise=1.0)
    rng = np.random.default_rng(3)
    more = made.reference.data + rng.normal(0, np.sqrt(8), made.reference.data.shape) * made.reference.noise
    made = replace(made, reference=replace(made.reference, data=more.astype(np.float32)))
    refused(made, r"noise of the difference.* is [12]\.\d*, more than 1.5")
    subtract(made.exposure, made.reference, made.objects, replace(PARAMS, max_noise_scale=9))


def test_stars_that_are_left_are_refused():
    """Two in five stars are a third brighter than in the template."""
    made = pair(3.6, 2.6, number=0)
    bright = made.objects[np.asarray(made.objects["snr"]) > 30]
    data, (v, u) = made.exposure.data.copy(), np.indices(made.exposure.data.shape)
    for star in bright[np.arange(len(bright)) % 5 < 2]:
        shape = np.exp(-4 * np.log(2) * np.hypot(u - star["x"], v - star["y"]) ** 2 / 3.6**2)
        data += (star["flux"] / 3 * shape / shape.sum()).astype(np.float32)
    found = detect(data, made.exposure.mask, made.exposure.gain, parameters.DetectConfig())
    changed = replace(made, exposure=replace(made.exposure, data=data), objects=found.objects)
    whole = subtract(made.exposure, made.reference, made.objects, PARAMS)
    assert whole.facts["changed"] < 0.05
    refused(
        changed,
        r"share of bright stars with something significant left.* is 0\.[234]\d*, more than 0.2",
        max_changed=0.2,
    )


def fakes(snr, kind="sky"):
    return Table({"kind": np.full(len(snr), kind), "true_snr": np.asarray(snr, float)})


def test_a_search_that_misses_what_is_plain_is_refused():
    plain = fakes(np.full(30, 2 * BRIGHT))
    with pytest.raises(Rejected, match="of 30 fakes of S/N 20 or more on empty sky 9 were found, less than 70%"):
        trusted(plain, np.arange(30) < 9, np.nan, SEARCH)
    trusted(plain, np.arange(30) < 29, np.nan, SEARCH)
    # Neither few nor faint ones, nor those beside stars, say so.
    for few in (plain[:9], fakes(np.full(30, BRIGHT / 2)), fakes(np.full(30, 2 * BRIGHT), "star"), plain[:0]):
        trusted(few, np.zeros(len(few), bool), np.nan, SEARCH)


def test_nothing_is_found_beyond_what_the_image_shows():
    nothing = fakes([])
    with pytest.raises(Rejected, match=r"found 2\.67 mag beyond the image's own limit, more than 1 mag"):
        trusted(nothing, [], 22.04 - 19.37, SEARCH)
    for deeper in (0.4, -0.5, np.nan):
        trusted(nothing, [], deeper, SEARCH)
