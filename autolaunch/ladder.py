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
from autolaunch.case import RAISING, TAKEN, TOO_MUCH, Bounds, Case, Effort, Limits, Proposal
from autolaunch.defaults import usual_seqs
from autolaunch.ending import End, ending
from autolaunch.facts import GIB, DeviceKind, Situation
from autolaunch.failure import Failure, Kind, Phase
from autolaunch.figures import Effective
from autolaunch.rungs import RUNGS, lighter_weights
from autolaunch.settings import AUTO, Change, Settings, changes
from autolaunch.share import STEP, free_cap, host_share, memory_cap
from autolaunch.strategy import Rung, Strategy

RACE_RETRIES = 2
START = "start"
RETRY = "retry"
RETRACT = "retract"

RETURNED = 0.02
"""How much more of the memory must be free than when it was found taken, to believe that it has come back."""

DISAGREEMENT = 0.1
"""How much less than measured the engine may find free (its context is some of it) and still count the same."""


@dataclass(frozen=True, slots=True)
class Starved:
    """The last failure that was too little at the present demand: what to ask about once no more is to be had."""

    failure: Failure
    effective: Effective


@dataclass(frozen=True, slots=True)
class Climb:
    """Where a run stands on its ladder: everything a decision needs of the past.

    `tried` holds every setting that was started, `free_share` what was free before the attempt at hand. `content`
    takes whatever context the first attempt fits, down to the floor: its settings came up before. `refused` are the
    concessions that the engine would not take.
    """

    strategy: Strategy
    limits: Limits
    pins: frozenset[str]
    settings: Settings
    rung: str = START
    tried: frozenset[Settings] = frozenset()
    bounds: Bounds = Bounds()
    retries: int = 0
    starved: Starved | None = None
    free_share: float | None = None
    content: bool = False
    refused: frozenset[tuple[str, Any]] = frozenset()


@dataclass(frozen=True, slots=True)
class Step:
    """One rung applied once: the climb after it, what changed and why."""

    climb: Climb
    rung: str
    why: str
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Exhausted:
    """No rung has an answer: why, and the nearest things that would help, in the reader's words."""

    why: str
    closest: tuple[str, ...]


def begin(strategy: Strategy, limits: Limits, pinned: Settings, *, pins: frozenset[str], situation: Situation) -> Climb:
    """Return the climb at its first attempt: pinned values, then the strategy's start, within the limits."""
    settings = pinned
    if "gpu_memory_utilization" not in pins:
        settings = settings.changed(gpu_memory_utilization=_start_utilization(strategy, limits, situation))
    if "max_model_len" not in pins:
        settings = settings.changed(max_model_len=_start_context(strategy, limits, situation))
    if "max_num_seqs" not in pins and limits.concurrency > usual_seqs(situation.device, situation.engine):
        settings = settings.changed(max_num_seqs=limits.concurrency)  # fewer would never be served at once
    return Climb(strategy, limits, pins, settings, tried=frozenset({settings}), free_share=situation.device.free_share)


def _start_utilization(strategy: Strategy, limits: Limits, situation: Situation) -> float | None:
    """Return the first share; None is the engine's own default.

    Where less is free than any rung would use, the default stands: the engine then says how little is free,
    and the end names who holds it, instead of blaming the model's size.
    """
    device = situation.device
    cap = memory_cap(device.total_bytes / GIB if device.total_bytes else None, limits)
    if strategy.start_utilization is not None:
        return min(strategy.start_utilization, cap)
    usual = situation.engine.default_utilization
    best = min(usual, cap, free_cap(device))
    if device.kind is DeviceKind.CPU and cap == 1.0:
        best = min(best, host_share(device))
    least = min((rung.min for rung in strategy.rungs if rung.name == "utilization"), default=0.0)
    if best < cap and best < least:
        return None if cap >= usual else cap
    return None if best in (usual, 0.0) else best


def _start_context(strategy: Strategy, limits: Limits, situation: Situation) -> int | None:
    cap, known = limits.max_context, situation.model.max_model_len
    start = strategy.start_max_model_len
    if start is not None and start != AUTO:
        return min(start, cap or start, known or start)
    if cap is not None and (known is None or cap < known):
        return cap
    return AUTO if start == AUTO and situation.engine.fits_context_itself and limits.concurrency == 1 else None


def unmet(climb: Climb, effective: Effective, situation: Situation) -> tuple[Failure, Step | Exhausted] | None:
    """Judge an engine that is coming up with less than was wished: None accepts it.

    `--max-model-len auto` may fit less than a rung before `context` could give, or less than the floor, and
    an engine only guarantees one full-length request. Such a start is answered like the failure it hides.
    An `auto` of the user's own is what was wished, as long as it keeps the floor. What no rung can better is
    accepted where it is of use to anyone and breaks no named wish.
    """
    failure = _shortfall(climb, effective)
    if failure is None:
        return None
    fitted, limits = effective.max_model_len or 0, climb.limits
    wished = effective.auto_fit_from or fitted
    pinned = "max_model_len" in climb.pins or climb.content
    if limits.concurrency == 1 and fitted >= limits.min_context and (pinned or fitted >= wished * (1 - NEARLY)):
        return None
    answer = next_step(climb, failure, effective, situation)
    if isinstance(answer, Step):
        return None if limits.concurrency == 1 and answer.rung == "context" else (failure, answer)
    return None if limits.concurrency == 1 and fitted >= limits.least_context else (failure, answer)


NEARLY = 0.03
"""A fitted context that lacks no more than this share of the wished one is not worth another start."""

PRINTED = 0.005
"""The engine prints how many requests fit with two decimals: what it says may be this much too much."""


def _shortfall(climb: Climb, effective: Effective) -> Failure | None:
    length, at_once, holds = effective.max_model_len, climb.limits.concurrency, effective.max_concurrency
    if length is None:
        return None
    numbers: dict[str, float] = {}
    if at_once > 1 and holds is not None and holds + PRINTED < at_once:
        numbers = {"max_seq_len": length, "estimated_max_len": max(0, int((holds - PRINTED) * length))}
        line = f"the KV cache holds {holds:.2f} requests of {length} tokens, {at_once} are wished"
    elif effective.auto_fit_from is not None and length < effective.auto_fit_from:
        numbers = {"max_seq_len": effective.auto_fit_from, "estimated_max_len": length}
        line = f"the engine fitted {length} tokens, {effective.auto_fit_from} are wished"
    else:
        return None
    if effective.available_kv_gib is not None:
        numbers["available_kv_gib"] = effective.available_kv_gib
    return Failure(Kind.KV_TOO_SMALL, line=line, phase=Phase.KV_CACHE, numbers=numbers)


def next_step(climb: Climb, failure: Failure, effective: Effective, situation: Situation) -> Step | Exhausted:
    """Return the next attempt for this failure, or why there is none.

    Total and pure: the same climb, failure and measurements give the same answer.
    """
    ask = _Question(_learn(climb, failure, effective, situation), failure, effective, situation)
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
        climb = self.climb
        case = Case(
            self.failure,
            climb.settings,
            self.effective,
            self.situation,
            climb.limits,
            bounds=climb.bounds,
            pins=climb.pins,
            effort=effort,
        )
        rungs = (rung for rung in climb.strategy.rungs if rung.name == "quantized_weights" and rung.answers & RAISING)
        ways = (way for rung in rungs for way in lighter_weights(rung, case))
        return replace(case, lighter=any(climb.pins.isdisjoint(way.values) for way in ways))

    def returned(self) -> Step | None:
        """Answer memory that was not there during the start and is now: a larger share instead of a concession."""
        climb, before, now = self.climb, self.climb.free_share, self.situation.device.free_share
        if self.failure.kind not in (Kind.WEIGHTS_OOM, Kind.PROFILE_OOM) or "gpu_memory_utilization" in climb.pins:
            return None
        if before is None or now is None or now < before + RETURNED or climb.strategy.start_utilization is not None:
            return None
        share = _start_utilization(climb.strategy, climb.limits, self.situation)
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


def _learn(climb: Climb, failure: Failure, effective: Effective, situation: Situation) -> Climb:
    """Turn the failed share into a bound: what was too little or too much stays so."""
    case = _Question(climb, failure, effective, situation).case()
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
