"""What a campaign's models of real and bogus were trained on, and how well they do."""

from __future__ import annotations

import numpy as np

from nightsift.transients.realbogus import MEASURES

COUNTS = ("own_real", "own_bogus", "package_real", "package_bogus")
RATES = ("auc", "false_positive", "false_negative", "false_positive_at_1_percent")
BIN = ("score_from", "number", "mean_score", "real_share")
MEANING = {
    "trained_on": "image: the package's examples and the image's own; package: the package's alone",
    "own_real": "fakes of the image that were found: real examples, each scored by a model that did not see it",
    "own_bogus": "bogus examples of the image, likewise",
    "package_real": "real examples that come with the package",
    "package_bogus": "bogus examples that come with the package",
    "auc": "area under the ROC curve, of the image's own examples",
    "false_positive": "fraction of bogus examples with a score of 0.5 or more",
    "false_negative": "fraction of real examples with a score below 0.5",
    "false_positive_at_1_percent": "fraction of bogus examples kept where one real in a hundred is lost",
    "reliability": "by bins of score: lower edge, examples, their mean score, fraction of real ones",
}


def campaign_card(cards: dict[str, dict]) -> dict:
    """Return the model card of a campaign.

    Parameters
    ----------
    cards : dict
        ``card`` of `nightsift.transients.realbogus.Model` by image; empty where an image has no model.

    Returns
    -------
    dict
        ``measures`` and ``meaning`` (text by name), ``campaign`` (totals: images by what they were trained on, counts,
        rates over the examples of all images, median and lowest area under the ROC curve of an image, reliability)
        and ``images`` (by name).
    """
    known = {name: card for name, card in sorted(cards.items()) if card}
    return {
        "measures": dict(MEASURES),
        "meaning": MEANING,
        "campaign": _total(list(known.values()), len(cards)),
        "images": {name: _entry(card) for name, card in known.items()},
    }


def _entry(card: dict) -> dict:
    entry = {key: card.get(key) for key in ("trained_on", *COUNTS, *RATES)}
    return entry | {"reliability": [dict(zip(BIN, row, strict=True)) for row in card.get("reliability") or ()]}


def _total(cards: list[dict], n_images: int) -> dict:
    areas = [card["auc"] for card in cards if card.get("auc") is not None]
    counts = {key: sum(card[key] for card in cards) for key in ("own_real", "own_bogus")}
    return {
        "n_images": n_images,
        "n_models": len(cards),
        "trained_on": {kind: sum(card["trained_on"] == kind for card in cards) for kind in ("image", "package")},
        **counts,
        "auc_median": float(np.median(areas)) if areas else None,
        "auc_lowest": float(min(areas)) if areas else None,
        "false_positive": _rate(cards, "false_positive", "own_bogus"),
        "false_negative": _rate(cards, "false_negative", "own_real"),
        "reliability": [dict(zip(BIN, row, strict=True)) for row in pooled_reliability(cards)],
    }


def _rate(cards: list[dict], rate: str, count: str) -> float | None:
    """Rate over the examples of all images that have one."""
    known = [(card[rate] * card[count], card[count]) for card in cards if card.get(rate) is not None]
    wrong, number = (sum(part) for part in zip(*known, strict=True)) if known else (0, 0)
    return wrong / number if number else None


def pooled_reliability(cards: list[dict]) -> list[tuple]:
    """Return the bins of reliability (`BIN`) of the examples of all images."""
    bins: dict[float, np.ndarray] = {}
    for low, number, score, real in (row for card in cards for row in card.get("reliability") or ()):
        total = bins.setdefault(low, np.zeros(3))
        total += number * np.array([1.0, score, real])
    return [(low, int(n), float(score / n), float(real / n)) for low, (n, score, real) in sorted(bins.items())]


def line(card: dict) -> str:
    """Return in a few words what a model was trained on and how well it does; empty where there is none."""
    if not card:
        return ""
    own = f"{card['own_real']} real, {card['own_bogus']} bogus"
    words = f"trained on {own} of this image" if card["trained_on"] == "image" else f"the package's, tried on {own}"
    return words if card.get("auc") is None else f"{words}: ROC area {card['auc']:.3f}"
