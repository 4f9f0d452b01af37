"""A crowd at a status address, in a process of its own: many who ask without a pause, some who send a byte a second.

`python -m tests.process.crowd PORT` tells a line of JSON twice a second until it is killed: how many were answered, by
which status codes, how many bytes were dripped, and the longest answer in seconds. It is nicer than what it asks.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.process.stage import DEADLINE_S, ROOT, until

ROUTES = ("/", "/livez", "/readyz", "/startupz", "/status", "/metrics")
ASKING, DRIPPING = 200, 50
TELL_S = 0.5


class Crowd:
    """The crowd, in its own process."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.codes: Counter[int] = Counter()
        self.dripped = 0
        self.longest_s = 0.0

    def ask(self, number: int) -> None:
        while True:
            number += 1
            began = time.monotonic()
            client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)
            with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(client):
                client.request("GET", ROUTES[number % len(ROUTES)])
                answer = client.getresponse()
                answer.read()
                self.codes[answer.status] += 1
                self.longest_s = max(self.longest_s, time.monotonic() - began)

    def drip(self) -> None:
        """Send a byte a second, and come again when sent away."""
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), DEADLINE_S) as client:
                for byte in b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 1000:
                    client.sendall(bytes((byte,)))
                    self.dripped += 1
                    time.sleep(1.0)

    def tell(self) -> None:
        told = {"codes": dict(self.codes), "dripped": self.dripped, "longest_s": self.longest_s}
        print(json.dumps(told), flush=True)


class There:
    """The crowd as the test sees it."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def told(self) -> dict[str, Any]:
        whole, _, _ = self._file.read_text().rpartition("\n")
        found: dict[str, Any] = json.loads(whole.rpartition("\n")[2] or '{"codes": {}, "dripped": 0, "longest_s": 0}')
        return found

    @property
    def answers(self) -> int:
        return sum(self.told()["codes"].values())

    def answered(self, count: int) -> None:
        """Wait until so many more questions were answered."""
        before = self.answers
        until(lambda: self.answers >= before + count, f"{count} more answers", deadline_s=2 * DEADLINE_S)


@contextlib.contextmanager
def crowded(port: int, folder: Path) -> Iterator[There]:
    """Put the crowd at an address for as long as the block lasts."""
    with (folder / "crowd").open("wb") as told:
        crowd = subprocess.Popen([sys.executable, "-m", "tests.process.crowd", str(port)], cwd=ROOT, stdout=told)
    try:
        yield There(folder / "crowd")
    finally:
        crowd.kill()
        crowd.wait()


def main() -> None:
    """Be the crowd until SIGKILL."""
    os.nice(10)
    crowd = Crowd(int(sys.argv[1]))
    for number in range(ASKING):
        threading.Thread(target=crowd.ask, args=(number,), daemon=True).start()
    for _ in range(DRIPPING):
        threading.Thread(target=crowd.drip, daemon=True).start()
    while True:
        time.sleep(TELL_S)
        crowd.tell()


if __name__ == "__main__":
    main()
