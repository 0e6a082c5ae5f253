"""The process of which the jobs of a run are forks; see warm.py, whose clients start it and send it their jobs."""

import contextlib
import gc
import glob
import json
import os
import resource
import selectors
import shutil
import signal
import socket
import sys
import time
import traceback

from nightsift.workflow import warm


class Server:
    """Import scripts, fork for each request, report the exit codes."""

    def __init__(self, folder: str):
        self.folder = folder
        self.process = os.getpid()
        self.running = True
        self.events = selectors.DefaultSelector()
        self.requests: dict[object, _Request] = {}
        self.modules: dict[str, object] = {}
        self.jobs: dict[int, tuple[int, object]] = {}

    def serve(self, ready: int) -> None:
        """Answer requests until the owner ends."""
        try:
            owner = self._listen()
        except (OSError, ValueError) as error:
            os.write(ready, str(error).encode())
            return
        self.events.register(self.socket, 1, self._accept)
        self.events.register(owner, 1, self._stop)
        os.write(ready, warm.READY.encode())
        os.close(ready)
        while self.running:
            for key, _ in self.events.select(1.0 if self.requests else None):
                # One that an earlier event of the same moment has closed is no longer there.
                if self.events.get_map().get(key.fd) is key:
                    key.data(key.fileobj)
            for link in [link for link, request in self.requests.items() if time.monotonic() > request.end]:
                self._forget(link).close()
                link.close()
        for process, _ in self.jobs.values():
            _kill(process)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _listen(self):
        """Open the socket; return a file that can be read once the owner has ended."""
        owner = warm.owner(self.folder)
        watch = os.pidfd_open(owner) if owner else None
        if watch is None or warm.owner(self.folder) != owner:
            raise ProcessLookupError("the process that it works for has ended")
        os.chdir("/")
        with open(f"{self.folder}/owner", encoding="utf-8") as file:
            warm.take(json.load(file)["share"])
        # Two files for each job: the share of a job, which has its own limit, says nothing of this.
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self.folder}/socket")
        self.socket.bind(f"{self.folder}/socket")
        self.socket.listen(1024)
        return watch

    def _stop(self, _):
        self.running = False

    def _accept(self, _):
        link, _ = self.socket.accept()
        try:
            warm.check_peer(link)
        except (warm.Alone, OSError) as why:
            _answer(link, warm.REFUSED + str(why).encode())
            link.close()
            return
        link.setblocking(False)
        self.requests[link] = _Request()
        self.events.register(link, 1, self._receive)

    def _receive(self, link):
        """Take what there is of a request, and begin its job when it is complete; no client makes the others wait."""
        request = self.requests[link]
        try:
            if request.receive(link):
                return
            content = json.loads(request.content)
        except (OSError, ValueError):
            self._forget(link).close()
            link.close()
            return
        self._forget(link)
        self._begin(link, content, request)
        request.close()

    def _forget(self, link):
        self.events.unregister(link)
        return self.requests.pop(link)

    def _begin(self, link, content, request):
        main = self._load(content["script"])
        if len(os.listdir("/proc/self/task")) > 1:
            # A fork has only the thread that forks: locks that others hold would stay locked for ever.
            _answer(link, warm.REFUSED + b"an import has started threads")
            link.close()
            return
        gc.freeze()
        sys.stdout.flush()
        try:
            process = os.fork()
        except OSError as why:
            _answer(link, warm.REFUSED + str(why).encode())
            link.close()
            return
        if process == 0:
            self._work(main, link, content, request.files)
        watch = os.pidfd_open(process)
        self.jobs[watch] = process, link
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

    def _work(self, main, link, content, files):
        code = 1
        try:
            _end_with(self.process)
            # What other clients sent has to close when their own processes close it.
            for key in list(self.events.get_map().values()):
                os.close(key.fd)
            for other in self.requests.values():
                other.close()
            try:
                warm.become(content, files)
            except (OSError, ValueError) as why:
                _answer(link, warm.REFUSED + str(why).encode())
                os._exit(0)
            _answer(link, warm.STARTED)
            link.close()
            sys.argv = content["arguments"]
            code = _run(main or _import(content["script"]).main)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def _ended(self, watch):
        process, link = self.jobs.pop(watch)
        self.events.unregister(watch)
        if link in self.events.get_map():
            self.events.unregister(link)
        os.close(watch)
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        _answer(link, bytes([status, 0] if status >= 0 else [128 - status, -status]))
        link.close()

    def _abandoned(self, watch):
        process, link = self.jobs[watch]
        self.events.unregister(link)
        _kill(process)


class _Request:
    """What a client has sent so far."""

    def __init__(self):
        self.end = time.monotonic() + warm.PATIENCE
        self.buffer = bytearray()
        self.files = []

    @property
    def content(self):
        return self.buffer[4:]

    def receive(self, link):
        """Take what there is; return whether more must come."""
        part, files, _, _ = socket.recv_fds(link, 1 << 16, 8)
        self.buffer += part
        self.files += files
        if not part:
            raise ConnectionResetError("the client has gone")
        return len(self.buffer) < 4 or len(self.content) < int.from_bytes(self.buffer[:4], "big")

    def close(self):
        while self.files:
            os.close(self.files.pop())


def _answer(link, content):
    try:
        link.sendall(content)
    except OSError:
        pass  # the client has gone: nobody is left to tell


def _run(main):
    """Return the exit code that Python would give for a script."""
    try:
        code = main(sys.argv[1:]) or 0
    except SystemExit as stop:
        code = stop.code or 0
        if not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        traceback.print_exc()
        code = 1
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        return 120
    return int(code) & 0xFF


def _import(script):
    """Import a script; what this does to the process is undone, since it would pass on to other jobs."""
    import importlib.util

    variables, umask, folder = dict(os.environ), os.umask(0o077), os.open(".", os.O_PATH | os.O_DIRECTORY)
    os.umask(umask)
    try:
        specification = importlib.util.spec_from_file_location(os.path.basename(script)[:-3] + "_script", script)
        module = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(module)
    finally:
        os.fchdir(folder)
        os.close(folder)
        os.umask(umask)
        os.environ.clear()
        os.environ.update(variables)
    return module


def _end_with(parent):
    """Have this process killed when its parent ends."""
    import ctypes

    death_signal = 1
    ctypes.CDLL(None).prctl(death_signal, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _kill(process):
    """Kill a process and all that it has started."""
    with contextlib.suppress(OSError):
        # Stopped, it starts no more, and those below it keep their numbers.
        os.kill(process, signal.SIGSTOP)
        for path in glob.glob(f"/proc/{process}/task/*/children"):
            with open(path) as children:
                for child in map(int, children.read().split()):
                    _kill(child)
    with contextlib.suppress(OSError):
        os.kill(process, signal.SIGKILL)


if __name__ == "__main__":
    Server(sys.argv[1]).serve(int(sys.argv[2]))
