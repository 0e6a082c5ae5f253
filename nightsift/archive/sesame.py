"""Where an object is, by its name: CDS's Sesame, which asks Simbad, NED and VizieR."""

from __future__ import annotations

from urllib.parse import quote
from xml.etree import ElementTree

from nightsift.archive.http import BadReply, Session

SERVICE = "sesame"
URL = "https://cds.unistra.fr/cgi-bin/nph-sesame/-oxp/SNV?"


def check(body: bytes) -> None:
    """Raise `BadReply` for a body that is no whole reply of Sesame."""
    _target(body)


def _target(body: bytes) -> ElementTree.Element:
    if b"<!DOCTYPE" in body[:200] or b"<!ENTITY" in body:
        raise BadReply("the reply is a web page")
    try:
        target = ElementTree.fromstring(body).find("Target")
    except ElementTree.ParseError as error:
        raise BadReply(
            f"the reply breaks off or is no XML ({error})" if body.strip() else "the reply is empty"
        ) from None
    if target is None:
        raise BadReply("the reply is not one of Sesame")
    return target


def resolve(name: str, session: Session) -> tuple[float, float] | None:
    """Return the position [deg, ICRS] of an object by its name, None where nobody knows it.

    Raises
    ------
    nightsift.archive.http.ServiceDown, nightsift.archive.http.BadReply
        Also where a resolver that was asked has failed and the others know nothing.
    """
    target = _target(session.get(URL + quote(name)).content)
    for resolver in target.iter("Resolver"):
        place = [resolver.findtext(key) for key in ("jradeg", "jdedeg")]
        try:
            if None not in place:
                return float(place[0]), float(place[1])
        except ValueError:
            raise BadReply(f"Sesame's position of {name} cannot be read") from None
    nothing = any("Nothing found" in (element.text or "") for element in target.iter("INFO"))
    if not nothing or target.find(".//ERROR") is not None:
        raise BadReply(f"Sesame could not ask all for {name}")
    return None
