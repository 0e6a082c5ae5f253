"""Positions on the sphere: unit vectors, angles between them, and proper motion."""

from __future__ import annotations

import numpy as np
from astropy.table import Table

#: uncertainty of a position that comes without one, degrees: for the matching, and for a search of the sky
RADIUS, FAR = 1.0, 5.0

MAS = np.deg2rad(1 / 3.6e6)


def unit_vectors(ra, dec) -> np.ndarray:
    """Return the unit vectors, shape (n, 3), of the directions `ra`, `dec` [deg]."""
    ra, dec = np.deg2rad(np.asarray(ra, float)), np.deg2rad(np.asarray(dec, float))
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)


def angles(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return right ascension and declination [deg] of unit vectors."""
    ra = np.rad2deg(np.arctan2(vectors[:, 1], vectors[:, 0])) % 360
    return ra, np.rad2deg(np.arctan2(vectors[:, 2], np.hypot(vectors[:, 0], vectors[:, 1])))


def moved(vectors: np.ndarray, stars: Table, year: float | None) -> np.ndarray:
    """Return the directions at `year`: straight motion in space without parallax and radial velocity."""
    if year is None or "pmRA" not in stars.colnames:
        return vectors
    span = (year - np.asarray(stars["epoch"], float)) * MAS if "epoch" in stars.colnames else (year - 2000.0) * MAS
    east, north = (np.nan_to_num(np.asarray(stars[name], float)) * span for name in ("pmRA", "pmDE"))
    ra, dec = np.deg2rad(np.asarray(stars["ra"], float)), np.deg2rad(np.asarray(stars["dec"], float))
    zero = np.zeros_like(ra)
    to_east = np.stack([-np.sin(ra), np.cos(ra), zero], axis=-1)
    to_north = np.stack([-np.sin(dec) * np.cos(ra), -np.sin(dec) * np.sin(ra), np.cos(dec)], axis=-1)
    moved = vectors + east[:, None] * to_east + north[:, None] * to_north
    return moved / np.linalg.norm(moved, axis=1, keepdims=True)
