"""Where an image of unknown place lies, by solve-field of Astrometry.net (Lang et al. 2010, AJ 139, 1782)."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table

from nightsift.errors import Rejected
from nightsift.io import program
from nightsift.io.campaign import CampaignError
from nightsift.solution import repair_wcs

PROGRAM = "solve-field"
WALL = 1.5  # time allowed in units of the processor time allowed


@dataclass(frozen=True)
class Search:
    """Where and for how long to search.

    `seconds` of processor time; `scale` (lowest, highest) in arcsec a pixel; `cone` (ra, dec, radius) in degrees;
    `indexes`, a folder of index files, by default those of the program's configuration.
    """

    seconds: float
    scale: tuple[float, float] | None = None
    cone: tuple[float, float, float] | None = None
    indexes: str | None = None


def run_solve_field(x, y, flux, shape: tuple[int, int], search: Search) -> fits.Header:
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
    if search.indexes and not Path(search.indexes).is_dir():
        raise Rejected(f"the folder of index files {search.indexes!r} does not exist")
    if not len(x):
        raise Rejected(f"{PROGRAM} has no star to go by")
    with tempfile.TemporaryDirectory(prefix="nightsift-") as name:
        folder = Path(name)
        Table({"X": np.asarray(x) + 1.0, "Y": np.asarray(y) + 1.0, "FLUX": np.asarray(flux, float)}).write(
            folder / "stars.xyls", format="fits"
        )
        try:
            message = program.run([path, *_options(shape, search, folder)], folder, WALL * search.seconds)
        except CampaignError as error:
            raise Rejected(str(error)) from error
        return _read(folder / "stars.wcs", shape, message)


def _options(shape, search: Search, folder: Path) -> list[str]:
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
        options += ["--index-dir", str(Path(search.indexes).resolve())]
    return options


def _read(path: Path, shape, message: str) -> fits.Header:
    # Without a solution it reports success, too.
    if not path.exists():
        raise Rejected(f"{PROGRAM} found no solution; it said: {message}")
    try:
        header = fits.getheader(path)
    except OSError as error:
        raise Rejected(f"{PROGRAM} left no readable solution ({error}); it said: {message}") from error
    cards, problems = repair_wcs(header, shape)
    if cards is None:
        raise Rejected(f"{PROGRAM} left a solution that cannot be used: {'; '.join(problems)}")
    return cards
