"""Catalogues from VizieR (Ochsenbein, Bauer & Marcout 2000, A&AS 143, 23), asked for by astroquery."""

from __future__ import annotations

from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Table

from nightsift.archive import votable
from nightsift.archive.cells import Cell
from nightsift.archive.http import BadReply, Session
from nightsift.archive.surveys import Survey, empty, stars

SERVICE = "vizier"
SERVERS = ("https://vizier.cds.unistra.fr", "https://vizier.cfa.harvard.edu", "https://vizier.nao.ac.jp")
ROWS = 400_000


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
    ra, dec, radius = cell.cone()
    body = _ask(survey, (ra, dec, radius), faintest, session)
    raw = votable.parse(body, ROWS)
    if raw is None or not len(raw):
        if survey.must_have_stars(dec, radius, faintest):
            raise BadReply(f"VizieR has no star of {survey.title} around {ra:.3f} {dec:+.3f}, which cannot be")
        return empty(survey)
    missing = [name for name in survey.needed if name not in raw.colnames]
    if missing:
        raise BadReply(f"VizieR's table {survey.table} comes without {', '.join(missing)}")
    found = stars(raw, survey)
    return found[cell.holds(found["ra"], found["dec"])]


def _ask(survey: Survey, cone, faintest: float, session: Session) -> bytes:
    from astroquery.vizier import VizierClass

    client = VizierClass(
        columns=[*survey.needed, *survey.quality],
        column_filters={survey.limit: f"<{faintest:g}"},
        row_limit=ROWS,
        vizier_server=SERVERS[0].removeprefix("https://"),
    )
    client._session = session
    ra, dec, radius = cone
    return client.query_region_async(
        SkyCoord(ra * u.deg, dec * u.deg), radius=radius * u.deg, catalog=survey.table, cache=False
    ).content
