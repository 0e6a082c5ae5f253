"""Stage `subtract`: match the template to the image, or the image to the template, and take the difference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial

import numpy as np
import sep
from astropy.table import Table
from scipy import ndimage

from nightsift import parameters
from nightsift.errors import Rejected
from nightsift.flags import HIDDEN, Mask
from nightsift.image.background import background, without_crowd
from nightsift.image.correlation import factor
from nightsift.image.padding import PAD, unpad
from nightsift.image.stamps import stamps
from nightsift.image.tiles import tiles
from nightsift.image.trails import Trail, beside_steps, find_trails, trail_light
from nightsift.image.unit_noise import fluxes, in_units, pixel_unit, unit
from nightsift.psf.fit import fit_psf, fit_psf_stars
from nightsift.psf.model import Psf
from nightsift.subtract import ratiosteps
from nightsift.subtract.alard_lupton import alard_lupton
from nightsift.subtract.delta import delta
from nightsift.subtract.difference import Difference, DifferenceQuality, Exposure, Reference
from nightsift.subtract.fluxscale import flux_scale
from nightsift.subtract.halo import remove_halos
from nightsift.subtract.hotpants import hotpants
from nightsift.subtract.images import Layer, RawDifference
from nightsift.subtract.leveling import take_level
from nightsift.subtract.rescaling import Ratio, recolored, rescaled
from nightsift.subtract.shared_noise import shared_noise
from nightsift.subtract.significance import Beneath, Planes, learnt, significance
from nightsift.subtract.sky_sources import sky_sources
from nightsift.subtract.stars import MOST, STAMP_SNR, clean, isolated, matched, width_of
from nightsift.subtract.zogy import proper

NOTABLE = 0.04  # share of the image in its template that is worth a warning
MIN_SCATTER = 0.003  # no two images agree better on a star's flux
QUALITY_STARS = 40  # are enough to judge the template's PSF, which is needed for nothing else
ENOUGH_PIXELS = 2**18  # whose distribution is that of all: neighbours tell nearly the same
SIGNIFICANT = 5.0  # S/N that noise makes at none of the stars
ENOUGH_PLACES = 100  # empty ones, for their scatter to speak against a difference

METHODS = {"alard-lupton": alard_lupton, "delta": delta, "zogy": proper}


def subtract(
    exposure: Exposure,
    reference: Reference,
    objects: Table,
    params: parameters.SubtractConfig,
    run: Callable | None = None,
) -> Difference:
    """Subtract a template from an image.

    Parameters
    ----------
    exposure : Exposure
    reference : Reference
    objects : Table
        Schema ``detections`` (or ``objects``) of the image.
    params : parameters.Subtract
    run : callable, optional
        What does the work of the method ``hotpants``: `nightsift.external.hotpants.run_hotpants`.

    Raises
    ------
    Rejected
        If too few stars are common to both, or if the difference fails one of the limits of `params`.
    """
    size, other = pixel_unit(exposure.data, exposure.mask != 0), unit(float(np.median(reference.noise[::4, ::4])))
    own = _subtract(
        replace(exposure, data=in_units(exposure.data, size), gain=exposure.gain and exposure.gain * size),
        replace(reference, data=in_units(reference.data, other), noise=in_units(reference.noise, other)),
        fluxes(objects, size),
        params,
        run,
    )
    planes = {name: in_units(getattr(own, name), 1 / size) for name in ("data", "sigma", "model")}
    ratio = other / size if own.facts["convolved"] == "image" else size / other
    return replace(own, **planes, facts=own.facts | {"kernel_sum": own.facts["kernel_sum"] * ratio})


def _subtract(exposure: Exposure, reference: Reference, objects: Table, params, run) -> Difference:
    unharmed = clean(objects, exposure)
    steps = _steps(unharmed, reference, exposure)
    if steps is not None:
        planes = {name: ratiosteps.scaled(getattr(reference, name), steps, PAD) for name in ("data", "noise")}
        reference = replace(reference, **planes)
    raw, stars = _matched(exposure, reference, unharmed, params, run)
    # What the template does not show has the image's PSF all the same.
    psf, scale_error = _psf(exposure, unharmed if raw.forward else stars[raw.used], raw)
    raw = replace(raw, facts=raw.facts | {"flux_scale_err": scale_error})
    # As faint light that it is not told from, a background would be of the stars.
    raw.data[:] -= background(raw.data, raw.bad, exposure.background_size).level
    raw, ratio = rescaled(raw, stars, psf, exposure.gain)
    recolored(raw, objects, ratio)
    result = _with_noise(exposure, reference, raw, stars[raw.used], psf, ratio)
    bright = unharmed[np.asarray(unharmed["snr"]) > STAMP_SNR]
    result = replace(result, facts=result.facts | {"changed": _changed(result.snr, result.mask == 0, bright)})
    _gates(result.facts, params)
    notes = () if steps is None else (steps.sentence(),)
    if result.facts["shared_noise"] > NOTABLE:
        notes += (
            f"the template holds {result.facts['shared_noise']:.0%} of the image's own noise, as a stack that it went"
            " into: what is new or has faded is shown fainter by as much",
        )
    return replace(result, warnings=(*notes, *result.warnings))


def _steps(stars: Table, reference: Reference, exposure: Exposure) -> ratiosteps.RatioSteps | None:
    """Return where the stars' flux in image and template step against each other, if they do."""
    stars = stars[(np.asarray(stars["snr"]) > STAMP_SNR) & np.asarray(stars["alone"])]
    stars = stars[np.sort(np.argsort(-np.asarray(stars["snr"]), kind="stable")[:MOST])]
    place, fwhm = [np.asarray(stars[axis], float) + PAD for axis in "xy"], exposure.fwhm
    light, error, _ = sep.sum_circle(reference.data, *place, fwhm, err=reference.noise)
    # where the level steps, too, the background that has been subtracted is wrong
    light -= sep.sum_circann(reference.data, *place, 1.5 * fwhm, 2.5 * fwhm)[0] / 4
    seen = light > 10 * error
    ratio = np.log(np.asarray(stars["flux"])[seen] / light[seen])
    width = np.hypot(1 / np.asarray(stars["snr"])[seen], error[seen] / light[seen])
    return ratiosteps.find(*(part[seen] - PAD for part in place), ratio, width, exposure.data.shape)


def _gates(facts: dict, params: parameters.SubtractConfig) -> None:
    """Refuse a difference whose S/N and errors would mean nothing."""
    upper = {
        "noise_scale": (params.max_noise_scale, "the noise of the difference, relative to that of its images, is"),
        "spatial_condition": (params.max_condition, "the stars lie so that the kernel's spatial terms have condition"),
        "residual": (params.max_residual, "what is left of the stars scatters, relative to their light, by"),
        "shared_noise": (params.max_shared, "the share of the image's own noise that the template holds is"),
        "changed": (params.max_changed, "the share of bright stars with something significant left in their cores is"),
        "sky_sigma": (params.max_sky_sigma, "fluxes at empty places scatter, relative to their errors, by"),
    }
    lower = {
        "noise_scale": (params.min_noise_scale, upper["noise_scale"][1]),
        "coverage": (params.min_coverage, "the usable fraction of the difference is"),
        "sky_sigma": (params.min_sky_sigma, upper["sky_sigma"][1]),
    }
    # The noise that image and template share goes with the light.
    hints = {"noise_scale": ": does the template hold the image itself?"}
    others = {
        "shared_noise": ": is it a stack that the image went into? Make it of others: of every change as much is lost"
    }
    if facts["sky_number"] < ENOUGH_PLACES:
        del upper["sky_sigma"], lower["sky_sigma"]
    for name, (bound, what) in lower.items():
        if facts[name] < bound:
            raise Rejected(f"{what} {facts[name]:.3g}, less than {bound:g}{hints.get(name, '')}")
    for name, (bound, what) in upper.items():
        if facts.get(name, 0.0) > bound:
            raise Rejected(f"{what} {facts[name]:.3g}, more than {bound:g}{others.get(name, '')}")


def _matched(exposure: Exposure, reference: Reference, objects: Table, params, run) -> tuple[RawDifference, Table]:
    """Take the difference by the method that is wanted; return it and the stars common to both images."""
    stars = matched(objects, exposure, reference)
    image = _framed(exposure)
    width = width_of(reference, stars, exposure.fwhm)
    template = Layer(reference.data, reference.noise, reference.mask != 0, width, None, reference.correlation)
    method = partial(hotpants, run=run) if params.method == "hotpants" else METHODS[params.method]
    raw = method(image, template, stars, params)
    facts = {"method": params.method, "template_fwhm": width} | raw.facts
    ratio = facts["kernel_sum"] if raw.forward else 1 / facts["kernel_sum"]
    facts["shared_noise"] = shared_noise(image, template, ratio)
    return replace(raw, facts=facts | _quality(template, stars)), stars


def _quality(template: Layer, stars: Table) -> dict:
    """Tell how well one PSF describes the template's stars."""
    sample = stars[stars["alone"]]["x", "y", "flux", "snr"]  # on any flux scale
    planes = unpad(template.data), unpad(template.noise), unpad(template.bad)
    try:
        psf = fit_psf(*planes, sample, template.fwhm, template.fwhm, most=QUALITY_STARS)
    except Rejected:
        return {"template_psf_chi2": np.nan, "template_psf_stars": 0}
    return {"template_psf_chi2": psf.chi2, "template_psf_stars": psf.n_stars}


def _framed(exposure: Exposure) -> Layer:
    """Subtract the background of the image and frame it."""
    sky = background(exposure.data, exposure.mask != 0, exposure.background_size)
    data = np.zeros([side + 2 * PAD for side in exposure.data.shape], np.float32)
    np.subtract(exposure.data, sky.level, out=unpad(data))
    # What a kernel may smear a little of must not be garbage; saturated cores are nearer to the truth than 0.
    unpad(data)[(exposure.mask & int(HIDDEN)) != 0] = 0
    bad = np.pad(exposure.mask != 0, PAD, constant_values=True)
    noise = sky.noise
    if exposure.correlation.size == 1:
        noise = without_crowd(noise, exposure.data, exposure.mask != 0)
    noise = np.pad(noise, PAD, mode="edge")
    return Layer(data, noise, bad, exposure.fwhm, exposure.gain, exposure.correlation)


def _psf(exposure: Exposure, stars: Table, raw: RawDifference) -> tuple[Psf, float]:
    """PSF of the difference, tied to the aperture fluxes of the image, and the relative error of its fluxes."""
    best = isolated(stars, raw.data.shape)
    sample = best["x", "y", "flux", "snr", "background"].copy()
    if not raw.forward:
        sample["background"] = 0.0
    found = fit_psf_stars(raw.shown(), raw.sigma(), raw.bad, sample, raw.fwhm, exposure.aperture)
    middle = found.psf.stamp(raw.data.shape[1] / 2, raw.data.shape[0] / 2, int(np.ceil(1.5 * found.psf.fwhm)))
    fitted = found.fluxerr * factor(middle, raw.white_correlation)
    flux, error, sky = (np.asarray(best[name], float)[found.rows] for name in ("flux", "fluxerr", "bgerr"))
    # The optimal flux is the part that the noise of both has in common; of the photons of the star itself, what is
    # beyond the aperture's own, a third for a Gaussian.
    noise = np.maximum(sky**2 - fitted**2, sky**2 / 10) if raw.forward else sky**2 + fitted**2
    noise = np.sqrt(noise + (error**2 - sky**2) / 3)
    scale = flux_scale(found.flux / flux, noise / flux, free=not raw.forward)
    return replace(found.psf, correction=found.psf.correction * scale.ratio), scale.error


def _with_noise(exposure, reference, raw: RawDifference, stars: Table, psf: Psf, ratio: Ratio) -> Difference:
    shape = raw.data.shape
    mask = exposure.mask.astype(np.uint16)
    mask |= unpad(reference.mask).astype(np.uint16, copy=False)
    mask[raw.bad & (mask == 0)] = int(Mask.EDGE)
    # In the memory of what is not looked at any more.
    usable = np.equal(mask, 0, out=raw.bad)
    data, model = raw.data, raw.model
    data -= background(data, ~usable, exposure.background_size).level
    data[~np.isfinite(data)] = 0
    take_level(data, usable, psf.fwhm)
    few = (slice(None, None, 8), slice(None, None, 8))
    noise = float(np.median(np.hypot(raw.white[few], raw.smoothed[few] * raw.kernel.sum()) * raw.factor(*few)))
    halo = remove_halos(data, model, reference.data, noise, usable, psf.fwhm)
    stamp = psf.stamp(shape[1] / 2, shape[0] / 2, int(np.ceil(1.5 * psf.fwhm)))
    beneath = Beneath(raw, usable, exposure.gain, reference.photons, halo, stamp, psf.fwhm)
    light = learnt(beneath, ratio.scatter)
    found = significance(beneath, light)
    raw, trails, changed = _without_trails(raw, found, usable, psf.fwhm)
    if trails:
        found = significance(replace(beneath, raw=raw), light, found, changed)
    sigma, snr = found.sigma, found.snr
    quiet = _quiet(usable, model, sigma, snr, psf.fwhm)
    # What is left of the background is taken out of the difference and of its S/N alike.
    level = found.unit * _robust(snr, quiet)[1] / _robust(found.response, quiet)[1]
    data -= np.float32(level)
    for tile in tiles(shape):
        snr[tile.own] -= np.float32(level / found.unit) * found.response[tile.own]
    correlation = found.correlation
    del found
    unit, middle = _robust(snr, quiet)
    unit = unit if np.isfinite(unit) and unit > 0 else 1.0
    sigma *= np.float32(unit)
    snr /= np.float32(unit)
    middle /= unit
    # Places that overlap would say the same again.
    apart = int(np.clip(quiet.sum() / psf.fwhm**2, 20, 400))
    sky = sky_sources(data, sigma, ~usable, psf, correlation, quiet, apart)
    warnings = _named(trails, shape, exposure.background_size)
    unit *= light.sky
    if not 0.8 < unit < 1.3:
        warnings.append(f"the difference is {unit:.2f} times as noisy as expected; S/N and errors are scaled by it")
    quality = DifferenceQuality(
        noise_correlation=correlation,
        residual=ratio.scatter,
        mismatch=_mismatch(data, stars, stamp),
        flux_scale_err=raw.facts["flux_scale_err"],
        trails=tuple(trails),
    )
    facts = raw.facts | {
        "flux_ratio": ratio.median,
        "color_slope": ratio.color_slope,
        "color_slope_err": ratio.color_slope_err,
        "snr_median": middle,
        "sky_median": sky.median,
        "sky_sigma": sky.sigma,
        "sky_number": sky.number,
        "noise_scale": unit,
        "noise_on_light": {name: np.round(value, 5).tolist() for name, value in asdict(light).items()},
        "psf_chi2": psf.chi2,
        "psf_stars": psf.n_stars,
        "coverage": float(usable.mean()),
        "halos": len(halo.x),
    }
    return Difference(data, sigma, snr, mask, model, psf, facts | quality.to_dict(), tuple(warnings))


def _named(trails: list[Trail], shape, background_size: int) -> list[str]:
    """Tell of trails, and of steps, which look like several."""
    sides = beside_steps(trails, shape, 2 * background_size)
    angles = {
        side: [np.degrees(one.angle) - 90 for one, own in zip(trails, sides, strict=True) if own == side]
        for side in (False, True)
    }
    found = [f"a trail crosses the image at {angle:.0f} degrees" for angle in angles[False]]
    if angles[True]:
        found.append(
            f"the level of the image or the template steps along a line at {np.median(angles[True]):.0f} degrees, as"
            " between amplifiers: what lies beside it is not to be trusted"
        )
    return found


def _without_trails(
    raw: RawDifference, found: Planes, usable, fwhm: float
) -> tuple[RawDifference, list[Trail], np.ndarray | None]:
    """Take the light of trails out of a difference, in place, and add what it brings to the noise; tell where."""
    trails = find_trails(found.snr, usable, fwhm)
    if not trails:
        return raw, trails, None
    raw, changed = replace(raw, white=raw.white.copy()), np.zeros(raw.data.shape, bool)
    factor = np.broadcast_to(raw.factor(slice(None), slice(None)), raw.data.shape)
    for trail in trails:
        light = trail_light(raw.data, found.sigma, usable, trail, fwhm)
        at = light.row, light.column
        raw.data[at] -= light.light
        raw.white[at] = np.hypot(raw.white[at], light.noise / factor[at])
        changed[at] = True
    return raw, trails, changed


def _quiet(usable, model, sigma, snr, fwhm) -> np.ndarray:
    """Pixels of empty sky: neither light that was subtracted nor a significant change near.

    The model holds the template's noise, so that a lower limit than this would choose by the noise itself. What is
    significant is told by the scatter of S/N: where the noise is underrated, its own peaks have to stay.
    """
    reach = int(np.ceil(fwhm))
    quiet = usable.copy()
    few = (slice(None, None, _step(snr)),) * 2
    scatter = _robust(snr[few], usable[few] & (model[few] < 3 * sigma[few]))[0]
    limit = 4 * max(1.0, scatter if np.isfinite(scatter) else 1.0)
    for tile in tiles(usable.shape, reach):
        busy = (np.abs(snr[tile.around]) > limit) | (model[tile.around] > 3 * sigma[tile.around])
        quiet[tile.own] &= ~ndimage.binary_dilation(busy, iterations=reach)[tile.inside]
    return quiet if quiet.sum() > 0.02 * usable.sum() else usable


def _step(image) -> int:
    """Return how far apart pixels are that are enough."""
    return int(np.ceil(np.sqrt(image.size / ENOUGH_PIXELS)))


def _robust(image, chosen) -> tuple[float, float]:
    """Half the distance of the 16th and 84th percentiles, and the median, of (a share of) the chosen pixels."""
    step = _step(image)
    values = image[::step, ::step][chosen[::step, ::step]].astype(np.float32)
    low, middle, high = np.percentile(values, [15.865, 50, 84.135])
    return float(high - low) / 2, float(middle)


def _changed(snr, usable, stars: Table) -> float:
    """Share of the stars with something significant left in their cores."""
    column, row = (np.rint(stars[axis]).astype(int) for axis in "xy")
    whole = stamps(usable, column, row, 1, False).all(axis=(1, 2))
    unpad = np.abs(stamps(snr, column[whole], row[whole], 1)).max(axis=(1, 2))
    return float(np.mean(unpad > SIGNIFICANT)) if whole.any() else 0.0


def _mismatch(difference, stars: Table, psf: np.ndarray) -> float:
    """Residual of a pixel in the cores of the brightest stars, relative to their light there."""
    flux, half = np.asarray(stars["flux"], float), psf.shape[0] // 2
    brightest = np.argsort(-flux)[: max(5, len(flux) // 10)]
    column, row = (np.rint(stars[axis][brightest]).astype(int) for axis in "xy")
    rms = np.sqrt(np.mean(stamps(difference, column, row, 1).astype(float) ** 2, axis=(1, 2)))
    return float(np.median(rms / (flux[brightest] * psf[half - 1 : half + 2, half - 1 : half + 2].mean())))
