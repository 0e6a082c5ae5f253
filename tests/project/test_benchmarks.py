"""What the benchmarks conclude from counts."""

import importlib
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table
from workflows import ROOT


@pytest.fixture
def detection(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("detection")


@pytest.fixture
def real(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("real")


@pytest.mark.parametrize("plateau", [1.0, 0.9])
def test_half_completeness_is_recovered_within_its_error(detection, plateau):
    middle, slope, pulls = 5.5, 12.0, []
    half = middle * np.exp(-np.log(2 * plateau - 1) / slope)
    for seed in range(40):
        rng = np.random.default_rng(seed)
        snr = np.exp(rng.uniform(np.log(3), np.log(60), 800))
        share = plateau / (1 + (snr / middle) ** -slope)
        value, error = detection.half_complete(snr, rng.random(800) < share)
        assert 0.02 < error < 0.3
        pulls.append((value - half) / error)
    assert abs(np.mean(pulls)) < 0.5
    assert 0.6 < np.std(pulls) < 1.5


def test_half_completeness_of_too_little_is_unknown(detection):
    snr = np.linspace(4, 30, 40)
    assert np.isnan(detection.half_complete(snr, np.zeros(40, bool))).all()
    assert np.isnan(detection.half_complete(snr, np.ones(40, bool))).all()
    assert np.isnan(detection.half_complete(snr[:5], snr[:5] > 5)).all()


def test_robust_width_ignores_outliers_and_gaps(detection):
    values = np.random.default_rng(1).normal(2, 3, 20_000)
    values[:100] = np.nan
    values[100:300] = 1e9
    middle, width = detection.robust(values)
    assert middle == pytest.approx(2, abs=0.1)
    assert width == pytest.approx(3, rel=0.05)
    assert np.isnan(detection.robust([np.nan])).all()


def frame(real, name, objects=None, layers=None, fwhm=3.0):
    facts = {"detect": {"fwhm": fwhm}, "inspect": {"pixscale": 1.0}}
    return real.Frame(name, Path(), {}, facts, None, objects, layers)


@pytest.mark.parametrize("lie", [1.0, 2.0])
def test_pulls_of_repeated_stars_are_those_of_their_errors(real, lie):
    rng, frames = np.random.default_rng(3), []
    n = 3000
    truth, err = rng.uniform(14, 20, n), rng.uniform(0.01, 0.1, n)
    for k in range(3):
        stars = {"ra": 10 + np.arange(n) % 60 / 60, "dec": np.arange(n) // 60 / 60.0, "flags": np.zeros(n, int)}
        stars |= {"mag_calib": truth + 0.3 * k + rng.normal(0, lie * err), "mag_calib_err": err, "snr": 1 / err}
        frames.append(frame(real, f"f{k}", Table(stars)))
    figures = real.repeats(frames)
    assert set(figures) == {"f0", "f1", "f2"}
    for kinds in figures.values():
        assert set(kinds) == {"aperture"}
        assert [part["stars"] > 100 for part in kinds["aperture"]] == [True, True, False]
        for part in kinds["aperture"][:2]:
            assert part["pull"] == pytest.approx(lie, rel=0.1)


def test_noise_on_light_is_told_from_that_of_the_sky(real):
    rng, shape = np.random.default_rng(4), (300, 300)
    y, x = np.indices(shape)
    light = 8.0 * ((x > 100) & (x < 200)) + 50.0 * (x >= 200)
    snr = rng.normal(0, np.where(x <= 100, 1.0, np.where(x < 200, 0.5, 3.0)))
    snr[(np.hypot(x - 50, y - 50) < 8)] = 40.0
    layers = {"SIGMA": np.full(shape, 2.0), "SNR": snr, "MASK": np.zeros(shape, int), "MODEL": 2 * light}
    objects = Table({"x": rng.uniform(0, 299, 20), "y": rng.uniform(0, 299, 20)})
    found = real.widths_of(snr, real.regions(frame(real, "one", objects, layers), [("nova", 50.0, 50.0)]))
    assert found["sky"] == pytest.approx(1.0, rel=0.05)
    assert found["3-10"] == pytest.approx(0.5, rel=0.05)
    assert found[">30"] == pytest.approx(3.0, rel=0.05)


def test_candidates_on_a_line_are_counted(real):
    rng = np.random.default_rng(5)
    x, y = rng.uniform(0, 1000, (2, 12))
    assert real.on_a_line(x, y) <= 3
    y[:5] = 200 + rng.uniform(-0.5, 0.5, 5)
    assert real.on_a_line(x, y) >= 5
    assert real.on_a_line([], []) == 0


def test_sets_are_found_with_what_belongs_to_them(real, tmp_path):
    for path in (
        "a/one.fits",
        "a/two.fit",
        "a/template.fits",
        "a/catalog.csv",
        "b/images/three.fits.fz",
        "c/notes.txt",
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    (tmp_path / "a" / "set.yaml").write_text("hints: {ra: 1.5}\ntruth: [{name: nova, x: 3, y: 4}]\n")
    a, b = real.find_sets(tmp_path)
    assert (a.name, sorted(a.frames), a.template.name, a.hints) == ("a", ["one", "two"], "template.fits", {"ra": 1.5})
    assert a.truth[0]["name"] == "nova"
    assert (b.name, list(b.frames), b.catalog, b.template) == ("b", ["three"], None, None)


def test_completeness_by_light_is_counted_beside_the_ideal(detection):
    snr = np.array([5.5, 5.5, 7.5, 20.0, 20.0, 20.0, 7.5])
    light = np.array([1.0, 1.2, 0.9, 10.0, 30.0, 3.0, 100.0])
    found = np.array([True, False, True, True, False, True, True])
    one, three, ten, thirty = detection.levels.by_light(snr, light, found, 5.0)
    assert [part["level"] for part in (one, three, ten, thirty)] == [1.0, 3.0, 10.0, 30.0]
    assert [(part["found"], part["there"]) for part in one["bins"]] == [(1, 2), (0, 0), (1, 1), (0, 0), (0, 0), (0, 0)]
    # Half a sigma above the threshold
    assert one["bins"][0]["ideal"] == pytest.approx(2 * 0.6915, abs=1e-3)
    assert detection.levels.above(thirty["bins"], 7.0) == {"found": 0, "there": 1, "ideal": pytest.approx(1.0)}
    text = list(detection.levels.lines({"nightsift": [one, three, ten, thirty]}))
    assert len(text) == 6
    assert "1/2   (1.4)" in text[2]
