"""What surrounds the code: the version, and what `make lint` holds modules to."""

import shutil
import subprocess
import sys
import tomllib

import pytest
from conftest import ROOT

import nightsift
from nightsift.io.products import Provenance

BUILT_BY = ("pyproject.toml", "requirements.lock", ".gitattributes", ".git_archival.txt")


def git(folder, *arguments):
    who = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True).stdout


def version(folder):
    """Return the version that a package built in this folder would have."""
    pytest.importorskip("setuptools_scm")
    command = [sys.executable, "-W", "ignore", "-m", "setuptools_scm"]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path):
    """Return a repository of one commit that is built as this one is."""
    if not shutil.which("git"):
        pytest.skip("git is not installed")
    folder = tmp_path / "repository"
    folder.mkdir()
    for name in BUILT_BY:
        shutil.copy(ROOT / name, folder)
    git(folder, "init", "--quiet")
    git(folder, "add", "--all", "--force")
    git(folder, "commit", "--quiet", "-m", "First")
    return folder


def archive(repository, folder):
    folder.mkdir()
    subprocess.run(["tar", "-x"], cwd=folder, check=True, input=git(repository, "archive", "HEAD"))
    return folder


def test_a_release_has_the_version_of_its_tag(repository, tmp_path):
    git(repository, "tag", "v3.2.1")
    assert version(repository) == "3.2.1"
    assert version(archive(repository, tmp_path / "archive")) == "3.2.1"


def test_commits_after_a_release_are_told_from_it(repository, tmp_path):
    git(repository, "tag", "v3.2.1")
    git(repository, "commit", "--quiet", "--allow-empty", "-m", "Second")
    commit = git(repository, "rev-parse", "--short=7", "HEAD").decode().strip()
    assert version(repository).startswith(f"3.2.2.dev1+g{commit}")
    assert version(archive(repository, tmp_path / "archive")).startswith("3.2.2.dev1")


def test_there_is_a_version_without_tags_history_or_git(repository, tmp_path):
    assert version(repository).startswith("0.1.dev1+g")
    git(repository, "commit", "--quiet", "--allow-empty", "-m", "Second")
    shallow = tmp_path / "shallow"
    git(tmp_path, "clone", "--quiet", "--depth", "1", repository.as_uri(), shallow)
    assert version(shallow).startswith("0.1.dev1+g")
    assert version(archive(repository, tmp_path / "archive"))
    shutil.rmtree(shallow / ".git")
    assert version(shallow)


def test_products_name_the_installed_version():
    assert nightsift.__version__[0].isdigit()
    provenance = Provenance("detect", "abc", {})
    assert provenance.as_dict()["version"] == nightsift.__version__
    assert ("NSVERS", nightsift.__version__, "nightsift version") in provenance.cards()


@pytest.mark.parametrize(
    ("docstring", "fault"),
    [
        ("Return a number\n", "SS03"),
        ("Return a number.\n\n    Parameters\n    ----------\n    size : int\n        Of it.\n    ", "PR02"),
    ],
)
def test_wrong_docstrings_are_refused(tmp_path, docstring, fault):
    pytest.importorskip("numpydoc")
    module = tmp_path / "module.py"
    module.write_text(f'"""A module."""\n\n\ndef number(value: int) -> int:\n    """{docstring}"""\n    return value\n')
    command = [sys.executable, "-m", "numpydoc", "lint", "--config", str(ROOT), str(module)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert fault in done.stdout + done.stderr


def test_modules_that_are_checked_exist():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mypy"]["modules"]
    assert [name for name in listed if not (ROOT / (name.replace(".", "/") + ".py")).is_file()] == []
