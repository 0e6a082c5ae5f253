"""The light curve of each source: its rows, detected and forced."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy.table import Table

from nightsift.flags import Flag
from nightsift.statistics import MAG

_MIN_SNR = 3.0
_LIMIT_SNR = 5.0


@dataclass(frozen=True)
class Epoch:
    """What a forced measurement needs to know of its image besides the pixels."""

    image: str
    mjd: float
    filter: str
    fwhm: float
    band: str


def magnitudes(flux, fluxerr, bgerr, zp) -> dict[str, np.ndarray]:
    """Return ``snr, mag_calib, mag_calib_err, maglim`` of fluxes in ADU; no magnitude below S/N 3 or without light.

    `bgerr` is the part of `fluxerr` that is there without the source: the limit depends on it alone.
    """
    arrays = (np.asarray(values, float) for values in (flux, fluxerr, bgerr, zp))
    flux, fluxerr, bgerr, zp = np.broadcast_arrays(*arrays)
    with np.errstate(divide="ignore", invalid="ignore"):
        snr = flux / fluxerr
        shown = (snr >= _MIN_SNR) & (flux > 0)
        return {
            "snr": snr,
            "mag_calib": np.where(shown, zp - 2.5 * np.log10(np.where(shown, flux, 1.0)), np.nan),
            "mag_calib_err": np.where(shown, MAG / snr, np.nan),
            "maglim": zp - 2.5 * np.log10(_LIMIT_SNR * bgerr),
        }


def depth(completeness: dict) -> dict[str, float]:
    """Return ``m50, m50_err, m90, snr50`` of the completeness (``mag, snr``) of a group of fakes; NaN if not known."""
    mag, snr = completeness.get("mag") or {}, completeness.get("snr") or {}
    found = {"m50": mag.get("half"), "m50_err": mag.get("half_err"), "m90": mag.get("ninety"), "snr50": snr.get("half")}
    return {name: np.nan if value is None else float(value) for name, value in found.items()}


def total_magnitude(flux, template_flux, zp) -> np.ndarray:
    """Return the magnitude of template and difference together, NaN where the template's flux is not known."""
    with np.errstate(invalid="ignore", divide="ignore"):
        total = np.asarray(flux, float) + np.asarray(template_flux, float)
        return np.where(total > 0, np.asarray(zp) - 2.5 * np.log10(np.where(total > 0, total, 1.0)), np.nan)


def template_levels(candidates: Table, zp, group, size: int, passband) -> dict[str, np.ndarray]:
    """Return the template's flux of each source by passband, in units of a zero point of 0.

    Parameters
    ----------
    candidates : Table
        Schema ``candidates``.
    zp : array, shape (n,)
        Zero points at the candidates.
    group : int array, shape (n,)
        Source of each candidate.
    size : int
        Number of sources.
    passband : array of str, shape (n,)
        That in which zero points hold: filter and band of the catalogue.

    Returns
    -------
    dict
        Arrays of shape (size,) by passband: the median of the source's candidates in it, NaN where there is none.
    """
    level = np.asarray(candidates["template_flux"], float) * 10 ** (-0.4 * np.asarray(zp, float))
    filters = np.asarray(passband, str)
    known = np.isfinite(level) & (group >= 0)
    result = {}
    for name in np.unique(filters):
        rows = np.flatnonzero(known & (filters == name))
        rows = rows[np.lexsort((level[rows], group[rows]))]
        result[str(name)] = values = np.full(size, np.nan)
        for part in np.split(rows, np.flatnonzero(np.diff(group[rows])) + 1):
            if len(part):
                values[group[part[0]]] = np.median(level[part])
    return result


def covered(x, y, mask) -> np.ndarray:
    """Tell which positions fall on pixels without a mask bit."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    inside = (x > -0.5) & (y > -0.5) & (x < mask.shape[1] - 0.5) & (y < mask.shape[0] - 0.5)
    column, row = (np.where(inside, np.rint(np.where(inside, values, 0)), 0).astype(int) for values in (x, y))
    return inside & (mask[row, column] == 0)


def mask_flags(x, y, mask, radius: float) -> np.ndarray:
    """Return the object flag of masked pixels within `radius` pixels of positions on the image."""
    reach = int(np.ceil(radius))
    offset = np.arange(-reach, reach + 1)
    near = offset[:, None] ** 2 + offset[None] ** 2 <= radius**2
    dy, dx = (axis[near] for axis in np.meshgrid(offset, offset, indexing="ij"))
    rows = np.rint(y).astype(int)[:, None] + dy
    columns = np.rint(x).astype(int)[:, None] + dx
    inside = (rows >= 0) & (columns >= 0) & (rows < mask.shape[0]) & (columns < mask.shape[1])
    values = mask[np.clip(rows, 0, mask.shape[0] - 1), np.clip(columns, 0, mask.shape[1] - 1)]
    bad = np.any(inside & (values != 0), axis=1)
    cut = np.any(~inside, axis=1)
    return bad * int(Flag.APERTURE_MASKED) + cut * int(Flag.APERTURE_INCOMPLETE)


def detected_rows(candidates: Table, zp, names, calibration: Table) -> Table:
    """Return the light-curve rows of candidates: their own measurements.

    Parameters
    ----------
    candidates : Table
        Schema ``candidates``.
    zp : array, shape (n,)
        Zero points at the candidates.
    names : array of str, shape (n,)
        Their sources.
    calibration : Table
        ``band`` and ``zp_err`` of each.
    """
    flux = np.asarray(candidates["flux"], float)
    derived = magnitudes(flux, candidates["fluxerr"], candidates["bgerr"], zp)
    shown = np.isfinite(derived["mag_calib"])
    limit = np.asarray(candidates["maglim"], float)
    return Table(
        {name: candidates[name] for name in ("image", "mjd", "filter", "flux", "fluxerr", "snr", "flags")}
        | {
            "source": np.asarray(names, str),
            "mag_calib": np.where(shown, candidates["mag_calib"], np.nan),
            "mag_calib_err": np.where(shown, candidates["mag_calib_err"], np.nan),
            "mag_total": total_magnitude(flux, candidates["template_flux"], zp),
            "band": np.asarray(calibration["band"], str),
            "zp": np.asarray(zp, float),
            "zp_err": np.asarray(calibration["zp_err"], float),
            "maglim": np.where(np.isfinite(limit), limit, derived["maglim"]),
            "kind": np.full(len(candidates), "detected"),
        }
    )


def forced_rows(exposure: Epoch, names, measured, zp, zp_err, level, flags) -> Table:
    """Return the light-curve rows of forced measurements in one image.

    Parameters
    ----------
    exposure : Exposure
    names : array of str, shape (n,)
        Sources.
    measured : (flux, fluxerr, bgerr)
        Of the difference, ADU, each of shape (n,); `bgerr` is the part of the error that is there without the source.
    zp, zp_err : array, shape (n,)
        Zero point at the positions, and its error.
    level : array, shape (n,)
        Flux of the template for a zero point of 0.
    flags : int array, shape (n,)
        Object flags.
    """
    flux, fluxerr, bgerr = (np.asarray(values, float) for values in measured)
    size = len(names)
    return Table(
        {
            "source": np.asarray(names, str),
            "image": np.full(size, exposure.image),
            "mjd": np.full(size, exposure.mjd),
            "filter": np.full(size, exposure.filter),
            "flux": flux,
            "fluxerr": fluxerr,
            **magnitudes(flux, fluxerr, bgerr, zp),
            "band": np.full(size, exposure.band),
            "zp": np.asarray(zp, float),
            "zp_err": np.asarray(zp_err, float),
            "mag_total": total_magnitude(flux, level * 10 ** (0.4 * np.asarray(zp)), zp),
            "kind": np.full(size, "forced"),
            "flags": np.asarray(flags, int),
        }
    )
