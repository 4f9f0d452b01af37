"""What a run leaves in its folder beside the engine's output: what it was, and its record.

I/O. Owns `run.json` and `record.jsonl`, the latter in the form of `--record`, bounded. What cannot be written is said
once and ends nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from autolaunch import __version__, record
from autolaunch.logfile import Bounds, LogFile, Reading
from autolaunch.past import Key
from autolaunch.recorder import now, record_line
from autolaunch.status import Status

ABOUT = "run.json"
RECORD = "record.jsonl"
BOUNDS = Bounds(head_bytes=1 << 20, tail_bytes=1 << 20)
"""Some thousand events: the first climb, and the newest of what came after it."""

MOST_BYTES = 1 << 16
VERSION = 1


class KeptRecord:
    """The record of a run in its own folder."""

    def __init__(self, folder: Path, about: Mapping[str, Any], warn: Callable[[str], None]) -> None:
        self._run = folder.name
        self._warn = warn
        self._file: LogFile | None = None
        try:
            self._file = LogFile(folder / RECORD, BOUNDS)
            _write_about(folder / ABOUT, about)
        except OSError as error:
            self._give_up(error)

    def write(self, event: record.Event) -> None:
        """Append an event's line."""
        if self._file is not None:
            try:
                self._file.write(record_line(event, self._run))
            except OSError as error:
                self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self._warn(f"the run's record cannot be kept in its folder: {error.strerror or error}")
        if self._file is not None:
            self._file.close()
        self._file = None


def about(status: Status, key: Key, card: str) -> dict[str, Any]:
    """Return what is to be known of a run when it is over: no secret is among it."""
    return {
        "v": VERSION,
        "time": now(),
        "run": status.run,
        "autolaunch": __version__,
        "engine_version": status.engine_version,
        "model": status.model,
        "remembered_as": key.shown,
        "stands_for": key.model,
        "strategy": status.strategy,
        "max_attempts": status.max_attempts,
        "card": card,
        "url": status.url,
    }


def _write_about(file: Path, fields: Mapping[str, Any]) -> None:
    text = json.dumps(fields, ensure_ascii=False, indent=2).encode("utf-8", "backslashreplace") + b"\n"
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb", buffering=0) as out:
        out.write(text)


def read_about(folder: Path) -> dict[str, Any]:
    """Return what a run's folder says of it; empty where it says nothing that can be read."""
    try:
        with (folder / ABOUT).open("rb") as file:
            fields = json.loads(file.read(MOST_BYTES))
    except (OSError, ValueError):
        return {}
    return fields if isinstance(fields, dict) else {}


def read_record(folder: Path) -> bytes:
    """Return the lines of a run's record that are kept, with a line where some are not; empty where there are none."""
    reading, most = Reading(folder / RECORD), BOUNDS.head_bytes + (BOUNDS.tails + 1) * BOUNDS.tail_bytes
    found = b""
    while len(found) < most and (data := reading.read()):
        found += data
    return found
