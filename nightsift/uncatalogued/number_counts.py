"""How deep a catalogue is: what its counts of stars say of the stars that it lacks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

FEWEST = 20  # stars whose counts can tell
MERGED = 0.7  # FWHM within which two stars look like one
CHANCE = 0.05  # fraction of what the catalogue lacks that has another star of it, as bright, at its place
DOUBT = 2.0  # by which the logarithm of the likelihood may be less than the best: 2 standard deviations
_NEW = np.array([0.01, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5])
_BIN, _SPAN = 0.05, 2.5  # mag
_WIDTHS = (0.01, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0)
_SLOPES = np.arange(0, 0.75, 0.05)
_BEYOND = 4.0  # mag below the catalogue's end to which its counts are extrapolated


@dataclass(frozen=True)
class Counts:
    """Stars a magnitude: `density` [a square pixel] times 10^(slope (mag - middle)), of which a share is catalogued.

    That share falls as a cumulative Gaussian of mean `middle` and standard deviation `width` [mag].
    """

    density: float
    slope: float
    middle: float
    width: float

    def missing(self, mag) -> np.ndarray:
        """Return the stars a magnitude and square pixel that the catalogue does not have."""
        return self.density * 10 ** (self.slope * (mag - self.middle)) * ndtr((mag - self.middle) / self.width)


def star_counts(mag: np.ndarray, area: float) -> Counts | None:
    """Fit the counts of a catalogue's faintest 2.5 mag, by the Poisson likelihood on a grid.

    Parameters
    ----------
    mag : array, shape (n,)
        Magnitudes of the catalogue's stars, NaN = not known.
    area : float
        What they cover, square pixels.

    Returns
    -------
    Counts or None
        None below 20 stars.
    """
    mag = mag[np.isfinite(mag)]
    if len(mag) < FEWEST:
        return None
    edges = np.arange(max(mag.min(), np.percentile(mag, 90) - _SPAN), mag.max() + 1.0, _BIN)
    number, _ = np.histogram(mag, edges)
    centre = (edges[1:] + edges[:-1]) / 2
    middle = np.arange(edges[0] + min(0.5, (mag.max() - edges[0]) / 2), mag.max() + _BIN, 0.01)[:, None]
    best, result = -np.inf, None
    for width in _WIDTHS:
        share = np.maximum(ndtr((middle - centre) / width), 1e-9)
        for slope in _SLOPES:
            model = 10 ** (slope * (centre - middle)) * share
            scale = number.sum() / model.sum(axis=1)
            likelihood = np.log(model * scale[:, None]) @ number
            top = int(np.argmax(likelihood))
            if likelihood[top] > best:
                best = likelihood[top]
                result = Counts(float(scale[top] / _BIN / area), float(slope), float(middle[top, 0]), width)
    return result


def seen_counts(counts: Counts, mag: np.ndarray, found: np.ndarray) -> Counts:
    """Return the same counts, ending where the objects of an image say that the catalogue ends at the earliest.

    The fraction of them that is catalogued falls as that of the stars does, from a constant: the rest are new.

    Parameters
    ----------
    counts : Counts
        Those of the catalogue, whose density and slope are kept.
    mag : array, shape (n,)
        Magnitudes of the image's objects.
    found : bool array, shape (n,)
        Is each in the catalogue?
    """
    edges = np.arange(mag.min(), mag.max() + 2 * _BIN, _BIN)
    number, yes = np.histogram(mag, edges)[0], np.histogram(mag[found], edges)[0]
    centre = (edges[1:] + edges[:-1]) / 2
    likelihood = np.empty((len(edges), len(_WIDTHS)))
    for i, width in enumerate(_WIDTHS):
        share = (1 - CHANCE - _NEW[:, None, None]) * ndtr((edges[:, None] - centre) / width) + CHANCE
        likelihood[:, i] = (np.log(share) @ yes + np.log(1 - share) @ (number - yes)).max(axis=0)
    middle = int(np.argmax(likelihood.max(axis=1) >= likelihood.max() - DOUBT))
    width = _WIDTHS[int(np.argmax(likelihood[middle]))]
    density = counts.density * 10 ** (counts.slope * (edges[middle] - counts.middle))
    return Counts(float(density), counts.slope, float(edges[middle]), width)


def depth(counts: Counts, error, fwhm: float, false_alarms: float) -> float:
    """Return the magnitude down to which hardly anything that the catalogue lacks looks so bright.

    Parameters
    ----------
    counts : Counts
    error : callable
        Relative standard deviation of the image's fluxes, by magnitude.
    fwhm : float
        Pixels.
    false_alarms : float
        How many per megapixel may seem brighter, alone or two merged.
    """
    step = 0.05
    grid = np.arange(counts.middle - 3, counts.middle + _BEYOND, step)
    alone = counts.missing(grid) * step
    flux = 10 ** (-0.4 * (grid - counts.middle))
    merged = counts.middle - 2.5 * np.log10(flux[:, None] + flux)
    pairs = alone[:, None] * alone * np.pi * (MERGED * fwhm) ** 2 / 2
    mag, number = np.append(grid, merged.ravel()), np.append(alone, pairs.ravel())
    number, _ = np.histogram(mag, np.append(grid, grid[-1] + step) - step / 2, weights=number)
    brighter = ndtr((flux - flux[:, None]) / (flux * error(grid))) @ number * 1e6
    return float(grid[max(np.searchsorted(brighter, false_alarms) - 1, 0)])
