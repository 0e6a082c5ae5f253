"""Draw the figures of one image."""

import argparse
import sys
import time
from pathlib import Path

from astropy.table import Table

from nightsift.errors import Rejected, Unreadable
from nightsift.io import products
from nightsift.io.fits import read_image
from nightsift.photometry.solution import ZeroPointModel
from nightsift.plots.figures import Material
from nightsift.plots.plots import plots
from nightsift.psf.model import Psf
from nightsift.workflow import results


def parser():
    parser = argparse.ArgumentParser(prog="plots.py", description=__doc__)
    parser.add_argument("--name", required=True, help="name of the image")
    parser.add_argument("--images", type=Path, required=True, help="folder of the image's products")
    parser.add_argument("--exposure", type=Path, required=True, help="the FITS image")
    parser.add_argument("--plots", type=Path, required=True, help="folder of the figures, written")
    return parser


def pixels(path, hdu, shape):
    """Return the image, or None where it cannot be read or is not what was processed."""
    try:
        data = read_image(path, hdu).data
    except (Rejected, FileNotFoundError):
        return None
    return data if shape is None or data.shape == tuple(shape) else None


def calibrators(path):
    """Return the calibration stars; their columns are this script's and photometry's alone."""
    try:
        return products.read_table(path)
    except FileNotFoundError:
        return Table()


def psf_model(path):
    """Return the PSF of the image, or None where it has none."""
    try:
        images, header = products.read_images(path)
    except FileNotFoundError:
        return None
    return Psf.from_images(images, header) if images else None


def collect(name, folder, exposure):
    """Return what the stages left of the image."""
    state = results.read_state(folder)
    inspect, detect, astrometry, photometry = (
        results.read_facts(folder, stage) for stage in ("inspect", "detect", "astrometry", "photometry")
    )
    image = pixels(exposure, inspect.get("hdu"), inspect.get("shape"))
    shape = inspect.get("shape") or (image.shape if image is not None else (1, 1))
    masks = results.read_planes(folder / "mask.fits").get("PRIMARY"), results.read_mask(folder / "difference.fits")
    mask, difference_mask = (plane if plane is not None and plane.shape == tuple(shape) else None for plane in masks)
    solved = ZeroPointModel.from_dict(photometry) if "coefficients" in photometry else None
    return Material(
        name=name,
        status=state["status"],
        stage=state["stage"],
        reason=state["reason"],
        shape=tuple(shape),
        objects=results.read_rows(folder / "objects.fits", "objects"),
        calibrators=calibrators(folder / "calibrators.fits"),
        matches=results.read_rows(folder / "matches.fits", "matches"),
        candidates=results.read_rows(folder / "candidates_all.fits", "candidates"),
        catalog=results.read_rows(folder / "catalog.fits", "catalog"),
        image=image,
        mask=mask,
        difference_mask=difference_mask,
        detect=detect,
        astrometry=astrometry,
        photometry=photometry if solved else {},
        psf=results.read_facts(folder, "psf"),
        transients=state,
        fakes=results.read_rows(folder / "fakes.fits", "fakes"),
        psf_model=psf_model(folder / "image_psf.fits"),
        zero_point=solved.zero_point if solved else None,
        header=results.read_wcs_header(folder / "wcs.fits"),
    )


def main(arguments=None):
    start = time.perf_counter()
    options = parser().parse_args(arguments)
    try:
        material = collect(options.name, options.images, options.exposure)
    except Unreadable as problem:
        results.give_up("plots", problem)
        return 1
    for name, figure in plots(material).items():
        with products.recorded(options.plots / f"{name}.png") as temporary:
            figure.savefig(temporary, format="png", metadata={"Software": None})
    print(f"plots: {time.perf_counter() - start:.2f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
