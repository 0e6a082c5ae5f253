"""Render pairs of images, and a template for each, whose every source is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SIZE, SKY, GAIN = 1024, 400.0, 4.0
NOISE = np.sqrt(SKY / GAIN)
SCALE, TEMPLATE_SKY, TEMPLATE_GAIN = 1.7, 200.0, 17.0
RIM = 30
VARIATION = {
    "mild": ((0.01, 0.008, 0.005), (0.01, 0.01)),
    "hard": ((0.10, 0.06, 0.05), (0.12, 0.10)),
}


@dataclass(frozen=True)
class Case:
    """One pair; the template's PSF is half as wide as the image's, and so are its pixels."""

    fwhm: float
    stars: int
    psf: str
    renderer: str
    seed: int

    @property
    def name(self) -> str:
        return f"FWHM {self.fwhm} px, {self.stars} stars, PSF {self.psf}, {self.renderer}"


class Own:
    """Moffat stars and Spergel galaxies of `nightsift.simulate.pixels`."""

    def stamps(self, psf, x, y, shape, half):
        from nightsift.image.moffat import psf_stamps

        return psf_stamps(psf, x, y, shape, half)

    def points(self, image, x, y, flux, psf):
        from nightsift.simulate.pixels import render_points

        render_points(image, x, y, flux, psf, 0.1)

    def galaxies(self, image, x, y, flux, galaxies, psf, cd):
        from nightsift.simulate.pixels import render_galaxies

        render_galaxies(image, x, y, flux, galaxies, psf, cd)


class GalSim:
    """Kolmogorov stars and Sersic galaxies of GalSim: other profiles than those nightsift was developed with."""

    def profile(self, psf, x, y, shape):
        import galsim

        xx, xy, yy = (float(part) for part in psf.covariance(x, y, shape))
        alpha = psf.fwhm / (2 * np.sqrt(2 ** (1 / psf.beta) - 1))
        width = psf.fwhm * (xx * yy - xy**2) ** 0.25 / alpha
        fine = galsim.GSParams(folding_threshold=1e-3, maximum_fft_size=16384)
        shape = galsim.Shear(e1=(xx - yy) / (xx + yy), e2=2 * xy / (xx + yy))
        return galsim.Kolmogorov(fwhm=width, gsparams=fine).shear(shape)

    def drawn(self, profile, x, y, half):
        column, row = round(float(x)), round(float(y))
        side = 2 * half + 1
        stamp = profile.drawImage(nx=side, ny=side, scale=1.0, offset=(x - column, y - row), dtype=np.float32).array
        return stamp, column, row

    def stamps(self, psf, x, y, shape, half):
        found = [self.drawn(self.profile(psf, a, b, shape), a, b, half) for a, b in zip(x, y, strict=True)]
        return tuple(np.array(part) for part in zip(*found, strict=True))

    def points(self, image, x, y, flux, psf):
        for a, b, f in zip(x, y, flux, strict=True):
            half = int(np.clip(psf.fwhm * (f / 30) ** 0.27, 5 * psf.fwhm, 60 * psf.fwhm))
            if -half < a < image.shape[1] + half and -half < b < image.shape[0] + half:
                add(image, *self.drawn(self.profile(psf, a, b, image.shape) * f, a, b, half))

    def galaxies(self, image, x, y, flux, galaxies, psf, cd):
        import galsim

        scale = np.sqrt(abs(np.linalg.det(cd)))
        for i, (a, b, f) in enumerate(zip(x, y, flux, strict=True)):
            half = int(9 * galaxies["r50"][i] / scale + 5 * psf.fwhm)
            if not (-half < a < image.shape[1] + half and -half < b < image.shape[0] + half):
                continue
            disc = galsim.Sersic(n=1.0 if galaxies["nu"][i] > 0 else 2.5, half_light_radius=galaxies["r50"][i])
            disc = disc.shear(q=galaxies["q"][i], beta=galaxies["pa"][i] * galsim.degrees)
            disc = disc.transform(*np.linalg.inv(cd).ravel()) / abs(np.linalg.det(np.linalg.inv(cd)))
            whole = galsim.Convolve(disc, self.profile(psf, a, b, image.shape)) * f
            add(image, *self.drawn(whole, a, b, half))


def add(image, stamp, column, row):
    half = stamp.shape[0] // 2
    x0, x1 = max(column - half, 0), min(column + half + 1, image.shape[1])
    y0, y1 = max(row - half, 0), min(row + half + 1, image.shape[0])
    if x0 < x1 and y0 < y1:
        image[y0:y1, x0:x1] += stamp[y0 - row + half : y1 - row + half, x0 - column + half : x1 - column + half]


def frames(shape):
    """WCS of image and template: the latter's pixels are half as large, turned and displaced."""
    from astropy.wcs import WCS

    from nightsift.image.padding import PAD

    image, template = WCS(naxis=2), WCS(naxis=2)
    side = 2 * (shape[0] + 2 * PAD) + 40
    turn = np.radians(0.4)
    flip = np.diag([-1.0, 1.0])
    for wcs in (image, template):
        wcs.wcs.ctype, wcs.wcs.crval = ["RA---TAN", "DEC--TAN"], [150.0, 20.0]
    image.wcs.crpix, image.wcs.cd = [shape[1] / 2, shape[0] / 2], flip / 3600
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    template.wcs.crpix, template.wcs.cd = [side / 2 + 0.31, side / 2 - 0.17], flip @ rotation / 7200
    return image, template, (side, side)


def scene(rng, case: Case, mean_square: float):
    """Stars, galaxies and places for transients; `mean_square` is the sum of the squared PSF."""
    from astropy.table import Table

    unit = NOISE / np.sqrt(mean_square)  # flux of S/N 1
    edge = 80
    star = rng.uniform(-edge, SIZE + edge, (2, round(case.stars * (1 + 2 * edge / SIZE) ** 2)))
    flux = np.minimum(4 * unit * rng.random(star.shape[1]) ** (-1 / 0.75), 4000 * unit)
    galaxy = rng.uniform(-edge, SIZE + edge, (2, 150))
    table = Table({"r50": np.clip(2.5 * rng.lognormal(0, 0.4, 150), 1, 6)})
    table["nu"], table["q"] = rng.choice([0.5, -0.4], 150), rng.uniform(0.4, 1, 150)
    table["pa"] = rng.uniform(0, 180, 150)
    light = np.minimum(25 * unit * rng.random(150) ** (-1 / 1.2), 600 * unit)
    hosts = rng.permutation(150)
    radius, angle = rng.uniform(0.1, 1.3, 150) * table["r50"][hosts], rng.uniform(0, 2 * np.pi, 150)
    on = galaxy[:, hosts] + radius * np.array([np.cos(angle), np.sin(angle)])
    off = rng.uniform(RIM, SIZE - RIM, (2, 400))
    off = off[:, np.hypot(*(off[:, :, None] - galaxy[:, None, :])).min(axis=1) > 15]
    kept = []
    for places, most in ((on.T, 30), (off.T, 60)):
        for place in places:
            inside = np.all((place > RIM + 15) & (place < SIZE - RIM - 15))
            alone = np.hypot(*(star.T - place).T).min() > 2 * case.fwhm
            alone &= not kept or np.hypot(*(np.array(kept) - place).T).min() > 6 * case.fwhm
            if inside and alone and len(kept) < most:
                kept.append(place)
    return star, flux, galaxy, light, table, np.array(kept).T


def moffats(case: Case):
    from nightsift.image.moffat import MoffatPsf

    scale, twist = VARIATION[case.psf]
    image = MoffatPsf(case.fwhm, 3.0, 0.04, 0.02, scale, twist)
    return image, MoffatPsf(case.fwhm, 3.0, -0.03, 0.03, (-0.015, 0.01, 0.01), (-0.01, 0.015))


def pair(case: Case):
    """Render a pair; returns what the methods get, and the truth."""
    rng = np.random.default_rng([case.seed, round(10 * case.fwhm), case.stars])
    draw = Own() if case.renderer == "own" else GalSim()
    psf, sharp = moffats(case)
    shape = (SIZE, SIZE)
    half = int(np.ceil(4 * case.fwhm))
    centre = draw.stamps(psf, np.array([SIZE // 2]), np.array([SIZE // 2]), shape, half)[0][0]
    star, flux, galaxy, light, table, place = scene(rng, case, float(np.sum(centre**2)))
    wcs, other, side = frames(shape)
    static, deep = np.zeros(shape, np.float32), np.zeros(side, np.float32)
    draw.points(static, *star, flux, psf)
    draw.galaxies(static, *galaxy, light, table, psf, wcs.wcs.cd * 3600)
    there = [np.array(other.wcs_world2pix(*wcs.wcs_pix2world(*what, 0), 0)) for what in (star, galaxy)]
    draw.points(deep, *there[0], SCALE * flux, sharp)
    draw.galaxies(deep, *there[1], SCALE * light, table, sharp, other.wcs.cd * 3600)
    variance = (np.maximum(static, 0) + SKY) / GAIN
    profiles, column, row = draw.stamps(psf, *place, shape, half)
    ideal = np.sqrt(np.sum(profiles**2 / cut(variance, column, row, half), axis=(1, 2)))
    snr = np.exp(rng.uniform(np.log(5), np.log(100), place.shape[1]))
    new = np.zeros(shape, np.float32)
    draw.points(new, *place, snr / ideal, psf)
    image = rng.poisson(np.maximum(static + new + SKY, 0) * GAIN) / GAIN
    template = rng.poisson((np.maximum(deep, 0) + TEMPLATE_SKY) * TEMPLATE_GAIN) / TEMPLATE_GAIN
    data = {"image": image.astype(np.float32), "raw": template.astype(np.float32), "psf": centre}
    truth = {
        "static": static,
        "new": new,
        "variance": variance,
        "star": star,
        "star_snr": flux * np.sqrt(np.sum(centre**2)) / np.sqrt(NOISE**2 + flux * np.sum(centre**3) / GAIN),
        "place": place,
        "flux": snr / ideal,
        "snr": snr,
        "profiles": profiles,
    }
    return data, truth, (wcs, other)


def cut(image, column, row, half):
    from nightsift.image.stamps import stamps

    return stamps(image, column, row, half)
