"""Products: whole or not at all, the same bytes each time, what the schema says, and readable without complaint."""

import json
import os
import warnings

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

from nightsift import tables
from nightsift.flags import Flag, Mask, header_cards
from nightsift.io import products
from nightsift.io.written import RECORD

# A parameter text that does not fit into one card.
PROVENANCE = products.Provenance("test", "0" * 12, {f"option_{i}": i for i in range(20)}, {"exposure": "f" * 32})


def detections(rows=3):
    table = tables.empty("detections")
    for _ in range(rows):
        table.add_row()
    table["x"] = np.linspace(1, 2, rows)
    table["flags"] = int(Flag.CROWDED)
    return table


def solution():
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [150, 25], [100, 120]
    wcs.wcs.cdelt = [-3e-4, 3e-4]
    return wcs


def write_all(folder):
    products.write_table(folder / "t.fits", detections(), "detections", PROVENANCE)
    products.write_table(folder / "t.ecsv", detections(), "detections", PROVENANCE)
    products.write_images(folder / "mask.fits", {"MASK": np.ones((4, 5), np.int32)}, solution().to_header(), PROVENANCE)
    planes = {name: np.full((4, 5), np.nan, np.float32) for name in ("DIFFERENCE", "MASK")}
    products.write_images(folder / "d.fits", planes, solution().to_header(), PROVENANCE)
    products.write_images(folder / "empty.fits", {}, None, PROVENANCE)
    products.write_json(folder / "s.json", {"b": np.float32(1.5), "a": np.nan, "c": (np.int64(3), np.bool_(True))})


def test_same_bytes_each_time_and_no_warning(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("first", "second"):
            write_all(tmp_path / name)
    for first in (tmp_path / "first").glob("[!.]*"):
        assert first.read_bytes() == (tmp_path / "second" / first.name).read_bytes()


def test_provenance_is_inside(tmp_path):
    write_all(tmp_path)
    for name in ("t.fits", "mask.fits", "d.fits", "empty.fits"):
        with fits.open(tmp_path / name) as hdus:
            header = hdus[1].header if name == "t.fits" else hdus[0].header
            assert (header["NSSTAGE"], header["NSCODE"]) == ("test", "0" * 12)
            assert json.loads(header["NSPARAM"]) == PROVENANCE.params
            assert header["NSIN00"] == "exposure sha256:" + "f" * 32
    assert products.read_table(tmp_path / "t.ecsv").meta["provenance"]["params"] == PROVENANCE.params


@pytest.mark.parametrize("enum", [Mask, Flag])
def test_every_bit_is_named_in_one_card(enum):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        header = fits.Header(header_cards(enum))
        texts = [str(card) for card in header.cards]
    assert len(texts) == len(enum)
    for bit, card, text in zip(enum, header.cards, texts, strict=True):
        assert card.value == f"{bit.name} = {int(bit)}"
        assert len(text) == 80
        assert text.rstrip().endswith(card.comment)
    assert sum(enum) == sum(set(map(int, enum))), "a bit of its own for each"


def test_round_trip(tmp_path):
    write_all(tmp_path)
    for name in ("t.fits", "t.ecsv"):
        table = products.read_table(tmp_path / name)
        assert table["x"].tolist() == [1, 1.5, 2]
        assert table["x"].unit == "pix"
    images, header = products.read_images(tmp_path / "d.fits")
    assert list(images) == ["DIFFERENCE", "MASK"]
    assert images["MASK"].dtype.isnative
    assert header["CRVAL1"] == 150
    assert products.read_images(tmp_path / "empty.fits")[0] == {}
    assert products.read_json(tmp_path / "s.json") == {"b": 1.5, "a": None, "c": [3, True]}


def test_plate_solution_without_pixels(tmp_path):
    products.write_images(tmp_path / "wcs.fits", {"WCS": None}, solution().to_header(), PROVENANCE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wcs = products.read_wcs(tmp_path / "wcs.fits")
    assert np.allclose(wcs.all_pix2world([[10, 20]], 0), solution().all_pix2world([[10, 20]], 0), atol=1e-12)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_failure_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "a" / "product.json"
    products.write_json(path, {"old": 1})

    def fail():
        with products.atomic(path) as temporary:
            with open(temporary, "w") as file:
                file.write("half")
            raise error

    with pytest.raises(error):
        fail()
    assert sorted(os.listdir(path.parent)) == [RECORD, "product.json"]
    assert products.read_json(path) == {"old": 1}
    with pytest.raises(TypeError):
        products.write_json(path, {"new": object()})
    assert sorted(os.listdir(path.parent)) == [RECORD, "product.json"]


def test_what_a_killed_process_left_goes(tmp_path):
    path, other = tmp_path / "product.json", tmp_path / ".other.json.abc.part"
    (tmp_path / ".product.json.abc.part").write_text("half")
    other.write_text("not mine")
    products.write_json(path, {})
    assert set(tmp_path.iterdir()) == {path, other, tmp_path / RECORD}


def test_permissions_follow_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        products.write_json(tmp_path / "product.json", {})
    finally:
        os.umask(old)
    assert (tmp_path / "product.json").stat().st_mode & 0o777 == 0o640


def test_schema_refusals(tmp_path):
    table = detections()
    table.remove_columns(["fwhm", "peak"])
    with pytest.raises(tables.SchemaError, match="'detections' lacks fwhm, peak"):
        products.write_table(tmp_path / "t.fits", table, "detections", PROVENANCE)
    table = detections()
    table["flags"] = np.full(3, 0.5)
    with pytest.raises(tables.SchemaError, match="'flags' of table 'detections' is float64, not int"):
        products.write_table(tmp_path / "t.fits", table, "detections", PROVENANCE)
    assert not list(tmp_path.iterdir())


def test_columns_of_ones_own_stay(tmp_path):
    table = detections()
    table["extra"] = ["a", "b", "c"]
    products.write_table(tmp_path / "t.fits", table, "detections", PROVENANCE)
    assert products.read_table(tmp_path / "t.fits")["extra"].tolist() == ["a", "b", "c"]


@pytest.mark.parametrize("schema", sorted(tables.SCHEMAS))
@pytest.mark.parametrize("suffix", ["fits", "ecsv"])
def test_empty_tables_keep_their_columns(tmp_path, schema, suffix):
    path = tmp_path / f"t.{suffix}"
    products.write_table(path, tables.empty(schema), schema, PROVENANCE)
    table = products.read_table(path)
    assert len(table) == 0
    assert table.colnames == list(tables.SCHEMAS[schema])
    assert isinstance(table, Table)
