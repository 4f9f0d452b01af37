"""What a server's record says to the Python that started it: attempts, readiness, the end.

Pure. Owns `Attempt` as users see it; the record's events are `record`'s, the process is `server`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from autolaunch.arguments import given


@dataclass(frozen=True, slots=True)
class Attempt:
    """One engine start: its settings (vLLM's names), the rung that led to it, and how it ended.

    `seconds` to READY or to the failure, 0 while it starts; `failure` is the kind of `autolaunch.diagnose`, "" for
    none, `line` the engine's own words, `hints` what to do about it where no other settings help.
    """

    n: int
    rung: str
    settings: Mapping[str, Any]
    came_up: bool = False
    seconds: float = 0.0
    failure: str = ""
    line: str = ""
    hints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Seen:
    """What the record said so far: `ready` and `refused` are its whole lines, empty before there is one."""

    attempts: tuple[Attempt, ...] = ()
    ready: Mapping[str, Any] = field(default_factory=dict)
    model: str = ""
    refused: Mapping[str, Any] = field(default_factory=dict)
    why: str = ""
    closest: tuple[str, ...] = ()
    is_up: bool = False


def after(seen: Seen, event: Mapping[str, Any]) -> Seen:
    """Return what is known after one line of the record."""
    match event["event"]:
        case "attempt":
            attempt = Attempt(event["n"], event["rung"], MappingProxyType(event["settings"]))
            return replace(seen, attempts=(*seen.attempts, attempt), model=_served_name(event["argv"]))
        case "failed":
            failure = event["failure"]
            how = {"failure": failure["kind"], "line": failure["line"], "hints": tuple(event.get("hints", ()))}
            return _ended(seen, seconds=event["seconds"], **how)
        case "ready":
            return replace(_ended(seen, seconds=event["seconds"], came_up=True), ready=event, is_up=True)
        case "crashed":
            return replace(seen, is_up=False)
        case "refused":
            return replace(seen, refused=event)
        case "exhausted":
            return replace(seen, why=event["why"], closest=tuple(event["closest"]))
        case "stopped":
            why = seen.why or (seen.attempts[-1].line if seen.attempts else "") or event["reason"]
            return replace(seen, is_up=False, why=why)
    return seen


def failed(seen: Seen) -> bool:
    """Whether an engine was started and failed; an attempt that the host refused started none."""
    return any(one.failure for one in seen.attempts)


def advice_of(seen: Seen) -> str:
    """Return what to do about a run that ended, "" where nothing is known."""
    last = seen.attempts[-1].hints if seen.attempts else ()
    return str(seen.refused.get("hint") or "; ".join(seen.closest or last))


def _ended(seen: Seen, **how: Any) -> Seen:
    return replace(seen, attempts=(*seen.attempts[:-1], replace(seen.attempts[-1], **how)))


def _served_name(argv: list[str]) -> str:
    """Return the name that requests give: the first served one, else the model's."""
    options = {option.name: option.values for option in given(argv)}
    behind = argv[argv.index("serve") + 1 :] if "serve" in argv else []
    words = options.get("served-model-name") or options.get("model") or behind[:1]
    return words[0] if words else ""
