"""A model's dimensions, as far as the engine's memory depends on them, and the KV cache they need.

Pure. Owns `Shape` and the arithmetic of the cache; what config.json says becomes a `Shape` in `configuration`.
Formulae: vllm/v1/kv_cache_interface.py (0.24 to 0.32).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

BLOCK_TOKENS = 16


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
    rank keeps all); `window` tokens of SLIDING; `state_bytes` per sequence and layer of STATE, `values` then 0.
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
    that the engine loads; `soft_cap` logits that are capped (kept twice while sampling).
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

    def has(self, kind: CacheKind) -> bool:
        """Whether some layer keeps this kind of cache."""
        return any(layers.kind is kind for layers in self.caches)

    def divides(self, ranks: int) -> bool:
        """Whether tensor parallelism over `ranks` is possible: they share the heads out evenly, KV heads may repeat."""
        heads = self.num_key_value_heads
        return self.num_attention_heads % ranks == 0 and (heads % ranks == 0 or ranks % max(1, heads) == 0)
