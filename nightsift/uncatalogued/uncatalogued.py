"""Stage `uncatalogued`: the objects of an image that no catalogue star explains. It needs no template.

The idea is that of STDWeb (Karpov 2024, arXiv:2411.16470, section 4.1). Here an object is compared with the light of
all stars at its place, and nothing is called new that the catalogue could not have.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy import units as u
from astropy.table import Table
from scipy.spatial import cKDTree

from nightsift import parameters
from nightsift.flags import Flag, Mask
from nightsift.image.stamps import stamps
from nightsift.photometry import limits
from nightsift.photometry.blends import all_magnitudes, light_fraction
from nightsift.photometry.colorterms import catalog_bands, catalog_color
from nightsift.photometry.solution import ApertureSeeing, ZeroPointModel
from nightsift.psf.extended import WIDEST
from nightsift.sky.sphere import unit_vectors
from nightsift.statistics import FWHM_PER_SIGMA, MAG
from nightsift.tables import column
from nightsift.uncatalogued.number_counts import FEWEST, Counts, depth, seen_counts, star_counts

MATCH = 0.5  # FWHM within which an object and a star are the same whatever the errors
POSITION_SIGMA = 5.0
BLEND = 2.0  # FWHM within which the light of a star that no object accounts for counts as a whole
REACH = 10.0  # FWHM over which the wings of stars are followed
ALIKE = 0.75  # mag by which the object that accounts for a star may differ from it
NEIGHBOURS, HOLE = 10, 2.5  # a hole of the catalogue: the tenth star is 2.5 times as far as usual
PIECE, BAD_PIECE = 1.0, 6.0  # times the light of a neighbour's wings that a piece of it may have; if it is no star
LEAST_SPREAD = 0.003  # what an error of the PSF may make of a star
SURELY, SURE_SNR = 5.0, 15.0  # standard deviations of `spread`, and S/N, of what certainly is one
LACKING = 0.1  # fraction of these that the catalogue does not explain, if it has no galaxies
WINGS = 0.3  # weight of neighbours' wings: half the light of an object explains it
POINT_SNR = 15.0  # from which on what looks like a point is one, and no piece of anything
SHARP, UNLIKE = 4.0, 10.0  # standard deviations of spread; reduced chi2 of the PSF fit
MASKED = 0.3  # fraction of the pixels within half a FWHM
FAINT = 5.0  # magnitudes by which catalogue light is fainter that is not worth telling
STARLIKE = 3.0  # the same chi2, up to which an object is what the PSF fit takes it for
FULL_WIDTH = FWHM_PER_SIGMA  # standard deviations of a Gaussian


@dataclass(frozen=True)
class Uncatalogued:
    """What the catalogue does not explain.

    Attributes
    ----------
    table : Table
        Candidates and what was set aside, the most significant first: the columns of ``objects``, and those of the
        schema ``uncatalogued`` but for image, time and filter.
    depth : float
        Magnitude in the image's passband down to which an object can be called uncatalogued; NaN if the catalogue has
        too few stars to tell.
    n_catalogued : int
        Objects that the catalogue explains, which are not in the table.
    warnings : tuple of str
    """

    table: Table
    depth: float
    n_catalogued: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Frame:
    """What is known of an image besides its objects.

    Attributes
    ----------
    seeing : Seeing
    solution : ZeroPointModel
        Tells which band, colour and colour term make the catalogue's magnitudes the image's.
    rms : float
        Astrometric residual an axis, arcsec.
    mask : 2-D integer array
        `nightsift.flags.Mask` bits.
    """

    seeing: ApertureSeeing
    solution: ZeroPointModel
    rms: float
    mask: np.ndarray


def uncatalogued(
    objects: Table, catalog: Table, frame: Frame, params: parameters.UncataloguedConfig, known: Table | None = None
) -> Uncatalogued:
    """Find the objects that are not in the catalogue, or much brighter than there.

    Parameters
    ----------
    objects : Table
        Schema ``objects``.
    catalog : Table
        Stars at the epoch of the image: ``ra dec`` [deg], ``<band>mag`` [mag].
    frame : Frame
    params : parameters.Uncatalogued
    known : Table, optional
        Other known objects, such as asteroids: ``ra dec`` [deg], ``radius`` [arcsec], ``name``. What lies within the
        radius gets the name, and no other treatment.

    Returns
    -------
    Uncatalogued
    """
    mag, error = _magnitudes(objects)
    stars = predicted(catalog, frame.solution)
    light = _neighbourhood(objects, catalog, mag, stars, frame)
    brightening = light.mag - mag
    with np.errstate(invalid="ignore", divide="ignore"):
        measured = np.isfinite(mag) & (MAG / error >= params.min_snr)
    explained = brightening < params.min_brightening
    same = light.matched & (np.abs(brightening) < ALIKE)
    telling = np.isfinite(mag) & _clean(objects) & _starlike(objects) & ~light.hole & (same | ~explained)
    counts = _ends(catalog, stars, frame.seeing, mag[telling], same[telling])
    relative = _relative_error(mag, error, frame.solution)
    faintest = max((depth(c, relative, frame.seeing.fwhm, params.false_alarms) for c in counts), default=np.nan)
    wanted = np.flatnonzero(measured & ~explained)
    facts = _facts(objects, light.matched, frame) | {
        "extended": _extended(objects, explained, error, params.max_spread),
        "beside a brighter object": _pieces(objects, mag, frame.seeing),
        "fainter than the catalogue": mag > faintest,
        "outside the catalogue": light.hole,
        "outside the cone": _outside(objects, params),
    }
    table = objects[wanted]
    table["label"] = np.where(light.matched[wanted], "brighter", "new").astype("U8")
    table["catalog_distance"] = light.distance[wanted] * u.arcsec
    shown = brightening[wanted] < FAINT
    table["catalog_mag"] = np.where(shown, light.mag[wanted], np.nan) * u.mag
    table["brightening"] = np.where(shown, brightening[wanted], np.nan) * u.mag
    reasons = [", ".join(name for name, hit in facts.items() if hit[i]) for i in wanted]
    table["reasons"] = np.array(reasons, dtype=str) if reasons else np.zeros(0, "U1")
    table["is_candidate"] = np.asarray(table["reasons"], str) == ""
    table["known"] = _names(table, known)
    order = np.lexsort((error[wanted], ~np.asarray(table["is_candidate"])))
    notes = () if np.isfinite(faintest) else ("The catalogue has too few stars to tell how deep it is.",)
    return Uncatalogued(table[order], faintest, int(np.sum(measured & explained)), notes)


def _magnitudes(objects: Table) -> tuple[np.ndarray, np.ndarray]:
    """Return magnitudes and errors with the PSF, which tells neighbours apart; in the aperture where there is none."""
    mag, error = (column(objects, name) for name in ("mag_psf", "mag_psf_err"))
    fitted = np.isfinite(mag)
    return np.where(fitted, mag, column(objects, "mag_calib")), np.where(
        fitted, error, column(objects, "mag_calib_err")
    )


def predicted(catalog: Table, solution: ZeroPointModel) -> np.ndarray:
    """Return the magnitudes [mag] that the catalogue's stars have in the image's own passband.

    Where a star lacks the band, the nearest one takes its place, shifted by the median colour of the others; where it
    lacks the colour of the colour term, the median does. NaN where it has no magnitude at all.
    """
    mag = all_magnitudes(catalog, solution.band, catalog_bands(catalog))
    if not solution.color:
        return mag
    color = catalog_color(catalog, solution.color)
    usual = np.nanmedian(color) if np.isfinite(color).any() else 0.0
    return mag - solution.color_term * np.where(np.isfinite(color), color, usual)


def _ends(catalog, stars, seeing, mag, found) -> list[Counts]:
    """Return where the catalogue ends by its own counts, and where by what it has of the image's points.

    Both say how deep it is at least: where it has galaxies that end before its stars do, its counts say too little.
    """
    sky = unit_vectors(column(catalog, "ra"), column(catalog, "dec"))
    middle = sky.mean(axis=0) / np.linalg.norm(sky.mean(axis=0))
    radius = np.rad2deg(np.linalg.norm(sky - middle, axis=1).max()) * 3600 / seeing.pixscale
    counts = star_counts(stars, np.pi * radius**2)
    if counts is None:
        return []
    return [counts] if len(mag) < FEWEST else [counts, seen_counts(counts, mag, found)]


def _relative_error(mag, error, solution):
    """Return the relative standard deviation of the image's fluxes, as a function of the magnitude."""
    model = limits.snr_model(mag, MAG / error)
    if model is None:
        model = np.array([0.0, 0.0, (np.nanmedian(error) / MAG) ** 2])
    model[2] += (np.nan_to_num(solution.scatter) / MAG) ** 2

    def relative(at):
        return np.sqrt(model[0] * 10 ** (0.8 * at) + model[1] * 10 ** (0.4 * at) + model[2])

    return relative


@dataclass(frozen=True)
class _Light:
    """Of each object: catalogue light there [mag], the nearest star [arcsec], is it this one, are there none around."""

    mag: np.ndarray
    distance: np.ndarray
    matched: np.ndarray
    hole: np.ndarray


def _neighbourhood(objects, catalog, mag, stars, frame) -> _Light:
    """Sum the light of the stars at each object's place.

    A star that another object accounts for puts its wings there, any other one within 2 FWHM all of its light.
    """
    seeing = frame.seeing
    unit = np.deg2rad(seeing.fwhm * seeing.pixscale / 3600)
    here, there = (cKDTree(unit_vectors(column(t, "ra"), column(t, "dec")) / unit) for t in (objects, catalog))
    count = min(NEIGHBOURS, there.n)
    near = np.reshape(there.query(here.data, count)[0], (here.n, count))
    usual = np.median(np.reshape(there.query(there.data, count)[0], (there.n, count))[:, -1])
    hole = near[:, -1] > HOLE * usual if count == NEIGHBOURS else np.zeros(here.n, bool)
    radius = match_radius(column(objects, "snr"), seeing, frame.rms)
    back, owner = here.query(there.data)
    accounted = (back < radius[owner]) & ~(np.abs(mag[owner] - stars) > ALIKE)
    pairs = here.sparse_distance_matrix(there, REACH, output_type="ndarray")
    i, j, apart = pairs["i"], pairs["j"], pairs["v"]
    whole = np.where(accounted[j], owner[j] == i, apart < BLEND)
    share = np.where(whole, 1.0, WINGS * wings(apart, seeing))
    # Without a magnitude, a star at this place may be as bright as it likes.
    flux = np.where(np.isfinite(stars[j]), 10 ** (-0.4 * stars[j]), np.where(whole, np.inf, 0.0))
    total = np.bincount(i, flux * share, here.n)
    with np.errstate(divide="ignore"):
        light = np.where(total > 0, -2.5 * np.log10(total), np.nan)
    return _Light(light, np.rad2deg(near[:, 0] * unit) * 3600, near[:, 0] < radius, hole)


def match_radius(snr, seeing: ApertureSeeing, rms: float) -> np.ndarray:
    """Return the distance, in FWHM, within which an object and a star may be the same: half, or 5 standard deviations.

    A centroid is good to about 0.6 FWHM / (S/N) an axis (King 1983, PASP 95, 163).
    """
    centroid = 0.6 / np.maximum(snr, 1.0)
    return np.maximum(MATCH, POSITION_SIGMA * np.hypot(centroid, np.nan_to_num(rms) / (seeing.fwhm * seeing.pixscale)))


def wings(distance, seeing: ApertureSeeing) -> np.ndarray:
    """Return the light of a star in an aperture at a distance [FWHM] from it, relative to one that is centred on it."""
    aperture = seeing.aperture / seeing.fwhm
    return light_fraction(distance, aperture, 1.0) / light_fraction(np.zeros(1), aperture, 1.0)


def _extended(objects, explained, error, max_spread: float) -> np.ndarray:
    """Tell which objects are no points; where the catalogue has no galaxies, also those that may be small ones.

    Its stars alone do not explain those objects that certainly are extended.
    """
    spread, doubt = column(objects, "spread"), column(objects, "spread_err")
    limit = max_spread * doubt
    with np.errstate(invalid="ignore", divide="ignore"):
        sure = (MAG / error > SURE_SNR) & (spread > np.maximum(SURELY * doubt, 2 * LEAST_SPREAD))
    sure &= _clean(objects)
    if np.sum(sure & ~explained) > LACKING * np.sum(sure):
        limit = np.minimum(limit, WIDEST - doubt)
    return spread > np.maximum(limit, LEAST_SPREAD)


def _facts(objects, matched, frame) -> dict[str, np.ndarray]:
    """Return what speaks against objects by themselves.

    A star that saturates is brighter than it seems, so one that seems too bright for the catalogue all the same is.
    """
    flags = np.asarray(objects["flags"]).astype(int)
    x, y = (np.rint(column(objects, name)).astype(int) for name in ("x", "y"))
    half = max(1, round(frame.seeing.fwhm / 2))
    core = stamps(frame.mask, x, y, half, int(Mask.OUTSIDE)).astype(int)
    saturated = ((flags & int(Flag.SATURATED)) != 0) | ((core & int(Mask.SATURATED)) != 0).any(axis=(1, 2))
    masked = (core & ~int(Mask.SATURATED)) != 0
    return {
        "saturated": saturated & ~matched,
        "masked": masked[:, half, half] | (masked.mean(axis=(1, 2)) > MASKED),
        "border": (flags & int(Flag.TRUNCATED | Flag.APERTURE_INCOMPLETE)) != 0,
        "too sharp": column(objects, "spread") < -np.maximum(SHARP * column(objects, "spread_err"), LEAST_SPREAD),
        "unlike the PSF": (column(objects, "psf_chi2") > UNLIKE) & ~matched,
    }


def _pieces(objects, mag, seeing) -> np.ndarray:
    """Tell which objects may be pieces of a brighter one that they were deblended from: of its wings, arms or trail.

    The distance counts in units of the brighter one's own ellipse, where that is larger than a star.
    """
    pieces = np.zeros(len(objects), bool)
    parts = np.flatnonzero((np.asarray(objects["flags"]).astype(int) & int(Flag.DEBLENDED)) != 0)
    if len(parts) < 2:
        return pieces
    x, y, theta = (column(objects, name)[parts] for name in ("x", "y", "theta"))
    least = seeing.fwhm / FULL_WIDTH
    long, short = (np.maximum(column(objects, name)[parts], least) for name in ("a", "b"))
    # The magnitude in the aperture: the PSF does not fit what falls to pieces.
    bright = np.fmin(mag, column(objects, "mag_calib"))[parts]
    tree = cKDTree(np.column_stack([x, y]))
    pairs = tree.query_pairs(REACH * seeing.fwhm, output_type="ndarray")
    i, j = np.concatenate([pairs, pairs[:, ::-1]]).T
    i, j = (index[bright[j] < bright[i]] for index in (i, j))
    cosine, sine = np.cos(theta[j]), np.sin(theta[j])
    dx, dy = x[i] - x[j], y[i] - y[j]
    apart = np.hypot((dx * cosine + dy * sine) / long[j], (dy * cosine - dx * sine) / short[j]) / FULL_WIDTH
    factor = np.where(_starlike(objects)[parts], PIECE, BAD_PIECE)[j]
    light = factor * wings(apart, seeing) * 10 ** (0.4 * (bright[i] - bright[j]))
    pieces[parts] = np.bincount(i, light, len(parts)) > 1
    return pieces & ~(_starlike(objects) & (MAG / column(objects, "mag_psf_err") > POINT_SNR))


def _clean(objects) -> np.ndarray:
    """Tell which objects nothing is wrong with."""
    return (np.asarray(objects["flags"]).astype(int) & ~int(Flag.CROWDED)) == 0


def _starlike(objects) -> np.ndarray:
    """Tell which objects are points, whose light the fit of the PSF has kept apart from that of others."""
    unsaturated = (np.asarray(objects["flags"]).astype(int) & int(Flag.SATURATED)) == 0
    point = np.abs(column(objects, "spread")) < np.maximum(SHARP * column(objects, "spread_err"), LEAST_SPREAD)
    return unsaturated & point & (column(objects, "psf_chi2") < STARLIKE)


def _outside(objects, params) -> np.ndarray:
    """Tell which objects lie outside the cone that is asked for."""
    if None in (params.ra, params.dec, params.radius):
        return np.zeros(len(objects), bool)
    places = unit_vectors(column(objects, "ra"), column(objects, "dec"))
    chord = 2 * np.sin(np.deg2rad(min(params.radius, 180.0)) / 2)
    return ~(np.linalg.norm(places - unit_vectors(params.ra, params.dec), axis=1) <= chord)


def _names(table, known) -> np.ndarray:
    """Return the name of the nearest known object that each lies within the radius of; empty where there is none."""
    if known is None or not len(known) or not len(table):
        return np.full(len(table), "", "U1")
    places, others = (unit_vectors(column(t, "ra"), column(t, "dec")) for t in (table, known))
    distance, nearest = cKDTree(others).query(places)
    inside = np.rad2deg(distance) * 3600 <= column(known, "radius")[nearest]
    return np.where(inside, np.asarray(known["name"], str)[nearest], "")
