"""The engine arguments that the ladder may change, and how they are written on vLLM's command line.

Owns the field names (vLLM's spelling), their flags and their JSON form. Must not decide which value is
right: that is `ladder`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from typing import Any

AUTO = -1
"""`max_model_len` fitted by the engine itself; vLLM spells it `auto` or -1 (since about 0.12)."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One attempt's values; None leaves the engine's own default.

    `gpu_memory_utilization` is a share of the card's (on a CPU engine: the NUMA node's) total memory,
    `max_model_len` and `max_num_batched_tokens` count tokens, `max_num_seqs` sequences,
    `cudagraph_capture_sizes` batch sizes, `tensor_parallel_size` cards. `model` replaces the wished model by a
    pre-quantized variant.
    """

    gpu_memory_utilization: float | None = None
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    cudagraph_capture_sizes: tuple[int, ...] | None = None
    enforce_eager: bool | None = None
    kv_cache_dtype: str | None = None
    tensor_parallel_size: int | None = None
    quantization: str | None = None
    model: str | None = None

    def changed(self, **values: Any) -> Settings:
        """Return a copy with these values."""
        return replace(self, **values)

    def as_json(self) -> dict[str, Any]:
        """Return the values that are set, as a record shows them (`auto` as vLLM spells it)."""
        shown: dict[str, Any] = {}
        for name in FIELD_NAMES:
            value = getattr(self, name)
            if value is not None:
                shown[name] = show(name, value)
        return shown


FIELD_NAMES: tuple[str, ...] = tuple(f.name for f in fields(Settings))


def show(name: str, value: Any) -> Any:
    """Return a value as a record or a message shows it."""
    if name == "max_model_len" and value == AUTO:
        return "auto"
    return list(value) if isinstance(value, tuple) else value


@dataclass(frozen=True, slots=True)
class Change:
    """One field of one step: what it was, what it becomes."""

    name: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.name} {_text(self.name, self.before)} -> {_text(self.name, self.after)}"


def _text(name: str, value: Any) -> str:
    if value is None:
        return "(the wished one)" if name == "model" else "(engine default)"
    shown = show(name, value)
    return ",".join(map(str, shown)) if isinstance(shown, list) else str(shown)


def changes(before: Settings, after: Settings) -> tuple[Change, ...]:
    """Return the fields in which two settings differ, in the order of the fields."""
    return tuple(
        Change(name, getattr(before, name), getattr(after, name))
        for name in FIELD_NAMES
        if getattr(before, name) != getattr(after, name)
    )


def flag(name: str) -> str:
    """Return vLLM's option for a field, as the user would type it."""
    if name == "cudagraph_capture_sizes":
        return "--compilation-config"
    return "--" + name.replace("_", "-")


def render(settings: Settings, *, pins: frozenset[str]) -> tuple[str, ...]:
    """Return the engine options for every field that is set and not pinned by the user.

    Capture sizes go through `--compilation-config`, which every V1 release reads; `model` is not an
    option here because its place depends on the engine command. Pure; no order of the user's is touched.
    """
    argv: list[str] = []
    for name in FIELD_NAMES:
        value = getattr(settings, name)
        if value is None or name in pins or name == "model":
            continue
        if name == "enforce_eager":
            argv += ["--enforce-eager"] if value else []
        elif name == "cudagraph_capture_sizes":
            argv += [flag(name), json.dumps({name: list(value)}, separators=(",", ":"))]
        else:
            argv += [flag(name), str(show(name, value))]
    return tuple(argv)
