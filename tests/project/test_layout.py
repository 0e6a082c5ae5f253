"""The plan of the house: a room for each stage, one name for all that belongs to it, and who may import whom."""

import ast
import itertools
import re
import shutil
import subprocess
import sys

import pytest
from workflows import ROOT

from nightsift.parameters import SECTIONS, STAGES

PACKAGE = ROOT / "nightsift"
GROUND = {"__init__", "errors", "flags", "parameters", "passbands", "statistics", "tables"}
#: rooms whose door is a stage of the workflow
ROOMS = sorted({*STAGES, "plots"})
LINES, FUNCTION_LINES, PARAMETERS = 400, 60, 6
#: files and functions that are to become shorter; none is to be added
STILL_LONG = {
    "nightsift/archive/images.py:_made",
    "nightsift/astrometry/plate_solution.py:_adjusted_header",
    "nightsift/astrometry/plate_solution.py:_header",
    "nightsift/astrometry/plate_solution.py:choose",
    "nightsift/detect/aperture.py:measure",
    "nightsift/image/cosmics.py:find_cosmics",
    "nightsift/parameters.py",
    "nightsift/photometry/zeropoint.py:fit",
    "nightsift/simulate/pixels.py:render_galaxies",
    "nightsift/subtract/light_noise.py:_fitted",
    "nightsift/subtract/rescaling.py:rescaled",
    "nightsift/subtract/sky_sources.py:sky_sources",
    "nightsift/subtract/subtract.py:_with_noise",
    "nightsift/template/registration.py:register",
}


def linted(folder):
    """Run the import contracts on a copy of the package."""
    shutil.copytree(PACKAGE, folder / "nightsift", ignore=shutil.ignore_patterns("__pycache__", "*.npz"))
    shutil.copy(ROOT / "pyproject.toml", folder)

    def run():
        code = "import importlinter.cli as cli; raise SystemExit(cli.lint_imports(no_cache=True))"
        command = [sys.executable, "-c", code]
        environment = {"PYTHONPATH": str(folder)}
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)

    return run


def test_only_the_ground_lies_outside_rooms():
    assert {path.stem for path in PACKAGE.glob("*.py")} == GROUND


def test_every_room_says_what_it_is_and_imports_nothing_at_its_threshold():
    for path in PACKAGE.glob("*/__init__.py"):
        (statement,) = ast.parse(path.read_text()).body
        assert isinstance(statement, ast.Expr), path
        assert "May import" in statement.value.value, path


@pytest.mark.parametrize("room", ROOMS)
def test_one_name_for_all_that_belongs_to_a_stage(room):
    door = ast.parse((PACKAGE / room / f"{room}.py").read_text())
    assert room in {node.name for node in door.body if isinstance(node, ast.FunctionDef)}
    assert (ROOT / "scripts" / f"{room}.py").is_file()
    rules = "".join(path.read_text() for path in (ROOT / "rules").glob("*.smk"))
    assert re.search(rf"^rule {room}:", rules, re.MULTILINE)
    assert room in SECTIONS or room == "plots"  # of which there is nothing to choose
    assert re.search(rf"^## {room}$", (ROOT / "docs" / "stages.md").read_text(), re.MULTILINE)
    assert list((ROOT / "tests" / room).glob("test_*.py"))


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("subtract/subtract.py", "from nightsift.io import fits"),
        ("detect/detect.py", "from nightsift.workflow import stage"),
        ("image/stamps.py", "from nightsift.sky import wcs"),
        ("psf/psf.py", "from nightsift.detect.detect import detect"),
        ("tables.py", "from nightsift.image.stamps import stamps"),
    ],
)
def test_an_import_that_looks_up_is_refused(tmp_path, module, line):
    run = linted(tmp_path)
    assert run().returncode == 0
    path = tmp_path / "nightsift" / module
    path.write_text(path.read_text() + f"\n{line}\n")
    broken = run()
    assert broken.returncode != 0
    assert line.split()[1] in broken.stdout


def functions(path):
    """Return the functions of a file: name, lines, number of parameters, and the comments above."""
    lines = path.read_text().splitlines()
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, ast.FunctionDef):
            taken = {part.arg for part in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)}
            first = min([node.lineno, *(part.lineno for part in node.decorator_list)])
            above = [
                line.strip() for line in itertools.takewhile(lambda line: "#" in line, reversed(lines[: first - 1]))
            ]
            yield node.name, node.end_lineno - node.lineno + 1, len(taken - {"self", "cls"}), above


def test_files_and_functions_stay_short():
    """A reason for more stands above the function: ``# Long: ...`` or ``# Many parameters: ...``."""
    found = set()
    for path in (*PACKAGE.rglob("*.py"), *(ROOT / "scripts").glob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if len(path.read_text().splitlines()) > LINES:
            found.add(name)
        for function, long, many, above in functions(path):
            if long > FUNCTION_LINES and not any(line.startswith("# Long:") for line in above):
                found.add(f"{name}:{function}")
            if many > PARAMETERS and not any(line.startswith("# Many parameters:") for line in above):
                found.add(f"{name}:{function}")
    assert found == STILL_LONG
