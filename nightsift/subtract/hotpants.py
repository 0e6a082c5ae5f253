"""Methods of the stage `subtract` that another program does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from astropy.table import Table
from scipy import ndimage

from nightsift import parameters
from nightsift.image.padding import PAD, unpad
from nightsift.image.polynomial import Surface, powers
from nightsift.image.stamps import spread
from nightsift.statistics import FWHM_PER_SIGMA
from nightsift.subtract.images import Convolved, Layer, RawDifference, sharper, subtracted

SMOOTHING = 1.0  # pixels, of what photons are counted in: weights that know of a pixel's own noise bias
PER_TERM = 20  # stars that a term of the kernel's variation takes: with fewer the program fits their noise
NARROWEST = 0.3  # standard deviation of a Gaussian, pixels, that is as good as none


def hotpants(
    image: Layer, template: Layer, stars: Table, params: parameters.SubtractConfig, run: Callable
) -> RawDifference:
    """Let HOTPANTS (Becker 2015, ascl:1504.004) convolve the sharper image and subtract.

    Parameters
    ----------
    image, template : Layer
    stars : Table
        ``x, y, snr, alone`` of unharmed stars, pixels of the image proper.
    params : parameters.Subtract
    run : callable
        `nightsift.external.hotpants.run_hotpants`, or what has its interface.

    Raises
    ------
    Rejected
        If the program fails or takes too long.

    Notes
    -----
    The program does not tell its kernel. For the noise it is taken for the Gaussian that makes one width the other.
    """
    source, target = (template, image) if sharper(image, template) else (image, template)
    shape = unpad(image.data).shape
    rank = np.where(stars["alone"], 0.0, 1e6) - np.log(np.asarray(stars["snr"], float))
    chosen = np.sort(spread(stars["x"], stars["y"], rank, shape, params.max_stamps))
    x, y = (np.asarray(stars[axis], float)[chosen] + PAD for axis in "xy")
    order = max(n for n in range(params.kernel_order + 1) if not n or len(chosen) >= PER_TERM * len(powers(n)))
    found = run(_with_photons(target), _with_photons(source), x, y, order, params.time_limit)
    used = np.zeros(len(stars), bool)
    used[chosen] = True
    kernel = found.kernel_sum * _gaussian(target.fwhm, source.fwhm)
    facts = {
        "stamps_tried": len(chosen),
        "kernel_order": order,
        "kernel_sum": found.kernel_sum,
        "kernel_half": kernel.shape[0] // 2,
    }
    sums = Surface(np.array([found.kernel_sum]), 0, shape)
    convolved = unpad(target.data) - unpad(found.difference)
    raw = subtracted(image, template, Convolved(convolved, kernel, sums, used, facts))
    # At the border its kernel reaches further than the Gaussian.
    reach = PAD + int(np.ceil(target.fwhm))
    unseen = source.bad.copy()
    if source is image:
        unseen[:reach] = unseen[-reach:] = unseen[:, :reach] = unseen[:, -reach:] = True
    return replace(raw, bad=raw.bad | unpad(found.bad), unseen=unseen)


def _with_photons(layer: Layer) -> Layer:
    """Return the layer with the sources' photons in its noise."""
    if not layer.gain:
        return layer
    photons = np.maximum(ndimage.gaussian_filter(layer.data, SMOOTHING), 0) / np.float32(layer.gain)
    return replace(layer, noise=np.sqrt(layer.noise**2 + photons))


def _gaussian(broad: float, sharp: float) -> np.ndarray:
    """Return the kernel, of sum 1, that makes one FWHM the other."""
    sigma = max(np.sqrt(broad**2 - sharp**2) / FWHM_PER_SIGMA, NARROWEST)
    line = np.arange(-np.ceil(4 * sigma), np.ceil(4 * sigma) + 1)
    kernel = np.exp(-(line**2 + line[:, None] ** 2) / (2 * sigma**2))
    return kernel / kernel.sum()
