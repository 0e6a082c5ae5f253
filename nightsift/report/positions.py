"""Positions on the sky as the campaign's page shows them, and its list of what the catalogue does not explain."""

from __future__ import annotations

from urllib.parse import quote

import numpy as np
from astropy import units
from astropy.coordinates import Angle
from astropy.table import Table


def sexagesimal(ra: float, dec: float) -> str:
    """Return a position in hours and degrees."""
    right = Angle(ra, units.deg).to_string(units.hourangle, sep=":", precision=2, pad=True)
    return f"{right} {Angle(dec, units.deg).to_string(units.deg, sep=':', precision=1, pad=True, alwayssign=True)}"


def links(ra: float, dec: float) -> dict[str, str]:
    """Return the addresses of what shows a position, and of what is known there."""
    target = quote(f"{ra:.6f} {dec:+.6f}")
    return {
        "aladin": f"https://aladin.cds.unistra.fr/AladinLite/?target={target}&fov=0.05",
        "simbad": f"https://simbad.cds.unistra.fr/simbad/sim-coo?Coord={target}&Radius=10&Radius.unit=arcsec",
    }


def rows(table: Table, most: int) -> list[dict]:
    """Return the lines of the list of uncatalogued objects: one for each source, by its highest S/N.

    Parameters
    ----------
    table : Table
        Schema ``campaign_uncatalogued``.
    most : int
        Lines at most.
    """
    order = np.lexsort((np.asarray(table["image"], str), -np.asarray(table["snr"], float)))
    _, first = np.unique(np.asarray(table["source"], str)[order], return_index=True)
    return [_line(table[row]) for row in order[np.sort(first)][:most]]


def _line(row) -> dict:
    image, ra, dec = str(row["image"]), float(row["ra"]), float(row["dec"])
    mag = float(row["mag_psf"] if np.isfinite(row["mag_psf"]) else row["mag_calib"])
    numbers = [
        (float(row["snr"]), ".1f", ""),
        (mag, ".2f", f"{row['filter']} = " if row["filter"] else ""),
        (float(row["catalog_mag"]), ".2f", ""),
        (float(row["catalog_distance"]), ".1f", ""),
        (int(row["n_images"]), "d", ""),
    ]
    return {
        "source": str(row["source"]),
        "label": str(row["label"]),
        "known": str(row["known"]),
        "position": sexagesimal(ra, dec),
        "cells": [
            (value, f"{before}{value:{form}}") if np.isfinite(value) else ("", "") for value, form, before in numbers
        ],
        "image": image,
        "anchor": quote(image),
        "pixel": f"{row['x']:.1f}, {row['y']:.1f}",
        **links(ra, dec),
    }
