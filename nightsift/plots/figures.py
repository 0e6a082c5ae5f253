"""What the figures of an image have in common: their material, size, colours and axes."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from astropy.io.fits import Header
from astropy.table import Table
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_area
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from nightsift.parameters import DetectConfig
from nightsift.psf.model import Psf
from nightsift.tables import empty

INK, MUTED, GRID = "#1b2430", "#66717f", "#dfe3e8"
BLUE, ORANGE, RED, GREEN, GREY = "#2667b5", "#d9731a", "#c0392b", "#2e8b57", "#9aa5b1"
STATUS_COLOR = {"ok": GREEN, "degraded": ORANGE, "rejected": RED, "error": RED}
SIZE, DPI = (8.0, 4.2), 100  # inches
OVERVIEW_BOX = (0.075, 0.1, 0.72, 0.92)  # of its axes: left, bottom, right, top, in fractions of the figure
NOTHING = {
    "completeness": "Too few fakes, or all or none of them found: how complete the search is, is not known.",
    "realbogus": "No example of this image is known to be real or bogus: its scores are not checked.",
    "psf": "Too few clean stars: the image has no PSF.",
}
_MAX_POINTS = 4000  # of a figure, beyond which symbols only hide each other


@dataclass(frozen=True)
class Material:
    """What the stages left of an image; whatever is missing is empty, None or NaN.

    `image` and `mask` are 2-D arrays of one shape, `difference_mask` adds the planes of the subtraction; `zero_point`
    is a function of (x, y); `header` has the WCS; the tables follow the schemas of their names; the dictionaries are
    the facts of the stages.
    """

    name: str
    status: str
    stage: str
    reason: str
    shape: tuple[int, int]
    objects: Table
    calibrators: Table
    matches: Table
    candidates: Table
    catalog: Table
    image: np.ndarray | None = None
    mask: np.ndarray | None = None
    difference_mask: np.ndarray | None = None
    detect: dict = field(default_factory=dict)
    astrometry: dict = field(default_factory=dict)
    photometry: dict = field(default_factory=dict)
    psf: dict = field(default_factory=dict)
    transients: dict = field(default_factory=dict)
    fakes: Table = field(default_factory=lambda: empty("fakes"))
    psf_model: Psf | None = None
    zero_point: object = None
    header: Header | None = None

    @property
    def background_size(self) -> int:
        """Mesh of the background [px], as detection took it."""
        return self.detect.get("background_size", DetectConfig().background_size)

    @cached_property
    def pixscale(self) -> float:
        """The pixel scale [arcsec], NaN where not known."""
        return np.nan if self.header is None else 3600 * float(np.sqrt(proj_plane_pixel_area(self._wcs)))

    @cached_property
    def catalog_mag(self) -> np.ndarray:
        """The magnitudes of the catalogue's stars that lie in the image, in the band of its zero point."""
        stars, column = self.catalog, f"{self.photometry.get('band')}mag"
        if self.header is None or not len(stars) or column not in stars.colnames:
            return np.zeros(0)
        height, width = self.shape
        x, y = self._wcs.wcs_world2pix(stars["ra"], stars["dec"], 0)
        # Far outside, a distortion has no inverse.
        near = (np.abs(x / width - 0.5) < 0.6) & (np.abs(y / height - 0.5) < 0.6)
        stars = stars[near]
        x, y = self._wcs.all_world2pix(stars["ra"], stars["dec"], 0, quiet=True)
        inside = (x > -0.5) & (y > -0.5) & (x < width - 0.5) & (y < height - 0.5)
        magnitude = np.asarray(stars[column], float)[inside]
        return magnitude[np.isfinite(magnitude)]

    @cached_property
    def _wcs(self) -> WCS:
        return WCS(self.header, relax=True)


def new_figure(material: Material, title: str, columns=1, rows=1, **spacing):
    """Return a figure with a title and the image's name, and its axes (rows, columns)."""
    figure = Figure(figsize=SIZE, dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, gridspec_kw=spacing or None)
    for ax in axes.flat:
        ax.tick_params(labelsize=8, color=GREY, labelcolor=MUTED, length=3)
        for spine in ax.spines.values():
            spine.set_color(GREY)
        ax.xaxis.label.set_size(9)
        ax.yaxis.label.set_size(9)
    figure.text(0.012, 0.955, title, size=11, weight="bold", color=INK)
    _stamp(figure, material)
    return figure, axes


def _stamp(figure, material):
    text = material.name if material.status == "ok" else f"{material.name}  [{material.status}]"
    figure.text(0.988, 0.955, plain(text, 60), size=9, color=STATUS_COLOR.get(material.status, MUTED), ha="right")


def plain(text: str, length: int) -> str:
    """Return a text that is shown as it is: matplotlib takes dollar signs for formulas."""
    text = "".join(c if c.isprintable() else " " for c in str(text))
    text = text if len(text) <= length else text[: length - 1] + "…"
    return text.replace("$", r"\$")


def placeholder(material: Material, name: str) -> Figure:
    """Return a small figure that says why there is nothing to draw."""
    figure = Figure(figsize=(4.0, 2.1), dpi=DPI, facecolor="#f4f5f7")
    FigureCanvasAgg(figure)
    status = material.status if material.status != "ok" else "nothing to show"
    figure.text(0.5, 0.76, plain(name, 20), size=9, color=MUTED, ha="center")
    color = STATUS_COLOR.get(material.status, MUTED) if material.status != "ok" else MUTED
    figure.text(0.5, 0.56, status, size=16, weight="bold", color=color, ha="center")
    words = f"{material.stage}: {material.reason}" if material.stage else material.reason or NOTHING.get(name, "")
    lines, line = [], ""
    for word in str(words).split():
        line, full = (f"{line} {word}".strip(), "") if len(line) + len(word) < 58 else (word, line)
        lines += [full] if full else []
    for number, text in enumerate([*lines, line][:4]):
        figure.text(0.5, 0.42 - 0.1 * number, plain(text, 64), size=8, color=INK, ha="center")
    return figure


def style(ax, xlabel, ylabel):
    """Label the axes and draw a grid."""
    ax.set_xlabel(xlabel, size=9, color=INK)
    ax.set_ylabel(ylabel, size=9, color=INK)
    ax.grid(color=GRID, lw=0.6)
    ax.set_axisbelow(True)


def field_axes(ax, shape, margin=0.03):
    """Set the axes of a map of the image."""
    height, width = shape
    ax.set_xlim(-margin * width, (1 + margin) * width)
    ax.set_ylim(-margin * height, (1 + margin) * height)
    ax.set_aspect("equal", anchor="C")
    style(ax, "x [px]", "y [px]")
    ax.locator_params(nbins=4)


def thinned(select) -> np.ndarray:
    """Return the rows selected, evenly thinned to what a figure can show."""
    rows = np.flatnonzero(select)
    return rows if len(rows) <= _MAX_POINTS else rows[np.linspace(0, len(rows) - 1, _MAX_POINTS).astype(int)]


def values_of(table: Table, *names) -> list[np.ndarray]:
    """Return columns as arrays of floats."""
    return [np.asarray(table[name], float) for name in names]


def limits_of(values, low=0.5, high=99.5, least=0.0):
    """Return limits that hold all but the outermost values."""
    values = values[np.isfinite(values)]
    if not len(values):
        return -1.0, 1.0
    low, high = np.percentile(values, [low, high])
    middle = (high + low) / 2
    # Whatever the unit, the limits must differ.
    half = max((high - low) / 2 * 1.15, least, 1e-6 * abs(middle)) or 1e-6
    return middle - half, middle + half


def colorbar(figure, drawn, ax, label):
    """Add a colour bar to a map."""
    bar = figure.colorbar(drawn, ax=ax, fraction=0.046, pad=0.02)
    bar.ax.tick_params(labelsize=7, labelcolor=MUTED)
    bar.set_label(label, size=8, color=INK)
    bar.outline.set_visible(False)
