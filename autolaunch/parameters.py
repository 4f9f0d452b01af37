"""The bytes of a model's weights worked out from its dimensions, where no file and nobody else says them.

Pure. Owns how many numbers each part of a known architecture has. An architecture that is not known here, one with
an encoder, and weights that are quantized already give nothing: what is not known is not made up.
Checked against the published parameter counts of the catalogue's models, to the unit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from autolaunch.claims import Config, Doubt, count, must
from autolaunch.facts import Basis, Weights
from autolaunch.shape import Shape

BYTES = 2
"""Of one number; vLLM loads what is stored wider as 16 bits."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """What the layers of an architecture have beside their matrices: norms, biases of q, k and v, norms of q and k."""

    norms: int = 2
    bias: bool = False
    qk_norm: bool = False


_KINDS: Mapping[str, _Kind] = {
    "chatglm": _Kind(bias=True),
    "deepseek_v2": _Kind(),
    "deepseek_v3": _Kind(),
    "gemma2": _Kind(norms=4),
    "gemma3_text": _Kind(norms=4, qk_norm=True),
    "glm": _Kind(),
    "glm4": _Kind(norms=4),
    "glm4_moe": _Kind(),
    "glm4_moe_lite": _Kind(),
    "granite": _Kind(),
    "llama": _Kind(),
    "mistral": _Kind(),
    "mixtral": _Kind(),
    "phi3": _Kind(),
    "qwen2": _Kind(bias=True),
    "qwen3": _Kind(qk_norm=True),
    "qwen3_moe": _Kind(qk_norm=True),
    "qwen3_next": _Kind(qk_norm=True),
}


@dataclass(frozen=True, slots=True)
class _Layer:
    """The numbers in one layer, or in a part of one: in linear layers, of these in routed experts, and elsewhere."""

    linear: int = 0
    experts: int = 0
    rest: int = 0

    def __add__(self, other: _Layer) -> _Layer:
        return _Layer(self.linear + other.linear, self.experts + other.experts, self.rest + other.rest)

    def __mul__(self, times: int) -> _Layer:
        return _Layer(self.linear * times, self.experts * times, self.rest * times)


def weigh_dimensions(text: Config, shape: Shape) -> Weights | None:
    """Return the weights of a language model's configuration and its shape; None for what is not known here."""
    kind = _KINDS.get(str(text.get("model_type")))
    if kind is None or shape.vision or "quantization_config" in text or "compression_config" in text:
        return None
    try:
        layers = _layers(text, shape, kind)
    except Doubt:
        return None
    ends = shape.vocab_size * shape.hidden_size * (1 if shape.tie_word_embeddings else 2) + shape.hidden_size
    return Weights(
        loaded_bytes=BYTES * (layers.linear + layers.rest + ends),
        linear_bytes=BYTES * layers.linear,
        expert_bytes=BYTES * layers.experts,
        basis=Basis.ESTIMATED,
        source="its dimensions",
    )


def _layers(text: Config, shape: Shape, kind: _Kind) -> _Layer:
    """Return the numbers in all layers: attention of one or two kinds, then an MLP or experts."""
    every = shape.num_hidden_layers
    states = sum(layers.count for layers in shape.caches if layers.state_bytes)
    attention = _latent if "kv_lora_rank" in text else _gated if states else _attention
    mixing = attention(text, shape, kind) * (every - states)
    if states:
        mixing += _gated_delta(text, shape.hidden_size) * states
    dense = count(text, "first_k_dense_replace", least=0) or 0 if shape.experts else every
    thinking = _mlp(shape.hidden_size, shape.intermediate_size) * dense
    if shape.experts:
        thinking += _experts(text, shape) * (every - dense)
    return mixing + thinking + _Layer(rest=kind.norms * shape.hidden_size) * every


def _attention(text: Config, shape: Shape, kind: _Kind, *, gates: int = 0) -> _Layer:
    queries, keys = shape.num_attention_heads * shape.head_dim, 2 * shape.num_key_value_heads * shape.head_dim
    bias = text.get("attention_bias", text.get("add_qkv_bias", kind.bias)) is True
    norms = 2 * shape.head_dim if text.get("use_qk_norm", kind.qk_norm) is True else 0
    linear = shape.hidden_size * (queries * (2 + gates) + keys)
    return _Layer(linear=linear, rest=(queries + keys) * bias + norms)


def _gated(text: Config, shape: Shape, kind: _Kind) -> _Layer:
    """Qwen3-Next: what attention gives is gated, so that the queries' matrix is twice as wide."""
    return _attention(text, shape, kind, gates=1)


def _latent(text: Config, shape: Shape, _kind: _Kind) -> _Layer:
    """MLA: queries and keys through a narrow projection, each with a norm (DeepSeek-V2)."""
    hidden, heads = shape.hidden_size, shape.num_attention_heads
    rank, rope = must(text, "kv_lora_rank"), must(text, "qk_rope_head_dim")
    plain, value = must(text, "qk_nope_head_dim"), must(text, "v_head_dim")
    narrow = count(text, "q_lora_rank")
    queries = heads * (plain + rope)
    linear = hidden * queries if narrow is None else narrow * (hidden + queries)
    linear += hidden * (rank + rope) + rank * heads * (plain + value) + heads * value * hidden
    return _Layer(linear=linear, rest=rank + (narrow or 0))


def _gated_delta(text: Config, hidden: int) -> _Layer:
    """Qwen3-Next: keys, queries, values, a gate, two numbers per head, a convolution, decay and a norm."""
    keys = must(text, "linear_num_key_heads") * must(text, "linear_key_head_dim")
    heads = must(text, "linear_num_value_heads")
    values = heads * must(text, "linear_value_head_dim")
    linear = hidden * (2 * keys + 2 * values + 2 * heads) + values * hidden
    convolution = (2 * keys + values) * must(text, "linear_conv_kernel_dim")
    return _Layer(linear=linear, rest=convolution + 2 * heads + must(text, "linear_value_head_dim"))


def _mlp(hidden: int, width: int) -> _Layer:
    return _Layer(linear=3 * hidden * width)


def _experts(text: Config, shape: Shape) -> _Layer:
    """Routed experts, those that all tokens share, and what chooses among them."""
    hidden, width = shape.hidden_size, shape.expert_intermediate_size
    routed = 3 * hidden * width * shape.experts
    shared = (count(text, "n_shared_experts", least=0) or 0) * width
    own = count(text, "shared_expert_intermediate_size", least=0) or 0
    chooser = hidden * shape.experts + (hidden if own else 0)
    balance = shape.experts if text.get("topk_method") == "noaux_tc" or text.get("use_balance_bias") else 0
    return _Layer(routed + 3 * hidden * (shared + own), routed, chooser + balance)
