"""`scripts/bench soak`: one supervisor over a thousand lives of a fake engine, and what grows meanwhile.

    scripts/bench soak                  1,000 lives, a quarter of an hour
    scripts/bench soak --lives 100 --rest 0

Every fourth engine serves until it has been measured and is then killed from outside (or its warden is); those between
die in turns of an exit with 0, 1 or 137, of memory in service, of a hang behind a healthy port, of SIGKILL, with
orphans, or never come up. Exit code 1 where anything grew. Back-off is cut to some hundredths of a second by
`tests.process.drive`; nothing else of the supervisor is changed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parent.parent
if str(CHECKOUT) not in sys.path:
    sys.path.insert(0, str(CHECKOUT))

from scripts import growth  # noqa: E402 - found only with the checkout on the path
from scripts.growth import Series  # noqa: E402
from scripts.processes import MIB, Taken, children, cpu_s, leader_of, size_of, taken, usual, warden_of  # noqa: E402
from tests import fake_nvml  # noqa: E402
from tests.fake_engine import behaviours as b  # noqa: E402
from tests.fake_engine.scenario import Outcome  # noqa: E402
from tests.ports import free_port  # noqa: E402
from tests.process.stage import ROOT, Stage, ok, staged  # noqa: E402

HELD_EVERY = 4
MOMENT_S = 0.1
"""How long an engine lives on after it has proven itself."""

SLOWEST_S = 120.0
"""How long four lives may take before the soak is over."""

RESTART_WAIT_S = 0.02
OPTIONS = ("--max-restarts", "99", "--restart-window", "1", "--hang-timeout", "3", "--log-format", "json")
CARD = {"name": "NVIDIA GeForce RTX 4090", "total": 24 << 30, "capability": [8, 9]}

REST_PERCENT = 0.1
RSS_MIB = 1.5
"""What a thousand lives may add: the interpreter's table of strings is made anew once, 1 MiB larger, when so many names
of files and processes have come and gone; it stays at that size. Two kilobytes of each life would be more."""


def died(*more: b.Behaviour, **how: Any) -> Outcome:
    """An engine that serves a moment and ends."""
    return ok(b.Worker(), *more, b.DieAfterReady(seconds=MOMENT_S, recorded=True, **how))


HELD = ok(b.Worker())
BETWEEN: tuple[Outcome, ...] = (
    died(kind="", code=0),
    died(kind="", code=1),
    died(kind="runtime_oom"),
    died(kind="", code=137),
    ok(b.Worker(), b.StandsStill(requests=1)),
    Outcome(kind="kv_alloc_oom", behaviours=(b.Worker(),)),
    died(kind="", signal=int(signal.SIGKILL)),
    died(b.DoubleFork(clear_env=True), b.HoldPipe(setsid=True, ignore_sigterm=True), kind="", code=1),
)
STEPS = 2
"""How many of these take a step of the ladder."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Everything that is read of a supervisor in service; sizes in bytes."""

    life: int
    supervisor: Taken
    warden: Taken
    children: int
    zombies: int
    record_bytes: int
    kept_record_bytes: int
    state_bytes: int
    state_files: int
    temporary_files: int
    shared_memory_files: int


def outcomes(lives: int) -> tuple[Outcome, ...]:
    """Return what each life is to be; the last one, beyond their number, is measured and stopped in order."""
    between = itertools.cycle(BETWEEN)
    return (*(HELD if number % HELD_EVERY == 0 else next(between) for number in range(lives)), HELD)


def ladder(lives: int) -> str:
    """Return a strategy with a share of memory for each step that so many lives take."""
    steps = STEPS * lives // len(BETWEEN) + STEPS + 1
    values = [round(0.95 - 0.9 * step / steps, 6) for step in range(steps)]
    kinds = '["runtime_oom", "kv_alloc_oom"]'
    return (
        f'description = "As many steps as a soak takes."\nmax_attempts = 10\n[start]\n'
        f'gpu_memory_utilization = 0.95\n[[rung]]\nname = "utilization"\nanswers = {kinds}\nvalues = {values}\n'
    )


class Followed:
    """A record that is read on from where it was left."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._at = 0

    def new(self) -> Iterator[dict[str, Any]]:
        """Give the whole lines that came since."""
        if self._file.exists():
            with self._file.open("rb") as record:
                record.seek(self._at)
                for line in record:
                    if not line.endswith(b"\n"):
                        return
                    self._at += len(line)
                    yield json.loads(line)


class Soak:
    """One supervisor on a stage of its own."""

    def __init__(self, stage: Stage, lives: int, rest_s: float) -> None:
        self.stage = stage
        self.lives = lives
        self.rest_s = rest_s
        self.rests: list[tuple[int, float]] = []
        self.readings: list[Reading] = []
        self.followed = Followed(stage.record)
        self.status_port = free_port()
        stage.play(*outcomes(lives))
        strategy = stage.folder / "soak.toml"
        strategy.write_text(ladder(lives), encoding="utf-8")
        paths = os.pathsep.join([fake_nvml.FOLDER, str(ROOT)])
        stage.environment |= fake_nvml.environment(stage.folder / "cards.json", CARD) | {"PYTHONPATH": paths}
        stage.environment["AUTOLAUNCH_DRIVE"] = json.dumps({"restart_wait_s": RESTART_WAIT_S})
        self.options = (*OPTIONS, "--strategy", str(strategy), "--status", str(self.status_port))

    def run(self, tell: Callable[[str], None]) -> list[Series]:
        """Live through all lives, end in order, and return what was read; AssertionError where the run ended itself."""
        process = self.stage.launch(*self.options, module="tests.process.drive")
        for held in range(1, self.lives + 2, HELD_EVERY):
            self._await_ready(process, held)
            self.readings.append(self._read(process.pid, held))
            if held == 1 or held > self.lives - HELD_EVERY + 1:
                self._rest(process.pid, held)
            if held <= self.lives:
                self._kill(process.pid, held)
            if held // HELD_EVERY % 25 == 0:
                rss = self.readings[-1].supervisor.rss_bytes / MIB
                tell(f"life {held}: {rss:.1f} MiB, {self.readings[-1].supervisor.descriptors} descriptors")
        process.send_signal(signal.SIGTERM)
        ended = self.stage.end(process)
        assert ended.code == 0, f"ended with {ended.code}: {ended.err[-2000:]}"
        self.stage.nothing_left()
        return [*series(self.readings), *rests(self.rests)]

    def _await_ready(self, process: subprocess.Popen[bytes], life: int) -> None:
        deadline = time.monotonic() + SLOWEST_S
        while True:
            for line in self.followed.new():
                if line["event"] == "ready" and line["n"] == life:
                    return
            assert process.poll() is None, f"over before life {life}: {self.stage.err[-2000:]}"
            assert time.monotonic() < deadline, f"life {life} was not ready within {SLOWEST_S:g} s"
            time.sleep(0.01)

    def _rest(self, supervisor: int, life: int) -> None:
        """See how much of a core it takes while nothing happens; a hang is looked for four times a second here."""
        if self.rest_s:
            before, began = cpu_s(supervisor), time.monotonic()
            time.sleep(self.rest_s)
            self.rests.append((life, 100 * (cpu_s(supervisor) - before) / (time.monotonic() - began)))

    def _kill(self, supervisor: int, life: int) -> None:
        """Kill the engine's first process, every third time the process that guards it."""
        guard = life // HELD_EVERY % 3 == 2
        os.kill(warden_of(supervisor) if guard else leader_of(supervisor), signal.SIGKILL)

    def _read(self, supervisor: int, life: int) -> Reading:
        """Look for a second: the threads that brought the engine up end, questions come and go."""

        def held() -> tuple[int, int, int, int]:
            now, below = taken(supervisor), children(supervisor)
            return now.threads, now.descriptors, len(below), sum(state == "Z" for state in below.values())

        threads, descriptors, below, zombies = usual(held)
        files, size = size_of(self.stage.state)
        record = next((self.stage.state / "runs").iterdir())
        kept = sum(file.stat().st_size for file in record.glob("record*.jsonl"))
        return Reading(
            life,
            replace(taken(supervisor), threads=threads, descriptors=descriptors),
            taken(warden_of(supervisor)),
            children=below,
            zombies=zombies,
            record_bytes=self.stage.record.stat().st_size,
            kept_record_bytes=kept,
            state_bytes=size - kept,
            state_files=files,
            temporary_files=size_of(self.stage.temporary)[0] + len(list(self.stage.temporary.iterdir())),
            shared_memory_files=size_of(Path("/dev/shm"))[0],  # noqa: S108 - looked at, not written to
        )


def series(readings: Sequence[Reading]) -> list[Series]:
    """Return each figure over the lives, with how much it may grow."""
    lives = tuple(reading.life for reading in readings)

    def one(
        name: str, read: Callable[[Reading], float], unit: str = "", allowed: float | None = 0.0, per: float = 1.0
    ) -> Series:
        return Series(name, lives, tuple(read(reading) / per for reading in readings), unit, allowed)

    return [
        one("supervisor: resident", lambda r: r.supervisor.rss_bytes, "MiB", RSS_MIB, MIB),
        one("supervisor: its own alone", lambda r: r.supervisor.private_bytes, "MiB", RSS_MIB, MIB),
        one("supervisor: descriptors", lambda r: r.supervisor.descriptors),
        one("supervisor: threads", lambda r: r.supervisor.threads),
        one("supervisor: children", lambda r: r.children),
        one("supervisor: zombies", lambda r: r.zombies),
        one("warden: resident", lambda r: r.warden.rss_bytes, "MiB", RSS_MIB, MIB),
        one("warden: descriptors", lambda r: r.warden.descriptors),
        one("files in TMPDIR", lambda r: r.temporary_files),
        one("files in /dev/shm (of everybody)", lambda r: r.shared_memory_files, "", None),
        one("state folder: files", lambda r: r.state_files, "", 2),
        one("state folder: logs and memory", lambda r: r.state_bytes, "MiB", None, MIB),
        one("state folder: the run's record", lambda r: r.kept_record_bytes, "MiB", None, MIB),
        one("the user's --record (kept whole)", lambda r: r.record_bytes, "MiB", None, MIB),
    ]


def rests(seen: Sequence[tuple[int, float]]) -> list[Series]:
    """Return the rests at the first and the last life as a series, none where none was wanted."""
    lives, percents = tuple(life for life, _ in seen), tuple(percent for _, percent in seen)
    return [Series("supervisor: at rest, of a core", lives, percents, "%", REST_PERCENT)] if seen else []


def soak(lives: int, rest_s: float = 0.0, tell: Callable[[str], None] = lambda _: None) -> list[Series]:
    """Soak one supervisor and return what was read; whatever happens, nothing outlives it."""
    with staged() as stage:
        return Soak(stage, lives, rest_s).run(tell)


def main(words: Sequence[str]) -> int:
    """Run it, print the table, return the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/bench soak")
    parser.add_argument("--lives", type=int, default=1000)
    parser.add_argument("--rest", type=float, default=30.0, metavar="S", help="at the first life and at the last")
    asked = parser.parse_args(words)
    began = time.monotonic()
    found = soak(asked.lives, asked.rest, lambda text: print(text, file=sys.stderr, flush=True))
    print(f"{asked.lives} lives of the engine in {time.monotonic() - began:.0f} s, {len(found[0].lives)} readings")
    print(growth.heading())
    for one in found:
        print(growth.row(one))
    return 1 if any(one.grew for one in found) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
