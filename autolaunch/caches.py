"""Which layers of a model keep what of the tokens they have seen, as its configuration says.

Pure. Owns the ways in which configurations spell sliding windows, latent attention and shared caches; the sizes of
states are `recurrent`'s, the arithmetic of the caches is `shape`'s. Sources: vllm/model_executor/models (0.24 to 0.32).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from autolaunch.claims import Config, Doubt, count, must, numbers, table, words
from autolaunch.recurrent import state_bytes, state_heads
from autolaunch.shape import CacheKind, CacheLayers

LAYERS = 4096
"""More layers than any model has."""

_ENCODERS = frozenset(("bert", "roberta", "xlm-roberta", "modernbert", "nomic_bert", "distilbert", "electra"))
"""Models that read a text as a whole and keep nothing of it."""

_BEYOND = ("compress_ratios", "block_configs", "hybrid_layer_pattern", "attention_other_setting", "layer_group_size")
"""Keys of models whose layers differ in ways that are not worked out here (DeepSeek-V4, Nemotron-NAS, MiMo-V2,
Step-3.5, Ling-linear)."""

_INDEXED = ("deepseek_v32", "glm_moe_dsa")
"""Models of sparse attention, which keeps the keys it searches in."""

_CHUNKED = ("llama4", "llama4_text")
"""Models whose local layers see their own chunk."""

_NO_LATENT = frozenset(("minicpm3",))
"""Models with latent projections that vLLM serves with an ordinary cache."""

_WORDS = {
    "full_attention": CacheKind.FULL,
    "attention": CacheKind.FULL,
    "full": CacheKind.FULL,
    "sliding_attention": CacheKind.SLIDING,
    "chunked_attention": CacheKind.SLIDING,
    "linear_attention": CacheKind.STATE,
    "mamba": CacheKind.STATE,
    "conv": CacheKind.STATE,
    "mlp": None,
    "moe": None,
}
"""What the kinds of layers keep, in the words of `layer_types` and `layers_block_type`."""


@dataclass(frozen=True, slots=True)
class Heads:
    """KV heads of ordinary attention and the numbers in each."""

    kv_heads: int
    head_dim: int

    def cache(self, kind: CacheKind, layers: int, *, window: int = 0) -> CacheLayers:
        """Return the cache of so many layers with these heads."""
        return CacheLayers(kind, layers, 2 * self.kv_heads * self.head_dim, self.kv_heads, window)


def caches(config: Config, *, layers: int, heads: Heads) -> tuple[CacheLayers, ...]:
    """Return the caches of all layers; raise `Doubt` where the configuration does not say."""
    model_type = config.get("model_type")
    if config.get("is_encoder_decoder") is True:
        raise Doubt("an encoder-decoder model keeps a cross-attention cache, which is not worked out here")
    beyond = next((key for key in _BEYOND if config.get(key)), None)
    if beyond is not None:
        raise Doubt(f"its layers differ by {beyond}, which is not worked out here")
    if model_type in _ENCODERS:
        return ()
    kinds = Counter(kind for kind in _kinds(config, layers) if kind is not None)
    if model_type == "falcon_h1":
        kinds[CacheKind.STATE] = layers  # every layer has both an attention and a state
    found = [_growing(config, kinds[CacheKind.FULL], heads), *_index(config, kinds[CacheKind.FULL])]
    found += [_sliding(config, kinds[CacheKind.SLIDING], heads), _states(config, kinds[CacheKind.STATE])]
    return tuple(one for one in found if one is not None)


def _kinds(config: Config, layers: int) -> Sequence[CacheKind | None]:
    """Return what each layer keeps that has a cache of its own; None for one that keeps nothing."""
    kinds = _listed(config, layers) or _patterned(config, layers)
    shared = count(config, "num_kv_shared_layers", most=LAYERS, least=0) or 0
    if shared >= len(kinds):
        raise Doubt(f"{shared} of {layers} layers share a cache")
    return kinds[: len(kinds) - shared]  # the last layers read the caches of earlier ones (Gemma 3n and 4)


def _listed(config: Config, layers: int) -> Sequence[CacheKind | None]:
    """Return the kinds where the configuration names them layer by layer; [] where it does not."""
    named = words(config, "layer_types") or words(config, "layers_block_type")
    pattern = config.get("hybrid_override_pattern")
    if isinstance(pattern, str) and not named:  # Nemotron-H: M is Mamba, * attention, - an MLP, E experts
        named = tuple({"M": "mamba", "*": "attention"}.get(letter, "mlp") for letter in pattern)
    if not named:
        return []
    unknown = sorted(set(named) - set(_WORDS))
    if unknown:
        raise Doubt(f"a layer of the kind {unknown[0]!r} is not known here")
    if len(named) < layers:
        raise Doubt(f"{len(named)} kinds of layers are named for {layers} layers")
    return [_WORDS[name] for name in named[:layers]]


def _patterned(config: Config, layers: int) -> Sequence[CacheKind | None]:
    """Return the kinds where they follow from a period, a list of indices or the model type."""
    numbered = range(layers)
    full, sliding, state = CacheKind.FULL, CacheKind.SLIDING, CacheKind.STATE
    if config.get("model_type") in ("mamba", "mamba2", "falcon_mamba"):
        return [state] * layers
    if (period := count(config, "full_attention_interval", most=LAYERS)) is not None:
        return [full if (layer + 1) % period == 0 else state for layer in numbered]
    if (period := count(config, "attn_layer_period", most=LAYERS)) is not None:
        offset = count(config, "attn_layer_offset", most=LAYERS, least=0) or 0
        return [full if layer % period == offset else state for layer in numbered]
    if "attn_layer_indices" in config:
        chosen = numbers(config, "attn_layer_indices")
        return [full if layer in chosen else state for layer in numbered]
    if linear := table(config, "linear_attn_config"):  # Kimi-Linear counts from one
        chosen = numbers(linear, "full_attn_layers")
        return [full if layer + 1 in chosen else state for layer in numbered]
    if "attn_type_list" in config:  # MiniMax: 1 is attention, 0 a state
        chosen = numbers(config, "attn_type_list")
        if len(chosen) != layers:
            raise Doubt(f"attn_type_list names {len(chosen)} of {layers} layers")
        return [full if kind == 1 else state for kind in chosen]
    return [sliding if slides else full for slides in _windows(config, layers)]


def _windows(config: Config, layers: int) -> Sequence[bool]:
    """Return which layers keep a window only, for models without states."""
    model_type, numbered = config.get("model_type"), range(layers)
    if model_type in _CHUNKED:  # layers without rope look at everything, the others at their chunk
        ropes = config.get("no_rope_layers")
        if isinstance(ropes, list) and len(ropes) == layers:
            return [bool(rope) for rope in ropes]
        return [(layer + 1) % 4 != 0 for layer in numbered]
    if _window(config) is None or config.get("use_sliding_window") is False:
        return [False] * layers
    if model_type in ("gemma2", "gpt_oss"):
        return [layer % 2 == 0 for layer in numbered]
    period = count(config, "sliding_window_pattern", "_sliding_window_pattern", most=LAYERS)
    if period is not None:
        return [(layer + 1) % period != 0 for layer in numbered]
    if config.get("use_sliding_window") is True:  # Qwen: the first layers look at everything
        first = count(config, "max_window_layers", most=LAYERS, least=0) or 0
        return [layer >= first for layer in numbered]
    return [True] * layers


def _window(config: Config) -> int | None:
    if config.get("model_type") in _CHUNKED:
        return must(config, "attention_chunk_size", most=1 << 26) + 1
    return count(config, "sliding_window", most=1 << 26)


def _growing(config: Config, layers: int, heads: Heads) -> CacheLayers | None:
    """Return the cache that grows with every token: latent where vLLM keeps it so, else keys and values."""
    if not layers:
        return None
    rank = count(config, "kv_lora_rank")
    if rank is not None and config.get("model_type") not in _NO_LATENT:
        return CacheLayers(CacheKind.LATENT, layers, rank + must(config, "qk_rope_head_dim"))
    wide = Heads(
        count(config, "num_global_key_value_heads") or heads.kv_heads,
        count(config, "global_head_dim") or heads.head_dim,
    )
    return wide.cache(CacheKind.FULL, layers)


def _index(config: Config, layers: int) -> Sequence[CacheLayers]:
    """Return the keys that sparse attention searches (DeepSeek-V3.2, GLM-5): bytes, and a scale per 128 of them."""
    if config.get("model_type") not in _INDEXED or not layers:
        return ()
    width = must(config, "index_head_dim")
    return (CacheLayers(CacheKind.LATENT, layers, (width + 4 * -(-width // 128)) // 2),)


def _sliding(config: Config, layers: int, heads: Heads) -> CacheLayers | None:
    if not layers:
        return None
    window = _window(config)
    if window is None:
        raise Doubt("layers keep a sliding window, and it has no sliding_window")
    return heads.cache(CacheKind.SLIDING, layers, window=window)


def _states(config: Config, layers: int) -> CacheLayers | None:
    if not layers:
        return None
    return CacheLayers(CacheKind.STATE, layers, heads=state_heads(config), state_bytes=state_bytes(config))
