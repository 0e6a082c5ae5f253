"""What can be measured of a point source in a difference: its flux, and what its surroundings say about it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy.table import Table
from scipy import ndimage
from scipy.spatial import cKDTree

from nightsift.flags import Flag
from nightsift.image.seeing import SAMPLED
from nightsift.image.stamps import stamps
from nightsift.psf.forced import fitted, flux_error, forced
from nightsift.psf.model import Psf
from nightsift.statistics import FWHM_PER_SIGMA
from nightsift.subtract.difference import Search

SHIFT = 0.3  # pixels: by how much image and template may be displaced where the solution is good
PLAIN = ("x", "y", "flux", "fluxerr", "bgerr", "snr", "fwhm", "chi2", "masked", "sharpness", "sharpness_err", "trail")
SHAPE = ("elongation", "block")
BLOCKS = ((1, 1), (1, 2), (1, 3), (1, 5), (1, 7), (2, 2), (2, 3), (3, 3))  # pixels, and the other way round
SIGNS = ("pedestal", "negative", "dipole", "dipole_separation", "dipole_angle", "dipole_ratio", "shifted", "cosmic")
PLACE = ("around", "template_flux", "template_distance", "expected", "neighbour", "beside")


def measure(search: Search, x, y, bad: np.ndarray, saturated=None) -> Table:
    """Measure point sources at peaks of a difference.

    Parameters
    ----------
    search : Search
    x, y : 1-D arrays
        Positions of the peaks, pixels.
    bad : 2-D bool array
        Pixels without weight.
    saturated : Table, optional
        ``x, y, flux`` of the image's saturated objects.

    Returns
    -------
    Table
        Positions, fluxes and the measures of schema ``candidates`` (`nightsift.tables`), in pixels and ADU. The
        measures count in the sense of the source: what has faded looks like what has brightened.
    """
    psf = search.psf
    if not len(x):
        table = Table({name: np.zeros(0) for name in (*PLAIN, *SHAPE, *SIGNS, *PLACE)})
        table["flags"] = np.zeros(0, int)
        return table
    sigma = np.hypot(search.sigma, search.quality.mismatch * np.maximum(search.model, 0))
    fit, px, py = fitted(search.difference, sigma, bad, psf, x, y)
    plain = forced(search.difference, search.sigma, bad, psf, px, py)
    template = forced(search.model, search.sigma, np.zeros_like(bad), psf, px, py)
    bgerr = plain.fluxerr * search.quality.noise_correlation
    here = stamps(search.sigma, np.rint(px), np.rint(py), 0, 1.0)[:, 0, 0]
    expected = search.quality.residual * np.abs(np.nan_to_num(template.flux))
    fluxerr = flux_error(psf, plain.flux, bgerr, here, search.gain, search.quality.flux_scale_err, expected)
    table = Table({"x": px, "y": py, "flux": plain.flux, "fluxerr": fluxerr, "bgerr": bgerr})
    table["snr"] = plain.flux / fluxerr
    table["chi2"] = fit.chi2
    cut = _Cut.of(search, sigma, bad, px, py, fit.flux)
    table["masked"] = np.sum(cut.profile * cut.hidden, axis=(1, 2)) / np.sum(cut.profile, axis=(1, 2))
    table["sharpness"], table["sharpness_err"] = _sharpness(cut, fit.flux)
    smooth = ndimage.gaussian_filter(np.where(search.mask != 0, 0, search.difference), psf.fwhm / FWHM_PER_SIGMA)
    table["trail"] = _trail(smooth, px, py, fit.flux, psf.fwhm, cut.profile.max(axis=(1, 2)))
    table["pedestal"], table["around"] = _surroundings(search, px, py, fit.flux)
    table["negative"] = _negative(cut, np.hypot(cut.du, cut.dv) <= 1.5 * psf.fwhm)
    for name, values in _dipole(search, cut, px, py).items():
        table[name] = values
    table["shifted"] = _shifted(search, cut, px, py)
    table["cosmic"] = _cosmic(cut)
    table["block"] = _block(cut)
    table["elongation"] = _elongation(cut, psf.fwhm)
    table["fwhm"] = _moment_width(cut, psf.fwhm)
    table["template_flux"] = template.flux
    table["template_distance"] = _template_distance(search, px, py)
    table["expected"] = expected
    table["neighbour"] = _neighbour(search, px, py)
    table["beside"] = _beside(px, py, saturated, psf.fwhm)
    table["flags"] = np.where(np.isfinite(fit.flux), 0, int(Flag.PSF_FAILED))
    return table


def without_fit_bias(flux, fluxerr) -> np.ndarray:
    """Take from fluxes at fitted positions what they gain as these follow the noise.

    At the maximum of the likelihood over x and y, flux^2 / sigma^2 is larger than at the true place by chi2 of 2
    degrees of freedom. At the true place its mean is F^2 / sigma^2 + 1, so that <flux^2> = F^2 + 3 sigma^2; with the
    variance sigma^2 the mean is F + sigma^2 / F to first order. Below 2 sigma, where that fails, half the flux is left.
    """
    flux, fluxerr = np.asarray(flux, float), np.asarray(fluxerr, float)
    with np.errstate(divide="ignore", invalid="ignore"):
        return flux * (1 - 1 / np.maximum((flux / fluxerr) ** 2, 2.0))


@dataclass(frozen=True)
class _Cut:
    """Stamps around the positions: difference in the sense of the source, its sigma, hidden pixels, PSF, offsets."""

    signed: np.ndarray
    sigma: np.ndarray
    hidden: np.ndarray
    profile: np.ndarray
    du: np.ndarray
    dv: np.ndarray
    sign: np.ndarray

    @classmethod
    def of(cls, search: Search, sigma, bad, x, y, flux) -> _Cut:
        psf = search.psf
        half = int(np.ceil(1.5 * psf.fwhm))
        column, row = np.rint(x).astype(int), np.rint(y).astype(int)
        v, u = np.mgrid[-half : half + 1, -half : half + 1].astype(float)
        du, dv = u + (column - x)[:, None, None], v + (row - y)[:, None, None]
        sign = np.where(np.nan_to_num(flux) < 0, -1.0, 1.0)
        return cls(
            signed=stamps(search.difference, column, row, half) * sign[:, None, None],
            sigma=stamps(sigma, column, row, half, 1.0),
            hidden=stamps(bad, column, row, half, True),
            profile=_profile(psf, du, dv, x, y),
            du=du,
            dv=dv,
            sign=sign,
        )

    @property
    def weight(self) -> np.ndarray:
        return np.where(self.hidden, 0, 1 / self.sigma**2)


def _profile(psf: Psf, du, dv, x, y):
    flat = (len(du), -1)
    return psf.at(du.reshape(flat), dv.reshape(flat), x, y).reshape(du.shape)


def _solved(columns, cut: _Cut, prior=None):
    """Weighted least squares of the stamps in the `columns`: solution (n, k) and the chi2 that it explains."""
    matrix = np.stack(columns, axis=-1).reshape(len(cut.signed), -1, len(columns))
    weight = cut.weight.reshape(len(matrix), -1)
    scaled = matrix * weight[..., None]
    normal = np.matmul(np.swapaxes(scaled, 1, 2), matrix)
    unit = np.einsum("nii->ni", normal)
    if prior is not None:
        normal = normal + np.eye(len(columns)) / np.square(prior)
    normal = normal + np.eye(len(columns)) * (1e-6 * unit + 1e-30)[:, None, :]
    right = np.einsum("npk,np->nk", scaled, cut.signed.reshape(len(matrix), -1))
    solution = np.linalg.solve(normal, right[..., None])[..., 0]
    return solution, np.sum(solution * right, axis=1)


def _sharpness(cut: _Cut, flux):
    """Flux of the central 3 x 3 pixels above that of the ring around it, relative to the PSF's; and its error."""
    hidden, middle = cut.hidden, cut.signed.shape[1] // 2
    square = np.zeros(cut.signed.shape[1:], bool)
    square[middle - 1 : middle + 2, middle - 1 : middle + 2] = True
    ring = np.zeros_like(square)
    ring[middle - 2 : middle + 3, middle - 2 : middle + 3] = True
    ring &= ~square

    def contrast(image):
        inner = np.sum(image * (square & ~hidden), axis=(1, 2)) / np.maximum(np.sum(square & ~hidden, axis=(1, 2)), 1)
        outer = np.sum(image * (ring & ~hidden), axis=(1, 2)) / np.maximum(np.sum(ring & ~hidden, axis=(1, 2)), 1)
        return inner - outer

    expected = contrast(cut.profile * np.abs(flux)[:, None, None])
    expected = np.where(np.abs(expected) > 0, expected, np.nan)
    error = cut.sigma[:, middle, middle] * np.sqrt(1 / square.sum() + 1 / ring.sum())
    return contrast(cut.signed) / expected, error / np.abs(expected)


def _block(cut: _Cut):
    """Chi2 that the best block of equal pixels at the centre explains, over what the PSF does: above 1 for defects."""
    weight, middle = cut.weight, cut.signed.shape[1] // 2
    core = (slice(None), slice(middle - 2, middle + 3), slice(middle - 2, middle + 3))
    best = np.zeros(len(weight))
    for shape in {*BLOCKS, *(block[::-1] for block in BLOCKS)}:
        light, whole = (
            ndimage.uniform_filter(value, (0, *shape), mode="constant")[core] * np.prod(shape)
            for value in (weight * cut.signed, weight)
        )
        explained = np.maximum(light, 0) ** 2 / np.maximum(whole, 1e-30)
        best = np.maximum(best, np.where(whole > 0, explained, 0).max(axis=(1, 2)))
    _, by_psf = _solved([cut.profile], cut)
    return np.clip(best / np.maximum(by_psf, 1e-30), 0, 9)


def _elongation(cut: _Cut, fwhm):
    """Chi2 that stretching the PSF explains, over what the PSF does.

    A Gaussian of variance s^2 changes by (u^2 - v^2) / s^2 times itself where it is stretched along u and squeezed
    along v, and by 2 u v / s^2 in between.
    """
    u, v = cut.du / (fwhm / FWHM_PER_SIGMA), cut.dv / (fwhm / FWHM_PER_SIGMA)
    _, by_both = _solved([cut.profile, cut.profile * (u**2 - v**2), cut.profile * 2 * u * v], cut)
    _, by_psf = _solved([cut.profile], cut)
    return np.clip(by_both / np.maximum(by_psf, 1e-30) - 1, 0, 9)


def _surroundings(search: Search, x, y, flux):
    """Share of the flux that the level of the surroundings (2 to 4 FWHM) makes up, and the rms of their S/N."""
    fwhm = search.psf.fwhm
    half = int(np.ceil(4 * fwhm))
    v, u = np.mgrid[-half : half + 1, -half : half + 1]
    ring = (np.hypot(u, v) >= 2 * fwhm) & (np.hypot(u, v) <= 4 * fwhm)
    column, row = np.rint(x).astype(int), np.rint(y).astype(int)
    value = stamps(search.difference, column, row, half)[:, ring]
    hidden = stamps(search.mask != 0, column, row, half, True)[:, ring]
    count = (~hidden).sum(axis=1)
    hollow = np.where(hidden, np.nan, value)
    hollow[count <= 20] = 0.0
    level = np.nanmedian(hollow, axis=1)
    snr = np.where(hidden, 0, np.clip(stamps(search.snr, column, row, half)[:, ring], -5, 5))
    rms = np.sqrt(np.sum(snr**2, axis=1) / np.maximum(count, 1))
    model = search.psf.stamp(search.psf.shape[1] / 2, search.psf.shape[0] / 2, int(np.ceil(1.5 * fwhm)))
    pedestal = np.abs(level) * model.sum() / np.sum(model**2) / np.maximum(np.abs(flux), 1e-30)
    return pedestal, np.where(count > 20, rms, 1.0)


def _negative(cut: _Cut, near):
    """Fraction of the significant flux around the position that has the other sign."""
    counted = near & ~cut.hidden & (np.abs(cut.signed) > 1.5 * cut.sigma)
    light = np.sum(np.abs(cut.signed), axis=(1, 2), where=counted)
    other = np.sum(-cut.signed, axis=(1, 2), where=counted & (cut.signed < 0))
    return other / np.maximum(light, 1e-30)


def _dipole(search: Search, cut: _Cut, x, y) -> dict[str, np.ndarray]:
    """Compare the source with the strongest opposite one within 2 FWHM, and fit both.

    ``dipole`` is the ratio of the extremes of the S/N map, ``dipole_ratio`` that of the fluxes of two PSFs fitted
    together, ``dipole_separation`` (pixels) and ``dipole_angle`` (degrees from x towards y) lead from one to the other.
    """
    fwhm = search.psf.fwhm
    half = int(np.ceil(2 * fwhm))
    column, row = np.rint(x).astype(int), np.rint(y).astype(int)
    v, u = np.mgrid[-half : half + 1, -half : half + 1]
    near = np.hypot(u, v) <= 2 * fwhm
    around = stamps(search.snr, column, row, half)[:, near] * cut.sign[:, None]
    lowest = np.argmin(around, axis=1)
    own = np.maximum(around.max(axis=1), 1e-3)
    depth = np.maximum(-np.take_along_axis(around, lowest[:, None], 1)[:, 0], 0)
    off_x, off_y = u[near][lowest] + column - x, v[near][lowest] + row - y
    other = _profile(search.psf, cut.du - off_x[:, None, None], cut.dv - off_y[:, None, None], x, y)
    flux, _ = _solved([cut.profile, other], cut)
    ratio = np.clip(-flux[:, 1] / np.where(np.abs(flux[:, 0]) > 0, flux[:, 0], np.inf), -2, 2)
    return {
        "dipole": depth / own,
        "dipole_separation": np.hypot(off_x, off_y),
        "dipole_angle": np.degrees(np.arctan2(off_y, off_x)),
        "dipole_ratio": ratio,
    }


def _shifted(search: Search, cut: _Cut, x, y):
    """Share of what a PSF explains of the difference that a small shift of the template would explain as well.

    This is the sub-pixel adjustment of Karpov (2024, arXiv:2411.16470), section 4.2, without its change of the flux
    scale, which would explain a variable star.
    """
    half = cut.signed.shape[1] // 2 + 1
    column, row = np.rint(x).astype(int), np.rint(y).astype(int)
    wide = stamps(search.model, column, row, half).astype(float)
    along_x = (wide[:, 1:-1, 2:] - wide[:, 1:-1, :-2]) / 2
    along_y = (wide[:, 2:, 1:-1] - wide[:, :-2, 1:-1]) / 2
    _, by_shift = _solved([along_x, along_y], cut, prior=SHIFT)
    _, by_psf = _solved([cut.profile], cut)
    return np.clip(by_shift / np.maximum(by_psf, 1e-30), 0, 2)


def _cosmic(cut: _Cut):
    """S/N of the brightest pixel alone, within 1 pixel of the centre, over that of the PSF: large for cosmic rays."""
    middle = cut.signed.shape[1] // 2
    core = (slice(None), slice(middle - 1, middle + 2), slice(middle - 1, middle + 2))
    weight = cut.weight
    peak = np.max(np.where(cut.hidden, 0, cut.signed / cut.sigma)[core], axis=(1, 2))
    _, explained = _solved([cut.profile], cut)
    alone = np.max((cut.profile * np.sqrt(weight))[core], axis=(1, 2)) / np.sqrt(
        np.maximum(np.sum(cut.profile**2 * weight, axis=(1, 2)), 1e-30)
    )
    # Relative to what a point source would show.
    return peak / np.sqrt(np.maximum(explained, 1e-6)) / np.maximum(alone, 1e-3)


def _trail(smooth, x, y, flux, fwhm, peak):
    """Flux along the best straight line away from the source, relative to its own: 1 on a trail, 0 on the sky."""
    reach = np.array([1.75, 2.5, 3.25]) * fwhm
    angle = np.arange(32) * (2 * np.pi / 32)
    columns = np.rint(np.asarray(x)[:, None, None] + np.cos(angle)[:, None] * reach).astype(int)
    rows = np.rint(np.asarray(y)[:, None, None] + np.sin(angle)[:, None] * reach).astype(int)
    inside = (columns >= 0) & (rows >= 0) & (columns < smooth.shape[1]) & (rows < smooth.shape[0])
    value = smooth[np.where(inside, rows, 0), np.where(inside, columns, 0)] * np.sign(flux)[:, None, None]
    value = np.where(inside, value, -np.inf).min(axis=2)
    own = stamps(smooth, np.rint(x), np.rint(y), 1) * np.sign(flux)[:, None, None]
    # A masked core has no flux of its own; its wings tell how much it is. Smoothing halves the peak.
    own = np.fmax(own.max(axis=(1, 2)), 0.5 * np.abs(flux) * peak)
    return np.maximum(value.max(axis=1), 0) / np.maximum(own, 1e-30)


def _moment_width(cut: _Cut, fwhm):
    """FWHM by the adaptive moments of `nightsift.image.seeing.widths`, on the difference."""
    # Where pixels sample the PSF well, what is narrower is no source, and the model has learnt what becomes of it.
    least = float(SAMPLED) if fwhm < FWHM_PER_SIGMA * np.sqrt(SAMPLED) else 0.0
    square = cut.du**2 + cut.dv**2
    value = np.where(cut.hidden, 0, cut.signed)
    variance = np.full(len(value), (fwhm / FWHM_PER_SIGMA) ** 2)
    with np.errstate(all="ignore"):
        for _ in range(10):
            weighted = value * np.exp(-square / (2 * np.maximum(variance, least)[:, None, None]))
            moment = np.sum(weighted * square, axis=(1, 2)) / np.sum(weighted, axis=(1, 2))
            variance = np.where(moment < least, moment * least / (2 * least - moment), moment)
            variance = np.clip(np.where(moment > 0, variance, np.nan), 0.05, fwhm**2 * 4)
    return FWHM_PER_SIGMA * np.sqrt(variance)


def _template_distance(search: Search, x, y):
    """Distance to the nearest peak of the template that stands 5 sigma above its surroundings; NaN beyond 5 FWHM."""
    reach = int(np.ceil(5 * search.psf.fwhm))
    top = (search.model == ndimage.maximum_filter(search.model, 3)) & (search.model > 5 * search.sigma)
    row, column = np.nonzero(top)
    if not len(row):
        return np.full(len(x), np.nan)
    distance, _ = cKDTree(np.column_stack([column, row])).query(np.column_stack([x, y]), distance_upper_bound=reach)
    return np.where(np.isfinite(distance), distance, np.nan)


def _neighbour(search: Search, x, y) -> np.ndarray:
    """Flux of a point source as bright at its peak as the template within 6 FWHM."""
    half = int(np.ceil(6 * search.psf.fwhm))
    v, u = np.mgrid[-half : half + 1, -half : half + 1]
    near = np.hypot(u, v) <= half
    column, row = np.rint(x).astype(int), np.rint(y).astype(int)
    brightest = np.array(
        [stamps(search.model, [c], [r], half)[0][near].max() for c, r in zip(column, row, strict=True)]
    )
    peak = search.psf.stamp(search.psf.shape[1] / 2, search.psf.shape[0] / 2, 1).max()
    return np.maximum(brightest, 0) / peak


def _beside(x, y, saturated: Table | None, fwhm: float) -> np.ndarray:
    """Flux of the brightest saturated object within 5 FWHM; 0 where there is none."""
    result = np.zeros(len(x))
    if saturated is not None and len(saturated):
        tree = cKDTree(np.column_stack([saturated["x"], saturated["y"]]))
        near = tree.query_ball_point(np.column_stack([x, y]), 5 * fwhm)
        flux = np.asarray(saturated["flux"])
        result = np.array([flux[found].max() if found else 0.0 for found in near])
    return result
