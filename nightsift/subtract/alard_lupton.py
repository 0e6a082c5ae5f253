"""Methods of subtraction that convolve one image to the PSF of the other, and take the difference."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from astropy.table import Table

from nightsift import parameters
from nightsift.errors import Rejected
from nightsift.image.convolve import Bank, convolve_varying
from nightsift.image.seeing import seeing
from nightsift.image.stamps import spread, stamps
from nightsift.image.tiles import largest, tiles
from nightsift.subtract.images import Layer, Raw, Surface, core
from nightsift.subtract.kernel import KernelFit, Stamps, basis_for, fit_kernel
from nightsift.template.template import PAD

MIN_STAMPS = 5
LEAK = 0.05  # fraction of the kernel's weight on bad pixels that makes a pixel of the difference bad
BRIGHT, ENOUGH = 20.0, 10  # S/N of the stars of a PSF, and how many make fainter ones unnecessary
LIKE_STARS = 0.12  # relative difference of the width
RELATIVE_FLOOR = 0.01  # of a star's light, so that the fit is not the brightest star's alone


def alard_lupton(image: Layer, template: Layer, stars: Table, params: parameters.Subtract) -> Raw:
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


def by_kernel(image: Layer, template: Layer, stars: Table, params: parameters.Subtract, basis, max_order: int) -> Raw:
    """Subtract after a convolution of the sharper image with the kernel of a basis that fits the stars best.

    Parameters as for `alard_lupton`, and a basis like `nightsift.subtract.kernel.Basis` and the highest order of its variation.
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


@dataclass(frozen=True)
class Convolved:
    """The sharper of two images with the other's PSF and flux scale.

    Attributes
    ----------
    data : 2-D float32 array
        Of the image proper, ADU of the other.
    kernel : (side, side) array
        At the image's centre.
    sums : Surface
        Sum of the kernel.
    used : 1-D bool array
        Stars that the kernel rests on.
    facts : dict
        What the method has to say of itself.
    """

    data: np.ndarray
    kernel: np.ndarray
    sums: Surface
    used: np.ndarray
    facts: dict


def sharper(image: Layer, template: Layer) -> bool:
    """Tell whether it is the template that has to be convolved."""
    return template.fwhm <= image.fwhm


def subtracted(image: Layer, template: Layer, convolved: Convolved) -> Raw:
    """Return the difference of the sharper one, `convolved`, whose array becomes part of it, and of the other."""
    forward = sharper(image, template)
    source, target = (template, image) if forward else (image, template)
    data, kernel = convolved.data, convolved.kernel
    result = Raw(
        data=data,
        model=np.empty_like(data),
        bad=leaks(source.bad, kernel, LEAK * np.abs(kernel).sum()) | core(target.bad),
        unseen=source.bad,
        white=core(target.noise),
        smoothed=core(source.noise),
        scale=() if forward else (convolved.sums,),
        kernel=kernel,
        forward=forward,
        fwhm=target.fwhm,
        used=convolved.used,
        facts={"convolved": "template" if forward else "image"} | convolved.facts,
        white_correlation=target.correlation,
        smoothed_correlation=source.correlation,
    )
    for tile in tiles(data.shape):
        own, factor = tile.own, result.factor(*tile.own)
        other = core(target.data)[own]
        result.model[own] = data[own] if forward else other * factor
        data[own] = other - data[own] if forward else (data[own] - other) * factor
    return result


def leaks(bad: np.ndarray, kernel: np.ndarray, limit: float) -> np.ndarray:
    """Tell into which pixels of the image proper a kernel smears more than `limit` of what the framed image holds."""
    bank = Bank([np.abs(kernel)], largest(tuple(side - 2 * PAD for side in bad.shape), PAD))
    result = np.zeros([side - 2 * PAD for side in bad.shape], bool)
    for tile in tiles(result.shape):
        piece = bad[tuple(slice(part.start, part.stop + 2 * PAD) for part in tile.own)]
        if piece.any():
            result[tile.own] = core(next(bank(piece))) > limit
    return result


def _match(source: Layer, target: Layer, stars: Table, params: parameters.Subtract, basis, max_order: int) -> KernelFit:
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
    pairs = Stamps(wide, value, weight, stars["x"][chosen], stars["y"][chosen], shape)
    fit = fit_kernel(pairs, basis, max_order, params.clip)
    used = np.zeros(len(stars), bool)
    used[chosen[fit.used]] = True
    if used.sum() < MIN_STAMPS:
        raise Rejected(f"the kernel fits only {used.sum()} of {len(chosen)} stars")
    return replace(fit, used=used, chi2=fit.chi2[fit.used])


def isolated(stars: Table, shape: tuple[int, int]) -> Table:
    """Return the stars that stand alone and are as wide as stars are there, for a PSF; all if they are too few.

    The bright ones alone if these are enough: a faint galaxy may be as narrow.
    """
    x, y, fwhm, snr = (np.asarray(stars[name], float) for name in ("x", "y", "fwhm", "snr"))
    alone, bright = np.asarray(stars["alone"]), snr > BRIGHT
    chosen = alone & (np.abs(fwhm / seeing(x, y, fwhm, alone & bright, shape).at(x, y) - 1) < LIKE_STARS)
    chosen = chosen & bright if (chosen & bright).sum() >= ENOUGH else chosen
    return stars[chosen] if chosen.sum() >= 3 else stars
