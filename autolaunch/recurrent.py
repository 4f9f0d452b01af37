"""The fixed state that a Mamba, linear-attention or convolution layer keeps per sequence, in bytes.

Pure. Owns the shapes of the states (vllm/model_executor/layers/mamba/mamba_utils.py, 0.32) and the spellings of
their dimensions. Which layers keep one is `caches`'.
"""

from __future__ import annotations

from autolaunch.claims import Config, Doubt, count, must, table

_FLOAT32 = frozenset(("nemotron_h", "nemotron_h_text"))
"""Models whose recurrent state vLLM keeps in float32 unless the configuration says otherwise."""


def state_heads(config: Config) -> int:
    """Return by how many heads tensor parallelism can share a state out."""
    if "linear_num_value_heads" in config:
        return must(config, "linear_num_value_heads")
    if linear := table(config, "linear_attn_config"):
        return must(linear, "num_heads")
    found = count(config, "mamba_num_heads", "mamba_n_heads", "n_mamba_heads")
    if found is not None:
        return found
    if _is_mamba_2(config):
        return must(config, "num_heads")
    return _inner(config) if _is_mamba(config) else must(config, "num_attention_heads", "hidden_size")


def state_bytes(config: Config) -> int:
    """Return the bytes of one layer's state for one sequence, over all ranks; raise `Doubt` where it is not said."""
    if "linear_num_value_heads" in config:
        return _gated_delta(config)
    if linear := table(config, "linear_attn_config"):
        return _kimi_delta(linear)
    if "conv_L_cache" in config:  # LFM2: a short convolution and nothing else
        return 2 * (count(config, "conv_dim") or must(config, "hidden_size")) * (must(config, "conv_L_cache") - 1)
    if "attn_type_list" in config:  # MiniMax-Text-01: keys times values of every head
        heads = must(config, "num_attention_heads")
        return 2 * heads * must(config, "head_dim") ** 2
    if count(config, "mamba_num_heads", "mamba_n_heads", "n_mamba_heads") is not None or _is_mamba_2(config):
        return _mamba_2(config)
    if _is_mamba(config):
        return _mamba_1(config)
    raise Doubt("the size of its layers' state is not said")


def _gated_delta(config: Config) -> int:
    """Qwen3-Next and Qwen3.5: a convolution over keys, queries and values, and a matrix per value head."""
    value_heads, value_dim = must(config, "linear_num_value_heads"), must(config, "linear_value_head_dim")
    key_heads, key_dim = must(config, "linear_num_key_heads"), must(config, "linear_key_head_dim")
    convolved = 2 * key_heads * key_dim + value_heads * value_dim
    kept = convolved * (must(config, "linear_conv_kernel_dim") - 1) * 2
    return kept + value_heads * value_dim * key_dim * _precision(config)


def _kimi_delta(linear: Config) -> int:
    heads, dim = must(linear, "num_heads"), must(linear, "head_dim")
    return 3 * heads * dim * (must(linear, "short_conv_kernel_size") - 1) * 2 + heads * dim * dim * 4


def _mamba_1(config: Config) -> int:
    inner = _inner(config)
    kept = inner * (must(config, "conv_kernel", "mamba_d_conv") - 1) * 2
    return kept + inner * must(config, "state_size", "mamba_d_state", "ssm_state_size") * _precision(config)


def _mamba_2(config: Config) -> int:
    heads = must(config, "mamba_num_heads", "mamba_n_heads", "n_mamba_heads", "num_heads")
    dim = must(config, "mamba_head_dim", "mamba_d_head", "mamba_headdim", "head_dim")
    size = must(config, "ssm_state_size", "mamba_d_state", "state_size")
    groups = count(config, "n_groups", "mamba_n_groups", "mamba_ngroups") or 1
    convolved = heads * dim + 2 * groups * size
    kept = convolved * (must(config, "conv_kernel", "mamba_d_conv") - 1) * 2
    return kept + heads * dim * size * _precision(config)


def _inner(config: Config) -> int:
    given = count(config, "intermediate_size") if _is_pure(config) else None  # elsewhere it is an MLP's
    return given or must(config, "hidden_size") * (count(config, "mamba_expand", "expand", most=64) or 2)


def _is_pure(config: Config) -> bool:
    return config.get("model_type") in ("mamba", "falcon_mamba", "mamba2")


def _is_mamba(config: Config) -> bool:
    return _is_pure(config) or "mamba_d_state" in config


def _is_mamba_2(config: Config) -> bool:
    return config.get("model_type") == "mamba2"


def _precision(config: Config) -> int:
    """Return the bytes of one number of the recurrent state: the model's own precision unless float32 is asked for."""
    for name in ("mamba_ssm_cache_dtype", "mamba_ssm_dtype"):
        if isinstance(config.get(name), str):
            return 4 if config[name] == "float32" else 2
    return 4 if config.get("model_type") in _FLOAT32 else 2
