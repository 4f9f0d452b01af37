"""The arithmetic of each rung: which values cure this failure, in the right direction and by the right amount.

Pure functions, one per rung of `strategy.RUNG_NAMES`. Each returns the values it would set, whether or not
the user pinned them (`ladder` takes the pins into account), or None where the rung has no answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from autolaunch.facts import GIB, Device, DeviceKind, Situation
from autolaunch.failure import Failure, Kind
from autolaunch.figures import Effective
from autolaunch.settings import AUTO, Settings
from autolaunch.strategy import Rung

RAISING = frozenset({Kind.KV_NONE, Kind.KV_TOO_SMALL})
"""Failures that more utilization cures; every other kind that utilization answers needs less."""

LAST_RESORT_CONTEXT = 512
"""Tokens below which a context is of no use to anyone, even where nothing else is left."""

BATCH_LEVELS = ((128, 2048), (32, 1024), (8, 512))
"""(max_num_seqs, max_num_batched_tokens), each a clear step below vLLM's defaults 256..1024 and 2048..8192."""

CAPTURE_SIZES = ((1, 2, 4, 8, 16, 32), (1, 2, 4, 8))
"""cudagraph_capture_sizes worth trying when graph capture itself ran out of memory."""

OUTSIDE_BUDGET_BYTES = {DeviceKind.CUDA: int(0.6 * GIB), DeviceKind.CPU: int(1.3 * GIB)}
"""What the engine itself takes before it measures free memory, and does not count: a CUDA context (0.51 GiB on
an H100), or on a host the API server, the engine core and the worker's imports (1.2 GiB with vLLM 0.32)."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the user allows a fitted value to be.

    `min_context`/`max_context` in tokens; `floor_is_wish` says that the user named the floor, so that it holds
    to the end; `concurrency` full-length requests at once; `memory_bytes` caps the engine's budget per GPU.
    """

    min_context: int = 4096
    max_context: int | None = None
    floor_is_wish: bool = False
    concurrency: int = 1
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Bounds:
    """Utilizations known to be wrong: at or below `too_low` there was too little, at `too_high` too much."""

    too_low: float = 0.0
    too_high: float = math.inf


@dataclass(frozen=True, slots=True)
class Case:
    """One failed attempt as a rung sees it."""

    failure: Failure
    settings: Settings
    effective: Effective
    situation: Situation
    limits: Limits
    bounds: Bounds
    last_resort: bool = False

    @property
    def utilization(self) -> float:
        """The share that the failed attempt ran with."""
        return (
            self.settings.gpu_memory_utilization
            or self.failure.numbers.get("utilization")
            or self.situation.engine.default_utilization
        )

    @property
    def total_gib(self) -> float | None:
        """The device's total as the engine counted it, else as it was measured."""
        total = self.failure.numbers.get("total_gib") or self.effective.total_gib
        if total:
            return total
        measured = self.situation.device.total_bytes
        return measured / GIB if measured else None

    @property
    def context(self) -> int | None:
        """The context in tokens that the failed attempt asked for."""
        stated = self.failure.numbers.get("max_seq_len") or self.effective.max_model_len
        wished = self.settings.max_model_len
        if wished is not None and wished != AUTO:
            return wished
        return int(stated) if stated else self.situation.model.max_model_len


@dataclass(frozen=True, slots=True)
class Proposal:
    """Values that a rung would set, and why, in words with numbers."""

    values: Mapping[str, Any]
    why: str


def down(share: float) -> float:
    """Round a share down to three decimals."""
    return math.floor(share * 1000 + 1e-9) / 1000


def up(share: float) -> float:
    """Round a share up to three decimals."""
    return math.ceil(share * 1000 - 1e-9) / 1000


def memory_cap(device: Device, limits: Limits) -> float:
    """Return the share of the device that `--memory` allows (1.0 where it is not given or cannot be told)."""
    if limits.memory_bytes is None or not device.total_bytes:
        return 1.0
    return down(limits.memory_bytes / device.total_bytes)


def free_cap(device: Device) -> float:
    """Return the share that is free to a new engine when it measures (1.0 where unknown)."""
    if device.free_share is None or not device.total_bytes:
        return 1.0
    outside = OUTSIDE_BUDGET_BYTES.get(device.kind, 0)
    return down(max(0.0, device.free_share - outside / device.total_bytes - margin(device)))


def margin(device: Device) -> float:
    """Return the share to leave untouched, since free memory moves: 0.5 % of a card, 3 % of a host's memory."""
    return 0.03 if device.kind is DeviceKind.CPU else 0.005


def ceiling(rung: Rung, case: Case) -> float:
    """Return the largest share that may still be tried."""
    device = case.situation.device
    highest = min(rung.max, memory_cap(device, case.limits), free_cap(device))
    return min(highest, down(case.bounds.too_high - 0.005)) if case.bounds.too_high < math.inf else highest


def utilization(rung: Rung, case: Case) -> Proposal | None:
    """Raise the share for a missing cache, lower it for everything that ran out of real memory."""
    if rung.values:
        return _literal_utilization(rung, case)
    if case.failure.kind in RAISING:
        return _raise_utilization(rung, case)
    return _lower_utilization(rung, case)


def _literal_utilization(rung: Rung, case: Case) -> Proposal | None:
    lower = [value for value in rung.values if value < case.utilization - 1e-9]
    if not lower:
        return None
    return Proposal({"gpu_memory_utilization": lower[0]}, f"the ladder's next share below {case.utilization:g}")


def _raise_utilization(rung: Rung, case: Case) -> Proposal | None:
    now, highest, total = case.utilization, ceiling(rung, case), case.total_gib
    if highest < now + 0.005:
        return None
    missing = missing_kv_gib(case)
    if missing is None or total is None:
        if case.failure.kind is not Kind.KV_NONE:
            return None
        common = min(highest, case.situation.engine.default_utilization)
        if case.situation.device.kind is DeviceKind.CPU:
            common = min(common, host_share(case.situation.device))
        to = common if common > now + 0.02 else highest
        return Proposal({"gpu_memory_utilization": to}, "nothing was left for the KV cache at this share")
    to = up(now + (missing * 1.02 + 0.05) / total)
    if to <= highest:
        return Proposal(
            {"gpu_memory_utilization": to},
            f"{missing:.2f} GiB more make room for the whole KV cache, of {total:.2f} GiB in all",
        )
    if not rung.partial:
        return None
    return Proposal(
        {"gpu_memory_utilization": highest},
        f"{missing:.2f} GiB are missing; this is as far as the free memory allows",
    )


def missing_kv_gib(case: Case) -> float | None:
    """Return how many GiB the KV cache lacks for the wished context and concurrency, None where untold."""
    numbers = case.failure.numbers
    needed, available = numbers.get("needed_kv_gib"), numbers.get("available_kv_gib")
    available = case.effective.available_kv_gib if available is None else available
    length, most = numbers.get("max_seq_len"), numbers.get("estimated_max_len")
    if needed is None and available and length and most:
        needed = available * length / most
    if needed is None or available is None:
        return None
    return max(0.0, needed * case.limits.concurrency - available)


def _lower_utilization(rung: Rung, case: Case) -> Proposal | None:
    now, total = case.utilization, case.total_gib
    numbers = case.failure.numbers
    tried, free = numbers.get("tried_to_allocate_mib"), numbers.get("free_gib")
    if case.failure.kind is Kind.FREE_MEMORY_LOW:
        share = max(free / total if free is not None and total else 0.0, _measured_free(case))
        to = min(down(share - margin(case.situation.device)), down(now - 0.005))
        why = f"{share:.3f} of the memory is free"
        if free is not None and total is not None:
            why = f"{free:.2f} of {total:.2f} GiB were free"
    else:
        least = 0.03 if case.failure.kind is Kind.GRAPH_OOM else 0.05
        short = max(0.0, tried / 1024 - (free or 0.0)) / total if tried and total else 0.0
        to = down(now - max(least, short + 0.01))
        why = "leaves that share outside the engine's budget"
        if tried is not None:
            why = f"an allocation of {tried:.0f} MiB did not fit beside the budget"
    lowest = max(rung.min, case.bounds.too_low + 0.005)
    if to < lowest:
        to = down((now + lowest) / 2)
        if case.failure.kind is Kind.FREE_MEMORY_LOW or to < lowest or to > now - 0.01:
            return None
    return Proposal({"gpu_memory_utilization": to}, why)


def _measured_free(case: Case) -> float:
    device = case.situation.device
    return 0.0 if device.free_share is None else free_cap(device) + margin(device)


def host_share(device: Device) -> float:
    """Return a considerate share of a host's memory for a CPU engine: half of what is available."""
    return down((device.free_share or 0.5) / 2)


def context(rung: Rung, case: Case) -> Proposal | None:
    """Shorten the context to what the engine says fits, or by half on a literal ladder."""
    now = case.context
    if rung.step == "halve":
        lowest = int(rung.min) or case.limits.min_context
        to = max((now or 0) // 2, lowest)
        if now is None or to >= now:
            return None
        return Proposal({"max_model_len": to}, f"half of {now}")
    floor = LAST_RESORT_CONTEXT if case.last_resort and not case.limits.floor_is_wish else case.limits.min_context
    if case.failure.kind is Kind.KV_TOO_SMALL:
        return _fitted_context(case, now, floor)
    if not case.situation.engine.is_v0 or now is None or now // 2 < floor:
        return None
    return Proposal(
        {"max_model_len": now // 2}, "V0 profiles one request of full length: half the context, half the peak"
    )


def _fitted_context(case: Case, now: int | None, floor: int) -> Proposal | None:
    numbers = case.failure.numbers
    most = numbers.get("estimated_max_len")
    needed, available = numbers.get("needed_kv_gib"), numbers.get("available_kv_gib")
    if not most and needed and available and now:
        most = now * available / needed * 0.98
    at_once = case.limits.concurrency
    if most:
        to = int(most) // at_once
        to -= to % 16 if at_once > 1 else 0
        why = f"the KV cache holds {int(most)} tokens" + (f", for {at_once} requests at once" if at_once > 1 else "")
    elif now:
        to, why = now // 2, "the engine did not say how much fits: half"
    else:
        return None
    if case.limits.max_context is not None:
        to = min(to, case.limits.max_context)
    if to < floor or (now is not None and to >= now):
        return None
    return Proposal({"max_model_len": to}, why)


def batch(rung: Rung, case: Case) -> Proposal | None:
    """Ask for fewer sequences and tokens at once: less activation memory, fewer and smaller CUDA graphs."""
    del rung
    settings, failure = case.settings, case.failure
    if failure.kind is Kind.SEQS_TOO_MANY:
        most = failure.numbers.get("num_seqs")
        if not most or (settings.max_num_seqs is not None and most >= settings.max_num_seqs):
            return None
        return Proposal({"max_num_seqs": int(most)}, f"the cache holds the state of {int(most)} sequences")
    if failure.kind is Kind.GRAPH_OOM and not settings.enforce_eager:
        fewer = [s for s in CAPTURE_SIZES if len(s) < len(settings.cudagraph_capture_sizes or range(99))]
        if fewer:
            return Proposal(
                {"cudagraph_capture_sizes": fewer[0]},
                f"{len(fewer[0])} CUDA graphs up to batch size {fewer[0][-1]}",
            )
    for seqs, tokens in BATCH_LEVELS:
        values = _lower(settings, {"max_num_seqs": seqs, "max_num_batched_tokens": tokens})
        if case.situation.engine.is_v0:
            values.pop("max_num_batched_tokens", None)  # V0 without chunked prefill needs it >= the context
        if values:
            return Proposal(values, "less activation memory in the profile run")
    return None


def _lower(settings: Settings, levels: Mapping[str, int]) -> dict[str, int]:
    return {name: level for name, level in levels.items() if (getattr(settings, name) or math.inf) > level}


def eager(rung: Rung, case: Case) -> Proposal | None:
    """Do without CUDA graphs and compilation: their memory is free, each token a little slower."""
    del rung
    if case.settings.enforce_eager:
        return None
    return Proposal({"enforce_eager": True}, "no memory for CUDA graphs, somewhat slower tokens")


def quantized_weights(rung: Rung, case: Case) -> Proposal | None:
    """Load the weights in fewer bits, by the first allowed method that this card and engine can run."""
    settings, situation = case.settings, case.situation
    if situation.model.quantization is not None or settings.model is not None:
        return None
    order = rung.methods
    tried = _method(settings)
    for method in order[order.index(tried) + 1 :] if tried in order else order:
        proposal = _quantize(method, situation)
        if proposal is not None:
            return proposal
    return None


def _method(settings: Settings) -> str | None:
    return "variant" if settings.model is not None else settings.quantization


def _quantize(method: str, situation: Situation) -> Proposal | None:
    capability = situation.device.compute_capability
    if method == "fp8":
        if capability is None or capability < (8, 0):
            return None
        how = "native FP8" if capability >= (8, 9) else "weight-only FP8 (Marlin)"
        return Proposal({"quantization": "fp8"}, f"about half the weight bytes, {how} on this card")
    if method == "variant":
        if situation.model.variant is None:
            return None
        return Proposal(
            {"model": situation.model.variant, "quantization": None},
            "the catalogue's pre-quantized weights of this model",
        )
    if not situation.engine.has_bitsandbytes or situation.device.kind is not DeviceKind.CUDA:
        return None
    return Proposal({"quantization": "bitsandbytes"}, "4-bit weights, a quarter of the bytes")


RUNGS: Mapping[str, Callable[[Rung, Case], Proposal | None]] = {
    "utilization": utilization,
    "context": context,
    "batch": batch,
    "eager": eager,
    "quantized_weights": quantized_weights,
}
