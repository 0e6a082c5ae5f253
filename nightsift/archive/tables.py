"""The table of objects that a service knows."""

from __future__ import annotations

import numpy as np
from astropy.table import MaskedColumn, Table

from nightsift.archive.http import BadReply
from nightsift.tables import column

NUMBERS = ("ra", "dec", "pmRA", "pmDE", "epoch", "mag", "error")


def table(name, kind, **numbers) -> Table:
    """Return a table of objects.

    Parameters
    ----------
    name, kind : sequence of str
    **numbers : array
        ``ra dec`` [deg, ICRS at the epoch], ``pmRA pmDE`` [mas/yr, pmRA with cos(dec)], ``epoch`` [yr], ``mag``,
        ``error`` of the position [arcsec]; what is left out is NaN, the epoch 2000.
    """
    name = np.asarray(name, "U").reshape(-1)
    fallback = {"epoch": 2000.0}
    result = Table({"name": name, "kind": np.asarray(kind, "U").reshape(-1)})
    for key in NUMBERS:
        result[key] = np.broadcast_to(np.asarray(numbers.get(key, fallback.get(key, np.nan)), float), len(name)).copy()
    good = np.isfinite(result["ra"]) & np.isfinite(result["dec"])
    result = result[good]
    # FITS has no text of no length.
    return result if len(result) else Table(result, dtype=["U1", "U1", *[float] * len(NUMBERS)])


def empty() -> Table:
    """Return the table without rows."""
    return table([], [])


def texts(raw: Table, name: str) -> np.ndarray:
    """Return a column as texts without surrounding blanks, empty where masked or not there."""
    if name not in raw.colnames:
        return np.full(len(raw), "", "U1")
    values = raw[name]
    if isinstance(values, MaskedColumn):
        values = ["" if masked else value for value, masked in zip(values.data.data, values.mask, strict=True)]
    return np.array([(v.decode() if isinstance(v, bytes) else str(v)).strip() for v in values], "U").reshape(len(raw))


def first(raw: Table, names: tuple[str, ...], service: str) -> str:
    """Return the first of several columns that a reply has.

    Raises
    ------
    BadReply
        It has none of them.
    """
    for name in names:
        if name in raw.colnames:
            return name
    raise BadReply(f"{service}'s table comes without {' or '.join(names)}")


def numbers(raw: Table, names: tuple[str, ...], service: str) -> np.ndarray:
    """Return the first of several columns as float64, NaN where masked."""
    return column(raw, first(raw, names, service))
