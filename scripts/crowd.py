"""A crowd at a status address, in a process of its own: clients that ask without a pause, and clients that never ask.

I/O. `python -m scripts.crowd PORT` is the crowd.
"""

from __future__ import annotations

import contextlib
import http.client
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
TALKING = 200
SLOW = 50
ROUTES = ("/status", "/metrics", "/", "/readyz")
SETTLED_S = 2.0
"""How long a crowd is there before anything is measured."""


@contextlib.contextmanager
def crowded(port: int, *, among: bool) -> Iterator[None]:
    """Put a crowd at an address for as long as the block lasts, where there shall be one."""
    if not among:
        yield
        return
    with subprocess.Popen([sys.executable, "-m", "scripts.crowd", str(port)], cwd=CHECKOUT) as crowd:
        try:
            time.sleep(SETTLED_S)
            yield
        finally:
            crowd.terminate()


def _talk(port: int, number: int) -> None:
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            with contextlib.closing(client):
                client.request("GET", ROUTES[number % len(ROUTES)])
                client.getresponse().read()


def _dawdle(port: int) -> None:
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=30) as client:
            client.sendall(b"GET /status HTTP/1.1\r\nHost: ")
            client.recv(1)  # until it is shown the door


def main() -> None:
    """Be the crowd until SIGTERM."""
    port = int(sys.argv[1])
    threads = [threading.Thread(target=_talk, args=(port, number), daemon=True) for number in range(TALKING)]
    threads += [threading.Thread(target=_dawdle, args=(port,), daemon=True) for _ in range(SLOW)]
    for thread in threads:
        thread.start()
    signal.sigwait({signal.SIGTERM})


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    main()
