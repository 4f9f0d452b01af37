"""The processes below the leader: forked, titled, detached, deaf, holding a pipe or a port.

Every one of them registers itself in the ledger before the leader goes on, so no test looks too early.
Must not print and must not decide.
"""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager, suppress

from .behaviours import Child, DoubleFork, HoldMemory, HoldPipe, HoldPort, IgnoreSigterm, Together, Worker
from .ledger import stat_fields
from .line import ends, take_part
from .record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import NoReturn

    from .ledger import Ledger
    from .scenario import Outcome

STOPS = (signal.SIGTERM, signal.SIGINT)
FIRST_FREE_FD, LAST_FD = 3, 256
FAILED = 70
BARE = "import signal\nwhile True:\n    signal.pause()\n"


class Way(Record):
    """How a process is set apart.

    detach  a session of its own; orphan  its parent is gone at once; deaf  the signals that it ignores;
    quiet   without the leader's output; bare  with an empty environment; keep  the one descriptor it keeps;
    line    its end of the line to whoever needs it to take part (`line`); mib  the memory that it keeps, in MiB.
    """

    detach: bool = False
    orphan: bool = False
    deaf: tuple[int, ...] = ()
    quiet: bool = False
    bare: bool = False
    keep: int = -1
    line: int = -1
    mib: int = 0


class Family:
    """The processes of one start; `core` and `workers` are those that the leader ends with itself."""

    def __init__(self, ledger: Ledger, outcome: Outcome) -> None:
        self.ledger = ledger
        self.outcome = outcome
        self.core = 0
        self.workers: tuple[int, ...] = ()
        self.line = -1
        self.below: list[int] = []
        self.holder = 0
        ignore = outcome.find(IgnoreSigterm)
        self.deaf = () if ignore is None else STOPS if ignore.sigint else STOPS[:1]

    def grow(self, listening: int) -> None:
        """Start what belongs to the engine core's initialisation; `listening` is the bound socket."""
        worker = self.outcome.find(Worker)
        if self.outcome.find(Child) or worker:
            self.start_core(worker.count if worker else 0)
        pipe, port = self.outcome.find(HoldPipe), self.outcome.find(HoldPort)
        if pipe:
            deaf = STOPS if pipe.ignore_sigterm else self.deaf
            self._fork("hold_pipe", "", Way(orphan=True, detach=pipe.setsid, deaf=deaf))
        if memory := self.outcome.find(HoldMemory):
            way = Way(orphan=True, detach=True, deaf=(*STOPS, signal.SIGHUP), quiet=True, bare=True, mib=memory.mib)
            (self.holder,) = self._fork("hold_memory", "", way)
        if port:
            deaf = STOPS if port.ignore_sigterm else self.deaf
            self._fork("hold_port", "", Way(orphan=True, detach=port.setsid, deaf=deaf, quiet=True, keep=listening))

    def start_core(self, workers: int = 0) -> None:
        """Start the engine core, with workers below it, once."""
        if self.core:
            return

        def below() -> list[int]:
            return [self._worker(rank) for rank in range(workers)]

        with stops_wait():
            self.line, way = self._tied()
            self.core, *rest = self._fork("core", "VLLM::EngineCore", way, below)
            self.workers = tuple(rest)

    def _worker(self, rank: int) -> int:
        line, way = self._tied()
        self.below += [line] if line >= 0 else []
        return self._fork(f"worker{rank}", f"VLLM::Worker_TP{rank}", way)[0]

    def _tied(self) -> tuple[int, Way]:
        """Give our end of a line to the next process, and its way with the other; no line where none is needed."""
        ours, theirs = ends() if self.outcome.find(Together) else (-1, -1)
        return ours, Way(deaf=self.deaf, line=theirs)

    def detach(self, behaviour: DoubleFork) -> None:
        """Start a process that leaves the leader's session and parent."""
        deaf = (*STOPS, signal.SIGHUP)
        quiet = not behaviour.keep_output
        self._fork("double_fork", "", Way(detach=True, orphan=True, deaf=deaf, quiet=quiet, bare=behaviour.clear_env))

    def end(self) -> None:
        """Kill the engine core and the workers, as vLLM's own shutdown does, and reap the core."""
        for pid in (*self.workers, self.core):
            if pid:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if self.core:
            with suppress(ChildProcessError):
                os.waitpid(self.core, 0)
        self.core, self.workers = 0, ()

    def _fork(self, role: str, title: str, way: Way, inside: Callable[[], list[int]] = list) -> list[int]:
        """Fork; give the pids of the process that stays and of those it started, all registered."""
        reading, writing = os.pipe()
        with stops_wait():
            first = os.fork()
            if first:
                os.close(writing)
                if way.line >= 0:
                    os.close(way.line)
                told = _drain(reading)
                if way.orphan:
                    os.waitpid(first, 0)
                return [int(pid) for pid in told.split()]
            self._be(role, title, way, writing, inside)
        raise AssertionError("the forked process never returns")

    def _be(self, role: str, title: str, way: Way, writing: int, inside: Callable[[], list[int]]) -> NoReturn:
        """Be the process that stays: the rest of its life."""
        try:
            if way.detach:
                os.setsid()
            if way.orphan and os.fork():
                os._exit(0)
            _settle(way, writing)
            self.ledger.register(role)
            if title:
                retitle(title)
            os.write(writing, " ".join(str(pid) for pid in (os.getpid(), *inside())).encode())
            os.close(writing)
            if way.line >= 0:
                take_part(way.line, self.below if role == "core" else [], core=role == "core")
            _live(bare=way.bare, mib=way.mib)
        finally:
            os._exit(FAILED)


@contextmanager
def stops_wait() -> Iterator[None]:
    """Hold stop signals back: a leader that is stopped between a fork and its note would leave the child behind."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _settle(way: Way, writing: int) -> None:
    """Give the calling process its signals and descriptors."""
    for number in (*STOPS, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN if number in way.deaf else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    for handle in range(FIRST_FREE_FD, LAST_FD):
        if handle not in (way.keep, way.line, writing):
            with suppress(OSError):
                os.close(handle)
    if way.keep >= 0:
        import _socket

        _socket.socket(fileno=os.dup(way.keep)).listen(16)
    if way.quiet:
        nothing = os.open(os.devnull, os.O_RDWR)
        for handle in (0, 1, 2):
            os.dup2(nothing, handle)
        os.close(nothing)


def _drain(handle: int) -> bytes:
    told = b""
    while chunk := os.read(handle, 4096):
        told += chunk
    os.close(handle)
    return told


def _live(*, bare: bool, mib: int) -> NoReturn:
    if bare:
        import sys

        os.execve(sys.executable, [sys.executable, "-S", "-c", f"kept = bytearray(b'x') * ({mib} << 20)\n{BARE}"], {})
    while True:
        signal.pause()


def retitle(title: str) -> None:
    """Change what ps shows of the calling process, as setproctitle does, where that is allowed."""
    with suppress(OSError, ValueError), open("/proc/self/comm", "w", encoding="utf-8") as comm:  # noqa: PTH123
        comm.write(title[:15])
    with suppress(OSError, ValueError):
        start, end = (int(field) for field in stat_fields("self")[45:47])
        with open("/proc/self/mem", "r+b", buffering=0) as memory:  # noqa: PTH123
            memory.seek(start)
            memory.write(title.encode()[: end - start - 1].ljust(end - start, b"\0"))
