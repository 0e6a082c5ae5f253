"""The figures of what detection rests on: background and noise of the image, and the shapes of its objects."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from nightsift.flags import UNUSABLE
from nightsift.image.background import background as measured
from nightsift.plots.figures import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    RED,
    Material,
    colorbar,
    field_axes,
    limits_of,
    new_figure,
    style,
    thinned,
    values_of,
)

STEP = 16  # pixels of the image per pixel of the background's picture
UNUSUAL = 0.6  # outlier score from which on a shape is drawn as one; chosen by eye on the demo


def background(material: Material) -> Figure | None:
    """Draw the maps of the background and of its noise."""
    if material.image is None:
        return None
    bad = ~np.isfinite(material.image)
    if material.mask is not None:
        bad |= material.mask != 0
    if bad.all():
        return None
    sky = measured(np.where(bad, 0, material.image), bad, material.background_size)
    level, noise = (plane[STEP // 2 :: STEP, STEP // 2 :: STEP] for plane in (sky.level, sky.noise))
    title = f"Background {np.median(level):.5g} ADU, noise {np.median(noise):.4g} ADU per pixel"
    figure, axes = new_figure(material, title, 2)
    figure.subplots_adjust(0.075, 0.11, 0.92, 0.9, wspace=0.42)
    height, width = material.shape
    for ax, plane, label in ((axes[0, 0], level, "background [ADU]"), (axes[0, 1], noise, "noise [ADU]")):
        low, high = limits_of(plane.ravel(), 1, 99, 1e-3 * abs(float(np.median(plane))))
        extent = (-0.5, width - 0.5, -0.5, height - 0.5)
        drawn = ax.imshow(plane, origin="lower", extent=extent, cmap="viridis", vmin=low, vmax=high)
        field_axes(ax, material.shape, 0.0)
        ax.grid(False)
        colorbar(figure, drawn, ax, label)
    return figure


def shape(material: Material) -> Figure | None:
    """Draw concentration and axis ratio of the objects against their width, outliers marked."""
    table = material.objects
    if not len(table):
        return None
    flux, peak, fwhm, a, b, score = values_of(table, "flux", "peak", "fwhm", "a", "b", "outlier")
    typical = material.detect.get("fwhm") or np.nanmedian(fwhm)
    with np.errstate(invalid="ignore", divide="ignore"):
        concentration, ratio = peak * typical**2 / flux, b / a
    shown = np.isfinite(fwhm) & np.isfinite(concentration) & np.isfinite(ratio) & (concentration > 0)
    if not shown.any():
        return None
    flagged, unusual = (np.asarray(table["flags"]) & int(UNUSABLE)) != 0, score > UNUSUAL
    groups = (
        (shown & flagged & ~unusual, GREY, f"{(flagged & ~unusual).sum()} flagged"),
        (shown & ~flagged & ~unusual, BLUE, f"{(~flagged & ~unusual).sum()} clean"),
        (shown & unusual & ~flagged, RED, f"{(unusual & ~flagged).sum()} outliers"),
        (shown & unusual & flagged, ORANGE, f"{(unusual & flagged).sum()} flagged outliers"),
    )
    figure, axes = new_figure(material, "Shapes of the objects", 2)
    figure.subplots_adjust(0.085, 0.13, 0.97, 0.9, wspace=0.25)
    for ax, values, label in (
        (axes[0, 0], concentration, "concentration: peak / flux × FWHM² of stars"),
        (axes[0, 1], ratio, "axis ratio b / a"),
    ):
        for chosen, color, text in groups:
            rows = thinned(chosen)
            if len(rows):
                ax.plot(fwhm[rows], values[rows], ".", ms=3, color=color, alpha=0.7, label=text)
        ax.axvline(typical, color=INK, lw=0.9, ls=":")
        ax.set_xlim(0, 3 * typical)
        style(ax, "FWHM [px]", label)
    axes[0, 0].set_ylim(0, 1.6 * limits_of(concentration[shown], 1, 99)[1])
    axes[0, 0].legend(fontsize=8, frameon=False, markerscale=3)
    axes[0, 1].set_ylim(0, 1.05)
    return figure
