"""Where objects are, by their names: from Sesame, transients that it lacks from the Transient Name Server."""

from __future__ import annotations

import json
import re
from urllib.parse import quote

from nightsift.archive import objects, sesame, tns
from nightsift.archive.library import Library

_TRANSIENT = re.compile(r"(?:SN|AT|TDE|FRB)?\s*\d{4}[A-Za-z]+")


class _Unknown(Exception):
    """Nobody knows the name; which is not kept, as somebody may tomorrow."""


def position(name: str, library: Library) -> tuple[float, float] | None:
    """Return the position [deg, ICRS] of an object, None where nobody knows its name.

    Raises
    ------
    nightsift.errors.Unavailable
        A service that may know it cannot be asked.
    """
    name = " ".join(name.split())

    def ask():
        place = _ask(name, library)
        if place is None:
            raise _Unknown
        return json.dumps(place).encode(), {"name": name}

    try:
        path = library.get(f"names/{quote(name, safe='')}", f"the position of {name}", ask)
    except _Unknown:
        return None
    ra, dec = json.loads(path.read_bytes())
    return ra, dec


def _ask(name: str, library: Library) -> tuple[float, float] | None:
    with library.session(sesame.SERVICE, sesame.check) as session:
        place = sesame.resolve(name, session)
    key = objects.tns_key(library)
    if place or not key or not _TRANSIENT.fullmatch(name):
        return place
    with library.session(tns.SERVICE, tns.check) as session:
        tns.introduce(session, key, library.settings.tns_bot)
        entry = tns.transient(name, session)
    return entry and entry[2:4]
