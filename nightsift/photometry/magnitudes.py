"""Magnitudes of the objects of an image, by its photometric solution."""

from __future__ import annotations

import numpy as np
from astropy import units as u
from astropy.table import Table

from nightsift.flags import Flag
from nightsift.photometry import colorterms, limits
from nightsift.photometry.photometry import object_flags
from nightsift.photometry.solution import Photometry
from nightsift.psf.extended import extended
from nightsift.statistics import MAG
from nightsift.tables import column


def calibrate(objects: Table, result: Photometry, catalog: Table | None = None) -> Table:
    """Return the objects with ``mag_calib mag_psf mag_std``, their errors ``..._err``, and ``maglim`` [mag].

    Where there are ``spread spread_err``, ``flags`` get `Flag.EXTENDED`.

    Parameters
    ----------
    objects : Table
        As for `photometry`, and ``psf_flux psf_fluxerr`` [ADU, on the scale of ``flux``].
    result : Photometry
    catalog : Table, optional
        As for `photometry`, for `mag_std`.

    Notes
    -----
    `mag_calib`, of the aperture, and `mag_psf` are in the image's own passband on the catalogue's zero point. Their
    errors are those of the object alone; what is common to the image is in `ZeroPointModel.covariance`. `mag_std` is
    `mag_calib` with the colour part of the object's catalogue colour: a magnitude in the catalogue's band. It is NaN
    where that colour is not known; where the stars ask for no colour term, there is none to add. `maglim` is the
    magnitude at which a star at the object's place would have the aperture S/N `limit_snr`, its own photon noise
    included.
    """
    flux, fluxerr = column(objects, "flux"), column(objects, "fluxerr")
    noise = column(objects, "bgerr") if "bgerr" in objects.colnames else fluxerr
    model = result.model
    zero = model.zero_point(column(objects, "x"), column(objects, "y"))
    faintest = limits.flux_limit(noise, limits.inverse_gain(flux, fluxerr, noise), result.limits.limit_snr)
    table = objects.copy()
    if "spread" in objects.colnames:
        wide = extended(column(objects, "spread"), column(objects, "spread_err"))
        table["flags"] = object_flags(objects) | np.where(wide, int(Flag.EXTENDED), 0)
    fitted = column(objects, "psf_flux"), column(objects, "psf_fluxerr")
    for name, (light, error) in (("mag_calib", (flux, fluxerr)), ("mag_psf", fitted)):
        light = light - (model.term("background") * 10 ** (-0.4 * model.reference) if name == "mag_calib" else 0)
        seen = np.where(light > 0, light, np.nan)
        mag = -2.5 * np.log10(seen)
        bent = model.term("nonlinearity") * (mag - model.reference) if "nonlinearity" in model.parameters else 0.0
        table[name] = (zero + mag + bent) * u.mag
        table[f"{name}_err"] = MAG * error / seen * u.mag
    color, variance = _colors(len(table), result, catalog)
    table["color"] = color * u.mag
    term, known = model.term("color"), np.isfinite(color)
    table["mag_std"] = np.where(known, table["mag_calib"].value + term * np.nan_to_num(color), np.nan) * u.mag
    error = np.sqrt(table["mag_calib_err"].value ** 2 + term**2 * variance)
    table["mag_std_err"] = np.where(known, error, np.nan) * u.mag
    table["maglim"] = (zero - 2.5 * np.log10(np.where(faintest > 0, faintest, np.nan))) * u.mag
    return table


def _colors(number: int, result: Photometry, catalog: Table | None):
    """Return the catalogue's colours of the objects, and their variances; NaN where none is known."""
    color, variance = np.full(number, np.nan), np.full(number, np.nan)
    if catalog is not None and result.model.color_tried:
        row, star = result.stars.match_object, result.stars.match_catalog
        color[row] = colorterms.catalog_color(catalog, result.model.color_tried)[star]
        variance[row] = colorterms.color_errors(catalog, result.model.band, result.model.color_tried)[0][star]
    return color, variance
