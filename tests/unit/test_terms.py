"""Weights, what lies outside PyTorch, and what no budget counts, against measured starts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from autolaunch.defaults import resolve
from autolaunch.facts import GIB, Basis, Device, DeviceKind, Engine, Model, Situation, Weights
from autolaunch.settings import Settings
from autolaunch.shape import Shape
from autolaunch.term import Term
from autolaunch.terms import loading, non_torch, outside, table_bytes, weights
from tests.unit.starts import (
    A100,
    DEEPSEEK_V2_LITE,
    GEMMA2_2B,
    GLM,
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
    T4,
    Card,
    run,
)  # fmt: skip


def holds(term: Term, gib: float, *, within: float) -> bool:
    """Whether a term is so near a measured figure, and its range holds it (the figure has two decimals)."""
    return abs(term.gib - gib) <= within and term.low - 0.005 * GIB <= gib * GIB <= term.high + 0.005 * GIB


def loaded(model: Model, known: Weights, card: Card = H100, **settings: Any) -> Term:
    """Return the weights of one rank."""
    assert model.shape is not None
    return weights(model, known, Settings(**settings), card.device(), run(model.shape, card, "0.24.0", **settings))


@pytest.mark.parametrize(
    ("shape", "length", "file_bytes", "gib"),
    [(QWEN3_8B, 40960, 16_381_470_720, 15.27), (LLAMA_8B, 131072, 16_060_522_240, 14.99),
     (MISTRAL_7B, 32768, 14_496_047_104, 13.51), (QWEN3_32B, 40960, 65_524_246_528, 61.03),
     (GLM_4_9B, 131072, 18_799_902_720, 17.56)],
)  # fmt: skip
def test_plain_checkpoints_load_to_their_tensors_and_a_table_of_positions(
    shape: Shape, length: int, file_bytes: int, gib: float
) -> None:
    found = loaded(Model(length, shape=shape), Weights(file_bytes))
    assert holds(found, gib, within=0.025)
    assert found.basis is Basis.EXACT


def test_ranks_share_the_weights_out() -> None:
    """Qwen2.5-7B on two and four cards: 7.12 and 3.55 GiB."""
    model, known = Model(32768, shape=QWEN25_7B), Weights(int(14.19 * GIB))
    assert holds(loaded(model, known, tensor_parallel_size=2), 7.12, within=0.04)
    assert holds(loaded(model, known, tensor_parallel_size=4), 3.55, within=0.04)


def test_fp8_on_the_fly_halves_the_linear_layers_only() -> None:
    """GLM-4-9B 10.02 GiB, Llama-3.1-8B 8.49: embeddings and head stay as they are."""
    assert GLM.weights is not None
    assert holds(loaded(GLM, GLM.weights, quantization="fp8"), 10.02, within=0.1)
    llama = Weights(16_060_522_240, linear_bytes=13_958_643_712)
    found = loaded(Model(131072, shape=LLAMA_8B), llama, quantization="fp8")
    assert holds(found, 8.49, within=0.03)
    assert found.basis is Basis.ESTIMATED


def test_four_bits_on_the_fly_take_about_a_quarter() -> None:
    assert GLM.weights is not None
    assert loaded(GLM, GLM.weights, quantization="bitsandbytes").gib == pytest.approx(6.4, abs=0.2)


def test_weights_that_are_quantized_already_are_not_quantized_again() -> None:
    model, known = Model(40960, "awq", shape=QWEN3_8B), Weights(6_097_000_000, linear_bytes=5_000_000_000)
    assert loaded(model, known, quantization="awq_marlin") == loaded(model, known, quantization="fp8")
    assert holds(loaded(model, known), 5.82, within=0.15)


def test_mxfp4_is_padded_by_its_kernels() -> None:
    """gpt-oss-20b: 12.82 GiB of files, 13.80 on an RTX 4090, 13.64 on an H100, 7.01 a rank on two."""
    model, known = Model(131072, "mxfp4", shape=GPT_OSS_20B), Weights(13_761_264_768)
    assert holds(loaded(model, known, RTX_4090), 13.80, within=0.25)
    assert holds(loaded(model, known), 13.64, within=0.1)
    assert holds(loaded(model, known, tensor_parallel_size=2), 7.01, within=0.2)


def test_what_is_loaded_beyond_the_files_makes_an_estimate_of_the_sum() -> None:
    seeing = Model(32768, shape=replace(QWEN3_8B, vision=True))
    assert GPT_OSS_20B.vision is False
    bases = [
        loaded(model, Weights(13_761_264_768, basis=basis)).basis
        for model in (Model(131072, "mxfp4", shape=GPT_OSS_20B), seeing, Model(32768, shape=QWEN3_8B))
        for basis in (Basis.EXACT, Basis.MEASURED)
    ]
    assert bases == [Basis.ESTIMATED, Basis.MEASURED, Basis.ESTIMATED, Basis.MEASURED, Basis.EXACT, Basis.MEASURED]


def test_what_was_measured_has_nothing_added() -> None:
    found = loaded(GLM, Weights(10 * GIB, basis=Basis.MEASURED))
    assert (found.bytes, found.basis) == (10 * GIB, Basis.MEASURED)


def test_an_estimated_size_keeps_its_doubt() -> None:
    sure, unsure = loaded(GLM, Weights(10 * GIB)), loaded(GLM, Weights(10 * GIB, basis=Basis.ESTIMATED))
    assert unsure.basis is Basis.ESTIMATED
    assert unsure.low < sure.low < sure.high < unsure.high


@pytest.mark.parametrize(
    ("card", "ranks", "gib"),
    [(H100, 1, 0.51), (RTX_4090, 1, 0.39), (A100, 1, 0.41), (L4, 1, 0.20), (H100, 2, 1.53), (H100, 4, 1.55),
     (A100, 2, 1.14), (Card("NVIDIA B200", 178 * GIB, (10, 0)), 1, 0.70),
     (Card("NVIDIA B200", 178 * GIB, (10, 0)), 2, 2.41), (Card("NVIDIA GeForce RTX 5090", 31 * GIB, (12, 0)), 1, 0.50)],
)  # fmt: skip
def test_what_is_taken_before_the_engine_measures_is_as_on_real_cards(card: Card, ranks: int, gib: float) -> None:
    found = outside(card.device(), run(QWEN3_8B, card, "0.24.0", tensor_parallel_size=ranks))
    assert holds(found, gib, within=0.21)


def test_a_card_of_unknown_kind_is_taken_for_the_usual_one_with_a_wide_range() -> None:
    card = Card("", 24 * GIB, None)
    found = outside(card.device(), run(QWEN3_8B, card, "0.24.0"))
    assert [round(figure / GIB, 2) for figure in (found.low, found.bytes, found.high)] == [0.19, 0.51, 0.75]


@pytest.mark.parametrize(
    ("shape", "card", "version", "settings", "gib"),
    [
        (QWEN3_8B, H100, "0.17.0", {}, 0.13),
        (QWEN3_8B, H100, "0.19.0", {}, 0.25),
        (QWEN25_7B, H100, "0.19.0", {"tensor_parallel_size": 2}, 2.06),
        (LLAMA_8B, H100, "0.19.0", {"tensor_parallel_size": 4}, 2.13),
        (QWEN3_8B, RTX_4090, "0.10.2", {}, 0.02),
        (LLAMA_8B, T4, "0.7.2", {}, 0.05),
        (DEEPSEEK_V2_LITE, Card("A100 40GB", 39 * GIB, (8, 0)), "0.7.2", {"tensor_parallel_size": 8}, 2.10),
        (MISTRAL_7B, RTX_4090, "0.29.0", {}, 0.14),
        (MISTRAL_7B, L4, "0.29.0", {}, 0.11),
        (QWEN3_32B, A100, "0.29.0", {}, 0.27),
        (QWEN3_8B, H100, "0.29.0", {}, 0.92),
        (GEMMA2_2B, RTX_4090, "0.29.0", {}, 0.41),
        (DEEPSEEK_V2_LITE, A100, "0.29.0", {}, 0.56),
        (GPT_OSS_20B, RTX_4090, "0.30.0", {}, 1.30),
        (MAMBA, RTX_4090, "0.29.0", {}, 0.40),
        (replace(MAMBA, dtype_bytes=4), RTX_4090, "0.29.0", {}, 0.66),
    ],
)
def test_what_is_held_outside_pytorch_is_as_measured(
    shape: Shape, card: Card, version: str, settings: dict[str, Any], gib: float
) -> None:
    found = non_torch(shape, card.device(), run(shape, card, version, **settings))
    assert holds(found, gib, within=0.11)


def test_an_eager_start_keeps_no_segment_of_a_compilation() -> None:
    compiled = non_torch(MAMBA, RTX_4090.device(), run(MAMBA, RTX_4090, "0.29.0"))
    eager = non_torch(MAMBA, RTX_4090.device(), run(MAMBA, RTX_4090, "0.29.0", enforce_eager=True))
    assert compiled.bytes - eager.bytes == table_bytes(MAMBA) == 50304 * 2560 * 2


def test_tied_embeddings_may_or_may_not_keep_that_segment() -> None:
    """Five of eight starts did."""
    found = non_torch(GEMMA2_2B, RTX_4090.device(), run(GEMMA2_2B, RTX_4090, "0.29.0"))
    assert found.above > table_bytes(GEMMA2_2B)


@pytest.mark.parametrize(("eager", "gib"), [(True, 0.73), (True, 0.82), (False, 1.02)])
def test_a_cpu_engines_process_is_counted_whole(eager: bool, gib: float) -> None:
    """tiny-glm, 0.08 GiB of weights, on vLLM 0.32: 0.73 to 0.82 GiB eager, 1.02 compiled."""
    shape = replace(QWEN3_8B, hidden_size=256)
    host = Device(DeviceKind.CPU, "host memory, node 0", 12 * GIB)
    there = Situation(host, Engine("0.32.0", DeviceKind.CPU), Model(shape=shape))
    found = non_torch(shape, host, resolve(Settings(enforce_eager=eager), there))
    assert holds(found, gib - 0.08, within=0.08)


def test_loading_needs_the_weights_and_the_buffers_of_a_batch() -> None:
    """65536 tokens of GLM-4-9B had 0.50 GiB of buffers when the last of the weights did not fit."""
    card = Card(H100.name, 19 * GIB, (9, 0))
    assert GLM.weights is not None
    small = run(GLM_4_9B, card, "0.24.0")
    large = run(GLM_4_9B, card, "0.24.0", max_num_batched_tokens=65536)
    term = loaded(GLM, GLM.weights)
    assert loading(GLM_4_9B, term, large).bytes - loading(GLM_4_9B, term, small).bytes == 63488 * 4096 * 2
    assert loading(GLM_4_9B, term, large).bytes > int(18.09 * GIB) > loading(GLM_4_9B, term, small).bytes
