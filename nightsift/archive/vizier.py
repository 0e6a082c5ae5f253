"""Catalogues from VizieR (Ochsenbein, Bauer & Marcout 2000, A&AS 143, 23), asked for by astroquery."""

from __future__ import annotations

from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Table

from nightsift.archive import votable
from nightsift.archive.catalogs import Survey, empty, stars
from nightsift.archive.cells import Cell
from nightsift.archive.http import BadReply, Session

SERVICE = "vizier"
SERVERS = ("https://vizier.cds.unistra.fr", "https://vizier.cfa.harvard.edu", "https://vizier.nao.ac.jp")
ROWS = 400_000
_CONTROL = 0.2  # deg


def cell_stars(survey: Survey, cell: Cell, faintest: float, session: Session) -> Table:
    """Return a survey's stars in a cell.

    Parameters
    ----------
    survey : Survey
    cell : Cell
    faintest : float
        Of the survey's column `limit` [mag].
    session : Session
        With `votable.check`.

    Returns
    -------
    Table
        As from `surveys.stars`; without rows where the survey has none.

    Raises
    ------
    nightsift.archive.http.ServiceDown, nightsift.archive.http.BadReply
    nightsift.archive.votable.Overflow
        There are more than `ROWS`.
    """
    cone = cell.cone()
    raw = _rows(survey, cone, faintest, session)
    if not len(raw):
        _doubt(survey, cone, faintest, session)
        return empty(survey)
    found = stars(raw, survey)
    return found[cell.holds(found["ra"], found["dec"])]


def _doubt(survey: Survey, cone, faintest: float, session: Session) -> None:
    """Raise `BadReply` unless it can be true that a survey has no star in a cone.

    Where it does not cover the sky, it must at least have stars where it is known to have them: a database that has
    lost its rows has none anywhere.
    """
    ra, dec, radius = cone
    impossible = survey.must_have_stars(dec, radius, faintest)
    if impossible or (survey.control and not len(_rows(survey, (*survey.control, _CONTROL), faintest, session))):
        raise BadReply(f"VizieR has no star of {survey.title} around {ra:.3f} {dec:+.3f}, which cannot be")


def _rows(survey: Survey, cone, faintest: float, session: Session) -> Table:
    columns, filters = [*survey.needed, *survey.quality], {survey.limit: f"<{faintest:g}"}
    return rows(survey.table, columns, survey.needed, cone, session, filters)


def rows(table: str, columns, needed, cone, session: Session, filters=None) -> Table:
    """Return the rows of a table in a cone [deg], none of them missing.

    Parameters
    ----------
    table : str
    columns : list of str
        What is asked for.
    needed : list of str
        Those of them without which a reply is of no use.
    cone : tuple of float
    session : Session
        With `votable.check`.
    filters : dict, optional
        VizieR's conditions by column.

    Raises
    ------
    nightsift.archive.http.ServiceDown, nightsift.archive.http.BadReply, nightsift.archive.votable.Overflow
    """
    from astroquery.vizier import VizierClass

    client = VizierClass(
        columns=columns,
        column_filters=filters or {},
        row_limit=ROWS,
        vizier_server=SERVERS[0].removeprefix("https://"),
    )
    client._session = session
    ra, dec, radius = cone
    center, radius = SkyCoord(ra * u.deg, dec * u.deg), radius * u.deg
    reply = client.query_region_async(center, radius=radius, catalog=table, cache=False)
    raw = votable.parse(reply.content, ROWS)
    if raw is None or not len(raw):
        return Table()
    missing = [name for name in needed if name not in raw.colnames]
    if missing:
        raise BadReply(f"VizieR's table {table} comes without {', '.join(missing)}")
    return raw
