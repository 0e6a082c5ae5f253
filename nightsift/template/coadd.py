"""Templates from several images of the user's: which of them an image needs, and these on one scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from astropy.table import Table
from astropy.wcs import WCS
from scipy.spatial import cKDTree

from nightsift.errors import Rejected
from nightsift.flags import Mask
from nightsift.image.background import background
from nightsift.image.padding import PAD
from nightsift.template.alignment import MESH, TemplateImage
from nightsift.template.mosaic import Piece
from nightsift.template.registration import UNSURE, carry

STEPS = 32  # of the grid on which overlap is counted
WORTH = 0.01  # fraction of the image that an image must add
NEAR = 2.0  # FWHM between an object of the template and one of the image that may be the same
BRIGHT, FEWEST = 20.0, 5  # S/N, and number, of the stars that tell the ratio of two images' fluxes


@dataclass(frozen=True)
class Outline:
    """An image before its pixels are looked at: its WCS, rows and columns, band or None, seconds or None."""

    wcs: WCS
    shape: tuple[int, int]
    band: str | None
    exptime: float | None


def choose(outlines: Sequence[Outline], wcs: WCS, shape: tuple[int, int], band: str | None, most: int) -> list[int]:
    """Choose the images that a template for an image is made of.

    Parameters
    ----------
    outlines : sequence of Outline
    wcs, shape, band
        Of the image: its WCS, rows and columns, and band, None = not known.
    most : int
        How many, at most.

    Returns
    -------
    list of int
        The one that covers most of the image, and then always the one that adds most, by 1 per cent or more; of equal
        ones, the longest exposure. All are of one band: that of the image where it is known and any of them is, else
        the first one's.

    Raises
    ------
    Rejected
        If none overlaps the image, or none of its band.
    """
    x, y = np.meshgrid(*(np.linspace(-0.5, side - 0.5, STEPS) for side in shape[::-1]))
    covered = np.array([_inside(outline, wcs, x.ravel(), y.ravel()) for outline in outlines]).reshape(len(outlines), -1)
    share = covered.mean(axis=1)
    bands = {outlines[k].band for k in np.flatnonzero(share)}
    if not bands:
        raise Rejected(f"none of the {len(outlines)} images of the template's folder overlaps the image")
    if band is not None:
        band, wanted = (band if band in bands else None), band
        if band is None and None not in bands:
            here = ", ".join(sorted(bands))
            raise Rejected(f"no image of the template's folder that overlaps is in {wanted}; they are in {here}")
        share = np.where([outline.band == band for outline in outlines], share, 0)
    long = [outline.exptime or 0.0 for outline in outlines]
    chosen, left = [], np.ones(covered.shape[1], bool)
    while len(chosen) < most:
        added = np.where(share > 0, (covered & left).mean(axis=1), 0)
        best = max(range(len(outlines)), key=lambda k: (round(added[k] / WORTH), long[k], -k))
        if added[best] < (WORTH if chosen else 1e-9):
            break
        if not chosen:
            share = np.where([outline.band == outlines[best].band for outline in outlines], share, 0)
        chosen.append(best)
        left &= ~covered[best]
    return chosen


def _inside(outline: Outline, wcs: WCS, x, y) -> np.ndarray:
    ny, nx = outline.shape
    there_x, there_y = carry(wcs, outline.wcs, x, y, max(outline.shape))
    return (there_x > -0.5) & (there_y > -0.5) & (there_x < nx - 0.5) & (there_y < ny - 0.5)


def around(wcs: WCS, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return positions [deg] that hold an image and the frame that a template needs around it."""
    x, y = np.meshgrid(*(np.linspace(-PAD, side + PAD, STEPS) for side in shape[::-1]))
    return wcs.all_pix2world(x.ravel(), y.ravel(), 0)


def flat(wcs: WCS) -> WCS:
    """Return a WCS without its distortion."""
    result = wcs.deepcopy()
    result.sip = None
    result.wcs.ctype = [name.removesuffix("-SIP") for name in wcs.wcs.ctype]
    result.wcs.set()
    return result


def flux_ratio(objects: Table, wcs: WCS, others: Table, other_wcs: WCS) -> float | None:
    """Return the flux that stars have in an image, relative to another one; None with less than five to tell.

    Parameters
    ----------
    objects, others : Table
        Schema ``detections``. Fluxes are in apertures of each image's own seeing, with the same fraction of a flux.
    wcs, other_wcs : WCS
    """
    objects, others = (_bright(table) for table in (objects, others))
    if min(len(objects), len(others)) < FEWEST:
        return None
    x, y = carry(wcs, other_wcs, np.array(objects["x"]), np.array(objects["y"]), 1e5)
    places = np.column_stack([x, y]), np.column_stack([others["x"], others["y"]])
    distance, mate = cKDTree(places[1]).query(places[0])
    _, back = cKDTree(places[0]).query(places[1])
    same = (distance < NEAR * np.nanmedian(others["fwhm"])) & (back[mate] == np.arange(len(objects)))
    if same.sum() < FEWEST:
        return None
    return float(np.median(np.asarray(objects["flux"])[same] / np.asarray(others["flux"])[mate[same]]))


def _bright(objects: Table) -> Table:
    return objects[(np.asarray(objects["snr"]) > BRIGHT) & ((np.asarray(objects["flags"]) & int(UNSURE)) == 0)]


def piece(source: TemplateImage, factor: float) -> Piece:
    """Return an image as a piece of a mosaic: without background, multiplied by a factor, with its noise.

    Without a gain the photons of stars are left out of the noise.
    """
    absent = (source.mask & int(Mask.NONFINITE | Mask.OUTSIDE)) != 0
    sky = background(source.data, source.mask != 0, MESH)
    clean = np.where(absent, 0, source.data - sky.level).astype(np.float32)
    # Squares of very small numbers would be nothing.
    photons = np.sqrt(np.maximum(clean, 0).astype(float) / source.gain) if source.gain else 0
    noise = np.hypot(sky.noise, photons).astype(np.float32)
    planes = source.mask.astype(np.uint8) | np.where(absent, np.uint8(Mask.NONFINITE), np.uint8(0))
    return Piece(clean * np.float32(factor), noise * np.float32(factor), planes, source.wcs)
