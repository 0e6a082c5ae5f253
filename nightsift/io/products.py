"""Write products: whole or not at all, with their provenance inside, the same bytes for the same inputs."""

from __future__ import annotations

import json
import math
import os
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

from nightsift import __version__
from nightsift.errors import Unreadable
from nightsift.flags import Flag, Mask, header_cards
from nightsift.io import written
from nightsift.tables import checked


@dataclass(frozen=True)
class Provenance:
    """What a product was made by and from."""

    stage: str
    code: str
    params: dict
    inputs: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict:
        """Return the provenance for a JSON or table header."""
        return {
            "stage": self.stage,
            "version": __version__,
            "code": self.code,
            "params": self.params,
            "inputs": self.inputs,
        }

    def cards(self) -> list[tuple]:
        """Return the provenance as FITS cards."""
        parameters = json.dumps(self.params, sort_keys=True)
        cards = [
            ("NSSTAGE", self.stage, "stage that made this file"),
            ("NSVERS", __version__, "nightsift version"),
            ("NSCODE", self.code, "hash of the stage's code"),
            ("NSPARAM", parameters),
        ]
        digests = sorted(self.inputs.items())
        return cards + [
            (f"NSIN{i:02d}", f"{name} sha256:{digest}", "input") for i, (name, digest) in enumerate(digests)
        ]


@contextmanager
def atomic(path):
    """Yield a temporary path beside `path` that takes its place when the block ends well, and vanishes otherwise."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{path.name}.*.part"):
        left.unlink(missing_ok=True)  # by a process that was killed: each product has one writer
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


@contextmanager
def recorded(path):
    """As `atomic`, for a product: what was written is recorded, so that a later run can tell whether it is whole."""
    with atomic(path) as temporary:
        yield temporary
        written.note(path, temporary)


@contextmanager
def reading(path):
    """Turn what goes wrong with a file that is there into `Unreadable`, which names it."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (OSError, ValueError, TypeError, KeyError, IndexError, fits.VerifyError) as error:
        raise Unreadable(path, error) from error


def plain(value):
    """Return `value` with numpy scalars and arrays as Python's own and everything not finite as None."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_json(path, content: dict) -> None:
    """Write a JSON file."""
    with recorded(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        json.dump(plain(content), file, indent=1, allow_nan=False)
        file.write("\n")


def read_json(path) -> dict:
    """Read a JSON file."""
    with reading(path), open(path, encoding="utf-8") as file:
        return json.load(file)


def write_table(path, table: Table, schema: str, provenance: Provenance) -> None:
    """Write a table after checking it against its schema; FITS or ECSV by the file's name.

    Raises
    ------
    nightsift.tables.SchemaError
        If the table lacks a column of its schema or has one of another kind.
    """
    table = checked(table, schema)
    with recorded(path) as temporary:
        if str(path).endswith(".ecsv"):
            table.meta = {**table.meta, "provenance": plain(provenance.as_dict())}
            table.write(temporary, format="ascii.ecsv", overwrite=True)
            return
        hdu = fits.table_to_hdu(table)
        hdu.name = schema.upper()
        if "flags" in table.colnames:
            hdu.header.extend(header_cards(Flag))
        hdu.header.extend(provenance.cards())
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(temporary, overwrite=True)


def read_table(path) -> Table:
    """Read a table that `write_table` wrote."""
    with reading(path):
        if str(path).endswith(".ecsv"):
            return Table.read(path, format="ascii.ecsv")
        with fits.open(path, memmap=False) as hdus:
            return Table.read(hdus[1], character_as_bytes=False)


def read_wcs(path) -> WCS:
    """Read a plate solution that `write_images` wrote without pixels."""
    with reading(path):
        header = fits.getheader(path)
    header.strip()  # NAXIS = 0 would be taken for the shape of the image
    return WCS(header)


def write_images(path, images: dict[str, np.ndarray], header: fits.Header | None, provenance: Provenance) -> None:
    """Write images as extensions named by the keys, each with `header` (a WCS), after an empty primary.

    A single image stands in the primary HDU. Extensions whose name holds MASK get the names of the planes.
    """
    header = fits.Header() if header is None else header
    hdus = []
    for name, data in images.items():
        cards = header.copy()
        if "MASK" in name:
            cards.extend(header_cards(Mask))
        cards.extend(provenance.cards())
        kind = fits.PrimaryHDU if len(images) == 1 else fits.ImageHDU
        hdus.append(kind(data, cards))
        if len(images) > 1:
            hdus[-1].name = name
    if len(images) != 1:
        primary = fits.PrimaryHDU()
        primary.header.extend(provenance.cards())
        hdus.insert(0, primary)
    with recorded(path) as temporary:
        fits.HDUList(hdus).writeto(temporary, overwrite=True)


def read_images(path) -> tuple[dict[str, np.ndarray], fits.Header]:
    """Read what `write_images` wrote: the arrays by extension name, and the first one's header."""
    images, header = {}, None
    with reading(path), fits.open(path, memmap=False) as hdus:
        for hdu in hdus:
            if hdu.data is not None:
                images[hdu.name] = np.ascontiguousarray(hdu.data, dtype=hdu.data.dtype.newbyteorder("="))
                header = hdu.header.copy() if header is None else header
    return images, header
