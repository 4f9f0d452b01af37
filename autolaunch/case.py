"""One failed attempt as a rung sees it: the failure, the settings, what was measured, what is allowed and known.

Owns the values that the rungs read and the one they return. Must not decide anything: the arithmetic is in
`share` and `rungs`, the order and the pins are `ladder`'s.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from autolaunch.facts import GIB, Situation
from autolaunch.failure import Failure, Kind
from autolaunch.figures import Effective
from autolaunch.settings import AUTO, Settings

RAISING = frozenset({Kind.KV_NONE, Kind.KV_TOO_SMALL})
"""Failures that more utilization cures; every other kind that utilization answers needs less."""

TAKEN = frozenset({Kind.FREE_MEMORY_LOW, Kind.KV_ALLOC_OOM})
"""Failures that say the memory is not there, whatever the engine would do with it."""

TOO_MUCH = frozenset({Kind.GRAPH_OOM, Kind.SAMPLER_OOM, Kind.RUNTIME_OOM, Kind.OOM})
"""Failures that say the budget left too little beside itself, for what the engine does at these settings."""

LAST_RESORT_CONTEXT = 512
"""Tokens below which a context is of no use to anyone, even where nothing else is left."""

SAME_TOTAL = 0.25
"""How far the engine's total and the measured one may differ and still be the same memory."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the user allows a fitted value to be.

    `min_context`/`max_context` in tokens; `floor_is_wish` says that the user named the floor, so that it holds
    to the end; `concurrency` full-length requests at once; `memory_bytes` caps the engine's budget per GPU; `gpus`
    cards may be used at once.
    """

    min_context: int = 4096
    max_context: int | None = None
    floor_is_wish: bool = False
    concurrency: int = 1
    memory_bytes: int | None = None
    gpus: int = 1

    @property
    def least_context(self) -> int:
        """The shortest context that may ever be served: the user's floor, else what is of use to anyone."""
        return self.min_context if self.floor_is_wish else min(self.min_context, LAST_RESORT_CONTEXT)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Utilizations known to be wrong.

    At or below `too_low` there was too little for the cache, at `too_high` too little beside the budget: both
    hold for one demand and are forgotten when a rung lessens it. At `taken` the memory itself was not there:
    that holds until more is free than `free_then`. `refusals` counts the starts that found much less free than
    was measured, `overruns` those that had too much at the present demand.
    """

    too_low: float = 0.0
    too_high: float = math.inf
    taken: float = math.inf
    free_then: float | None = None
    refusals: int = 0
    overruns: int = 0

    @property
    def upper(self) -> float:
        """The least share known to be too much."""
        return min(self.too_high, self.taken)


class Effort(Enum):
    """How far the rungs go, in the order in which they are asked.

    SPARING passes over a concession that the engine's numbers prove too small to cure anything without a rung
    behind it; FULL takes it, since what lies behind has no answer; LAST_RESORT also goes below the usual floor
    and takes what does not cure alone. A literal ladder takes its rungs BLIND, in their order.
    """

    BLIND = 0
    SPARING = 1
    FULL = 2
    LAST_RESORT = 3


@dataclass(frozen=True, slots=True)
class Proposal:
    """Values that a rung would set, and why, in words with numbers."""

    values: Mapping[str, Any]
    why: str


@dataclass(frozen=True, slots=True)
class Case:
    """One failed attempt as a rung sees it; `lighter` says that a rung could still load the weights in fewer bits."""

    failure: Failure
    settings: Settings
    effective: Effective
    situation: Situation
    limits: Limits
    bounds: Bounds = Bounds()
    pins: frozenset[str] = frozenset()
    effort: Effort = Effort.SPARING
    lighter: bool = True

    @property
    def last_resort(self) -> bool:
        """Whether every rung has had its say in vain."""
        return self.effort is Effort.LAST_RESORT

    def number(self, name: str) -> float | None:
        """Return one of the failure's own numbers; a size or count below zero or not finite is no number."""
        value = self.failure.numbers.get(name)
        if value is None or not math.isfinite(value) or (value < 0 and name != "available_kv_gib"):
            return None
        return value

    @property
    def before_cache(self) -> bool:
        """Whether the engine died after it had loaded the weights and before it sized the cache.

        Of the budget nothing but the weights was taken then: 1.16 GiB for Inductor's autotuning did not fit
        beside GLM-4-9B on 20 GiB, at any share.
        """
        said = self.effective
        return said.weights_gib is not None and said.available_kv_gib is None and said.kv_cache_tokens is None

    @property
    def utilization(self) -> float:
        """The share that the failed attempt ran with."""
        stated = self.number("utilization")
        return (
            self.settings.gpu_memory_utilization
            or (stated if stated and stated <= 1 else None)
            or self.situation.engine.default_utilization
        )

    @property
    def total_gib(self) -> float | None:
        """The device's total as the engine counted it, else as it was measured."""
        total = self.number("total_gib") or self.effective.total_gib
        if total and total > 0:
            return total
        measured = self.situation.device.total_bytes
        return measured / GIB if measured else None

    @property
    def measured_rightly(self) -> bool:
        """Whether what was measured is the memory that the engine counts (not one slice of it, or another card)."""
        stated, measured = self.number("total_gib") or self.effective.total_gib, self.situation.device.total_bytes
        if not measured or self.situation.device.free_bytes is None:
            return False
        return not stated or abs(stated - measured / GIB) <= SAME_TOTAL * stated

    @property
    def context(self) -> int | None:
        """The context in tokens that the failed attempt asked for."""
        wished = self.settings.max_model_len
        if wished is not None and wished != AUTO:
            return wished
        stated = self.number("max_seq_len") or self.effective.max_model_len
        return int(stated) if stated else self.situation.model.max_model_len

    @property
    def available_kv_gib(self) -> float | None:
        """What the engine had for its KV cache; negative where the rest of it took more than the budget."""
        stated = self.number("available_kv_gib")
        return self.effective.available_kv_gib if stated is None else stated

    @property
    def fitting(self) -> int | None:
        """The longest context in tokens that the engine's numbers say would have fitted, all requests counted."""
        most = self.number("estimated_max_len")
        needed, available, now = self.number("needed_kv_gib"), self.available_kv_gib, self.context
        if not most and needed and available and available > 0 and now:
            most = now * available / needed * 0.98
        if not most:
            return None
        at_once = self.limits.concurrency
        fit = int(most) // at_once
        return fit - fit % 16 if at_once > 1 else fit

    @property
    def needed_kv_gib(self) -> float | None:
        """The KV cache for the wished context and concurrency, None where the engine's numbers do not tell."""
        needed, available = self.number("needed_kv_gib"), self.available_kv_gib
        length, most = self.number("max_seq_len"), self.number("estimated_max_len")
        if needed is None and available and available > 0 and length and most:
            needed = available * length / most
        return None if needed is None else needed * self.limits.concurrency

    @property
    def overhead_gib(self) -> float | None:
        """What the engine took beside weights and cache: all that fewer sequences, tokens and graphs could save."""
        total, weights, available = self.total_gib, self.effective.weights_gib, self.available_kv_gib
        if total is None or weights is None or available is None:
            return None
        return max(0.0, total * self.utilization - weights - available)

    @property
    def pool_is_fixed(self) -> bool:
        """Whether the user fixed the cache's size in bytes, so that no utilization has a say."""
        return "gpu_memory_utilization" in self.pins and self.settings.gpu_memory_utilization is None
