"""Write a simulated campaign: images, template, catalogue, sample sheet, configuration, and the truth."""

import argparse
from pathlib import Path

import numpy as np
from astropy.io import fits

from nightsift.simulate.cameras import SimulatedCampaign
from nightsift.simulate.simulate import catalog, image, template
from nightsift.simulate.sources import sky

CONFIG = """images: images.tsv
results: results
catalog:
  source: local
  path: catalog.fits
template:
  source: local
  path: template.fits
"""


def parse_arguments(arguments=None):
    default = SimulatedCampaign()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("outdir", type=Path, help="folder to write to; made if need be")
    parser.add_argument("--images", type=int, default=default.n_images, help="number of images")
    parser.add_argument("--size", type=int, default=default.size, help="side of an image, in pixels")
    parser.add_argument("--seed", type=int, default=default.seed, help="seed of all that is random")
    parser.add_argument("--stars", type=int, help="stars in an image; by default as many as suit the size")
    parser.add_argument("--transients", type=int, help="transients in the field; by default as many as suit the size")
    parser.add_argument("--fwhm", type=float, default=default.fwhm, help="middle FWHM of the images, in pixels")
    parser.add_argument(
        "--psf-change", type=float, default=default.psf_change, help="relative change of the PSF's width over an image"
    )
    parser.add_argument("--snr-max", type=float, default=default.snr_max, help="largest S/N of a transient")
    parser.add_argument(
        "--host-levels",
        type=float,
        nargs="+",
        default=[],
        help="give every transient a galaxy as bright at its place as one of these, in sigma of the sky",
    )
    return parser.parse_args(arguments)


def make_parameters(options) -> SimulatedCampaign:
    """Return the campaign's parameters, with the numbers of sources in proportion to the area."""
    default = SimulatedCampaign()
    area = (options.size / default.size) ** 2

    def number(given, usual):
        return round(usual * area) if given is None else given

    return SimulatedCampaign(
        seed=options.seed,
        n_images=options.images,
        size=options.size,
        n_stars=number(options.stars, default.n_stars),
        n_galaxies=number(None, default.n_galaxies),
        n_transients=number(options.transients, default.n_transients),
        n_variables=max(number(None, default.n_variables), 2),
        n_fast=max(number(None, default.n_fast), 2),
        fwhm=options.fwhm,
        psf_change=options.psf_change,
        snr_max=options.snr_max,
        host_levels=tuple(options.host_levels),
    )


def write_exposure(path: Path, exposure):
    """Write an image as its header wants it: as the primary HDU, or as extension 1."""
    if exposure.primary is None:
        hdus = [fits.PrimaryHDU(exposure.data, exposure.header)]
    else:
        hdus = [fits.PrimaryHDU(None, exposure.primary), fits.ImageHDU(exposure.data, exposure.header)]
    fits.HDUList(hdus).writeto(path, overwrite=True)


def main(arguments=None):
    options = parse_arguments(arguments)
    params, out = make_parameters(options), options.outdir
    for folder in (out / "images", out / "truth"):
        folder.mkdir(parents=True, exist_ok=True)
    field = sky(params)
    names = []
    for k in range(params.n_images):
        exposure = image(field, k, params)
        write_exposure(out / "images" / f"{exposure.name}.fits", exposure)
        exposure.truth.write(out / "truth" / f"{exposure.name}.ecsv", overwrite=True)
        names.append(exposure.name)
        transients = exposure.truth["usable"] & (exposure.truth["kind"] == "transient")
        print(f"{exposure.name}: {len(exposure.truth)} sources, {np.count_nonzero(transients)} usable transients")
    write_exposure(out / "template.fits", template(field, params))
    catalog(field, params).write(out / "catalog.fits", overwrite=True)
    rows = [f"{name}\timages/{name}.fits" for name in names]
    (out / "images.tsv").write_text("\n".join(["image\tpath", *rows]) + "\n", encoding="utf-8")
    (out / "config.yaml").write_text(CONFIG, encoding="utf-8")
    print(f"wrote {params.n_images} images, template, catalogue and truth to {out}")


if __name__ == "__main__":
    main()
