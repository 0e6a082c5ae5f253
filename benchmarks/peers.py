"""The other programs, on arrays: each gets the same image, template on its pixels, noise maps, masks and stars.

Nothing here needs nightsift, so that an interpreter that has only STDPipe can run it.
"""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

PATIENCE = 10.0  # seconds after which a method is not timed again


@dataclass(frozen=True)
class Inputs:
    """What every program gets; images are background-subtracted, masks True where bad, positions (2, n) and 0-based.

    ``psf`` is the image's true PSF at the centre, ``profiles`` the true PSFs at ``place``, where fluxes are wanted.
    """

    image: np.ndarray
    noise: np.ndarray
    mask: np.ndarray
    template: np.ndarray
    template_noise: np.ndarray
    template_mask: np.ndarray
    gain: float
    template_gain: float
    fwhm: float
    template_fwhm: float
    stars: np.ndarray
    psf: np.ndarray
    place: np.ndarray
    profiles: np.ndarray

    def write(self, path: Path) -> None:
        np.savez(path, **{item.name: getattr(self, item.name) for item in fields(self)})

    @classmethod
    def read(cls, path: Path) -> Inputs:
        with np.load(path) as arrays:
            return cls(**{name: arrays[name][()] for name in arrays})


def hotpants(folder: Path, given: Inputs, repeat: int, order: int):
    """Run HOTPANTS with the parameters that STDPipe gives it (Becker 2015; Hu et al. 2022), noise images given."""
    from astropy.io import fits

    def limits(plane, mask):
        middle = np.median(plane[~mask])
        low = middle - 10 * 1.4826 * np.median(np.abs(plane[~mask] - middle))
        return low, plane[~mask].max() + 0.01 * np.ptp(plane[~mask])

    planes = {"inim": given.image, "tmplim": given.template, "ini": given.noise, "tni": given.template_noise}
    masks = {"imi": given.mask, "tmi": given.template_mask}
    for name, plane in planes.items():
        fits.writeto(folder / f"{name}.fits", plane.astype(np.float32), overwrite=True)
    for name, mask in masks.items():
        fits.writeto(folder / f"{name}.fits", mask.astype(np.uint16), overwrite=True)
    np.savetxt(folder / "stars.xy", given.stars.T + 1, fmt="%.1f")
    width = max(1.0, np.sqrt(abs(given.fwhm**2 - given.template_fwhm**2)) / 2.35)
    (il, iu), (tl, tu) = limits(given.image, given.mask), limits(given.template, given.template_mask)
    command = ["hotpants", *(part for name in planes | masks for part in (f"-{name}", str(folder / f"{name}.fits")))]
    command += ["-outim", str(folder / "diff.fits"), "-ssf", str(folder / "stars.xy"), "-v", "0", "-allm"]
    command += [*f"-il {il} -iu {iu} -tl {tl} -tu {tu} -tuk {tu} -n i -c t -ko {order} -bgo {order}".split()]
    command += [*f"-ig {given.gain} -tg {given.template_gain} -r {np.ceil(3 * given.fwhm):.0f}".split()]
    command += [*f"-rss {np.ceil(4 * given.fwhm):.0f} -ng 3 6 {width / 2} 4 {width} 2 {2 * width}".split()]
    seconds = []
    for _ in range(repeat):
        (folder / "diff.fits").unlink(missing_ok=True)
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - start)
    with fits.open(folder / "diff.fits") as planes:
        diff, noise = planes[0].data.astype(np.float32), planes[3].data.astype(np.float32)
    usable = (np.abs(diff) > 1e-20) & (noise > 0) & ~given.mask & ~given.template_mask
    return filtered(diff, noise, usable, given) | {"seconds": np.median(seconds)}


def sfft(folder: Path, given: Inputs, repeat: int, order: int):
    """Run STDPipe's SFFT with the kernel's size that STDWeb gives it."""
    from astropy.table import Table
    from stdpipe.subtraction import run_sfft

    side = 2 * int(np.ceil(max(given.fwhm, given.template_fwhm))) + 1
    stars = Table({"x": given.stars[0], "y": given.stars[1], "fwhm": np.full(given.stars.shape[1], given.fwhm)})
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        diff, noise = run_sfft(
            given.image,
            given.template,
            mask=given.mask,
            template_mask=given.template_mask,
            err=given.noise.astype(float),
            template_err=given.template_noise,
            kernel_shape=(side, side),
            kernel_poly_order=order,
            bg_poly_order=order,
            flux_poly_order=min(order, 1),
            obj=stars,
            get_noise=True,
        )
        seconds.append(time.perf_counter() - start)
        if sum(seconds) > PATIENCE:
            break
    usable = np.isfinite(diff) & np.isfinite(noise) & (noise > 0)
    return filtered(diff, noise, usable, given) | {"seconds": np.median(seconds)}


def filtered(diff, noise, usable, given: Inputs):
    """Matched filter and forced photometry with the image's true PSF, the noise taken for white."""
    from scipy.signal import fftconvolve

    psf = given.psf
    diff = np.where(usable, diff, 0).astype(np.float64)
    weight = np.where(usable, 1 / np.where(usable, noise, 1) ** 2, 0)
    top = fftconvolve(diff * weight, psf[::-1, ::-1], mode="same")
    below = fftconvolve(weight, psf[::-1, ::-1] ** 2, mode="same")
    error = np.sqrt(np.maximum(below, 1e-6 * below.max()))
    half = given.profiles.shape[1] // 2
    framed, heavy = np.pad(diff, half), np.pad(weight, half)
    flux, fluxerr = [], []
    for (x, y), profile in zip(given.place.T, given.profiles, strict=True):
        box = np.s_[round(y) : round(y) + 2 * half + 1, round(x) : round(x) + 2 * half + 1]
        total = np.sum(profile**2 * heavy[box])
        flux.append(np.sum(profile * heavy[box] * framed[box]) / total if total > 0 else np.nan)
        fluxerr.append(1 / np.sqrt(total) if total > 0 else np.nan)
    return {
        "diff": diff.astype(np.float32),
        "snr": np.where(usable, top / error, 0).astype(np.float32),
        "usable": usable,
        "flux": np.array(flux),
        "fluxerr": np.array(fluxerr),
    }


def stdpipe(given: Inputs):
    """Run STDPipe as STDWeb runs it, with its defaults, and return its detections and how far each came.

    Returns
    -------
    astropy.table.Table
        ``x y flux fluxerr snr``, ``shape``: passes the pre-filter (isolation forest on the shapes of the image's own
        objects) and the flags, ``final``: passes the adjustment of position and scale as well. ``seconds`` in its meta.
    """
    from stdpipe import artefacts, cutouts, photometry
    from stdpipe.subtraction import run_hotpants

    start = time.perf_counter()
    more = {"extra_params": ["NUMBER", "MAG_AUTO", "ISOAREA_IMAGE", "FLUX_MAX", "FLUX_AUTO"], "minarea": 3}
    mesh = {"BACK_SIZE": 256}
    image, template = given.image.astype(float), given.template.astype(float)
    objects = photometry.get_objects_sextractor(image, mask=given.mask, gain=given.gain, extra=mesh, **more)
    objects = objects[(objects["MAG_AUTO"] < 90) & (objects["fwhm"] > 0) & (objects["ISOAREA_IMAGE"] > 3)]
    good = (objects["flags"] == 0) & (objects["magerr"] < 1 / 20)
    shape = artefacts.filter_sextractor_detections(objects, verbose=False)
    objects["flags"][~shape] |= 0x800
    fwhm = float(np.median(2.0 * objects["FLUX_RADIUS"][good & shape]))

    def grown(mask, width):
        return photometry.dilate(mask, np.ones([int(np.ceil(width))] * 2)).astype(bool)

    mask, beneath = grown(given.mask, fwhm), grown(given.template_mask, given.template_fwhm)
    diff, convolved, noise = run_hotpants(
        image,
        template,
        mask=mask,
        template_mask=beneath,
        image_fwhm=fwhm,
        template_fwhm=float(given.template_fwhm),
        image_gain=float(given.gain),
        template_gain=10000,
        err=True,
        extra={"ko": 0, "bgo": 0},
        obj=objects[objects["flags"] == 0],
        get_convolved=True,
        get_noise=True,
    )
    bad = mask | beneath | (diff == 1e-30)
    found = photometry.get_objects_sextractor(
        diff, mask=bad, err=noise, aper=3.0, gain=given.gain, sn=5.0, extra=mesh, **more
    )
    found = photometry.measure_objects(
        found, diff, mask=bad, fwhm=fwhm, aper=1.0, sn=5.0, bg=None, err=noise, gain=float(given.gain)
    )
    classifier = artefacts.filter_sextractor_detections(objects, verbose=False, return_classifier=True)
    found["shape"] = (classifier(found) if len(found) else np.zeros(0, bool)) & ((found["flags"] & 0x7E00) == 0)
    found["final"] = found["shape"]
    for row in found:
        if row["shape"]:
            layers = {"mask": bad, "diff": diff, "template": template, "convolved": convolved, "err": noise}
            cutout = cutouts.get_cutout(image, row, 30, **layers)
            if cutouts.adjust_cutout(cutout, max_shift=1, max_scale=1.3, inner=int(np.ceil(2 * fwhm))):
                facts = cutout["meta"]
                changed = facts["adjust_pval"] > 0.01 or facts["adjust_chi2"] < 0.33 * facts["adjust_chi2_0"]
                row["final"] = not changed
    found["snr"] = found["flux"] / found["fluxerr"]
    found = found["x", "y", "flux", "fluxerr", "snr", "shape", "final"]
    found.meta = {"seconds": time.perf_counter() - start}
    return found


def light_in_aperture(place, profiles, radius):
    """Share of each source's light in the calibration aperture: nightsift's fluxes are aperture fluxes."""
    from photutils.aperture import CircularAperture

    half = profiles.shape[1] // 2
    shift = place - np.rint(place)
    circles = [CircularAperture((half + x, half + y), radius) for x, y in shift.T]
    return np.array([c.do_photometry(s)[0][0] for c, s in zip(circles, profiles, strict=True)])


def robust(values):
    """Return the median and half the width of the central 68.27 per cent; NaN of nothing."""
    values = np.asarray(values)[np.isfinite(values)]
    if not len(values):
        return np.nan, np.nan
    low, middle, high = np.percentile(values, [15.865, 50, 84.135])
    return middle, (high - low) / 2


def stdpipe_photometry(given: Path, found: Path, order: int, repeat: int) -> None:
    """Detect, measure and calibrate with STDPipe as STDWeb does: SExtractor, 1-FWHM aperture, annulus, a robust fit.

    Parameters
    ----------
    given : Path
        Arrays ``image mask gain header ra dec rmag gmag e_rmag``; the header is text.
    found : Path
        Written: ``x y mag_calib mag_calib_err color_term seconds measuring``.
    order : int
        Of the zero point in position.
    repeat : int
        Runs, of whose seconds, in all and without the detection, the least count.
    """
    import warnings

    from astropy.io.fits import Header
    from astropy.table import Table
    from astropy.wcs import WCS
    from stdpipe import photometry, pipeline

    warnings.simplefilter("ignore")
    with np.load(given) as arrays:
        given = {name: arrays[name][()] for name in arrays}
    wcs, gain = WCS(Header.fromstring(str(given["header"]))), float(given["gain"])
    image, mask = given["image"].astype(float), given["mask"]
    stars = Table({name: given[name] for name in ("ra", "dec", "rmag", "gmag", "e_rmag")})
    scale = float(np.sqrt(np.abs(np.linalg.det(wcs.pixel_scale_matrix))))
    seconds, measuring = [], []
    for _ in range(repeat):
        start = time.perf_counter()
        objects = photometry.get_objects_sextractor(
            image, mask=mask, gain=gain, aper=3.0, minarea=5, wcs=wcs, extra={"BACK_SIZE": 256}, verbose=False
        )
        found_in = time.perf_counter() - start
        good = (objects["flags"] == 0) & (objects["magerr"] < 1 / 20)
        fwhm = float(np.median(objects["fwhm"][good]))
        objects = photometry.measure_objects(
            objects, image, mask=mask, fwhm=fwhm, aper=1.0, bkgann=(5, 7), sn=5, bg_size=256, gain=gain, verbose=False
        )
        model = pipeline.calibrate_photometry(
            objects,
            stars,
            pixscale=scale,
            order=order,
            cat_col_mag="rmag",
            cat_col_mag_err="e_rmag",
            cat_col_mag1="gmag",
            cat_col_mag2="rmag",
            cat_col_ra="ra",
            cat_col_dec="dec",
            accept_flags=0x02,
            max_intrinsic_rms=0.01,
            scale_noise=True,
            sn=5,
            verbose=False,
        )
        seconds.append(time.perf_counter() - start)
        measuring.append(seconds[-1] - found_in)
    names = ("x", "y", "mag_calib", "mag_calib_err")
    columns = {name: np.asarray(objects[name], float) for name in names if name in objects.colnames}
    term = model["color_term"] if model else None
    np.savez(
        found, color_term=np.nan if term is None else term, seconds=min(seconds), measuring=min(measuring), **columns
    )
