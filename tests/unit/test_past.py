"""What earlier starts say about the next: which came up, which failure still stands, what counts as the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from autolaunch.facts import GIB, Device, DeviceKind, Engine, Model, Situation
from autolaunch.failure import Failure, Kind
from autolaunch.figures import Effective
from autolaunch.past import Key, Outcome, Past, came_up, holds, key_of, refusal
from autolaunch.settings import Settings

WIDE = Settings(0.9, 131072)
NARROW = Settings(0.9, 70624)


def start(settings: Settings = WIDE, kind: Kind | None = None, **more: Any) -> Outcome:
    """Return one start on a card of 24 GiB with 22 free; it came up unless a kind is given."""
    made = Outcome(
        settings,
        None if kind is None else Failure(kind),
        Effective(),
        engine_version="0.24.0",
        total_bytes=24 * GIB,
        free_bytes=22 * GIB,
        wish="w",
    )
    return replace(made, **more)


def now(
    *, free: float | None = 22, total: float = 24, version: str | None = "0.24.0", kind: DeviceKind = DeviceKind.CUDA
) -> Situation:
    """Return what is there before the next start, in GiB."""
    device = Device(kind, "card", int(total * GIB), None if free is None else int(free * GIB))
    return Situation(device, Engine(version, kind), Model(name="glm-4-9b", revision="abc"))


def refused(*newest_first: Outcome, settings: Settings = WIDE, wish: str = "w", **there: Any) -> Outcome | None:
    """Return the outcome that stands against the settings."""
    return refusal(Past(newest_first), settings, wish=wish, situation=now(**there))


# --- what is the same


@pytest.mark.parametrize(
    ("device", "card", "total"),
    [
        (Device(DeviceKind.CUDA, "H100", 85_017_493_504), "H100", 79 * GIB),
        (Device(DeviceKind.CUDA, "H100", 85_017_493_504 - (40 << 20)), "H100", 79 * GIB),
        (Device(DeviceKind.CUDA, "slice", 300 << 20), "slice", GIB),
        (Device(DeviceKind.CUDA, "unread"), "unread", 0),
        (Device(), "", 0),
        (Device(DeviceKind.CPU, "host memory, node 0", 8 * GIB), "host memory, node 0", 0),
    ],
)
def test_a_cards_total_counts_to_the_nearest_gib_and_a_hosts_not_at_all(device: Device, card: str, total: int) -> None:
    situation = replace(now(), device=device)
    assert key_of(situation, model="zai-org/m", cards=2) == Key("zai-org/m", "abc", card, total, 2)


# --- what came up


def test_the_newest_start_that_came_up_for_the_wish_is_found() -> None:
    newest, older, others = start(NARROW), start(), start(Settings(0.5), wish="other")
    past = Past((others, start(kind=Kind.KV_NONE), newest, older))
    assert came_up(past, wish="w", engine_version="0.24.0") == newest
    assert came_up(past, wish="other", engine_version="0.24.0") == others
    assert came_up(past, wish="never asked", engine_version="0.24.0") is None
    assert came_up(Past(), wish="w", engine_version="0.24.0") is None


def test_a_start_of_this_engine_version_comes_before_a_newer_one_of_another() -> None:
    ours, another = start(), start(NARROW, engine_version="0.32.0")
    past = Past((another, ours))
    assert came_up(past, wish="w", engine_version="0.24.0") == ours
    assert came_up(past, wish="w", engine_version="0.30.0") == another
    assert came_up(past, wish="w", engine_version=None) == another


def test_settings_that_ran_out_of_memory_in_service_did_not_come_up() -> None:
    died = start(kind=Kind.RUNTIME_OOM, in_service=True)
    assert came_up(Past((died, start())), wish="w", engine_version="0.24.0") is None
    assert came_up(Past((died, start(), start(NARROW))), wish="w", engine_version="0.24.0") == start(NARROW)
    again = start(seconds=9.0)
    assert came_up(Past((again, died, start())), wish="w", engine_version="0.24.0") == again


@pytest.mark.parametrize(
    "later", [start(kind=Kind.OTHER_CRASH, in_service=True), start(kind=Kind.FREE_MEMORY_LOW), start(kind=Kind.KV_NONE)]
)
def test_a_crash_or_a_failed_start_since_does_not_make_a_success_undone(later: Outcome) -> None:
    assert came_up(Past((later, start())), wish="w", engine_version="0.24.0") == start()


# --- what failed and would again


def test_a_failure_stands_against_exactly_its_settings_and_its_wish() -> None:
    failed = start(kind=Kind.PROFILE_OOM)
    assert refused(failed) == failed
    assert refused(failed, settings=NARROW) is None
    assert refused(failed, settings=replace(WIDE, enforce_eager=True)) is None
    assert refused(failed, wish="with --cpu-offload-gb 10") is None
    assert refused() is None


def test_the_newest_of_several_failures_is_told() -> None:
    newer, older = start(kind=Kind.PROFILE_OOM, seconds=1.0), start(kind=Kind.PROFILE_OOM, seconds=2.0)
    assert refused(newer, older) == newer


@pytest.mark.parametrize(("free", "stands"), [(10.0, True), (22.0, True), (22.2, True), (22.3, False), (None, True)])
def test_a_failure_stands_until_more_is_free_than_then(free: float | None, stands: bool) -> None:
    assert (refused(start(kind=Kind.PROFILE_OOM), free=free) is not None) == stands


def test_a_failure_with_more_free_memory_stands_behind_a_newer_one_with_less() -> None:
    crowded, roomy = start(kind=Kind.PROFILE_OOM, free_bytes=10 * GIB), start(kind=Kind.PROFILE_OOM)
    assert refused(crowded, roomy, free=20) == roomy
    assert refused(crowded, roomy, free=23) is None


def test_more_free_memory_does_not_cure_a_budget_that_is_a_share_of_the_total() -> None:
    failed = start(kind=Kind.KV_TOO_SMALL, free_bytes=10 * GIB)
    assert refused(failed, free=22) == failed
    assert refused(failed, free=22, total=25) is None
    old = start(kind=Kind.KV_TOO_SMALL, free_bytes=10 * GIB, engine_version="0.6.6")
    assert refused(old, free=22, version="0.6.6") is None, "V0 counted its neighbours into the budget"


@pytest.mark.parametrize(("then", "version", "stands"), [
    ("0.24.0", "0.32.0", False), ("0.24.0", None, True), (None, "0.24.0", True), (None, None, True),
])  # fmt: skip
def test_another_engine_version_is_given_its_chance(then: str | None, version: str | None, stands: bool) -> None:
    assert (refused(start(kind=Kind.PROFILE_OOM, engine_version=then), version=version) is not None) == stands


@pytest.mark.parametrize("kind", [Kind.OTHER_CRASH, Kind.CONFIG_ERROR, Kind.UNKNOWN, Kind.PROFILING_RACE])
def test_what_other_settings_would_not_cure_stands_against_none(kind: Kind) -> None:
    assert refused(start(kind=kind)) is None
    assert not holds(start(kind=kind), now())


def test_host_memory_stands_against_settings_only_where_it_is_what_they_spend() -> None:
    failed = start(kind=Kind.HOST_OOM)
    assert refused(failed) is None
    assert refused(failed, kind=DeviceKind.CPU) == failed


def test_a_later_success_under_the_same_conditions_cancels_a_failure() -> None:
    assert refused(start(), start(kind=Kind.PROFILE_OOM)) is None
    assert refused(start(free_bytes=21 * GIB), start(kind=Kind.PROFILE_OOM)) is None
    assert refused(start(kind=Kind.PROFILE_OOM), start()) == start(kind=Kind.PROFILE_OOM)
    assert refused(start(NARROW), start(kind=Kind.PROFILE_OOM)) == start(kind=Kind.PROFILE_OOM)


def test_a_success_while_the_neighbour_was_away_proves_nothing_once_it_is_back() -> None:
    failed = start(kind=Kind.FREE_MEMORY_LOW, free_bytes=10 * GIB)
    assert refused(start(free_bytes=23 * GIB), failed, free=10) == failed
    assert refused(start(free_bytes=23 * GIB), failed, free=23) is None


def test_running_out_of_memory_in_service_beats_the_success_before_it() -> None:
    died = start(kind=Kind.RUNTIME_OOM, in_service=True)
    assert refused(died, start()) == died
    assert refused(died, start(), free=23.5) is None
    assert refused(start(), died, start()) is None
