"""What the fakes of an image say of its search: how complete it is, and whether it can be trusted."""

from __future__ import annotations

import numpy as np
from astropy.table import Table

from nightsift import parameters
from nightsift.fakes.completeness import completeness
from nightsift.fakes.trust import trusted
from nightsift.image.background import pixel_noise
from nightsift.subtract.difference import Search
from nightsift.tables import FAKES

HALF_SNR = 5.0  # at which a search finds about half of what is there
SURE = 0.3  # mag, error of a limit up to which it says something
SNR_EDGES = (3, 4, 5, 5.5, 6, 7, 8, 10, 20, 50, 100)


def recovery(
    fakes: Table, passed, image: np.ndarray, search: Search, zero_point, params: parameters.TransientsConfig
) -> dict:
    """Return the completeness of a search by what it found of fakes.

    Parameters
    ----------
    fakes : Table
        Schema ``fakes``.
    passed : 1-D bool array
        Which of them the search has found and calls real.
    image : 2-D float32 array
        ADU.
    search : Search
    zero_point : callable
        Zero point (mag) at pixel positions x, y.
    params : parameters.TransientsConfig

    Returns
    -------
    dict
        By group of fakes: ``snr`` (`nightsift.fakes.completeness.Curve` as plain types) and ``mag`` (limits, errors).

    Raises
    ------
    Rejected
        See `nightsift.fakes.trust.trusted`.
    """
    complete = _curves(fakes, passed, zero_point)
    trusted(fakes, passed, _deeper(complete, _faintest(image, search, zero_point)), params)
    return complete


def _faintest(image, search, zero_point):
    """Return the magnitude of a star of S/N HALF_SNR by the noise of the image's pixels alone, crowded or not."""
    x, y = image.shape[1] / 2, image.shape[0] / 2
    psf = search.psf.stamp(x, y, int(np.ceil(1.5 * search.psf.fwhm)))
    flux = HALF_SNR * pixel_noise(image, search.mask != 0) / np.sqrt(np.sum(psf**2))
    return float(zero_point(np.array([x]), np.array([y]))[0] - 2.5 * np.log10(flux))


def _deeper(complete, limit):
    """Return by how many magnitudes half of the fakes on empty sky are found beyond the image's own limit."""
    found = complete.get("off_hosts", {}).get("mag", {})
    return found["half"] - limit if found.get("half_err", np.nan) < SURE else np.nan


def _curves(fakes, passed, zero_point):
    """Completeness of what is put on the sky and on galaxies, by S/N and by magnitude."""
    kind = np.asarray(fakes["kind"], str)
    own = np.isin(kind, FAKES)
    mag = zero_point(np.asarray(fakes["true_x"]), np.asarray(fakes["true_y"]))
    mag = mag - 2.5 * np.log10(np.where(own, fakes["true_flux"], np.nan))
    groups = {"all": own, "off_hosts": kind == "sky", "on_hosts": kind == "host", "beside_stars": kind == "star"}
    result = {}
    for name, chosen in groups.items():
        snr = completeness(fakes["true_snr"][chosen], passed[chosen], SNR_EDGES)
        bright = completeness(-mag[chosen], passed[chosen], ())
        if snr is not None and bright is not None:
            limits = {key: -getattr(bright, key) for key in ("half", "ninety")}
            errors = {f"{key}_err": getattr(bright, f"{key}_err") for key in limits}
            result[name] = {"snr": snr.to_dict(), "mag": limits | errors}
    return result
