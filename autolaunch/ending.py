"""The words of a ladder's end: why it ends, and the nearest things that would help, the user's own limits first.

Pure; owns the wording and the numbers in it. That there is no further step is `ladder`'s to say.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from autolaunch.case import RAISING, TOO_MUCH, Case
from autolaunch.facts import GIB, DeviceKind
from autolaunch.failure import Kind
from autolaunch.rungs import least_needed_gib
from autolaunch.settings import flag, show
from autolaunch.share import SLACK_GIB, free_cap
from autolaunch.strategy import Rung, Strategy

MOST_HINTS = 4

UNSEEN_GIB = 1.0
"""From here on memory that no visible process holds is worth a word: contexts and rounding are less."""


@dataclass(frozen=True, slots=True)
class End:
    """A failure that nothing answers: `blocked` are the values that only a pin forbade, `starts` those so far."""

    case: Case
    strategy: Strategy
    blocked: Mapping[str, Any]
    starts: int = 1


def ending(end: End) -> tuple[str, tuple[str, ...]]:
    """Return why there is no next step, and what would help, the nearest first."""
    kind = end.case.failure.kind
    if kind is Kind.PROFILING_RACE:
        why = f"memory moved in each of {end.starts} starts while the engine measured it"
        return why, ("wait until the other processes on this device are up, or stop them",)
    if kind is Kind.HOST_OOM:
        why = "the host's own memory ran out; no setting of the engine's device memory changes that"
        return why, ("give the host (or its container) more memory, or stop what uses it",)
    return _why(end), tuple(_closest(end))[:MOST_HINTS]


def _why(end: End) -> str:
    kind, name = end.case.failure.kind, end.strategy.name
    if not _answering(end):
        return f"no rung of the strategy {name!r} answers {kind}"
    why = _no_method(end)
    if why:
        return why
    used = f"every rung of the strategy {name!r} that answers {kind} has been used"
    return used + (" or is pinned" if end.blocked else "")


def _answering(end: End) -> list[Rung]:
    """Return the rungs that could have answered: more cards only where more than one is allowed."""
    several = end.case.limits.gpus > 1
    return [
        rung
        for rung in end.strategy.rungs
        if end.case.failure.kind in rung.answers and (several or rung.name != "gpus")
    ]


def _no_method(end: End) -> str:
    """Return why weights that do not fit cannot be loaded in fewer bits; "" where they were or a pin forbids it."""
    case, rungs = end.case, _answering(end)
    quantizing = rungs and all(rung.name == "quantized_weights" for rung in rungs)
    if not quantizing or end.blocked or case.settings.quantization or case.settings.model:
        return ""
    model, device = case.situation.model, case.situation.device
    if model.quantization is not None:
        return f"the weights do not fit although they are quantized already ({model.quantization})"
    has = device.compute_capability
    if not any("fp8" in rung.methods for rung in rungs) or (has is not None and has >= (8, 0)):
        return ""
    what = "it is unknown here" if has is None else f"this card has {has[0]}.{has[1]}"
    return f"the weights do not fit and no way to quantize them applies: FP8 needs compute capability 8.0, {what}"


def _closest(end: End) -> Iterator[str]:
    case = end.case
    for name, value in end.blocked.items():
        yield _allow(case, name, value)
    if not case.failure.memory:
        return
    yield from _limits(case)
    yield from _holders(case)
    if case.failure.kind is not Kind.FREE_MEMORY_LOW:
        quantizes = any(rung.name == "quantized_weights" for rung in end.strategy.rungs)
        if not quantizes and case.situation.model.quantization is None and "quantization" not in case.pins:
            yield "allow quantized weights with --strategy default"
        if case.settings.quantization is None and case.settings.model is None:
            yield "serve a smaller or pre-quantized variant of the model"
    if DeviceKind.CPU in (case.situation.device.kind, case.situation.engine.device):
        yield "give the host (or its container) more memory, or stop other processes that use it"
    else:
        yield "use a card with more memory, or allow more cards with --gpus"


def _limits(case: Case) -> Iterator[str]:
    """Name the limits of the user's own that stand in the way: a floor, a budget, a cache in bytes."""
    limits, missing = case.limits, _missing_gib(case)
    if case.failure.kind not in RAISING:
        if case.pool_is_fixed and case.failure.kind in TOO_MUCH | {Kind.KV_ALLOC_OOM}:
            yield "allow a smaller --kv-cache-memory-bytes, or leave it to the engine"
        return
    if limits.floor_is_wish and case.fitting and case.fitting < limits.min_context:
        yield f"allow --min-context {case.fitting} instead of {limits.min_context}"
    if case.pool_is_fixed:
        need = case.needed_kv_gib
        size = f" of {need:.2f} GiB for {case.context} tokens" if need else ""
        yield f"allow a larger --kv-cache-memory-bytes{size}, or leave it to the engine"
    if limits.memory_bytes is None:
        return
    yours = f"{limits.memory_bytes / GIB:.2f} GiB"
    if missing is None:
        yield f"allow more than the {yours} of --memory"
        return
    wanted = math.ceil((limits.memory_bytes / GIB + missing * 1.02 + SLACK_GIB) * 10) / 10
    total = case.total_gib
    if not case.measured_rightly or total is None or wanted <= free_cap(case.situation.device) * total:
        yield f"allow --memory {wanted:g}GiB instead of {yours}"


def _missing_gib(case: Case) -> float | None:
    available = case.available_kv_gib
    if available is None:
        return None
    if case.failure.kind is Kind.KV_TOO_SMALL and not case.needed_kv_gib:
        return None
    return max(0.0, least_needed_gib(case) - available)


def _holders(case: Case) -> Iterator[str]:
    """Name who holds the device's memory, the largest first, and how much nobody visible holds."""
    device = case.situation.device
    for holder in sorted(device.holders, key=lambda holder: -(holder.used_bytes or 0)):
        if holder.used_bytes:
            yield f"free the {holder.used_bytes / GIB:.2f} GiB that {holder.name} (pid {holder.pid}) holds"
    if case.failure.kind is not Kind.FREE_MEMORY_LOW or device.kind is not DeviceKind.CUDA:
        return
    if not device.total_bytes or device.free_bytes is None or any(h.used_bytes is None for h in device.holders):
        return
    seen = sum(holder.used_bytes or 0 for holder in device.holders)
    unseen = (device.total_bytes - device.free_bytes - seen) / GIB
    if unseen >= UNSEEN_GIB:
        yield f"{unseen:.2f} GiB are held by processes that cannot be seen from here: nvidia-smi on the host shows them"


def _allow(case: Case, name: str, value: Any) -> str:
    yours = getattr(case.settings, name)
    instead = "what your options fix" if yours is None else f"your {show(name, yours)}"
    option = "--model" if name == "model" else flag(name)
    if value is True:
        return f"allow {option} instead of --no-{option.removeprefix('--')}"
    return f"allow {option} {_typed(name, value)} instead of {instead}"


def _typed(name: str, value: Any) -> str:
    if value is None:
        return "engine default"
    shown = show(name, value)
    return ",".join(map(str, shown)) if isinstance(shown, list) else str(shown)
