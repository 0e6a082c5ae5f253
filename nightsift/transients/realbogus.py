"""Tell real point sources from bogus ones: a model trained on fakes and on what is known to be false."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from astropy.table import Table

MEASURES = {
    "log_snr": "logarithm of |S/N|, at most 200",
    "log_chi2": "logarithm of the reduced chi2 of the PSF fit",
    "sharpness": "contrast of the core over that of the PSF",
    "sharpness_pull": "deviation of that contrast from 1, in units of its error",
    "width": "FWHM over that of the PSF",
    "block": "chi2 that a block of equal pixels explains, over that of the PSF",
    "block_snr": "S/N of what it explains beyond the PSF, or less",
    "elongation": "chi2 that stretching the PSF explains, over that of the PSF",
    "elongation_snr": "S/N of that",
    "trail": "flux along the best line away from it, relative to its own",
    "pedestal": "fraction of the flux that the level of the surroundings makes up",
    "around": "rms of the S/N map from 2 to 4 FWHM, relative to what noise and the source's own wings make",
    "negative": "fraction of flux of the other sign within 1.5 FWHM",
    "dipole": "S/N of the strongest opposite extreme over its own",
    "dipole_snr": "S/N of that extreme",
    "dipole_ratio": "ratio of the fluxes of two opposite PSFs",
    "dipole_separation": "distance of the two, FWHM",
    "shifted": "fraction of the signal that a shift of the template explains",
    "cosmic": "S/N of its brightest pixel over that of a point source",
    "masked": "fraction of the PSF on masked pixels",
    "change": "logarithm of its flux over that of the template",
    "expected": "expected residual of the template's flux over the error",
    "distance": "distance to the nearest template source, FWHM",
    "neighbour": "logarithm of its flux over the brightest template flux within 6 FWHM",
    "beside": "logarithm of its flux over that of a saturated object near it",
}
FEWEST = (30, 10)  # real and bogus examples that make an image rich enough to train on
FOLDS = 3
BINS = 5  # of score, of equal width, of which the card says how reliable they are
BRIGHT = 200.0  # S/N beyond which brightness says nothing more
WINGS = 0.01  # of a source's S/N that its wings reach at 2 to 4 FWHM
SHIPPED = "examples.npz"
TREES = {
    "max_iter": 100,
    "learning_rate": 0.08,
    "max_leaf_nodes": 12,
    "min_samples_leaf": 100,
    "l2_regularization": 1.0,
    "max_features": 0.3,
}


@dataclass(frozen=True)
class Examples:
    """Measures (n, len(MEASURES)), truth (True = real) and group (held out together) of each example."""

    values: np.ndarray
    real: np.ndarray
    group: np.ndarray

    def __len__(self) -> int:
        return len(self.real)

    def __getitem__(self, chosen) -> Examples:
        return Examples(self.values[chosen], self.real[chosen], self.group[chosen])


@dataclass(frozen=True)
class Model:
    """A trained model.

    Attributes
    ----------
    classifier : object
        With `predict_proba`.
    card : dict
        What it was trained on, and how well it does on what it was not trained on.
    held_out : 1-D array
        Scores of the image's own examples by models that did not see them.
    """

    classifier: object
    card: dict
    held_out: np.ndarray

    def score(self, values: np.ndarray) -> np.ndarray:
        """Return the probability of being real for measures of `features`."""
        if not len(values):
            return np.zeros(0)
        return self.classifier.predict_proba(values)[:, 1]


def features(table: Table, fwhm: float) -> np.ndarray:
    """Return the measures of candidates as an (n, len(MEASURES)) float32 array; none depends on telescope or flux.

    Parameters
    ----------
    table : Table
        Schema ``candidates``.
    fwhm : float
        Of the PSF of the difference, pixels.
    """
    value = {name: np.asarray(table[name], float) for name in table.colnames if table[name].dtype.kind == "f"}
    flux, error = np.abs(value["flux"]), np.maximum(value["bgerr"], 1e-200)
    snr = np.maximum(flux / error, 1e-3)
    with np.errstate(divide="ignore", invalid="ignore"):
        columns = {
            "log_snr": np.log10(np.minimum(snr, BRIGHT)),
            # The wings of a bright source are no noise of its surroundings.
            "around": value["around"] / np.hypot(1, WINGS * snr),
            "log_chi2": np.log10(np.maximum(value["chi2"], 1e-2)),
            "sharpness_pull": (value["sharpness"] - 1) / value["sharpness_err"],
            "width": value["fwhm"] / fwhm,
            "block_snr": np.sign(value["block"] - 1) * np.sqrt(np.abs(value["block"] - 1)) * snr,
            "elongation_snr": np.sqrt(value["elongation"]) * snr,
            "dipole_snr": value["dipole"] * snr,
            "dipole_separation": value["dipole_separation"] / fwhm,
            "change": np.log10(flux / np.maximum(np.abs(value["template_flux"]), error)),
            "expected": np.log10(np.maximum(value["expected"] / error, 1e-2)),
            "distance": np.nan_to_num(value["template_distance"] / fwhm, nan=10.0),
            "neighbour": np.log10(flux / np.maximum(value["neighbour"], error)),
            "beside": np.log10(flux / np.maximum(value["beside"], error)),
        }
    columns |= {name: value[name] for name in MEASURES if name not in columns}
    stacked = np.column_stack([columns[name] for name in MEASURES]) if len(table) else np.zeros((0, len(MEASURES)))
    return np.clip(np.nan_to_num(stacked, nan=-99.0), -99, 1e3).astype(np.float32)


@cache
def shipped() -> Examples:
    """Return the examples that come with the package."""
    with files("nightsift.transients").joinpath("data", SHIPPED).open("rb") as file, np.load(file) as stored:
        return Examples(stored["values"].astype(np.float32), stored["real"], stored["group"])


def train(own: Examples | None = None, base: Examples | None = None) -> Model:
    """Train a model on the examples that come with the package and on those of an image.

    Parameters
    ----------
    own : Examples, optional
        Of the image; left out where there are fewer than `FEWEST` of a kind.
    base : Examples, optional
        Instead of `shipped`.

    Notes
    -----
    Gradient-boosted trees under the logarithmic loss (Friedman 2001, Ann. Stat. 29, 1189), whose predictions are
    probabilities. Each split chooses among a random part of the measures, which makes the model less sure of itself
    where examples are few. Deterministic: the seed is fixed.
    """
    base = shipped() if base is None else base
    counts = (int(own.real.sum()), int((~own.real).sum())) if own is not None else (0, 0)
    rich = counts[0] >= FEWEST[0] and counts[1] >= FEWEST[1]
    held_out = np.full(sum(counts), np.nan)
    if rich:
        for fold in range(FOLDS):
            out = own.group % FOLDS == fold
            if out.any():
                held_out[out] = fit_classifier(base, own[~out]).predict_proba(own.values[out])[:, 1]
        classifier = fit_classifier(base, own)
    else:
        classifier = _of_the_package() if base is shipped() else fit_classifier(base, None)
        if sum(counts):
            held_out = classifier.predict_proba(own.values)[:, 1]
    card = {
        "trained_on": "image" if rich else "package",
        "measures": list(MEASURES),
        "own_real": counts[0],
        "own_bogus": counts[1],
        "package_real": int(base.real.sum()),
        "package_bogus": int((~base.real).sum()),
    }
    if counts[0] and counts[1]:
        card |= quality(held_out, own.real)
    return Model(classifier, card, held_out)


@cache
def _of_the_package():
    return fit_classifier(shipped(), None)


def fit_classifier(base: Examples, own: Examples | None):
    """Return gradient-boosted trees trained on the examples of both."""
    from sklearn.ensemble import HistGradientBoostingClassifier  # late: it takes half a second

    values, real = base.values, base.real
    if own is not None:
        values, real = np.concatenate([values, own.values]), np.concatenate([real, own.real])
    classifier = HistGradientBoostingClassifier(**TREES, early_stopping=False, random_state=0)
    return classifier.fit(values, real)


def quality(score: np.ndarray, real: np.ndarray) -> dict:
    """Return how well scores tell real (bool) from bogus: area under the ROC curve, rates at 0.5, reliability by bins.

    ``reliability`` lists for each bin of score (lower edge, number, mean score, fraction of real ones).
    """
    from sklearn.calibration import calibration_curve  # late, as below
    from sklearn.metrics import roc_auc_score

    score, real = np.asarray(score, float), np.asarray(real, bool)
    good = np.isfinite(score)
    score, real = score[good], real[good]
    if not real.any() or real.all():
        return {"auc": np.nan, "false_positive": np.nan, "false_negative": np.nan, "reliability": []}
    edges = np.linspace(0, 1, BINS + 1)
    number = np.bincount(np.searchsorted(edges[1:-1], score), minlength=BINS)  # as calibration_curve bins
    used = number > 0
    fraction, mean = calibration_curve(real, score, n_bins=BINS)
    columns = (np.round(edges[:-1], 1)[used], number[used], mean, fraction)
    # Where one real source in a hundred is lost.
    lenient = np.sort(score[real])[int(0.01 * real.sum())]
    return {
        "auc": float(roc_auc_score(real, score)),
        "false_positive_at_1_percent": float(np.mean(score[~real] >= lenient)),
        "false_positive": float(np.mean(score[~real] >= 0.5)),
        "false_negative": float(np.mean(score[real] < 0.5)),
        "reliability": [list(row) for row in zip(*(values.tolist() for values in columns), strict=True)],
    }
