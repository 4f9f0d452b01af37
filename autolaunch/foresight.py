"""How a start will end, by its budget: the checks that the engine makes, in the order in which it meets them.

Pure. Owns the verdict on a budget under three views and the numbers that the engine would print. Which settings
follow from it is `planner`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from autolaunch.budget import Budget, Demand, predict
from autolaunch.defaults import Resolved, resolve
from autolaunch.estimate import subject
from autolaunch.facts import GIB
from autolaunch.failure import Kind
from autolaunch.settings import AUTO
from autolaunch.shape import CacheKind, Shape, block_bytes, kv_bytes, tokens_in
from autolaunch.term import Term


class View(Enum):
    """Which end of every term's range a verdict rests on."""

    LIKELY = "likely"
    PESSIMISTIC = "pessimistic"
    OPTIMISTIC = "optimistic"

    def of(self, term: Term) -> int:
        """Return the bytes of a term that takes memory away."""
        return {View.LIKELY: term.bytes, View.PESSIMISTIC: term.high, View.OPTIMISTIC: term.low}[self]

    def left(self, term: Term) -> int:
        """Return the bytes of a term that is what remains."""
        return {View.LIKELY: term.bytes, View.PESSIMISTIC: term.low, View.OPTIMISTIC: term.high}[self]


@dataclass(frozen=True, slots=True)
class Need:
    """What a start must hold: the cache of one request of `max_model_len` tokens, and a state for every sequence.

    `needed_bytes` is 0 where the engine fits the context itself; `fitting` says how many tokens a pool holds,
    `states` how many sequences, None where sequences keep no state. `checks_free` is off on V0, which takes its
    share without asking whether it is free.
    """

    needed_bytes: int = 0
    max_model_len: int | None = None
    fitting: Callable[[int], int] = lambda pool: pool
    states: Callable[[int], int] | None = None
    max_num_seqs: int = 0
    checks_free: bool = True


@dataclass(frozen=True, slots=True)
class Foretold:
    """How a start will end: OK or the failure that comes first, with the numbers that the engine would print.

    `doubtful` where the pessimistic view and the optimistic one do not agree on whether it comes up.
    """

    kind: Kind
    pessimistic: Kind
    optimistic: Kind
    numbers: Mapping[str, float]

    @property
    def doubtful(self) -> bool:
        """Whether the ranges of the terms straddle a limit."""
        return (self.pessimistic is Kind.OK) != (self.optimistic is Kind.OK)


def foretell(budget: Budget, need: Need) -> Foretold:
    """Return how a start with this budget ends."""
    kinds = {view: next(_refusals(budget, need, view), Kind.OK) for view in View}
    likely = kinds[View.LIKELY]
    return Foretold(likely, kinds[View.PESSIMISTIC], kinds[View.OPTIMISTIC], _numbers(likely, budget, need))


def foresee(demand: Demand) -> Foretold | None:
    """Predict one start and return how it ends; None where its budget cannot be told."""
    budget, found = predict(demand), subject(demand.settings, demand.situation.model)
    if budget is None or found is None:
        return None
    return foretell(budget, need_of(demand, found.shape))


def need_of(demand: Demand, shape: Shape) -> Need:
    """Return what a start must hold: one request of its whole context, unless the engine fits that itself."""
    run = resolve(demand.settings, demand.situation)
    fits_itself = demand.settings.max_model_len == AUTO
    length = None if fits_itself else run.max_model_len
    in_flight = run.tokens_in_flight

    def fitting(pool: int) -> int:
        return tokens_in(shape, pool, ranks=run.ranks, cache_bytes=run.cache_bytes, batched_tokens=in_flight)

    needed = 0
    if length is not None:
        needed = kv_bytes(shape, length, ranks=run.ranks, cache_bytes=run.cache_bytes, batched_tokens=in_flight)
    return Need(
        needed_bytes=needed,
        max_model_len=length,
        fitting=fitting,
        states=_states(shape, run),
        max_num_seqs=run.max_num_seqs,
        checks_free=run.checks_free,
    )


def _states(shape: Shape, run: Resolved) -> Callable[[int], int] | None:
    """Return how many sequences' states a pool holds: one block each, as long as graphs are captured."""
    block = block_bytes(shape, ranks=run.ranks, cache_bytes=run.cache_bytes)
    if not shape.has(CacheKind.STATE) or not block or not run.capture_sizes:
        return None
    return lambda pool: pool // block


def _refusals(budget: Budget, need: Need, view: View) -> Iterator[Kind]:
    """Give the kinds of failure that a start runs into, in the order of the engine's own checks."""
    free = free_to_engine(budget, view)
    pool, requested = view.left(budget.kv_cache), budget.requested_bytes
    held = view.of(budget.weights) + view.of(budget.non_torch)
    if need.checks_free and budget.checked_bytes > free:
        yield Kind.FREE_MEMORY_LOW
    if max(view.of(budget.loading), view.of(budget.weights)) > free:
        yield Kind.WEIGHTS_OOM
    if held + max(view.of(budget.activation), view.of(budget.trial)) > free:
        yield Kind.PROFILE_OOM
    if pool <= 0 or (need.needed_bytes == 0 and need.fitting(pool) < 1):
        yield Kind.KV_NONE
    if pool < need.needed_bytes:
        yield Kind.KV_TOO_SMALL
    if need.states is not None and need.states(pool) < need.max_num_seqs:
        yield Kind.SEQS_TOO_MANY
    if held + pool > free:
        yield Kind.KV_ALLOC_OOM
    given_back = view.left(budget.activation) + view.left(budget.cudagraph)  # what the profile run took of the request
    if requested - given_back + view.of(budget.capture) > free:
        yield Kind.GRAPH_OOM


def free_to_engine(budget: Budget, view: View) -> int:
    """Return the free memory that the engine will find when it measures: less its own context."""
    free = budget.total_bytes if budget.free_bytes is None else budget.free_bytes
    return free - view.of(budget.outside)


def _numbers(kind: Kind, budget: Budget, need: Need) -> dict[str, float]:
    """Return the figures that the engine prints with a failure of this kind, in its units."""
    if kind is Kind.OK:
        return {}
    free, total = free_to_engine(budget, View.LIKELY) / GIB, budget.total_bytes / GIB
    pool = budget.kv_cache.bytes
    if kind is Kind.KV_NONE:
        return _rounded(available_kv_gib=pool / GIB)
    if kind is Kind.KV_TOO_SMALL:
        return _rounded(
            needed_kv_gib=need.needed_bytes / GIB,
            available_kv_gib=pool / GIB,
            max_seq_len=need.max_model_len or 0,
            estimated_max_len=need.fitting(pool),
        )
    if kind is Kind.SEQS_TOO_MANY:
        return _rounded(num_seqs=need.states(pool) if need.states else 0)
    figures = {"free_gib": free, "total_gib": total}
    if kind is Kind.FREE_MEMORY_LOW:
        requested = budget.checked_bytes
        figures |= {"requested_gib": requested / GIB, "utilization": requested / budget.total_bytes}
    elif kind is Kind.WEIGHTS_OOM:
        figures["weights_gib"] = budget.weights.gib
    return _rounded(**figures)


def _rounded(**figures: float) -> dict[str, float]:
    return {name: figure if isinstance(figure, int) else round(figure, 2) for name, figure in figures.items()}
