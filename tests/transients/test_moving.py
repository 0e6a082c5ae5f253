"""Stars that have moved since the template are one candidate each, and named."""

import numpy as np
import pytest
from astropy.table import Table

from nightsift.transients.moving import OLD_PLACE, join, moving

RA, DEC, FWHM = 359.9999, 60.0, 3.0


def sky(east, north):
    """Positions by offsets in arcsec."""
    east, north = np.atleast_1d(east), np.atleast_1d(north)
    return (RA + np.asarray(east) / 3600 / np.cos(np.radians(DEC))) % 360, DEC + np.asarray(north) / 3600


def candidates(*rows):
    """Rows of offsets east and north (arcsec), flux and label."""
    east, north, flux, label = zip(*rows, strict=True)
    table = Table(dict(zip(("ra", "dec"), sky(east, north), strict=True)))
    table["flux"], table["label"] = np.array(flux, float), np.array(label, "U8")
    table["is_real"], table["reasons"] = True, np.full(len(table), "", "U1")
    return table


def catalog(*rows):
    """Rows of offsets east and north (arcsec) and proper motion (mas/yr)."""
    east, north, pmra, pmdec = zip(*rows, strict=True)
    table = Table(dict(zip(("ra", "dec"), sky(east, north), strict=True)))
    table["pmra"], table["pmdec"] = np.array(pmra, float), np.array(pmdec, float)
    return table


@pytest.mark.parametrize("way", [1, -1])
@pytest.mark.parametrize("angle", [0.0, 1.0, 2.5, 4.0])
def test_both_halves_are_one_candidate_whichever_image_is_older(angle, way):
    path = np.array([np.cos(angle), np.sin(angle)])
    old = -way * 9 * path
    table = candidates((0.3, 0.2, 100, "new"), (*old, -90, "faded"), (40, 0, 80, "new"), (-30, 5, -70, "faded"))
    join(table, catalog((0, 0, *(way * 900 * path)), (40, 60, 0, 0)), FWHM)
    assert list(table["label"]) == ["moving", "faded", "new", "faded"]
    assert list(table["is_real"]) == [True, False, True, True]
    assert list(table["reasons"]) == ["", OLD_PLACE, "", ""]


def test_without_its_other_half_a_star_is_labelled_still():
    table = candidates((0, 0, 100, "new"))
    join(table, catalog((0.4, 0, 1000, 0)), FWHM)
    assert list(table["label"]) == ["moving"]
    assert table["is_real"].all()


@pytest.mark.parametrize(
    ("there", "star", "stars", "left"),
    [
        ((-9, 0, -90, "faded"), (0, 0, 900, 0), 1, 1),
        ((-9, 4, -90, "faded"), (0, 0, 900, 0), 1, 0),  # off its path
        ((-9, 0, -20, "faded"), (0, 0, 900, 0), 1, 0),  # much fainter than it
        ((-90, 0, -90, "faded"), (0, 0, 900, 0), 1, 0),  # too far for any template
        ((-9, 0, -90, "faded"), (0, 0, 5, 0), 0, 0),  # a star that stays
        ((-9, 0, -90, "faded"), (0, 5, 900, 0), 0, 0),  # another star
        ((-9, 0, -90, "faded"), (0, 0, np.nan, np.nan), 0, 0),
        ((-9, 0, 90, "new"), (0, 0, 900, 0), 1, 0),
    ],
)
def test_only_what_fits_the_motion_is_joined(there, star, stars, left):
    found = moving(candidates((0, 0, 100, "new"), there), catalog(star), FWHM)
    assert [part.sum() for part in found] == [stars, left]


def test_what_the_template_shows_too_has_not_moved():
    table = candidates((0, 0, 100, "variable"), (-9, 0, -90, "faded"))
    join(table, catalog((0, 0, 900, 0)), FWHM)
    assert list(table["label"]) == ["variable", "faded"]


def test_a_catalogue_without_motions_changes_nothing():
    table = candidates((0, 0, 100, "new"))
    bare = catalog((0, 0, 900, 0))
    join(table, bare["ra", "dec"], FWHM)
    assert list(table["label"]) == ["new"]
    nothing = table[:0]
    join(nothing, bare, FWHM)
    assert len(nothing) == 0
