"""The memory model: what one engine start needs of one card, term by term.

Pure. Owns the budget's identity and its terms, each with a spread and the basis it rests on; what is done with
them is `planner`'s.
"""

from __future__ import annotations

from dataclasses import dataclass

from autolaunch.facts import Basis, Situation
from autolaunch.past import Past
from autolaunch.settings import Settings


@dataclass(frozen=True, slots=True)
class Term:
    """Bytes of one term per GPU: the best figure, and the range that nine of ten starts stay within."""

    bytes: int
    low: int
    high: int
    basis: Basis


@dataclass(frozen=True, slots=True)
class Demand:
    """One start to be predicted: its settings (the user's pins among them), where, and what earlier starts measured.

    `options` are engine options outside the settings that matter for memory.
    """

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
