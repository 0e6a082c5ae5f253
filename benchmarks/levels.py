"""Completeness by the light beneath a transient, beside what its noise allows."""

from __future__ import annotations

import itertools

import numpy as np
from scipy.stats import norm

LEVELS = (1.0, 3.0, 10.0, 30.0)  # surface brightness of the hosts, in standard deviations of a pixel of the sky
BETWEEN = (0.6, 1.7, 5.5, 17.0, 60.0)
EDGES = (5.0, 6.0, 7.0, 8.0, 10.0, 15.0, np.inf)


def by_light(snr, light, found, threshold: float) -> list[dict]:
    """Return what was found of transients, by level of light and S/N.

    Parameters
    ----------
    snr : array
        What a matched filter with all other light in the noise of image and template shows of each in the mean.
    light : array
        Surface brightness at the place, in standard deviations of a pixel of the sky.
    found : bool array
    threshold : float
        S/N above which something is a detection.

    Returns
    -------
    list of dict
        ``level``, and ``bins`` of ``low high found there ideal``, the last being how many noise would leave above the
        threshold.
    """
    ideal, out = norm.cdf(np.asarray(snr) - threshold), []
    for level, (dim, bright) in zip(LEVELS, itertools.pairwise(BETWEEN), strict=True):
        bins = []
        for low, high in itertools.pairwise(EDGES):
            inside = (light >= dim) & (light < bright) & (snr >= low) & (snr < high)
            counts = {
                "found": int(found[inside].sum()),
                "there": int(inside.sum()),
                "ideal": float(ideal[inside].sum()),
            }
            bins.append({"low": low, "high": high} | counts)
        out.append({"level": level, "bins": bins})
    return out


def lines(figures: dict[str, list[dict]]):
    """Yield the table of several lists: found, there, and how many there should be."""
    heads = [f"{low:g}-{high:g}" if np.isfinite(high) else f"{low:g}+" for low, high in itertools.pairwise(EDGES)]
    yield "Transients found / there (ideal), by the brightness of the host, in sigma of the sky, and S/N on it"
    yield f"{'':23}{'host':>6}" + "".join(f"{head:^19}" for head in heads) + f"{'S/N > 7':^19}"
    for what, levels in figures.items():
        for one in levels:
            parts = [*one["bins"], above(one["bins"], 7.0)]
            yield f"{what:23}{one['level']:6g}" + "".join(f"{cell(part):^19}" for part in parts)


def above(bins: list[dict], low: float) -> dict:
    """Return the bins from a S/N on together."""
    chosen = [part for part in bins if part["low"] >= low]
    return {key: sum(part[key] for part in chosen) for key in ("found", "there", "ideal")}


def cell(part: dict) -> str:
    return f"{part['found']:4d}/{part['there']:<4d}({part['ideal']:.1f})" if part["there"] else "-"
