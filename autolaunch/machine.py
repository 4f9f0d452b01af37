"""The supervisor as a total state machine: `advance(state, event, now)` gives the next state and its effects.

The rules, in words:

- At most one engine lives. The next is launched only after the last one's whole tree is gone and its memory
  was given time to return (Stopping leaves by TreeGone, then MemorySettled).
- A start fails at its decisive line, not at its exit: the line makes a suspect, a short settle lets other ranks
  name an earlier cause, then the tree is stopped. An exit, a passed start timeout and a stall end it as well.
- An engine that never came up climbs the ladder. One that served and ran out of memory climbs too; one that
  served and crashed is started again with the same settings, after a wait, a limited number of times. So is one that
  ran out of memory where the ladder has nothing safer, or nothing safer that comes up: what serves is not given up.
- A wish to read anew changes no phase. A time in which the supervisor itself stood still puts its deadlines off:
  it is no engine's fault, and what happened meanwhile is yet to be taken in.
- A wish to stop beats everything: whatever Stopping was for becomes the end with exit code 0. An engine that serves
  first gets time to finish its requests (drain), then the polite signal; the second signal skips both.
- No start follows before the engine's memory was waited for, after a crash as after a failed start.
- Ties: events of an earlier attempt are dropped; in Stopping only TreeGone, signals and the deadline count, so a
  late cause, exit or probe changes nothing; the suspect that was seen wins over the exit that follows it. A
  launch that the host refused just after a signal is a tree that is gone.

Phases and moves (docs/how-it-works.md draws them from `MOVES`):
IDLE launches; STARTING becomes READY, or STOPPING; READY becomes STOPPING; STOPPING becomes STARTING (a step),
BACKOFF (a crash, or no safer settings), STOPPED or EXHAUSTED; BACKOFF becomes STARTING or STOPPED.
"""

from __future__ import annotations

import sys
from dataclasses import replace

from autolaunch import record
from autolaunch.errors import ExitCode
from autolaunch.events import (
    Begun,
    CacheSized,
    CardFreed,
    CauseSeen,
    DeadlineReached,
    Drained,
    EngineEvent,
    EngineExited,
    EngineHung,
    Event,
    LaunchFailed,
    MemorySettled,
    NoteCrash,
    Overslept,
    PhaseEvent,
    ProbeFailed,
    ProbePassed,
    Reload,
    ReloadAsked,
    Remember,
    SignalReceived,
    Stirred,
    Tell,
    TreeGone,
)
from autolaunch.failure import Failure, Kind
from autolaunch.figures import Effective
from autolaunch.moves import Move, drain, end, launch, remembered, stop
from autolaunch.phases import (
    Aim,
    Backoff,
    ExhaustedEnd,
    Idle,
    Ready,
    Starting,
    State,
    Stopped,
    Stopping,
    Suspect,
    ToClimb,
    ToEnd,
    ToRestart,
)
from autolaunch.stopping import stopping
from autolaunch.unmet import unmet
from autolaunch.verdict import (
    STALL_TIMEOUT,
    START_TIMEOUT,
    died_in_service,
    early_exit,
    hung,
    refused,
    short_of_host_memory,
    summary,
)

if sys.version_info >= (3, 11):
    from typing import assert_never
else:
    from typing_extensions import assert_never


def advance(state: State, event: Event, now: float) -> Move:
    """Return the state after an event and the effects to carry out, in order. Total and pure; `now` in seconds."""
    if isinstance(event, ReloadAsked):
        return state, () if isinstance(state, (Stopped, ExhaustedEnd)) else (Reload(),)
    if isinstance(event, Overslept):
        return _put_off(state, event.seconds), ()
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
            return stopping(state, event, now)
        case Backoff():
            return _backoff(state, event, now)
        case Stopped() | ExhaustedEnd():
            return state, ()
        case _:
            assert_never(state)


def _is_current(state: State, attempt: int) -> bool:
    return isinstance(state, (Starting, Ready, Stopping)) and state.run.attempt == attempt


def _put_off(state: State, seconds: float) -> State:
    if isinstance(state, Starting):
        return replace(state, stirred=state.stirred + seconds, absent_s=state.absent_s + seconds)
    return replace(state, deadline=state.deadline + seconds) if isinstance(state, Stopping) else state


def _idle(state: Idle, event: PhaseEvent, now: float) -> Move:
    match event:
        case Begun():
            return launch(state.run, now)
        case SignalReceived(name):
            return end(name, ExitCode.STOPPED)
        case _:
            return state, ()


def _starting(state: Starting, event: PhaseEvent, now: float) -> Move:
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
            return _fail(state, state.suspect or Suspect(early_exit(failure, code), effective, now), now)
        case ProbeFailed(_, reason, effective):
            return _fail(state, state.suspect or Suspect(refused(reason), effective, now), now)
        case SignalReceived(name):
            return stop(run, ToEnd(name, ExitCode.STOPPED), run.policy.start_grace_s, now)
        case DeadlineReached():
            return _overdue(state, now)
        case LaunchFailed(_, reason):
            return end(reason, ExitCode.HOST_AT_FAULT)
        case CardFreed():
            return launch(run, now)
        case TreeGone() | MemorySettled() | Begun() | EngineHung() | Drained():
            return state, ()  # the exit is on its way; nothing is released before it; one begin is enough
        case _:
            assert_never(event)


def _overdue(state: Starting, now: float) -> Move:
    policy = state.run.policy
    if state.suspect is not None and now >= state.suspect.at + policy.settle_s:
        return _fail(state, state.suspect, now)
    if now >= state.overdue:
        line = f"not ready after {now - state.since:.0f} s ({START_TIMEOUT} {policy.start_timeout_s:g} s)"
    elif now >= state.stirred + policy.stall_timeout_s:
        silent = now - state.stirred
        allowed = f"{STALL_TIMEOUT} {policy.stall_timeout_s:g} s"
        line = f"no output, no processor time and no data moved for {silent:.0f} s ({allowed})"
    else:
        return state, ()
    return _fail(state, Suspect(Failure(Kind.UNKNOWN, line=line), Effective(), now), now)


def _fail(state: Starting, suspect: Suspect, now: float) -> Move:
    policy = state.run.policy
    return stop(state.run, ToClimb(suspect, now - state.since), policy.failed_grace_s, now)


def _come_up(state: Starting, effective: Effective, now: float) -> Move:
    run = replace(state.run, climbing=0, fallback=None)
    shown = summary(effective)
    policy, seconds = run.policy, now - state.since
    told = (
        Tell(record.CameUp(run.attempt, seconds, run.climb.settings, shown, policy.url, policy.prove)),
        Remember(run.climb.settings, None, effective, run.situation.device, seconds),
    )
    if run.policy.check:
        after, effects = stop(run, ToEnd("check", ExitCode.STOPPED), run.policy.stop_grace_s, now)
        return after, (*told, *effects)
    return Ready(run, now), told


def _ready(state: Ready, event: PhaseEvent, now: float) -> Move:
    run = state.run
    match event:
        case SignalReceived(name):
            return drain(run, ToEnd(name, ExitCode.STOPPED), now)
        case CauseSeen(_, failure, effective, at):
            if not failure.memory or state.suspect is not None:
                return state, ()  # a crash shows in the exit; a failed request is not the engine's end
            if failure.kind is Kind.HOST_OOM:
                failure = short_of_host_memory(failure)
            return replace(state, suspect=Suspect(failure, effective, at)), ()
        case EngineExited(_, code, failure, effective):
            return _die(state, state.suspect or Suspect(died_in_service(failure, code), effective, now), now)
        case EngineHung(_, reason, effective):
            return _die(state, state.suspect or Suspect(hung(reason), effective, now), now)
        case DeadlineReached():
            return (state, ()) if state.suspect is None else _die(state, state.suspect, now)
        case (
            Begun()
            | LaunchFailed()
            | CardFreed()
            | Stirred()
            | CacheSized()
            | ProbePassed()
            | ProbeFailed()
            | Drained()
            | TreeGone()
            | MemorySettled()
        ):
            return state, ()
        case _:
            assert_never(event)


def _die(state: Ready, suspect: Suspect, now: float) -> Move:
    run, policy = state.run, state.run.policy
    recent = tuple(at for at in run.crashes if now - at < policy.restart_window_s)
    run = replace(run, crashes=(*recent, now))
    if len(recent) >= policy.max_restarts:
        reason = f"{len(recent) + 1} crashes within {policy.restart_window_s:g} s"
        crashed = Tell(record.Crashed(suspect.failure, 0.0))
        told = (remembered(run, suspect, now - state.since, served=True),) if suspect.failure.memory else ()
        after, effects = stop(run, ToEnd(reason, ExitCode.RESTARTS_SPENT), policy.failed_grace_s, now)
        return after, (NoteCrash(), crashed, *told, *effects)
    aim: Aim
    if suspect.failure.memory:
        aim = ToClimb(suspect, now - state.since, served=True)
    else:
        aim = ToRestart(suspect.failure, policy.restart_wait(len(recent)))
    wait_s = aim.wait_s if isinstance(aim, ToRestart) else 0.0
    after, effects = stop(run, aim, policy.failed_grace_s, now)
    return after, (NoteCrash(), Tell(record.Crashed(suspect.failure, wait_s)), *effects)


def _backoff(state: Backoff, event: PhaseEvent, now: float) -> Move:
    match event:
        case DeadlineReached():
            run = replace(state.run, attempt=state.run.attempt + 1, climbing=1)
            after, effects = launch(run, now)
            return after, (Tell(record.Restarting(state.failure, state.wait_s)), *effects)
        case SignalReceived(name):
            return end(name, ExitCode.STOPPED)
        case _:
            return state, ()
