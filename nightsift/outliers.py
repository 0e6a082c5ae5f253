"""How unlike the stars of its image each object is in shape: a label, which nothing rests on."""

from __future__ import annotations

import numpy as np
from astropy.table import Table

TREES, SAMPLE, DEPTH = 100, 256, 8
FEWEST = 30  # objects without flags that tell what is usual
LIKE_STARS = 0.3  # log width, relative to the stars, within which these are
IN_BIN = 60  # objects of similar flux that tell the middle and the scatter of a shape
CHUNK = 20_000


def outlier_score(objects: Table, seeing) -> np.ndarray:
    """Return how unusual the shapes of objects are for stars of their flux and place.

    Parameters
    ----------
    objects : Table
        ``x, y, flux, fwhm, peak, a, b, flags``.
    seeing : nightsift.seeing.Seeing

    Returns
    -------
    1-D array
        The anomaly score of an isolation forest (Liu, Ting & Zhou 2008, ICDM, eq. 2): below 0.5 for what is like most
        unflagged objects about as wide as the stars, towards 1 for what is like none. NaN where these are too few.

    Notes
    -----
    The pre-filter of STDWeb (Karpov 2024, arXiv:2411.16470, section 3.2) with other shapes: width and concentration
    relative to the stars at the same place, isophotal size and axis ratio. The middle and the scatter that objects
    of similar flux have are divided out.
    """
    flux, clean = np.asarray(objects["flux"], float), np.asarray(objects["flags"]) == 0
    features = _features(objects, seeing, flux)
    with np.errstate(invalid="ignore"):
        usable = clean & np.isfinite(features).all(axis=1) & (np.abs(features[:, 0]) < LIKE_STARS)
    if usable.sum() < FEWEST:
        return np.full(len(flux), np.nan)
    features = _standardised(features, np.log(np.maximum(flux, 1e-30)), usable)
    return _isolation(features, features[usable], np.random.default_rng(0))


def _features(objects, seeing, flux) -> np.ndarray:
    width = seeing.at(objects["x"], objects["y"])
    a, b = (np.maximum(np.asarray(objects[name], float), 1e-3) for name in ("a", "b"))
    with np.errstate(invalid="ignore", divide="ignore"):
        concentration = np.log(np.asarray(objects["peak"], float) * width**2 / flux)
        return np.column_stack(
            [np.log(np.asarray(objects["fwhm"], float) / width), concentration, np.log(a * b / width**2), b / a]
        )


def _standardised(features, brightness, usable) -> np.ndarray:
    """Return features less their middle, over their scatter, at the same brightness; far out on a logarithmic scale."""
    order = np.flatnonzero(usable)[np.argsort(brightness[usable], kind="stable")]
    groups = np.array_split(order, max(1, len(order) // IN_BIN))
    places = [np.median(brightness[group]) for group in groups]
    result = np.empty_like(features)
    for column, values in enumerate(features.T):
        middle = np.array([np.median(values[group]) for group in groups])
        scatter = [1.4826 * np.median(np.abs(values[g] - m)) for g, m in zip(groups, middle, strict=True)]
        off = values - np.interp(brightness, places, middle)
        result[:, column] = off / np.maximum(np.interp(brightness, places, scatter), 1e-3)
    return np.arcsinh(np.clip(np.nan_to_num(result, nan=1e3), -1e3, 1e3))


def _isolation(values, known, rng) -> np.ndarray:
    """Return the anomaly scores of `values` in a forest grown on `known`, both (n, features)."""
    size = min(SAMPLE, len(known))
    length = np.zeros(len(values))
    for _ in range(TREES):
        tree = _grow(known[rng.permutation(len(known))[:size]], rng)
        for first in range(0, len(values), CHUNK):
            length[first : first + CHUNK] += _lengths(values[first : first + CHUNK], *tree)
    return 2 ** (-length / TREES / _expected(np.array([size]))[0])


def _grow(sample, rng):
    """Split a sample at random, level by level: return each node's feature and threshold, and the leaves' path length.

    The children of node k are 2 k + 1 and 2 k + 2. A node that cannot be split sends all that it has to the left.
    """
    feature = np.zeros(2**DEPTH - 1, int)
    threshold = np.full(2**DEPTH - 1, np.inf)
    steps, node = np.zeros(2 ** (DEPTH + 1) - 1), np.zeros(len(sample), int)
    for level in range(DEPTH):
        first, count = 2**level - 1, 2**level
        low, high = np.full((count, sample.shape[1]), np.inf), np.full((count, sample.shape[1]), -np.inf)
        np.minimum.at(low, node - first, sample)
        np.maximum.at(high, node - first, sample)
        wide = high > low  # an empty node has neither
        here = np.arange(first, first + count)
        feature[here] = np.argmax(np.where(wide, rng.random(wide.shape), -1), axis=1)
        share, pick = rng.random(count), (np.arange(count), feature[here])
        split = wide.any(axis=1)
        low, high = low[pick], high[pick]
        threshold[here[split]] = low[split] + share[split] * (high[split] - low[split])
        for child in (1, 2):
            steps[2 * here + child] = steps[here] + split
        node = 2 * node + 1 + (sample[np.arange(len(sample)), feature[node]] > threshold[node])
    leaves = np.bincount(node - (2**DEPTH - 1), minlength=2**DEPTH)
    return feature, threshold, steps[2**DEPTH - 1 :] + _expected(leaves)


def _lengths(values, feature, threshold, ends) -> np.ndarray:
    node, rows = np.zeros(len(values), int), np.arange(len(values))
    for _ in range(DEPTH):
        node = 2 * node + 1 + (values[rows, feature[node]] > threshold[node])
    return ends[node - len(feature)]


def _expected(count) -> np.ndarray:
    """Return the mean path length of an unsuccessful search in a binary tree of that many leaves (ibid., eq. 1)."""
    number = np.maximum(count, 2).astype(float)
    mean = 2 * (np.log(number - 1) + np.euler_gamma) - 2 * (number - 1) / number
    return np.where(count > 2, mean, np.where(count == 2, 1.0, 0.0))
