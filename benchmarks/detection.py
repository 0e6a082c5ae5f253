"""Count how many of the transients that the photons allow become candidates, and how many candidates are false.

    python benchmarks/detection.py [--fields coarse-sparse fine-dense ...] [--images 2] [--seeds 1] [--cores 1]
                                   [--transients 60] [--workdir FOLDER] [--stdpipe PYTHON] [--json FILE]

Simulates one campaign for each field and seed, runs the whole workflow on it, and gives the same images, the template
as nightsift aligned it, its masks and its stars to the other programs: HOTPANTS if `hotpants` is on the PATH, STDPipe
if it can be imported, by this interpreter or by the one that --stdpipe names. What is finished in the working folder
is not done again. README.md says what the tables mean.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import itertools
import json
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import levels
import numpy as np
from astropy.table import Table, vstack
from peers import Inputs, hotpants, light_in_aperture, robust, stdpipe

ROOT = Path(__file__).parents[1]
TELESCOPES = {"coarse": 2.0, "middle": 3.2, "fine": 5.0}  # FWHM, pixels
CROWDS = {"sparse": 100, "demo": 1500, "dense": 4000}  # stars a megapixel
FIELDS = tuple(f"{telescope}-{crowd}" for telescope in TELESCOPES for crowd in CROWDS)
HOSTS = tuple(f"{telescope}-hosts" for telescope in TELESCOPES)  # of the crowd "demo", each transient on a galaxy
HOST_SNR = 30.0
SIZE, PSF_CHANGE = 1024, 0.06
EDGES = (5.0, 5.5, 6.0, 7.0, 8.0, 10.0, 20.0, 50.0, np.inf)
FLUX_EDGES = (5.0, 7.0, 10.0, 20.0, 50.0, np.inf)
SELECTED = 10.0  # S/N below which it depends on their fluxes what transients become candidates
WORTH_A_WORD = 7.0  # S/N above which a miss is listed
THRESHOLD = 5.0
VETTED = "nightsift, vetted"


@dataclass(frozen=True)
class Place:
    """One campaign: its folder, and the arguments of `scripts/simulate.py` that make it."""

    field: str
    folder: Path
    arguments: list[str]


def places(options, workdir: Path) -> list[Place]:
    out = []
    for field, seed in itertools.product(options.fields, options.seeds):
        telescope, crowd = field.split("-")
        folder = workdir / f"{field}-seed{seed}-{options.images}images-{options.transients}transients"
        hosts = ["--host-levels", *map(str, levels.LEVELS), f"--snr-max={HOST_SNR}"] if field in HOSTS else []
        stars = round(CROWDS["demo" if hosts else crowd] * SIZE**2 / 1e6)
        numbers = {"images": options.images, "seed": seed, "stars": stars, "size": SIZE}
        numbers |= {"transients": options.transients, "fwhm": TELESCOPES[telescope], "psf-change": PSF_CHANGE}
        given = [f"--{name}={value}" for name, value in numbers.items()]
        out.append(Place(field, folder, [str(folder), *given, *hosts]))
    return out


# --- Making: simulation, workflow, the others -------------------------------------------------------------------------


def run_workflow(place: Place, simulate: dict, cores: int) -> None:
    """Simulate and run what is not there; keep the wall time of a run that started from nothing."""
    work = place.folder
    if not (work / "config.yaml").exists():
        with contextlib.redirect_stdout(io.StringIO()):
            simulate["main"](place.arguments)
    fresh = not (work / "results").exists()
    command = ["-m", "snakemake", "--cores", str(cores), "--configfile", f"{work}/config.yaml"]
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *command, "--directory", str(work), "-q", "all", "--", "tables"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    (work / "snakemake.log").write_text(done.stdout)
    if done.returncode:
        sys.exit(f"the workflow failed on {place.field}: see {work}/snakemake.log")
    if fresh:
        (work / "wall.json").write_text(json.dumps({"seconds": time.perf_counter() - start, "cores": cores}))


def true_profiles(camera, x, y):
    from nightsift.image.moffat import psf_stamps

    return psf_stamps(camera.psf, x, y, camera.shape, int(np.ceil(4 * camera.psf.fwhm)))[0]


def inputs(work: Path, name: str, camera, truth: Table) -> Inputs:
    """Return what the other programs get of one image."""
    from scipy import ndimage

    from nightsift.image.background import background
    from nightsift.image.padding import PAD
    from nightsift.image.seeing import widths
    from nightsift.io.fits import read_image
    from nightsift.io.products import read_images, read_json

    folder = work / "results" / "images" / name
    facts = {stage: read_json(folder / f"{stage}.json") for stage in ("inspect", "detect", "template")}
    data = read_image(work / "images" / f"{name}.fits", facts["inspect"]["hdu"]).data
    bad = next(iter(read_images(folder / "mask.fits")[0].values())) != 0
    layers = read_images(folder / "template.fits")[0]
    sky, fwhm = background(data, bad, 64), facts["detect"]["fwhm"]
    image = np.where(bad, 0, data - sky.level).astype(np.float32)
    photons = np.maximum(ndimage.gaussian_filter(image, 1.0), 0) / facts["inspect"]["gain"]
    objects = Table.read(folder / "objects.fits")
    stars = objects[(objects["flags"] == 0) & (objects["snr"] > 20)]
    beneath = layers["MASK"] != 0
    whole = np.where(beneath, 0, layers["TEMPLATE"])
    x, y = truth["x"].data, truth["y"].data
    middle = np.array([data.shape[1] // 2]), np.array([data.shape[0] // 2])
    core = np.s_[PAD:-PAD, PAD:-PAD]
    return Inputs(
        image=image,
        noise=np.sqrt(sky.noise**2 + photons).astype(np.float32),
        mask=bad,
        template=whole[core],
        template_noise=np.where(beneath, np.nanmedian(layers["NOISE"][~beneath]), layers["NOISE"])[core],
        template_mask=beneath[core],
        gain=facts["inspect"]["gain"],
        template_gain=facts["template"]["gain"],
        fwhm=fwhm,
        template_fwhm=np.nanmedian(widths(whole, stars["x"] + PAD, stars["y"] + PAD, fwhm / 2, beneath)),
        stars=np.array([stars["x"], stars["y"]]),
        psf=true_profiles(camera, *middle)[0],
        place=np.array([x, y]),
        profiles=true_profiles(camera, x, y),
    )


def run_hotpants(folder: Path, given: Inputs, order: int) -> Table:
    """Return the peaks of the matched filter beyond the threshold; ``flux fluxerr`` at the true places in the meta."""
    from nightsift.transients.transients import peaks

    found = hotpants(folder, given, 1, order)
    x, y, _ = peaks(found["snr"], THRESHOLD, float(given.fwhm))
    table = Table({"x": x.astype(float), "y": y.astype(float), "snr": found["snr"][y, x]})
    table.meta = {name: found[name].tolist() for name in ("flux", "fluxerr")} | {"seconds": float(found["seconds"])}
    return table


def run_stdpipe(folder: Path, given: Inputs, python: str) -> Table:
    given.write(folder / "inputs.npz")
    subprocess.run(
        [python, __file__, "--worker", str(folder)],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    return Table.read(folder / "found.ecsv")


def others(options) -> dict:
    """Return the programs that are installed, as functions of a scratch folder and the inputs."""
    ready = {}
    if shutil.which("hotpants"):
        ready |= {f"HOTPANTS order {n}": lambda *given, n=n: run_hotpants(*given, n) for n in (0, 2)}
    if options.stdpipe or importlib.util.find_spec("stdpipe"):
        ready["STDPipe"] = lambda *given: run_stdpipe(*given, options.stdpipe or sys.executable)
    return ready


def run_others(work: Path, name: str, camera, truth: Table, ready: dict) -> dict[str, Table]:
    """Run the other programs on one image, unless what they found is newer than the template they get."""
    aligned, found, given = work / "results" / "images" / name / "template.fits", {}, None
    for program, run in ready.items():
        path = work / "others" / f"{name}-{program.replace(' ', '_')}.ecsv"
        if not path.exists() or path.stat().st_mtime < aligned.stat().st_mtime:
            given = given or inputs(work, name, camera, truth)
            path.parent.mkdir(exist_ok=True)
            with tempfile.TemporaryDirectory() as scratch:
                try:
                    run(Path(scratch), given).write(path, overwrite=True)
                except subprocess.CalledProcessError as error:
                    last = (error.stderr or b"").decode().strip().splitlines()[-1:]
                    print(f"{program} failed on {work.name} {name}: {' '.join(last)}")
                    continue
        found[program] = Table.read(path)
    return found


# --- Judging ----------------------------------------------------------------------------------------------------------


def lists(work: Path, name: str, found: dict[str, Table]) -> dict[str, Table]:
    """Return every list of candidates of an image, by what made it."""
    folder = work / "results" / "images" / name
    whole = Table.read(folder / "candidates_all.fits")
    out = {"nightsift, detected": whole, VETTED: whole[np.asarray(whole["is_real"], bool)]}
    for program, table in found.items():
        if program == "STDPipe":
            out["STDPipe, detected"] = table
            out["STDPipe, pre-filtered"] = table[np.asarray(table["shape"], bool)]
            out["STDPipe, adjusted"] = table[np.asarray(table["final"], bool)]
        else:
            out[program] = table
    return out


def nearest(table: Table, x, y):
    """Return for each position the distance to, and the index of, the nearest row; infinity where there is none."""
    from scipy.spatial import cKDTree

    if not len(table):
        return np.full(len(x), np.inf), np.zeros(len(x), int)
    return cKDTree(np.column_stack([table["x"], table["y"]])).query(np.column_stack([x, y]))


def measured(work: Path, name: str, camera, truth: Table):
    """Return the transients with nightsift's flux at the true place, that of the candidate, and why one was missed."""
    from nightsift.flags import Mask
    from nightsift.io.products import read_images, read_json
    from nightsift.workflow.records import read_pixels

    folder = work / "results" / "images" / name
    layers = read_images(folder / "difference.fits")[0]
    x, y = truth["x"].data, truth["y"].data
    radius, gain = read_json(folder / "detect.json")["aperture"], read_json(folder / "inspect.json")["gain"]
    flux, fluxerr, _ = read_pixels(folder).measure(x, y, gain)
    out = truth["x", "y", "on_host", "snr"]
    out["wanted"] = truth["flux"].data * light_in_aperture(np.array([x, y]), true_profiles(camera, x, y), radius)
    out["total"], out.meta = truth["flux"], {}
    out["flux nightsift, forced"], out["fluxerr nightsift, forced"] = flux, fluxerr
    whole = Table.read(folder / "candidates_all.fits")
    distance, index = nearest(whole, x, y)
    seen = distance <= truth.meta["fwhm"]
    for column in ("flux", "fluxerr"):
        values = np.asarray(whole[column], float)[index] if len(whole) else np.full(len(out), np.nan)
        out[f"{column} nightsift"] = np.where(seen, values, np.nan)
    row, column = np.rint(y).astype(int), np.rint(x).astype(int)
    reasons = []
    for i in range(len(out)):
        mask, value = Mask(int(layers["MASK"][row[i], column[i]])), layers["SNR"][row[i], column[i]]
        if not seen[i]:
            reasons.append(f"not detected: S/N {value:.1f} there" + (f", {mask.name}" if mask else ""))
        else:
            reasons.append("" if whole["is_real"][index[i]] else str(whole["reasons"][index[i]]))
    out["image"], out["reason"] = np.full(len(out), f"{work.name} {name}"), reasons
    return out, read_json(folder / "subtract.json")["sky_sigma"]


def noise_of_the_sky(work: Path, name: str, truth: Table) -> tuple[float, float]:
    """Return median and robust sigma of the S/N map more than 2 FWHM from all objects and from all that changes.

    Objects are those of the image: the subtracted model holds the template's noise, and cannot tell where nothing is.
    """
    from scipy import ndimage

    from nightsift.io.products import read_images

    folder = work / "results" / "images" / name
    layers = read_images(folder / "difference.fits")[0]
    changes = truth[(truth["kind"] != "star") & (truth["kind"] != "galaxy")]
    empty = np.ones(layers["SNR"].shape, bool)
    for table in (Table.read(folder / "objects.fits"), changes):
        row, column = np.rint(table["y"]).astype(int), np.rint(table["x"]).astype(int)
        inside = (row >= 0) & (row < empty.shape[0]) & (column >= 0) & (column < empty.shape[1])
        empty[row[inside], column[inside]] = False
    sky = (ndimage.distance_transform_edt(empty) > 2 * truth.meta["fwhm"]) & (layers["MASK"] == 0)
    return tuple(map(float, robust(layers["SNR"][sky])))


def half_complete(snr, found):
    """Return the S/N at which half are found, and its error: a logistic curve in the logarithm of S/N.

    It rises to the share that is found at S/N 12 to 50, and is fitted by maximum likelihood to all of S/N below 12;
    the error is from the curvature of the likelihood.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    bright, faint = (snr >= 12) & (snr < 50), snr < 12
    plateau = min(found[bright].mean(), 0.999) if bright.sum() >= 10 else 0.999
    if faint.sum() < 10 or not 0 < found[faint].sum() < faint.sum() or plateau <= 0.5:
        return np.nan, np.nan
    logarithm, hit = np.log(snr[faint]), found[faint]

    def cost(p):
        share = np.clip(plateau * expit((logarithm - p[0]) * np.exp(p[1])), 1e-6, 1 - 1e-6)
        return -np.sum(np.log(np.where(hit, share, 1 - share)))

    best = minimize(cost, [np.log(5.5), 2.0])
    half = np.exp(best.x[0] - np.log(2 * plateau - 1) * np.exp(-best.x[1]))
    return float(half), float(half * np.sqrt(best.hess_inv[0, 0]))


def within(values, low, high):
    return (values >= low) & (values < high)


def flux_figures(table: Table, who: str, low, high, on_host):
    """Return number, bias in per cent, and median and robust sigma of the pulls of one bin."""
    chosen = table[within(table["snr"], low, high) & (table["on_host"] == on_host) & np.isfinite(table[f"flux {who}"])]
    wanted = chosen["wanted" if who.startswith("nightsift") else "total"]
    error = chosen[f"flux {who}"] - wanted
    pull = robust(error / chosen[f"fluxerr {who}"])
    return [len(chosen), 100 * float(robust(error / wanted)[0]), *map(float, pull)]


class Tally:
    """What was found of every campaign, list by list."""

    def __init__(self):
        self.wanted, self.false, self.megapixels, self.seconds = {}, {}, {}, {}
        self.transients, self.snr, self.sky_sigma, self.wrong = [], {}, {}, []

    def add(self, place: Place, name: str, camera, ready: dict) -> None:
        from nightsift.simulate.truth import score

        truth = Table.read(place.folder / "truth" / f"{name}.ecsv")
        transients = truth[(truth["kind"] == "transient") & truth["usable"]]
        found = run_others(place.folder, name, camera, transients, ready)
        for what, table in lists(place.folder, name, found).items():
            one = score(truth, table, Table(), truth.meta["megapixels"])
            columns = ["on_host", "snr", "found", *{"light", "snr_difference"}.intersection(one.wanted.colnames)]
            mine = one.wanted[one.wanted["kind"] == "transient"][columns]
            mine["field"] = np.full(len(mine), place.field, dtype="U20")
            self.wanted.setdefault(what, []).append(mine)
            self.false.setdefault(what, {}).setdefault(place.field, []).append(len(one.false))
            if what == VETTED:
                one.false["image"] = np.full(len(one.false), f"{place.folder.name} {name}", dtype="U80")
                self.wrong.append(one.false)
        self.megapixels[place.field] = self.megapixels.get(place.field, 0.0) + truth.meta["megapixels"]
        for program, table in found.items():
            self.seconds.setdefault(program, []).append(table.meta["seconds"])
        rows, sky = measured(place.folder, name, camera, transients)
        for program, table in found.items():
            if "fluxerr" in table.meta:
                rows[f"flux {program}"], rows[f"fluxerr {program}"] = table.meta["flux"], table.meta["fluxerr"]
        self.transients.append(rows)
        self.snr.setdefault(place.field, []).append(noise_of_the_sky(place.folder, name, truth))
        self.sky_sigma.setdefault(place.field, []).append(sky)

    def figures(self) -> dict:
        """Return everything that is printed."""
        rows = vstack(self.transients)
        flux = {
            who.removeprefix("flux "): [
                {"low": low, "on_host": host, "figures": flux_figures(rows, who.removeprefix("flux "), low, high, host)}
                for host in (False, True)
                for low, high in itertools.pairwise(FLUX_EDGES)
            ]
            for who in rows.colnames
            if who.startswith("flux ")
        }
        missed = rows[(rows["snr"] >= WORTH_A_WORD) & (rows["reason"] != "")]
        missed.sort("snr", reverse=True)
        against = {f"{low:g}-{high:g}": Counter() for low, high in itertools.pairwise(FLUX_EDGES)}
        for key, (low, high) in zip(against, itertools.pairwise(FLUX_EDGES), strict=True):
            for reason in rows["reason"][within(rows["snr"], low, high)]:
                against[key].update(part.split(":")[0] for part in reason.split(", ") if part)
        return {
            "lists": {what: self._of_list(what) for what in self.wanted},
            "flux": flux,
            "snr_sigma": {field: [sigma for _, sigma in values] for field, values in self.snr.items()},
            "snr_median": {field: [median for median, _ in values] for field, values in self.snr.items()},
            "sky_sigma": self.sky_sigma,
            "seconds": {program: float(np.median(values)) for program, values in self.seconds.items()},
            "against": against,
            "wrong": [
                {key: row[key].item() for key in ("image", "x", "y", "snr", "nearest", "distance")}
                for row in vstack(self.wrong)
            ],
            "missed": [
                {key: row[key].item() for key in ("image", "x", "y", "snr", "on_host", "reason")} for row in missed
            ],
        }

    def by_light(self) -> dict[str, list[dict]]:
        """Return completeness by the light beneath, list by list."""
        tables = {what: vstack(parts) for what, parts in self.wanted.items()}
        names = "snr_difference", "light", "found"
        return {
            what: levels.by_light(*(np.asarray(table[name]) for name in names), THRESHOLD)
            for what, table in tables.items()
        }

    def _of_list(self, what: str) -> dict:
        all_ = vstack(self.wanted[what])
        snr, found, host = (np.asarray(all_[name]) for name in ("snr", "found", "on_host"))
        field = np.asarray(all_["field"])
        bins = []
        for low, high in itertools.pairwise(EDGES):
            inside = within(snr, low, high)
            counts = [[int(found[part].sum()), int(part.sum())] for part in (inside & host, inside & ~host)]
            bins.append({"low": low, "on_host": counts[0], "off_host": counts[1]})
        false = self.false[what]
        megapixels = {name: self.megapixels[name] for name in false}
        return {
            "bins": bins,
            "half": half_complete(snr, found),
            "half_of": {name: half_complete(snr[field == name], found[field == name]) for name in false},
            "false": sum(map(sum, false.values())) / sum(megapixels.values()),
            "false_of": {name: sum(count) / megapixels[name] for name, count in false.items()},
        }


# --- Printing ---------------------------------------------------------------------------------------------------------


def share(found, there):
    return f"{found:4d}/{there:<4d}" if there else f"{'-':^9}"


def completeness_lines(figures):
    heads = [f"{low:g}-{high:g}" if np.isfinite(high) else f"{low:g}+" for low, high in itertools.pairwise(EDGES)]
    yield "Transients found, by ideal S/N"
    yield f"{'':34}" + "".join(f"{head:^10}" for head in heads)
    for what, one in figures["lists"].items():
        for where, key in (("off hosts", "off_host"), ("on hosts", "on_host")):
            yield f"{what:23}{where:11}" + " ".join(share(*part[key]) for part in one["bins"])


def field_lines(figures):
    fields = list(next(iter(figures["lists"].values()))["false_of"])
    yield "S/N of 50 per cent completeness"
    yield f"{'':23}{'all':^14}" + "".join(f"{field:^15}" for field in fields)
    for what, one in figures["lists"].items():
        cells = [one["half"], *(one["half_of"].get(field, (np.nan, np.nan)) for field in fields)]
        yield f"{what:23}" + " ".join(f"{value:6.2f} +- {error:4.2f}" for value, error in cells)
    yield "\nFalse candidates a megapixel"
    yield f"{'':23}{'all':>8}" + "".join(f"{field:>15}" for field in fields)
    for what, one in figures["lists"].items():
        yield f"{what:23}{one['false']:8.2f}" + "".join(f"{one['false_of'].get(f, np.nan):15.2f}" for f in fields)
    titles = {"snr_sigma": "sigma of the S/N map", "snr_median": "its median", "sky_sigma": "sigma of empty places"}
    for name, title in titles.items():
        spans = [f"{min(figures[name][field]):.3f} .. {max(figures[name][field]):.3f}" for field in fields]
        yield f"{title:23}{'':8}" + "".join(f"{span:>15}" for span in spans)


def flux_lines(figures):
    head = f"{'n':>5}{'bias %':>8}{'pull':>7}{'sigma':>7}"
    yield "Fluxes of the transients against the truth, forced at the true place or as those of the candidates"
    yield f"(in brackets, below S/N {SELECTED:g}: it depends on its flux what is found; the forced ones tell the bias)"
    yield f"{'':39} {head}    (off hosts)   {head}    (on hosts)"
    for who, rows in figures["flux"].items():
        half = len(rows) // 2
        for off, on in zip(rows[:half], rows[half:], strict=True):
            selected = who == "nightsift" and off["low"] < SELECTED
            cells = ["{:5d}{:8.2f}{:7.2f}{:7.2f}".format(*part["figures"]) for part in (off, on)]
            cells = [f"({cell})" if selected else f" {cell} " for cell in cells]
            yield f"{who:24}S/N >= {off['low']:<8g}" + f"{'':15}".join(cells)


def missed_lines(figures):
    yield "What spoke against true transients, by ideal S/N"
    for key, counts in figures["against"].items():
        yield f"{key:8}" + ", ".join(f"{reason} {count}" for reason, count in counts.most_common())
    yield ""
    yield f"Transients of S/N >= {WORTH_A_WORD:g} that are no vetted candidates: {len(figures['missed'])}"
    for row in figures["missed"]:
        where = "on a host" if row["on_host"] else "off hosts"
        place = f"x {row['x']:6.1f}  y {row['y']:6.1f}"
        yield f"  {row['image']:52} {place}  S/N {row['snr']:5.1f}  {where}  {row['reason']}"


def wrong_lines(figures):
    yield f"False vetted candidates: {len(figures['wrong'])}"
    for row in figures["wrong"]:
        place = f"x {row['x']:6.1f}  y {row['y']:6.1f}"
        near = f"a {row['nearest']} at {row['distance']:.1f} px"
        yield f"  {row['image']:52} {place}  S/N {row['snr']:6.1f}  {near}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = (*FIELDS, *HOSTS)
    parser.add_argument("--fields", nargs="+", choices=every, default=every, metavar="FIELD", help=" ".join(every))
    parser.add_argument("--images", type=int, default=2, help="images of each field")
    parser.add_argument("--transients", type=int, default=60, help="transients of each field")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--workdir", type=Path, help="work here, keep it, and use what is there")
    parser.add_argument("--stdpipe", help="a Python that can import stdpipe, if this one cannot")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        stdpipe(Inputs.read(options.worker / "inputs.npz")).write(options.worker / "found.ecsv")
        return
    with contextlib.ExitStack() as stack:
        workdir = options.workdir or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        usual, hosts = run(options, workdir.resolve())
    figures = usual.figures() if usual.transients else {}
    if figures:
        for block in (completeness_lines, field_lines, flux_lines, missed_lines, wrong_lines):
            print("\n".join(block(figures)), end="\n\n")
        for program, seconds in figures["seconds"].items():
            print(f"{program}: {seconds:.1f} s an image, given the aligned template")
    if hosts.transients:
        print("\n" + "\n".join(levels.lines(hosts.by_light())), end="\n\n")
        of_hosts = hosts.figures()
        for block in (field_lines, flux_lines, missed_lines, wrong_lines):
            print("\n".join(block(of_hosts)), end="\n\n")
        figures["hosts"] = of_hosts | {"by_light": hosts.by_light()}
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))


def run(options, workdir: Path) -> tuple[Tally, Tally]:
    """Make and judge every campaign; those whose every transient has a host apart."""
    from nightsift.simulate.cameras import camera

    simulate = runpy.run_path(str(ROOT / "scripts" / "simulate.py"))
    ready, usual, hosts = others(options), Tally(), Tally()
    for place in places(options, workdir):
        run_workflow(place, simulate, options.cores)
        tally = hosts if place.field in HOSTS else usual
        params = simulate["make_parameters"](simulate["parse_arguments"](place.arguments))
        for k in range(params.n_images):
            one = camera(k, params)
            if (place.folder / "results" / "images" / one.name / "candidates_all.fits").exists():
                tally.add(place, one.name, one, ready)
            else:
                print(f"{place.folder.name} {one.name} has no candidates: see its status.json")
        wall = place.folder / "wall.json"
        took = f"{json.loads(wall.read_text())['seconds']:.0f} s" if wall.exists() else "done before"
        print(f"{place.folder.name}: workflow {took}", flush=True)
    return usual, hosts


if __name__ == "__main__":
    main()
