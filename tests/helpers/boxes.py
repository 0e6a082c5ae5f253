"""Templates and images that hold boxes and stars at known places."""

from __future__ import annotations

import numpy as np
from astropy.wcs import WCS, Sip

from nightsift.image.moffat import MoffatPsf
from nightsift.image.padding import PAD

SCALE = 1.0


def solution(ra=150.0, dec=20.0, scale=SCALE, rotation=0.0, center=(129.5, 119.5), sip=None):
    """Return a TAN solution; `scale` in arcsec, `sip` the size of a distortion at 250 pixels, in pixels."""
    wcs, turn = WCS(naxis=2), np.radians(rotation)
    wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"] if sip else ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix = (ra, dec), np.array(center) + 1
    wcs.wcs.cd = scale / 3600 * np.array([[-np.cos(turn), np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    if sip:
        a, b = np.zeros((2, 4, 4))
        a[2, 0], a[1, 2], a[3, 0] = 0.5 * sip / 250**2, sip / 250**3, sip / 250**3
        b[1, 1], b[2, 1], b[0, 3] = -0.7 * sip / 250**2, sip / 250**3, sip / 250**3
        wcs.sip = Sip(a, b, None, None, wcs.wcs.crpix)
    wcs.wcs.set()
    return wcs


def moffat(fwhm):
    return MoffatPsf(fwhm=fwhm, beta=4.0, e1=0.0, e2=0.0, scale=(0.0, 0.0, 0.0), twist=(0.0, 0.0))


def own(plane):
    """Return the image's own pixels."""
    return plane[PAD:-PAD, PAD:-PAD]


def boxes(plane, x, y, half=16):
    """Return the light and the centroid within boxes."""
    grid = np.arange(-half, half + 1)
    total, at_x, at_y = [], [], []
    for column, row in zip(np.rint(x).astype(int), np.rint(y).astype(int), strict=True):
        part = plane[row - half : row + half + 1, column - half : column + half + 1].astype(float)
        part = part - np.median(np.concatenate([part[0], part[-1], part[:, 0], part[:, -1]]))
        total.append(part.sum())
        core = part[half - 8 : half + 9, half - 8 : half + 9]
        near = grid[half - 8 : half + 9]
        at_x.append(column + (core.sum(axis=0) * near).sum() / core.sum())
        at_y.append(row + (core.sum(axis=1) * near).sum() / core.sum())
    return np.array(total), np.array(at_x), np.array(at_y)
