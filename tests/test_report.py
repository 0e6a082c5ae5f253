"""The page: complete, self-contained, safe against what headers say."""

import importlib.util
import re
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from PIL import Image
from synthetic_results import EVIL, wcs_header, write_campaign

from nightsift import report
from nightsift.parameters import Report
from nightsift.tables import empty

SCRIPTS = Path(__file__).parents[1] / "scripts"


def script(name):
    specification = importlib.util.spec_from_file_location(f"{name}_script", SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


class Reader(HTMLParser):
    """Collects links, sources and tags."""

    def __init__(self, text):
        super().__init__()
        self.links, self.sources, self.tags = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        values = dict(attributes)
        self.links += [values["href"]] if "href" in values else []
        self.sources += [values["src"]] if "src" in values else []


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    results = tmp_path_factory.mktemp("report") / "results"
    listed = write_campaign(results, 6)
    common = ["--results", str(results), "--images", str(listed)]
    assert script("sources").main(common) == 0
    for image in ("night_00", "cloudy"):
        out = results / "images" / image
        extra = ["--exposure", str(results / f"{image}.fits"), "--plots", str(out / "plots")]
        script("plots").main(["--name", image, "--images", str(out), *extra])
    assert script("report").main(common) == 0
    return results, common


@pytest.fixture(scope="module")
def text(campaign):
    return (campaign[0] / "campaign" / "report.html").read_text(encoding="utf-8")


def test_header_values_are_escaped(text):
    assert EVIL not in text
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 3
    assert Reader(text).tags.count("script") == 1


def test_nothing_comes_from_elsewhere(text):
    reader = Reader(text)
    assert reader.sources
    assert all(source.startswith("data:image/png;base64,") for source in reader.sources)
    assert "link" not in reader.tags
    assert "@import" not in text
    assert "url(" not in text
    outside = {link.split("/")[2] for link in reader.links if "//" in link}
    assert outside == {"aladin.cds.unistra.fr", "simbad.cds.unistra.fr"}


def test_links_lead_to_files(campaign, text):
    folder = campaign[0] / "campaign"
    links = [link for link in Reader(text).links if not link.startswith(("#", "https:"))]
    assert len(links) > 20
    missing = {link for link in links if not (folder / link).exists()}
    assert not missing
    anchors = {link[1:] for link in Reader(text).links if link.startswith("#")}
    assert anchors <= set(re.findall(r'id="([^"]+)"', text))


def test_everything_is_told(text):
    for word in ("degraded", "rejected", "did not finish", "2 warnings", "gain not in the header", "55 mas", "18.79"):
        assert word in text
    for reason in ("negative", "dipole", "shape"):
        assert f"<td>{reason}</td>" in text
    assert text.count('<article class="card"') == 3
    assert text.index("best first") < text.index("Set aside by vetting")


def test_page_is_the_same_when_made_again(campaign, text):
    script("report").main(campaign[1])
    assert (campaign[0] / "campaign" / "report.html").read_text(encoding="utf-8") == text


def test_max_candidates(campaign):
    script("report").main([*campaign[1], "--params", '{"max_candidates": 1}'])
    page = (campaign[0] / "campaign" / "report.html").read_text(encoding="utf-8")
    script("report").main(campaign[1])
    assert page.count('<article class="card"') == 1
    assert "score 0.90" in page
    assert "The best 1 of 3" in page


def test_page_without_any_tables(tmp_path):
    (tmp_path / "campaign").mkdir()
    (tmp_path / "list").write_text("lost\n")
    assert script("report").main(["--results", str(tmp_path), "--images", str(tmp_path / "list")]) == 0
    assert "No image has a candidate" in (tmp_path / "campaign" / "report.html").read_text(encoding="utf-8")


def test_stamps_show_what_is_there():
    cutout = np.random.default_rng(1).normal(0, 1, (4, 41, 41)).astype(np.float32)
    cutout[2:, 30, 10] = 50
    cutout[:, :, 35:] = np.nan
    picture = np.asarray(Image.open(BytesIO(report.stamps(cutout))).convert("RGB")).astype(int)
    side = 41 * 3
    assert picture.shape == (side, 4 * side + 18, 3)
    difference = picture[:, 2 * (side + 6) :][:, :side]
    brightest = np.unravel_index(difference[:, : 30 * 3, 2].argmax(), (side, 30 * 3))
    assert (side - 1 - brightest[0]) // 3 == 30, "rows are drawn upwards"
    assert brightest[1] // 3 == 10
    assert tuple(difference[60, -2]) == (90, 110, 140)


def test_stamps_without_data():
    report.stamps(np.full((4, 41, 41), np.nan, np.float32))
    report.stamps(np.zeros((4, 41, 41), np.float32))


def campaign_of(headers, positions=()):
    sources = empty("sources")
    for ra, dec in positions:
        sources.add_row({"source": "s", "ra": ra, "dec": dec})
    extras = {f"i{n}": report.Extra(header=header, shape=(200, 200)) for n, header in enumerate(headers)}
    tables = (empty(name) for name in ("images", "campaign_candidates"))
    return report.Campaign(*tables, sources, empty("lightcurves"), extras)


def test_sky_map_across_ra_zero_and_at_the_pole():
    for ra, dec in ((0.01, 20.0), (123.0, 90.0), (40.0, -89.99)):
        maps = report.sky_maps(campaign_of([wcs_header(ra, dec), wcs_header(ra - 0.03, dec)], [(ra, dec)]))
        assert len(maps) == 1
        points = np.array(re.findall(r"([\d.-]+),([\d.-]+)", str(maps[0]["svg"])), float)
        assert points.min() > 0
        assert points.max() < 340
        assert 'class="src" cx=' in maps[0]["svg"]


def test_fields_far_apart_get_maps_of_their_own():
    headers = [wcs_header(0.01, 20), wcs_header(359.99, 20), wcs_header(180, -70)]
    maps = report.sky_maps(campaign_of(headers, [(180.0, -70.0)]))
    assert [map["title"][:8] for map in maps] == ["2 images", "1 image,"]
    assert "1 sources" in maps[1]["title"]


def test_light_curve_is_in_one_unit():
    rows = Table(
        {
            "mjd": [1.0, 2.0, 3.0],
            "flux": [100.0, 200.0, np.nan],
            "fluxerr": [1.0, 2.0, 1.0],
            "snr": [100.0, 100.0, 0.0],
            "zp": [25.0, 25.0 + 2.5 * np.log10(2), 25.0],
            "kind": ["detected", "forced", "forced"],
            "image": ["a", "<b>", "c"],
            "filter": ["r", "r", "r"],
        }
    )
    svg = str(report.light_curve(rows))
    heights = re.findall(r'cy="([\d.]+)"', svg)
    assert len(heights) == 2
    assert heights[0] == heights[1]
    assert "&lt;b&gt;" in svg
    assert str(report.light_curve(rows[:1])) == ""


def test_best_sources_by_score_then_signal():
    sources = Table({"source": ["a", "b", "c"], "score": [0.5, 0.9, 0.9], "best_snr": [99.0, 5.0, -8.0]})
    candidates = Table({"source": ["a", "b", "c", "c"], "snr": [99.0, 5.0, 2.0, -8.0], "image": ["i"] * 4})
    campaign = report.Campaign(empty("images"), candidates, sources, empty("lightcurves"), {})
    assert report.best_sources(campaign, Report()) == [(2, 3), (1, 1), (0, 0)]
    assert report.best_sources(campaign, Report(max_candidates=1)) == [(2, 3)]


def test_footprint_follows_the_border():
    outline = report.footprint(fits.Header(wcs_header(10.0, 0.0)), (200, 200))
    assert np.ptp(outline[:, 1]) * 3600 == pytest.approx(200, abs=0.01)
