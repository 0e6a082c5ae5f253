"""The workflow as a user runs it: what runs again and what does not, kills, bugs, wrong input."""

import os
import shutil
import signal
import subprocess
import time

import pytest
from astropy.table import Table
from workflows import ROOT, command, digests, snakemake

BEFORE_PHOTOMETRY = {"inspect", "detect", "psf", "catalog", "astrometry", "template"}
PER_IMAGE = BEFORE_PHOTOMETRY | {"photometry", "uncatalogued", "subtract", "fakes", "transients", "plots"}
OF_CAMPAIGN = {"sources", "report"}


def wait_for(condition, what, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen in {seconds} s"
        time.sleep(0.01)


def images(work):
    table = Table.read(work / "results" / "campaign" / "images.ecsv")
    return {row["image"]: row for row in table}


def change(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_finished_campaign(finished):
    rows = images(finished)
    assert {name: row["status"] for name, row in rows.items()} == {"image01": "ok", "image02": "ok"}
    assert all(row["zp_err"] < 0.1 and row["n_candidates"] > 0 for row in rows.values())
    logs = "".join(path.read_text() for path in (finished / "results").rglob("*.log"))
    assert "science" in logs
    assert "arning" not in logs


def test_second_run_has_nothing_to_do(campaign):
    before = {path: path.stat().st_mtime_ns for path in (campaign / "results").rglob("*")}
    run = snakemake(campaign)
    assert run.code == 0
    assert run.jobs == set()
    assert {path: path.stat().st_mtime_ns for path in (campaign / "results").rglob("*")} == before
    assert "2 images: 2 ok, 0 degraded, 0 rejected, 0 error" in run.text.splitlines()[-2]


def test_an_added_image_runs_alone(campaign):
    before = digests(campaign / "results", "images/image01", "images/image02")
    with open(campaign / "images.tsv", "a") as sheet:
        sheet.write("image03\timages/image03.fits\n")
    run = snakemake(campaign)
    assert run.code == 0, run.text
    assert {job for job in run.jobs if job[1]} == {(rule, "image03") for rule in PER_IMAGE}
    assert run.rules - PER_IMAGE == OF_CAMPAIGN
    assert set(images(campaign)) == {"image01", "image02", "image03"}
    assert digests(campaign / "results", "images/image01", "images/image02") == before


def test_a_removed_image_leaves_the_tables(campaign):
    sheet = campaign / "images.tsv"
    sheet.write_text("".join(line for line in sheet.read_text().splitlines(keepends=True) if "image02" not in line))
    run = snakemake(campaign)
    assert run.code == 0, run.text
    assert run.rules == OF_CAMPAIGN
    assert set(images(campaign)) == {"image01"}
    folder = campaign / "results" / "campaign"
    for name in ("candidates", "lightcurves"):
        assert set(Table.read(folder / f"{name}.ecsv")["image"]) == {"image01"}
    assert "image02" not in (folder / "report.html").read_text()


def test_nothing_before_a_changed_stage_runs(campaign):
    with open(campaign / "config.yaml", "a") as config:
        config.write("photometry:\n  limit_snr: 4\n")
    limits = {name: row["maglim"] for name, row in images(campaign).items()}
    run = snakemake(campaign)
    assert run.code == 0, run.text
    assert run.rules == PER_IMAGE - BEFORE_PHOTOMETRY | OF_CAMPAIGN
    assert all(row["maglim"] > limits[name] + 0.1 for name, row in images(campaign).items())


def test_without_a_template_the_catalogue_tells_what_is_new(campaign):
    before = digests(campaign / "results", "images/image01")["images/image01/uncatalogued.fits"]
    change(campaign / "config.yaml", "source: local\n  path: template.fits", "source: none")
    run = snakemake(campaign)
    assert run.code == 0, run.text
    assert "uncatalogued" not in run.rules
    rows = images(campaign)
    assert all(row["status"] == "ok" and row["n_candidates"] == 0 < row["n_uncatalogued"] for row in rows.values())
    assert "not in the catalogue" in run.text
    assert digests(campaign / "results", "images/image01")["images/image01/uncatalogued.fits"] == before


def test_an_image_with_other_content_runs_again(campaign):
    shutil.copyfile(campaign / "images" / "image03.fits", campaign / "images" / "image02.fits")
    run = snakemake(campaign)
    assert run.code == 0, run.text
    # The catalogue of a field does not need the pixels, but the header that inspect reads.
    assert {job for job in run.jobs if job[1]} == {(rule, "image02") for rule in PER_IMAGE}


def servers(folder):
    return list(folder.glob("nightsift-*"))


@pytest.mark.parametrize(
    ("product", "whole_group"),
    [("image01/detect.json", True), ("image01/difference.fits", False)],
)
def test_killed_and_started_again(inputs, finished, product, whole_group, tmp_path_factory):
    temporary = tmp_path_factory.mktemp("t")
    environment = {**os.environ, "TMPDIR": str(temporary)}
    with open(inputs / "out.txt", "w") as out:
        first = subprocess.Popen(
            command(inputs), cwd=ROOT, env=environment, stdout=out, stderr=out, start_new_session=True
        )
    wait_for(lambda: (inputs / "results" / "images" / product).exists(), product)
    os.kill(first.pid, signal.SIGSTOP)
    assert list((inputs / ".snakemake" / "locks").iterdir())
    second = snakemake(inputs)
    assert second.code != 0, "a run that is alive keeps its lock"
    assert "lock" in second.text
    (os.killpg if whole_group else os.kill)(first.pid, signal.SIGKILL)
    first.wait()
    assert not (inputs / "results" / "campaign" / "sources.ecsv").exists(), "killed too late to show anything"
    assert list((inputs / ".snakemake" / "locks").iterdir())
    wait_for(lambda: not servers(temporary), "the end of the server")
    third = snakemake(inputs)
    assert third.code == 0, third.text
    assert digests(inputs / "results") == digests(finished / "results")
    assert not list((inputs / "results").rglob(".*.part"))


def test_dry_run_leaves_nothing(inputs, tmp_path):
    temporary = tmp_path / "t"
    temporary.mkdir()
    before = {path for path in inputs.rglob("*") if ".snakemake" not in path.parts}
    run = snakemake(inputs, "-n", TMPDIR=str(temporary))
    assert run.code == 0
    assert run.rules == PER_IMAGE | OF_CAMPAIGN
    assert {path for path in inputs.rglob("*") if ".snakemake" not in path.parts} == before
    assert not servers(temporary)
    assert not list((inputs / ".snakemake" / "runs").iterdir())


def test_a_bug_harms_its_image_alone(inputs, finished, project):
    script = project / "scripts" / "detect.py"
    whole = script.read_text()
    bug = '    if job.image == "image02":\n        raise RuntimeError("a bug")\n'
    change(script, "def work(job):\n", "def work(job):\n" + bug)
    run = snakemake(inputs, root=project)
    assert run.code != 0
    rows = images(inputs)
    assert rows["image01"]["status"] == "ok"
    assert tuple(rows["image02"][["status", "stage", "reason"]]) == ("error", "detect", "RuntimeError: a bug")
    log = (inputs / "results" / "images" / "image02" / "logs" / "detect.log").read_text()
    assert "Traceback" in log
    assert "RuntimeError: a bug" in log
    assert set(Table.read(inputs / "results" / "campaign" / "candidates.ecsv")["image"]) == {"image01"}
    assert (inputs / "results" / "campaign" / "report.html").is_file()
    assert "2 images: 1 ok, 0 degraded, 0 rejected, 1 error" in run.text
    assert "image02: error in detect: RuntimeError: a bug" in run.text.splitlines()[-3]
    assert "the same command does the rest" in run.text.splitlines()[-1]

    script.write_text(whole)
    run = snakemake(inputs, root=project)
    assert run.code == 0, run.text
    assert ("detect", "image02") in run.jobs
    assert ("inspect", "image02") not in run.jobs
    assert digests(inputs / "results") == digests(finished / "results")


def test_an_old_status_is_not_taken_for_that_of_a_job_that_died(campaign, project):
    script = project / "scripts" / "detect.py"
    bug = '    if job.image == "image02":\n        import os\n\n        os.kill(os.getpid(), 9)\n'
    change(script, "def work(job):\n", "def work(job):\n" + bug)
    run = snakemake(campaign, root=project)
    assert run.code != 0
    assert tuple(images(campaign)["image02"][["status", "stage"]]) == ("error", "detect")
    assert set(Table.read(campaign / "results" / "campaign" / "candidates.ecsv")["image"]) == {"image01"}


def test_comments_and_layout_run_nothing_again(campaign, project):
    change(project / "nightsift" / "detect" / "detect.py", "def detect(", "# a comment\n\n\ndef detect(")
    run = snakemake(campaign, root=project)
    assert run.code == 0
    assert run.jobs == set()


WRONG = {
    "a key": ("config.yaml", "catalog:\n", "catalogue:\n", ["'catalogue'", "'catalog'"]),
    "a key of a section": (
        "config.yaml",
        "catalog:\n",
        "photometry:\n  limit_snrs: 4\ncatalog:\n",
        ["'photometry.limit_snrs'", "'photometry.limit_snr'"],
    ),
    "a value": ("config.yaml", "source: local", "source: locale", ["catalog.source", "'locale'", "'local'"]),
    "no file": ("images.tsv", "images/image02", "images/image09", ["image02", "images/image09.fits", "not exist"]),
    "a name twice": ("images.tsv", "image02\t", "image01\t", ["'image01'", "row 3", "twice"]),
    "a column": ("images.tsv", "image\tpath", "image\tpaths", ["'paths'", "'path'"]),
    "no catalogue": ("config.yaml", "catalog.fits", "catalogue.fits", ["catalog.path", "'catalogue.fits'"]),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_input_is_refused_at_once(inputs, what):
    name, old, new, words = WRONG[what]
    change(inputs / name, old, new)
    run = snakemake(inputs)
    assert run.code != 0
    said = run.text.splitlines()
    sentence = next(line for line in said if words[0] in line)
    assert all(word in sentence for word in words)
    assert "Traceback" not in run.text
    assert run.jobs == set()
    assert not (inputs / "results").exists()
