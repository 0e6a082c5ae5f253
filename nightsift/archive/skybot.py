"""Bodies of the solar system from SkyBoT (Berthier et al. 2006, ASPC 351, 367)."""

from __future__ import annotations

import numpy as np
from astropy import units as u
from astropy.coordinates import Angle, get_body
from astropy.table import Table
from astropy.time import Time
from astropy.utils import iers

from nightsift.archive import votable
from nightsift.archive.http import BadReply, Session
from nightsift.archive.tables import empty, numbers, table, texts

SERVICE = "skybot"
URL = "https://ssp.imcce.fr/webservices/skybot/api/conesearch.php"
# SkyBoT calls a field without any body an error.
NOTHING = b"No solar system object was found"
GEOCENTER = "500"
LARGEST = 5.0  # deg
_MAX_ERROR = 120  # arcsec
_PARALLAX = 8.794  # arcsec at 1 au
_CONTROL = 0.2  # deg


def check(body: bytes) -> None:
    """Raise `BadReply` for a body that is an error or not whole."""
    votable.check(body.replace(b'value="ERROR"', b'value="OK"') if NOTHING in body else body)


def in_cone(cone: tuple[float, float, float], mjd: float, observatory: str, session: Session) -> Table:
    """Return the bodies in a cone [deg] at `mjd`: names with their numbers, classes, V, errors of the ephemeris.

    Seen from the centre of the Earth, the error holds the parallax of an observer who is elsewhere.

    Raises
    ------
    nightsift.archive.http.ServiceDown, nightsift.archive.http.BadReply
        None found is believed only if Jupiter is found where it must be.
    """
    found = _ask(cone, mjd, observatory, session)
    if not len(found) and not len(_ask(_jupiter(mjd), mjd, observatory, session)):
        raise BadReply(f"SkyBoT does not know Jupiter at MJD {mjd:.5f}, which cannot be")
    return found


def _jupiter(mjd: float) -> tuple[float, float, float]:
    with iers.conf.set_temp("auto_download", False):
        place = get_body("jupiter", Time(mjd, format="mjd", scale="utc"), ephemeris="builtin")
    return float(place.ra.deg), float(place.dec.deg), _CONTROL


def _ask(cone, mjd: float, observatory: str, session: Session) -> Table:
    ra, dec, radius = cone
    question = {
        "-ep": f"{mjd + 2400000.5:.6f}",
        "-ra": f"{ra:.6f}",
        "-dec": f"{dec:.6f}",
        "-rd": f"{radius:.4f}",
        "-loc": observatory,
        "-mime": "votable",
        "-output": "all",
        "-objFilter": "111",  # asteroids, planets, comets
        "-filter": str(_MAX_ERROR),
        "-refsys": "EQJ2000",
        "-from": "nightsift",
    }
    body = session.get(URL, params=question).content
    try:
        raw = None if NOTHING in body else votable.parse(body)
    except votable.Overflow:
        raise BadReply("SkyBoT does not send all bodies of the field") from None
    if raw is None or not len(raw):
        return empty()
    ra, dec = (_position(raw, *names) for names in (("_RAJ2000", "RA", "hourangle"), ("_DECJ2000", "DEC", "deg")))
    error = np.nan_to_num(numbers(raw, ("ErrPos",), "SkyBoT"))
    if observatory == GEOCENTER:
        distance = numbers(raw, ("Dgeo", "Dobs", "dg"), "SkyBoT")
        error = np.hypot(error, np.nan_to_num(_PARALLAX / np.where(distance > 0, distance, np.nan)))
    mag = numbers(raw, ("Mv", "VMag"), "SkyBoT")
    return table(_names(raw), texts(raw, "Class"), ra=ra, dec=dec, mag=mag, error=error)


def _position(raw: Table, degrees: str, sexagesimal: str, unit: str) -> np.ndarray:
    if degrees in raw.colnames:
        return numbers(raw, (degrees,), "SkyBoT")
    if sexagesimal not in raw.colnames:
        raise BadReply(f"SkyBoT's table comes without {degrees} or {sexagesimal}")
    try:
        return Angle(texts(raw, sexagesimal), unit=unit).to_value(u.deg)
    except ValueError as error:
        raise BadReply(f"SkyBoT's {sexagesimal} cannot be read ({error})") from error


def _names(raw: Table) -> list[str]:
    if "Name" not in raw.colnames:
        raise BadReply("SkyBoT's table comes without Name")
    return [
        f"({number}) {name}" if number not in ("", "-") else str(name)
        for number, name in zip(texts(raw, "Num"), texts(raw, "Name"), strict=True)
    ]
