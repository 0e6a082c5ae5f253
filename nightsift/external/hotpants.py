"""Image subtraction by the program HOTPANTS (Becker 2015, ascl:1504.004), where it is installed."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits

from nightsift.errors import Rejected
from nightsift.external import program
from nightsift.io.fits import read_image
from nightsift.statistics import SIGMA_PER_MAD
from nightsift.subtract.images import Layer

PROGRAM = "hotpants"
SPOILT = 0x8000 | 0x80 | 0x3F  # of the output mask: without a value, or from masked, saturated or unconvolved pixels


@dataclass(frozen=True)
class Subtracted:
    """What the program made, on the flux scale of the image.

    Attributes
    ----------
    difference, noise : 2-D float32 arrays
        Image minus convolved template, and standard deviation of its pixels, ADU; 0 where bad.
    bad : 2-D bool array
        Pixels without a trustworthy value.
    kernel_sum : float
        Flux of a star in the image over that in the template.
    """

    difference: np.ndarray
    noise: np.ndarray
    bad: np.ndarray
    kernel_sum: float


def hotpants_available() -> bool:
    """Tell whether the program is on the PATH."""
    return shutil.which(PROGRAM) is not None


def run_hotpants(image: Layer, template: Layer, x, y, order: int, seconds: float) -> Subtracted:
    """Subtract a template, convolved, from an image on the same pixels.

    Parameters
    ----------
    image, template : nightsift.subtract.images.Layer
        Their noise with the sources' photons; more bad pixels are those where data or noise are not finite.
    x, y : 1-D arrays
        Positions of the stars that the kernel may be fitted to; the program adds others where it has too few.
    order : int
        Of the variation of kernel and background over the image.
    seconds : float
        Time after which the program is ended.

    Raises
    ------
    CampaignError
        If there is no such program.
    Rejected
        If there are no stars or good pixels, or if the program fails, takes too long, fits no kernel or leaves
        nothing that can be read.

    Notes
    -----
    Radii and Gaussians of the kernel follow the widths of the PSFs as in STDPipe, noise images and masks are given.
    """
    path = program.find(PROGRAM)
    if not len(x):
        raise Rejected(f"{PROGRAM} has no star to fit its kernel to")
    with tempfile.TemporaryDirectory(prefix="nightsift-") as name:
        folder = Path(name)
        limits = [_write(folder, *pair) for pair in (("image", image), ("template", template))]
        np.savetxt(folder / "stars.xy", np.column_stack([x, y]) + 1, fmt="%.2f")
        command = [path, *_options(image, template, limits, order)]
        message = program.run(command, folder, seconds)
        return _read(folder, np.shape(image.data), message)


def _write(folder: Path, name: str, side: Layer) -> tuple[float, float]:
    """Write an image, its noise and its mask, all finite; return the limits of its valid values."""
    data, noise = np.asarray(side.data, np.float32), np.asarray(side.noise, np.float32)
    good = np.isfinite(data) & np.isfinite(noise) & (noise > 0) & ~side.bad
    if not good.any():
        raise Rejected(f"the {name} has no good pixel")
    # The program stalls on what is not finite, masked or not.
    data = np.where(np.isfinite(data), data, 0)
    noise = np.where(np.isfinite(noise) & (noise > 0), noise, np.median(noise[good]))
    fits.writeto(folder / f"{name}.fits", data)
    fits.writeto(folder / f"{name}_noise.fits", noise)
    fits.writeto(folder / f"{name}_mask.fits", (~good).astype(np.int16))
    values = data[good]
    middle, highest = float(np.median(values)), float(values.max())
    scatter = max(SIGMA_PER_MAD * float(np.median(np.abs(values - middle))), float(np.median(noise[good])))
    return middle - 10 * scatter, highest + 0.01 * (highest - float(values.min()))


def _options(image: Layer, template: Layer, limits, order: int) -> list[str]:
    (low, high), (template_low, template_high) = limits
    width = max(1.0, abs(image.fwhm**2 - template.fwhm**2) ** 0.5 / 2.35)
    broad = max(image.fwhm, template.fwhm)
    options = {
        "inim": "image.fits",
        "ini": "image_noise.fits",
        "imi": "image_mask.fits",
        "tmplim": "template.fits",
        "tni": "template_noise.fits",
        "tmi": "template_mask.fits",
        "outim": "difference.fits",
        "oni": "noise.fits",
        "omi": "mask.fits",
        "ssf": "stars.xy",
        "il": f"{low:.7g}",
        "iu": f"{high:.7g}",
        "iuk": f"{high:.7g}",
        "tl": f"{template_low:.7g}",
        "tu": f"{template_high:.7g}",
        "tuk": f"{template_high:.7g}",
        "ig": f"{image.gain or 1.0:.7g}",
        "tg": f"{template.gain or 1.0:.7g}",
        "n": "i",
        "c": "t",
        "ko": str(order),
        "bgo": str(order),
        "r": f"{np.ceil(3 * broad):.0f}",
        "rss": f"{np.ceil(4 * broad):.0f}",
        "v": "0",
    }
    gaussians = ["3", "6", f"{width / 2:.4f}", "4", f"{width:.4f}", "2", f"{2 * width:.4f}"]
    return [part for key, value in options.items() for part in (f"-{key}", value)] + ["-ng", *gaussians]


def _read(folder: Path, shape, message: str) -> Subtracted:
    planes = {}
    for name in ("difference", "noise", "mask"):
        try:
            planes[name] = read_image(folder / f"{name}.fits")
        except (FileNotFoundError, Rejected) as error:
            raise Rejected(f"{PROGRAM} left no readable {name} ({error}); it said: {message}") from error
        if planes[name].data.shape != shape:
            raise Rejected(f"{PROGRAM} left a {name} of another size; it said: {message}")
    # Without a kernel it reports success, too, and writes an empty image.
    try:
        kernel_sum = float(planes["difference"].header["KSUM00"])
    except (KeyError, ValueError, TypeError):
        raise Rejected(f"{PROGRAM} fitted no kernel; it said: {message}") from None
    difference, noise = planes["difference"].data, planes["noise"].data
    bad = (np.nan_to_num(planes["mask"].data, nan=SPOILT).astype(np.int32) & SPOILT) != 0
    bad |= ~(np.isfinite(difference) & (noise > 0) & np.isfinite(noise))
    if bad.all() or not np.isfinite(kernel_sum):
        raise Rejected(f"{PROGRAM} left no good pixel; it said: {message}")
    blank = np.float32(0)
    return Subtracted(np.where(bad, blank, difference), np.where(bad, blank, noise), bad, kernel_sum)
