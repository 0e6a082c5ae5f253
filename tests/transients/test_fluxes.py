"""Fluxes of transients and their errors, from faint to bright, in differences of simulated pairs."""

from functools import cache

import numpy as np
import pytest
from astropy.table import Table, vstack
from pairs import CASES, FRAME, GAIN, difference, light, moffat, pair
from photutils.aperture import CircularAperture

from nightsift.image.moffat import psf_stamps
from nightsift.image.padding import PAD
from nightsift.psf.forced import flux_error, forced
from nightsift.subtract.difference import Search
from nightsift.transients.measure import measure, without_fit_bias

SEEDS = 10


def inside(fwhm, x, y, radius):
    """Share of the light in the aperture, where the source is."""
    stamps, column, row = psf_stamps(moffat(fwhm), x + PAD, y + PAD, (FRAME, FRAME), 20)
    circles = CircularAperture(np.column_stack([x + PAD - column + 20, y + PAD - row + 20]), radius)
    return np.array([one.do_photometry(stamp)[0][0] for stamp, one in zip(stamps, circles, strict=True)])


@cache
def fluxes(case):
    """Return true flux, S/N, and flux and error both forced and as a candidate's, of what is new in some pairs."""
    rows = []
    for seed in range(1, SEEDS + 1):
        (fwhm, other), options = CASES[case], {"snr": (20, 500), "number": 20}
        made, found = pair(fwhm, other, seed, **options), difference(fwhm, other, seed, **options)
        new = made.flux > 0
        x, y, radius = made.x[new], made.y[new], made.exposure.aperture
        true = made.flux[new] / light(fwhm, radius) * inside(fwhm, x, y, radius)
        clear, bad = np.zeros(found.mask.shape, bool), found.mask != 0
        search = Search(
            found.data,
            found.sigma,
            found.snr,
            found.mask,
            found.model,
            clear,
            found.psf,
            found.quality,
            GAIN,
        )
        fit = forced(found.data, found.sigma, bad, found.psf, x, y)
        left = found.quality.residual * np.abs(forced(found.model, found.sigma, clear, found.psf, x, y).flux)
        sigma = found.sigma[np.rint(y).astype(int), np.rint(x).astype(int)]
        bgerr = fit.fluxerr * search.quality.noise_correlation
        error = flux_error(found.psf, fit.flux, bgerr, sigma, GAIN, search.quality.flux_scale_err, left)
        table = measure(search, np.rint(x), np.rint(y), bad)
        candidate = without_fit_bias(table["flux"], table["fluxerr"])
        rows.append(Table([true, fit.flux, error, candidate, table["fluxerr"]], names=("true", "f", "fe", "c", "ce")))
    return vstack(rows)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("flux", "error"), [("f", "fe"), ("c", "ce")])
def test_pulls_have_a_width_of_one_up_to_the_brightest(case, flux, error):
    rows = fluxes(case)
    off = np.asarray(rows[flux] - rows["true"])
    pull, snr = off / rows[error], np.asarray(rows["true"] / rows[error])
    bright = snr >= np.median(snr)
    assert np.median(rows["true"][bright] / rows[error][bright]) > 70
    for chosen in (bright, ~bright):
        low, middle, high = np.percentile(pull[chosen], [15.865, 50, 84.135])
        # Three standard errors of 60 values.
        assert abs(middle) < 0.5
        assert 0.7 < (high - low) / 2 < 1.3
        assert abs(np.median(off[chosen] / rows["true"][chosen])) < 0.01
    assert np.abs(pull).max() < 6
