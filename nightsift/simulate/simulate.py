"""Render campaigns of one field of sky whose every source is known: the truth that the workflow is measured against."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy.io.fits import Header
from astropy.table import Table, vstack
from scipy.spatial import cKDTree

from nightsift.image.moffat import psf_stamps
from nightsift.simulate.cameras import (
    Camera,
    SimulatedCampaign,
    camera,
    header_wcs,
    hole,
    image_header,
    tangent_plane,
    template_camera,
)
from nightsift.simulate.pixels import bad_columns, bleed, cosmic_rays, render_galaxies, render_points, trail

BANDS = ("g", "r", "i")
STARS = ("star", "variable", "hpm")
EPOCH = 51544.5
_TEMPLATE = -1
_SPACING = 15.0
_HOST_SPACING = 40.0
_FIELD = 0.8
_COMMON = 0.46
_BRIGHTEST = 9.5
_FAINTEST = 20.5


@dataclass(frozen=True)
class SimulatedSky:
    """The sources of the field: positions at J2000, magnitudes at rest, and how they change."""

    sources: Table
    start: float
    catalog_limit: float


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


def _counts(rng, size, bright, faint, slope):
    """Draw magnitudes whose numbers rise as 10^(slope m)."""
    low, high = 10 ** (slope * bright), 10 ** (slope * faint)
    return np.log10(low + rng.random(size) * (high - low)) / slope


def _block(rng, kind, east, north, rmag, color):
    size = len(east)
    out = Table({"kind": np.full(size, kind, dtype="U9"), "east": east, "north": north})
    out["pmra"], out["pmdec"] = rng.normal(0, 5, (2, size))
    out["gmag"], out["rmag"], out["imag"] = rmag + color, rmag, rmag - 0.45 * color + rng.normal(0, 0.03, size)
    for name, value in (("r50", 0.0), ("nu", 0.5), ("q", 1.0), ("pa", 0.0), ("amplitude", 0.0), ("period", 1.0)):
        out[name] = np.full(size, value)
    out["t0"], out["on_host"] = np.zeros(size), np.zeros(size, bool)
    return out


def _galaxies(rng, half, params):
    size = round(params.n_galaxies * (2 * half / (params.size * params.pixscale)) ** 2)
    rmag = _counts(rng, size, 14.8, 19.8, 0.3)
    out = _block(rng, "galaxy", *rng.uniform(-half, half, (2, size)), rmag, rng.normal(0.7, 0.2, size))
    out["pmra"] = out["pmdec"] = 0.0
    out["r50"] = np.clip(3.5 * 10 ** (-0.12 * (rmag - 16)) * rng.lognormal(0, 0.25, size), 0.8, 6) * params.pixscale
    out["nu"] = rng.choice([0.5, 0.5, 0.0, -0.4], size)
    out["q"], out["pa"] = rng.uniform(0.4, 1, size), rng.uniform(0, 180, size)
    return out


def _spread(east, north, spacing):
    """Keep those positions, in order, that have no earlier kept one within `spacing`."""
    pairs = cKDTree(np.column_stack([east, north])).query_pairs(spacing, output_type="ndarray")
    keep = np.ones(len(east), bool)
    for first, second in pairs[np.lexsort(pairs.T[::-1])]:
        keep[second] &= ~keep[first]
    return keep


def _transients(rng, galaxies, cameras, params):
    """Place transients in the part of sky that all images see, half of them on galaxies, by the S/N they shall have."""
    scale, count = params.pixscale, params.n_transients
    common = _COMMON * params.size * scale
    inside = (np.abs(galaxies["east"]) < common) & (np.abs(galaxies["north"]) < common) & (galaxies["rmag"] > 15.5)
    hosts = galaxies[rng.permutation(np.flatnonzero(inside))]
    radius, angle = rng.uniform(0.1, 1.3, len(hosts)) * hosts["r50"], rng.uniform(0, 2 * np.pi, len(hosts))
    on = np.column_stack([hosts["east"] + radius * np.cos(angle), hosts["north"] + radius * np.sin(angle)])[
        : count // 2
    ]
    host = 10 ** (-0.4 * hosts["rmag"]) * _surface_brightness(hosts["r50"], radius / hosts["r50"], scale)
    off = rng.uniform(-common, common, (3 * count + 50, 2))
    free = cKDTree(np.column_stack([galaxies["east"], galaxies["north"]])).query(off)[0] > 12 * scale
    place = np.concatenate([on, off[free]])
    brightness = np.concatenate([np.asarray(host)[: len(on)], np.zeros(free.sum())])
    keep = np.flatnonzero(_spread(*place.T, _SPACING * scale))[:count]
    return _lit(rng, place[keep], brightness[keep], keep < len(on), cameras, params)


def _with_hosts(rng, cameras, params):
    """Return galaxies, and a transient on each at a place of known surface brightness, where all images see it."""
    scale, common = params.pixscale, _COMMON * params.size * params.pixscale
    place = rng.uniform(-common, common, (20 * params.n_transients, 2))
    place = place[_spread(*place.T, _HOST_SPACING * scale)][: params.n_transients]
    count = len(place)
    level = np.resize(params.host_levels, count)
    r50, ratio = rng.uniform(2, 5, count) * scale, rng.uniform(0.1, 1.3, count)
    sigma = np.median([one.sigma * 10 ** (-0.4 * one.zp) / _square_arcsec(one) for one in cameras])
    rmag = -2.5 * np.log10(level * sigma / _surface_brightness(r50, ratio, scale))
    angle = rng.uniform(0, 2 * np.pi, count)
    centre = place - (ratio * r50 * np.array([np.cos(angle), np.sin(angle)])).T
    hosts = _block(rng, "galaxy", *centre.T, rmag, rng.normal(0.7, 0.2, count))
    hosts["pmra"] = hosts["pmdec"] = 0.0
    hosts["r50"], hosts["nu"] = r50, rng.choice([0.5, 0.5, 0.0, -0.4], count)
    hosts["q"], hosts["pa"] = rng.uniform(0.4, 1, count), rng.uniform(0, 180, count)
    return hosts, _lit(rng, place, level * sigma, np.ones(count, bool), cameras, params)


def _surface_brightness(r50, ratio, scale):
    """Return an exponential disc's, of flux 1, at `ratio` half-light radii, per square arcsec.

    Seeing is included in the area only: good enough to aim at an S/N.
    """
    area = 2 * np.pi * ((r50 / 1.68) ** 2 + (1.5 * scale) ** 2)
    return np.exp(-1.68 * ratio) / area


def _square_arcsec(cam):
    return abs(np.linalg.det(cam.wcs.wcs.cd)) * 3600**2


def _lit(rng, place, brightness, on_host, cameras, params):
    """Return transients at places [arcsec] with light of some brightness (flux of 0 mag per square arcsec) below."""
    snr = np.exp(rng.uniform(np.log(params.snr_min), np.log(params.snr_max), len(place)))
    rmag = np.median([_magnitude_of_snr(snr, brightness, camera) for camera in cameras], axis=0)
    out = _block(rng, "transient", *place.T, rmag, rng.normal(0.2, 0.3, len(place)))
    out["pmra"] = out["pmdec"] = 0.0
    out["on_host"] = on_host
    times = np.array([camera.mjd for camera in cameras])
    out["t0"] = rng.uniform(times.min() - 1, times.max() + 1, len(place))
    out["period"] = np.ptp(times) + 2
    out["amplitude"] = rng.uniform(1, 4, len(place))
    # The S/N asked for is the campaign's mean in the logarithm, whatever the light curve.
    phase2 = ((times[:, None] - np.asarray(out["t0"])) / np.asarray(out["period"])) ** 2
    shift = np.asarray(out["amplitude"]) * phase2.mean(axis=0)
    for band in BANDS:
        out[f"{band}mag"] -= shift
    return out


def _magnitude_of_snr(snr, brightness, camera):
    """Solve snr^2 = f^2 / (n_eff var + f / gain) for f; `brightness` is the flux of 0 mag per square arcsec below."""
    pixel = _square_arcsec(camera)
    alpha2 = camera.psf.fwhm**2 / (4 * (2 ** (1 / camera.psf.beta) - 1))
    n_eff = np.pi * alpha2 * (2 * camera.psf.beta - 1) / (camera.psf.beta - 1) ** 2
    var = camera.sigma**2 + brightness * pixel * 10 ** (0.4 * camera.zp) / camera.gain
    flux = (snr**2 / camera.gain + np.sqrt(snr**4 / camera.gain**2 + 4 * snr**2 * n_eff * var)) / 2
    return camera.zp - 2.5 * np.log10(flux)


def sky(params: SimulatedCampaign) -> SimulatedSky:
    """Draw the sources of a campaign's field.

    Parameters
    ----------
    params : SimulatedCampaign

    Returns
    -------
    Sky
        Stars, variables, fast-moving stars ("hpm"), galaxies, transients and one mover, with ``ra dec`` (deg, ICRS,
        J2000 or, for the mover, at the campaign's first night), ``pmra`` (with cos dec) and ``pmdec`` (mas/yr).
    """
    rng = np.random.default_rng([params.seed, 0])
    half = _FIELD * params.size * params.pixscale
    cameras = [camera(k, params) for k in range(params.n_images)]
    size = round(params.n_stars * (2 * _FIELD) ** 2)
    rmag = _counts(rng, size, _BRIGHTEST, _FAINTEST, 0.3)
    color = np.clip(rng.normal(0.65, 0.3, size), -0.1, 1.5)
    stars = _block(rng, "star", *rng.uniform(-half, half, (2, size)), rmag, color)
    special = rng.permutation(np.flatnonzero((rmag > 14.5) & (rmag < 18.5)))
    inner = (np.abs(stars["east"]) < half * 0.6) & (np.abs(stars["north"]) < half * 0.6)
    special = special[np.asarray(inner)[special]]
    fast, variable = np.split(special[: params.n_fast + params.n_variables], [params.n_fast])
    stars["kind"][fast], stars["kind"][variable] = "hpm", "variable"
    angle = rng.uniform(0, 2 * np.pi, fast.size)
    motion = rng.uniform(300, 1500, fast.size)
    stars["pmra"][fast], stars["pmdec"][fast] = motion * np.cos(angle), motion * np.sin(angle)
    stars["amplitude"][variable] = rng.uniform(0.15, 0.6, variable.size)
    stars["period"][variable] = rng.uniform(0.3, 40, variable.size)
    stars["t0"][variable] = rng.uniform(0, 40, variable.size)
    galaxies = _galaxies(rng, half, params)
    if params.host_levels:
        hosts, transients = _with_hosts(rng, cameras, params)
        galaxies = vstack([galaxies, hosts])
    else:
        transients = _transients(rng, galaxies, cameras, params)
    path, start = rng.uniform(0, 2 * np.pi), rng.uniform(-0.3, 0.3, (2, 1)) * params.size * params.pixscale
    mover = _block(rng, "mover", *start, np.array([17.3]), np.array([0.5]))
    mover["pmra"], mover["pmdec"] = 365.25e3 * 12 * np.cos(path), 365.25e3 * 12 * np.sin(path)
    blocks = (stars, galaxies, transients, mover)
    sources = Table({name: np.concatenate([block[name] for block in blocks]) for name in stars.colnames})
    sources["ra"], sources["dec"] = tangent_plane(params).wcs_pix2world(sources["east"], sources["north"], 0)
    # Drawn where they stand on the campaign's first night, kept as they stood at J2000.
    years = (params.mjd - EPOCH) / 365.25
    still = sources["kind"] == "mover"
    sources["ra"] -= np.where(still, 0, years * sources["pmra"]) / 3.6e6 / np.cos(np.radians(sources["dec"]))
    sources["dec"] -= np.where(still, 0, years * sources["pmdec"]) / 3.6e6
    sources["ra"] %= 360
    sources.add_column(np.arange(len(sources)), name="id", index=0)
    limit = float(np.median([_magnitude_of_snr(params.catalog_snr, 0.0, one) for one in cameras]))
    return SimulatedSky(sources=sources, start=params.mjd, catalog_limit=limit)


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
    area = _square_arcsec(cam) / _square_arcsec(other)
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
