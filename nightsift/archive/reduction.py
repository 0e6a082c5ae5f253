"""From the files of a survey to a piece of sky on one flux scale, with noise and mask, its pixels summed in blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_scales

from nightsift.archive.http import BadReply
from nightsift.flags import Mask
from nightsift.header.readers import read_exptime
from nightsift.header.wcs_cards import repair_wcs
from nightsift.template.mosaic import Piece

if TYPE_CHECKING:
    from nightsift.archive.images import ImageSource
    from nightsift.io.fits import Image


def reduced(source: ImageSource, band: str, name: str, factor: int, images: dict[str, Image]) -> Piece | None:
    """Return a piece of sky on one flux scale, with noise and mask, its pixels summed in blocks.

    Parameters
    ----------
    source : ImageSource
    band, name : str
    factor : int
        Side of the blocks.
    images : dict
        By role, linear in flux.

    Returns
    -------
    Piece or None
        None if it has no pixel with a value, where that can be true.

    Raises
    ------
    BadReply
        It is another piece of sky, or lacks what is needed.
    """
    image = images["image"]
    wcs = _solution(source, name, image)
    shapes = {role: part.data.shape for role, part in images.items()}
    if len(set(shapes.values())) > 1:
        raise BadReply(f"the files of {name} differ in size: {shapes}")
    data = image.data
    if source.asinh:
        data = (2 * np.sinh(data * (np.log(10) / 2.5))).astype(np.float32)
    variance = source.variance(images["weight"].data) if source.variance else None
    planes = _planes(source, band, data, variance, images)
    absent = (planes & int(Mask.NONFINITE)) != 0
    if absent.all():
        dec = wcs.wcs.crval[1]
        if source.complete and source.complete[0] < dec < source.complete[1]:
            raise BadReply(f"{name} comes without a single pixel, which cannot be")
        return None
    unit = _unit(source, name, image)
    start = tuple(int(np.floor(value)) % factor for value in wcs.wcs.crpix[::-1])
    noise = None
    if variance is not None:
        sums = _blocks(np.where(absent, 0, variance), start, factor).sum(axis=(1, 3), dtype=float)
        noise = (np.sqrt(sums) / unit).astype(np.float32)
    data = _blocks(np.where(absent, 0, data), start, factor).sum(axis=(1, 3), dtype=float) / unit
    mask = np.bitwise_or.reduce(np.bitwise_or.reduce(_blocks(planes, start, factor), axis=3), axis=1)
    return Piece(data.astype(np.float32), noise, mask, binned(wcs, start, factor))


def _planes(source: ImageSource, band: str, data, variance, images: dict[str, Image]) -> np.ndarray:
    planes = np.zeros(data.shape, np.uint8)
    if source.meaning:
        planes |= source.meaning(np.nan_to_num(images["mask"].data), band)
    absent = ~np.isfinite(data)
    if variance is None:
        # What is exactly 0 in an interpolated image is a hole.
        absent |= data == 0
    else:
        absent |= ~(np.isfinite(variance) & (variance > 0))
    planes[absent] |= int(Mask.NONFINITE)
    return planes


def _solution(source: ImageSource, name: str, image: Image) -> WCS:
    """Return the solution of an image, which must be that of the piece of sky that was asked for."""
    cards, _ = repair_wcs(image.header, image.data.shape)
    if cards is None or "A_ORDER" in cards:
        raise BadReply(f"{name} comes without a solution")
    wcs = WCS(cards)
    expected, shape = source.geometry(name)
    ny, nx = image.data.shape
    ra, dec = wcs.all_pix2world((nx - 1) / 2, (ny - 1) / 2, 0)
    x, y = (float(value) for value in expected.all_world2pix(ra, dec, 0, quiet=True))
    scale = 3600 * float(np.mean(proj_plane_pixel_scales(wcs)))
    inside = 0 <= x <= shape[1] - 1 and 0 <= y <= shape[0] - 1
    if not inside or abs(scale / source.scale - 1) > 0.02:
        raise BadReply(f"{name} comes as another piece of sky, at {float(ra):.3f} {float(dec):+.3f}")
    return wcs


def _unit(source: ImageSource, name: str, image: Image) -> float:
    """Return what to divide pixels by."""
    if not source.exposure:
        return 1.0
    exposure = read_exptime(image.header)[0]
    if not exposure:
        raise BadReply(f"{name} comes without its exposure time")
    return float(exposure)


def _blocks(array: np.ndarray, start: tuple[int, int], factor: int) -> np.ndarray:
    """Return a view of the whole blocks of an array, (rows, factor, columns, factor)."""
    counts = [(side - first) // factor for side, first in zip(array.shape, start, strict=True)]
    cut = tuple(slice(first, first + count * factor) for first, count in zip(start, counts, strict=True))
    return array[cut].reshape(counts[0], factor, counts[1], factor)


def binned(wcs: WCS, start: tuple[int, int], factor: int) -> WCS:
    result = wcs.deepcopy()
    result.wcs.crpix = (wcs.wcs.crpix - start[::-1] - 0.5) / factor + 0.5
    result.wcs.cd = wcs.wcs.cd * factor
    result.wcs.set()
    return result
