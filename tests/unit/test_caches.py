"""Which layers keep what: windows, latents and states in all their spellings."""

from __future__ import annotations

from typing import Any

import pytest

from autolaunch.configuration import read
from autolaunch.shape import CacheKind, CacheLayers, Shape

FULL, SLIDING, LATENT, STATE = CacheKind.FULL, CacheKind.SLIDING, CacheKind.LATENT, CacheKind.STATE

PLAIN: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}


def shape(config: dict[str, Any]) -> Shape:
    """Return the dimensions that a configuration gives."""
    found = read(config)
    assert found.shape is not None, found.notes
    return found.shape


def caches(**config: Any) -> tuple[CacheLayers, ...]:
    """Return the caches of a plain model whose configuration says this beside."""
    return shape({**PLAIN, **config}).caches


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"sliding_window": None}, (CacheLayers(FULL, 32, 2048, 8),)),
        ({"sliding_window": 4096}, (CacheLayers(SLIDING, 32, 2048, 8, 4096),)),
        ({"sliding_window": 131072, "use_sliding_window": False}, (CacheLayers(FULL, 32, 2048, 8),)),
        (
            {"sliding_window": 4096, "use_sliding_window": True, "max_window_layers": 28},
            (CacheLayers(FULL, 28, 2048, 8), CacheLayers(SLIDING, 4, 2048, 8, 4096)),
        ),
        (
            {"model_type": "gemma2", "sliding_window": 4096},
            (CacheLayers(FULL, 16, 2048, 8), CacheLayers(SLIDING, 16, 2048, 8, 4096)),
        ),
        (
            {"model_type": "cohere2", "sliding_window": 4096, "sliding_window_pattern": 4},
            (CacheLayers(FULL, 8, 2048, 8), CacheLayers(SLIDING, 24, 2048, 8, 4096)),
        ),
        (
            {"layer_types": ["sliding_attention", "full_attention"] * 16, "sliding_window": 128},
            (CacheLayers(FULL, 16, 2048, 8), CacheLayers(SLIDING, 16, 2048, 8, 128)),
        ),
        (
            {"model_type": "llama4_text", "attention_chunk_size": 8192},
            (CacheLayers(FULL, 8, 2048, 8), CacheLayers(SLIDING, 24, 2048, 8, 8193)),
        ),
        (
            {"model_type": "llama4", "attention_chunk_size": 8192, "no_rope_layers": [1] * 31 + [0]},
            (CacheLayers(FULL, 1, 2048, 8), CacheLayers(SLIDING, 31, 2048, 8, 8193)),
        ),
        (
            {"layer_types": ["full_attention"] * 32, "num_kv_shared_layers": 20},
            (CacheLayers(FULL, 12, 2048, 8),),
        ),
        (
            {
                "layer_types": ["sliding_attention"] * 31 + ["full_attention"],
                "sliding_window": 1024,
                "head_dim": 256,
                "num_key_value_heads": 16,
                "global_head_dim": 512,
                "num_global_key_value_heads": 4,
            },
            (CacheLayers(FULL, 1, 4096, 4), CacheLayers(SLIDING, 31, 8192, 16, 1024)),
        ),
    ],
)
def test_windows_are_spelt_in_many_ways(config: dict[str, Any], expected: tuple[CacheLayers, ...]) -> None:
    assert caches(**config) == expected


MAMBA_2 = {"mamba_num_heads": 64, "mamba_head_dim": 64, "n_groups": 8, "ssm_state_size": 128, "conv_kernel": 4}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (
            {"model_type": "nemotron_h", "hybrid_override_pattern": "ME*E" * 8, **MAMBA_2},
            (CacheLayers(FULL, 8, 2048, 8), CacheLayers(STATE, 8, heads=64, state_bytes=2_134_016)),
        ),
        (
            {"model_type": "nemotron_h", "mamba_ssm_cache_dtype": "bfloat16", "hybrid_override_pattern": "M*--" * 8}
            | MAMBA_2,
            (CacheLayers(FULL, 8, 2048, 8), CacheLayers(STATE, 8, heads=64, state_bytes=1_085_440)),
        ),
        (
            {"model_type": "jamba", "attn_layer_period": 8, "attn_layer_offset": 4, "mamba_d_state": 16}
            | {"mamba_d_conv": 4, "mamba_expand": 2},
            (CacheLayers(FULL, 4, 2048, 8), CacheLayers(STATE, 28, heads=8192, state_bytes=311_296)),
        ),
        (
            {"model_type": "bamba", "attn_layer_indices": [9, 18, 27], "mamba_n_heads": 128, "mamba_d_head": 64}
            | {"mamba_d_state": 128, "mamba_n_groups": 1, "mamba_d_conv": 4},
            (CacheLayers(FULL, 3, 2048, 8), CacheLayers(STATE, 29, heads=128, state_bytes=2_147_840)),
        ),
        (
            {"model_type": "granitemoehybrid", "layer_types": ["mamba"] * 31 + ["attention"], "mamba_n_heads": 48}
            | {"mamba_d_head": 64, "mamba_d_state": 128, "mamba_n_groups": 1, "mamba_d_conv": 4},
            (CacheLayers(FULL, 1, 2048, 8), CacheLayers(STATE, 31, heads=48, state_bytes=806_400)),
        ),
        (
            {"model_type": "falcon_h1", "mamba_n_heads": 24, "mamba_d_head": 64, "mamba_d_state": 256}
            | {"mamba_n_groups": 1, "mamba_d_conv": 4},
            (CacheLayers(FULL, 32, 2048, 8), CacheLayers(STATE, 32, heads=24, state_bytes=798_720)),
        ),
        (
            {"model_type": "lfm2", "layer_types": ["conv"] * 22 + ["full_attention"] * 10, "conv_L_cache": 3},
            (CacheLayers(FULL, 10, 2048, 8), CacheLayers(STATE, 22, heads=32, state_bytes=16_384)),
        ),
        (
            {"model_type": "minimax", "attn_type_list": [0] * 28 + [1] * 4, "head_dim": 128},
            (CacheLayers(FULL, 4, 2048, 8), CacheLayers(STATE, 28, heads=32, state_bytes=1_048_576)),
        ),
        (
            {"model_type": "kimi_linear", "kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128}
            | {"linear_attn_config": {"full_attn_layers": [4, 8, 32], "head_dim": 128, "num_heads": 32}
               | {"short_conv_kernel_size": 4}},
            (CacheLayers(LATENT, 3, 576), CacheLayers(STATE, 29, heads=32, state_bytes=2_170_880)),
        ),
        (
            {"model_type": "deepseek_v32", "kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128}
            | {"index_head_dim": 128},
            (CacheLayers(LATENT, 32, 576), CacheLayers(LATENT, 32, 66)),
        ),
        ({"model_type": "minicpm3", "kv_lora_rank": 256, "head_dim": 96}, (CacheLayers(FULL, 32, 1536, 8),)),
        ({"model_type": "bert"}, ()),
    ],
)  # fmt: skip
def test_states_and_latents_are_spelt_in_many_ways(config: dict[str, Any], expected: tuple[CacheLayers, ...]) -> None:
    assert caches(**config) == expected


def test_a_model_of_states_alone_has_no_heads() -> None:
    config = {"model_type": "mamba", "hidden_size": 2560, "intermediate_size": 5120, "num_hidden_layers": 64}
    expected = Shape(
        "", 2560, 5120, 64, 0, 0, 0, 50280, (CacheLayers(STATE, 64, heads=5120, state_bytes=194_560),),
        tie_word_embeddings=True,
    )  # fmt: skip
    assert shape({**config, "state_size": 16, "conv_kernel": 4, "vocab_size": 50280}) == expected
    assert expected.divides(4)


def test_a_second_mamba_shares_its_heads_out() -> None:
    config = {"model_type": "mamba2", "hidden_size": 4096, "num_hidden_layers": 64, "vocab_size": 32768}
    config |= {"num_heads": 128, "head_dim": 64, "n_groups": 8, "state_size": 128, "conv_kernel": 4}
    assert shape(config).caches == (CacheLayers(STATE, 64, heads=128, state_bytes=2_158_592),)
