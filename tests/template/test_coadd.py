"""Templates from a folder of images: which are taken, and what becomes of them."""

import json
import shutil

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from workflows import snakemake

from nightsift.errors import Rejected
from nightsift.flags import Mask
from nightsift.image.padding import PAD
from nightsift.tables import empty
from nightsift.template.alignment import TemplateImage
from nightsift.template.coadd import Outline, around, choose, flat, flux_ratio, piece
from nightsift.template.mosaic import mosaic

SHAPE = (200, 300)


def solution(x=0.0, y=0.0, rotation=0.0, scale=1.0):
    """A WCS whose pixel (0, 0) lies at (x, y) of that without arguments."""
    wcs, turn = WCS(naxis=2), np.radians(rotation)
    wcs.wcs.ctype, wcs.wcs.crval = ["RA---TAN", "DEC--TAN"], (150.0, 20.0)
    wcs.wcs.crpix = (151 - x) / scale, (101 - y) / scale
    wcs.wcs.cd = scale / 3600 * np.array([[-np.cos(turn), np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    wcs.wcs.set()
    return wcs


def outline(x=0.0, y=0.0, shape=SHAPE, band="r", exptime=60.0):
    return Outline(solution(x, y), shape, band, exptime)


def chosen(*outlines, band="r", most=40):
    return choose(outlines, solution(), SHAPE, band, most)


def test_one_that_covers_all_is_enough_and_the_longest_the_best():
    part, whole, longer = outline(100), outline(-20, -20, (250, 350)), outline(-20, -20, (250, 350), exptime=300.0)
    assert chosen(part, whole, longer, outline(-1e5)) == [2]
    assert chosen(part, whole) == [1]


def test_each_adds_something():
    left, right, between = outline(-200), outline(140), outline(-10, shape=(200, 160))
    assert chosen(left, right, between) == [1, 2]
    assert chosen(left, right) == [1, 0]
    assert len(chosen(left, right, most=1)) == 1
    assert chosen(left, outline(-149)) == [1]


def test_all_are_of_one_band():
    small, other, unknown = outline(150, band="r"), outline(band="g"), outline(band=None)
    assert chosen(small, other, unknown) == [0]
    assert chosen(other, unknown) == [1]
    assert chosen(small, other, band=None) == [1]
    with pytest.raises(Rejected, match="is in z; they are in g, r"):
        chosen(small, other, band="z")


def test_none_overlaps():
    other_side = Outline(solution(), SHAPE, "r", 60.0)
    other_side.wcs.wcs.crval = (330.0, -20.0)
    other_side.wcs.wcs.set()
    with pytest.raises(Rejected, match="none of the 2 images of the template's folder overlaps"):
        chosen(outline(500), other_side)


def stars(x, y, flux, **more):
    table = empty("detections")
    base = {"snr": 100.0, "fwhm": 3.0, "flags": 0} | more
    return Table(
        {name: {"x": x, "y": y, "flux": flux}.get(name, np.full(len(x), base.get(name, 0))) for name in table.colnames}
    )


def test_the_ratio_of_the_fluxes():
    rng = np.random.default_rng(1)
    x, y = rng.uniform(0, 200, (2, 40))
    flux = 10 ** rng.uniform(3, 5, 40)
    there = solution(10, 5, 30.0, 0.5)
    u, v = there.all_world2pix(*solution().all_pix2world(x, y, 0), 0)
    ratio = np.where(np.arange(40) < 4, 30.0, rng.normal(2.5, 0.05, 40))
    assert flux_ratio(stars(u, v, flux * ratio), there, stars(x, y, flux), solution()) == pytest.approx(2.5, rel=0.02)
    assert flux_ratio(stars(u, v, flux, snr=8.0), there, stars(x, y, flux), solution()) is None
    assert flux_ratio(stars(u[:4], v[:4], flux[:4]), there, stars(x, y, flux), solution()) is None
    assert flux_ratio(stars(u + 40, v, flux), there, stars(x, y, flux), solution()) is None


def test_a_defect_of_one_is_replaced_by_the_other():
    rng = np.random.default_rng(2)
    data = [(500 + k * 300 + rng.normal(0, 5 * k, SHAPE)).astype(np.float32) for k in (1, 2)]
    masks = [np.zeros(SHAPE, np.uint16) for _ in data]
    data[0][80:90, 100:110], masks[0][80:90, 100:110] = 1e6, int(Mask.COSMIC)
    data[0][:, :20], masks[0][:, :20] = np.nan, int(Mask.NONFINITE)
    masks[1][:, :10] = int(Mask.OUTSIDE)
    parts = [
        piece(TemplateImage(d, m, solution(), gain=2.0), factor)
        for d, m, factor in zip(data, masks, (1.0, 0.5), strict=True)
    ]
    joined = mosaic(parts, solution(), SHAPE)
    assert np.abs(joined.data).max() < 40
    assert np.array_equal(joined.mask != 0, masks[1] != 0)
    # Twice the noise on half the scale.
    assert np.median(joined.noise) == pytest.approx(5, rel=0.1)


@pytest.mark.parametrize("unit", [2.0**-100, 2.0**100])
def test_a_mosaic_has_the_unit_of_its_pieces(unit):
    data = (500 + np.random.default_rng(3).normal(0, 5, SHAPE)).astype(np.float32)
    data[100, 150] += 5000
    joined = []
    for size in (1.0, unit):
        image = TemplateImage(data * np.float32(size), np.zeros(SHAPE, np.uint16), solution(), gain=2.0 / size)
        turned = TemplateImage(image.data, image.mask, solution(90, 0, 10.0), gain=image.gain)
        joined.append(mosaic([piece(image, 1.0), piece(turned, 1.0)], solution(), (200, 400)))
    plain, other = joined
    assert np.array_equal(plain.mask, other.mask)
    for name in ("data", "noise"):
        np.testing.assert_allclose(getattr(other, name) / unit, getattr(plain, name), rtol=1e-5, atol=1e-3)
    assert np.median(other.noise[other.mask == 0]) == pytest.approx(5 * unit, rel=0.1)


def test_the_grid_has_no_distortion_and_holds_the_image():
    wcs = solution()
    wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"]
    header = wcs.to_header()
    header["A_ORDER"] = header["B_ORDER"] = 2
    header["A_2_0"], header["B_0_2"] = 1e-4, -1e-4
    bent = WCS(header)
    assert flat(bent).sip is None
    assert bent.sip is not None
    assert list(flat(bent).wcs.ctype) == ["RA---TAN", "DEC--TAN"]
    x, y = solution().all_world2pix(*around(solution(), SHAPE), 0)
    assert (x.min(), y.max()) == pytest.approx((-PAD, SHAPE[0] + PAD), abs=1e-6)


# ------------------------------------------------------------------------------------------------------- the workflow


def put(path, data, header, **cards):
    fits.PrimaryHDU(data.astype(np.float32), header).writeto(path)
    with fits.open(path, mode="update") as hdus:
        hdus[0].header.update(cards)


def cut(work, columns, name, scale=1.0, **cards):
    """Put some columns of the campaign's template into the folder, its pixels in another unit."""
    data, header = fits.getdata(work / "template.fits"), fits.getheader(work / "template.fits")
    cards = {"CRPIX1": header["CRPIX1"] - columns.start, "GAIN": header["GAIN"] / scale} | cards
    put(work / "templates" / name, data[:, columns] * scale, header, **cards)


def configured(work):
    (work / "templates").mkdir()
    config = {"images": "images.tsv", "catalog": {"path": "catalog.fits"}, "template": {"path": "templates"}}
    (work / "config.yaml").write_text(json.dumps(config))


def facts(work, image, name):
    return json.loads((work / "results" / "images" / image / f"{name}.json").read_text())


def test_a_folder_gives_the_same_candidates_as_a_file(inputs, finished):
    configured(inputs)
    width = fits.getdata(inputs / "template.fits").shape[1]
    cut(inputs, slice(0, width // 2 + 60), "left.fits")
    cut(inputs, slice(width // 2 - 60, width), "right.fits", 2.5)
    cut(inputs, slice(0, width), "elsewhere.fits", CRVAL1=10.0)
    cut(inputs, slice(0, width), "other.fits", FILTER="g")
    (inputs / "templates" / "broken.fits").write_text("no FITS")
    (inputs / "templates" / "notes.txt").write_text("no image")
    run = snakemake(inputs)
    assert run.code == 0, run.text
    made = facts(inputs, "image01", "template")
    assert set(made["files"]) == {"left.fits", "right.fits"}
    assert sorted(made["factors"].values()) in (
        [pytest.approx(0.4, rel=0.02), 1.0],
        [1.0, pytest.approx(2.5, rel=0.02)],
    )
    assert any("broken.fits" in text for text in made["warnings"])
    assert facts(inputs, "image01", "status")["status"] == "ok"
    ours, theirs = (
        table[table["is_real"]]
        for table in (Table.read(work / "results/campaign/candidates.ecsv") for work in (inputs, finished))
    )
    for image in ("image01", "image02"):
        mine, other = ours[ours["image"] == image], theirs[theirs["image"] == image]
        distance = np.hypot(mine["x"][:, None] - other["x"], mine["y"][:, None] - other["y"])
        assert np.mean(distance.min(axis=0)[other["snr"] > 7] < 1) >= 0.9
        assert len(mine) <= len(other) + 2
        near = distance.min(axis=0) < 1
        ratio = mine["flux"][distance.argmin(axis=0)][near] / other["flux"][near]
        assert np.median(ratio) == pytest.approx(1, abs=0.02)


def test_a_folder_elsewhere_is_a_named_status(inputs):
    configured(inputs)
    cut(inputs, slice(0, 400), "elsewhere.fits", CRVAL1=10.0)
    shutil.copy(inputs / "templates" / "elsewhere.fits", inputs / "templates" / "another.fits")
    run = snakemake(inputs)
    assert run.code == 0, run.text
    status = facts(inputs, "image01", "status")
    assert (status["status"], status["stage"]) == ("degraded", "template")
    assert status["reason"] == "none of the 2 images of the template's folder overlaps the image"
