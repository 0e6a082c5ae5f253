"""Other programs, run in a folder of their own: what may go wrong becomes the reason of a rejection."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

from nightsift.errors import CampaignError, Rejected

# By stage and method, the names of the program that it takes.
PROGRAMS = {
    "detect": {"sextractor": ("source-extractor", "sextractor", "sex")},
    "subtract": {"hotpants": ("hotpants",)},
}


def find(*names: str) -> str:
    """Return the path of the first program of these names that is on the PATH.

    Raises
    ------
    CampaignError
        If there is none.
    """
    for name in names:
        program = shutil.which(name)
        if program is not None:
            return program
    raise CampaignError(f"the program {names[0]!r} is not on the PATH: install it or choose another method")


def run(command: list[str], folder: Path, seconds: float, name: str = "", env: dict[str, str] | None = None) -> str:
    """Run a program in a folder; return the last line that it printed.

    Parameters
    ----------
    command : list of str
    folder : Path
    seconds : float
        Wall time that it may take.
    name : str
        What messages call it; by default as its file.
    env : dict, optional
        Its environment; by default that of this process.

    Raises
    ------
    Rejected
        If it fails, or takes longer than `seconds`, when it is ended and all that it started.
    CampaignError
        If it cannot be run.
    """
    output, name = folder / "output.txt", name or Path(command[0]).name
    try:
        with output.open("wb") as stream:
            # It may start others: a session of its own, so that all of them can be ended.
            process = subprocess.Popen(
                command, cwd=folder, env=env, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
            )
    except OSError as error:
        raise CampaignError(f"{command[0]!r} cannot be run: {error.strerror}") from error
    try:
        status = process.wait(seconds)
    except subprocess.TimeoutExpired:
        raise Rejected(f"{name} did not end within {seconds:g} s") from None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if status == -signal.SIGXCPU:
        raise Rejected(f"{name} did not end within its limit of processor time")
    lines = [line.strip() for line in output.read_text(errors="replace").splitlines()]
    lines = [line for line in lines if line and line != "SUCCESS"] or ["without a word"]
    if status:
        how = f"status {status}" if status > 0 else f"signal {-status}"
        raise Rejected(f"{name} failed with {how}: {lines[-1]}")
    return lines[-1]
