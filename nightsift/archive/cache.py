"""A folder of what services have answered, shared by all campaigns of a user and by several runs at once."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from nightsift.errors import Unavailable
from nightsift.io.products import atomic

_POLL = 0.05
_RECENTLY = 300.0


class Missing(Unavailable):
    """Something is not in the cache, and services must not be asked."""


def default_folder() -> Path:
    """Return where the cache is unless the configuration says otherwise."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nightsift"


class Cache:
    """Files by key, each with a companion ``<key>.json`` that holds its SHA-256 and says where it is from.

    A file counts as there only together with its companion and with the content that it tells: whatever was cut off,
    changed or half written is asked for again.
    """

    def __init__(self, folder):
        self.folder = Path(folder)

    def find(self, key: str) -> Path | None:
        """Return the file of a key, None where it is not there or not whole."""
        path = self.folder / key
        try:
            about = json.loads(_companion(path).read_text(encoding="utf-8"))
            with open(path, "rb") as file:
                whole = hashlib.file_digest(file, "sha256").hexdigest() == about["sha256"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return path if whole else None

    def get(self, key: str, ask: Callable[[], tuple[bytes, dict]]) -> Path:
        """Return the file of a key, which `ask` makes where it is not there: its content, and what to note of it.

        Of all processes that want it at once one asks, and the others wait for it.
        """
        path = self.find(key)
        if path:
            return path
        with self.locked(key):
            path = self.find(key)
            if path is None:
                content, about = ask()
                path = self.folder / key
                about |= {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
                about["asked"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
                with atomic(path) as temporary:
                    Path(temporary).write_bytes(content)
                with atomic(_companion(path)) as temporary:
                    Path(temporary).write_text(json.dumps(about, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        return path

    def forget(self, key: str) -> None:
        """Drop the file of a key, which turned out to be of no use."""
        path = self.folder / key
        _companion(path).unlink(missing_ok=True)
        path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Hold the lock of a name; the system takes it back however the process ends."""
        with open(self._lock(name), "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError:
                pass  # a file system without locks: two may ask for the same, and the last one's answer stays
            yield

    @contextlib.contextmanager
    def turn(self, service: str, limit: int) -> Iterator[None]:
        """Wait for one of the `limit` turns at a service that all processes share."""
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(open(self._lock(f"{service}.{number}"), "w")) for number in range(limit)]
            while not any(_taken(file) for file in files):
                time.sleep(_POLL)
            yield

    def note_down(self, service: str, reason: str) -> None:
        """Note for the rest of this run that a service is down."""
        self._lock(f"{service}.down").write_text(json.dumps([_run(), reason]), encoding="utf-8")

    def known_down(self, service: str) -> str | None:
        """Return why a service is down if this run has found that out in the last minutes."""
        path = self._lock(f"{service}.down")
        try:
            run, reason = json.loads(path.read_text(encoding="utf-8"))
            recent = time.time() - path.stat().st_mtime < _RECENTLY
        except (OSError, ValueError):
            return None
        return reason if recent and run == _run() else None

    def _lock(self, name: str) -> Path:
        folder = self.folder / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{name.replace('/', '_')}.lock"


def _companion(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _taken(file) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass  # a file system without locks: no limit
    return True


def _run() -> str:
    """Return what tells this run of the workflow from others."""
    return os.environ.get("NIGHTSIFT_WARM_OWNER") or str(os.getpid())
