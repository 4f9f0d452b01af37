"""What an engine start ended in, as a value: the closed list of kinds, the evidence line, its numbers.

Owns the vocabulary that diagnosis, ladder, records and messages share. Must not read logs or decide
anything: patterns live in `diagnose`, cures in `ladder`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType


class Kind(str, Enum):
    """Why a start failed. The values are part of the Contract and never change their spelling."""

    FREE_MEMORY_LOW = "free_memory_low"
    WEIGHTS_OOM = "weights_oom"
    PROFILE_OOM = "profile_oom"
    KV_NONE = "kv_none"
    KV_TOO_SMALL = "kv_too_small"
    SEQS_TOO_MANY = "seqs_too_many"
    KV_ALLOC_OOM = "kv_alloc_oom"
    GRAPH_OOM = "graph_oom"
    SAMPLER_OOM = "sampler_oom"
    RUNTIME_OOM = "runtime_oom"
    OOM = "oom"
    HOST_OOM = "host_oom"
    PROFILING_RACE = "profiling_race"
    CONFIG_ERROR = "config_error"
    MODEL_NOT_FOUND = "model_not_found"
    PORT_IN_USE = "port_in_use"
    HARDWARE_UNSUPPORTED = "hardware_unsupported"
    DISTRIBUTED_ERROR = "distributed_error"
    COMPILE_ERROR = "compile_error"
    OTHER_CRASH = "other_crash"
    UNKNOWN = "unknown"
    OK = "ok"

    def __str__(self) -> str:
        return self.value


MEMORY_KINDS = frozenset(
    {
        Kind.FREE_MEMORY_LOW,
        Kind.WEIGHTS_OOM,
        Kind.PROFILE_OOM,
        Kind.KV_NONE,
        Kind.KV_TOO_SMALL,
        Kind.SEQS_TOO_MANY,
        Kind.KV_ALLOC_OOM,
        Kind.GRAPH_OOM,
        Kind.SAMPLER_OOM,
        Kind.RUNTIME_OOM,
        Kind.OOM,
        Kind.HOST_OOM,
        Kind.PROFILING_RACE,
    }
)
"""Kinds whose cause is memory (the Contract's `memory: true`)."""


class Phase(str, Enum):
    """How far the start had come, in the order of vLLM's own start-up (V0 and V1)."""

    IMPORT = "import"
    CONFIG = "config"
    INIT = "init"
    LOAD = "load"
    PROFILE = "profile"
    KV_CACHE = "kv_cache"
    GRAPHS = "graphs"
    WARMUP = "warmup"
    SERVING = "serving"

    def __str__(self) -> str:
        return self.value


NUMBER_NAMES = (
    "free_gib",
    "total_gib",
    "requested_gib",
    "utilization",
    "needed_kv_gib",
    "available_kv_gib",
    "estimated_max_len",
    "max_seq_len",
    "tried_to_allocate_mib",
    "weights_gib",
    "num_seqs",
)
"""Every name that `Failure.numbers` may hold; the unit is in the name, counts are tokens or sequences."""


def _frozen(numbers: Mapping[str, float] | None = None) -> Mapping[str, float]:
    return MappingProxyType(dict(numbers or {}))


@dataclass(frozen=True, slots=True)
class Failure:
    """One diagnosed outcome.

    `line` is the engine's own line that names the cause (without its log prefix; empty if there is none),
    `line_number` counts from 1 in the whole log (0 if there is no line), `numbers` holds only names of
    `NUMBER_NAMES`, `engine_version` is what the log's banner said, else the
    engine's package.
    """

    kind: Kind
    line: str = ""
    line_number: int = 0
    phase: Phase = Phase.IMPORT
    numbers: Mapping[str, float] = field(default_factory=_frozen)
    engine_version: str | None = None

    @property
    def memory(self) -> bool:
        """Whether memory is the cause."""
        return self.kind in MEMORY_KINDS
