"""What holds for the budget of any start: it adds up, and a concession never leaves less cache."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from autolaunch.budget import Budget, Demand, predict
from autolaunch.facts import GIB, Basis, Device, DeviceKind, Engine, Model, Situation, Variant, Weights
from autolaunch.failure import MEMORY_KINDS, Kind
from autolaunch.figures import Effective
from autolaunch.foresight import foresee, need_of
from autolaunch.past import Outcome, Past
from autolaunch.settings import AUTO, Settings
from autolaunch.shape import CacheKind, CacheLayers, Shape
from autolaunch.term import Term

VERSIONS = (
    None,
    "0.4.2",
    "0.6.3",
    "0.8.5",
    "0.10.2",
    "0.16.0",
    "0.17.0",
    "0.18.0",
    "0.19.0",
    "0.24.0",
    "0.29.0",
    "0.32.0",
)
GIBS = st.floats(0.0, 200.0).map(lambda gib: round(gib, 2))
COUNTS = st.integers(1, 1 << 17)


@st.composite
def layers(draw: st.DrawFn) -> CacheLayers:
    """Return layers with any kind of cache."""
    kind = draw(st.sampled_from(CacheKind))
    count, heads = draw(st.integers(1, 96)), draw(st.sampled_from([1, 2, 8, 32]))
    if kind is CacheKind.STATE:
        return CacheLayers(kind, count, heads=heads, state_bytes=draw(st.integers(1, 1 << 23)))
    if kind is CacheKind.LATENT:
        return CacheLayers(kind, count, 576)
    window = draw(st.sampled_from([128, 1024, 4096])) if kind is CacheKind.SLIDING else 0
    return CacheLayers(kind, count, 2 * heads * draw(st.sampled_from([64, 128, 256])), heads, window)


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    """Return a model's dimensions, real or not."""
    experts = draw(st.sampled_from([0, 8, 128]))
    return Shape(
        draw(st.sampled_from(["LlamaForCausalLM", "GptOssForCausalLM", ""])),
        draw(st.integers(1, 20000)),
        draw(st.integers(0, 60000)),
        draw(st.integers(1, 128)),
        draw(st.sampled_from([1, 8, 32, 128])),
        draw(st.sampled_from([1, 2, 8])),
        draw(st.sampled_from([64, 128, 256])),
        draw(st.integers(1, 300000)),
        tuple(draw(st.lists(layers(), max_size=3))),
        dtype_bytes=draw(st.sampled_from([2, 4])),
        tie_word_embeddings=draw(st.booleans()),
        experts=experts,
        experts_per_token=draw(st.integers(0, 8)) if experts else 0,
        expert_intermediate_size=draw(st.integers(0, 20000)) if experts else 0,
        vision=draw(st.booleans()),
        soft_cap=draw(st.booleans()),
    )


WEIGHTS = st.builds(
    lambda loaded, share, basis: Weights(loaded, int(loaded * share), basis=basis),
    st.integers(0, 400 * GIB),
    st.floats(0, 1),
    st.sampled_from(Basis),
)
DEVICES = st.builds(
    lambda kind, total, share, capability, name: Device(kind, name, total, int(total * share), capability),
    st.sampled_from(DeviceKind),
    st.integers(1, 200 * GIB),
    st.floats(0, 1),
    st.sampled_from([None, (7, 5), (8, 0), (8, 9), (9, 0), (10, 0), (12, 1)]),
    st.sampled_from(["", "NVIDIA A100 80GB PCIe", "NVIDIA H100 80GB HBM3"]),
)
SETTINGS = st.builds(
    Settings,
    gpu_memory_utilization=st.none() | st.floats(0.01, 1.0),
    max_model_len=st.none() | st.just(AUTO) | COUNTS,
    max_num_seqs=st.none() | st.integers(1, 2048),
    max_num_batched_tokens=st.none() | COUNTS,
    cudagraph_capture_sizes=st.none() | st.just(()) | st.just((1, 2, 4, 8)),
    enforce_eager=st.none() | st.booleans(),
    kv_cache_dtype=st.sampled_from([None, "auto", "fp8", "bfloat16"]),
    tensor_parallel_size=st.sampled_from([None, 1, 2, 8]),
    quantization=st.sampled_from([None, "fp8", "bitsandbytes", "awq"]),
    model=st.sampled_from([None, None, "org/variant", "org/other"]),
)
SAID = st.builds(
    Effective,
    **dict.fromkeys(
        (
            "weights_gib",
            "available_kv_gib",
            "requested_gib",
            "free_gib",
            "cudagraph_gib",
            "captured_gib",
            "consumed_gib",
        ),
        st.none() | st.floats(-50, 200),
    ),
)
OUTCOMES = st.builds(
    lambda tried, said, version, total: Outcome(tried, None, said, version, total, total),
    SETTINGS,
    SAID,
    st.sampled_from(VERSIONS),
    st.none() | st.integers(1, 200 * GIB),
)


@st.composite
def demands(draw: st.DrawFn, *, past: bool = False) -> Demand:
    """Return any start at all."""
    model = Model(
        draw(st.none() | COUNTS),
        draw(st.sampled_from([None, None, "awq", "mxfp4", "fp8"])),
        (Variant("org/variant", "awq", draw(st.none() | WEIGHTS)),),
        shape=draw(shapes()),
        weights=draw(WEIGHTS),
    )
    engine = Engine(draw(st.sampled_from(VERSIONS)), DeviceKind.CUDA)
    outcomes = tuple(draw(st.lists(OUTCOMES, max_size=3))) if past else ()
    return Demand(draw(SETTINGS), Situation(draw(DEVICES), engine, model), Past(outcomes))


def terms(budget: Budget) -> dict[str, Term]:
    """Return every term of a budget by its name."""
    names = ("outside", "weights", "non_torch", "activation", "cudagraph", "capture", "kv_cache", "loading", "trial")
    return {name: getattr(budget, name) for name in names}


@given(demands(past=True))
@settings(max_examples=200, deadline=None)
def test_the_budget_of_any_start_adds_up_and_every_range_holds_its_figure(demand: Demand) -> None:
    budget = predict(demand)
    if budget is None:
        assert demand.settings.model is not None
        return
    for name, term in terms(budget).items():
        assert term.low <= term.bytes <= term.high, name
    spent = budget.weights.bytes + budget.non_torch.bytes + budget.activation.bytes + budget.cudagraph.bytes
    assert budget.kv_cache.bytes == budget.requested_bytes - spent
    share = demand.settings.gpu_memory_utilization or demand.situation.engine.default_utilization
    assert budget.requested_bytes == math.ceil(budget.total_bytes * share)


@given(demands())
@settings(max_examples=100, deadline=None)
def test_no_estimated_term_is_less_than_nothing(demand: Demand) -> None:
    budget = predict(demand)
    assume(budget is not None)
    assert budget is not None
    found = terms(budget)
    assert all(found[name].bytes >= 0 for name in found if name != "kv_cache")
    assert budget.kv_bytes_per_token >= 0


def less(demand: Demand, **values: Any) -> int | None:
    """Return the predicted cache after a concession; None where nothing is predicted."""
    budget = predict(replace(demand, settings=demand.settings.changed(**values)))
    return None if budget is None else budget.kv_cache.bytes


@given(demands(), st.integers(1, 2048), st.integers(1, 2048))
@settings(max_examples=200, deadline=None)
def test_fewer_sequences_never_leave_less_cache(demand: Demand, one: int, other: int) -> None:
    few, many = less(demand, max_num_seqs=min(one, other)), less(demand, max_num_seqs=max(one, other))
    assume(few is not None)
    assert few is not None
    assert many is not None
    assert few >= many


@given(demands(), st.integers(1, 65536), st.integers(1, 65536))
@settings(max_examples=200, deadline=None)
def test_fewer_batched_tokens_never_leave_less_cache(demand: Demand, one: int, other: int) -> None:
    few = less(demand, max_num_batched_tokens=min(one, other), max_num_seqs=8)
    many = less(demand, max_num_batched_tokens=max(one, other), max_num_seqs=8)
    assume(few is not None)
    assert few is not None
    assert many is not None
    assert few >= many


@given(demands())
@settings(max_examples=200, deadline=None)
def test_eager_never_leaves_less_cache(demand: Demand) -> None:
    eager, graphs = less(demand, enforce_eager=True), less(demand, enforce_eager=False)
    assume(eager is not None)
    assert eager is not None
    assert graphs is not None
    assert eager >= graphs


@given(demands(), st.floats(0.01, 1.0), st.floats(0.01, 1.0))
@settings(max_examples=200, deadline=None)
def test_a_higher_share_is_cache_and_nothing_else(demand: Demand, one: float, other: float) -> None:
    low, high = (
        predict(replace(demand, settings=demand.settings.changed(gpu_memory_utilization=share)))
        for share in sorted((one, other))
    )
    assume(low is not None)
    assert low is not None
    assert high is not None
    assert high.kv_cache.bytes - low.kv_cache.bytes == high.requested_bytes - low.requested_bytes
    assert [high.weights, high.activation, high.trial] == [low.weights, low.activation, low.trial]


@given(demands(past=True))
@settings(max_examples=150, deadline=None)
def test_any_start_that_is_predicted_is_foretold_with_numbers_of_its_failure(demand: Demand) -> None:
    found = foresee(demand)
    assert (found is None) == (predict(demand) is None)
    if found is not None:
        assert {found.kind, found.pessimistic, found.optimistic} <= MEMORY_KINDS | {Kind.OK}
        assert (found.kind is Kind.OK) == (not found.numbers)
        assert all(math.isfinite(number) for number in found.numbers.values())


@given(demands())
@settings(max_examples=150, deadline=None)
def test_what_comes_up_at_worst_comes_up_at_best(demand: Demand) -> None:
    found = foresee(demand)
    assume(found is not None)
    assert found is not None
    if found.pessimistic is Kind.OK:
        assert found.kind is Kind.OK
    if found.kind is Kind.OK:
        assert found.optimistic is Kind.OK


@given(demands(), st.integers(1, 1 << 17), st.integers(1, 1 << 17))
@settings(max_examples=200, deadline=None)
def test_a_shorter_context_never_needs_more(demand: Demand, one: int, other: int) -> None:
    """At the same batch: V0 batches fewer tokens from 32769 on, and a window holds fewer of them."""
    shape = demand.situation.model.shape
    assert shape is not None
    batched = demand.settings.changed(max_num_batched_tokens=2048)
    needs = [
        need_of(replace(demand, settings=batched.changed(max_model_len=length)), shape).needed_bytes
        for length in sorted((one, other))
    ]
    assert needs == sorted(needs)


@given(demands(), st.floats(0.0, 0.98))
@settings(max_examples=200, deadline=None)
def test_the_same_start_again_gets_the_cache_that_it_measured(demand: Demand, part: float) -> None:
    """Whatever was estimated: the engine's printed figures are what comes out."""
    device, weights_gib = replace(demand.situation.device, kind=DeviceKind.CUDA, total_bytes=80 * GIB), 1.25
    demand = replace(demand, settings=demand.settings.changed(model=None, gpu_memory_utilization=0.9))
    left_gib = round(part * (0.9 * 80 - weights_gib), 2)
    said = Effective(weights_gib=weights_gib, available_kv_gib=left_gib)
    outcome = Outcome(demand.settings, None, said, demand.situation.engine.version, device.total_bytes)
    again = predict(replace(demand, situation=replace(demand.situation, device=device), past=Past((outcome,))))
    assert again is not None
    assert again.kv_cache.gib == pytest.approx(left_gib, abs=0.001)
