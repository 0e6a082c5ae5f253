"""Compare nightsift's subtraction with every other program that is installed, on the same simulated pairs of images.

    python benchmarks/subtract.py [--fwhm 2.4 3.5 4.5] [--stars 300 1000] [--psf mild hard] [--renderer own galsim]
                                  [--repeat 3] [--seed 1] [--stdpipe PYTHON] [--json FILE]

Every method gets the same image, the same template on the image's pixels, the same noise maps and the same stars, and
one core. HOTPANTS runs if `hotpants` is on the PATH; STDPipe's SFFT if `stdpipe` can be imported, by this interpreter
or by the one that --stdpipe names; GalSim renders if it can be imported. What the columns mean is in README.md.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

ONE_CORE = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMBA", "NUMEXPR")}
SIZE, SKY, GAIN = 1024, 400.0, 4.0
NOISE = np.sqrt(SKY / GAIN)
SCALE, TEMPLATE_SKY, TEMPLATE_GAIN = 1.7, 200.0, 17.0
RIM = 30
THRESHOLD = 5.0
PATIENCE = 10.0  # seconds after which a method is not timed again
BINS = ((5, 7), (7, 10), (10, np.inf))
VARIATION = {
    "mild": ((0.01, 0.008, 0.005), (0.01, 0.01)),
    "hard": ((0.10, 0.06, 0.05), (0.12, 0.10)),
}


@dataclass(frozen=True)
class Case:
    """One pair; the template's PSF is half as wide as the image's, and so are its pixels."""

    fwhm: float
    stars: int
    psf: str
    renderer: str
    seed: int

    @property
    def name(self) -> str:
        return f"FWHM {self.fwhm} px, {self.stars} stars, PSF {self.psf}, {self.renderer}"


# --- Rendering: runs in the main process, needs nightsift -------------------------------------------------------------


class Own:
    """Moffat stars and Spergel galaxies of `nightsift.simulate_pixels`."""

    def stamps(self, psf, x, y, shape, half):
        from nightsift.simulate_pixels import psf_stamps

        return psf_stamps(psf, x, y, shape, half)

    def points(self, image, x, y, flux, psf):
        from nightsift.simulate_pixels import render_points

        render_points(image, x, y, flux, psf, 0.1)

    def galaxies(self, image, x, y, flux, galaxies, psf, cd):
        from nightsift.simulate_pixels import render_galaxies

        render_galaxies(image, x, y, flux, galaxies, psf, cd)


class GalSim:
    """Kolmogorov stars and Sersic galaxies of GalSim: other profiles than those nightsift was developed with."""

    def profile(self, psf, x, y, shape):
        import galsim

        xx, xy, yy = (float(part) for part in psf.covariance(x, y, shape))
        alpha = psf.fwhm / (2 * np.sqrt(2 ** (1 / psf.beta) - 1))
        width = psf.fwhm * (xx * yy - xy**2) ** 0.25 / alpha
        fine = galsim.GSParams(folding_threshold=1e-3, maximum_fft_size=16384)
        shape = galsim.Shear(e1=(xx - yy) / (xx + yy), e2=2 * xy / (xx + yy))
        return galsim.Kolmogorov(fwhm=width, gsparams=fine).shear(shape)

    def drawn(self, profile, x, y, half):
        column, row = round(float(x)), round(float(y))
        side = 2 * half + 1
        stamp = profile.drawImage(nx=side, ny=side, scale=1.0, offset=(x - column, y - row), dtype=np.float32).array
        return stamp, column, row

    def stamps(self, psf, x, y, shape, half):
        found = [self.drawn(self.profile(psf, a, b, shape), a, b, half) for a, b in zip(x, y, strict=True)]
        return tuple(np.array(part) for part in zip(*found, strict=True))

    def points(self, image, x, y, flux, psf):
        for a, b, f in zip(x, y, flux, strict=True):
            half = int(np.clip(psf.fwhm * (f / 30) ** 0.27, 5 * psf.fwhm, 60 * psf.fwhm))
            if -half < a < image.shape[1] + half and -half < b < image.shape[0] + half:
                add(image, *self.drawn(self.profile(psf, a, b, image.shape) * f, a, b, half))

    def galaxies(self, image, x, y, flux, galaxies, psf, cd):
        import galsim

        scale = np.sqrt(abs(np.linalg.det(cd)))
        for i, (a, b, f) in enumerate(zip(x, y, flux, strict=True)):
            half = int(9 * galaxies["r50"][i] / scale + 5 * psf.fwhm)
            if not (-half < a < image.shape[1] + half and -half < b < image.shape[0] + half):
                continue
            disc = galsim.Sersic(n=1.0 if galaxies["nu"][i] > 0 else 2.5, half_light_radius=galaxies["r50"][i])
            disc = disc.shear(q=galaxies["q"][i], beta=galaxies["pa"][i] * galsim.degrees)
            disc = disc.transform(*np.linalg.inv(cd).ravel()) / abs(np.linalg.det(np.linalg.inv(cd)))
            whole = galsim.Convolve(disc, self.profile(psf, a, b, image.shape)) * f
            add(image, *self.drawn(whole, a, b, half))


def add(image, stamp, column, row):
    half = stamp.shape[0] // 2
    x0, x1 = max(column - half, 0), min(column + half + 1, image.shape[1])
    y0, y1 = max(row - half, 0), min(row + half + 1, image.shape[0])
    if x0 < x1 and y0 < y1:
        image[y0:y1, x0:x1] += stamp[y0 - row + half : y1 - row + half, x0 - column + half : x1 - column + half]


def frames(shape):
    """WCS of image and template: the latter's pixels are half as large, turned and displaced."""
    from astropy.wcs import WCS

    from nightsift.template import PAD

    image, template = WCS(naxis=2), WCS(naxis=2)
    side = 2 * (shape[0] + 2 * PAD) + 40
    turn = np.radians(0.4)
    flip = np.diag([-1.0, 1.0])
    for wcs in (image, template):
        wcs.wcs.ctype, wcs.wcs.crval = ["RA---TAN", "DEC--TAN"], [150.0, 20.0]
    image.wcs.crpix, image.wcs.cd = [shape[1] / 2, shape[0] / 2], flip / 3600
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    template.wcs.crpix, template.wcs.cd = [side / 2 + 0.31, side / 2 - 0.17], flip @ rotation / 7200
    return image, template, (side, side)


def scene(rng, case: Case, mean_square: float):
    """Stars, galaxies and places for transients; `mean_square` is the sum of the squared PSF."""
    from astropy.table import Table

    unit = NOISE / np.sqrt(mean_square)  # flux of S/N 1
    edge = 80
    star = rng.uniform(-edge, SIZE + edge, (2, round(case.stars * (1 + 2 * edge / SIZE) ** 2)))
    flux = np.minimum(4 * unit * rng.random(star.shape[1]) ** (-1 / 0.75), 4000 * unit)
    galaxy = rng.uniform(-edge, SIZE + edge, (2, 150))
    table = Table({"r50": np.clip(2.5 * rng.lognormal(0, 0.4, 150), 1, 6)})
    table["nu"], table["q"] = rng.choice([0.5, -0.4], 150), rng.uniform(0.4, 1, 150)
    table["pa"] = rng.uniform(0, 180, 150)
    light = np.minimum(25 * unit * rng.random(150) ** (-1 / 1.2), 600 * unit)
    hosts = rng.permutation(150)
    radius, angle = rng.uniform(0.1, 1.3, 150) * table["r50"][hosts], rng.uniform(0, 2 * np.pi, 150)
    on = galaxy[:, hosts] + radius * np.array([np.cos(angle), np.sin(angle)])
    off = rng.uniform(RIM, SIZE - RIM, (2, 400))
    off = off[:, np.hypot(*(off[:, :, None] - galaxy[:, None, :])).min(axis=1) > 15]
    kept = []
    for places, most in ((on.T, 30), (off.T, 60)):
        for place in places:
            inside = np.all((place > RIM + 15) & (place < SIZE - RIM - 15))
            alone = np.hypot(*(star.T - place).T).min() > 2 * case.fwhm
            alone &= not kept or np.hypot(*(np.array(kept) - place).T).min() > 6 * case.fwhm
            if inside and alone and len(kept) < most:
                kept.append(place)
    return star, flux, galaxy, light, table, np.array(kept).T


def moffats(case: Case):
    from nightsift.simulate_pixels import Psf

    scale, twist = VARIATION[case.psf]
    image = Psf(case.fwhm, 3.0, 0.04, 0.02, scale, twist)
    return image, Psf(case.fwhm, 3.0, -0.03, 0.03, (-0.015, 0.01, 0.01), (-0.01, 0.015))


def pair(case: Case):
    """Render a pair; returns what the methods get, and the truth."""
    rng = np.random.default_rng([case.seed, round(10 * case.fwhm), case.stars])
    draw = Own() if case.renderer == "own" else GalSim()
    psf, sharp = moffats(case)
    shape = (SIZE, SIZE)
    half = int(np.ceil(4 * case.fwhm))
    centre = draw.stamps(psf, np.array([SIZE // 2]), np.array([SIZE // 2]), shape, half)[0][0]
    star, flux, galaxy, light, table, place = scene(rng, case, float(np.sum(centre**2)))
    wcs, other, side = frames(shape)
    static, deep = np.zeros(shape, np.float32), np.zeros(side, np.float32)
    draw.points(static, *star, flux, psf)
    draw.galaxies(static, *galaxy, light, table, psf, wcs.wcs.cd * 3600)
    there = [np.array(other.wcs_world2pix(*wcs.wcs_pix2world(*what, 0), 0)) for what in (star, galaxy)]
    draw.points(deep, *there[0], SCALE * flux, sharp)
    draw.galaxies(deep, *there[1], SCALE * light, table, sharp, other.wcs.cd * 3600)
    variance = (np.maximum(static, 0) + SKY) / GAIN
    profiles, column, row = draw.stamps(psf, *place, shape, half)
    ideal = np.sqrt(np.sum(profiles**2 / cut(variance, column, row, half), axis=(1, 2)))
    snr = np.exp(rng.uniform(np.log(5), np.log(100), place.shape[1]))
    new = np.zeros(shape, np.float32)
    draw.points(new, *place, snr / ideal, psf)
    image = rng.poisson(np.maximum(static + new + SKY, 0) * GAIN) / GAIN
    template = rng.poisson((np.maximum(deep, 0) + TEMPLATE_SKY) * TEMPLATE_GAIN) / TEMPLATE_GAIN
    data = {"image": image.astype(np.float32), "raw": template.astype(np.float32), "psf": centre}
    truth = {
        "static": static,
        "new": new,
        "variance": variance,
        "star": star,
        "star_snr": flux * np.sqrt(np.sum(centre**2)) / np.sqrt(NOISE**2 + flux * np.sum(centre**3) / GAIN),
        "place": place,
        "flux": snr / ideal,
        "snr": snr,
        "profiles": profiles,
    }
    return data, truth, (wcs, other)


def cut(image, column, row, half):
    from nightsift.stamps import stamps

    return stamps(image, column, row, half)


def prepare(case: Case, folder: Path):
    """Render, align the template and find the stars: what every method starts from."""
    from scipy import ndimage

    from nightsift import parameters
    from nightsift.background import background
    from nightsift.detect import detect
    from nightsift.seeing import widths
    from nightsift.template import PAD, template

    data, truth, (wcs, other) = pair(case)
    clear = np.zeros(data["image"].shape, np.uint16)
    found = detect(data["image"], clear, GAIN, parameters.Detect())
    raw = data.pop("raw")
    start = time.perf_counter()
    aligned = template(
        raw, np.zeros(raw.shape, np.uint16), other, wcs, clear.shape, TEMPLATE_GAIN, parameters.Template()
    )
    seconds = time.perf_counter() - start
    sky = background(data["image"], clear != 0, 64)
    # Smoothed, as every pipeline does: weights that know of a pixel's own noise bias what is weighted.
    photons = np.maximum(ndimage.gaussian_filter(data["image"] - sky.level, 1.0), 0) / GAIN
    good = (found.objects["flags"] == 0) & (found.objects["snr"] > 20)
    stars = found.objects[good]
    width = widths(aligned.data, stars["x"] + PAD, stars["y"] + PAD, case.fwhm / 2, aligned.mask != 0)
    data |= {
        "template": aligned.data,
        "template_noise": aligned.noise,
        "template_mask": aligned.mask,
        "pad": PAD,
        "level": sky.level,
        "noise": np.sqrt(sky.noise**2 + photons).astype(np.float32),
        "fwhm": found.seeing.fwhm,
        "template_fwhm": np.nanmedian(width),
        "aperture": found.aperture,
        "stars": np.array([stars["x"], stars["y"]]),
        "place": truth["place"],
        "profiles": truth["profiles"],
    }
    np.savez(folder / "pair.npz", **data)
    found.objects.write(folder / "objects.fits", overwrite=True)
    return truth, found, seconds


# --- The methods: each runs in a process of its own -------------------------------------------------------------------


def run_nightsift(folder: Path, data, repeat: int):
    """Run the stages `subtract` and `transients`."""
    from astropy.table import Table

    from nightsift import parameters
    from nightsift.psf import forced
    from nightsift.subtract import Exposure, Reference, subtract
    from nightsift.transients import Search, transients

    objects = Table.read(folder / "objects.fits")
    clear = np.zeros(data["image"].shape, np.uint16)
    exposure = Exposure(data["image"], clear, GAIN, float(data["fwhm"]), float(data["aperture"]))
    reference = Reference(data["template"], data["template_noise"], data["template_mask"])
    seconds, later = [], []
    for _ in range(repeat):
        start = time.perf_counter()
        found = subtract(exposure, reference, objects, parameters.Subtract())
        middle = time.perf_counter()
        facts = found.facts
        search = Search(
            found.data,
            found.sigma,
            found.snr,
            found.mask,
            found.model,
            clear != 0,
            found.psf,
            facts["noise_correlation"],
            facts["residual"],
            facts["mismatch"],
        )
        table = transients(search, objects, parameters.Transients()).candidates
        seconds.append(middle - start)
        later.append(time.perf_counter() - middle)
    real = table[np.asarray(table["is_real"], bool)]
    own = forced(found.data, found.sigma, found.mask != 0, found.psf, *data["place"])
    return {
        "diff": found.data,
        "snr": found.snr,
        "usable": found.mask == 0,
        "flux": own.flux,
        "fluxerr": own.fluxerr * facts["noise_correlation"],
        "seconds": np.median(seconds),
        "later": np.median(later),
        "vetted": np.array([real["x"], real["y"]]),
        "facts": json.dumps({k: v for k, v in facts.items() if isinstance(v, (int, float, str))}),
    }


def run_hotpants(folder: Path, data, repeat: int, order: int):
    """Run HOTPANTS with the parameters that STDPipe gives it (Becker 2015; Hu et al. 2022), noise images given."""
    from astropy.io import fits

    core = slice(data["pad"], -data["pad"])
    image, template = data["image"] - data["level"], data["template"][core, core]
    planes = {"inim": image, "tmplim": template, "ini": data["noise"], "tni": data["template_noise"][core, core]}
    for name, plane in planes.items():
        fits.writeto(folder / f"{name}.fits", plane.astype(np.float32), overwrite=True)
    np.savetxt(folder / "stars.xy", data["stars"].T + 1, fmt="%.1f")
    width = max(1.0, np.sqrt(abs(data["fwhm"] ** 2 - data["template_fwhm"] ** 2)) / 2.35)

    def limits(plane):
        middle = np.median(plane)
        low = middle - 10 * 1.4826 * np.median(np.abs(plane - middle))
        return low, plane.max() + 0.01 * np.ptp(plane)

    (il, iu), (tl, tu) = limits(image), limits(template)
    command = ["hotpants", *(part for name in planes for part in (f"-{name}", str(folder / f"{name}.fits")))]
    command += ["-outim", str(folder / "diff.fits"), "-ssf", str(folder / "stars.xy"), "-v", "0", "-allm"]
    command += [*f"-il {il} -iu {iu} -tl {tl} -tu {tu} -tuk {tu} -n i -c t -ko {order} -bgo {order}".split()]
    command += [*f"-ig {GAIN} -tg {TEMPLATE_GAIN} -r {np.ceil(3 * data['fwhm']):.0f}".split()]
    command += [*f"-rss {np.ceil(4 * data['fwhm']):.0f} -ng 3 6 {width / 2} 4 {width} 2 {2 * width}".split()]
    seconds = []
    for _ in range(repeat):
        (folder / "diff.fits").unlink(missing_ok=True)
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - start)
    with fits.open(folder / "diff.fits") as planes:
        diff, noise = planes[0].data.astype(np.float32), planes[3].data.astype(np.float32)
    usable = (np.abs(diff) > 1e-20) & (noise > 0)
    return filtered(diff, noise, usable, data) | {"seconds": np.median(seconds)}


def run_sfft(folder: Path, data, repeat: int, order: int):
    """Run STDPipe's SFFT with the kernel's size that STDWeb gives it."""
    from astropy.table import Table
    from stdpipe.subtraction import run_sfft as solve

    core = slice(data["pad"], -data["pad"])
    side = 2 * int(np.ceil(max(data["fwhm"], data["template_fwhm"]))) + 1
    obj = Table({"x": data["stars"][0], "y": data["stars"][1], "fwhm": np.full(data["stars"].shape[1], data["fwhm"])})
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        diff, noise = solve(
            data["image"] - data["level"],
            data["template"][core, core],
            err=data["noise"].astype(float),
            template_err=data["template_noise"][core, core],
            kernel_shape=(side, side),
            kernel_poly_order=order,
            bg_poly_order=order,
            flux_poly_order=min(order, 1),
            obj=obj,
            get_noise=True,
        )
        seconds.append(time.perf_counter() - start)
        if sum(seconds) > PATIENCE:
            break
    usable = np.isfinite(diff) & np.isfinite(noise) & (noise > 0)
    return filtered(diff, noise, usable, data) | {"seconds": np.median(seconds)}


def filtered(diff, noise, usable, data):
    """Matched filter and forced photometry with the image's true PSF, the noise taken for white."""
    from scipy.signal import fftconvolve

    psf = data["psf"]
    diff = np.where(usable, diff, 0).astype(np.float64)
    weight = np.where(usable, 1 / np.where(usable, noise, 1) ** 2, 0)
    top = fftconvolve(diff * weight, psf[::-1, ::-1], mode="same")
    below = fftconvolve(weight, psf[::-1, ::-1] ** 2, mode="same")
    error = np.sqrt(np.maximum(below, 1e-6 * below.max()))
    half = data["profiles"].shape[1] // 2
    flux, fluxerr = [], []
    for (x, y), profile in zip(data["place"].T, data["profiles"], strict=True):
        column, row = round(x), round(y)
        box = slice(row - half, row + half + 1), slice(column - half, column + half + 1)
        total = np.sum(profile**2 * weight[box])
        flux.append(np.sum(profile * weight[box] * diff[box]) / total)
        fluxerr.append(1 / np.sqrt(total))
    return {
        "diff": diff.astype(np.float32),
        "snr": np.where(usable, top / error, 0).astype(np.float32),
        "usable": usable,
        "flux": np.array(flux),
        "fluxerr": np.array(fluxerr),
    }


METHODS = {
    "nightsift": run_nightsift,
    "HOTPANTS order 0": lambda *given: run_hotpants(*given, 0),
    "HOTPANTS order 2": lambda *given: run_hotpants(*given, 2),
    "SFFT order 0": lambda *given: run_sfft(*given, 0),
    "SFFT order 2": lambda *given: run_sfft(*given, 2),
}


def worker(method: str, folder: Path, repeat: int) -> None:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with np.load(folder / "pair.npz") as arrays:
        data = {name: arrays[name][()] for name in arrays}
    result = METHODS[method](folder, data, repeat)
    who = resource.RUSAGE_CHILDREN if method.startswith("HOTPANTS") else resource.RUSAGE_SELF
    np.savez(folder / "result.npz", megabytes=resource.getrusage(who).ru_maxrss / 1024, **result)


# --- Judgement --------------------------------------------------------------------------------------------------------


def local_maxima(snr, usable, fwhm):
    from nightsift.transients import peaks

    x, y, _ = peaks(np.where(usable, snr, 0), THRESHOLD, fwhm)
    return x, y


def robust(values):
    low, middle, high = np.percentile(values, [15.865, 50, 84.135])
    return middle, (high - low) / 2


def found_and_false(x, y, truth, fwhm):
    """Share of the transients found by S/N, and what else was found, a megapixel."""
    inner = (x > RIM) & (x < SIZE - RIM) & (y > RIM) & (y < SIZE - RIM)
    distance = np.hypot(x[inner] - truth["place"][0][:, None], y[inner] - truth["place"][1][:, None])
    near = distance < max(1.5, 0.6 * fwhm)
    seen = near.any(axis=1)
    counts = [[int(seen[inside].sum()), int(inside.sum())] for inside in (_within(truth["snr"], *b) for b in BINS)]
    # Rings around a bright transient are its own, not false.
    bright = (truth["snr"] > 30)[:, None] & (distance < 3 * fwhm)
    return counts, int((~near.any(axis=0) & ~bright.any(axis=0)).sum()) / ((SIZE - 2 * RIM) / 1024) ** 2


def _within(values, low, high):
    return (values >= low) & (values < high)


def judge(result, truth, data):
    """Return the figures of one method on one pair."""
    fwhm = float(data["fwhm"])
    inner = np.zeros(result["usable"].shape, bool)
    inner[RIM:-RIM, RIM:-RIM] = True
    quiet = inner & result["usable"] & (truth["static"] < 0.05 * NOISE) & (truth["new"] < 0.01 * NOISE)
    median, sigma = robust(result["snr"][quiet])
    half = int(np.rint(fwhm / 2)) + 1
    column, row = np.rint(truth["star"]).astype(int)
    bright = _within(truth["star_snr"], 100, 1000) & (column > RIM) & (column < SIZE - RIM)
    bright &= (row > RIM) & (row < SIZE - RIM)
    square = result["diff"] ** 2 / truth["variance"]
    chi2 = cut(square, column[bright], row[bright], half).mean(axis=(1, 2))
    counts, false = found_and_false(*local_maxima(result["snr"], result["usable"], fwhm), truth, fwhm)
    good = np.isfinite(result["flux"])
    strong = good & (truth["snr"] > 15)
    share = result["share"] if "share" in result else 1.0
    wanted = truth["flux"] * share
    bias = np.median((result["flux"] / wanted)[strong]) - 1
    pull = robust(((result["flux"] - wanted) / result["fluxerr"])[good])
    bright_pull = robust(((result["flux"] - wanted) / result["fluxerr"])[strong])
    return {
        "seconds": float(result["seconds"]),
        "megabytes": float(result["megabytes"]),
        "sky_median": float(median),
        "sky_sigma": float(sigma),
        "core_chi2": float(np.median(chi2)),
        "found": counts,
        "false": float(false),
        "bias": float(bias),
        "pull_median": float(pull[0]),
        "pull_sigma": float(pull[1]),
        "pull_strong": float(bright_pull[1]),
    }


def light_in_aperture(truth, radius):
    """Share of each transient's light in the calibration aperture: nightsift's fluxes are aperture fluxes."""
    from photutils.aperture import CircularAperture

    half = truth["profiles"].shape[1] // 2
    shift = truth["place"] - np.rint(truth["place"])
    circles = [CircularAperture((half + x, half + y), radius) for x, y in shift.T]
    return np.array([c.do_photometry(s)[0][0] for c, s in zip(circles, truth["profiles"], strict=True)])


def line(name, figures):
    found = "  ".join(f"{seen:3d}/{all_:<3d}" for seen, all_ in figures["found"])
    return (
        f"{name:20}{figures['seconds']:7.2f}{figures['megabytes']:7.0f}{figures['sky_median']:8.3f}"
        f"{figures['sky_sigma']:7.3f}{figures['core_chi2']:8.2f}   {found}{figures['false']:7.1f}"
        f"{100 * figures['bias']:8.2f}{figures['pull_median']:7.2f}{figures['pull_sigma']:6.2f}"
        f"{figures['pull_strong']:6.2f}"
    )


HEAD = (
    f"{'method':20}{'s':>7}{'MB':>7}{'sky med':>8}{'sigma':>7}{'core X2':>8}   {'S/N 5-7':9}{'7-10':9}{'>10':7}"
    f"{'false':>7}{'bias %':>8}{'pull':>7}{'sigma':>6}{'>15':>6}"
)


def installed(stdpipe: str | None) -> dict[str, str]:
    """Return the interpreter for each method that can run."""
    ready = {"nightsift": sys.executable}
    if shutil.which("hotpants"):
        ready |= {name: sys.executable for name in METHODS if name.startswith("HOTPANTS")}
    if stdpipe or importlib.util.find_spec("stdpipe"):
        ready |= {name: stdpipe or sys.executable for name in METHODS if name.startswith("SFFT")}
    return ready


def compare(case: Case, ready, repeat: int):
    """Run every method on one pair and print its table."""
    rows = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        truth, detection, seconds = prepare(case, folder)
        print(f"\n{case.name} (measured FWHM {detection.seeing.fwhm:.2f} px, template {seconds:.2f} s)\n{HEAD}")
        with np.load(folder / "pair.npz") as arrays:
            data = {"fwhm": arrays["fwhm"]}
        for method in METHODS:
            if method not in ready:
                print(f"{method:20} not installed")
                continue
            arguments = ["--worker", method, "--folder", str(folder), "--repeat", str(repeat)]
            done = subprocess.run([ready[method], __file__, *arguments], stderr=subprocess.PIPE, text=True)
            if done.returncode:
                print(f"{method:20} failed: {(done.stderr.strip().splitlines() or ['no message'])[-1][:90]}")
                continue
            with np.load(folder / "result.npz") as arrays:
                result = {key: arrays[key][()] for key in arrays}
            if method == "nightsift":
                result["share"] = light_in_aperture(truth, detection.aperture)
            rows[method] = judge(result, truth, data)
            print(line(method, rows[method]), flush=True)
            if method == "nightsift":
                counts, false = found_and_false(*result["vetted"], truth, float(data["fwhm"]))
                rows["nightsift, vetted"] = rows[method] | {"found": counts, "false": false}
                rows["nightsift, vetted"]["seconds"] = rows[method]["seconds"] + float(result["later"])
                print(line("nightsift, vetted", rows["nightsift, vetted"]))
                print("  ", str(result["facts"]))
    return rows


def summary(everything):
    """Medians over the pairs, sums for what is counted."""
    print(f"\nall {len(everything)} pairs\n{HEAD}")
    names = list(dict.fromkeys(name for _, rows in everything for name in rows))
    for name in names:
        rows = [rows[name] for _, rows in everything if name in rows]
        figures = {key: float(np.median([row[key] for row in rows])) for key in rows[0] if key != "found"}
        figures["false"] = float(np.mean([row["false"] for row in rows]))
        figures["found"] = np.sum([row["found"] for row in rows], axis=0).tolist()
        print(line(name, figures))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fwhm", type=float, nargs="+", default=[2.4, 3.5, 4.5])
    parser.add_argument("--stars", type=int, nargs="+", default=[300, 1000])
    parser.add_argument("--psf", nargs="+", choices=VARIATION, default=list(VARIATION))
    parser.add_argument("--renderer", nargs="+", choices=("own", "galsim"), default=["own"])
    parser.add_argument("--repeat", type=int, default=3, help="runs whose median time counts")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--stdpipe", help="a Python that can import stdpipe, if this one cannot")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--worker", choices=METHODS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.worker, options.folder, options.repeat)
        return
    os.environ |= ONE_CORE
    ready = installed(options.stdpipe)
    everything = []
    for renderer in options.renderer:
        if renderer == "galsim" and not importlib.util.find_spec("galsim"):
            print("GalSim: not installed")
            continue
        cases = [
            Case(f, n, p, renderer, options.seed) for p in options.psf for f in options.fwhm for n in options.stars
        ]
        everything += [(case, compare(case, ready, options.repeat)) for case in cases]
    if len(everything) > 1:
        summary(everything)
    if options.json:
        options.json.write_text(json.dumps([{"case": asdict(case), "figures": rows} for case, rows in everything]))


if __name__ == "__main__":
    main()
