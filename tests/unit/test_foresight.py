"""How a start ends, foretold of starts whose logs are kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from autolaunch.budget import Budget, Demand
from autolaunch.facts import GIB, Device, DeviceKind, Engine, Model, Situation, Weights
from autolaunch.failure import Kind
from autolaunch.foresight import Foretold, Need, View, foresee, foretell, free_to_engine
from autolaunch.settings import AUTO, Settings
from autolaunch.shape import CacheKind, CacheLayers
from autolaunch.term import NOTHING, Term, estimated, exact
from tests.unit.starts import GLM, H100, QWEN3_8B, QWEN3_14B, RTX_4090, Card, Start, plain

WHOLE = (79.178, 79.17)
OF_24, OF_20, OF_19, OF_16 = (24, 23.2), (20, 19.2), (19, 18.6), (16, 15.5)
"""GiB that the H100 of the logs shows, and what a neighbour leaves free before the engine makes its context."""


def seen(memory: tuple[float, float], **settings: Any) -> Foretold:
    """Return how a start of GLM-4-9B on vLLM 0.24 ends."""
    found = foresee(Start(*memory, settings=Settings(**settings)).demand)
    assert found is not None
    return found


EAGER = {"enforce_eager": True}


@pytest.mark.parametrize(
    ("log", "memory", "settings", "kind"),
    [
        ("gpu_a", WHOLE, {}, Kind.OK),
        ("gpu_b", OF_24, {}, Kind.KV_TOO_SMALL),
        ("gpu_c", OF_24, {"gpu_memory_utilization": 0.9}, Kind.KV_TOO_SMALL),
        ("gpu_d", OF_24, {**EAGER, "gpu_memory_utilization": 0.9, "max_model_len": AUTO}, Kind.OK),
        ("gpu_e", OF_16, {**EAGER, "gpu_memory_utilization": 0.95}, Kind.FREE_MEMORY_LOW),
        ("gpu_f", OF_16, {**EAGER, "gpu_memory_utilization": 0.95, "quantization": "fp8"}, Kind.FREE_MEMORY_LOW),
        ("gpu_g", WHOLE, {**EAGER, "gpu_memory_utilization": 0.23}, Kind.KV_NONE),
        ("gpu_h", (79.178, 38.0), {**EAGER, "gpu_memory_utilization": 0.9}, Kind.FREE_MEMORY_LOW),
        ("gpu_i", OF_16, EAGER, Kind.WEIGHTS_OOM),
        ("gpu_j", OF_16, {**EAGER, "quantization": "fp8", "max_model_len": AUTO}, Kind.OK),
        ("gpu_m", OF_19, {**EAGER, "max_num_batched_tokens": 65536, "max_model_len": 65536}, Kind.WEIGHTS_OOM),
        ("gpu_n", OF_24, {"max_model_len": AUTO}, Kind.OK),
        ("gpu_p", OF_20, {"max_model_len": AUTO}, Kind.PROFILE_OOM),
        ("gpu_r_1", OF_16, {"max_model_len": AUTO}, Kind.WEIGHTS_OOM),
    ],
)
def test_the_start_of_a_kept_log_ends_as_it_did(
    log: str, memory: tuple[float, float], settings: dict[str, Any], kind: Kind
) -> None:
    found = seen(memory, **settings)
    assert (found.kind, found.doubtful) == (kind, False), log


def test_the_longest_context_that_just_fitted_is_doubtful() -> None:
    """gpu_q: 70624 tokens came up, 2.69 GiB for 2.69."""
    found = seen(OF_24, max_model_len=70624)
    assert found.doubtful
    assert found.optimistic is Kind.OK


def test_graphs_have_what_the_profile_run_gave_back() -> None:
    """gpu_r_2: 0.27 GiB were left beside the request, capturing took 0.12 more than was charged, and it came up."""
    found = seen(OF_16, max_model_len=AUTO, quantization="fp8")
    assert found.kind is Kind.OK
    assert found.pessimistic is Kind.GRAPH_OOM, "the spread of the graphs of other cards"


def test_a_cache_that_is_too_small_has_the_engines_numbers() -> None:
    """gpu_b: 5.0 GiB needed, 2.69 available, 70624 tokens."""
    numbers = seen(OF_24).numbers
    assert set(numbers) == {"needed_kv_gib", "available_kv_gib", "max_seq_len", "estimated_max_len"}
    assert (numbers["needed_kv_gib"], numbers["max_seq_len"]) == (5.0, 131072)
    assert numbers["available_kv_gib"] == pytest.approx(2.69, abs=0.05)
    assert numbers["estimated_max_len"] == pytest.approx(70624, rel=0.02)


def test_memory_that_is_not_free_has_the_engines_numbers() -> None:
    """gpu_e: (14.99/16.0 GiB) ... (0.95, 15.2 GiB)."""
    numbers = seen(OF_16, enforce_eager=True, gpu_memory_utilization=0.95).numbers
    assert numbers == {"free_gib": 14.99, "total_gib": 16.0, "requested_gib": 15.2, "utilization": 0.95}


def test_weights_that_do_not_fit_say_how_large_they_are() -> None:
    numbers = seen(OF_16, enforce_eager=True).numbers
    assert (set(numbers), numbers["free_gib"], numbers["total_gib"]) == (
        {"free_gib", "total_gib", "weights_gib"}, 14.99, 16.0,
    )  # fmt: skip
    assert numbers["weights_gib"] == pytest.approx(17.56, abs=0.03)


def test_no_cache_at_all_says_by_how_much() -> None:
    """gpu_g: -1.79 GiB."""
    numbers = seen(WHOLE, enforce_eager=True, gpu_memory_utilization=0.23).numbers
    assert numbers == {"available_kv_gib": pytest.approx(-1.79, abs=0.03)}


def other(model: Model, card: Card, version: str, **settings: Any) -> Foretold:
    """Return how a start of another model on an idle card ends."""
    situation = Situation(card.device(card.total_bytes), Engine(version, DeviceKind.CUDA), model)
    found = foresee(Demand(Settings(**settings), situation))
    assert found is not None
    return found


def test_public_failures_of_0_29_on_an_rtx_4090() -> None:
    """Qwen3-8B: 5.62 GiB needed, 4.48 there, 32640 tokens. Qwen3-14B: 27.5 GiB of weights."""
    eight = other(Model(40960, shape=QWEN3_8B, weights=Weights(16_381_470_720)), RTX_4090, "0.29.0")
    assert eight.kind is Kind.KV_TOO_SMALL
    assert eight.numbers["available_kv_gib"] == pytest.approx(4.48, abs=0.05)
    assert eight.numbers["estimated_max_len"] == pytest.approx(32640, rel=0.02)
    fourteen = other(Model(40960, shape=QWEN3_14B, weights=Weights(29_536_614_400)), RTX_4090, "0.29.0")
    assert (fourteen.kind, fourteen.doubtful) == (Kind.WEIGHTS_OOM, False)


def test_a_hybrid_holds_a_state_for_every_sequence() -> None:
    """Nemotron on 0.30: max_num_seqs (1024) exceeds available Mamba cache blocks (733)."""
    caches = (
        CacheLayers(CacheKind.STATE, 23, heads=1, state_bytes=2_146_304),
        CacheLayers(CacheKind.FULL, 6, 512, 2),
    )
    shape = plain(
        2688, 1856, 52, (32, 2), 131072, head_dim=128, caches=caches, experts=128, experts_per_token=6,
        expert_intermediate_size=1856,
    )  # fmt: skip
    found = other(Model(640, shape=shape, weights=Weights(63_155_886_464)), H100, "0.30.0", gpu_memory_utilization=0.9)
    assert found.kind is Kind.SEQS_TOO_MANY
    assert found.numbers["num_seqs"] < 1024


CPU = Device(DeviceKind.CPU, "host memory, node 0", int(11.84 * GIB), int(11.7 * GIB))


@pytest.mark.parametrize(
    ("share", "kind"),
    [(0.98, Kind.FREE_MEMORY_LOW), (0.15, Kind.KV_TOO_SMALL), (0.05, Kind.KV_NONE), (0.4, Kind.OK)],
)
def test_a_cpu_engines_starts_end_as_in_their_logs(share: float, kind: Kind) -> None:
    """cpu_low, cpu_small, cpu_none, cpu_ok: vLLM 0.32, 32 layers with one KV head, eager."""
    shape = plain(512, 1536, 32, (4, 1), 512, head_dim=128)
    model = Model(131072, shape=shape, weights=Weights(210_000_000))
    settings = Settings(gpu_memory_utilization=share, enforce_eager=True)
    found = foresee(Demand(settings, Situation(CPU, Engine("0.32.0", DeviceKind.CPU), model)))
    assert found is not None
    assert (found.kind, found.doubtful) == (kind, False)


def test_what_cannot_be_predicted_is_not_foretold() -> None:
    demand = Start().demand
    nameless = replace(demand, situation=replace(demand.situation, model=replace(GLM, weights=None)))
    assert foresee(nameless) is None


BUDGET = Budget(
    total_bytes=100,
    free_bytes=90,
    requested_bytes=80,
    outside=Term(5, 3, 8, NOTHING.basis),
    weights=exact(50),
    non_torch=exact(1),
    activation=exact(9),
    cudagraph=exact(2),
    capture=exact(3),
    kv_cache=estimated(18, 10, 20),
    kv_bytes_per_token=1,
    loading=exact(51),
    trial=exact(4),
)


@pytest.mark.parametrize(
    ("changes", "need", "kinds"),
    [
        ({}, Need(15), (Kind.OK, Kind.KV_TOO_SMALL, Kind.OK)),
        ({}, Need(19), (Kind.KV_TOO_SMALL, Kind.KV_TOO_SMALL, Kind.OK)),
        ({}, Need(21), (Kind.KV_TOO_SMALL,) * 3),
        ({}, Need(), (Kind.OK,) * 3),
        ({"requested_bytes": 84}, Need(), (Kind.OK, Kind.FREE_MEMORY_LOW, Kind.OK)),
        ({"requested_bytes": 94}, Need(checks_free=False), (Kind.GRAPH_OOM, Kind.GRAPH_OOM, Kind.OK)),
        ({"free_bytes": None, "requested_bytes": 90}, Need(), (Kind.OK, Kind.OK, Kind.OK)),
        ({"free_bytes": 50}, Need(checks_free=False), (Kind.WEIGHTS_OOM,) * 3),
        ({"activation": exact(40)}, Need(), (Kind.PROFILE_OOM,) * 3),
        ({"trial": exact(40)}, Need(), (Kind.PROFILE_OOM,) * 3),
        ({"kv_cache": exact(0)}, Need(), (Kind.KV_NONE,) * 3),
        ({"kv_cache": exact(18)}, Need(fitting=lambda pool: pool // 30), (Kind.KV_NONE,) * 3),
        ({}, Need(states=lambda pool: pool, max_num_seqs=16), (Kind.OK, Kind.SEQS_TOO_MANY, Kind.OK)),
        ({"kv_cache": exact(40)}, Need(), (Kind.KV_ALLOC_OOM,) * 3),
        ({"capture": exact(17)}, Need(), (Kind.GRAPH_OOM, Kind.GRAPH_OOM, Kind.OK)),
    ],
)
def test_each_check_stands_at_its_place(changes: dict[str, Any], need: Need, kinds: tuple[Kind, Kind, Kind]) -> None:
    found = foretell(replace(BUDGET, **changes), need)
    assert (found.kind, found.pessimistic, found.optimistic) == kinds


def test_two_views_that_fail_in_different_ways_are_no_doubt() -> None:
    assert not Foretold(Kind.KV_NONE, Kind.WEIGHTS_OOM, Kind.KV_TOO_SMALL, {}).doubtful
    assert Foretold(Kind.OK, Kind.WEIGHTS_OOM, Kind.OK, {}).doubtful


def test_the_engine_finds_less_free_than_there_is_by_its_own_context() -> None:
    assert [free_to_engine(BUDGET, view) for view in View] == [85, 82, 87]
    assert free_to_engine(replace(BUDGET, free_bytes=None), View.LIKELY) == 95
