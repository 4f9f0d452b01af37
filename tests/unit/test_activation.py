"""The profile run's peak, against what releases printed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from autolaunch.activation import activation, peaks
from autolaunch.defaults import resolve
from autolaunch.facts import GIB, Device, DeviceKind, Engine, Model, Situation
from autolaunch.settings import Settings
from autolaunch.shape import Shape
from tests.unit.starts import (
    A100,
    DEEPSEEK_V2_LITE,
    GEMMA2_2B,
    GEMMA2_27B,
    GLM_4_9B,
    GPT_OSS_20B,
    H100,
    L4,
    LLAMA_8B,
    MAMBA,
    MISTRAL_7B,
    MIXTRAL,
    QWEN3_8B,
    QWEN3_14B,
    QWEN3_30B,
    QWEN3_32B,
    QWEN25_7B,
    RTX_4090,
    T4,
    TINY_GLM,
    Card,
    plain,
    run,
    shown,
)  # fmt: skip


@pytest.mark.parametrize(
    ("shape", "card", "version", "settings", "gib"),
    [
        (LLAMA_8B, T4, "0.7.2", {"max_num_seqs": 160, "max_model_len": 512}, 0.74),
        (QWEN3_8B, RTX_4090, "0.10.2", {}, 1.40),
        (QWEN3_14B, H100, "0.16.0", {}, 5.64),
        (QWEN3_14B, H100, "0.17.0", {}, 2.23),
        (QWEN3_8B, H100, "0.19.0", {}, 2.21),
        (QWEN25_7B, H100, "0.19.0", {}, 2.21),
        (QWEN25_7B, H100, "0.19.0", {"tensor_parallel_size": 4}, 2.21),
        (LLAMA_8B, H100, "0.19.0", {}, 1.89),
        (replace(LLAMA_8B, dtype_bytes=4), H100, "0.19.0", {}, 2.21),
        (GEMMA2_27B, H100, "0.19.0", {}, 3.66),
        (QWEN3_30B, H100, "0.19.0", {}, 2.68),
        (MIXTRAL, H100, "0.19.0", {"tensor_parallel_size": 2}, 1.21),
        (GPT_OSS_20B, H100, "0.19.0", {"tensor_parallel_size": 2}, 2.87),
        (MISTRAL_7B, L4, "0.29.0", {}, 0.28),
        (QWEN3_8B, RTX_4090, "0.29.0", {}, 1.19),
        (QWEN3_8B, H100, "0.29.0", {}, 1.29),
        (QWEN3_32B, A100, "0.29.0", {}, 1.49),
        (GEMMA2_2B, RTX_4090, "0.29.0", {}, 1.12),
        (DEEPSEEK_V2_LITE, A100, "0.29.0", {"max_model_len": 640}, 0.41),
        (GPT_OSS_20B, RTX_4090, "0.30.0", {}, 1.10),
        (MAMBA, RTX_4090, "0.29.0", {}, 0.26),
        (replace(MAMBA, dtype_bytes=4), RTX_4090, "0.29.0", {}, 0.52),
    ],
)  # fmt: skip
def test_the_peak_is_the_measured_one(
    shape: Shape, card: Card, version: str, settings: dict[str, Any], gib: float
) -> None:
    found = activation(shape, run(shape, card, version, **settings))
    assert found.gib == pytest.approx(gib, abs=0.025)
    assert found.low <= gib * GIB <= found.high


@pytest.mark.parametrize(
    ("total_gib", "settings", "with_non_torch_gib"),
    [
        (79.18, {}, 2.46),
        (79.18, {"enforce_eager": True}, 2.44),
        (24, {}, 1.43),
        (24, {"enforce_eager": True}, 0.86),
        (24, {"enforce_eager": True, "max_num_seqs": 64, "max_num_batched_tokens": 1024}, 0.435),
    ],
)
def test_glm_4_9b_on_0_24_shows_how_it_depends_on_the_batch(
    total_gib: float, settings: dict[str, Any], with_non_torch_gib: float
) -> None:
    """Requested less weights, cache and graphs, of which 0.25 GiB lie outside PyTorch."""
    found = activation(GLM_4_9B, run(GLM_4_9B, shown(total_gib), "0.24.0", **settings))
    assert found.gib + 0.25 == pytest.approx(with_non_torch_gib, abs=0.03)


def test_a_warm_compile_cache_leaves_half_a_gib_more_to_glm_4_9b() -> None:
    """0.56 GiB measured; with a large batch sampling is the peak and the cache makes no difference."""
    small, large = peaks(GLM_4_9B, run(GLM_4_9B, shown(24), "0.24.0")), peaks(GLM_4_9B, run(GLM_4_9B, H100, "0.24.0"))
    assert (small.cold - small.warm) / GIB == pytest.approx(0.58, abs=0.03)
    assert large.cold == large.warm


@pytest.mark.parametrize("settings", [{"enforce_eager": True}, {"tensor_parallel_size": 2}])
def test_nothing_is_compiled_eagerly_and_nothing_seen_of_it_on_two_ranks(settings: dict[str, Any]) -> None:
    found = peaks(QWEN3_8B, run(QWEN3_8B, RTX_4090, "0.29.0", **settings))
    assert found.cold == found.warm


def test_several_ranks_gather_their_logits_in_the_second_runner() -> None:
    one = peaks(QWEN3_8B, run(QWEN3_8B, H100, "0.29.0", enforce_eager=True, max_num_batched_tokens=1024))
    two = peaks(QWEN3_8B, run(QWEN3_8B, H100, "0.29.0", tensor_parallel_size=2, max_num_batched_tokens=1024))
    assert (two.warm - one.warm) / (1024 * 151936 * 2) == pytest.approx(1.5)


def test_a_long_batch_makes_the_forward_pass_the_peak() -> None:
    """The three halves of a gated MLP: 65536 tokens of Mistral-7B, 3 * 14336 values each."""
    found = peaks(MISTRAL_7B, run(MISTRAL_7B, H100, "0.24.0", max_num_batched_tokens=65536, enforce_eager=True))
    assert found.warm == 65536 * 2 * (3 * 4096 + 4096 + 3 * 14336)


@pytest.mark.parametrize(
    ("shape", "gib"), [(plain(4096, 11008, 32, (32, 32), 32016), 0.77), (plain(4096, 12800, 40, (32, 8), 49155), 0.85)]
)
def test_a_small_vocabulary_makes_the_forward_pass_the_peak(shape: Shape, gib: float) -> None:
    """CodeLlama-7B and granite-3.1-8b on 0.19."""
    assert activation(shape, run(shape, H100, "0.19.0")).gib == pytest.approx(gib, abs=0.025)


def test_wider_latent_heads_restore_more() -> None:
    """GLM-4.7-Flash has 192 + 256 values a head where DeepSeek has 128 + 128."""
    wide = replace(DEEPSEEK_V2_LITE, restored_values=448)
    one, other = (
        peaks(shape, run(shape, H100, "0.29.0", enforce_eager=True)).warm for shape in (DEEPSEEK_V2_LITE, wide)
    )
    assert (other - one) / (16 * 192 * 2) == 65536 + 2.5 * 8192


def test_a_multimodal_encoder_is_a_peak_of_its_own_with_a_wide_range() -> None:
    """1.92 and 1.83 GiB on 0.30."""
    seeing = replace(QWEN3_8B, vision=True)
    found = activation(seeing, run(seeing, H100, "0.30.0"))
    assert found.low < 1.83 * GIB < 1.92 * GIB < found.high
    older = (
        activation(seeing, run(seeing, H100, "0.19.0")).bytes
        - activation(QWEN3_8B, run(QWEN3_8B, H100, "0.19.0")).bytes
    )
    assert 0.08 <= older / GIB <= 0.23


def test_an_unknown_release_has_a_wider_range() -> None:
    known, unknown = (
        activation(QWEN3_8B, run(QWEN3_8B, H100, "0.30.0")),
        activation(QWEN3_8B, run(QWEN3_8B, H100, None)),
    )
    assert known.bytes == unknown.bytes
    assert unknown.low <= known.low < known.high < unknown.high


def test_a_cpu_engine_keeps_little_of_its_warm_up() -> None:
    host = Device(DeviceKind.CPU, "host memory, node 0", 12 * GIB)
    there = Situation(host, Engine("0.32.0", DeviceKind.CPU), Model(shape=TINY_GLM))
    found = activation(TINY_GLM, resolve(Settings(), there))
    assert (found.bytes, found.low) == (2 * 2048 * 256 * 2, 0)
