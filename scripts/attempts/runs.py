"""One situation lived through by one competitor: real processes over the fake engine, and what came of it.

I/O. Each run has a folder of its own with the cards, the scenario and the state, and leaves nothing: no process, no
file. Time is compressed: seconds are those that the fake engine's ledger simulates.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scripts.attempts.situations import RESERVED_BYTES, Situation
from tests.fake_engine import leftovers
from tests.fake_engine.card import NEIGHBOUR_PID
from tests.fake_engine.memory import MemoryModel
from tests.fake_engine.scenario import Scenario

CHECKOUT = Path(__file__).resolve().parents[2]
ENGINE = CHECKOUT / "tests" / "fake_engine"
GIB = 1 << 30
LIMIT_S = 120.0
ALONE_S = 20.0
IDLE_S = 3.0
"""After so long without a start, neighbours that are about to leave have left."""

SUPERVISED = {"autolaunch": (), "second start": (), "classic": ("--strategy", "classic")}
"""The competitors that are whole supervisors, with their options; the second start is the same run once more."""

DIRECT = {"plain": (), "auto": ("--max-model-len", "auto")}
"""The competitors that are one start of the engine, with what they add to the user's options."""


@dataclass(frozen=True)
class Run:
    """What came of one run: the kinds of its starts ("ok" came up), in simulated and real seconds.

    `code` is the supervisor's exit status, None of a direct start or a hung run; `settings` those that came up; `left`
    what should not have been there afterwards.
    """

    number: int
    competitor: str
    came_up: bool
    code: int | None
    kinds: tuple[str, ...]
    seconds: float
    wall_seconds: float
    context: int = 0
    kv_tokens: int = 0
    settings: str = ""
    left: str = ""

    @property
    def starts(self) -> int:
        """How many engines were started."""
        return len(self.kinds)

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self)


class Ports:
    """A worker's own range of ports, given out in turn."""

    def __init__(self, worker: int) -> None:
        self.first = 21000 + 1000 * worker
        self.next = 0

    def take(self) -> int:
        """Return the next port that nobody listens on."""
        for _ in range(1000):
            port = self.first + self.next
            self.next = (self.next + 1) % 1000
            with contextlib.suppress(OSError), socket.socket() as trial:
                trial.bind(("127.0.0.1", port))
                return port
        raise OSError(f"no free port from {self.first} on")


class Stage:
    """One competitor's folder for one situation."""

    def __init__(self, folder: Path, situation: Situation, model: Path, autolaunch: Path) -> None:
        self.folder = folder
        self.situation = situation
        self.model = model
        folder.mkdir(parents=True)
        (folder / "tmp").mkdir()
        told = self._tell(situation.memory)
        paths = os.pathsep.join(map(str, (autolaunch, CHECKOUT / "tests" / "fake_nvml")))
        kept = {name: value for name, value in os.environ.items() if not name.startswith(DROPPED)}
        self.environment = {
            **kept,
            **told,
            "FAKE_NVML": str(folder / "cards.json"),
            "PYTHONPATH": paths,
            "TMPDIR": str(folder / "tmp"),
            "XDG_STATE_HOME": str(folder / "xdg"),
            "HF_HUB_OFFLINE": "1",
        }

    def settle(self) -> None:
        """Let the neighbours be where they end up, and stay there."""
        self._tell(self.situation.memory.settled())

    def _tell(self, memory: MemoryModel) -> dict[str, str]:
        """Write the cards and the scenario; return what makes a fake engine follow it."""
        whole = {"cards": cards(self.situation, memory.neighbours)}
        (self.folder / "cards.json").write_text(json.dumps(whole), encoding="utf-8")
        scenario = Scenario(version=self.situation.version, memory=memory, unknown_options="refuse")
        return scenario.write(self.folder / "scenario.json")

    def supervise(self, competitor: str, port: int) -> Run:
        """Run the supervisor to its end."""
        record = self.folder / f"{competitor.replace(' ', '-')}.jsonl"
        words = [sys.executable, "-m", "autolaunch", str(self.model), "--port", str(port), "--check"]
        words += ["--engine", f"{shlex.quote(sys.executable)} -S {shlex.quote(str(ENGINE))}"]
        words += ["--engine-version", self.situation.version, "--state-dir", str(self.folder / "state")]
        words += ["--record", str(record), *SUPERVISED[competitor], *self.situation.options]
        words += ["--min-context", str(self.situation.min_context)] if self.situation.min_context else []
        before, began = self._starts(), time.monotonic()
        code = self._run(words, LIMIT_S, f"{competitor.replace(' ', '-')}.err")
        wall_s = time.monotonic() - began
        ready = next((line for line in _lines(record) if line["event"] == "ready"), None)
        settings = json.dumps(ready["settings"]) if ready else ""
        return self._told(competitor, before, came_up=code == 0 and ready is not None, code=code).but(
            wall_seconds=round(wall_s, 2), settings=settings
        )

    def start_directly(self, competitor: str, port: int) -> Run:
        """Start the engine once, as a person would; end it once it serves or has failed."""
        words = [sys.executable, "-S", str(ENGINE), "--model", str(self.model), "--port", str(port)]
        own = DIRECT[competitor] if "--max-model-len" not in self.situation.options else ()
        words += [*self.situation.options, *own]
        before, began = self._starts(), time.monotonic()
        with (self.folder / "log").open("ab") as log:
            engine = subprocess.Popen(
                words, env=self.environment, cwd=self.folder, stdout=log, stderr=log, start_new_session=True
            )
        try:
            deadline = began + ALONE_S
            while engine.poll() is None and not self._ready(before) and time.monotonic() < deadline:
                time.sleep(0.01)
        finally:
            _kill(engine)
        run = self._told(competitor, before, came_up=self._ready(before), code=None)
        return run.but(wall_seconds=round(time.monotonic() - began, 2))

    def close(self) -> None:
        """Kill what is left and remove the folder."""
        leftovers.reap(self.folder)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, words: Sequence[str], limit_s: float, errors: str) -> int | None:
        with (self.folder / errors).open("wb") as err:
            supervisor = subprocess.Popen(
                words,
                env=self.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=err,
                start_new_session=True,
            )
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return supervisor.wait(IDLE_S)
            self._let_neighbours_go()
            return supervisor.wait(limit_s)
        except subprocess.TimeoutExpired:
            return None
        finally:
            _kill(supervisor)

    def _let_neighbours_go(self) -> None:
        """Where nothing was started yet, let the neighbours leave that would have left during the first start.

        A supervisor may wait for memory instead of starting into it: time passes for its neighbours all the same.
        """
        memory = self.situation.memory
        if self._starts() == 0 and memory.moves and memory.moves[-1].gib < memory.neighbours:
            beside = self.folder / "cards.new"
            beside.write_text(json.dumps({"cards": cards(self.situation, memory.moves[-1].gib)}), encoding="utf-8")
            beside.replace(self.folder / "cards.json")

    def _starts(self) -> int:
        return len(leftovers.starts(self.folder))

    def _ready(self, since: int) -> bool:
        return any(line["n"] >= since for line in leftovers.events(self.folder, "ready"))

    def _told(self, competitor: str, since: int, *, came_up: bool, code: int | None) -> _Told:
        """Return what the fake engine's ledger says of this run's starts; a refused command line has no verdict."""
        judged = {line["n"]: line for line in leftovers.events(self.folder, "judged")}
        ours = range(since, self._starts())
        last = judged.get(ours[-1]) if ours else None
        numbers = last["numbers"] if came_up and last else {}
        alive = leftovers.alive(self.folder)
        return _Told(
            number=self.situation.number,
            competitor=competitor,
            came_up=came_up,
            code=code,
            kinds=tuple(judged[n]["kind"] if n in judged else "usage" for n in ours),
            seconds=round(sum(judged[n]["seconds"] for n in ours if n in judged), 1),
            wall_seconds=0.0,
            context=int(numbers.get("max_model_len", 0)),
            kv_tokens=int(numbers.get("kv_cache_tokens", 0)),
            left=f"processes {alive}" if alive else "",
        )


class _Told(Run):
    """A run that is still being filled in."""

    def but(self, **more: Any) -> Run:
        """Return it with these values."""
        return Run(**{**asdict(self), **more})


DROPPED = ("AUTOLAUNCH_", "FAKE_", "CUDA_VISIBLE_DEVICES", "VLLM_", "HF_", "PYTHONPATH")
"""What of our own environment a run may not see."""


def cards(situation: Situation, neighbours_gib: float) -> list[dict[str, Any]]:
    """Return the cards of FAKE_NVML's file before a run; their uuids are the situation's own."""
    total, neighbours = situation.card.total_bytes, int(neighbours_gib * GIB)
    held = [{"pid": NEIGHBOUR_PID, "bytes": neighbours}] if neighbours else []
    return [
        {
            "name": situation.card.name,
            "uuid": f"GPU-{os.getpid():08x}-{situation.number:04x}-{place:04x}-0000-000000000000",
            "total": total + RESERVED_BYTES,
            "reserved": RESERVED_BYTES,
            "capability": list(situation.card.capability),
            "processes": held if place == 0 else [],
        }
        for place in range(situation.ranks)
    ]


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    if file.exists():
        for line in file.read_text(encoding="utf-8").splitlines():
            yield json.loads(line)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a process with its session; a supervisor that had to be killed takes its engine with it by its warden."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)
