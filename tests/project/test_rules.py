"""What a rule names is what its script is given: each input and output has one name."""

import re

import pytest
from workflows import ROOT, script

TEXT = "".join(path.read_text() for path in sorted((ROOT / "rules").glob("*.smk")) if path.stem != "common")
#: rules of an image whose command line is made of what they name
BLOCKS = {
    name: block
    for name, block in re.findall(r"^rule (\w+):\n((?:(?!^rule ).*\n)*)", TEXT, re.MULTILINE)
    if "RUN_STAGE" in block
}


def names(block, section):
    found = re.search(rf"^    {section}:\n((?:        .*\n)*)", block, re.MULTILINE)
    return set(re.findall(r"^        (\w+)=", found[1], re.MULTILINE))


@pytest.mark.parametrize("rule", BLOCKS)
def test_a_rule_names_what_its_script_takes(rule):
    stage = script(rule).STAGE
    given = names(BLOCKS[rule], "input") - {"previous"}
    if rule == "template":  # the folder stands for the files in it
        given = given - {"files"} | {"source"}
    if rule.startswith("fetch_"):
        assert given == {"exposure"}
    assert set(stage.inputs) - set(stage.optional) <= given <= set(stage.inputs)
    assert names(BLOCKS[rule], "output") == {"state", *stage.outputs}


def test_all_stages_of_an_image_are_looked_at():
    assert len(BLOCKS) == 13
