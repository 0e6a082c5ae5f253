"""What can go wrong with a service, for each of them: never a wrong result, the right error, and recovery."""

import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from skies import all_surveys, as_survey, stars
from standin import ERROR, FAULTS, SLOW, Reply, StandIn, Vizier, archive_config
from workflows import script

from nightsift import parameters
from nightsift.archive import vizier, votable
from nightsift.archive.cache import Cache, Missing
from nightsift.archive.catalogs import SURVEYS
from nightsift.archive.http import BadReply, ServiceDown, Session
from nightsift.archive.library import Library
from nightsift.catalog.catalog import catalog, match
from nightsift.errors import Rejected, Unavailable
from nightsift.io.products import read_table

SCRIPT = script("fetch_catalog")
RUNS = itertools.count()
RNG = np.random.default_rng(8)
SERVICES = Path(__file__).parents[3] / "shared" / "data" / "services"
CENTER = (150.0, 1.0)
CONE = (*CENTER, 0.05)
SKY = stars(*CENTER, 0.7, 1500)
# What each fault of a reply is, seen from the client. The exceptions are what is asked of each catalogue below.
OUTCOME = {
    "HTTP 500": (ServiceDown, "HTTP 500"),
    "HTTP 503": (ServiceDown, "HTTP 503"),
    "HTTP 429": (ServiceDown, "HTTP 429"),
    "HTTP 404": (BadReply, "HTTP 404"),
    "closes": (ServiceDown, "does not answer"),
    "breaks off": (ServiceDown, "does not answer"),
    "half a table": (BadReply, "breaks off"),
    "no end tag": (BadReply, "breaks off"),
    "a web page": (BadReply, "Proxy Error"),
    "an error with HTTP 200": (BadReply, "database is not currently reachable"),
    "nothing": (BadReply, "empty"),
    "garbage": (BadReply, "no VOTable"),
    "stalls": (ServiceDown, "does not answer"),
    "an empty table": (BadReply, "cannot be"),
    "a table without columns": (BadReply, "without"),
    "says there is more": (BadReply, "does not send all"),
}


@pytest.fixture(scope="module")
def server():
    with StandIn(Vizier(all_surveys(SKY))) as server:
        yield server


@pytest.fixture
def standin(standin):
    standin.services = standin.services[:1]
    standin.most_at_once, standin.delay = 0, 0.0
    return standin


@pytest.fixture
def library(standin, tmp_path):
    return Library(parameters.ArchiveConfig(**archive_config(standin, tmp_path)))


def of_cone(table, cone=CONE):
    cosine = np.cos(np.deg2rad(cone[1]))
    return table[np.hypot((table["ra"] - cone[0]) * cosine, table["dec"] - cone[1]) < cone[2]]


def positions(table):
    return sorted(zip(np.round(table["ra"], 6), np.round(table["dec"], 6), strict=True))


def test_every_fault_is_listed():
    assert set(OUTCOME) == set(FAULTS)


# Each with its own way to tell that no star cannot be true, and one with fluxes for errors.
@pytest.mark.parametrize("name", ["ps1", "gaiaedr3", "sdss", "gaiadr3syn"])
@pytest.mark.parametrize("fault", FAULTS)
def test_fault(standin, tmp_path, monkeypatch, fault, name):
    patience = {"timeout": SLOW / 4, "attempts": 1} if fault == "stalls" else {}
    library = Library(parameters.ArchiveConfig(**archive_config(standin, tmp_path, **patience)))
    kind, words = OUTCOME[fault]
    with standin.failing(fault):
        with pytest.raises(Unavailable) as error:
            library.stars(name, CONE, 20.0)
    assert isinstance(error.value, kind)
    assert words in str(error.value)
    assert SURVEYS[name].title in str(error.value)
    assert "asks again" in str(error.value)
    assert not list(Path(tmp_path).rglob("*.fits"))
    monkeypatch.setenv("NIGHTSIFT_WARM_OWNER", "the next run")
    library = Library(parameters.ArchiveConfig(**archive_config(standin, tmp_path)))
    found, cells = library.stars(name, CONE, 20.0)
    assert len(found) > 0
    assert cells


@pytest.mark.parametrize("name", SURVEYS)
def test_the_stars_are_those_of_the_survey(library, standin, name):
    found, _ = library.stars(name, CONE, 18.0)
    survey = SURVEYS[name]
    truth = as_survey(SKY, name)
    truth = truth[truth[survey.limit] < 18.0]
    truth["ra"], truth["dec"] = (truth[key] for key in survey.position)
    found, truth = (part[np.argsort(part["dec"])] for part in (of_cone(found), of_cone(truth)))
    np.testing.assert_allclose(found["ra"], truth["ra"], atol=1e-7)
    np.testing.assert_allclose(found["epoch"], survey.epoch)
    for band, column in survey.magnitudes.items():
        bright = truth[column] > survey.brightest.get(band, 0)
        np.testing.assert_allclose(found[f"{band}mag"][bright], truth[column][bright], atol=1e-6)
        np.testing.assert_allclose(found[f"e_{band}mag"][bright], 0.01, rtol=1e-5)
        assert np.isnan(np.asarray(found[f"{band}mag"])[~bright]).all()
    assert all(request.agent.startswith("nightsift/") for request in standin.requests)


def test_each_cell_is_asked_for_once(library, standin, tmp_path):
    library.stars("ps1", CONE, 20.0)
    once = len(standin.requests)
    Library(library.settings).stars("ps1", CONE, 20.0)
    Library(library.settings, offline=True).stars("ps1", CONE, 20.0)
    assert len(standin.requests) == once
    library.stars("ps1", (*CENTER, 0.01), 20.0)
    assert len(standin.requests) == once
    library.stars("ps1", CONE, 17.0)
    assert len(standin.requests) > once, "cells of another depth are others"


def test_offline_names_what_is_missing(library, standin):
    offline = Library(library.settings, offline=True)
    with pytest.raises(Missing, match=r"offline.* lacks 1 cell of Pan-STARRS DR1 \(7/\d+\)"):
        offline.stars("ps1", (150.2, 1.0, 0.01), 20.0)
    assert not standin.requests


def test_what_is_changed_or_cut_off_is_asked_for_again(library, standin):
    library.stars("ps1", CONE, 20.0)
    files = sorted(Path(library.settings.cache).rglob("*.fits"))
    before = [file.read_bytes() for file in files]
    standin.requests.clear()
    files[0].write_bytes(before[0][:-2880])
    companion = files[0].with_name(files[0].name + ".json")
    about = companion.read_text()
    library.stars("ps1", CONE, 20.0)
    assert len(standin.requests) == 1
    companion.write_text("")
    library.stars("ps1", CONE, 20.0)
    assert len(standin.requests) == 2
    companion.unlink()
    assert len(library.stars("ps1", CONE, 20.0)[0])
    assert len(standin.requests) == 3
    assert json.loads(about)["table"] == "II/349/ps1"


def test_a_part_that_fails_does_not_take_the_others_with_it(library, standin):
    cone = (*CENTER, 0.4)
    with standin.failing("an error with HTTP 200", spares=lambda request: len(standin.requests) % 4 != 0):
        settings = parameters.ArchiveConfig(**{**vars(library.settings), "attempts": 1})
        with pytest.raises(BadReply, match=r"\d+ cells? of Pan-STARRS DR1 .* could not be had, [1-9]\d* could"):
            Library(settings).stars("ps1", cone, 20.0)
    had = len(list(Path(library.settings.cache).rglob("*.fits")))
    standin.requests.clear()
    found, cells = library.stars("ps1", cone, 20.0)
    assert len(standin.requests) == len(cells) - had
    assert len(positions(found)) == len(set(positions(found)))


def test_cells_with_too_many_stars_are_divided(library, standin, monkeypatch):
    whole = positions(library.stars("ps1", CONE, 20.0)[0])
    monkeypatch.setattr(vizier, "ROWS", 80)
    fresh = Library(parameters.ArchiveConfig(**{**vars(library.settings), "cache": f"{library.settings.cache}/other"}))
    standin.requests.clear()
    assert positions(fresh.stars("ps1", CONE, 20.0)[0]) == whole
    assert len(standin.requests) >= 5


def test_no_star_outside_a_survey_is_an_answer(library, standin):
    assert len(library.stars("sdss", (10.0, -60.0, 0.1), 20.0)[0]) == 0
    assert not standin.requests, "known without a question"
    assert len(library.stars("des", (10.0, -60.0, 0.1), 20.0)[0]) == 0
    assert standin.requests
    standin.requests.clear()
    assert len(library.stars("des", (10.0, -60.0, 0.1), 20.0)[0]) == 0
    assert not standin.requests, "that there is none is kept, too"


@pytest.mark.parametrize("center", [(0.0, 12.3), (359.999, -40.0), (77.0, 90.0), (200.0, -90.0), (45.0, 0.0)], ids=str)
def test_fields_wherever_they_are(tmp_path, center):
    field = stars(*center, 0.9, 600)
    with StandIn(Vizier({SURVEYS["gaiaedr3"].table: as_survey(field, "gaiaedr3")})) as server:
        library = Library(parameters.ArchiveConfig(**archive_config(server, tmp_path)))
        found, cells = library.stars("gaiaedr3", (*center, 0.1), 20.0)
    assert len(server.requests) == len(cells)
    cut = catalog(found, *center, 0.1, None, parameters.CatalogConfig(source="gaiaedr3"))
    truth = catalog(as_local(field), *center, 0.1, 57388.5, parameters.CatalogConfig(source="truth"))
    assert abs(cut.n - truth.n) <= 1
    assert len(match(cut.table, truth.table, 0.01)[0]) >= truth.n - 1
    assert truth.n > 3


def as_local(table):
    return Table({**{name: table[name] for name in table.colnames}, "epoch": np.full(len(table), 2000.0)})


def test_mirrors_are_asked_when_a_server_fails(standin, tmp_path):
    with StandIn(Vizier({})) as dead:
        pass
    with StandIn(Vizier(all_surveys(SKY))) as ill, ill.failing("an error with HTTP 200"):
        servers = {"vizier": [dead.url, ill.url, standin.url + "/mirror"]}
        settings = parameters.ArchiveConfig(**archive_config(standin, tmp_path, servers=servers, attempts=1))
        assert len(Library(settings).stars("ps1", CONE, 20.0)[0])
    assert standin.requests[0].path == "/mirror/viz-bin/votable"


def test_a_server_that_recovers_while_it_is_asked(standin, library):
    with standin.failing("HTTP 503", spares=lambda request: len(standin.requests) > 1):
        assert len(library.stars("ps1", CONE, 20.0)[0])


def test_waiting_grows_and_listens_to_the_server(standin, tmp_path, monkeypatch):
    waits = []
    clock = SimpleNamespace(sleep=waits.append, monotonic=time.monotonic, time=time.time)
    monkeypatch.setattr("nightsift.archive.http.time", clock)
    settings = parameters.ArchiveConfig(**archive_config(standin, tmp_path, attempts=4, wait=2.0))
    with standin.failing("HTTP 503"), pytest.raises(ServiceDown):
        Session("it", [standin.url], settings).get("http://it/")
    assert len(waits) == 3
    assert all(0.5 * 2 ** (k + 1) <= wait <= 1.5 * 2 ** (k + 1) for k, wait in enumerate(waits))
    monkeypatch.setitem(FAULTS, "HTTP 503", lambda reply: _busy(7))
    waits.clear()
    with standin.failing("HTTP 503"), pytest.raises(ServiceDown):
        Session("it", [standin.url], settings).get("http://it/")
    assert min(waits) == 7
    monkeypatch.setitem(FAULTS, "HTTP 503", lambda reply: _busy(3600))
    waits.clear()
    with standin.failing("HTTP 503"), pytest.raises(ServiceDown):
        Session("it", [standin.url], settings).get("http://it/")
    assert waits == [], "nobody waits an hour within a job"


def _busy(seconds):
    return Reply(b"", 503, "text/plain", {"Retry-After": str(seconds)})


def test_what_is_refused_is_not_asked_again(standin, library):
    with standin.failing("HTTP 404"), pytest.raises(BadReply) as error:
        library.stars("ps1", (*CENTER, 0.001), 20.0)
    assert "HTTP 404" in str(error.value)
    assert len(standin.requests) == 1


def test_a_dead_service_is_not_waited_for_by_every_image(standin, library, monkeypatch):
    with standin.failing("HTTP 503"):
        for cone in (CONE, (150.3, 1.3, 0.01)):
            with pytest.raises(ServiceDown, match="HTTP 503"):
                Library(library.settings).stars("ps1", cone, 20.0)
        assert len(standin.requests) == library.settings.attempts
    monkeypatch.setenv("NIGHTSIFT_WARM_OWNER", "another run")
    assert len(Library(library.settings).stars("ps1", CONE, 20.0)[0])


def test_size_is_limited(standin, tmp_path):
    settings = parameters.ArchiveConfig(**archive_config(standin, tmp_path, max_size=0.001))
    with pytest.raises(BadReply, match="more than"):
        Library(settings).stars("ps1", CONE, 20.0)


def test_a_reply_that_trickles_is_given_up(standin, library, monkeypatch):
    monkeypatch.setattr("nightsift.archive.http.PATIENCE", 0.01)
    with standin.failing("stalls"), pytest.raises(ServiceDown, match="too slowly"):
        library.stars("ps1", CONE, 20.0)


ASK = """
import sys
from nightsift import parameters
from nightsift.archive.library import Library
print(len(Library.from_environment().stars(sys.argv[1], (150.0, 1.0, 0.1), 20.0)[0]))
"""


def test_several_runs_at_once(standin, tmp_path):
    standin.delay = 0.05
    environment = os.environ | {"NIGHTSIFT_ARCHIVE": json.dumps({"archive": archive_config(standin, tmp_path)})}
    names = ["ps1", "ps1", "gaiaedr3"]
    runs = [
        subprocess.Popen([sys.executable, "-c", ASK, name], env=environment, stdout=subprocess.PIPE, text=True)
        for name in names
    ]
    counts = [int(run.communicate(timeout=60)[0]) for run in runs]
    assert all(run.returncode == 0 for run in runs)
    assert counts[0] == counts[1] > 0
    questions = [request.body for request in standin.requests]
    assert len(questions) == len(set(questions)), "a cell was asked for twice"
    assert standin.most_at_once <= parameters.ArchiveConfig().parallel


def test_a_lock_of_a_process_that_died_holds_nobody_up(tmp_path):
    code = (
        f"import os; from nightsift.archive.cache import Cache\nwith Cache({str(tmp_path)!r}).locked('a'): os._exit(1)"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    assert Cache(tmp_path).get("a", lambda: (b"content", {})).read_bytes() == b"content"


def test_recorded_replies():
    for name in ("vizier_reply.xml", "vizier_error_reply.xml"):
        if not (SERVICES / name).is_file():
            pytest.skip(f"no recorded reply {name} beside the project")
    with pytest.raises(BadReply, match=r"error: The database is not currently reachable\.; -- no connection"):
        votable.check((SERVICES / "vizier_error_reply.xml").read_bytes())
    body = (SERVICES / "vizier_reply.xml").read_bytes()
    votable.check(body)
    with pytest.raises(BadReply, match="tables where one was asked for"):
        votable.parse(body)
    with pytest.raises(BadReply, match="breaks off"):
        votable.check(body[:-12])
    with pytest.raises(BadReply, match="error"):
        votable.check(ERROR)


def test_one_table_of_a_recorded_reply():
    if not (SERVICES / "vizier_reply.xml").is_file():
        pytest.skip("no recorded reply vizier_reply.xml beside the project")
    text = (SERVICES / "vizier_reply.xml").read_text()
    start, end = text.index('<RESOURCE ID="yCat_1062"'), text.index("<RESOURCE ID=", text.index("yCat_1062") + 20)
    one = text[: text.index("<RESOURCE")] + text[start:end] + "</VOTABLE>\n"
    votable.check(one.encode())
    table = votable.parse(one.encode(), limit=100)
    assert isinstance(table, Table)
    assert len(table) == one.count("<TR>")
    with pytest.raises(votable.Overflow):
        votable.parse(one.encode(), limit=len(table))


def stage(folder, standin, image, source="ps1"):
    """Run the stage as the workflow does, in a run of its own; return its exit code and the state it leaves."""
    settings = {"archive": archive_config(standin, folder / "cache", attempts=1, timeout=2.0)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NIGHTSIFT_ARCHIVE", json.dumps(settings))
        patch.setenv("NIGHTSIFT_WARM_OWNER", f"run {next(RUNS)}")
        params = ["--params", json.dumps({"source": source}), "--name", "it", "--exposure", str(image)]
        outputs = [part for name in ("stars", "gaia") for part in (f"--{name}", str(folder / f"{name}.fits"))]
        code = SCRIPT.main([*params, "--state", str(folder / "fetch_catalog.json"), *outputs])
    return code, json.loads((folder / ("status.json" if code else "fetch_catalog.json")).read_text())


@pytest.fixture
def exposure(tmp_path):
    header = fits.Header({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": CENTER[0], "CRVAL2": CENTER[1]})
    header.update({"CRPIX1": 50.5, "CRPIX2": 50.5, "CDELT1": -3e-4, "CDELT2": 3e-4, "FILTER": "r"})
    fits.PrimaryHDU(RNG.normal(100, 3, (100, 100)).astype("f4"), header).writeto(tmp_path / "image.fits")
    return tmp_path / "image.fits"


@pytest.mark.parametrize("fault", FAULTS)
def test_the_image_waits_and_the_next_run_asks_again(standin, tmp_path, exposure, fault):
    with standin.failing(fault):
        if fault == "stalls":
            standin.delay = 2.5
        code, state = stage(tmp_path, standin, exposure)
    standin.delay = 0.0
    assert code == 1
    assert (state["status"], state["stage"], state["stopped"]) == ("error", "fetch_catalog", "fetch_catalog")
    assert OUTCOME[fault][1] in state["reason"]
    assert not (tmp_path / "stars.fits").exists()
    code, state = stage(tmp_path, standin, exposure)
    assert code == 0
    assert state["n_stars"] > 0 < state["n_gaia"]
    assert state["survey"] == "ps1"
    assert len(read_table(tmp_path / "stars.fits")) == state["n_stars"]


def test_an_image_of_unknown_place_asks_for_nothing(standin, tmp_path, exposure):
    fits.PrimaryHDU(np.ones((100, 100), "f4")).writeto(tmp_path / "nowhere.fits")
    (tmp_path / "broken.fits").write_text("no FITS")
    for name in ("nowhere", "broken"):
        code, state = stage(tmp_path, standin, tmp_path / f"{name}.fits")
        assert (code, state["status"]) == (0, "ok"), "what is wrong with it is for others to say"
        assert len(read_table(tmp_path / "stars.fits")) == 0
    assert not standin.requests


def test_a_field_outside_a_survey_is_rejected_by_name(standin, tmp_path, exposure):
    header = fits.getheader(exposure)
    header["CRVAL1"], header["CRVAL2"] = 10.0, -60.0
    fits.PrimaryHDU(fits.getdata(exposure), header).writeto(exposure, overwrite=True)
    code, state = stage(tmp_path, standin, exposure, "sdss")
    assert (code, state["n_stars"], state["title"]) == (0, 0, "SDSS DR16")
    with pytest.raises(Rejected, match=r"SDSS DR16 has no star within 0.100 deg of 10.0000 -60.0000"):
        catalog(
            read_table(tmp_path / "stars.fits"), 10.0, -60.0, 0.1, None, parameters.CatalogConfig(source=state["title"])
        )


def test_where_the_first_choice_has_nothing_the_next_is_taken(standin, tmp_path, exposure):
    ours = standin.services[0].tables
    empty = {"II/349/ps1": ours["II/349/ps1"][:0]}
    standin.services[:] = [Vizier(ours | empty)]
    try:
        # Pan-STARRS is known to be complete here, so that it has nothing is a failure, not a reason for another.
        assert stage(tmp_path, standin, exposure, "auto")[0] == 1
        header = fits.getheader(exposure)
        header["FILTER"], header["CRVAL2"] = "J", -1.0
        fits.PrimaryHDU(fits.getdata(exposure), header).writeto(exposure, overwrite=True)
        southern = {"II/367/vhs_dr5": as_survey(stars(*SURVEYS["vhs"].control, 0.1, 20), "vhs")}
        southern |= {SURVEYS[name].table: as_survey(stars(150, -1, 0.7), name) for name in ("2mass", "gaiaedr3")}
        standin.services[:] = [Vizier(southern)]
        code, state = stage(tmp_path, standin, exposure, "auto")
    finally:
        standin.services[:] = [Vizier(ours)]
    assert code == 0
    assert state["survey"] == "2mass"
