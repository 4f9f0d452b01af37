"""What a person reads while a run goes on: each event of `record` in a few plain lines.

Pure: returns text, styled by name only; printing it is `talk`'s. Readable without colour, numbers with units.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autolaunch import record
from autolaunch.failure import Failure, Kind
from autolaunch.settings import Settings, changes, show


@dataclass(frozen=True, slots=True)
class Scene:
    """What the lines need beside the event: where the logs are and how many attempts are allowed."""

    log_folder: str
    max_attempts: int
    pins: frozenset[str] = frozenset()
    model: str = ""


Line = tuple[str, str]
"""A style's name ("", "good", "bad", "step", "dim") and the text."""


def narrate(event: record.Event, scene: Scene, command: Sequence[str] = ()) -> list[Line]:
    """Return the lines for an event; `command` is the plain command line, shown when the engine came up."""
    match event:
        case record.Planned():
            return []
        case record.Attempted(n, _, _, settings):
            return [
                ("", f"attempt {n} of at most {scene.max_attempts}: {_settings(settings, scene.pins)}"),
                ("dim", f"  engine log: {scene.log_folder}/attempt-{n}.log"),
            ]
        case record.Failed(n, seconds, _, failure):
            return [
                ("bad", f"  failed after {_span(seconds)}: {failure.kind}"),
                *_indented(describe(failure)),
            ]
        case record.Stepped(rung, why, made):
            if not made:
                return [("step", f"  -> {why}")]
            return [("step", f"  -> {rung}: {', '.join(map(str, made))}"), ("", f"     why: {why}")]
        case record.CameUp():
            return _came_up(event, scene, command)
        case record.Crashed() if event.event == "restarting":
            return [("step", f"starting again after {event.wait_seconds:g} s, same settings")]
        case record.Crashed(failure, _):
            return [("bad", f"the engine died in service: {failure.kind}"), *_indented(describe(failure))]
        case record.Gave(why, closest):
            hints = [("", f"  hint: {text}") for text in closest]
            return [("bad", f"nothing fits: {why}"), *hints, ("dim", f"  engine logs: {scene.log_folder}")]
        case record.Ended(reason, exit_code):
            return _ended(reason, exit_code)
        case _:
            raise AssertionError(event)


def _ended(reason: str, exit_code: int) -> list[Line]:
    if exit_code == 0:
        return [("good", f"stopped ({reason}); nothing is left running")]
    if reason == "exhausted":
        return [("bad", f"stopped with exit code {exit_code}")]
    return [("bad", f"stopped with exit code {int(exit_code)}: {reason}")]


def _came_up(event: record.CameUp, scene: Scene, command: Sequence[str]) -> list[Line]:
    rows = [("url", f"{event.url}/v1" if "://" in event.url else event.url)]
    said = _effective(event.effective)
    if said:
        rows.append(("engine", said))
    rows.append(("settings", _settings(event.settings, scene.pins)))
    if command:
        rows.append(("command", shlex.join(command)))
    tries = "at the first attempt" if event.n == 1 else f"at attempt {event.n}"
    return [
        (
            "good",
            f"ready {tries}, {_span(event.seconds)} after its start: {scene.model} answered a real request",
        ),
        *[("", f"  {name:<9}{text}") for name, text in rows],
    ]


def _effective(effective: Mapping[str, Any]) -> str:
    parts = []
    if "max_model_len" in effective:
        parts.append(f"context {effective['max_model_len']} tokens")
    if "kv_cache_tokens" in effective:
        parts.append(f"KV cache {effective['kv_cache_tokens']} tokens")
    if "available_kv_gib" in effective:
        parts.append(f"{effective['available_kv_gib']:.2f} GiB of KV cache")
    if "weights_gib" in effective:
        parts.append(f"weights {effective['weights_gib']:.2f} GiB")
    return ", ".join(parts)


def _settings(settings: Settings, pins: frozenset[str]) -> str:
    parts = []
    for change in changes(Settings(), settings):
        value = show(change.name, change.after)
        text = "on" if value is True else ",".join(map(str, value)) if isinstance(value, list) else str(value)
        parts.append(f"{change.name} {text}" + (" (yours)" if change.name in pins else ""))
    return ", ".join(parts) or "the engine's defaults"


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"


def _indented(text: str) -> list[Line]:
    return [("", f"     {text}")] if text else []


def describe(failure: Failure) -> str:
    """Return what happened in one sentence with both numbers, from the numbers where there are some."""
    numbers = failure.numbers
    match failure.kind:
        case Kind.FREE_MEMORY_LOW if {"free_gib", "total_gib", "requested_gib"} <= set(numbers):
            share = f" (utilization {numbers['utilization']:g})" if "utilization" in numbers else ""
            return (
                f"{numbers['requested_gib']:.2f} GiB were asked for{share}, {numbers['free_gib']:.2f} of "
                f"{numbers['total_gib']:.2f} GiB are free"
            )
        case Kind.KV_TOO_SMALL if {"needed_kv_gib", "available_kv_gib", "max_seq_len"} <= set(numbers):
            most = f"; {numbers['estimated_max_len']:.0f} tokens fit" if "estimated_max_len" in numbers else ""
            return (
                f"{numbers['max_seq_len']:.0f} tokens need {numbers['needed_kv_gib']:.2f} GiB of KV cache, "
                f"{numbers['available_kv_gib']:.2f} GiB are there{most}"
            )
        case Kind.KV_TOO_SMALL if {"max_seq_len", "estimated_max_len"} <= set(numbers):
            return (
                f"{numbers['max_seq_len']:.0f} tokens were asked for, the KV cache holds "
                f"{numbers['estimated_max_len']:.0f}"
            )
        case Kind.KV_NONE if "available_kv_gib" in numbers:
            return f"nothing is left for the KV cache ({numbers['available_kv_gib']:.2f} GiB)"
    if failure.memory and {"tried_to_allocate_mib", "free_gib"} <= set(numbers):
        tried, free = numbers["tried_to_allocate_mib"], numbers["free_gib"] * 1024
        return f"{tried:.0f} MiB were asked for, {free:.0f} MiB were free ({failure.phase} phase)"
    return failure.line[:400]
