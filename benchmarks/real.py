"""Run the workflow on real frames and print what the simulations cannot tell: noise on light, repeated stars, finds.

    python benchmarks/real.py [FOLDER ...] [--sets host_transient crowded ...] [--cores 1] [--workdir FOLDER]
                              [--json FILE]

A set is a folder with frames (or with its frames in `images/`) and, where there are such, `catalog.*`, `template.fits`
and `set.yaml`; without FOLDER those in ../shared/data. HOTPANTS gets the same pairs if `hotpants` is on the PATH. What
is finished in the working folder is not done again. README.md says what `set.yaml` holds and what the tables mean.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml
from astropy.table import Table
from peers import Inputs, hotpants, robust
from scipy import ndimage

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"
FOLDERS = (SHARED / "real", SHARED / "agpeg", SHARED / "sdss_field")
# What no file of these sets tells: where frames without a WCS point, and what is known to be there.
KNOWN = {
    "host_transient": {"truth": [{"name": "transient", "x": 128.7, "y": 127.6}]},
    "crowded": {
        "hints": {"ra": 273.8708, "dec": -25.285, "radius": 0.05, "pixscale": 0.31},
        "truth": [{"name": "event", "ra": 273.86771, "dec": -25.28847, "frames": ["001", "067"]}],
    },
    "small_telescope": {"hints": {"ra": 30.979, "dec": 46.827, "radius": 0.5, "pixscale": 5.2}},
    "agpeg": {
        "config": {"uncatalogued": {"min_brightening": 1.0}},
        "truth": [{"name": "AG Peg", "ra": 327.75823, "dec": 12.62559, "frames": ["_201507", "_201508"]}],
    },
    "sdss_field": {"config": {"photometry": {"band": "r"}}},
}
SUFFIXES = (".fits", ".fit", ".fts", ".fits.fz", ".fits.gz")
LEVELS = (1.0, 3.0, 10.0, 30.0, np.inf)  # light of the template, in standard deviations of a pixel of the sky
LIGHT = ("1-3", "3-10", "10-30", ">30")
PULLS = (10.0, 30.0, 100.0, np.inf)  # S/N of repeated stars
FEW_PIXELS, FEW_STARS = 200, 10  # with fewer there is no figure
NO_STARS = "RAJ2000,DEJ2000,rmag\n0,89.99,10\n"
THRESHOLD = 5.0
PLANES = ("COSMIC", "SATURATED", "BADLINE", "NONFINITE")


@dataclass(frozen=True)
class Set:
    """Frames of one field, and what belongs to them."""

    name: str
    frames: dict[str, Path]
    catalog: Path | None
    template: Path | None
    hints: dict = field(default_factory=dict)
    config: dict = field(default_factory=dict)
    truth: list = field(default_factory=list)


def find_sets(folder: Path) -> list[Set]:
    """Return the sets in a folder: itself, if there are frames in it, or else those in its folders."""
    inside = folder / "images" if (folder / "images").is_dir() else folder
    files = [path for path in sorted(inside.iterdir()) if path.name.lower().endswith(SUFFIXES)]
    frames = [path for path in files if path.name.split(".")[0] not in ("template", "catalog")]
    if not frames:
        return [found for part in sorted(folder.iterdir()) if part.is_dir() for found in find_sets(part)]
    said = folder / "set.yaml"
    known = yaml.safe_load(said.read_text()) if said.exists() else KNOWN.get(folder.name, {})
    single = {kind: next(iter(sorted(folder.glob(f"{kind}.*"))), None) for kind in ("catalog", "template")}
    return [Set(folder.name, {path.name.split(".")[0]: path for path in frames}, **single, **known)]


# --- Running ----------------------------------------------------------------------------------------------------------


def magnitudes(path: Path) -> list[str]:
    """Return the bands of a catalogue."""
    from nightsift.io.catalogs import read_catalog

    names = read_catalog(path).colnames
    return [name.removesuffix("mag") for name in names if name.endswith("mag") and not name.startswith("e_")]


def prepare(one: Set, work: Path) -> dict:
    """Write sample sheet and configuration; return the latter."""
    work.mkdir(parents=True, exist_ok=True)
    catalog = one.catalog
    if catalog is None:
        catalog = work / "no_stars.csv"
        catalog.write_text(NO_STARS)
    rows = [["image", "path", *one.hints]] + [[name, path, *one.hints.values()] for name, path in one.frames.items()]
    (work / "images.tsv").write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))
    source = {"source": "local", "path": str(one.template)} if one.template else {"source": "none"}
    config = {"images": "images.tsv", "catalog": {"path": str(catalog)}, "template": source}
    bands = magnitudes(catalog)
    if len(bands) == 1:
        config["photometry"] = {"band": bands[0], "color": "none"}
    config |= one.config
    (work / "config.yaml").write_text(yaml.safe_dump(config))
    return config


def run(one: Set, work: Path, cores: int) -> Path:
    """Run every stage that works on one image, as far as catalogue and template go; return the images' folder."""
    prepare(one, work)
    last = "status.json" if one.catalog else "psf.json"
    wanted = [f"results/images/{name}/{last}" for name in one.frames]
    command = ["-m", "snakemake", "--cores", str(cores), "--configfile", f"{work}/config.yaml", "--keep-going"]
    done = subprocess.run(
        [sys.executable, *command, "--directory", str(work), "-q", "all", "--", *wanted],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    (work / "snakemake.log").write_text(done.stdout)
    if done.returncode:
        print(f"{one.name}: not everything could be done, see {work}/snakemake.log")
    return work / "results" / "images"


# --- Measuring --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Frame:
    """What the workflow left of one frame."""

    name: str
    folder: Path
    state: dict
    facts: dict
    mask: np.ndarray | None
    objects: Table
    layers: dict


def read_frame(name: str, folder: Path, exists: bool) -> Frame:
    from nightsift.io.products import read_images, read_json

    def facts(stage):
        path = folder / f"{stage}.json"
        return read_json(path) if path.exists() else {}

    def images(product):
        path = folder / product
        return read_images(path)[0] if path.exists() else {}

    states = ("status", "psf", "detect", "inspect")
    state = next((found for stage in states if (found := facts(stage))), {"status": "nothing", "warnings": []})
    objects = folder / ("objects.fits" if exists else "detections.fits")
    return Frame(
        name=name,
        folder=folder,
        state=state,
        facts={stage: facts(stage) for stage in ("inspect", "detect", "photometry", "template", "subtract")},
        mask=next(iter(images("mask.fits").values()), None),
        objects=Table.read(objects) if objects.exists() else Table(),
        layers=images("difference.fits"),
    )


def masked(frame: Frame) -> dict[str, float]:
    """Return the fraction of the pixels in any plane of the mask, and in some."""
    from nightsift.flags import Mask

    if frame.mask is None:
        return {}
    return {"any": float(np.mean(frame.mask != 0))} | {
        name: float(np.mean(frame.mask & Mask[name] != 0)) for name in PLANES
    }


def repeats(frames: list[Frame]) -> dict[str, dict[str, list[dict]]]:
    """Return by frame and kind of magnitude what `repeated` has of it."""
    from nightsift.flags import Flag

    out = {}
    for column, kind in (("mag_calib", "aperture"), ("mag_psf", "PSF")):
        lists = {"": {}, ", crowded": {}}
        for frame in frames:
            if column in frame.objects.colnames and len(frame.objects):
                flags = np.asarray(frame.objects["flags"])
                known = np.isfinite(frame.objects[column]) & np.isfinite(frame.objects[f"{column}_err"])
                lists[""][frame.name] = frame, frame.objects[known & (flags == 0)]
                crowded = known & (flags & Flag.CROWDED != 0) & (flags & ~(Flag.CROWDED | Flag.DEBLENDED) == 0)
                lists[", crowded"][frame.name] = frame, frame.objects[crowded]
        for more, stars in lists.items():
            for name, bins in repeated(stars, column).items():
                out.setdefault(name, {})[kind + more] = bins
    return out


def own_error(stars: Table, column: str) -> np.ndarray:
    """Return the errors of magnitudes without what neighbours and stars unseen add, which is the same in all frames."""
    prefix = "psf_" if column == "mag_psf" else ""
    if prefix + "confusion" not in stars.colnames:
        return np.asarray(stars[f"{column}_err"], float)
    error, shared = (np.asarray(stars[prefix + name], float) for name in ("fluxerr", "confusion"))
    own = np.sqrt(np.maximum(error**2 - np.nan_to_num(shared) ** 2, 0))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(stars[f"{column}_err"], float) * np.where(error > 0, np.maximum(own / error, 1e-3), 1.0)


def repeated(lists: dict[str, tuple[Frame, Table]], column: str) -> dict[str, list[dict]]:
    """Return by frame and S/N the number, scatter and pulls of stars against the weighted mean of the other frames."""
    from nightsift.catalog.catalog import match

    out = {}
    for frame, stars in lists.values():
        radius = 0.5 * frame.facts["detect"]["fwhm"] * frame.facts["inspect"]["pixscale"]
        mag, err = np.asarray(stars[column], float), own_error(stars, column)
        total, weight = np.zeros(len(stars)), np.zeros(len(stars))
        for other, theirs in lists.values():
            here, there = match(stars, theirs, radius) if other is not frame else ((), ())
            if len(here) < FEW_STARS:
                continue
            value = np.asarray(theirs[column], float)[there]
            # Zero points have errors of their own, which no star's error holds.
            bright = np.argsort(err[here])[: max(len(here) // 2, FEW_STARS)]
            value += np.median((mag[here] - value)[bright])
            inverse = own_error(theirs, column)[there] ** -2.0
            total[here] += value * inverse
            weight[here] += inverse
        seen = weight > 0
        change = mag[seen] - total[seen] / weight[seen]
        pull = change / np.hypot(err[seen], weight[seen] ** -0.5)
        snr, bins = np.asarray(stars["snr"], float)[seen], []
        for low, high in itertools.pairwise(PULLS):
            chosen = (snr >= low) & (snr < high)
            enough = chosen.sum() >= FEW_STARS
            scatter, width = (float(robust(part[chosen])[1]) if enough else np.nan for part in (change, pull))
            bins.append({"low": low, "stars": int(chosen.sum()), "scatter": scatter, "pull": width})
        if seen.any():
            out[frame.name] = bins
    return out


def positions(frame: Frame, truth: list) -> list[tuple[str, float, float]]:
    """Return names and pixels of what is known to be in a frame."""
    from nightsift.io.products import read_wcs

    out = []
    for item in truth:
        if not any(part in frame.name for part in item.get("frames", [""])):
            continue
        place = item.get("x"), item.get("y")
        if place[0] is None:
            place = read_wcs(frame.folder / "wcs.fits").all_world2pix(item["ra"], item["dec"], 0)
        out.append((item["name"], float(place[0]), float(place[1])))
    return out


def regions(frame: Frame, known) -> dict[str, np.ndarray]:
    """Return where there is nothing but sky, and where the template has light of some level; not near what is known."""
    fwhm, sigma, light = frame.facts["detect"]["fwhm"], frame.layers["SIGMA"], frame.layers["MODEL"]
    usable = (frame.layers["MASK"] == 0) & np.isfinite(frame.layers["SNR"])
    y, x = np.indices(usable.shape)
    for _, a, b in known:
        usable &= np.hypot(x - a, y - b) > 4 * fwhm
    empty = np.ones(usable.shape, bool)
    row, column = np.rint(frame.objects["y"]).astype(int), np.rint(frame.objects["x"]).astype(int)
    empty[np.clip(row, 0, len(empty) - 1), np.clip(column, 0, empty.shape[1] - 1)] = False
    far = ndimage.distance_transform_edt(empty) > 2 * fwhm if not empty.all() else empty
    # Light that is not the template's noise.
    smooth = ndimage.gaussian_filter(np.where(np.isfinite(light), light, 0), fwhm / 2.355)
    dark = usable & (smooth <= np.median(smooth[usable])) if usable.any() else usable
    level = smooth / np.median(sigma[dark]) if dark.any() else smooth * np.nan
    out = {"sky": far & usable & (level < LEVELS[0])}
    for name, (low, high) in zip(LIGHT, itertools.pairwise(LEVELS), strict=True):
        out[name] = usable & (level >= low) & (level < high)
    return out


def widths_of(snr, places) -> dict[str, float]:
    return {
        name: float(robust(snr[where])[1]) if where.sum() >= FEW_PIXELS else np.nan for name, where in places.items()
    }


def on_a_line(x, y) -> int:
    """Return how many of the positions share a row or a column, within a pixel, at most."""
    values = [np.sort(np.asarray(part, float)) for part in (x, y)]
    counts = [np.searchsorted(part, part + 2.0, "right") - np.arange(len(part)) for part in values if len(part)]
    return int(max((count.max() for count in counts), default=0))


def strongest(snr, x, y, radius):
    """Return the S/N that deviates most near a position."""
    rows, columns = np.indices(snr.shape)
    near = snr[(np.hypot(columns - x, rows - y) <= radius) & np.isfinite(snr)]
    return float(near[np.argmax(np.abs(near))]) if len(near) else np.nan


def searched(frame: Frame, known, places) -> dict:
    """Return what nightsift's search of a difference is like."""
    fwhm = frame.facts["detect"]["fwhm"]
    whole = Table.read(frame.folder / "candidates_all.fits")
    real = whole[np.asarray(whole["is_real"], bool)] if len(whole) else whole
    finds = {}
    for name, x, y in known:
        distance = np.hypot(real["x"] - x, real["y"] - y) if len(real) else np.array([])
        found = bool(np.any(distance <= fwhm))
        finds[name] = {"snr": strongest(frame.layers["SNR"], x, y, fwhm), "found": found}
    return {
        "sigma": widths_of(frame.layers["SNR"], places),
        "detected": len(whole),
        "candidates": len(real),
        "on_a_line": on_a_line(real["x"], real["y"]) if len(real) else 0,
        "truth": finds,
    }


def inputs(frame: Frame, path: Path, known) -> Inputs:
    """Return what HOTPANTS gets of a frame."""
    from nightsift.image.background import background
    from nightsift.image.padding import PAD
    from nightsift.image.seeing import widths
    from nightsift.io.fits import read_image
    from nightsift.io.products import read_images
    from nightsift.psf.model import Psf

    facts, fwhm = frame.facts, frame.facts["detect"]["fwhm"]
    data, bad = read_image(path, facts["inspect"]["hdu"]).data, frame.mask != 0
    sky = background(data, bad, 64)
    image = np.where(bad, 0, data - sky.level).astype(np.float32)
    gain = facts["inspect"]["gain"] or 1e6  # not known: no photon noise
    photons = np.maximum(ndimage.gaussian_filter(image, 1.0), 0) / gain
    layers = read_images(frame.folder / "template.fits")[0]
    beneath = layers["MASK"] != 0
    template = np.where(beneath, 0, layers["TEMPLATE"])
    stars = frame.objects[(frame.objects["flags"] == 0) & (frame.objects["snr"] > 20)]
    width = widths(template, stars["x"] + PAD, stars["y"] + PAD, fwhm / 2, beneath)
    psf = Psf.from_images(*read_images(frame.folder / "psf.fits"))
    half, core = int(np.ceil(4 * fwhm)), np.s_[PAD:-PAD, PAD:-PAD]
    profiles = [psf.stamp(x, y, half) for _, x, y in known]
    return Inputs(
        image=image,
        noise=np.sqrt(sky.noise**2 + photons).astype(np.float32),
        mask=bad,
        template=template[core],
        template_noise=np.where(beneath, np.nanmedian(layers["NOISE"][~beneath]), layers["NOISE"])[core],
        template_mask=beneath[core],
        gain=gain,
        template_gain=facts["template"].get("gain") or 1e6,
        fwhm=fwhm,
        template_fwhm=np.nanmedian(width) if len(stars) else fwhm,
        stars=np.array([stars["x"], stars["y"]]),
        psf=psf.stamp(data.shape[1] / 2, data.shape[0] / 2, half),
        place=np.array([[x, y] for _, x, y in known]).reshape(-1, 2).T,
        profiles=np.array(profiles).reshape(-1, 2 * half + 1, 2 * half + 1),
    )


def other(frame: Frame, path: Path, known, places, order: int) -> dict | None:
    """Return the same of the difference that HOTPANTS makes, or None where it fails."""
    from nightsift.transients.transients import peaks

    with tempfile.TemporaryDirectory() as scratch:
        try:
            made = hotpants(Path(scratch), inputs(frame, path, known), 1, order)
        except (subprocess.CalledProcessError, OSError):
            return None
    fwhm, snr = frame.facts["detect"]["fwhm"], made["snr"]
    x, y, _ = peaks(snr, THRESHOLD, float(fwhm))
    return {
        "sigma": widths_of(np.where(made["usable"], snr, np.nan), places),
        "detected": len(x),
        "on_a_line": on_a_line(x, y),
        "truth": {name: {"snr": strongest(snr, a, b, fwhm)} for name, a, b in known},
    }


def measure(one: Set, folder: Path) -> dict:
    """Return the figures of a set."""
    frames = [read_frame(name, folder / name, one.catalog is not None) for name in one.frames]
    out = {"frames": {}, "pulls": repeats(frames)}
    for frame in frames:
        inspected, state = frame.facts["inspect"], frame.state
        keys = ("exptime", "mjd", "filter", "gain", "pixscale", "ra", "dec")
        figures = {
            **{key: state.get(key) for key in ("status", "stage", "reason", "warnings")},
            **{key: inspected.get(key) for key in keys},
            "fwhm": frame.facts["detect"].get("fwhm"),
            "objects": len(frame.objects),
            "masked": masked(frame),
            "zp": frame.facts["photometry"].get("zp"),
            "zp_err": frame.facts["photometry"].get("zp_err"),
            "noise_correlation": frame.facts["subtract"].get("noise_correlation"),
            "searches": {},
        }
        if frame.layers:
            known = positions(frame, one.truth)
            places = regions(frame, known)
            figures["pixels"] = {name: int(where.sum()) for name, where in places.items()}
            figures["searches"]["nightsift"] = searched(frame, known, places)
            for order in (0, 2) if shutil.which("hotpants") else ():
                found = other(frame, one.frames[frame.name], known, places, order)
                if found:
                    figures["searches"][f"HOTPANTS order {order}"] = found
        out["frames"][frame.name] = figures
    return out


# --- Printing ---------------------------------------------------------------------------------------------------------


def cell(value, form: str = ".2f", width: int = 7) -> str:
    known = value is not None and np.isfinite(value)
    return f"{value:{width}{form}}" if known else f"{'-':>{width}}"


def frame_lines(figures: dict, wide: int):
    heads = ("FWHM", "objects", "zp", "+-", "exptime", "gain", "filter", "MJD")
    yield f"{'':{wide}}{'status':10}" + "".join(f"{head:>9}" for head in heads)
    for name, one in figures["frames"].items():
        cells = [cell(one["fwhm"], ".2f", 9), f"{one['objects']:9d}", cell(one["zp"], ".3f", 9)]
        cells += [cell(one["zp_err"], ".3f", 9), cell(one["exptime"], ".6g", 9), cell(one["gain"], ".4g", 9)]
        cells += [f"{one['filter'] or '-':>9}", cell(one["mjd"], ".2f", 9)]
        yield f"{name:{wide}}{one['status']:10}" + "".join(cells)
    yield "\nMasked, per cent"
    yield f"{'':{wide}}{'any':>9}" + "".join(f"{name.lower():>11}" for name in PLANES)
    for name, one in figures["frames"].items():
        part = {key: 100 * value for key, value in one["masked"].items()}
        yield f"{name:{wide}}{cell(part.get('any'), '.2f', 9)}" + "".join(cell(part.get(p), ".2f", 11) for p in PLANES)


def pull_lines(figures: dict, wide: int):
    heads = [
        f"S/N {low:g}-{high:g}" if np.isfinite(high) else f"S/N >{low:g}" for low, high in itertools.pairwise(PULLS)
    ]
    yield "Repeated stars against the other frames: number, scatter (mmag), width of the pulls"
    yield f"{'':{wide + 18}}" + "".join(f"{head:^24}" for head in heads)
    for name, kinds in figures["pulls"].items():
        for kind, bins in kinds.items():
            cells = [f"{b['stars']:8d}{cell(1000 * b['scatter'], '.1f', 8)}{cell(b['pull'], '.2f', 6)}  " for b in bins]
            yield f"{name:{wide}}{kind:18}" + "".join(cells)


def search_lines(figures: dict, wide: int):
    names = ("sky", *LIGHT)
    yield "Sigma of the S/N map on sky and on light of the template (in sigma of the sky), and what was found"
    heads = "".join(f"{head:>7}" for head in names)
    yield f"{'':{wide}}{'':18}{heads}{'peaks':>8}{'candidates':>12}{'on a line':>11}   known there: S/N"
    for name, one in figures["frames"].items():
        for who, found in one["searches"].items():
            sigma = "".join(cell(found["sigma"][key]) for key in names)
            known = ", ".join(
                f"{what} {cell(item['snr'], '.1f', 1)}" + {True: " found", False: " missed"}.get(item.get("found"), "")
                for what, item in found["truth"].items()
            )
            counts = f"{found['detected']:8d}{cell(found.get('candidates'), 'd', 12)}{found['on_a_line']:11d}"
            yield f"{name:{wide}}{who:18}{sigma}{counts}   {known}"
        if one["searches"]:
            yield f"{'':{wide}}{'pixels':18}" + "".join(f"{one['pixels'][key]:7d}" for key in names)


def said_lines(figures: dict):
    """Yield what the workflow says of the frames, once where it says the same of several."""
    alike = {}
    for name, one in figures["frames"].items():
        for text in [f"{one['status']}: {one['reason']}"] * bool(one["reason"]) + list(one["warnings"] or []):
            alike.setdefault(re.sub(r"-?[\d.]*\d", "#", text), []).append((name, text))
    for same in alike.values():
        (name, text), names = same[0], {name for name, _ in same}
        yield f"{name}: {text}" if len(names) == 1 else f"{len(names)} frames: {text}"


def report(name: str, figures: dict) -> None:
    wide = max(map(len, figures["frames"])) + 2
    print(f"=== {name}\n")
    print("\n".join(frame_lines(figures, wide)), end="\n\n")
    if figures["pulls"]:
        print("\n".join(pull_lines(figures, wide)), end="\n\n")
    if any(one["searches"] for one in figures["frames"].values()):
        print("\n".join(search_lines(figures, wide)), end="\n\n")
    print("\n".join(said_lines(figures)), end="\n\n", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, default=FOLDERS, metavar="FOLDER", help="with sets in it")
    parser.add_argument("--sets", nargs="+", help="only those of these names")
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--workdir", type=Path, help="work here, keep it, and use what is there")
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    missing = [str(folder) for folder in options.folders if not folder.is_dir()]
    if missing:
        sys.exit(f"no such folder: {', '.join(missing)}")
    sets = [one for folder in options.folders for one in find_sets(folder.resolve())]
    figures = {}
    with contextlib.ExitStack() as stack:
        workdir = (options.workdir or Path(stack.enter_context(tempfile.TemporaryDirectory()))).resolve()
        for one in sets:
            if not options.sets or one.name in options.sets:
                work = workdir / one.name
                folder = run(one, work, options.cores)
                figures[one.name] = measure(one, folder)
                report(one.name, figures[one.name])
    if options.json:
        from nightsift.io.products import write_json

        write_json(options.json, figures)


if __name__ == "__main__":
    main()
