"""Restarts within bounds: how long to wait after a crash, and the crashes that a supervisor before us has seen.

I/O: a small file per wish and port in the state folder, so that a service manager that restarts us does not reset the
count. Decides nothing: the bounds are `phases.Policy`'s.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

KEPT = 100
FOLDER = "restarts"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


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


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment by the time of day, which may jump, and by the seconds since a boot of this host, which do not."""

    at: float
    boot: str = ""
    up_s: float = 0.0

    @classmethod
    def now(cls) -> Moment:
        """Return this moment."""
        boot = ""
        with contextlib.suppress(OSError):
            boot = BOOT_ID.read_text(encoding="ascii").strip()
        return cls(time.time(), boot, time.clock_gettime(time.CLOCK_BOOTTIME))

    def age(self, now: Moment) -> float | None:
        """Return how many seconds ago this was; None for one of another boot that has not come yet by the clock."""
        if self.boot and self.boot == now.boot:
            return max(0.0, now.up_s - self.up_s)
        return None if self.at > now.at else now.at - self.at


class CrashLog:
    """The moments of crashes in service; what cannot be kept is told to `warn` and costs nothing.

    Within one boot their ages do not depend on the time of day: a clock that is set forth would begin the count anew,
    one that is set back would let crashes of the future count for years.
    """

    def __init__(self, state_folder: Path, name: str, warn: Callable[[str], None]) -> None:
        self._file = state_folder / FOLDER / f"{name}.json"
        self.warn = warn

    def ages(self) -> tuple[float, ...]:
        """Return how many seconds ago each kept crash was, the longest first."""
        now = Moment.now()
        ages = (moment.age(now) for moment in self._moments())
        return tuple(sorted((age for age in ages if age is not None), reverse=True))

    def add(self) -> None:
        """Keep a crash of this moment."""
        moments = [astuple(moment) for moment in (*self._moments(), Moment.now())][-KEPT:]
        new = self._file.with_suffix(f".{os.getpid()}")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            new.write_text(json.dumps(moments), encoding="ascii")
            new.replace(self._file)
        except OSError as error:
            with contextlib.suppress(OSError):
                new.unlink(missing_ok=True)
            self.warn(f"the crash cannot be counted beyond this run: {self._file}: {error.strerror}")

    def _moments(self) -> list[Moment]:
        try:
            found = json.loads(self._file.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return []
        return [moment for one in found for moment in _moment(one)] if isinstance(found, list) else []


def _moment(kept: Any) -> Iterator[Moment]:
    """Give the moment that an entry of the file is, nothing where it is none."""
    match kept:
        case bool():
            pass
        case [int() | float() as at, str(boot), int() | float() as up_s]:
            yield Moment(float(at), boot, float(up_s))
        case int() | float():  # of a release that kept the time of day alone
            yield Moment(float(kept))
