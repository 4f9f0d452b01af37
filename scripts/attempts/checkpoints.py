"""A model's folder as a hub leaves it, without its weights: config.json and safetensors files that are all header.

The files have their true sizes and no blocks on the disk (`os.truncate`), so that whoever reads headers and sizes finds
the exact bytes of a 70B model in a few kilobytes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.fake_engine.models import ModelDims

SHARD_BYTES = 5_000_000_000
SIZES = {"BF16": 2, "F16": 2, "I32": 4}
TYPES = {
    "GlmForCausalLM": "glm",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "Qwen3MoeForCausalLM": "qwen3_moe",
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "Phi3ForCausalLM": "phi3",
}
GROUP, PER_WORD = 128, 8

Tensor = tuple[str, str, tuple[int, ...]]
"""Name, type, shape."""


def write(dims: ModelDims, folder: Path) -> Path:
    """Make the folder; give it."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config(dims), indent=1), encoding="utf-8")
    shards = list(_shards(tensors(dims)))
    if len(shards) == 1:
        _safetensors(folder / "model.safetensors", shards[0])
        return folder
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _safetensors(folder / name, shard)
        places |= {tensor[0]: name for tensor in shard}
    total = sum(_bytes(tensor) for shard in shards for tensor in shard)
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder


def config(dims: ModelDims) -> dict[str, Any]:
    """Give config.json."""
    made: dict[str, Any] = {
        "architectures": [dims.architecture],
        "model_type": TYPES[dims.architecture],
        "attention_bias": dims.biases,
        "head_dim": dims.head_dim,
        "hidden_act": "silu",
        "hidden_size": dims.hidden,
        "intermediate_size": dims.intermediate,
        "max_position_embeddings": dims.max_len,
        "num_attention_heads": dims.heads,
        "num_hidden_layers": dims.layers,
        "num_key_value_heads": dims.kv_heads,
        "tie_word_embeddings": dims.tied,
        "torch_dtype": "bfloat16",
        "vocab_size": dims.vocab,
    }
    if dims.experts:
        made |= {"num_experts": dims.experts, "num_experts_per_tok": dims.experts_per_token}
        made |= {"moe_intermediate_size": dims.intermediate, "decoder_sparse_step": 1, "mlp_only_layers": []}
        made["intermediate_size"] = 3 * dims.hidden
    if dims.stored == "awq":
        made["quantization_config"] = {"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True}
    return made


def tensors(dims: ModelDims) -> Iterator[Tensor]:
    """Give every tensor in the order of the layers."""
    yield "model.embed_tokens.weight", "BF16", (dims.vocab, dims.hidden)
    for number in range(dims.layers):
        where = f"model.layers.{number}."
        yield where + "input_layernorm.weight", "BF16", (dims.hidden,)
        yield where + "post_attention_layernorm.weight", "BF16", (dims.hidden,)
        yield from _attention(dims, where + "self_attn.")
        yield from _mlp(dims, where + "mlp.")
    yield "model.norm.weight", "BF16", (dims.hidden,)
    if not dims.tied:
        yield "lm_head.weight", "BF16", (dims.vocab, dims.hidden)


def _attention(dims: ModelDims, where: str) -> Iterator[Tensor]:
    queries, keys = dims.heads * dims.head_dim, dims.kv_heads * dims.head_dim
    parts = {"q_proj": queries, "k_proj": keys, "v_proj": keys}
    if dims.architecture == "Phi3ForCausalLM":
        parts = {"qkv_proj": queries + 2 * keys}
    for name, width in parts.items():
        yield from _linear(dims, where + name, width, dims.hidden)
        if dims.biases:
            yield f"{where}{name}.bias", "BF16", (width,)
    yield from _linear(dims, where + "o_proj", dims.hidden, queries)
    for name in ("q_norm", "k_norm") if dims.head_norms else ():
        yield f"{where}{name}.weight", "BF16", (dims.head_dim,)


def _mlp(dims: ModelDims, where: str) -> Iterator[Tensor]:
    if dims.experts:
        yield where + "gate.weight", "BF16", (dims.experts, dims.hidden)
    for inner in [f"{where}experts.{number}." for number in range(dims.experts)] or [where]:
        if dims.architecture in ("Phi3ForCausalLM", "GlmForCausalLM"):
            yield from _linear(dims, inner + "gate_up_proj", 2 * dims.intermediate, dims.hidden)
        else:
            yield from _linear(dims, inner + "gate_proj", dims.intermediate, dims.hidden)
            yield from _linear(dims, inner + "up_proj", dims.intermediate, dims.hidden)
        yield from _linear(dims, inner + "down_proj", dims.hidden, dims.intermediate)


def _linear(dims: ModelDims, name: str, out: int, into: int) -> Iterator[Tensor]:
    if dims.stored == "bf16":
        yield name + ".weight", "BF16", (out, into)
        return
    yield name + ".qweight", "I32", (into, out // PER_WORD)
    yield name + ".qzeros", "I32", (into // GROUP, out // PER_WORD)
    yield name + ".scales", "F16", (into // GROUP, out)


def _bytes(tensor: Tensor) -> int:
    size = SIZES[tensor[1]]
    for length in tensor[2]:
        size *= length
    return size


def _shards(every: Iterator[Tensor]) -> Iterator[list[Tensor]]:
    shard: list[Tensor] = []
    size = 0
    for tensor in every:
        if shard and size + _bytes(tensor) > SHARD_BYTES:
            yield shard
            shard, size = [], 0
        shard.append(tensor)
        size += _bytes(tensor)
    yield shard


def _safetensors(file: Path, shard: list[Tensor]) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in shard:
        begin, end = end, end + _bytes(tensor)
        header[tensor[0]] = {"dtype": tensor[1], "shape": list(tensor[2]), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write_bytes(len(text).to_bytes(8, "little") + text)
    os.truncate(file, 8 + len(text) + end)
