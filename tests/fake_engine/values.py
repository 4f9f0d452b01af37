"""What the texts' placeholders stand for in one start: arguments, numbers and pids. Pure."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from .arguments import Arguments

PLAUSIBLE: Mapping[str, float] = {
    "total_gib": 23.52,
    "free_gib": 20.11,
    "weights_gib": 17.56,
    "graphs_gib": 0.4,
    "graphs_actual_gib": 0.55,
    "available_kv_gib": 2.69,
    "needed_kv_gib": 5.0,
    "estimated_max_len": 70624,
    "model_max_len": 131072,
    "tried_to_allocate_mib": 108,
}
"""Numbers of a 24 GiB card with GLM-4-9B, for a failure that was asked for and not computed."""

OOM = (
    "CUDA out of memory. Tried to allocate {tried}. GPU 0 has a total capacity of {total_gib:.2f} GiB of "
    "which {left_mib:.2f} MiB is free. Including non-PyTorch memory, this process has {in_use_gib:.2f} GiB memory in "
    "use. Of the allocated memory {allocated_gib:.2f} GiB is allocated by PyTorch, and 12.64 MiB is reserved by "
    "PyTorch but unallocated. If reserved but unallocated memory is large try setting "
    "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation.  See documentation for Memory "
    "Management  (https://docs.pytorch.org/docs/stable/notes/cuda.html"
    "#optimizing-memory-usage-with-pytorch-cuda-alloc-conf)"
)
SECRET = frozenset({"api_key"})
WHOLE = ("estimated_max_len", "model_max_len", "max_model_len", "max_seq_len", "kv_cache_tokens", "num_seqs")


def numbers(kind: str, given: Mapping[str, float], arguments: Mapping[str, object]) -> dict[str, float]:
    """Complete the given numbers so that every text can be filled in and no two of them disagree."""
    known = {**PLAUSIBLE, **given}
    utilization = arguments["gpu_memory_utilization"]
    known.setdefault("utilization", float(utilization) if isinstance(utilization, (int, float)) else 0.92)
    known.setdefault("requested_gib", known["total_gib"] * known["utilization"])
    wanted = arguments.get("max_model_len")
    asked = float(wanted) if isinstance(wanted, (int, float)) and wanted > 0 else known["model_max_len"]
    known.setdefault("max_seq_len", asked)
    if kind == "ok" and "available_kv_gib" not in given:
        known["available_kv_gib"] = 5.5
    if kind == "kv_none" and "available_kv_gib" not in given:
        known["available_kv_gib"] = -1.79
    tokens = int(known["available_kv_gib"] * 1024**3 // (40960 * 16)) * 16
    known.setdefault("kv_cache_tokens", max(0, tokens))
    known.setdefault("max_model_len", known["max_seq_len"] if wanted != -1 else min(tokens, known["max_seq_len"]))
    known.setdefault("in_use_gib", known["free_gib"])
    seqs = arguments.get("max_num_seqs")
    most = float(seqs) if isinstance(seqs, (int, float)) else 256.0
    known.setdefault("num_seqs", most)
    if kind == "seqs_too_many" and known["num_seqs"] >= most:
        known["num_seqs"] = max(1.0, most * 0.42 // 1)
    return known


def fill_values(arguments: Arguments, found: Mapping[str, float], *, reveal: bool) -> dict[str, object]:
    """Give the values of all placeholders but the pids."""
    given = arguments.with_defaults()
    values: dict[str, object] = {name: int(value) if name in WHOLE else value for name, value in found.items()}
    total = found["total_gib"]
    graph_share = found["graphs_gib"] / total
    values |= {
        name: round(float(found[name]), 2) for name in ("free_gib", "total_gib", "requested_gib", "needed_kv_gib")
    }
    values["available_kv_gib"] = round(float(found["available_kv_gib"]), 2)
    values |= {
        "model": arguments.text("model", "facebook/opt-125m"),
        "served": arguments.names()[0],
        "host": arguments.text("host", "0.0.0.0"),
        "port": arguments.number("port", 8000),
        "ranks": arguments.number("tensor_parallel_size", 1),
        "non_default": repr(shown(arguments.given, reveal=reveal)),
        "architecture": "GlmForCausalLM",
        "eager": bool(given.get("enforce_eager")),
        "quantization": given.get("quantization"),
        "kv_cache_dtype": given.get("kv_cache_dtype"),
        "max_num_batched_tokens": given["max_num_batched_tokens"],
        "max_num_seqs": given["max_num_seqs"],
        "utilization_without_graphs": found["utilization"] - graph_share,
        "utilization_with_graphs": found["utilization"] + graph_share,
        "graphs_more_gib": found["graphs_actual_gib"] - found["graphs_gib"],
        "concurrency": found["kv_cache_tokens"] / max(1.0, found["max_model_len"]),
        "non_kv_gib": found["requested_gib"] - found["available_kv_gib"],
        "blocks": int(found["kv_cache_tokens"]) // 16,
        "grown_gib": found.get("grown_gib", found["free_gib"] + 1.5),
        "signal": "SIGTERM",
        "tried_bytes": int(found["tried_to_allocate_mib"] * 1024**2),
        "namespace": ", ".join(f"{name}={value!r}" for name, value in shown(arguments.given, reveal=reveal).items()),
        "free_bytes": int(found["free_gib"] * 1024**3),
        "grown_bytes": int(found.get("grown_gib", found["free_gib"] + 1.5) * 1024**3),
        **_budget(found),
        "cr": "\r",
        "esc": "\x1b",
        "n": 812,
    }
    return values | _out_of_memory(found)


REDUNDANCY_GIB = 150 / 1024
"""What vLLM leaves free when it says which cache would fit (gpu_worker.py)."""


def _budget(found: Mapping[str, float]) -> dict[str, object]:
    """Give what the line with the whole measured budget says."""
    non_torch, activation = found.get("non_torch_gib", 0.25), found.get("activation_gib", 0.6)
    consumed = found["weights_gib"] + non_torch
    beside = consumed + activation + found["graphs_actual_gib"] + REDUNDANCY_GIB
    kept, most = found["requested_gib"] - beside, found["free_gib"] - beside
    return {
        "non_torch_gib": non_torch,
        "activation_gib": activation,
        "consumed_gib": consumed,
        "kept_gib": kept,
        "kept_bytes": int(kept * 1024**3),
        "most_gib": most,
        "most_bytes": int(most * 1024**3),
    }


def _out_of_memory(found: Mapping[str, float]) -> dict[str, object]:
    tried = found["tried_to_allocate_mib"]
    size = f"{tried / 1024:.2f} GiB" if tried >= 1024 else f"{tried:.2f} MiB"
    text = OOM.format(
        tried=size,
        total_gib=found["total_gib"],
        left_mib=found.get("left_mib", tried * 0.14),
        in_use_gib=found["in_use_gib"],
        allocated_gib=max(0.0, found["in_use_gib"] - 0.68),
    )
    return {"oom_plain": text, "oom": f"torch.OutOfMemoryError: {text}", "tried": size}


def shown(given: Mapping[str, object], *, reveal: bool) -> dict[str, object]:
    """Give the arguments that vLLM prints at its start; the API key only if asked to reveal it."""
    return {name: value for name, value in given.items() if reveal or name not in SECRET}
