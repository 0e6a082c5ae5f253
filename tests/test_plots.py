"""Figures: there for every image, whatever its status, and what they are computed from."""

import importlib.util
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from synthetic_results import write_campaign

from nightsift import plots

SCRIPTS = Path(__file__).parents[1] / "scripts"
NAMES = ("overview", "fwhm", "zeropoint", "astrometry", "limit")


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    results = tmp_path_factory.mktemp("plots") / "results"
    write_campaign(results, 2)
    return results


def run(results, image, out):
    specification = importlib.util.spec_from_file_location("plots_script", SCRIPTS / "plots.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    arguments = ["--name", image, "--images", str(results / "images" / image), "--plots", str(out)]
    assert module.main([*arguments, "--exposure", str(results / f"{image}.fits")]) == 0
    return {name: Image.open(out / f"{name}.png") for name in NAMES}


def test_figures_of_a_good_image(campaign, tmp_path):
    start = time.perf_counter()
    figures = run(campaign, "night_00", tmp_path)
    assert time.perf_counter() - start < 5
    for figure in figures.values():
        assert figure.size == (800, 420)
        assert np.std(np.asarray(figure.convert("L"), float)) > 10


@pytest.mark.parametrize("image", ["cloudy", "broken", "killed"])
def test_placeholders_where_nothing_was_made(campaign, tmp_path, image):
    for figure in run(campaign, image, tmp_path).values():
        assert figure.size == (400, 210)
        assert np.asarray(figure.convert("L")).min() < 120, "no text"


def test_figures_are_the_same_when_made_again(campaign, tmp_path):
    for folder in ("a", "b"):
        run(campaign, "night_01", tmp_path / folder)
    for name in NAMES:
        assert (tmp_path / "a" / f"{name}.png").read_bytes() == (tmp_path / "b" / f"{name}.png").read_bytes()


def test_reason_is_no_formula(campaign, tmp_path):
    results = tmp_path / "results"
    shutil.copytree(campaign / "images" / "cloudy", results / "images" / "cloudy")
    state = results / "images" / "cloudy" / "status.json"
    state.write_text(state.read_text().replace("only 3 objects", r"$\\frac{ $ x_^ \\u0007"))
    run(results, "cloudy", tmp_path / "out")


def test_block_mean_ignores_missing_pixels():
    data = np.ones((100, 130), np.float32)
    data[:, 60:] = 3
    data[5, 5] = np.nan
    small, step = plots.block_mean(data, 50)
    assert step == 3
    assert small.shape == (33, 43)
    assert small[1, 1] == 1
    assert np.isfinite(small).all()
    assert plots.block_mean(data, 200)[1] == 1


def test_stretch_is_monotonic_and_bounded():
    rng = np.random.default_rng(1)
    data = rng.normal(100, 5, (50, 50))
    data[0, :5] = [200, 500, 1000, 5000, np.nan]
    shown = plots.stretch(data)
    assert shown.min() >= 0
    assert shown.max() <= 1
    assert np.all(np.diff(shown[0, :4]) >= 0)
    assert shown[0, 1] > 0.5 > np.median(shown) > 0


def test_stretch_of_a_constant_image():
    assert np.isfinite(plots.stretch(np.full((5, 5), 3.0))).all()
    assert np.isfinite(plots.stretch(np.full((5, 5), np.nan))).all()
