"""The guard of a serving engine: reads its counters at intervals, asks for one token where they stand still.

I/O over HTTP, in a thread of its own; what a reading means is `liveness`'s. Costs the engine nothing while it works.
"""

from __future__ import annotations

import http
import http.client
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from autolaunch import liveness, probe
from autolaunch.liveness import Pulse, Rules
from autolaunch.wish import Address

DRAIN_POLL_S = 0.2
RESTING = ("/is_sleeping", "/is_paused")
"""Where an engine says that it answers nothing because it was told so (VLLM_SERVER_DEV_MODE: POST /sleep, /pause)."""

IDLE_READINGS = 2
"""Readings without a request that make an engine idle: a request may stand between two gauges in one."""


@dataclass(frozen=True, slots=True)
class Guard:
    """Where the engine is reached and by which rules it is judged."""

    address: Address
    api_key: str = ""
    rules: Rules = Rules()

    def watch(self, gone: threading.Event, hung: Callable[[str], None], warn: Callable[[str], None]) -> None:
        """Watch until the engine is gone or hangs; then tell `hung` what was seen, once.

        Where this process itself lacks the means to ask, the engine is not judged, and `warn` hears of it once.
        """
        pulse, warned, resting = Pulse(time.monotonic()), False, list(RESTING)
        while not gone.wait(self.rules.every_s):
            pulse = liveness.felt(pulse, self._counters(), time.monotonic())
            if not liveness.wants_asking(pulse, self.rules, time.monotonic()):
                continue
            if self._rests(resting):  # a request could find no weights there
                pulse = liveness.answered(pulse, time.monotonic())
                continue
            left_s = liveness.patience(pulse, self.rules, time.monotonic())
            answer = probe.prove(self.address, api_key=self.api_key, timeout=left_s)
            now = time.monotonic()
            if answer.verdict is probe.Verdict.PASSED:
                pulse = liveness.answered(pulse, now)
                continue
            if answer.short:
                if not warned:
                    warn(f"whether the engine hangs cannot be seen: {answer.short}")
                warned = True
                continue
            pulse = liveness.felt(pulse, self._counters(), now)  # it may work and have lost this one request
            if liveness.hangs(pulse, self.rules, now) and not gone.is_set():
                hung(f"no work and no answer for {now - pulse.alive:.0f} s: {answer.seen}")
                return

    def drain(self, gone: threading.Event, note: Callable[[str], None]) -> None:
        """Return once the engine has no request left, is gone, or does not say how many; say once that some run."""
        idle, told = 0, False
        while idle < IDLE_READINGS:
            held = liveness.requests_in(self._metrics())
            if held and not told:
                told, running = True, "1 request runs" if held == 1 else f"{held:.0f} requests run"
                note(f"{running} and may finish (--drain-timeout); a second signal ends it all at once")
            if held is None or gone.wait(DRAIN_POLL_S):
                return
            idle = 0 if held else idle + 1

    def _rests(self, places: list[str]) -> bool:
        """Whether the engine says that it sleeps or is paused; a place that it does not have is asked only once."""
        for place in tuple(places):
            try:
                status, said = probe.request(self.address, place, api_key=self.api_key, timeout=self.rules.every_s)
            except (OSError, http.client.HTTPException, RuntimeError, MemoryError):
                continue
            if status == http.HTTPStatus.NOT_FOUND:
                places.remove(place)
            elif isinstance(said, dict) and True in said.values():
                return True
        return False

    def _counters(self) -> float | None:
        return liveness.counters_in(self._metrics())

    def _metrics(self) -> str:
        try:
            status, text = probe.request(self.address, "/metrics", timeout=self.rules.every_s)
        except (OSError, http.client.HTTPException, RuntimeError, MemoryError):
            return ""
        return text if status == 200 and isinstance(text, str) else ""
