"""What a model's own files say before it is loaded: its longest context and how its weights are stored.

Reads config.json of a folder or of the hub's cache; never the network, never torch.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from autolaunch.catalog import Entry
from autolaunch.facts import Model

_LENGTH_KEYS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "model_max_length",
    "max_target_positions",
    "max_sequence_length",
    "max_seq_length",
    "seq_len",
)
"""Where configurations keep the longest context; vLLM takes the least of those that are there."""

_UNSCALED = ("default", "llama3", "longrope", "su", "mrope")
"""Kinds of rope scaling whose factor vLLM does not multiply into the longest context."""


def config_file(model: str) -> Path | None:
    """Return the config.json of a folder, or of a hub id in the local cache; None where there is none."""
    folder = Path(model)
    if folder.is_dir():
        file = folder / "config.json"
        return file if file.is_file() else None
    home = Path(
        os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface"
    )
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub") / ("models--" + model.replace("/", "--"))
    try:
        revision = (cache / "refs" / "main").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    file = cache / "snapshots" / revision / "config.json"
    return file if file.is_file() else None


def look_at(entry: Entry) -> Model:
    """Return what is known of a model; what no file and no catalogue says stays None."""
    if entry.model.endswith(".gguf"):
        return Model(entry.max_model_len, "gguf", entry.variants)
    file = config_file(entry.model)
    config = _read(file) if file else {}
    text = config.get("text_config")
    config = {**config, **text} if isinstance(text, dict) else config
    return Model(_length(config, entry), _quantization(config, file), entry.variants)


def _length(config: dict[str, Any], entry: Entry) -> int | None:
    lengths = [config[key] for key in _LENGTH_KEYS if type(config.get(key)) is int and config[key] > 0]
    scaled = config.get("rope_scaling") or config.get("rope_parameters")
    if isinstance(scaled, dict) and scaled.get("factor", 1) != 1:
        kind = scaled.get("rope_type") or scaled.get("type")
        if kind not in _UNSCALED:
            return entry.max_model_len  # the engine works it out from the scaling; a wrong cap is worse than none
    return min(lengths, default=entry.max_model_len)


def _quantization(config: dict[str, Any], file: Path | None) -> str | None:
    for key in ("quantization_config", "compression_config"):
        table = config.get(key)
        if isinstance(table, dict):
            return str(table.get("quant_method", "unknown"))
    return "modelopt" if file is not None and file.with_name("hf_quant_config.json").is_file() else None


def _read(file: Path) -> dict[str, Any]:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # the engine reads it too and says what is wrong with it
    return config if isinstance(config, dict) else {}
