"""The astrometry stage: match the objects with the catalogue, fit a plate solution, choose what to believe."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

from nightsift import parameters, statistics
from nightsift.astrometry import asterism, plate_solution, verify
from nightsift.errors import Rejected
from nightsift.flags import UNUSABLE, Flag
from nightsift.sky import tangent
from nightsift.sky.pixels import grid
from nightsift.sky.wcs import center_sky, jacobian, on_image, pixel_scale, sky, usable

# A position needs no aperture flux.
UNSURE = UNUSABLE & ~(Flag.APERTURE_INCOMPLETE | Flag.APERTURE_MASKED | Flag.ANNULUS_BAD)
#: parts of the image's sides in the map of the residuals, and the fewest matches for a median
MAP, FEWEST = 6, 5
BRIGHTNESS = ("r", "R", "G", "V", "VT", "g", "i", "BP", "RP", "z", "B", "J")


@dataclass(frozen=True)
class Hint:
    """What is known of an image's place on the sky before the stage; any may be None.

    Degrees for the expected centre `ra`, `dec` and its uncertainty `radius`, arcsec for `pixscale` and, where that is
    known no better, the lowest and highest that it may be.
    """

    wcs: WCS | None = None
    ra: float | None = None
    dec: float | None = None
    radius: float | None = None
    pixscale: float | None = None
    pixscale_range: tuple[float, float] | None = None


@dataclass(frozen=True)
class Astrometry:
    """A plate solution.

    `header` holds the celestial cards of `wcs`; `order` is the SIP order (1 = pure TAN); `rms` is in arcsec along
    right ascension (on the sky) and declination, robust, of the matches that the fit used and that are well measured.
    `object_index` and `catalog_index` are the mutual nearest matches, `residual_x`, `residual_y` their offsets object
    minus catalogue in pixels. `log_odds` is ln of the odds against chance on held-out stars. `residual_map` holds, for
    `MAP` x `MAP` equal parts of the image from the lower left, row by row: the centre ``x, y``, the median residuals
    ``dx, dy`` in pixels, NaN where fewer than `FEWEST` matches are, and ``n``, their number. `shift` (arcsec, at the
    image's centre), `rotation` (deg, north through east) and `scale` (ratio) are against the input, NaN where the
    input did not tell. `seen` is the fraction of the brightest stars of the catalogue in the image that are matched,
    NaN where there are few; `doubts` tell why the solution, or the catalogue, is to be doubted.
    """

    wcs: WCS
    header: fits.Header
    order: int
    rms: tuple[float, float]
    n_matches: int
    n_used: int
    object_index: np.ndarray
    catalog_index: np.ndarray
    residual_x: np.ndarray
    residual_y: np.ndarray
    log_odds: float
    residual_map: dict[str, list]
    shift: float
    rotation: float
    scale: float
    kept_input: bool
    warnings: tuple[str, ...]
    seen: float = np.nan
    doubts: tuple[str, ...] = ()


def astrometry(
    objects: Table,
    catalog: Table,
    hint: Hint,
    shape: tuple[int, int],
    params: parameters.AstrometryConfig,
    *,
    band_hint: str | None = None,
) -> Astrometry:
    """Match objects with a catalogue and find the best plate solution: the input's, adjusted, or a new one.

    Parameters
    ----------
    objects : Table
        ``x y`` (0-based pixels) ``flux`` and, if measured, ``snr fwhm flags``.
    catalog : Table
        ``ra dec`` (ICRS degrees at the epoch of the image) and any ``<band>mag``.
    hint : Hint
        The header's solution and what else is known.
    shape : (int, int)
        Rows and columns of the image.
    params : parameters.Astrometry
        Limits.
    band_hint : str, optional
        Band whose magnitudes sort the catalogue best; by default the most complete of the usual.

    Returns
    -------
    Astrometry
        The solution.

    Raises
    ------
    Rejected
        Nothing is known of the position, there are too few stars, or no match stands out from chance.
    """
    start = usable(hint.wcs, shape)
    if start is None and (hint.ra is None or hint.dec is None):
        raise Rejected("no WCS in the header and no position hint")
    image = _prepare(objects, catalog, shape, band_hint)
    for number, what in ((len(image.pixels), "objects"), (len(image.ra), "catalogue stars")):
        if number < params.min_matches:
            raise Rejected(f"only {number} {what} to match, {params.min_matches} needed")
    first, second, crval = _find(image, start, hint, params)
    plate, first, second = plate_solution.tighten(image, first, second, crval, params)
    sigma = plate_solution.errors(image, plate, first, second)
    fitted = plate_solution.trusted(image, first, params)
    if fitted.sum() < params.min_matches:
        raise Rejected(f"only {fitted.sum()} objects match the catalogue, {params.min_matches} needed")
    name, header = plate_solution.choose(
        image, first[fitted], second[fitted], sigma[fitted], plate.crval, start, params
    )
    result = _result(image, name, header, start, hint, params)
    if brightness_column(catalog, band_hint) is None:
        return result
    return _doubted(image, result, max(_usual_width(objects), 1.0), params)


def _doubted(image, result: Astrometry, fwhm: float, params) -> Astrometry:
    """Return the result with the fraction of the brightest catalogue stars that are seen, and what that means.

    These are half as many as there are objects, or as there are stars: all of them should be there within the FWHM.
    """
    x, y = on_image(result.wcs, image.ra, image.dec, image.shape)
    inside = np.flatnonzero((x > 0) & (y > 0) & (x < image.shape[1] - 1) & (y < image.shape[0] - 1))
    brightest = image.index_ref[inside][: min(len(inside), len(image.pixels)) // 2]
    if len(brightest) < params.min_matches:
        return result
    near = np.hypot(result.residual_x, result.residual_y) < fwhm
    seen = float(np.isin(brightest, result.catalog_index[near]).mean())
    if seen >= params.min_seen:
        return replace(result, seen=seen)
    doubt = (
        f"Only {seen:.2f} of the {len(brightest)} brightest catalogue stars in the image are seen where the catalogue"
        f" has them, astrometry.min_seen is {params.min_seen:g}: wrong proper motions or epoch, or another place?"
    )
    return replace(result, seen=seen, doubts=(doubt,))


def _usual_width(objects) -> float:
    """Return the median FWHM of objects, or a guess."""
    fwhm = _column(objects, "fwhm", np.nan)
    return float(np.median(fwhm[fwhm > 0])) if (fwhm > 0).any() else 3.0


def _column(table, name, default):
    if name not in table.colnames:
        return np.full(len(table), default, float)
    # a plain array: a column drags its description through all of the arithmetic
    return np.asarray(np.ma.filled(np.ma.asarray(table[name]).astype(float), np.nan))


def brightness_column(catalog: Table, band_hint: str | None = None) -> str | None:
    """Return the magnitude column to sort by: the hinted band's, else the most complete of the usual, else any."""
    names = [f"{band}mag" for band in ((band_hint,) if band_hint else ()) + BRIGHTNESS]
    names += [name for name in catalog.colnames if name.endswith("mag") and not name.startswith("e_")]
    if not len(catalog):
        return None
    complete = {name: np.isfinite(_column(catalog, name, np.nan)).mean() for name in names if name in catalog.colnames}
    if band_hint and complete.get(f"{band_hint}mag", 0) > 0.5:
        return f"{band_hint}mag"
    best = max(complete, key=complete.get, default=None)
    return best if best is not None and complete[best] > 0 else None


def _prepare(objects, catalog, shape, band_hint) -> plate_solution.Lists:
    x, y, flux, snr = (_column(objects, name, np.nan) for name in ("x", "y", "flux", "snr"))
    flags = np.nan_to_num(_column(objects, "flags", 0)).astype(int)
    index = np.flatnonzero(np.isfinite(x) & np.isfinite(y) & (flags & int(Flag.COSMIC) == 0))
    index = index[np.argsort(-np.nan_to_num(flux[index], nan=-np.inf), kind="stable")]
    fwhm = _usual_width(objects)
    # the centroid's error for a Gaussian star in the background's noise, King 1983, PASP 95, 163
    photon = 0.6 * fwhm / np.where(snr > 0, snr, 5.0)
    ra, dec = _column(catalog, "ra", np.nan), _column(catalog, "dec", np.nan)
    column = brightness_column(catalog, band_hint)
    mag = _column(catalog, column, np.nan) if column else np.zeros(len(catalog))
    index_ref = np.flatnonzero(np.isfinite(ra) & np.isfinite(dec))
    index_ref = index_ref[np.argsort(np.nan_to_num(mag[index_ref], nan=np.inf), kind="stable")]
    return plate_solution.Lists(
        pixels=(x + 1j * y)[index] - ((shape[1] - 1) / 2 + 0.5j * (shape[0] - 1)),
        photon=photon[index],
        good=(flags & int(UNSURE) == 0)[index],
        index=index,
        ra=ra[index_ref],
        dec=dec[index_ref],
        index_ref=index_ref,
        shape=tuple(shape),
    )


def _find(image, start, hint, params):
    """Return matched objects and catalogue stars, and where the centre roughly is."""
    tried = []
    if start is not None:
        crval, scale = center_sky(start, image.shape), pixel_scale(start, image.shape)
        points = tangent.project(*sky(start, image.pixels + image.center), *crval) / scale
        limits = asterism.Limits(
            2 * params.max_shift * image.unit, params.max_rotation, (1 - params.max_scale, 1 + params.max_scale)
        )
        tried.append((points, crval, scale, limits, "the header's position"))
    if hint.ra is not None and hint.dec is not None:
        crval = (float(hint.ra), float(hint.dec))
        scale, limits = _blind_limits(image, crval, hint, params)
        tried.append((image.pixels, crval, scale, limits, "the position hint"))
    area = float(np.prod(image.shape))
    for points, crval, scale, limits, _ in tried:
        reference = tangent.project(image.ra, image.dec, *crval) / scale
        kept, kept_ref = np.flatnonzero(np.isfinite(points)), np.flatnonzero(np.isfinite(reference))
        if min(len(kept), len(kept_ref)) < params.min_matches:
            continue
        match = asterism.match(points[kept], reference[kept_ref], area, limits, params.min_matches)
        if match is not None:
            return kept[match.first], kept_ref[match.second], crval
    raise Rejected(
        f"the pattern of {len(image.pixels)} objects does not match the catalogue around "
        + " or ".join(entry[-1] for entry in tried)
    )


def _blind_limits(image, crval, hint, params):
    """Return degrees per unit of the reference plane, and the limits, where only a position is known."""
    if hint.pixscale:
        scale = hint.pixscale / 3600.0
        reach = hint.radius / scale if hint.radius else 2 * max(params.max_shift, 0.5) * image.unit
        off = [end / hint.pixscale for end in hint.pixscale_range or ()]
        return scale, asterism.Limits(
            reach, 180.0, tuple(off) or (1 - params.max_scale, 1 + params.max_scale), flip=True
        )
    # the catalogue was asked for to cover the image, so the image is not larger than it
    extent = np.abs(tangent.project(image.ra, image.dec, *crval))
    extent = float(np.nanmax(extent)) if np.isfinite(extent).any() else 1.0
    reach = min(hint.radius, extent) if hint.radius else 0.5 * extent
    largest = 1.1 * extent / image.unit
    return 1.0, asterism.Limits(reach, 180.0, (largest / 30.0, largest), True)


def _result(image, name, header, start, hint, params) -> Astrometry:
    """Measure the chosen solution against the catalogue and the input."""
    wcs = WCS(header)
    crval, scale = center_sky(wcs, image.shape), pixel_scale(wcs, image.shape)
    found_ra, found_dec = sky(wcs, image.pixels + image.center)
    points = tangent.project(found_ra, found_dec, *crval) / scale
    reference = tangent.project(image.ra, image.dec, *crval) / scale
    near = np.flatnonzero(np.abs(reference) < 1.5 * image.unit)
    density = max(len(near), len(points)) / np.prod(image.shape)
    radius = max(asterism.SPARSE / np.sqrt(density), 0.5)
    first, nearest, distance, _ = asterism.mutual(points, reference[near], radius)
    scatter = statistics.robust_sigma(plate_solution.parts(points[first] - reference[near[nearest]]))
    close = distance <= max(4.0 * scatter, 0.5)
    first, second = first[close], near[nearest[close]]
    residual = np.linalg.solve(
        jacobian(wcs, image.shape) / scale,
        np.stack([(points[first] - reference[second]).real, (points[first] - reference[second]).imag]),
    )
    used = plate_solution.trusted(image, first, params) & (distance[close] <= max(3.5 * scatter, 0.5))
    if used.sum() < params.min_matches:
        raise Rejected(f"only {used.sum()} objects match the catalogue, {params.min_matches} needed")
    odds = _verified(image, points, reference[near], (first, nearest[close]), name, params)
    sharp = used & (image.photon[first] <= max(0.1, np.median(image.photon[first][used])))
    offset = tangent.project(found_ra[first], found_dec[first], image.ra[second], image.dec[second]) * 3600.0
    return Astrometry(
        wcs=wcs,
        header=header,
        order=_order(wcs),
        rms=(statistics.robust_sigma(offset.real[sharp]), statistics.robust_sigma(offset.imag[sharp])),
        n_matches=len(first),
        n_used=int(used.sum()),
        object_index=image.index[first],
        catalog_index=image.index_ref[second],
        residual_x=residual[0],
        residual_y=residual[1],
        log_odds=odds,
        residual_map=residual_map(image.pixels[first][used] + image.center, residual[:, used], image.shape),
        **_against_input(wcs, start, hint, image.shape),
        kept_input=name == "input",
        warnings=_warnings(image, first[used], name, params),
    )


def _verified(image, points, reference, pairs, name, params) -> float:
    """Return ln of the odds for the solution; reject one that held-out stars do not speak for."""
    first, second = pairs
    sigma = np.hypot(plate_solution.jitter(points[first] - reference[second], image.photon[first]), image.photon)
    kept = np.flatnonzero(image.good if image.good[first].sum() >= params.min_matches else np.isfinite(points))
    known = np.isin(first, kept)
    order = {"input": None, "adjusted": 1}.get(name) if isinstance(name, str) else name.order
    odds = verify.log_odds(
        points[kept], sigma[kept], reference, np.searchsorted(kept, first[known]), second[known], order
    )
    if odds < params.min_log_odds:
        raise Rejected(
            f"the solution found, with {len(first)} matches, is not to be trusted: ln of its odds on held-out stars is"
            f" {odds:.1f}, {params.min_log_odds:g} needed"
        )
    return odds


def residual_map(pixels, residual, shape) -> dict[str, list]:
    """Return the median residuals in parts of the image, as `Astrometry.residual_map` has them.

    Parameters
    ----------
    pixels : (n,) complex array
        0-based.
    residual : (2, n) array
        Along x and y.
    shape : (int, int)
        Of the image.
    """
    height, width = shape
    column = np.clip((pixels.real + 0.5) * MAP / width, 0, MAP - 1).astype(int)
    row = np.clip((pixels.imag + 0.5) * MAP / height, 0, MAP - 1).astype(int)
    cell = row * MAP + column
    count = np.bincount(cell, minlength=MAP**2)
    middle = np.full((2, MAP**2), np.nan)
    for number in np.flatnonzero(count >= FEWEST):
        middle[:, number] = np.median(residual[:, cell == number], axis=1)
    steps = (np.arange(MAP) + 0.5) / MAP
    center_y, center_x = np.meshgrid(steps * height - 0.5, steps * width - 0.5, indexing="ij")
    columns = {"x": center_x, "y": center_y, "dx": middle[0], "dy": middle[1], "n": count}
    return {name: values.ravel().tolist() for name, values in columns.items()}


def _order(wcs):
    return 1 if wcs.sip is None else max(wcs.sip.a_order or 1, wcs.sip.b_order or 1)


def _against_input(wcs, start, hint, shape):
    """Return `shift`, `rotation` and `scale` of a solution against what was known."""
    crval = center_sky(wcs, shape)
    if start is None:
        shift = abs(tangent.project(hint.ra, hint.dec, *crval)) * 3600.0
        ratio = pixel_scale(wcs, shape) * 3600.0 / hint.pixscale if hint.pixscale else np.nan
        return {"shift": float(shift), "rotation": np.nan, "scale": float(ratio)}
    pixels = grid(shape, 9, 0.0)
    old, new = (tangent.project(*sky(solution, pixels), *crval) for solution in (start, wcs))
    delta = old - old.mean()
    turn = (np.conj(delta) * (new - new.mean())).sum() / (np.abs(delta) ** 2).sum()
    shift = abs(tangent.project(*center_sky(start, shape), *crval)) * 3600.0
    # xi grows to the east: a turn from north through east is clockwise in (xi, eta)
    return {"shift": float(shift), "rotation": float(-np.angle(turn, deg=True)), "scale": float(abs(turn))}


def _warnings(image, first, name, params):
    """Return what a person should know of the solution."""
    found = []
    height, width = image.shape
    pixels = image.pixels[first] + image.center
    row, column = (np.clip(part, 0, 2).astype(int) for part in (pixels.imag * 3 / height, pixels.real * 3 / width))
    cell = 3 * row + column
    empty = 9 - len(np.unique(cell))
    bright = np.flatnonzero(image.photon <= np.quantile(image.photon[first], 0.75))
    if len(first) >= 20 and asterism.evenness(image.pixels[bright], np.flatnonzero(np.isin(bright, first))) < 0.35:
        found.append("objects of one quarter of the image hardly match the catalogue")
    if empty > 2 and len(first) >= 12:
        found.append(f"{empty} of 9 parts of the image hold no matched star")
    if len(first) < 2 * params.min_matches:
        found.append(f"only {len(first)} stars carry the astrometric solution")
    if not image.good[first].any():
        found.append("the astrometric solution rests on flagged objects only")
    return tuple(found)
