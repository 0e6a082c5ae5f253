"""Pattern matching: which point of one list is which of another, from the figures that the points form.

Points are complex numbers here, so that a similarity is ``q = a * p + b`` and a mirrored one ``q = a * conj(p) + b``.
Both lists come with the brightest first.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.spatial import cKDTree

from nightsift import statistics
from nightsift.astrometry import sip

#: ln of the odds against chance that a match needs beyond the number of hypotheses tried: 1 in 5e10
OVERWHELMING = 25.0
VOTE_BIN = 3.0
#: fraction of the mean distance between points that a match may be off: 7 % of random points would match
SPARSE = 0.15
#: points followed at most: the stage that called matches the rest
MOST = 3000
#: how far into the lists, in units of where a hypothesis came from, each step of its refinement goes
GROWTH = (1, 1, 1, 1, 2, 2, 4, 4, 4)


@dataclass(frozen=True)
class Limits:
    """The similarities that are looked for, from points in pixels about the image's centre to the catalogue's plane."""

    shift: float
    rotation: float = 180.0
    scale: tuple[float, float] = (0.9, 1.1)
    flip: bool = False


@dataclass(frozen=True)
class Match:
    """Pairs of points, and ln of the odds against so many by chance; `flipped` if the pattern is mirrored."""

    first: np.ndarray
    second: np.ndarray
    log_odds: float
    flipped: bool


def match(points, reference, area, limits, min_matches) -> Match | None:
    """Match two patterns of points.

    Hypotheses come from the vote of the offsets of all pairs (good when rotation and scale are known), then from
    quads of neighbours (Lang et al. 2010, AJ 139, 1782, section 2.2) in brighter and fainter parts of the lists. The
    best of each kind are refined; of those whose matches are beyond chance, the first that matches half of
    what could be, all over the image, is taken, else the one that matches most.

    Parameters
    ----------
    points : (n,) complex array
        Pixels, relative to the centre of the image, the brightest first.
    reference : (m,) complex array
        Catalogue in the tangent plane, the brightest first; its origin is where the image's centre is expected.
    area : float
        Area of the image in square pixels.
    limits : Limits
        What is looked for.
    min_matches : int
        Pairs below which nothing is a match.

    Returns
    -------
    Match or None
        None where no hypothesis stands out from chance.
    """
    tested, best = 1, None
    extent = np.pi * np.quantile(np.abs(reference), 0.9) ** 2 / 0.9
    known = _Reference(reference)
    sides = [
        (flipped, np.conj(points) if flipped else points) for flipped in ((True, False) if limits.flip else (False,))
    ]
    for step in zip(*(_hypotheses(side, known, area, limits) for _, side in sides), strict=True):
        for (flipped, side), (hypotheses, n, m) in zip(sides, step, strict=True):
            if not len(hypotheses):
                continue
            tested += len(hypotheses)
            scores = _scores(hypotheses, side[:n], known, m, area)
            for number in np.argsort(-scores, kind="stable")[:6]:
                found = _refine(hypotheses[number], side, known, area, (n, m)) if scores[number] >= 2 else None
                if not found or len(found[0]) < min_matches or found[2] < OVERWHELMING + np.log(tested):
                    continue
                if best is None or len(found[0]) > len(best.first):
                    best = Match(*found, flipped)
                inside = min(GROWTH[-1] * m, len(reference)) * area * np.abs(hypotheses[number][0]) ** 2 / extent
                count = min(GROWTH[-1] * n, len(points), MOST)
                if len(found[0]) > 0.5 * min(count, inside) and evenness(side[:count], found[0]) > 0.35:
                    return Match(*found, flipped)
    # what holds for a part of the stars only is taken when nothing better turns up
    return best


def evenness(points, matched):
    """Return the matched fraction of the worst quadrant in units of the overall fraction.

    A fit that suits a part of the image only matches well there and by chance elsewhere. Quadrants with fewer than
    five points do not tell.
    """
    quadrant = (points.real > 0) * 2 + (points.imag > 0)
    everything, hits = np.bincount(quadrant, minlength=4), np.bincount(quadrant[matched], minlength=4)
    told = everything >= 5
    share = hits[told] / everything[told]
    return float(share.min() / max(len(matched) / len(points), 1e-9)) if told.any() else 1.0


def _hypotheses(points, reference, area, limits):
    """Yield ``(similarities, n, m)``: hypotheses from the `n` and `m` brightest, the likely and cheap ones first."""
    if limits.rotation < 90:
        for n, ratio in ((200, 1.5), (200, 6.0)):
            n = min(n, len(points))
            m = _depth(reference.points, n * ratio, area, limits)
            yield _votes(points[:n], reference.points[:m], limits), n, m
    seen = set()
    for n, ratios in ((40, (1.0, 2.5)), (100, (1.0, 2.5, 0.4)), (40, (6.0, 15.0)), (250, (1.0, 2.5))):
        n = min(n, len(points))
        for ratio in ratios:
            for scale in _scale_steps(limits):
                m = _depth(reference.points, n * ratio, area, limits, scale)
                if (n, m) not in seen:
                    seen.add((n, m))
                    yield _quad_hypotheses(points[:n], reference, m, limits), n, m


def _scale_steps(limits):
    """Return scales that stand for the range looked for, so that the depth of the lists can be matched for each."""
    low, high = limits.scale
    steps = max(1, round(np.log(high / low) / np.log(1.6)))
    return low * (high / low) ** ((np.arange(steps) + 0.5) / steps)


def _depth(reference, count, area, limits, scale=None):
    """Return how many of `reference` to take so that an image within the limits holds some `count` of them."""
    scale = np.sqrt(limits.scale[0] * limits.scale[1]) if scale is None else scale
    reach = limits.shift + np.sqrt(area / np.pi) * scale
    inside = np.cumsum(np.abs(reference) < reach)
    wanted = count * np.pi * reach**2 / (area * scale**2)
    return int(max(min(len(reference), np.searchsorted(inside, wanted) + 1), min(len(reference), 8)))


def _votes(points, reference, limits):
    """Return pure shifts that many pairs agree on."""
    offsets = (reference[None, :] - points[:, None]).ravel()
    offsets = offsets[np.abs(offsets) <= limits.shift]
    if not len(offsets):
        return np.empty((0, 2), complex)
    side = int(2 * limits.shift / VOTE_BIN) + 4
    column = ((offsets.real + limits.shift) / VOTE_BIN).astype(int) + 1
    row = ((offsets.imag + limits.shift) / VOTE_BIN).astype(int) + 1
    counts = np.bincount(row * side + column, minlength=side * side).reshape(side, side)
    # a peak may lie on a border of bins: every bin gets the votes of a window of 2 x 2
    window = counts[:-1, :-1] + counts[1:, :-1] + counts[:-1, 1:] + counts[1:, 1:]
    best = np.argsort(-window, axis=None, kind="stable")[:5]
    row, column = np.unravel_index(best, window.shape)
    shift = column * VOTE_BIN - limits.shift + 1j * (row * VOTE_BIN - limits.shift)
    return np.column_stack([np.ones(len(best), complex), shift])


def quads(points, neighbours):
    """Return quads of each point with its neighbours, and their codes.

    Parameters
    ----------
    points : (n,) complex array
        The points.
    neighbours : int
        Nearest neighbours that a point forms quads with.

    Returns
    -------
    index : (q, 4) int array
        Points A, B (the most distant pair), C, D of every quad.
    code : (q, 4) float array
        Positions of C and D in the frame with A at 0 and B at 1: unchanged by shift, rotation and scale.
    """
    neighbours = min(neighbours, len(points) - 1)
    if neighbours < 3:
        return np.empty((0, 4), int), np.empty((0, 4))
    plane = np.column_stack([points.real, points.imag])
    _, near = cKDTree(plane).query(plane, k=neighbours + 1)
    subsets = np.array(list(combinations(range(1, neighbours + 1), 3)))
    index = np.column_stack([np.repeat(near[:, 0], len(subsets)), near[:, subsets].reshape(-1, 3)])
    index = np.unique(np.sort(index, axis=1), axis=0)
    corner = points[index]
    pairs = np.array(list(combinations(range(4), 2)))
    longest = np.argmax(np.abs(corner[:, pairs[:, 0]] - corner[:, pairs[:, 1]]), axis=1)
    order = np.concatenate([pairs, pairs[::-1]], axis=1)[longest]
    index = np.take_along_axis(index, order, axis=1)
    a, b, c, d = points[index].T
    good = np.abs(b - a) > 0
    index, a, b, c, d = index[good], a[good], b[good], c[good], d[good]
    c, d = (c - a) / (b - a), (d - a) / (b - a)
    turn = c.real + d.real > 1
    index[turn] = index[turn][:, [1, 0, 2, 3]]
    c, d = np.where(turn, 1 - c, c), np.where(turn, 1 - d, d)
    swap = c.real > d.real
    index[swap] = index[swap][:, [0, 1, 3, 2]]
    c, d = np.where(swap, d, c), np.where(swap, c, d)
    return index, np.column_stack([c.real, c.imag, d.real, d.imag])


def _quad_hypotheses(points, reference, m, limits, most=20000):
    """Return the similarities ``(a, b)`` within the limits that carry a quad of one list to one of the other."""
    none = np.empty((0, 2), complex)
    index, code = quads(points, 11 if len(points) < 25 else 8 if len(points) < 150 else 6)
    index_ref, tree = reference.quads(m)
    if not len(code) or not len(index_ref):
        return none
    size = np.abs(points[index[:, 1]] - points[index[:, 0]])
    tolerance = np.minimum(0.01 + 1.0 / size, 0.03)
    near = tree.query_ball_point(code, tolerance)
    count = np.fromiter(map(len, near), int, len(near))
    if not count.sum():
        return none
    first = points[index[np.repeat(np.arange(len(near)), count)]]
    second = reference.points[index_ref[np.concatenate([np.asarray(item, int) for item in near if item])]]
    mean_first, mean_second = first.mean(axis=1), second.mean(axis=1)
    delta = first - mean_first[:, None]
    a = (np.conj(delta) * (second - mean_second[:, None])).sum(axis=1) / (np.abs(delta) ** 2).sum(axis=1)
    b = mean_second - a * mean_first
    good = (np.abs(a) >= limits.scale[0]) & (np.abs(a) <= limits.scale[1]) & (np.abs(b) <= limits.shift)
    good &= np.abs(np.angle(a, deg=True)) <= limits.rotation
    return np.column_stack([a, b])[good][:most]


class _Reference:
    """Points with a search tree and the local density of their brightest, each made once."""

    def __init__(self, points):
        self.points = points
        self._made = {}

    def brightest(self, count):
        """Return the tree of the first `count` points and the number density around each of them."""
        if count not in self._made:
            tree = cKDTree(np.column_stack([self.points[:count].real, self.points[:count].imag]))
            self._made[count] = tree, density_of(tree)
        return self._made[count]

    def quads(self, count):
        """Return the quads of the first `count` points and the tree of their codes."""
        if ("quads", count) not in self._made:
            index, code = quads(self.points[:count], 8 if count < 1000 else 6 if count < 5000 else 5)
            self._made["quads", count] = index, cKDTree(code)
        return self._made["quads", count]


def _scores(hypotheses, points, reference, m, area):
    """Return ln of the odds against chance of each hypothesis, for ranking only."""
    tree, density = reference.brightest(m)
    scores = np.empty(len(hypotheses))
    for start in range(0, len(hypotheses), 1000):
        a, b = hypotheses[start : start + 1000].T
        moved = a[:, None] * points + b[:, None]
        distance, nearest = tree.query(np.stack([moved.real, moved.imag], axis=-1))
        # a quad fixes the rotation to some parts in a hundred only, and lenses distort: look wider in sparse lists
        wide = SPARSE / np.sqrt(density[nearest] + len(points) / area / np.abs(a[:, None]) ** 2)
        best = np.full(len(a), -np.inf)
        for pixels in (2.0, 6.0, 18.0):
            radius = np.minimum(pixels * np.abs(a[:, None]), wide)
            expected = -np.expm1(-np.pi * radius**2 * density[nearest])
            best = np.maximum(best, _surprise((distance < radius).sum(axis=1), expected.sum(axis=1)))
        scores[start : start + 1000] = best
    return scores


def density_of(tree, neighbours=12):
    """Return the number density of the tree's points around each of them."""
    neighbours = min(neighbours, tree.n - 1)
    distance = tree.query(tree.data, k=[neighbours + 1])[0][:, 0]
    return neighbours / (np.pi * np.maximum(distance, 1e-12) ** 2)


def _surprise(count, expected):
    """Return the Chernoff bound of -ln P(N >= count) for a Poisson variable."""
    count, expected = np.asarray(count, float), np.maximum(expected, 1e-9)
    ratio = np.maximum(count / expected, 1.0)
    return np.where(count > expected, count * np.log(ratio) - count + expected, 0.0)


def _refine(hypothesis, points, reference, area, depth):
    """Follow a hypothesis from the bright to the faint and from linear to cubic; return pairs and ln odds."""
    a, b = hypothesis
    unit = np.abs(a)
    moved = a * points + b
    n, m = depth
    fine = np.inf
    best = None
    for step, growth in enumerate(GROWTH):
        count, count_ref = min(n * growth, len(points), MOST), min(m * growth, len(reference.points))
        tree, near = reference.brightest(count_ref)
        density = count / area / unit**2
        # a shrunken radius would hold on to the part of the image that the first fit happened to suit
        limit = fine if step > 5 else 20.0 * unit
        radius = min(SPARSE / np.sqrt(max(density, np.median(near))), limit)
        first, second, distance, expected = mutual(moved[:count], reference.points[:count_ref], radius, near, tree)
        if len(first) < 4:
            return best
        order = 1 if len(first) < 24 or step < 2 else 2 if len(first) < 50 or step < 4 else 3
        design = sip.monomials(points / np.sqrt(area), order)
        if order > 1 and statistics.leverage(design[first], design[:count]).max() > 4:
            design = design[:, :3]
        target = tree.data[second]
        solution, used = statistics.clipped_fit(design[first], target)
        fitted = design @ solution
        moved = fitted[:, 0] + 1j * fitted[:, 1]
        scatter = statistics.robust_sigma((fitted[first] - target)[used])
        fine = max(5 * scatter, 1.0 * unit)
        if step >= 3:
            # every star that the polynomial could bend itself to is no evidence
            odds = max(
                float(_surprise((distance < r).sum() - design.shape[1], expected * (r / radius) ** 2))
                for r in radius * np.array([1.0, 0.5, 0.25])
            )
            if best is None or odds > best[2] or len(first) > len(best[0]):
                best = first, second, max(odds, best[2] if best else 0.0)
    return best


def mutual(points, reference, radius, density=None, tree=None):
    """Return mutual nearest neighbours within `radius`.

    Parameters
    ----------
    points, reference : complex arrays
        Points in the same plane.
    radius : float
        Largest distance.
    density : array, optional
        Number density of `reference` at its points.
    tree : cKDTree, optional
        Of `reference`.

    Returns
    -------
    first, second : int arrays
        Indices of the pairs.
    distance : array
        Their distances.
    expected : float
        Matches expected by chance; 0 without `density`.
    """
    plane = np.column_stack([points.real, points.imag])
    plane_ref = np.column_stack([reference.real, reference.imag])
    tree = cKDTree(plane_ref) if tree is None else tree
    distance, nearest = tree.query(plane)
    expected = 0.0 if density is None else float(-np.expm1(-np.pi * radius**2 * density[nearest]).sum())
    first = np.flatnonzero(distance <= radius)
    second = nearest[first]
    _, back = cKDTree(plane).query(plane_ref[second])
    good = back == first
    return first[good], second[good], distance[first[good]], expected
