"""Read what stage `sources` is given of each image.

Apart from `results`, so that the stages that read less do not depend on it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_area

from nightsift import tables
from nightsift.errors import Unreadable
from nightsift.io import products
from nightsift.photometry.solution import ZeroPointModel
from nightsift.psf.model import Psf
from nightsift.sources.lightcurves import depth
from nightsift.sources.records import DifferencePixels, ImageRecord
from nightsift.subtract.difference import DifferenceQuality
from nightsift.workflow import results


def read_images(folder, names: list[str]) -> tuple[list[ImageRecord], str]:
    """Return what the stages left of images, and a digest of their states; each holds digests of what it was made from.

    An image of which any product cannot be read is in error, with its `problem`.
    """
    records, total = [], hashlib.sha256()
    for name in names:
        try:
            state = results.read_state(Path(folder) / name)
            records.append(_read(name, Path(folder) / name, state))
        except Unreadable as problem:
            state = results.read_state(Path(folder) / name / "unreadable")
            records.append(_read(name, Path(folder) / name / "unreadable", state))
            records[-1].fail(problem)
            state = state | {"status": "error", "stage": "sources", "reason": str(problem)}
        total.update(json.dumps([name, state], sort_keys=True).encode())
    return records, total.hexdigest()[:32]


def _read(name: str, folder: Path, state: dict) -> ImageRecord:
    inspect, detect, astrometry, photometry = (
        results.read_facts(folder, stage) for stage in ("inspect", "detect", "astrometry", "photometry")
    )
    rms, header = astrometry.get("rms"), results.read_wcs_header(folder / "wcs.fits")
    finished = state["status"] != "error"
    path = folder / "candidates.fits"
    return ImageRecord(
        name=name,
        **{key: state[key] for key in ("status", "stage", "reason", "warnings")},
        filter=str(inspect.get("filter") or inspect.get("filter_name") or ""),
        band=str(photometry.get("band") or ""),
        mjd=_number(inspect, "mjd"),
        shape=inspect.get("shape"),
        gain=inspect.get("gain"),
        fwhm=_number(detect, "fwhm"),
        pixscale=3600 * float(np.sqrt(proj_plane_pixel_area(WCS(header, relax=True))))
        if header
        else _number(inspect, "pixscale"),
        rms=float(np.sqrt(np.mean(np.square(rms)))) if rms and None not in rms else np.nan,
        n_objects=int(detect.get("n_objects") or 0),
        numbers={key: _number(photometry, key) for key in ("zp", "zp_err", "color_term", "maglim")}
        | depth((state.get("completeness") or {}).get("off_hosts") or {}),
        header=header,
        photometry=ZeroPointModel.from_dict(photometry) if "coefficients" in photometry else None,
        model=state.get("model") or {},
        candidates=results.read_rows(path, "candidates") if finished else tables.empty("candidates"),
        uncatalogued=results.read_rows(folder / "uncatalogued.fits", "uncatalogued"),
        pixels=lambda: read_pixels(folder),
    )


def _number(facts, key):
    value = facts.get(key)
    return np.nan if value is None else float(value)


def read_pixels(folder) -> DifferencePixels | None:
    """Return the difference of an image, None where there is none."""
    planes = results.read_planes(Path(folder) / "difference.fits")
    if "DIFFERENCE" not in planes or not (Path(folder) / "psf.fits").is_file():
        return None
    images, header = products.read_images(Path(folder) / "psf.fits")
    return DifferencePixels(
        difference=planes["DIFFERENCE"],
        sigma=planes["SIGMA"],
        model=planes["MODEL"],
        mask=planes["MASK"],
        psf=Psf.from_images(images, header),
        quality=DifferenceQuality.from_header(header),
    )
