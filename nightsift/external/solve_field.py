"""Where an image of unknown place lies, by Astrometry.net (Lang et al. 2010, AJ 139, 1782).

Either by its program solve-field, or by the Python package astrometry that is made of its engine.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table

from nightsift.errors import CampaignError, Rejected
from nightsift.external import program
from nightsift.external.astrometry_package import PACKAGE
from nightsift.header.wcs_cards import repair_wcs

PROGRAM = "solve-field"
WALL = 1.5  # time allowed in units of the processor time allowed


@dataclass(frozen=True)
class FieldSearch:
    """Where and for how long to search.

    `seconds` of processor time; `scale` (lowest, highest) in arcsec a pixel; `cone` (ra, dec, radius) in degrees;
    `indexes`, a folder of index files, by default those of the program's configuration.
    """

    seconds: float
    scale: tuple[float, float] | None = None
    cone: tuple[float, float, float] | None = None
    indexes: str | None = None


def run_solve_field(x, y, flux, shape: tuple[int, int], search: FieldSearch) -> fits.Header:
    """Find the place of an image from its stars alone, mirrored or not.

    Parameters
    ----------
    x, y, flux : 1-D arrays
        Stars, 0-based pixels.
    shape : (int, int)
        Rows and columns of the image.
    search : Search

    Returns
    -------
    fits.Header
        Cards of a linear solution (TAN), good to some pixels where the optics distort.

    Raises
    ------
    Rejected
        If there is no such program, or if it fails, takes too long or finds no solution.
    """
    path = shutil.which(PROGRAM)
    if path is None:
        raise Rejected(f"the program {PROGRAM!r} is not on the PATH")
    with _stars(PROGRAM, x, y, flux, search) as name:
        folder = Path(name)
        message = _run(PROGRAM, [path, *_options(shape, search, folder)], folder, search.seconds)
        return _read(PROGRAM, folder / "stars.wcs", shape, message)


def run_package(x, y, flux, shape: tuple[int, int], search: FieldSearch) -> fits.Header:
    """Do what `run_solve_field` does, by the Python package astrometry; `search` has to name the indexes."""
    if not search.indexes:
        raise Rejected(f"the Python package {PACKAGE!r} needs a folder of index files: inspect.indexes")
    with _stars(PACKAGE, x, y, flux, search) as name:
        folder = Path(name)
        asked = asdict(search) | {"indexes": str(Path(search.indexes).resolve())}
        (folder / "search.json").write_text(json.dumps(asked))
        command = [
            sys.executable,
            "-P",
            "-m",
            "nightsift.external.astrometry_package",
            "stars.xyls",
            "search.json",
            "stars.wcs",
        ]
        path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        message = _run(PACKAGE, command, folder, search.seconds, env=os.environ | {"PYTHONPATH": path})
        return _read(PACKAGE, folder / "stars.wcs", shape, message)


SOLVERS = {PROGRAM: run_solve_field, PACKAGE: run_package}


@contextmanager
def _stars(solver: str, x, y, flux, search: FieldSearch):
    """Yield the name of a folder with the stars in a table, and nothing else."""
    if search.indexes and not Path(search.indexes).is_dir():
        raise Rejected(f"the folder of index files {search.indexes!r} does not exist")
    if not len(x):
        raise Rejected(f"{solver} has no star to go by")
    with tempfile.TemporaryDirectory(prefix="nightsift-") as name:
        table = Table({"X": np.asarray(x) + 1.0, "Y": np.asarray(y) + 1.0, "FLUX": np.asarray(flux, float)})
        table.write(Path(name) / "stars.xyls", format="fits")
        yield name


def _options(shape, search: FieldSearch, folder: Path) -> list[str]:
    options = ["stars.xyls", "--width", str(shape[1]), "--height", str(shape[0])]
    options += ["--x-column", "X", "--y-column", "Y", "--sort-column", "FLUX"]
    options += ["--no-plots", "--no-tweak", "--crpix-center", "--cpulimit", f"{max(search.seconds, 1):.0f}"]
    options += ["--temp-dir", str(folder)]
    for unwanted in ("new-fits", "rdls", "match", "corr", "index-xyls", "solved"):
        options += [f"--{unwanted}", "none"]
    if search.scale is not None:
        low, high = search.scale
        options += ["--scale-units", "arcsecperpix", "--scale-low", f"{low:.6g}", "--scale-high", f"{high:.6g}"]
    if search.cone is not None:
        for key, value in zip(("ra", "dec", "radius"), search.cone, strict=True):
            options += [f"--{key}", f"{value:.6f}"]
    if search.indexes:
        # --index-dir came after version 0.93, which Debian has
        config = f"cpulimit {max(search.seconds, 1):.0f}\nadd_path {Path(search.indexes).resolve()}\nautoindex\n"
        (folder / "indexes.cfg").write_text(config)
        options += ["--config", "indexes.cfg"]
    return options


def _run(solver: str, command: list[str], folder: Path, seconds: float, env=None) -> str:
    """Run a solver in the folder; return the last line that it printed."""
    try:
        return program.run(command, folder, WALL * seconds, solver, env)
    except CampaignError as error:
        raise Rejected(str(error)) from error


def _read(solver: str, path: Path, shape, message: str) -> fits.Header:
    # Without a solution it reports success, too.
    if not path.exists():
        raise Rejected(f"{solver} found no solution; it said: {message}")
    try:
        header = fits.getheader(path)
    except OSError as error:
        raise Rejected(f"{solver} left no readable solution ({error}); it said: {message}") from error
    cards, problems = repair_wcs(header, shape)
    if cards is None:
        raise Rejected(f"{solver} left a solution that cannot be used: {'; '.join(problems)}")
    return cards
