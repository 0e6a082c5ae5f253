"""The robust fit of the zero point: surface, colour term, intrinsic scatter, and the choice between models."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import brentq

from nightsift.errors import Rejected

_TUKEY = 4.685
_USED = 3.5
# for normal deviates u and Tukey weights w at the above tuning: E[w u^2] / E[w] and E[psi^2] / E[psi']^2
_MEAN_SQUARE = 0.82807
_INFLATION = 1.0526
_STARS_PER_PARAMETER = 6
_DOUBT, _HINT = 15.0, 0.02  # BIC and magnitudes from which on a term that was not asked for is told of
_HINTS = {
    "nonlinearity": "Magnitudes stray by {value:+.4f} a magnitude, {reach:+.3f} over those of the stars: a nonlinear"
    " detector? photometry.flux_terms corrects it.",
    "background": "A constant flux seems to be in all apertures, which changes the faint stars' magnitudes by"
    " {reach:+.3f}: a wrong background? photometry.flux_terms corrects it.",
}
EXTRAS = ("nonlinearity", "background")
_MARGIN, _EXTRA_MARGIN = 2.0, 4.0  # of the Bayesian information criterion
_MAG = 2.5 / np.log(10)
_SAFE_SNR = 10.0
_NONLINEAR_SIGMA, _NONLINEAR_MAG = 4.5, 0.015


@dataclass(frozen=True)
class Stars:
    """What the fit goes on, each of shape (n,).

    `u`, `v` are pixel positions scaled to -1..1 over the image, `value` = catalogue - instrumental magnitude with
    variance `var`; `color` is the catalogue colour with variance `color_var` and covariance `color_cov` with `value`.
    `extra` holds the columns (n, k) of terms that the model may have besides, with their `names`.
    """

    u: np.ndarray
    v: np.ndarray
    value: np.ndarray
    var: np.ndarray
    color: np.ndarray | None = None
    color_var: np.ndarray | None = None
    color_cov: np.ndarray | None = None
    extra: np.ndarray | None = None
    names: tuple[str, ...] = ()

    def take(self, select) -> Stars:
        """Return the selected stars."""
        chosen = {key: part[select] for key, part in vars(self).items() if isinstance(part, np.ndarray)}
        return replace(self, **chosen)

    def design(self, order: int, color: bool, extras: tuple[str, ...]) -> np.ndarray:
        """Return the columns of a model: surface, extra terms, colour."""
        more = [self.extra[:, self.names.index(name)] for name in extras] + [self.color] * color
        return np.column_stack([terms(order, self.u, self.v), *more])


@dataclass(frozen=True)
class Fit:
    """A fitted zero point; `coefficients` are those of `terms`, of `extras` and, if `color`, the colour term."""

    order: int
    color: bool
    coefficients: np.ndarray
    covariance: np.ndarray
    intrinsic: float
    residual: np.ndarray
    sigma: np.ndarray
    used: np.ndarray
    chi2: float
    bic: float
    extras: tuple[str, ...] = ()

    @property
    def surface(self) -> int:
        """The number of coefficients that belong to the surface."""
        return len(self.coefficients) - self.color - len(self.extras)

    @property
    def names(self) -> tuple[str, ...]:
        """What the coefficients are called."""
        return names(self.order, self.color, self.extras)


def scaled(x, y, shape) -> tuple[np.ndarray, np.ndarray]:
    """Return pixel positions scaled to -1..1 over the image."""
    ny, nx = shape
    return 2 * (np.asarray(x, float) + 0.5) / nx - 1, 2 * (np.asarray(y, float) + 0.5) / ny - 1


def powers(order: int) -> list[tuple[int, int]]:
    """Return the exponents of x and y of a polynomial's terms, the constant first."""
    return [(total - j, j) for total in range(order + 1) for j in range(total + 1)]


def names(order: int, color: bool, extras: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Return what the coefficients of a model are called."""
    names = []
    for i, j in powers(order):
        factors = [axis + (str(power) if power > 1 else "") for axis, power in (("x", i), ("y", j)) if power]
        names.append("".join(factors) or "zp")
    return (*names, *extras, *["color"] * color)


def terms(order: int, u, v) -> np.ndarray:
    """Return the polynomial's terms at `u`, `v` (-1..1), shape (n, k); all but the constant have mean 0 over the image.

    So the constant's coefficient is the mean of the surface.
    """
    u, v = np.asarray(u, float), np.asarray(v, float)
    columns = []
    for i, j in powers(order):
        mean = 0.0 if i % 2 or j % 2 or i + j == 0 else 1 / ((i + 1) * (j + 1))
        columns.append(u**i * v**j - mean)
    return np.stack(columns, axis=-1)


def _solve(design, stars: Stars, weight, color: bool):
    """Weighted least squares; with a colour, corrected for the noise of the colours (Fuller 1987, section 2.2)."""
    weighted = design * weight[:, None]
    normal, right = weighted.T @ design, weighted.T @ stars.value
    if color:
        noise = np.sum(weight * stars.color_var)
        others, row = normal[:-1, :-1], normal[:-1, -1]
        spread = normal[-1, -1] - row @ np.linalg.lstsq(others, row, rcond=None)[0]
        # where noise makes half of the spread there is nothing left to correct
        if noise < 0.5 * spread:
            normal = normal.copy()
            # noise of the colour is noise of the residual too, whose large values the biweight has already damped
            normal[-1, -1] -= _MEAN_SQUARE * noise
            right[-1] -= _MEAN_SQUARE * np.sum(weight * stars.color_cov)
    return np.linalg.lstsq(normal, right, rcond=None)[0], normal


def _variance(stars: Stars, color: bool, term: float) -> np.ndarray:
    if not color:
        return stars.var
    return np.maximum(stars.var + term**2 * stars.color_var - 2 * term * stars.color_cov, 1e-8)


def _scatter(residual, variance, weight, parameters: int, largest: float) -> tuple[float, float]:
    """Return the intrinsic scatter that makes the weighted mean square 1, and the factor that is still wanting.

    The moment estimator of Paule & Mandel (1982) with robust weights.
    """
    inside = max(np.count_nonzero(weight), parameters + 1)
    norm = weight.sum() * _MEAN_SQUARE * (inside - parameters) / inside
    if norm <= 0:
        return largest, 1.0

    def excess(scatter):
        return np.sum(weight * residual**2 / (variance + scatter**2)) / norm - 1

    if excess(0.0) <= 0:
        return 0.0, 1.0
    at_largest = excess(largest)
    if at_largest >= 0:
        return largest, float(np.sqrt(1 + at_largest))
    return brentq(excess, 0.0, largest, xtol=1e-5), 1.0


def _start(design, stars: Stars, color: bool) -> tuple[np.ndarray, float]:
    """Return least absolute deviations and a scale from the median residual: both stand up to outliers."""
    base = 1 / (stars.var + 0.02**2)
    weight = base
    for _ in range(12):
        coefficients, _ = _solve(design, stars, weight, False)
        deviation = np.abs(stars.value - design @ coefficients) * np.sqrt(base)
        weight = base / np.maximum(deviation, 0.05)
    size = np.abs(stars.value - design @ coefficients)
    share = (len(size) / max(len(size) - design.shape[1], 1)) ** 0.5
    variance = _variance(stars, color, coefficients[-1])
    factor = 1.4826 * share * np.median(size / np.sqrt(variance))
    if factor <= 1:
        return coefficients, 0.0
    grid = np.geomspace(1e-3, 1.0, 30)
    ratio = 1.4826 * share * np.median(size / np.sqrt(variance + grid[:, None] ** 2), axis=1)
    return coefficients, float(grid[np.argmax(ratio <= 1)] if (ratio <= 1).any() else 1.0)


def fit(stars: Stars, order: int, color: bool, max_intrinsic: float, extras: tuple[str, ...] = ()) -> Fit:
    """Fit one model by iteratively reweighted least squares with Tukey's biweight.

    Parameters
    ----------
    stars : Stars
    order : int
        Order of the surface.
    color : bool
        Fit a colour term.
    max_intrinsic : float
        Largest scatter [mag] added to the errors; what goes beyond it scales the covariance.
    extras : tuple of str
        Which of the stars' extra terms to fit.

    Returns
    -------
    Fit
        The covariance is that of an M-estimator (Huber 1981, eq. 6.6.5), wider by the variance of Student's t as far as
        the errors come from the residuals themselves.
    """
    design = stars.design(order, color, extras)
    count, parameters = design.shape
    coefficients, first = _start(design, stars, color)
    intrinsic, factor = first, 1.0
    for _ in range(25):
        residual = stars.value - design @ coefficients
        variance = _variance(stars, color, coefficients[-1])
        sigma = factor * np.sqrt(variance + intrinsic**2)
        robust = np.clip(1 - (residual / (_TUKEY * sigma)) ** 2, 0, None) ** 2
        updated, _ = _solve(design, stars, robust / sigma**2, color)
        residual = stars.value - design @ updated
        intrinsic, factor = _scatter(residual, variance, robust, parameters, max_intrinsic)
        change = np.abs(design @ (updated - coefficients)).max()
        coefficients = updated
        if change < 1e-5:
            break
    sigma = factor * np.sqrt(_variance(stars, color, coefficients[-1]) + intrinsic**2)
    pull = residual / sigma
    used = np.abs(pull) < _USED
    _, normal = _solve(design, stars, used / sigma**2, color)
    freedom = max(int(used.sum()) - parameters, 1)
    weight = used / sigma**2
    # few precise stars among many noisy ones teach the scatter: count by weight
    share = weight / max(weight.sum(), 1e-30)
    teaching = max(1 / max(np.sum(share**2), 1e-30) - parameters, 1)
    learnt = 1.0 if factor > 1 else float(np.sum(share * intrinsic**2 / (variance + intrinsic**2)))
    wider = 1 + learnt * 2 / max(teaching - 2, 1)
    covariance = np.linalg.pinv(normal) * _INFLATION * wider
    loss = _TUKEY**2 / 3 * (1 - np.clip(1 - (pull / _TUKEY) ** 2, 0, None) ** 3)
    # few stars, whose scatter is itself estimated from the residuals, let the likelihood rise by chance
    price = parameters * np.log(count) * count / max(count - parameters - 1, 1)
    bic = float(np.sum(loss + 2 * np.log(sigma)) + price)
    chi2 = float(np.sum((factor * pull[used]) ** 2) / freedom)
    return Fit(order, color, coefficients, covariance, float(intrinsic), residual, sigma, used, chi2, bic, extras)


def _known_over_image(result: Fit) -> bool:
    """Tell whether the surface is better known, over the image, than it is high: no guess from a corner."""
    if result.order == 0:
        return True
    grid = np.linspace(-1, 1, 9)
    surface = terms(result.order, *(axis.ravel() for axis in np.meshgrid(grid, grid)))[:, 1:]
    inner = slice(1, surface.shape[1] + 1)
    height = np.mean((surface @ result.coefficients[inner]) ** 2)
    error = np.mean(np.einsum("ij,jk,ik->i", surface, result.covariance[inner, inner], surface))
    return bool(height > error)


def choose(stars: Stars, max_order: int, max_intrinsic: float, extended: bool = True) -> Fit:
    """Return the simplest model that the stars support.

    Every model needs six stars for each parameter. Of those whose surface is known over the whole image, it is the one
    with the fewest parameters whose Bayesian information criterion (Schwarz 1978, with the factor for small samples of
    Hurvich & Tsai 1989) is within 2 of the best; each extra term must lower it by 4, if `extended` allows any.
    """
    candidates = []
    for order in range(max_order + 1):
        for color in (False, True):
            parameters = len(powers(order)) + color
            if (color and stars.color is None) or (parameters > 1 and len(stars.u) < _STARS_PER_PARAMETER * parameters):
                continue
            result = fit(stars, order, color, max_intrinsic)
            if _known_over_image(result):
                candidates.append(result)
    best = min(candidate.bic for candidate in candidates)
    near = [candidate for candidate in candidates if candidate.bic <= best + _MARGIN]
    chosen = min(near, key=lambda candidate: (len(candidate.coefficients), candidate.bic))
    return extend(stars, chosen, max_intrinsic, _EXTRA_MARGIN) if extended else chosen


def extend(stars: Stars, chosen: Fit, max_intrinsic: float, margin: float) -> Fit:
    """Return the model with those of the stars' extra terms that lower its BIC by a margin, one after the other."""
    for _ in stars.names:
        if len(stars.u) < _STARS_PER_PARAMETER * (len(chosen.coefficients) + 1):
            break
        left = [name for name in stars.names if name not in chosen.extras]
        longer = [fit(stars, chosen.order, chosen.color, max_intrinsic, (*chosen.extras, name)) for name in left]
        best = min(longer, key=lambda candidate: candidate.bic)
        if best.bic > chosen.bic - margin:
            break
        chosen = best
    return chosen


@dataclass(frozen=True)
class Matched:
    """The matches in plain arrays, each of shape (n_matched,)."""

    x: np.ndarray
    y: np.ndarray
    flux: np.ndarray
    noise: np.ndarray
    mag: np.ndarray
    mag_err: np.ndarray
    color: np.ndarray | None
    color_var: np.ndarray | None
    color_cov: np.ndarray | None
    inv_gain: float
    shape: tuple[int, int]

    def expected_snr(self, offset) -> np.ndarray:
        """Return the S/N that the catalogue magnitude promises, given catalogue - instrumental = `offset`."""
        flux = 10 ** (-0.4 * (self.mag - offset))
        return flux / np.sqrt(self.noise**2 + flux * self.inv_gain)

    @property
    def reference(self) -> float:
        """The instrumental magnitude at which a nonlinearity is 0: that of the median star."""
        lit = self.flux > 0
        return float(-2.5 * np.log10(np.median(self.flux[lit]))) if lit.any() else np.nan

    def residual(self, result: Fit) -> np.ndarray:
        """Return catalogue minus model [mag]; NaN where flux, magnitude or a needed colour are missing."""
        flux = np.where(self.flux > 0, self.flux, np.nan)
        instrumental = -2.5 * np.log10(flux)
        model = terms(result.order, *scaled(self.x, self.y, self.shape)) @ result.coefficients[: result.surface]
        for name, value in zip(result.names, result.coefficients, strict=True):
            if name == "color":
                model = model + value * self.color
            elif name in EXTRAS:
                model = model + value * self._extra(instrumental)[name]
        return self.mag - instrumental - model

    def _extra(self, instrumental) -> dict[str, np.ndarray]:
        """Return what a unit of each extra term changes of a star of that instrumental magnitude [mag]."""
        relative = instrumental - self.reference
        return {"nonlinearity": relative, "background": _MAG * 10 ** (0.4 * relative)}

    def stars(self, snr, offset, color: bool) -> Stars:
        """Return what is fitted.

        Errors come from the expected flux: those from the measured one make stars that noise has brightened weigh more,
        which biases the zero point. The mean of the logarithm of a noisy flux is put right to second order.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            value = self.mag + 2.5 * np.log10(self.flux) + _MAG / (2 * snr**2)
        var = (_MAG / snr) ** 2 + self.mag_err**2
        colors = (self.color, self.color_var, self.color_cov) if color else (None, None, None)
        # of the expected magnitude: noise that is in the value too would look like a term
        columns = self._extra(self.mag - offset)
        extra = np.stack([columns[name] for name in EXTRAS], axis=1)
        return Stars(*scaled(self.x, self.y, self.shape), value, var, *colors, extra, EXTRAS)


def _nonlinear(result: Fit, mag: np.ndarray) -> tuple[int, float]:
    """Return how many of the brightest stars stray together from the others, and by how much [mag]."""
    count = len(mag)
    most = count // 4
    if most < 3:
        return 0, 0.0
    order = np.argsort(mag)
    pull = np.clip(result.residual / result.sigma, -4, 4)[order]
    rest = pull[most:]
    center, spread = np.median(rest), max(np.std(rest), 0.5)
    number = np.arange(1, most + 1)
    significance = np.abs(np.cumsum(pull[:most] - center)) / (spread * np.sqrt(number * (1 + number / (count - most))))
    significance[:2] = 0
    brightest = int(np.argmax(significance)) + 1
    shift = float(np.median(result.residual[order[:brightest]]) - np.median(result.residual[order[most:]]))
    if significance[brightest - 1] < _NONLINEAR_SIGMA or abs(shift) < _NONLINEAR_MAG:
        return 0, shift
    return brightest, shift


def _enough(usable, good, snr, reasons, params) -> tuple[np.ndarray, list[str]]:
    """Return the stars bright enough that all like them were detected: a cut in expected, not in measured S/N."""
    for lowest in (_SAFE_SNR, _SAFE_SNR / 2):
        bright = usable & (snr > lowest)
        if bright.sum() >= params.min_stars:
            if lowest == _SAFE_SNR:
                return bright, []
            return bright, [f"Few bright stars: those of S/N {lowest:.0f} to {_SAFE_SNR:.0f} are used too."]
    why = ", ".join(f"{count} {reason}" for reason, count in reasons.items() if count)
    raise Rejected(
        f"Only {bright.sum()} of {len(good)} matched stars can calibrate the image, {params.min_stars} are needed"
        f" ({why + ', ' if why else ''}{int(np.sum(good & ~bright))} too faint)."
    )


def _first_offset(matched: Matched, good) -> np.ndarray:
    """Return catalogue - instrumental magnitude as the median of bright stars, for each star."""
    value = matched.mag[good] + 2.5 * np.log10(matched.flux[good])
    snr = matched.flux[good] / matched.noise[good]
    return np.full(len(good), np.median(value[snr >= min(_SAFE_SNR, np.median(snr))]) if good.any() else -np.inf)


def solve(matched: Matched, good, reasons: dict[str, int], params) -> tuple[Fit, np.ndarray, list[str]]:
    """Choose and fit the model of an image.

    Parameters
    ----------
    matched : Matched
    good : bool array, shape (n_matched,)
        Matches that may be fitted.
    reasons : dict
        How many of the others are out, and why.
    params : parameters.Photometry

    Returns
    -------
    fit : Fit
    rows : int array
        The matches that `fit` was made of.
    warnings : list of str

    Raises
    ------
    Rejected
        Too few stars.
    """
    notes, offset, cut = [], _first_offset(matched, good), np.zeros(len(good), bool)
    has_color = np.isfinite(matched.color) if matched.color is not None else cut
    color = np.sum(good & has_color) >= params.min_stars
    for attempt in range(5):
        snr = matched.expected_snr(offset)
        bright, notes_snr = _enough(good & ~cut & (has_color | (not color)), good, snr, reasons, params)
        stars, rows = matched.stars(snr, offset, color), np.flatnonzero(bright)
        # the first round only betters a rough offset
        if attempt == 0:
            result = fit(
                stars.take(rows), 0, bool(color) and len(rows) >= 2 * _STARS_PER_PARAMETER, params.max_intrinsic
            )
        else:
            result = choose(stars.take(rows), params.max_spatial_order, params.max_intrinsic, params.flux_terms)
        offset = terms(result.order, stars.u, stars.v) @ result.coefficients[: result.surface]
        if result.color:
            # a star without a colour is taken for one of the usual colour
            offset += result.coefficients[-1] * np.where(has_color, matched.color, np.median(matched.color[rows]))
        elif attempt and color and not has_color[good].all():
            color = False
            continue
        if attempt == 0:
            continue
        # the bright end is looked at but once
        number, shift = (0, 0.0) if cut.any() else _nonlinear(result, matched.mag[rows])
        if not number:
            break
        limit = np.sort(matched.mag[rows])[number - 1]
        # a full well or a nonlinear amplifier loses light, at the bright end alone; anything else is no reason to do
        # without the best stars
        lost = shift < 0 and number < len(rows) // 4
        if not lost or np.sum(bright & (matched.mag > limit)) < params.min_stars:
            notes.append(f"The brightest stars, to magnitude {limit:.2f}, are off by {shift:+.3f} mag from the others.")
            break
        cut = matched.mag <= limit
        notes.append(
            f"The brightest {number} stars, to magnitude {limit:.2f}, are off by {shift:+.3f} mag (saturated or"
            " nonlinear): left out."
        )
    if not params.flux_terms:
        notes.extend(_hints(stars.take(rows), result, params.max_intrinsic))
    return result, rows, notes + notes_snr


def _hints(stars: Stars, result: Fit, max_intrinsic: float) -> list[str]:
    """Tell which terms that were not asked for the stars would support beyond doubt, and change something."""
    longer = extend(stars, result, max_intrinsic, _DOUBT)
    notes = []
    for name, value in zip(longer.extras, longer.coefficients[longer.surface :], strict=False):
        column = stars.extra[:, stars.names.index(name)]
        reach = float(value * np.ptp(np.percentile(column, [5, 95])))
        if abs(reach) > _HINT:
            notes.append(_HINTS[name].format(reach=reach, value=value))
    return notes
