"""Proper subtraction against noise, stars and sources that are known."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from nightsift.image.moffat import MoffatPsf as Truth
from nightsift.image.moffat import psf_stamps
from nightsift.simulate.pixels import render_points
from nightsift.subtract.proper_subtraction import ProperLayer, zogy

SHAPE = (601, 640)
SIGMA, GAIN = 10.0, 4.0
REFERENCE_SIGMA, REFERENCE_GAIN, RATIO = 6.0, 17.0, 1.7
PAIRS = [(3.5, 2.4), (2.4, 3.5), (3.0, 3.0)]
VARYING = {"scale": (0.10, 0.06, 0.05), "twist": (0.12, 0.10)}


def moffat(fwhm, e1=0.04, scale=(0.0, 0.0, 0.0), twist=(0.0, 0.0)):
    return Truth(fwhm, 3.0, e1, 0.02, scale, twist)


@dataclass(frozen=True)
class Known:
    """The true PSF, centred, with the method that the subtraction asks for."""

    truth: Truth
    shape: tuple

    def stamp(self, x, y, half):
        fixed = Frozen(self.truth.covariance(np.array([x]), np.array([y]), self.shape), self.truth.beta)
        return psf_stamps(fixed, np.zeros(1), np.zeros(1), self.shape, half)[0][0].astype(float)


@dataclass(frozen=True)
class Frozen:
    """A profile that is everywhere as it is at one place."""

    elements: tuple
    beta: float

    def covariance(self, x, y, shape):
        return self.elements


def layer(data, truth, sigma, gain=None):
    level = np.broadcast_to(np.float32(sigma), data.shape)
    return ProperLayer(data.astype(np.float32), level, np.zeros(data.shape, bool), Known(truth, data.shape), gain)


def noise(seed, sigma, shape=SHAPE):
    return np.random.default_rng(seed).normal(0, sigma, shape)


def empty(pair, seed=1, shape=SHAPE, **shapes):
    new = layer(noise([seed, 1], SIGMA, shape), moffat(pair[0], **shapes), SIGMA, GAIN)
    return new, layer(noise([seed, 2], REFERENCE_SIGMA, shape), moffat(pair[1], -0.03), REFERENCE_SIGMA, REFERENCE_GAIN)


def difference(result):
    return result.filtered_new - result.filtered_reference


def correlations(data):
    data = data - data.mean()
    return np.array([np.mean(data[:, 1:] * data[:, :-1]), np.mean(data[1:] * data[:-1])]) / data.var()


def unit_flux(psf):
    """Flux for a S/N of 1 in the new image."""
    return SIGMA / np.sqrt(np.sum(psf.stamp(0, 0, 15) ** 2))


def grid(step, shape=SHAPE, rim=30):
    y, x = (part.ravel().astype(float) for part in np.mgrid[rim : shape[0] - rim : step, rim : shape[1] - rim : step])
    return x, y


def fluxes(image, result, x, y, half=12):
    """Least-squares fluxes at whole pixels with the difference's PSF."""
    out = []
    for column, row in zip(x.astype(int), y.astype(int), strict=True):
        psf = result.psf(column, row, half)
        part = image[row - half : row + half + 1, column - half : column + half + 1]
        out.append(np.sum(psf * part) / np.sum(psf**2))
    return np.array(out)


@pytest.mark.parametrize("pair", PAIRS)
def test_the_noise_is_white_and_of_the_stated_variance(pair):
    result = zogy(*empty(pair), RATIO, 0.05)
    expected = SIGMA**2 + (REFERENCE_SIGMA / RATIO) ** 2
    np.testing.assert_allclose(result.variance, expected, rtol=1e-4)
    inner = difference(result)[20:-20, 20:-20]
    assert np.abs(correlations(inner)).max() < 0.01
    assert inner.var() == pytest.approx(expected, rel=0.02)
    spectrum = np.abs(np.fft.rfft2(inner)) ** 2
    assert spectrum[:150, 5:150].mean() == pytest.approx(spectrum[200:350, 200:].mean(), rel=0.03)
    for score in (result.s, result.s_corr):
        assert score.std() == pytest.approx(1, abs=0.03)
        assert abs(np.median(score)) < 0.05


@pytest.mark.parametrize("pair", PAIRS)
def test_the_flux_of_new_sources_closes_and_old_ones_vanish(pair):
    shape = SHAPE
    new, reference = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    rng = np.random.default_rng(2)
    x, y = rng.uniform(-20, 660, (2, 300))
    flux = rng.uniform(1e3, 1e5, 300)
    sharp, blurred = moffat(pair[0], **VARYING), moffat(pair[1], -0.03)
    render_points(new, x, y, flux, sharp, 0.001)
    render_points(reference, x, y, RATIO * flux, blurred, 0.001)
    static = new.copy()
    u, v = grid(45)
    render_points(new, u, v, np.full(u.size, 1e4), sharp, 0.001)
    one, other = layer(new, sharp, SIGMA), layer(reference, blurred, REFERENCE_SIGMA)
    result = zogy(one, other, RATIO, tile=300)
    left = difference(zogy(replace(one, data=static), other, RATIO, tile=300))
    measured = fluxes(difference(result) - left, result, u, v)
    np.testing.assert_allclose(measured, 1e4, rtol=0.005)
    assert np.mean(measured) == pytest.approx(1e4, rel=0.002)
    assert np.abs(left[20:-20, 20:-20]).max() < 0.005 * static.max()


def test_the_psf_of_the_difference_is_that_of_a_filtered_star():
    new = np.zeros(SHAPE, np.float32)
    render_points(new, np.array([300.0]), np.array([250.0]), np.array([1.0]), moffat(3.5, **VARYING), 1e-9)
    nothing = layer(np.zeros(SHAPE), moffat(2.4), REFERENCE_SIGMA)
    result = zogy(layer(new, moffat(3.5, **VARYING), SIGMA), nothing, RATIO)
    psf = result.psf(300, 250, 15)
    star = result.filtered_new[235:266, 285:316]
    assert np.abs(star - psf).max() < 0.005 * psf.max()
    np.testing.assert_allclose(result.psf(300, 250, 40)[25:-25, 25:-25], psf, atol=1e-6 * psf.max())
    assert result.psf(0, 0, 50).shape == (101, 101)


@pytest.mark.parametrize("pair", PAIRS[:2])
def test_the_corrected_score_is_a_unit_gaussian_beside_bright_stars_that_jitter(pair):
    jitter, scores = 0.05, []
    for seed in range(3):
        rng = np.random.default_rng([seed, 3])
        x, y = (part + rng.uniform(-0.5, 0.5, part.size) for part in grid(34))
        new, reference = np.zeros(SHAPE, np.float32), np.zeros(SHAPE, np.float32)
        sharp, blurred = moffat(pair[0]), moffat(pair[1], -0.03)
        flux = unit_flux(Known(sharp, SHAPE)) * np.exp(rng.uniform(np.log(100), np.log(1000), x.size))
        shifted = [part + rng.normal(0, jitter, part.size) for part in (x, y)]
        render_points(new, *shifted, flux, sharp, 0.01)
        render_points(reference, x, y, RATIO * flux, blurred, 0.01)
        new = rng.poisson(new * GAIN) / GAIN + rng.normal(0, SIGMA, SHAPE)
        reference = rng.poisson(reference * REFERENCE_GAIN) / REFERENCE_GAIN + rng.normal(0, REFERENCE_SIGMA, SHAPE)
        one, other = layer(new, sharp, SIGMA, GAIN), layer(reference, blurred, REFERENCE_SIGMA, REFERENCE_GAIN)
        result = zogy(one, other, RATIO, jitter)
        offset = np.arange(-8, 9)
        column, row = (
            np.rint(x).astype(int)[:, None, None] + offset,
            np.rint(y).astype(int)[:, None, None] + offset[:, None],
        )
        scores.append(result.s_corr[row, column])
        assert result.s[row, column].std() > 1.5
        still = zogy(one, other, RATIO, 0.0).s_corr[row, column]
        assert still.std() > 1.3
    scores = np.concatenate(scores)
    assert abs(np.median(scores)) < 0.05
    assert scores.std() == pytest.approx(1, abs=0.03)
    assert np.abs(scores).max() < 6


def test_tiles_leave_no_seams():
    new, reference = empty((3.5, 2.4))
    x, y = grid(61)
    flux = unit_flux(new.psf) * np.exp(np.random.default_rng(5).uniform(2, 7, x.size))
    render_points(new.data, x, y, flux, new.psf.truth, 0.01)
    render_points(reference.data, x, y, RATIO * flux, reference.psf.truth, 0.01)
    small, large = zogy(new, reference, RATIO, 0.05, tile=192), zogy(new, reference, RATIO, 0.05, tile=4096)
    assert len(small.x) > 5
    assert len(large.x) == 2
    sigma = np.sqrt(large.variance)
    assert np.abs((difference(small) - difference(large)) / sigma).max() < 1e-3
    for name in ("s", "s_corr"):
        assert np.abs(getattr(small, name) - getattr(large, name)).max() < 1e-3


def test_varying_psfs_leave_no_steps():
    """Layouts of tiles whose edges are at different places agree everywhere, on noise and on stars."""
    new, reference = empty((3.5, 2.4), **VARYING)
    first, second = zogy(new, reference, RATIO, tile=192), zogy(new, reference, RATIO, tile=256)
    off = (difference(first) - difference(second)) / np.sqrt(first.variance)
    assert np.abs(off).max() < 0.05
    assert off.std() < 0.005


def test_variances_that_vary_are_followed():
    shape = (500, 500)
    slope = np.linspace(6, 14, 500)[None].astype(np.float32)
    new, reference = empty((3.5, 2.4), shape=shape)
    data = (noise(6, 1.0, shape) * slope).astype(np.float32)
    result = zogy(replace(new, data=data, noise=np.broadcast_to(slope, shape)), reference, RATIO, 0.05)
    pull = difference(result) / np.sqrt(result.variance)
    for part in np.array_split(np.arange(500), 4):
        assert pull[:, part].std() == pytest.approx(1, abs=0.02)
        assert result.s_corr[:, part].std() == pytest.approx(1, abs=0.04)


def test_bad_pixels_spoil_only_their_surroundings():
    new, reference = empty((3.5, 2.4))
    bad = np.zeros(SHAPE, bool)
    bad[200:300, 200:420] = True
    bad[:, 500] = True
    holed = replace(
        new,
        data=np.where(bad, 0, new.data),
        noise=np.where(bad, 1e6, new.noise).astype(np.float32),
        bad=bad,
    )
    result, whole = zogy(holed, reference, RATIO, 0.05, tile=200), zogy(new, reference, RATIO, 0.05, tile=200)
    for plane in (result.filtered_new, result.filtered_reference, result.variance, result.s, result.s_corr):
        assert np.isfinite(plane).all()
        assert plane.dtype == np.float32
    far = np.s_[:150, :450]
    np.testing.assert_allclose(difference(result)[far], difference(whole)[far], atol=1e-3)
    nothing = replace(holed, data=np.zeros(SHAPE, np.float32), bad=np.ones(SHAPE, bool))
    assert np.isfinite(zogy(nothing, reference, RATIO, 0.05).s_corr).all()


@pytest.mark.parametrize("shape", [(65, 97), (40, 33), (24, 70), (257, 512)])
def test_any_shape_will_do(shape):
    new, reference = empty((3.5, 2.4), shape=shape)
    result = zogy(new, reference, RATIO, 0.05)
    for plane in (result.filtered_new, result.filtered_reference, result.variance, result.s, result.s_corr):
        assert plane.shape == shape
        assert np.isfinite(plane).all()
    turned = [replace(each, data=each.data.T, noise=each.noise.T, bad=each.bad.T) for each in (new, reference)]
    assert zogy(*turned, RATIO).filtered_new.shape == shape[::-1]


def test_the_scale_of_the_data_does_not_matter():
    new, reference = empty((3.5, 2.4), shape=(120, 150))
    new.data[60, 60] = 1e4
    plain = zogy(new, reference, RATIO, 0.05)
    unit = np.float32(1e-9)
    tiny = replace(new, data=new.data * unit, noise=new.noise * unit, gain=GAIN / 1e-9)
    result = zogy(tiny, reference, RATIO * 1e9, 0.05)
    np.testing.assert_allclose(result.s_corr, plain.s_corr, atol=2e-3)
    np.testing.assert_allclose(difference(result) / unit, difference(plain), atol=0.02)


def test_without_jitter_there_is_no_score():
    result = zogy(*empty((3.5, 2.4), shape=(80, 80)), RATIO)
    assert result.s is None
    assert result.s_corr is None
