"""Rewrite the tables in these pages that follow from the code."""

import argparse
import dataclasses
import re
import sys
import typing
from collections.abc import Mapping
from pathlib import Path

from nightsift.archive.catalogs import SURVEYS
from nightsift.archive.hips import SURVEYS as HIPS
from nightsift.catalog.conversions import OF_SURVEY
from nightsift.flags import FLAG_MEANING, MASK_MEANING
from nightsift.header import keywords
from nightsift.parameters import SECTIONS, InstrumentConfig
from nightsift.sources.known import SERVICES
from nightsift.tables import SCHEMAS

FOLDER = Path(__file__).parent
BLOCK = re.compile(r"(<!-- from the code: (\w+)(?: (\w+))? -->\n).*?(<!-- end -->)", re.DOTALL)
TYPES = {float: "number", int: "integer", bool: "true or false", str: "text", type(None): "null", Mapping: "mapping"}
TYPES |= {tuple: "list"}
RULES = {"minimum": "≥ {}", "exclusiveMinimum": "> {}", "maximum": "≤ {}"}


def table(head, rows):
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def _default(value):
    if value is dataclasses.MISSING:
        return "required"
    if value == ():
        return "none"
    return "not set" if value is None else f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _values(annotation, rule):
    """Say what an option may be."""
    if "enum" in rule:
        return ", ".join(f"`{value}`" for value in rule["enum"] if value is not None)
    if annotation is tuple:
        return "list of " + ", ".join(f"`{value}`" for value in rule["items"]["enum"])
    kinds = [TYPES[kind] for kind in typing.get_args(annotation) or (annotation,) if kind is not type(None)]
    return ", ".join([*kinds, *(RULES[key].format(value) for key, value in rule.items() if key in RULES)])


def options(stage):
    """Return the options of a stage, or of an instrument."""
    section = (SECTIONS | {"instruments": InstrumentConfig})[stage]
    hints = typing.get_type_hints(section)
    rows = [
        (
            f"`{item.name}`",
            _values(hints[item.name], item.metadata["rule"]),
            _default(item.default),
            item.metadata["doc"],
        )
        for item in dataclasses.fields(section)
    ]
    return table(("option", "value", "default", "meaning"), rows)


def surveys(_):
    """Return the catalogues of the archives."""
    rows = [
        (f"`{name}`", survey.title, f"`{survey.table}`", ", ".join(survey.magnitudes), f"`{survey.limit}`")
        for name, survey in SURVEYS.items()
    ]
    return table(("source", "catalogue", "in VizieR", "bands", "`faintest` is of"), rows)


def hips(_):
    """Return the surveys of hips2fits."""
    rows = [
        (
            f"`{name}`",
            survey.title,
            ", ".join(survey.names),
            f"{survey.declinations[0]:g} to {survey.declinations[1]:g}",
        )
        for name, survey in HIPS.items()
    ]
    return table(("`survey`", "images", "bands", "declinations"), rows)


def conversions(_):
    """Return what is converted from what."""
    found = {}
    for name, rows in OF_SURVEY.items():
        for row in rows:
            colors = ", ".join(f"{term.low:g} < {term.color} < {term.high:g}" for term in row.terms)
            key = (row.reference, f"`{row.base}`", colors, f"{row.scatter:g}")
            found.setdefault(key, {}).setdefault(f"`{row.band}`", []).append(f"`{name}`")
    rows = [
        (
            ", ".join(dict.fromkeys(name for names in bands.values() for name in names)),
            ", ".join(bands),
            *key[1:],
            key[0],
        )
        for key, bands in found.items()
    ]
    return table(("source", "band", "from", "where", "scatter (mag)", "reference"), rows)


def services(_):
    """Return the services that know objects."""
    rows = [(f"`{name}`", about.title, f"`{about.kind}`", about.band) for name, about in SERVICES.items()]
    return table(("service", "catalogue", "kind", "magnitude"), rows)


def columns(schema):
    """Return the columns of a table."""
    names = {float: "float", int: "int", str: "text", bool: "bool"}
    rows = [(f"`{name}`", names[f.dtype], f.unit or "", f.meaning) for name, f in SCHEMAS[schema].items()]
    return table(("column", "type", "unit", "meaning"), rows)


def mask(_):
    """Return the planes of a mask."""
    return table(("plane", "bit", "meaning"), [(f"`{bit.name}`", int(bit), text) for bit, text in MASK_MEANING.items()])


def flags(_):
    """Return the flags of an object."""
    rows = [(f"`{bit.name}`", f"0x{int(bit):03x}", text) for bit, text in FLAG_MEANING.items()]
    return table(("flag", "bit", "meaning"), rows)


def spellings(name):
    """Return the cards of a header that hold one thing, the first winning."""
    rows = [(f"`{row.key}`", row.unit, row.meaning, row.writers) for row in getattr(keywords, name)]
    return table(("card", "unit", "meaning", "known writers"), rows)


KINDS = {"spellings": spellings, "options": options, "columns": columns, "mask": mask, "flags": flags}
KINDS |= {"services": services, "surveys": surveys, "conversions": conversions, "hips": hips}


def current(text: str) -> str:
    """Return a page with its tables as the code has them now."""
    return BLOCK.sub(lambda found: found[1] + "\n" + KINDS[found[2]](found[3]) + "\n" + found[4], text)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit code 1 if a page is out of date")
    check = parser.parse_args(arguments).check
    old = {path: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.md"))}
    stale = [path for path, text in old.items() if current(text) != text]
    for path in stale:
        print(f"{path}: {'out of date' if check else 'rewritten'}")
        if not check:
            path.write_text(current(old[path]), encoding="utf-8")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
