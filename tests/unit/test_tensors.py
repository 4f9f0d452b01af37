"""Which tensors an engine keeps, and which of them can be stored in fewer bits."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from autolaunch.facts import Basis, Weights
from autolaunch.shape import CacheKind, CacheLayers, Shape
from autolaunch.tensors import (
    Reading,
    Stored,
    Tensor,
    at_16_bits,
    contradictions,
    is_encoder,
    is_expert,
    is_linear,
    kept,
    with_linear,
)
from tests.unit.checkpoints import WIDTHS, glm_4_9b

PLAIN = Reading(layers=40)


def tensor(name: str, dtype: str = "BF16", sizes: tuple[int, ...] = (8, 4)) -> Tensor:
    """Return a tensor."""
    return Tensor(name, dtype, sizes, math.prod(sizes) * WIDTHS[dtype])


def test_glm_4_9b_is_17_51_gib_of_which_15_20_are_linear() -> None:
    tensors = [tensor(name, dtype, sizes) for name, (dtype, sizes) in glm_4_9b().items()]
    assert kept(tensors, PLAIN, source="x") == Weights(18_799_902_720, 16_315_842_560, 0, Basis.EXACT, "x")


def told(*tensors: Tensor) -> Stored:
    """Return what tensors tell of their model's dimensions."""
    stored = Stored()
    assert list(stored.watch(tensors)) == list(tensors)
    return stored


GLM = Shape("GlmForCausalLM", 4096, 13696, 40, 32, 2, 128, 151552, (CacheLayers(CacheKind.FULL, 40, 512, 2),))
STORED = tuple(tensor(name, dtype, sizes) for name, (dtype, sizes) in glm_4_9b().items())


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        (GLM, ()),
        (replace(GLM, num_hidden_layers=2), ("2 layers are declared, 40 are stored",)),
        (replace(GLM, num_hidden_layers=41), ("41 layers are declared, 40 are stored",)),
        (
            replace(GLM, vocab_size=10),
            ("a vocabulary of 10 entries of 4096 numbers is declared, one of 151552 of 4096 is stored",),
        ),
        (
            replace(GLM, hidden_size=2048),
            ("a vocabulary of 151552 entries of 2048 numbers is declared, one of 151552 of 4096 is stored",),
        ),
        (replace(GLM, num_key_value_heads=32), ("32 KV heads of 128 numbers are declared, 256 numbers are stored",)),
        (replace(GLM, num_key_value_heads=32, caches=()), ()),
    ],
)
def test_a_configuration_that_says_something_else_than_its_files_is_contradicted(
    shape: Shape, said: tuple[str, ...]
) -> None:
    assert contradictions(told(*STORED), shape, drafting=0) == said


@pytest.mark.parametrize(
    ("drafting", "declared", "agrees"), [(0, 40, True), (1, 39, True), (1, 38, False), (1, 41, False)]
)
def test_layers_for_drafting_may_be_stored_beside_the_models_own(drafting: int, declared: int, agrees: bool) -> None:
    said = contradictions(told(*STORED), replace(GLM, num_hidden_layers=declared), drafting=drafting)
    assert (said == ()) is agrees


@pytest.mark.parametrize(
    "tensors",
    [
        (),
        (tensor("model.embed_tokens.weight", "U8", (64, 8)),),
        (tensor("model.layers.0.self_attn.k_proj.weight", "F8_E4M3", (512, 8)), *STORED),
        (*STORED, tensor("visual.blocks.63.mlp.up_proj.weight"), tensor("mtp.layers.90.mlp.up_proj.weight")),
        (*STORED, tensor("model.connector.layers.60.weight")),
        tuple(one for one in STORED if "embed_tokens" not in one.name),
    ],
)
def test_what_no_tensor_of_the_language_model_tells_is_not_doubted(tensors: tuple[Tensor, ...]) -> None:
    assert contradictions(told(*tensors), GLM, drafting=0) == ()


@pytest.mark.parametrize(
    ("name", "reading", "is_kept"),
    [
        ("model.layers.39.mlp.up_proj.weight", PLAIN, True),
        ("model.layers.40.mlp.up_proj.weight", PLAIN, False),
        ("model.language_model.layers.40.eh_proj.weight", PLAIN, False),
        ("model.layers.40.mlp.up_proj.weight", Reading(), True),
        ("mtp.layers.0.mlp.up_proj.weight", PLAIN, False),
        ("model.mtp.fc.weight", PLAIN, False),
        ("model.mtp_block.0.mlp.up_proj.weight", PLAIN, False),
        ("talker.model.layers.0.mlp.up_proj.weight", PLAIN, False),
        ("token2wav.code2wav_dit_model.x.weight", PLAIN, False),
        ("lm_head.weight", PLAIN, True),
        ("lm_head.weight", replace(PLAIN, tied=True), False),
        ("language_model.lm_head.weight", replace(PLAIN, tied=True), False),
        ("model.embed_tokens.weight", replace(PLAIN, tied=True), True),
        ("visual.blocks.50.attn.qkv.weight", PLAIN, True),
        ("visual.blocks.50.attn.qkv.weight", replace(PLAIN, text_only=True), False),
        ("model.vision_tower.encoder.layers.50.mlp.fc1.weight", replace(PLAIN, text_only=True), False),
        ("multi_modal_projector.linear_1.weight", replace(PLAIN, text_only=True), False),
        ("transformer.encoder.layers.3.mlp.dense_h_to_4h.weight", replace(PLAIN, text_only=True), True),
        ("model.layers.3.self_attn.rotary_emb.inv_freq", PLAIN, False),
    ],
)
def test_what_is_for_drafting_or_for_images_is_left_out_where_vllm_does(
    name: str, reading: Reading, is_kept: bool
) -> None:
    assert kept([tensor(name)], reading, source="").loaded_bytes == (64 if is_kept else 0)


@pytest.mark.parametrize(
    ("found", "linear"),
    [
        (tensor("model.layers.0.self_attn.q_proj.weight"), True),
        (tensor("transformer.h.0.attn.c_attn.weight"), True),
        (tensor("transformer.blocks.0.ffn.up_proj.weight"), True),
        (tensor("backbone.layers.3.mixer.in_proj.weight", "F32"), True),
        (tensor("backbone.layers.3.mixer.conv1d.weight", sizes=(8, 1, 4)), False),
        (tensor("backbone.layers.3.mixer.A_log"), False),
        (tensor("model.layers.0.mlp.experts.5.up_proj.weight"), True),
        (tensor("model.layers.0.mlp.experts.gate_up_proj", sizes=(4, 8, 4)), True),
        (tensor("model.layers.0.mlp.experts.gate_up_proj_bias"), False),
        (tensor("model.layers.0.mlp.shared_expert.up_proj.weight"), True),
        (tensor("model.layers.0.mlp.gate.weight"), False),
        (tensor("model.layers.0.mlp.router.weight"), False),
        (tensor("model.layers.0.input_layernorm.weight", sizes=(8,)), False),
        (tensor("model.layers.0.self_attn.q_norm.weight"), False),
        (tensor("model.embed_tokens.weight"), False),
        (tensor("lm_head.weight"), False),
        (tensor("visual.blocks.0.attn.qkv.weight"), False),
        (tensor("model.layers.0.mlp.up_proj.qweight", "I32"), False),
        (tensor("model.layers.0.mlp.up_proj.weight", "F8_E4M3"), False),
    ],
)
def test_linear_weights_are_the_matrices_of_the_layers(found: Tensor, linear: bool) -> None:
    assert is_linear(found) is linear


@pytest.mark.parametrize(
    ("name", "routed"),
    [
        ("model.layers.1.mlp.experts.0.up_proj.weight", True),
        ("model.layers.1.block_sparse_moe.experts.0.w1.weight", True),
        ("model.layers.1.mlp.shared_experts.up_proj.weight", False),
        ("model.layers.1.mlp.up_proj.weight", False),
    ],
)
def test_experts_are_those_that_are_chosen(name: str, routed: bool) -> None:
    assert is_expert(name) is routed
    assert kept([tensor(name)], PLAIN, source="").expert_bytes == (64 if routed else 0)


@pytest.mark.parametrize("name", ["model.layers.0.mlp.up_proj.weight", "transformer.encoder.layers.0.x.weight"])
def test_a_language_model_is_no_encoder(name: str) -> None:
    assert not is_encoder(name)


@pytest.mark.parametrize(
    ("dtype", "size"), [("F32", 64), ("BF16", 64), ("F16", 64), ("I32", 128), ("U8", 32), ("F8_E4M3", 32)]
)
def test_floats_are_kept_at_16_bits_and_all_else_as_it_is(dtype: str, size: int) -> None:
    assert at_16_bits(tensor("x", dtype)) == size


def test_a_quantized_checkpoint_is_kept_as_it_is_stored() -> None:
    tensors = [tensor("model.layers.0.up.qweight", "I32"), tensor("model.layers.0.up.scales", "F32")]
    reading = Reading(layers=1, quantized=True)
    assert kept([*tensors, tensor("model.layers.0.down.weight")], reading, source="") == Weights(320)


def dense(*, tied: bool = False, vision: bool = False, experts: int = 0) -> Shape:
    """Return a model of two layers."""
    return Shape(
        "", 8, 16, 2, 2, 1, 4, 100, (CacheLayers(CacheKind.FULL, 2, 8, 1),), tie_word_embeddings=tied, vision=vision,
        experts=experts, expert_intermediate_size=10 if experts else 0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("shape", "linear", "experts"),
    [
        (None, 0, 0),
        (dense(vision=True), 0, 0),
        (dense(), 10_000 - 3200, 0),
        (dense(tied=True), 10_000 - 1600, 0),
        (dense(experts=4), 6800, 3840),
        (dense(experts=100), 6800, 6800),
    ],
)
def test_of_a_mere_sum_all_but_embedding_and_head_is_linear(shape: Shape | None, linear: int, experts: int) -> None:
    assert with_linear(Weights(10_000), shape) == Weights(10_000, linear, experts)


def test_a_known_part_is_not_worked_out_again() -> None:
    assert with_linear(Weights(10_000, 5), dense()) == Weights(10_000, 5)
