"""The phase between an engine's end and what it was stopped for: waiting for its tree and its memory, then going on.

Pure; part of `machine`, whose rules it follows. Only TreeGone, MemorySettled, signals and the deadline count here.
"""

from __future__ import annotations

import sys
from dataclasses import replace

from autolaunch import record
from autolaunch.climb import Climb, Exhausted, Step
from autolaunch.errors import ExitCode
from autolaunch.events import (
    AwaitRelease,
    Begun,
    CacheSized,
    CardFreed,
    CauseSeen,
    DeadlineReached,
    Drained,
    Effect,
    EngineExited,
    EngineHung,
    Finish,
    LaunchFailed,
    MemorySettled,
    PhaseEvent,
    ProbeFailed,
    ProbePassed,
    Signal,
    SignalReceived,
    Stirred,
    Tell,
    TreeGone,
)
from autolaunch.failure import Failure, Kind
from autolaunch.ladder import next_step, retracted
from autolaunch.moves import Move, end, launch, remembered, stop
from autolaunch.phases import Aim, Backoff, ExhaustedEnd, Force, Run, Stopping, ToClimb, ToEnd, ToRestart
from autolaunch.replan import replanned
from autolaunch.settings import changes
from autolaunch.verdict import exit_code_of

if sys.version_info >= (3, 11):
    from typing import assert_never
else:
    from typing_extensions import assert_never

AGAIN = "again"
RETURN = "return"
"""The steps of a service that ran out of memory where nothing safer is left: the same, or what served before."""


def stopping(state: Stopping, event: PhaseEvent, now: float) -> Move:
    """Return the state after an event while an engine's tree is being ended, and the effects in order."""
    run = state.run
    match event:
        case SignalReceived(name):
            return _hurry(state, name, now)
        case DeadlineReached():
            return _force(state, now)
        case Drained():
            return _force(state, now) if state.force is Force.DRAIN else (state, ())
        case EngineExited():
            if state.force not in (Force.DRAIN, Force.POLITE):
                return state, ()  # a killed tree takes its time to be unmapped; memory its own to come back
            # what is left of the tree has lost its purpose: it gets the short grace
            return replace(state, deadline=min(state.deadline, now + run.policy.failed_grace_s)), ()
        case TreeGone(_, survivors, left):
            if survivors or left:
                reason = left or f"processes outlived SIGKILL: {', '.join(map(str, survivors))}"
                return end(reason, ExitCode.HOST_AT_FAULT)
            return _gone(state, now)
        case MemorySettled(_, device):
            if state.force is not Force.RELEASE:
                return state, ()
            situation = replace(run.situation, device=device)
            return _go_on(replace(run, situation=situation), state.aim, now)
        case LaunchFailed():
            # only a wish to stop can come before a refusal: nothing was started, so nothing is waited for
            return _go_on(run, state.aim, now) if isinstance(state.aim, ToEnd) else (state, ())
        case (
            Begun()
            | CardFreed()
            | Stirred()
            | CacheSized()
            | CauseSeen()
            | ProbePassed()
            | ProbeFailed()
            | EngineHung()
        ):
            return state, ()
        case _:
            assert_never(event)


def _hurry(state: Stopping, name: str, now: float) -> Move:
    """A signal while stopping: the first makes it the end as asked, the next skips the grace."""
    if state.force is Force.RELEASE:
        return end(name, ExitCode.STOPPED)
    if not isinstance(state.aim, ToEnd) or state.aim.exit_code is not ExitCode.STOPPED:
        return replace(state, aim=ToEnd(name, ExitCode.STOPPED)), ()
    if state.force is Force.KILL:
        return state, ()
    return _force(replace(state, force=Force.POLITE), now)


def _force(state: Stopping, now: float) -> Move:
    run = state.run
    if state.force is Force.DRAIN:
        return stop(run, state.aim, run.policy.stop_grace_s, now)
    if state.force is Force.POLITE:
        deadline = now + run.policy.kill_wait_s
        return replace(state, force=Force.KILL, deadline=deadline), (Signal(run.attempt, Force.KILL),)
    if state.force is Force.KILL:
        return end("the engine's processes could not be ended with SIGKILL", ExitCode.HOST_AT_FAULT)
    return _go_on(run, state.aim, now)  # nobody told about the memory: go on with what was measured last


def _go_on(run: Run, aim: Aim, now: float) -> Move:
    """Do what the engine was stopped for, now that it is gone and its memory had its time to return."""
    match aim:
        case ToEnd(reason, exit_code):
            return end(reason, exit_code)
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
        told = (remembered(run, aim.suspect, aim.seconds, served=aim.served),)
        if not aim.served:
            told = (Tell(record.Failed(run.attempt, aim.seconds, now - aim.suspect.at, failure)), *told)
        if not (_answerable(run.climb, failure) or _served_before(run, aim)):
            end, effects = _give_up(run, failure, next_step(run.climb, failure, aim.suspect.effective, run.situation))
            return end, (*told, *effects)
    waiting = replace(state, force=Force.RELEASE, deadline=now + run.policy.kill_wait_s)
    return waiting, (*told, AwaitRelease(run.attempt))


def _answerable(climb: Climb, failure: Failure) -> bool:
    if retracted(climb, failure) is not None:
        return True
    return failure.kind is Kind.PROFILING_RACE or any(failure.kind in rung.answers for rung in climb.strategy.rungs)


def _climb(run: Run, aim: ToClimb, now: float) -> Move:
    failure, said = aim.suspect.failure, aim.suspect.effective
    anew = replanned(run.question, run.climb, failure, said, run.situation)
    answer = anew or next_step(run.climb, failure, said, run.situation)
    if isinstance(answer, Exhausted):
        return _unanswered(run, aim, answer, now)
    next_one = f"the next would be {answer.rung}: {', '.join(map(str, answer.changes))}"
    if not (run.policy.retries or aim.served):
        why = "this card shares the host's memory, and another start that overcommits it can hang the host"
        return _give_up(run, failure, Exhausted(why, (f"ask for more starts with --max-attempts; {next_one}",), True))
    if run.climbing >= run.policy.max_attempts:
        why = f"{run.climbing} of at most {run.policy.max_attempts} attempts are used"
        return _unanswered(run, aim, Exhausted(why, (f"allow more with --max-attempts; {next_one}",), True), now)
    fallback = run.climb if aim.served else run.fallback
    run = replace(run, climb=answer.climb, attempt=run.attempt + 1, climbing=run.climbing + 1, fallback=fallback)
    state, effects = launch(run, now)
    return state, (Tell(record.Stepped(answer.rung, answer.why, answer.changes)), *effects)


def _served_before(run: Run, aim: ToClimb) -> bool:
    """Whether there are settings that served and can be gone back to where nothing else is left."""
    return aim.served or run.fallback is not None


def _unanswered(run: Run, aim: ToClimb, answer: Exhausted, now: float) -> Move:
    """End a climb, or go back to the settings that served before it, after a wait: service is worth another start.

    A run goes back once per crash in service, so that the bound of restarts bounds this as well. What would help is
    told once per settings.
    """
    if not _served_before(run, aim):
        return _give_up(run, aim.suspect.failure, answer)
    if aim.served or run.fallback is None:
        climb, rung, why = run.climb, AGAIN, f"{answer.why}: the same settings again"
    else:
        climb = replace(run.fallback, rung=RETURN, tried=run.fallback.tried | run.climb.tried)
        rung, why = RETURN, f"{answer.why}: back to the settings that served"
    told = Tell(record.Stepped(rung, why, changes(run.climb.settings, climb.settings), answer.closest))
    effects = () if aim.served and run.unanswered == climb.settings else (told,)
    wait_s = run.policy.restart_wait(max(0, len(run.crashes) - 1))
    run = replace(run, climb=climb, fallback=None, unanswered=climb.settings)
    return Backoff(run, aim.suspect.failure, wait_s, now + wait_s), effects


def _give_up(run: Run, failure: Failure, answer: Step | Exhausted) -> Move:
    if failure.memory:
        why, closest = (answer.why, answer.closest) if isinstance(answer, Exhausted) else (str(failure.kind), ())
        short = isinstance(answer, Exhausted) and answer.stops_short
        told = (Tell(record.Gave(why, closest, short)), Tell(record.Ended("exhausted", ExitCode.NOTHING_FITS)))
        return ExhaustedEnd(), (*told, Finish(ExitCode.NOTHING_FITS))
    return end(str(failure.kind), exit_code_of(failure, run.policy.options))
