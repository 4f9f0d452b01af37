"""A served engine for the benches: under a supervisor, or the same command by hand; fake, or a real vLLM on the CPU.

I/O. Owns starting and ending them, nothing is left behind; what is measured of them is the benches'.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.bench import FAKE_ENGINE, free_port, lines, wait_for
from scripts.processes import leader_of, warden_of
from tests.fake_engine.scenario import Outcome, Scenario

CHECKOUT = Path(__file__).resolve().parent.parent
START_S = 300.0
"""Within this a real vLLM is up on two slow cores."""


@dataclass(frozen=True, slots=True)
class Engine:
    """Which engine: the model, what autolaunch is told beside it, and variables of its own."""

    model: str
    options: tuple[str, ...]
    variables: Mapping[str, str]


def fake(*starts: Outcome) -> Engine:
    """Return the fake engine, whose starts are to be these, the last one again and again."""
    scenario = Scenario(starts=starts)
    return Engine("glm-4-9b", ("--engine", FAKE_ENGINE, "--engine-version", "0.24.0"), scenario.env())


def real() -> Engine:
    """Return a real vLLM on the CPU with the model that ships, as `scripts/bench real` starts it, within 3 GiB."""
    quiet = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    return Engine("tiny-glm", ("--enforce-eager", "--memory", "3GiB"), quiet)


@dataclass(frozen=True, slots=True)
class Served:
    """A supervisor, its engine's port and its record."""

    pid: int
    port: int
    folder: Path

    @property
    def record(self) -> Path:
        """Where the record is."""
        return self.folder / "record.jsonl"

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the record's lines of an event."""
        return [line for line in lines(self.record) if line["event"] == name]

    def await_event(self, name: str, count: int = 1, *, within_s: float = START_S) -> dict[str, Any]:
        """Wait for the count-th line of an event and return it."""
        wait_for(lambda: len(self.events(name)) >= count, within_s=within_s)
        return self.events(name)[count - 1]

    @property
    def warden(self) -> int:
        """The process that guards the engine."""
        return warden_of(self.pid)

    @property
    def leader(self) -> int:
        """The engine's first process, the API server."""
        return leader_of(self.pid)

    def command(self, port: int) -> list[str]:
        """Return the engine's own command as it runs, for another port."""
        words = [str(word) for word in self.events("attempt")[-1]["argv"]]
        words[words.index("--port") + 1] = str(port)
        return words


@contextlib.contextmanager
def supervised(engine: Engine, *options: str, variables: Mapping[str, str] | None = None) -> Iterator[Served]:
    """Start autolaunch, wait until its engine serves, end it in order."""
    with tempfile.TemporaryDirectory(prefix="al-", dir="/tmp") as name:
        folder, port = Path(name), free_port()
        words = [sys.executable, "-m", "autolaunch", engine.model, "--port", str(port), *engine.options, *options]
        words += ["--state-dir", f"{name}/state", "--record", f"{name}/record.jsonl"]
        with (folder / "err").open("wb") as err:
            process = subprocess.Popen(
                words, env=_environment(engine, variables), stdout=err, stderr=err, start_new_session=True, cwd=CHECKOUT
            )
        try:
            served = Served(process.pid, port, folder)
            wait_for(lambda: served.events("ready") or process.poll() is not None, within_s=START_S)
            assert process.poll() is None, (folder / "err").read_text(encoding="utf-8", errors="replace")[-2000:]
            yield served
        finally:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(60)
            process.kill()
            process.wait()


@contextlib.contextmanager
def by_hand(engine: Engine, command: list[str], answers: Callable[[], bool], *, piped: bool = False) -> Iterator[int]:
    """Start the engine's own command, its output in a file, `piped` by way of `cat`; give its pid once it answers."""
    with tempfile.TemporaryDirectory() as name, Path(name, "log").open("wb") as log:
        out = subprocess.PIPE if piped else log
        process = subprocess.Popen(
            command,
            env=_environment(engine, None),
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=name,
        )
        if piped:
            subprocess.Popen(["/bin/cat"], stdin=process.stdout, stdout=log)  # ends with the engine
        try:
            wait_for(answers, within_s=START_S)
            yield process.pid
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _environment(engine: Engine, more: Mapping[str, str] | None) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name == "AUTOLAUNCH_ENGINE" or _foreign(name)}
    if "FAKE_ENGINE" in engine.variables:
        kept.pop("AUTOLAUNCH_ENGINE", None)
    return {**kept, "PYTHONPATH": str(CHECKOUT), **engine.variables, **(more or {})}


def _foreign(name: str) -> bool:
    return not name.startswith(("AUTOLAUNCH_", "FAKE_"))
