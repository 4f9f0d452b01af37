"""What a config.json says of its model: dimensions, the longest context, how the weights are stored.

Pure. Owns the many spellings of one thing; the files are `model`'s. A configuration is a claim: where it
contradicts itself or leaves something out, there is no `Shape`, and `notes` says why.
Sources: vllm/transformers_utils/model_arch_config_convertor.py and vllm/config/model.py (0.32).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from autolaunch.caches import LAYERS, Heads, caches
from autolaunch.claims import Config, Doubt, count, must, table, words
from autolaunch.facts import Weights
from autolaunch.longest import longest
from autolaunch.parameters import weigh_dimensions
from autolaunch.shape import Shape

_NESTED = ("text_config", "llm_config", "language_config")
"""Where multimodal configurations keep those of their language model."""

_ENCODERS = ("vision_config", "visual", "vision_encoder", "audio_config", "audio_encoder", "speech_config")
"""Where multimodal configurations keep those of their encoders."""

_TIED = frozenset(
    (
        "gemma",
        "gemma2",
        "gemma3",
        "gemma3_text",
        "gemma4_text",
        "gpt2",
        "gpt_bigcode",
        "opt",
        "bloom",
        "mamba",
        "cohere",
    )
)
"""Model types whose head is the embedding unless the configuration says otherwise."""

_GEMMA = {
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "vocab_size": 262208,
    "max_position_embeddings": 131072,
    "sliding_window": 4096,
    "sliding_window_pattern": 6,
}

_DEFAULTS: Mapping[str, Config] = {"gemma3_text": _GEMMA, "gemma3": _GEMMA, "gemma": {"head_dim": 256}}
"""What transformers fills in where these models' configurations leave it out, as Gemma 3's own ones do."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """What was found; `notes` says what was not, and why.

    `weights` are those that follow from the dimensions, `text_weights` those of a multimodal model without its
    encoders. `dtype` is how the checkpoint is stored ("bfloat16"), "" where that is not said; `drafting` is how many
    layers it has beside the model's own, for drafting tokens.
    """

    shape: Shape | None = None
    max_model_len: int | None = None
    quantization: str | None = None
    notes: tuple[str, ...] = ()
    weights: Weights | None = None
    model_type: str = ""
    dtype: str = ""
    text_weights: Weights | None = None
    drafting: int = 0


def read(config: Config, *, release: tuple[int, int] | None = None) -> Configuration:
    """Return what a configuration says to a release of vLLM, None to any. Never raises, whatever is in it."""
    text = language_model(config)
    model_type, length = str(text.get("model_type") or ""), longest(text, release=release)
    notes = (f"config.json: {length.note}",) if length.note else ()
    found = Configuration(None, length.tokens, _quantization(text), notes, model_type=model_type, dtype=_dtype(text))
    try:
        shape = _shape(config, text)
    except Doubt as doubt:
        return replace(found, notes=(f"config.json gives no dimensions: {doubt}", *notes))
    text_weights = weigh_dimensions(text, replace(shape, vision=False)) if shape.vision else None
    drafting = _drafting(text)
    weights = weigh_dimensions(text, shape)
    return replace(found, shape=shape, weights=weights, text_weights=text_weights, drafting=drafting)


def language_model(config: Config) -> Config:
    """Return the table with that of its language model laid over it, where it is nested, and with known defaults."""
    if "thinker_config" in config:
        config = {**config, **table(config, "thinker_config")}
    inner = next((table(config, name) for name in _NESTED if table(config, name)), {})
    given = {**config, **inner}
    model_type = given.get("model_type")
    named = model_type if isinstance(model_type, str) else ""
    return {**_DEFAULTS.get(named, {}), **given, "model_type": named}


def _shape(config: Config, text: Config) -> Shape:
    layers = must(text, "num_hidden_layers", "num_layers", "n_layer", "n_layers", most=LAYERS)
    hidden = must(text, "hidden_size", "n_embd", "d_model")
    heads, kv_heads, head_dim = _attention(text, hidden)
    experts = _experts(text)
    return Shape(
        architecture=next(iter(words(config, "architectures")), ""),
        hidden_size=hidden,
        intermediate_size=_width(text, hidden),
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        vocab_size=must(text, "padded_vocab_size", "vocab_size", most=1 << 24),
        caches=caches(text, layers=layers, heads=Heads(kv_heads, head_dim)),
        tie_word_embeddings=_tied(config, text),
        experts=experts,
        experts_per_token=_experts_per_token(text) if experts else 0,
        expert_intermediate_size=_expert_width(text, hidden) if experts else 0,
        vision=any(table(config, name) or table(text, name) for name in _ENCODERS),
        soft_cap=bool(text.get("final_logit_softcapping")),
        restored_values=_restored(text),
        block=_block(text),
    )


def _attention(text: Config, hidden: int) -> tuple[int, int, int]:
    """Return the heads, the KV heads and the numbers in a head; none of them where there is no attention."""
    if text.get("model_type") in ("mamba", "mamba2", "falcon_mamba"):
        return 0, 0, 0
    heads = must(text, "num_attention_heads", "n_head", "n_heads")
    kv_heads = _kv_heads(text) or heads
    if kv_heads > heads:
        raise Doubt(f"it has {kv_heads} KV heads for {heads} heads")
    if "kv_lora_rank" in text and count(text, "qk_nope_head_dim"):
        return heads, kv_heads, must(text, "qk_nope_head_dim") + must(text, "qk_rope_head_dim")
    head_dim = count(text, "head_dim", "kv_channels", "attention_head_dim", "hidden_size_per_head", least=0)
    if head_dim:
        return heads, kv_heads, head_dim
    if hidden % heads:
        raise Doubt(f"{heads} heads do not share out a hidden_size of {hidden}, and there is no head_dim")
    return heads, kv_heads, hidden // heads


def _kv_heads(text: Config) -> int | None:
    if text.get("multi_query") is True and text.get("new_decoder_architecture") is not True:
        return 1  # Falcon-7B, StarCoder
    if text.get("multi_query_attention") is False:
        return None  # ChatGLM without groups
    names = ("n_head_kv", "num_kv_heads", "num_key_value_heads", "multi_query_group_num", "num_attention_groups")
    return count(text, *names) or count(table(text, "attn_config"), "kv_n_heads")


def _width(text: Config, hidden: int) -> int:
    dense = count(
        text, "intermediate_size_mlp", "intermediate_size", "ffn_hidden_size", "n_inner", "ffn_dim", "d_inner"
    )
    return dense or 4 * hidden


def _experts(text: Config) -> int:
    names = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
    found = count(text, *names, least=0) or count(table(text, "ffn_config"), "moe_num_experts", least=0)
    return found or 0


def _experts_per_token(text: Config) -> int:
    names = ("num_experts_per_tok", "num_experts_per_token", "experts_per_token", "top_k_experts", "moe_topk")
    return count(text, *names, "moe_top_k", "moe_k", least=0) or 0


def _expert_width(text: Config, hidden: int) -> int:
    names = ("moe_intermediate_size", "expert_intermediate_size", "expert_ffn_hidden_size", "intermediate_size")
    return count(text, *names) or 4 * hidden


def _tied(config: Config, text: Config) -> bool:
    for place in (text, config):
        if isinstance(place.get("tie_word_embeddings"), bool):
            return bool(place["tie_word_embeddings"])
    return text.get("model_type") in _TIED


def _drafting(text: Config) -> int:
    """Return how many layers more than its own a checkpoint has, for drafting several tokens (DeepSeek-V3: 1)."""
    value = text.get("num_nextn_predict_layers")
    return value if type(value) is int and value > 0 else 0


def _restored(text: Config) -> int:
    """Return the numbers of one head that latent attention restores per token, 0 without it."""
    if "kv_lora_rank" not in text:
        return 0
    plain, value = count(text, "qk_nope_head_dim"), count(text, "v_head_dim")
    return plain + value if plain and value else 0


def _block(text: Config) -> int:
    """Return the columns that share a scale in FP8 weights of blocks ("weight_block_size": [128, 128]), else 0."""
    quantized = table(text, "quantization_config")
    return count(quantized, "weight_block_size") or 0


def _dtype(text: Config) -> str:
    return str(text.get("torch_dtype") or text.get("dtype") or "").removeprefix("torch.")


def _quantization(text: Config) -> str | None:
    for name in ("quantization_config", "compression_config"):
        found = text.get(name)
        if isinstance(found, Mapping):
            return _method(found)
    return None


def _method(found: Config) -> str:
    """Return the method as vLLM names it."""
    if isinstance(found.get("quant_method"), str):
        return str(found["quant_method"]).lower().replace("compressed_tensors", "compressed-tensors")
    if table(found, "producer").get("name") == "modelopt":
        return "modelopt"
    return "bitsandbytes" if found.get("load_in_4bit") or found.get("load_in_8bit") else "unknown"
