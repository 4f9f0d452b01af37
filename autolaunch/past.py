"""How earlier starts on this host ended, as values that a plan may rest on.

Pure. Owns `Outcome` and `Past`; keeping them on disk is `memory`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from autolaunch.failure import Failure
from autolaunch.figures import Effective
from autolaunch.settings import Settings


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
