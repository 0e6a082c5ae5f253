"""Compare nightsift's subtraction with every other program that is installed, on the same simulated pairs of images.

    python benchmarks/subtract.py [--fwhm 2.4 3.5 4.5] [--stars 300 1000] [--psf mild hard] [--renderer own galsim]
                                  [--repeat 3] [--seed 1] [--stdpipe PYTHON] [--json FILE]

Every method gets the same image, the same template on the image's pixels, the same noise maps and the same stars, and
one core. HOTPANTS runs if `hotpants` is on the PATH; STDPipe's SFFT if `stdpipe` can be imported, by this interpreter
or by the one that --stdpipe names; GalSim renders if it can be imported. What the columns mean is in README.md.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
from pairs import GAIN, NOISE, RIM, SIZE, TEMPLATE_GAIN, VARIATION, Case, cut, pair
from peers import Inputs, hotpants, light_in_aperture, robust, sfft

ONE_CORE = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMBA", "NUMEXPR")}
THRESHOLD = 5.0
BINS = ((5, 7), (7, 10), (10, np.inf))


def prepare(case: Case, folder: Path):
    """Render, align the template and find the stars: what every method starts from."""
    from scipy import ndimage

    from nightsift import parameters
    from nightsift.detect.detect import detect
    from nightsift.image.background import background
    from nightsift.image.padding import PAD
    from nightsift.image.seeing import widths
    from nightsift.template.alignment import Target, TemplateImage, align

    data, truth, (wcs, other) = pair(case)
    clear = np.zeros(data["image"].shape, np.uint16)
    found = detect(data["image"], clear, GAIN, parameters.DetectConfig())
    raw = data.pop("raw")
    start = time.perf_counter()
    source = TemplateImage(raw, np.zeros(raw.shape, np.uint16), other, gain=TEMPLATE_GAIN)
    aligned = align(source, Target(wcs, clear.shape), parameters.TemplateConfig())
    seconds = time.perf_counter() - start
    sky = background(data["image"], clear != 0, 64)
    # Smoothed, as every pipeline does: weights that know of a pixel's own noise bias what is weighted.
    photons = np.maximum(ndimage.gaussian_filter(data["image"] - sky.level, 1.0), 0) / GAIN
    good = (found.objects["flags"] == 0) & (found.objects["snr"] > 20)
    stars = found.objects[good]
    width = widths(aligned.data, stars["x"] + PAD, stars["y"] + PAD, case.fwhm / 2, aligned.mask != 0)
    core = np.s_[PAD:-PAD, PAD:-PAD]
    Inputs(
        image=data["image"] - sky.level,
        noise=np.sqrt(sky.noise**2 + photons).astype(np.float32),
        mask=clear != 0,
        template=aligned.data[core],
        template_noise=aligned.noise[core],
        template_mask=aligned.mask[core] != 0,
        gain=GAIN,
        template_gain=TEMPLATE_GAIN,
        fwhm=found.seeing.fwhm,
        template_fwhm=np.nanmedian(width),
        stars=np.array([stars["x"], stars["y"]]),
        psf=data["psf"],
        place=truth["place"],
        profiles=truth["profiles"],
    ).write(folder / "inputs.npz")
    whole = {"template": aligned.data, "template_noise": aligned.noise, "template_mask": aligned.mask}
    np.savez(folder / "pair.npz", image=data["image"], aperture=found.aperture, **whole)
    found.objects.write(folder / "objects.fits", overwrite=True)
    return truth, found, seconds


# --- The methods: each runs in a process of its own -------------------------------------------------------------------


def run_nightsift(folder: Path, given: Inputs, repeat: int, method: str):
    """Run the stages `subtract`, by a method, and `transients`."""
    from astropy.table import Table

    from nightsift import parameters
    from nightsift.psf.forced import forced
    from nightsift.subtract.difference import Exposure, Reference, Search
    from nightsift.subtract.subtract import subtract
    from nightsift.transients.transients import transients

    objects = Table.read(folder / "objects.fits")
    with np.load(folder / "pair.npz") as arrays:
        data = {name: arrays[name][()] for name in arrays}
    clear = np.zeros(data["image"].shape, np.uint16)
    exposure = Exposure(data["image"], clear, GAIN, float(given.fwhm), float(data["aperture"]))
    reference = Reference(data["template"], data["template_noise"], data["template_mask"])
    seconds, later = [], []
    for _ in range(repeat):
        start = time.perf_counter()
        found = subtract(exposure, reference, objects, parameters.SubtractConfig(method=method))
        middle = time.perf_counter()
        table = transients(Search.of(found, clear != 0), objects, parameters.TransientsConfig()).candidates
        seconds.append(middle - start)
        later.append(time.perf_counter() - middle)
    real = table[np.asarray(table["is_real"], bool)]
    own = forced(found.data, found.sigma, found.mask != 0, found.psf, *given.place)
    return {
        "diff": found.data,
        "snr": found.snr,
        "usable": found.mask == 0,
        "flux": own.flux,
        "fluxerr": own.fluxerr * found.facts["noise_correlation"],
        "seconds": np.median(seconds),
        "later": np.median(later),
        "vetted": np.array([real["x"], real["y"]]),
        "facts": json.dumps({k: v for k, v in found.facts.items() if isinstance(v, (int, float, str))}),
    }


OWN = {"nightsift": "alard-lupton", "nightsift delta": "delta", "nightsift zogy": "zogy"}
METHODS = {
    **{name: partial(run_nightsift, method=method) for name, method in OWN.items()},
    "HOTPANTS order 0": lambda *given: hotpants(*given, 0),
    "HOTPANTS order 2": lambda *given: hotpants(*given, 2),
    "SFFT order 0": lambda *given: sfft(*given, 0),
    "SFFT order 2": lambda *given: sfft(*given, 2),
}


def worker(method: str, folder: Path, repeat: int) -> None:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    result = METHODS[method](folder, Inputs.read(folder / "inputs.npz"), repeat)
    who = resource.RUSAGE_CHILDREN if method.startswith("HOTPANTS") else resource.RUSAGE_SELF
    np.savez(folder / "result.npz", megabytes=resource.getrusage(who).ru_maxrss / 1024, **result)


# --- Judgement --------------------------------------------------------------------------------------------------------


def local_maxima(snr, usable, fwhm):
    from nightsift.transients.transients import peaks

    x, y, _ = peaks(np.where(usable, snr, 0), THRESHOLD, fwhm)
    return x, y


def found_and_false(x, y, truth, fwhm):
    """Share of the transients found by S/N, and what else was found, a megapixel."""
    inner = (x > RIM) & (x < SIZE - RIM) & (y > RIM) & (y < SIZE - RIM)
    distance = np.hypot(x[inner] - truth["place"][0][:, None], y[inner] - truth["place"][1][:, None])
    near = distance < max(1.5, 0.6 * fwhm)
    seen = near.any(axis=1)
    counts = [[int(seen[inside].sum()), int(inside.sum())] for inside in (_within(truth["snr"], *b) for b in BINS)]
    # Rings around a bright transient are its own, not false.
    bright = (truth["snr"] > 30)[:, None] & (distance < 3 * fwhm)
    return counts, int((~near.any(axis=0) & ~bright.any(axis=0)).sum()) / ((SIZE - 2 * RIM) / 1024) ** 2


def _within(values, low, high):
    return (values >= low) & (values < high)


def judge(result, truth, fwhm: float):
    """Return the figures of one method on one pair."""
    inner = np.zeros(result["usable"].shape, bool)
    inner[RIM:-RIM, RIM:-RIM] = True
    quiet = inner & result["usable"] & (truth["static"] < 0.05 * NOISE) & (truth["new"] < 0.01 * NOISE)
    median, sigma = robust(result["snr"][quiet])
    half = int(np.rint(fwhm / 2)) + 1
    column, row = np.rint(truth["star"]).astype(int)
    bright = _within(truth["star_snr"], 100, 1000) & (column > RIM) & (column < SIZE - RIM)
    bright &= (row > RIM) & (row < SIZE - RIM)
    square = result["diff"] ** 2 / truth["variance"]
    chi2 = cut(square, column[bright], row[bright], half).mean(axis=(1, 2))
    counts, false = found_and_false(*local_maxima(result["snr"], result["usable"], fwhm), truth, fwhm)
    good = np.isfinite(result["flux"])
    strong = good & (truth["snr"] > 15)
    share = result["share"] if "share" in result else 1.0
    wanted = truth["flux"] * share
    bias = np.median((result["flux"] / wanted)[strong]) - 1
    pull = robust(((result["flux"] - wanted) / result["fluxerr"])[good])
    bright_pull = robust(((result["flux"] - wanted) / result["fluxerr"])[strong])
    return {
        "seconds": float(result["seconds"]),
        "megabytes": float(result["megabytes"]),
        "sky_median": float(median),
        "sky_sigma": float(sigma),
        "core_chi2": float(np.median(chi2)),
        "found": counts,
        "false": float(false),
        "bias": float(bias),
        "pull_median": float(pull[0]),
        "pull_sigma": float(pull[1]),
        "pull_strong": float(bright_pull[1]),
    }


def line(name, figures):
    found = "  ".join(f"{seen:3d}/{all_:<3d}" for seen, all_ in figures["found"])
    return (
        f"{name:24}{figures['seconds']:7.2f}{figures['megabytes']:7.0f}{figures['sky_median']:8.3f}"
        f"{figures['sky_sigma']:7.3f}{figures['core_chi2']:8.2f}   {found}{figures['false']:7.1f}"
        f"{100 * figures['bias']:8.2f}{figures['pull_median']:7.2f}{figures['pull_sigma']:6.2f}"
        f"{figures['pull_strong']:6.2f}"
    )


HEAD = (
    f"{'method':24}{'s':>7}{'MB':>7}{'sky med':>8}{'sigma':>7}{'core X2':>8}   {'S/N 5-7':9}{'7-10':9}{'>10':7}"
    f"{'false':>7}{'bias %':>8}{'pull':>7}{'sigma':>6}{'>15':>6}"
)


def installed(stdpipe: str | None) -> dict[str, str]:
    """Return the interpreter for each method that can run."""
    ready = dict.fromkeys(OWN, sys.executable)
    if shutil.which("hotpants"):
        ready |= {name: sys.executable for name in METHODS if name.startswith("HOTPANTS")}
    if stdpipe or importlib.util.find_spec("stdpipe"):
        ready |= {name: stdpipe or sys.executable for name in METHODS if name.startswith("SFFT")}
    return ready


def compare(case: Case, ready, repeat: int):
    """Run every method on one pair and print its table."""
    rows = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        truth, detection, seconds = prepare(case, folder)
        print(f"\n{case.name} (measured FWHM {detection.seeing.fwhm:.2f} px, template {seconds:.2f} s)\n{HEAD}")
        fwhm = float(detection.seeing.fwhm)
        for method in METHODS:
            if method not in ready:
                print(f"{method:24} not installed")
                continue
            arguments = ["--worker", method, "--folder", str(folder), "--repeat", str(repeat)]
            done = subprocess.run([ready[method], __file__, *arguments], stderr=subprocess.PIPE, text=True)
            if done.returncode:
                print(f"{method:24} failed: {(done.stderr.strip().splitlines() or ['no message'])[-1][:90]}")
                continue
            with np.load(folder / "result.npz") as arrays:
                result = {key: arrays[key][()] for key in arrays}
            if method in OWN:
                result["share"] = light_in_aperture(truth["place"], truth["profiles"], detection.aperture)
            rows[method] = judge(result, truth, fwhm)
            print(line(method, rows[method]), flush=True)
            if method in OWN:
                counts, false = found_and_false(*result["vetted"], truth, fwhm)
                vetted = f"{method}, vetted"
                rows[vetted] = rows[method] | {"found": counts, "false": false}
                rows[vetted]["seconds"] = rows[method]["seconds"] + float(result["later"])
                print(line(vetted, rows[vetted]))
                print("  ", str(result["facts"]))
    return rows


def summary(everything):
    """Medians over the pairs, sums for what is counted."""
    print(f"\nall {len(everything)} pairs\n{HEAD}")
    names = list(dict.fromkeys(name for _, rows in everything for name in rows))
    for name in names:
        rows = [rows[name] for _, rows in everything if name in rows]
        figures = {key: float(np.median([row[key] for row in rows])) for key in rows[0] if key != "found"}
        figures["false"] = float(np.mean([row["false"] for row in rows]))
        figures["found"] = np.sum([row["found"] for row in rows], axis=0).tolist()
        print(line(name, figures))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fwhm", type=float, nargs="+", default=[2.4, 3.5, 4.5])
    parser.add_argument("--stars", type=int, nargs="+", default=[300, 1000])
    parser.add_argument("--psf", nargs="+", choices=VARIATION, default=list(VARIATION))
    parser.add_argument("--renderer", nargs="+", choices=("own", "galsim"), default=["own"])
    parser.add_argument("--repeat", type=int, default=3, help="runs whose median time counts")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--stdpipe", help="a Python that can import stdpipe, if this one cannot")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--worker", choices=METHODS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.worker, options.folder, options.repeat)
        return
    os.environ |= ONE_CORE
    ready = installed(options.stdpipe)
    everything = []
    for renderer in options.renderer:
        if renderer == "galsim" and not importlib.util.find_spec("galsim"):
            print("GalSim: not installed")
            continue
        cases = [
            Case(f, n, p, renderer, options.seed) for p in options.psf for f in options.fwhm for n in options.stars
        ]
        everything += [(case, compare(case, ready, options.repeat)) for case in cases]
    if len(everything) > 1:
        summary(everything)
    if options.json:
        options.json.write_text(json.dumps([{"case": asdict(case), "figures": rows} for case, rows in everything]))


if __name__ == "__main__":
    main()
