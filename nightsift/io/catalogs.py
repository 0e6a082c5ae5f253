"""Reading a star catalogue from a file."""

from __future__ import annotations

import gzip
import itertools
import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from astropy import units as u
from astropy.io import votable
from astropy.table import Table

from nightsift.statistics import MAG

_MAGNITUDE = re.compile(r"(e_)?([A-Za-z][A-Za-z0-9]*)mag")
_POSITIONS = (("raj2000", "dej2000"), ("ra", "dec"), ("ra_icrs", "de_icrs"))
_EPOCHS = ("epoch", "ref_epoch")
# Names of Gaia's archive, and what they are called here.
_GAIA_MAGNITUDES = {"phot_g_mean_mag": "Gmag", "phot_bp_mean_mag": "BPmag", "phot_rp_mean_mag": "RPmag"}
_GAIA_EPOCHS = {"DR1": 2015.0, "DR2": 2015.5, "EDR3": 2016.0, "DR3": 2016.0}
_DESIGNATIONS = {"source_id", "source", "designation", "dr1name", "dr2name", "edr3name", "dr3name", "gaia"}
_ONLY_IN_DR2 = {"radius_val", "lum_val", "teff_val", "a_g_val", "priam_flags", "astrometric_weight_al"}
_RELEASE = re.compile(r"gaia[ _./-]*(?:source[ _./-]*)?(e?dr[123])|\b(dr[12])name\b|\b(i/3(?:37|45))\b")
_LARGE_NUMBER = 2**35  # Gaia numbers hold a cell of the sky from this bit on
_KINDS = {
    ".fits": "fits",
    ".fit": "fits",
    ".fts": "fits",
    ".fz": "fits",
    ".csv": "csv",
    ".ecsv": "ecsv",
    ".vot": "votable",
    ".votable": "votable",
    ".xml": "votable",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_FAINTEST, _BRIGHTEST = 50.0, -9.0
_LARGEST_ERROR = 9.0
_LARGEST_MOTION = 2e4
_FIRST_EPOCH, _LAST_EPOCH = 1800.0, 2200.0
_FIRST_MJD = 15000.0


def read_catalog(path) -> Table:
    """Read the stars of a local catalogue file.

    Parameters
    ----------
    path : path-like
        FITS, CSV, ECSV, VOTable or Parquet file, told apart by its suffix (CSV, ECSV and FITS may be gzipped), with
        the columns ``RAJ2000 DEJ2000`` or ``ra dec`` [deg, or the unit the file states], optional ``pmRA pmDE``
        [mas/yr, pmRA with the factor cos(dec)] and ``epoch`` [Julian year; also as header or meta entry; default that
        of the release for Gaia's own columns, else 2000], ``<band>mag`` and optional ``e_<band>mag``. Only the bands
        are case-sensitive. ``phot_g_mean_mag`` and the like of Gaia's archive are read as ``Gmag``.

    Returns
    -------
    Table
        Columns ``ra dec`` [deg], ``pmRA pmDE`` [mas/yr] if there, ``epoch`` [yr], ``<band>mag`` and ``e_<band>mag``
        [mag], all float64. Masked and sentinel values (-999, 99.9 and the like) are NaN; stars without a valid
        position are left out. ``warnings`` in its meta: what is to be said of it.

    Raises
    ------
    ValueError
        The file cannot be read, or lacks needed columns; the sentence names what is missing and what is there.
    FileNotFoundError
        There is no such file.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no catalogue file {path}.")
    tables = _tables(path)
    problem = None
    for raw in tables:
        problem = _missing(raw.colnames)
        if problem is None:
            return _clean(raw, path)
    columns = ", ".join(tables[0].colnames) if tables else "none"
    raise ValueError(f"The catalogue {path} lacks {problem or 'a table'}; its columns are: {columns}.")


def _tables(path: Path) -> list[Table]:
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    kind = _KINDS.get(suffixes[-1]) if suffixes else None
    if kind is None:
        raise ValueError(
            f"The catalogue {path} is of no known format: the name must end in one of {', '.join(_KINDS)}."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _read(path, kind)
    except ImportError as error:
        raise ValueError(
            f"The catalogue {path} cannot be read: Parquet needs the package pyarrow, which is not installed."
        ) from error
    except OSError as error:
        raise ValueError(f"The catalogue {path} cannot be read: {error}") from error
    # the readers raise whatever their parsers do when a file is not what its name says
    except Exception as error:
        raise ValueError(f"The catalogue {path} is not valid {kind}: {error}") from error


def _read(path: Path, kind: str) -> list[Table]:
    if kind == "votable":
        tree = votable.parse(path, verify="ignore")
        return [table.to_table(use_names_over_ids=True) for table in tree.iter_tables() if table.nrows]
    if kind in ("csv", "parquet"):
        if kind == "csv":
            frame = pd.read_csv(path, engine="c", comment="#", skipinitialspace=True)
        else:
            frame = pd.read_parquet(path)
        table = Table(meta={"comments": _comments(path)} if kind == "csv" else {})
        for name in frame.columns:
            column = frame[name]
            numeric = pd.api.types.is_numeric_dtype(column)
            table[str(name).strip()] = column.to_numpy(float, na_value=np.nan) if numeric else column.to_numpy(object)
        return [table]
    if kind == "ecsv":
        return [Table.read(path, format="ascii.ecsv")]
    return [Table.read(path, format="fits", unit_parse_strict="silent")]


def _comments(path: Path) -> str:
    """Return the comments before the first line of a CSV file."""
    with (gzip.open if path.suffix.lower() == ".gz" else open)(path, "rt", errors="replace") as file:
        return " ".join(itertools.takewhile(lambda line: line.startswith("#"), file))


def _find(names: list[str], wanted: str) -> str | None:
    return next((name for name in names if name.strip().lower() == wanted), None)


def _position_columns(names: list[str]) -> tuple[str, str] | None:
    for pair in _POSITIONS:
        found = tuple(_find(names, wanted) for wanted in pair)
        if all(found):
            return found
    return None


def _magnitude_columns(names: list[str]) -> dict[str, str]:
    found = {name: name.strip() for name in names if _MAGNITUDE.fullmatch(name.strip())}
    archive = {name: _GAIA_MAGNITUDES.get(name.strip().lower()) for name in names}
    return found | {name: band for name, band in archive.items() if band and band not in found.values()}


def _missing(names: list[str]) -> str | None:
    lacks = []
    if _position_columns(names) is None:
        lacks.append("the positions RAJ2000 and DEJ2000 (or ra and dec)")
    if all(name.startswith("e_") for name in _magnitude_columns(names).values()):
        lacks.append("magnitudes (<band>mag, such as rmag)")
    return " and ".join(lacks) or None


def _values(table: Table, name: str, unit, path: Path) -> np.ndarray:
    """Return a column as float64 in `unit`, masked values as NaN."""
    column = table[name]
    data = np.ma.getdata(column)
    try:
        if data.dtype.kind in "OSU":
            values = pd.to_numeric(pd.Series(np.asarray(data, dtype=object))).to_numpy(float)
        else:
            values = np.array(data, dtype=float)
    except (ValueError, TypeError) as error:
        raise ValueError(f"The column {name} of the catalogue {path} is not a number in every row.") from error
    if values.ndim != 1:
        raise ValueError(f"The column {name} of the catalogue {path} holds more than one number a row.")
    mask = np.ma.getmaskarray(np.ma.asarray(column)) if hasattr(column, "mask") else None
    if mask is not None:
        values[mask] = np.nan
    declared = getattr(column, "unit", None)
    if unit is not None and isinstance(declared, u.UnitBase) and not isinstance(declared, u.UnrecognizedUnit):
        if declared.is_equivalent(unit):
            values *= declared.to(unit)
    return values


def _within(values: np.ndarray, low: float, high: float) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return np.where((values >= low) & (values <= high), values, np.nan)


def _said(raw: Table, path: Path) -> str:
    """Return what file, table and designations say of the release of Gaia that they are from, in small letters."""
    named = [name for name in raw.colnames if name.strip().lower() in _DESIGNATIONS]
    first = [str(raw[name][0]) for name in named if len(raw)]
    return " ".join([path.name, *map(str, raw.meta.values()), *raw.colnames, *first]).lower()


def _gaia_release(raw: Table, path: Path) -> str | None:
    """Return the release of Gaia that a table with Gaia's own columns is from; None for any other."""
    names = {name.strip().lower() for name in raw.colnames}
    number = _find(raw.colnames, "source_id")
    large = number is not None and len(raw) and raw[number].dtype.kind in "iuf" and np.max(raw[number]) > _LARGE_NUMBER
    archive = "phot_g_mean_mag" in names or (large and {"pmra", "pmdec"} <= names)
    # VizieR's own positions of J2000 are moved there.
    vizier = {"gmag", "bpmag", "rpmag"} <= names and names & _DESIGNATIONS and "raj2000" not in names
    if not archive and not vizier:
        return None
    said = _RELEASE.search(_said(raw, path))
    if said:
        release = next(part for part in said.groups() if part)
        return {"i/337": "DR1", "i/345": "DR2"}.get(release, release.upper())
    return "DR2" if names & _ONLY_IN_DR2 else "DR3"


def _epoch(raw: Table, path: Path, moving: bool) -> tuple[np.ndarray, list[str]]:
    """Return the epoch of each row, and what is to be said where the table has none and its stars move."""
    stated = next((value for key, value in raw.meta.items() if str(key).strip().lower() in _EPOCHS), None)
    name = next((found for wanted in _EPOCHS if (found := _find(raw.colnames, wanted))), None)
    values = np.full(len(raw), np.nan) if name is None else _years(_values(raw, name, None, path))
    try:
        default = float(_years(float(stated)))
    except (TypeError, ValueError):
        default = np.nan
    if np.isfinite(default) or (len(raw) and np.isfinite(values).all()):
        return np.where(np.isfinite(values), values, default), []
    release = _gaia_release(raw, path)
    if release:
        default = _GAIA_EPOCHS[release]
        note = f"has Gaia's columns and no epoch: its positions are taken for those of Gaia {release}, of {default}."
    else:
        default = 2000.0
        note = "has proper motions and no epoch: its positions are taken for those of 2000.0."
    note = f"The catalogue {path.name} {note} A column epoch, or such an entry in its header, would tell."
    return np.where(np.isfinite(values), values, default), [note] * moving


def _years(values):
    """Return Julian years of such, or of MJD; NaN of anything else."""
    values = np.where(np.asarray(values) > _FIRST_MJD, 2000.0 + (np.asarray(values) - 51544.5) / 365.25, values)
    return _within(values, _FIRST_EPOCH, _LAST_EPOCH)


def _clean(raw: Table, path: Path) -> Table:
    ra_name, dec_name = _position_columns(raw.colnames)
    ra = _within(_values(raw, ra_name, u.deg, path), -360.0, 360.0) % 360.0
    dec = _within(_values(raw, dec_name, u.deg, path), -90.0, 90.0)
    table = Table({"ra": ra, "dec": dec}, units={"ra": u.deg, "dec": u.deg})
    motion = [_find(raw.colnames, "pmra"), _find(raw.colnames, "pmde") or _find(raw.colnames, "pmdec")]
    if all(motion):
        for name, source in zip(("pmRA", "pmDE"), motion, strict=True):
            values = _values(raw, source, u.mas / u.yr, path)
            table[name] = _within(values, -_LARGEST_MOTION, _LARGEST_MOTION) * (u.mas / u.yr)
    table["epoch"], notes = _epoch(raw, path, all(motion))
    table["epoch"].unit = u.yr
    table.meta["warnings"] = notes
    for source, name in _magnitude_columns(raw.colnames).items():
        low, high = (0.0, _LARGEST_ERROR) if name.startswith("e_") else (_BRIGHTEST, _FAINTEST)
        table[name] = _within(_values(raw, source, u.mag, path), low, high)
        table[name].unit = u.mag
    for source, name in _GAIA_MAGNITUDES.items():
        ratio = _find(raw.colnames, source.replace("_mag", "_flux_over_error"))
        if ratio and name in table.colnames and f"e_{name}" not in table.colnames:
            with np.errstate(divide="ignore", invalid="ignore"):
                error = MAG / _values(raw, ratio, None, path)
            table[f"e_{name}"] = _within(error, 0.0, _LARGEST_ERROR) * u.mag
    return table[np.isfinite(ra) & np.isfinite(dec)]
