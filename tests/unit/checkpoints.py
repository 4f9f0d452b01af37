"""Checkpoints for tests: headers that say what is needed, data that takes no room on the disk."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

WIDTHS = {"F32": 4, "BF16": 2, "F16": 2, "I32": 4, "U8": 1, "F8_E4M3": 1}


def header(tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> tuple[dict[str, Any], int]:
    """Return the table of a safetensors file with these tensors, and the bytes of its data."""
    table: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, sizes) in tensors.items():
        begin, end = end, end + math.prod(sizes) * WIDTHS[dtype]
        table[name] = {"dtype": dtype, "shape": list(sizes), "data_offsets": [begin, end]}
    return table, end


def write(file: Path, tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
    """Write a safetensors file with these tensors; its data is a hole."""
    table, data = header(tensors)
    write_raw(file, json.dumps(table).encode(), data)


def write_raw(file: Path, text: bytes, data: int = 0, *, length: int | None = None) -> None:
    """Write a file with this header, whatever it is, and claim a length for it."""
    with file.open("wb") as opened:
        opened.write((len(text) if length is None else length).to_bytes(8, "little") + text)
        opened.truncate(8 + len(text) + data)


def glm_4_9b() -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return the tensors of zai-org/glm-4-9b-chat-hf."""
    hidden, width, queries, keys = 4096, 13696, 4096, 256
    found: dict[str, tuple[str, tuple[int, ...]]] = {
        "model.embed_tokens.weight": ("BF16", (151552, hidden)),
        "model.norm.weight": ("BF16", (hidden,)),
        "lm_head.weight": ("BF16", (151552, hidden)),
    }
    for layer in range(40):
        sizes = {
            "self_attn.q_proj.weight": (queries, hidden),
            "self_attn.q_proj.bias": (queries,),
            "self_attn.k_proj.weight": (keys, hidden),
            "self_attn.k_proj.bias": (keys,),
            "self_attn.v_proj.weight": (keys, hidden),
            "self_attn.v_proj.bias": (keys,),
            "self_attn.o_proj.weight": (hidden, queries),
            "mlp.gate_up_proj.weight": (2 * width, hidden),
            "mlp.down_proj.weight": (hidden, width),
            "input_layernorm.weight": (hidden,),
            "post_attention_layernorm.weight": (hidden,),
        }
        found |= {f"model.layers.{layer}.{name}": ("BF16", size) for name, size in sizes.items()}
    return found
