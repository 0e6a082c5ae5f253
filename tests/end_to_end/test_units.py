"""Pixels in any unit: the same image and template in three of them, through the whole workflow."""

import subprocess
import sys

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from workflows import ROOT, snakemake

from nightsift.image.unit_noise import fluxes, in_units, pixel_unit, unit
from nightsift.io.products import read_images, read_json

UNITS = {"counts": 1.0, "small": 1e-30, "large": 1e30}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The results of a campaign that has one image three times."""
    work = tmp_path_factory.mktemp("units")
    options = ("--size", "300", "--images", "1", "--fwhm", "2.8", "--seed", "7", "--transients", "10")
    subprocess.run([sys.executable, ROOT / "scripts" / "simulate.py", work, *options], check=True, capture_output=True)
    lines = ["image\tpath\tgain\tsaturation\ttemplate"]
    for name, factor in UNITS.items():
        for path in ("images/image01.fits", "template.fits"):
            with fits.open(work / path) as hdus:
                (hdu,) = hdus
                hdu.data = (hdu.data.astype(float) * factor).astype(np.float32)
                for key in ("EGAIN", "GAIN", "SATURATE", "PEDESTAL"):
                    hdu.header.remove(key, ignore_missing=True)
                hdu.writeto(work / f"{name}_{path.rpartition('/')[2]}")
        gain, full = 1.81 / factor, 60000 * factor
        lines.append(f"{name}\t{name}_image01.fits\t{gain!r}\t{full!r}\t{name}_template.fits")
    (work / "images.tsv").write_text("\n".join(lines) + "\n")
    run = snakemake(work, "--", "tables")
    assert run.code == 0, run.text
    return work / "results"


def same(table, other, factor, names, tolerance=2e-3):
    assert len(table) == len(other) > 0
    for name in names:
        here, there = np.asarray(table[name], float), np.asarray(other[name], float)
        if str(table[name].unit) == "adu":
            there = there / factor
        np.testing.assert_allclose(there, here, rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("name", ["small", "large"])
def test_objects_do_not_depend_on_the_unit(results, name):
    tables = [Table.read(results / "images" / one / "objects.fits") for one in ("counts", name)]
    names = ("x", "y", "fwhm", "flux", "fluxerr", "snr", "mag_calib", "mag_calib_err", "mag_psf", "maglim")
    same(*tables, UNITS[name], (*names, "psf_flux", "psf_fluxerr", "psf_chi2", "flags"))
    images = Table.read(results / "campaign" / "images.ecsv")
    assert list(images["status"]) == ["ok"] * 3
    shift = images["zp"] - 2.5 * np.log10([UNITS[image] for image in images["image"]])
    assert np.ptp(shift) < 1e-3


@pytest.mark.parametrize("name", ["small", "large"])
def test_candidates_do_not_depend_on_the_unit(results, name):
    tables = [Table.read(results / "images" / one / "candidates.fits") for one in ("counts", name)]
    same(*tables, UNITS[name], ("x", "y", "flux", "fluxerr", "snr", "fwhm", "mag_calib", "template_flux", "chi2"), 5e-3)
    same(*tables, UNITS[name], ("score",), 0.05)
    planes = [read_images(results / "images" / one / "difference.fits")[0] for one in ("counts", name)]
    level = np.median(planes[0]["SIGMA"])
    # Where a kernel's rim ends on a bad pixel a last digit decides on one that is masked.
    both = (planes[0]["MASK"] == 0) & (planes[1]["MASK"] == 0)
    assert both.sum() > 0.999 * np.sum(planes[0]["MASK"] == 0) > 0
    for plane, scale in (("SNR", 1), ("DIFFERENCE", level), ("SIGMA", level), ("MODEL", level)):
        there = planes[1][plane][both] / (1 if plane == "SNR" else UNITS[name])
        off = np.abs(there / scale - planes[0][plane][both] / scale)
        assert (off < 0.02 + 0.002 * np.abs(planes[0][plane][both] / scale)).mean() > 0.998
    sums = [read_json(results / "images" / one / "subtract.json")["kernel_sum"] for one in ("counts", name)]
    assert sums[1] == pytest.approx(sums[0], rel=1e-3)
    curves = Table.read(results / "campaign" / "lightcurves.ecsv")
    here, there = (curves[curves["image"] == one] for one in ("counts", name))
    here, there = (rows[np.argsort(rows["source"])] for rows in (here, there))
    same(here, there, UNITS[name], ("flux", "fluxerr", "snr", "maglim"), 5e-3)


def test_without_a_gain_the_sky_tells_it_in_any_unit(results):
    # The template's, of which no sheet and no header tells.
    gains = [read_json(results / "images" / name / "template.json")["warnings"] for name in UNITS]
    assert all(any("gain guessed" in text for text in notes) for notes in gains)


def test_a_unit_is_a_power_of_two_and_changes_no_digit():
    rng = np.random.default_rng(1)
    image, bad = rng.normal(100, 5, (80, 90)).astype(np.float32), np.zeros((80, 90), bool)
    image[3, 5], bad[3, 5] = np.nan, True
    for factor in (1e-30, 1e-12, 1.0, 1e30):
        scaled = image * np.float32(factor)
        size = pixel_unit(scaled, bad)
        assert np.log2(size) == round(np.log2(size))
        assert 0.2 < np.std(scaled[~bad].astype(float) / size) < 5
        np.testing.assert_array_equal(in_units(in_units(scaled, size), 1 / size), scaled)
    assert pixel_unit(np.zeros((8, 8), np.float32), np.zeros((8, 8), bool)) == 1.0
    assert pixel_unit(image, np.ones_like(bad)) == 1.0
    assert unit(np.nan) == unit(0.0) == 1.0
    table = fluxes(Table({"x": [3.0], "flux": [8.0], "snr": [4.0]}), 4.0)
    assert (table["x"][0], table["flux"][0], table["snr"][0]) == (3.0, 2.0, 4.0)
