"""The model: what it is made of, what it depends on, how its quality is measured."""

import numpy as np
import pytest
from differences import FWHM, lattice, noise, psf_of, rendered, search_of, unit_of

from nightsift.transients.measure import measure
from nightsift.transients.realbogus import FEWEST, MEASURES, Examples, features, quality, shipped, train


@pytest.fixture(scope="module")
def few():
    """Every eighth of the examples of the package."""
    return shipped()[::8]


def table_of(scale=1.0, sign=1.0):
    psf = psf_of(FWHM)
    x, y = lattice(1)
    unit = unit_of(psf)
    flux = np.exp(np.random.default_rng(2).uniform(np.log(6), np.log(200), len(x))) * unit
    search = search_of(sign * (noise(3) + rendered(x, y, flux)), psf, model=rendered(x + 3, y, 50 * unit), gain=1.0)
    table = measure(search, np.rint(x), np.rint(y), search.mask != 0)
    for name in ("flux", "fluxerr", "bgerr", "template_flux", "expected", "neighbour", "beside"):
        table[name] *= scale
    return table


def test_the_package_has_examples_of_both_kinds():
    examples = shipped()
    assert examples.values.shape == (len(examples), len(MEASURES))
    assert np.isfinite(examples.values).all()
    assert examples.real.sum() > 1000
    assert (~examples.real).sum() > 500
    assert len(np.unique(examples.group)) > 10


def test_training_twice_gives_the_same(few):
    values = shipped().values[1::8]
    own = shipped()[3::8]
    one, other = train(own, few), train(own, few)
    np.testing.assert_array_equal(one.score(values), other.score(values))
    np.testing.assert_array_equal(one.held_out, other.held_out)
    assert one.card == other.card


def test_scores_are_probabilities_and_tell_held_out_examples_apart(few):
    """Trained on some groups of the examples, on others the model has to be right."""
    examples = shipped()
    groups = np.unique(examples.group)
    out = np.isin(examples.group, groups[::3])
    score = train(base=examples[~out]).score(examples.values[out])
    assert np.all((score >= 0) & (score <= 1))
    assert quality(score, examples.real[out])["auc"] > 0.93
    assert train(base=few).score(np.zeros((0, len(MEASURES)))).shape == (0,)


def test_scores_of_images_that_were_held_out_are_right_and_reliable():
    """All images' examples are scored by models that saw none of that image."""
    examples = shipped()
    score = np.full(len(examples), np.nan)
    for fold in range(4):
        out = examples.group % 4 == fold
        score[out] = train(base=examples[~out]).score(examples.values[out])
    bright = examples.values[:, list(MEASURES).index("log_snr")] > np.log10(7)
    found = quality(score[bright], examples.real[bright])
    assert found["auc"] > 0.99
    assert found["false_positive_at_1_percent"] < 0.01
    assert quality(score, examples.real)["auc"] > 0.99
    for _, number, mean, share in quality(score, examples.real)["reliability"]:
        assert abs(share - mean) < 0.05 + 2 * np.sqrt(max(share * (1 - share), 0.5 / number) / number)


def test_features_do_not_depend_on_scale_or_sign():
    plain = features(table_of(), FWHM)
    assert plain.shape == (36, len(MEASURES))
    assert plain.dtype == np.float32
    np.testing.assert_allclose(features(table_of(37.0), FWHM), plain, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(features(table_of(sign=-1.0), FWHM), plain, rtol=1e-3, atol=1e-4)


def test_features_mean_what_they_say():
    table = table_of()
    value = dict(zip(MEASURES, features(table, FWHM).T, strict=True))
    np.testing.assert_allclose(10 ** value["log_snr"], np.abs(table["flux"] / table["bgerr"]), rtol=1e-5)
    np.testing.assert_allclose(value["width"], table["fwhm"] / FWHM, rtol=1e-5)
    np.testing.assert_allclose(10 ** value["change"], np.abs(table["flux"] / table["template_flux"]), rtol=1e-3)
    np.testing.assert_allclose(value["cosmic"], table["cosmic"], rtol=1e-5)


def test_what_was_not_measured_is_no_number_that_breaks():
    table = table_of()
    for name in ("chi2", "sharpness", "sharpness_err", "fwhm", "template_distance", "template_flux"):
        table[name] = np.nan
    values = features(table, FWHM)
    assert np.isfinite(values).all()
    assert np.all(values[:, list(MEASURES).index("distance")] == 10)
    assert features(table[:0], FWHM).shape == (0, len(MEASURES))


def test_quality_of_hand_made_scores():
    # Of 2 x 3 pairs, the real one has the higher score in 4 and the same in 1.
    found = quality([0.9, 0.4, 0.1, 0.4, 0.6], [True, True, False, False, False])
    assert found["auc"] == pytest.approx(4.5 / 6)
    assert found["false_positive"] == pytest.approx(1 / 3)
    assert found["false_negative"] == pytest.approx(1 / 2)
    # To keep all real ones, two of three bogus have to be let in.
    assert found["false_positive_at_1_percent"] == pytest.approx(2 / 3)
    assert quality([0.9, 0.8, 0.1], [True, True, False])["auc"] == 1
    assert quality([0.1, 0.9], [True, False])["auc"] == 0
    assert quality([0.5] * 6, [True, False] * 3)["auc"] == 0.5


def test_the_area_is_the_fraction_of_pairs_in_the_right_order():
    rng = np.random.default_rng(4)
    real = rng.random(300) < 0.3
    score = np.round(np.clip(rng.normal(0.4 + 0.2 * real, 0.2), 0, 1), 1)
    one, other = score[real][:, None], score[~real][None]
    assert quality(score, real)["auc"] == pytest.approx(np.mean((one > other) + 0.5 * (one == other)))


def test_reliability_has_every_score_in_one_bin():
    rng = np.random.default_rng(5)
    score = np.append(rng.random(5000), [0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    real = rng.random(len(score)) < score
    bins = quality(score, real)["reliability"]
    assert [low for low, *_ in bins] == [0.0, 0.2, 0.4, 0.6, 0.8]
    assert sum(number for _, number, *_ in bins) == len(score)
    for low, number, mean, share in bins:
        assert low <= mean <= low + 0.2
        assert abs(share - mean) < 4 * np.sqrt(0.25 / number)


def test_quality_of_one_kind_or_of_nothing_is_unknown():
    for real in ([True, True], [False, False]):
        found = quality([0.2, 0.8], real)
        assert np.isnan(found["auc"])
        assert found["reliability"] == []
    assert np.isnan(quality([], [])["auc"])
    assert quality([0.9, 0.1, np.nan], [True, False, False])["auc"] == 1


def strange(number, bogus):
    """Examples that the package would call real, of which those with a trail are bogus."""
    real = shipped()
    values = real.values[real.real][: number + bogus].copy()
    truth = np.arange(len(values)) >= bogus
    values[:, list(MEASURES).index("trail")] = np.where(truth, 0.02, 0.9)
    return Examples(values, truth, np.arange(len(values)))


def test_own_examples_change_the_model(few):
    own = strange(200, 100)
    before, after = train(base=few), train(own, few)
    bogus = own.values[~own.real]
    assert after.card["trained_on"] == "image"
    assert (after.card["own_real"], after.card["own_bogus"]) == (200, 100)
    assert after.score(bogus).mean() < 0.2
    assert after.score(bogus).mean() < before.score(bogus).mean() - 0.2
    # Those that were held out, too.
    assert after.held_out[~own.real].mean() < 0.2
    assert after.card["auc"] > 0.95


@pytest.mark.parametrize(("real", "bogus"), [(FEWEST[0] - 1, 50), (100, FEWEST[1] - 1), (0, 0)])
def test_too_few_own_examples_do_not(few, real, bogus):
    own = strange(real, bogus)
    model = train(own, few)
    assert model.card["trained_on"] == "package"
    values = shipped().values[1::20]
    np.testing.assert_array_equal(model.score(values), train(base=few).score(values))
    np.testing.assert_array_equal(model.held_out, model.score(own.values))


def test_held_out_scores_come_from_models_that_did_not_see_them(few):
    """Truth that is random cannot be foretold, but it can be learnt by heart."""
    rng = np.random.default_rng(6)
    real = shipped()
    values = real.values[real.real][:240]
    own = Examples(values, rng.random(240) < 0.5, np.arange(240))
    model = train(own, few)
    assert quality(model.score(values), own.real)["auc"] > 0.75
    assert quality(model.held_out, own.real)["auc"] < 0.65
