"""How the writers of FITS headers spell things: the tables that `nightsift.header.readers` reads by.

A row is a card's name, its unit, its meaning, and who writes it. Of several cards for one thing, the row that stands
first wins. Teaching the reader a new spelling is adding a row; a telescope that no row can describe needs
``instruments`` in the configuration.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Spelling:
    """A card, the unit of its value, what it says, and known writers."""

    key: str
    unit: str
    meaning: str
    writers: str = ""


def _rows(text: str) -> tuple[Spelling, ...]:
    """Read a table: card | unit | meaning | writers."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return tuple(Spelling(*(cell.strip() for cell in line.split("|"))) for line in lines)


# Units: date = calendar date with or without time of day; MJD; JD; unix = s since 1970; TAI = s of TAI since MJD 0.
# A card whose comment says "middle" or "end" is taken at its word, and one that says "local" is not taken.
TIME = _rows("""
    DATE-AVG  | date | middle | FITS standard, N.I.N.A., SharpCap, NOT
    DATE-MID  | date | middle | GOTO
    DATEMID   | date | middle |
    DATE_MID  | date | middle |
    MJD-AVG   | MJD  | middle | FITS standard, N.I.N.A.
    MJDAVG    | MJD  | middle |
    MJD-MID   | MJD  | middle |
    MJD_MID   | MJD  | middle |
    MJDMID    | MJD  | middle |
    JD_UTC    | JD   | middle | AstroImageJ
    JD-MID    | JD   | middle |
    JD_MID    | JD   | middle |
    JDMID     | JD   | middle |
    DATE-OBS  | date | start  | FITS standard, and nearly everybody
    DATEOBS   | date | start  |
    DATE_OBS  | date | start  |
    DATE-BEG  | date | start  | FITS standard, LSST
    DATEBEG   | date | start  |
    UTC-OBS   | date | start  | ZTF
    SHUTOPEN  | date | start  | ZTF
    UTSHUT    | date | start  | NOIRLab
    MJD-OBS   | MJD  | start  | FITS standard, ESO, DECam, Pan-STARRS, LCO, SkyMapper
    MJD_OBS   | MJD  | start  |
    MJDOBS    | MJD  | start  |
    OBSMJD    | MJD  | start  | ZTF, PTF
    MJD-BEG   | MJD  | start  | FITS standard
    MJD-STR   | MJD  | start  | Subaru
    MJD       | MJD  | start  | Liverpool Telescope, GOTO
    EXPSTART  | MJD  | start  | HST (MJD), Siril (JD)
    JD-OBS    | JD   | start  |
    JD_OBS    | JD   | start  |
    JDOBS     | JD   | start  |
    OBSJD     | JD   | start  | ZTF
    JD-BEG    | JD   | start  |
    JDSTART   | JD   | start  |
    JD-START  | JD   | start  |
    MJDSTART  | MJD  | start  |
    JD        | JD   | start  | MaxIm DL, RTS2 (FRAM)
    TAI       | TAI  | start  | SDSS frames
    CTIME     | unix | start  | RTS2 (FRAM)
    DATE-END  | date | end    | FITS standard, BlackBOX
    DATE_END  | date | end    |
    DATEEND   | date | end    |
    END-OBS   | date | end    |
    SHUTCLSD  | date | end    | ZTF
    MJD-END   | MJD  | end    | FITS standard, ESO, BlackBOX
    EXPEND    | MJD  | end    | HST (MJD), Siril (JD)
    JD-END    | JD   | end    |
    JDEND     | JD   | end    |
    MJDEND    | MJD  | end    |
""")
# Times of day that go with a date without one. As numbers they are hours below 24 and seconds from there on.
CLOCK = _rows("""
    TIME-OBS  | | start  | FITS of old, IRAF, SDSS, CCDSoft
    TIMEOBS   | | start  |
    TIME_OBS  | | start  |
    UTSTART   | | start  | LCO, Liverpool Telescope, Gemini
    UT-START  | | start  | Prism
    UTCSTART  | | start  |
    UT-OBS    | | start  |
    UT_OBS    | | start  |
    UTC-OBS   | | start  | CFHT
    UTCOBS    | | start  |
    UTIME     | | start  | CFHT
    TIME-BEG  | | start  |
    TM-START  | | start  | Calar Alto, Prism
    TM_START  | | start  | Calar Alto
    UT        | | start  | IRAF, AstroArt, Prism
    UTC       | | start  | ESO (seconds)
    TIME      | | start  |
    UTMIDDLE  | | middle | IRAF
    UT-MID    | | middle |
    UTMID     | | middle |
    TIME-END  | | end    | FITS of old
    UTSTOP    | | end    | LCO
    UTEND     | | end    | Gemini
    UT-END    | | end    | Prism
    TM-END    | | end    | Calar Alto
""")
NOT_TIME = _rows("""
    HJD       | JD   | heliocentric: up to 8.3 minutes off | IRAF
    HJD-OBS   | JD   | heliocentric: up to 8.3 minutes off |
    HJD_UTC   | JD   | heliocentric: up to 8.3 minutes off | AstroImageJ
    JD-HELIO  | JD   | heliocentric: up to 8.3 minutes off | MaxIm DL
    MJD-HELIO | MJD  | heliocentric: up to 8.3 minutes off |
    BJD       | JD   | barycentric: up to 8.4 minutes off |
    BJD_TDB   | JD   | barycentric: up to 8.4 minutes off | AstroImageJ
    DATE-LOC  | date | local time | N.I.N.A.
    DATE      | date | when the file was written | all
""")
TIME_SCALES = {"UTC": "utc", "UT": "utc", "UT1": "utc", "GMT": "utc", "Z": "utc"}
TIME_SCALES |= {scale: scale.lower() for scale in ("TT", "TAI", "TDB", "TCB", "TCG")} | {"TDT": "tt", "ET": "tt"}

EXPTIME = _rows("""
    EXPTIME   | s   | exposure | FITS convention, and nearly everybody
    EXPOSURE  | s   | exposure | MaxIm DL, N.I.N.A., Prism, AstroArt
    EXP_TIME  | s   | exposure |
    EXP-TIME  | s   | exposure |
    EXPTM     | s   | exposure |
    EXP1TIME  | s   | exposure | Subaru
    EXPOINUS  | us  | exposure | ASIAIR, ASICAP
    EXPOSED   | s   | exposure | Keck
    ITIME     | s   | exposure | Keck, IRTF
    INTTIME   | s   | exposure |
    INT_TIME  | s   | exposure |
    XPOSURE   | s   | exposure | FITS standard
    ONTIME    | s   | exposure |
    ELAPTIME  | s   | exposure | Keck
    EXP       | s   | exposure |
    TELAPSE   | s   | elapsed  | FITS standard
    TOTEXP    | s   | total    |
    TEXPTIME  | s   | total    | ESO
    LIVETIME  | s   | total    | Siril
""")
EXPOSURE_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "min": 60.0, "h": 3600.0, "d": 86400.0}
# Words for units of time. One letter, or "min", which may be the smallest, needs brackets, "in" before it or the end.
TIME_UNITS = re.compile(
    r"\b(?P<ms>ms|msecs?|milli-?sec(?:ond)?s?)\b|\b(?P<us>us|µs|usecs?|micro-?sec(?:ond)?s?)\b"
    r"|(?P<s>\b(?:secs?|seconde?s?|sekunden?|segundos?)\b|[\[(]\s*s\s*[\])]|(?:\bin|[,:])\s+s\b|\bs[.\s]*$)"
    r"|(?P<min>\bminut\w*|\bmins\b|\bmin\(s\)|[\[(]\s*min[.]?\s*[\])]|(?:\bin|[,:])\s+min\b|\bmin[.\s]*$)"
    r"|(?P<h>\bhours?\b|\bhrs?\b|[\[(]\s*h\s*[\])]|(?:\bin|[,:])\s+h\b|\bh[.\s]*$)"
    r"|(?P<d>[\[(]\s*d(?:ays?)?\s*[\])]|(?:\bin|[,:])\s+d(?:ays?)?\b|^d(?:ays?)?$)"
)
# EXP may as well number the exposures.
COUNTER = re.compile(r"\bnumber|\bno\.|\bid\b|\bcount|\bindex|\bsequence")
FRAMES = _rows("""
    NCOMBINE  | | frames in a stack | IRAF, ESO, SWarp
    NCOMB     | | frames in a stack |
    STACKCNT  | | frames in a stack | Siril
    SNAPSHOT  | | frames in a stack | MaxIm DL
    NUMFRAME  | | frames in a stack |
    NFRAMES   | | frames in a stack |
    NSTACK    | | frames in a stack |
    NIMAGES   | | frames in a stack |
    COADDS    | | frames in a stack | Keck, Subaru
""")
GAIN = _rows("""
    EGAIN     | e-/ADU | gain | MaxIm DL, N.I.N.A., SharpCap, TheSkyX
    CVF       | e-/ADU | gain | Prism, Siril
    GAINEFF   | e-/ADU | gain of a stack |
    GAIN_EFF  | e-/ADU | gain of a stack |
    EPERADU   | e-/ADU | gain |
    EPERDN    | e-/ADU | gain |
    E_PER_DN  | e-/ADU | gain |
    ESO DET OUT1 CONAD | e-/ADU | gain | ESO
    CONAD     | e-/ADU | gain |
    CCD_GAIN  | e-/ADU | gain |
    CCDGAIN   | e-/ADU | gain | HST
    ATODGAIN  | e-/ADU | gain | HST
    GAIN      | e-/ADU | gain, or the camera's setting | nearly everybody
    GAINA     | e-/ADU | gain of one amplifier | DECam
    GAINB     | e-/ADU | gain of one amplifier | DECam
    GAIN1     | e-/ADU | gain of one amplifier |
    GAIN2     | e-/ADU | gain of one amplifier |
    DETGAIN   | e-/ADU | gain |
    CELL.GAIN | e-/ADU | gain | Pan-STARRS
    ESO DET OUT1 GAIN | ADU/e- | its inverse | ESO
""")
READNOISE = _rows("""
    RDNOISE   | e- | read noise | IRAF, NOIRLab, LCO, NOT
    READNOIS  | e- | read noise | Liverpool Telescope
    READNOI   | e- | read noise | ZTF
    READNOISE | e- | read noise |
    RDNOISEA  | e- | read noise of one amplifier | DECam
    RON       | e- | read noise |
    RN        | e- | read noise |
    ENOISE    | e- | read noise |
    CELL.READNOISE     | e- | read noise | Pan-STARRS
    ESO DET OUT1 RON   | e- | read noise | ESO
""")
SATURATION = _rows("""
    SATURATE  | ADU | saturation | SWarp, SExtractor, ZTF, LCO, GOTO, ATLAS
    SATURATION| ADU | saturation |
    SATLEVEL  | ADU | saturation |
    SATUR_LEVEL        | ADU | saturation |
    SATURLEV  | ADU | saturation |
    SATURA    | ADU | saturation |
    SATURATA  | ADU | saturation of one amplifier | DECam
    SATURATB  | ADU | saturation of one amplifier | DECam
    SATURATN  | ADU | saturation | Liverpool Telescope
    SATCOUNT  | ADU | saturation |
    CELL.SATURATION    | ADU | saturation | Pan-STARRS
    MAXLIN    | ADU | end of linearity | CFHT, LCO
    DATAMAX   | ADU | largest pixel, or largest good value | FITS standard, IRAF
""")
FILTER = _rows("""
    FILTER    | | filter | nearly everybody
    FILTERS   | | filter | IRAF, Prism
    FILTER1   | | filter wheel | Gemini, Liverpool Telescope, LCO
    FILTER2   | | filter wheel | Gemini, Liverpool Telescope, LCO
    FILTER3   | | filter wheel | LCO
    FILTER01  | | filter | Subaru
    FILTNAM   | | filter |
    FILTNAM1  | | filter | HST
    FILTNAME  | | filter | SkyMapper
    FILTERNM  | | filter |
    CAMFILT   | | filter |
    INSFLNAM  | | filter | Calar Alto
    FILT      | | filter |
    BAND      | | filter |
    WFFBAND   | | filter | Isaac Newton Telescope
    ALFLTNM   | | filter wheel | NOT
    FAFLTNM   | | filter wheel | NOT
    FBFLTNM   | | filter wheel | NOT
    ESO INS FILT1 NAME | | filter | ESO
    FPA.FILTER         | | filter | Pan-STARRS
    FPA.FILTERID       | | filter | Pan-STARRS
    FILTERID  | | filter | Pan-STARRS
    SURVEY    | | filter | SkyView
""")
OBSERVATORY = _rows("""
    OBSCODE   | | IAU code |
    MPCCODE   | | IAU code |
    MPC_CODE  | | IAU code |
    IAUCODE   | | IAU code |
""")
POINTING = (
    ("RA", "DEC"),
    ("OBJCTRA", "OBJCTDEC"),
    ("CRVAL1", "CRVAL2"),
    ("RA_OBJ", "DEC_OBJ"),
    ("OBJRA", "OBJDEC"),
    ("TELRA", "TELDEC"),
    ("RA_TEL", "DEC_TEL"),
    ("CAT-RA", "CAT-DEC"),
    ("RA-D", "DEC-D"),
    ("RADEG", "DECDEG"),
)
SCALE = _rows("""
    PIXSCALE  | arcsec | pixel scale | SkyMapper, FRAM, Liverpool Telescope
    SECPIX    | arcsec | pixel scale |
    PIXSCAL1  | arcsec | pixel scale | DECam
    IM_SCALE  | arcsec | pixel scale |
    IMSCALE   | arcsec | pixel scale |
    SECPIX1   | arcsec | pixel scale |
    CCDSCALE  | arcsec | pixel scale | Liverpool Telescope
    SCALE     | arcsec | pixel scale | Ekos, ASTAP
    PLTSCALE  | arcsec | pixel scale |
""")
# Micrometres
PIXEL_SIZE = ("XPIXSZ", "XPIXELSZ", "PIXSIZE1", "PIXSIZE", "PIXSZ")

# Cameras and programs whose GAIN is a setting of the amplifier, not e-/ADU.
SETTING_CAMERAS = re.compile(
    r"\b(zwo|asi ?\d|qhy|touptek|player one|svbony|altair|omegon|moravian c\d)|\btoupcam", re.IGNORECASE
)
SETTING_WRITERS = re.compile(
    r"n\.i\.n\.a|\bnina\b|sharpcap|asiair|asistudio|asicap|firecapture|ekos|kstars|\bindi\b|siril"
    r"|astro photography tool|\bapt\b|voyager|sequence generator",
    re.IGNORECASE,
)
CAMERA_KEYS = ("INSTRUME", "CAMERA", "DETECTOR", "DETNAME")
WRITER_KEYS = ("SWCREATE", "CREATOR", "PROGRAM", "SOFTWARE", "SWOWNER")

# Projections: those that are solved for, and why others are not.
PROJECTIONS = ("TAN", "TPV", "SIN", "ARC", "STG", "ZEA", "ZPN", "NCP", "AIR", "CAR", "MER", "CEA", "AIT", "SFL", "MOL")
REFUSED_PROJECTIONS = {
    "TNX": "its polynomial stands in IRAF's WAT cards, which are no part of the FITS standard",
    "ZPX": "its polynomial stands in IRAF's WAT cards, which are no part of the FITS standard",
    "DSS": "it is a Schmidt plate's polynomial (AMDX, AMDY), which is no part of the FITS standard",
    "HPX": "it is that of an all-sky map",
    "XPH": "it is that of an all-sky map",
}
