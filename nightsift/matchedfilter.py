"""The significance of a point source at every pixel of a difference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nightsift.convolve import Convolver


@dataclass(frozen=True)
class Noise:
    """What makes up the noise of a difference, all 2-D float32 in ADU or ADU^2.

    Attributes
    ----------
    white : array
        Variance that is independent from pixel to pixel.
    smoothed : array
        Variance, before the convolution with `kernel`, of the image that was convolved.
    kernel : (side, side) array
        That kernel at the image's centre.
    residual : array
        What the subtraction may have left of the sources, in proportion to their light: the same sign over a PSF.
    """

    white: np.ndarray
    smoothed: np.ndarray
    kernel: np.ndarray
    residual: np.ndarray


@dataclass(frozen=True)
class Significance:
    """S/N of a point source at each pixel.

    Attributes
    ----------
    snr : 2-D float32 array
    response : 2-D float32 array
        S/N that 1 ADU a pixel more of background would add.
    correlation : float
        Factor by which white noise alone would underrate the error of a flux.
    """

    snr: np.ndarray
    response: np.ndarray
    correlation: float


def matched_filter(difference, usable, variance, noise: Noise, psf: np.ndarray) -> Significance:
    """Filter a difference with its PSF.

    Parameters
    ----------
    difference : 2-D float32 array
        Difference, ADU.
    usable : 2-D bool array
        Pixels that count.
    variance : 2-D float32 array
        Of a pixel of the difference.
    noise : Noise
    psf : (side, side) array
        PSF of the difference.

    Notes
    -----
    With weights w = 1/variance (0 where not usable) the flux is sum(P w D) / sum(P^2 w) (Zackay & Ofek 2017, eq. 8)
    and the variance of its numerator is sum(P^2 w^2 V_white) + sum((P*K)^2 w^2 V_smoothed) + (sum P w residual)^2: the
    second term holds the covariance that the convolution with K makes, for variances that hardly change over a PSF.
    """
    weight = np.where(usable, 1 / variance, 0).astype(np.float32)
    half = psf.shape[0] // 2
    mirrored = psf[::-1, ::-1]
    wide = Convolver(np.pad(noise.kernel, half), half)(psf)
    reach = wide.shape[0] // 2
    numerator = Convolver(weight * difference, reach)(mirrored)
    total = Convolver(weight**2 * noise.white, reach)(mirrored**2)
    total = total + Convolver(weight**2 * noise.smoothed, reach)(wide[::-1, ::-1] ** 2)
    coherent = Convolver(weight * noise.residual, reach)(mirrored)
    plain = Convolver(weight, reach)(mirrored**2)
    floor = 1e-6 * float(np.max(total))
    correlation = np.sqrt(np.maximum(total, 0) / np.maximum(plain, 1e-30))
    error = np.sqrt(np.maximum(total + coherent**2, floor))
    seen = plain > 0
    return Significance(
        snr=np.where(seen, numerator / error, 0).astype(np.float32),
        response=np.where(seen, Convolver(weight, reach)(mirrored) / error, 0).astype(np.float32),
        correlation=float(np.median(correlation[usable])),
    )
