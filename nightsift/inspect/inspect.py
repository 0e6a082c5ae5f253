"""First look at an image: what its header says, checked against its pixels, and a mask of its bad pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from astropy.io import fits
from scipy import ndimage

from nightsift import parameters
from nightsift.errors import Rejected
from nightsift.flags import Mask
from nightsift.header.header import Overrides, data_section, described
from nightsift.image import cosmics
from nightsift.image.background import background, pixel_noise
from nightsift.inspect.bayer import refuse_mosaic
from nightsift.inspect.gain import Given, Pixels, checked_gain
from nightsift.inspect.quantum import dithered, quantum
from nightsift.inspect.saturation import saturated_pixels, saturation
from nightsift.statistics import SIGMA_PER_MAD


@dataclass(frozen=True)
class Inspection:
    """What is known of an image before its objects are.

    Attributes
    ----------
    mask : ndarray
        uint16, bits of `nightsift.flags.Mask`.
    mjd : float or None
        Middle of the exposure, UTC.
    exptime : float or None
        Seconds.
    gain : float or None
        e-/ADU.
    readnoise : float or None
        Electrons, as given or in the header.
    saturation : float or None
        ADU.
    filter : str or None
        One of `nightsift.parameters.BANDS`; None when unknown or none.
    filter_name : str
        As in the header or sample sheet.
    wcs_header : astropy.io.fits.Header or None
        Celestial cards that `astropy.wcs.WCS` accepts.
    pixscale : float or None
        Arcsec.
    background, noise : float
        Sky and its sigma, ADU.
    fwhm : float or None
        Rough, pixels.
    ra, dec : float or None
        Where the image points, degrees.
    observatory : str or None
        IAU code.
    masked : dict
        Fraction of the pixels, by the name of the plane.
    warnings : tuple of str
    """

    mask: np.ndarray
    mjd: float | None
    exptime: float | None
    gain: float | None
    readnoise: float | None
    saturation: float | None
    filter: str | None
    filter_name: str
    wcs_header: fits.Header | None
    pixscale: float | None
    background: float
    noise: float
    fwhm: float | None
    ra: float | None
    dec: float | None
    observatory: str | None
    masked: dict
    warnings: tuple[str, ...]


# Long: the steps of the stage in their order; each needs what those before have masked.
def inspect(
    data, header: fits.Header, params: parameters.InspectConfig, overrides: Overrides | None = None, user_mask=None
) -> Inspection:
    """Read the header of an image, check it against the pixels, and mask the bad ones.

    Parameters
    ----------
    data : ndarray
        2-D image, ADU; NaN = no value.
    header : astropy.io.fits.Header
    params : nightsift.parameters.Inspect
    overrides : Overrides, optional
        What the sample sheet says.
    user_mask : ndarray, optional
        Boolean, of the image's shape, True = bad.

    Returns
    -------
    Inspection

    Raises
    ------
    nightsift.errors.Rejected
        When the image is too small, constant or without values, or nearly all of it is masked.
    """
    overrides = overrides or Overrides()
    data = np.ascontiguousarray(data, dtype=np.float32)
    warnings: list[str] = []
    mask = _first_mask(data, header, params, user_mask, warnings)
    sky = _sky(data, mask)
    step = quantum(data[mask == 0], sky.noise)
    # Hot lines first: hundreds of pixels of one value look like a pile-up at saturation.
    mask[bad_lines(dithered(data - sky.map, step, sky.noise)[0], data, mask != 0, sky.noise, step)] |= int(Mask.BADLINE)
    refuse_mosaic(data - sky.map, header, mask != 0, sky.noise, warnings)
    full = overrides.saturation if overrides.saturation is not None else params.saturation
    if full is None:
        full = saturation(data, header, mask != 0, sky.level, sky.noise, step, warnings)
    if full is not None:
        mask[saturated_pixels(data, full, sky.level)] |= int(Mask.SATURATED)
    if mask.any():
        sky = _sky(data, mask)
    bad = mask != 0
    given = Given(overrides.gain if overrides.gain is not None else params.gain, overrides.exptime, overrides.readnoise)
    fine, added = dithered(data - sky.map, step, sky.noise)
    single = math.sqrt(max(pixel_noise(fine, bad) ** 2 - added, 0.0))
    gain = checked_gain(header, Pixels(sky.level, sky.noise, single, step), given, warnings)
    if params.cosmics:
        hits = cosmics.find_cosmics(data, sky.map, sky.sigma, gain, bad, params.cosmic_sigma, params.cosmic_fwhm)
        mask[hits.mask] |= int(Mask.COSMIC)
        warnings += hits.warnings
    fractions = {plane.name: float(np.mean((mask & int(plane)) != 0)) for plane in list(Mask)[:6]}
    fraction = float(np.mean(mask != 0))
    if fraction > params.max_masked:
        worst = max(fractions, key=fractions.get)
        raise Rejected(f"{100 * fraction:.1f} % of the pixels are masked, mostly {worst}")
    return Inspection(
        mask=mask,
        gain=gain,
        saturation=None if full is None else float(full),
        background=sky.level,
        noise=sky.noise,
        fwhm=rough_fwhm(data - sky.map, sky.noise, bad | ((mask & int(Mask.COSMIC)) != 0)),
        masked=fractions,
        **described(header, data.shape, overrides, warnings),
        warnings=tuple(warnings),
    )


def _first_mask(data, header, params, user_mask, warnings: list[str]) -> np.ndarray:
    if data.ndim != 2 or min(data.shape) < params.min_size:
        size = " x ".join(str(side) for side in reversed(data.shape))
        raise Rejected(f"the image is {size} pixels: a side is shorter than {params.min_size}")
    finite = np.isfinite(data)
    if not finite.any():
        raise Rejected("no pixel has a finite value")
    mask = np.where(finite, 0, int(Mask.NONFINITE)).astype(np.uint16)
    if user_mask is not None:
        if np.shape(user_mask) != data.shape:
            raise Rejected("the user's mask and the image differ in shape")
        mask[np.asarray(user_mask, bool)] |= int(Mask.USER)
    section = data_section(header, data.shape, warnings)
    if section is not None:
        outside = np.ones(data.shape, bool)
        outside[section] = False
        mask[outside] |= int(Mask.OUTSIDE)
    values = data[mask == 0]
    if not values.size:
        raise Rejected("every pixel is masked")
    if values.min() == values.max():
        raise Rejected(f"every pixel has the same value, {float(values[0]):g}")
    border = constant_border(data, mask != 0)
    if border is not None:
        region, value = border
        warnings.append(f"a border of {100 * region.mean():.1f} % of the pixels is constant at {value:g}: masked")
        mask[region] |= int(Mask.OUTSIDE)
    return mask


def constant_border(data, bad):
    """Return the region along the image's border that has one and the same value, and the value; None without one."""
    edge = np.concatenate([data[0], data[-1], data[:, 0], data[:, -1]])
    values, counts = np.unique(edge[np.isfinite(edge)], return_counts=True)
    if not values.size or counts.max() < 0.02 * edge.size:
        return None
    value = values[np.argmax(counts)]
    good = data[~bad & (data != value)]
    middle = float(np.median(good)) if good.size else 0.0
    spread = float(np.median(np.abs(good - middle))) if good.size else 0.0
    # Sky that is counted repeats its values too: a border of such an image must lie off the sky.
    step = quantum(good, SIGMA_PER_MAD * spread)
    if step and abs(value - middle) < 5.0 * max(spread, step):
        return None
    region = ndimage.binary_opening(np.pad(data == value, 2, constant_values=True), np.ones((5, 5)))[2:-2, 2:-2]
    region &= data == value
    labels, count = ndimage.label(region)
    touching = np.zeros(count + 1, bool)
    touching[np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])] = True
    touching[0] = False
    region = touching[labels]
    return (region, float(value)) if region.mean() > 0.002 else None


@dataclass(frozen=True)
class _Sky:
    """The background of an image and the sigma of its pixels: their maps, and what is typical."""

    map: np.ndarray
    sigma: np.ndarray
    level: float
    noise: float


def _sky(data, mask) -> _Sky:
    bad = mask != 0
    if bad.all():
        raise Rejected("every pixel is masked")
    filled = np.where(np.isfinite(data), data, np.float32(np.median(data[~bad])))
    found = background(filled, bad, max(16, min(64, min(data.shape) // 4)))
    few = slice(None, None, max(1, bad.size // 400000))
    residual, noise = (filled - found.level)[~bad][few], found.typical_noise
    if not noise > 0.0:
        noise = float(SIGMA_PER_MAD * np.median(np.abs(residual - np.median(residual)))) or float(np.std(residual))
    if not noise > 0.0:
        raise Rejected("the unmasked pixels have no scatter")
    sigma = np.maximum(found.noise, np.float32(0.1 * noise))
    return _Sky(found.level, sigma, float(np.median(found.level[~bad][few])), noise)


def bad_lines(residual, data, bad, noise: float, step: float) -> np.ndarray:
    """Return the columns and rows off their neighbours, or constant over most of their length, as a mask.

    ``step`` is what the values of `data` are multiples of, 0 for none; those of `residual` should know no steps.
    """
    result = np.zeros(data.shape, bool)
    flat = np.where(bad, np.float32(0.0), residual)
    for axis in (0, 1):
        length = data.shape[axis]
        usable = length - bad.sum(axis=axis) > max(20, 0.25 * length)
        middle = np.median(flat, axis=axis)
        off = middle - ndimage.median_filter(middle, 15, mode="nearest")
        spread = max(SIGMA_PER_MAD * float(np.median(np.abs(off))), 1.2533 * noise / math.sqrt(length))
        # Within a large galaxy the lines differ more than over the sky.
        local = SIGMA_PER_MAD * ndimage.median_filter(np.abs(off), 51, mode="nearest")
        limit = np.maximum(max(8.0 * spread, 0.5 * noise), 6.0 * local)
        line = usable & _abrupt(np.abs(off) > limit, middle, off)
        plain = np.where(bad, np.float32(np.nan), data)
        typical = np.sort(np.where(np.isfinite(plain), plain, np.inf), axis=axis)
        line |= usable & _mostly_one_value(np.moveaxis(typical, axis, 0), noise, step)
        result |= line[None, :] if axis == 0 else line[:, None]
    return result


def _abrupt(line, middle, off) -> np.ndarray:
    """Return the groups of lines that begin and end in a step: the light of a galaxy rises and falls smoothly."""
    groups, _ = ndimage.label(line)
    result = np.zeros_like(line)
    for (part,) in ndimage.find_objects(groups):
        edges = [(i, j) for i, j in ((part.start, part.start - 1), (part.stop - 1, part.stop)) if 0 <= j < line.size]
        steps = [abs(middle[i] - middle[j]) for i, j in edges]
        result[part] = min(steps, default=0.0) > 0.5 * np.abs(off[part]).max()
    return result


def _mostly_one_value(ordered, noise: float, step: float) -> np.ndarray:
    """Return which columns of an image sorted along axis 0 hold one value in more than half of their pixels."""
    count = ordered.shape[0]
    half = count // 2
    same = np.zeros(ordered.shape[1], bool)
    # A value that fills more than half of a sorted line spans some stretch of half its length.
    for start in range(0, count - half, max(1, half // 8)):
        same |= (ordered[start] == ordered[start + half]) & np.isfinite(ordered[start])
    # Counted sky of little noise repeats its values everywhere.
    return same if noise > 2.0 * step and same.mean() < 0.2 else np.zeros_like(same)


def rough_fwhm(signal, noise: float, bad) -> float | None:
    """Return the median FWHM in pixels of bright stars, from the area above half their peak; None without stars."""
    y, x = cosmics.find_stars(np.where(bad, np.float32(0.0), signal), noise, bad, threshold=20.0)
    inside = (y > 12) & (x > 12) & (y < signal.shape[0] - 13) & (x < signal.shape[1] - 13)
    y, x = y[inside][:300], x[inside][:300]
    if y.size < 3:
        return None
    step = np.arange(-12, 13)
    stamps = signal[y[:, None, None] + step[:, None], x[:, None, None] + step]
    peak = stamps[:, 12, 12]
    above = (stamps > 0.5 * peak[:, None, None]).astype(np.uint8)
    # One label call for all stars: the stamps are laid along an axis without connection.
    labels, _ = ndimage.label(above, np.array([np.zeros((3, 3)), np.ones((3, 3)), np.zeros((3, 3))]))
    area = (labels == labels[:, 12, 12][:, None, None]).sum(axis=(1, 2))
    area = area[area < 300]
    return float(2.0 * math.sqrt(np.mean(area[area <= 2.0 * np.median(area)]) / math.pi)) if area.size >= 3 else None
