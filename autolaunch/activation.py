"""The peak of activations in the engine's profile run, by what the run does: forward pass, sampling, compiling.

Pure. Notation of the formulae: T max_num_batched_tokens, S max_num_seqs, V vocabulary, H hidden size, I intermediate
size, b bytes per activation. All were fitted on public logs; the figures beside them say on what.
"""

from __future__ import annotations

from dataclasses import dataclass

from autolaunch.defaults import Era, Resolved
from autolaunch.facts import GIB
from autolaunch.shape import CacheKind, Shape
from autolaunch.term import Term, estimated
from autolaunch.terms import table_bytes

SORTED_BYTES = 39.0
"""Per sequence and vocabulary entry up to 0.16, which sorts all logits (38.6 to 39.8 on seven starts)."""

UNSORTED_BYTES = 12.47
"""The same from 0.17 on, beside the logits in the model's own type (rms 0.003 GiB over 22 models on 0.19; GLM-4-9B
on 0.24 at three batch sizes; float32 as measured)."""

_CODE_BYTES = int(0.047 * GIB)
_MOE_CHUNK = 16384


@dataclass(frozen=True, slots=True)
class Peaks:
    """A profile run's peak in bytes, with torch.compile's cache as it is on the second start and on the first."""

    warm: float
    cold: float


def peaks(shape: Shape, run: Resolved) -> Peaks:
    """Return the peaks of one rank's profile run."""
    warm = _on_host(shape, run) if run.on_host else _warm(shape, run)
    return Peaks(warm, max(warm, _compiling(shape, run)))


def activation(shape: Shape, run: Resolved) -> Term:
    """Return the peak of one rank's profile run.

    The best figure assumes a cold compile cache, whose compilation holds a copy of the embedding; with a warm one
    the same start has that much more room, which is the low end.
    """
    found = peaks(shape, run)
    if run.on_host:
        return estimated(found.warm, 0, 4 * found.warm)
    slack = 0.02 * found.cold + 0.03 * GIB
    if shape.experts or shape.has(CacheKind.LATENT) or shape.has(CacheKind.STATE):
        slack += 0.15 * found.warm
    if shape.vision:
        slack += 0.25 * GIB
    if not run.certain:
        slack += 0.3 * found.cold
    return estimated(found.cold, max(0, found.warm - slack), found.cold + slack)


def _warm(shape: Shape, run: Resolved) -> float:
    """Return the peak without compiling."""
    forward, kept = _forward(shape, run), _workspace(shape, run)
    if run.era >= Era.V2_RUNNER:
        sampling = _sampling_in_place(shape, run)
        return max(forward + kept, sampling, _encoder_peak(shape))
    sampling = _sampling(shape, run)
    if run.era < Era.UNSORTED:
        return max(forward + kept, sampling)
    return kept + max(forward, sampling) + _encoder_output(shape)


def _compiling(shape: Shape, run: Resolved) -> float:
    """Return the peak while torch.compile works without a cache: the embedding once more and two activations.

    Seen on one rank and text models only (14 starts of 0.29 to 0.31 to 0.01 GiB; GLM-4-9B on 0.24: 1.19 GiB).
    """
    if run.eager or run.on_host or run.ranks > 1 or shape.vision or run.era < Era.SORTED:
        return 0
    return table_bytes(shape) + 2 * run.max_num_batched_tokens * shape.hidden_size * shape.dtype_bytes


def _sampling(shape: Shape, run: Resolved) -> float:
    """Return the peak while the first runner samples for all sequences at once."""
    seqs = min(run.max_num_seqs, run.max_num_batched_tokens)
    if run.era < Era.UNSORTED:
        return SORTED_BYTES * seqs * shape.vocab_size
    hidden = run.max_num_batched_tokens * shape.hidden_size * shape.dtype_bytes
    return (UNSORTED_BYTES + shape.dtype_bytes) * seqs * shape.vocab_size + 1.16 * hidden + _CODE_BYTES


def _sampling_in_place(shape: Shape, run: Resolved) -> float:
    """Return the peak while the second runner samples: min(T, S) * V * b, twice with soft-capping, and T * H * b.

    Several ranks gather the logits: 2 * logits + logits / ranks.
    """
    seqs = min(run.max_num_seqs, run.max_num_batched_tokens)
    logits = seqs * shape.vocab_size * shape.dtype_bytes * (2 if shape.soft_cap else 1)
    copies = 1.0 if run.ranks == 1 else 2 + 1 / run.ranks
    return logits * copies + run.max_num_batched_tokens * shape.hidden_size * shape.dtype_bytes


def _forward(shape: Shape, run: Resolved) -> float:
    """Return the peak within a layer: hidden states twice, and attention and the three halves of a gated MLP.

    The first runner holds them a third time (CodeLlama-7B 0.77, granite-8b 0.85 GiB on 0.19). MLA: 7 * T * H * b,
    five times the heads' values, and the context's keys and values restored from the latent.
    """
    tokens, b, ranks = run.max_num_batched_tokens, shape.dtype_bytes, run.ranks
    hidden = tokens * shape.hidden_size * b
    if shape.has(CacheKind.LATENT):
        heads = tokens * shape.num_attention_heads / ranks * _restored_values(shape) / 2 * b
        return 7 * hidden + 5 * heads + _restored(shape, run)
    dense = shape.expert_intermediate_size if shape.experts else shape.intermediate_size
    queries = shape.num_attention_heads * shape.head_dim
    copies = 2 if run.era >= Era.V2_RUNNER else 3
    return copies * hidden + tokens * (queries + 3 * dense) * b / ranks


def _restored_values(shape: Shape) -> int:
    """Return the numbers that one head restores per token; DeepSeek's and Kimi's 128 and 128 where not known."""
    return shape.restored_values or 256


def _restored(shape: Shape, run: Resolved) -> float:
    """Return MLA's workspace: keys and values of W tokens of context (vllm/v1/attention/backends/mla/common.py).

    W = min(max(8 * max_model_len, 4 * S * 16), 65536).
    """
    length = run.max_model_len or 8192
    tokens = min(max(8 * length, 4 * run.max_num_seqs * 16), 65536)
    return tokens * shape.num_attention_heads / run.ranks * _restored_values(shape) * shape.dtype_bytes


def _workspace(shape: Shape, run: Resolved) -> float:
    """Return the workspace of fused experts: T * experts per token * (max(I, H) + max(2 I, H)) * b.

    It stays held while the first runner samples: Qwen1.5-MoE 0.29, Qwen3-30B-A3B 0.50, Mixtral on two cards
    0.65 GiB over a dense model's peak. MXFP4 kernels have none.
    """
    if not shape.experts or "GptOss" in shape.architecture:
        return 0
    inner = shape.expert_intermediate_size / run.ranks
    tokens = min(run.max_num_batched_tokens, _MOE_CHUNK) * max(1, shape.experts_per_token)
    return tokens * (max(inner, shape.hidden_size) + max(2 * inner, shape.hidden_size)) * shape.dtype_bytes


def _encoder_output(shape: Shape) -> float:
    """Return what a multimodal encoder adds to the first runner's peak (0.08 to 0.23 GiB on 0.19)."""
    return 0.2 * GIB if shape.vision else 0


def _encoder_peak(shape: Shape) -> float:
    """Return the second runner's peak while the encoder sees the largest image (1.83 and 1.92 GiB)."""
    return 1.87 * GIB if shape.vision else 0


def _on_host(shape: Shape, run: Resolved) -> float:
    """Return what a CPU engine's process keeps of its warm-up: about two activations of the batch."""
    return 2 * run.max_num_batched_tokens * shape.hidden_size * shape.dtype_bytes
