"""What the services know near the candidates of a campaign: each question is asked once."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from astropy.table import Table

from nightsift import parameters
from nightsift.archive import objects, skybot, xmatch
from nightsift.archive.cache import Missing
from nightsift.archive.cells import around
from nightsift.archive.library import Library
from nightsift.archive.tables import empty
from nightsift.errors import Unavailable
from nightsift.sources import known

REACH = 15 / 3600  # deg beyond the radius of the match: a proper motion of 0.5 arcsec/yr since 2000
SKYBOT_ORDER = 3  # HEALPix order of the cells that SkyBoT is asked for where the image is too large for it: 7 deg


@dataclass(frozen=True)
class ImageCandidates:
    """The candidates of an image, when it was taken, and where it looks.

    Attributes
    ----------
    name : str
    table : Table
        With ``ra, dec`` [deg].
    mjd : float or None
    observatory : str or None
        Its code.
    cone : tuple of float or None
        Centre and radius [deg] of the image.
    """

    name: str
    table: Table
    mjd: float | None = None
    observatory: str | None = None
    cone: tuple[float, float, float] | None = None


def annotate(
    images: list[ImageCandidates], params: parameters.KnownConfig, library: Library
) -> tuple[Table, dict[str, list[Unavailable]]]:
    """Return the table of all candidates with what is known, schema ``known``, and the problems by service.

    Parameters
    ----------
    images : list of ImageCandidates
    params : parameters.KnownConfig
    library : Library
        From which answers come, or through which services are asked.
    """
    starts = np.cumsum([0, *(len(image.table) for image in images)])
    filled = [image for image in images if len(image.table)]
    everyone = Table({"image": np.repeat([image.name for image in images], np.diff(starts)).astype(str)})
    everyone["row"] = np.concatenate([np.arange(len(image.table)) for image in images] or [[]]).astype(int)
    for name in ("ra", "dec"):
        everyone[name] = np.concatenate([np.asarray(image.table[name], float) for image in filled] or [np.zeros(0)])
    columns, desk = known.blank(len(everyone)), _Desk(library)
    ra, dec = (np.asarray(everyone[name]) for name in ("ra", "dec"))
    placed = np.isfinite(ra) & np.isfinite(dec)
    where = [np.flatnonzero(placed[low:high]) + low for low, high in itertools.pairwise(starts)]
    for service in params.services:
        if service == "tns" and not objects.tns_key(library):
            continue
        questions = _all_questions(service, images, where, ra, dec, params)
        radius = params.asteroid_radius if service == "skybot" else params.radius
        for image, rows in zip(images, where, strict=True):
            answered, found = desk.answers_for(columns[f"{service}_status"], service, rows, questions)
            if len(answered):
                known.enter(columns, service, answered, found, image.mjd, everyone, radius)
    for name, values in columns.items():
        everyone[name] = values
    return everyone, desk.problems


def _solar_system(image, ra, dec, params):
    """Return for each candidate of an image the questions to SkyBoT, None where it cannot be asked."""
    if image.mjd is None or image.cone is None:
        return [None] * len(ra)
    rest = image.mjd, image.observatory or params.observatory or skybot.GEOCENTER
    if image.cone[2] <= skybot.LARGEST:
        return [[(image.cone, *rest)]] * len(ra)
    near = [around(a, d, params.asteroid_radius / 3600, SKYBOT_ORDER) for a, d in zip(ra, dec, strict=True)]
    return [[(cell.cone(), *rest) for cell in cells] for cells in near]


def _cells(ra, dec, params):
    """Return for each position the cells that hold what may be near it."""
    reach = params.radius / 3600 + REACH
    return [around(a, d, reach, objects.ORDER) for a, d in zip(ra, dec, strict=True)]


def _pieces(survey, ra, dec):
    """Return for each position the questions to the cross-match: one for many positions in the same part of the sky."""
    numbers = xmatch.cells(ra, dec)
    questions = {}
    for number in np.unique(numbers).tolist():
        questions.setdefault(number >> 2 * (xmatch.ORDER - 4), []).append(number)
    piece = {}
    for members in questions.values():
        for start in range(0, len(members), xmatch.MOST):
            part = tuple(members[start : start + xmatch.MOST])
            piece |= dict.fromkeys(part, part)
    inside = xmatch.covers(survey, dec)
    return [[piece[number]] if covered else None for number, covered in zip(numbers.tolist(), inside, strict=True)]


class _Desk:
    """Asks each question once, and keeps what it was answered and what went wrong."""

    def __init__(self, library: Library):
        self.library = library
        self.answers: dict = {}
        self.problems: dict[str, list[Unavailable]] = {}

    def ask(self, service, question):
        if (service, question) not in self.answers:
            self.answers[service, question] = self._ask(service, question)
        return self.answers[service, question]

    def _ask(self, service, question):
        try:
            if service == "skybot":
                return objects.moving(*question, self.library)
            if service in xmatch.TABLES:
                return objects.beside(service, question, self.library)
            return objects.in_cell(service, question, self.library)
        except Unavailable as error:
            self.problems.setdefault(service, []).append(error)
            return error

    def answers_for(self, status, service: str, rows, questions: dict) -> tuple[np.ndarray, Table]:
        """Return which candidates of `rows` are answered and the objects near them; `status` gets what is not."""
        rows = [row for row in rows.tolist() if row in questions]
        answers = {question: self.ask(service, question) for row in rows for question in questions[row]}
        bad = {question: error for question, error in answers.items() if isinstance(error, Unavailable)}
        answered = []
        for row in rows:
            wrong = [bad[question] for question in questions[row] if question in bad]
            if wrong:
                # What is not in the cache of a run that is offline has not been asked.
                asked = not all(isinstance(error, Missing) for error in wrong)
                status[row] = known.FAILED if asked else known.NOT_ASKED
            else:
                answered.append(row)
        return np.array(answered, int), _join([table for question, table in answers.items() if question not in bad])


def _join(tables):
    """Return the objects of several answers in one table."""
    rows = [table for table in tables if len(table)]
    if not rows:
        return empty()
    names = rows[0].colnames
    return Table([np.concatenate([np.asarray(table[name]) for table in rows]) for name in names], names=names)


def _all_questions(service, images, where, ra, dec, params):
    """Return by row of a candidate what a service is to be asked about it; nothing where it cannot be asked."""
    if service == "skybot":
        parts = [
            (rows, _solar_system(image, ra[rows], dec[rows], params)) for image, rows in zip(images, where, strict=True)
        ]
    else:
        rows = np.concatenate([*where, np.zeros(0, int)])
        large = service in xmatch.TABLES
        parts = [(rows, _pieces(service, ra[rows], dec[rows]) if large else _cells(ra[rows], dec[rows], params))]
    found = {row: question for rows, asked in parts for row, question in zip(rows.tolist(), asked, strict=True)}
    return {row: question for row, question in found.items() if question}
