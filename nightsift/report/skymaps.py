"""The maps of the campaign's page: footprints of the images, and the sources."""

from __future__ import annotations

import numpy as np
from astropy.io.fits import Header
from astropy.table import Table
from astropy.wcs import WCS
from markupsafe import Markup

from nightsift.report import positions
from nightsift.sky.sphere import unit_vectors
from nightsift.sky.tangent import deproject, project

_MAPS = 24  # that the page shows at most


def footprint(header: Header, shape: tuple[int, int], points: int = 4) -> np.ndarray:
    """Return the (n, 2) positions along the border of an image, degrees."""
    height, width = shape
    step = np.arange(points) / points
    x = np.concatenate([step, np.ones(points), 1 - step, np.zeros(points)]) * width - 0.5
    y = np.concatenate([np.zeros(points), step, np.ones(points), 1 - step]) * height - 0.5
    return np.column_stack(WCS(header, relax=True).all_pix2world(x, y, 0))


def sky_maps(images: list[tuple[Header, tuple[int, int]]], sources: Table) -> list[dict]:
    """Return an SVG map, with its title, of each part of the sky that images cover without a gap.

    Parameters
    ----------
    images : list of (Header, (ny, nx))
        With the WCS.
    sources : Table
        Schema ``sources``.
    """
    outlines = [footprint(*image) for image in images]
    outlines = [outline for outline in outlines if np.isfinite(outline).all()]
    fields = _fields(outlines)
    ra, dec = (np.asarray(sources[name], float) for name in ("ra", "dec"))
    maps = []
    for number, members in enumerate(fields[:_MAPS]):
        rest = len(fields) - _MAPS if number == _MAPS - 1 else 0
        maps.append(_sky_map([outlines[row] for row in members], ra, dec, max(rest, 0)))
    return maps


def _fields(outlines) -> list[list[int]]:
    """Return groups of outlines whose circles touch, the largest first."""
    vectors = [unit_vectors(*outline.T) for outline in outlines]
    means = np.array([points.mean(axis=0) for points in vectors]).reshape(-1, 3)
    centers = means / np.linalg.norm(means, axis=1, keepdims=True)
    around = zip(vectors, centers, strict=True)
    radii = np.array([np.linalg.norm(points - center, axis=1).max() for points, center in around])
    fields, left = [], np.ones(len(outlines), bool)
    while left.any():
        pending, members = [int(np.flatnonzero(left)[0])], []
        left[pending[0]] = False
        while pending:
            one = pending.pop()
            members.append(one)
            near = left & (np.linalg.norm(centers - centers[one], axis=1) < radii + radii[one])
            left &= ~near
            pending += np.flatnonzero(near).tolist()
        fields.append(sorted(members))
    return sorted(fields, key=lambda members: (-len(members), members))


def _sky_map(outlines, ra, dec, rest, side=340, pad=26):
    mean = unit_vectors(*np.concatenate(outlines).T).mean(axis=0)
    ra0, dec0 = np.degrees(np.arctan2(mean[1], mean[0])) % 360, np.degrees(np.arctan2(mean[2], np.hypot(*mean[:2])))
    planes = [project(outline[:, 0], outline[:, 1], ra0, dec0) for outline in outlines]
    border = np.concatenate(planes)
    border = border[np.isfinite(border)]
    reach = 1.04 * max(np.abs(border.real).max(), np.abs(border.imag).max())
    zoom = (side / 2 - pad) / reach

    def on_map(plane):
        return side / 2 - zoom * plane.real, side / 2 - zoom * plane.imag

    parts = []
    for plane in planes:
        x, y = on_map(plane[np.isfinite(plane)])
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
        parts.append(f'<polygon class="foot" points="{points}"/>')
    x, y = on_map(project(ra, dec, ra0, dec0))
    inside = (np.abs(x - side / 2) < side / 2 - pad + 4) & (np.abs(y - side / 2) < side / 2 - pad + 4)
    parts += [
        f'<circle class="src" cx="{a:.1f}" cy="{b:.1f}" r="4"/>' for a, b in zip(x[inside], y[inside], strict=True)
    ]
    bar = 10 ** np.floor(np.log10(reach * 60)) / 60
    label = f"{bar:g}°" if bar >= 1 else f"{bar * 60:g}′" if bar >= 1 / 60 else f"{bar * 3600:.3g}″"
    length = zoom * bar
    parts.append(f'<line class="src" x1="{pad}" x2="{pad + length:.1f}" y1="{side - 8}" y2="{side - 8}"/>')
    parts.append(f'<text x="{pad + length + 6:.1f}" y="{side - 5}">{label}</text>')
    parts.append(f'<text x="{side / 2}" y="14" text-anchor="middle">N</text><text x="6" y="{side / 2}">E</text>')
    svg = f'<svg viewBox="0 0 {side} {side}" role="img" aria-label="footprints and sources">{"".join(parts)}</svg>'
    center = positions.sexagesimal(*(float(value) for value in deproject(0j, ra0, dec0)))
    title = f"{len(outlines)} image{'s' if len(outlines) > 1 else ''}, {inside.sum()} sources about {center}"
    return {"title": title + (f"; {rest} more fields are not drawn" if rest else ""), "svg": Markup(svg)}
