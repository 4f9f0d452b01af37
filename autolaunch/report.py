"""What goes into a bug report: what is kept of a run and what is found here, every piece bounded and scrubbed.

I/O, reading only but for `pack`. Owns the pieces and their sizes; no secret may leave through it: what it gives has
passed `redaction.scrub`, and the engine's output was redacted when it was written.
"""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autolaunch import host_report, kept
from autolaunch.diagnosis import to_json
from autolaunch.errors import HostError, WishError
from autolaunch.history import as_json
from autolaunch.logfile import Reading, parts
from autolaunch.memory import Memory
from autolaunch.output import read_log
from autolaunch.past import Sought
from autolaunch.redaction import scrub, secrets_in
from autolaunch.state import attempts_of, log_of

LOG_BYTES = 2 << 20
"""Of the beginning of a log, and again of its end."""

MOST_LOGS = 4
MOST_STARTS = 50


@dataclass(frozen=True, slots=True)
class Piece:
    """A file of the report, and what it is, in words for who sends it."""

    name: str
    text: str
    what: str


def gather(state: Path, run: Path | None, environment: Mapping[str, str]) -> tuple[Piece, ...]:
    """Return the pieces of a report on a run, or on the host alone; nothing in them is secret."""
    hidden = secrets_in((), environment).anywhere
    found = [Piece("host.txt", host_report.describe(environment), "versions, platform, cards, variables")]
    found += [] if run is None else _of_run(state, run)
    return tuple(Piece(one.name, _shown(one.text, hidden), one.what) for one in found)


def _shown(text: str, hidden: Sequence[str]) -> str:
    """Return text without secrets and without the name of the user's own folder."""
    shown, home = scrub(text, hidden), os.path.expanduser("~")  # noqa: PTH111 - Path.home() raises where there is none
    named = len(home) > 1 and home != "~"
    return re.sub(rf"(?<![\w.-]){re.escape(home)}(?![\w-]|\.\w)", "~", shown) if named else shown


def _of_run(state: Path, run: Path) -> Iterator[Piece]:
    about, record = kept.read_about(run), kept.read_record(run)
    if about:
        yield Piece("run.json", json.dumps(about, ensure_ascii=False, indent=2) + "\n", "model, versions, strategy")
    if record:
        text = record.decode("utf-8", "replace")
        yield Piece("record.jsonl", text, "the run's events: settings, failures, steps")
    failed = newest_failed(events(record))
    if failed is not None:
        yield from _diagnosis(run, failed)
    yield from _logs(run, failed)
    model, stands_for = about.get("remembered_as"), about.get("stands_for")
    if isinstance(model, str):
        yield from _starts(state, Sought(model, stands_for if isinstance(stands_for, str) else model))


def events(record: bytes) -> tuple[dict[str, Any], ...]:
    """Return the events of a record's lines; what is no event is left out."""
    found = []
    for line in record.splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            found.append(event)
    return tuple(found)


def newest_failed(told: Sequence[Mapping[str, Any]]) -> int | None:
    """Return the attempt that failed last, by its start or in service; None where none did."""
    attempt = failed = None
    for event in told:
        match event.get("event"):
            case "attempt":
                attempt = event.get("n")
            case "failed":
                failed = event.get("n")
            case "crashed":
                failed = attempt
    return failed if isinstance(failed, int) else None


def _diagnosis(run: Path, attempt: int) -> Iterator[Piece]:
    log = log_of(run, attempt)
    if parts(log):
        verdict = json.dumps(to_json(read_log(Reading(log))), ensure_ascii=False, indent=2)
        yield Piece("diagnosis.json", verdict + "\n", f"what attempt {attempt} died of")


def _logs(run: Path, failed: int | None) -> Iterator[Piece]:
    """Give the beginning and the end of the newest logs, the one of the failed attempt always."""
    there = attempts_of(run)
    chosen = {*there[-MOST_LOGS:]}
    if failed in there and failed not in chosen:
        chosen = {*there[1 - MOST_LOGS :], failed}
    for attempt in sorted(chosen):
        path = log_of(run, attempt)
        head, end = _head(path), _end(path)
        name, what = f"attempt-{attempt}", f"the engine's output in attempt {attempt}"
        if end:
            yield Piece(f"{name}.head.log", head, f"{what}, its beginning")
            yield Piece(f"{name}.tail.log", end, f"{what}, its end")
        else:
            yield Piece(f"{name}.log", head, what)


def _head(path: Path) -> str:
    data = _read(Reading(path), LOG_BYTES)
    if len(data) == LOG_BYTES:  # the line that is cut is the end's
        data = data[: data.rfind(b"\n") + 1] or data
    return data.decode("utf-8", "replace")


def _end(path: Path) -> str:
    """Return the newest lines; "" where the beginning holds everything."""
    end = max((part.end for part in parts(path)), default=0)
    if end <= LOG_BYTES:
        return ""
    data = _read(Reading(path, max(LOG_BYTES, end - LOG_BYTES)), LOG_BYTES)
    return data[data.find(b"\n") + 1 :].decode("utf-8", "replace")


def _read(reading: Reading, most: int) -> bytes:
    """Return the next bytes, at most so many."""
    data = b""
    while len(data) < most and (more := reading.read(most - len(data))):
        data += more
    return data[:most]


def _starts(state: Path, model: Sought) -> Iterator[Piece]:
    troubles: list[str] = []
    entries = Memory(state, troubles.append).entries(model=model, limit=MOST_STARTS)
    lines = [json.dumps(as_json(entry), ensure_ascii=False) for entry in entries]
    lines += [json.dumps({"warning": trouble}) for trouble in troubles]
    if lines:
        yield Piece("history.jsonl", "\n".join(lines) + "\n", f"what is remembered of {model.name}")


def pack(pieces: Sequence[Piece], output: Path, *, folder: str) -> None:
    """Write the pieces into a new compressed archive, for its owner only; never into a file that is there."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        for piece in pieces:
            data = piece.text.encode("utf-8", "backslashreplace")
            entry = tarfile.TarInfo(f"{folder}/{piece.name}")
            entry.size, entry.mtime, entry.mode = len(data), int(time.time()), 0o600
            archive.addfile(entry, io.BytesIO(data))
    try:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        raise WishError(f"{output} is there already", hint="remove it, or name another file with --output") from error
    except OSError as error:
        raise WishError(
            f"the report {output} cannot be written: {error.strerror}", hint="name another file with --output"
        ) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(made.getbuffer())
    except OSError as error:
        output.unlink(missing_ok=True)
        raise HostError(
            f"the report {output} cannot be written: {error.strerror}", hint="name a file on another disk with --output"
        ) from error
