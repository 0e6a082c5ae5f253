"""Images in units of about their own noise, so that no result depends on the unit that their pixels come in.

Pixels may be counts, janskys or erg/s/cm2/A: numbers whose squares single precision cannot hold, or against which an
absolute constant is everything or nothing. The factors are powers of two, which change no digit of a number.
"""

from __future__ import annotations

import math

import numpy as np
from astropy.table import Table

from nightsift.tables import SCHEMAS

USUAL = 1e-3, 1e5  # noise of which single precision holds the fourth power, and that of stars 1,000 times as bright
ENOUGH = 100_000  # pixels that tell the scatter of all
FLUXES = frozenset(name for fields in SCHEMAS.values() for name, field in fields.items() if field.unit == "adu")


def unit(noise: float) -> float:
    """Return the power of two nearest to a noise; 1 where it is usual, so that nothing is copied, or no number."""
    usual = USUAL[0] < noise < USUAL[1]
    return 2.0 ** round(math.log2(noise)) if 0 < noise < math.inf and not usual else 1.0


def pixel_unit(data, bad) -> float:
    """Return the unit for an image: of about the scatter of its good pixels, or their size where they have none.

    Parameters
    ----------
    data : 2-D float32 array
    bad : 2-D bool array
        Pixels to leave out, whatever their values.
    """
    for step in (max(1, data.size // ENOUGH), 1):
        values = data.ravel()[::step][~bad.ravel()[::step]].astype(float)
        values = values[np.isfinite(values)]
        if values.size:
            break
    else:
        return 1.0
    scatter = float(np.median(np.abs(np.diff(values, append=values[-1:]))))
    return unit(scatter or float(np.std(values)) or float(np.abs(values).max()))


def in_units(image, unit: float):
    """Return an image (float32, or None) divided by a unit."""
    return image if unit == 1.0 or image is None else image * np.float32(1 / unit)


def fluxes(table: Table, unit: float, names=FLUXES) -> Table:
    """Return a table with those of its columns divided by a unit that are fluxes."""
    if unit == 1.0:
        return table
    result = table.copy()
    for name in names.intersection(result.colnames):
        result[name] = result[name] / unit
    return result
