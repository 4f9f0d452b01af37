"""When settings that ran out of memory in service are tried again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autolaunch.comeback import QUIET_S, asks_more, comeback
from autolaunch.failure import Kind
from autolaunch.past import Outcome, Past
from autolaunch.settings import AUTO, Settings
from tests.unit.kept import start

WIDE = Settings(0.92, AUTO)
MIDDLE = WIDE.changed(gpu_memory_utilization=0.9)
NARROW = MIDDLE.changed(max_num_batched_tokens=2048)


def ran_out(settings: Settings, at: float, **more: Any) -> Outcome:
    return start_of(settings, at, kind=Kind.RUNTIME_OOM, in_service=True, **more)


def start_of(settings: Settings, at: float, kind: Kind | None = None, **more: Any) -> Outcome:
    made = start(kind=kind, at=at, **more)
    return Outcome(**{name: getattr(made, name) for name in Outcome.__slots__} | {"settings": settings})


def back(outcomes: tuple[Outcome, ...], settings: Settings, now: float) -> Settings | None:
    found = comeback(Past(outcomes), settings, wish="w", now=now)
    return None if found is None else found.settings


def test_nothing_comes_back_where_nothing_ran_out() -> None:
    assert back((), NARROW, QUIET_S) is None
    assert back((start_of(NARROW, 5.0), start_of(WIDE, 4.0, kind=Kind.GRAPH_OOM)), NARROW, 9 * QUIET_S) is None


def test_the_last_step_down_is_undone_first() -> None:
    known = (start_of(NARROW, 21.0), ran_out(MIDDLE, 20.0), ran_out(WIDE, 10.0))
    assert back(known, NARROW, 20.0 + QUIET_S) == MIDDLE
    assert back(known, MIDDLE, 20.0 + QUIET_S) == WIDE
    assert back(known, WIDE, 20.0 + QUIET_S) is None


def test_any_failure_of_the_wish_ends_the_quiet_even_one_of_other_settings() -> None:
    known = (ran_out(NARROW, 1000.0), start_of(NARROW, 11.0), ran_out(WIDE, 10.0))
    assert back(known, NARROW, 10.0 + QUIET_S) is None
    assert back(known, NARROW, 1000.0 + QUIET_S) == WIDE


def test_every_failure_of_the_same_settings_doubles_their_quiet_time() -> None:
    known = (start_of(NARROW, 31.0), ran_out(WIDE, 30.0), ran_out(WIDE, 20.0), ran_out(WIDE, 10.0))
    assert back(known, NARROW, 30.0 + 4 * QUIET_S - 1) is None
    assert back(known, NARROW, 30.0 + 4 * QUIET_S) == WIDE


def test_a_crash_in_service_and_another_wish_say_nothing() -> None:
    crash = start_of(WIDE, 10.0, kind=Kind.OTHER_CRASH, in_service=True)
    assert back((crash, ran_out(WIDE, 10.0, wish="other")), NARROW, 9 * QUIET_S) is None


def test_a_clock_that_was_set_back_makes_the_wait_longer() -> None:
    assert back((ran_out(WIDE, 10 * QUIET_S),), NARROW, 3 * QUIET_S) is None


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (WIDE, MIDDLE, True),
        (MIDDLE, WIDE, False),
        (WIDE, WIDE, False),
        (Settings(), Settings(max_model_len=4096), True),
        (Settings(max_model_len=AUTO), Settings(max_model_len=4096), True),
        (Settings(max_num_seqs=256), Settings(max_num_seqs=64, enforce_eager=True), True),
        (Settings(max_num_seqs=64), Settings(max_num_seqs=256, enforce_eager=True), False),
        (Settings(cudagraph_capture_sizes=(1, 2, 4, 8)), Settings(cudagraph_capture_sizes=(1, 2)), True),
        (Settings(), Settings(quantization="fp8"), True),
        (Settings(0.95, quantization="fp8"), Settings(0.9), False),
        (Settings(0.95, model="a"), Settings(0.9, model="b"), False),
        (Settings(0.95, kv_cache_dtype="fp8"), Settings(0.9, kv_cache_dtype="fp8"), True),
    ],
)
def test_more_is_more_in_something_and_less_in_nothing(one: Settings, other: Settings, expected: bool) -> None:
    assert asks_more(one, other) is expected


some = st.builds(
    Settings,
    gpu_memory_utilization=st.sampled_from([None, 0.8, 0.9]),
    max_num_seqs=st.sampled_from([None, 16, 64]),
    enforce_eager=st.sampled_from([None, False, True]),
    quantization=st.sampled_from([None, "fp8"]),
)


@given(some, some, some)
def test_asking_for_more_is_an_order(a: Settings, b: Settings, c: Settings) -> None:
    assert not (asks_more(a, b) and asks_more(b, a))
    assert not (asks_more(a, b) and asks_more(b, c)) or asks_more(a, c)


@given(st.lists(st.tuples(some, st.floats(0, 1e6)), max_size=8), some, st.floats(0, 1e7))
def test_what_comes_back_asks_for_more_and_was_quiet(
    failures: list[tuple[Settings, float]], now_at: Settings, now: float
) -> None:
    known = tuple(ran_out(settings, at) for settings, at in sorted(failures, key=lambda one: -one[1]))
    found = comeback(Past(known), now_at, wish="w", now=now)
    if found is not None:
        assert asks_more(found.settings, now_at)
        assert now - max(one.at for one in known) >= QUIET_S
