"""What is known near candidates: who knows it, which object it is and how far, and what follows from that."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy.table import Table
from scipy.spatial import cKDTree

from nightsift import parameters
from nightsift.parameters import KINDS
from nightsift.sky.sphere import moved, unit_vectors
from nightsift.tables import KNOWN

MATCHED, NONE, NOT_ASKED, FAILED = ("matched", "none", "not asked", "failed")
_PARTS = {"status": NOT_ASKED, "name": "", "distance": np.nan, "mag": np.nan}


@dataclass(frozen=True)
class Service:
    """A service: what it is called, what kind of objects it knows, and the band of their magnitudes."""

    title: str
    kind: str
    band: str


SERVICES = dict(
    zip(
        parameters.SERVICES,
        (
            Service("SkyBoT", "asteroid", "V"),
            Service("Gaia DR3", "star", "G"),
            Service("Pan-STARRS", "star", "r"),
            Service("SkyMapper", "star", "r"),
            Service("DES", "star", "r"),
            Service("Simbad", "object", ""),
            Service("VSX", "variable", "max"),
            Service("TNS", "transient", "discovery"),
        ),
        strict=True,
    )
)
COLUMNS = tuple(KNOWN)
_IDENTITY = ("image", "row", "ra", "dec")  # what a candidate is known by


def nearest(objects: Table, ra, dec, mjd: float | None, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest object of each position.

    Parameters
    ----------
    objects : Table
        Of `nightsift.archive.tables.table`. One whose ``error`` is larger than `radius` is matched within that.
    ra, dec : array, shape (n,)
        [deg]
    mjd : float or None
        Time of the positions, which the objects are brought to by their proper motions.
    radius : float
        [arcsec]

    Returns
    -------
    row : int array, shape (n,)
        -1 where none is near enough.
    distance : array, shape (n,)
        [arcsec], NaN where there is none.
    """
    points = unit_vectors(ra, dec)
    row, distance = np.full(len(points), -1), np.full(len(points), np.nan)
    usable = np.flatnonzero(np.isfinite(points).all(axis=1))
    if not len(objects) or not len(usable):
        return row, distance
    year = 2000 + (mjd - 51544.5) / 365.25 if mjd is not None and np.isfinite(mjd) else None
    vectors = moved(unit_vectors(objects["ra"], objects["dec"]), objects, year)
    reach = np.fmax(np.asarray(objects["error"], float), radius)
    chord = 2 * np.sin(np.deg2rad(reach.max() / 3600) / 2)
    for number, near in zip(usable, cKDTree(vectors).query_ball_point(points[usable], chord), strict=True):
        near = np.array(sorted(near), int)
        apart = 3600 * np.rad2deg(2 * np.arcsin(np.linalg.norm(vectors[near] - points[number], axis=1) / 2))
        near, apart = near[apart <= reach[near]], apart[apart <= reach[near]]
        if len(near):
            best = int(np.argmin(apart))
            row[number], distance[number] = near[best], apart[best]
    return row, distance


def blank(length: int) -> dict[str, np.ndarray]:
    """Return the columns of candidates of which nobody was asked."""
    return {
        f"{service}_{part}": np.full(length, value, "U9" if part == "status" else None)
        for service in SERVICES
        for part, value in _PARTS.items()
    }


# Many parameters: what `nearest` needs, and where its result goes.
def enter(columns: dict, service: str, rows, objects: Table, mjd: float | None, candidates: Table, radius: float):
    """Enter what a service that was asked knows near candidates into `columns`.

    Parameters
    ----------
    columns : dict
        As from `blank`, changed.
    service : str
        Of `SERVICES`.
    rows : int array
        Which candidates.
    objects : Table
        What the service knows there.
    mjd : float or None
        Time of the candidates.
    candidates : Table
        With ``ra`` and ``dec`` [deg].
    radius : float
        [arcsec]
    """
    found, distance = nearest(objects, candidates["ra"][rows], candidates["dec"][rows], mjd, radius)
    hit = found >= 0
    columns[f"{service}_status"][rows] = np.where(hit, MATCHED, NONE)
    columns[f"{service}_distance"][rows] = distance
    if not hit.any():
        return
    there = objects[found[hit]]
    columns[f"{service}_mag"][rows[hit]] = there["mag"]
    name = f"{service}_name"
    texts = np.array([_named(entry) for entry in there], "U")
    columns[name] = columns[name].astype(f"U{max(columns[name].dtype.itemsize // 4, texts.dtype.itemsize // 4, 1)}")
    columns[name][rows[hit]] = texts


def _named(entry) -> str:
    # Commas separate reasons.
    return (f"{entry['name']} ({entry['kind']})" if entry["kind"] else str(entry["name"])).replace(",", ";")


def annotate(candidates: Table, objects: Table | None, kinds) -> np.ndarray:
    """Enter what is known near each candidate, and set aside those that are known objects of certain kinds.

    Parameters
    ----------
    candidates : Table
        Schema ``candidates`` with ``row``; changed: it gets `COLUMNS`, ``is_real`` and ``reasons`` say what is set
        aside.
    objects : Table or None
        Schema ``known``: what is known near candidates of ``image, row, ra, dec``; those it does not have were not
        asked for.
    kinds : sequence of str
        Of `nightsift.parameters.KINDS`.

    Returns
    -------
    bool array, shape (n,)
        Which ones are set aside.
    """
    columns = blank(len(candidates))
    if objects is not None and len(candidates):
        listed = {key: row for row, key in enumerate(zip(*(objects[name] for name in _IDENTITY), strict=True))}
        rows = np.array([listed.get(key, -1) for key in zip(*(candidates[name] for name in _IDENTITY), strict=True)])
        here = np.flatnonzero(rows >= 0)
        for name in columns:
            values = objects[name].filled("") if hasattr(objects[name], "filled") else np.asarray(objects[name])
            columns[name] = columns[name].astype(np.result_type(columns[name], values))
            columns[name][here] = values[rows[here]]
    for name, values in columns.items():
        candidates[name] = values
    why = reasons(candidates, kinds)
    aside = why != ""
    candidates["is_real"] = np.asarray(candidates["is_real"], bool) & ~aside
    candidates["reasons"] = np.where(aside, why, np.asarray(candidates["reasons"], str))
    return aside


def of_sources(candidates: Table, group: np.ndarray, size: int) -> dict[str, np.ndarray]:
    """Return the columns of sources: of each service the nearest match of all candidates.

    Without one, it failed for the source if it failed for one of them, else it knows nothing if it was asked for one.

    Parameters
    ----------
    candidates : Table
        With `COLUMNS`.
    group : int array, shape (n,)
        The source of each candidate, negative for none.
    size : int
        Number of sources.
    """
    result = blank(size)
    for service in SERVICES:
        status = np.asarray(candidates[f"{service}_status"], str)
        for rank in (NONE, FAILED):
            result[f"{service}_status"][group[(status == rank) & (group >= 0)]] = rank
        hits = np.flatnonzero((status == MATCHED) & (group >= 0))
        # The nearest comes last, and stays.
        hits = hits[np.argsort(-np.asarray(candidates[f"{service}_distance"], float)[hits], kind="stable")]
        for part in _PARTS:
            name = f"{service}_{part}"
            values = np.asarray(candidates[name])
            if values.dtype.kind == "U" and values.dtype.itemsize > result[name].dtype.itemsize:
                result[name] = result[name].astype(values.dtype)
            result[name][group[hits]] = values[hits]
    return result


def reasons(candidates: Table, kinds) -> np.ndarray:
    """Return why candidates are set aside that are known objects of certain kinds; empty for the others.

    Parameters
    ----------
    candidates : Table
        With `COLUMNS`.
    kinds : sequence of str
        Of `nightsift.parameters.KINDS`.
    """
    texts: list[list[str]] = [[] for _ in range(len(candidates))]
    for service, about in SERVICES.items():
        if about.kind in set(kinds) & set(KINDS):
            for row in np.flatnonzero(np.asarray(candidates[f"{service}_status"], str) == MATCHED):
                entry = candidates[int(row)]
                distance = f"{entry[f'{service}_distance']:.1f} arcsec"
                texts[row].append(f"known {about.kind}: {entry[f'{service}_name']} {distance}")
    return np.array([", ".join(text) for text in texts], "U").reshape(len(candidates))


def lines(row) -> list[str]:
    """Return what a person reads of a row with `COLUMNS`; services that were not asked are left out."""
    result = []
    for service, about in SERVICES.items():
        status = str(row[f"{service}_status"])
        if status == MATCHED:
            name, distance, mag = (row[f"{service}_{part}"] for part in ("name", "distance", "mag"))
            bright = f", {about.band} {mag:.1f}".replace(",  ", ", ") if np.isfinite(mag) else ""
            title = about.title if about.kind != "asteroid" else "asteroid"
            result.append(f"{title} {name}{bright} at {distance:.1f}″")
        elif status != NOT_ASKED:
            result.append(f"{about.title}: {status}")
    return result
