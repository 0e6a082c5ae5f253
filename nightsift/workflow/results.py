"""Read what the stages left of an image, whatever is missing; what is there and cannot be read raises `Unreadable`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table

from nightsift import tables
from nightsift.errors import Unreadable
from nightsift.io import products, written

PER_IMAGE = (
    *("inspect", "detect", "psf", "catalog", "astrometry", "photometry"),
    *("uncatalogued", "template", "subtract", "fakes"),
)
#: the tables of a campaign, and their schemas
TABLES = {
    "images": "images",
    "candidates": "campaign_candidates",
    "sources": "sources",
    "lightcurves": "lightcurves",
    "uncatalogued": "campaign_uncatalogued",
}
NO_STATUS = {
    "status": "error",
    "stage": "",
    "reason": "no status: its job did not finish; see its logs",
    "warnings": [],
    "stopped": "",
}


def parser(script: str, description: str) -> argparse.ArgumentParser:
    """Return the command line that the scripts of a whole campaign have in common."""
    parser = argparse.ArgumentParser(prog=f"{script}.py", description=description)
    section = script.removeprefix("fetch_")
    parser.add_argument("--results", type=Path, required=True, help="the results folder")
    parser.add_argument("--images", type=Path, required=True, help="names of the images, one a line")
    parser.add_argument("--params", type=json.loads, default={}, help=f"JSON of the section {section!r}")
    parser.add_argument("--code", default="", help="version of the code, for the provenance")
    return parser


def read_names(path) -> list[str]:
    """Return the names of a list of images, one a line."""
    return [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]


def read_facts(folder, stage: str) -> dict:
    """Return a stage's JSON of an image, empty where there is none."""
    try:
        return products.read_json(Path(folder) / f"{stage}.json")
    except FileNotFoundError:
        return {}


def read_state(folder) -> dict:
    """Return the status of an image; that of a job which did not finish where a stage has left nothing.

    A status without the states of all stages is that of an earlier run.
    """
    state = read_facts(folder, "status")
    unfinished = [stage for stage in PER_IMAGE if not (Path(folder) / f"{stage}.json").is_file()]
    if "status" not in state or (unfinished and state["status"] != "error"):
        return NO_STATUS | {"stage": unfinished[0] if unfinished else ""}
    return (
        state
        | {"stage": state.get("stage") or "", "reason": state.get("reason") or ""}
        | {"warnings": [str(text) for text in state.get("warnings") or ()]}
    )


def read_rows(path, schema: str) -> Table:
    """Return a table, without rows where the file is missing."""
    try:
        return products.read_table(path)
    except FileNotFoundError:
        return tables.empty(schema)


def read_planes(path) -> dict[str, np.ndarray]:
    """Return an image product's arrays by extension name, empty where the file is missing or without data."""
    try:
        return products.read_images(path)[0]
    except FileNotFoundError:
        return {}


def read_wcs_header(path) -> fits.Header | None:
    """Return the header of a plate solution, None where there is none."""
    try:
        with products.reading(path):
            header = fits.getheader(path)
    except FileNotFoundError:
        return None
    # the file has no pixels: what says so would be taken for the shape of the image
    header.strip()
    return header if "CTYPE1" in header else None


def give_up(script: str, problem: Unreadable) -> None:
    """Say which file cannot be read, and have it made again if it is a product."""
    print(f"{script}: {problem}", file=sys.stderr)
    written.doubt(problem.path)


def read_mask(path) -> np.ndarray | None:
    """Return the plane MASK of a difference alone, None where there is none."""
    try:
        with products.reading(path), fits.open(path, memmap=False) as hdus:
            mask = hdus["MASK"].data if "MASK" in hdus else None
    except FileNotFoundError:
        return None
    if mask is None:
        return None
    return mask.astype(mask.dtype.newbyteorder("="))
