"""What systemd is told of a run: ready, stopping, a status line, a sign of life, and that a long start goes on.

I/O through `sd_notify` only. Decides what may be said and when; the meaning of the words is sd_notify(3)'s.

- READY=1 once, when the first engine serves. An engine that is started anew later is told in words: the unit stays
  active, as systemd knows no way back.
- EXTEND_TIMEOUT_USEC before READY and after STOPPING. While an engine starts it follows signs of work: the machine's
  own verdict over a stall comes before systemd's, which is there for a supervisor that hangs. Every other phase has
  its own short deadline in the machine, so that the loop's beat is enough there. In service it is not sent: it would
  push the watchdog away too.
- RELOADING=1 before and READY=1 after what SIGHUP reads anew, in service.
- WATCHDOG=1 from the loop's beat and from nowhere else.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

from autolaunch.status import Status

EXTEND_EVERY_S = 5.0
"""Not at every sign of work, of which there may be several a second."""

ANSWER_S = 15.0
"""How long the machine may take to answer a stall before systemd does."""

SHORT_S = 45.0
"""The longest that a phase without signs of work lasts between two beats: two SIGKILL waits of 20 s, and a beat."""


class Manager(Protocol):
    """Whoever takes the messages."""

    def send(self, fields: dict[str, str]) -> bool:
        """Take one message, or say that it was lost."""


class SystemdWatcher:
    """Keeps systemd informed; any thread may show, the loop beats.

    `watchdog_s` is how long systemd waits for a sign of life, None for ever; `stall_s` how long a start may show no
    work before the machine ends it.
    """

    def __init__(
        self,
        manager: Manager,
        *,
        watchdog_s: float | None,
        stall_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._manager = manager
        self._watchdog_s = watchdog_s
        self._stall_s = stall_s
        self._clock = clock
        self._lock = threading.Lock()
        self._owed: dict[str, str] = {}
        self._text = ""
        self._phase = "planning"
        self._mark: object = None
        self._worked = False
        self._ready = False
        self._reloading = False
        self._stopping = False
        self._extended_at = -EXTEND_EVERY_S
        self._alive_at = 0.0

    @property
    def beat_s(self) -> float | None:
        """Half of what the watchdog allows, and often enough to extend what is not up yet."""
        beats = [] if self._watchdog_s is None else [self._watchdog_s / 2]
        if self._extends or self._owed or not self._ready:
            beats.append(EXTEND_EVERY_S)
        return min(beats, default=None)

    @property
    def _extends(self) -> bool:
        return self._stopping or (not self._ready and self._phase != "planning")

    def show(self, shown: Status) -> None:
        """Tell what has changed."""
        with self._lock:
            if shown.line != self._text:
                self._owed["STATUS"] = self._text = shown.line
            if shown.phase == "ready" and shown.came_up and not self._ready:  # and what it serves is known
                self._owed["READY"], self._ready = "1", True
            self._reload(shown.reloading)
            if shown.ending and not self._stopping:
                self._owed["STOPPING"], self._stopping = "1", True
            mark = (shown.phase, shown.attempt, shown.step, shown.stirred)
            self._worked, self._mark, self._phase = self._worked or mark != self._mark, mark, shown.phase
            self._send({})

    def _reload(self, reloading: bool) -> None:
        """Tell a reload's beginning and end; before READY there is nothing to go back to."""
        if self._ready and reloading and not self._reloading:
            self._owed |= {"RELOADING": "1", "MONOTONIC_USEC": str(int(self._clock() * 1e6))}
            self._reloading = True
        elif self._reloading and not reloading:
            self._owed = {
                name: text for name, text in self._owed.items() if name not in ("RELOADING", "MONOTONIC_USEC")
            }
            self._owed["READY"] = "1"
            self._reloading = False

    def beat(self) -> None:
        """Give the sign of life, and what could not be said before."""
        with self._lock:
            now, alive = self._clock(), {}
            # earlier than at the half: an event just before it must not put the sign off by another half
            if self._watchdog_s is not None and now - self._alive_at >= self._watchdog_s / 4:
                alive = {"WATCHDOG": "1"}
            self._worked = self._worked or self._phase != "starting"
            if self._send(alive) and alive:
                self._alive_at = now

    def _send(self, alive: dict[str, str]) -> bool:
        fields = {**self._owed, **self._extension(), **alive}
        if not fields or not self._manager.send(fields):
            return False
        self._owed = {}
        if "EXTEND_TIMEOUT_USEC" in fields:
            self._worked, self._extended_at = False, self._clock()
        return True

    def _extension(self) -> dict[str, str]:
        if not self._extends or not self._worked or self._clock() - self._extended_at < EXTEND_EVERY_S:
            return {}
        seconds = self._stall_s + ANSWER_S if self._phase == "starting" else SHORT_S
        return {"EXTEND_TIMEOUT_USEC": str(int(seconds * 1e6))}
