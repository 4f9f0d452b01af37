"""A run's status as the JSON of `/status`, and without anything that must not be shown.

Pure. Owns the names of that JSON. The status holds no command line and no environment; `hushed` hides a secret that
came in by another way, such as an engine's own words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from datetime import datetime, timezone
from typing import Any, TypeVar

from autolaunch.redaction import redact
from autolaunch.settings import Settings
from autolaunch.status import Past, Status

V = TypeVar("V")

VERSION = 1

MEASURED = {
    "requested_gib": "requested_bytes",
    "weights_gib": "weights_bytes",
    "non_torch_gib": "non_torch_bytes",
    "activation_gib": "activation_bytes",
    "cudagraph_gib": "cudagraph_bytes",
    "available_kv_gib": "kv_cache_bytes",
}
"""The engine's own figures by the names of the budget."""


def as_json(status: Status) -> dict[str, Any]:
    """Return `/status`: times in RFC 3339 (UTC), memory in bytes per GPU, null where nothing is known yet."""
    return {
        "v": VERSION,
        "run": status.run,
        "model": status.model,
        "engine_version": status.engine_version,
        "strategy": status.strategy,
        "phase": status.phase,
        "since": rfc3339(status.since),
        "step": None if status.step is None else status.step.value,
        "line": status.line,
        "attempt": status.attempt,
        "climbing": status.climbing,
        "max_attempts": status.max_attempts,
        "rung": status.rung,
        "why": list(status.why),
        "settings": status.settings.as_json(),
        "pins": list(status.pins),
        "effective": dict(status.effective),
        "budget": {
            "predicted": dict(status.budget),
            "outside_bytes": status.outside_bytes,
            "measured": measured(status.effective),
        },
        "basis": dict(status.basis),
        "url": status.url,
        "log": status.log,
        "restarts": status.restarts,
        "failures": dict(status.failures),
        "deaths": dict(status.deaths),
        "ready_at": None if status.ready_at is None else rfc3339(status.ready_at),
        "ready_seconds": None if status.ready_seconds is None else round(status.ready_seconds, 3),
        "exit_code": status.exit_code,
        "reason": status.reason,
        "history": [_past(one) for one in status.past],
    }


def _past(past: Past) -> dict[str, Any]:
    return {
        "time": rfc3339(past.at),
        "event": past.what,
        "n": past.n,
        "kind": past.kind or None,
        "death": past.death or None,
        "text": past.text,
        "why": past.why,
        "seconds": round(past.seconds, 3),
    }


def measured(effective: Mapping[str, Any]) -> dict[str, int]:
    """Return what the engine itself measured, in bytes, by the names of the budget; what it did not print is missing.

    Recent releases (about 0.28 on) print weights and non-torch memory in one, and activations that hold the graphs'
    estimate as well: both are taken apart here.
    """
    said = {name: value for name, value in effective.items() if name in MEASURED}
    consumed = effective.get("consumed_gib")
    if consumed is not None:
        if "weights_gib" in said and "non_torch_gib" not in said:
            said["non_torch_gib"] = consumed - said["weights_gib"]
        if "activation_gib" in said:
            said["activation_gib"] -= said.get("cudagraph_gib", 0.0)
    shown = {MEASURED[name]: round(value * 2**30) for name, value in said.items()}
    if "kv_cache_tokens" in effective:
        shown["kv_cache_tokens"] = effective["kv_cache_tokens"]
    return shown


def rfc3339(at: float) -> str:
    """Return Unix seconds as a time in UTC, to the millisecond."""
    return datetime.fromtimestamp(at, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def hushed(status: Status, hidden: Sequence[str]) -> Status:
    """Return the status with `hidden`, words shaped like tokens and passwords in URLs replaced wherever they stand."""
    shown = {one.name: _hush(getattr(status, one.name), hidden) for one in fields(status)}
    return replace(status, **shown)


def _hush(value: V, hidden: Sequence[str]) -> V:
    said: Any = value
    match said:
        case str() if type(said) is str:  # not an enum's word
            said = redact(said, hidden).encode("utf-8", "replace").decode()  # a path's odd bytes are no text
        case Settings() | Past():
            assert is_dataclass(said)
            said = replace(said, **{one.name: _hush(getattr(said, one.name), hidden) for one in fields(said)})
        case tuple():
            said = tuple(_hush(one, hidden) for one in said)
        case Mapping():
            said = {name: _hush(one, hidden) for name, one in said.items()}
    return said  # type: ignore[no-any-return]  # of the type that came in
