"""Campaigns that ask archives, against a stand-in: their configuration, a run, and what they leave."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from astropy.table import Table
from standin import archive_config
from workflows import snakemake


@dataclass(frozen=True)
class Fetched:
    """A campaign that has run: its folder, its cache, and how often it asked."""

    work: Path
    cache: Path
    asked: int


def configure(work, server, cache, **sections):
    """Write the configuration of a simulated campaign; `sections` take the place of those that read files."""
    config = {
        "images": "images.tsv",
        "results": "results",
        "catalog": {"source": "local", "path": "catalog.fits"},
        "template": {"source": "local", "path": "template.fits"},
        "archive": archive_config(server, cache),
    }
    (work / "config.yaml").write_text(json.dumps(config | sections))


def fetched(simulated, server, folder, **sections):
    """Run a copy of a simulated campaign in a folder, with a cache of its own."""
    work, cache = shutil.copytree(simulated, folder / "work"), folder / "cache"
    configure(work, server, cache, **sections)
    server.requests.clear()
    run = snakemake(work)
    assert run.code == 0, run.text
    return Fetched(work, cache, len(server.requests))


def facts(work, image, name="status"):
    """What a stage, by default the last, says of an image."""
    return json.loads((work / "results" / "images" / image / f"{name}.json").read_text())


def read(work, name="candidates"):
    """A table of the campaign."""
    return Table.read(work / "results" / "campaign" / f"{name}.ecsv")


def copies(inputs, number):
    """Let the sample sheet list the two images over and over, under other names."""
    rows = [f"copy{k}\timages/image0{k % 2 + 1}.fits" for k in range(number)]
    (inputs / "images.tsv").write_text("\n".join(["image\tpath", *rows]) + "\n")
