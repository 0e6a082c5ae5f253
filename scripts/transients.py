"""Find and measure what the difference holds, and tell real from bogus."""

import numpy as np
import sklearn.calibration
import sklearn.ensemble  # noqa: F401
from astropy.wcs.utils import proj_plane_pixel_scales

from nightsift.fakes.completeness import completeness
from nightsift.fakes.fakes import FAKES
from nightsift.fakes.trust import trusted
from nightsift.image.background import background, pixel_noise
from nightsift.image.padding import PAD
from nightsift.io.fits import read_image
from nightsift.io.products import read_wcs
from nightsift.photometry.solution import ZeroPointModel
from nightsift.statistics import MAG
from nightsift.transients import moving
from nightsift.transients.realbogus import Examples, features, train
from nightsift.transients.transients import cutouts, transients
from nightsift.workflow.candidates import write_found
from nightsift.workflow.differences import read_search
from nightsift.workflow.stage import Stage

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
        "fakes": "fakes of fakes",
        "catalog": "catalogue of the field",
    },
    outputs={"candidates": "table:candidates", "everything": "table:candidates", "cutouts": "images"},
)
HALF_SNR = 5.0  # at which a search finds about half of what is there
SURE = 0.3  # mag, error of a limit up to which it says something
SNR_EDGES = (3, 4, 5, 5.5, 6, 7, 8, 10, 20, 50, 100)


def work(job):
    inspected, subtracted = job.facts_of("inspect"), job.facts_of("subtract")
    image = read_image(job.inputs["exposure"], inspected["hdu"]).data
    search, fakes = read_search(job, image), job.read_table("fakes")
    solution = ZeroPointModel.from_dict(job.facts_of("photometry"))
    found = fakes[np.asarray(fakes["found"], bool)]
    model = job.call(train, own_examples(found, search.psf.fwhm))
    result = job.call(transients, search, job.read_table("objects"), model, job.params)
    recovered = passed(fakes, model.held_out, job.params.min_score)
    complete = curves(fakes, recovered, solution)
    trusted(fakes, recovered, deeper(complete, faintest(image, search, solution)), job.params)
    table = calibrated(result.candidates, solution)
    wcs = read_wcs(job.inputs["wcs"])
    table["ra"], table["dec"] = wcs.all_pix2world(table["x"], table["y"], 0)
    pixel = 3600 * float(np.mean(proj_plane_pixel_scales(wcs.celestial)))
    moving.join(table, job.read_table("catalog"), search.psf.fwhm * pixel)
    real = write_found(job, table, "is_real", "candidates")
    template = job.read_images("template")[0]["TEMPLATE"][PAD:-PAD, PAD:-PAD]
    stack = [image - background(image, search.mask != 0, 64).level, template, search.difference, search.snr]
    stamps = cutouts(stack, real["x"], real["y"], job.params.cutout)
    job.write_images("cutouts", {"CUTOUTS": stamps} if len(stamps) else {})
    job.facts |= {
        "n_candidates": len(real),
        "n_set_aside": len(table) - len(real),
        "coverage": subtracted["coverage"],
        "threshold": result.threshold,
        "model": model.card,
        "completeness": complete,
    }


def own_examples(found, fwhm):
    """Examples of the image itself; places near each other are held out together."""
    real = np.isin(np.asarray(found["kind"], str), FAKES)
    cell = (np.asarray(found["x"], float) // 128 + 7 * (np.asarray(found["y"], float) // 128)).astype(int)
    return Examples(features(found, fwhm), real, cell)


def passed(fakes, score, min_score):
    """Tell which fakes are found and called real."""
    result = np.zeros(len(fakes), bool)
    result[np.asarray(fakes["found"], bool)] = score >= min_score
    return result & (np.asarray(fakes["rejections"], str) == "")


def faintest(image, search, solution):
    """Return the magnitude of a star of S/N HALF_SNR by the noise of the image's pixels alone, crowded or not."""
    x, y = image.shape[1] / 2, image.shape[0] / 2
    psf = search.psf.stamp(x, y, int(np.ceil(1.5 * search.psf.fwhm)))
    flux = HALF_SNR * pixel_noise(image, search.mask != 0) / np.sqrt(np.sum(psf**2))
    return float(solution.zero_point(np.array([x]), np.array([y]))[0] - 2.5 * np.log10(flux))


def deeper(complete, limit):
    """Return by how many magnitudes half of the fakes on empty sky are found beyond the image's own limit."""
    found = complete.get("off_hosts", {}).get("mag", {})
    return found["half"] - limit if found.get("half_err", np.nan) < SURE else np.nan


def curves(fakes, passed, solution):
    """Completeness of what is put on the sky and on galaxies, by S/N and by magnitude."""
    kind = np.asarray(fakes["kind"], str)
    own = np.isin(kind, FAKES)
    mag = solution.zero_point(np.asarray(fakes["true_x"]), np.asarray(fakes["true_y"]))
    mag = mag - 2.5 * np.log10(np.where(own, fakes["true_flux"], np.nan))
    groups = {"all": own, "off_hosts": kind == "sky", "on_hosts": kind == "host", "beside_stars": kind == "star"}
    result = {}
    for name, chosen in groups.items():
        snr = completeness(fakes["true_snr"][chosen], passed[chosen], SNR_EDGES)
        bright = completeness(-mag[chosen], passed[chosen], ())
        if snr is not None and bright is not None:
            limits = {key: -getattr(bright, key) for key in ("half", "ninety")}
            errors = {f"{key}_err": getattr(bright, f"{key}_err") for key in limits}
            result[name] = {"snr": snr.to_dict(), "mag": limits | errors}
    return result


def calibrated(table, solution):
    zero = solution.zero_point(np.asarray(table["x"]), np.asarray(table["y"]))
    flux, fluxerr = np.abs(np.asarray(table["flux"])), np.asarray(table["fluxerr"])
    with np.errstate(invalid="ignore", divide="ignore"):
        table["mag_calib"] = np.where(flux > 0, zero - 2.5 * np.log10(flux), np.nan)
        table["mag_calib_err"] = np.where(flux > 0, MAG * fluxerr / flux, np.nan)
        table["maglim"] = zero - 2.5 * np.log10(5 * np.asarray(table["bgerr"]))
    return table


def main(arguments=None):
    return STAGE.run(work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
