"""The figures of an image's PSF and search: what a point source looks like, which are told from bogus, and found."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from nightsift.fakes.completeness import efficiency, interval
from nightsift.plots.figures import (
    BLUE,
    GREY,
    INK,
    MUTED,
    ORANGE,
    RED,
    Material,
    limits_of,
    new_figure,
    style,
    thinned,
    values_of,
)
from nightsift.psf.extended import EXTENDED
from nightsift.transients.modelcard import line

GROUPS = (("off_hosts", BLUE, "blank sky"), ("on_hosts", ORANGE, "on galaxies"))
KIND = {"off_hosts": "sky", "on_hosts": "host"}
SNR_TICKS = (3, 5, 10, 20, 50, 100)
_CELL, _REACH = 41, 2.5  # pixels of a PSF's picture; FWHM from its centre to its border


def psf(material: Material) -> Figure | None:
    """Draw the PSF over the image, and the objects' spread against their magnitude."""
    if material.psf_model is None:
        return None
    facts = material.psf
    title = f"PSF: FWHM {facts.get('fwhm') or np.nan:.2f} px, {facts.get('n_stars', 0)} stars"
    title += f", order {facts.get('order', 0)}"
    figure, axes = new_figure(material, title, 2)
    figure.subplots_adjust(0.02, 0.13, 0.97, 0.9, wspace=0.2)
    _montage(axes[0, 0], material.psf_model)
    ranges = [facts.get(f"{name}_range") or (np.nan, np.nan) for name in ("fwhm", "ellipticity")]
    text = "FWHM {:.2f} to {:.2f} px, ellipticity {:.2f} to {:.2f}".format(*ranges[0], *ranges[1])
    axes[0, 0].set_xlabel(text, size=9, color=INK)
    _spread(axes[0, 1], material.objects)
    return figure


def _montage(ax, model):
    """Draw the PSF at nine positions, as they lie in the image: the centre, the corners, and the sides' middles."""
    height, width = model.shape
    x, y = (part.ravel() for part in np.meshgrid(np.linspace(0, width - 1, 3), np.linspace(0, height - 1, 3)))
    offset = np.broadcast_to(np.linspace(-_REACH, _REACH, _CELL) * model.fwhm, (len(x), _CELL))
    cells = model.grid(offset, offset, x, y)[0]
    cells = cells / cells.max(axis=(1, 2), keepdims=True)
    joined = np.concatenate([np.concatenate(list(row), axis=1) for row in cells.reshape(3, 3, _CELL, _CELL)])
    # Square roots of the flux: wings and core in one picture.
    ax.imshow(np.sqrt(np.clip(joined, 0, 1)), origin="lower", cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    ax.contour(joined, levels=[0.1, 0.5], colors=[MUTED, ORANGE], linewidths=0.9)
    for border in (_CELL, 2 * _CELL):
        ax.axhline(border - 0.5, color="white", lw=2)
        ax.axvline(border - 0.5, color="white", lw=2)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.text(2, 3 * _CELL - 3, "half and a tenth of the peak", size=8, color=INK, va="top")


def _spread(ax, table):
    spread, error, mag, flux = values_of(table, "spread", "spread_err", "mag_psf", "psf_flux")
    calibrated = np.isfinite(mag).any()
    with np.errstate(invalid="ignore", divide="ignore"):
        mag = mag if calibrated else -2.5 * np.log10(np.where(flux > 0, flux, np.nan))
        extended = spread > EXTENDED * error
    shown = np.isfinite(mag) & np.isfinite(spread)
    for chosen, color, text in ((shown & ~extended, BLUE, "like stars"), (shown & extended, ORANGE, "extended")):
        rows = thinned(chosen)
        ax.plot(mag[rows], spread[rows], ".", ms=2.5, color=color, alpha=0.7, label=f"{chosen.sum()} {text}")
    low, high = limits_of(spread[shown], 1, 99, 0.02)
    ax.set_ylim(low, high)
    ax.axhline(0, color=GREY, lw=0.8)
    style(ax, "mag_psf [mag]" if calibrated else "instrumental magnitude", "spread")
    ax.legend(fontsize=8, frameon=False, loc="upper left", markerscale=3)


def realbogus(material: Material) -> Figure | None:
    """Draw the scores of the image's own examples, and whether they are probabilities."""
    card = material.transients.get("model") or {}
    bins = np.array(card.get("reliability") or np.zeros((0, 4)), float)
    if not len(bins):
        return None
    edge, number, score, fraction = bins.T
    figure, axes = new_figure(material, f"Real and bogus: {line(card)}", 2)
    figure.subplots_adjust(0.085, 0.13, 0.97, 0.9, wspace=0.25)
    real = np.rint(number * fraction)
    ax = axes[0, 0]
    for counts, color, text, side in ((number - real, RED, "bogus", 0.05), (real, BLUE, "real", 0.15)):
        bars = ax.bar(edge + side, counts, 0.085, color=color, alpha=0.8, label=f"{counts.sum():.0f} {text}")
        ax.bar_label(bars, [f"{count:.0f}" if count else "" for count in counts], size=8, color=INK)
    ax.set_yscale("symlog", linthresh=1)
    ax.yaxis.set_major_formatter("{x:.0f}")
    ax.set_ylim(0, 3 * number.max())
    ax.set_xlim(-0.02, 1.02)
    ax.axvline(0.5, color=MUTED, lw=0.8, ls=":")
    ax.legend(fontsize=8, frameon=False, loc="upper center")
    style(ax, "score by models that did not see them", "examples")
    ax = axes[0, 1]
    low, high = interval(real, number)
    ax.plot([0, 1], [0, 1], color=GREY, lw=1)
    ax.errorbar(score, fraction, [fraction - low, high - fraction], fmt="o", ms=5, color=BLUE, lw=1.2)
    for at in zip(score, fraction, number, strict=True):
        ax.annotate(f"{at[2]:.0f}", at[:2], (8, -3), textcoords="offset points", size=8, color=MUTED)
    rates = [card.get(name) for name in ("false_positive", "false_negative")]
    if None not in rates:
        text = f"at a score of 0.5:\n{rates[0]:.1%} of bogus kept\n{rates[1]:.1%} of real lost"
        ax.text(0.97, 0.05, text, size=8, color=INK, ha="right", transform=ax.transAxes)
    ax.set_xlim(-0.04, 1.08)
    ax.set_ylim(-0.04, 1.04)
    style(ax, "mean score", "fraction that is real")
    return figure


def completeness(material: Material) -> Figure | None:
    """Draw the fraction of fakes found against S/N, and what follows for magnitudes."""
    curves = material.transients.get("completeness") or {}
    shown = [(curves[name], name, *rest) for name, *rest in GROUPS if name in curves]
    if not shown:
        return None
    depth = shown[0][0]["mag"]
    title = "Completeness of the search"
    if depth.get("half") is not None:
        title = f"Completeness: 50 % of {shown[0][-1]} at {depth['half']:.2f} ± {depth['half_err'] or np.nan:.2f} mag"
    if depth.get("ninety") is not None:
        title += f", 90 % at {depth['ninety']:.2f}"
    figure, axes = new_figure(material, title, 2)
    figure.subplots_adjust(0.09, 0.13, 0.97, 0.9, wspace=0.25)
    _by_snr(axes[0, 0], shown, material.transients.get("threshold"))
    _by_magnitude(axes[0, 1], material, shown)
    for ax in axes.flat:
        for level in (0.5, 0.9):
            ax.axhline(level, color=MUTED, lw=0.6, ls=":")
        ax.set_ylim(-0.03, 1.06)
        ax.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    return figure


def _by_snr(ax, shown, threshold):
    grid = np.geomspace(2.5, 110, 200)
    for number, (curve, _, color, text) in enumerate(shown):
        snr = curve["snr"]
        low, high, put, found = np.array(snr["bins"], float).reshape(-1, 4).T
        low, high, put, found = (values[put > 0] for values in (low, high, put, found))
        # Side by side, so that the bars of both can be seen.
        center, fraction, ends = np.sqrt(low * high) * (1.03 ** (2 * number - 1)), found / put, interval(found, put)
        bars = [np.maximum(fraction - ends[0], 0), np.maximum(ends[1] - fraction, 0)]
        label = f"{text}: {snr['found']} of {snr['number']}"
        ax.errorbar(center, fraction, bars, fmt="os"[number], ms=4, color=color, lw=0.8, label=label)
        ax.plot(grid, efficiency(grid, snr["top"], snr["middle"], snr["width"]), color=color, lw=1.4)
        _marks(ax, snr, color, filled=number == 0)
    if threshold is not None:
        ax.axvline(threshold, color=GREY, lw=1, label=f"threshold {threshold:.2f}")
    ax.set_xscale("log")
    ax.set_xlim(2.7, 110)
    ax.set_xticks(SNR_TICKS, [f"{tick}" for tick in SNR_TICKS])
    ax.minorticks_off()
    ax.legend(fontsize=8, frameon=False, loc="lower right")
    style(ax, "S/N in the difference", "found")


def _marks(ax, limits, color, filled=True):
    for name, level in (("half", 0.5), ("ninety", 0.9)):
        if limits.get(name) is not None:
            face = color if filled else "white"
            error = limits.get(f"{name}_err") or 0
            ax.errorbar(
                limits[name], level, xerr=error, fmt="D", ms=6, mfc=face, color=color, mew=1.2, capsize=3, zorder=3
            )


def _by_magnitude(ax, material, shown):
    """Draw the curves by S/N at the positions of the fakes, each with its own noise and zero point."""
    kind, (x, y, flux, snr) = (
        np.asarray(material.fakes["kind"], str),
        values_of(material.fakes, "true_x", "true_y", "true_flux", "true_snr"),
    )
    limit = material.photometry.get("maglim")
    depths = [curve["mag"][name] for curve, *_ in shown for name in ("half", "ninety")]
    depths = [value for value in [*depths, limit] if value is not None]
    first, last = (min(depths) - 1.2, max(depths) + 0.8) if depths else (0.0, 1.0)
    grid = np.linspace(first, last, 60)
    for number, (curve, group, color, text) in enumerate(shown):
        mine = (kind == KIND[group]) & (flux > 0)
        if material.zero_point is not None and mine.any():
            faint = np.asarray(material.zero_point(x[mine], y[mine])) - 2.5 * np.log10(flux[mine] / snr[mine])
            at = 10 ** (0.4 * (faint[:, None] - grid))
            rise = (curve["snr"][name] for name in ("top", "middle", "width"))
            ax.plot(grid, efficiency(at, *rise).mean(axis=0), color=color, lw=1.4, label=text)
        _marks(ax, curve["mag"], color, filled=number == 0)
    if limit is not None:
        label = f"limit {limit:.2f}, S/N {material.photometry.get('limit_snr') or 5:g} of objects"
        ax.axvline(limit, color=RED, lw=1.2, label=label)
    ax.set_xlim(first, last)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize=8, frameon=False, loc="lower left")
    style(ax, "magnitude", "found")
