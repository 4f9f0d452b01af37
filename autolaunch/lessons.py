"""What a failed start teaches: the share that was too little or too much, and the memory that others held.

Pure. What is done with the bounds is `rungs`' and `share`'s.
"""

from __future__ import annotations

from dataclasses import replace

from autolaunch.case import RAISING, TAKEN, TOO_MUCH, Bounds, Case, Effort
from autolaunch.climb import Climb, Starved
from autolaunch.facts import Situation
from autolaunch.failure import Failure, Kind
from autolaunch.figures import Effective
from autolaunch.share import STEP, free_cap

RETURNED = 0.02
"""How much more of the memory must be free than when it was found taken, to believe that it has come back."""

DISAGREEMENT = 0.1
"""How much less than measured the engine may find free (its context is some of it) and still count the same."""


def learn(climb: Climb, failure: Failure, effective: Effective, situation: Situation) -> Climb:
    """Turn the failed share into a bound: what was too little or too much stays so."""
    case = climb.case(failure, effective, situation, effort=Effort.SPARING)
    bounds, now, free = climb.bounds, case.utilization, situation.device.free_share
    if bounds.free_then is not None and free is not None and free > bounds.free_then + RETURNED:
        bounds = Bounds(bounds.too_low, bounds.too_high, refusals=bounds.refusals)
    if failure.kind in RAISING:
        bounds = replace(bounds, too_low=max(bounds.too_low, now))
        return replace(climb, bounds=bounds, starved=Starved(failure, effective))
    if failure.kind in TOO_MUCH:
        bounds = replace(bounds, too_high=min(bounds.too_high, now), overruns=bounds.overruns + 1)
    elif failure.kind in TAKEN:
        refusals = bounds.refusals + _disagrees(case, climb.free_share)
        taken = min(now, _refused(replace(case, bounds=replace(bounds, refusals=refusals))))
        bounds = replace(bounds, taken=min(bounds.taken, taken), free_then=free, refusals=refusals)
        bounds = replace(bounds, overruns=bounds.overruns + (failure.kind is Kind.KV_ALLOC_OOM))
    return replace(climb, bounds=bounds)


def _disagrees(case: Case, measured: float | None) -> bool:
    """Whether the engine found much less than was measured before its start: another memory, or one that moved."""
    free, total = case.number("free_gib"), case.number("total_gib")
    if case.failure.kind is not Kind.FREE_MEMORY_LOW or free is None or not total:
        return False
    return measured is None or measured > free / total + DISAGREEMENT


def _refused(case: Case) -> float:
    """Return the share that the engine's own figures say is too much (1.0 where more was measured since)."""
    free, total = case.number("free_gib"), case.number("total_gib")
    if case.failure.kind is not Kind.FREE_MEMORY_LOW or free is None or not total:
        return 1.0
    if case.measured_rightly and case.bounds.refusals <= 1 and free_cap(case.situation.device) > free / total:
        return 1.0
    return free / total + STEP
