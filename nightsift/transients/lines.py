"""Tell which candidates are beads on a line: what bleeding columns, charge trails and streaks leave in a difference."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

NEAR, FAR, STEP = 2.0, 10.0, 0.5  # FWHM from the candidate: where a line is looked for, and the distance of samples
ASIDE = 2.0  # FWHM between a line and its two parallels
LIT = 2.0  # S/N, of either sign, from which on a place on a line shows something; noise does in 1 of 22
ALIKE = 0.15  # of the candidate's own S/N, which the rest of its line must have at least
ANGLES = 64  # directions: neighbours are half a FWHM apart at the far end
CHUNK = 256  # candidates at a time
GAP = 12.0  # FWHM between neighbours on a string, at most
STRIP = 0.5  # FWHM from its row or column
FEWEST = 4  # on a string: chance puts three on a line too often where there are many


def lit(snr: np.ndarray, x, y, own, fwhm: float) -> np.ndarray:
    """Return how much of the best half line from each position is lit, beyond its parallels.

    About 0 for a source that stands alone, 1 on a line that is bright, dark, or either in turn as far as 10 FWHM in one
    direction. Another source on the same line makes a third.

    Parameters
    ----------
    snr : 2-D float32 array
        S/N map.
    x, y : 1-D arrays
        Pixels.
    own : 1-D array
        S/N of the candidates: what is much fainter than they are did not make them.
    fwhm : float
        Of the PSF, pixels.
    """
    x, y, floor = np.asarray(x, float), np.asarray(y, float), np.maximum(LIT, ALIKE * np.abs(np.asarray(own, float)))
    parts = [slice(k, k + CHUNK) for k in range(0, len(x), CHUNK)]
    return np.concatenate([np.zeros(0), *(_lit(snr, x[part], y[part], floor[part], fwhm) for part in parts)])


def _lit(snr, x, y, floor, fwhm) -> np.ndarray:
    angle = (np.arange(ANGLES) * (2 * np.pi / ANGLES))[:, None]
    along = np.arange(NEAR, FAR + STEP / 2, STEP) * fwhm
    fraction = []
    for aside in (-ASIDE * fwhm, 0.0, ASIDE * fwhm):
        column = np.rint(x[:, None, None] + np.cos(angle) * along - np.sin(angle) * aside).astype(int)
        row = np.rint(y[:, None, None] + np.sin(angle) * along + np.cos(angle) * aside).astype(int)
        inside = (column >= 0) & (row >= 0) & (column < snr.shape[1]) & (row < snr.shape[0])
        value = np.abs(snr[np.where(inside, row, 0), np.where(inside, column, 0)])
        fraction.append(np.mean(inside & (value > floor[:, None, None]), axis=2))
    return np.max(fraction[1] - np.maximum(fraction[0], fraction[2]), axis=1)


def strung(x, y, own, fwhm: float) -> np.ndarray:
    """Tell which of all peaks are strung on a row or column: at least four, each within 12 FWHM of the next.

    Parameters
    ----------
    x, y : 1-D arrays
        Of everything that was found, of either sign, whatever speaks against it; pixels.
    own : 1-D array
        S/N: only what has a fraction of a candidate's own counts as a bead of its string.
    fwhm : float
        Of the PSF, pixels.
    """
    x, y, own = (np.asarray(values, float) for values in (x, y, own))
    result = np.zeros(len(x), bool)
    if len(x) < FEWEST:
        return result
    for along, across in ((x, y), (y, x)):
        # Neighbours on the line: within a box that is as long as the longest string needed, and narrow.
        scaled = np.column_stack([along / (FEWEST * GAP), across / STRIP]) / fwhm
        for i, near in enumerate(cKDTree(scaled).query_ball_point(scaled, 1.0, p=np.inf)):
            beads = np.array([j for j in near if np.abs(own[j]) >= ALIKE * np.abs(own[i])])
            place = np.sort(along[beads])
            gap = np.diff(place)
            # What one source leaves around itself is one bead.
            ends = np.concatenate([[0], np.cumsum(gap > GAP * fwhm)])
            mine = place[ends == ends[np.searchsorted(place, along[i])]]
            result[i] |= 1 + np.sum(np.diff(mine) > fwhm) >= FEWEST
    return result
