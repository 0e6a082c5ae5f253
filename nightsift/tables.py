"""The columns of every table: type, unit and meaning. Tables are checked against them when they are written."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy.table import Column, Table

from nightsift.parameters import SERVICES


class SchemaError(ValueError):
    """A table does not have the columns that its schema promises."""


@dataclass(frozen=True)
class Field:
    """One column: numpy kind, unit and meaning."""

    dtype: type
    unit: str | None
    meaning: str


POSITION = {
    "x": Field(float, "pix", "column of the centroid, 0-based, pixel centres on integers"),
    "y": Field(float, "pix", "row of the centroid, 0-based, pixel centres on integers"),
}
FLUX = {
    "flux": Field(float, "adu", "flux on the scale of the calibration aperture"),
    "fluxerr": Field(float, "adu", "standard deviation of flux"),
    "snr": Field(float, None, "flux / fluxerr"),
    "fwhm": Field(float, "pix", "full width at half maximum"),
    "flags": Field(int, None, "object flags, bits in the header"),
}
SKY = {
    "ra": Field(float, "deg", "right ascension, ICRS at the epoch of the image"),
    "dec": Field(float, "deg", "declination, ICRS at the epoch of the image"),
}
MAGNITUDE = {
    "mag_calib": Field(float, "mag", "magnitude in the image's passband on the catalogue's zero point, no colour term"),
    "mag_calib_err": Field(float, "mag", "standard deviation of mag_calib, without the zero point's own"),
}
DETECTIONS = (
    POSITION
    | FLUX
    | {
        "bgerr": Field(float, "adu", "part of fluxerr that the background alone makes"),
        "background": Field(float, "adu", "background in the annulus, a pixel, above the background map"),
        "peak": Field(float, "adu", "highest pixel above the background map"),
        "a": Field(float, "pix", "rms along the major axis"),
        "b": Field(float, "pix", "rms along the minor axis"),
        "theta": Field(float, "rad", "angle of the major axis from x towards y"),
        "area": Field(int, "pix2", "pixels above the threshold"),
    }
)
PSF_PHOTOMETRY = {
    "psf_flux": Field(float, "adu", "flux fitted with the PSF, on the scale of flux; NaN where there is no PSF"),
    "psf_fluxerr": Field(float, "adu", "standard deviation of psf_flux"),
    "psf_chi2": Field(float, None, "reduced chi2 of the PSF fit"),
    "psf_dx": Field(float, "pix", "fitted less x; NaN where the position was not fitted"),
    "psf_dy": Field(float, "pix", "fitted less y; NaN where the position was not fitted"),
    "spread": Field(float, None, "0 for point sources, positive for extended ones (SPREAD_MODEL)"),
    "spread_err": Field(float, None, "standard deviation of spread"),
    "outlier": Field(float, None, "how unlike the stars in shape (isolation forest): unusual above 0.6; a mere label"),
    "neighbours": Field(float, "adu", "light in the aperture that is not the object's own, taken off flux in objects"),
    "confusion": Field(float, "adu", "what neighbours, seen and unseen, add to fluxerr in objects"),
    "psf_confusion": Field(float, "adu", "what stars not seen add to psf_fluxerr: alike at all times in equal seeing"),
    "growth": Field(float, "mag", "light within 4 FWHM over that in the aperture; NaN unless bright and clean"),
    "growth_err": Field(float, "mag", "standard deviation of growth"),
}
PSF_MAGNITUDE = {
    "mag_psf": Field(float, "mag", "magnitude of psf_flux, else like mag_calib"),
    "mag_psf_err": Field(float, "mag", "standard deviation of mag_psf, without the zero point's own"),
}
STANDARD = {
    "color": Field(float, "mag", "the catalogue's colour of the colour term; NaN where none is known"),
    "mag_std": Field(float, "mag", "mag_calib and colour part: in the catalogue's band; NaN where no colour is known"),
    "mag_std_err": Field(float, "mag", "standard deviation of mag_std, without the zero point's and colour term's own"),
}
MEASURES = {
    "bgerr": Field(float, "adu", "part of fluxerr that is there without the source"),
    "chi2": Field(float, None, "reduced chi2 of the PSF fit"),
    "masked": Field(float, None, "share of the PSF that falls on masked pixels"),
    "sharpness": Field(float, None, "contrast of the core over that of the PSF; 1 = like the PSF"),
    "sharpness_err": Field(float, None, "standard deviation of sharpness"),
    "block": Field(float, None, "chi2 that equal pixels in a block explain, over that of the PSF; above 1 for defects"),
    "elongation": Field(float, None, "chi2 that stretching the PSF explains, over that of the PSF; 0 = like the PSF"),
    "cosmic": Field(float, None, "S/N of the brightest pixel over that of a point source; large for cosmic rays"),
    "trail": Field(float, None, "light along the best straight line away from it, relative to its own"),
    "pedestal": Field(float, None, "share of the flux that the level of the surroundings makes up"),
    "around": Field(float, None, "rms of the S/N map from 2 to 4 FWHM"),
    "negative": Field(float, None, "share of the light within 1.5 FWHM that has the other sign"),
    "dipole": Field(float, None, "S/N of the strongest opposite extreme within 2 FWHM over its own"),
    "dipole_ratio": Field(float, None, "flux ratio of two opposite PSFs fitted together"),
    "dipole_separation": Field(float, "pix", "distance of that extreme"),
    "dipole_angle": Field(float, "deg", "direction of that extreme, from x towards y"),
    "shifted": Field(float, None, "share of the signal that a small shift of the template explains"),
    "template_flux": Field(float, "adu", "flux of the template at this position, on the image's scale"),
    "template_distance": Field(float, "pix", "distance to the nearest template source"),
    "expected": Field(float, "adu", "residual that the subtraction may leave of the template here"),
    "neighbour": Field(float, "adu", "flux of the brightest template light within 6 FWHM, taken for a point source"),
    "beside": Field(float, "adu", "flux of the brightest saturated object within 5 FWHM"),
}
CANDIDATES = (
    POSITION
    | SKY
    | FLUX
    | MAGNITUDE
    | {
        "image": Field(str, None, "image in which it was found"),
        "mjd": Field(float, "d", "mid-exposure, UTC"),
        "filter": Field(str, None, "filter of the image"),
        "score": Field(float, None, "probability of being real"),
        "is_real": Field(bool, None, "the score is high and no fact speaks against it"),
        "reasons": Field(str, None, "why it was set aside, comma separated"),
        "label": Field(str, None, "what it is: new, variable, faded, moving, ..."),
        **MEASURES,
        "maglim": Field(float, "mag", "limiting magnitude here"),
    }
)
OBJECTS = (
    DETECTIONS
    | SKY
    | MAGNITUDE
    | {"maglim": Field(float, "mag", "limiting magnitude here")}
    | PSF_PHOTOMETRY
    | PSF_MAGNITUDE
    | STANDARD
)
UNCATALOGUED = OBJECTS | {
    "image": Field(str, None, "image in which it was found"),
    "mjd": Field(float, "d", "mid-exposure, UTC"),
    "filter": Field(str, None, "filter of the image"),
    "is_candidate": Field(bool, None, "nothing speaks against it"),
    "reasons": Field(str, None, "why it was set aside, comma separated"),
    "label": Field(str, None, "new, or brighter than the star that the catalogue has there"),
    "catalog_distance": Field(float, "arcsec", "distance to the nearest catalogue star"),
    "catalog_mag": Field(float, "mag", "all catalogue light at its place, in the image's passband; NaN below 1 %"),
    "brightening": Field(float, "mag", "catalog_mag less its own magnitude"),
    "known": Field(str, None, "name of a known object there that is no catalogue star"),
}
KNOWN = {
    f"{service}_{part}": field
    for service in SERVICES
    for part, field in {
        "status": Field(str, None, f"matched, none, not asked or failed: what {service} knows here"),
        "name": Field(str, None, "name of the nearest known object, and its type"),
        "distance": Field(float, "arcsec", "distance of that object at the time of the image"),
        "mag": Field(float, "mag", "magnitude of that object"),
    }.items()
}
#: kinds of fakes that are real; all others are bogus
FAKES = ("sky", "host", "star")
SCHEMAS = {
    "detections": DETECTIONS,
    "psf_photometry": PSF_PHOTOMETRY,
    "catalog": SKY,
    "fetched": {
        "ra": Field(float, "deg", "right ascension, ICRS at the epoch"),
        "dec": Field(float, "deg", "declination, ICRS at the epoch"),
        "epoch": Field(float, "yr", "Julian year of the position"),
    },
    "matches": {
        "object": Field(int, None, "row of the object"),
        "x": Field(float, "pix", "column of the object"),
        "y": Field(float, "pix", "row of the object"),
        "ra": Field(float, "deg", "right ascension of the catalogue star"),
        "dec": Field(float, "deg", "declination of the catalogue star"),
        "dx": Field(float, "pix", "object less catalogue"),
        "dy": Field(float, "pix", "object less catalogue"),
    },
    "calibrators": POSITION
    | {
        "mag_cat": Field(float, "mag", "catalogue magnitude"),
        "mag_instr": Field(float, "mag", "-2.5 log10(flux)"),
        "error": Field(float, "mag", "standard deviation of mag_instr"),
        "color": Field(float, "mag", "catalogue colour of the colour term"),
        "residual": Field(float, "mag", "catalogue less model"),
        "contamination": Field(float, None, "light of neighbours in the aperture, relative"),
        "used": Field(bool, None, "took part in the fit"),
    },
    "objects": OBJECTS,
    "uncatalogued": UNCATALOGUED,
    "candidates": CANDIDATES,
    "fakes": {
        "kind": Field(str, None, "sky, host or star (beside one): a fake; hit, smear, defect, shift, negative: bogus"),
        "true_x": Field(float, "pix", "column where it was put"),
        "true_y": Field(float, "pix", "row where it was put"),
        "true_flux": Field(float, "adu", "flux that was put in"),
        "true_snr": Field(float, None, "that flux over its error in the difference, without its own photons"),
        "found": Field(bool, None, "there is a peak above the threshold"),
        "rejections": Field(str, None, "what speaks against it whatever it looks like, comma separated"),
        **POSITION,
        **{name: field for name, field in FLUX.items() if name != "flags"},
        **MEASURES,
    },
    "campaign_candidates": {"source": Field(str, None, "source it belongs to")} | CANDIDATES | KNOWN,
    "campaign_uncatalogued": {
        "source": Field(str, None, "name of its place, the same in all images"),
        "n_images": Field(int, None, "images in which it is a candidate"),
        **UNCATALOGUED,
    },
    "known": {
        "image": Field(str, None, "name of the image"),
        "row": Field(int, None, "row of the candidate in candidates.fits of its image"),
        **SKY,
        **KNOWN,
    },
    "images": {
        "image": Field(str, None, "name of the image"),
        "status": Field(str, None, "ok, degraded, rejected or error"),
        "stage": Field(str, None, "stage that set the status"),
        "reason": Field(str, None, "reason of the status"),
        "warnings": Field(int, None, "number of warnings"),
        "filter": Field(str, None, "filter"),
        "mjd": Field(float, "d", "mid-exposure, UTC"),
        "fwhm": Field(float, "pix", "median full width at half maximum"),
        "band": Field(str, None, "catalogue band that the magnitudes are tied to"),
        "zp": Field(float, "mag", "total zero point, mean over the image, at colour 0; NaN: not known"),
        "zp_err": Field(float, "mag", "standard deviation of zp"),
        "color_term": Field(float, None, "colour term"),
        "astrom_rms": Field(float, "arcsec", "astrometric residual, rms per axis"),
        "maglim": Field(float, "mag", "limiting magnitude"),
        "n_objects": Field(int, None, "number of objects"),
        "n_candidates": Field(int, None, "number of candidates"),
        "n_uncatalogued": Field(int, None, "number of objects that the catalogue should have and has not"),
        "m50": Field(float, "mag", "magnitude at which 50 % of fakes on blank sky are found"),
        "m50_err": Field(float, "mag", "standard deviation of m50"),
        "m90": Field(float, "mag", "magnitude at which 90 % of fakes on blank sky are found"),
        "snr50": Field(float, None, "S/N at which 50 % of fakes on blank sky are found"),
    },
    "sources": {
        "source": Field(str, None, "name of the source, from its position"),
        "ra": Field(float, "deg", "weighted mean right ascension, ICRS"),
        "dec": Field(float, "deg", "weighted mean declination, ICRS"),
        "n_detections": Field(int, None, "candidates that make it up"),
        "n_images": Field(int, None, "subtracted images that cover it"),
        "first_mjd": Field(float, "d", "first detection"),
        "last_mjd": Field(float, "d", "last detection"),
        "best_mag": Field(float, "mag", "brightest mag_calib of the difference"),
        "best_mag_err": Field(float, "mag", "standard deviation of best_mag"),
        "best_snr": Field(float, None, "highest S/N"),
        "best_image": Field(str, None, "image of the highest S/N"),
        "label": Field(str, None, "what its best candidate is"),
        "score": Field(float, None, "highest score"),
        **KNOWN,
    },
    "lightcurves": {
        "source": Field(str, None, "name of the source"),
        "image": Field(str, None, "name of the image"),
        "mjd": Field(float, "d", "mid-exposure, UTC"),
        "filter": Field(str, None, "filter"),
        "flux": Field(float, "adu", "flux of the difference"),
        "fluxerr": Field(float, "adu", "standard deviation of flux, the source's own photons included"),
        "snr": Field(float, None, "flux / fluxerr"),
        "mag_calib": Field(float, "mag", "magnitude of the difference; NaN below S/N 3 and for negative flux"),
        "mag_calib_err": Field(float, "mag", "standard deviation of mag_calib"),
        "mag_total": Field(float, "mag", "magnitude of template and difference together"),
        "band": Field(str, None, "catalogue band that the magnitudes are tied to"),
        "zp": Field(float, "mag", "zero point of flux, which is that of an aperture, here"),
        "zp_err": Field(float, "mag", "standard deviation of zp, common to the image"),
        "maglim": Field(float, "mag", "limiting magnitude here: S/N 5 without the source's own photons"),
        "kind": Field(str, None, "detected (a candidate) or forced (measured at the source's position)"),
        "flags": Field(int, None, "object flags"),
    },
}
KINDS = {float: "f", int: "iu", bool: "b", str: "US"}


def checked(table: Table, schema: str) -> Table:
    """Return `table` in the order of its schema, with units and meanings, columns of its own at the end.

    Raises
    ------
    SchemaError
        If a column is missing or of another kind.
    """
    fields = SCHEMAS[schema]
    missing = [name for name in fields if name not in table.colnames]
    if missing:
        raise SchemaError(f"table {schema!r} lacks {', '.join(missing)}; it has {', '.join(table.colnames)}")
    result = Table(meta=table.meta)
    for name in [*fields, *(name for name in table.colnames if name not in fields)]:
        column = table[name]
        if name not in fields:
            result[name] = column
            continue
        field = fields[name]
        values = np.asarray(column)
        if values.dtype.kind not in KINDS[field.dtype] and len(values):
            raise SchemaError(f"column {name!r} of table {schema!r} is {values.dtype}, not {field.dtype.__name__}")
        if not len(values) or values.dtype.kind != np.dtype(field.dtype).kind:
            values = values.astype(field.dtype)
        result[name] = Column(values, unit=field.unit, description=field.meaning)
    return result


def empty(schema: str) -> Table:
    """Return the table of that schema without rows."""
    return Table({name: np.zeros(0, "U1" if f.dtype is str else f.dtype) for name, f in SCHEMAS[schema].items()})


def column(table: Table, name: str) -> np.ndarray:
    """Return a column as float64, NaN where masked; all NaN if there is none."""
    if name not in table.colnames:
        return np.full(len(table), np.nan)
    values = table[name]
    if getattr(values, "mask", None) is None:
        return np.array(values, dtype=float)
    return np.ma.filled(np.ma.MaskedArray(np.ma.getdata(values), np.ma.getmaskarray(values), dtype=float), np.nan)
