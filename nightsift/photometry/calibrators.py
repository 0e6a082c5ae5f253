"""The stars that calibrate an image: which of the matches are fit for it, and the fit of the zero point to them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from nightsift.errors import Rejected
from nightsift.photometry import gainsteps
from nightsift.photometry.zeropoint import (
    STARS_PER_PARAMETER,
    TINTS,
    CalibrationStars,
    ZeroPointFit,
    choose,
    extend,
    fit,
    scaled,
)
from nightsift.statistics import MAG

_DOUBT, _HINT = 15.0, 0.02  # BIC and magnitudes from which on a term that was not asked for is told of
_HINTS = {
    "nonlinearity": "Magnitudes are off by {value:+.4f} per magnitude, {reach:+.3f} over those of the stars: a"
    " nonlinear detector? photometry.flux_terms corrects it.",
    "background": "A constant flux seems to be in all apertures, which changes the faint stars' magnitudes by"
    " {reach:+.3f}: a wrong background? photometry.flux_terms corrects it.",
}
EXTRAS = ("nonlinearity", "background")
_SAFE_SNR = 10.0
_NONLINEAR_SIGMA, _NONLINEAR_MAG = 4.5, 0.015


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

    def residual(self, result: ZeroPointFit) -> np.ndarray:
        """Return catalogue minus model [mag]; NaN where flux, magnitude or a needed colour are missing."""
        flux = np.where(self.flux > 0, self.flux, np.nan)
        instrumental = -2.5 * np.log10(flux)
        model = result.at(*scaled(self.x, self.y, self.shape))
        for name, value in zip(result.names, result.coefficients, strict=True):
            if name == "color":
                model = model + value * self.color
            elif name in EXTRAS:
                model = model + value * self._extra(instrumental)[name]
        return self.mag - instrumental - model

    def _extra(self, instrumental) -> dict[str, np.ndarray]:
        """Return what a unit of each extra term changes of a star of that instrumental magnitude [mag]."""
        relative = instrumental - self.reference
        return {"nonlinearity": relative, "background": MAG * 10 ** (0.4 * relative)}

    def stars(self, snr, offset, color: bool) -> CalibrationStars:
        """Return what is fitted.

        Errors come from the expected flux: those from the measured one make stars that noise has brightened weigh more,
        which biases the zero point. The mean of the logarithm of a noisy flux is put right to second order.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            value = self.mag + 2.5 * np.log10(self.flux) + MAG / (2 * snr**2)
        var = (MAG / snr) ** 2 + self.mag_err**2
        colors = (self.color, self.color_var, self.color_cov) if color else (None, None, None)
        # of the expected magnitude: noise that is in the value too would look like a term
        columns = self._extra(self.mag - offset)
        extra = np.stack([columns[name] for name in EXTRAS], axis=1)
        return CalibrationStars(*scaled(self.x, self.y, self.shape), value, var, *colors, extra, EXTRAS)


def _nonlinear(result: ZeroPointFit, mag: np.ndarray) -> tuple[int, float]:
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


# Long: one loop, in which the fit decides the next cut.
def solve(matched: Matched, good, reasons: dict[str, int], params) -> tuple[ZeroPointFit, np.ndarray, list[str]]:
    """Choose and fit the model of an image.

    Parameters
    ----------
    matched : Matched
    good : bool array, shape (n_matched,)
        Matches that may be fitted.
    reasons : dict
        How many of the others are out, and why.
    params : parameters.PhotometryConfig

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
        level = bool(color) and len(rows) >= 2 * STARS_PER_PARAMETER
        result = fit(stars.take(rows), 0, level, params.max_intrinsic, tint=TINTS[-1] if attempt else np.inf)
        # the first round only betters a rough offset
        if attempt:
            edges = gainsteps.find(stars.take(rows), result) if params.amplifiers else stars.edges
            stars = replace(stars, edges=edges)
            result = choose(stars.take(rows), params.max_spatial_order, params.max_intrinsic, params.flux_terms)
        offset = result.at(stars.u, stars.v)
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
        notes.extend(_hints(stars.take(rows), result))
    return result, rows, notes + notes_snr


def _hints(stars: CalibrationStars, result: ZeroPointFit) -> list[str]:
    """Tell which terms that were not asked for the stars would support beyond doubt, and change something."""
    longer = extend(stars, result.likeliest or result, _DOUBT)
    notes = []
    for name, value in zip(longer.extras, longer.coefficients[longer.surface :], strict=False):
        column = stars.extra[:, stars.names.index(name)]
        reach = float(value * np.ptp(np.percentile(column, [5, 95])))
        if abs(reach) > _HINT:
            notes.append(_HINTS[name].format(reach=reach, value=value))
    return notes
