"""The record of what was written tells what is damaged, quickly, and nothing else."""

import os
import random
import time

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from damage import MEMORY, empty, garbage, half

from nightsift.errors import Rejected, Unreadable
from nightsift.io import products, written
from nightsift.io.fits import read_header, read_image
from nightsift.workflow import results

PROVENANCE = products.Provenance("stage", "code", {})


DAMAGES = {half: "bytes of", empty: "has 0 bytes of", garbage: "not what was written"}


@pytest.fixture
def folder(tmp_path):
    """A folder of products of every kind, and a file that is none."""
    products.write_json(tmp_path / "status.json", {"status": "ok"})
    products.write_images(tmp_path / "mask.fits", {"MASK": np.ones((40, 50), np.int32)}, None, PROVENANCE)
    for name in ("images.ecsv", "matches.fits"):
        table = Table({"object": [1, 2]} | {key: [1.0, 2.0] for key in ("x", "y", "ra", "dec", "dx", "dy")})
        products.write_table(tmp_path / name, table, "matches", PROVENANCE)
    with products.recorded(tmp_path / "report.html") as temporary, open(temporary, "w") as file:
        file.write("<html></html>\n")
    (tmp_path / "notes.txt").write_text("the user's own")
    return tmp_path


NAMES = ("status.json", "mask.fits", "images.ecsv", "matches.fits", "report.html")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_told(folder, name, damage):
    assert written.damaged(folder) == {}
    time.sleep(0.01)
    damage(folder / name)
    wrong = written.damaged(folder)
    assert set(wrong) == {name}
    assert DAMAGES[damage] in wrong[name]


def test_what_is_whole_stays_whole(folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for name in NAMES:
        os.utime(folder / name, (1e9, 1e9))
    os.remove(folder / "report.html")
    empty(folder / "notes.txt")
    (folder / "more.fits").touch()
    (folder / "linked.fits").symlink_to("nowhere")
    assert written.damaged(folder) == {}
    assert {name: (folder / name).read_bytes() for name in NAMES[:-1]} == {name: before[name] for name in NAMES[:-1]}
    products.write_json(folder / "status.json", {"status": "degraded"})
    assert written.damaged(folder) == {}


def test_new_times_are_noted_unless_nothing_may_change(folder, monkeypatch):
    for name in NAMES:
        os.utime(folder / name, (1e9, 1e9))
    record = (folder / written.RECORD).read_bytes()
    assert written.damaged(folder, settle=False) == {}
    assert (folder / written.RECORD).read_bytes() == record
    assert written.damaged(folder) == {}
    monkeypatch.setattr(written, "digest", lambda path: pytest.fail("read again"))
    assert written.damaged(folder) == {}


def test_what_was_just_written_is_not_read(folder, monkeypatch):
    """Snakemake sets the times of a job's products after they were recorded."""
    for name in NAMES:
        os.utime(folder / name)
    half(folder / "mask.fits")
    monkeypatch.setattr(written, "digest", lambda path: pytest.fail("read again"))
    assert set(written.damaged(folder, since=0)) == {"mask.fits"}
    assert set(written.damaged(folder)) == {"mask.fits"}


def test_a_damaged_record_damages_nothing(folder):
    record = folder / written.RECORD
    whole = record.read_bytes()
    for content in (whole[: len(whole) // 2], b"", random.Random(2).randbytes(300), b"1 2\n\n- - - -\n"):
        record.write_bytes(content)
        assert written.damaged(folder) == {}
    record.write_bytes(b"")
    empty(folder / "mask.fits")
    assert written.damaged(folder) == {"mask.fits": "is empty"}
    products.write_json(folder / "status.json", {})
    assert written.damaged(folder) == {}


def test_the_record_does_not_grow_for_ever(folder):
    for number in range(100):
        products.write_json(folder / "status.json", {"number": number})
    assert written.damaged(folder) == {}
    assert len((folder / written.RECORD).read_text().splitlines()) == len(NAMES)


def test_only_products_are_doubted(folder):
    for name in ("notes.txt", "status.json", "report.html"):
        written.doubt(folder / name)
    assert set(written.damaged(folder)) == {"status.json", "report.html"}
    products.write_json(folder / "status.json", {})
    assert set(written.damaged(folder)) == {"report.html"}
    assert (folder / "notes.txt").read_text() == "the user's own"
    written.doubt(folder / "elsewhere" / "notes.txt")
    assert not (folder / "elsewhere").exists()


def test_owner_gets_permissions_back(folder, monkeypatch):
    path = folder / "mask.fits"
    path.chmod(0)
    # Root may do everything, whatever the permissions.
    monkeypatch.setattr(os, "access", lambda path, mode: bool(os.stat(path).st_mode & mode << 6))
    assert set(written.damaged(folder, settle=False)) == {"mask.fits"}
    assert path.stat().st_mode & 0o777 == 0
    assert written.damaged(folder) == {}
    assert path.stat().st_mode & 0o777 == 0o600
    half(path)
    path.chmod(0o444)
    assert set(written.damaged(folder)) == {"mask.fits"}
    assert os.access(path, os.W_OK), "or else Snakemake takes it for protected"


def test_a_look_at_a_campaign_is_quick(folder, tmp_path_factory):
    base = tmp_path_factory.mktemp("results")
    for number in range(20):
        for part in ("", "/plots"):
            place = base / "images" / str(number) / part.strip("/")
            place.mkdir(parents=True)
            for product in range(20):
                products.write_json(place / f"{product}.json", {})
    start = time.perf_counter()
    assert list(written.damaged_results(base, range(20))) == []
    assert time.perf_counter() - start < 20 * 0.004  # a quarter of it on a machine at rest


@pytest.mark.parametrize("name", NAMES[:-1])
@pytest.mark.parametrize("damage", [garbage, empty])
def test_who_reads_damage_names_the_file(folder, name, damage):
    damage(folder / name)
    read = {"json": products.read_json, "ecsv": products.read_table, "fits": products.read_images}[name.split(".")[1]]
    if name == "matches.fits":
        read = products.read_table
    with pytest.raises(Unreadable, match=f"{name} cannot be read") as problem:
        read(folder / name)
    written.doubt(problem.value.path)
    assert set(written.damaged(folder)) == {name}


def test_readers_of_what_may_be_missing_name_what_is_damaged(folder):
    for path, read in ((folder / "status.json", results.read_state), (folder / "mask.fits", results.read_planes)):
        garbage(path)
        with pytest.raises(Unreadable, match=path.name):
            read(path.parent if path.suffix == ".json" else path)
    for read in (results.read_planes, results.read_wcs_header, results.read_mask):
        assert not read(folder / "missing.fits")


@pytest.mark.skipif(not os.path.exists(MEMORY), reason=f"no {MEMORY} here")
@pytest.mark.parametrize("read", [read_image, read_header])
def test_a_disk_that_fails_is_no_verdict_on_an_image(tmp_path, read):
    path = tmp_path / "image.fits"
    path.symlink_to(MEMORY)
    with pytest.raises(Unreadable, match=r"image.fits cannot be read \(Input/output error\)"):
        read(path)
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "missing.fits")
    fits.writeto(tmp_path / "cut.fits", np.ones((99, 99)))
    half(tmp_path / "cut.fits")
    with pytest.raises(Rejected):
        read_image(tmp_path / "cut.fits")
