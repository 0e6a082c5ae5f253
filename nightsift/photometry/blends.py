"""The flux of neighbours in the apertures of calibration stars."""

from __future__ import annotations

import numpy as np
from astropy.table import Table
from scipy.spatial import cKDTree

from nightsift.photometry.colorterms import passband
from nightsift.sky.sphere import unit_vectors
from nightsift.tables import column


def all_magnitudes(catalog: Table, band: str, bands: list[str]) -> np.ndarray:
    """Return magnitudes in `band`; where there is none, those of the other bands shifted by the median colour."""
    mag = column(catalog, f"{band}mag")
    for other in sorted(bands, key=lambda name: abs(passband(name).wavelength - passband(band).wavelength)):
        missing = ~np.isfinite(mag)
        if not missing.any():
            break
        known = column(catalog, f"{other}mag")
        shift = mag - known
        if np.isfinite(shift).any():
            mag = np.where(missing, known + np.nanmedian(shift), mag)
    return mag


def contamination(objects: Table, catalog: Table, matches, mag, seeing) -> tuple[np.ndarray, np.ndarray]:
    """Return the flux of neighbours in the aperture of each match relative to its own, and what of it its flux holds.

    Parameters
    ----------
    objects, catalog : Table
    matches : pair of int arrays
        As from `nightsift.catalog.catalog.match`.
    mag : array, shape (len(catalog),)
        Magnitudes of the catalogue stars, NaN = unknown.
    seeing : Seeing

    Returns
    -------
    light, left : ndarray, shape (n_matches,)
        Neighbours are the other catalogue stars, and the objects that no catalogue star accounts for. Where the objects
        have ``neighbours``, the light of those that are objects is not in the flux.
    """
    index_object, index_star = matches
    result, left = np.zeros((2, len(index_star)))
    reach = 8 * seeing.fwhm + seeing.aperture
    chord = np.deg2rad(reach * seeing.pixscale / 3600)
    stars = unit_vectors(column(catalog, "ra"), column(catalog, "dec"))
    known = np.flatnonzero(np.isfinite(stars).all(axis=1) & np.isfinite(mag))
    own = light_fraction(np.zeros(1), seeing.aperture, seeing.fwhm)[0]

    centres = cKDTree(stars[index_star])
    pairs = centres.sparse_distance_matrix(cKDTree(stars[known]), chord, output_type="ndarray")
    pairs = pairs[known[pairs["j"]] != index_star[pairs["i"]]]
    with np.errstate(invalid="ignore"):
        ratio = 10 ** (0.4 * (mag[index_star[pairs["i"]]] - mag[known[pairs["j"]]]))
    fraction = light_fraction(pairs["v"] / chord * reach, seeing.aperture, seeing.fwhm) / own
    np.add.at(result, pairs["i"], ratio * fraction)
    unseen = ~np.isin(known[pairs["j"]], index_star)
    np.add.at(left, pairs["i"][unseen], (ratio * fraction)[unseen])

    flux = column(objects, "flux")
    places = unit_vectors(column(objects, "ra"), column(objects, "dec"))
    loose = np.isfinite(places).all(axis=1) & (flux > 0)
    loose[index_object] = False
    loose = np.flatnonzero(loose)
    if len(loose):
        pairs = centres.sparse_distance_matrix(cKDTree(places[loose]), chord, output_type="ndarray")
        fraction = light_fraction(pairs["v"] / chord * reach, seeing.aperture, seeing.fwhm) / own
        # what a loose object's aperture holds of the star itself is no neighbour's flux
        ratio = np.maximum(flux[loose[pairs["j"]]] / flux[index_object[pairs["i"]]] - fraction, 0)
        np.add.at(result, pairs["i"], ratio * fraction)
    return result, left if "neighbours" in objects.colnames else result


def light_fraction(distance, aperture: float, fwhm: float) -> np.ndarray:
    """Return the fraction of a star's flux in an aperture at `distance` from it, all in the same unit.

    The star is a Moffat profile of beta 3: its wings are rather wider than those of most images.
    """
    beta = 3.0
    alpha = fwhm / (2 * np.sqrt(2 ** (1 / beta) - 1))
    nodes, weights = np.polynomial.legendre.leggauss(24)
    radius, weight = (nodes + 1) / 2 * aperture, weights / 2 * aperture
    cosine = np.cos(np.pi * (np.arange(32) + 0.5) / 32)
    grid = np.linspace(0, max(float(np.max(distance, initial=0.0)), aperture), 80)
    square = grid[:, None, None] ** 2 + radius[:, None] ** 2 - 2 * grid[:, None, None] * radius[:, None] * cosine
    profile = (beta - 1) / (np.pi * alpha**2) * (1 + square / alpha**2) ** -beta
    fraction = 2 * np.pi * np.sum(profile.mean(axis=2) * radius * weight, axis=1)
    return np.exp(np.interp(distance, grid, np.log(fraction)))
