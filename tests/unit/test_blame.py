"""A concession that the engine refuses is ours to take back; what the user asked for, and the rest, is not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from autolaunch.blame import blamed
from autolaunch.case import Limits
from autolaunch.climb import Climb, Step, begin
from autolaunch.events import AwaitRelease, Launch, MemorySettled, TreeGone
from autolaunch.facts import GIB, Device, DeviceKind, Engine, Model, Situation
from autolaunch.failure import Failure, Kind
from autolaunch.figures import Effective
from autolaunch.ladder import next_step
from autolaunch.machine import advance
from autolaunch.phases import Force, Policy, Run, Stopping, Suspect, ToClimb
from autolaunch.settings import Settings
from autolaunch.strategy import load_strategy

BOTH = Settings(kv_cache_dtype="fp8", quantization="fp8")
CACHE = "ValueError: Selected backend FLASH_ATTN does not support fp8 kv-cache"
WEIGHTS = "ValueError: The quantization method fp8 is not supported for the current GPU"


@pytest.mark.parametrize(
    ("kind", "line", "settings", "expected"),
    [
        (Kind.CONFIG_ERROR, CACHE, BOTH, ("kv_cache_dtype", "fp8")),
        (Kind.CONFIG_ERROR, WEIGHTS, BOTH, ("quantization", "fp8")),
        (Kind.HARDWARE_UNSUPPORTED, "no kernel image is available", BOTH, ("kv_cache_dtype", "fp8")),
        (Kind.OTHER_CRASH, "ModuleNotFoundError: No module named 'flashinfer'", BOTH, ("kv_cache_dtype", "fp8")),
        (Kind.MODEL_NOT_FOUND, "401 Client Error", Settings(model="org/awq"), ("model", "org/awq")),
        (Kind.CONFIG_ERROR, "12 is not divisible by 8", Settings(tensor_parallel_size=8), ("tensor_parallel_size", 8)),
        (Kind.OTHER_CRASH, "Segmentation fault", Settings(tensor_parallel_size=8), None),
        (Kind.CONFIG_ERROR, "--dtype: invalid choice", BOTH, None),
        (Kind.OTHER_CRASH, "Segmentation fault", Settings(0.9, 4096, 8, enforce_eager=True), None),
        (Kind.MODEL_NOT_FOUND, "404 Client Error", BOTH, None),
        (Kind.WEIGHTS_OOM, "fp8", BOTH, None),
        (Kind.PORT_IN_USE, "fp8", BOTH, None),
    ],
)
def test_a_failure_is_put_down_to_what_it_names_or_to_what_is_unusual(
    kind: Kind, line: str, settings: Settings, expected: tuple[str, Any] | None
) -> None:
    assert blamed(Failure(kind, line=line), settings, pins=frozenset()) == expected


def test_what_the_user_pinned_is_never_taken_back() -> None:
    failure = Failure(Kind.CONFIG_ERROR, line=CACHE)
    assert blamed(failure, BOTH, pins=frozenset({"kv_cache_dtype"})) is None
    assert blamed(failure, BOTH, pins=frozenset({"quantization"})) == ("kv_cache_dtype", "fp8")


SITUATION = Situation(
    Device(DeviceKind.CUDA, "card", 24 * GIB, 24 * GIB, (8, 9)), Engine("0.24.0", DeviceKind.CUDA), Model(131072)
)


def climb(settings: Settings) -> Climb:
    found = begin(load_strategy("keep-context"), Limits(), Settings(), pins=frozenset(), situation=SITUATION)
    return replace(found, settings=settings, tried=frozenset({settings}))


def test_a_refused_concession_is_taken_back_and_never_made_again() -> None:
    """keep-context starts with an FP8 cache where that is enough: an old backend must not end the run."""
    first = next_step(climb(BOTH), Failure(Kind.CONFIG_ERROR, line=CACHE), Effective(), SITUATION)
    assert isinstance(first, Step)
    assert first.climb.settings == Settings(quantization="fp8")
    assert first.rung == "retract"
    numbers = {"needed_kv_gib": 5.0, "available_kv_gib": 3.0, "max_seq_len": 131072, "estimated_max_len": 78000}
    found: Any = first
    tried = [found.climb.settings]
    while isinstance(found, Step):
        tried.append(found.climb.settings)
        found = next_step(found.climb, Failure(Kind.KV_TOO_SMALL, numbers=numbers), Effective(), SITUATION)
    assert len(tried) > 2
    assert all(settings.kv_cache_dtype is None for settings in tried)


def test_the_supervisor_goes_on_where_only_a_concession_of_ours_was_refused() -> None:
    failure = Failure(Kind.CONFIG_ERROR, line=CACHE)
    run = Run(Policy(), climb(BOTH), SITUATION)
    state = Stopping(run, ToClimb(Suspect(failure, Effective(), 5.0), 5.0), Force.POLITE, 30.0)
    state_after, effects = advance(state, TreeGone(1), 10.0)
    assert AwaitRelease(1) in effects
    _, effects = advance(state_after, MemorySettled(1, SITUATION.device), 11.0)
    assert Launch(2, Settings(quantization="fp8"), "retract", 2) in effects
