"""Large surveys near many positions at once, from CDS XMatch (Boch, Pineau & Derriere 2012, ASPC 461, 291)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy import units as u
from astropy.table import Table
from astropy_healpix import HEALPix

from nightsift.archive import votable
from nightsift.archive.catalogs import SURVEYS
from nightsift.archive.http import BadReply, Session
from nightsift.archive.tables import empty, first, numbers, table, texts
from nightsift.tables import column

SERVICE = "xmatch"
URL = "http://cdsxmatch.u-strasbg.fr/xmatch/api/v1/sync"
# Positions are asked for by cells of this order, 3.2 arcsec wide: the same source has the same one in most images.
ORDER = 16
REACH = 20.0  # arcsec: the match, half a cell, and a proper motion of 0.5 arcsec/yr since 2000
MOST = 2000
_CONTROLS = 30
_STEP = 30.0  # arcsec


@dataclass(frozen=True)
class CrossMatch:
    """A survey as the cross-match has it: columns by what they may be called, and a place with many sources."""

    title: str
    table: str
    name: tuple[str, ...]
    positions: tuple[tuple[str, str, float], ...]
    mag: tuple[str, ...]
    control: tuple[float, float]
    declinations: tuple[float, float]


def _survey(key: str, name: tuple[str, ...], control) -> CrossMatch:
    known = SURVEYS[key]
    place = (*known.position, known.epoch)
    return CrossMatch(known.title, known.table, name, (place,), (known.limit,), control, known.declinations)


# The places of control have some 0.01 sources a square arcsec or more: the bulge and the Magellanic Clouds.
TABLES = {
    "gaia": CrossMatch(
        "Gaia DR3",
        "I/355/gaiadr3",
        ("Source", "source_id", "DR3Name"),
        (("RA_ICRS", "DE_ICRS", 2016.0), ("RAdeg", "DEdeg", 2000.0), ("ra_epoch2000", "dec_epoch2000", 2000.0)),
        ("Gmag", "phot_g_mean_mag"),
        (270.9, -30.03),
        (-90.0, 90.0),
    ),
    "ps1": _survey("ps1", ("objID",), (272.0, -24.0)),
    "skymapper": _survey("skymapper", ("ObjectId", "ObjectID"), (80.9, -69.75)),
    "des": _survey("des", ("DES", "CoadID"), (52.5, -28.0)),
}


def version(survey: str) -> str:
    """Return what changes with the question that is asked of a survey."""
    return f"{TABLES[survey]} {REACH}"


def cells(ra, dec) -> np.ndarray:
    """Return the cells of `ORDER` that positions [deg] lie in."""
    return _grid().lonlat_to_healpix(np.asarray(ra) * u.deg, np.asarray(dec) * u.deg)


def covers(survey: str, dec) -> np.ndarray:
    """Return whether a survey has observed at declinations [deg]."""
    low, high = TABLES[survey].declinations
    return (np.asarray(dec) >= low) & (np.asarray(dec) <= high)


def _grid() -> HEALPix:
    return HEALPix(nside=2**ORDER, order="nested")


def near(survey: str, positions: tuple[int, ...], session: Session) -> Table:
    """Return a survey's sources within `REACH` of the centres of cells.

    Parameters
    ----------
    survey : str
        Of `TABLES`.
    positions : tuple of int
        Cells of `ORDER`.
    session : Session
        With `votable.check`.

    Raises
    ------
    nightsift.archive.http.ServiceDown, nightsift.archive.http.BadReply
        Also where positions among the survey's densest fields, which are asked for along with them, have no match.
    """
    what = TABLES[survey]
    lon, lat = (v.to_value(u.deg) for v in _grid().healpix_to_lonlat(np.asarray(positions, np.int64)))
    control_ra, control_dec = _controls(what)
    ra, dec = np.concatenate([lon % 360, control_ra]), np.concatenate([lat, control_dec])
    lines = [f"{row},{a:.7f},{d:.7f}" for row, (a, d) in enumerate(zip(ra, dec, strict=True))]
    question = {
        "request": "xmatch",
        "distMaxArcsec": f"{REACH:g}",
        "RESPONSEFORMAT": "votable",  # which, unlike CSV, has an end
        "cat2": f"vizier:{what.table}",
        "colRA1": "at_ra",
        "colDec1": "at_dec",
    }
    upload = ("positions.csv", "\n".join(["at,at_ra,at_dec", *lines]) + "\n", "text/csv")
    body = session.post(URL, data=question, files={"cat1": upload}).content
    try:
        raw = votable.parse(body)
    except votable.Overflow:
        raise BadReply(f"the cross-match does not send all of {what.title}") from None
    if raw is None or not len(raw):
        raise BadReply(f"the cross-match has lost {what.title}: nothing where there are thousands")
    row = numbers(raw, ("at",), "the cross-match")
    if not np.any(row >= len(positions)):
        raise BadReply(f"the cross-match has lost {what.title}: nothing where there are thousands")
    return _objects(what, raw[row < len(positions)])


def _controls(what: CrossMatch) -> tuple[np.ndarray, np.ndarray]:
    ra, dec = what.control
    down, across = np.divmod(np.arange(_CONTROLS), 6)
    return ra + across * _STEP / 3600 / np.cos(np.deg2rad(dec)), dec + down * _STEP / 3600


def _objects(what: CrossMatch, raw: Table) -> Table:
    if not len(raw):
        return empty()
    place = next((place for place in what.positions if set(place[:2]) <= set(raw.colnames)), None)
    if place is None:
        raise BadReply(f"the cross-match's {what.title} comes without {what.positions[0][0]}")
    name = texts(raw, first(raw, what.name, "the cross-match"))
    # The same source is near several positions.
    raw, name = (values[np.sort(np.unique(name, return_index=True)[1])] for values in (raw, name))
    ra, dec = (column(raw, key) for key in place[:2])
    motion = {
        key: column(raw, next((part for part in parts if part in raw.colnames), ""))
        for key, parts in {"pmRA": ("pmRA", "pmra"), "pmDE": ("pmDE", "pmdec")}.items()
    }
    mag = numbers(raw, what.mag, "the cross-match")
    return table(name, np.full(len(raw), ""), ra=ra, dec=dec, epoch=place[2], mag=mag, **motion)
