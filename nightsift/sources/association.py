"""Which detections are of one source on the sky."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from nightsift.parameters import SourcesConfig
from nightsift.sky.sphere import unit_vectors

_ARCSEC = np.pi / 180 / 3600  # radians
# Along an axis, a centroid is good to about 0.6 FWHM / (S/N) (King 1983, PASP 95, 163).
_CENTROID = 0.6
_TINY = 1e-3  # arcsec: least error of a position, so that no weight is infinite
_ROUNDS = 20  # of k-means at most; crowded groups settle in a few


@dataclass(frozen=True)
class Association:
    """Sources of a campaign.

    Attributes
    ----------
    group : int array, shape (n,)
        Row in `ra`, `dec` and `names` of every candidate, -1 for one without a position.
    names : list of str
        Unique names, by declination zone of nothing but the position; sorted by right ascension.
    ra, dec : array, shape (m,)
        Weighted mean positions, degrees.
    radius : float
        Association radius, arcsec.
    """

    group: np.ndarray
    names: list[str]
    ra: np.ndarray
    dec: np.ndarray
    radius: float


def association_radius(fwhm, rms, params: SourcesConfig) -> float:
    """Return the association radius in arcsec.

    Parameters
    ----------
    fwhm, rms : array, shape (n,)
        FWHM, and astrometric rms along an axis, of the images with candidates, arcsec; NaN where not known.
    params : nightsift.parameters.SourcesConfig
        Its `radius` comes before the default: half the median FWHM, at least twice the median rms.
    """
    if params.radius is not None:
        return float(params.radius)
    fwhm, rms = (np.asarray(values, float)[np.isfinite(values)] for values in (fwhm, rms))
    half = 0.5 * np.median(fwhm) if len(fwhm) else 1.0
    return float(max(half, 2 * np.median(rms) if len(rms) else 0.0))


def position_weight(fwhm, snr, rms) -> np.ndarray:
    """Return the weight, 1 / arcsec**2, of positions from FWHM and astrometric rms in arcsec and the S/N."""
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = (_CENTROID * np.asarray(fwhm, float) / np.abs(snr)) ** 2 + np.asarray(rms, float) ** 2
    known = np.isfinite(variance) & (variance > 0)
    typical = np.median(variance[known]) if known.any() else 1.0
    return 1 / np.where(known, np.maximum(variance, _TINY**2), typical)


def associate(ra, dec, weight, image, radius: float) -> Association:
    """Join candidates of several images into sources by position.

    Friends of friends within `radius` are a source, unless two of them come from the same image or one lies further
    than `radius` from their mean; such a group is divided into as many as the image with the most of them shows, each
    image's candidates going to different ones (k-means with an assignment in each image). The result does not
    depend on the order of the candidates.

    Parameters
    ----------
    ra, dec : array, shape (n,)
        Degrees.
    weight : array, shape (n,)
        Of the positions.
    image : array of str, shape (n,)
        Where each candidate was found.
    radius : float
        Arcsec.

    Returns
    -------
    Association
    """
    ra, dec, weight = (np.asarray(values, float) for values in (ra, dec, weight))
    images = np.unique(np.asarray(image, str), return_inverse=True)[1].reshape(-1)
    usable = np.flatnonzero(np.isfinite(ra) & np.isfinite(dec))
    order = usable[np.lexsort((weight[usable], ra[usable], dec[usable], images[usable]))]
    points = unit_vectors(ra[order], dec[order])
    chord = 2 * np.sin(radius * _ARCSEC / 2)
    groups = []
    pending = _friends(points, np.arange(len(order)), chord)
    while pending:
        members = pending.pop()
        parts, rest = _divide(points, weight[order], images[order], members, chord)
        groups += parts
        pending += _friends(points, rest, chord)
    means = np.array([np.average(points[rows], axis=0, weights=weight[order][rows]) for rows in groups]).reshape(-1, 3)
    mean_ra = np.degrees(np.arctan2(means[:, 1], means[:, 0])) % 360
    mean_dec = np.degrees(np.arctan2(means[:, 2], np.hypot(means[:, 0], means[:, 1])))
    rank = np.lexsort((mean_dec, mean_ra))
    group = np.full(len(ra), -1)
    for number, old in enumerate(rank):
        group[order[groups[old]]] = number
    return Association(group, source_names(mean_ra[rank], mean_dec[rank]), mean_ra[rank], mean_dec[rank], radius)


def _friends(points, rows, chord) -> list[np.ndarray]:
    if not len(rows):
        return []
    # a source seen a thousand times has half a million pairs: what shares a cell a quarter of the radius across goes
    # as one, and a cell with one candidate is exact
    cell = np.floor(points[rows] * (4 * np.sqrt(3) / chord)).astype(np.int64)
    cell, count = np.unique(cell, axis=0, return_inverse=True, return_counts=True)[1:]
    cell = cell.reshape(-1)
    mean = np.stack([np.bincount(cell, axis) / count for axis in points[rows].T], axis=1)
    first, second = cKDTree(mean).query_pairs(chord, output_type="ndarray").reshape(-1, 2).T
    graph = coo_array((np.ones(len(first), bool), (first, second)), shape=(len(count), len(count)))
    label = connected_components(graph, directed=False)[1][cell]
    by_label = np.argsort(label, kind="stable")
    return np.split(rows[by_label], np.flatnonzero(np.diff(label[by_label])) + 1)


def _divide(points, weight, images, members, chord):
    """Return the sources in a group of friends, and the members that belong to none of them yet."""
    where, count = np.unique(images[members], return_counts=True)
    mean = np.average(points[members], axis=0, weights=weight[members])
    if count.max() == 1 and np.all(np.linalg.norm(points[members] - mean, axis=1) <= chord):
        return [members], members[:0]
    # the image that shows the most of them, the best measured one among equals, says where they are
    crowded = where[count == count.max()]
    total = [weight[members[images[members] == number]].sum() for number in crowded]
    seeds = members[images[members] == crowded[int(np.argmax(total))]]
    centers = points[seeds]
    label = np.full(len(members), -2)  # none of them has been assigned
    for _ in range(_ROUNDS):
        updated = _assign(points[members], images[members], centers, chord)
        if np.array_equal(updated, label):
            break
        label = updated
        for number in range(len(centers)):
            mine = members[label == number]
            if len(mine):
                centers[number] = np.average(points[mine], axis=0, weights=weight[mine])
    parts = [members[label == number] for number in range(len(centers)) if np.any(label == number)]
    if not parts:
        return [seeds[:1]], members[members != seeds[0]]
    return parts, members[label < 0]


def _assign(points, images, centers, chord) -> np.ndarray:
    """Return the centre of each point, no two of an image to the same one; -1 where none is within `chord`."""
    distance = np.linalg.norm(points[:, None, :] - centers[None], axis=2)
    label = np.where(distance.min(axis=1) <= chord, distance.argmin(axis=1), -1)
    crowded, count = np.unique(images, return_counts=True)
    for number in crowded[count > 1]:
        rows = np.flatnonzero(images == number)
        # what is out of reach costs more than any number of pairs within reach
        cost = np.where(distance[rows] <= chord, distance[rows], 1e3 * chord * len(points))
        mine, theirs = linear_sum_assignment(cost)
        label[rows] = -1
        label[rows[mine]] = np.where(distance[rows[mine], theirs] <= chord, theirs, -1)
    return label


def source_names(ra, dec) -> list[str]:
    """Return names like ``NS J214501.98+123732.1``: coordinates cut off, not rounded, as the IAU asks.

    Positions that share a name get the letters b, c ... in the order given.
    """
    names, seen = [], Counter[str]()
    for right, declination in zip(np.asarray(ra, float), np.asarray(dec, float), strict=True):
        # a little less than a digit is added, so that 0.1 does not become 0.09 for its binary form
        centi = int(right / 15 * 360000 + 1e-6) % 8640000
        deci = int(abs(declination) * 36000 + 1e-6)
        hours = f"{centi // 360000:02d}{centi // 6000 % 60:02d}{centi % 6000 / 100:05.2f}"
        degrees = f"{deci // 36000:02d}{deci // 600 % 60:02d}{deci % 600 / 10:04.1f}"
        name = f"NS J{hours}{'-' if declination < 0 else '+'}{degrees}"
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name}{chr(ord('a') + seen[name] - 1)}")
    return names
