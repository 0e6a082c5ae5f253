"""Read the candidates of a campaign for the script that asks what is known near them."""

from __future__ import annotations

from pathlib import Path

from astropy.table import Table
from astropy.wcs import WCS

from nightsift.archive.known import ImageCandidates
from nightsift.catalog.catalog import field
from nightsift.errors import Rejected, Unreadable
from nightsift.workflow import results


def read_candidates(name: str, folder: Path) -> ImageCandidates:
    """Return the candidates of an image, none where it ended in an error or its products cannot be read."""
    try:
        finished = results.read_state(folder)["status"] != "error"
        table = results.read_rows(folder / "candidates.fits", "candidates") if finished else Table()
        facts = results.read_facts(folder, "inspect")
        header = results.read_wcs_header(folder / "wcs.fits") if len(table) else None
    except Unreadable as problem:
        results.give_up("fetch_known", problem)
        return ImageCandidates(name, Table())
    mjd, shape, observatory = (facts.get(key) for key in ("mjd", "shape", "observatory"))
    try:
        cone = field(WCS(header, relax=True), shape, 0.0) if header and shape else None
    except Rejected:
        cone = None
    return ImageCandidates(name, table, mjd, observatory, cone)
