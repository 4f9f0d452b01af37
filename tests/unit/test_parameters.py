"""Parameters counted from dimensions are those that were published, to the unit."""

from __future__ import annotations

from typing import Any

import pytest

from autolaunch.configuration import read
from autolaunch.facts import Basis

GLM_4 = {"hidden_size": 4096, "intermediate_size": 13696, "num_hidden_layers": 40, "num_attention_heads": 32}
GLM_4 |= {"num_key_value_heads": 2, "head_dim": 128, "vocab_size": 151552}
GLM_4_5 = {"hidden_size": 5120, "intermediate_size": 12288, "num_hidden_layers": 92, "num_attention_heads": 96}
GLM_4_5 |= {"num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151552, "first_k_dense_replace": 3}
GLM_4_5 |= {"n_routed_experts": 160, "n_shared_experts": 1, "num_experts_per_tok": 8, "moe_intermediate_size": 1536}
FLASH = {"hidden_size": 2048, "intermediate_size": 10240, "num_hidden_layers": 47, "num_attention_heads": 20}
FLASH |= {"vocab_size": 154880, "kv_lora_rank": 512, "q_lora_rank": 768, "qk_nope_head_dim": 192, "v_head_dim": 256}
FLASH |= {"qk_rope_head_dim": 64, "n_routed_experts": 64, "n_shared_experts": 1, "first_k_dense_replace": 1}
FLASH |= {"num_experts_per_tok": 4, "moe_intermediate_size": 1536}
LITE = {"hidden_size": 2048, "intermediate_size": 10944, "num_hidden_layers": 27, "num_attention_heads": 16}
LITE |= {"vocab_size": 102400, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "v_head_dim": 128}
LITE |= {"qk_rope_head_dim": 64, "n_routed_experts": 64, "n_shared_experts": 2, "first_k_dense_replace": 1}
LITE |= {"num_experts_per_tok": 6, "moe_intermediate_size": 1408}
NEXT = {"hidden_size": 2048, "intermediate_size": 5120, "num_hidden_layers": 48, "num_attention_heads": 16}
NEXT |= {"num_key_value_heads": 2, "head_dim": 256, "vocab_size": 151936, "full_attention_interval": 4}
NEXT |= {"linear_num_key_heads": 16, "linear_key_head_dim": 128, "linear_num_value_heads": 32}
NEXT |= {"linear_value_head_dim": 128, "linear_conv_kernel_dim": 4, "num_experts": 512, "num_experts_per_tok": 10}
NEXT |= {"moe_intermediate_size": 512, "shared_expert_intermediate_size": 512}


def dense(*sizes: int, **more: Any) -> dict[str, Any]:
    """Return a configuration with these layers, hidden and MLP width, heads, KV heads and vocabulary."""
    names = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
    return dict(zip((*names, "vocab_size"), sizes, strict=True)) | more


@pytest.mark.parametrize(
    ("model_type", "config", "parameters"),
    [
        ("glm", {**GLM_4, "attention_bias": True}, 9_399_951_360),
        ("glm4", {**GLM_4, "attention_bias": True}, 9_400_279_040),
        ("chatglm", {**GLM_4, "add_qkv_bias": True}, 9_399_951_360),
        ("chatglm", {**GLM_4, "add_qkv_bias": True, "num_key_value_heads": 4}, 9_483_857_920),
        ("glm4", dense(61, 6144, 23040, 48, 2, 151552), 32_566_081_536),
        ("glm4_moe", {**GLM_4_5, "attention_bias": True, "use_qk_norm": True, "topk_method": "noaux_tc"},
         352_797_829_024),
        ("glm4_moe_lite", {**FLASH, "topk_method": "noaux_tc"}, 29_943_393_920),
        ("deepseek_v2", LITE, 15_706_484_224),
        ("qwen2", dense(24, 896, 4864, 14, 2, 151936, tie_word_embeddings=True), 494_032_768),
        ("qwen2", dense(28, 3584, 18944, 28, 4, 152064), 7_615_616_512),
        ("qwen2", dense(80, 8192, 29568, 64, 8, 152064), 72_706_203_648),
        ("qwen3", dense(36, 2560, 9728, 32, 8, 151936, head_dim=128, tie_word_embeddings=True), 4_022_468_096),
        ("qwen3", dense(64, 5120, 25600, 64, 8, 151936, head_dim=128), 32_762_123_264),
        ("qwen3_moe", dense(48, 2048, 6144, 32, 4, 151936, head_dim=128, num_experts=128, num_experts_per_tok=8,
                            moe_intermediate_size=768), 30_532_122_624),
        ("qwen3_next", NEXT, 81_324_862_720 - 1_650_471_424),
        ("llama", dense(32, 4096, 14336, 32, 8, 128256), 8_030_261_248),
        ("llama", dense(80, 8192, 28672, 64, 8, 128256), 70_553_706_496),
        ("mistral", dense(32, 4096, 14336, 32, 8, 32768), 7_248_023_552),
        ("mistral", dense(40, 5120, 32768, 32, 8, 131072, head_dim=128), 23_572_403_200),
        ("gemma2", dense(42, 3584, 14336, 16, 8, 256000, head_dim=256), 9_241_705_984),
        ("phi3", dense(40, 5120, 17920, 40, 10, 100352), 14_659_507_200),
    ],
)  # fmt: skip
def test_parameters_are_the_published_ones(model_type: str, config: dict[str, Any], parameters: int) -> None:
    found = read({"model_type": model_type, **config}).weights
    assert found is not None
    assert found.loaded_bytes == 2 * parameters
    assert found.basis is Basis.ESTIMATED


def test_of_a_mixture_most_are_experts() -> None:
    config = dense(48, 2048, 6144, 32, 4, 151936, head_dim=128, num_experts=128, moe_intermediate_size=768)
    found = read({"model_type": "qwen3_moe", **config}).weights
    experts = 2 * 48 * 128 * 3 * 2048 * 768
    attention = 2 * 48 * (2 * 4096 * 2048 + 2 * 512 * 2048)
    assert found is not None
    assert (found.expert_bytes, found.linear_bytes) == (experts, experts + attention)


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "strange"},
        {"model_type": "glm", "vision_config": {"depth": 24}},
        {"model_type": "glm", "quantization_config": {"quant_method": "awq"}},
        {"model_type": "deepseek_v2", "kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128},
        {},
    ],
)
def test_what_is_not_known_is_not_made_up(config: dict[str, Any]) -> None:
    found = read({**GLM_4, **config})
    assert found.shape is not None
    assert found.weights is None
