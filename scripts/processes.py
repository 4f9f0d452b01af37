"""What a running process takes, read from /proc: memory, descriptors, threads, children, processor time.

I/O, read-only. Judges nothing: what may grow is `growth`'s.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

MIB = 1 << 20
CPU_CLOCK = 2
"""CPUCLOCK_SCHED of the kernel's clock ids: the nanoseconds that all threads of a process have run."""


@dataclass(frozen=True, slots=True)
class Taken:
    """Bytes resident, of these its share of what others map too, and its own alone; open descriptors and threads."""

    rss_bytes: int
    pss_bytes: int
    private_bytes: int
    descriptors: int
    threads: int


def taken(pid: int) -> Taken:
    """Return what a process takes now; OSError where there is none."""
    folder = Path("/proc", str(pid))
    found = {}
    for line in (folder / "smaps_rollup").read_text(encoding="ascii").splitlines()[1:]:
        name, value, *_ = line.split()
        found[name.rstrip(":")] = int(value) << 10
    return Taken(
        rss_bytes=found["Rss"],
        pss_bytes=found["Pss"],
        private_bytes=found["Private_Clean"] + found["Private_Dirty"],
        descriptors=len(list((folder / "fd").iterdir())),
        threads=len(list((folder / "task").iterdir())),
    )


def cpu_s(pid: int) -> float:
    """Return the processor seconds that a process has used in all its threads, to the nanosecond."""
    return time.clock_gettime((~pid << 3) | CPU_CLOCK)


def children(pid: int) -> dict[int, str]:
    """Return the children of a process with their state letters, zombies ("Z") included."""
    found = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                stat = Path(entry.path, "stat").read_bytes()
                state, parent = stat[stat.rindex(b")") + 2 :].split()[:2]
                if int(parent) == pid:
                    found[int(entry.name)] = state.decode()
    return found


def tree_cpu_s(root: int) -> float:
    """Return the processor seconds that a process and all that live below it have used."""
    total, waiting = 0.0, [root]
    while waiting:
        pid = waiting.pop()
        with contextlib.suppress(OSError):
            total += cpu_s(pid)
        waiting.extend(children(pid))
    return total


def warden_of(supervisor: int) -> int:
    """Return the process between a supervisor and its engine."""
    (warden,) = (pid for pid, state in children(supervisor).items() if state != "Z")
    return warden


def leader_of(supervisor: int) -> int:
    """Return the engine's first process, the child of the warden that leads its own session; 0 where there is none."""
    for warden in children(supervisor):
        for pid in children(warden):
            with contextlib.suppress(ProcessLookupError):
                if os.getsid(pid) == pid:
                    return pid
    return 0


def usual(read: Callable[[], T], *, looks: int = 9, apart_s: float = 0.1) -> T:
    """Return the reading that most looks agree on: a question that is under way has a descriptor, an end a thread."""
    seen = [read()]
    for _ in range(looks - 1):
        time.sleep(apart_s)
        seen.append(read())
    return max(seen, key=seen.count)


def size_of(folder: Path) -> tuple[int, int]:
    """Return how many files are below a folder, and their bytes; what vanishes meanwhile is not there."""
    count = total = 0
    for base, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += Path(base, name).lstat().st_size
                count += 1
    return count, total


def born(pid: int) -> float:
    """Return when a process was forked, in Unix seconds, in steps of a clock tick (10 ms)."""
    stat = Path(f"/proc/{pid}/stat").read_bytes()
    ticks = int(stat[stat.rindex(b")") + 2 :].split()[19])
    age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.time() - age_s
