"""One test's stage: a real supervisor over a fake engine, its record, its log, and the proof that nothing is left."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import site
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tests.fake_engine import behaviours as b
from tests.fake_engine import leftovers
from tests.fake_engine.behaviours import Behaviour
from tests.fake_engine.scenario import Outcome, Scenario
from tests.ports import free_port

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
ENGINE = shlex.join([sys.executable, "-S", f"{ROOT}/tests/fake_engine"])
GIB = 1 << 30
DEADLINE_S = 60.0
"""No test is to notice how fast a machine is: what takes a second on an idle one is waited for as long."""
HANG_S = 6.0
"""A bound for hangs under which a healthy engine has four seconds for an answer, however busy the machine is."""
INHERITED = ("PATH", "LD_LIBRARY_PATH", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE")
"""What a stage takes from whoever started the tests: nothing that tells autolaunch, an engine or a hub anything."""
SECRET = "sk-very-secret-0123456789"
TOKEN = "hf_VerySecretToken0123456789"


def until(holds: Callable[[], T], what: str, *, deadline_s: float = DEADLINE_S, every_s: float = 0.005) -> T:
    """Poll until `holds` gives something true and return it; fail at the deadline."""
    deadline = time.monotonic() + deadline_s
    while not (value := holds()):
        assert time.monotonic() < deadline, f"not within {deadline_s} s: {what}"
        time.sleep(every_s)
    return value


def ok(*behaviours: Behaviour, **fields: Any) -> Outcome:
    """An engine that comes up."""
    return Outcome(kind="ok", behaviours=behaviours, **fields)


def crowd(*more: Behaviour) -> tuple[Behaviour, ...]:
    """Every way a process can outlive its parent at once, deaf to SIGTERM."""
    return (
        b.IgnoreSigterm(),
        b.Worker(count=2),
        b.DoubleFork(clear_env=True),
        b.HoldPipe(setsid=True, ignore_sigterm=True),
        b.HoldPort(setsid=True, ignore_sigterm=True),
        *more,
    )


CROWD_ROLES = {"leader", "core", "worker0", "worker1", "double_fork", "hold_pipe", "hold_port"}


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended."""

    code: int
    out: str
    err: str


class Stage:
    """A folder, a port, and the supervisors that were started in it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="al-", dir="/tmp"))
        self.temporary = self.folder / "t"
        self.temporary.mkdir()
        self.state = self.folder / "state"
        self.record = self.folder / "record.jsonl"
        self.port = free_port()
        self.running: list[subprocess.Popen[bytes]] = []
        self.environment = {
            **{name: value for name, value in os.environ.items() if name in INHERITED},
            "HOME": str(self.folder / "home"),
            "PYTHONUSERBASE": site.getuserbase(),  # else a changed HOME hides what pip installed for the user
            "HF_HUB_OFFLINE": "1",
            "TMPDIR": str(self.temporary),
            "PYTHONPATH": str(ROOT),
        }

    # --- starting

    def play(self, *starts: Outcome | Scenario) -> None:
        """Tell the fake engine what its starts shall be."""
        scenario = starts[0] if isinstance(starts[0], Scenario) else Scenario(starts=starts)  # type: ignore[arg-type]
        self.environment |= scenario.write(self.folder / "scenario.json")

    def command(self, *args: str, module: str = "autolaunch", engine: str | None = ENGINE) -> list[str]:
        words = [sys.executable, "-m", module, "glm-4-9b", "--port", str(self.port), "--state-dir", str(self.state)]
        words += [] if engine is None else ["--engine", engine, "--engine-version", "0.24.0"]
        return [*words, "--record", str(self.record), *args]

    def launch(self, *args: str, module: str = "autolaunch", **how: Any) -> subprocess.Popen[bytes]:
        """Start a supervisor in a session of its own; its stdout and stderr go to files."""
        return self.start(self.command(*args, module=module), **how)

    def start(self, words: Sequence[str], **how: Any) -> subprocess.Popen[bytes]:
        with (self.folder / "out").open("ab") as out, (self.folder / "err").open("ab") as err:
            usual = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": err, "start_new_session": True, "cwd": ROOT}
            process = subprocess.Popen(list(words), env=self.environment, **{**usual, **how})
        self.running.append(process)
        return process

    def run(self, *args: str, **how: Any) -> Result:
        """Run autolaunch on the fake engine to its end."""
        return self.end(self.launch(*args, **how))

    def end(self, process: subprocess.Popen[bytes], deadline_s: float = 2 * DEADLINE_S) -> Result:
        return Result(process.wait(deadline_s), self.out, self.err)

    # --- what happened

    @property
    def out(self) -> str:
        return (self.folder / "out").read_text(encoding="utf-8", errors="replace")

    @property
    def err(self) -> str:
        return (self.folder / "err").read_text(encoding="utf-8", errors="replace")

    def lines(self, event: str = "") -> list[dict[str, Any]]:
        """The record's lines; every one must be whole."""
        if not self.record.exists():
            return []
        deadline = time.monotonic() + 5.0
        while not (text := self.record.read_text(encoding="utf-8")).endswith("\n") and text:
            if time.monotonic() > deadline:
                break  # torn for good; one that is being written right now is not
        every = [json.loads(line) for line in text.splitlines()]
        return [line for line in every if event in ("", line["event"])]

    def line(self, event: str, nth: int = 0) -> dict[str, Any]:
        """Wait for the record's nth line of that event."""
        return until(lambda: self.lines(event)[nth:], f"a record line {event}")[0]

    def happened(self, event: str, count: int = 1) -> None:
        """Wait for something in the fake engine's own ledger."""
        until(lambda: len(leftovers.events(self.folder, event)) >= count, f"the engine's event {event}")

    def grown(self, roles: set[str]) -> dict[int, str]:
        """Wait until the engine's tree has these members."""
        return until(
            lambda: known if roles <= set((known := leftovers.roles(self.folder)).values()) else {}, f"roles {roles}"
        )

    def asked(self, count: int = 1) -> None:
        """Wait until the engine has answered so many more completions."""
        before = self.log().count(b"POST /v1/completions")
        until(lambda: self.log().count(b"POST /v1/completions") >= before + count, "a question")

    def crash(self, number: signal.Signals = signal.SIGSEGV) -> None:
        """Kill the leader that serves; only after the supervisor's `ready`, so that it is no failed start."""
        (leader,) = (pid for pid in leftovers.alive(self.folder) if leftovers.roles(self.folder)[pid] == "leader")
        os.kill(leader, number)

    @contextlib.contextmanager
    def port_taken(self) -> Iterator[None]:
        """Listen on the port from now on, beside an engine with `ReusePort`: nobody must be quick when that ends."""
        with socket.socket() as taken:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            taken.bind(("127.0.0.1", self.port))
            taken.listen()
            yield

    def folder_of_run(self) -> Path:
        """The folder of the only run."""
        (run,) = (self.state / "runs").iterdir()
        return run

    def log(self, attempt: int = 1) -> bytes:
        """The engine log of an attempt of the only run, its head."""
        return (self.folder_of_run() / f"attempt-{attempt}.log").read_bytes()

    def wardens(self) -> list[int]:
        return [pid for pid in self.mentioning() if b"warden.py" in cmdline(pid)]

    # --- what is left

    def mentioning(self) -> list[int]:
        """Every process, of whatever parent, with this stage's folder in its environment or command line."""
        found, mark = [], os.fsencode(self.folder)
        for entry in os.scandir("/proc"):
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            with contextlib.suppress(OSError):
                if mark in Path(entry.path, "environ").read_bytes() + Path(entry.path, "cmdline").read_bytes():
                    found.append(int(entry.name))
        return found

    def left(self) -> list[str]:
        """Everything that should not be there once a run is over."""
        processes = {*leftovers.alive(self.folder), *self.mentioning()}
        return [
            *(f"process {pid}: {cmdline(pid)[:200]!r}" for pid in sorted(processes)),
            *(f"folder {path}" for path in self.temporary.iterdir()),
        ]

    def nothing_left(self, deadline_s: float = 20.0) -> None:
        """Fail if anything is left, now or after the short time that a killed supervisor's warden may take."""
        deadline = time.monotonic() + deadline_s
        while left := self.left():
            assert time.monotonic() < deadline, f"left behind: {left}"
            time.sleep(0.01)

    @property
    def events(self) -> list[str]:
        """What the record tells, in order."""
        return [line["event"] for line in self.lines()]

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        """End a run as a service manager does."""
        process.send_signal(signal.SIGTERM)
        assert self.end(process).code == 0, self.err
        assert self.left() == []

    def close(self) -> None:
        for process in self.running:
            if process.poll() is None:
                process.kill()
            process.wait(DEADLINE_S)
        try:
            self.nothing_left()
        finally:
            leftovers.reap(self.folder)
            for pid in self.mentioning():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            shutil.rmtree(self.folder, ignore_errors=True)


def wait(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Let a supervisor live for so long; it must not end."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return
    raise AssertionError(f"it ended with {process.returncode}")


def halt(pid: int) -> None:
    """Stop a process, and wait until each of its threads stands still: until one has run, the others go on."""

    def still() -> bool:
        states = []
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):  # a thread that has just ended
                states.append((thread / "stat").read_bytes().rpartition(b")")[2].split()[0])
        return set(states) <= {b"T", b"Z", b"X"}

    os.kill(pid, signal.SIGSTOP)
    until(still, "to stand still")


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that stands still for a while."""
    halt(pid)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def drive(stage: Stage, **wanted: Any) -> str:
    """Give the module that runs autolaunch with the constants that are `wanted`: see it for their names."""
    stage.environment["AUTOLAUNCH_DRIVE"] = json.dumps(wanted)
    return "tests.process.drive"


def cmdline(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def state_of(pid: int, name: str) -> int:
    """A figure in kB of /proc/PID/status, 0 once the process is gone."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
        return int(next(line for line in lines if line.startswith(name + ":")).split()[1])
    return 0


@contextlib.contextmanager
def stages(count: int) -> Iterator[list[Stage]]:
    """Several stages for runs that mostly wait; without cards, for which they would wait in turn."""
    with contextlib.ExitStack() as stack:
        every = [stack.enter_context(staged()) for _ in range(count)]
        for one in every:
            one.environment["CUDA_VISIBLE_DEVICES"] = ""
        yield every


@contextlib.contextmanager
def staged() -> Iterator[Stage]:
    made = Stage()
    try:
        yield made
    finally:
        made.close()
