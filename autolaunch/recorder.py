"""The file behind `--record`: one JSON line per event of a run.

I/O. What a line holds is `record`'s. A full disk or a pipe that nobody empties never ends a run.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Protocol

from autolaunch import record
from autolaunch.errors import HostError
from autolaunch.output import PATIENCE_S, takes


def now() -> str:
    """Return the time as RFC 3339 in UTC, to the millisecond."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def record_line(event: record.Event, run: str) -> bytes:
    """Return an event's line of a record."""
    fields = record.as_json(event, time=now(), run=run)
    return json.dumps(fields, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace") + b"\n"


class Recorder(Protocol):
    """What takes every event of a run."""

    def write(self, event: record.Event) -> None:
        """Take an event; never raises for what cannot be written."""


class RecordFile:
    """The file behind `--record`: one JSON line per event, written at once; a full disk is told once to `warn`."""

    def __init__(self, path: Path, run: str, warn: Callable[[str], None]) -> None:
        self._run = run
        self._path = path
        self._warn = warn
        self._broken = False
        self._rest = b""
        self._patience_s = PATIENCE_S
        self._descriptor = self._open()

    def _open(self) -> int:
        try:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
            return os.open(self._path, flags, 0o600)
        except OSError as error:
            why = "it is a pipe that nobody reads" if error.errno == errno.ENXIO else error.strerror
            raise HostError(
                f"the record file {self._path} cannot be opened: {why}",
                hint="choose another file for --record",
            ) from error

    def reopen(self) -> None:
        """Go on in the file of this name, which somebody may have moved away; `HostError` leaves the old one."""
        descriptor = self._open()
        os.dup2(descriptor, self._descriptor, inheritable=False)
        os.close(descriptor)

    def write(self, event: record.Event) -> None:
        """Append an event's line in one write, so that lines of several runs never mix."""
        line = record_line(event, self._run)
        rest, self._rest = self._rest, b""
        line = rest + line
        written = 0
        try:
            while written < len(line):
                written += self._write(line[written:])
        except OSError as error:
            if written < len(rest):
                self._rest = rest[written:]
            else:
                self._take_back(line[len(rest) :], written - len(rest))
            if not self._broken:
                self._warn(f"the record {self._path} cannot be written: {error.strerror}")
            self._broken = True

    def _write(self, data: bytes) -> int:
        """Write what is taken, waiting a bounded time for the reader of a full pipe; OSError where it takes nothing."""
        try:
            return os.write(self._descriptor, data)
        except BlockingIOError:
            if not takes(self._descriptor, self._patience_s):
                self._patience_s = 0.0  # the engine's supervision must not wait at every event
                raise
            return os.write(self._descriptor, data)

    def _take_back(self, line: bytes, written: int) -> None:
        """Keep every line whole: remove the half that a full disk left, finish later what a full pipe cut."""
        try:
            if written:
                os.ftruncate(self._descriptor, os.fstat(self._descriptor).st_size - written)
        except OSError:  # a pipe
            self._rest = line[written:]
