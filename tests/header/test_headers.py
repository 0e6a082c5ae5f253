"""Header spellings, and solutions that astropy cannot read as they are."""

import re
import warnings

import numpy as np
import pytest
from astropy.coordinates import FK4, FK5, FK4NoETerms, SkyCoord
from astropy.io import fits
from astropy.wcs import WCS
from keyword_headers import BROKEN, BROKEN_CARDS, CD, MJD, PLACE, SHAPE, WRITERS
from workflows import ROOT

from nightsift.header import keywords, readers
from nightsift.header.header import Overrides, described
from nightsift.header.times import read_time
from nightsift.header.wcs_cards import repair_wcs
from nightsift.io.fits import read_image

SURVEYS = ROOT.parent / "shared" / "data" / "real" / "surveys"
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
    mjd, notes = read_time(make(cards), 10.0)
    if expected is None:
        assert mjd is None
        assert notes
    else:
        assert mjd == pytest.approx(expected, abs=0.01 / 86400.0)
        assert not notes


def test_times_that_disagree_are_told():
    _, notes = read_time(make({"DATE-OBS": "2015-06-09T02:29:16", "MJD-OBS": START + 0.04}), 10.0)
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
        ({"EXPOSURE": (50.0, "Exposure time minutes")}, 3000.0),
        ({"EXPOSURE": (50.0, "exposure in min")}, 3000.0),
        ({"EXPOSURE": (50.0, "exp. time, min.")}, 3000.0),
        ({"EXPOSURE": (50.0, "Exposure time (minute)")}, 3000.0),
        ({"EXPTIME": (50.0, "minute(s)")}, 3000.0),
        ({"EXPTIME": "50 mins"}, 3000.0),
        ({"EXPTIME": "50min."}, 3000.0),
        ({"EXPTIME": ("50 s", "may be given in minutes")}, 50.0),
        ({"EXPTIME": (50.0, "min exposure time")}, 50.0),
        ({"EXPTIME": (50.0, "minimum exposure time")}, 50.0),
        ({"EXPTIME": (50.0, "[s] exposure, some minutes at most")}, 50.0),
        ({"EXPTIME": (0.5, "integration time (hours)")}, 1800.0),
        ({"EXPOSURE": (0.02, "[d] time on source")}, 1728.0),
        ({"EXP": 30.0}, 30.0),
        ({"EXP": (30, "exposure number")}, None),
        ({"EXPTIME": 0.0}, None),
        ({"EXPTIME": "none"}, None),
        ({}, None),
    ],
)
def test_exposure(cards, expected):
    assert readers.read_exptime(make(cards))[0] == expected


@pytest.mark.parametrize(
    "words",
    ["end of exposure", "UTC at exposure end", "end-of-exposure", "shutter closed", "date of obs. (ends)"],
)
@pytest.mark.parametrize("apart", [False, True])
def test_a_time_of_the_end_is_that(words, apart):
    cards = {"DATE-OBS": ("2015-06-09T02:29:26", words)}
    if apart:
        cards = {"DATE-OBS": ("2015-06-09", words), "UT": "02:29:26"}
    assert read_time(make(cards), 10.0)[0] == pytest.approx(MID, abs=0.01 / 86400.0)


def test_a_word_of_the_end_in_passing_changes_nothing():
    for words in ("start of exposure, for the end see DATE-END", "time stamp of the back-end", "weekend run"):
        assert read_time(make({"DATE-OBS": ("2015-06-09T02:29:16", words)}), 10.0)[0] == pytest.approx(MID, abs=1e-7)


@pytest.mark.parametrize(
    ("cards", "expected"),
    [
        ({"IM_SCALE": 0.5}, 0.5),
        ({"PIXSCALE": (-0.5, "[arcsec/pixel]")}, 0.5),
        ({"SCALE": (1e-4, "deg/pixel")}, 0.36),
        ({"SCALE": (1e-4, "arcsec, not degrees")}, None),
        ({"PLTSCALE": (67.2, "Plate Scale arcsec per mm"), "XPIXELSZ": 25.28445}, 1.699115),
        ({"PLTSCALE": (67.2, "Plate Scale arcsec per mm")}, None),
        ({"XPIXSZ": 9.0, "FOCALLEN": 2000.0}, 0.9281925),
    ],
)
def test_pixel_scale(cards, expected):
    assert readers.read_scale(make(cards))[0] == (expected and pytest.approx(expected))


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
    assert readers.read_gain(make(cards))[0] == expected


def test_filter_wheels_pass_over_the_empty_one():
    assert readers.read_filter(make({"FILTER1": "Clear", "FILTER2": "V"}))[:2] == ("V", "V")
    band, name, notes = readers.read_filter(make({"FILTER": "Luminance"}))
    assert (band, name) == (None, "Luminance")
    assert "unfiltered" in notes[0]
    assert "not known" in readers.read_filter(make({"FILTER": "Ha"}))[2][0]


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
    assert readers.read_pointing(make(cards))[:2] == pytest.approx((150.0, -30.5))


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
    cards, _ = repair_wcs(make(PLACE | broken), SHAPE)
    x, y = np.array([0.0, 299.0, 140.0]), np.array([0.0, 199.0, 20.0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = WCS(make(PLACE | sound)).all_pix2world(x, y, 0)
    assert np.allclose(WCS(cards).all_pix2world(x, y, 0), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("cards", "word"),
    [
        ({}, "no WCS"),
        (PLACE, "missing"),
        (PLACE | {key: 0.0 for key in CD}, "scale"),
        (PLACE | {key: 1000 * value for key, value in CD.items()}, "scale"),
        (PLACE | CD | {"CTYPE1": "RA---TNX", "CTYPE2": "DEC--TNX"}, "TNX"),
        (PLACE | CD | {"CTYPE1": "RA---ZPX", "CTYPE2": "DEC--ZPX"}, "ZPX"),
        (PLACE | CD | {"CTYPE1": "LINEAR", "CTYPE2": "LINEAR"}, "celestial"),
        (PLACE | CD | {"EQUINOX": 2015.44}, "2015.44"),
        (PLACE | CD | {"CRVAL1": "NaN"}, "NaN"),
    ],
)
def test_solutions_refused(cards, word):
    found, notes = repair_wcs(make(cards), SHAPE)
    assert found is None
    assert any(word in note for note in notes)


# --- Axes that are not those of ICRS ----------------------------------------------------------------------------------

FRAMES = {
    "galactic": ({"CTYPE1": "GLON-TAN", "CTYPE2": "GLAT-TAN"}, "galactic"),
    "supergalactic": ({"CTYPE1": "SLON-TAN", "CTYPE2": "SLAT-TAN"}, "supergalactic"),
    "ecliptic": ({"CTYPE1": "ELON-TAN", "CTYPE2": "ELAT-TAN"}, "barycentricmeanecliptic"),
    "B1950": ({"EQUINOX": 1950.0}, FK4(equinox="B1950")),
    "B1950, in words": ({"RADESYS": "FK4", "EQUINOX": "B1950"}, FK4(equinox="B1950")),
    "B1950, as EPOCH": ({"EPOCH": 1950.0}, FK4(equinox="B1950")),
    "no terms of aberration": ({"RADESYS": "FK4-NO-E"}, FK4NoETerms(equinox="B1950")),
    "FK5 of date": ({"RADESYS": "FK5", "EQUINOX": 2015.44}, FK5(equinox="J2015.44")),
}


def places(cards):
    """Return the ICRS positions of some pixels of an image of 300 x 200 by astropy alone, and these pixels."""
    x, y = (part.ravel().astype(float) for part in np.mgrid[0:300:60, 0:200:50])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.array(WCS(make(cards)).all_pix2world(x, y, 0)), x, y


def icrs_of(cards):
    """Return the ICRS positions of some pixels by the solution that is made of a header."""
    found, notes = repair_wcs(make(cards), SHAPE)
    assert found["CTYPE1"].startswith("RA--")
    _, x, y = places(PLACE | CD)
    ra, dec = WCS(found).all_pix2world(x, y, 0)
    return SkyCoord(ra, dec, unit="deg"), notes


@pytest.mark.parametrize("name", FRAMES)
def test_other_axes_are_turned_into_icrs(name):
    more, frame = FRAMES[name]
    (lon, lat), _, _ = places(PLACE | CD | more)
    found, notes = icrs_of(PLACE | CD | more)
    assert found.separation(SkyCoord(lon, lat, unit="deg", frame=frame).icrs).arcsec.max() < 1e-3
    assert any("turned into ICRS" in note for note in notes)


@pytest.mark.parametrize("code", ["TAN", "SIN", "ARC", "STG", "ZEA", "CAR", "MER", "CEA", "AIT", "SFL", "MOL"])
@pytest.mark.parametrize("more", [{}, {"CRVAL2": 0.0, "CRPIX2": 4000.0}, {"LONPOLE": 20.0}, {"CRVAL2": 89.9}])
def test_galactic_axes_are_turned_in_every_projection(code, more):
    cards = PLACE | CD | {"CTYPE1": f"GLON-{code}", "CTYPE2": f"GLAT-{code}"} | more
    (lon, lat), _, _ = places(cards)
    expected = SkyCoord(lon, lat, unit="deg", frame="galactic").icrs
    if not np.isfinite(lon).all():
        assert repair_wcs(make(cards), SHAPE)[0] is None
        return
    found, _ = icrs_of(cards)
    assert found.separation(expected).arcsec.max() < 1e-3


@pytest.mark.parametrize("frame", ["icrs", "galactic"])
@pytest.mark.parametrize("more", [{}, SIP, PV])
def test_axes_in_either_order_are_the_same(frame, more):
    lon, lat = {"icrs": ("RA--", "DEC-"), "galactic": ("GLON", "GLAT")}[frame]
    code = "TPV" if more is PV else "TAN-SIP" if more else "TAN"
    cards = PLACE | CD | more | {"CTYPE1": f"{lon}-{code}", "CTYPE2": f"{lat}-{code}"}
    other = {"1": "2", "2": "1"}
    turned = {
        key[:-1] + other[key[-1]]
        if key[:5] in ("CTYPE", "CRVAL")
        else re.sub("^(CD|PV)([12])", lambda m: m[1] + other[m[2]], key): value
        for key, value in cards.items()
    }
    expected, _ = icrs_of(cards)
    found, _ = icrs_of(turned)
    assert found.separation(expected).arcsec.max() < 1e-3


def test_galactic_reference_is_no_pointing():
    cards = {"CTYPE1": "GLON-TNX", "CTYPE2": "GLAT-TNX", "CRVAL1": 18.0, "CRVAL2": 0.0}
    assert readers.read_pointing(make(cards))[:2] == (None, None)


def test_the_polynomial_of_a_schmidt_plate_is_read():
    # STScI's plate solution: x, y in mm from the plate's centre, xi and eta in arcsec.
    cards = {"PLTRAH": 8, "PLTRAM": 55, "PLTRAS": 55.0, "PLTDECSN": "+", "PLTDECD": 11, "PLTDECM": 26, "PLTDECS": 58.0}
    cards |= {"CNPIX1": 8734, "CNPIX2": 7218, "XPIXELSZ": 25.0, "YPIXELSZ": 25.0, "PPO3": 175000.0, "PPO6": 175000.0}
    cards |= {"PLATEID": "07HH", **{f"PPO{k}": 0.0 for k in (1, 2, 4, 5)}}
    cards |= {f"AMD{axis}{k}": 0.0 for axis in "XY" for k in range(1, 21)}
    cards |= {"AMDX1": 67.2, "AMDX2": 0.7, "AMDX3": -66.9, "AMDX4": 1e-4}
    cards |= {"AMDY1": 67.3, "AMDY2": -0.7, "AMDY3": -136.7, "AMDY5": -2e-4}
    found, notes = repair_wcs(make(cards), SHAPE)
    assert any("plate's polynomial" in note for note in notes)
    for i, j in ((0, 0), (299, 199), (150, 100)):
        x = (175000.0 - 25.0 * (8734 + i + 0.5)) / 1000
        y = (25.0 * (7218 + j + 0.5) - 175000.0) / 1000
        xi = 67.2 * x + 0.7 * y - 66.9 + 1e-4 * x**2
        eta = 67.3 * y - 0.7 * x - 136.7 - 2e-4 * x * y
        centre = SkyCoord("08h55m55s +11d26m58s")
        tangent = WCS(
            make({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": centre.ra.deg, "CRVAL2": centre.dec.deg})
        )
        expected = SkyCoord(*tangent.wcs_pix2world(xi / 3600, eta / 3600, 1), unit="deg")
        ours = SkyCoord(*WCS(found).all_pix2world(i, j, 0), unit="deg")
        assert ours.separation(expected).arcsec < 1.0


@pytest.mark.skipif(not SURVEYS.is_dir(), reason="the real frames ../shared/data/real are not here")
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("galactic_wcs", {"exptime": 1.2, "pixscale": 1.2, "ra": 275.9356, "dec": -12.8724, "filter": None}),
        ("plate_minutes", {"exptime": 3000.0, "pixscale": 1.7005, "ra": 133.0263, "dec": 11.6208, "filter": None}),
        ("undersampled_crowded_j", {"exptime": None, "pixscale": 5.0, "ra": 266.7701, "dec": -29.2550, "filter": "J"}),
    ],
)
def test_headers_of_surveys(name, expected):
    image, notes = read_image(SURVEYS / f"{name}.fits"), []
    found = described(image.header, image.data.shape, Overrides(), notes)
    for key, value in expected.items():
        assert found[key] == (pytest.approx(value, abs=1e-3) if isinstance(value, float) else value), key
    # 12:07 UT and half of 50 minutes
    assert found["mjd"] == (pytest.approx(33979.52222, abs=1e-5) if name == "plate_minutes" else None)
    if name == "galactic_wcs":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            lon, lat = WCS(image.header).all_pix2world([0.0, 255.0], [0.0, 200.0], 0)
        ours = SkyCoord(*WCS(found["wcs_header"]).all_pix2world([0.0, 255.0], [0.0, 200.0], 0), unit="deg")
        assert ours.separation(SkyCoord(lon, lat, unit="deg", frame="galactic")).arcsec.max() < 1e-3


# --- Whole headers ----------------------------------------------------------------------------------------------------


def read_all(header, now=None):
    """Return everything that the readers make of a header, and all that they say."""
    exptime, notes = readers.read_exptime(header)
    gain, more = readers.read_gain(header, exptime)
    readnoise, some = readers.read_readnoise(header)
    _, saturation, others = readers.read_saturation(header)
    band, _, rest = readers.read_filter(header)
    mjd, times = read_time(header, exptime, readers.read_frames(header)[1], now)
    cards, wcs = repair_wcs(header, SHAPE)
    found = {"exptime": exptime, "gain": gain, "readnoise": readnoise, "saturation": saturation, "filter": band}
    found |= {"mid": None if mjd is None else (mjd - MJD) * 86400.0, "wcs": cards is not None}
    ra, _, place = readers.read_pointing(header)
    _, scale = readers.read_scale(header)
    notes = [*notes, *more, *some, *others, *rest, *times]
    return found | {"ra": ra if cards is None else cards["CRVAL1"]}, notes, [*wcs, *place, *scale]


def check(found, expected):
    for key, value in expected.items():
        if isinstance(value, float) and not isinstance(value, bool):
            assert found[key] == pytest.approx(value, abs=0.002), key
        else:
            assert found[key] == value, key


@pytest.mark.parametrize("writer", WRITERS)
def test_headers_of_the_common_writers(writer):
    cards, expected = WRITERS[writer]
    found, notes, _ = read_all(make(cards))
    check(found, {key: value for key, value in expected.items() if key != "word"})
    if expected.get("word", "") is None:
        assert not notes
    else:
        assert any(expected.get("word", "") in note for note in ["", *notes])


@pytest.mark.parametrize("wrong", BROKEN)
def test_broken_headers_are_told(wrong):
    cards, expected, words = BROKEN[wrong]
    found, notes, others = read_all(make(cards), now=60000.0)
    check(found, expected)
    assert any(words in note for note in notes + others), notes + others


def test_the_good_header_is_read_in_silence():
    cards, _, _ = BROKEN["future"]
    found, notes, others = read_all(make(cards | {"DATE-OBS": "2015-06-09T02:00:00"}), now=60000.0)
    check(found, {"mid": 30.0, "exptime": 60.0, "gain": 1.5, "saturation": 60000.0, "filter": "V", "wcs": True})
    assert not notes + others


@pytest.mark.parametrize("wrong", BROKEN_CARDS)
def test_broken_cards_of_files_are_told(tmp_path, wrong):
    lines, expected, words = BROKEN_CARDS[wrong]
    start = ["SIMPLE  =                    T", "BITPIX  =                  -32", "NAXIS   =                    2"]
    start += [f"NAXIS{axis}  = {size:20d}" for axis, size in ((1, SHAPE[1]), (2, SHAPE[0]))]
    block = "".join(f"{line:80}" for line in [*start, *lines, "END"])
    raw = block.ljust(-(-len(block) // 2880) * 2880).encode("latin-1") + np.ones(SHAPE, ">f4").tobytes()
    (tmp_path / "a.fits").write_bytes(raw.ljust(-(-len(raw) // 2880) * 2880, b"\0"))
    found, notes, others = read_all(read_image(tmp_path / "a.fits").header)
    check(found, expected)
    assert any(words in note for note in ["", *notes, *others]), notes


def test_no_header_is_too_broken_to_be_read():
    rng = np.random.default_rng(3)
    tables = (keywords.TIME, keywords.CLOCK, keywords.EXPTIME, keywords.GAIN, keywords.SATURATION, keywords.FILTER)
    keys = [row.key for table in tables for row in table if len(row.key) <= 8 and "." not in row.key]
    keys += [*PLACE, *CD, "CUNIT1", "CDELT1", "CROTA2", "PC1_1", "A_ORDER", "A_2_0", "B_ORDER", "PV1_5", "RA", "DEC"]
    keys += ["TIMESYS", "BUNIT", "RADESYS", "EQUINOX", "NCOMBINE", "XPIXSZ", "FOCALLEN", "LONPOLE", "INSTRUME"]
    values = [0, -1, 1, 0.5, 1e30, -1e30, 2457182.5, 57182.25, True, False, 1 + 2j, "", " ", "NaN", "inf", "1,5", "-"]
    values += ["2015-06-09", "2015-06-09T02:00:00", "00:00:00", "23:59:60", "09/06/15", "T", "+", "''", "RA---TAN"]
    values += ["10:00:00", "V", "3: Sloan r", "(", "[e-]", "TT", "*", "99999999999999999999", "1e999"]
    for _ in range(300):
        chosen = rng.choice(keys, rng.integers(1, 60))
        cards = {str(key): values[rng.integers(len(values))] for key in chosen}
        good = PLACE | CD | {"DATE-OBS": "2015-06-09T02:00:00"} if rng.random() < 0.5 else {}
        found, notes, others = read_all(make(good | cards), now=60000.0)
        assert all(isinstance(note, str) for note in notes + others)
        numbers = [found[key] for key in ("mid", "exptime", "gain", "saturation", "ra") if found[key] is not None]
        assert np.isfinite(numbers).all()
        assert found["exptime"] is None or found["exptime"] > 0
        assert found["gain"] is None or found["gain"] > 0


@pytest.mark.parametrize("row", keywords.EXPTIME, ids=lambda row: row.key)
def test_every_spelling_of_the_exposure(row):
    value = 10.0 / keywords.EXPOSURE_UNITS[row.unit]
    assert readers.read_exptime(make({row.key: value}))[0] == pytest.approx(10.0)


@pytest.mark.parametrize("row", keywords.TIME, ids=lambda row: row.key)
def test_every_spelling_of_the_time(row):
    mjd = {"start": MJD - 5.0 / 86400, "middle": MJD, "end": MJD + 5.0 / 86400}[row.meaning]
    date = str(np.datetime64("1858-11-17T00:00:00.000") + np.timedelta64(round(mjd * 86400), "s"))
    kinds = {"date": date, "MJD": mjd, "JD": mjd + 2400000.5, "TAI": mjd * 86400 + 35, "unix": (mjd - 40587) * 86400}
    found, _ = read_time(make({row.key: kinds[row.unit]}), 10.0)
    assert found == pytest.approx(MJD, abs=1e-3 / 86400)


@pytest.mark.parametrize("row", keywords.CLOCK, ids=lambda row: row.key)
def test_every_spelling_of_the_clock(row):
    clock = {"start": "01:59:55", "middle": "02:00:00", "end": "02:00:05"}[row.meaning]
    other = {} if row.meaning == "start" else {"TIME-OBS": "01:59:55"}
    found, _ = read_time(make({"DATE-OBS": "2015-06-09", row.key: clock} | other), 10.0)
    assert found == pytest.approx(MJD, abs=1e-3 / 86400)


@pytest.mark.parametrize("row", keywords.GAIN, ids=lambda row: row.key)
def test_every_spelling_of_the_gain(row):
    found, _ = readers.read_gain(make({f"HIERARCH {row.key}" if len(row.key) > 8 or "." in row.key else row.key: 0.8}))
    assert found == pytest.approx(1.25 if row.unit == "ADU/e-" else 0.8)


@pytest.mark.parametrize("row", [*keywords.READNOISE, *keywords.SATURATION, *keywords.FILTER], ids=lambda row: row.key)
def test_every_other_spelling(row):
    key = f"HIERARCH {row.key}" if len(row.key) > 8 or "." in row.key else row.key
    if row in keywords.FILTER:
        assert readers.read_filter(make({key: "Sloan r"}))[0] == "r"
    elif row in keywords.READNOISE:
        assert readers.read_readnoise(make({key: 7.0}))[0] == 7.0
    else:
        assert readers.read_saturation(make({key: (5e4, "good data below")}))[:2] == (row.key, 5e4)


# --- Pixels that are not linear in flux -------------------------------------------------------------------------------


def test_asinh_of_pan_starrs_is_undone(tmp_path):
    flux = np.random.default_rng(1).normal(100.0, 900.0, SHAPE) + 10 ** np.linspace(0, 5, SHAPE[1])
    soften, offset = 30.1, -4.7
    # As the skycells are made: magnitudes of asinh, in two bytes a pixel.
    scaled = 2.5 / np.log(10) * np.arcsinh((flux - offset) / (2 * soften))
    hdu = fits.PrimaryHDU(scaled)
    hdu.scale("int16", bscale=5e-4, bzero=10.0)
    hdu.header["BSOFTEN"], hdu.header["BOFFSET"] = soften, offset
    hdu.writeto(tmp_path / "skycell.fits")
    read = read_image(tmp_path / "skycell.fits").data
    # Half a step of the scaled values, as a share of the distance from where asinh bends.
    step = 0.5 * 5e-4 * np.log(10) / 2.5 * np.hypot(flux - offset, 2 * soften)
    assert np.all(np.abs(read - flux) < 1.05 * step + 1e-4 * np.abs(flux))
    del hdu.header["BSOFTEN"]
    plain = np.ones((3, 3), np.float32)
    assert readers.linearised(plain, hdu.header) is plain
