"""Jobs in forks of one process: they must look like processes of their own to whoever starts them."""

import contextlib
import fcntl
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import pytest
from workflows import ROOT

from nightsift.workflow import warm

JOB = """
import json, os, signal, subprocess, sys, tempfile, time
from pathlib import Path

print("imported", os.getpid(), file=open(Path(__file__).with_name("imports"), "a"))


def state():
    import resource

    umask = os.umask(0)
    limits = {name: resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name[:7] == "RLIMIT_"}
    return {
        "environment": {key: value for key, value in os.environ.items() if key != "NIGHTSIFT_WARM"},
        "zone": time.strftime("%z", time.localtime(0)),
        "temporary": tempfile.gettempdir(),
        "umask": umask,
        "niceness": os.nice(0),
        "scheduler": os.sched_getscheduler(0),
        "processors": sorted(os.sched_getaffinity(0)),
        "limits": limits,
        "ignored": [number for number in range(1, 32) if signal.getsignal(number) == signal.SIG_IGN],
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "input": sys.stdin.read(),
        "ids": [os.getresuid(), os.getresgid(), os.getgroups()],
        "place": [os.readlink(path) for path in sorted(map(str, Path("/proc/self/ns").iterdir()))] + [os.getcwd()],
        "arguments": sys.argv[1:],
    }


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
    if arguments[0] == "state":
        print(json.dumps(state()))
    if arguments[0] == "change":
        os.umask(0), os.chdir("/"), os.nice(3), os.environ.update(LEFT="1")
    if arguments[0] == "bug":
        raise KeyError("a bug")
    if arguments[0] == "signal":
        os.kill(os.getpid(), int(arguments[1]))
    if arguments[0] == "sleep":
        Path(arguments[1]).write_text(str(os.getpid()))
        time.sleep(60)
    if arguments[0] == "program":
        program = subprocess.Popen(["sleep", "60"], start_new_session=True)
        Path(arguments[1]).write_text(str(program.pid))
        program.wait()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
"""
# What a run of the workflow is to its jobs.
OWNER = """
import json, os, sys
from nightsift.workflow import warm

print(json.dumps(warm.environment()), flush=True)
sys.stdin.read()
"""
LOCAL_MOUNT = "unshare --user --map-root-user --mount"
CONTAINERS = [
    "unshare --user --map-root-user --pid --fork --mount-proc",
    "unshare --user --map-root-user --pid --fork",
    LOCAL_MOUNT,
    "unshare --user --map-root-user --net",
    "unshare --user --map-root-user",
]


class Run:
    """A process that waits like a run of the workflow, and the variables that its jobs get."""

    def __init__(self, temporary):
        given = {**os.environ, "TMPDIR": str(temporary)}
        given.pop("PYTHONUNBUFFERED", None)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen([sys.executable, "-c", OWNER], env=given, text=True, **pipes)
        self.environment = given | json.loads(self.process.stdout.readline())
        self.folder = Path(self.environment[warm.FOLDER])

    def end(self):
        self.process.communicate()

    def kill(self):
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def temporary():
    # Not tmp_path: the path of a socket has to be short.
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture
def run(temporary):
    run = Run(temporary)
    yield run
    if run.process.poll() is None:
        run.end()
        wait_for(lambda: not list(temporary.iterdir()))


@pytest.fixture
def client(run, tmp_path):
    (tmp_path / "job.py").write_text(JOB)

    def start(*arguments, script=tmp_path / "job.py", env=run.environment, before=lambda: None, within="", **more):
        command = [*within.split(), sys.executable, "-I", "-S", warm.__file__, str(script), *map(str, arguments)]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | more

        def prepare():
            heed_interrupts()
            before()

        # Where the tests run in a shell's background, an interrupt is ignored, and so it would be by the job.
        return subprocess.Popen(command, env=env, preexec_fn=prepare, **pipes)

    return start


def needs(within):
    """Skip where this system does not let a user make such a container."""
    answer = (
        subprocess.run([*within.split(), "true"], capture_output=True, text=True) if shutil.which("unshare") else None
    )
    if answer is None or answer.returncode:
        pytest.skip(f"no {within!r} here: {answer.stderr.strip() if answer else 'not installed'}")


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
    assert client("exit", 3).wait() == 3


def test_a_text_as_exit_code_is_an_error(client):
    job = client("stop")
    assert job.communicate() == ("", "stopped\n")
    assert job.returncode == 1


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


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_programs_of_a_job_end_with_its_client(client, tmp_path, number):
    note = tmp_path / "pid"
    job = client("program", note)
    wait_for(lambda: note.exists() and note.read_text())
    job.send_signal(number)
    # Not communicate(): what the program holds open would be waited for.
    job.wait()
    program = int(note.read_text())
    try:
        wait_for(lambda: ended(program))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(program, signal.SIGKILL)


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (signal.SIGKILL, "killed by signal 9 (SIGKILL): out of memory?\n"),
        (signal.SIGSEGV, "killed by signal 11 (SIGSEGV)\n"),
        (signal.SIGRTMIN + 3, f"killed by signal {signal.SIGRTMIN + 3}\n"),
    ],
)
def test_the_log_says_which_signal_ended_a_job(client, number, said):
    job = client("signal", int(number))
    assert job.communicate()[1] == said
    assert job.returncode == 128 + number
    assert client("exit", 3).wait() == 3


def test_a_job_that_ends_as_its_client_is_killed_harms_no_other(client, tmp_path):
    server = server_of(client)
    job, pid = running(client, tmp_path)
    os.kill(server, signal.SIGSTOP)
    for process in (pid, job.pid):
        os.kill(process, signal.SIGKILL)
    job.communicate()
    os.kill(server, signal.SIGCONT)
    assert server_of(client) == server


def limit(kind, soft):
    resource.setrlimit(kind, (soft, soft))


CIRCUMSTANCES = {
    "umask": lambda: os.umask(0o027),
    "niceness": lambda: os.nice(5),
    "scheduler": lambda: os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0)),
    "processors": lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}),
    "memory": lambda: limit(resource.RLIMIT_AS, 1 << 32),
    "processor time": lambda: limit(resource.RLIMIT_CPU, 50),
    "files": lambda: limit(resource.RLIMIT_NOFILE, 40),
    "core": lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1])),
    "ignored signal": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    "ignored interrupt": lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    "blocked signal": lambda: signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1]),
}


def state(client, run, alone=False, **how):
    """Return what a job sees of itself, and what it wrote to stderr."""
    environment = {**how.pop("env", run.environment), **({warm.FOLDER: ""} if alone else {})}
    out, said = client("state", env=environment, **how).communicate(timeout=20)
    return json.loads(out), said


@pytest.mark.parametrize("name", CIRCUMSTANCES)
def test_a_job_is_in_the_circumstances_of_its_client(client, run, name):
    for number, before in enumerate((CIRCUMSTANCES[name], lambda: None, CIRCUMSTANCES[name])):
        seen, said = state(client, run, before=before)
        assert seen == state(client, run, alone=True, before=before)[0]
        # The server has the run's own limits: where these cannot be raised again, the first job cannot start it.
        assert said == "" or (number == 0 and "not allowed to raise maximum limit" in said)


def test_a_job_has_the_environment_of_its_client(client, run, tmp_path):
    (tmp_path / "t").mkdir()
    others = [
        {"FIRST": "1", "TZ": "UTC-3"},
        {"SECOND": "ü\udcff", "TMPDIR": str(tmp_path / "t"), "LARGE": "x" * 100000},
        {"TZ": "UTC+7", "OMP_NUM_THREADS": "8"},
    ]
    for other in others:
        environment = run.environment | other
        seen, said = state(client, run, env=environment)
        assert (seen, said) == (state(client, run, alone=True, env=environment)[0], "")
        assert seen["environment"]["OMP_NUM_THREADS"] == "1"


def test_a_job_reads_the_input_of_its_client(client, tmp_path):
    client("exit", 0).wait()
    (tmp_path / "input").write_text("what came in")
    with open(tmp_path / "input") as file:
        assert json.loads(client("state", stdin=file).communicate()[0])["input"] == "what came in"


def test_a_working_directory_that_is_gone(client, tmp_path):
    (tmp_path / "gone").mkdir()
    job = client("exit", 3, cwd=tmp_path / "gone", before=lambda: os.rmdir(tmp_path / "gone"))
    assert job.communicate()[1] == ""
    assert job.returncode == 3


def test_what_a_job_changes_of_itself_is_not_passed_on(client, run, tmp_path):
    before = state(client, run)
    (tmp_path / "rude.py").write_text("import os\nos.umask(0), os.chdir('/'), os.environ.update(LEFT='1')\n" + JOB)
    assert client("change").wait() == client("change", script=tmp_path / "rude.py").wait() == 0
    assert state(client, run) == before
    assert server_of(client) == server_of(client)


def test_a_log_on_a_full_disk_is_an_error_as_for_any_process(client, run):
    for environment in (run.environment, run.environment | {warm.FOLDER: ""}):
        with open("/dev/full", "w") as full:
            assert client("say", env=environment, stdout=full).wait() == 120


def test_a_script_whose_import_starts_threads_runs_by_itself(client, tmp_path):
    text = """
    import threading, time

    LOCK, ready = threading.Lock(), threading.Event()

    def hold():
        with LOCK:
            ready.set()
            time.sleep(1)

    threading.Thread(target=hold, daemon=True).start()
    ready.wait()

    def main(arguments):
        with LOCK:
            return 3

    if __name__ == "__main__":
        raise SystemExit(main([]))
    """
    (tmp_path / "threads.py").write_text(textwrap.dedent(text))
    job = client("x", script=tmp_path / "threads.py")
    assert "threads" in job.communicate(timeout=20)[1]
    assert job.returncode == 3
    wait_for(lambda: client("say").communicate()[1] == "to stderr\n")


def test_a_client_that_stalls_makes_nobody_wait(client, run):
    server = server_of(client)
    with contextlib.ExitStack() as stack:
        for part in (b"", b"\0\0", b"\0\0\1\0{"):
            link = stack.enter_context(socket.socket(socket.AF_UNIX))
            link.connect(str(run.folder / "socket"))
            link.sendall(part)
        out, said = client("where").communicate(timeout=20)
        assert (int(out.split()[1]), said) == (server, "")


def test_a_client_that_stalls_is_sent_away(run):
    program = "import sys; from nightsift.workflow import warm, warmserver; warm.PATIENCE = 0.3"
    read, write = os.pipe()
    command = [sys.executable, "-c", f"{program}; warmserver.Server(sys.argv[1]).serve({write})", str(run.folder)]
    with subprocess.Popen(command, env=run.environment, pass_fds=[write]) as server:
        os.close(write)
        assert os.read(read, 100).decode() == warm.READY
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(20)
            link.connect(str(run.folder / "socket"))
            link.sendall(b"\0\0\1\0{")
            assert link.recv(1) == b""
        assert server.poll() is None
        run.end()
    os.close(read)


def test_a_client_that_stalls_as_it_starts_the_server(client, run, tmp_path):
    program = "import sys; from nightsift.workflow import warm; warm.PATIENCE = 0.3; exit(warm.client(sys.argv[1:]))"
    command = [sys.executable, "-c", program, str(tmp_path / "job.py"), "exit", "3"]
    with open(run.folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        job = subprocess.run(command, env=run.environment, capture_output=True, text=True, timeout=20)
    assert "takes too long" in job.stderr
    assert job.returncode == 3


@pytest.mark.parametrize("kill", [True, False])
def test_server_and_jobs_end_with_the_owner(client, run, temporary, tmp_path, kill):
    server = server_of(client)
    job, pid = running(client, tmp_path)
    run.kill() if kill else run.end()
    wait_for(lambda: ended(server) and ended(pid))
    assert job.wait() != 0
    assert list(temporary.iterdir()) == []


def test_a_killed_server_takes_its_jobs_along_and_is_replaced(client, tmp_path):
    server = server_of(client)
    job, pid = running(client, tmp_path)
    os.kill(server, signal.SIGKILL)
    assert "server ended" in job.communicate()[1]
    assert job.returncode == 1
    wait_for(lambda: ended(pid))
    assert server_of(client) != server


def test_a_server_that_is_killed_between_jobs_is_replaced(client):
    server = server_of(client)
    os.kill(server, signal.SIGKILL)
    wait_for(lambda: ended(server))
    job = client("where")
    out, said = job.communicate()
    assert (job.returncode, said) == (0, "")
    assert int(out.split()[1]) != server


def test_a_server_that_is_killed_before_it_takes_a_job_is_replaced(client):
    server = server_of(client)
    os.kill(server, signal.SIGSTOP)
    job = client("where")
    wait_for(lambda: b"unix" in Path(f"/proc/{job.pid}/wchan").read_bytes() or time.sleep(0.5) is None)
    os.kill(server, signal.SIGKILL)
    out, said = job.communicate(timeout=20)
    assert (job.returncode, said) == (0, "")
    assert int(out.split()[1]) != server


def test_without_the_variable_a_script_runs_by_itself(client, run):
    plain = run.environment | {warm.FOLDER: ""}
    job = client("exit", 7, env=plain)
    assert job.wait() == 7
    assert client("say", env=plain).communicate() == ("to stdout ['say']\n", "to stderr\n")
    assert not (run.folder / "socket").exists()


def test_a_run_can_do_without(client, run, monkeypatch, temporary):
    monkeypatch.setenv(warm.FOLDER, "no")
    without = Run(temporary)
    assert list(temporary.iterdir()) == [run.folder]
    assert client("say", env=without.environment).communicate() == ("to stdout ['say']\n", "to stderr\n")
    assert int(client("where", env=without.environment).communicate()[0].split()[1]) == os.getpid()
    without.end()


def test_a_folder_open_to_others_is_refused(client, run, tmp_path):
    run.folder.chmod(0o755)
    job = client("exit", 0)
    assert "open to others" in job.communicate()[1]
    assert job.returncode != 0
    assert not (tmp_path / "imports").exists()


def test_a_folder_that_is_gone_costs_only_time(client, run):
    shutil.rmtree(run.folder)
    job = client("exit", 3)
    assert "not in the warm process: " in job.communicate()[1]
    assert job.returncode == 3


def test_a_job_of_a_run_that_was_killed_does_not_begin(client, run, tmp_path):
    run.kill()
    job = client("exit", 0)
    assert "the process that this job works for has ended" in job.communicate()[1]
    assert job.returncode == 1
    assert not (tmp_path / "imports").exists()


def test_the_next_run_removes_the_folder_of_one_that_was_killed(run, temporary):
    other = Run(temporary)
    assert other.folder != run.folder
    run.kill()
    assert run.folder.exists()
    third = Run(temporary)
    assert sorted(temporary.iterdir()) == sorted([other.folder, third.folder])
    other.end()
    third.end()
    assert list(temporary.iterdir()) == []


def test_two_runs_at_once_have_a_server_each(client, run, temporary):
    other = Run(temporary)
    first, second = server_of(client), int(client("where", env=other.environment).communicate()[0].split()[1])
    assert first != second
    other.end()
    wait_for(lambda: ended(second))
    assert server_of(client) == first


def test_socket_of_a_long_temporary_folder(client, tmp_path):
    long = tmp_path / ("long" * 30)
    long.mkdir()
    run = Run(long)
    assert list(long.iterdir()) == []
    assert run.folder.parent == Path("/tmp")
    assert client("say", env=run.environment).communicate() == ("to stdout ['say']\n", "to stderr\n")
    run.end()
    assert not run.folder.exists()


@pytest.mark.parametrize("holding", [True, False])
def test_a_temporary_folder_that_cannot_hold_sockets(monkeypatch, temporary, holding):
    class Socket(socket.socket):
        def bind(self, address):
            if not holding or str(temporary) in address:
                raise PermissionError(1, "Operation not permitted", address)
            super().bind(address)

    before = set(Path("/tmp").glob("*nightsift-run-*"))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setattr(warm, "_runs", {})
    monkeypatch.setattr(socket, "socket", Socket)
    monkeypatch.setattr(warm.sys, "modules", dict(sys.modules))
    folder = warm.environment()[warm.FOLDER]
    assert list(temporary.iterdir()) == []
    if holding:
        assert Path(folder).parent == Path("/tmp")
        assert warm.environment()[warm.FOLDER] == folder
        shutil.rmtree(folder)
    else:
        assert folder == ""
    assert set(Path("/tmp").glob(".nightsift-run-*")) <= before


@pytest.mark.parametrize("within", CONTAINERS)
def test_a_job_in_another_container_runs_there(client, run, within):
    needs(within)
    for _ in range(2):
        seen, said = state(client, run, within=within)
        assert "not in the warm process" in said
        assert seen["place"] != state(client, run)[0]["place"]


PRODUCT = """
import json, os, subprocess, sys, time
from pathlib import Path
from nightsift.workflow import warm

script, product = sys.argv[1:]
environment = {**os.environ, **warm.environment()}
Path(product).with_suffix(".ready").touch()
end = time.monotonic() + 20
while len(list(Path(product).parent.glob("*.ready"))) < 2 and time.monotonic() < end:
    time.sleep(0.02)
place = [os.readlink(path) for path in sorted(map(str, Path("/proc/self/ns").iterdir()))]
for _ in range(3):
    command = [sys.executable, "-I", "-S", warm.__file__, script, "state"]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    done = subprocess.run(command, env=environment, **pipes)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["place"][:-1] == place
print(os.getpid(), environment["NIGHTSIFT_WARM"])
"""


def test_containers_that_share_a_temporary_folder_share_nothing_else(client, run, temporary, tmp_path):
    within = CONTAINERS[0]
    needs(within)
    (tmp_path / "product.py").write_text(PRODUCT)
    environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": run.environment["PYTHONPATH"]}
    script, pipes = [sys.executable, tmp_path / "product.py", tmp_path / "job.py"], {"stdout": -1, "stderr": -1}
    both = [
        subprocess.Popen([*within.split(), *script, tmp_path / name], env=environment, text=True, **pipes)
        for name in ("first", "second")
    ]
    answers = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], answers
    (first, folder), (second, other) = (out.split() for out, _ in answers)
    assert first == second, "not the same process number: nothing is shown"
    assert folder != other
    wait_for(lambda: list(temporary.iterdir()) == [run.folder])


def test_a_process_that_got_the_number_of_the_owner_is_not_the_owner(client, temporary, tmp_path):
    needs(CONTAINERS[0])
    program = """
    import json, os, subprocess, sys
    from pathlib import Path
    from nightsift.workflow import warm

    owner = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdin=-1, stdout=-1, text=True)
    environment = {**os.environ, **json.loads(owner.stdout.readline())}
    owner.kill()
    owner.communicate()
    Path("/proc/sys/kernel/ns_last_pid").write_text(str(owner.pid - 1))
    other = subprocess.Popen(["sleep", "60"])
    assert other.pid == owner.pid, "the number was not used again"
    command = [sys.executable, "-I", "-S", warm.__file__, sys.argv[2], "exit", "0"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    other.kill()
    print(done.returncode, done.stderr)
    """
    command = [*CONTAINERS[0].split(), sys.executable, "-c", textwrap.dedent(program), OWNER, tmp_path / "job.py"]
    environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if "ns_last_pid" in done.stderr:
        pytest.skip("process numbers cannot be set here")
    assert done.stdout.startswith("1 the process that this job works for has ended"), done
    Run(temporary).end()


def test_without_proc_a_job_runs_by_itself(client, run, temporary, tmp_path):
    needs(LOCAL_MOUNT)
    program = 'mount -t tmpfs none /proc && exec "$@"'
    script = [sys.executable, "-c", OWNER.replace("json.dumps(warm.environment())", "warm.environment()[warm.FOLDER]")]
    whole = [*LOCAL_MOUNT.split(), "sh", "-c", program, "sh"]
    environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": run.environment["PYTHONPATH"]}
    made = subprocess.run([*whole, *script], env=environment, input="", capture_output=True, text=True)
    assert made.stdout == "\n", made
    assert list(temporary.iterdir()) == [run.folder]
    command = [sys.executable, "-I", "-S", warm.__file__, tmp_path / "job.py", "exit", "3"]
    job = subprocess.run([*whole, *command], env=run.environment, capture_output=True, text=True)
    assert job.returncode == 3
    assert job.stderr.startswith("not in the warm process: ")


def test_a_user_without_privileges_gets_the_same(client, temporary, tmp_path):
    within = "unshare --user"
    needs(within)
    program = """
    import json, os, resource, subprocess, sys
    from nightsift.workflow import warm

    def seen(before, folder):
        command = [sys.executable, "-I", "-S", warm.__file__, sys.argv[1], "state"]
        environment = {**os.environ, **warm.environment(), **folder}
        pipes = {"stdin": subprocess.DEVNULL, "stdout": -1, "stderr": -1}
        done = subprocess.run(command, env=environment, preexec_fn=before, check=True, **pipes)
        return json.loads(done.stdout), done.stderr.decode()

    def restricted():
        os.nice(5)
        resource.setrlimit(resource.RLIMIT_CPU, (50, 50))

    for before in (restricted, lambda: None, restricted):
        (warmly, said), (alone, _) = seen(before, {}), seen(before, {warm.FOLDER: ""})
        assert warmly == alone, (warmly, alone)
        print(bool(said))
    """
    command = [*within.split(), sys.executable, "-c", textwrap.dedent(program), tmp_path / "job.py"]
    environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    # The first can start no server with the niceness of the run; then there is one.
    assert done.stdout.split() == ["True", "False", "False"], done
