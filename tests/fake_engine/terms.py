"""The terms of one start's memory on one rank, in bytes, release by release. Pure; the order of events is `memory`'s.

Sources: vllm/v1/worker/gpu_worker.py and gpu_model_runner.py (0.24 to 0.32), worker.py of V0, and figures that
public start-up logs print. Written for the fake engine alone; the package's own memory model must not be read here.
"""

from __future__ import annotations

from .record import Record
from .release import Release
from .spread import Spread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .models import ModelDims

GIB = 1024**3
MIB = 1024**2
BYTES = 2
"""Bytes of an activation: every model here is bfloat16 or float16."""

HOPPER = 9
CONTEXTS_GIB = {7: 0.2, 8: 0.4, 9: 0.51, 10: 0.7, 12: 0.5}
"""The CUDA context by the compute capability's first number."""

NCCL_GIB = {7: 0.5, 8: 0.7, 9: 1.0, 10: 1.7, 12: 0.5}
EXPERTS_GIB = 0.45
"""What profiling experts took beyond the logits in 0.19: 0.29 to 0.65 GiB."""

V0_SIZES, V1_SIZES, V1_OLD_SIZES = 35, 51, 67


class Load(Record):
    """What one start is asked to do: `tokens` and `seqs` at once, `ranks` cards, its graphs, how its weights are held.

    `captured` counts capture sizes given by the user (0: the release's own); `cold` is an empty compile cache.
    """

    release: Release
    tokens: int
    seqs: int
    ranks: int = 1
    eager: bool = False
    captured: int = 0
    cold: bool = False
    quantization: str = ""


def context(capability: int, ranks: int, spread: Spread) -> int:
    """Give what a process takes before it measures anything: CUDA's context and NCCL's buffers."""
    nccl = NCCL_GIB.get(capability, 0.7) if ranks > 1 else 0.0
    return int((CONTEXTS_GIB.get(capability, 0.5) * spread.context + nccl) * GIB)


def weights(dims: ModelDims, load: Load, spread: Spread) -> int:
    """Give the bytes that stay after loading."""
    return dims.weight_bytes(load.quantization or None) // load.ranks + int(spread.weights_gib * GIB)


def loading_peak(dims: ModelDims, load: Load, spread: Spread) -> int:
    """Give the most that loading holds at once: older releases hold every 16-bit weight before they quantize."""
    kept = weights(dims, load, spread)
    if not load.quantization or dims.stored != "bf16":
        return kept
    if not load.release.streams_fp8:
        return dims.weight_bytes() // load.ranks + int(spread.weights_gib * GIB)
    return kept + dims.largest_layer_bytes() // load.ranks


def non_torch(dims: ModelDims, load: Load, capability: int, spread: Spread) -> int:
    """Give what stays outside PyTorch's allocator, or beside the weights, until the pool is sized."""
    release, base = load.release, 0.11 if capability < HOPPER else 0.3
    state = 0
    if release.is_runner_v2:
        state = load.seqs * (dims.vocab + 2 * -(-dims.vocab // 32)) * 4
        if spread.holds_segment and load.cold and load.ranks == 1 and not load.eager:
            state += embedding(dims)
    elif release.is_v0:
        base = 0.07 if load.ranks == 1 else 0.74
    elif release.minor < 18:
        base = 0.08 if load.ranks == 1 else 0.12
    else:
        base = (0.13 if capability < HOPPER else 0.25) if load.ranks == 1 else 2.08
    return state + max(0, int((base + spread.base_gib) * GIB))


def activation(dims: ModelDims, load: Load, spread: Spread) -> int:
    """Give the peak of the profile run above what stays."""
    moments = [forward(dims, load), sampler(dims, load)]
    if load.cold and not load.eager and not load.release.is_v0 and load.ranks == 1:
        moments.append(embedding(dims) + 2 * load.tokens * dims.hidden * BYTES)  # the compiler's trial of the layers
    routed = EXPERTS_GIB if dims.experts and 17 <= load.release.minor < 28 else 0.0
    return int(max(moments) * spread.activation) + int((spread.activation_gib + routed) * GIB)


def embedding(dims: ModelDims) -> int:
    """Give the bytes of a matrix of the padded vocabulary by the hidden size."""
    return -(-dims.vocab // 64) * 64 * dims.hidden * BYTES


def forward(dims: ModelDims, load: Load) -> int:
    """Give the activations of one pass through a layer."""
    each = dims.heads * dims.head_dim // load.ranks + 2 * dims.hidden
    if dims.experts:
        inner = max(dims.intermediate, dims.hidden) + max(2 * dims.intermediate, dims.hidden)
        each += dims.experts_per_token * inner
    else:
        each += 3 * dims.intermediate // load.ranks
    return load.tokens * each * BYTES + (0 if load.release.is_runner_v2 else int(0.05 * GIB))


def sampler(dims: ModelDims, load: Load) -> int:
    """Give the logits of all requests: sorted in float32, later not, later not even in float32."""
    seqs = min(load.seqs, load.tokens)
    if load.release.minor < 17:
        return int(39 * seqs * dims.vocab)
    if not load.release.is_runner_v2:
        return int(14.47 * seqs * dims.vocab + 1.16 * 2 * load.tokens * dims.hidden + 0.047 * GIB)
    copies = 1.0 if load.ranks == 1 else 2 + 1 / load.ranks
    return int(copies * seqs * -(-dims.vocab // 64) * 64 * BYTES) + load.tokens * dims.hidden * BYTES


def graphs(dims: ModelDims, load: Load, capability: int, spread: Spread) -> tuple[int, int]:
    """Give (what the release estimates, what capturing takes); 0 of what it does not do."""
    if load.eager:
        return 0, 0
    few, many = graph_counts(load)
    layers, hopper = dims.layers, capability >= HOPPER
    guess = 0.0
    if load.release.is_v0:
        real = 0.1 * GIB + layers * many * 0.3 * MIB
    elif load.release.minor < 17:
        real = 0.2 * GIB + layers * many * 0.17 * MIB
    elif load.release.is_runner_v2:
        real = 0.03 * GIB + layers * few * (0.22 if hopper else 0.2) * MIB
        guess = layers * few * (0.525 if hopper else 0.365) * MIB
    else:
        usual = 1.4 if load.release.minor < 21 else 1.0
        real = (0.25 + 0.0105 * layers) * usual * GIB * ((few + many) / 102) ** 0.9
        guess = real * (0.89 if load.release.minor < 21 else 0.77)
    estimate = guess * spread.estimate if load.release.estimates_graphs else 0.0
    return int(estimate), int(real * spread.graphs)


def graph_counts(load: Load) -> tuple[int, int]:
    """Give (graphs of pure decodes, graphs of mixed batches) for the capture sizes that apply."""
    if load.captured:
        return load.captured, load.captured
    if load.release.is_v0:
        return 0, min(V0_SIZES, sizes_to(load.seqs, 256))
    if load.release.minor < 11:
        return 0, min(V1_OLD_SIZES, 3 + min(512, 2 * load.seqs) // 8)
    return sizes_to(load.seqs, 512), min(V1_SIZES, sizes_to(2 * load.seqs, 512))


def sizes_to(most: int, cap: int) -> int:
    """Count 1, 2, 4, then every eighth below 256, then every sixteenth, up to `most` and `cap`."""
    every = [1, 2, 4, *range(8, 256, 8), *range(256, cap + 1, 16)]
    return sum(1 for size in every if size <= most)
