"""The ladder: from a failed attempt to the next settings, or to an honest end.

Rules, which the property tests hold it to:

- A rung acts only on failures its strategy says it answers; the first rung in the file's order that has an
  answer wins. The arithmetic is in `rungs` and `share`.
- What the user pinned is never changed. Where only a pinned value stands in the way, the end says which and
  what it would have to be.
- A concession that the engine refuses for a reason that is not memory is taken back and not made again.
- No setting is tried twice. The one exception is a profiling race, whose cure is the same setting once memory
  is still; it is granted `RACE_RETRIES` times.
- No oscillation: a utilization found too low or too high becomes a bound and only the room between the bounds
  is used; every other field only gives way (shorter, fewer, eager, fewer bits). Bounds that hold for one demand
  only are forgotten when a rung lessens the demand, which can happen only so often.
- Memory that was not there during a start and is now is no reason for a concession: the share is raised.
- Where the room between the bounds is used up, the demand itself is too large for the memory that is there:
  the rungs are asked again about the failure that was too little, at the share that is free.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from autolaunch.blame import blamed
from autolaunch.case import RAISING, Bounds, Case, Effort, Proposal
from autolaunch.climb import Climb, Exhausted, Step, start_utilization
from autolaunch.ending import End, ending
from autolaunch.facts import Situation
from autolaunch.failure import Failure, Kind
from autolaunch.figures import Effective
from autolaunch.lessons import RETURNED, learn
from autolaunch.rungs import RUNGS
from autolaunch.settings import Settings, changes
from autolaunch.strategy import Rung

RACE_RETRIES = 2
RETRY = "retry"
RETRACT = "retract"


def next_step(climb: Climb, failure: Failure, effective: Effective, situation: Situation) -> Step | Exhausted:
    """Return the next attempt for this failure, or why there is none.

    Total and pure: the same climb, failure and measurements give the same answer.
    """
    ask = _Question(learn(climb, failure, effective, situation), failure, effective, situation)
    if failure.kind is Kind.PROFILING_RACE and climb.retries < RACE_RETRIES:
        again = replace(ask.climb, rung=RETRY, retries=climb.retries + 1)
        return Step(again, RETRY, "memory moved while the engine measured it: the same settings again", ())
    step = retracted(ask.climb, failure) or ask.returned() or ask.answer() or ask.pinched()
    if step is None:
        case = ask.case(Effort.LAST_RESORT)
        return Exhausted(*ending(End(case, climb.strategy, ask.blocked, ask.climb.retries + 1)))
    return replace(step, climb=replace(step.climb, free_share=situation.device.free_share))


def retracted(climb: Climb, failure: Failure) -> Step | None:
    """Take back a concession of ours that the engine refuses, for good; None where the failure is another's fault."""
    culprit = blamed(failure, climb.settings, pins=climb.pins)
    if culprit is None:
        return None
    name, value = culprit
    settings = climb.settings.changed(**{name: None})
    refused = climb.refused | {culprit}
    if settings in climb.tried:
        return None
    after = replace(
        climb, settings=settings, rung=RETRACT, tried=climb.tried | {settings}, refused=refused, bounds=Bounds(),
        starved=None, content=False,
    )  # fmt: skip
    why = f"the engine refuses {name} {value}, which nobody asked for: without it"
    return Step(after, RETRACT, why, changes(climb.settings, settings))


@dataclass(slots=True)
class _Question:
    """One failure put to the rungs of a climb; `blocked` collects what only the user's pins forbade."""

    climb: Climb
    failure: Failure
    effective: Effective
    situation: Situation
    blocked: dict[str, Any] = field(default_factory=dict)

    def case(self, effort: Effort = Effort.SPARING) -> Case:
        return self.climb.case(self.failure, self.effective, self.situation, effort=effort)

    def returned(self) -> Step | None:
        """Answer memory that was not there during the start and is now: a larger share instead of a concession."""
        climb, before, now = self.climb, self.climb.free_share, self.situation.device.free_share
        if self.failure.kind not in (Kind.WEIGHTS_OOM, Kind.PROFILE_OOM) or "gpu_memory_utilization" in climb.pins:
            return None
        if before is None or now is None or now < before + RETURNED or climb.strategy.start_utilization is not None:
            return None
        share = start_utilization(climb.strategy, climb.limits, self.situation)
        settings = climb.settings.changed(gpu_memory_utilization=share)
        if settings in climb.tried:
            return None
        why = f"{before:.3f} of the memory was free at the start, {now:.3f} is now"
        after = replace(climb, settings=settings, rung="utilization", tried=climb.tried | {settings})
        return Step(after, "utilization", why, changes(climb.settings, settings))

    def answer(self, *, without: str = "") -> Step | None:
        computing = (Effort.SPARING, Effort.FULL, Effort.LAST_RESORT)
        for effort in (Effort.BLIND,) if self.climb.strategy.literal else computing:
            case = self.case(effort)
            for rung in self.climb.strategy.rungs:
                if self.failure.kind not in rung.answers or rung.name == without:
                    continue
                step = next(self._steps(rung, case), None)
                if step is not None:
                    return step
        return None

    def _steps(self, rung: Rung, case: Case) -> Iterator[Step]:
        climb = self.climb
        for proposal in RUNGS[rung.name](rung, case):
            free = {name: value for name, value in proposal.values.items() if name not in climb.pins}
            for name, value in proposal.values.items():
                if name in climb.pins and value != getattr(climb.settings, name):
                    self.blocked.setdefault(name, value)
            if climb.refused & set(free.items()):
                continue
            if not free or (rung.name == "quantized_weights" and len(free) < len(proposal.values)):
                continue
            settings = climb.settings.changed(**free)
            if settings in climb.tried or settings == climb.settings:
                continue
            yield Step(_taken(climb, rung, settings), rung.name, proposal.why, changes(climb.settings, settings))

    def pinched(self) -> Step | None:
        """Answer a share that is too much where a lower one was too little: lower it and lessen the demand."""
        climb, starved = self.climb, self.climb.starved
        if self.failure.kind in RAISING or starved is None:
            return None
        open_case = replace(self.case(), bounds=replace(climb.bounds, too_low=0.0))
        for rung in climb.strategy.rungs:
            if rung.name != "utilization" or self.failure.kind not in rung.answers:
                continue
            for proposal in RUNGS[rung.name](rung, open_case):
                lowered = _lowered(climb, proposal)
                if lowered is None:
                    continue
                step = _Question(lowered, starved.failure, starved.effective, self.situation).answer(
                    without="utilization"
                )
                if step is not None:
                    made = changes(climb.settings, step.climb.settings)
                    return replace(step, why=f"{proposal.why}; {step.why}", changes=made)
        return None


def _lowered(climb: Climb, proposal: Proposal) -> Climb | None:
    if "gpu_memory_utilization" in climb.pins:
        return None
    return replace(climb, settings=climb.settings.changed(**proposal.values))


def _taken(climb: Climb, rung: Rung, settings: Settings) -> Climb:
    """Return the climb after a step; what was learnt for one demand is forgotten when the demand is lessened."""
    after = replace(climb, settings=settings, rung=rung.name, tried=climb.tried | {settings}, content=False)
    if rung.name == "utilization":
        return after
    less = Bounds(taken=climb.bounds.taken, free_then=climb.bounds.free_then, refusals=climb.bounds.refusals)
    return replace(after, bounds=less, starved=None)
