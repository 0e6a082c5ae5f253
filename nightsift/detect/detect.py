"""Stage `detect`: find the objects of an image and measure them in an aperture with a local background."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import sep
from astropy.table import Table
from scipy import ndimage
from scipy.spatial import cKDTree

from nightsift import parameters
from nightsift.detect.aperture import Aperture, circle_sums, measure
from nightsift.detect.ghosts import doubled, near
from nightsift.errors import Rejected
from nightsift.flags import HIDDEN, UNUSABLE, Flag, Mask
from nightsift.image.background import background
from nightsift.image.correlation import WHITE, factor, noise_correlation
from nightsift.image.cosmics import sharpest_star
from nightsift.image.seeing import Seeing, centroids, seeing, star_width, widest, widths
from nightsift.image.stamps import crowded, pair_ratios
from nightsift.image.trails import Trail, crossing, without_trails
from nightsift.image.unit_noise import fluxes, in_units, pixel_unit

# FWHM of the detection filter, in that of the stars, by objects in a square of one FWHM: a filter as wide as the stars
# joins neighbours, a narrow one tears galaxies apart.
CROWDING, FILTER = (0.01, 0.025), (0.55, 0.3)
PROMISING = 0.75  # of the aperture S/N asked for, for the S/N of the peak behind a matched filter
FEWEST = 5  # stars that their width rests on safely
MOST_BRIGHT = 2000  # objects that the stars' width is sought among
LEVELS, CONTRAST = 32, 0.001  # of the deblending: thresholds, and least fraction of the flux that makes an object
# Mean of two opposite neighbours, relative to the peak (0.16 for a star of FWHM 1 pixel), or to that of the image's
# sharpest star where this is less.
SINGLE, SHARPER = 0.1, 0.6
LIT_MARGIN = 3  # pixels around the footprint of an object that hold its light too
DUPLICATES = 0.3  # FWHM below which two objects have found the same place
PLAIN_SNR, MOST_PLAIN = 50.0, 60  # of the stars whose median may show a companion
STREAK, SLIM = 5.0, 5.0  # semi-major axis in FWHM, and ratio of the axes, of what may be a piece of a trail


@dataclass(frozen=True)
class Detection:
    """Objects of an image.

    Attributes
    ----------
    objects : Table
        Schema ``detections``, sorted by flux, the brightest first.
    seeing : Seeing
        FWHM over the image.
    aperture : float
        Radius of the aperture, pixels.
    background_level, noise : float
        Median background and standard deviation of a sky pixel, ADU.
    trails : tuple of Trail
        Whose light was taken out of the image before its objects were found and measured.
    warnings : tuple of str
    correlation : 2-D array
        Autocorrelation of the noise: see `nightsift.image.correlation`.
    """

    objects: Table
    seeing: Seeing
    aperture: float
    background_level: float
    noise: float
    trails: tuple[Trail, ...] = ()
    warnings: tuple[str, ...] = ()
    correlation: np.ndarray = field(default_factory=lambda: WHITE)


def detect(
    data: np.ndarray, mask: np.ndarray, gain: float | None, params: parameters.DetectConfig, find=None
) -> Detection:
    """Find and measure the objects of an image.

    Parameters
    ----------
    data : 2-D float32 array
        Image, ADU.
    mask : 2-D integer array
        `nightsift.flags.Mask` bits.
    gain : float or None
        e-/ADU; None leaves the objects' own photon noise out.
    params : parameters.Detect
    find : callable, optional
        What finds the objects, with the arguments and the result of `extract`, which it is by default.

    Raises
    ------
    Rejected
        If there is no object, or if it is a double exposure.
    """
    size = pixel_unit(data, mask != 0)
    own = _detect(in_units(data, size), mask, gain and gain * size, params, find or extract)
    return replace(
        own,
        objects=fluxes(own.objects, 1 / size),
        background_level=own.background_level * size,
        noise=own.noise * size,
    )


def _detect(data, mask, gain, params, find) -> Detection:
    hidden = (mask & int(HIDDEN)) != 0
    seen = _seen(data, mask, find, params)
    image, noise, found, guess = seen.image, seen.noise, seen.objects, seen.guess
    if not len(found):
        raise Rejected("no object rises above the noise")
    lit = _lit(found, seen.segments, seen.rough * float(np.median(noise)))
    touched = np.bincount(seen.segments[mask != 0], minlength=len(found) + 1)[1:] > 0
    # Nine of ten are peaks of the noise. Aperture and filter share most of that: none has twice the S/N in the other.
    lost = 2 * seen.ratio / (1 + seen.ratio**2)
    promising = found["cpeak"] > PROMISING * lost * min(params.min_snr, 5.0) / max(1.0, params.aperture)
    found, touched, parent = found[promising], touched[promising], _parents(seen.segments, found)[promising]
    found["x"], found["y"] = _centroids(image, found, hidden, guess)
    alone = ~_duplicates(found, DUPLICATES * guess)
    found, touched, parent = found[alone], touched[alone], parent[alone]
    width = widths(image, found["x"], found["y"], guess, hidden)
    bright = _bright(image, found, mask, float(np.median(noise)), seen.single)
    # Knots of nebulae may be many and all have the greatest width that is measured: where there are others, these are
    # the stars.
    narrow = bright & (width < 0.99 * widest(guess))
    shape = seeing(found["x"], found["y"], width, narrow if narrow.sum() >= FEWEST else bright, data.shape)
    if not np.isfinite(shape.fwhm):
        raise Rejected("no object is wider than a pixel: nothing here looks like a star")
    radii = (r * shape.fwhm for r in (params.aperture, params.annulus_inner, params.annulus_outer))
    aperture = Aperture(*radii, shape.fwhm)
    measured = measure(image, noise, mask, found["x"], found["y"], gain, aperture, lit, seen.correlation)
    objects = _table(found, width, measured, touched)
    kept = objects["snr"] >= params.min_snr
    if not kept.any():
        raise Rejected(f"none of {len(objects)} detections reaches S/N {params.min_snr:g}")
    objects, parent = objects[kept], parent[kept]
    # By those that stay: peaks of the noise are no neighbours.
    objects["flags"][np.bincount(parent)[parent] > 1] |= int(Flag.DEBLENDED)
    close = crowded(objects["x"], objects["y"], objects["flux"], 2 * aperture.radius, 0.1)
    objects["flags"][close] |= int(Flag.CROWDED)
    objects = objects[np.argsort(-np.asarray(objects["flux"]), kind="stable")]
    pairs = doubled(*(objects[name] for name in ("x", "y", "flux", "snr")), shape.fwhm, _ellipses(objects))
    if pairs is None or pairs.fraction <= params.max_doubled:
        pairs = near(image, *plain(objects, shape.fwhm), shape.fwhm)
    if pairs is not None and pairs.fraction > params.max_doubled:
        raise Rejected(f"a double exposure: {pairs}")
    warnings = () if shape.n_stars >= FEWEST else (f"FWHM from {shape.n_stars} stars only",)
    levels = seen.level, float(np.median(noise))
    return Detection(objects, shape, aperture.radius, *levels, seen.trails, warnings, seen.correlation)


def plain(objects: Table, fwhm: float):
    """Return the positions of the brightest stars that are neither unusable nor of another width."""
    # Only the pixels around the cores are looked at: no flux.
    excluded = UNUSABLE & ~(Flag.APERTURE_MASKED | Flag.ANNULUS_BAD)
    good = ((np.asarray(objects["flags"]) & int(excluded)) == 0) & (np.asarray(objects["snr"]) > PLAIN_SNR)
    good &= np.abs(np.asarray(objects["fwhm"]) / fwhm - 1) < 0.3
    rows = np.flatnonzero(good)[:MOST_PLAIN]
    return np.asarray(objects["x"])[rows], np.asarray(objects["y"])[rows]


def _ellipses(objects: Table) -> np.ndarray:
    return np.array([objects[name] for name in ("a", "b", "theta")], float)


@dataclass(frozen=True)
class _Seen:
    """An image without background and trails, its noise, and what `extract` returns for it.

    ``guess`` is the stars' rough FWHM in pixels, ``ratio`` the filter's in units of it, ``single`` the limit for
    `_single_pixels`; ``correlation`` is the noise's, and ``rough`` by what white noise underrates it behind the filter.
    """

    image: np.ndarray
    noise: np.ndarray
    level: float
    trails: tuple[Trail, ...]
    objects: np.ndarray
    segments: np.ndarray
    guess: float
    ratio: float
    single: float
    correlation: np.ndarray
    rough: float


def _seen(data, mask, find, params) -> _Seen:
    """Find the objects; where some may be pieces of trails, again without these."""
    hidden, bad = (mask & int(HIDDEN)) != 0, mask != 0

    def flat(data, sky):
        return np.where(hidden, 0, data - sky.level).astype(np.float32)

    sky = background(data, bad, params.background_size)
    image, noise, trails = flat(data, sky), sky.noise, ()
    unusable = hidden | ((mask & int(Mask.SATURATED)) != 0)
    single = min(SINGLE, SHARPER * sharpest_star(image, float(np.median(noise)), unusable).side)
    guess, crowding = _first_look(image, noise, unusable, params.min_area, single)
    ratio = float(np.interp(crowding, CROWDING, FILTER))
    correlation = noise_correlation(image, noise, bad, guess)
    rough = factor(detection_filter(ratio * guess)[0], correlation)
    found, segments = find(image, noise * np.float32(rough), ratio * guess, params)
    if np.any((found["a"] > STREAK * guess) & (found["a"] > SLIM * found["b"])):
        trails = crossing(image, noise, ~bad, guess)
    if trails:
        data, trail_noise = without_trails(data, bad, params.background_size, trails, guess)
        sky = background(data, bad, params.background_size)
        image, noise = flat(data, sky), np.hypot(sky.noise, trail_noise)
        found, segments = find(image, noise * np.float32(rough), ratio * guess, params)
    level = float(np.median(sky.level))
    return _Seen(image, noise, level, trails, found, segments, guess, ratio, single, correlation, rough)


def extract(image, noise, fwhm: float, params: parameters.DetectConfig):
    """Return the objects of an image and their footprints, by SEP.

    Parameters
    ----------
    image, noise : 2-D float32 arrays
        Background-subtracted image, 0 where hidden, and standard deviation of its sky pixels, ADU.
    fwhm : float
        Of the filter, pixels.
    params : parameters.Detect

    Returns
    -------
    found : structured array
        ``x, y, a, b, theta, npix, flux, peak, xpeak, ypeak, xcpeak, ycpeak, flag`` as SEP has them; ``cpeak`` is the
        S/N of the peak in the filtered image.
    segments : 2-D integer array
        0, or the row of the object that the pixel belongs to, from 1.
    """
    kernel, scale = detection_filter(fwhm)
    # Without the mask: hidden pixels are 0, and belong to footprints like any others.
    # In units of the noise its "conv" is a matched filter; SEP's own, "matched", takes ten times as long.
    found, segments = _with_room(
        in_sigma(image, noise),
        params.threshold * scale,
        minarea=params.min_area,
        filter_kernel=kernel,
        filter_type="conv",
        deblend_nthresh=LEVELS,
        deblend_cont=CONTRAST,
        segmentation_map=True,
        clean=False,  # SExtractor's cleaning takes faint stars for wings of neighbours 7 FWHM away
    )
    found["cpeak"] /= scale
    local = noise[found["ypeak"], found["xpeak"]]
    found["flux"] *= local
    found["peak"] *= local
    return found, segments


def detection_filter(fwhm: float) -> tuple[np.ndarray, float]:
    """Return the filter of that FWHM (pixels), and the standard deviation of white noise of 1 behind it."""
    kernel = gaussian_kernel(fwhm)
    return kernel, float(np.sqrt(np.sum(kernel**2)))


def in_sigma(image, noise) -> np.ndarray:
    """Return an image in units of its noise; 0 where that is 0."""
    return np.divide(image, noise, out=np.zeros_like(image), where=noise > 0)


def _with_room(image, threshold, **options):
    """Run SEP with larger and larger buffers."""
    for fraction, children in ((8, 8192), (2, 32768), (1, 131072)):
        sep.set_extract_pixstack(max(1_000_000, image.size // fraction))
        sep.set_sub_object_limit(children)
        try:
            return sep.extract(image, threshold, **options)
        except MemoryError:
            break
        except Exception as error:  # of SEP's own making, and no narrower class
            if "full" not in str(error) and "overflow" not in str(error):
                raise
    raise Rejected("too much of the image lies above the threshold")


def _first_look(image, noise, bad, min_area, single) -> tuple[float, float]:
    """Return the FWHM of the brighter stars, and the number of objects in a square of it."""
    found = _with_room(image, 5.0, err=noise, mask=bad, minarea=min_area, deblend_nthresh=8)
    number = len(found) / max(1, np.count_nonzero(~bad))
    touched, _ = circle_sums(bad, found["x"], found["y"], 3.0)
    found = found[(found["flag"] == 0) & (found["npix"] >= 5) & (touched == 0) & ~_single_pixels(image, found, single)]
    fwhm = 3.0
    # By the peak: by the flux, galaxies would come first.
    brightest = found[np.argsort(-found["peak"], kind="stable")[:200]]
    for _ in range(2 if len(found) >= 5 else 0):
        fwhm = float(np.clip(star_width(_finite(widths(image, brightest["x"], brightest["y"], fwhm))), 1.2, 12))
    return fwhm, number * fwhm**2


def _finite(values):
    kept = values[np.isfinite(values)]
    return kept if len(kept) else np.array([3.0])


def gaussian_kernel(fwhm: float) -> np.ndarray:
    """Return a Gaussian of unit sum and that FWHM (pixels) on a small odd grid."""
    half = int(np.ceil(1.2 * fwhm))
    r = np.arange(-half, half + 1)
    line = np.exp(-4 * np.log(2) * (r / fwhm) ** 2)
    kernel = np.outer(line, line)
    return kernel / kernel.sum()


def _centroids(image, found, hidden, fwhm):
    """Gaussian-windowed centroids, nearly as good as a PSF fit; the isophotal ones where these run away."""
    x, y = centroids(image, found["x"], found["y"], fwhm, hidden)
    reach = max(1.0, 0.5 * fwhm)
    stays = np.hypot(x - found["x"], y - found["y"]) < reach
    # The isophotal ones of faint stars are drawn off by peaks of the noise that their footprints have merged with.
    stays |= np.hypot(x - found["xcpeak"], y - found["ycpeak"]) < reach
    return np.where(stays, x, found["x"]), np.where(stays, y, found["y"])


def _duplicates(found, radius: float) -> np.ndarray:
    """Tell which objects have the place of a brighter one: their centroids have run to the same peak."""
    pairs = cKDTree(np.column_stack([found["x"], found["y"]])).query_pairs(radius, output_type="ndarray")
    fainter = found["flux"][pairs[:, 0]] < found["flux"][pairs[:, 1]]
    duplicates = np.zeros(len(found), bool)
    duplicates[np.where(fainter, pairs[:, 0], pairs[:, 1])] = True
    return duplicates


def _lit(found, segments, noise):
    """Pixels of significant objects and their outskirts; those of faint ones are mostly where the noise is high."""
    significant = np.append(False, found["flux"] > 5 * noise * np.sqrt(found["npix"]))
    return ndimage.binary_dilation(significant[segments], iterations=LIT_MARGIN)


def _parents(segments, found) -> np.ndarray:
    """Number the connected footprints; objects that share one were deblended from each other."""
    joined, _ = ndimage.label(segments > 0, np.ones((3, 3)))
    return joined[found["ypeak"], found["xpeak"]]


def _single_pixels(image, found, limit: float) -> np.ndarray:
    """Tell hot pixels and hits: the peak's neighbours along a row or column are darker than beside any star."""
    return pair_ratios(image, found["ypeak"], found["xpeak"])[:2].min(axis=0) < limit


def _bright(image, found, mask, noise: float, single: float) -> np.ndarray:
    """Tell which detections have the highest peaks, no masked pixel or border near the core, and light on all sides."""
    touched, _ = circle_sums(mask != 0, found["x"], found["y"], 3.0)
    good = (found["flag"] & ~sep.OBJ_MERGED == 0) & (touched == 0) & (found["npix"] > 4)
    good &= (found["flux"] > 20 * found["npix"] ** 0.5 * noise) & ~_single_pixels(image, found, single)
    if good.sum() > MOST_BRIGHT:
        good &= found["peak"] >= np.partition(found["peak"][good], -MOST_BRIGHT)[-MOST_BRIGHT]
    return good


def _table(found, width, measured, touched) -> Table:
    flags = measured["flags"] | _shape_flags(found["flag"])
    flags[touched] |= int(Flag.FOOTPRINT_MASKED)
    fluxerr = measured["fluxerr"]
    columns = {
        "x": found["x"],
        "y": found["y"],
        "flux": measured["flux"],
        "fluxerr": fluxerr,
        "snr": measured["flux"] / np.where(fluxerr > 0, fluxerr, np.inf),
        "fwhm": width,
        "flags": flags,
        "bgerr": measured["bgerr"],
        "background": measured["background"],
        "peak": found["peak"].astype(float),
        "a": found["a"].astype(float),
        "b": found["b"].astype(float),
        "theta": found["theta"].astype(float),
        "area": found["npix"].astype(int),
    }
    return Table(columns)


def _shape_flags(flag):
    """SEP's extraction flags (2 truncated, 4 overflow) in the terms of `Flag`."""
    result = np.where(flag & sep.OBJ_TRUNC, int(Flag.TRUNCATED), 0)
    return result | np.where(flag & sep.OBJ_DOVERFLOW, int(Flag.ISOPHOTE_INCOMPLETE), 0)
