"""Fields of stars so many that most are not seen, with their truth: a bulge, a globular cluster, and a sparse one."""

from dataclasses import dataclass

import numpy as np
from astropy.table import Table
from photutils.aperture import CircularAperture
from scipy.spatial import cKDTree

from nightsift import parameters
from nightsift.detect.detect import detect
from nightsift.image.moffat import MoffatPsf
from nightsift.psf.confusion import without_neighbours
from nightsift.psf.psf import PsfPhotometry, psf
from nightsift.simulate.pixels import render_points

SIDE, FWHM, GAIN, SKY, READ = 512, 3.5, 2.0, 400.0, 4.0
NOISE = np.hypot(np.sqrt(SKY / GAIN), READ)
SHAPE = MoffatPsf(FWHM, 3.0, 0.03, -0.02, (0.0, 0.0, 0.0), (0.0, 0.0))
UNIT = 10 * NOISE * np.sqrt(np.pi) * FWHM  # total flux of a star of about S/N 10
BINS = {"sparse": (0, SIDE), "bulge": (0, 102, 205, 307, 410, SIDE), "cluster": (0, 45, 80, 120, 180, 400)}


@dataclass(frozen=True)
class Field:
    """What was made of a field: objects as the stage photometry has them, and the true flux in the aperture of each."""

    objects: Table
    raw: Table
    psf: PsfPhotometry
    aperture: float
    fwhm: float
    true: np.ndarray
    place: np.ndarray
    stars: tuple
    share: float


def places(kind, rng, count):
    """Return positions: density rising exponentially along x, by a Plummer sphere with some of the field, or even."""
    x, y = rng.uniform(-20, SIDE + 20, (2, count))
    if kind == "bulge":
        x = np.log1p(rng.random(count) * (np.exp(4) - 1)) / 4 * (SIDE + 40) - 20
    if kind == "cluster":
        mass, angle = 0.96 * rng.random(count), rng.uniform(0, 2 * np.pi, count)
        radius = 0.12 * SIDE * np.sqrt(mass / (1 - mass))
        lone = np.arange(count) < count // 30
        x = np.where(lone, x, SIDE / 2 + radius * np.cos(angle))
        y = np.where(lone, y, SIDE / 2 + radius * np.sin(angle))
    return x, y


def picture(kind, seed, count, faintest, slope=0.3, brightest=-6.0):
    """Return an image, and positions and total fluxes of its stars, whose counts rise as 10^(slope m)."""
    rng = np.random.default_rng(seed)
    x, y = places(kind, rng, count)
    low, high = 10 ** (slope * brightest), 10 ** (slope * faintest)
    flux = UNIT * 10 ** (-0.4 * np.log10(low + rng.random(count) * (high - low)) / slope)
    light = np.zeros((SIDE, SIDE), np.float32)
    render_points(light, x, y, flux, SHAPE, 0.01)
    data = rng.poisson((light + SKY) * GAIN) / GAIN + rng.normal(0, READ, light.shape)
    return data.astype(np.float32), (x, y, flux)


def in_aperture(radius):
    """Return the share of a star's light in an aperture."""
    stamp = np.zeros((101, 101), np.float32)
    render_points(stamp, np.array([50.2]), np.array([50.4]), np.ones(1), SHAPE, 1e-7)
    return float(CircularAperture((50.2, 50.4), radius).do_photometry(stamp)[0][0])


def measured(kind, data, stars) -> Field:
    """Detect, fit, and take the light of neighbours off; the truth is the brightest star within 0.6 FWHM."""
    mask = np.zeros(data.shape, np.int32)
    found = detect(data, mask, GAIN, parameters.DetectConfig())
    options = parameters.PsfConfig(), (), found.correlation
    result = psf(data, mask, GAIN, found.objects, found.seeing, found.aperture, *options)
    raw = found.objects.copy()
    raw.add_columns(list(result.table.columns.values()))
    x, y = np.asarray(raw["x"]), np.asarray(raw["y"])
    near = cKDTree(np.column_stack(stars[:2])).query_ball_point(np.column_stack([x, y]), 0.6 * FWHM)
    share = in_aperture(found.aperture)
    true = np.array([share * stars[2][rows].max() if rows else np.nan for rows in near])
    place = np.hypot(x - SIDE / 2, y - SIDE / 2) if kind == "cluster" else x
    return Field(without_neighbours(raw), raw, result, found.aperture, found.seeing.fwhm, true, place, stars, share)


def field(kind, seed, count, faintest, **options) -> Field:
    return measured(kind, *picture(kind, seed, count, faintest, **options))
