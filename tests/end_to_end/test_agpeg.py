"""The outburst of AG Peg in real frames, through the whole workflow."""

import numpy as np
import pytest
from astropy.table import Table
from scipy import ndimage
from workflows import ROOT, snakemake

from nightsift.io.products import read_images, read_json, read_wcs

DATA = ROOT.parent / "shared" / "data" / "agpeg"
RA, DEC = 327.75823, 12.62559
QUIET = ["20150608_381", "20150608_385", "20150608_389"]
# r' of the night, measured against five comparison stars and good to 0.1; 7.9 in June.
OUTBURST = {
    "20150701_279": 6.7,
    "20150701_281": 6.7,
    "20150701_285": 6.7,
    "20150701_289": 6.7,
    "20150712_414": 6.8,
    "20150720_286": 6.9,
    "20150723_288": 6.9,
    "20150803_295": 7.1,
    "20150825_225": 7.3,
}
JUNE = 7.9
NIGHTS = ("20150701", "20150712", "20150720", "20150723", "20150803", "20150825")
TOLERANCE = 0.15

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the real campaign ../shared/data/agpeg is not here")


def name(frame):
    return f"t_e_{frame}_1_1_1"


@pytest.fixture(scope="session")
def results(tmp_path_factory):
    """The results of the workflow's tables on all frames; not to be changed."""
    work = tmp_path_factory.mktemp("agpeg")
    (work / "agpeg").symlink_to(DATA, target_is_directory=True)
    configuration = ROOT / "config" / "examples" / "agpeg.yaml"
    done = snakemake(work, "--", "tables", config=configuration, OMP_NUM_THREADS="1")
    assert done.code == 0, done.text
    return work / "results"


def candidates(results, frame):
    return Table.read(results / "images" / name(frame) / "candidates.fits")


def truth(results, frame):
    """Return where AG Peg lies in a frame, by the solution found."""
    return read_wcs(results / "images" / name(frame) / "wcs.fits").all_world2pix(RA, DEC, 0)


def the_candidate(results, frame):
    """Return AG Peg among a frame's candidates, and how many have a higher S/N."""
    table = candidates(results, frame)
    x, y = truth(results, frame)
    near = np.flatnonzero(np.hypot(table["x"] - x, table["y"] - y) < 0.5)
    assert len(near) == 1
    return table[near[0]], int(np.sum(np.abs(table["snr"]) > abs(table["snr"][near[0]])))


def the_source(results):
    table = Table.read(results / "campaign" / "sources.ecsv")
    east, north = (table["ra"] - RA) * np.cos(np.radians(DEC)), table["dec"] - DEC
    near = np.hypot(east, north) < 31.7 / 3600
    assert near.sum() == 1
    return table[near][0]


def change(flux, template_flux):
    """Return the change of the magnitude against the template."""
    return -2.5 * np.log10(1 + flux / template_flux)


def test_every_frame_is_calibrated_and_subtracted(results):
    images = Table.read(results / "campaign" / "images.ecsv")
    assert sorted(images["image"]) == sorted(name(frame) for frame in [*QUIET, *OUTBURST])
    assert set(images["status"]) <= {"ok", "degraded"}
    assert np.isfinite(images["zp"]).all()
    # A tenth of a pixel of 31.7 arcsec
    assert (images["astrom_rms"] < 0.1 * 31.7).all()


@pytest.mark.parametrize("frame", [*QUIET, *OUTBURST])
def test_the_significance_of_empty_sky_is_that_of_noise(results, frame):
    folder = results / "images" / name(frame)
    layers = read_images(folder / "difference.fits")[0]
    fwhm, objects = read_json(folder / "detect.json")["fwhm"], Table.read(folder / "objects.fits")
    empty = np.ones(layers["SNR"].shape, bool)
    empty[np.rint(objects["y"]).astype(int), np.rint(objects["x"]).astype(int)] = False
    # What the readout of bright stars smears is no sky either.
    changes = ndimage.binary_dilation(np.abs(layers["SNR"]) > 4, iterations=int(np.ceil(fwhm)))
    sky = (ndimage.distance_transform_edt(empty) > 2 * fwhm) & (layers["MASK"] == 0) & ~changes
    assert sky.mean() > 0.2
    low, middle, high = np.percentile(layers["SNR"][sky], [15.865, 50, 84.135])
    assert abs(middle) <= 0.05
    assert 0.97 <= (high - low) / 2 <= 1.03


@pytest.mark.parametrize("frame", OUTBURST)
def test_the_outburst_is_found(results, frame):
    star, higher = the_candidate(results, frame)
    assert higher < 3
    assert star["is_real"]
    assert star["label"] == "variable"
    assert star["snr"] > 20  # the flux scale is known to some per cent


@pytest.mark.parametrize("frame", OUTBURST)
def test_its_change_of_magnitude_is_right(results, frame):
    star, _ = the_candidate(results, frame)
    assert change(star["flux"], star["template_flux"]) == pytest.approx(OUTBURST[frame] - JUNE, abs=TOLERANCE)


@pytest.mark.parametrize("frame", [*QUIET, *OUTBURST])
def test_few_others_are_found(results, frame):
    assert len(candidates(results, frame)) - (frame in OUTBURST) <= 15


def test_none_are_strung_on_a_column(results):
    """Charge trails off saturated stars, and they bleed: in the difference, bright and dark knots alternate."""
    table = candidates(results, "20150701_279")
    assert not ((np.abs(table["x"] - 881) < 2) & (table["y"] > 440) & (table["y"] < 560)).any()
    assert not ((np.abs(table["x"] - 854) < 2) & (table["y"] > 190) & (table["y"] < 280)).any()


@pytest.mark.parametrize("frame", QUIET)
def test_it_is_no_candidate_before_the_outburst(results, frame):
    table = candidates(results, frame)
    x, y = truth(results, frame)
    assert (np.hypot(table["x"] - x, table["y"] - y) > 3).all()


@pytest.mark.parametrize("frame", OUTBURST)
def test_the_outburst_is_brighter_than_the_catalogue(results, frame):
    table = Table.read(results / "images" / name(frame) / "uncatalogued.fits")
    x, y = truth(results, frame)
    near = np.hypot(table["x"] - x, table["y"] - y) < 1
    assert near.sum() == 1
    assert table["label"][near][0] == "brighter"
    assert len(table) <= 8


def test_one_source_holds_the_outburst(results):
    source = the_source(results)
    assert source["n_detections"] >= len(OUTBURST)
    assert source["n_images"] == len(OUTBURST) + len(QUIET)
    assert source["first_mjd"] == pytest.approx(57205.03, abs=0.01)
    assert source["last_mjd"] == pytest.approx(57259.97, abs=0.01)
    near = Table.read(results / "campaign" / "candidates.ecsv")
    near = near[near["source"] == source["source"]]
    assert sorted(near["image"]) == sorted(name(frame) for frame in OUTBURST)


def test_its_light_curve_has_the_shape_of_the_outburst(results):
    table = Table.read(results / "campaign" / "lightcurves.ecsv")
    table = table[table["source"] == the_source(results)["source"]]
    rows = {row["image"]: row for row in table}
    assert len(rows) == len(table) == len(OUTBURST) + len(QUIET)
    for frame in OUTBURST:
        assert rows[name(frame)]["kind"] == "detected"
    total = {frame: rows[name(frame)]["mag_total"] for frame in [*QUIET, *OUTBURST]}
    quiet = np.mean([total[frame] for frame in QUIET])
    for frame in QUIET:
        assert rows[name(frame)]["kind"] == "forced"
        assert total[frame] == pytest.approx(quiet, abs=0.1)
        reference = the_candidate(results, "20150712_414")[0]["template_flux"]
        assert abs(rows[name(frame)]["flux"]) < 0.1 * reference
    for frame, magnitude in OUTBURST.items():
        assert total[frame] - quiet == pytest.approx(magnitude - JUNE, abs=TOLERANCE)
    # Bright in the beginning of July, and fading ever since
    nights = [[total[frame] for frame in OUTBURST if frame.startswith(night)] for night in NIGHTS]
    means = [np.mean(night) for night in nights]
    assert (np.diff(means) > 0).all()
