"""The gain of an image, checked against its pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nightsift import headers


@dataclass(frozen=True)
class Given:
    """What is given over the header, None where it is not: gain in e-/ADU, exposure in seconds."""

    gain: float | None = None
    exptime: float | None = None


def checked_gain(
    header, background: float, noise: float, single: float, given: Given, warnings: list[str]
) -> float | None:
    """Return the gain in e-/ADU as given or in the header, checked against the pixels; None when it is not known.

    Parameters
    ----------
    header : astropy.io.fits.Header
    background, noise : float
        Sky and its sigma, ADU.
    single : float
        Sigma of single pixels, by `pixel_noise`.
    given : Given
    warnings : list of str
        What is found to say is appended.
    """
    single = min(single, noise)
    subtracted = background < 3.0 * noise
    if subtracted:
        warnings.append(f"the sky is {background:.4g} with a noise of {noise:.4g} ADU: background-subtracted data?")
    value = given.gain
    if value is None:
        exptime = given.exptime if given.exptime is not None else headers.read_exptime(header)[0]
        value, notes = headers.read_gain(header, exptime)
        warnings += notes
    guess = background / single**2 if not subtracted and single > 0 else None
    key, frames = headers.read_frames(header)
    if given.gain is None and value is not None and guess is not None and frames > 1:
        # The mean of N frames has N times the electrons in an ADU; some writers say so in GAIN, some do not.
        if abs(math.log(guess / (value * frames))) < min(0.3, abs(math.log(guess / value))):
            warnings.append(f"the noise is that of the mean of {frames} frames ({key}): gain {value:g} times {frames}")
            value *= frames
    if value is not None and guess is not None:
        poisson = math.sqrt(background / value)
        other = math.sqrt(max(single**2 - poisson**2, 0.0)) * value
        if poisson > 1.5 * single:
            warnings.append(
                f"gain {value:g} e-/ADU predicts a sky noise of {poisson:.4g}, measured {single:.4g} ADU:"
                " stacked, rescaled or resampled data?"
            )
        elif given.gain is None and value >= 20.0 and other > max(300.0, 5.0 * math.sqrt(background * value)):
            warnings.append(f"gain {value:g} e-/ADU makes a noise of {other:.0f} e- besides the sky's: ignored")
            value = None
    if value is None and guess is not None and 0.001 < guess < 1000.0:
        warnings.append(
            f"gain guessed from the sky ({background:.5g}) and its noise ({single:.4g}): {guess:.3g} e-/ADU"
        )
        value = guess
    elif value is None:
        warnings.append("the gain is not known")
    return value
