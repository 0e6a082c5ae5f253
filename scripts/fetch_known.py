"""Ask services, or the cache, what is known near the candidates of a campaign."""

import itertools
import sys
import time
from pathlib import Path

import numpy as np
from astropy.table import Table
from astropy.wcs import WCS

from nightsift import parameters
from nightsift.archive import objects, skybot, xmatch
from nightsift.archive.cache import Missing
from nightsift.archive.cells import around
from nightsift.archive.library import Library
from nightsift.archive.tables import empty
from nightsift.catalog.catalog import field
from nightsift.errors import Rejected, Unavailable, Unreadable
from nightsift.io import products
from nightsift.sources import known
from nightsift.workflow import results

# A proper motion of 0.5 arcsec/yr since 2000, beyond the radius of the match.
REACH = 15 / 3600
SKYBOT_ORDER = 3


class Image:
    """The candidates of an image, when it was taken, and where it looks."""

    def __init__(self, name, folder):
        self.name = name
        try:
            finished = results.read_state(folder)["status"] != "error"
            self.table = results.read_rows(folder / "candidates.fits", "candidates") if finished else []
            facts = results.read_facts(folder, "inspect")
            header = results.read_wcs_header(folder / "wcs.fits") if len(self.table) else None
        except Unreadable as problem:
            results.give_up("fetch_known", problem)
            self.table, facts, header = [], {}, None
        self.mjd, shape, self.observatory = (facts.get(key) for key in ("mjd", "shape", "observatory"))
        try:
            self.cone = field(WCS(header, relax=True), shape, 0.0) if header and shape else None
        except Rejected:
            self.cone = None


def solar_system(image, ra, dec, params):
    """Return for each candidate of an image the questions to SkyBoT, None where it cannot be asked."""
    if image.mjd is None or image.cone is None:
        return [None] * len(ra)
    rest = image.mjd, image.observatory or params.observatory or skybot.GEOCENTER
    if image.cone[2] <= skybot.LARGEST:
        return [[(image.cone, *rest)]] * len(ra)
    near = [around(a, d, params.asteroid_radius / 3600, SKYBOT_ORDER) for a, d in zip(ra, dec, strict=True)]
    return [[(cell.cone(), *rest) for cell in cells] for cells in near]


def cells(ra, dec, params):
    """Return for each position the cells that hold what may be near it."""
    reach = params.radius / 3600 + REACH
    return [around(a, d, reach, objects.ORDER) for a, d in zip(ra, dec, strict=True)]


def pieces(survey, ra, dec):
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


class Desk:
    """Asks each question once, and keeps what it was answered and what went wrong."""

    def __init__(self, library, params):
        self.library, self.params = library, params
        self.answers, self.problems = {}, {}

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


def join(tables):
    """Return the objects of several answers in one table."""
    rows = [table for table in tables if len(table)]
    if not rows:
        return empty()
    names = rows[0].colnames
    return Table([np.concatenate([np.asarray(table[name]) for table in rows]) for name in names], names=names)


def annotate(images, params, library):
    """Return the table of all candidates with what is known, and the problems by service."""
    starts = np.cumsum([0, *(len(image.table) for image in images)])
    filled = [image for image in images if len(image.table)]
    everyone = Table({"image": np.repeat([image.name for image in images], np.diff(starts)).astype(str)})
    everyone["row"] = np.concatenate([np.arange(len(image.table)) for image in images] or [[]]).astype(int)
    for name in ("ra", "dec"):
        everyone[name] = np.concatenate([np.asarray(image.table[name], float) for image in filled] or [np.zeros(0)])
    columns, desk = known.blank(len(everyone)), Desk(library, params)
    ra, dec = (np.asarray(everyone[name]) for name in ("ra", "dec"))
    placed = np.isfinite(ra) & np.isfinite(dec)
    where = [np.flatnonzero(placed[low:high]) + low for low, high in itertools.pairwise(starts)]
    for service in params.services:
        if service == "tns" and not objects.tns_key(library):
            continue
        questions = all_questions(service, images, where, ra, dec, params)
        radius = params.asteroid_radius if service == "skybot" else params.radius
        for image, rows in zip(images, where, strict=True):
            label(columns, service, rows, questions, desk, image.mjd, everyone, radius)
    for name, values in columns.items():
        everyone[name] = values
    return everyone, desk.problems


def all_questions(service, images, where, ra, dec, params):
    """Return by row of a candidate what a service is to be asked about it; nothing where it cannot be asked."""
    if service == "skybot":
        parts = [
            (rows, solar_system(image, ra[rows], dec[rows], params)) for image, rows in zip(images, where, strict=True)
        ]
    else:
        rows = np.concatenate([*where, np.zeros(0, int)])
        large = service in xmatch.TABLES
        parts = [(rows, pieces(service, ra[rows], dec[rows]) if large else cells(ra[rows], dec[rows], params))]
    found = {row: question for rows, asked in parts for row, question in zip(rows.tolist(), asked, strict=True)}
    return {row: question for row, question in found.items() if question}


def label(columns, service, rows, questions, desk, mjd, candidates, radius):
    """Enter what a service answers about candidates of one image."""
    rows = np.array([row for row in rows.tolist() if row in questions], int)
    answers = {question: desk.ask(service, question) for row in rows.tolist() for question in questions[row]}
    bad = {question: error for question, error in answers.items() if isinstance(error, Unavailable)}
    good = []
    for row in rows.tolist():
        wrong = [bad[question] for question in questions[row] if question in bad]
        if wrong:
            # What is not in the cache of a run that is offline has not been asked.
            asked = not all(isinstance(error, Missing) for error in wrong)
            columns[f"{service}_status"][row] = known.FAILED if asked else known.NOT_ASKED
        else:
            good.append(row)
    if good:
        found = join([table for question, table in answers.items() if question not in bad])
        known.enter(columns, service, np.array(good), found, mjd, candidates, radius)


def parser():
    parser = results.parser("fetch_known", __doc__)
    parser.add_argument("--known", type=Path, required=True, help="output, table:known")
    parser.add_argument("--partial", action="store_true", help="write it even if a service is down")
    return parser


def main(arguments=None):
    start = time.perf_counter()
    options = parser().parse_args(arguments)
    params = parameters.KnownConfig(**options.params)
    names = sorted(results.read_names(options.images))
    images = [Image(name, options.results / "images" / name) for name in names]
    table, problems = annotate(images, params, Library.from_environment())
    for service, errors in problems.items():
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        text = f"{errors[0]}{more}; the next run asks again"
        print(f"fetch_known: {known.SERVICES[service].title}: {text}", file=sys.stderr)
    if problems and not options.partial:
        return 1
    provenance = products.Provenance("fetch_known", options.code, options.params)
    products.write_table(options.known, table, "known", provenance)
    if not options.partial:
        options.known.with_name("known_partial.ecsv").unlink(missing_ok=True)
    print(f"fetch_known: {len(table)} candidates in {time.perf_counter() - start:.1f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
