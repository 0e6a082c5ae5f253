"""Other programs are run to their end, or ended."""

import time

import pytest

from nightsift.errors import Rejected
from nightsift.external import program


def test_what_a_program_has_started_ends_with_it(fake, tmp_path):
    fake("starter", "(sleep 1; touch late) & touch early; sleep 60")
    start = time.monotonic()
    with pytest.raises(Rejected, match=r"^starter did not end within 0\.3 s$"):
        program.run([program.find("starter")], tmp_path, 0.3)
    assert time.monotonic() - start < 20
    time.sleep(1.2)
    assert (tmp_path / "early").exists()
    assert not (tmp_path / "late").exists()
