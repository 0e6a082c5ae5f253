"""Cosmic-ray hits in a single image, with the cores of stars kept out of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import astroscrappy
import numpy as np
from scipy import ndimage
from scipy.special import erf

from nightsift.image.stamps import pair_ratios, stamps
from nightsift.image.unit_noise import in_units, unit

_USUAL = 1.5  # FWHM, pixels, of the sharpest star where an image has too few to tell
_FEW, _ENOUGH = 8, 30  # stars
# Of the peak, the light of a pair of neighbours along a row and along a column that tells a star from most hits: a
# star centred on a pixel has it from a FWHM of 0.62 pixels on.
_LIT = 0.03
_STRICT = 0.1  # of the lit maxima, below which those with light in all eight neighbours are not the stars
_SHARP_SHARE = 10  # per cent of undersampled stars that may be sharper than all others
_PAIR_SIGMA = 2.0
_CONTRAST = 0.6  # of the sharpest star's ratio, below which no star comes
_CURVATURE = 2.5  # times the fall of a star from its top to the neighbours
_REACH = 12
_CHUNK = 2000


@dataclass(frozen=True)
class Hits:
    """Pixels hit by cosmic rays, a boolean image, and what is to be said of them."""

    mask: np.ndarray
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sharpest:
    """The sharpest star of an image: one centred on a pixel.

    Attributes
    ----------
    fwhm : float
        Of a Gaussian that the pixels integrate, pixels.
    side, diagonal : float
        The least mean of two opposite neighbours along a row or column, and along a diagonal, relative to the peak.
    """

    fwhm: float
    side: float
    diagonal: float


def find_stars(signal, noise: float, bad, threshold: float = 30.0) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels (y, x) of compact maxima with light on all sides, brightest first, 2000 at most.

    Parameters
    ----------
    signal : ndarray
        Background-subtracted image, ADU.
    noise : float
        Sky sigma, ADU.
    bad : ndarray
        Boolean mask; maxima with a bad pixel beside them are left out.
    threshold : float
        Lowest peak, in sigma.
    """
    return _stars(signal, noise, bad, threshold)[:2]


def _stars(signal, noise: float, bad, threshold: float = 30.0) -> tuple[np.ndarray, np.ndarray, bool]:
    """Return what `find_stars` does, and whether all have light in all eight neighbours."""
    inner = signal[2:-2, 2:-2]
    y, x = np.nonzero(inner > threshold * noise)
    y, x = y + 2, x + 2
    peak = signal[y, x]
    keep = ~bad[y, x]
    lowest = np.full(y.size, np.inf, signal.dtype)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            if dy or dx:
                beside = signal[y + dy, x + dx]
                keep &= (peak > beside) & ~bad[y + dy, x + dx]
                lowest = np.minimum(lowest, beside)
    y, x, peak, lowest = y[keep], x[keep], peak[keep], lowest[keep]
    # A hit leaves at least one neighbour dark, a star none; unless it is so narrow that its light ends in the pixels
    # beside it.
    stars = (lowest > 3.0 * noise) & (lowest > 0.01 * peak)
    lit = pair_ratios(signal, y, x)[:2].min(axis=0) > np.maximum(3.0 * np.sqrt(0.5) * noise / peak, _LIT)
    # Where hits are far more than stars, most of what is lit is their tracks.
    struck = np.sum(~lit) > lit.sum() and stars.sum() >= _ENOUGH
    chosen = stars if struck or stars.sum() >= _STRICT * lit.sum() else lit
    order = np.argsort(-peak[chosen])[:2000]
    return y[chosen][order], x[chosen][order], chosen is stars


def sharpest_star(signal, noise: float, bad) -> Sharpest:
    """Return what an image's own stars say of the sharpest one; parameters as in `find_stars`."""
    y, x, wide = _stars(signal, noise, bad)
    # Where the bright ones are enough: noise makes the others' tops look sharper than they are.
    enough = max(_ENOUGH, int(np.sum(signal[y, x] > 200.0 * noise)))
    ratios = pair_ratios(signal, y[:enough], x[:enough])
    least = ratios[:2].min(axis=0), ratios[2:].min(axis=0)
    widths, *tables = _centred()
    usual = Sharpest(_USUAL, *(float(np.interp(_USUAL, widths, centred)) for _, centred in tables))
    if y.size < 3:
        return usual
    typical = [np.median(part) for part in least]
    fwhm = float(np.interp(typical[0], tables[0][0], widths))
    bounds = [float(np.interp(value, *table)) for value, table in zip(typical, tables, strict=True)]
    if fwhm < _USUAL and not wide:
        # Neighbours and the stars' own variety blur the middle most where they are sharpest.
        bounds = [min(value, np.percentile(part, _SHARP_SHARE)) for value, part in zip(bounds, least, strict=True)]
    side, diagonal = (float(value) for value in bounds)
    if y.size < _FEW:
        return Sharpest(_USUAL, min(side, usual.side), min(diagonal, usual.diagonal))
    return Sharpest(fwhm, side, diagonal)


@lru_cache
def _centred():
    """Return widths, and for side and diagonal pairs what a star of each has.

    That is the median, over places in a pixel, of the lesser ratio of the two, and the ratio of a star centred on a
    pixel, for Gaussians integrated over pixels.
    """
    fwhm, phase = np.geomspace(0.5, 12.0, 40)[:, None], np.linspace(-0.5, 0.5, 21)
    edges = np.array([-1.5, -0.5, 0.5, 1.5])[:, None, None] - phase
    light = np.diff(erf(edges * np.sqrt(4 * np.log(2)) / fwhm), axis=0)
    line = 0.5 * (light[0] + light[2]) / light[1]
    side = np.minimum(line[:, :, None], line[:, None, :])
    low, high = light[0] / light[1], light[2] / light[1]

    def product(one, other):
        return one[:, :, None] * other[:, None, :]

    diagonal = 0.5 * np.minimum(product(low, low) + product(high, high), product(low, high) + product(high, low))
    middle = line[:, 10]
    tables = [(np.median(pair, axis=(1, 2)), centred) for pair, centred in ((side, middle), (diagonal, middle**2))]
    return fwhm[:, 0], *tables


def find_cosmics(data, background, noise, gain: float | None, bad, sigma: float = 5.0, sharpest: float = 0.9) -> Hits:
    """Find the pixels hit by cosmic rays.

    L.A.Cosmic (van Dokkum 2001, PASP 113, 1420) on the noise model of Karpov (2024, arXiv:2411.16470), with the
    positive part of a smoothed image as the source of Poisson noise. A group of its pixels stays only when one of them
    stands out against a pair of opposite neighbours more than the image's sharpest star would (as in the SDSS
    pipeline, Lupton et al. 2001, ASP 238, 269). Such pixels are rare and quickly found: L.A.Cosmic, which sees no
    further than ten pixels, is run around them only. Where the stars themselves are hardly wider than a hit nothing
    tells the two apart, and no pixel is masked.

    Parameters
    ----------
    data : ndarray
        Image, ADU, float32.
    background : ndarray
        Its background, ADU.
    noise : float or ndarray
        Sigma of the sky, ADU.
    gain : float or None
        e-/ADU; None leaves the Poisson noise of the sources to an allowance of 5 % of their flux.
    bad : ndarray
        Boolean mask of pixels to ignore, saturated ones included.
    sigma : float
        S/N of the Laplacian above which a pixel is a hit.
    sharpest : float
        FWHM of the stars, pixels, below which none is.

    Returns
    -------
    Hits
    """
    size = unit(float(np.median(noise)))
    signal = in_units(np.where(bad, np.float32(0.0), data - background), size)
    noise, gain = in_units(np.asarray(noise, np.float32), size), gain and gain * size
    level = float(np.median(noise))
    smooth = np.maximum(ndimage.uniform_filter(signal, 3, mode="nearest"), 0.0)
    sources = (0.05 * smooth) ** 2 if gain is None else smooth / gain
    variance = (noise**2 + sources).astype(np.float32)
    found, star = np.zeros(signal.shape, bool), sharpest_star(signal, level, bad)
    if star.fwhm < sharpest:
        return Hits(
            found, (f"the stars are {star.fwhm:.1f} px wide, as sharp as cosmic rays: none of these can be masked",)
        )
    y, x = _sharp(signal, np.sqrt(variance), bad, (star.side, star.diagonal))
    for first in range(0, y.size, _CHUNK):
        row, column = y[first : first + _CHUNK], x[first : first + _CHUNK]
        light, ignored, spread = (
            stamps(plane, column, row, _REACH, fill).reshape(-1, 2 * _REACH + 1)
            for plane, fill in ((signal, 0.0), (bad, False), (variance, level**2))
        )
        hit = _laplacian(light, ignored, spread, level, sigma).reshape(-1, 2 * _REACH + 1, 2 * _REACH + 1)
        hit = hit[:, _REACH - 1 : _REACH + 2, _REACH - 1 : _REACH + 2]
        # A hit's fainter pixels pass with the sharp one that they touch.
        number, dy, dx = np.nonzero(hit & hit[:, 1:2, 1:2])
        line, place = row[number] + dy - 1, column[number] + dx - 1
        # Beside a dead pixel at the border, what lies beyond looks like a hit.
        inside = (line >= 0) & (line < found.shape[0]) & (place >= 0) & (place < found.shape[1])
        found[line[inside], place[inside]] = True
    return Hits(found)


def _laplacian(signal, bad, variance, level: float, sigma: float) -> np.ndarray:
    """Return the pixels that L.A.Cosmic takes for hits."""
    found, _ = astroscrappy.detect_cosmics(
        signal,
        inmask=np.ascontiguousarray(bad),
        inbkg=None,
        invar=variance,
        sigclip=sigma,
        sigfrac=0.3,
        objlim=2.0,
        gain=1.0,
        readnoise=level,
        satlevel=np.inf,
        niter=1,
        sepmed=True,
        cleantype="meanmask",
        fsmode="median",
        psfmodel="gauss",
        psffwhm=2.5,
        psfsize=7,
        psfk=None,
        psfbeta=4.765,
        verbose=False,
    )
    return found.astype(bool) & ~bad


def _sharp(signal, sigma, bad, limits) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels (y, x) that stand out more than the sharpest star would."""
    y, x = np.nonzero((signal > 4.0 * sigma) & ~bad)
    ratios = pair_ratios(signal, y, x)
    error = sigma[y, x] / signal[y, x]
    bounds = np.array([limits[0], limits[0], limits[1], limits[1]])[:, None]
    # The noise of the pair and of the pixel between them must not make a star look sharp.
    margin = _PAIR_SIGMA * error * np.sqrt(0.5 + bounds**2)
    # Where stars span many pixels their tops are flat, and how much so is known better than by a factor.
    limit = np.maximum(_CONTRAST * bounds, 1 - _CURVATURE * (1 - bounds))
    sharp = (ratios + margin < limit).any(axis=0)
    return y[sharp], x[sharp]
