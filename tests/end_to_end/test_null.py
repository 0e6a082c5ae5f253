"""Where nothing changed, nothing is found but what noise allows."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from scipy.stats import poisson
from workflows import ROOT, snakemake

from nightsift import parameters
from nightsift.detect.detect import detect
from nightsift.flags import Mask
from nightsift.image.moffat import MoffatPsf
from nightsift.image.padding import PAD
from nightsift.io.products import read_images, read_json, read_wcs
from nightsift.simulate.pixels import render_galaxies, render_points
from nightsift.subtract.difference import Exposure, Reference
from nightsift.subtract.subtract import subtract
from nightsift.transients.transients import Search, peaks, transients

SIZE, SKY, GAIN = 768, 400.0, 4.0
DATA = ROOT.parent / "shared" / "data" / "agpeg"


def allowed(pixels, fwhm, threshold=5.0):
    """Return the most extrema beyond +-threshold that noise makes on so many pixels, in 999 of 1000 cases.

    The maxima of a Gaussian field above nu have the density lambda nu exp(-nu^2 / 2) / (2 pi)^1.5 (Adler 1981, theorem
    6.3.1, the leading term), lambda being the variance of a derivative: 1 / (2 sigma^2) for white noise under a
    Gaussian filter of that sigma.
    """
    spread = 1 / (2 * (fwhm / 2.3548) ** 2)
    density = spread * threshold * np.exp(-(threshold**2) / 2) / (2 * np.pi) ** 1.5
    return poisson.ppf(0.999, 2 * density * pixels)


# ------------------------------------------------------------------------------------------- one sky, two noise seeds


def sky(psf, seed=3):
    """Return the expected light (ADU, sky aside) of stars and galaxies, framed as a template is."""
    rng = np.random.default_rng(seed)
    side = SIZE + 2 * PAD
    image = np.zeros((side, side), np.float32)
    x, y = rng.uniform(-20, side + 20, (2, 900))
    render_points(image, x, y, np.minimum(800 * rng.random(900) ** (-1 / 0.75), 2e5), psf, 0.1)
    x, y = rng.uniform(0, side, (2, 100))
    galaxies = Table({"r50": np.clip(2.5 * rng.lognormal(0, 0.4, 100), 1, 6), "nu": rng.choice([0.5, -0.4], 100)})
    galaxies["q"], galaxies["pa"] = rng.uniform(0.4, 1, 100), rng.uniform(0, 180, 100)
    render_galaxies(image, x, y, np.minimum(3000 * rng.random(100) ** (-1 / 1.2), 5e4), galaxies, psf, np.eye(2))
    return image


def noisy(light, seed):
    return (np.random.default_rng(seed).poisson((light + SKY) * GAIN) / GAIN).astype(np.float32)


def difference(fwhm, template_fwhm):
    """Return what the package's functions find in the difference of one sky rendered twice."""
    varying = {"beta": 3.0, "e1": 0.03, "e2": -0.02, "scale": (0.03, -0.02, 0.02), "twist": (0.01, 0.01)}
    light, beneath = sky(MoffatPsf(fwhm=fwhm, **varying)), sky(MoffatPsf(fwhm=template_fwhm, **varying))
    image = noisy(light, 11)[PAD:-PAD, PAD:-PAD]
    clear = np.zeros(image.shape, np.uint16)
    objects = detect(image, clear, GAIN, parameters.DetectConfig())
    template = noisy(beneath, 12) - np.float32(SKY)
    noise = np.sqrt((np.maximum(beneath, 0) + SKY) / GAIN).astype(np.float32)
    reference = Reference(template, noise, np.zeros(template.shape, np.uint16))
    exposure = Exposure(image, clear, GAIN, objects.seeing.fwhm, objects.aperture)
    found = subtract(exposure, reference, objects.objects, parameters.SubtractConfig())
    search = Search.of(found, clear != 0)
    return found, transients(search, objects.objects, parameters.TransientsConfig()).candidates


@pytest.fixture(scope="module", params=[(3.0, 3.0), (3.8, 2.6), (2.6, 3.8)], ids=["same", "sharper", "wider"])
def nothing(request):
    return difference(*request.param)


@pytest.mark.parametrize("threshold", [4.0, 5.0])
def test_the_map_has_no_more_peaks_than_noise_makes(nothing, threshold):
    found, _ = nothing
    clear = found.mask == 0
    number = len(peaks(np.where(clear, found.snr, 0), threshold, found.psf.fwhm)[0])
    assert number <= allowed(clear.sum(), found.psf.fwhm, threshold)


def test_peaks_of_noise_are_as_many_as_expected():
    from scipy.ndimage import gaussian_filter

    sigma = 1.5
    field = gaussian_filter(np.random.default_rng(4).normal(0, 1, (2048, 2048)), sigma)
    field *= 1 / field.std()
    number = len(peaks(field.astype(np.float32), 4.0, 2.3548 * sigma)[0])
    most = allowed(field.size, 2.3548 * sigma, 4.0)
    assert 0.5 * most < number <= most


def test_nothing_is_a_candidate(nothing):
    found, table = nothing
    real = table[np.asarray(table["is_real"], bool)]
    assert len(real) <= allowed((found.mask == 0).sum(), found.psf.fwhm)


# ---------------------------------------------------------------------------------------- two frames of one real night


real_night = pytest.mark.skipif(not DATA.is_dir(), reason="the real campaign ../shared/data/agpeg is not here")
JUNE = ("20150608_381", "20150608_385")
JULY = ("20150701_289", "20150701_285")


def name(frame):
    return f"t_e_{frame}_1_1_1"


def path(frame):
    return DATA / "images" / f"{name(frame)}.fits"


def run(work, pairs):
    """Run the workflow's tables on frames, each with the template given with it; return the results."""
    rows = [f"{name(frame)}\t{path(frame)}\t{template}" for frame, template in pairs]
    (work / "images.tsv").write_text("\n".join(["image\tpath\ttemplate", *rows]) + "\n")
    (work / "config.yaml").write_text(
        f"images: images.tsv\ncatalog:\n  path: {DATA}/catalog.csv\nphotometry:\n  band: VT\n  color: none\n"
    )
    done = snakemake(work, "--", "tables", OMP_NUM_THREADS="1")
    assert done.code == 0, done.text
    return work / "results" / "images"


@pytest.fixture(scope="module")
def as_given(tmp_path_factory):
    """Two frames of each night, each with the other for a template, as its header places it."""
    pairs = [JUNE, JUNE[::-1], JULY, JULY[::-1]]
    return run(tmp_path_factory.mktemp("given"), [(frame, path(other)) for frame, other in pairs])


@pytest.fixture(scope="module")
def well_placed(as_given, tmp_path_factory):
    """The same with the solution that the workflow found for the frame that is the template."""
    work, pairs = tmp_path_factory.mktemp("placed"), []
    for frame, other in (JUNE, JUNE[::-1], JULY, JULY[::-1]):
        header = read_wcs(as_given / name(other) / "wcs.fits").to_header(relax=True)
        fits.writeto(work / f"{other}.fits", fits.getdata(path(other)), header)
        pairs.append((frame, work / f"{other}.fits"))
    return run(work, pairs)


def candidates(results, frame):
    """Return the vetted candidates of a frame, and how many noise allows."""
    folder = results / name(frame)
    table = Table.read(folder / "candidates.fits")
    return table, allowed(1024 * 1024, read_json(folder / "detect.json")["fwhm"])


def told(table):
    return "\n".join(table["x", "y", "snr", "chi2", "sharpness", "fwhm"].pformat(max_lines=20)) if len(table) else ""


@real_night
@pytest.mark.parametrize("frame", [*JUNE, *JULY])
def test_a_night_has_nothing_new(well_placed, frame):
    table, most = candidates(well_placed, frame)
    assert read_json(well_placed / name(frame) / "status.json")["status"] == "ok"
    assert len(table) <= most, told(table)


@real_night
@pytest.mark.parametrize("frame", [*JUNE, *JULY])
def test_no_candidate_is_beside_what_saturates(well_placed, frame):
    table, _ = candidates(well_placed, frame)
    mask = read_images(well_placed / name(frame) / "mask.fits")[0]["PRIMARY"]
    row, column = np.nonzero(mask & int(Mask.SATURATED))
    reach = 3 * read_json(well_placed / name(frame) / "detect.json")["fwhm"]
    near = [np.hypot(column - one["x"], row - one["y"]).min() < reach for one in table]
    assert not any(near), told(table[near])


@real_night
@pytest.mark.parametrize("frame", [*JUNE, *JULY])
def test_a_header_that_misplaces_the_template_makes_no_candidates(as_given, frame):
    # Those of the July frames is off by up to five pixels near the border.
    table, most = candidates(as_given, frame)
    assert len(table) <= most, told(table)


@real_night
@pytest.mark.parametrize("pair", [JUNE, JUNE[::-1], JULY, JULY[::-1]])
def test_the_template_is_registered_and_its_hits_are_masked(as_given, pair):
    frame, other = (as_given / name(one) for one in pair)
    found = read_json(frame / "template.json")["registration"]
    assert found["n_stars"] > 500
    assert max(found["rms"]) < 0.06
    # The hits of the frame that is the template, where the solutions of both place them.
    hits = read_images(other / "mask.fits")[0]["PRIMARY"] & int(Mask.COSMIC)
    sky = read_wcs(other / "wcs.fits").all_pix2world(np.argwhere(hits)[:, ::-1], 0)
    column, row = np.rint(read_wcs(frame / "wcs.fits").all_world2pix(sky, 0)).astype(int).T + PAD
    mask = read_images(frame / "template.fits")[0]["MASK"]
    inside = (row >= 0) & (column >= 0) & (row < mask.shape[0]) & (column < mask.shape[1])
    assert (mask[row[inside], column[inside]] != 0).all()
