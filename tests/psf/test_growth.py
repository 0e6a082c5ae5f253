"""The aperture correction, star magnitudes and limits against images whose light is known."""

import numpy as np
import pytest
from astropy.table import Table, hstack
from photutils.aperture import CircularAperture
from scipy.spatial import cKDTree

from nightsift import parameters
from nightsift.detect.detect import detect
from nightsift.image.moffat import MoffatPsf as Truth
from nightsift.image.moffat import psf_stamps
from nightsift.photometry.aperture_correction import aperture_correction
from nightsift.photometry.magnitudes import calibrate
from nightsift.photometry.photometry import photometry
from nightsift.photometry.solution import ApertureSeeing
from nightsift.psf.growth import growth
from nightsift.psf.psf import psf
from nightsift.simulate.pixels import render_points

GAIN, SKY, READ, ZP, COLOR, SCALE = 1.6, 300.0, 6.0, 26.5, 0.04, 1.0
SIGMA = np.sqrt(SKY / GAIN + (READ / GAIN) ** 2)
CASES = [(2.0, 1500, 600), (3.2, 800, 600), (5.0, 500, 700)]


class Field:
    """Stars on a sky, what was put in, and what the stages make of it."""

    def __init__(self, seed, fwhm, count, size, vary=0.0, faintest=None):
        rng = np.random.default_rng(seed)
        self.size, self.psf = size, Truth(fwhm, 3.2, 0.04, -0.03, (vary, 0.0, 0.0), (0.0, 0.0))
        # numbers rise tenfold in 3.3 mag, down to a flux of S/N 3
        flux = 3 * SIGMA * 2.2 * fwhm * (1 - rng.random(count)) ** (-1 / 0.75)
        self.flux = np.minimum(flux, 3e5 * fwhm)
        self.x, self.y = rng.uniform(0, size, (2, count))
        self.blue = rng.normal(0.65, 0.3, count)
        self.mag = ZP - 2.5 * np.log10(self.flux)  # in the image's own passband
        light = self.light(self.x, self.y, self.flux)
        self.model = light + SKY
        self.image = rng.poisson(self.model * GAIN) / GAIN + rng.normal(0, READ / GAIN, light.shape)
        self.image = self.image.astype(np.float32)
        stars = np.flatnonzero(self.flux > 10 * SIGMA * 2.2 * fwhm)
        error = 0.005 + 0.02 * 10 ** (0.4 * (self.mag[stars] - self.mag[stars].max()))
        self.catalog = Table(dict(zip(("ra", "dec"), self.sky(self.x[stars], self.y[stars]), strict=True)))
        red = self.mag[stars] + COLOR * self.blue[stars]
        for band, truth in (("r", red), ("g", red + self.blue[stars])):
            self.catalog[f"{band}mag"] = truth + rng.normal(0, 1, len(stars)) * error
            self.catalog[f"e_{band}mag"] = error

    def light(self, x, y, flux):
        light = np.zeros((self.size, self.size), np.float32)
        render_points(light, x, y, flux, self.psf, 0.02 * SIGMA)
        return light

    @staticmethod
    def sky(x, y):
        return 150 + np.asarray(x) * SCALE / 3600, np.asarray(y) * SCALE / 3600

    def stages(self):
        mask = np.zeros(self.image.shape, np.uint16)
        found = detect(self.image, mask, GAIN, parameters.DetectConfig())
        fitted = psf(
            self.image, mask, GAIN, found.objects, found.seeing, found.aperture, parameters.PsfConfig(max_order=1)
        )
        objects = hstack([found.objects, fitted.table])
        objects["ra"], objects["dec"] = self.sky(objects["x"], objects["y"])
        seeing = ApertureSeeing(found.seeing.fwhm, SCALE, found.aperture, self.image.shape)
        return objects, photometry(objects, self.catalog, seeing, "r", parameters.PhotometryConfig())

    def share(self, radius, x=None, y=None):
        """Share of a star's light within a radius."""
        place = np.array([self.size / 2 + 0.3 if x is None else x]), np.array([self.size / 2 + 0.4 if y is None else y])
        stamp, column, row = psf_stamps(self.psf, *place, self.image.shape, 60)
        center = 60 + place[0][0] - column[0], 60 + place[1][0] - row[0]
        return CircularAperture(center, radius).do_photometry(stamp[0])[0][0]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"fwhm {case[0]}")
def measured(request):
    field = Field(1, *request.param)
    return field, *field.stages()


def test_the_zero_point_is_that_of_all_light(measured):
    field, _, result = measured
    missed = 2.5 * np.log10(field.share(4 * field.psf.fwhm))
    assert result.model.aperture_correction_err < 0.012
    assert result.model.zp - ZP == pytest.approx(missed, abs=0.004 + 4 * result.model.zp_err)
    assert abs(result.model.zp - ZP) < 0.015
    assert result.model.color_term == pytest.approx(COLOR, abs=4 * result.model.color_term_err)


def test_star_magnitudes_are_unbiased_and_their_errors_honest(measured):
    field, objects, result = measured
    table = calibrate(objects, result, field.catalog)
    tree = cKDTree(np.column_stack([field.x, field.y]))
    distance, star = tree.query(np.column_stack([objects["x"], objects["y"]]))
    other = [np.array(near) for near in tree.query_ball_point(np.column_stack([field.x, field.y]), 4 * field.psf.fwhm)]
    light = np.array([field.flux[near].sum() for near in other]) / field.flux - 1
    clean = (distance < 0.3 * field.psf.fwhm) & (light[star] < 0.01) & (np.asarray(objects["flags"]) == 0)
    truth = field.flux[star] / (SIGMA * 2.2 * field.psf.fwhm)
    error = np.asarray(table["mag_calib"]) - field.mag[star]
    pull = error / np.hypot(table["mag_calib_err"], 0.002)
    bright = clean & (truth > 40)
    assert np.median(error[bright]) == pytest.approx(0, abs=0.002 + 3 * result.model.zp_aperture_err)
    for low, high in ((10, 40), (40, 1e9)):
        chosen = pull[clean & (truth > low) & (truth < high)]
        assert len(chosen) > 10
        assert 0.7 < np.diff(np.percentile(chosen, [15.87, 84.13]))[0] / 2 < 1.35


@pytest.mark.parametrize("fwhm", [2.0, 3.2])
def test_the_limit_is_that_of_injected_stars(fwhm):
    field = Field(2, fwhm, 150, 500)
    _, result = field.stages()
    rng = np.random.default_rng(3)
    grid = np.arange(12 * fwhm, field.size - 12 * fwhm, 12 * fwhm)
    x, y = (part.ravel() for part in np.meshgrid(grid, grid))
    far = cKDTree(np.column_stack([field.x, field.y])).query(np.column_stack([x, y]))[0] > 4 * fwhm
    x, y, steps, found = x[far], y[far], [], []
    for _ in range(int(np.ceil(500 / far.sum()))):
        step = rng.uniform(-0.7, 0.7, len(x))
        here = x + rng.uniform(-2, 2, len(x)), y + rng.uniform(-2, 2, len(x))
        light = field.light(*here, 10 ** (-0.4 * (result.limits.maglim + step - ZP)))
        image = field.image + (rng.poisson(light * GAIN) / GAIN).astype(np.float32)
        again = detect(image, np.zeros(image.shape, np.uint16), GAIN, parameters.DetectConfig(min_snr=0.5))
        tree = cKDTree(np.column_stack([again.objects["x"], again.objects["y"]]))
        distance, row = tree.query(np.column_stack(here))
        steps.append(step)
        # what is not seen at all has a low S/N
        found.append(np.where(distance < 0.7 * fwhm, np.asarray(again.objects["snr"])[row], 0))
    step, snr = np.concatenate(steps), np.concatenate(found)
    # what is detected, as if all that is brighter than the limit were and nothing else
    assert 1.4 * np.mean(snr > 5) - 0.7 == pytest.approx(0, abs=0.1)
    # the magnitude at which the median S/N is 5
    centers = np.array([-0.4, -0.2, 0.0, 0.2])
    median = [np.median(snr[np.abs(step - center) < 0.15]) for center in centers]
    assert np.interp(-5, -np.array(median), centers) == pytest.approx(0, abs=0.1)
    assert result.limits.maglim_noise == pytest.approx(result.limits.maglim, abs=0.1)


def stars_alone(fwhm=3.0, size=400, flux=5e4):
    x, y = (part.ravel() + 0.3 for part in np.meshgrid(np.arange(40, 380, 40.0), np.arange(40, 380, 40.0)))
    psf = Truth(fwhm, 3.2, 0.0, 0.0, (0.1, 0.0, 0.0), (0.0, 0.0))
    image = np.zeros((size, size), np.float32)
    render_points(image, x, y, np.full(len(x), flux), psf, 1e-3)
    image += np.random.default_rng(4).normal(0, 3, image.shape).astype(np.float32)
    return image, Table(
        {"x": x, "y": y, "flux": np.full(len(x), flux), "background": 0.0 * x, "level_err": 0.02 + 0 * x}
    )


def test_growth_holds_what_the_aperture_misses_where_the_psf_varies():
    image, stars = stars_alone()
    noise, bad = np.full(image.shape, 3.0, np.float32), np.zeros(image.shape, bool)
    value, error = growth(image, noise, bad, stars, 3.0, 3.0)
    fit = aperture_correction(stars["x"], stars["y"], stars["flux"], value, error, image.shape, 2)
    assert fit.order == 1
    field = Field.__new__(Field)
    field.size, field.psf, field.image = 400, Truth(3.0, 3.2, 0.0, 0.0, (0.1, 0.0, 0.0), (0.0, 0.0)), image
    for x in (60.3, 340.3):
        truth = 2.5 * np.log10(field.share(12.0, x) / field.share(3.0, x))
        row = np.abs(stars["x"] - x) < 21
        assert np.median(value[row]) == pytest.approx(truth, abs=0.012)
    assert fit.coefficients[0] == pytest.approx(2.5 * np.log10(field.share(12.0) / field.share(3.0)), abs=0.004)
    # neighbours of a tenth of the stars, and bad pixels, change little
    spoilt = image.copy()
    render_points(spoilt, stars["x"][::10] + 9, stars["y"][::10], np.full(9, 5e3), field.psf, 1e-3)
    bad[:, 150:152] = bad[80:82] = True
    again, error = growth(np.where(bad, 1e6, spoilt).astype(np.float32), noise, bad, stars, 3.0, 3.0)
    fit = aperture_correction(stars["x"], stars["y"], stars["flux"], again, error, image.shape, 2)
    assert fit.coefficients[0] == pytest.approx(np.median(value), abs=0.01)


def test_an_aperture_of_all_light_needs_no_correction():
    image, stars = stars_alone()
    noise, bad = np.full(image.shape, 3.0, np.float32), np.zeros(image.shape, bool)
    value, error = growth(image, noise, bad, stars, 3.0, 13.0)
    assert not value.any()
    assert not error.any()
    assert (
        aperture_correction(stars["x"][:2], stars["y"][:2], stars["flux"][:2], value[:2], error[:2], image.shape, 2)
        is None
    )
