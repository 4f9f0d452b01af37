"""A plan in the Contract's JSON: settings, command line, the budget term by term and what each term rests on.

Pure. Owns the names of `autolaunch plan --json` and of the record's `plan` line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autolaunch.budget import Budget
from autolaunch.facts import Basis
from autolaunch.planner import Plan

TERMS = ("weights", "non_torch", "activation", "cudagraph", "kv_cache")
"""The terms that add up to what is requested, in the order in which they are shown."""


def budget_as_json(budget: Budget | None) -> dict[str, Any]:
    """Return the budget in bytes per GPU; {} where none could be worked out."""
    if budget is None:
        return {}
    return {
        "total_bytes": budget.total_bytes,
        "free_bytes": budget.free_bytes,
        "requested_bytes": budget.requested_bytes,
        **{f"{name}_bytes": getattr(budget, name).bytes for name in TERMS},
        "kv_bytes_per_token": budget.kv_bytes_per_token,
        "kv_cache_tokens": kv_cache_tokens(budget),
    }


def kv_cache_tokens(budget: Budget) -> int | None:
    """Return the tokens that the cache holds in all, in whole blocks of 16; None where tokens take nothing."""
    if budget.kv_bytes_per_token <= 0:
        return None
    return max(0, int(budget.kv_cache.bytes / budget.kv_bytes_per_token)) // 16 * 16


def basis_as_json(budget: Budget | None) -> dict[str, str]:
    """Return what each figure rests on: exact, measured or estimated."""
    if budget is None:
        return {}
    total = budget.total_basis
    free = total if budget.free_bytes == budget.total_bytes else Basis.EXACT
    return {
        "total_bytes": total.value,
        **({"free_bytes": free.value} if budget.free_bytes is not None else {}),
        "requested_bytes": total.value,
        **{f"{name}_bytes": getattr(budget, name).basis.value for name in TERMS},
        "kv_bytes_per_token": Basis.EXACT.value,
        "kv_cache_tokens": budget.kv_cache.basis.value,
    }


def as_json(plan: Plan, *, model: str, argv: Sequence[str], closest: Sequence[str] = ()) -> Mapping[str, Any]:
    """Return `autolaunch plan --json`: `fits` null where it cannot be told, `closest` what would help if false."""
    return {
        "v": 1,
        "model": model,
        "fits": plan.fits,
        "settings": plan.settings.as_json(),
        "argv": list(argv),
        "max_model_len": plan.context,
        "budget": budget_as_json(plan.budget),
        "basis": basis_as_json(plan.budget),
        "why": list(plan.why),
        "closest": list(closest),
    }
