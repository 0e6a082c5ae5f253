"""Stars of a made-up sky, in the columns in which VizieR has each catalogue."""

import numpy as np
from astropy.table import Table, vstack

from nightsift.archive.catalogs import SURVEYS
from nightsift.sky.sphere import unit_vectors

COLORS = {"u": 1.3, "g": 0.45, "r": 0.0, "i": -0.15, "z": -0.2, "y": -0.22, "U": 1.3, "B": 0.8, "V": 0.2}
COLORS |= {"R": -0.2, "I": -0.6, "G": 0.1, "BP": 0.4, "RP": -0.5, "J": -1.1, "H": -1.4, "Ks": -1.5}


def sprinkle(ra, dec, radius, count, rng):
    """Return positions spread evenly over a cone [deg]."""
    angle, distance = rng.uniform(0, 2 * np.pi, count), np.deg2rad(radius) * np.sqrt(rng.uniform(0, 1, count))
    center = unit_vectors(ra, dec)
    east = np.array([-np.sin(np.deg2rad(ra)), np.cos(np.deg2rad(ra)), 0])
    north = np.cross(center, east)
    aside = np.cos(angle)[:, None] * east + np.sin(angle)[:, None] * north
    vectors = np.cos(distance)[:, None] * center + np.sin(distance)[:, None] * aside
    return np.rad2deg(np.arctan2(vectors[:, 1], vectors[:, 0])) % 360, np.rad2deg(np.arcsin(vectors[:, 2]))


def stars(ra, dec, radius, count=300, seed=3):
    """Return stars in a cone [deg]: ``ra dec`` and ``pmRA pmDE`` of epoch 2000, magnitudes in all bands."""
    rng = np.random.default_rng(seed)
    table = Table(dict(zip(("ra", "dec"), sprinkle(ra, dec, radius, count, rng), strict=True)))
    table["pmRA"], table["pmDE"] = rng.normal(0, 8, (2, count))
    red, brightness = rng.uniform(0.3, 1.8, count), rng.uniform(14.5, 19.5, count)
    for band, color in COLORS.items():
        table[f"{band}mag"] = brightness + color * red
        table[f"e_{band}mag"] = 0.01
    return table


def as_survey(table, name):
    """Return stars (positions and motions of epoch 2000) as VizieR has them in a survey."""
    survey = SURVEYS[name]
    years = survey.epoch - 2000
    cosine = np.cos(np.deg2rad(np.asarray(table["dec"])))
    result = Table()
    result[survey.position[0]] = (np.asarray(table["ra"]) + years * np.asarray(table["pmRA"]) / 3.6e6 / cosine) % 360
    result[survey.position[1]] = np.asarray(table["dec"]) + years * np.asarray(table["pmDE"]) / 3.6e6
    if survey.motion:
        result["pmRA"], result["pmDE"] = table["pmRA"], table["pmDE"]
    for band, column in survey.magnitudes.items():
        mag, error = (np.asarray(table[f"{part}{band}mag"], float) for part in ("", "e_"))
        result[column] = mag
        if survey.fluxes:
            result[f"F{band}"] = 10 ** (-0.4 * mag)
            result[f"e_F{band}"] = result[f"F{band}"] * error * np.log(10) / 2.5
        else:
            result[survey.errors(band, column)[0]] = error
    return result


def all_surveys(table):
    """Return the tables of VizieR by their names; those that do not cover the sky have stars elsewhere, too."""
    result = {}
    for name, survey in SURVEYS.items():
        whole = vstack([table, stars(*survey.control, 0.1, 20)]) if survey.control else table
        result[survey.table] = as_survey(whole, name)
    return result
