"""Polynomial plate solutions and their TAN-SIP headers (Shupe et al. 2005, ADASS XIV, ASP 347, 491)."""

from __future__ import annotations

import numpy as np
from astropy.io import fits

from nightsift.sky.pixels import grid
from nightsift.statistics import solve


def powers(order):
    """Return the exponents ``(i, j)`` with ``i + j <= order``, lower degrees first."""
    return [(degree - j, j) for degree in range(order + 1) for j in range(degree + 1)]


def monomials(points, order):
    """Return the (n, terms) design matrix of ``u**i * v**j`` for complex points ``u + 1j * v``."""
    u, v = np.real(points), np.imag(points)
    raised_u = [np.ones_like(u)]
    raised_v = [np.ones_like(v)]
    for _ in range(order):
        raised_u.append(raised_u[-1] * u)
        raised_v.append(raised_v[-1] * v)
    return np.column_stack([raised_u[i] * raised_v[j] for i, j in powers(order)])


def fit_pixels(pixels, plane, weight, order, unit):
    """Return the (terms, 2) coefficients of the plane's ``xi, eta`` as a polynomial of ``pixels / unit``."""
    return solve(monomials(pixels / unit, order), np.column_stack([plane.real, plane.imag]), weight)


def header(coefficients, order, unit, center, crval, shape):
    """Turn a polynomial solution into a header.

    Parameters
    ----------
    coefficients : (terms, 2) array
        ``xi, eta`` in degrees as polynomials of pixels from `center`, in units of `unit`; constants are dropped, so
        the tangent point must already be at `center`.
    order : int
        Order of the polynomials; 1 makes a plain TAN header.
    unit : float
        Pixels.
    center : complex
        0-based pixel of the tangent point.
    crval : (float, float)
        Tangent point, degrees.
    shape : (int, int)
        Of the image.

    Returns
    -------
    fits.Header
        With inverse terms AP, BP that return to 0.005 px over the image wherever an order up to 9 can.
    """
    exponents = powers(order)
    scaled = {ij: coefficients[n] / unit ** sum(ij) for n, ij in enumerate(exponents)}
    cd = np.column_stack([scaled[1, 0], scaled[0, 1]])
    kind = "TAN-SIP" if order > 1 else "TAN"
    cards = fits.Header()
    cards["WCSAXES"] = 2
    cards["CTYPE1"], cards["CTYPE2"] = f"RA---{kind}", f"DEC--{kind}"
    cards["CUNIT1"], cards["CUNIT2"] = "deg", "deg"
    cards["CRPIX1"], cards["CRPIX2"] = center.real + 1, center.imag + 1
    cards["CRVAL1"], cards["CRVAL2"] = float(crval[0]), float(crval[1])
    for row in (0, 1):
        for column in (0, 1):
            cards[f"CD{row + 1}_{column + 1}"] = float(cd[row, column])
    cards["RADESYS"] = "ICRS"
    if order > 1:
        inverse = np.linalg.inv(cd)
        terms = {ij: inverse @ scaled[ij] for ij in exponents if sum(ij) > 1}
        _polynomial_cards(cards, "A", "B", order, terms)
        _polynomial_cards(cards, "AP", "BP", *_inverse_terms(terms, center, shape))
    return cards


def _polynomial_cards(cards, name_u, name_v, order, terms):
    cards[f"{name_u}_ORDER"] = cards[f"{name_v}_ORDER"] = order
    for axis, name in enumerate((name_u, name_v)):
        for (i, j), value in terms.items():
            cards[f"{name}_{i}_{j}"] = float(value[axis])


def _inverse_terms(terms, center, shape, good=0.005):
    """Return the order and terms that lead from undistorted back to pixel offsets."""
    pixels = grid(shape) - center
    distorted = pixels.copy()
    for (i, j), (along_u, along_v) in terms.items():
        distorted += (along_u + 1j * along_v) * pixels.real**i * pixels.imag**j
    unit = np.abs(pixels).max()
    lowest = max(sum(ij) for ij in terms)
    for order in range(lowest, 10):
        solution = fit_pixels(distorted, pixels - distorted, None, order, unit)
        rest = monomials(distorted / unit, order) @ solution
        if np.abs(rest[:, 0] + 1j * rest[:, 1] + distorted - pixels).max() < good:
            break
    return order, {ij: solution[n] / unit ** sum(ij) for n, ij in enumerate(powers(order))}
