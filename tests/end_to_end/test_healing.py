"""What is damaged, deleted or left undone is made again by the same command; what cannot be read costs its image."""

import json
import os
import shutil

import pytest
from damage import MEMORY, empty, garbage, half
from workflows import digests, script, snakemake

CONTRACT = ("mask.fits", "objects.fits", "photometry.json", "difference.fits", "candidates.fits", "candidates_all.fits")
DAMAGED = {
    "images/image01/difference.fits": half,
    "images/image01/plots/zeropoint.png": empty,
    "images/image02/candidates.fits": garbage,
    "images/image02/status.json": half,
    "campaign/lightcurves.ecsv": half,
    "campaign/report.html": garbage,
}


def status(work, image):
    return json.loads((work / "results" / "images" / image / "status.json").read_text())


def assert_whole(work, finished):
    assert digests(work / "results") == digests(finished / "results")
    again = snakemake(work)
    assert again.code == 0, again.text
    assert again.jobs == set()


def test_what_was_deleted_is_made_again(campaign, finished):
    """None of these is asked for by a later stage that has something to do."""
    for name in CONTRACT:
        (campaign / "results" / "images" / "image01" / name).unlink()
    (campaign / "results" / "images" / "image02" / "plots" / "limit.png").unlink()
    run = snakemake(campaign)
    assert run.code == 0, run.text
    assert_whole(campaign, finished)


def test_what_is_damaged_is_made_again(campaign, finished):
    for name, damage in DAMAGED.items():
        damage(campaign / "results" / name)
    damaged = digests(campaign / "results")
    dry = snakemake(campaign, "-n")
    assert dry.code == 0, dry.text
    assert {("subtract", "image01"), ("plots", "image01"), ("transients", "image02"), ("report", None)} <= dry.jobs
    assert digests(campaign / "results") == damaged
    run = snakemake(campaign)
    assert run.code == 0, run.text
    assert all(f"results/{name} " in run.text for name in DAMAGED)
    assert ("detect", "image01") not in run.jobs
    assert_whole(campaign, finished)


def test_what_is_whole_is_left_alone(campaign):
    results = campaign / "results"
    paths = sorted(path for path in results.rglob("*") if path.is_file())
    (results / "images" / "image01" / "notes.fits").touch()
    (results / "images" / "image01" / "plots" / "limit.png").chmod(0o444)
    before = {path: path.stat().st_mtime_ns for path in paths}
    run = snakemake(campaign, "tables")
    assert run.code == 0, run.text
    assert run.jobs == set()
    assert {path: path.stat().st_mtime_ns for path in paths} == before


def test_tables_are_not_done_while_an_image_is_in_error(inputs, finished, project):
    """The stage that fails is one that the image's status does not wait for."""
    path = project / "scripts" / "uncatalogued.py"
    text = path.read_text()
    bug = '    if job.image == "image02":\n        raise RuntimeError("a bug")\n'
    path.write_text(text.replace("def work(job):\n", "def work(job):\n" + bug))
    run = snakemake(inputs, root=project)
    assert run.code != 0
    assert "image02: error" in run.text
    run = snakemake(inputs, "tables", root=project)
    assert run.code != 0
    assert ("uncatalogued", "image02") in run.jobs
    path.write_text(text)
    run = snakemake(inputs, "tables", root=project)
    assert run.code == 0, run.text
    assert "2 images: 2 ok" in run.text
    assert status(inputs, "image02") == status(finished, "image02")
    assert "Nothing to be done" in snakemake(inputs, "tables", root=project).text


@pytest.mark.skipif(not os.path.exists(MEMORY), reason=f"no {MEMORY} here")
def test_an_input_that_cannot_be_read_costs_its_image(inputs, finished):
    os.symlink(MEMORY, inputs / "images" / "broken.fits")
    with open(inputs / "images.tsv", "a") as sheet:
        sheet.write("broken\timages/broken.fits\n")
    run = snakemake(inputs)
    assert run.code != 0
    assert "3 images: 2 ok, 0 degraded, 0 rejected, 1 error" in run.text
    assert "broken: error in inspect: images/broken.fits cannot be read (Input/output error)" in run.text
    assert "Traceback" not in run.text
    for name in ("image01", "image02"):
        assert digests(inputs / "results", f"images/{name}") == digests(finished / "results", f"images/{name}")
    # The disk is well again.
    (inputs / "images" / "broken.fits").unlink()
    shutil.copy(inputs / "images" / "image01.fits", inputs / "images" / "broken.fits")
    run = snakemake(inputs)
    assert run.code == 0, run.text
    assert status(inputs, "broken")["status"] == "ok"


DROPPED = "-dac_override,-dac_read_search"
AS_USER = ("setpriv", "--bounding-set", DROPPED, "--inh-caps", DROPPED) if os.getuid() == 0 else ()


@pytest.mark.skipif(bool(AS_USER) and not shutil.which("setpriv"), reason="root may read everything; no setpriv here")
def test_permissions(inputs):
    """A small file, of which Snakemake takes a checksum, and which is newer than what was made of it before."""
    (inputs / "images.tsv").write_text("image\tpath\nimage01\timages/image01.fits\nimage02\timages/image02.fits\n")
    first = snakemake(inputs, "tables")
    assert first.code == 0, first.text
    exposure, product = inputs / "images" / "image02.fits", inputs / "results" / "images" / "image01" / "mask.fits"
    for path in (exposure, product):
        os.utime(path)
        path.chmod(0)
    before = product.stat().st_mtime_ns
    run = snakemake(inputs, "tables", prefix=AS_USER)
    assert run.code != 0
    assert "2 images: 1 ok, 0 degraded, 0 rejected, 1 error" in run.text, run.text
    assert "image02: error in inspect: images/image02.fits cannot be read (Permission denied)" in run.text
    assert product.stat().st_mtime_ns == before
    exposure.chmod(0o644)
    run = snakemake(inputs, "tables", prefix=AS_USER)
    assert run.code == 0, run.text
    assert "2 images: 2 ok" in run.text


@pytest.mark.skipif(not os.path.exists(MEMORY), reason=f"no {MEMORY} here")
@pytest.mark.parametrize("name", ["candidates.fits", "difference.fits", "photometry.json"])
def test_a_product_that_a_disk_has_lost_costs_its_image(campaign, name, capsys):
    """Neither its size nor its time tells."""
    results = campaign / "results"
    path = results / "images" / "image02" / name
    path.unlink()
    path.symlink_to(MEMORY)
    arguments = ["--results", str(results), "--images", str(results / "campaign" / "images.list")]
    assert script("sources").main(arguments) == 1
    assert f"image02/{name} cannot be read (Input/output error)" in capsys.readouterr().err
    assert script("report").main(arguments) == 0
    assert "image02" in (results / "campaign" / "images.ecsv").read_text()
    run = snakemake(campaign)
    assert run.code == 0, run.text
    assert "2 images: 2 ok" in run.text
    assert not path.is_symlink()
