"""Magnitudes, errors and flags where stars are so many that most are not seen, against the truth."""

import numpy as np
import pytest
from astropy.table import Table
from catalogued import tangent
from crowds import BINS, FWHM, GAIN, NOISE, SHAPE, SIDE, UNIT, field, measured
from scipy import ndimage
from scipy.spatial import cKDTree
from workflows import ROOT

from nightsift import parameters
from nightsift.detect.detect import detect
from nightsift.flags import Flag, Mask
from nightsift.io.fits import read_image
from nightsift.photometry.photometry import photometry
from nightsift.photometry.solution import ApertureSeeing
from nightsift.psf.confusion import without_neighbours
from nightsift.psf.psf import psf
from nightsift.simulate.pixels import render_points

FIELDS = {"sparse": (300, 0.0), "bulge": (20000, 4.0), "cluster": (20000, 4.0)}
REAL = ROOT.parent / "shared" / "data" / "real" / "crowded"
FLUXES = {"aperture": ("flux", "fluxerr"), "psf": ("psf_flux", "psf_fluxerr")}


@pytest.fixture(scope="module")
def fields():
    return {kind: [field(kind, seed, *options) for seed in (1, 2, 3)] for kind, options in FIELDS.items()}


def gathered(made, flux, error):
    """Return the pulls of all objects of some fields, where each is, and whether it is flagged as crowded."""
    parts = [
        ((np.asarray(one.objects[flux]) - one.true) / one.objects[error], one.place, one.objects["flags"])
        for one in made
    ]
    pull, place, flags = (np.concatenate([np.asarray(part) for part in column]) for column in zip(*parts, strict=True))
    known = np.isfinite(pull)
    return pull[known], place[known], (flags[known].astype(int) & int(Flag.CROWDED)) != 0


def robust(values):
    return 1.4826 * np.median(np.abs(values))


def rings(kind, place):
    return [(place >= low) & (place < high) for low, high in zip(BINS[kind], BINS[kind][1:], strict=False)]


@pytest.mark.parametrize("measure", FLUXES)
@pytest.mark.parametrize("kind", ["bulge", "cluster"])
def test_errors_hold_what_unseen_stars_do(fields, kind, measure):
    pull, place, _ = gathered(fields[kind], *FLUXES[measure])
    for number, ring in enumerate(rings(kind, place)):
        assert ring.sum() > 50
        # In the core of the cluster hardly a star is seen for what it is.
        core = kind == "cluster" and number < 2
        assert (0.4 if core else 0.7) < robust(pull[ring]) < 1.25
        assert abs(np.median(pull[ring])) < 0.6
    assert 0.85 < robust(pull) < 1.2


@pytest.mark.parametrize("measure", FLUXES)
def test_sparse_fields_stay_as_they_are(fields, measure):
    pull, *_ = gathered(fields["sparse"], *FLUXES[measure])
    assert 0.93 < robust(pull) < 1.12
    assert abs(np.median(pull)) < 0.15
    for one in fields["sparse"]:
        assert np.median(one.raw["confusion"] / one.raw["fluxerr"]) < 0.02
        assert np.median(np.abs(one.raw["neighbours"]) / one.raw["fluxerr"]) < 0.02


def test_crowded_is_said_where_stars_are_many_whether_seen_or_not(fields):
    for kind in ("bulge", "cluster"):
        _, place, crowded = gathered(fields[kind], *FLUXES["aperture"])
        share = [crowded[ring].mean() for ring in rings(kind, place)]
        dense, thin = (share[-1], share[0]) if kind == "bulge" else (min(share[:3]), share[-1])
        assert dense > 0.95
        assert thin < 0.5
    assert gathered(fields["sparse"], *FLUXES["aperture"])[2].mean() < 0.15


def catalogue(stars, seed):
    """Return the brightest stars of a field with their total magnitudes, on a zero point of 25."""
    x, y, flux = (part[np.argsort(-stars[2])[:600]] for part in stars)
    ra, dec = tangent(SIDE).all_pix2world(x, y, 0)
    mag = 25 - 2.5 * np.log10(flux) + np.random.default_rng(seed).normal(0, 0.005, len(x))
    return Table({"ra": ra, "dec": dec, "rmag": mag, "e_rmag": np.full(len(x), 0.005)})


@pytest.mark.parametrize("kind", FIELDS)
def test_the_zero_point_of_all_light_is_honest(fields, kind):
    total, inner = [], []
    for seed, one in enumerate(fields[kind]):
        objects = one.objects.copy()
        objects["ra"], objects["dec"] = tangent(SIDE).all_pix2world(objects["x"], objects["y"], 0)
        seeing = ApertureSeeing(one.fwhm, 1.0, one.aperture, (SIDE, SIDE))
        result = photometry(objects, catalogue(one.stars, seed), seeing, "r", parameters.PhotometryConfig())
        assert result.model.zp_err < 0.03
        total.append((result.model.zp - 25) / result.model.zp_err)
        inner.append((result.model.zp_aperture - 25 - 2.5 * np.log10(one.share)) / result.model.zp_aperture_err)
    assert np.max(np.abs(total)) < 3
    assert np.max(np.abs(inner)) < 3


def scattered(rng, count, distance):
    """Return positions that keep a distance from each other, FWHM."""
    x, y = rng.uniform(20, SIDE - 20, (2, count))
    keep = np.ones(count, bool)
    for one, other in sorted(cKDTree(np.column_stack([x, y])).query_pairs(distance * FWHM)):
        keep[other] &= not keep[one]
    return x[keep], y[keep]


def exposed(rng, x, y, flux, glow=0.0):
    light = np.zeros((SIDE, SIDE), np.float32)
    render_points(light, x, y, flux, SHAPE, 0.01)
    return measured("sparse", (rng.poisson((light + glow + 400) * GAIN) / GAIN).astype(np.float32), (x, y, flux))


def test_light_of_unresolved_stars_is_no_part_of_those_upon_it():
    """A smooth glow narrower than the rings in which the background is measured, as of a distant cluster's core."""
    rng = np.random.default_rng(5)
    x, y = scattered(rng, 1500, 2.5)
    radius = np.hypot(*(np.mgrid[:SIDE, :SIDE] - 255.5))
    one = exposed(rng, x, y, np.full(len(x), 5 * UNIT), 8 * NOISE * np.exp(-0.5 * (radius / 16) ** 2))
    inner = np.isfinite(one.true) & (np.hypot(one.objects["x"] - 255.5, one.objects["y"] - 255.5) < 20)
    assert inner.sum() >= 6
    before = ((one.raw["flux"] - one.true) / one.raw["fluxerr"])[inner]
    assert np.median(before) > 4
    for flux, error in FLUXES.values():
        pull = ((one.objects[flux] - one.true) / one.objects[error])[inner]
        assert abs(np.median(pull)) < 1


def test_neighbours_that_are_seen_are_taken_off():
    """Pairs 1.7 FWHM apart, among single stars: a good part of each one's light is in the other's aperture."""
    rng = np.random.default_rng(6)
    x, y = scattered(rng, 300, 8)
    angle = rng.uniform(0, 2 * np.pi, len(x) // 3)
    step = 1.7 * FWHM * np.array([np.cos(angle), np.sin(angle)])
    x, y = np.append(x, x[: len(angle)] + step[0]), np.append(y, y[: len(angle)] + step[1])
    one = exposed(rng, x, y, np.full(len(x), 10 * UNIT))
    paired = cKDTree(np.column_stack([x, y])).query(np.column_stack([one.objects["x"], one.objects["y"]]), 2)[0]
    paired = paired[:, 1] < 2 * FWHM
    assert paired.sum() > 40
    assert (~paired).sum() > 40
    before, after = ((np.asarray(table["flux"]) / one.true - 1) for table in (one.raw, one.objects))
    assert np.nanmedian(before[paired]) > 0.05
    assert abs(np.nanmedian(after[paired]) - np.nanmedian(after[~paired])) < 0.01
    np.testing.assert_allclose(after[~paired], before[~paired], atol=0.01)
    crowded = (one.objects["flags"] & int(Flag.CROWDED)) != 0
    assert crowded[paired].mean() > 0.9
    assert crowded[~paired].mean() < 0.1


def test_galaxies_among_few_stars_are_no_crowd():
    """What the PSF leaves of galaxies is theirs: it tells nothing of stars unseen, nor of the level beside them."""
    rng = np.random.default_rng(8)
    x, y = scattered(rng, 140, 4)
    number = 2 * len(x) // 3  # are galaxies, as in any deep image: discs of points
    grain, angle = rng.exponential(0.7 * FWHM, (number, 300)), rng.uniform(0, 2 * np.pi, (number, 300))
    light = np.zeros((SIDE, SIDE), np.float32)
    parts = (x[:number, None] + grain * np.cos(angle)).ravel(), (y[:number, None] + grain * np.sin(angle)).ravel()
    render_points(light, *parts, np.repeat(UNIT * 10 ** rng.uniform(0, 1.3, number) / 300, 300), SHAPE, 0.01)
    one = exposed(rng, x[number:], y[number:], UNIT * 10 ** rng.uniform(-0.2, 1, len(x) - number), light)
    star = np.isfinite(one.true)
    assert star.sum() > 30
    assert ((one.objects["flags"][star] & int(Flag.CROWDED)) != 0).mean() < 0.15
    assert np.mean(one.raw["neighbours"][star] > 0.3 * one.raw["fluxerr"][star]) < 0.15
    for flux, error in FLUXES.values():
        assert 0.6 < robust(((one.objects[flux] - one.true) / one.objects[error])[star]) < 1.3


def test_correlated_noise_is_not_taken_for_stars():
    rng = np.random.default_rng(7)
    x, y = scattered(rng, 250, 6)
    flux = np.full(len(x), 4 * UNIT)
    light = np.zeros((SIDE, SIDE), np.float32)
    render_points(light, x, y, flux, SHAPE, 0.01)
    data = light + 400 + 2 * NOISE * ndimage.gaussian_filter(rng.normal(size=light.shape), 0.7)
    one = measured("sparse", data.astype(np.float32), (x, y, flux))
    assert np.mean(one.raw["psf_confusion"] > 0.5 * one.raw["psf_fluxerr"]) < 0.1
    assert np.mean((one.objects["flags"] & int(Flag.CROWDED)) != 0) < 0.1


def test_what_neighbours_do_goes_to_flux_errors_and_flags():
    objects = Table({name: np.array([100.0, 100.0, 100.0, 100.0]) for name in ("flux", "snr")})
    objects["fluxerr"], objects["bgerr"], objects["flags"] = 3.0, 2.0, int(Flag.DEBLENDED)
    objects["neighbours"], objects["confusion"] = [0.0, 20.0, 1.0, np.nan], [0.0, 1.0, 4.0, np.nan]
    result = without_neighbours(objects)
    assert list(result["flux"]) == [100, 80, 99, 100]
    assert list(result["fluxerr"]) == pytest.approx([3, 10**0.5, 5, 3])
    assert list(result["bgerr"]) == pytest.approx([2, 5**0.5, 20**0.5, 2])
    assert list(result["snr"]) == pytest.approx(list(result["flux"] / result["fluxerr"]))
    crowded = int(Flag.DEBLENDED | Flag.CROWDED)
    assert list(result["flags"]) == [int(Flag.DEBLENDED), crowded, crowded, int(Flag.DEBLENDED)]
    assert list(objects["flux"]) == [100, 100, 100, 100]


def frame(name):
    """Return the objects of a real frame, raw and without neighbours."""
    data = read_image(REAL / f"{name}.fits").data
    mask = np.where(ndimage.binary_dilation(data > 60000, iterations=2), int(Mask.SATURATED), 0).astype(np.int32)
    found = detect(data, mask, 1.9, parameters.DetectConfig())
    result = psf(data, mask, 1.9, found.objects, found.seeing, found.aperture, parameters.PsfConfig())
    raw = found.objects.copy()
    raw.add_columns(list(result.table.columns.values()))
    return raw, without_neighbours(raw)


def same_stars(one, other):
    """Return the rows of the stars that two frames share, the second shifted and turned a little."""
    here, there = (np.column_stack([table["x"], table["y"]]) for table in (one, other))
    bright = [np.argsort(-table["flux"])[:80] for table in (one, other)]
    steps = (there[bright[1]][:, None] - here[bright[0]]).reshape(-1, 2)
    near = cKDTree(steps).query_ball_point(steps, 1.5, return_length=True)
    moved = here + steps[np.argmax(near)]
    for reach in (4.0, 2.0, 1.0):
        distance, row = cKDTree(there).query(moved)
        close = distance < reach
        terms = np.column_stack([np.ones(len(here)), here])
        moved = terms @ np.linalg.lstsq(terms[close], there[row[close]], rcond=None)[0]
    distance, row = cKDTree(there).query(moved)
    return np.flatnonzero(distance < 1), row[distance < 1]


@pytest.mark.skipif(not REAL.is_dir(), reason="the real frames ../shared/data/real/crowded are not here")
def test_real_frames_agree_within_their_errors():
    """What is not seen is the same in both, but for the seeing: errors may be too large for this, never too small."""
    spoilt = int(Flag.SATURATED | Flag.TRUNCATED | Flag.APERTURE_INCOMPLETE | Flag.FOOTPRINT_MASKED)
    first, second = frame("frame001"), frame("frame067")
    scatter, width = [], []
    for one, other in zip(first, second, strict=True):
        rows, match = same_stars(one, other)
        good = ((one["flags"][rows] | other["flags"][match]) & spoilt) == 0
        a, b = one[rows[good]], other[match[good]]
        a, b = (table[(a["flux"] > 0) & (b["flux"] > 0)] for table in (a, b))
        change = 2.5 * np.log10(np.asarray(a["flux"] / b["flux"]))
        error = 1.0857 * np.hypot(a["fluxerr"] / a["flux"], b["fluxerr"] / b["flux"])
        bright = np.argsort(-a["flux"])[: len(a) // 3]
        change -= np.median(change[bright])
        scatter.append(robust(change[bright]))
        width.append(robust(change / error))
    assert len(bright) > 80
    assert width[0] > 2
    assert width[1] < 1.1
    # Neighbours taken off, the difference in seeing matters less.
    assert scatter[1] < 0.85 * scatter[0]
