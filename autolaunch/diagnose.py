"""Engine output -> Failure: which of the many lines is the cause.

Owns the algorithm; what texts mean is `causes`, how a line is taken apart `logline`, what its figures are
`figures`, what to do `advice`. Must not touch files, processes or time. The rules:

1. The heaviest cause wins (`causes.Weight`), among equals the first: the earliest root error of the engine
   core or a worker. Wrappers ("Engine core initialization failed") only prove that something failed.
2. An allocation failure takes its kind from the traceback frames above it, else from the phase reached, else
   from frames below it, else it stays `oom`.
3. Lines that the engine itself calls INFO or WARNING are never a cause, source lines inside a traceback
   neither.
4. Readiness dismisses what was seen before. After it only an allocation failure, or an error together with
   the engine's death, counts; after a requested shutdown nothing does.
5. A new start in the same stream forgets the one before, unless it has barely begun when the text ends.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from autolaunch.advice import advice
from autolaunch.causes import (
    CONFIG_FRAMES,
    FATAL_AFTER_READY,
    FRAMES,
    KIND_PHASE,
    OOM_OF_PHASE,
    PHASES,
    READY,
    RULES,
    SHUTDOWN,
    TELLS_OF_A_CRASH,
    TRIGGERS,
    WRAPPERS,
    Weight,
)
from autolaunch.failure import MEMORY_KINDS, Failure, Kind, Phase
from autolaunch.figures import Effective, learn, numbers_in
from autolaunch.logline import HEAD, TAIL, LogLine, parse, shorten

__all__ = ["Effective", "Scanner", "advice", "diagnose", "diagnose_lines", "interesting", "to_json"]

_PHASE_ORDER = {phase: index for index, phase in enumerate(Phase)}
_TRIGGERS_B = tuple(trigger.encode() for trigger in TRIGGERS)
_FRAME = re.compile(r'File "([^"]{0,400})", line \d+, in (\w+)')
_EXCEPTION = re.compile(
    r"^(?:\d{1,4}: )?([A-Za-z_][\w.]{0,120}(?:Error|Exception|Exit|Timeout|Failed|Interrupt))(?::|$)"
)
_VERSION = re.compile(r"(?:version v?|LLM engine \(v)(\d+\.\d+[\w.+-]{0,60})")
_METHOD = re.compile(r"(?:executing method|processing method|during) [`'\"]?(\w+)")
_SOURCE = (
    "raise ",
    "return ",
    "self.",
    "assert ",
    'file "',
    "logger.",
    "^^^",
    "await ",
    "with ",
    'f"',
    '"',
    "if ",
    "except ",
    "~~~",
)
_ENGINE_WHO = ("EngineCore", "Worker", "VllmWorker", "RayWorker", "RayTrain")
_ENGINE_FILES = frozenset(
    {"core.py", "multiproc_executor.py", "multiproc_worker_utils.py", "worker_base.py", "gpu_model_runner.py",
     "gpu_worker.py", "worker.py", "model_runner.py", "engine.py", "async_llm_engine.py"}
)  # fmt: skip
_NOT_A_CAUSE = frozenset(
    {"KeyboardInterrupt", "SystemExit", "asyncio.exceptions.CancelledError", "CancelledError", "BrokenPipeError",
     "EOFError", "GeneratorExit", "StopIteration", "StopAsyncIteration", "asyncio.exceptions.TimeoutError"}
)  # fmt: skip
_KILLED = frozenset({-9, 137})
_CRASHED = frozenset({-4, -6, -7, -8, -11, 132, 134, 135, 136, 139})
_STOPPED = frozenset({None, 0, -2, -15, 130, 143})
_WRAP_LINES = 8
_EVIDENCE = 4096
_MAX_PROCESSES = 64


@dataclass(slots=True)
class _Traceback:
    """What the traceback that a process is printing has shown so far."""

    file_line: int = 0
    in_profile: bool = False
    nearest: Kind | None = None
    executes: bool = False
    config: bool = False
    own: bool = False
    since: int = 0

    def clear(self) -> None:
        self.file_line, self.in_profile, self.nearest = 0, False, None
        self.executes = self.config = self.own = False

    def oom_kind(self) -> Kind | None:
        if self.in_profile and self.nearest is not Kind.SAMPLER_OOM:
            return Kind.PROFILE_OOM
        if self.nearest is not None:
            return self.nearest
        return Kind.RUNTIME_OOM if self.executes else None

    def enter(self, path: str, name: str) -> None:
        kind = FRAMES.get(name)
        if kind is None and "/model_loader/" in path:
            kind = Kind.WEIGHTS_OOM
        if kind is None and path.endswith("cache_engine.py"):
            kind = Kind.KV_ALLOC_OOM
        self.in_profile = self.in_profile or kind is Kind.PROFILE_OOM
        self.nearest = kind or self.nearest
        self.executes = self.executes or name == "execute_model"
        self.config = self.config or name in CONFIG_FRAMES
        self.own = "/vllm/" in path and "/model_loader/" not in path


@dataclass(slots=True)
class _Cause:
    kind: Kind
    weight: Weight
    line: str
    line_number: int
    phase: Phase
    text: str
    from_engine: bool = False

    def absorb(self, text: str) -> None:
        if len(self.text) + len(text) < _EVIDENCE:
            self.text = self.text + " " + text


@dataclass(slots=True)
class _Start:
    """Everything known of one engine start."""

    phase: Phase = Phase.IMPORT
    version: str | None = None
    effective: Effective = field(default_factory=Effective)
    cause: _Cause | None = None
    wrapper: _Cause | None = None
    ready: bool = False
    dead: bool = False
    stopping: bool = False
    engines: dict[str, str] = field(default_factory=dict)
    tracebacks: dict[str, _Traceback] = field(default_factory=dict)


def interesting(chunk: bytes) -> bool:
    """Whether `chunk`, made of whole lines, may hold a line that changes a Scanner's state; never wrongly False."""
    return any(trigger in chunk for trigger in _TRIGGERS_B)


class Scanner:
    """Reads an engine's output line by line and keeps the verdict so far in bounded memory."""

    def __init__(self) -> None:
        self._count = 0
        self._start = _Start()
        self._previous: Failure | None = None

    @property
    def phase(self) -> Phase:
        """The furthest phase that the current start has reached."""
        return self._start.phase

    @property
    def engine_version(self) -> str | None:
        """The version in the banner of the current start."""
        return self._start.version

    @property
    def effective(self) -> Effective:
        """What the engine said about its own sizes."""
        return self._start.effective

    @property
    def ready(self) -> bool:
        """Whether the API server said that it is up."""
        return self._start.ready

    @property
    def failure(self) -> Failure | None:
        """The cause, once a line has been seen that no start survives; None before."""
        cause = self._start.cause
        if cause is None or cause.weight is not Weight.DECISIVE:
            return None
        return self._verdict(cause)

    def skip(self, lines: int) -> None:
        """Count lines that `interesting` said need no look."""
        self._count += lines

    def feed(self, line: str) -> None:
        """Take one line without its newline; any text is accepted."""
        self._count += 1
        for trigger in TRIGGERS:
            if trigger in line:
                break
        else:
            return
        if "\r" in line:
            for piece in line.split("\r"):
                if piece and any(trigger in piece for trigger in TRIGGERS):
                    self._look(shorten(piece))
        else:
            self._look(line if len(line) <= HEAD + TAIL else shorten(line))

    def conclude(self, exit_code: int | None = None) -> Failure:
        """Return the verdict; `exit_code` is the process's, negative for a signal, None if unknown."""
        start = self._start
        cause = start.cause
        if start.ready and not start.dead and cause is not None and cause.kind not in MEMORY_KINDS:
            cause = None  # a request's error
        if cause is not None and not (cause.weight is Weight.STRAY and exit_code in _KILLED):
            return self._verdict(cause)
        if exit_code in _KILLED and not start.stopping:
            return self._bare(Kind.HOST_OOM)
        if exit_code in _CRASHED:
            return self._bare(Kind.OTHER_CRASH)
        if start.wrapper is not None and not start.stopping:
            return self._verdict(start.wrapper)
        if start.stopping or (start.ready and not start.dead and exit_code in _STOPPED):
            return self._bare(Kind.OK if start.ready or exit_code is None else Kind.UNKNOWN)
        if exit_code is None:
            if _PHASE_ORDER[start.phase] >= _PHASE_ORDER[Phase.KV_CACHE] and not start.dead:
                return self._bare(Kind.OK)  # healthy as far as the text goes
            if self._previous is not None and _PHASE_ORDER[start.phase] < _PHASE_ORDER[Phase.INIT]:
                return self._previous  # cut off while a restart had barely begun
        return self._bare(Kind.UNKNOWN)

    # --- verdicts

    def _bare(self, kind: Kind) -> Failure:
        return Failure(
            kind, phase=self._start.phase, numbers=self._known(), engine_version=self._start.version
        )

    def _known(self) -> dict[str, float]:
        said = self._start.effective
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

    def _verdict(self, cause: _Cause) -> Failure:
        least = KIND_PHASE.get(cause.kind, Phase.IMPORT)
        return Failure(
            cause.kind,
            line=cause.line,
            line_number=cause.line_number,
            phase=max(cause.phase, least, key=_PHASE_ORDER.__getitem__),
            numbers={**self._known(), **numbers_in(cause.text)},
            engine_version=self._start.version,
        )

    # --- one line

    def _look(self, raw: str) -> None:
        line = parse(raw)
        if line.text.startswith('File "') or 'File "' in line.text[:40]:
            self._frame(line)
            return
        self._restart(line)
        start = self._start
        if line.calm or not line.level:
            self._progress(line)
        if any(text in line.low for text in SHUTDOWN) and not (start.dead or start.cause):
            start.stopping = start.stopping or line.calm or start.ready
        if line.calm or start.stopping:
            return
        if "Traceback (most recent call last)" in line.text:
            self._traceback(line).clear()
            return
        if self._is_source(line):
            return
        self._judge(line)

    def _traceback(self, line: LogLine) -> _Traceback:
        tracebacks = self._start.tracebacks
        key = line.who + line.pid
        if key not in tracebacks:
            if len(tracebacks) >= _MAX_PROCESSES:
                tracebacks.pop(next(iter(tracebacks)))
            tracebacks[key] = _Traceback()
        return tracebacks[key]

    def _frame(self, line: LogLine) -> None:
        match = _FRAME.search(line.text)
        if match is None:
            return
        traceback = self._traceback(line)
        traceback.file_line = self._count
        traceback.enter(match[1].replace("\\", "/"), match[2])
        self._late_frame(FRAMES.get(match[2]))

    def _late_frame(self, kind: Kind | None) -> None:
        """Frames below a lone allocation failure say where it happened, where nothing above did."""
        cause = self._start.cause
        if kind is not None and cause is not None and cause.kind is Kind.OOM:
            cause.kind = kind

    def _is_source(self, line: LogLine) -> bool:
        if line.low.startswith(_SOURCE):
            return True
        traceback = self._start.tracebacks.get(line.who + line.pid)
        return (
            traceback is not None
            and traceback.file_line == self._count - 1
            and not _EXCEPTION.match(line.text)
        )

    def _progress(self, line: LogLine) -> None:
        start, low = self._start, line.low
        for phase, texts in PHASES:
            if any(text in low for text in texts):
                if _PHASE_ORDER[phase] > _PHASE_ORDER[start.phase]:
                    start.phase = phase
                if start.cause is not None and start.cause.kind is Kind.OOM:
                    self._late_frame(OOM_OF_PHASE.get(phase))
                break
        start.effective = learn(start.effective, line.text)
        if start.version is None:
            match = _VERSION.search(line.text)
            start.version = match[1].rstrip(".,)") if match else None
        if not start.ready and any(text in low for text in READY):
            start.ready, start.cause, start.wrapper = True, None, None

    def _restart(self, line: LogLine) -> None:
        """Forget the start before, where this line begins another one."""
        start = self._start
        banner = "version " in line.text and ("\u2588" in line.text or "API server version" in line.text)
        engine = not banner and "LLM engine (v" in line.text
        if not (banner or engine):
            return
        ended = start.cause is not None or start.wrapper is not None or start.ready or start.dead
        begun = _PHASE_ORDER[start.phase] >= _PHASE_ORDER[Phase.LOAD]
        again = banner and (ended or _PHASE_ORDER[start.phase] >= _PHASE_ORDER[Phase.INIT])
        if engine:
            known = start.engines.get(line.who)
            other_rank = line.who != "" and start.engines and known is None
            again = (
                (ended or begun) and not other_rank and (known is None or known != line.pid or not line.pid)
            )
        if again:
            self._previous = self.conclude()
            self._start = start = _Start()
        if engine and len(start.engines) < _MAX_PROCESSES:
            start.engines[line.who] = line.pid

    # --- causes

    def _judge(self, line: LogLine) -> None:
        start, low = self._start, line.low
        if start.ready and any(text in low for text in FATAL_AFTER_READY):
            start.dead = True
        method = _METHOD.search(line.text)
        if method is not None:
            self._mark_method(line, method[1])
        kind_weight = self._classify(line)
        if kind_weight is None:
            if any(text in low for text in WRAPPERS):
                if start.wrapper is None and any(text in low for text in TELLS_OF_A_CRASH):
                    start.wrapper = self._cause(line, Kind.OTHER_CRASH, Weight.WRAPPER)
                return
            self._continue(line)
            return
        self._propose(self._cause(line, *kind_weight))

    def _mark_method(self, line: LogLine, name: str) -> None:
        kind = FRAMES.get(name)
        if kind is not None:
            self._traceback(line).enter("", name)
            self._late_frame(kind)

    def _cause(self, line: LogLine, kind: Kind, weight: Weight) -> _Cause:
        return _Cause(
            kind, weight, line.text, self._count, self._start.phase, line.text, self._from_engine(line)
        )

    def _from_engine(self, line: LogLine) -> bool:
        return line.who.startswith(_ENGINE_WHO) or line.file.rpartition("/")[2] in _ENGINE_FILES

    def _classify(self, line: LogLine) -> tuple[Kind, Weight] | None:
        low = line.low
        for rule in RULES:
            if rule.matches(low):
                if rule.kind is Kind.OOM:
                    return self._where(line), rule.weight
                return rule.kind, rule.weight
        return self._generic(line)

    def _generic(self, line: LogLine) -> tuple[Kind, Weight] | None:
        match = _EXCEPTION.match(line.text)
        if match is None or match[1] in _NOT_A_CAUSE or any(text in line.low for text in WRAPPERS):
            return None
        traceback = self._traceback(line)
        name = match[1].rpartition(".")[2]
        refusal = name in {"ValueError", "NotImplementedError"} and traceback.own
        if refusal or (traceback.config and name.endswith("Error")):
            return Kind.CONFIG_ERROR, Weight.ROOT if self._from_engine(
                line
            ) or traceback.config else Weight.STRAY
        return Kind.OTHER_CRASH, Weight.ROOT if self._from_engine(line) else Weight.STRAY

    def _where(self, line: LogLine) -> Kind:
        kind = self._traceback(line).oom_kind()
        if self._start.ready:
            return Kind.RUNTIME_OOM
        return kind or OOM_OF_PHASE.get(self._start.phase, Kind.OOM)

    def _propose(self, new: _Cause) -> None:
        old = self._start.cause
        if old is None or new.weight > old.weight:
            self._start.cause = new
        elif new.kind is Kind.SAMPLER_OOM and old.kind in MEMORY_KINDS and old.kind is not Kind.SAMPLER_OOM:
            new.absorb(old.text)
            self._start.cause = new
        elif new.kind is old.kind and not numbers_in(old.text):
            old.absorb(new.text)

    def _continue(self, line: LogLine) -> None:
        """A message may be wrapped over several lines; its figures then stand below it."""
        cause = self._start.cause
        if cause is not None and 0 < self._count - cause.line_number <= _WRAP_LINES and not line.level:
            cause.absorb(line.text)


def diagnose_lines(lines: Iterable[str], *, exit_code: int | None = None) -> Failure:
    """Return the verdict on lines of engine output."""
    scanner = Scanner()
    for line in lines:
        scanner.feed(line.rstrip("\n"))
    return scanner.conclude(exit_code)


def diagnose(text: str | bytes, *, exit_code: int | None = None) -> Failure:
    """Return the verdict on a whole log, or any excerpt of one."""
    if isinstance(text, bytes):
        wide = text.startswith((b"\xff\xfe", b"\xfe\xff"))  # a log redirected by PowerShell
        text = text.decode("utf-16" if wide else "utf-8", errors="replace")
    return diagnose_lines(text.split("\n"), exit_code=exit_code)


def to_json(failure: Failure) -> dict[str, Any]:
    """Return the Contract's shape of `diagnose --json`."""
    return {
        "v": 1,
        "kind": failure.kind.value,
        "line": failure.line,
        "line_number": failure.line_number,
        "phase": failure.phase.value,
        "numbers": dict(failure.numbers),
        "memory": failure.memory,
        "advice": list(advice(failure)),
        "engine_version": failure.engine_version,
    }
