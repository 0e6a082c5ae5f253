"""Tell the locks of a run that was killed from those of a run that is alive."""

from __future__ import annotations

import atexit
import fcntl
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Entry:
    """What was found by a run that begins: whether no other is alive, and whether locks of a dead one were removed."""

    alone: bool
    unlocked: bool


def enter(folder=".snakemake") -> Entry:
    """Note that this process runs here, and remove Snakemake's locks if only dead runs can have left them.

    Every run holds a file of its own in ``folder/runs`` locked for as long as it lives; the system gives that lock back
    however a process ends. A file that can be locked is hence that of a run which was killed. While any run is alive,
    and where the file system cannot lock, Snakemake's locks stay; there they tell of other runs.
    """
    runs, locks = Path(folder) / "runs", Path(folder) / "locks"
    try:
        runs.mkdir(parents=True, exist_ok=True)
        dead = alive = 0
        for path in runs.glob("*.run"):
            if _is_held(path):
                alive += 1
            else:
                dead += 1
                path.unlink(missing_ok=True)
        _hold(runs)
    except OSError:
        return Entry(alone=not any(locks.glob("*.lock")), unlocked=False)
    stale = [path for path in locks.glob("*.lock") if path.is_file()] if dead and not alive else []
    for path in stale:
        path.unlink(missing_ok=True)
    return Entry(alone=not alive, unlocked=bool(stale))


def _is_held(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _hold(runs: Path) -> None:
    # Locked before it gets the name that others look for.
    handle, temporary = tempfile.mkstemp(dir=runs)
    fcntl.flock(handle, fcntl.LOCK_EX)
    path = f"{temporary}.run"
    os.rename(temporary, path)
    owner = os.getpid()

    def leave():
        if os.getpid() == owner:
            Path(path).unlink(missing_ok=True)

    atexit.register(leave)
