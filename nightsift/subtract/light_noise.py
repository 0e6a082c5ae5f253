"""The noise of a difference on the light of stars and galaxies, learnt from the difference itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import pairwise

import numpy as np

LEVELS = (
    1.0,
    3.0,
    10.0,
    30.0,
    100.0,
    300.0,
    1000.0,
)  # of the light beneath in units of the sky's noise: bins of the samples
MOST = 1200  # samples of a level
OUTLIERS, FAR = 0.05, 8.0  # fraction of the samples on what has changed or moved; how much further out they lie
PASSES, CHANGED = 2, 6.0  # S/N that noise makes nowhere
MOSTLY = 0.5  # share of the samples of a level that is no outlier
FEW = 20.0  # independent places of a level, which tell its scatter to a sixth
FEWEST = 100  # samples of empty sky; with fewer all serve
SHIFT = 0.01  # in FWHM, that two good images leave: scale of the prior
FLUX_ERROR = 0.3  # natural logarithm: how well clean stars tell the relative error of what was subtracted
GAIN_ERROR = 0.04  # natural logarithm: how well photon noise is known where the gain is
GRID = np.concatenate([[0.0], np.geomspace(1 / 16, 16, 17)])  # factors of a value that the search tries first
FACTORS = np.geomspace(0.5, 4, 13)
FINER, FINEST = np.geomspace(0.75, 1 / 0.75, 9), np.geomspace(0.94, 1 / 0.94, 7)
LAST = np.geomspace(0.985, 1 / 0.985, 5)


class Gains(Enum):
    """Which gains are known: without the image's, its photon noise may be any, without the template's, more."""

    BOTH = "both"
    IMAGE = "image"
    NONE = "none"


@dataclass(frozen=True)
class LightNoise:
    """What makes up the variance of a difference beyond the noise of its sky.

    Attributes
    ----------
    sky : float
        Factor of the standard deviation that both images' sky noise predicts.
    photons : float
        Factor of the variance that the photons of the light beneath predict.
    flux : float
        Relative error of what was subtracted, the same over a PSF.
    shift : float
        Error of its position, pixels.
    levels : tuple of float
        Factors of both at the logarithmic middle of each of `LEVELS` and the next one: what is left of bright stars is
        less, relative to them, than of faint ones.
    """

    sky: float = 1.0
    photons: float = 1.0
    flux: float = 0.0
    shift: float = 0.0
    levels: tuple[float, ...] = (1.0,) * len(LEVELS)

    def factor(self, level) -> np.ndarray:
        """Return the factor of what is left at levels of light in units of the sky's noise."""
        middles = np.log(LEVELS) + np.log(LEVELS[1] / LEVELS[0]) / 2
        result = np.full(np.shape(level), self.levels[0], np.float32)
        # Most of an image is darker than the middle of the first.
        bright = np.asarray(level) > np.exp(middles[0])
        result[bright] = np.interp(np.log(np.asarray(level)[bright]), middles, self.levels)
        return result


@dataclass(frozen=True)
class Samples:
    """Places of a difference whose matched filter tells of the noise: 1-D arrays.

    Attributes
    ----------
    numerator : array
        Of the matched filter.
    sky, photons : array
        Variance of it that sky noise and photons of the light beneath are expected to make.
    flux, shift : array
        What a relative error of 1 of the light beneath, and a shift by one pixel, would make of it.
    left : array
        What may be left in any case, around bright stars, say.
    level : array
        Light beneath in units of the sky's noise of a pixel.
    snr, around : array
        Absolute S/N by the noise as it is expected, there and at most within one FWHM.
    lit : bool array
        Light lies beneath, or within one FWHM.
    """

    numerator: np.ndarray
    sky: np.ndarray
    photons: np.ndarray
    flux: np.ndarray
    shift: np.ndarray
    left: np.ndarray
    level: np.ndarray
    snr: np.ndarray
    around: np.ndarray
    lit: np.ndarray

    def __getitem__(self, chosen) -> Samples:
        return Samples(**{name: value[chosen] for name, value in vars(self).items()})

    def variance(self, noise: LightNoise) -> np.ndarray:
        """Return the variance of the numerators by a noise model."""
        left = noise.factor(self.level) ** 2 * ((noise.flux * self.flux) ** 2 + (noise.shift * self.shift) ** 2)
        left += self.left**2
        return noise.sky**2 * self.sky + noise.photons * self.photons + left


def joined(parts: Sequence[Samples]) -> Samples:
    """Return several samples as one."""
    return Samples(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])})


def light_noise(samples: Samples, quiet, fwhm: float, area: float, gains: Gains, scatter: float) -> LightNoise:
    """Find the noise model under which the S/N of all samples is that of noise.

    Parameters
    ----------
    samples : Samples
    quiet : 1-D bool array
        Which of them are on empty sky.
    fwhm : float
        Of the PSF, pixels.
    area : float
        Pixels of the image that stand behind one sample.
    gains : Gains
        What `Samples.photons` and the sky's noise know of photons.
    scatter : float
        Of the fluxes that clean stars have left, relative to theirs.

    Returns
    -------
    LightNoise
        The one of largest posterior probability. The likelihood is that of Gaussian errors with a fraction of outliers:
        what varies or moves is none of the noise. Neighbouring samples tell the same, and count accordingly. The priors
        hold where there is little light to learn from: log-normal ones of `FLUX_ERROR` and `GAIN_ERROR`, and a Cauchy
        distribution of the scale `SHIFT`.
    """
    sky = samples[quiet] if quiet.sum() >= FEWEST else samples
    light = samples[samples.level >= LEVELS[0]]
    noise = LightNoise(flux=scatter)
    noise = replace(noise, sky=_sky(noise, sky))
    for _ in range(PASSES):
        noise = _fitted(noise, sky, _unchanged(light, noise), area / fwhm**2, fwhm, gains, scatter)
    return noise


def _unchanged(light: Samples, noise: LightNoise) -> Samples:
    """Leave out what stands out by a noise: it varies, or moves, or is new.

    Where most of a level does, that is noise. What clean stars tell is the first noise: by one that all samples have
    told, changes hide each other.
    """
    kept = light.around * np.sqrt((light.sky + light.photons) / light.variance(noise)) < CHANGED
    for low, high in pairwise((*LEVELS, np.inf)):
        here = (light.level >= low) & (light.level < high)
        if here.any() and kept[here].mean() < MOSTLY:
            kept |= here
    return light[kept]


def _fitted(noise, sky: Samples, light: Samples, independent: float, fwhm, gains, scatter) -> LightNoise:
    few, weight = _thinned(light)
    weight *= min(1.0, independent)
    noise = replace(noise, levels=(1.0,) * len(LEVELS))
    for factors in (GRID, FINER, FINEST, LAST):
        noise = replace(noise, sky=_sky(noise, sky))
        for name, unit in {"photons": 1.0, "flux": scatter, "shift": 3 * SHIFT * fwhm}.items() if len(weight) else ():
            start = unit if factors is GRID else getattr(noise, name)
            trials = [replace(noise, **{name: start * factor}) for factor in factors]
            noise = max(trials, key=lambda one: _posterior(one, few, weight, fwhm, gains, scatter))
    noise = replace(noise, sky=_sky(noise, sky))
    return replace(noise, levels=_levels(noise, light, independent))


def _levels(noise: LightNoise, samples: Samples, independent: float) -> tuple[float, ...]:
    """Return the factors for which the S/N of each level scatters by 1, drawn to 1 where there are few places."""
    factors = []
    for low, high in pairwise((*LEVELS, np.inf)):
        part = samples[(samples.level >= low) & (samples.level < high)]
        number = independent * len(part.level)
        if number < FEW:
            factors.append(1.0)
            continue
        plain = part.variance(replace(noise, levels=(0.0,) * len(LEVELS)))
        left = part.variance(replace(noise, levels=(1.0,) * len(LEVELS))) - plain
        pulls = (part.numerator / np.sqrt(plain + k**2 * left) for k in FACTORS)
        width = [np.diff(np.percentile(pull, [15.865, 84.135]))[0] / 2 for pull in pulls]
        best = np.exp(np.interp(-1.0, -np.array(width), np.log(FACTORS)))
        factors.append(float(best ** (number / (number + FEW))))
    return tuple(factors)


def _thinned(samples: Samples) -> tuple[Samples, np.ndarray]:
    """Choose among the samples on light, of each level as many; return what number each stands for, too."""
    rng = np.random.default_rng(0)
    chosen, weight = [np.zeros(0, int)], [np.zeros(0)]
    for low, high in pairwise((*LEVELS, np.inf)):
        every = np.flatnonzero((samples.level >= low) & (samples.level < high))
        few = np.sort(rng.choice(every, MOST, replace=False)) if len(every) > MOST else every
        chosen.append(few)
        weight.append(np.full(len(few), len(every) / max(len(few), 1)))
    return samples[np.concatenate(chosen)], np.concatenate(weight)


def _sky(noise: LightNoise, quiet: Samples) -> float:
    """Return the factor for which half the distance of the 16th and 84th percentiles of the S/N of empty sky is 1."""
    beyond = quiet.variance(replace(noise, sky=0.0))
    numerator = quiet.numerator - np.median(quiet.numerator)
    low, high = 0.02, 50.0
    for _ in range(16):
        sky = np.sqrt(low * high)
        wide = np.diff(np.percentile(numerator / np.sqrt(sky**2 * quiet.sky + beyond), [15.865, 84.135]))[0] > 2
        low, high = (sky, high) if wide else (low, sky)
    return float(sky)


def _posterior(noise: LightNoise, light: Samples, weight, fwhm: float, gains: Gains, scatter: float) -> float:
    """Logarithm, up to a constant."""
    square, variance = light.numerator**2, light.variance(noise)
    inner = (1 - OUTLIERS) * np.exp(-square / (2 * variance))
    outer = OUTLIERS / FAR * np.exp(-square / (2 * FAR**2 * variance))
    likelihood = np.sum(weight * (np.log(np.maximum(inner + outer, 1e-300)) - np.log(variance) / 2))
    prior = -((np.log(max(noise.flux, 1e-5) / scatter) / FLUX_ERROR) ** 2) / 2
    prior -= np.log1p((noise.shift / (SHIFT * fwhm)) ** 2)
    if gains is Gains.IMAGE and noise.photons < 1:
        return -np.inf
    if gains is Gains.BOTH:
        prior -= (np.log(max(noise.photons, 1e-3)) / GAIN_ERROR) ** 2 / 2
    return likelihood + prior
