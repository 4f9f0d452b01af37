"""What the scenario's folder keeps: the number of starts, a line per start and event, a file per process.

    count            how many processes have started (locked, so that two starts never share a number)
    starts.jsonl     {n, pid, argv, time, monotonic, exec_time} a line per start; time is wall clock at the
                     first statement, exec_time (10 ms steps) when the process was made
    events.jsonl     {n, pid, event, time}: "judged" (by the memory model: with its kind, its numbers and the simulated
                     `seconds` to that end), "cause" after the decisive line, "ready", "stopping", "exit"
    compiled         a line per shape that torch.compile has in its cache
    pids/<pid>       {role, ticks} of every process that was started, written by itself

Without a folder nothing is kept.
"""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


RECORD = "record.jsonl"
"""The supervisor's own record, where a test puts it beside these."""


def stat_fields(pid: int | str) -> list[str]:
    """Give /proc/<pid>/stat from its third field (the state) on; raise OSError if there is none."""
    with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123  pathlib costs 5 ms of the start
        return file.read().rpartition(b")")[2].decode().split()


def start_ticks(pid: int | str = "self") -> int:
    """Give the clock tick after boot at which a process was made."""
    return int(stat_fields(pid)[19])


class Ledger:
    """The scenario's folder, for the processes of one start."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.n = 0
        if folder:
            os.makedirs(f"{folder}/pids", exist_ok=True)  # noqa: PTH103

    def count(self) -> int:
        """Take the next start's number, from 0."""
        if not self.folder:
            return 0
        import fcntl

        handle = os.open(f"{self.folder}/count", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            self.n = int(os.read(handle, 32) or b"0")
            os.pwrite(handle, b"%d" % (self.n + 1), 0)
        finally:
            os.close(handle)
        return self.n

    def register(self, role: str) -> None:
        """Note the calling process."""
        if self.folder:
            path = f"{self.folder}/pids/{os.getpid()}"
            with open(f"{path}.part", "w", encoding="utf-8") as file:  # noqa: PTH123
                file.write(f'{{"role": "{role}", "ticks": {start_ticks()}}}')
            os.replace(f"{path}.part", path)  # noqa: PTH105

    def start(self, argv: Sequence[str], born: float, born_monotonic: float) -> None:
        """Add the line of this start."""
        since_boot = time.clock_gettime(time.CLOCK_BOOTTIME)
        age = since_boot - start_ticks() / os.sysconf("SC_CLK_TCK")
        self._append(
            "starts.jsonl",
            argv=list(argv),
            time=born,
            monotonic=born_monotonic,
            exec_time=time.time() - age,
        )

    def event(self, event: str, **more: object) -> None:
        """Add the line of something that happened now."""
        self._append("events.jsonl", event=event, time=time.time(), **more)

    def recorded(self) -> int:
        """Give the size of the supervisor's record so far."""
        try:
            return os.stat(f"{self.folder}/{RECORD}").st_size  # noqa: PTH116
        except OSError:
            return 0

    def await_ready(self, since: int) -> None:
        """Wait until the supervisor's record has a line `ready` beyond that size."""
        while True:
            if self.recorded() > since:
                with open(f"{self.folder}/{RECORD}", "rb") as file:  # noqa: PTH123
                    file.seek(since)
                    if b'"event": "ready"' in file.read():
                        return
            time.sleep(0.01)

    def has_compiled(self, shape: str) -> bool:
        """Whether a start before this one compiled that shape."""
        try:
            with open(f"{self.folder}/compiled", encoding="utf-8") as file:  # noqa: PTH123
                return shape in file.read().split("\n")
        except OSError:
            return False

    def compiled(self, shape: str) -> None:
        """Note that a shape is in the compile cache from now on."""
        if self.folder and not self.has_compiled(shape):
            with open(f"{self.folder}/compiled", "a", encoding="utf-8") as file:  # noqa: PTH123
                file.write(shape + "\n")

    def _append(self, name: str, **values: object) -> None:
        if not self.folder:
            return
        import json

        line = json.dumps({"n": self.n, "pid": os.getpid(), **values}) + "\n"
        handle = os.open(f"{self.folder}/{name}", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, line.encode())
        finally:
            os.close(handle)
