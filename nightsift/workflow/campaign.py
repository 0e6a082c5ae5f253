"""What the user asks for: the configuration and the sample sheet, read and checked before anything runs."""

from __future__ import annotations

import csv
import difflib
import glob
import json
import re
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

from nightsift.errors import CampaignError
from nightsift.external.program import PROGRAMS
from nightsift.io.fits import SUFFIXES, fits_files, stem_of
from nightsift.parameters import schema

NAME = re.compile(r"[A-Za-z0-9_.-]+")
RANGE = re.compile(r"[\d.]+ *- *[\d.]+$")
NUMBERS = ("gain", "saturation", "exptime", "ra", "dec", "radius", "pixscale")
COLUMNS = ("image", "path", "filter", "time", "template", "mask", "target", *NUMBERS)
_WORDS = {"true": True, "false": False}
EXAMPLE = {"images": "images.tsv", "catalog.path": "catalog.fits", "template.path": "template.fits"}


@dataclass(frozen=True)
class Entry:
    """One image: where it is and what the sample sheet says of it."""

    path: str
    template: str | None = None
    mask: str | None = None
    overrides: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Campaign:
    """The configuration with every default filled in, and the images by name."""

    config: dict
    images: dict[str, Entry]


def load(config: dict, folder=".") -> Campaign:
    """Check a configuration and read the images it names.

    Parameters
    ----------
    config : dict
        What the configuration file says.
    folder : path-like
        What relative paths are relative to.

    Raises
    ------
    CampaignError
        With a sentence that names the wrong key, file or line.
    """
    config = checked(config)
    pattern = config["images"]
    if pattern.endswith(".tsv"):
        images = read_sheet(pattern, folder)
    else:
        images = _from_glob(pattern, folder)
    for name, entry in images.items():
        for kind in ("path", "template", "mask"):
            _check_path(getattr(entry, kind), f"{pattern}: image {name!r}: {kind}", folder, kind == "template")
    for section in ("catalog", "template"):
        _check_local(config, section, folder)
    _check_program(config)
    _check_cone(config)
    templates = {config["template"]["path"], *(entry.template for entry in images.values())} - {None}
    for path in templates if config["template"]["mask"] else ():
        if (Path(folder) / path).is_dir():
            raise CampaignError(f"config: template.mask is a mask of one template, and {path!r} is a folder")
    return Campaign(config, images)


def _check_program(config: dict) -> None:
    for stage, names in PROGRAMS.items():
        method = config[stage]["method"]
        if method in names and not any(shutil.which(name) for name in names[method]):
            raise CampaignError(
                f"config: {stage}.method is {method!r}, but there is no such program on the PATH:"
                " install it, or choose another method"
            )


def _check_cone(config: dict) -> None:
    cone = {key: config["uncatalogued"][key] for key in ("ra", "dec", "radius")}
    missing = [key for key, value in cone.items() if value is None]
    if missing and len(missing) < len(cone):
        raise CampaignError(
            f"config: the cone of uncatalogued needs ra, dec and radius; {' and '.join(missing)} not given"
        )


def _check_local(config: dict, section: str, folder) -> None:
    part = config[section]
    if part["source"] != "local":
        return
    if not part["path"] and section == "catalog":
        raise CampaignError(f"config: {section}.source is local, so {section}.path must name a file")
    for key in ("path", "mask"):
        _check_path(part.get(key), f"config: {section}.{key}:", folder, (section, key) == ("template", "path"))


def _check_path(path: str | None, what: str, folder, may_be_folder: bool) -> None:
    """Raise `CampaignError` unless there is such a file, or such a folder with images."""
    if not path or (Path(folder) / path).is_file():
        return
    if not (Path(folder) / path).is_dir():
        raise CampaignError(f"{what} {path!r} does not exist")
    if not may_be_folder:
        raise CampaignError(f"{what} {path!r} is a folder, not a file")
    if not fits_files(Path(folder) / path):
        raise CampaignError(f"{what} the folder {path!r} holds no FITS image ({', '.join(SUFFIXES)}, packed or not)")


def checked(config: dict) -> dict:
    """Return `config` with every default filled in.

    Raises
    ------
    CampaignError
        If a key is unknown or a value is not what the schema wants.
    """
    import jsonschema

    rules = schema()
    # Snakemake's --config leaves YAML's true and false as words.
    if str(config.get("offline")).lower() in _WORDS:
        config = {**config, "offline": _WORDS[str(config["offline"]).lower()]}
    for error in sorted(jsonschema.Draft202012Validator(rules).iter_errors(config), key=lambda e: list(e.path)):
        raise CampaignError("config: " + _sentence(error, rules))
    result = dict(config)
    for name, rule in rules["properties"].items():
        if rule.get("type") == "object":
            defaults = {key: entry["default"] for key, entry in rule["properties"].items()}
            result[name] = defaults | config.get(name, {})
        elif "default" in rule:
            result.setdefault(name, rule["default"])
    return result


def _sentence(error, rules: dict) -> str:
    where = ".".join(map(str, error.absolute_path))
    if error.validator == "additionalProperties":
        known = {key: f"{where}.{key}".lstrip(".") for key in error.schema["properties"]}
        wrong = sorted(set(error.instance) - set(known))[0]
        everywhere = known if where else known | _nested(rules)
        near = difflib.get_close_matches(wrong, everywhere, n=1, cutoff=0.5)
        advice = f"did you mean {everywhere[near[0]]!r}?" if near else f"known are {', '.join(known)}."
        return f"unknown key {f'{where}.{wrong}'.lstrip('.')!r}; {advice}"
    if error.validator == "enum":
        near = difflib.get_close_matches(str(error.instance), map(str, error.validator_value), n=1, cutoff=0.4)
        advice = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(map(str, error.validator_value))}."
        return f"{where}: {error.instance!r} is not known; {advice}"
    return f"{where}: {error.message}".lstrip(": ")


def _nested(rules: dict) -> dict[str, str]:
    sections = {name: rule["properties"] for name, rule in rules["properties"].items() if "properties" in rule}
    return {key: f"{name}.{key}" for name, properties in sections.items() for key in properties}


def read_sheet(path, folder=".") -> dict[str, Entry]:
    """Read a tab-separated sample sheet.

    Raises
    ------
    CampaignError
        If it is missing, has no or unknown columns, wrong or duplicate names, or a value that is not a number.
    """
    file = Path(folder) / path
    if not file.is_file():
        raise CampaignError(f"config: images: the sample sheet {str(path)!r} does not exist")
    with open(file, newline="", encoding="utf-8-sig") as handle:
        lines = [line for line in handle if line.strip() and not line.startswith("#")]
    rows = csv.DictReader(lines, delimiter="\t")
    header = rows.fieldnames or []
    for column in header:
        if column not in COLUMNS:
            near = difflib.get_close_matches(str(column), COLUMNS, n=1)
            advice = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(COLUMNS)}."
            raise CampaignError(f"{path}: unknown column {column!r}; {advice}")
    if not {"image", "path"} <= set(header):
        raise CampaignError(f"{path}: needs the tab-separated columns 'image' and 'path'; it has {header}")
    images: dict[str, Entry] = {}
    for number, row in enumerate(rows, start=2):
        name = (row["image"] or "").strip()
        if not NAME.fullmatch(name) or not name.strip("."):
            raise CampaignError(f"{path}: row {number}: image name {name!r} is not made of letters, digits and '_.-'")
        if name in images:
            raise CampaignError(f"{path}: row {number}: image name {name!r} stands there twice")
        if None in row or None in row.values():
            raise CampaignError(f"{path}: row {number} (image {name!r}) has not as many fields as the header")
        images[name] = _entry(path, number, {key: value.strip() for key, value in row.items() if value.strip()})
    if not images:
        raise CampaignError(f"{path}: lists no image")
    return images


def _entry(sheet, number: int, row: dict) -> Entry:
    overrides = {key: row[key] for key in ("filter", "time") if key in row}
    for key in NUMBERS:
        if key in row:
            try:
                overrides[key] = _scale(row[key]) if key == "pixscale" else float(row[key])
            except ValueError:
                raise CampaignError(f"{sheet}: row {number}: {key} {row[key]!r} is not a number") from None
    if "path" not in row:
        raise CampaignError(f"{sheet}: row {number}: image {row['image']!r} has no path")
    return Entry(row["path"], row.get("template"), row.get("mask"), overrides)


def _scale(text: str) -> float | list[float]:
    """Return a pixel scale, or the ends of a range such as ``0.3-0.5``."""
    ends = sorted(float(part) for part in (text.split("-") if RANGE.match(text) else [text]))
    if not ends[0] > 0:
        raise ValueError
    return ends if len(ends) > 1 else ends[0]


def _from_glob(pattern: str, folder) -> dict[str, Entry]:
    paths = sorted(glob.glob(pattern, root_dir=folder, recursive=True))
    paths = [path for path in paths if (Path(folder) / path).is_file()]
    if not paths:
        raise CampaignError(f"config: images: no file matches {pattern!r} in {Path(folder).resolve()}")
    images: dict[str, Entry] = {}
    for path in paths:
        stem = re.sub(r"[^A-Za-z0-9_.-]", "_", stem_of(Path(path).name)).strip(".") or "image"
        name, number = stem, 2
        while name in images:
            name, number = f"{stem}-{number}", number + 1
        images[name] = Entry(path)
    return images


def write_schema(path) -> None:
    """Write the JSON schema of the configuration, for editors and for people."""
    Path(path).write_text(json.dumps(schema(), indent=2) + "\n", encoding="utf-8")


def write_example(path) -> None:
    """Write a configuration with every option, its default and its documentation."""
    lines = [
        "# Every option with its default. Only 'images' and the catalogue's path or source have to be given; what is",
        "# left out has the value that stands here. Relative paths start in the folder that the workflow runs in",
        "# (--directory).",
        "# yaml-language-server: $schema=config.schema.json",
    ]
    for name, rule in schema()["properties"].items():
        lines += ["", f"# {rule['description']}"]
        if "properties" not in rule:
            lines.append(f"{name}: {EXAMPLE.get(name, rule.get('default'))}")
            continue
        lines.append(f"{name}:")
        for key, entry in rule["properties"].items():
            value = EXAMPLE.get(f"{name}.{key}", entry["default"])
            lines += [f"  # {entry['description']}{_allowed(entry)}", f"  {key}: {json.dumps(value).strip(chr(34))}"]
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _allowed(entry: dict) -> str:
    words = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most"}
    parts = [f"{words[key]} {entry[key]}" for key in words if key in entry]
    parts += [f"one of {', '.join(map(str, entry['enum']))}"] if "enum" in entry else []
    parts += [f"any of {', '.join(entry['items']['enum'])}"] if "enum" in entry.get("items", {}) else []
    return f" ({', '.join(parts)})" if parts else ""


if __name__ == "__main__":
    write_schema(Path(sys.argv[1]) / "config.schema.json")
    write_example(Path(sys.argv[1]) / "config.yaml")
