"""What must hold for every model, every configuration and every file, however it lies."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autolaunch.catalog import catalog
from autolaunch.configuration import read
from autolaunch.entry import Entry
from autolaunch.facts import Weights
from autolaunch.model import look_at
from autolaunch.quantization import quantized
from autolaunch.shape import (
    LONGEST,
    CacheKind,
    CacheLayers,
    Shape,
    block_bytes,
    kv_bytes,
    kv_bytes_per_token,
    tokens_in,
)
from autolaunch.tensors import Reading, Tensor, kept
from autolaunch.weights import Unreadable, read_header, weigh
from tests.unit.checkpoints import write, write_raw

SERVABLE = [entry for entry in catalog().values() if entry.shape is not None]
RANKS = st.sampled_from([1, 2, 4, 8])
BYTES = st.sampled_from([1.0, 2.0, 4.0])
BATCH = st.integers(1, 65_536)
LENGTH = st.integers(1, 1 << 20)


@st.composite
def layers(draw: st.DrawFn) -> CacheLayers:
    """Draw layers that keep any kind of cache."""
    kind = draw(st.sampled_from(list(CacheKind)))
    count, heads = draw(st.integers(1, 100)), draw(st.sampled_from([1, 2, 4, 8, 10, 32]))
    if kind is CacheKind.STATE:
        return CacheLayers(kind, count, heads=heads, state_bytes=draw(st.integers(1, 1 << 23)))
    values = 2 * heads * draw(st.sampled_from([64, 80, 128, 256]))
    if kind is CacheKind.LATENT:
        return CacheLayers(kind, count, draw(st.integers(16, 1024)))
    return CacheLayers(kind, count, values, heads, draw(st.integers(1, 1 << 17)) if kind is CacheKind.SLIDING else 0)


def model(caches: tuple[CacheLayers, ...]) -> Shape:
    """Return a model with these caches."""
    return Shape("", 4096, 13696, 40, 32, 8, 128, 151552, caches)


SHAPES = st.lists(layers(), max_size=3).map(tuple).map(model)


@given(SHAPES, st.tuples(LENGTH, LENGTH), RANKS, BYTES, BATCH)
def test_a_longer_request_never_needs_less(
    shape: Shape, lengths: tuple[int, int], ranks: int, cache_bytes: float, batch: int
) -> None:
    length, more = lengths
    short = kv_bytes(shape, length, ranks=ranks, cache_bytes=cache_bytes, batched_tokens=batch)
    long = kv_bytes(shape, length + more, ranks=ranks, cache_bytes=cache_bytes, batched_tokens=batch)
    assert 0 <= short <= long


@given(SHAPES, st.integers(0, 1 << 40), RANKS, BYTES, BATCH)
def test_what_a_pool_holds_fits_and_one_token_more_does_not(
    shape: Shape, pool: int, ranks: int, cache_bytes: float, batch: int
) -> None:
    found = tokens_in(shape, pool, ranks=ranks, cache_bytes=cache_bytes, batched_tokens=batch)
    one = block_bytes(shape, ranks=ranks, cache_bytes=cache_bytes)
    if found:
        need = kv_bytes(shape, found, ranks=ranks, cache_bytes=cache_bytes, batched_tokens=batch)
        assert need + one <= pool or not shape.caches
    if found < LONGEST:
        need = kv_bytes(shape, found + 1, ranks=ranks, cache_bytes=cache_bytes, batched_tokens=batch)
        assert need + one > pool


@given(SHAPES, RANKS, BYTES)
def test_more_cards_never_need_more_of_each(shape: Shape, ranks: int, cache_bytes: float) -> None:
    alone = kv_bytes_per_token(shape, ranks=1, cache_bytes=cache_bytes)
    shared = kv_bytes_per_token(shape, ranks=ranks, cache_bytes=cache_bytes)
    assert alone / ranks <= shared + 1e-6
    assert shared <= alone


@given(SHAPES, LENGTH, BYTES, BATCH)
def test_a_request_needs_at_least_its_tokens_share(shape: Shape, length: int, cache_bytes: float, batch: int) -> None:
    need = kv_bytes(shape, length, ranks=1, cache_bytes=cache_bytes, batched_tokens=batch)
    growing = kv_bytes_per_token(shape, ranks=1, cache_bytes=cache_bytes)
    assert need >= math.floor(growing * length)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)
KEYS = sorted(
    {
        "architectures", "model_type", "num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads",
        "num_key_value_heads", "head_dim", "vocab_size", "layer_types", "sliding_window", "use_sliding_window",
        "max_window_layers", "sliding_window_pattern", "kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim",
        "num_experts", "moe_intermediate_size", "num_experts_per_tok", "full_attention_interval", "attn_type_list",
        "linear_num_value_heads", "linear_attn_config", "mamba_d_state", "hybrid_override_pattern", "text_config",
        "quantization_config", "rope_scaling", "tie_word_embeddings", "torch_dtype", "num_kv_shared_layers",
        "max_position_embeddings", "no_rope_layers", "attention_chunk_size", "thinker_config", "ffn_config",
        "vision_config", "attn_layer_period", "weight_block_size", "first_k_dense_replace", "shared_experts",
    }
)  # fmt: skip
GOOD: Mapping[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 32, "hidden_size": 4096,
    "intermediate_size": 14336, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
}  # fmt: skip
TYPES = st.sampled_from(
    ["llama", "gemma2", "gemma3_text", "llama4", "mamba", "mamba2", "nemotron_h", "falcon_h1", "deepseek_v32", "jamba",
     "qwen3_next", "glm4_moe", "deepseek_v2", "bert", "minimax", "kimi_linear", "lfm2"]
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(KEYS), ANYTHING, max_size=8), st.booleans(), st.none() | TYPES)
@settings(max_examples=500)
def test_no_configuration_raises_and_none_is_half_believed(
    lies: dict[str, Any], good: bool, model_type: str | None
) -> None:
    config = {**(GOOD if good else {}), **lies} | ({"model_type": model_type} if model_type else {})
    found = read(config)
    doubts = [note for note in found.notes if note.startswith("config.json gives no dimensions: ")]
    assert (found.shape is None) == bool(doubts)
    assert found.max_model_len is None or 0 < found.max_model_len <= LONGEST
    if found.shape is not None:
        numbers = [getattr(found.shape, field.name) for field in fields(Shape)]
        assert all(number >= 0 for number in numbers if isinstance(number, int))
        assert all(cache.count >= 0 and cache.values + cache.state_bytes > 0 for cache in found.shape.caches)
        assert kv_bytes(found.shape, 4096, ranks=1, cache_bytes=2, batched_tokens=2048) >= 0


@given(st.binary(max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_a_header_or_say_why_not(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "m.safetensors"
    file.write_bytes(content)
    with pytest.raises(Unreadable):
        read_header(file)


ENTRY = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["BF16", "F32", "I32", "X", ""]) | ANYTHING,
        "shape": st.lists(st.integers(-2, 100), max_size=3) | ANYTHING,
        "data_offsets": st.lists(st.integers(-2, 1000), max_size=3) | ANYTHING,
    },
)


@given(st.dictionaries(st.text(max_size=20), ENTRY | ANYTHING, max_size=4), st.integers(0, 1000))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
def test_a_header_that_is_believed_stays_within_its_file(tmp_path: Path, table: dict[str, Any], data: int) -> None:
    file = tmp_path / "m.safetensors"
    write_raw(file, json.dumps(table).encode(), data)
    try:
        tensors = read_header(file)
    except Unreadable:
        assert weigh(tmp_path, Reading()).weights is None
        return
    assert all(0 <= tensor.bytes <= data for tensor in tensors)


NAMES = st.sampled_from(
    ["model.layers.{}.mlp.up_proj.weight", "model.layers.{}.mlp.experts.3.up_proj.weight", "mtp.layers.{}.w.weight",
     "visual.blocks.{}.w.weight", "lm_head.weight", "model.embed_tokens.weight", "model.layers.{}.norm.weight"]
)  # fmt: skip
TENSORS = st.lists(
    st.tuples(NAMES, st.integers(0, 60), st.sampled_from(["BF16", "F32", "I32", "U8"]), st.integers(1, 50)),
    max_size=20,
    unique_by=lambda one: one[0].format(one[1]),
)


@given(TENSORS, st.booleans(), st.booleans(), st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_kept_is_part_of_what_is_stored(
    tmp_path: Path, drawn: list[tuple[str, int, str, int]], tied: bool, stored: bool, text_only: bool
) -> None:
    tensors = {name.format(layer): (dtype, (size, 4)) for name, layer, dtype, size in drawn}
    write(tmp_path / "m.safetensors", tensors)
    whole = sum(tensor.bytes for tensor in read_header(tmp_path / "m.safetensors"))
    reading = Reading(layers=40, tied=tied, quantized=stored, text_only=text_only)
    found = weigh(tmp_path, reading).weights
    assert found is not None
    assert 0 <= found.expert_bytes <= found.linear_bytes <= found.loaded_bytes <= whole
    assert not stored or found.linear_bytes == 0


@given(st.permutations([Tensor(f"model.layers.{n}.a.weight", "BF16", (n, 4), 8 * n) for n in range(1, 9)]))
def test_the_order_of_tensors_does_not_matter(tensors: list[Tensor]) -> None:
    assert kept(tensors, Reading(layers=6), source="") == Weights(8 * 15, 8 * 15)


METHODS = st.sampled_from(["fp8", "bitsandbytes", "fp8_per_block", "experts_int8", "awq", ""])


@given(st.integers(1, 10**12), st.floats(0, 1), st.floats(0, 1), METHODS)
def test_quantizing_makes_lighter_and_only_what_is_linear(loaded: int, part: float, routed: float, method: str) -> None:
    linear = int(loaded * part)
    weights = Weights(loaded, linear, int(linear * routed))
    found = quantized(weights, method, capability=None)
    if found is not None:
        assert loaded - linear <= found.loaded_bytes <= loaded
        assert found.linear_bytes < max(1, linear)
        assert quantized(found, method, capability=None) is None


@pytest.mark.parametrize("entry", SERVABLE, ids=lambda entry: entry.name)
def test_every_model_of_the_catalogue_is_known_without_disk_or_network(entry: Entry) -> None:
    found = look_at(entry, environment={"HF_HOME": "/nowhere"})
    assert (found.shape, found.weights, found.notes) == (entry.shape, entry.weights, ())
