"""A template without a WCS is placed on the sky by the stars of the image, however it is turned, mirrored or scaled."""

import numpy as np
import pytest
from astropy.io import fits
from boxes import moffat, solution

from nightsift import parameters
from nightsift.detect.detect import detect
from nightsift.errors import Rejected
from nightsift.simulate.pixels import render_points
from nightsift.template.alignment import Target, TemplateImage
from nightsift.template.placing import place

SHAPE = (500, 560)
IMAGE = solution(center=(280.0, 250.0))


def sky(seed=1, number=900):
    """Return positions over four times the image's area, and fluxes."""
    rng = np.random.default_rng(seed)
    ra, dec = IMAGE.all_pix2world(rng.uniform(-280, 840, number), rng.uniform(-250, 750, number), 0)
    return ra, dec, 500 * rng.pareto(0.9, number).clip(0, 300) + 500


def shown(wcs, shape, stars, fwhm, seed):
    """Return pixels of a sky with noise."""
    rng = np.random.default_rng(seed)
    data = rng.normal(100, 10, shape).astype(np.float32)
    render_points(data, *wcs.all_world2pix(*stars[:2], 0), stars[2], moffat(fwhm), 0.1)
    return data, np.zeros(shape, np.uint16)


def mirrored(wcs):
    other = wcs.deepcopy()
    other.wcs.cd = other.wcs.cd * [[-1, 1], [-1, 1]]
    other.wcs.set()
    return other


@pytest.fixture(scope="module")
def objects():
    return detect(*shown(IMAGE, SHAPE, sky(), 3.0, 2), 1.0, parameters.DetectConfig()).objects


# WCS and shape of the template, FWHM of its stars, and whether its header tells the pixel scale.
TEMPLATES = {
    "alike": (solution(center=(283.0, 246.0)), SHAPE, 2.5, False),
    "turned": (solution(center=(250.0, 280.0), rotation=90), (560, 500), 2.5, False),
    "upside down, finer": (solution(scale=0.6, center=(466.0, 416.0), rotation=178), (833, 933), 4.5, False),
    "mirrored": (mirrored(solution(center=(250.0, 250.0), rotation=33)), (500, 500), 3.0, True),
    "twice as large": (solution(center=(560.0, 500.0), rotation=-20), (1000, 1120), 3.0, False),
    "coarser": (solution(scale=2.0, center=(140.0, 125.0)), (250, 280), 1.8, True),
    "half of it": (solution(center=(0.0, 250.0), rotation=5), SHAPE, 3.0, False),
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_image_tells_where_its_template_lies(objects, name):
    wcs, shape, fwhm, told = TEMPLATES[name]
    header = fits.Header({"SECPIX": 3600 * np.sqrt(abs(np.linalg.det(wcs.wcs.cd)))} if told else {})
    data, mask = shown(wcs, shape, sky(), fwhm, 3)
    found = place(TemplateImage(data, mask, None, gain=1.0), header, Target(IMAGE, SHAPE, objects))
    x, y = np.meshgrid(np.linspace(20, SHAPE[1] - 20, 7), np.linspace(20, SHAPE[0] - 20, 7))
    truth, ours = (np.array(one.all_world2pix(*IMAGE.all_pix2world(x, y, 0), 0)) for one in (wcs, found.wcs))
    inside = (truth[0] > 0) & (truth[1] > 0) & (truth[0] < shape[1] - 1) & (truth[1] < shape[0] - 1)
    assert np.hypot(*(ours - truth))[inside].max() < 0.3


def test_another_sky_is_refused_with_what_to_do(objects):
    data, mask = shown(IMAGE, SHAPE, sky(7), 3.0, 3)
    with pytest.raises(
        Rejected, match=r"no usable WCS, and the stars of the image do not tell its place.*give it a WCS"
    ):
        place(TemplateImage(data, mask, None, gain=1.0), fits.Header(), Target(IMAGE, SHAPE, objects))
