"""What stands in files, told by hashes and remembered for as long as the files stay as they are."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

# Nanoseconds within which a second change of a file may leave it the same time: a tick of the system's clock, and the
# step of file systems that count in seconds (FAT in two of them).
TICK, COARSE = 50_000_000, 2_000_000_000
SAVE_EVERY = 10.0  # seconds, so that a process that is killed loses little


def digest(path) -> str:
    """Return the SHA-256 of a file, or of the names and sizes in a folder, shortened to 32 hexadecimal digits."""
    if Path(path).is_dir():
        names = "".join(f"{part.name} {part.stat().st_size}\n" for part in sorted(Path(path).iterdir()))
        return hashlib.sha256(names.encode()).hexdigest()[:32]
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]


class Memory:
    """What was learned from files, kept in a JSON file from one process to the next.

    A file counts as unchanged while its size, its inode and its times are the same. The time of its last change of any
    kind (ctime) is among these: no program can set it, hence a file that took the place of another is noticed even if
    it kept its own, older time (``cp -p``, ``rsync -a``, archives). What cannot be read or written is done without.

    Parameters
    ----------
    path : path-like
        The JSON file. It is replaced as a whole, and what other processes wrote to it meanwhile stays.
    made_by : str
        What is kept holds only as long as this is the same.
    """

    def __init__(self, path, made_by: str = ""):
        # As a process ends it may stand in another folder.
        self.path, self.made_by = Path(path).absolute(), made_by
        self._entries = self._stored()
        self._new: dict[str, list] = {}
        self._saved = time.monotonic()

    def of(self, path, learn: Callable, name: str = ""):
        """Return ``learn(path)``, which JSON can hold, anew only if the file has changed since.

        Raises
        ------
        OSError
            If there is no such file, or what `learn` raises.
        """
        name, stamp = name or str(path), _stamp(path)
        known = self._entries.get(name)
        if known and known[0] == stamp:
            return known[1]
        value = learn(path)
        if stamp == _stamp(path) and _is_settled(stamp):
            self._entries[name] = self._new[name] = [stamp, value]
            if time.monotonic() - self._saved > SAVE_EVERY:
                self.save()
        return value

    def save(self) -> None:
        """Write what is new, if anything."""
        if not self._new:
            return
        content = {"made_by": self.made_by, "files": self._stored() | self._new}
        try:
            self.path.parent.mkdir(exist_ok=True)
            handle, temporary = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=self.path.parent)
        except OSError:
            return
        try:
            with open(handle, "w", encoding="utf-8") as file:
                json.dump(content, file)
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(temporary, 0o666 & ~umask)
            os.replace(temporary, self.path)
        except OSError:
            os.unlink(temporary)
        self._new, self._saved = {}, time.monotonic()

    def _stored(self) -> dict[str, list]:
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            return content["files"] if content["made_by"] == self.made_by else {}
        except (OSError, ValueError, LookupError, TypeError):
            return {}


def _stamp(path) -> list[int]:
    about = os.stat(path)
    return [about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino]


def _is_settled(stamp: list[int]) -> bool:
    """Tell whether another change of the file would leave it another time."""
    changed = stamp[2]
    return time.time_ns() - changed > (TICK if changed % 1_000_000 else COARSE)
