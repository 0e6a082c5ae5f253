"""A version of the code that a script uses: what it is, not when it was saved."""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1]


def code_version(script) -> str:
    """Return a hash of a script and of all modules of this package that it imports, directly or not.

    Comments, docstrings and layout do not count: a change of them changes no result.
    """
    seen: dict[Path, str] = {}
    todo = [Path(script)]
    while todo:
        path = todo.pop()
        if path not in seen:
            seen[path], imported = _read(path)
            todo += imported
    total = hashlib.sha256()
    for path in sorted(seen, key=lambda path: path.name):
        total.update(seen[path].encode())
    return total.hexdigest()[:12]


@cache
def _read(path: Path) -> tuple[str, list[Path]]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE.name:
            imported += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names if alias.name.split(".")[0] == PACKAGE.name]
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, clean=False):
            node.body = node.body[1:]
    text = hashlib.sha256(ast.dump(tree).encode()).hexdigest()
    files = [PACKAGE.parent.joinpath(*name.split(".")) for name in imported]
    modules = [file.with_suffix(".py") for file in files if file.with_suffix(".py").is_file()]
    packages = [file / "__init__.py" for file in files if (file / "__init__.py").is_file()]
    return text, modules + packages
