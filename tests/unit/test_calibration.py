"""What earlier starts measured takes the place of what was worked out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from autolaunch.budget import Budget, Demand, predict
from autolaunch.facts import GIB, Basis, Device, DeviceKind, Engine, Model, Situation, Weights
from autolaunch.failure import Failure, Kind
from autolaunch.figures import Effective
from autolaunch.past import Outcome, Past
from autolaunch.settings import Settings
from tests.unit.starts import TINY_GLM, Start

OF_24 = int(24 * GIB)
COLD = Effective(weights_gib=17.56, available_kv_gib=2.69, cudagraph_gib=0.40, captured_gib=0.55)
"""gpu_n: the compile cache was cold; 22.08 GiB requested."""


def outcome(said: Effective, **more: Any) -> Outcome:
    """Return an earlier start on the 24 GiB card that came up."""
    facts = {"engine_version": "0.24.0", "total_bytes": OF_24, "free_bytes": int(23.2 * GIB)}
    return Outcome(more.pop("settings", Settings()), more.pop("failure", None), said, **{**facts, **more})


def budget(*outcomes: Outcome, version: str | None = "0.24.0", total: float = 24, **settings: Any) -> Budget:
    """Return what is predicted of GLM-4-9B after these starts."""
    found = predict(Start(total, version=version, settings=Settings(**settings), past=Past(outcomes)).demand)
    assert found is not None
    return found


def test_the_same_settings_get_what_they_measured() -> None:
    found = budget(outcome(COLD))
    assert found.kv_cache.gib == pytest.approx(2.69, abs=0.005)
    measured = [found.weights.gib, found.cudagraph.gib, found.capture.gib]
    assert measured == pytest.approx([17.56, 0.40, 0.55])
    terms = (found.weights, found.non_torch, found.activation, found.cudagraph, found.capture, found.kv_cache)
    assert {term.basis for term in terms} == {Basis.MEASURED}


def test_a_measured_cold_start_may_find_its_cache_the_next_time() -> None:
    """0.56 GiB more, never less: the range of a measured start covers both and is narrow on the other side."""
    found = budget(outcome(COLD)).kv_cache
    assert found.low >= 2.62 * GIB
    assert found.high >= (2.69 + 0.56) * GIB
    assert found.high - found.low < budget().kv_cache.high - budget().kv_cache.low


def test_a_measured_warm_start_may_lose_its_cache() -> None:
    """gpu_c: 2.77 GiB of 21.6 requested with the cache warm, 0.56 less without."""
    warm = outcome(
        Effective(weights_gib=17.56, available_kv_gib=2.77, cudagraph_gib=0.40),
        settings=Settings(gpu_memory_utilization=0.9),
        failure=Failure(Kind.KV_TOO_SMALL),
    )
    found = budget(warm, gpu_memory_utilization=0.9).kv_cache
    assert found.gib == pytest.approx(2.77, abs=0.005)
    assert found.low <= (2.77 - 0.56) * GIB
    assert found.high <= 2.85 * GIB


def test_another_share_and_context_profile_the_same() -> None:
    found = budget(outcome(COLD), gpu_memory_utilization=0.95, max_model_len=8192)
    assert found.kv_cache.gib == pytest.approx(2.69 + 0.03 * 24, abs=0.005)
    assert found.kv_cache.basis is Basis.MEASURED


def test_on_v0_another_context_is_another_profile() -> None:
    old = {"engine_version": "0.6.3", "settings": Settings(max_model_len=8192)}
    past = outcome(Effective(weights_gib=17.56, available_kv_gib=1.5), **old)
    assert budget(past, version="0.6.3", max_model_len=8192).activation.basis is Basis.MEASURED
    assert budget(past, version="0.6.3", max_model_len=4096).activation.basis is Basis.ESTIMATED


@pytest.mark.parametrize("off", [0.8, 1.3])
def test_other_settings_shift_the_estimate_by_the_same_factor(off: float) -> None:
    """What lies beside the weights was `off` times what is predicted of the measured start."""
    before = budget(enforce_eager=True)
    beside = before.non_torch.bytes + before.activation.bytes
    left = before.requested_bytes - before.weights.bytes - int(off * beside)
    said = Effective(weights_gib=round(before.weights.gib, 4), available_kv_gib=left / GIB)
    found = budget(outcome(said, settings=Settings(enforce_eager=True)), max_num_seqs=64, enforce_eager=True)
    plain = budget(max_num_seqs=64, enforce_eager=True)
    assert found.activation.bytes == pytest.approx(off * plain.activation.bytes, rel=0.01)
    assert found.non_torch.bytes == pytest.approx(off * plain.non_torch.bytes, rel=0.01)
    assert (found.activation.basis, found.weights.basis) == (Basis.ESTIMATED, Basis.MEASURED)


def test_a_cold_and_a_warm_start_both_agree_with_the_estimate_of_other_settings() -> None:
    """The nearer of the two predictions counts: a warm start is no proof that compiling takes nothing."""
    warm = outcome(
        Effective(weights_gib=17.56, available_kv_gib=2.77, cudagraph_gib=0.40),
        settings=Settings(gpu_memory_utilization=0.9),
    )
    plain = budget(max_num_seqs=128)
    for past in (warm, outcome(COLD)):
        assert budget(past, max_num_seqs=128).activation.bytes == pytest.approx(plain.activation.bytes, rel=0.1)


def test_a_figure_that_is_off_beyond_reason_is_not_believed_whole() -> None:
    absurd = outcome(Effective(weights_gib=17.56, available_kv_gib=-400.0))
    assert budget(absurd, max_num_seqs=64).activation.bytes <= 2 * budget(max_num_seqs=64).activation.bytes + 1


@pytest.mark.parametrize(
    "past",
    [
        outcome(Effective()),
        outcome(Effective(weights_gib=17.56)),
        outcome(Effective(available_kv_gib=2.69)),
        outcome(COLD, settings=Settings(tensor_parallel_size=2)),
        outcome(COLD, settings=Settings(quantization="fp8")),
        outcome(COLD, settings=Settings(model="org/other")),
    ],
)
def test_a_start_that_says_nothing_of_the_profile_leaves_the_estimate(past: Outcome) -> None:
    assert budget(past).activation == budget().activation


def test_another_era_measured_weights_and_nothing_else() -> None:
    found = budget(outcome(COLD, engine_version="0.16.0"))
    assert (found.weights.basis, found.activation) == (Basis.MEASURED, budget().activation)


def test_fp8_weights_are_taken_from_a_start_with_fp8_weights() -> None:
    fp8 = outcome(Effective(weights_gib=10.02), settings=Settings(quantization="fp8"))
    assert budget(fp8, quantization="fp8").weights.gib == pytest.approx(10.02)
    assert budget(fp8).weights == budget().weights


def test_loading_follows_the_measured_weights() -> None:
    heavier = budget(outcome(Effective(weights_gib=18.56)))
    gained = heavier.weights.bytes - budget().weights.bytes
    assert heavier.loading.bytes - budget().loading.bytes == gained


def test_the_newest_start_counts() -> None:
    older = outcome(replace(COLD, available_kv_gib=1.0))
    assert budget(outcome(COLD), older).kv_cache.gib == pytest.approx(2.69, abs=0.005)


def test_what_the_engine_requested_by_its_own_words_goes_before_the_share() -> None:
    said = replace(COLD, requested_gib=22.0)
    assert budget(outcome(said)).kv_cache.gib == pytest.approx(2.69 + 0.08, abs=0.005)


@pytest.mark.parametrize(
    ("seen_gib", "total", "taken_gib"),
    [(22.69, OF_24, 0.51), (22.60, OF_24, 0.60), (15.0, OF_24, None), (22.69, OF_24 - 1, None)],
)
def test_the_engines_own_context_is_what_it_found_missing(seen_gib: float, total: int, taken_gib: float | None) -> None:
    """A neighbour that came in between, or another card, says nothing."""
    found = budget(outcome(Effective(free_gib=seen_gib), total_bytes=total)).outside
    assert found.basis is (Basis.ESTIMATED if taken_gib is None else Basis.MEASURED)
    assert found.gib == pytest.approx(taken_gib or budget().outside.gib, abs=0.002)


def test_a_cpu_engine_says_what_its_process_consumed() -> None:
    """cpu_ok: 0.88 GiB; the node's total has grown since, so the request is worked out anew."""
    device = Device(DeviceKind.CPU, "host memory, node 0", 16 * GIB, 14 * GIB)
    model = Model(131072, shape=TINY_GLM, weights=Weights(80_000_000))
    settings = Settings(gpu_memory_utilization=0.4, enforce_eager=True)
    said = Effective(available_kv_gib=3.85, consumed_gib=0.88)
    past = Past((Outcome(settings, None, said, "0.32.0", int(11.84 * GIB)),))
    found = predict(Demand(settings, Situation(device, Engine("0.32.0", DeviceKind.CPU), model), past))
    assert found is not None
    assert found.kv_cache.gib == pytest.approx(0.4 * 16 - 0.88, abs=0.01)
    assert found.kv_cache.basis is Basis.MEASURED


def test_no_term_is_less_than_nothing_where_less_was_measured_than_is_usual() -> None:
    """0.1 GiB beside weights and graphs, of which 0.25 are usual outside PyTorch alone."""
    found = budget(outcome(replace(COLD, available_kv_gib=22.08 - 17.56 - 0.40 - 0.1)))
    assert found.non_torch.bytes + found.activation.bytes == pytest.approx(0.1 * GIB, abs=0.01 * GIB)
    assert found.activation.bytes == 0 < found.non_torch.bytes


def test_nothing_is_measured_where_nothing_was_started() -> None:
    assert budget() == budget(outcome(Effective()))
