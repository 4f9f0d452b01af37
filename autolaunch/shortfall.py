"""What would help where nothing fits: the nearest of fewer tokens, another variant, more memory, more cards.

Pure. Every suggestion was itself put to the memory model; that nothing fits is `planner`'s to say.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from autolaunch.candidates import Candidate, Question, candidates, needed
from autolaunch.case import Limits
from autolaunch.climb import Climb
from autolaunch.facts import DeviceKind, Model, Situation
from autolaunch.foresight import View, free_to_engine
from autolaunch.more_memory import held_by, more_memory, named, would_do
from autolaunch.planner import Plan, plan
from autolaunch.rungs import NATIVE_FP8
from autolaunch.settings import flag
from autolaunch.share import down
from autolaunch.sizes import gib
from autolaunch.strategy import QUANTIZE_METHODS, Rung

MOST = 3
"""The suggestions that are made: more would bury the nearest."""

MOST_CARDS = 8

FP8_SINCE = ((8, 0), NATIVE_FP8)
"""The compute capabilities from which weights, and the cache too, may be FP8."""

_SPARE = 1 << 28
"""What is asked for beyond the estimate, so that it is enough."""


def shortfall(question: Question) -> tuple[str, tuple[str, ...]]:
    """Return why nothing fits, both numbers in it, and the nearest things that would; for a plan that does not fit."""
    nearest = _nearest(question)
    if nearest is None:
        return _weights(question), tuple(islice(_ways(question, None), MOST))
    return _beyond_free(question, nearest) or _why(question, nearest), tuple(islice(_ways(question, nearest), MOST))


def missing_bytes(question: Question) -> int | None:
    """Return how many bytes each card lacks for the least context with every concession; None where that is unknown."""
    nearest, device = _nearest(question), question.situation.device
    if nearest is not None:
        return max(0, needed(question, nearest.settings, _least(question)) - nearest.budget.kv_cache.low) + _SPARE
    weights = question.situation.model.weights
    if weights is None or device.free_bytes is None:
        return None
    return max(0, weights.loaded_bytes // max(1, question.limits.gpus) - device.free_bytes) + _SPARE


def _nearest(question: Question) -> Candidate | None:
    """Return the combination that comes nearest to fitting: the one with the largest cache."""
    return max(candidates(question), key=lambda one: one.budget.kv_cache.high, default=None)


def nearest_plan(question: Question, own: Plan) -> Plan:
    """Return a plan that does not fit as the combination that comes nearest: its settings and its budget."""
    nearest = _nearest(question)
    return own if nearest is None else replace(own, settings=nearest.settings, budget=nearest.budget)


def _weights(question: Question) -> str:
    weights = question.situation.model.weights
    return f"the model needs {gib(weights.loaded_bytes if weights else None)} for its weights alone, and " + _there(
        question
    )


def _there(question: Question) -> str:
    """Return the memory that there is, the user's own bound of it first."""
    device, climb, limit = question.situation.device, question.climb, question.limits.memory_bytes
    share = climb.settings.gpu_memory_utilization if "gpu_memory_utilization" in climb.pins else None
    free = _free(question)
    if limit is not None:
        return f"--memory allows {gib(limit)}, {free}"
    if share is not None:
        return f"your --gpu-memory-utilization {share:g} allows {gib(int(share * (device.total_bytes or 0)))}, {free}"
    return free


def _free(question: Question) -> str:
    device = question.situation.device
    return f"{gib(device.free_bytes)} of {gib(device.total_bytes)} are free"


def _beyond_free(question: Question, nearest: Candidate) -> str:
    """Say that a share of the user's is more than the engine will find free, "" where it is not: the rest may fit."""
    budget, share = nearest.budget, question.climb.settings.gpu_memory_utilization
    free = free_to_engine(budget, View.LIKELY)
    if question.pool_bytes is not None and not question.situation.engine.is_v0 and budget.checked_bytes > free:
        asked, most = budget.checked_bytes, down(max(0, free) / budget.total_bytes)
        return (
            f"vLLM looks for a share of {asked / budget.total_bytes:.3g} ({gib(asked)}) when it begins, beside your "
            f"--kv-cache-memory-bytes too; {_free(question)}: give --gpu-memory-utilization {most:g} with it"
        )
    if "gpu_memory_utilization" not in question.climb.pins or share is None or question.situation.engine.is_v0:
        return ""
    if budget.requested_bytes <= free:
        return ""
    return (
        f"your --gpu-memory-utilization {share:g} asks for {gib(budget.requested_bytes)}; "
        f"{_free(question)}, {gib(max(0, free))} once the engine's own context is there"
    )


def _least(question: Question) -> int:
    """Return the shortest context in tokens that would be accepted."""
    return question.pinned_context or min(question.limits.least_context, question.full or 1 << 40)


def _why(question: Question, nearest: Candidate) -> str:
    budget = nearest.budget
    taken = budget.weights.bytes + budget.non_torch.bytes + budget.activation.bytes + budget.cudagraph.bytes
    need = needed(question, nearest.settings, _least(question))
    ranks = nearest.settings.tensor_parallel_size or 1
    where = f" on each of {ranks} cards" if ranks > 1 else ""
    how = "" if not nearest.pain or not any(nearest.pain.values()) else " with every concession that is allowed"
    own, pool = f"{gib(taken)} for weights and the engine's own needs{_outside(question, nearest)}", question.pool_bytes
    context = f"{gib(need)} for {_least(question)} tokens of context{where}"
    if pool is not None and need > pool:
        return f"{context} do not fit into your --kv-cache-memory-bytes of {gib(pool)}"
    cache = context if pool is None else f"your {gib(pool)} of KV cache{where}"
    return f"{own} and {cache}{how} do not fit: {_there(question)}"


def _outside(question: Question, nearest: Candidate) -> str:
    """Return what is taken beside the request in words, where the free memory is the bound and not a share of it."""
    bounded = question.limits.memory_bytes is not None or "gpu_memory_utilization" in question.climb.pins
    if bounded and question.pool_bytes is None:
        return ""
    what = "the CUDA context" + (" and NCCL" if (nearest.settings.tensor_parallel_size or 1) > 1 else "")
    if question.situation.device.kind is DeviceKind.CPU:
        what = "the server beside it"
    return f", {gib(nearest.budget.outside.bytes)} for {what}"


def _ways(question: Question, nearest: Candidate | None) -> Iterator[str]:
    yield from _own_limits(question)
    yield from _fewer_bits(question)
    yield from _more_memory(question, nearest)
    yield from _more_cards(question)
    yield "serve a smaller model"


def _own_limits(question: Question) -> Iterator[str]:
    """Name the user's context, floor or budget that stands in the way, with the value that would do."""
    climb, limits = question.climb, question.limits
    if question.pool_bytes is not None and would_do(_sized_by_the_engine(question)):
        yield f"leave --kv-cache-memory-bytes ({gib(question.pool_bytes)}) to the engine"
    pinned = question.pinned_context
    if pinned is not None:
        found = _fitted(question, replace(climb, pins=climb.pins - {"max_model_len"}))
        if found.fits and found.context:
            yield f"give --max-model-len {found.context - found.context % 16} instead of your {pinned}"
    elif limits.floor_is_wish:
        found = _fitted(question, replace(climb, limits=replace(limits, min_context=512, floor_is_wish=False)))
        if found.fits and found.context:
            yield f"allow --min-context {found.context - found.context % 16} instead of {limits.min_context}"
    for name in sorted(climb.pins - {"max_model_len", "model"}):
        freed = replace(climb, pins=climb.pins - {name}, settings=climb.settings.changed(**{name: None}))
        found = plan(replace(question, climb=freed))
        value = getattr(found.settings, name)
        if found.fits and value is not None and getattr(climb.settings, name) is not None:
            yield f"allow {flag(name)} {value} instead of your {getattr(climb.settings, name)}"


def _sized_by_the_engine(question: Question) -> Question:
    pins = question.climb.pins - {"gpu_memory_utilization"}
    return replace(question, climb=replace(question.climb, pins=pins), pool_bytes=None)


def _fitted(question: Question, climb: Climb) -> Plan:
    """Return the plan with a context that fits at the worst: what the engine may fit itself is only what is likely."""
    strategy = replace(climb.strategy, start_max_model_len=None)
    fitted = replace(climb, strategy=strategy, settings=climb.settings.changed(max_model_len=None))
    return plan(replace(question, climb=fitted))


def _fewer_bits(question: Question) -> Iterator[str]:
    """Name a sibling with smaller weights, and the strategy that may quantize, where the chosen one may not."""
    if question.situation.model.quantization is not None:
        return
    yield from _unknown_capability(question)
    if not any(rung.name == "quantized_weights" for rung in question.climb.strategy.rungs):
        lighter = Rung("quantized_weights", frozenset(), methods=QUANTIZE_METHODS)
        strategy = replace(question.climb.strategy, rungs=(*question.climb.strategy.rungs, lighter))
        allowed = replace(question.climb, strategy=strategy)
        if plan(replace(question, climb=allowed)).fits:
            yield "allow quantized weights with --strategy default"
    capability = question.situation.device.compute_capability or (9, 9)
    for variant in question.situation.model.variants:
        if variant.capability > capability:
            continue
        model = Model(
            question.situation.model.max_model_len,
            variant.quantization,
            shape=question.situation.model.shape,
            weights=variant.weights,
        )
        if variant.weights and plan(_at(question, replace(question.situation, model=model))).fits:
            size = gib(variant.weights.loaded_bytes)
            yield f"serve {variant.model} instead: {size} of {variant.quantization} weights"
            return


def _unknown_capability(question: Question) -> Iterator[str]:
    """Name the compute capability that would allow FP8 weights, where the card's is not known: they count on none."""
    device = question.situation.device
    if device.compute_capability is not None or device.kind is DeviceKind.CPU:
        return
    for capability in FP8_SINCE:
        able = replace(question.situation, device=replace(device, compute_capability=capability))
        if would_do(_at(question, able)):
            yield f"say --compute-capability: from {'.'.join(map(str, capability))} on it fits with FP8"
            return


def _at(question: Question, situation: Situation, limits: Limits | None = None) -> Question:
    climb = question.climb if limits is None else replace(question.climb, limits=limits)
    return replace(question, situation=situation, climb=climb)


def _more_memory(question: Question, nearest: Candidate | None) -> Iterator[str]:
    """Name the memory that is missing; of a share that the user fixed another share is the cure, or an empty card."""
    device = question.situation.device
    if nearest is None or _beyond_free(question, nearest):
        empty = replace(device, free_bytes=device.total_bytes, holders=())
        if device.total_bytes and plan(_at(question, replace(question.situation, device=empty))).fits:
            taken = gib(device.total_bytes - (device.free_bytes or 0))
            yield f"free {named(device)}: {taken} of it are held" + (f"; {held_by(device)}" if held_by(device) else "")
            return
    if "gpu_memory_utilization" not in question.climb.pins:
        yield from more_memory(question)


def _more_cards(question: Question) -> Iterator[str]:
    """Name how many such cards would do, as far as the model's heads can be shared out."""
    limits = question.limits
    if "tensor_parallel_size" in question.climb.pins or question.situation.device.kind is DeviceKind.CPU:
        return
    for count in (2, 4, MOST_CARDS):
        if count > limits.gpus and would_do(_at(question, question.situation, replace(limits, gpus=count))):
            yield f"use {count} such cards with --gpus {count}"
            return
