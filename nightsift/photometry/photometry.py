"""Tie the magnitudes of an image to a catalogue: m_cat = -2.5 log10(flux) + ZP(x, y) + C * colour.

The equation is the first of STDWeb (Karpov 2024, arXiv:2411.16470).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace

import numpy as np
from astropy import units as u
from astropy.table import Table

from nightsift.catalog.catalog import column, match
from nightsift.errors import Rejected
from nightsift.flags import Flag
from nightsift.image import amplifiers
from nightsift.photometry import calibrators, colorterms, limits, verdict, zeropoint
from nightsift.photometry.blends import all_magnitudes, contamination
from nightsift.psf import growth
from nightsift.psf.psf import WIDEST, extended

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
_DISAGREEMENT = 0.2
_CLEARLY = 3.5  # standard deviations
_MANY = 0.2  # share of galaxies among the matches from which on the faint ones count
# What the growth of the PSF is wrong by: mag, and relative. Measured: its fit does not reach far into a halo.
_PSF_GROWTH = np.array([0.03, 0.1])
_UNSEEN = 0.4  # of a star's confusion that its growth shares with that of the others; measured on simulated fields
_POINT = 3.0  # standard deviations of `spread` beyond which an object is no point source


@dataclass(frozen=True)
class Seeing:
    """What photometry must know of the image: `fwhm` and `aperture` (radius) [px], `pixscale` [arcsec], (ny, nx).

    `growth` is by how much the light of the PSF within 4 FWHM exceeds that in the aperture [mag], NaN = not known.
    """

    fwhm: float
    pixscale: float
    aperture: float
    shape: tuple[int, int]
    growth: float = np.nan


@dataclass(frozen=True)
class Photometry:
    """The photometric solution of an image.

    Attributes
    ----------
    band, color : str, str or None
        Catalogue band, and the colour of the colour term where one is fitted.
    zp, zp_err : float
        Mean over the image of the zero point of all light at colour 0, and its error [mag]; NaN where there is no
        aperture correction.
    zp_aperture, zp_aperture_err : float
        The same of the light in the aperture [mag].
    aperture_correction, aperture_correction_err : float
        What is added to magnitudes of the aperture taken for total ones: the mean over the image of minus the growth
        [mag]; NaN where neither stars nor the PSF tell it.
    n_correction : int
        Stars that it rests on; 0 where the PSF has it.
    color_term, color_term_err : float or None
        None when not fitted.
    order, edges : int, pair of tuples of float
        Order of the zero point's polynomial, and where it steps between amplifiers (see `amplifiers.Edges`).
    intrinsic, scatter : float
        Fitted scatter beyond the errors; robust rms of the residuals of the used stars' brighter half [mag].
    n_matched, n_good, n_used, chi2
        Matches, the bright and unharmed of them, those of these that agree and make the fit, and the reduced chi-square
        of the latter.
    parameters : tuple of str
    coefficients, covariance : ndarray
        In the order of `parameters`, of the aperture's zero point: ``zp_aperture``, ``x``, ``y``, ``x2`` ... (positions
        scaled to -1..1 over the image, mean over the image removed), ``amplifier1`` ... (what the parts after the first
        have more than it, likewise), ``nonlinearity`` (a magnitude), ``background``
        (light in all apertures, in units of the flux at `reference`), ``color``.
    reference : float
        Instrumental magnitude at which the nonlinearity is 0.
    correction_coefficients, correction_covariance : ndarray or None
        Of the aperture correction over the image, in terms like the zero point's; the covariance is that of what the
        growth adds to these.
    color_terms : tuple of dict
        `colorterms.ColorTerm` of every band of the catalogue.
    color_tried : str or None
        The colour that the model could have had.
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
    maglim_map : ndarray, shape (rows, columns), or None
        See `limits.limit_map`.
    warnings, doubts : tuple of str
        What a person should know, and why the magnitudes mean little, as `verdict.doubts` has it.

    The errors hold what the stars' scatter shows; an error of the catalogue's own zero point they cannot show.
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
    n_good: int = 0
    edges: amplifiers.Edges = amplifiers.WHOLE
    zp_aperture: float = np.nan
    zp_aperture_err: float = np.nan
    aperture_correction: float = np.nan
    aperture_correction_err: float = np.nan
    n_correction: int = 0
    correction_coefficients: np.ndarray | None = None
    correction_covariance: np.ndarray | None = None
    reference: float = np.nan
    color_terms: tuple[dict, ...] = ()
    color_tried: str | None = None
    limit_snr: float = 5.0
    maglim: float = np.nan
    maglim_snr: float = np.nan
    maglim_noise: float = np.nan
    maglim_model: np.ndarray | None = None
    maglim_map: np.ndarray | None = None
    warnings: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()

    def _terms(self, x, y) -> np.ndarray:
        return zeropoint.surface(self.order, self.edges, *zeropoint.scaled(x, y, self.shape))

    def zero_point(self, x, y) -> np.ndarray:
        """Return the zero point of the aperture [mag] at pixel positions, without the colour part."""
        design = self._terms(x, y)
        return design @ self.coefficients[: design.shape[-1]]

    def zero_point_error(self, x, y) -> np.ndarray:
        """Return the error [mag] of `zero_point`, common to what lies at that position."""
        design = self._terms(x, y)
        count = design.shape[-1]
        return np.sqrt(np.einsum("...i,ij,...j->...", design, self.covariance[:count, :count], design))

    def total_zero_point(self, x, y) -> np.ndarray:
        """Return the zero point of all light [mag] at pixel positions, NaN where there is no aperture correction."""
        if self.correction_coefficients is None:
            return np.full(np.shape(x), np.nan)
        order = next(n for n in range(9) if len(zeropoint.powers(n)) == len(self.correction_coefficients))
        surface = zeropoint.terms(order, *zeropoint.scaled(x, y, self.shape)) @ self.correction_coefficients
        return self.zero_point(x, y) - surface

    def term(self, name: str) -> float:
        """Return one of the coefficients; 0 for what the model does not have."""
        return float(self.coefficients[self.parameters.index(name)]) if name in self.parameters else 0.0

    def to_dict(self) -> dict:
        """Return plain lists, numbers and strings for JSON; NaN becomes None."""
        return {item.name: _plain(getattr(self, item.name)) for item in fields(self)}

    @classmethod
    def from_dict(cls, entries: dict) -> Photometry:
        """Return what `to_dict` was made from."""
        kinds = {"match_object": int, "match_catalog": int, "used": bool}
        values = {item.name: entries[item.name] for item in fields(cls) if item.name in entries}
        for item in fields(cls):
            if item.name in values and str(item.type).startswith("np.ndarray") and values[item.name] is not None:
                values[item.name] = np.array(values[item.name], dtype=kinds.get(item.name, float))
            elif item.name in values and str(item.type).startswith("tuple"):
                values[item.name] = tuple(values[item.name])
            elif item.type == "float" and values.get(item.name, 0.0) is None:
                values[item.name] = np.nan
        return cls(**values)


def _plain(value):
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _gather(objects, catalog, matches, band, color, shape) -> calibrators.Matched:
    row, star = matches
    flux, fluxerr = column(objects, "flux"), column(objects, "fluxerr")
    noise = column(objects, "bgerr") if "bgerr" in objects.colnames else fluxerr
    parts = [None, None, None]
    if color:
        parts = [colorterms.catalog_color(catalog, color), *colorterms.color_errors(catalog, band, color)]
        parts = [part[star] for part in parts]
    return calibrators.Matched(
        column(objects, "x")[row],
        column(objects, "y")[row],
        flux[row],
        noise[row],
        column(catalog, f"{band}mag")[star],
        colorterms.catalog_error(catalog, band)[star],
        *parts,
        limits.inverse_gain(flux, fluxerr, noise),
        tuple(shape),
    )


def _flags(objects: Table) -> np.ndarray:
    return np.asarray(objects["flags"]).astype(int) if "flags" in objects.colnames else np.zeros(len(objects), int)


def _clean(objects, matched: calibrators.Matched, matches, blended, params):
    """Return which matches may be fitted, S/N aside, how many are out for which reason, and what is strange in that."""
    flagged = (_flags(objects)[matches[0]] & int(_EXCLUDED)) != 0
    with np.errstate(invalid="ignore"):
        measured = (matched.flux > 0) & (matched.noise > 0) & np.isfinite(matched.mag + matched.x + matched.y)
    mixed = ~(blended <= params.max_contamination)
    good = measured & ~flagged & ~mixed
    wide = good & _wide(objects, matches[0], good)
    # Where nothing seems a point, it is the PSF that is wrong.
    wide &= np.sum(good & ~wide) >= 2 * params.min_stars
    reasons = {
        "without magnitude or flux": int(np.sum(~measured)),
        "flagged": int(np.sum(measured & flagged)),
        "blended": int(np.sum(measured & ~flagged & mixed)),
        "extended": int(np.sum(wide)),
    }
    notes = []
    if wide.any() and verdict.apart(matched.x[good], matched.y[good], wide[good]) > _CLEARLY:
        notes.append(
            f"{reasons['extended']} of {len(good)} matches look extended, where others of them are: does the PSF change"
            " in steps, as in mosaics? They do not calibrate, and their magnitudes are wrong."
        )
    return good & ~wide, reasons, notes


def _wide(objects, rows, good) -> np.ndarray:
    """Tell which rows may be galaxies, of which an aperture holds less than of a star.

    Where many are galaxies, those are meant too that are too faint to show it.
    """
    spread, doubt = column(objects, "spread")[rows], column(objects, "spread_err")[rows]
    wide = extended(spread, doubt)
    if np.sum(good & wide) > _MANY * np.sum(good):
        wide |= spread + doubt > WIDEST
    return wide


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
    x, y = column(objects, "x"), column(objects, "y")
    zero = result.zero_point(x, y)
    mag = zero[good] - 2.5 * np.log10(flux[good])
    model = limits.snr_model(mag, flux[good] / fluxerr[good])
    by_model = np.nan if model is None else limits.limiting_magnitude(model, params.limit_snr)
    quiet = good & (noise > 0)
    faintest = limits.flux_limit(noise[quiet], limits.inverse_gain(flux, fluxerr, noise), params.limit_snr)
    here = zero[quiet] - 2.5 * np.log10(faintest)
    by_noise = float(np.median(here)) if quiet.any() else np.nan
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
        maglim_map=limits.limit_map(x[quiet], y[quiet], here, result.shape),
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
    flags = _flags(objects)[row] & int(_EXCLUDED)
    band, known, notes = _band(objects, catalog, band, params, (row[flags == 0], star[flags == 0]))
    color, more = colorterms.choose_color(catalog, band, params, star)
    matched = _gather(objects, catalog, matches, band, color, seeing.shape)
    mags = all_magnitudes(catalog, band, colorterms.catalog_bands(catalog))
    blended, left = contamination(objects, catalog, matches, mags, seeing)
    good, reasons, strange = _clean(objects, matched, matches, blended, params)
    # steps of the PSF make steps of what the aperture misses
    params = replace(params, amplifiers=params.amplifiers and not strange)
    # What little light of neighbours is let pass would still make every star too bright, and the zero point too high.
    matched = replace(matched, flux=matched.flux / (1 + np.nan_to_num(left)))
    result, rows, again = calibrators.solve(matched, good, reasons, params)
    used = np.zeros(len(row), bool)
    used[rows[result.used]] = True
    solution = Photometry(
        band=band,
        color=color if result.color else None,
        zp=np.nan,
        zp_err=np.nan,
        zp_aperture=float(result.coefficients[0]),
        zp_aperture_err=float(np.sqrt(result.covariance[0, 0])),
        color_term=float(result.coefficients[-1]) if result.color else None,
        color_term_err=float(np.sqrt(result.covariance[-1, -1])) if result.color else None,
        order=result.order,
        edges=result.edges,
        intrinsic=result.intrinsic,
        scatter=_bright_scatter(result, matched.mag[rows]),
        n_matched=len(row),
        n_good=len(rows),
        n_used=int(used.sum()),
        chi2=result.chi2,
        parameters=("zp_aperture", *result.names[1:]),
        coefficients=result.coefficients,
        covariance=result.covariance,
        reference=matched.reference,
        color_terms=tuple(asdict(item) for item in known),
        color_tried=color,
        limit_snr=params.limit_snr,
        shape=tuple(int(side) for side in seeing.shape),
        match_object=row,
        match_catalog=star,
        used=used,
        residual=matched.residual(result),
        contamination=blended,
        warnings=tuple(notes + more + strange + again),
    )
    verdict.refuse(solution, params)
    solution = replace(solution, doubts=verdict.doubts(solution, params))
    solution = _with_remarks(matched, solution, rows)
    return _limit(objects, _total(objects, solution, params, seeing), params)


def _with_remarks(matched: calibrators.Matched, result: Photometry, rows) -> Photometry:
    """Return the result with what the good stars (rows of the matches) say of it."""
    x, y, residual, used = matched.x[rows], matched.y[rows], result.residual[rows], result.used[rows]
    count = len(amplifiers.shares(result.edges))
    first = len(zeropoint.powers(result.order))
    levels = amplifiers.steps(result.edges, result.coefficients[first : first + count - 1])
    notes = verdict.remarks(x, y, residual, used, result.edges, levels, result.shape)
    if not result.doubts:
        notes += verdict.unsmooth(x[used], y[used], residual[used])
    return replace(result, warnings=result.warnings + notes)


def _band(objects, catalog, band, params, matches):
    """Return the band to calibrate to, the colour terms of all bands, and what is to be said."""
    row, star = matches
    flux, fluxerr = column(objects, "flux")[row], column(objects, "fluxerr")[row]
    lit = flux > 0
    lit &= flux >= np.median(flux[lit]) if lit.any() else lit
    star, instrumental, variance = star[lit], -2.5 * np.log10(flux[lit]), (_MAG * fluxerr[lit] / flux[lit]) ** 2
    known = colorterms.diagnose(catalog, params, star, instrumental, variance)
    band, notes = colorterms.choose_band(catalog, band, params, known)
    return band, known, notes


def _total(objects: Table, result: Photometry, params, seeing) -> Photometry:
    """Return the result with the zero point of all light, by the growth of calibration stars, all stars, or the PSF."""
    fit, surface = None, None
    if "growth" in objects.colnames:
        # the stars that make the zero point first: where the PSF changes in steps, the others have other places
        point = np.abs(column(objects, "spread")) < _POINT * column(objects, "spread_err")
        loose = np.flatnonzero(point & ((_flags(objects) & int(_EXCLUDED)) == 0))
        for rows in (result.match_object[result.used], loose):
            if fit is None:
                fit, surface = _correction(objects[rows], result, params.max_spatial_order)
                unseen = _unseen(objects[rows])
    if fit is not None:
        covariance, number = fit.covariance[: fit.surface, : fit.surface].copy(), int(fit.used.sum())
        covariance[0, 0] += unseen**2
        value, error = float(-fit.coefficients[0]), float(np.sqrt(covariance[0, 0]))
    else:
        value, number = -float(getattr(seeing, "growth", np.nan)), 0
        error = float(np.hypot(*_PSF_GROWTH * np.array([1.0, value])))
        surface, covariance = np.array([value]), np.array([[error**2]])
        note = "No star tells how much light the aperture misses: "
        if not np.isfinite(value):
            if "growth" not in objects.colnames:
                return result
            note += "the zero point of all light, zp, is not known, but that of the aperture's, zp_aperture."
            return replace(result, warnings=(*result.warnings, note))
        note += f"the PSF has it, to {error:.2f} mag."
        result = replace(result, warnings=(*result.warnings, note))
    return replace(
        result,
        zp=result.zp_aperture - value,
        zp_err=float(np.hypot(result.zp_aperture_err, error)),
        aperture_correction=value,
        aperture_correction_err=error,
        n_correction=number,
        correction_coefficients=surface,
        correction_covariance=covariance,
    )


def _unseen(stars: Table) -> float:
    """Return what light of stars too faint to be seen may add to the growth of all stars alike [mag]."""
    if "confusion" not in stars.colnames:
        return 0.0
    grown = np.isfinite(column(stars, "growth"))
    with np.errstate(invalid="ignore", divide="ignore"):
        share = column(stars, "confusion")[grown] / column(stars, "flux")[grown]
    return float(_UNSEEN * _MAG * np.median(share)) if np.isfinite(share).any() else 0.0


def _correction(stars: Table, result: Photometry, max_order: int):
    """Return the fit of the stars' growth, or None, and the coefficients of the aperture correction over the image.

    Where the PSF changes, the growth makes up for what the aperture's zero point does: then their sum is the smoother.
    """
    x, y, flux, value, error = (column(stars, name) for name in ("x", "y", "flux", "growth", "growth_err"))
    own = result.coefficients[: len(zeropoint.powers(result.order))].copy()
    own[0] = 0.0
    change = zeropoint.terms(result.order, *zeropoint.scaled(x, y, result.shape)) @ own
    fits = [
        (growth.aperture_correction(x, y, flux, value + part, error, result.shape, max_order), taken)
        for part, taken in ((0.0, 0 * own), (change, own))
    ]
    if fits[0][0] is None:
        return None, None
    fit, taken = min(fits, key=lambda one: one[0].bic)
    surface = np.zeros(max(fit.surface, len(taken)))
    surface[: fit.surface] -= fit.coefficients[: fit.surface]
    surface[: len(taken)] += taken
    return fit, surface


def calibrate(objects: Table, result: Photometry, catalog: Table | None = None) -> Table:
    """Return the objects with ``mag_calib mag_psf mag_std``, their errors ``..._err``, and ``maglim`` [mag].

    Where there are ``spread spread_err``, ``flags`` get `Flag.EXTENDED`.

    Parameters
    ----------
    objects : Table
        As for `photometry`, and ``psf_flux psf_fluxerr`` [ADU, on the scale of ``flux``].
    result : Photometry
    catalog : Table, optional
        As for `photometry`, for `mag_std`.

    Notes
    -----
    `mag_calib`, of the aperture, and `mag_psf` are in the image's own passband on the catalogue's zero point. Their
    errors are those of the object alone; what is common to the image is in `Photometry.covariance`. `mag_std` is
    `mag_calib` with the colour part of the object's catalogue colour: a magnitude in the catalogue's band. It is NaN
    where that colour is not known; where the stars ask for no colour term, there is none to add. `maglim` is the
    magnitude at which a star at the object's place would have the aperture S/N `limit_snr`, its own photon noise
    included.
    """
    flux, fluxerr = column(objects, "flux"), column(objects, "fluxerr")
    noise = column(objects, "bgerr") if "bgerr" in objects.colnames else fluxerr
    zero = result.zero_point(column(objects, "x"), column(objects, "y"))
    faintest = limits.flux_limit(noise, limits.inverse_gain(flux, fluxerr, noise), result.limit_snr)
    table = objects.copy()
    if "spread" in objects.colnames:
        wide = extended(column(objects, "spread"), column(objects, "spread_err"))
        table["flags"] = _flags(objects) | np.where(wide, int(Flag.EXTENDED), 0)
    fitted = column(objects, "psf_flux"), column(objects, "psf_fluxerr")
    for name, (light, error) in (("mag_calib", (flux, fluxerr)), ("mag_psf", fitted)):
        light = light - (result.term("background") * 10 ** (-0.4 * result.reference) if name == "mag_calib" else 0)
        seen = np.where(light > 0, light, np.nan)
        mag = -2.5 * np.log10(seen)
        bent = result.term("nonlinearity") * (mag - result.reference) if "nonlinearity" in result.parameters else 0.0
        table[name] = (zero + mag + bent) * u.mag
        table[f"{name}_err"] = _MAG * error / seen * u.mag
    color, variance = _colors(len(table), result, catalog)
    table["color"] = color * u.mag
    term, known = result.term("color"), np.isfinite(color)
    table["mag_std"] = np.where(known, table["mag_calib"].value + term * np.nan_to_num(color), np.nan) * u.mag
    error = np.sqrt(table["mag_calib_err"].value ** 2 + term**2 * variance)
    table["mag_std_err"] = np.where(known, error, np.nan) * u.mag
    table["maglim"] = (zero - 2.5 * np.log10(np.where(faintest > 0, faintest, np.nan))) * u.mag
    return table


def _colors(number: int, result: Photometry, catalog: Table | None):
    """Return the catalogue's colours of the objects, and their variances; NaN where none is known."""
    color, variance = np.full(number, np.nan), np.full(number, np.nan)
    if catalog is not None and result.color_tried:
        row, star = result.match_object, result.match_catalog
        color[row] = colorterms.catalog_color(catalog, result.color_tried)[star]
        variance[row] = colorterms.color_errors(catalog, result.band, result.color_tried)[0][star]
    return color, variance
