"""The robust fit of the zero point: surface, colour term, intrinsic scatter, and the choice between models."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import brentq

from nightsift.image import amplifiers
from nightsift.image.polynomial import powers
from nightsift.statistics import SIGMA_PER_MAD

_TUKEY = 4.685  # standard deviations: 95 per cent efficiency for normal errors (Holland & Welsch 1977)
_USED = 3.5  # standard deviations up to which a star counts as one that agrees
# for normal deviates u and Tukey weights w at the above tuning: E[w u^2] / E[w] and E[psi^2] / E[psi']^2
_MEAN_SQUARE = 0.82807
_INFLATION = 1.0526
STARS_PER_PARAMETER = 6
# What the surface may be expected to change over an image [mag]: the widths of the prior of its terms.
CHANGES = (0.003, 0.01, 0.03, 0.1, 0.3)
# How large a colour term may be: of a filter like the catalogue's, or of another.
TINTS = (0.05, 0.3)
# Largest scatter [mag] of a fit whose errors are scaled instead: so strays what follows the noise, as neighbours do.
SCALED = 0.002
_EXTRA_MARGIN = 4.0  # of the Bayesian information criterion
_UNLIKELY = 0.01  # relative to the likeliest model


@dataclass(frozen=True)
class CalibrationStars:
    """What the fit goes on, each of shape (n,).

    `u`, `v` are pixel positions scaled to -1..1 over the image, `value` = catalogue - instrumental magnitude with
    variance `var`; `color` is the catalogue colour with variance `color_var` and covariance `color_cov` with `value`.
    `extra` holds the columns (n, k) of terms that the model may have besides, with their `names`. Where `edges` divide
    the image (see `amplifiers`), each part has a zero point of its own.
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
    edges: amplifiers.Edges = amplifiers.WHOLE

    def take(self, select) -> CalibrationStars:
        """Return the selected stars."""
        chosen = {key: part[select] for key, part in vars(self).items() if isinstance(part, np.ndarray)}
        return replace(self, **chosen)

    def design(self, order: int, color: bool, extras: tuple[str, ...]) -> np.ndarray:
        """Return the columns of a model: surface, extra terms, colour."""
        more = [self.extra[:, self.names.index(name)] for name in extras] + [self.color] * color
        return np.column_stack([surface(order, self.edges, self.u, self.v), *more])


@dataclass(frozen=True)
class ZeroPointFit:
    """A fitted zero point; `coefficients` are those of `surface`, of `extras` and, if `color`, the colour term.

    `bic` is -2 ln of the evidence, but for a constant; `change`, `tint` and `max_intrinsic` are as `fit` got them,
    `edges` those of its stars.
    """

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
    change: float = np.inf
    tint: float = np.inf
    max_intrinsic: float = np.inf
    edges: amplifiers.Edges = amplifiers.WHOLE
    likeliest: ZeroPointFit | None = None

    @property
    def surface(self) -> int:
        """The number of coefficients that belong to the surface."""
        return len(self.coefficients) - self.color - len(self.extras)

    @property
    def names(self) -> tuple[str, ...]:
        """What the coefficients are called."""
        return names(self.order, self.color, self.extras, self.edges)

    def at(self, u, v) -> np.ndarray:
        """Return the surface at scaled positions [mag]."""
        return surface(self.order, self.edges, u, v) @ self.coefficients[: self.surface]


def scaled(x, y, shape) -> tuple[np.ndarray, np.ndarray]:
    """Return pixel positions scaled to -1..1 over the image."""
    ny, nx = shape
    return 2 * (np.asarray(x, float) + 0.5) / nx - 1, 2 * (np.asarray(y, float) + 0.5) / ny - 1


def names(order: int, color: bool, extras: tuple[str, ...] = (), edges=amplifiers.WHOLE) -> tuple[str, ...]:
    """Return what the coefficients of a model are called."""
    names = []
    for i, j in powers(order):
        factors = [axis + (str(power) if power > 1 else "") for axis, power in (("x", i), ("y", j)) if power]
        names.append("".join(factors) or "zp")
    return (*names, *amplifiers.names(edges), *extras, *["color"] * color)


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


def surface(order: int, edges: amplifiers.Edges, u, v) -> np.ndarray:
    """Return the columns of a zero point over the image: the polynomial's, and those of its amplifiers."""
    return np.concatenate([terms(order, u, v), amplifiers.columns(edges, u, v)], axis=-1)


def _solve(design, stars: CalibrationStars, weight, color: bool, prior=0.0):
    """Weighted least squares; with a colour, corrected for the noise of the colours (Fuller 1987, section 2.2).

    `prior` holds the inverse variances of the coefficients about 0; the normal matrix is returned without.
    """
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
    return np.linalg.lstsq(normal + np.diag(np.broadcast_to(prior, len(right))), right, rcond=None)[0], normal


def _variance(stars: CalibrationStars, color: bool, term: float) -> np.ndarray:
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


def _start(design, stars: CalibrationStars, color: bool) -> tuple[np.ndarray, float]:
    """Return least absolute deviations and a scale from the median residual: both stand up to outliers."""
    base = 1 / (stars.var + 0.02**2)
    weight = base
    for _ in range(12):
        coefficients, _ = _solve(design, stars, weight, False)
        deviation = np.abs(stars.value - design @ coefficients) * np.sqrt(base)
        weight = base / np.maximum(deviation, 0.05)
    size = np.abs(stars.value - design @ coefficients)
    dof_factor = (len(size) / max(len(size) - design.shape[1], 1)) ** 0.5
    variance = _variance(stars, color, coefficients[-1])
    factor = SIGMA_PER_MAD * dof_factor * np.median(size / np.sqrt(variance))
    if factor <= 1:
        return coefficients, 0.0
    grid = np.geomspace(1e-3, 1.0, 30)
    ratio = SIGMA_PER_MAD * dof_factor * np.median(size / np.sqrt(variance + grid[:, None] ** 2), axis=1)
    return coefficients, float(grid[np.argmax(ratio <= 1)] if (ratio <= 1).any() else 1.0)


# Long: the result is put together field by field. Many parameters: what the model may hold, by name.
def fit(
    stars: CalibrationStars,
    order: int,
    color: bool,
    max_intrinsic: float,
    extras: tuple[str, ...] = (),
    change: float = np.inf,
    tint: float = np.inf,
) -> ZeroPointFit:
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
    change, tint : float
        Standard deviations of the surface's terms but the constant [mag], and of the colour term, about 0, as Gaussian
        priors.

    Returns
    -------
    Fit
        The covariance is that of an M-estimator (Huber 1981, eq. 6.6.5), wider by the variance of Student's t as far as
        the errors come from the residuals themselves.
    """
    design = stars.design(order, color, extras)
    prior = np.zeros(design.shape[1])
    prior[1 : len(powers(order))] = change**-2.0
    if color:
        prior[-1] = tint**-2.0
    coefficients, intrinsic, factor, effective = _reweighted(design, stars, color, max_intrinsic, prior)
    residual, variance = stars.value - design @ coefficients, _variance(stars, color, coefficients[-1])
    sigma = factor * np.sqrt(variance + intrinsic**2)
    pull = residual / sigma
    used = np.abs(pull) < _USED
    weight = used / sigma**2
    _, normal = _solve(design, stars, weight, color)
    # few precise stars among many noisy ones teach the scatter: count by weight
    fraction = weight / max(weight.sum(), 1e-30)
    teaching = max(1 / max(np.sum(fraction**2), 1e-30) - effective, 1)
    learnt = 1.0 if factor > 1 else float(np.sum(fraction * intrinsic**2 / (variance + intrinsic**2)))
    covariance = np.linalg.pinv(normal + np.diag(prior)) * _INFLATION * (1 + learnt * 2 / max(teaching - 2, 1))
    wide = (change / CHANGES[0] if order else 1.0) * (tint / TINTS[0] if color else 1.0)
    rare = 2 * np.log(wide) if np.isfinite(wide) else 0.0
    loss = _TUKEY**2 / 3 * (1 - np.clip(1 - (pull / _TUKEY) ** 2, 0, None) ** 3)
    return ZeroPointFit(
        order=order,
        color=color,
        coefficients=coefficients,
        covariance=covariance,
        intrinsic=float(intrinsic),
        residual=residual,
        sigma=sigma,
        used=used,
        chi2=float(np.sum((factor * pull[used]) ** 2) / max(used.sum() - effective, 1)),
        bic=float(np.sum(loss + 2 * np.log(sigma)) + _price(normal, prior, coefficients, len(design)) + rare),
        extras=extras,
        change=change,
        tint=tint,
        max_intrinsic=max_intrinsic,
        edges=stars.edges,
    )


def _reweighted(design, stars: CalibrationStars, color: bool, max_intrinsic: float, prior):
    """Return coefficients, scatter, factor of the errors and effective number of parameters."""
    level = prior == 0
    coefficients = np.zeros(design.shape[1])
    coefficients[level], intrinsic = _start(design[:, level], stars, color)
    factor, effective = 1.0, float(len(prior))
    for _ in range(25):
        residual = stars.value - design @ coefficients
        variance = _variance(stars, color, coefficients[-1])
        sigma = factor * np.sqrt(variance + intrinsic**2)
        robust = np.clip(1 - (residual / (_TUKEY * sigma)) ** 2, 0, None) ** 2
        updated, normal = _solve(design, stars, robust / sigma**2, color, prior)
        effective = _effective(normal, prior)
        residual = stars.value - design @ updated
        intrinsic, factor = _scatter(residual, variance, robust, effective, max_intrinsic)
        moved = np.abs(design @ (updated - coefficients)).max()
        coefficients = updated
        if moved < 1e-5:
            break
    return coefficients, intrinsic, factor, effective


def _effective(normal, prior) -> float:
    """Return how many parameters the stars decide on, rather than the prior."""
    held = prior > 0
    if not held.any():
        return float(len(prior))
    return float(np.trace(np.linalg.lstsq(normal + np.diag(prior), normal, rcond=None)[0]))


def _price(normal, prior, coefficients, count: int) -> float:
    """Return what a model's parameters add to -2 ln of its likelihood, to make it that of its evidence.

    For those without a prior it is Schwarz's (1978); for those with one, Laplace's integral (MacKay 1992, Neural
    Computation 4, 415, eq. 2.6). Both have the factor for small samples of Hurvich & Tsai (1989): few stars, whose
    scatter is itself estimated from the residuals, let the likelihood rise by chance.
    """
    held = prior > 0
    price = np.count_nonzero(~held) * np.log(count)
    if held.any():
        across = normal[np.ix_(held, ~held)]
        without = across @ np.linalg.lstsq(normal[np.ix_(~held, ~held)], across.T, rcond=None)[0]
        known = (normal[np.ix_(held, held)] - without) / prior[held]
        price += np.linalg.slogdet(np.eye(held.sum()) + known)[1] + np.sum(prior * coefficients**2)
    return price * count / max(count - _effective(normal, prior) - 1, 1)


def choose(stars: CalibrationStars, max_order: int, max_intrinsic: float, extended: bool = True) -> ZeroPointFit:
    """Return the mean of all models that may be, each weighted by its evidence.

    With twelve stars or more these are levels and surfaces up to `max_order`, and a colour term where there are
    colours; their Gaussian priors have the widths `CHANGES` and `TINTS`, of which small ones are likelier. Scatter
    beyond the errors is either alike for all stars, or grows with the errors, whichever the levels ask for. An extra
    term, if `extended` allows any, must be better by 4, and have six stars for each parameter.

    Notes
    -----
    To choose one model would keep silent of what the others say: the covariance holds how far these are from the mean
    (Hoeting et al. 1999, Statistical Science 14, 382, eqs. 1 to 3).
    """
    enough = len(stars.u) >= 2 * STARS_PER_PARAMETER
    color = stars.color is not None and enough
    tints = TINTS if color else (np.inf,)
    limits = sorted({min(SCALED, max_intrinsic), max_intrinsic}, reverse=True)
    levels = [fit(stars, 0, color, limit, tint=tints[-1]) for limit in limits]
    limit = min(levels, key=lambda one: one.bic).max_intrinsic
    surfaces = [(order, change) for order in range(1, max_order + 1) for change in CHANGES] if enough else []

    def models(extras=()):
        tried = [(0, np.inf), *surfaces]
        return [fit(stars, order, color, limit, extras, change, tint) for tint in tints for order, change in tried]

    chosen = models()
    if extended:
        extras = extend(stars, min(chosen, key=lambda one: one.bic), _EXTRA_MARGIN).extras
        chosen = models(extras) if extras else chosen
    return mean(stars, chosen)


def mean(stars: CalibrationStars, fits: list[ZeroPointFit]) -> ZeroPointFit:
    """Return the mean of fits to the same stars, weighted by their evidence; `likeliest` is the best of them.

    The covariance is the mean of theirs and that of their coefficients. What is less than a hundredth as likely as the
    best does not count. A term that a fit lacks counts as 0.
    """
    likeliest = min(fits, key=lambda one: one.bic)
    weights = np.exp(-0.5 * np.array([one.bic - likeliest.bic for one in fits]))
    fits = [one for one, weight in zip(fits, weights, strict=True) if weight > _UNLIKELY]
    weights = weights[weights > _UNLIKELY] / weights[weights > _UNLIKELY].sum()
    order, color = max(one.order for one in fits), any(one.color for one in fits)
    labels = names(order, color, likeliest.extras, likeliest.edges)
    rows = [[labels.index(name) for name in one.names] for one in fits]
    each = np.zeros((len(fits), len(labels)))
    for coefficients, row, one in zip(each, rows, fits, strict=True):
        coefficients[row] = one.coefficients
    middle = weights @ each
    covariance = (each - middle).T @ ((each - middle) * weights[:, None])
    for weight, row, one in zip(weights, rows, fits, strict=True):
        covariance[np.ix_(row, row)] += weight * one.covariance
    return replace(
        likeliest,
        order=order,
        color=color,
        coefficients=middle,
        covariance=covariance,
        residual=stars.value - stars.design(order, color, likeliest.extras) @ middle,
        likeliest=likeliest,
    )


def extend(stars: CalibrationStars, chosen: ZeroPointFit, margin: float) -> ZeroPointFit:
    """Return the model with those of the stars' extra terms that lower its BIC by a margin, one after the other."""
    for _ in stars.names:
        if len(stars.u) < STARS_PER_PARAMETER * (len(chosen.extras) + chosen.color + 2):
            break
        left = [name for name in stars.names if name not in chosen.extras]
        model = chosen.order, chosen.color, chosen.max_intrinsic
        longer = [fit(stars, *model, (*chosen.extras, name), chosen.change, chosen.tint) for name in left]
        best = min(longer, key=lambda candidate: candidate.bic)
        if best.bic > chosen.bic - margin:
            break
        chosen = best
    return chosen
