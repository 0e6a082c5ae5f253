"""What the campaign's page says of the search: how complete it is, and how well it tells real from bogus."""

from __future__ import annotations

import numpy as np
from astropy.table import Table
from markupsafe import Markup, escape

from nightsift.fakes.completeness import efficiency, interval
from nightsift.parameters import KINDS
from nightsift.transients.modelcard import campaign_card
from nightsift.transients.moving import OLD_PLACE

GROUPS = {"off_hosts": "on blank sky", "on_hosts": "on galaxies", "beside_stars": "beside stars"}
SHOWN = {"off_hosts": "sky", "on_hosts": "host"}  # in curves, with their classes of style
SNR = (3.0, 100.0)  # range of the curves of completeness
# What a person sees where vetting gives a reason; see docs/stages.md.
REASONS = {
    "faint": "S/N of the fit below the threshold",
    "masked centre": "the central pixel is masked",
    "masked": "too much of the PSF is masked",
    "on a trail": "part of a trail across the image",
    "hole in the template": "the template has a hole there, and the image itself shows no source",
    "hole in the image": "the image has a hole there",
    "on a line": "one of several on a row, a column or a line: a bleed, a charge trail or a streak",
    "extended": "wider and flatter than any point source",
    "negative without template source": "negative flux where the template shows no source",
    "residual of a star": "a small fraction of the template's flux there",
    "beside a bright star": "a small fraction of the flux of a star near it",
    "saturated": "a saturated core that has gained too little flux",
    "shift of the template": "a small shift of the template explains it as well as a source does",
    "unlike a point source": "improbable, nothing in particular stands out",
    "poor PSF fit": "large chi2 of the PSF fit",
    "too sharp": "more flux in the core than the PSF has: a cosmic ray or a hot pixel",
    "broader than PSF": "less flux in the core than the PSF has",
    "square": "a block of equal pixels fits better than the PSF: hot pixels or a bad line",
    "elongated": "longer than the PSF, or flux along a line through it",
    "background gradient": "the level of the surroundings makes up much of the flux",
    "dipole": "flux of the other sign beside it",
    "shifted": "a small shift of the template explains it",
    "noisy surroundings": "more noise around it than expected",
    "too wide": "wider than the PSF",
    "too narrow": "narrower than the PSF",
    OLD_PLACE: "a star of the catalogue stood there, which is listed where it is now",
    **{f"known {kind}": "which one stands in candidates.ecsv" for kind in KINDS},
}


def probability(value: float) -> str:
    """Return a probability with two decimals that is never rounded to certainty."""
    if not np.isfinite(value):
        return ""
    return "> 0.99" if value > 0.995 else "< 0.01" if value < 0.005 else f"{value:.2f}"


def thumbnail(completeness: dict, threshold: float | None, width: int = 84, height: int = 44) -> Markup:
    """Return a small SVG of an image's completeness against the logarithm of S/N; empty where it is not known."""
    position, grid = _frame((2, width - 2), (4, height - 4)), np.geomspace(*SNR, 40)
    parts = []
    for group, style in SHOWN.items():
        if group in completeness:
            parts.append(_line(position, style, grid, _curve(completeness[group], grid)))
    if not parts:
        return Markup("")
    left, right = position(SNR[0], 0)[0], position(SNR[1], 0)[0]
    levels = [(position(0, level)[1], level) for level in (0, 0.5, 1)]
    axes = [f'<line class="axis" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>' for y, _ in levels]
    if threshold:
        x = position(threshold, 0)[0]
        axes.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="4" y2="{height - 4}"/>')
    svg = "".join([*axes, *parts])
    return Markup(f'<svg class="thumb" viewBox="0 0 {width} {height}" role="img" aria-label="completeness">{svg}</svg>')


def _frame(across, down):
    """Return the function that puts S/N and efficiency in a picture."""
    low, high = np.log(SNR)

    def position(snr, fraction):
        part = (np.log(np.maximum(snr, 1e-3)) - low) / (high - low)
        return across[0] + (across[1] - across[0]) * part, down[1] - (down[1] - down[0]) * np.asarray(fraction, float)

    return position


def _curve(group: dict, grid) -> np.ndarray:
    return efficiency(grid, *(group["snr"][name] for name in ("top", "middle", "width")))


def _line(position, style, grid, fraction):
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(*position(grid, fraction), strict=True))
    return f'<polyline class="curve {style}" points="{points}"/>'


def pooled_bins(found: list[dict], group: str) -> np.ndarray:
    """Return lower edge, upper edge, fakes, and fakes found of the bins of all images: an (n, 4) array."""
    bins: dict[tuple[float, float], np.ndarray] = {}
    for completeness in found:
        for low, high, put, passed in completeness.get(group, {}).get("snr", {}).get("bins", ()):
            bins[low, high] = bins.get((low, high), 0) + np.array([put, passed])
    return np.array([[*edges, *counts] for edges, counts in sorted(bins.items())], float).reshape(-1, 4)


def completeness_svg(found: list[dict], width: int = 690, height: int = 300) -> Markup:
    """Return an SVG of the fakes of all images: fractions found by S/N, and the median and range of their curves.

    Parameters
    ----------
    found : list of dict
        ``completeness`` of the images' status, those that have it.
    width, height : int
        Pixels.
    """
    if not found:
        return Markup("")
    left, right, top, bottom = 40, width - 14, 10, height - 32
    position = _frame((left, right), (top, bottom))
    parts = []
    for level in (0, 0.25, 0.5, 0.75, 1):
        y = position(1, level)[1]
        parts.append(f'<line class="axis" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{left - 5}" y="{y + 3:.1f}" text-anchor="end">{level:.0%}</text>')
    for snr in (3, 5, 10, 20, 50, 100):
        x = position(snr, 0)[0]
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 4}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 15}" text-anchor="middle">{snr}</text>')
    parts.append(f'<text x="{(left + right) / 2}" y="{height - 4}" text-anchor="middle">S/N in the difference</text>')
    for number, (group, style) in enumerate(SHOWN.items()):
        parts += _group(position, found, group, style)
        bins = pooled_bins(found, group)
        label = f"{GROUPS[group]}: {bins[:, 3].sum():.0f} of {bins[:, 2].sum():.0f} found"
        y = bottom - 30 + 16 * number
        parts.append(f'<circle class="point {style}" cx="{right - 190}" cy="{y - 3}" r="3"/>')
        parts.append(f'<text x="{right - 180}" y="{y}">{escape(label)}</text>')
    label = "fraction of fakes found against S/N"
    return Markup(f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">{"".join(parts)}</svg>')


def _group(position, found, group, style):
    """Draw a group of fakes: the range of most images' curves, their median, and what was counted."""
    grid = np.geomspace(*SNR, 120)
    curves = np.array([_curve(entry[group], grid) for entry in found if group in entry]).reshape(-1, len(grid))
    parts = []
    if len(curves):
        low, middle, high = np.percentile(curves, [16, 50, 84], axis=0)
        x, upper = position(grid, high)
        edge = [*zip(x, upper, strict=True), *zip(x[::-1], position(grid, low)[1][::-1], strict=True)]
        outline = " ".join(f"{a:.1f},{b:.1f}" for a, b in edge)
        parts += [f'<polygon class="band {style}" points="{outline}"/>', _line(position, style, grid, middle)]
    for low, high, put, passed in pooled_bins(found, group):
        if put:
            x, y = position(np.sqrt(low * high), passed / put)
            x += 3 if style == "host" else -3  # side by side, so that the bars of both can be seen
            ends = [position(1, fraction)[1] for fraction in interval(passed, put)]
            title = f"S/N {low:g} to {high:g}: {passed:.0f} of {put:.0f} {GROUPS[group]}"
            parts.append(f'<line class="bar {style}" x1="{x:.1f}" x2="{x:.1f}" y1="{ends[1]:.1f}" y2="{ends[0]:.1f}"/>')
            point = f'<circle class="point {style}" cx="{x:.1f}" cy="{y:.1f}" r="3">'
            parts.append(f"{point}<title>{escape(title)}</title></circle>")
    return parts


def by_filter(images: Table) -> list[dict]:
    """Return a row for each filter, and one for all if there are several, with medians over the images."""
    name = np.asarray(images["filter"], str)
    known = np.isfinite(np.asarray(images["m50"], float))
    kinds = sorted(set(name[known]))
    rows = [_medians(images, kind or "none", known & (name == kind), np.sum(name == kind)) for kind in kinds]
    return rows + [_medians(images, "all", known, len(images))] * (len(kinds) > 1)


def _medians(images, label, chosen, number):
    row = {"filter": label, "known": int(chosen.sum()), "images": int(number)}
    for column, form in (("maglim", ".2f"), ("m50", ".2f"), ("m90", ".2f"), ("snr50", ".1f")):
        values = np.asarray(images[column], float)[chosen]
        values = values[np.isfinite(values)]
        row[column] = f"{np.median(values):{form}}" if len(values) else ""
        row[f"{column}_range"] = f"{values.min():{form}} to {values.max():{form}}" if len(values) > 1 else ""
    return row


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def model_summary(cards: dict[str, dict]) -> dict | None:
    """Return the totals of the campaign's model card as texts, None where no image has a model."""
    total = campaign_card(cards)["campaign"]
    if not total["n_models"]:
        return None

    trained = "{image} trained on the package and their image, {package} on the package alone"
    rows = [
        ("models", trained.format(**total["trained_on"])),
        ("examples", f"{total['own_real']} real, {total['own_bogus']} bogus"),
    ]
    if total["auc_median"] is not None:
        area = f"median {total['auc_median']:.3f}, lowest {total['auc_lowest']:.3f}"
        rows += [
            ("ROC area per image", area),
            ("bogus kept at 0.5", _percent(total["false_positive"])),
            ("real lost at 0.5", _percent(total["false_negative"])),
        ]
    bins = [
        {
            "score": f"{row['score_from']:.1f} to {row['score_from'] + 0.2:.1f}",
            "number": row["number"],
            "mean": f"{row['mean_score']:.2f}",
            "real": f"{row['real_share']:.2f}",
        }
        for row in total["reliability"]
    ]
    return {"rows": rows, "bins": bins}
