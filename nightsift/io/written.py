"""A record in every folder of products of what was written there, by which damage is told at the start of a run.

A line of the record is size, time of modification and digest of a file, and its name; the last line of a name counts.
Every writer adds its line before its file takes its place.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from nightsift.io.digests import digest

RECORD = ".products"
DOUBTED = "-"  # in place of a digest: whatever stands there is to be made again
SUPERSEDED = 8  # lines of a name on average, from which on the record is written anew


def note(path, file) -> None:
    """Record that `file` is about to take the place of the product `path`."""
    about = os.stat(file)
    _append(Path(path), f"{about.st_size} {about.st_mtime_ns} {digest(file)}")


def doubt(path) -> None:
    """Record that a product is to be made again although it is there; what is no product is left alone."""
    path = Path(path)
    if path.name in _read(path.parent)[0]:
        _append(path, f"0 0 {DOUBTED}")


def damaged(folder, settle: bool = True, since: int | None = None) -> dict[str, str]:
    """Return what is wrong with the products in a folder, by name; those that are missing are not listed.

    A product is whole if it has the size and the time that were recorded, or else the size and the digest. Where there
    is no record, every file that is not empty is whole.

    Parameters
    ----------
    folder : path-like
        It need not exist.
    settle : bool
        Whether anything may be changed: the owner of a product gets back the permission to read it and, if it is
        damaged, to write it, and one that nobody here may read is removed; new times of what is whole are recorded.
    since : int, optional
        Time in nanoseconds: what was written after it is whole if it has the size that was recorded. Snakemake sets the
        times of what a job has written when the job ends.
    """
    folder = Path(folder)
    known, lines = _read(folder)
    try:
        entries = [entry for entry in os.scandir(folder) if not entry.name.startswith(".") and entry.is_file()]
    except OSError:
        return {}
    if not known:
        return {entry.name: "is empty" for entry in entries if not entry.stat().st_size}
    wrong, moved = {}, {}
    for entry in entries:
        if entry.name not in known:
            continue
        readable = os.access(entry.path, os.R_OK)
        if not readable and settle:
            readable = _permit(entry.path)
            if not readable:
                continue
        about = entry.stat()
        size, time, mark = known[entry.name]
        if since is not None and time >= since:
            time = about.st_mtime_ns
        problem = _problem(entry.path, about, size, time, mark) if readable else "must not be read (its permissions)"
        if problem:
            wrong[entry.name] = problem
            if settle and not os.access(entry.path, os.W_OK):
                _permit(entry.path)
        elif about.st_mtime_ns != known[entry.name][1]:
            moved[entry.name] = (size, about.st_mtime_ns, mark)
    if settle and (moved or lines > SUPERSEDED * len(known)):
        _rewrite(folder, known | moved)
    return wrong


def _problem(path, about: os.stat_result, size: int, time: int, mark: str) -> str:
    if mark == DOUBTED:
        return "could not be used"
    if about.st_size != size:
        return f"has {about.st_size} bytes of {size}"
    if about.st_mtime_ns == time:
        return ""
    try:
        return "" if digest(path) == mark else "is not what was written there"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _permit(path) -> bool:
    """Let this user read and write a product, or remove it where that is not to be had; return whether it is there."""
    try:
        os.chmod(path, stat.S_IMODE(os.stat(path).st_mode) | stat.S_IRUSR | stat.S_IWUSR)
        return True
    except OSError:
        os.unlink(path)
        return False


def damaged_results(results: str, images, settle: bool = True, since: int | None = None) -> Iterator[tuple[str, str]]:
    """Yield the path of each damaged product of a campaign with these images, and what is wrong with it."""
    folders = [f"{results}/campaign"]
    for image in images:
        folders += [f"{results}/images/{image}", f"{results}/images/{image}/plots"]
    for folder in folders:
        for name, problem in damaged(folder, settle, since).items():
            yield f"{folder}/{name}", problem


def _read(folder: Path) -> tuple[dict[str, tuple[int, int, str]], int]:
    """Return the record by name, and how many lines it has; what is damaged in it is passed over."""
    known: dict[str, tuple[int, int, str]] = {}
    try:
        lines = (folder / RECORD).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return known, 0
    for line in lines:
        try:
            size, time, mark, name = line.split(" ", 3)
            known[name] = int(size), int(time), mark
        except ValueError:
            continue
    return known, len(lines)


def _append(path: Path, about: str) -> None:
    record = path.with_name(RECORD)
    if record.exists() and not os.access(record, os.W_OK):
        record.unlink()
    # One write at the end of the file: stages of an image may run at the same time.
    with open(record, "ab", buffering=0) as file:
        file.write(f"{about} {path.name}\n".encode())


def _rewrite(folder: Path, known: dict[str, tuple[int, int, str]]) -> None:
    new = folder / f"{RECORD}.part"
    new.write_text("".join(f"{size} {time} {mark} {name}\n" for name, (size, time, mark) in known.items()))
    os.replace(new, folder / RECORD)
