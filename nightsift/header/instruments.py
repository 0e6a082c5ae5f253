"""What the configuration's ``instruments`` say of an image: which of them match its header, and what follows."""

from __future__ import annotations

from fnmatch import fnmatchcase

from astropy.io import fits

from nightsift.header import keywords
from nightsift.header.cards import get, number

_PLAIN = ("gain", "readnoise", "saturation", "pixscale", "hdu", "observatory")


def matches(wanted: dict, header: fits.Header) -> bool:
    """Return whether a header has all cards of `wanted`: numbers by value, text by wildcards whatever its case."""
    return all(_agrees(get(header, key), value) for key, value in wanted.items())


def _agrees(value, wanted) -> bool:
    if value is None or isinstance(value, bool) != isinstance(wanted, bool):
        return False
    if isinstance(wanted, bool):
        return value == wanted
    if isinstance(wanted, int | float):
        found = number(value)
        return found is not None and abs(found - wanted) <= 1e-9 * abs(wanted)
    return fnmatchcase(str(value).lower(), wanted.strip().lower())


def given(instruments: list[dict], header: fits.Header) -> dict:
    """Return what those instruments say that match a header; of several, the first that gives something wins."""
    result: dict = {}
    for entry in instruments:
        if not matches(entry["match"], header):
            continue
        new = {key: value for key, value in entry.items() if key != "match" and value is not None}
        if "time" in result:
            new.pop("time_is", None)
        # Each name of a filter is a thing given.
        names = new.get("filter", {}) | result.get("filter", {})
        result = new | result | ({"filter": names} if names else {})
    return result


def settings(given: dict, header: fits.Header) -> tuple[dict, list[str]]:
    """Return what is known of an image by its instrument.

    Parameters
    ----------
    given : dict
        As from `given`.
    header : astropy.io.fits.Header
        Where the cards stand that it names.

    Returns
    -------
    known : dict
        Any of ``gain readnoise saturation pixscale hdu observatory exptime time time_is filter``, named and meant as in
        `nightsift.inspect.inspect.Overrides`.
    warnings : list of str
    """
    warnings: list[str] = []
    known = {key: given[key] for key in _PLAIN if key in given}
    known |= _exptime(given, header, warnings) | _time(given, header, warnings) | _filter(given, header)
    return known, warnings


def _exptime(given: dict, header: fits.Header, warnings: list[str]) -> dict:
    value = given.get("exptime")
    seconds = number(get(header, value)) if isinstance(value, str) else value
    if value is not None and (seconds is None or seconds <= 0.0):
        warnings.append(f"instruments: {value} holds no exposure: the header's other cards are read")
        return {}
    return {} if seconds is None else {"exptime": float(seconds)}


def _time(given: dict, header: fits.Header, warnings: list[str]) -> dict:
    if "time" not in given:
        return {}
    value = get(header, given["time"])
    if value is None:
        warnings.append(f"instruments: the header has no {given['time']}: its other cards are read for the time")
        return {}
    return {"time": str(value), "time_is": given.get("time_is") or "start"}


def _filter(given: dict, header: fits.Header) -> dict:
    names = {str(name).strip(): band for name, band in given.get("filter", {}).items()}
    for row in keywords.FILTER:
        band = names.get(str(get(header, row.key)).strip())
        if band is not None:
            return {"filter": band}
    return {}
