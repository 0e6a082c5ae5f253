"""Join the candidates of a campaign into sources on the sky, with light curves."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from astropy.table import Table, vstack

from nightsift import tables
from nightsift.parameters import SourcesConfig
from nightsift.sources import known
from nightsift.sources.association import Association, associate, association_radius, position_weight
from nightsift.sources.lightcurves import light_curves
from nightsift.sources.records import ImageRecord
from nightsift.transients.modelcard import campaign_card

_OWN = ("zp_here", "zp_err", "band", "weight")  # columns of the candidates that are wanted here only


@dataclass(frozen=True)
class CampaignSources:
    """The tables of a campaign, and its model card; schemas ``images, campaign_candidates, sources`` ... in order."""

    images: Table
    candidates: Table
    sources: Table
    lightcurves: Table
    uncatalogued: Table
    model_card: dict


def sources(
    images: list[ImageRecord], params: SourcesConfig, known_objects: Table | None = None, set_aside=()
) -> CampaignSources:
    """Join the candidates of all images into sources with light curves.

    Parameters
    ----------
    images : list of ImageRecord
        Their candidates are taken over. One whose difference cannot be read comes back with its `problem`.
    params : SourcesConfig
    known_objects : Table, optional
        What is known near the candidates; schema ``known``.
    set_aside : sequence of str
        Kinds of known objects (`nightsift.parameters.KINDS`) that belong to no source.

    Returns
    -------
    CampaignSources
        ``sources`` has the association radius in its ``meta["radius_arcsec"]``.
    """
    candidates = _gather(images)
    aside = known.annotate(candidates, known_objects, set_aside)
    association = _join(candidates, images, params, aside)
    curves, n_images = light_curves(images, candidates, association, params)
    found = source_table(candidates, association, n_images)
    for name, values in known.of_sources(candidates, association.group, len(association.ra)).items():
        found[name] = values
    found.sort(["ra", "dec"])
    names = np.array([*association.names, ""])
    candidates["source"] = names[association.group] if len(candidates) else np.zeros(0, "U1")
    candidates.remove_columns([name for name in _OWN if name in candidates.colnames])
    candidates.sort(["image", "x", "y"])
    result = CampaignSources(
        images=Table([image.row() for image in images]) if images else tables.empty("images"),
        candidates=candidates,
        sources=found,
        lightcurves=curves,
        uncatalogued=_uncatalogued(images, params),
        model_card=campaign_card({image.name: image.model for image in images}),
    )
    for table in (result.images, candidates, found, curves, result.uncatalogued):
        table.meta.clear()
    found.meta["radius_arcsec"] = round(association.radius, 4)
    return result


def _uncatalogued(images, params):
    """Return what all images have that the catalogue has not; what lies at the same position has the same name."""
    shown = [image for image in images if len(image.uncatalogued)]
    if not shown:
        return tables.empty("campaign_uncatalogued")
    weight = [position_weight(i.fwhm * i.pixscale, i.uncatalogued["snr"], i.rms) for i in shown]
    table = vstack([image.uncatalogued for image in shown], metadata_conflicts="silent")
    radius = _radius(shown, params)
    joined = associate(table["ra"], table["dec"], np.concatenate(weight), table["image"], radius)
    table["source"] = np.array([*joined.names, ""])[joined.group]
    table["n_images"] = np.bincount(joined.group + 1)[joined.group + 1]
    table.sort(["image", "x", "y"])
    return table


def _radius(images, params):
    return association_radius([image.fwhm * image.pixscale for image in images], [i.rms for i in images], params)


def _gather(images):
    """Return the candidates of all images, with the row of each in its own file."""
    parts = []
    for image in images:
        part, image.candidates = image.candidates, None
        if len(part):
            part["row"] = np.arange(len(part))
            part["zp_here"] = image.zero_point(part["x"], part["y"])
            part["zp_err"] = image.zero_point_error(part["x"], part["y"])
            part["band"] = np.full(len(part), image.band)
            part["weight"] = position_weight(image.fwhm * image.pixscale, part["snr"], image.rms)
            parts.append(part)
    if not parts:
        return Table(tables.empty("candidates"), copy=False)
    return vstack(parts, metadata_conflicts="silent")


def _join(candidates, images, params, aside):
    """Join candidates into sources; those that are set aside belong to none."""
    radius = _radius([image for image in images if image.n_candidates], params)
    kept = candidates[~aside]
    ra, dec, weight, image = (kept[name] if len(kept) else np.zeros(0) for name in ("ra", "dec", "weight", "image"))
    joined = associate(ra, dec, weight, image, radius)
    group = np.full(len(candidates), -1)
    group[~aside] = joined.group
    return dataclasses.replace(joined, group=group)


def source_table(candidates: Table, association: Association, n_images) -> Table:
    """Return the sources, one row each, in the order of `association`; schema ``sources``.

    Parameters
    ----------
    candidates : Table
        Schema ``candidates``.
    association : Association
    n_images : int array, shape (m,)
        Subtracted images that cover each source.
    """
    group = association.group
    order = np.argsort(group, kind="stable")
    order = order[group[order] >= 0]
    if not len(order):
        return tables.empty("sources")
    rows = []
    for number, mine in enumerate(np.split(order, np.flatnonzero(np.diff(group[order])) + 1)):
        part = candidates[mine]
        best = int(np.lexsort((part["image"], -np.abs(part["snr"])))[0])
        bright = np.where((part["flux"] > 0) & np.isfinite(part["mag_calib"]), part["mag_calib"], np.inf)
        brightest = int(np.argmin(bright))
        known = np.isfinite(bright[brightest])
        mjd = np.asarray(part["mjd"], float)[np.isfinite(part["mjd"])]
        rows.append(
            {
                "source": association.names[number],
                "ra": association.ra[number],
                "dec": association.dec[number],
                "n_detections": len(part),
                "n_images": max(int(n_images[number]), len(part)),
                "first_mjd": mjd.min() if len(mjd) else np.nan,
                "last_mjd": mjd.max() if len(mjd) else np.nan,
                "best_mag": bright[brightest] if known else np.nan,
                "best_mag_err": part["mag_calib_err"][brightest] if known else np.nan,
                "best_snr": part["snr"][best],
                "best_image": str(part["image"][best]),
                "label": str(part["label"][best]),
                "score": np.max(part["score"]),
            }
        )
    return Table(rows)
