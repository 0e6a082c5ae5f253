"""Mosaics against the sky that their pieces were cut from."""

import numpy as np
import pytest
from astropy.wcs import WCS
from scipy import ndimage

from nightsift import parameters
from nightsift.errors import Rejected
from nightsift.flags import Mask
from nightsift.image.moffat import MoffatPsf
from nightsift.image.padding import PAD
from nightsift.simulate.pixels import render_points
from nightsift.template.alignment import Target, TemplateImage, align
from nightsift.template.mosaic import Piece, grid, mosaic

SCALE = 1.0
NOISE = 3.0
NOTHING = int(Mask.NONFINITE)


def solution(ra, dec, center, rotation=0.0, scale=SCALE):
    wcs, turn = WCS(naxis=2), np.radians(rotation)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], (ra, dec), np.array(center) + 1
    wcs.wcs.cd = scale / 3600 * np.array([[-np.cos(turn), np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    wcs.wcs.lonpole = 180
    wcs.wcs.set()
    return wcs


def stars(ra, dec, radius, count, seed=1):
    """Return positions in a square around a place [deg], on the tangent plane, and fluxes."""
    rng = np.random.default_rng(seed)
    ra, dec = solution(ra, dec, (0, 0)).all_pix2world(*(rng.uniform(-1, 1, (2, count)) * radius / SCALE), 0)
    return ra, dec, 10 ** rng.uniform(3, 5, count)


def piece(wcs, shape, sky, seed, level=0.0, noise=NOISE):
    """Return what a survey makes of the sky: stars, noise of its own, a level."""
    ra, dec, flux = sky
    x, y = wcs.all_world2pix(ra, dec, 0, quiet=True)
    near = (x > -20) & (y > -20) & (x < shape[1] + 20) & (y < shape[0] + 20)
    data = np.zeros(shape)
    psf = MoffatPsf(fwhm=3.0, beta=4.0, e1=0.0, e2=0.0, scale=(0.0, 0.0, 0.0), twist=(0.0, 0.0))
    render_points(data, x[near], y[near], flux[near], psf, faintest=1e-2)
    data += level + np.random.default_rng(seed).normal(0, noise, shape)
    return Piece(data.astype(np.float32), np.full(shape, noise, np.float32), np.zeros(shape, np.uint8), wcs)


def side_by_side(ra=150.0, dec=20.0, rotation=0.0, second=None, levels=(0.0, 0.0)):
    """Return two pieces of one sky, 60 pixels of which they share, and the grid of both."""
    sky = stars(ra, dec, 320, 150)
    shape = (200, 180)
    first = solution(ra, dec, (150, 100))
    # The same plane, 120 pixels further on; or a plane of its own there.
    other = solution(ra, dec, (30, 100))
    if second is not None:
        there = other.all_pix2world(89.5, 99.5, 0)
        other = solution(*there, (89.5, 99.5), rotation)
    pieces = [piece(wcs, shape, sky, k, levels[k]) for k, wcs in enumerate((first, other))]
    wcs = solution(ra, dec, (150, 100))
    return sky, pieces, wcs, (200, 300)


def boxes(data, x, y, half=5):
    return np.array(
        [
            data[int(b) - half : int(b) + half + 1, int(a) - half : int(a) + half + 1].sum()
            for a, b in zip(x, y, strict=True)
        ]
    )


def test_pieces_of_one_plane_are_joined_without_a_change():
    _, pieces, wcs, shape = side_by_side()
    result = mosaic(pieces, wcs, shape)
    np.testing.assert_array_equal(result.data[:, :149], pieces[0].data[:, :149])
    right = (result.data[:, 151:] - pieces[1].data[:, 31:])[40:160]
    assert np.ptp(right) < 1e-3, "but for a level"
    assert not result.mask.any()
    np.testing.assert_array_equal(result.noise, np.float32(NOISE))


@pytest.mark.parametrize("levels", [(0.0, 0.0), (5.0, -20.0), (0.0, 300.0)])
@pytest.mark.parametrize("rotation", [None, 0.0, 3.0])
def test_levels_are_brought_together(levels, rotation):
    second = None if rotation is None else True
    _, pieces, wcs, shape = side_by_side(rotation=rotation or 0.0, second=second, levels=levels)
    result = mosaic(pieces, wcs, shape)
    assert result.offsets[1] == pytest.approx(levels[0] - levels[1], abs=0.3)
    known = (result.mask & NOTHING) == 0
    parts = [result.data[:, cut][known[:, cut]] for cut in (np.s_[:140], np.s_[160:])]
    assert np.median(parts[0]) - np.median(parts[1]) == pytest.approx(0, abs=0.5)


@pytest.mark.parametrize(
    "center", [(150.0, 20.0), (0.0, 0.0), (359.9999, -45.0), (77.0, 90.0), (10.0, -89.99)], ids=str
)
@pytest.mark.parametrize("rotation", [0.0, 40.0])
def test_stars_keep_place_and_flux(center, rotation):
    sky, pieces, wcs, shape = side_by_side(*center, rotation=rotation, second=True)
    result = mosaic(pieces, wcs, shape)
    truth = piece(wcs, shape, sky, 9, noise=1e-3)
    whole = ndimage.binary_erosion((result.mask & NOTHING) == 0, iterations=3)
    assert whole.mean() > 0.7
    assert whole[80:120, 200:250].all(), "from the second piece"
    difference = np.where(whole, result.data - truth.data, 0)
    strong = truth.data > 50
    assert np.abs(difference[whole & ~ndimage.binary_dilation(strong, iterations=4)]).max() < 6 * NOISE
    x, y = wcs.all_world2pix(sky[0], sky[1], 0)
    use = (x > 10) & (x < shape[1] - 10) & (y > 10) & (y < shape[0] - 10)
    use[use] = [
        whole[int(b) - 6 : int(b) + 7, int(a) - 6 : int(a) + 7].all() for a, b in zip(x[use], y[use], strict=True)
    ]
    assert use.sum() >= 10
    ratio = boxes(result.data, x[use], y[use]).sum() / boxes(truth.data, x[use], y[use]).sum()
    assert ratio == pytest.approx(1, abs=0.003)


@pytest.mark.parametrize("second", [None, True])
@pytest.mark.parametrize("bit", [Mask.USER, Mask.SATURATED, Mask.NONFINITE])
def test_what_is_wrong_with_one_piece_stays_there(second, bit):
    _, clean, wcs, shape = side_by_side(second=second)
    _, spoilt, _, _ = side_by_side(second=second)
    reference = mosaic(clean, wcs, shape)
    # In the part that both have, though nearer to the middle of the spoilt one; and where it is alone.
    for rows, columns in ((np.s_[90:100], np.s_[40:50]), (np.s_[50:60], np.s_[130:140])):
        spoilt[1].data[rows, columns] = 1e6 if bit != Mask.NONFINITE else 0
        spoilt[1].mask[rows, columns] |= int(bit)
    result = mosaic(spoilt, wcs, shape)
    shared, alone = np.s_[86:104, 156:174], np.s_[51:59, 251:259]
    assert not (result.mask[shared] & (int(bit) | NOTHING)).any(), "the other one is good there"
    assert np.abs(result.data[shared] - reference.data[shared]).max() < 8 * NOISE
    assert ((result.mask[alone] & int(bit)) != 0).all()
    bad = ndimage.binary_dilation(result.mask != 0, iterations=1)
    if bit == Mask.SATURATED:
        # Cores are kept in the interpolation: what they spill falls off as in the template stage.
        bad = ndimage.binary_dilation(bad, iterations=8)
    assert np.abs((result.data - reference.data)[~bad]).max() < 8 * NOISE


def test_noise_comes_along():
    _, pieces, wcs, shape = side_by_side(rotation=20, second=True)
    noisy = Piece(pieces[1].data, pieces[1].noise * 2, pieces[1].mask, pieces[1].wcs)
    result = mosaic([pieces[0], noisy], wcs, shape)
    assert np.median(result.noise[80:120, :100]) == NOISE
    assert np.median(result.noise[80:120, 200:250]) == pytest.approx(2 * NOISE, rel=1e-3)
    assert mosaic([pieces[0], Piece(noisy.data, None, noisy.mask, noisy.wcs)], wcs, shape).noise is None


def test_the_grid_holds_the_field():
    reference = solution(0.0, 30.0, (100, 100))
    x, y = np.meshgrid(np.linspace(-400.5, 333, 5), np.linspace(-20, 900, 5))
    ra, dec = reference.all_pix2world(x.ravel(), y.ravel(), 0)
    wcs, (ny, nx) = grid(reference, ra % 360, dec)
    inside = np.array(wcs.all_world2pix(ra, dec, 0))
    assert inside.min() >= 8 - 1e-6
    assert inside[0].max() <= nx - 9 + 1e-6
    assert inside[1].max() <= ny - 9 + 1e-6
    assert nx < 734 + 20
    assert (np.mod(wcs.wcs.crpix - reference.wcs.crpix, 1) == 0).all()
    with pytest.raises(Rejected, match="too wide"):
        grid(reference, np.array([0.0, 180.0]), np.array([30.0, -30.0]))


def test_a_piece_beside_the_field_does_no_harm():
    _, pieces, wcs, shape = side_by_side()
    far = Piece(pieces[0].data, pieces[0].noise, pieces[0].mask, solution(150.0, 21.0, (0, 0)))
    other = Piece(pieces[0].data, pieces[0].noise, pieces[0].mask, solution(150.7, 21.0, (0, 0), 30))
    np.testing.assert_array_equal(mosaic([*pieces, far, other], wcs, shape).data, mosaic(pieces, wcs, shape).data)
    empty = mosaic([far], wcs, shape)
    assert ((empty.mask & NOTHING) != 0).all()


def test_a_template_with_noise_of_its_own():
    _, pieces, *_ = side_by_side()
    noise = pieces[0].noise * np.linspace(1, 3, pieces[0].data.shape[1], dtype=np.float32)
    mask = np.zeros(pieces[0].data.shape, np.uint16)
    image = (120, 100)
    own = solution(150.0, 20.0, (120, 70))
    expected = noise[30:150, 30:130].copy()
    mask[50, 60], noise[50, 60] = int(Mask.USER), 1e9
    result = align(
        TemplateImage(pieces[0].data, mask, pieces[0].wcs, noise), Target(own, image), parameters.TemplateConfig()
    )
    found = result.noise[PAD:-PAD, PAD:-PAD]
    wrong = np.argwhere(np.abs(found / expected - 1) > 1e-3)
    assert len(wrong) <= 9
    assert np.abs(wrong - [20, 30]).max() <= 1
    assert result.noise.max() < 4 * NOISE
    assert result.warnings == ()
