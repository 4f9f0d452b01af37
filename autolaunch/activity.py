"""Whether an engine that starts does anything: processor time, bytes moved, of its processes and of its container.

I/O over /proc and, for a container, its runtime. Owns what counts as work; what follows from a standstill is
`machine`'s.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable

import psutil

from autolaunch import containment, warden

STIR_PERIOD_S = 1.0
ASK_PERIOD_S = 15.0
"""How often a container's runtime is asked what the container does: the answer takes seconds."""

IDLE_SHARE = 0.02
"""Processor use below this share of one core is an idle event loop, not work."""

IDLE_BYTES_PER_S = 16 << 10
"""An idle event loop moves less through its pipes; a slow download or network disk moves more."""


class Activity:
    """What an engine has used so far; `note` names its container, None for a plain process."""

    def __init__(self, note: containment.Note | None) -> None:
        self._note = note
        self._cpu_s = 0.0
        self._moved_bytes = 0
        self._used = containment.Use()
        self._asked_at = 0.0

    def stirred(self, members: Iterable[int]) -> bool:
        """Whether its processes or its container worked since the last call; called once in a while."""
        there = tuple(members)
        used, moved = _cpu_seconds(there), _moved_bytes(there)
        busy = used - self._cpu_s > IDLE_SHARE * STIR_PERIOD_S
        busy = busy or moved - self._moved_bytes > IDLE_BYTES_PER_S * STIR_PERIOD_S
        self._cpu_s, self._moved_bytes = used, moved
        return busy or self._container_stirred()

    def _container_stirred(self) -> bool:
        now = time.monotonic()
        elapsed_s = now - self._asked_at
        if self._note is None or elapsed_s < ASK_PERIOD_S:
            return False
        before, self._used, self._asked_at = self._used, containment.use(self._note), now
        moved = self._used.moved_bytes - before.moved_bytes
        return self._used.cpu_share > IDLE_SHARE or moved > IDLE_BYTES_PER_S * elapsed_s


def _cpu_seconds(members: Iterable[int]) -> float:
    """Return the processor time that these processes have used."""
    total = 0.0
    for pid in members:
        with contextlib.suppress(psutil.Error):
            times = psutil.Process(pid).cpu_times()
            total += times.user + times.system
    return total


def _moved_bytes(members: Iterable[int]) -> int:
    """Return what these processes have read and written: by calls, and from disk into mapped files.

    A download shows in what it writes: receiving from a socket is not counted by the kernel.
    """
    total = 0
    for pid in members:
        with contextlib.suppress(OSError):
            counts = dict(line.split(b": ") for line in warden.read(f"/proc/{pid}/io").splitlines())
            total += sum(int(counts[name]) for name in (b"rchar", b"wchar", b"read_bytes"))
    return total
