"""The arithmetic of shares: caps, direction, amount, and the bounds of what was tried."""

from __future__ import annotations

import math
from typing import Any

import pytest

from autolaunch.case import Bounds, Case, Effort, Limits
from autolaunch.facts import GIB, Device, DeviceKind, Engine, Situation
from autolaunch.failure import Failure, Kind
from autolaunch.figures import Effective
from autolaunch.settings import Settings
from autolaunch.share import ceiling, down, free_cap, host_share, memory_cap, up, utilization
from autolaunch.strategy import Rung

CARD = Device(DeviceKind.CUDA, "card", 100 * GIB, 100 * GIB)
RUNG = Rung("utilization", frozenset(Kind), min=0.05, max=0.95)


def card(free: float, total: float = 100) -> Device:
    """Return a card with so many GiB."""
    return Device(DeviceKind.CUDA, "card", int(total * GIB), int(free * GIB))


def case(kind: Kind, share: float | None = 0.5, *, numbers: dict[str, float] | None = None, **more: Any) -> Case:
    """Return a failed attempt on a card."""
    device = more.pop("device", CARD)
    return Case(
        Failure(kind, numbers=numbers or {}),
        Settings(share),
        more.pop("effective", Effective()),
        Situation(device, Engine("0.24.0", DeviceKind.CUDA)),
        more.pop("limits", Limits()),
        **more,
    )


def answer(found: Case, rung: Rung = RUNG) -> float | None:
    """Return the share the rung proposes."""
    return next((proposal.values["gpu_memory_utilization"] for proposal in utilization(rung, found)), None)


KV = {"needed_kv_gib": 12.0, "available_kv_gib": 2.0, "max_seq_len": 120000, "estimated_max_len": 20000}


def test_shares_are_rounded_to_three_decimals_in_the_safe_direction() -> None:
    assert (down(0.8999), up(0.8001), down(0.9), up(0.9)) == (0.899, 0.801, 0.9, 0.9)


@pytest.mark.parametrize(
    ("total", "memory", "cap"), [(100, None, 1.0), (None, GIB, 1.0), (100, 22 * GIB, 0.22), (10, 22 * GIB, 1.0)]
)
def test_an_absolute_budget_is_a_share_of_the_card(total: float | None, memory: int | None, cap: float) -> None:
    assert memory_cap(total, Limits(memory_bytes=memory)) == cap


@pytest.mark.parametrize(
    ("device", "cap"),
    [
        (card(50), 0.489),
        (card(0.1), 0.0),
        (card(100), 0.989),
        (Device(), 1.0),
        (Device(DeviceKind.CPU, "", 100 * GIB, 50 * GIB), 0.457),
    ],
)
def test_what_is_free_is_less_its_context_and_a_margin(device: Device, cap: float) -> None:
    assert free_cap(device) == cap


def test_a_cpu_engine_takes_half_of_what_is_available() -> None:
    assert host_share(Device(DeviceKind.CPU, "", 100 * GIB, 60 * GIB)) == 0.3
    assert host_share(Device(DeviceKind.CPU, "", 100 * GIB, 0)) == 0.0
    assert host_share(Device(DeviceKind.CPU)) == 0.5


@pytest.mark.parametrize(
    ("found", "highest"),
    [
        (case(Kind.KV_NONE), 0.95),
        (case(Kind.KV_NONE, device=card(50)), 0.489),
        (case(Kind.KV_NONE, limits=Limits(memory_bytes=20 * GIB)), 0.2),
        (case(Kind.KV_NONE, bounds=Bounds(too_high=0.8)), 0.795),
        (case(Kind.KV_NONE, bounds=Bounds(taken=0.7, too_high=0.8)), 0.695),
        (case(Kind.KV_NONE, device=card(20), numbers={"total_gib": 24.0}), 0.95),
    ],
)
def test_the_ceiling_is_the_least_of_all_that_caps_a_share(found: Case, highest: float) -> None:
    """The last one: a measurement of another memory (a slice, an imitated card) says nothing about this one."""
    assert ceiling(RUNG, found) == highest


@pytest.mark.parametrize(
    ("found", "share"),
    [
        (case(Kind.KV_TOO_SMALL, numbers=KV), 0.603),
        (case(Kind.KV_TOO_SMALL, numbers=KV, device=card(55)), None),
        (case(Kind.KV_TOO_SMALL, numbers=KV, limits=Limits(concurrency=3)), 0.848),
        (case(Kind.KV_TOO_SMALL, numbers=KV, limits=Limits(concurrency=9)), 0.95),
        (case(Kind.KV_TOO_SMALL, numbers={"max_seq_len": 120000, "estimated_max_len": 20000},
              effective=Effective(available_kv_gib=2.0)), 0.603),
        (case(Kind.KV_TOO_SMALL, numbers={}), 0.95),
        (case(Kind.KV_TOO_SMALL, numbers=KV, effort=Effort.LAST_RESORT, device=card(55)), 0.539),
        (case(Kind.KV_TOO_SMALL, numbers=KV, device=card(55), limits=Limits(min_context=30000)), 0.539),
        (case(Kind.KV_TOO_SMALL, numbers=KV, device=card(55), limits=Limits(min_context=90000)), None),
        (case(Kind.KV_TOO_SMALL, 0.949, numbers=KV), None),
        (case(Kind.KV_TOO_SMALL, numbers=KV, bounds=Bounds(too_high=0.9)), 0.603),
        (case(Kind.KV_TOO_SMALL, numbers=KV, bounds=Bounds(too_high=0.65)), None),
        (case(Kind.KV_TOO_SMALL, numbers=KV, bounds=Bounds(too_high=0.65), effort=Effort.LAST_RESORT), 0.603),
        (case(Kind.KV_NONE), 0.92),
        (case(Kind.KV_NONE, 0.92), 0.95),
        (case(Kind.KV_NONE, device=card(60)), 0.589),
        (case(Kind.KV_NONE, effective=Effective(available_kv_gib=-40.0)), 0.92),
        (case(Kind.KV_NONE, effective=Effective(available_kv_gib=-44.0)), 0.95),
        (case(Kind.KV_NONE, effective=Effective(available_kv_gib=-46.0)), None),
        (case(Kind.KV_NONE, effective=Effective(available_kv_gib=-46.0), effort=Effort.LAST_RESORT), 0.95),
        (case(Kind.KV_NONE, bounds=Bounds(taken=0.6)), 0.547),
        (case(Kind.KV_NONE, bounds=Bounds(taken=0.51)), None),
        (case(Kind.KV_NONE, device=Device(DeviceKind.CPU, "", 100 * GIB, 90 * GIB), share=0.3), 0.45),
    ],
)  # fmt: skip
def test_a_missing_cache_raises_by_what_is_missing_or_as_far_as_it_can_cure(found: Case, share: float | None) -> None:
    assert answer(found) == share


def test_a_partial_rung_raises_as_far_as_there_is_memory() -> None:
    rung = Rung("utilization", frozenset(Kind), min=0.05, max=0.95, partial=True)
    assert answer(case(Kind.KV_TOO_SMALL, numbers=KV, device=card(55)), rung) == 0.539
    met = case(Kind.KV_TOO_SMALL, numbers=KV, bounds=Bounds(too_high=0.58))
    assert answer(met, rung) is None, "never back up towards what was too much"


FREE = {"free_gib": 40.0, "total_gib": 100.0, "utilization": 0.9, "requested_gib": 90.0}


@pytest.mark.parametrize(
    ("found", "share"),
    [
        (case(Kind.FREE_MEMORY_LOW, 0.9, numbers=FREE, device=Device()), 0.395),
        (case(Kind.FREE_MEMORY_LOW, 0.9, numbers=FREE, device=card(40.5)), 0.395),
        (case(Kind.FREE_MEMORY_LOW, 0.9, numbers=FREE, device=card(70)), 0.689),
        (case(Kind.FREE_MEMORY_LOW, 0.9, numbers=FREE, device=card(70), bounds=Bounds(refusals=2)), 0.395),
        (case(Kind.FREE_MEMORY_LOW, 0.9, numbers=FREE, device=card(100)), 0.895),
        (case(Kind.FREE_MEMORY_LOW, 0.9, numbers={}, device=card(70)), 0.689),
        (case(Kind.FREE_MEMORY_LOW, 0.9, numbers={}, device=Device()), 0.8),
        (case(Kind.FREE_MEMORY_LOW, 0.9, numbers={**FREE, "free_gib": 4.0}, device=Device()), None),
        (case(Kind.FREE_MEMORY_LOW, 0.9, numbers=FREE, device=Device(), bounds=Bounds(too_low=0.5)), None),
        (case(Kind.FREE_MEMORY_LOW, None, numbers=FREE, device=Device()), 0.395),
        (case(Kind.FREE_MEMORY_LOW, 0.9, numbers={"free_gib": 20.0, "total_gib": 24.0}, device=card(70)), 0.828),
        (case(Kind.KV_ALLOC_OOM, 0.9), 0.85),
        (case(Kind.KV_ALLOC_OOM, 0.9, device=card(60)), 0.589),
        (case(Kind.KV_ALLOC_OOM, 0.9, numbers={"tried_to_allocate_mib": 10240, "free_gib": 0.0}), 0.79),
        (case(Kind.KV_ALLOC_OOM, 0.9, bounds=Bounds(overruns=2)), 0.8),
        (case(Kind.KV_ALLOC_OOM, 0.9, bounds=Bounds(too_low=0.86)), 0.882),
        (case(Kind.KV_ALLOC_OOM, 0.9, bounds=Bounds(too_low=0.895)), None),
        (case(Kind.GRAPH_OOM, 0.9), 0.87),
        (case(Kind.GRAPH_OOM, 0.9, bounds=Bounds(overruns=2)), None),
        (case(Kind.GRAPH_OOM, 0.9, bounds=Bounds(overruns=2), effort=Effort.LAST_RESORT), 0.84),
        (case(Kind.SAMPLER_OOM, 0.9), 0.85),
        (case(Kind.RUNTIME_OOM, 0.9), 0.85),
        (case(Kind.RUNTIME_OOM, 0.9, bounds=Bounds(overruns=2)), None),
        (case(Kind.OOM, 0.9, bounds=Bounds(overruns=2)), None),
        (case(Kind.RUNTIME_OOM, 0.9, bounds=Bounds(overruns=4), effort=Effort.LAST_RESORT), 0.8),
        (case(Kind.KV_ALLOC_OOM, 0.9, bounds=Bounds(overruns=4)), 0.8),
        (case(Kind.OOM, 0.9, numbers={"tried_to_allocate_mib": 1e12}), 0.4),
        (case(Kind.OOM, 0.06), 0.055),
        (case(Kind.OOM, 0.05), None),
    ],
)
def test_what_ran_out_lowers_to_what_is_free_or_by_what_is_short(found: Case, share: float | None) -> None:
    assert answer(found) == share


def test_the_reason_has_both_numbers() -> None:
    found = case(Kind.FREE_MEMORY_LOW, 0.9, numbers=FREE, device=Device())
    assert [proposal.why for proposal in utilization(RUNG, found)] == ["40.00 of 100.00 GiB were free"]
    found = case(Kind.KV_TOO_SMALL, numbers=KV)
    assert [proposal.why for proposal in utilization(RUNG, found)] == [
        "10.00 GiB more make room for the whole KV cache, of 100.00 GiB in all"
    ]


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (case(Kind.RUNTIME_OOM, 0.9), "ran out of memory beside the budget: 5% of the memory is left outside it"),
        (case(Kind.KV_ALLOC_OOM, 0.9, numbers={"tried_to_allocate_mib": 93.0}, bounds=Bounds(overruns=2)),
         "93 MiB did not fit beside the budget: 10% of the memory is left outside it, after 2 failures of this kind"),
        (case(Kind.KV_ALLOC_OOM, 0.9, numbers={"tried_to_allocate_mib": 10240.0}),
         "10240 MiB did not fit beside the budget: so much less, and a little"),
        (case(Kind.KV_ALLOC_OOM, 0.9, device=card(60)),
         "ran out of memory beside the budget; no more than this share is free"),
        (case(Kind.KV_ALLOC_OOM, 0.9, bounds=Bounds(too_low=0.86)),
         "ran out of memory beside the budget: 5% of the memory is left outside it; half of the way down to 0.865, "
         "which is the least"),
    ],
)  # fmt: skip
def test_the_reason_is_the_one_that_decided(found: Case, why: str) -> None:
    assert [proposal.why for proposal in utilization(RUNG, found)] == [why]


def test_a_literal_ladder_takes_the_next_lower_value_whatever_failed() -> None:
    rung = Rung("utilization", frozenset(Kind), values=(0.9, 0.8, 0.6))
    assert [answer(case(Kind.KV_NONE, share), rung) for share in (None, 0.9, 0.85, 0.6)] == [0.9, 0.8, 0.8, None]


def test_no_share_matters_where_the_user_sized_the_cache() -> None:
    found = case(Kind.KV_TOO_SMALL, None, numbers=KV, pins=frozenset({"gpu_memory_utilization"}))
    assert answer(found) is None


@pytest.mark.parametrize("value", [-1.0, math.inf, -math.inf])
def test_a_number_that_cannot_be_is_no_number(value: float) -> None:
    assert answer(case(Kind.FREE_MEMORY_LOW, 0.9, numbers={"free_gib": value, "total_gib": 100.0})) == 0.895
