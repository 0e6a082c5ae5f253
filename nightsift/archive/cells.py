"""The pieces of sky that are asked for: cells of HEALPix in the nested scheme (Gorski et al. 2005, ApJ 622, 759)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy import units as u
from astropy_healpix import HEALPix

from nightsift.sky.sphere import unit_vectors

_MARGIN = 1e-6  # deg


@dataclass(frozen=True, order=True)
class Cell:
    """A cell: `number` in the nested scheme of `order`."""

    order: int
    number: int

    @property
    def name(self) -> str:
        """Path of the cell below a folder."""
        return f"{self.order}/{self.number}"

    def children(self) -> list[Cell]:
        """Return the four cells of the next order that make up this one."""
        return [Cell(self.order + 1, 4 * self.number + part) for part in range(4)]

    def cone(self) -> tuple[float, float, float]:
        """Return the centre and the radius of the smallest cone that holds the cell [deg]."""
        grid = _grid(self.order)
        lon, lat = (value.to_value(u.deg) for value in grid.healpix_to_lonlat(self.number))
        edge = grid.boundaries_lonlat(self.number, 8)
        border = unit_vectors(*(value.to_value(u.deg).ravel() for value in edge))
        chord = np.linalg.norm(border - unit_vectors(lon, lat), axis=1).max()
        return float(lon) % 360, float(lat), float(2 * np.rad2deg(np.arcsin(chord / 2))) + _MARGIN

    def holds(self, ra, dec) -> np.ndarray:
        """Return whether positions [deg] lie in the cell; each lies in exactly one cell of an order."""
        return containing(ra, dec, self.order) == self.number


def _grid(order: int) -> HEALPix:
    return HEALPix(nside=2**order, order="nested")


def containing(ra, dec, order: int) -> np.ndarray:
    """Return the numbers of the cells in which positions [deg] lie."""
    return _grid(order).lonlat_to_healpix(np.asarray(ra) * u.deg, np.asarray(dec) * u.deg)


def around(ra: float, dec: float, radius: float, order: int) -> list[Cell]:
    """Return the cells that a cone [deg] touches, in order of their numbers."""
    numbers = _grid(order).cone_search_lonlat(ra * u.deg, dec * u.deg, max(radius, _MARGIN) * u.deg)
    return [Cell(order, int(number)) for number in np.sort(numbers)]
