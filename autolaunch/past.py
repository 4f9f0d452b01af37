"""How earlier starts on this host ended, as values that a plan may rest on, and what they say about the next start.

Pure. Owns `Key`, `Outcome`, `Past` and the questions asked of them; keeping them on disk is `memory`'s. Decides
nothing: which settings follow from an answer is `planner`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from autolaunch.facts import GIB, DeviceKind, Situation
from autolaunch.failure import Failure, Kind
from autolaunch.figures import Effective
from autolaunch.settings import Settings

SLACK = 0.01
"""How much more of a memory must be there than at a failure to believe that its cause is gone: readings move."""

OWN_BUDGET = frozenset({Kind.KV_NONE, Kind.KV_TOO_SMALL, Kind.SEQS_TOO_MANY})
"""Failures of the budget itself: a share of the total, less the engine's own needs. More free memory cures none."""


@dataclass(frozen=True, slots=True)
class Key:
    """What must be the same for an earlier start to say something about the next.

    `model` is what its name stands for: a hub id, an address, or the absolute path of a folder or file. `revision` is
    its commit, of a folder a digest of what is in it, "" where it was not known. `card` is the card's name,
    `total_bytes` its total to the nearest GiB, so that the figures of two drivers agree; 0 for a host's memory, which
    grows as a virtual machine touches it (7.5 to 23.5 GiB within a day), and where it is not known. `cards` is how many
    cards the engine spreads over. `name` is what the user typed, for people only.
    """

    model: str
    revision: str = ""
    card: str = ""
    total_bytes: int = 0
    cards: int = 1
    name: str = field(default="", compare=False)

    @property
    def shown(self) -> str:
        """The model's name as the user knows it."""
        return self.name or self.model

    @property
    def alike(self) -> tuple[Key, ...]:
        """The keys whose starts count: its own, and that of an unknown revision, which the first start downloads.

        Only what is on this host has a path, and its revision is always known.
        """
        return (self,) if self.model.startswith("/") else (self, replace(self, revision=""))


@dataclass(frozen=True, slots=True)
class Sought:
    """A model whose starts are looked for: the name that was typed, and what it stands for here.

    The same path may have been typed elsewhere for another model (`is_path`): its name alone finds nothing.
    """

    name: str
    stands_for: str
    is_path: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """One start: what was tried, what was there, how it ended.

    `failure` None is an engine that came up. `total_bytes` and `free_bytes` as measured before the start,
    `seconds` to READY or to the failure, `phases` the seconds each phase of the start took, `at` the time of day
    (Unix seconds), `wish` a digest of what the user asked, pins and strategy included. `in_service` is a failure
    after the engine served.
    """

    settings: Settings
    failure: Failure | None
    effective: Effective
    engine_version: str | None = None
    total_bytes: int | None = None
    free_bytes: int | None = None
    seconds: float = 0.0
    phases: Mapping[str, float] = field(default_factory=dict)
    at: float = 0.0
    wish: str = ""
    in_service: bool = False


@dataclass(frozen=True, slots=True)
class Past:
    """Earlier starts of one model at one revision on one kind of card, newest first; () where nothing is known."""

    outcomes: tuple[Outcome, ...] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """One remembered start as the history shows it; `number` grows with every start that is remembered."""

    number: int
    key: Key
    outcome: Outcome


def key_of(situation: Situation, *, model: str, cards: int) -> Key:
    """Return what the starts of a model on its memory are remembered under; `model` is what its name stands for."""
    device, known_as = situation.device, situation.model
    known = device.total_bytes is not None and device.kind is not DeviceKind.CPU
    total = max(1, round((device.total_bytes or 0) / GIB)) * GIB if known else 0
    return Key(model, known_as.revision, device.name, total, cards, known_as.name)


def came_up(past: Past, *, wish: str, engine_version: str | None) -> Outcome | None:
    """Return the newest start that came up for this wish, one of this engine version before any other's.

    A start whose settings ran out of memory in service since is none. An `engine_version` of None is any.
    """
    beaten: set[Settings] = set()
    of_another: Outcome | None = None
    for outcome in past.outcomes:
        if outcome.wish != wish:
            continue
        if outcome.failure is not None:
            if outcome.in_service and outcome.failure.memory:
                beaten.add(outcome.settings)
        elif outcome.settings not in beaten:
            if engine_version in (None, outcome.engine_version):
                return outcome
            of_another = of_another or outcome
    return of_another


def refusal(past: Past, settings: Settings, *, wish: str, situation: Situation) -> Outcome | None:
    """Return the newest failure of exactly these settings, for this wish, whose cause still holds; None if none does.

    A later start of the same settings that came up disproves a failure whose cause held then as well. One that
    came up with more memory free proves nothing for a day on which the neighbour is back.
    """
    for outcome in past.outcomes:
        if outcome.settings != settings or outcome.wish != wish or not holds(outcome, situation):
            continue
        if not disproved(past, outcome, settings, situation=situation):
            return outcome
    return None


def disproved(past: Past, failure: Outcome, settings: Settings, *, situation: Situation) -> bool:
    """Whether settings came up, for the same wish, after a failure and with its cause there."""
    for outcome in past.outcomes:
        if outcome is failure:
            return False
        came = outcome.settings == settings and outcome.wish == failure.wish and outcome.failure is None
        if came and holds(failure, _before(outcome, situation)):
            return True
    return False


def _before(outcome: Outcome, situation: Situation) -> Situation:
    """Return a situation as it was before an earlier start."""
    device = replace(situation.device, total_bytes=outcome.total_bytes, free_bytes=outcome.free_bytes)
    return replace(situation, device=device, engine=replace(situation.engine, version=outcome.engine_version))


def holds(outcome: Outcome, situation: Situation) -> bool:
    """Whether the cause of a failed start is there: the same engine version, and no more memory than then.

    What is unknown, then or now, is taken to be unchanged. False for a start that came up and for the failures
    that say nothing against their settings: memory that moved during the profile run, host memory beside a card,
    and everything that is not memory.
    """
    failure, device, engine = outcome.failure, situation.device, situation.engine
    if failure is None or not failure.memory or failure.kind is Kind.PROFILING_RACE:
        return False
    if failure.kind is Kind.HOST_OOM and device.kind is not DeviceKind.CPU:
        return False
    if None not in (engine.version, outcome.engine_version) and engine.version != outcome.engine_version:
        return False
    own = failure.kind in OWN_BUDGET and not engine.is_v0  # V0 counted what its neighbours hold as its own
    then, now = (outcome.total_bytes, device.total_bytes) if own else (outcome.free_bytes, device.free_bytes)
    return then is None or now is None or now <= then + SLACK * (outcome.total_bytes or 0)
