"""The terms that do not depend on the batch alone: weights, what lies outside PyTorch, what no budget counts.

Pure. Formulae and constants were fitted on public start-up logs of vLLM 0.6 to 0.31 and on starts of GLM-4-9B on
0.24; each names what it rests on.
"""

from __future__ import annotations

import math
from dataclasses import replace

from autolaunch.defaults import Era, Resolved
from autolaunch.facts import GIB, Basis, Device, Model, Weights
from autolaunch.quantization import quantized
from autolaunch.settings import Settings
from autolaunch.shape import CacheKind, Shape
from autolaunch.term import Term, estimated

MIB = 1 << 20

_CONTEXT_GIB = {7: (0.30, 0.10, 0.45), 8: (0.40, 0.19, 0.53), 9: (0.51, 0.50, 0.55), 10: (0.70, 0.55, 0.80)}
"""CUDA context of one card by the major compute capability: usual, least, most. L4 0.20, A6000 0.26, RTX 4090
0.39, A100 0.41, H100 and RTX 3090 0.51, B200 0.70 GiB; Blackwell cards for desks 0.50 to 0.54."""

_NCCL_GIB = {8: (0.7, 0.4, 0.8), 9: (1.05, 0.9, 2.0), 10: (1.7, 1.5, 1.8), 12: (0.5, 0.4, 0.6)}
"""What NCCL adds before the engine measures, nearly independent of the number of ranks."""


def outside(device: Device, run: Resolved) -> Term:
    """Return what is taken before the engine measures free memory and charged to nobody: CUDA context and NCCL.

    A CPU engine's processes hold 1.2 GiB by then (vLLM 0.32: API server, engine core, the worker's imports).
    """
    if run.on_host:
        return estimated(1.25 * GIB, 0.9 * GIB, 1.8 * GIB)
    major = (device.compute_capability or (0, 0))[0]
    usual, least, most = _CONTEXT_GIB.get(major, (0.51, 0.19, 0.75))
    if run.ranks > 1:
        more = _NCCL_GIB.get(major, (1.0, 0.5, 2.0))
        usual, least, most = usual + more[0], least + more[1], most + more[2]
    return estimated(usual * GIB, least * GIB, most * GIB)


def weights(model: Model, known: Weights, settings: Settings, device: Device, run: Resolved) -> Term:
    """Return one rank's share of the weights as the engine loads them.

    Checkpoints load to their tensors' bytes within 0.04 GiB, and the table of rotary positions beside them. Kernels
    for 4 bits repack (AWQ 0.14 GiB more), replicated layers add a little to a rank's share. What is loaded beyond the
    files is an estimate, and so is the sum then.
    """
    kept = _kept(known, settings.quantization, model, device)
    bare, extras = kept.loaded_bytes / run.ranks, 0.0 if kept.basis is Basis.MEASURED else _extras(model)
    loaded = bare + extras + (0 if kept.basis is Basis.MEASURED else _rotary(model))
    over, under = _spread(loaded, model, settings, run)
    if known.basis is Basis.ESTIMATED:
        over, under = over + 0.03 * loaded, under + 0.02 * loaded
    return Term(int(loaded), int(bare - under), int(loaded + over), Basis.ESTIMATED if extras else kept.basis)


def _spread(loaded: float, model: Model, settings: Settings, run: Resolved) -> tuple[float, float]:
    """Return by how much the engine's figure may be over and under what was worked out."""
    over, under = 0.06 * GIB, 0.05 * GIB
    if model.quantization is not None:
        over = 0.02 * loaded + 0.2 * GIB
    elif settings.quantization is not None:
        over, under = 0.02 * loaded + 0.05 * GIB, 0.01 * loaded + 0.05 * GIB
    shape = model.shape
    if shape is not None and (shape.vision or (run.ranks > 1 and (shape.experts or shape.has(CacheKind.LATENT)))):
        over += 0.4 * GIB
    elif run.ranks > 1:
        over += 0.1 * GIB
    return over, under


def _rotary(model: Model) -> int:
    """Return the bytes of sines and cosines for every position: Qwen3-8B 0.01, Llama-3.1-8B 0.03 GiB."""
    if model.shape is None or model.max_model_len is None or not model.shape.has(CacheKind.FULL):
        return 0
    return model.max_model_len * model.shape.head_dim * model.shape.dtype_bytes


def _extras(model: Model) -> float:
    """Return what is loaded beyond the tensors of the files.

    MXFP4 kernels pad: gpt-oss-20b 0.82 to 0.98 GiB, 0.60 a rank on two, 120b 0.66. Multimodal wrappers add 0.14 to
    0.74 GiB of tables and copies.
    """
    if model.quantization == "mxfp4":
        return 0.75 * GIB
    return 0.2 * GIB if model.shape is not None and model.shape.vision else 0


def _kept(known: Weights, method: str | None, model: Model, device: Device) -> Weights:
    """Return the weights after `--quantization`; as they are where they are quantized already."""
    if method is None or model.quantization is not None:
        return known
    found = quantized(known, method, capability=device.compute_capability)
    return found or replace(known, basis=Basis.ESTIMATED)


def non_torch(shape: Shape, device: Device, run: Resolved) -> Term:
    """Return what the engine holds outside PyTorch's peak when the profile run ends.

    A CPU engine counts its whole process: 0.66 GiB of imports, 0.93 once it has compiled (vLLM 0.32).
    """
    if run.on_host:
        usual = (0.67, 0.58, 0.85) if run.eager else (0.93, 0.7, 1.1)
        return estimated(*(figure * GIB for figure in usual))
    if run.era >= Era.V2_RUNNER:
        return _second_runner(shape, device, run)
    hopper = (device.compute_capability or (9, 0)) >= (9, 0)
    if run.era is Era.V0:
        several = 0.5 + 0.2 * run.ranks  # two ranks 0.74, eight 2.10 to 2.15, sixteen without P2P 0.20
        usual = (0.07, 0.02, 0.26) if run.ranks == 1 else (several, 0.2, 1.2 * several)
    elif run.era < Era.WORKSPACES:
        usual = (0.13 if hopper else 0.05, 0.02, 0.17) if run.ranks == 1 else (0.1, 0.05, 0.4)
    elif run.ranks == 1:
        usual = (0.25, 0.2, 0.46) if hopper else (0.12, 0.04, 0.3)
    elif run.era < Era.GRAPHS_CHARGED:
        usual = (2.09, 0.5, 2.25)  # collective workspaces of 0.18 and 0.19
    else:
        usual = (0.3, 0.05, 2.1)
    return estimated(*(figure * GIB for figure in usual))


def _second_runner(shape: Shape, device: Device, run: Resolved) -> Term:
    """Return the non-torch memory of the second model runner (0.29 on).

    sampling state S * (V + 2 * ceil(V / 32)) * 4 B, T * H * b for multimodal inputs, and a base of 0.11 GiB on
    compute capability 8, 0.30 on 9. Where PyTorch's allocator kept a segment of the compilation's peak, one copy
    of the embedding more: so in 8 of 8 starts of mixtures of experts and of Mamba, in 1 of 11 others.
    """
    states = run.max_num_seqs * (shape.vocab_size + 2 * math.ceil(shape.vocab_size / 32)) * 4
    images = run.max_num_batched_tokens * shape.hidden_size * shape.dtype_bytes if shape.vision else 0
    base = (0.33, 0.2, 0.52) if (device.compute_capability or (9, 0))[0] == 9 else (0.12, 0.05, 0.2)
    fixed = states + images
    segment = 0 if run.eager or run.ranks > 1 or shape.vision else table_bytes(shape)
    usual = base[0] * GIB + fixed
    kept = segment if shape.experts or shape.has(CacheKind.STATE) else 0
    maybe = segment if shape.tie_word_embeddings else kept
    return estimated(usual + kept, base[1] * GIB + fixed, base[2] * GIB + fixed + maybe)


def table_bytes(shape: Shape) -> int:
    """Return the bytes of the embedding, whose rows the engine rounds up to 64."""
    return -(-shape.vocab_size // 64) * 64 * shape.hidden_size * shape.dtype_bytes


def loading(shape: Shape, weights: Term, run: Resolved) -> Term:
    """Return what must be free while weights are loaded: they, and buffers for a batch that are there before them.

    T * H * b (0.50 GiB of GLM-4-9B at 65536 tokens on 0.24), and 0.15 GiB outside PyTorch.
    """
    buffers = 0 if run.on_host else run.max_num_batched_tokens * shape.hidden_size * shape.dtype_bytes
    beside = buffers + 0.15 * GIB
    return Term(weights.bytes + int(beside), weights.low, weights.high + int(2 * beside), Basis.ESTIMATED)
