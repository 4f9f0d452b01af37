"""Each rung's values for each failure: what it would set, in which order, and where it has no answer."""

from __future__ import annotations

from typing import Any

import pytest

from autolaunch.case import Case, Effort, Limits
from autolaunch.facts import GIB, Device, DeviceKind, Engine, Model, Situation, Variant
from autolaunch.failure import Failure, Kind
from autolaunch.figures import Effective
from autolaunch.rungs import RUNGS
from autolaunch.settings import AUTO, Settings
from autolaunch.strategy import QUANTIZE_METHODS, RUNG_NAMES, Rung

KV = {"needed_kv_gib": 5.0, "available_kv_gib": 2.69, "max_seq_len": 131072, "estimated_max_len": 70624}
V0 = Engine("0.6.3", DeviceKind.CUDA)


def case(kind: Kind, numbers: dict[str, float] | None = None, **more: Any) -> Case:
    """Return a failed attempt on a 24 GiB card that has nothing else on it."""
    device = Device(DeviceKind.CUDA, "card", more.pop("total", 24) * GIB, 24 * GIB, more.pop("capability", (8, 9)))
    engine = more.pop("engine", Engine("0.24.0", DeviceKind.CUDA))
    return Case(
        Failure(kind, numbers=numbers or {}),
        more.pop("settings", Settings()),
        more.pop("effective", Effective()),
        Situation(device, engine, more.pop("model", Model())),
        more.pop("limits", Limits()),
        **more,
    )


def values(name: str, found: Case, **rung: Any) -> list[dict[str, Any]]:
    """Return what a rung would set, in its order."""
    return [dict(proposal.values) for proposal in RUNGS[name](Rung(name, frozenset(Kind), **rung), found)]


def test_every_name_of_a_strategy_file_is_a_rung() -> None:
    assert tuple(RUNGS) == RUNG_NAMES


WISH = Limits(min_context=80000, floor_is_wish=True)
SMALL = {"needed_kv_gib": 5.0, "available_kv_gib": 0.1, "max_seq_len": 131072, "estimated_max_len": 2608}


@pytest.mark.parametrize(
    ("found", "length"),
    [
        (case(Kind.KV_TOO_SMALL, KV), 70624),
        (case(Kind.KV_TOO_SMALL, KV, settings=Settings(max_model_len=AUTO)), 70624),
        (case(Kind.KV_TOO_SMALL, KV, limits=Limits(max_context=65536)), 65536),
        (case(Kind.KV_TOO_SMALL, KV, limits=Limits(concurrency=4)), 17648),
        (case(Kind.KV_TOO_SMALL, KV, limits=WISH), None),
        (case(Kind.KV_TOO_SMALL, KV, limits=WISH, effort=Effort.LAST_RESORT), None),
        (case(Kind.KV_TOO_SMALL, {k: v for k, v in KV.items() if k != "estimated_max_len"}), 69106),
        (case(Kind.KV_TOO_SMALL, {"max_seq_len": 131072}), 65536),
        (case(Kind.KV_TOO_SMALL), None),
        (case(Kind.KV_TOO_SMALL, {"max_seq_len": 6000}), None),
        (case(Kind.KV_TOO_SMALL, SMALL), None),
        (case(Kind.KV_TOO_SMALL, SMALL, effort=Effort.FULL), None),
        (case(Kind.KV_TOO_SMALL, SMALL, effort=Effort.LAST_RESORT), 2608),
        (case(Kind.KV_TOO_SMALL, {**SMALL, "estimated_max_len": 400}, effort=Effort.LAST_RESORT), None),
        (case(Kind.KV_TOO_SMALL, {**KV, "estimated_max_len": 131072}), None),
        (case(Kind.KV_TOO_SMALL, {"max_seq_len": 131072, "estimated_max_len": 2608}, engine=V0), 65536),
        (case(Kind.KV_NONE, {"max_seq_len": 131072}), None),
        (case(Kind.KV_NONE, {"max_seq_len": 131072}, engine=V0), 32768),
        (case(Kind.PROFILE_OOM, {"max_seq_len": 16384}, engine=V0), 8192),
        (case(Kind.PROFILE_OOM, {"max_seq_len": 6000}, engine=V0), 4096),
        (case(Kind.PROFILE_OOM, {"max_seq_len": 4096}, engine=V0), None),
        (case(Kind.PROFILE_OOM, {"max_seq_len": 131072}), None),
    ],
)
def test_a_context_becomes_what_the_engine_says_fits(found: Case, length: int | None) -> None:
    assert values("context", found) == ([] if length is None else [{"max_model_len": length}])


@pytest.mark.parametrize(
    ("now", "limits", "length"),
    [
        (131072, Limits(), 65536),
        (8192, Limits(), 4096),
        (6000, Limits(), 4096),
        (4096, Limits(), None),
        (131072, Limits(min_context=100000, floor_is_wish=True), 100000),
        (131072, Limits(max_context=32768), 32768),
    ],
)
def test_a_literal_ladder_halves_down_to_its_floor_or_the_users(now: int, limits: Limits, length: int | None) -> None:
    found = case(Kind.WEIGHTS_OOM, settings=Settings(max_model_len=now), limits=limits, effort=Effort.BLIND)
    expected = [] if length is None else [{"max_model_len": length}]
    assert values("context", found, step="halve", min=4096) == expected


def test_half_of_an_unknown_context_is_none() -> None:
    """It became the floor, with the words "half of None"."""
    assert values("context", case(Kind.WEIGHTS_OOM, effort=Effort.BLIND), step="halve", min=4096) == []


def test_a_files_own_floor_holds_to_the_end() -> None:
    found = case(Kind.KV_TOO_SMALL, SMALL, effort=Effort.LAST_RESORT)
    assert values("context", found, min=2600) == [{"max_model_len": 2608}]
    assert values("context", found, min=4096) == []


def levels(*pairs: tuple[int | None, int | None]) -> list[dict[str, int]]:
    """Return batch levels as values."""
    names = ("max_num_seqs", "max_num_batched_tokens")
    return [{name: value for name, value in zip(names, pair, strict=True) if value} for pair in pairs]


PINNED_SEQS: dict[str, Any] = {"settings": Settings(max_num_seqs=600), "pins": frozenset({"max_num_seqs"})}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (case(Kind.PROFILE_OOM), levels((32, 1024), (8, 512))),
        (case(Kind.PROFILE_OOM, total=80), levels((128, 2048), (32, 1024), (8, 512))),
        (case(Kind.PROFILE_OOM, effort=Effort.FULL), levels((128, None), (32, 1024), (8, 512))),
        (case(Kind.PROFILE_OOM, settings=Settings(max_num_seqs=32, max_num_batched_tokens=1024)), levels((8, 512))),
        (case(Kind.PROFILE_OOM, settings=Settings(max_num_seqs=8, max_num_batched_tokens=512)), []),
        (case(Kind.PROFILE_OOM, settings=Settings(max_num_seqs=4)), levels((None, 1024), (None, 512))),
        (case(Kind.PROFILE_OOM, **PINNED_SEQS), levels((128, None), (32, 1024), (8, 600))[1:]),
        (case(Kind.PROFILE_OOM, effective=Effective(max_num_batched_tokens=8192, max_num_seqs=64)),
         levels((None, 2048), (32, 1024), (8, 512))),
        (case(Kind.PROFILE_OOM, engine=V0), levels((128, None), (32, None), (8, None))),
        (case(Kind.SAMPLER_OOM), levels((128, None), (32, None), (8, None))),
        (case(Kind.SEQS_TOO_MANY, {"num_seqs": 40}), levels((40, None))),
        (case(Kind.SEQS_TOO_MANY, {"num_seqs": 40}, settings=Settings(max_num_seqs=40)), []),
        (case(Kind.SEQS_TOO_MANY, {"num_seqs": 40}, limits=Limits(concurrency=40)), levels((40, None))),
        (case(Kind.SEQS_TOO_MANY, {"num_seqs": 40}, limits=Limits(concurrency=41)), []),
        (case(Kind.PROFILE_OOM, limits=Limits(concurrency=20)), levels((32, 1024), (20, 512))),
        (case(Kind.PROFILE_OOM, limits=Limits(concurrency=700), settings=Settings(max_num_seqs=700)),
         levels((None, 1024), (None, 700))),
        (case(Kind.SEQS_TOO_MANY, {"num_seqs": 0}), []),
        (case(Kind.SEQS_TOO_MANY), []),
    ],
)  # fmt: skip
def test_a_batch_gives_way_level_by_level(found: Case, expected: list[dict[str, int]]) -> None:
    if found.settings.max_num_seqs == 600:  # its own 600 sequences need as many batched tokens: vLLM refuses fewer
        expected = [{"max_num_seqs": 32, "max_num_batched_tokens": 1024}, {"max_num_seqs": 8,
                    "max_num_batched_tokens": 600}]  # fmt: skip
    assert values("batch", found) == expected


def test_graphs_that_do_not_fit_are_fewer_first() -> None:
    sizes = [{"cudagraph_capture_sizes": (1, 2, 4, 8, 16, 32)}, {"cudagraph_capture_sizes": (1, 2, 4, 8)}]
    captured = Effective(available_kv_gib=1.0)
    assert values("batch", case(Kind.GRAPH_OOM, effective=captured))[:2] == sizes
    fewer = Settings(cudagraph_capture_sizes=(1, 2, 4, 8, 16, 32))
    assert values("batch", case(Kind.GRAPH_OOM, effective=captured, settings=fewer))[:1] == sizes[1:]
    for without in (
        case(Kind.GRAPH_OOM, effective=captured, settings=Settings(enforce_eager=True)),
        case(Kind.GRAPH_OOM, effective=captured, engine=V0),
    ):
        assert not any("cudagraph_capture_sizes" in found for found in values("batch", without))


def starving(weights: float, share: float = 0.5, **more: Any) -> Case:
    """Return a start on 24 GiB whose weights and 1 GiB beside them leave nothing; 0.95 is the most there is."""
    said = Effective(available_kv_gib=share * 24 - weights - 1, weights_gib=weights)
    return case(Kind.KV_NONE, settings=Settings(share), effective=said, **more)


PINNED_SHARE = frozenset({"gpu_memory_utilization"})


@pytest.mark.parametrize(
    ("found", "cures"),
    [
        (starving(12.0), True),
        (starving(30.0), False),
        (starving(30.0, effort=Effort.FULL), True),
        (starving(14.0, pins=PINNED_SHARE), False),
        (starving(17.56, 0.05, pins=PINNED_SHARE, effort=Effort.LAST_RESORT), False),
        (starving(17.56, 0.05, pins=PINNED_SHARE, effort=Effort.BLIND), True),
    ],
)
def test_what_the_numbers_prove_too_small_is_passed_over(found: Case, cures: bool) -> None:
    assert bool(values("eager", found)) is bool(values("batch", found)) is cures


def test_a_cache_that_the_user_sized_grows_with_no_concession() -> None:
    for kind in (Kind.KV_NONE, Kind.KV_TOO_SMALL):
        for effort in (Effort.SPARING, Effort.FULL, Effort.LAST_RESORT):
            found = case(kind, KV, pins=PINNED_SHARE, effort=effort, **ABLE)
            assert not values("batch", found)
            assert not values("eager", found)
            assert not values("quantized_weights", found, methods=QUANTIZE_METHODS)
    assert values("context", case(Kind.KV_TOO_SMALL, KV, pins=PINNED_SHARE)) == [{"max_model_len": 70624}]


def test_fewer_bits_count_only_while_a_rung_is_left_for_them() -> None:
    assert values("eager", starving(30.0, effort=Effort.FULL))
    assert not values("eager", starving(30.0, effort=Effort.FULL, lighter=False))


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (case(Kind.KV_NONE), [{"enforce_eager": True}]),
        (case(Kind.COMPILE_ERROR), [{"enforce_eager": True}]),
        (case(Kind.KV_NONE, settings=Settings(enforce_eager=True)), []),
    ],
)
def test_eager_is_offered_once(found: Case, expected: list[dict[str, bool]]) -> None:
    assert values("eager", found) == expected


FP8, VARIANT, BNB = (
    {"quantization": "fp8"},
    {"model": "org/awq", "quantization": None},
    {"quantization": "bitsandbytes"},
)
ABLE: dict[str, Any] = {
    "engine": Engine("0.24.0", DeviceKind.CUDA, True),
    "model": Model(None, None, (Variant("org/awq", "awq"),)),
}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (case(Kind.WEIGHTS_OOM, **ABLE), [FP8, VARIANT, BNB]),
        (case(Kind.WEIGHTS_OOM), [FP8]),
        (case(Kind.WEIGHTS_OOM, capability=(8, 0)), [FP8]),
        (case(Kind.WEIGHTS_OOM, capability=(7, 5)), []),
        (case(Kind.WEIGHTS_OOM, capability=None, **ABLE), [VARIANT, BNB]),
        (case(Kind.WEIGHTS_OOM, settings=Settings(quantization="fp8"), **ABLE), [VARIANT, BNB]),
        (case(Kind.WEIGHTS_OOM, settings=Settings(quantization="bitsandbytes"), **ABLE), []),
        (case(Kind.WEIGHTS_OOM, settings=Settings(model="org/awq"), **ABLE), []),
        (case(Kind.WEIGHTS_OOM, settings=Settings(quantization="awq"), **ABLE), []),
        (case(Kind.WEIGHTS_OOM, settings=Settings(quantization="fp8"), pins=frozenset({"quantization"}), **ABLE), []),
        (case(Kind.WEIGHTS_OOM, model=Model(None, "awq", (Variant("org/awq", "awq"),))), []),
        (case(Kind.KV_ALLOC_OOM, **ABLE), []),
        (case(Kind.KV_ALLOC_OOM, pins=frozenset({"gpu_memory_utilization"})), [FP8]),
        (starving(30.0), [FP8]),
        (starving(17.56, 0.05, pins=PINNED_SHARE), []),
    ],
)
def test_weights_lose_bits_by_what_card_and_engine_can_run(found: Case, expected: list[dict[str, Any]]) -> None:
    assert values("quantized_weights", found, methods=QUANTIZE_METHODS) == expected


def test_only_the_methods_of_the_file_are_used_in_its_order() -> None:
    found = case(Kind.WEIGHTS_OOM, **ABLE)
    assert values("quantized_weights", found, methods=("bitsandbytes", "fp8")) == [BNB, FP8]


def test_a_strangers_weights_are_never_loaded_unasked() -> None:
    stranger = Variant("somebody/awq", "awq", official=False)
    own = Variant("org/fp8", "fp8", capability=(8, 9))
    for variants, expected in (((stranger,), []), ((stranger, own), [{"model": "org/fp8", "quantization": None}])):
        asked = case(Kind.WEIGHTS_OOM, model=Model(variants=variants))
        assert values("quantized_weights", asked, methods=("variant",)) == expected


@pytest.mark.parametrize(
    ("capability", "version", "given"),
    [((8, 9), "0.24.0", True), ((9, 0), "0.10.0", True), ((8, 0), "0.24.0", False), ((8, 9), "0.6.3", False),
     (None, "0.24.0", False)],
)  # fmt: skip
def test_an_fp8_cache_is_only_for_cards_and_engines_that_compute_with_it(
    capability: tuple[int, int] | None, version: str, given: bool
) -> None:
    asked = case(Kind.KV_TOO_SMALL, capability=capability, engine=Engine(version, DeviceKind.CUDA))
    assert values("fp8_kv", asked) == ([{"kv_cache_dtype": "fp8"}] if given else [])


def test_more_cards_are_those_that_are_allowed() -> None:
    allowed = [values("gpus", case(Kind.KV_TOO_SMALL, limits=Limits(gpus=count))) for count in (1, 4)]
    assert allowed == [[], [{"tensor_parallel_size": 2}, {"tensor_parallel_size": 4}]]
