"""Clients of an OpenAI server: a closed loop of so many connections for so long, and what each request took.

I/O over HTTP. Measures; compares nothing.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Load:
    """So many clients that ask one after the other for so many tokens; `pause_s` between a client's requests."""

    model: str
    clients: int = 4
    tokens: int = 8
    pause_s: float = 0.0

    @property
    def body(self) -> bytes:
        """The request."""
        asked = {"model": self.model, "prompt": "Hello", "max_tokens": self.tokens, "temperature": 0.0}
        return json.dumps(asked).encode()


@dataclass(frozen=True, slots=True)
class Window:
    """What came of a load: answers per second, and the seconds of each answer, sorted."""

    per_s: float
    seconds: tuple[float, ...]
    failed: int = 0

    def quantile(self, share: float) -> float:
        """Return the latency that this share of the answers stays within."""
        return quantile(self.seconds, share)


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return a quantile of sorted values: the least that so many of them do not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def answers(port: int, load: Load) -> bool:
    """Whether a server answers one request."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        return _ask(http.client.HTTPConnection("127.0.0.1", port, timeout=60), load.body) == 200
    time.sleep(0.1)
    return False


def drive(port: int, load: Load, *, for_s: float) -> Window:
    """Put a load on a server for so many seconds."""
    taken: list[float] = []
    failed: list[str] = []
    began = time.perf_counter()

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        with contextlib.closing(connection):
            while (asked := time.perf_counter()) < began + for_s:
                try:
                    if _ask(connection, load.body) == 200:
                        taken.append(time.perf_counter() - asked)
                    else:
                        failed.append("status")
                except (OSError, http.client.HTTPException) as error:
                    failed.append(str(error))
                    connection.close()
                if load.pause_s:
                    time.sleep(load.pause_s)

    threads = [threading.Thread(target=client) for _ in range(load.clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Window(len(taken) / (time.perf_counter() - began), tuple(sorted(taken)), len(failed))


def _ask(connection: http.client.HTTPConnection, body: bytes) -> int:
    connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    answer.read()
    return answer.status
