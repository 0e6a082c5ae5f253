"""Positions on the sky by a WCS."""

from __future__ import annotations

import numpy as np
from astropy.coordinates import FK5, ICRS, SkyCoord
from astropy.wcs import WCS
from astropy.wcs.utils import wcs_to_celestial_frame

from nightsift.sky import tangent
from nightsift.sky.pixels import grid


def usable(wcs, shape) -> WCS | None:
    """Return the celestial part of a WCS that makes sense all over the image, else None."""
    if wcs is None or not wcs.has_celestial:
        return None
    wcs = wcs.celestial
    pixels = grid(shape, 5, 0.0)
    try:
        ra, dec = sky(wcs, pixels)
    except Exception:  # wcslib and the frames have many ways to refuse a header
        return None
    if not (np.isfinite(ra).all() and np.isfinite(dec).all()):
        return None
    scale = pixel_scale(wcs, shape)
    return wcs if 1e-3 < scale * 3600 < 1e3 else None


def sky(wcs, pixels):
    """Return ICRS right ascension and declination in degrees of complex 0-based pixels."""
    lon, lat = wcs.all_pix2world(pixels.real, pixels.imag, 0)
    frame = wcs_to_celestial_frame(wcs)
    if is_icrs(frame):
        return lon % 360.0, lat
    sky = SkyCoord(lon, lat, unit="deg", frame=frame).icrs
    return sky.ra.deg, sky.dec.deg


def is_icrs(frame) -> bool:
    """Return whether positions of a frame may be taken for ICRS."""
    # FK5 at J2000 differs by 0.02 arcsec, and headers say FK5 for solutions against ICRS catalogues
    return isinstance(frame, ICRS) or (isinstance(frame, FK5) and abs(frame.equinox.jyear - 2000.0) < 1e-6)


def center_sky(wcs, shape) -> tuple[float, float]:
    """Return ICRS right ascension and declination of the centre of the image, degrees."""
    ra, dec = sky(wcs, np.array([(shape[1] - 1) / 2 + 0.5j * (shape[0] - 1)]))
    return float(ra[0]), float(dec[0])


def pixel_scale(wcs, shape):
    """Return degrees per pixel at the centre of the image.

    With the distortion there: astropy's `proj_plane_pixel_scales` knows the linear part alone.
    """
    return float(np.sqrt(abs(np.linalg.det(jacobian(wcs, shape)))))


def jacobian(wcs, shape):
    """Return d(xi, eta) / d(x, y) at the centre of the image, in degrees per pixel."""
    center = (shape[1] - 1) / 2 + 0.5j * (shape[0] - 1)
    ra, dec = sky(wcs, center + np.array([-1, 1, -1j, 1j]))
    plane = tangent.project(ra, dec, *center_sky(wcs, shape))
    along_x, along_y = (plane[1] - plane[0]) / 2, (plane[3] - plane[2]) / 2
    return np.array([[along_x.real, along_y.real], [along_x.imag, along_y.imag]])


def on_image(wcs, ra, dec, shape):
    """Return 0-based pixels of ICRS positions in degrees, without distortion; NaN beyond the horizon of the centre."""
    plane = tangent.project(ra, dec, *center_sky(wcs, shape))
    x, y = np.linalg.solve(jacobian(wcs, shape), np.stack([plane.real, plane.imag]))
    return x + (shape[1] - 1) / 2, y + (shape[0] - 1) / 2
