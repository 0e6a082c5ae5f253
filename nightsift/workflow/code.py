"""A version of the code that a script uses: what it is, not when it was saved."""

from __future__ import annotations

import ast
import hashlib
import os
import re
import sys
from fnmatch import filter as matching
from functools import cache
from pathlib import Path

from nightsift.io.digests import Memory, digest

PACKAGE = Path(__file__).parents[1]
NAME = re.compile(r"[\w*/-]*(\.[\w*/-]+)+")  # of a file or a module, * for what is put in when it runs
SPOKEN = re.compile(r"\w\w")  # a name of stars and dots would be that of all files
LOADERS = ("importlib.resources", "importlib_resources", "pkgutil", "jinja2")


def code_version(script) -> str:
    """Return a hash of a script and of all of this package that it uses, directly or not: modules, and data they load.

    Comments, docstrings, layout and what only type checkers read do not count: a change of them changes no result.
    A module uses the data that it names, and if it finds files by its own place or as the package's resources, all
    data in its folder and in the packages that it names.
    """
    script = Path(script)
    seen: dict[str, str] = {}
    todo = [script.name]
    while todo:
        name = todo.pop()
        if name not in seen:
            path = script if name == script.name else PACKAGE.parent / name
            seen[name] = _facts(path)["text"]
            todo += _used(path)
    _memory().save()
    text = "".join(f"{name} {seen[name]}\n" for name in sorted(seen))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@cache
def _memory() -> Memory:
    # Beside what Python itself keeps there of each version: the syntax tree depends on that, too.
    return Memory(PACKAGE / "__pycache__" / f"code.{sys.implementation.cache_tag}.json", made_by=digest(__file__))


@cache
def _files() -> list[str]:
    """Return the files of the package, without what Python and editors leave beside them."""
    found = []
    for folder, below, names in os.walk(PACKAGE):
        below[:] = [name for name in below if name != "__pycache__"]
        room = Path(folder).relative_to(PACKAGE.parent).as_posix()
        found += [f"{room}/{name}" for name in names if not name.startswith((".", "#")) and not name.endswith("~")]
    return sorted(found)


@cache
def _endings() -> dict[str, list[str]]:
    """Return the files of the package by each end of their paths, as a module may name them."""
    result: dict[str, list[str]] = {}
    for file in _files():
        parts = file.split("/")
        for start in range(len(parts)):
            result.setdefault("/".join(parts[start:]), []).append(file)
    return result


@cache
def _facts(path: Path) -> dict:
    name = os.path.relpath(path, PACKAGE.parent)
    return _memory().of(path, _read if path.suffix == ".py" else _read_data, name)


@cache
def _used(path: Path) -> list[str]:
    """Return the files of the package that a file uses."""
    facts, endings = _facts(path), _endings()
    used = [file for module in facts["modules"] for file in _imported(module)]
    for name in facts["names"]:
        names = matching(endings, name.lstrip("/")) if "*" in name else [name.lstrip("/")]
        files = [file for known in names for file in endings.get(known, [])]
        used += [file for file in files if facts["loads"] or not file.endswith(".py")]
    if facts["loads"]:
        rooms = [path.parent.relative_to(PACKAGE.parent).as_posix()] if path.is_relative_to(PACKAGE) else []
        rooms += [module.replace(".", "/") for module in facts["modules"] if "." in module]
        starts = tuple(f"{room}/" for room in rooms)
        used += [file for file in _files() if file.startswith(starts) and not file.endswith(".py")]
    return used


@cache
def _imported(module: str) -> list[str]:
    """Return the files that run when a module is imported, those of the packages around it among them."""
    parts = module.split(".")
    paths = ["/".join(parts[: end + 1]) for end in range(len(parts))]
    names = [f"{path}{ending}" for path in paths for ending in (".py", "/__init__.py")]
    return [file for name in names for file in (matching(_files(), name) if "*" in name else _exact(name))]


def _exact(name: str) -> list[str]:
    return [name] if name in _endings() and name.startswith(f"{PACKAGE.name}/") else []


def _read_data(path: Path) -> dict:
    return {"text": digest(path), "modules": [], "names": [], "loads": False}


def _read(path: Path) -> dict:
    """Return a module's text, as a hash, the modules and files of the package that it names, and if it loads files."""
    tree = _Running().visit(ast.parse(path.read_text(encoding="utf-8")))
    modules, names, loads = set(), set(), False
    around = path.parent.relative_to(PACKAGE.parent).parts if path.is_relative_to(PACKAGE) else ()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            base = [*around[: len(around) + 1 - node.level]] if node.level else []
            base += [node.module] if node.module else []
            modules |= {".".join([*base, alias.name] if alias.name != "*" else base) for alias in node.names}
        elif isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Call) and _name(node.func) == "import_module":
            dots, name = re.match(r"(\.*)(.*)", "".join(map(_text, node.args[:1]))).groups()
            modules |= {".".join([*around[: len(around) + 1 - len(dots)], name])} if dots else set()
        elif isinstance(node, ast.Constant | ast.JoinedStr):
            names.add(_text(node))
        elif isinstance(node, ast.Name | ast.Attribute):
            loads |= _name(node) == "__file__"
    loads |= any(module.startswith(LOADERS) for module in modules)
    names = {name for name in names if NAME.fullmatch(name) and SPOKEN.search(name)}
    ours = {name for name in modules | names if name.split(".")[0] == PACKAGE.name}
    text = hashlib.sha256(ast.dump(tree).encode()).hexdigest()
    return {"text": text, "modules": sorted(ours), "names": sorted(names - ours), "loads": loads}


def _text(node) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) if isinstance(part, ast.Constant) else "*" for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _name(node) -> str:
    return getattr(node, "id", getattr(node, "attr", ""))


class _Running(ast.NodeTransformer):
    """Leaves of a module what runs: no docstrings, nothing that is for type checkers alone."""

    def visit_If(self, node):
        self.generic_visit(node)
        return node.orelse if _name(node.test) == "TYPE_CHECKING" else node

    def visit_Module(self, node):
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
        return self.generic_visit(node)

    visit_ClassDef = visit_FunctionDef = visit_AsyncFunctionDef = visit_Module
