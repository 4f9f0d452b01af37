"""What a person reads while a run goes on: each event of `record` in a few plain lines.

Pure: returns text, styled by name only; printing it is `talk`'s. Readable without colour, numbers with units.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from autolaunch import record
from autolaunch.advice import hints
from autolaunch.errors import ExitCode
from autolaunch.facts import Device
from autolaunch.failure import Failure, Kind, Phase
from autolaunch.settings import Settings, changes, show
from autolaunch.sizes import gib
from autolaunch.verdict import REFUSED, Death, death_of, own_hint

if sys.version_info >= (3, 11):
    from typing import assert_never
else:
    from typing_extensions import assert_never


@dataclass(frozen=True, slots=True)
class Scene:
    """What the lines need beside the event: where the logs are and how many attempts are allowed."""

    log_folder: str
    max_attempts: int
    pins: frozenset[str] = frozenset()
    model: str = ""


SPENT_HINTS = (
    "what the engine died of stands in its newest logs: autolaunch logs | autolaunch diagnose",
    "allow more crashes with --max-restarts N, or count them within a shorter --restart-window",
)

_SWITCH = {"True": "on", "False": "off"}

Line = tuple[str, str]
"""A style's name ("", "good", "bad", "step", "dim") and the text."""


def narrate(event: record.Event, scene: Scene, command: str = "") -> list[Line]:
    """Return the lines for an event; `command` is the plain command line, shown when the engine came up."""
    match event:
        case record.Planned(why=why):
            return [("dim", f"  plan: {text}") for text in why]
        case record.Attempted(n, _, _, settings, climbing):
            bound = f"of at most {scene.max_attempts}"
            counted = f"{n} {bound}" if climbing in (0, n) else f"{n} ({climbing} {bound} since it last served)"
            return [
                ("", f"attempt {counted}: {settings_text(settings, scene.pins)}"),
                ("dim", f"  engine log: {scene.log_folder}/attempt-{n}.log"),
            ]
        case record.Failed(n, seconds, _, failure):
            return [
                ("bad", f"  {_failed(failure)} after {_span(seconds)}: {failure.kind}"),
                *_indented(describe(failure)),
                *[("", f"     hint: {text}") for text in hints(failure)],
            ]
        case record.Stepped(rung, why, made, closest):
            offers = [("", f"     hint: {text}") for text in closest]
            if not made:
                return [("step", f"  -> {why}"), *offers]
            return [("step", f"  -> {rung}: {', '.join(map(str, made))}"), ("", f"     why: {why}"), *offers]
        case record.CameUp():
            return _came_up(event, scene, command)
        case record.Restarting(_, wait_seconds):
            return [("step", f"starting again after {wait_seconds:g} s, with the settings that served")]
        case record.Crashed(failure, _):
            how = "hung" if death_of(failure) is Death.HANG else "died"
            ours = [("", f"     hint: {text}") for text in (own_hint(failure),) if text]
            return [("bad", f"the engine {how} in service: {failure.kind}"), *_indented(describe(failure)), *ours]
        case record.Gave(why, closest, stops_short):
            offers = [("", f"  hint: {text}") for text in closest]
            logs = [("dim", f"  engine logs: {scene.log_folder}")] if scene.log_folder else []
            return [("bad", f"{'no further start' if stops_short else 'nothing fits'}: {why}"), *offers, *logs]
        case record.Ended(reason, exit_code):
            return _ended(reason, exit_code, scene)
        case _:
            assert_never(event)


def _failed(failure: Failure) -> str:
    return "came up, gave no answer" if failure.line.startswith(REFUSED) else "failed"


def _ended(reason: str, exit_code: int, scene: Scene) -> list[Line]:
    if exit_code == 0:
        return [("good", f"stopped ({reason}); nothing is left running")]
    if reason == "exhausted":
        return [("bad", f"stopped with exit code {exit_code}")]
    more = []
    if exit_code == ExitCode.RESTARTS_SPENT:
        more = [("", f"  hint: {text}") for text in SPENT_HINTS]
        more.append(("dim", f"  engine logs: {scene.log_folder}"))
    return [*more, ("bad", f"stopped with exit code {int(exit_code)}: {reason}")]


def _came_up(event: record.CameUp, scene: Scene, command: str) -> list[Line]:
    rows = [("url", f"{event.url}/v1" if "://" in event.url else event.url)]
    said = _effective(event.effective)
    if said:
        rows.append(("engine", said))
    rows.append(("settings", settings_text(event.settings, scene.pins)))
    if command:
        rows.append(("command", command))
    tries = "at the first attempt" if event.n == 1 else f"at attempt {event.n}"
    how = "answered a real request" if event.proven else "is healthy; it is asked nothing, nor if it hangs (--no-prove)"
    return [
        ("good", f"ready {tries}, {_span(event.seconds)} after its start: {scene.model} {how}"),
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


def settings_text(settings: Settings, pins: frozenset[str]) -> str:
    """Return settings in one line, what the user pinned marked as theirs."""
    parts = []
    for change in changes(Settings(), settings):
        value = show(change.name, change.after)
        text = ",".join(map(str, value)) if isinstance(value, list) else _SWITCH.get(str(value), str(value))
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
    said = in_numbers(failure)
    if said:
        return said
    return failure.line if len(failure.line) <= LONGEST else failure.line[: LONGEST - 3].rstrip() + "..."


def in_numbers(failure: Failure) -> str:
    """Return what happened in one sentence made of the numbers, "" where they do not tell."""
    said = _SENTENCES.get(failure.kind, _nothing)(failure.numbers)
    if said is None and failure.memory:
        said = _allocation(failure)
    return said or ""


LONGEST = 300
"""Characters of an engine's own line that a person is shown; the log has all of it."""

Numbers = Mapping[str, float]


def _nothing(_: Numbers) -> str | None:
    return None


def _free_memory_low(n: Numbers) -> str | None:
    if not {"free_gib", "total_gib", "requested_gib"} <= set(n):
        return None
    share = f" (utilization {n['utilization']:g})" if "utilization" in n else ""
    return (
        f"{n['requested_gib']:.2f} GiB were asked for{share}, {n['free_gib']:.2f} of {n['total_gib']:.2f} GiB are free"
    )


def _kv_too_small(n: Numbers) -> str | None:
    if not {"max_seq_len"} <= set(n):
        return None
    length = f"{n['max_seq_len']:.0f} tokens"
    fit = f"{n['estimated_max_len']:.0f}" if "estimated_max_len" in n else ""
    if {"needed_kv_gib", "available_kv_gib"} <= set(n):
        most = f"; {fit} tokens fit" if fit else ""
        return (
            f"{length} need {n['needed_kv_gib']:.2f} GiB of KV cache, {n['available_kv_gib']:.2f} GiB are there{most}"
        )
    return f"{length} were asked for, the KV cache holds {fit}" if fit else None


def _kv_none(n: Numbers) -> str | None:
    return f"nothing is left for the KV cache ({n['available_kv_gib']:.2f} GiB)" if "available_kv_gib" in n else None


def _seqs_too_many(n: Numbers) -> str | None:
    return (
        f"the cache holds the state of {n['num_seqs']:.0f} sequences, more were asked for" if "num_seqs" in n else None
    )


def _sampler_oom(n: Numbers) -> str | None:
    if "num_seqs" not in n:
        return None
    return f"the sampler's warm-up with {n['num_seqs']:.0f} sequences at once ran out of memory"


def _ok(n: Numbers) -> str | None:
    names = (("max_seq_len", "context {:.0f} tokens"), ("available_kv_gib", "{:.2f} GiB of KV cache"),
             ("weights_gib", "weights {:.2f} GiB"))  # fmt: skip
    return ", ".join(text.format(n[name]) for name, text in names if name in n) or None


def _allocation(failure: Failure) -> str | None:
    n = failure.numbers
    if not {"tried_to_allocate_mib", "free_gib"} <= set(n):
        return None
    of = f" of {n['total_gib']:.2f} GiB" if "total_gib" in n else ""
    tried, free = n["tried_to_allocate_mib"], n["free_gib"] * 1024
    return f"{tried:.0f} MiB were asked for, {free:.0f} MiB{of} were free ({failure.phase} phase)"


_SENTENCES: Mapping[Kind, Callable[[Numbers], str | None]] = {
    Kind.FREE_MEMORY_LOW: _free_memory_low,
    Kind.KV_TOO_SMALL: _kv_too_small,
    Kind.KV_NONE: _kv_none,
    Kind.SEQS_TOO_MANY: _seqs_too_many,
    Kind.SAMPLER_OOM: _sampler_oom,
    Kind.OK: _ok,
}


STEP_WORDS: Mapping[Phase, str] = {
    Phase.IMPORT: "loading vLLM",
    Phase.CONFIG: "reading the model's configuration",
    Phase.INIT: "starting the engine core",
    Phase.LOAD: "loading the weights",
    Phase.PROFILE: "measuring memory",
    Phase.KV_CACHE: "reserving the KV cache",
    Phase.GRAPHS: "capturing graphs",
    Phase.WARMUP: "warming up",
    Phase.SERVING: "waiting for its first answer",
}
"""How far a start is, for the terminal and for the page."""


def memory_of(device: Device, called: str = "") -> str:
    """Return what was measured of a device: its name, or what it is `called` here; what is free, its total."""
    name = called or device.name
    if device.total_bytes is None:
        return f"{name or 'no card was found'}, memory unknown"
    return f"{name}: {gib(device.free_bytes)} free of {gib(device.total_bytes)}"
