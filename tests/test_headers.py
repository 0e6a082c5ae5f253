"""Header spellings, and solutions that astropy cannot read as they are."""

import warnings

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from nightsift import headers

START = 57182.0 + (2 * 3600 + 29 * 60 + 16) / 86400.0
MID = START + 5.0 / 86400.0


def make(cards):
    return fits.Header([(key, *value) if isinstance(value, tuple) else (key, value) for key, value in cards.items()])


@pytest.mark.parametrize(
    ("cards", "expected"),
    [
        ({"DATE-OBS": "2015-06-09T02:29:16"}, MID),
        ({"DATE-OBS": "2015-06-09T02:29:16.000Z"}, MID),
        ({"DATE-OBS": "2015-06-09 02:29:16"}, MID),
        ({"DATE-OBS": "2015-06-09T02-29-16"}, MID),
        ({"DATE-OBS": "2015-06-09T04:29:16+02:00"}, MID),
        ({"DATE-OBS": "2015/06/09T02:29:16"}, MID),
        ({"DATE-OBS": "2015-06-09", "TIME-OBS": "02:29:16"}, MID),
        ({"DATE-OBS": "2015-06-09", "UTSTART": "02:29:16.0"}, MID),
        ({"DATE-OBS": "2015-06-09", "UT": "02:29:16"}, MID),
        ({"DATE-OBS": "2015-06-09", "UT": "2 29 16"}, MID),
        ({"DATE-OBS": "2015-06-09", "UTC-OBS": "02:29:16"}, MID),
        ({"DATE-OBS": "2015-06-09", "TIME-OBS": 8956.0}, MID),
        ({"DATE-OBS": "09/06/15", "TIME-OBS": "02:29:16"}, MID),
        ({"DATE-OBS": "09/06/2015", "TIME-OBS": "02:29:16"}, MID),
        ({"DATEOBS": "2015-06-09T02:29:16"}, MID),
        ({"DATE-BEG": "2015-06-09T02:29:16"}, MID),
        ({"MJD-OBS": START}, MID),
        ({"MJD-OBS": f"{START:.9f}"}, MID),
        ({"MJD": f"{START:.9f}"}, MID),
        ({"JD": START + 2400000.5}, MID),
        ({"JD-OBS": START + 2400000.5}, MID),
        ({"EXPSTART": START}, MID),
        ({"MJD-MID": MID, "DATE-OBS": "2015-06-09T02:29:16"}, MID),
        ({"DATE-AVG": "2015-06-09T02:29:21"}, MID),
        ({"DATE-OBS": "2015-06-09T02:30:23.184", "TIMESYS": "TT"}, MID),
        ({"DATE-OBS": "2015-06-09T02:29:51", "TIMESYS": "TAI"}, MID),
        ({"DATE": "2015-06-09T02:29:16"}, None),
        ({"DATE-OBS": "2015-06-09"}, None),
        ({"DATE-OBS": "1970-01-01T00:00:00", "MJD-OBS": 0.0}, None),
        ({"DATE-OBS": "2015-13-41T02:29:16"}, None),
        ({"DATE-OBS": "yesterday"}, None),
        ({}, None),
    ],
)
def test_time_is_the_middle_of_the_exposure(cards, expected):
    mjd, notes = headers.read_time(make(cards), 10.0)
    if expected is None:
        assert mjd is None
        assert notes
    else:
        assert mjd == pytest.approx(expected, abs=0.01 / 86400.0)
        assert not notes


def test_times_that_disagree_are_told():
    _, notes = headers.read_time(make({"DATE-OBS": "2015-06-09T02:29:16", "MJD-OBS": START + 0.04}), 10.0)
    assert "differ" in notes[0]


@pytest.mark.parametrize(
    ("cards", "expected"),
    [
        ({"EXPTIME": 10.0}, 10.0),
        ({"EXPOSURE": "10.0"}, 10.0),
        ({"EXPTIME": "10 s"}, 10.0),
        ({"EXP_TIME": 10}, 10.0),
        ({"ITIME": 10}, 10.0),
        ({"ELAPTIME": 10}, 10.0),
        ({"TOTEXP": 10}, 10.0),
        ({"EXPOSURE": (10000.0, "[ms] exposure")}, 10.0),
        ({"EXPTIME": 0.0}, None),
        ({"EXPTIME": "none"}, None),
        ({}, None),
    ],
)
def test_exposure(cards, expected):
    assert headers.read_exptime(make(cards))[0] == expected


@pytest.mark.parametrize(
    ("cards", "expected"),
    [
        ({"GAIN": 1.5}, 1.5),
        ({"GAIN": "1.5 e/ADU"}, 1.5),
        ({"GAIN": 139, "EGAIN": 1.2}, 1.2),
        ({"GAIN": 139, "INSTRUME": "ZWO ASI1600MM"}, None),
        ({"CCD_GAIN": 2.0}, 2.0),
        ({"CCDGAIN": 2.0}, 2.0),
        ({"GAINEFF": 2.0}, 2.0),
        ({"GAIN": (0.5, "ADU/electron")}, 2.0),
        ({"GAIN": -1.0}, None),
        ({"GAIN": 0}, None),
        ({"GAIN": 1e5}, None),
        ({"GAIN": True}, None),
        ({}, None),
    ],
)
def test_gain(cards, expected):
    assert headers.read_gain(make(cards))[0] == expected


@pytest.mark.parametrize(
    ("name", "band"),
    [
        ("R", "R"),
        ("r", "r"),
        ("Rc", "R"),
        ("sdss_r", "r"),
        ("SDSS-R", "r"),
        ("r'", "r"),
        ("rp", "r"),
        ("Bessell R", "R"),
        ("Sloan r", "r"),
        ("ZTF_r", "r"),
        ("PS1 g", "g"),
        ("Johnson V", "V"),
        ("Cousins I", "I"),
        ("B", "B"),
        ("i", "i"),
        ("g_SDSS", "g"),
        ("SDSS g'", "g"),
        ("Sg", "g"),
        ("r.MP9602", "r"),
        ("Bessell-B", "B"),
        ("V Johnson", "V"),
        ("SDSS-R+1", "r"),
        ("2MASS Ks", "Ks"),
        ("K", "Ks"),
        ("Gaia BP", "BP"),
        ("r DECam SDSS c0002 6415.0", "r"),
        ("BessellV", "V"),
        ("ip", "i"),
        ("z_s", None),
        ("Clear", None),
        ("L", None),
        ("Ha", None),
        ("OIII", None),
    ],
)
def test_filter_names(name, band):
    assert headers.canonical_filter(name) == band


def test_filter_wheels_pass_over_the_empty_one():
    assert headers.read_filter(make({"FILTER1": "Clear", "FILTER2": "V"}))[:2] == ("V", "V")
    band, name, notes = headers.read_filter(make({"FILTER": "Luminance"}))
    assert (band, name) == (None, "Luminance")
    assert "unfiltered" in notes[0]
    assert "not known" in headers.read_filter(make({"FILTER": "Ha"}))[2][0]


@pytest.mark.parametrize(
    "cards",
    [
        {"RA": 150.0, "DEC": -30.5},
        {"RA": "10:00:00", "DEC": "-30:30:00"},
        {"OBJCTRA": "10 00 00.0", "OBJCTDEC": "-30 30 00"},
        {"RA": (10.0, "[hours] pointing"), "DEC": -30.5},
        {"CRVAL1": 150.0, "CRVAL2": -30.5},
    ],
)
def test_pointing(cards):
    assert headers.read_pointing(make(cards)) == pytest.approx((150.0, -30.5))


SHAPE = (200, 300)
GOOD = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.0, "CRVAL2": 20.0, "CRPIX1": 150.0, "CRPIX2": 100.0}
CD = {"CD1_1": -3e-4, "CD1_2": 1e-5, "CD2_1": 1e-5, "CD2_2": 3e-4}
SIP = {"A_ORDER": 2, "A_2_0": 1e-6, "B_ORDER": 2, "B_0_2": -2e-6}
PV = {"PV1_1": 1.0, "PV1_5": 1e-3, "PV2_1": 1.0, "PV2_6": 2e-3}


@pytest.mark.parametrize(
    ("broken", "sound"),
    [
        (CD, CD),
        ({key: str(value) for key, value in CD.items()}, CD),
        (CD | {"CRVAL1": "150.0"}, CD),
        (CD | {"CTYPE2": "DEC---TAN"}, CD),
        (CD | {"CDELT1": -1.0, "CDELT2": 1.0, "CROTA2": 30.0}, CD),
        (CD | {"PC1_1": 1.0, "PC2_2": 1.0}, CD),
        (CD | {"RADECSYS": "FK5", "EQUINOX": "J2000.0"}, CD | {"RADESYS": "FK5", "EQUINOX": 2000.0}),
        (CD | {"WCSAXES": 2.0, "LTM1_1": 1.0, "WAT0_001": "system=image", "WCSDIM": 2}, CD),
        (CD | SIP, CD | SIP | {"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP"}),
        (CD | {"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP"}, CD),
        (CD | {"A_ORDER": 2, "A_2_0": 1e-6}, CD),
        (CD | PV, CD | PV | {"CTYPE1": "RA---TPV", "CTYPE2": "DEC--TPV"}),
        (CD | {"PV1_1": 0.0, "PV1_2": 0.0}, CD),
        ({"CDELT1": -3e-4, "CDELT2": 3e-4, "CROTA2": 20.0}, {"CDELT1": -3e-4, "CDELT2": 3e-4, "CROTA2": 20.0}),
        ({"CDELT1": -3e-4, "CDELT2": 3e-4, "PC001001": 1.0, "PC002002": 1.0}, {"CDELT1": -3e-4, "CDELT2": 3e-4}),
    ],
)
def test_repaired_solutions_agree_with_the_sound_spelling(broken, sound):
    cards, _ = headers.repair_wcs(make(GOOD | broken), SHAPE)
    x, y = np.array([0.0, 299.0, 140.0]), np.array([0.0, 199.0, 20.0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = WCS(make(GOOD | sound)).all_pix2world(x, y, 0)
    assert np.allclose(WCS(cards).all_pix2world(x, y, 0), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("cards", "word"),
    [
        ({}, "no WCS"),
        (GOOD, "missing"),
        (GOOD | {key: 0.0 for key in CD}, "scale"),
        (GOOD | {key: 1000 * value for key, value in CD.items()}, "scale"),
        (GOOD | CD | {"CTYPE1": "RA---TNX", "CTYPE2": "DEC--TNX"}, "TNX"),
        (GOOD | CD | {"CTYPE1": "RA---ZPX", "CTYPE2": "DEC--ZPX"}, "ZPX"),
        (GOOD | CD | {"CTYPE1": "LINEAR", "CTYPE2": "LINEAR"}, "celestial"),
        (GOOD | CD | {"EQUINOX": 1950.0}, "1950"),
        (GOOD | CD | {"CRVAL1": "NaN"}, "NaN"),
    ],
)
def test_solutions_refused(cards, word):
    found, notes = headers.repair_wcs(make(cards), SHAPE)
    assert found is None
    assert any(word in note for note in notes)
