"""Join the candidates of all images into sources with light curves, and list the images."""

import dataclasses
import hashlib
import json
import sys
import time
from pathlib import Path

import numpy as np
from astropy.table import Table, vstack
from astropy.wcs import WCS

from nightsift import parameters, tables
from nightsift.errors import Unreadable
from nightsift.io import products
from nightsift.io.digests import digest
from nightsift.photometry.solution import Photometry
from nightsift.psf.forced import flux_error, forced
from nightsift.psf.model import Psf
from nightsift.sky.sphere import unit_vectors
from nightsift.sources import known, lightcurves, sources
from nightsift.sources.association import associate, association_radius, position_weight
from nightsift.transients.modelcard import campaign_card
from nightsift.workflow import results

IDENTITY = ("image", "row", "ra", "dec")
OWN = ("zp_here", "zp_err", "band", "weight")  # columns that are wanted here only
NOT_KEPT = dict.fromkeys(("match_object", "match_catalog", "used", "residual", "contamination"), ())


class Image:
    """What is kept in memory of an image: its facts and its candidates, not its pixels."""

    unreadable = False

    def __init__(self, name, folder):
        self.name, self.folder = name, folder
        self.state = results.read_state(folder)
        inspect, detect, astrometry, photometry = (
            results.read_facts(folder, stage) for stage in ("inspect", "detect", "astrometry", "photometry")
        )
        self.filter = str(inspect.get("filter") or inspect.get("filter_name") or "")
        self.mjd, self.shape, self.gain = number(inspect, "mjd"), inspect.get("shape"), inspect.get("gain")
        self.fwhm, self.n_objects = number(detect, "fwhm"), int(detect.get("n_objects") or 0)
        rms = astrometry.get("rms")
        self.rms = float(np.sqrt(np.mean(np.square(rms)))) if rms and None not in rms else np.nan
        self.header = results.read_wcs_header(folder / "wcs.fits")
        self.pixscale = pixel_scale(self.header) if self.header else number(inspect, "pixscale")
        self.numbers = {key: number(photometry, key) for key in ("zp", "zp_err", "color_term", "maglim")}
        self.numbers |= lightcurves.depth((self.state.get("completeness") or {}).get("off_hosts") or {})
        self.band = str(photometry.get("band") or "")
        self.photometry = Photometry.from_dict(NOT_KEPT | photometry) if "coefficients" in photometry else None
        finished = self.state["status"] != "error"
        path = folder / "candidates.fits"
        self.candidates = results.read_rows(path, "candidates") if finished else tables.empty("candidates")
        self.uncatalogued = results.read_rows(folder / "uncatalogued.fits", "uncatalogued")
        self.subtracted = finished and self.photometry is not None and self.header is not None

    @classmethod
    def read(cls, name, folder):
        """Return an image; one without products and in error if any of them cannot be read."""
        try:
            return cls(name, folder)
        except Unreadable as problem:
            image = cls(name, folder / "unreadable")
            image.give_up(problem)
            return image

    def give_up(self, problem):
        """Set the status to error, and have the product that cannot be read made again."""
        results.give_up("sources", problem)
        self.state = self.state | {"status": "error", "stage": "sources", "reason": str(problem)}
        self.unreadable = True

    def zero_point(self, x, y):
        if self.photometry is None:
            return np.full(np.shape(x), np.nan)
        return self.photometry.zero_point(np.asarray(x, float), np.asarray(y, float))

    def zero_point_error(self, x, y):
        if self.photometry is None:
            return np.full(np.shape(x), np.nan)
        return self.photometry.zero_point_error(np.asarray(x, float), np.asarray(y, float))

    def row(self):
        return {
            "image": self.name,
            "status": self.state["status"],
            "stage": self.state["stage"],
            "reason": self.state["reason"],
            "warnings": len(self.state["warnings"]),
            "filter": self.filter,
            "mjd": self.mjd,
            "fwhm": self.fwhm,
            "band": self.band,
            **self.numbers,
            "astrom_rms": self.rms,
            "n_objects": self.n_objects,
            "n_candidates": len(self.candidates),
            "n_uncatalogued": len(self.uncatalogued),
        }


def number(facts, key):
    value = facts.get(key)
    return np.nan if value is None else float(value)


def pixel_scale(header):
    return 3600 * float(np.sqrt(np.abs(np.linalg.det(WCS(header, relax=True).pixel_scale_matrix))))


def measure(folder, planes, gain, x, y):
    """Fit the PSF at positions of an image's difference, as `nightsift.transients.measure.measure` does.

    Returns flux, its error, and the part of it that is there without the source; NaN where too much is masked.
    """
    images, header = products.read_images(folder / "psf.fits")
    psf = Psf.from_images(images, header)
    fit = forced(planes["DIFFERENCE"], planes["SIGMA"], planes["MASK"] != 0, psf, x, y)
    bgerr = fit.fluxerr * header["NOISECOR"]
    column, row = (
        np.clip(np.rint(v).astype(int), 0, side - 1) for v, side in zip((x, y), psf.shape[::-1], strict=True)
    )
    beneath = forced(planes["MODEL"], planes["SIGMA"], np.zeros(psf.shape, bool), psf, x, y).flux
    left = header["RESIDUAL"] * np.abs(beneath)
    sigma = planes["SIGMA"][row, column]
    return fit.flux, flux_error(psf, fit.flux, bgerr, sigma, gain, header["SCALEERR"], left), bgerr


def gather_uncatalogued(images, params):
    """Return what all images have that the catalogue has not; what lies at the same place has the same name."""
    weight = [position_weight(i.fwhm * i.pixscale, i.uncatalogued["snr"], i.rms) for i in images]
    parts = [image.uncatalogued for image in images if len(image.uncatalogued)]
    if not parts:
        return tables.empty("campaign_uncatalogued")
    table = vstack(parts, metadata_conflicts="silent")
    scale = np.array([(image.fwhm * image.pixscale, image.rms) for image in images if len(image.uncatalogued)])
    radius = association_radius(*scale.T, params)
    joined = associate(table["ra"], table["dec"], np.concatenate(weight), table["image"], radius)
    table["source"] = np.array([*joined.names, ""])[joined.group]
    table["n_images"] = np.bincount(joined.group + 1)[joined.group + 1]
    table.sort(["image", "x", "y"])
    return table


def gather(images):
    """Return the candidates of all images, with the row of each in its own file."""
    parts = []
    for image in images:
        part = image.candidates
        if len(part):
            part["row"] = np.arange(len(part))
            part["zp_here"] = image.zero_point(part["x"], part["y"])
            part["zp_err"] = image.zero_point_error(part["x"], part["y"])
            part["band"] = np.full(len(part), image.band)
            part["weight"] = position_weight(image.fwhm * image.pixscale, part["snr"], image.rms)
            parts.append(part)
        image.candidates = range(len(part))
    if not parts:
        return Table(tables.empty("candidates"), copy=False)
    return vstack(parts, metadata_conflicts="silent")


def annotate(candidates, path, set_aside):
    """Enter what is known near each candidate; return whether it is set aside for that."""
    columns = known.blank(len(candidates))
    if path and path.is_file() and len(candidates):
        table = products.read_table(path)
        place = {key: row for row, key in enumerate(zip(*(table[name] for name in IDENTITY), strict=True))}
        rows = np.array([place.get(key, -1) for key in zip(*(candidates[name] for name in IDENTITY), strict=True)])
        here = np.flatnonzero(rows >= 0)
        for name in columns:
            values = table[name].filled("") if hasattr(table[name], "filled") else np.asarray(table[name])
            columns[name] = columns[name].astype(np.result_type(columns[name], values))
            columns[name][here] = values[rows[here]]
    for name, values in columns.items():
        candidates[name] = values
    reasons = known.reasons(candidates, set_aside)
    aside = reasons != ""
    candidates["is_real"] = np.asarray(candidates["is_real"], bool) & ~aside
    candidates["reasons"] = np.where(aside, reasons, np.asarray(candidates["reasons"], str))
    return aside


def join(candidates, images, params, aside):
    """Join candidates into sources; those that are set aside belong to none."""
    kept = join_all(candidates[~aside], images, params)
    group = np.full(len(candidates), -1)
    group[~aside] = kept.group
    return dataclasses.replace(kept, group=group)


def join_all(candidates, images, params):
    with_candidates = [image for image in images if len(image.candidates)]
    fwhm = np.array([image.fwhm * image.pixscale for image in with_candidates])
    rms = np.array([image.rms for image in with_candidates])
    radius = association_radius(fwhm, rms, params)
    if not len(candidates):
        nothing = np.zeros(0)
        return associate(nothing, nothing, nothing, nothing, radius)
    values = (candidates[name] for name in ("ra", "dec", "weight", "image"))
    return associate(*values, radius)


def force(image, association, wanted, levels):
    """Return the light-curve rows of the sources `wanted` that an image covers, or None."""
    header, shape = image.header, image.shape
    near = nearby(header, shape, association, wanted)
    if not len(near):
        return near, None
    planes = results.read_planes(image.folder / "difference.fits")
    if "DIFFERENCE" not in planes or not (image.folder / "psf.fits").is_file():
        return near[:0], None
    x, y = np.array(WCS(header, relax=True).all_world2pix(association.ra[near], association.dec[near], 0, quiet=True))
    inside = lightcurves.covered(x, y, planes["MASK"])
    near, x, y = near[inside], x[inside], y[inside]
    if not len(near):
        return near, None
    measured = measure(image.folder, planes, image.gain, x, y)
    done = np.isfinite(measured[0]) & (measured[2] > 0)
    near, x, y, measured = near[done], x[done], y[done], [values[done] for values in measured]
    flags = lightcurves.mask_flags(x, y, planes["MASK"], max(image.fwhm, 1.0))
    exposure = lightcurves.Epoch(image.name, image.mjd, image.filter, image.fwhm, image.band)
    level = levels.get(passband(image.filter, image.band), np.full(len(association.ra), np.nan))[near]
    names = np.array(association.names)[near]
    zero = image.zero_point(x, y), image.zero_point_error(x, y)
    return near, lightcurves.forced_rows(exposure, names, measured, *zero, level, flags)


def passband(name, band):
    """The passband in which an image's zero point holds: its filter, and the band that it is tied to."""
    return f"{name}/{band}"


def nearby(header, shape, association, wanted):
    """Return those of the sources `wanted` that lie within the circle around an image."""
    wcs = WCS(header, relax=True)
    height, width = shape
    corners = wcs.all_pix2world([[-1, -1], [width, -1], [-1, height], [width, height]], 0)
    center = unit_vectors(*wcs.all_pix2world([[(width - 1) / 2, (height - 1) / 2]], 0).T)
    least = (unit_vectors(*corners.T) @ center[0]).min()
    return wanted[unit_vectors(association.ra[wanted], association.dec[wanted]) @ center[0] >= least]


def light_curves(images, candidates, association, params):
    """Return the light curves, and how many images cover each source."""
    size = len(association.ra)
    group = association.group
    count = np.bincount(group[group >= 0], minlength=size)
    n_images = count.copy()
    kept = count >= params.min_detections
    if not size:
        return tables.empty("lightcurves"), n_images
    chosen = (group >= 0) & kept[group]
    names = np.array(association.names)
    mine = candidates[chosen]
    rows = [lightcurves.detected_rows(mine, mine["zp_here"], names[group[chosen]], mine["band", "zp_err"])]
    bands = [passband(*names) for names in zip(candidates["filter"], candidates["band"], strict=True)]
    levels = lightcurves.template_levels(candidates, candidates["zp_here"], group, size, bands)
    of_image = np.asarray(candidates["image"], str)
    for image in images:
        if image.subtracted:
            seen = group[(of_image == image.name) & (group >= 0)]
            try:
                near, forced_here = force(image, association, np.setdiff1d(np.arange(size), seen), levels)
            except Unreadable as problem:
                image.give_up(problem)
                continue
            n_images[near] += 1
            if forced_here is not None:
                rows.append(forced_here[kept[near]])
    table = vstack(rows, metadata_conflicts="silent")
    table.sort(["source", "mjd", "image"])
    return table, n_images


def parser():
    parser = results.parser("sources", __doc__)
    parser.add_argument("--known", type=Path, nargs="?", help="what is known near the candidates, of fetch_known")
    parser.add_argument(
        "--aside", type=json.loads, default=[], help="JSON list of the kinds of known objects to leave out"
    )
    return parser


def state_digest(images):
    """Return a digest of all states; each holds digests of what it was made from."""
    total = hashlib.sha256()
    for image in images:
        total.update(json.dumps([image.name, image.state], sort_keys=True).encode())
    return total.hexdigest()[:32]


def main(arguments=None):
    start = time.perf_counter()
    options = parser().parse_args(arguments)
    params = parameters.SourcesConfig(**options.params)
    folder = options.results / "images"
    images = [Image.read(name, folder / name) for name in sorted(results.read_names(options.images))]
    inputs = {"states": state_digest(images)}
    if options.known and options.known.is_file():
        inputs["known"] = digest(options.known)
    provenance = products.Provenance("sources", options.code, options.params, inputs)
    candidates = gather(images)
    aside = annotate(candidates, options.known, options.aside)
    association = join(candidates, images, params, aside)
    curves, n_images = light_curves(images, candidates, association, params)
    listed = Table([image.row() for image in images]) if images else tables.empty("images")
    found = sources.source_table(candidates, association, n_images)
    for name, values in known.of_sources(candidates, association.group, len(association.ra)).items():
        found[name] = values
    found.sort(["ra", "dec"])
    names = np.array([*association.names, ""])
    candidates["source"] = names[association.group] if len(candidates) else np.zeros(0, "U1")
    candidates.remove_columns([name for name in OWN if name in candidates.colnames])
    candidates.sort(["image", "x", "y"])
    campaign = options.results / "campaign"
    found.meta["radius_arcsec"] = round(association.radius, 4)
    for name, table, schema in (
        ("images", listed, "images"),
        ("candidates", candidates, "campaign_candidates"),
        ("sources", found, "sources"),
        ("lightcurves", curves, "lightcurves"),
        ("uncatalogued", gather_uncatalogued(images, params), "campaign_uncatalogued"),
    ):
        table.meta = {key: value for key, value in table.meta.items() if key == "radius_arcsec"}
        products.write_table(campaign / f"{name}.ecsv", table, schema, provenance)
    card = campaign_card({image.name: image.state.get("model") or {} for image in images})
    products.write_json(campaign / "model_card.json", card | {"provenance": provenance.as_dict()})
    spent = time.perf_counter() - start
    print(f"sources: {len(candidates)} candidates, {len(found)} sources in {spent:.1f} s", file=sys.stderr)
    return int(any(image.unreadable for image in images))


if __name__ == "__main__":
    raise SystemExit(main())
