"""VOTables as services send them: an error, half a table and no rows are three different things."""

from __future__ import annotations

import io
import re
import warnings

from astropy.io import votable
from astropy.table import Table

from nightsift.archive.http import BadReply

_INFO = re.compile(rb"""<(?:\w+:)?INFO((?:\s+[\w:-]+\s*=\s*(?:"[^"]*"|'[^']*'))*)\s*/?>""")
_ATTRIBUTE = re.compile(rb"""([\w:-]+)\s*=\s*(?:"([^"]*)"|'([^']*)')""")
_START = re.compile(rb"<(?:\w+:)?VOTABLE\b")
_END = re.compile(rb"</(?:\w+:)?VOTABLE\s*>\s*$")
_TITLE = re.compile(rb"<title>\s*(.*?)\s*</title>", re.IGNORECASE | re.DOTALL)


class Overflow(Exception):
    """The table has more rows than were sent."""


def check(body: bytes) -> None:
    """Raise `BadReply` for a body that is no VOTable, not a whole one, or one that holds an error."""
    head = body[:4000]
    if not _START.search(head):
        title = _TITLE.search(body[:20000])
        what = f"a web page ({title[1][:100].decode(errors='replace')})" if title else f"{bytes(body[:40])!r}"
        raise BadReply(f"the reply is no VOTable but {what}" if body.strip() else "the reply is empty")
    # Errors first: a service that breaks off while it writes has often said why.
    wrong = [value for name, value in _notes(body) if name in ("error", "query_status:error")]
    if wrong:
        said = "; ".join(dict.fromkeys(text for text in wrong if text))
        raise BadReply(f"the reply is an error: {said[:300] or 'without a reason'}")
    if not _END.search(body[-200:]):
        raise BadReply(f"the reply breaks off after {len(body)} bytes")


def _notes(body: bytes) -> list[tuple[str, str]]:
    """Return name, in lower case, and value of the INFO elements; QUERY_STATUS together with what it says."""
    result = []
    for info in _INFO.finditer(body):
        found = {match[1].decode(): (match[2] or match[3] or b"").decode() for match in _ATTRIBUTE.finditer(info[1])}
        name = found.get("name", found.get("ID", "")).lower()
        value = found.get("value", "").strip()
        if name == "query_status":
            name, value = f"{name}:{value.lower()}", ""
        result.append((name, value))
    return result


def parse(body: bytes, limit: int | None = None) -> Table | None:
    """Return the rows of a VOTable that `check` has passed.

    Parameters
    ----------
    body : bytes
    limit : int, optional
        The number of rows that was asked for at most.

    Returns
    -------
    Table or None
        Of all tables in it, which must be of one kind; None where the reply has none, which for some services is how
        they say that nothing was found.

    Raises
    ------
    BadReply
        It cannot be read.
    Overflow
        There are more rows: the service says so, or has sent as many as were asked for.
    """
    if any(name == "query_status:overflow" for name, _ in _notes(body)):
        raise Overflow
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = votable.parse(io.BytesIO(body), verify="ignore", invalid="mask")
            tables = [table.to_table(use_names_over_ids=True) for table in tree.iter_tables()]
    # The parser raises whatever it stumbles over.
    except Exception as error:
        raise BadReply(f"the reply cannot be read as a VOTable ({str(error).splitlines()[0][:200]})") from error
    if len(tables) > 1:
        raise BadReply(f"the reply holds {len(tables)} tables where one was asked for")
    if tables and limit is not None and len(tables[0]) >= limit:
        raise Overflow
    return tables[0] if tables else None
