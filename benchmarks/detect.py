"""Time, memory, completeness and bias of detection and calibration, beside SExtractor and STDPipe on equal images."""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ZERO_POINT, GAIN, SKY, READNOISE, SCALE = 28.0, 1.5, 300.0, 6.0, 0.5
NOISE = np.sqrt(SKY / GAIN + (READNOISE / GAIN) ** 2)
BINS = ((3, 5), (5, 7), (7, 10), (10, 20), (20, 100), (100, np.inf))


@dataclass(frozen=True)
class Field:
    """What an image shows: side [px], numbers of stars and galaxies, and FWHM [px]."""

    side: int
    stars: int
    galaxies: int
    fwhm: float


BOTH = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
FIELDS = {
    "standard": Field(4096, 20_000, 0, 3.0),
    "wide": Field(4096, 100_000, 0, 1.7),
    "galaxies": Field(4096, 3_000, 30_000, 3.5),
    "dense": Field(1024, 20_000, 0, 3.0),
    "small": Field(1024, 1_250, 100, 3.0),
}


# --------------------------------------------------------------------------------------------------------- the images


def simulate(field: Field, folder: Path, seed: int = 1):
    """Write image.fits, a catalogue and the truth."""
    from astropy.io import fits
    from astropy.table import Table
    from astropy.wcs import WCS

    from nightsift.image.moffat import MoffatPsf
    from nightsift.simulate.pixels import render_galaxies, render_points

    rng = np.random.default_rng(seed)
    shape, count = (field.side, field.side), field.stars + field.galaxies
    x, y = rng.uniform(-3, field.side + 2, (2, count))
    # From far below the noise to near saturation; the counts of stars rise by a factor of 2.2 a magnitude.
    area = np.pi * field.fwhm**2
    faintest = 2.5 * NOISE * np.sqrt(area)
    star = np.arange(count) < field.stars
    slope = np.where(star, 2.2, 3.2)
    flux = np.minimum(faintest * rng.random(count) ** (-0.4 / np.log10(slope)), 6e5 * field.fwhm**2 / 9)
    psf = MoffatPsf(fwhm=field.fwhm, beta=3.5, e1=0.03, e2=-0.02, scale=(0.03, 0.02, 0.03), twist=(0.02, 0.0))
    light = np.zeros(shape, np.float32)
    render_points(light, x[star], y[star], flux[star], psf, faintest=0.3)
    r50 = np.where(star, 0, np.exp(rng.normal(np.log(0.9), 0.5, count)))
    if field.galaxies:
        table = Table({"r50": r50[~star], "q": rng.uniform(0.3, 1, field.galaxies)})
        table["nu"], table["pa"] = 0.5, rng.uniform(0, 180, field.galaxies)
        render_galaxies(light, x[~star], y[~star], 2 * flux[~star], table, psf, SCALE * np.diag([-1.0, 1.0]))
        flux = np.where(star, flux, 2 * flux)
    data = (rng.poisson((light + SKY) * GAIN) / GAIN).astype(np.float32)
    data += rng.normal(0, READNOISE / GAIN, shape).astype(np.float32)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [150.0, 20.0], [field.side / 2] * 2
    wcs.wcs.cd = SCALE / 3600 * np.diag([-1.0, 1.0])
    ra, dec = wcs.all_pix2world(x, y, 0)
    shifted = wcs.deepcopy()
    shifted.wcs.crval = [150.003, 20.002]
    fits.writeto(folder / "image.fits", data, shifted.to_header(relax=True), overwrite=True)
    np.savez(folder / "truth.npz", x=x, y=y, flux=flux, star=star, r50=r50)
    magnitude = ZERO_POINT - 2.5 * np.log10(flux)
    known = star & (flux > 4 * faintest)
    catalog = Table({"ra": ra[known], "dec": dec[known], "rmag": magnitude[known] + rng.normal(0, 0.01, known.sum())})
    catalog["e_rmag"], catalog["gmag"] = 0.01, catalog["rmag"] + rng.uniform(0.2, 1.4, known.sum())
    catalog.write(folder / "catalog.fits", overwrite=True)


# --------------------------------------------------------------------------------------------------------- the methods


class Clock:
    """Seconds of processor time and peak memory of each part, that of its child processes counted."""

    def __init__(self):
        self.parts, self.last = {}, seconds()

    def lap(self, name):
        now, memory = seconds(), max(resource.getrusage(who).ru_maxrss for who in BOTH) / 1024
        self.parts[name] = (now - self.last, memory)
        self.last = now


def seconds() -> float:
    return sum(getattr(resource.getrusage(who), kind) for who in BOTH for kind in ("ru_utime", "ru_stime"))


def nightsift(folder: Path, with_psf: bool = True) -> dict:
    """Run the stages on arrays, as the workflow's scripts do, without reading and writing products."""
    from astropy.io import fits
    from astropy.table import Table
    from astropy.wcs import WCS

    from nightsift import parameters
    from nightsift.astrometry.astrometry import Hint, astrometry
    from nightsift.detect.detect import detect
    from nightsift.inspect.inspect import inspect
    from nightsift.photometry.magnitudes import calibrate
    from nightsift.photometry.photometry import photometry
    from nightsift.photometry.solution import ApertureSeeing
    from nightsift.psf.psf import psf

    data, header = fits.getdata(folder / "image.fits").astype(np.float32), fits.getheader(folder / "image.fits")
    catalog = Table.read(folder / "catalog.fits")
    clock = Clock()
    clock.lap("start")
    facts = inspect(data, header, parameters.InspectConfig(gain=GAIN))
    clock.lap("inspect")
    found = detect(data, facts.mask, GAIN, parameters.DetectConfig())
    clock.lap("detect")
    hint = Hint(wcs=WCS(header), ra=None, dec=None, radius=None, pixscale=SCALE)
    solved = astrometry(found.objects, catalog, hint, data.shape, parameters.AstrometryConfig(), band_hint="r")
    clock.lap("astrometry")
    objects = found.objects
    if with_psf:
        fit = psf(data, facts.mask, GAIN, objects, found.seeing, found.aperture, parameters.PsfConfig())
        objects.add_columns(list(fit.table.columns.values()))
        clock.lap("psf")
    objects["ra"], objects["dec"] = WCS(solved.header, relax=True).all_pix2world(objects["x"], objects["y"], 0)
    seeing = ApertureSeeing(found.seeing.fwhm, SCALE, found.aperture, data.shape)
    result = photometry(objects, catalog, seeing, "r", parameters.PhotometryConfig())
    calibrate(objects, result)
    clock.lap("photometry")
    names = ("x", "y", "flux", "fluxerr", "flags", *(("psf_flux", "spread", "spread_err") if with_psf else ()))
    np.savez(folder / "nightsift.npz", aperture=found.aperture, **{name: objects[name] for name in names})
    return {"parts": clock.parts, "zp": result.zp, "cosmic": facts.masked["COSMIC"]}


def stdpipe(folder: Path) -> dict:
    """Run STDPipe's part of this with STDWeb's defaults: SExtractor finds, the filter labels, photutils measures."""
    from astropy.io import fits
    from stdpipe import artefacts, photometry

    data = fits.getdata(folder / "image.fits").astype(float)
    clock = Clock()
    clock.lap("start")
    more = {"extra_params": ["NUMBER", "MAG_AUTO", "ISOAREA_IMAGE", "FLUX_MAX", "FLUX_AUTO"], "minarea": 3}
    mask = ~np.isfinite(data)
    objects = photometry.get_objects_sextractor(data, mask=mask, gain=GAIN, aper=3, extra={"BACK_SIZE": 256}, **more)
    clock.lap("detect")
    good = artefacts.filter_sextractor_detections(objects, verbose=False)
    clock.lap("filter")
    fwhm = float(np.median(2 * objects["FLUX_RADIUS"][good & (objects["flags"] == 0)]))
    objects = photometry.measure_objects(
        objects, data, mask=mask, fwhm=fwhm, aper=1.0, bkgann=[5, 7], bg=None, gain=GAIN, sn=5
    )
    clock.lap("measure")
    np.savez(folder / "stdpipe.npz", aperture=fwhm, **{k: objects[k] for k in ("x", "y", "flux", "fluxerr", "flags")})
    return {"parts": clock.parts}


def sextractor(folder: Path) -> dict:
    """Run SExtractor alone with nightsift's threshold, filter, mesh and aperture."""
    fwhm, names = 3.0, ("X_IMAGE", "Y_IMAGE", "FLUX_APER", "FLUXERR_APER", "FLAGS")
    (folder / "out.param").write_text("\n".join(names) + "\n")
    with np.load(folder / "nightsift.npz") as ours:
        fwhm = float(ours["aperture"])
    r = np.arange(-int(np.ceil(1.2 * fwhm)), int(np.ceil(1.2 * fwhm)) + 1)
    line = np.exp(-4 * np.log(2) * (r / fwhm) ** 2)
    kernel = "\n".join(" ".join(f"{value:.6f}" for value in row) for row in np.outer(line, line))
    (folder / "gauss.conv").write_text(f"CONV NORM\n{kernel}\n")
    (folder / "default.nnw").write_text("NNW\n")
    command = ["source-extractor", "image.fits", "-c", "/dev/null", "-PARAMETERS_NAME", "out.param"]
    command += [
        "-FILTER_NAME",
        "gauss.conv",
        "-CATALOG_NAME",
        "sex.fits",
        "-CATALOG_TYPE",
        "FITS_1.0",
        "-GAIN",
        str(GAIN),
    ]
    command += ["-DETECT_THRESH", "1.5", "-DETECT_MINAREA", "4", "-BACK_SIZE", "64", "-DEBLEND_MINCONT", "0.003"]
    command += ["-PHOT_APERTURES", f"{2 * fwhm:.4f}", "-SATUR_LEVEL", "1e9", "-VERBOSE_TYPE", "QUIET"]
    command += ["-BACKPHOTO_TYPE", "LOCAL", "-MEMORY_PIXSTACK", "3000000", "-MEMORY_OBJSTACK", "30000"]
    start = seconds()
    subprocess.run(command, cwd=folder, check=True)
    spent, memory = seconds() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    from astropy.io import fits

    table = fits.getdata(folder / "sex.fits")
    columns = dict(zip(("x", "y", "flux", "fluxerr", "flags"), (table[name] for name in names), strict=True))
    columns["x"], columns["y"] = columns["x"] - 1, columns["y"] - 1
    kept = columns["flux"] >= 5 * columns["fluxerr"]
    np.savez(folder / "sextractor.npz", aperture=fwhm, **{name: value[kept] for name, value in columns.items()})
    return {"parts": {"detect": (spent, memory)}}


METHODS = {"nightsift": nightsift, "sextractor": sextractor, "stdpipe": stdpipe}


# --------------------------------------------------------------------------------------------------------- the figures


def judge(folder: Path, name: str, fwhm: float) -> dict:
    """Return completeness by S/N, false detections and the bias of fluxes; every object matches one true source."""
    from scipy.spatial import cKDTree

    with np.load(folder / "truth.npz") as arrays:
        truth = {key: arrays[key] for key in arrays}
    with np.load(folder / f"{name}.npz") as arrays:
        found = {key: arrays[key] for key in arrays}
    places, tree = np.column_stack([found["x"], found["y"]]), cKDTree(np.column_stack([truth["x"], truth["y"]]))
    # The brightest true source within half a FWHM that none has taken yet.
    radius = 0.5 * fwhm
    partner, taken = np.full(len(places), -1), np.zeros(len(truth["x"]), bool)
    for row in np.argsort(-found["flux"], kind="stable"):
        near = [k for k in tree.query_ball_point(places[row], radius) if not taken[k]]
        if near:
            partner[row] = max(near, key=lambda k: truth["flux"][k])
            taken[partner[row]] = True
    light = 0.72 * truth["flux"]  # about what an aperture of one FWHM holds
    snr = light / np.sqrt(light / GAIN + np.pi * fwhm**2 * NOISE**2)
    result = {"objects": len(places), "false": int((partner < 0).sum())}
    for low, high in BINS:
        part = (snr >= low) & (snr < high) & truth["star"]
        result[f"{low:g}-{high:g}"] = (int(taken[part].sum()), int(part.sum()))
    known = partner >= 0
    chosen = np.flatnonzero(known)[snr[partner[known]] > 30]
    clean = chosen[(found["flags"][chosen] == 0) & truth["star"][partner[chosen]]]
    ratio = found["flux"][clean] / truth["flux"][partner[clean]]
    result["scatter"] = float(1.4826 * np.median(np.abs(ratio / np.median(ratio) - 1)))
    faint = np.flatnonzero(known & (found["flags"] == 0))
    faint = faint[(snr[partner[faint]] > 8) & (snr[partner[faint]] < 20) & truth["star"][partner[faint]]]
    # Of faint stars against bright ones.
    result["bias"] = float(np.median(found["flux"][faint] / truth["flux"][partner[faint]]) / np.median(ratio) - 1)
    return result


def run(name: str, folder: Path, interpreter: str, limit: float) -> dict | None:
    """Run a method in a process of its own with limited address space."""

    def restrict():
        resource.setrlimit(resource.RLIMIT_AS, (int(limit * 2**30),) * 2)

    command = [interpreter, __file__, "--worker", name, "--workdir", str(folder)]
    done = subprocess.run(command, preexec_fn=restrict, stdout=subprocess.PIPE, text=True, check=False)
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None


def report(field: str, name: str, folder: Path, result: dict | None):
    """Print what a method took and what it found, as rows of a Markdown table."""
    if result is None:
        print(f"| {field} | {name} | failed |")
        return
    parts = {part: value for part, value in result["parts"].items() if part != "start"}
    times = ", ".join(f"{part} {spent:.1f}" for part, (spent, _) in parts.items())
    memory = max(value for _, value in parts.values())
    facts = judge(folder, name, FIELDS[field].fwhm)
    counts = " | ".join(f"{facts[f'{low:g}-{high:g}'][0]}/{facts[f'{low:g}-{high:g}'][1]}" for low, high in BINS)
    figures = f"{counts} | {facts['false']} | {100 * facts['bias']:.1f} | {100 * facts['scatter']:.1f}"
    print(f"| {field} | {name} | {times} | {memory:.0f} | {figures} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fields", nargs="+", default=list(FIELDS), choices=FIELDS)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--stdpipe", default=sys.executable, help="interpreter that has STDPipe")
    parser.add_argument("--limit", type=float, default=3.0, help="GiB of address space")
    parser.add_argument("--workdir", type=Path, help="folder for the images, kept")
    parser.add_argument("--worker", choices=METHODS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(METHODS[options.worker](options.workdir)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        for field in options.fields:
            folder = (options.workdir or Path(temporary)) / field
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / "image.fits").exists():
                simulate(FIELDS[field], folder)
            for name in options.methods:
                interpreter = options.stdpipe if name == "stdpipe" else sys.executable
                report(field, name, folder, run(name, folder, interpreter, options.limit))


if __name__ == "__main__":
    main()
