"""Compare nightsift's plate solutions with SCAMP's and with the truth, on the same simulated lists of stars.

    python benchmarks/astrometry.py [--telescopes narrow schmidt lens] [--stars 50 300 1000 5000] [--fields 5]
                                    [--wrong 200] [--json FILE]

SCAMP runs if `scamp` is on the PATH. What the columns mean is in README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

from nightsift import parameters
from nightsift.astrometry import sip
from nightsift.astrometry.astrometry import Hint, astrometry
from nightsift.errors import Rejected
from nightsift.sky import tangent
from nightsift.sky.pixels import grid

FWHM, FLOOR = 3.0, 0.02  # pixels; the floor is that of a centroid, whatever its S/N
CATALOG_ERROR = 0.002  # arcsec
FIFTH = {(5, 0): (-1, 0), (3, 2): (-2, 0), (1, 4): (-1, 0), (4, 1): (0, -1), (2, 3): (0, -2), (0, 5): (0, -1)}
CUBIC = {(3, 0): (1, 0), (1, 2): (1, 0), (2, 1): (0, 1), (0, 3): (0, 1), (2, 0): (0.2, -0.1), (1, 1): (-0.1, 0.1)}


@dataclass(frozen=True)
class Telescope:
    """Arcsec a pixel, rows and columns, distortion at the corners in half-diagonals, its order, and the place."""

    scale: float
    shape: tuple[int, int]
    distortion: float
    order: int
    place: tuple[float, float]

    @property
    def unit(self) -> float:
        return 0.5 * float(np.hypot(*self.shape))

    @property
    def center(self) -> complex:
        return (self.shape[1] - 1) / 2 + 0.5j * (self.shape[0] - 1)


TELESCOPES = {
    "narrow": Telescope(0.4, (2048, 2048), 1e-3, 3, (10.0, 41.0)),
    "schmidt": Telescope(2.0, (1500, 2200), 3e-3, 3, (359.99, -60.0)),
    "lens": Telescope(32.0, (1024, 1024), 2e-2, 5, (200.0, 50.0)),
}


def solution(telescope: Telescope, turn=0.6, stretch=1.0, shift=0j, distorted=True) -> WCS:
    """Return a telescope's solution, turned (radians), stretched and shifted (degrees), with its distortion or not."""
    cd = stretch * telescope.scale / 3600 * np.array([[-np.cos(turn), np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    terms = {(1, 0): cd[:, 0], (0, 1): cd[:, 1]}
    order = telescope.order if distorted else 1
    if distorted:
        bent = CUBIC | ({ij: np.array(value) / 4 for ij, value in FIFTH.items()} if order == 5 else {})
        terms |= {ij: telescope.distortion * cd @ value for ij, value in bent.items()}
    coefficients = np.array([terms.get(ij, np.zeros(2)) * telescope.unit for ij in sip.powers(order)])
    place = tuple(float(value) for value in tangent.deproject(shift, *telescope.place))
    return WCS(sip.header(coefficients, order, telescope.unit, telescope.center, place, telescope.shape))


def field(telescope: Telescope, number: int, rng) -> tuple[Table, Table]:
    """Return the objects and the catalogue of a random field: a fifth of each is not in the other."""
    true, (height, width) = solution(telescope), telescope.shape
    reach = 1.3 * telescope.unit
    total = int(number * np.pi * reach**2 / (height * width))
    plane = reach * telescope.scale / 3600 * np.sqrt(rng.random(total)) * np.exp(2j * np.pi * rng.random(total))
    ra, dec = tangent.deproject(plane, *telescope.place)
    mag = 20 + np.log10(rng.random(total)) / 0.4
    near = np.flatnonzero(np.abs(plane) < 1.1 * telescope.unit * telescope.scale / 3600)
    x, y = true.all_world2pix(ra[near], dec[near], 0, tolerance=1e-6, maxiter=50, quiet=True)
    seen = (x > 0) & (x < width - 1) & (y > 0) & (y < height - 1) & (rng.random(len(near)) > 0.2)
    flux = 10 ** (-0.4 * (mag[near[seen]] + rng.normal(0, 0.3, seen.sum()) - 25))
    snr = 5 * (flux / flux.min()) ** 0.7
    error = np.hypot(FLOOR, 0.6 * FWHM / snr)
    spurious = seen.sum() // 5
    objects = Table(
        {
            "x": np.append(x[seen] + rng.normal(0, error), rng.uniform(0, width - 1, spurious)),
            "y": np.append(y[seen] + rng.normal(0, error), rng.uniform(0, height - 1, spurious)),
            "flux": np.append(flux, rng.choice(flux, spurious)),
            "snr": np.append(snr, rng.choice(snr, spurious)),
        }
    )
    objects["fwhm"], objects["flags"] = FWHM, 0
    kept = rng.random(total) > 0.2
    ra, dec = tangent.deproject(plane + CATALOG_ERROR / 3600 * rng.normal(size=(total, 2)) @ [1, 1j], *telescope.place)
    return objects, Table({"ra": ra[kept], "dec": dec[kept], "rmag": mag[kept]})


def ours(telescope, objects, catalog, start: WCS) -> WCS:
    """Solve by nightsift."""
    return astrometry(objects, catalog, Hint(wcs=start), telescope.shape, parameters.AstrometryConfig()).wcs


def scamp(telescope, objects, catalog, start: WCS) -> WCS:
    """Solve by SCAMP, its options as STDWeb has them but for the search, which has the same range as ours."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        header = fits.Header([("SIMPLE", True), ("BITPIX", -32), ("NAXIS", 2)])
        header["NAXIS1"], header["NAXIS2"] = telescope.shape[1], telescope.shape[0]
        header.extend(start.to_header(relax=True))
        for row in (1, 2):
            for column in (1, 2):
                header[f"CD{row}_{column}"] = start.pixel_scale_matrix[row - 1, column - 1]
                header.remove(f"PC{row}_{column}", ignore_missing=True)
            del header[f"CDELT{row}"]
        header["FILTER"], header["EXPTIME"], header["MJD-OBS"] = "r", 1.0, 51544.5
        error = np.hypot(FLOOR, 0.6 * FWHM / objects["snr"])
        columns = {"XWIN_IMAGE": objects["x"] + 1.0, "YWIN_IMAGE": objects["y"] + 1.0}
        columns |= {"ERRAWIN_IMAGE": error, "ERRBWIN_IMAGE": error, "ERRTHETAWIN_IMAGE": 0 * error}
        columns |= {"FLUX_AUTO": objects["flux"], "FLUXERR_AUTO": objects["flux"] / objects["snr"]}
        columns |= {"MAG_AUTO": -2.5 * np.log10(objects["flux"]), "MAGERR_AUTO": 1.0857 / objects["snr"]}
        columns |= {"FLAGS": np.zeros(len(objects), np.int16), "FLUX_RADIUS": np.full(len(objects), FWHM / 2)}
        write_ldac(folder / "image.cat", header, Table(columns))
        accuracy = np.full(len(catalog), CATALOG_ERROR / 3600)
        columns = {"X_WORLD": catalog["ra"], "Y_WORLD": catalog["dec"], "ERRA_WORLD": accuracy, "ERRB_WORLD": accuracy}
        columns |= {"ERRTHETA_WORLD": 0 * accuracy, "MAG": catalog["rmag"], "MAGERR": np.full(len(catalog), 0.01)}
        write_ldac(folder / "stars.cat", fits.Header(), Table(columns | {"OBSDATE": np.full(len(catalog), 2000.0)}))
        options = {
            **{"ASTREF_CATALOG": "FILE", "ASTREFCAT_NAME": "stars.cat", "CHECKPLOT_TYPE": "NONE", "WRITE_XML": "N"},
            **{"SOLVE_PHOTOM": "N", "PROJECTION_TYPE": "TPV", "STABILITY_TYPE": "EXPOSURE", "SN_THRESHOLDS": "3,30"},
            **{"DISTORT_DEGREES": str(telescope.order), "CROSSID_RADIUS": f"{FWHM * telescope.scale:.4f}"},
            **{
                "POSITION_MAXERR": f"{15 * telescope.scale / 60:.4f}",
                "POSANGLE_MAXERR": "3",
                "PIXSCALE_MAXERR": "1.02",
            },
            **{"NTHREADS": "1", "VERBOSE_TYPE": "QUIET", "FWHM_THRESHOLDS": "0,1000"},
        }
        command = ["scamp", "image.cat", *(part for key, value in options.items() for part in (f"-{key}", value))]
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=300)
        text = (folder / "image.head").read_text(errors="replace").encode("ascii", "replace").decode()
    cards = fits.Header.fromstring(text, sep="\n")
    return WCS(fits.Header([card for card in cards.cards if card.keyword not in ("HISTORY", "COMMENT")]))


def write_ldac(path: Path, header: fits.Header, table: Table) -> None:
    """Write a FITS_LDAC catalogue: the image's header as a table of one row, and the objects."""
    # The blanks at a column's end are lost, and SCAMP falls over a last card without them: a second END behind it.
    text = header.tostring(endcard=True) + fits.Header().tostring(endcard=True)
    column = fits.Column("Field Header Card", f"{len(text)}A", array=[text])
    cards = fits.BinTableHDU.from_columns([column], name="LDAC_IMHEAD")
    objects = fits.BinTableHDU(table, name="LDAC_OBJECTS")
    fits.HDUList([fits.PrimaryHDU(), cards, objects]).writeto(path)


def errors(telescope, found: WCS) -> tuple[float, float]:
    """Return rms per axis and largest error over the frame, in pixels."""
    pixels = grid(telescope.shape, 41, 0.0)
    places = [wcs.all_pix2world(pixels.real, pixels.imag, 0) for wcs in (found, solution(telescope))]
    error = np.abs(tangent.project(*places[0], *places[1])) * 3600 / telescope.scale
    return float(np.sqrt(np.mean(error**2) / 2)), float(error.max())


def cpu() -> float:
    """Return the processor time of this process and of those it has run, in seconds."""
    return sum(os.times()[:4])


def compare(name: str, number: int, distorted: bool, fields: int) -> list[dict]:
    """Return one line of figures a program."""
    telescope, lines = TELESCOPES[name], []
    # SCAMP does not read SIP
    programs = {"nightsift": ours} | ({"scamp": scamp} if shutil.which("scamp") and not distorted else {})
    for program, solve in programs.items():
        results, failed, spent = [], 0, []
        for seed in range(fields):
            rng = np.random.default_rng(seed)
            objects, catalog = field(telescope, number, rng)
            shift = 10 * telescope.scale / 3600 * np.exp(2j * np.pi * rng.random())
            start = solution(telescope, 0.6 + np.radians(rng.uniform(-1, 1)), 1.005, shift, distorted)
            begin, busy = time.perf_counter(), cpu()
            try:
                found = solve(telescope, objects, catalog, start)
                results.append(errors(telescope, found))
            except (Rejected, subprocess.SubprocessError, OSError, ValueError):
                failed += 1
            spent.append((time.perf_counter() - begin, cpu() - busy))
        rms, largest = np.median(results, axis=0) if results else (np.nan, np.nan)
        wrong = sum(result[0] > 1 for result in results)
        lines.append(
            {
                **{"telescope": name, "stars": number, "header": "distorted" if distorted else "linear"},
                **{
                    "program": program,
                    "rms": rms,
                    "largest": largest,
                    "worst rms": max((r for r, _ in results), default=np.nan),
                },
                **{"failed": failed, "wrong": wrong},
                **dict(zip(("seconds", "cpu"), np.median(spent, axis=0).tolist(), strict=True)),
            }
        )
    return lines


def wrong_fields(trials: int) -> dict:
    """Return how many of so many fields that the catalogue does not show were accepted."""
    telescope, accepted = TELESCOPES["narrow"], 0
    numbers = (20, 50, 100, 300)
    for seed in range(trials):
        rng = np.random.default_rng(seed)
        objects, catalog = field(telescope, numbers[seed % 4], rng)
        kind = seed // 4 % 3
        if kind == 0:
            _, catalog = field(telescope, numbers[seed % 4], rng)
        elif kind == 1:
            catalog["dec"] = rng.permutation(catalog["dec"])
        else:
            catalog["ra"] = 2 * telescope.place[0] - catalog["ra"]
        place = Hint(ra=telescope.place[0], dec=telescope.place[1], radius=0.05, pixscale=telescope.scale)
        # nothing tells a mirrored sky from a mirrored image where the solution may be mirrored
        hint = place if seed // 12 % 2 and kind < 2 else Hint(wcs=solution(telescope))
        try:
            astrometry(objects, catalog, hint, telescope.shape, parameters.AstrometryConfig())
            accepted += 1
        except Rejected:
            pass
    return {"trials": trials, "accepted": accepted}


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--telescopes", nargs="+", choices=TELESCOPES, default=list(TELESCOPES))
    parser.add_argument("--stars", nargs="+", type=int, default=[50, 300, 1000, 5000])
    parser.add_argument("--fields", type=int, default=5, help="random fields for each line")
    parser.add_argument("--wrong", type=int, default=200, help="trials on fields that the catalogue does not show")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    lines, head = [], None
    for name in options.telescopes:
        for number in options.stars:
            for distorted in (True, False):
                for line in compare(name, number, distorted, options.fields):
                    if head is None:
                        head = list(line)
                        print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
                    shown = [f"{value:.3f}" if isinstance(value, float) else str(value) for value in line.values()]
                    print("| " + " | ".join(shown) + " |", flush=True)
                    lines.append(line)
    wrong = wrong_fields(options.wrong)
    print(f"\nfields that the catalogue does not show: {wrong['accepted']} of {wrong['trials']} accepted")
    if options.json:
        options.json.write_text(json.dumps({"solutions": lines, "wrong": wrong}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
