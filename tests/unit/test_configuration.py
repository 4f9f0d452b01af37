"""What real configurations say, and what becomes of those that lie."""

from __future__ import annotations

from typing import Any

import pytest

from autolaunch.configuration import Configuration, read
from autolaunch.facts import Basis, Weights
from autolaunch.shape import CacheKind, CacheLayers, Shape

FULL, SLIDING, LATENT, STATE = CacheKind.FULL, CacheKind.SLIDING, CacheKind.LATENT, CacheKind.STATE

PLAIN: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192},
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}


def shape(config: dict[str, Any]) -> Shape:
    """Return the dimensions that a configuration gives."""
    found = read(config)
    assert found.shape is not None, found.notes
    return found.shape


def test_llama_3_1_8b_says_everything_in_plain_words() -> None:
    expected = Shape("LlamaForCausalLM", 4096, 14336, 32, 32, 8, 128, 128256, (CacheLayers(FULL, 32, 2048, 8),))
    weights = Weights(16_060_522_496, 13_958_643_712, 0, Basis.ESTIMATED, "its dimensions")
    assert read(PLAIN) == Configuration(expected, 131072, weights=weights, model_type="llama", dtype="bfloat16")


def test_glm_4_9b_chat_spells_everything_differently() -> None:
    config = {
        "architectures": ["ChatGLMModel"],
        "model_type": "chatglm",
        "add_qkv_bias": True,
        "ffn_hidden_size": 13696,
        "hidden_size": 4096,
        "kv_channels": 128,
        "multi_query_attention": True,
        "multi_query_group_num": 2,
        "num_attention_heads": 32,
        "num_hidden_layers": 40,
        "num_layers": 40,
        "padded_vocab_size": 151552,
        "vocab_size": 151552,
        "seq_length": 131072,
        "tie_word_embeddings": False,
    }
    expected = Shape("ChatGLMModel", 4096, 13696, 40, 32, 2, 128, 151552, (CacheLayers(FULL, 40, 512, 2),))
    weights = Weights(18_799_902_720, 16_315_842_560, 0, Basis.ESTIMATED, "its dimensions")
    assert read(config) == Configuration(expected, 131072, weights=weights, model_type="chatglm")


def test_gemma_3_leaves_out_what_transformers_fills_in() -> None:
    config = {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "model_type": "gemma3",
        "text_config": {
            "hidden_size": 2560,
            "intermediate_size": 10240,
            "model_type": "gemma3_text",
            "num_hidden_layers": 34,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
            "sliding_window": 1024,
        },
        "vision_config": {"hidden_size": 1152, "num_hidden_layers": 27},
    }
    found = read(config)
    assert found.shape == Shape(
        "Gemma3ForConditionalGeneration", 2560, 10240, 34, 8, 4, 256, 262208,
        (CacheLayers(FULL, 5, 2048, 4), CacheLayers(SLIDING, 29, 2048, 4, 1024)),
        tie_word_embeddings=True, vision=True,
    )  # fmt: skip


def test_glm_4_7_flash_keeps_a_latent_on_every_rank() -> None:
    config = {
        **PLAIN,
        "model_type": "glm4_moe_lite",
        "architectures": ["Glm4MoeLiteForCausalLM"],
        "num_hidden_layers": 47,
        "hidden_size": 2048,
        "intermediate_size": 10240,
        "num_attention_heads": 20,
        "num_key_value_heads": 20,
        "kv_lora_rank": 512,
        "q_lora_rank": 768,
        "qk_nope_head_dim": 192,
        "qk_rope_head_dim": 64,
        "v_head_dim": 256,
        "vocab_size": 154880,
        "n_routed_experts": 64,
        "n_shared_experts": 1,
        "num_experts_per_tok": 4,
        "moe_intermediate_size": 1536,
    }
    assert shape(config) == Shape(
        "Glm4MoeLiteForCausalLM", 2048, 10240, 47, 20, 20, 256, 154880, (CacheLayers(LATENT, 47, 576),),
        experts=64, experts_per_token=4, expert_intermediate_size=1536, restored_values=448,
    )  # fmt: skip


def test_qwen3_next_keeps_a_state_in_three_layers_of_four() -> None:
    config = {
        "model_type": "qwen3_next",
        "architectures": ["Qwen3NextForCausalLM"],
        "hidden_size": 2048,
        "intermediate_size": 5120,
        "num_hidden_layers": 48,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "head_dim": 256,
        "vocab_size": 151936,
        "full_attention_interval": 4,
        "linear_conv_kernel_dim": 4,
        "linear_key_head_dim": 128,
        "linear_num_key_heads": 16,
        "linear_num_value_heads": 32,
        "linear_value_head_dim": 128,
        "num_experts": 512,
        "num_experts_per_tok": 10,
        "moe_intermediate_size": 512,
    }
    found = shape(config)
    assert found.caches == (CacheLayers(FULL, 12, 1024, 2), CacheLayers(STATE, 36, heads=32, state_bytes=1_097_728))
    assert 36 * 1_097_728 == 39_518_208, "the state that a sequence is known to take"
    assert (found.experts, found.experts_per_token, found.expert_intermediate_size) == (512, 10, 512)


@pytest.mark.parametrize(
    ("config", "heads"),
    [
        ({"num_key_value_heads": None}, 32),
        ({"num_kv_heads": 4}, 4),
        ({"multi_query": True}, 1),
        ({"multi_query": True, "new_decoder_architecture": True}, 8),
        ({"multi_query_attention": False}, 32),
        ({"num_key_value_heads": None, "attn_config": {"kv_n_heads": 16}}, 16),
    ],
)
def test_kv_heads_are_spelt_in_many_ways(config: dict[str, Any], heads: int) -> None:
    assert shape({**PLAIN, **config}).num_key_value_heads == heads


@pytest.mark.parametrize(
    ("config", "experts"),
    [
        ({}, (0, 0, 0)),
        ({"num_experts": 0}, (0, 0, 0)),
        ({"num_local_experts": 8, "num_experts_per_tok": 2}, (8, 2, 14336)),
        ({"num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768}, (128, 8, 768)),
        ({"n_routed_experts": 160, "num_experts_per_tok": 8, "moe_intermediate_size": 1536}, (160, 8, 1536)),
        ({"moe_num_experts": [64, 64], "moe_k": 6, "moe_intermediate_size": [1536, 512]}, (64, 6, 1536)),
        ({"num_local_experts": 32, "experts_per_token": 4}, (32, 4, 14336)),
        ({"ffn_config": {"moe_num_experts": 16}, "moe_top_k": 4}, (16, 4, 14336)),
    ],
)
def test_experts_are_spelt_in_many_ways(config: dict[str, Any], experts: tuple[int, int, int]) -> None:
    found = shape({**PLAIN, **config})
    assert (found.experts, found.experts_per_token, found.expert_intermediate_size) == experts


@pytest.mark.parametrize(
    ("config", "tied"),
    [
        ({"tie_word_embeddings": None}, False),
        ({"tie_word_embeddings": True}, True),
        ({"tie_word_embeddings": None, "model_type": "gemma2"}, True),
        ({"tie_word_embeddings": True, "text_config": {"tie_word_embeddings": False}}, False),
    ],
)
def test_the_head_is_the_embedding_where_it_is_said_or_usual(config: dict[str, Any], tied: bool) -> None:
    assert shape({**PLAIN, **config}).tie_word_embeddings is tied


@pytest.mark.parametrize("name", ["text_config", "llm_config", "language_config"])
def test_a_language_model_is_found_inside(name: str) -> None:
    outer = {"architectures": ["X"], "vision_config": {"depth": 24}, "hidden_size": 1, name: PLAIN}
    found = shape(outer)
    assert (found.hidden_size, found.vision, found.architecture) == (4096, True, "X")
    assert shape({"architectures": ["X"], "thinker_config": outer}) == found


def test_capped_logits_are_known() -> None:
    assert shape({**PLAIN, "final_logit_softcapping": 30.0}).soft_cap


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({}, "it has no num_hidden_layers"),
        ({**PLAIN, "hidden_size": None}, "it has no hidden_size"),
        ({**PLAIN, "hidden_size": "4096"}, "hidden_size is '4096', not a number"),
        ({**PLAIN, "hidden_size": 4096.5}, "hidden_size is 4096.5, not a number"),
        ({**PLAIN, "num_hidden_layers": True}, "num_hidden_layers is True, not a number"),
        ({**PLAIN, "num_hidden_layers": -1}, "num_hidden_layers is -1, which no model has"),
        ({**PLAIN, "num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000, which no model has"),
        ({**PLAIN, "vocab_size": 10**30}, "vocab_size is 1000000000000000000000000000000, which no model has"),
        ({**PLAIN, "vocab_size": 10**60}, f"vocab_size is 1{'0' * 36}..., which no model has"),
        ({**PLAIN, "num_key_value_heads": 0}, "num_key_value_heads is 0, which no model has"),
        ({**PLAIN, "num_key_value_heads": 64}, "it has 64 KV heads for 32 heads"),
        ({**PLAIN, "num_key_value_heads": [8, 4]}, "num_key_value_heads differs from layer to layer"),
        (
            {**PLAIN, "num_attention_heads": 31},
            "31 heads do not share out a hidden_size of 4096, and there is no head_dim",
        ),
        ({**PLAIN, "architectures": "Llama"}, "architectures is 'Llama', not a list of words"),
        ({**PLAIN, "layer_types": ["full_attention"]}, "1 kinds of layers are named for 32 layers"),
        ({**PLAIN, "layer_types": ["strange"] * 32}, "a layer of the kind 'strange' is not known here"),
        (
            {**PLAIN, "layer_types": ["sliding_attention"] * 32},
            "layers keep a sliding window, and it has no sliding_window",
        ),
        ({**PLAIN, "layer_types": ["mamba"] * 32}, "the size of its layers' state is not said"),
        ({**PLAIN, "num_kv_shared_layers": 32}, "32 of 32 layers share a cache"),
        ({**PLAIN, "attn_layer_indices": "all"}, "attn_layer_indices is 'all', not a list of numbers"),
        ({**PLAIN, "attn_type_list": [1]}, "attn_type_list names 1 of 32 layers"),
        ({**PLAIN, "block_configs": [{}]}, "its layers differ by block_configs, which is not worked out here"),
        (
            {**PLAIN, "is_encoder_decoder": True},
            "an encoder-decoder model keeps a cross-attention cache, which is not worked out here",
        ),
    ],
)
def test_a_configuration_that_lies_gives_no_dimensions_and_says_why(config: dict[str, Any], why: str) -> None:
    found = read(config)
    assert (found.shape, found.notes) == (None, (f"config.json gives no dimensions: {why}",))


def test_a_model_type_that_is_none_is_an_unknown_one() -> None:
    """A list here once raised, since no set can hold it."""
    assert read({**PLAIN, "model_type": ["llama"]}).shape == shape(PLAIN)
    assert read({**PLAIN, "model_type": ["llama"]}).weights is None


@pytest.mark.parametrize(
    ("config", "length"),
    [
        ({}, None),
        ({"max_position_embeddings": 32768}, 32768),
        ({"seq_length": 131072}, 131072),
        ({"max_position_embeddings": 131072, "seq_length": 8192}, 8192),
        ({"max_position_embeddings": True}, None),
        ({"max_position_embeddings": -1}, None),
        ({"max_position_embeddings": "4096"}, None),
        ({"text_config": {"max_position_embeddings": 4096}}, 4096),
        ({"max_position_embeddings": 32768, "rope_scaling": {"type": "yarn", "factor": 4.0}}, 32768),
        ({"max_position_embeddings": 8192, "rope_scaling": {"type": "linear", "factor": 4.0}}, 32768),
        ({"max_position_embeddings": 131072, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, 131072),
        ({"max_position_embeddings": 131072, "rope_scaling": {"type": ["llama3"], "factor": 8.0}}, 131072),
        ({"max_position_embeddings": 10**15}, None),
        ({"max_position_embeddings": 32768, "rope_parameters": {"rope_theta": 1e4}}, 32768),
        ({"max_position_embeddings": 32768, "rope_scaling": None}, 32768),
        ({"max_position_embeddings": 32768, "rope_scaling": "linear"}, 32768),
    ],
)
def test_the_longest_context_is_the_least_that_is_said(config: dict[str, Any], length: int | None) -> None:
    assert read(config).max_model_len == length


@pytest.mark.parametrize(
    ("config", "float32"),
    [
        ({}, False),
        ({"torch_dtype": "bfloat16"}, False),
        ({"torch_dtype": "float32"}, True),
        ({"dtype": "float32"}, True),
        ({"torch_dtype": "torch.float32"}, True),
        ({"torch_dtype": 32}, False),
        ({"torch_dtype": "bfloat16", "text_config": {"torch_dtype": "float32"}}, True),
    ],
)
def test_how_the_weights_are_stored_is_said_as_dtype(config: dict[str, Any], float32: bool) -> None:
    assert (read(config).dtype == "float32") is float32


@pytest.mark.parametrize(
    ("config", "method"),
    [
        ({}, None),
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, "awq"),
        ({"quantization_config": {}}, "unknown"),
        ({"quantization_config": "awq"}, None),
        ({"compression_config": {"quant_method": "compressed-tensors"}}, "compressed-tensors"),
        ({"quantization_config": {"quant_method": "compressed_tensors"}}, "compressed-tensors"),
        ({"quantization_config": {"quant_method": "FP8"}}, "fp8"),
        ({"quantization_config": {"quant_method": "mxfp4"}}, "mxfp4"),
        ({"quantization_config": {"load_in_4bit": True}}, "bitsandbytes"),
        ({"quantization_config": {"producer": {"name": "modelopt"}, "quantization": {}}}, "modelopt"),
        ({"text_config": {"quantization_config": {"quant_method": "gptq"}}}, "gptq"),
    ],
)
def test_the_quantization_is_the_one_vllm_would_see(config: dict[str, Any], method: str | None) -> None:
    assert read(config).quantization == method
