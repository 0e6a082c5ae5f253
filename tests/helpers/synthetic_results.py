"""Products of a campaign as the stages leave them, from known sources: what the campaign's scripts are tested on."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from scipy.ndimage import gaussian_filter

from nightsift import tables
from nightsift.fakes.completeness import completeness
from nightsift.flags import Flag, Mask
from nightsift.io import products
from nightsift.psf.fit import functions
from nightsift.psf.model import Psf
from nightsift.transients.realbogus import quality
from nightsift.workflow import results

SIDE, SCALE, FWHM, NOISE, ZP = 200, 1.0, 3.0, 5.0, 25.0
GAIN, SMOOTHING = 2.0, 0.6  # e-/ADU; pixels over which noise is correlated, rms
PROVENANCE = products.Provenance("test", "0", {})
EVIL = "<script>alert(1)</script>"


def wcs_header(ra, dec, side=SIDE):
    header = fits.Header()
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN", "DEC--TAN"
    header["CRPIX1"] = header["CRPIX2"] = (side + 1) / 2
    header["CRVAL1"], header["CRVAL2"] = ra % 360, dec
    header["CD1_1"], header["CD1_2"], header["CD2_1"], header["CD2_2"] = -SCALE / 3600, 0.0, 0.0, SCALE / 3600
    header["RADESYS"] = "ICRS"
    return header


def point(shape, x, y, flux):
    sigma = FWHM / 2.3548
    down, across = (
        np.exp(-((np.arange(side) - at) ** 2) / (2 * sigma**2)) for side, at in zip(shape, (y, x), strict=True)
    )
    return flux / (2 * np.pi * sigma**2) * np.outer(down, across)


def gaussian_psf(shape):
    v, u = np.mgrid[-9:10, -9:10].astype(float)
    basis = functions(u.ravel(), v.ravel(), FWHM).T
    profile = point((19, 19), 9, 9, 1.0).ravel()
    coefficients = np.linalg.lstsq(basis, profile, rcond=1e-10)[0]
    return Psf(coefficients[None], FWHM, shape, 0, 3 * FWHM, 50, 1.0)


def noise_correlation():
    """Return the true error of a PSF flux over that for white noise, from the kernel that correlates the noise."""
    kernel = gaussian_filter(np.pad([[1.0]], 12), SMOOTHING)
    profile = point(kernel.shape, 12, 12, 1.0)
    true = gaussian_filter(profile, SMOOTHING)
    return np.sqrt(np.sum(true**2) / np.sum(kernel**2) / np.sum(profile**2))


def difference_of(rng, shape, rows):
    """Return a difference with sources, their own photon noise, and correlated noise of the background."""
    noise = gaussian_filter(rng.normal(0, 1, shape), SMOOTHING, mode="wrap")
    kernel = gaussian_filter(np.pad([[1.0]], 12), SMOOTHING)
    difference = noise * NOISE / np.sqrt(np.sum(kernel**2))
    for row in rows:
        light = point(shape, row["x"], row["y"], row["flux"])
        difference += rng.poisson(light * GAIN) / GAIN if row["flux"] > 0 else light
    return difference.astype(np.float32)


def difference_psf(shape):
    """Return images and header of the PSF of a difference."""
    images, header = gaussian_psf(shape).to_images()
    header["NOISECOR"] = noise_correlation()
    header["SCALEERR"], header["RESIDUAL"] = 0.0, 0.0
    return images, header


def fakes_table(rng, count=240):
    """Return fakes, half of which are found at S/N 5 on the sky and at 6 on galaxies."""
    table = tables.empty("fakes")
    snr = np.concatenate([rng.uniform(3, 9, count // 2), np.geomspace(9, 99, count - count // 2)])
    kind = np.where(rng.random(count) < 0.7, "sky", "host")
    values = {
        "kind": kind,
        "true_x": rng.uniform(10, SIDE - 10, count),
        "true_y": rng.uniform(10, SIDE - 10, count),
        "true_flux": 25.0 * snr,
        "true_snr": snr,
        "found": rng.normal(snr, 0.8) > np.where(kind == "sky", 5, 6),
    }
    return Table({name: values.get(name, np.zeros(count, table[name].dtype)) for name in table.colnames})


def search_facts(rng, fakes, trained_on="image"):
    """Return what the stage transients says of its model and its completeness."""
    found, kind = np.asarray(fakes["found"]), np.asarray(fakes["kind"])
    mag = zero_point(fakes["true_x"], fakes["true_y"]) - 2.5 * np.log10(fakes["true_flux"])
    curves = {}
    for name, group in (("off_hosts", kind == "sky"), ("on_hosts", kind == "host")):
        snr = completeness(fakes["true_snr"][group], found[group], (3, 4, 5, 6, 7, 8, 10, 20, 50, 100))
        bright = completeness(-mag[group], found[group], ())
        limits = {"half": -bright.half, "ninety": -bright.ninety}
        errors = {"half_err": bright.half_err, "ninety_err": bright.ninety_err}
        curves[name] = {"snr": snr.to_dict(), "mag": limits | errors}
    score = np.concatenate([rng.beta(8, 1, 150), rng.beta(1, 8, 40)])
    card = {"trained_on": trained_on, "measures": [], "own_real": 150, "own_bogus": 40}
    card |= {"package_real": 8000, "package_bogus": 700} | quality(score, np.arange(190) < 150)
    return {"threshold": 5.3, "model": card, "completeness": curves}


def photometry_facts():
    return {
        "band": "r",
        "color": "g-r",
        "zp": ZP,
        "zp_err": 0.004,
        "color_term": -0.05,
        "color_term_err": 0.01,
        "order": 1,
        "intrinsic": 0.01,
        "scatter": 0.012,
        "n_matched": 60,
        "n_used": 55,
        "chi2": 1.0,
        "parameters": ["zp", "x", "y", "color"],
        "coefficients": [ZP, 0.02, -0.01, -0.05],
        "covariance": np.diag([1.6e-5] * 4).tolist(),
        "shape": [SIDE, SIDE],
        "limit_snr": 5.0,
        "maglim": 18.79,
        "maglim_snr": 18.79,
        "maglim_noise": 18.79,
        "maglim_model": [3600 * 10 ** (-0.8 * ZP), 0.5 * 10 ** (-0.4 * ZP), 0.0],
    }


def zero_point(x, y):
    half = (SIDE - 1) / 2
    return ZP + 0.02 * (x / half - 1) - 0.01 * (y / half - 1)


def stars(rng, count, side=SIDE):
    x, y = rng.uniform(3, side - 4, (2, count))
    mag = rng.uniform(14, 21, count)
    flux = 10 ** (0.4 * (zero_point(x, y) - mag))
    error = np.sqrt(60.0**2 + flux / 2)
    table = tables.empty("objects")
    values = {
        "x": x,
        "y": y,
        "flux": flux,
        "fluxerr": error,
        "snr": flux / error,
        "fwhm": FWHM * rng.normal(1, 0.03 + 0.5 / np.sqrt(flux / error), count),
        "flags": np.where(rng.random(count) < 0.1, int(Flag.SATURATED), 0),
        "peak": 0.88 * flux / FWHM**2 * rng.normal(1, 0.05, count),
        "a": np.full(count, FWHM / 2.3548),
        "b": FWHM / 2.3548 * rng.beta(30, 2, count),
        "mag_calib": mag,
        "mag_calib_err": 1.0857 * error / flux,
        "mag_psf": mag,
        "psf_flux": flux,
        "spread": np.where(rng.random(count) < 0.3, 0.02, 0) + rng.normal(0, 0.1, count) * error / flux,
        "spread_err": 0.1 * error / flux,
        "outlier": rng.beta(30, 40, count) + 0.2 * (rng.random(count) < 0.05),
    }
    return Table({name: values.get(name, np.zeros(count, table[name].dtype)) for name in table.colnames})


def candidate_table(rows, image, header):
    """Rows are dictionaries with x, y, flux and what else differs from the default."""
    table = tables.empty("candidates")
    if not rows:
        return table
    wcs = WCS(header)
    values = {name: [] for name in table.colnames}
    for row in rows:
        ra, dec = wcs.all_pix2world(row["x"], row["y"], 0)
        error = row.get("fluxerr", 25.0)
        full = {
            "ra": float(ra),
            "dec": float(dec),
            "fluxerr": error,
            "snr": row["flux"] / error,
            "fwhm": FWHM,
            "flags": 0,
            "mag_calib": zero_point(row["x"], row["y"]) - 2.5 * np.log10(max(abs(row["flux"]), 1.0)),
            "mag_calib_err": 1.0857 * error / max(abs(row["flux"]), 1.0),
            "image": image.name,
            "mjd": image.mjd,
            "filter": image.band,
            "score": 0.9,
            "is_real": True,
            "reasons": "",
            "label": "new",
            "maglim": 20.5,
            "template_flux": 1000.0,
        } | row
        for name in values:
            values[name].append(full.get(name, 1.0))
    return Table(values)


@dataclass(frozen=True)
class Made:
    """What an image is made of.

    `rows` are its sources (x, y, flux and what else differs from the default; `found` False = not a candidate), `aside`
    what its search set aside, `status` what differs in its state; `fakes` is what its model was trained on, where there
    were fakes.
    """

    name: str
    ra: float
    dec: float
    rows: list
    mjd: float = 60310.25
    band: str = "r"
    seed: int = 1
    aside: tuple = ()
    status: dict = field(default_factory=dict)
    fakes: str = ""


def write_image(folder, image: Made):
    """Write all products of an image."""
    rng = np.random.default_rng(image.seed)
    folder, shape, header = Path(folder) / image.name, (SIDE, SIDE), wcs_header(image.ra, image.dec)
    folder.parent.mkdir(parents=True, exist_ok=True)
    difference = difference_of(rng, shape, image.rows)
    objects = stars(rng, 300)
    sky = (difference + 500).astype(np.float32)
    for star in objects[objects["flux"] > 2000]:
        sky += point(shape, star["x"], star["y"], star["flux"]).astype(np.float32)
    fits.writeto(folder.parent.parent / f"{image.name}.fits", sky, overwrite=True)
    planted = fakes_table(rng) if image.fakes else tables.empty("fakes")
    searched = search_facts(rng, planted, image.fakes) if image.fakes else {}
    _write_states(folder, image, len(objects), searched)
    _write_planes(folder, difference, header)
    products.write_table(folder / "fakes.fits", planted, "fakes", PROVENANCE)
    products.write_table(folder / "objects.fits", objects, "objects", PROVENANCE)
    _write_stars(folder, objects, rng)
    _write_uncatalogued(folder, objects, image, header)
    found = [row for row in image.rows if row.get("found", True)]
    dropped = [{**row, "is_real": False, "reasons": row["reasons"]} for row in image.aside]
    for name, rows in (("candidates", found), ("candidates_all", found + dropped)):
        products.write_table(folder / f"{name}.fits", candidate_table(rows, image, header), "candidates", PROVENANCE)
    cutouts = {"CUTOUTS": np.float32([_cutout(difference, sky, row) for row in found])} if found else {}
    products.write_images(folder / "cutouts.fits", cutouts, None, PROVENANCE)


def _write_states(folder, image, n_objects, searched):
    """Write what each stage says of an image."""
    start = {"image": image.name, "status": "ok", "stage": None, "reason": "", "warnings": [], "stopped": None}
    said = {stage: {} for stage in ("catalog", "uncatalogued", "template", "subtract", "fakes")}
    said["inspect"] = {
        "mjd": image.mjd,
        "exptime": 60.0,
        "filter": image.band,
        "shape": [SIDE, SIDE],
        "hdu": 0,
        "pixscale": SCALE,
        "gain": GAIN,
    }
    cells = {"x": [9.5, 29.5], "y": [9.5, 9.5], "dx": [0.02, None], "dy": [-0.01, None], "n": [7, 1]}
    said["detect"] = {"fwhm": FWHM, "noise": NOISE, "n_objects": n_objects}
    said["astrometry"] = {"rms": [0.05, 0.06], "order": 2, "n_matches": 60, "residual_map": cells}
    said["photometry"] = photometry_facts()
    shapes = {"fwhm": FWHM, "fwhm_range": [2.9, 3.1], "ellipticity": 0.02, "ellipticity_range": [0.01, 0.05]}
    said["psf"] = {"n_stars": 50, "order": 0} | shapes
    said["status"] = searched | image.status
    for stage, facts in said.items():
        products.write_json(folder / f"{stage}.json", start | facts)


def _write_planes(folder, difference, header):
    """Write mask, PSFs, solution and difference of an image."""
    shape, sigma = difference.shape, np.full(difference.shape, NOISE, np.float32)
    mask = np.zeros(shape, np.int32)
    mask[:6], mask[:, -20:] = int(Mask.EDGE), int(Mask.NO_TEMPLATE)
    mask[90:94, 30:34] |= int(Mask.SATURATED)
    planes = {"DIFFERENCE": difference, "SIGMA": sigma, "SNR": difference / sigma, "MASK": mask}
    planes["MODEL"] = np.zeros_like(sigma)
    products.write_images(folder / "mask.fits", {"MASK": mask}, header, PROVENANCE)
    products.write_images(folder / "image_psf.fits", *gaussian_psf(shape).to_images(), PROVENANCE)
    products.write_images(folder / "template.fits", {}, None, PROVENANCE)
    products.write_images(folder / "difference.fits", planes, header, PROVENANCE)
    products.write_images(folder / "psf.fits", *difference_psf(shape), PROVENANCE)
    with products.atomic(folder / "wcs.fits") as temporary:
        fits.PrimaryHDU(header=header).writeto(temporary, overwrite=True)


def _cutout(difference, sky, row):
    rows = np.arange(41) - 20 + round(row["y"])
    columns = np.arange(41) - 20 + round(row["x"])
    stamp = np.full((4, 41, 41), np.nan)
    inside = np.ix_((rows >= 0) & (rows < SIDE), (columns >= 0) & (columns < SIDE))
    where = np.ix_(rows[(rows >= 0) & (rows < SIDE)], columns[(columns >= 0) & (columns < SIDE)])
    for number, plane in enumerate((sky, sky - difference, difference, difference / NOISE)):
        stamp[number][inside] = plane[where]
    return stamp


def _write_uncatalogued(folder, objects, image, header):
    """Write two objects at the same places of the sky, one of them new, and one that was set aside."""
    table = objects[:3].copy()
    at = [(0.02, 20.002), (0.01, 20.01), (0.013, 20.015)]
    table["ra"], table["dec"] = np.transpose(at)
    table["x"], table["y"] = WCS(header).all_world2pix(table["ra"], table["dec"], 0)
    table["image"], table["mjd"], table["filter"] = image.name, image.mjd, image.band
    table["label"] = ["new", "brighter", "new"]
    table["catalog_distance"], table["catalog_mag"] = [12.0, 0.3, 9.0], [np.nan, 20.0, np.nan]
    table["brightening"] = table["catalog_mag"] - table["mag_psf"]
    table["reasons"], table["known"] = ["", "", "extended"], ["(1) Ceres", "", ""]
    table["is_candidate"] = table["reasons"] == ""
    products.write_table(folder / "uncatalogued.fits", table[:2], "uncatalogued", PROVENANCE)
    products.write_table(folder / "uncatalogued_all.fits", table, "uncatalogued", PROVENANCE)


def _write_stars(folder, objects, rng):
    bright = objects[objects["snr"] > 30][:60]
    count = len(bright)
    matches = Table({"object": np.arange(count), "x": bright["x"], "y": bright["y"]})
    matches["dx"], matches["dy"] = rng.normal(0, 0.05, (2, count))
    matches["ra"], matches["dec"] = np.zeros((2, count))
    products.write_table(folder / "matches.fits", matches, "matches", PROVENANCE)
    calibrators = Table({name: bright[name] for name in ("x", "y")})
    calibrators["mag_cat"], calibrators["mag_instr"] = bright["mag_calib"], bright["mag_calib"] - ZP
    calibrators["color"] = rng.normal(0.6, 0.3, count)
    calibrators["error"] = 0.01
    calibrators["residual"] = rng.normal(0, 0.012, count)
    calibrators["contamination"] = 0.0
    calibrators["used"] = rng.random(count) > 0.1
    fits.HDUList([fits.PrimaryHDU(), fits.table_to_hdu(calibrators)]).writeto(folder / "calibrators.fits")


def write_stopped(folder, name, status, stage, reason, **facts):
    """Write what is there of an image that stopped at its first stages."""
    folder = Path(folder) / name
    state = {"image": name, "status": status, "stage": stage, "reason": reason, "warnings": [], "stopped": stage}
    products.write_json(folder / "inspect.json", state | facts)
    for later in (*results.PER_IMAGE[1:], "status"):
        products.write_json(folder / f"{later}.json", state)
    for image in ("mask", "image_psf", "wcs", "template", "difference", "psf", "cutouts"):
        products.write_images(folder / f"{image}.fits", {}, None, PROVENANCE)
    for schema in ("objects", "matches", "uncatalogued", "candidates", "fakes"):
        products.write_table(folder / f"{schema}.fits", tables.empty(schema), schema, PROVENANCE)
    products.write_table(folder / "candidates_all.fits", tables.empty("candidates"), "candidates", PROVENANCE)


def write_campaign(folder, n_images=8):
    """Write a campaign around RA 0 with two lasting sources, a short one, artefacts, and images that failed.

    The models of most images are trained on the image, that of the third on the package; the fifth has no fakes.
    """
    folder, names = Path(folder) / "images", []
    (folder.parent / "campaign").mkdir(parents=True, exist_ok=True)
    for number in range(n_images):
        name = f"night_{number:02d}"
        shift = 12.0 * number
        light = 900 * np.exp(-0.5 * ((number - 3) / 2.5) ** 2)
        rows = [
            {"x": 60.0 + shift, "y": 80.0, "flux": light, "found": light > 150},
            {"x": 40.2 + shift, "y": 150.4, "flux": 400.0, "label": "variable", "template_flux": 5000.0, "score": 0.7},
        ]
        if number == 3:
            rows.append({"x": 120.0, "y": 40.0, "flux": -300.0, "label": "faded", "score": 0.6, "mag_calib": np.nan})
        aside = [{"x": 20.0, "y": 30.0, "flux": 150.0, "reasons": "negative,dipole"}]
        aside.append({"x": 100.0, "y": 180.0, "flux": 140.0, "reasons": "shape"})
        status = {}
        if number == 1:
            status = {"warnings": [f"inspect: gain not in the header, {EVIL}", "photometry: few stars"]}
        if number == 5:
            status = {"status": "degraded", "stage": "subtract", "reason": "the kernel does not fit: residuals of 9 %"}
        image = Made(
            name,
            0.005 + shift * SCALE / 3600 / np.cos(np.radians(20.0)),
            20.0,
            rows,
            mjd=60310.25 + number,
            seed=number,
            aside=tuple(aside),
            status=status,
            fakes={2: "package", 4: ""}.get(number, "image"),
        )
        write_image(folder, image)
        names.append(name)
    write_stopped(folder, "cloudy", "rejected", "astrometry", f"only 3 objects, {EVIL}", mjd=60319.0, filter=EVIL)
    write_stopped(folder, "broken", "error", "subtract", "ValueError: array must not contain infs or NaNs")
    (folder / "killed").mkdir()
    names += ["cloudy", "broken", "killed"]
    listed = folder.parent / "campaign" / "images.list"
    listed.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    return listed
