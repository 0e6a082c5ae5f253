"""A campaign whose template comes from an archive, against a stand-in: what is asked, what is found, what waits."""

import shutil

import archived
import numpy as np
import pytest
from archived import configure, copies, facts, read
from astropy.table import Table
from skyimages import Images, of_file
from standin import StandIn
from workflows import snakemake

SOURCES = {"ps1": {"source": "ps1"}, "legacy": {"source": "legacy"}, "hips": {"source": "hips"}}
IMAGES = ("image01", "image02")


@pytest.fixture(scope="module")
def server(simulated):
    with StandIn(Images(of_file(simulated / "template.fits"))) as server:
        yield server


@pytest.fixture(scope="module")
def fetched(simulated, server, tmp_path_factory):
    """A campaign that has run on skycells of the stand-in; not to be changed."""
    return archived.fetched(simulated, server, tmp_path_factory.mktemp("fetched"), template=SOURCES["ps1"])


def assert_same_candidates(ours, theirs):
    assert len(ours) == len(theirs) > 10
    for image in IMAGES:
        mine, other = ours[ours["image"] == image], theirs[theirs["image"] == image]
        distance = np.hypot(mine["x"][:, None] - other["x"], mine["y"][:, None] - other["y"])
        pairs = distance.argmin(axis=1)
        assert sorted(pairs) == list(range(len(other)))
        assert distance.min(axis=1).max() < 0.3
        ratio = np.asarray(mine["snr"] / other["snr"][pairs])
        assert np.median(ratio) == pytest.approx(1, abs=0.03)
        assert np.abs(ratio - 1).max() < 0.12
        np.testing.assert_array_equal(mine["is_real"], other["is_real"][pairs])


def test_skycells_give_the_same_candidates_as_a_file(fetched, finished):
    assert_same_candidates(read(fetched.work), read(finished))
    assert facts(fetched.work, "image01", "fetch_template")["band"] == "r"


@pytest.mark.parametrize("name", ["legacy", "hips"])
def test_others_give_the_same_candidates_as_a_file(inputs, server, finished, tmp_path, name):
    configure(inputs, server, tmp_path / "cache", template=SOURCES[name])
    run = snakemake(inputs)
    assert run.code == 0, run.text
    assert [facts(inputs, image)["status"] for image in IMAGES] == ["ok", "ok"]
    assert_same_candidates(read(inputs), read(finished))


def test_images_of_one_field_ask_once(fetched):
    pieces = {name for image in IMAGES for name in facts(fetched.work, image, "fetch_template")["pieces"]}
    assert fetched.asked == 3 * len(pieces) > 3
    assert not list((fetched.work / "results").rglob("fetched_template.fits")), "the cache has what it is made of"


def test_a_second_run_asks_for_nothing_and_does_nothing(fetched, server, tmp_path):
    work = shutil.copytree(fetched.work, tmp_path / "work")
    server.requests.clear()
    run = snakemake(work)
    assert (run.code, run.jobs) == (0, set()), run.text
    run = snakemake(work, "--forcerun", "template", "--until", "template", "--config", "offline=true")
    assert run.code == 0, run.text
    assert ("fetch_template", "image01") in run.jobs
    assert not server.requests
    names = [root / "results" / "images" / "image01" / "template.fits" for root in (work, fetched.work)]
    assert names[0].read_bytes() == names[1].read_bytes()


def test_fifty_images_of_one_field(inputs, server, tmp_path):
    copies(inputs, 50)
    configure(inputs, server, tmp_path / "cache", template=SOURCES["ps1"])
    server.requests.clear()
    run = snakemake(inputs, "--until", "fetch_template")
    assert run.code == 0, run.text
    assert len(run.jobs) == 50
    paths = [request.path for request in server.requests]
    assert len(paths) == len(set(paths)) == 3 * len(facts(inputs, "copy0", "fetch_template")["pieces"])


def test_a_dead_service_lets_its_images_wait_and_the_next_run_asks_again(inputs, server, tmp_path):
    # An image with a template of its own needs no service.
    (inputs / "images.tsv").write_text(
        "image\tpath\ttemplate\nimage01\timages/image01.fits\ttemplate.fits\nimage02\timages/image02.fits\t\n"
    )
    configure(inputs, server, tmp_path / "cache", template=SOURCES["ps1"])
    with server.failing("HTTP 503"):
        run = snakemake(inputs)
    assert run.code != 0
    assert facts(inputs, "image01")["status"] == "ok"
    state = facts(inputs, "image02")
    assert (state["status"], state["stage"]) == ("error", "fetch_template")
    assert "HTTP 503" in state["reason"]
    assert state["reason"] in run.text
    assert "Traceback" not in run.text
    assert set(read(inputs)["image"]) == {"image01"}
    run = snakemake(inputs)
    assert run.code == 0, run.text
    assert not {("detect", "image02"), ("template", "image01"), ("fetch_template", "image01")} & run.jobs
    assert facts(inputs, "image02")["status"] == "ok"
    assert set(read(inputs)["image"]) == set(IMAGES)


def test_outside_a_survey_images_are_calibrated_all_the_same(inputs, simulated, tmp_path):
    with StandIn(Images(of_file(simulated / "template.fits"), bands=("g",))) as server:
        configure(inputs, server, tmp_path / "cache", template=SOURCES["ps1"])
        run = snakemake(inputs)
    assert run.code == 0, run.text
    state = facts(inputs, "image01")
    assert (state["status"], state["stage"]) == ("degraded", "fetch_template")
    assert state["reason"] == "Pan-STARRS has no image of this field in r"
    assert len(Table.read(inputs / "results" / "images" / "image01" / "objects.fits")) > 50
    assert (inputs / "results" / "campaign" / "report.html").is_file()


def test_a_source_that_is_not_known_is_refused_by_name(inputs, server, tmp_path):
    configure(inputs, server, tmp_path / "cache", template={"source": "campaign"})
    run = snakemake(inputs)
    assert run.code != 0
    assert "template.source: 'campaign' is not known" in run.text
