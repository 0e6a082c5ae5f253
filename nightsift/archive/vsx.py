"""Variable stars from the International Variable Star Index (Watson, Henden & Price 2006, SASS 25, 47) in VizieR."""

from __future__ import annotations

from astropy.table import Table

from nightsift.archive import vizier
from nightsift.archive.http import BadReply, Session
from nightsift.archive.tables import empty, numbers, table, texts

TABLE = "B/vsx/vsx"
_NEEDED = ["Name", "RAJ2000", "DEJ2000", "Type", "max"]
_CONTROL = (34.8366, -2.9776, 0.02)  # Mira


def in_cone(cone: tuple[float, float, float], session: Session) -> Table:
    """Return the variable stars in a cone [deg], with types and magnitudes at maximum.

    Raises
    ------
    nightsift.archive.http.ServiceDown, nightsift.archive.http.BadReply, nightsift.archive.votable.Overflow
    """
    raw = vizier.rows(TABLE, _NEEDED, _NEEDED, cone, session)
    if not len(raw):
        if not len(vizier.rows(TABLE, _NEEDED, _NEEDED, _CONTROL, session)):
            raise BadReply("VizieR's VSX does not know Mira, which cannot be")
        return empty()
    ra, dec, mag = (numbers(raw, (name,), "VSX") for name in ("RAJ2000", "DEJ2000", "max"))
    return table(texts(raw, "Name"), texts(raw, "Type"), ra=ra, dec=dec, mag=mag)
