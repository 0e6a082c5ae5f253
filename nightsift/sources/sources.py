"""Join the candidates of a campaign into sources on the sky, with light curves."""

from __future__ import annotations

import numpy as np
from astropy.table import Table

from nightsift import tables
from nightsift.sources.association import Association


def source_table(candidates: Table, association: Association, n_images) -> Table:
    """Return the sources, one row each, in the order of `association`; schema ``sources``.

    Parameters
    ----------
    candidates : Table
        Schema ``candidates``.
    association : Association
    n_images : int array, shape (m,)
        Subtracted images that cover each source.
    """
    group = association.group
    order = np.argsort(group, kind="stable")
    order = order[group[order] >= 0]
    if not len(order):
        return tables.empty("sources")
    rows = []
    for number, mine in enumerate(np.split(order, np.flatnonzero(np.diff(group[order])) + 1)):
        part = candidates[mine]
        best = int(np.lexsort((part["image"], -np.abs(part["snr"])))[0])
        bright = np.where((part["flux"] > 0) & np.isfinite(part["mag_calib"]), part["mag_calib"], np.inf)
        brightest = int(np.argmin(bright))
        known = np.isfinite(bright[brightest])
        mjd = np.asarray(part["mjd"], float)[np.isfinite(part["mjd"])]
        rows.append(
            {
                "source": association.names[number],
                "ra": association.ra[number],
                "dec": association.dec[number],
                "n_detections": len(part),
                "n_images": max(int(n_images[number]), len(part)),
                "first_mjd": mjd.min() if len(mjd) else np.nan,
                "last_mjd": mjd.max() if len(mjd) else np.nan,
                "best_mag": bright[brightest] if known else np.nan,
                "best_mag_err": part["mag_calib_err"][brightest] if known else np.nan,
                "best_snr": part["snr"][best],
                "best_image": str(part["image"][best]),
                "label": str(part["label"][best]),
                "score": np.max(part["score"]),
            }
        )
    return Table(rows)
