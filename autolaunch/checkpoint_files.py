"""What a model's folder says in its own small files: its configuration's keys and its chat template.

I/O. Reads and judges nothing: a file that is not there, is too large or is broken says nothing here, and `model` says
why.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MOST_BYTES = 16 << 20
"""More than any of these files has; a tokenizer_config.json lists thousands of added tokens at most."""


def configuration_of(folder: Path) -> Mapping[str, Any]:
    """Return the table of a folder's config.json, an empty one where it has none that can be read."""
    return _table(folder / "config.json")


def template_of(folder: Path) -> str:
    """Return a folder's own chat template, "" where it has none that can be read; of several the one named default."""
    with contextlib.suppress(OSError, ValueError):
        return _text(folder / "chat_template.jinja")
    found = _table(folder / "tokenizer_config.json").get("chat_template")
    if isinstance(found, list):
        several = {one.get("name"): one.get("template") for one in found if isinstance(one, dict)}
        found = several.get("default") or next(iter(several.values()), "")
    return found if isinstance(found, str) else ""


def _table(file: Path) -> Mapping[str, Any]:
    with contextlib.suppress(OSError, ValueError, RecursionError):
        table = json.loads(_text(file))
        return table if isinstance(table, dict) else {}
    return {}


def _text(file: Path) -> str:
    with file.open("rb") as opened:
        return opened.read(MOST_BYTES).decode("utf-8")
