"""A stand-in for the services of the sky, on loopback: real replies, replies in their formats, and all their faults.

A service is a function from a `Request` to a `Reply`, or None for a path that is not its own. Add more to
`StandIn.services`; faults apply to all of them.
"""

import http.server
import os
import re
import threading
import time
import urllib.parse
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from xml.sax.saxutils import escape

import numpy as np

from nightsift.archive.catalogs import SURVEYS
from nightsift.archive.library import SERVERS
from nightsift.sky.sphere import unit_vectors

# Loopback is not for a proxy, in the processes that tests start neither.
os.environ.update(NO_PROXY="127.0.0.1", no_proxy="127.0.0.1")


@dataclass(frozen=True)
class Request:
    """What a client asks: path, query or form as a dictionary, and the body."""

    path: str
    form: dict
    body: bytes = b""
    agent: str = ""
    query: str = ""


@dataclass(frozen=True)
class Reply:
    """What a service answers; `declared` is the Content-Length, and `pause` seconds pass before the second half."""

    body: bytes
    status: int = 200
    kind: str = "application/x-votable+xml"
    headers: dict = field(default_factory=dict)
    declared: int | None = None
    pause: float = 0.0


ERROR = b"""<?xml version="1.0" encoding="UTF-8"?>
<VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3">
 <INFO ID="Error" name="Error" value="The database is not currently reachable." />
 <INFO name="Error" value=" -- no connection" />
 <INFO name="QUERY_STATUS" value="ERROR">no connection</INFO>
 <RESOURCE></RESOURCE>
</VOTABLE>
"""
PAGE = b"<!DOCTYPE html><html><head><title>503 Proxy Error</title></head><body>later</body></html>"
SLOW = 1.0


def _refused(status):
    return lambda reply: Reply(PAGE, status, "text/html")


# What can go wrong with a reply; each makes a bad one of a good one. None closes the connection without a word.
FAULTS: dict[str, Callable[[Reply], Reply | None]] = {
    "HTTP 500": _refused(500),
    "HTTP 503": _refused(503),
    "HTTP 429": lambda reply: Reply(PAGE, 429, "text/html", {"Retry-After": "0"}),
    "HTTP 404": _refused(404),
    "closes": lambda reply: None,
    "breaks off": lambda reply: replace(reply, body=reply.body[: len(reply.body) // 2], declared=len(reply.body)),
    "half a table": lambda reply: replace(reply, body=reply.body[: len(reply.body) // 2]),
    "no end tag": lambda reply: replace(reply, body=reply.body.replace(b"</VOTABLE>", b"")),
    "a web page": lambda reply: Reply(PAGE, 200, "text/html"),
    "an error with HTTP 200": lambda reply: replace(reply, body=ERROR),
    "nothing": lambda reply: replace(reply, body=b""),
    "garbage": lambda reply: replace(reply, body=bytes(range(256)) * 20),
    "stalls": lambda reply: replace(reply, pause=SLOW),
    "an empty table": lambda reply: replace(reply, body=re.sub(rb"<TR>.*</TR>", b"", reply.body, flags=re.DOTALL)),
    "a table without columns": lambda reply: replace(reply, body=reply.body.replace(b'name="e_', b'name="f_')),
    "says there is more": lambda reply: replace(
        reply, body=reply.body.replace(b"</RESOURCE>", b'<INFO name="QUERY_STATUS" value="OVERFLOW"/></RESOURCE>')
    ),
}


class StandIn:
    """The server: `services` in turn get each request, `fault` spoils the replies, `requests` are those it had."""

    def __init__(self, *services):
        self.services = list(services)
        self.requests: list[Request] = []
        self.fault: str | None = None
        self.spares: Callable[[Request], bool] = lambda request: False
        self.delay = 0.0
        self.most_at_once = self._now = 0
        self._lock = threading.Lock()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer._answer(self)

            do_POST = do_HEAD = do_GET

            def log_message(self, *arguments):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.server.shutdown()
        self.server.server_close()

    @contextmanager
    def failing(self, fault, spares=lambda request: False):
        """Spoil the replies within the block, but for requests that it `spares`."""
        self.fault, self.spares = fault, spares
        yield
        self.fault, self.spares = None, lambda request: False

    def _answer(self, handler):
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        parts = urllib.parse.urlsplit(handler.path)
        request = Request(
            parts.path, _form(parts.query, body), body, handler.headers.get("User-Agent", ""), parts.query
        )
        with self._lock:
            self.requests.append(request)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            time.sleep(self.delay)
            answers = (service(request) for service in self.services)
            reply = next((answer for answer in answers if answer is not None), Reply(b"", 404, "text/plain"))
            if self.fault and not self.spares(request):
                reply = FAULTS[self.fault](reply)
            _send(handler, reply)
        finally:
            with self._lock:
                self._now -= 1


def _form(query, body):
    """Return the fields of a query, of a form, or of the lines that VizieR takes."""
    text = body.decode(errors="replace")
    if "\n" in text:
        return dict(line.partition("=")[::2] for line in text.splitlines())
    return dict(urllib.parse.parse_qsl(query) + urllib.parse.parse_qsl(text))


def _send(handler, reply):
    if reply is None:
        handler.close_connection = True
        return
    try:
        handler.send_response(reply.status)
        handler.send_header("Content-Type", reply.kind)
        handler.send_header("Content-Length", str(len(reply.body) if reply.declared is None else reply.declared))
        for name, value in reply.headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        if handler.command == "HEAD":
            return
        half = len(reply.body) // 2
        handler.wfile.write(reply.body[:half])
        handler.wfile.flush()
        time.sleep(reply.pause)
        handler.wfile.write(reply.body[half:])
    except (BrokenPipeError, ConnectionResetError):
        pass  # the client has given up, which is what some tests are for
    handler.close_connection = True


class Vizier:
    """VizieR as far as cone searches go: VOTables of the columns that a table has and the query names.

    Parameters
    ----------
    tables : dict
        Tables by the name that VizieR gives them, with VizieR's columns; masked and NaN values are empty cells.
    """

    def __init__(self, tables):
        self.tables = tables
        self.vectors = {
            name: unit_vectors(*(np.asarray(table[key], float) for key in _position(name)))
            for name, table in tables.items()
        }

    def __call__(self, request):
        if not request.path.endswith("/viz-bin/votable"):
            return None
        form, name = request.form, request.form["-source"]
        info = [("-ref", "VOTx1"), ("-out.max", form["-out.max"]), ("-c", f"{form['-c']},rd={form['-c.rd']}")]
        head = _HEAD + "".join(f'<INFO name="{key}" value="{escape(value)}"/>\n' for key, value in info)
        table = self.tables.get(name)
        if table is None:
            note = '<INFO name="CatalogsExamined" value="0"> no catalogue found</INFO>\n'
            return Reply((head + note + "</VOTABLE>\n").encode())
        rows = table[self._chosen(name, table, form)]
        limit = len(rows) if form["-out.max"] == "unlimited" else int(form["-out.max"])
        columns = [key for key in form["-out"].split(",") if key in table.colnames]
        fields = "".join(_field(table, key) for key in columns)
        cells = (_cells(rows[key][:limit]) for key in columns)
        data = "\n".join("<TR>" + "".join(row) + "</TR>" for row in zip(*cells, strict=True))
        body = (
            f'{head}<RESOURCE ID="yCat" name="{name.rpartition("/")[0]}">\n<TABLE ID="t" name="{name}">\n{fields}'
            f"<DATA><TABLEDATA>\n{data}\n</TABLEDATA></DATA>\n</TABLE>\n</RESOURCE>\n</VOTABLE>\n"
        )
        return Reply(body.encode())

    def _chosen(self, name, table, form):
        ra, dec = re.fullmatch(r"([\d.]+)([+-][\d.]+)", form["-c"]).groups()
        reach = 2 * np.sin(np.deg2rad(float(form["-c.rd"])) / 2)
        chosen = np.linalg.norm(self.vectors[name] - unit_vectors(float(ra), float(dec)), axis=1) <= reach
        for key, condition in form.items():
            if key in table.colnames and condition.startswith("<"):
                chosen &= np.asarray(table[key], float) < float(condition[1:])
        return chosen


_HEAD = """<?xml version="1.0" encoding="UTF-8"?>
<VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3">
 <DESCRIPTION>VizieR Astronomical Server vizier.cds.unistra.fr</DESCRIPTION>
"""


def _position(name):
    return next(survey.position for survey in SURVEYS.values() if survey.table == name)


def _field(table, key):
    kind = "double" if np.asarray(table[key]).dtype.kind == "f" else "int"
    return f'<FIELD name="{key}" datatype="{kind}"/>\n'


def _cells(values):
    if np.asarray(values).dtype.kind != "f":
        return [f"<TD>{value}</TD>" for value in values]
    return [f"<TD>{value:.10g}</TD>" if np.isfinite(value) else "<TD/>" for value in np.asarray(values, float)]


def archive_config(standin, cache, **more):
    """Return the section `archive` that points to a stand-in and loses no time."""
    services = dict.fromkeys(SERVERS, standin.url)
    return {"cache": str(cache), "servers": services, "attempts": 2, "wait": 0.01, "timeout": 20.0} | more
