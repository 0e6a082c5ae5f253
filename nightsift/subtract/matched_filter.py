"""The significance of a point source at every pixel of a difference."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from nightsift.image.convolve import Bank, convolve
from nightsift.image.correlation import WHITE, carried

BLIND = 1e-5  # share of the PSF, squared, on usable pixels


@dataclass(frozen=True)
class Noise:
    """What makes up the noise of a difference, all 2-D float32 in ADU or ADU^2.

    Attributes
    ----------
    white : array
        Variance of a pixel of what was not convolved.
    smoothed : array
        Variance, before the convolution with `kernel`, of the image that was convolved.
    kernel : (side, side) array
        That kernel at the image's centre.
    residual : iterable of arrays
        What the subtraction may have left of the sources, in proportion to their light, by cause: each of the same
        sign over a PSF.
    """

    white: np.ndarray
    smoothed: np.ndarray
    kernel: np.ndarray
    residual: Iterable[np.ndarray]


@dataclass(frozen=True)
class Significance:
    """S/N of a point source at each pixel.

    Attributes
    ----------
    snr : 2-D float32 array
    response : 2-D float32 array
        S/N that 1 ADU a pixel more of background would add.
    correlation : 2-D float32 array
        Factor by which white noise alone would underrate the error of a flux.
    """

    snr: np.ndarray
    response: np.ndarray
    correlation: np.ndarray


class MatchedFilter:
    """The filter for one PSF, for images (or strips of one) of any size up to a largest.

    Parameters
    ----------
    psf : (side, side) array
        PSF of the difference.
    kernel : (side, side) array
        `Noise.kernel`.
    shape : tuple of int
        Most rows and columns that an image has.
    white, smoothed : 2-D arrays
        Autocorrelations (`nightsift.image.correlation`) of the noise of `Noise.white` and, before the convolution, of
        `Noise.smoothed`.
    """

    def __init__(self, psf: np.ndarray, kernel: np.ndarray, shape, white=WHITE, smoothed=WHITE):
        mirrored = psf[::-1, ::-1]
        wide = convolve(np.pad(kernel, psf.shape[0] // 2), psf)[::-1, ::-1]
        self.reach = wide.shape[0] // 2
        kernels = [mirrored, mirrored**2, wide * carried(wide, smoothed), mirrored * carried(mirrored, white)]
        # Noise that is white has no kernel of its own.
        self._own = 1 if np.size(white) == 1 else 3
        self._bank = Bank(kernels[: self._own + 1 if self._own > 1 else 3], shape)

    def parts(self, difference, usable, variance, white, smoothed, coherent) -> tuple[np.ndarray, ...]:
        """Filter a difference, and each part of its noise by itself.

        Parameters
        ----------
        difference : 2-D float32 array
            Difference, ADU.
        usable : 2-D bool array
            Pixels that count.
        variance : 2-D float32 array
            Of a pixel of the difference, for the weights.
        white, smoothed, coherent : sequences of 2-D float32 arrays
            As `Noise.white`, `Noise.smoothed` and `Noise.residual`.

        Returns
        -------
        tuple of 2-D float32 arrays
            The numerator; the variance that each of `white` and `smoothed` makes of it; what each of `coherent` makes
            of it itself.
        """
        weight = np.where(usable, 1 / variance, 0).astype(np.float32)
        numerator, *light = (next(self._bank(weight * part, 0)) for part in (difference, *coherent))
        weight *= weight
        made = [next(self._bank(weight * part, self._own)) for part in white]
        made += [next(self._bank(weight * part, 2)) for part in smoothed]
        return numerator, *(np.maximum(part, 0) for part in made), *light

    def __call__(self, difference, usable, variance, noise: Noise) -> Significance:
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

        Notes
        -----
        With weights w = 1/variance (0 where not usable) the flux is sum(P w D) / sum(P^2 w) (Zackay & Ofek 2017, eq. 8)
        and the variance of its numerator is sum(P^2 w^2 V_white) + sum((P*K)^2 w^2 V_smoothed) and (sum P w residual)^2
        for each residual: the second term holds the covariance that the convolution with K makes, for variances that
        hardly change over a PSF. Where noise has an autocorrelation R, the square of a filter F becomes F (F*R).
        """
        bank = self._bank
        weight = np.where(usable, 1 / variance, 0).astype(np.float32)
        numerator = next(bank(weight * difference, 0))
        coherent = sum(np.square(next(bank(weight * one, 0))) for one in noise.residual)
        response, plain = bank(weight, 0, 1)
        weight *= weight
        total = next(bank(weight * noise.white, self._own))
        total += next(bank(weight * noise.smoothed, 2))
        np.maximum(total, 0, out=total)
        # Far from any usable pixel there is nothing but rounding errors.
        blind = plain <= BLIND * plain.max()
        plain[blind] = 1
        correlation = np.sqrt(total / plain)
        total += coherent
        total[blind] = np.inf
        error = np.sqrt(total, out=total)
        numerator /= error
        response /= error
        return Significance(numerator, response, correlation)
