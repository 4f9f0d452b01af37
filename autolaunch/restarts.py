"""Restarts within bounds: how long to wait after a crash, and the crashes that a supervisor before us has seen.

I/O: a small file per wish and port in the state folder, so that a service manager that restarts us does not reset the
count. Decides nothing: the bounds are `phases.Policy`'s.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

KEPT = 100
FOLDER = "restarts"


def jittered(first_s: float, most_s: float) -> Callable[[int], float]:
    """Return the wait in seconds by the number of crashes before: doubling, with up to `first_s` of chance.

    Chance keeps several servers of one host that died together from starting together.
    """

    def wait(crashes: int) -> float:
        import tenacity  # noqa: PLC0415 - most runs never crash

        state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
        state.attempt_number = crashes + 1
        drawn = tenacity.wait_exponential_jitter(initial=first_s, max=most_s, jitter=first_s)
        return round(min(most_s, drawn(state)), 3)

    return wait


class CrashLog:
    """The times of crashes in service, by the wall clock; what cannot be kept is told to `warn` and costs nothing."""

    def __init__(self, state_folder: Path, name: str, warn: Callable[[str], None]) -> None:
        self._file = state_folder / FOLDER / f"{name}.json"
        self.warn = warn

    def ages(self) -> tuple[float, ...]:
        """Return how many seconds ago each kept crash was, oldest first; one in the future was just now."""
        now = time.time()
        return tuple(max(0.0, now - at) for at in self._times())

    def add(self) -> None:
        """Keep a crash of this moment."""
        times = [*self._times(), time.time()][-KEPT:]
        new = self._file.with_suffix(f".{os.getpid()}")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            new.write_text(json.dumps(times), encoding="ascii")
            new.replace(self._file)
        except OSError as error:
            with contextlib.suppress(OSError):
                new.unlink(missing_ok=True)
            self.warn(f"the crash cannot be counted beyond this run: {self._file}: {error.strerror}")

    def _times(self) -> list[float]:
        try:
            found = json.loads(self._file.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return []
        times = found if isinstance(found, list) else []
        return sorted(float(at) for at in times if isinstance(at, (int, float)) and not isinstance(at, bool))
