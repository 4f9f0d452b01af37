"""What is known of a model before it is loaded: from its own files, else from the catalogue, else from the hub.

I/O. Joins what `configuration`, `weights` and `hub` say of one model and says where nothing was found; never torch.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from autolaunch import configuration
from autolaunch.catalog import Entry
from autolaunch.facts import Model


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
        return Model(entry.max_model_len, "gguf", entry.variants, entry.name)
    file = config_file(entry.model)
    found = configuration.read(_read(file)) if file else configuration.Configuration()
    return Model(
        max_model_len=found.max_model_len or entry.max_model_len,
        quantization=found.quantization or entry.quantization or _beside(file),
        variants=entry.variants,
        name=entry.name,
        shape=found.shape or entry.shape,
        weights=entry.weights,
    )


def _beside(file: Path | None) -> str | None:
    return "modelopt" if file is not None and file.with_name("hf_quant_config.json").is_file() else None


def _read(file: Path) -> dict[str, Any]:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # the engine reads it too and says what is wrong with it
    return config if isinstance(config, dict) else {}
