"""Measure what the workflow costs beyond the science: wall time x cores of a whole run over the time inside the stages.

    python benchmarks/overhead.py [--images 24] [--cores 2] [--keep FOLDER]

Simulates a campaign of 1-megapixel images, runs the target `tables` on it (plots and page aside) and adds up what
each job wrote into its log: the seconds inside the stage's own function, and those of the whole job (reading and
writing too).
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
LINE = re.compile(r"^(\w+): ([\d.]+) s of science in ([\d.]+) s$", re.MULTILINE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="work here and keep it")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = options.keep or Path(folder)
        simulate = [sys.executable, f"{ROOT}/scripts/simulate.py", str(work), "--images", str(options.images)]
        subprocess.run([*simulate, "--size", str(options.size)], check=True, stdout=subprocess.DEVNULL)
        run = ["-m", "snakemake", "--cores", str(options.cores), "--configfile", f"{work}/config.yaml"]
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, *run, "--directory", str(work), "-q", "all", "--", "tables"], check=True, cwd=ROOT
        )
        wall = time.perf_counter() - start
        report(work, wall, options)


def report(work: Path, wall: float, options) -> None:
    science, job, count = (defaultdict(float) for _ in range(3))
    for log in work.glob("results/**/logs/*.log"):
        for stage, inside, whole in LINE.findall(log.read_text()):
            science[stage] += float(inside)
            job[stage] += float(whole)
            count[stage] += 1
    print(f"{'stage':12}{'jobs':>6}{'science, s a job':>18}{'job, s a job':>14}")
    for stage in sorted(science, key=science.get, reverse=True):
        print(f"{stage:12}{count[stage]:6.0f}{science[stage] / count[stage]:18.3f}{job[stage] / count[stage]:14.3f}")
    spent = wall * options.cores
    print(f"wall {wall:.1f} s x {options.cores} cores = {spent:.1f} s: {spent / options.images:.2f} s an image")
    print(f"inside the stages' functions {sum(science.values()):.1f} s: ratio {spent / sum(science.values()):.2f}")
    print(f"inside the jobs, reading and writing too {sum(job.values()):.1f} s: ratio {spent / sum(job.values()):.2f}")


if __name__ == "__main__":
    main()
