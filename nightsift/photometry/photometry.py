"""Tie the magnitudes of an image to a catalogue: m_cat = -2.5 log10(flux) + ZP(x, y) + C * colour.

The equation is the first of STDWeb (Karpov 2024, arXiv:2411.16470).
"""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
from astropy.table import Table

from nightsift.catalog.catalog import match
from nightsift.errors import Rejected
from nightsift.flags import UNUSABLE, Flag
from nightsift.image import amplifiers
from nightsift.image.polynomial import powers
from nightsift.photometry import calibrators, colorterms, limits, verdict, zeropoint
from nightsift.photometry.aperture_correction import aperture_correction
from nightsift.photometry.blends import all_magnitudes, contamination
from nightsift.photometry.solution import DepthLimits, MatchedStars, Photometry, ZeroPointModel
from nightsift.psf.extended import WIDEST, extended
from nightsift.statistics import MAG, SIGMA_PER_MAD
from nightsift.tables import column

_DISAGREEMENT = 0.2  # mag between the two limits from which on a warning is issued
_CLEARLY = 3.5  # standard deviations
_MANY = 0.2  # fraction of galaxies among the matches from which on the faint ones count
# What the growth of the PSF is wrong by: mag, and relative. Measured: its fit does not reach far into a halo.
_PSF_GROWTH = np.array([0.03, 0.1])
_UNSEEN = 0.4  # of a star's confusion that its growth shares with that of the others; measured on simulated fields
_POINT = 3.0  # standard deviations of `spread` beyond which an object is no point source


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


def object_flags(objects: Table) -> np.ndarray:
    return np.asarray(objects["flags"]).astype(int) if "flags" in objects.colnames else np.zeros(len(objects), int)


def _clean(objects, matched: calibrators.Matched, matches, blended, params):
    """Return which matches may be fitted, S/N aside, how many are out for which reason, and what is strange in that."""
    flagged = (object_flags(objects)[matches[0]] & int(UNUSABLE)) != 0
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


def _bright_scatter(result: zeropoint.ZeroPointFit, mag: np.ndarray) -> float:
    residual, mag = result.residual[result.used], mag[result.used]
    if not len(mag):
        return np.nan
    bright = residual[mag <= np.median(mag)] if len(mag) >= 10 else residual
    return float(SIGMA_PER_MAD * np.median(np.abs(bright - np.median(bright))))


def _limit(objects: Table, result: Photometry, params) -> Photometry:
    """Return the result with the image's limiting magnitudes."""
    flux, fluxerr = column(objects, "flux"), column(objects, "fluxerr")
    noise = column(objects, "bgerr") if "bgerr" in objects.colnames else fluxerr
    good = (flux > 0) & (fluxerr > 0) & ((object_flags(objects) & int(UNUSABLE & ~Flag.OUTLIER)) == 0)
    x, y = column(objects, "x"), column(objects, "y")
    zero = result.model.zero_point(x, y)
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
    by_place = limits.limit_map(x[quiet], y[quiet], here, result.model.shape)
    depth = DepthLimits(params.limit_snr, limit, by_model, by_noise, model, by_place)
    return replace(result, limits=depth, warnings=result.warnings + tuple(notes))


# Long: the fields of the result, one a line, are a third of it.
def photometry(objects: Table, catalog: Table, seeing, band: str | None, params) -> Photometry:
    """Fit the zero point of an image.

    Parameters
    ----------
    objects : Table
        ``x y`` [px], ``ra dec`` [deg], ``flux fluxerr bgerr`` [ADU; the last is the part of the error that is there
        without the object], ``flags`` (`nightsift.flags.Flag`).
    catalog : Table
        ``ra dec`` [deg, at the epoch of the image], ``<band>mag``, ``e_<band>mag`` [mag].
    seeing : Seeing
        Or anything else with its attributes.
    band : str or None
        Canonical name of the image's filter, None = unknown.
    params : parameters.PhotometryConfig

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
    flags = object_flags(objects)[row] & int(UNUSABLE)
    band, known, notes = _band(objects, catalog, band, params, (row[flags == 0], star[flags == 0]))
    color, more = colorterms.choose_color(catalog, band, params, star)
    matched = _gather(objects, catalog, matches, band, color, seeing.shape)
    mags = all_magnitudes(catalog, band, colorterms.catalog_bands(catalog))
    blended, left = contamination(objects, catalog, matches, mags, seeing)
    good, reasons, strange = _clean(objects, matched, matches, blended, params)
    # steps of the PSF make steps of what the aperture misses
    params = replace(params, amplifiers=params.amplifiers and not strange)
    # What little flux of neighbours is let pass would still make every star too bright, and the zero point too high.
    matched = replace(matched, flux=matched.flux / (1 + np.nan_to_num(left)))
    result, rows, again = calibrators.solve(matched, good, reasons, params)
    used = np.zeros(len(row), bool)
    used[rows[result.used]] = True
    model = ZeroPointModel(
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
        chi2=result.chi2,
        parameters=("zp_aperture", *result.names[1:]),
        coefficients=result.coefficients,
        covariance=result.covariance,
        reference=matched.reference,
        color_terms=tuple(asdict(item) for item in known),
        color_tried=color,
        shape=tuple(int(side) for side in seeing.shape),
    )
    counts = len(row), len(rows), int(used.sum())
    calibration_stars = MatchedStars(*counts, row, star, used, matched.residual(result), blended)
    solution = Photometry(
        model, DepthLimits(params.limit_snr), calibration_stars, tuple(notes + more + strange + again)
    )
    verdict.refuse(solution, params)
    solution = replace(solution, doubts=verdict.doubts(solution, params))
    solution = _with_remarks(matched, solution, rows)
    return _limit(objects, _total(objects, solution, params, seeing), params)


def _with_remarks(matched: calibrators.Matched, result: Photometry, rows) -> Photometry:
    """Return the result with what the good stars (rows of the matches) say of it."""
    solved, stars = result.model, result.stars
    x, y, residual, used = matched.x[rows], matched.y[rows], stars.residual[rows], stars.used[rows]
    count = len(amplifiers.fractions(solved.edges))
    first = len(powers(solved.order))
    levels = amplifiers.steps(solved.edges, solved.coefficients[first : first + count - 1])
    notes = verdict.remarks(x, y, residual, used, solved.edges, levels, solved.shape)
    if not result.doubts:
        notes += verdict.unsmooth(x[used], y[used], residual[used])
    return replace(result, warnings=result.warnings + notes)


def _band(objects, catalog, band, params, matches):
    """Return the band to calibrate to, the colour terms of all bands, and what is to be said."""
    row, star = matches
    flux, fluxerr = column(objects, "flux")[row], column(objects, "fluxerr")[row]
    lit = flux > 0
    lit &= flux >= np.median(flux[lit]) if lit.any() else lit
    star, instrumental, variance = star[lit], -2.5 * np.log10(flux[lit]), (MAG * fluxerr[lit] / flux[lit]) ** 2
    known = colorterms.diagnose(catalog, params, star, instrumental, variance)
    band, notes = colorterms.choose_band(catalog, band, params, known)
    return band, known, notes


def _total(objects: Table, result: Photometry, params, seeing) -> Photometry:
    """Return the result with the total zero point, by the growth of calibration stars, all stars, or the PSF."""
    fit, surface = None, None
    if "growth" in objects.colnames:
        # the stars that make the zero point first: where the PSF changes in steps, the others have other places
        point = np.abs(column(objects, "spread")) < _POINT * column(objects, "spread_err")
        loose = np.flatnonzero(point & ((object_flags(objects) & int(UNUSABLE)) == 0))
        for rows in (result.stars.match_object[result.stars.used], loose):
            if fit is None:
                fit, surface = _correction(objects[rows], result.model, params.max_spatial_order)
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
            note += "the total zero point, zp, is not known, but that of the aperture's, zp_aperture."
            return replace(result, warnings=(*result.warnings, note))
        note += f"the PSF has it, to {error:.2f} mag."
        result = replace(result, warnings=(*result.warnings, note))
    total = replace(
        result.model,
        zp=result.model.zp_aperture - value,
        zp_err=float(np.hypot(result.model.zp_aperture_err, error)),
        aperture_correction=value,
        aperture_correction_err=error,
        n_correction=number,
        correction_coefficients=surface,
        correction_covariance=covariance,
    )
    return replace(result, model=total)


def _unseen(stars: Table) -> float:
    """Return what light of stars too faint to be seen may add to the growth of all stars alike [mag]."""
    if "confusion" not in stars.colnames:
        return 0.0
    grown = np.isfinite(column(stars, "growth"))
    with np.errstate(invalid="ignore", divide="ignore"):
        fraction = column(stars, "confusion")[grown] / column(stars, "flux")[grown]
    return float(_UNSEEN * MAG * np.median(fraction)) if np.isfinite(fraction).any() else 0.0


def _correction(stars: Table, model: ZeroPointModel, max_order: int):
    """Return the fit of the stars' growth, or None, and the coefficients of the aperture correction over the image.

    Where the PSF changes, the growth makes up for what the aperture's zero point does: then their sum is the smoother.
    """
    x, y, flux, value, error = (column(stars, name) for name in ("x", "y", "flux", "growth", "growth_err"))
    own = model.coefficients[: len(powers(model.order))].copy()
    own[0] = 0.0
    change = zeropoint.terms(model.order, *zeropoint.scaled(x, y, model.shape)) @ own
    fits = [
        (aperture_correction(x, y, flux, value + part, error, model.shape, max_order), taken)
        for part, taken in ((0.0, 0 * own), (change, own))
    ]
    if fits[0][0] is None:
        return None, None
    fit, taken = min(fits, key=lambda one: one[0].bic)
    surface = np.zeros(max(fit.surface, len(taken)))
    surface[: fit.surface] -= fit.coefficients[: fit.surface]
    surface[: len(taken)] += taken
    return fit, surface
