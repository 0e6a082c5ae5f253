"""Reading FITS images whatever their packing: one 2-D float32 array and one header."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits

from nightsift.errors import Rejected, Unreadable
from nightsift.header.readers import linearised

SUFFIXES, PACKINGS = (".fits", ".fit", ".fts"), (".fz", ".gz", ".bz2", ".xz")

_NOT_SCIENCE = ("ERR", "DQ", "WHT", "WEIGHT", "MASK", "BPM", "VAR", "CAT", "SIGMA", "RMS", "NOISE", "BKG", "BACK")
_NOT_MERGED = {"SIMPLE", "XTENSION", "BITPIX", "NAXIS", "EXTEND", "GROUPS", "PCOUNT", "GCOUNT", "TFIELDS", "BSCALE"}
_NOT_MERGED |= {"BZERO", "BLANK", "EXTNAME", "EXTVER", "EXTLEVEL", "INHERIT", "CHECKSUM", "DATASUM", "NEXTEND", ""}
_NOT_MERGED |= {"COMMENT", "HISTORY", "END"}
_WCS_STEMS = ("CTYPE", "CRVAL", "CRPIX", "CDELT", "CROTA", "CUNIT", "CD1_", "CD2_", "PC1_", "PC2_", "PC00", "CD00")
_WCS_STEMS += ("PV1_", "PV2_", "A_", "B_", "AP_", "BP_", "WCSAXES", "LONPOLE", "LATPOLE", "LTM", "LTV", "WAT")
_DAMAGE = (OSError, ValueError, TypeError, KeyError, IndexError, fits.VerifyError)
_BROKEN = (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile)
_DECOMPRESSORS = ((b"\x1f\x8b", gzip.decompress), (b"BZh", bz2.decompress), (b"\xfd7zXZ", lzma.decompress))


@dataclass(frozen=True)
class Image:
    """One image of a FITS file.

    Attributes
    ----------
    data : ndarray
        2-D float32, native byte order, linear in flux; NaN where the file says BLANK or the value is not finite.
    header : astropy.io.fits.Header
        The image HDU's header as in the file (BITPIX, BSCALE and BZERO are those of the file), completed by the
        primary's cards for an extension.
    hdu : int
        Number of the HDU.
    """

    data: np.ndarray
    header: fits.Header
    hdu: int


def read_image(path, hdu: int | None = None) -> Image:
    """Read a 2-D image from a FITS file, plain, multi-extension, tile-compressed or gzipped as a whole.

    Parameters
    ----------
    path : str or path-like
        The file.
    hdu : int, optional
        HDU to read. By default the first 2-D image with data, one called SCI before others; masks, errors and
        weights are passed over unless nothing else is there.

    Returns
    -------
    Image

    Raises
    ------
    nightsift.errors.Rejected
        For a file that is empty, truncated, not FITS, or without a 2-D image.
    nightsift.errors.Unreadable
        When the system refuses to read it.
    FileNotFoundError
        When there is no such file.
    """
    path = Path(path)
    try:
        return _read(path, _source(path), hdu)
    except _BROKEN as error:
        raise Rejected(f"{path.name}: the compressed file is damaged ({error})") from error
    except OSError as error:
        raise _verdict(path, error) from error


def read_header(path) -> tuple[fits.Header, tuple[int, int]]:
    """Return the header of the image that `read_image` would read, and its rows and columns, without its pixels.

    Raises
    ------
    nightsift.errors.Rejected
        For a file that is empty, not FITS, or without a 2-D image.
    """
    path = Path(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with _open(_source(path), do_not_scale_image_data=True) as hdus:
                number = _choose(hdus, path.name)
                header = _merged(hdus[number].header, hdus[0].header if number else None)
                return header, _plane_shape(hdus[number])
        except (*_DAMAGE, *_BROKEN) as error:
            raise _verdict(path, error) from error


def read_mask(path, shape) -> np.ndarray:
    """Read a mask image; every pixel that is not 0 is bad.

    Parameters
    ----------
    path : str or path-like
        FITS file.
    shape : tuple of int
        Shape the mask must have, (ny, nx).

    Returns
    -------
    ndarray
        Boolean, True = bad.

    Raises
    ------
    nightsift.errors.Rejected
        When the file is no mask of that shape.
    FileNotFoundError
        When there is no such file.
    """
    mask = read_image(path).data
    if mask.shape != tuple(shape):
        raise Rejected(f"{Path(path).name}: the mask is {_size(mask.shape)}, the image {_size(shape)}")
    return mask != 0


def _size(shape) -> str:
    return " x ".join(str(side) for side in reversed(shape))


def _source(path: Path):
    with path.open("rb") as file:
        start = file.read(80)
    if not start:
        raise Rejected(f"{path.name}: the file is empty")
    for magic, decompress in _DECOMPRESSORS:
        if start.startswith(magic):
            packed = path.read_bytes()
            try:
                raw = decompress(packed)
            except (OSError, ValueError) as error:
                raise Rejected(f"{path.name}: the compressed file is damaged ({error})") from error
            start = raw[:80]
            break
    else:
        raw = None
    if not start.startswith(b"SIMPLE"):
        raise Rejected(f"{path.name}: not a FITS file (it does not begin with SIMPLE)")
    return path if raw is None else raw


def _open(source, **options):
    # astropy closes what it was given, so every opening gets a stream of its own.
    stream = source if isinstance(source, Path) else io.BytesIO(source)
    return fits.open(stream, mode="readonly", memmap=False, **options)


def _read(path: Path, source, wanted: int | None) -> Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            check_complete(path.name, source)
            with _open(source, do_not_scale_image_data=True) as hdus:
                number = _choose(hdus, path.name) if wanted is None else wanted
                if not 0 <= number < len(hdus):
                    raise Rejected(f"{path.name}: there is no HDU {number}")
                chosen = hdus[number]
                shape = _plane_shape(chosen)
                if shape is None:
                    raise Rejected(f"{path.name}: HDU {number} is no 2-D image ({_kind(chosen)})")
                data = _to_float(chosen.data, chosen.header).reshape(shape)
                header = _merged(chosen.header, hdus[0].header if number else None)
                data = linearised(data, header)
        except Rejected:
            raise
        except _DAMAGE as error:
            raise _verdict(path, error) from error
    return Image(data=data, header=header, hdu=number)


def _verdict(path: Path, error: Exception) -> Exception:
    """Return what to raise: what the system says of a file (permissions, the disk) is no verdict on its content."""
    if isinstance(error, FileNotFoundError):
        return error
    if isinstance(error, OSError) and error.errno:
        return Unreadable(path, error)
    return Rejected(f"{path.name}: the file cannot be read as FITS ({_first_line(error)})")


def _first_line(error) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def check_complete(name: str, source) -> None:
    """Raise `Rejected` for a FITS file, a path or its bytes, of which something is missing."""
    # astropy only warns of a truncated file and fills what is missing, so the sizes are compared here.
    length = source.stat().st_size if isinstance(source, Path) else len(source)
    with _open(source, disable_image_compression=True) as hdus:
        end = 0
        for number, item in enumerate(hdus):
            info = item.fileinfo()
            end = info["datLoc"] + info["datSpan"]
            # A missing last padding is a common slip of writers and loses nothing: hence the size, not the span.
            if info["datLoc"] + item.size > length:
                missing = info["datLoc"] + item.size - length
                raise Rejected(f"{name}: truncated, {missing} bytes of HDU {number} are missing")
    if end < length and _bytes_at(source, end, 8).startswith(b"XTENSION"):
        raise Rejected(f"{name}: truncated or damaged after HDU {number}")


def _bytes_at(source, start: int, count: int) -> bytes:
    if isinstance(source, Path):
        with source.open("rb") as file:
            file.seek(start)
            return file.read(count)
    return source[start : start + count]


def _plane_shape(item) -> tuple[int, int] | None:
    if not item.is_image or not item.shape:
        return None
    lead, plane = item.shape[:-2], item.shape[-2:]
    return tuple(plane) if len(plane) == 2 and 0 not in plane and all(side == 1 for side in lead) else None


def _kind(item) -> str:
    if not item.is_image:
        return "a table"
    if not item.shape or 0 in item.shape:
        return "no data"
    return f"{len(item.shape)}-D: {_size(item.shape)}"


def _choose(hdus, name: str) -> int:
    planes = [number for number, item in enumerate(hdus) if _plane_shape(item) is not None]
    if not planes:
        found = ", ".join(f"HDU {number}: {_kind(item)}" for number, item in enumerate(hdus))
        raise Rejected(f"{name}: no 2-D image in the file ({found})")
    names = {number: str(hdus[number].name).upper() for number in planes}
    science = [number for number in planes if names[number] == "SCI"]
    neutral = [number for number in planes if not names[number].startswith(_NOT_SCIENCE)]
    return (science or neutral or planes)[0]


def _to_float(raw: np.ndarray, header: fits.Header) -> np.ndarray:
    scale, zero = float(header.get("BSCALE", 1.0)), float(header.get("BZERO", 0.0))
    plain = scale == 1.0 and zero == 0.0
    data = raw.astype(np.float32) if plain else (raw * scale + zero).astype(np.float32)
    if raw.dtype.kind in "iu" and isinstance(header.get("BLANK"), int):
        data[raw == header["BLANK"]] = np.nan
    data[~np.isfinite(data)] = np.nan
    return np.ascontiguousarray(data)


def _merged(header: fits.Header, primary: fits.Header | None) -> fits.Header:
    result = fits.Header()
    for card in header.cards:
        _append(result, card)
    if primary is None:
        return result
    # A solution made of the cards of two HDUs would be nobody's: the primary's is taken whole or not at all.
    own_wcs = "CTYPE1" in result
    for card in primary.cards:
        keyword = card.keyword
        if keyword in _NOT_MERGED or keyword in result or keyword.startswith("NAXIS"):
            continue
        if not (own_wcs and keyword.startswith(_WCS_STEMS)):
            _append(result, card)
    return result


def _append(header: fits.Header, card: fits.Card) -> None:
    # Unreadable cards are left out: astropy raises whenever such a card is looked at.
    try:
        card.verify("silentfix")
        header.append(fits.Card(card.keyword, card.value, card.comment), end=True)
    except (ValueError, TypeError, fits.VerifyError):
        pass


def fits_files(folder) -> list[Path]:
    """Return the files in a folder, not below it, that by their names are FITS images, in the order of these."""
    return sorted(path for path in Path(folder).iterdir() if path.is_file() and stem_of(path.name) != path.name)


def stem_of(name: str) -> str:
    for packing in PACKINGS:
        name = name.removesuffix(packing)
    return next((name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)), name)
