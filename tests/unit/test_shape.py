"""The KV cache a model needs: per token, per request, and how long a context a pool holds."""

from __future__ import annotations

import pytest

from autolaunch.facts import GIB
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


def shape(*caches: CacheLayers, heads: int = 32, kv_heads: int = 2) -> Shape:
    """Return a model with these caches."""
    return Shape("", 4096, 13696, 40, heads, kv_heads, 128, 151552, caches)


GLM = shape(CacheLayers(CacheKind.FULL, 40, 512, 2))
LATENT = shape(CacheLayers(CacheKind.LATENT, 47, 576))
GEMMA_3_27B = shape(
    CacheLayers(CacheKind.FULL, 10, 4096, 16), CacheLayers(CacheKind.SLIDING, 52, 4096, 16, window=1024)
)
GEMMA_4_31B = shape(CacheLayers(CacheKind.FULL, 10, 4096, 4), CacheLayers(CacheKind.SLIDING, 50, 8192, 16, window=1024))
GPT_OSS = shape(CacheLayers(CacheKind.FULL, 18, 1024, 8), CacheLayers(CacheKind.SLIDING, 18, 1024, 8, window=128))
QWEN_27B = shape(
    CacheLayers(CacheKind.FULL, 16, 2048, 4), CacheLayers(CacheKind.STATE, 48, heads=48, state_bytes=3_207_168)
)
QWEN_35B = shape(
    CacheLayers(CacheKind.FULL, 10, 1024, 2), CacheLayers(CacheKind.STATE, 30, heads=32, state_bytes=2_146_304)
)
NEMOTRON = shape(
    CacheLayers(CacheKind.FULL, 6, 512, 2), CacheLayers(CacheKind.STATE, 23, heads=64, state_bytes=2_134_016)
)
MAMBA = shape(CacheLayers(CacheKind.STATE, 64, heads=5120, state_bytes=194_560))
WINDOW = shape(CacheLayers(CacheKind.SLIDING, 32, 2048, 8, window=4096))


@pytest.mark.parametrize(
    ("model", "ranks", "cache_bytes", "expected"),
    [
        (GLM, 1, 2, 40_960),
        (GLM, 2, 2, 20_480),
        (GLM, 8, 2, 20_480),
        (GLM, 1, 1, 20_480),
        (LATENT, 1, 2, 54_144),
        (LATENT, 4, 2, 54_144),
        (GEMMA_3_27B, 1, 2, 81_920),
        (GPT_OSS, 1, 2, 36_864),
        (QWEN_27B, 2, 2, 32_768),
        (MAMBA, 1, 2, 0),
        (shape(), 1, 2, 0),
    ],
)
def test_a_token_takes_what_the_growing_layers_keep(
    model: Shape, ranks: int, cache_bytes: float, expected: float
) -> None:
    assert kv_bytes_per_token(model, ranks=ranks, cache_bytes=cache_bytes) == expected


def test_a_full_length_request_to_glm_4_9b_takes_five_gib() -> None:
    assert kv_bytes(GLM, 131_072, ranks=1, cache_bytes=2, batched_tokens=2048) == 5 * GIB
    assert kv_bytes(GLM, 131_073, ranks=1, cache_bytes=2, batched_tokens=2048) == 5 * GIB + 16 * 40_960


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (GLM, 655_360),
        (GEMMA_4_31B, 2_621_440),
        (QWEN_27B, 51_380_224),
        (QWEN_35B, 21_626_880),
        (NEMOTRON, 12_877_824),
        (MAMBA, 64 * 194_560),
        (shape(), 0),
    ],
)
def test_a_block_is_as_large_as_real_engines_print_it(model: Shape, expected: int) -> None:
    assert block_bytes(model, ranks=1, cache_bytes=2) == expected


@pytest.mark.parametrize(
    ("model", "length", "blocks"),
    [
        (GLM, 1, 1),
        (GLM, 17, 2),
        (WINDOW, 100, 8),
        (WINDOW, 131_072, (4095 + 2048) // 16 + 2),
        (GEMMA_3_27B, 32_768, 2048 + 6 * (192 + 1)),
        (GEMMA_4_31B, 16_384, 512 + 5 * (192 + 1)),
        (GPT_OSS, 131_072, 8192 + 136 + 1),
        (QWEN_27B, 784, 1 + 3 * 2),
        (QWEN_27B, 785, 2 + 3 * 2),
        (MAMBA, 131_072, 1),
    ],
)
def test_a_request_takes_whole_blocks_of_every_group_of_layers(model: Shape, length: int, blocks: int) -> None:
    one = block_bytes(model, ranks=1, cache_bytes=2)
    assert kv_bytes(model, length, ranks=1, cache_bytes=2, batched_tokens=2048) == one * blocks


@pytest.mark.parametrize(
    ("pool", "tokens"),
    [(5 * GIB, 131_072 - 16), (70_624 * 40_960, 70_624 - 16), (2 * 655_360, 16), (655_360, 0), (0, 0), (-GIB, 0)],
)
def test_a_pool_holds_all_but_one_block_of_it(pool: int, tokens: int) -> None:
    assert tokens_in(GLM, pool, ranks=1, cache_bytes=2, batched_tokens=2048) == tokens


@pytest.mark.parametrize("model", [MAMBA, WINDOW, shape()])
def test_a_cache_that_does_not_grow_holds_any_context(model: Shape) -> None:
    assert tokens_in(model, 8 * GIB, ranks=1, cache_bytes=2, batched_tokens=2048) == LONGEST


@pytest.mark.parametrize(("model", "blocks", "tokens"), [(MAMBA, 1, 0), (QWEN_27B, 7, 0), (QWEN_27B, 8, 784)])
def test_no_room_for_a_state_is_no_room_for_a_token(model: Shape, blocks: int, tokens: int) -> None:
    one = block_bytes(model, ranks=1, cache_bytes=2)
    assert tokens_in(model, blocks * one, ranks=1, cache_bytes=2, batched_tokens=2048) == tokens


def test_more_ranks_share_states_and_heads_out_and_repeat_the_rest() -> None:
    assert block_bytes(QWEN_27B, ranks=2, cache_bytes=2) == 16 * 784 * 2048
    assert block_bytes(LATENT, ranks=8, cache_bytes=2) == block_bytes(LATENT, ranks=1, cache_bytes=2)


@pytest.mark.parametrize(
    ("heads", "kv_heads", "ranks"),
    [(32, 2, (1, 2, 4, 8)), (40, 10, (1, 2, 5, 10)), (28, 4, (1, 2, 4)), (14, 2, (1, 2))],
)
def test_tensor_parallelism_divides_the_heads(heads: int, kv_heads: int, ranks: tuple[int, ...]) -> None:
    found = shape(heads=heads, kv_heads=kv_heads)
    assert tuple(count for count in range(1, 11) if found.divides(count)) == ranks
