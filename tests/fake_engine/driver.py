"""For tests of the fake engine itself: start leaders in a folder, ask them over HTTP, wait with deadlines."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from tests.ports import free_port

from . import command, leftovers
from .scenario import Outcome, Scenario

ROOT = Path(__file__).parents[2]
DEADLINE_S = 60.0


def until(holds: Callable[[], Any], what: str) -> Any:
    """Poll until `holds` gives something true; fail at the deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while not (value := holds()):
        assert time.monotonic() < deadline, f"not within {DEADLINE_S} s: {what}"
        time.sleep(0.005)
    return value


def ended(started: subprocess.Popen[bytes]) -> int:
    """Wait for a process; give its status (Popen.wait with a timeout polls ten times slower)."""
    until(lambda: started.poll() is not None, f"end of {started.pid}")
    assert started.returncode is not None
    return started.returncode


class Bench:
    """One scenario's folder and the leaders started in it, each in a session of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self, scenario: Scenario, *args: str, words: list[str] | None = None) -> subprocess.Popen[bytes]:
        """Start a leader; its output goes to the file `log` of the folder."""
        environment = {**os.environ, **scenario.write(self.folder / "scenario.json"), "HF_TOKEN": "hf_not_for_logs"}
        argv = [*(words or command()), "--model", "m", "--host", "127.0.0.1", "--port", str(self.port), *args]
        with (self.folder / "log").open("ab") as log:
            started = subprocess.Popen(
                argv,
                env=environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=ROOT,
                start_new_session=True,
            )
        self.running.append(started)
        return started

    def one(self, *args: str, **fields: Any) -> subprocess.Popen[bytes]:
        """Start a leader with one outcome of these fields."""
        return self.start(Scenario(starts=(Outcome(**fields),)), *args)

    def ready(self, *args: str, **fields: Any) -> subprocess.Popen[bytes]:
        """Start a leader that becomes ready, and wait for it."""
        started = self.one(*args, kind="ok", **fields)
        until(lambda: leftovers.events(self.folder, "ready"), "ready")
        return started

    def end(self, *args: str, **fields: Any) -> int:
        """Start a leader and wait for its end; give its status."""
        return ended(self.one(*args, **fields))

    @property
    def log(self) -> str:
        """What all leaders of this folder printed."""
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")

    def pid_of(self, role: str) -> int:
        """Give the pid registered with that role."""
        return next(pid for pid, known in leftovers.roles(self.folder).items() if known == role)

    def ask(self, method: str, path: str, body: Any = None, key: str = "") -> tuple[int, str]:
        """Send a request; give the status and the body."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)
        try:
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()


@contextmanager
def bench(folder: Path) -> Iterator[Bench]:
    """Give a bench; afterwards nothing of it is left."""
    made = Bench(folder)
    try:
        yield made
    finally:
        leftovers.reap(folder)
        for started in made.running:
            started.kill()
            started.wait()
