"""Other programs, run in a folder of their own: what may go wrong becomes the reason of a rejection."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from nightsift.errors import Rejected
from nightsift.io.campaign import CampaignError


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


def run(command: list[str], folder: Path, seconds: float) -> str:
    """Run a program in a folder; return the last line that it printed.

    Raises
    ------
    Rejected
        If it fails, or takes longer than `seconds`.
    CampaignError
        If it cannot be run.
    """
    output, name = folder / "output.txt", Path(command[0]).name
    try:
        with output.open("wb") as stream:
            done = subprocess.run(command, cwd=folder, stdout=stream, stderr=subprocess.STDOUT, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise Rejected(f"{name} did not end within {seconds:g} s") from None
    except OSError as error:
        raise CampaignError(f"{command[0]!r} cannot be run: {error.strerror}") from error
    lines = [line.strip() for line in output.read_text(errors="replace").splitlines()]
    lines = [line for line in lines if line and line != "SUCCESS"] or ["without a word"]
    if done.returncode:
        how = f"status {done.returncode}" if done.returncode > 0 else f"signal {-done.returncode}"
        raise Rejected(f"{name} failed with {how}: {lines[-1]}")
    return lines[-1]
