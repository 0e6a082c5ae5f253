"""Real frames that simulations do not resemble: a transient on its host."""

import json
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table
from conftest import ROOT, snakemake

DATA = ROOT.parent / "shared" / "data" / "real"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the real frames ../shared/data/real are not here")
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
