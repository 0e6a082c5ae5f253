"""What lies beneath and around the objects of a crowded image, and what it makes of the errors of their fluxes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy.table import Table
from scipy import ndimage, signal
from scipy.spatial import cKDTree
from scipy.special import ndtri

from nightsift.flags import Flag
from nightsift.image.correlation import factor, summed
from nightsift.psf.model import Psf
from nightsift.psf.scene import REACH, Layers, Scene, render

LEVEL = 2.0  # standard deviation of the Gaussian that the level between the stars is averaged with, FWHM
DIM = 0.3  # weight of a star's light against the noise: pixels in the cores of stars tell little of the level
NEAR = 16  # objects around each that tell whether their levels are off
OFF = 2.5  # ratio of the squared deviations of these to what the errors make, from which on they are
ISOLATED = 28.0  # distance of the last of these, FWHM, from which on a ring holds hardly one other object
HARMLESS = 0.2  # error of a level, in the noise of a pixel over the FWHM
# Standard deviations of the Gaussians that the scatter is averaged with, FWHM, one after the other, and how many values
# there are in such an area of one FWHM that do not depend on each other.
SIZES, BEAMS = (8.0, 8.0, 8.0, 5.0, 5.0, 3.0, 3.0), 8 * np.log(2)
SURELY = 2.0  # errors of a local scatter, from which on it counts instead of that of the wider surroundings
# Light of a star of flux 1 where it is no longer followed (a Moffat profile of beta 3), in an area of one FWHM; part
# of the noise from which on that counts; how far, FWHM; and the weight of what lies there, beside anything else.
EDGE, DARK, HALO, OWN = 0.005, 0.3, 4.0, 0.05
QUIET = 3.0  # light of objects, in the noise of a pixel, up to where pixels tell the scatter
# Errors of `spread` from which on an object is no star, the fraction of the objects around up to which that makes it a
# galaxy, and its radius, FWHM: what the PSF leaves of galaxies tells nothing of stars unseen.
WIDE, FEW, GALAXY = 3.0, 1 / 3, 2.5
CLIP = 2.0  # standard deviations from which on values do not count for their mean
# Fractions of values within one standard deviation that are taken for what they are; variance of the square of a
# standard deviation that follows from the fraction of N values, times N.
BELIEVED, PRECISION = (0.05, 0.95), 3.7
# Scatter in units of what the noise makes up to which nothing unseen shows in it, and from which on it surely does.
DOUBTFUL = 1.06, 1.18
# What hides beneath a star is fainter than the star. Measured on simulated fields of constant, rising and clustered
# density, 0.02 to 0.1 objects in a square of one FWHM, with counts rising as 10^(0.15 m) to 10^(0.4 m): errors
# follow SCALE (flux / scatter)^SLOPE times the scatter between the stars, up to MOST times it.
SCALE, SLOPE, MOST = {"psf": 0.63, "aperture": 0.8}, 0.35, 4.2
PSF_ERROR = 0.05  # relative error of the light that a neighbour's model puts into the aperture
FINENESS = 8  # steps in a FWHM of the table of that light
AFFECTED = 0.1  # flux of neighbours relative to that of an object that makes it crowded


@dataclass(frozen=True)
class Confusion:
    """What neighbours do to fluxes, one value an object, ADU.

    Attributes
    ----------
    scatter : array
        Standard deviation that light of stars not seen gives to fluxes of the PSF where no star is.
    psf_error, aperture_error : arrays
        Standard deviation that light of stars not seen adds to fluxes of the PSF fit, and of the aperture.
    neighbours : array
        Light in the aperture that is that of other objects.
    """

    scatter: np.ndarray
    psf_error: np.ndarray
    aperture_error: np.ndarray
    neighbours: np.ndarray


class _Residual:
    """What the objects of an image leave of it, and means of that around the objects, in cells of about one FWHM."""

    def __init__(self, layers: Layers, psf: Psf, scene: Scene):
        self.psf, self.noise, self.x, self.y = psf, layers.noise, scene.x, scene.y
        self.correlation = layers.correlation
        model = render(psf, scene.x, scene.y, np.nan_to_num(scene.flux), layers.image.shape)
        self.left = np.where(layers.bad, np.float32(0), layers.image - model)
        self.good = ~layers.bad
        self.model = model
        self.step = max(1, round(psf.fwhm))

    def around(self, rows, radius: float) -> np.ndarray:
        """Tell which cells lie within a radius of some of the objects, FWHM."""
        free = np.ones(self.good[:: self.step, :: self.step].shape, bool)
        if not rows.any():
            return ~free
        row, column = self.places(free.shape)
        free[row[rows], column[rows]] = False
        return ndimage.distance_transform_edt(free) < radius * self.psf.fwhm / self.step

    def places(self, shape) -> list[np.ndarray]:
        """Return row and column of the cell nearest to each object."""
        sides = zip((self.y, self.x), shape, strict=True)
        return [np.clip(np.rint(place / self.step).astype(int), 0, side - 1) for place, side in sides]

    def trust(self, scene: Scene) -> np.ndarray:
        """Return the weight of each cell: little in halos and near isolated objects, whose residuals are their own."""
        flux, noise = np.maximum(np.nan_to_num(scene.flux), 0), self.noise[:: self.step, :: self.step]
        row, column = self.places(noise.shape)
        own = self.around(flux * EDGE / self.psf.fwhm**2 > DARK * noise[row, column], HALO)
        own |= self.around(_isolated(scene, self.psf), GALAXY)
        return np.where(own, OWN, 1.0)

    def cells(self, values) -> np.ndarray:
        """Return sums over cells."""
        rows = np.add.reduceat(values, np.arange(0, values.shape[0], self.step), axis=0)
        return np.add.reduceat(rows, np.arange(0, values.shape[1], self.step), axis=1)

    def smooth(self, cells, size: float) -> np.ndarray:
        """Return a sum of cells with the weights of a Gaussian of that standard deviation (FWHM) that sum to 1."""
        return ndimage.gaussian_filter(cells, size * self.psf.fwhm / self.step, truncate=3.0, mode="constant")

    def at_objects(self, cells) -> np.ndarray:
        """Interpolate a map of cells to the objects."""
        places = [(value + 0.5) / self.step - 0.5 for value in (self.y, self.x)]
        return ndimage.map_coordinates(cells, places, order=1, mode="nearest")


def levels(layers: Layers, psf: Psf, scene: Scene, objects: Table) -> tuple[np.ndarray, np.ndarray] | None:
    """Measure the level between the stars where the rings around the objects do not tell it.

    Parameters
    ----------
    layers : Layers
    psf : Psf
    scene : Scene
        The objects as fitted with the levels that they have.
    objects : Table
        ``background, level_err`` [ADU a pixel].

    Returns
    -------
    level, error : arrays
        ADU a pixel. None where the rings are right throughout, as they are in all but crowded fields.

    Notes
    -----
    Means over some 5 FWHM of what the fit leaves. Those of each object and the nearest 16 tell by how much the rings
    are off there, beyond the errors; each is then the mean of ring and surroundings, weighted by these variances.
    """
    galaxies = _galaxies(scene, psf)
    if np.sum(~galaxies) <= NEAR:
        return None
    left = _Residual(layers, psf, scene)
    level, error = np.array(objects["background"], float), np.array(objects["level_err"], float)
    places = np.column_stack([scene.x, scene.y])
    _, near = cKDTree(places[~galaxies]).query(places, NEAR)
    # What is small against the noise of a star's pixels together does no harm, and may be the star's own wings.
    harmless = (HARMLESS * left.at_objects(left.noise[:: left.step, :: left.step]) / psf.fwhm) ** 2
    variance = np.maximum(layers.noise, 1e-15) ** 2
    weight, trust = left.good * (variance / (variance + np.float32(DIM**2) * left.model**2)), left.trust(scene)
    total = np.maximum(left.smooth(trust * left.cells(weight), LEVEL), 1e-6)
    mean = left.smooth(trust * left.cells(weight * left.left), LEVEL) / total
    # A Gaussian's square is a narrower one, of a height that counts for its fraction of the weights.
    square = left.smooth(trust**2 * left.cells(weight**2 * variance), LEVEL / np.sqrt(2))
    square = summed(layers.correlation) * square / (4 * np.pi * (LEVEL * psf.fwhm / left.step) ** 2) / total**2
    found, doubt = left.at_objects(mean), left.at_objects(square)
    deviation = (found - level) ** 2 / np.maximum(doubt + error**2 + harmless, 1e-30)
    ratio = np.median(deviation[~galaxies][near], axis=1) / 0.4549
    off = (ratio > OFF) & ~_isolated(scene, psf)
    if not off.any():
        return None
    ring = (ratio - 1) * (doubt + error**2 + harmless) + error**2
    fraction = np.where(off, ring / (ring + doubt), 0.0)
    return level + fraction * (found - level), np.where(off, np.sqrt(fraction * doubt), error)


def confusion(layers: Layers, psf: Psf, scene: Scene, objects: Table, aperture: float) -> Confusion:
    """Measure what stars that are not seen, and those that are, do to the fluxes of objects.

    Parameters
    ----------
    layers : Layers
    psf : Psf
    scene : Scene
    objects : Table
        ``x, y, flux``.
    aperture : float
        Radius, pixels.

    Notes
    -----
    Behind a filter as wide as the stars, what the fit leaves scatters more than its noise where stars too faint to be
    seen are many. That is a measure of what stars hide, too, which are not seen for the star they are blended with.
    """
    left = _Residual(layers, psf, scene)
    flux = np.maximum(np.nan_to_num(scene.flux), 0)
    scatter = _scatter(left, left.trust(scene) * ~left.around(_galaxies(scene, psf), GALAXY))
    with np.errstate(divide="ignore", invalid="ignore"):
        times = np.where(scatter > 0, (flux / scatter) ** SLOPE, 0.0)
    error = {name: scatter * np.minimum(scale * times, MOST) for name, scale in SCALE.items()}
    light, doubt = _neighbours(psf, scene, objects, aperture)
    return Confusion(scatter, error["psf"], np.hypot(error["aperture"], doubt), light)


def _isolated(scene: Scene, psf: Psf) -> np.ndarray:
    """Tell which objects stand so far apart that the rings around them see the sky: in all but crowded fields."""
    places = np.column_stack([scene.x, scene.y])
    return cKDTree(places).query(places, NEAR)[0][:, -1] > ISOLATED * psf.fwhm


def _galaxies(scene: Scene, psf: Psf) -> np.ndarray:
    """Tell which objects are extended, and stand alone among others that are not: elsewhere, these are merged stars."""
    wide = scene.spread > WIDE * scene.spread_err
    if len(wide) <= NEAR:
        return wide
    places = np.column_stack([scene.x, scene.y])
    distance, near = cKDTree(places).query(places, NEAR)
    return wide & (wide[near].mean(axis=1) < FEW) & (distance[:, 1] > GALAXY * psf.fwhm)


def _scatter(left: _Residual, weight) -> np.ndarray:
    """Return what unseen stars add to the scatter of fluxes between the objects, at each of these, ADU.

    `weight` is that of each cell.
    """
    fwhm = left.psf.fwhm
    half = int(np.ceil(1.5 * fwhm))
    line = np.arange(-half, half + 1)
    gauss = np.exp(-4 * np.log(2) * (line / fwhm) ** 2)
    height, width = left.psf.shape
    stamp = left.psf.stamp(width / 2, height / 2, half)
    own = gauss @ stamp @ gauss  # light of a star of flux 1 behind the filter

    def behind(values, kernel):
        rows = ndimage.convolve1d(values, kernel, axis=0, mode="nearest")[:: left.step]
        return ndimage.convolve1d(rows, kernel, axis=1, mode="nearest")[:, :: left.step]

    good, model, noise = (part[:: left.step, :: left.step] for part in (left.good, left.model, left.noise))
    usable = good & (model < QUIET * noise)
    sigma = np.maximum(noise, 1e-30) * np.sum(gauss**2)
    sigma *= factor(np.outer(gauss, gauss), left.correlation)
    ratio = behind(left.left, gauss) / sigma
    weight = usable * weight
    area = np.maximum(left.smooth(weight, SIZES[0]), 1e-6)
    ratio = ratio - left.smooth(weight * np.clip(ratio, -CLIP, CLIP), SIZES[0]) / area
    square = np.ones(ratio.shape)
    for size in SIZES:
        area = np.maximum(left.smooth(weight, size), 1e-6)
        # In units of what is known so far: the core of a cluster does not outweigh its surroundings.
        inside = left.smooth(weight * (ratio**2 < square), size) / area
        whole = area / np.maximum(left.smooth(weight**2, size), 1e-9)
        change = ndtri((1 + np.clip(inside, *BELIEVED)) / 2) ** -2
        # Values closer to each other than the filter is wide do not count as many.
        unlike, chance = (change - 1) ** 2, SURELY**2 * PRECISION / np.maximum(BEAMS * size**2 * area * whole, 1)
        square *= change ** (1.0 if size == SIZES[0] else unlike / (unlike + chance))
    least, sure = DOUBTFUL
    excess = np.maximum(square - 1, 0) * np.clip((np.sqrt(square) - least) / (sure - least), 0, 1) * sigma**2
    return np.sqrt(left.at_objects(excess)) / max(own, 1e-30)


def _neighbours(psf: Psf, scene: Scene, objects: Table, aperture: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the light of the other objects in the aperture of each, and its standard deviation."""
    x, y = (np.asarray(objects[name], float) for name in ("x", "y"))
    light, variance = np.zeros((2, len(x)))
    reach = aperture + REACH * psf.fwhm
    tree = cKDTree(np.column_stack([x, y]))
    pairs = tree.query_pairs(reach, output_type="ndarray")
    if not len(pairs):
        return light, np.sqrt(variance)
    one, other = np.concatenate([pairs, pairs[:, ::-1]]).T
    fraction = _fraction(psf, aperture, scene.x[other] - x[one], scene.y[other] - y[one])
    flux, fluxerr = np.nan_to_num(scene.flux[other]), np.nan_to_num(scene.fluxerr[other])
    np.add.at(light, one, fraction * flux)
    np.add.at(variance, one, (fraction * fluxerr) ** 2 + (PSF_ERROR * fraction * flux) ** 2)
    return light, np.sqrt(variance)


def _fraction(psf: Psf, aperture: float, dx, dy) -> np.ndarray:
    """Return the light of a star at an offset from an aperture, in units of that of one at its centre."""
    step = psf.fwhm / FINENESS
    half = int(np.ceil((aperture + 2 * REACH * psf.fwhm) / step))
    line = np.arange(-half, half + 1) * step
    height, width = psf.shape
    star = psf.grid(line[None], line[None], np.array([width / 2]), np.array([height / 2]), 0)[0][0].astype(float)
    star[np.maximum(*np.abs(np.meshgrid(line, line))) > REACH * psf.fwhm] = 0
    disc = np.hypot(*np.meshgrid(line, line)) <= aperture
    table = signal.fftconvolve(star, disc, mode="same")
    table /= table[half, half]
    # The offset leads from the aperture to the star, and the table is of the aperture's place around a star.
    places = half - np.array([dy, dx]) / step
    return np.maximum(ndimage.map_coordinates(table, places, order=1, mode="constant"), 0)


def without_neighbours(objects: Table) -> Table:
    """Return the objects with aperture fluxes that lack the flux of neighbours, and errors that hold their doubt.

    Parameters
    ----------
    objects : Table
        ``flux, fluxerr, bgerr, snr, flags``, and ``neighbours, confusion`` [ADU; NaN where not known].

    Notes
    -----
    `Flag.CROWDED` is set where neighbours put a tenth of an object's own light into its aperture, or where what they
    and stars not seen may do to its flux exceeds all other errors.
    """
    result = objects.copy()
    light, doubt = (np.nan_to_num(np.asarray(objects[name], float)) for name in ("neighbours", "confusion"))
    flux, error = np.asarray(objects["flux"], float) - light, np.asarray(objects["fluxerr"], float)
    affected = (np.abs(light) > AFFECTED * np.abs(flux)) | (doubt > error)
    result["flux"] = flux
    for name in ("fluxerr", "bgerr"):
        result[name] = np.hypot(np.asarray(objects[name], float), doubt)
    total = np.asarray(result["fluxerr"])
    result["snr"] = flux / np.where(total > 0, total, np.inf)
    result["flags"] = np.asarray(objects["flags"]) | np.where(affected, int(Flag.CROWDED), 0)
    return result
