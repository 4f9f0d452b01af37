"""Records of real starts (records.jsonl, one JSON object a line) as the memory model's own types.

Owns the records' field names. A record states a model, a card, settings and what the engine printed; what it leaves
out stays unknown. Which half of them is scored, and how, is `bench_memory`'s.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from autolaunch.budget import Demand
from autolaunch.defaults import resolve
from autolaunch.facts import GIB, Basis, Device, DeviceKind, Engine, Model, Situation, Weights
from autolaunch.settings import Settings
from autolaunch.shape import CacheKind, CacheLayers, Shape
from autolaunch.terms import outside

CAPABILITY = {
    "V100": (7, 0), "T4": (7, 5), "A100": (8, 0), "RTX3080": (8, 6), "RTX3090": (8, 6), "A6000": (8, 6), "A10": (8, 6),
    "L4-": (8, 9), "L40": (8, 9), "RTX4090": (8, 9), "H100": (9, 0), "H200": (9, 0), "GH200": (9, 0), "B200": (10, 0),
    "RTX5080": (12, 0), "RTX5090": (12, 0), "RTXPRO6000": (12, 0), "GB10": (12, 1),
}  # fmt: skip

MEMORY_OUTCOMES = ("kv_too_small", "oom_", "free_lt_requested", "mamba_blocks", "ready")
"""How outcomes begin that memory decided; the others (a gated model, a bad flag) say nothing about it."""

Record = dict[str, Any]


def shape_of(record: Record) -> Shape | None:
    """Return the architecture that a record states, None where it is not whole."""
    more = record["arch_extra"] or {}
    layers, hidden, vocabulary = record["num_hidden_layers"], record["hidden_size"], record["vocab_size"]
    if not layers or not hidden or not vocabulary:
        return None
    heads = record["num_attention_heads"] or 0
    kv_heads = record["num_key_value_heads"] or 0
    head_dim = record["head_dim"] or 0
    return Shape(
        architecture="GptOssForCausalLM" if "gpt-oss" in record["model"] else "",
        hidden_size=hidden,
        intermediate_size=record["intermediate_size"] or 0,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        vocab_size=vocabulary,
        caches=tuple(_caches(record, layers, 2 * kv_heads * head_dim, kv_heads)),
        dtype_bytes=4 if record["dtype"] == "float32" else 2,
        tie_word_embeddings=_tied(record),
        experts=more.get("n_routed_experts") or more.get("num_local_experts") or more.get("num_experts") or 0,
        experts_per_token=more.get("num_experts_per_tok") or more.get("experts_per_token") or 0,
        expert_intermediate_size=more.get("moe_intermediate_size") or record["intermediate_size"] or 0,
        vision=bool(more.get("vision")),
        soft_cap="final_logit_softcapping" in more,
        restored_values=more.get("qk_nope_head_dim", 0) + more.get("v_head_dim", 0),
    )


def _caches(record: Record, layers: int, values: int, heads: int) -> Iterable[CacheLayers]:
    more = record["arch_extra"] or {}
    if more.get("mla") or more.get("sparse_mla"):
        yield CacheLayers(CacheKind.LATENT, layers, more["kv_lora_rank"] + more.get("qk_rope_head_dim", 64))
    elif "sliding_window" in more:
        sliding = layers * 5 // 6 if more.get("pattern") == "5:1" else layers // 2
        yield CacheLayers(CacheKind.SLIDING, sliding, values, heads, more["sliding_window"])
        yield CacheLayers(CacheKind.FULL, layers - sliding, values, heads)
    else:
        state = layers if more.get("mamba1") else more.get("gdn_layers", 0) + more.get("mamba2_layers", 0)
        if state:
            yield CacheLayers(CacheKind.STATE, state, heads=1, state_bytes=_state_bytes(record))
        full = more.get("attention_layers", layers - state)
        if full and values:
            yield CacheLayers(CacheKind.FULL, full, values, heads)


def _state_bytes(record: Record) -> int:
    """Return the state of one layer and sequence: Mamba-1 and -2 worked out, a gated delta net's page as measured."""
    more, width = record["arch_extra"] or {}, 4 if record["dtype"] == "float32" else 2
    if more.get("mamba1"):
        return int(record["intermediate_size"] * (more["state_size"] + more["conv_kernel"] - 1) * width)
    heads = more.get("mamba_num_heads", 0)
    return heads * more.get("mamba_head_dim", 0) * more.get("ssm_state_size", 0) * 4 or 3_211_264


def _tied(record: Record) -> bool:
    more = record["arch_extra"] or {}
    return bool(
        more.get("tied")
        or more.get("tie_word_embeddings")
        or any(name in record["model"] for name in ("gemma", "granite"))
    )


def kind_of(shape: Shape) -> str:
    """Return the kind of model that a table's row is about."""
    if shape.has(CacheKind.STATE):
        return "hybrid"
    if shape.vision:
        return "multimodal"
    if shape.has(CacheKind.LATENT):
        return "MLA"
    return "MoE" if shape.experts else "dense"


def weights_of(record: Record, shape: Shape) -> tuple[Weights, str] | None:
    """Return the bytes of the weights and where they are from: the files, the dimensions, or the engine itself."""
    more = record["arch_extra"] or {}
    file = record["weights_file_bytes"]
    measured = record["weights_gib"]
    if file:
        loaded = file - more.get("mtp_bytes_not_loaded", 0)
        if "Qwen3-0.6B" in record["model"] or "Qwen3-1.7B" in record["model"]:
            loaded -= shape.vocab_size * shape.hidden_size * 2  # the tied head is in the file and not loaded
        if "mamba" in record["model"] and record["dtype"] == "bfloat16":
            loaded //= 2
        return Weights(loaded), "file"
    if (
        not record["quantization"]
        and not shape.experts
        and not shape.vision
        and shape.head_dim
        and not more.get("gdn_layers")
    ):
        return Weights(_counted(record, shape)), "dimensions"
    if measured is None:
        return None
    whole = int(measured * (record["tensor_parallel_size"] or 1) * GIB)
    return Weights(whole, basis=Basis.MEASURED), "log"


def _counted(record: Record, shape: Shape) -> int:
    """Return a dense model's bytes: embeddings, attention, an MLP of two or three matrices."""
    queries, keys = shape.num_attention_heads * shape.head_dim, 2 * shape.num_key_value_heads * shape.head_dim
    matrices = 2 if any(name in record["model"] for name in ("phi-2", "opt-")) else 3
    layer = shape.hidden_size * (2 * queries + keys + matrices * shape.intermediate_size)
    tables = shape.vocab_size * shape.hidden_size * (1 if shape.tie_word_embeddings else 2)
    return (shape.num_hidden_layers * layer + tables) * shape.dtype_bytes


def demand_of(record: Record) -> tuple[Demand, str] | None:
    """Return the start that a record tells of, and where its weights are from; None where too little is known."""
    shape = shape_of(record)
    known = None if shape is None else weights_of(record, shape)
    total = record["gpu_total_bytes"] or int((record["gpu_total_gib"] or 0) * GIB)
    if shape is None or known is None or not total or (record["pipeline_parallel_size"] or 1) > 1:
        return None
    family = record["gpu_family"] or ""
    capability = next((found for name, found in CAPABILITY.items() if family.startswith(name)), None)
    settings = Settings(
        gpu_memory_utilization=record["gpu_memory_utilization"],
        max_model_len=record["max_model_len"],
        max_num_seqs=record["max_num_seqs"],
        max_num_batched_tokens=record["max_num_batched_tokens"],
        enforce_eager=record["enforce_eager"],
        kv_cache_dtype=record["kv_cache_dtype"],
        tensor_parallel_size=record["tensor_parallel_size"],
    )
    device = Device(DeviceKind.CUDA, record["gpu"] or family, total, total, capability)
    length = record["max_model_len"]
    model = Model(length, record["quantization"], name=record["model"], shape=shape, weights=known[0])
    situation = Situation(device, Engine(version_of(record), DeviceKind.CUDA), model)
    return Demand(settings, replace(situation, device=_before(record, settings, situation))), known[1]


def _before(record: Record, settings: Settings, situation: Situation) -> Device:
    """Return the card as it was before the start: idle, unless less was free than the engine's own context explains."""
    device, found = situation.device, record["free_at_start_gib"]
    if found is None or device.total_bytes is None:
        return device
    taken = outside(device, resolve(settings, situation))
    free = int(found * GIB) + taken.bytes
    return replace(device, free_bytes=device.total_bytes if device.total_bytes - free <= taken.above else free)


def came_up(record: Record) -> bool | None:
    """Return whether the start came up, None where something other than memory decided."""
    outcome = str(record["outcome"])
    return outcome.startswith("ready") if outcome.startswith(MEMORY_OUTCOMES) else None


def told_whole(record: Record) -> bool:
    """Whether a record's release is stated, not inferred, so that its defaults are known where it names none."""
    return record["vllm_version"] is not None


def version_of(record: Record) -> str | None:
    """Return the release, a hint of it where only that is there, None where nothing is stated."""
    hint = (record["vllm_version_hint"] or "").lstrip("~").split(" ")[0].split("-")[0]
    if record["vllm_version"]:
        return str(record["vllm_version"])
    if record["runner"] == "V0":
        return "0.7.0"
    parts = hint.split(".")
    return hint.replace("x", "0") if len(parts) > 1 and parts[0] == "0" and parts[1].isdecimal() else None
