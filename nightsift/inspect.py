"""First look at an image: what its header says, checked against its pixels, and a mask of its bad pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import sep
from astropy.io import fits
from scipy import ndimage

from nightsift import cosmics, headers, parameters
from nightsift.cards import get, number
from nightsift.described import Overrides, data_section, described
from nightsift.errors import Rejected
from nightsift.planes import Mask

_BIN = 0.02


@dataclass(frozen=True)
class Inspection:
    """What is known of an image before its objects are.

    Attributes
    ----------
    mask : ndarray
        uint16, bits of `nightsift.planes.Mask`.
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


def inspect(
    data, header: fits.Header, params: parameters.Inspect, overrides: Overrides | None = None, user_mask=None
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
    # Hot lines first: hundreds of pixels of one value look like a pile-up at saturation.
    mask[bad_lines(data - sky[0], data, mask != 0, sky[2])] |= int(Mask.BADLINE)
    saturation = _saturation(data, header, params, overrides, sky, mask, warnings)
    if saturation is not None:
        mask[saturated_pixels(data, saturation, sky[1])] |= int(Mask.SATURATED)
    if mask.any():
        sky = _sky(data, mask)
    gain = _gain(data, header, params, overrides, sky, mask, warnings)
    bad = mask != 0
    if params.cosmics:
        rms = sky[3]
        mask[cosmics.find_cosmics(data, sky[0], rms, gain, bad, params.cosmic_sigma)] |= int(Mask.COSMIC)
    fractions = {plane.name: float(np.mean((mask & int(plane)) != 0)) for plane in list(Mask)[:6]}
    fraction = float(np.mean(mask != 0))
    if fraction > params.max_masked:
        worst = max(fractions, key=fractions.get)
        raise Rejected(f"{100 * fraction:.1f} % of the pixels are masked, mostly {worst}")
    return Inspection(
        mask=mask,
        gain=gain,
        saturation=saturation,
        background=sky[1],
        noise=sky[2],
        fwhm=rough_fwhm(data - sky[0], sky[2], bad | ((mask & int(Mask.COSMIC)) != 0)),
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
    # Sky counted in whole ADU repeats its values too: a border of such an image must lie off the sky.
    counted = np.all(good[:1000] == np.rint(good[:1000]))
    if counted and abs(value - middle) < 5.0 * max(spread, 1.0):
        return None
    region = ndimage.binary_opening(np.pad(data == value, 2, constant_values=True), np.ones((5, 5)))[2:-2, 2:-2]
    region &= data == value
    labels, count = ndimage.label(region)
    touching = np.zeros(count + 1, bool)
    touching[np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])] = True
    touching[0] = False
    region = touching[labels]
    return (region, float(value)) if region.mean() > 0.002 else None


def _sky(data, mask) -> tuple:
    """Return the background map, its level, the sky sigma, and the map of sigma."""
    bad = mask != 0
    if bad.all():
        raise Rejected("every pixel is masked")
    filled = np.where(np.isfinite(data), data, np.float32(np.median(data[~bad])))
    size = max(16, min(64, min(data.shape) // 4))
    mesh = sep.Background(filled, mask=bad, bw=size, bh=size, fw=3, fh=3)
    back, rms = mesh.back(dtype=np.float32), mesh.rms(dtype=np.float32)
    residual = (filled - back)[~bad][:: max(1, bad.size // 400000)]
    noise = float(mesh.globalrms)
    if not noise > 0.0:
        noise = float(1.4826 * np.median(np.abs(residual - np.median(residual)))) or float(np.std(residual))
    if not noise > 0.0:
        raise Rejected("the unmasked pixels have no scatter")
    return back, float(mesh.globalback), noise, np.maximum(rms, np.float32(0.1 * noise))


def pixel_noise(data, bad) -> float:
    """Return the sigma of single pixels from the differences of neighbours, over the darker half of the image.

    Unlike the scatter about the background it holds hardly any of the light of unresolved stars.
    """
    good = ~(bad[:, :-2] | bad[:, 1:-1] | bad[:, 2:])
    step = (data[:, :-2] - 2.0 * data[:, 1:-1] + data[:, 2:])[good]
    level = (data[:, :-2] + data[:, 2:])[good]
    dark = step[level <= np.median(level)] if level.size else step
    return float(1.4826 * np.median(np.abs(dark)) / math.sqrt(6.0)) if dark.size else math.nan


def pile_up(data, bad, background: float, noise: float) -> float | None:
    """Find the level at which pixel values pile up at the top of their distribution.

    The number of pixels per logarithmic step of signal falls or stays level up to the peaks of the brightest stars;
    where wells are full it rises to a bump again. Its lower flank is the level.

    Parameters
    ----------
    data : ndarray
        Image, ADU.
    bad : ndarray
        Boolean mask.
    background, noise : float
        Sky and its sigma, ADU.

    Returns
    -------
    float or None
        ADU; None when nothing piles up.
    """
    floor = 50.0 * noise
    bright = ~bad & (data - background > floor)
    values = np.log((data[bright] - background).astype(float))
    if values.size < 30:
        return None
    start = math.log(floor)
    counts = np.bincount(((values - start) / _BIN).astype(int)).astype(float)
    smooth = np.convolve(counts, [0.5, 1.0, 0.5], mode="same")
    total = np.concatenate([[0.0], np.cumsum(counts)])
    for top in np.argsort(-smooth * (np.arange(smooth.size) > 0.3 * smooth.size))[:5]:
        lower = max(0, top - int(0.9 / _BIN))
        if top - lower < 10:
            continue
        valley = lower + int(np.argmin(np.convolve(smooth, np.ones(5) / 5.0, mode="same")[lower : top + 1]))
        base = float(np.mean(smooth[max(0, valley - 5) : valley + 6]))
        above = counts.size - 1 - min(counts.size - 1, top + int(0.15 / _BIN))
        beyond = total[-1] - total[counts.size - above] if above > 0 else 0.0
        bump = total[-1] - total[valley] - (counts.size - valley) * base / 2.0
        if bump < 20.0 or smooth[top] < 5.0 * max(base, 1.0) or beyond > 0.1 * bump:
            continue
        flank = top
        while flank > valley and smooth[flank] > max(0.15 * smooth[top], 2.0 * base):
            flank -= 1
        flank = _onset(counts, lower, flank)
        level = background + math.exp(start + (flank + 1) * _BIN)
        if _flat_topped(data, bad, level):
            return float(level)
    return None


def _onset(counts, lower: int, flank: int) -> int:
    """Return the bin where counts begin to exceed those below, when that is before the flank of the pile-up.

    The full well differs over a detector, most of all after the flat field: fainter saturated stars then end below
    the pile-up that the brightest make. It is the change point of largest likelihood for Poisson counts.
    """
    stretch = counts[lower : flank + 1]
    if stretch.size < 15:
        return flank
    total, bins = np.cumsum(stretch), np.arange(1, stretch.size + 1)
    before, after = total[:-1] / bins[:-1], (total[-1] - total[:-1]) / (bins[-1] - bins[:-1])
    mean = total[-1] / bins[-1]

    def term(rate, width):
        return width * rate * np.log(np.maximum(rate, 1e-9) / max(mean, 1e-9))

    gain = term(before, bins[:-1]) + term(after, bins[-1] - bins[:-1])
    gain[(after < 1.4 * before) | (bins[:-1] < 8) | (bins[:-1] < stretch.size - 0.4 / _BIN)] = 0.0
    best = int(np.argmax(gain))
    return lower + best if gain[best] > 4.0 else flank


def _flat_topped(data, bad, level: float) -> bool:
    """Return whether the pixels above a level are many stars' plateaus, one value many times, or a bleeding trail."""
    over = ~bad & (data >= level)
    labels, count = ndimage.label(over, np.ones((3, 3)))
    values, repeats = np.unique(data[over], return_counts=True)
    if count >= 3 or (values.size and repeats.max() >= max(10, 0.3 * over.sum())):
        return True
    # One or two defocused stars have round tops of their own level; what bleeds is long.
    sides = [[part.stop - part.start for part in box] for box in ndimage.find_objects(labels)]
    return any(max(box) >= 3 * min(box) and max(box) >= 10 for box in sides)


def _saturation(data, header, params, overrides, sky, mask, warnings: list[str]) -> float | None:
    _, background, noise, _ = sky
    given = overrides.saturation if overrides.saturation is not None else params.saturation
    if given is not None:
        return float(given)
    bad = mask != 0
    highest = float(data[~bad].max())
    found = pile_up(data, bad, background, noise)
    key, value, notes = headers.read_saturation(header)
    warnings += notes
    if value is not None and value <= background + 3.0 * noise:
        warnings.append(f"{key} = {value:g} lies below the sky ({background:.6g}): ignored")
        value = None
    if value is not None and found is not None and value > found * 1.05 and value > highest:
        warnings.append(f"{key} = {value:g}, but pixels pile up from {found:.6g} on: that is taken for saturation")
        value = found
    if value is not None:
        return value
    if found is not None:
        warnings.append(f"no saturation level in the header: {found:.6g}, where pixel values pile up, is taken")
        return found
    bits = number(get(header, "BITPIX"))
    if bits in (8, 16):
        scale, zero = (number(get(header, name)) for name in ("BSCALE", "BZERO"))
        limit = ((255 if bits == 8 else 32767) * (1.0 if scale is None else scale)) + (zero or 0.0)
        # Scaled integers end at the highest value of the image, whatever that was.
        return limit if scale in (None, 1.0) else None
    return None


def saturated_pixels(data, level: float, background: float) -> np.ndarray:
    """Return the pixels that are saturated, next to such, or in their bleeding trails.

    Trails go on at below the level, along columns or rows: pixels at more than half of it that touch a saturated one,
    and whose line is much brighter than the lines three pixels to its sides.
    """
    core = data >= level
    if not core.any():
        return core
    near = data >= background + 0.85 * (level - background)
    labels, count = ndimage.label(near, np.ones((3, 3)))
    hit = np.zeros(count + 1, bool)
    hit[labels[core]] = True
    hit[0] = False
    region = hit[labels]
    half = np.where(np.isfinite(data), data, background) - background
    for axis in (0, 1):
        beside = np.maximum(
            ndimage.shift(half, _along(1 - axis, 4), order=0, mode="nearest"),
            ndimage.shift(half, _along(1 - axis, -4), order=0, mode="nearest"),
        )
        line = (half > 0.2 * (level - background)) & (half > 4.0 * beside)
        trail = ndimage.binary_opening(line | region, np.ones((9, 1) if axis == 0 else (1, 9)))
        region = ndimage.binary_propagation(region, mask=region | trail)
    return ndimage.binary_dilation(region, np.ones((3, 3)))


def _along(axis: int, step: int) -> tuple[int, int]:
    return (step, 0) if axis == 0 else (0, step)


def bad_lines(residual, data, bad, noise: float) -> np.ndarray:
    """Return the columns and rows off their neighbours, or constant over most of their length, as a mask."""
    result = np.zeros(data.shape, bool)
    flat = np.where(bad, np.float32(0.0), residual)
    for axis in (0, 1):
        length = data.shape[axis]
        usable = length - bad.sum(axis=axis) > max(20, 0.25 * length)
        middle = np.median(flat, axis=axis)
        off = middle - ndimage.median_filter(middle, 15, mode="nearest")
        spread = max(1.4826 * float(np.median(np.abs(off))), 1.2533 * noise / math.sqrt(length))
        # Within a large galaxy the lines differ more than over the sky.
        local = 1.4826 * ndimage.median_filter(np.abs(off), 51, mode="nearest")
        limit = np.maximum(max(8.0 * spread, 0.5 * noise), 6.0 * local)
        line = usable & _abrupt(np.abs(off) > limit, middle, off)
        plain = np.where(bad, np.float32(np.nan), data)
        typical = np.sort(np.where(np.isfinite(plain), plain, np.inf), axis=axis)
        line |= usable & _mostly_one_value(np.moveaxis(typical, axis, 0), noise)
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


def _mostly_one_value(ordered, noise: float) -> np.ndarray:
    """Return which columns of an image sorted along axis 0 hold one value in more than half of their pixels."""
    count = ordered.shape[0]
    half = count // 2
    same = np.zeros(ordered.shape[1], bool)
    # A value that fills more than half of a sorted line spans some stretch of half its length.
    for start in range(0, count - half, max(1, half // 8)):
        same |= (ordered[start] == ordered[start + half]) & np.isfinite(ordered[start])
    # Counted sky of little noise repeats its values everywhere.
    return same if noise > 2.0 and same.mean() < 0.2 else np.zeros_like(same)


def _gain(data, header, params, overrides, sky, mask, warnings: list[str]) -> float | None:
    _, background, noise, _ = sky
    bad = mask != 0
    single = min(pixel_noise(data, bad), noise)
    subtracted = background < 3.0 * noise
    if subtracted:
        warnings.append(f"the sky is {background:.4g} with a noise of {noise:.4g} ADU: background-subtracted data?")
    given = overrides.gain if overrides.gain is not None else params.gain
    if given is not None:
        value = float(given)
    else:
        exptime = overrides.exptime if overrides.exptime is not None else headers.read_exptime(header)[0]
        value, notes = headers.read_gain(header, exptime)
        warnings += notes
    guess = background / single**2 if not subtracted and single > 0 else None
    key, frames = headers.read_frames(header)
    if given is None and value is not None and guess is not None and frames > 1:
        # The mean of N frames has N times the electrons in an ADU; some writers say so in GAIN, some do not.
        if abs(math.log(guess / (value * frames))) < min(0.3, abs(math.log(guess / value))):
            warnings.append(f"the noise is that of the mean of {frames} frames ({key}): gain {value:g} times {frames}")
            value *= frames
    if value is not None and guess is not None:
        poisson = math.sqrt(background / value)
        other = math.sqrt(max(single**2 - poisson**2, 0.0)) * value
        if poisson > 1.5 * single:
            warnings.append(
                f"gain {value:g} e-/ADU predicts a sky noise of {poisson:.4g}, measured {single:.4g} ADU:"
                " stacked, rescaled or resampled data?"
            )
        elif given is None and value >= 20.0 and other > max(300.0, 5.0 * math.sqrt(background * value)):
            warnings.append(f"gain {value:g} e-/ADU makes a noise of {other:.0f} e- besides the sky's: ignored")
            value = None
    if value is None and guess is not None and 0.001 < guess < 1000.0:
        warnings.append(
            f"gain guessed from the sky ({background:.5g}) and its noise ({single:.4g}): {guess:.3g} e-/ADU"
        )
        value = guess
    elif value is None:
        warnings.append("the gain is not known")
    return value


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
