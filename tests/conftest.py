"""A small campaign that has run."""

import shutil
import subprocess
import sys

import pytest
from workflows import ROOT, snakemake


@pytest.fixture(scope="session")
def simulated(tmp_path_factory):
    """The inputs of a campaign of three images, of which the sample sheet lists two."""
    work = tmp_path_factory.mktemp("simulated")
    options = ("--size", "360", "--images", "3", "--stars", "320", "--transients", "8")
    subprocess.run([sys.executable, ROOT / "scripts" / "simulate.py", work, *options], check=True, capture_output=True)
    lines = (work / "images.tsv").read_text().splitlines(keepends=True)
    (work / "images.tsv").write_text("".join(lines[:3]))
    return work


@pytest.fixture(scope="session")
def finished(simulated, tmp_path_factory):
    """A campaign that has run; not to be changed."""
    work = tmp_path_factory.mktemp("finished") / "work"
    shutil.copytree(simulated, work)
    run = snakemake(work)
    assert run.code == 0, run.text
    return work


@pytest.fixture
def campaign(finished, tmp_path):
    """A copy of the campaign that has run."""
    return shutil.copytree(finished, tmp_path / "work")


@pytest.fixture
def inputs(simulated, tmp_path):
    """A copy of the inputs, on which nothing has run."""
    return shutil.copytree(simulated, tmp_path / "work")


@pytest.fixture
def project(tmp_path):
    """A copy of the project, to break."""
    copy = tmp_path / "project"
    copy.mkdir()
    shutil.copy(ROOT / "Snakefile", copy)
    for folder in ("rules", "scripts", "nightsift", "profiles/default", "envs"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


@pytest.fixture
def standin(server):
    """The module's stand-in for archives, as if nothing had been asked yet."""
    server.requests.clear()
    return server


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Put a program of a name on the PATH that does what the given lines of shell say."""

    def put(name, lines):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{lines}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    return put
