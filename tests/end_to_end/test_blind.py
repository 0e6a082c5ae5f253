"""Real frames whose headers do not tell their place, through the workflow: hints of the sheet, solve-field."""

import json
import shutil

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from workflows import ROOT, snakemake

from nightsift.io.products import read_wcs
from nightsift.sky import tangent
from nightsift.sky.pixels import grid

DATA = ROOT.parent / "shared" / "data" / "agpeg"
SCALE, SHAPE = 31.7, (1024, 1024)
KEPT = ("DATE-OBS", "EXPTIME", "INSTRUME")
# The solutions in the headers of the first three fit the catalogue all over the frame; most others do not.
FRAMES = {"unknown": "20150608_385", "misled": "20150608_389", "mirrored": "20150701_279", "known": "20150608_381"}
SHEET = """image\tpath\tra\tdec\tradius\tpixscale
unknown\tunknown.fits\t\t\t\t
misled\tmisled.fits\t{misled}\t3\t20-40
mirrored\tmirrored.fits\t{mirrored}\t3\t32
known\tknown.fits\t\t\t\t
"""
CONFIG = """images: images.tsv
catalog: {{path: {data}/catalog.csv}}
template: {{source: none}}
photometry: {{band: VT, color: none}}
"""
pytestmark = [
    pytest.mark.skipif(not DATA.is_dir(), reason="the real campaign ../shared/data/agpeg is not here"),
    pytest.mark.filterwarnings("ignore::astropy.wcs.FITSFixedWarning"),
    pytest.mark.filterwarnings("ignore::astropy.utils.exceptions.AstropyWarning"),
]
needs_program = pytest.mark.skipif(not shutil.which("solve-field"), reason="the program solve-field is not installed")


def frame(name):
    return fits.open(DATA / "images" / f"t_e_{FRAMES[name]}_1_1_1.fits")[0]


def difference(solution, original, flipped=False):
    """Distance, in pixels, of two solutions over the whole frame."""
    pixels = grid(SHAPE, 21, 0.0)
    x = SHAPE[1] - 1 - pixels.real if flipped else pixels.real
    found = solution.all_pix2world(x, pixels.imag, 0)
    return np.abs(tangent.project(*original.all_pix2world(pixels.real, pixels.imag, 0), *found)) * 3600 / SCALE


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The states and solutions of the frames."""
    work = tmp_path_factory.mktemp("blind")
    centers = {}
    for name in FRAMES:
        hdu = frame(name)
        ra, dec = WCS(hdu.header).all_pix2world(511.5, 511.5, 0)
        centers[name] = f"{ra + 1.5:.3f}\t{dec - 1.5:.3f}"
        header = hdu.header.copy()
        header["CRVAL1"] += 40.0 * (name == "misled")
        if name in ("unknown", "mirrored"):
            header = fits.Header([header.cards[key] for key in KEPT])
        data = hdu.data[:, ::-1] if name == "mirrored" else hdu.data
        fits.writeto(work / f"{name}.fits", data.astype(np.float32), header, output_verify="silentfix")
    (work / "images.tsv").write_text(SHEET.format(**centers))
    (work / "config.yaml").write_text(CONFIG.format(data=DATA))
    run = snakemake(work, *(f"results/images/{name}/astrometry.json" for name in FRAMES))
    assert run.code == 0, run.text
    assert run.jobs == {(rule, name) for name in FRAMES for rule in ("inspect", "detect", "catalog", "astrometry")}
    return work / "results" / "images"


def state(results, name, stage="astrometry"):
    return json.loads((results / name / f"{stage}.json").read_text())


@pytest.mark.parametrize("name", ["misled", "mirrored", pytest.param("unknown", marks=needs_program)])
def test_the_solution_of_the_header_is_found_again(results, name):
    facts = state(results, name)
    assert facts["status"] == "ok", facts["reason"]
    assert facts["log_odds"] > 1000
    assert max(facts["rms"]) < 0.1 * SCALE
    original = WCS(frame(name).header)
    assert difference(read_wcs(results / name / "wcs.fits"), original, name == "mirrored").max() < 0.3
    searched = [text for text in facts["warnings"] if "solve-field places the image" in text]
    assert bool(searched) == (name == "unknown")
    assert ("from the position given" in "".join(facts["warnings"])) == (name == "misled")


def test_the_catalogue_is_cut_around_the_hint(results):
    ra, dec = (state(results, "misled", "inspect")[key] for key in ("ra", "dec"))
    facts = state(results, "misled", "catalog")
    assert facts["center"] == [ra, dec]
    # the uncertainty, and one and a half half-diagonals at the largest scale
    assert facts["radius"] == pytest.approx(3 + 1.5 * 512 * np.sqrt(2) * 40 / 3600)


def test_a_header_that_tells_the_place_is_not_searched_for(results):
    facts = state(results, "known")
    assert facts["status"] == "ok"
    assert "solve-field" not in "".join(facts["warnings"])
    assert state(results, "known", "inspect")["wcs"]
