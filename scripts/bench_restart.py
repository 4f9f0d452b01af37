"""`scripts/bench restart`: from an engine's death or hang to the next engine's start.

    scripts/bench restart               the fake engine, calm and with clients at --status
    scripts/bench restart --real        a real vLLM on the CPU (needs the engine)

The deliberate wait before a restart (1 to 2 s at the first crash) is told by the record and taken off; what is left is
our own reaction: seeing the end, ending the rest of the tree, proving it gone, waiting for its memory, starting the
next. A hang begins with SIGSTOP of the whole engine; it is told as a multiple of --hang-timeout.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
if str(CHECKOUT) not in sys.path:
    sys.path.insert(0, str(CHECKOUT))

from scripts.bench import free_port, row, wait_for  # noqa: E402 - found only with the checkout on the path
from scripts.crowd import SLOW, TALKING, crowded  # noqa: E402
from scripts.load import Load, drive  # noqa: E402
from scripts.processes import MIB, born, children, taken  # noqa: E402
from scripts.served import START_S, Engine, Served, fake, real, supervised  # noqa: E402
from tests.fake_engine import behaviours as b  # noqa: E402
from tests.fake_engine.scenario import Outcome  # noqa: E402

ALWAYS_FIRST = ("--max-restarts", "99", "--restart-window", "1")
"""Every crash is the first one within its window, so that the wait stays the shortest."""

WINDOW_S = 1.2
HANG_TIMEOUT_S = 12.0
OK = fake(Outcome(kind="ok", behaviours=(b.Worker(),)))


def at(line: dict[str, object]) -> float:
    """Return when a record's line was written, in Unix seconds."""
    return datetime.fromisoformat(str(line["time"]).replace("Z", "+00:00")).timestamp()


def death(served: Served, nth: int, victim: Callable[[Served], int]) -> tuple[float, float]:
    """Kill, and return the seconds until the next engine's exec and, of these, those without the deliberate wait."""
    time.sleep(WINDOW_S)  # beyond the window of the crash before
    pid = victim(served)
    killed = time.time()
    os.kill(pid, signal.SIGKILL)
    wait_s = float(str(served.await_event("crashed", nth)["wait_seconds"]))
    served.await_event("attempt", nth + 1)
    wait_for(lambda: served.leader, within_s=START_S)
    to_exec = born(served.leader) - killed
    served.await_event("ready", nth + 1)
    return to_exec, to_exec - wait_s


def leader(served: Served) -> int:
    """Return the API server's process."""
    return served.leader


def core(served: Served) -> int:
    """Return the engine core's process."""
    cores = (pid for pid in children(served.leader) if b"EngineCore" in Path(f"/proc/{pid}/cmdline").read_bytes())
    return next(cores)


def deaths(engine: Engine, victims: dict[str, Callable[[Served], int]], runs: int) -> None:
    """Kill each victim so many times in turn, under one supervisor."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in victims}
    with supervised(engine, *ALWAYS_FIRST) as served:
        for nth in range(1, runs * len(victims) + 1):
            name = list(victims)[nth % len(victims)]
            found[name].append(death(served, nth, victims[name]))
    for name, seen in found.items():
        row(f"SIGKILL of the {name} to the next exec", [whole for whole, _ in seen], "s")
        row("  of that our own, without the deliberate wait", [own for _, own in seen], "s")


def under_clients(runs: int) -> None:
    """Crash a run whose status nobody asks for, then one that a crowd asks, in turn under one supervisor."""
    own: dict[str, list[float]] = {"calm": [], "crowd": []}
    memory: dict[str, list[float]] = {"calm": [], "crowd": []}
    status = free_port()
    with supervised(OK, *ALWAYS_FIRST, "--status", str(status)) as served:
        for nth in range(1, 2 * runs + 1):
            name = "crowd" if nth % 2 == 0 else "calm"
            with crowded(status, among=name == "crowd"):
                own[name].append(death(served, nth, leader)[1])
                memory[name].append(taken(served.pid).rss_bytes / MIB)
    row("SIGKILL to exec without the wait, nobody at --status", own["calm"], "s")
    row(f"  with {TALKING} clients and {SLOW} slow ones there", own["crowd"], "s")
    row("supervisor's memory, nobody at --status", memory["calm"], "MiB")
    row(f"  with {TALKING} clients and {SLOW} slow ones there", memory["crowd"], "MiB")


def hang(engine: Engine, *, busy: bool) -> float:
    """Stop a whole engine and return the seconds until that was told as a hang, by --hang-timeout."""
    with supervised(engine, *ALWAYS_FIRST, "--hang-timeout", str(HANG_TIMEOUT_S)) as served:
        began = time.monotonic()
        while time.monotonic() < began + HANG_TIMEOUT_S:
            if busy:
                drive(served.port, Load(engine.model, clients=1, pause_s=0.1), for_s=1.0)
            else:
                time.sleep(1.0)
        stopped = time.time()
        os.killpg(served.leader, signal.SIGSTOP)
        return (at(served.await_event("crashed")) - stopped) / HANG_TIMEOUT_S


def hangs(engine: Engine, runs: int, *, at_once: int) -> None:
    """Hang idle and busy engines."""
    for name, busy in (("idle", False), ("busy", True)):
        with ThreadPoolExecutor(at_once) as pool:
            found = list(pool.map(lambda _, busy=busy: hang(engine, busy=busy), range(runs)))
        row(f"hang of an {name} engine to its detection" if not busy else "  of one that was busy", found, "x")


def main(words: Sequence[str]) -> int:
    """Run it and print the table."""
    parser = argparse.ArgumentParser(prog="scripts/bench restart")
    parser.add_argument("--real", action="store_true")
    asked = parser.parse_args(words)
    print("a real vLLM on the CPU" if asked.real else "the fake engine")
    print(f"{'':<58}{'min':>8} {'median':>8} {'max':>8}")
    if asked.real:
        deaths(real(), {"API server": leader, "engine core": core}, 2)
        hangs(real(), 1, at_once=1)
    else:
        deaths(OK, {"API server": leader}, 11)
        under_clients(7)
        hangs(OK, 10, at_once=10)
    print(f"(x: multiples of --hang-timeout, here {HANG_TIMEOUT_S:g} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
