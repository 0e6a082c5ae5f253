"""An image file, together with what the sample sheet and the configuration's instruments say of it."""

from __future__ import annotations

import time
from dataclasses import dataclass

from nightsift.header import instruments
from nightsift.header.header import Overrides
from nightsift.io.fits import Image, read_image

_OVERRIDES = ("gain", "readnoise", "saturation", "exptime", "time", "time_is", "filter", "observatory")
_HINTS = ("ra", "dec", "radius", "pixscale")


@dataclass(frozen=True)
class UserImage:
    """An image, what is said of it over its header, where it may be on the sky, and what is odd about all that."""

    image: Image
    overrides: Overrides
    hints: dict
    warnings: tuple[str, ...] = ()


def read_exposure(path, extra: dict) -> UserImage:
    """Read an image.

    Parameters
    ----------
    path : path-like
    extra : dict
        The image's line of the sample sheet, and ``instruments`` of the configuration.

    Raises
    ------
    nightsift.errors.Rejected
        As `nightsift.io.fits.read_image`.
    """
    image = read_image(path)
    given = instruments.given(extra.get("instruments", []), image.header)
    if given.get("hdu", image.hdu) != image.hdu:
        image = read_image(path, given["hdu"])
    known, notes = instruments.settings(given, image.header)
    # A time of the sample sheet is the start, whatever the instrument's card tells.
    known |= {key: value for key, value in extra.items() if key != "instruments"}
    known |= {"time_is": "start"} if "time" in extra else {}
    overrides = Overrides(**{key: known[key] for key in _OVERRIDES if key in known}, now=time.time() / 86400 + 40587)
    return UserImage(image, overrides, {key: known[key] for key in _HINTS if key in known}, tuple(notes))
