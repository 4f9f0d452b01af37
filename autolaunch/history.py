"""What `autolaunch history` prints of remembered starts: a table, one start in full, or JSON.

Pure: returns text and plain values. Readable without colour, numbers with units; whatever stands in the file, no line
carries a control character to the terminal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone, tzinfo
from typing import Any

from autolaunch import outcome_form
from autolaunch.facts import GIB
from autolaunch.narration import describe, settings_text
from autolaunch.past import Entry, Key, Outcome
from autolaunch.sizes import gib

VERSION = 1

HEAD = ("no", "when", "model", "card", "free GiB", "vLLM", "ended", "context", "took", "settings")
_RIGHT = frozenset({"no", "free GiB", "context", "took"})


def table(entries: Sequence[Entry], *, zone: tzinfo | None = None) -> tuple[str, ...]:
    """Return a line per start below a head, columns aligned; times in `zone` (None: this host's)."""
    rows = [HEAD, *(_row(entry, zone) for entry in entries)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    return tuple(_line(row, widths) for row in rows)


def _row(entry: Entry, zone: tzinfo | None) -> tuple[str, ...]:
    key, outcome = entry.key, entry.outcome
    free = "" if outcome.free_bytes is None else f"{outcome.free_bytes / GIB:.2f}"
    context = outcome.effective.max_model_len
    cells = (
        str(entry.number),
        _when(outcome.at, zone, "%Y-%m-%d %H:%M"),
        key.shown,
        _card(key),
        free,
        outcome.engine_version or "",
        _ended(outcome),
        "" if context is None else str(context),
        f"{outcome.seconds:.0f} s",
        settings_text(outcome.settings, frozenset()),
    )
    return tuple(map(_plain, cells))


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = (
        cell.rjust(width) if name in _RIGHT else cell.ljust(width)
        for name, cell, width in zip(HEAD, row, widths, strict=True)
    )
    return "  ".join(cells).rstrip()


def _ended(outcome: Outcome) -> str:
    if outcome.failure is None:
        return "ready"
    return f"{outcome.failure.kind} in service" if outcome.in_service else str(outcome.failure.kind)


def _card(key: Key) -> str:
    card = key.card or "unknown"
    return card if key.cards == 1 else f"{key.cards} x {card}"


def _when(at: float, zone: tzinfo | None, form: str) -> str:
    try:
        return datetime.fromtimestamp(at, timezone.utc).astimezone(zone).strftime(form)
    except (ValueError, OverflowError, OSError):
        return "unknown"


def _plain(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def detail(entry: Entry, *, zone: tzinfo | None = None) -> tuple[str, ...]:
    """Return everything that is remembered of one start, line by line."""
    key, outcome = entry.key, entry.outcome
    rows = [
        ("model", _model(key)),
        ("card", f"{_card(key)}: {gib(outcome.free_bytes)} free of {gib(outcome.total_bytes)} before the start"),
        ("engine", f"vLLM {outcome.engine_version}" if outcome.engine_version else "of unknown version"),
        ("settings", settings_text(outcome.settings, frozenset())),
        ("ended", f"{_ended(outcome)} after {outcome.seconds:.1f} s"),
        *_failure(outcome),
        ("measured", _measured(outcome)),
        ("phases", ", ".join(f"{phase} {seconds:.1f} s" for phase, seconds in outcome.phases.items())),
        ("wish", outcome.wish),
    ]
    shown = (f"  {name:<10}{_plain(text)}" for name, text in rows if text)
    return f"start {entry.number}, {_when(outcome.at, zone, '%Y-%m-%d %H:%M:%S %z')}", *shown


def _model(key: Key) -> str:
    stands_for = "" if key.shown == key.model else f", which is {key.model}"
    return key.shown + stands_for + (f", revision {key.revision}" if key.revision else "")


def _failure(outcome: Outcome) -> list[tuple[str, str]]:
    failure = outcome.failure
    if failure is None:
        return []
    said, line = describe(failure), failure.line[:300]
    return [("why", said), ("line", "" if said == failure.line else line)]


def _measured(outcome: Outcome) -> str:
    """Return the engine's own figures in the order of their fields, with the units of their names."""
    parts = []
    for name, value in outcome_form.as_json(outcome)["effective"].items():
        figure = f"{value:.2f} GiB" if name.endswith("_gib") else str(value)
        parts.append(f"{name.removesuffix('_gib').replace('_', ' ')} {figure}")
    return ", ".join(parts)


def as_json(entry: Entry) -> dict[str, Any]:
    """Return one start as a JSON object: `v`, `number`, `time` (RFC 3339), `key`, and the outcome's own fields."""
    time = _when(entry.outcome.at, timezone.utc, "%Y-%m-%dT%H:%M:%SZ")
    return {
        "v": VERSION,
        "number": entry.number,
        "time": None if time == "unknown" else time,
        "key": asdict(entry.key),
        **outcome_form.as_json(entry.outcome),
    }
