"""What is known of an image's place on the sky, and which of its stars to search an unknown place by."""

from __future__ import annotations

import math

import numpy as np
import sep
from astropy.io import fits
from astropy.wcs import WCS

from nightsift.flags import HIDDEN
from nightsift.image.background import background
from nightsift.image.unit_noise import in_units, pixel_unit
from nightsift.sky import tangent
from nightsift.sky.sphere import RADIUS

MOST = 500  # stars, the brightest: more than a solver looks at
# Pixels, of the background. Not `detect.background_size`: bright stars stand out of any, before detect has run.
MESH = 64
FACTOR = 2.0  # by which a pixel scale that is no range may be off, either way


def brightest(data, mask) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ``x, y, flux`` of the brightest stars, quickly; saturated ones belong to them.

    Parameters
    ----------
    data : 2-D array
        Image, ADU.
    mask : 2-D uint16 array
        Bits of `nightsift.flags.Mask`.
    """
    bad = (mask & int(HIDDEN)) != 0
    data = np.where(bad, np.float32(np.median(data[~bad])), data).astype(np.float32)
    data = in_units(data, pixel_unit(data, bad))
    sky = background(data, bad, MESH)
    sep.set_extract_pixstack(max(1_000_000, data.size // 4))
    sep.set_sub_object_limit(8192)
    found = sep.extract(data - sky.level, 5.0, err=sky.typical_noise, mask=bad, minarea=5)
    found = found[np.argsort(-found["flux"], kind="stable")[:MOST]]
    return found["x"], found["y"], found["flux"]


def scale_range(pixscale) -> tuple[float, float] | None:
    """Return the lowest and highest pixel scale that a range, or a number that may be off, allows."""
    if pixscale is None:
        return None
    if isinstance(pixscale, list | tuple):
        return float(pixscale[0]), float(pixscale[1])
    return pixscale / FACTOR, pixscale * FACTOR


def contradiction(cards: fits.Header, shape, ra: float, dec: float, radius: float | None) -> str | None:
    """Return why a header's solution cannot be of a field within `radius` degrees of a position, None where it can."""
    at_ra, at_dec = WCS(cards).all_pix2world((shape[1] - 1) / 2, (shape[0] - 1) / 2, 0)
    offset = complex(tangent.project(at_ra, at_dec, ra, dec))
    apart = math.degrees(math.atan(math.radians(abs(offset)))) if math.isfinite(abs(offset)) else math.inf
    matrix = np.array([[cards[f"CD{row}_{column}"] for column in (1, 2)] for row in (1, 2)])
    half = 0.5 * math.hypot(*shape) * math.sqrt(abs(np.linalg.det(matrix)))
    if apart <= (radius or RADIUS) + half:
        return None
    return f"WCS: not used, as it points {'far' if math.isinf(apart) else f'{apart:.2f} deg'} from the position given"
