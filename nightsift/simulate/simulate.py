"""Render campaigns of one field of sky whose every source is known: the truth that the workflow is measured against."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy.io.fits import Header
from astropy.table import Table

from nightsift.image.moffat import psf_stamps
from nightsift.simulate.cameras import (
    Camera,
    SimulatedCampaign,
    camera,
    header_wcs,
    hole,
    image_header,
    template_camera,
)
from nightsift.simulate.pixels import bad_columns, bleed, cosmic_rays, render_galaxies, render_points, trail
from nightsift.simulate.sources import BANDS, EPOCH, STARS, SimulatedSky, square_arcsec

_TEMPLATE = -1  # number of the template among the images


@dataclass(frozen=True)
class SimulatedImage:
    """One image: pixels (float32, ADU), the header that comes with them, and what is true of them.

    ``primary`` is the primary header of a multi-extension file, None where the image is the primary; ``bad`` is True
    on saturated, bled, dead, hot, cosmic and trail pixels.
    """

    name: str
    data: np.ndarray
    header: Header
    primary: Header | None
    truth: Table
    bad: np.ndarray
    model: np.ndarray
    camera: Camera


def at_epoch(field: SimulatedSky, mjd: float):
    """Return ``ra, dec`` (deg) and the magnitude change of all sources at a time; the change is NaN for the unlit.

    The template's time lies before the transients and the mover.
    """
    sources = field.sources
    kind = np.asarray(sources["kind"])
    years = np.where(kind == "mover", mjd - field.start, mjd - EPOCH) / 365.25
    ra = sources["ra"] + years * sources["pmra"] / 3.6e6 / np.cos(np.radians(sources["dec"]))
    dec = sources["dec"] + years * sources["pmdec"] / 3.6e6
    phase = (mjd - sources["t0"]) / sources["period"]
    change = np.where(kind == "variable", sources["amplitude"] * np.sin(2 * np.pi * phase), 0.0)
    change = np.where(kind == "transient", sources["amplitude"] * phase**2, change)
    early = mjd < field.start - 30
    return (
        np.asarray(ra % 360),
        np.asarray(dec),
        np.where(early & np.isin(kind, ["transient", "mover"]), np.nan, change),
    )


def catalog_error(mag, limit: float, galaxy):
    """Return the error [mag] that a catalogue which ends at `limit` has of magnitudes; that of a galaxy is larger."""
    return np.hypot(0.005 + 0.03 * 10 ** (0.4 * (np.asarray(mag) - limit)), np.where(galaxy, 0.04, 0))


def catalog(field: SimulatedSky, params: SimulatedCampaign, kinds: tuple[str, ...] = (*STARS, "galaxy")) -> Table:
    """Return the reference catalogue, like that of a survey: stars and galaxies, and nothing tells them apart.

    It ends at a magnitude in r. Positions are those of J2000 with errors of 30 mas an axis, of galaxies 60 mas;
    magnitudes are of all light and have the errors that are quoted.
    """
    rng = np.random.default_rng([params.seed, 2])
    chosen = np.isin(field.sources["kind"], kinds) & (field.sources["rmag"] < field.catalog_limit)
    rows = field.sources[chosen]
    galaxy = np.asarray(rows["kind"]) == "galaxy"
    noise = rng.normal(0, 0.03 / 3600, (2, len(rows))) * np.where(galaxy, 2, 1)
    out = Table({"RAJ2000": (rows["ra"] + noise[0] / np.cos(np.radians(rows["dec"]))) % 360})
    out["DEJ2000"] = rows["dec"] + noise[1]
    out["pmRA"], out["pmDE"] = rows["pmra"], rows["pmdec"]
    for band in BANDS:
        error = catalog_error(rows[f"{band}mag"], field.catalog_limit, galaxy)
        out[f"{band}mag"] = rows[f"{band}mag"] + rng.normal(0, 1, len(rows)) * error
        out[f"e_{band}mag"] = error
    for name, unit in (("RAJ2000", "deg"), ("DEJ2000", "deg"), ("pmRA", "mas/yr"), ("pmDE", "mas/yr")):
        out[name].unit = unit
    out.meta["EPOCH"] = 2000.0
    return out


def _sources_on(field, cam, mjd):
    """Return x, y, ra, dec, mag_instr and flux of all sources; the flux is 0 and the magnitude NaN where unlit."""
    ra, dec, change = at_epoch(field, mjd)
    x, y = cam.wcs.wcs_world2pix(ra, dec, 0)
    # The distortion's polynomial means nothing, and has no inverse, far off the image.
    near = (np.abs(x / cam.shape[1] - 0.5) < 1.2) & (np.abs(y / cam.shape[0] - 0.5) < 1.2)
    x[near], y[near] = cam.wcs.all_world2pix(ra[near], dec[near], 0)
    color = field.sources["gmag"] - field.sources["rmag"]
    mag = np.asarray(field.sources[f"{cam.band}mag"] + cam.color * color + change)
    flux = np.nan_to_num(10 ** (-0.4 * (mag - cam.zero_point(x, y))))
    return x, y, ra, dec, mag, flux


def _model(field, cam, x, y, flux):
    """Return the expected image (float32, ADU)."""
    height, width = cam.shape
    v, u = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None, :]
    slope = cam.gradient[0] * u + cam.gradient[1] * v + cam.gradient[2] * (u**2 + v**2)
    image = (cam.sky * (1 + slope)).astype(np.float32)
    extended = np.asarray(field.sources["kind"] == "galaxy")
    render_points(image, x, y, np.where(extended, 0, flux), cam.psf, 0.05 * cam.sigma)
    galaxies = field.sources[extended]
    render_galaxies(image, x[extended], y[extended], flux[extended], galaxies, cam.psf, cam.wcs.wcs.cd * 3600)
    return image


def beneath(model, x, y, flux, cam: Camera, other: Camera):
    """Return the light beneath sources and the S/N that a difference can show of them.

    Parameters
    ----------
    model : 2-D array
        Expected image, ADU, the sources included.
    x, y, flux : arrays
        Pixels, ADU.
    cam, other : Camera
        Of the image, and of the template.

    Returns
    -------
    light : array
        Surface brightness at the place in standard deviations of a pixel of the sky.
    snr : array
        Of a matched filter with the image's PSF on the difference: all other light, in image and template, in the
        variance, and not the source's own.
    """
    half = int(np.ceil(4 * cam.psf.fwhm))
    stamps, ix, iy = psf_stamps(cam.psf, x, y, cam.shape, half)
    rows, columns = (
        np.arange(-half, half + 1)[:, None] + iy[:, None, None],
        np.arange(-half, half + 1) + ix[:, None, None],
    )
    around = np.pad(model - cam.sky, half, mode="edge")[rows + half, columns + half] - flux[:, None, None] * stamps
    ratio = 10 ** (0.4 * (cam.zp - other.zp))
    area = square_arcsec(cam) / square_arcsec(other)
    variance = cam.sigma**2 + ratio**2 * area * other.sigma**2 + around * (1 / cam.gain + ratio / other.gain)
    snr = flux * np.sqrt((stamps.astype(float) ** 2 / variance).sum(axis=(1, 2)))
    return around[:, half, half] / cam.sigma, snr


def signal_to_noise(model, x, y, flux, cam: Camera):
    """Return flux * sqrt(sum psf^2 / var), the S/N of a matched filter, with all light of the model in the variance.

    It is the most that any unbiased measurement of the flux at a known place can have (Naylor 1998, MNRAS 296, 339).
    """
    half = int(np.ceil(4 * cam.psf.fwhm))
    stamps, ix, iy = psf_stamps(cam.psf, x, y, cam.shape, half)
    variance = np.pad(model / cam.gain + (cam.readnoise / cam.gain) ** 2, half, mode="edge")
    rows = (iy[:, None] + np.arange(2 * half + 1))[:, :, None]
    columns = (ix[:, None] + np.arange(2 * half + 1))[:, None, :]
    return flux * np.sqrt((stamps.astype(float) ** 2 / variance[rows, columns]).sum(axis=(1, 2)))


def _detector(rng, model, cam, params, k):
    """Return noisy data with what a detector and the sky add, and the pixels that are bad for it."""
    expected, bad = model, np.zeros(cam.shape, bool)
    if k == min(2, params.n_images - 1):
        streak = trail(rng, cam.shape, cam.psf.fwhm)
        expected, bad = model + 6 * cam.sigma * streak, streak > 0.1
    data = (rng.poisson(expected * cam.gain) + rng.normal(0, cam.readnoise, cam.shape)) / cam.gain
    full = bleed(data, cam.fullwell)
    if k == _TEMPLATE:
        data[hole(cam.shape)] = np.nan
        return data, full
    charge = cosmic_rays(rng, cam.shape, params.n_cosmics) / cam.gain
    data = np.minimum(data + charge, cam.fullwell)
    bad |= full | (charge > 0)
    for rows, column, hot in bad_columns(rng, cam.shape):
        data[rows, column] = 30000 + rng.normal(0, 300, data[rows, column].shape) if hot else rng.normal(0, 2)
        bad[rows, column] = True
    return data, bad


def _truth(field, cam, model, bad, params):
    x, y, ra, dec, mag, flux = _sources_on(field, cam, cam.mjd)
    other = template_camera(params)
    *_, before = _sources_on(field, cam, other.mjd)
    kind = np.asarray(field.sources["kind"])
    inside = (x > -0.5) & (x < cam.shape[1] - 0.5) & (y > -0.5) & (y < cam.shape[0] - 0.5) & (flux > 0)
    inside = np.flatnonzero(inside)
    truth = Table({"id": field.sources["id"][inside], "kind": kind[inside]})
    truth["on_host"] = np.asarray(field.sources["on_host"])[inside]
    for name, values in (("x", x), ("y", y), ("ra", ra), ("dec", dec), ("flux", flux), ("mag_instr", mag)):
        truth[name] = values[inside]
    point = truth["kind"] != "galaxy"
    snr = signal_to_noise(model, truth["x"].data, truth["y"].data, truth["flux"].data, cam)
    truth["snr"] = np.where(point, snr, np.nan)
    new = np.flatnonzero(truth["kind"] == "transient")
    sources = [truth[name].data[new] for name in ("x", "y", "flux")]
    truth["light"], truth["snr_difference"] = np.nan, np.nan
    for column, values in zip(("light", "snr_difference"), beneath(model, *sources, cam, other), strict=True):
        truth[column][new] = values
    truth["delta_flux"] = np.where(np.isin(truth["kind"], ["hpm"]), np.nan, (flux - before)[inside])
    truth["delta_flux"][np.isin(truth["kind"], ["star", "galaxy"])] = 0.0
    truth["delta_snr"] = truth["snr"] * truth["delta_flux"] / truth["flux"]
    truth["usable"] = _usable(truth, cam, other, bad)
    truth["flux"].unit = truth["delta_flux"].unit = "adu"
    truth.meta.update(image=cam.name, filter=cam.band, mjd=float(cam.mjd), fwhm=float(cam.psf.fwhm), zp=float(cam.zp))
    truth.meta["megapixels"] = cam.shape[0] * cam.shape[1] / 1e6
    truth.meta.update(color_term=float(cam.color), gain=float(cam.gain), sigma=float(cam.sigma))
    return truth


def _usable(truth, cam, other, bad):
    x, y = truth["x"].data, truth["y"].data
    out = (x >= 1) & (x <= cam.shape[1] - 2) & (y >= 1) & (y <= cam.shape[0] - 2)
    out &= ~bad[np.rint(y).astype(int), np.rint(x).astype(int)]
    tx, ty = (np.rint(value).astype(int) for value in other.wcs.all_world2pix(truth["ra"], truth["dec"], 0))
    rows, columns = hole(other.shape)
    return out & ~((ty >= rows.start) & (ty < rows.stop) & (tx >= columns.start) & (tx < columns.stop))


def image(field: SimulatedSky, k: int, params: SimulatedCampaign) -> SimulatedImage:
    """Render image `k` of the campaign (from 0).

    Parameters
    ----------
    field : Sky
    k : int
    params : Campaign

    Returns
    -------
    Exposure
        With the truth table of what lies in the image: ``id kind on_host x y ra dec flux mag_instr snr light
        snr_difference delta_flux delta_snr usable``. Positions are at mid-exposure, ``flux`` is the total (ADU),
        ``mag_instr`` in the image's own passband on the catalogue's zero point, ``snr`` that of `signal_to_noise`,
        ``light`` and ``snr_difference`` of transients those of `beneath`, ``delta_flux`` the flux less that at the
        template's epoch. ``usable`` is False off the good pixels and where the template has none.
    """
    cam = camera(k, params)
    x, y, _, _, _, flux = _sources_on(field, cam, cam.mjd)
    model = _model(field, cam, x, y, flux)
    rng = np.random.default_rng([params.seed, 4, k])
    data, bad = _detector(rng, model, cam, params, k)
    truth = _truth(field, cam, model, bad, params)
    header, primary = image_header(cam, header_wcs(rng, cam))
    return SimulatedImage(cam.name, data.astype(np.float32), header, primary, truth, bad, model, cam)


def template(field: SimulatedSky, params: SimulatedCampaign) -> SimulatedImage:
    """Render the template: no transients, no mover, variables and fast stars as they were; no truth table."""
    cam = template_camera(params)
    x, y, _, _, _, flux = _sources_on(field, cam, cam.mjd)
    model = _model(field, cam, x, y, flux)
    data, bad = _detector(np.random.default_rng([params.seed, 5]), model, cam, params, _TEMPLATE)
    header, primary = image_header(cam, cam.wcs)
    return SimulatedImage(cam.name, data.astype(np.float32), header, primary, Table(), bad, model, cam)
