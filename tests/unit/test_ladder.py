"""Whole decisions: the first attempt, one step per failure, and honest ends with the words the reader needs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from autolaunch.case import Bounds, Limits
from autolaunch.climb import Climb, Exhausted, Step, begin
from autolaunch.facts import GIB, Device, DeviceKind, Engine, Holder, Model, Situation
from autolaunch.failure import Failure, Kind, Phase
from autolaunch.figures import Effective
from autolaunch.ladder import next_step
from autolaunch.settings import AUTO, Settings
from autolaunch.strategy import load_strategy
from autolaunch.unmet import unmet

CARD = Device(DeviceKind.CUDA, "card", 24 * GIB, 24 * GIB, (8, 9))
ENGINE = Engine("0.24.0", DeviceKind.CUDA)
SITUATION = Situation(CARD, ENGINE, Model(131072))
KV = {"needed_kv_gib": 5.0, "available_kv_gib": 2.69, "max_seq_len": 131072, "estimated_max_len": 70624}
SAID = Effective(max_model_len=131072, available_kv_gib=2.69, weights_gib=17.56)


def free(gib: float, *holders: Holder) -> Device:
    """Return the card with so much free."""
    return replace(CARD, free_bytes=int(gib * GIB), holders=holders)


def climb(
    pinned: Settings | None = None, *, strategy: str = "default", situation: Situation = SITUATION, **limits: Any
) -> Climb:
    """Return a climb at its first attempt, with what is set in `pinned` pinned."""
    values = (pinned or Settings()).as_json()
    return begin(
        load_strategy(strategy), Limits(**limits), pinned or Settings(), pins=frozenset(values), situation=situation
    )


def step(
    found: Climb, kind: Kind, numbers: dict[str, float] | None = None, *, device: Device = CARD, said: Effective = SAID
) -> Step:
    """Return the step that answers a failure."""
    answer = next_step(found, Failure(kind, numbers=numbers or {}), said, replace(SITUATION, device=device))
    assert isinstance(answer, Step), answer
    return answer


def end(
    found: Climb, kind: Kind, numbers: dict[str, float] | None = None, *, device: Device = CARD, said: Effective = SAID
) -> Exhausted:
    """Return the end that a failure brings."""
    answer = next_step(found, Failure(kind, numbers=numbers or {}), said, replace(SITUATION, device=device))
    assert isinstance(answer, Exhausted), answer
    return answer


# The first attempt


@pytest.mark.parametrize(
    ("found", "settings"),
    [
        (climb(), Settings(max_model_len=AUTO)),
        (climb(situation=replace(SITUATION, device=free(12))), Settings(0.47, AUTO)),
        (climb(situation=replace(SITUATION, device=free(0.5))), Settings(None, AUTO)),
        (climb(situation=Situation()), Settings()),
        (climb(situation=replace(SITUATION, engine=Engine("0.10.0"))), Settings()),
        (climb(concurrency=2), Settings()),
        (climb(concurrency=300), Settings(max_num_seqs=300)),
        (climb(concurrency=300, situation=Situation(Device(DeviceKind.CUDA, "", 80 * GIB), ENGINE)), Settings()),
        (climb(Settings(max_num_seqs=512), concurrency=300), Settings(max_num_seqs=512)),
        (climb(max_context=32768), Settings(max_model_len=32768)),
        (climb(max_context=262144), Settings(max_model_len=AUTO)),
        (climb(memory_bytes=12 * GIB), Settings(0.5, AUTO)),
        (climb(memory_bytes=24 * GIB), Settings(max_model_len=AUTO)),
        (climb(Settings(0.3, 8192)), Settings(0.3, 8192)),
        (climb(strategy="classic"), Settings(0.9)),
        (climb(strategy="classic", memory_bytes=12 * GIB), Settings(0.5)),
        (climb(situation=Situation(Device(DeviceKind.CPU, "", 100 * GIB, 80 * GIB), Engine("0.32.0"))),
         Settings(0.4, AUTO)),
    ],
)  # fmt: skip
def test_the_first_attempt_is_the_wish_then_what_is_free(found: Climb, settings: Settings) -> None:
    assert found.settings == settings
    assert found.tried == {settings}
    assert found.rung == "start"


# One step per failure


@pytest.mark.parametrize(
    ("found", "kind", "numbers", "rung", "settings"),
    [
        (climb(Settings(None, 131072)), Kind.WEIGHTS_OOM, {}, "quantized_weights",
         Settings(None, 131072, quantization="fp8")),
        (climb(), Kind.KV_TOO_SMALL, KV, "context", Settings(None, 70624)),
        (climb(strategy="keep-context"), Kind.KV_TOO_SMALL, KV, "utilization", Settings(0.96, AUTO)),
        (climb(situation=replace(SITUATION, device=free(24))), Kind.KV_NONE, {}, "utilization", Settings(0.95, AUTO)),
        (climb(), Kind.FREE_MEMORY_LOW, {"free_gib": 12.0, "total_gib": 24.0}, "utilization", Settings(0.915, AUTO)),
        (climb(), Kind.PROFILE_OOM, {}, "batch",
         Settings(None, AUTO, max_num_seqs=32, max_num_batched_tokens=1024)),
        (climb(), Kind.KV_ALLOC_OOM, {}, "utilization", Settings(0.87, AUTO)),
        (climb(), Kind.GRAPH_OOM, {}, "utilization", Settings(0.89, AUTO)),
        (climb(), Kind.SAMPLER_OOM, {"num_seqs": 256}, "batch", Settings(None, AUTO, max_num_seqs=128)),
        (climb(), Kind.SEQS_TOO_MANY, {"num_seqs": 40}, "batch", Settings(None, AUTO, max_num_seqs=40)),
        (climb(), Kind.RUNTIME_OOM, {}, "utilization", Settings(0.87, AUTO)),
        (climb(), Kind.COMPILE_ERROR, {}, "eager", Settings(None, AUTO, enforce_eager=True)),
        (climb(), Kind.PROFILING_RACE, {}, "retry", Settings(None, AUTO)),
        (climb(strategy="classic"), Kind.KV_TOO_SMALL, KV, "utilization", Settings(0.8)),
    ],
)  # fmt: skip
def test_a_failure_is_answered_by_the_one_setting_that_cures_it(
    found: Climb, kind: Kind, numbers: dict[str, float], rung: str, settings: Settings
) -> None:
    answer = step(found, kind, numbers)
    assert (answer.rung, answer.climb.settings) == (rung, settings)
    assert answer.climb.tried == {found.settings, settings}


def test_free_memory_that_is_low_goes_to_what_is_free_and_never_much_lower() -> None:
    numbers = {"free_gib": 10.49, "total_gib": 24.0, "utilization": 0.92}
    assert step(climb(), Kind.FREE_MEMORY_LOW, numbers, device=free(11.1)).changes[0].after == 0.432


def test_a_second_refusal_is_believed_over_a_measurement_that_says_more() -> None:
    """A card imitated smaller, or memory that another container sees, crept down by 0.005 a start."""
    numbers = {"free_gib": 10.0, "total_gib": 24.0}
    first = step(climb(), Kind.FREE_MEMORY_LOW, numbers)
    assert first.changes[0].after == 0.915
    second = step(first.climb, Kind.FREE_MEMORY_LOW, numbers)
    assert second.changes[0].after == 0.411


def test_with_almost_nothing_free_it_stops_and_names_the_holders() -> None:
    holders = (Holder(12, "python", 3 * GIB), Holder(34, "VLLM::EngineCore", 20 * GIB), Holder(56, "x", None))
    numbers = {"free_gib": 0.4, "total_gib": 24.0}
    answer = end(climb(), Kind.FREE_MEMORY_LOW, numbers, device=free(0.9, *holders))
    assert answer.closest == (
        "free the 20.00 GiB that VLLM::EngineCore (pid 34) holds",
        "free the 3.00 GiB that python (pid 12) holds",
        "use a card with more memory, or allow more cards with --gpus",
    )


def test_a_race_is_retried_with_the_same_settings_but_not_for_ever() -> None:
    found, tries = climb(), 0
    while isinstance(answer := next_step(found, Failure(Kind.PROFILING_RACE), SAID, SITUATION), Step):
        assert (answer.climb.settings, answer.changes) == (found.settings, ())
        found, tries = answer.climb, tries + 1
    assert tries == 2
    assert answer == Exhausted(
        "memory moved in each of 3 starts while the engine measured it",
        ("wait until the other processes on this device are up, or stop them",),
    )


@pytest.mark.parametrize(
    "kind",
    [
        Kind.HOST_OOM, Kind.CONFIG_ERROR, Kind.MODEL_NOT_FOUND, Kind.PORT_IN_USE, Kind.HARDWARE_UNSUPPORTED,
        Kind.DISTRIBUTED_ERROR, Kind.OTHER_CRASH, Kind.UNKNOWN, Kind.OK,
    ],
)  # fmt: skip
@pytest.mark.parametrize("strategy", ["default", "classic", "keep-context", "keep-quality"])
def test_what_no_memory_step_cures_gets_none(kind: Kind, strategy: str) -> None:
    assert isinstance(next_step(climb(strategy=strategy), Failure(kind), SAID, SITUATION), Exhausted)


def test_memory_that_has_come_back_since_a_start_is_used_instead_of_fewer_bits() -> None:
    found = climb(situation=replace(SITUATION, device=free(8)))
    answer = step(found, Kind.WEIGHTS_OOM, device=CARD)
    assert (answer.rung, answer.climb.settings) == ("utilization", Settings(None, AUTO))
    assert answer.why == "0.333 of the memory was free at the start, 1.000 is now"


# Bounds


def test_what_was_learnt_for_one_demand_is_forgotten_when_it_is_lessened() -> None:
    found = step(climb(Settings(None, 131072)), Kind.GRAPH_OOM).climb
    assert found.bounds == Bounds(too_high=0.92, overruns=1)
    assert step(found, Kind.GRAPH_OOM).climb.bounds == Bounds()


def test_memory_that_was_not_there_stays_taken_until_it_has_come_back() -> None:
    first = step(climb(), Kind.KV_ALLOC_OOM, device=free(20)).climb
    assert (first.bounds.taken, first.bounds.free_then) == (0.92, 20 / 24)
    quantized = step(first, Kind.WEIGHTS_OOM, device=free(20)).climb
    assert quantized.bounds.taken == 0.92
    assert step(quantized, Kind.KV_NONE, device=CARD).climb.bounds.taken == float("inf")


def test_a_share_between_too_little_and_too_much_lessens_the_demand_at_what_is_free() -> None:
    """kv_none at 0.5, free_memory_low above: the ladder gave up although eager fits at what is free."""
    start = replace(climb(), settings=Settings(0.5, AUTO))
    low = Effective(available_kv_gib=-0.2, weights_gib=10.0)
    raised = step(start, Kind.KV_NONE, said=low, device=Device()).climb
    assert raised.settings.gpu_memory_utilization == 0.92
    numbers = {"free_gib": 12.1, "total_gib": 24.0}
    answer = step(raised, Kind.FREE_MEMORY_LOW, numbers, device=Device())
    assert answer.rung == "batch"
    assert answer.climb.settings == Settings(0.499, AUTO, max_num_seqs=32, max_num_batched_tokens=1024)


def test_an_end_that_the_numbers_prove_comes_at_once() -> None:
    """1.86 GiB were missing and 1.24 could be saved at most: four starts, half a minute each, for nothing."""
    card = replace(SITUATION, device=Device(DeviceKind.CUDA, "card", int(79.18 * GIB), int(79 * GIB), (9, 0)))
    pinned, said = Settings(max_model_len=131072), Effective(131072, available_kv_gib=3.14, weights_gib=17.56)
    numbers = {"needed_kv_gib": 5.0, "available_kv_gib": 3.14, "max_seq_len": 131072, "estimated_max_len": 82304}
    held = climb(pinned, strategy="keep-quality", situation=card, memory_bytes=22 * GIB)
    assert held.settings.gpu_memory_utilization == 0.277
    end(held, Kind.KV_TOO_SMALL, numbers, device=card.device, said=said)
    lighter = climb(pinned, situation=card, memory_bytes=22 * GIB)
    assert step(lighter, Kind.KV_TOO_SMALL, numbers, device=card.device, said=said).rung == "fp8_kv"


def test_a_server_that_runs_out_loses_a_little_memory_once_and_then_requests() -> None:
    """93 MiB too few took the share from 0.92 over 0.87, 0.77 and 0.57 to 0.17."""
    found, rungs = climb(), []
    for _ in range(3):
        answer = step(found, Kind.RUNTIME_OOM, {"tried_to_allocate_mib": 93.0, "free_gib": 0.0, "total_gib": 24.0})
        found = answer.climb
        rungs.append((answer.rung, found.settings.gpu_memory_utilization))
    assert rungs == [("utilization", 0.87), ("batch", 0.87), ("utilization", 0.82)]


# Pins


def test_the_next_level_is_asked_where_the_user_pinned_the_first() -> None:
    found = climb(Settings(max_num_seqs=512, cudagraph_capture_sizes=(1, 2)))
    found = step(found, Kind.GRAPH_OOM).climb
    assert step(found, Kind.GRAPH_OOM).climb.settings.max_num_batched_tokens == 1024
    wide = climb(Settings(max_num_seqs=16))
    assert step(wide, Kind.PROFILE_OOM).climb.settings.max_num_batched_tokens == 1024


def test_only_a_pin_in_the_way_is_named_with_both_values() -> None:
    said = Effective(available_kv_gib=-16.8, weights_gib=17.56)
    answer = end(climb(Settings(0.05)), Kind.KV_NONE, said=said)
    assert answer.why == "every rung of the strategy 'default' that answers kv_none has been used or is pinned"
    assert answer.closest[0] == "allow --gpu-memory-utilization 0.92 instead of your 0.05"


def test_a_pinned_context_that_does_not_fit_is_named_with_what_does() -> None:
    pinned = Settings(0.95, 131072, 8, 512, enforce_eager=True, kv_cache_dtype="fp8", quantization="fp8")
    answer = end(climb(pinned), Kind.KV_TOO_SMALL, KV)
    assert answer.closest[0] == "allow --max-model-len 70624 instead of your 131072"


@pytest.mark.parametrize(
    ("pinned", "words"),
    [
        (Settings(enforce_eager=False), "allow --enforce-eager instead of --no-enforce-eager"),
        (Settings(cudagraph_capture_sizes=(1, 2, 4, 8, 16, 32, 64)),
         "allow --compilation-config 1,2,4,8,16,32 instead of your [1, 2, 4, 8, 16, 32, 64]"),
    ],
)  # fmt: skip
def test_every_kind_of_pin_is_named_in_the_users_words(pinned: Settings, words: str) -> None:
    found = replace(climb(pinned), pins=frozenset(Settings.__slots__))
    assert words in end(found, Kind.GRAPH_OOM, said=Effective(available_kv_gib=1.0)).closest


def test_a_cache_sized_in_bytes_is_named_without_a_value_of_the_users() -> None:
    found = replace(climb(), pins=frozenset({"gpu_memory_utilization"}))
    answer = end(found, Kind.FREE_MEMORY_LOW, {"free_gib": 12.0, "total_gib": 24.0}, device=Device())
    assert answer.closest[0] == "allow --gpu-memory-utilization 0.495 instead of what your options fix"


def test_a_floor_of_the_users_holds_to_the_end_which_says_what_would_fit() -> None:
    spent = Settings(0.95, None, 8, 512, enforce_eager=True, kv_cache_dtype="fp8", quantization="fp8")
    found = climb(spent, min_context=100000, floor_is_wish=True)
    assert end(found, Kind.KV_TOO_SMALL, KV).closest[0] == "allow --min-context 70624 instead of 100000"


# Engines that come up with less than was wished


def fitted(length: int, wished: int = 131072, **more: Any) -> Effective:
    """Return what an engine says that fitted its context itself."""
    return Effective(max_model_len=length, auto_fit_from=wished, available_kv_gib=0.8, **more)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (climb(), Effective()),
        (climb(), Effective(max_model_len=131072)),
        (climb(), fitted(70624)),
        (climb(Settings(max_model_len=AUTO)), fitted(4096)),
        (climb(Settings(max_model_len=AUTO), strategy="keep-context"), fitted(4096)),
        (
            climb(Settings(0.95, AUTO, 8, 512, enforce_eager=True, kv_cache_dtype="fp8", quantization="fp8")),
            fitted(600),
        ),
        (climb(concurrency=4), Effective(max_model_len=8192, max_concurrency=4.0)),
        (climb(concurrency=4), Effective(max_model_len=8192)),
    ],
)
def test_an_engine_is_accepted_with_what_was_wished_or_nothing_can_better(found: Climb, said: Effective) -> None:
    assert unmet(found, said, SITUATION) is None


@pytest.mark.parametrize(
    ("found", "said", "rung"),
    [
        (climb(Settings(0.95)), fitted(512), "batch"),
        (climb(strategy="keep-context"), fitted(70624), "utilization"),
        (climb(Settings(max_model_len=AUTO)), fitted(512), "batch"),
        (climb(min_context=100000, floor_is_wish=True), fitted(70624), "utilization"),
        (climb(concurrency=4), Effective(max_model_len=131072, max_concurrency=1.3, available_kv_gib=6.5), "context"),
    ],
)
def test_an_engine_with_less_than_a_rung_could_give_is_answered(found: Climb, said: Effective, rung: str) -> None:
    verdict = unmet(found, said, SITUATION)
    assert verdict is not None
    failure, answer = verdict
    assert failure.kind is Kind.KV_TOO_SMALL
    assert failure.phase is Phase.KV_CACHE
    assert isinstance(answer, Step)
    assert answer.rung == rung


def test_a_fitted_context_that_breaks_a_named_wish_or_is_of_no_use_is_an_end() -> None:
    spent = Settings(0.95, AUTO, 8, 512, enforce_eager=True, kv_cache_dtype="fp8", quantization="fp8")
    for found, length in ((climb(spent), 100), (climb(spent, min_context=4096, floor_is_wish=True), 4000)):
        verdict = unmet(found, fitted(length), SITUATION)
        assert verdict is not None
        assert isinstance(verdict[1], Exhausted)


def test_settings_that_came_up_before_are_taken_with_whatever_context_they_fit_down_to_the_floor() -> None:
    """A pool that a leaving neighbour had inflated was remembered; the next start came up and was started again."""
    strict = climb(Settings(), strategy="keep-context")
    content = replace(strict, content=True)
    assert unmet(strict, fitted(70624), SITUATION) is not None
    assert unmet(content, fitted(70624), SITUATION) is None
    verdict = unmet(content, fitted(2000), SITUATION)
    assert verdict is not None
    assert isinstance(verdict[1], Step)
    assert not verdict[1].climb.content


def test_a_context_that_lacks_next_to_nothing_is_not_worth_another_start() -> None:
    assert unmet(climb(strategy="keep-context"), fitted(128_000), SITUATION) is None
    assert unmet(climb(strategy="keep-context"), fitted(120_000), SITUATION) is not None


def test_a_printed_concurrency_is_taken_at_its_least() -> None:
    """1.295 is printed as 1.30; a context from 1.30 did not hold the wished requests and cost a second start."""
    said = Effective(max_model_len=131072, max_concurrency=1.30, available_kv_gib=6.5)
    verdict = unmet(climb(concurrency=2), said, SITUATION)
    assert verdict is not None
    assert isinstance(verdict[1], Step)
    assert verdict[1].climb.settings.max_model_len == 84864
    assert unmet(climb(concurrency=2), Effective(max_model_len=84864, max_concurrency=2.0), SITUATION) is None
