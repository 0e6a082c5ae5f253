"""Images of known sources, taken through the stages up to `photometry`, and the stage `uncatalogued` on them."""

from dataclasses import dataclass

import numpy as np
from astropy.table import Table
from astropy.wcs import WCS

from nightsift import parameters
from nightsift.catalog.catalog import catalog, field
from nightsift.detect.detect import detect
from nightsift.flags import Mask
from nightsift.photometry.magnitudes import calibrate
from nightsift.photometry.photometry import photometry
from nightsift.photometry.solution import ApertureSeeing
from nightsift.psf.confusion import without_neighbours
from nightsift.psf.psf import psf
from nightsift.simulate import simulate, sources
from nightsift.simulate.cameras import SimulatedCampaign
from nightsift.uncatalogued.uncatalogued import Frame, Uncatalogued, uncatalogued


@dataclass(frozen=True)
class Calibrated:
    """What the stages up to photometry make of an image, its catalogue and its truth."""

    objects: Table
    catalog: Table
    frame: Frame
    truth: Table

    def search(self, catalog=None, known=None, **options) -> Uncatalogued:
        params = parameters.UncataloguedConfig(**options)
        return uncatalogued(self.objects, self.catalog if catalog is None else catalog, self.frame, params, known)


def calibrated(data, mask, gain, wcs, stars, truth=None, mjd=None, band="r") -> Calibrated:
    """Detect, fit the PSF, and calibrate with the true WCS."""
    found = detect(data, mask, gain, parameters.DetectConfig())
    objects = found.objects
    fitted = psf(data, mask, gain, objects, found.seeing, found.aperture, parameters.PsfConfig())
    objects.add_columns(list(fitted.table.columns.values()))
    objects = without_neighbours(objects)
    objects["ra"], objects["dec"] = wcs.all_pix2world(objects["x"], objects["y"], 0)
    cut = catalog(stars, *field(wcs, data.shape, 0.25), mjd, parameters.CatalogConfig()).table
    seeing = ApertureSeeing(found.seeing.fwhm, 1.0, found.aperture, data.shape)
    solution = photometry(objects, cut, seeing, band, parameters.PhotometryConfig())
    return Calibrated(calibrate(objects, solution), cut, Frame(seeing, solution.model, 0.05, mask), truth)


def simulated(kinds=(*sources.STARS, "galaxy"), **options) -> Calibrated:
    """Take the first image of a simulated campaign, with a catalogue of these kinds of sources."""
    params = SimulatedCampaign(**({"n_images": 1, "size": 640} | options))
    sky = sources.sky(params)
    exposure = simulate.image(sky, 0, params)
    camera = exposure.camera
    full = exposure.data >= 0.99 * camera.fullwell
    mask = np.where(exposure.bad, np.where(full, Mask.SATURATED, Mask.COSMIC), 0).astype(np.uint16)
    stars = simulate.catalog(sky, params, kinds)
    stars.rename_columns(["RAJ2000", "DEJ2000"], ["ra", "dec"])
    return calibrated(exposure.data, mask, camera.gain, camera.wcs, stars, exposure.truth, camera.mjd)


def tangent(side) -> WCS:
    """A WCS of one arcsec a pixel, north up."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix = [150.0, 20.0], [(side + 1) / 2] * 2
    wcs.wcs.cdelt = [-1 / 3600, 1 / 3600]
    return wcs
