"""How much of what is there an image's search finds: the efficiency of fakes as a function of S/N or magnitude."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise

import numpy as np
from scipy.special import betaincinv, erf, erfinv

GRID = (40, 24, 12)  # middles, widths and plateaus that are tried at once
OTHERS = (1, 2), (0, 2), (0, 1)  # axes beside each
ZOOMS = 3  # times that these are set more closely about what the fakes allow
UNLIKELY = 9.0  # fall of the logarithm of a probability below its highest from where on it does not count
SHARPEST = 0.003  # least width of the rise, in the middle half of the fakes
FEWEST = 12  # fakes that a curve needs
PLATEAU = 0.3  # standard deviation of the prior that keeps the plateau at 1 where no bright fake says otherwise
CHANCE = 1e-6  # least probability of anything
SIGMAS = 0.1587, 0.5, 0.8413  # of a distribution: its middle, and one standard deviation to each side


@dataclass(frozen=True)
class Curve:
    """Efficiency top x (1 + erf((s - middle) / (width sqrt 2))) / 2.

    Attributes
    ----------
    top, middle, width : float
        Plateau, place and width of the rise.
    half, half_err, ninety, ninety_err : float
        Where the efficiency is 50 and 90 per cent, with standard deviations; NaN where it never is, or where the fakes
        do not bound the place on both sides.
    number, found : int
        Fakes, and how many of them were found.
    bins : tuple
        (lower edge, upper edge, fakes, found) of each bin.
    """

    top: float
    middle: float
    width: float
    half: float
    half_err: float
    ninety: float
    ninety_err: float
    number: int
    found: int
    bins: tuple

    def to_dict(self) -> dict:
        """Return it as plain types."""
        return asdict(self)


def completeness(value, found, edges) -> Curve | None:
    """Fit the efficiency curve.

    Parameters
    ----------
    value : 1-D array
        S/N of each fake; for magnitudes, their negatives, so that larger is brighter.
    found : 1-D bool array
    edges : sequence of float
        Edges of the bins that are counted beside the fit.

    Returns
    -------
    Curve or None
        None with fewer than `FEWEST` fakes, or if none or all were found.

    Notes
    -----
    All curves are weighed by their likelihood. `top`, `middle` and `width` are those of the mean over them, `half`
    and `ninety` the medians of where they reach these levels, with half the width of the central 68.3 per cent as
    error. So the error stays true where the likelihood has no single peak: where all fakes above some gap were found
    and none below, it is the gap's. The prior is flat, but for a weak one for a full plateau.
    """
    value, found = np.asarray(value, float), np.asarray(found, bool)
    good = np.isfinite(value)
    value, found = value[good], found[good]
    if len(value) < FEWEST or found.all() or not found.any():
        return None
    axes = _axes(value)
    weight = _posterior(value, found, axes)
    for _ in range(ZOOMS):
        axes = _axes(value, [axis.likely(weight.max(axis=rest)) for axis, rest in zip(axes, OTHERS, strict=True)])
        weight = _posterior(value, found, axes)
    middle, width, top = np.meshgrid(*(axis.place for axis in axes), indexing="ij")
    bins = []
    for low, high in pairwise(edges):
        inside = (value >= low) & (value < high)
        bins.append((float(low), float(high), int(inside.sum()), int(found[inside].sum())))
    return Curve(
        float(np.sum(weight * top)),
        float(np.sum(weight * middle)),
        float(np.exp(np.sum(weight * np.log(width)))),
        *_limit(weight, middle, width, top, 0.5, value),
        *_limit(weight, middle, width, top, 0.9, value),
        len(value),
        int(found.sum()),
        tuple(bins),
    )


def interval(found, number) -> tuple[np.ndarray, np.ndarray]:
    """Return the central 68.3 per cent interval of an efficiency from counts (Cameron 2011, PASA 28, 128, eq. 3).

    It is stretched to the observed share where that lies beyond: none or all found.
    """
    found, number = np.asarray(found, float), np.asarray(number, float)
    low, high = (betaincinv(found + 1, number - found + 1, share) for share in (0.1587, 0.8413))
    observed = found / np.maximum(number, 1)
    return np.minimum(low, observed), np.maximum(high, observed)


def efficiency(value, top, middle, width):
    """Return the share of sources found at `value`: the function of `Curve`."""
    return top * (1 + erf((value - middle) / (width * np.sqrt(2)))) / 2


@dataclass(frozen=True)
class _Axis:
    """Values of a parameter that are tried, in order of their coordinates, and the prior of each."""

    at: np.ndarray
    place: np.ndarray
    prior: np.ndarray

    @classmethod
    def of(cls, number: int, low: float, high: float, place, prior) -> _Axis:
        """Space `number` values evenly between two coordinates, which `place` turns into values."""
        at = low + (np.arange(number) + 0.5) / number * (high - low)
        return cls(at, place(at), prior(at))

    def likely(self, weight) -> tuple[float, float]:
        """Return the coordinates that bound what is not unlikely, one step wider."""
        shown = np.flatnonzero(weight > np.exp(-UNLIKELY) * weight.max())
        step = (self.at[-1] - self.at[0]) / (len(self.at) - 1)
        return self.at[shown[0]] - step, self.at[shown[-1]] + step


def _axes(value, bounds=None) -> tuple[_Axis, _Axis, _Axis]:
    """Return middles, widths and plateaus to try, within bounds of their coordinates.

    A middle is as likely in any quarter of the fakes, or as far again beyond them, a width in any decade: these are
    their coordinates. Those of the plateaus make these closest to each other near 1.
    """
    low, *inner, high = np.percentile(value, [0, 25, 50, 75, 100])
    quarters = [2 * low - inner[0], low, *inner, high, 2 * high - inner[-1]]
    core = max(inner[-1] - inner[0], 1e-9 * np.abs(value).max(), 1e-300)
    whole = (0.0, len(quarters) - 1.0), np.log([SHARPEST * core, max(np.ptp(value), core)]), (0.0, 1.0)
    bounds = [np.clip(mine, *all_) for mine, all_ in zip(bounds or whole, whole, strict=True)]
    return (
        _Axis.of(GRID[0], *bounds[0], lambda at: np.interp(at, range(len(quarters)), quarters), np.ones_like),
        _Axis.of(GRID[1], *bounds[1], np.exp, np.ones_like),
        _Axis.of(GRID[2], *bounds[2], lambda at: 1 - at**2, lambda at: at * np.exp(-0.5 * (at**2 / PLATEAU) ** 2)),
    )


def _posterior(value, found, axes: list[_Axis]) -> np.ndarray:
    """Return the probability of each combination of middle, width and plateau; their sum is 1."""
    middle, width, top = (axis.place for axis in axes)
    share = efficiency(value, 1.0, middle[:, None, None], width[None, :, None])
    log = np.log(np.maximum(share[..., found], CHANCE)).sum(axis=-1)[..., None] + found.sum() * np.log(top)
    missed = share[..., ~found]
    for number, plateau in enumerate(top):
        log[..., number] += np.log1p(-np.minimum(plateau * missed, 1 - CHANCE)).sum(axis=-1)
    weight = np.exp(log - log.max()) * np.einsum("m,w,t->mwt", *(axis.prior for axis in axes))
    return weight / weight.sum()


def _limit(weight, middle, width, top, level: float, value) -> tuple[float, float]:
    """Return where the efficiency reaches a level, and the standard deviation of that; NaN where it is not bounded."""
    reached = top > level
    with np.errstate(invalid="ignore", divide="ignore"):
        place = np.where(reached, middle + width * np.sqrt(2) * erfinv(2 * level / top - 1), np.inf).ravel()
    order = np.argsort(place)
    total = np.cumsum(weight.ravel()[order])
    low, center, high = (place[order][min(np.searchsorted(total, share), len(total) - 1)] for share in SIGMAS)
    if not value.min() < low <= high < value.max():
        return np.nan, np.nan
    return float(center), float((high - low) / 2)
