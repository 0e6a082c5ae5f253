"""Fakes: where they are put, what they are, and how they are matched with what is found."""

from dataclasses import replace

import numpy as np
import pytest
from astropy.table import Table, vstack
from differences import FWHM, NO_OBJECTS, lattice, noise, psf_of, rendered, search_of, unit_of
from scipy.spatial import cKDTree

from nightsift import parameters
from nightsift.fakes.fakes import examples
from nightsift.fakes.injection import APART, plan
from nightsift.flags import Flag, Mask
from nightsift.tables import checked
from nightsift.transients.transients import find

SIZE, SKY = 800, 500.0
PARAMS = parameters.FakesConfig(density=120.0)
VETTING = parameters.TransientsConfig()


def objects_at(x, y, **columns):
    """Rows of a schema table with what is given, the rest 0."""
    table = vstack([NO_OBJECTS, Table({"x": np.asarray(x, float), "y": np.asarray(y, float)})])
    for name in table.colnames:
        if name not in ("x", "y"):
            kind = NO_OBJECTS[name].dtype
            table[name] = np.zeros(len(table), kind) if kind.kind in "iufb" else np.full(len(table), "")
    for name, value in columns.items():
        table[name] = np.broadcast_to(value, len(table))
    return table


class Scene:
    """An image with stars, galaxies and hits, and its difference."""

    def __init__(self, seed=1, gain=None):
        rng = np.random.default_rng(seed)
        self.psf = psf_of(FWHM)
        self.unit = unit_of(self.psf)
        x, y = (part + rng.uniform(-2, 2, 100) for part in lattice(seed, 10, SIZE))
        wide = np.arange(100) % 2 == 0
        self.template = rendered(x, y, 200 * self.unit, size=SIZE)
        self.difference = noise(seed + 1, SIZE)
        self.mask = np.zeros((SIZE, SIZE), np.uint16)
        self.mask[300:420, 500:640] = int(Mask.USER)
        hit_x, hit_y = rng.integers(30, SIZE - 30, (2, 30))
        self.image = SKY + self.template + self.difference
        self.image[hit_y, hit_x] += 800
        self.image[hit_y, hit_x + 1] += 300
        for shift in (0, 1):
            self.mask[hit_y, hit_x + shift] |= int(Mask.COSMIC)
        self.search = search_of(self.difference, self.psf, model=self.template, mask=self.mask, gain=gain)
        size = np.where(wide, 2 * FWHM, FWHM)
        self.objects = objects_at(x, y, fwhm=size, a=size / 2.35, b=size / 2.35, snr=200.0, flux=200 * self.unit)

    def plan(self, seed=3, params=PARAMS, **changed):
        objects = changed.get("objects", self.objects)
        return plan(self.image, changed.get("search", self.search), objects, self.psf, seed, params)

    def found(self, planned):
        """Search the difference with all that was put in."""
        difference = self.difference + (planned.data - self.image)
        search = search_of(difference, self.psf, model=self.template, mask=self.mask)
        return find(search, planned.objects, 5.0, VETTING, 0.8)


@pytest.fixture(scope="module")
def scene():
    return Scene()


@pytest.fixture(scope="module")
def planned(scene):
    return scene.plan()


@pytest.fixture(scope="module")
def rows(scene, planned):
    return examples(planned, scene.found(planned), FWHM)


def test_the_image_gains_what_the_fakes_have(scene, planned):
    change = planned.data.astype(float) - scene.image
    v, u = np.mgrid[:SIZE, :SIZE]
    radius = 3 * FWHM
    share = rendered(200, 200, 1e6)
    at_v, at_u = np.mgrid[:400, :400]
    near = share[np.hypot(at_u - 200, at_v - 200) < radius].sum() / share[np.hypot(at_u - 200, at_v - 200) < 12].sum()
    inside = (planned.fakes["x"] > 15) & (planned.fakes["y"] > 15)
    inside &= (planned.fakes["x"] < SIZE - 15) & (planned.fakes["y"] < SIZE - 15)
    assert inside.sum() > 40
    for fake in planned.fakes[inside]:
        circle = np.hypot(u - fake["x"], v - fake["y"]) < radius
        assert change[circle].sum() == pytest.approx(near * fake["flux"], rel=0.01)
        whole = np.hypot(u - fake["x"], v - fake["y"]) < 2
        assert np.average(u[whole], weights=change[whole]) == pytest.approx(fake["x"], abs=0.3)


def test_fakes_have_the_signal_to_noise_that_they_claim(scene, planned):
    np.testing.assert_allclose(planned.fakes["flux"], planned.fakes["snr"] * scene.unit, rtol=0.08)
    assert planned.fakes["snr"].min() >= 3
    assert planned.fakes["snr"].max() <= 400
    assert 0.4 < np.mean(planned.fakes["snr"] < 9) < 0.8


def test_photons_of_fakes_scatter():
    bright, quiet = Scene(gain=0.2), Scene()
    one, other = bright.plan(), quiet.plan()
    np.testing.assert_array_equal(one.fakes["flux"], other.fakes["flux"])
    row, column = np.rint(one.fakes["y"]).astype(int), np.rint(one.fakes["x"]).astype(int)
    change = (one.data - bright.image)[row, column] - (other.data - quiet.image)[row, column]
    expected = np.sqrt((other.data - quiet.image)[row, column] / 0.2)
    assert np.std(change / expected) == pytest.approx(1, abs=0.3)
    assert abs(np.mean(change / expected)) < 0.5


def test_as_many_as_are_asked_for(scene, planned):
    assert len(planned.fakes) == int(PARAMS.density * SIZE**2 / 1e6)
    assert len(scene.plan(params=replace(PARAMS, most=20)).fakes) == 20
    assert set(planned.fakes["kind"]) == {"sky", "host", "star"}


def test_fakes_keep_their_distance(scene, planned):
    place = np.column_stack([planned.fakes["x"], planned.fakes["y"]])
    assert cKDTree(place).query(place, 2)[0][:, 1].min() >= APART * FWHM
    hits = planned.bogus[planned.bogus["kind"] == "hit"]
    shifts = planned.bogus[planned.bogus["kind"] == "shift"]
    assert len(hits) >= 5
    assert len(shifts) >= 5
    for table, radius in ((hits, APART * FWHM), (shifts, 0.5 * APART * FWHM)):
        there = np.column_stack([table["x"], table["y"]])
        assert cKDTree(place).query(there)[0].min() >= radius


def test_fakes_lie_on_good_pixels_of_the_image(scene, planned):
    row, column = np.rint(planned.fakes["y"]).astype(int), np.rint(planned.fakes["x"]).astype(int)
    assert np.all(scene.mask[row, column] == 0)
    assert 0 <= row.min()
    assert row.max() < SIZE


def test_fakes_keep_away_from_what_is_there(scene):
    x, y = lattice(5, 4, SIZE)
    difference = scene.difference + rendered(x, y, 50 * scene.unit, size=SIZE)
    search = search_of(difference, scene.psf, model=scene.template, mask=scene.mask)
    fakes = scene.plan(search=search).fakes
    own = cKDTree(np.column_stack([fakes["x"], fakes["y"]]))
    assert own.query(np.column_stack([x, y]))[0].min() > 0.5 * APART * FWHM - 1.5


def test_hosts_and_stars_are_what_they_are_put_on(scene, planned):
    wide = np.asarray(scene.objects["fwhm"]) > 1.5 * FWHM
    for kind, chosen, reach in (("host", wide, 2 * 2 * FWHM / 2.35), ("star", ~wide, 3 * FWHM)):
        fakes = planned.fakes[planned.fakes["kind"] == kind]
        tree = cKDTree(np.column_stack([scene.objects["x"], scene.objects["y"]])[chosen])
        distance = tree.query(np.column_stack([fakes["x"], fakes["y"]]))[0]
        assert distance.max() <= reach + 1e-6
        if kind == "star":
            assert distance.min() >= 0.7 * FWHM - 1e-6


def test_the_seed_decides(scene, planned):
    again, other = scene.plan(), scene.plan(seed=4)
    np.testing.assert_array_equal(again.data, planned.data)
    for name in ("fakes", "bogus", "objects"):
        one, same = getattr(planned, name), getattr(again, name)
        assert all(np.array_equal(one[column], same[column]) for column in ("x", "y"))
    assert not np.array_equal(np.sort(other.fakes["x"]), np.sort(planned.fakes["x"]))
    assert not np.array_equal(other.data, planned.data)


def test_the_image_itself_stays(scene):
    before = scene.image.copy()
    scene.plan(seed=9)
    np.testing.assert_array_equal(scene.image, before)


def test_moved_stars_are_no_objects_any_more(scene, planned):
    moved = planned.bogus[planned.bogus["kind"] == "shift"]
    assert len(planned.objects) == len(scene.objects) - len(moved)
    assert not np.isin(moved["x"], planned.objects["x"]).any()
    assert np.isin(moved["x"], scene.objects["x"]).all()


def test_a_moved_star_keeps_its_light(scene, planned):
    change = planned.data.astype(float) - scene.image
    for star in planned.bogus[planned.bogus["kind"] == "shift"]:
        i, j = round(star["x"]), round(star["y"])
        stamp = change[max(j - 10, 0) : j + 11, max(i - 10, 0) : i + 11]
        assert stamp.max() > 0 > stamp.min()
        assert abs(stamp.sum()) < 0.1 * np.abs(stamp).sum()


def test_stars_that_saturate_are_not_moved(scene):
    objects = scene.objects.copy()
    objects["flags"] = int(Flag.SATURATED)
    assert not np.any(scene.plan(objects=objects).bogus["kind"] == "shift")


def test_fakes_are_matched_with_what_is_found(scene, planned, rows):
    checked(rows, "fakes")
    own = rows[: len(planned.fakes)]
    np.testing.assert_array_equal(own["true_x"], planned.fakes["x"])
    np.testing.assert_array_equal(own["kind"], planned.fakes["kind"])
    strong = own["true_snr"] > 8
    assert own["found"][strong].mean() > 0.97
    assert own["found"][own["true_snr"] < 4].mean() < 0.7
    seen = own[np.asarray(own["found"], bool)]
    assert np.hypot(seen["x"] - seen["true_x"], seen["y"] - seen["true_y"]).max() <= 0.6 * FWHM
    bright = seen[seen["true_snr"] > 15]
    np.testing.assert_allclose(bright["flux"], bright["true_flux"], rtol=0.35)
    assert np.isnan(own["flux"][~np.asarray(own["found"], bool)]).all()
    assert np.all(own["rejections"][~np.asarray(own["found"], bool)] == "")


def test_bogus_is_what_was_put_there(scene, planned, rows):
    bogus = rows[len(planned.fakes) :]
    assert np.asarray(bogus["found"]).all()
    for kind, radius in (("hit", FWHM), ("shift", 2 * FWHM)):
        chosen = bogus[bogus["kind"] == kind]
        put = planned.bogus[planned.bogus["kind"] == kind]
        assert len(chosen) >= 3
        distance = cKDTree(np.column_stack([put["x"], put["y"]])).query(np.column_stack([chosen["x"], chosen["y"]]))[0]
        assert distance.max() < radius
    assert np.all(bogus["flux"][bogus["kind"] == "negative"] < 0)
    # None of it belongs to a fake.
    fakes = cKDTree(np.column_stack([planned.fakes["x"], planned.fakes["y"]]))
    assert fakes.query(np.column_stack([bogus["x"], bogus["y"]]))[0].min() > 3 * FWHM


def test_what_is_negative_where_nothing_was_is_bogus(scene, planned):
    found = scene.found(planned)
    low = found[:1].copy()
    low["x"], low["y"], low["flux"], low["template_flux"] = 570.0, 360.0, -40 * scene.unit, 0.0
    fades = low.copy()
    fades["x"], fades["template_flux"] = 590.0, 400 * scene.unit
    result = examples(planned, vstack([found, low, fades]), FWHM)
    chosen = result[result["kind"] == "negative"]
    assert np.any((chosen["x"] == 570) & (chosen["y"] == 360))
    assert not np.any(chosen["x"] == 590)


def test_known_bogus_is_of_all_kinds_and_has_a_reach(scene, planned):
    assert set(planned.bogus["kind"]) == {"hit", "smear", "defect", "shift"}
    reach = {kind: planned.bogus["reach"][planned.bogus["kind"] == kind] for kind in set(planned.bogus["kind"])}
    assert np.all(reach["hit"] == FWHM)
    assert np.all(reach["shift"] == 2 * FWHM)
    assert np.all((reach["smear"] >= 2 * FWHM) & (reach["smear"] <= 6 * FWHM))
    assert np.all((reach["defect"] > FWHM) & (reach["defect"] < APART * FWHM))
    # The light that was put in lies within.
    change = planned.data.astype(float) - scene.image
    v, u = np.mgrid[:SIZE, :SIZE]
    for row in planned.bogus[np.isin(planned.bogus["kind"], ["smear", "defect"])]:
        away = np.hypot(u - row["x"], v - row["y"])
        assert np.abs(change[away < row["reach"]]).sum() > 0.8 * np.abs(change[away < 0.5 * APART * FWHM]).sum()


def test_a_transient_of_the_image_itself_is_no_bogus(scene, planned):
    """One that was there before, and is found within reach of what was put in."""
    smear = planned.bogus[np.argmax(planned.bogus["reach"])]
    found = scene.found(planned)[:1]
    found["x"], found["y"], found["flux"] = smear["x"] + 0.8 * smear["reach"], smear["y"], 40 * scene.unit
    assert np.sum(examples(planned, found, FWHM)["kind"] == smear["kind"]) == 1
    there = np.append(planned.known, [[found["x"][0] + 0.5, found["y"][0]]], axis=0)
    result = examples(replace(planned, known=there), found, FWHM)
    assert len(result) == len(planned.fakes)


def test_nothing_found_is_nothing_found(scene, planned):
    nothing = scene.found(planned)[:0]
    result = examples(planned, nothing, FWHM)
    checked(result, "fakes")
    assert len(result) == len(planned.fakes)
    assert not np.asarray(result["found"]).any()


def test_without_objects_all_fakes_are_on_the_sky(scene):
    planned = scene.plan(objects=NO_OBJECTS)
    assert set(planned.fakes["kind"]) == {"sky"}
    assert len(planned.fakes) > 20
    assert len(planned.objects) == 0
    checked(examples(planned, scene.found(planned), FWHM), "fakes")


def cut(search, size, masked=False):
    """A corner of a search."""
    layers = {
        name: getattr(search, name)[:size, :size] for name in ("difference", "sigma", "snr", "model", "saturated")
    }
    mask = search.mask[:size, :size] | np.uint16(int(Mask.USER) if masked else 0)
    return replace(search, **layers, mask=mask)


@pytest.mark.parametrize("size", [5, 12, 35, 60])
@pytest.mark.parametrize("full", [True, False])
def test_a_tiny_image_has_what_fits(scene, size, full):
    objects = scene.objects[(scene.objects["x"] < size) & (scene.objects["y"] < size)] if full else NO_OBJECTS
    planned = plan(scene.image[:size, :size], cut(scene.search, size), objects, scene.psf, 1, PARAMS)
    assert planned.data.shape == (size, size)
    assert np.isfinite(planned.data).all()
    assert len(planned.fakes) <= max(1, (size / (APART * FWHM) + 1) ** 2)
    found = find(cut(scene.search, size), objects, 4.0, VETTING)
    assert len(examples(planned, found, FWHM)) >= len(planned.fakes)


def test_hits_are_copied_into_a_tiny_image(scene):
    size = 36
    search, image = cut(scene.search, size), scene.image[:size, :size].copy()
    mask = search.mask.copy()
    for place in (4, 10, 16, 22, 28):
        mask[place, place] = int(Mask.COSMIC)
        image[place, place] += 500
    planned = plan(image, replace(search, mask=mask), NO_OBJECTS, scene.psf, 1, PARAMS)
    assert set(planned.bogus["kind"]) <= {"hit"}
    assert np.isfinite(planned.data).all()


@pytest.mark.parametrize("objects", [True, False])
def test_an_image_without_a_good_pixel_has_no_fakes(scene, objects):
    search = cut(scene.search, SIZE, masked=True)
    planned = scene.plan(search=search, objects=scene.objects if objects else NO_OBJECTS)
    assert len(planned.fakes) == 0
    result = examples(planned, find(search, planned.objects, 5.0, VETTING), FWHM)
    checked(result, "fakes")
    assert len(result[np.isin(result["kind"], ["sky", "host", "star"])]) == 0
