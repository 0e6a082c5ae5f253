"""The page: complete, self-contained, safe against what headers say."""

import inspect
import re
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from PIL import Image
from synthetic_results import EVIL, Made, wcs_header, write_campaign, write_image
from workflows import script

from nightsift.parameters import ReportConfig
from nightsift.report import positions, report, search
from nightsift.report.lightcurve import light_curve
from nightsift.report.skymaps import footprint, sky_maps
from nightsift.report.stamps import stamps
from nightsift.tables import empty
from nightsift.transients import vetting


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
    assert "P(real) 0.90" in page
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
    picture = np.asarray(Image.open(BytesIO(stamps(cutout))).convert("RGB")).astype(int)
    side = 41 * 3
    assert picture.shape == (side, 4 * side + 18, 3)
    difference = picture[:, 2 * (side + 6) :][:, :side]
    brightest = np.unravel_index(difference[:, : 30 * 3, 2].argmax(), (side, 30 * 3))
    assert (side - 1 - brightest[0]) // 3 == 30, "rows are drawn upwards"
    assert brightest[1] // 3 == 10
    assert tuple(difference[60, -2]) == (90, 110, 140)


def test_search_is_told_of_each_image_and_of_the_campaign(text):
    images = text[text.index('id="images"') : text.index('id="complete"')]
    assert images.count('<svg class="thumb"') == 5
    assert "5.30" in images
    assert "trained on 150 real, 40 bogus of this image: ROC area 1.000" in images
    assert "the package&#39;s, tried on 150 real, 40 bogus" in images
    complete = text[text.index('id="complete"') : text.index('id="model"')]
    assert '<td>r</td><td class="n">5 of 6</td>' in complete
    model = text[text.index('id="model"') : text.index('id="sky"')]
    assert "4 trained on the package and their image, 1 on the package alone" in model
    assert "750 real, 200 bogus" in model


def test_page_of_a_campaign_without_fakes(tmp_path):
    write_image(tmp_path / "images", Made("plain", 10.0, 0.0, []))
    (tmp_path / "list").write_text("plain\n")
    common = ["--results", str(tmp_path), "--images", str(tmp_path / "list")]
    assert script("sources").main(common) == script("report").main(common) == 0
    page = (tmp_path / "campaign" / "report.html").read_text(encoding="utf-8")
    assert "No image has enough fakes" in page
    assert "No image was searched" in page
    assert '<svg class="thumb"' not in page


def test_completeness_of_the_campaign_counts_all_fakes():
    bins = [[3.0, 5.0, 10, 2], [5.0, 9.0, 10, 9]]
    one = {"off_hosts": {"snr": {"top": 1.0, "middle": 5.0, "width": 1.0, "bins": bins}}}
    two = {"off_hosts": {"snr": {"top": 1.0, "middle": 6.0, "width": 1.0, "bins": bins}}}
    assert search.pooled_bins([one, two, {}], "off_hosts").tolist() == [[3, 5, 20, 4], [5, 9, 20, 18]]
    svg = str(search.completeness_svg([one, two]))
    assert "on blank sky: 22 of 40 found" in svg
    assert "on galaxies: 0 of 0 found" in svg
    # the median curve falls to a half between the two images': its height in the middle of the picture
    points = re.search(r'class="curve sky" points="([^"]+)"', svg)[1].split()
    x, y = np.array([point.split(",") for point in points], float).T
    half = np.interp(-(y.max() + y.min()) / 2, -y, x)
    snr = 3 * (100 / 3) ** ((half - x[0]) / (x[-1] - x[0]))
    assert snr == pytest.approx(5.5, abs=0.1)


def test_depth_by_filter():
    images = empty("images")
    for band, m50 in (("r", 20.0), ("r", 21.0), ("r", np.nan), ("g", 19.0), ("i", np.nan)):
        images.add_row({"filter": band, "m50": m50, "m90": m50 - 0.3, "maglim": 20.0, "snr50": 5.0})
    rows = {row["filter"]: row for row in search.by_filter(images)}
    assert list(rows) == ["g", "r", "all"]
    assert (rows["r"]["known"], rows["r"]["images"], rows["r"]["m50"]) == (2, 3, "20.50")
    assert rows["r"]["m50_range"] == "20.00 to 21.00"
    assert rows["all"]["m50"] == "20.00"


@pytest.mark.parametrize(
    ("value", "text"), [(0.5, "0.50"), (0.999, "> 0.99"), (1.0, "> 0.99"), (0.001, "< 0.01"), (np.nan, "")]
)
def test_probability_is_never_certainty(value, text):
    assert search.probability(value) == text


def test_every_reason_of_vetting_has_a_meaning():
    source = inspect.getsource(vetting)
    given = re.findall(r'^        "([a-z PSF]+)": ', source, re.MULTILINE)
    assert len(given) > 15
    assert set(given) <= set(search.REASONS)


def test_stamps_without_data():
    stamps(np.full((4, 41, 41), np.nan, np.float32))
    stamps(np.zeros((4, 41, 41), np.float32))


def campaign_of(headers, places=()):
    sources = empty("sources")
    for ra, dec in places:
        sources.add_row({"source": "s", "ra": ra, "dec": dec})
    return [(header, (200, 200)) for header in headers], sources


def test_sky_map_across_ra_zero_and_at_the_pole():
    for ra, dec in ((0.01, 20.0), (123.0, 90.0), (40.0, -89.99)):
        maps = sky_maps(*campaign_of([wcs_header(ra, dec), wcs_header(ra - 0.03, dec)], [(ra, dec)]))
        assert len(maps) == 1
        points = np.array(re.findall(r"([\d.-]+),([\d.-]+)", str(maps[0]["svg"])), float)
        assert points.min() > 0
        assert points.max() < 340
        assert 'class="src" cx=' in maps[0]["svg"]


def test_fields_far_apart_get_maps_of_their_own():
    headers = [wcs_header(0.01, 20), wcs_header(359.99, 20), wcs_header(180, -70)]
    maps = sky_maps(*campaign_of(headers, [(180.0, -70.0)]))
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
    svg = str(light_curve(rows))
    heights = re.findall(r'cy="([\d.]+)"', svg)
    assert len(heights) == 2
    assert heights[0] == heights[1]
    assert "&lt;b&gt;" in svg
    assert str(light_curve(rows[:1])) == ""
    rows["flux"] *= -1
    ends = [
        [float(y) for y in re.findall(r'y="([\d.]+)" text-anchor="end">-?[\d.]+<', str(svg))]
        for svg in (svg, light_curve(rows))
    ]
    assert [len(labels) for labels in ends] == [2, 2]
    assert all(abs(labels[0] - labels[1]) > 10 for labels in ends), "one label stands upon the other"


def test_best_sources_by_score_then_signal():
    sources = Table({"source": ["a", "b", "c"], "score": [0.5, 0.9, 0.9], "best_snr": [99.0, 5.0, -8.0]})
    candidates = Table({"source": ["a", "b", "c", "c"], "snr": [99.0, 5.0, 2.0, -8.0], "image": ["i"] * 4})
    campaign = report.ReportMaterial(
        empty("images"), candidates, sources, empty("lightcurves"), empty("campaign_uncatalogued"), {}
    )
    assert report.best_sources(campaign, ReportConfig()) == [(2, 3), (1, 1), (0, 0)]
    assert report.best_sources(campaign, ReportConfig(max_candidates=1)) == [(2, 3)]


def test_footprint_follows_the_border():
    outline = footprint(fits.Header(wcs_header(10.0, 0.0)), (200, 200))
    assert np.ptp(outline[:, 1]) * 3600 == pytest.approx(200, abs=0.01)


def test_what_the_catalogue_lacks_is_listed_once_per_source(text):
    part = text.split('<h2 id="uncatalogued">')[1].split("<h2")[0]
    rows = part.split("<tbody>")[1].split("</tbody>")[0].split("<tr>")[1:]
    assert len(rows) == 2
    assert all('data-v="6"' in row or ">6</td>" in row for row in rows)
    assert sum("(1) Ceres" in row for row in rows) == 1
    assert "uncatalogued_all.fits" in part


def test_positions_without_catalogue_flux_have_no_magnitude_there():
    table = empty("campaign_uncatalogued")
    table.add_row({"source": "a", "snr": 9.0, "mag_psf": np.nan, "mag_calib": 17.0, "catalog_mag": np.nan})
    table.add_row({"source": "a", "snr": 12.0, "mag_psf": 16.5, "filter": "r", "catalog_mag": 19.0})
    (row,) = positions.rows(table, 10)
    assert [text for _, text in row["cells"]][:3] == ["12.0", "r = 16.50", "19.00"]
    (row,) = positions.rows(table[:1], 10)
    assert [text for _, text in row["cells"]][:3] == ["9.0", "17.00", ""]
