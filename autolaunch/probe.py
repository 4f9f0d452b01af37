"""Ready means it answered: `/health`, then one real completion of one token (or an embedding).

I/O over HTTP with the standard library, TCP, TLS or unix socket, on this machine only.
"""

from __future__ import annotations

import http.client
import io
import json
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from autolaunch.errors import shortage
from autolaunch.liveness import ABSENT_S
from autolaunch.wish import Address

if TYPE_CHECKING:
    from typing_extensions import Buffer

ANSWER_BYTES = 1 << 20


class Verdict(Enum):
    """What a probe found."""

    PASSED = "passed"
    NOT_YET = "not yet"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Answer:
    """A verdict and, where it is not PASSED, what was seen; `short` where this process had no means to ask."""

    verdict: Verdict
    seen: str = ""
    short: str = ""

    @property
    def final(self) -> bool:
        """Whether asking again would not help."""
        return self.verdict is not Verdict.NOT_YET


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _connect(address: Address, timeout: float) -> http.client.HTTPConnection:
    if address.uds:
        return _UnixConnection(address.uds, timeout)
    if address.tls:
        context = ssl.create_default_context()
        context.check_hostname = False  # the certificate names the public host; this goes to our own child
        context.verify_mode = ssl.CERT_NONE
        return http.client.HTTPSConnection(address.local_host, address.port, timeout=timeout, context=context)
    return http.client.HTTPConnection(address.local_host, address.port, timeout=timeout)


def request(
    address: Address,
    path: str,
    *,
    body: Mapping[str, Any] | None = None,
    api_key: str = "",
    timeout: float = 5.0,
) -> tuple[int, Any]:
    """Return status and parsed answer (text where it is not JSON); OSError or HTTPException where there is none.

    `timeout` seconds bound the whole answer: one that drips is cut off, which is a TimeoutError. Where it was this
    process that stood still meanwhile, nobody read the answer, and it is asked for again.
    """
    while True:
        since = time.monotonic()
        try:
            return _request(address, path, body, api_key, timeout)
        except TimeoutError:
            if time.monotonic() - since <= timeout + ABSENT_S:
                raise


def _request(
    address: Address, path: str, body: Mapping[str, Any] | None, api_key: str, timeout: float
) -> tuple[int, Any]:
    connection = _connect(address, timeout)
    connection.response_class = _until(time.monotonic() + timeout)
    try:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {api_key}"} if api_key else {})
        payload = None if body is None else json.dumps(body)
        connection.request("GET" if body is None else "POST", address.root_path + path, body=payload, headers=headers)
        response = connection.getresponse()
        text = response.read(ANSWER_BYTES).decode("utf-8", "replace")
    finally:
        connection.close()
    try:
        return response.status, json.loads(text)
    except ValueError:
        return response.status, text


class _Timed(io.RawIOBase):
    """What comes from a socket until a deadline, in however small drops: TimeoutError after it.

    No thread that cuts it off: one was started for each request, and where none could be started nobody could ask.
    """

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("no whole answer in time")
        self._sock.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def _until(deadline: float) -> type[http.client.HTTPResponse]:
    """Return the class of responses that are read until a deadline."""

    class Response(http.client.HTTPResponse):
        def __init__(self, sock: socket.socket, *args: Any, **named: Any) -> None:
            super().__init__(sock, *args, **named)
            self.fp.close()
            self.fp = io.BufferedReader(_Timed(sock, deadline))

    return Response


def healthy(address: Address, *, timeout: float = 5.0) -> bool:
    """Whether `/health` answers 200."""
    try:
        return request(address, "/health", timeout=timeout)[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def prove(address: Address, *, api_key: str = "", timeout: float = 60.0) -> Answer:
    """Ask for one token, or for an embedding where the model does not generate.

    NOT_YET where the server cannot be reached, says 5xx or what is no answer (a caller tries again); REFUSED where it
    answers and refuses every way that was tried, or lets a request wait for longer than `timeout` seconds.
    """
    try:
        status, models = request(address, "/v1/models", api_key=api_key, timeout=timeout)
        if status != 200:
            return _not_yet_or_refused(status, models)
        name = models["data"][0]["id"]
        tried = (
            ("/v1/completions", {"model": name, "prompt": "Hi", "max_tokens": 1, "temperature": 0}),
            ("/v1/embeddings", {"model": name, "input": "Hi"}),
            ("/pooling", {"model": name, "input": "Hi"}),
            ("/classify", {"model": name, "input": "Hi"}),
        )
        first: Answer | None = None
        for path, body in tried:
            status, answer = request(address, path, body=body, api_key=api_key, timeout=timeout)
            if status == 200 and isinstance(answer, dict):
                return Answer(Verdict.PASSED)
            first = first or _not_yet_or_refused(status, answer)
            if first.verdict is Verdict.NOT_YET:
                return first
        assert first is not None
        return first
    except TimeoutError:
        return Answer(Verdict.REFUSED, f"no answer within {round(timeout, 1):g} s")
    except (OSError, http.client.HTTPException, LookupError, TypeError, ValueError, RuntimeError, MemoryError) as error:
        return Answer(Verdict.NOT_YET, f"{type(error).__name__}: {error}", shortage(error))


def _not_yet_or_refused(status: int, answer: Any) -> Answer:
    seen = f"HTTP {status}: {json.dumps(answer, ensure_ascii=False)[:300]}"
    return Answer(Verdict.NOT_YET if status >= 500 or status == 200 else Verdict.REFUSED, seen)
