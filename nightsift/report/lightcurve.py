"""The light curves of the campaign's page."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
from astropy.table import Table
from markupsafe import Markup, escape


def utc(mjd: float) -> str:
    """Return date and time to the second, or an empty text where there is none.

    Notes
    -----
    A day is 86400 s here, as in the MJD of headers; `astropy.time` stretches days that end with a leap second.
    """
    try:
        return f"{datetime(1858, 11, 17) + timedelta(seconds=round(86400 * float(mjd))):%Y-%m-%d %H:%M:%S}"
    except (ValueError, OverflowError):
        return ""


def _short(value: float) -> str:
    """A number in few characters: 0.12, 34, 1.2k, 3.4M."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.2g}{name}" if abs(value) < 100 * unit else f"{value / unit:.0f}{name}"
    return f"{value:.2g}" if abs(value) < 100 else f"{value:.0f}"


def light_curve(rows: Table, width: int = 420, height: int = 130) -> Markup:
    """Return an SVG of the difference's flux against time: full dots detected, open ones forced."""
    mjd, flux, error = (np.asarray(rows[name], float) for name in ("mjd", "flux", "fluxerr"))
    # images differ in zero point: in one unit their fluxes can be compared; 23.9 is the AB magnitude of 1 µJy
    scale = 10 ** (0.4 * (23.9 - np.asarray(rows["zp"], float)))
    flux, error = flux * scale, error * scale
    good = np.isfinite(mjd) & np.isfinite(flux) & np.isfinite(error)
    if good.sum() < 2:
        return Markup("")
    left, right, top, bottom = 46, width - 10, 8, height - 22
    first, last = mjd[good].min(), mjd[good].max()
    low, high = min((flux - error)[good].min(), 0), max((flux + error)[good].max(), 0)
    low, high = low - 0.06 * (high - low), high + 0.06 * (high - low)
    span = max(last - first, 1e-5)
    px = left + 6 + (right - left - 12) * (mjd - first) / span
    py, half = bottom - (bottom - top) * (flux - low) / (high - low), (bottom - top) * error / (high - low)
    zero = bottom + (bottom - top) * low / (high - low)
    parts = [
        f'<line class="axis" x1="{left}" x2="{right}" y1="{zero:.1f}" y2="{zero:.1f}"/>',
        f'<line class="axis" x1="{left}" x2="{left}" y1="{top}" y2="{bottom}"/>',
        f'<text x="{left - 5}" y="{zero + 3:.1f}" text-anchor="end">0</text>',
        f'<text x="2" y="{height - 6}">µJy</text>',
        f'<text x="{left + 6}" y="{height - 6}">{utc(first)[:16]}</text>',
        f'<text x="{right}" y="{height - 6}" text-anchor="end">{_lapse(last - first)}</text>',
    ]
    for end, y in ((high, top + 8), (low, bottom)):
        if abs(y - zero) > 14:  # else it would stand upon the 0
            parts.append(f'<text x="{left - 5}" y="{y}" text-anchor="end">{_short(end)}</text>')
    for row in np.flatnonzero(good):
        kind = "dot" if rows["kind"][row] == "detected" else "forced"
        title = escape(f"{rows['image'][row]} {rows['filter'][row]} S/N {rows['snr'][row]:.1f}")
        ends = f'y1="{py[row] - half[row]:.1f}" y2="{py[row] + half[row]:.1f}"'
        parts.append(f'<line class="err" x1="{px[row]:.1f}" x2="{px[row]:.1f}" {ends}/>')
        parts.append(
            f'<circle class="{kind}" cx="{px[row]:.1f}" cy="{py[row]:.1f}" r="3"><title>{title}</title></circle>'
        )
    return Markup(f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="light curve">{"".join(parts)}</svg>')


def _lapse(days: float) -> str:
    for size, unit in ((1.0, "d"), (1 / 24, "h"), (1 / 1440, "min")):
        if days >= size:
            return f"+{days / size:.3g} {unit}"
    return f"+{days * 86400:.0f} s"
