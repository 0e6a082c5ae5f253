"""Objects that services know, in one table whatever the service, and from the cache once they have been asked for."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table, vstack

from nightsift.archive import simbad, skybot, tns, vizier, votable, vsx, xmatch
from nightsift.archive.cells import Cell
from nightsift.archive.http import BadReply
from nightsift.archive.library import Library

# 0.2 deg: few objects of any service, and most fields lie in few of them.
ORDER = 8
_DEEPEST = 13
TNS_KEY = "NIGHTSIFT_TNS_KEY"
# How each service that is asked for all it has in a cell checks a reply; those of VizieR share its manners.
_BY_CELL = {
    "simbad": (simbad.SERVICE, votable.check, simbad.in_cone),
    "vsx": (vizier.SERVICE, votable.check, vsx.in_cone),
    "tns": (tns.SERVICE, tns.check, tns.in_cone),
}


def tns_key(library: Library) -> str | None:
    """Return the key for the Transient Name Server, None where the user has given none."""
    return library.settings.tns_key or os.environ.get(TNS_KEY) or None


def in_cell(service: str, cell: Cell, library: Library) -> Table:
    """Return what a service knows in a cell: columns of `entries.table`.

    Raises
    ------
    nightsift.errors.Unavailable
    """
    title = f"cell {cell.name} of {service}"
    return _kept(library, f"known/{service}/{cell.name}", title, lambda: _ask_cell(service, cell, library))


def _ask_cell(service: str, cell: Cell, library: Library) -> Table:
    name, check, in_cone = _BY_CELL[service]
    try:
        with library.session(name, check) as session:
            if service == "tns":
                tns.introduce(session, tns_key(library), library.settings.tns_bot)
            found = in_cone(cell.cone(), session)
    except votable.Overflow:
        if cell.order >= _DEEPEST:
            raise BadReply(f"{service} does not send all it has, however small the piece") from None
        return vstack([in_cell(service, part, library) for part in cell.children()])
    return found[cell.holds(found["ra"], found["dec"])] if len(found) else found


def beside(survey: str, positions: tuple[int, ...], library: Library) -> Table:
    """Return what a large survey has near positions, given as cells of `xmatch.ORDER`: columns of `entries.table`."""
    digest = hashlib.sha256(json.dumps([xmatch.version(survey), *positions]).encode()).hexdigest()[:16]

    def ask():
        with library.session(xmatch.SERVICE, votable.check) as session:
            return xmatch.near(survey, positions, session)

    title = f"{len(positions)} positions in {xmatch.TABLES[survey].title}"
    return _kept(library, f"known/{survey}/{digest}", title, ask)


def moving(cone: tuple[float, float, float], mjd: float, observatory: str, library: Library) -> Table:
    """Return the bodies of the solar system in a cone [deg] as an observatory saw them: columns of `entries.table`."""
    ra, dec, radius = cone
    # A little wider, so that a field that is known slightly better another day is the same question.
    cone = round(ra, 2) % 360, round(dec, 2), round(radius + 0.03, 2)
    key = f"known/skybot/{observatory}/{mjd:.5f}/{cone[0]:.2f}{cone[1]:+.2f}_{cone[2]:.2f}"

    def ask():
        with library.session(skybot.SERVICE, skybot.check) as session:
            return skybot.in_cone(cone, mjd, observatory, session)

    return _kept(library, key, f"the solar system around {ra:.2f} {dec:+.2f} at MJD {mjd:.5f}", ask)


def _kept(library: Library, key: str, title: str, ask: Callable[[], Table]) -> Table:
    def content():
        found = ask()
        hdu, buffer = fits.table_to_hdu(found), io.BytesIO()
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(buffer)
        return buffer.getvalue(), {"title": title, "rows": len(found)}

    path: Path = library.get(f"{key}.fits", title, content)
    with fits.open(path, memmap=False) as hdus:
        found = Table.read(hdus[1], character_as_bytes=False, mask_invalid=False)
    found.meta.clear()
    for name in ("name", "kind"):
        found[name] = np.char.strip(np.asarray(found[name], str))
    return found
