"""Surveys that templates are made of: which suits an image, and their pieces of sky in one form."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from nightsift.archive import bricks, hips, skycells
from nightsift.archive.http import BadReply, ServiceDown, Session
from nightsift.archive.library import Library, summary
from nightsift.archive.reduction import reduced
from nightsift.errors import Rejected, Unavailable
from nightsift.io.fits import check_complete, read_image
from nightsift.template.mosaic import Piece

# Of how pieces are made of files, for the names in the cache: to be raised with every change of that.
REVISION = 1
FINE_ENOUGH = 0.5  # arcsec: a template of the usual seeing does not need smaller pixels
# The bands of a survey that come closest to an image's own, the best first, as in STDWeb (arXiv:2411.16470).
NEAREST = {"U": "ug", "B": "g", "V": "gr", "R": "ri", "I": "iz", "G": "rg", "BP": "g", "RP": "ir", None: "rgi"}
NEAREST |= {"u": "ug", "g": "g", "r": "ri", "i": "ir", "z": "zi", "y": "yz", "J": ("J",), "H": ("H",), "Ks": ("Ks",)}


@dataclass(frozen=True)
class ImageSource:
    """A survey's images.

    Attributes
    ----------
    name, title, service : str
    bands : tuple of str
    scale : float
        Pixel size [arcsec].
    declinations : pair of float
        Where it has observed at all [deg]; it need not have all of that.
    find : callable
        Names of the pieces in which positions [deg] lie; '' for none.
    geometry : callable
        Solution and shape of a piece, by its name.
    files : callable
        Where a piece may be, by name and band: files by role (image, mask, weight), a dictionary for each place.
    exists : callable or None
        Whether a piece whose image a service lacks is there nevertheless; raises `BadReply` where that is unclear.
    meaning : callable or None
        Planes of the bits of a mask, by band.
    variance : callable or None
        Variance of what stands in a weight.
    hdu : int
        That holds the pixels.
    exposure : bool
        Whether pixels grow with the exposure time.
    asinh : bool
        Whether pixels are asinh magnitudes without constants.
    complete : pair of float or None
        Declinations between which a piece without any pixel is no answer.
    control : str or None
        Where there are pixels for certain: a piece without any is an answer only if these are there.
    """

    name: str
    title: str
    service: str
    bands: tuple[str, ...]
    scale: float
    declinations: tuple[float, float]
    find: Callable
    geometry: Callable
    files: Callable
    exists: Callable | None = None
    meaning: Callable | None = None
    variance: Callable | None = None
    hdu: int = 0
    exposure: bool = False
    asinh: bool = False
    complete: tuple[float, float] | None = None
    control: str | None = None


def _inverse(weight):
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(weight > 0, 1 / weight, np.nan)


PS1 = ImageSource(
    *("ps1", "Pan-STARRS", skycells.SERVICE, ("g", "r", "i", "z", "y"), skycells.SCALE, (-32.0, 90.0)),
    *(skycells.find, skycells.geometry, skycells.files, skycells.exists, skycells.meaning, np.asarray),
    hdu=1,
    exposure=True,
    complete=(-28.0, 90.0),
)
LEGACY = ImageSource(
    *("legacy", "the Legacy Surveys", bricks.SERVICE, ("g", "r", "i", "z"), bricks.SCALE, (-70.0, 85.0)),
    *(bricks.find, bricks.geometry, bricks.files, bricks.exists, bricks.meaning, _inverse),
    hdu=1,
    # A band that nobody has observed there has no file.
    complete=(-90.0, 90.0),
)


def of_hips(name: str, band: str, wanted: float) -> ImageSource:
    """Return a survey of hips2fits, in pixels of `wanted` arcsec or a little less."""
    survey = hips.SURVEYS[name]
    scale = survey.scale * 2 ** hips.doublings(wanted, survey, band)
    return ImageSource(
        *(f"hips-{name}-{scale:g}", f"{survey.title} (HiPS)", hips.SERVICE, tuple(survey.names), scale),
        survey.declinations,
        partial(hips.find, scale=scale),
        partial(hips.geometry, scale=scale),
        lambda cell, wanted_band: hips.files(cell, survey.names[wanted_band], scale),
        asinh=band in survey.asinh,
        control=hips.control(survey, band),
    )


def hips_bands(name: str) -> tuple[str, tuple[str, ...]]:
    """Return the title and the bands of a survey of hips2fits."""
    return hips.SURVEYS[name].title, tuple(hips.SURVEYS[name].names)


def nearest(band: str | None, bands) -> str | None:
    """Return the one of a survey's bands that comes closest to an image's, None if none does."""
    return next((name for name in NEAREST[band] if name in bands), None)


def suitable(source: str, survey: str | None, band: str | None, dec: float, latitude: float) -> list[tuple[str, str]]:
    """Return the kinds and surveys to try, the best first: the next is for where that has nothing.

    Parameters
    ----------
    source : str
        ``ps1``, ``legacy``, ``hips`` or ``auto``.
    survey : str or None
        Of `nightsift.archive.hips.SURVEYS`, if only that one is wanted of hips.
    band : str or None
        Of the image.
    dec, latitude : float
        Declination and Galactic latitude of its centre [deg].

    Notes
    -----
    ``auto`` chooses like STDWeb: Pan-STARRS north of -30 degrees, else the Legacy Surveys off the plane of the Galaxy,
    else SkyMapper; and 2MASS in the near infrared.
    """
    if source in ("ps1", "legacy"):
        return [(source, source)]
    if survey:
        return [("hips", survey)]
    if band in ("J", "H", "Ks"):
        return [("hips", "2mass")]
    north = dec > -30
    if source == "hips":
        return [("hips", name) for name in (("ps1", "ztf") if north else ("skymapper", "des", "decaps"))]
    if north:
        return [("ps1", "ps1"), ("hips", "ztf")]
    deep = [("legacy", "legacy")] if abs(latitude) > 20 else []
    return [*deep, ("hips", "skymapper"), ("hips", "decaps")]


def check(body: bytes) -> None:
    """Raise `BadReply` for a body that is no FITS image, or not a whole one."""
    if not body.startswith(b"SIMPLE"):
        page = b"<html" in body[:500].lower() or b"<!doctype" in body[:500].lower()
        what = "a web page" if page else f"{bytes(body[:40])!r}"
        raise BadReply(f"the reply is no FITS file but {what}" if body.strip() else "the reply is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            check_complete("the reply", body)
    except Rejected as error:
        raise BadReply(str(error)) from error
    # The reader raises whatever it stumbles over.
    except Exception as error:
        raise BadReply(f"the reply cannot be read as FITS ({str(error).splitlines()[0][:200]})") from error


def pieces(library: Library, source: ImageSource, band: str, names, factor: int) -> tuple[list[Path], dict[str, str]]:
    """Return the files of those pieces of a survey that there are, and all digests by name, '' where there is none.

    Parameters
    ----------
    library : Library
    source : ImageSource
    band : str
    names : iterable of str
    factor : int
        Pixels that are summed along each side.

    Raises
    ------
    Unavailable
        After all that can be had is in the cache; the message says how many pieces are not, and why.
    """
    paths, digests, failures = [], {}, {}
    for name in names:
        try:
            path = _piece(library, source, band, name, factor)
        except ServiceDown as error:
            failures[name] = error
            break
        except Unavailable as error:
            failures[name] = error
            continue
        digests[name] = ""
        if path:
            paths.append(path)
            digests[name] = fits.getheader(path, 0)["DATASUM"]
    if failures:
        raise summary(source.title, failures, len(digests))
    return paths, digests


def read_piece(path) -> Piece:
    """Read a file of `pieces`."""
    with fits.open(path, memmap=False) as hdus:
        planes = {hdu.name: hdu.data.astype(hdu.data.dtype.newbyteorder("="), copy=False) for hdu in hdus}
        wcs = WCS(hdus[0].header)
    return Piece(planes["PRIMARY"], planes.get("NOISE"), planes["MASK"], wcs)


def _piece(library: Library, source: ImageSource, band: str, name: str, factor: int) -> Path | None:
    """Return the file of one piece, None where the survey has none."""
    key = f"templates/{source.name}/{band}/{name}/x{factor}-{REVISION}.fits"
    # Those of the service are not needed any more once this is made.
    path = library.cache.find(key)
    if path:
        return path if path.stat().st_size else None
    for place in source.files(name, band):
        keys = {role: f"templates/{source.name}/{band}/{name}/{_file(url)}" for role, url in place.items()}
        found = {}
        for role, url in place.items():
            title = f"the {role} {name} of {source.title} in {band}"
            ask = partial(_ask, library, source, band, name, role, url)
            found[role] = library.get(keys[role], title, ask)
            if not found[role].stat().st_size:
                break
        else:
            make = partial(_made, library, source, band, name, factor, found, keys)
            path = library.cache.get(key, make)
            return path if path.stat().st_size else None
    return None


def _file(url: str) -> str:
    return "image.fits" if "?" in url else "-".join(url.split("/")[-6:])


def _ask(library: Library, source: ImageSource, band: str, name: str, role: str, url: str) -> tuple[bytes, dict]:
    """Return a file as the service has it; nothing where the survey has no such piece."""
    with library.session(source.service, check) as session:
        try:
            body = session.get(url).content
        except BadReply as error:
            if error.status != 404 or role != "image" or source.exists is None:
                raise
            if _is_there(library, source, name, band, url):
                raise
            body = b""
        if source.control and _blank(body) and _blank(session.get(source.control).content):
            raise BadReply(f"{source.title} comes without pixels even where it has some")
    return body, {"url": url, "survey": source.title, "band": band}


def _blank(body: bytes) -> bool:
    with fits.open(io.BytesIO(body), memmap=False) as hdus:
        return not any(np.isfinite(hdu.data).any() for hdu in hdus if hdu.is_image and hdu.data is not None)


def _is_there(library: Library, source: ImageSource, name: str, band: str, url: str) -> bool:
    servers = library.servers(source.service)
    with Session(source.service, servers, library.settings) as session:
        return source.exists(session, name, band, url)


def _made(library: Library, source: ImageSource, band, name, factor, paths, keys) -> tuple[bytes, dict]:
    """Return a piece made of its files, which are dropped if they are of no use."""
    try:
        images = {role: read_image(path, source.hdu) for role, path in paths.items()}
        piece = reduced(source, band, name, factor, images)
    except (Rejected, BadReply) as error:
        for key in keys.values():
            library.cache.forget(key)
        raise BadReply(f"{source.title}: {error}") from error
    about = {"survey": source.title, "band": band, "factor": factor}
    return (_file_of(piece) if piece else b""), about


def _file_of(piece: Piece) -> bytes:
    header = piece.wcs.to_header()
    hdus = [fits.PrimaryHDU(piece.data, header), fits.ImageHDU(piece.mask, name="MASK")]
    if piece.noise is not None:
        hdus.append(fits.ImageHDU(piece.noise, name="NOISE"))
    hdus[0].add_datasum()
    content = io.BytesIO()
    fits.HDUList(hdus).writeto(content)
    return content.getvalue()


def factor_for(pixel: float, scale: float) -> int:
    """Return how many pixels of `scale` to sum along a side for an image with pixels of `pixel` [arcsec]."""
    return max(int(np.floor(wanted_scale(pixel) / scale + 1e-6)), 1)


def wanted_scale(pixel: float) -> float:
    """Return the largest pixels [arcsec] that a template for an image with pixels of `pixel` may have."""
    return min(max(pixel / 2, FINE_ENOUGH), pixel)


def read_all(paths) -> Iterator[Piece]:
    """Read files of `pieces`, one after the other."""
    return (read_piece(path) for path in paths)
