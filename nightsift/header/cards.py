"""Single cards of FITS headers: their values, however they are written."""

from __future__ import annotations

import math
import re

import numpy as np
from astropy.io import fits

_NUMBER = re.compile(r"^\s*([+-]?(?:\d+[.,]?\d*|[.,]\d+)(?:[eEdD][+-]?\d+)?)(?:\s*[A-Za-zµ\"/%\[\]\-]+\.?)?\s*$")


def get(header: fits.Header, key: str):
    """Return the value of a card, or None when it is absent, empty or unreadable."""
    try:
        value = header.get(key)
    except (fits.VerifyError, ValueError, KeyError):
        return None
    if isinstance(value, str):
        value = value.strip()
        if len(value) > 1 and value[0] == value[-1] == "'":
            value = value[1:-1].strip()
    return None if value is None or value == "" or isinstance(value, fits.card.Undefined) else value


def comment(header: fits.Header, key: str) -> str:
    """Return the comment of a card in lower case; empty without one."""
    try:
        return header.comments[key].lower()
    except (fits.VerifyError, ValueError, KeyError):
        return ""


def look(header: fits.Header, key: str, warnings: list[str]):
    """Return the value of a card as `get` does, and tell when it is unreadable or stands there with two values."""
    try:
        if key not in header:
            return None
        count = header.count(key)
        header.get(key)
        if count > 1 and len({str(header[key, number]) for number in range(count)}) > 1:
            warnings.append(f"{key} stands there {count} times with different values: the first is taken")
    except (fits.VerifyError, ValueError, KeyError):
        warnings.append(f"{key} cannot be read")
    return get(header, key)


def number(value) -> float | None:
    """Return a finite number out of a card's value, also out of text such as ``'1.2 e/ADU'``; None without one.

    A comma stands for a decimal point where it cannot separate thousands.
    """
    if isinstance(value, str):
        match = _NUMBER.match(value)
        text = match[1] if match else ""
        if not match or re.search(r",\d{3}$", text):
            return None
        value = float(re.sub("[dD]", "e", text.replace(",", ".")))
    if value is None or isinstance(value, bool | complex) or not isinstance(value, int | float | np.number):
        return None
    return float(value) if math.isfinite(value) else None


def look_number(header: fits.Header, key: str, warnings: list[str]) -> float | None:
    """Return the number that a card holds, and tell when it holds something else."""
    value = look(header, key, warnings)
    found = number(value)
    if value is not None and found is None:
        warnings.append(f"{key} = {value!r} is no number: ignored")
    elif isinstance(value, str) and "," in value:
        warnings.append(f"{key} = {value!r}: the comma is taken for a decimal point")
    return found


def text(header: fits.Header, keys) -> str:
    """Return what some cards say, joined."""
    return " ".join(str(get(header, key)) for key in keys if get(header, key) is not None)
