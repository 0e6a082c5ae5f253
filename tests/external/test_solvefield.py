"""The program solve-field: places found where it is installed, and every way in which it may fail."""

import importlib.util
import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from nightsift.errors import Rejected
from nightsift.external.solve_field import PROGRAM, FieldSearch, run_package, run_solve_field
from nightsift.flags import Mask
from nightsift.inspect import blind
from nightsift.sky.tangent import project

SHAPE = (200, 300)
X, Y, FLUX = [10.0, 20.25], [30.0, 40.0], [5.0, 9.0]
SEARCH = FieldSearch(30.0)
WCS_CARDS = {
    **{"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 10.0, "CRVAL2": -80.0, "CRPIX1": 150.5, "CRPIX2": 100.5},
    **{"CD1_1": 0.0, "CD1_2": 1e-3, "CD2_1": 1e-3, "CD2_2": 0.0, "EQUINOX": 2000.0, "IMAGEW": 300, "IMAGEH": 200},
}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("sleep 60 & sleep 60", "did not end within 0.75 s"),
        ("echo first; echo 'cannot do it' >&2; exit 1", "failed with status 1: cannot do it"),
        ("exit 3", "failed with status 3: without a word"),
        ("kill -SEGV $$", "failed with signal 11"),
        ("echo 'Did not solve.'", "found no solution; it said: Did not solve"),
        ("echo rubbish > stars.wcs", "no readable solution"),
        ("head -c 2880 stars.xyls > stars.wcs", "a solution that cannot be used: no WCS"),
    ],
)
def test_every_failure_of_the_program_is_a_rejection_with_its_reason(fake, lines, message):
    fake(PROGRAM, lines)
    start = time.monotonic()
    with pytest.raises(Rejected, match=message):
        run_solve_field(X, Y, FLUX, SHAPE, FieldSearch(0.5 if "sleep" in lines else 30.0))
    assert time.monotonic() - start < 20


def test_the_program_gets_the_stars_counted_from_1_and_the_limits(fake, tmp_path):
    solution = tmp_path / "solution.wcs"
    fits.PrimaryHDU(header=fits.Header(WCS_CARDS)).writeto(solution)
    fake(
        PROGRAM,
        f'cp stars.xyls indexes.cfg {tmp_path}; echo "$@" > {tmp_path}/arguments; cp {solution} stars.wcs',
    )
    search = FieldSearch(12.0, (0.5, 2.0), (10.0, -80.0, 3.0), str(tmp_path))
    found = WCS(run_solve_field(X, Y, FLUX, SHAPE, search))
    assert found.wcs.crval == pytest.approx([10.0, -80.0])
    np.testing.assert_allclose(found.wcs.cd, [[0, 1e-3], [1e-3, 0]])
    table = fits.getdata(tmp_path / "stars.xyls")
    np.testing.assert_allclose([table["X"], table["Y"], table["FLUX"]], [[11, 21.25], [31, 41], FLUX])
    arguments = (tmp_path / "arguments").read_text()
    for part in (
        *("--width 300 --height 200", "--cpulimit 12", "--scale-units arcsecperpix --scale-low 0.5 --scale-high 2"),
        *("--ra 10.000000 --dec -80.000000 --radius 3.000000", "--config indexes.cfg"),
    ):
        assert part in arguments
    assert (tmp_path / "indexes.cfg").read_text() == f"cpulimit 12\nadd_path {tmp_path}\nautoindex\n"


def test_what_is_missing_is_named(tmp_path, monkeypatch, fake):
    fake(PROGRAM, "exit 0")
    with pytest.raises(Rejected, match="no star"):
        run_solve_field([], [], [], SHAPE, SEARCH)
    with pytest.raises(Rejected, match="the folder of index files '/nowhere' does not exist"):
        run_solve_field(X, Y, FLUX, SHAPE, FieldSearch(30.0, indexes="/nowhere"))
    (tmp_path / "solve-field").write_bytes(b"\x00\x01\x02")
    with pytest.raises(Rejected, match="cannot be run"):
        run_solve_field(X, Y, FLUX, SHAPE, SEARCH)
    (tmp_path / "solve-field").unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Rejected, match="'solve-field' is not on the PATH"):
        run_solve_field(X, Y, FLUX, SHAPE, SEARCH)


@pytest.mark.skipif(not shutil.which("solve-field"), reason="the program solve-field is not installed")
def test_stars_of_no_sky_are_not_placed():
    rng = np.random.default_rng(1)
    with pytest.raises(Rejected, match=r"solve-field (found no solution|failed|did not end)"):
        run_solve_field(*rng.uniform(0, 200, (2, 40)), rng.random(40), SHAPE, FieldSearch(2.0, (100.0, 110.0)))


PACKAGE = """
import json, time
from types import SimpleNamespace as Made
Action = Made(STOP=0)
SizeHint = PositionHint = lambda *values: values
SolutionParameters = lambda **options: Made(**options)
class Solver:
    def __init__(self, indexes): self.indexes = indexes
    def __enter__(self): return self
    def __exit__(self, *error): pass
    def solve(self, stars, size_hint, position_hint, solution_parameters):
        slices = solution_parameters.slices_generator(len(stars))
        asked = [[path.name for path in self.indexes], stars.tolist(), size_hint, position_hint, slices]
        open({asked!r}, "w").write(json.dumps(asked))
        {lines}
"""
SOLVED = "return Made(has_match=lambda: True, best_match=lambda: Made(wcs_fields={cards}))"


@pytest.fixture
def fake_package(tmp_path, monkeypatch):
    """Put a package of that name on Python's path whose solver does what the given line says."""
    (tmp_path / "index-b.fits").touch()
    (tmp_path / "index-a.fits").touch()

    def put(lines):
        (tmp_path / "astrometry.py").write_text(PACKAGE.format(asked=str(tmp_path / "asked.json"), lines=lines))
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    return put


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("time.sleep(60)", "astrometry did not end within 3 s"),
        ("while True: pass", r"astrometry did not end within (its limit of processor time|3 s)"),
        ("raise ValueError('cannot do it')", "astrometry failed with status 1: ValueError: cannot do it"),
        ("return Made(has_match=lambda: False)", "astrometry found no solution; it said: no quad of stars"),
        (SOLVED.format(cards={"CTYPE1": ("", "")}), "astrometry left a solution that cannot be used"),
    ],
)
def test_every_failure_of_the_package_is_a_rejection_with_its_reason(fake_package, tmp_path, lines, message):
    fake_package(lines)
    with pytest.raises(Rejected, match=message):
        run_package(X, Y, FLUX, SHAPE, FieldSearch(2.0, indexes=str(tmp_path)))


def test_the_package_gets_the_stars_counted_from_1_and_the_limits(fake_package, tmp_path):
    cards = {key: (value, "") for key, value in WCS_CARDS.items()} | {"CTYPE1": ("RA---TAN-SIP", "")}
    fake_package(SOLVED.format(cards=cards))
    search = FieldSearch(12.0, (0.5, 2.0), (-10.0, -80.0, 3.0), str(tmp_path))
    found = WCS(run_package(X, Y, FLUX, SHAPE, search))
    assert found.wcs.crval == pytest.approx([10.0, -80.0])
    assert list(found.wcs.ctype) == ["RA---TAN", "DEC--TAN"]
    asked = json.loads((tmp_path / "asked.json").read_text())
    assert asked[0] == ["index-a.fits", "index-b.fits"]
    assert asked[1:] == [[[21.25, 41.0], [11.0, 31.0]], [0.5, 2.0], [350.0, -80.0, 3.0], [[0, 2]]]


def test_what_the_package_lacks_is_named(tmp_path, monkeypatch):
    with pytest.raises(Rejected, match="needs a folder of index files"):
        run_package(X, Y, FLUX, SHAPE, SEARCH)
    with pytest.raises(Rejected, match="'/nowhere' does not exist"):
        run_package(X, Y, FLUX, SHAPE, FieldSearch(30.0, indexes="/nowhere"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    for other in ("raise ModuleNotFoundError(name='astrometry')", "util = None"):
        (tmp_path / "astrometry.py").write_text(other)
        with pytest.raises(Rejected, match="the Python package 'astrometry' is not installed"):
            run_package(X, Y, FLUX, SHAPE, FieldSearch(30.0, indexes=str(tmp_path)))


INDEXES = Path("/usr/share/astrometry")
FRAMES = Path(__file__).parents[3] / "shared/data/agpeg/images"


SOLVERS = [
    pytest.param(
        run_package,
        marks=pytest.mark.skipif(
            not importlib.util.find_spec("astrometry"),
            reason="the Python package astrometry is not installed",
        ),
    ),
    pytest.param(
        run_solve_field,
        marks=pytest.mark.skipif(not shutil.which("solve-field"), reason="the program solve-field is not installed"),
    ),
]


@pytest.mark.parametrize("solve", SOLVERS)
@pytest.mark.skipif(not list(INDEXES.glob("index-tycho2*")), reason="no index files of astrometry-data-tycho2")
@pytest.mark.skipif(not FRAMES.is_dir(), reason="the real campaign ../shared/data/agpeg is not here")
@pytest.mark.filterwarnings("ignore::astropy.utils.exceptions.AstropyWarning")
def test_a_real_frame_is_found_mirrored_or_not(solve):
    for mirrored in (False, True):
        hdu = fits.open(FRAMES / "t_e_20150608_385_1_1_1.fits")[0]
        data, true = hdu.data.astype(np.float32), WCS(hdu.header)
        x, y, flux = blind.brightest(data[:, ::-1] if mirrored else data, np.zeros(data.shape, np.uint16))
        found = WCS(solve(x, y, flux, data.shape, FieldSearch(60.0, indexes=str(INDEXES))))
        at = np.array([[512.0, 300.0, 700.0], [512.0, 700.0, 300.0]])
        places = found.wcs_pix2world(1023 - at[0] if mirrored else at[0], at[1], 0)
        off = np.abs(project(*places, *true.all_pix2world(*at, 0))) * 3600 / 31.5
        assert off.max() < 10


def test_the_brightest_stars_are_found_saturated_or_not():
    rng = np.random.default_rng(1)
    data = rng.normal(100, 3, (300, 400)).astype(np.float32)
    mask = np.zeros(data.shape, np.uint16)
    x, y, flux = rng.uniform(15, 385, 30), rng.uniform(15, 285, 30), np.geomspace(1e5, 3e3, 30)
    rows, columns = np.mgrid[:300, :400]
    for star in zip(x, y, flux, strict=True):
        data += star[2] / 18 * np.exp(-((columns - star[0]) ** 2 + (rows - star[1]) ** 2) / (2 * 1.7**2))
    mask[data > 4000] = int(Mask.SATURATED)
    data = np.minimum(data, 4000)
    mask[:, 200:204], data[:, 200:204] = int(Mask.BADLINE), np.nan
    found_x, found_y, found_flux = blind.brightest(data, mask)
    assert (np.diff(found_flux) <= 0).all()
    free = np.abs(x - 202) > 8
    nearest = np.hypot(found_x[:, None] - x, found_y[:, None] - y).min(axis=0)
    assert (nearest[free] < 0.5).mean() > 0.9
    assert len(found_x) <= 31


def test_a_header_of_another_field_than_the_hint_is_not_used():
    cards = fits.Header(WCS_CARDS)
    assert blind.contradiction(cards, SHAPE, 10.0, -79.0, 0.9) is None
    assert blind.contradiction(cards, SHAPE, 10.0, -79.0, None) is None
    assert "points 2.00 deg from the position given" in blind.contradiction(cards, SHAPE, 10.0, -78.0, 1.5)
    assert "far" in blind.contradiction(cards, SHAPE, 10.0, 80.0, 1.5)


def test_scales_from_a_number_or_a_range():
    assert blind.scale_range(None) is None
    assert blind.scale_range(3.0) == (1.5, 6.0)
    assert blind.scale_range([0.3, 0.5]) == (0.3, 0.5)
