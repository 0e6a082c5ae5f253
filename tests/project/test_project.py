"""What surrounds the code: the version, what `make lint` holds modules to, and what the pages show of the code."""

import re
import runpy
import shutil
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from astropy.io import fits
from starfields import flux_of, gaussians, lattice, observe
from workflows import ROOT

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


@pytest.fixture(scope="module")
def rooms():
    return runpy.run_path(str(ROOT / "docs" / "rooms.py"))


@pytest.fixture
def house(tmp_path):
    """Return a package: a above b above c, all on the ground, and c and d in a circle."""
    modules = {
        "__init__": '"""A package."""',
        "errors": "import math",
        "a/__init__": '"""The top.\n\nIt has more to say."""',
        "a/a": "from house.b.b import one\nfrom house.c import c\nfrom house import errors",
        "b/b": "import house.c.c\nfrom house.errors import Wrong",
        "c/c": "from house.errors import Wrong\n\n\ndef late():\n    import house.d.d",
        "d/d": "if TYPE_CHECKING:\n    from house.a.a import One\nfrom house import c, errors",
    }
    for name, text in modules.items():
        path = tmp_path / "house" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return tmp_path / "house"


def test_rooms_are_those_of_the_imports(rooms, house):
    found = rooms["rooms"](house)
    assert {name: room.imports for name, room in found.items()} == {
        "ground": set(),
        "a": {"b", "c", "ground"},
        "b": {"c", "ground"},
        "c": {"d", "ground"},
        "d": {"c", "ground"},
    }
    assert (found["a"].about, found["a"].modules) == ("The top.", ["a"])
    assert rooms["floors"](found) == [["ground"], ["c", "d"], ["b"], ["a"]]


def test_lines_of_the_picture_leave_out_what_others_imply(rooms, house):
    found = rooms["rooms"](house)
    assert rooms["widely_used"](found) == {"ground", "c"}
    assert rooms["direct"](found) == [("a", "b"), ("c", "d")]
    picture = ET.fromstring(rooms["drawing"](found))
    texts = [item.text for item in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert sorted(texts) == ["a", "b", "c", "d", "ground"]
    assert len(list(picture.iter("{http://www.w3.org/2000/svg}path"))) == 2
    assert "| `a` | The top. | b, c, ground |" in rooms["listing"](found)


def test_the_package_has_the_rooms_that_its_folders_are(rooms):
    found = rooms["rooms"]()
    folders = {path.parent.name for path in (ROOT / "nightsift").glob("*/__init__.py")}
    assert set(found) == folders | {"ground"}
    assert all(found[name].about for name in folders)


def test_the_example_of_the_api_runs(tmp_path, monkeypatch, capsys):
    x, y = lattice(np.random.default_rng(1), (200, 200), 40)
    stars = observe(gaussians((200, 200), x, y, flux_of(80.0, 3.0), 3.0), 2)
    fits.writeto(tmp_path / "image.fits", stars, fits.Header({"EXPTIME": 60.0, "GAIN": 1.5}))
    monkeypatch.chdir(tmp_path)
    example = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.DOTALL)[1]
    space = {}
    exec(example, space)
    found = space["found"].objects
    assert np.all(np.min(np.hypot(x[:, None] - found["x"], y[:, None] - found["y"]), axis=1) < 0.3)
    assert "snr" in capsys.readouterr().out
