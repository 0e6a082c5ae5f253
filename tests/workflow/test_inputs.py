"""What a campaign is made from: another content makes anew what depends on it, whatever the times of the files say."""

import gzip
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from workflows import snakemake

ON_TEMPLATE = {"template", "subtract", "fakes", "transients", "plots"}
ON_CATALOG = ON_TEMPLATE | {"catalog", "astrometry", "photometry", "uncatalogued"}
ON_IMAGE = ON_CATALOG | {"inspect", "detect", "psf"}
OF_CAMPAIGN = {("sources", None), ("report", None)}
BOTH, FIRST, SECOND = ("image01", "image02"), ("image01",), ("image02",)
DEPENDING = {
    "store/first.fits": (ON_IMAGE, FIRST),
    "images/image02.fits.gz": (ON_IMAGE, SECOND),
    "mask.fits": (ON_IMAGE, SECOND),
    "catalog.fits": (ON_CATALOG, BOTH),
    "template.fits": (ON_TEMPLATE, BOTH),
    "template_mask.fits": (ON_TEMPLATE, BOTH),
}


@pytest.fixture(scope="module")
def made(simulated, tmp_path_factory):
    """A campaign that has run on a linked image and on a compressed one, with masks; not to be changed."""
    work = shutil.copytree(simulated, tmp_path_factory.mktemp("made") / "work")
    images = work / "images"
    (work / "store").mkdir()
    (images / "image01.fits").rename(work / "store" / "first.fits")
    (images / "image01.fits").symlink_to("../store/first.fits")
    with gzip.open(images / "image02.fits.gz", "wb") as packed:
        packed.write((images / "image02.fits").read_bytes())
    shape = fits.getdata(images / "image02.fits").shape
    for name, of in (("mask.fits", shape), ("template_mask.fits", fits.getdata(work / "template.fits").shape)):
        bad = np.zeros(of, np.uint8)
        bad[40:50, 40:50] = 1
        fits.writeto(work / name, bad)
    rows = "image01\timages/image01.fits\t\nimage02\timages/image02.fits.gz\tmask.fits\n"
    (work / "images.tsv").write_text("image\tpath\tmask\n" + rows)
    config = work / "config.yaml"
    local = "  path: template.fits\n"
    assert local in config.read_text()
    config.write_text(config.read_text().replace(local, local + "  mask: template_mask.fits\n"))
    run = snakemake(work)
    assert run.code == 0, run.text
    return work


@pytest.fixture
def work(made, tmp_path):
    """A copy of that campaign, as ``cp -a`` makes it."""
    return Path(shutil.copytree(made, tmp_path / "work", symlinks=True))


def replaced(path, older):
    """Put other bytes in place of a file; they bring a modification time that is older, or the same."""
    times = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    other = path.with_name(f"other_{path.name}")
    other.write_bytes(content)
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns - older))
    os.replace(other, path)


def test_a_copied_campaign_has_nothing_to_do(work):
    for path in [work / name for name in DEPENDING]:
        path.chmod(0o600)
    before = (work / ".snakemake" / "inputs.json").read_text()
    run = snakemake(work, "-n")
    assert (run.code, run.jobs) == (0, set()), run.text
    assert (work / ".snakemake" / "inputs.json").read_text() != before


@pytest.mark.parametrize("name", DEPENDING)
@pytest.mark.parametrize("older", [0, 10**15], ids=["same time", "older"])
def test_other_content_makes_anew_what_depends_on_it(work, name, older):
    replaced(work / name, older)
    run = snakemake(work, "-n")
    rules, images = DEPENDING[name]
    assert run.code == 0, run.text
    assert run.jobs - {("all", None)} == {(rule, image) for rule in rules for image in images} | OF_CAMPAIGN


def test_a_link_to_another_image_makes_it_anew(work):
    link = work / "images" / "image01.fits"
    target = work / "images" / "image03.fits"
    os.utime(target, ns=(0, 0))
    link.unlink()
    link.symlink_to("image03.fits")
    os.utime(link, ns=(0, 0), follow_symlinks=False)
    run = snakemake(work, "-n")
    assert run.jobs - {("all", None)} == {(rule, "image01") for rule in ON_IMAGE} | OF_CAMPAIGN


def rows(work):
    """Return the campaign's lines of its images."""
    table = Table.read(work / "results" / "campaign" / "images.ecsv")
    return [{name: row[name] for name in ("image", "mjd", "zp", "fwhm", "n_objects")} for row in table]


def test_an_image_in_place_of_another_gives_its_own_numbers_once(work):
    first, before = work / "store" / "first.fits", rows(work)
    shutil.copyfile(work / "images" / "image03.fits", first)
    os.utime(first, ns=(0, 0))
    run = snakemake(work)
    assert run.code == 0, run.text
    assert run.jobs - {("all", None)} == {(rule, "image01") for rule in ON_IMAGE} | OF_CAMPAIGN
    after = rows(work)
    assert all(after[0][name] != before[0][name] for name in ("mjd", "zp", "fwhm", "n_objects"))
    assert after[1] == before[1]
    run = snakemake(work, "-n")
    assert (run.code, run.jobs) == (0, set()), run.text
