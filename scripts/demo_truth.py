"""Print what the workflow found of a simulated campaign against the truth; exit code 1 if the bars are not met."""

import argparse
import itertools
import sys
from pathlib import Path

import numpy as np
from astropy.table import Table

from nightsift.simulate.truth import BINS, MAX_BIAS, MAX_FALSE, MAX_RMS, MIN_COMPLETENESS, Score, combine, score


def parse_arguments(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workdir", type=Path, help="folder with truth/ and results/")
    parser.add_argument("--list", type=int, default=15, metavar="N", help="list at most N missed and N false (15)")
    return parser.parse_args(arguments)


def read(path: Path) -> Table:
    """Read a table, empty where the image ended before it was written."""
    return Table.read(path) if path.exists() else Table()


def score_images(workdir: Path) -> dict[str, Score]:
    """Score each image that has a truth table."""
    out = {}
    for path in sorted((workdir / "truth").glob("*.ecsv")):
        truth, folder = Table.read(path), workdir / "results" / "images" / path.stem
        found = [read(folder / name) for name in ("candidates.fits", "objects.fits")]
        truth.meta["image"] = path.stem
        out[path.stem] = score(truth, *found, truth.meta["megapixels"])
    return out


def _share(found, there):
    return f"{found:4d} /{there:4d} {found / there:5.0%}" if there else f"{'-':>10} {'':5}"


def completeness_lines(total: Score):
    """Yield the table of completeness by S/N."""
    title = f"{'S/N':>8}   {'on hosts':^16}   {'off hosts':^16}   {'transients':^16}   {'variables':^16}"
    yield "Usable sources found, by the S/N of their change of flux"
    yield title
    yield "-" * len(title)
    edges = [*itertools.pairwise(BINS), (10.0, np.inf)]
    for low, high in edges:
        label = f"{low:.0f}-{high:.0f}" if np.isfinite(high) else f">={low:.0f}"
        parts = [total.counts("transient", low, high, on_host) for on_host in (True, False, None)]
        shares = [_share(*part) for part in (*parts, total.counts("variable", low, high))]
        yield f"{label:>8}   " + "   ".join(shares)


def image_lines(scores: dict[str, Score], total: Score):
    """Yield one line an image, and one for all."""
    width = max(len(name) for name in (*scores, "image"))
    title = f"{'image':<{width}} {'found, S/N>=10':>15} {'false':>6} {'per Mpx':>8} {'bias [mmag]':>14} {'pull':>6}"
    title += f" {'stars':>6} {'rms x [px]':>11} {'rms y [px]':>11}"
    yield title
    yield "-" * len(title)
    for name, one in (*scores.items(), ("all", total)):
        found, there = one.counts("transient", 10)
        bias, error = (1e3 * value for value in one.bias)
        line = f"{name:<{width}} {f'{found} / {there}':>15} {len(one.false):6d} {one.false_rate:8.2f}"
        line += f" {f'{bias:+.1f} ± {error:.1f}':>14} {one.pull_width:6.2f} {len(one.stars):6d}"
        yield line + f" {one.astrometric_rms[0]:11.3f} {one.astrometric_rms[1]:11.3f}"


def detail_lines(total: Score, limit: int):
    """Yield the missed transients with S/N >= 10 and the false candidates."""
    wanted = total.wanted
    missed = wanted[(wanted["kind"] == "transient") & (wanted["significance"] >= 10) & ~wanted["found"]]
    missed.sort("significance", reverse=True)
    yield f"Missed transients with S/N >= 10: {len(missed)}"
    for row in missed[:limit]:
        place = "on a host" if row["on_host"] else "off hosts"
        yield f"  {row['image']}  id {row['id']}  x {row['x']:.1f}  y {row['y']:.1f}  S/N {row['snr']:.1f}  {place}"
    yield f"False candidates: {len(total.false)}"
    for row in total.false[:limit]:
        near = f"nearest is a {row['nearest']} at {row['distance']:.1f} px" if row["nearest"] else "nothing near"
        yield f"  {row['image']}  x {row['x']:.1f}  y {row['y']:.1f}  S/N {row['snr']:.1f}  {near}"


def main(arguments=None) -> int:
    options = parse_arguments(arguments)
    scores = score_images(options.workdir)
    if not scores:
        print(f"no truth tables in {options.workdir / 'truth'}", file=sys.stderr)
        return 2
    total = combine(list(scores.values()))
    for block in (completeness_lines(total), image_lines(scores, total), detail_lines(total, options.list)):
        print("\n".join(block), end="\n\n")
    print(
        f"Bars: at least {MIN_COMPLETENESS:.0%} found at S/N >= 10, at most {MAX_FALSE:g} false per megapixel, "
        f"bias below {1e3 * MAX_BIAS:g} mmag, positions within {MAX_RMS:g} px"
    )
    failures = total.failures()
    print("\n".join(f"NOT MET: {sentence}" for sentence in failures) if failures else "All are met.")
    print(f"Report: {options.workdir / 'results' / 'campaign' / 'report.html'}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
