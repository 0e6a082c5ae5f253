"""Make a template of a survey's images around an image: from the cache, and from a service what is not in it yet."""

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS

from nightsift.archive import images
from nightsift.archive.library import Library
from nightsift.catalog.catalog import cone
from nightsift.errors import Rejected
from nightsift.header.header import described
from nightsift.template.mosaic import grid, mosaic
from nightsift.workflow.exposures import read_exposure
from nightsift.workflow.stage import Stage

STAGE = Stage(
    "fetch_template",
    __doc__,
    inputs={"exposure": "the FITS image"},
    outputs={"mosaic": "images"},
    section="template",
)
# Around the image, in units of its diagonal: the header's WCS may be off.
MARGIN = 0.05
STEP = 0.015  # deg between the positions that must be covered
USUAL = 1.0  # arcsec, of an image whose pixel scale nobody tells


def where(job):
    """Return positions all over an image [deg], its centre first, its band and pixel scale [arcsec]."""
    exposure = read_exposure(job.inputs["exposure"], job.extra)
    shape = exposure.image.data.shape
    known = described(exposure.image.header, shape, exposure.overrides, []) | {"shape": shape}
    known |= exposure.hints if known["wcs_header"] is None else {}
    scale = known["pixscale"] or USUAL
    if known["wcs_header"] is not None:
        wcs, margin = WCS(known["wcs_header"]), MARGIN * np.hypot(*shape)
    else:
        # A square around the cone, on which pixels have no meaning.
        ra, dec, radius = cone(known, 0)
        wcs, margin, side = WCS(naxis=2), 0.0, max(shape)
        wcs.wcs.ctype, wcs.wcs.crval = ["RA---TAN", "DEC--TAN"], (ra, dec)
        shape, wcs.wcs.crpix = (side, side), ((side + 1) / 2, (side + 1) / 2)
        wcs.wcs.cdelt = -2 * radius / side, 2 * radius / side
    ny, nx = shape
    size = (max(ny, nx) + 2 * margin) * np.sqrt(abs(np.linalg.det(wcs.pixel_scale_matrix)))
    count = int(np.clip(np.ceil(size / STEP), 9, 401))
    x, y = np.meshgrid(np.linspace(-margin, nx + margin, count), np.linspace(-margin, ny + margin, count))
    x, y = np.append((nx - 1) / 2, x), np.append((ny - 1) / 2, y)
    ra, dec = wcs.all_pix2world(x, y, 0)
    if not (np.isfinite(ra).all() and np.isfinite(dec).all()):
        raise Rejected("the WCS gives no position for parts of the image, so that no template can be chosen")
    return ra % 360, dec, known["filter"], scale


def chosen(kind, name, band, params, pixel):
    """Return a source and its band for an image's; where it has none that is close, a sentence and None."""
    source = {"ps1": images.PS1, "legacy": images.LEGACY}.get(name) if kind != "hips" else None
    title, bands = (source.title, source.bands) if source else images.hips_bands(name)
    mine = params.band if params.band in bands else None if params.band else images.nearest(band, bands)
    if mine is None:
        return f"{title} has no band like {params.band or band}", None
    return source or images.of_hips(name, mine, images.wanted_scale(pixel)), mine


def pieces_of(source, ra, dec):
    """Return the names of the pieces that positions lie in, the nearest to the first position first."""
    low, high = source.declinations
    inside = (dec > low) & (dec < high)
    names, first = np.unique(source.find(ra[inside], dec[inside]), return_index=True)
    center = SkyCoord(ra[0] * u.deg, dec[0] * u.deg)
    far = center.separation(SkyCoord(ra[inside][first] * u.deg, dec[inside][first] * u.deg)).deg
    return [str(names[k]) for k in np.argsort(far) if names[k]]


def made(job, library, source, band, place):
    """Write the mosaic of a source; return why not, if so."""
    ra, dec, pixel = place
    names = pieces_of(source, ra, dec)
    if not names:
        return f"{source.title} does not reach this field"
    if len(names) > job.params.max_pieces:
        return f"the field needs {len(names)} pieces of {source.title}, more than template.max_pieces"
    factor = images.factor_for(pixel, source.scale)
    paths, digests = images.pieces(library, source, band, names, factor)
    job.facts |= {"survey": source.title, "band": band, "pieces": digests, "factor": factor}
    if not paths:
        return f"{source.title} has no image of this field in {band}"
    wcs, shape = grid(images.read_piece(paths[0]).wcs, ra, dec)
    result = job.call(mosaic, images.read_all(paths), wcs, shape)
    planes = {"TEMPLATE": result.data, "MASK": result.mask}
    planes |= {} if result.noise is None else {"NOISE": result.noise}
    header = result.wcs.to_header()
    header["SURVEY"], header["BAND"] = source.title, band
    job.write_images("mosaic", planes, header)
    job.facts |= {"offsets": result.offsets, "shape": shape}
    return None


def work(job):
    params = job.params
    ra, dec, band, pixel = where(job)
    latitude = SkyCoord(ra[0] * u.deg, dec[0] * u.deg).galactic.b.deg
    library, reasons = Library.from_environment(), []
    for kind, name in images.suitable(params.source, params.survey, params.band or band, dec[0], latitude):
        source, mine = chosen(kind, name, band, params, pixel)
        if mine is None:
            reasons.append(source)
            continue
        reason = made(job, library, source, mine, (ra, dec, pixel))
        if reason is None:
            return
        reasons.append(reason)
    raise Rejected("; ".join(reasons))


def main(arguments=None):
    return STAGE.run(work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
