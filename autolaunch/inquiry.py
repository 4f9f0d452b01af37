"""Questions to a model hub over HTTP, with one limit for everything: names, connections, headers, bodies drop by drop.

I/O. Owns the asking and what an answer is; which addresses are asked is `hub`'s and `modelscope`'s. The user's token
goes to the hub alone, never to where it redirects, into a message or a log.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import queue
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

SECONDS = 3.0
"""How long a start may wait for a hub in all."""

ANSWER_BYTES = 4 << 20
"""More than a config.json or a list of files has; of a larger answer no more is read."""

_WIDTHS = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "U32": 4, "BF16": 2, "F16": 2, "I16": 2}
"""Bytes of one number of each type; all others are bytes."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a hub said: a configuration, how many numbers of each type the weights are, the commit; and why not.

    `file_bytes` are those of the weights' files, where a hub knows no more of them; 0 where it does.
    """

    config: Mapping[str, Any] | None = None
    parameters: Mapping[str, int] = field(default_factory=dict)
    revision: str = ""
    notes: tuple[str, ...] = ()
    file_bytes: int = 0

    def weight_bytes(self, *, quantized: bool, float32: bool = False) -> int:
        """Return the bytes of all weights: as stored where they are quantized, else at 16 bits at most; 0 unknown.

        `float32` says that the files hold 32 bits.
        """
        if self.file_bytes and not self.parameters:
            return self.file_bytes // 2 if float32 and not quantized else self.file_bytes
        most = 8 if quantized else 2
        return sum(number * min(most, _WIDTHS.get(kind, 1)) for kind, number in self.parameters.items())


def joined(parts: Sequence[Answer], *, silence: str) -> Answer:
    """Return several answers as one; `silence` is the note where none came."""
    if not parts:
        return Answer(notes=(silence,))
    return Answer(
        config=next((part.config for part in parts if part.config is not None), None),
        parameters=next((part.parameters for part in parts if part.parameters), {}),
        revision=next((part.revision for part in parts if part.revision), ""),
        notes=tuple(dict.fromkeys(note for part in parts for note in part.notes)),
        file_bytes=max(part.file_bytes for part in parts),
    )


class Line:
    """Requests that run beside each other until one deadline, each on a thread that nothing waits for longer."""

    def __init__(self, who: str, *, secret: Mapping[str, str], deadline: float, opens: str) -> None:
        """Ask `who` ("the hub"); `secret` are headers for it alone, `opens` the variable of the user's token."""
        self._who = who
        self._secret = secret
        self._deadline = deadline
        self._opens = opens
        self._answers: queue.Queue[Answer] = queue.Queue()
        self._connections: list[http.client.HTTPConnection] = []

    def get(self, url: str, read: Callable[[Any], Answer]) -> None:
        """Begin a request whose answer, a JSON value, `read` turns into its part of ours."""

        def work() -> None:
            answer = self._answer(url, read)
            if monotonic() < self._deadline:  # later it is not one: a socket's own timeout says "broke off"
                self._answers.put(answer)

        threading.Thread(target=work, name="hub", daemon=True).start()

    def wait(self, count: int) -> list[Answer]:
        """Return the answers that came in time, and hang up on those that did not."""
        came: list[Answer] = []
        with contextlib.suppress(queue.Empty):
            while len(came) < count:
                came.append(self._answers.get(timeout=max(0.0, self._deadline - monotonic())))
        for connection in self._connections:
            if connection.sock is not None:
                with contextlib.suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_RDWR)
        return came

    def _answer(self, url: str, read: Callable[[Any], Answer]) -> Answer:
        try:
            return read(json.loads(self._fetch(url)))
        except urllib.error.HTTPError as error:
            return Answer(notes=(self._refused(error.code),))
        except urllib.error.URLError as error:
            return Answer(notes=(f"{self._who} cannot be reached: {error.reason}",))
        except (OSError, http.client.HTTPException) as error:
            return Answer(notes=(f"{self._who} broke off: {type(error).__name__}",))
        except Exception as error:
            # a stranger's answer; the text is kept back, since it may quote a header and with it the token
            return Answer(notes=(f"{self._who}'s answer cannot be used ({type(error).__name__})",))

    def _refused(self, code: int) -> str:
        if code in (401, 403):
            why = f"it is gated, private or not there; {self._opens} opens it"
            return f"{self._who} does not show the model (HTTP {code}): {why}"
        return f"{self._who} has no such model" if code == 404 else f"{self._who} answered HTTP {code}"

    def _fetch(self, url: str) -> bytes:
        request = urllib.request.Request(url, headers={"User-Agent": "autolaunch"})  # noqa: S310 - http(s) alone
        for header, value in self._secret.items():
            request.add_unredirected_header(header, value)
        opener = urllib.request.build_opener(_Http(self._dial), _Https(self._dial))
        body = bytearray()
        with opener.open(request, timeout=max(0.01, self._deadline - monotonic())) as response:
            while len(body) <= ANSWER_BYTES and monotonic() < self._deadline:
                piece = response.read1(1 << 16)
                if not piece:
                    return bytes(body)
                body += piece
        raise http.client.IncompleteRead(b"")

    def _dial(self, kind: type[http.client.HTTPConnection], host: str, **options: Any) -> http.client.HTTPConnection:
        """Make a connection that can be hung up from the waiting thread."""
        connection = kind(host, **options)
        self._connections.append(connection)
        return connection


class _Http(urllib.request.HTTPHandler):
    def __init__(self, dial: Callable[..., http.client.HTTPConnection]) -> None:
        super().__init__()
        self._dial = dial

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(lambda host, **options: self._dial(http.client.HTTPConnection, host, **options), req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, dial: Callable[..., http.client.HTTPConnection]) -> None:
        super().__init__()
        self._dial = dial

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(lambda host, **options: self._dial(http.client.HTTPSConnection, host, **options), req)
