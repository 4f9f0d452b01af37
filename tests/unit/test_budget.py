"""The whole budget of a start, against what real engines printed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from autolaunch.budget import Budget, Demand, predict
from autolaunch.facts import GIB, Device, DeviceKind, Engine, Model, Situation, Variant, Weights
from autolaunch.settings import AUTO, Settings
from tests.unit.starts import GLM, GLM_4_9B, H100_BYTES, TINY_GLM, Start

WHOLE = 79.178


def budget(total_gib: float, free_gib: float | None = None, **settings: Any) -> Budget:
    """Return the budget of GLM-4-9B on vLLM 0.24 on an H100 that shows so many GiB."""
    found = predict(Start(total_gib, free_gib, settings=Settings(**settings)).demand)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("total_gib", "settings", "kv_gib"),
    [
        (WHOLE, {}, 52.29),
        (24, {}, 2.69),
        (24, {"max_model_len": AUTO}, 2.69),
        (24, {"gpu_memory_utilization": 0.9, "enforce_eager": True}, 3.18),
        (24, {"gpu_memory_utilization": 0.94, "enforce_eager": True, "max_num_seqs": 64,
              "max_num_batched_tokens": 1024}, 4.565),
        (WHOLE, {"gpu_memory_utilization": 0.23, "enforce_eager": True}, -1.79),
        (16, {"quantization": "fp8", "enforce_eager": True}, 3.85),
        (16, {"quantization": "fp8"}, 2.88),
    ],
)  # fmt: skip
def test_glm_4_9b_gets_the_kv_memory_that_vllm_0_24_measured(
    total_gib: float, settings: dict[str, Any], kv_gib: float
) -> None:
    """Engine logs of one H100, whole and imitating smaller cards, compile cache cold."""
    found = budget(total_gib, **settings).kv_cache
    assert found.gib == pytest.approx(kv_gib, abs=0.11)
    assert found.low <= kv_gib * GIB <= found.high


def test_a_warm_compile_cache_is_within_the_range() -> None:
    """gpu_c: the start of 2.69 GiB has 0.56 GiB more where nothing is compiled, at a share of 0.9 2.77."""
    found = budget(24, gpu_memory_utilization=0.9).kv_cache
    assert found.bytes < 2.77 * GIB <= found.high


def test_the_request_is_the_share_of_what_cuda_counts() -> None:
    """gpu_h: utilization 0.9 of 79.18 GiB is 71.26 GiB; the default is 0.92 on 0.24."""
    assert budget(WHOLE, gpu_memory_utilization=0.9).requested_bytes / GIB == pytest.approx(71.26, abs=0.005)
    assert budget(WHOLE).requested_bytes == -(-H100_BYTES * 92 // 100)
    found = budget(24, 20.5)
    assert (found.total_bytes, found.free_bytes) == (24 * GIB, int(20.5 * GIB))


def test_a_token_of_glm_4_9b_takes_40960_bytes_and_half_of_that_in_fp8() -> None:
    assert budget(24).kv_bytes_per_token == 40960
    assert budget(24, kv_cache_dtype="fp8").kv_bytes_per_token == 20480
    assert budget(24, kv_cache_dtype="fp8").kv_cache == budget(24).kv_cache, "the pool does not move"
    assert budget(24, tensor_parallel_size=4).kv_bytes_per_token == 20480, "a rank keeps one KV head at least"


def test_a_variant_is_predicted_by_its_own_weights() -> None:
    start = Start(24).demand
    model = replace(GLM, variants=(Variant("org/glm-awq", "awq", Weights(6 * GIB)), Variant("org/unsized", "gptq")))
    demand = replace(start, situation=replace(start.situation, model=model))
    light = predict(replace(demand, settings=Settings(model="org/glm-awq")))
    assert light is not None
    assert light.weights.gib == pytest.approx(6.03, abs=0.01)
    assert predict(replace(demand, settings=Settings(model="org/unsized"))) is None
    assert predict(replace(demand, settings=Settings(model="org/stranger"))) is None


@pytest.mark.parametrize(
    ("share", "eager", "total_gib", "kv_gib"),
    [(0.5, True, 7.46, 2.99), (0.05, True, 9.21, -0.34), (0.084, False, 23.54, 0.95)],
)
def test_a_cpu_engine_of_0_32_gets_what_it_measured(share: float, eager: bool, total_gib: float, kv_gib: float) -> None:
    """tiny-glm on one NUMA node; within 10 % where a cache is left."""
    device = Device(DeviceKind.CPU, "host memory, node 0", int(total_gib * GIB))
    model = Model(131072, shape=TINY_GLM, weights=Weights(79_000_000))
    settings = Settings(gpu_memory_utilization=share, enforce_eager=eager)
    found = predict(Demand(settings, Situation(device, Engine("0.32.0", DeviceKind.CPU), model)))
    assert found is not None
    assert found.kv_cache.gib == pytest.approx(kv_gib, abs=max(0.1 * kv_gib, 0.06))
    assert found.kv_cache.low <= kv_gib * GIB <= found.kv_cache.high


@pytest.mark.parametrize(
    "situation",
    [
        Situation(Device(DeviceKind.CUDA), Engine("0.24.0"), GLM),
        Situation(Device(DeviceKind.CUDA, total_bytes=0), Engine("0.24.0"), GLM),
        Situation(Device(DeviceKind.CUDA, total_bytes=24 * GIB), Engine("0.24.0"), Model(weights=GLM.weights)),
        Situation(Device(DeviceKind.CUDA, total_bytes=24 * GIB), Engine("0.24.0"), Model(shape=GLM_4_9B)),
    ],
)
def test_what_is_not_known_is_not_guessed(situation: Situation) -> None:
    assert predict(Demand(Settings(), situation)) is None
