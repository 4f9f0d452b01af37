"""The KV cache as vLLM itself works it out: our bytes must be its bytes, block for block."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from autolaunch.shape import BLOCK_TOKENS, CacheKind, CacheLayers, Shape, block_bytes, kv_bytes
from tests.unit.test_shape import (
    GEMMA_3_27B,
    GEMMA_4_31B,
    GLM,
    GPT_OSS,
    LATENT,
    MAMBA,
    NEMOTRON,
    QWEN_27B,
    QWEN_35B,
    WINDOW,
)

MODELS = {
    "GLM-4-9B": GLM, "GLM-4.7-Flash": LATENT, "Gemma 3 27B": GEMMA_3_27B, "Gemma 4 31B": GEMMA_4_31B,
    "gpt-oss": GPT_OSS, "Qwen3.8-27B": QWEN_27B, "Qwen3.6-35B-A3B": QWEN_35B, "Nemotron": NEMOTRON, "Mamba": MAMBA,
    "a window in every layer": WINDOW,
}  # fmt: skip


def spec(layers: CacheLayers, ranks: int, page: tuple[int, int] | None) -> Any:
    """Return vLLM's specification of one such layer; `page` are a grown block's tokens and bytes."""
    import torch
    from vllm.v1 import kv_cache_interface as vllm

    tokens, padded = page or (BLOCK_TOKENS, None)
    if layers.kind is CacheKind.STATE:
        numbers = layers.state_bytes // min(ranks, layers.heads) // 2
        return vllm.MambaSpec(
            block_size=tokens, shapes=((numbers,),), dtypes=(torch.bfloat16,), page_size_padded=padded
        )
    if layers.kind is CacheKind.LATENT:
        return vllm.MLAAttentionSpec(block_size=tokens, num_kv_heads=1, head_size=layers.values, dtype=torch.bfloat16)
    heads, size = max(1, layers.heads // ranks), layers.values // layers.heads // 2
    common = {"block_size": tokens, "num_kv_heads": heads, "head_size": size, "dtype": torch.bfloat16}
    if layers.kind is CacheKind.SLIDING:
        return vllm.SlidingWindowSpec(**common, sliding_window=layers.window, dcp_sharded=False)
    return vllm.FullAttentionSpec(**common)


def grown(shape: Shape, ranks: int) -> tuple[int, int] | None:
    """Return the block that vLLM's platform grows until it holds a state, None where no attention is beside states."""
    full = next((layers for layers in shape.caches if layers.kind is CacheKind.FULL), None)
    state = next((layers for layers in shape.caches if layers.kind is CacheKind.STATE), None)
    if full is None or state is None:
        return None
    token = 2 * full.values // full.heads * max(1, full.heads // ranks)
    tokens = BLOCK_TOKENS * -(-(state.state_bytes // min(ranks, state.heads)) // (BLOCK_TOKENS * token))
    return tokens, tokens * token


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_a_request_needs_what_vllm_says_it_needs(name: str, ranks: int) -> None:
    from vllm.v1.core import kv_cache_utils as vllm

    layouts = pytest.importorskip("vllm.v1.kv_cache_layout", reason="this release has another interface for its cache")
    shape = MODELS[name]
    layout = next(layout for layout in layouts.KVCacheLayout if not layout.is_block_outermost)
    page = grown(shape, ranks)
    specs = {
        f"model.layers.{kind}.{number}": spec(layers, ranks, page)
        for kind, layers in enumerate(shape.caches)
        for number in range(layers.count)
    }
    for length in (1, 17, 640, 4096, 32_768, 131_072):
        for batch in (512, 8192):
            config: Any = SimpleNamespace(
                model_config=SimpleNamespace(max_model_len=length),
                parallel_config=SimpleNamespace(decode_context_parallel_size=1),
                scheduler_config=SimpleNamespace(disable_hybrid_kv_cache_manager=False),
                cache_config=SimpleNamespace(
                    mamba_cache_mode="align" if page else "none", get_resolved_kv_cache_layout=lambda: layout
                ),
                attention_config=SimpleNamespace(hisparse_config=None),
                max_in_flight_tokens=batch,
                speculative_config=None,
            )
            groups = vllm.get_kv_cache_groups(config, dict(specs))
            needed = vllm._max_memory_usage_bytes_from_groups(config, groups)
            assert kv_bytes(shape, length, ranks=ranks, cache_bytes=2, batched_tokens=batch) == needed
            assert block_bytes(shape, ranks=ranks, cache_bytes=2) == vllm._pool_bytes_per_block(config, groups)
