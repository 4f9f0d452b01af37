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
- No start follows before the engine's memory was waited for, after a crash as after a failed start.
- Ties: events of an earlier attempt are dropped; in Stopping only TreeGone, signals and the deadline count, so a
  late cause, exit or probe changes nothing; the suspect that was seen wins over the exit that follows it. A
  launch that the host refused just after a signal is a tree that is gone.

Phases and moves (docs/how-it-works.md draws them from `MOVES`):
IDLE launches; STARTING becomes READY, or STOPPING; READY becomes STOPPING; STOPPING becomes STARTING (a step),
BACKOFF (a crash), STOPPED or EXHAUSTED; BACKOFF becomes STARTING or STOPPED.
"""

from __future__ import annotations

import sys
from dataclasses import replace

from autolaunch import record
from autolaunch.errors import ExitCode
from autolaunch.events import (
    AwaitRelease,
    Begun,
    CacheSized,
    CauseSeen,
    DeadlineReached,
    Effect,
    EngineEvent,
    EngineExited,
    Event,
    Finish,
    Launch,
    LaunchFailed,
    MemorySettled,
    ProbeFailed,
    ProbePassed,
    Signal,
    SignalReceived,
    Stirred,
    Tell,
    TreeGone,
)
from autolaunch.failure import Failure, Kind
from autolaunch.figures import Effective
from autolaunch.ladder import Climb, Exhausted, Step, next_step, unmet
from autolaunch.phases import (
    Aim,
    Backoff,
    ExhaustedEnd,
    Force,
    Idle,
    Ready,
    Run,
    Starting,
    State,
    Stopped,
    Stopping,
    Suspect,
    ToClimb,
    ToEnd,
    ToRestart,
)
from autolaunch.verdict import (
    STALL_TIMEOUT,
    START_TIMEOUT,
    died_in_service,
    early_exit,
    exit_code_of,
    refused,
    summary,
)

if sys.version_info >= (3, 11):
    from typing import assert_never
else:
    from typing_extensions import assert_never

Move = tuple[State, tuple[Effect, ...]]


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
    return Starting(run, now, now), (Launch(run.attempt, run.climb.settings, run.climb.rung, run.climbing),)


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
            return _fail(state, state.suspect or Suspect(early_exit(failure, code), effective, now), now)
        case ProbeFailed(_, reason, effective):
            return _fail(state, state.suspect or Suspect(refused(reason), effective, now), now)
        case SignalReceived(name):
            return _stop(run, ToEnd(name, ExitCode.STOPPED), run.policy.start_grace_s, now)
        case DeadlineReached():
            return _overdue(state, now)
        case LaunchFailed(_, reason):
            return _end(reason, ExitCode.HOST_AT_FAULT)
        case TreeGone() | MemorySettled() | Begun():
            return state, ()  # the exit is on its way; nothing is released before it; one begin is enough
        case _:
            assert_never(event)


def _overdue(state: Starting, now: float) -> Move:
    policy = state.run.policy
    if state.suspect is not None and now >= state.suspect.at + policy.settle_s:
        return _fail(state, state.suspect, now)
    if now >= state.since + policy.start_timeout_s:
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
    return _stop(state.run, ToClimb(suspect, now - state.since), policy.failed_grace_s, now)


def _stop(run: Run, aim: Aim, grace_s: float, now: float) -> Move:
    return Stopping(run, aim, Force.POLITE, now + grace_s), (Signal(run.attempt, Force.POLITE),)


def _come_up(state: Starting, effective: Effective, now: float) -> Move:
    run = replace(state.run, climbing=0)
    shown = summary(effective)
    policy, seconds = run.policy, now - state.since
    told = Tell(record.CameUp(run.attempt, seconds, run.climb.settings, shown, policy.url, policy.prove))
    if run.policy.check:
        stopping, effects = _stop(run, ToEnd("check", ExitCode.STOPPED), run.policy.stop_grace_s, now)
        return stopping, (told, *effects)
    return Ready(run, now), (told,)


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
            return _die(state, state.suspect or Suspect(died_in_service(failure, code), effective, now), now)
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
        case EngineExited():
            if state.force is not Force.POLITE:
                return state, ()  # a killed tree takes its time to be unmapped; memory its own to come back
            # what is left of the tree has lost its purpose: it gets the short grace
            return replace(state, deadline=min(state.deadline, now + run.policy.failed_grace_s)), ()
        case TreeGone(_, survivors):
            if survivors:
                reason = f"processes outlived SIGKILL: {', '.join(map(str, survivors))}"
                return _end(reason, ExitCode.HOST_AT_FAULT)
            return _gone(state, now)
        case MemorySettled(_, device):
            if state.force is not Force.RELEASE:
                return state, ()
            situation = replace(run.situation, device=device)
            return _go_on(replace(run, situation=situation), state.aim, now)
        case LaunchFailed():
            # only a wish to stop can come before a refusal: nothing was started, so nothing is waited for
            return _go_on(run, state.aim, now) if isinstance(state.aim, ToEnd) else (state, ())
        case Begun() | Stirred() | CacheSized() | CauseSeen() | ProbePassed() | ProbeFailed():
            return state, ()
        case _:
            assert_never(event)


def _hurry(state: Stopping, name: str, now: float) -> Move:
    """A signal while stopping: the first makes it the end as asked, the next skips the grace."""
    if state.force is Force.RELEASE:
        return _end(name, ExitCode.STOPPED)
    if not isinstance(state.aim, ToEnd) or state.aim.exit_code is not ExitCode.STOPPED:
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
    return _go_on(run, state.aim, now)  # nobody told about the memory: go on with what was measured last


def _go_on(run: Run, aim: Aim, now: float) -> Move:
    """Do what the engine was stopped for, now that it is gone and its memory had its time to return."""
    match aim:
        case ToEnd(reason, exit_code):
            return _end(reason, exit_code)
        case ToRestart(failure, wait_s):
            return Backoff(run, failure, wait_s, now + wait_s), ()
        case ToClimb():
            return _climb(run, aim, now)
        case _:
            assert_never(aim)


def _gone(state: Stopping, now: float) -> Move:
    """Go on once no process is left: wait for the memory where another start may follow."""
    run, aim = state.run, state.aim
    if isinstance(aim, ToEnd):
        return _go_on(run, aim, now)
    told: tuple[Effect, ...] = ()
    if isinstance(aim, ToClimb):
        failure = aim.suspect.failure
        if not aim.served:
            told = (Tell(record.Failed(run.attempt, aim.seconds, now - aim.suspect.at, failure)),)
        if not _answerable(run.climb, failure):
            end, effects = _give_up(run, failure, next_step(run.climb, failure, aim.suspect.effective, run.situation))
            return end, (*told, *effects)
    waiting = replace(state, force=Force.RELEASE, deadline=now + run.policy.kill_wait_s)
    return waiting, (*told, AwaitRelease(run.attempt))


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
    return _end(str(failure.kind), exit_code_of(failure, run.policy.options))


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
