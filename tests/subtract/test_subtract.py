"""Differences of simulated pairs against what was injected."""

import json
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from astropy.io.fits import Header
from astropy.table import Table, vstack
from pairs import CASES, FRAME, GAIN, NOISE, PARAMS, SIZE, SKY, difference, differenced, moffat, pair, quiet
from scipy import ndimage

from nightsift import parameters
from nightsift.detect.detect import detect
from nightsift.errors import Rejected
from nightsift.external.hotpants import Subtracted
from nightsift.flags import Mask
from nightsift.image import tiles
from nightsift.image.padding import PAD
from nightsift.image.trails import Trail
from nightsift.image.unit_noise import fluxes
from nightsift.psf.forced import forced
from nightsift.simulate.pixels import render_points
from nightsift.subtract.difference import DifferenceQuality, Reference
from nightsift.subtract.stars import _compared
from nightsift.subtract.subtract import subtract
from nightsift.transients.transients import peaks


def pulls(made, found):
    """Flux ratios' weighted mean, its error, and the pulls of the injected transients."""
    result = forced(found.data, found.sigma, found.mask != 0, found.psf, made.x, made.y)
    # The map of sigma does not know of the photons of what is new: 4/3 of their number for a Gaussian.
    own = np.maximum(made.flux, 0) / GAIN * 4 / 3
    error = np.sqrt((result.fluxerr * found.facts["noise_correlation"]) ** 2 + own)
    weight = (made.flux / error) ** 2
    ratio = np.sum(weight * result.flux / made.flux) / weight.sum()
    return ratio, 1 / np.sqrt(weight.sum()), (result.flux - made.flux) / error


ALL = ["alard-lupton", "delta", "zogy", "hotpants"]
METHODS = [(case, method) for method in ALL for case in CASES if (case, method) != ("about equal", "delta")]
QUICK = [(case, method) for case, method in METHODS if method in ("alard-lupton", "zogy")]


@pytest.mark.parametrize(("case", "method"), METHODS)
def test_injected_fluxes_come_back(case, method):
    fwhm = CASES[case]
    ratios, errors, together = [], [], []
    for seed in (1, 2, 3):
        made, found = pair(*fwhm, seed), difference(*fwhm, seed, method=method)
        ratio, error, pull = pulls(made, found)
        ratios.append(ratio)
        errors.append(error)
        together.append(pull)
    pull = np.concatenate(together)
    assert np.mean(ratios) == pytest.approx(1, abs=0.01)
    assert abs(np.median(pull)) < 0.25
    assert 0.85 < pull.std() < 1.15
    assert np.abs(pull).max() < 5
    if method == "zogy":
        assert found.facts["convolved"] == "both"
    elif case != "about equal":
        assert found.facts["convolved"] == ("image" if case == "template broader" else "template")


@pytest.mark.parametrize(("case", "method"), QUICK)
def test_fluxes_at_empty_places_have_honest_errors(case, method):
    together = []
    for seed in (1, 2, 3):
        found = difference(*CASES[case], seed, number=0, method=method)
        y, x = (part.ravel().astype(float) for part in np.mgrid[15 : SIZE - 15 : 9, 15 : SIZE - 15 : 9])
        empty = found.model[y.astype(int), x.astype(int)] < 0.3 * NOISE
        result = forced(found.data, found.sigma, found.mask != 0, found.psf, x[empty], y[empty])
        together.append(result.flux / (result.fluxerr * found.facts["noise_correlation"]))
    pull = np.concatenate(together)
    assert abs(pull.mean()) < 0.12
    assert 0.92 < pull.std() < 1.08


@pytest.mark.parametrize(("case", "method"), METHODS)
def test_without_transients_the_significance_map_is_noise(case, method):
    medians = []
    for seed in (1, 2, 3, 4):
        found = difference(*CASES[case], seed, number=0, method=method)
        low, middle, high = np.percentile(quiet(found), [15.865, 50, 84.135])
        medians.append(middle)
        assert 0.97 < (high - low) / 2 < 1.03
        assert 0.94 < found.facts["noise_scale"] < 1.06  # before it was scaled to be one
        # The stars included. PSFs and HOTPANTS know less of stars that the border cuts.
        assert np.abs(found.snr).max() < (8 if method in ("zogy", "hotpants") else 5.5)
        assert found.facts["coverage"] > 0.95
    assert abs(np.mean(medians)) < 0.08
    assert np.max(np.abs(medians)) < 0.15


@pytest.mark.parametrize(("case", "method"), METHODS)
def test_the_units_of_image_and_template_change_no_digit(case, method):
    made = pair(*CASES[case])
    one, other = 2.0**-90, 2.0**80
    image, template = (
        {name: getattr(part, name) * np.float32(size) for name in names}
        for part, size, names in ((made.exposure, one, ["data"]), (made.reference, other, ["data", "noise"]))
    )
    scaled = replace(
        made,
        exposure=replace(made.exposure, **image, gain=GAIN / one),
        reference=replace(made.reference, **template),
        objects=fluxes(made.objects, 1 / one),
    )
    plain, found = difference(*CASES[case], method=method), differenced(scaled, method)
    for name, size in (("data", one), ("sigma", one), ("model", one), ("snr", 1)):
        there, here = getattr(found, name), getattr(plain, name) * np.float32(size)
        # The program has absolute numbers of its own.
        off = 0.1 * float(np.median(plain.sigma)) * size if name != "snr" else 0.1
        np.testing.assert_allclose(there, here, rtol=0, atol=off if method == "hotpants" else 0)
    size = other / one if found.facts["convolved"] == "image" else one / other
    assert found.facts["kernel_sum"] == pytest.approx(plain.facts["kernel_sum"] * size, rel=1e-6)


@pytest.mark.parametrize(("case", "method"), QUICK)
def test_the_zero_point_of_the_template_does_not_matter(case, method):
    one, other = (difference(*CASES[case], scale=scale, method=method) for scale in (1.7, 17.0))
    ratio = one.facts["kernel_sum"] / other.facts["kernel_sum"]
    assert ratio == pytest.approx(0.1 if one.facts["convolved"] == "image" else 10, rel=0.01)
    for name in ("data", "sigma", "snr", "model"):
        difference_of_both = getattr(other, name) - getattr(one, name)
        unit = 1 if name == "snr" else one.sigma
        assert np.percentile(np.abs(difference_of_both) / unit, 99.9) < 0.2, name


def test_the_photons_of_stars_are_in_the_noise():
    """Pixels of the difference scatter around stars as much as the map of sigma says."""
    for case in ("template sharper", "template broader"):
        pull, more = [], []
        for seed in (1, 2, 3, 4):
            found = difference(*CASES[case], seed, number=0)
            # Stars as bright as the sky; of brighter ones, the error of the PSF is in the way.
            light = (found.model > 2 * NOISE) & (found.model < SKY / 2)
            pull.append((found.data / found.sigma)[light])
            more.append((found.sigma[light] / np.median(found.sigma)).mean())
        values = np.concatenate(pull)
        assert np.mean(more) > 1.03
        low, high = np.percentile(values, [15.865, 84.135])
        assert 0.93 < (high - low) / 2 < 1.12


def test_new_noise_on_the_same_image_is_no_candidate():
    counts = []
    for seed in (11, 12, 13):
        made = pair(3.0, 3.0, seed, template_noise=1.0, scale=1.0, number=0)
        again = subtract(made.exposure, made.reference, made.objects, PARAMS)
        x, *_ = peaks(again.snr, 5.0, 3.0)
        counts.append(len(x))
    assert sum(counts) <= 1


@pytest.mark.parametrize("case", CASES)
def test_the_facts_tell_of_the_psf_of_the_template(case):
    made, facts = pair(*CASES[case], number=0), difference(*CASES[case], number=0).facts
    ratio = facts["template_fwhm"] / made.exposure.fwhm
    assert ratio == pytest.approx(CASES[case][1] / CASES[case][0], rel=0.06)
    assert facts["template_psf_stars"] > 15
    assert 0.5 < facts["template_psf_chi2"] < 2
    assert facts["psf_stars"] > 15
    if case == "template sharper":  # two images, displaced from one another, added up
        both = (made.reference.data + np.roll(made.reference.data, 4, axis=1)) / 2
        y, x = np.mgrid[:FRAME, :FRAME] // 90
        spoilt = replace(made.reference, data=np.where((x + y) % 2, made.reference.data, both).astype(np.float32))
        worse = subtract(made.exposure, spoilt, made.objects, replace(PARAMS, max_residual=9, max_sky_sigma=9)).facts
        # Where both differ in flux, too, they are no stars to judge it by.
        assert worse["template_psf_chi2"] > 1.25 * facts["template_psf_chi2"]


@pytest.mark.parametrize("case", ["template sharper", "template broader"])
def test_an_external_program_gets_layers_and_options(case):
    """What it leaves out is not used; the image is convolved where it is the sharper one."""
    made, calls = pair(*CASES[case], number=0), []

    def run(*given):
        calls.append(given)
        bad = np.zeros(given[0].data.shape, bool)
        bad[PAD + 100 : PAD + 120] = True
        scale = 1.7 if case == "template broader" else 1 / 1.7
        return Subtracted(np.zeros_like(given[0].data), np.ones_like(given[0].data), bad, scale)

    options = {"kernel_order": 2, "time_limit": 7.0, "max_residual": 9, "max_sky_sigma": 99, "min_sky_sigma": 0}
    options["min_noise_scale"] = 0
    params = replace(PARAMS, method="hotpants", **options)
    found = subtract(made.exposure, made.reference, made.objects, params, run)
    ((target, source, x, y, order, seconds),) = calls
    assert target.fwhm > source.fwhm
    assert target.data.shape == source.data.shape == target.noise.shape == (FRAME, FRAME)
    assert (order, seconds) == (0, 7.0)  # too few stars for a higher order
    column, row = np.rint(x).astype(int), np.rint(y).astype(int)
    for layer in (target, source):  # the places are those of stars, whose photons are in the noise
        assert np.median(layer.data[row, column] / np.median(layer.noise)) > 5
        assert np.mean(layer.noise[row, column]) > 1.1 * np.median(layer.noise)
    assert (found.mask[100:120] == int(Mask.EDGE)).all()


def test_too_few_stars_are_a_reason():
    made = pair(3.6, 2.6)
    harmless = made.objects[(made.objects["flags"] == 0) & (made.objects["snr"] > 30)]
    with pytest.raises(Rejected, match="only 4 unharmed stars"):
        subtract(made.exposure, made.reference, harmless[:4], PARAMS)
    faint = made.objects.copy()
    faint["snr"] = 7.0
    with pytest.raises(Rejected, match="only 0 unharmed stars"):
        subtract(made.exposure, made.reference, faint, PARAMS)


@pytest.mark.parametrize("what", ["noise", "other stars"])
def test_a_template_of_another_field_is_a_reason(what):
    made = pair(3.6, 2.6)
    other = pair(3.6, 2.6, 7).reference
    if what == "noise":
        other = replace(other, data=np.random.default_rng(5).normal(0, 4, (FRAME, FRAME)).astype(np.float32))
    with pytest.raises(Rejected):
        subtract(made.exposure, other, made.objects, PARAMS)


@pytest.mark.parametrize("method", ALL)
def test_a_border_of_the_template_is_masked(method):
    made = pair(3.6, 2.6)
    edge = 150
    layers = {name: getattr(made.reference, name).copy() for name in ("data", "noise", "mask")}
    layers["data"][:, : PAD + edge] = 0
    layers["mask"][:, : PAD + edge] = int(Mask.NO_TEMPLATE)
    found = differenced(replace(made, reference=Reference(**layers)), method)
    assert np.all(found.mask[:, :edge] & int(Mask.NO_TEMPLATE))
    # Proper subtraction masks what may be seen of a bright star that a border cuts.
    reach, most = (10, 0.01) if method == "zogy" else (found.facts["kernel_half"], 0)
    assert np.mean(found.mask[:, edge + reach + 1 :] != 0) <= most
    assert found.facts["coverage"] == pytest.approx(1 - edge / SIZE, abs=0.03)
    usable = replace(found, mask=np.where(np.arange(SIZE) < edge, 1, found.mask))
    ratio, _, pull = pulls(replace_places(made, made.x > edge + 15), usable)
    assert ratio == pytest.approx(1, abs=0.02)
    assert np.sqrt(np.mean(pull**2)) < 1.4
    # What stands beyond the border has left nothing on this side of it.
    strip = found.mask == 0
    strip[:, edge + 20 :] = False
    for x, y in zip(made.x, made.y, strict=True):
        strip[max(int(y) - 12, 0) : int(y) + 13, max(int(x) - 12, 0) : int(x) + 13] = False
    assert np.abs(found.snr[strip]).max() < 5.5


def replace_places(made, chosen):
    return replace(made, x=made.x[chosen], y=made.y[chosen], flux=made.flux[chosen])


@pytest.mark.parametrize(("case", "method"), QUICK)
def test_the_difference_is_good_up_to_the_border(case, method):
    places = tuple((3.0, y) for y in range(30, 360, 50)) + tuple((x, SIZE - 4.0) for x in range(55, 360, 50))
    seen, signs, extra, ratios = [], [], [], []
    for seed in (1, 2, 3):
        made = pair(*CASES[case], seed, places=places, snr=(20, 30))
        found = difference(*CASES[case], seed, places=places, snr=(20, 30), method=method)
        assert np.mean(found.mask[3:-3, 3:-3] != 0) < 1e-3  # corners
        x, y, sign = peaks(found.snr, 5.2, 3.0)  # noise alone makes 0.1 an image
        near = np.hypot(x - made.x[:, None], y - made.y[:, None]) < 1.5
        seen.append(near.any(axis=1))
        signs.append((sign[near.argmax(axis=1)] == np.sign(made.flux))[seen[-1]])
        extra.append((~near.any(axis=0)).sum())
        result = forced(found.data, found.sigma, found.mask != 0, found.psf, made.x, made.y)
        ratios.append(result.flux / made.flux)
    assert np.mean(seen) > 0.94  # a star in the image hides one now and then
    assert np.concatenate(signs).all()
    assert sum(extra) <= (2 if method == "alard-lupton" else 5)  # nothing else, at the border or elsewhere
    assert np.nanmedian(ratios) == pytest.approx(1, abs=0.06)  # what a kernel takes from beyond the border is lost


def test_an_unknown_gain_is_learnt_from_what_is_left_of_stars():
    made, found = pair(3.6, 2.6), difference(3.6, 2.6)
    unknown = subtract(replace(made.exposure, gain=None), made.reference, made.objects, PARAMS)
    assert np.std(quiet(unknown)) == pytest.approx(np.std(quiet(found)), rel=0.05)
    bright = found.model > SKY
    assert 0.5 < np.median(unknown.sigma[bright] / found.sigma[bright]) < 2
    ratio, *_ = pulls(made, unknown)
    assert ratio == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("method", ALL)
def test_masked_pixels_do_not_spoil_their_surroundings(method):
    made = pair(2.6, 3.6, number=0)
    data, mask = made.exposure.data.copy(), made.exposure.mask.copy()
    data[:, 200], mask[:, 200] = 6e4, int(Mask.BADLINE)
    data[100:104, 50:54], mask[100:104, 50:54] = np.nan, int(Mask.NONFINITE)
    found = differenced(replace(made, exposure=replace(made.exposure, data=data, mask=mask)), method)
    assert all(np.isfinite(getattr(found, name)).all() for name in ("data", "sigma", "snr", "model"))
    assert np.all(found.mask[:, 200] & int(Mask.BADLINE))
    assert np.mean(found.mask != 0) < 0.06
    near = (np.abs(np.arange(SIZE) - 200) < 12) & (found.mask == 0)
    assert 0.88 < found.snr[near].std() < 1.1
    assert np.abs(found.snr).max() < (7 if method == "zogy" else 6.5)


@pytest.mark.parametrize("case", ["template sharper", "template broader"])
def test_the_tiles_leave_no_seams(case, monkeypatch):
    made, tiled = pair(*CASES[case], number=0), []
    for side in (70, 1000):
        monkeypatch.setattr(tiles, "SIDE", side)
        tiled.append(subtract(made.exposure, made.reference, made.objects, PARAMS))
    one, other = tiled
    np.testing.assert_array_equal(one.mask, other.mask)
    for name, unit in (("data", one.sigma), ("model", one.sigma), ("sigma", one.sigma), ("snr", 1)):
        apart = np.abs(getattr(one, name) - getattr(other, name)) / unit
        # What is clipped from the background may depend on how the last digit is rounded.
        assert apart.max() < 3e-2, name


def repeated(made, times):
    """The same scene side by side: a large pair that costs little to make."""
    side, inner = 256, slice(PAD, PAD + 256)
    image = np.tile(made.exposure.data[:side, :side], (times, times))
    framed = (made.reference.data, made.reference.noise, made.reference.mask)
    layers = [np.pad(np.tile(layer[inner, inner], (times, times)), PAD, mode="wrap") for layer in framed]
    whole = np.all([(made.objects[axis] > 12) & (made.objects[axis] < side - 12) for axis in "xy"], axis=0)
    parts = []
    for column, row in np.ndindex(times, times):
        part = made.objects[whole].copy()
        part["x"], part["y"] = part["x"] + column * side, part["y"] + row * side
        parts.append(part)
    exposure = replace(made.exposure, data=image, mask=np.zeros(image.shape, np.uint16))
    return exposure, Reference(*layers), vstack(parts)


@pytest.mark.parametrize("method", ["alard-lupton", "zogy"])
@pytest.mark.parametrize("case", ["template sharper", "template broader"])
def test_a_subtraction_needs_no_more_memory_than_twelve_images(case, method):
    exposure, reference, objects = repeated(pair(*CASES[case]), 8)
    tracemalloc.start()
    try:
        subtract(exposure, reference, objects, replace(PARAMS, method=method))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    planes = exposure.data, exposure.mask, reference.data, reference.noise, reference.mask
    inputs = sum(plane.nbytes for plane in planes)
    assert (inputs + peak) / exposure.data.nbytes < 12


def refused(made, message, **options):
    with pytest.raises(Rejected, match=message):
        subtract(made.exposure, made.reference, made.objects, replace(PARAMS, **options))


def test_stars_in_a_line_are_a_reason():
    """Pixels are displaced by a share of the height, so that the kernel has to vary along the line."""
    made = pair(3.6, 2.6, number=0)
    rows = np.arange(FRAME) + 1.5 * (np.arange(FRAME) / FRAME - 0.5)
    moved = ndimage.map_coordinates(made.reference.data, np.meshgrid(rows, np.arange(FRAME), indexing="ij"), order=3)
    line = made.objects[np.argsort(np.abs(made.objects["x"] - 200 - 1e-3 * made.objects["y"]))]
    made = replace(made, reference=replace(made.reference, data=moved.astype(np.float32)))
    wide = subtract(made.exposure, made.reference, made.objects, PARAMS)
    assert wide.facts["kernel_order"] > 0
    assert wide.facts["spatial_condition"] < 1e3
    line = replace(made, objects=line[:60])
    refused(line, "spatial terms have condition .*, more than 4", max_condition=4)


def test_stars_that_have_changed_their_flux_are_a_reason():
    """Every place has become brighter or fainter by another fifth or so."""
    made = pair(3.6, 2.6, number=0)
    y, x = np.mgrid[:FRAME, :FRAME]
    factor = np.exp(np.random.default_rng(3).normal(0, 0.3, (20, 20))[y // 22, x // 22])
    other = replace(made.reference, data=(made.reference.data * factor).astype(np.float32))
    refused(replace(made, reference=other), "left of the stars scatters.* by 0.[23].*, more than 0.2")


def test_too_little_left_to_search_is_a_reason():
    made = pair(3.6, 2.6, number=0)
    mask = np.full((FRAME, FRAME), int(Mask.NO_TEMPLATE), np.uint16)
    mask[100:280, 100:280] = 0
    masked = replace(made, reference=replace(made.reference, mask=mask))
    refused(masked, "usable fraction of the difference is 0.[12][0-9]*, less than 0.3", min_coverage=0.3)


def test_errors_that_mean_nothing_are_a_reason():
    """One factor for the correlation of the noise cannot hold where half of the template is much noisier."""
    made = pair(3.6, 2.6, number=0)
    more = np.where(np.arange(FRAME) < 0.46 * FRAME, 15, 1) * made.reference.noise
    noise = np.random.default_rng(4).normal(0, np.sqrt(np.maximum(more**2 - made.reference.noise**2, 0)))
    other = Reference((made.reference.data + noise).astype(np.float32), more.astype(np.float32), made.reference.mask)
    refused(replace(made, reference=other), "empty places scatter.* by 1.[3-9].*, more than 1.3")
    refused(made, "empty places scatter.* by .*, less than 1.2", min_sky_sigma=1.2)


def test_the_constant_stars_count_where_many_vary():
    """One in three stars has changed, each by another factor, the bright ones among them."""
    made, whole = pair(3.6, 2.6), difference(3.6, 2.6)
    objects, rng = made.objects, np.random.default_rng(5)
    order = np.argsort(-np.asarray(objects["flux"]))
    grown = order[: 2 * len(order) // 3 : 2]
    data = made.exposure.data.copy()
    v, u = np.indices(data.shape)
    for i in grown:
        extra = objects["flux"][i] * rng.uniform(0.3, 3)
        shape = np.exp(-4 * np.log(2) * np.hypot(u - objects["x"][i], v - objects["y"][i]) ** 2 / 3.6**2)
        data += (extra * shape / shape.sum()).astype(np.float32)
    changed = detect(data, made.exposure.mask, made.exposure.gain, parameters.DetectConfig())
    found = subtract(replace(made.exposure, data=data), made.reference, changed.objects, PARAMS)
    assert found.facts["kernel_sum"] == pytest.approx(whole.facts["kernel_sum"], rel=0.05)


def test_many_stars_are_compared_in_little_memory():
    """What is constant among thousands shows among the brightest, though each third star has changed."""
    side, number, rng = 900, 5000, np.random.default_rng(7)
    x, y = 12 + 12.3 * np.array(np.divmod(np.arange(number), 71)) + rng.uniform(-0.5, 0.5, (2, number))
    flux = 10 ** rng.uniform(3, 5, number)
    changed = np.arange(number) % 3 == 0
    data = np.zeros((side + 2 * PAD, side + 2 * PAD), np.float32)
    render_points(data, x + PAD, y + PAD, 1.7 * flux * np.where(changed, 4, 1), moffat(2.6), 0.1)
    data += rng.normal(0, 3, data.shape).astype(np.float32)
    reference = Reference(data, np.full(data.shape, 3, np.float32), np.zeros(data.shape, np.uint16))
    tracemalloc.start()
    try:
        seen, steady = _compared(Table({"x": x, "y": y, "flux": flux, "snr": flux / 50}), reference, 2.6)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert seen.mean() > 0.95
    assert steady[seen & ~changed].mean() > 0.95
    assert steady[seen & changed].mean() < 0.1
    assert peak < 40e6


def test_what_errors_depend_on_goes_from_stage_to_stage():
    made = DifferenceQuality(1.3, 0.01, 0.02, 0.003, (Trail(0.5, 10.0, 2.0, 1, 7.0),))
    assert DifferenceQuality.from_dict(json.loads(json.dumps(made.to_dict() | {"method": "zogy"}))) == made
    header = Header()
    made.to_header(header)
    assert DifferenceQuality.from_header(header) == DifferenceQuality(1.3, 0.01, flux_scale_err=0.003)
    with pytest.raises(KeyError, match="mismatch"):
        DifferenceQuality.from_dict({"noise_correlation": 1.3, "residual": 0.01, "missmatch": 0.02})
