"""Run a script in a process that has its imports already done: one server imports, each job is a fork of it.

``python -I -S warm.py SCRIPT [ARGUMENT ...]`` hands the script to the server of the run whose folder is named in the
environment variable ``NIGHTSIFT_WARM``, and starts that server where there is none. The server imports each script once
(a script is a module with ``main(arguments) -> int``), forks for every job, and ends with the process that made the
folder, its owner; a job ends with its client. To a job, all is as if its client had started it: environment, working
directory, umask, standard input and output, niceness, scheduling, processors, limits, ignored signals.

A fork can take on none of the rest: the namespaces, control group, user and root folder of its client, another Python,
and what libraries read of the environment when they load. Where client and owner differ in those, where a folder or a
system lacks what this needs, and without the variable, the script runs in a Python of its own.

This file is run with ``-I -S`` by every job, so the client's side imports only what it needs.
"""

import os
import sys

FOLDER, OWNER = "NIGHTSIFT_WARM", "NIGHTSIFT_WARM_OWNER"
WITHOUT = "no"  # as the folder: every job in a Python of its own
PREFIX = "nightsift-run-"
READY = "ready"
STARTED, REFUSED = b"S", b"R"
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1")
# Python and the libraries read these when they start or are imported.
AT_START = ("PYTHON", "LD_", "LANG", "LC_", "MALLOC_", "GLIBC_", "NUMBA_", "HOME", "XDG_", "MPL", "ASTROPY")
NAMESPACES = ("pid", "user", "mnt", "net", "ipc", "uts")
PATIENCE = 30.0  # seconds for a client to send its request, and for another one to start the server

_runs: dict[int, dict[str, str]] = {}


class Alone(Exception):
    """Why a job cannot run in the server."""


def environment() -> dict[str, str]:
    """Return the variables that let the jobs below this process share a server, and find this package.

    The folder that they name is made at the first call, and removed when this process ends.
    """
    process = os.getpid()
    if process not in _runs:
        _runs[process] = _begin()
    return _runs[process]


def _begin():
    import contextlib
    import secrets
    import tempfile

    top = os.path.dirname(sys.modules[__name__.partition(".")[0]].__file__)
    path = os.pathsep.join(filter(None, (os.path.dirname(os.path.abspath(top)), os.environ.get("PYTHONPATH"))))
    # Without a folder, the variable is empty: that of a run around this one must not pass for its own.
    variables = {FOLDER: "", OWNER: secrets.token_hex(16), "PYTHONPATH": path}
    if os.environ.get(FOLDER) == WITHOUT:
        return variables | {FOLDER: WITHOUT}
    with contextlib.suppress(OSError):
        for place in dict.fromkeys((tempfile.gettempdir(), "/tmp", "/dev/shm")):
            with contextlib.suppress(OSError):
                return variables | {FOLDER: _claim(place, {**os.environ, **variables})}
    return variables


def _claim(place, variables):
    """Make a folder in which a socket can be, and hold it for as long as this process lives."""
    import atexit
    import fcntl
    import json
    import shutil
    import socket
    import tempfile

    if _elsewhere(os.getpid()):
        raise OSError("/proc is that of other processes")
    _sweep(place)
    # Locked before it gets the name that others look for.
    unnamed = tempfile.mkdtemp(prefix=f".{PREFIX}", dir=place)
    folder = f"{place}/{os.path.basename(unnamed)[1:]}"
    handle = os.open(f"{unnamed}/owner", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        # Not flock: of this lock, the system tells others who holds it.
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(handle, json.dumps({"start": _start_of(variables), "share": _share()}).encode())
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.bind(f"{unnamed}/socket")
        os.unlink(f"{unnamed}/socket")
        os.rename(unnamed, folder)
    except OSError:
        os.close(handle)
        shutil.rmtree(unnamed, ignore_errors=True)
        raise
    process = os.getpid()
    atexit.register(lambda: os.getpid() == process and shutil.rmtree(folder, ignore_errors=True))
    return folder


def _sweep(place):
    """Remove the folders of runs that were killed."""
    import glob
    import shutil
    import stat

    for folder in glob.glob(f"{glob.escape(place)}/{PREFIX}*"):
        try:
            about = os.lstat(folder)
            if stat.S_ISDIR(about.st_mode) and about.st_uid == os.getuid() and owner(folder) is None:
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue


def owner(folder):
    """Return the process that holds a folder, 0 if it cannot be seen from here, None if there is none."""
    import fcntl
    import struct

    layout = "hhqqi"  # of struct flock: type, whence, start, length, process
    try:
        with open(f"{folder}/owner", "rb") as file:
            held = fcntl.fcntl(file, fcntl.F_GETLK, struct.pack(layout, fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0))
    except FileNotFoundError:
        return None
    kind, *_, process = struct.unpack(layout, held)
    return None if kind == fcntl.F_UNLCK else max(process, 0)


def _start_of(variables):
    """Return what is settled when a process starts."""
    kept = {name: value for name, value in variables.items() if name.startswith(AT_START)}
    return {"Python": [sys.executable, sys.version], "ids": _ids(), "environment": kept}


def _ids():
    return [list(os.getresuid()), list(os.getresgid()), sorted(os.getgroups())]


def _share():
    """Return what this process may use of the machine."""
    import resource

    kinds = {getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")}
    return {
        "scheduler": [os.sched_getscheduler(0), os.sched_getparam(0).sched_priority],
        "niceness": os.getpriority(os.PRIO_PROCESS, 0),
        "processors": sorted(os.sched_getaffinity(0)),
        "limits": [[kind, *resource.getrlimit(kind)] for kind in sorted(kinds)],
    }


def take(share):
    """Use of the machine what another process may use; raise OSError or ValueError where this is not allowed."""
    import resource

    own = _share()
    if own["scheduler"] != share["scheduler"]:
        policy, priority = share["scheduler"]
        os.sched_setscheduler(0, policy, os.sched_param(priority))
    if own["niceness"] != share["niceness"]:
        os.setpriority(os.PRIO_PROCESS, 0, share["niceness"])
    if own["processors"] != share["processors"]:
        os.sched_setaffinity(0, share["processors"])
    for kind, soft, hard in share["limits"]:
        if resource.getrlimit(kind) != (soft, hard):
            resource.setrlimit(kind, (soft, hard))


def _circumstances():
    """Return what a job takes on of its client, besides the open files."""
    import signal

    umask = os.umask(0o077)
    os.umask(umask)
    numbers = range(1, signal.NSIG)
    return {
        "environment": {**os.environ, **ONE_THREAD},
        "umask": umask,
        "share": _share(),
        "ignored": [number for number in numbers if signal.getsignal(number) is signal.SIG_IGN],
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
    }


def become(circumstances, files):
    """Take on what a client sent; `files` are its standard ones and its working directory."""
    import signal
    import tempfile
    import time

    take(circumstances["share"])
    *standard, directory = files
    os.fchdir(directory)
    for target, source in enumerate(standard):
        os.dup2(source, target)
    for file in files:
        os.close(file)
    os.umask(circumstances["umask"])
    os.environ.clear()
    os.environ.update(circumstances["environment"])
    time.tzset()
    tempfile.tempdir = None
    for number in {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, *circumstances["ignored"]}:
        otherwise = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN if number in circumstances["ignored"] else otherwise)
    signal.pthread_sigmask(signal.SIG_SETMASK, circumstances["blocked"])


def _elsewhere(process):
    """Return in what another process lives elsewhere than this one, or an empty text."""
    # After unshare --pid, /proc may still be that of the processes outside.
    if process <= 0 or os.readlink("/proc/self") != str(os.getpid()):
        return "pid namespace"
    for kind in NAMESPACES:
        if os.readlink(f"/proc/{process}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}"):
            return f"{kind} namespace"
    if not os.path.samefile(f"/proc/{process}/root", "/"):
        return "root folder"
    for name in ("cgroup", "oom_score_adj"):
        with open(f"/proc/{process}/{name}") as theirs, open(f"/proc/self/{name}") as ours:
            if theirs.read() != ours.read():
                return name
    return ""


def check_peer(link):
    """Raise Alone unless the process at the other end is of the same user and in the same place."""
    import socket
    import struct

    about = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII"))
    process, user, _ = struct.unpack("iII", about)
    apart = "user" if user != os.geteuid() else _elsewhere(process)
    if apart:
        raise Alone(f"client and server differ in their {apart}")


def client(arguments: list[str]) -> int:
    """Run ``SCRIPT [ARGUMENT ...]`` and return its exit code."""
    folder = os.environ.get(FOLDER)
    if folder and folder != WITHOUT and hasattr(os, "pidfd_open"):
        try:
            return _result(_hand_over(folder, arguments))
        except (Alone, OSError) as why:
            print(f"not in the warm process: {why}", file=sys.stderr, flush=True)
    os.execve(sys.executable, [sys.executable, *arguments], {**os.environ, **ONE_THREAD})


def _hand_over(folder, arguments):
    """Return the connection to the server once the job has begun."""
    import json
    import socket

    request = json.dumps({"arguments": arguments, "script": os.path.abspath(arguments[0]), **_circumstances()}).encode()
    directory = os.open(".", os.O_PATH | os.O_DIRECTORY)
    attempts = 3
    for _ in range(attempts):
        link = _connect(folder, socket)
        check_peer(link)
        try:
            socket.send_fds(link, [len(request).to_bytes(4, "big")], [0, 1, 2, directory])
            link.sendall(request)
            answer = link.recv(1)
        except (BrokenPipeError, ConnectionResetError):
            answer = b""
        if answer == STARTED:
            return link
        if answer == REFUSED:
            raise Alone(link.recv(1000).decode())
    raise Alone("its server ends before it begins")


def _result(link):
    """Wait for the end of a job; return the exit code that a shell would give."""
    try:
        code, number = link.recv(2)
    except (ConnectionResetError, ValueError):
        print("the job's server ended before the job did", file=sys.stderr)
        return 1
    if number:
        import signal

        try:
            name = f" ({signal.Signals(number).name})"
        except ValueError:
            name = ""
        cause = ": out of memory?" if number == signal.SIGKILL else ""
        print(f"killed by signal {number}{name}{cause}", file=sys.stderr)
    return code


def _connect(folder, socket):
    import json

    about = os.lstat(folder)
    if about.st_uid != os.getuid() or about.st_mode & 0o077:
        raise SystemExit(f"{folder} is open to others or belongs to another user; remove it")
    process = owner(folder)
    if process is None:
        raise SystemExit("the process that this job works for has ended")
    with open(f"{folder}/owner", encoding="utf-8") as file:
        settled = json.load(file)["start"]
    own = _start_of(os.environ)
    apart = _elsewhere(process) or next((key for key in own if own[key] != settled[key]), "")
    if apart:
        raise Alone(f"this job and its run differ in their {apart}")
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        link.connect(f"{folder}/socket")
    except (FileNotFoundError, ConnectionRefusedError):
        with open(f"{folder}/lock", "w") as lock:
            _wait_for(lock)
            try:
                link.connect(f"{folder}/socket")
            except (FileNotFoundError, ConnectionRefusedError):
                _start(folder)
                link.connect(f"{folder}/socket")
    return link


def _wait_for(lock):
    import fcntl
    import time

    end = time.monotonic() + PATIENCE
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise Alone("another job takes too long to start the server") from None
            time.sleep(0.02)


def _start(folder):
    """Start the server as a daemon and wait until it listens."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        if os.fork() == 0:
            null = os.open(os.devnull, os.O_RDWR)
            log = os.open(f"{folder}/log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            for target, source in enumerate((null, log, log)):
                os.dup2(source, target)
            os.set_inheritable(write, True)
            program = f"{os.path.dirname(os.path.abspath(__file__))}/warmserver.py"
            command = [sys.executable, "-P", program, folder, str(write)]
            os.execve(sys.executable, command, {**os.environ, **ONE_THREAD})
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    answer = os.read(read, 1000).decode()
    os.close(read)
    if answer != READY:
        raise Alone(f"the server did not start: {answer or f'see {folder}/log'}")


if __name__ == "__main__":
    sys.exit(client(sys.argv[1:]))
