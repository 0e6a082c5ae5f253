"""Kernels, convolutions and the matched filter against their definitions and known truth."""

import numpy as np
import pytest
from differences import matched_filter
from scipy import signal

from nightsift.image.convolve import Bank, convolve, convolve_varying
from nightsift.image.moffat import MoffatPsf as Truth
from nightsift.image.moffat import psf_stamps
from nightsift.psf.fit import WIDTHS, functions
from nightsift.psf.forced import forced
from nightsift.psf.model import Psf
from nightsift.subtract.delta import DeltaBasis
from nightsift.subtract.kernel import Basis, Kernel, KernelStamps, basis_for, fit_kernel
from nightsift.subtract.matched_filter import Noise

SHAPE = (900, 1100)
HALF = 10


def moffat(fwhm):
    return Truth(fwhm, 3.0, 0.05, 0.03, (0.0, 0.0, 0.0), (0.0, 0.0))


def positions(number, seed=1):
    return np.random.default_rng(seed).uniform(0, (SHAPE[1] - 1, SHAPE[0] - 1), (number, 2)).T


def gaussian(half, width, dx=0.0):
    v, u = np.mgrid[-half : half + 1, -half : half + 1]
    line = np.exp(-((u - dx) ** 2 + v**2) / (2 * width**2))
    return line / line.sum()


def known(basis, order):
    """A kernel of sum 0.7 that gets wider, and fainter, and moves from left to right."""
    shapes = [0.7 * gaussian(basis.half, basis.widths[1], 0.2), 0.05 * gaussian(basis.half, basis.widths[2], -0.5)]
    shapes.append(0.03 * gaussian(basis.half, basis.widths[1]) - 0.05 * gaussian(basis.half, basis.widths[0]))
    flat = basis.kernels.reshape(len(basis.kernels), -1).T
    terms = [np.linalg.lstsq(flat, shape.ravel(), rcond=None)[0] for shape in shapes]
    return Kernel(basis, np.stack(terms[: 1 if order == 0 else 3]), order, SHAPE)


def rendered(fwhm, x, y, flux, half):
    """Stamps of stars whose sub-pixel positions are those of `x` and `y`."""
    stamps, _, _ = psf_stamps(moffat(fwhm), x, y, SHAPE, half)
    return stamps.astype(float) * np.broadcast_to(flux, len(x))[:, None, None]


def convolved(kernel, source, x, y):
    """The stamps convolved with the kernel at their centres, by definition."""
    pairs = zip(source, x, y, strict=True)
    return np.stack([signal.convolve(stamp, kernel.at(*place), mode="valid") for stamp, *place in pairs])


def fitted(source, target, x, y, basis, sigma=1.0, max_order=2, clip=3.0):
    weight = np.full(target.shape, sigma**-2)
    return fit_kernel(KernelStamps(source, target, weight, x, y, SHAPE), basis, max_order, clip)


@pytest.mark.parametrize("basis", [Basis((0.7, 1.2, 2.0, 3.0), 7), DeltaBasis(7)])
def test_the_functions_convolve_like_their_kernels(basis):
    stamps = np.random.default_rng(1).normal(size=(2, 29, 25))
    found = basis.convolve(stamps)
    assert found.shape == (2, len(basis.kernels), 15, 11)
    for i, kernel in enumerate(basis.kernels):
        for stamp, result in zip(stamps, found[:, i], strict=True):
            np.testing.assert_allclose(result, signal.convolve(stamp, kernel, mode="valid"), atol=1e-10)


@pytest.mark.parametrize("size", [(64, 80), (101, 67)])
def test_an_image_is_convolved_as_by_scipy(size):
    rng = np.random.default_rng(2)
    image = rng.normal(size=size).astype(np.float32)
    kernels = [rng.normal(size=(2 * half + 1, 2 * half + 1)) for half in (0, 3, 6)]
    # In double precision: of two precisions scipy casts its output before writing it, and what happens to stand there
    # can be a signalling NaN, which makes a RuntimeWarning.
    truths = [signal.convolve(image.astype(float), kernel, mode="same") for kernel in kernels]
    for largest in (size, (110, 90)):
        for truth, found in zip(truths, Bank(kernels, largest)(image), strict=True):
            np.testing.assert_allclose(found, truth, atol=1e-4)


def test_a_varying_kernel_is_that_of_each_pixel():
    rng = np.random.default_rng(3)
    image = rng.normal(size=(40, 50)).astype(np.float32)
    basis = Basis((0.7, 1.2, 2.0, 3.0), 5)
    kernel = Kernel(basis, rng.normal(size=(6, len(basis.kernels))), 2, image.shape)
    found = convolve_varying(image, kernel.terms(), 2, image.shape)
    padded = np.pad(image, 5)
    for x, y in [(0, 0), (49, 0), (20, 31), (49, 39), (7, 12)]:
        around = padded[y : y + 11, x : x + 11]
        assert found[y, x] == pytest.approx(np.sum(around * kernel.at(x, y)[::-1, ::-1]), rel=1e-3, abs=1e-3)
        assert kernel.sums(np.array([x]), np.array([y]))[0] == pytest.approx(kernel.at(x, y).sum())


@pytest.mark.parametrize("order", [0, 1])
def test_a_kernel_is_recovered_exactly(order):
    basis = basis_for(2.5, 4.0)
    truth = known(basis, order)
    x, y = positions(60)
    source = rendered(2.5, x, y, 1e5, HALF + basis.half)
    fit = fitted(source, convolved(truth, source, x, y), x, y, basis, max_order=order)
    assert fit.kernel.order == order
    assert fit.used.mean() > 0.8
    for place in [(0, 0), (1099, 899), (500, 100), (1099, 0)]:
        expected = truth.at(*place)
        assert np.max(np.abs(fit.kernel.at(*place) - expected)) < 0.01 * expected.max()
        assert fit.kernel.at(*place).sum() == pytest.approx(expected.sum(), rel=1e-4)


def noisy(seed, number=60):
    """Stars of S/N 30 to 1000, and the same through an elliptical kernel that sums to 0.6, with noise of sigma 5."""
    rng = np.random.default_rng(seed)
    x, y = positions(number, seed)
    flux = np.exp(rng.uniform(np.log(2e3), np.log(6e4), number))
    basis = basis_for(2.5, 4.0)
    source = rendered(2.5, x, y, flux, HALF + basis.half)
    v, u = np.mgrid[-basis.half : basis.half + 1, -basis.half : basis.half + 1]
    kernel = np.exp(-((u - 0.3) ** 2) / (2 * 1.45**2) - (v + 0.1 * u) ** 2 / (2 * 1.2**2))
    target = np.stack([signal.convolve(stamp, 0.6 * kernel / kernel.sum(), mode="valid") for stamp in source])
    return basis, source, target + rng.normal(0, 5, target.shape), x, y


def test_the_kernel_sum_is_the_ratio_of_the_flux_scales():
    sums, masked, chi2 = [], [], []
    for seed in range(8):
        basis, source, target, x, y = noisy(100 + seed)
        fit = fitted(source, target, x, y, basis, 5.0)
        sums.append(fit.kernel.sums(500.0, 500.0))
        chi2.append(np.median(fit.chi2[fit.used]))
        weight = np.full(target.shape, 5.0**-2)
        weight[:, 4, 7:12] = 0
        target[:, 4, 7:12] = 1e6
        other = fit_kernel(KernelStamps(source, target, weight, x, y, SHAPE), basis, 2, 3.0)
        masked.append(other.kernel.sums(500.0, 500.0))
    np.testing.assert_allclose(sums, 0.6, rtol=0.012)  # 4 sigma
    assert np.mean(sums) == pytest.approx(0.6, rel=0.003)
    assert np.mean(masked) == pytest.approx(0.6, rel=0.003)
    assert np.mean(chi2) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(("fwhm", "limit"), [((2.5, 4.0), 0.003), ((3.0, 3.1), 0.003), ((1.8, 5.0), 0.003)])
def test_stars_with_wings_have_the_light_of_the_aperture(fwhm, limit):
    """No kernel of finite size turns one Moffat profile into another, but their apertures have to agree."""
    rng = np.random.default_rng(14)
    x, y = positions(60)
    basis = basis_for(*fwhm)
    flux = np.exp(rng.uniform(np.log(2e3), np.log(6e4), 60))
    source, target = rendered(fwhm[0], x, y, flux, HALF + 3 + basis.half), rendered(fwhm[1], x, y, 0.6 * flux, HALF + 3)
    fit = fitted(source, target + rng.normal(0, 5, target.shape), x, y, basis, 5.0)
    made = np.stack(
        [signal.convolve(stamp, fit.kernel.at(*at), mode="valid") for stamp, *at in zip(source, x, y, strict=True)]
    )
    v, u = np.mgrid[-HALF - 3 : HALF + 4, -HALF - 3 : HALF + 4]
    disc = np.hypot(u, v) <= fwhm[1]
    assert np.sum(made[:, disc]) / np.sum(target[:, disc]) == pytest.approx(1, abs=limit)


def test_a_constant_kernel_gets_no_order():
    orders = []
    for seed in range(10):
        basis, source, target, x, y = noisy(20 + seed)
        orders.append(fitted(source, target, x, y, basis, 5.0).kernel.order)
    assert np.mean(np.array(orders) == 0) >= 0.9


def test_a_kernel_that_varies_gets_its_order_despite_noise():
    basis = basis_for(2.5, 4.0)
    truth = known(basis, 1)
    x, y = positions(60)
    source = rendered(2.5, x, y, 5e4, HALF + basis.half)
    target = convolved(truth, source, x, y)
    target += np.random.default_rng(5).normal(0, 5, target.shape)
    fit = fitted(source, target, x, y, basis, 5.0)
    assert fit.kernel.order >= 1
    np.testing.assert_allclose(fit.kernel.sums(x, y), truth.sums(x, y), rtol=0.005)


def test_a_few_bright_stars_tell_of_a_variation_that_is_within_the_noise_of_the_many():
    """A galaxy of 30 sigma a pixel shows what the median star does not."""
    basis = basis_for(2.5, 4.0)
    truth = known(basis, 1)
    small = Kernel(basis, truth.coefficients * np.array([[1.0], [0.15], [0.15]]), 1, SHAPE)
    x, y = positions(150)
    flux = np.where(np.arange(150) < 30, 5e4, 2e3)
    source = rendered(2.5, x, y, flux, HALF + basis.half)
    clean = convolved(small, source, x, y)
    for seed in range(4):
        fit = fitted(source, clean + np.random.default_rng(seed).normal(0, 5, clean.shape), x, y, basis, 5.0)
        assert fit.kernel.order >= 1
        left = convolved(fit.kernel, source[:30], x[:30], y[:30]) - clean[:30]
        assert np.std(left.sum(axis=(1, 2)) / clean[:30].sum(axis=(1, 2))) < 0.004


def test_free_pixels_find_a_kernel_that_no_gaussians_make():
    """A ring, displaced: its shape, its sum, and stars that were not fitted."""
    basis = DeltaBasis(6)
    v, u = np.mgrid[-6:7, -6:7]
    ring = np.exp(-((np.hypot(u - 0.5, v + 0.4) - 3) ** 2) / 1.5)
    ring *= 0.6 / ring.sum()
    x, y = positions(60)
    flux = np.exp(np.random.default_rng(1).uniform(np.log(2e3), np.log(6e4), 60))
    source = rendered(2.5, x, y, flux, HALF + basis.half)
    target = np.stack([signal.convolve(stamp, ring, mode="valid") for stamp in source])
    noise = np.random.default_rng(2).normal(0, 5, target.shape)
    fit = fitted(source, target + noise, x, y, basis, 5.0, max_order=1)
    assert fit.kernel.order == 0
    assert fit.kernel.at(500, 500).sum() == pytest.approx(0.6, rel=0.005)
    made = np.stack([signal.convolve(stamp, fit.kernel.at(500, 500), mode="valid") for stamp in source])
    assert np.std(made - target) < 0.6 * 5  # the errors of 169 pixels are more than those of 3 numbers
    assert np.median(fit.chi2[fit.used]) == pytest.approx(1, abs=0.1)
    other = fitted(source, target + noise, x, y, Basis((0.7, 1.2, 2.0, 3.0), 6), 5.0, max_order=0)
    assert np.std(fit.kernel.at(500, 500) - ring) < np.std(other.kernel.at(500, 500) - ring)


def test_a_penalty_makes_the_kernel_smooth_and_held_out_stars_want_one():
    basis, faint = DeltaBasis(6), 0.3
    _, source, target, x, y = noisy(31)
    source = rendered(2.5, x, y, source.sum(axis=(1, 2)) * faint, HALF + basis.half)
    v, u = np.mgrid[-6:7, -6:7]
    kernel = np.exp(-((u - 0.3) ** 2 + v**2) / (2 * 1.4**2))
    truth = np.stack([signal.convolve(stamp, 0.6 * kernel / kernel.sum(), mode="valid") for stamp in source])
    target = truth + np.random.default_rng(5).normal(0, 5, truth.shape)
    fit = fitted(source, target, x, y, basis, 5.0, max_order=0)
    free = DeltaBasis(6)
    object.__setattr__(free, "strengths", (1e-12,))
    rough = fitted(source, target, x, y, free, 5.0, max_order=0)
    assert fit.strength > min(basis.strengths)
    errors = [np.std(one.kernel.at(500, 500) - 0.6 * kernel / kernel.sum()) for one in (fit, rough)]
    assert errors[0] < 0.5 * errors[1]


def test_stars_on_a_line_show_in_the_condition_of_the_spatial_terms():
    basis = basis_for(2.5, 4.0)
    truth = known(basis, 1)
    conditions = []
    for line in (False, True):
        x, y = positions(60)
        y = 300 + 1e-2 * y if line else y
        source = rendered(2.5, x, y, 5e4, HALF + basis.half)
        fit = fitted(source, convolved(truth, source, x, y), x, y, basis, max_order=1)
        assert fit.kernel.order == 1
        conditions.append(fit.spatial_condition)
    assert conditions[0] < 10
    assert conditions[1] > 1e4


def test_variable_stars_are_rejected():
    basis, source, target, x, y = noisy(6)
    bright = np.argsort(-source.sum(axis=(1, 2)))[:40]
    variable = np.random.default_rng(7).choice(bright, 6, replace=False)
    target[variable[:4]] *= 1.4
    target[variable[4:]] *= 0.7
    fit = fitted(source, target, x, y, basis, 5.0)
    assert not fit.used[variable].any()
    assert fit.used.sum() >= 48
    np.testing.assert_allclose(fit.kernel.sums(x, y), 0.6, rtol=0.003)
    assert fit.kernel.order == 0


def test_the_background_of_a_stamp_does_not_matter():
    basis, source, target, x, y = noisy(8)
    clean = fitted(source, target, x, y, basis, 5.0)
    offsets = np.random.default_rng(9).normal(0, 300, (2, len(x), 1, 1))
    other = fitted(source + offsets[0], target + offsets[1], x, y, basis, 5.0)
    np.testing.assert_allclose(other.kernel.at(500, 500), clean.kernel.at(500, 500), atol=1e-6)


# The matched filter


def profile(fwhm=3.0, half=5):
    return psf_stamps(moffat(fwhm), np.array([50.0]), np.array([50.0]), (101, 101), half)[0][0].astype(float)


def gaussian_psf(fwhm, shape):
    number = functions(np.zeros(1), np.zeros(1), fwhm).shape[0]
    first = sum((degree + 1) * (degree + 2) // 2 for scale, degree in WIDTHS if scale < 1)
    return Psf(np.eye(1, number, first), fwhm, shape, 0, fwhm)


def scenes(seed, size=400):
    """White noise of sigma 4 to 6, smoothed noise of sigma 7, their variances, and the kernel."""
    rng = np.random.default_rng(seed)
    kernel = 1.3 * gaussian(6, 1.4)
    sigma = np.broadcast_to(np.linspace(4, 6, size, dtype=np.float32), (size, size))
    white = (rng.normal(size=(size, size)) * sigma).astype(np.float32)
    smoothed = convolve(rng.normal(0, 7, (size, size)), kernel)
    return white, sigma**2, smoothed, np.full((size, size), 49, np.float32), kernel


def filtered(data, variance, noise, usable=None):
    usable = np.ones(data.shape, bool) if usable is None else usable
    return matched_filter(data, usable, variance.astype(np.float32), noise, profile())


def white_noise(variance):
    nothing = np.zeros_like(variance)
    return Noise(variance, nothing, gaussian(6, 1.4), ())


def inner(snr, margin=15):
    return snr[margin:-margin, margin:-margin]


@pytest.mark.parametrize("kind", ["white", "smoothed", "both"])
def test_the_significance_of_noise_is_that_of_a_unit_gaussian(kind):
    means, widths = [], []
    for seed in range(4):
        white, variance, smoothed, before, kernel = scenes(seed)
        nothing = np.zeros_like(before)
        parts = {
            "white": (white, variance, nothing),
            "smoothed": (smoothed, nothing, before),
            "both": (white + smoothed, variance, before),
        }
        data, plain, hidden = parts[kind]
        total = plain + convolve(hidden, kernel**2)
        snr = inner(filtered(data, total, Noise(plain, hidden, kernel, ())).snr)
        means.append(snr.mean())
        widths.append(snr.std())
    assert abs(np.mean(means)) < 0.03
    assert np.mean(widths) == pytest.approx(1, abs=0.02)


def test_the_peak_of_a_source_is_the_ideal_significance():
    psf = profile()
    for sigma in (2.0, 9.0):
        image = np.zeros((101, 101), np.float32)
        image[45:56, 45:56] = 1000 * psf
        variance = np.full(image.shape, sigma**2, np.float32)
        found = filtered(image, variance, white_noise(variance))
        ideal = 1000 * np.sqrt(np.sum(psf**2)) / sigma
        assert found.snr.max() == pytest.approx(ideal, rel=1e-3)
        assert np.unravel_index(found.snr.argmax(), image.shape) == (50, 50)
        assert np.median(found.correlation) == pytest.approx(1, abs=1e-3)


def test_the_filter_turns_the_psf_the_right_way():
    lopsided = np.zeros((11, 11))
    lopsided[4:7, 4:9] = [[1, 2, 1, 1, 0], [2, 5, 3, 2, 1], [1, 2, 2, 1, 0]]
    lopsided /= lopsided.sum()
    image = np.zeros((61, 61), np.float32)
    image[25:36, 25:36] = 500 * lopsided
    variance = np.ones_like(image)
    snr = matched_filter(image, variance > 0, variance, white_noise(variance), lopsided).snr
    assert np.unravel_index(snr.argmax(), snr.shape) == (30, 30)
    assert snr.max() == pytest.approx(500 * np.sqrt(np.sum(lopsided**2)), rel=1e-3)


def test_masked_pixels_do_not_count_in_the_filter():
    white, variance, *_ = scenes(11)
    usable = np.random.default_rng(12).random(white.shape) > 0.15
    usable[200:240, 200:240] = False
    spoilt = np.where(usable, white, 1e5).astype(np.float32)
    found = filtered(spoilt, variance, white_noise(variance), usable)
    assert inner(found.snr)[inner(usable)].std() == pytest.approx(1, abs=0.03)
    assert np.abs(found.snr).max() < 6
    assert np.abs(found.snr[212:228, 212:228]).max() < 0.01


def test_what_a_subtraction_leaves_of_stars_lowers_their_significance():
    psf = profile()
    star = np.zeros((101, 101), np.float32)
    star[45:56, 45:56] = 1e5 * psf
    variance = np.full(star.shape, 25, np.float32)
    noise = white_noise(variance)
    careful = Noise(noise.white, noise.smoothed, noise.kernel, (0.01 * star,))
    assert filtered(0.01 * star, variance, noise).snr.max() > 30
    assert filtered(0.01 * star, variance, careful).snr[50, 50] < 1.05
    assert filtered(0.01 * star, variance, careful).snr[5, 5] == pytest.approx(0, abs=1e-3)


def test_flux_errors_of_smoothed_noise_need_the_correlation():
    """The factor that the filter returns makes the pulls of PSF fluxes those of a unit Gaussian."""
    white, variance, smoothed, before, kernel = scenes(13)
    total = (variance + convolve(before, kernel**2)).astype(np.float32)
    data = white + smoothed
    found = filtered(data, total, Noise(variance, before, kernel, ()))
    y, x = (part.ravel() for part in np.mgrid[20:380:9, 20:380:9].astype(float))
    psf = gaussian_psf(3.0, data.shape)
    fluxes = forced(data, np.sqrt(total), np.zeros(data.shape, bool), psf, x, y)
    pull = fluxes.flux / fluxes.fluxerr
    assert pull.std() > 1.2
    assert (pull / np.median(found.correlation)).std() == pytest.approx(1, abs=0.06)
