"""Objects and catalogues whose zero point is known."""

from __future__ import annotations

import numpy as np
from astropy.table import Table

from nightsift import parameters
from nightsift.photometry.solution import ApertureSeeing

SIZE, SCALE, ZP = 1024, 0.5, 25.0
SEEING = ApertureSeeing(fwhm=3.0, pixscale=SCALE, aperture=3.0, shape=(SIZE, SIZE))
PARAMS = parameters.PhotometryConfig()


def simulate(seed, n, mags=(13.0, 17.5), color=0.0, slope=0.0, intrinsic=0.0, outliers=0.0, cat_err=0.01):
    """Return objects above S/N 5 and the catalogue: noise of 100 ADU in the aperture, gain 2."""
    rng = np.random.default_rng(seed)
    mag, blue = rng.uniform(*mags, n), rng.normal(0.7, 0.35, n)
    # on a jittered lattice: chance blends are the business of one test, not of all
    side = int(np.ceil(np.sqrt(n)))
    cell = rng.permutation(side**2)[:n]
    x, y = ((part + rng.uniform(0.2, 0.8, n)) * SIZE / side for part in (cell % side, cell // side))
    u, v = 2 * (x + 0.5) / SIZE - 1, 2 * (y + 0.5) / SIZE - 1
    instrumental = mag - ZP - color * blue - slope * (u + 0.5 * v) + rng.normal(0, 1, n) * intrinsic
    instrumental += rng.normal(0, 1, n) * (rng.random(n) < outliers)
    flux, noise = 10 ** (-0.4 * instrumental), np.full(n, 100.0)
    flux = flux + rng.normal(0, 1, n) * np.sqrt(noise**2 + flux / 2)
    error = np.sqrt(noise**2 + np.maximum(flux, 0) / 2)
    ra, dec = 150 + (x - SIZE / 2) * SCALE / 3600, (y - SIZE / 2) * SCALE / 3600
    objects = Table({"x": x, "y": y, "ra": ra, "dec": dec, "flux": flux, "fluxerr": error, "bgerr": noise})
    objects["snr"], objects["flags"] = flux / error, 0
    stars = Table({"ra": ra, "dec": dec})
    for band, truth in (("r", mag), ("g", mag + blue)):
        stars[f"{band}mag"], stars[f"e_{band}mag"] = truth + rng.normal(0, cat_err, n), cat_err
    return objects[objects["snr"] > 5], stars
