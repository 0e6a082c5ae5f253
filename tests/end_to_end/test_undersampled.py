"""Images with stars of one to two pixels, through the whole workflow."""

import subprocess
import sys

import numpy as np
import pytest
from astropy.table import Table
from workflows import ROOT, snakemake

from nightsift.io.products import read_json
from nightsift.simulate.truth import combine, score

REAL = ROOT.parent / "shared" / "data" / "real" / "small_telescope"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A campaign of images with FWHM of 1.0 to 1.6 pixels that has run, and its template no sharper."""
    work = tmp_path_factory.mktemp("undersampled")
    options = ("--size", "420", "--images", "2", "--fwhm", "1.3", "--seed", "5", "--transients", "20")
    subprocess.run([sys.executable, ROOT / "scripts" / "simulate.py", work, *options], check=True, capture_output=True)
    run = snakemake(work, "--", "tables")
    assert run.code == 0, run.text
    return work


def test_every_image_comes_to_its_end(finished):
    images = Table.read(finished / "results" / "campaign" / "images.ecsv")
    assert list(images["status"]) == ["ok", "ok"]
    assert (images["astrom_rms"] < 0.15).all()
    for row in images:
        folder = finished / "results" / "images" / row["image"]
        truth = Table.read(finished / "truth" / f"{row['image']}.ecsv")
        # Moments of a profile with wings, and of the pixels.
        assert 1.0 < row["fwhm"] / np.hypot(truth.meta["fwhm"], 2.3548 / np.sqrt(12)) < 1.25
        assert read_json(folder / "inspect.json")["masked"]["COSMIC"] < 1e-3


def test_transients_are_found_and_stars_measured(finished):
    scores = []
    for path in sorted((finished / "truth").glob("*.ecsv")):
        truth, folder = Table.read(path), finished / "results" / "images" / path.stem
        truth.meta["image"] = path.stem
        tables = [Table.read(folder / name) for name in ("candidates.fits", "objects.fits")]
        scores.append(score(truth, *tables, truth.meta["megapixels"]))
    total = combine(scores)
    found, there = total.counts("transient", 10)
    assert there >= 15
    assert found >= 0.95 * there
    assert len(total.false) <= 2
    assert abs(total.bias[0]) < 0.01
    assert 0.8 < total.pull_width < 1.25
    # The width of a transient is that of a star; its clip is none.
    widths = Table.read(finished / "results" / "campaign" / "candidates.ecsv")["fwhm"]
    assert 1.2 < np.median(widths) < 2.2


@pytest.mark.skipif(not REAL.is_dir(), reason="the real frames ../shared/data/real are not here")
def test_frames_of_a_small_telescope(tmp_path):
    (tmp_path / "data").symlink_to(REAL, target_is_directory=True)
    hint = "30.979\t46.827\t0.8\t5.2"
    rows = [f"{name}\tdata/{name}.fits\t{hint}" for name in ("frame1", "frame2")]
    (tmp_path / "images.tsv").write_text("\n".join(["image\tpath\tra\tdec\tradius\tpixscale", *rows]) + "\n")
    (tmp_path / "config.yaml").write_text(
        "images: images.tsv\ncatalog: {path: data/catalog.csv}\ntemplate: {source: none}\n"
        "photometry: {band: r, color: none}\n"
    )
    run = snakemake(tmp_path, "--", "tables")
    assert run.code == 0, run.text
    images = Table.read(tmp_path / "results" / "campaign" / "images.ecsv")
    assert list(images["status"]) == ["ok", "ok"]
    assert ((images["fwhm"] > 1.6) & (images["fwhm"] < 2.4)).all()
    assert (images["n_objects"] > 1000).all()
    for name in images["image"]:
        masked = read_json(tmp_path / "results" / "images" / name / "inspect.json")["masked"]
        assert sum(masked.values()) < 0.02
    assert (images["astrom_rms"] < 0.15 * 5.2).all()
