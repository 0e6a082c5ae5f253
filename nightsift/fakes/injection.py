"""What is put into an image: fakes, and what looks like a source and is none."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from astropy.table import Table
from scipy import ndimage
from scipy.spatial import cKDTree

from nightsift import parameters
from nightsift.flags import UNUSABLE, Flag, Mask
from nightsift.image.stamps import stamps
from nightsift.image.unit_noise import fluxes, in_units
from nightsift.psf.forced import forced
from nightsift.psf.model import Psf
from nightsift.statistics import FWHM_PER_SIGMA
from nightsift.subtract.difference import Search

# Masked pixels are a part of the image that is searched: hosts and neighbours of fakes may have some.
EXCLUDED = UNUSABLE & ~(
    Flag.APERTURE_INCOMPLETE | Flag.FOOTPRINT_MASKED | Flag.APERTURE_MASKED | Flag.ANNULUS_BAD | Flag.OUTLIER
)
FAINTEST, MIDDLE, BRIGHTEST = 3.0, 9.0, 400.0  # S/N
FAINT_SHARE = 0.6  # of the fakes lies between the first two, where completeness falls
HOSTED, BESIDE_STARS = 0.3, 0.15  # shares of fakes on galaxies and beside stars
APART = 7.0  # FWHM between fakes, and of fakes from what the difference shows already
HITS = 0.15  # copies of cosmic-ray hits, relative to the number of fakes
SHIFTED = 0.2  # stars that are moved, relative to the number of fakes; never more than MOST_SHIFTED of the stars
MOST_SHIFTED = 0.15
SHIFTS = (0.03, 0.6)  # pixels
SMEARED = 0.25  # streaks and blobs, relative to the number of fakes
STREAKS = (0.6, 3.5)  # FWHM: half the length of a streak
DEFECTS = 0.2  # blocks of hot pixels, pieces of bad rows and columns, relative to the number of fakes
LONGEST_DEFECT = 20  # pixels
LARGEST_HIT = 60  # pixels
HALF = 3.5  # FWHM: half side of an injected source


@dataclass(frozen=True)
class Plan:
    """What is put where.

    Attributes
    ----------
    fakes : Table
        ``x, y, flux, snr, kind``: position (pixels), flux (ADU), S/N of that flux in the difference (without its own
        photons), and "sky", "host" or "star" (beside one).
    bogus : Table
        ``x, y, kind, reach`` of copies of cosmic-ray hits ("hit"), pieces of trails and blobs that are wider than a
        point source ("smear"), hot pixels and pieces of bad rows and columns ("defect"), and stars that were moved a
        little ("shift"); what is found within `reach` pixels comes from them.
    known : (n, 2) array
        Places of what the difference shows already.
    objects : Table
        The image's objects without the moved ones.
    data : 2-D float32 array
        The image with all of them.
    """

    fakes: Table
    bogus: Table
    known: np.ndarray
    objects: Table
    data: np.ndarray


def plan(
    image: np.ndarray, search: Search, objects: Table, psf: Psf, seed: int, params: parameters.FakesConfig
) -> Plan:
    """Choose places and fluxes, and put the sources into the image.

    Parameters
    ----------
    image : 2-D float32 array
        The science image, ADU.
    search : Search
        Its difference.
    objects : Table
        Schema ``objects`` of the image.
    psf : Psf
        Of the image.
    seed : int
        Of all that is random here.
    params : parameters.Fakes
    """
    size = search.unit
    own = _planned(in_units(image, size), search.per(size), fluxes(objects, size), psf, seed, params)
    back = {name: fluxes(getattr(own, name), 1 / size) for name in ("fakes", "objects")}
    return replace(own, **back, data=in_units(own.data, 1 / size))


def _planned(image, search: Search, objects: Table, psf: Psf, seed: int, params: parameters.FakesConfig) -> Plan:
    rng = np.random.default_rng(seed)
    number = int(np.clip(params.density * image.size / 1e6, min(params.density, 30), params.most))
    moved = _moved(rng, search, objects, round(SHIFTED * number))
    x, y, kind = _places(rng, search, objects, number)
    false = [
        *_hits(rng, image, search, round(HITS * number)),
        *_smears(rng, search, psf, round(SMEARED * number)),
        *_defects(rng, search, round(DEFECTS * number)),
    ]
    known = _peaks(search)
    taken = np.concatenate([known, np.column_stack([objects["x"][moved], objects["y"][moved]])])
    x, y, kind, false = _apart(x, y, kind, false, taken, search.psf.fwhm)
    error = (
        forced(search.difference, search.sigma, search.mask != 0, search.psf, x, y).fluxerr
        * search.quality.noise_correlation
    )
    good = np.isfinite(error)
    x, y, kind, error = (values[good][:number] for values in (x, y, kind, error))
    low = rng.random(len(x)) < FAINT_SHARE
    snr = np.where(
        low,
        rng.uniform(FAINTEST, MIDDLE, len(x)),
        np.exp(rng.uniform(np.log(MIDDLE), np.log(BRIGHTEST), len(x))),
    )
    fakes = Table({"x": x, "y": y, "flux": snr * error, "snr": snr, "kind": kind})
    data = np.array(image, np.float32)
    _add_points(rng, data, fakes, psf, search.gain)
    _add_false(rng, data, false, search)
    _add_shifts(rng, data, objects[moved], search)
    rest = objects[~np.isin(np.arange(len(objects)), moved)]
    return Plan(fakes, _bogus(false, objects[moved], search.psf.fwhm), known, rest, data)


@dataclass(frozen=True)
class _False:
    """Light that is no point source, around a pixel, and how far from it that light is found."""

    x: float
    y: float
    light: np.ndarray
    kind: str
    reach: float


def _bogus(false: list[_False], moved: Table, fwhm: float) -> Table:
    """List what is put in that is no point source."""
    return Table(
        {
            "x": [*(one.x for one in false), *moved["x"]],
            "y": [*(one.y for one in false), *moved["y"]],
            "kind": np.array([*(one.kind for one in false), *["shift"] * len(moved)], "U6"),
            "reach": [*(one.reach for one in false), *[2 * fwhm] * len(moved)],
        },
        dtype=[float, float, "U6", float],
    )


def _moved(rng, search: Search, objects: Table, number: int) -> np.ndarray:
    """Choose stars that the template shows as well, at random."""
    column, row = np.rint(objects["x"]).astype(int), np.rint(objects["y"]).astype(int)
    inside = (column >= 0) & (row >= 0) & (column < search.mask.shape[1]) & (row < search.mask.shape[0])
    column, row = np.where(inside, column, 0), np.where(inside, row, 0)
    good = inside & (search.mask[row, column] == 0) & (np.asarray(objects["snr"]) > 30)
    good &= (np.asarray(objects["flags"]) & int(EXCLUDED)) == 0
    good &= search.model[row, column] > 10 * search.sigma[row, column]
    # Where something has changed already, what is found is not the shift's doing.
    reach = int(np.ceil(3 * search.psf.fwhm))
    good[good] = np.abs(stamps(search.snr, column[good], row[good], reach)).max(axis=(1, 2)) < 4.5
    stars = np.flatnonzero(good)
    return np.sort(rng.permutation(stars)[: min(number, int(MOST_SHIFTED * len(stars)))])


def _places(rng, search: Search, objects: Table, number: int):
    """Draw more places than wanted, in random order: on the sky, on galaxies, beside stars."""
    shape, fwhm = search.mask.shape, search.psf.fwhm
    flags = np.asarray(objects["flags"])
    clean = (flags & int(EXCLUDED)) == 0
    wide = clean & (np.asarray(objects["fwhm"]) > 1.25 * fwhm) & (np.asarray(objects["snr"]) > 10)
    stars = clean & (np.abs(np.asarray(objects["fwhm"]) / fwhm - 1) < 0.2) & (np.asarray(objects["snr"]) > 50)
    parts = [(rng.uniform(-0.5, shape[1] - 0.5, 3 * number), rng.uniform(-0.5, shape[0] - 0.5, 3 * number), "sky")]
    for chosen, share, kind in ((wide, HOSTED, "host"), (stars, BESIDE_STARS, "star")):
        there = np.flatnonzero(chosen)
        if len(there):
            pick = rng.permutation(there)[: int(share * number)]
            size = np.maximum(np.asarray(objects["a"])[pick], 0.4 * fwhm)
            # A galaxy's place is drawn from its light; beside a star means off its core.
            reach = rng.uniform(0, 2, len(pick)) * size if kind == "host" else rng.uniform(0.7, 3, len(pick)) * fwhm
            angle = rng.uniform(0, 2 * np.pi, len(pick))
            x, y = np.asarray(objects["x"])[pick], np.asarray(objects["y"])[pick]
            parts.insert(0, (x + reach * np.cos(angle), y + reach * np.sin(angle), kind))
    x = np.concatenate([part[0] for part in parts])
    y = np.concatenate([part[1] for part in parts])
    kind = np.concatenate([np.full(len(part[0]), part[2], "U4") for part in parts])
    inside = (x > -0.5) & (y > -0.5) & (x < shape[1] - 0.5) & (y < shape[0] - 0.5)
    x, y, kind = x[inside], y[inside], kind[inside]
    used = search.mask[np.rint(y).astype(int), np.rint(x).astype(int)] == 0
    order = np.flatnonzero(used)
    return x[order], y[order], kind[order]


def _hits(rng, image, search: Search, number: int) -> list[_False]:
    """Return copies of the image's cosmic-ray hits, to be put at random places."""
    labels, count = ndimage.label((search.mask & int(Mask.COSMIC)) != 0, structure=np.ones((3, 3)))
    if count < 5:
        return []
    boxes = ndimage.find_objects(labels)
    result = []
    for index in rng.permutation(count)[: 3 * number]:
        rows, columns = boxes[index]
        if max(rows.stop - rows.start, columns.stop - columns.start) > 15 or rows.start < 2 or columns.start < 2:
            continue
        own = labels[rows, columns] == index + 1
        if own.sum() > LARGEST_HIT:
            continue
        around = image[rows.start - 2 : rows.stop + 2, columns.start - 2 : columns.stop + 2]
        light = np.where(own, image[rows, columns] - np.median(around), 0)
        if light.sum() > 0:
            result.append(_False(*_somewhere(rng, search), light.astype(np.float32), "hit", search.psf.fwhm))
        if len(result) == number:
            break
    return result


def _somewhere(rng, search: Search) -> tuple[float, float]:
    """Return a pixel that is not at the border."""
    rims = [(min(20, side // 3), side) for side in search.mask.shape[::-1]]
    return tuple(float(rng.integers(rim, side - rim)) for rim, side in rims)


def _smears(rng, search: Search, psf: Psf, number: int) -> list[_False]:
    """Return streaks about as wide as the PSF and blobs that are wider, at random places."""
    fwhm, result = search.psf.fwhm, []
    for index in range(number):
        x, y = _somewhere(rng, search)
        angle, half = rng.uniform(0, np.pi), int(np.ceil(6 * fwhm))
        v, u = np.mgrid[-half : half + 1, -half : half + 1].astype(float)
        if index % 3:
            length, width = np.exp(rng.uniform(*np.log(STREAKS))) * fwhm, rng.uniform(1, 1.3)
            steps = np.linspace(-length, length, int(np.ceil(4 * length)) + 1)
            # Point sources side by side.
            du = (u.ravel() - np.cos(angle) * steps[:, None]) / width
            dv = (v.ravel() - np.sin(angle) * steps[:, None]) / width
            light = psf.at(du, dv, np.full(len(steps), x), np.full(len(steps), y)).sum(axis=0).reshape(u.shape)
            reach = length + 1.5 * fwhm
        else:
            along, across = np.cos(angle) * u + np.sin(angle) * v, np.cos(angle) * v - np.sin(angle) * u
            narrow = fwhm / FWHM_PER_SIGMA * rng.uniform(1.6, 3.5)
            light = np.exp(-(across**2 + (along / rng.uniform(1, 1.5)) ** 2) / (2 * narrow**2))
            reach = 6 * fwhm
        result.append(_False(x, y, light.astype(np.float32), "smear", reach))
    return result


def _defects(rng, search: Search, number: int) -> list[_False]:
    """Return blocks of hot pixels and pieces of bad rows and columns, at random places."""
    result = []
    for index in range(number):
        shape = rng.integers(1, 4, 2)
        if index % 2:
            shape[index // 2 % 2] = np.rint(np.exp(rng.uniform(np.log(2), np.log(LONGEST_DEFECT))))
        # From all alike to all different.
        light = 1 - rng.uniform(0, 0.8) * rng.random(shape)
        reach = max(shape) / 2 + search.psf.fwhm
        result.append(_False(*_somewhere(rng, search), light.astype(np.float32), "defect", reach))
    return result


def _peaks(search: Search) -> np.ndarray:
    """Return the places of what a difference shows, faint things too."""
    strength = np.abs(search.snr)
    row, column = np.nonzero((strength > 4) & (strength == ndimage.maximum_filter(strength, 5)))
    return np.column_stack([column, row]).astype(float)


def _apart(x, y, kind, false: list[_False], taken: np.ndarray, fwhm: float):
    """Keep what is far from the places that are taken, and from what was kept before."""
    points = np.concatenate([np.column_stack([x, y]), np.array([(one.x, one.y) for one in false]).reshape(-1, 2)])
    free = np.ones(len(points), bool)
    if len(taken):
        free = cKDTree(taken).query(points)[0] > 0.5 * APART * fwhm
    # What is false has its turn among the first.
    order = np.concatenate([np.arange(len(x), len(points)), np.arange(len(x))])
    kept = np.zeros(len(points), bool)
    neighbours = cKDTree(points).query_ball_point(points, APART * fwhm)
    for i in order:
        kept[i] = free[i] and not kept[neighbours[i]].any()
    chosen = np.flatnonzero(kept[: len(x)])
    return x[chosen], y[chosen], kind[chosen], [one for one, keep in zip(false, kept[len(x) :], strict=True) if keep]


def _add_points(rng, data, fakes: Table, psf: Psf, gain: float | None) -> None:
    half = int(np.ceil(HALF * psf.fwhm))
    v, u = (line.ravel().astype(float) for line in np.mgrid[-half : half + 1, -half : half + 1])
    for x, y, flux in zip(fakes["x"], fakes["y"], fakes["flux"], strict=True):
        column, row = round(x), round(y)
        light = flux * psf.at((u + column - x)[None], (v + row - y)[None], [x], [y])[0]
        light = light.reshape(2 * half + 1, 2 * half + 1)
        if gain:
            light = rng.poisson(np.maximum(light, 0) * gain) / gain
        _add(data, light, column - half, row - half)


def _add_false(rng, data, false: list[_False], search: Search) -> None:
    """Scale what was chosen to all S/N that a search may meet: the bright hits were found in the image itself."""
    psf = search.psf.stamp(search.psf.shape[1] / 2, search.psf.shape[0] / 2, int(np.ceil(1.5 * search.psf.fwhm)))
    height = psf.max() / np.sqrt(np.sum(psf**2))
    for one in false:
        light, sigma = one.light, search.sigma[int(one.y), int(one.x)]
        response = max(light.max() / sigma * height, np.sqrt(np.sum(light**2)) / sigma * height * 0.7)
        snr = np.exp(rng.uniform(np.log(5), np.log(60)))
        _add(data, light * (snr / response), int(one.x) - light.shape[1] // 2, int(one.y) - light.shape[0] // 2)


def _add_shifts(rng, data, stars: Table, search: Search) -> None:
    """Add to each star what it would leave if it stood a little beside its place in the template."""
    half = int(np.ceil(HALF * search.psf.fwhm))
    size = np.exp(rng.uniform(*np.log(SHIFTS), len(stars)))
    angle = rng.uniform(0, 2 * np.pi, len(stars))
    column, row = np.rint(stars["x"]).astype(int), np.rint(stars["y"]).astype(int)
    light = stamps(search.model, column, row, half)
    along_y, along_x = np.gradient(light, axis=(1, 2)) if len(stars) else (light, light)
    change = (size * np.cos(angle))[:, None, None] * along_x + (size * np.sin(angle))[:, None, None] * along_y
    for i in range(len(stars)):
        _add(data, -change[i], column[i] - half, row[i] - half)


def _add(data, light, column, row) -> None:
    x0, y0 = max(column, 0), max(row, 0)
    x1, y1 = min(column + light.shape[1], data.shape[1]), min(row + light.shape[0], data.shape[0])
    if x0 < x1 and y0 < y1:
        data[y0:y1, x0:x1] += light[y0 - row : y1 - row, x0 - column : x1 - column].astype(np.float32)
