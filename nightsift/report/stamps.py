"""The pictures of the campaign's page: cutouts of candidates and small images."""

from __future__ import annotations

import base64
import io

import numpy as np
from astropy.stats import mad_std
from PIL import Image, ImageDraw

from nightsift.plots.figures import DPI, OVERVIEW_BOX, SIZE
from nightsift.statistics import robust_sigma

_ZOOM = 3  # pixels of the page per pixel of a cutout
_GREYS, _RETICLE, _MISSING, _GAP = 128, 128, 129, 130  # greys of the palette, and its entries for other colours
_COLORS = {_RETICLE: (255, 120, 0), _MISSING: (90, 110, 140), _GAP: (205, 212, 220)}


def embed(picture: bytes, kind="png") -> str:
    """Return a picture as the source of an ``img`` element, empty for an empty one."""
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}" if picture else ""


def _grey(plane, low, high, soft):
    """Return 0..255, white = dark sky, in an asinh stretch that is linear up to `soft`."""
    scaled = np.arcsinh((np.nan_to_num(plane, nan=low) - low) / soft) / np.arcsinh((high - low) / soft)
    return (255 * (1 - np.clip(scaled, 0, 1))).astype(np.uint8)


def _sky_range(plane):
    good = plane[np.isfinite(plane)]
    if not len(good):
        return 0.0, 1.0, 1.0
    level = np.median(good)
    sigma = max(mad_std(good), 1e-6 * abs(level)) or 1.0
    return level - 2 * sigma, max(np.percentile(good, 99.7), level + 8 * sigma), 5 * sigma


def stamps(cutout: np.ndarray) -> bytes:
    """Return image, template, difference and S/N side by side with reticles, as PNG.

    Image and template have stretches of their own; the difference is shown about zero to its own noise, the S/N from
    -8 to 8, both white where flux is positive and dark where it is negative.
    """
    panels = []
    for plane in cutout[:2]:
        panels.append(_grey(plane, *_sky_range(plane)))
    finite = cutout[2][np.isfinite(cutout[2])]
    noise = robust_sigma(finite) if len(finite) else 1.0
    peak = (np.max(np.abs(finite)) if len(finite) else 0.0) or 1.0
    for plane, span in ((cutout[2], min(max(8 * noise, 0.5 * peak), peak)), (cutout[3], 8.0)):
        panels.append(np.clip(127.5 * (1 + np.nan_to_num(plane) / span), 0, 255).astype(np.uint8))
    side, gap = cutout.shape[1] * _ZOOM, 6
    result = Image.new("P", (4 * side + 3 * gap, side), _GAP)
    # half of the palette is grey, so that the other colours keep their own entries
    greys = np.repeat(np.linspace(0, 255, _GREYS).astype(int), 3).tolist()
    result.putpalette([*greys, *_COLORS[_RETICLE], *_COLORS[_MISSING], *_COLORS[_GAP]])
    draw = ImageDraw.Draw(result)
    for number, (panel, plane) in enumerate(zip(panels, cutout, strict=True)):
        indices = np.where(np.isfinite(plane), panel // 2, _MISSING)[::-1].astype(np.uint8)
        left = number * (side + gap)
        result.paste(Image.fromarray(indices).resize((side, side), Image.Resampling.NEAREST), (left, 0))
        middle, inner, outer = side // 2, 5 * _ZOOM, 9 * _ZOOM
        draw.line([(left + middle + inner, middle), (left + middle + outer, middle)], fill=_RETICLE, width=2)
        draw.line([(left + middle, middle - outer), (left + middle, middle - inner)], fill=_RETICLE, width=2)
    return _png(result)


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def thumbnail(picture: bytes, shape: tuple[int, int], height: int = 88) -> bytes:
    """Return a small PNG of the image of `shape` that an overview figure shows; nothing for a placeholder."""
    if not picture:
        return b""
    with Image.open(io.BytesIO(picture)) as full:
        width, tall = full.size
        if (width, tall) != tuple(round(side * DPI) for side in SIZE):
            return b""
        left, bottom, right, top = OVERVIEW_BOX
        zoom = min((right - left) * width / shape[1], (top - bottom) * tall / shape[0])
        x, middle = left * width, (1 - (top + bottom) / 2) * tall
        half = zoom * shape[0] / 2
        shown = full.convert("RGB").crop(
            (round(x), round(middle - half), round(x + zoom * shape[1]), round(middle + half))
        )
        shown.thumbnail((2 * height, height))
        return _png(shown.quantize(48))
