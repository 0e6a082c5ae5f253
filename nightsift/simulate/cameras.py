"""Cameras of simulated campaigns: how each image is taken, and what its header says of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy.coordinates import Angle
from astropy.io.fits import Header
from astropy.time import Time
from astropy.wcs import WCS, Sip

from nightsift.image.moffat import MoffatPsf

STYLES = ("maxim", "iraf", "crota", "mef")


@dataclass(frozen=True, kw_only=True)
class SimulatedCampaign:
    """What is simulated; `n_stars` and `n_galaxies` count those in the area of one image.

    ``fwhm`` (pixels) is the middle of the images' seeing, which varies by a quarter; ``psf_change`` the largest
    relative change of the PSF's width from the middle of an image to its sides; ``catalog_snr`` the S/N in the median
    image of a star at which the catalogue ends. With ``host_levels`` every transient has a galaxy of its own, whose
    surface brightness at its place is about one of these, in standard deviations of a pixel of the sky.
    """

    seed: int = 1
    n_images: int = 4
    size: int = 1024
    pixscale: float = 1.0
    n_stars: int = 1500
    n_galaxies: int = 150
    n_transients: int = 60
    n_variables: int = 12
    n_fast: int = 6
    n_cosmics: int = 25
    ra: float = 150.1
    dec: float = 25.3
    mjd: float = 60310.2
    snr_min: float = 4.5
    snr_max: float = 110.0
    fwhm: float = 3.5
    psf_change: float = 0.03
    catalog_snr: float = 3.0
    host_levels: tuple[float, ...] = ()


@dataclass(frozen=True)
class Camera:
    """How one image (or the template) was taken; angles in degrees, fluxes in ADU, times in days and seconds."""

    name: str
    style: str
    shape: tuple[int, int]
    wcs: WCS
    psf: MoffatPsf
    zp: float
    zp_slope: tuple[float, float, float]
    color: float
    gain: float
    readnoise: float
    sky: float
    gradient: tuple[float, float, float]
    fullwell: float
    mjd: float
    exptime: float
    band: str = "r"

    @property
    def sigma(self) -> float:
        """Noise of a blank pixel, ADU."""
        return float(np.sqrt(self.sky / self.gain + (self.readnoise / self.gain) ** 2))

    def zero_point(self, x, y):
        """Return the magnitude of 1 ADU at pixel positions."""
        u, v = 2 * x / (self.shape[1] - 1) - 1, 2 * y / (self.shape[0] - 1) - 1
        return self.zp + self.zp_slope[0] * u + self.zp_slope[1] * v + self.zp_slope[2] * (u**2 + v**2)


def tangent_plane(params: SimulatedCampaign) -> WCS:
    """Return the WCS whose pixels are arcseconds east and north of the field's centre."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.crval, wcs.wcs.crpix = (params.ra, params.dec), (1, 1)
    wcs.wcs.cd = np.eye(2) / 3600
    return wcs


def _matrix(scale, rotation):
    """Return the CD matrix (deg) of a scale (arcsec) and CROTA2 (deg), east to the left."""
    cos, sin = np.cos(np.radians(rotation)), np.sin(np.radians(rotation))
    return scale / 3600 * np.array([[-cos, -sin], [-sin, cos]])


def _celestial(crval, crpix, matrix, distortion=None):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ("RA---TAN", "DEC--TAN") if distortion is None else ("RA---TAN-SIP", "DEC--TAN-SIP")
    wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cd = crval, crpix, matrix
    wcs.wcs.radesys = "ICRS"
    if distortion is not None:
        wcs.sip = Sip(*distortion, None, None, crpix)
    wcs.wcs.set()
    return wcs


def _distortion(rng, size):
    """Return SIP coefficients of orders 2 and 3 that move the corners by a pixel or so."""
    out = np.zeros((2, 4, 4))
    for i, j in ((2, 0), (1, 1), (0, 2), (3, 0), (2, 1), (1, 2), (0, 3)):
        out[:, i, j] = rng.uniform(-0.4, 0.4, 2) / (size / 2) ** (i + j)
    return out


def camera(k: int, params: SimulatedCampaign) -> Camera:
    """Return how image `k` is taken: seeing, pointing, rotation, zero point and colour term differ for each."""
    rng = np.random.default_rng([params.seed, 1, k])
    style = STYLES[k % len(STYLES)]
    shape = (params.size - 24 * (style == "crota"), params.size)
    quarter = 90 * rng.integers(1, 3) if k % 4 == 1 else 0
    scale = params.pixscale * rng.uniform(0.97, 1.05)
    angle, offset = rng.uniform(0, 2 * np.pi), rng.uniform(0.02, 0.07) * params.size * params.pixscale
    crval = tangent_plane(params).wcs_pix2world([[offset * np.cos(angle), offset * np.sin(angle)]], 0)[0]
    crpix = np.array([shape[1] / 2, shape[0] / 2]) + rng.uniform(-5, 5, 2)
    matrix = _matrix(scale, rng.uniform(-4, 4) + quarter)
    psf = MoffatPsf(
        fwhm=params.fwhm / 3.5 * (2.6 + 1.8 * ((0.25 + 0.618 * k) % 1) + rng.uniform(0, 0.1)),
        beta=rng.uniform(2.8, 4),
        e1=rng.uniform(-0.08, 0.08),
        e2=rng.uniform(-0.08, 0.08),
        scale=tuple(params.psf_change * rng.uniform(-1, 1, 3)),
        twist=tuple(rng.uniform(-0.03, 0.03, 2)),
    )
    return Camera(
        name=f"image{k + 1:02d}",
        style=style,
        shape=shape,
        wcs=_celestial(crval, crpix, matrix, _distortion(rng, params.size)),
        psf=psf,
        zp=rng.uniform(26.3, 26.7),
        zp_slope=tuple(rng.uniform(-0.01, 0.01, 3)),
        color=(0.03, -0.05, 0.08, 0.0)[k] if k < 4 else rng.uniform(-0.08, 0.08),
        gain=round(rng.uniform(1.2, 2.2), 2),
        readnoise=round(rng.uniform(5, 10), 1),
        sky=rng.uniform(200, 500),
        gradient=tuple(rng.uniform(-0.06, 0.06, 3)),
        fullwell=(65535.0, 60000.0, 52000.0, 65535.0)[k % 4],
        mjd=params.mjd + 3 * k + rng.uniform(0, 0.3),
        exptime=float(rng.choice([60, 90, 120, 180])),
    )


def template_camera(params: SimulatedCampaign) -> Camera:
    """Return how the template is taken: ten times deeper, sharp, well sampled, on a grid that holds all images."""
    rng = np.random.default_rng([params.seed, 3])
    wide = params.fwhm / 3.5
    fine = min(wide, 1.0)
    matrix = _matrix(0.8 * fine * params.pixscale, 7.0)
    frame = _celestial((params.ra + 0.002, params.dec - 0.001), (1, 1), matrix)
    corners = []
    for k in range(params.n_images):
        one = camera(k, params)
        corners.append(frame.all_world2pix(one.wcs.calc_footprint(axes=one.shape[::-1]), 0))
    low, high = np.min(np.concatenate(corners), axis=0) - 30, np.max(np.concatenate(corners), axis=0) + 30
    width, height = np.ceil(high - low).astype(int)
    return Camera(
        name="template",
        style="template",
        shape=(int(height), int(width)),
        wcs=_celestial(frame.wcs.crval, 1 - np.round(low, 1), matrix),
        psf=MoffatPsf(
            2.05 * wide / fine, 3.2, 0.02, -0.03, scale=tuple(rng.uniform(-0.02, 0.02, 3)), twist=(0.01, -0.01)
        ),
        zp=27.2,
        zp_slope=(0.0, 0.0, 0.0),
        color=-0.01,
        gain=8.4,
        readnoise=10.0 * fine,
        sky=420.0 * fine**2,
        gradient=(0.01, -0.02, 0.0),
        fullwell=150000.0,
        mjd=params.mjd - 500,
        exptime=1200.0,
    )


def hole(shape) -> tuple[slice, slice]:
    """Return the part (rows, columns) of the template that is not covered."""
    height, width = shape
    return slice(int(0.36 * height), int(0.42 * height)), slice(int(0.57 * width), int(0.66 * width))


def header_wcs(rng, cam: Camera) -> WCS:
    """Return what the header says of the image's WCS: no distortion, and off by what telescopes are off by."""
    angle, error = rng.uniform(0, 2 * np.pi), rng.uniform(5, 58) / 3600
    crval = cam.wcs.wcs.crval + error * np.array(
        [np.cos(angle) / np.cos(np.radians(cam.wcs.wcs.crval[1])), np.sin(angle)]
    )
    turn, stretch = np.radians(rng.uniform(-0.3, 0.3)), 1 + rng.uniform(-0.005, 0.005)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return _celestial(crval, cam.wcs.wcs.crpix, stretch * rotation @ cam.wcs.wcs.cd)


# -------------------------------------------------------------------------------------------------- the headers


def _wcs_cards(wcs, style):
    scale = np.sqrt(abs(np.linalg.det(wcs.wcs.cd)))
    cards = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN"}
    cards |= {f"CRPIX{i + 1}": float(wcs.wcs.crpix[i]) for i in (0, 1)}
    cards |= {f"CRVAL{i + 1}": float(wcs.wcs.crval[i]) for i in (0, 1)}
    elements = [(i, j, float(wcs.wcs.cd[i, j])) for i in (0, 1) for j in (0, 1)]
    if style == "crota":
        angle = float(np.degrees(np.arctan2(-wcs.wcs.cd[1, 0], wcs.wcs.cd[1, 1])))
        return cards | {"CDELT1": -float(scale), "CDELT2": float(scale), "CROTA2": angle}
    if style == "mef":
        cards |= {"CDELT1": float(scale), "CDELT2": float(scale), "CUNIT1": "deg", "CUNIT2": "deg"}
        return cards | {f"PC{i + 1}_{j + 1}": value / float(scale) for i, j, value in elements}
    return cards | {f"CD{i + 1}_{j + 1}": value for i, j, value in elements}


def _maxim(cam, start, wcs):
    ra, dec = Angle(wcs.wcs.crval, "deg")
    return {
        "DATE-OBS": (start.isot[:-1], "YYYY-MM-DDThh:mm:ss observation start, UT"),
        "EXPTIME": (cam.exptime, "Exposure time in seconds"),
        "EXPOSURE": (cam.exptime, "Exposure time in seconds"),
        "SET-TEMP": (-20.0, "CCD temperature setpoint in C"),
        "CCD-TEMP": (-19.94, "CCD temperature at start of exposure in C"),
        "XPIXSZ": (9.0, "Pixel Width in microns (after binning)"),
        "YPIXSZ": (9.0, "Pixel Height in microns (after binning)"),
        "XBINNING": (1, "Binning factor in width"),
        "YBINNING": (1, "Binning factor in height"),
        "FILTER": ("r'", "Filter used when taking image"),
        "IMAGETYP": ("Light Frame", "Type of image"),
        "EGAIN": (cam.gain, "Electronic gain in e-/ADU"),
        "OBJCTRA": (ra.to_string("hour", sep=" ", pad=True, precision=0), "Nominal Right Ascension of center of image"),
        "OBJCTDEC": (dec.to_string(sep=" ", pad=True, alwayssign=True, precision=0), "Nominal Declination of center"),
        "OBJECT": "field 1",
        "SWCREATE": ("MaxIm DL Version 6.20", "Name of software"),
        "PEDESTAL": (0, "Correction to add for zero-based ADU"),
        "EQUINOX": 2000.0,
    }


def _iraf(cam, start, wcs):
    date, time = start.isot.split("T")
    return {
        "OBJECT": "FIELD 1 r",
        "IMAGETYP": "object",
        "DATE-OBS": (date, "UT date at start"),
        "UT": (time[:-1], "UT at start"),
        "EXPTIME": (cam.exptime, "seconds"),
        "FILTERS": "SDSS r",
        "GAIN": (cam.gain, "electrons per adu"),
        "RDNOISE": (cam.readnoise, "electrons"),
        "SATURATE": (0.98 * cam.fullwell, "adu"),
        "AIRMASS": 1.21,
        "EPOCH": 2000.0,
        "TRIM": "Trim data section is [33:1056,1:1024]",
        "ZEROCOR": "Zero level correction image is Zero",
        "FLATCOR": "Flat field image is Flatr with scale=21987.4",
        "CCDPROC": "CCD processing done",
        "WCSDIM": 2,
        "LTM1_1": 1.0,
        "LTM2_2": 1.0,
        "LTV1": -32.0,
        "WAT0_001": "system=image",
        "WAT1_001": "wtype=tan axtype=ra",
        "WAT2_001": "wtype=tan axtype=dec",
    }


def _crota(cam, start, wcs):
    return {
        "OBJECT": "field1",
        "MJD-OBS": (start.mjd, "[d] start of the exposure"),
        "EXPOSURE": (cam.exptime, "[s]"),
        "FILTER": "sdssr",
        "CCDGAIN": (cam.gain, "[e-/ADU]"),
        "READNOIS": (cam.readnoise, "[e-]"),
        "SATLEVEL": (0.98 * cam.fullwell, "[ADU]"),
        "EQUINOX": 2000.0,
        "RADESYS": "FK5",
    }


def _mef(cam, start, wcs):
    primary = {
        "TELESCOP": "1.2m",
        "INSTRUME": "one-chip camera",
        "DATE-OBS": (start.isot, "start, UTC"),
        "TIMESYS": "UTC",
        "EXPTIME": cam.exptime,
        "FILTER": "r_SDSS",
        "OBJECT": "field-1",
    }
    return primary, {"EXTNAME": "SCI", "GAIN": cam.gain, "RDNOISE": cam.readnoise, "SATURATE": 0.98 * cam.fullwell}


def _template_cards(cam, start, wcs):
    return {
        "OBJECT": "field 1, stack of 10",
        "FILTER": "r",
        "DATE-OBS": start.isot,
        "EXPTIME": cam.exptime,
        "GAIN": cam.gain,
        "SATURATE": 0.98 * cam.fullwell,
        "RADESYS": "ICRS",
    }


def image_header(cam: Camera, wcs: WCS) -> tuple[Header, Header | None]:
    """Return the header of the image's HDU, and the primary header where that is another HDU.

    Times, exposure, gain, filter, saturation and WCS are spelt as the camera's ``style`` spells them.
    """
    start = Time(cam.mjd - cam.exptime / 172800, format="mjd", scale="utc", precision=3)
    writers = {"maxim": _maxim, "iraf": _iraf, "crota": _crota, "mef": _mef, "template": _template_cards}
    cards, primary = writers[cam.style](cam, start, wcs), None
    if cam.style == "mef":
        first, cards = cards
        primary = Header()
        primary.update(first)
    header = Header()
    header.update(cards | _wcs_cards(wcs, cam.style))
    return header, primary
