"""Fill in ra and dec of a sample sheet where they are empty and the column target names an object.

Names are resolved by Simbad, NED and VizieR through Sesame, and by the Transient Name Server if there is a key for it.
"""

import argparse
import json
import sys
from pathlib import Path

import yaml

from nightsift.archive.library import SETTINGS, Library
from nightsift.archive.resolver import position
from nightsift.errors import CampaignError, Unavailable
from nightsift.io.products import atomic
from nightsift.parameters import ArchiveConfig
from nightsift.workflow.campaign import checked, read_sheet

ASKED = ("ra", "dec")


def fields(line):
    return line.rstrip("\r\n").split("\t")


def filled(lines, where):
    """Return the lines of a sheet with the positions of targets, and the names that `where` does not know."""
    lines, header, unknown = list(lines), None, []
    for number, line in enumerate(lines):
        if not line.strip() or line.startswith("#"):
            continue
        if header is None:
            header = [name.strip() for name in fields(line)]
            header += [name for name in ASKED if name not in header]
            lines[number] = "\t".join(header) + "\n"
            continue
        values = fields(line)
        values += [""] * (len(header) - len(values))
        row = dict(zip(header, values, strict=True))
        name = row.get("target", "").strip()
        if name and not any(row[key].strip() for key in ASKED):
            place = where(name)
            if place is None:
                unknown.append(name)
            else:
                row |= {key: f"{value:.6f}" for key, value in zip(ASKED, place, strict=True)}
        lines[number] = "\t".join(row.values()) + "\n"
    return lines, list(dict.fromkeys(unknown))


def library(path):
    """Return the library that a configuration asks for, else the one of the environment."""
    if path is None:
        return Library.from_environment()
    config = checked(yaml.safe_load(path.read_text(encoding="utf-8")))
    return Library(ArchiveConfig(**config["archive"]), config["offline"])


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="resolve.py", description=__doc__)
    parser.add_argument("sheet", type=Path, help="the sample sheet, which is changed")
    parser.add_argument("--config", type=Path, help=f"configuration, for its section archive; else ${SETTINGS}")
    options = parser.parse_args(arguments)
    try:
        read_sheet(options.sheet)
        books = library(options.config)
        text = options.sheet.read_text(encoding="utf-8-sig")
        lines, unknown = filled(text.splitlines(keepends=True), lambda name: position(name, books))
    except (CampaignError, Unavailable) as error:
        print(f"resolve: {error}; nothing was changed", file=sys.stderr)
        return 1
    if "".join(lines) != text:
        with atomic(options.sheet) as temporary:
            Path(temporary).write_text("".join(lines), encoding="utf-8")
    for name in unknown:
        print(f"resolve: nobody knows {json.dumps(name, ensure_ascii=False)}: give ra and dec", file=sys.stderr)
    return 1 if unknown else 0


if __name__ == "__main__":
    raise SystemExit(main())
