"""Real frames that simulations do not resemble: a transient on its host, an event in a bulge."""

import json
from pathlib import Path

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table
from workflows import ROOT, snakemake

DATA = ROOT.parent / "shared" / "data" / "real"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the real frames ../shared/data/real are not here")
CROWDED = ("frame001", "frame067")
EPOCHS = ("epoch1", "epoch2")


@pytest.fixture(scope="module")
def host(tmp_path_factory) -> Path:
    work, folder = tmp_path_factory.mktemp("host"), DATA / "host_transient"
    lines = ["image\tpath", *(f"{name}\t{folder / name}.fits" for name in EPOCHS)]
    (work / "images.tsv").write_text("\n".join(lines) + "\n")
    (work / "config.yaml").write_text(
        f"images: images.tsv\ncatalog: {{source: local, path: {folder / 'catalog.csv'}}}\n"
        f"template: {{source: local, path: {folder / 'template.fits'}}}\n"
    )
    run = snakemake(work)
    assert run.code == 0, run.text[-2000:]
    return work / "results"


@pytest.mark.parametrize("epoch", EPOCHS)
def test_a_transient_is_found_on_its_host(host, epoch):
    """Its empirical S/N is 13.7 and 15.8, those of an image without the light of the host beneath."""
    assert json.loads((host / "images" / epoch / "status.json").read_text())["status"] in ("ok", "degraded")
    found = Table.read(host / "images" / epoch / "candidates.fits")
    distance = np.hypot(found["x"] - 128.7, found["y"] - 127.6)
    assert np.count_nonzero(distance < 2) == 1
    assert len(found) <= 2
    assert found["is_real"][distance < 2].all()
    assert 8 < found["snr"][distance < 2][0] < 16


@pytest.fixture(scope="module")
def crowded(tmp_path_factory) -> Path:
    """The template has no WCS either: the stars of the images tell its place."""
    folder, work = DATA / "crowded", tmp_path_factory.mktemp("crowded")
    lines = ["image\tpath\tra\tdec\tradius\tpixscale"]
    lines += [f"{name}\t{folder / name}.fits\t273.8708\t-25.285\t0.05\t0.31" for name in CROWDED]
    (work / "images.tsv").write_text("\n".join(lines) + "\n")
    (work / "config.yaml").write_text(
        f"images: images.tsv\ncatalog: {{source: local, path: {folder / 'catalog.csv'}}}\n"
        f"template: {{source: local, path: {folder / 'template.fits'}}}\n"
    )
    run = snakemake(work)
    assert run.code == 0, run.text[-2000:]
    return work / "results"


@pytest.mark.parametrize("frame", CROWDED)
def test_an_event_is_found_in_a_crowded_field(crowded, frame):
    """It is fainter than on the template's night; nothing else is strung on a row or column."""
    status = json.loads((crowded / "images" / frame / "status.json").read_text())
    assert status["status"] == "ok", status["reason"]
    found = Table.read(crowded / "images" / frame / "candidates.fits")
    there = SkyCoord(found["ra"], found["dec"], unit="deg")
    event = there.separation(SkyCoord(273.86771, -25.28847, unit="deg")).arcsec < 1
    assert np.count_nonzero(event) == 1
    assert found["flux"][event][0] < 0
    assert np.argmax(np.abs(found["snr"])) == np.flatnonzero(event)[0]
    for axis in ("x", "y"):
        assert np.max(np.sum(np.abs(found[axis][:, None] - found[axis]) < 2, axis=0)) <= 2


@pytest.mark.parametrize("frame", CROWDED)
def test_the_significance_on_the_light_of_a_bulge_is_that_of_noise(crowded, frame):
    with fits.open(crowded / "images" / frame / "difference.fits") as planes:
        snr, model, sigma, mask = (planes[name].data for name in ("SNR", "MODEL", "SIGMA", "MASK"))
    use = mask == 0
    level = model[use] / np.median(sigma[use])
    for low, high in ((-np.inf, 1), (1, 3), (3, 10), (10, 30), (30, 100)):
        part = snr[use][(level >= low) & (level < high)]
        assert 0.88 < np.diff(np.percentile(part, [15.865, 84.135]))[0] / 2 < 1.12
