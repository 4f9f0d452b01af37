"""Which layers of a model keep what of the tokens they have seen, as its configuration says.

Pure. Owns the ways in which configurations spell sliding windows, latent attention and state layers; the
arithmetic of the caches is `shape`'s. Sources: vllm/model_executor/models and
vllm/model_executor/layers/mamba/mamba_utils.py (0.24 to 0.32).
"""

from __future__ import annotations

from autolaunch.claims import Config, Doubt
from autolaunch.shape import CacheKind, CacheLayers

LAYERS = 4096
"""More layers than any model has."""


def caches(config: Config, *, layers: int, kv_heads: int, head_dim: int) -> tuple[CacheLayers, ...]:
    """Return the caches of all layers; raise `Doubt` where the configuration does not say."""
    if config.get("is_encoder_decoder") is True:
        raise Doubt("an encoder-decoder model keeps a cross-attention cache, which is not worked out here")
    values = 2 * kv_heads * head_dim
    return (CacheLayers(CacheKind.FULL, layers, values, kv_heads),)
