"""The images of a made-up sky as services of the archives have them: skycells, bricks, and cuts of HiPS."""

import io
import re
from dataclasses import dataclass

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from scipy import ndimage
from standin import Reply

from nightsift.archive import bricks, hips, skycells
from nightsift.template.resample import mapping

KIND = "image/fits"
SOFTENING, OFFSET, EXPOSURE = 40.0, 15.0, 600.0
LIST = "projcell subcell ra dec filter mjd type filename shortname badflag"


@dataclass(frozen=True)
class Sky:
    """What there is to see: linear pixels, NaN where nothing is known, variance of a pixel, what saturates."""

    data: np.ndarray
    variance: np.ndarray
    saturated: np.ndarray
    wcs: WCS

    def on(self, wcs, shape):
        """Return the same for another grid, cut to where there is something, and the solution of the cut.

        Variance is that of white noise of the same density.
        """
        ny, nx = self.data.shape
        border = (part.ravel() for part in np.meshgrid(np.linspace(0, nx - 1, 33), np.linspace(0, ny - 1, 33)))
        sky_ra, sky_dec = self.wcs.all_pix2world(*border, 0)
        x, y = wcs.all_world2pix(sky_ra, sky_dec, 0, quiet=True)
        if not (np.isfinite(x).any() and np.isfinite(y).any()):
            return None
        low = np.clip(np.floor([np.nanmin(x), np.nanmin(y)]), 0, np.inf).astype(int)
        high = np.clip(np.ceil([np.nanmax(x), np.nanmax(y)]) + 1, None, shape[::-1]).astype(int)
        if (high - low < 8).any():
            return None
        moved = wcs.deepcopy()
        moved.wcs.crpix = wcs.wcs.crpix - low
        moved.wcs.set()
        known = np.isfinite(self.data)
        x, y, area = mapping(self.wcs, moved, tuple(high - low)[::-1], self.data.shape)
        inside = (x >= 0) & (y >= 0) & (x <= nx - 1) & (y <= ny - 1)
        level = float(np.median(self.data[known]))
        values = ndimage.map_coordinates(np.where(known, self.data, level).astype(float), [y, x], order=5) * area
        inside &= ndimage.map_coordinates(known.astype(np.uint8), [y, x], order=0) > 0
        variance = ndimage.map_coordinates(self.variance, [y, x], order=1) * area
        saturated = ndimage.map_coordinates(self.saturated.astype(np.uint8), [y, x], order=0) > 0
        return Sky(np.where(inside, values, np.nan), variance, saturated, moved)


def of_file(path):
    """Return the sky that a template of a simulated campaign shows."""
    with fits.open(path) as hdus:
        data, header = hdus[0].data.astype(float), hdus[0].header
    header.remove("DATE-OBS", ignore_missing=True)  # of no use here, and a cause of warnings
    sky = np.nanmedian(data)
    noise = 1.4826 * np.nanmedian(np.abs(data - sky))
    variance = noise**2 + np.maximum(ndimage.uniform_filter(np.nan_to_num(data, nan=sky), 3) - sky, 0) / header["GAIN"]
    saturated = np.nan_to_num(data) >= header["SATURATE"]
    return Sky(data - sky, variance, ndimage.binary_dilation(saturated, iterations=2), WCS(header))


def packed(data, header, name=""):
    """Return a FITS file with one tile-compressed image, without loss."""
    kind = "GZIP_2" if data.dtype.kind == "f" else "RICE_1"
    hdu = fits.CompImageHDU(data, header, compression_type=kind, name=name or None, quantize_level=0)
    return written([fits.PrimaryHDU(), hdu])


def written(hdus):
    content = io.BytesIO()
    fits.HDUList(hdus).writeto(content)
    return content.getvalue()


class Images:
    """Three services that have images of one sky; `counts` of each file that was asked for."""

    def __init__(self, sky, bands=("r",)):
        self.sky, self.bands, self.made = sky, bands, {}

    def __call__(self, request):
        key = request.path + str(sorted(request.form.items()))
        if key not in self.made:
            self.made[key] = self._answer(request)
        return self.made[key]

    def _answer(self, request):
        path = request.path
        if path.endswith("/ps1filenames.py"):
            return self._list(request.form)
        if path.endswith("/hips2fits"):
            return self._hips(request.form)
        if re.search(r"/survey-bricks-dr\w+-\w+\.fits\.gz$", path):
            return Reply(b"", kind=KIND)
        found = re.search(r"rings\.v3\.skycell\.(\d{4}\.\d{3})\.stk\.(\w)\.unconv(\.\w+)?\.fits$", path)
        if found:
            return self._skycell(*found.groups())
        found = re.search(r"/dr10/south/coadd/\w{3}/(\w{8})/legacysurvey-\w{8}-(\w+?)(?:-(\w))?\.fits\.fz$", path)
        return self._brick(*found.groups()) if found else None

    def _skycell(self, name, band, role):
        seen = self.sky.on(*skycells.geometry(name)) if band in self.bands else None
        if seen is None:
            return None
        header = fits.Header({"EXPTIME": EXPOSURE})
        header["HIERARCH FPA.FILTERID"] = f"{band}.00000"
        for key, value in seen.wcs.to_header().items():
            # As the pipeline of that survey writes it
            header[re.sub(r"^PC(\d)_(\d)$", r"PC00\g<1>00\g<2>", key)] = value
        header.remove("RADESYS", ignore_missing=True)
        if role == ".mask":
            bits = np.where(seen.saturated, 0x0020, 0) | np.where(np.isfinite(seen.data), 0x8000, 0x0008)
            return Reply(packed(bits.astype(np.int32), header), kind=KIND)
        if role == ".wt":
            return Reply(packed((seen.variance * EXPOSURE**2).astype(np.float32), header), kind=KIND)
        header["BSOFTEN"], header["BOFFSET"] = SOFTENING, OFFSET
        scaled = np.arcsinh((seen.data * EXPOSURE - OFFSET) / (2 * SOFTENING)) * 2.5 / np.log(10)
        return Reply(packed(scaled.astype(np.float32), header), kind=KIND)

    def _list(self, form):
        name = skycells.find(float(form["ra"]), float(form["dec"]))[0]
        lines = [LIST]
        if name and form["filters"] in self.bands and self.sky.on(*skycells.geometry(name)):
            file = f"rings.v3.skycell.{name}.stk.{form['filters']}.unconv.fits"
            lines.append(f"{name.replace('.', ' ')} {form['ra']} {form['dec']} r 0 stack /{file} {file} 0")
        return Reply(("\n".join(lines) + "\n").encode(), kind="text/plain")

    def _brick(self, name, role, band):
        seen = self.sky.on(*bricks.geometry(name)) if band is None or band in self.bands else None
        if seen is None:
            return None
        header, known = seen.wcs.to_header(), np.isfinite(seen.data)
        if role == "maskbits":
            bits = np.where(seen.saturated, 1 << 3, 0) | 0x0001
            return Reply(packed(bits.astype(np.int32), header, "MASKBITS"), kind=KIND)
        values = 1 / np.where(known, seen.variance, 1) if role == "invvar" else seen.data
        data = np.where(known, values, 0)
        return Reply(packed(data.astype(np.float32), header), kind=KIND)

    def _hips(self, form):
        survey = next((one for one in hips.SURVEYS.values() if form["hips"] in one.names.values()), None)
        if survey is None:
            return Reply(b'{"title": "unknown HiPS"}', 400, "application/json")
        wcs = WCS(naxis=2)
        width, height = int(form["width"]), int(form["height"])
        wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
        wcs.wcs.crval, wcs.wcs.crpix = (float(form["ra"]), float(form["dec"])), (width / 2, height / 2)
        scale = float(form["fov"]) / width
        wcs.wcs.cdelt = -scale, scale
        wcs.wcs.set()
        if width <= 16:
            # Elsewhere, there is sky as well.
            return Reply(written([fits.PrimaryHDU(np.ones((height, width), np.float32), wcs.to_header())]), kind=KIND)
        data = np.full((height, width), np.nan, np.float32)
        seen = self.sky.on(wcs, data.shape)
        if seen and next(band for band, name in survey.names.items() if name == form["hips"]) in self.bands:
            y, x = (int(value) for value in np.rint(wcs.wcs.crpix - seen.wcs.wcs.crpix)[::-1])
            # Surface brightness on a scale of its own
            part = 0.4 * seen.data * (3600 * scale) ** -2
            data[y : y + part.shape[0], x : x + part.shape[1]] = part
        if any(form["hips"] == survey.names[band] for band in survey.asinh):
            data = np.arcsinh(data / 2).astype(np.float32) * np.float32(2.5 / np.log(10))
        return Reply(written([fits.PrimaryHDU(data, wcs.to_header())]), kind=KIND)
