"""The written form of an outcome: JSON that a later release, or an earlier one, can read or knows that it cannot.

Pure. Owns both directions. What decides is read strictly: a setting or a kind of failure that this release does not
know makes the outcome unreadable, since it would be taken for another. What only informs may be missing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import fields
from functools import lru_cache
from typing import Any, get_args, get_type_hints

from autolaunch.failure import NUMBER_NAMES, Failure, Kind, Phase
from autolaunch.figures import Effective
from autolaunch.past import Outcome
from autolaunch.settings import AUTO, FIELD_NAMES, Settings


def to_text(outcome: Outcome) -> str:
    """Return an outcome as ASCII JSON; what is None or empty is left out."""
    return json.dumps(as_json(outcome), separators=(",", ":"))


def as_json(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome as a JSON object; names and units are those of `Outcome`, settings as a record shows them."""
    failure = outcome.failure
    effective = {field.name: getattr(outcome.effective, field.name) for field in fields(Effective)}
    return {
        "settings": outcome.settings.as_json(),
        "failure": None if failure is None else _failure_as_json(failure),
        "effective": {name: value for name, value in effective.items() if value is not None},
        "engine_version": outcome.engine_version,
        "total_bytes": outcome.total_bytes,
        "free_bytes": outcome.free_bytes,
        "seconds": round(outcome.seconds, 3),
        "phases": {name: round(seconds, 3) for name, seconds in outcome.phases.items()},
        "at": outcome.at,
        "wish": outcome.wish,
        "in_service": outcome.in_service,
    }


def _failure_as_json(failure: Failure) -> dict[str, Any]:
    return {
        "kind": failure.kind.value,
        "line": failure.line,
        "line_number": failure.line_number,
        "phase": failure.phase.value,
        "numbers": dict(failure.numbers),
        "engine_version": failure.engine_version,
    }


def from_text(text: str) -> Outcome:
    """Return the outcome that `to_text` wrote; ValueError where it is damaged or of a release that knows more."""
    try:
        table = _Table(json.loads(text, parse_constant=_refuse))
    except RecursionError:
        raise ValueError("nested beyond reason") from None
    return Outcome(
        settings=_settings(table.table("settings")),
        failure=_failure(table.table("failure")) if table.get("failure") is not None else None,
        effective=_effective(table.table("effective")),
        engine_version=table.read("engine_version", str | None),
        total_bytes=table.read("total_bytes", int | None),
        free_bytes=table.read("free_bytes", int | None),
        seconds=table.read("seconds", float, 0.0),
        phases=_numbers(table.table("phases")),
        at=table.read("at", float, 0.0),
        wish=table.read("wish", str, ""),
        in_service=table.read("in_service", bool, False),
    )


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no number")


class _Table:
    """A JSON object whose entries are read by their type; ValueError for any other."""

    def __init__(self, value: Any) -> None:
        if not isinstance(value, dict):
            raise ValueError(f"{value!r:.100} is not an object")
        self._entries: dict[str, Any] = value

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def get(self, name: str) -> Any:
        return self._entries.get(name)

    def table(self, name: str) -> _Table:
        return _Table(self._entries.get(name, {}))

    def read(self, name: str, hint: Any, default: Any = None) -> Any:
        """Return an entry of a type such as `int | None`; the default where it is missing."""
        value = self._entries.get(name, default)
        if not any(_is(value, kind) for kind in get_args(hint) or (hint,)):
            raise ValueError(f"{name} is {value!r:.100}, not {hint}")
        return float(value) if isinstance(value, int) and float in (hint, *get_args(hint)) else value


def _is(value: Any, kind: Any) -> bool:
    """Whether a value is of a plain type: no bool is a number, every number is finite and of 64 bits."""
    if kind is float:
        return (type(value) is float and math.isfinite(value)) or _is(value, int)
    return type(value) is kind and (kind is not int or -(2**63) <= value < 2**63)


@lru_cache
def _hints(kind: type) -> Mapping[str, Any]:
    return get_type_hints(kind)


def _settings(table: _Table) -> Settings:
    for name in table:
        if name not in FIELD_NAMES:
            raise ValueError(f"the setting {name} is not known")
    values = {name: _setting(name, hint, table) for name, hint in _hints(Settings).items() if name in table}
    return Settings(**values)


def _setting(name: str, hint: Any, table: _Table) -> Any:
    value = table.get(name)
    if name == "max_model_len" and value == "auto":
        return AUTO
    if hint == tuple[int, ...] | None and isinstance(value, list) and all(_is(size, int) for size in value):
        return tuple(value)
    return table.read(name, hint)


def _failure(table: _Table) -> Failure:
    return Failure(
        Kind(table.get("kind")),
        line=table.read("line", str, ""),
        line_number=table.read("line_number", int, 0),
        phase=Phase(table.get("phase")),
        numbers={name: value for name, value in _numbers(table.table("numbers")).items() if name in NUMBER_NAMES},
        engine_version=table.read("engine_version", str | None),
    )


def _effective(table: _Table) -> Effective:
    return Effective(**{name: table.read(name, hint) for name, hint in _hints(Effective).items()})


def _numbers(table: _Table) -> dict[str, float]:
    return {name: table.get(name) for name in table if _is(table.get(name), float)}
