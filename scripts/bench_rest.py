"""`scripts/bench rest`: what a supervisor and its warden take while an engine serves: processor time and memory.

    scripts/bench rest                  the fake engine, 120 s
    scripts/bench rest --seconds 600

All variants run beside each other through the same seconds: plain, with --status (asked as a kubelet and Prometheus
would), under a service manager with a watchdog, and with both; each once idle, once answering requests. Processor time
is the processes' own, so that what else runs on the machine does not count.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
if str(CHECKOUT) not in sys.path:
    sys.path.insert(0, str(CHECKOUT))

from scripts.bench import free_port  # noqa: E402 - found only with the checkout on the path
from scripts.load import Load, drive  # noqa: E402
from scripts.processes import MIB, Taken, cpu_s, taken  # noqa: E402
from scripts.served import Served, fake, supervised  # noqa: E402
from tests.fake_engine import behaviours as b  # noqa: E402
from tests.fake_engine.scenario import Outcome  # noqa: E402

ENGINE = fake(Outcome(kind="ok", behaviours=(b.Worker(),)))
SETTLED_S = 5.0
WATCHDOG_S = 30.0
PER_S = 10.0
"""Requests per second of an engine that is not idle; each leaves a line in its log."""

PROBED_EVERY_S, SCRAPED_EVERY_S = 10.0, 15.0
"""A kubelet's default for each of two probes, and a usual interval of Prometheus."""

MOST_PERCENT, MOST_MIB = 0.3, 50.0
"""The goals: of one core for both processes; of the supervisor's resident memory, and of both, shared pages once."""


@dataclass(frozen=True, slots=True)
class Variant:
    """How a supervisor is run."""

    status: bool
    watchdog: bool
    busy: bool

    @property
    def name(self) -> str:
        """How a row calls it."""
        told = [name for name, on in (("--status", self.status), ("watchdog", self.watchdog)) if on]
        return f"{'serving' if self.busy else 'idle'}, {' and '.join(told) or 'plain'}"


VARIANTS = tuple(
    Variant(status, dog, busy) for busy in (False, True) for dog in (False, True) for status in (False, True)
)


@dataclass(frozen=True, slots=True)
class Rest:
    """What supervisor and warden took: percent of a core each, memory at the end."""

    supervisor_percent: float
    warden_percent: float
    supervisor: Taken
    warden: Taken

    @property
    def percent(self) -> float:
        """Both together."""
        return self.supervisor_percent + self.warden_percent

    @property
    def pss_mib(self) -> float:
        """What both take, pages that they share counted once."""
        return (self.supervisor.pss_bytes + self.warden.pss_bytes) / MIB

    @property
    def kept(self) -> bool:
        """Whether the goals are met."""
        least_mib = max(self.pss_mib, self.supervisor.rss_bytes / MIB)
        return self.percent < MOST_PERCENT and least_mib < MOST_MIB


@contextlib.contextmanager
def service_manager() -> Iterator[dict[str, str]]:
    """Listen as systemd would and give the variables that tell of it."""
    with tempfile.TemporaryDirectory() as name, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(f"{name}/notify")
        threading.Thread(target=_listen, args=(heard,), daemon=True).start()
        yield {"NOTIFY_SOCKET": f"{name}/notify", "WATCHDOG_USEC": str(int(WATCHDOG_S * 1e6))}
        heard.shutdown(socket.SHUT_RDWR)


def _listen(heard: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while heard.recv(4096):
            pass


@contextlib.contextmanager
def running(variant: Variant, stop: threading.Event) -> Iterator[Served]:
    """Run a supervisor as the variant says, and whoever asks it."""
    port = free_port()
    with contextlib.ExitStack() as stack:
        variables = stack.enter_context(service_manager()) if variant.watchdog else {}
        options = ("--status", str(port)) if variant.status else ()
        served = stack.enter_context(supervised(ENGINE, *options, variables=variables))
        if variant.status:
            for path, every_s in (
                ("/livez", PROBED_EVERY_S),
                ("/readyz", PROBED_EVERY_S),
                ("/metrics", SCRAPED_EVERY_S),
            ):
                threading.Thread(target=_ask, args=(port, path, every_s, stop), daemon=True).start()
        if variant.busy:
            threading.Thread(target=_use, args=(served, stop), daemon=True).start()
        yield served


def _ask(port: int, path: str, every_s: float, stop: threading.Event) -> None:
    while not stop.wait(every_s):
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as client:
            client.request("GET", path)
            assert client.getresponse().status == 200


def _use(served: Served, stop: threading.Event) -> None:
    while not stop.is_set():
        drive(served.port, Load(ENGINE.model, clients=1, pause_s=1 / PER_S), for_s=5.0)


def measured(served: Sequence[Served], seconds: float) -> list[Rest]:
    """Let them rest for so long and return what each took."""
    pids = [(one.pid, one.warden) for one in served]
    before = [[cpu_s(pid) for pid in pair] for pair in pids]
    began = time.monotonic()
    time.sleep(seconds)
    after, passed = [[cpu_s(pid) for pid in pair] for pair in pids], time.monotonic() - began
    found = []
    for pair, first, last in zip(pids, before, after, strict=True):
        own, guard = (100 * (late - early) / passed for early, late in zip(first, last, strict=True))
        found.append(Rest(own, guard, taken(pair[0]), taken(pair[1])))
    return found


def rest(variants: Sequence[Variant], seconds: float) -> list[Rest]:
    """Run all variants beside each other and return what each took."""
    stop = threading.Event()
    with ExitStack() as stack:
        served = [stack.enter_context(running(variant, stop)) for variant in variants]
        stack.callback(stop.set)
        time.sleep(SETTLED_S)
        return measured(served, seconds)


def main(words: Sequence[str]) -> int:
    """Run it, print the table, return 1 where a goal is missed."""
    parser = argparse.ArgumentParser(prog="scripts/bench rest")
    parser.add_argument("--seconds", type=float, default=120.0)
    asked = parser.parse_args(words)
    print(f"{asked.seconds:g} s; goals: under {MOST_PERCENT} % of a core and {MOST_MIB:g} MiB; sizes in MiB")
    print(
        f"{'':<32}{'supervisor %':>13}{'warden %':>9}{'RSS':>7}{'PSS':>7}{'warden RSS':>12}{'PSS':>6}{'both PSS':>10}"
    )
    found = rest(VARIANTS, asked.seconds)
    for variant, one in zip(VARIANTS, found, strict=True):
        own, guard = one.supervisor, one.warden
        sizes = (own.rss_bytes / MIB, own.pss_bytes / MIB, guard.rss_bytes / MIB, guard.pss_bytes / MIB, one.pss_mib)
        shown = "".join(f"{size:>{width}.1f}" for size, width in zip(sizes, (7, 7, 12, 6, 10), strict=True))
        told = f"{variant.name:<32}{one.supervisor_percent:>13.3f}{one.warden_percent:>9.3f}{shown}"
        print(told + ("" if one.kept else "  MISSED"))
    return 0 if all(one.kept for one in found) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
