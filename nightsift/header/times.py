"""The middle of an exposure, from whatever dates and clocks a header holds."""

from __future__ import annotations

import re
import warnings as python_warnings
from dataclasses import dataclass, replace

import numpy as np
from astropy.io import fits
from astropy.time import Time

from nightsift.header import keywords
from nightsift.header.cards import comment, get, look, number

_FIRST_MJD, _LAST_MJD = 8000.0, 88069.0
_UNIX = 40587.0
_CLOCKS = {row.key for row in keywords.CLOCK}
_NO_MIDDLE = "no exposure time: the start of the exposure is taken for its middle"
_END = re.compile(r"(?<!front[ -])(?<!back[ -])\bend(s|ed|ing)?\b|\b(finish|stop|clos)(e|ed|es|ing)?\b|\blast pixel")
_WHOLE_DAYS = re.compile(r"jd\s*-\s*2[ ,.]?400[ ,.]?000(?![.,]?\d)")
_HALF_DAY = 43200.0  # seconds
_ROUNDING = 2.0  # seconds; of dates without fractions, and of MJD with five decimals
_ONE_SCALE_MJD = 41317.0  # UTC in whole seconds of TAI begins in 1972


@dataclass(frozen=True)
class _Moment:
    key: str
    role: str
    mjd: float
    unit: str
    composed: bool = False  # of a date and the time of day of another card


def _clock(value) -> float | None:
    """Return a time of day in days."""
    plain = number(value)
    if plain is not None:
        scale = 24.0 if plain < 24.0 else 86400.0
        return plain / scale if 0.0 <= plain < 86400.0 else None
    match = re.match(r"^(\d{1,2})[:\-h ](\d{1,2})[:\-m ](\d{1,2}(?:[.,]\d*)?)s?\s*(?:Z|UTC?)?$", str(value))
    if not match:
        match = re.match(r"^(\d{1,2})[:\-h](\d{1,2})()m?Z?$", str(value))
    if not match:
        return None
    hours, minutes, seconds = int(match[1]), int(match[2]), float((match[3] or "0").replace(",", "."))
    if hours > 24 or minutes > 59 or seconds >= 61.0:
        return None
    return (hours + (minutes + seconds / 60.0) / 60.0) / 24.0


def _calendar(text: str) -> float | None:
    """Return the MJD of midnight of a date in any of the usual orders."""
    match = re.match(r"^(\d{4})[-/:.](\d{1,2})[-/:.](\d{1,2})$", text) or re.match(r"^(\d{4})(\d\d)(\d\d)$", text)
    if match:
        year, month, day = (int(part) for part in match.groups())
    else:
        match = re.match(r"^(\d{1,2})[-/.](\d{1,2})[-/.](\d{2}|\d{4})$", text)
        if not match:
            return None
        day, month, year = (int(part) for part in match.groups())
        # The FITS standard has dd/mm/yy in the 1900s only, but writers went on with it after 1999.
        year += 0 if year > 99 else 1900 if year >= 50 else 2000
    try:
        return float((np.datetime64(f"{year:04d}-{month:02d}-{day:02d}") - np.datetime64("1858-11-17")).astype(int))
    except ValueError:
        return None


def parse_time(value) -> tuple[float | None, bool]:
    """Return the MJD of a moment, and whether it holds a time of day.

    Parameters
    ----------
    value : str or float
        ISO or dd/mm/yy date with or without time, MJD or JD (told apart by their size), also as text.

    Returns
    -------
    mjd : float or None
        None when it cannot be understood or lies outside 1880 to 2100.
    has_clock : bool
    """
    plain = number(value)
    if plain is not None and not re.match(r"^\d{8}$", str(value)):
        plain -= 2400000.5 if plain > 2.3e6 else 0.0
        return (plain, True) if _FIRST_MJD < plain < _LAST_MJD and plain != _UNIX else (None, True)
    parts = re.split(r"[T ]+", str(value).strip(), maxsplit=1)
    day = _calendar(parts[0])
    # A clock that was never set begins at the Unix epoch.
    if day is None or day == _UNIX or not _FIRST_MJD < day < _LAST_MJD:
        return None, False
    if len(parts) == 1:
        return day, False
    zone = re.match(r"^(.*?)([+-])(\d\d):?(\d\d)$", parts[1])
    # hh-mm-ss looks like a zone only to the hasty: a zone needs a full clock before it.
    if zone and (local := _clock(zone[1])) is not None and ":" in zone[1]:
        offset = (int(zone[3]) + int(zone[4]) / 60.0) / 24.0 * (1 if zone[2] == "+" else -1)
        return day + local - offset, True
    clock = _clock(parts[1])
    return (None, False) if clock is None else (day + clock, True)


def _parse(value, unit: str) -> tuple[float | None, bool]:
    """Return MJD and whether there is a time of day, of a value in a unit of `nightsift.header.keywords.TIME`."""
    plain = number(value)
    if unit in ("unix", "TAI"):
        mjd = None if plain is None else plain / 86400.0 + (_UNIX if unit == "unix" else 0.0)
        return (mjd, True) if mjd is not None and _FIRST_MJD < mjd < _LAST_MJD and mjd != _UNIX else (None, True)
    # Without its first digits a JD looks like an MJD half a day off.
    if unit == "JD" and plain is not None and plain < 2.3e6:
        return None, True
    return parse_time(value)


def _to_utc(mjd: float, scale: str) -> float:
    if scale == "gps":
        mjd, scale = mjd + 19.0 / 86400.0, "tai"
    if scale == "utc" or mjd < _ONE_SCALE_MJD:
        return mjd
    with python_warnings.catch_warnings():
        # Leap seconds to come are not known.
        python_warnings.simplefilter("ignore")
        return float(Time(mjd, format="mjd", scale=scale).utc.mjd)


def _iso(mjd: float) -> str:
    return str(np.datetime64("1858-11-17T00:00:00") + np.timedelta64(round(mjd * 86400.0), "s"))


def _scale(header: fits.Header, warnings: list[str]) -> str:
    name = str(get(header, "TIMESYS") or "UTC").upper().split()[0].split("(")[0]
    if name == "GPS":
        return "gps"
    if name not in keywords.TIME_SCALES:
        warnings.append(f"TIMESYS {name} is not known: the time is taken for UTC")
    return keywords.TIME_SCALES.get(name, "utc")


def _role(header: fits.Header, row: keywords.Spelling) -> str:
    """Return whether a card is of the start, middle or end: its comment knows better than the table."""
    words = comment(header, row.key)
    if re.search(r"\bmid(dle|point|-?exposure)?\b|\bmid-", words):
        return "middle"
    if _END.search(words) and not re.search(r"\bstart|\bbegin", words):
        return "end"
    return row.meaning


def _clocks(header: fits.Header) -> list[tuple[str, str, float]]:
    """Return (card, role, time of day in days) of the cards that hold a time of day alone."""
    found = [(row, _clock(get(header, row.key))) for row in keywords.CLOCK]
    return [(row.key, _role(header, row), clock) for row, clock in found if clock is not None]


def _moments(header: fits.Header, warnings: list[str]) -> tuple[list[_Moment], str | None]:
    """Return all moments that the header tells, in UTC, and a card whose date lacks its time of day."""
    scale, clocks = _scale(header, warnings), _clocks(header)
    moments, bare, day = [], None, None
    for row in keywords.TIME:
        value, role = look(header, row.key, warnings), _role(header, row)
        if value is None or (_clock(value) is not None and (row.key in _CLOCKS or number(value) is None)):
            continue
        if re.search(r"(?<!not )\blocal (time|date)|\(local\)|\[local\]", comment(header, row.key)):
            warnings.append(f"{row.key} is local time, as its comment says: not taken")
            continue
        mjd, has_clock = _parse(value, row.unit)
        if mjd is None:
            warnings.append(f"{row.key} = {value!r} is no time that can be understood")
            continue
        if re.match(r"^\d{1,2}[-/.]\d{1,2}[-/.]\d\d\b", str(value)) and number(value) is None:
            warnings.append(f"{row.key} = {value!r} is taken for day/month/year of {_iso(mjd)[:10]}")
        day = np.floor(mjd) if day is None else day
        # A comment at the date alone is meant for the clock as well, unless this one is the start's by name.
        of = [*(item for item in clocks if item[1] == role), *(item for item in clocks if item[1] == row.meaning)]
        clock = (of[0][0], of[0][2]) if of else None
        role = "start" if clock and re.search("START|BEG", clock[0]) else role
        if not has_clock:
            if clock is None:
                bare = bare or row.key
                continue
            mjd += clock[1]
        elif clock and mjd == np.floor(mjd) and clock[1] > 0.0 and row.unit == "date":
            warnings.append(f"{row.key} = {value!r} has no time of day of its own: that of {clock[0]} is taken")
            mjd += clock[1]
        elif clock and row.unit == "date" and min((mjd - clock[1]) % 1.0, (clock[1] - mjd) % 1.0) > 120.0 / 86400.0:
            warnings.append(f"{row.key} and {clock[0]} tell different times of day: {row.key} is taken")
        mjd -= _said_offset(row, value, comment(header, row.key), warnings)
        utc = _to_utc(mjd, "tai" if row.unit == "TAI" else scale)
        moments.append(_Moment(row.key, role, utc, row.unit, not has_clock))
    if day is not None:
        # A clock of the middle or the end alone lies in the day that follows the start.
        begin = next((item.mjd for item in moments if item.role == "start"), None)
        for key, role, part in clocks:
            if role != "start" and not any(item.role == role for item in moments):
                mjd = _to_utc(day + part, scale)
                mjd += 1.0 if begin is not None and mjd < begin else 0.0
                moments.append(_Moment(key, role, mjd, "date", True))
    return moments, bare


def read_time(
    header: fits.Header, exptime: float | None, frames: int = 1, now: float | None = None
) -> tuple[float | None, list[str]]:
    """Return the middle of the exposure.

    Parameters
    ----------
    header : astropy.io.fits.Header
    exptime : float or None
        Exposure in seconds; when None and there is no other way, the start stands in for the middle, and a warning
        says so.
    frames : int
        Exposures in the image, where it is a stack.
    now : float, optional
        MJD; a later time gets a warning.

    Returns
    -------
    mjd : float or None
        UTC.
    warnings : list of str
    """
    warnings: list[str] = []
    moments, bare = _moments(header, warnings)
    if not moments:
        if bare is not None:
            clocks = [row.key for row in keywords.CLOCK if get(header, row.key) is not None]
            warnings += [f"{key} = {get(header, key)!r} is no time of day" for key in clocks]
            warnings.append(f"{bare} holds a date without a time of day, and no other card gives it")
        refused = [f"{row.key} is {row.meaning}" for row in keywords.NOT_TIME if get(header, row.key) is not None]
        said = f" ({', '.join(refused)}: not taken)" if refused else ""
        return None, [*warnings, f"no time of observation in the header{said}"]
    mjd = _middle(_without_half_days(moments, exptime, warnings), exptime, frames, warnings)
    written, _ = parse_time(get(header, "DATE"))
    if now is not None and mjd > now + 1.0:
        warnings.append(f"the time of observation, {_iso(mjd)}, lies in the future")
    elif written is not None and mjd > written + 2.0:
        warnings.append(f"the time of observation lies {mjd - written:.0f} days after DATE, when the file was written")
    return mjd, warnings


def _said_offset(row: keywords.Spelling, value, words: str, warnings: list[str]) -> float:
    """Return the days that a card is too late where its comment says JD - 2400000 without the half."""
    plain = number(value)
    if row.unit != "MJD" or plain is None or plain > 2.3e6 or not _WHOLE_DAYS.search(words):
        return 0.0
    warnings.append(f"{row.key} is JD - 2400000, as its comment says: half a day is taken off")
    return 0.5


def _without_half_days(moments: list[_Moment], exptime: float | None, warnings: list[str]) -> list[_Moment]:
    """Return the moments, those in days corrected that are exactly half a day off the calendar.

    JD - 2400000 is half a day later than MJD, and MJD + 2400000 half a day earlier than JD. Where there are both, and
    they agree with each other, it is the calendar's clock that is doubted, and nothing is changed.
    """

    def start(item):
        return item.mjd - {"start": 0.0, "middle": 0.5, "end": 1.0}[item.role] * (exptime or 0.0) / 86400.0

    dates = [item for item in moments if item.unit == "date"]
    days = [item for item in moments if item.unit in ("MJD", "JD")]
    if not dates or not days:
        return moments
    signs = {}
    for item in days:
        sign = 1 if item.unit == "MJD" else -1
        same = [date for date in dates if exptime is not None or date.role == item.role]
        late = [(start(item) - start(date)) * 86400.0 - sign * _HALF_DAY for date in same]
        if late and min(map(abs, late)) <= _ROUNDING:
            signs[item] = sign
    if any(item.unit != other.unit for item in days for other in signs if abs(item.mjd - other.mjd) < 0.25):
        return moments
    for item in signs:
        what = "JD - 2400000" if item.unit == "MJD" else "MJD + 2400000"
        warnings.append(f"{item.key} is {what}, half a day off {dates[0].key}: corrected")
    return [replace(item, mjd=item.mjd - 0.5 * signs.get(item, 0)) for item in moments]


def _middle(moments: list[_Moment], exptime: float | None, frames: int, warnings: list[str]) -> float:
    of = {role: [item for item in moments if item.role == role] for role in ("middle", "start", "end")}
    slack = max(60.0, exptime or 0.0)
    for same in of.values():
        for other in same[1:]:
            apart = abs(other.mjd - same[0].mjd) * 86400.0
            if apart > slack:
                # A date alone may be that of the evening, or local.
                taken = other if same[0].composed and not other.composed else same[0]
                warnings.append(f"{same[0].key} and {other.key} differ by {apart:.0f} s: {taken.key} is taken")
                same.insert(0, taken)
                break
    middle, start, end = (next(iter(of[role]), None) for role in ("middle", "start", "end"))
    half = (exptime or 0.0) / 172800.0
    if middle:
        apart = (middle.mjd - start.mjd - half) * 86400.0 if start else 0.0
        if start and (apart < -slack or (apart > slack and frames == 1)):
            warnings.append(f"{middle.key} lies {apart:.0f} s off the middle that {start.key} and the exposure give")
        return middle.mjd
    if start is None:
        assert end is not None, "there is at least one moment"
        warnings.append(f"{end.key} less half of the exposure is taken for its middle" if half else _NO_MIDDLE)
        return end.mjd - half
    if end and end.mjd < start.mjd:
        warnings.append(f"{end.key} lies before {start.key}: it is ignored")
        end = None
    span = (end.mjd - start.mjd) * 86400.0 if end else 0.0
    if end and exptime is None:
        warnings.append(f"no exposure time: the middle between {start.key} and {end.key} is taken")
        return start.mjd + span / 172800.0
    if end and exptime is not None and span > 1.5 * exptime + 60.0:
        warnings.append(f"{start.key} and {end.key} are {span:.0f} s apart, as of a stack: the middle is taken")
        return start.mjd + span / 172800.0
    if end and exptime is not None and span < 0.5 * exptime - 1.0:
        warnings.append(f"{start.key} and {end.key} are {span:.0f} s apart, the exposure is {exptime:.0f} s")
    elif frames > 1:
        warnings.append(f"a stack of {frames} frames: {start.key} and half of the exposure is taken for its middle")
    if exptime is None:
        warnings.append(_NO_MIDDLE)
    return start.mjd + half
