"""A campaign whose candidates are labelled with known objects, against a stand-in."""

import json
import re
import shutil

import numpy as np
import pytest
from archived import read
from services import Simbad, SkyBot, Thing, Tns, Vsx, XMatch, archive_config
from standin import StandIn
from workflows import digests, snakemake

from nightsift.sources import known

SERVICES = ["skybot", "gaia", "simbad", "vsx", "tns"]
ARCSEC = 1 / 3600


def candidates(work):
    table = read(work)
    return table.filled("") if table.has_masked_columns else table


def page(work):
    return (work / "results" / "campaign" / "report.html").read_text()


@pytest.fixture(scope="module")
def places(finished):
    """The positions of the two strongest sources."""
    sources = read(finished, "sources")
    best = np.argsort(-np.abs(sources["best_snr"]))[:2]
    return [(float(sources["ra"][row]), float(sources["dec"][row]), str(sources["source"][row])) for row in best]


@pytest.fixture(scope="module")
def server(places):
    (ra, dec, _), (other_ra, other_dec, _) = places
    with StandIn(
        SkyBot(Thing("Ceres", ra, dec + 2.0 * ARCSEC, "MB", 7.6, number="1", error=0.02)),
        XMatch(Thing("4242", other_ra, other_dec, mag=16.5)),
        Simbad(),
        Vsx(Thing("V1 Eri", other_ra, other_dec, "RRAB", 12.5)),
        Tns(),
    ) as server:
        yield server


def configure(work, server, cache, **options):
    path = work / "config.yaml"
    base = path.with_name("config.before")
    if not base.is_file():
        shutil.copy(path, base)
    section = {"services": SERVICES} | options
    archive = archive_config(server, cache)
    path.write_text(base.read_text() + f"\nknown: {json.dumps(section)}\narchive: {json.dumps(archive)}\n")


@pytest.fixture(scope="module")
def labelled(finished, server, tmp_path_factory):
    """A campaign that had run, with its candidates labelled, and its cache; not to be changed."""
    folder = tmp_path_factory.mktemp("labelled")
    work = shutil.copytree(finished, folder / "work")
    configure(work, server, folder / "cache")
    run = snakemake(work)
    assert run.code == 0, run.text
    assert run.rules == {"fetch_known", "sources", "report"}
    return work, folder / "cache"


@pytest.fixture
def copy(labelled, tmp_path):
    return shutil.copytree(labelled[0], tmp_path / "work")


def test_candidates_and_sources_are_labelled(labelled, finished, places):
    work, _ = labelled
    found, sources = candidates(work), read(work, "sources")
    for table in (found, sources):
        first, second = (table[table["source"] == name] for *_, name in places)
        assert set(first["skybot_status"]) == set(second["vsx_status"]) == set(second["gaia_status"]) == {"matched"}
        assert set(first["skybot_name"]) == {"(1) Ceres (MB)"}
        np.testing.assert_allclose(first["skybot_distance"], 2.0, atol=0.3)
        assert (np.asarray(second["vsx_distance"]) < 0.3).all()
        assert set(table["simbad_status"]) == set(table["tns_status"]) == {"none"}
        assert set(table["ps1_status"]) == {"not asked"}
    assert digests(work / "results", "images") == digests(finished / "results", "images")
    assert len(sources) == len(read(finished, "sources"))
    text = page(work)
    assert re.search(r"asteroid \(1\) Ceres \(MB\), V 7.6 at (1.[789]|2.[012])″", text)
    assert "VSX V1 Eri (RRAB), max 12.5 at" in text


def test_nobody_is_asked_by_default(finished):
    found = candidates(finished)
    assert {status for name in known.SERVICES for status in found[f"{name}_status"]} == {"not asked"}
    assert not (finished / "results" / "campaign" / "known.ecsv").exists()


def test_a_second_run_asks_nothing_and_does_nothing(copy, server):
    server.requests.clear()
    run = snakemake(copy)
    assert (run.code, run.jobs) == (0, set())
    assert not server.requests


def test_known_objects_can_be_set_aside(copy, labelled, server, places):
    configure(copy, server, labelled[1], set_aside=["asteroid"])
    server.requests.clear()
    run = snakemake(copy)
    assert run.code == 0, run.text
    assert not server.requests, "the cache has it"
    found, before = candidates(copy), candidates(labelled[0])
    assert len(found) == len(before)
    aside = ~np.asarray(found["is_real"], bool)
    assert 0 < aside.sum() == (before["source"] == places[0][2]).sum()
    assert all(text.startswith("known asteroid: (1) Ceres (MB) ") for text in found["reasons"][aside])
    assert set(found["source"][aside]) == {""}
    for name in ("sources", "lightcurves"):
        assert places[0][2] not in set(read(copy, name)["source"])
        assert places[1][2] in set(read(copy, name)["source"])
    assert f"{aside.sum()} set aside as known objects" in run.text
    assert "<td>known asteroid</td>" in page(copy)


def test_a_dead_service_costs_no_candidate_and_is_asked_again(campaign, server, tmp_path, places):
    configure(campaign, server, tmp_path / "cache")
    before = digests(campaign / "results", "images")
    with server.failing("HTTP 503", spares=lambda request: "viz-bin" not in request.path):
        run = snakemake(campaign)
    assert run.code != 0
    assert "fetch_known: VSX: vizier at" in run.text
    assert "HTTP 503" in run.text
    found = candidates(campaign)
    assert f"known objects: vsx failed for {len(found)} candidates; the next run asks again" in run.text
    assert set(found["vsx_status"]) == {"failed"}
    assert set(found["skybot_status"][found["source"] == places[0][2]]) == {"matched"}
    assert "VSX: failed" in page(campaign)
    assert digests(campaign / "results", "images") == before
    server.requests.clear()
    run = snakemake(campaign)
    assert run.code == 0, run.text
    assert {request.path for request in server.requests} == {"/viz-bin/votable"}
    assert set(candidates(campaign)["vsx_status"]) == {"matched", "none"}
    assert not (campaign / "results" / "campaign" / "known_partial.ecsv").exists()
    server.requests.clear()
    assert snakemake(campaign).jobs == set()
    assert not server.requests


def test_offline(copy, labelled, server, tmp_path):
    server.requests.clear()
    run = snakemake(copy, "--forcerun", "fetch_known", "--config", "offline=true")
    assert run.code == 0, run.text
    assert set(candidates(copy)["vsx_status"]) == {"matched", "none"}
    configure(copy, server, tmp_path / "empty")
    run = snakemake(copy, "--forcerun", "fetch_known", "--config", "offline=true")
    assert run.code != 0
    assert "is not in the cache" in run.text
    assert {status for name in SERVICES for status in candidates(copy)[f"{name}_status"]} == {"not asked"}
    assert not server.requests
