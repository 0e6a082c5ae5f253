"""Objects with names in the literature, from Simbad (Wenger et al. 2000, A&AS 143, 9) by TAP."""

from __future__ import annotations

from astropy.table import Table

from nightsift.archive import votable
from nightsift.archive.http import BadReply, Session
from nightsift.archive.tables import empty, first, numbers, table, texts

SERVICE = "simbad"
URL = "https://simbad.cds.unistra.fr/simbad/sim-tap/sync"
ROWS = 50_000
_CONTROL = (10.6847, 41.2688, 0.01)  # M31
_COLUMNS = {"ra": "ra", "dec": "dec", "pmRA": "pmra", "pmDE": "pmdec"}
_QUESTION = """SELECT main_id, otype, ra, dec, pmra, pmdec FROM basic
WHERE CONTAINS(POINT('ICRS', ra, dec), CIRCLE('ICRS', {:.7f}, {:.7f}, {:.7f})) = 1"""


def in_cone(cone: tuple[float, float, float], session: Session) -> Table:
    """Return what Simbad has in a cone [deg], with the types of objects.

    Raises
    ------
    nightsift.archive.http.ServiceDown, nightsift.archive.http.BadReply, nightsift.archive.votable.Overflow
    """
    found = _ask(cone, session)
    if not len(found) and not len(_ask(_CONTROL, session)):
        raise BadReply("Simbad does not know M31, which cannot be")
    return found


def _ask(cone, session: Session) -> Table:
    question = {"REQUEST": "doQuery", "LANG": "ADQL", "FORMAT": "votable", "MAXREC": str(ROWS)}
    reply = session.post(URL, data=question | {"QUERY": _QUESTION.format(*cone)})
    raw = votable.parse(reply.content, ROWS)
    if raw is None:
        raise BadReply("Simbad's reply has no table")
    if not len(raw):
        return empty()
    values = {key: numbers(raw, (name,), "Simbad") for key, name in _COLUMNS.items()}
    kind = texts(raw, first(raw, ("otype",), "Simbad"))
    return table([" ".join(name.split()) for name in texts(raw, first(raw, ("main_id",), "Simbad"))], kind, **values)
