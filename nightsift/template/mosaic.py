"""Join pieces of sky into one image, not by their mean: what is wrong with one stays only where no other is better."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from astropy.wcs import WCS
from scipy import ndimage

from nightsift.errors import Rejected
from nightsift.flags import Mask
from nightsift.image.unit_noise import in_units, unit
from nightsift.template.resample import interpolated, mapping, nearest_pixel

_ENOUGH = 200  # pixels that two pieces share from which on their levels are compared
_SAME = 1e-4  # pixels
_BORDER = 8  # pixels
_FELT = 6  # pixels around a defect
# The best that a pixel can be: good, flagged, nothing.
_GOOD, _FLAGGED, _NOTHING = 2, 1, 0


@dataclass(frozen=True)
class Piece:
    """A part of the sky.

    Attributes
    ----------
    data : 2-D float32 array
    noise : 2-D float32 array or None
        Standard deviation of a pixel.
    mask : 2-D uint8 array
        The first bits of `nightsift.flags.Mask`.
    wcs : WCS
    """

    data: np.ndarray
    noise: np.ndarray | None
    mask: np.ndarray
    wcs: WCS


@dataclass(frozen=True)
class Mosaic:
    """Pieces on one grid; as `Piece`, and `offsets` are what was added to each, in its own pixels' unit."""

    data: np.ndarray
    noise: np.ndarray | None
    mask: np.ndarray
    wcs: WCS
    offsets: tuple[float, ...]


def grid(reference: WCS, ra, dec) -> tuple[WCS, tuple[int, int]]:
    """Return the part of the grid of a piece without distortion, continued beyond it, that holds all positions [deg].

    Raises
    ------
    Rejected
        They spread too far for one plane.
    """
    x, y = reference.all_world2pix(ra, dec, 0, quiet=True)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise Rejected("the field is too wide for one template")
    first = [int(np.floor(axis.min())) - _BORDER for axis in (x, y)]
    last = [int(np.ceil(axis.max())) + _BORDER for axis in (x, y)]
    wcs = reference.deepcopy()
    wcs.wcs.crpix = wcs.wcs.crpix - first
    wcs.wcs.set()
    return wcs, (last[1] - first[1] + 1, last[0] - first[0] + 1)


def mosaic(pieces: Iterable[Piece], wcs: WCS, shape: tuple[int, int]) -> Mosaic:
    """Put pieces on one grid.

    Every pixel is of one piece: a good one, and among those that are good there the one whose border is farthest. Where
    pieces overlap, their levels are brought together by the median of the difference of good pixels.

    Parameters
    ----------
    pieces : iterable of Piece
        The first one's level is kept; best in an order in which each overlaps one before it.
    wcs : WCS
    shape : tuple of int
        Rows and columns of the mosaic.

    Returns
    -------
    Mosaic
        Flux is conserved; the noise is None if a piece has none; bit ``NONFINITE`` where no piece has a value.
    """
    data, noise = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    mask = np.full(shape, int(Mask.NONFINITE), np.uint8)
    depth = np.zeros(shape, np.float32)
    offsets = []
    for piece in pieces:
        placed = _placed(piece, wcs, shape)
        if placed is None:
            offsets.append(0.0)
            continue
        window, values, sigma, planes, inside = placed
        rank, old = _rank(planes), _rank(mask[window])
        both = (rank == _GOOD) & (old == _GOOD)
        offset = float(np.median(data[window][both] - values[both])) if both.sum() >= _ENOUGH else 0.0
        take = (rank > old) | ((rank == old) & (rank > _NOTHING) & (inside > depth[window]))
        for whole, part in ((data, values + np.float32(offset)), (mask, planes), (depth, inside)):
            whole[window][take] = part[take]
        if sigma is None:
            noise = None
        elif noise is not None:
            noise[window][take] = sigma[take]
        offsets.append(offset)
    return Mosaic(data, noise, mask, wcs, tuple(offsets))


def _rank(planes: np.ndarray) -> np.ndarray:
    absent = (planes & int(Mask.NONFINITE)) != 0
    return np.where(absent, _NOTHING, np.where(planes != 0, _FLAGGED, _GOOD))


def _placed(piece: Piece, wcs: WCS, shape):
    """Return where a piece falls on a grid, and there its values, noise, planes and distance from its border."""
    shift = _shift(piece.wcs, wcs)
    return _resampled(piece, wcs, shape) if shift is None else _shifted(piece, shift, shape)


def _shift(own: WCS, wcs: WCS) -> tuple[int, int] | None:
    """Return the whole pixels (y, x) between two grids; None unless they are one."""
    if own.sip is not None:
        return None
    scale = np.abs(wcs.pixel_scale_matrix).max()
    same = np.allclose(own.wcs.crval, wcs.wcs.crval, rtol=0, atol=1e-9)
    same &= np.allclose(own.pixel_scale_matrix, wcs.pixel_scale_matrix, rtol=0, atol=1e-9 * scale)
    exact = (wcs.wcs.crpix - own.wcs.crpix)[::-1]
    whole = np.rint(exact).astype(int)
    return tuple(whole) if same and np.abs(exact - whole).max() < _SAME else None


def _shifted(piece: Piece, shift: tuple[int, int], shape):
    sides = list(zip(shift, piece.data.shape, shape, strict=True))
    window = tuple(slice(max(first, 0), min(first + own, side)) for first, own, side in sides)
    if any(part.stop <= part.start for part in window):
        return None
    part = tuple(slice(cut.start - first, cut.stop - first) for cut, first in zip(window, shift, strict=True))
    rows, columns = (np.arange(cut.start, cut.stop, dtype=np.float32) for cut in part)
    inside = _depth(columns[None, :], rows[:, None], piece.data.shape)
    sigma = None if piece.noise is None else piece.noise[part]
    return window, piece.data[part], sigma, piece.mask[part], inside


def _resampled(piece: Piece, wcs: WCS, shape):
    ny, nx = piece.data.shape
    along_x, along_y = np.linspace(-0.5, nx - 0.5, 17), np.linspace(-0.5, ny - 0.5, 17)
    x, y = (part.ravel() for part in np.meshgrid(along_x, along_y))
    x, y = wcs.all_world2pix(*piece.wcs.all_pix2world(x, y, 0), 0, quiet=True)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return None
    window = tuple(
        slice(max(int(np.floor(axis.min())), 0), min(int(np.ceil(axis.max())) + 1, side))
        for axis, side in ((y, shape[0]), (x, shape[1]))
    )
    if any(part.stop <= part.start for part in window):
        return None
    here = wcs.deepcopy()
    here.wcs.crpix = here.wcs.crpix - [window[1].start, window[0].start]
    here.wcs.set()
    size = tuple(part.stop - part.start for part in window)
    x, y, area = mapping(piece.wcs, here, size, piece.data.shape)
    clean = np.where(piece.mask != 0, 0, piece.data)
    # Cores that saturate are better than holes for what interpolates across their border.
    clean = np.where(piece.mask == int(Mask.SATURATED), piece.data, clean)
    values = interpolated(clean, x, y, area) * area
    absent = ((piece.mask & int(Mask.NONFINITE)) != 0) | _edge(piece.data.shape)
    planes = nearest_pixel(_spread(piece.mask), x, y)
    off = (x < -0.5) | (y < -0.5) | (x > nx - 0.5) | (y > ny - 0.5) | nearest_pixel(absent, x, y)
    planes = np.where(off, planes | int(Mask.NONFINITE), planes).astype(np.uint8)
    sigma = None
    if piece.noise is not None:
        size = unit(float(np.median(piece.noise)))
        variance = ndimage.map_coordinates(in_units(piece.noise, size) ** 2, [y, x], order=1, mode="nearest")
        sigma = in_units(np.sqrt(variance * area).astype(np.float32), 1 / size)
    # Where interpolation still feels a defect, another piece is better, however close its border.
    felt = nearest_pixel(ndimage.binary_dilation(piece.mask != 0, np.ones((3, 3)), _FELT), x, y)
    inside = _depth(x, y, piece.data.shape) - np.where(felt, np.float32(1e6), 0)
    return window, values.astype(np.float32), sigma, planes, inside


def _edge(shape) -> np.ndarray:
    """Return the outermost pixels, which interpolation has only half of."""
    result = np.ones(shape, bool)
    result[2:-2, 2:-2] = False
    return result


def _spread(mask: np.ndarray) -> np.ndarray:
    """Return the flags of each pixel and its neighbours, but for NONFINITE, which stays where it is."""
    result = mask.copy()
    for bit in (int(Mask.SATURATED), int(Mask.USER)):
        flagged = (mask & bit) != 0
        if flagged.any():
            result[ndimage.binary_dilation(flagged, np.ones((3, 3)))] |= bit
    holes = (mask & int(Mask.NONFINITE)) != 0
    if holes.any():
        result[ndimage.binary_dilation(holes, np.ones((3, 3))) & ~holes] |= int(Mask.USER)
    return result


def _depth(x, y, shape) -> np.ndarray:
    """Return the distance from the border of an image."""
    across = np.minimum(x + 0.5, shape[1] - 0.5 - x)
    return np.minimum(across, np.minimum(y + 0.5, shape[0] - 0.5 - y)).astype(np.float32)
