"""Association, names, light curves: against sources that are known."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from astropy.table import Table
from synthetic_results import (
    GAIN,
    NOISE,
    Made,
    difference_of,
    difference_psf,
    noise_correlation,
    write_campaign,
    write_image,
)
from workflows import ROOT, script

from nightsift.flags import Flag
from nightsift.image.stamps import on_clean_pixel
from nightsift.io import products
from nightsift.parameters import SourcesConfig
from nightsift.psf.model import Psf
from nightsift.sources import association, lightcurves
from nightsift.sources.records import DifferencePixels
from nightsift.subtract.difference import DifferenceQuality
from nightsift.transients import modelcard


def simulated(rng, n_sources=300, n_images=20, scatter=0.2, dec=60.0):
    """Return candidates of scattered sources around RA 0: ra, dec, image, source; positions in degrees."""
    true = np.column_stack([rng.uniform(-0.1, 0.1, n_sources), dec + rng.uniform(-0.05, 0.05, n_sources)])
    owner = np.repeat(np.arange(n_sources), n_images)
    image = np.array([f"i{number:02d}" for number in np.tile(np.arange(n_images), n_sources)])
    offset = rng.normal(0, scatter / 3600, (len(owner), 2)) / [np.cos(np.radians(dec)), 1]
    position = true[owner] + offset
    seen = rng.random(len(owner)) < 0.7
    return position[seen, 0] % 360, position[seen, 1], image[seen], owner[seen], true


def partition(group):
    return {frozenset(np.flatnonzero(group == value)) for value in np.unique(group[group >= 0])}


def test_associate_recovers_the_sources_across_ra_zero():
    ra, dec, image, owner, true = simulated(np.random.default_rng(1))
    result = association.associate(ra, dec, np.ones(len(ra)), image, 1.5)
    same = partition(result.group) == partition(owner)
    assert same or len(partition(result.group) ^ partition(owner)) <= 0.02 * len(true)
    error = np.hypot((result.ra + 180) % 360 - 180 - true[owner[0], 0], 0).min()
    assert error < 0.2 / 3600
    assert len(set(result.names)) == len(result.names) == len(result.ra)


def test_mean_positions_have_the_weights_pulls():
    rng = np.random.default_rng(2)
    n_images, sigma = 16, rng.uniform(0.05, 0.3, 16)
    true = np.column_stack([np.arange(200) * 0.01, np.zeros(200)])
    east, north = (rng.normal(0, sigma, (200, n_images)) / 3600 for _ in range(2))
    ra, dec = (true[:, :1] + east).ravel(), (true[:, 1:] + north).ravel()
    image = np.tile(np.arange(n_images).astype(str), 200)
    weight = np.tile(1 / sigma**2, 200)
    result = association.associate(ra % 360, dec, weight, image, 2.0)
    assert len(result.ra) == 200
    order = np.argsort((result.ra + 180) % 360)
    pull = (result.dec[order] - true[:, 1]) * 3600 * np.sqrt(np.sum(1 / sigma**2))
    assert np.std(pull) == pytest.approx(1, abs=0.15)


def test_association_does_not_depend_on_the_order():
    rng = np.random.default_rng(3)
    # so crowded that groups of friends hold several sources
    ra, dec, image, *_ = simulated(rng, n_sources=400, n_images=6, scatter=0.5)
    ra = (ra - 180) * 0.05 % 360
    weight = rng.uniform(1, 5, len(ra))
    first = association.associate(ra, dec, weight, image, 3.0)
    shuffle = rng.permutation(len(ra))
    second = association.associate(ra[shuffle], dec[shuffle], weight[shuffle], image[shuffle], 3.0)
    assert np.array_equal(first.group[shuffle], second.group)
    assert first.names == second.names
    for members in partition(first.group):
        names = image[list(members)]
        assert len(set(names)) == len(names), "two candidates of an image in one source"


def test_close_pair_stays_two_sources_where_it_is_resolved():
    rng = np.random.default_rng(4)
    separation, scatter = 1.2, 0.1
    image = np.repeat([f"i{n}" for n in range(10)], 2)
    owner = np.tile([0, 1], 10)
    ra = 10 + (owner * separation + rng.normal(0, scatter, 20)) / 3600
    dec = rng.normal(0, scatter / 3600, 20)
    result = association.associate(ra, dec, np.ones(20), image, 1.0 + separation / 2)
    assert partition(result.group) == partition(owner)


def test_moving_object_does_not_become_one_long_source():
    ra = 20 + np.arange(20) * 0.8 / 3600
    image = np.array([f"i{n:02d}" for n in range(20)])
    result = association.associate(ra, np.zeros(20), np.ones(20), image, 1.0)
    for members in partition(result.group):
        spread = np.ptp(ra[list(members)]) * 3600
        assert spread <= 2.0 + 1e-6
    assert np.all(result.group >= 0)


def test_candidate_without_position_belongs_to_nothing():
    result = association.associate([1.0, np.nan], [2.0, 2.0], [1.0, 1.0], ["a", "b"], 1.0)
    assert result.group.tolist() == [0, -1]


@pytest.mark.parametrize(
    ("ra", "dec", "name"),
    [
        (326.258249999, 12.6255833334, "NS J214501.97+123732.1"),
        (326.25825, 12.62558334, "NS J214501.98+123732.1"),
        (0.0, -0.0001, "NS J000000.00-000000.3"),
        (359.9999999, 89.99999, "NS J235959.99+895959.9"),
    ],
)
def test_names_are_cut_off_not_rounded(ra, dec, name):
    assert association.source_names([ra], [dec]) == [name]
    assert association.source_names([ra, ra], [dec, dec]) == [name, f"{name}b"]


def test_radius_is_half_the_fwhm_but_twice_the_rms_at_least():
    assert association.association_radius([2.0, 3.0, np.nan], [0.1, 0.1, 0.1], SourcesConfig()) == pytest.approx(1.25)
    assert association.association_radius([2.0], [0.8], SourcesConfig()) == pytest.approx(1.6)
    assert association.association_radius([2.0], [0.8], SourcesConfig(radius=0.3)) == 0.3


def test_magnitudes_only_where_there_is_flux():
    result = lightcurves.magnitudes([100.0, 20.0, -100.0, np.nan], 10.0, 8.0, 25.0)
    assert np.isfinite(result["mag_calib"]).tolist() == [True, False, False, False]
    assert result["mag_calib"][0] == pytest.approx(20.0)
    assert result["mag_calib_err"][0] == pytest.approx(0.10857, abs=1e-4)
    assert result["maglim"][1] == pytest.approx(25 - 2.5 * np.log10(40)), "the source's own photons do not count"
    assert lightcurves.total_magnitude(-30.0, 130.0, 25.0) == pytest.approx(20.0)
    assert np.isnan(lightcurves.total_magnitude(-30.0, 10.0, 25.0))


def test_clean_pixels_and_flags():
    mask = np.zeros((10, 20), np.int32)
    mask[5, 5] = 4
    assert on_clean_pixel([5, 6, -0.4, 19.6, np.nan], [5, 5, 0, 0, 3], mask).tolist() == [
        False,
        True,
        True,
        False,
        False,
    ]
    flags = lightcurves.mask_flags(np.array([6.0, 12.0, 19.0]), np.array([5.0, 5.0, 5.0]), mask, 2.0)
    assert flags.tolist() == [int(Flag.APERTURE_MASKED), 0, int(Flag.APERTURE_INCOMPLETE)]


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    results = tmp_path_factory.mktemp("campaign") / "results"
    listed = write_campaign(results)
    assert script("sources").main(["--results", str(results), "--images", str(listed), "--code", "abc"]) == 0
    return results


def read(results, name):
    return products.read_table(results / "campaign" / f"{name}.ecsv")


def test_campaign_tables(campaign):
    images, found, candidates = (read(campaign, name) for name in ("images", "sources", "candidates"))
    status = dict(zip(images["image"], images["status"], strict=True))
    assert len(images) == 11
    assert status["killed"] == status["broken"] == "error"
    assert status["cloudy"] == "rejected"
    assert "did not finish" in images["reason"][list(images["image"]).index("killed")]
    assert sorted(found["n_detections"]) == [1, 8, 8]
    assert list(found["n_images"]) == [8, 8, 8]
    assert len(candidates) == 17
    assert set(candidates["source"]) == set(found["source"])


def test_uncatalogued_objects_of_all_images(campaign):
    table, images = read(campaign, "uncatalogued"), read(campaign, "images")
    assert len(table) == 16
    assert len(set(table["source"])) == 2
    assert set(table["n_images"]) == {8}
    assert sorted(set(images["n_uncatalogued"])) == [0, 2]


def test_forced_measurements_have_the_right_flux_and_error(tmp_path):
    true = np.array([0.0, 60.0, 150.0, 300.0])
    for number in range(16):
        rows = [
            {"x": 40.0 + 30 * n, "y": 50.3 + 20 * n, "flux": flux, "found": number == 0, "template_flux": 800.0}
            for n, flux in enumerate(true)
        ]
        image = Made(f"n{number:02d}", 359.999, -5.0, rows, mjd=60310.0 + number, seed=number)
        write_image(tmp_path / "results" / "images", image)
    listed = tmp_path / "list"
    listed.write_text("".join(f"n{number:02d}\n" for number in range(16)))
    rows_zero = products.read_table(tmp_path / "results/images/n00/candidates.fits")
    assert len(rows_zero) == len(true)
    script("sources").main(["--results", str(tmp_path / "results"), "--images", str(listed)])
    curves, found = read(tmp_path / "results", "lightcurves"), read(tmp_path / "results", "sources")
    assert set(curves["band"]) == set(read(tmp_path / "results", "images")["band"]) == {"r"}
    assert (curves["zp_err"] > 0).all()
    forced = curves[curves["kind"] == "forced"]
    assert len(forced) == 15 * len(true)
    truth = {
        name: true[np.argmin(np.abs(found["dec"][n] - rows_zero["dec"]))] for n, name in enumerate(found["source"])
    }
    pull = (forced["flux"] - [truth[name] for name in forced["source"]]) / forced["fluxerr"]
    assert np.mean(pull) == pytest.approx(0, abs=0.3)
    assert np.std(pull) == pytest.approx(1, abs=0.2)
    # the error of an optimal measurement: noise * sqrt(4 pi) * sigma of a Gaussian PSF, and what correlates the noise
    faint = forced["fluxerr"][[truth[name] == 0 for name in forced["source"]]]
    assert np.median(faint) == pytest.approx(NOISE * np.sqrt(4 * np.pi) * 3 / 2.3548 * noise_correlation(), rel=0.1)
    bright = forced[[truth[name] == 300.0 for name in forced["source"]]]
    total = 10 ** (-0.4 * (np.asarray(bright["mag_total"]) - np.asarray(bright["zp"])))
    # three standard errors of a median of 15
    assert np.median(total) == pytest.approx(1100, abs=3 * 1.25 * np.median(bright["fluxerr"]) / np.sqrt(15))


def pixels_of(difference, model, **changes):
    """Return a difference with the PSF and the noise of the synthetic images."""
    images, header = difference_psf(difference.shape)
    quality = replace(DifferenceQuality.from_header(header), **changes)
    sigma, mask = np.full(difference.shape, NOISE, np.float32), np.zeros(difference.shape, np.int32)
    psf = Psf.from_images(images, header)
    return DifferencePixels(difference, sigma, model, mask, psf, quality)


@pytest.mark.parametrize(("snr", "scale_err"), [(0, 0.0), (5, 0.0), (100, 0.0), (500, 0.0), (100, 0.02), (500, 0.02)])
def test_forced_fluxes_have_pulls_of_width_one(snr, scale_err):
    rng, shape = np.random.default_rng(7), (420, 420)
    _, header = difference_psf(shape)
    error = NOISE * np.sqrt(4 * np.pi) * 3 / 2.3548 * header["NOISECOR"]
    x, y = (20.0 * part.ravel() + 20 + rng.uniform(-0.5, 0.5, 361) for part in np.mgrid[:19, :19])
    scale = rng.normal(1, scale_err, x.size)
    rows = [{"x": one, "y": two, "flux": part * snr * error} for one, two, part in zip(x, y, scale, strict=True)]
    difference = pixels_of(difference_of(rng, shape, rows), np.zeros(shape, np.float32), flux_scale_err=scale_err)
    flux, fluxerr, bgerr = difference.measure(x, y, GAIN)
    pull = (flux - snr * error) / fluxerr
    assert np.mean(pull) == pytest.approx(0, abs=0.2)
    assert np.std(pull) == pytest.approx(1, abs=0.12)
    if snr < 500:  # beyond, the weights allow for an error of the PSF
        assert np.median(bgerr) == pytest.approx(error, rel=0.03)
    # neither part of the error is so small that the test would pass without it
    assert noise_correlation() > 1.3
    assert np.median(fluxerr / bgerr) > (1.4 if snr >= 100 else 0.999)
    without = difference.measure(x, y, None)
    if not scale_err:
        np.testing.assert_allclose(without[1], without[2], err_msg="no gain, no photon noise")


def test_flux_beneath_a_source_is_in_its_error():
    shape = (100, 100)
    host = difference_of(np.random.default_rng(1), shape, [{"x": 50.0, "y": 50.0, "flux": 4e4}])
    difference = pixels_of(np.zeros(shape, np.float32), host, residual=0.05)
    _, fluxerr, bgerr = difference.measure(np.array([50.0, 20.0]), np.array([50.0, 20.0]), GAIN)
    assert np.sqrt(fluxerr[0] ** 2 - bgerr[0] ** 2) == pytest.approx(0.05 * 4e4, rel=0.05)
    assert fluxerr[1] < 1.1 * bgerr[1]


def test_depth_and_model_of_the_images_are_listed(campaign):
    images = read(campaign, "images")
    images.add_index("image")
    row = images.loc["night_00"]
    assert row["snr50"] == pytest.approx(5.0, abs=0.3)
    # flux 125 is S/N 5, at a zero point of 25
    assert row["m50"] == pytest.approx(25 - 2.5 * np.log10(125), abs=max(4 * row["m50_err"], 0.02))
    assert row["m90"] < row["m50"]
    for name in ("night_04", "cloudy", "broken", "killed"):
        assert np.isnan([images.loc[name][key] for key in ("m50", "m50_err", "m90", "snr50")]).all()
    card = products.read_json(campaign / "campaign" / "model_card.json")
    assert len(card["images"]) == 7
    assert card["campaign"]["trained_on"] == {"image": 6, "package": 1}
    assert card["campaign"]["own_real"] == 7 * 150
    assert card["images"]["night_02"]["trained_on"] == "package"
    assert set(card["images"]["night_00"]["reliability"][0]) == {"score_from", "number", "mean_score", "real_share"}
    assert {"log_snr", "dipole"} <= set(card["measures"])
    assert card["provenance"]["stage"] == "sources"


def test_model_card_of_a_campaign_pools_the_examples():
    def card(real, bogus, kept, bins):
        counts = {"own_real": real, "own_bogus": bogus, "package_real": 9, "package_bogus": 3}
        rates = {"auc": 0.9, "false_positive": kept / bogus, "false_negative": 0.0}
        return {"trained_on": "image", "reliability": bins} | counts | rates

    first, second = card(100, 10, 5, [[0.0, 10, 0.1, 0.0]]), card(100, 90, 9, [[0.0, 30, 0.1, 0.2], [0.8, 5, 0.9, 1.0]])
    untested = {"trained_on": "package", "own_real": 3, "own_bogus": 0, "package_real": 9, "package_bogus": 3}
    total = modelcard.campaign_card({"a": first, "b": second, "c": untested, "d": {}})["campaign"]
    assert (total["n_images"], total["n_models"], total["own_real"]) == (4, 3, 203)
    assert total["false_positive"] == pytest.approx(14 / 100)
    assert total["reliability"][0] == {
        "score_from": 0.0,
        "number": 40,
        "mean_score": pytest.approx(0.1),
        "real_share": pytest.approx(0.15),
    }
    nothing = modelcard.campaign_card({"d": {}})["campaign"]
    assert nothing["auc_median"] is nothing["false_positive"] is None
    assert modelcard.line({}) == ""
    assert modelcard.line(untested) == "the package's, tried on 3 real, 0 bogus"


def test_masked_positions_have_no_row(tmp_path):
    for number, found in enumerate((True, False)):
        # the second image has its saturated pixels where the first one has the source
        x = 100.0 if found else 31.5
        rows = [{"x": x, "y": 92.0, "flux": 500.0, "found": found}]
        shift = 0.0 if found else -68.5 / 3600 / np.cos(np.radians(0.0))
        write_image(tmp_path / "results" / "images", Made(f"m{number}", 30.0 + shift, 0.0, rows, seed=number))
    (tmp_path / "list").write_text("m0\nm1\n")
    script("sources").main(["--results", str(tmp_path / "results"), "--images", str(tmp_path / "list")])
    curves, found = read(tmp_path / "results", "lightcurves"), read(tmp_path / "results", "sources")
    assert list(curves["image"]) == ["m0"]
    assert list(found["n_images"]) == [1]


def test_campaign_is_the_same_when_made_again(campaign, tmp_path):
    before = {path.name: path.read_bytes() for path in (campaign / "campaign").glob("*.ecsv")}
    names = (campaign / "campaign" / "images.list").read_text().split()
    backwards = tmp_path / "list"
    backwards.write_text("\n".join(reversed(names)))
    script("sources").main(["--results", str(campaign), "--images", str(backwards), "--code", "abc"])
    assert before == {path.name: path.read_bytes() for path in (campaign / "campaign").glob("*.ecsv")}


def test_no_image_at_all(tmp_path):
    (tmp_path / "list").write_text("lost\n")
    assert script("sources").main(["--results", str(tmp_path), "--images", str(tmp_path / "list")]) == 0
    assert list(read(tmp_path, "images")["status"]) == ["error"]
    assert len(read(tmp_path, "sources")) == len(read(tmp_path, "lightcurves")) == 0


def test_summary(campaign):
    command = [sys.executable, "-P", str(ROOT / "scripts" / "summary.py"), str(campaign)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    total = "11 images: 7 ok, 1 degraded, 1 rejected, 2 error; 17 candidates in 3 sources"
    assert text[0] == f"{total}; 2 objects not in the catalogue"
    assert len(text) == 6
    assert "broken: error in subtract: ValueError" in text[1]


def test_summary_shortens_a_long_list(tmp_path):
    path = tmp_path / "campaign" / "images.ecsv"
    path.parent.mkdir()
    table = Table({"image": [f"i{n}" for n in range(25)], "status": ["rejected"] * 25})
    table["stage"], table["reason"] = "detect", 'no "stars"\x1b[31m'
    table.write(path, format="ascii.ecsv")
    lines = script("summary").summary(tmp_path)
    assert lines[-2] == "  ... and 5 more"
    assert lines[1] == '  i0: rejected in detect: no "stars" [31m'
