"""A service that ran out of memory is not given up: it steps down or serves on as it did, within its restarts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autolaunch import record
from autolaunch.case import Limits
from autolaunch.climb import begin
from autolaunch.errors import ExitCode
from autolaunch.events import (
    AwaitRelease,
    CauseSeen,
    DeadlineReached,
    EngineExited,
    Event,
    Launch,
    MemorySettled,
    ProbePassed,
    Remember,
    Tell,
    TreeGone,
)
from autolaunch.facts import Device, DeviceKind, Engine, Situation
from autolaunch.failure import Failure, Kind, Phase
from autolaunch.figures import Effective
from autolaunch.machine import advance
from autolaunch.phases import Backoff, ExhaustedEnd, Policy, Ready, Run, Starting, State, Stopped
from autolaunch.settings import Change, Settings
from autolaunch.strategy import load_strategy

CARD = Device(DeviceKind.CUDA, "card", 24 << 30, 24 << 30, (7, 5))
SITUATION = Situation(CARD, Engine("0.24.0", DeviceKind.CUDA))
PINNED = Settings(0.9, 8192, max_num_seqs=8, max_num_batched_tokens=2048, enforce_eager=True)
PINS = frozenset({"gpu_memory_utilization", "max_model_len", "max_num_seqs", "max_num_batched_tokens", "enforce_eager"})
SAID = Effective(max_model_len=8192, available_kv_gib=3.2, kv_cache_tokens=140000, weights_gib=17.56)
RAN_OUT = Failure(Kind.RUNTIME_OOM, line="CUDA out of memory", phase=Phase.SERVING)
TOO_SMALL = Failure(Kind.KV_TOO_SMALL, line="the cache is too small")


def service(settings: Settings = PINNED, pins: frozenset[str] = PINS, **policy: int | bool) -> Ready:
    """Return a run whose first engine serves."""
    climb = begin(load_strategy("default"), Limits(), settings, pins=pins, situation=SITUATION)
    climb = replace(climb, settings=settings, tried=frozenset({settings}))
    run = Run(replace(Policy(), **policy), climb, SITUATION)  # type: ignore[arg-type]  # each test's own fields
    return Ready(replace(run, climbing=0), 0.0)


def went(state: State, *events: Event, now: float = 10.0) -> tuple[State, list[object]]:
    """Return the state after these events, and every effect, told events bare; deadlines come when they are due."""
    seen: list[object] = []
    for event in events:
        due = state.deadline if isinstance(event, DeadlineReached) else None
        state, effects = advance(state, event, now if due is None else due)
        seen += [effect.event if isinstance(effect, Tell) else effect for effect in effects]
    return state, seen


def died(attempt: int, failure: Failure = RAN_OUT) -> tuple[Event, ...]:
    return EngineExited(attempt, 1, failure, SAID), TreeGone(attempt), MemorySettled(attempt, CARD)


WHY = (
    "every rung of the strategy 'default' that answers runtime_oom has been used or is pinned: the same settings again"
)


def test_where_nothing_is_safer_the_same_settings_are_started_again_after_a_wait() -> None:
    state, seen = went(service(), *died(1))
    assert isinstance(state, Backoff)
    assert (state.failure, state.wait_s, state.deadline) == (RAN_OUT, 1.0, 11.0)
    (told,) = (event for event in seen if isinstance(event, record.Stepped))
    assert (told.rung, told.why, told.changes) == ("again", WHY, ())
    assert told.closest[0] == "allow --gpu-memory-utilization 0.85 instead of your 0.9"
    assert [effect for effect in seen if isinstance(effect, (Remember, AwaitRelease))] == [
        Remember(PINNED, RAN_OUT, SAID, CARD, 10.0, in_service=True),
        AwaitRelease(1),
    ]
    state, seen = went(state, DeadlineReached())
    assert seen == [record.Restarting(RAN_OUT, 1.0), Launch(2, PINNED, "start")]


def test_what_would_help_is_told_once_and_the_waits_grow() -> None:
    state: State = service()
    told, waits = 0, []
    for attempt in range(1, 6):
        state, seen = went(state, *died(attempt))
        assert isinstance(state, Backoff)
        told += sum(isinstance(event, record.Stepped) for event in seen)
        waits.append(state.wait_s)
        state, _ = went(state, DeadlineReached(), ProbePassed(attempt + 1, SAID))
    assert (told, waits) == (1, [1.0, 2.0, 4.0, 8.0, 16.0])


def test_the_restart_budget_bounds_it() -> None:
    state: State = service(max_restarts=1)
    state, _ = went(state, *died(1))
    state, _ = went(state, DeadlineReached(), ProbePassed(2, SAID))
    state, seen = went(state, EngineExited(2, 1, RAN_OUT, SAID), TreeGone(2))
    assert state == Stopped(ExitCode.RESTARTS_SPENT)
    assert Remember(PINNED, RAN_OUT, SAID, CARD, 0.0, in_service=True) in seen


def test_where_something_is_safer_it_comes_first() -> None:
    state, seen = went(service(Settings(0.9, 8192), frozenset({"max_model_len"})), *died(1))
    assert isinstance(state, Starting)
    (told,) = (event for event in seen if isinstance(event, record.Stepped))
    assert (told.rung, told.closest) == ("utilization", ())
    assert state.run.fallback is not None
    assert state.run.fallback.settings == Settings(0.9, 8192)


@pytest.mark.parametrize("kind", [Kind.OTHER_CRASH, Kind.UNKNOWN, Kind.CONFIG_ERROR, Kind.MODEL_NOT_FOUND])
def test_safer_settings_that_fail_of_something_else_lead_back_too(kind: Kind) -> None:
    """A hub that was away for a moment ended a service that had only run out of memory."""
    state, _ = went(service(Settings(0.9, 8192), frozenset({"max_model_len"})), *died(1))
    assert isinstance(state, Starting)
    state, _ = went(state, *died(2, Failure(kind, line="x")))
    assert isinstance(state, Backoff)
    state, _ = went(state, DeadlineReached())
    assert isinstance(state, Starting)
    assert state.run.climb.settings == Settings(0.9, 8192)


def test_where_the_safer_settings_do_not_come_up_those_that_served_are_started_again() -> None:
    """A share that had to give way left too little for a pinned context: once the service ended with exit code 3."""
    free = frozenset({"gpu_memory_utilization"})
    state, _ = went(service(PINNED, PINS - free, max_attempts=1), *died(1))
    assert isinstance(state, Starting)
    lowered = state.run.climb.settings
    state, seen = went(state, *died(2, TOO_SMALL))
    assert isinstance(state, Backoff)
    (told,) = (event for event in seen if isinstance(event, record.Stepped))
    assert told.rung == "return"
    assert told.why == "1 of at most 1 attempts are used: back to the settings that served"
    assert told.changes == (Change("gpu_memory_utilization", lowered.gpu_memory_utilization, 0.9),)
    state, seen = went(state, DeadlineReached())
    assert seen == [record.Restarting(TOO_SMALL, 1.0), Launch(3, PINNED, "return")]
    assert isinstance(state, Starting)
    assert lowered in state.run.climb.tried
    state, seen = went(state, *died(3, TOO_SMALL))
    assert state == ExhaustedEnd(), "it goes back once for each time that it served"


def test_a_service_that_came_up_again_has_nothing_to_go_back_to() -> None:
    state, _ = went(service(Settings(0.9, 8192), frozenset({"max_model_len"})), *died(1))
    state, _ = went(state, ProbePassed(2, SAID))
    assert isinstance(state, Ready)
    assert state.run.fallback is None


def test_a_service_on_unified_memory_steps_down_and_no_failed_start_is_followed_by_another() -> None:
    state, _ = went(service(Settings(0.9, 8192), frozenset({"max_model_len"}), retries=False), *died(1))
    assert isinstance(state, Starting), "less than what served overcommits nothing"
    failed, _ = went(state, *died(2, TOO_SMALL))
    assert failed == ExhaustedEnd()


@pytest.mark.parametrize("event", [CauseSeen, EngineExited])
def test_host_memory_that_ran_out_in_service_is_a_crash_however_it_is_noticed(event: type) -> None:
    killed = Failure(Kind.HOST_OOM, line="std::bad_alloc", phase=Phase.SERVING)
    state: State = service()
    if event is CauseSeen:
        state, _ = went(state, CauseSeen(1, killed, SAID, 10.0))
        state, seen = went(state, DeadlineReached(), TreeGone(1), MemorySettled(1, CARD), now=14.0)
    else:
        state, seen = went(state, *died(1, killed))
    line = "the engine was killed or the host's memory ran out: std::bad_alloc"
    crash = Failure(Kind.OTHER_CRASH, line=line, phase=Phase.SERVING)
    assert record.Crashed(crash, 1.0) in seen
    assert not any(isinstance(effect, Remember) for effect in seen)
    assert isinstance(state, Backoff)
