"""What cannot be true in a catalogue: proper motions in another unit, and numbers that stand for missing magnitudes."""

from __future__ import annotations

import numpy as np
from astropy.table import Table

_USUAL = 500.0  # mas/yr: some 2000 stars of the whole sky are faster, so half of a catalogue's are not
_ENOUGH = 10  # stars, for their median to say something
_REPEATED, _FREQUENT = 10, 10.0  # stars with one value, and how many times more of them than with any other
_FEW, _GAP = 3, 2.0  # stars with one value, and magnitudes from there to the others


def motions(stars: Table) -> tuple[Table, tuple[str, ...]]:
    """Return stars without proper motions that cannot be, and what is to be said of that.

    Parameters
    ----------
    stars : Table
        With or without ``pmRA pmDE`` [mas/yr].
    """
    if "pmRA" not in stars.colnames or not len(stars):
        return stars, ()
    size = np.hypot(np.asarray(stars["pmRA"], float), np.asarray(stars["pmDE"], float))
    moving = size[np.isfinite(size) & (size > 0)]
    if not len(moving):
        return stars, ()
    middle = float(np.median(moving))
    if middle > _USUAL and len(moving) >= _ENOUGH:
        kept = stars.copy(copy_data=False)
        kept.remove_columns(["pmRA", "pmDE"])
        return kept, (
            f"Half of the catalogue's stars move by more than {middle / 1000:.3g} arcsec a year, which no field"
            " does: its proper motions are left out, and positions are those of its epoch. Is their unit mas/yr?",
        )
    return stars, ()


def magnitudes(stars: Table) -> tuple[Table, tuple[str, ...]]:
    """Return stars whose magnitudes that stand for none are NaN, and what is to be said of that.

    Such a number, 0 say, is one that many stars have to the last digit, far more than any other; or some stars, far
    from the others.
    """
    notes, kept = [], stars.copy(copy_data=False)
    for name in stars.colnames:
        if not name.endswith("mag") or name.startswith("e_"):
            continue
        values = np.array(stars[name], float)
        found = _placeholders(values)
        for one in found:
            same = values == one
            notes.append(
                f"{name} is exactly {one:g} for {same.sum()} of {len(values)} catalogue stars: taken for not measured."
            )
            values[same] = np.nan
        if found:
            kept[name] = values
            kept[name].unit = stars[name].unit
    return kept, tuple(notes)


def _placeholders(values: np.ndarray) -> list[float]:
    distinct, count = np.unique(values[np.isfinite(values)], return_counts=True)
    found = []
    while len(distinct) > 1:
        most = int(np.argmax(count))
        others = np.delete(count, most)
        ends = [at for at, next_to in ((0, 1), (-1, -2)) if _alone(distinct, count, at, next_to)]
        if count[most] >= max(_REPEATED, _FREQUENT * others.max()):
            at = most
        elif ends:
            at = ends[0] % len(distinct)
        else:
            break
        found.append(float(distinct[at]))
        distinct, count = np.delete(distinct, at), np.delete(count, at)
    return found


def _alone(distinct, count, at: int, next_to: int) -> bool:
    return count[at] >= _FEW and abs(distinct[at] - distinct[next_to]) > _GAP
