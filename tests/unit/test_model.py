"""What a model's own files say before it is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from autolaunch.catalog import Entry, find_model
from autolaunch.facts import Basis, Model, Variant, Weights
from autolaunch.model import config_file, look_at


def folder(path: Path, config: Any) -> Entry:
    """Return the entry of a folder with this configuration."""
    (path / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return Entry("m", str(path), max_model_len=77, variants=(Variant("org/awq", "awq"),))


@pytest.mark.parametrize(
    ("config", "length", "quantization"),
    [
        ({}, 77, None),
        ("not json", 77, None),
        ("[]", 77, None),
        ({"max_position_embeddings": 32768}, 32768, None),
        ({"seq_length": 131072}, 131072, None),
        ({"max_position_embeddings": 131072, "seq_length": 8192}, 8192, None),
        ({"max_position_embeddings": True}, 77, None),
        ({"max_position_embeddings": -1}, 77, None),
        ({"text_config": {"max_position_embeddings": 4096}}, 4096, None),
        ({"max_position_embeddings": 32768, "rope_scaling": {"type": "yarn", "factor": 4.0}}, 77, None),
        ({"max_position_embeddings": 131072, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, 131072, None),
        ({"max_position_embeddings": 32768, "rope_parameters": {"rope_theta": 1e4}}, 32768, None),
        ({"max_position_embeddings": 32768, "rope_scaling": None}, 32768, None),
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, 77, "awq"),
        ({"quantization_config": {}}, 77, "unknown"),
        ({"compression_config": {"quant_method": "compressed-tensors"}}, 77, "compressed-tensors"),
    ],
)
def test_a_configuration_gives_length_and_quantization(
    tmp_path: Path, config: Any, length: int, quantization: str | None
) -> None:
    assert look_at(folder(tmp_path, config)) == Model(length, quantization, (Variant("org/awq", "awq"),), "m")


def test_a_quantization_may_stand_in_a_file_of_its_own(tmp_path: Path) -> None:
    entry = folder(tmp_path, {})
    (tmp_path / "hf_quant_config.json").write_text("{}")
    assert look_at(entry).quantization == "modelopt"


def test_a_gguf_file_is_quantized_already(tmp_path: Path) -> None:
    assert look_at(Entry("m", str(tmp_path / "m.gguf"))) == Model(None, "gguf", name="m")


def test_a_model_in_the_hubs_cache_is_read_without_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    cache = tmp_path / "models--org--m"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text("abc\n")
    assert config_file("org/m") is None
    snapshot = cache / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text('{"max_position_embeddings": 2048}')
    assert config_file("org/m") == snapshot / "config.json"
    assert look_at(Entry("m", "org/m")) == Model(2048, name="m")


def test_a_model_that_is_nowhere_is_known_by_its_entry_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    entry = find_model("glm-4-9b")
    assert look_at(entry) == Model(131072, None, (), "glm-4-9b", "", entry.shape, entry.weights)
    assert entry.weights == Weights(18_799_902_720, 16_315_842_560, 0, Basis.EXACT, "catalogue")
