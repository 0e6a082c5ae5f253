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
from nightsift.report import report
from nightsift.workflow import results

SCHEMAS = {
    "images": "images",
    "candidates": "campaign_candidates",
    "sources": "sources",
    "lightcurves": "lightcurves",
    "uncatalogued": "campaign_uncatalogued",
}


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
        return report.Extra()


def read_extra(folder):
    everything = results.read_rows(folder / "candidates_all.fits", "candidates")
    aside = everything[~np.asarray(everything["is_real"], bool)]
    overview = folder / "plots" / "overview.png"
    shape = results.read_facts(folder, "inspect").get("shape")
    state = results.read_state(folder)
    there = {path.stem for path in folder.glob("*.*") if path.suffix in (".fits", ".json")}
    return report.Extra(
        warnings=[str(text) for text in state["warnings"]],
        reasons=[str(text) for text in aside["reasons"]],
        header=results.read_wcs_header(folder / "wcs.fits"),
        shape=tuple(shape) if shape else None,
        thumbnail=report.thumbnail(overview.read_bytes(), shape) if shape and overview.is_file() else b"",
        plots=tuple(name for name in report.PLOTS if (folder / "plots" / f"{name}.png").is_file()),
        files=tuple(sorted(there & {*report.FILES, "status"})),
        threshold=state.get("threshold"),
        model=state.get("model") or {},
        completeness=state.get("completeness") or {},
    )


def cutouts(results_folder, campaign, params):
    """Return the cutouts that the page shows, by row of the table of candidates; each file is opened once."""
    wanted = {}
    for _, row in report.best_sources(campaign, params):
        wanted.setdefault(str(campaign.candidates["image"][row]), []).append(row)
    found = {}
    for image, rows in wanted.items():
        path = results_folder / "images" / image / "cutouts.fits"
        try:
            with products.reading(path), fits.open(path, memmap=True) as hdus:
                data = next((hdu.data for hdu in hdus if hdu.data is not None), ())
                for row in rows:
                    place = int(campaign.candidates["row"][row])
                    if place < len(data):
                        found[row] = np.array(data[place], np.float32)
        except FileNotFoundError:
            continue
        except Unreadable as problem:
            results.give_up("report", problem)
    return found


def main(arguments=None):
    start = time.perf_counter()
    options = results.parser("report", __doc__).parse_args(arguments)
    params = parameters.ReportConfig(**options.params)
    folder = options.results / "campaign"
    names = sorted(results.read_names(options.images))
    read = {name: table(folder / f"{name}.ecsv", schema) for name, schema in SCHEMAS.items()}
    campaign = report.ReportMaterial(**read, extras={name: extra(options.results / "images" / name) for name in names})
    text = report.page(campaign, cutouts(options.results, campaign, params), params)
    with products.recorded(folder / "report.html") as temporary:
        Path(temporary).write_text(text, encoding="utf-8")
    print(f"report: {len(names)} images in {time.perf_counter() - start:.1f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
