"""Methods of subtraction that convolve one image to the PSF of the other, and take the difference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from astropy.table import Table

from nightsift import parameters
from nightsift.errors import Rejected
from nightsift.image.convolve import convolve_varying
from nightsift.image.padding import PAD
from nightsift.image.polynomial import Surface
from nightsift.image.stamps import spread, stamps
from nightsift.subtract.images import Convolved, Layer, RawDifference, sharper, subtracted
from nightsift.subtract.kernel import KernelFit, KernelStamps, basis_for, fit_kernel
from nightsift.subtract.stars import MIN_STAMPS

RELATIVE_FLOOR = 0.01  # of a star's light, so that the fit is not the brightest star's alone


def alard_lupton(image: Layer, template: Layer, stars: Table, params: parameters.SubtractConfig) -> RawDifference:
    """Subtract after a convolution with Gaussians times polynomials (Alard & Lupton 1998; Alard 2000).

    The sharper one of the two is convolved.

    Parameters
    ----------
    image, template : Layer
    stars : Table
        ``x, y, snr`` of unharmed stars, pixels of the image proper.
    params : parameters.Subtract

    Raises
    ------
    Rejected
        If the kernel fits too few stars.
    """
    widths = sorted((image.fwhm, template.fwhm))
    return by_kernel(image, template, stars, params, basis_for(*widths), params.kernel_order)


def by_kernel(
    image: Layer, template: Layer, stars: Table, params: parameters.SubtractConfig, basis, max_order: int
) -> RawDifference:
    """Subtract after a convolution of the sharper image with the kernel of a basis that fits the stars best.

    Parameters as for `alard_lupton`, and a basis like `nightsift.subtract.kernel.Basis` and the highest order of its
    variation.
    """
    source, target = (template, image) if sharper(image, template) else (image, template)
    fit = _match(source, target, stars, params, basis, max_order)
    kernel = fit.kernel
    data = convolve_varying(source.data, kernel.terms(), kernel.order, kernel.shape, PAD)
    middle = kernel.shape[1] / 2, kernel.shape[0] / 2
    sums = kernel.coefficients @ kernel.basis.kernels.sum(axis=(1, 2))
    facts = {
        "stamps": int(fit.used.sum()),
        "stamps_tried": len(fit.used),
        "kernel_order": kernel.order,
        "kernel_sum": float(kernel.sums(*(np.array([part]) for part in middle))[0]),
        "kernel_half": kernel.half,
        "condition": fit.condition,
        "spatial_condition": fit.spatial_condition,
        "regularization": fit.strength,
        "stamp_chi2": float(np.median(fit.chi2)),
    }
    convolved = Convolved(data, kernel.at(*middle), Surface(sums, kernel.order, kernel.shape), fit.used, facts)
    return subtracted(image, template, convolved)


def _match(
    source: Layer, target: Layer, stars: Table, params: parameters.SubtractConfig, basis, max_order: int
) -> KernelFit:
    """Fit the kernel to stamps of the stars."""
    half = int(np.ceil(2.8 * max(source.fwhm, target.fwhm))) + 1
    chosen = np.sort(spread(stars["x"], stars["y"], -np.asarray(stars["snr"]), source.data.shape, params.max_stamps))
    column, row = np.rint(stars["x"]).astype(int) + PAD, np.rint(stars["y"]).astype(int) + PAD
    wide = stamps(source.data, column[chosen], row[chosen], half + basis.half)
    value = stamps(target.data, column[chosen], row[chosen], half)
    photons = np.maximum(value, 0) / target.gain if target.gain else 0.0
    variance = stamps(target.noise, column[chosen], row[chosen], half, 1.0) ** 2 + photons
    variance = variance + (RELATIVE_FLOOR * np.maximum(value, 0)) ** 2
    spoilt = stamps(target.bad, column[chosen], row[chosen], half, True)
    spoilt = spoilt | stamps(source.bad, column[chosen], row[chosen], half, True)
    shape = tuple(side - 2 * PAD for side in source.data.shape)
    weight = np.where(spoilt, 0, 1 / variance)
    pairs = KernelStamps(wide, value, weight, stars["x"][chosen], stars["y"][chosen], shape)
    fit = fit_kernel(pairs, basis, max_order, params.clip)
    used = np.zeros(len(stars), bool)
    used[chosen[fit.used]] = True
    if used.sum() < MIN_STAMPS:
        raise Rejected(f"the kernel fits only {used.sum()} of {len(chosen)} stars")
    return replace(fit, used=used, chi2=fit.chi2[fit.used])
