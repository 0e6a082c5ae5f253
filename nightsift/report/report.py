"""The campaign's page: what was found, what went wrong, image by image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import resources
from urllib.parse import quote

import numpy as np
from astropy.io.fits import Header
from astropy.table import Table
from jinja2 import Environment
from markupsafe import Markup

from nightsift.parameters import ReportConfig
from nightsift.report import positions, search
from nightsift.report.lightcurve import light_curve, utc
from nightsift.report.skymaps import sky_maps
from nightsift.report.stamps import embed, stamps, thumbnail
from nightsift.sources import known
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
_PROBLEMS = 12  # lines at the top of the page at most


@dataclass(frozen=True)
class Extra:
    """What the page shows of an image beyond its row in the table of images.

    `overview` reads the PNG of that figure, `plots` and `files` the names of those that are there, `reasons` the
    `reasons` of each candidate that vetting set aside, `threshold`, `model` and `completeness` those of its status.
    """

    warnings: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    header: Header | None = None
    shape: tuple[int, int] | None = None
    overview: Callable[[], bytes] = bytes
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
    first: dict[str, int] = {}
    for row in order:
        first.setdefault(owner[row], int(row))
    score = np.nan_to_num(np.asarray(campaign.sources["score"], float))
    snr = np.nan_to_num(np.abs(np.asarray(campaign.sources["best_snr"], float)))
    names = np.asarray(campaign.sources["source"], str)
    ranked = np.lexsort((names, -snr, -np.round(score, 2)))[: params.max_candidates]
    return [(int(row), first[names[row]]) for row in ranked if names[row] in first]


def report(
    campaign: ReportMaterial, params: ReportConfig, cutouts: Callable[[str, list[int]], dict[int, np.ndarray]]
) -> str:
    """Return the HTML of the campaign's page.

    Parameters
    ----------
    campaign : ReportMaterial
    params : ReportConfig
    cutouts : callable
        Reads those of candidates in rows of an image's table: name and rows to arrays of shape (4, n, n) by row,
        image, template, difference and S/N.

    Returns
    -------
    str
        A page without outside resources; links to products are relative to ``campaign/report.html``.
    """
    images = _image_rows(campaign)
    problems = sorted((row for row in images if row["status"] != "ok"), key=lambda row: -row["rank"])
    extras = [extra for _, extra in sorted(campaign.extras.items())]
    template = Environment(autoescape=True, trim_blocks=True).from_string(_text("page.html.j2"))
    return template.render(
        style=Markup(_text("page.css")),
        script=Markup(_text("page.js")),
        summary=_summary(campaign),
        problems=problems[:_PROBLEMS],
        more_problems=max(len(problems) - _PROBLEMS, 0),
        cards=_cards(campaign, cutouts, params),
        images=images,
        uncatalogued=positions.rows(campaign.uncatalogued, params.max_candidates),
        maps=sky_maps(
            [(extra.header, extra.shape) for extra in extras if extra.header is not None and extra.shape],
            campaign.sources,
        ),
        aside=_aside(_texts_aside(campaign)),
        complete=search.completeness_svg([extra.completeness for extra in extras if extra.completeness]),
        filters=search.by_filter(campaign.images),
        model=search.model_summary({name: extra.model for name, extra in campaign.extras.items()}),
    )


def _text(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


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


def _format(value, form, unit=""):
    return f"{value:{form}}{unit}" if np.isfinite(value) else ""


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
                "thumbnail": embed(thumbnail(extra.overview(), extra.shape)) if extra.shape else "",
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
    count, alone = Counter[str](), Counter[str]()
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
    curves: dict[str, list[int]] = {}
    for row, name in enumerate(np.asarray(campaign.lightcurves["source"], str)):
        curves.setdefault(name, []).append(row)
    cards, best_first = [], best_sources(campaign, params)
    pictures = _pictures(campaign, cutouts, [best for _, best in best_first])
    for number, best in best_first:
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
                "mag": f"{candidate['filter'] or 'mag'} = {mag} ± {error}" if mag else "faded",
                "n_detections": int(source["n_detections"]),
                "n_images": int(source["n_images"]),
                "when": first if first == last else f"{first} to {last}",
                "stamps": embed(pictures.get(best, b"")),
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


def _pictures(campaign, cutouts, candidates) -> dict[int, bytes]:
    """Return the stamps of candidates; the cutouts of an image are read at once."""
    wanted: dict[str, list[int]] = {}
    for candidate in candidates:
        wanted.setdefault(str(campaign.candidates["image"][candidate]), []).append(candidate)
    pictures: dict[int, bytes] = {}
    for image, mine in wanted.items():
        rows = [int(campaign.candidates["row"][candidate]) for candidate in mine]
        found = cutouts(image, rows)
        pictures |= {one: stamps(found[row]) for one, row in zip(mine, rows, strict=True) if row in found}
    return pictures
