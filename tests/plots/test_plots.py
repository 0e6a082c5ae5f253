"""Figures: there for every image, whatever its status, and what they are computed from."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table
from astropy.wcs import WCS
from matplotlib.quiver import Quiver
from PIL import Image
from synthetic_results import write_campaign
from workflows import script

from nightsift.fakes.completeness import interval
from nightsift.plots import plots, search, shapes
from nightsift.plots.figures import NOTHING, limits_of

SCRIPTS = Path(__file__).parents[2] / "scripts"
NAMES = (
    *("overview", "background", "shape", "psf", "fwhm", "zeropoint", "astrometry", "limit"),
    *("realbogus", "completeness"),
)


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    results = tmp_path_factory.mktemp("plots") / "results"
    write_campaign(results, 2)
    return results


def run(results, image, out):
    arguments = ["--name", image, "--images", str(results / "images" / image), "--plots", str(out)]
    assert script("plots").main([*arguments, "--exposure", str(results / f"{image}.fits")]) == 0
    return {name: Image.open(out / f"{name}.png") for name in NAMES}


def test_figures_of_a_good_image(campaign, tmp_path):
    figures = run(campaign, "night_00", tmp_path)
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


def test_the_catalogue_is_counted_where_the_image_is(campaign):
    full = material(campaign, "night_00")
    x, y = np.array([10.0, 50.0, 90.0, -40.0, 1e5]), np.array([20.0, 60.0, -3.0, 10.0, 1e5])
    ra, dec = WCS(full.header).wcs_pix2world(x, y, 0)
    stars = Table({"ra": ra, "dec": dec, "rmag": [15.0, np.nan, 16.0, 17.0, 18.0]})
    full = replace(full, catalog=stars, shape=(100, 100))
    assert full.catalog_mag.tolist() == [15.0]
    assert not len(replace(full, photometry={"band": "g"}).catalog_mag)
    assert not len(replace(full, catalog=stars[:0]).catalog_mag)
    many = Table({"ra": np.full(50, ra[0]), "dec": np.full(50, dec[0]), "rmag": np.linspace(15, 20, 50)})
    bars = plots.plots(replace(full, catalog=many))["limit"].axes[1]
    assert any("catalogue, 50" in text.get_text() for text in bars.get_legend().get_texts())


def test_maps_show_the_background_and_its_noise(campaign):
    u = np.indices((256, 320), np.float32)[1]
    sky = 200 + 0.03 * u + np.random.default_rng(1).normal(0, 3, u.shape).astype(np.float32)
    figure = shapes.background(replace(material(campaign, "night_00"), image=sky, mask=None, shape=sky.shape))
    level, noise = (np.asarray(ax.images[0].get_array()) for ax in figure.axes[:2])
    assert level[:, -1].mean() - level[:, 0].mean() == pytest.approx(0.03 * 320, rel=0.3)
    assert np.median(noise) == pytest.approx(3, rel=0.1)
    assert shapes.background(replace(material(campaign, "night_00"), image=None)) is None


def material(campaign, image):
    return script("plots").collect(image, campaign / "images" / image, campaign / f"{image}.fits")


def test_residual_vectors_show_the_medians_of_the_parts_that_have_one(campaign):
    full = material(campaign, "night_00")
    for cells, count in ((full.astrometry["residual_map"], 1), (None, 0)):
        facts = full.astrometry | {"residual_map": cells}
        axes = plots.plots(replace(full, astrometry=facts))["astrometry"].axes[1]
        stars, *medians = [part for part in axes.collections if isinstance(part, Quiver)]
        assert len(stars.U) > 10
        assert [(list(part.U), list(part.V)) for part in medians] == [([0.02], [-0.01])] * count


def test_completeness_falls_to_a_half_where_the_limit_is_quoted(campaign):
    full = material(campaign, "night_00")
    by_snr, by_magnitude = search.completeness(full).axes
    depth = full.transients["completeness"]["off_hosts"]
    for ax, goal, sign in ((by_snr, depth["snr"]["half"], 1), (by_magnitude, depth["mag"]["half"], -1)):
        curves = [line for line in ax.lines if len(line.get_xdata()) > 50 and line.get_color() == "#2667b5"]
        x, y = curves[0].get_data()
        assert sign * np.interp(0.5, y[::sign], sign * x[::sign]) == pytest.approx(goal, rel=0.03, abs=0.05)


def test_binomial_interval_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(5)
    for number in (10, 100):
        truth = rng.uniform(0, 1, 20000)
        found = rng.binomial(number, truth)
        low, high = interval(found, number)
        assert np.mean((low <= truth) & (truth <= high)) == pytest.approx(0.683, abs=0.03)
        assert np.all((low <= found / number) & (found / number <= high))


def test_scores_are_all_counted(campaign):
    bars, _ = search.realbogus(material(campaign, "night_00")).axes
    heights = [sum(bar.get_height() for bar in group) for group in bars.containers]
    assert heights == [40, 150]


def test_search_figures_say_what_is_missing(campaign):
    full = material(campaign, "night_00")
    bare = replace(full, transients={"status": "ok"}, psf_model=None, psf={})
    for name, figure in plots.plots(bare).items():
        if name in NOTHING:
            said = " ".join(text.get_text() for text in figure.texts)
            assert " ".join(NOTHING[name].split()[:5]) in said
    # fakes without a curve by magnitude, a PSF without its facts, a model that could not be tested
    model = full.transients["model"]
    untested = {key: model[key] for key in ("trained_on", "own_real", "own_bogus")}
    odd = replace(full, transients=full.transients | {"model": untested}, psf={}, zero_point=None, photometry={})
    assert [len(figure.axes) for figure in (search.completeness(odd), search.psf(odd))] == [2, 2]
    assert search.realbogus(odd) is None


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


@pytest.mark.parametrize("unit", [1e-30, 1e30])
def test_figures_look_alike_in_any_unit(unit):
    data = np.random.default_rng(2).normal(100, 5, (50, 50))
    data[20, 20] = 1000
    np.testing.assert_allclose(plots.stretch(data * unit), plots.stretch(data), atol=1e-6)
    np.testing.assert_allclose(np.array(limits_of(data.ravel() * unit)) / unit, limits_of(data.ravel()))
    low, high = limits_of(np.zeros(5))
    assert low < high


def test_stretch_of_a_constant_image():
    assert np.isfinite(plots.stretch(np.full((5, 5), 3.0))).all()
    assert np.isfinite(plots.stretch(np.full((5, 5), np.nan))).all()
