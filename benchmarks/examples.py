"""Make the examples of real and bogus that come with the package, from results of campaigns.

    python benchmarks/examples.py WORKDIR [WORKDIR ...]

Takes the fakes and known bogus of each image (fakes.fits) and, of simulated campaigns, every candidate that the truth
explains, or does not. Which examples an image gives is the group that is held out together; prints how well models do
on all examples of images that they were not trained on, and writes some of them to
nightsift/transients/data/examples.npz.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table
from scipy.spatial import cKDTree

from nightsift.simulate.truth import REAL
from nightsift.tables import FAKES
from nightsift.transients.realbogus import Examples, features, fit_classifier, quality, shipped, train

NEAR = 2.0  # pixels


def of_image(folder: Path, truth: Path):
    """Return features and truth of an image's examples."""
    fakes = Table.read(folder / "fakes.fits")
    if not len(fakes):
        return np.zeros((0, 1)), np.zeros(0, bool), np.zeros(0)
    fwhm = fits.getheader(folder / "psf.fits")["PSFFWHM"]
    found = fakes[np.asarray(fakes["found"], bool)]
    kind = np.asarray(found["kind"], str)
    values, real = features(found, fwhm), np.isin(kind, FAKES)
    snr = np.abs(np.asarray(found["flux"] / found["bgerr"]))
    if truth.exists() and (folder / "candidates_all.fits").exists():
        table = Table.read(folder / "candidates_all.fits")
        there = Table.read(truth)
        movers = np.asarray(there["kind"], str) == "hpm"
        moving = np.column_stack([there["x"], there["y"]])[movers]
        there = there[~movers & np.isin(np.asarray(there["kind"], str), REAL)]
        hard = [any(text in row for text in ("masked", "saturated")) for row in np.asarray(table["reasons"], str)]
        table = table[~np.array(hard, bool)]
        away = cKDTree(np.column_stack([there["x"], there["y"]])).query(np.column_stack([table["x"], table["y"]]))[0]
        # Between near and far nothing is certain.
        sure = (away < NEAR) | (away > 4 * NEAR)
        # Stars that move are no transients, but what they leave is no artefact.
        sure &= cKDTree(moving).query(np.column_stack([table["x"], table["y"]]))[0] > 8 * NEAR if len(moving) else True
        values = np.concatenate([values, features(table[sure], fwhm)])
        real = np.concatenate([real, away[sure] < NEAR])
        snr = np.concatenate([snr, np.abs(np.asarray(table["flux"] / table["bgerr"])[sure])])
    return values, real, snr


def odds(real) -> float:
    return real.sum() / (~real).sum()


def shifted(score, ratio):
    """Return probabilities where the odds of real ones are larger by a ratio than among what a model was trained on."""
    return 1 / (1 + (1 / score - 1) / ratio)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdirs", type=Path, nargs="+")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parents[1] / "nightsift" / "transients" / "data" / "examples.npz"
    )
    parser.add_argument("--most", type=int, default=4000, help="examples of a kind that are kept, at random (4000)")
    parser.add_argument("--check", action="store_true", help="print the figures only")
    parser.add_argument("--shipped", action="store_true", help="the same, of the model that comes with the package")
    options = parser.parse_args()
    parts, group = [], 0
    for workdir in options.workdirs:
        for folder in sorted((workdir / "results" / "images").iterdir()):
            if (folder / "psf.fits").exists() and (folder / "fakes.fits").exists():
                values, real, snr = of_image(folder, workdir / "truth" / f"{folder.name}.ecsv")
                if len(real):
                    parts.append((values, real, np.full(len(real), group), snr))
                    group += 1
    values, real, groups, snr = (np.concatenate(column) for column in zip(*parts, strict=True))
    rng = np.random.default_rng(0)
    kept = np.zeros(len(real), bool)
    for kind in (real, ~real):
        kept[rng.permutation(np.flatnonzero(kind))[: options.most]] = True
    everything, held_out = Examples(values, real, groups), np.full(len(real), np.nan)
    if options.shipped:
        held_out = shifted(train().score(values), odds(real) / odds(shipped().real))
    for fold in () if options.shipped else range(5):
        out = groups % 5 == fold
        if out.any():
            of_others = everything[kept & ~out]
            score = fit_classifier(of_others, None).predict_proba(values[out])[:, 1]
            held_out[out] = shifted(score, odds(real) / odds(of_others.real))
    print(f"{group} images, {real.sum()} real, {(~real).sum()} bogus, {kept.sum()} kept")
    for low in (0, 5, 7, 10):
        found = quality(held_out[snr > low], real[snr > low])
        bins = found.pop("reliability")
        print(f"S/N > {low}: {json.dumps(found)}")
        for edge, number, mean, share in bins:
            error = np.sqrt(max(share * (1 - share), 0.5 / number) / number)
            print(f"  score from {edge}: {number}, share of real less mean score {share - mean:+.3f} +- {error:.3f}")
    if not (options.check or options.shipped):
        np.savez_compressed(
            options.out, values=values[kept].astype(np.float16), real=real[kept], group=groups[kept].astype(np.int16)
        )
        print(f"wrote {options.out}: {options.out.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
