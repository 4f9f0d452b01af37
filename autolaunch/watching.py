"""Who watches a run: each watcher is shown the status whenever it changes, and a beat from the supervisor's own loop.

I/O only through the watchers. Must not decide: a watcher that fails is told once and dropped, the run goes on.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Protocol

from autolaunch import phases, record, status
from autolaunch.errors import ExitCode
from autolaunch.failure import Phase
from autolaunch.status import Status


class Watcher(Protocol):
    """Somebody outside who is kept informed."""

    @property
    def beat_s(self) -> float | None:
        """How often `beat` must be called from the supervisor's loop; None: never."""

    def show(self, shown: Status) -> None:
        """Take the status, which has just changed. Must return at once."""

    def beat(self) -> None:
        """The supervisor's loop is alive."""


class Watch:
    """The status of a run and those who watch it; any thread may tell."""

    def __init__(self, first: Status, watchers: tuple[Watcher, ...], warn: Callable[[str], None]) -> None:
        self._status = first
        self._watchers = list(watchers)
        self._warn = warn
        self._lock = threading.RLock()

    @property
    def status(self) -> Status:
        """The status as it is now."""
        return self._status

    @property
    def beat_s(self) -> float | None:
        """The shortest beat that a watcher asks for."""
        return min((one.beat_s for one in self._watchers if one.beat_s is not None), default=None)

    def told(self, event: record.Event) -> None:
        """Take an event of the run."""
        self._change(lambda now: status.told(self._status, event, now))

    def moved(self, state: phases.State) -> None:
        """Take the machine's new state."""
        self._change(lambda now: status.moved(self._status, state, now))

    def stepped(self, phase: Phase) -> None:
        """Take how far a start is."""
        if phase is not self._status.step and self._status.phase == "starting":
            self._change(lambda _: status.stepped(self._status, phase))

    def waits(self, text: str) -> None:
        """Take what is waited for, or done before the first start, in words."""
        self._change(lambda _: status.waited(self._status, text))

    def bounded(self, attempts: int) -> None:
        """Take how many starts there will be at most, where that is only known now."""
        self._change(lambda _: replace(self._status, max_attempts=attempts))

    def refused(self, why: str, exit_code: ExitCode) -> None:
        """Take the error that ends the run before it has begun."""
        self._change(lambda _: replace(self._status, why=(why,), waits="", reason="error", exit_code=int(exit_code)))

    @contextlib.contextmanager
    def reloading(self) -> Iterator[None]:
        """Show that what can be read anew is being read, for as long as it lasts."""
        self._change(lambda _: replace(self._status, reloading=True))
        try:
            yield
        finally:
            self._change(lambda _: replace(self._status, reloading=False))

    def beat(self) -> None:
        """Pass the loop's beat on."""
        self._each(lambda watcher: watcher.beat())

    def _change(self, made: Callable[[float], Status]) -> None:
        with self._lock:
            before, self._status = self._status, made(time.time())
            if self._status != before:
                self._each(lambda watcher: watcher.show(self._status))

    def _each(self, do: Callable[[Watcher], None]) -> None:
        for watcher in tuple(self._watchers):
            try:
                do(watcher)
            except OSError as error:
                self._watchers.remove(watcher)
                self._warn(f"{type(watcher).__name__} is not told any more: {error.strerror or error}")
