"""The configuration's instruments: which match, what wins, and what the stage makes of it."""

import json

import numpy as np
import pytest
from astropy.io import fits
from workflows import script

from nightsift.errors import CampaignError
from nightsift.header import instruments
from nightsift.header.instruments import given, settings
from nightsift.workflow.campaign import checked

HEADER = fits.Header(
    [
        *(("TELESCOP", "C14 "), ("INSTRUME", "ZWO ASI1600MM"), ("XBINNING", 2), ("GAIN", "139"), ("COOLED", True)),
        *(("FILTER", "Red"), ("MYTIME", "2015-06-09T02:00:30"), ("SHUTTER", 12.0), ("HIERARCH ESO INS MODE", "IMG")),
    ]
)


def settled(block, header):
    return settings(given(block, header), header)


@pytest.mark.parametrize(
    ("wanted", "agrees"),
    [
        ({"TELESCOP": "C14"}, True),
        ({"TELESCOP": "c14"}, True),
        ({"TELESCOP": "C1"}, False),
        ({"TELESCOP": "C*", "INSTRUME": "*ASI?600*"}, True),
        ({"TELESCOP": "C*", "INSTRUME": "*QHY*"}, False),
        ({"XBINNING": 2}, True),
        ({"XBINNING": 2.0}, True),
        ({"XBINNING": "2"}, True),
        ({"XBINNING": 1}, False),
        ({"GAIN": 139}, True),
        ({"COOLED": True}, True),
        ({"COOLED": False}, False),
        ({"XBINNING": True}, False),
        ({"ESO INS MODE": "img"}, True),
        ({"ABSENT": "*"}, False),
    ],
)
def test_matching(wanted, agrees):
    assert instruments.matches(wanted, HEADER) is agrees


def test_the_first_that_gives_something_wins():
    block = [
        {"match": {"XBINNING": 1}, "gain": 9.0},
        {"match": {"XBINNING": 2}, "gain": 1.0, "filter": {"Red": "R"}},
        {"match": {"TELESCOP": "C14"}, "gain": 2.0, "readnoise": 3.5, "filter": {"Red": "none", "Green": "V"}},
    ]
    known, warnings = settled(block, HEADER)
    assert known == {"gain": 1.0, "readnoise": 3.5, "filter": "R"}
    assert not warnings
    green = HEADER.copy()
    green["FILTER"] = "Green"
    assert settled(block, green)[0]["filter"] == "V"


def test_cards_that_an_instrument_names():
    entry = {"match": {"TELESCOP": "C14"}, "time": "MYTIME", "time_is": "middle", "exptime": "SHUTTER"}
    known, _ = settled([entry], HEADER)
    assert known == {"time": "2015-06-09T02:00:30", "time_is": "middle", "exptime": 12.0}
    known, warnings = settled([entry | {"time": "GONE", "exptime": "TELESCOP"}], HEADER)
    assert known == {}
    assert "GONE" in " ".join(warnings)
    assert "TELESCOP holds no exposure" in " ".join(warnings)
    assert settled([], HEADER) == ({}, [])


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"match": {"A": 1}, "gian": 1.0}, ["'instruments.0.gian'", "'instruments.0.gain'"]),
        ({"match": {"A": 1}, "gain": 0}, ["instruments.0.gain", "0"]),
        ({"match": {"A": 1}, "gain": "high"}, ["instruments.0.gain", "'high'"]),
        ({"match": {"A": 1}, "filter": {"Red": "RR"}}, ["instruments.0.filter.Red", "'RR'", "'R'"]),
        ({"match": {"A": 1}, "time_is": "begin"}, ["instruments.0.time_is", "'begin'"]),
        ({"match": {"A": 1}, "hdu": 1.5}, ["instruments.0.hdu", "1.5"]),
        ({"match": {}}, ["instruments.0.match"]),
        ({"match": {"A": [1, 2]}}, ["instruments.0.match.A"]),
        ({"gain": 1.0}, ["instruments.0", "'match'"]),
    ],
)
def test_wrong_entries_are_named(entry, words):
    with pytest.raises(CampaignError) as error:
        checked({"images": "a.tsv", "instruments": [entry]})
    assert [word for word in words if word not in str(error.value)] == []


def test_entries_that_hold():
    entry = {"match": {"A": "b*", "C": 2, "D": True}, "gain": 1.5, "filter": {"Red": "R", "X": "none"}, "hdu": 0}
    assert checked({"images": "a.tsv", "instruments": [entry]})["instruments"] == [entry]
    assert checked({"images": "a.tsv"})["instruments"] == []


@pytest.fixture
def stage(tmp_path):
    """Run the stage on a file of two images, and return what it found."""
    sky = np.random.default_rng(1).normal(500.0, 20.0, (2, 100, 100)).astype(np.float32)
    header = HEADER.copy()
    header["EXPTIME"], header["DATE-OBS"], header["GAIN"] = 60.0, "2015-06-09T02:00:00", 2.5
    hdus = [fits.PrimaryHDU(header=header), fits.ImageHDU(sky[0], name="SCI"), fits.ImageHDU(sky[1], name="RAW")]
    fits.HDUList(hdus).writeto(tmp_path / "a.fits")
    main = script("inspect").main

    def run(**extra):
        given = ["--extra", json.dumps(extra), "--params", json.dumps({"gain": 0.5} if extra.get("campaign") else {})]
        files = ["--exposure", tmp_path / "a.fits", "--state", tmp_path / "a.json", "--mask", tmp_path / "m.fits"]
        assert main(["--name", "a", *given, *map(str, files)]) == 0
        return json.loads((tmp_path / "a.json").read_text())

    return run


def test_the_sheet_wins_over_instruments_and_these_over_the_header(stage):
    entry = {"match": {"TELESCOP": "C14"}, "gain": 1.1, "saturation": 4e4, "filter": {"Red": "R"}, "readnoise": 3.0}
    entry |= {"time": "MYTIME", "time_is": "middle", "exptime": 30, "pixscale": 1.2, "hdu": 2}
    plain = stage()
    assert (plain["hdu"], plain["filter"], plain["exptime"], plain["hinted"]) == (1, None, 60.0, [])
    assert plain["mjd"] == pytest.approx(57182 + 7230 / 86400)
    found = stage(instruments=[entry])
    assert (found["gain"], found["saturation"], found["readnoise"], found["hdu"]) == (1.1, 4e4, 3.0, 2)
    assert (found["filter"], found["exptime"], found["pixscale"], found["hinted"]) == ("R", 30.0, 1.2, ["pixscale"])
    assert found["mjd"] == pytest.approx(57182 + 7230 / 86400)
    sheet = stage(instruments=[entry], gain=1.7, filter="V", exptime=20.0, time="2015-06-09T03:00:00", pixscale=0.9)
    assert (sheet["gain"], sheet["filter"], sheet["exptime"], sheet["pixscale"]) == (1.7, "V", 20.0, 0.9)
    assert sheet["mjd"] == pytest.approx(57182 + (3 * 3600 + 10) / 86400)
    other = stage(instruments=[entry | {"match": {"TELESCOP": "C11"}}])
    assert {key: other[key] for key in ("gain", "hdu", "filter")} == {
        key: plain[key] for key in ("gain", "hdu", "filter")
    }
    assert stage(instruments=[entry], campaign=True)["gain"] == 1.1
