"""The version of a script's code: what it runs and the data it loads, told quickly and wherever the checkout stands."""

import importlib.util
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from workflows import ROOT

from nightsift.workflow import code as real

HERE = Path(real.__file__).relative_to(ROOT)
DATA = "nightsift/transients/data/examples.npz"
PROJECT = {
    "scripts/detect.py": "from nightsift.detect.detect import detect\n",
    "scripts/transients.py": "from nightsift.transients import transients\n",
    "nightsift/__init__.py": "",
    "nightsift/tables.py": "FIRST = 1\n",
    "nightsift/detect/__init__.py": "",
    "nightsift/detect/detect.py": "from nightsift.tables import FIRST\ndetect = 'nothing.npz', f'{FIRST}.{FIRST}'\n",
    "nightsift/transients/__init__.py": "",
    "nightsift/transients/transients.py": "from nightsift.transients.model import load\n",
    "nightsift/transients/model.py": "load = None\n",
    DATA: "examples",
}


def write(top, files):
    for name, text in files.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def project(tmp_path):
    """A small package of nested rooms that has this project's code for versions."""
    top = tmp_path / "project"
    write(top, PROJECT)
    (top / HERE).parent.mkdir(exist_ok=True)
    shutil.copy(ROOT / HERE, top / HERE)
    return top


def module(top):
    """Return the project's own module for versions as a new process sees it."""
    specification = importlib.util.spec_from_file_location("code_of_project", top / HERE)
    result = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(result)
    return result


def version(top, script):
    return module(top).code_version(top / "scripts" / f"{script}.py")


def changed(top, files):
    """Return the scripts whose version is another one with these files."""
    scripts = sorted(path.stem for path in (top / "scripts").iterdir())
    before = {script: version(top, script) for script in scripts}
    write(top, files)
    return [script for script in scripts if version(top, script) != before[script]]


LOADS = {
    "resource of the package": [
        "from importlib.resources import files",
        "load = files('nightsift').joinpath('transients', NAME)",
    ],
    "resource of the room": [
        "from importlib import resources",
        "load = resources.files('nightsift.transients') / 'data'",
    ],
    "beside the module": ["from pathlib import Path", "load = next((Path(__file__).parent / 'data').iterdir())"],
    "by name": ["from nightsift import tables", "load = tables.read('transients/data/examples.npz')"],
    "by pattern": ["from nightsift import tables", "load = [tables.read(f'data/{x}.npz') for x in tables.ALL]"],
    "pkgutil": ["import pkgutil", "load = pkgutil.get_data(__name__, 'data/' + str(NAME))"],
    "templates": ["import jinja2", "load = jinja2.PackageLoader('nightsift.transients', 'data')"],
}


def lines(texts):
    return "".join(f"{text}\n" for text in texts)


@pytest.mark.parametrize("how", LOADS)
def test_data_that_a_module_loads_are_code(project, how):
    write(project, {"nightsift/transients/model.py": lines(LOADS[how])})
    assert changed(project, {DATA: "EXAMPLES"}) == ["transients"]


def test_new_data_of_a_room_that_loads_some_are_code(project):
    write(project, {"nightsift/transients/model.py": lines(LOADS["beside the module"])})
    assert changed(project, {"nightsift/transients/data/more.npz": "examples"}) == ["transients"]
    assert changed(project, {"nightsift/transients/data/.more.npz.swp": "", "nightsift/detect/data.npz": ""}) == []


def test_data_of_another_room_are_code_of_who_names_it(project):
    write(project, {"nightsift/transients/model.py": lines(LOADS["beside the module"])})
    write(project, {"nightsift/detect/detect.py": "from importlib import resources\nX = 'nightsift.transients'\n"})
    assert changed(project, {DATA: "EXAMPLES"}) == ["detect", "transients"]


@pytest.mark.parametrize("test", ["TYPE_CHECKING", "typing.TYPE_CHECKING"])
def test_imports_for_type_checkers_are_not_code(project, test):
    text = f"import typing\nfrom typing import TYPE_CHECKING\n\nif {test}:\n    from nightsift import tables\n"
    write(project, {"nightsift/transients/model.py": text})
    assert changed(project, {"nightsift/tables.py": "FIRST = 2\n"}) == ["detect"]
    assert changed(project, {"nightsift/transients/model.py": text + "    import os\n"}) == []
    write(project, {"nightsift/transients/model.py": text + "else:\n    from nightsift import tables\n"})
    assert changed(project, {"nightsift/tables.py": "FIRST = 3\n"}) == ["detect", "transients"]


IMPORTS = {
    "absolute": ["import nightsift.tables"],
    "relative": ["from .. import tables"],
    "relative, from within": ["from ..tables import FIRST"],
    "late": ["def load():", "    from nightsift.tables import FIRST", "    return FIRST"],
    "by name": ["from importlib import import_module", "load = import_module('nightsift.tables')"],
    "by a relative name": ["import importlib", "load = importlib.import_module('..tables', __package__)"],
    "by an option": ["import importlib", "def load(x):", "    return importlib.import_module(f'nightsift.{x}')"],
    "as a program": ["load = ['python', '-m', 'nightsift.tables']"],
    "beside the module": ["from pathlib import Path", "load = Path(__file__).parents[1] / 'tables.py'"],
    "for no type checker": ["from typing import TYPE_CHECKING", "if not TYPE_CHECKING:", "    from .. import tables"],
}


@pytest.mark.parametrize("how", IMPORTS)
def test_what_a_module_imports_is_code(project, how):
    write(project, {"nightsift/transients/model.py": lines(IMPORTS[how])})
    assert changed(project, {"nightsift/tables.py": "FIRST = 2\n"}) == ["detect", "transients"]
    assert changed(project, {"nightsift/detect/detect.py": "detect = 1\n"})[:1] == ["detect"]


def test_a_package_around_a_module_is_code(project):
    assert changed(project, {"nightsift/transients/__init__.py": "X = 1\n"}) == ["transients"]
    assert changed(project, {"nightsift/transients/__init__.py": '"""The room."""\nX = 1  # or 2\n'}) == []


def test_what_two_modules_of_a_name_hold_cannot_change_places(project):
    names = [f"nightsift/{room}/limits.py" for room in ("detect", "transients")]
    lines = "".join(f"import nightsift.{room}.limits\n" for room in ("transients", "detect"))
    write(project, {names[0]: "X = 1\n", names[1]: "X = 2\n", "nightsift/tables.py": lines})
    assert changed(project, {names[0]: "X = 2\n", names[1]: "X = 1\n"}) == ["detect"]


def test_the_version_does_not_tell_where_the_checkout_stands(project, tmp_path):
    other = shutil.copytree(project, tmp_path / "a" / "z" / "project")
    assert version(other, "transients") == version(project, "transients") != version(project, "detect")


def test_of_this_package_what_is_trained_on_is_code_and_types_are_not(tmp_path):
    ignored = shutil.ignore_patterns("__pycache__")
    for folder in ("nightsift", "scripts"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    (shipped,) = (tmp_path / "nightsift").rglob("examples.npz")
    (kernel,) = (tmp_path / "nightsift").rglob("kernel.py")
    names = ("inspect", "detect", "subtract", "transients", "sources")

    def versions():
        mine = module(tmp_path)
        return {name: mine.code_version(tmp_path / "scripts" / f"{name}.py") for name in names}

    before = versions()
    with np.load(shipped) as stored:
        np.savez_compressed(shipped, **{**stored, "real": ~stored["real"]})
    inverted = versions()
    assert {name for name in names if inverted[name] != before[name]} >= {"transients"}
    assert [name for name in ("inspect", "detect", "subtract") if inverted[name] != before[name]] == []
    kernel.write_text(kernel.read_text() + "\nX = 1\n")
    edited = versions()
    assert {name for name in names if edited[name] != inverted[name]} == {"subtract"}


def age(top):
    """Give files written a moment ago the age from which a change of them shows in their times."""
    time.sleep(0.1)
    return sorted(path for path in top.rglob("*.py") if path.is_file())


def parsed(top, monkeypatch):
    """Return the version that a new process finds and how many files it parses for that."""
    mine, count = module(top), []
    parse = mine.ast.parse
    with monkeypatch.context() as patch:
        patch.setattr(mine.ast, "parse", lambda *arguments: count.append(1) or parse(*arguments))
        return mine.code_version(top / "scripts" / "transients.py"), len(count)


def test_only_what_has_changed_is_parsed(project, monkeypatch):
    age(project)
    first, count = parsed(project, monkeypatch)
    assert count > 3
    assert parsed(project, monkeypatch) == (first, 0)
    path = project / "nightsift/transients/model.py"
    path.write_text("load = 1234\n")
    age(project)
    second, count = parsed(project, monkeypatch)
    assert (second != first, count) == (True, 1)


def test_a_change_within_the_same_moment_is_seen(project):
    path = project / "nightsift/transients/model.py"
    seen = set()
    for number in range(100, 150):
        path.write_text(f"load = {number}\n")
        seen.add(version(project, "transients"))
    assert len(seen) == 50


def test_a_file_with_the_size_and_time_of_the_one_before_is_seen(project):
    path = project / "nightsift/transients/model.py"
    path.write_text("load = 1\n")
    age(project)
    before, times = version(project, "transients"), path.stat()
    path.write_text("load = 2\n")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert version(project, "transients") != before


@pytest.mark.parametrize("trouble", ["nothing can be written", "half a file", "not what it should be"])
def test_without_what_was_kept_it_works_as_well(project, monkeypatch, trouble):
    age(project)
    before = version(project, "transients")
    folder = project / "nightsift" / "__pycache__"
    (kept,) = folder.glob("code*")
    text = kept.read_text()
    if trouble == "nothing can be written":
        shutil.rmtree(folder)
        folder.write_text("")  # even for one who may write everywhere
    else:
        kept.write_text(text[: len(text) // 2] if trouble == "half a file" else '[{"files": 1}]')
    now, count = parsed(project, monkeypatch)
    assert (now, count > 3) == (before, True)
