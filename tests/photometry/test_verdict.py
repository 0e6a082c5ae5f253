"""A zero point that means nothing is refused or doubted, with a sentence; healthy ones are not."""

import json

import numpy as np
import pytest
from calibrations import PARAMS, SEEING, ZP, simulate

from nightsift import parameters
from nightsift.errors import Rejected
from nightsift.io.products import read_json
from nightsift.photometry.photometry import photometry
from nightsift.workflow.stage import Stage

BANDS = ("rmag", "gmag")


def permuted(stars, rng):
    order = rng.permutation(len(stars))
    for band in BANDS:
        stars[band] = stars[band][order]


def one_band_permuted(stars, rng):
    stars["rmag"] = rng.permutation(stars["rmag"])


def noisy(stars, rng):
    for band in BANDS:
        stars[band] += rng.normal(0, 1, len(stars))


def without_value(stars, rng):
    stars["rmag"][rng.random(len(stars)) < 0.6] = 0.0


@pytest.mark.parametrize("spoil", [permuted, one_band_permuted, noisy, without_value])
@pytest.mark.parametrize("n", [60, 300])
def test_a_catalogue_that_means_nothing_is_not_trusted(spoil, n):
    for seed in range(4):
        objects, stars = simulate(seed, n)
        spoil(stars, np.random.default_rng(seed))
        unbounded = parameters.PhotometryConfig(max_zp_err=100.0)
        result = photometry(objects, stars, SEEING, "r", unbounded)
        assert result.doubts
        if result.model.zp_aperture_err > PARAMS.max_zp_err:
            with pytest.raises(Rejected, match="max_zp_err"):
                photometry(objects, stars, SEEING, "r", PARAMS)
        if result.model.color_term is not None and abs(result.model.color_term + 1) < 0.1:
            assert any("cancels itself, so the image shows g" in text for text in result.doubts)


def test_stars_at_wrong_places_do_not_make_a_zero_point():
    objects, stars = simulate(2, 300)
    wrong = np.arange(len(stars)) % 5 < 3
    stars["rmag"][wrong] += np.random.default_rng(1).normal(0, 1.5, wrong.sum())
    stars["gmag"][wrong] = stars["rmag"][wrong]
    result = photometry(objects, stars, SEEING, "r", PARAMS)
    assert any("agree" in text or "scatter" in text for text in result.doubts)


def test_healthy_images_are_trusted():
    for seed in range(6):
        for sky in (
            {"n": 12},
            {"n": 300, "outliers": 0.2, "intrinsic": 0.05},
            {"n": 100, "color": 0.3, "cat_err": 0.05},
        ):
            result = photometry(*simulate(seed, **sky), SEEING, "r", PARAMS)
            assert result.doubts == ()


def test_the_bounds_are_options():
    objects, stars = simulate(3, 200)
    for band in BANDS:
        stars[band] += np.random.default_rng(3).normal(0, 0.6, len(stars))
    assert photometry(objects, stars, SEEING, "r", PARAMS).doubts
    loose = parameters.PhotometryConfig(max_scatter=2.0, max_chi2=1e4, max_color_term=3.0, min_agreement=0.0)
    assert photometry(objects, stars, SEEING, "r", loose).doubts == ()
    with pytest.raises(Rejected, match="known to"):
        photometry(objects, stars, SEEING, "r", parameters.PhotometryConfig(max_zp_err=0.01))
    objects, stars = simulate(4, 200)
    result = photometry(objects, stars, SEEING, "r", parameters.PhotometryConfig(band="g"))
    assert "cancels itself, so the image shows r" in result.doubts[0]
    assert abs(result.model.zp_aperture - ZP) < 0.05


def test_a_doubted_image_is_degraded_and_goes_on(tmp_path):
    doubting = Stage("photometry", "", inputs={}, outputs={})
    calm = Stage("template", "", inputs={}, outputs={})
    last = Stage("subtract", "", inputs={}, outputs={})

    def run(stage, work, *previous):
        path = tmp_path / f"{stage.name}.json"
        arguments = ["--name", "one", "--state", str(path)]
        arguments += ["--previous", *map(str, previous)] if previous else []
        assert stage.run(work, arguments) == 0
        return path

    first = run(doubting, lambda job: job.doubt(["It means little."]))
    state = read_json(first)
    assert (state["status"], state["stage"], state["reason"], state["stopped"]) == (
        "degraded",
        "photometry",
        "It means little.",
        None,
    )
    second = run(calm, lambda job: None)
    assert json.loads(second.read_text())["status"] == "ok"
    worked = []
    third = read_json(run(last, lambda job: worked.append(1), second, first))
    assert worked
    assert (third["status"], third["reason"]) == ("degraded", "It means little.")

    def fail(job):
        raise Rejected("And this.")

    fourth = read_json(run(last, fail, second, first))
    assert (fourth["stopped"], fourth["reason"]) == ("subtract", "It means little. And this.")
