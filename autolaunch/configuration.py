"""What a config.json says of its model: dimensions, the longest context, how the weights are stored.

Pure. Owns the many spellings of one thing; the files are `model`'s. A configuration is a claim: where it
contradicts itself or leaves something out, there is no `Shape`, and `notes` says why.
Sources: vllm/transformers_utils/model_arch_config_convertor.py and vllm/config/model.py (0.32).
"""

from __future__ import annotations

from dataclasses import dataclass

from autolaunch.caches import LAYERS, caches
from autolaunch.claims import Config, Doubt, count, must, table, words
from autolaunch.shape import Shape

_LENGTHS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "model_max_length",
    "max_target_positions",
    "max_sequence_length",
    "max_seq_length",
    "seq_len",
)
"""Where configurations keep the longest context; vLLM takes the least of those that are there."""

_UNSCALED = ("default", "llama3", "longrope", "su", "mrope")
"""Kinds of rope scaling whose factor vLLM does not multiply into the longest context."""

_NESTED = ("text_config", "llm_config", "language_config")
"""Where multimodal configurations keep those of their language model."""

_TIED = frozenset(
    ("gemma", "gemma2", "gemma3", "gemma3_text", "gpt2", "gpt_bigcode", "opt", "bloom", "mamba", "cohere")
)
"""Model types whose head is the embedding unless the configuration says otherwise."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """What was found; `notes` says what was not, and why."""

    shape: Shape | None = None
    max_model_len: int | None = None
    quantization: str | None = None
    notes: tuple[str, ...] = ()


def read(config: Config) -> Configuration:
    """Return what a configuration says. Never raises, whatever is in it."""
    text = language_model(config)
    length, quantization = _longest(text), _quantization(text)
    try:
        return Configuration(_shape(config, text), length, quantization)
    except Doubt as doubt:
        return Configuration(None, length, quantization, (f"config.json gives no dimensions: {doubt}",))


def language_model(config: Config) -> Config:
    """Return the table with that of its language model laid over it, where it is nested."""
    if "thinker_config" in config:
        config = {**config, **table(config, "thinker_config")}
    for name in _NESTED:
        inner = table(config, name)
        if inner:
            return {**config, **inner}
    return config


def _shape(config: Config, text: Config) -> Shape:
    layers = must(text, "num_hidden_layers", "num_layers", "n_layer", "n_layers", most=LAYERS)
    hidden = must(text, "hidden_size", "n_embd", "d_model")
    heads = must(text, "num_attention_heads", "n_head", "n_heads")
    kv_heads = _kv_heads(text, heads)
    head_dim = _head_dim(text, hidden, heads)
    experts = count(text, "num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts", least=0) or 0
    width = count(text, "intermediate_size", "ffn_hidden_size", "n_inner", "ffn_dim") or 4 * hidden
    return Shape(
        architecture=next(iter(words(config, "architectures")), ""),
        hidden_size=hidden,
        intermediate_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        vocab_size=must(text, "padded_vocab_size", "vocab_size", most=1 << 24),
        caches=caches(text, layers=layers, kv_heads=kv_heads, head_dim=head_dim),
        tie_word_embeddings=_tied(config, text),
        experts=experts,
        soft_cap=bool(text.get("final_logit_softcapping")),
    )


def _kv_heads(text: Config, heads: int) -> int:
    kv_heads = count(text, "n_head_kv", "num_kv_heads", "num_key_value_heads", "multi_query_group_num") or heads
    if kv_heads > heads:
        raise Doubt(f"{kv_heads} KV heads for {heads} heads")
    return kv_heads


def _head_dim(text: Config, hidden: int, heads: int) -> int:
    given = count(text, "head_dim", "kv_channels", "attention_head_dim", "hidden_size_per_head", least=0)
    if given:
        return given
    if hidden % heads:
        raise Doubt(f"{heads} heads do not share out a hidden_size of {hidden}, and no head_dim is given")
    return hidden // heads


def _tied(config: Config, text: Config) -> bool:
    for place in (text, config):
        if isinstance(place.get("tie_word_embeddings"), bool):
            return bool(place["tie_word_embeddings"])
    return text.get("model_type") in _TIED


def _longest(text: Config) -> int | None:
    lengths = [text[key] for key in _LENGTHS if type(text.get(key)) is int and text[key] > 0]
    scaled = text.get("rope_scaling") or text.get("rope_parameters")
    if isinstance(scaled, dict) and scaled.get("factor", 1) != 1:
        kind = scaled.get("rope_type") or scaled.get("type")
        if kind not in _UNSCALED:
            return None  # the engine works it out from the scaling; a wrong cap is worse than none
    return min(lengths, default=None)


def _quantization(text: Config) -> str | None:
    for name in ("quantization_config", "compression_config"):
        if isinstance(text.get(name), dict):
            return str(text[name].get("quant_method", "unknown"))
    return None
