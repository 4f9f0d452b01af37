"""What is left of weights that the engine quantizes while it loads them."""

from __future__ import annotations

import pytest

from autolaunch.facts import GIB, Basis, Weights
from autolaunch.quantization import quantized

GLM = Weights(18_799_902_720, 16_315_842_560, source="safetensors headers")
LLAMA = Weights(16_060_522_496, 13_958_643_712)
QWEN = Weights(15_231_233_024, 13_050_576_896)
MIXTURE = Weights(1000, 800, 600)


@pytest.mark.parametrize(
    ("weights", "method", "measured_gib"),
    [(GLM, "fp8", 10.02), (LLAMA, "fp8", 8.49), (QWEN, "fp8", 8.2), (LLAMA, "bitsandbytes", 5.35)],
)
def test_real_engines_report_nearly_this_much(weights: Weights, method: str, measured_gib: float) -> None:
    found = quantized(weights, method, capability=(9, 0))
    assert found is not None
    assert found.loaded_bytes / GIB == pytest.approx(measured_gib, abs=0.12)
    assert found.basis is Basis.ESTIMATED


def test_fp8_keeps_one_byte_of_two_and_says_where_it_is_from() -> None:
    expected = Weights(10_641_981_440, 0, 0, Basis.ESTIMATED, "safetensors headers, fp8 on the fly")
    assert quantized(GLM, "fp8", capability=(8, 0)) == expected


@pytest.mark.parametrize(
    ("method", "left"), [("fp8", 600), ("fp8_per_block", 600), ("bitsandbytes", 406), ("experts_int8", 700)]
)
def test_experts_are_quantized_with_the_rest(method: str, left: int) -> None:
    found = quantized(MIXTURE, method, capability=(9, 0))
    assert found is not None
    assert found.loaded_bytes == left
    assert found.linear_bytes == (200 if method == "experts_int8" else 0)


@pytest.mark.parametrize(
    ("weights", "method", "capability"),
    [
        (GLM, "fp8", (7, 5)),
        (GLM, "fp8_per_block", (8, 0)),
        (GLM, "bitsandbytes", (6, 1)),
        (GLM, "awq", (9, 0)),
        (GLM, "experts_int8", (9, 0)),
        (Weights(1000), "fp8", (9, 0)),
    ],
)
def test_what_cannot_be_quantized_on_the_fly_is_not(weights: Weights, method: str, capability: tuple[int, int]) -> None:
    assert quantized(weights, method, capability=capability) is None


def test_an_unknown_card_is_taken_for_one_that_can() -> None:
    assert quantized(GLM, "fp8", capability=None) == quantized(GLM, "fp8", capability=(9, 0))
