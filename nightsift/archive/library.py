"""What an image needs of the archives: from the cache, and from the services what is not in it yet."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Callable, Iterator

from astropy.io import fits
from astropy.table import Table, vstack

from nightsift import parameters
from nightsift.archive import bricks, catalogs, hips, skycells, vizier, votable
from nightsift.archive.cache import Cache, Missing, default_folder
from nightsift.archive.cells import Cell, around
from nightsift.archive.http import BadReply, ServiceDown, Session
from nightsift.errors import Unavailable

SETTINGS = "NIGHTSIFT_ARCHIVE"
SERVERS = {module.SERVICE: module.SERVERS for module in (vizier, skycells, bricks, hips)}
_DEEPEST = 12
_NAMED = 5


class Library:
    """The cache and the services behind it.

    Parameters
    ----------
    settings : nightsift.parameters.Archive
    offline : bool
        Ask nothing.
    """

    def __init__(self, settings: parameters.ArchiveConfig, offline: bool = False):
        self.settings, self.offline = settings, offline
        self.cache = Cache(settings.cache or default_folder())

    @classmethod
    def from_environment(cls) -> Library:
        """Return the library that the workflow's configuration asks for.

        It comes by the environment because it decides how something is got, not what it is: no product depends on it.
        """
        given = json.loads(os.environ.get(SETTINGS) or "{}")
        return cls(parameters.ArchiveConfig(**given.get("archive", {})), bool(given.get("offline", False)))

    def get(self, key: str, title: str, ask: Callable[[], tuple[bytes, dict]]):
        """Return the file of a key, asking for it where it is not in the cache; `title` says what it is."""
        if self.offline:
            path = self.cache.find(key)
            if path is None:
                raise Missing(f"{title} is not in the cache {self.cache.folder}, and this run is offline")
            return path
        return self.cache.get(key, ask)

    def servers(self, service: str) -> list[str]:
        """Return where a service is, and its mirrors."""
        given = (self.settings.servers or {}).get(service)
        return [given] if isinstance(given, str) else list(given or SERVERS.get(service, ()))

    @contextlib.contextmanager
    def session(self, service: str, check: Callable[[bytes], None]) -> Iterator[Session]:
        """Yield a session with a service, as one of the few that may be open at once.

        A service that this run has just found down is left alone: not every image waits for the same time-outs.
        """
        servers = self.servers(service)
        with self.cache.turn(service, self.settings.parallel):
            down = self.cache.known_down(service)
            if down:
                raise ServiceDown(down)
            with Session(service, servers, self.settings, check) as session:
                try:
                    yield session
                except ServiceDown as error:
                    self.cache.note_down(service, str(error))
                    raise

    def stars(self, name: str, cone: tuple[float, float, float], faintest: float) -> tuple[Table, dict[str, str]]:
        """Return a survey's stars in all cells that a cone touches, and the digests of their files by key.

        Parameters
        ----------
        name : str
            Of `surveys.SURVEYS`.
        cone : tuple of float
            Right ascension, declination and radius [deg].
        faintest : float
            [mag]

        Raises
        ------
        Unavailable
            After all cells that can be had are in the cache; the message says how many are not, and why.
        """
        survey = catalogs.SURVEYS[name]
        low, high = survey.declinations
        tables, digests, failures = [], {}, {}
        for cell in around(*cone, catalogs.order(faintest)):
            _, dec, radius = cell.cone()
            if dec + radius < low or dec - radius > high:
                continue
            try:
                key, table, digest = self._cell(name, cell, faintest)
            except ServiceDown as error:
                failures[cell.name] = error
                break
            except Unavailable as error:
                failures[cell.name] = error
                continue
            tables.append(table)
            digests[key] = digest
        if failures:
            raise summary(survey.title, failures, len(tables))
        return vstack([catalogs.empty(survey), *tables]), digests

    def _cell(self, name: str, cell: Cell, faintest: float) -> tuple[str, Table, str]:
        survey = catalogs.SURVEYS[name]
        key = f"catalogs/{name}-{survey.version}/{faintest:g}/{cell.name}.fits"
        path = self.get(key, f"cell {cell.name} of {survey.title}", lambda: self._ask_cell(name, cell, faintest))
        with fits.open(path, memmap=False) as hdus:
            table, digest = Table.read(hdus[1], mask_invalid=False), hdus[1].header["DATASUM"]
        table.meta.clear()
        return key, table, digest

    def _ask_cell(self, name: str, cell: Cell, faintest: float) -> tuple[bytes, dict]:
        survey = catalogs.SURVEYS[name]
        try:
            with self.session(vizier.SERVICE, votable.check) as session:
                table = vizier.cell_stars(survey, cell, faintest, session)
        except votable.Overflow:
            if cell.order >= _DEEPEST:
                raise BadReply(f"VizieR does not send all stars of {survey.title}, however small the piece") from None
            table = vstack([self._cell(name, part, faintest)[1] for part in cell.children()])
        hdu = fits.table_to_hdu(table)
        hdu.header["SURVEY"], hdu.header["VIZIER"] = survey.title, survey.table
        hdu.header["CELL"], hdu.header["FAINTEST"] = cell.name, faintest
        hdu.add_datasum()
        content = io.BytesIO()
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(content)
        return content.getvalue(), {"survey": survey.title, "table": survey.table, "rows": len(table)}


def summary(title: str, failures: dict[str, Unavailable], had: int) -> Unavailable:
    """Return one error for several cells, by their names, of the kind of the last."""
    last = list(failures.values())[-1]
    names = ", ".join(list(failures)[:_NAMED]) + (" ..." if len(failures) > _NAMED else "")
    count = f"{len(failures)} cell{'s' * (len(failures) > 1)} of {title} ({names})"
    if isinstance(last, Missing):
        return Missing(f"offline, and the cache lacks {count}: run once without offline")
    return type(last)(f"{count} could not be had, {had} could: {last}; the next run asks again")
