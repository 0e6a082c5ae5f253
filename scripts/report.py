"""Make the page of a campaign."""

import sys
import time
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import MaskedColumn

from nightsift import parameters, tables
from nightsift.errors import Unreadable
from nightsift.io import products
from nightsift.report.report import FILES, PLOTS, Extra, ReportMaterial, report
from nightsift.workflow import results


def table(path, schema):
    """Return a campaign's table; texts that are missing are empty."""
    found = results.read_rows(path, schema)
    if not len(found):
        return tables.empty(schema)
    for name in found.colnames:
        if isinstance(found[name], MaskedColumn):
            found[name] = found[name].filled("" if found[name].dtype.kind == "U" else 0)
    return found


def extra(folder):
    """Return what the page shows of an image besides its row; nothing where a product cannot be read."""
    try:
        return read_extra(folder)
    except Unreadable as problem:
        results.give_up("report", problem)
        return Extra()


def read_extra(folder):
    everything = results.read_rows(folder / "candidates_all.fits", "candidates")
    aside = everything[~np.asarray(everything["is_real"], bool)]
    overview = folder / "plots" / "overview.png"
    shape = results.read_facts(folder, "inspect").get("shape")
    state = results.read_state(folder)
    there = {path.stem for path in folder.glob("*.*") if path.suffix in (".fits", ".json")}
    return Extra(
        warnings=[str(text) for text in state["warnings"]],
        reasons=[str(text) for text in aside["reasons"]],
        header=results.read_wcs_header(folder / "wcs.fits"),
        shape=tuple(shape) if shape else None,
        overview=lambda: overview.read_bytes() if overview.is_file() else b"",
        plots=tuple(name for name in PLOTS if (folder / "plots" / f"{name}.png").is_file()),
        files=tuple(sorted(there & {*FILES, "status"})),
        threshold=state.get("threshold"),
        model=state.get("model") or {},
        completeness=state.get("completeness") or {},
    )


def read_cutouts(folder, rows):
    """Return the cutouts of candidates in rows of an image's table, by row; those that are missing are left out."""
    try:
        path = folder / "cutouts.fits"
        with products.reading(path), fits.open(path, memmap=True) as hdus:
            data = next((hdu.data for hdu in hdus if hdu.data is not None), ())
            return {row: np.array(data[row], np.float32) for row in rows if row < len(data)}
    except FileNotFoundError:
        return {}
    except Unreadable as problem:
        results.give_up("report", problem)
        return {}


def main(arguments=None):
    start = time.perf_counter()
    options = results.parser("report", __doc__).parse_args(arguments)
    params = parameters.ReportConfig(**options.params)
    folder, images = options.results / "campaign", options.results / "images"
    names = sorted(results.read_names(options.images))
    read = {name: table(folder / f"{name}.ecsv", schema) for name, schema in results.TABLES.items()}
    campaign = ReportMaterial(**read, extras={name: extra(images / name) for name in names})
    text = report(campaign, params, lambda image, rows: read_cutouts(images / image, rows))
    with products.recorded(folder / "report.html") as temporary:
        Path(temporary).write_text(text, encoding="utf-8")
    print(f"report: {len(names)} images in {time.perf_counter() - start:.1f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
