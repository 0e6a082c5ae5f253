"""The sample sheet, paths, and what each stage gets of the configuration."""

import atexit
import functools
import hashlib
import json
import math
import os
import runpy
import shlex
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

BASE = Path(workflow.basedir)
# The package beside this workflow, whatever is installed: its code is what the provenance speaks of.
sys.path.insert(0, str(BASE))

from nightsift.workflow import warm
from nightsift.workflow import runs
from nightsift.io import written
from nightsift.workflow.campaign import CampaignError, fits_files, load
from nightsift.workflow.code import code_version
from nightsift.io.digests import Memory, digest

try:
    CAMPAIGN = load(config)
except CampaignError as error:
    raise WorkflowError(str(error)) from None
STARTED = time.time_ns()
ENTRY = workflow.is_main_process and runs.enter()
if ENTRY and ENTRY.unlocked:
    logger.info("Removed the locks of a run that was killed.")
RESULTS = CAMPAIGN.config["results"]
FOLDER = os.path.abspath(RESULTS)
IMAGE = f"{RESULTS}/images/{{image}}"
TABLES = [f"{name}.ecsv" for name in ("images", "candidates", "sources", "lightcurves", "uncatalogued")]
# Those whose state stands beside an image's other products; that of transients is the image's status.
STAGES = ("inspect", "detect", "psf", "catalog", "astrometry", "photometry")
STAGES += ("uncatalogued", "template", "subtract", "fakes")
IMAGE_LIST = f"{RESULTS}/campaign/images.list"
KNOWN = f"{RESULTS}/campaign/known.ecsv"
INPUTS = Memory(".snakemake/inputs.json")
atexit.register(INPUTS.save)

# Every job is a fork of one process that has its imports done; see nightsift/workflow/warm.py.
os.environ.update(warm.environment())
RUN = shlex.join([sys.executable, "-I", "-S", warm.__file__, f"{BASE}/scripts"])
# By the environment: where an answer is from and how it was got changes no product, so nothing must run again for it.
os.environ.update(NIGHTSIFT_ARCHIVE=json.dumps({key: CAMPAIGN.config[key] for key in ("archive", "offline")}))
# A function of the shell, so that neither rules nor provenance depend on where Python and the workflow are installed.
STAGE = f'set -euo pipefail; nightsift() {{ exec {RUN}/"$@"; }}; '
shell.prefix(STAGE.replace("{", "{{").replace("}", "}}"))
# The jobs of the stages of an image and of the campaign: each script is given what is named, by that name.
RUN_STAGE = (
    "nightsift {params.script} --name {wildcards.image} --params {params.params:q} --extra {params.extra:q}"
    " --code {params.code} {params.files} > {log:q} 2>&1"
)
RUN_CAMPAIGN = (
    "nightsift {params.script} --results {params.results:q} --images {params.list:q} --params {params.params:q}"
    " --code {params.code}"
)


wildcard_constraints:
    image=r"[A-Za-z0-9_.-]+",


def section(stage):
    """The slice of the configuration that a stage uses, as JSON."""
    return json.dumps(CAMPAIGN.config[stage], sort_keys=True)


def sections(*stages):
    """The slices of other stages, as JSON."""
    return json.dumps({stage: CAMPAIGN.config[stage] for stage in stages}, sort_keys=True)


def named(wildcards, input, output):
    """The files of a job, each by the name that its rule gives it, for the command line of its script."""
    words = []
    for key, paths in (*input.items(), *output.items()):
        given = [paths] if isinstance(paths, str) else paths
        # A file whose name begins with a dash would be an option.
        words += [f"--{key}", *(f"./{path}" if path.startswith("-") else path for path in given)] if given else []
    return shlex.join(words)


def options(stage, params=None, extra="{}", files=named, **more):
    """What `params` of a stage hold: its options, the version of its code, its files; and what it has more."""
    own = {"script": f"{stage}.py", "params": params or section(stage), "code": code(stage)}
    return own | {"extra": extra, "files": files, **more}


def code(stage):
    """The version of the code that a stage uses."""
    return code_version(BASE / "scripts" / f"{stage}.py")


@functools.cache
def look_around():
    """Find the inputs that cannot be read, and let Snakemake make again what is not as it was written."""
    if workflow.is_main_process:
        parts = [CAMPAIGN.config[section].get(key) for section in ("catalog", "template") for key in ("path", "mask")]
        parts += [path for entry in CAMPAIGN.images.values() for path in (entry.path, entry.mask, entry.template)]
        for path in filter(None, parts):
            content(path)
    if ENTRY and ENTRY.alone:
        for path, problem in written.damaged_results(RESULTS, CAMPAIGN.images, settle=not workflow.dryrun):
            logger.warning(f"{path} {problem}: it is made again.")
            workflow.dag.forcefiles.add(path)


def settle():
    """Note the times that Snakemake has given what this run has made, so that the next one need not look into it."""
    for _ in written.damaged_results(RESULTS, CAMPAIGN.images, since=STARTED):
        pass


def exposure(wildcards):
    """The FITS image that the user gave."""
    # What is made depends on an exposure, whatever is asked for: this is the first that Snakemake asks when it knows
    # whether it is to run, and before it looks at what is there.
    look_around()
    return CAMPAIGN.images[wildcards.image].path


@functools.cache
def content(path):
    """The hash of a file or folder of the user's."""
    try:
        return digest(path) if os.path.isdir(path) else INPUTS.of(path, digest)
    except OSError:
        # Of small inputs Snakemake takes checksums, and ends at one that cannot be read: it costs its image alone.
        workflow.dag.max_checksum_file_size = workflow.persistence.max_checksum_file_size = 0
        return "unreadable"


def contents(*inputs):
    """What stands in these inputs, for `params`: of large files Snakemake itself compares no more than the times."""

    def hashes(wildcards):
        given = [part(wildcards) if callable(part) else part for part in inputs]
        paths = [path for part in given if part for path in ([part] if isinstance(part, str) else part)]
        return hashlib.sha256(" ".join(map(content, paths)).encode()).hexdigest()[:32]

    return hashes


def user_mask(wildcards):
    """The mask that the sample sheet names, if any."""
    return CAMPAIGN.images[wildcards.image].mask or []


def overrides(wildcards):
    """What the sample sheet says of an image, and the instruments that it may be of, as JSON."""
    instruments = CAMPAIGN.config["instruments"]
    known = CAMPAIGN.images[wildcards.image].overrides | ({"instruments": instruments} if instruments else {})
    return json.dumps(known, sort_keys=True)


def fetched(product):
    """This product of fetch_catalog, as a list; an empty one where the catalogue is a file of the user's."""
    return [] if CAMPAIGN.config["catalog"]["source"] == "local" else [getattr(rules.fetch_catalog.output, product)]


def selected(stage, *keys):
    """These options of a stage, as JSON."""
    return json.dumps({key: CAMPAIGN.config[stage][key] for key in keys}, sort_keys=True)


def local_template(image):
    """The template of an image, if it is a file: its own in the sample sheet, or the campaign's."""
    part = CAMPAIGN.config["template"]
    return CAMPAIGN.images[image].template or (part["source"] == "local" and part["path"]) or None


def fetched_template(product):
    """This product of fetch_template for an image, as a list; an empty one where the template is a file, or none."""
    asked = CAMPAIGN.config["template"]["source"] not in ("local", "none")
    path = getattr(rules.fetch_template.output, product)
    return lambda wildcards: [
        part.format(image=wildcards.image) for part in [path] if asked and not local_template(wildcards.image)
    ]


def fetched_states(image):
    """The states of what was asked of archives for an image."""
    wildcards = SimpleNamespace(image=image)
    return [path.format(image=image) for path in fetched("state") + fetched_template("state")(wildcards)]


@functools.cache
def template_files(path):
    """The files of a template: itself, or those in the folder."""
    return [str(part) for part in fits_files(path)] if os.path.isdir(path) else [path]


def template_file(wildcards):
    """The user's template of an image, if there is one, or the files of the folder."""
    path = local_template(wildcards.image)
    return template_files(path) if path else []


def template_states(wildcards):
    """The states of an image that its template is made after."""
    return [rules.astrometry.output.state.format(image=wildcards.image), *fetched_template("state")(wildcards)]


def named_template(wildcards, input, output):
    """The files of a job of `template`, of which a folder stands for those in it."""
    given = {key: paths for key, paths in input.items() if key != "files"}
    return named(wildcards, given | {"source": local_template(wildcards.image) or []}, output)


def template_mask(wildcards):
    """The mask of the campaign's template, if any."""
    return (local_template(wildcards.image) and CAMPAIGN.config["template"]["mask"]) or []


@functools.cache
def megabytes(image):
    """The size of an image's file and that of its template."""
    # Not the sizes of a job's inputs: those are unknown while a group that makes them is put together.
    entry, template = CAMPAIGN.images[image], local_template(image)
    # Of a folder, a few images at a time.
    parts = sorted(map(os.path.getsize, template_files(template) if template else []))[-4:]
    size = (os.path.getsize(entry.path) + sum(parts)) / 1e6
    # What an archive sends has pixels half as large.
    return size if template or CAMPAIGN.config["template"]["source"] in ("local", "none") else 3 * size


def memory(wildcards, attempt):
    """Megabytes for a job: by the size of its image, more with each attempt."""
    return int(attempt * (700 + 40 * megabytes(wildcards.image)))


def minutes(wildcards, attempt):
    """Minutes for a job: by the size of its image, more with each attempt."""
    return int(attempt * (1 + megabytes(wildcards.image) / 50))


def minutes_with_search(wildcards, attempt):
    """The same for a job that may search the sky for the place of its image."""
    return minutes(wildcards, attempt) + math.ceil(CAMPAIGN.config["inspect"]["solve_time"] / 40)


def image_products(*names):
    """These products of every image."""
    return [f"{RESULTS}/images/{image}/{name}" for image in CAMPAIGN.images for name in names]


def campaign_products(*names):
    """These products of the campaign."""
    return [f"{RESULTS}/campaign/{name}" for name in names]


def image_folder(wildcards, input):
    """The folder of an image's products."""
    return os.path.dirname(input.state)


def results_folder(wildcards, output):
    """The folder of all products, from one of the campaign's."""
    return os.path.dirname(os.path.dirname(output[0]))


def finish_campaign():
    """Make the campaign's tables and page from what is there; the next run completes the rest."""
    known, asked = f"{RESULTS}/campaign/known_partial.ecsv", CAMPAIGN.config["known"]["services"]
    more = {
        "fetch_known": ["--known", known, "--partial"],
        "sources": ["--known", *[known] * bool(asked), "--aside", json.dumps(CAMPAIGN.config["known"]["set_aside"])],
        "report": [],
    }
    for stage in list(more)[0 if asked else 1 :]:
        part = section("known" if stage == "fetch_known" else stage)
        arguments = ["--results", RESULTS, "--images", IMAGE_LIST, "--params", part, "--code", code(stage)]
        subprocess.run([sys.executable, f"{BASE}/scripts/{stage}.py", *arguments, *more[stage]], check=False)


def summarise(failed=False):
    """Print how many images ended how, and what to do if jobs failed."""
    runpy.run_path(f"{BASE}/scripts/summary.py")["main"]([FOLDER])
    if failed:
        print("Some jobs failed; their logs stand above. What could be made is made; the same command does the rest.")


def summarise_nothing():
    """Print the same where there was nothing to do: Snakemake has no event for that."""
    asked = workflow.is_main_process and workflow.executor_plugin is not None and not workflow.dryrun
    if asked and workflow.dag is not None and not len(workflow.dag):
        summarise()


# At exit, hence after all that Snakemake has to say.
atexit.register(summarise_nothing)


def list_images():
    """Write the names of the campaign's images where the campaign's scripts find them."""
    path = Path(IMAGE_LIST)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{image}\n" for image in CAMPAIGN.images), encoding="utf-8")
