"""The odds for a plate solution: for true ones, and for the best that chance offers."""

import numpy as np
import pytest

from nightsift import parameters, statistics
from nightsift.astrometry import asterism, sip, verify

NEEDED = parameters.AstrometryConfig().min_log_odds
SIDE = 1000.0


def sky(rng, number, margin=0.2):
    """Points, about the centre of an image, within it and a margin."""
    reach = (0.5 + margin) * SIDE
    return rng.uniform(-reach, reach, number) + 1j * rng.uniform(-reach, reach, number)


def inside(points):
    return (np.abs(points.real) < SIDE / 2) & (np.abs(points.imag) < SIDE / 2)


def fitted(points, reference, radius):
    """Return points moved by a linear fit to their matches, and the matches, as the stage has them."""
    for _ in range(4):
        first, second, _, _ = asterism.mutual(points, reference, radius)
        if len(first) < 8:
            return points, first, second
        target = reference[second] - points[first]
        target = np.column_stack([target.real, target.imag])
        design = sip.monomials(points / SIDE, 1)
        solution, _ = statistics.clipped_fit(design[first], target)
        points = points + design @ solution @ [1, 1j]
    return points, *asterism.mutual(points, reference, radius)[:2]


def odds_of(points, reference, radius):
    points, first, second = fitted(points, reference, radius)
    if len(first) < 8:
        return -np.inf
    scatter = statistics.robust_sigma(
        np.append(*(part(points[first] - reference[second]) for part in (np.real, np.imag)))
    )
    return verify.log_odds(points, np.full(len(points), max(scatter, 0.02)), reference, first, second, 1)


@pytest.mark.parametrize(("number", "missing"), [(30, 0.0), (80, 0.6), (200, 0.6), (1000, 0.0), (1000, 0.6)])
def test_a_right_solution_is_accepted(number, missing):
    for seed in range(10):
        rng = np.random.default_rng(seed)
        reference = sky(rng, number)
        points = reference[rng.random(number) > missing]
        points = points[inside(points)]
        points = np.append(points, sky(rng, number // 4, 0.0))
        points = points + rng.normal(0, 0.2, len(points)) + 1j * rng.normal(0, 0.2, len(points))
        radius = min(5.0, 0.15 * SIDE / np.sqrt(number))
        assert odds_of(points + 0.7 - 0.4j, reference, radius) > 2 * NEEDED, seed


@pytest.mark.parametrize("kind", ["another field", "mirrored", "shuffled", "cluster"])
@pytest.mark.parametrize("number", [12, 30, 100, 400])
def test_the_best_of_many_wrong_solutions_is_never_accepted(kind, number):
    highest = -np.inf
    for seed in range(20):
        rng = np.random.default_rng(seed)
        reference = sky(rng, number)
        if kind == "cluster":
            reference[::2] = 0.1 * reference[::2]
        points = {
            "another field": sky(rng, number, 0.0),
            "mirrored": np.conj(reference[inside(reference)]),
            "shuffled": rng.permutation(reference.real) + 1j * reference.imag,
            "cluster": 0.1 * sky(rng, number, 0.0),
        }[kind]
        radius = 0.15 * SIDE / np.sqrt(number) * (0.3 if kind == "cluster" else 1.0)
        shifts = rng.uniform(-50, 50, 200) + 1j * rng.uniform(-50, 50, 200)
        shifts = shifts * np.exp(2j * np.pi * rng.random(200))
        counts = [len(asterism.mutual(points + shift, reference, radius)[0]) for shift in shifts[:40]]
        highest = max(highest, odds_of(points + shifts[np.argmax(counts)], reference, radius))
    assert highest < 0.7 * NEEDED


def test_odds_grow_with_the_stars_and_with_their_precision():
    rng = np.random.default_rng(1)
    reference = sky(rng, 300)
    points = reference[inside(reference)]
    noise = rng.normal(0, 1, len(points)) + 1j * rng.normal(0, 1, len(points))
    every = np.arange(len(points))
    back = np.flatnonzero(inside(reference))

    def odds(count, sigma):
        moved = (points + sigma * noise)[:count]
        return verify.log_odds(moved, np.full(count, sigma), reference, every[:count], back[:count], 1)

    assert 0 < odds(20, 1.0) < odds(20, 0.1) < odds(100, 0.1)
    # a hundred stars ten times as precise in two coordinates each
    assert odds(100, 0.1) - odds(100, 1.0) == pytest.approx(100 * np.log(100), rel=0.1)


def test_stars_that_were_fitted_do_not_count():
    rng = np.random.default_rng(2)
    reference, points = sky(rng, 60), sky(rng, 12, 0.0)
    # 12 points on their stars by a fit with as many parameters as stars speak for nothing
    first, second = np.arange(12), rng.permutation(60)[:12]
    exact = reference[second]
    assert verify.log_odds(exact, np.full(12, 0.05), reference, first, second) > 100
    design = sip.monomials(points / SIDE, 3)
    target = reference[second] - points
    solution = np.linalg.lstsq(design, np.column_stack([target.real, target.imag]), rcond=None)[0]
    bent = points + design @ solution @ [1, 1j]
    assert verify.log_odds(bent, np.full(12, 0.05), reference, first, second, 3) < 0
