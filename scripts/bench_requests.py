"""`scripts/bench requests`: a served engine with and without its supervisor, window by window in one run.

    scripts/bench requests              the fake engine, as fast as it answers
    scripts/bench requests --real       a real vLLM on the CPU (needs the engine)

Two engines of the same command are up at once, one under autolaunch, one by hand with its output in a file; the load
goes to one and then the other, and to the other first the next time. Ratios are taken pair by pair, in short windows:
both sides of a pair see the same machine. The engine's own processor time for a request depends on it least.
--through-cat gives the engine by hand a pipe for its output too, as any container or service manager does.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
if str(CHECKOUT) not in sys.path:
    sys.path.insert(0, str(CHECKOUT))

from scripts.bench import free_port, row  # noqa: E402 - found only with the checkout on the path
from scripts.load import Load, Window, answers, drive, quantile  # noqa: E402
from scripts.processes import cpu_s, tree_cpu_s  # noqa: E402
from scripts.served import Engine, by_hand, fake, real, supervised  # noqa: E402
from tests.fake_engine import behaviours as b  # noqa: E402
from tests.fake_engine.scenario import Outcome  # noqa: E402


@dataclass(frozen=True, slots=True)
class Pair:
    """A window on each, one after the other: what came of it, the engines' processor milliseconds for a request.

    `supervisor_percent` is the supervisor's share of a core during its engine's window.
    """

    under: Window
    alone: Window
    under_ms: float
    alone_ms: float
    supervisor_percent: float


def pairs(engine: Engine, load: Load, *, count: int, window_s: float, piped: bool) -> list[Pair]:
    """Put the load on both engines in turn; `piped` is how the one by hand has its output kept."""
    found = []
    with supervised(engine) as served:
        port = free_port()
        with by_hand(engine, served.command(port), lambda: answers(port, load), piped=piped) as pid:
            sides = ((served.leader, served.port), (pid, port))
            for _, where in sides:
                drive(where, load, for_s=max(1.0, window_s / 2))  # both are warm
            for number in range(count):
                found.append(_pair(served.pid, sides, load, window_s, first=number % 2))
    return found


def _pair(supervisor: int, sides: Sequence[tuple[int, int]], load: Load, window_s: float, *, first: int) -> Pair:
    seen: dict[int, tuple[Window, float]] = {}
    used_s = 0.0
    for side in (first, 1 - first):
        root, port = sides[side]
        before_s, own_s = tree_cpu_s(root), cpu_s(supervisor)
        window = drive(port, load, for_s=window_s)
        seen[side] = window, 1000 * (tree_cpu_s(root) - before_s) / max(1, len(window.seconds))
        used_s = cpu_s(supervisor) - own_s if side == 0 else used_s
    (under, under_ms), (alone, alone_ms) = seen[0], seen[1]
    return Pair(under, alone, under_ms, alone_ms, 100 * used_s / window_s)


def told(found: Sequence[Pair]) -> None:
    """Print what was measured; the ratios are of pairs, above 1 where the supervisor's engine did more."""
    for name, side in (("under autolaunch", [p.under for p in found]), ("by hand", [p.alone for p in found])):
        row(f"{name}: requests per second", [window.per_s for window in side], "1/s")
        row(f"{name}: latency, median", [1000 * window.quantile(0.5) for window in side], "ms")
        row(f"{name}: latency, 99 of 100", [1000 * window.quantile(0.99) for window in side], "ms")
    ratios = sorted(pair.under.per_s / pair.alone.per_s for pair in found)
    row("ratio of requests per second", ratios, "")
    row("ratio of median latency", [p.under.quantile(0.5) / p.alone.quantile(0.5) for p in found], "")
    row("ratio of the latency of 99 of 100", [p.under.quantile(0.99) / p.alone.quantile(0.99) for p in found], "")
    row("ratio of the engine's processor time for a request", [p.under_ms / p.alone_ms for p in found], "")
    row("supervisor's processor time under this load", [pair.supervisor_percent for pair in found], "%")
    middle = f"{quantile(ratios, 0.25):.3f} to {quantile(ratios, 0.75):.3f}"
    failed = sum(pair.under.failed + pair.alone.failed for pair in found)
    requests = sum(len(pair.under.seconds) + len(pair.alone.seconds) for pair in found)
    ratio = statistics.median(ratios)
    print(f"ratio {ratio:.3f}, half of the pairs within {middle}; {requests} answers, {failed} failed")


def main(words: Sequence[str]) -> int:
    """Run it and print the table."""
    parser = argparse.ArgumentParser(prog="scripts/bench requests")
    parser.add_argument("--real", action="store_true")
    parser.add_argument("--pairs", type=int)
    parser.add_argument("--window", type=float, metavar="S")
    parser.add_argument("--through-cat", action="store_true")
    parser.add_argument("--clients", type=int, default=4)
    asked = parser.parse_args(words)
    engine = real() if asked.real else fake(Outcome(kind="ok", behaviours=(b.Worker(),)))
    count, window_s = asked.pairs or (20 if asked.real else 60), asked.window or (3.0 if asked.real else 0.5)
    load = Load(engine.model, clients=asked.clients)
    what = "a real vLLM on the CPU" if asked.real else "the fake engine"
    print(f"{what}: {load.clients} clients, {load.tokens} tokens each, {count} pairs of {window_s:g} s")
    print(f"{'':<58}{'min':>8} {'median':>8} {'max':>8}")
    told(pairs(engine, load, count=count, window_s=window_s, piped=asked.through_cat))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
