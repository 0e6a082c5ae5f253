"""The frame of a stage's script: command line, status, provenance, empty products where there is nothing to do.

A script declares a `Stage` and one function that reads its inputs, calls the science and writes its outputs::

    STAGE = Stage("detect", __doc__, inputs={...}, outputs={...})

    def work(job):
        ...

    def main(arguments=None):
        return STAGE.run(work, arguments)

The state of an image travels from stage to stage as JSON: ``image, status, stage, reason, warnings, stopped`` and the
stage's own facts. Once ``stopped`` names a stage, those after it write empty products and pass the state on. A stage
that doubts what it made degrades the image, and the others go on.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from nightsift import parameters, tables
from nightsift.errors import NotAsked, Stopped, Unavailable, Unreadable
from nightsift.io import products, written
from nightsift.io.digests import digest

KEEPS_RESULTS = (
    "fetch_template",
    "template",
    "subtract",
    "fakes",
    "transients",
)  # what came before these stands without them
START = {"image": "", "status": "ok", "stage": None, "reason": "", "warnings": [], "stopped": None}


@dataclass
class Job:
    """What a stage's script works with: one image, typed parameters, paths, and the products it writes."""

    image: str
    stage: str
    params: object
    extra: dict
    inputs: dict[str, Path | None]
    outputs: dict[str, Path]
    provenance: products.Provenance
    warnings: list[str] = field(default_factory=list)
    facts: dict = field(default_factory=dict)
    doubts: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def doubt(self, reasons) -> None:
        """Degrade the image for these reasons, if any: what its stages make stands, but is to be doubted."""
        self.doubts += reasons

    def call(self, function: Callable, *arguments, **keywords):
        """Call the science, note its time, and keep the warnings of its result, or of what stopped it."""
        start = time.perf_counter()
        try:
            result = function(*arguments, **keywords)
        except Stopped as stop:
            self._keep(stop)
            raise
        finally:
            self.seconds += time.perf_counter() - start
        self._keep(result)
        return result

    def _keep(self, result) -> None:
        self.warnings += [f"{self.stage}: {text}" for text in getattr(result, "warnings", ())]

    def facts_of(self, name: str) -> dict:
        """Return the facts that an earlier stage left in its JSON."""
        return products.read_json(self.inputs[name])

    def read_table(self, name: str):
        """Return an input table."""
        return products.read_table(self.inputs[name])

    def read_images(self, name: str):
        """Return an input's arrays by extension name, and its header."""
        return products.read_images(self.inputs[name])

    def write_table(self, name: str, table, schema: str) -> None:
        """Write an output table."""
        products.write_table(self.outputs[name], table, schema, self.provenance)

    def write_images(self, name: str, images: dict, header=None) -> None:
        """Write output images, the keys being the names of the extensions."""
        products.write_images(self.outputs[name], images, header, self.provenance)


@dataclass(frozen=True)
class Stage:
    """A stage's name, its description, and its inputs and outputs by option name.

    The value of an input is its help; that of an output is ``"images"`` or ``"table:SCHEMA"``. Options in `optional`
    may be left out. `section` of the configuration holds its parameters, by default that of its name.
    """

    name: str
    description: str
    inputs: dict[str, str]
    outputs: dict[str, str]
    optional: tuple[str, ...] = ()
    section: str = ""

    def parser(self) -> argparse.ArgumentParser:
        """Return the command line."""
        parser = argparse.ArgumentParser(prog=f"{self.name}.py", description=self.description)
        parser.add_argument("--name", required=True, help="name of the image")
        parser.add_argument("--params", type=json.loads, default={}, help=f"JSON of the section {self.name!r}")
        parser.add_argument("--extra", type=json.loads, default={}, help="JSON of what the sample sheet says")
        parser.add_argument("--code", default="", help="version of the code, for the provenance")
        parser.add_argument(
            "--previous", type=Path, nargs="+", default=[], help="state of the image after earlier stages"
        )
        parser.add_argument("--state", type=Path, required=True, help="state of the image after this stage, written")
        for name, text in self.inputs.items():
            nargs = "?" if name in self.optional else None
            parser.add_argument(f"--{name}", type=Path, nargs=nargs, required=name not in self.optional, help=text)
        for name, kind in self.outputs.items():
            parser.add_argument(f"--{name}", type=Path, required=True, help=f"output, {kind}")
        return parser

    def run(self, work: Callable[[Job], None], arguments: list[str] | None = None) -> int:
        """Do the stage for one image; return 0 unless a bug, a missing input or a dead service was in the way."""
        options = self.parser().parse_args(arguments)
        start = time.perf_counter()
        state, job = START | {"image": options.name}, None
        try:
            state = _merged(options.name, [products.read_json(path) for path in options.previous])
            if state["stopped"]:
                self._write_empty(options, state)
                return 0
            job = self._job(options)
            work(job)
        except Stopped as stop:
            state["warnings"] += job.warnings
            state |= self._verdict(stop, state)
            self._write_empty(options, state, job)
            print(f"{self.name}: {state['status']}: {stop}", file=sys.stderr)
        except (Unavailable, Unreadable) as wait:
            print(f"{self.name}: {wait}", file=sys.stderr)
            if isinstance(wait, Unreadable):
                written.doubt(wait.path)
            self._report_failure(options.state.with_name("status.json"), state, str(wait))
            return 1
        except Exception as bug:
            traceback.print_exc()
            self._report_failure(options.state.with_name("status.json"), state, f"{type(bug).__name__}: {bug}")
            return 1
        else:
            state["warnings"] += job.warnings
            state |= self._degraded(state, job.doubts)
            products.write_json(options.state, state | job.facts | {"provenance": job.provenance.as_dict()})
        spent = time.perf_counter() - start
        print(f"{self.name}: {job.seconds:.3f} s of science in {spent:.3f} s", file=sys.stderr)
        return 0

    def _job(self, options) -> Job:
        inputs = {name: getattr(options, name) for name in self.inputs}
        hashes = {}
        for name, path in inputs.items():
            if path is not None:
                with products.reading(path):
                    hashes[name] = digest(path)
        return Job(
            image=options.name,
            stage=self.name,
            params=parameters.STAGES[self.section or self.name](**options.params),
            extra=options.extra,
            inputs=inputs,
            outputs={name: getattr(options, name) for name in self.outputs},
            provenance=products.Provenance(self.name, options.code, options.params, hashes),
        )

    def _verdict(self, stop: Stopped, state: dict) -> dict:
        if isinstance(stop, NotAsked):
            return {"stopped": self.name}
        status = "degraded" if self.name in KEEPS_RESULTS else "rejected"
        reason = " ".join([state["reason"], str(stop)]).strip()
        return {"status": status, "stage": self.name, "reason": reason, "stopped": self.name}

    def _degraded(self, state: dict, doubts: list[str]) -> dict:
        """Return the verdict on an image that goes on in spite of doubts; the first stage that has some stays named."""
        if not doubts:
            return {}
        if state["status"] == "degraded":
            return {"reason": " ".join([state["reason"], *doubts])}
        return {"status": "degraded", "stage": self.name, "reason": " ".join(doubts)}

    def _write_empty(self, options, state: dict, job: Job | None = None) -> None:
        provenance = job.provenance if job else products.Provenance(self.name, options.code, options.params)
        for name, kind in self.outputs.items():
            path = getattr(options, name)
            if kind.startswith("table:"):
                schema = kind.removeprefix("table:")
                products.write_table(path, tables.empty(schema), schema, provenance)
            else:
                products.write_images(path, {}, None, provenance)
        products.write_json(options.state, state | {"provenance": provenance.as_dict()})

    def _report_failure(self, path: Path, state: dict, reason: str) -> None:
        failed = {"status": "error", "stage": self.name, "reason": reason, "stopped": self.name}
        products.write_json(path, state | failed)
        written.doubt(path)  # the status proper is another stage's, which the next run has to make


def _merged(image: str, states: list[dict]) -> dict:
    """Join the states that several stages left: the first that stopped decides, and all warnings and doubts stay."""
    known = states or [START]
    stopped = next((state for state in known if state["stopped"]), known[0])
    decisive = stopped if stopped["status"] != "ok" else next((s for s in known if s["status"] != "ok"), stopped)
    warnings = dict.fromkeys(text for state in states for text in state["warnings"])
    verdict = {key: decisive[key] for key in START} | {"stopped": stopped["stopped"]}
    return verdict | {"image": image, "warnings": list(warnings)}
