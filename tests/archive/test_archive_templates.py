"""Templates from the archives: what is asked and made, and what each fault of each service leads to."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from scipy import ndimage
from skyimages import Images, Sky
from standin import FAULTS, SLOW, Reply, StandIn, archive_config
from workflows import script

from nightsift import parameters
from nightsift.archive import bricks, skycells
from nightsift.archive import images as survey_images
from nightsift.archive.library import Library
from nightsift.archive.reduction import binned, reduced
from nightsift.flags import Mask
from nightsift.image.moffat import MoffatPsf
from nightsift.image.padding import PAD
from nightsift.io.fits import Image, read_image
from nightsift.io.products import read_images
from nightsift.simulate.pixels import render_points
from nightsift.template.alignment import Target, TemplateImage, align
from nightsift.template.mosaic import grid, mosaic

SCRIPT = script("fetch_template")
M61 = Path(__file__).parents[3] / "shared" / "data" / "services" / "hips2fits_ps1_g_m61.fits"
CENTER = (150.05, 25.27)
SIDE = 120
SOURCES = {"ps1": {"source": "ps1"}, "legacy": {"source": "legacy"}, "hips": {"source": "hips", "survey": "ztf"}}
OUTCOME = {
    "HTTP 500": "HTTP 500",
    "HTTP 503": "HTTP 503",
    "HTTP 429": "HTTP 429",
    "HTTP 404": "HTTP 404",
    "closes": "does not answer",
    "breaks off": "does not answer",
    "half a table": "truncated",
    "a web page": "a web page",
    "an error with HTTP 200": "no FITS file",
    "nothing": "empty",
    "garbage": "no FITS file",
    "stalls": "does not answer",
}
# These change only tables.
HARMLESS = {"no end tag", "an empty table", "a table without columns", "says there is more"}


def solution(ra, dec, side, scale=1.0, rotation=0.0):
    wcs, turn = WCS(naxis=2), np.radians(rotation)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], (ra, dec), ((side + 1) / 2,) * 2
    wcs.wcs.cd = scale / 3600 * np.array([[-np.cos(turn), np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    wcs.wcs.lonpole = 180
    wcs.wcs.set()
    return wcs


def sky(ra=CENTER[0], dec=CENTER[1], side=230, scale=0.8):
    rng = np.random.default_rng(2)
    data = np.zeros((side, side))
    x, y = rng.uniform(0, side, (2, 50))
    psf = MoffatPsf(fwhm=3.0, beta=4.0, e1=0.0, e2=0.0, scale=(0.0, 0.0, 0.0), twist=(0.0, 0.0))
    render_points(data, x, y, 10 ** rng.uniform(2.5, 4.5, 50), psf, faintest=1e-2)
    data += rng.normal(0, 2, data.shape)
    return Sky(data, np.full(data.shape, 4.0), data > 800, solution(ra, dec, side, scale))


SKY = sky()


@pytest.fixture(scope="module")
def server():
    with StandIn(Images(SKY)) as server:
        yield server


def write_exposure(path, wcs, name="r", **cards):
    data = np.random.default_rng(3).normal(100, 3, (SIDE, SIDE)).astype(np.float32)
    header = wcs.to_header() if wcs is not None else fits.Header()
    header.update({"FILTER": name, "EXPTIME": 60.0, **cards})
    fits.writeto(path, data, header, overwrite=True)
    return path


class Fetch:
    """The stage for one image, its folder and its cache."""

    def __init__(self, folder, standin, monkeypatch):
        self.folder, self.standin, self.monkeypatch = folder, standin, monkeypatch
        self.exposure = write_exposure(folder / "image.fits", solution(*CENTER, SIDE, rotation=20))
        self.runs = 0

    def __call__(self, extra=None, offline=False, patience=None, **params):
        self.runs += 1
        self.monkeypatch.setenv("NIGHTSIFT_WARM_OWNER", f"run {self.folder} {self.runs}")
        archive = archive_config(self.standin, self.folder / "cache", **(patience or {}))
        self.monkeypatch.setenv("NIGHTSIFT_ARCHIVE", json.dumps({"archive": archive, "offline": offline}))
        self.mosaic, state = self.folder / "mosaic.fits", self.folder / "fetch_template.json"
        for path in (self.mosaic, state, self.folder / "status.json"):
            path.unlink(missing_ok=True)
        arguments = ["--name", "image", "--params", json.dumps(params), "--exposure", str(self.exposure)]
        arguments += ["--extra", json.dumps(extra or {}), "--state", str(state), "--mosaic", str(self.mosaic)]
        self.code = SCRIPT.main(arguments)
        return json.loads((state if state.exists() else self.folder / "status.json").read_text())

    def planes(self):
        images, header = read_images(self.mosaic)
        return images, WCS(header)


@pytest.fixture
def fetch(tmp_path, standin, monkeypatch):
    return Fetch(tmp_path, standin, monkeypatch)


def compared(fetch, truth=SKY):
    """Return the mosaic and the sky on its grid, both in the mosaic's pixels, where both are known and good."""
    images, wcs = fetch.planes()
    seen = truth.on(wcs, images["TEMPLATE"].shape)
    x, y = (int(value) for value in np.rint(wcs.wcs.crpix - seen.wcs.wcs.crpix))
    cut = np.s_[y : y + seen.data.shape[0], x : x + seen.data.shape[1]]
    good = (images["MASK"][cut] == 0) & np.isfinite(seen.data)
    noise = images["NOISE"][cut][good] if "NOISE" in images else None
    return images["TEMPLATE"][cut][good], seen.data[good], np.sqrt(seen.variance[good]), noise


@pytest.mark.parametrize("name", SOURCES)
def test_the_mosaic_is_the_sky(fetch, name):
    state = fetch(**SOURCES[name])
    assert (fetch.code, state["status"], state["stopped"]) == (0, "ok", None)
    found, truth, sigma, noise = compared(fetch)
    assert len(found) > 10000
    slope, _ = np.polyfit(truth, found, 1)
    if name != "hips":
        assert slope == pytest.approx(1, abs=0.01)
        np.testing.assert_allclose(noise / sigma, 1, atol=0.02)
    residual = found / slope - truth
    assert np.std(residual - np.median(residual)) < 0.7 * np.median(sigma)
    images, wcs = fetch.planes()
    saturated = (images["MASK"] & int(Mask.SATURATED)) != 0
    assert saturated.any() == (name != "hips")
    # All of the image is covered.
    around = solution(*CENTER, SIDE, rotation=20).all_pix2world(*np.indices((SIDE, SIDE)).reshape(2, -1), 0)
    x, y = np.rint(wcs.all_world2pix(*around, 0)).astype(int)
    assert not (images["MASK"][y, x] & int(Mask.NONFINITE)).any()


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("fault", FAULTS)
def test_fault(fetch, standin, name, fault):
    patience = {"timeout": SLOW / 4, "attempts": 1} if fault == "stalls" else {}
    with standin.failing(fault):
        state = fetch(patience=patience, **SOURCES[name])
    if fault in HARMLESS:
        assert fetch.code == 0
        return
    assert fetch.code == 1
    assert (state["status"], state["stage"]) == ("error", "fetch_template")
    assert OUTCOME[fault] in state["reason"]
    assert "the next run asks again" in state["reason"]
    assert not fetch.mosaic.exists()
    assert not list((fetch.folder / "cache").rglob("*.fits"))
    state = fetch(**SOURCES[name])
    assert (fetch.code, state["status"]) == (0, "ok")
    assert len(compared(fetch)[0]) > 10000


def test_every_fault_is_listed():
    assert set(OUTCOME) | HARMLESS == set(FAULTS)


def changed(change):
    """Return a fault that changes pixels and header of every FITS file."""

    def fault(reply):
        if not reply.body.startswith(b"SIMPLE"):
            return reply
        with fits.open(io.BytesIO(reply.body)) as hdus:
            hdu = hdus[-1]
            data, header = change(hdu.data.copy(), hdu.header.copy())
            kind = fits.CompImageHDU if len(hdus) > 1 else fits.PrimaryHDU
            content = io.BytesIO()
            fits.HDUList([*hdus[:-1], kind(data, header)]).writeto(content)
        return replace(reply, body=content.getvalue())

    return fault


def blank(data, header):
    return (np.full_like(data, np.nan) if data.dtype.kind == "f" else data), header


def moved(data, header):
    header["CRVAL2"] -= 3
    return data, header


def without(key):
    def change(data, header):
        header.remove(key, ignore_missing=True)
        return data, header

    return change


def cropped(data, header):
    return (data if data.dtype.kind == "f" and "BSOFTEN" in header else data[:-7]), header


PIXELS = {
    "no pixels": (changed(blank), "without", ("ps1", "legacy", "hips")),
    "another piece of sky": (changed(moved), "another piece of sky", ("ps1", "legacy", "hips")),
    "no solution": (changed(without("CTYPE1")), "without a solution", ("ps1", "legacy", "hips")),
    "no exposure time": (changed(without("EXPTIME")), "without its exposure time", ("ps1",)),
    "another size": (changed(cropped), "differ in size", ("ps1",)),
    "not even an image": (lambda reply: Reply(fits.PrimaryHDU().header.tostring().encode()), "", tuple(SOURCES)),
}


@pytest.mark.parametrize(("fault", "name"), [(fault, name) for fault in PIXELS for name in PIXELS[fault][2]])
def test_fault_in_the_pixels(fetch, standin, monkeypatch, fault, name):
    change, words, _ = PIXELS[fault]
    monkeypatch.setitem(FAULTS, fault, change)
    with standin.failing(fault):
        state = fetch(**SOURCES[name])
    assert (fetch.code, state["status"], state["stage"]) == (1, "error", "fetch_template")
    assert words in state["reason"]
    state = fetch(**SOURCES[name])
    assert (fetch.code, state["status"]) == (0, "ok")
    assert len(compared(fetch)[0]) > 10000


@pytest.mark.parametrize("name", SOURCES)
def test_each_piece_is_asked_for_once(fetch, standin, name):
    first = fetch(**SOURCES[name])
    asked = [(request.path, *sorted(request.form.items())) for request in standin.requests]
    assert len(asked) == len(set(asked)) == len(first["pieces"]) * (1 if name == "hips" else 3)
    content = fetch.mosaic.read_bytes()
    assert fetch(**SOURCES[name])["pieces"] == first["pieces"]
    assert fetch(offline=True, **SOURCES[name])["pieces"] == first["pieces"]
    assert len(standin.requests) == len(asked)
    assert fetch.mosaic.read_bytes() == content
    assert all(request.agent.startswith("nightsift/") for request in standin.requests)


def test_what_is_damaged_in_the_cache_is_made_again(fetch, standin):
    fetch(**SOURCES["ps1"])
    content = fetch.mosaic.read_bytes()
    asked = len(standin.requests)
    for path in (fetch.folder / "cache").rglob("*.fits"):
        path.write_bytes(path.read_bytes()[:-3000])
    fetch(**SOURCES["ps1"])
    assert len(standin.requests) == 2 * asked
    assert fetch.mosaic.read_bytes() == content


def test_what_was_asked_for_serves_other_pixels(fetch, standin):
    fetch(**SOURCES["legacy"])
    asked = len(standin.requests)
    write_exposure(fetch.exposure, solution(*CENTER, SIDE // 2, 2.2))
    state = fetch(**SOURCES["legacy"])
    assert state["factor"] == 4
    assert len(standin.requests) == asked


def test_offline_names_what_is_missing(fetch, standin):
    state = fetch(offline=True, **SOURCES["ps1"])
    assert (fetch.code, state["status"]) == (1, "error")
    assert "offline, and the cache lacks" in state["reason"]
    assert "of Pan-STARRS (1882.03" in state["reason"]
    assert not standin.requests


def test_a_field_outside_a_survey_has_a_reason(fetch, standin):
    where = {
        (30.0, -60.0): ("ps1", {}, "does not reach"),
        (40.0, 10.0): ("legacy", {}, "has no image of this field in r"),
        (40.0, 40.0): ("legacy", {}, "has no image of this field in r"),
        (220.0, 50.0): ("ps1", {}, "has no image of this field in r"),
        (40.0, -75.0): ("hips", {"survey": "des"}, "does not reach"),
        (50.0, -30.0): ("hips", {"survey": "des"}, "has no image of this field in r"),
    }
    for place, (source, more, words) in where.items():
        write_exposure(fetch.exposure, solution(*place, SIDE))
        state = fetch(source=source, **more)
        assert fetch.code == 0, state
        assert (state["status"], state["stage"]) == ("degraded", "fetch_template")
        assert words in state["reason"]
        assert state["reason"].count(";") == 0
        asked = len(standin.requests)
        fetch(source=source, offline=True, **more)
        assert (fetch.code, len(standin.requests)) == (0, asked), "that there is nothing is kept, too"


def test_a_band_that_a_survey_lacks_has_a_reason(fetch, standin):
    write_exposure(fetch.exposure, solution(*CENTER, SIDE), "J")
    assert fetch(source="ps1")["reason"] == "Pan-STARRS has no band like J"
    assert fetch(source="hips", survey="ztf", band="y")["reason"] == "ZTF DR7 has no band like y"
    assert not standin.requests


def test_a_wide_field_is_not_fetched(fetch, standin):
    write_exposure(fetch.exposure, solution(*CENTER, SIDE, 60.0))
    state = fetch(source="ps1")
    assert "more than template.max_pieces" in state["reason"]
    assert not standin.requests
    state = fetch(**SOURCES["hips"])
    assert fetch.code == 0
    assert len(standin.requests) < 20


def test_without_a_place_nothing_is_asked(fetch, standin):
    write_exposure(fetch.exposure, None)
    state = fetch(source="ps1")
    assert (fetch.code, state["stopped"]) == (0, "fetch_template")
    assert "no position hint" in state["reason"]
    assert not standin.requests
    hints = {"ra": CENTER[0], "dec": CENTER[1], "radius": 0.02, "pixscale": 1.0}
    state = fetch(extra=hints, source="ps1")
    assert (state["status"], len(state["pieces"]) > 0) == ("ok", True)


def test_a_list_that_contradicts_the_files_is_no_answer(fetch, standin):
    with standin.failing("HTTP 404", spares=lambda request: "filenames" in request.path):
        state = fetch(**SOURCES["ps1"])
    assert (fetch.code, state["status"]) == (1, "error")
    with standin.failing("HTTP 404", spares=lambda request: "-bricks-" in request.path):
        state = fetch(**SOURCES["legacy"])
    # The release is there and this brick is not: so be it.
    assert (fetch.code, state["status"]) == (0, "degraded")


def test_auto_is_by_place_and_filter():
    def kinds(band, dec, latitude=50.0, source="auto"):
        return [name for _, name in survey_images.suitable(source, None, band, dec, latitude)]

    assert kinds("r", 20.0) == ["ps1", "ztf"]
    assert kinds(None, -29.0)[0] == "ps1"
    assert kinds("r", -31.0)[0] == "legacy"
    assert kinds("r", -60.0, 5.0) == ["skymapper", "decaps"]
    assert kinds("J", 20.0) == kinds("Ks", -60.0) == ["2mass"]
    assert kinds("r", -60.0, source="hips") == ["skymapper", "des", "decaps"]
    assert survey_images.suitable("hips", "ztf", "r", 0.0, 0.0) == [("hips", "ztf")]
    bands = {band: survey_images.nearest(band, "grizy") for band in (*parameters.BANDS, None)}
    assert {band: bands[band] for band in ("U", "V", "R", "I", "u", "G", "RP", None)} == {
        **{"U": "g", "V": "g", "R": "r", "I": "i", "u": "g", "G": "r", "RP": "i"},
        None: "r",
    }
    assert bands["J"] is None


def test_auto_goes_on_where_the_first_has_nothing(fetch, standin):
    write_exposure(fetch.exposure, solution(220.0, 50.0, SIDE))
    state = fetch(source="auto")
    assert state["status"] == "degraded"
    assert state["reason"].startswith("Pan-STARRS has no image of this field in r; ZTF DR7 (HiPS) has no image")
    fetch.exposure = write_exposure(fetch.folder / "image.fits", solution(*CENTER, SIDE))
    assert fetch(source="auto")["survey"] == "Pan-STARRS"
    # A service that is down is no reason to take another: the next run would give another result.
    write_exposure(fetch.exposure, solution(221.0, 51.0, SIDE))
    with standin.failing("HTTP 503"):
        assert fetch(source="auto")["status"] == "error"


@pytest.mark.parametrize(
    "center", [(0.0005, 12.3), (359.9995, -20.0), (77.0, 89.99), (10.0, 89.5), (200.0, 87.95)], ids=str
)
@pytest.mark.parametrize("name", ["ps1", "hips"])
def test_fields_wherever_they_are(tmp_path, monkeypatch, center, name):
    truth = sky(*center)
    with StandIn(Images(truth)) as server:
        fetch = Fetch(tmp_path, server, monkeypatch)
        write_exposure(fetch.exposure, solution(*center, SIDE, rotation=20))
        state = fetch(**SOURCES[name])
        assert (fetch.code, state["status"]) == (0, "ok"), state["reason"]
        found, real, sigma, _ = compared(fetch, truth)
    assert len(found) > 10000
    slope, _ = np.polyfit(real, found, 1)
    assert np.std(found / slope - real) < (0.7 if name == "ps1" else 0.9) * np.median(sigma)
    if name == "ps1":
        assert slope == pytest.approx(1, abs=0.01)


def test_blocks_keep_flux_noise_and_flaws():
    wcs, shape = skycells.geometry("1784.059")
    rng = np.random.default_rng(4)
    ny, nx = 301, 407
    wcs.wcs.crpix = wcs.wcs.crpix - [2000, 2000]
    header = wcs.to_header()
    header["EXPTIME"] = 100.0
    counts, variance = rng.normal(1000, 10, (ny, nx)).astype(np.float32), np.full((ny, nx), 100.0, np.float32)
    bits = np.zeros((ny, nx), np.float32)
    counts[100, 200], bits[50, 60], bits[70, 80], variance[10, 11] = np.nan, 0x20, 0x100, 0
    images = {"image": counts, "mask": bits, "weight": variance}
    images = {role: Image(data, header, 1) for role, data in images.items()}
    piece = reduced(survey_images.PS1, "r", "1784.059", 3, images)
    assert np.median(piece.data) == pytest.approx(90, abs=0.1)
    assert np.median(piece.noise) == pytest.approx(0.3, rel=1e-5)
    one = reduced(survey_images.PS1, "r", "1784.059", 1, images)
    for value, (row, column) in {1: (100, 200), 2: (50, 60), 16: (70, 80)}.items():
        sky_place = one.wcs.all_pix2world(column, row, 0)
        x, y = (int(np.rint(part)) for part in piece.wcs.all_world2pix(*sky_place, 0))
        assert piece.mask[y, x] == value
        assert one.mask[row, column] == value
    assert (piece.mask != 0).sum() == 4
    x, y = np.array(piece.wcs.all_world2pix(*one.wcs.all_pix2world(150, 150, 0), 0))
    block = counts[148:151, 148:151]
    start = [int(np.floor(value)) % 3 for value in wcs.wcs.crpix]
    rows, columns = ((150 - first) // 3 for first in start[::-1])
    assert (rows, columns) == (round(float(y)), round(float(x)))
    block = counts[start[1] + 3 * rows : start[1] + 3 * rows + 3, start[0] + 3 * columns : start[0] + 3 * columns + 3]
    assert piece.data[rows, columns] == pytest.approx(block.sum() / 100, rel=1e-5)
    assert shape[0] > 6000


def test_neighbouring_skycells_are_joined_by_whole_pixels():
    """However many pixels are summed, blocks of all skycells of a projection are parts of one grid."""
    for factor in (1, 2, 3, 5):
        places = []
        for name in ("1784.059", "1784.058", "1784.048"):
            wcs, _ = skycells.geometry(name)
            start = tuple(int(np.floor(value)) % factor for value in wcs.wcs.crpix[::-1])
            places.append(binned(wcs, start, factor).wcs.crpix)
        shift = np.array(places) - places[0]
        np.testing.assert_allclose(shift, np.rint(shift), atol=1e-9)


def test_the_recorded_reply_goes_through_whole(tmp_path, monkeypatch):
    """A rotated solution and holes; the galaxy fills most of it."""
    if not M61.is_file():
        pytest.skip("no recorded reply hips2fits_ps1_g_m61.fits beside the project")
    body, image = M61.read_bytes(), read_image(M61)
    own = WCS(image.header)
    source = replace(
        survey_images.of_hips("ps1", "g", 0.25), name="as recorded", scale=0.72, geometry=lambda name: (own, (500, 500))
    )
    reply = Reply(body, kind="image/fits")
    with StandIn(lambda request: reply if request.path.endswith("hips2fits") else None) as server:
        library = Library(parameters.ArchiveConfig(**archive_config(server, tmp_path)))
        paths, _ = survey_images.pieces(library, source, "g", ["5.1"], 1)
    piece = survey_images.read_piece(paths[0])
    holes = ~np.isfinite(image.data)
    assert holes.any()
    np.testing.assert_array_equal((piece.mask & int(Mask.NONFINITE)) != 0, holes)
    np.testing.assert_allclose(piece.data[~holes], image.data[~holes], rtol=1e-6)
    target = solution(185.4789, 4.4738, 240, 1.1, rotation=-10)
    corners = target.all_pix2world([0, 239, 239, 0], [0, 0, 239, 239], 0)
    wcs, shape = grid(piece.wcs, *corners)
    whole = mosaic([piece], wcs, shape)
    source = TemplateImage(whole.data, whole.mask.astype(np.uint16), wcs)
    result = align(source, Target(target, (240, 240)), parameters.TemplateConfig())
    x, y = own.all_world2pix(*target.all_pix2world(*np.indices((240, 240))[::-1].reshape(2, -1), 0), 0)
    inside = (x > -0.4) & (x < 499.4) & (y > -0.4) & (y < 499.4)
    expected = ndimage.map_coordinates(holes.astype(np.uint8), [y, x], order=0, cval=1).reshape(240, 240) > 0
    absent = (result.mask[PAD:-PAD, PAD:-PAD] & int(Mask.NO_TEMPLATE)) != 0
    assert inside.mean() > 0.98
    assert np.mean(absent == expected) > 0.999
    assert 0.9 < result.coverage < 1
    assert np.isfinite(result.data).all()
    assert np.isfinite(result.noise).all()
    flagged = (result.mask[PAD:-PAD, PAD:-PAD] & int(Mask.TEMPLATE_BAD)) != 0
    assert (flagged | absent)[ndimage.binary_dilation(expected, np.ones((3, 3))) & ~expected].mean() > 0.5


def test_bricks_of_the_north_are_asked_of_the_north(fetch, standin):
    write_exposure(fetch.exposure, solution(200.0, 35.0, SIDE))
    fetch(source="legacy")
    paths = [request.path for request in standin.requests]
    assert "/dr9/north/" in paths[0]
    assert any("survey-bricks-dr9-north" in path for path in paths)
    assert any("/dr10/south/coadd/" in path for path in paths)
    assert bricks.find(200.0, 35.0)[0] in paths[0]
