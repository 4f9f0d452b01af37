"""Which of a checkpoint's tensors an engine keeps, and what kind of weight each of them is.

Pure. Owns the rules over names and sizes; reading them from files is `weights`'. Sources: the `load_weights` of
vllm/model_executor/models (0.24 to 0.32).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from autolaunch.facts import Basis, Weights
from autolaunch.shape import Shape

_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|block)\.(\d+)\.")
"""A tensor of a layer, and which."""

_ENCODER = re.compile(r"(?:^|[._])(?:vision|visual|vit|vpm|resampler|audio|image|speech|mm|multi_modal|aligner)", re.I)
"""A tensor of a multimodal encoder or of what leads from it to the language model."""

_HEADS = frozenset(("lm_head.weight", "language_model.lm_head.weight", "model.lm_head.weight"))

_UNUSED = re.compile(r"(?:^|\.)mtp\w*\.|^(?:talker|token2wav|code2wav)\.|rotary_emb\.inv_freq$|\.masked_bias$")
"""Tensors for drafting several tokens, which are loaded as a model of their own, and buffers worked out anew."""

_SMALL = re.compile(r"norm|(?:gate|router)\.weight$|bias$", re.I)
"""Tensors of a layer that stay at 16 bits: norms, biases, and what chooses experts."""

_ELEMENTS = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2}
"""Bytes of the floating-point numbers that a linear layer may be stored in before any quantization."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a checkpoint: its name, its type as safetensors spells it, its sizes and its bytes."""

    name: str
    dtype: str
    sizes: tuple[int, ...]
    bytes: int


@dataclass(frozen=True, slots=True)
class Reading:
    """How a checkpoint is loaded, as its configuration says.

    `layers` of the language model, None where that is not said; `tied` head and embedding; `quantized` weights are
    kept as they are stored, others at 16 bits, `float32` is what they are stored in; `text_only` leaves encoders out.
    """

    layers: int | None = None
    tied: bool = False
    quantized: bool = False
    float32: bool = False
    text_only: bool = False


def kept(tensors: Iterable[Tensor], reading: Reading, *, source: str) -> Weights:
    """Return the bytes that an engine keeps of these tensors, over all ranks."""
    loaded = linear = experts = 0
    for tensor in tensors:
        if _dropped(tensor.name, reading):
            continue
        size = tensor.bytes if reading.quantized else at_16_bits(tensor)
        loaded += size
        if not reading.quantized and is_linear(tensor):
            linear += size
            experts += size if is_expert(tensor.name) else 0
    return Weights(loaded, linear, experts, Basis.EXACT, source)


def with_linear(weights: Weights, shape: Shape | None) -> Weights:
    """Return a sum of 16-bit weights with the part that linear layers take: all but embedding and head.

    Unchanged where that is known already, or cannot be told because of an encoder.
    """
    if shape is None or shape.vision or weights.linear_bytes:
        return weights
    table = 2 * shape.vocab_size * shape.hidden_size
    linear = max(0, weights.loaded_bytes - table * (1 if shape.tie_word_embeddings else 2))
    experts = 6 * shape.hidden_size * shape.expert_intermediate_size * shape.experts * shape.num_hidden_layers
    return replace(weights, linear_bytes=linear, expert_bytes=min(linear, experts))


def at_16_bits(tensor: Tensor) -> int:
    """Return a tensor's bytes where nothing wider than 16 bits is kept, as vLLM loads float32 checkpoints."""
    width = _ELEMENTS.get(tensor.dtype, 0)
    return tensor.bytes * 2 // width if width > 2 else tensor.bytes


def is_linear(tensor: Tensor) -> bool:
    """Whether a tensor is the weight of a linear layer of the language model: a matrix, or one for each expert."""
    if tensor.dtype not in _ELEMENTS or len(tensor.sizes) not in (2, 3) or is_encoder(tensor.name):
        return False
    if _LAYER.search(tensor.name) is None or _SMALL.search(tensor.name):
        return False
    return is_expert(tensor.name) or (len(tensor.sizes) == 2 and tensor.name.endswith(".weight"))


def is_expert(name: str) -> bool:
    """Whether a tensor belongs to routed experts, not to one that all tokens share."""
    return ".experts." in name and "shared_expert" not in name


def is_encoder(name: str) -> bool:
    """Whether a tensor belongs to a multimodal encoder rather than to the language model."""
    return _ENCODER.search(name) is not None


def _dropped(name: str, reading: Reading) -> bool:
    if _UNUSED.search(name) or (reading.tied and name in _HEADS):
        return True
    if is_encoder(name):
        return reading.text_only
    layer = _LAYER.search(name)
    return layer is not None and reading.layers is not None and int(layer[1]) >= reading.layers
