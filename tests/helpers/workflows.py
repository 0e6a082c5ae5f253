"""Run the workflow as a user does, and look at what it left."""

import hashlib
import importlib.util
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
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
