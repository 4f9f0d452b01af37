"""autolaunch as process 1 of a PID namespace, as a container's ENTRYPOINT is: signals, the dead, exit codes.

The namespace is the kernel's own; no container runtime is needed for it. Only root may make one here.
"""

from __future__ import annotations

import contextlib
import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fake_engine import behaviours as b
from tests.fake_engine.scenario import Outcome
from tests.process.stage import DEADLINE_S, ROOT, Stage, ok, state_of, until

NAMESPACE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child=SIGKILL")


def _refusal() -> str:
    """Return why there can be no PID namespace here, "" where there can."""
    if shutil.which("unshare") is None or shutil.which("nsenter") is None:
        return "unshare and nsenter are not here"
    tried = subprocess.run([*NAMESPACE, "true"], capture_output=True, text=True, check=False)
    return tried.stderr.strip() if tried.returncode else ""


REFUSAL = _refusal()
pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(bool(REFUSAL), reason=f"no PID namespace can be made here: {REFUSAL}"),
]


class Container:
    """A supervisor in a PID namespace; `init` is its process 1 as this side numbers it."""

    def __init__(self, stage: Stage, *args: str, words: list[str] | None = None) -> None:
        self.stage = stage
        self.outer = stage.start([*NAMESPACE, *(words or stage.command(*args))])
        self.init = until(lambda: next(iter(children(self.outer.pid)), 0), "process 1 of the namespace")

    def inside(self, script: str) -> None:
        """Run a shell script there, as `docker exec` does: its parent is outside, its orphans are process 1's."""
        subprocess.run(["nsenter", "-t", str(self.init), "-p", "-m", "sh", "-c", script], check=True, timeout=60)

    def end(self, number: signal.Signals) -> int:
        os.kill(self.init, number)
        return self.stage.end(self.outer).code


def children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def zombies(pid: int) -> list[int]:
    """The dead below a process that nobody has collected."""
    return [child for child in children(pid) if b" Z " in Path(f"/proc/{child}/stat").read_bytes()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_container_that_is_stopped_ends_with_0_and_leaves_nothing(stage: Stage, number: signal.Signals) -> None:
    stage.play(ok(b.Worker(count=2), b.DoubleFork(clear_env=True)))
    container = Container(stage, "--drain-timeout", "0")
    stage.line("ready")
    assert container.end(number) == 0
    assert stage.lines()[-1]["reason"] == number.name
    stage.nothing_left()


def test_a_second_signal_reaches_the_run_as_the_second(stage: Stage) -> None:
    stage.play(ok(b.IgnoreSigterm(), b.Worker()))
    socket_path = stage.folder / "s"
    container = Container(stage, "--drain-timeout", "0", "--status", f"unix:{socket_path}")
    stage.line("ready")
    os.kill(container.init, signal.SIGTERM)
    until(lambda: b"stopping" in said_at(socket_path, "/readyz"), "the first is obeyed")
    began = time.monotonic()
    assert container.end(signal.SIGTERM) == 0
    assert time.monotonic() - began < 15, "the engine, which is deaf to SIGTERM, got its whole grace of 20 s"
    stage.nothing_left()


def said_at(path: Path, route: str) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(DEADLINE_S)
        client.connect(str(path))
        client.sendall(f"GET {route} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        return b"".join(iter(lambda: client.recv(1 << 16), b""))


def test_orphans_are_collected_while_the_engine_serves(stage: Stage) -> None:
    stage.play(ok())
    container = Container(stage)
    stage.line("ready")
    end = stage.folder / "end"
    container.inside(f"(sh -c 'until [ -e {end} ]; do sleep 0.05; done' &) ; (sleep 86399 &)")
    until(lambda: len(children(container.init)) == 3, "the orphans are process 1's")
    end.touch()
    until(lambda: len(children(container.init)) == 2, "it is collected")
    assert zombies(container.init) == []
    assert container.end(signal.SIGTERM) == 0
    stage.nothing_left()


def test_the_runs_own_exit_code_is_the_containers(stage: Stage) -> None:
    stage.play(Outcome(kind="config_error"))
    container = Container(stage)
    assert stage.end(container.outer).code == int(stage.line("stopped")["exit_code"]) == 4
    stage.nothing_left()


def test_a_run_that_is_killed_ends_the_container_with_what_a_shell_would_say(stage: Stage) -> None:
    stage.play(ok(b.Worker()))
    container = Container(stage)
    stage.line("ready")
    (run,) = children(container.init)
    os.kill(run, signal.SIGKILL)
    assert stage.end(container.outer).code == 128 + signal.SIGKILL
    shutil.rmtree(stage.temporary)  # the kernel ended the warden with the rest: its folder waits for the next start
    stage.temporary.mkdir()
    stage.nothing_left()


def test_process_1_costs_next_to_nothing(stage: Stage) -> None:
    stage.play(ok())
    container = Container(stage)
    stage.line("ready")
    private_kib = sum(
        int(line.split()[1])
        for line in Path(f"/proc/{container.init}/smaps_rollup").read_text().splitlines()
        if line.startswith("Private_")
    )
    print(f"process 1: {state_of(container.init, 'VmRSS')} kB resident, {private_kib} kB of its own")
    assert state_of(container.init, "Threads") == 1
    assert private_kib < 8 << 10
    assert container.end(signal.SIGTERM) == 0


def test_a_stop_before_the_run_has_begun_is_not_lost(stage: Stage) -> None:
    """The kernel drops what process 1 has no handler for, which would cost a container its whole grace period."""
    stage.play(ok())
    hook = stage.folder / "hook"
    hook.mkdir()
    (hook / "click.py").write_text("import os, time\nos.write(2, b'importing\\n')\nwhile True: time.sleep(0.01)\n")
    stage.environment["PYTHONPATH"] = f"{hook}{os.pathsep}{ROOT}"
    container = Container(stage)
    until(lambda: "importing" in stage.err, "it is being imported")
    assert container.end(signal.SIGTERM) == 0
    assert "stopped (SIGTERM) before anything was started" in stage.err
    assert stage.lines() == []


@contextlib.contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    ours, theirs = pty.openpty()
    try:
        yield ours, theirs
    finally:
        for end in (ours, theirs):
            with contextlib.suppress(OSError):
                os.close(end)


def test_ctrl_c_at_a_containers_terminal_comes_once(stage: Stage) -> None:
    """As `docker run -it`: the run gets it from the terminal, and process 1 must not pass it on a second time."""
    got = stage.folder / "got"
    script = f"""
import fcntl, os, signal, termios, time
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 1)
from autolaunch.init import become_init
got = os.open({str(got)!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, _: os.write(got, signal.Signals(number).name.encode() + b" "))
become_init((signal.SIGINT, signal.SIGTERM))
os.write(got, b"begun ")
while b"SIGTERM" not in open({str(got)!r}, "rb").read():
    time.sleep(0.01)
"""
    with terminal() as (ours, theirs):
        outer = stage.start([*NAMESPACE, sys.executable, "-c", script], stdin=theirs)
        until(lambda: got.exists() and "begun" in got.read_text(), "it runs")
        os.write(ours, b"\x03")
        until(lambda: "SIGINT" in got.read_text(), "Ctrl-C")
        os.kill(next(iter(children(outer.pid))), signal.SIGTERM)
        assert stage.end(outer).code == 0
    assert got.read_text().split() == ["begun", "SIGINT", "SIGTERM"]
