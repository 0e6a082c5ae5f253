"""Noise and S/N of a whole difference: of its sky, and of what lies on light."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from nightsift.image.convolve import Bank, convolve
from nightsift.image.correlation import carried, summed
from nightsift.image.maxima import maxima
from nightsift.image.tiles import Tile, largest, tiles
from nightsift.statistics import SIGMA_PER_MAD
from nightsift.subtract.halo import Halo
from nightsift.subtract.images import RawDifference
from nightsift.subtract.light_noise import LEVELS, Gains, LightNoise, Samples, joined, light_noise
from nightsift.subtract.matched_filter import MatchedFilter, Noise

LEARNING = 1.2e6  # pixels that the noise is learnt from, about, where an image has more
PLACES = 2**18  # of an image whose samples tell its noise
SPARSE = 4  # times as far apart as on light are the places of empty sky, which is most of an image
SEEN = 3.0  # sigma of a pixel from which on light beneath is no noise of the template
SMOOTH = 2.5  # FWHM: the box, applied twice, that takes from a point source nearly all of its peak
WINGS = 3.0  # FWHM: how far the light of a point source matters
SCALE_ERROR = 0.003  # of the flux scale, the same for all light however smooth: no two images agree better
BUSY = 4.0  # scatters of the S/N that speak for more than noise


@dataclass(frozen=True)
class Planes:
    """Standard deviation of the pixels, S/N and its response to 1 `unit` of level; correlation at usable pixels."""

    sigma: np.ndarray
    snr: np.ndarray
    response: np.ndarray
    unit: float
    correlations: list[np.ndarray]  # of each tile

    @property
    def correlation(self) -> float:
        """Median over the image."""
        return float(np.median(np.concatenate(self.correlations)))


@dataclass(frozen=True)
class Beneath:
    """What a difference stands on.

    Attributes
    ----------
    raw : Raw
    usable : 2-D bool array
        Pixels that count.
    gain : float or None
        e-/ADU of the image.
    photons : bool
        The template's noise holds that of its sources' photons.
    halo : Halo
        What has been taken out around bright stars.
    psf : (side, side) array
        PSF of the difference.
    fwhm : float
        Its FWHM, pixels.
    """

    raw: RawDifference
    usable: np.ndarray
    gain: float | None
    photons: bool
    halo: Halo
    psf: np.ndarray
    fwhm: float


@dataclass(frozen=True)
class _Piece:
    """A tile and what is around it: variances (ADU^2) of the images' sky, of which `smoothed` is that before the
    convolution, and of the photons of the light beneath; that light, and what may be left of it in any case (ADU)."""

    tile: Tile
    white: np.ndarray
    smoothed: np.ndarray
    photons: np.ndarray
    light: np.ndarray
    left: np.ndarray


class _Filter:
    """The matched filter of a difference, and what it filters, a tile at a time."""

    def __init__(self, beneath: Beneath):
        self.beneath, raw, kernel = beneath, beneath.raw, beneath.raw.kernel
        shape = raw.data.shape
        reach = (SMOOTH + WINGS + 0.5) * beneath.fwhm
        margin = max(2 * (kernel.shape[0] // 2), int(np.ceil(reach))) + beneath.psf.shape[0] // 2 + 1
        most = largest(shape, margin)
        self.tiles = tiles(shape, margin)
        both = raw.white_correlation, raw.smoothed_correlation
        self.smear = Bank([kernel * carried(kernel, both[1])], most)
        self.point = MatchedFilter(beneath.psf, kernel, most, *both)
        # A pixel of resampled noise has less of the photons' than it has of them.
        self._electrons = beneath.gain and beneath.gain * summed(both[0] if raw.forward else both[1])
        few = (slice(None, None, 8),) * 2
        smoothed = raw.smoothed[few] * np.sqrt(np.sum(kernel * carried(kernel, both[1])))
        # As good as the pixels' noise, for what is light and what is noise of the template.
        self.noise = float(np.median(np.hypot(raw.white[few], smoothed) * raw.factor(*few)))
        point = np.pad(beneath.psf, margin)
        self._peak = float((point - self._mean(point)).max() / point.max())

    def pieces(self, chosen: list[Tile]) -> Iterator[_Piece]:
        raw, gain = self.beneath.raw, self._electrons
        for tile in chosen:
            around = tile.around
            factor, model = raw.factor(*around), raw.model[around]
            # A gain that nobody tells is learnt: this is about what a camera would have that counts its sky's photons.
            photons = np.maximum(ndimage.uniform_filter(model, 3), 0) * np.float32(1 / gain if gain else self.noise)
            light = np.maximum(model, 0)
            light *= light**2 / (light**2 + np.float32(SEEN * self.noise) ** 2)
            yield _Piece(
                tile=tile,
                white=(raw.white[around] * factor) ** 2,
                smoothed=(raw.smoothed[around] * factor) ** 2,
                photons=photons if raw.forward else photons * factor**2,
                light=light,
                left=np.hypot(self.beneath.halo.left(*around), self._unknown(tile, light)),
            )

    def _unknown(self, tile: Tile, light: np.ndarray) -> np.ndarray:
        """Return what the flux scale's error leaves of the light, and what the convolution of unseen pixels may."""
        raw, half = self.beneath.raw, self.beneath.raw.kernel.shape[0] // 2
        pad = (raw.unseen.shape[0] - raw.data.shape[0]) // 2
        wide = tuple(slice(part.start + pad - half, part.stop + pad + half) for part in tile.around)
        if not pad or not raw.unseen[wide].any():
            return SCALE_ERROR * light
        # As bright as the pixels beside them.
        hidden = maxima(np.pad(light, half, mode="edge"), 2 * int(np.rint(self.beneath.fwhm / 2)) + 1)
        weight = np.abs(raw.kernel) / np.abs(raw.kernel).sum()
        leaked = convolve(np.where(raw.unseen[wide], hidden, 0), weight)
        return np.hypot(SCALE_ERROR * light, leaked[half : half + light.shape[0], half : half + light.shape[1]])

    def _mean(self, light: np.ndarray) -> np.ndarray:
        """Return the mean over a few FWHM."""
        wide = 2 * int(np.rint(SMOOTH * self.beneath.fwhm / 2)) + 1
        return ndimage.uniform_filter(ndimage.uniform_filter(light, wide), wide)

    def sharp(self, light: np.ndarray) -> np.ndarray:
        """Return the light, wings included, of what is as sharp as a point source; less of what is broader."""
        fwhm = self.beneath.fwhm
        peaks = np.maximum(light - self._mean(light), 0) / np.float32(self._peak)
        result = np.minimum(light, maxima(peaks, 2 * int(np.ceil(WINGS * fwhm)) + 1))
        # Rings and dipoles of a star reach as far as its own core is wide.
        return maxima(result, 2 * int(np.rint(0.4 * fwhm)) + 1)

    def level(self, light: np.ndarray) -> np.ndarray:
        """Return the light in units of the sky's noise."""
        return maxima(light, 3) / np.float32(self.noise)

    def residuals(self, piece: _Piece, noise: LightNoise) -> Iterator[np.ndarray]:
        """Yield what may be left of the light, by cause."""
        if piece.left.any():
            yield piece.left
        if noise.flux or noise.shift:
            more = noise.factor(self.level(piece.light))
        if noise.flux:
            yield np.float32(noise.flux) * more * self.sharp(piece.light)
        if noise.shift:
            yield np.float32(noise.shift) * more * _slope(piece.light)

    def variance(self, piece: _Piece, noise: LightNoise) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the variance of a pixel, and what of it is independent, and what was before the convolution."""
        sky, photons = np.float32(noise.sky**2), np.float32(noise.photons)
        forward = self.beneath.raw.forward
        white = sky * piece.white + photons * piece.photons if forward else sky * piece.white
        smoothed = sky * piece.smoothed if forward else sky * piece.smoothed + photons * piece.photons
        return next(self.smear(smoothed)) + white, white, smoothed


def _slope(light: np.ndarray) -> np.ndarray:
    """Return the change of the light from pixel to pixel."""
    down, across = np.gradient(light)
    down *= down
    across *= across
    down += across
    return np.sqrt(down, out=down)


def learnt(beneath: Beneath, scatter: float) -> LightNoise:
    """Learn from a difference what its noise is, on sky and on light.

    Parameters
    ----------
    beneath : Beneath
    scatter : float
        Of the fluxes that clean stars have left, relative to theirs.
    """
    every = _Filter(beneath)
    step = max(1, int(np.ceil(np.sqrt(beneath.usable.size / PLACES))))
    chosen = every.tiles[:: int(np.ceil(beneath.usable.size / LEARNING))]
    parts, places = zip(*(_sampled(every, piece, step) for piece in every.pieces(chosen)), strict=True)
    # In an order, and with a choice of quiet places, that the tiles do not matter for.
    samples = joined(parts)[np.argsort(np.concatenate(places))]
    dark = ~samples.lit
    spread = SIGMA_PER_MAD * float(np.median(samples.snr[dark])) if dark.any() else 1.0
    quiet = dark & (samples.around < BUSY * max(1.0, spread))
    return light_noise(samples, quiet, beneath.fwhm, step**2, _gains(beneath), scatter)


def _gains(beneath: Beneath) -> Gains:
    if beneath.gain is None:
        return Gains.NONE
    return Gains.BOTH if beneath.photons else Gains.IMAGE


def _sampled(every: _Filter, piece: _Piece, step: int) -> tuple[Samples, np.ndarray]:
    """Return samples of a tile, and the numbers of their pixels."""
    beneath, tile = every.beneath, piece.tile
    forward, usable = beneath.raw.forward, beneath.usable[tile.around]
    white = [piece.white, piece.photons] if forward else [piece.white]
    smoothed = [piece.smoothed] if forward else [piece.smoothed, piece.photons]
    coherent = [every.sharp(piece.light), _slope(piece.light), piece.left]
    variance = every.variance(piece, LightNoise())[0]
    data = beneath.raw.data[tile.around]
    numerator, *made, flux, shift, left = every.point.parts(data, usable, variance, white, smoothed, coherent)
    sky, photons = (made[0] + made[2], made[1]) if forward else (made[0] + made[1], made[2])
    good = usable & (sky > 0)
    snr = np.where(good, np.abs(numerator) / np.sqrt(np.where(good, sky + photons, 1)), 0)
    wide = 2 * int(np.ceil(beneath.fwhm)) + 1
    lit = maxima(beneath.raw.model[tile.around] > SEEN * every.noise, wide)
    level = every.level(piece.light)
    rows, columns = (np.arange(part.start, part.stop) for part in tile.own)
    fine = (rows[:, None] % step == 0) & (columns % step == 0) & (level[tile.inside] >= LEVELS[0])
    coarse = (rows[:, None] % (SPARSE * step) == 0) & (columns % (SPARSE * step) == 0)
    here = (fine | coarse) & good[tile.inside]
    planes = (numerator, sky, photons, flux, shift, left, level, snr, maxima(snr, wide), lit)
    number = rows[:, None] * beneath.usable.shape[1] + columns
    return Samples(*(plane[tile.inside][here] for plane in planes)), number[here]


def significance(beneath: Beneath, noise: LightNoise, before: Planes | None = None, changed=None) -> Planes:
    """Work out noise and S/N, a tile at a time.

    Parameters
    ----------
    beneath : Beneath
    noise : LightNoise
    before : Planes, optional
        What was found before some pixels changed: brought up to date in place.
    changed : 2-D bool array, optional
        Which ones did.
    """
    every = _Filter(beneath)
    raw, usable = beneath.raw, beneath.usable
    shape = raw.data.shape
    if before is None:
        unit = float(np.median(raw.white[::8, ::8]))
        # The response is of the little that is left of the background.
        planes = (np.empty(shape, kind) for kind in (np.float32, np.float32, np.float16))
        before = Planes(*planes, unit, [np.zeros(0, np.float32)] * len(every.tiles))
    numbers = [i for i, tile in enumerate(every.tiles) if changed is None or changed[tile.around].any()]
    for i, piece in zip(numbers, every.pieces([every.tiles[i] for i in numbers]), strict=True):
        around, own, inside = piece.tile.around, piece.tile.own, piece.tile.inside
        variance, white, smoothed = every.variance(piece, noise)
        about = Noise(white, smoothed, raw.kernel, every.residuals(piece, noise))
        found = every.point(raw.data[around], usable[around], variance, about)
        np.sqrt(variance[inside], out=before.sigma[own])
        before.snr[own] = found.snr[inside]
        np.multiply(found.response[inside], before.unit, out=before.response[own], casting="same_kind")
        before.correlations[i] = found.correlation[inside][::4][usable[own][::4]]
    return before
