"""What a rung reads of a failed attempt: the engine's own numbers first, measurements next, nothing invented."""

from __future__ import annotations

import math
from typing import Any

import pytest

from autolaunch.case import Bounds, Case, Effort, Limits
from autolaunch.facts import GIB, Device, DeviceKind, Engine, Model, Situation
from autolaunch.failure import Failure, Kind
from autolaunch.figures import Effective
from autolaunch.settings import AUTO, Settings


def case(numbers: dict[str, float] | None = None, **more: Any) -> Case:
    """Return a failed attempt."""
    situation = Situation(more.pop("device", Device()), Engine("0.24.0"), more.pop("model", Model()))
    return Case(
        Failure(Kind.KV_TOO_SMALL, numbers=numbers or {}),
        more.pop("settings", Settings()),
        more.pop("effective", Effective()),
        situation,
        more.pop("limits", Limits()),
        **more,
    )


CARD = Device(DeviceKind.CUDA, "", 24 * GIB, 20 * GIB)


@pytest.mark.parametrize(
    ("found", "share"),
    [
        (case(), 0.92),
        (case({"utilization": 0.7}), 0.7),
        (case({"utilization": 0.7}, settings=Settings(0.5)), 0.5),
        (case({"utilization": 7.0}), 0.92),
        (case({"utilization": -0.7}), 0.92),
    ],
)
def test_the_share_is_the_one_that_was_set_said_or_usual(found: Case, share: float) -> None:
    assert found.utilization == share


@pytest.mark.parametrize(
    ("found", "total", "right"),
    [
        (case(), None, False),
        (case(device=CARD), 24.0, True),
        (case({"total_gib": 23.5}, device=CARD), 23.5, True),
        (case({"total_gib": 79.18}, device=CARD), 79.18, False),
        (case(effective=Effective(total_gib=10.0), device=CARD), 10.0, False),
        (case({"total_gib": 0.0}, device=CARD), 24.0, True),
        (case({"total_gib": 24.0}, device=Device(total_bytes=24 * GIB)), 24.0, False),
    ],
)
def test_a_measurement_counts_where_it_is_of_the_same_memory(found: Case, total: float | None, right: bool) -> None:
    assert (found.total_gib, found.measured_rightly) == (total, right)


@pytest.mark.parametrize(
    ("found", "length"),
    [
        (case(), None),
        (case(model=Model(2048)), 2048),
        (case(effective=Effective(max_model_len=4096), model=Model(2048)), 4096),
        (case({"max_seq_len": 8192}, effective=Effective(max_model_len=4096)), 8192),
        (case({"max_seq_len": 8192}, settings=Settings(max_model_len=AUTO)), 8192),
        (case({"max_seq_len": 8192}, settings=Settings(max_model_len=1000)), 1000),
    ],
)
def test_the_context_is_the_one_that_was_set_said_or_known(found: Case, length: int | None) -> None:
    assert found.context == length


WHOLE = {"needed_kv_gib": 5.0, "available_kv_gib": 2.5, "max_seq_len": 131072, "estimated_max_len": 65536}


@pytest.mark.parametrize(
    ("found", "fitting", "needed"),
    [
        (case(WHOLE), 65536, 5.0),
        (case(WHOLE, limits=Limits(concurrency=3)), 21840, 15.0),
        (case({"max_seq_len": 131072, "estimated_max_len": 65536}), 65536, None),
        (case({"max_seq_len": 131072, "estimated_max_len": 65536}, effective=Effective(available_kv_gib=2.0)), 65536,
         4.0),
        (case({"max_seq_len": 100000, "needed_kv_gib": 5.0, "available_kv_gib": 2.5}), 49000, 5.0),
        (case({"needed_kv_gib": 5.0, "available_kv_gib": -2.5, "max_seq_len": 131072}), None, 5.0),
        (case({"estimated_max_len": -3, "max_seq_len": 10}), None, None),
        (case(), None, None),
    ],
)  # fmt: skip
def test_what_fits_and_what_is_needed_count_every_request(
    found: Case, fitting: int | None, needed: float | None
) -> None:
    assert (found.fitting, found.needed_kv_gib) == (fitting, needed)


def test_the_overhead_is_what_neither_weights_nor_cache_took() -> None:
    said = Effective(weights_gib=17.5, available_kv_gib=-1.0, total_gib=20.0)
    assert case(settings=Settings(0.9), effective=said).overhead_gib == pytest.approx(1.5)
    assert case(settings=Settings(0.9), effective=Effective(weights_gib=17.5, total_gib=20.0)).overhead_gib is None


def test_a_cache_sized_in_bytes_leaves_no_say_to_a_share() -> None:
    pins = frozenset({"gpu_memory_utilization"})
    assert case(pins=pins).pool_is_fixed
    assert not case(pins=pins, settings=Settings(0.5)).pool_is_fixed
    assert not case().pool_is_fixed


def test_the_least_context_is_the_users_floor_or_what_is_of_use() -> None:
    found = [Limits().least_context, Limits(100).least_context, Limits(9000, floor_is_wish=True).least_context]
    assert found == [512, 100, 9000]


def test_the_upper_bound_is_the_nearer_of_two_and_last_resort_is_an_effort() -> None:
    assert Bounds().upper == math.inf
    assert Bounds(too_high=0.8, taken=0.7).upper == 0.7
    assert case(effort=Effort.LAST_RESORT).last_resort
    assert not case().last_resort
