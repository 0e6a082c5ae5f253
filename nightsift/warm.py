"""Run a script in a process that has its imports already done: one server imports, each job is a fork of it.

``python -I -S warm.py SCRIPT [ARGUMENT ...]`` hands the script to the server whose folder is named in the environment
variable ``NIGHTSIFT_WARM`` and starts that server where there is none. The server imports each script once (a script is
a module with ``main(arguments) -> int``), forks for every job, and ends with the process whose number stands in
``NIGHTSIFT_WARM_OWNER``; a job ends with its client. Without the variable, or where the system has no pidfd, the
script runs in a Python of its own.

This file is run with ``-I -S`` by every job, so the client's side imports only what it needs.
"""

import os
import sys

FOLDER, OWNER = "NIGHTSIFT_WARM", "NIGHTSIFT_WARM_OWNER"
READY = "ready"
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1")


def environment(owner: int) -> dict[str, str]:
    """Return the variables that let the jobs below process `owner` share a server, and find this package."""
    import tempfile

    name, longest_socket = f"nightsift-{os.getuid()}-{owner}", 107
    places = (f"{place}/{name}" for place in (tempfile.gettempdir(), "/tmp"))
    folder = next(place for place in places if len(os.fsencode(f"{place}/socket")) <= longest_socket)
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    return {FOLDER: folder, OWNER: str(owner), "PYTHONPATH": path}


def client(arguments: list[str]) -> int:
    """Run ``SCRIPT [ARGUMENT ...]`` and return its exit code."""
    folder = os.environ.get(FOLDER)
    if not folder or not hasattr(os, "pidfd_open"):
        os.execve(sys.executable, [sys.executable, *arguments], {**os.environ, **ONE_THREAD})
    import json
    import socket

    link = _connect(folder, socket)
    request = json.dumps({"arguments": arguments, "cwd": os.getcwd()}).encode()
    socket.send_fds(link, [len(request).to_bytes(4, "big")], [1, 2])
    link.sendall(request)
    answer = link.recv(1)
    if not answer:
        print("the job's server ended before the job did", file=sys.stderr)
        return 1
    return answer[0]


def _connect(folder, socket):
    import fcntl

    os.makedirs(folder, mode=0o700, exist_ok=True)
    about = os.stat(folder)
    if about.st_uid != os.getuid() or about.st_mode & 0o077:
        raise PermissionError(f"{folder} is open to others or belongs to another user; remove it")
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with open(f"{folder}/lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            link.connect(f"{folder}/socket")
        except (FileNotFoundError, ConnectionRefusedError):
            _start(folder)
            link.connect(f"{folder}/socket")
    return link


def _start(folder):
    """Start the server as a daemon and wait until it listens."""
    read, write = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            null = os.open(os.devnull, os.O_RDWR)
            log = os.open(f"{folder}/log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            for target, source in enumerate((null, log, log)):
                os.dup2(source, target)
            os.set_inheritable(write, True)
            command = [sys.executable, "-P", os.path.abspath(__file__), "--serve", folder, str(write)]
            os.execve(sys.executable, command, {**os.environ, **ONE_THREAD})
        os._exit(0)
    os.close(write)
    os.wait()
    answer = os.read(read, 200).decode()
    os.close(read)
    if answer != READY:
        raise SystemExit(f"the server of the jobs did not start: {answer or f'see {folder}/log'}")


class Server:
    """Import scripts, fork for each request, report the exit codes."""

    def __init__(self, folder: str):
        import selectors
        import socket

        self.folder = folder
        self.events = selectors.DefaultSelector()
        self.modules: dict[str, object] = {}
        self.jobs: dict[int, tuple[int, object]] = {}
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        path = f"{folder}/socket"
        if os.path.exists(path):
            os.unlink(path)
        self.socket.bind(path)
        self.socket.listen(1024)

    def serve(self, ready: int) -> None:
        """Answer requests until the owner ends."""
        import shutil
        import signal

        try:
            owner = os.pidfd_open(int(os.environ[OWNER]))
        except ProcessLookupError:
            shutil.rmtree(self.folder, ignore_errors=True)
            os.write(ready, b"the process that it works for has ended")
            return
        read = 1
        self.events.register(self.socket, read, self._accept)
        self.events.register(owner, read, self._stop)
        os.write(ready, READY.encode())
        os.close(ready)
        self.running = True
        while self.running:
            for key, _ in self.events.select():
                key.data(key.fileobj)
        for pid, _ in self.jobs.values():
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _stop(self, _):
        self.running = False

    def _accept(self, _):
        import gc
        import json
        import socket

        link, _ = self.socket.accept()
        try:
            size, files, _, _ = socket.recv_fds(link, 4, 2)
            request = json.loads(link.recv(int.from_bytes(size, "big"), socket.MSG_WAITALL))
        except (OSError, ValueError):
            link.close()
            return
        main = self._load(request["arguments"][0])
        gc.freeze()
        pid = os.fork()
        if pid == 0:
            self._work(main, request, files)
        for file in files:
            os.close(file)
        watch = os.pidfd_open(pid)
        self.jobs[watch] = pid, link
        self.events.register(watch, 1, self._ended)
        self.events.register(link, 1, lambda _: self._abandoned(watch))

    def _load(self, script):
        """Return the script's `main`, or None if it cannot be imported: the job then says why in its own log."""
        if script not in self.modules:
            try:
                self.modules[script] = _import(script)
            except BaseException:
                return None
        return self.modules[script].main

    def _work(self, main, request, files):
        import traceback

        code = 1
        try:
            _die_with_parent()
            self.socket.close()
            for target, source in enumerate(files, start=1):
                os.dup2(source, target)
            os.chdir(request["cwd"])
            sys.argv = request["arguments"]
            code = (main or _import(sys.argv[0]).main)(sys.argv[1:])
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1 if stop.code else 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code or 0)

    def _ended(self, watch):
        pid, link = self.jobs.pop(watch)
        self.events.unregister(watch)
        if link in self.events.get_map():
            self.events.unregister(link)
        os.close(watch)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        try:
            link.sendall(bytes([status if status >= 0 else 128 - status]))
        except OSError:
            pass  # the client has gone: nobody is left to tell
        link.close()

    def _abandoned(self, watch):
        import signal

        pid, link = self.jobs[watch]
        self.events.unregister(link)
        os.kill(pid, signal.SIGKILL)


def _import(script):
    import importlib.util

    specification = importlib.util.spec_from_file_location(os.path.basename(script)[:-3] + "_script", script)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def _die_with_parent():
    import ctypes
    import signal

    death_signal = 1
    ctypes.CDLL(None).prctl(death_signal, signal.SIGKILL)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        Server(sys.argv[2]).serve(int(sys.argv[3]))
    else:
        sys.exit(client(sys.argv[1:]))
