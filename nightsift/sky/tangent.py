"""The tangential (gnomonic) projection, and back (Calabretta & Greisen 2002, A&A 395, 1077)."""

from __future__ import annotations

import numpy as np


def project(ra, dec, ra0, dec0):
    """Project gnomonically about (`ra0`, `dec0`).

    Calabretta & Greisen 2002, A&A 395, 1077, section 5.1.3; all in degrees.

    Returns
    -------
    plane : complex array
        ``xi + 1j * eta`` in degrees; NaN further than 80 degrees from the tangent point.
    """
    ra, dec = np.radians(np.asarray(ra, float) - ra0), np.radians(np.asarray(dec, float))
    sin0, cos0 = np.sin(np.radians(dec0)), np.cos(np.radians(dec0))
    depth = sin0 * np.sin(dec) + cos0 * np.cos(dec) * np.cos(ra)
    depth = np.where(depth > 0.17, depth, np.nan)
    xi = np.cos(dec) * np.sin(ra) / depth
    eta = (cos0 * np.sin(dec) - sin0 * np.cos(dec) * np.cos(ra)) / depth
    return np.degrees(xi) + 1j * np.degrees(eta)


def deproject(plane, ra0, dec0):
    """Return right ascension (0 to 360) and declination, in degrees, of points of the tangent plane."""
    xi, eta = np.radians(np.real(plane)), np.radians(np.imag(plane))
    sin0, cos0 = np.sin(np.radians(dec0)), np.cos(np.radians(dec0))
    ahead = cos0 - eta * sin0
    ra = np.arctan2(xi, ahead)
    dec = np.arctan2(sin0 + eta * cos0, np.hypot(xi, ahead))
    return (ra0 + np.degrees(ra)) % 360.0, np.degrees(dec)
