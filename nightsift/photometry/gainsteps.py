"""Find gain steps: parts of an image, those of its amplifiers, whose zero points differ."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from nightsift.image import amplifiers
from nightsift.image.amplifiers import Edges
from nightsift.image.polynomial import powers
from nightsift.photometry.zeropoint import STARS_PER_PARAMETER, CalibrationStars, ZeroPointFit, fit

_PARTS = 24  # of a side, between which a lone edge may lie
# Edges of detectors that are read out in equal parts: two or four, and more.
_HALF, _THIRDS, _QUARTERS = (0.0,), (-1 / 3, 1 / 3), (-0.5, 0.0, 0.5)
_PLAIN = ((_HALF, ()), ((), _HALF), (_HALF, _HALF))
_REGULAR = tuple(
    edges
    for wide, high in ((_THIRDS, ()), (_QUARTERS, ()), (_QUARTERS, _HALF))
    for edges in ((wide, high), (high, wide))
)
_GRID = [0.0 if abs(at) < 1e-9 else float(at) for at in np.linspace(-1, 1, _PARTS + 1)[2:-2]]
_LONE = [[((at,), ()) for at in _GRID], [((), (at,)) for at in _GRID]]
_HINT = 8.0  # what edges have to take off the sum of absolute pulls to be tried
_FAR = 5.0  # standard deviations that any residual counts at most
_MARGIN = 20.0  # of the Bayesian information criterion
_SMALLEST = 0.03  # mag; less is no more than a flat field is good for
_SMOOTH = (1, 2, 3, 4)  # orders of the surfaces that a step must be better than
_CHANGE = 0.3  # width of the prior of their terms, mag
_NEAR, _FEW = 1 / 6, 5  # of the image's half side on both sides of an edge, and stars there, that show how sharp it is
_BLUNT = 0.15  # of a step that is wanting there
_WIDTHS = (0.06, 0.1, 0.16, 0.25)  # of the image's half side, of transitions between levels: of 10 to 90 % in 4.4 times
_SHARP = 1e-3  # the same, of an edge
_SHIFTS = np.linspace(-0.2, 0.2, 9)  # of these transitions from the edge, of the image's half side
_CLEARER = 9.0  # in the sum of squared pulls, by which an edge has to be better than a transition
_AGREE = 0.85  # of the share of the stars elsewhere that agree


def find(stars: CalibrationStars, level: ZeroPointFit) -> Edges:
    """Return where the zero point steps, if it does.

    Parameters
    ----------
    stars : Stars
    level : Fit
        One zero point for all of these.

    Returns
    -------
    tuple of two tuples of float
        As `amplifiers.WHOLE`, which says that there is no step.

    Notes
    -----
    A step has to be better than any smooth surface, and as high at the edge as further away: vignetting and clouds have
    none.
    """
    model = {"color": level.color, "max_intrinsic": level.max_intrinsic, "tint": level.tint, "change": _CHANGE}
    likely = _likely(stars, level.residual / level.sigma)
    tried = [fit(replace(stars, edges=edges), 1, **model) for edges in likely]
    # the colours of stars that do not agree blur an edge
    finer = dict.fromkeys(_moved(stars, one) for one in tried if one.edges not in (*_PLAIN, *_REGULAR))
    tried += [fit(replace(stars, edges=edges), 1, **model) for edges in finer if edges not in likely]
    tried = [one for one in tried if _height(one) > _SMALLEST and one.bic < level.bic - _MARGIN]
    if not tried:
        return amplifiers.WHOLE
    # few parts before many, and the middle before another place
    tried.sort(key=lambda one: (one.surface, one.edges not in _PLAIN))
    best = tried[0]
    for one in tried[1:]:
        alike = one.surface == best.surface and (one.edges in _PLAIN) == (best.edges in _PLAIN)
        best = one if one.bic < best.bic - _MARGIN * (not alike) else best
    smooth = min(fit(stars, order, **model).bic for order in _SMOOTH)
    sharp = best.bic < smooth - _MARGIN and _sharp(stars, best) and _abrupt(stars, best)
    return best.edges if sharp else amplifiers.WHOLE


def _height(stepped: ZeroPointFit) -> float:
    """Return by how much the zero points of the parts differ [mag]."""
    return float(np.ptp([0.0, *stepped.coefficients[len(powers(stepped.order)) : stepped.surface]]))


def _sharp(stars: CalibrationStars, stepped: ZeroPointFit) -> bool:
    """Tell whether the stars beside the edges have the whole step."""
    places, wanting, beside = np.stack([stars.u, stars.v]), [], np.zeros(len(stars.u), bool)
    for axis, part in enumerate(stepped.edges):
        for edge in part:
            side = np.sign(places[axis] - edge)
            near = np.abs(places[axis] - edge) < _NEAR
            beside |= near
            across = [places[:, near].copy() for _ in range(2)]
            across[0][axis], across[1][axis] = edge - 1e-6, edge + 1e-6
            step = stepped.at(*across[1]) - stepped.at(*across[0])
            high = np.abs(step) > _SMALLEST
            wanting.append((-side[near] * stepped.residual[near])[high] / step[high])
    shares = np.concatenate(wanting)
    if len(shares) < _FEW:
        return True
    elsewhere = 1.0 if beside.all() else stepped.used[~beside].mean()
    agree = stepped.used[beside].mean() >= _AGREE * elsewhere
    return bool(agree and np.median(shares) < _BLUNT)


def _abrupt(stars: CalibrationStars, stepped: ZeroPointFit) -> bool:
    """Tell whether parallel edges describe the stars better than transitions do, as at the rim of a cloud."""
    axis = 0 if stepped.edges[0] else 1
    edges, first = stepped.edges[axis], len(powers(stepped.order))
    if stepped.edges[1 - axis]:
        return True
    step = amplifiers.columns(stepped.edges, stars.u, stars.v) @ stepped.coefficients[first : stepped.surface]
    pull, place = (stepped.residual + step) / stepped.sigma, (stars.u, stars.v)[axis]
    surface = np.stack([np.ones_like(place), stars.u, stars.v], axis=1) / stepped.sigma[:, None]
    nearest, sums = np.argmin(np.abs(place[:, None] - np.array(edges)), axis=1), np.zeros(2)
    for number, edge in enumerate(edges):
        near = nearest == number
        away, known = place[near] - edge, (surface[near], pull[near], 1 / stepped.sigma[near])
        sums += _left(away, *known, _SHARP), min(_left(away, *known, width) for width in _WIDTHS)
    return bool(sums[0] < sums[1] - _CLEARER)


def _left(away, surface, pull, weight, width: float) -> float:
    """Return the least sum of squared pulls that transitions of that width leave."""
    sums = []
    for shift in _SHIFTS:
        columns, used = np.column_stack([surface, weight * np.tanh((away - shift) / (2 * width))]), np.ones(len(pull))
        for _ in range(3):
            terms = np.linalg.lstsq(columns * used[:, None], pull * used, rcond=None)[0]
            left = pull - columns @ terms
            used = np.minimum(1, _FAR / np.maximum(np.abs(left), 1e-9))
        sums.append(np.minimum(np.square(left), _FAR**2).sum())
    return min(sums)


def _likely(stars: CalibrationStars, pull) -> list[Edges]:
    """Return the divisions that make the pulls smaller: of those with one edge the best in x and in y."""
    lone = [max(divisions, key=lambda one: _gain(stars, pull, one)) for divisions in _LONE]
    both = (lone[0][0], lone[1][1])
    tried = dict.fromkeys([*lone, both, *_PLAIN, *_REGULAR])
    return [edges for edges in tried if _gain(stars, pull, edges) > _HINT]


def hint(stars: CalibrationStars, pull) -> float:
    """Return how much smaller the sum of the stars' pulls becomes with the best edge anywhere."""
    return max(_gain(stars, pull, edges) for lone in _LONE for edges in lone)


def _moved(stars: CalibrationStars, stepped: ZeroPointFit) -> Edges:
    """Return where the edges of a fit are better put; those that cross stay."""
    first = len(powers(stepped.order))
    step = amplifiers.columns(stepped.edges, stars.u, stars.v) @ stepped.coefficients[first : stepped.surface]
    pull = (stepped.residual + step) / stepped.sigma
    axis = [axis for axis in (0, 1) if stepped.edges[axis]]
    return max(_LONE[axis[0]], key=lambda one: _gain(stars, pull, one)) if len(axis) == 1 else stepped.edges


def _gain(stars: CalibrationStars, pull, edges: Edges) -> float:
    """Return by how much smaller the sum of the pulls is about the medians of the cells; many stars have to agree."""
    # many parts, or an edge anywhere, can follow what is no step
    cell, count = amplifiers.cells(edges, stars.u, stars.v), len(amplifiers.fractions(edges))
    if np.bincount(cell, minlength=count).min() < STARS_PER_PARAMETER * (1 if edges in _PLAIN else 2):
        return -np.inf
    return _sum(np.zeros(len(pull), int), 1, pull) - _sum(cell, count, pull)


def _sum(cell, count: int, pull) -> float:
    """Return the sum of the pulls about the median of their cell."""
    middle = np.array([np.median(pull[cell == one]) for one in range(count)])
    return float(np.minimum(np.abs(pull - middle[cell]), _FAR).sum())
