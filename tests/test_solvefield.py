"""The program solve-field: places found where it is installed, and every way in which it may fail."""

import shutil
import time

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from nightsift import locate
from nightsift.errors import Rejected
from nightsift.io.solvefield import PROGRAM, Search, run_solve_field
from nightsift.planes import Mask

SHAPE = (200, 300)
X, Y, FLUX = [10.0, 20.25], [30.0, 40.0], [5.0, 9.0]
SEARCH = Search(30.0)
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
        run_solve_field(X, Y, FLUX, SHAPE, Search(0.5 if "sleep" in lines else 30.0))
    assert time.monotonic() - start < 20


def test_the_program_gets_the_stars_counted_from_1_and_the_limits(fake, tmp_path):
    solution = tmp_path / "solution.wcs"
    fits.PrimaryHDU(header=fits.Header(WCS_CARDS)).writeto(solution)
    fake(PROGRAM, f'cp stars.xyls {tmp_path}; echo "$@" > {tmp_path}/arguments; cp {solution} stars.wcs')
    search = Search(12.0, (0.5, 2.0), (10.0, -80.0, 3.0), str(tmp_path))
    found = WCS(run_solve_field(X, Y, FLUX, SHAPE, search))
    assert found.wcs.crval == pytest.approx([10.0, -80.0])
    np.testing.assert_allclose(found.wcs.cd, [[0, 1e-3], [1e-3, 0]])
    table = fits.getdata(tmp_path / "stars.xyls")
    np.testing.assert_allclose([table["X"], table["Y"], table["FLUX"]], [[11, 21.25], [31, 41], FLUX])
    arguments = (tmp_path / "arguments").read_text()
    for part in (
        *("--width 300 --height 200", "--cpulimit 12", "--scale-units arcsecperpix --scale-low 0.5 --scale-high 2"),
        *("--ra 10.000000 --dec -80.000000 --radius 3.000000", f"--index-dir {tmp_path}"),
    ):
        assert part in arguments


def test_what_is_missing_is_named(tmp_path, monkeypatch, fake):
    fake(PROGRAM, "exit 0")
    with pytest.raises(Rejected, match="no star"):
        run_solve_field([], [], [], SHAPE, SEARCH)
    with pytest.raises(Rejected, match="the folder of index files '/nowhere' does not exist"):
        run_solve_field(X, Y, FLUX, SHAPE, Search(30.0, indexes="/nowhere"))
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
        run_solve_field(*rng.uniform(0, 200, (2, 40)), rng.random(40), SHAPE, Search(2.0, (100.0, 110.0)))


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
    found_x, found_y, found_flux = locate.brightest(data, mask)
    assert (np.diff(found_flux) <= 0).all()
    free = np.abs(x - 202) > 8
    nearest = np.hypot(found_x[:, None] - x, found_y[:, None] - y).min(axis=0)
    assert (nearest[free] < 0.5).mean() > 0.9
    assert len(found_x) <= 31


def test_a_header_of_another_field_than_the_hint_is_not_used():
    cards = fits.Header(WCS_CARDS)
    assert locate.contradiction(cards, SHAPE, 10.0, -79.0, 0.9) is None
    assert locate.contradiction(cards, SHAPE, 10.0, -79.0, None) is None
    assert "points 2.00 deg from the position given" in locate.contradiction(cards, SHAPE, 10.0, -78.0, 1.5)
    assert "far" in locate.contradiction(cards, SHAPE, 10.0, 80.0, 1.5)


def test_scales_from_a_number_or_a_range():
    assert locate.scale_range(None) is None
    assert locate.scale_range(3.0) == (1.5, 6.0)
    assert locate.scale_range([0.3, 0.5]) == (0.3, 0.5)
