"""A neighbour that came in the middle of a start is planned for, not climbed around."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from autolaunch.candidates import Question
from autolaunch.case import Limits
from autolaunch.climb import Climb, Step, begin
from autolaunch.facts import GIB, Device, DeviceKind, Engine, Model, Situation, Weights
from autolaunch.failure import Failure, Kind
from autolaunch.figures import Effective
from autolaunch.planner import plan
from autolaunch.replan import replanned
from autolaunch.settings import Settings
from autolaunch.shape import CacheKind, CacheLayers, Shape
from autolaunch.strategy import load_strategy

GLM = Shape("GlmForCausalLM", 4096, 13696, 40, 32, 2, 128, 151552, (CacheLayers(CacheKind.FULL, 40, 512, 2),))
MODEL = Model(131072, name="glm", shape=GLM, weights=Weights(18799902784, linear_bytes=16316891136))
LOW = Failure(Kind.FREE_MEMORY_LOW, line="Free memory on device", numbers={"free_gib": 13.4, "total_gib": 24.0})


def there(free: float) -> Situation:
    """Return a card of 24 GiB of which so many are free."""
    device = Device(DeviceKind.CUDA, "card", 24 * GIB, int(free * GIB), (8, 9))
    return Situation(device, Engine("0.24.0", DeviceKind.CUDA), MODEL)


def begun(free: float = 23.2, **more: Any) -> tuple[Question, Climb]:
    """Return a question and the climb of its plan."""
    first = begin(load_strategy("default"), Limits(), Settings(), pins=frozenset(), situation=there(free))
    question = Question(first, there(free), wish="w")
    settings = plan(question).settings
    return question, replace(first, settings=settings, tried=frozenset({settings}), **more)


def answer(free: float, failure: Failure = LOW, **more: Any) -> Step | None:
    """Return what is planned after a failure with so much free."""
    question, climb = begun(**more)
    return replanned(question, climb, failure, Effective(), there(free))


def test_where_a_neighbour_took_memory_the_next_start_is_what_a_first_one_would_be() -> None:
    step = answer(14.0)
    assert step is not None
    question, _ = begun(14.0)
    assert step.climb.settings == plan(question).settings
    assert step.climb.settings.quantization == "fp8"
    assert step.rung == step.climb.rung == "plan"
    assert "0.967 of the memory was free when this was planned, 0.583 is now" in step.why
    assert step.climb.free_share == pytest.approx(14.0 / 24, abs=1e-6)


def test_where_as_much_is_free_the_ladder_answers() -> None:
    assert answer(23.2) is None
    assert answer(22.9) is None


def test_a_hosts_memory_moves_more_than_a_cards_without_a_neighbour() -> None:
    question, climb = begun()
    for free, planned in ((22.0, False), (19.0, True)):
        situation = there(free)
        host = replace(situation, device=replace(situation.device, kind=DeviceKind.CPU))
        assert (replanned(question, climb, LOW, Effective(), host) is not None) == planned


@pytest.mark.parametrize("kind", [Kind.PROFILING_RACE, Kind.HOST_OOM, Kind.CONFIG_ERROR, Kind.UNKNOWN])
def test_only_failures_of_the_cards_memory_are_planned_anew(kind: Kind) -> None:
    assert answer(14.0, Failure(kind)) is None


def test_what_was_tried_or_refused_is_not_planned_again() -> None:
    fresh = answer(14.0)
    assert fresh is not None
    question, climb = begun()
    tried = replace(climb, tried=climb.tried | {fresh.climb.settings})
    assert replanned(question, tried, LOW, Effective(), there(14.0)) is None
    refused = replace(climb, refused=frozenset({("quantization", "fp8")}))
    assert replanned(question, refused, LOW, Effective(), there(14.0)) is None


def test_where_nothing_fits_any_more_or_nothing_was_planned_the_ladder_has_its_say() -> None:
    assert answer(6.0) is None
    _, climb = begun()
    assert replanned(None, climb, LOW, Effective(), there(14.0)) is None
