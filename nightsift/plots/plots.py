"""The figures of an image: what it shows, how sharp, how well calibrated and how deep it is."""

from __future__ import annotations

import numpy as np
from astropy.stats import mad_std
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure

from nightsift.flags import UNUSABLE, Mask
from nightsift.plots import search, shapes
from nightsift.plots.figures import (
    BLUE,
    GREY,
    INK,
    MUTED,
    ORANGE,
    OVERVIEW_BOX,
    RED,
    SIZE,
    STATUS_COLOR,
    Material,
    colorbar,
    field_axes,
    limits_of,
    new_figure,
    placeholder,
    plain,
    style,
    thinned,
    values_of,
)
from nightsift.statistics import robust_sigma

PLANE_COLOR = {
    Mask.NO_TEMPLATE: (110, 120, 160),
    Mask.TEMPLATE_BAD: (150, 110, 200),
    Mask.EDGE: (120, 150, 150),
    Mask.NONFINITE: (90, 90, 90),
    Mask.OUTSIDE: (90, 90, 90),
    Mask.USER: (60, 150, 90),
    Mask.BADLINE: (40, 160, 170),
    Mask.COSMIC: (230, 150, 30),
    Mask.SATURATED: (215, 60, 50),
}
_MAX_SIDE = 760  # pixels of the overview, which is drawn in blocks if it has more


def plots(material: Material) -> dict[str, Figure]:
    """Draw the figures of an image.

    Parameters
    ----------
    material : Material
        What the stages left of the image.

    Returns
    -------
    dict of Figure
        By name, in the order of the stages. Where an image stopped before there was anything to draw, the figure says
        so with the status and the reason.
    """
    figures = {}
    for name, make in (
        ("overview", _overview),
        ("background", shapes.background),
        ("shape", shapes.shape),
        ("psf", search.psf),
        ("fwhm", _fwhm),
        ("zeropoint", _zeropoint),
        ("astrometry", _astrometry),
        ("limit", _limit),
        ("realbogus", search.realbogus),
        ("completeness", search.completeness),
    ):
        figures[name] = make(material) or placeholder(material, name)
    return figures


def block_mean(data: np.ndarray, max_side: int) -> tuple[np.ndarray, int]:
    """Return the image in blocks of n x n pixels, no side above `max_side`, and n; the mean ignores NaN."""
    step = -(-max(data.shape) // max_side)
    if step == 1:
        return data, 1
    height, width = (side // step * step for side in data.shape)
    blocks = data[:height, :width].reshape(height // step, step, width // step, step)
    good = np.isfinite(blocks)
    count = good.sum(axis=(1, 3), dtype=np.float32)
    total = np.where(good, blocks, 0).sum(axis=(1, 3), dtype=np.float32)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32), step


def stretch(data: np.ndarray, low: float = 1.5, soft: float = 6.0) -> np.ndarray:
    """Return 0..1 in an asinh stretch from `low` sigma below the background (Lupton et al. 2004, PASP 116, 133)."""
    sample = data[np.isfinite(data)][:: max(data.size // 100_000, 1)]
    if not len(sample):
        return np.zeros(data.shape, np.float32)
    level = np.median(sample)
    sigma = max(mad_std(sample), 1e-6 * abs(level)) or 1.0
    top = max(np.percentile(sample, 99.8), level + 10 * sigma)
    scaled = np.arcsinh((np.nan_to_num(data, nan=level) - (level - low * sigma)) / (soft * sigma))
    return np.clip(scaled / np.arcsinh((top - level + low * sigma) / (soft * sigma)), 0, 1)


def _overlay(image: np.ndarray, mask: np.ndarray | None, step: int) -> tuple[np.ndarray, dict[Mask, float]]:
    """Return the image as RGB with masked pixels in the colours of their planes, and the fractions of those seen."""
    grey = (255 * (1 - stretch(image))).astype(np.uint8)
    rgb = np.repeat(grey[..., None], 3, axis=2)
    seen: dict[Mask, float] = {}
    if mask is None:
        return rgb, seen
    height, width = (side * step for side in image.shape)
    blocks = mask[:height, :width].reshape(image.shape[0], step, image.shape[1], step)
    joined = np.bitwise_or.reduce(np.bitwise_or.reduce(blocks, axis=3), axis=1)
    for plane, color in PLANE_COLOR.items():
        hit = (joined & int(plane)) != 0
        if hit.any():
            seen[plane] = np.count_nonzero(mask & int(plane)) / mask.size
            rgb[hit] = (0.45 * rgb[hit] + 0.55 * np.array(color)).astype(np.uint8)
    return rgb, seen


def _overview(material: Material) -> Figure | None:
    if material.image is None:
        return None
    figure, axes = new_figure(material, "Image, mask and candidates")
    ax = axes[0, 0]
    figure.subplots_adjust(*OVERVIEW_BOX)
    image, step = block_mean(material.image, _MAX_SIDE)
    mask = material.mask if material.difference_mask is None else material.difference_mask
    rgb, seen = _overlay(image, mask, step)
    height, width = image.shape[0] * step, image.shape[1] * step
    extent = (-0.5, width - 0.5, -0.5, height - 0.5)
    ax.imshow(rgb, origin="lower", extent=extent, interpolation="nearest" if step == 1 else "antialiased")
    field_axes(ax, material.shape, 0.0)
    ax.set_anchor("W")
    ax.grid(False)
    legend: list[tuple] = []
    size = np.full(1, 0.035 * max(height, width))
    real = np.asarray(material.candidates["is_real"], bool)
    for chosen, color, text in ((~real, ORANGE, "set aside"), (real, RED, "candidates")):
        x, y = values_of(material.candidates[chosen], "x", "y")
        thin = 0.6 if color == ORANGE else 1.4
        circles = EllipseCollection(
            size * (1 if color == RED else 0.6),
            size * (1 if color == RED else 0.6),
            [0],
            units="xy",
            offsets=np.column_stack([x, y]),
            offset_transform=ax.transData,
            facecolors="none",
            edgecolors=color,
            linewidths=thin,
        )
        ax.add_collection(circles)
        legend.append((color, f"{chosen.sum()} {text}"))
    for plane, fraction in seen.items():
        tint = np.array(PLANE_COLOR[plane]) / 255
        legend.append((tint, f"{str(plane.name).lower().replace('_', ' ')} {fraction:.2%}"))
    left, bottom, right, top = OVERVIEW_BOX
    wide = (right - left) * SIZE[0], (top - bottom) * SIZE[1]
    beside = left + 0.02 + min(wide[0], wide[1] * width / height) / SIZE[0]
    for number, (color, text) in enumerate(legend):
        line = 0.87 - 0.052 * number
        figure.text(beside, line, "●", size=10, color=color)
        figure.text(beside + 0.023, line, plain(text, 40), size=8, color=INK)
    if material.status != "ok":
        _reason(figure, material, beside)
    return figure


def _reason(figure, material, left):
    words, lines = f"{material.stage}: {material.reason}".split(), [""]
    for word in words:
        if len(lines[-1]) + len(word) > 34:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    color = STATUS_COLOR.get(material.status, MUTED)
    for number, line in enumerate(lines[:6]):
        figure.text(left, 0.3 - 0.045 * number, plain(line, 44), size=8, color=color)


def _fwhm(material: Material) -> Figure | None:
    table = material.objects
    if not len(table):
        return None
    x, y, flux, snr, fwhm, mag = values_of(table, "x", "y", "flux", "snr", "fwhm", "mag_calib")
    calibrated = np.isfinite(mag).any()
    with np.errstate(invalid="ignore", divide="ignore"):
        mag = mag if calibrated else -2.5 * np.log10(np.where(flux > 0, flux, np.nan))
    clean = (np.asarray(table["flags"]) & int(UNUSABLE)) == 0
    shown = np.isfinite(mag) & np.isfinite(fwhm)
    if not shown.any():
        return None
    typical = material.detect.get("fwhm") or np.median(fwhm[shown])
    figure, axes = new_figure(material, f"Sharpness: FWHM {typical:.2f} px{_arcsec(typical, material)}", 2)
    figure.subplots_adjust(0.075, 0.13, 0.93, 0.9, wspace=0.25)
    ax = axes[0, 0]
    for rows, color, text in ((shown & ~clean, GREY, "flagged"), (shown & clean, BLUE, "clean")):
        rows = thinned(rows)
        ax.plot(mag[rows], fwhm[rows], ".", ms=2.5, color=color, alpha=0.7, label=text)
    ax.axhline(typical, color=ORANGE, lw=1.2, label="image")
    ax.set_ylim(0, max(3 * typical, 1))
    style(ax, "mag_calib [mag]" if calibrated else "instrumental magnitude", "FWHM [px]")
    ax.legend(fontsize=8, frameon=False, loc="upper left", markerscale=3)
    stars = shown & clean & (snr > 20) & (np.abs(fwhm / typical - 1) < 0.2)
    rows = thinned(stars)
    low, high = limits_of(fwhm[stars], 5, 95, 0.02 * typical)
    drawn = axes[0, 1].scatter(x[rows], y[rows], c=fwhm[rows], s=9, vmin=low, vmax=high, cmap="viridis", lw=0)
    field_axes(axes[0, 1], material.shape)
    colorbar(figure, drawn, axes[0, 1], "FWHM of stars above S/N 20 [px]")
    return figure


def _arcsec(pixels, material):
    return f" = {pixels * material.pixscale:.2f}″" if np.isfinite(material.pixscale) else ""


def _zeropoint(material: Material) -> Figure | None:
    table = material.calibrators
    if not len(table):
        return None
    x, y, mag, color, residual, error = values_of(table, "x", "y", "mag_cat", "color", "residual", "error")
    used = np.asarray(table["used"], bool)
    facts = material.photometry
    title = f"Zero point {facts.get('zp') or np.nan:.3f} ± {facts.get('zp_err') or np.nan:.3f} mag"
    if facts.get("scatter") is not None:
        title += f", scatter {1000 * facts['scatter']:.0f} mmag, {used.sum()} of {len(used)} stars"
    figure, axes = new_figure(material, title, 2, 2)
    axes[0, 0].get_gridspec().set_width_ratios((2, 1))  # the maps are square
    figure.subplots_adjust(0.09, 0.12, 0.9, 0.91, wspace=0.25, hspace=0.42)
    limits = limits_of(residual[used], 1, 99, 0.02)
    for ax, value, label in (
        (axes[0, 0], mag, f"catalogue {facts.get('band') or ''} [mag]"),
        (axes[1, 0], color, f"colour {facts.get('color') or '(no term fitted)'} [mag]"),
    ):
        for rows, tint in ((~used, GREY), (used, BLUE)):
            rows = thinned(rows & np.isfinite(value) & np.isfinite(residual))
            bars = np.where(np.isfinite(error[rows]), error[rows], 0)
            ax.errorbar(value[rows], residual[rows], bars, fmt=".", ms=3, color=tint, lw=0.5, alpha=0.7)
        ax.axhline(0, color=ORANGE, lw=1)
        ax.set_ylim(1.6 * limits[0] - 0.6 * np.mean(limits), 1.6 * limits[1] - 0.6 * np.mean(limits))
        style(ax, plain(label, 60), "residual [mag]")
    rows, span = thinned(used & np.isfinite(residual)), np.max(np.abs(limits))
    drawn = axes[0, 1].scatter(x[rows], y[rows], c=residual[rows], s=9, cmap="RdBu_r", vmin=-span, vmax=span, lw=0)
    field_axes(axes[0, 1], material.shape)
    colorbar(figure, drawn, axes[0, 1], "residual [mag]")
    _model(figure, axes[1, 1], material)
    return figure


def _model(figure, ax, material):
    height, width = material.shape
    field_axes(ax, material.shape)
    ax.grid(False)
    if material.zero_point is not None:
        gy, gx = np.mgrid[0 : height - 1 : 40j, 0 : width - 1 : 40j]
        surface = np.reshape(material.zero_point(gx.ravel(), gy.ravel()), gx.shape)
        extent = (-0.5, width - 0.5, -0.5, height - 0.5)
        flat = np.ptp(surface) < 1e-6
        limits = {"vmin": surface.mean() - 0.01, "vmax": surface.mean() + 0.01} if flat else {}
        drawn = ax.imshow(surface, origin="lower", extent=extent, cmap="viridis", **limits)
        colorbar(figure, drawn, ax, f"model, order {material.photometry.get('order')} [mag]")


def _astrometry(material: Material) -> Figure | None:
    table = material.matches
    if not len(table) or "dx" not in table.colnames:
        return None
    x, y, dx, dy = values_of(table, "x", "y", "dx", "dy")
    rms = material.astrometry.get("rms") or [np.nan, np.nan]
    rms = [np.nan if value is None else value for value in rms]
    title = f"Astrometry: rms {1000 * rms[0]:.0f}, {1000 * rms[1]:.0f} mas along an axis, {len(table)} stars"
    if material.astrometry.get("order") is not None:
        title += f", order {material.astrometry['order']}"
    figure, axes = new_figure(material, title, 2)
    figure.subplots_adjust(0.09, 0.13, 0.97, 0.9, wspace=0.28)
    ax, rows = axes[0, 0], thinned(np.isfinite(dx) & np.isfinite(dy))
    scatter = robust_sigma(np.concatenate([dx[rows], dy[rows]])) if len(rows) else 1.0
    half = max(6 * scatter, 0.05)
    ax.plot(dx[rows], dy[rows], ".", ms=3, color=BLUE, alpha=0.6)
    if np.isfinite(material.pixscale) and np.isfinite(rms).all():
        turn = np.linspace(0, 2 * np.pi, 100)
        mean = np.mean(rms) / material.pixscale
        ax.plot(mean * np.cos(turn), mean * np.sin(turn), color=ORANGE, lw=1.2, label="rms")
        ax.legend(fontsize=8, frameon=False, loc="upper right")
    ax.axhline(0, color=GREY, lw=0.8)
    ax.axvline(0, color=GREY, lw=0.8)
    ax.set_xlim(-half, half)
    ax.set_ylim(-half, half)
    ax.set_aspect("equal")
    style(ax, "dx [px]", "dy [px]")
    ax, rows = axes[0, 1], rows[np.linspace(0, len(rows) - 1, min(len(rows), 600)).astype(int)]
    _vectors(ax, x[rows], y[rows], dx[rows], dy[rows], 3 * scatter or 1.0, (0.6, "stars", BLUE), alpha=0.6)
    _residual_map(ax, material)
    field_axes(ax, material.shape)
    return figure


# Many parameters: four arrays that belong together, as matplotlib has them.
def _vectors(ax, x, y, dx, dy, arrow: float, key: tuple[float, str, str], **options):
    """Draw residuals as arrows; `key` has the position of their legend above the axes, a word, and the colour."""
    where, word, color = key
    options = {"angles": "xy", "scale": arrow * 18, "width": 0.003, "headwidth": 3} | options
    drawn = ax.quiver(x, y, dx, dy, color=color, **options)
    ax.quiverkey(drawn, where, 1.03, arrow, f"{arrow:.2g} px, {word}", labelpos="E", fontproperties={"size": 8})


def _residual_map(ax, material: Material) -> None:
    """Draw the medians of the residuals in parts of the image, on a scale of their own: they are much smaller."""
    cells = material.astrometry.get("residual_map")
    if not cells:
        return
    x, y, dx, dy = (
        np.array([np.nan if v is None else v for v in cells[name]], float) for name in ("x", "y", "dx", "dy")
    )
    known = np.isfinite(dx) & np.isfinite(dy)
    if known.any():
        longest = float(np.hypot(dx, dy)[known].max()) or 1.0
        _vectors(
            ax, x[known], y[known], dx[known], dy[known], longest, (0.1, "medians", RED), scale=longest * 9, width=0.007
        )


def _limit(material: Material) -> Figure | None:
    table = material.objects
    mag, snr = values_of(table, "mag_calib", "snr")
    shown = np.isfinite(mag) & (snr > 0)
    if not shown.any():
        return None
    limit = material.photometry.get("maglim")
    title = "Depth" if limit is None else f"Depth: limit {limit:.2f} mag"
    figure, axes = new_figure(material, title, 2)
    figure.subplots_adjust(0.085, 0.13, 0.97, 0.9, wspace=0.25)
    ax, rows = axes[0, 0], thinned(shown)
    ax.semilogy(mag[rows], snr[rows], ".", ms=2.5, color=BLUE, alpha=0.6, label="objects")
    first, last = mag[shown].min(), max(mag[shown].max(), limit or -np.inf) + 0.5
    model = material.photometry.get("maglim_model")
    if model is not None:
        grid = np.linspace(first, last, 200)
        power = 10 ** (0.4 * grid)
        ax.plot(grid, (model[0] * power**2 + model[1] * power + model[2]) ** -0.5, color=ORANGE, lw=1.4, label="model")
    goal = material.photometry.get("limit_snr") or 5.0
    ax.axhline(goal, color=MUTED, lw=0.8, ls=":")
    bins = np.arange(np.floor(4 * first) / 4, last + 0.25, 0.25)
    counted = material.catalog_mag[(material.catalog_mag > first) & (material.catalog_mag < last)]
    if len(counted):
        axes[0, 1].hist(counted, bins=bins, histtype="step", color=INK, lw=1.2, label=f"catalogue, {len(counted)}")
    axes[0, 1].hist(mag[shown], bins=bins, color=BLUE, alpha=0.75, label=f"detected, {shown.sum()}")
    for each in axes.flat:
        if limit is not None:
            each.axvline(limit, color=RED, lw=1.2, label=f"limit, S/N {goal:g}")
        each.set_xlim(first - 0.3, last)
        each.legend(fontsize=8, frameon=False)
    style(ax, "mag_calib [mag]", "S/N")
    band = material.photometry.get("band")
    style(
        axes[0, 1], f"mag_calib, catalogue {band} [mag]" if len(counted) else "mag_calib [mag]", "objects in 0.25 mag"
    )
    return figure
