"""A model's dimensions, as far as the engine's memory depends on them, and the KV cache they need.

Pure. Owns `Shape` and the arithmetic of the cache; what config.json says becomes a `Shape` in `configuration`.
Formulae: vllm/v1/kv_cache_interface.py (0.24 to 0.32).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

BLOCK_TOKENS = 16

STATE_BLOCKS = 2
"""States that one running sequence holds per layer beside attention: its own and the one at the last cached block.
That is so with prefix caching, the default of recent releases; without it, and without attention, one is enough."""

LONGEST = 1 << 24
"""The longest context looked for, in tokens; a cache that does not grow holds any."""


class CacheKind(str, Enum):
    """What a layer keeps of the tokens it has seen."""

    FULL = "full"
    SLIDING = "sliding"
    LATENT = "latent"
    STATE = "state"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class CacheLayers:
    """Layers that keep the same cache.

    `count` layers; `values` numbers that one layer keeps per token over all heads (2 * kv_heads * head_dim; for
    LATENT, which is MLA, kv_lora_rank + rope); `heads` KV heads that tensor parallelism can share out (0: every
    rank keeps all; for STATE those that share the state out); `window` tokens of SLIDING; `state_bytes` per
    sequence and layer of STATE over all heads, `values` then 0.
    """

    kind: CacheKind
    count: int
    values: int = 0
    heads: int = 0
    window: int = 0
    state_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Shape:
    """The dimensions of a model; counts and elements, `dtype_bytes` per activation element.

    `experts` in all and `experts_per_token`, `expert_intermediate_size` of one; `vision` is a multimodal encoder
    that the engine loads; `soft_cap` logits that are capped (kept twice while sampling). `restored_values` are the
    numbers of one head that latent attention restores per token, qk_nope_head_dim + v_head_dim (0: not known).
    `block` are the columns that share a scale in FP8 weights, of which every rank needs a whole number (0: none).
    """

    architecture: str
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    caches: tuple[CacheLayers, ...]
    dtype_bytes: int = 2
    tie_word_embeddings: bool = False
    experts: int = 0
    experts_per_token: int = 0
    expert_intermediate_size: int = 0
    vision: bool = False
    soft_cap: bool = False
    restored_values: int = 0
    block: int = 0

    def has(self, kind: CacheKind) -> bool:
        """Whether some layer keeps this kind of cache."""
        return any(layers.kind is kind for layers in self.caches)

    def divides(self, ranks: int) -> bool:
        """Whether tensor parallelism over `ranks` is possible: they share the heads out evenly, KV heads may repeat.

        MiniMax-M2's experts of 1536 columns, in blocks of 128, cannot go to eight ranks.
        """
        heads = self.num_key_value_heads
        width = self.expert_intermediate_size if self.experts else self.intermediate_size
        whole = not self.block or width % (self.block * ranks) == 0 or ranks == 1
        return whole and self.num_attention_heads % ranks == 0 and (heads % ranks == 0 or ranks % max(1, heads) == 0)


def kv_bytes_per_token(shape: Shape, *, ranks: int, cache_bytes: float = 2) -> float:
    """Return what one more token of a long context takes on each of `ranks` GPUs, in bytes.

    `cache_bytes` per value: 2, or 1 for an FP8 cache. Layers that keep a window or a state do not grow.
    2 * layers * max(1, kv_heads / ranks) * head_dim * bytes; MLA keeps its whole latent on every rank.
    """
    growing = (layers for layers in shape.caches if layers.kind in (CacheKind.FULL, CacheKind.LATENT))
    return sum(layers.count * _values(layers, ranks) * cache_bytes for layers in growing)


def kv_bytes(shape: Shape, length: int, *, ranks: int, cache_bytes: float, batched_tokens: int) -> int:
    """Return what one request of `length` tokens needs of the KV pool of each GPU, in bytes.

    `batched_tokens` are all tokens in flight: max_num_batched_tokens, twice that with asynchronous scheduling
    (releases from about 0.29). A window holds window - 1 of them and these, and one block more.
    """
    one, groups = _layout(shape.caches, ranks=ranks, cache_bytes=cache_bytes)
    return one * sum(group.blocks(length, batched_tokens) for group in groups)


def block_bytes(shape: Shape, *, ranks: int, cache_bytes: float) -> int:
    """Return the bytes of one block of the pool of each GPU; the pool is a whole number of them."""
    return _layout(shape.caches, ranks=ranks, cache_bytes=cache_bytes)[0]


def tokens_in(shape: Shape, pool_bytes: int, *, ranks: int, cache_bytes: float, batched_tokens: int) -> int:
    """Return the longest context of one request that a pool of `pool_bytes` per GPU holds; 0 where none does.

    One block is left out, as recent releases do: the pool never hands out its first one. `LONGEST` where the
    cache does not grow.
    """
    one, groups = _layout(shape.caches, ranks=ranks, cache_bytes=cache_bytes)
    room = pool_bytes // one - 1 if one else LONGEST
    low, high = 0, LONGEST
    while low < high:
        middle = (low + high + 1) // 2
        if sum(group.blocks(middle, batched_tokens) for group in groups) <= room:
            low = middle
        else:
            high = middle - 1
    return low


@dataclass(frozen=True, slots=True)
class _Group:
    """`count` groups of layers that are given blocks together, `block_tokens` tokens to a block; blocks of STATE."""

    layers: CacheLayers
    count: int
    block_tokens: int

    def blocks(self, length: int, batched_tokens: int) -> int:
        """Return the blocks that one request of `length` tokens holds at most."""
        if self.layers.kind is CacheKind.STATE:
            return self.count
        if self.layers.kind is CacheKind.SLIDING:
            held = min(self.layers.window - 1 + batched_tokens, length)
            return self.count * (_ceil(held, self.block_tokens) + 1)
        return self.count * _ceil(length, self.block_tokens)


def _layout(caches: Sequence[CacheLayers], *, ranks: int, cache_bytes: float) -> tuple[int, tuple[_Group, ...]]:
    """Return the bytes of one block and the groups that take blocks (vllm/v1/core/kv_cache_utils.py)."""
    kept = [layers for layers in caches if layers.count]
    if not kept:
        return 0, ()
    if _alike(kept):
        page = sum(layers.count * _page(layers, BLOCK_TOKENS, ranks, cache_bytes) for layers in kept)
        return page, (_Group(kept[0], 1, BLOCK_TOKENS),)
    tokens, page = _common_page(kept, ranks, cache_bytes)
    fewest, most = min(layers.count for layers in kept), max(layers.count for layers in kept)
    size = most if most < fewest * 1.5 else fewest
    groups = []
    for layers in kept:
        own = _page(layers, tokens, ranks, cache_bytes)
        wider = page // own if own and page % own == 0 else 1
        each = STATE_BLOCKS if layers.kind is CacheKind.STATE else 1
        groups.append(_Group(layers, _ceil(layers.count, size) * each, tokens * wider))
    return size * page, tuple(groups)


def _alike(kept: Sequence[CacheLayers]) -> bool:
    """Whether all layers take blocks in step, so that one group serves them all."""
    kinds = {layers.kind for layers in kept}
    return len({layers.window for layers in kept}) == 1 and (
        len(kinds) == 1 or kinds <= {CacheKind.FULL, CacheKind.LATENT}
    )


def _common_page(kept: Sequence[CacheLayers], ranks: int, cache_bytes: float) -> tuple[int, int]:
    """Return the tokens of an attention block and the bytes of a page that every layer can use.

    Where states are kept, the attention block grows until its page holds one.
    """
    state = max((_page(layers, 1, ranks, cache_bytes) for layers in kept if layers.kind is CacheKind.STATE), default=0)
    token = max(_values(layers, ranks) * cache_bytes for layers in kept)
    tokens = BLOCK_TOKENS * max(1, math.ceil(state / (BLOCK_TOKENS * token))) if token else BLOCK_TOKENS
    return tokens, max(state, math.ceil(tokens * token))


def _page(layers: CacheLayers, tokens: int, ranks: int, cache_bytes: float) -> int:
    if layers.kind is CacheKind.STATE:
        return _ceil(layers.state_bytes, min(ranks, max(1, layers.heads)))
    return math.ceil(tokens * _values(layers, ranks) * cache_bytes)


def _values(layers: CacheLayers, ranks: int) -> float:
    """Return the numbers that one layer keeps per token on one rank; a rank keeps one KV head at least."""
    return layers.values / layers.heads * max(1, _ceil(layers.heads, ranks)) if layers.heads else layers.values


def _ceil(number: int, divisor: int) -> int:
    return -(-number // divisor)
