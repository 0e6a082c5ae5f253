"""Draw the rooms of the package and who imports whom, from the imports in the code."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "nightsift"
GROUND = "ground"  # the modules that lie directly in the package
WIDE = 0.5  # a room that more than this fraction of the others imports is named, its lines are left out
BOX, GAP, MARGIN = (112, 30), (16, 52), 12  # pixels
SWEEPS = 8  # of ordering the rooms of a floor by those they are connected to


@dataclass
class Room:
    """A folder of the package: what its docstring says, its modules, and the rooms that it imports."""

    name: str
    about: str = ""
    modules: list[str] = field(default_factory=list)
    imports: set[str] = field(default_factory=set)


def rooms(package: Path = PACKAGE) -> dict[str, Room]:
    """Return the rooms of a package by name; imports for type checkers alone do not count."""
    found: dict[str, Room] = {}
    for path in sorted(package.rglob("*.py")):
        name = _room(path.relative_to(package).parts)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        room = found.setdefault(name, Room(name))
        if path.stem == "__init__":
            room.about = (ast.get_docstring(tree) or "").split("\n")[0] if name != GROUND else ""
            continue
        room.modules.append(path.stem)
        room.imports |= {_of(target, package) for target in _imported(tree, package.name)}
    for room in found.values():
        room.imports = (room.imports & set(found)) - {room.name}
    found[GROUND].about = "What every room may use."
    return found


def _room(parts: tuple[str, ...]) -> str:
    return parts[0] if len(parts) > 1 else GROUND


def _of(target: str, package: Path) -> str:
    """Return the room of an imported name such as ``nightsift.subtract.subtract.subtract``."""
    parts = target.split(".")[1:]
    return parts[0] if parts and (package / parts[0]).is_dir() else GROUND


def _imported(tree: ast.AST, package: str) -> list[str]:
    """Return the dotted names of the package that a module imports."""
    if isinstance(tree, ast.If) and "TYPE_CHECKING" in ast.unparse(tree.test):
        return []
    if isinstance(tree, ast.ImportFrom) and (tree.module or "").split(".")[0] == package:
        return [f"{tree.module}.{alias.name}" for alias in tree.names]
    if isinstance(tree, ast.Import):
        return [alias.name for alias in tree.names if alias.name.split(".")[0] == package]
    return [name for node in ast.iter_child_nodes(tree) for name in _imported(node, package)]


def _below(found: dict[str, Room]) -> dict[str, set[str]]:
    """Return all rooms that each imports, directly or not."""
    below = {name: set(room.imports) for name, room in found.items()}
    for middle in found:
        for name in found:
            if middle in below[name]:
                below[name] |= below[middle]
    return below


def floors(found: dict[str, Room]) -> list[list[str]]:
    """Return the rooms by floor: each stands above what it imports, unless that imports it, too."""
    below, level = _below(found), dict.fromkeys(found, 0)
    for _ in found:
        for name, room in found.items():
            level[name] = max((1 + level[other] for other in room.imports if name not in below[other]), default=0)
    rows = [[name for name in sorted(found) if level[name] == n] for n in range(max(level.values()) + 1)]
    joined: dict[str, list[str]] = {name: [] for name in found}
    for name, other in direct(found):
        joined[name].append(other)
        joined[other].append(name)
    for _ in range(SWEEPS):
        place = {name: (n + 0.5) / len(row) for row in rows for n, name in enumerate(row)}
        middle = {
            name: sum(place[other] for other in (joined[name] or [name])) / max(len(joined[name]), 1) for name in found
        }
        for row in rows:
            row.sort(key=middle.__getitem__)
    return rows


def widely_used(found: dict[str, Room]) -> set[str]:
    """Return the rooms that most others import."""
    return {name for name in found if sum(name in room.imports for room in found.values()) > WIDE * (len(found) - 1)}


def direct(found: dict[str, Room]) -> list[tuple[str, str]]:
    """Return the imports (room, imported room) that no other import implies, without those of rooms that most use."""
    below, wide = _below(found), widely_used(found)
    return [
        (name, other)
        for name, room in sorted(found.items())
        for other in sorted(room.imports - wide)
        if not any(other in below[between] and name not in below[between] for between in room.imports - {other})
    ]


def drawing(found: dict[str, Room]) -> str:
    """Return the rooms as SVG: floors from the ground up, a line from each room down to those that it imports."""
    rows = floors(found)
    width = max(len(row) for row in rows) * (BOX[0] + GAP[0]) - GAP[0] + 2 * MARGIN
    height = len(rows) * (BOX[1] + GAP[1]) - GAP[1] + 2 * MARGIN
    corner = {}
    for n, row in enumerate(reversed(rows)):
        left = (width - len(row) * (BOX[0] + GAP[0]) + GAP[0]) / 2
        corner |= {name: (left + k * (BOX[0] + GAP[0]), MARGIN + n * (BOX[1] + GAP[1])) for k, name in enumerate(row)}
    wide = widely_used(found)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" style="max-width: {width}px"'
    parts = [f'{head} width="100%" role="img" font-size="13">']
    parts.append("<title>The rooms of the package and their imports</title>")
    for name, other in direct(found):
        (x, y), (u, v) = corner[name], corner[other]
        x, y, u = x + BOX[0] / 2, y + BOX[1], u + BOX[0] / 2
        bend = (y + v) / 2
        parts.append(
            f'<path d="M{x:g} {y:g}C{x:g} {bend:g} {u:g} {bend:g} {u:g} {v:g}" fill="none" stroke="currentColor"'
            f' stroke-opacity="0.5"><title>{name} imports {other}</title></path>'
        )
    for name, (x, y) in corner.items():
        room = found[name]
        about = escape(f"{room.about} {', '.join(room.modules)}".strip())
        parts.append(
            f'<g><title>{about}</title><rect x="{x:g}" y="{y:g}" width="{BOX[0]}" height="{BOX[1]}" rx="4"'
            ' fill="var(--color-background-primary, #fff)" stroke="currentColor"'
            f' stroke-width="{2.5 if name in wide else 1}"/>'
            f'<text x="{x + BOX[0] / 2:g}" y="{y + BOX[1] / 2 + 5:g}" text-anchor="middle" fill="currentColor">'
            f"{name}</text></g>"
        )
    return "\n".join([*parts, "</svg>", ""])


def listing(found: dict[str, Room]) -> str:
    """Return the rooms as a Markdown table, from the top floor down."""
    lines = ["| room | what it is | imports |", "| --- | --- | --- |"]
    for row in reversed(floors(found)):
        for name in row:
            imports = ", ".join(sorted(found[name].imports)) or "nothing of the package"
            lines.append(f"| `{name}` | {found[name].about} | {imports} |")
    return "\n".join([*lines, ""])


def write(folder: Path, package: Path = PACKAGE) -> None:
    """Write the drawing and the table as ``rooms.svg`` and ``rooms.md``."""
    found = rooms(package)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("rooms.svg", drawing(found)), ("rooms.md", listing(found))):
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
