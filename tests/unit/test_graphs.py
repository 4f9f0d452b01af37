"""CUDA graphs: the engine's estimate and what they took, as printed."""

from __future__ import annotations

from typing import Any

import pytest

from autolaunch.facts import GIB
from autolaunch.graphs import captured, charged, trial
from autolaunch.shape import CacheKind, CacheLayers, Shape
from autolaunch.term import NOTHING
from tests.unit.starts import (
    A100,
    DEEPSEEK_V2_LITE,
    GLM_4_9B,
    GPT_OSS_20B,
    H100,
    L4,
    LLAMA_8B,
    MAMBA,
    MISTRAL_7B,
    QWEN3_8B,
    QWEN3_32B,
    QWEN25_7B,
    RTX_4090,
    Card,
    plain,
    run,
    shown,
)  # fmt: skip


@pytest.mark.parametrize(
    ("shape", "card", "version", "estimate_gib", "took_gib"),
    [
        (GLM_4_9B, H100, "0.24.0", 0.54, 0.70),
        (GLM_4_9B, shown(24), "0.24.0", 0.40, 0.55),
        (QWEN3_8B, RTX_4090, "0.29.0", 0.46, 0.27),
        (QWEN3_32B, A100, "0.29.0", 0.77, 0.38),
        (MISTRAL_7B, L4, "0.29.0", 0.43, 0.24),
        (QWEN3_8B, H100, "0.29.0", 0.96, 0.48),
        (MAMBA, RTX_4090, "0.29.0", 0.43, 0.25),
        (DEEPSEEK_V2_LITE, A100, "0.29.0", 0.58, 0.30),
        (GPT_OSS_20B, RTX_4090, "0.30.0", 0.63, 0.27),
    ],
)
def test_what_is_charged_and_what_is_taken_are_two_figures(
    shape: Shape, card: Card, version: str, estimate_gib: float, took_gib: float
) -> None:
    settings = run(shape, card, version)
    estimate, took = charged(shape, card.device(), settings), captured(shape, card.device(), settings)
    assert estimate.gib == pytest.approx(estimate_gib, abs=0.07)
    assert estimate.low <= estimate_gib * GIB <= estimate.high
    assert took.gib == pytest.approx(took_gib, abs=0.07)
    assert took.low <= took_gib * GIB <= took.high


@pytest.mark.parametrize(
    ("shape", "version", "settings", "took_gib"),
    [
        (QWEN25_7B, "0.19.0", {}, 0.87),
        (LLAMA_8B, "0.19.0", {}, 0.91),
        (QWEN3_8B, "0.10.2", {"max_num_seqs": 256}, 0.68),
        (plain(896, 4864, 24, (14, 2), 151936), "0.6.3", {}, 0.13),
        (LLAMA_8B, "0.7.2", {"max_num_seqs": 160}, 0.58),
    ],
)
def test_before_0_21_nothing_is_charged_and_the_graphs_come_out_of_what_was_not_requested(
    shape: Shape, version: str, settings: dict[str, Any], took_gib: float
) -> None:
    found = run(shape, H100, version, **settings)
    assert charged(shape, H100.device(), found) == NOTHING
    took = captured(shape, H100.device(), found)
    assert took.low <= took_gib * GIB <= took.high


def test_no_graphs_no_memory() -> None:
    eager = run(GLM_4_9B, H100, "0.24.0", enforce_eager=True)
    assert [term(GLM_4_9B, H100.device(), eager) for term in (charged, captured, trial)] == [NOTHING] * 3


def test_fewer_and_smaller_graphs_take_less() -> None:
    default, few = run(GLM_4_9B, H100, "0.24.0"), run(GLM_4_9B, H100, "0.24.0", cudagraph_capture_sizes=(1, 2, 4, 8))
    for term in (charged, captured, trial):
        assert 0 < term(GLM_4_9B, H100.device(), few).bytes < term(GLM_4_9B, H100.device(), default).bytes


def test_trying_the_graphs_ran_out_of_memory_on_20_gib_where_the_weights_fitted() -> None:
    """18.69 GiB free to the engine, 17.56 of weights and 0.22 beside them: 0.9 GiB were not enough."""
    found = trial(GLM_4_9B, H100.device(), run(GLM_4_9B, shown(20), "0.24.0"))
    assert found.gib == pytest.approx(0.95, abs=0.1)


def test_a_hybrid_needs_a_state_for_every_sequence_of_the_largest_graph() -> None:
    """Qwen3.8-27B on 0.29: 51 MB a block, 24.5 GiB for 512."""
    caches = (
        CacheLayers(CacheKind.STATE, 48, heads=1, state_bytes=3_211_264),
        CacheLayers(CacheKind.FULL, 16, 2048, 4),
    )
    hybrid = plain(5120, 17408, 64, (24, 4), 248320, head_dim=256, caches=caches)
    found = trial(hybrid, H100.device(), run(hybrid, H100, "0.29.0"))
    assert found.low > 24 * GIB


def test_releases_before_0_19_do_not_try_the_graphs() -> None:
    assert trial(GLM_4_9B, H100.device(), run(GLM_4_9B, H100, "0.18.0")) == NOTHING
