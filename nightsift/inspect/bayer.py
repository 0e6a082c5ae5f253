"""Mosaics of colour filters, as they come out of colour cameras: images of three bands in one."""

from __future__ import annotations

import re

import numpy as np

from nightsift.errors import Rejected
from nightsift.header.cards import get
from nightsift.statistics import SIGMA_PER_MAD

CARDS = ("BAYERPAT", "COLORTYP", "CFAPAT", "FILTER", "FILTNAM", "FILTER1")
_PATTERN = re.compile(r"^(RGGB|BGGR|GRBG|GBRG)$")
_SURE = 8.0  # sigma
_ALIKE = 0.3  # of the difference to red and blue, within which the two greens agree
# Differences of sky, in sigma of a pixel, and of stars, relative: what one colour never shows, and what is enough where
# the header speaks of a mosaic.
_SKY, _SKY_SAID = 0.5, 0.05
_STARS = 0.1
_BRIGHT = 20.0  # sigma
_FEWEST, _ENOUGH = 30, 200_000  # pixels


def refuse_mosaic(residual, header, bad, noise: float, warnings: list[str]) -> None:
    """Raise `Rejected` where an image is a mosaic of colour filters, by header and pixels or by pixels alone.

    Parameters
    ----------
    residual : ndarray
        Image without background, ADU.
    header : astropy.io.fits.Header
    bad : ndarray
        Boolean mask.
    noise : float
        Sigma of the sky, ADU.
    warnings : list of str
        What is found to say is appended.
    """
    said = next((key for key in CARDS if _PATTERN.match(str(get(header, key) or "").strip().upper())), None)
    by_sky = _sky(residual / np.float32(noise), bad)
    if by_sky > (_SKY_SAID if said else _SKY) or (said and _stars(residual, bad, noise) > _STARS):
        why = f"{said} = {get(header, said)}" if said else "its pixels differ in 2 x 2"
        raise Rejected(
            f"the image is a raw mosaic of colour filters ({why}): debayer it, or take out the pixels of one colour"
        )
    if said:
        warnings.append(f"{said} = {get(header, said)}, but the pixels are of one colour: not taken for a mosaic")


def _sky(residual, bad) -> float:
    """Return how far red or blue pixels lie off the green ones on the sky, in sigma of a pixel; 0 for no mosaic."""
    # Pairs of rows, as many as tell.
    row = np.arange(0, residual.shape[0] - 1, 2 * max(1, residual.size // _ENOUGH))
    row = np.stack([row, row + 1], axis=1).ravel()
    residual, bad = residual[row], bad[row]
    mean, error, sigma = np.zeros((3, 2, 2))
    for row, column in np.ndindex(2, 2):
        own = np.s_[row::2, column::2]
        value = residual[own][~bad[own]]
        if value.size < _FEWEST:
            return 0.0
        middle = np.median(value)
        width = SIGMA_PER_MAD * np.median(np.abs(value - middle))
        # Values that are counted have coarse medians.
        near = value[np.abs(value - middle) <= 3.0 * width]
        mean[row, column], sigma[row, column] = near.mean(), max(near.std(), 1e-30)
        error[row, column] = sigma[row, column] / np.sqrt(near.size)
    return _off(mean, error) / float(sigma.mean())


def _stars(residual, bad, noise: float) -> float:
    """Return how far red or blue pixels lie off the green ones on stars, relative; 0 for no mosaic."""
    centre = residual[1:-1, 1:-1]
    beside = 0.25 * (residual[:-2, 1:-1] + residual[2:, 1:-1] + residual[1:-1, :-2] + residual[1:-1, 2:])
    hidden = bad[1:-1, 1:-1] | bad[:-2, 1:-1] | bad[2:, 1:-1] | bad[1:-1, :-2] | bad[1:-1, 2:]
    bright = ~hidden & (np.minimum(centre, beside) > _BRIGHT * noise)
    mean, error = np.zeros((2, 2, 2))
    for row, column in np.ndindex(2, 2):
        own = np.s_[row::2, column::2]
        value = np.log(centre[own][bright[own]] / beside[own][bright[own]])
        if value.size < _FEWEST:
            return 0.0
        mean[row, column] = np.median(value)
        error[row, column] = 1.2533 * value.std() / np.sqrt(value.size)
    return _off(mean, error)


def _off(mean, error) -> float:
    """Return how far the pixels of one diagonal lie off those of the other, which agree; 0 where none agrees so well.

    Columns or rows that alternate, as amplifiers make them, have no diagonal that does.
    """
    for greens, others in ((((0, 0), (1, 1)), ((0, 1), (1, 0))), (((0, 1), (1, 0)), ((0, 0), (1, 1)))):
        green = 0.5 * (mean[greens[0]] + mean[greens[1]])
        off = max(abs(mean[other] - green) for other in others)
        agree = abs(mean[greens[0]] - mean[greens[1]])
        if off > _SURE * error.max() and agree < _ALIKE * off:
            return float(off)
    return 0.0
