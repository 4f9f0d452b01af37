"""The ladder: from a failed attempt to the next settings, or to an honest end.

Rules, which the property tests hold it to:

- A rung acts only on failures its strategy says it answers; the first rung in the file's order that has an
  answer wins. The arithmetic is in `rungs`.
- What the user pinned is never changed. Where only a pinned value stands in the way, the end says which and
  what it would have to be.
- No setting is tried twice. The one exception is a profiling race, whose cure is the same setting once memory
  is still; it is granted `RACE_RETRIES` times.
- No oscillation: a utilization found too low or too high becomes a bound and only the room between the bounds
  is used; every other field only gives way (shorter, fewer, eager, fewer bits).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from autolaunch.facts import GIB, DeviceKind, Situation
from autolaunch.failure import Failure, Kind, Phase
from autolaunch.figures import Effective
from autolaunch.rungs import RAISING, RUNGS, Bounds, Case, Limits, Proposal, free_cap, host_share, memory_cap
from autolaunch.settings import AUTO, Change, Settings, changes, flag, show
from autolaunch.strategy import Rung, Strategy

RACE_RETRIES = 2
START = "start"
RETRY = "retry"


@dataclass(frozen=True, slots=True)
class Climb:
    """Where a run stands on its ladder: everything a decision needs of the past."""

    strategy: Strategy
    limits: Limits
    pins: frozenset[str]
    settings: Settings
    rung: str = START
    tried: frozenset[Settings] = frozenset()
    bounds: Bounds = Bounds()
    retries: int = 0


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
    return Climb(strategy, limits, pins, settings, tried=frozenset({settings}))


def _start_utilization(strategy: Strategy, limits: Limits, situation: Situation) -> float | None:
    device, cap = situation.device, memory_cap(situation.device, limits)
    if strategy.start_utilization is not None:
        return min(strategy.start_utilization, cap)
    usual = situation.engine.default_utilization
    best = min(usual, cap, free_cap(device))
    if device.kind is DeviceKind.CPU and cap == 1.0:
        best = min(best, host_share(device))
    return None if best == usual or best <= 0 else best


def _start_context(strategy: Strategy, limits: Limits, situation: Situation) -> int | None:
    cap, known = limits.max_context, situation.model.max_model_len
    if cap is not None and (known is None or cap < known):
        return cap
    if strategy.start_max_model_len != AUTO:
        return strategy.start_max_model_len
    return AUTO if situation.engine.fits_context_itself and limits.concurrency == 1 else None


def unmet(climb: Climb, effective: Effective, situation: Situation) -> tuple[Failure, Step | Exhausted] | None:
    """Judge an engine that is coming up with less than was wished: None accepts it.

    `--max-model-len auto` may fit less than a rung before `context` could give, or less than the floor, and
    an engine only guarantees one full-length request. Such a start is answered like the failure it hides.
    """
    failure = _shortfall(climb, effective)
    if failure is None:
        return None
    answer = next_step(climb, failure, effective, situation)
    if isinstance(answer, Step):
        return None if climb.limits.concurrency == 1 and answer.rung == "context" else (failure, answer)
    fitted = effective.max_model_len or 0
    tolerable = climb.limits.concurrency == 1 and not (climb.limits.floor_is_wish and fitted < climb.limits.min_context)
    return None if tolerable else (failure, answer)


def _shortfall(climb: Climb, effective: Effective) -> Failure | None:
    length, at_once = effective.max_model_len, climb.limits.concurrency
    if length is None:
        return None
    numbers: dict[str, float] = {}
    if at_once > 1 and effective.max_concurrency is not None and effective.max_concurrency < at_once:
        numbers = {"max_seq_len": length, "estimated_max_len": int(effective.max_concurrency * length)}
        line = f"the KV cache holds {effective.max_concurrency:.2f} requests of {length} tokens, {at_once} are wished"
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
    climb = _learn(climb, failure, effective, situation)
    if failure.kind is Kind.PROFILING_RACE and climb.retries < RACE_RETRIES:
        again = replace(climb, rung=RETRY, retries=climb.retries + 1)
        return Step(again, RETRY, "memory moved while the engine measured it: the same settings again", ())
    blocked: list[tuple[Rung, dict[str, Any]]] = []
    for last_resort in (False, True):
        case = _case(climb, failure, effective, situation, last_resort=last_resort)
        for rung in climb.strategy.rungs:
            if failure.kind not in rung.answers:
                continue
            step = _try(climb, rung, case, blocked)
            if step is not None:
                return step
    return _exhausted(climb, failure, situation, blocked)


def _case(climb: Climb, failure: Failure, effective: Effective, situation: Situation, *, last_resort: bool) -> Case:
    return Case(failure, climb.settings, effective, situation, climb.limits, climb.bounds, last_resort)


def _learn(climb: Climb, failure: Failure, effective: Effective, situation: Situation) -> Climb:
    """Turn the failed share into a bound: what was too little or too much stays so."""
    case = _case(climb, failure, effective, situation, last_resort=False)
    bounds, now = climb.bounds, case.utilization
    if failure.kind in RAISING:
        bounds = replace(bounds, too_low=max(bounds.too_low, now))
    elif failure.kind in (Kind.FREE_MEMORY_LOW, Kind.KV_ALLOC_OOM, Kind.RUNTIME_OOM, Kind.OOM):
        bounds = replace(bounds, too_high=min(bounds.too_high, now))
    return replace(climb, bounds=bounds)


def _try(climb: Climb, rung: Rung, case: Case, blocked: list[tuple[Rung, dict[str, Any]]]) -> Step | None:
    proposal = RUNGS[rung.name](rung, case)
    if proposal is None:
        return None
    free = {name: value for name, value in proposal.values.items() if name not in climb.pins}
    if len(free) < len(proposal.values):
        blocked.append((rung, {name: value for name, value in proposal.values.items() if name in climb.pins}))
    if not free or (rung.name == "quantized_weights" and len(free) < len(proposal.values)):
        return None
    return _step(climb, rung, Proposal(free, proposal.why))


def _step(climb: Climb, rung: Rung, proposal: Proposal) -> Step | None:
    settings = climb.settings.changed(**proposal.values)
    if settings in climb.tried:
        return None
    after = replace(climb, settings=settings, rung=rung.name, tried=climb.tried | {settings})
    return Step(after, rung.name, proposal.why, changes(climb.settings, settings))


def _exhausted(
    climb: Climb, failure: Failure, situation: Situation, blocked: list[tuple[Rung, dict[str, Any]]]
) -> Exhausted:
    closest: list[str] = []
    for _, values in blocked:
        for name, value in values.items():
            yours = _typed(name, getattr(climb.settings, name))
            line = f"allow {flag(name)} {_typed(name, value)} instead of your {yours}"
            if line not in closest:
                closest.append(line)
    if not any(failure.kind in rung.answers for rung in climb.strategy.rungs):
        return Exhausted(f"no rung of the strategy {climb.strategy.name!r} answers {failure.kind}", tuple(closest))
    if failure.kind is Kind.FREE_MEMORY_LOW:
        closest += [
            f"free the {holder.used_bytes / GIB:.2f} GiB that {holder.name} (pid {holder.pid}) holds"
            for holder in situation.device.holders
            if holder.used_bytes
        ]
    elif climb.settings.quantization is None and situation.model.variant is None:
        closest.append("serve a smaller or pre-quantized variant of the model")
    closest.append("use a card with more memory, or more cards with --tensor-parallel-size")
    why = f"every rung of the strategy {climb.strategy.name!r} that answers {failure.kind} has been used"
    return Exhausted(why + (" or is pinned" if blocked else ""), tuple(closest[:4]))


def _typed(name: str, value: Any) -> str:
    return "engine default" if value is None else str(show(name, value))
