"""What a user installs with conda, with pip, or with make is the same, and the stages run in it."""

import re
import tomllib

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from workflows import ROOT

# By the name on the Python package index, that of conda-forge or bioconda.
ON_CONDA = {"matplotlib": "matplotlib-base", "snakemake": "snakemake-minimal"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ENVIRONMENT = yaml.safe_load((ROOT / "envs" / "nightsift.yaml").read_text())


def wanted():
    """The bounds of every package that the project asks for, by its name on conda."""
    found = [Requirement(text) for text in PROJECT["dependencies"]]
    bounds = {ON_CONDA.get(part.name, part.name): str(part.specifier) for part in found}
    return bounds | {"python": PROJECT["requires-python"]}


def test_conda_gets_what_the_project_asks_for():
    offered = dict((*text.split(maxsplit=1), "")[:2] for text in ENVIRONMENT["dependencies"])
    assert offered == wanted()
    assert ENVIRONMENT["name"] == "nightsift"
    # Snakemake is on bioconda, whose packages need those of conda-forge first.
    assert ENVIRONMENT["channels"] == ["conda-forge", "bioconda", "nodefaults"]


def test_what_was_tested_together_is_what_the_project_asks_for():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    pinned = {canonicalize_name(name): version.split(";")[0].strip() for name, version in pinned.items()}
    for requirement in map(Requirement, PROJECT["dependencies"]):
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), requirement


def test_no_rule_claims_an_environment_of_its_own():
    """Stages run in the Python that runs Snakemake: an environment of a rule would be made and not be used."""
    for path in [ROOT / "Snakefile", *(ROOT / "rules").glob("*.smk")]:
        assert not re.search(r"^\s+(conda|container|envmodules):", path.read_text(), re.MULTILINE), path.name


def test_the_readme_tells_how():
    assert "envs/nightsift.yaml" in (ROOT / "README.md").read_text()
