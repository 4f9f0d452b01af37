"""Another plan in the middle of a climb: where a neighbour took memory, the memory model knows more than the ladder.

Pure. The ladder answers what an engine said of one start; a plan that was made for memory that is gone is not mended
by steps. Settings that were tried are never planned again, so that a climb stays bounded.
"""

from __future__ import annotations

from dataclasses import fields, replace

from autolaunch.candidates import Question
from autolaunch.case import Bounds
from autolaunch.climb import Climb, Step
from autolaunch.facts import DeviceKind, Situation
from autolaunch.failure import Failure, Kind
from autolaunch.figures import Effective
from autolaunch.lessons import RETURNED
from autolaunch.past import Outcome, Past
from autolaunch.planner import plan
from autolaunch.settings import changes

REPLAN = "plan"

HOST_MOVES = 0.1
"""The share of a host's memory that comes and goes with whatever else runs there; a card's moves by `RETURNED`."""


def replanned(
    question: Question | None, climb: Climb, failure: Failure, effective: Effective, situation: Situation
) -> Step | None:
    """Return the step to a new plan, None where as much memory is free as the last one was made for."""
    before, now = climb.free_share, situation.device.free_share
    if question is None or not failure.memory or failure.kind in (Kind.HOST_OOM, Kind.PROFILING_RACE):
        return None
    device = situation.device
    moved = HOST_MOVES if device.kind is DeviceKind.CPU else RETURNED
    if before is None or now is None or now > before - moved:
        return None
    seen = Outcome(
        climb.settings,
        failure,
        effective,
        situation.engine.version,
        device.total_bytes,
        device.free_bytes,
        wish=question.wish,
    )
    past = Past((seen, *question.past.outcomes))
    fresh = plan(replace(question, situation=situation, past=past))
    settings = fresh.settings
    made = {(field.name, getattr(settings, field.name)) for field in fields(settings)}
    if not fresh.fits or settings in climb.tried or climb.refused & made:
        return None
    after = replace(
        climb, settings=settings, rung=REPLAN, tried=climb.tried | {settings}, bounds=Bounds(), starved=None,
        content=False, free_share=now,
    )  # fmt: skip
    why = f"{before:.3f} of the memory was free when this was planned, {now:.3f} is now; {'; '.join(fresh.why)}"
    return Step(after, REPLAN, why, changes(climb.settings, settings))
