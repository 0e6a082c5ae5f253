"""Detection by the program SExtractor (Bertin & Arnouts 1996, A&AS 117, 393), where it is installed."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import sep
from astropy.io import fits

from nightsift import parameters
from nightsift.detect.detect import CONTRAST, LEVELS, detection_filter, in_sigma
from nightsift.errors import Rejected
from nightsift.external import program
from nightsift.io.fits import read_image

PROGRAMS = program.PROGRAMS["detect"]["sextractor"]
COLUMNS = {
    "x": "X_IMAGE",
    "y": "Y_IMAGE",
    "a": "A_IMAGE",
    "b": "B_IMAGE",
    "theta": "THETA_IMAGE",
    "npix": "ISOAREA_IMAGE",
    "flux": "FLUX_ISO",
    "peak": "FLUX_MAX",
    "xpeak": "XPEAK_IMAGE",
    "ypeak": "YPEAK_IMAGE",
    "flag": "FLAGS",
}
WHOLE = ("npix", "xpeak", "ypeak", "xcpeak", "ycpeak", "flag")
MEMORY = ("-MEMORY_OBJSTACK", "50000", "-MEMORY_BUFSIZE", "4096")
FLAGS = {2: sep.OBJ_MERGED, 8: sep.OBJ_TRUNC, 64: sep.OBJ_DOVERFLOW, 128: sep.OBJ_DOVERFLOW}


def sextractor_available() -> bool:
    """Tell whether the program is on the PATH."""
    return any(shutil.which(name) for name in PROGRAMS)


def run_sextractor(image, noise, fwhm: float, params: parameters.DetectConfig):
    """Return the objects of an image and their footprints, as `nightsift.detect.detect.extract` does.

    The program gets the image in units of its noise and without background, and the filter and threshold that SEP gets.

    Raises
    ------
    CampaignError
        If there is no such program.
    Rejected
        If it fails, takes too long, or leaves nothing that can be read.
    """
    path = program.find(*PROGRAMS)
    scaled, (kernel, scale) = in_sigma(image, noise), detection_filter(fwhm)
    with tempfile.TemporaryDirectory(prefix="nightsift-") as name:
        folder = Path(name)
        fits.writeto(folder / "image.fits", scaled)
        rows = "\n".join(" ".join(f"{value:.6e}" for value in row) for row in kernel)
        (folder / "filter.conv").write_text(f"CONV NORM\n{rows}\n")
        (folder / "columns.param").write_text("\n".join(COLUMNS.values()) + "\n")
        (folder / "none.sex").write_text("")
        message = program.run(
            [path, *_options(image.size, params, params.threshold * scale)], folder, params.time_limit
        )
        table, segments, filtered = _read(folder, image.shape, message)
    return _found(table, filtered / np.float32(scale), noise), segments


def _options(pixels: int, params: parameters.DetectConfig, threshold: float) -> list[str]:
    options = {
        "c": "none.sex",
        "CATALOG_NAME": "objects.fits",
        "CATALOG_TYPE": "FITS_1.0",
        "PARAMETERS_NAME": "columns.param",
        "DETECT_MINAREA": str(params.min_area),
        "THRESH_TYPE": "ABSOLUTE",
        "DETECT_THRESH": f"{threshold:.7g}",
        "ANALYSIS_THRESH": f"{threshold:.7g}",
        "FILTER": "Y",
        "FILTER_NAME": "filter.conv",
        "DEBLEND_NTHRESH": str(LEVELS),
        "DEBLEND_MINCONT": str(CONTRAST),
        "CLEAN": "N",
        "BACK_TYPE": "MANUAL",
        "BACK_VALUE": "0.0",
        "SATUR_LEVEL": "1e15",
        "CHECKIMAGE_TYPE": "SEGMENTATION,FILTERED",
        "CHECKIMAGE_NAME": "segments.fits,filtered.fits",
        "VERBOSE_TYPE": "QUIET",
        "MEMORY_PIXSTACK": str(max(300_000, pixels // 4)),
    }
    return ["image.fits", *(part for key, value in options.items() for part in (f"-{key}", value)), *MEMORY]


def _read(folder: Path, shape, message: str):
    try:
        with fits.open(folder / "objects.fits") as planes:
            table = np.array(planes[1].data)
        segments, filtered = (read_image(folder / f"{name}.fits").data for name in ("segments", "filtered"))
    except (OSError, IndexError, Rejected, TypeError) as error:
        raise Rejected(f"SExtractor left no readable objects ({error}); it said: {message}") from error
    if segments.shape != shape or filtered.shape != shape:
        raise Rejected(f"SExtractor left images of another size; it said: {message}")
    missing = [name for name in COLUMNS.values() if name not in (table.dtype.names or ())]
    if missing or (len(table) and segments.max() > len(table)):
        raise Rejected(f"SExtractor left objects that do not belong to its segments; it said: {message}")
    return table, segments.astype(np.int32), filtered


def _found(table, filtered, noise) -> np.ndarray:
    """Return the program's columns under the names of SEP, pixels counted from 0, on the scale of the image."""
    kinds = [(name, int if name in WHOLE else float) for name in (*COLUMNS, "cpeak", "xcpeak", "ycpeak")]
    found = np.zeros(len(table), kinds)
    for name, theirs in COLUMNS.items():
        found[name] = table[theirs]
    for name in ("x", "y", "xpeak", "ypeak"):
        found[name] -= 1
    found["xcpeak"], found["ycpeak"] = found["xpeak"], found["ypeak"]
    found["cpeak"] = filtered[found["ypeak"], found["xpeak"]]
    found["theta"] = np.radians(found["theta"])
    local = noise[found["ypeak"], found["xpeak"]]
    found["flux"] *= local
    found["peak"] *= local
    found["flag"] = sum(np.where(found["flag"] & bit, meaning, 0) for bit, meaning in FLAGS.items())
    return found
