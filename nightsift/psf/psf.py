"""Stage `psf`: the PSF of an image, and PSF photometry of its objects beside that in the aperture."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from astropy.table import Table
from scipy.spatial import cKDTree

from nightsift import parameters
from nightsift.errors import Rejected
from nightsift.flags import HIDDEN, UNUSABLE, Flag
from nightsift.image.background import background
from nightsift.image.correlation import WHITE, disc, factor
from nightsift.image.seeing import Seeing
from nightsift.image.stamps import crowded, stamps
from nightsift.image.trails import without_trails
from nightsift.image.unit_noise import fluxes, in_units, pixel_unit
from nightsift.psf.confusion import Confusion, confusion, levels
from nightsift.psf.extended import EXTENDED
from nightsift.psf.fit import fit_psf_stars
from nightsift.psf.growth import RADII, candidates, growth
from nightsift.psf.model import Psf
from nightsift.psf.outliers import outlier_score
from nightsift.psf.scene import Layers, Scene, photometer, render
from nightsift.statistics import MAG, SIGMA_PER_MAD
from nightsift.tables import PSF_PHOTOMETRY

# Where the annulus does not tell the level beneath a star, that between the stars does.
EXCLUDED = UNUSABLE & ~Flag.ANNULUS_BAD
WIDTH = 0.15  # relative to the stars' width at the same place
ALONE = (3.0, 0.05)  # no neighbour of more than this fraction of the flux, within FWHM
ENOUGH = 30  # stars without neighbours that make those with neighbours unnecessary
# Root of the area within 4 FWHM in units of that in which stars not seen count for a flux of the PSF, of two Gaussians.
BEAMS = float(np.sqrt(64 * np.log(2)))
LIT = 0.5  # light of other objects that a ring around a star leaves out, in the noise of a pixel
# S/N of the stars that tie PSF to aperture fluxes, or else of those that may, how many it takes, and the largest error.
TIE_SNR, MIN_TIE, TIE_ERROR = (50.0, 20.0), 5, 0.01


@dataclass(frozen=True)
class PsfPhotometry:
    """The PSF of an image and what it says of the objects.

    Attributes
    ----------
    psf : Psf or None
        None where there are too few stars.
    table : Table
        Schema ``psf_photometry``, the rows being those of the objects.
    facts : dict
        ``n_stars, n_rejected, chi2, order``; ``fwhm, ellipticity`` at the centre and ``fwhm_range, ellipticity_range``
        over the image; ``aperture_light`` (fraction of the PSF's light within 2 FWHM that is in the aperture),
        ``growth`` (by how much that within 4 FWHM exceeds that in the aperture, mag),
        ``aperture_ratio`` (aperture over PSF flux of the stars, divided out) and ``aperture_scatter`` of it;
        ``residual`` (rms of the stars' mean residual, relative to the peak).
    warnings : tuple of str
    """

    psf: Psf | None
    table: Table
    facts: dict
    warnings: tuple[str, ...] = ()


# Many parameters: the image with its mask, gain, trails and noise, and what detect has found on it.
def psf(
    data,
    mask,
    gain,
    objects: Table,
    seeing: Seeing,
    aperture: float,
    params: parameters.PsfConfig,
    trails=(),
    correlation=WHITE,
    background_size: int = parameters.DetectConfig.background_size,
):
    """Fit the PSF of an image to its clean stars, and all objects with it.

    Parameters
    ----------
    data : 2-D float32 array
        Image, ADU.
    mask : 2-D integer array
        `nightsift.flags.Mask` bits.
    gain : float or None
        e-/ADU.
    objects : Table
        Schema ``detections``.
    seeing : Seeing
    aperture : float
        Radius of the calibration aperture, pixels.
    params : parameters.PsfConfig
    trails : sequence of Trail, optional
        Whose light is taken out first.
    correlation : 2-D array
        Autocorrelation of the noise: see `nightsift.image.correlation`.
    background_size : int
        Mesh of the background map, pixels.

    Returns
    -------
    PsfPhotometry
        NaN throughout, but for ``outlier``, where the PSF could not be fitted.
    """
    size = pixel_unit(data, mask != 0)
    layers = _layers(in_units(data, size), mask, gain and gain * size, trails, seeing.fwhm, background_size)
    layers = replace(layers, correlation=np.asarray(correlation))
    own = _fitted(layers, fluxes(objects, size), seeing, aperture, params)
    return replace(own, table=fluxes(own.table, 1 / size))


def _fitted(layers: Layers, objects: Table, seeing: Seeing, aperture: float, params) -> PsfPhotometry:
    objects = objects.copy()
    objects["level_err"] = _level_error(objects, layers, aperture)
    unlike = outlier_score(objects, seeing)
    try:
        psf, used, tried, clean = _psf(layers, objects, seeing, aperture, params)
    except Rejected as reason:
        table = Table({name: np.full(len(objects), np.nan) for name in PSF_PHOTOMETRY})
        table["outlier"] = unlike
        _grow(layers, objects, None, None, seeing.fwhm, aperture, table)
        return PsfPhotometry(None, table, {"n_stars": 0}, (f"no PSF photometry: {reason}",))
    scene, objects, beneath = _scene(layers, psf, objects, aperture)
    residual = _residual(clean, layers.noise, psf, scene, used)
    spread_err = np.hypot(scene.spread_err, _excess(scene.spread[used], scene.spread_err[used]))
    psf, scene, tie = _tied(psf, scene, objects, spread_err)
    table = Table(
        {
            "psf_flux": scene.flux,
            "psf_fluxerr": np.hypot(scene.fluxerr, beneath.psf_error),
            "psf_chi2": scene.chi2,
            "psf_dx": np.where(scene.free, scene.x - objects["x"], np.nan),
            "psf_dy": np.where(scene.free, scene.y - objects["y"], np.nan),
            "spread": scene.spread,
            "spread_err": spread_err,
            "outlier": unlike,
            "neighbours": beneath.neighbours,
            "confusion": beneath.aperture_error,
            "psf_confusion": beneath.psf_error,
            **{name: np.full(len(objects), np.nan) for name in ("growth", "growth_err")},
        }
    )
    _grow(layers, objects, psf, scene, seeing.fwhm, aperture, table, beneath.scatter)
    facts = {"n_stars": psf.n_stars, "n_rejected": tried - psf.n_stars, "chi2": psf.chi2, "order": psf.order}
    return PsfPhotometry(psf, table, facts | _shape(psf) | tie | {"residual": residual})


def _scene(layers: Layers, psf: Psf, objects: Table, aperture: float) -> tuple[Scene, Table, Confusion]:
    """Fit the objects; where the rings around them do not tell the level, with that between the stars.

    Returns the objects with that level, and with aperture fluxes that lack the flux of neighbours, too.
    """
    scene, raised, objects = photometer(layers, psf, objects), np.zeros(len(objects)), objects.copy()
    better = levels(layers, psf, scene, objects)
    if better is not None:
        raised = (better[0] - np.asarray(objects["background"])) * np.pi * aperture**2
        objects["background"], objects["level_err"] = better
        scene = photometer(layers, psf, objects)
    found = confusion(layers, psf, scene, objects, aperture)
    found = replace(found, neighbours=found.neighbours + raised)
    objects["flux"] = np.asarray(objects["flux"]) - found.neighbours
    return scene, objects, found


def _layers(data, mask, gain, trails, fwhm: float, background_size: int) -> Layers:
    bad, trail_noise = mask != 0, None
    if trails:
        data, trail_noise = without_trails(data, bad, background_size, trails, fwhm)
    sky = background(data, bad, background_size)
    image = np.where((mask & int(HIDDEN)) != 0, 0, data - sky.level).astype(np.float32)
    return Layers(image, sky.noise if trail_noise is None else np.hypot(sky.noise, trail_noise), bad, gain)


# Many parameters: those of `psf`, and what has been fitted so far.
def _grow(layers: Layers, objects: Table, psf, scene, fwhm: float, aperture: float, table: Table, scatter=None) -> None:
    """Fill in the growth of the brighter objects, without the light of the others."""
    rows = candidates(objects, int(EXCLUDED))
    rows = rows[~crowded(*(np.asarray(objects[name][rows], float) for name in ("x", "y", "flux")), 5 * fwhm, 0.02)]
    image, bad = layers.image, layers.bad
    if psf is not None:
        others = np.isfinite(scene.flux)
        others[rows] = False
        light = render(psf, scene.x[others], scene.y[others], scene.flux[others], image.shape)
        image, bad = image - light, bad | (light > LIT * layers.noise)
    noise = layers.noise * np.float32(factor(disc(2 * fwhm), layers.correlation))
    value, error = growth(image, noise, bad, objects[rows], fwhm, aperture)
    if scatter is not None:
        with np.errstate(invalid="ignore", divide="ignore"):
            error = np.hypot(error, MAG * BEAMS * scatter[rows] / np.asarray(objects["flux"])[rows])
    table["growth"][rows], table["growth_err"][rows] = value, error


def _level_error(objects: Table, layers: Layers, aperture: float) -> np.ndarray:
    """Error of the background beneath each object: what its aperture's error holds beside the noise of the pixels."""
    area, noise = np.pi * aperture**2, layers.noise
    at = noise[_pixels(objects["y"], noise.shape[0]), _pixels(objects["x"], noise.shape[1])]
    at = at * factor(disc(aperture), layers.correlation)
    return np.sqrt(np.maximum(np.asarray(objects["bgerr"]) ** 2 - area * at.astype(float) ** 2, 0)) / area


def _pixels(position, side: int) -> np.ndarray:
    return np.clip(np.rint(position).astype(int), 0, side - 1)


def _psf(layers: Layers, objects: Table, seeing: Seeing, aperture: float, params):
    """Return the PSF, the rows of its stars, how many were tried, and the image without the stars' neighbours.

    Fitted twice: first to stars as they are, then to those that look like it, without the light of their neighbours.
    """
    rows = _candidates(objects, seeing, params.min_snr)
    limits = (seeing.fwhm, aperture, params.max_stars, params.max_order)
    found = fit_psf_stars(layers.image, layers.noise, layers.bad, objects[rows], *limits)
    psf, tried, used = found.psf, min(len(rows), params.max_stars), rows[found.rows]
    if psf.n_stars >= params.min_stars:
        near = _near(objects, used, 6 * seeing.fwhm)
        scene = photometer(layers, psf, objects[near])
        star = np.isin(near, used)
        pull = scene.spread / np.hypot(scene.spread_err, _excess(scene.spread[star], scene.spread_err[star]))
        others = ~star & np.isfinite(scene.flux)
        light = render(psf, scene.x[others], scene.y[others], scene.flux[others], layers.image.shape)
        clean = layers.image - light
        like = near[star & (np.abs(pull) < EXTENDED)]
        found = fit_psf_stars(clean, layers.noise, layers.bad, objects[like], *limits)
        psf, used = found.psf, like[found.rows]
    if psf.n_stars < params.min_stars:
        raise Rejected(f"{psf.n_stars} clean stars, fewer than {params.min_stars}")
    return psf, used, tried, clean


def _candidates(objects: Table, seeing: Seeing, min_snr: float) -> np.ndarray:
    """Rows of the objects as wide as stars, clean; those with neighbours only where there are not enough others."""
    x, y, flux = (np.asarray(objects[name], float) for name in ("x", "y", "flux"))
    flags = np.asarray(objects["flags"])
    width = np.asarray(objects["fwhm"], float) / seeing.at(x, y)
    good = ((flags & int(EXCLUDED)) == 0) & (np.abs(width - 1) < WIDTH) & (np.asarray(objects["snr"]) > min_snr)
    alone = good & ((flags & int(Flag.CROWDED | Flag.DEBLENDED)) == 0)
    alone &= ~crowded(x, y, flux, ALONE[0] * seeing.fwhm, ALONE[1])
    return np.flatnonzero(alone if alone.sum() >= ENOUGH else good)


def _near(objects: Table, rows, radius: float) -> np.ndarray:
    """Rows of the objects within a radius of some, these included."""
    places = np.column_stack([objects["x"], objects["y"]])
    distance, _ = cKDTree(places[rows]).query(places, distance_upper_bound=radius)
    return np.flatnonzero(np.isfinite(distance))


def _excess(values, errors) -> float:
    """Scatter of values about 0 beyond what their errors make, robustly."""
    values, errors = values[np.isfinite(values)], errors[np.isfinite(values)]
    if not len(values):
        return 0.0
    return float(np.sqrt(max((SIGMA_PER_MAD * np.median(np.abs(values))) ** 2 - np.median(errors**2), 0)))


def _tied(psf: Psf, scene: Scene, objects: Table, spread_err) -> tuple[Psf, Scene, dict]:
    """Put the fluxes on the scale of the aperture's as stars without neighbours have it, where these are enough.

    The PSF sums to 1 within the aperture in any case; faint objects, among which galaxies pass, would bias that.
    """
    flux, snr = np.asarray(objects["flux"], float), np.asarray(objects["snr"], float)
    quiet = (np.asarray(objects["flags"]) == 0) & (np.abs(scene.spread) < EXTENDED * spread_err) & (flux > 0)
    bright, fainter = (quiet & (snr > least) for least in TIE_SNR)
    chosen = bright if bright.sum() >= MIN_TIE else fainter
    ratio = flux[chosen] / scene.flux[chosen]
    center = np.median(ratio) if len(ratio) else np.nan
    scatter = SIGMA_PER_MAD * np.median(np.abs(ratio - center)) if len(ratio) else np.nan
    facts = {"aperture_ratio": float(center), "aperture_scatter": float(scatter)}
    sure = len(ratio) >= MIN_TIE and 1.25 * scatter / np.sqrt(len(ratio)) < TIE_ERROR
    factor = center if sure and 0.8 < center < 1.25 else 1.0
    scaled = replace(scene, flux=scene.flux * factor, fluxerr=scene.fluxerr * factor)
    return replace(psf, correction=psf.correction / factor), scaled, facts


def _residual(clean, noise, psf: Psf, scene: Scene, used) -> float:
    """Rms, relative to the peak, of what the mean star has left within 1.5 FWHM."""
    half = int(np.ceil(1.5 * psf.fwhm))
    x, y, flux = scene.x[used], scene.y[used], scene.flux[used]
    column, row = np.rint(x).astype(int), np.rint(y).astype(int)
    line = np.arange(-half, half + 1)
    model = psf.grid(line + (column - x)[:, None], line + (row - y)[:, None], x, y)[0]
    weight = (flux / stamps(noise, column, row, 0, 1.0)[:, 0, 0]) ** 2
    left = stamps(clean, column, row, half) / flux[:, None, None] - model
    left = left - np.median(left, axis=(1, 2), keepdims=True)
    mean = np.average(left, axis=0, weights=np.minimum(weight, 10 * np.median(weight)))
    return float(np.sqrt(np.mean(mean**2)) / np.mean(model.max(axis=(1, 2))))


def _shape(psf: Psf) -> dict:
    """FWHM and ellipticity at the centre and their range over the image, and the light in the aperture."""
    rows, columns = psf.shape
    across, down = np.linspace(0, columns - 1, 5), np.linspace(0, rows - 1, 5)
    x, y = (part.ravel() for part in np.meshgrid(across, down))
    step = psf.fwhm / 20
    line = np.broadcast_to(np.arange(-25, 26) * step, (len(x), 51))
    values = psf.grid(line, line, x, y)[0]
    above = values > values.max(axis=(1, 2), keepdims=True) / 2
    fwhm = 2 * np.sqrt(above.sum(axis=(1, 2)) / np.pi) * step
    u, v = np.meshgrid(line[0], line[0])
    count = above.sum(axis=(1, 2))
    moments = [np.sum(above * part, axis=(1, 2)) / count for part in (u, v, u * u, v * v, u * v)]
    xx, yy, xy = moments[2] - moments[0] ** 2, moments[3] - moments[1] ** 2, moments[4] - moments[0] * moments[1]
    root = np.sqrt(((xx - yy) / 2) ** 2 + xy**2)
    ellipticity = 1 - np.sqrt(((xx + yy) / 2 - root) / ((xx + yy) / 2 + root))
    half = int(np.ceil(2 * psf.fwhm))
    middle, light = len(x) // 2, psf.stamp(columns / 2, rows / 2, half).sum()
    whole = float(_within(psf, RADII[-1] * psf.fwhm) / psf.correction)
    return {
        "fwhm": float(fwhm[middle]),
        "fwhm_range": (float(fwhm.min()), float(fwhm.max())),
        "ellipticity": float(ellipticity[middle]),
        "ellipticity_range": (float(ellipticity.min()), float(ellipticity.max())),
        "aperture_light": float(psf.correction / light),
        "growth": 2.5 * float(np.log10(whole)) if whole > 0 else np.nan,
    }


def _within(psf: Psf, radius: float) -> float:
    """Light of the PSF within a radius at the centre of the image."""
    half = int(np.ceil(radius))
    line = np.arange(-half, half + 1)
    stamp = psf.stamp(psf.shape[1] / 2, psf.shape[0] / 2, half)
    return stamp[np.hypot(line, line[:, None]) <= radius].sum()
