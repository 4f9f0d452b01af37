"""What could be started: every combination of a strategy's concessions, its share of the memory, what fits in it.

Pure. Owns the space that a plan is chosen from. Which candidate is the best is `planner`'s to say.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from autolaunch.beyond import MARK
from autolaunch.blame import blamed
from autolaunch.budget import Budget, Demand, predict, with_pool
from autolaunch.case import LAST_RESORT_CONTEXT, RAISING, Case, Effort, Limits
from autolaunch.climb import Climb
from autolaunch.facts import GIB, DeviceKind, Situation
from autolaunch.failure import Failure, Kind
from autolaunch.figures import Effective
from autolaunch.foresight import View, foretell, need_of
from autolaunch.past import Outcome, Past, disproved, refusal
from autolaunch.rungs import RUNGS
from autolaunch.settings import AUTO, Settings
from autolaunch.shape import LONGEST, Shape
from autolaunch.share import STEP, down, host_share, margin, memory_cap, up
from autolaunch.strategy import Rung, Strategy

CHEAP_BYTES = 24 * GIB
"""Weights up to here load in a minute or two: a failed start then costs less than a concession that was not needed."""


def is_cheap(budget: Budget) -> bool:
    """Whether a failed start with this budget costs little."""
    return budget.weights.bytes <= CHEAP_BYTES


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be planned: a climb at its beginning (strategy, limits, pins), what is there, and what was.

    `wish` is the digest under which outcomes of the same wish are remembered, `beyond` an engine option of the wish
    that the memory model does not know: nothing is predicted then. `pool_bytes` is a KV cache that the user sized.
    """

    climb: Climb
    situation: Situation
    past: Past = Past()
    wish: str = ""
    beyond: str = ""
    pool_bytes: int | None = None

    @property
    def limits(self) -> Limits:
        """What a fitted value may be."""
        return self.climb.limits

    @property
    def pinned_context(self) -> int | None:
        """The context in tokens that the user fixed; an `auto` of theirs fixes none."""
        pinned = self.climb.settings.max_model_len
        return pinned if "max_model_len" in self.climb.pins and pinned != AUTO else None

    @property
    def full(self) -> int | None:
        """The context in tokens that is wished: pinned, capped, or all the model has."""
        start = self.climb.strategy.start_max_model_len
        lengths = (self.limits.max_context, self.situation.model.max_model_len, None if start == AUTO else start)
        return self.pinned_context or min((length for length in lengths if length), default=None)

    @property
    def fits_itself(self) -> bool:
        """Whether the engine shall fit the context itself."""
        if "max_model_len" in self.climb.pins:
            return self.climb.settings.max_model_len == AUTO
        knows = self.situation.engine.fits_context_itself and self.limits.concurrency == 1
        return knows and self.climb.strategy.start_max_model_len == AUTO


@dataclass(frozen=True, slots=True)
class Candidate:
    """One combination of concessions with its budget.

    `pain` is how deep each conceding rung went, in the file's order; `context` in tokens at each view, None where
    the start fails at that view. `settings` have no fitted context yet.
    """

    settings: Settings
    pain: Mapping[str, int]
    budget: Budget
    context: Mapping[View, int | None]


def predicted(question: Question, settings: Settings) -> Budget | None:
    """Return the budget of a start with these settings, None where it cannot be told."""
    if question.beyond:
        return None
    past = Past(tuple(outcome for outcome in question.past.outcomes if not outcome.wish.endswith(MARK)))
    budget = predict(Demand(settings, question.situation, past))
    return budget if budget is None or question.pool_bytes is None else with_pool(budget, question.pool_bytes)


def candidates(question: Question) -> Iterator[Candidate]:
    """Give every combination of the strategy's concessions that is not known to fail here, with its budget."""
    rungs = conceding(question.climb.strategy)
    for levels in itertools.product(*(enumerate(_levels(rung, question)) for rung in rungs)):
        values = {name: value for _, level in levels for name, value in level.items()}
        pain = {rung.name: depth for rung, (depth, _) in zip(rungs, levels, strict=True)}
        candidate = _candidate(question, question.climb.settings.changed(**values), pain)
        if candidate is not None and not refused(question, candidate.settings):
            yield candidate


def conceding(strategy: Strategy) -> tuple[Rung, ...]:
    """Return the first rung of every name but the two whose values follow from the budget, in the file's order."""
    first: dict[str, Rung] = {}
    for rung in strategy.rungs:
        first.setdefault(rung.name, rung)
    return tuple(rung for name, rung in first.items() if name not in ("utilization", "context"))


def _levels(rung: Rung, question: Question) -> tuple[Mapping[str, Any], ...]:
    """Return what a rung may set, from nothing to its last concession, pins taken out."""
    climb = question.climb
    case = Case(
        Failure(Kind.KV_TOO_SMALL),
        climb.settings,
        Effective(),
        question.situation,
        climb.limits,
        pins=climb.pins,
        effort=Effort.LAST_RESORT,
    )
    levels: list[Mapping[str, Any]] = [{}]
    for proposal in RUNGS[rung.name](rung, case):
        free = {name: value for name, value in proposal.values.items() if name not in climb.pins}
        if free.items() & _unsupported(question):
            continue
        whole = rung.name != "quantized_weights" or len(free) == len(proposal.values)
        if free and whole and free not in levels:
            levels.append(free)
    return tuple(levels)


def _unsupported(question: Question) -> frozenset[tuple[str, Any]]:
    """Return the concessions that this release of the engine refused here before, for a reason that is not memory."""
    version = question.situation.engine.version
    blames = (
        blamed(outcome.failure, outcome.settings, pins=question.climb.pins)
        for outcome in question.past.outcomes
        if outcome.failure is not None and outcome.engine_version == version
    )
    return frozenset(blame for blame in blames if blame is not None)


def _candidate(question: Question, settings: Settings, pain: Mapping[str, int]) -> Candidate | None:
    """Give a combination its share of the memory and what fits then, at every view."""
    best: Candidate | None = None
    for length in _lengths(question):
        asked = settings if length is None else settings.changed(max_model_len=length)
        shared, budget = with_share(question, asked)
        if budget is None:
            return best
        contexts = _contexts(question, shared, budget)
        if length is not None:
            contexts = {view: None if fit is None else min(fit, length) for view, fit in contexts.items()}
        found = Candidate(shared.changed(max_model_len=settings.max_model_len), pain, budget, contexts)
        best = best if best and _reached(best) >= _reached(found) else found
        if length is None or found.context[View.PESSIMISTIC] == length:
            break
    return best


def _reached(candidate: Candidate) -> tuple[int, ...]:
    """Return the contexts at the three views, the surest first: what tells the better of two lengths."""
    return tuple(candidate.context[view] or 0 for view in (View.PESSIMISTIC, View.LIKELY, View.OPTIMISTIC))


def _lengths(question: Question) -> tuple[int | None, ...]:
    """Return the contexts to put to the memory model; None where a start's needs do not depend on it.

    V0 profiles one request of full length: halving the context halves what that takes.
    """
    full = question.full
    if not question.situation.engine.is_v0 or full is None or question.pinned_context is not None:
        return (None,)
    halves = (full >> power for power in range(8))
    return tuple(length for length in halves if length >= min(full, LAST_RESORT_CONTEXT))


def refused(question: Question, settings: Settings) -> bool:
    """Whether these settings failed here, give or take a little of the share, and the cause still holds.

    What came up since with exactly these settings was not close enough to what failed.
    """
    past, situation = question.past, question.situation
    usual = situation.engine.default_utilization
    share = settings.gpu_memory_utilization or usual
    for outcome in past.outcomes:
        if outcome.failure is None or not _alike(outcome, settings):
            continue
        failed = outcome.settings.gpu_memory_utilization or usual
        as_much = share <= failed + STEP if outcome.failure.kind in RAISING else share >= failed - STEP
        stands = as_much and refusal(past, outcome.settings, wish=question.wish, situation=situation) is not None
        if stands and not disproved(past, outcome, settings, situation=situation):
            return True
    return False


def _alike(outcome: Outcome, settings: Settings) -> bool:
    """Whether an outcome's settings are these but for the share, and for a context that was not what failed."""
    was = outcome.settings.changed(gpu_memory_utilization=settings.gpu_memory_utilization)
    if outcome.failure is None or outcome.failure.kind is not Kind.KV_TOO_SMALL:
        was = was.changed(max_model_len=settings.max_model_len)
    return was == settings


# The share


def with_share(question: Question, settings: Settings) -> tuple[Settings, Budget | None]:
    """Return the settings at the share they get: the usual one if the whole context fits, else as far as there is."""
    climb = question.climb
    if "gpu_memory_utilization" in climb.pins or climb.strategy.start_utilization is not None:
        return settings, predicted(question, settings)
    usual = question.situation.engine.default_utilization
    budget = predicted(question, settings.changed(gpu_memory_utilization=usual))
    if budget is None:
        return settings, None
    top = top_share(question, budget)
    share = min(top, _usual(question))
    need = None if question.full is None else needed(question, settings, question.full)
    pool = budget.kv_cache.low + (share - usual) * budget.total_bytes
    if need is None:
        share = top
    elif pool < need:
        share = min(top, up(share + (need - pool) / budget.total_bytes))
    if share <= 0:
        return settings, None
    settings = settings.changed(gpu_memory_utilization=share)
    return settings, predicted(question, settings)


def _usual(question: Question) -> float:
    """Return the share that is taken where it suffices: the engine's default, half of a host's free memory."""
    device, usual = question.situation.device, question.situation.engine.default_utilization
    if device.kind is DeviceKind.CPU and question.limits.memory_bytes is None:
        return min(usual, host_share(device))
    return usual


def top_share(question: Question, budget: Budget) -> float:
    """Return the largest share that leaves room outside it for the engine's context, its graphs and a margin.

    In service the graphs stand beside a whole prefill; while they are captured, beside what the profile run gave back.
    Their size is the least certain of all terms: only where a failed start is dear is its whole range left free.
    """
    device, limits = question.situation.device, question.limits
    highest = next((rung.max for rung in question.climb.strategy.rungs if rung.name == "utilization"), 1.0)
    free = (budget.total_bytes if budget.free_bytes is None else budget.free_bytes) - budget.outside.high
    graphs, charged = budget.capture, budget.cudagraph
    beside = max(0, graphs.bytes - charged.bytes)
    if not is_cheap(budget):
        beside = max(beside, graphs.high - charged.low - budget.activation.low)
    there = down(max(0.0, (free - beside) / budget.total_bytes - margin(device)))
    return min(highest, memory_cap(budget.total_bytes / GIB, limits), there)


# What fits


def _contexts(question: Question, settings: Settings, budget: Budget) -> Mapping[View, int | None]:
    """Return the context in tokens at each view, None where the start fails or a pinned context does not fit."""
    need = need_of(Demand(settings.changed(max_model_len=AUTO), question.situation), _shape(question))
    foretold = foretell(budget, need)
    pessimistic = foretold.pessimistic
    if pessimistic is Kind.GRAPH_OOM and is_cheap(budget):
        pessimistic = foretold.kind
    kinds = {View.LIKELY: foretold.kind, View.PESSIMISTIC: pessimistic, View.OPTIMISTIC: foretold.optimistic}
    pools = {view: view.left(budget.kv_cache) for view in View}
    return {view: _context(question, settings, pools[view]) if kinds[view] is Kind.OK else None for view in View}


def _context(question: Question, settings: Settings, pool: int) -> int | None:
    full = question.full
    if full is not None and needed(question, settings, full) <= pool:
        return full
    if question.pinned_context is not None:
        return None
    return min(holds(question, settings, pool), full or LONGEST) or None


def needed(question: Question, settings: Settings, length: int) -> int:
    """Return the KV cache in bytes for all requests of `length` tokens that are wished at once."""
    need = need_of(Demand(settings.changed(max_model_len=length), question.situation), _shape(question))
    return need.needed_bytes * question.limits.concurrency


def holds(question: Question, settings: Settings, pool: int) -> int:
    """Return the longest context in tokens of which a pool in bytes holds as many requests as are wished."""
    need = need_of(Demand(settings.changed(max_model_len=AUTO), question.situation), _shape(question))
    return need.fitting(pool // question.limits.concurrency)


def _shape(question: Question) -> Shape:
    shape = question.situation.model.shape
    assert shape is not None, "asked only where the shape is known"
    return shape
