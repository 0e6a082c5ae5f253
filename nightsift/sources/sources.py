"""Join the candidates of a campaign into sources on the sky, with light curves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy.table import Table
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from nightsift import tables
from nightsift.flags import Flag
from nightsift.parameters import Sources

_ARCSEC = np.pi / 180 / 3600
# a centroid is good to about 0.6 FWHM / (S/N) an axis (King 1983, PASP 95, 163)
_CENTROID = 0.6
_MIN_SNR = 3.0
_LIMIT_SNR = 5.0
_TINY = 1e-3


@dataclass(frozen=True)
class Association:
    """Sources of a campaign.

    Attributes
    ----------
    group : int array, shape (n,)
        Row in `ra`, `dec` and `names` of every candidate, -1 for one without a position.
    names : list of str
        Unique names, by declination zone of nothing but the position; sorted by right ascension.
    ra, dec : array, shape (m,)
        Weighted mean positions, degrees.
    radius : float
        Association radius, arcsec.
    """

    group: np.ndarray
    names: list[str]
    ra: np.ndarray
    dec: np.ndarray
    radius: float


@dataclass(frozen=True)
class Exposure:
    """What a forced measurement needs to know of its image besides the pixels."""

    image: str
    mjd: float
    filter: str
    fwhm: float
    band: str


def unit_vectors(ra, dec) -> np.ndarray:
    """Return the (n, 3) unit vectors of positions in degrees."""
    ra, dec = np.radians(np.asarray(ra, float)), np.radians(np.asarray(dec, float))
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)


def association_radius(fwhm, rms, params: Sources) -> float:
    """Return the association radius in arcsec.

    Parameters
    ----------
    fwhm, rms : array, shape (n,)
        FWHM and astrometric rms an axis of the images with candidates, arcsec; NaN where not known.
    params : nightsift.parameters.Sources
        Its `radius` comes before the default: half the median FWHM, at least twice the median rms.
    """
    if params.radius is not None:
        return float(params.radius)
    fwhm, rms = (np.asarray(values, float)[np.isfinite(values)] for values in (fwhm, rms))
    half = 0.5 * np.median(fwhm) if len(fwhm) else 1.0
    return float(max(half, 2 * np.median(rms) if len(rms) else 0.0))


def position_weight(fwhm, snr, rms) -> np.ndarray:
    """Return the weight, 1 / arcsec**2, of positions from FWHM and astrometric rms in arcsec and the S/N."""
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = (_CENTROID * np.asarray(fwhm, float) / np.abs(snr)) ** 2 + np.asarray(rms, float) ** 2
    known = np.isfinite(variance) & (variance > 0)
    typical = np.median(variance[known]) if known.any() else 1.0
    return 1 / np.where(known, np.maximum(variance, _TINY**2), typical)


def associate(ra, dec, weight, image, radius: float) -> Association:
    """Join candidates of several images into sources by position.

    Friends of friends within `radius` are a source, unless two of them come from the same image or one lies further
    than `radius` from their mean; such a group is divided into as many as the image with the most of them shows, each
    image's candidates going to different ones (k-means with an assignment in each image). The result does not
    depend on the order of the candidates.

    Parameters
    ----------
    ra, dec : array, shape (n,)
        Degrees.
    weight : array, shape (n,)
        Of the positions.
    image : array of str, shape (n,)
        Where each candidate was found.
    radius : float
        Arcsec.

    Returns
    -------
    Association
    """
    ra, dec, weight = (np.asarray(values, float) for values in (ra, dec, weight))
    images = np.unique(np.asarray(image, str), return_inverse=True)[1].reshape(-1)
    usable = np.flatnonzero(np.isfinite(ra) & np.isfinite(dec))
    order = usable[np.lexsort((weight[usable], ra[usable], dec[usable], images[usable]))]
    points = unit_vectors(ra[order], dec[order])
    chord = 2 * np.sin(radius * _ARCSEC / 2)
    groups = []
    pending = _friends(points, np.arange(len(order)), chord)
    while pending:
        members = pending.pop()
        parts, rest = _divide(points, weight[order], images[order], members, chord)
        groups += parts
        pending += _friends(points, rest, chord)
    means = np.array([np.average(points[rows], axis=0, weights=weight[order][rows]) for rows in groups]).reshape(-1, 3)
    mean_ra = np.degrees(np.arctan2(means[:, 1], means[:, 0])) % 360
    mean_dec = np.degrees(np.arctan2(means[:, 2], np.hypot(means[:, 0], means[:, 1])))
    rank = np.lexsort((mean_dec, mean_ra))
    group = np.full(len(ra), -1)
    for number, old in enumerate(rank):
        group[order[groups[old]]] = number
    return Association(group, source_names(mean_ra[rank], mean_dec[rank]), mean_ra[rank], mean_dec[rank], radius)


def _friends(points, rows, chord) -> list[np.ndarray]:
    if not len(rows):
        return []
    # a source seen a thousand times has half a million pairs: what shares a cell a quarter of the radius across goes
    # as one, and a cell with one candidate is exact
    cell = np.floor(points[rows] * (4 * np.sqrt(3) / chord)).astype(np.int64)
    cell, count = np.unique(cell, axis=0, return_inverse=True, return_counts=True)[1:]
    cell = cell.reshape(-1)
    mean = np.stack([np.bincount(cell, axis) / count for axis in points[rows].T], axis=1)
    first, second = cKDTree(mean).query_pairs(chord, output_type="ndarray").reshape(-1, 2).T
    graph = coo_array((np.ones(len(first), bool), (first, second)), shape=(len(count), len(count)))
    label = connected_components(graph, directed=False)[1][cell]
    by_label = np.argsort(label, kind="stable")
    return np.split(rows[by_label], np.flatnonzero(np.diff(label[by_label])) + 1)


def _divide(points, weight, images, members, chord):
    """Return the sources in a group of friends, and the members that belong to none of them yet."""
    where, count = np.unique(images[members], return_counts=True)
    mean = np.average(points[members], axis=0, weights=weight[members])
    if count.max() == 1 and np.all(np.linalg.norm(points[members] - mean, axis=1) <= chord):
        return [members], members[:0]
    # the image that shows the most of them, the best measured one among equals, says where they are
    crowded = where[count == count.max()]
    total = [weight[members[images[members] == number]].sum() for number in crowded]
    seeds = members[images[members] == crowded[int(np.argmax(total))]]
    centers = points[seeds]
    label = None
    for _ in range(20):
        updated = _assign(points[members], images[members], centers, chord)
        if np.array_equal(updated, label):
            break
        label = updated
        for number in range(len(centers)):
            mine = members[label == number]
            if len(mine):
                centers[number] = np.average(points[mine], axis=0, weights=weight[mine])
    parts = [members[label == number] for number in range(len(centers)) if np.any(label == number)]
    if not parts:
        return [seeds[:1]], members[members != seeds[0]]
    return parts, members[label < 0]


def _assign(points, images, centers, chord) -> np.ndarray:
    """Return the centre of each point, no two of an image to the same one; -1 where none is within `chord`."""
    distance = np.linalg.norm(points[:, None, :] - centers[None], axis=2)
    label = np.where(distance.min(axis=1) <= chord, distance.argmin(axis=1), -1)
    crowded, count = np.unique(images, return_counts=True)
    for number in crowded[count > 1]:
        rows = np.flatnonzero(images == number)
        # what is out of reach costs more than any number of pairs within reach
        cost = np.where(distance[rows] <= chord, distance[rows], 1e3 * chord * len(points))
        mine, theirs = linear_sum_assignment(cost)
        label[rows] = -1
        label[rows[mine]] = np.where(distance[rows[mine], theirs] <= chord, theirs, -1)
    return label


def source_names(ra, dec) -> list[str]:
    """Return names like ``NS J214501.98+123732.1``: coordinates cut off, not rounded, as the IAU asks.

    Positions that share a name get the letters b, c ... in the order given.
    """
    names, seen = [], {}
    for right, declination in zip(np.asarray(ra, float), np.asarray(dec, float), strict=True):
        # a little less than a digit is added, so that 0.1 does not become 0.09 for its binary form
        centi = int(right / 15 * 360000 + 1e-6) % 8640000
        deci = int(abs(declination) * 36000 + 1e-6)
        hours = f"{centi // 360000:02d}{centi // 6000 % 60:02d}{centi % 6000 / 100:05.2f}"
        degrees = f"{deci // 36000:02d}{deci // 600 % 60:02d}{deci % 600 / 10:04.1f}"
        name = f"NS J{hours}{'-' if declination < 0 else '+'}{degrees}"
        seen[name] = seen.get(name, 0) + 1
        names.append(name if seen[name] == 1 else f"{name}{chr(ord('a') + seen[name] - 1)}")
    return names


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
            "mag_calib_err": np.where(shown, 2.5 / np.log(10) / snr, np.nan),
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


def forced_rows(exposure: Exposure, names, measured, zp, zp_err, level, flags) -> Table:
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


def source_table(candidates: Table, association: Association, n_images) -> Table:
    """Return the sources, one row each, in the order of `association`; schema ``sources``.

    Parameters
    ----------
    candidates : Table
        Schema ``candidates``.
    association : Association
    n_images : int array, shape (m,)
        Subtracted images that cover each source.
    """
    group = association.group
    order = np.argsort(group, kind="stable")
    order = order[group[order] >= 0]
    if not len(order):
        return tables.empty("sources")
    rows = []
    for number, mine in enumerate(np.split(order, np.flatnonzero(np.diff(group[order])) + 1)):
        part = candidates[mine]
        best = int(np.lexsort((part["image"], -np.abs(part["snr"])))[0])
        bright = np.where((part["flux"] > 0) & np.isfinite(part["mag_calib"]), part["mag_calib"], np.inf)
        brightest = int(np.argmin(bright))
        known = np.isfinite(bright[brightest])
        mjd = np.asarray(part["mjd"], float)[np.isfinite(part["mjd"])]
        rows.append(
            {
                "source": association.names[number],
                "ra": association.ra[number],
                "dec": association.dec[number],
                "n_detections": len(part),
                "n_images": max(int(n_images[number]), len(part)),
                "first_mjd": mjd.min() if len(mjd) else np.nan,
                "last_mjd": mjd.max() if len(mjd) else np.nan,
                "best_mag": bright[brightest] if known else np.nan,
                "best_mag_err": part["mag_calib_err"][brightest] if known else np.nan,
                "best_snr": part["snr"][best],
                "best_image": str(part["image"][best]),
                "label": str(part["label"][best]),
                "score": np.max(part["score"]),
            }
        )
    return Table(rows)
