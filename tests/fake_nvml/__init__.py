"""A fake `pynvml` for tests and benches; see `pynvml`, which a PYTHONPATH with this folder puts before the real one.

environment = {**os.environ, **fake_nvml.environment(tmp_path / "cards.json", {"total": 24 << 30})}
subprocess.run([sys.executable, "-m", "autolaunch", "doctor"], env=environment)
fake_nvml.write(tmp_path / "cards.json", {"total": 24 << 30, "free": 1 << 30})        # a neighbour has come

fake_nvml.believe(monkeypatch, tmp_path, {"total": 24 << 30})                         # in the test's own process
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.fake_nvml import pynvml

if TYPE_CHECKING:
    import pytest

FOLDER = str(Path(__file__).parent)


def write(file: Path, *cards: dict[str, Any], **driver: Any) -> None:
    """Put a new file in the place of the old one: `cards` and the other keys as `pynvml` documents them."""
    new = file.with_suffix(".new")
    new.write_text(json.dumps({**driver, "cards": list(cards)}), encoding="utf-8")
    new.replace(file)


def environment(file: Path, *cards: dict[str, Any], **driver: Any) -> dict[str, str]:
    """Write the file and return the variables that make another process believe in it."""
    write(file, *cards, **driver)
    behind = os.environ.get("PYTHONPATH")
    return {"FAKE_NVML": str(file), "PYTHONPATH": os.pathsep.join([FOLDER, *([behind] if behind else [])])}


def believe(monkeypatch: pytest.MonkeyPatch, folder: Path, *cards: dict[str, Any], **driver: Any) -> Path:
    """Make this process believe in the cards, and return the file for `write`."""
    file = folder / "cards.json"
    write(file, *cards, **driver)
    monkeypatch.setenv("FAKE_NVML", str(file))
    monkeypatch.setitem(sys.modules, "pynvml", pynvml)
    pynvml.forget()
    return file
