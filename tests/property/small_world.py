"""A tiny model of vLLM's memory, written from its sources and the measured starts, not from the code under test.

A `World` is a card, its neighbour and a model; `start` says how one start with these settings ends there, in
the figures that the engine prints. `roomy` searches the ladder's own knobs for anything that comes up.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from autolaunch.case import Limits
from autolaunch.facts import GIB, Device, DeviceKind, Engine, Holder, Model, Situation, Variant
from autolaunch.failure import Failure, Kind, Phase
from autolaunch.figures import Effective
from autolaunch.settings import AUTO, Settings

WEIGHT_SHARES = {None: 1.0, "awq": 0.33, "fp8": 0.57, "bitsandbytes": 0.33, "variant": 0.38}


@dataclass(frozen=True, slots=True)
class World:
    """A card of `total_gib`; `free_gib` before each start, the last one from then on. Sizes in GiB.

    `double_gib` is memory the engine counts once and needs twice when it allocates the cache;
    `graphs_gib` is what capturing takes, of which `graphs_seen` is in the engine's own estimate.
    `pool_gib` is a cache that the user sized with --kv-cache-memory-bytes.
    """

    total_gib: float
    free_gib: tuple[float, ...]
    weights_gib: float
    context_gib: float = 0.51
    base_gib: float = 0.3
    gib_per_token: float = 0.0002
    gib_per_seq: float = 0.0015
    graphs_gib: float = 0.6
    graphs_seen: float = 1.0
    double_gib: float = 0.0
    sampler_gib_per_seq: float = 0.0
    kv_bytes: int = 40960
    model_len: int = 131072
    default_tokens: int = 2048
    default_seqs: int = 256
    pool_gib: float | None = None
    version: str | None = "0.24.0"
    measured: bool = True
    capability: tuple[int, int] | None = (8, 9)
    bitsandbytes: bool = False
    variant: str | None = None

    @property
    def engine(self) -> Engine:
        """The engine as autolaunch knows it."""
        return Engine(self.version, DeviceKind.CUDA, self.bitsandbytes)

    def free(self, attempt: int) -> float:
        """Free memory before a start, counted from 0."""
        return self.free_gib[min(attempt, len(self.free_gib) - 1)]

    def situation(self, attempt: int) -> Situation:
        """What autolaunch measures before that start."""
        if not self.measured:
            device = Device(DeviceKind.CUDA, "card", compute_capability=self.capability)
        else:
            free, held = self.free(attempt), self.total_gib - self.free(attempt)
            holders = (Holder(7, "neighbour", int(held * GIB)),) if held > 0.1 else ()
            device = Device(
                DeviceKind.CUDA, "card", int(self.total_gib * GIB), int(free * GIB), self.capability, holders
            )
        variants = (Variant(self.variant, "awq"),) if self.variant else ()
        return Situation(device, self.engine, Model(self.model_len, None, variants))

    def settled(self) -> World:
        """The same world once the neighbour has stopped moving."""
        return replace(self, free_gib=self.free_gib[-1:])


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a start ends: no failure is a server that is up."""

    failure: Failure | None
    effective: Effective


def _oom(kind: Kind, phase: Phase, tried_gib: float, free_gib: float, total_gib: float) -> Failure:
    numbers = {
        "tried_to_allocate_mib": round(max(tried_gib, 0.002) * 1024, 2),
        "free_gib": round(max(0.0, free_gib), 6),
        "total_gib": round(total_gib, 2),
    }
    return Failure(kind, line="torch.OutOfMemoryError: CUDA out of memory.", phase=phase, numbers=numbers)


def weights_of(world: World, settings: Settings) -> float:
    """Return the weights' bytes in GiB with these settings."""
    return world.weights_gib * WEIGHT_SHARES["variant" if settings.model else settings.quantization]


def activation_of(world: World, settings: Settings, length: int) -> float:
    """Return the peak of the profile run in GiB; V0 profiles a whole context."""
    tokens = settings.max_num_batched_tokens or world.default_tokens
    if world.engine.is_v0:
        tokens = max(tokens, length)
    return tokens * world.gib_per_token + (settings.max_num_seqs or world.default_seqs) * world.gib_per_seq


def graphs_of(world: World, settings: Settings) -> float:
    """Return what CUDA graphs take in GiB: none if eager, less with fewer sizes or sequences."""
    if settings.enforce_eager:
        return 0.0
    full = min(settings.max_num_seqs or world.default_seqs, 256) / 256
    sizes = settings.cudagraph_capture_sizes
    return world.graphs_gib * (min(full, len(sizes) / 35) if sizes else full)


def start(world: World, settings: Settings, attempt: int = 0) -> Outcome:
    """Say how a start with these settings ends, stage by stage as vLLM meets them."""
    length = settings.max_model_len
    asked = world.model_len if length in (None, AUTO) else int(length or 0)
    said = Effective(max_model_len=asked)
    share = settings.gpu_memory_utilization or world.engine.default_utilization
    free = world.free(attempt) - world.context_gib
    requested = world.total_gib * share
    if not world.engine.is_v0 and world.pool_gib is None and requested > free:
        numbers = {
            "free_gib": round(free, 2),
            "total_gib": round(world.total_gib, 2),
            "utilization": share,
            "requested_gib": round(requested, 2),
        }
        line = "Free memory on device is less than desired GPU memory utilization"
        return Outcome(Failure(Kind.FREE_MEMORY_LOW, line=line, phase=Phase.INIT, numbers=numbers), said)
    weights, peak = weights_of(world, settings), activation_of(world, settings, asked)
    if weights > free:
        return Outcome(_oom(Kind.WEIGHTS_OOM, Phase.LOAD, 0.1, 0.01, world.total_gib), said)
    said = replace(said, weights_gib=round(weights, 2))
    if weights + world.base_gib + peak > free:
        return Outcome(_oom(Kind.PROFILE_OOM, Phase.PROFILE, 0.12, 0.07, world.total_gib), said)
    estimate = 0.0 if world.engine.is_v0 else graphs_of(world, settings) * world.graphs_seen
    pool = world.pool_gib
    if pool is None:
        pool = requested - weights - world.base_gib - peak - estimate
    said = replace(said, available_kv_gib=round(pool, 2))
    return _serve(world, settings, said, pool=pool, free=free)


def _serve(world: World, settings: Settings, said: Effective, *, pool: float, free: float) -> Outcome:
    tokens = int(max(0.0, pool) * GIB / world.kv_bytes) // 16 * 16
    asked = said.max_model_len or 0
    if pool <= 0 or (settings.max_model_len == AUTO and tokens == 0):
        line = "No available memory for the cache blocks"
        return Outcome(Failure(Kind.KV_NONE, line=line, phase=Phase.KV_CACHE), said)
    if settings.max_model_len == AUTO and tokens < asked:
        said = replace(said, max_model_len=tokens, auto_fit_from=asked)
    elif tokens < asked:
        numbers: dict[str, float] = {"max_seq_len": asked, "estimated_max_len": tokens}
        if not world.engine.is_v0:
            numbers["needed_kv_gib"] = round(asked * world.kv_bytes / GIB, 2)
            numbers["available_kv_gib"] = round(pool, 2)
        return Outcome(Failure(Kind.KV_TOO_SMALL, line="too small", phase=Phase.KV_CACHE, numbers=numbers), said)
    length = said.max_model_len or 1
    said = replace(said, kv_cache_tokens=tokens, max_concurrency=round(tokens / (-(-length // 16) * 16), 2))
    weights = weights_of(world, settings)
    held = weights + world.base_gib + pool
    if held + world.double_gib > free:
        left = (held + world.double_gib - free) % 1.5
        return Outcome(_oom(Kind.KV_ALLOC_OOM, Phase.KV_CACHE, left + 0.3, 0.3, world.total_gib), said)
    held += graphs_of(world, settings)
    if held > free:
        return Outcome(_oom(Kind.GRAPH_OOM, Phase.GRAPHS, 0.03, 0.01, world.total_gib), said)
    seqs = settings.max_num_seqs or world.default_seqs
    if held + seqs * world.sampler_gib_per_seq > free:
        failure = Failure(Kind.SAMPLER_OOM, line="sampler", phase=Phase.WARMUP, numbers={"num_seqs": seqs})
        return Outcome(failure, said)
    return Outcome(None, said)


SMALLEST: dict[str, Any] = {
    "max_num_seqs": 8,
    "max_num_batched_tokens": 512,
    "enforce_eager": True,
    "cudagraph_capture_sizes": (1, 2, 4, 8),
}
"""The ladder's last value of every knob but share, context and weights."""


def roomy(world: World, limits: Limits, pinned: Settings, pins: frozenset[str], *, methods: tuple[str, ...]) -> bool:
    """Whether something within the limits comes up with room: over a window of shares, not on a knife's edge."""
    world = world.settled()
    least = limits.min_context if limits.floor_is_wish else min(512, limits.min_context)
    length = min(least, world.model_len)
    smallest = {name: value for name, value in SMALLEST.items() if name not in pins}
    if world.engine.is_v0:
        smallest.pop("max_num_batched_tokens", None)
    if "max_num_batched_tokens" in smallest and "max_num_seqs" in pins:
        smallest["max_num_batched_tokens"] = max(512, pinned.max_num_seqs or world.default_seqs)
    if "max_model_len" not in pins:
        smallest["max_model_len"] = length
    weights: list[dict[str, Any]] = [{}]
    if "quantization" not in pins:
        if "fp8" in methods and world.capability and world.capability >= (8, 0):
            weights.append({"quantization": "fp8"})
        if "variant" in methods and world.variant and "model" not in pins:
            weights.append({"model": world.variant})
        if "bitsandbytes" in methods and world.bitsandbytes and not (world.variant and "model" not in pins):
            weights.append({"quantization": "bitsandbytes"})
    sizes = (False,) if pins & {"gpu_memory_utilization"} else (False, True)  # what gave way never grows back
    for heavy in sizes:
        for method in weights:
            lean = pinned.changed(**{**({} if heavy else smallest), **method})
            if heavy and "max_model_len" not in pins:
                lean = lean.changed(max_model_len=length)
            if _window(world, limits, lean, pins):
                return True
    return False


def _window(world: World, limits: Limits, settings: Settings, pins: frozenset[str]) -> bool:
    if "gpu_memory_utilization" in pins:
        return _good(world, limits, settings)
    highest = 0.95 if limits.memory_bytes is None else min(0.95, limits.memory_bytes / GIB / world.total_gib)
    if world.engine.is_v0:  # which does not compare its budget with what is free
        highest = min(highest, (world.free(0) - world.context_gib) / world.total_gib)
    run, share = 0, 0.06
    while share <= highest:
        run = run + 1 if _good(world, limits, settings.changed(gpu_memory_utilization=share)) else 0
        if run == 4:
            return True
        share = round(share + 0.01, 3)
    return False


def _good(world: World, limits: Limits, settings: Settings) -> bool:
    outcome = start(world, settings)
    if outcome.failure is not None:
        return False
    least = limits.min_context if limits.floor_is_wish else min(512, limits.min_context)
    if (outcome.effective.max_model_len or 0) < min(least, world.model_len):
        return False
    return limits.concurrency == 1 or (outcome.effective.max_concurrency or 0) >= limits.concurrency * 1.1
