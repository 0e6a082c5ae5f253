"""Cosmic-ray hits in a single image, with the cores of stars kept out of them."""

from __future__ import annotations

import astroscrappy
import numpy as np
from scipy import ndimage
from scipy.special import erf

from nightsift.stamps import pair_ratios, stamps

# Pair means of a Gaussian of FWHM 1.5 px centred on a pixel: the sharpest star taken for one when none can be measured.
_SHARPEST = (0.36, 0.13)
_PAIR_SIGMA = 2.0
_CONTRAST = 0.6  # of the sharpest star's ratio, below which no star comes
_CURVATURE = 2.5  # times the fall of a star from its top to the neighbours
_ENOUGH = 30
_REACH = 12
_CHUNK = 2000


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
    inner = signal[2:-2, 2:-2]
    y, x = np.nonzero(inner > threshold * noise)
    y, x = y + 2, x + 2
    peak = signal[y, x]
    keep = np.ones(y.size, bool)
    lowest = np.full(y.size, np.inf, signal.dtype)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            if dy or dx:
                beside = signal[y + dy, x + dx]
                keep &= (peak > beside) & ~bad[y + dy, x + dx]
                lowest = np.minimum(lowest, beside)
    # A hit leaves at least one neighbour dark, a star none.
    keep &= ~bad[y, x] & (lowest > 3.0 * noise) & (lowest > 0.01 * peak)
    order = np.argsort(-peak[keep])[:2000]
    return y[keep][order], x[keep][order]


def sharpest_star(signal, noise: float, bad) -> tuple[float, float]:
    """Return the pair ratios (side, diagonal) of a star centred on a pixel, from the image's own stars."""
    y, x = find_stars(signal, noise, bad)
    if y.size < 8:
        return _SHARPEST
    # Where the bright ones are enough: noise makes the others' tops look sharper than they are.
    enough = max(_ENOUGH, int(np.sum(signal[y, x] > 200.0 * noise)))
    ratios = pair_ratios(signal, y[:enough], x[:enough])
    # Hits on the light of stars pass for stars too, and are sharper: the middle of all is safe from them.
    typical = np.median(0.5 * (ratios[0] + ratios[1])), np.median(0.5 * (ratios[2] + ratios[3]))
    side, diagonal = (float(np.interp(value, *table)) for value, table in zip(typical, _centred(), strict=True))
    return max(side, 0.5 * _SHARPEST[0]), max(diagonal, 0.5 * _SHARPEST[1])


def _centred():
    """Return for side and diagonal pairs the median ratio of stars at random places and that of one centred on a pixel.

    Both for Gaussians integrated over pixels, FWHM from 1 to 12 pixels.
    """
    fwhm, phase = np.geomspace(1.0, 12.0, 30)[:, None], np.linspace(-0.5, 0.5, 21)
    edges = np.array([-1.5, -0.5, 0.5, 1.5])[:, None, None] - phase
    light = np.diff(erf(edges * np.sqrt(4 * np.log(2)) / fwhm), axis=0)
    line = 0.5 * (light[0] + light[2]) / light[1]
    pairs = 0.5 * (line[:, :, None] + line[:, None, :]), line[:, :, None] * line[:, None, :]
    middle = line[:, 10]
    return [(np.median(pair, axis=(1, 2)), centred) for pair, centred in zip(pairs, (middle, middle**2), strict=True)]


def find_cosmics(data, background, noise, gain: float | None, bad, sigma: float = 5.0):
    """Find the pixels hit by cosmic rays.

    L.A.Cosmic (van Dokkum 2001, PASP 113, 1420) on the noise model of Karpov (2024, arXiv:2411.16470), with the
    positive part of a smoothed image as the source of Poisson noise. A group of its pixels stays only when one of them
    stands out against a pair of opposite neighbours more than the image's sharpest star would (as in the SDSS
    pipeline, Lupton et al. 2001, ASP 238, 269). Such pixels are rare and quickly found: L.A.Cosmic, which sees no
    further than ten pixels, is run around them only.

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

    Returns
    -------
    ndarray
        Boolean, True = hit.
    """
    signal = np.where(bad, 0.0, data - background).astype(np.float32)
    level = float(np.median(noise))
    smooth = np.maximum(ndimage.uniform_filter(signal, 3, mode="nearest"), 0.0)
    sources = (0.05 * smooth) ** 2 if gain is None else smooth / gain
    variance = (np.asarray(noise, np.float32) ** 2 + sources).astype(np.float32)
    y, x = _sharp(signal, np.sqrt(variance), bad, sharpest_star(signal, level, bad))
    found = np.zeros(signal.shape, bool)
    for first in range(0, y.size, _CHUNK):
        row, column = y[first : first + _CHUNK], x[first : first + _CHUNK]
        around = [
            stamps(plane, column, row, _REACH, fill).reshape(-1, 2 * _REACH + 1)
            for plane, fill in ((signal, 0.0), (bad, False), (variance, level**2))
        ]
        hit = _laplacian(*around, level, sigma).reshape(-1, 2 * _REACH + 1, 2 * _REACH + 1)
        hit = hit[:, _REACH - 1 : _REACH + 2, _REACH - 1 : _REACH + 2]
        # A hit's fainter pixels pass with the sharp one that they touch.
        number, dy, dx = np.nonzero(hit & hit[:, 1:2, 1:2])
        found[row[number] + dy - 1, column[number] + dx - 1] = True
    return found


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
