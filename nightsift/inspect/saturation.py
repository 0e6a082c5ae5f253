"""The level from which on pixels are saturated, and the pixels that are."""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

from nightsift.header import readers
from nightsift.header.cards import get, number

_BIN = 0.02
_HIGH = 50.0  # sigma of the sky above it, below which nothing is saturated
_REPEATED = 0.05  # share of neighbours on stars that have the same value, by chance at most


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
    floor = _HIGH * noise
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


def shared_top(data, bad, background: float, noise: float, step: float) -> float | None:
    """Return the highest value of an image if touching pixels share it, as those do that are cut off; else None.

    Parameters
    ----------
    data : ndarray
        Image, ADU.
    bad : ndarray
        Boolean mask.
    background, noise : float
        Sky and its sigma, ADU.
    step : float
        What all values are multiples of, 0 for none.
    """
    top = data[~bad].max()
    if not top - background > _HIGH * noise:
        return None
    labels, count = ndimage.label(~bad & (data == top), np.ones((3, 3)))
    largest = int(np.bincount(labels.ravel())[1:].max()) if count else 0
    # Where values are coarse, the two pixels of a peak may well agree.
    if largest < (2 if noise > 10.0 * step else 3):
        return None
    bright = ~bad & (data > background + 0.4 * _HIGH * noise) & (data < top)
    both = bright[:, 1:] & bright[:, :-1]
    repeated = np.mean((data[:, 1:] == data[:, :-1])[both]) if both.any() else 0.0
    # An image that was enlarged repeats values everywhere.
    return float(top) if repeated < _REPEATED else None


# Many parameters: the image, what is known of its sky, and its values.
def saturation(data, header, bad, background: float, noise: float, step: float, warnings: list[str]) -> float | None:
    """Return the level from which on pixels are saturated, in ADU, as header and pixels have it; None without one.

    Parameters
    ----------
    data : ndarray
        Image, ADU.
    header : astropy.io.fits.Header
    bad : ndarray
        Boolean mask.
    background, noise : float
        Sky and its sigma, ADU.
    step : float
        What all values are multiples of, 0 for none.
    warnings : list of str
        What is found to say is appended.
    """
    highest = float(data[~bad].max())
    found, why = pile_up(data, bad, background, noise), "where pixel values pile up"
    if found is None:
        found, why = shared_top(data, bad, background, noise, step), "the highest value, which touching pixels share"
    key, value, notes = readers.read_saturation(header)
    warnings += notes
    if value is not None and value <= background + 3.0 * noise:
        warnings.append(f"{key} = {value:g} lies below the sky ({background:.6g}): ignored")
        value = None
    if value is not None and found is not None and value > found * 1.05 and value > highest:
        warnings.append(f"{key} = {value:g}, but saturation shows at {found:.6g}, {why}: that is taken")
        value = found
    if value is not None:
        return value
    limit = _converter_limit(header)
    if found is not None and found != limit:
        warnings.append(f"no saturation level in the header: {found:.6g}, {why}, is taken")
        return found
    return limit


def _converter_limit(header) -> float | None:
    """Return the highest value that the file's integers can have; None for others."""
    bits = number(get(header, "BITPIX"))
    if bits not in (8, 16):
        return None
    scale, zero = (number(get(header, name)) for name in ("BSCALE", "BZERO"))
    # Scaled integers end at the highest value of the image, whatever that was.
    return (255 if bits == 8 else 32767) + (zero or 0.0) if scale in (None, 1.0) else None


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
