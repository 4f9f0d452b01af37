"""Which of a checkpoint's tensors an engine keeps, and what kind of weight each of them is.

Pure. Owns the rules over names and sizes; reading them from files is `weights`'. Sources: the `load_weights` of
vllm/model_executor/models (0.24 to 0.32).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from autolaunch.facts import Basis, Weights
from autolaunch.shape import CacheKind, Shape

_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|block)\.(\d+)\.")
"""A tensor of a layer, and which."""

_ENCODER = re.compile(r"(?:^|[._])(?:vision|visual|vit|vpm|resampler|audio|image|speech|mm|multi_modal|aligner)", re.I)
"""A tensor of a multimodal encoder or of what leads from it to the language model."""

_HEADS = frozenset(("lm_head.weight", "language_model.lm_head.weight", "model.lm_head.weight"))

_TABLES = frozenset(
    (
        "model.embed_tokens.weight",
        "llm.model.embed_tokens.weight",
        "language_model.model.embed_tokens.weight",
        "model.language_model.embed_tokens.weight",
        "transformer.embedding.word_embeddings.weight",
        "transformer.word_embeddings.weight",
        "transformer.wte.weight",
    )
)
"""The embedding of a language model: a row for every entry of the vocabulary, as wide as the model."""

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


@dataclass
class Stored:
    """What the tensors of a checkpoint tell of its dimensions; filled while they pass by.

    `layers` are the layers and their bytes by what stands before their number, `table` the embedding's sizes, `keys`
    the rows of the matrices of keys.
    """

    layers: dict[str, tuple[int, int]] = field(default_factory=dict)
    table: tuple[int, ...] = ()
    keys: set[int] = field(default_factory=set)

    def watch(self, tensors: Iterable[Tensor]) -> Iterator[Tensor]:
        """Give the tensors on as they come."""
        for tensor in tensors:
            self._see(tensor)
            yield tensor

    def _see(self, tensor: Tensor) -> None:
        name, plain = tensor.name, tensor.dtype in _ELEMENTS and len(tensor.sizes) == 2
        if name in _TABLES and plain:
            self.table = tensor.sizes
        layer = _LAYER.search(name)
        if layer is None or is_encoder(name) or _UNUSED.search(name):
            return
        count, size = self.layers.get(name[: layer.start(1)], (0, 0))
        self.layers[name[: layer.start(1)]] = max(count, int(layer[1]) + 1), size + tensor.bytes
        if name.endswith(".self_attn.k_proj.weight") and plain:
            self.keys.add(tensor.sizes[0])


def contradictions(stored: Stored, shape: Shape, *, drafting: int) -> tuple[str, ...]:
    """Return in which dimensions a configuration and the files beside it do not agree, in words.

    `drafting` are layers that may be stored beside the model's own. What no tensor tells is not doubted.
    """
    said = []
    declared = shape.num_hidden_layers
    layers = max(stored.layers.values(), key=lambda one: one[1], default=(declared, 0))[0]
    if not declared <= layers <= declared + drafting:
        said.append(f"{declared} layers are declared, {layers} are stored")
    if stored.table and stored.table != (shape.vocab_size, shape.hidden_size):
        declared_table = f"{shape.vocab_size} entries of {shape.hidden_size} numbers"
        said.append(
            f"a vocabulary of {declared_table} is declared, one of {stored.table[0]} of {stored.table[1]} is stored"
        )
    rows = shape.num_key_value_heads * shape.head_dim
    plain = [layers.kind for layers in shape.caches] == [CacheKind.FULL]
    if plain and len(stored.keys) == 1 and stored.keys != {rows}:
        heads = f"{shape.num_key_value_heads} KV heads of {shape.head_dim} numbers"
        said.append(f"{heads} are declared, {next(iter(stored.keys))} numbers are stored")
    return tuple(said)


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
