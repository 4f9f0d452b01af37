"""Where a run stands on its ladder, how it begins, and what a step and the end of the ladder are.

Pure. Owns the first attempt's share and context; what follows a failure is `ladder`'s.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from autolaunch.case import RAISING, Bounds, Case, Effort, Limits
from autolaunch.defaults import usual_seqs
from autolaunch.facts import GIB, DeviceKind, Situation
from autolaunch.failure import Failure
from autolaunch.figures import Effective
from autolaunch.rungs import lighter_weights
from autolaunch.settings import AUTO, Change, Settings
from autolaunch.share import free_cap, host_share, memory_cap
from autolaunch.strategy import Strategy

START = "start"


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

    def case(self, failure: Failure, effective: Effective, situation: Situation, *, effort: Effort) -> Case:
        """Return a failure as the rungs see it from here."""
        case = Case(
            failure, self.settings, effective, situation, self.limits, bounds=self.bounds, pins=self.pins, effort=effort
        )
        rungs = (rung for rung in self.strategy.rungs if rung.name == "quantized_weights" and rung.answers & RAISING)
        ways = (way for rung in rungs for way in lighter_weights(rung, case))
        return replace(case, lighter=any(self.pins.isdisjoint(way.values) for way in ways))


@dataclass(frozen=True, slots=True)
class Step:
    """One rung applied once: the climb after it, what changed and why."""

    climb: Climb
    rung: str
    why: str
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Exhausted:
    """No step follows: why, and the nearest things that would help, in the reader's words.

    `stops_short` where a rung has an answer, and no further start is allowed.
    """

    why: str
    closest: tuple[str, ...]
    stops_short: bool = False


def begin(strategy: Strategy, limits: Limits, pinned: Settings, *, pins: frozenset[str], situation: Situation) -> Climb:
    """Return the climb at its first attempt: pinned values, then the strategy's start, within the limits."""
    settings = pinned
    if "gpu_memory_utilization" not in pins:
        settings = settings.changed(gpu_memory_utilization=start_utilization(strategy, limits, situation))
    if "max_model_len" not in pins:
        settings = settings.changed(max_model_len=_start_context(strategy, limits, situation))
    if "max_num_seqs" not in pins and limits.concurrency > usual_seqs(situation.device, situation.engine):
        settings = settings.changed(max_num_seqs=limits.concurrency)  # fewer would never be served at once
    return Climb(strategy, limits, pins, settings, tried=frozenset({settings}), free_share=situation.device.free_share)


def start_utilization(strategy: Strategy, limits: Limits, situation: Situation) -> float | None:
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
