"""Requests with manners: time-outs, retries that wait longer each time, mirrors, and limits on what is taken."""

from __future__ import annotations

import email.utils
import os
import random
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import requests

from nightsift import __version__
from nightsift.errors import Unavailable
from nightsift.parameters import ArchiveConfig

USER_AGENT = f"nightsift/{__version__} (python-requests/{requests.__version__})"
CONNECT_TIMEOUT = 15.0
# A reply that trickles in is given this many time-outs in all.
PATIENCE = 10
LONGEST_WAIT = 60.0
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
_BROKEN = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)


class ServiceDown(Unavailable):
    """A service does not answer, or refuses to for now; `wait` is when it wants to be asked again [s]."""

    def __init__(self, message: str, wait: float = 0.0):
        super().__init__(message)
        self.wait = wait


class BadReply(Unavailable):
    """A service answers, but with an error, or with what cannot be the whole answer.

    Attributes
    ----------
    status : int or None
        The HTTP status, where that is what is wrong.
    """

    def __init__(self, message: str, status: int | None = None):
        super().__init__(message)
        self.status = status


class Session(requests.Session):
    """A session that any client built on requests can use, astroquery's among them (as its ``_session``).

    Parameters
    ----------
    service : str
        Its name, for messages.
    servers : list of str
        Where it is and its mirrors, as ``https://host[:port][/path]``: they stand in for the host of each URL, one
        after the other until one of them answers. Empty leaves the URLs as they are.
    settings : nightsift.parameters.Archive
    check : callable
        Raises `BadReply` for a body that is an error or not whole, whatever its status says.
    """

    def __init__(
        self,
        service: str,
        servers: list[str],
        settings: ArchiveConfig,
        check: Callable[[bytes], None] = lambda body: None,
    ):
        super().__init__()
        self.headers["User-Agent"] = USER_AGENT
        self.service, self.servers, self.settings, self.check = service, servers or [""], settings, check

    def request(self, method, url, **options):
        """Return a reply that is whole and no error.

        Raises
        ------
        ServiceDown, BadReply
            The last thing that went wrong, after all attempts at all servers; at once where asking again is no use.
        """
        # Different for each user and question, so that those who failed together do not come back together.
        jitter = random.Random(f"{os.getpid()} {url} {options}")
        failure: Unavailable = ServiceDown(f"{self.service} was not asked")
        for attempt in range(self.settings.attempts):
            if attempt:
                wait = self.settings.wait * 2 ** (attempt - 1) * (0.5 + jitter.random())
                time.sleep(min(max(wait, getattr(failure, "wait", 0.0)), LONGEST_WAIT))
            for server in self.servers:
                try:
                    return self._once(method, _moved(url, server), **options)
                except (ServiceDown, BadReply) as error:
                    failure = error
            if getattr(failure, "status", None) or getattr(failure, "wait", 0.0) > LONGEST_WAIT:
                break
        raise failure

    def _once(self, method, url, **options):
        options |= {"timeout": (min(CONNECT_TIMEOUT, self.settings.timeout), self.settings.timeout), "stream": True}
        host = urlsplit(url).netloc
        try:
            with super().request(method, url, **options) as reply:
                if reply.status_code in _TRANSIENT:
                    text = f"{self.service} at {host} is not available (HTTP {reply.status_code} {reply.reason})"
                    raise ServiceDown(text, _retry_after(reply.headers.get("Retry-After")))
                if not reply.ok:
                    text = f"{self.service} at {host} refuses the question (HTTP {reply.status_code} {reply.reason})"
                    raise BadReply(text, reply.status_code)
                body = self._body(reply, host)
        except _BROKEN as error:
            raise ServiceDown(f"{self.service} at {host} does not answer ({_cause(error)})") from error
        except requests.RequestException as error:
            raise BadReply(f"{self.service} at {host}: {_cause(error)}") from error
        try:
            self.check(body)
        except BadReply as error:
            raise BadReply(f"{self.service} at {host}: {error}") from error
        # What `reply.content` gives from now on; a stream cannot be read twice.
        reply._content, reply._content_consumed = body, True
        return reply

    def _body(self, reply, host: str) -> bytes:
        limit, end = self.settings.max_size * 1e6, time.monotonic() + PATIENCE * self.settings.timeout
        parts, size = [], 0
        for part in reply.iter_content(1 << 16):
            parts.append(part)
            size += len(part)
            if size > limit:
                raise BadReply(f"{self.service} at {host} sends more than {self.settings.max_size:g} MB")
            if time.monotonic() > end:
                raise ServiceDown(f"{self.service} at {host} sends too slowly")
        return b"".join(parts)


def _moved(url: str, server: str) -> str:
    """Return a URL on another server."""
    if not server:
        return url
    there = urlsplit(server)
    path = there.path.rstrip("/") + urlsplit(url).path
    return urlsplit(url)._replace(scheme=there.scheme, netloc=there.netloc, path=path).geturl()


def _retry_after(value: str | None) -> float:
    """Return the seconds that a header Retry-After asks for, 0 without one."""
    if not value:
        return 0.0
    try:
        return max(float(value), 0.0)
    except ValueError:
        pass
    try:
        return max(email.utils.parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    except (TypeError, ValueError):
        return 0.0


def _cause(error: BaseException) -> str:
    """Return the innermost reason of an error of requests, which wraps those of its libraries."""
    reason = error
    while True:
        deeper = getattr(reason, "reason", None)
        if not isinstance(deeper, BaseException):
            deeper = next((item for item in reason.args if isinstance(item, BaseException)), None)
        if deeper is None:
            text = str(reason).rsplit(">: ", 1)[-1].rsplit("): ", 1)[-1].strip()
            return text or type(reason).__name__
        reason = deeper
