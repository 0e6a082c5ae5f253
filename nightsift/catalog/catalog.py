"""The stars of known position and magnitude in the field of an image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy import units as u
from astropy.table import Table
from astropy.wcs import WCS
from scipy.spatial import cKDTree

from nightsift.catalog.plausible import magnitudes, motions
from nightsift.errors import Rejected
from nightsift.sky.sphere import MAS, RADIUS, angles, moved, unit_vectors
from nightsift.tables import column

_DUPLICATE = np.deg2rad(0.01 / 3600)
GAIA_RADIUS = 1.0  # arcsec


@dataclass(frozen=True)
class CatalogCut:
    """The catalogue stars in a field.

    Attributes
    ----------
    table : Table
        ``ra dec`` [deg, ICRS at the epoch of the image], ``ra_ref dec_ref`` [deg, as catalogued], ``pmra pmdec``
        [mas/yr, pmra with the factor cos(dec)] where the catalogue has them, and all ``<band>mag`` and
        ``e_<band>mag`` [mag, NaN = not measured].
    n : int
        Number of stars.
    warnings : tuple of str
    """

    table: Table
    n: int
    warnings: tuple[str, ...] = ()


def field(wcs, shape: tuple[int, int], margin: float) -> tuple[float, float, float]:
    """Return the cone that holds an image.

    Parameters
    ----------
    wcs : astropy.wcs.WCS
    shape : (ny, nx)
    margin : float
        Added to the radius, in units of the image's diagonal.

    Returns
    -------
    ra, dec, radius : float
        [deg]; the centre is that of the image.

    Raises
    ------
    Rejected
        The WCS gives no position for the image's centre or border.
    """
    ny, nx = shape
    along = np.linspace(0, 1, 9)
    edge_x = np.concatenate([along, along, np.zeros(9), np.ones(9)]) * nx - 0.5
    edge_y = np.concatenate([np.zeros(9), np.ones(9), along, along]) * ny - 0.5
    x, y = np.append((nx - 1) / 2, edge_x), np.append((ny - 1) / 2, edge_y)
    ra, dec = (np.asarray(value, float) for value in wcs.all_pix2world(x, y, 0))
    vectors = unit_vectors(ra, dec)
    if not np.isfinite(vectors[0]).all() or not np.isfinite(vectors[1:]).all(axis=1).any():
        raise Rejected("The WCS gives no sky position for the centre or the border of the image.")
    chord = np.nanmax(np.linalg.norm(vectors[1:] - vectors[0], axis=1))
    radius = 2 * np.rad2deg(np.arcsin(min(chord / 2, 1.0)))
    return float(ra[0] % 360), float(dec[0]), float(min(radius * (1 + 2 * margin), 180.0))


def cone(facts: dict, margin: float) -> tuple[float, float, float]:
    """Return the cone in which an image lies.

    Parameters
    ----------
    facts : dict
        ``wcs_header`` (an astropy.io.fits.Header or None), ``ra dec radius`` [deg], ``shape``, ``pixscale``
        [arcsec] or its range of an image, of which any but the shape may be missing or None.
    margin : float
        As in `field`.

    Raises
    ------
    Rejected
        Nothing tells where the image is.
    """
    if facts.get("wcs_header") is not None:
        return field(WCS(facts["wcs_header"]), tuple(facts["shape"]), margin)
    if facts.get("ra") is None or facts.get("dec") is None:
        raise Rejected("no WCS in the header and no position hint")
    scale = np.max(facts.get("pixscale_range") or facts.get("pixscale") or 0)
    reach = 0.5 * np.hypot(*facts["shape"]) * float(scale) / 3600 * (1 + 2 * margin)
    return facts["ra"], facts["dec"], (facts.get("radius") or RADIUS) + float(reach)


def with_gaia(stars: Table, gaia: Table) -> Table:
    """Return stars with the positions and proper motions of Gaia, and those of Gaia that are not among them.

    Parameters
    ----------
    stars : Table
        ``ra dec`` [deg], ``epoch`` [yr], magnitudes.
    gaia : Table
        The same, with ``pmRA pmDE`` [mas/yr], ``Gmag BPmag RPmag``.

    Returns
    -------
    Table
        `stars` with the magnitudes of Gaia besides; a star that Gaia lacks keeps its position, without motion.

    Notes
    -----
    The two are each other's nearest within 1 arcsec at the mean epoch of `stars`: positions of ground-based surveys
    are good to 0.1 arcsec, and of two stars that only Gaia separates one keeps the magnitude of both.
    """
    if not len(gaia):
        return stars
    year = float(np.mean(column(stars, "epoch"))) if len(stars) else None
    directions = moved(unit_vectors(column(gaia, "ra"), column(gaia, "dec")), gaia, year)
    then = Table(dict(zip(("ra", "dec"), angles(directions), strict=True)))
    row, star = match(stars, then, GAIA_RADIUS)
    alone = np.setdiff1d(np.arange(len(gaia)), star)
    result = Table()
    for name in dict.fromkeys([*stars.colnames, *gaia.colnames]):
        values, theirs = column(stars, name), column(gaia, name)
        if name in gaia.colnames:
            values[row] = theirs[star]
        result[name] = np.concatenate([values, theirs[alone]])
    return result


def _first_of_duplicates(vectors: np.ndarray) -> np.ndarray:
    keep = np.ones(len(vectors), bool)
    pairs = cKDTree(vectors).query_pairs(_DUPLICATE, output_type="ndarray")
    keep[pairs.max(axis=1)] = False
    return keep


# Long: half of it says what the columns are.
def catalog(stars: Table, center_ra: float, center_dec: float, radius_deg: float, mjd: float | None, params):
    """Cut the stars of a field out of a catalogue and move them to the epoch of the image.

    Parameters
    ----------
    stars : Table
        ``ra dec`` [deg], optional ``pmRA pmDE`` [mas/yr, pmRA with the factor cos(dec)] and ``epoch`` [Julian year,
        default 2000], ``<band>mag``, ``e_<band>mag``; as from `nightsift.io.catalogs.read_catalog`, which puts
        ``warnings`` into its meta.
    center_ra, center_dec, radius_deg : float
        Cone [deg].
    mjd : float or None
        Time of the image; None leaves the stars where the catalogue has them.
    params : parameters.CatalogConfig

    Returns
    -------
    CatalogCut

    Raises
    ------
    Rejected
        No star in the field.

    Notes
    -----
    Proper motion moves the unit vector in its tangent plane, then normalises: ESA SP-1200 (1997), vol. 1, eq. 1.5.16
    with zero parallax and radial velocity, which holds at the poles.
    """
    stars, strange = motions(stars)
    notes = [*stars.meta.get("warnings", ()), *strange]
    has_motion = "pmRA" in stars.colnames
    year = None if mjd is None else 2000.0 + (mjd - 51544.5) / 365.25
    if year is None:
        notes.append("The time of the image is unknown: catalogue positions are those of the catalogue's epoch.")
    elif not has_motion and not strange:
        notes.append("The catalogue has no proper motions: its positions are those of its epoch.")
    slack = 0.0
    if has_motion and year is not None and len(stars):
        epoch = np.asarray(stars["epoch"], float) if "epoch" in stars.colnames else np.array([2000.0])
        motion = np.nan_to_num(np.hypot(np.asarray(stars["pmRA"], float), np.asarray(stars["pmDE"], float)))
        slack = np.rad2deg(motion.max() * np.abs(year - epoch).max() * MAS)
    # a cut in declination first: most of a large catalogue never needs its trigonometry
    band = np.flatnonzero(np.abs(np.asarray(stars["dec"], float) - center_dec) <= radius_deg + slack)
    near = stars[band]
    vectors = moved(unit_vectors(near["ra"], near["dec"]), near, year)
    chord = np.linalg.norm(vectors - unit_vectors(center_ra, center_dec), axis=-1)
    inside = chord <= 2 * np.sin(np.deg2rad(min(radius_deg, 180.0)) / 2)
    name = Path(params.path).name if params.path else params.source
    if not inside.any():
        place = f"within {radius_deg:.3f} deg of {center_ra:.4f} {center_dec:+.4f}"
        if not len(stars):
            raise Rejected(f"The catalogue {name} has no star {place}.")
        raise Rejected(f"None of the {len(stars)} stars of the catalogue {name} lies {place}.")
    near, vectors = near[inside], vectors[inside]
    keep = _first_of_duplicates(vectors)
    if not keep.all():
        notes.append(f"{np.sum(~keep)} stars stand twice in the catalogue {name}; the first of each is used.")
        near, vectors = near[keep], vectors[keep]
    table = Table()
    table["ra"], table["dec"] = (values * u.deg for values in angles(vectors))
    table["ra_ref"], table["dec_ref"] = (np.asarray(near[key], float) * u.deg for key in ("ra", "dec"))
    if has_motion:
        table["pmra"], table["pmdec"] = (column(near, key) * u.mas / u.yr for key in ("pmRA", "pmDE"))
    for key in near.colnames:
        if key.endswith("mag"):
            table[key] = np.asarray(near[key], float) * u.mag
    table, strange = magnitudes(table)
    return CatalogCut(table=table, n=len(table), warnings=(*notes, *strange))


def match(objects: Table, catalog: Table, radius_arcsec: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of objects and catalogue stars that are each other's nearest within `radius_arcsec`."""
    ours, theirs = (unit_vectors(column(t, "ra"), column(t, "dec")) for t in (objects, catalog))
    valid_ours, valid_theirs = (np.flatnonzero(np.isfinite(v).all(axis=1)) for v in (ours, theirs))
    none = np.zeros(0, int)
    if not len(valid_ours) or not len(valid_theirs):
        return none, none
    chord = 2 * np.sin(np.deg2rad(radius_arcsec / 3600) / 2)
    our_tree, their_tree = cKDTree(ours[valid_ours]), cKDTree(theirs[valid_theirs])
    distance, there = their_tree.query(our_tree.data, distance_upper_bound=chord)
    near = np.flatnonzero(np.isfinite(distance))
    _, back = our_tree.query(their_tree.data[there[near]])
    mutual = near[back == near]
    return valid_ours[mutual], valid_theirs[there[mutual]]
