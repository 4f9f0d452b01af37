"""The supervisor as a total state machine: `advance(state, event, now)` gives the next state and its effects.

The rules, in words:

- At most one engine lives. The next is launched only after the last one's whole tree is gone and its memory
  was given time to return (Stopping leaves by TreeGone, then MemorySettled).
- A start fails at its decisive line, not at its exit: the line makes a suspect, a short settle lets other ranks
  name an earlier cause, then the tree is stopped. An exit, a passed start timeout and a stall end it as well.
- An engine that never came up climbs the ladder. One that served and ran out of memory climbs too; one that
  served and crashed is started again with the same settings, after a wait, a limited number of times.
- A wish to stop beats everything: whatever Stopping was for becomes the end with exit code 0. The second signal
  skips the grace.
- Ties: events of an earlier attempt are dropped; in Stopping only TreeGone, signals and the deadline count, so a
  late cause, exit or probe changes nothing; the suspect that was seen wins over the exit that follows it.

Phases and moves (docs/how-it-works.md draws them from `MOVES`):
IDLE launches; STARTING becomes READY, or STOPPING; READY becomes STOPPING; STOPPING becomes STARTING (a step),
BACKOFF (a crash), STOPPED or EXHAUSTED; BACKOFF becomes STARTING or STOPPED.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from autolaunch import record
from autolaunch.errors import ExitCode
from autolaunch.facts import Device, Situation
from autolaunch.failure import Failure, Kind, Phase
from autolaunch.figures import Effective
from autolaunch.ladder import Climb, Exhausted, Step, next_step, unmet
from autolaunch.settings import Settings

if sys.version_info >= (3, 11):
    from typing import assert_never
else:
    from typing_extensions import assert_never


@dataclass(frozen=True, slots=True)
class Policy:
    """The bounds of a run; seconds throughout.

    `pinned_words` are the options the user gave to the engine: a configuration error that names one of them is
    the user's to mend.
    """

    max_attempts: int = 8
    start_timeout_s: float = 3600.0
    stall_timeout_s: float = 300.0
    settle_s: float = 0.25
    serving_settle_s: float = 3.0
    failed_grace_s: float = 0.4
    stop_grace_s: float = 20.0
    kill_wait_s: float = 20.0
    max_restarts: int = 5
    restart_window_s: float = 600.0
    restart_wait_s: float = 1.0
    restart_wait_most_s: float = 60.0
    check: bool = False
    url: str = ""
    pinned_words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """What every phase keeps: the bounds, the climb, the attempt's number and the past crashes.

    `climbing` counts the attempts since the engine last served; `crashes` are their times within the window.
    """

    policy: Policy
    climb: Climb
    situation: Situation
    attempt: int = 1
    climbing: int = 1
    crashes: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Suspect:
    """A cause that was seen while the engine still lived."""

    failure: Failure
    effective: Effective
    at: float


class Force(Enum):
    """How far stopping has gone."""

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
    """An engine is coming up."""

    run: Run
    since: float
    stirred: float
    suspect: Suspect | None = None

    @property
    def deadline(self) -> float:
        """The earliest moment at which something must be decided."""
        policy = self.run.policy
        times = [self.since + policy.start_timeout_s, self.stirred + policy.stall_timeout_s]
        if self.suspect is not None:
            times.append(self.suspect.at + policy.settle_s)
        return min(times)


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


# Events: what happened. Those of an engine carry its attempt's number.


@dataclass(frozen=True, slots=True)
class Begun:
    """The run was asked to start."""


@dataclass(frozen=True, slots=True)
class LaunchFailed:
    """The engine could not be started at all: the host is at fault."""

    attempt: int
    reason: str


@dataclass(frozen=True, slots=True)
class Stirred:
    """The engine printed something or used processor time."""

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
class TreeGone:
    """No process of the engine is left; `survivors` are those that outlived SIGKILL."""

    attempt: int
    survivors: tuple[int, ...] = ()


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
class DeadlineReached:
    """The state's deadline has passed."""


EngineEvent = (
    LaunchFailed
    | Stirred
    | CacheSized
    | CauseSeen
    | EngineExited
    | ProbePassed
    | ProbeFailed
    | TreeGone
    | MemorySettled
)
Event = Begun | SignalReceived | DeadlineReached | EngineEvent


# Effects: what is to be done.


@dataclass(frozen=True, slots=True)
class Launch:
    """Start an engine."""

    attempt: int
    settings: Settings
    rung: str


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
class Tell:
    """Record an event and show it."""

    event: record.Event


@dataclass(frozen=True, slots=True)
class Finish:
    """Leave with this exit code."""

    exit_code: ExitCode


Effect = Launch | Signal | AwaitRelease | Tell | Finish
Move = tuple[State, tuple[Effect, ...]]

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


def advance(state: State, event: Event, now: float) -> Move:
    """Return the state after an event and the effects to carry out, in order. Total and pure; `now` in seconds."""
    if isinstance(event, EngineEvent) and not _is_current(state, event.attempt):
        return state, ()
    if isinstance(event, DeadlineReached) and (state.deadline is None or now < state.deadline):
        return state, ()
    match state:
        case Idle():
            return _idle(state, event, now)
        case Starting():
            return _starting(state, event, now)
        case Ready():
            return _ready(state, event, now)
        case Stopping():
            return _stopping(state, event, now)
        case Backoff():
            return _backoff(state, event, now)
        case Stopped() | ExhaustedEnd():
            return state, ()
        case _:
            assert_never(state)


def _is_current(state: State, attempt: int) -> bool:
    return isinstance(state, (Starting, Ready, Stopping)) and state.run.attempt == attempt


def _launch(run: Run, now: float) -> Move:
    return Starting(run, now, now), (Launch(run.attempt, run.climb.settings, run.climb.rung),)


def _end(reason: str, exit_code: ExitCode) -> Move:
    return Stopped(exit_code), (Tell(record.Ended(reason, exit_code)), Finish(exit_code))


def _idle(state: Idle, event: Event, now: float) -> Move:
    match event:
        case Begun():
            return _launch(state.run, now)
        case SignalReceived(name):
            return _end(name, ExitCode.STOPPED)
        case _:
            return state, ()


def _starting(state: Starting, event: Event, now: float) -> Move:
    run = state.run
    match event:
        case Stirred():
            return replace(state, stirred=now), ()
        case CauseSeen(_, failure, effective, at):
            seen = state.suspect.at if state.suspect else at
            return replace(state, suspect=Suspect(failure, effective, seen)), ()
        case CacheSized(_, effective):
            verdict = None if state.suspect else unmet(run.climb, effective, run.situation)
            return (state, ()) if verdict is None else _fail(state, Suspect(verdict[0], effective, now), now)
        case ProbePassed(_, effective):
            return _come_up(state, effective, now) if state.suspect is None else (state, ())
        case EngineExited(_, code, failure, effective):
            return _fail(state, state.suspect or Suspect(_early_exit(failure, code), effective, now), now)
        case ProbeFailed(_, reason, effective):
            failure = Failure(Kind.OTHER_CRASH, line=reason, phase=Phase.SERVING)
            return _fail(state, state.suspect or Suspect(failure, effective, now), now)
        case SignalReceived(name):
            return _stop(run, ToEnd(name, ExitCode.STOPPED), run.policy.stop_grace_s, now)
        case DeadlineReached():
            return _overdue(state, now)
        case LaunchFailed(_, reason):
            return _end(reason, ExitCode.HOST_AT_FAULT)
        case TreeGone() | MemorySettled() | Begun():
            return state, ()  # the exit is on its way; nothing is released before it; one begin is enough
        case _:
            assert_never(event)


def _early_exit(failure: Failure, code: int) -> Failure:
    if failure.kind not in (Kind.OK, Kind.UNKNOWN):
        return failure
    line = failure.line or f"the engine exited with {code} before it was ready and named no cause"
    return replace(failure, kind=Kind.UNKNOWN, line=line)


def _overdue(state: Starting, now: float) -> Move:
    policy = state.run.policy
    if state.suspect is not None and now >= state.suspect.at + policy.settle_s:
        return _fail(state, state.suspect, now)
    if now >= state.since + policy.start_timeout_s:
        line = f"not ready after {now - state.since:.0f} s (start timeout {policy.start_timeout_s:g} s)"
    elif now >= state.stirred + policy.stall_timeout_s:
        silent = now - state.stirred
        line = f"no output and no processor time for {silent:.0f} s (stall timeout {policy.stall_timeout_s:g} s)"
    else:
        return state, ()
    return _fail(state, Suspect(Failure(Kind.UNKNOWN, line=line), Effective(), now), now)


def _fail(state: Starting, suspect: Suspect, now: float) -> Move:
    policy = state.run.policy
    return _stop(state.run, ToClimb(suspect, now - state.since), policy.failed_grace_s, now)


def _stop(run: Run, aim: Aim, grace_s: float, now: float) -> Move:
    return Stopping(run, aim, Force.POLITE, now + grace_s), (Signal(run.attempt, Force.POLITE),)


def _come_up(state: Starting, effective: Effective, now: float) -> Move:
    run = replace(state.run, climbing=0)
    shown = summary(effective)
    told = Tell(record.CameUp(run.attempt, now - state.since, run.climb.settings, shown, run.policy.url))
    if run.policy.check:
        stopping, effects = _stop(run, ToEnd("check", ExitCode.STOPPED), run.policy.stop_grace_s, now)
        return stopping, (told, *effects)
    return Ready(run, now), (told,)


def summary(effective: Effective) -> dict[str, Any]:
    """Return what the engine said of itself, as the record's `effective`."""
    names = ("max_model_len", "kv_cache_tokens", "available_kv_gib", "weights_gib", "max_concurrency")
    values = {name: getattr(effective, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def _ready(state: Ready, event: Event, now: float) -> Move:
    run = state.run
    match event:
        case SignalReceived(name):
            return _stop(run, ToEnd(name, ExitCode.STOPPED), run.policy.stop_grace_s, now)
        case CauseSeen(_, failure, effective, at):
            if not failure.memory or state.suspect is not None:
                return state, ()  # a crash shows in the exit; a failed request is not the engine's end
            return replace(state, suspect=Suspect(failure, effective, at)), ()
        case EngineExited(_, code, failure, effective):
            return _die(state, state.suspect or Suspect(_died(failure, code), effective, now), now)
        case DeadlineReached():
            return (state, ()) if state.suspect is None else _die(state, state.suspect, now)
        case (
            Begun()
            | LaunchFailed()
            | Stirred()
            | CacheSized()
            | ProbePassed()
            | ProbeFailed()
            | TreeGone()
            | MemorySettled()
        ):
            return state, ()
        case _:
            assert_never(event)


def _died(failure: Failure, code: int) -> Failure:
    if failure.kind not in (Kind.OK, Kind.UNKNOWN):
        return failure
    return Failure(
        Kind.UNKNOWN, line=f"the engine exited with {code} in service and named no cause", phase=Phase.SERVING
    )


def _die(state: Ready, suspect: Suspect, now: float) -> Move:
    run, policy = state.run, state.run.policy
    recent = tuple(at for at in run.crashes if now - at < policy.restart_window_s)
    run = replace(run, crashes=(*recent, now))
    if len(recent) >= policy.max_restarts:
        reason = f"{len(recent) + 1} crashes within {policy.restart_window_s:g} s"
        crashed = Tell(record.Crashed(suspect.failure, 0.0))
        stopping, effects = _stop(run, ToEnd(reason, ExitCode.RESTARTS_SPENT), policy.failed_grace_s, now)
        return stopping, (crashed, *effects)
    aim: Aim
    if suspect.failure.memory:
        aim = ToClimb(suspect, now - state.since, served=True)
    else:
        aim = ToRestart(suspect.failure, min(policy.restart_wait_s * 2 ** len(recent), policy.restart_wait_most_s))
    wait_s = aim.wait_s if isinstance(aim, ToRestart) else 0.0
    stopping, effects = _stop(run, aim, policy.failed_grace_s, now)
    return stopping, (Tell(record.Crashed(suspect.failure, wait_s)), *effects)


def _stopping(state: Stopping, event: Event, now: float) -> Move:
    run = state.run
    match event:
        case SignalReceived(name):
            return _hurry(state, name, now)
        case DeadlineReached():
            return _force(state, now)
        case EngineExited():  # what is left of the tree has lost its purpose: it gets the short grace
            return replace(state, deadline=min(state.deadline, now + run.policy.failed_grace_s)), ()
        case TreeGone(_, survivors):
            if survivors:
                reason = f"processes outlived SIGKILL: {', '.join(map(str, survivors))}"
                return _end(reason, ExitCode.HOST_AT_FAULT)
            return _gone(state, now)
        case MemorySettled(_, device):
            if state.force is not Force.RELEASE or not isinstance(state.aim, ToClimb):
                return state, ()
            situation = replace(run.situation, device=device)
            return _climb(replace(run, situation=situation), state.aim, now)
        case Begun() | LaunchFailed() | Stirred() | CacheSized() | CauseSeen() | ProbePassed() | ProbeFailed():
            return state, ()
        case _:
            assert_never(event)


def _hurry(state: Stopping, name: str, now: float) -> Move:
    """A signal while stopping: the first makes it the end, the next skips the grace."""
    if state.force is Force.RELEASE:
        return _end(name, ExitCode.STOPPED)
    if not isinstance(state.aim, ToEnd):
        return replace(state, aim=ToEnd(name, ExitCode.STOPPED)), ()
    if state.force is Force.KILL:
        return state, ()
    return _force(state, now)


def _force(state: Stopping, now: float) -> Move:
    run = state.run
    if state.force is Force.POLITE:
        deadline = now + run.policy.kill_wait_s
        return replace(state, force=Force.KILL, deadline=deadline), (Signal(run.attempt, Force.KILL),)
    if state.force is Force.KILL:
        return _end("the engine's processes could not be ended with SIGKILL", ExitCode.HOST_AT_FAULT)
    if isinstance(state.aim, ToClimb):  # nobody told about the memory: go on with what was measured last
        return _climb(run, state.aim, now)
    return state, ()


def _gone(state: Stopping, now: float) -> Move:
    run, aim = state.run, state.aim
    match aim:
        case ToEnd(reason, exit_code):
            return _end(reason, exit_code)
        case ToRestart(failure, wait_s):
            return Backoff(run, failure, wait_s, now + wait_s), ()
        case ToClimb(suspect, seconds, served):
            failure = suspect.failure
            told: tuple[Effect, ...] = ()
            if not served:
                told = (Tell(record.Failed(run.attempt, seconds, now - suspect.at, failure)),)
            if not _answerable(run.climb, failure):
                state_after, effects = _give_up(
                    run, failure, next_step(run.climb, failure, suspect.effective, run.situation)
                )
                return state_after, (*told, *effects)
            waiting = replace(state, force=Force.RELEASE, deadline=now + run.policy.kill_wait_s)
            return waiting, (*told, AwaitRelease(run.attempt))
        case _:
            assert_never(aim)


def _answerable(climb: Climb, failure: Failure) -> bool:
    return failure.kind is Kind.PROFILING_RACE or any(failure.kind in rung.answers for rung in climb.strategy.rungs)


def _climb(run: Run, aim: ToClimb, now: float) -> Move:
    failure = aim.suspect.failure
    answer = next_step(run.climb, failure, aim.suspect.effective, run.situation)
    if isinstance(answer, Exhausted):
        return _give_up(run, failure, answer)
    if run.climbing >= run.policy.max_attempts:
        why = f"{run.climbing} of at most {run.policy.max_attempts} attempts are used"
        next_one = (
            f"allow more with --max-attempts; the next would be {answer.rung}: {', '.join(map(str, answer.changes))}"
        )
        return _give_up(run, failure, Exhausted(why, (next_one,)))
    run = replace(run, climb=answer.climb, attempt=run.attempt + 1, climbing=run.climbing + 1)
    state, effects = _launch(run, now)
    return state, (Tell(record.Stepped(answer.rung, answer.why, answer.changes)), *effects)


def _give_up(run: Run, failure: Failure, answer: Step | Exhausted) -> Move:
    if failure.memory:
        why, closest = (answer.why, answer.closest) if isinstance(answer, Exhausted) else (str(failure.kind), ())
        told = (Tell(record.Gave(why, closest)), Tell(record.Ended("exhausted", ExitCode.NOTHING_FITS)))
        return ExhaustedEnd(), (*told, Finish(ExitCode.NOTHING_FITS))
    return _end(str(failure.kind), exit_code_of(failure, run.policy.pinned_words))


def exit_code_of(failure: Failure, pinned_words: tuple[str, ...]) -> ExitCode:
    """Return whose fault a failure without a cure is.

    A model that does not exist, or a configuration error that names an option the user gave, is the user's; a
    port in use is the host's; memory is NOTHING_FITS; all else is the engine's.
    """
    if failure.memory:
        return ExitCode.NOTHING_FITS
    if failure.kind is Kind.PORT_IN_USE:
        return ExitCode.HOST_AT_FAULT
    if failure.kind is Kind.MODEL_NOT_FOUND:
        return ExitCode.USAGE
    if failure.kind is Kind.CONFIG_ERROR:
        line = failure.line.replace("_", "-")
        if any(word in line for word in pinned_words):
            return ExitCode.USAGE
    return ExitCode.ENGINE_FAILED


def _backoff(state: Backoff, event: Event, now: float) -> Move:
    match event:
        case DeadlineReached():
            run = replace(state.run, attempt=state.run.attempt + 1, climbing=1)
            after, effects = _launch(run, now)
            return after, (Tell(record.Restarting(state.failure, state.wait_s)), *effects)
        case SignalReceived(name):
            return _end(name, ExitCode.STOPPED)
        case _:
            return state, ()
