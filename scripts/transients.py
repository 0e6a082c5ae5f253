"""Find, measure and vet what the difference holds."""

import numpy as np

from nightsift.background import background
from nightsift.io.fits import read_image
from nightsift.io.products import read_wcs
from nightsift.io.stage import Stage
from nightsift.photometry import Photometry
from nightsift.psf import Psf
from nightsift.template import PAD
from nightsift.transients import Search, cutouts, transients

STAGE = Stage(
    "transients",
    __doc__,
    inputs={
        "exposure": "the FITS image",
        "inspect": "facts of inspect",
        "photometry": "facts of photometry",
        "objects": "objects of photometry",
        "difference": "difference of subtract",
        "subtract": "facts of subtract",
        "psf": "PSF of subtract",
        "template": "template on the image's pixels",
        "wcs": "solution of astrometry",
    },
    outputs={"candidates": "table:candidates", "everything": "table:candidates", "cutouts": "images"},
)


def work(job):
    inspected, subtracted = job.facts_of("inspect"), job.facts_of("subtract")
    layers = job.read_images("difference")[0]
    image = read_image(job.inputs["exposure"], inspected["hdu"]).data
    saturation = inspected["saturation"]
    search = Search(
        difference=layers["DIFFERENCE"],
        sigma=layers["SIGMA"],
        snr=layers["SNR"],
        mask=layers["MASK"],
        model=layers["MODEL"],
        saturated=image >= saturation if saturation else np.zeros(image.shape, bool),
        psf=Psf.from_images(*job.read_images("psf")),
        noise=subtracted["noise_correlation"],
        residual=subtracted["residual"],
        mismatch=subtracted["mismatch"],
    )
    result = job.call(transients, search, job.read_table("objects"), job.params)
    table = calibrated(result.candidates, Photometry.from_dict(job.facts_of("photometry")))
    table["ra"], table["dec"] = read_wcs(job.inputs["wcs"]).all_pix2world(table["x"], table["y"], 0)
    table["image"] = np.full(len(table), job.image)
    table["mjd"] = np.full(len(table), np.nan if inspected["mjd"] is None else inspected["mjd"])
    table["filter"] = np.full(len(table), inspected["filter"] or inspected["filter_name"] or "")
    real = table[np.asarray(table["is_real"], bool)]
    job.write_table("everything", table, "candidates")
    job.write_table("candidates", real, "candidates")
    template = job.read_images("template")[0]["TEMPLATE"][PAD:-PAD, PAD:-PAD]
    stack = [image - background(image, search.mask != 0, 64).level, template, search.difference, search.snr]
    stamps = cutouts(stack, real["x"], real["y"], job.params.cutout)
    job.write_images("cutouts", {"CUTOUTS": stamps} if len(stamps) else {})
    job.facts |= {"n_candidates": len(real), "n_set_aside": len(table) - len(real), "coverage": subtracted["coverage"]}


def calibrated(table, solution):
    zero = solution.zero_point(np.asarray(table["x"]), np.asarray(table["y"]))
    flux, fluxerr = np.abs(np.asarray(table["flux"])), np.asarray(table["fluxerr"])
    with np.errstate(invalid="ignore", divide="ignore"):
        table["mag_calib"] = np.where(flux > 0, zero - 2.5 * np.log10(flux), np.nan)
        table["mag_calib_err"] = np.where(flux > 0, 2.5 / np.log(10) * fluxerr / flux, np.nan)
        table["maglim"] = zero - 2.5 * np.log10(5 * fluxerr)
    return table


def main(arguments=None):
    return STAGE.run(work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
