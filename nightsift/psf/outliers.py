"""How unlike the stars of its image each object is in shape: a label, which nothing rests on."""

from __future__ import annotations

import numpy as np
from astropy.table import Table

from nightsift.statistics import SIGMA_PER_MAD

TREES, SAMPLE = 100, 256
FEWEST = 30  # objects without flags that tell what is usual
LIKE_STARS = 0.3  # log width, relative to the stars, within which these are
IN_BIN = 60  # objects of similar flux that tell the middle and the scatter of a shape


def outlier_score(objects: Table, seeing) -> np.ndarray:
    """Return how unusual the shapes of objects are for stars of their flux and place.

    Parameters
    ----------
    objects : Table
        ``x, y, flux, fwhm, peak, a, b, flags``.
    seeing : nightsift.image.seeing.Seeing

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
    from sklearn.ensemble import IsolationForest  # late: it takes half a second

    flux, clean = np.asarray(objects["flux"], float), np.asarray(objects["flags"]) == 0
    features = _features(objects, seeing, flux)
    with np.errstate(invalid="ignore"):
        usable = clean & np.isfinite(features).all(axis=1) & (np.abs(features[:, 0]) < LIKE_STARS)
    if usable.sum() < FEWEST:
        return np.full(len(flux), np.nan)
    features = _standardised(features, np.log(np.maximum(flux, 1e-30)), usable)
    forest = IsolationForest(n_estimators=TREES, max_samples=min(SAMPLE, int(usable.sum())), random_state=0)
    return -forest.fit(features[usable]).score_samples(features)


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
        scatter = [SIGMA_PER_MAD * np.median(np.abs(values[g] - m)) for g, m in zip(groups, middle, strict=True)]
        off = values - np.interp(brightness, places, middle)
        result[:, column] = off / np.maximum(np.interp(brightness, places, scatter), 1e-3)
    return np.arcsinh(np.clip(np.nan_to_num(result, nan=1e3), -1e3, 1e3))
