"""Polynomial plate solutions and their TAN-SIP headers (Shupe et al. 2005, ADASS XIV, ASP 347, 491)."""

from __future__ import annotations

import numpy as np
from astropy.io import fits


def project(ra, dec, ra0, dec0):
    """Project gnomonically about (`ra0`, `dec0`).

    Calabretta & Greisen 2002, A&A 395, 1077, section 5.1.3; all in degrees.

    Returns
    -------
    plane : complex array
        ``xi + 1j * eta`` in degrees; NaN further than 80 degrees from the tangent point.
    """
    ra, dec = np.radians(np.asarray(ra, float) - ra0), np.radians(np.asarray(dec, float))
    sin0, cos0 = np.sin(np.radians(dec0)), np.cos(np.radians(dec0))
    depth = sin0 * np.sin(dec) + cos0 * np.cos(dec) * np.cos(ra)
    depth = np.where(depth > 0.17, depth, np.nan)
    xi = np.cos(dec) * np.sin(ra) / depth
    eta = (cos0 * np.sin(dec) - sin0 * np.cos(dec) * np.cos(ra)) / depth
    return np.degrees(xi) + 1j * np.degrees(eta)


def deproject(plane, ra0, dec0):
    """Return right ascension (0 to 360) and declination, in degrees, of points of the tangent plane."""
    xi, eta = np.radians(np.real(plane)), np.radians(np.imag(plane))
    sin0, cos0 = np.sin(np.radians(dec0)), np.cos(np.radians(dec0))
    ahead = cos0 - eta * sin0
    ra = np.arctan2(xi, ahead)
    dec = np.arctan2(sin0 + eta * cos0, np.hypot(xi, ahead))
    return (ra0 + np.degrees(ra)) % 360.0, np.degrees(dec)


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


def robust_sigma(values):
    """Return the standard deviation about zero of a normal distribution of the same median absolute value."""
    return float(1.4826 * np.median(np.abs(values))) if np.size(values) else np.nan


def solve(design, target, weight=None):
    """Return the least-squares coefficients; `weight` is 1 / variance."""
    if weight is None or len(design) < 200:
        root = np.ones(len(design)) if weight is None else np.sqrt(weight)
        return np.linalg.lstsq(design * root[:, None], target * root[:, None], rcond=None)[0]
    # normal equations are many times faster on tall matrices; one step of refinement restores the digits they cost
    weighted = (design * (weight / weight.mean())[:, None]).T
    gram = weighted @ design
    solution = np.linalg.lstsq(gram, weighted @ target, rcond=None)[0]
    return solution + np.linalg.lstsq(gram, weighted @ (target - design @ solution), rcond=None)[0]


def clipped_fit(design, target, sigma=None, clip=3.5, iterations=8):
    """Fit by least squares, leaving out what deviates by more than `clip` robust sigma.

    Parameters
    ----------
    design : (n, k) array
        Design matrix.
    target : (n, 2) array
        Values.
    sigma : (n,) array, optional
        Relative errors of the values.
    clip : float
    iterations : int
        How often at the most.

    Returns
    -------
    coefficients : (k, 2) array
        The solution.
    used : (n,) bool array
        What was not left out; never fewer than half.
    """
    sigma = np.ones(len(design)) if sigma is None else sigma
    used = np.ones(len(design), bool)
    for _ in range(iterations):
        solution = solve(design[used], target[used], 1 / sigma[used] ** 2)
        deviation = np.hypot(*(design @ solution - target).T) / sigma
        # the median of a Rayleigh distribution lies at 1.1774 sigma; a fit leaves n - k of n
        freedom = max(len(design[used]) - design.shape[1], 1) / used.sum()
        scale = np.median(deviation[used]) / 1.1774 / np.sqrt(freedom)
        limit = max(clip * scale, np.median(deviation))
        now = deviation <= limit
        if now.sum() < design.shape[1] + 1 or np.array_equal(now, used):
            break
        used = now
    return solution, used


def held_out(design, target, weight, folds=10):
    """Return predicted minus true of every star, from the fit to the other folds; `weight` is 1 / variance."""
    fold = np.random.default_rng(1).permutation(len(design)) % min(folds, len(design))
    grams = [(design[fold == k].T * weight[fold == k]) @ design[fold == k] for k in range(fold.max() + 1)]
    rights = [(design[fold == k].T * weight[fold == k]) @ target[fold == k] for k in range(fold.max() + 1)]
    gram, right = sum(grams), sum(rights)
    residual = np.empty_like(target)
    for k in range(fold.max() + 1):
        solution = np.linalg.lstsq(gram - grams[k], right - rights[k], rcond=None)[0]
        residual[fold == k] = design[fold == k] @ solution - target[fold == k]
    return residual


def leverage(design, elsewhere, weight=None):
    """Return the variance of a fit's prediction at each row of `elsewhere`, in units of a datum's of unit weight."""
    gram = (design.T * (1.0 if weight is None else weight)) @ design
    if np.linalg.matrix_rank(gram) < len(gram):
        return np.full(len(elsewhere), np.inf)
    return np.einsum("ij,ji->i", elsewhere, np.linalg.solve(gram, elsewhere.T))


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


def grid(shape, points=25, margin=0.02):
    """Return complex 0-based pixels of a regular grid over the image and a little beyond."""
    height, width = shape
    x = np.linspace(-margin * width, (1 + margin) * width - 1, points)
    y = np.linspace(-margin * height, (1 + margin) * height - 1, points)
    return (x[None, :] + 1j * y[:, None]).ravel()


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
