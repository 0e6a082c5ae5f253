"""What is remembered of files holds for as long as they stay as they are."""

import os
import subprocess
import sys
import time

import pytest

from nightsift.io.digests import Memory, digest

MEGABYTE = 1 << 20


def settle():
    time.sleep(0.1)


class Reader:
    """Counts what it is asked to read."""

    def __init__(self):
        self.read = []

    def __call__(self, path):
        self.read.append(path)
        return digest(path)


@pytest.fixture
def learn():
    return Reader()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "image.fits"
    path.write_bytes(b"a" * MEGABYTE)
    settle()
    return path


def again(tmp_path, path, learn):
    """Return what a new process takes for the file's hash."""
    memory = Memory(tmp_path / "kept" / "memory.json")
    value = memory.of(path, learn)
    memory.save()
    return value


def test_a_file_is_read_once(tmp_path, file, learn):
    values = {again(tmp_path, file, learn) for _ in range(3)}
    assert values == {digest(file)}
    assert learn.read == [file]


def replace_in_place(file, other):
    file.write_bytes(other.read_bytes())


def replace_by_name(file, other):
    os.replace(other, file)


def link(file, other):
    file.unlink()
    file.symlink_to(other)


@pytest.mark.parametrize("replaced", [replace_in_place, replace_by_name, link])
@pytest.mark.parametrize("older", [0, 10**15])
def test_a_file_that_took_the_place_of_another_is_read(tmp_path, file, learn, replaced, older):
    other = tmp_path / "other.fits"
    other.write_bytes(b"b" * MEGABYTE)
    again(tmp_path, file, learn)
    time_ns = file.stat().st_mtime_ns - older
    os.utime(other, ns=(time_ns, time_ns))
    replaced(file, other)
    os.utime(file, ns=(time_ns, time_ns))
    assert again(tmp_path, file, learn) == digest(file)
    assert len(learn.read) == 2


def test_what_is_written_a_moment_ago_is_not_relied_on(tmp_path, file, learn):
    for number in range(100):
        file.write_text(f"{number:3d}")
        assert again(tmp_path, file, learn) == digest(file)


def test_a_file_that_changes_while_it_is_read_is_read_again(tmp_path, file):
    def disturbed(path):
        result = digest(path)
        path.write_bytes(b"c")
        settle()
        return result

    again(tmp_path, file, disturbed)
    assert again(tmp_path, file, digest) == digest(file)


def test_it_is_kept_where_it_was_begun(tmp_path, file, learn, monkeypatch):
    monkeypatch.chdir(tmp_path)
    memory = Memory("memory.json")
    memory.of(file, learn)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    memory.save()
    assert Memory(tmp_path / "memory.json").of(file, learn) == digest(file)
    assert len(learn.read) == 1


def test_another_maker_trusts_nothing(tmp_path, file, learn):
    for made_by in ("one", "one", "other", "other"):
        memory = Memory(tmp_path / "memory.json", made_by)
        memory.of(file, learn)
        memory.save()
    assert len(learn.read) == 2


WRITER = """
import sys
from pathlib import Path
from nightsift.io.digests import Memory, digest
folder, mine = Path(sys.argv[1]), sys.argv[2]
for path in sorted(folder.glob(f"{mine}*")):
    memory = Memory(folder / "memory.json")
    memory.of(path, digest)
    memory.save()
"""


def test_two_that_write_at_once_leave_a_whole_file(tmp_path):
    for name in ("a", "b"):
        for number in range(100):
            (tmp_path / f"{name}{number}").write_text(name)
    settle()
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, tmp_path, name]) for name in ("a", "b")]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert [path.name for path in tmp_path.glob(".memory*")] == []
    reader = Reader()
    memory = Memory(tmp_path / "memory.json")
    values = {memory.of(path, reader) for path in tmp_path.glob("a*")}
    assert values == {digest(tmp_path / "a0")}
    assert len(reader.read) < 100


def test_an_image_costs_far_less_than_a_millisecond_when_nothing_has_changed(tmp_path):
    images = [tmp_path / f"{number}.fits" for number in range(1000)]
    for path in images:
        path.write_bytes(b"a" * 2880)
    settle()
    memory = Memory(tmp_path / "memory.json")
    values = [memory.of(path, digest) for path in images]
    memory.save()
    start = time.perf_counter()
    memory = Memory(tmp_path / "memory.json")
    assert [memory.of(path, lambda path: "read") for path in images] == values
    assert time.perf_counter() - start < 0.5


def test_a_large_image_is_not_read_again(tmp_path, learn):
    path = tmp_path / "large.fits"
    with open(path, "wb") as file:
        file.truncate(100 * MEGABYTE)
    settle()
    value = again(tmp_path, path, learn)
    start = time.perf_counter()
    assert again(tmp_path, path, learn) == value
    assert time.perf_counter() - start < 0.02
    os.utime(path, ns=(0, path.stat().st_mtime_ns))
    with open(path, "r+b") as file:
        file.seek(50 * MEGABYTE)
        file.write(b"1")
    os.utime(path, ns=(0, 0))
    assert again(tmp_path, path, learn) == digest(path) != value
