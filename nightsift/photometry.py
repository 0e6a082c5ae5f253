"""Tie the magnitudes of an image to a catalogue: m_cat = -2.5 log10(flux) + ZP(x, y) + C * colour.

The equation is the first of STDWeb (Karpov 2024, arXiv:2411.16470).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from astropy import units as u
from astropy.table import Table
from scipy.spatial import cKDTree

from nightsift import limits, zeropoint
from nightsift.catalog import column, light_fraction, match, unit_vectors
from nightsift.errors import Rejected
from nightsift.planes import Flag

WAVELENGTH = {
    **{"U": 365, "B": 445, "V": 551, "R": 658, "I": 806, "u": 354, "g": 477, "r": 623, "i": 762, "z": 913, "y": 962},
    **{"G": 640, "BP": 511, "RP": 777, "J": 1235, "H": 1662, "Ks": 2159, "BT": 428, "VT": 532},
}
_COLORS = {
    **dict.fromkeys(("U", "B", "V", "R", "I"), ("B-V", "V-R", "V-I", "g-r", "BP-RP")),
    **dict.fromkeys(("u", "g", "r", "i"), ("g-r", "r-i", "g-i", "B-V", "BP-RP")),
    **dict.fromkeys(("z", "y"), ("r-i", "i-z", "g-r", "BP-RP")),
    **dict.fromkeys(("G", "BP", "RP"), ("BP-RP", "g-r", "B-V")),
    **dict.fromkeys(("J", "H", "Ks"), ("J-Ks", "J-H", "H-Ks")),
}
_OTHER_COLORS = ("BT-VT", "BP-RP", "g-r", "B-V")
_EXCLUDED = (
    Flag.SATURATED
    | Flag.TRUNCATED
    | Flag.APERTURE_INCOMPLETE
    | Flag.FOOTPRINT_MASKED
    | Flag.APERTURE_MASKED
    | Flag.ANNULUS_BAD
    | Flag.OUTLIER
    | Flag.COSMIC
)
_MAG = 2.5 / np.log(10)
_ERROR_FLOOR = 0.003
_COLOR_SHARE = 0.7
_DISAGREEMENT = 0.2


@dataclass(frozen=True)
class Seeing:
    """What photometry must know of the image: `fwhm` and `aperture` (radius) [px], `pixscale` [arcsec], (ny, nx)."""

    fwhm: float
    pixscale: float
    aperture: float
    shape: tuple[int, int]


@dataclass(frozen=True)
class Photometry:
    """The photometric solution of an image.

    Attributes
    ----------
    band, color : str, str or None
        Catalogue band, and the colour of the colour term where one is fitted.
    zp, zp_err : float
        Mean over the image of the zero point at colour 0, and its error [mag].
    color_term, color_term_err : float or None
        None when not fitted.
    order : int
        Order of the zero point's polynomial.
    intrinsic, scatter : float
        Fitted scatter beyond the errors; robust rms of the residuals of the used stars' brighter half [mag].
    n_matched, n_used, chi2
        Matches, those in the fit, and the reduced chi-square of these.
    parameters : tuple of str
    coefficients, covariance : ndarray
        In the order of `parameters`: ``zp``, ``x``, ``y``, ``x2`` ... (positions scaled to -1..1 over the image, mean
        over the image removed), ``color``.
    shape : (ny, nx)
    match_object, match_catalog : ndarray of int, shape (n_matched,)
        Rows of the tables.
    used, residual, contamination : ndarray, shape (n_matched,)
        In the fit or not; catalogue minus model [mag]; light of neighbours in the aperture relative to the star's.
    limit_snr, maglim, maglim_snr, maglim_noise : float
        S/N and magnitude of the limit; as the S/N model has it (NaN: none), and as the median noise has it. `maglim`
        is the first where there is one.
    maglim_model : ndarray, shape (3,), or None
        See `limits.snr_model`.
    warnings : tuple of str
    """

    band: str
    color: str | None
    zp: float
    zp_err: float
    color_term: float | None
    color_term_err: float | None
    order: int
    intrinsic: float
    scatter: float
    n_matched: int
    n_used: int
    chi2: float
    parameters: tuple[str, ...]
    coefficients: np.ndarray
    covariance: np.ndarray
    shape: tuple[int, int]
    match_object: np.ndarray
    match_catalog: np.ndarray
    used: np.ndarray
    residual: np.ndarray
    contamination: np.ndarray
    limit_snr: float = 5.0
    maglim: float = np.nan
    maglim_snr: float = np.nan
    maglim_noise: float = np.nan
    maglim_model: np.ndarray | None = None
    warnings: tuple[str, ...] = ()

    def _terms(self, x, y) -> np.ndarray:
        return zeropoint.terms(self.order, *zeropoint.scaled(x, y, self.shape))

    def zero_point(self, x, y) -> np.ndarray:
        """Return the zero point [mag] at pixel positions, without the colour part."""
        design = self._terms(x, y)
        return design @ self.coefficients[: design.shape[-1]]

    def zero_point_error(self, x, y) -> np.ndarray:
        """Return the error [mag] of the zero point, common to what lies at that position."""
        design = self._terms(x, y)
        count = design.shape[-1]
        return np.sqrt(np.einsum("...i,ij,...j->...", design, self.covariance[:count, :count], design))

    def to_dict(self) -> dict:
        """Return plain lists, numbers and strings for JSON; NaN becomes None."""
        return {item.name: _plain(getattr(self, item.name)) for item in fields(self)}

    @classmethod
    def from_dict(cls, entries: dict) -> Photometry:
        """Return what `to_dict` was made from."""
        kinds = {"match_object": int, "match_catalog": int, "used": bool}
        arrays = ("coefficients", "covariance", "residual", "contamination", "maglim_model", *kinds)
        values = {item.name: entries[item.name] for item in fields(cls)}
        for name in arrays:
            if values[name] is not None:
                values[name] = np.array(values[name], dtype=kinds.get(name, float))
        for name in ("parameters", "shape", "warnings"):
            values[name] = tuple(values[name])
        for name in ("zp", "zp_err", "intrinsic", "scatter", "chi2", "maglim", "maglim_snr", "maglim_noise"):
            values[name] = np.nan if values[name] is None else values[name]
        return cls(**values)


def _plain(value):
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _all_magnitudes(catalog: Table, band: str, bands: list[str]) -> np.ndarray:
    """Return magnitudes in `band`; where there is none, those of the other bands shifted by the median colour."""
    mag = column(catalog, f"{band}mag")
    for other in sorted(bands, key=lambda name: abs(WAVELENGTH.get(name, 0) - WAVELENGTH.get(band, 0))):
        missing = ~np.isfinite(mag)
        if not missing.any():
            break
        known = column(catalog, f"{other}mag")
        shift = mag - known
        if np.isfinite(shift).any():
            mag = np.where(missing, known + np.nanmedian(shift), mag)
    return mag


def contamination(objects: Table, catalog: Table, matches, mag, seeing) -> np.ndarray:
    """Return, for each match, the light of neighbours in its aperture relative to its own.

    Parameters
    ----------
    objects, catalog : Table
    matches : pair of int arrays
        As from `match`.
    mag : array, shape (len(catalog),)
        Magnitudes of the catalogue stars, NaN = unknown.
    seeing : Seeing

    Returns
    -------
    ndarray, shape (n_matches,)
        Neighbours are the other catalogue stars, and the objects that no catalogue star accounts for.
    """
    index_object, index_star = matches
    result = np.zeros(len(index_star))
    reach = 8 * seeing.fwhm + seeing.aperture
    chord = np.deg2rad(reach * seeing.pixscale / 3600)
    stars = unit_vectors(column(catalog, "ra"), column(catalog, "dec"))
    known = np.flatnonzero(np.isfinite(stars).all(axis=1) & np.isfinite(mag))
    own = light_fraction(np.zeros(1), seeing.aperture, seeing.fwhm)[0]

    centres = cKDTree(stars[index_star])
    pairs = centres.sparse_distance_matrix(cKDTree(stars[known]), chord, output_type="ndarray")
    pairs = pairs[known[pairs["j"]] != index_star[pairs["i"]]]
    with np.errstate(invalid="ignore"):
        ratio = 10 ** (0.4 * (mag[index_star[pairs["i"]]] - mag[known[pairs["j"]]]))
    share = light_fraction(pairs["v"] / chord * reach, seeing.aperture, seeing.fwhm) / own
    np.add.at(result, pairs["i"], ratio * share)

    flux = column(objects, "flux")
    places = unit_vectors(column(objects, "ra"), column(objects, "dec"))
    loose = np.isfinite(places).all(axis=1) & (flux > 0)
    loose[index_object] = False
    loose = np.flatnonzero(loose)
    if len(loose):
        pairs = centres.sparse_distance_matrix(cKDTree(places[loose]), chord, output_type="ndarray")
        share = light_fraction(pairs["v"] / chord * reach, seeing.aperture, seeing.fwhm) / own
        # what a loose object's aperture holds of the star itself is no neighbour's light
        ratio = np.maximum(flux[loose[pairs["j"]]] / flux[index_object[pairs["i"]]] - share, 0)
        np.add.at(result, pairs["i"], ratio * share)
    return result


def _catalog_bands(catalog: Table) -> list[str]:
    names = [name[:-3] for name in catalog.colnames if name.endswith("mag") and not name.startswith("e_")]
    return [name for name in names if np.isfinite(column(catalog, f"{name}mag")).any()]


def _least_scatter(catalog: Table, bands: list[str], stars, instrumental) -> str:
    """Return the band that is most like the image's: with the least scatter, colour term and all."""
    offsets = {band: column(catalog, f"{band}mag")[stars] - instrumental for band in bands}
    counts = {band: np.isfinite(offset).sum() for band, offset in offsets.items()}
    enough = [band for band in bands if counts[band] >= max(0.5 * max(counts.values()), 1)]
    if len(enough) > 1:
        common = np.all([np.isfinite(offsets[band]) for band in enough], axis=0)
        if common.sum() >= 5:
            offsets = {band: offsets[band][common] for band in enough}
    spread = {}
    for band in enough:
        offset = offsets[band][np.isfinite(offsets[band])]
        spread[band] = np.median(np.abs(offset - np.median(offset)))
    return min(enough, key=spread.get)


def _choose_band(catalog: Table, band: str | None, params, stars, instrumental) -> tuple[str, list[str]]:
    bands = _catalog_bands(catalog)
    if not bands:
        raise Rejected("The catalogue has no magnitude for any star of the field.")
    if params.band is not None:
        if params.band not in bands:
            raise Rejected(
                f"The catalogue has no {params.band}mag in this field, which photometry.band asks for;"
                f" it has {', '.join(bands)}."
            )
        return params.band, []
    if band in bands:
        return band, []
    placed = [name for name in bands if name in WAVELENGTH]
    if band in WAVELENGTH and placed:
        nearest = min(placed, key=lambda name: abs(WAVELENGTH[name] - WAVELENGTH[band]))
        return nearest, [f"The catalogue has no {band}: calibrated to {nearest}, its nearest band in wavelength."]
    what = f"is {band}, which has no band of its own" if band else "is unknown"
    if len(bands) == 1:
        return bands[0], [f"The image's filter {what}: calibrated to {bands[0]}, the catalogue's only band."]
    chosen = _least_scatter(catalog, bands, stars, instrumental)
    return chosen, [f"The image's filter {what}: calibrated to {chosen}, the catalogue band with the least scatter."]


def _choose_color(catalog: Table, band: str, params, stars) -> tuple[str | None, list[str]]:
    """Return the first suitable colour that most of the stars have."""
    if params.color == "none":
        return None, []
    options = (params.color,) if params.color else _COLORS.get(band, _OTHER_COLORS)
    for option in options:
        first, _, second = option.partition("-")
        color = column(catalog, f"{first}mag") - column(catalog, f"{second}mag")
        if np.isfinite(color[stars]).mean() >= _COLOR_SHARE:
            return option, []
    if params.color:
        return None, [f"Too few stars have the colour {params.color}: no colour term."]
    return None, []


def _catalog_error(catalog: Table, band: str) -> np.ndarray:
    """Return the errors of `band`; where none is given their median, and never less than a floor."""
    error = column(catalog, f"e_{band}mag")
    given = np.isfinite(error) & (error > 0)
    usual = np.median(error[given]) if given.any() else 0.0
    return np.maximum(np.where(given, error, usual), _ERROR_FLOOR)


def _gather(objects, catalog, matches, band, color, shape) -> zeropoint.Matched:
    row, star = matches
    flux, fluxerr = column(objects, "flux"), column(objects, "fluxerr")
    noise = column(objects, "bgerr") if "bgerr" in objects.colnames else fluxerr
    error = _catalog_error(catalog, band)
    parts = [None, None, None]
    if color:
        first, _, second = color.partition("-")
        one, two = _catalog_error(catalog, first)[star] ** 2, _catalog_error(catalog, second)[star] ** 2
        sign = (band == first) * one - (band == second) * two
        difference = column(catalog, f"{first}mag") - column(catalog, f"{second}mag")
        parts = [difference[star], one + two, sign]
    return zeropoint.Matched(
        column(objects, "x")[row],
        column(objects, "y")[row],
        flux[row],
        noise[row],
        column(catalog, f"{band}mag")[star],
        error[star],
        *parts,
        limits.inverse_gain(flux, fluxerr, noise),
        tuple(shape),
    )


def _flags(objects: Table) -> np.ndarray:
    return np.asarray(objects["flags"]).astype(int) if "flags" in objects.colnames else np.zeros(len(objects), int)


def _clean(objects, matched: zeropoint.Matched, matches, blended, params) -> tuple[np.ndarray, dict[str, int]]:
    """Return which matches may be fitted, S/N aside, and how many are out for which reason."""
    flagged = (_flags(objects)[matches[0]] & int(_EXCLUDED)) != 0
    with np.errstate(invalid="ignore"):
        measured = (matched.flux > 0) & (matched.noise > 0) & np.isfinite(matched.mag + matched.x + matched.y)
    mixed = ~(blended <= params.max_contamination)
    reasons = {
        "without magnitude or flux": int(np.sum(~measured)),
        "flagged": int(np.sum(measured & flagged)),
        "blended": int(np.sum(measured & ~flagged & mixed)),
    }
    return measured & ~flagged & ~mixed, reasons


def _bright_scatter(result: zeropoint.Fit, mag: np.ndarray) -> float:
    residual, mag = result.residual[result.used], mag[result.used]
    if not len(mag):
        return np.nan
    bright = residual[mag <= np.median(mag)] if len(mag) >= 10 else residual
    return float(1.4826 * np.median(np.abs(bright - np.median(bright))))


def _limit(objects: Table, result: Photometry, params) -> Photometry:
    """Return the result with the image's limiting magnitudes."""
    flux, fluxerr = column(objects, "flux"), column(objects, "fluxerr")
    noise = column(objects, "bgerr") if "bgerr" in objects.colnames else fluxerr
    good = (flux > 0) & (fluxerr > 0) & ((_flags(objects) & int(_EXCLUDED & ~Flag.OUTLIER)) == 0)
    zero = result.zero_point(column(objects, "x"), column(objects, "y"))
    mag = zero[good] - 2.5 * np.log10(flux[good])
    model = limits.snr_model(mag, flux[good] / fluxerr[good])
    by_model = np.nan if model is None else limits.limiting_magnitude(model, params.limit_snr)
    usual = np.median(noise[good & (noise > 0)]) if (good & (noise > 0)).any() else np.nan
    faintest = limits.flux_limit(usual, limits.inverse_gain(flux, fluxerr, noise), params.limit_snr)
    by_noise = float(result.zp - 2.5 * np.log10(faintest))
    notes = []
    if abs(by_model - by_noise) > _DISAGREEMENT:
        notes.append(f"The S/N model puts the limit at {by_model:.2f} mag, the noise at {by_noise:.2f} mag.")
    limit = by_model if np.isfinite(by_model) else by_noise
    return replace(
        result,
        maglim=limit,
        maglim_snr=by_model,
        maglim_noise=by_noise,
        maglim_model=model,
        warnings=result.warnings + tuple(notes),
    )


def photometry(objects: Table, catalog: Table, seeing, band: str | None, params) -> Photometry:
    """Fit the zero point of an image.

    Parameters
    ----------
    objects : Table
        ``x y`` [px], ``ra dec`` [deg], ``flux fluxerr bgerr`` [ADU; the last is the part of the error that is there
        without the object], ``flags`` (`planes.Flag`).
    catalog : Table
        ``ra dec`` [deg, at the epoch of the image], ``<band>mag``, ``e_<band>mag`` [mag].
    seeing : Seeing
        Or anything else with its attributes.
    band : str or None
        Canonical name of the image's filter, None = unknown.
    params : parameters.Photometry

    Returns
    -------
    Photometry

    Raises
    ------
    Rejected
        Nothing matches, too few of the matches can be used, or the catalogue lacks the band asked for.
    """
    radius = max(0.5 * seeing.fwhm, 1.0) * seeing.pixscale
    matches = row, star = match(objects, catalog, radius)
    if not len(row):
        raise Rejected(
            f"None of the {len(objects)} objects lies within {radius:.2f} arcsec"
            f" of any of the {len(catalog)} catalogue stars."
        )
    flux = column(objects, "flux")[row]
    clean = (flux > 0) & ((_flags(objects)[row] & int(_EXCLUDED)) == 0)
    brighter = clean & (flux >= np.median(flux[clean])) if clean.any() else clean
    band, notes = _choose_band(catalog, band, params, star[brighter], -2.5 * np.log10(flux[brighter]))
    color, more = _choose_color(catalog, band, params, star)
    matched = _gather(objects, catalog, matches, band, color, seeing.shape)
    blended = contamination(objects, catalog, matches, _all_magnitudes(catalog, band, _catalog_bands(catalog)), seeing)
    good, reasons = _clean(objects, matched, matches, blended, params)
    # What little light of neighbours is let pass would still make every star too bright, and the zero point too high.
    matched = replace(matched, flux=matched.flux / (1 + np.nan_to_num(blended)))
    result, rows, again = zeropoint.solve(matched, good, reasons, params)

    used = np.zeros(len(row), bool)
    used[rows[result.used]] = True
    error = np.sqrt(np.diag(result.covariance))
    solution = Photometry(
        band=band,
        color=color if result.color else None,
        zp=float(result.coefficients[0]),
        zp_err=float(error[0]),
        color_term=float(result.coefficients[-1]) if result.color else None,
        color_term_err=float(error[-1]) if result.color else None,
        order=result.order,
        intrinsic=result.intrinsic,
        scatter=_bright_scatter(result, matched.mag[rows]),
        n_matched=len(row),
        n_used=int(used.sum()),
        chi2=result.chi2,
        parameters=zeropoint.names(result.order, result.color),
        coefficients=result.coefficients,
        covariance=result.covariance,
        limit_snr=params.limit_snr,
        shape=tuple(int(side) for side in seeing.shape),
        match_object=row,
        match_catalog=star,
        used=used,
        residual=matched.residual(result),
        contamination=blended,
        warnings=tuple(notes + more + again),
    )
    return _limit(objects, solution, params)


def calibrate(objects: Table, result: Photometry) -> Table:
    """Return the objects with ``mag_calib mag_calib_err mag_psf mag_psf_err maglim`` [mag].

    Parameters
    ----------
    objects : Table
        As for `photometry`, and ``psf_flux psf_fluxerr`` [ADU, on the scale of ``flux``].
    result : Photometry

    Notes
    -----
    `mag_calib`, of the aperture, and `mag_psf` are in the image's own passband on the catalogue's zero point. Their
    errors are those of the object alone; what is common to the image is in `Photometry.zero_point_error`. `maglim` is
    the magnitude at which a star at the object's place would have the aperture S/N `limit_snr`, its own photon noise
    included.
    """
    flux, fluxerr = column(objects, "flux"), column(objects, "fluxerr")
    noise = column(objects, "bgerr") if "bgerr" in objects.colnames else fluxerr
    zero = result.zero_point(column(objects, "x"), column(objects, "y"))
    faintest = limits.flux_limit(noise, limits.inverse_gain(flux, fluxerr, noise), result.limit_snr)
    table = objects.copy()
    fitted = column(objects, "psf_flux"), column(objects, "psf_fluxerr")
    for name, (light, error) in (("mag_calib", (flux, fluxerr)), ("mag_psf", fitted)):
        seen = np.where(light > 0, light, np.nan)
        table[name] = (zero - 2.5 * np.log10(seen)) * u.mag
        table[f"{name}_err"] = _MAG * error / seen * u.mag
    table["maglim"] = (zero - 2.5 * np.log10(np.where(faintest > 0, faintest, np.nan))) * u.mag
    return table
