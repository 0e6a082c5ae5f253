"""The pages in docs/ say what the code does, and point to what exists."""

import re
import runpy
from pathlib import Path

import pytest

from nightsift.parameters import SECTIONS, STAGES

TOP = Path(__file__).parents[2]
PAGES = sorted([TOP / "README.md", *(TOP / "docs").glob("*.md"), *(TOP / "config").glob("*.md")])
generate = runpy.run_path(str(TOP / "docs" / "generate.py"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_are_current(page):
    text = page.read_text(encoding="utf-8")
    assert generate["current"](text) == text, "run python docs/generate.py"


def test_every_stage_option_and_table_is_described():
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    wanted = [f"options {section}" for section in SECTIONS] + ["mask", "flags"]
    wanted += [f"columns {name}" for name in ("objects", "candidates", "images", "sources", "lightcurves")]
    assert [name for name in wanted if f"<!-- from the code: {name} -->" not in text] == []
    stages = (TOP / "docs" / "stages.md").read_text(encoding="utf-8")
    assert [stage for stage in STAGES if f"## {stage}\n" not in stages] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    # The picture is made from the demo's page.
    assert [name for name in targets if not (page.parent / name).exists() and name != "docs/report.png"] == []
