"""Hold what the workflow found of a simulated campaign against what is true of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from astropy.stats import mad_std
from astropy.table import Table, vstack
from scipy.spatial import cKDTree

BINS = (5.0, 7.0, 10.0, 20.0, 50.0, np.inf)
REAL = ("transient", "variable", "mover", "hpm")
MIN_COMPLETENESS, MAX_FALSE, MAX_BIAS, MAX_RMS = 0.9, 1.0, 0.005, 0.1
_FWHM = 3.0
_ISOLATION = 3.5
_NEIGHBOUR_LIGHT = 0.01
_STAR_SNR = 20
_ASTROMETRY_SNR = 30


@dataclass(frozen=True)
class Score:
    """What was found of one image or of several.

    ``wanted`` holds the usable transients and variables that should be found, with ``image``, ``significance`` (S/N of
    the change of flux) and ``found``; ``false`` the candidates that nothing true explains, with the ``nearest`` true
    source; ``stars`` the magnitude residuals ``dmag`` (mag_calib - mag_instr) and their errors ``err``; ``offsets``
    the position residuals ``dx dy`` (pixels).
    """

    wanted: Table
    false: Table
    stars: Table
    offsets: Table
    megapixels: float

    def counts(self, kind: str, low: float, high: float = np.inf, on_host: bool | None = None) -> tuple[int, int]:
        """Return how many of a kind with a significance in [low, high) were found, and how many there are."""
        wanted = self.wanted
        chosen = (wanted["kind"] == kind) & (wanted["significance"] >= low) & (wanted["significance"] < high)
        if on_host is not None:
            chosen &= wanted["on_host"] == on_host
        return int(np.count_nonzero(wanted["found"] & chosen)), int(np.count_nonzero(chosen))

    @property
    def completeness(self) -> float:
        """Part of the transients with S/N >= 10 that was found; NaN where there are none."""
        found, there = self.counts("transient", 10)
        return found / there if there else np.nan

    @property
    def false_rate(self) -> float:
        """False candidates per megapixel."""
        return len(self.false) / self.megapixels

    @property
    def bias(self) -> tuple[float, float]:
        """Median of mag_calib - mag_instr of the stars and its standard error, mag."""
        if len(self.stars) < 2:
            return np.nan, np.nan
        spread = mad_std(self.stars["dmag"].data)
        return float(np.median(self.stars["dmag"])), float(np.sqrt(np.pi / 2) * spread / np.sqrt(len(self.stars)))

    @property
    def pull_width(self) -> float:
        """Robust width of the stars' magnitude residuals over their errors."""
        good = self.stars[self.stars["err"] > 0]
        return float(mad_std(good["dmag"].data / good["err"].data)) if len(good) > 1 else np.nan

    @property
    def astrometric_rms(self) -> tuple[float, float]:
        """Rms of the position residuals along x and y, pixels."""
        if len(self.offsets) == 0:
            return np.nan, np.nan
        return tuple(float(np.sqrt(np.mean(self.offsets[axis] ** 2))) for axis in ("dx", "dy"))

    def failures(self) -> list[str]:
        """Return the bars that are not met, one sentence each; what could not be measured is not met."""
        rms = max(self.astrometric_rms)
        bars = (
            (self.completeness >= MIN_COMPLETENESS, f"completeness at S/N >= 10 is {self.completeness:.1%}"),
            (self.false_rate <= MAX_FALSE, f"there are {self.false_rate:.2f} false candidates per megapixel"),
            (abs(self.bias[0]) < MAX_BIAS, f"the magnitudes are off by {1e3 * self.bias[0]:+.1f} mmag"),
            (rms < MAX_RMS, f"the positions scatter by {rms:.3f} pixels"),
        )
        return [sentence for met, sentence in bars if not met]


def _points(table, *names):
    """Return columns as an (n, 2) float array, empty for a table without columns."""
    if len(table) == 0:
        return np.empty((0, len(names)))
    return np.column_stack([np.ma.filled(np.ma.asarray(table[name], float), np.nan) for name in names])


def _nearest(points, others):
    """Return the distance to and index of the nearest of `others`; infinitely far where there is none."""
    if len(others) == 0 or len(points) == 0:
        return np.full(len(points), np.inf), np.zeros(len(points), int)
    index = np.flatnonzero(np.isfinite(others).all(axis=1))
    if index.size == 0:
        return np.full(len(points), np.inf), np.zeros(len(points), int)
    distance, nearest = cKDTree(others[index]).query(np.nan_to_num(points, nan=-1e9))
    return distance, index[nearest]


def score(truth: Table, candidates: Table, objects: Table, megapixels: float) -> Score:
    """Score one image.

    Parameters
    ----------
    truth : Table
        As `nightsift.simulate.simulate.image` returns it; ``fwhm`` (pixels) in its meta is the matching radius, 3
        without it.
    candidates : Table
        With ``x y`` (pixels) and, where they exist, ``snr`` and ``score``; may be empty and without columns.
    objects : Table
        With ``x y ra dec mag_calib mag_calib_err flags``; may be empty and without columns.
    megapixels : float
        Area of the image.

    Returns
    -------
    Score
    """
    radius = truth.meta.get("fwhm", _FWHM)
    places, found_at = _points(truth, "x", "y"), _points(candidates, "x", "y")
    kind = np.asarray(truth["kind"])
    wanted = truth[np.isin(kind, ("transient", "variable")) & np.asarray(truth["usable"])]
    change = wanted["delta_snr"] if "delta_snr" in wanted.colnames else wanted["snr"]
    wanted["significance"] = np.abs(np.where(wanted["kind"] == "variable", change, wanted["snr"]))
    wanted["found"] = _nearest(_points(wanted, "x", "y"), found_at)[0] <= radius
    wanted["image"] = np.full(len(wanted), str(truth.meta.get("image", "")), dtype="U64")
    stars, offsets = _compare_stars(truth, objects, places, radius)
    false = _false_candidates(truth, candidates, places, radius)
    wanted.meta = {}
    return Score(wanted, false, stars, offsets, float(megapixels))


def _false_candidates(truth, candidates, places, radius):
    kind, found_at = np.asarray(truth["kind"]), _points(candidates, "x", "y")
    wrong = ~(_nearest(found_at, places[np.isin(kind, REAL)])[0] <= radius)
    distance, index = _nearest(found_at[wrong], places)
    out = Table({"image": np.full(wrong.sum(), str(truth.meta.get("image", "")), dtype="U64")})
    out["x"], out["y"] = found_at[wrong].T
    for name in ("snr", "score"):
        out[name] = _points(candidates, name)[wrong, 0] if name in candidates.colnames else np.nan
    known = np.isfinite(distance)
    out["nearest"] = np.array(kind[index] if len(kind) else [""] * len(out), dtype="U9")
    out["nearest"][~known] = ""
    out["nearest_flux"] = np.where(known, np.asarray(truth["flux"])[index] if len(kind) else np.nan, np.nan)
    out["distance"] = distance
    return out


def _isolated(truth, places, radius):
    """Say which sources have neighbours with less than a hundredth of their light within 3.5 FWHM."""
    flux, near = np.asarray(truth["flux"], float), np.zeros(len(truth))
    if len(truth) > 1:
        pairs = cKDTree(places).query_pairs(_ISOLATION * radius, output_type="ndarray")
        np.add.at(near, pairs[:, 0], flux[pairs[:, 1]])
        np.add.at(near, pairs[:, 1], flux[pairs[:, 0]])
    return near < _NEIGHBOUR_LIGHT * flux


def _compare_stars(truth, objects, places, radius):
    """Return the magnitude and position residuals of isolated stars that carry no flag."""
    empty = Table({"dmag": np.empty(0), "err": np.empty(0)}), Table({"dx": np.empty(0), "dy": np.empty(0)})
    if len(objects) == 0 or len(truth) == 0:
        return empty
    distance, index = _nearest(places, _points(objects, "x", "y"))
    chosen = (np.asarray(truth["kind"]) == "star") & (np.asarray(truth["snr"]) > _STAR_SNR) & (distance < radius / 2)
    chosen &= _isolated(truth, places, radius) & (np.asarray(objects["flags"])[index] == 0)
    true, seen = truth[chosen], objects[index[chosen]]
    magnitudes = _points(seen, "mag_calib", "mag_calib_err")
    stars = Table({"dmag": magnitudes[:, 0] - np.asarray(true["mag_instr"], float), "err": magnitudes[:, 1]})
    stars = stars[np.isfinite(stars["dmag"])]
    offsets = _pixel_offsets(truth, true, seen)
    bright = (np.asarray(true["snr"]) > _ASTROMETRY_SNR) & np.isfinite(offsets).all(axis=1)
    return stars, Table(offsets[bright], names=("dx", "dy"))


def _pixel_offsets(truth, true, seen):
    """Turn differences of sky position to pixels with the linear part of the truth's own positions."""
    here, sky = _points(truth, "x", "y"), _points(truth, "ra", "dec")
    center = sky[0]
    shrink = np.cos(np.radians(center[1]))

    def plane(position):
        east = (position[:, 0] - center[0] + 180) % 360 - 180
        return np.column_stack([east * shrink, position[:, 1] - center[1]])

    design = np.column_stack([here - here.mean(axis=0), np.ones(len(here))])
    jacobian = np.linalg.lstsq(design, plane(sky), rcond=None)[0][:2]
    if np.linalg.matrix_rank(jacobian) < 2:
        return np.full((len(true), 2), np.nan)
    return (plane(_points(seen, "ra", "dec")) - plane(_points(true, "ra", "dec"))) @ np.linalg.inv(jacobian)


def combine(scores: Sequence[Score]) -> Score:
    """Return the score of several images taken together; at least one must be given."""
    tables = [vstack([getattr(one, name) for one in scores]) for name in ("wanted", "false", "stars", "offsets")]
    return Score(*tables, sum(one.megapixels for one in scores))
