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
from typing import Any

from autolaunch.advice import advice
from autolaunch.causes import COMPILING, KILLED, OOM_OF_PHASE, PHASE_RULES, Weight
from autolaunch.crashes import RULES
from autolaunch.failure import MEMORY_KINDS, Failure, Kind, Phase
from autolaunch.figures import Effective, learn
from autolaunch.frames import Traceback
from autolaunch.logline import HEAD, TAIL, LogLine, parse, shorten
from autolaunch.progress import (
    DIED,
    DULL,
    FATAL_AFTER_READY,
    LISTENING,
    NOT_LISTENING,
    PHASES,
    READY,
    SHUTDOWN,
    START_IS_OVER,
    TELLS_OF_A_CRASH,
    TRIGGERS,
    WRAPPERS,
)
from autolaunch.refusals import is_remark, judge, thrown
from autolaunch.start import MAX_PROCESSES, WRAP_LINES, Cause, Start

__all__ = ["Effective", "Scanner", "advice", "diagnose", "diagnose_lines", "interesting", "to_json"]

_TRIGGERS_B = tuple(trigger.encode() for trigger in TRIGGERS)
_VERSION = re.compile(r"(?:version v?|LLM engine \(v)(\d+\.\d+[\w.+-]{0,60})")
_BROKEN = " \t\"'+,"  # what stands behind half a sentence in somebody's notes or source
_TAIL = 120
_SHORT = 5000  # lines of a pasted excerpt or note that are looked at even without a trigger
_GAP = " " * 16
_PIECES = re.compile(r"\r| {16,}(?=[\w.]{1,99}Error: )")  # a progress bar's lines; a terminal's with empty columns
_KILLED = frozenset({-9, 137})
_CRASHED = frozenset({-4, -6, -7, -8, -11, 132, 134, 135, 136, 139})
_STOPPED = frozenset({None, 0, -2, -15, 130, 143})


def interesting(chunk: bytes) -> bool:
    """Whether `chunk`, made of whole lines, may hold a line that changes a Scanner; never wrongly False."""
    return any(trigger in chunk for trigger in _TRIGGERS_B)


def _is_dull(line: str) -> bool:
    """Whether `line` is one of those that a busy server prints all day."""
    return DULL[0] in line or DULL[1] in line or DULL[2] in line or DULL[3] in line


class Scanner:
    """Reads an engine's output line by line and keeps the verdict so far in bounded memory.

    `excerpt` says that the start's beginning or end may be missing, as in a pasted log: then even the lines of
    a busy server are looked at, and a start that came far without an error counts as healthy. `installed` is the
    engine's version by its package: one whose command line is refused prints no banner.
    """

    def __init__(self, *, excerpt: bool = False, installed: str | None = None) -> None:
        self._excerpt = excerpt
        self._installed = installed
        self._count = 0
        self._start = Start(installed=installed)
        self._previous: Failure | None = None
        self._tail = ("", 0)

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
        return self._start.verdict(cause)

    def skip(self, lines: int) -> None:
        """Count `lines` lines that `interesting` said need no look."""
        self._count += lines

    def feed(self, line: str) -> None:
        """Take one line without its newline; any text is accepted."""
        self._count += 1
        dull = _is_dull(line)
        if dull and not (self._excerpt and self._start.phase is not Phase.SERVING):
            return
        if not dull:
            for trigger in TRIGGERS:
                if trigger in line:
                    break
            else:
                if not self._excerpt or self._count > _SHORT or "INFO " in line:
                    return
        for piece in _PIECES.split(line) if "\r" in line or _GAP in line else (line,):
            self._look(parse(piece if len(piece) <= HEAD + TAIL else shorten(piece)))

    def conclude(self, exit_code: int | None = None) -> Failure:
        """Return the verdict; `exit_code` is the process's, negative for a signal, None if unknown."""
        start = self._start
        cause = start.cause
        if start.ready and not start.dead and cause is not None and cause.kind not in MEMORY_KINDS:
            cause = None  # the error of one request
        if cause is not None and not (cause.weight is Weight.STRAY and exit_code in _KILLED):
            return start.verdict(cause)
        if start.nothing_left and (self._excerpt or exit_code not in _STOPPED):
            return start.bare(Kind.KV_NONE)
        if exit_code in _KILLED and not start.stopping:
            return start.bare(Kind.HOST_OOM)
        if exit_code in _CRASHED:
            return start.bare(Kind.OTHER_CRASH)
        if start.wrapper is not None and not start.stopping:
            return start.verdict(start.wrapper)
        if start.stopping or (start.ready and not start.dead and exit_code in _STOPPED):
            whole = start.past(Phase.CONFIG) and not start.past(Phase.KV_CACHE)  # it began here and came nowhere
            return start.bare(Kind.OK if start.ready or (self._excerpt and not whole) else Kind.UNKNOWN)
        if exit_code is None and self._excerpt:
            if start.past(Phase.KV_CACHE) and not start.dead:
                return start.bare(Kind.OK)  # healthy as far as the text goes
            if self._previous is not None and not start.past(Phase.INIT):
                return self._previous  # cut off while a restart had barely begun
        return start.bare(Kind.UNKNOWN)

    # --- one line

    def _look(self, line: LogLine) -> None:
        self._restart(line)
        start = self._start
        if 'File "' in line.text or line.text.startswith(("File /", "File “")):
            start.late_frame(start.traceback(line).frame(line.text, self._count))
            if line.low.startswith("file ") or start.traceback(line).line_number != self._count:
                return
        if line.calm or not line.level:
            self._progress(line)
        if any(text in line.low for text in SHUTDOWN) and not (start.dead or start.cause or start.wrapper):
            start.stopping = start.stopping or line.calm or (start.ready and not line.level)
        if line.calm or start.stopping:
            return
        if "traceback (most recent call last" in line.low:
            start.traceback(line).begin()
            if line.low.startswith("traceback"):
                return
        traceback = start.tracebacks.get(line.who + line.pid)
        if (traceback or Traceback()).is_source(line.text, self._count):
            start.late_frame(start.traceback(line).source(line.text))
            return
        self._judge(line)

    def _progress(self, line: LogLine) -> None:
        start, low = self._start, line.low
        for phase, texts in PHASES:
            if any(text in low for text in texts):
                if phase is not start.phase:
                    start.advance(phase)
                start.late_frame(OOM_OF_PHASE.get(phase))
                break
        start.effective = learn(start.effective, line.text)
        if start.version is None:
            match = _VERSION.search(line.text)
            start.version = match[1].rstrip(".,)") if match else None
        start.listening = start.listening or any(text in low for text in LISTENING)
        if not start.ready and any(text in low for text in READY):
            start.ready, start.cause, start.wrapper = True, None, None

    def _restart(self, line: LogLine) -> None:
        """Forget the start before, where this line begins another one."""
        start, text = self._start, line.text
        banner = "version " in text and ("\u2588" in text or "API server version" in text)
        engine = not banner and "LLM engine (v" in text
        early = start.over and line.calm and any(sign in text for sign in ("Using max model len", "non-default"))
        if not (banner or engine or early):
            return
        ended = start.cause is not None or start.wrapper is not None or start.ready or start.dead
        again = early or (banner and (ended or start.past(Phase.INIT)))
        if engine:
            known = start.engines.get(line.who)
            other_rank = line.who != "" and start.engines and known is None
            same = known is not None and line.pid != "" and known == line.pid
            again = (ended or start.past(Phase.LOAD)) and not other_rank and not same
        if again:
            self._previous = self.conclude()
            self._start = start = Start(installed=self._installed)
        if engine and len(start.engines) < MAX_PROCESSES:
            start.engines[line.who] = line.pid

    # --- causes

    def _judge(self, line: LogLine) -> None:
        start, low = self._start, line.low
        if start.ready and not start.dead:
            loops = start.traceback(line).loops and thrown(line) is not None
            start.dead = loops or any(text in low for text in FATAL_AFTER_READY)
        if any(text in low for text in START_IS_OVER):
            start.over = True
        if NOT_LISTENING in low and not start.listening:
            start.ready = False  # uvicorn starts the application before it binds the port
        if "method" in low or "during" in low:
            start.late_frame(start.traceback(line).message(line.text))
        cause = self._classify(line) or self._broken(line)
        self._tail = (line.text[-_TAIL:].rstrip(_BROKEN).removesuffix("\\n"), self._count)
        if cause is not None:
            start.propose(cause)
        elif any(text in low for text in WRAPPERS):
            told = TELLS_OF_A_CRASH if not start.ready else (*TELLS_OF_A_CRASH, DIED)
            if start.wrapper is None and any(text in low for text in told):
                start.wrapper = self._cause(line, Kind.OTHER_CRASH, Weight.WRAPPER)
        else:
            self._continue(line)

    def _cause(self, line: LogLine, kind: Kind, weight: Weight) -> Cause:
        return Cause(kind, weight, line.text, self._count, self._start.phase, line.text)

    def _classify(self, line: LogLine) -> Cause | None:
        start = self._start
        for rule in RULES:
            if rule.matches(line.low):
                if rule is KILLED and (start.over or start.dead or start.wrapper):
                    return None
                kind = self._where(line) if rule.kind is Kind.OOM else rule.kind
                if kind is Kind.CONFIG_ERROR and rule.weight is Weight.ROOT and start.traceback(line).runs:
                    break  # a model that runs asks for no arguments
                remark = rule.weight is Weight.ROOT and is_remark(line, start.traceback(line))
                return self._cause(line, kind, Weight.STRAY if remark else rule.weight)
        if any(text in line.low for text in WRAPPERS):
            return None
        return self._generic(line)

    def _broken(self, line: LogLine) -> Cause | None:
        """A sentence that somebody's notes broke over two lines; the engine itself breaks none."""
        tail, at = self._tail
        if not self._excerpt or not tail or at != self._count - 1:
            return None
        for rule in PHASE_RULES:
            if rule.matches(f"{tail} {line.text[:_TAIL]}".lower()) and not rule.matches(tail.lower()):
                cause = self._cause(line, rule.kind, rule.weight)
                cause.text = f"{tail} {line.text}"
                return cause
        return None

    def _generic(self, line: LogLine) -> Cause | None:
        name = thrown(line, quoted=self._excerpt)
        if name is None:
            return None
        start = self._start
        kind, weight = judge(name, line, start.traceback(line), serving=start.past(Phase.SERVING))
        cause = self._cause(line, kind, weight)
        cause.by_rule = False
        return cause

    def _where(self, line: LogLine) -> Kind:
        start = self._start
        if start.ready:
            return Kind.RUNTIME_OOM
        if any(text in line.low for text in COMPILING):
            return Kind.GRAPH_OOM  # within the profile run, and no matter of how much is run
        own = start.traceback(line)
        kind = own.oom_kind(start.phase) or OOM_OF_PHASE.get(start.phase)
        if kind is None and own.line_number == 0 and self._excerpt:  # a line that lost its prefix
            kind = start.latest_traceback().oom_kind(start.phase)
        return kind or Kind.OOM

    def _continue(self, line: LogLine) -> None:
        """A message may be wrapped over several lines; its figures then stand below it."""
        cause = self._start.cause
        if cause is not None and 0 < self._count - cause.line_number <= WRAP_LINES and not line.level:
            cause.absorb(line.text)


def diagnose_lines(lines: Iterable[str], *, exit_code: int | None = None) -> Failure:
    """Return the verdict on lines of engine output."""
    scanner = Scanner(excerpt=True)
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
