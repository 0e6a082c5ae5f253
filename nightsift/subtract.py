"""Stage `subtract`: match the template to the image, or the image to the template, and take the difference."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import sep
from astropy.table import Table
from scipy import ndimage

from nightsift import parameters
from nightsift.background import background
from nightsift.convolve import Convolver, convolve_varying
from nightsift.errors import Rejected
from nightsift.kernel import KernelFit, basis_for, fit_kernel
from nightsift.matchedfilter import Noise, matched_filter
from nightsift.planes import Flag, Mask
from nightsift.polynomial import design, lines, powers
from nightsift.psf import Psf, fit_psf, forced
from nightsift.seeing import star_width, widths
from nightsift.skysources import sky_sources
from nightsift.stamps import crowded, spread, stamps
from nightsift.template import PAD

SPOILT = (
    Flag.SATURATED | Flag.COSMIC | Flag.APERTURE_MASKED | Flag.APERTURE_INCOMPLETE | Flag.ANNULUS_BAD | Flag.TRUNCATED
)
HIDDEN = Mask.NONFINITE | Mask.OUTSIDE | Mask.USER | Mask.BADLINE | Mask.COSMIC
MIN_STAMPS = 5
ENOUGH = 25  # stars, for which fainter ones are not needed
FAINT_SNR = 8.0  # of the stars that are taken where the bright ones are not enough
STAMP_SNR = 20.0
MIN_SEEN = 0.3  # share of the image's brightest stars that a template of the same field shows
MESH = 64
SKY_SIGMA = (0.7, 1.4)  # beyond it, errors and S/N of a difference mean nothing
MIN_SCATTER = 0.003  # no two images agree better on a star's flux
LEAK = 0.05  # share of the kernel's weight on bad pixels that makes a pixel of the difference bad
RELATIVE_FLOOR = 0.01  # of a star's light, so that the fit is not the brightest star's alone


@dataclass(frozen=True)
class Exposure:
    """A science image and what is known of it.

    Attributes
    ----------
    data : 2-D float32 array
        Image, ADU.
    mask : 2-D integer array
        `nightsift.planes.Mask` bits.
    gain : float or None
        e-/ADU.
    fwhm, aperture : float
        FWHM and radius of the calibration aperture, pixels.
    """

    data: np.ndarray
    mask: np.ndarray
    gain: float | None
    fwhm: float
    aperture: float


@dataclass(frozen=True)
class Reference:
    """A template on the image's pixels and `PAD` more on each side: see `nightsift.template.Template`."""

    data: np.ndarray
    noise: np.ndarray
    mask: np.ndarray


@dataclass(frozen=True)
class Difference:
    """A difference image on the flux scale of the science image.

    Attributes
    ----------
    data, sigma, snr : 2-D float32 arrays
        Difference and standard deviation of its pixels (ADU), S/N of a point source at each pixel.
    mask : 2-D uint16 array
        `nightsift.planes.Mask` bits.
    model : 2-D float32 array
        What was subtracted, on the flux scale of the image.
    psf : Psf
        Of the difference.
    facts : dict
        Quality: direction, stamps, orders, chi2, kernel sum, residual of the stars, noise factors.
    warnings : tuple of str
    """

    data: np.ndarray
    sigma: np.ndarray
    snr: np.ndarray
    mask: np.ndarray
    model: np.ndarray
    psf: Psf
    facts: dict
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Layer:
    """One of the two images, framed: background-subtracted data, variance of the sky, photons an ADU, bad pixels."""

    data: np.ndarray
    variance: np.ndarray
    bad: np.ndarray
    fwhm: float
    gain: float | None = field(default=None)


def subtract(exposure: Exposure, reference: Reference, objects: Table, params: parameters.Subtract) -> Difference:
    """Subtract a template from an image.

    Parameters
    ----------
    exposure : Exposure
    reference : Reference
    objects : Table
        Schema ``detections`` (or ``objects``) of the image.
    params : parameters.Subtract

    Raises
    ------
    Rejected
        If too few stars are common to both, or if fluxes at empty places contradict their errors.
    """
    sky = background(exposure.data, exposure.mask != 0, MESH)
    # What a kernel may smear a little of must not be garbage; saturated cores are nearer to the truth than 0.
    hidden = (exposure.mask & int(HIDDEN)) != 0
    clean = np.where(hidden, 0, exposure.data - sky.level).astype(np.float32)
    image = _Layer(
        _framed(clean), _framed(sky.noise**2, "edge"), _framed(exposure.mask != 0, True), exposure.fwhm, exposure.gain
    )
    candidates = _stars(objects, exposure, reference)
    width = _width(reference, candidates, exposure.fwhm)
    template = _Layer(reference.data, reference.noise**2, reference.mask != 0, width)
    forward = width <= exposure.fwhm
    source, target = (template, image) if forward else (image, template)
    fit = _match(source, target, candidates, params)
    stars = candidates[fit.used]
    result = _difference(source, target, fit, forward)
    psf = _psf(exposure, target, stars, fit, forward)
    result, ratio = _rescaled(result, candidates, psf, np.sqrt(target.variance))
    return _with_noise(exposure, reference, result, fit, stars, psf, ratio, forward)


def _framed(data, how=0):
    if how == "edge":
        return np.pad(data, PAD, mode="edge")
    return np.pad(data, PAD, constant_values=how)


def _core(data):
    return data[PAD:-PAD, PAD:-PAD]


def _stars(objects: Table, exposure: Exposure, reference: Reference) -> Table:
    """Objects that may serve as stamps: bright, unharmed in both images."""
    column = np.clip(np.rint(objects["x"]).astype(int), 0, exposure.mask.shape[1] - 1)
    row = np.clip(np.rint(objects["y"]).astype(int), 0, exposure.mask.shape[0] - 1)
    harmed = ndimage.maximum_filter(_core(reference.mask) != 0, 2 * int(np.ceil(exposure.fwhm)) + 1)
    good = (np.asarray(objects["flags"]) & int(SPOILT)) == 0
    good &= ~harmed[row, column]
    bright = good & (np.asarray(objects["snr"]) > STAMP_SNR)
    good = bright if bright.sum() >= ENOUGH else good & (np.asarray(objects["snr"]) > FAINT_SNR)
    alone = ~crowded(objects["x"], objects["y"], objects["flux"], 3 * exposure.fwhm, 0.05)
    stars = objects[good]
    stars["alone"] = alone[good]
    if len(stars) < MIN_STAMPS:
        raise Rejected(f"only {len(stars)} unharmed stars of S/N > {FAINT_SNR:g}, fewer than {MIN_STAMPS}")
    seen, steady = _compared(stars, reference, exposure.fwhm)
    brightest = np.argsort(-np.asarray(stars["snr"]))[: max(2 * MIN_STAMPS, len(stars) // 2)]
    if seen.sum() < MIN_STAMPS or seen[brightest].mean() < MIN_SEEN:
        raise Rejected(
            f"the template shows {seen[brightest].sum()} of the image's {len(brightest)} brightest stars:"
            " is it of another field or passband, or much shallower?"
        )
    return stars[seen & steady]


def _compared(stars: Table, reference: Reference, fwhm: float) -> tuple[np.ndarray, np.ndarray]:
    """Tell which stars the template shows, too (above 5 sigma, and peaked), and which are about as bright in both."""
    x, y = np.asarray(stars["x"], float) + PAD, np.asarray(stars["y"], float) + PAD
    light, error, _ = sep.sum_circle(reference.data, x, y, fwhm, err=reference.noise)
    around, _, _ = sep.sum_circann(reference.data, x, y, 1.5 * fwhm, 2.5 * fwhm)
    seen = (light > 5 * error) & (light > around / 4)  # a flat sky has 4 times as much in the ring
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.log(np.asarray(stars["flux"]) / light)
        width = np.hypot(1 / np.asarray(stars["snr"]), error / light)
    off = np.abs(ratio - np.median(ratio[seen])) if seen.any() else ratio
    scatter = 1.4826 * np.median(off[seen]) if seen.any() else 0.0
    return seen, off < 3 * np.hypot(width, max(scatter, 0.05))


def _width(reference: Reference, stars: Table, guess: float) -> float:
    narrow = np.abs(np.asarray(stars["fwhm"]) / guess - 1) < 0.25
    points = stars[narrow] if narrow.sum() >= 3 else stars
    found = widths(reference.data, points["x"] + PAD, points["y"] + PAD, guess, reference.mask != 0)
    found = found[np.isfinite(found) & (found > 0.5)]
    if not len(found):
        raise Rejected("the template shows none of the image's stars: are its WCS and the image's right?")
    return star_width(found)


def _match(source: _Layer, target: _Layer, stars: Table, params: parameters.Subtract) -> KernelFit:
    """Fit the kernel to stamps of the stars."""
    basis = basis_for(source.fwhm, target.fwhm)
    half = int(np.ceil(2.8 * max(source.fwhm, target.fwhm))) + 1
    chosen = np.sort(spread(stars["x"], stars["y"], -np.asarray(stars["snr"]), source.data.shape, params.max_stamps))
    column, row = np.rint(stars["x"]).astype(int) + PAD, np.rint(stars["y"]).astype(int) + PAD
    wide = stamps(source.data, column[chosen], row[chosen], half + basis.half)
    value = stamps(target.data, column[chosen], row[chosen], half)
    photons = np.maximum(value, 0) / target.gain if target.gain else 0.0
    variance = stamps(target.variance, column[chosen], row[chosen], half, 1.0) + photons
    variance = variance + (RELATIVE_FLOOR * np.maximum(value, 0)) ** 2
    spoilt = stamps(target.bad, column[chosen], row[chosen], half, True)
    spoilt = spoilt | stamps(source.bad, column[chosen], row[chosen], half, True)
    fit = fit_kernel(
        wide,
        value,
        np.where(spoilt, 0, 1 / variance),
        stars["x"][chosen],
        stars["y"][chosen],
        tuple(side - 2 * PAD for side in source.data.shape),
        basis,
        params.kernel_order,
        params.clip,
    )
    used = np.zeros(len(stars), bool)
    used[chosen[fit.used]] = True
    if used.sum() < MIN_STAMPS:
        raise Rejected(f"the kernel fits only {used.sum()} of {len(chosen)} stars")
    return replace(fit, used=used, chi2=fit.chi2[fit.used], residual=fit.residual[fit.used])


@dataclass(frozen=True)
class _Raw:
    """Difference before the noise: what was convolved, scale to the image's flux, spoilt pixels."""

    data: np.ndarray
    model: np.ndarray
    scale: np.ndarray
    bad: np.ndarray
    white: np.ndarray
    smoothed: np.ndarray


def _difference(source: _Layer, target: _Layer, fit: KernelFit, forward: bool) -> _Raw:
    kernel = fit.kernel
    convolved = convolve_varying(source.data, kernel.terms(), kernel.order, kernel.shape, PAD)
    if forward:
        scale = np.ones((1, 1), np.float32)
        data, model = target.data - convolved, convolved
    else:
        x = np.linspace(0, kernel.shape[1] - 1, 33)
        y = np.linspace(0, kernel.shape[0] - 1, 33)
        grid = kernel.sums(*(axis.ravel() for axis in np.meshgrid(x, y))).reshape(33, 33)
        zoom = [side / 33 for side in source.data.shape]
        scale = (1 / ndimage.zoom(grid, zoom, order=1, mode="nearest", grid_mode=True)).astype(np.float32)
        data, model = (convolved - target.data) * scale, target.data * scale
    size = np.abs(kernel.at(kernel.shape[1] / 2, kernel.shape[0] / 2))
    leak = Convolver(source.bad.astype(np.float32), kernel.half)(size / size.sum())
    bad = (leak > LEAK) | target.bad
    return _Raw(data, model, scale, bad, target.variance * scale**2, source.variance * scale**2)


@dataclass(frozen=True)
class _Ratio:
    """Flux of the stars in the difference over that in what was subtracted: median, and scatter beyond the noise."""

    median: float
    scatter: float


def _rescaled(raw: _Raw, stars: Table, psf: Psf, noise) -> tuple[_Raw, _Ratio]:
    """Scale what is subtracted so that stars vanish in the median, as a function of position.

    Least squares with noise (and interpolation errors) in what is convolved underrate the kernel's sum; the fluxes of
    the stars do not suffer from that.
    """
    x, y = np.asarray(stars["x"], float), np.asarray(stars["y"], float)
    bad, sigma = _core(raw.bad), _core(noise) * (1 if raw.scale.size == 1 else _core(raw.scale))
    left = forced(_core(raw.data), sigma, bad, psf, x, y)
    whole = forced(_core(raw.model), sigma, bad, psf, x, y)
    ratio, error = left.flux / whole.flux, left.fluxerr / np.abs(whole.flux)
    good = np.isfinite(ratio) & (whole.flux > 0) & (np.abs(ratio) < 0.5)
    if good.sum() < max(MIN_STAMPS, 0.3 * len(good)):
        raise Rejected(f"only {good.sum()} stars have about the same flux in image and template")
    order = 0 if good.sum() < 30 else 1 if good.sum() < 100 else 2
    shape = sigma.shape
    terms = design(x, y, shape, order)
    scatter, used = 0.05, good
    for _ in range(6):
        weight = 1 / np.hypot(error[used], scatter)
        solution = np.linalg.lstsq(terms[used] * weight[:, None], ratio[used] * weight, rcond=None)[0]
        off = ratio - terms @ solution
        used = good & (np.abs(off) < 4 * np.hypot(error, scatter))
        if used.sum() < terms.shape[1] + 2:
            return raw, _Ratio(float(np.median(ratio[good])), max(scatter, MIN_SCATTER))
        scatter = _excess(off[used], error[used])
    column, row = lines(shape, PAD)
    factor = sum(c * column**i * row**j for c, (i, j) in zip(solution, powers(order), strict=True)).astype(np.float32)
    data = raw.data - factor * raw.model
    if raw.scale.size == 1:
        change = replace(raw, data=data, model=raw.model * (1 + factor))
    else:
        # The image was convolved, so it is its light that the kernel's sum has misjudged, not the template's.
        again = 1 / (1 + factor)
        white, smoothed = raw.white * again**2, raw.smoothed * again**2
        change = replace(raw, data=data * again, scale=raw.scale * again, white=white, smoothed=smoothed)
    return change, _Ratio(float(np.median(ratio[used])), max(scatter, MIN_SCATTER))


def _excess(values, errors) -> float:
    """Scatter beyond the errors: the width for which the median of the squared pulls is that of a Gaussian."""
    low, high = 0.0, float(np.abs(values).max()) + 1e-9
    for _ in range(40):
        middle = (low + high) / 2
        if np.median(values**2 / (errors**2 + middle**2)) > 0.4549:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _psf(exposure: Exposure, target: _Layer, stars: Table, fit: KernelFit, forward: bool) -> Psf:
    """PSF of the difference, tied to the aperture fluxes of the image."""
    data, noise, bad = _core(target.data), np.sqrt(_core(target.variance)), _core(target.bad)
    sums = fit.kernel.sums(np.asarray(stars["x"]), np.asarray(stars["y"]))
    sample = stars["x", "y", "flux", "snr", "background"].copy()
    if not forward:
        sample["flux"] = np.asarray(sample["flux"]) * sums
        sample["background"] = 0.0
    narrow = np.abs(np.asarray(stars["fwhm"]) / exposure.fwhm - 1) < 0.4
    chosen = np.asarray(stars["alone"]) & narrow
    best = sample[chosen] if chosen.sum() >= 3 else sample
    psf = fit_psf(data, noise, bad, best, target.fwhm, exposure.aperture)
    local = np.asarray(best["background"], float)
    measured = forced(data, noise, bad, psf, best["x"], best["y"])
    area = _equivalent_area(psf)
    ratio = (measured.flux - local * area) / np.asarray(best["flux"], float)
    correction = float(np.nanmedian(ratio))
    return replace(psf, correction=psf.correction * correction if 0.5 < correction < 2 else psf.correction)


def _equivalent_area(psf: Psf) -> float:
    """What a constant of 1 ADU a pixel adds to a PSF flux."""
    half = int(np.ceil(psf.fwhm))
    model = psf.stamp(psf.shape[1] / 2, psf.shape[0] / 2, half)
    return float(model.sum() / np.sum(model**2))


def _with_noise(exposure, reference, raw: _Raw, fit: KernelFit, stars: Table, psf: Psf, ratio: _Ratio, forward: bool):
    shape = exposure.data.shape
    kernel = fit.kernel.at(shape[1] / 2, shape[0] / 2)
    mask = exposure.mask.astype(np.uint16) | _core(reference.mask).astype(np.uint16)
    mask |= np.where(_core(raw.bad) & (mask == 0), int(Mask.EDGE), 0).astype(np.uint16)
    data, model = _core(raw.data).copy(), _core(raw.model)
    photons = np.maximum(ndimage.uniform_filter(model, 3), 0) / exposure.gain if exposure.gain else 0.0
    white, smoothed = _core(raw.white), _core(raw.smoothed)
    if forward:
        white = white + photons
    else:
        smoothed = smoothed + photons * _core(raw.scale) ** 2
    variance = white + Convolver(smoothed, fit.kernel.half)(kernel**2)
    usable = mask == 0
    stamp = psf.stamp(shape[1] / 2, shape[0] / 2, int(np.ceil(1.5 * psf.fwhm)))
    flux = np.asarray(stars["flux"]) * (1 if forward else fit.kernel.sums(stars["x"], stars["y"]))
    mismatch = _mismatch(fit, flux, stamp)
    data -= background(data, ~usable, MESH).level
    data[~np.isfinite(data)] = 0
    # Rings and dipoles of a star reach as far as its own core is wide.
    reach = 2 * int(np.rint(0.4 * psf.fwhm)) + 1
    light = ndimage.maximum_filter(np.maximum(model, 0), reach)
    noise = Noise(white, smoothed, kernel, ratio.scatter * light)
    found = matched_filter(data, usable, variance, noise, stamp)
    quiet = _quiet(usable, model, variance, found.snr, psf.fwhm)
    # What is left of the background is taken out of the difference and of its S/N alike.
    level = np.median(found.snr[quiet]) / np.median(found.response[quiet])
    data -= level
    snr = found.snr - level * found.response
    unit, middle = _robust(snr[quiet])
    unit = unit if np.isfinite(unit) and unit > 0 else 1.0
    sigma = (unit * np.sqrt(variance)).astype(np.float32)
    sky = sky_sources(data, sigma, ~usable, psf, found.correlation, quiet)
    if not (np.isnan(sky.sigma) or SKY_SIGMA[0] < sky.sigma < SKY_SIGMA[1]):
        raise Rejected(f"fluxes at empty places scatter by {sky.sigma:.2f} of their errors: errors mean nothing")
    warnings = ()
    if not 0.8 < unit < 1.3:
        warnings = (f"the difference is {unit:.2f} times as noisy as expected; S/N and errors are scaled by it",)
    facts = {
        "convolved": "template" if forward else "image",
        "stamps": int(fit.used.sum()),
        "stamps_tried": len(fit.used),
        "kernel_order": fit.kernel.order,
        "kernel_sum": float(fit.kernel.sums(np.array([shape[1] / 2]), np.array([shape[0] / 2]))[0]),
        "kernel_half": fit.kernel.half,
        "condition": fit.condition,
        "stamp_chi2": float(np.median(fit.chi2)),
        "residual": ratio.scatter,
        "flux_ratio": ratio.median,
        "mismatch": mismatch,
        "snr_median": middle / unit,
        "sky_median": sky.median,
        "sky_sigma": sky.sigma,
        "sky_number": sky.number,
        "noise_scale": unit,
        "noise_correlation": found.correlation,
        "psf_chi2": psf.chi2,
        "coverage": float(usable.mean()),
    }
    return Difference(
        data=np.where(np.isfinite(data), data, 0).astype(np.float32),
        sigma=sigma,
        snr=(snr / unit).astype(np.float32),
        mask=mask,
        model=model.astype(np.float32),
        psf=psf,
        facts=facts,
        warnings=warnings,
    )


def _quiet(usable, model, variance, snr, fwhm) -> np.ndarray:
    """Pixels of empty sky: hardly any light in what was subtracted, and no significant change near."""
    change = ndimage.binary_dilation(np.abs(snr) > 4, iterations=int(np.ceil(fwhm)))
    quiet = usable & ~change & (np.abs(model) < np.sqrt(variance))
    return quiet if quiet.sum() > 0.02 * usable.sum() else usable


def _robust(values) -> tuple[float, float]:
    """Half the distance of the 16th and 84th percentiles, and the median."""
    low, middle, high = np.percentile(values, [15.865, 50, 84.135])
    return float(high - low) / 2, float(middle)


def _mismatch(fit: KernelFit, flux: np.ndarray, psf: np.ndarray) -> float:
    """Residual of a pixel in the cores of the brightest stars, relative to their light there."""
    middle, half = fit.residual.shape[1] // 2, psf.shape[0] // 2
    core = fit.residual[:, middle - 1 : middle + 2, middle - 1 : middle + 2]
    light = psf[half - 1 : half + 2, half - 1 : half + 2].mean()
    brightest = np.argsort(-flux)[: max(5, len(flux) // 10)]
    rms = np.sqrt(np.mean(core[brightest] ** 2, axis=(1, 2)))
    return float(np.median(rms / (flux[brightest] * light)))
