"""The workflow on Slurm: one job for an image's stages, and the same products as on this machine."""

import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from nightsift.workflow import warm

TOP = Path(__file__).parents[2]
N_IMAGES = 3
PER_JOB = 2


def answers(*command):
    """Return whether a program is there and content."""
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0


pytestmark = pytest.mark.skipif(
    not (shutil.which("sbatch") and answers("sinfo", "--noheader")), reason="Slurm does not answer (sbatch, sinfo)"
)


def snakemake(folder, *options):
    """Run the workflow in a folder and return what it printed."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", TOP / "Snakefile", "--directory", folder]
    command += ["--configfile", folder / "config.yaml", *options]
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=False, timeout=900)
    printed = done.stdout + done.stderr
    assert done.returncode == 0, printed[-5000:]
    return printed


def status_command():
    """Return the options for a Slurm that keeps no accounts."""
    accounts = subprocess.run(["sacct", "--noheader"], capture_output=True, check=False).returncode == 0
    return () if accounts else ("--slurm-status-command", "squeue")


@pytest.fixture(scope="module")
def campaigns(tmp_path_factory):
    """The same campaign processed here and by Slurm, and what Snakemake printed of the latter."""
    top = tmp_path_factory.mktemp("slurm")
    here, there = top / "here", top / "there"
    simulate = [sys.executable, TOP / "scripts" / "simulate.py", here, "--size", "350", "--images", str(N_IMAGES)]
    subprocess.run(simulate, check=True, capture_output=True)
    shutil.copytree(here, there)
    snakemake(here, "--cores", "2")
    slurm = ("--workflow-profile", TOP / "profiles" / "slurm", "--group-components", f"image={PER_JOB}", "--cores", "2")
    # A node sees the test's folder only where that is shared; a Slurm of one node always does.
    return here, there, snakemake(there, *slurm, *status_command())


def test_stages_of_an_image_are_one_slurm_job(campaigns):
    jobs = re.findall(r"submitted with SLURM jobid (\d+) \(log: \S*/(group|rule)_(\w+?)[_/]", campaigns[2])
    names = sorted(f"{kind} {name}" for _, kind, name in jobs)
    assert names == ["group image"] * -(-N_IMAGES // PER_JOB) + ["rule report", "rule sources"]


def test_products_are_those_of_a_local_run(campaigns):
    here, there = (folder / "results" for folder in campaigns[:2])
    names = sorted(path.relative_to(here) for path in here.rglob("*.*") if path.suffix in (".fits", ".ecsv", ".json"))
    assert {f"campaign/{name}.ecsv" for name in ("images", "candidates", "sources", "lightcurves")} <= set(
        map(str, names)
    )
    assert sum(name.name == "objects.fits" for name in names) == N_IMAGES
    assert [str(name) for name in names if (here / name).read_bytes() != (there / name).read_bytes()] == []
    statuses = [json.loads(path.read_text())["status"] for path in there.glob("images/*/status.json")]
    assert statuses == ["ok"] * N_IMAGES


def test_no_process_stays_behind(campaigns):
    def servers():
        return [
            folder for folder in Path(tempfile.gettempdir()).glob(f"{warm.PREFIX}*") if _serves(folder, campaigns[1])
        ]

    deadline = time.monotonic() + 10
    while servers() and time.monotonic() < deadline:
        time.sleep(0.5)
    assert servers() == []


def _serves(folder, campaign):
    """Return whether a server's owner works on the campaign; of one that has ended nobody knows."""
    try:
        return str(campaign) in Path(f"/proc/{warm.owner(folder)}/cmdline").read_text()
    except OSError:
        return (folder / "socket").exists()
