"""The scripts start from the command line, and the filter of Snakemake's output keeps what matters."""

import json
import subprocess
import sys

import pytest
from workflows import ROOT, script

SCRIPTS = ROOT / "scripts"
Progress = script("progress").Progress
RUN = """Using workflow specific profile profiles/default for setting default command line arguments.
Building DAG of jobs...
Provided cores: 2
Rules claiming more threads will be scaled down.
Provided resources: vizier=Resource("vizier", 2)
Job stats:
job           count
----------  -------
subtract          1
transients        2
total             3

Select jobs to execute...
Execute 2 jobs...

[Sat Nov 21 00:44:59 2026]
localrule transients:
    input: results/images/a/subtract.json
    output: results/images/a/status.json, results/images/a/candidates.fits
    jobid: 4
    wildcards: image=a
[Sat Nov 21 00:44:59 2026] Group job image (jobs in lexicogr. order):
    [Sat Nov 21 00:44:59 2026]
    rule transients:
        output: results/images/b/status.json, results/images/b/candidates.fits
        jobid: 7
[Sat Nov 21 00:45:00 2026]
Finished jobid: 7 (Rule: transients)
1 of 3 steps (33%) done
[Sat Nov 21 00:45:00 2026]
Finished jobid: 4 (Rule: transients)
2 of 3 steps (66%) done
[Sat Nov 21 00:45:01 2026]
Error in rule subtract:
    jobid: 3
    log: results/images/c/logs/subtract.log (check log file(s) for error details)
Logfile results/images/c/logs/subtract.log:
================
ValueError: no such thing
================
1 image: 1 ok, 0 degraded, 0 rejected, 0 error; 3 candidates in 2 sources
"""


@pytest.mark.parametrize("script", sorted(path.name for path in SCRIPTS.glob("*.py")))
def test_starts_and_explains_itself(script):
    done = subprocess.run([sys.executable, SCRIPTS / script, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: {script}")


def test_progress_keeps_images_errors_and_the_summary(tmp_path):
    states = {
        "a": {"image": "a", "status": "ok", "stage": None, "reason": "", "n_candidates": 3},
        "b": {"image": "b", "status": "rejected", "stage": "detect", "reason": "no \x1b[31mobject"},
    }
    for name, state in states.items():
        folder = tmp_path / "results" / "images" / name
        folder.mkdir(parents=True)
        (folder / "status.json").write_text(json.dumps(state))
    progress = Progress(tmp_path)
    lines = [out for text in RUN.splitlines() for out in progress.lines(text)]
    assert lines == [
        "[1/2] b: rejected in detect: no  [31mobject",
        "[2/2] a: ok, 3 candidates",
        *RUN.splitlines()[RUN.splitlines().index("Error in rule subtract:") :],
    ]
