"""Search the sky with the Python package astrometry, in a process of its own: a search cannot be ended from within.

Run as ``python -P -m nightsift.external.astrometry_package stars.xyls search.json stars.wcs``. Without -P,
scripts/astrometry.py could be taken for the package.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

import numpy as np
from astropy.io import fits

PACKAGE = "astrometry"
# Quads of ten stars at a time, first the brightest: of twenty-five the first batch takes longer than all of these.
MOST, BATCH, STEP = 100, 10, 5


def search(stars: Path, indexes: str, scale, cone) -> fits.Header | None:
    """Return the cards of a linear solution, None where there is none.

    Parameters
    ----------
    stars : Path
        Table ``X Y FLUX``, pixels counted from 1.
    indexes : str
        Folder of Astrometry.net's index files.
    scale : (lowest, highest) or None
        Arcsec a pixel.
    cone : (ra, dec, radius) or None
        Degrees.
    """
    import astrometry

    # Astrometry.net's own Python modules have the same name
    if not hasattr(astrometry, "SolutionParameters"):
        raise ModuleNotFoundError(name=PACKAGE)
    table = fits.getdata(stars)
    brightest = np.argsort(-table["FLUX"], kind="stable")[:MOST]
    places = np.column_stack([table["X"], table["Y"]])[brightest].astype(float)
    parameters = astrometry.SolutionParameters(
        sip_order=0,
        tune_up_logodds_threshold=None,
        slices_generator=lambda count: [(i, min(i + BATCH, count)) for i in range(0, count, STEP)],
        logodds_callback=lambda odds: astrometry.Action.STOP,
    )
    with astrometry.Solver(sorted(Path(indexes).glob("*.fits"))) as solver:
        solution = solver.solve(
            stars=places,
            size_hint=astrometry.SizeHint(*scale) if scale else None,
            position_hint=astrometry.PositionHint(cone[0] % 360, *cone[1:]) if cone else None,
            solution_parameters=parameters,
        )
    if not solution.has_match():
        return None
    cards = fits.Header([(key, *value) for key, value in solution.best_match().wcs_fields.items()])
    # it writes -SIP without any of the terms
    cards["CTYPE1"], cards["CTYPE2"] = "RA---TAN", "DEC--TAN"
    return cards


def main(arguments) -> int:
    stars, given, found = (Path(name) for name in arguments)
    asked = json.loads(given.read_text())
    seconds = max(int(asked["seconds"]), 1)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    try:
        header = search(stars, asked["indexes"], asked["scale"], asked["cone"])
    except ModuleNotFoundError as error:
        if error.name != PACKAGE:
            raise
        print(f"the Python package {PACKAGE!r} is not installed")
        return 1
    if header is None:
        print("no quad of stars leads to a place that the others confirm")
    else:
        fits.PrimaryHDU(header=header).writeto(found)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
