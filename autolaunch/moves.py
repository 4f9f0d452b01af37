"""The moves that several phases make: launch an engine, ask its tree to stop, end the run, keep an outcome.

Pure. Which phase makes which move is `machine`'s and `stopping`'s.
"""

from __future__ import annotations

from autolaunch import record
from autolaunch.errors import ExitCode
from autolaunch.events import AwaitDrain, Effect, Finish, Launch, Remember, Signal, Tell
from autolaunch.phases import Aim, Force, Run, Starting, State, Stopped, Stopping, Suspect

Move = tuple[State, tuple[Effect, ...]]


def launch(run: Run, now: float) -> Move:
    """Start an engine with the climb's settings."""
    return Starting(run, now, now), (Launch(run.attempt, run.climb.settings, run.climb.rung, run.climbing),)


def end(reason: str, exit_code: ExitCode) -> Move:
    """End the run."""
    return Stopped(exit_code), (Tell(record.Ended(reason, exit_code)), Finish(exit_code))


def stop(run: Run, aim: Aim, grace_s: float, now: float) -> Move:
    """Ask the engine's tree to end, for an aim; after `grace_s` it is killed."""
    return Stopping(run, aim, Force.POLITE, now + grace_s), (Signal(run.attempt, Force.POLITE),)


def drain(run: Run, aim: Aim, now: float) -> Move:
    """Give an engine that serves time to finish its requests before its tree is asked to end."""
    if not run.policy.drain_s:
        return stop(run, aim, run.policy.stop_grace_s, now)
    return Stopping(run, aim, Force.DRAIN, now + run.policy.drain_s), (AwaitDrain(run.attempt),)


def remembered(run: Run, suspect: Suspect, seconds: float, *, served: bool) -> Remember:
    """Return the order to keep how a start ended."""
    return Remember(
        run.climb.settings, suspect.failure, suspect.effective, run.situation.device, seconds, in_service=served
    )
