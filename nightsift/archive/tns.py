"""Names of transients from the Transient Name Server (Gal-Yam 2021, AAS 237), which wants a key."""

from __future__ import annotations

import json

from astropy.table import Table

from nightsift.archive.http import BadReply, Session
from nightsift.archive.tables import empty, table

SERVICE = "tns"
URL = "https://www.wis-tns.org/api/get/"
_CONTROL = (210.910675, 54.311651, 0.01)  # SN 2023ixf


def check(body: bytes) -> None:
    """Raise `BadReply` for a body that is no reply of the server, or one that holds an error."""
    _reply(body)


def _reply(body: bytes):
    try:
        content = json.loads(body)
        code, said = int(content["id_code"]), str(content.get("id_message", ""))
    except (ValueError, TypeError, KeyError):
        what = f"{bytes(body[:40])!r}" if body.strip() else "empty"
        raise BadReply(f"the reply is no JSON of the Transient Name Server but {what}") from None
    if code != 200:
        raise BadReply(f"the reply is an error: {code} {said}")
    data = content.get("data")
    # Older versions of the interface wrap what was asked for.
    return data["reply"] if isinstance(data, dict) and "reply" in data else data


def introduce(session: Session, key: str, bot: str | None) -> None:
    """Give a session the key, and the name that the server wants to know."""
    session.tns_key = key
    number, _, name = (bot or "").partition(" ")
    if bot:
        marker = {"tns_id": int(number) if number.isdigit() else number, "type": "bot", "name": name}
        session.headers["User-Agent"] = "tns_marker" + json.dumps(marker, separators=(",", ":"))


def in_cone(cone: tuple[float, float, float], session: Session) -> Table:
    """Return the transients in a cone [deg], with types and magnitudes at discovery.

    Parameters
    ----------
    cone : tuple of float
    session : Session
        With `check`, after `introduce`.

    Raises
    ------
    nightsift.archive.http.ServiceDown, nightsift.archive.http.BadReply
    """
    names = _names(cone, session)
    if not names:
        if not _names(_CONTROL, session):
            raise BadReply("the Transient Name Server does not know SN 2023ixf, which cannot be")
        return empty()
    found = [transient(name, session) for name in names]
    lost = [name for name, entry in zip(names, found, strict=True) if entry is None]
    if lost:
        raise BadReply(f"the Transient Name Server lists {lost[0]} but does not know where it is")
    rows = list(zip(*found, strict=True))
    return table(rows[0], rows[1], ra=rows[2], dec=rows[3], mag=rows[4])


def _ask(session: Session, what: str, question: dict):
    form = {"api_key": session.tns_key, "data": json.dumps(question)}
    return _reply(session.post(URL + what, data=form).content)


def _names(cone, session: Session) -> list[str]:
    ra, dec, radius = cone
    question = {"ra": f"{ra:.6f}", "dec": f"{dec:.6f}", "radius": f"{3600 * radius:.1f}", "units": "arcsec"}
    reply = _ask(session, "search", question)
    try:
        return [str(entry["objname"]) for entry in reply]
    except (TypeError, KeyError):
        raise BadReply("the Transient Name Server's list is none") from None


def transient(name: str, session: Session) -> tuple[str, str, float, float, float] | None:
    """Return name, type, position [deg] and magnitude at discovery of a transient; None where there is none."""
    entry = _ask(session, "object", {"objname": name.removeprefix("SN").removeprefix("AT").strip()})
    if not isinstance(entry, dict) or "radeg" not in entry:
        return None
    kind, mag = entry.get("object_type"), entry.get("discoverymag")
    kind = str((kind.get("name") if isinstance(kind, dict) else kind) or "")
    try:
        place = float(entry["radeg"]), float(entry["decdeg"])
        mag = float("nan") if mag is None else float(mag)
    except (TypeError, ValueError, KeyError):
        raise BadReply(f"the Transient Name Server's entry of {name} cannot be read") from None
    prefix = str(entry.get("name_prefix") or "AT")
    return f"{prefix} {entry['objname']}", kind, *place, mag
