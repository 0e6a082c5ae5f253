"""Measure the stage `uncatalogued` on finished campaigns of scripts/simulate.py.

    python benchmarks/uncatalogued.py WORKDIR [WORKDIR ...]

Takes objects, masks and solutions of each image from the results and repeats the stage with catalogues made from the
truth: one like a survey's, of stars and galaxies down to S/N 3 of a star in the median image, as the simulation has it;
one of all stars and galaxies; one of all stars; one of stars down to S/N 10.
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
from nightsift.photometry.solution import ApertureSeeing, ZeroPointModel
from nightsift.simulate.simulate import catalog_error
from nightsift.simulate.sources import STARS
from nightsift.simulate.truth import REAL
from nightsift.uncatalogued.uncatalogued import BLEND, Frame, uncatalogued

BOTH = (*STARS, "galaxy")
CATALOGS = {  # kinds, and the S/N at which they end
    "a survey's: stars and galaxies of S/N 3": (BOTH, 3),
    "all stars and galaxies": (BOTH, None),
    "all stars": (STARS, None),
    "stars of S/N 10": (STARS, 10),
}
ALIKE = 0.15  # in the logarithm of the S/N: stars that tell the magnitude of an S/N
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
        solution = ZeroPointModel.from_dict(facts["photometry"])
        detected, shape = facts["detect"], tuple(facts["inspect"]["shape"])
        seeing = ApertureSeeing(detected["fwhm"], facts["photometry"]["pixscale"], detected["aperture"], shape)
        rms = float(np.sqrt(np.mean(np.square(facts["astrometry"]["rms"]))))
        self.frame = Frame(seeing, solution, rms, read_images(folder / "mask.fits")[0]["PRIMARY"])
        self.objects, self.truth = read_table(folder / "objects.fits"), Table.read(truth)

    def magnitude(self, snr: float) -> float:
        """Return the magnitude of stars of a low S/N, by those of about 10: their noise is that of the background."""
        stars = self.truth[np.isin(self.truth["kind"], STARS)]
        off = np.log10(stars["snr"] / 10)
        return float(np.median((stars["mag_instr"] + 2.5 * off)[np.abs(off) < ALIKE]) + 2.5 * np.log10(10 / snr))

    def searched(self, kinds, limit: float):
        """Return the result of the stage with a catalogue of these kinds of sources down to a magnitude."""
        rows = self.truth[np.isin(self.truth["kind"], kinds) & (self.truth["mag_instr"] < limit)]
        error = catalog_error(rows["mag_instr"], limit, rows["kind"] == "galaxy")
        mag = rows["mag_instr"] + np.random.default_rng(len(rows)).normal(0, error)
        stars = Table({"ra": rows["ra"], "dec": rows["dec"], f"{self.frame.solution.band}mag": mag})
        frame = replace(self.frame, solution=replace(self.frame.solution, color=None))
        return uncatalogued(self.objects, stars, frame, parameters.UncataloguedConfig())

    def tally(self, kinds, limit: float) -> Counter:
        """Count the transients without a host, of S/N 10 or more and not blended, and what is false.

        Blended is what has something of the catalogue within 2 FWHM.
        """
        truth, fwhm = self.truth, self.frame.seeing.fwhm
        result = self.searched(kinds, limit)
        found = result.table[np.asarray(result.table["is_candidate"], bool)]
        wanted = truth[(truth["kind"] == "transient") & ~truth["on_host"] & truth["usable"] & (truth["snr"] >= 10)]
        listed = truth[np.isin(truth["kind"], kinds) & (truth["mag_instr"] < limit)]
        wanted = wanted[~within(wanted, listed, BLEND * fwhm)]
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
        faint = np.nanmax(1.0857 / objects["mag_psf_err"]) < parameters.UncataloguedConfig().min_snr
        return MISSED + ("too low an S/N" if faint else "explained by stars")


def campaign(work: Path) -> list[Image]:
    """Return the images of a campaign that have results."""
    paths = [(work / "results" / "images" / truth.stem, truth) for truth in sorted((work / "truth").glob("*.ecsv"))]
    return [Image(folder, truth) for folder, truth in paths if (folder / "objects.fits").is_file()]


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdirs", metavar="WORKDIR", nargs="+", type=Path)
    workdirs = parser.parse_args(arguments).workdirs
    campaigns = [campaign(work) for work in workdirs]
    images = [image for one in campaigns for image in one]
    area = sum(image.frame.mask.size for image in images) / 1e6
    print(f"{len(images)} images, {area:.1f} megapixels\n")
    print("| catalogue | of all | of those above its depth | | false a megapixel | galaxies | missed above its depth |")
    print("|---|---|---|---|---|---|---|")
    for name, (kinds, snr) in CATALOGS.items():
        n = Counter()
        for one in campaigns:
            limit = np.inf if snr is None else float(np.median([image.magnitude(snr) for image in one]))
            n += sum((image.tally(kinds, limit) for image in one), Counter())
        shares = f"{n['found']}/{n['wanted']} | {n['deep found']}/{n['deep']} | {n['deep found'] / n['deep']:.1%}"
        causes = [f"{n[key]} {key[len(MISSED) :]}" for key in sorted(n, key=n.get, reverse=True) if MISSED in key]
        rates = f"{n['false'] / area:.2f} | {n['galaxies'] / area:.2f}"
        print(f"| {name} | {shares} | {rates} | {'; '.join(causes)} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
