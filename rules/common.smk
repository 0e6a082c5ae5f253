"""The sample sheet, paths, and what each stage gets of the configuration."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

from nightsift import warm
from nightsift.io.campaign import CampaignError, load
from nightsift.io.code import code_version

BASE = Path(workflow.basedir)
try:
    CAMPAIGN = load(config)
except CampaignError as error:
    raise WorkflowError(str(error)) from None
RESULTS = CAMPAIGN.config["results"]
IMAGE = f"{RESULTS}/images/{{image}}"
IMAGE_LIST = f"{RESULTS}/campaign/images.list"

# Every job is a fork of one process that has its imports done; see nightsift/warm.py.
os.environ.update(warm.environment(os.getpid()))
RUN = shlex.join([sys.executable, "-I", "-S", warm.__file__, f"{BASE}/scripts"])
ENVIRONMENT = f"{BASE}/envs/nightsift.yaml"


wildcard_constraints:
    image=r"[A-Za-z0-9_.-]+",


def section(stage):
    """The slice of the configuration that a stage uses, as JSON."""
    return json.dumps(CAMPAIGN.config[stage], sort_keys=True)


def code(stage):
    """The version of the code that a stage uses."""
    return code_version(BASE / "scripts" / f"{stage}.py")


def exposure(wildcards):
    """The FITS image that the user gave."""
    return CAMPAIGN.images[wildcards.image].path


def user_mask(wildcards):
    """The mask that the sample sheet names, if any."""
    return CAMPAIGN.images[wildcards.image].mask or []


def overrides(wildcards):
    """What the sample sheet says of an image, as JSON."""
    return json.dumps(CAMPAIGN.images[wildcards.image].overrides, sort_keys=True)


def local_catalog(wildcards):
    """The user's catalogue."""
    return CAMPAIGN.config["catalog"]["path"] if CAMPAIGN.config["catalog"]["source"] == "local" else []


def local_template(wildcards):
    """The template of an image: its own in the sample sheet, or the campaign's."""
    part = CAMPAIGN.config["template"]
    return CAMPAIGN.images[wildcards.image].template or (part["source"] == "local" and part["path"]) or []


def template_mask(wildcards):
    """The mask of the campaign's template, if any."""
    return CAMPAIGN.config["template"]["mask"] or []


def memory(wildcards, input, attempt):
    """Megabytes for a job: by the size of its inputs, more with each attempt."""
    return int(attempt * (700 + 40 * input.size_mb))


def minutes(wildcards, input, attempt):
    """Minutes for a job: by the size of its inputs, more with each attempt."""
    return int(attempt * (10 + input.size_mb))


def image_products(*names):
    """These products of every image."""
    return [f"{RESULTS}/images/{image}/{name}" for image in CAMPAIGN.images for name in names]


def campaign_products(*names):
    """These products of the campaign."""
    return [f"{RESULTS}/campaign/{name}" for name in names]


def finish_campaign():
    """Make the campaign's tables and page from what is there; the next run completes the rest."""
    for stage in ("sources", "report"):
        arguments = ["--results", RESULTS, "--images", IMAGE_LIST, "--params", section(stage), "--code", code(stage)]
        subprocess.run([sys.executable, f"{BASE}/scripts/{stage}.py", *arguments], check=False)


def summarise():
    """Print how many images ended how."""
    subprocess.run([sys.executable, f"{BASE}/scripts/summary.py", RESULTS], check=False)


def list_images():
    """Write the names of the campaign's images where the campaign's scripts find them."""
    path = Path(IMAGE_LIST)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{image}\n" for image in CAMPAIGN.images), encoding="utf-8")
