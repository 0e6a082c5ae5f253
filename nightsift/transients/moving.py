"""Stars of the catalogue that have moved since the template: new at one place, gone from another, and the same star."""

from __future__ import annotations

import numpy as np
from astropy.table import Table
from scipy.spatial import cKDTree

from nightsift.sky.sphere import unit_vectors
from nightsift.tables import column

YEARS = 60.0  # between image and template, at most: the first digitised plates of survey telescopes are older
NEAR = 0.6  # FWHM from a star, or from its path
LEAST = 0.4  # FWHM that a star moves in YEARS, to be asked about
ALIKE = 2.5  # ratio of the flux that appeared and that disappeared, at most: passbands may differ
OLD_PLACE = "old place of a star that moves"
_ARCSEC = np.pi / 180 / 3600


def moving(candidates: Table, catalog: Table, fwhm: float) -> tuple[np.ndarray, np.ndarray]:
    """Tell which candidates are stars of the catalogue that have moved, and which are the places that they have left.

    Parameters
    ----------
    candidates : Table
        ``ra, dec`` (deg), ``flux``, ``label``.
    catalog : Table
        Stars at the time of the image: ``ra, dec`` (deg), ``pmra`` (with the factor cos(dec)), ``pmdec`` (mas/yr).
    fwhm : float
        Of the image, arcsec.

    Returns
    -------
    stars : 1-D bool array
        Candidates at a star that moves, where the template shows none.
    left : 1-D bool array
        What has faded on the path of such a star, about as bright as it; a star has one.
    """
    stars, left = np.zeros(len(candidates), bool), np.zeros(len(candidates), bool)
    motion = np.column_stack([column(catalog, name) / 1000 for name in ("pmra", "pmdec")])
    fast = np.flatnonzero(np.hypot(*motion.T) * YEARS > LEAST * fwhm)
    usable = np.isfinite(column(candidates, "ra")) & np.isfinite(column(candidates, "dec"))
    flux, label = np.asarray(candidates["flux"], float), np.asarray(candidates["label"], str)
    new = np.flatnonzero(usable & (flux > 0) & (label == "new"))
    faded = np.flatnonzero(usable & (flux < 0))
    if not len(fast) or not len(new):
        return stars, left
    places = cKDTree(unit_vectors(catalog["ra"][fast], catalog["dec"][fast]))
    distance, star = places.query(unit_vectors(candidates["ra"][new], candidates["dec"][new]))
    for row, away, which in zip(new, distance / _ARCSEC, fast[star], strict=True):
        if away > NEAR * fwhm:
            continue
        stars[row] = True
        east = (candidates["ra"][faded] - candidates["ra"][row] + 180) % 360 - 180
        east = 3600 * east * np.cos(np.radians(candidates["dec"][row]))
        north = 3600 * (candidates["dec"][faded] - candidates["dec"][row])
        speed = np.hypot(*motion[which])
        along, across = (
            np.abs(east * motion[which, 0] + north * motion[which, 1]) / speed,
            np.abs(east * motion[which, 1] - north * motion[which, 0]) / speed,
        )
        ratio = np.abs(flux[faded]) / flux[row]
        fits = (across < NEAR * fwhm) & (along < YEARS * speed + NEAR * fwhm) & (np.abs(np.log(ratio)) < np.log(ALIKE))
        fits &= ~left[faded]
        if fits.any():
            chosen = np.flatnonzero(fits)
            left[faded[chosen[np.argmin(np.abs(np.log(ratio[chosen])))]]] = True
    return stars, left


def join(candidates: Table, catalog: Table, fwhm: float) -> None:
    """Label stars that have moved ``moving`` and set the places that they have left aside, in place.

    Parameters as for `moving`; with ``is_real`` and ``reasons``.
    """
    if not {"pmra", "pmdec"} <= set(catalog.colnames) or not len(candidates):
        return
    stars, left = moving(candidates, catalog, fwhm)
    candidates["label"] = np.where(stars, "moving", np.asarray(candidates["label"], str))
    candidates["is_real"] = np.asarray(candidates["is_real"], bool) & ~left
    reasons = np.asarray(candidates["reasons"], str)
    also = np.where(reasons == "", OLD_PLACE, np.char.add(f"{OLD_PLACE}, ", reasons))
    candidates["reasons"] = np.where(left, also, reasons)
