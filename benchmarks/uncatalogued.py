"""Measure the stage `uncatalogued` on finished campaigns of scripts/simulate.py.

    python benchmarks/uncatalogued.py WORKDIR [WORKDIR ...]

Takes objects, masks and solutions of each image from the results and repeats the stage with three catalogues: that of
the campaign, of stars down to S/N 10 in the median image; one of all stars; one of all stars and galaxies.
"""

import argparse
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
from astropy.table import Table
from scipy.spatial import cKDTree

from nightsift import parameters
from nightsift.io.products import read_images, read_json, read_table
from nightsift.photometry import Photometry, Seeing
from nightsift.score import REAL
from nightsift.uncatalogued import BLEND, Frame, uncatalogued

STARS = ("star", "variable", "hpm")
CATALOGS = {"campaign's": None, "all stars": STARS, "stars and galaxies": (*STARS, "galaxy")}
PER_MATCH = dict.fromkeys(("match_object", "match_catalog", "used", "residual", "contamination"), ())
ERROR = 0.02  # mag, of the deeper catalogues
MISSED = "missed: "


def points(table) -> np.ndarray:
    return np.column_stack([table["x"], table["y"]])


def within(these, others, radius) -> np.ndarray:
    """Tell which of `these` have one of `others` within a radius, in pixels."""
    if not len(these) or not len(others):
        return np.zeros(len(these), bool)
    return cKDTree(points(others)).query(points(these))[0] <= radius


class Image:
    """What the stage gets of an image, and the truth."""

    def __init__(self, folder: Path, truth: Path):
        facts = {name: read_json(folder / f"{name}.json") for name in ("inspect", "detect", "astrometry", "photometry")}
        solution = Photometry.from_dict(PER_MATCH | facts["photometry"] | {"warnings": ()})
        detected, shape = facts["detect"], tuple(facts["inspect"]["shape"])
        seeing = Seeing(detected["fwhm"], facts["photometry"]["pixscale"], detected["aperture"], shape)
        rms = float(np.sqrt(np.mean(np.square(facts["astrometry"]["rms"]))))
        self.frame = Frame(seeing, solution, rms, read_images(folder / "mask.fits")[0]["PRIMARY"])
        self.objects, self.catalog = read_table(folder / "objects.fits"), read_table(folder / "catalog.fits")
        self.truth = Table.read(truth)

    def searched(self, kinds):
        """Return the result of the stage with a catalogue of these kinds of sources, or with the campaign's."""
        params = parameters.Uncatalogued()
        if kinds is None:
            return uncatalogued(self.objects, self.catalog, self.frame, params)
        rows = self.truth[np.isin(self.truth["kind"], kinds)]
        noise = np.random.default_rng(len(rows)).normal(0, ERROR, len(rows))
        band = self.frame.solution.band
        stars = Table({"ra": rows["ra"], "dec": rows["dec"], f"{band}mag": rows["mag_instr"] + noise})
        frame = replace(self.frame, solution=replace(self.frame.solution, color=None))
        return uncatalogued(self.objects, stars, frame, params)

    def tally(self, kinds) -> Counter:
        """Count the transients without a host, of S/N 10 or more and not blended, and what is false.

        Blended is what has something of the catalogue, or a star, within 2 FWHM.
        """
        truth, fwhm = self.truth, self.frame.seeing.fwhm
        result = self.searched(kinds)
        found = result.table[np.asarray(result.table["is_candidate"], bool)]
        wanted = truth[(truth["kind"] == "transient") & ~truth["on_host"] & truth["usable"] & (truth["snr"] >= 10)]
        wanted = wanted[~within(wanted, truth[np.isin(truth["kind"], kinds or STARS)], BLEND * fwhm)]
        seen, deep = within(wanted, found, fwhm), ~(np.asarray(wanted["mag_instr"]) > result.depth)
        wrong = found[~within(found, truth[np.isin(truth["kind"], REAL)], fwhm)]
        galaxies = within(wrong, truth[truth["kind"] == "galaxy"], fwhm / 2)
        counts = {"wanted": len(wanted), "found": seen.sum(), "deep": deep.sum(), "deep found": (deep & seen).sum()}
        counts |= {"false": len(wrong), "galaxies": galaxies.sum()}
        return Counter(counts) + Counter(self.cause(row, result.table) for row in wanted[deep & ~seen])

    def cause(self, row, table) -> str:
        """Tell why a transient is no candidate."""
        here, fwhm = row["x"], self.frame.seeing.fwhm
        objects, rest = (t[np.hypot(t["x"] - here, t["y"] - row["y"]) < fwhm] for t in (self.objects, table))
        if len(rest):
            return f"{MISSED}{rest['reasons'][0]}"
        if not len(objects):
            return f"{MISSED}no object of its own"
        faint = np.nanmax(1.0857 / objects["mag_psf_err"]) < parameters.Uncatalogued().min_snr
        return MISSED + ("too low an S/N" if faint else "explained by stars")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdirs", metavar="WORKDIR", nargs="+", type=Path)
    workdirs = parser.parse_args(arguments).workdirs
    paths = [
        (work / "results" / "images" / truth.stem, truth)
        for work in workdirs
        for truth in sorted((work / "truth").glob("*.ecsv"))
        if (work / "results" / "images" / truth.stem / "objects.fits").is_file()
    ]
    images = [Image(*pair) for pair in paths]
    area = sum(image.frame.mask.size for image in images) / 1e6
    print(f"{len(images)} images, {area:.1f} megapixels\n")
    print("| catalogue | of all | of those above its depth | | false a megapixel | galaxies | missed above its depth |")
    print("|---|---|---|---|---|---|---|")
    for name, kinds in CATALOGS.items():
        n = sum((image.tally(kinds) for image in images), Counter())
        shares = f"{n['found']}/{n['wanted']} | {n['deep found']}/{n['deep']} | {n['deep found'] / n['deep']:.1%}"
        causes = [f"{n[key]} {key[len(MISSED) :]}" for key in sorted(n, key=n.get, reverse=True) if MISSED in key]
        rates = f"{n['false'] / area:.2f} | {n['galaxies'] / area:.2f}"
        print(f"| {name} | {shares} | {rates} | {'; '.join(causes)} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
