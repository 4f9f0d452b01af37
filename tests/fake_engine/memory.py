"""A small model of vLLM's memory: what one start does with these arguments on this card. Pure.

By vLLM's own rule: requested = ceil(total * utilization); free < requested fails; available = requested -
weights - non-torch - activation - graph estimate is the pool. The defaults are GLM-4-9B in bfloat16 on a
24 GiB card, fitted to the measured logs of vLLM 0.24. Later terms (noise, neighbours) belong in
`MemoryModel` as fields and in `judge` as one more stage.
"""

from __future__ import annotations

from .record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

GIB = 1024**3


class MemoryModel(Record):
    """The card, the model and what the engine needs besides, all per GPU unless said.

    free_gib            free before the engine starts (NVML's view), None is total_gib.
    context_gib         the engine's CUDA context: lowers what its snapshot sees, not charged to its budget.
    weights_gib         of the whole model unquantized; `quantized` gives the share that is left, by method.
    activation          base + the larger of tokens' and sequences' share (the sampler's logits dominate).
    graphs_gib          the estimate charged to the budget; capture takes graphs_actual_gib. 0 if eager.
    kv_bytes_per_token  of the whole model at two bytes a number; fp8 caches take half.
    """

    total_gib: float = 24.0
    free_gib: float | None = None
    context_gib: float = 0.51
    weights_gib: float = 17.56
    quantized: Mapping[str, float] = {"fp8": 0.57, "awq": 0.33, "gptq": 0.33, "bitsandbytes": 0.33}
    activation_base_gib: float = 0.3
    activation_gib_per_token: float = 0.00006
    activation_gib_per_seq: float = 0.0021
    graphs_gib: float = 0.4
    graphs_actual_gib: float = 0.55
    sampler_gib_per_seq: float = 0.0
    kv_bytes_per_token: int = 40960
    block_size: int = 16
    model_max_len: int = 131072


class Verdict(Record):
    """What the model says: the kind ("ok" when it fits) and every number that the texts need."""

    kind: str
    numbers: Mapping[str, float]


class Demand(Record):
    """The terms of one start in GiB; `pool_gib` is what is left for the KV cache."""

    requested_gib: float
    free_gib: float
    weights_gib: float
    activation_gib: float
    graphs_gib: float
    pool_gib: float
    token_bytes: float


def demand(model: MemoryModel, arguments: Mapping[str, object]) -> Demand:
    """Give the budget terms of a start with these arguments (defaults filled in)."""
    ranks = int(_number(arguments, "tensor_parallel_size", 1))
    utilization = _number(arguments, "gpu_memory_utilization", 0.92)
    tokens = _number(arguments, "max_num_batched_tokens", 2048)
    seqs = _number(arguments, "max_num_seqs", 256)
    share = model.quantized.get(str(arguments.get("quantization")), 1.0)
    weights = model.weights_gib * share / ranks
    activation = model.activation_base_gib + max(
        tokens * model.activation_gib_per_token, seqs * model.activation_gib_per_seq
    )
    graphs = 0.0 if arguments.get("enforce_eager") else model.graphs_gib
    requested = -(-model.total_gib * GIB * utilization // 1) / GIB
    pool = requested - weights - activation - graphs
    if arguments.get("kv_cache_memory_bytes"):
        pool = _number(arguments, "kv_cache_memory_bytes", 0) / GIB
    small_cache = str(arguments.get("kv_cache_dtype", "auto")).startswith("fp8")
    free = model.total_gib if model.free_gib is None else model.free_gib
    return Demand(
        requested_gib=requested,
        free_gib=max(0.0, free - model.context_gib),
        weights_gib=weights,
        activation_gib=activation,
        graphs_gib=graphs,
        pool_gib=pool,
        token_bytes=model.kv_bytes_per_token / (2 if small_cache else 1) / ranks,
    )


def judge(model: MemoryModel, arguments: Mapping[str, object], *, strict: bool = True) -> Verdict:
    """Say how a start with these arguments ends, stage by stage as vLLM meets them.

    Not `strict` is V0, which does not compare free memory with the budget.
    """
    need = demand(model, arguments)
    wanted = arguments.get("max_model_len")
    auto = wanted == -1
    max_len = (
        int(_number(arguments, "max_model_len", model.model_max_len)) if wanted and not auto else model.model_max_len
    )
    numbers = _numbers(model, arguments, need, max_len)
    strict = strict and not arguments.get("kv_cache_memory_bytes")
    if numbers["max_seq_len"] > model.model_max_len:
        kind = "config_error"
    elif strict and need.free_gib < need.requested_gib:
        kind = "free_memory_low"
    else:
        kind = _kind(model, need, numbers, auto=auto)
    return Verdict(kind=kind, numbers=numbers)


def _numbers(model: MemoryModel, arguments: Mapping[str, object], need: Demand, max_len: int) -> dict[str, float]:
    block_bytes = need.token_bytes * model.block_size
    pool_tokens = max(0, int(need.pool_gib * GIB // block_bytes)) * model.block_size
    needed = -(-max_len // model.block_size) * block_bytes / GIB
    return {
        "total_gib": model.total_gib,
        "free_gib": need.free_gib,
        "requested_gib": need.requested_gib,
        "utilization": _number(arguments, "gpu_memory_utilization", 0.92),
        "weights_gib": need.weights_gib,
        "graphs_gib": need.graphs_gib,
        "graphs_actual_gib": model.graphs_actual_gib if need.graphs_gib else 0.0,
        "available_kv_gib": need.pool_gib,
        "needed_kv_gib": needed,
        "estimated_max_len": min(pool_tokens, model.model_max_len),
        "kv_cache_tokens": pool_tokens,
        "max_seq_len": max_len,
        "max_model_len": max_len,
        "model_max_len": model.model_max_len,
        "num_seqs": _number(arguments, "max_num_seqs", 256),
    }


def _kind(model: MemoryModel, need: Demand, numbers: dict[str, float], *, auto: bool) -> str:
    if need.weights_gib > need.free_gib:
        return _short(numbers, need.free_gib, 108)
    if need.weights_gib + need.activation_gib > need.free_gib:
        return _short(numbers, need.free_gib, 594, "profile_oom")
    if need.pool_gib <= 0 or (auto and numbers["kv_cache_tokens"] < model.block_size):
        return "kv_none"
    if auto:
        numbers["max_model_len"] = numbers["estimated_max_len"]
    elif numbers["needed_kv_gib"] > need.pool_gib:
        return "kv_too_small"
    held = need.weights_gib + model.activation_base_gib + need.pool_gib
    if held > need.free_gib:
        return _short(numbers, need.free_gib, need.pool_gib * 1024 / 40, "kv_alloc_oom")
    held += numbers["graphs_actual_gib"]
    if held > need.free_gib:
        return _short(numbers, need.free_gib, 32, "graph_oom")
    if held + numbers["num_seqs"] * model.sampler_gib_per_seq > need.free_gib:
        return "sampler_oom"
    return "ok"


def _short(numbers: dict[str, float], in_use_gib: float, tried_mib: float, kind: str = "weights_oom") -> str:
    numbers["tried_to_allocate_mib"] = tried_mib
    numbers["in_use_gib"] = in_use_gib
    return kind


def _number(arguments: Mapping[str, object], name: str, default: float) -> float:
    value = arguments.get(name, default)
    return float(value) if isinstance(value, (int, float)) else float(default)
