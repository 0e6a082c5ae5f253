"""The campaign's page: what was found, what went wrong, image by image."""

from __future__ import annotations

import base64
import io
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from urllib.parse import quote

import numpy as np
from astropy.io.fits import Header
from astropy.table import Table
from astropy.wcs import WCS
from jinja2 import Environment
from markupsafe import Markup, escape
from PIL import Image, ImageDraw

from nightsift.parameters import ReportConfig
from nightsift.plots.figures import DPI, OVERVIEW_BOX, SIZE
from nightsift.report import positions, search
from nightsift.report.page import PAGE, SCRIPT, STYLE
from nightsift.sky.sphere import unit_vectors
from nightsift.sky.tangent import deproject, project
from nightsift.sources import known
from nightsift.statistics import SIGMA_PER_MAD
from nightsift.transients import modelcard

STATUSES = ("ok", "degraded", "rejected", "error")
PLOTS = {
    "overview": "image",
    "background": "sky",
    "shape": "shape",
    "psf": "psf",
    "fwhm": "fwhm",
    "zeropoint": "zp",
    "astrometry": "astrom",
    "limit": "limit",
    "realbogus": "real",
    "completeness": "found",
}
FILES = (
    *("objects", "difference", "template", "mask", "candidates", "candidates_all"),
    *("uncatalogued", "uncatalogued_all", "wcs"),
)
_PROBLEMS = 12
_MAPS = 24
_ZOOM = 3
_GREYS, _RETICLE, _MISSING, _GAP = 128, 128, 129, 130
_COLORS = {_RETICLE: (255, 120, 0), _MISSING: (90, 110, 140), _GAP: (205, 212, 220)}


@dataclass(frozen=True)
class Extra:
    """What the page shows of an image beyond its row in the table of images.

    `thumbnail` is a PNG of the overview, `plots` and `files` the names of those that are there, `reasons` the
    `reasons` of each candidate that vetting set aside, `threshold`, `model` and `completeness` those of its status.
    """

    warnings: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    header: Header | None = None
    shape: tuple[int, int] | None = None
    thumbnail: bytes = b""
    plots: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    threshold: float | None = None
    model: dict = field(default_factory=dict)
    completeness: dict = field(default_factory=dict)


@dataclass(frozen=True)
class ReportMaterial:
    """The tables of a campaign by their schemas, and the extras by image."""

    images: Table
    candidates: Table
    sources: Table
    lightcurves: Table
    uncatalogued: Table
    extras: dict[str, Extra]


def best_sources(campaign: ReportMaterial, params: ReportConfig) -> list[tuple[int, int]]:
    """Return rows (source, its best candidate) of those the page shows: by score, then S/N.

    The best candidate of a source is the one with the highest S/N.
    """
    owner = np.asarray(campaign.candidates["source"], str)
    strength = np.nan_to_num(np.abs(np.asarray(campaign.candidates["snr"], float)))
    order = np.lexsort((np.asarray(campaign.candidates["image"], str), -strength, owner))
    first = {}
    for row in order:
        first.setdefault(owner[row], int(row))
    score = np.nan_to_num(np.asarray(campaign.sources["score"], float))
    snr = np.nan_to_num(np.abs(np.asarray(campaign.sources["best_snr"], float)))
    names = np.asarray(campaign.sources["source"], str)
    ranked = np.lexsort((names, -snr, -np.round(score, 2)))[: params.max_candidates]
    return [(int(row), first[names[row]]) for row in ranked if names[row] in first]


def page(campaign: ReportMaterial, cutouts: dict[int, np.ndarray], params: ReportConfig) -> str:
    """Return the HTML of the page.

    Parameters
    ----------
    campaign : Campaign
    cutouts : dict
        Arrays of shape (4, n, n), image, template, difference and S/N, by row of the table of candidates.
    params : nightsift.parameters.Report

    Returns
    -------
    str
        A page without outside resources; links to products are relative to ``campaign/report.html``.
    """
    images = _image_rows(campaign)
    problems = sorted((row for row in images if row["status"] != "ok"), key=lambda row: -row["rank"])
    texts = _texts_aside(campaign)
    depths = [extra.completeness for _, extra in sorted(campaign.extras.items()) if extra.completeness]
    environment = Environment(autoescape=True, trim_blocks=True)
    return environment.from_string(PAGE).render(
        style=Markup(STYLE),
        script=Markup(SCRIPT),
        summary=_summary(campaign),
        problems=problems[:_PROBLEMS],
        more_problems=max(len(problems) - _PROBLEMS, 0),
        cards=_cards(campaign, cutouts, params),
        images=images,
        uncatalogued=positions.rows(campaign.uncatalogued, params.max_candidates),
        maps=sky_maps(campaign),
        aside=_aside(texts),
        complete=search.completeness_svg(depths),
        filters=search.by_filter(campaign.images),
        model=search.model_summary({name: extra.model for name, extra in campaign.extras.items()}),
    )


def _summary(campaign):
    tally = Counter(str(status) for status in campaign.images["status"])
    mjd = np.asarray(campaign.images["mjd"], float)
    mjd = mjd[np.isfinite(mjd)]
    span = f"{utc(mjd.min())} to {utc(mjd.max())} UTC" if len(mjd) else "no image has a time"
    return {
        "n_images": len(campaign.images),
        "n_candidates": int(np.sum(np.asarray(campaign.candidates["is_real"], bool))),
        "n_sources": len(campaign.sources),
        "n_uncatalogued": len(np.unique(np.asarray(campaign.uncatalogued["source"], str))),
        "n_aside": len(_texts_aside(campaign)),
        "statuses": [(status, tally[status]) for status in STATUSES],
        "span": span,
        "filters": sorted({str(name) for name in campaign.images["filter"]} - {""}),
    }


def utc(mjd: float) -> str:
    """Return date and time to the second, or an empty text where there is none."""
    try:
        return f"{datetime(1858, 11, 17) + timedelta(seconds=round(86400 * float(mjd))):%Y-%m-%d %H:%M:%S}"
    except (ValueError, OverflowError):
        return ""


def _format(value, form, unit=""):
    return f"{value:{form}}{unit}" if np.isfinite(value) else ""


def _embed(picture: bytes, kind="png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}" if picture else ""


def _image_rows(campaign):
    rows = []
    for row in campaign.images:
        name, extra = str(row["image"]), campaign.extras.get(str(row["image"]), Extra())
        status, base = str(row["status"]), f"../images/{quote(name)}"
        when = utc(row["mjd"])
        zp_title = f"{row['band']} ± {row['zp_err']:.4f} mag" if np.isfinite(row["zp_err"]) else ""
        if np.isfinite(row["color_term"]):
            zp_title += f", colour term {row['color_term']:.3f}"
        m50_title = f"± {row['m50_err']:.2f} mag" if np.isfinite(row["m50_err"]) else ""
        cells = [
            (row["mjd"], ".6f", when[:16], f"MJD {row['mjd']:.5f}" if when else ""),
            (row["fwhm"], ".6f", _format(row["fwhm"], ".2f", " px"), ""),
            (row["zp"], ".6f", _format(row["zp"], ".3f"), zp_title),
            (row["maglim"], ".6f", _format(row["maglim"], ".2f"), "limit of the objects"),
            (row["m50"], ".6f", _format(row["m50"], ".2f"), m50_title),
            (row["m90"], ".6f", _format(row["m90"], ".2f"), ""),
            (row["astrom_rms"], ".6f", _format(1000 * row["astrom_rms"], ".0f", " mas"), ""),
            (row["n_objects"], "d", str(row["n_objects"]), ""),
            (row["n_candidates"], "d", str(row["n_candidates"]), ""),
            (row["n_uncatalogued"], "d", str(row["n_uncatalogued"]), ""),
        ]
        rows.append(
            {
                "image": name,
                "anchor": quote(name),
                "status": status,
                "rank": STATUSES.index(status) if status in STATUSES else len(STATUSES),
                "stage": str(row["stage"]),
                "reason": str(row["reason"]),
                "warnings": extra.warnings,
                "filter": str(row["filter"]),
                "cells": [
                    {"value": _format(value, form), "text": text, "title": title} for value, form, text, title in cells
                ],
                "threshold": _format(extra.threshold or np.nan, ".2f"),
                "found": search.thumbnail(extra.completeness, extra.threshold),
                "found_plot": f"{base}/plots/completeness.png" if "completeness" in extra.plots else "",
                "found_value": _format(row["snr50"], ".6f"),
                "model": modelcard.line(extra.model),
                "auc": _format(np.nan if extra.model.get("auc") is None else extra.model["auc"], ".3f"),
                "thumbnail": _embed(extra.thumbnail),
                "overview": f"{base}/plots/overview.png",
                "plots": [(plot, PLOTS[plot], f"{base}/plots/{plot}.png") for plot in PLOTS if plot in extra.plots],
                "files": [(file, f"{base}/{file}.fits") for file in FILES if file in extra.files]
                + [("status", f"{base}/status.json")] * ("status" in extra.files),
            }
        )
    return rows


def _texts_aside(campaign):
    """Return the reasons of all candidates that were set aside, by the images' vetting or as known objects."""
    known_ones = ~np.asarray(campaign.candidates["is_real"], bool)
    texts = [text for extra in campaign.extras.values() for text in extra.reasons]
    return texts + [str(text) for text in campaign.candidates["reasons"][known_ones]]


def _aside(texts):
    count, alone = Counter(), Counter()
    for text in texts:
        # What stands after a colon is which object it is.
        reasons = sorted({part.partition(":")[0].strip() for part in text.split(",")} - {""}) or ["not given"]
        count.update(reasons)
        alone.update(reasons if len(reasons) == 1 else [])
    ordered = sorted(count, key=lambda reason: (-count[reason], reason))
    return [
        {"reason": name, "count": count[name], "alone": alone[name], "hint": search.REASONS.get(name, "")}
        for name in ordered
    ]


def _cards(campaign, cutouts, params):
    curves = {}
    for row, name in enumerate(np.asarray(campaign.lightcurves["source"], str)):
        curves.setdefault(name, []).append(row)
    cards = []
    for number, best in best_sources(campaign, params):
        source, candidate = campaign.sources[number], campaign.candidates[best]
        name, image = str(source["source"]), str(candidate["image"])
        ra, dec = float(source["ra"]), float(source["dec"])
        error = _format(source["best_mag_err"], ".2f")
        mag = _format(source["best_mag"], ".2f")
        first, last = utc(source["first_mjd"])[:16], utc(source["last_mjd"])[:16]
        cards.append(
            {
                "source": name,
                "label": str(source["label"]),
                "score": search.probability(source["score"]),
                "snr": _format(source["best_snr"], ".1f"),
                "mag": f"{candidate['filter'] or 'mag'} = {mag} ± {error}" if mag else "light has gone",
                "n_detections": int(source["n_detections"]),
                "n_images": int(source["n_images"]),
                "when": first if first == last else f"{first} to {last}",
                "stamps": _embed(stamps(cutouts[best])) if best in cutouts else "",
                "difference": f"../images/{quote(image)}/difference.fits",
                "curve": light_curve(campaign.lightcurves[curves.get(name, [])]),
                "position": positions.sexagesimal(ra, dec),
                "details": ", ".join(
                    f"{label} {_format(candidate[key], '.2f')}"
                    for label, key in (("χ²", "chi2"), ("sharpness", "sharpness"), ("dipole", "dipole"))
                ),
                "known": known.lines(source),
                "image": image,
                "anchor": quote(image),
                "pixel": f"{candidate['x']:.1f}, {candidate['y']:.1f}",
                **positions.links(ra, dec),
            }
        )
    return cards


def _grey(plane, low, high, soft):
    """Return 0..255, white = dark sky, in an asinh stretch that is linear up to `soft`."""
    scaled = np.arcsinh((np.nan_to_num(plane, nan=low) - low) / soft) / np.arcsinh((high - low) / soft)
    return (255 * (1 - np.clip(scaled, 0, 1))).astype(np.uint8)


def _sky_range(plane):
    good = plane[np.isfinite(plane)]
    if not len(good):
        return 0.0, 1.0, 1.0
    level = np.median(good)
    sigma = max(SIGMA_PER_MAD * np.median(np.abs(good - level)), 1e-6 * abs(level)) or 1.0
    return level - 2 * sigma, max(np.percentile(good, 99.7), level + 8 * sigma), 5 * sigma


def stamps(cutout: np.ndarray) -> bytes:
    """Return image, template, difference and S/N side by side with reticles, as PNG.

    Image and template have stretches of their own; the difference is shown about zero to its own noise, the S/N from
    -8 to 8, both white where there is light and dark where it is missing.
    """
    panels = []
    for plane in cutout[:2]:
        panels.append(_grey(plane, *_sky_range(plane)))
    finite = cutout[2][np.isfinite(cutout[2])]
    noise = SIGMA_PER_MAD * np.median(np.abs(finite)) if len(finite) else 1.0
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


def footprint(header: Header, shape: tuple[int, int], points: int = 4) -> np.ndarray:
    """Return the (n, 2) positions along the border of an image, degrees."""
    height, width = shape
    step = np.arange(points) / points
    x = np.concatenate([step, np.ones(points), 1 - step, np.zeros(points)]) * width - 0.5
    y = np.concatenate([np.zeros(points), step, np.ones(points), 1 - step]) * height - 0.5
    return np.column_stack(WCS(header, relax=True).all_pix2world(x, y, 0))


def sky_maps(campaign: ReportMaterial) -> list[dict]:
    """Return an SVG map, with its title, of each part of the sky that images cover without a gap."""
    shown = [extra for _, extra in sorted(campaign.extras.items()) if extra.header is not None and extra.shape]
    outlines = [footprint(extra.header, extra.shape) for extra in shown]
    outlines = [outline for outline in outlines if np.isfinite(outline).all()]
    fields = _fields(outlines)
    ra, dec = (np.asarray(campaign.sources[name], float) for name in ("ra", "dec"))
    maps = []
    for number, members in enumerate(fields[:_MAPS]):
        rest = len(fields) - _MAPS if number == _MAPS - 1 else 0
        maps.append(_sky_map([outlines[row] for row in members], ra, dec, max(rest, 0)))
    return maps


def _fields(outlines) -> list[list[int]]:
    """Return groups of outlines whose circles touch, the largest first."""
    vectors = [unit_vectors(*outline.T) for outline in outlines]
    centers = [points.mean(axis=0) / np.linalg.norm(points.mean(axis=0)) for points in vectors]
    radii = [np.linalg.norm(points - center, axis=1).max() for points, center in zip(vectors, centers, strict=True)]
    fields, left = [], np.ones(len(outlines), bool)
    centers, radii = np.array(centers).reshape(-1, 3), np.array(radii)
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
    planes = [project(*outline.T, ra0, dec0) for outline in outlines]
    border = np.concatenate(planes)
    border = border[np.isfinite(border)]
    reach = 1.04 * max(np.abs(border.real).max(), np.abs(border.imag).max())
    zoom = (side / 2 - pad) / reach

    def place(plane):
        return side / 2 - zoom * plane.real, side / 2 - zoom * plane.imag

    parts = []
    for plane in planes:
        x, y = place(plane[np.isfinite(plane)])
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
        parts.append(f'<polygon class="foot" points="{points}"/>')
    x, y = place(project(ra, dec, ra0, dec0))
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
