"""The whole budget of a start, against what real engines printed."""

from __future__ import annotations

from typing import Any

import pytest

from autolaunch.budget import Budget, Demand, predict
from autolaunch.facts import GIB, Device, DeviceKind, Engine, Model, Situation, Weights
from autolaunch.settings import AUTO, Settings
from autolaunch.shape import CacheKind, CacheLayers, Shape

GLM_SHAPE = Shape(
    "GlmForCausalLM", 4096, 13696, 40, 32, 2, 128, 151552, (CacheLayers(CacheKind.FULL, 40, 512, 2),)
)  # fmt: skip
GLM_BYTES = 18_799_902_720  # the tensors; vLLM says 17.56 GiB
GLM = Model(131072, name="glm-4-9b", shape=GLM_SHAPE, weights=Weights(GLM_BYTES, linear_bytes=16_315_842_560))
H100_BYTES = 85_017_493_504


def budget(total: float, free: float | None = None, *, engine: str | None = "0.24.0", **settings: Any) -> Budget:
    """Return the budget of GLM-4-9B on an H100 that shows so many GiB."""
    total_bytes = H100_BYTES if total == 79.18 else int(total * GIB)
    device = Device(
        DeviceKind.CUDA,
        "NVIDIA H100 80GB HBM3",
        total_bytes,
        None if free is None else int(free * GIB),
        compute_capability=(9, 0),
    )
    found = predict(Demand(Settings(**settings), Situation(device, Engine(engine, DeviceKind.CUDA), GLM)))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("total", "settings", "kv_gib"),
    [
        (79.18, {}, 52.29),
        (24, {}, 2.69),
        (24, {"max_model_len": AUTO}, 2.69),
        (24, {"gpu_memory_utilization": 0.9, "enforce_eager": True}, 3.18),
        (24, {"gpu_memory_utilization": 0.94, "enforce_eager": True, "max_num_seqs": 64,
              "max_num_batched_tokens": 1024}, 4.565),
        (79.18, {"gpu_memory_utilization": 0.23, "enforce_eager": True}, -1.79),
        (16, {"quantization": "fp8", "enforce_eager": True}, 3.85),
        (16, {"quantization": "fp8"}, 2.88),
    ],
)  # fmt: skip
def test_glm_4_9b_gets_the_kv_memory_that_vllm_0_24_measured(
    total: float, settings: dict[str, Any], kv_gib: float
) -> None:
    """Engine logs of one H100, whole and imitating smaller cards, compile cache cold."""
    found = budget(total, **settings).kv_cache
    assert found.gib == pytest.approx(kv_gib, abs=0.11)
    assert found.low <= kv_gib * GIB <= found.high


def test_a_warm_compile_cache_is_within_the_range() -> None:
    """The same start as above with 0.56 GiB more: nothing is compiled."""
    found = budget(24, gpu_memory_utilization=0.9).kv_cache
    assert found.bytes < 2.77 * GIB <= found.high


@pytest.mark.parametrize(
    "situation",
    [
        Situation(Device(DeviceKind.CUDA), Engine("0.24.0"), GLM),
        Situation(Device(DeviceKind.CUDA, total_bytes=24 * GIB), Engine("0.24.0"), Model(weights=GLM.weights)),
        Situation(Device(DeviceKind.CUDA, total_bytes=24 * GIB), Engine("0.24.0"), Model(shape=GLM_SHAPE)),
    ],
)
def test_what_is_not_known_is_not_guessed(situation: Situation) -> None:
    assert predict(Demand(Settings(), situation)) is None
