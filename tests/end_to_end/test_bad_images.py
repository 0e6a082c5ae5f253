"""A campaign with every kind of bad image among good ones: each gets status and reason, the good ones notice nothing.

Then what is odd but sound: its results are those of the plain image.
"""

import json
import shutil

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from workflows import digests, snakemake

GOOD = ("image01", "image02")
WORLD = ("CTYPE", "CRPIX", "CRVAL", "CD1_", "CD2_")


def plain(data, header, path):
    fits.writeto(path, data, header)


def truncated(data, header, path):
    plain(data, header, path)
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size * 6 // 10)


def empty(data, header, path):
    path.touch()


def text(data, header, path):
    path.write_text("This is not FITS.\n" * 200)


def not_a_number(data, header, path):
    plain(np.full_like(data, np.nan), header, path)


def constant(data, header, path):
    plain(np.full_like(data, 1000), header, path)


def noise(data, header, path):
    plain(np.random.default_rng(1).normal(1000, 30, data.shape).astype(np.float32), header, path)


def no_position(data, header, path):
    for key in [key for key in header if key.startswith((*WORLD, "OBJCT"))]:
        del header[key]
    plain(data, header, path)


def elsewhere(data, header, path):
    header["CRVAL1"] -= 60
    plain(data, header, path)


def cube(data, header, path):
    plain(np.stack([data] * 3), header, path)


def table_only(data, header, path):
    Table({"x": [1.0, 2.0]}).write(path)


def tiny(data, header, path):
    plain(data[100:120, 100:120], header, path)


def unsigned(data, header, path):
    plain(np.clip(np.round(data), 0, 65535).astype(np.uint16), header, path)
    assert fits.getheader(path)["BZERO"] == 32768


def scaled(data, header, path):
    hdu = fits.PrimaryHDU(data, header)
    hdu.scale("int32", bscale=0.01, bzero=500)
    hdu.writeto(path)


def double(data, header, path):
    plain(data.astype(">f8"), header, path)


def extensions(data, header, path):
    primary = fits.PrimaryHDU(None, fits.Header({"OBSERVER": "nobody"}))
    planes = [fits.ImageHDU(np.zeros(data.shape, np.uint8), name="DQ"), fits.ImageHDU(data, header, name="SCI")]
    fits.HDUList([primary, *planes]).writeto(path)


def compressed(data, header, path):
    plain(np.clip(np.round(data), 0, 65535).astype(np.uint16), header, path)
    with fits.open(path) as hdus:
        packed = fits.CompImageHDU(hdus[0].data, hdus[0].header)
    fits.HDUList([fits.PrimaryHDU(), packed]).writeto(path, overwrite=True)


def no_time(data, header, path):
    del header["DATE-OBS"]
    plain(data, header, path)


def gain_zero(data, header, path):
    header["EGAIN"] = 0.0
    plain(data, header, path)


BAD = {
    truncated: ("rejected", "inspect", "truncated"),
    empty: ("rejected", "inspect", "empty"),
    text: ("rejected", "inspect", "FITS"),
    not_a_number: ("rejected", "inspect", "finite"),
    constant: ("rejected", "inspect", "same value"),
    noise: ("rejected", None, "S/N"),
    no_position: ("rejected", "catalog", "no WCS"),
    elsewhere: ("rejected", "catalog", "no star|stars"),
    cube: ("rejected", "inspect", "2-D"),
    table_only: ("rejected", "inspect", "2-D"),
    tiny: ("rejected", "inspect", "20 x 20"),
}
ODD = {
    unsigned: None,
    scaled: None,
    double: None,
    extensions: None,
    compressed: None,
    no_time: "time|DATE",
    gain_zero: "gain",
}
#: what users call their files; the others are called as they are made
FILES = {double: '-it\'s a "$HOME" \u00e9 #1.fits'}


@pytest.fixture(scope="module")
def mixed(simulated, tmp_path_factory):
    """A campaign of all of them that has run; the run and its folder."""
    work = tmp_path_factory.mktemp("mixed") / "work"
    shutil.copytree(simulated, work)
    with fits.open(work / "images" / "image01.fits") as hdus:
        data, header = hdus[0].data.astype(np.float32), hdus[0].header
    with fits.open(work / "template.fits") as hdus:
        hdus[0].header["CRVAL1"] += 60
        hdus.writeto(work / "far.fits")
    rows = []
    for make in (*BAD, *ODD):
        name = make.__name__
        file = FILES.get(make, f"images/{name}.fits")
        make(data.copy(), header.copy(), work / file)
        rows.append(f"{name}\t{file}\t")
    rows.append("far_template\timages/image01.fits\tfar.fits")
    good = [f"{name}\timages/{name}.fits\t" for name in GOOD]
    (work / "images.tsv").write_text("\n".join(["image\tpath\ttemplate", *good, *rows]) + "\n")
    return snakemake(work), work


def status(work, name):
    return json.loads((work / "results" / "images" / name / "status.json").read_text())


def test_exit_code_and_summary(mixed):
    run, work = mixed
    assert run.code == 0, run.text
    rows = Table.read(work / "results" / "campaign" / "images.ecsv")
    assert len(rows) == len(GOOD) + len(BAD) + len(ODD) + 1
    assert all(row["status"] == "ok" or (row["reason"] and row["stage"]) for row in rows)
    assert f"{len(rows)} images: {len(GOOD) + len(ODD)} ok, 1 degraded, {len(BAD)} rejected, 0 error" in run.text
    assert (work / "results" / "campaign" / "report.html").is_file()


@pytest.mark.parametrize("name", GOOD)
def test_good_images_notice_nothing(mixed, finished, name):
    folder = f"images/{name}"
    assert digests(mixed[1] / "results", folder) == digests(finished / "results", folder)


@pytest.mark.parametrize("make", BAD)
def test_bad_image(mixed, make):
    state, (expected, stage, reason) = status(mixed[1], make.__name__), BAD[make]
    assert state["status"] == expected
    assert stage in (None, state["stage"])
    assert any(word in state["reason"] for word in reason.split("|")), state["reason"]
    folder = mixed[1] / "results" / "images" / make.__name__
    assert len(Table.read(folder / "candidates.fits", hdu=1)) == 0
    assert (folder / "plots" / "overview.png").stat().st_size
    logs = "".join(path.read_text() for path in (folder / "logs").iterdir())
    assert "Traceback" not in logs
    assert "WARNING" not in logs


@pytest.mark.parametrize("make", ODD)
def test_odd_image(mixed, make):
    work = mixed[1]
    state, warning = status(work, make.__name__), ODD[make]
    assert state["status"] == "ok", state["reason"]
    new = set(state["warnings"]) - set(status(work, "image01")["warnings"])
    if warning:
        assert any(word in said for said in new for word in warning.split("|")), state["warnings"]
    assert bool(new) == bool(warning), new
    rows = {row["image"]: row for row in Table.read(work / "results" / "campaign" / "images.ecsv")}
    here, there = rows[make.__name__], rows["image01"]
    assert abs(here["zp"] - there["zp"]) < 0.03
    assert abs(here["fwhm"] - there["fwhm"]) < 0.02
    # Rounding to integers moves objects at the S/N limit across it.
    assert abs(here["n_objects"] - there["n_objects"]) <= 0.05 * there["n_objects"]
    assert abs(here["n_candidates"] - there["n_candidates"]) <= 1
    assert np.isnan(here["mjd"]) == (make is no_time)


@pytest.mark.parametrize("make", [double, extensions])
def test_packing_without_loss_changes_no_number(mixed, make):
    folder = mixed[1] / "results" / "images"
    tables = [Table.read(folder / name / "objects.fits", hdu=1) for name in (make.__name__, "image01")]
    for column in tables[1].colnames:
        assert np.array_equal(tables[0][column], tables[1][column], equal_nan=True), column


def test_template_of_another_field(mixed):
    state = status(mixed[1], "far_template")
    assert (state["status"], state["stage"]) == ("degraded", "template")
    assert "overlap" in state["reason"] or "cover" in state["reason"]
    folder = mixed[1] / "results" / "images"
    tables = [Table.read(folder / name / "objects.fits", hdu=1) for name in ("far_template", "image01")]
    assert all(np.array_equal(tables[0][name], tables[1][name], equal_nan=True) for name in tables[1].colnames)
