"""Names of targets become positions in the sample sheet, or it stays as it was."""

import json

import pytest
from services import KEY, Sesame, Thing, Tns, archive_config
from standin import FAULTS, SLOW, StandIn
from workflows import script

from nightsift import parameters
from nightsift.archive.library import Library
from nightsift.archive.resolver import position
from nightsift.errors import Unavailable
from nightsift.workflow.campaign import read_sheet

SCRIPT = script("resolve")
M31 = Thing("M31", 10.684708, 41.26875, "G")
SHEET = """# of tonight
image\tpath\ttarget\tfilter
a\ta.fits\tM31\tr
b\tb.fits\t\tr
c\tc.fits\tAG Peg\t
"""
# What holds no table stays right under what befalls tables.
HARMLESS = {"no end tag", "an empty table", "a table without columns", "says there is more"}


@pytest.fixture(scope="module")
def server():
    star, supernova = Thing("AG Peg", 327.758, 12.6256, "Sy*"), Thing("2024abc", 30.0, -5.0, "SN Ia")
    with StandIn(Sesame(M31, star), Tns(supernova)) as server:
        yield server


def books(standin, cache, offline=False, **more):
    return Library(parameters.ArchiveConfig(**archive_config(standin, cache, **more)), offline)


def run(standin, tmp_path, text, **more):
    sheet, config = tmp_path / "images.tsv", tmp_path / "config.yaml"
    sheet.write_text(text)
    content = {"images": "images.tsv", "archive": archive_config(standin, tmp_path / "cache", **more)}
    config.write_text(json.dumps(content))
    return SCRIPT.main([str(sheet), "--config", str(config)]), sheet


def test_the_sheet_gets_the_positions(standin, tmp_path):
    code, sheet = run(standin, tmp_path, SHEET)
    assert code == 0
    images = read_sheet(sheet)
    assert images["a"].overrides == {"filter": "r", "ra": 10.684708, "dec": 41.26875}
    assert images["b"].overrides == {"filter": "r"}
    assert images["c"].overrides == {"ra": 327.758, "dec": 12.6256}
    assert sheet.read_text().startswith("# of tonight\n")
    count = len(standin.requests)
    text = sheet.read_text()
    assert run(standin, tmp_path, text)[0] == 0
    assert sheet.read_text() == text
    assert run(standin, tmp_path, SHEET)[0] == 0
    assert len(standin.requests) == count == 2


def test_what_is_given_stays(standin, tmp_path):
    code, sheet = run(standin, tmp_path, "image\tpath\ttarget\tra\tdec\na\ta.fits\tM31\t11\t42\n")
    assert code == 0
    assert read_sheet(sheet)["a"].overrides == {"ra": 11.0, "dec": 42.0}
    assert not standin.requests


def test_unknown_names_are_named(standin, tmp_path, capsys):
    code, sheet = run(standin, tmp_path, SHEET.replace("AG Peg", "Nobody's star"))
    assert code == 1
    assert 'nobody knows "Nobody\'s star"' in capsys.readouterr().err
    assert read_sheet(sheet)["a"].overrides["ra"] == 10.684708


def test_transients_by_the_name_server(standin, tmp_path):
    for name in ("SN 2024abc", "AT2024abc", "2024abc"):
        assert position(name, books(standin, tmp_path)) == (30.0, -5.0)
    assert position("SN 2024zzz", books(standin, tmp_path)) is None
    asked = [request.path for request in standin.requests if "/api/get/" in request.path]
    assert len(asked) == 4
    assert position("SN 2024abc", books(standin, tmp_path / "2", tns_key=None)) is None


def test_offline(standin, tmp_path):
    with pytest.raises(Unavailable, match="offline"):
        position("M31", books(standin, tmp_path, offline=True))
    assert not standin.requests
    position("M31", books(standin, tmp_path))
    assert position(" M31 ", books(standin, tmp_path, offline=True)) == (M31.ra, M31.dec)


@pytest.mark.parametrize("fault", FAULTS)
def test_fault(standin, tmp_path, monkeypatch, capsys, fault):
    more = {"timeout": SLOW / 4} if fault == "stalls" else {}
    with standin.failing(fault):
        code, sheet = run(standin, tmp_path, SHEET, **more)
    if fault in HARMLESS:
        assert code == 0
    else:
        assert (code, sheet.read_text()) == (1, SHEET)
        assert "nothing was changed" in capsys.readouterr().err
    monkeypatch.setenv("NIGHTSIFT_WARM_OWNER", "the next run")
    code, sheet = run(standin, tmp_path, SHEET)
    assert code == 0
    assert read_sheet(sheet)["a"].overrides["ra"] == 10.684708


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_of_the_name_server(standin, tmp_path, monkeypatch, fault):
    more = {"timeout": SLOW / 4} if fault == "stalls" else {}
    with standin.failing(fault, spares=lambda request: "nph-sesame" in request.path):
        if fault in HARMLESS:
            assert position("SN 2024abc", books(standin, tmp_path, **more)) == (30.0, -5.0)
        else:
            with pytest.raises(Unavailable):
                position("SN 2024abc", books(standin, tmp_path, **more))
    monkeypatch.setenv("NIGHTSIFT_WARM_OWNER", "the next run")
    assert position("SN 2024abc", books(standin, tmp_path)) == (30.0, -5.0)
    assert KEY not in "".join(str(path) for path in tmp_path.rglob("*"))
