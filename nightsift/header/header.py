"""What is known of an image apart from its pixels: from its header, and from what the user says over it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from astropy.wcs import WCS

from nightsift.header import readers
from nightsift.header.cards import get
from nightsift.header.filters import identify
from nightsift.header.times import parse_time, read_time
from nightsift.header.wcs_cards import repair_wcs


@dataclass(frozen=True)
class Overrides:
    """What the sample sheet and `instruments` say of an image, over its header; None = not given.

    Attributes
    ----------
    gain : float or None
        e-/ADU.
    saturation : float or None
        ADU.
    exptime : float or None
        Seconds.
    time : str or None
        ISO or MJD, UTC.
    filter : str or None
    readnoise : float or None
        Electrons.
    time_is : str
        What `time` is of the exposure: ``start``, ``middle`` or ``end``.
    observatory : str or None
        IAU code.
    now : float or None
        MJD, for telling times of observation that lie in the future.
    """

    gain: float | None = None
    saturation: float | None = None
    exptime: float | None = None
    time: str | None = None
    filter: str | None = None
    readnoise: float | None = None
    time_is: str = "start"
    observatory: str | None = None
    now: float | None = None


def described(header, shape, overrides: Overrides, warnings: list[str]) -> dict:
    """Return what of `nightsift.inspect.inspect.Inspection` the pixels have no say in."""
    exptime, notes = (overrides.exptime, []) if overrides.exptime is not None else readers.read_exptime(header)
    warnings += notes
    if overrides.filter is not None:
        name, meant = overrides.filter, identify(overrides.filter)
        band = meant.band
        notes = [] if meant.kind in ("band", "none") else [f"filter {name!r} given for the image is not known"]
    else:
        band, name, notes = readers.read_filter(header)
    warnings += notes
    readnoise, notes = readers.read_readnoise(header) if overrides.readnoise is None else (overrides.readnoise, [])
    mjd = _time(header, overrides, exptime, warnings)
    cards, more = repair_wcs(header, shape)
    warnings += notes + more
    ra: float | None
    dec: float | None
    scale: float | None
    if cards is not None:
        ra, dec = (float(v) for v in WCS(cards).all_pix2world((shape[1] - 1) / 2.0, (shape[0] - 1) / 2.0, 0))
        matrix = [cards[f"CD{row}_{column}"] for row in (1, 2) for column in (1, 2)]
        scale = 3600.0 * math.sqrt(abs(matrix[0] * matrix[3] - matrix[1] * matrix[2]))
    else:
        ra, dec, notes = readers.read_pointing(header)
        scale, more = readers.read_scale(header)
        warnings += notes + more
    return {
        **{"mjd": mjd, "exptime": exptime, "readnoise": readnoise, "filter": band, "filter_name": name},
        **{"wcs_header": cards, "pixscale": scale, "ra": ra, "dec": dec},
        "observatory": overrides.observatory or readers.read_observatory(header),
    }


def _time(header, overrides: Overrides, exptime: float | None, warnings: list[str]) -> float | None:
    """Return the middle of the exposure, as given or in the header."""
    if overrides.time is None:
        mjd, notes = read_time(header, exptime, readers.read_frames(header)[1], overrides.now)
        warnings += notes
        return mjd
    given, has_clock = parse_time(overrides.time)
    if given is None or not has_clock:
        warnings.append(f"time {overrides.time!r} given for the image is no date with a time of day, nor MJD")
        return None
    return given + {"start": 0.5, "middle": 0.0, "end": -0.5}[overrides.time_is] * (exptime or 0.0) / 86400.0


def data_section(header, shape, warnings: list[str]):
    """Return the slices of the section that holds the sky, or None when it is the whole image."""
    ny, nx = shape
    for key in ("TRIMSEC", "DATASEC"):
        value = get(header, key)
        match = re.match(r"^\[\s*(\d+)\s*:\s*(\d+)\s*,\s*(\d+)\s*:\s*(\d+)\s*\]$", str(value)) if value else None
        if not match:
            continue
        x1, x2, y1, y2 = (int(part) for part in match.groups())
        x1, x2, y1, y2 = min(x1, x2), max(x1, x2), min(y1, y2), max(y1, y2)
        if x1 < 1 or y1 < 1 or x2 > nx or y2 > ny:
            warnings.append(f"{key} {value} reaches beyond the image ({nx} x {ny}): it is that of the untrimmed frame")
        elif (x2 - x1 + 1) * (y2 - y1 + 1) < 0.25 * nx * ny:
            warnings.append(f"{key} {value} leaves less than a quarter of the image: ignored")
        elif (x1, y1, x2, y2) != (1, 1, nx, ny):
            return slice(y1 - 1, y2), slice(x1 - 1, x2)
    return None
