"""The astrometry stage: match the objects with the catalogue, fit a plate solution, choose what to believe."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy.coordinates import FK5, ICRS, SkyCoord
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from astropy.wcs.utils import wcs_to_celestial_frame

from nightsift import asterism, parameters, sip
from nightsift.errors import Rejected
from nightsift.planes import Flag

UNSURE = Flag.SATURATED | Flag.TRUNCATED | Flag.FOOTPRINT_MASKED | Flag.COSMIC | Flag.OUTLIER
BRIGHTNESS = ("r", "R", "G", "V", "VT", "g", "i", "BP", "RP", "z", "B", "J")
STARS_PER_TERM = 5
#: a more complex solution must predict held-out stars better by this many standard errors
CLEARLY = 2.0
#: loss of a star at which it counts as an outlier: 3 sigma on both axes
WORST = 18.0


@dataclass(frozen=True)
class Hint:
    """What is known of an image's place on the sky before the stage; any may be None.

    Degrees for the expected centre `ra`, `dec` and its uncertainty `radius`, arcsec for `pixscale`.
    """

    wcs: WCS | None = None
    ra: float | None = None
    dec: float | None = None
    radius: float | None = None
    pixscale: float | None = None


@dataclass(frozen=True)
class Astrometry:
    """A plate solution.

    `header` holds the celestial cards of `wcs`; `order` is the SIP order (1 = pure TAN); `rms` is in arcsec along
    right ascension (on the sky) and declination, robust, of the matches that the fit used and that are well measured.
    `object_index` and `catalog_index` are the mutual nearest matches, `residual_x`, `residual_y` their offsets object
    minus catalogue in pixels. `shift` (arcsec, at the image's centre), `rotation` (deg, north through east) and
    `scale` (ratio) are against the input, NaN where the input did not tell.
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
    shift: float
    rotation: float
    scale: float
    kept_input: bool
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Image:
    """Objects (`pixels` about the centre, brightest first) and catalogue (brightest first) in plain arrays."""

    pixels: np.ndarray
    photon: np.ndarray
    good: np.ndarray
    index: np.ndarray
    ra: np.ndarray
    dec: np.ndarray
    index_ref: np.ndarray
    shape: tuple[int, int]

    @property
    def center(self) -> complex:
        return (self.shape[1] - 1) / 2 + 0.5j * (self.shape[0] - 1)

    @property
    def unit(self) -> float:
        return 0.5 * float(np.hypot(*self.shape))


@dataclass(frozen=True)
class _Plate:
    """``xi, eta`` about `crval`, in degrees, as polynomials of pixels from the image's centre."""

    coefficients: np.ndarray
    order: int
    unit: float
    crval: tuple[float, float]
    used: np.ndarray

    def plane(self, pixels):
        fitted = sip.monomials(pixels / self.unit, self.order) @ self.coefficients
        return fitted[:, 0] + 1j * fitted[:, 1]

    @property
    def scale(self):
        return float(np.sqrt(abs(np.linalg.det(self.coefficients[1:3])))) / self.unit


def astrometry(
    objects: Table,
    catalog: Table,
    hint: Hint,
    shape: tuple[int, int],
    params: parameters.Astrometry,
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
    start = _usable(hint.wcs, shape)
    if start is None and (hint.ra is None or hint.dec is None):
        raise Rejected("no WCS in the header and no position hint")
    image = _prepare(objects, catalog, shape, band_hint)
    for number, what in ((len(image.pixels), "objects"), (len(image.ra), "catalogue stars")):
        if number < params.min_matches:
            raise Rejected(f"only {number} {what} to match, {params.min_matches} needed")
    first, second, crval = _find(image, start, hint, params)
    plate, first, second = _tighten(image, first, second, crval, params)
    sigma = _errors(image, plate, first, second)
    fitted = _fitted(image, first, plate, params)
    if fitted.sum() < params.min_matches:
        raise Rejected(f"only {fitted.sum()} objects match the catalogue, {params.min_matches} needed")
    name, header = _choose(image, first[fitted], second[fitted], sigma[fitted], plate.crval, start, params)
    return _result(image, name, header, start, hint, params)


def _column(table, name, default):
    if name not in table.colnames:
        return np.full(len(table), default, float)
    return np.ma.filled(np.ma.asarray(table[name]).astype(float), np.nan)


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


def _prepare(objects, catalog, shape, band_hint) -> _Image:
    x, y, flux, snr = (_column(objects, name, np.nan) for name in ("x", "y", "flux", "snr"))
    flags = np.nan_to_num(_column(objects, "flags", 0)).astype(int)
    index = np.flatnonzero(np.isfinite(x) & np.isfinite(y) & (flags & int(Flag.COSMIC) == 0))
    index = index[np.argsort(-np.nan_to_num(flux[index], nan=-np.inf), kind="stable")]
    fwhm = _column(objects, "fwhm", np.nan)
    fwhm = float(np.median(fwhm[fwhm > 0])) if (fwhm > 0).any() else 3.0
    # the centroid's error for a Gaussian star in the background's noise, King 1983, PASP 95, 163
    photon = 0.6 * fwhm / np.where(snr > 0, snr, 5.0)
    ra, dec = _column(catalog, "ra", np.nan), _column(catalog, "dec", np.nan)
    column = brightness_column(catalog, band_hint)
    mag = _column(catalog, column, np.nan) if column else np.zeros(len(catalog))
    index_ref = np.flatnonzero(np.isfinite(ra) & np.isfinite(dec))
    index_ref = index_ref[np.argsort(np.nan_to_num(mag[index_ref], nan=np.inf), kind="stable")]
    return _Image(
        pixels=(x + 1j * y)[index] - ((shape[1] - 1) / 2 + 0.5j * (shape[0] - 1)),
        photon=photon[index],
        good=(flags & int(UNSURE) == 0)[index],
        index=index,
        ra=ra[index_ref],
        dec=dec[index_ref],
        index_ref=index_ref,
        shape=tuple(shape),
    )


def _usable(wcs, shape) -> WCS | None:
    """Return the celestial part of a WCS that makes sense all over the image, else None."""
    if wcs is None or not wcs.has_celestial:
        return None
    wcs = wcs.celestial
    pixels = sip.grid(shape, 5, 0.0)
    try:
        ra, dec = _sky(wcs, pixels)
    except Exception:  # wcslib and the frames have many ways to refuse a header
        return None
    if not (np.isfinite(ra).all() and np.isfinite(dec).all()):
        return None
    scale = _scale(wcs, shape)
    return wcs if 1e-3 < scale * 3600 < 1e3 else None


def _sky(wcs, pixels):
    """Return ICRS right ascension and declination in degrees of complex 0-based pixels."""
    lon, lat = wcs.all_pix2world(pixels.real, pixels.imag, 0)
    frame = wcs_to_celestial_frame(wcs)
    if _is_icrs(frame):
        return lon % 360.0, lat
    sky = SkyCoord(lon, lat, unit="deg", frame=frame).icrs
    return sky.ra.deg, sky.dec.deg


def _is_icrs(frame):
    # FK5 at J2000 differs by 0.02 arcsec, and headers say FK5 for solutions against ICRS catalogues
    return isinstance(frame, ICRS) or (isinstance(frame, FK5) and abs(frame.equinox.jyear - 2000.0) < 1e-6)


def _center_sky(wcs, shape):
    ra, dec = _sky(wcs, np.array([(shape[1] - 1) / 2 + 0.5j * (shape[0] - 1)]))
    return float(ra[0]), float(dec[0])


def _scale(wcs, shape):
    """Return degrees a pixel at the centre of the image."""
    return float(np.sqrt(abs(np.linalg.det(_jacobian(wcs, shape)))))


def _jacobian(wcs, shape):
    """Return d(xi, eta) / d(x, y) at the centre of the image, in degrees a pixel."""
    center = (shape[1] - 1) / 2 + 0.5j * (shape[0] - 1)
    plane = sip.project(*_sky(wcs, center + np.array([-1, 1, -1j, 1j])), *_center_sky(wcs, shape))
    along_x, along_y = (plane[1] - plane[0]) / 2, (plane[3] - plane[2]) / 2
    return np.array([[along_x.real, along_y.real], [along_x.imag, along_y.imag]])


def _find(image, start, hint, params):
    """Return matched objects and catalogue stars, and where the centre roughly is."""
    tried = []
    if start is not None:
        crval, scale = _center_sky(start, image.shape), _scale(start, image.shape)
        points = sip.project(*_sky(start, image.pixels + image.center), *crval) / scale
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
        reference = sip.project(image.ra, image.dec, *crval) / scale
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
        return scale, asterism.Limits(reach, 180.0, (1 - params.max_scale, 1 + params.max_scale), True)
    # the catalogue was asked for to cover the image, so the image is not larger than it
    extent = np.abs(sip.project(image.ra, image.dec, *crval))
    extent = float(np.nanmax(extent)) if np.isfinite(extent).any() else 1.0
    reach = min(hint.radius, extent) if hint.radius else 0.5 * extent
    largest = 1.1 * extent / image.unit
    return 1.0, asterism.Limits(reach, 180.0, (largest / 30.0, largest), True)


def _fit_plate(image, first, second, sigma, order, crval) -> _Plate:
    """Fit the polynomial plate, moving the tangent point until it is at the image's centre."""
    design = sip.monomials(image.pixels[first] / image.unit, order)
    for _ in range(5):
        plane = sip.project(image.ra[second], image.dec[second], *crval)
        solution, used = sip.clipped_fit(design, np.column_stack([plane.real, plane.imag]), sigma)
        offset = complex(*solution[0])
        if abs(offset) < 1e-10:
            break
        crval = tuple(float(value) for value in sip.deproject(offset, *crval))
    return _Plate(solution, order, image.unit, crval, used)


def _tighten(image, first, second, crval, params):
    """Match all stars with a radius that shrinks to what the scatter asks for; return plate and matches."""
    sigma = np.hypot(0.1, image.photon)
    for step in range(8):
        orders = range(2, min(params.max_order, 2 + step) + 1)
        order = max((n for n in orders if _supported(image, n, first)), default=1)
        plate = _fit_plate(image, first, second, sigma[first], order, crval)
        crval = plate.crval
        reference = sip.project(image.ra, image.dec, *crval) / plate.scale
        points = plate.plane(image.pixels) / plate.scale
        scatter = sip.robust_sigma(_parts((points[first] - reference[second])[plate.used]))
        near = np.flatnonzero(np.abs(reference) < 1.5 * image.unit)
        density = max(len(near), len(points)) / np.prod(image.shape)
        sparse = asterism.SPARSE / np.sqrt(density)
        # wide at first, or a fit that suits a part of the image never reaches the rest
        radius = min(sparse, 10.0) if step < 3 else min(6.0 * scatter, sparse)
        radius = max(radius, 3.0 * scatter, 0.5)
        matched, nearest, _, _ = asterism.mutual(points, reference[near], radius)
        if len(matched) < params.min_matches:
            raise Rejected(f"only {len(matched)} objects match the catalogue, {params.min_matches} needed")
        same = np.array_equal(matched, first) and np.array_equal(near[nearest], second)
        first, second = matched, near[nearest]
        if same and step > 2:
            break
    return plate, first, second


def _parts(values):
    return np.concatenate([values.real, values.imag])


def _supported(image, order, first, sigma=None):
    """Tell whether matches are enough for an order, and so spread that its fit is nowhere worse than two stars."""
    if order == 1:
        return True
    exponents = sip.powers(order)
    if len(first) < STARS_PER_TERM * len(exponents):
        return False
    weight = np.ones(len(first)) if sigma is None else (np.median(sigma) / sigma) ** 2
    design = sip.monomials(image.pixels[first] / image.unit, order)
    everywhere = sip.monomials((sip.grid(image.shape, 15, 0.0) - image.center) / image.unit, order)
    return sip.leverage(design, everywhere, weight).max() <= 4.0


def _errors(image, plate, first, second):
    """Return the error in pixels of each match: photon noise and what the bright stars scatter beyond it."""
    offset = (plate.plane(image.pixels[first]) - sip.project(image.ra[second], image.dec[second], *plate.crval)) / (
        plate.scale
    )
    photon = image.photon[first]
    bright = photon <= np.median(photon)
    excess = sip.robust_sigma(_parts(offset[bright])) ** 2 - np.median(photon[bright]) ** 2
    return np.sqrt(max(excess, 0.02**2) + photon**2)


def _fitted(image, first, plate, params):
    """Return which matches to fit: clean ones, or all where these are few."""
    clean = image.good[first]
    return clean if clean.sum() >= max(3 * params.min_matches, 20) else np.ones(len(first), bool)


def _choose(image, first, second, sigma, crval, start, params):
    """Return ``(name, header)`` of the simplest solution that none predicts held-out stars clearly better than.

    The candidates, by rising freedom: the input as it is, the input's distortion with a new linear part, polynomials
    of order 1 up to what the matches support. Each predicts every star from a fit to the other folds.
    """
    plane = sip.project(image.ra[second], image.dec[second], *crval)
    target = np.column_stack([plane.real, plane.imag])
    pixels = image.pixels[first]
    scale = _fit_plate(image, first, second, sigma, 1, crval).scale
    weight = 1 / sigma**2
    contenders = []
    if start is not None:
        known = sip.project(*_sky(start, pixels + image.center), *_center_sky(start, image.shape))
        if _is_icrs(wcs_to_celestial_frame(start)):
            direct = sip.project(*_sky(start, pixels + image.center), *crval)
            contenders.append(("input", np.column_stack([direct.real, direct.imag]) - target))
        if not start.wcs.ctype[0].endswith("TAN"):
            design = sip.monomials(known / scale / image.unit, 1)
            contenders.append(("adjusted", sip.held_out(design, target, weight)))
    for order in range(1, params.max_order + 1):
        design = sip.monomials(pixels / image.unit, order)
        if _supported(image, order, first, sigma):
            contenders.append((order, sip.held_out(design, target, weight)))
    name, best = None, None
    for contender, residual in contenders:
        loss = np.minimum((np.nan_to_num(residual, nan=1e3) ** 2).sum(axis=1) / (scale * sigma) ** 2, WORST)
        gain = 0 if best is None else best - loss
        better = best is None or gain.mean() > max(CLEARLY * gain.std() / np.sqrt(len(gain)), 0.01)
        header = _header(image, contender, first, second, sigma, crval, start) if better else None
        if header is not None:
            name, best, chosen = contender, loss, header
    return name, chosen


def _header(image, name, first, second, sigma, crval, start) -> fits.Header | None:
    """Return the header of a contender fitted to all matches, None where TAN-SIP cannot express it."""
    if name == "input":
        return _input_header(start)
    if name == "adjusted":
        return _adjusted_header(image, first, second, sigma, crval, start)
    plate = _fit_plate(image, first, second, sigma, name, crval)
    return sip.header(plate.coefficients, name, image.unit, image.center, plate.crval, image.shape)


def _input_header(start) -> fits.Header:
    """Return the celestial cards of the input."""
    cards = start.to_header(relax=True)
    for name in ("DATE-OBS", "MJD-OBS", "MJDREF", "MJDREFI", "MJDREFF", "EQUINOX", "TIMESYS"):
        cards.remove(name, ignore_missing=True)
    cards["RADESYS"] = "ICRS"
    return cards


def _adjusted_header(image, first, second, sigma, crval, start, good=0.01) -> fits.Header | None:
    """Return the input's distortion with a new linear part as TAN-SIP."""
    origin = _center_sky(start, image.shape)
    known = sip.project(*_sky(start, image.pixels[first] + image.center), *origin)
    pixels = sip.grid(image.shape)
    sampled = sip.project(*_sky(start, pixels), *origin)
    unit = image.unit * _scale(start, image.shape)
    design = sip.monomials(known / unit, 1)
    for _ in range(5):
        plane = sip.project(image.ra[second], image.dec[second], *crval)
        solution, _ = sip.clipped_fit(design, np.column_stack([plane.real, plane.imag]), sigma)
        middle = sip.monomials(np.array([0j]), 1) @ solution
        crval = tuple(float(value) for value in sip.deproject(complex(*middle[0]), *crval))
    moved = sip.monomials(sampled / unit, 1) @ solution
    moved = moved[:, 0] + 1j * moved[:, 1] - complex(*middle[0])
    for order in range(1, 8):
        fitted = sip.fit_pixels(pixels - image.center, moved, None, order, image.unit)
        rest = sip.monomials((pixels - image.center) / image.unit, order) @ fitted
        if np.abs(rest[:, 0] + 1j * rest[:, 1] - moved).max() < good * _scale(start, image.shape):
            return sip.header(fitted, order, image.unit, image.center, crval, image.shape)
    return None


def _result(image, name, header, start, hint, params) -> Astrometry:
    """Measure the chosen solution against the catalogue and the input."""
    wcs = WCS(header)
    crval, scale = _center_sky(wcs, image.shape), _scale(wcs, image.shape)
    found_ra, found_dec = _sky(wcs, image.pixels + image.center)
    points = sip.project(found_ra, found_dec, *crval) / scale
    reference = sip.project(image.ra, image.dec, *crval) / scale
    near = np.flatnonzero(np.abs(reference) < 1.5 * image.unit)
    density = max(len(near), len(points)) / np.prod(image.shape)
    radius = max(asterism.SPARSE / np.sqrt(density), 0.5)
    first, nearest, distance, _ = asterism.mutual(points, reference[near], radius)
    scatter = sip.robust_sigma(_parts(points[first] - reference[near[nearest]]))
    close = distance <= max(4.0 * scatter, 0.5)
    first, second = first[close], near[nearest[close]]
    residual = np.linalg.solve(
        _jacobian(wcs, image.shape) / scale,
        np.stack([(points[first] - reference[second]).real, (points[first] - reference[second]).imag]),
    )
    used = _fitted(image, first, None, params) & (distance[close] <= max(3.5 * scatter, 0.5))
    if used.sum() < params.min_matches:
        raise Rejected(f"only {used.sum()} objects match the catalogue, {params.min_matches} needed")
    sharp = used & (image.photon[first] <= max(0.1, np.median(image.photon[first][used])))
    sky = sip.project(found_ra[first], found_dec[first], image.ra[second], image.dec[second]) * 3600.0
    return Astrometry(
        wcs=wcs,
        header=header,
        order=_order(wcs),
        rms=(sip.robust_sigma(sky.real[sharp]), sip.robust_sigma(sky.imag[sharp])),
        n_matches=len(first),
        n_used=int(used.sum()),
        object_index=image.index[first],
        catalog_index=image.index_ref[second],
        residual_x=residual[0],
        residual_y=residual[1],
        **_against_input(wcs, start, hint, image.shape),
        kept_input=name == "input",
        warnings=_warnings(image, first[used], name, params),
    )


def _order(wcs):
    return 1 if wcs.sip is None else max(wcs.sip.a_order or 1, wcs.sip.b_order or 1)


def _against_input(wcs, start, hint, shape):
    """Return `shift`, `rotation` and `scale` of a solution against what was known."""
    crval = _center_sky(wcs, shape)
    if start is None:
        shift = abs(sip.project(hint.ra, hint.dec, *crval)) * 3600.0
        ratio = _scale(wcs, shape) * 3600.0 / hint.pixscale if hint.pixscale else np.nan
        return {"shift": float(shift), "rotation": np.nan, "scale": float(ratio)}
    pixels = sip.grid(shape, 9, 0.0)
    old, new = (sip.project(*_sky(solution, pixels), *crval) for solution in (start, wcs))
    delta = old - old.mean()
    turn = (np.conj(delta) * (new - new.mean())).sum() / (np.abs(delta) ** 2).sum()
    shift = abs(sip.project(*_center_sky(start, shape), *crval)) * 3600.0
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
