"""Configuration and sample sheet: defaults, refusals, overrides, and the files in config/ that show them."""

import json
from pathlib import Path

import pytest
import yaml

from nightsift import parameters
from nightsift.errors import CampaignError
from nightsift.io.fits import fits_files
from nightsift.workflow import campaign
from nightsift.workflow.campaign import load, read_sheet

CONFIG = Path(__file__).parents[2] / "config"


@pytest.fixture
def folder(tmp_path):
    for name in ("a.fits", "b.fits", "catalog.fits", "template.fits", "mask.fits"):
        (tmp_path / name).touch()
    sheet(tmp_path, "image\tpath", "a\ta.fits", "b\tb.fits")
    return tmp_path


def sheet(folder, *lines):
    (folder / "images.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def config(**more):
    return {"images": "images.tsv", "catalog": {"path": "catalog.fits"}} | more


def refusal(folder, **more):
    with pytest.raises(CampaignError) as error:
        load(config(**more), folder)
    return str(error.value)


def test_defaults_are_filled_in(folder):
    found = load(config(photometry={"limit_snr": 3}), folder)
    assert list(found.images) == ["a", "b"]
    assert found.config["results"] == "results"
    for name, section in parameters.STAGES.items():
        given = {"catalog": {"path": "catalog.fits"}, "photometry": {"limit_snr": 3}}.get(name, {})
        assert section(**found.config[name]) == section(**given)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"resuls": "r"}, ["'resuls'", "'results'"]),
        ({"limit_snr": 3}, ["'limit_snr'", "'photometry.limit_snr'"]),
        ({"photometry": {"limitsnr": 3}}, ["'photometry.limitsnr'", "'photometry.limit_snr'"]),
        ({"zzz": 3}, ["'zzz'", "known are images, results"]),
        ({"photometry": {"limit_snr": "five"}}, ["photometry.limit_snr", "'five'"]),
        ({"photometry": {"limit_snr": 0}}, ["photometry.limit_snr", "0"]),
        ({"photometry": None}, ["photometry", "None"]),
        ({"template": {"source": "locale"}}, ["template.source", "'locale'", "'local'"]),
        ({"template": {"path": "gone.fits"}}, ["template.path", "'gone.fits'", "not exist"]),
        ({"template": {"mask": "gone.fits"}}, ["template.mask", "'gone.fits'", "not exist"]),
        ({"catalog": {}}, ["catalog.path"]),
        ({"images": "gone.tsv"}, ["'gone.tsv'", "not exist"]),
        ({"images": "night*/*.fits"}, ["'night*/*.fits'"]),
        ({"images": 3}, ["images", "3"]),
    ],
)
def test_wrong_configuration_is_named(folder, wrong, words):
    assert all(word in refusal(folder, **wrong) for word in words)


def test_a_folder_may_be_the_template_and_nothing_else(folder):
    (folder / "many").mkdir()
    (folder / "many" / "notes.txt").write_text("")
    assert "the folder 'many' holds no FITS image" in refusal(folder, template={"path": "many"})
    for name in ("b.fits", "a.fit.gz", "c.fits.fz"):
        (folder / "many" / name).write_text("")
    assert load(config(template={"path": "many"}), folder).config["template"]["path"] == "many"
    assert [path.name for path in fits_files(folder / "many")] == ["a.fit.gz", "b.fits", "c.fits.fz"]
    assert "'many' is a folder, not a file" in refusal(folder, catalog={"path": "many"})
    mask = {"path": "many", "mask": "many/b.fits"}
    assert "template.mask is a mask of one template, and 'many' is a folder" in refusal(folder, template=mask)


def test_a_cone_is_whole_or_not_there(folder):
    assert "ra and radius not given" in refusal(folder, uncatalogued={"dec": -12.5})
    cone = {"ra": 0.0, "dec": -12.5, "radius": 0.1}
    assert load(config(uncatalogued=cone), folder).config["uncatalogued"]["ra"] == 0.0


@pytest.mark.parametrize(
    ("stage", "method", "other"), [("subtract", "hotpants", "zogy"), ("detect", "sextractor", "sep")]
)
def test_a_method_whose_program_is_missing_is_refused(folder, monkeypatch, stage, method, other):
    (folder / "bin").mkdir()
    monkeypatch.setenv("PATH", str(folder / "bin"))
    message = refusal(folder, **{stage: {"method": method}})
    assert all(word in message for word in (f"{stage}.method", f"'{method}'", "PATH"))
    assert load(config(**{stage: {"method": other}}), folder).config[stage]["method"] == other
    program = folder / "bin" / method
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert load(config(**{stage: {"method": method}}), folder).config[stage]["method"] == method


def test_no_images_at_all(folder):
    with pytest.raises(CampaignError, match="'images' is a required property"):
        load({}, folder)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["image\tpath", "a\ta.fits", "a\tb.fits"], ["row 3", "'a'", "twice"]),
        (["image\tpath", "a\tgone.fits"], ["'a'", "'gone.fits'", "not exist"]),
        (["image\tpath\tmask", "a\ta.fits\tgone.fits"], ["'a'", "mask", "'gone.fits'"]),
        (["image\tpath\ttemplate", "a\ta.fits\tgone.fits"], ["'a'", "template", "'gone.fits'"]),
        (["image\tpath", "a/b\ta.fits"], ["row 2", "'a/b'"]),
        (["image\tpath", "..\ta.fits"], ["row 2", "'..'"]),
        (["image\tpath", "\ta.fits"], ["row 2"]),
        (["image\tpath", "a\t"], ["row 2", "'a'", "no path"]),
        (["image\tpath", "a"], ["row 2", "'a'", "fields"]),
        (["image\tpath", "a\ta.fits\t3"], ["row 2", "'a'", "fields"]),
        (["image\tpath\tgian", "a\ta.fits\t3"], ["'gian'", "'gain'"]),
        (["image\tpath\tgain", "a\ta.fits\tthree"], ["row 2", "gain", "'three'"]),
        (["image,path", "a,a.fits"], ["image,path"]),
        (["image\tgain", "a\t3"], ["'path'"]),
        (["image\tpath"], ["no image"]),
        ([""], ["'image' and 'path'"]),
    ],
)
def test_wrong_sample_sheet_is_named(folder, lines, words):
    sheet(folder, *lines)
    message = refusal(folder)
    assert message.startswith("images.tsv")
    assert all(word in message for word in words)


def test_overrides_of_the_sample_sheet(folder):
    sheet(
        folder,
        "\ufeffimage\tpath\tfilter\tgain\ttime\tra\ttemplate\tmask",
        "# a comment",
        "",
        "a\ta.fits\tr\t1.5\t2024-01-01T00:00:00\t150\ttemplate.fits\tmask.fits",
        " b \t b.fits\t\t\t\t\t\t",
    )
    images = load(config(), folder).images
    assert images["a"].overrides == {"filter": "r", "gain": 1.5, "time": "2024-01-01T00:00:00", "ra": 150.0}
    assert (images["a"].template, images["a"].mask) == ("template.fits", "mask.fits")
    assert images["b"] == campaign.Entry("b.fits")


def test_glob_names_are_unique(folder):
    for name in ("n1/x.fits", "n1/x.fits.gz", "n2/x.fits", "n2/with space.fit", "n2/note.txt", "n3/.fits"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    images = load(config(images="n[12]/**/*.fi*"), folder).images
    assert {name: entry.path for name, entry in images.items()} == {
        "x": "n1/x.fits",
        "x-2": "n1/x.fits.gz",
        "x-3": "n2/x.fits",
        "with_space": "n2/with space.fit",
    }


def test_schema_file_is_current(tmp_path):
    campaign.write_schema(tmp_path / "config.schema.json")
    assert json.loads((CONFIG / "config.schema.json").read_text()) == parameters.schema()
    assert (CONFIG / "config.schema.json").read_bytes() == (tmp_path / "config.schema.json").read_bytes()


def test_example_is_current_and_complete(folder):
    campaign.write_example(folder / "config.yaml")
    text = (CONFIG / "config.yaml").read_text(encoding="utf-8")
    assert text == (folder / "config.yaml").read_text(encoding="utf-8"), (
        "run python -m nightsift.workflow.campaign config"
    )
    example = yaml.safe_load(text)
    assert example == load(config(template={"path": "template.fits"}), folder).config
    for section in parameters.schema()["properties"].values():
        for option in section.get("properties", {}).values():
            assert f"  # {option['description']}" in text


def test_example_sheet_can_be_read(tmp_path):
    images = campaign.read_sheet(CONFIG / "images.tsv")
    assert images["night1_002"].overrides == {"filter": "r", "gain": 1.3}


def test_readme_has_every_column():
    text = (CONFIG / "README.md").read_text()
    assert all(f"`{column}`" in text for column in campaign.COLUMNS)


@pytest.mark.parametrize(
    ("text", "value"), [("0.4", 0.4), ("1e-1", 0.1), ("20-40", [20.0, 40.0]), ("40 - 20", [20, 40])]
)
def test_a_pixel_scale_is_a_number_or_a_range(tmp_path, text, value):
    (tmp_path / "images.tsv").write_text(f"image\tpath\tpixscale\na\ta.fits\t{text}\n")
    assert read_sheet("images.tsv", tmp_path)["a"].overrides == {"pixscale": value}


@pytest.mark.parametrize("text", ["0-3", "a-b", "-3", "1-2-3", "1.2.3-4"])
def test_a_wrong_range_of_pixel_scales_is_named(tmp_path, text):
    (tmp_path / "images.tsv").write_text(f"image\tpath\tpixscale\na\ta.fits\t{text}\n")
    with pytest.raises(CampaignError, match=f"pixscale '{text}' is not a number"):
        read_sheet("images.tsv", tmp_path)
