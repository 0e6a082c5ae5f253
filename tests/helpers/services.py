"""Stand-ins for the services that know objects, in their documented formats."""

import json
import re
import urllib.parse
from dataclasses import dataclass
from xml.sax.saxutils import escape

import numpy as np
from standin import Reply
from standin import archive_config as hurried

from nightsift.archive import skybot, xmatch
from nightsift.sky.sphere import unit_vectors

KEY = "a key for tests"
NAMES = ("skybot", "xmatch", "simbad", "vizier", "tns", "sesame")


@dataclass(frozen=True)
class Thing:
    """An object of the sky: what it is called, where it is (epoch 2000 and proper motion), and figures of it."""

    name: str
    ra: float
    dec: float
    kind: str = ""
    mag: float = 15.0
    motion: tuple = (0.0, 0.0)  # mas/yr
    error: float = 0.1  # arcsec
    number: str = "-"
    distance: float = 2.0  # au

    def at(self, year):
        cosine = np.cos(np.deg2rad(self.dec))
        shift = [(year - 2000) * value / 3.6e6 for value in self.motion]
        return (self.ra + shift[0] / cosine) % 360, self.dec + shift[1]


def apart(ra, dec, there):
    """Return the distance [arcsec] between two positions."""
    chord = np.linalg.norm(unit_vectors([ra], [dec]) - unit_vectors([there[0]], [there[1]]))
    return 3600 * np.rad2deg(2 * np.arcsin(chord / 2))


def votable(columns, rows, name="result"):
    """Return a VOTable; `columns` are pairs of name and datatype, None an empty cell."""
    fields = "".join(
        f'<FIELD name="{key}" datatype="{kind}"' + (' arraysize="*"/>' if kind == "char" else "/>")
        for key, kind in columns
    )
    cells = "\n".join(
        "<TR>" + "".join(f"<TD>{'' if v is None else escape(str(v))}</TD>" for v in row) + "</TR>" for row in rows
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<VOTABLE version="1.3" xmlns="http://www.ivoa.net/xml/VOTable/v1.3">\n'
        '<RESOURCE type="results">\n<INFO name="QUERY_STATUS" value="OK"/>\n'
        f'<TABLE name="{name}">{fields}<DATA><TABLEDATA>\n{cells}\n</TABLEDATA></DATA></TABLE>\n'
        "</RESOURCE>\n</VOTABLE>\n"
    ).encode()


class SkyBot:
    """The cone search; bodies do not move, but for Jupiter."""

    path = "/conesearch.php"

    def __init__(self, *bodies):
        self.bodies = bodies

    def __call__(self, request):
        if not request.path.endswith(self.path):
            return None
        ra, dec, radius, epoch = (float(request.form[key]) for key in ("-ra", "-dec", "-rd", "-ep"))
        jupiter = Thing("Jupiter", *skybot._jupiter(epoch - 2400000.5)[:2], "Planet", -2.0, number="5", distance=5.0)
        near = [body for body in (*self.bodies, jupiter) if apart(ra, dec, (body.ra, body.dec)) <= 3600 * radius]
        if not near:
            text = "No solar system object was found in the requested FOV"
            status = f'<INFO name="QUERY_STATUS" value="ERROR">{text}</INFO>'
            return Reply(votable([], []).replace(b'<INFO name="QUERY_STATUS" value="OK"/>', status.encode()))
        columns = [("Num", "char"), ("Name", "char"), ("RA", "char"), ("DEC", "char"), ("Class", "char")]
        columns += [("Mv", "float"), ("ErrPos", "float"), ("d", "float"), ("Dgeo", "double")]
        columns += [("_RAJ2000", "double"), ("_DECJ2000", "double")]
        rows = [
            (b.number, b.name, "", "", b.kind, b.mag, b.error, apart(ra, dec, (b.ra, b.dec)), b.distance, b.ra, b.dec)
            for b in near
        ]
        return Reply(votable(columns, rows))


SURVEYS = {
    "I/355/gaiadr3": ("Source", "RA_ICRS", "DE_ICRS", "Gmag", 2016.0),
    "II/349/ps1": ("objID", "RAJ2000", "DEJ2000", "rmag", 2000.0),
    "II/379/smssdr4": ("ObjectId", "RAICRS", "DEICRS", "rPSF", 2000.0),
    "II/371/des_dr2": ("DES", "RA_ICRS", "DE_ICRS", "rmag", 2000.0),
}


class XMatch:
    """The cross-match of an uploaded list with the things of a table, by their positions of 2000."""

    def __init__(self, *stars):
        self.stars = stars

    def __call__(self, request):
        if not request.path.endswith("/xmatch/api/v1/sync"):
            return None
        form = dict(re.findall(r'name="(\w+)"\r\n\r\n(.*?)\r\n', request.body.decode()))
        lines = re.search(r"\r\n\r\n(at,.*?)\r\n--", request.body.decode(), re.DOTALL)[1].split()
        name, ra, dec, mag, epoch = SURVEYS[form["cat2"].removeprefix("vizier:")]
        dense = next(survey.control for survey in xmatch.TABLES.values() if form["cat2"].endswith(survey.table))
        crowd = [Thing(str(9000 + k), dense[0] + k / 7000, dense[1] + k / 9000) for k in range(30)]
        columns = [("angDist", "double"), ("at", "int"), ("at_ra", "double"), ("at_dec", "double"), (name, "char")]
        columns += [(ra, "double"), (dec, "double"), ("pmRA", "double"), ("pmDE", "double"), (mag, "float")]
        rows = []
        for line in lines[1:]:
            at, *place = line.split(",")
            for star in (*self.stars, *crowd):
                distance = apart(float(place[0]), float(place[1]), (star.ra, star.dec))
                if distance <= float(form["distMaxArcsec"]):
                    rows.append((f"{distance:.6f}", at, *place, star.name, *star.at(epoch), *star.motion, star.mag))
        return Reply(votable(columns, rows))


class Simbad:
    """TAP with the one question that is asked."""

    def __init__(self, *things):
        self.things = (*things, Thing("M  31", 10.684708, 41.26875, "G"))

    def __call__(self, request):
        if not request.path.endswith("/sim-tap/sync"):
            return None
        # The body holds line breaks, encoded.
        form = dict(urllib.parse.parse_qsl(request.body.decode()))
        ra, dec, radius = map(float, re.search(r"CIRCLE\('ICRS', (\S+), (\S+), ([^)]+)\)", form["QUERY"]).groups())
        columns = [("main_id", "char"), ("otype", "char"), ("ra", "double"), ("dec", "double")]
        columns += [("pmra", "double"), ("pmdec", "double")]
        near = [thing for thing in self.things if apart(ra, dec, (thing.ra, thing.dec)) <= 3600 * radius]
        return Reply(votable(columns, [(t.name, t.kind, t.ra, t.dec, *t.motion) for t in near]))


class Vsx:
    """VizieR's table of the Variable Star Index."""

    def __init__(self, *variables):
        self.variables = (*variables, Thing("omi Cet", 34.83663, -2.97764, "M", 2.0))

    def __call__(self, request):
        if not request.path.endswith("/viz-bin/votable") or request.form.get("-source") != "B/vsx/vsx":
            return None
        ra, dec = map(float, re.fullmatch(r"([\d.]+)([+-][\d.]+)", request.form["-c"]).groups())
        reach = 3600 * float(request.form["-c.rd"])
        columns = [("Name", "char"), ("RAJ2000", "double"), ("DEJ2000", "double"), ("Type", "char"), ("max", "double")]
        near = [star for star in self.variables if apart(ra, dec, (star.ra, star.dec)) <= reach]
        return Reply(votable(columns, [(s.name, s.ra, s.dec, s.kind, s.mag) for s in near]))


class Tns:
    """The server's search and its objects; `wrapped` as older versions of it reply."""

    def __init__(self, *transients, wrapped=False):
        self.transients = (*transients, Thing("2023ixf", 210.910675, 54.311651, "SN II", 14.9))
        self.wrapped = wrapped

    def __call__(self, request):
        if not request.path.startswith("/api/get/"):
            return None
        if request.form.get("api_key") != KEY:
            return _json({"id_code": 401, "id_message": "Unauthorized"}, 401)
        question = json.loads(request.form["data"])
        if request.path.endswith("search"):
            reply = [
                {"objname": t.name, "prefix": "SN", "objid": number}
                for number, t in enumerate(self.transients)
                if apart(float(question["ra"]), float(question["dec"]), (t.ra, t.dec)) <= float(question["radius"])
            ]
        else:
            reply = next((self._entry(t) for t in self.transients if t.name == question["objname"]), {})
        return _json({"id_code": 200, "id_message": "OK", "data": {"reply": reply} if self.wrapped else reply})

    @staticmethod
    def _entry(thing):
        entry = {"objname": thing.name, "name_prefix": "SN", "objid": 1, "radeg": thing.ra, "decdeg": thing.dec}
        return entry | {"object_type": {"name": thing.kind, "id": 3}, "discoverymag": thing.mag, "redshift": None}


def _json(content, status=200):
    return Reply(json.dumps(content).encode(), status, "application/json")


class Sesame:
    """The resolver of names."""

    def __init__(self, *things):
        self.things = {thing.name: thing for thing in things}

    def __call__(self, request):
        if "/nph-sesame/" not in request.path:
            return None
        name = urllib.parse.unquote(request.query)
        thing = self.things.get(name)
        found = "<INFO>*** Nothing found ***</INFO>"
        if thing:
            found = f"<otype>{thing.kind}</otype><jradeg>{thing.ra}</jradeg><jdedeg>{thing.dec}</jdedeg>"
            found += f"<oname>{escape(thing.name)}</oname>"
        body = (
            '<?xml version="1.0" encoding="UTF-8" standalone="no"?>\n'
            '<Sesame xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">\n'
            f'<Target option="SNV"><name>{escape(name)}</name>\n'
            f'<Resolver name="S=Simbad (CDS, via client/server)">{found}</Resolver>\n</Target>\n</Sesame>\n'
        )
        return Reply(body.encode(), kind="text/plain")


def archive_config(standin, cache, **more):
    """Return the section `archive` that points all services to a stand-in and asks each once."""
    own = {"servers": dict.fromkeys(NAMES, standin.url), "attempts": 1, "tns_key": KEY}
    return hurried(standin, cache, **(own | more))
