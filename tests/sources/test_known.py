"""What is known near candidates: matched by every service, right or said to have failed, whatever goes wrong."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from services import KEY, Simbad, SkyBot, Thing, Tns, Vsx, XMatch, archive_config, votable
from standin import FAULTS, SLOW, Reply, StandIn

from nightsift import parameters
from nightsift.archive import http, objects, skybot, xmatch
from nightsift.archive.known import ImageCandidates, annotate
from nightsift.archive.library import Library
from nightsift.archive.tables import table
from nightsift.archive.votable import parse
from nightsift.header import instruments
from nightsift.header.readers import read_observatory
from nightsift.sources import known

SERVICES = Path(__file__).parents[3] / "shared" / "data" / "services"
MJD, YEAR = 59000.0, 2000 + (59000.0 - 51544.5) / 365.25
FIELD = (52.5, -20.0)
EVERY = tuple(known.SERVICES)
ARCSEC = 1 / 3600


def things(ra, dec):
    """Return one object for each service beside a position."""
    shift = ARCSEC / np.cos(np.deg2rad(dec)) if abs(dec) < 89 else 0
    star = Thing("4242", (ra - 0.5 * shift) % 360, dec, mag=16.5)
    return (
        SkyBot(Thing("Ceres", ra, dec + 0.8 * ARCSEC, "MB>Middle", 7.6, number="1", error=0.02)),
        XMatch(star),
        Simbad(Thing("NAME A,  b", ra, dec - 0.6 * ARCSEC, "LP*")),
        Vsx(Thing("V1 Eri", ra, dec + 0.3 * ARCSEC, "RRAB", 12.5)),
        Tns(Thing("2024abc", ra, dec + 0.2 * ARCSEC, "SN Ia", 18.2)),
    )


DISTANCE = dict(zip(EVERY, (0.8, 0.5, 0.5, 0.5, 0.5, 0.6, 0.3, 0.2), strict=True))
NAME = dict.fromkeys(EVERY, "4242") | {"skybot": "(1) Ceres (MB>Middle)", "simbad": "NAME A; b (LP*)"}
NAME |= {"vsx": "V1 Eri (RRAB)", "tns": "SN 2024abc (SN Ia)"}


@pytest.fixture(scope="module")
def server():
    with StandIn() as server:
        yield server


@pytest.fixture
def standin(standin):
    standin.services = list(things(*FIELD))
    return standin


def image(*positions, name="one", mjd=MJD):
    ra, dec = np.array(positions, float).reshape(-1, 2).T
    cone = (*positions[0], 0.1) if positions else None
    return ImageCandidates(name, Table({"ra": ra, "dec": dec}), mjd, cone=cone)


def asked(standin, cache, *images, services=EVERY, offline=False, settings=None, **options):
    params = parameters.KnownConfig(services=services, **options)
    library = Library(parameters.ArchiveConfig(**archive_config(standin, cache, **(settings or {}))), offline)
    return annotate(list(images), params, library)


HERE, ASIDE = FIELD, (FIELD[0] + 0.02, FIELD[1])


def check_right(found, service):
    assert list(found[f"{service}_status"]) == ["matched", "none"]
    np.testing.assert_allclose(found[f"{service}_distance"], [DISTANCE[service], np.nan], atol=0.002)
    assert list(found[f"{service}_name"]) == [NAME[service], ""]


def test_every_service_knows_its_object(standin, tmp_path):
    found, problems = asked(standin, tmp_path, image(HERE, ASIDE))
    assert not problems
    for service in EVERY:
        check_right(found, service)
    assert found["skybot_mag"][0] == pytest.approx(7.6)
    assert found["gaia_mag"][0] == pytest.approx(16.5)
    line = known.lines(found[0])
    assert line[0] == "asteroid (1) Ceres (MB>Middle), V 7.6 at 0.8″"
    assert line[-1] == "TNS SN 2024abc (SN Ia), discovery 18.2 at 0.2″"
    assert set(known.lines(found[1])) == {f"{about.title}: none" for about in known.SERVICES.values()}


def test_who_is_not_asked(standin, tmp_path):
    found, problems = asked(standin, tmp_path, image(HERE), services=("vsx",))
    assert not problems
    assert {service: found[f"{service}_status"][0] for service in EVERY} == dict.fromkeys(EVERY, "not asked") | {
        "vsx": "matched"
    }
    assert known.lines(found[0]) == ["VSX V1 Eri (RRAB), max 12.5 at 0.3″"]
    # without a key, a time, or where a survey does not look
    found, problems = asked(standin, tmp_path / "2", image(HERE), services=("tns",), settings={"tns_key": None})
    assert (found["tns_status"][0], problems) == ("not asked", {})
    found, _ = asked(standin, tmp_path / "2", image(HERE, mjd=None), services=("skybot", "gaia"))
    assert (found["skybot_status"][0], found["gaia_status"][0]) == ("not asked", "matched")
    found, _ = asked(standin, tmp_path / "2", image((10.0, 60.0)), services=("skymapper", "des", "ps1"))
    assert [found[f"{name}_status"][0] for name in ("skymapper", "des", "ps1")] == ["not asked", "not asked", "none"]


def test_asked_once_and_then_from_the_cache(standin, tmp_path):
    images = [image(HERE, ASIDE, name=f"image{k}") for k in range(5)]
    first, _ = asked(standin, tmp_path, *images)
    count = len(standin.requests)
    # one question to each but the control of none: the stars of five images are asked for together
    paths = [request.path.rpartition("/")[2] for request in standin.requests]
    assert paths.count("conesearch.php") == 1
    assert sum("xmatch" in request.path for request in standin.requests) == 4
    second, problems = asked(standin, tmp_path, *images, offline=True)
    assert len(standin.requests) == count
    assert not problems
    assert all(
        np.array_equal(first[name], second[name], equal_nan=first[name].dtype.kind == "f") for name in first.colnames
    )


def test_offline_is_not_asked_and_named(standin, tmp_path):
    found, problems = asked(standin, tmp_path, image(HERE), offline=True)
    assert not standin.requests
    assert {found[f"{service}_status"][0] for service in EVERY} == {"not asked"}
    assert set(problems) == set(EVERY)
    assert all("not in the cache" in str(errors[0]) for errors in problems.values())


# What a reply stays right under: there is no VOTable in it, or nothing of that kind.
HARMLESS = {service: {"a table without columns"} for service in EVERY}
HARMLESS["tns"] |= {"no end tag", "an empty table", "says there is more", "other columns"}


@pytest.mark.parametrize("service", ["skybot", "gaia", "ps1", "simbad", "vsx", "tns"])
@pytest.mark.parametrize("fault", [*FAULTS, "other columns"])
def test_fault(standin, tmp_path, monkeypatch, fault, service):
    monkeypatch.setitem(
        FAULTS, "other columns", lambda reply: Reply(reply.body.replace(b'<FIELD name="', b'<FIELD name="not_'))
    )
    monkeypatch.setattr(http, "PATIENCE", 3)
    settings = {"timeout": SLOW / 4} if fault == "stalls" else {}
    with standin.failing(fault):
        found, problems = asked(standin, tmp_path, image(HERE, ASIDE), services=(service,), settings=settings)
    if fault in HARMLESS[service]:
        check_right(found, service)
        assert not problems
        return
    assert list(found[f"{service}_status"]) == ["failed", "failed"]
    assert list(found[f"{service}_name"]) == ["", ""]
    assert len(problems[service]) >= 1
    assert f"{known.SERVICES[service].title}: failed" in known.lines(found[0])
    assert not list(tmp_path.rglob("*.fits"))
    monkeypatch.setenv("NIGHTSIFT_WARM_OWNER", "the next run")
    found, problems = asked(standin, tmp_path, image(HERE, ASIDE), services=(service,))
    assert not problems
    check_right(found, service)


def test_one_dead_service_harms_no_other(standin, tmp_path):
    with standin.failing("HTTP 503", spares=lambda request: "sim-tap" not in request.path):
        found, problems = asked(standin, tmp_path, image(HERE, ASIDE))
    assert set(problems) == {"simbad"}
    assert list(found["simbad_status"]) == ["failed", "failed"]
    for service in set(EVERY) - {"simbad"}:
        check_right(found, service)


SEAMS = [
    ((0.00005, 5.0), (359.99995, 5.0), 0.36 * np.cos(np.deg2rad(5))),
    ((359.99995, -5.0), (0.00005, -5.0), 0.36 * np.cos(np.deg2rad(5))),
    ((123.0, 89.9999), (303.0, 89.9999), 0.72),
    ((40.0, -89.9998), (100.0, -89.9998), 0.72),
    ((10.0, 90.0), (250.0, 89.9998), 0.72),
]


@pytest.mark.parametrize(("place", "there", "distance"), SEAMS)
@pytest.mark.parametrize("service", ["skybot", "gaia", "simbad", "vsx", "tns"])
def test_around_the_seam_and_the_poles(standin, tmp_path, service, place, there, distance):
    kind = {"skybot": SkyBot, "gaia": XMatch, "simbad": Simbad, "vsx": Vsx, "tns": Tns}[service]
    standin.services = [kind(Thing("it", *there))]
    elsewhere = (place[0], place[1] - np.sign(place[1]) * 0.01)
    found, problems = asked(standin, tmp_path, image(place, elsewhere), services=(service,))
    assert not problems
    assert list(found[f"{service}_status"]) == ["matched", "none"]
    assert found[f"{service}_distance"][0] == pytest.approx(distance, abs=0.002)


def test_proper_motion_brings_a_star_to_the_epoch(standin, tmp_path):
    star = Thing("77", *FIELD, motion=(450.0, -300.0))
    standin.services = [XMatch(star), Simbad(Thing("Fast star", *FIELD, "PM*", motion=star.motion))]
    found, _ = asked(standin, tmp_path, image(star.at(YEAR), FIELD), services=("gaia", "simbad"), radius=0.5)
    for service in ("gaia", "simbad"):
        assert list(found[f"{service}_status"]) == ["matched", "none"]
        assert found[f"{service}_distance"][0] < 0.02


def test_reach_of_asteroids(standin, tmp_path):
    def body(arcsec, error=0.0, distance=50.0):
        return SkyBot(Thing("X", FIELD[0], FIELD[1] + arcsec * ARCSEC, "MB", error=error, distance=distance))

    cases = [(9.0, 0.0, 50.0, True), (11.0, 0.0, 50.0, False), (30.0, 40.0, 50.0, True), (50.0, 40.0, 50.0, False)]
    # an observer who may be anywhere on the Earth sees a near one elsewhere than from its centre
    cases += [(80.0, 0.0, 0.1, True), (95.0, 0.0, 0.1, False)]
    for number, (arcsec, error, distance, hit) in enumerate(cases):
        standin.services = [body(arcsec, error, distance)]
        found, _ = asked(standin, tmp_path / str(number), image(HERE), services=("skybot",))
        assert (found["skybot_status"][0] == "matched") == hit
        if distance < 1:
            found, _ = asked(standin, tmp_path / str(number), image(HERE), services=("skybot",), observatory="950")
            assert found["skybot_status"][0] == "none"
            assert standin.requests[-1].form["-loc"] == "950"


def test_the_observatory_of_the_image_comes_first(standin, tmp_path):
    one = image(HERE)
    one = replace(one, observatory="Z84")
    asked(standin, tmp_path, one, services=("skybot",), observatory="950")
    assert standin.requests[0].form["-loc"] == "Z84"


@pytest.mark.parametrize(
    ("cards", "code"),
    [
        ({"OBSCODE": "Z84"}, "Z84"),
        ({"MPCCODE": 7}, "007"),
        ({"OBSCODE": "Kitt Peak", "MPC_CODE": "695"}, "695"),
        ({"OBSCODE": ""}, None),
        ({}, None),
    ],
)
def test_observatory_in_the_header(cards, code):
    assert read_observatory(fits.Header(cards)) == code
    settled, _ = instruments.settings(instruments.given([{"match": {"A": 1}, "observatory": "J95"}], {"A": 1}), {})
    assert settled["observatory"] == "J95"


def test_asteroids_are_of_their_own_image(standin, tmp_path):
    class Moving(SkyBot):
        def __call__(self, request):
            self.bodies = (Thing("X", FIELD[0], FIELD[1] + float(request.form["-ep"]) - 2400000.5 - MJD, "MB"),)
            return super().__call__(request)

    standin.services = [Moving()]
    images = [image(HERE, name=str(k), mjd=MJD + k / 24) for k in range(3)]
    found, _ = asked(standin, tmp_path, *images, services=("skybot",))
    assert list(found["skybot_status"]) == ["matched", "none", "none"]
    assert len({request.form["-ep"] for request in standin.requests}) == 3


def test_a_field_too_wide_for_one_question(standin, tmp_path):
    wide = image(HERE, (FIELD[0] + 12, FIELD[1]))
    wide = replace(wide, cone=(*FIELD, 15.0))
    found, problems = asked(standin, tmp_path, wide, services=("skybot",))
    assert not problems
    assert list(found["skybot_status"]) == ["matched", "none"]
    assert all(float(request.form["-rd"]) <= 10 for request in standin.requests)


def test_a_cell_with_too_many_is_asked_for_in_parts(standin, tmp_path):
    truth = Simbad(
        *(Thing(f"S {k}", FIELD[0] + (k % 20 - 10) / 200, FIELD[1] + (k // 20 - 10) / 200) for k in range(400))
    )

    def limited(request):
        reply = truth(request)
        if reply and reply.body.count(b"<TR>") > 60:
            return FAULTS["says there is more"](reply)
        return reply

    standin.services = [limited]
    found, problems = asked(standin, tmp_path, image(HERE), services=("simbad",))
    assert not problems
    assert found["simbad_name"][0] == "S 210"
    assert len(standin.requests) > 4


def test_key_and_bot_of_the_name_server(standin, tmp_path, monkeypatch):
    standin.services = [Tns(Thing("2024abc", *FIELD, "", None), wrapped=True)]
    monkeypatch.setenv(objects.TNS_KEY, KEY)
    settings = {"tns_key": None, "tns_bot": "1234 my bot"}
    found, problems = asked(standin, tmp_path, image(HERE), services=("tns",), settings=settings)
    assert not problems
    assert found["tns_name"][0] == "SN 2024abc"
    assert standin.requests[-1].agent == 'tns_marker{"tns_id":1234,"type":"bot","name":"my bot"}'
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert KEY.encode() not in kept
    found, problems = asked(standin, tmp_path / "2", image(HERE), services=("tns",), settings={"tns_key": "wrong"})
    assert found["tns_status"][0] == "failed"
    assert "401" in str(problems["tns"][0])
    assert "wrong" not in str(problems["tns"][0])


def test_no_candidates(standin, tmp_path):
    found, problems = asked(standin, tmp_path, image(), image(name="two"))
    assert len(found) == len(standin.requests) == 0
    assert not problems
    assert set(known.COLUMNS) <= set(found.colnames)


def test_candidates_without_a_position(standin, tmp_path):
    found, _ = asked(standin, tmp_path, image(HERE, (np.nan, np.nan)))
    assert {found[f"{service}_status"][1] for service in EVERY} == {"not asked"}
    assert {found[f"{service}_status"][0] for service in EVERY} == {"matched"}


def labelled(**columns):
    size = len(next(iter(columns.values())))
    return Table(known.blank(size) | {key: np.array(values) for key, values in columns.items()})


def test_a_source_is_what_its_nearest_match_says():
    candidates = labelled(
        vsx_status=["matched", "matched", "none", "failed", "none", "not asked", "failed"],
        vsx_name=["far", "near", "", "", "", "", ""],
        vsx_distance=[1.5, 0.5, np.nan, np.nan, np.nan, np.nan, np.nan],
    )
    group = np.array([0, 0, 0, 1, 1, 2, -1])
    found = known.of_sources(candidates, group, 4)
    assert list(found["vsx_status"]) == ["matched", "failed", "not asked", "not asked"]
    assert (found["vsx_name"][0], found["vsx_distance"][0]) == ("near", 0.5)
    assert set(found["gaia_status"]) == {"not asked"}


def test_reasons_are_of_the_kinds_that_are_asked_for():
    candidates = labelled(
        skybot_status=["matched", "none", "failed"],
        skybot_name=["(1) Ceres (MB)", "", ""],
        skybot_distance=[0.83, np.nan, np.nan],
        vsx_status=["matched", "matched", "none"],
        vsx_name=["V1 (EA; x)", "V2", ""],
        vsx_distance=[1.0, 0.2, np.nan],
    )
    assert list(known.reasons(candidates, [])) == ["", "", ""]
    assert list(known.reasons(candidates, ["asteroid"])) == ["known asteroid: (1) Ceres (MB) 0.8 arcsec", "", ""]
    both = known.reasons(candidates, ["asteroid", "variable"])
    assert both[0] == "known asteroid: (1) Ceres (MB) 0.8 arcsec, known variable: V1 (EA; x) 1.0 arcsec"
    assert list(both[1:]) == ["known variable: V2 0.2 arcsec", ""]


def test_nearest_against_all_distances():
    rng = np.random.default_rng(5)
    ra, dec = 10 + rng.uniform(-6e-3, 6e-3, 60), 70 + rng.uniform(-2e-3, 2e-3, 60)
    error = np.where(rng.random(60) < 0.1, 1.5, 0.0)
    there = table([f"{k}" for k in range(60)], [""] * 60, ra=ra, dec=dec, error=error)
    at = 10 + rng.uniform(-6e-3, 6e-3, 200), 70 + rng.uniform(-2e-3, 2e-3, 200)
    row, distance = known.nearest(there, *at, MJD, 0.7)
    every = 3600 * np.hypot((at[0][:, None] - ra) * np.cos(np.deg2rad(70)), at[1][:, None] - dec)
    every = np.where(every <= np.fmax(error, 0.7), every, np.inf)
    hit = np.isfinite(every.min(axis=1))
    assert 20 < hit.sum() < 180
    np.testing.assert_array_equal(row, np.where(hit, every.argmin(axis=1), -1))
    np.testing.assert_allclose(distance[hit], every.min(axis=1)[hit], atol=1e-3)


@pytest.mark.skipif(not SERVICES.is_dir(), reason="no recorded replies in ../shared/data/services")
def test_recorded_reply_of_skybot(standin, tmp_path):
    body = (SERVICES / "skybot_reply.vot").read_bytes()
    skybot.check(body)
    standin.services = [lambda request: Reply(body)]
    found = skybot.in_cone((81.2833, 4.49278, 0.2), 60677.0, "500", http.Session("SkyBoT", [standin.url], archive()))
    assert list(found["name"]) == ["(229762) G!kun||'homdima", "(523748) 2014 UP224", "2019 RB21", "2007 TE366"]
    np.testing.assert_allclose(found["mag"], [19.6, 22.1, 22.1, 21.6])
    # sexagesimal positions of the same reply
    assert found["ra"][0] == pytest.approx(15 * (5 + 25 / 60 + 12.7657 / 3600), abs=1e-6)
    assert found["error"][2] == pytest.approx(np.hypot(0.077, 8.794 / 1.594366842), rel=1e-6)
    with pytest.raises(http.BadReply, match="breaks off"):
        skybot.check(body[:6000])


@pytest.mark.skipif(not SERVICES.is_dir(), reason="no recorded replies in ../shared/data/services")
def test_recorded_reply_of_the_cross_match(standin):
    """The service's own columns and distances, as a VOTable; its rows repeat the columns that were uploaded."""
    rows = [line.split(",") for line in (SERVICES / "xmatch_reply.csv").read_text().splitlines()]
    kinds = dict.fromkeys(rows[0], "char") | dict.fromkeys(("angDist", "ra", "dec", "RAJ2000", "DEJ2000"), "double")
    raw = parse(votable(list(kinds.items()), rows[1:]))
    what = xmatch.CrossMatch(
        "2MASS", "II/246/out", ("2MASS",), (("RAJ2000", "DEJ2000", 1999.5),), ("angDist",), None, None
    )
    there = xmatch._objects(what, raw)
    upload = Table.read(SERVICES / "xmatch_upload.csv")
    row, distance = known.nearest(there, upload["ra"], upload["dec"], MJD, 15.0)
    for number, mine in enumerate(upload["my_id"]):
        theirs = [float(line[0]) for line in rows[1:] if line[3] == str(mine)]
        assert (row[number] >= 0) == bool(theirs)
        if theirs:
            assert distance[number] == pytest.approx(min(theirs), abs=0.01)


def archive():
    return parameters.ArchiveConfig(attempts=1)


def test_the_question_to_the_cross_match_is_documented(standin, tmp_path):
    asked(standin, tmp_path, image(HERE), services=("gaia",))
    body = standin.requests[0].body.decode()
    for key, value in (("request", "xmatch"), ("RESPONSEFORMAT", "votable"), ("cat2", "vizier:I/355/gaiadr3")):
        assert f'name="{key}"\r\n\r\n{value}\r\n' in body
    assert 'name="cat1"; filename="positions.csv"' in body
    assert json.loads(json.dumps(xmatch.version("gaia"))) != xmatch.version("ps1")
