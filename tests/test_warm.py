"""Jobs in forks of one process: they must look like processes of their own to whoever starts them."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from nightsift import warm

JOB = """
import os, sys, time
from pathlib import Path

print("imported", os.getpid(), file=open(Path(__file__).with_name("imports"), "a"))


def main(arguments):
    if arguments[0] == "exit":
        return int(arguments[1])
    if arguments[0] == "stop":
        raise SystemExit("stopped")
    if arguments[0] == "say":
        print("to stdout", sys.argv[1:])
        print("to stderr", file=sys.stderr)
    if arguments[0] == "where":
        print(os.getcwd(), os.getppid())
    if arguments[0] == "bug":
        raise KeyError("a bug")
    if arguments[0] == "abort":
        os.abort()
    if arguments[0] == "sleep":
        Path(arguments[1]).write_text(str(os.getpid()))
        time.sleep(60)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
"""


@pytest.fixture
def owner():
    process = subprocess.Popen(["sleep", "120"])
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def folder(owner):
    # Not tmp_path: the path of a socket has to be short.
    parent = Path(tempfile.mkdtemp(dir="/tmp"))
    yield parent / "server"
    owner.kill()
    owner.wait()
    wait_for(lambda: not (parent / "server" / "socket").exists())
    shutil.rmtree(parent)


@pytest.fixture
def client(folder, owner, tmp_path):
    (tmp_path / "job.py").write_text(JOB)
    environment = {**os.environ, warm.FOLDER: str(folder), warm.OWNER: str(owner.pid)}

    def start(*arguments, script=tmp_path / "job.py", cwd=None, env=environment):
        command = [sys.executable, "-I", "-S", warm.__file__, str(script), *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        # Where the tests run in a shell's background, an interrupt is ignored, and so it would be by the job.
        return subprocess.Popen(command, env=env, cwd=cwd, preexec_fn=heed_interrupts, **pipes)

    return start


def heed_interrupts():
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_for(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def ended(pid):
    """Whether a process is gone, or a zombie that nobody has asked about."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def server_of(client):
    return int(client("where").communicate()[0].split()[1])


def imports(tmp_path):
    return len((tmp_path / "imports").read_text().splitlines())


@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_exit_code_is_passed_on(client, code):
    assert client("exit", code).wait() == code


def test_output_reaches_the_caller(client):
    out, err = client("say", "two words", "üñ").communicate()
    assert out == "to stdout ['say', 'two words', 'üñ']\n"
    assert err == "to stderr\n"


def test_jobs_fork_from_one_import(client, tmp_path):
    assert len({server_of(client) for _ in range(3)}) == 1
    assert imports(tmp_path) == 1


def test_two_clients_at_once_start_one_server(client, tmp_path):
    jobs = [client("where") for _ in range(6)]
    assert len({job.communicate()[0] for job in jobs}) == 1
    assert imports(tmp_path) == 1


def test_working_directory_is_that_of_the_caller(client, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        assert client("where", cwd=tmp_path / name).communicate()[0].split()[0] == str(tmp_path / name)


def test_a_bug_leaves_its_traceback_and_a_working_server(client):
    job = client("bug")
    assert "KeyError: 'a bug'" in job.communicate()[1]
    assert job.returncode == 1
    job = client("abort")
    assert job.wait() == 128 + signal.SIGABRT
    assert client("exit", 3).wait() == 3


def test_a_text_as_exit_code_is_an_error(client):
    assert client("stop").wait() == 1


def test_a_script_that_cannot_be_imported_says_why(client, tmp_path):
    for name, text, said in (
        ("gone.py", "import no_such_module_anywhere\n", "ModuleNotFoundError"),
        ("wrong.py", "def main(:\n", "SyntaxError"),
    ):
        (tmp_path / name).write_text(text)
        job = client("x", script=tmp_path / name)
        assert said in job.communicate()[1]
        assert job.returncode == 1
    job = client("x", script=tmp_path / "absent.py")
    assert "FileNotFoundError" in job.communicate()[1]
    assert client("exit", 3).wait() == 3


def running(client, tmp_path):
    """Start a job that runs for long; return its client and its process number."""
    note = tmp_path / "pid"
    job = client("sleep", note)
    wait_for(lambda: note.exists() and note.read_text())
    return job, int(note.read_text())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_job_ends_with_its_client(client, tmp_path, number):
    job, pid = running(client, tmp_path)
    job.send_signal(number)
    assert job.wait() != 0
    wait_for(lambda: ended(pid))
    assert client("exit", 3).wait() == 3


def test_server_and_jobs_end_with_the_owner(client, owner, folder, tmp_path):
    server = server_of(client)
    job, pid = running(client, tmp_path)
    owner.kill()
    owner.wait()
    wait_for(lambda: ended(server) and ended(pid))
    assert job.wait() != 0
    assert not folder.exists()


def test_a_killed_server_takes_its_jobs_along_and_is_replaced(client, tmp_path):
    server = server_of(client)
    job, pid = running(client, tmp_path)
    os.kill(server, signal.SIGKILL)
    assert "server ended" in job.communicate()[1]
    assert job.returncode == 1
    wait_for(lambda: ended(pid))
    assert server_of(client) != server


def test_without_the_variable_a_script_runs_by_itself(client, folder, tmp_path):
    plain = {key: value for key, value in os.environ.items() if key != warm.FOLDER}
    job = client("exit", 7, env=plain)
    assert job.wait() == 7
    assert client("say", env=plain).communicate() == ("to stdout ['say']\n", "to stderr\n")
    assert not folder.exists()


def test_a_folder_open_to_others_is_refused(client, folder, tmp_path):
    folder.mkdir()
    folder.chmod(0o755)
    job = client("exit", 0)
    assert "open to others" in job.communicate()[1]
    assert job.returncode != 0
    assert not (tmp_path / "imports").exists()


def test_a_server_that_cannot_start_is_reported(client, owner, folder):
    owner.kill()
    owner.wait()
    job = client("exit", 0)
    assert "did not start: the process that it works for has ended" in job.communicate()[1]
    assert job.returncode != 0
    assert not folder.exists()


def test_socket_of_a_long_temporary_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("long" * 30)))
    folder = warm.environment(4194304)[warm.FOLDER]
    assert folder.startswith("/tmp/nightsift-")
    assert len(f"{folder}/socket") <= 107
