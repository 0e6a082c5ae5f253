"""The gain of an image, checked against its pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nightsift.header import readers

_TIMES = 1.5  # by which predicted and measured noise may differ
_READNOISE = 30.0  # e-, of the noisiest cameras in use, for images that do not tell theirs
_HALFWAY = 0.4  # of the way, in the logarithm, from one gain to the other: what is further off is neither
MOST_ELECTRONS = 1e7  # in a pixel's sky, whatever its unit: as many as a hundred exposures of full wells hold


@dataclass(frozen=True)
class Given:
    """What is given over the header, None where it is not: gain in e-/ADU, exposure in seconds, read noise in e-."""

    gain: float | None = None
    exptime: float | None = None
    readnoise: float | None = None


@dataclass(frozen=True)
class Pixels:
    """What the pixels say, ADU.

    Attributes
    ----------
    background, noise : float
        Sky and its sigma.
    single : float
        Sigma of single pixels, by `nightsift.image.background.pixel_noise`.
    step : float
        What all values are multiples of, 0 for none.
    """

    background: float
    noise: float
    single: float
    step: float = 0.0

    @property
    def subtracted(self) -> bool:
        """Whether the sky is gone, so that it tells nothing of the gain."""
        return self.background < 3.0 * self.noise

    @property
    def variance(self) -> float:
        """Of single pixels."""
        return min(self.single, self.noise) ** 2


def checked_gain(header, pixels: Pixels, given: Given, warnings: list[str]) -> float | None:
    """Return the gain in e-/ADU as given or in the header, checked against the pixels; None when it is not known.

    Parameters
    ----------
    header : astropy.io.fits.Header
    pixels : Pixels
    given : Given
    warnings : list of str
        What is found to say is appended.
    """
    single = math.sqrt(pixels.variance)
    if pixels.subtracted:
        warnings.append(
            f"the sky is {pixels.background:.4g} with a noise of {pixels.noise:.4g} ADU: background-subtracted data?"
        )
    guess = pixels.background / pixels.variance if not pixels.subtracted and single > 0.0 else None
    readnoise = given.readnoise if given.readnoise is not None else readers.read_readnoise(header)[0]
    value = given.gain
    if value is None:
        exptime = given.exptime if given.exptime is not None else readers.read_exptime(header)[0]
        value, notes = readers.read_gain(header, exptime)
        warnings += notes
        if value is not None:
            value = _of_these_values(value, guess, header, pixels, readnoise, warnings)
    if value is not None and guess is not None:
        value = _doubted(value, pixels, readnoise, given.gain is None, warnings)
    if value is None and guess is not None and guess * pixels.background < MOST_ELECTRONS:
        warnings.append(
            f"gain guessed from the sky ({pixels.background:.5g}) and its noise ({single:.4g}): {guess:.3g} e-/ADU"
        )
        value = guess
    elif value is None:
        warnings.append("the gain is not known")
    return value


def _of_these_values(value: float, guess, header, pixels: Pixels, readnoise, warnings: list[str]) -> float:
    """Return the header's gain for the values as they are: of a mean of frames, or multiplied by a whole number."""
    key, frames = readers.read_frames(header)
    if guess is not None and frames > 1:
        # The mean of N frames has N times the electrons in an ADU; some writers say so in GAIN, some do not.
        if abs(math.log(guess / (value * frames))) < min(0.3, abs(math.log(guess / value))):
            warnings.append(f"the noise is that of the mean of {frames} frames ({key}): gain {value:g} times {frames}")
            return value * frames
    times = round(pixels.step)
    if times < 2 or abs(pixels.step - times) > 0.01:
        return value
    less = value / times
    if guess is not None:
        as_is, divided = (
            abs(math.log(pixels.variance / _variance(each, pixels, readnoise or 0.0))) for each in (value, less)
        )
        if divided < _HALFWAY * math.log(times):
            warnings.append(
                f"all values are multiples of {times}, and the noise is that of gain {less:.3g} e-/ADU: {value:g}, as"
                " the header has it, is that of the values before, and is divided"
            )
            return less
        if as_is < _HALFWAY * math.log(times):
            return value
    warnings.append(
        f"all values are multiples of {times}: gain {value:g} e-/ADU is {times} times too high if it is that of the"
        " values before"
    )
    return value


def _variance(gain: float, pixels: Pixels, readnoise: float) -> float:
    """Return what photons of the sky and read noise make of the variance of a pixel."""
    return pixels.background / gain + (readnoise / gain) ** 2


def _doubted(value: float, pixels: Pixels, readnoise, dismiss: bool, warnings: list[str]) -> float | None:
    """Return a gain, having said where it predicts another noise; None where none could and `dismiss` allows it."""
    single, poisson = math.sqrt(pixels.variance), math.sqrt(pixels.background / value)
    other = math.sqrt(max(single**2 - poisson**2, 0.0)) * value
    predicted = math.sqrt(_variance(value, pixels, _READNOISE if readnoise is None else readnoise))
    if poisson > _TIMES * single:
        warnings.append(
            f"gain {value:g} e-/ADU predicts a sky noise of {poisson:.4g}, measured {single:.4g} ADU:"
            " stacked, rescaled or resampled data?"
        )
    elif dismiss and value >= 20.0 and other > max(300.0, 5.0 * math.sqrt(pixels.background * value)):
        warnings.append(f"gain {value:g} e-/ADU makes a noise of {other:.0f} e- besides the sky's: ignored")
        return None
    elif single > _TIMES * predicted:
        warnings.append(
            f"gain {value:g} e-/ADU predicts a noise of {predicted:.4g}"
            f"{' at most' if readnoise is None else ' with the read noise'}, measured {single:.4g} ADU:"
            " multiplied values, another gain, or faint stars everywhere?"
        )
    return value
