"""The memory model: what one engine start needs of one card, term by term.

Pure. Owns the budget's identity; the terms are put together in `estimate`, what earlier starts measured comes in
through `calibration`, and what is done with a budget is `planner`'s.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from autolaunch.calibration import calibrated
from autolaunch.defaults import resolve
from autolaunch.estimate import estimate, subject
from autolaunch.facts import Basis, Situation
from autolaunch.past import Past
from autolaunch.settings import Settings
from autolaunch.shape import kv_bytes_per_token
from autolaunch.term import NOTHING, Term, exact, remainder

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
    subtracts for them (0 where that release subtracts nothing). `loading` must be free while weights are loaded,
    `trial` beside them while the profile run tries the graphs. `total_basis` says how the card's total is known.
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
    loading: Term = NOTHING
    trial: Term = NOTHING
    total_basis: Basis = Basis.EXACT
    share_bytes: int | None = None

    @property
    def checked_bytes(self) -> int:
        """What a V1 engine demands to be free before it loads anything: its share, also where the cache is sized."""
        return self.requested_bytes if self.share_bytes is None else self.share_bytes


def with_pool(budget: Budget, pool_bytes: int) -> Budget:
    """Return the budget of a start whose KV cache the user sized, in bytes per GPU; the request is the sum of all.

    --kv-cache-memory-bytes takes the place of the share: the engine makes a cache of this size whatever is free. It
    looks for the share all the same when it begins (vllm/v1/worker/utils.py, request_memory).
    """
    charged = budget.weights.bytes + budget.non_torch.bytes + budget.activation.bytes + budget.cudagraph.bytes
    share = budget.requested_bytes
    return replace(budget, requested_bytes=charged + pool_bytes, share_bytes=share, kv_cache=exact(pool_bytes))


def predict(demand: Demand) -> Budget | None:
    """Work out the budget of one start; None where the card's total, the model's shape or its weights are unknown."""
    settings, situation = demand.settings, demand.situation
    total, found = situation.device.total_bytes, subject(settings, situation.model)
    if total is None or total <= 0 or found is None:
        return None
    run = resolve(settings, situation)
    parts = calibrated(estimate(found, settings, situation), found, settings, situation, past=demand.past)
    requested = math.ceil(total * run.utilization)
    return Budget(
        total_bytes=total,
        free_bytes=situation.device.free_bytes,
        requested_bytes=requested,
        outside=parts.outside,
        weights=parts.weights,
        non_torch=parts.non_torch,
        activation=parts.activation,
        cudagraph=parts.cudagraph,
        capture=parts.capture,
        kv_cache=remainder(requested, parts.charged),
        kv_bytes_per_token=kv_bytes_per_token(found.shape, ranks=run.ranks, cache_bytes=run.cache_bytes),
        loading=parts.loading,
        trial=parts.trial,
        total_basis=situation.device.basis,
    )
