"""The names of filters, and what goes with each of them.

Rules where a name could mean two things:

- Upper and lower case tell the systems apart where nothing else does: ``R`` is Cousins', ``r`` Sloan's. A system beside
  the letter says more than its case: ``SDSS-R`` is Sloan's, ``bessell r`` Cousins'. ``b`` and ``v`` alone, which Sloan
  does not have, are Johnson's, with a warning.
- ``G`` alone is Gaia's, with a warning; of a colour wheel it is the green of RGB, which is no band.
- ``R`` and ``B`` of a colour wheel are taken for Cousins' and Johnson's, with a warning; ``S``, ``H`` and ``O`` there
  are lines. The words ``Red``, ``Green`` and ``Blue`` are of RGB everywhere.
- ``c`` and ``o`` are cyan and orange where ATLAS observed; elsewhere ``c`` is clear. ``v`` of SkyMapper is its violet.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from nightsift.parameters import BANDS

# Names that stand for a band as they are, case and all.
ALIASES = {name: name for name in BANDS} | {
    **{"K": "Ks", "KS": "Ks", "ks": "Ks", "Kshort": "Ks", "K_s": "Ks", "K-short": "Ks", "Y": "y", "Z": "z"},
    **{"Uj": "U", "Bj": "B", "Vj": "V", "Rj": "R", "Ij": "I", "UJ": "U", "BJ": "B", "VJ": "V"},
    **{"Rc": "R", "Ic": "I", "RC": "R", "IC": "I", "Bc": "B", "Vc": "V", "RJ": "R", "IJ": "I"},
    **{"up": "u", "gp": "g", "rp": "r", "ip": "i", "zp": "z", "zs": "z", "yp": "y"},
    **{"Su": "u", "Sg": "g", "Sr": "r", "Si": "i", "Sz": "z", "SU": "u", "SG": "g", "SR": "r", "SI": "i", "SZ": "z"},
    **{"su": "u", "sg": "g", "sr": "r", "si": "i", "sz": "z"},
    **{"Gbp": "BP", "Grp": "RP", "bp": "BP", "G_BP": "BP", "G_RP": "RP"},
}


@dataclass(frozen=True)
class System:
    """A photometric system: the words that name it, its letters, and what the letters stand for."""

    words: str
    letters: dict[str, str]


def _same(letters: str) -> dict[str, str]:
    return {letter.lower(): letter for letter in letters}


SYSTEMS = (
    System(
        "sdss sdsss sloan gunn ps ps1 panstarrs pan starrs ztf des decam skymapper sm atlas lsst lsstcam megacam mp"
        " gen2 hsc",
        _same("ugrizy"),
    ),
    System(
        "johnson john bessell bessel bess bes cousins cousin cous kron kc jc harris kpno landolt ubvri mould nearly"
        " rgo",
        _same("UBVRI") | {"rc": "R", "ic": "I", "rj": "R", "ij": "I", "bj": "B", "vj": "V", "uj": "U"},
    ),
    System("2mass vhs vista vircam ukidss mko ukirt", {"j": "J", "h": "H", "k": "Ks", "ks": "Ks"}),
    System("gaia", {"g": "G", "bp": "BP", "rp": "RP", "gbp": "BP", "grp": "RP", "gg": "G"}),
)
_PADDING = {
    "bb",
    "filter",
    "band",
    "slot",
    "position",
    "pos",
    "photometric",
    "astrodon",
    "baader",
    "chroma",
    "new",
    "nm",
}
_CODE = re.compile(r"^(#?\d[\dx.]*|[a-z]{0,4}\d{2,5}[a-z]?\d*|dec|special)$")

EMPTY = {"clear", "none", "open", "empty", "n/a", "na", "no", "nofilter", "no filter", "no_filter", "air", "null", "0"}
EMPTY |= {"white", "w", "c", "cl", "l", "lum", "luminance", "lumi", "unfiltered", "cv", "cr", "cbb", "blank", "clr"}
EMPTY |= {"undefined", "unknown", "glass", "uv/ir cut", "uv/ir", "uvir", "ir cut", "ir-cut", "bg", "transparent", "-"}

# What is a filter but none of the bands, by what its name looks like.
NARROW = (
    ("H-alpha", re.compile(r"(?<![a-z])h[ _\-]?(?:a|ar|alpha|α)(?![a-z])|(?<!\d)656\d?(?!\d)", re.IGNORECASE)),
    ("H-beta", re.compile(r"(?<![a-z])h[ _\-]?(?:b|beta|β)(?![a-z])", re.IGNORECASE)),
    ("[O III]", re.compile(r"(?<![a-z])\[?o[ _\-]?(?:iii|3)\]?(?![a-z])", re.IGNORECASE)),
    ("[S II]", re.compile(r"(?<![a-z])\[?s[ _\-]?(?:ii|2)\]?(?![a-z])", re.IGNORECASE)),
    ("[N II]", re.compile(r"(?<![a-z])\[?n[ _\-]?(?:ii|2)\]?(?![a-z])", re.IGNORECASE)),
    ("He II", re.compile(r"(?<![a-z])he[ _\-]?(?:ii|2)(?![a-z])", re.IGNORECASE)),
    ("Br-gamma", re.compile(r"(?<![a-z])br[ _\-]?(?:g|gamma)(?![a-z])", re.IGNORECASE)),
    (
        "several lines",
        re.compile(r"(?<![a-z])(?:uhc|cls|l-?e?xtreme|l-?enhance|alp-?t|duo\w*)(?![a-z])", re.IGNORECASE),
    ),
)
_COLOR = re.compile(r"^(red|green|blue|tr|tg|tb)$", re.IGNORECASE)
_WHEEL_LINES = {"S": "[S II]", "H": "H-alpha", "O": "[O III]"}


@dataclass(frozen=True)
class Name:
    """What a filter's name says.

    Attributes
    ----------
    band : str or None
        One of `nightsift.parameters.BANDS`.
    kind : str
        ``band``, ``none`` (no filter, or one that passes all visible light), ``narrow``, ``rgb``, ``other`` (a band
        that is none of these) or ``unknown``.
    note : str
        What to say of it; empty for a band without doubt.
    """

    band: str | None
    kind: str
    note: str = ""


def identify(name: str, color_wheel: bool = False, observer: str = "") -> Name:
    """Return what a filter's name says.

    Parameters
    ----------
    name : str
    color_wheel : bool
        Whether it is a camera for pictures, whose wheel holds L, R, G and B.
    observer : str
        Telescope, instrument and survey, for names that only some give a meaning of their own.
    """
    text = _bare(name)
    special = _ambiguous(text, color_wheel, observer.lower())
    if special:
        return special
    if is_empty_filter(text):
        return Name(None, "none", f"unfiltered image (filter {name!r})")
    if text in ALIASES:
        return Name(ALIASES[text], "band")
    for line, pattern in NARROW:
        if pattern.search(text):
            return Name(None, "narrow", f"filter {name!r} is a narrow band ({line}), not known as a band of catalogues")
    parts = [part for part in (part.strip() for part in re.split(r"[,;+|&/]", text)) if part]
    if len(parts) > 1:
        return _combined(name, parts, color_wheel, observer)
    band = _from_words(text)
    if band:
        return Name(band, "band")
    if text.isdigit():
        return Name(None, "unknown", f"filter {name!r} is not known: a number of a wheel's slot")
    return Name(None, "unknown", f"filter {name!r} is not known")


def differ(band: str | None, name: str, other_band: str | None, other_name: str) -> bool:
    """Tell whether two images have different filters, by their bands (None if not known) and names ("" for none)."""
    if band and other_band:
        return band != other_band
    if not _bare(name) or not _bare(other_name):
        return False
    if is_empty_filter(name) and is_empty_filter(other_name):
        return False
    return _bare(name).lower() != _bare(other_name).lower()


def _bare(name) -> str:
    """Return a name without quotes, doubled spaces and the number of the wheel's slot before or behind it."""
    text = re.sub(r"\s+", " ", str(name)).strip().strip('"').strip()
    text = re.sub(
        r"^(?:slot|pos(?:ition)?|filter|f)?[ _#]*[\[(]?\d{1,2}[\])]?\s*[:;=)\]\-]\s*(?=\S)", "", text, flags=re.I
    )
    text = re.sub(r"^\[\d{1,2}\]\s*|^\d{1,2} (?=[A-Za-z])|\s*\(\d{1,2}\)$", "", text)
    text = re.sub(r"^filter[ _\-]+(?=\S)", "", text, flags=re.I)
    return text.strip()


def _ambiguous(text: str, color_wheel: bool, observer: str) -> Name | None:
    if text in ("c", "o", "cyan", "orange") and ("atlas" in observer or len(text) > 1):
        color = {"c": "cyan", "o": "orange"}.get(text, text)
        return Name(None, "other", f"filter {text!r} is ATLAS's {color}, not known as a band of catalogues")
    if text == "v" and "skymapper" in observer:
        return Name(None, "other", "filter 'v' is SkyMapper's violet, not known as a band of catalogues")
    if text in ("b", "v"):
        return Name(text.upper(), "band", f"filter {text!r} is taken for Johnson's {text.upper()}")
    if text == "q" and re.search("meerlicht|blackgem|^ml|^bg", observer):
        return Name(None, "other", "filter 'q' is MeerLICHT's wide band, not known as a band of catalogues")
    if _COLOR.match(text) or (color_wheel and text == "G"):
        return Name(None, "rgb", f"filter {text!r} is a colour of RGB, not known as a band of catalogues")
    if color_wheel and text in _WHEEL_LINES:
        return Name(None, "narrow", f"filter {text!r} of a colour wheel is taken for {_WHEEL_LINES[text]}")
    if color_wheel and text in ("R", "B"):
        return Name(text, "band", f"filter {text!r} may be a colour of RGB: it is taken for the band {text}")
    if text == "G":
        return Name("G", "band", "filter 'G' is taken for Gaia's G, not for a green of RGB nor Sloan's g")
    return None


def _combined(name: str, parts: list[str], color_wheel: bool, observer: str) -> Name:
    found = [identify(part, color_wheel, observer) for part in parts if not all(map(_is_code, _words(part)))]
    full = [item for item in found if item.kind != "none"]
    if found and not full:
        return Name(None, "none", f"unfiltered image (filter {name!r})")
    bands = {item.band for item in full}
    if len(bands) == 1 and None not in bands:
        return Name(bands.pop(), "band", next((item.note for item in full if item.note), ""))
    whole = _from_words(" ".join(parts))
    return Name(whole, "band") if whole else Name(None, "unknown", f"filter {name!r} is not known")


def _words(text: str) -> list[str]:
    """Split a name into lower-case words; a prime behind a letter belongs to Sloan's."""
    text = re.sub(r"\b([ugrizyUGRIZY])\s*['`′’]", r"\1 sloan ", text)
    text = re.sub(r"\b([ugriz])[ _\-]?(?:prime|_p\b|p1)\b", r"\1 sloan", text)
    text = re.sub(r"(?i)pan-starrs", "panstarrs", re.sub(r"\b([RI])_c\b", r"\1c", text))
    return [word for word in re.split(r"[ _\-:#]+|(?<=[A-Za-z'])\.|\.(?=[A-Za-z])", text) if word] or [""]


def _is_code(word: str) -> bool:
    return bool(_CODE.match(word.lower()))


def _from_words(text: str) -> str | None:
    """Return the band of a name made of a letter, perhaps the word of a system, and codes of makers."""
    systems, letters = [], []
    for word in _words(text):
        lower = word.lower()
        system = next((item for item in SYSTEMS if lower in item.words.split()), None)
        if system:
            systems.append(system)
        elif word in ALIASES or any(lower in item.letters for item in SYSTEMS):
            letters.append(word)
        elif glued := _unglue(lower):
            systems.append(glued[0])
            letters.append(glued[1])
        elif re.match(r"^[ugrizy]2$", lower):
            letters.append(word[0])
        elif lower not in _PADDING and not _is_code(word):
            return None
    if len(letters) != 1:
        return None
    for system in systems:
        if letters[0].lower() in system.letters:
            return system.letters[letters[0].lower()]
    return None if systems else ALIASES.get(letters[0])


def _unglue(word: str) -> tuple[System, str] | None:
    """Take apart such as ``sdssr`` and ``rsdss``."""
    for system in SYSTEMS:
        for name in system.words.split():
            for letter in system.letters:
                if len(name) > 1 and word in (name + letter, letter + name):
                    return system, letter
    return None


def is_empty_filter(name: str) -> bool:
    """Return whether a filter's name says that there is none, or only what passes all visible light."""
    text = str(name).strip().lower()
    return text in EMPTY or re.sub(r"[ _\-\d]+$", "", text) in EMPTY
