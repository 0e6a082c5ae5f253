"""Headers as the common writers leave them, and what stands in them.

Expected are ``mid`` (seconds after 2015-06-09T02:00:00 UTC), ``exptime``, ``gain``, ``readnoise``, ``saturation``,
``filter``, and ``word``: one that a warning must hold. What is not named is not looked at; None = must not be found.
"""

DATE = "2015-06-09"
ISO = f"{DATE}T02:00:00"
DAY = 57182.0
MJD = DAY + 2.0 / 24.0
JD = MJD + 2400000.5

WRITERS = {
    "MaxIm DL 5": (
        {"DATE-OBS": ISO, "EXPTIME": 60.0, "EXPOSURE": 60.0, "JD": JD, "JD-HELIO": JD + 0.003, "EGAIN": 1.29}
        | {"FILTER": "V", "SWCREATE": "MaxIm DL Version 5.24", "PEDESTAL": -100},
        {"mid": 30.0, "exptime": 60.0, "gain": 1.29, "filter": "V", "word": None},
    ),
    "MaxIm DL, old": (
        {"DATE-OBS": "09/06/15", "TIME-OBS": "02:00:00", "EXPTIME": 60.0, "FILTER": "Red"},
        {"mid": 30.0, "filter": None, "word": "RGB"},
    ),
    "SharpCap": (
        {"DATE-OBS": f"{DATE}T02:00:00.1234567", "EXPTIME": 8.0, "GAIN": (250, "Sensor gain"), "INSTRUME": "ToupTek"}
        | {"SWCREATE": "SharpCap v4.0.9268", "XPIXSZ": 2.9, "BLKLEVEL": 40},
        {"mid": 4.1234567, "exptime": 8.0, "gain": None, "filter": None, "word": "setting of the camera"},
    ),
    "SharpCap with EGAIN": (
        {"DATE-OBS": ISO, "DATE-AVG": f"{DATE}T02:00:04", "EXPTIME": 8.0, "GAIN": 4, "EGAIN": 0.25, "FILTER": "L"}
        | {"SWCREATE": "SharpCap v4.1"},
        {"mid": 4.0, "gain": 0.25, "filter": None, "word": "unfiltered"},
    ),
    "N.I.N.A.": (
        {"DATE-LOC": "2015-06-09T04:00:00.0", "DATE-OBS": ISO, "DATE-AVG": f"{DATE}T02:01:00", "MJD-OBS": MJD}
        | {"MJD-AVG": MJD + 60 / 86400, "EXPOSURE": 120.0, "EXPTIME": 120.0, "GAIN": 100, "OFFSET": 50, "EGAIN": 0.245}
        | {"INSTRUME": "ZWO ASI2600MM Pro", "FILTER": "Ha", "SWCREATE": "N.I.N.A. 2.0.1.9001 (x64)"},
        {"mid": 60.0, "exptime": 120.0, "gain": 0.245, "filter": None, "word": "narrow"},
    ),
    "N.I.N.A. without EGAIN": (
        {"DATE-OBS": ISO, "EXPTIME": 120.0, "GAIN": 1, "SWCREATE": "N.I.N.A. 1.10", "FILTER": "R"},
        {"mid": 60.0, "gain": None, "filter": "R", "word": "may be a colour of RGB"},
    ),
    "N.I.N.A., driver without gain": (
        {"DATE-OBS": ISO, "EXPTIME": 120.0, "EGAIN": "NaN", "SWCREATE": "N.I.N.A. 1.10"},
        {"gain": None, "word": "EGAIN = 'NaN' is no number"},
    ),
    "ASIAIR": (
        {"DATE-OBS": f"{DATE}T02:00:00.5", "EXPOSURE": 10.0, "EXPTIME": 10.0, "GAIN": 100, "CREATOR": "ZWO ASIAIR Plus"}
        | {"INSTRUME": "ZWO ASI533MC Pro", "BAYERPAT": "RGGB"},
        {"mid": 5.5, "gain": None, "word": "setting"},
    ),
    "ASICAP": ({"DATE-OBS": ISO, "EXPOINUS": 2000000}, {"mid": 1.0, "exptime": 2.0}),
    "Siril, single": (
        {"DATE-OBS": ISO, "EXPTIME": 30.0, "CVF": 0.8, "GAIN": 120, "PROGRAM": "Siril v1.2.0", "FILTER": "G"},
        {"mid": 15.0, "gain": 0.8, "filter": None, "word": "RGB"},
    ),
    "Siril, stack": (
        {"DATE-OBS": ISO, "EXPSTART": JD, "EXPEND": JD + 3600 / 86400, "EXPTIME": 30.0, "STACKCNT": 100}
        | {"LIVETIME": 3000.0, "PROGRAM": "Siril v1.2.0"},
        {"mid": 1800.0, "exptime": 30.0, "word": "as of a stack"},
    ),
    "ASTAP": (
        {"DATE-OBS": ISO, "EXPTIME": 20.0, "SCALE": 1.2, "FILTER": "B", "CREATOR": "ASTAP"},
        {"mid": 10.0, "filter": "B"},
    ),
    "Prism 10": (
        {"DATE": "2015-06-09T02:10:00", "DATE-OBS": f"{DATE}T02:00:00.00", "UT": "02:00:00.00", "EXPOSURE": 120.0}
        | {"FILTERS": "Filter_L", "CVF": 5.0, "INSTRUME": "ZWO ASI6200MM Pro", "SWCREATE": "PRISM, Version 10.4"},
        {"mid": 60.0, "exptime": 120.0, "gain": 5.0, "filter": None, "word": "unfiltered"},
    ),
    "Prism, clock apart": (
        {"DATE-OBS": "2015-06-09", "UT-START": "02:00:00", "UT-END": "02:01:00", "EXPOSURE": 60.0, "FILTER": "3: Rc"},
        {"mid": 30.0, "filter": "R"},
    ),
    "CCDSoft": (
        {"DATE-OBS": "2015-06-09", "TIME-OBS": "02:00:00.000", "EXPTIME": 40.0, "FILTER": "Clear", "EGAIN": 2.3},
        {"mid": 20.0, "gain": 2.3, "filter": None},
    ),
    "TheSkyX": (
        {
            "DATE-OBS": f"{DATE}T02:00:00.250",
            "EXPTIME": 40.0,
            "EGAIN": 1.0,
            "FILTER": "Sloan i'",
            "SWCREATE": "TheSkyX",
        },
        {"mid": 20.25, "filter": "i"},
    ),
    "AstroArt": (
        {"DATE-OBS": "2015/06/09", "UT": "02:00:00", "EXPOSURE": 25.0, "SOFTWARE": "AstroArt 7", "FILTER": "V (3)"},
        {"mid": 12.5, "exptime": 25.0, "filter": "V"},
    ),
    "Ekos and INDI": (
        {"DATE-OBS": f"{DATE}T02:00:00.000", "EXPTIME": 3.0, "GAIN": 15.0, "OFFSET": 10, "INSTRUME": "QHY CCD QHY163M"}
        | {"FILTER": "Luminance", "SCALE": 0.97, "PIXSIZE1": 3.8},
        {"mid": 1.5, "gain": None, "filter": None, "word": "setting"},
    ),
    "IRAF": (
        {"DATE-OBS": DATE, "UT": "02:00:00", "EXPTIME": 300, "FILTERS": "R Harris k1004", "GAIN": 3.1, "RDNOISE": 10.3},
        {"mid": 150.0, "gain": 3.1, "readnoise": 10.3, "filter": "R"},
    ),
    "IRAF, before 2000": (
        {"DATE-OBS": "09/06/15", "UT": "2:00:00.0", "UTMIDDLE": "2:02:30", "EXPTIME": 300},
        {"mid": 150.0},
    ),
    "IRAF, combined": (
        {"DATE-OBS": ISO, "EXPTIME": 300.0, "NCOMBINE": 5, "GAIN": 2.0, "FILTER": "U"},
        {"mid": 150.0, "gain": 2.0, "word": "a stack of 5 frames"},
    ),
    "NOIRLab Mosaic": (
        {"DATE-OBS": f"{DATE}T02:00:00.0", "TIME-OBS": "02:00:00.0", "TIMESYS": "UTC approximate", "MJD-OBS": MJD}
        | {"EXPTIME": 100.0, "FILTER": "Ha H-alpha k1009", "GAIN": 1.3, "SATURATE": 40000, "RDNOISE": 6.0},
        {"mid": 50.0, "gain": 1.3, "saturation": 40000.0, "filter": None, "word": "H-alpha"},
    ),
    "DECam": (
        {"DATE-OBS": f"{DATE}T02:00:00.000", "TIME-OBS": "02:00:00.000", "MJD-OBS": MJD, "TIMESYS": "UTC"}
        | {"EXPTIME": 90, "FILTER": "r DECam SDSS c0002 6415.0 1480.0", "GAINA": 4.0, "GAINB": 4.4}
        | {"SATURATA": 44000.0, "SATURATB": 42000.0, "RDNOISEA": 6.1, "PIXSCAL1": 0.27},
        {"mid": 45.0, "gain": 4.2, "saturation": 42000.0, "readnoise": 6.1, "filter": "r", "word": "mean of GAINA"},
    ),
    "ESO FORS2": (
        {"MJD-OBS": MJD, "DATE-OBS": f"{DATE}T02:00:00.0", "UTC": 7200.0, "LST": 40000.0, "EXPTIME": 60.0}
        | {"HIERARCH ESO INS FILT1 NAME": "R_SPECIAL", "HIERARCH ESO DET OUT1 CONAD": 0.7}
        | {"HIERARCH ESO DET OUT1 GAIN": 1.43, "HIERARCH ESO DET OUT1 RON": 2.7},
        {"mid": 30.0, "gain": 0.7, "readnoise": 2.7, "filter": "R"},
    ),
    "ESO without CONAD": (
        {"MJD-OBS": MJD, "EXPTIME": 60.0, "HIERARCH ESO DET OUT1 GAIN": 0.5, "HIERARCH ESO INS FILT1 NAME": "b_HIGH"},
        {"gain": 2.0, "filter": None, "word": "inverse"},
    ),
    "ESO WFI": (
        {"MJD-OBS": MJD, "EXPTIME": 60.0, "HIERARCH ESO INS FILT1 NAME": "BB#Rc/162_ESO844"},
        {"mid": 30.0, "filter": "R"},
    ),
    "ESO phase 3": (
        {"MJD-OBS": MJD, "MJD-END": MJD + 1200 / 86400, "EXPTIME": 1000.0, "TEXPTIME": 1000.0, "NCOMBINE": 5}
        | {"FILTER": "r_SDSS", "GAIN": 12.0},
        {"mid": 500.0, "exptime": 1000.0, "gain": 12.0, "filter": "r"},
    ),
    "VIRCAM": ({"MJD-OBS": MJD, "EXPTIME": 8.0, "FILTER": "Ks", "SATURATE": 33000}, {"filter": "Ks", "mid": 4.0}),
    "LCO BANZAI": (
        {"DATE-OBS": f"{DATE}T02:00:00.100", "MJD-OBS": MJD, "UTSTART": "02:00:00.100", "UTSTOP": "02:00:30.1"}
        | {"EXPTIME": 30.0, "FILTER": "rp", "FILTER1": "air", "FILTER2": "rp", "GAIN": 1.0, "RDNOISE": 3.2}
        | {"SATURATE": 120000.0, "MAXLIN": 118000.0, "RA": "10:00:00.0", "DEC": "-30:30:00"},
        {"mid": 15.1, "gain": 1.0, "readnoise": 3.2, "saturation": 120000.0, "filter": "r", "word": None},
    ),
    "LCO zs": ({"DATE-OBS": ISO, "EXPTIME": 30.0, "FILTER": "zs"}, {"filter": "z"}),
    "ZTF": (
        {"OBSMJD": MJD, "OBSJD": JD, "SHUTOPEN": f"{DATE}T02:00:00.0", "SHUTCLSD": f"{DATE}T02:00:30.1"}
        | {"UTC-OBS": f"{DATE}T02:00:00.0", "EXPTIME": 30.0, "EXPOSURE": 30.0, "FILTERID": 2, "FILTER": "ZTF_r"}
        | {"GAIN": 6.2, "READNOI": 10.0, "SATURATE": 48000.0},
        {"mid": 15.0, "gain": 6.2, "readnoise": 10.0, "saturation": 48000.0, "filter": "r", "word": None},
    ),
    "PTF": ({"OBSMJD": MJD, "EXPTIME": 60.0, "FILTER": "R", "GAIN": 1.5}, {"mid": 30.0, "filter": "R"}),
    "SDSS frame": (
        {"TAI": (MJD + 35 / 86400) * 86400.0, "DATE-OBS": DATE, "TAIHMS": "02:00:35.00", "EXPTIME": "53.907456"}
        | {"FILTER": "r", "BUNIT": "nanomaggy", "NMGY": 0.005},
        {"mid": 53.907456 / 2, "exptime": 53.907456, "gain": None, "filter": "r", "word": "nanomaggy is no count"},
    ),
    "SkyView": ({"SURVEY": "SDSS-r"}, {"filter": "r", "mid": None}),
    "Pan-STARRS": (
        {"MJD-OBS": MJD + 35 / 86400, "TIMESYS": "TAI", "EXPTIME": 45.0, "HIERARCH FPA.FILTERID": "r.00000"}
        | {"HIERARCH CELL.GAIN": 1.03, "HIERARCH CELL.READNOISE": 7.8, "HIERARCH CELL.SATURATION": 53000.0},
        {"mid": 22.5, "gain": 1.03, "readnoise": 7.8, "saturation": 53000.0, "filter": "r"},
    ),
    "SkyMapper": (
        {"DATE-OBS": ISO, "MJD-OBS": MJD, "EXPTIME": 100.0, "FILTNAME": "i", "GAIN": 0.75, "PIXSCALE": 0.497},
        {"mid": 50.0, "filter": "i", "gain": 0.75},
    ),
    "SkyMapper violet": (
        {"DATE-OBS": ISO, "EXPTIME": 100.0, "FILTNAME": "v", "INSTRUME": "SkyMapper Imager"},
        {"filter": None, "word": "violet"},
    ),
    "Liverpool Telescope": (
        {"DATE-OBS": f"{DATE}T02:00:00.000", "UTSTART": "02:00:00.000", "MJD": MJD, "EXPTIME": 90.0, "GAIN": 1.62}
        | {"READNOIS": 8.0, "FILTER1": "SDSS-R", "FILTER2": "clear", "FILTER3": "clear", "SATURATN": 65535},
        {"mid": 45.0, "gain": 1.62, "readnoise": 8.0, "saturation": 65535.0, "filter": "r", "word": None},
    ),
    "SkyCamT": ({"DATE-OBS": ISO, "UTSTART": "02:00:00", "EXPTIME": 10.0, "MJD": str(MJD)}, {"mid": 5.0}),
    "FRAM and RTS2": (
        {"JD": JD, "CTIME": 1433815200, "EXPOSURE": 20.0, "FILTER": "R", "DATE-OBS": ISO, "CAM_GAIN": 2},
        {"mid": 10.0, "exptime": 20.0, "filter": "R", "word": None},
    ),
    "RTS2, Unix time alone": ({"CTIME": 1433815200, "EXPOSURE": 20.0}, {"mid": 10.0}),
    "SWarp": (
        {"DATE-OBS": ISO, "EXPTIME": 600.0, "GAIN": (41.5, "Maximum equivalent gain (e-/ADU)"), "SATURATE": 50211.3}
        | {"COMBINET": "MEDIAN", "SOFTNAME": "SWarp", "FILTER": "i.MP9702"},
        {"gain": 41.5, "saturation": 50211.3, "filter": "i"},
    ),
    "CFHT MegaCam": (
        {"DATE-OBS": DATE, "UTC-OBS": "02:00:00.00", "MJD-OBS": MJD, "EXPTIME": 100.0, "FILTER": "r.MP9601"}
        | {"GAIN": 1.67, "RDNOISE": 4.1, "SATURATE": 65535, "MAXLIN": 62000},
        {"mid": 50.0, "filter": "r", "gain": 1.67, "word": None},
    ),
    "Gemini": (
        {"DATE-OBS": DATE, "UTSTART": "02:00:00", "UTEND": "02:01:10", "EXPTIME": 60.0, "FILTER1": "open1-6"}
        | {"FILTER2": "r_G0303", "GAIN": 2.2},
        {"mid": 30.0, "filter": "r"},
    ),
    "HST": (
        {"EXPSTART": MJD, "EXPEND": MJD + 400 / 86400, "EXPTIME": 400.0, "FILTER": "F606W", "CCDGAIN": 1.5}
        | {"BUNIT": "ELECTRONS"},
        {"mid": 200.0, "gain": 1.0, "filter": None, "word": "BUNIT is electrons"},
    ),
    "counts a second": (
        {"DATE-OBS": ISO, "EXPTIME": 100.0, "GAIN": 1.5, "BUNIT": "adu/s"},
        {"gain": 150.0, "word": "rate"},
    ),
    "electrons a second": ({"EXPTIME": 100.0, "BUNIT": "ELECTRONS/S"}, {"gain": 100.0, "word": "rate"}),
    "e/s": ({"EXPTIME": 100.0, "BUNIT": "e/s", "GAIN": 2.0}, {"gain": 100.0, "word": "gain 1 is taken"}),
    "GOTO": (
        {"DATE-OBS": ISO, "DATE-MID": f"{DATE}T02:00:30", "EXPTIME": 60.0, "GAIN": 0.6, "FILTER": "L"}
        | {"TELESCOP": "GOTO-1", "MJD": MJD, "JD": JD},
        {"mid": 30.0, "gain": 0.6, "filter": None, "word": "unfiltered"},
    ),
    "GOTO green": ({"FILTER": "G", "TELESCOP": "GOTO-1"}, {"filter": None, "word": "RGB"}),
    "ATLAS orange": (
        {"MJD-OBS": MJD, "EXPTIME": 30.0, "FILTER": "o", "TELESCOP": "ATLAS", "GAIN": 2.0, "SATURATE": 50000},
        {"mid": 15.0, "filter": None, "word": "orange"},
    ),
    "ATLAS cyan": ({"FILTER": "c", "OBSERVAT": "ATLAS HKO"}, {"filter": None, "word": "cyan"}),
    "NOT ALFOSC": (
        {"DATE-OBS": f"{DATE}T02:00:00.0", "DATE-AVG": f"{DATE}T02:00:50.0", "EXPTIME": 100.0, "GAIN": 0.16}
        | {"ALFLTNM": "r'_SDSS 625_140", "FAFLTNM": "Open", "FBFLTNM": "Open", "RDNOISE": 4.3},
        {"mid": 50.0, "gain": 0.16, "filter": "r"},
    ),
    "NOT, Bessell": ({"ALFLTNM": "Open", "FAFLTNM": "V_Bes 530_80", "FBFLTNM": "Open"}, {"filter": "V"}),
    "BlackBOX": (
        {"DATE-OBS": (f"{DATE}T02:00:30", "Midpoint of exposure"), "MJD-OBS": (MJD + 30 / 86400, "[d] MJD (midpoint)")}
        | {"EXPTIME": 60.0, "FILTER": "q", "TELESCOP": "MeerLICHT", "GAIN": 1.0, "SATURATE": 110000.0},
        {"mid": 30.0, "filter": None, "word": "wide band"},
    ),
    "BlackBOX, old": (
        {"DATE-OBS": (ISO, "Date at start"), "DATE-END": (f"{DATE}T02:01:00", "Date at end"), "EXPTIME": 60.0},
        {"mid": 30.0},
    ),
    "AstroImageJ": (
        {"JD_UTC": (JD + 30 / 86400, "Julian Date (UTC) at mid-exposure"), "BJD_TDB": JD + 0.004, "HJD_UTC": JD + 0.004}
        | {"DATE-OBS": ISO, "EXPTIME": 60.0},
        {"mid": 30.0},
    ),
    "Astrometry.net": ({"DATE-OBS": ISO, "EXPTIME": 4.0, "FILTER": "I"}, {"mid": 2.0, "filter": "I"}),
    "Subaru HSC": (
        {"DATE-OBS": DATE, "UT": "02:00:00.0", "EXP1TIME": 30.0, "FILTER01": "HSC-R2"},
        {"mid": 15.0, "exptime": 30.0, "filter": "r"},
    ),
    "Isaac Newton Telescope": (
        {"DATE-OBS": DATE, "UTSTART": "02:00:00", "EXPTIME": 30.0, "WFFBAND": "Sloan-Gunn r"},
        {"mid": 15.0, "filter": "r"},
    ),
    "Keck": ({"DATE-OBS": DATE, "UTC": "02:00:00", "ELAPTIME": 30, "DETGAIN": 1.2}, {"mid": 15.0, "gain": 1.2}),
    "Calar Alto": (
        {"DATE-OBS": DATE, "TM-START": 7200, "TM-END": 7260, "EXPTIME": 60.0, "INSFLNAM": "johnson R"},
        {"mid": 30.0, "filter": "R"},
    ),
    "midnight in between": (
        {"DATE-OBS": "2015-06-08", "UTSTART": "23:59:30", "UTEND": "00:00:30", "EXPTIME": 60.0},
        {"mid": -7200.0},
    ),
    "midnight written for a clock": (
        {"DATE-OBS": f"{DATE}T00:00:00", "TIME-OBS": "02:00:00", "EXPTIME": 60.0},
        {"mid": 30.0, "word": "no time of day of its own"},
    ),
    "GPS time": ({"DATE-OBS": f"{DATE}T02:00:16", "TIMESYS": "GPS", "EXPTIME": 60.0}, {"mid": 30.0}),
    "end alone": ({"DATE-END": f"{DATE}T02:01:00", "EXPTIME": 60.0}, {"mid": 30.0, "word": "DATE-END less half"}),
    "start and end alone": (
        {"DATE-BEG": ISO, "DATE-END": f"{DATE}T02:01:00"},
        {"mid": 30.0, "exptime": None, "word": "middle between"},
    ),
    "milliseconds": ({"DATE-OBS": ISO, "EXPOSURE": (500.0, "[ms]")}, {"exptime": 0.5, "mid": 0.25}),
    "minutes": ({"DATE-OBS": ISO, "EXPTIME": (2.0, "exposure [min]")}, {"exptime": 120.0, "mid": 60.0}),
    "comma": ({"DATE-OBS": f"{DATE}T02:00:00,5", "EXPTIME": "10,0"}, {"exptime": 10.0, "mid": 5.5, "word": "comma"}),
}

SHAPE = (200, 300)
PLACE = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.0, "CRVAL2": 20.0, "CRPIX1": 150.0, "CRPIX2": 100.0}
CD = {"CD1_1": -3e-4, "CD1_2": 1e-5, "CD2_1": 1e-5, "CD2_2": 3e-4}
GOOD = {"DATE-OBS": ISO, "EXPTIME": 60.0, "GAIN": 1.5, "SATURATE": 60000.0, "FILTER": "V"} | PLACE | CD


def but(*without, **cards):
    """Return the good header without some cards and with others; a double underscore in a name is a dash."""
    kept = {key: value for key, value in GOOD.items() if key not in without}
    return kept | {key.replace("__", "-"): value for key, value in cards.items()}


# What is wrong: header, what must come out (of mid, exptime, gain, saturation, filter, ra and whether there is a WCS),
# and words of the warning that must be among those given.
BROKEN = {
    "exposure 0": (but(EXPTIME=0.0), {"exptime": None, "mid": 0.0}, "EXPTIME = 0 s is no exposure"),
    "exposure negative": (but(EXPTIME=-5.0), {"exptime": None}, "EXPTIME = -5 s is no exposure"),
    "exposure negative, another good": (but(EXPTIME=-1.0, EXPOSURE=30.0), {"exptime": 30.0}, "EXPTIME = -1 s"),
    "exposure NaN": (but(EXPTIME="NaN"), {"exptime": None}, "EXPTIME = 'NaN' is no number"),
    "exposure infinite": (but(EXPTIME="inf"), {"exptime": None}, "EXPTIME = 'inf' is no number"),
    "exposure of a year": (but(EXPTIME=3.2e7), {"exptime": None}, "is no exposure"),
    "exposure in words": (but(EXPTIME="one minute"), {"exptime": None}, "'one minute' is no number"),
    "exposure a boolean": (but(EXPTIME=True), {"exptime": None}, "EXPTIME = True is no number"),
    "exposure complex": (but(EXPTIME=60 + 1j), {"exptime": None}, "is no number"),
    "exposure missing": (but("EXPTIME"), {"exptime": None, "mid": 0.0}, "no exposure time in the header"),
    "exposures that disagree": (but(EXPOSURE=600.0), {"exptime": 60.0}, "EXPTIME = 60 and EXPOSURE = 600 s differ"),
    "exposure with thousands": (but(EXPTIME="1,500"), {"exptime": None}, "'1,500' is no number"),
    "exposure with a comma": (but(EXPTIME="1,5"), {"exptime": 1.5}, "the comma is taken for a decimal point"),
    "total exposure alone": (but("EXPTIME", TOTEXP=600.0), {"exptime": 600.0}, "may be the total"),
    "time missing": (but("DATE-OBS"), {"mid": None}, "no time of observation"),
    "time of the file alone": (but("DATE-OBS", DATE=ISO), {"mid": None}, "DATE is when the file was written"),
    "heliocentric time alone": (but("DATE-OBS", HJD=JD), {"mid": None}, "HJD is heliocentric"),
    "barycentric time alone": (but("DATE-OBS", BJD_TDB=JD), {"mid": None}, "BJD_TDB is barycentric"),
    "local time alone": (but("DATE-OBS", DATE__LOC=ISO), {"mid": None}, "DATE-LOC is local time"),
    "local time by its comment": (but(DATE__OBS=(ISO, "local time at start")), {"mid": None}, "is local time, as its"),
    "date without clock": (but(DATE__OBS=DATE), {"mid": None}, "without a time of day"),
    "date that is none": (but(DATE__OBS="2015-02-30T02:00:00"), {"mid": None}, "'2015-02-30T02:00:00' is no time"),
    "date in words": (but(DATE__OBS="last night"), {"mid": None}, "'last night' is no time"),
    "date of a boolean": (but(DATE__OBS=False), {"mid": None}, "is no time"),
    "month first": (but(DATE__OBS="06/13/2015", UT="02:00:00"), {"mid": None}, "'06/13/2015' is no time"),
    "year of two digits": (but(DATE__OBS="09/06/15", UT="02:00:00"), {"mid": 30.0}, "day/month/year of 2015-06-09"),
    "clock of 1970": (but(DATE__OBS="1970-01-01T00:00:00"), {"mid": None}, "is no time"),
    "clock beyond the day": (but(DATE__OBS=f"{DATE}T25:61:00"), {"mid": None}, "is no time"),
    "MJD 0": (but("DATE-OBS", MJD__OBS=0.0), {"mid": None}, "MJD-OBS = 0.0 is no time"),
    "MJD NaN": (but("DATE-OBS", MJD__OBS="NaN"), {"mid": None}, "MJD-OBS = 'NaN' is no time"),
    "JD without its first digits": (but("DATE-OBS", JD=JD - 2400000), {"mid": None}, "is no time"),
    "times that disagree": (but(MJD__OBS=MJD + 0.4), {"mid": 30.0}, "DATE-OBS and MJD-OBS differ by 34560 s"),
    "MJD without its half": (but(MJD__OBS=MJD + 0.5), {"mid": 30.0}, "MJD-OBS is JD - 2400000, half a day off"),
    "the same beside date and clock": (
        but(DATE__OBS="2015-06-09", UT="02:00:00", MJD__OBS=MJD + 0.5),
        {"mid": 30.0},
        "MJD-OBS is JD - 2400000",
    ),
    "the same of the middle": (but(MJD__AVG=MJD + 0.5 + 30 / 86400), {"mid": 30.0}, "MJD-AVG is JD - 2400000"),
    "the same by its comment": (but("DATE-OBS", MJD__OBS=(MJD + 0.5, "JD-2400000")), {"mid": 30.0}, "half a day"),
    "JD without its half": (but(JD=MJD + 2400000), {"mid": 30.0}, "JD is MJD + 2400000"),
    "clock of twelve hours": (
        but(MJD__OBS=MJD + 0.5, JD=MJD + 2400001.0),
        {"mid": 30.0},
        "DATE-OBS and MJD-OBS differ by 43200 s",
    ),
    "MJD half a day early": (but(MJD__OBS=MJD - 0.5), {"mid": 30.0}, "differ by 43200 s"),
    "clocks that disagree": (but(UT="14:00:00"), {"mid": 30.0}, "tell different times of day"),
    "date of the evening": (
        but(DATE__OBS="2015-06-08", UT="02:00:00", MJD__OBS=MJD),
        {"mid": 30.0},
        "DATE-OBS and MJD-OBS differ by 86400 s: MJD-OBS is taken",
    ),
    "clock of 26 hours": (but(DATE__OBS=DATE, UT="26:00:00"), {"mid": None}, "UT = '26:00:00' is no time of day"),
    "middle before the start": (but(DATE__AVG=f"{DATE}T01:00:00"), {"mid": -3600.0}, "DATE-AVG lies -3630 s off"),
    "end before the start": (but(DATE__END=f"{DATE}T01:00:00"), {"mid": 30.0}, "DATE-END lies before DATE-OBS"),
    "end too early": (but(DATE__END=f"{DATE}T02:00:10"), {"mid": 30.0}, "are 10 s apart, the exposure is 60 s"),
    "future": (but(DATE__OBS="2063-04-05T02:00:00"), {}, "lies in the future"),
    "observed after written": (but(DATE="2015-06-01T00:00:00"), {"mid": 30.0}, "days after DATE"),
    "unknown time system": (but(TIMESYS="MARS"), {"mid": 30.0}, "TIMESYS MARS is not known"),
    "stack of unknown middle": (but(NCOMBINE=9), {"mid": 30.0}, "a stack of 9 frames"),
    "gain negative": (but(GAIN=-1.0), {"gain": None}, "GAIN = -1 e-/ADU is not possible"),
    "gain 0": (but(GAIN=0), {"gain": None}, "GAIN = 0 e-/ADU is not possible"),
    "gain huge": (but(GAIN=1e6), {"gain": None}, "not possible"),
    "gain a camera's index": (but(GAIN=139), {"gain": None}, "like the setting of a camera"),
    "gain of 100": (but(GAIN=100.0), {"gain": None}, "like the setting of a camera"),
    "gain of 300, by its comment": (but(GAIN=(300, "gain index")), {"gain": None}, "as its comment says"),
    "gain in words": (but(GAIN="high"), {"gain": None}, "GAIN = 'high' is no number"),
    "gain the wrong way round": (but(GAIN=(0.5, "ADU/electron")), {"gain": 2.0}, "its inverse is taken"),
    "gains that disagree": (but(EGAIN=3.0), {"gain": 3.0}, "EGAIN = 3 and GAIN = 1.5 e-/ADU differ"),
    "gain NaN beside a setting": (but(EGAIN="NaN", GAIN=120), {"gain": None}, "EGAIN = 'NaN' is no number"),
    "rate without exposure": (
        but("EXPTIME", BUNIT="adu/s"),
        {"gain": None},
        "is a rate, and the exposure is not known",
    ),
    "fluxes": (but(BUNIT="uJy"), {"gain": None}, "is no count"),
    "read noise negative": (but(RDNOISE=-1.0), {"readnoise": None}, "RDNOISE = -1 e- is no read noise"),
    "saturation 0": (but(SATURATE=0), {"saturation": None}, "SATURATE = 0 ADU is no saturation level"),
    "saturation in words": (but(SATURATE="full"), {"saturation": None}, "SATURATE = 'full' is no number"),
    "saturation in electrons": (but(SATURATE=(9e4, "[e-]")), {"saturation": None}, "is in electrons"),
    "largest pixel": (but("SATURATE", DATAMAX=1234.0), {"saturation": None}, "DATAMAX = 1234 is the largest pixel"),
    "filter missing": (but("FILTER"), {"filter": None}, "no filter in the header"),
    "filter a number": (but(FILTER=3), {"filter": None}, "a number of a wheel's slot"),
    "two filters": (but(FILTER1="B"), {"filter": "V"}, "FILTER = V is taken for the filter, though FILTER1 = B"),
    "narrow band beside a filter": (but(FILTER2="Ha"), {"filter": "V"}, "though FILTER2 = Ha"),
    "no WCS": (but(*PLACE, *CD), {"wcs": False, "ra": None}, "no WCS in the header"),
    "no scale": (but(*CD), {"wcs": False}, "reference point or scale is missing"),
    "reference missing": (but("CRPIX2"), {"wcs": False}, "reference point or scale is missing"),
    "matrix degenerate": (but(CD1_1=3e-4, CD1_2=3e-4, CD2_1=3e-4), {"wcs": False}, "is not possible"),
    "matrix zero": (but(**dict.fromkeys(CD, 0.0)), {"wcs": False}, "is not possible"),
    "matrix half there": (but("CD1_2", "CD2_1", "CD2_2"), {"wcs": False}, "is not possible"),
    "CDELT zero": (but(*CD, CDELT1=0.0, CDELT2=3e-4), {"wcs": False}, "is not possible"),
    "CDELT in metres": (but(*CD, CDELT1=3e-4, CDELT2=3e-4, CUNIT1="m"), {"wcs": False}, "CUNIT1 = 'm' is no angle"),
    "CRVAL2 beyond the pole": (but(CRVAL2=95.0), {"wcs": False}, "CRVAL2 = 95 is no DEC in degrees"),
    "CRVAL1 out of range": (but(CRVAL1=4000.0), {"wcs": False}, "CRVAL1 = 4000 is no RA in degrees"),
    "CRVAL1 sexagesimal": (but(CRVAL1="10:00:00"), {"wcs": False}, "CRVAL1 = '10:00:00' is no number"),
    "CRVAL1 NaN": (but(CRVAL1="NaN"), {"wcs": False}, "CRVAL1 = 'NaN' is no number"),
    "CRVAL1 with a comma": (but(CRVAL1="150,25"), {"wcs": True, "ra": 150.25}, "the comma is taken"),
    "matrix of text": (but(CD1_1="-3e-4"), {"wcs": True}, "CD1_1 is text"),
    "CTYPE without projection": (but(CTYPE1="RA", CTYPE2="DEC"), {"wcs": False}, "names no projection"),
    "CTYPE a number": (but(CTYPE1=1.0), {"wcs": False}, "no celestial axes"),
    "galactic": (but(CTYPE1="GLON-TAN", CTYPE2="GLAT-TAN"), {"wcs": True, "ra": 92.6311}, "axes GLON and GLAT turned"),
    "of the Earth": (but(CTYPE1="TLON-TAN", CTYPE2="TLAT-TAN"), {"wcs": False}, "they turn with the Earth"),
    "of the Sun": (but(CTYPE1="HLON-TAN", CTYPE2="HLAT-TAN"), {"wcs": False}, "they are counted from the Sun"),
    "two kinds of axes": (but(CTYPE1="GLON-TAN", CTYPE2="ELAT-TAN"), {"wcs": False}, "axes GLON and ELAT"),
    "two projections": (but(CTYPE2="DEC--SIN"), {"wcs": False}, "projection TAN/SIN is not supported"),
    "TNX": (but(CTYPE1="RA---TNX", CTYPE2="DEC--TNX"), {"wcs": False}, "IRAF's WAT cards"),
    "ZPX": (but(CTYPE1="RA---ZPX", CTYPE2="DEC--ZPX"), {"wcs": False}, "IRAF's WAT cards"),
    "Schmidt plate": (but(CTYPE1="RA---DSS", CTYPE2="DEC--DSS"), {"wcs": False}, "Schmidt plate's polynomial"),
    "ZPN without polynomial": (but(CTYPE1="RA---ZPN", CTYPE2="DEC--ZPN"), {"wcs": False}, "no PV2 polynomial"),
    "equinox of date": (but(EQUINOX=2015.44), {"wcs": False}, "equinox 2015.44 is not J2000, and may be when"),
    "FK4": (but(RADESYS="FK4"), {"wcs": True, "ra": 150.6904}, "equinox 1950 turned into ICRS"),
    "FK5 of date": (
        but(RADESYS="FK5", EQUINOX=2015.44),
        {"wcs": True, "ra": 149.7865},
        "equinox 2015.44 turned into ICRS",
    ),
    "equinox not a year": (but(RADESYS="FK5", EQUINOX=1e9), {"wcs": False}, "equinox 1e+09 is not J2000"),
    "apparent place": (but(RADESYS="GAPPT"), {"wcs": False}, "equinox apparent is not J2000"),
    "equinox in words": (but(EQUINOX="now"), {"wcs": True}, "equinox 'now' is no year"),
    "unknown frame": (but(RADECSYS="XYZ"), {"wcs": True}, "reference system XYZ is not known"),
    "SIP half there": (but(A_ORDER=2, A_2_0=1e-6), {"wcs": True}, "incomplete SIP"),
    "SIP that folds": (but(A_ORDER=2, A_2_0=0.1, B_ORDER=2, B_0_2=0.1), {"wcs": True}, "distortion left out"),
    "solution of another size": (but(IMAGEW=600, IMAGEH=400), {"wcs": True}, "IMAGEW x IMAGEH are 600 x 400"),
    "NAXIS of another size": (but(NAXIS=2, NAXIS1=2048, NAXIS2=2048), {"wcs": True}, "NAXIS1 x NAXIS2 are 2048"),
    "pointing in hours": (
        but(*PLACE, *CD, RA=10.0, DEC=20.0, OBJCTRA="10 00 00", OBJCTDEC="+20 00 00"),
        {"ra": 150.0},
        "RA = 10 is in hours, as OBJCTRA shows",
    ),
    "pointings that disagree": (
        but(*PLACE, *CD, RA=150.0, DEC=20.0, OBJCTRA="03 00 00", OBJCTDEC="+20 00 00"),
        {"ra": 150.0},
        "RA and OBJCTRA point",
    ),
    "pointing beyond the pole": (but(*PLACE, *CD, RA=10.0, DEC=100.0), {"ra": None}, "is no position"),
    "pointing of 75 minutes": (but(*PLACE, *CD, RA="10:75:00", DEC="+20:00:00"), {"ra": None}, "is no position"),
    "pointing never set": (but(*PLACE, *CD, RA=0.0, DEC=0.0), {"ra": None}, "as if never set"),
    "pixel scale 0": (but(*PLACE, *CD, PIXSCALE=0.0), {}, "PIXSCALE = 0 arcsec is no pixel scale"),
}
# What only the bytes of a file can hold: cards, what must come out, words of the warning.
BROKEN_CARDS = {
    "date without quotes": (["DATE-OBS= 2015-06-09T02:00:00"], {"mid": 0.0}, "start of the exposure is taken"),
    "duplicate": (
        ["EXPTIME =                 60.0", "EXPTIME =                600.0"],
        {"exptime": 60.0},
        "EXPTIME stands",
    ),
    "beyond all numbers": (["EXPTIME =               1E999"], {"exptime": None}, "no exposure time"),
    "no ASCII": (["FILTER  = 'H\xb1      '"], {"filter": None}, "is not known"),
    "open quotes": (["FILTER  = 'V"], {}, "filter"),
    "two values": (["GAIN    = 1.5 = 3"], {"gain": None}, ""),
    "HIERARCH of a standard card": (["HIERARCH EXPTIME = 60.0"], {"exptime": 60.0}, ""),
    "HIERARCH without value": (["HIERARCH ESO DET OUT1 CONAD ="], {"gain": None}, ""),
    "HIERARCH without equals": (["HIERARCH ESO DET OUT1 CONAD 1.5"], {"gain": None}, ""),
    "value without blank": (["EXPTIME =60.0"], {"exptime": None}, "no exposure time"),
    "lower case": (["exptime =                 60.0"], {"exptime": 60.0}, ""),
    "undefined": (["EXPTIME ="], {"exptime": None}, "no exposure time"),
    "Fortran's exponent": (["EXPTIME =                6.0D1"], {"exptime": 60.0}, ""),
}
