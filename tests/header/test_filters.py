"""Names of filters: bands, what is none, and what could be two things."""

import pytest

from nightsift.header import filters
from nightsift.header.filters import identify, is_empty_filter
from nightsift.parameters import BANDS
from nightsift.passbands import CATALOG_PASSBANDS, PASSBANDS

SPELLINGS = {
    "U": "U|Uj|Bessell U|U_Bes 362_60|RGO U|Johnson-U|Johnson U",
    "B": "B|Bj|BJ|Bessell-B|BessellB|B_Bes 440_100|B/123_ESO878|Johnson B|johnson_b|4: B"
    "|Filter 3: B|B Johnson 9|B Mould",
    "V": "V|V Johnson|BessellV|V_Bes 530_80|V/89_ESO843|V Harris c6004|V_BESS|Slot 3: V|[3] V|V (3)|V,clear|V+Open|V;2",
    "R": "R|Rc|RC|R_c Cousins|Bessell R|R_BESS|R Harris k1004|Rc/162_ESO844|R_SPECIAL|Cousins R"
    "|CousinsR|3 - R|Clear/R|Kron R",
    "I": "I|Ic|IC|IJ|Cousins I|I/203_ESO879|bessell i|I_BESS|I Nearly-Mould k1005|Ic Cousins",
    "u": "u|u'|up|SDSS u|Su|U SDSS|uSDSS|u.MP9302|skymapper u",
    "g": "g|g'|gp|PS1 g|g_SDSS|SDSS-G|SDSS g'|Sg|SG|ZTF_g|sloan_g|sdssg|gSDSS|HSC-G|g.00000"
    "|g DECam SDSS c0001 4720.0 1520.0",
    "r": "r|r'|rp|SDSS-R|SDSS-R+1|sdss_r|Sloan r|3: Sloan r|ZTF_r|r.MP9602|r.00000|r'_SDSS 625_140"
    "|r_G0303|HSC-R2|r prime"
    "|r_prime|Sloan-Gunn r|Sloan r'|PS1_r|Pan-STARRS r|r SDSS k1018|sdssr|Astrodon Photometric Sloan r|r 103|r#2|rPS1",
    "i": "i|i'|ip|i_SDSS|Si|HSC-I2|Sloan i'|i.MP9702|ps1 i|iSDSS|sloan_i",
    "z": "z|z'|zs|Z|SDSS Z|Sz|z DECam SDSS c0004 9260.0 1520.0|z_SDSS|PS1_z",
    "y": "y|Y|PS1 y|HSC-Y|Y DECam c0005 10095.0 1130.0",
    "G": "Gaia G|gaia_g",
    "BP": "BP|Gbp|Gaia BP|G_BP|gaia bp",
    "RP": "RP|Grp|Gaia RP|G_RP",
    "J": "J|2MASS J|UKIDSS J",
    "H": "H|2MASS H|VISTA H",
    "Ks": "Ks|K|2MASS Ks|Kshort|2MASS K|VHS Ks",
}
NOT_BANDS = {
    "none": "Clear|clear|CLEAR|L|Lum|Luminance|C|CV|CR|None|open|open1-6|Open 1|Empty|empty 5|w|white"
    "|N/A|unfiltered|air"
    "|Filter_L|1: L|UV/IR cut|Clear,Open|0",
    "narrow": "Ha|HA|H-alpha|H_Alpha|Halpha|Halpha-6566|Ha H-alpha k1009|Ha_G0310|Ha.MP9603|OIII|O-III"
    "|[OIII]|O3|SII|S2"
    "|S-II|[SII]|NII|H-beta|Hb|HeII|5: OIII|656nm|UHC|L-eXtreme|Ha 3nm",
    "rgb": "Red|Green|Blue|red|TR|TG|TB",
    "unknown": "3|F606W|VR Bernstein|z_s|N964 DECam c0008|OG515+KG3|gri|RGB|b_HIGH|V,R|Washington C|D51|something|x",
}


@pytest.mark.parametrize(("band", "name"), [(band, name) for band in SPELLINGS for name in SPELLINGS[band].split("|")])
def test_spellings_of_bands(band, name):
    assert identify(name) == filters.Name(band, "band")
    assert identify(f"  {name} ").band == band


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in NOT_BANDS for name in NOT_BANDS[kind].split("|")])
def test_names_that_are_no_band(kind, name):
    found = identify(name)
    assert (found.band, found.kind) == (None, kind)
    assert found.note


@pytest.mark.parametrize(
    ("name", "wheel", "observer", "band", "word"),
    [
        ("G", False, "", "G", "Gaia's G"),
        ("G", True, "", None, "RGB"),
        ("g", True, "", "g", ""),
        ("R", False, "", "R", ""),
        ("R", True, "", "R", "may be a colour"),
        ("B", True, "", "B", "may be a colour"),
        ("V", True, "", "V", ""),
        ("H", False, "", "H", ""),
        ("H", True, "", None, "H-alpha"),
        ("S", True, "", None, "S II"),
        ("O", True, "", None, "O III"),
        ("v", False, "", "V", "Johnson"),
        ("b", False, "", "B", "Johnson"),
        ("v", False, "SkyMapper Imager", None, "violet"),
        ("c", False, "", None, "unfiltered"),
        ("c", False, "ATLAS-HKO", None, "cyan"),
        ("o", False, "ATLAS-HKO", None, "orange"),
        ("q", False, "MeerLICHT", None, "wide band"),
    ],
)
def test_names_that_could_be_two_things(name, wheel, observer, band, word):
    found = identify(name, wheel, observer)
    assert found.band == band
    assert word in found.note
    assert bool(word) == bool(found.note)


def test_empty_filters():
    assert is_empty_filter("Clear 2")
    assert not is_empty_filter("V")


def test_passbands():
    assert set(PASSBANDS) == set(BANDS)
    assert set(CATALOG_PASSBANDS) == {*BANDS, "BT", "VT"}
    for name, passband in CATALOG_PASSBANDS.items():
        assert passband.catalog_bands[0] == name
        assert all(part in CATALOG_PASSBANDS for color in passband.colors for part in color.split("-"))
    assert PASSBANDS["V"].catalog_bands[:4] == ("V", "VT", "BP", "r")
