"""What a run is doing, as one value that grows with every event: what operators, systemd and probes are told.

Pure. Owns `Status` and how events change it; serving it is `status_server`'s, telling systemd `systemd`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from autolaunch import phases, record
from autolaunch.failure import Phase
from autolaunch.narration import describe
from autolaunch.settings import Settings
from autolaunch.verdict import death_of

MOST_KEPT = 50
"""Failures and steps that are kept, the newest: a run that lasts for months must not grow."""


@dataclass(frozen=True, slots=True)
class Past:
    """One thing that happened: a failed start, a step, a crash; `at` in Unix seconds.

    `death` is how an engine in service ended (`verdict.Death`), "" of all else.
    """

    at: float
    what: str
    n: int
    kind: str = ""
    text: str = ""
    why: str = ""
    seconds: float = 0.0
    death: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """A run at one moment; times in Unix seconds.

    `phase` is the machine's ("planning" before its first start): starting, ready, stopping, backoff, stopped,
    exhausted. `step` is how far a start is; `stirred` when its engine was last seen to work, on the monotonic clock.
    `ending`: no engine will be started again; `clearing`: the kind of the failure after which an engine's tree is
    ended, "" else; `reloading`: SIGHUP is being answered. `waits` says what is waited for, or done, before an engine
    can be started. `pins` names the settings that the user gave. `budget` and `basis` as predicted, `outside_bytes`
    what is taken beside the budget (CUDA context, NCCL), `effective` as the engine said. `why` is of the settings at
    hand, at the end of the end; `restarts` are starts after an engine in service ended, `deaths` those ends.
    """

    run: str = ""
    model: str = ""
    engine_version: str | None = None
    strategy: str = ""
    phase: str = "planning"
    since: float = 0.0
    step: Phase | None = None
    stirred: float = 0.0
    ending: bool = False
    clearing: str = ""
    reloading: bool = False
    waits: str = ""
    attempt: int = 0
    climbing: int = 0
    max_attempts: int = 0
    rung: str = ""
    why: tuple[str, ...] = ()
    settings: Settings = Settings()
    pins: tuple[str, ...] = ()
    effective: Mapping[str, Any] = field(default_factory=dict)
    budget: Mapping[str, Any] = field(default_factory=dict)
    basis: Mapping[str, str] = field(default_factory=dict)
    outside_bytes: int | None = None
    url: str = ""
    log: str = ""
    restarts: int = 0
    ready_at: float | None = None
    ready_seconds: float | None = None
    exit_code: int | None = None
    reason: str = ""
    past: tuple[Past, ...] = ()
    failures: Mapping[str, int] = field(default_factory=dict)
    deaths: Mapping[str, int] = field(default_factory=dict)

    @property
    def came_up(self) -> bool:
        """Whether an engine of this run has ever served."""
        return self.ready_at is not None

    @property
    def last_failure(self) -> Past | None:
        """The newest failure or crash."""
        return next((one for one in reversed(self.past) if one.kind), None)

    @property
    def line(self) -> str:
        """What is going on in one line, with both numbers where something failed; at the end why, and the exit code."""
        match self.phase:
            case "planning" if self.exit_code is not None:
                return f"nothing was started: {self.why[0] if self.why else self.reason}{self._code}"
            case "ready":
                return f"serving {self.model} at {self.url}, {_context(self.effective)}"
            case "planning" | "starting" if self.waits:
                return self.waits
            case "starting":
                return f"{self._counted}: {self._climbed()}"
            case "stopping" if self.clearing:
                return f"clearing up after {self.clearing}"
            case "backoff":
                failure = self.last_failure
                return f"waiting to start again after {failure.kind if failure else 'a crash'}"
            case "stopped" | "exhausted" if self.reason:
                why = self.why[0] if self.why and self.phase == "exhausted" else self.reason
                return f"{self.phase} ({why}){self._code}"
            case _:
                return self.phase

    @property
    def _code(self) -> str:
        return "" if self.exit_code is None else f", exit code {self.exit_code}"

    @property
    def _counted(self) -> str:
        bound = f"of at most {self.max_attempts}"
        if self.climbing in (0, self.attempt):
            return f"attempt {self.attempt} {bound}"
        return f"attempt {self.attempt}, {self.climbing} {bound} since it last served"

    def _climbed(self) -> str:
        failure, newest = self.last_failure, self.past[-1] if self.past else None
        if failure is None or newest is None:
            return "first start" if self.step is None else self.step.value
        if newest.what == "step":
            return f"{failure.kind}, {newest.text}"
        return f"starting again after {failure.kind}" if newest.what == "crashed" else failure.kind


def _context(effective: Mapping[str, Any]) -> str:
    length = effective.get("max_model_len")
    return "context unknown" if length is None else f"context {length} tokens"


_PHASES: Mapping[type, str] = {
    phases.Idle: "planning",
    phases.Starting: "starting",
    phases.Ready: "ready",
    phases.Stopping: "stopping",
    phases.Backoff: "backoff",
    phases.Stopped: "stopped",
    phases.ExhaustedEnd: "exhausted",
}


def moved(status: Status, state: phases.State, now: float) -> Status:
    """Return the status after the machine moved; `now` in Unix seconds."""
    phase = _PHASES[type(state)]
    stirred = state.stirred if isinstance(state, phases.Starting) else status.stirred
    ending = isinstance(state, (phases.Stopped, phases.ExhaustedEnd)) or (
        isinstance(state, phases.Stopping) and isinstance(state.aim, phases.ToEnd)
    )
    after = replace(status, stirred=stirred, ending=ending, clearing=_cleared(state))
    if phase == status.phase:
        return status if after == status else after
    return replace(after, phase=phase, since=now, step=None, waits="")


def _cleared(state: phases.State) -> str:
    """Return the kind of the failure after which an engine's tree is ended, "" where none is or for good."""
    match state:
        case phases.Stopping(aim=phases.ToClimb(suspect=suspect)):
            return suspect.failure.kind.value
        case phases.Stopping(aim=phases.ToRestart(failure=failure)):
            return failure.kind.value
        case _:
            return ""


def stepped(status: Status, phase: Phase) -> Status:
    """Return the status of a start that is so far."""
    return replace(status, step=phase)


def waited(status: Status, text: str) -> Status:
    """Return the status of a run that waits, or does something, before it can start an engine."""
    return replace(status, waits=" ".join(text.split()))


def told(status: Status, event: record.Event, now: float) -> Status:
    """Return the status after an event; `now` in Unix seconds."""
    match event:
        case record.Planned(settings, budget, basis, why, outside):
            planned = replace(status, settings=settings, budget=budget, basis=basis, why=why)
            return replace(planned, outside_bytes=outside, waits="")
        case record.Attempted(n, rung, _, settings, climbing):
            again = climbing == 1 and n > 1  # whatever it died of in service, and whatever settings follow
            begun = replace(status, attempt=n, climbing=climbing, rung=rung, settings=settings)
            return replace(begun, effective={}, waits="", restarts=status.restarts + again)
        case record.Failed(n, seconds, _, failure):
            past = Past(now, "failed", n, failure.kind.value, describe(failure), failure.line, seconds)
            return _count(_kept(status, past), failure.kind.value)
        case record.Stepped(rung, why, made):
            text = f"{rung}: {', '.join(map(str, made))}" if made else "the same settings again"
            stepped = replace(status, why=(why,)) if made else status  # the plan's own words are not true of others
            return _kept(stepped, Past(now, "step", status.attempt + 1, "", text, why))
        case record.CameUp(_, seconds, settings, effective, url):
            return replace(status, settings=settings, effective=effective, url=url, ready_at=now, ready_seconds=seconds)
        case record.Restarting():
            return status
        case record.Crashed(failure, wait_seconds):
            how, text = death_of(failure).value, describe(failure)
            past = Past(now, "crashed", status.attempt, failure.kind.value, text, failure.line, wait_seconds, how)
            counted = _count(_kept(status, past), failure.kind.value)
            return replace(counted, deaths={**status.deaths, how: status.deaths.get(how, 0) + 1})
        case record.Gave(why, closest, _):
            return replace(status, why=(why, *closest))
        case record.Ended(reason, exit_code):
            return replace(status, reason=reason, exit_code=int(exit_code))


def _kept(status: Status, past: Past) -> Status:
    return replace(status, past=(*status.past, past)[-MOST_KEPT:])


def _count(status: Status, kind: str) -> Status:
    return replace(status, failures={**status.failures, kind: status.failures.get(kind, 0) + 1})
