"""Solve a template that has no WCS by the stars of the image that it is for: both show the same sky."""

from __future__ import annotations

import numpy as np
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_scales

from nightsift import parameters
from nightsift.astrometry.astrometry import Astrometry, Hint, astrometry
from nightsift.detect.detect import detect
from nightsift.errors import Rejected
from nightsift.header.readers import read_scale
from nightsift.sky import wcs
from nightsift.template.alignment import Target, TemplateImage

SCALES = 6.0  # factor either way that the pixels of image and template may differ by
ADVICE = "give it a WCS (its solution as an image of its own will do), or its pixel scale in the header"


def place(image: TemplateImage, header: fits.Header, target: Target) -> Astrometry:
    """Find where a template lies on the sky.

    Parameters
    ----------
    image : TemplateImage
        The template; nothing of its WCS is used.
    header : astropy.io.fits.Header
        Of the template; its pixel scale is used where it tells one.
    target : Target
        The image, on the solution of which the positions of its detections rest.

    Raises
    ------
    Rejected
        If the pattern of its stars is not found among the image's.
    """
    try:
        found = detect(image.data, image.mask, image.gain, parameters.DetectConfig()).objects
        stars, hint = _as_catalog(target.objects, target.wcs), _hint(header, target.wcs, target.shape)
        return astrometry(found, stars, hint, image.data.shape, LIMITS)
    except Rejected as reason:
        raise Rejected(
            f"the template has no usable WCS, and the stars of the image do not tell its place ({reason}): {ADVICE}"
        ) from reason


# The image's own objects need not fill the template, nor those of the template the image.
LIMITS = parameters.AstrometryConfig(min_seen=0.0)


def _as_catalog(objects: Table, image_wcs: WCS) -> Table:
    ra, dec = wcs.sky(image_wcs, np.asarray(objects["x"], float) + 1j * np.asarray(objects["y"], float))
    flux = np.maximum(np.asarray(objects["flux"], float), np.finfo(np.float64).tiny)
    return Table({"ra": ra, "dec": dec, "rmag": -2.5 * np.log10(flux)})


def _hint(header, image_wcs: WCS, shape) -> Hint:
    """Return that the template overlaps the image, and what is known of its pixels."""
    ra, dec = wcs.center_sky(image_wcs, shape)
    scale = 3600 * float(np.mean(proj_plane_pixel_scales(image_wcs.celestial)))
    told = read_scale(header)[0]
    limits = None if told else (scale / SCALES, scale * SCALES)
    return Hint(ra=ra, dec=dec, radius=np.hypot(*shape) * scale / 3600, pixscale=told or scale, pixscale_range=limits)
