"""How much more likely objects lie near catalogue stars because a plate solution is right than by chance."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree
from scipy.special import logsumexp

from nightsift import statistics
from nightsift.astrometry import asterism, sip

#: shares of objects that are not in the catalogue, all as likely before
DISTRACTORS = np.array([0.03, 0.1, 0.25, 0.5, 0.75, 0.9, 0.97, 0.99])
#: by what factor the errors may be larger than thought, all as likely before
WIDENINGS = np.array([1.0, 2.0, 4.0])
FOLDS = 5


def log_odds(points, sigma, reference, first, second, order=None) -> float:
    """Return ln of the odds of a solution against chance, on stars that it was not fitted to.

    Lang et al. 2010, AJ 139, 1782, section 3.3: an object is, with probability ``1 - d``, a catalogue star with a
    Gaussian error, else a distractor. Here `d` and the scale of the errors are integrated out, an object counts for
    one star only and a star for one object, and chance has the catalogue's own local density instead of a uniform
    one: in a cluster, objects lie near stars whatever the solution.

    Parameters
    ----------
    points : (n,) complex array
        Objects by the solution, in a plane.
    sigma : (n,) array
        Their errors on each axis.
    reference : (m,) complex array
        Catalogue in the same plane; at least two stars.
    first, second : int arrays
        Pairs that the solution was fitted to.
    order : int, optional
        Of the polynomials that were fitted; None where nothing was.

    Returns
    -------
    float
        Each fifth of the objects is placed by the pairs of the other four fifths.
    """
    placed = points if order is None else _placed(points, sigma, reference, first, second, order)
    tree = cKDTree(np.column_stack([reference.real, reference.imag]))
    near, star, distance, _ = asterism.mutual(placed, reference, np.inf, tree=tree)
    density = asterism.density_of(tree)[star]
    terms = []
    for widening in WIDENINGS:
        variance = (widening * sigma[near]) ** 2
        ratio = np.zeros(len(points))
        ratio[near] = np.exp(-0.5 * distance**2 / variance) / (2 * np.pi * variance * density)
        terms += [np.log(d + (1 - d) * ratio).sum() for d in DISTRACTORS]
    return float(logsumexp(terms) - np.log(len(terms)))


def _placed(points, sigma, reference, first, second, order):
    """Return the points as the pairs of the other folds would have them."""
    unit = np.abs(points).max()
    design = sip.monomials(points / unit, order)
    offset = reference[second] - points[first]
    target = np.column_stack([offset.real, offset.imag])
    fold = np.random.default_rng(1).permutation(len(points)) % FOLDS
    placed = points.copy()
    for number in range(FOLDS):
        train = fold[first] != number
        if train.sum() <= design.shape[1]:
            # too few to tell of the others: far from all stars, they speak against the solution
            placed[fold == number] = 1e6 * unit
            continue
        solution, _ = statistics.clipped_fit(design[first[train]], target[train], sigma[first[train]])
        correction = design[fold == number] @ solution
        placed[fold == number] += correction[:, 0] + 1j * correction[:, 1]
    return placed
