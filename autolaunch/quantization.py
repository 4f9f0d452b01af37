"""How many bytes weights take once the engine stores them in fewer bits while loading.

Pure. Owns what vLLM's quantization on the fly does to linear layers; weights quantized beforehand are counted from
their files or stand in the catalogue.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from autolaunch.facts import Basis, Weights


@dataclass(frozen=True, slots=True)
class _Method:
    """Bytes kept of each byte of a 16-bit linear weight, and the least compute capability."""

    share: float
    capability: tuple[int, int]
    experts_only: bool = False


_METHODS = {
    "fp8": _Method(1 / 2, (8, 0)),
    "fp8_per_tensor": _Method(1 / 2, (8, 0)),
    "fp8_per_block": _Method((1 + 4 / 128**2) / 2, (8, 9)),
    "bitsandbytes": _Method((1 / 2 + 1 / 64 + 4 / (64 * 256)) / 2, (7, 0)),
    "experts_int8": _Method(1 / 2, (8, 0), experts_only=True),
}
"""FP8 keeps one byte and a scale per tensor (experts included), or one per block of 128 by 128; NF4 keeps half a
byte, a byte of scale per 64 numbers and four per 256 of those (bitsandbytes' double quantization, as vLLM asks for
it). Embeddings, head and norms stay. Measured: GLM-4-9B 10.02 GiB in FP8, Llama-3.1-8B 8.49 in FP8 and 5.35 in NF4."""


STORED = frozenset(
    {"awq", "awq_marlin", "gptq", "gptq_marlin", "gguf", "compressed-tensors", "modelopt", "modelopt_fp4"}
)
"""Methods whose files are made beforehand: vLLM cannot find what it needs in files of another kind."""


def quantized(weights: Weights, method: str, *, capability: tuple[int, int] | None) -> Weights | None:
    """Return what is kept where the engine quantizes while loading (`--quantization METHOD`).

    None where it cannot: a method that needs a checkpoint of its own, a card that is too old, or weights of which
    nothing is known to be linear. An unknown `capability` is taken for one that can.
    """
    found = _METHODS.get(method)
    if found is None or (capability is not None and capability < found.capability):
        return None
    changed = weights.expert_bytes if found.experts_only else weights.linear_bytes
    if not changed:
        return None
    return replace(
        weights,
        loaded_bytes=weights.loaded_bytes - changed + round(changed * found.share),
        linear_bytes=weights.linear_bytes - changed,
        expert_bytes=0,
        basis=Basis.ESTIMATED,
        source=f"{weights.source}, {method} on the fly",
    )
