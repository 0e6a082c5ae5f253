"""A small campaign that has run, and the command that runs one."""

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PRODUCTS = (".fits", ".json", ".ecsv", ".html", ".png")


@dataclass(frozen=True)
class Run:
    """What a run of the workflow left behind: exit code, what it said, its jobs as (rule, image)."""

    code: int
    text: str

    @property
    def jobs(self):
        blocks = re.findall(r"^( *)(?:local)?rule (\w+):\n((?:\1    .*\n)*)", self.text, re.MULTILINE)
        image = (re.search(r"wildcards: image=(\S+)", block) for *_, block in blocks)
        return {(rule, found and found[1]) for (_, rule, _), found in zip(blocks, image, strict=True)}

    @property
    def rules(self):
        return {rule for rule, _ in self.jobs} - {"all"}


def script(name):
    """Return a script of the workflow as a module of its own."""
    specification = importlib.util.spec_from_file_location(f"{name}_script", ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def command(work, *arguments, config=None):
    return [
        *(sys.executable, "-m", "snakemake", "--cores", "2", "--configfile", str(config or work / "config.yaml")),
        *("--directory", str(work), *arguments),
    ]


def snakemake(work, *arguments, root=ROOT, config=None, prefix=(), **environment):
    """Run a campaign as a user does; its configuration is by default in its folder."""
    done = subprocess.run(
        [*prefix, *command(work, *arguments, config=config)],
        cwd=root,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return Run(done.returncode, done.stdout)


def digests(results, *folders):
    """Return the digest of every product below folders of the results, by its path."""
    paths = sorted(path for folder in folders or (".",) for path in (results / folder).rglob("*"))
    products = [path for path in paths if path.suffix in PRODUCTS]
    return {str(path.relative_to(results)): hashlib.sha256(path.read_bytes()).hexdigest() for path in products}


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
