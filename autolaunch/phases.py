"""The supervisor's states: the phases that operators know, what each keeps, and which may follow which.

Owns the values only; how one becomes another is `machine`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from autolaunch.arguments import Given
from autolaunch.candidates import Question
from autolaunch.climb import Climb
from autolaunch.errors import ExitCode
from autolaunch.facts import Situation
from autolaunch.failure import Failure
from autolaunch.figures import Effective
from autolaunch.settings import Settings


def doubling(crashes: int) -> float:
    """Return the seconds to wait after a crash by the number of those before it: 1, 2, 4, ... at most 60."""
    return float(min(60, 1 << min(crashes, 6)))


@dataclass(frozen=True, slots=True)
class Policy:
    """The bounds of a run; seconds throughout. Without `retries` no failed start is followed by another.

    `restart_wait` gives the wait after a crash by the number of crashes before it within the window.

    `options` are those the user gave to the engine: a configuration error that names one of them is the user's to
    mend.
    """

    max_attempts: int = 8
    retries: bool = True
    start_timeout_s: float = 3600.0
    stall_timeout_s: float = 300.0
    settle_s: float = 0.25
    serving_settle_s: float = 3.0
    failed_grace_s: float = 0.4
    start_grace_s: float = 2.0
    drain_s: float = 0.0
    stop_grace_s: float = 20.0
    kill_wait_s: float = 20.0
    max_restarts: int = 5
    restart_window_s: float = 600.0
    restart_wait: Callable[[int], float] = doubling
    check: bool = False
    prove: bool = True
    url: str = ""
    options: tuple[Given, ...] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """What every phase keeps: the bounds, the climb, the attempt's number and the past crashes.

    `climbing` counts the attempts since the engine last served; `crashes` are their times within the window,
    `question` is what the first attempt was planned by. `fallback` is what served and ran out of memory, while
    something safer is tried; `unanswered` are the settings of which it was told that nothing is safer.
    """

    policy: Policy
    climb: Climb
    situation: Situation
    attempt: int = 1
    climbing: int = 1
    crashes: tuple[float, ...] = ()
    question: Question | None = None
    fallback: Climb | None = None
    unanswered: Settings | None = None


@dataclass(frozen=True, slots=True)
class Suspect:
    """A cause that was seen while the engine still lived."""

    failure: Failure
    effective: Effective
    at: float


class Force(Enum):
    """How far stopping has gone."""

    DRAIN = "drain"
    POLITE = "SIGTERM"
    KILL = "SIGKILL"
    RELEASE = "memory"


@dataclass(frozen=True, slots=True)
class ToClimb:
    """Stopping a start that failed (or an engine that ran out of memory), to try the next settings."""

    suspect: Suspect
    seconds: float
    served: bool = False


@dataclass(frozen=True, slots=True)
class ToRestart:
    """Stopping what is left of a crashed engine, to start it again after a wait."""

    failure: Failure
    wait_s: float


@dataclass(frozen=True, slots=True)
class ToEnd:
    """Stopping for good."""

    reason: str
    exit_code: ExitCode


Aim = ToClimb | ToRestart | ToEnd


@dataclass(frozen=True, slots=True)
class Idle:
    """Nothing has been started."""

    run: Run
    deadline: float | None = None


@dataclass(frozen=True, slots=True)
class Starting:
    """An engine is coming up. `absent_s` is how long nobody looked, which is not counted against it."""

    run: Run
    since: float
    stirred: float
    suspect: Suspect | None = None
    absent_s: float = 0.0

    @property
    def deadline(self) -> float:
        """The earliest moment at which something must be decided."""
        policy = self.run.policy
        times = [self.overdue, self.stirred + policy.stall_timeout_s]
        if self.suspect is not None:
            times.append(self.suspect.at + policy.settle_s)
        return min(times)

    @property
    def overdue(self) -> float:
        """When the start has taken too long."""
        return self.since + self.absent_s + self.run.policy.start_timeout_s


@dataclass(frozen=True, slots=True)
class Ready:
    """The engine serves."""

    run: Run
    since: float
    suspect: Suspect | None = None

    @property
    def deadline(self) -> float | None:
        """When a cause seen in service is acted upon, if any was."""
        return None if self.suspect is None else self.suspect.at + self.run.policy.serving_settle_s


@dataclass(frozen=True, slots=True)
class Stopping:
    """An engine's tree is being ended."""

    run: Run
    aim: Aim
    force: Force
    deadline: float


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waiting before a crashed engine is started again."""

    run: Run
    failure: Failure
    wait_s: float
    deadline: float


@dataclass(frozen=True, slots=True)
class Stopped:
    """The end, but for an exhausted ladder."""

    exit_code: ExitCode
    deadline: float | None = None


@dataclass(frozen=True, slots=True)
class ExhaustedEnd:
    """The end of a ladder that has no answer left."""

    exit_code: ExitCode = ExitCode.NOTHING_FITS
    deadline: float | None = None


State = Idle | Starting | Ready | Stopping | Backoff | Stopped | ExhaustedEnd

MOVES: Mapping[str, tuple[str, ...]] = {
    "Idle": ("Starting", "Stopped"),
    "Starting": ("Ready", "Stopping", "Stopped"),
    "Ready": ("Stopping",),
    "Stopping": ("Starting", "Backoff", "Stopped", "ExhaustedEnd"),
    "Backoff": ("Starting", "Stopped"),
    "Stopped": (),
    "ExhaustedEnd": (),
}
"""Which phase may follow which; a property test holds `advance` to it and docs/ draws it."""
