"""The memory model: what one engine start needs of one card, term by term.

Pure. Owns the budget's identity; the terms are `terms`', `activation`'s and `graphs`', what earlier starts measured
comes in through `calibration`, and what is done with a budget is `planner`'s.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from autolaunch.activation import activation
from autolaunch.defaults import resolve
from autolaunch.facts import Model, Situation
from autolaunch.graphs import captured, charged
from autolaunch.past import Past
from autolaunch.settings import Settings
from autolaunch.shape import kv_bytes_per_token
from autolaunch.term import Term, remainder
from autolaunch.terms import non_torch, outside, weights

__all__ = ["Budget", "Demand", "Term", "predict"]


@dataclass(frozen=True, slots=True)
class Demand:
    """One start to be predicted: its settings (the user's pins among them), where, and what earlier starts measured."""

    settings: Settings
    situation: Situation
    past: Past = Past()


@dataclass(frozen=True, slots=True)
class Budget:
    """What one start needs and gets, per GPU, in bytes.

    requested = ceil(total * gpu_memory_utilization); kv_cache = requested - weights - non_torch - activation -
    cudagraph, below zero where the rest takes more. `outside` is taken before the engine measures free memory and
    is not charged (CUDA context, NCCL); `capture` is what CUDA graphs take in the end, `cudagraph` what the engine
    subtracts for them (0 where that release subtracts nothing).
    """

    total_bytes: int
    free_bytes: int | None
    requested_bytes: int
    outside: Term
    weights: Term
    non_torch: Term
    activation: Term
    cudagraph: Term
    capture: Term
    kv_cache: Term
    kv_bytes_per_token: float


def predict(demand: Demand) -> Budget | None:
    """Work out the budget of one start; None where the card's total, the model's shape or its weights are unknown."""
    settings, situation = demand.settings, demand.situation
    device, total = situation.device, situation.device.total_bytes
    model = _served(settings, situation.model)
    shape, known = model.shape, model.weights
    if total is None or total <= 0 or shape is None or known is None:
        return None
    run = resolve(settings, situation)
    requested = math.ceil(total * run.utilization)
    parts = (
        weights(model, known, settings, run),
        non_torch(shape, device, run),
        activation(shape, run),
        charged(shape, device, run),
    )
    return Budget(
        total_bytes=total,
        free_bytes=device.free_bytes,
        requested_bytes=requested,
        outside=outside(device, run),
        weights=parts[0],
        non_torch=parts[1],
        activation=parts[2],
        cudagraph=parts[3],
        capture=captured(shape, device, run),
        kv_cache=remainder(requested, parts),
        kv_bytes_per_token=kv_bytes_per_token(shape, ranks=run.ranks, cache_bytes=run.cache_bytes),
    )


def _served(settings: Settings, model: Model) -> Model:
    """Return the model whose weights will be loaded: the wished one, or the pre-quantized variant in its place."""
    if settings.model is None:
        return model
    variant = next((found for found in model.variants if found.model == settings.model), None)
    if variant is None:
        return replace(model, weights=None)
    return replace(model, weights=variant.weights, quantization=variant.quantization)
