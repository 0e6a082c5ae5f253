"""Whether a zero point means something: what the stars that made it, and those that did not, say of it."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from nightsift.errors import Rejected
from nightsift.image import amplifiers
from nightsift.statistics import SIGMA_PER_MAD

_CLEARLY = 3.5  # standard deviations
_SURELY, _STRAY = 5.0, 0.05  # standard deviations and magnitudes from which on residuals of neighbours go together
# Fractions of the good stars that do not agree from which on it is told: if they stand together, and wherever they are.
_SOME, _MANY = 0.03, 0.25
_FEWEST = 5  # stars
_NEIGHBOURS = 4
_CANCELS = 0.25  # how near to 1 a colour term cancels the band itself


def apart(x, y, kind) -> float:
    """Return by how many standard deviations more the nearest neighbours are of one kind than by chance."""
    nearest = _neighbours(x, y, 1)[:, 0]
    fraction = np.mean(kind)
    chance = fraction**2 + (1 - fraction) ** 2
    # neighbours are mostly each other's, and count twice
    error = np.sqrt(2 * chance * (1 - chance) / len(kind))
    return (np.mean(kind == kind[nearest]) - chance) / max(error, 1e-9)


def clustered(x, y, kind) -> float:
    """Return by how many standard deviations more neighbours of those of a kind are of it, too, than by chance."""
    count, fraction = int(np.sum(kind)), np.mean(kind)
    fraction_near = np.mean(kind[_neighbours(x, y, _NEIGHBOURS)[kind]])
    error = np.sqrt(2 * fraction * (1 - fraction) / (_NEIGHBOURS * count))
    return (fraction_near - fraction) / max(error, 1e-9)


def _neighbours(x, y, count: int) -> np.ndarray:
    """Return the rows of the nearest others, shape (n, count)."""
    place = np.column_stack([x, y])
    return cKDTree(place).query(place, count + 1)[1][:, 1:]


def together(x, y, residual) -> tuple[float, float]:
    """Return by how much residuals of neighbours go together [mag], and by how many standard deviations."""
    middle = np.median(residual)
    width = SIGMA_PER_MAD * np.median(np.abs(residual - middle))
    off = np.clip(residual - middle, -3 * width, 3 * width)
    product = off * np.mean(off[_neighbours(x, y, _NEIGHBOURS)], axis=1)
    error = np.sqrt(2 * np.mean(product**2) / len(off))
    mean = float(np.mean(product))
    return float(np.sqrt(max(mean, 0.0))), mean / max(error, 1e-12)


# Many parameters: columns of stars, and what the zero point is there.
def remarks(x, y, residual, used, edges: amplifiers.Edges, levels, shape) -> tuple[str, ...]:
    """Tell of gain steps, and of good stars that do not agree with the others.

    Parameters
    ----------
    x, y, residual : array, shape (n,)
        Positions [px] and residuals [mag] of the good bright stars.
    used : bool array, shape (n,)
        Those that agree.
    edges : amplifiers.Edges
    levels : array
        What each part has above the mean of the image [mag].
    shape : (ny, nx)
    """
    notes = []
    if edges != amplifiers.WHOLE:
        notes.append(
            f"The zero point steps by up to {np.ptp(levels):.2f} mag at {amplifiers.places(edges, shape)}, as between"
            " amplifiers of different gain, or at the edge of a cloud: each part has a zero point of its own, and"
            " objects across an edge are wrong. Correct the gains beforehand."
        )
    lost, count = ~used, len(used)
    if lost.sum() < max(_FEWEST, _SOME * count):
        return tuple(notes)
    stand = clustered(x, y, lost) > _CLEARLY
    if stand or lost.mean() > _MANY:
        where = f" They stand together, around x = {np.median(x[lost]):.0f}, y = {np.median(y[lost]):.0f}."
        notes.append(
            f"{lost.sum()} of {count} bright, clean stars do not agree with the zero point of the others, by"
            f" {np.median(residual[lost]):+.2f} mag in the median.{where if stand else ''} Clouds, shadows, another"
            " gain there, or wrong magnitudes in the catalogue?"
        )
    return tuple(notes)


def unsmooth(x, y, residual) -> tuple[str, ...]:
    """Tell of residuals [mag] that go together in parts of the image, beyond what the zero point's surface follows."""
    if len(x) < 4 * _FEWEST:
        return ()
    size, sure = together(x, y, residual)
    if size < _STRAY or sure < _SURELY:
        return ()
    return (
        f"Magnitudes stray together by {size:.2f} mag in parts of the image, which no smooth zero point follows:"
        " clouds, a bad flat field, steps of the gain?",
    )


def refuse(result, params) -> None:
    """Refuse a zero point that is not known.

    Parameters
    ----------
    result : solution.Photometry
    params : parameters.PhotometryConfig

    Raises
    ------
    Rejected
        With what is wrong.
    """
    model = result.model
    if model.zp_aperture_err > params.max_zp_err:
        raise Rejected(
            f"The zero point is known to {model.zp_aperture_err:.2f} mag only, photometry.max_zp_err is"
            f" {params.max_zp_err:g}: the {result.stars.n_good} bright stars scatter by {model.scatter:.2f} mag. Does"
            f" the catalogue's {model.band} belong to this field and filter?"
        )


def doubts(result, params) -> tuple[str, ...]:
    """Return why the magnitudes mean little, as sentences; none for a zero point that can be relied on.

    Parameters
    ----------
    result : solution.Photometry
    params : parameters.PhotometryConfig
    """
    found = []
    fraction, few = result.stars.n_used / max(result.stars.n_good, 1), result.stars.n_used < 2 * _FEWEST
    if result.model.scatter > params.max_scatter:
        found.append(
            f"Bright stars scatter by {result.model.scatter:.2f} mag about the zero point, photometry.max_scatter is"
            f" {params.max_scatter:g}: wrong or noisy magnitudes in the catalogue, or clouds?"
        )
    if fraction < params.min_agreement and not few:
        found.append(
            f"Only {result.stars.n_used} of {result.stars.n_good} bright, clean stars agree with the zero point:"
            f" {fraction:.2f} of them, photometry.min_agreement is {params.min_agreement:g}."
        )
    if result.model.chi2 > params.max_chi2:
        found.append(
            f"The stars scatter about the zero point by more than their errors: chi2 is {result.model.chi2:.1f},"
            f" photometry.max_chi2 is {params.max_chi2:g}."
        )
    return tuple([*found, *_color(result.model, params)])


def _color(model, params) -> list[str]:
    """Return what is to be said of a large colour term."""
    if model.color_term is None or abs(model.color_term) <= params.max_color_term:
        return []
    first, _, second = model.color.partition("-")
    term = f"The colour term is {model.color_term:+.2f} in {model.color}, photometry.max_color_term is"
    term += f" {params.max_color_term:g}"
    # r = instrumental + zp - (g - r) is an equation for g
    sign, other = (1, second) if model.band == first else (-1, first) if model.band == second else (0, "")
    if other and abs(model.color_term - sign) < _CANCELS:
        return [
            f"{term}: {model.band} cancels itself, so the image shows {other} rather than {model.band}, or the"
            f" catalogue's {model.band} is wrong; photometry.band names the band."
        ]
    return [f"{term}: is the image of another band? photometry.band names it."]
