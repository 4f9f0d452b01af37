"""What happens to a run and what is done about it: events are facts in the past tense, effects are orders.

Both are closed unions. An engine's event carries its attempt's number, so that a late one is known as such.
"""

from __future__ import annotations

from dataclasses import dataclass

from autolaunch import record
from autolaunch.errors import ExitCode
from autolaunch.facts import Device
from autolaunch.failure import Failure
from autolaunch.figures import Effective
from autolaunch.phases import Force
from autolaunch.settings import Settings


@dataclass(frozen=True, slots=True)
class Begun:
    """The run was asked to start."""


@dataclass(frozen=True, slots=True)
class LaunchFailed:
    """The engine could not be started at all: the host is at fault."""

    attempt: int
    reason: str


@dataclass(frozen=True, slots=True)
class CardFreed:
    """Another supervisor was starting on the same card; the launch that waited for it may be repeated."""

    attempt: int


@dataclass(frozen=True, slots=True)
class Stirred:
    """The engine printed something or used processor time or moved data."""

    attempt: int


@dataclass(frozen=True, slots=True)
class CacheSized:
    """The engine said how large its KV cache is."""

    attempt: int
    effective: Effective


@dataclass(frozen=True, slots=True)
class CauseSeen:
    """The output named a cause of failure."""

    attempt: int
    failure: Failure
    effective: Effective
    at: float


@dataclass(frozen=True, slots=True)
class EngineExited:
    """The process that was started ended; others of its tree may live. `failure` judges the whole output."""

    attempt: int
    code: int
    failure: Failure
    effective: Effective


@dataclass(frozen=True, slots=True)
class ProbePassed:
    """The engine answered a real request."""

    attempt: int
    effective: Effective


@dataclass(frozen=True, slots=True)
class ProbeFailed:
    """The engine is healthy and refuses the real request."""

    attempt: int
    reason: str
    effective: Effective


@dataclass(frozen=True, slots=True)
class EngineHung:
    """An engine that serves stands still and answers nothing, although its processes live."""

    attempt: int
    reason: str
    effective: Effective


@dataclass(frozen=True, slots=True)
class Drained:
    """The engine finished the requests that it had, or nobody can tell how many it has."""

    attempt: int


@dataclass(frozen=True, slots=True)
class TreeGone:
    """No process of the engine is left but the `survivors` of SIGKILL; `left` is a container's end that failed."""

    attempt: int
    survivors: tuple[int, ...] = ()
    left: str = ""


@dataclass(frozen=True, slots=True)
class MemorySettled:
    """The engine's memory has come back, or has been waited for long enough."""

    attempt: int
    device: Device


@dataclass(frozen=True, slots=True)
class SignalReceived:
    """Somebody asked the supervisor to stop."""

    name: str


@dataclass(frozen=True, slots=True)
class ReloadAsked:
    """Somebody asked to read anew what can be read anew."""


@dataclass(frozen=True, slots=True)
class DeadlineReached:
    """The state's deadline has passed."""


@dataclass(frozen=True, slots=True)
class Overslept:
    """For so many seconds this process was not run itself: nothing that happened meanwhile was taken in."""

    seconds: float


EngineEvent = (
    LaunchFailed
    | CardFreed
    | Stirred
    | CacheSized
    | CauseSeen
    | EngineExited
    | ProbePassed
    | ProbeFailed
    | EngineHung
    | Drained
    | TreeGone
    | MemorySettled
)
PhaseEvent = Begun | SignalReceived | DeadlineReached | EngineEvent
Event = PhaseEvent | ReloadAsked | Overslept


@dataclass(frozen=True, slots=True)
class Launch:
    """Start an engine; `climbing` counts the attempts since one last served."""

    attempt: int
    settings: Settings
    rung: str
    climbing: int = 1


@dataclass(frozen=True, slots=True)
class Signal:
    """Signal the whole tree of an engine."""

    attempt: int
    force: Force


@dataclass(frozen=True, slots=True)
class AwaitRelease:
    """Wait, within bounds, until the memory of an engine that is gone is free; then tell."""

    attempt: int


@dataclass(frozen=True, slots=True)
class AwaitDrain:
    """Wait until the engine has no request left; then tell."""

    attempt: int


@dataclass(frozen=True, slots=True)
class Tell:
    """Record an event and show it."""

    event: record.Event


@dataclass(frozen=True, slots=True)
class Remember:
    """Keep how a start ended for later runs.

    `failure` None is an engine that came up; `device` as measured before the start; `in_service` is a failure after
    the engine served.
    """

    settings: Settings
    failure: Failure | None
    effective: Effective
    device: Device
    seconds: float
    in_service: bool = False


@dataclass(frozen=True, slots=True)
class NoteCrash:
    """Count a crash in service beyond this run: a restarted supervisor must not begin at none."""


@dataclass(frozen=True, slots=True)
class Reload:
    """Open anew what is written to, and say what is not read anew."""


@dataclass(frozen=True, slots=True)
class Finish:
    """Leave with this exit code."""

    exit_code: ExitCode


Effect = Launch | Signal | AwaitDrain | AwaitRelease | Tell | Remember | NoteCrash | Reload | Finish
