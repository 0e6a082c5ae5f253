"""Compare the magnitudes of stars that nightsift and STDPipe calibrate with the truth of simulated images.

    python benchmarks/photometry.py [--fwhm 2 3.2 5] [--stars 50 500 4000] [--seeds 1 2 3] [--stdpipe PYTHON]

Each detects the objects, measures them in an aperture of 1 FWHM and ties them to the same catalogue, alone on one core.
STDPipe runs if this interpreter, or the one that --stdpipe names, can import it. What the columns mean is in README.md.
"""

import argparse
import importlib.util
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import peers
from astropy.table import Table, hstack
from scipy import ndimage
from scipy.spatial import cKDTree

from nightsift import parameters
from nightsift.detect.aperture import Aperture, measure
from nightsift.detect.detect import detect
from nightsift.errors import Rejected
from nightsift.flags import Mask
from nightsift.image.background import background
from nightsift.photometry.magnitudes import calibrate
from nightsift.photometry.photometry import photometry
from nightsift.photometry.solution import ApertureSeeing
from nightsift.psf.psf import psf
from nightsift.simulate import simulate, sources
from nightsift.simulate.cameras import SimulatedCampaign

BINS = ((5, 10), (10, 30), (30, 100), (100, np.inf))


@dataclass(frozen=True)
class Case:
    """A simulated image, its mask and catalogue, and the stars without neighbours that are compared."""

    exposure: simulate.SimulatedImage
    mask: np.ndarray
    catalog: Table
    stars: Table

    @classmethod
    def of(cls, fwhm: float, count: int, seed: int):
        few = {"n_galaxies": 20, "n_transients": 2, "n_variables": 0, "n_fast": 0, "n_cosmics": 0, "n_images": 1}
        params = SimulatedCampaign(seed=seed, fwhm=fwhm, n_stars=count, catalog_snr=10, **few)
        field = sources.sky(params)
        exposure = simulate.image(field, 0, params)
        listed = simulate.catalog(field, params, sources.STARS)
        names = {"RAJ2000": "ra", "DEJ2000": "dec"}
        catalog = Table({names.get(name, name): np.asarray(listed[name]) for name in listed.colnames})
        mask = np.where(exposure.bad, int(Mask.SATURATED), 0).astype(np.uint16)
        return cls(exposure, mask, catalog, alone(exposure))


def alone(exposure) -> Table:
    """Return the usable stars to whose light within 4 FWHM others add less than 0.5 per cent."""
    truth = exposure.truth
    place = np.column_stack([truth["x"], truth["y"]])
    near = cKDTree(place).query_ball_point(place, 4 * exposure.camera.psf.fwhm)
    light = np.array([truth["flux"][rows].sum() for rows in near]) / truth["flux"] - 1
    return truth[(truth["kind"] == "star") & truth["usable"] & (light < 0.005)]


def own(case: Case, repeat: int) -> dict[str, dict]:
    """Run nightsift, and nightsift with its PSF photometry."""
    camera, data, gain = case.exposure.camera, case.exposure.data, case.exposure.camera.gain
    scale = float(np.sqrt(np.abs(np.linalg.det(camera.wcs.pixel_scale_matrix)))) * 3600
    clock = []
    for _ in range(repeat):
        ticks = [time.perf_counter()]
        found = detect(data, case.mask, gain, parameters.DetectConfig())
        ticks.append(time.perf_counter())
        shape = psf(data, case.mask, gain, found.objects, found.seeing, found.aperture, parameters.PsfConfig())
        ticks.append(time.perf_counter())
        objects = hstack([found.objects, shape.table])
        objects["ra"], objects["dec"] = camera.wcs.all_pix2world(objects["x"], objects["y"], 0)
        seeing = ApertureSeeing(found.seeing.fwhm, scale, found.aperture, case.mask.shape)
        result = photometry(objects, case.catalog, seeing, "r", parameters.PhotometryConfig())
        table = calibrate(objects, result, case.catalog)
        ticks.append(time.perf_counter())
        # once more, for the time: it is a part of the detection
        rings, sky = Aperture(*(found.seeing.fwhm * r for r in (1, 5, 7, 1))), background(data, case.mask != 0, 64)
        measure(data - sky.level, sky.noise, case.mask, found.objects["x"], found.objects["y"], gain, rings)
        ticks.append(time.perf_counter())
        clock.append(np.diff(ticks))
    detected, fitted, calibrated, measured = np.min(clock, axis=0)
    zero = camera.zero_point(*np.meshgrid(*(np.arange(0, side, 16) for side in case.mask.shape[::-1]))).mean()
    common = {name: np.asarray(table[name]) for name in ("x", "y")}
    common["color_term"] = np.nan if result.model.color is None else result.model.color_term
    common["color_err"] = np.nan if result.model.color is None else result.model.color_term_err
    # the catalogue's colour 0 is not the stars': without a colour term the zero point is that of the usual star
    usual = 0.0 if result.model.color else camera.color * color_of(case)
    rows = {}
    for method, name, extra in (("nightsift", "mag_calib", 0.0), ("nightsift, PSF", "mag_psf", fitted)):
        # STDPipe's errors hold the zero point's
        error = np.hypot(table[f"{name}_err"], result.model.zero_point_error(table["x"], table["y"]))
        rows[method] = common | {"mag_calib": np.asarray(table[name]), "mag_calib_err": np.asarray(error)}
        rows[method] |= {"seconds": detected + extra + calibrated, "measuring": measured + extra + calibrated}
    if result.model.correction_coefficients is not None:
        rows["nightsift"] |= {"total": result.model.zp + usual - zero, "total_err": result.model.zp_err}
    rows["nightsift, true places"] = rows["nightsift"] | forced(case, objects, result, rings)
    return rows


def forced(case: Case, objects: Table, result, rings: Aperture) -> dict[str, np.ndarray]:
    """Return the magnitudes in apertures where the stars are, found or not; the annuli leave out what was found."""
    data, stars, sky = case.exposure.data, case.stars, background(case.exposure.data, case.mask != 0, 64)
    at = {name: np.asarray(stars[name], float) for name in ("x", "y")}
    empty = np.ones(data.shape, bool)
    empty[tuple(np.rint(objects[axis]).astype(int) for axis in "yx")] = False
    lit = ndimage.distance_transform_edt(empty) < 2 * rings.radius
    found = measure(data - sky.level, sky.noise, case.mask, *at.values(), case.exposure.camera.gain, rings, lit)
    flux = np.where(found["flux"] > 0, found["flux"], np.nan)
    error = np.hypot(2.5 / np.log(10) * found["fluxerr"] / flux, result.model.zero_point_error(*at.values()))
    mag = result.model.zero_point(*at.values()) - 2.5 * np.log10(flux)
    return at | {"mag_calib": mag, "mag_calib_err": error, "total": np.nan}


def color_of(case: Case) -> float:
    return float(np.median(case.catalog["gmag"] - case.catalog["rmag"]))


def other(case: Case, order: int, python: str, repeat: int) -> dict:
    """Run STDPipe in its own interpreter."""
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder) / "given.npz", Path(folder) / "found.npz"
        camera = case.exposure.camera
        names = ("ra", "dec", "rmag", "gmag", "e_rmag")
        np.savez(
            given,
            image=case.exposure.data,
            mask=case.mask != 0,
            gain=camera.gain,
            header=camera.wcs.to_header(relax=True).tostring(),
            **{name: np.asarray(case.catalog[name]) for name in names},
        )
        code = "import sys; from pathlib import Path; import peers;"
        code += " peers.stdpipe_photometry(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))"
        command = [python, "-c", code, str(given), str(found), str(order), str(repeat)]
        subprocess.run(command, check=True, cwd=Path(__file__).parent, stdout=subprocess.DEVNULL)
        with np.load(found) as arrays:
            return {name: arrays[name][()] for name in arrays}


def compared(case: Case, result: dict) -> dict[str, np.ndarray]:
    """Return errors and pulls of the compared stars, one value a star; NaN where it was not measured."""
    camera, stars = case.exposure.camera, case.stars
    distance, row = cKDTree(np.column_stack([result["x"], result["y"]])).query(
        np.column_stack([stars["x"], stars["y"]])
    )
    truth = np.asarray(stars["mag_instr"], float)
    if not np.isfinite(result["color_term"]):
        truth = truth - camera.color * color_of(case)
    error = np.where(distance < 0.5 * camera.psf.fwhm, result["mag_calib"][row] - truth, np.nan)
    return {"snr": np.asarray(stars["snr"], float), "error": error, "pull": error / result["mag_calib_err"][row]}


def ready(stdpipe: str | None) -> str | None:
    return stdpipe or (sys.executable if importlib.util.find_spec("stdpipe") else None)


def run(options) -> dict:
    """Return, for each number of stars and method, what `compared` returns of all images, and what is one an image."""
    python, gathered = ready(options.stdpipe), {}
    for fwhm in options.fwhm:
        for count in options.stars:
            for seed in options.seeds:
                case = Case.of(fwhm, count, seed)
                results = {}
                try:
                    results = own(case, options.repeat)
                except Rejected as reason:
                    print(f"nightsift: fwhm {fwhm}, {count} stars, seed {seed}: {reason}")
                if python:
                    for order in (0, 2):
                        results[f"STDPipe order {order}"] = other(case, order, python, options.repeat)
                for method, result in results.items():
                    if "mag_calib" not in result:
                        print(f"{method}: fwhm {fwhm}, {count} stars, seed {seed}: not calibrated")
                        continue
                    item = compared(case, result) | {name: result[name] for name in ("seconds", "measuring")}
                    for name in ("total", "total_err", "color_err"):
                        item[name] = result.get(name, np.nan)
                    item["color"] = result["color_term"] + case.exposure.camera.color
                    gathered.setdefault((count, method), []).append(item)
    return gathered


def table(gathered: dict) -> str:
    lines = [
        "| stars | method | s | without detection | zero point, mmag | "
        + " | ".join(heads())
        + " | colour term | total |"
    ]
    lines.append("|" + "---|" * (lines[0].count("|") - 1))
    for (count, method), items in gathered.items():
        zero = [
            np.nanmedian(item["error"][item["snr"] > 30])
            for item in items
            if np.isfinite(item["error"][item["snr"] > 30]).any()
        ]
        cells = [f"{count}", method]
        cells += [f"{np.median([item[name] for item in items]):.2f}" for name in ("seconds", "measuring")]
        cells.append(f"{1000 * np.nanmean(zero):+.1f}, {1000 * np.nanstd(zero):.1f}")
        snr, error, pull = (np.concatenate([item[name] for item in items]) for name in ("snr", "error", "pull"))
        for low, high in BINS:
            inside = (snr > low) & (snr <= high)
            middle, width = peers.robust(error[inside])
            cells.append(f"{1000 * middle:+.1f}, {1000 * width:.1f}, {peers.robust(pull[inside])[1]:.2f}")
        cells += [summary(items, "color", "color_err"), summary(items, "total", "total_err")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def summary(items, name: str, error: str) -> str:
    """Return mean and rms of what is one an image, the rms of its pulls where there are errors, and of how many."""
    value, error = (np.array([item[key] for item in items], float) for key in (name, error))
    known = np.isfinite(value)
    if not known.any():
        return "-"
    cell = f"{1000 * np.mean(value[known]):+.1f}, {1000 * np.sqrt(np.mean(value[known] ** 2)):.1f}"
    if np.isfinite(error).any():
        cell += f", {np.sqrt(np.nanmean((value / error) ** 2)):.2f}"
    return f"{cell} ({known.sum()})"


def heads():
    return [f"S/N {low} to {high}" if np.isfinite(high) else f"S/N > {low}" for low, high in BINS]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fwhm", type=float, nargs="+", default=[2.0, 3.2, 5.0], help="seeing, pixels")
    parser.add_argument("--stars", type=int, nargs="+", default=[100, 500, 3000], help="stars in the image")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--repeat", type=int, default=2, help="runs, of whose seconds the least count")
    parser.add_argument("--stdpipe", help="a Python that can import stdpipe, if this one cannot")
    print(table(run(parser.parse_args())))


if __name__ == "__main__":
    main()
