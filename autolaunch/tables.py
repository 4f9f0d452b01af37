"""The tables that ship inside the package, and the reader of TOML that every one of them needs.

Owns the choice of that reader (tomllib came with Python 3.11) and where the tables lie, nothing of what is in them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["shipped_table", "tomllib"]


def shipped_table(name: str) -> dict[str, Any]:
    """Return the table of a file such as cards.toml; each owner keeps what it makes of it."""
    return tomllib.loads(Path(__file__).with_name(name).read_text(encoding="utf-8"))
