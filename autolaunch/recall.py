"""What came up before is used again, adapted to the memory that is there now.

Pure. Owns the comparison of an earlier start with a fresh plan:

- The same memory as then: the same settings, so that a second start has no failed attempt.
- Less: the share shrinks to what is there and a fitted context with it, by what the engine measured then.
- More, or another engine release: a fresh plan that concedes less, or fits a longer context, is tried as one step
  up. If it fails its outcome is remembered, and while its cause holds it is not tried again.
- What ran out of memory in service is tried again after a quiet time, one step at a time (`comeback`).
- Where a card shares the host's memory, the step that a failed start announced is the next start.
- What came up and has failed since is a failed setting like any other, where a fresh plan knows another.
- Where none is known, what served is started once more although it ran out of memory: it serves until then.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from autolaunch.candidates import Question, predicted, refused, top_share
from autolaunch.case import RAISING
from autolaunch.climb import Step
from autolaunch.comeback import QUIET_S, comeback, ran_out
from autolaunch.facts import GIB
from autolaunch.ladder import next_step
from autolaunch.past import SLACK, Outcome, Past, came_up, refusal
from autolaunch.planner import Plan, plan
from autolaunch.settings import AUTO, Settings, changes
from autolaunch.share import down, free_cap

WORTH_A_STEP = 1.03
"""How much longer a context must be to be worth leaving settings that are known to work."""

FITTED = ("gpu_memory_utilization", "max_model_len")
"""The fields that follow from the memory; every other field that is set is a concession."""


def recall(question: Question, *, now: float) -> Plan:
    """Return the plan for a first attempt: what came up before for this wish, else the best that is predicted.

    `now` is the time of day in Unix seconds.
    """
    found = _recalled(question, now=now)
    return (_only_way(question, now=now) or found) if found.fits is False else found


def _only_way(question: Question, *, now: float) -> Plan | None:
    """Return the plan with settings that served and ran out of memory, where nothing else fits; None without such.

    A service that works until it is crowded is worth more than none; its restarts are bounded.
    """
    kept = tuple(one for one in question.past.outcomes if not (one.wish == question.wish and ran_out(one)))
    if len(kept) == len(question.past.outcomes):
        return None
    found = _recalled(replace(question, past=Past(kept)), now=now)
    if found.fits is False or not found.recalled:
        return None
    return replace(found, why=("nothing else fits: these settings ran out of memory in service, and serve until then",))


def _recalled(question: Question, *, now: float) -> Plan:
    fresh = plan(question)
    situation = question.situation
    earlier = came_up(question.past, wish=question.wish, engine_version=situation.engine.version)
    if earlier is None:
        announced = None if fresh.fits is False else _announced(question, fresh)
        return announced or fresh
    earlier = replace(earlier, settings=_same_bytes(question, earlier))
    gained = _gained(question, earlier)
    if (gained > 0 or _other_release(question, earlier)) and _is_step_up(question, fresh, earlier):
        said = "another release of the engine" if gained <= 0 else f"{gained / GIB:.2f} GiB more are free than then"
        return replace(fresh, why=(f"{said}: one step up from what came up before", *fresh.why))
    failure = comeback(question.past, earlier.settings, wish=question.wish, now=now)
    if failure is not None and gained >= 0 and _gained(question, failure) >= 0 and not _failed_since(question, failure):
        return _back_up(question, failure, now=now)
    again = _again(question, earlier.settings, earlier, "these settings came up before")
    found = _shrunk(question, earlier, -gained) if gained < 0 else again
    if found is None or (fresh.fits is not False and refused(question, found.settings)):
        return fresh
    return found


def _announced(question: Question, fresh: Plan) -> Plan | None:
    """Return the step that the last start announced when it failed, where a card shares the host's memory.

    Only where nothing ever came up. No start follows there in the same run. A fresh plan may ask for more than what has
    just run out of memory, and that may hang the host.
    """
    situation = question.situation
    last = next((outcome for outcome in question.past.outcomes if outcome.wish == question.wish), None)
    if not situation.device.unified or last is None or last.failure is None or last.in_service:
        return None
    if not last.failure.memory or last.engine_version != situation.engine.version:
        return None
    tried = frozenset(outcome.settings for outcome in question.past.outcomes if outcome.wish == question.wish)
    climb = replace(question.climb, settings=last.settings, tried=tried)
    step = next_step(climb, last.failure, last.effective, situation)
    if not isinstance(step, Step):
        return None
    settings, most = step.climb.settings, fresh.settings.gpu_memory_utilization
    if most is not None and (settings.gpu_memory_utilization or 1.0) > most:  # less is free than then
        if last.failure.kind in RAISING:
            return None  # the step was for a share that is not there any more
        settings = settings.changed(gpu_memory_utilization=most)
        if settings in tried or refused(question, settings):
            return None
    made = ", ".join(map(str, changes(last.settings, settings))) or step.why
    why = f"the last start ended with {last.failure.kind}; {step.rung}: {made}"
    context = settings.max_model_len if isinstance(settings.max_model_len, int) else None
    budget = predicted(question, settings)
    if budget is not None and budget.kv_cache.high <= 0:
        return None
    return Plan(settings, budget, fits=True, context=context, why=(why,))


def _failed_since(question: Question, failure: Outcome) -> bool:
    """Whether a start with the same settings failed after that, of a cause that still holds."""
    newer = Past(question.past.outcomes[: question.past.outcomes.index(failure)])
    return refusal(newer, failure.settings, wish=question.wish, situation=question.situation) is not None


def _back_up(question: Question, failure: Outcome, *, now: float) -> Plan:
    """Return the settings that ran out of memory in service a quiet time ago, whose context is what it was then."""
    days = (now - failure.at) / QUIET_S
    why = f"these settings ran out of memory in service {days:.1f} days ago, and none did since: one step back up"
    return _again(question, _same_bytes(question, failure), failure, why)


def _again(question: Question, settings: Settings, earlier: Outcome, why: str) -> Plan:
    context = earlier.effective.max_model_len
    if settings.max_model_len not in (None, AUTO):
        context = settings.max_model_len
    return Plan(settings, predicted(question, settings), fits=True, context=context, why=(why,), recalled=True)


def _same_bytes(question: Question, earlier: Outcome) -> Settings:
    """Return the earlier settings with a share that asks for as many bytes now: a host's total grows as it is used."""
    settings, total, then = earlier.settings, question.situation.device.total_bytes, earlier.total_bytes
    share = settings.gpu_memory_utilization
    if share is None or not total or not then or abs(total - then) <= SLACK * total:
        return settings
    if "gpu_memory_utilization" in question.climb.pins:
        return settings
    return settings.changed(gpu_memory_utilization=min(1.0, down(share * then / total + 0.0005)))


def _gained(question: Question, earlier: Outcome) -> int:
    """Return how many bytes more are free than then; 0 where it is little or unknown."""
    device = question.situation.device
    if device.free_bytes is None or earlier.free_bytes is None or not device.total_bytes:
        return 0
    gained = device.free_bytes - earlier.free_bytes
    return gained if abs(gained) > SLACK * device.total_bytes else 0


def _other_release(question: Question, earlier: Outcome) -> bool:
    version = question.situation.engine.version
    return None not in (version, earlier.engine_version) and version != earlier.engine_version


def _is_step_up(question: Question, fresh: Plan, earlier: Outcome) -> bool:
    """Whether a fresh plan concedes less than the earlier start, or as much for a longer context, and may be tried."""
    if not fresh.fits or fresh.doubtful or refused(question, fresh.settings):
        return False
    now, then = _conceded(fresh.settings), _conceded(earlier.settings)
    reached = earlier.effective.max_model_len
    longer = reached is not None and (fresh.context or 0) > WORTH_A_STEP * reached
    return now < then or (now == then and longer)


def _conceded(settings: Settings) -> frozenset[tuple[str, Any]]:
    """Return what settings ask of the engine beside what follows from the memory."""
    names = (field.name for field in fields(settings) if field.name not in FITTED)
    return frozenset((name, getattr(settings, name)) for name in names if getattr(settings, name) is not None)


def _shrunk(question: Question, earlier: Outcome, missing: int) -> Plan | None:
    """Return the earlier settings within the memory that is left; None where nothing tells what fits then."""
    settings, device = earlier.settings, question.situation.device
    budget = predicted(question, settings)
    top = free_cap(device) if budget is None else top_share(question, budget)
    share = settings.gpu_memory_utilization or question.situation.engine.default_utilization
    less = f"{missing / GIB:.2f} GiB less are free than when these settings came up"
    if share <= top or "gpu_memory_utilization" in question.climb.pins:
        return _again(question, settings, earlier, f"{less}; they are still enough")
    lost = (share - top) * (device.total_bytes or 0)
    length = _left(question, earlier, lost)
    if top <= 0 or length is None or length < question.limits.least_context:
        return None
    reached = earlier.effective.max_model_len or length
    settings = settings.changed(gpu_memory_utilization=top)
    if length < reached and "max_model_len" in question.climb.pins and settings.max_model_len != AUTO:
        return None
    if length < reached and settings.max_model_len != AUTO:
        settings = settings.changed(max_model_len=length)
    made = _again(question, settings, earlier, f"{less}: the share shrinks from {share:g} to {top:g}")
    return replace(made, context=min(length, reached))


def _left(question: Question, earlier: Outcome, lost_bytes: float) -> int | None:
    """Return the context in tokens that the cache measured then still holds without so many bytes."""
    said, requests = earlier.effective, question.limits.concurrency
    if not said.available_kv_gib or not said.kv_cache_tokens:
        return None
    tokens = said.kv_cache_tokens * max(0.0, 1 - lost_bytes / (said.available_kv_gib * GIB))
    fit = int(tokens) // requests
    return min(fit - fit % 16, question.full or fit)
