"""The light in small apertures against pixel-integrated profiles at random places."""

import numpy as np
import pytest
import sep

from nightsift.detect.aperture import Aperture, measure
from nightsift.detect.pixelphase import phase_light
from nightsift.image.moffat import MoffatPsf
from nightsift.simulate.pixels import render_points

SHAPE = (600, 600)


def stars(fwhm, beta, e1=0.0):
    """Return an image without noise of equal stars at random places, and these."""
    rng = np.random.default_rng(7)
    x, y = (part.ravel() + rng.uniform(-0.5, 0.5, 121) for part in np.meshgrid(*[np.arange(50, 551, 50.0)] * 2))
    image = np.zeros(SHAPE, np.float32)
    render_points(image, x, y, np.full(x.size, 1e5), MoffatPsf(fwhm, beta, e1, 0.0, (0, 0, 0), (0, 0)), 1e-3)
    return image, x, y


@pytest.mark.parametrize("beta", [2.5, 4.0])
@pytest.mark.parametrize(("fwhm", "seen"), [(1.75, 2.08), (2.8, 3.2), (4.4, 4.9)])
def test_most_of_the_scatter_with_the_place_in_the_pixel_is_foretold(fwhm, seen, beta):
    image, x, y = stars(fwhm, beta, 0.08)
    light = sep.sum_circle(image, x, y, seen, subpix=0)[0]
    foretold = phase_light(x, y, seen, seen)
    assert np.std(light / foretold) < max(0.35 * np.std(light), 1e-4 * np.mean(light))
    assert np.mean(foretold) == pytest.approx(1, abs=1e-3)
    if fwhm < 2:
        assert np.std(light) > 0.003 * np.mean(light)


def test_every_phase_counts_alike_and_repeats_from_pixel_to_pixel():
    place = (np.arange(40) + 0.5) / 40 - 0.5
    x, y = (part.ravel() for part in np.meshgrid(place, place))
    light = phase_light(x, y, 2.0, 2.0)
    assert light.mean() == pytest.approx(1, abs=1e-4)
    assert np.ptp(light) > 0.005
    np.testing.assert_allclose(phase_light(x + 17, y + 230, 2.0, 2.0), light, atol=1e-6)
    np.testing.assert_allclose(phase_light(y, -x, 2.0, 2.0), light, atol=1e-4)


def test_measured_fluxes_are_corrected_where_the_width_is_known():
    image, x, y = stars(1.8, 3.0)
    arguments = (image, np.ones_like(image), np.zeros(SHAPE, np.uint16), x, y, None)
    plain, corrected = (measure(*arguments, Aperture(2.1, 10.5, 14.7, fwhm))["flux"] for fwhm in (None, 2.1))
    assert np.std(corrected) < 0.35 * np.std(plain)
    assert np.mean(corrected) == pytest.approx(np.mean(plain), rel=1e-3)
