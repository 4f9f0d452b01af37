"""Everything known of one engine start while its lines pass by, and how it becomes a verdict.

Owns the best cause so far and the rule which of two causes stands. Must not read lines: `diagnose` does.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from autolaunch.causes import KIND_PHASE, Weight
from autolaunch.failure import MEMORY_KINDS, Failure, Kind, Phase
from autolaunch.figures import Effective, numbers_in
from autolaunch.frames import Traceback
from autolaunch.logline import LogLine

ORDER = {phase: index for index, phase in enumerate(Phase)}
WRAP_LINES = 8
"""A message is wrapped over at most so many lines."""

MAX_PROCESSES = 64
_EVIDENCE = 4096


@dataclass(slots=True)
class Cause:
    kind: Kind
    weight: Weight
    line: str
    line_number: int
    phase: Phase
    text: str
    by_rule: bool = True
    absorbed: int = 0

    def absorb(self, text: str) -> None:
        if self.absorbed < WRAP_LINES and len(self.text) + len(text) < _EVIDENCE:
            self.absorbed += 1
            self.text = self.text + " " + text


@dataclass(slots=True)
class Start:
    """Everything known of one engine start; `installed` is the version by its package, `version` by its banner."""

    phase: Phase = Phase.IMPORT
    installed: str | None = None
    version: str | None = None
    effective: Effective = field(default_factory=Effective)
    cause: Cause | None = None
    wrapper: Cause | None = None
    ready: bool = False
    listening: bool = False
    dead: bool = False
    stopping: bool = False
    over: bool = False
    engines: dict[str, str] = field(default_factory=dict)
    tracebacks: dict[str, Traceback] = field(default_factory=dict)

    def traceback(self, line: LogLine) -> Traceback:
        """Return the traceback of the process that printed `line`; the oldest of too many is forgotten."""
        key = line.who + line.pid
        if key not in self.tracebacks:
            if len(self.tracebacks) >= MAX_PROCESSES:
                self.tracebacks.pop(next(iter(self.tracebacks)))
            self.tracebacks[key] = Traceback()
        return self.tracebacks[key]

    def latest_traceback(self) -> Traceback:
        """Return the traceback whose last frame is the nearest above."""
        return max(self.tracebacks.values(), key=lambda traceback: traceback.line_number, default=Traceback())

    def advance(self, phase: Phase) -> None:
        """Note a phase; one that comes as late as the KV cache proves that a stray exception before was caught."""
        if ORDER[phase] > ORDER[self.phase]:
            self.phase = phase
            if self.past(Phase.KV_CACHE) and self.cause is not None and self.cause.weight is Weight.STRAY:
                self.cause = None

    def past(self, phase: Phase) -> bool:
        return ORDER[self.phase] >= ORDER[phase]

    @property
    def nothing_left(self) -> bool:
        """Whether the engine measured that no memory remains for the KV cache: no start survives that."""
        available, tokens = self.effective.available_kv_gib, self.effective.kv_cache_tokens
        return not self.ready and ((available is not None and available <= 0) or tokens == 0)

    def known(self) -> dict[str, float]:
        """Return the numbers that the start stated before it failed."""
        said = self.effective
        known = {
            "weights_gib": said.weights_gib,
            "available_kv_gib": said.available_kv_gib,
            "free_gib": said.free_gib,
            "total_gib": said.total_gib,
            "requested_gib": said.requested_gib,
            "utilization": said.utilization,
            "max_seq_len": said.max_model_len,
        }
        return {name: value for name, value in known.items() if value is not None}

    def verdict(self, cause: Cause) -> Failure:
        """Return `cause` as a Failure."""
        least = KIND_PHASE.get(cause.kind, Phase.IMPORT)
        return Failure(
            cause.kind,
            line=cause.line,
            line_number=cause.line_number,
            phase=max(cause.phase, least, key=ORDER.__getitem__),
            numbers={**self.known(), **numbers_in(cause.text)},
            engine_version=self.version or self.installed,
        )

    def bare(self, kind: Kind) -> Failure:
        """Return a verdict without a line."""
        return Failure(kind, phase=self.phase, numbers=self.known(), engine_version=self.version or self.installed)

    def late_frame(self, kind: Kind | None) -> None:
        """Frames below a lone allocation failure say where it happened, where nothing above did."""
        if kind is not None and self.cause is not None and self.cause.kind is Kind.OOM:
            self.cause.kind = kind

    def propose(self, new: Cause) -> None:
        """Keep the better of the cause so far and `new`."""
        old = self.cause
        announced = old is not None and old.line.endswith("raised:") and new.by_rule  # torch's compiler quotes
        if old is None or new.weight > old.weight or (announced and new.weight >= old.weight):
            self.cause = new
        elif old.kind in MEMORY_KINDS and _names_the_sampler(new) and not _names_the_sampler(old):
            new.absorb(old.text)
            self.cause = new
        elif _lacks_figures(old, new):
            old.absorb(new.text)


def _lacks_figures(old: Cause, new: Cause) -> bool:
    """Whether `new` tells of the same failure what `old` left out: the sizes follow the sentence."""
    if old.absorbed >= WRAP_LINES or new.kind not in MEMORY_KINDS or "ried to allocate" in old.text:
        return False
    same = new.kind is old.kind and not numbers_in(old.text)
    return same or (old.kind is Kind.SAMPLER_OOM and "out of memory" in new.text)


def _names_the_sampler(cause: Cause) -> bool:
    """Whether the line is the engine's own sentence about the warm-up, which follows the bare OOM."""
    return cause.kind is Kind.SAMPLER_OOM and "dummy requests" in cause.line
