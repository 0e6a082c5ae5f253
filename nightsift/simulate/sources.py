"""What is on the simulated sky: stars, galaxies, transients and variables, drawn at random."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy.table import Table, vstack
from scipy.spatial import cKDTree

from nightsift.simulate.cameras import (
    SimulatedCampaign,
    camera,
    tangent_plane,
)

BANDS = ("g", "r", "i")
STARS = ("star", "variable", "hpm")
EPOCH = 51544.5  # MJD of the positions: J2000
# Chosen by eye for the demo:
_SPACING = 15.0  # pixels between transients, so that none disturbs another
_HOST_SPACING = 40.0  # the same between galaxies with a transient each
_FIELD = 0.8  # half the side of the sky that is filled, over the side of an image
_COMMON = 0.46  # half the side of what all images see, over the side of an image
_BRIGHTEST, _FAINTEST = 9.5, 20.5  # stars, r mag


@dataclass(frozen=True)
class SimulatedSky:
    """The sources of the field: positions at J2000, magnitudes at rest, and how they change."""

    sources: Table
    start: float
    catalog_limit: float


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
    sigma = np.median([one.sigma * 10 ** (-0.4 * one.zp) / square_arcsec(one) for one in cameras])
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


def square_arcsec(cam):
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
    pixel = square_arcsec(camera)
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
