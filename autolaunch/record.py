"""The events of a run, as values: what `--record` writes line by line and what the terminal tells.

Owns the Contract's record lines (JSON, `"v": 1`). Pure: writing them is `talk`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from autolaunch.advice import hints
from autolaunch.failure import Failure
from autolaunch.settings import Change, Settings, show

VERSION = 1


@dataclass(frozen=True, slots=True)
class Planned:
    """What will be tried first, the memory it is predicted to take, and what each term of that rests on.

    `outside_bytes` is taken beside the budget (CUDA context, NCCL); the Contract's line does not have it.
    """

    settings: Settings
    budget: Mapping[str, Any]
    basis: Mapping[str, str]
    why: tuple[str, ...] = ()
    outside_bytes: int | None = None
    event: ClassVar[str] = "plan"

    def fields(self) -> dict[str, Any]:
        """Return the event's own fields."""
        return {
            "settings": self.settings.as_json(),
            "budget": dict(self.budget),
            "basis": dict(self.basis),
            "why": list(self.why),
        }


@dataclass(frozen=True, slots=True)
class Attempted:
    """An engine start; `argv` is the whole command line with secrets replaced.

    `climbing` is its number since an engine last served, which is what `--max-attempts` bounds (0: `n`).
    """

    n: int
    rung: str
    argv: Sequence[str]
    settings: Settings
    climbing: int = 0
    event: ClassVar[str] = "attempt"

    def fields(self) -> dict[str, Any]:
        """Return the event's own fields."""
        return {"n": self.n, "rung": self.rung, "argv": list(self.argv), "settings": self.settings.as_json()}


@dataclass(frozen=True, slots=True)
class Failed:
    """A start that failed; `reaction_seconds` from the engine's decisive line to its whole tree gone.

    Its line also has what a person is told to do about it, where other settings do not help.
    """

    n: int
    seconds: float
    reaction_seconds: float
    failure: Failure
    event: ClassVar[str] = "failed"

    def fields(self) -> dict[str, Any]:
        """Return the event's own fields."""
        failure = self.failure
        told = hints(failure)
        return {
            "n": self.n,
            "seconds": round(self.seconds, 3),
            "reaction_seconds": round(self.reaction_seconds, 3),
            "failure": {"kind": failure.kind.value, "line": failure.line, "numbers": dict(failure.numbers)},
            **({"hints": list(told)} if told else {}),
        }


@dataclass(frozen=True, slots=True)
class Stepped:
    """A rung applied once; `closest` is what would help the reader where the ladder itself has no answer."""

    rung: str
    why: str
    changes: tuple[Change, ...]
    closest: tuple[str, ...] = ()
    event: ClassVar[str] = "step"

    def fields(self) -> dict[str, Any]:
        """Return the event's own fields."""
        return {
            "rung": self.rung,
            "why": self.why,
            "from": {change.name: show(change.name, change.before) for change in self.changes},
            "to": {change.name: show(change.name, change.after) for change in self.changes},
            **({"closest": list(self.closest)} if self.closest else {}),
        }


@dataclass(frozen=True, slots=True)
class CameUp:
    """The engine is up and, if `proven`, answered a real request; `effective` is what it says of itself."""

    n: int
    seconds: float
    settings: Settings
    effective: Mapping[str, Any]
    url: str
    proven: bool = True
    event: ClassVar[str] = "ready"

    def fields(self) -> dict[str, Any]:
        """Return the event's own fields."""
        return {
            "n": self.n,
            "seconds": round(self.seconds, 3),
            "settings": self.settings.as_json(),
            "effective": dict(self.effective),
            "url": self.url,
        }


@dataclass(frozen=True, slots=True)
class Crashed:
    """An engine that served died; the next start waits `wait_seconds`."""

    failure: Failure
    wait_seconds: float
    event: ClassVar[str] = "crashed"

    def fields(self) -> dict[str, Any]:
        """Return the event's own fields."""
        failure = self.failure
        shown = {"kind": failure.kind.value, "line": failure.line, "numbers": dict(failure.numbers)}
        return {"failure": shown, "wait_seconds": round(self.wait_seconds, 3)}


@dataclass(frozen=True, slots=True)
class Restarting(Crashed):
    """The wait after a crash is over."""

    event: ClassVar[str] = "restarting"


@dataclass(frozen=True, slots=True)
class Gave:
    """No start follows: why, and the nearest things that would help; `stops_short` where the ladder had an answer."""

    why: str
    closest: tuple[str, ...] = field(default=())
    stops_short: bool = False
    event: ClassVar[str] = "exhausted"

    def fields(self) -> dict[str, Any]:
        """Return the event's own fields."""
        return {"why": self.why, "closest": list(self.closest)}


@dataclass(frozen=True, slots=True)
class Ended:
    """The run's last line."""

    reason: str
    exit_code: int
    event: ClassVar[str] = "stopped"

    def fields(self) -> dict[str, Any]:
        """Return the event's own fields."""
        return {"reason": self.reason, "exit_code": self.exit_code}


Event = Planned | Attempted | Failed | Stepped | CameUp | Crashed | Restarting | Gave | Ended


def as_json(event: Event, *, time: str, run: str) -> dict[str, Any]:
    """Return the record line of an event: the fields every line has, then its own."""
    return {"v": VERSION, "time": time, "run": run, "event": event.event, **event.fields()}
