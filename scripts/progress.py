"""Turn what Snakemake prints into one line for each finished image; what is not routine, such as an error, stays."""

import argparse
import json
import re
import sys
from pathlib import Path

ROUTINE = re.compile(
    r"Using (workflow specific )?profile|Assuming unrestricted|Building DAG|Using shell|"
    r"Provided (cores|remote nodes|resources)|Rules claiming|Conda environments|SLURM run ID|Cleaning up SLURM|"
    r"Select jobs|Execute \d+ jobs|Finished jobid|\d+ of \d+ steps|host:|Elapsed time|"
    r"\[\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}\]($| Group job)"
)
# What opens a block: it ends with the indentation, that of the head and the table with an empty line.
BLOCK = re.compile(r"(local)?rule \w+:$|SNAKEMAKE$|Job stats:$")
FINISHED = re.compile(r"Finished jobid: (\d+) \(Rule: (\w+)\)")
LAST = "transients"
CAMPAIGN = {"sources": "Sources and light curves: done", "report": "Page: done"}


class Progress:
    """Follows Snakemake's output line by line.

    Parameters
    ----------
    folder : path-like
        Snakemake's working directory, which the paths in its output are relative to.
    """

    def __init__(self, folder="."):
        self.folder = Path(folder)
        self.rule = ""
        self.indent = 0
        self.states: dict[str, str] = {}
        self.total, self.done = 0, 0

    def lines(self, text: str):
        """Yield what to print for a line of Snakemake's."""
        bare = text.lstrip()
        if self.rule and not self._ends_block(len(text) - len(bare), bare):
            self._note(bare.split())
            return
        self.rule = ""
        finished = FINISHED.match(bare)
        if BLOCK.match(bare):
            self.rule, self.indent = bare.split()[-1].rstrip(":"), len(text) - len(bare)
        elif finished and finished[2] == LAST:
            self.done += 1
            yield self._image(finished[1])
        elif finished and finished[2] in CAMPAIGN:
            yield CAMPAIGN[finished[2]]
        elif bare and not ROUTINE.match(bare):
            yield text

    def _ends_block(self, indent, bare):
        return not bare if self.rule in ("SNAKEMAKE", "stats") else indent <= self.indent

    def _note(self, words):
        """Keep what a block says of the last stage of an image: how many, and where its status is."""
        if self.rule == "stats" and len(words) == 2 and words[0] == LAST:
            self.total = int(words[1])
        elif self.rule == LAST and words[:1] == ["output:"]:
            self.states["next"] = words[1].rstrip(",")
        elif self.rule == LAST and words[:1] == ["jobid:"]:
            self.states[words[1]] = self.states.pop("next", "")

    def _image(self, job):
        path = self.folder / self.states.get(job, "")
        count = f"[{self.done:{len(str(self.total))}d}/{self.total}]"
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return f"{count} {path.parent.name}"
        reason = f" in {state['stage']}: {state['reason']}" if state["status"] != "ok" else ""
        found = f", {state['n_candidates']} candidates" if "n_candidates" in state else ""
        line = f"{count} {state['image']}: {state['status']}{reason}{found}"
        return "".join(character if character.isprintable() else " " for character in line)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", default=".", help="Snakemake's working directory")
    progress = Progress(parser.parse_args(arguments).directory)
    for text in sys.stdin:
        for line in progress.lines(text.rstrip("\n")):
            print(line, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
