"""The cells of the sky: each place in one of them, none forgotten, wherever it is."""

import numpy as np
import pytest
from skies import sprinkle

from nightsift.archive.cells import Cell, around
from nightsift.sky.sphere import unit_vectors

RNG = np.random.default_rng(5)


@pytest.mark.parametrize("order", [4, 5, 7])
@pytest.mark.parametrize(
    "center",
    [
        (0.0, 12.3),
        (359.99, -40.0),
        (77.0, 90.0),
        (200.0, -90.0),
        (13.0, 89.9),
        (45.0, 0.0),
        (0.0, 0.0),
        (150.0, 41.8103),
    ],
    ids=str,
)
@pytest.mark.parametrize("radius", [0.02, 0.5, 3.0])
def test_every_place_of_a_field_lies_in_one_of_its_cells(order, center, radius):
    cells = around(*center, radius, order)
    ra, dec = sprinkle(*center, radius, 4000, RNG)
    inside = np.array([cell.holds(ra, dec) for cell in cells])
    np.testing.assert_array_equal(inside.sum(axis=0), 1)
    assert len(set(cells)) == len(cells)


def test_a_field_on_the_corner_of_cells_has_all_of_them():
    assert len(around(45.0, 0.0, 0.01, 7)) == 4
    assert len(around(0.0, 0.0, 0.01, 7)) == 4
    assert len(around(0.0, 90.0, 0.01, 7)) == 4


def test_no_more_cells_than_a_field_needs():
    for center in [(10.0, 20.0), (359.9, 88.0)]:
        assert len(around(*center, 0.05, 7)) <= 4


@pytest.mark.parametrize("cell", [Cell(7, 0), Cell(7, 70000), Cell(4, 3071), Cell(5, 4095), Cell(0, 4)], ids=str)
def test_the_cone_of_a_cell_holds_the_cell_and_is_not_much_larger(cell):
    ra, dec, radius = cell.cone()
    assert 0 <= ra < 360
    far = sprinkle(ra, dec, min(1.5 * radius, 89.0), 40000, RNG)
    mine = cell.holds(*far)
    distance = np.rad2deg(np.arccos(np.clip(unit_vectors(*far) @ unit_vectors(ra, dec), -1, 1)))
    assert distance[mine].max() <= radius
    assert distance[mine].max() > 0.9 * radius


def test_the_parts_of_a_cell_make_up_the_cell():
    cell = Cell(7, 123456)
    ra, dec = sprinkle(*cell.cone(), 4000, RNG)
    parts = np.sum([part.holds(ra, dec) for part in cell.children()], axis=0)
    np.testing.assert_array_equal(parts, cell.holds(ra, dec).astype(int))
