"""For tests: which processes of a scenario still live, what was started, what happened; reads `ledger`."""

from __future__ import annotations

import json
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

from .ledger import start_ticks, stat_fields


def roles(folder: str | os.PathLike[str]) -> dict[int, str]:
    """Give every process that was ever registered, with its role (leader, core, worker, double_fork, ...)."""
    return {pid: str(entry["role"]) for pid, entry in _entries(folder).items()}


def alive(folder: str | os.PathLike[str]) -> list[int]:
    """Give the pids that still run: not zombies, and not another process that got the same number since."""
    return sorted(pid for pid, entry in _entries(folder).items() if _runs(pid, int(entry["ticks"])))


def starts(folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Give the lines of starts.jsonl."""
    return _lines(Path(folder) / "starts.jsonl")


def events(folder: str | os.PathLike[str], event: str = "") -> list[dict[str, Any]]:
    """Give the lines of events.jsonl, all or those of one event."""
    return [line for line in _lines(Path(folder) / "events.jsonl") if event in ("", line["event"])]


def reap(folder: str | os.PathLike[str]) -> list[int]:
    """Kill what is left, for a test's teardown; give the pids that had to be killed."""
    left = alive(folder)
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return left


def _entries(folder: str | os.PathLike[str]) -> dict[int, dict[str, Any]]:
    pids = Path(folder) / "pids"
    files = [file for file in pids.iterdir() if file.name.isdigit()] if pids.is_dir() else []
    return {int(file.name): json.loads(file.read_text(encoding="utf-8")) for file in files}


def _runs(pid: int, ticks: int) -> bool:
    try:
        return stat_fields(pid)[0] not in "ZX" and start_ticks(pid) == ticks
    except OSError:
        return False


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")  # the last may be being written
    return [json.loads(line) for line in whole.splitlines()]
