"""Stars of a made-up sky, in the columns in which VizieR has each catalogue."""

import numpy as np
from astropy.table import Table

from nightsift.archive.surveys import SURVEYS

COLORS = {"u": 1.3, "g": 0.45, "r": 0.0, "i": -0.15, "z": -0.2, "y": -0.22, "U": 1.3, "B": 0.8, "V": 0.2}
COLORS |= {"R": -0.2, "I": -0.6, "G": 0.1, "BP": 0.4, "RP": -0.5, "J": -1.1, "H": -1.4, "Ks": -1.5}


def stars(ra, dec, side, count=300, seed=3):
    """Return stars around a position within a square of `side` [deg]."""
    rng = np.random.default_rng(seed)
    east, north = rng.uniform(-side / 2, side / 2, (2, count))
    table = Table({"ra": (ra + east / np.cos(np.deg2rad(dec))) % 360, "dec": dec + north})
    table["pmRA"], table["pmDE"] = rng.normal(0, 8, (2, count))
    for band, color in COLORS.items():
        table[f"{band}mag"] = color + 0.0
        table[f"e_{band}mag"] = 0.01
    red, brightness = rng.uniform(0.3, 1.8, count), rng.uniform(14.5, 19.5, count)
    for band, color in COLORS.items():
        table[f"{band}mag"] = brightness + color * red
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
    """Return the tables of VizieR by their names."""
    return {survey.table: as_survey(table, name) for name, survey in SURVEYS.items()}
