"""Proper image subtraction (Zackay, Ofek & Gal-Yam 2016, ApJ 830, 27), by tiles, for PSFs that vary over the field."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft, ndimage
from scipy.signal import fftconvolve

from nightsift.statistics import FWHM_PER_SIGMA

TILE = 512  # side of what is transformed at once, pixels
STAMP = 3.0  # half side of the PSFs' stamps, FWHM of the wider one: no fit says what is farther out
MARGIN = 7.0  # around a tile, for the filters' wings, FWHM of the wider PSF
FLOOR = 1e-3  # below it, relative to its value at frequency 0, a PSF's transform is not known
LEAST = 0.05  # smallest variance of a significance, relative to that of the sky
SLOPE = np.array([1, -8, 0, 8, -1]) / 12  # derivative, exact to the fourth order


@dataclass(frozen=True)
class ProperLayer:
    """One of the two images.

    Attributes
    ----------
    data : 2-D float32 array
        Background-subtracted image, ADU; finite throughout, also where it is bad.
    noise : 2-D float32 array
        Standard deviation of a pixel from the sky alone, ADU.
    bad : 2-D bool array
        Pixels whose noise does not count.
    psf : nightsift.psf.fit.Psf
        Or what has its method ``stamp(x, y, half)``; both images' sum to 1 in the same aperture.
    gain : float or None
        e-/ADU; None for no photon noise of the sources.
    """

    data: np.ndarray
    noise: np.ndarray
    bad: np.ndarray
    psf: object
    gain: float | None = None

    def cut(self, region, ratio: float) -> ProperLayer:
        """Return a part of the layer, its fluxes divided by `ratio`."""
        ratio = np.float32(ratio)
        gain = None if self.gain is None else self.gain * ratio
        return ProperLayer(self.data[region] / ratio, self.noise[region] / ratio, self.bad[region], self.psf, gain)


@dataclass(frozen=True)
class Proper:
    """A proper difference, on the flux scale of the new image.

    Attributes
    ----------
    filtered_new, filtered_reference : 2-D float32 arrays
        The first minus the second is the difference; both show the same PSF, that of the difference.
    variance : 2-D float32 array
        Of a pixel of the difference, from the sky alone: white noise where the variances are uniform.
    s : 2-D float32 array or None
        The score image, in units of its standard deviation on empty sky.
    s_corr : 2-D float32 array or None
        The score in units of its standard deviation with the sources' photons and their jitter.
    x, y : 1-D arrays
        Columns and rows of the grid on which the filters are made, pixels.
    kernels, reference_kernels : (rows, columns, side, side) float32 arrays
        What the new image and the reference are convolved with, on that grid.
    new_psf : nightsift.psf.fit.Psf
        Of the new image.
    """

    filtered_new: np.ndarray
    filtered_reference: np.ndarray
    variance: np.ndarray
    s: np.ndarray | None
    s_corr: np.ndarray | None
    x: np.ndarray
    y: np.ndarray
    kernels: np.ndarray
    reference_kernels: np.ndarray
    new_psf: object

    def psf(self, x: float, y: float, half: int) -> np.ndarray:
        """Return the PSF of the difference at a position, centred: a (2 half + 1, 2 half + 1) array."""
        across = [np.interp(x, self.x, line) for line in np.eye(len(self.x))]
        down = [np.interp(y, self.y, line) for line in np.eye(len(self.y))]
        kernel = np.einsum("i,j,ijvu->vu", down, across, self.kernels, optimize=True)
        return fftconvolve(self.new_psf.stamp(x, y, half + kernel.shape[0] // 2), kernel, mode="valid")


@dataclass(frozen=True)
class _Filters:
    """Transforms of the filters of both images and of the PSF of the difference, and the variance of its pixels."""

    new: np.ndarray
    reference: np.ndarray
    psf: np.ndarray
    variance: float


def zogy(
    new: ProperLayer, reference: ProperLayer, flux_ratio: float, jitter: float | None = None, tile: int = TILE
) -> Proper:
    """Subtract a reference from a new image so that the difference has white noise and is a sufficient statistic.

    Parameters
    ----------
    new, reference : Layer
        On the same pixels.
    flux_ratio : float
        Flux of a star in the reference over that in the new image, ADU.
    jitter : float, optional
        Standard deviation on each axis of what the positions in the two images differ by, pixels. Without it there is
        no score (`s` and `s_corr` are None), which takes half of the time.
    tile : int
        Side of the tiles, pixels.

    Notes
    -----
    The difference is that of eq. 13, divided by the F_D of eq. 15; the score that of eqs. 12 and 25 to 31, the jitter
    shared by both images. Between the nodes of a grid the filters are interpolated linearly: every tile reaches from a
    node to its neighbours, and fades out there. Only the ratio of the variances, one number a tile, shapes the filters.

    Where both PSFs' transforms vanish, eq. 13 is 0 / 0, and its filters would have no end. There (quadratic mean below
    `FLOOR`) they go over into what leaves the image of the broader PSF as it is and takes nothing of the other: the
    noise stays white, its variance the same, and no star has light at these frequencies. So the filters end within a
    tile's margin: at 1e-7 of a pixel for PSFs without noise, 1e-5 for PSFs fitted to stars.
    """
    shape, ratios = new.data.shape, (1.0, flux_ratio)
    centre = (shape[1] / 2, shape[0] / 2)
    widths = [_width(layer.psf.stamp(*centre, 24)) for layer in (new, reference)]
    half, margin = (int(np.ceil(factor * max(widths))) for factor in (STAMP, MARGIN))
    rows, columns = (_nodes(side, max((tile - 2 * margin) // 2, margin)) for side in shape)
    # Of one pixel in 9: nothing of the size of an image.
    few = np.s_[::3, ::3]
    usual = [_typical(layer.cut(few, ratio), 1.0) for layer, ratio in zip((new, reference), ratios, strict=True)]
    planes = [np.zeros(shape, np.float32) for _ in range(3 if jitter is None else 5)]
    around = np.arange(-margin, margin + 1)
    kernels = np.empty((2, len(rows), len(columns), around.size, around.size), np.float32)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            inner, weight = _inner(rows, columns, i, j, shape)
            outer, cut, size = _outer(inner, shape, margin)
            layers = [layer.cut(outer, ratio) for layer, ratio in zip((new, reference), ratios, strict=True)]
            levels = [_typical(one, otherwise) for one, otherwise in zip(layers, usual, strict=True)]
            profiles = [_transform(one.psf.stamp(column, row, half), size) for one in layers]
            filters = _filters(*profiles, *levels, widths[1] <= widths[0])
            for plane, part in zip(planes, _tile(layers, filters, cut, size, jitter), strict=True):
                plane[inner] += weight * part
            for kernel, each in zip(kernels, (filters.new, filters.reference), strict=True):
                kernel[i, j] = fft.irfft2(each, size)[np.ix_(around, around)]
    s, s_corr = (None, None) if jitter is None else (planes[3], planes[3] / np.sqrt(np.maximum(planes[4], LEAST)))
    return Proper(*planes[:3], s, s_corr, columns, rows, *kernels, new.psf)


def _width(stamp) -> float:
    """FWHM of a Gaussian with the same equivalent area."""
    return FWHM_PER_SIGMA * float(np.sqrt(stamp.sum() ** 2 / np.sum(stamp**2) / (4 * np.pi)))


def _nodes(side: int, step: int) -> np.ndarray:
    """Positions from end to end, at most about `step` apart."""
    return np.linspace(0, side - 1, max(1, int(np.ceil((side - 1) / step))) + 1)


def _typical(layer: ProperLayer, otherwise: float) -> float:
    """Median variance of the good pixels."""
    values = layer.noise[::3, ::3][~layer.bad[::3, ::3]]
    found = float(np.median(values)) ** 2 if values.size else 0.0
    return found if np.isfinite(found) and found > 0 else otherwise


def _inner(rows, columns, i: int, j: int, shape):
    """Region in which a node counts, and its weight there: 1 at the node, 0 at its neighbours."""
    parts, lines = [], []
    for nodes, k, side in ((rows, i, shape[0]), (columns, j, shape[1])):
        start, stop = int(nodes[max(k - 1, 0)]), int(np.ceil(nodes[min(k + 1, len(nodes) - 1)])) + 1
        parts.append(slice(start, min(stop, side)))
        lines.append(np.interp(np.arange(start, min(stop, side)), nodes, np.eye(len(nodes))[k]).astype(np.float32))
    return tuple(parts), lines[0][:, None] * lines[1]


def _outer(inner, shape, margin: int):
    """Region with its margin inside the image, where the inner one is in it, and the size of its transform."""
    outer, cut, size = [], [], []
    for part, side in zip(inner, shape, strict=True):
        start, stop = max(part.start - margin, 0), min(part.stop + margin, side)
        outer.append(slice(start, stop))
        cut.append(slice(part.start - start, part.stop - start))
        # Beyond the image there is nothing, but what wraps around must not reach it.
        size.append(fft.next_fast_len(part.stop - part.start + 2 * margin, real=True))
    return tuple(outer), tuple(cut), tuple(size)


def _transform(stamp, size) -> np.ndarray:
    """Transform of a PSF that fades out towards the rim of its stamp, its centre at the origin."""
    half = stamp.shape[0] // 2
    around = np.arange(-half, half + 1)
    radius = np.hypot(around, around[:, None]) / half
    plane = np.zeros(size, np.float32)
    plane[np.ix_(around, around)] = stamp * np.cos(np.pi / 2 * np.clip((radius - 0.7) / 0.3, 0, 1)) ** 2
    return fft.rfft2(plane)


def _filters(new, reference, noise_new: float, noise_reference: float, sharper: bool) -> _Filters:
    """Filters from the PSFs' transforms and the variances of the sky; `sharper` if the reference is."""
    share = np.float32(noise_reference / noise_new)
    power = np.abs(reference) ** 2 + share * np.abs(new) ** 2
    trust = power**2 / (power**2 + np.float32(FLOOR**2 * (1 + share)) ** 2)
    sharp = reference if sharper else new
    # A phase common to both filters changes only their length: they are shortest without that of the sharper PSF.
    turned = trust * sharp.conj() / np.maximum(np.sqrt(power) * np.abs(sharp), np.float32(1e-30))
    first, second = turned * reference, turned * new
    if sharper:
        first += 1 - trust
    else:
        second += (1 - trust) / np.sqrt(share)
    total = np.sqrt((1 + share) / (np.abs(first) ** 2 + share * np.abs(second) ** 2))
    first *= total
    second *= total
    return _Filters(first, second, first * new, noise_new + noise_reference)


def _tile(layers, filters: _Filters, cut, size, jitter: float | None) -> list[np.ndarray]:
    """Planes of a tile: both filtered images, variance; with a jitter, the score and the variance of the score."""
    shape = layers[0].data.shape

    def back(product):
        return fft.irfft2(product, size)[: shape[0], : shape[1]]

    images = [fft.rfft2(layer.data, size) for layer in layers]
    both = (filters.new, filters.reference)
    planes = [back(image * each)[cut] for image, each in zip(images, both, strict=True)]
    planes.append(sum(_power(each, size) * layer.noise[cut] ** 2 for each, layer in zip(both, layers, strict=True)))
    if jitter is None:
        return planes
    unit = np.float32(1 / np.sqrt(filters.variance * _power(filters.psf, size)))
    matched = [filters.psf.conj() * each * unit for each in both]
    scores = [back(image * each) for image, each in zip(images, matched, strict=True)]
    noise = 0.0
    for layer, each in zip(layers, matched, strict=True):
        square = fft.rfft2(fft.irfft2(each, size) ** 2)
        noise = noise + square * fft.rfft2(_with_photons(layer), size)
    total = back(noise)[cut]
    for score in scores:
        slopes = (ndimage.correlate1d(score, SLOPE, axis=axis, mode="nearest")[cut] for axis in (0, 1))
        total = total + np.float32(jitter**2 / 2) * sum(slope**2 for slope in slopes)
    return [*planes, (scores[0] - scores[1])[cut], total]


def _power(transform, size) -> np.float32:
    """Sum of the squares of what has this transform (Parseval)."""
    square = np.abs(transform) ** 2
    total = 2 * square.sum(dtype=float) - square[:, 0].sum(dtype=float)
    if size[1] % 2 == 0:
        total -= square[:, -1].sum(dtype=float)
    return np.float32(total / (size[0] * size[1]))


def _with_photons(layer: ProperLayer) -> np.ndarray:
    variance = layer.noise**2
    if layer.gain is None:
        return variance
    # Noise below the background is kept, lest the mean of the sky's own be counted twice.
    return np.maximum(variance + layer.data / np.float32(layer.gain), 0)
