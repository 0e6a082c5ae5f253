"""The light curve of each source: its rows, detected and forced."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy.table import Table, vstack
from astropy.wcs import WCS

from nightsift import tables
from nightsift.errors import Unreadable
from nightsift.flags import Flag
from nightsift.image.stamps import on_clean_pixel
from nightsift.parameters import SourcesConfig
from nightsift.sky.sphere import unit_vectors
from nightsift.sources.association import Association
from nightsift.sources.records import ImageRecord
from nightsift.statistics import MAG

_MIN_SNR = 3.0  # of a flux that gets a magnitude: below, its error is no longer symmetric
_LIMIT_SNR = 5.0  # of a source at the limit, by convention


@dataclass(frozen=True)
class ForcedFluxes:
    """Fluxes at positions of a difference: pixels, ADU; `bgerr` is the part of the error without the source."""

    x: np.ndarray
    y: np.ndarray
    flux: np.ndarray
    fluxerr: np.ndarray
    bgerr: np.ndarray

    def __getitem__(self, chosen) -> ForcedFluxes:
        return ForcedFluxes(**{name: values[chosen] for name, values in vars(self).items()})


def light_curves(
    images: list[ImageRecord], candidates: Table, association: Association, params: SourcesConfig
) -> tuple[Table, np.ndarray]:
    """Return the light curves of all sources, detected and forced, and how many images cover each source.

    Parameters
    ----------
    images : list of ImageRecord
        Of one at a time the pixels are in memory. One whose difference cannot be read has its `problem` set.
    candidates : Table
        Schema ``candidates``, with ``zp_here, zp_err, band``.
    association : Association
        Of the candidates.
    params : SourcesConfig
        Sources with fewer than its `min_detections` get no light curve.

    Returns
    -------
    Table
        Schema ``lightcurves``.
    int array, shape (m,)
    """
    size, group = len(association.ra), association.group
    count = np.bincount(group[group >= 0], minlength=size)
    n_images = count.copy()
    kept = count >= params.min_detections
    if not size:
        return tables.empty("lightcurves"), n_images
    chosen = (group >= 0) & kept[group]
    names = np.array(association.names)
    mine = candidates[chosen]
    rows = [detected_rows(mine, mine["zp_here"], names[group[chosen]], mine["band", "zp_err"])]
    passbands = [f"{name}/{band}" for name, band in zip(candidates["filter"], candidates["band"], strict=True)]
    levels = template_levels(candidates, candidates["zp_here"], group, size, passbands)
    of_image = np.asarray(candidates["image"], str)
    for image in images:
        if image.subtracted:
            seen = group[(of_image == image.name) & (group >= 0)]
            try:
                near, forced_here = _force(image, association, np.setdiff1d(np.arange(size), seen), levels)
            except Unreadable as problem:
                image.fail(problem)
                continue
            n_images[near] += 1
            if forced_here is not None:
                rows.append(forced_here[kept[near]])
    table = vstack(rows, metadata_conflicts="silent")
    table.sort(["source", "mjd", "image"])
    return table, n_images


def _force(image, association, wanted, levels):
    """Return the sources of `wanted` that an image covers, and their light-curve rows or None."""
    near = _nearby(image, association, wanted)
    pixels = image.pixels() if len(near) else None
    if pixels is None:
        return near[:0], None
    wcs = WCS(image.header, relax=True)
    x, y = np.array(wcs.all_world2pix(association.ra[near], association.dec[near], 0, quiet=True))
    inside = on_clean_pixel(x, y, pixels.mask)
    near, x, y = near[inside], x[inside], y[inside]
    if not len(near):
        return near, None
    fluxes = ForcedFluxes(x, y, *pixels.measure(x, y, image.gain))
    done = np.isfinite(fluxes.flux) & (fluxes.bgerr > 0)
    near, fluxes = near[done], fluxes[done]
    flags = mask_flags(fluxes.x, fluxes.y, pixels.mask, max(image.fwhm, 1.0))
    level = levels.get(image.passband, np.full(len(association.ra), np.nan))[near]
    return near, forced_rows(image, np.array(association.names)[near], fluxes, level, flags)


def _nearby(image, association, wanted):
    """Return those of the sources `wanted` that lie within the circle around an image."""
    wcs = WCS(image.header, relax=True)
    height, width = image.shape
    corners = wcs.all_pix2world([[-1, -1], [width, -1], [-1, height], [width, height]], 0)
    center = unit_vectors(*wcs.all_pix2world([[(width - 1) / 2, (height - 1) / 2]], 0).T)
    least = (unit_vectors(*corners.T) @ center[0]).min()
    return wanted[unit_vectors(association.ra[wanted], association.dec[wanted]) @ center[0] >= least]


def magnitudes(flux, fluxerr, bgerr, zp) -> dict[str, np.ndarray]:
    """Return ``snr, mag_calib, mag_calib_err, maglim`` of fluxes in ADU; no magnitude below S/N 3.

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


def forced_rows(image: ImageRecord, names, fluxes: ForcedFluxes, level, flags) -> Table:
    """Return the light-curve rows of forced measurements in one image.

    Parameters
    ----------
    image : ImageRecord
    names : array of str, shape (n,)
        Sources.
    fluxes : ForcedFluxes
        Of the difference.
    level : array, shape (n,)
        Flux of the template for a zero point of 0.
    flags : int array, shape (n,)
        Object flags.
    """
    zp = image.zero_point(fluxes.x, fluxes.y)
    size = len(names)
    return Table(
        {
            "source": np.asarray(names, str),
            "image": np.full(size, image.name),
            "mjd": np.full(size, image.mjd),
            "filter": np.full(size, image.filter),
            "flux": fluxes.flux,
            "fluxerr": fluxes.fluxerr,
            **magnitudes(fluxes.flux, fluxes.fluxerr, fluxes.bgerr, zp),
            "band": np.full(size, image.band),
            "zp": zp,
            "zp_err": image.zero_point_error(fluxes.x, fluxes.y),
            "mag_total": total_magnitude(fluxes.flux, level * 10 ** (0.4 * zp), zp),
            "kind": np.full(size, "forced"),
            "flags": np.asarray(flags, int),
        }
    )
