"""Where the pixels of one image lie on another, and its values there."""

from __future__ import annotations

import numpy as np
from astropy.wcs import WCS
from scipy import ndimage
from scipy.interpolate import RectBivariateSpline

from nightsift.template.registration import Registration, carry

GRID = 16  # pixels of the image between positions that are computed exactly
SPLINE = 4  # order of the interpolation
FINE = 1.1  # template pixels in an image pixel from which on the template is smoothed
SMOOTHING = 0.45  # standard deviation of that smoothing, image pixels


def coarse_grid(wcs: WCS, image_wcs: WCS, shape, template_shape, pad: int, registration=None):
    """Return rows and columns of a coarse grid on the image, and where its points lie on the template (x, y)."""
    rows = np.arange(-pad - GRID, shape[0] + pad + 2 * GRID, GRID, dtype=float)
    columns = np.arange(-pad - GRID, shape[1] + pad + 2 * GRID, GRID, dtype=float)
    grid_x, grid_y = np.meshgrid(columns, rows)
    here = registration.displaced(grid_x, grid_y) if registration else (grid_x, grid_y)
    return rows, columns, *carry(image_wcs, wcs, *here, max(template_shape))


def mapping(
    wcs: WCS, image_wcs: WCS, shape, template_shape, pad: int = 0, registration: Registration | None = None
) -> tuple[np.ndarray, ...]:
    """Return for every image pixel its position on the template (x, y) and the template pixels that it covers.

    The exact transformation is computed on a grid of 16 pixels and interpolated by bicubic splines, which is exact to
    1e-3 pixel for the distortions of real cameras. `pad` pixels around the image are mapped too. Positions far off the
    template become -1e6. What a `registration` found beyond the WCS is part of the transformation.
    """
    rows, columns, *grids = coarse_grid(wcs, image_wcs, shape, template_shape, pad, registration)
    splines = [RectBivariateSpline(rows, columns, grid) for grid in grids]
    inside_y = np.arange(-pad, shape[0] + pad, dtype=float)
    inside_x = np.arange(-pad, shape[1] + pad, dtype=float)
    x, y = (spline(inside_y, inside_x).astype(np.float32) for spline in splines)
    derivatives = [(spline(rows, columns, dx=1), spline(rows, columns, dy=1)) for spline in splines]
    jacobian = np.abs(derivatives[0][1] * derivatives[1][0] - derivatives[0][0] * derivatives[1][1])
    area = RectBivariateSpline(rows, columns, jacobian)(inside_y, inside_x).astype(np.float32)
    return x, y, area


def interpolated(data, x, y, area) -> np.ndarray:
    """Return the image at positions (x, y) that cover `area` of its pixels each.

    Spline interpolation; where an image pixel holds more than one template pixel, of the smoothed template.

    The kernel that matches the images absorbs the smoothing, and without it the samples would miss flux.
    """
    typical = float(np.median(area))
    if typical > FINE:
        data = ndimage.gaussian_filter(data, SMOOTHING * np.sqrt(typical))
    # Beyond the centres of the outermost pixels there is flux, too.
    return ndimage.map_coordinates(data, [y, x], order=SPLINE, mode="mirror", output=np.float32)


def nearest_pixel(flagged, x, y) -> np.ndarray:
    """Look up a map of the template at the nearest template pixel."""
    column = np.clip(np.rint(x), 0, flagged.shape[1] - 1).astype(np.intp)
    row = np.clip(np.rint(y), 0, flagged.shape[0] - 1).astype(np.intp)
    return flagged[row, column]
