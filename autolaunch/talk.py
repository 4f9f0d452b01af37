"""How a run speaks: record lines to a file, its story to stderr for people, or JSON for journals.

I/O over structlog. What is said is `narration`'s and `record`'s.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TextIO

import click

from autolaunch import record
from autolaunch.errors import HostError
from autolaunch.narration import Scene, narrate

STYLES: dict[str, dict[str, Any]] = {
    "good": {"fg": "green", "bold": True},
    "bad": {"fg": "red", "bold": True},
    "step": {"fg": "yellow"},
    "dim": {"dim": True},
    "": {},
}


def now() -> str:
    """Return the time as RFC 3339 in UTC, to the millisecond."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class RecordFile:
    """The file behind `--record`: one JSON line per event, written at once; a full disk is said once."""

    def __init__(self, path: Path, run: str) -> None:
        self._run = run
        self._path = path
        self._broken = False
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise HostError(
                f"the record file {path} cannot be opened: {error.strerror}",
                hint="choose another file for --record",
            ) from error

    def write(self, event: record.Event) -> None:
        """Append an event's line in one write, so that lines of several runs never mix."""
        line = json.dumps(record.as_json(event, time=now(), run=self._run), ensure_ascii=False, allow_nan=False)
        try:
            os.write(self._descriptor, line.encode() + b"\n")
        except OSError as error:
            if not self._broken:
                click.echo(f"warning: nothing more can be written to {self._path}: {error.strerror}", err=True)
            self._broken = True


class Talk:
    """Tells every event to the record and to stderr."""

    def __init__(self, scene: Scene, records: Sequence[RecordFile], *, run: str, log_format: str) -> None:
        self.scene = scene
        self.command: Callable[[record.CameUp], Sequence[str]] = lambda _: ()
        self._records = records
        self._log = _json_logger(run) if log_format == "json" else None

    def tell(self, event: record.Event) -> None:
        """Record and show an event."""
        for file in self._records:
            file.write(event)
        if self._log is not None:
            level = "error" if event.event in ("failed", "exhausted", "crashed") else "info"
            getattr(self._log, level)(event.event, **event.fields())
            return
        command = self.command(event) if isinstance(event, record.CameUp) else ()
        for style, text in narrate(event, self.scene, command):
            say(click.style(text, **STYLES[style]))

    def warn(self, text: str) -> None:
        """Show something that does not stop the run."""
        if self._log is not None:
            self._log.warning(text)
        else:
            say(click.style(f"  warning: {text}", fg="yellow"))


def say(text: str, stream: TextIO | None = None) -> None:
    """Write a line to stderr; a closed terminal must not end the run."""
    try:
        click.echo(text, file=stream, err=stream is None)
    except OSError:
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115 - lives as long as the process


def _json_logger(run: str) -> Any:
    import structlog  # noqa: PLC0415 - a tenth of a second that a terminal need not wait for

    return structlog.wrap_logger(
        structlog.PrintLogger(sys.stderr),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ],
    ).bind(run=run)
