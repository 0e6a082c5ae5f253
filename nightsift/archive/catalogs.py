"""The catalogues: where VizieR keeps each, what its columns are, and which of its rows and magnitudes are good.

A magnitude without an error is an upper limit or a single doubtful measurement in all of them, and is left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from astropy import units as u
from astropy.table import Table

from nightsift.statistics import MAG
from nightsift.tables import column

# Of how rows are judged and columns made, for the names of the cells: to be raised with every change of that.
REVISION = 1
_MJD_2000 = 51544.5
_EVERYWHERE = (-90.0, 90.0)
_DEEP_ENOUGH = 12.0


@dataclass(frozen=True)
class Survey:
    """One catalogue.

    Attributes
    ----------
    title : str
    table : str
        In VizieR.
    position : pair of str
        Columns of right ascension and declination, ICRS.
    magnitudes : dict
        Column by band.
    limit : str
        The column that the faintest magnitude applies to.
    epoch : float
        Julian year of the positions.
    motion : bool
        Whether there are pmRA and pmDE.
    fluxes : bool
        Whether errors are those of fluxes: F<band> and e_F<band>.
    quality : tuple of str
        Columns that `good` and `valid` look at, and Epoch [MJD]. A service may leave them out: then nothing is known
        against a row.
    good : callable
        Which rows to keep, from the table.
    valid : callable
        Which values of a band to keep, from the table and the band.
    brightest : dict
        Magnitude by band above which the survey saturates.
    declinations : pair of float
        Where it has observed at all; it need not have all of that.
    complete : pair of float or None
        Declinations between which a cell without any star is no answer.
    control : pair of float or None
        Where a survey that is complete nowhere has stars for certain [deg].
    """

    title: str
    table: str
    position: tuple[str, str]
    magnitudes: dict[str, str]
    limit: str
    epoch: float = 2000.0
    motion: bool = False
    fluxes: bool = False
    quality: tuple[str, ...] = ()
    good: Callable[[Table], np.ndarray] = lambda table: np.ones(len(table), bool)
    valid: Callable[[Table, str], np.ndarray] = lambda table, band: np.ones(len(table), bool)
    brightest: dict[str, float] = field(default_factory=dict)
    declinations: tuple[float, float] = _EVERYWHERE
    complete: tuple[float, float] | None = None
    control: tuple[float, float] | None = None

    @property
    def needed(self) -> list[str]:
        """The columns without which a reply is of no use."""
        motion = ["pmRA", "pmDE"] if self.motion else []
        magnitudes = [name for item in self.magnitudes.items() for name in (item[1], *self.errors(*item))]
        return [*self.position, *motion, *magnitudes]

    def errors(self, band: str, name: str) -> tuple[str, ...]:
        """Return the column of a magnitude's error; of fluxes, those of the flux's error and of the flux."""
        return (f"e_F{band}", f"F{band}") if self.fluxes else (f"e_{name}",)

    @property
    def version(self) -> str:
        """Changes with what is asked for and kept, so that older cells are not taken for newer ones."""
        asked = [self.table, self.needed, self.limit, self.quality]
        values = [REVISION, *asked, self.epoch, sorted(self.brightest.items())]
        return hashlib.sha256(repr(values).encode()).hexdigest()[:8]

    def must_have_stars(self, dec: float, radius: float, faintest: float) -> bool:
        """Return whether a cone [deg] without any star cannot be true."""
        if self.complete is None or faintest < _DEEP_ENOUGH:
            return False
        return self.complete[0] < dec - radius and dec + radius < self.complete[1]


def _known(table: Table, name: str, fallback: float) -> np.ndarray:
    return np.nan_to_num(column(table, name), nan=fallback)


def _bits(table: Table, name: str) -> np.ndarray:
    return _known(table, name, 0).astype(np.int64)


def _good_in_ps1(table: Table) -> np.ndarray:
    # 4: good measurement, 16: good in the stack (Flewelling et al. 2020, ApJS 251, 7, objInfoFlag / qualityFlag)
    return (_bits(table, "Qual") & (4 | 16) != 0) if "Qual" in table.colnames else np.ones(len(table), bool)


def _in_range_of_gspc(table: Table, band: str) -> np.ndarray:
    # 1 = within the validated range of the synthetic photometry (Montegriffo et al. 2023, A&A 674, A33)
    return _known(table, f"{band}Flag", 1) == 1


def _few_flags_in_des(table: Table, band: str) -> np.ndarray:
    # SExtractor's: up to 3 is crowded or deblended, more is saturated or broken
    return _known(table, "YFlag" if band == "y" else f"{band}Flag", 0) < 4


def _same(bands: str, pattern: str = "{}mag") -> dict[str, str]:
    return {band: pattern.format(band) for band in bands.split()}


SURVEYS = {
    "ps1": Survey(
        "Pan-STARRS DR1",
        "II/349/ps1",
        ("RAJ2000", "DEJ2000"),
        _same("g r i z y"),
        "rmag",
        epoch=2012.0,
        quality=("Qual", "Epoch"),
        good=_good_in_ps1,
        # Magnier et al. 2020, ApJS 251, 6
        brightest={"g": 13.5, "r": 13.5, "i": 13.5, "z": 13.0, "y": 12.0},
        declinations=(-31.0, 90.0),
        complete=(-28.0, 90.0),
    ),
    "skymapper": Survey(
        "SkyMapper DR4",
        "II/379/smssdr4",
        ("RAICRS", "DEICRS"),
        _same("u g r i z", "{}PSF"),
        "rPSF",
        epoch=2018.0,
        quality=("flags",),
        good=lambda table: _bits(table, "flags") < 4,
        brightest={band: 9.0 for band in "ugriz"},
        declinations=(-90.0, 20.0),
        control=(150.0, -45.0),
    ),
    "atlas": Survey(
        "ATLAS-REFCAT2",
        "J/ApJ/867/105/refcat2",
        ("RA_ICRS", "DE_ICRS"),
        _same("g r i z J G") | {"Ks": "Kmag"},
        "rmag",
        epoch=2015.5,
        motion=True,
        quality=("dupvar",),
        good=lambda table: _bits(table, "dupvar") != 2,
        complete=_EVERYWHERE,
    ),
    "gaiaedr3": Survey(
        "Gaia eDR3",
        "I/350/gaiaedr3",
        ("RA_ICRS", "DE_ICRS"),
        _same("G BP RP"),
        "Gmag",
        epoch=2016.0,
        motion=True,
        complete=_EVERYWHERE,
    ),
    "gaiadr3syn": Survey(
        "Gaia DR3 synthetic photometry",
        "I/360/syntphot",
        ("RA_ICRS", "DE_ICRS"),
        _same("U B V R I u g r i z y"),
        "rmag",
        epoch=2016.0,
        fluxes=True,
        quality=tuple(f"{band}Flag" for band in "UBVRIugrizy"),
        valid=_in_range_of_gspc,
        complete=_EVERYWHERE,
    ),
    "sdss": Survey(
        "SDSS DR16",
        "V/154/sdss16",
        ("RA_ICRS", "DE_ICRS"),
        _same("u g r i z"),
        "rmag",
        epoch=2005.0,
        quality=("mode", "class"),
        # the primary observation of each object, stars (6) only
        good=lambda table: (_known(table, "mode", 1) == 1) & (_known(table, "class", 6) == 6),
        # Gunn et al. 1998, AJ 116, 3040
        brightest={"u": 12.0, "g": 14.1, "r": 14.1, "i": 13.8, "z": 12.3},
        declinations=(-26.0, 86.0),
        control=(180.0, 30.0),
    ),
    "2mass": Survey(
        "2MASS",
        "II/246/out",
        ("RAJ2000", "DEJ2000"),
        _same("J H") | {"Ks": "Kmag"},
        "Jmag",
        epoch=1999.5,
        complete=_EVERYWHERE,
    ),
    "vhs": Survey(
        "VISTA Hemisphere Survey DR5",
        "II/367/vhs_dr5",
        ("RAJ2000", "DEJ2000"),
        _same("J H Ks", "{}ap3"),
        "Jap3",
        epoch=2013.0,
        brightest={"J": 12.0, "H": 12.0, "Ks": 11.5},
        declinations=(-90.0, 5.0),
        control=(30.0, -50.0),
    ),
    "des": Survey(
        "DES DR2",
        "II/371/des_dr2",
        ("RA_ICRS", "DE_ICRS"),
        _same("g r i z") | {"y": "Ymag"},
        "rmag",
        epoch=2016.0,
        quality=("ExtClsCoad", *(f"{band}Flag" for band in "grizY")),
        # 0 and 1 are stars for certain and likely ones (Abbott et al. 2021, ApJS 255, 20)
        good=lambda table: _known(table, "ExtClsCoad", 0) <= 1,
        valid=_few_flags_in_des,
        brightest={"g": 16.0, "r": 16.0, "i": 16.0, "z": 16.0, "y": 15.0},
        declinations=(-70.0, 10.0),
        control=(52.5, -28.0),
    ),
}


def stars(raw: Table, survey: Survey) -> Table:
    """Return what a survey's rows say in the columns of a local catalogue.

    Parameters
    ----------
    raw : Table
        The survey's own columns.
    survey : Survey

    Returns
    -------
    Table
        ``ra dec`` [deg], ``pmRA pmDE`` [mas/yr] where the survey has them, ``epoch`` [yr], and ``<band>mag``,
        ``e_<band>mag`` in the survey's own system [mag], NaN where not measured well.
    """
    raw = raw[survey.good(raw)]
    ra, dec = (column(raw, name) for name in survey.position)
    keep = np.isfinite(ra) & np.isfinite(dec)
    raw = raw[keep]
    table = Table({"ra": ra[keep] % 360, "dec": dec[keep]}, units={"ra": u.deg, "dec": u.deg})
    if survey.motion:
        for name in ("pmRA", "pmDE"):
            table[name] = column(raw, name) * (u.mas / u.yr)
    table["epoch"] = _epochs(raw, survey) * u.yr
    for band, name in survey.magnitudes.items():
        mag, error = column(raw, name), _magnitude_error(raw, survey, band, name)
        usable = survey.valid(raw, band) & np.isfinite(error) & (mag > survey.brightest.get(band, -np.inf))
        table[f"{band}mag"] = np.where(usable, mag, np.nan) * u.mag
        table[f"e_{band}mag"] = np.where(usable, error, np.nan) * u.mag
    return table


def _epochs(raw: Table, survey: Survey) -> np.ndarray:
    mjd = column(raw, "Epoch") if "Epoch" in survey.quality else np.full(len(raw), np.nan)
    plausible = (mjd > 40000) & (mjd < 70000)
    return np.where(plausible, 2000 + (mjd - _MJD_2000) / 365.25, survey.epoch)


def _magnitude_error(raw: Table, survey: Survey, band: str, name: str) -> np.ndarray:
    error, *flux = (column(raw, part) for part in survey.errors(band, name))
    if not flux:
        return error
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(flux[0] > 0, MAG * error / flux[0], np.nan)


def empty(survey: Survey) -> Table:
    """Return the table of `stars` without rows."""
    return stars(Table({name: [] for name in survey.needed}, dtype=[float] * len(survey.needed)), survey)


def faintest(radius: float) -> float:
    """Return the faintest magnitude that an image of this radius [deg] is given, where nothing else is asked for.

    The wider the field, the coarser its pixels and the shallower the image; and the more stars there are.
    """
    return 20.0 if radius <= 1.5 else 17.0 if radius <= 4.0 else 14.0


def order(faintest: float) -> int:
    """Return the order of the cells, 0.5, 1.8 or 3.7 deg wide: some 10,000 stars a cell, 100,000 in the Milky Way."""
    return 7 if faintest > 17.0 else 5 if faintest > 14.0 else 4


def suitable(band: str | None, dec: float, faintest: float) -> tuple[str, ...]:
    """Return the surveys for an image's band and declination, the best first: the next is for where that has nothing.

    The choice is that of STDWeb (arXiv:2411.16470), but for u, which Pan-STARRS has not, and for wide fields, whose
    stars are too bright for Pan-STARRS and SkyMapper.
    """
    if band in ("U", "B", "V", "R", "I", "u"):
        return ("gaiadr3syn",)
    if band in ("G", "BP", "RP"):
        return ("gaiaedr3",)
    if band in ("J", "H", "Ks"):
        return ("vhs", "2mass") if dec < 0 and faintest > 14 else ("2mass",)
    if faintest <= 14:
        return ("atlas",)
    return ("ps1", "atlas") if dec > -30 else ("skymapper", "atlas")
